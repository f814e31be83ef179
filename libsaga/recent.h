/* Rows of recent orders that wait for something (their due is set), kept in memory so that a batch
 * need not load them again. A row here is what the database holds as long as its lane is ours: term
 * and last_seq prove that nobody else has written it (DESIGN.md 4.1), and a lane that is lost or
 * taken again forgets its rows.
 *
 * Two generations: rows go to the young one; when it is half of the memory allowed, or large enough
 * while most of the old one is dropped, the old one is forgotten as a whole and the young one
 * becomes old. A row that is changed again is young again. No list to keep, nothing to free singly,
 * memory is bounded by bytes. */
#ifndef SAGA_RECENT_H
#define SAGA_RECENT_H

#include "mem.h"
#include "saga.h"

struct saga_recent;

struct saga_recent *saga_recent_new(const struct saga_table *table, int32_t lanes, size_t bytes);
void saga_recent_free(struct saga_recent *r);
/* -> the row, or NULL. Valid until the next put or turn: a batch looks rows up before it puts any.
 */
void *saga_recent_get(struct saga_recent *r, int32_t lane, const char *key);
void saga_recent_put(struct saga_recent *r, int32_t lane, const void *row); /* a deep copy */
void saga_recent_drop(struct saga_recent *r, int32_t lane, const char *key);
/* Between batches: old rows go if there are too many. */
void saga_recent_turn(struct saga_recent *r);
void saga_recent_forget(struct saga_recent *r, int32_t lane);

#endif
