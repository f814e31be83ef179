/* HTTP from outside. See web.h. */
#include "web.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "test.h"

static CURL *handle(void) /* one for all: it keeps its connections */
{
    static CURL *curl;

    if (!curl) {
        curl_global_init(CURL_GLOBAL_ALL);
        curl = curl_easy_init();
        MUST(curl != NULL, "curl");
        atexit(curl_global_cleanup);
    }
    curl_easy_reset(curl);
    return curl;
}

static size_t take(char *data, size_t one, size_t n, void *memory)
{
    return fwrite(data, one, n, memory);
}

static const char *token;

void web_token(const char *t)
{
    token = t;
}

/* Takes headers. */
static long perform(CURL *curl, struct curl_slist *headers, json_t **body)
{
    char *answer = NULL;
    size_t n = 0;
    FILE *memory = open_memstream(&answer, &n);
    long status = 0;

    if (token)
        headers = curl_slist_append(headers, text("Authorization: Bearer %s", token));
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 5000L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, memory);
    if (curl_easy_perform(curl) == CURLE_OK)
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    fclose(memory);
    if (body)
        *body = status ? json_loadb(answer, n, 0, NULL) : NULL;
    free(answer);
    curl_slist_free_all(headers);
    return status;
}

long web_get(json_t **body, const char *format, ...)
{
    CURL *curl = handle();
    char *url;
    va_list args;

    va_start(args, format);
    MUST(vasprintf(&url, format, args) >= 0, "out of memory");
    va_end(args);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    long status = perform(curl, NULL, body);
    free(url);
    return status;
}

long web_post(json_t **body, const char *url, const char *const *headers, const char *json)
{
    CURL *curl = handle();
    struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json");

    for (; headers && *headers; headers++)
        list = curl_slist_append(list, *headers);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, json);
    return perform(curl, list, body);
}
