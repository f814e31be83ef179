/* Outside calls (DESIGN.md 4.6): a queue that holds a key once, caller threads that take several at
 * once, and the answers on their way back. put, take and wake belong to the engine's thread;
 * saga_answer (saga.h) to the callers. */
#ifndef SAGA_CALLS_H
#define SAGA_CALLS_H

#include "mem.h"
#include "saga.h"

enum { SAGA_CALLS_MAX = 10000 };

/* An answer in a block of its own. */
struct saga_answered {
    struct saga_answered *next;
    const struct saga_event *event;
    const char *key;
    const void *data;
};

/* Starts the threads. wake: an eventfd that is written when an answer has come. -> 0, -1: not one could be
 * started */
int saga_calls_start(const struct saga_service *service, int callers, int wake);
/* Queues copies, together, so that a caller finds them together. -> how many; the others: the queue
 * is full, or the key waits already. Their due calls again. since: saga_call's. */
int saga_calls_put(const struct saga_call *batch, int n, int64_t since);
struct saga_answered *
saga_calls_take(void);      /* all that have come, oldest first. Takes: free() each */
void saga_calls_stop(void); /* no further call is begun */

#endif
