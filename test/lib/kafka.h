/* Kafka from outside, by librdkafka: topics, records of any shape, whole topics read. Topics have
 * their full names here. */
#ifndef KAFKA_H
#define KAFKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kafka_header {
    const char *name;
    const char *value; /* NULL: null */
    size_t n;
};

struct kafka_record {
    const char *topic;
    int32_t partition; /* to send: KEYED, RANDOM, or a partition */
    int64_t offset;
    int64_t time_ms;
    const char *key, *value; /* NULL: none */
    size_t key_n, value_n;   /* to send: 0 with a text means its length */
    const struct kafka_header *headers;
    int headers_n;
};
enum { KEYED = -1, RANDOM = -2 };

/* The topics of an installation, all with so many partitions. Waits until they can be used. */
void kafka_make_topics(const char *prefix, int lanes);
void kafka_drop_topics(const char *prefix);
/* The largest batch that the topic takes, compressed; 0: the broker's default. Its other settings are
 * the broker's defaults from then on. In force when this returns. */
void kafka_limit(const char *topic, int bytes);

/* Joins the group as the static member that another process is, and is that member from then on: the
 * other one is fenced. Served while it is asked; -> whether it is fenced itself by now. */
struct kafka_twin;
struct kafka_twin *kafka_twin(const char *group, const char *instance, const char *topic);
bool kafka_twin_fenced(struct kafka_twin *twin);
/* From now on it subscribes these, up to NULL, and no others. The group assigns anew. */
void kafka_twin_subscribe(struct kafka_twin *twin, const char *const *names);
bool kafka_twin_has(struct kafka_twin *twin,
                    const char *topic); /* is given of this, and first of all */
void kafka_twin_free(struct kafka_twin *twin);

bool kafka_has_leaders(const char *name, int lanes); /* a topic, and has that many partitions */

/* Clients are made anew: a producer does not go on where Kafka has forgotten what it wrote. */
void kafka_forget(void);

/* ---- Loss ---- */
/* Retention: the records of a partition before an offset are gone. */
void kafka_expire(const char *topic, int32_t partition, int64_t before);
/* A topic deleted and made again. */
void kafka_remake(const char *topic, int lanes);
void kafka_widen(const char *topic, int lanes); /* more partitions */
/* The broker of SAGA_RUN is killed, loses the records of a partition from an offset on, though it had
 * acknowledged them, and starts again. meanwhile: done while it is down, or NULL. */
void kafka_cut(const char *topic, int32_t partition, int64_t from, void (*meanwhile)(void));

/* Queues a record; kafka_flush waits until Kafka has all of them, in order of each partition. KEYED
 * is Kafka's own partitioner (murmur2), RANDOM ignores the key. */
void kafka_send(const struct kafka_record *record);
void kafka_flush(double seconds);
/* Sends one and waits. -> its offset */
int64_t kafka_put(const struct kafka_record *record);

/* The offsets after the last records of partitions 0..n-1. -> their sum */
int64_t kafka_ends(const char *topic, int n, int64_t *ends);

/* A whole topic as it is now, each partition in order, one after the other. */
struct kafka_log {
    int n, cap;
    struct kafka_record *at;
};
struct kafka_log *kafka_read(const char *topic);
void kafka_log_free(struct kafka_log *log);
/* The value of a header as text, NULL: there is none. Lives as a text() does. */
const char *kafka_header(const struct kafka_record *record, const char *name);

#endif
