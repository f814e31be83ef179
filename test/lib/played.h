/* order-svc as a service alone sees it: its events, written by the test. */
#ifndef PLAYED_H
#define PLAYED_H

#include "world.h"

#define PLAYED_TERM "1795513885123"

/* An order of a lane: the first of "<name>-0", "<name>-1", ... that belongs there. */
const char *played_order(const struct world *w, int32_t lane, const char *name);
/* OrderCreated number seq of a lane, after number previous (0: it is the first): one apple. Queued;
 * kafka_flush sends. */
void played_created(const struct world *w, int32_t lane, int seq, int previous, const char *order);
/* The same with the terms of both: "7.1795513885123", previous NULL: it is the first. */
const char *played_event(int32_t lane, const char *id, const char *previous, const char *order);

#endif
