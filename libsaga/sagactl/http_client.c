/* Asks the services by libcurl. */
#include "http_client.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "mem.h"

const struct ctl_service ctl_services[CTL_SERVICES] = {
    {"order-svc", "ORDER_URL", "http://127.0.0.1:8081"},
    {"inventory-svc", "INVENTORY_URL", "http://127.0.0.1:8082"},
    {"payment-svc", "PAYMENT_URL", "http://127.0.0.1:8083"},
};

const struct ctl_service *ctl_service(const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; i < CTL_SERVICES; i++) {
        const char *full = ctl_services[i].name;
        if (n && strncmp(full, name, n) == 0 && (!full[n] || strcmp(full + n, "-svc") == 0))
            return &ctl_services[i];
    }
    return NULL;
}

const char *ctl_url(const struct ctl_service *service)
{
    return ctl_env(service->variable, service->url);
}

static size_t take(char *data, size_t size, size_t n, void *to)
{
    saga_buf_add(to, data, size * n);
    return size * n;
}

static CURL *session(void)
{
    static CURL *curl;
    if (!curl) {
        curl_global_init(CURL_GLOBAL_DEFAULT);
        curl = curl_easy_init();
    }
    if (!curl)
        ctl_die(CTL_AWAY, "libcurl does not start");
    curl_easy_reset(curl); /* keeps the connection */
    return curl;
}

/* What every question carries: the services' token, and whom to believe about who they are. */
static struct curl_slist *identify(CURL *curl)
{
    const char *token = ctl_env("SAGA_TOKEN", ""), *ca = ctl_env("SAGA_CA_FILE", "");
    struct saga_buf line = {0};
    struct curl_slist *headers = NULL;
    if (*ca)
        curl_easy_setopt(curl, CURLOPT_CAINFO, ca);
    if (*token) {
        saga_buf_printf(&line, "Authorization: Bearer %s", token);
        saga_buf_add(&line, "", 1);
        headers = curl_slist_append(NULL, line.at);
    }
    saga_buf_free(&line);
    return headers;
}

static struct curl_slist *add(struct curl_slist *headers, const char *name, const char *value)
{
    char line[300];
    if (!value)
        return headers;
    snprintf(line, sizeof line, "%s: %s", name, value);
    return curl_slist_append(headers, line);
}

static struct curl_slist *post(CURL *curl, struct curl_slist *headers, const json_t *body,
                               const struct ctl_condition *when, char **text)
{
    headers = add(headers, "Content-Type", "application/json");
    if (when) {
        headers = add(headers, "Idempotency-Key", when->key);
        headers = add(headers, "If-Match", when->match);
    }
    *text = json_dumps(body, JSON_COMPACT);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, *text);
    return headers;
}

long ctl_http(const struct ctl_service *service, const char *path, const json_t *body,
              const struct ctl_condition *when, json_t **json, char **text, const char **why)
{
    CURL *curl = session();
    struct saga_buf url = {0}, answer = {0};
    struct curl_slist *headers = identify(curl);
    char *sent = NULL;
    long status = 0;
    saga_buf_str(&url, ctl_url(service));
    while (url.n && url.at[url.n - 1] == '/')
        url.n--;
    saga_buf_add(&url, path, strlen(path) + 1);
    curl_easy_setopt(curl, CURLOPT_URL, url.at);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 2000L);
    /* what is decided about a lane may read much of Kafka first */
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
                     body && !strncmp(path, "/lanes/", 7) ? 600000L : 10000L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L); /* an order may be called ".." */
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    if (body)
        headers = post(curl, headers, body, when, &sent);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    CURLcode rc = curl_easy_perform(curl);
    if (rc == CURLE_OK)
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    else if (why)
        *why = curl_easy_strerror(rc);
    if (json)
        *json = status ? json_loadb(answer.at ? answer.at : "", answer.n, 0, NULL) : NULL;
    saga_buf_add(&answer, "", 1);
    if (text)
        *text = answer.at;
    else
        saga_buf_free(&answer);
    curl_slist_free_all(headers);
    free(sent);
    saga_buf_free(&url);
    return status;
}

void ctl_refused(const char *service, long status, const json_t *json)
{
    const char *detail = json_string_value(json_object_get(json, "detail"));
    ctl_die(status == 503 ? CTL_AWAY : CTL_NO, "%s: %s (HTTP %ld)", service,
            detail ? detail : "no reason given", status);
}

json_t *ctl_get(const char *name, const char *format, ...)
{
    char path[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(path, sizeof path, format, args);
    va_end(args);
    const struct ctl_service *service = ctl_service(name);
    const char *why = NULL;
    json_t *json;
    long status = ctl_http(service, path, NULL, NULL, &json, NULL, &why);
    if (status == 0)
        ctl_die(CTL_AWAY, "%s does not answer at %s (%s): %s", service->name, ctl_url(service),
                service->variable, why);
    if (status == 404) {
        json_decref(json);
        return NULL;
    }
    if (status != 200 || !json)
        ctl_refused(service->name, status, json);
    return json;
}

char *ctl_escape(const char *s)
{
    char *escaped = curl_easy_escape(session(), s, 0);
    char *copy = strdup(escaped ? escaped : "");
    curl_free(escaped);
    return copy;
}
