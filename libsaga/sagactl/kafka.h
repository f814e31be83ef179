/* Kafka for sagactl: what is there, sending requests, reading records. What cannot be done ends the
 * program with CTL_AWAY. Topics are named without prefix. One thread. */
#ifndef CTL_KAFKA_H
#define CTL_KAFKA_H

#include <librdkafka/rdkafka.h>

#include "event.h"

extern const char *const ctl_all_topics[]; /* requests, events, dead letters, up to NULL */

/* A handle with the settings of the environment; names and values follow in pairs, up to NULL. */
rd_kafka_t *ctl_kafka(rd_kafka_type_t type, ...) __attribute__((sentinel));
const char *ctl_brokers(void);
const char *ctl_topic(const char *name); /* with prefix; valid until eight more were asked for */

/* Partitions of a topic; 0: there is no such topic. */
int32_t ctl_partitions_of(const char *topic);
int32_t ctl_partitions(const char *topic); /* the same; a missing one ends the program */

bool ctl_is_led(const char *topic); /* every partition has a leader: it can be used */

/* ---- Sending requests ---- */
/* Copies. Waits where the queue is full. */
void ctl_send(const char *key, const char *value, size_t n);
/* Waits until all have been acknowledged. id: what a repeat has to have, for the message of a failure, or
 * NULL; place: of the last one, topic/partition/offset. */
void ctl_flush(const char *id, char place[128]);
/* Sends a copy of a record, with its headers, and waits; partition -1: where its key belongs. place:
 * as above. */
void ctl_send_record(const char *topic, int32_t partition, const struct saga_record *record,
                     char place[128]);

/* ---- Reading ---- */
enum ctl_from { CTL_BEGINNING, CTL_END, CTL_TIME, CTL_OFFSET };

struct ctl_where {
    const char *const *topics; /* up to NULL */
    int32_t partition;         /* -1: all */
    enum ctl_from from;
    int64_t at;   /* CTL_TIME: ms since 1970; CTL_OFFSET: the offset */
    bool bounded; /* to where the topics end now; else for ever */
};

/* One reader at a time: the next one takes its place. */
void ctl_read(const struct ctl_where *where);
/* -> 1: a record with its headers, borrowed until the next call; 0: none within ms; -1: the end of
 * a bounded one */
int ctl_next(int ms, struct saga_record *record);

#endif
