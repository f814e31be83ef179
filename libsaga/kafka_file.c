/* A file of librdkafka's properties. See kafka_file.h. */
#include "kafka_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ours: another value loses, doubles or reorders events, or makes two of what must be one (DESIGN.md 4).
 * With librdkafka's other names for the same. */
static const struct {
    const char *name, *instead; /* the setting that is meant, if there is one */
} fixed[] = {
    {"bootstrap.servers", "KAFKA_BOOTSTRAP_SERVERS"},
    {"metadata.broker.list", "KAFKA_BOOTSTRAP_SERVERS"},
    {"group.id", "SAGA_TOPIC_PREFIX"},
    {"group.instance.id", "SAGA_INSTANCE"},
    {"session.timeout.ms", "SAGA_SESSION_TIMEOUT"},
    {"heartbeat.interval.ms", "SAGA_SESSION_TIMEOUT"},
    {"partition.assignment.strategy", NULL},
    {"auto.offset.reset", NULL},
    {"enable.auto.commit", NULL},
    {"auto.commit.enable", NULL},
    {"enable.auto.offset.store", NULL},
    {"enable.partition.eof", NULL},
    {"isolation.level", NULL},
    {"acks", NULL},
    {"request.required.acks", NULL},
    {"enable.idempotence", NULL},
    {"enable.gapless.guarantee", NULL},
    {"transactional.id", NULL},
    {"message.timeout.ms", NULL},
    {"delivery.timeout.ms", NULL},
    {"max.in.flight", NULL},
    {"max.in.flight.requests.per.connection", NULL},
    {"message.send.max.retries", NULL},
    {"retries", NULL},
    {"queuing.strategy", NULL},
    {"partitioner", NULL},
    {"delivery.report.only.error", NULL},
    {"allow.auto.create.topics", NULL},
};

static char *trimmed(char *text)
{
    char *end = text + strlen(text);

    while (end > text && isspace((unsigned char)end[-1]))
        *--end = '\0';
    while (isspace((unsigned char)*text))
        text++;
    return text;
}

static int add_line(rd_kafka_conf_t *to, char *line, struct saga_err *err)
{
    char *name = trimmed(line), *value = strchr(name, '='), why[256];

    if (!*name || *name == '#')
        return 0;
    if (!value)
        return saga_err(err, SAGA_FATAL, "\"%.80s\": expected name=value", name);
    *value++ = '\0';
    name = trimmed(name);
    value = trimmed(value);
    const char *plain = strncmp(name, "topic.", 6) ? name : name + 6; /* means the same */
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        if (strcmp(plain, fixed[i].name) != 0)
            continue;
        if (fixed[i].instead)
            return saga_err(err, SAGA_FATAL, "%s is set by %s: take the line out", name,
                            fixed[i].instead);
        return saga_err(err, SAGA_FATAL,
                        "%s is fixed, since what is promised rests on it: take the line out", name);
    }
    if (rd_kafka_conf_set(to, name, value, why, sizeof why) != RD_KAFKA_CONF_OK)
        return saga_err(err, SAGA_FATAL, "%s", why);
    return 0;
}

int saga_kafka_file(rd_kafka_conf_t *to, const char *path, struct saga_err *err)
{
    char *line = NULL;
    size_t cap = 0;
    struct saga_err why = {0};
    int number = 0, rc = 0;
    FILE *f = fopen(path, "re");

    if (!f)
        return saga_err(err, SAGA_FATAL, "KAFKA_CONFIG=%.120s: cannot be read: %s", path,
                        strerror(errno));
    while (rc == 0 && getline(&line, &cap, f) >= 0) { /* keys and certificates make long lines */
        number++;
        rc = add_line(to, line, &why);
    }
    if (rc < 0)
        saga_err(err, SAGA_FATAL, "KAFKA_CONFIG=%.120s: line %d: %s", path, number, why.text);
    else if (ferror(f))
        rc = saga_err(err, SAGA_FATAL, "KAFKA_CONFIG=%.120s: cannot be read: %s", path,
                      strerror(errno));
    fclose(f);
    free(line);
    return rc;
}
