/* Looking into partitions from outside the group, by a handle of its own. Everything blocks, for at
 * most ms (saga_peek_read: until so long nothing came); one thread at a time. Used by look.c (on its thread) and command.c (HTTP's, of searches). */
#ifndef SAGA_PEEK_H
#define SAGA_PEEK_H

#include "conf.h"
#include "err.h"
#include "event.h"

struct saga_peek;

struct saga_peek *saga_peek_new(const struct saga_conf *conf, struct saga_err *err);
void saga_peek_free(struct saga_peek *peek);

const char *saga_peek_cluster(struct saga_peek *peek, int ms); /* cluster id, or NULL */
/* -> partitions of topic, 0: there is no such topic, SAGA_RETRY. led[p] for p < max: it has a leader;
 * asking one without keeps its asker waiting. */
int saga_peek_partitions(struct saga_peek *peek, const char *topic, bool *led, int max, int ms,
                         struct saga_err *err);

/* A part of a partition. */
struct saga_range {
    const char *topic; /* static, without prefix */
    int32_t partition;
    int64_t low, high; /* by saga_peek_marks: offsets of the earliest record, and after the last */
    int64_t from, to;  /* to be read: [from, to), within low and high */
    int rc;            /* 0, or SAGA_RETRY: err of the call says why */
    void *owner;
};
/* Where partitions begin and end, several at once: low and high of each. -> 0, SAGA_RETRY: of some,
 * whose rc says so */
int saga_peek_marks(struct saga_peek *peek, struct saga_range *ranges, int n, int ms,
                    struct saga_err *err);
/* Reads ranges side by side; took: false ends that range. ms: without a record. -> as above */
int saga_peek_read(struct saga_peek *peek, struct saga_range *ranges, int n,
                   bool (*took)(struct saga_range *range, struct saga_record *record), int ms,
                   struct saga_err *err);

#endif
