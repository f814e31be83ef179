/* Reads the settings: environment variables in a table of name, default, meaning and place, so that
 * --help, reading and refusing cannot disagree. */
#include "conf.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "event.h"
#include "kafka_file.h"
#include "log.h"
#include "mem.h"

#ifndef SAGA_VERSION
#define SAGA_VERSION "1.0.0"
#endif

#define SECOND INT64_C(1000000)
#define MIB    (INT64_C(1) << 20)

struct unit {
    const char *name;
    int64_t factor;
};

/* A setting is of the kind of its default, and what it is without a unit is the kind's first. */
static const struct unit durations[] = {{"", SECOND},         {"s", SECOND},        {"ms", 1000},
                                        {"min", 60 * SECOND}, {"h", 3600 * SECOND}, {NULL, 0}};
static const struct unit sizes[] = {
    {"", 1},  {"B", 1}, {"KiB", INT64_C(1) << 10}, {"MiB", MIB}, {"GiB", INT64_C(1) << 30},
    {NULL, 0}};
static const struct unit counts[] = {{"", 1}, {NULL, 0}};

static const struct unit *unit_of(const struct unit *units, const char *name)
{
    for (; units->name; units++)
        if (strcmp(units->name, name) == 0)
            return units;
    return NULL;
}

static const struct unit *kind_of(const char *value)
{
    const char *unit = value + strspn(value, "0123456789");
    if (!*unit)
        return counts;
    return unit_of(sizes, unit) ? sizes : durations;
}

static bool number(const char *text, const struct unit *units, int64_t *v)
{
    size_t digits = strspn(text, "0123456789");
    const struct unit *unit = unit_of(units, text + digits);
    errno = 0;
    int64_t n = digits ? strtoll(text, NULL, 10) : 0;
    return digits && unit && !errno && !__builtin_mul_overflow(n, unit->factor, v);
}

/* v in the largest unit that divides it, for messages. */
static const char *spell(int64_t v, const struct unit *units, char *out, size_t n)
{
    const struct unit *best = units;
    for (const struct unit *u = units; u->name; u++)
        if (v && v % u->factor == 0 &&
            (u->factor > best->factor || v % best->factor != 0 || !*best->name))
            best = u;
    snprintf(out, n, "%" PRId64 "%s", v / best->factor, best->name);
    return out;
}

static int read_number(const struct saga_setting *s, const char *text, struct saga_err *err)
{
    const struct unit *units = kind_of(s->value);
    int64_t max = s->max ? s->max : INT64_MAX;
    if (number(text, units, s->to) && *s->to >= s->min && *s->to <= max)
        return 0;
    const char *what = units == durations ? "a duration (900, 900s, 250ms, 10min)"
                       : units == sizes   ? "a size (1048576, 512KiB, 16MiB, 1GiB)"
                                          : "a whole number";
    char least[32], most[32], range[80];
    snprintf(range, sizeof range, s->max ? " from %s to %s" : " of at least %s",
             spell(s->min, units, least, sizeof least),
             s->max ? spell(max, units, most, sizeof most) : "");
    return saga_err(err, SAGA_FATAL, "%s=%.40s: expected %s%s", s->name, text, what, range);
}

static int read_text(const struct saga_setting *s, const char *text, struct saga_err *err)
{
    char accepted[120];
    size_t n = 0;

    *s->text = text;
    if (!s->names)
        return 0;
    for (int i = 0; s->names[i]; i++) {
        if (strcmp(s->names[i], text) == 0)
            return 0;
        n +=
            (size_t)snprintf(accepted + n, sizeof accepted - n, "%s%s", i ? ", " : "", s->names[i]);
        assert(n < sizeof accepted);
    }
    return saga_err(err, SAGA_FATAL, "%s=%.40s: expected one of %s", s->name, text, accepted);
}

/* An empty variable counts as one that is not set. */
static int read_settings(const struct saga_setting *s, struct saga_err *err)
{
    for (; s && s->name; s++) {
        const char *text = getenv(s->name);
        if (!text || !*text)
            text = s->value;
        if ((s->text ? read_text(s, text, err) : read_number(s, text, err)) < 0)
            return err ? err->code : SAGA_FATAL;
    }
    return 0;
}

static int check_listen(const char *listen, int64_t *port, struct saga_err *err)
{
    const char *colon = strrchr(listen, ':');
    if (!colon || colon == listen || !number(colon + 1, counts, port) || *port > 65535)
        return saga_err(err, SAGA_FATAL,
                        "HTTP_LISTEN=%.60s: expected address:port, as 127.0.0.1:8081, "
                        "[::1]:8081, or with port 0 for any free one",
                        listen);
    return 0;
}

