/* See fetch.h. */
#include "fetch.h"
#include <errno.h>

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"

struct fetch {
    int port, fd; /* -1: not connected */
    size_t n;
    char *body;
    char answer[256 * 1024];
};

struct fetch *fetch_new(int port)
{
    struct fetch *f = calloc(1, sizeof *f);

    MUST(f, "out of memory");
    f->port = port;
    f->fd = -1;
    return f;
}

void fetch_free(struct fetch *f)
{
    if (f && f->fd >= 0)
        close(f->fd);
    free(f);
}

static bool open_fd(struct fetch *f)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)f->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {10, 0};

    f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(f->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return f->fd >= 0 && connect(f->fd, (struct sockaddr *)&to, sizeof to) == 0;
}

static const char *header(const struct fetch *f, const char *name)
{
    const char *at = strcasestr(f->answer, name);

    return at && at < f->body ? at + strlen(name) : NULL;
}

/* -> whether a whole answer is there */
static bool read_answer(struct fetch *f)
{
    size_t whole = 0;

    f->n = 0;
    f->body = NULL;
    while (!f->body || f->n < whole) {
        ssize_t n = read(f->fd, f->answer + f->n, sizeof f->answer - 1 - f->n);
        if (n < 0 && errno == EINTR) /* a child has been stopped, or goes on */
            continue;
        if (n <= 0)
            return false;
        f->n += (size_t)n;
        f->answer[f->n] = '\0';
        if (f->body || !(f->body = strstr(f->answer, "\r\n\r\n")))
            continue;
        f->body += 4;
        const char *length = header(f, "\r\nContent-Length:");
        whole = (size_t)(f->body - f->answer) + (length ? strtoul(length, NULL, 10) : 0);
    }
    return true;
}

int fetch_get(struct fetch *f, const char *path, int64_t *version)
{
    char request[512];
    int n = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);

    if (version)
        *version = 0;
    if ((f->fd < 0 && !open_fd(f)) || write(f->fd, request, (size_t)n) != n || !read_answer(f)) {
        close(f->fd);
        f->fd = -1;
        return 0;
    }
    const char *tag = header(f, "\r\nETag: \"");
    if (version && tag)
        *version = strtoll(tag, NULL, 10);
    return atoi(f->answer + strlen("HTTP/1.1 "));
}

const char *fetch_body(const struct fetch *f)
{
    return f->body;
}

int64_t fetch_metric(int port, const char *name)
{
    struct fetch *f = fetch_new(port);
    char line[128];

    MUST(fetch_get(f, "/metrics", NULL) == 200, "no metrics");
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(f->body, line);
    MUST(at, "no metric %s", name);
    int64_t v = strtoll(at + strlen(line), NULL, 10);
    fetch_free(f);
    return v;
}
