/* A batch: inputs in order, the rows they name, and what the rules make of them: rows changed, log
 * rows, outbox rows with their ids, outside calls. Pure and deterministic: no I/O, no clock.
 * engine.c fills one from Kafka and the database and stores it; the simulation gives it rows that
 * hold the whole world, and load and store are nothing.
 *
 * Order of calls: saga_batch_reset; saga_batch_add... (inputs name rows: saga_batch_row makes
 * slots); the caller fills the slots' rows and the lanes' writers; saga_batch_decide. */
#ifndef SAGA_BATCH_H
#define SAGA_BATCH_H

#include "event.h"
#include "lane.h"
#include "mem.h"
#include "saga.h"

/* A row by its key. In the batch's arena or borrowed (recent rows, the simulation's world): it is
 * copied before its first change. */
struct saga_slot {
    const char *key;
    uint32_t hash;
    int32_t lane; /* orders */
    void *row;    /* NULL: not known yet */
    void *origin; /* row before its first change */
    bool changed;
    bool seen, presumed; /* engine: its first input was looked at; taken to be new, not asked for */
    bool names_more;     /* orders: the shared load needs it as $2 */
};
struct saga_slots { /* open addressing, in order of insertion in list */
    const struct saga_table *table;
    struct saga_slot **list;
    int n, cap;
    uint32_t *index;
    uint32_t mask;
};

enum saga_kind {
    SAGA_IN_EVENT,   /* a message with a rule */
    SAGA_IN_REQUEST, /* the same, its place is topic/partition/offset */
    SAGA_IN_FORWARD, /* a request of another lane: goes out to its own (4.5) */
    SAGA_IN_DEAD,    /* a dead letter */
    SAGA_IN_DUE,
    SAGA_IN_ANSWER,
    SAGA_IN_PARKED,  /* one of these whose order is parked: it waits in table parked (4.7) */
    SAGA_IN_DROPPED, /* one that has waited there, and that an operator drops */
};

struct saga_in {
    enum saga_kind kind;
    int32_t lane;    /* where it was read */
    const char *key; /* the order; NULL: dead letter */
    const struct saga_rule *rule;
    const void *data;
    const char *id, *trace; /* NULL for due and answers: the row's */
    struct saga_slot *slot;
    struct saga_record *record;  /* FORWARD, DEAD: kept in the arena, with headers */
    const char *reason, *detail; /* DEAD; PARKED has a reason */
    const char *raw;             /* PARKED without data: the payload that was refused, or NULL */
    int64_t redriven; /* number of its row in table parked, where it has waited; 0: it is new */
};

/* An outbox row. */
struct saga_out {
    int32_t lane;
    int64_t seq;
    struct saga_id own; /* of an event on the own topic; seq 0: dead letter or forward */
    const char *topic;  /* without prefix, static */
    int32_t partition;
    const char *key; /* NULL: none (dead letters keep the record's) */
    uint32_t key_n;
    size_t at, n; /* value: bytes in batch->values; n SIZE_MAX: null (a tombstone's dead letter) */
    const struct saga_header *headers;
    int headers_n;
};

/* NULL: null. An empty value is not (and batch->values may have no bytes at all). */
static inline const char *saga_out_value(const struct saga_buf *values, const struct saga_out *o,
                                         size_t *n)
{
    *n = o->n == SIZE_MAX ? 0 : o->n;
    return o->n == SIZE_MAX ? NULL : o->n == 0 ? "" : values->at + o->at;
}

/* A lane's numbers; the engine copies them back when COMMIT is confirmed. */
struct saga_writer {
    int32_t lane;
    int64_t term, last_seq;
    struct saga_id last; /* newest event on the own topic */
};

struct saga_batch {
    const struct saga_service *service;
    const char *history;      /* of this installation, for forwarded-id */
    const char *source;       /* "/order-svc" */
    const char *topic, *dead; /* "order.events", "order.dlq" */
    int32_t lanes;            /* N */
    struct saga_arena arena;
    struct saga_slots orders, shared;
    struct saga_in *in;
    int n, cap;
    struct saga_writer
        *writer; /* by lane, lanes of them: as they are before it, set by the caller; */
    struct saga_writer *wrote; /* as decide leaves them */
    int64_t now;               /* us */
    struct saga_buf values;
    struct saga_out *out;
    int out_n, out_cap;
    struct saga_call *call;
    int call_n, call_cap;
    void **log;
    int log_n, log_cap;
    struct saga_in *impossible; /* the first input that met an impossible cell: decide stopped */
    struct saga_in *deciding;
};

void saga_batch_init(struct saga_batch *b, const struct saga_service *service, int32_t lanes,
                     const char *history);
void saga_batch_reset(struct saga_batch *b); /* for the next batch: everything but the settings */
void saga_batch_free(struct saga_batch *b);

struct saga_in *saga_batch_add(struct saga_batch *b, enum saga_kind kind,
                               int32_t lane); /* zeroed */
struct saga_slot *saga_batch_row(struct saga_batch *b, struct saga_slots *rows, const char *key);
struct saga_slot *saga_slots_find(const struct saga_slots *rows, const char *key);
const struct saga_rule *saga_rule_of(const struct saga_service *service, const char *type);
/* Makes slots of the shared rows that the inputs name (the service's hook). Orders' slots are
 * there. */
void saga_batch_name(struct saga_batch *b);

/* Runs the rules over the inputs. Rows that are still NULL are made: zeroed, stored = false. Starts
 * anew each time: what an earlier run changed or emitted is forgotten.
 * -> 0, or SAGA_POISON: an impossible cell, see impossible. */
int saga_batch_decide(struct saga_batch *b, int64_t now, struct saga_err *err);

/* This input and all later ones of its order are not decided but parked. reason is kept. */
void saga_batch_park(struct saga_batch *b, struct saga_in *in, const char *reason);

/* The simulation, whose rows are the world: what decide changed is stored; inputs, outbox rows,
 * calls and log rows are emptied, rows stay. */
void saga_batch_commit(struct saga_batch *b);

#endif
