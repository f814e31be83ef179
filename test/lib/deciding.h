/* A service's rules in memory: rows are put where a test wants them, inputs are decided by the real
 * batch (libsaga/batch.h), and what comes out is read back as JSON. The rows are the world: what
 * one run has changed is there in the next, after deciding_done(). */
#ifndef DECIDING_H
#define DECIDING_H

#include <jansson.h>

#include "batch.h"

enum { DECIDING_LANE = 3, DECIDING_LANES = 4 };
#define DECIDING_NOW INT64_C(1795513885123456)

void deciding_start(struct saga_batch *b, const struct saga_service *service);
/* The row of key: made, zeroed and not stored, if it is not there. */
void *deciding_row(struct saga_batch *b, struct saga_slots *rows, const char *key);
/* An input for the next run. id is NULL for a due and an answer. */
void deciding_add(struct saga_batch *b, enum saga_kind kind, const char *key,
                  const struct saga_event *input, const void *data, const char *id);
int deciding_run(struct saga_batch *b); /* -> 0, or SAGA_POISON: impossible */
void deciding_done(struct saga_batch *b);

json_t *deciding_event(const struct saga_batch *b,
                       int i); /* event i that came out. Gives it away */
bool deciding_is(const struct saga_batch *b, int i, const char *type);
/* Fails the case unless event i is of type, caused by cause, and its data is expected. Takes
 * expected. */
void deciding_expect(const struct saga_batch *b, int i, const char *type, const char *cause,
                     json_t *expected);

#endif
