/* Settings: the input is lines NAME=value, which become the environment. What is taken is within
 * its limits; what is refused is one line that begins with a variable of the input. */
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "events.h"
#include "fuzz.h"
#include "json_bytes.h"

/* The services' headers do not go together in one file. */
extern const struct saga_setting order_settings[], payment_settings[];

static const struct saga_service services[] = {
    {.name = "order", .settings = order_settings, .http_port = 8081},
    {.name = "payment", .settings = payment_settings, .http_port = 8083}};

static bool ours(const char *line)
{
    return strncmp(line, "SAGA_", 5) == 0 || strncmp(line, "KAFKA_", 6) == 0 ||
           strncmp(line, "HTTP_LISTEN=", 12) == 0 || strncmp(line, "LOG_LEVEL=", 10) == 0 ||
           strncmp(line, "DATABASE_URL=", 13) == 0 || strncmp(line, "PAYMENT_PROVIDER", 16) == 0;
}

/* Until the next input; the variables of whoever runs us are not for the services. */
static void set_environment(const char *text, size_t n)
{
    char *rest = saga_arena_text(&fuzz_arena, text, n), *line;
    clearenv();
    while ((line = strsep(&rest, "\n")))
        if (ours(line) && strchr(line, '='))
            putenv(line);
}

static void settings_within(const struct saga_setting *s)
{
    for (; s && s->name; s++)
        if (s->to)
            MUST(*s->to >= s->min && (!s->max || *s->to <= s->max), "%s: %lld", s->name,
                 (long long)*s->to);
}

static void good(const struct saga_conf *c)
{
    const int64_t numbers[] = {c->callers,         c->call_timeout, c->outbox_keep,
                               c->outbox_bytes,    c->lock_wait,    c->hold_wait,
                               c->session_timeout, c->report_wait,  c->batch_records};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        MUST(numbers[i] > 0, "number %zu is %lld", i, (long long)numbers[i]);
    MUST(c->memory >= 0 && strchr(c->http_listen, ':') && strlen(c->prefix) <= 100, "%s",
         c->http_listen);
    MUST(strlen(c->instance) >= 1 && strlen(c->instance) <= 64, "%s", c->instance);
}

static void refused(const struct saga_err *err)
{
    const char *is = strchr(err->text, '=');
    MUST(err->code == SAGA_FATAL && json_utf8_ok(err->text, strlen(err->text)), "%s", err->text);
    MUST(is, "it names no variable: %s", err->text);
    const char *value = getenv(text("%.*s", (int)(is - err->text), err->text));
    MUST(value && *value && (strstr(is, "expected ") || strstr(is, "cannot be read")), "%s",
         err->text);
}

/* What saga_conf_read() has made for good, for us to free: it is called once in a process. */
static void free_made(const struct saga_conf *c)
{
    const char *listen = getenv("HTTP_LISTEN"), *instance = getenv("SAGA_INSTANCE");
    if (!listen || !*listen)
        free((char *)(uintptr_t)c->http_listen);
    if (!instance || !*instance)
        free((char *)(uintptr_t)c->instance);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char name[] = "svc", *argv[] = {name, NULL};
    set_environment((const char *)data, n);
    for (size_t i = 0; i < sizeof services / sizeof *services; i++) {
        struct saga_conf conf;
        struct saga_err err = {0};
        bool exit_now;
        if (saga_conf_read(&conf, &services[i], 1, argv, &exit_now, &err) < 0) {
            refused(&err);
            continue;
        }
        good(&conf);
        settings_within(services[i].settings);
        free_made(&conf);
    }
    clearenv();
    fuzz_clean();
    return 0;
}
