/* Random schedules: orders of all kinds, requests at any moment, batches of any shape, deliveries in
 * any order, crashes, owners that come and go, old copies between new ones, lost answers. At each
 * step a fault comes with a probability that is drawn for the schedule, 0.05 to 0.3. */
#ifndef DRAW_H
#define DRAW_H

#include "move.h"

/* Draws the schedule of a seed while it plays it, to its end. -> the world, and the schedule; both
 * until the next one is drawn. The same seed is the same schedule. */
const struct sim_world *draw(uint64_t seed, struct schedule **drawn);

#endif
