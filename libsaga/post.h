/* Requests that came over HTTP, on their way to Kafka: by an idempotent producer of their own
 * (acks=all), so that a record is not answered before it cannot be lost. Shares nothing with the
 * engine. Handlers call from any thread; a handler that posts says saga_later() first, and what comes
 * of it is told on the posting thread.
 *
 * Unlike events (bus_send.c), nothing is sent again when it is not known whether it arrived: only who
 * asked can repeat it under the same order id, and is told so. */
#ifndef SAGA_POST_H
#define SAGA_POST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf.h"
#include "err.h"

extern int64_t saga_post_timeout; /* us: not acknowledged by then is SAGA_POST_UNKNOWN */

enum saga_post_end {
    SAGA_POST_DONE,     /* all replicas in sync have it, at this place */
    SAGA_POST_UNKNOWN,  /* it may be there */
    SAGA_POST_NOT_SENT, /* it is not */
};

struct saga_post {
    const char *topic; /* without prefix */
    const char *key;   /* the order: says the partition, as Kafka's own partitioner does */
    const char *value;
    size_t n;
    const char *trace; /* traceparent, or NULL */
    /* On the posting thread: exactly once, if saga_post() returned 0. */
    void (*done)(void *owner, enum saga_post_end end, int32_t partition, int64_t offset);
    void *owner;
};

/* conf: kept. Before it all is refused with SAGA_RETRY. Connects at the first use. */
void saga_post_init(const struct saga_conf *conf);
/* Copies. -> 0, SAGA_RETRY: too many are on their way, SAGA_FATAL: a setting is wrong; nothing is sent */
int saga_post(const struct saga_post *post, struct saga_err *err);
/* The offset behind the newest record of the partition. Waits for Kafka, at most ms. -> 0, SAGA_RETRY */
int saga_post_end_of(const char *topic, int32_t partition, int ms, int64_t *end,
                     struct saga_err *err);

/* ---- For bus_post.c and its test: which offsets of reports are to be believed ---- */
struct saga_reported { /* of a partition; {0} at first */
    int64_t next;      /* above the last one that was real */
    int64_t inferred;  /* the last one was not, and this would go on with it, */
    int left;          /* for so many at most */
};
/* librdkafka reports success with offsets -1, 0, 1... or -1001 for a batch of which it only infers that
 * it was delivered (DESIGN.md 4.3). Its others are still under_way when the first is reported. One that is
 * below the last is not believed, either: Kafka has lost records, or the topic is a new one; what follows is
 * judged by it. */
bool saga_reported_believe(struct saga_reported *r, int64_t offset, int under_way);

#endif
