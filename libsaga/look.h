/* Looking at Kafka for lanes that are taken, and once in a while for those that run (DESIGN.md 4.4
 * steps 2 and 3, identity): on a thread of its own, because a partition without leader keeps its
 * asker waiting, and neither the engine's loop nor the other lanes may wait for it. What was seen is
 * judged by take.c. */
#ifndef SAGA_LOOK_H
#define SAGA_LOOK_H

#include "conf.h"
#include "lane.h"
#include "screen.h"

enum saga_look_kind {
    SAGA_LOOK_WHOLE,    /* the own partition from published_offset to its end, */
    SAGA_LOOK_RECORD,   /* or that record alone; and the record before next_request */
    SAGA_LOOK_IDENTITY, /* cluster, and partitions of all topics */
};

/* A question, and in the end its answer. The asker's, but while it is asked. */
struct saga_look {
    struct saga_look *next;
    enum saga_look_kind kind;
    int32_t lane;
    uint32_t ticket;             /* the asker's */
    const char *source;          /* of our events: "/order-svc" */
    int64_t published_offset;    /* -1: none */
    struct saga_id published_id; /* and last_seq, before: for the asker */
    int64_t published, last_seq;
    int64_t next_request; /* position in the topic of requests, -1: none to look before, */
    uint64_t before;      /* and what was read there */
    struct saga_id oldest, previous; /* oldest.seq > 0: the whole log is searched for both */

    int rc; /* 0, or SAGA_RETRY; of an identity SAGA_FATAL; text says why */
    char text[256];
    int64_t low[SAGA_READS_MAX], high[SAGA_READS_MAX]; /* of the inputs */
    struct saga_seen seen;
    struct saga_id *ids; /* our events in what was read, above published */
    int ids_n, ids_cap;
    uint64_t hash; /* of the record before next_request, 0: it is not there */
    bool oldest_there, previous_there;
    int64_t oldest_at, previous_at;
    int lanes; /* identity */
    char cluster[64];
};

/* Starts the thread. wake: an eventfd that is written when an answer is there. */
void saga_look_start(const struct saga_conf *conf, const struct saga_intake *intake,
                     const char *own_topic, const char *dead_topic, int wake);
void saga_look_ask(struct saga_look *look); /* Takes look. */
struct saga_look *saga_look_answered(void); /* Gives all that are answered, linked by next */
void saga_look_free(struct saga_look *look);

/* Reads own events to the look's seen and ids: also for commands. */
struct saga_peek;
int saga_look_own(struct saga_peek *peek, struct saga_look **looks, int n, const char *topic,
                  const char *source, int ms, struct saga_err *err);

#endif