static int check_prefix(const char *prefix, struct saga_err *err)
{
    size_t n = strspn(prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (prefix[n] || n > 100)
        return saga_err(err, SAGA_FATAL,
                        "SAGA_TOPIC_PREFIX=%.60s: expected at most 100 of the characters that "
                        "Kafka allows in topics, A-Z a-z 0-9 . _ -",
                        prefix);
    return 0;
}

static int check_level(const char *level, struct saga_err *err)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++)
        if (strcmp(level, levels[i]) == 0)
            return 0;
    return saga_err(err, SAGA_FATAL, "LOG_LEVEL=%.40s: expected debug, info, warn or error", level);
}

/* The member's name in the consumer group, the same after a restart: then nothing moves. With any
 * free port two processes of a host would have one name, hence the pid. */
static const char *default_instance(int64_t port)
{
    char host[65] = "localhost";
    gethostname(host, sizeof host - 1);
    char *name = saga_alloc(128);
    if (port)
        snprintf(name, 128, "%s-%" PRId64, host, port);
    else
        snprintf(name, 128, "%s-0-%ld", host, (long)getpid());
    return name;
}

static int check_kafka_file(const char *path, struct saga_err *err)
{
    rd_kafka_conf_t *tried = rd_kafka_conf_new();
    int rc = saga_kafka_file(tried, path, err);

    rd_kafka_conf_destroy(tried);
    return rc;
}

static int check(struct saga_conf *conf, struct saga_err *err)
{
    int64_t port = 0;
    int rc = check_listen(conf->http_listen, &port, err);
    if (rc == 0)
        rc = check_prefix(conf->prefix, err);
    if (rc == 0)
        rc = check_level(conf->level, err);
    if (rc == 0 && *conf->kafka_config)
        rc = check_kafka_file(conf->kafka_config, err);
    if (rc == 0 && !*conf->instance)
        conf->instance = default_instance(port);
    if (rc == 0 && !saga_name_ok(conf->instance, strlen(conf->instance)))
        rc = saga_err(err, SAGA_FATAL,
                      "SAGA_INSTANCE=%.80s: expected 1 to 64 of the characters A-Z a-z 0-9 . _ : -",
                      conf->instance);
    return rc;
}

static void list(const struct saga_setting *s)
{
    for (; s && s->name; s++)
        if (s->help)
            printf("  %-27s %-17s %s\n", s->name, *s->value ? s->value : "-", s->help);
}

static void help(const struct saga_setting *common, const struct saga_service *service)
{
    printf("%s-svc: %s\n\nUsage: %s-svc [--help] [--version]\n\n", service->name, service->about,
           service->name);
    printf("Runs in the foreground until SIGTERM, logs to stderr as JSON lines.\n"
           "Settings are environment variables; durations as 900, 900s, 250ms, 10min, sizes as "
           "16MiB:\n\n");
    list(common);
    list(service->settings);
    printf("  %-27s %-17s %s\n", "PGHOST, PGUSER, ...", "-",
           "libpq's own variables, where DATABASE_URL is not set");
    printf("\nExamples:\n"
           "  KAFKA_BOOTSTRAP_SERVERS=kafka1:9092,kafka2:9092 PGHOST=db1 %s-svc\n"
           "  SAGA_TOPIC_PREFIX=test. HTTP_LISTEN=127.0.0.1:0 LOG_LEVEL=debug %s-svc\n\n"
           "Exit status: 0 stopped by a signal, 70 cannot go on (see the log), 78 a setting is "
           "wrong,\n             or the database belongs to another installation.\n",
           service->name, service->name);
}

static int arguments(const struct saga_setting *common, const struct saga_service *service,
                     int argc, char **argv, bool *exit_now, struct saga_err *err)
{
    *exit_now = false;
    if (argc < 2)
        return 0;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        help(common, service);
    else if (strcmp(argv[1], "--version") == 0)
        printf("%s-svc %s\n", service->name, SAGA_VERSION);
    else
        return saga_err(err, SAGA_FATAL,
                        "%.60s: not an argument of %s-svc, which is set by environment variables: "
                        "see --help",
                        argv[1], service->name);
    *exit_now = true;
    return 0;
}

