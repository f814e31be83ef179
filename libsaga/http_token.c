/* The bearer token. See http_token.h. */
#include "http_token.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http_file.h"
#include "log.h"

enum { TOKEN_MIN = 16, TOKEN_MAX = 256 };

/* As it is compared: filled up with zeros, so that each comparison passes all of it. */
struct token {
    unsigned char at[TOKEN_MAX];
};

static struct saga_file file;
static struct token token;
static bool needed;

/* RFC 6750's b64token, 16 to 256 of its characters; an end of line belongs to the file. */
static bool read_token(const char *text, struct token *to)
{
    size_t n = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/");
    n += strspn(text + n, "=");
    if (n < TOKEN_MIN || n > TOKEN_MAX || text[n + strspn(text + n, "\r\n")])
        return false;
    memset(to->at, 0, sizeof to->at);
    memcpy(to->at, text, n);
    return true;
}

static int read_file(struct saga_err *err)
{
    char *text;
    size_t n;
    int rc = saga_file_read(&file, TOKEN_MAX + 2, true, &text, &n, err);
    if (rc == 0 && !read_token(text, &token))
        rc = saga_err(err, SAGA_FATAL,
                      "HTTP_TOKEN_FILE=%.120s: expected one line of %d to %d of the characters A-Z "
                      "a-z 0-9 - . _ ~ + / =",
                      file.path, TOKEN_MIN, TOKEN_MAX);
    free(text);
    return rc;
}

int saga_token_init(const char *path, struct saga_err *err)
{
    file = (struct saga_file){.variable = "HTTP_TOKEN_FILE", .path = path};
    needed = path && *path;
    return needed ? read_file(err) : 0;
}

void saga_token_renew(bool now)
{
    struct saga_err err = {0};
    if (!needed || !(now || saga_file_changed(&file)))
        return;
    if (read_file(&err) < 0)
        saga_log_text(SAGA_ERROR, "the token stays as it was", err.text);
    else
        saga_log_text(SAGA_INFO, "the token is read again", file.path);
}

bool saga_token_needed(void)
{
    return needed;
}

bool saga_token_fits(const char *authorization)
{
    struct token given;
    unsigned char differs = 0;
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return false;
    authorization += 7;
    if (!read_token(authorization + strspn(authorization, " "), &given))
        return false;
    for (size_t i = 0; i < sizeof given.at; i++)
        differs |= given.at[i] ^ token.at[i];
    return differs == 0;
}
