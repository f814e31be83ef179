/* What the suites of attacks share: a world with stock, in which all orders of a test are in one
 * lane. */
#ifndef ATTACK_H
#define ATTACK_H

#include "play.h"

enum { MUCH = 1000000 };

extern struct sim_world w;
extern int lane; /* where all orders of a test are: that of "a" */

void attack_begin(void);
void attack_end(void); /* what waits comes; all is well, also at the end */
void forget_trace(void);

/* So many orders that are paid later: "a", and others of its lane. Committed, not sent. */
void place_in_lane(int n);
const struct saga_input *input(int service, int topic); /* as its owner has it in memory */
/* Events of an order in the outbox. */
int count_of(int service, const char *key, const struct saga_event *event);

#endif