int saga_conf_read(struct saga_conf *conf, const struct saga_service *service, int argc,
                   char **argv, bool *exit_now, struct saga_err *err)
{
    *conf = (struct saga_conf){0};
    char listen[32];
    snprintf(listen, sizeof listen, "127.0.0.1:%" PRId64, service->http_port);
    const struct saga_setting common[] = {
        {"KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092", "Kafka's brokers", .text = &conf->brokers},
        {"KAFKA_CONFIG", "", "file of librdkafka properties (TLS, passwords, buffers)",
         .text = &conf->kafka_config},
        {"DATABASE_URL", "", "PostgreSQL, postgres://user@host/db", .text = &conf->database},
        {"HTTP_LISTEN", listen, "address:port; port 0: any free one, logged",
         .text = &conf->http_listen},
        {"HTTP_CONNECTIONS", "4096", "most connections; beyond it clients wait",
         &conf->http_connections, 16, 65536},
        {"HTTP_CLIENT_CONNECTIONS", "0", "most connections of one address, 0: as many as it likes",
         &conf->http_client_connections, 0, 65536},
        {"HTTP_CLIENT_RATE", "0", "requests per second of one address, 0: as many as it likes",
         &conf->http_client_rate, 0, 1000000},
        {"HTTP_REQUEST_TIMEOUT", "20s", "who takes longer to send a request is cut off",
         &conf->http_request_timeout, SECOND / 10, 3600 * SECOND},
        {"HTTP_IDLE_TIMEOUT", "30s", "between two requests, and to read an answer",
         &conf->http_idle_timeout, SECOND / 10, 3600 * SECOND},
        {"HTTP_TOKEN_FILE", "", "bearer token that clients must know; read again when it changes",
         .text = &conf->http_token_file},
        {"HTTP_TLS_CERT", "", "certificate chain (PEM): then it is HTTPS alone; read again, too,",
         .text = &conf->http_tls_cert},
        {"HTTP_TLS_KEY", "", "and its key", .text = &conf->http_tls_key},
        {"SAGA_INSTANCE", "", "this process in its group; default: host name and HTTP port",
         .text = &conf->instance},
        {"SAGA_TOPIC_PREFIX", "", "before the name of every topic and group",
         .text = &conf->prefix},
        {"LOG_LEVEL", "info", "debug, info, warn, error", .text = &conf->level},
        {"SAGA_CALLERS", "16", "threads that make outside calls", &conf->callers, 1, 1024},
        {"SAGA_CALL_TIMEOUT", "5s", "an outside call without answer is made again after it",
         &conf->call_timeout, SECOND / 100, 3600 * SECOND},
        {"SAGA_OUTBOX_KEEP", "600s", "the outbox is rotated when it is older,", &conf->outbox_keep,
         SECOND / 10, 7 * 86400 * SECOND},
        {"SAGA_OUTBOX_BYTES", "1GiB", "or larger", &conf->outbox_bytes, MIB, MIB << 20},
        {"SAGA_SESSION_TIMEOUT", "10s",
         "Kafka gives the lanes of a silent process to another; its own least is 6s",
         &conf->session_timeout, SECOND, 1800 * SECOND},
        {"SAGA_LOCK_WAIT", "5s", "a paused former owner's database session is ended after it",
         &conf->lock_wait, SECOND / 100, 3600 * SECOND},
        {"SAGA_HOLD_WAIT", "10s", "a gap in a lane is searched from the earliest record after it",
         &conf->hold_wait, SECOND / 100, 3600 * SECOND},
        {"SAGA_LOOK_WAIT", "5s", "a sign of loss counts if it is found again after it",
         &conf->look_wait, SECOND / 100, 3600 * SECOND},
        {"SAGA_LOOK_EVERY", "1min", "how often Kafka is asked for what it has acknowledged",
         &conf->look_every, SECOND / 10, 86400 * SECOND},
        {"SAGA_REPORT_WAIT", "30s", "a partition without delivery report gets a new producer",
         &conf->report_wait, SECOND / 10, 3600 * SECOND},
        {"SAGA_BATCH", "2000", "most records of a transaction", &conf->batch_records, 1, 100000},
        {"SAGA_MEMORY", "32MiB", "recent rows kept in memory", &conf->memory, 0, MIB << 20},
        {0},
    };
    const char *why = "";
    int rc = arguments(common, service, argc, argv, exit_now, err);
    if (rc < 0 || *exit_now)
        return rc;
    rc = read_settings(common, err);
    if (rc == 0)
        rc = read_settings(service->settings, err);
    if (rc == 0)
        rc = check(conf, err);
    if (rc == 0 && service->fits && !service->fits(&why))
        rc = saga_err(err, SAGA_FATAL, "%s", why);
    if (rc == 0 && conf->http_listen == listen) { /* the default must outlive this call */
        conf->http_listen = saga_strdup(listen);
    }
    return rc;
}
