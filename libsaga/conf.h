/* Settings: environment variables with defaults, --help and clear refusals. Read once at start. */
#ifndef SAGA_CONF_H
#define SAGA_CONF_H

#include "err.h"
#include "saga.h"

/* The settings that every service has. Times in microseconds, sizes in bytes. */
struct saga_conf {
    const char *brokers;         /* KAFKA_BOOTSTRAP_SERVERS, 127.0.0.1:9092 */
    const char *kafka_config;    /* KAFKA_CONFIG: a librdkafka properties file, or "" */
    const char *database;        /* DATABASE_URL, or "" for libpq's PG* */
    const char *http_listen;     /* HTTP_LISTEN, 127.0.0.1:port; port 0: any, logged */
    const char *http_token_file; /* HTTP_TOKEN_FILE, "": no token is needed */
    const char *http_tls_cert;   /* HTTP_TLS_CERT and HTTP_TLS_KEY, "": no TLS */
    const char *http_tls_key;
    int64_t http_connections;        /* HTTP_CONNECTIONS, 4096 */
    int64_t http_client_connections; /* HTTP_CLIENT_CONNECTIONS of one address, 0: any */
    int64_t http_client_rate;        /* HTTP_CLIENT_RATE, requests/s of one address, 0: any */
    int64_t http_request_timeout;    /* HTTP_REQUEST_TIMEOUT, 20 s: a whole request is here in it */
    int64_t http_idle_timeout; /* HTTP_IDLE_TIMEOUT, 30 s: between requests, or to read an answer */
    const char *instance;      /* SAGA_INSTANCE; default host name and HTTP port; port 0: and pid */
    const char *prefix;        /* SAGA_TOPIC_PREFIX, "" */
    const char *level;         /* LOG_LEVEL, info */
    int64_t callers;           /* SAGA_CALLERS, 16 */
    int64_t call_timeout;      /* SAGA_CALL_TIMEOUT, 5 s */
    int64_t outbox_keep;       /* SAGA_OUTBOX_KEEP, 600 s */
    int64_t outbox_bytes;      /* SAGA_OUTBOX_BYTES, 1 GiB */
    int64_t session_timeout;   /* SAGA_SESSION_TIMEOUT, 10 s: Kafka's session.timeout.ms */
    int64_t lock_wait;         /* SAGA_LOCK_WAIT, 5 s: then blockers of ours are ended (4.4) */
    int64_t hold_wait; /* SAGA_HOLD_WAIT, 10 s: an open gap is read again from the earliest (4.2) */
    int64_t look_wait; /* SAGA_LOOK_WAIT, 5 s: a finding counts if it is there again (4.4) */
    int64_t look_every;    /* SAGA_LOOK_EVERY, 1 min: running lanes are looked at */
    int64_t report_wait;   /* SAGA_REPORT_WAIT, 30 s: a partition without delivery report (4.3) */
    int64_t batch_records; /* SAGA_BATCH, 2000 records */
    int64_t memory;        /* SAGA_MEMORY, bytes of recent rows kept in memory, 32 MiB */
};

/* A numeric setting (of the service's too) is of its default's kind: "900s" is a duration, kept in
 * microseconds and read as "900" (seconds), "900s", "250ms", "10min", "1h"; "16MiB" is a size, kept in
 * bytes and read as "1073741824", "1GiB", "16MiB"; "16" is a plain number. min and max are in what is
 * kept; max 0: no upper limit. An empty variable counts as not set.
 * Handles --help (prints service->about, usage, examples, every setting with default and meaning;
 * *exit_now is true) and --version. -> 0, or SAGA_FATAL with one line that names variable, value and
 * what is accepted (exit 78). */
int saga_conf_read(struct saga_conf *conf, const struct saga_service *service, int argc,
                   char **argv, bool *exit_now, struct saga_err *err);

#endif
