/* The outbox: what goes out is stored in the transaction that decides it, published from memory
 * after COMMIT, and read from here only when that memory is gone (DESIGN.md 4.3, 4.8). Engine's
 * thread. */
#ifndef SAGA_OUTBOX_H
#define SAGA_OUTBOX_H

#include "batch.h"
#include "bus.h"
#include "pg.h"

/* Adds the batch's outbox rows to the pipeline, for the table that is current. */
int saga_outbox_store(struct saga_pg *pg, const struct saga_batch *b, int slot,
                      struct saga_params *p, struct saga_err *err);

/* Reads the lane's rows with seq > above, ascending, and gives each to sent(). own.seq 0: not an
 * event of the own topic. -> number of rows, SAGA_RETRY, SAGA_FATAL: some are missing. */
int saga_outbox_read(struct saga_pg *pg, int32_t lane, int64_t above, int64_t last,
                     const char *own_topic,
                     void (*sent)(void *owner, const struct saga_delivery *d, struct saga_id own),
                     void *owner, struct saga_err *err);

/* Empties the table that is not current and makes it current, if the present one is older than keep
 * (us) or larger than bytes, and all in the other is published. One transaction with a lock
 * time-out.
 * -> 1 rotated, 0 not needed or not possible now, SAGA_RETRY. */
int saga_outbox_rotate(struct saga_pg *pg, int64_t keep, int64_t bytes, struct saga_err *err);

#endif
