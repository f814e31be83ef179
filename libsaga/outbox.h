/* The outbox: what goes out is stored in the transaction that decides it, published from memory
 * after COMMIT, and read from here only when that memory is gone (DESIGN.md 4.3, 4.8). Engine's
 * thread. */
#ifndef SAGA_OUTBOX_H
#define SAGA_OUTBOX_H

#include "batch.h"
#include "bus.h"
#include "pg.h"

/* SQL: a lane's next term, which fences whoever has it now (DESIGN.md 4.4): above its last one, and above
 * those that a database restored from an old copy has forgotten. */
#define SAGA_TERM_RAISED                                                                           \
    "greatest(term + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint)"

/* Adds the batch's outbox rows to the pipeline, for the table that is current. */
int saga_outbox_store(struct saga_pg *pg, const struct saga_batch *b, int slot,
                      struct saga_params *p, struct saga_err *err);

/* Reads the lane's rows with seq > above, ascending, and gives each to sent(). own.seq 0: not an
 * event of the own topic. -> number of rows, SAGA_RETRY, SAGA_FATAL: some are missing. */
int saga_outbox_read(struct saga_pg *pg, int32_t lane, int64_t above, int64_t last,
                     const char *own_topic,
                     void (*sent)(void *owner, const struct saga_delivery *d, struct saga_id own),
                     void *owner, struct saga_err *err);

/* The lane's oldest event that the tables still hold, and the one before it (seq 0: it is the lane's
 * first). -> 1, 0: they hold none, SAGA_RETRY */
int saga_outbox_oldest(struct saga_pg *pg, int32_t lane, const char *own_topic,
                       struct saga_id *oldest, struct saga_id *previous, struct saga_err *err);

/* Sets the lane's published* back to before its oldest event, in one transaction with reading that,
 * so that rotation keeps it (4.4 step 2): all is to be published again. */
struct saga_outbox_back {
    struct saga_id oldest; /* that it must be; seq 0: whatever it is */
    int64_t offset;        /* of id, which is before it or itself, in Kafka; -1: none is */
    struct saga_id id;
    int64_t published; /* out */
    int64_t term;      /* out */
};
/* term: of the owner; 0: raises it (an operator's command). -> 1, 0: another oldest event, or owner, or
 * no event at all (an operator's command: nor anything else that is not published); SAGA_RETRY */
int saga_outbox_set_back(struct saga_pg *pg, int32_t lane, const char *own_topic, int64_t term,
                         struct saga_outbox_back *back, struct saga_err *err);

/* Empties the table that is not current and makes it current, if the present one is older than keep
 * (us) or larger than bytes, and all in the other is published. One transaction with a lock
 * time-out.
 * present: what the present one is; rows that cannot be given up show there. -> 1 rotated, 0 not needed
 * or not possible now, SAGA_RETRY. */
struct saga_outbox_table {
    int64_t age, bytes; /* us since it was empty */
};
int saga_outbox_rotate(struct saga_pg *pg, int64_t keep, int64_t bytes,
                       struct saga_outbox_table *present, struct saga_err *err);

#endif
