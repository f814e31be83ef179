/* Moves in handfuls, for scripted tests and for the end of random ones. */
#ifndef PLAY_H
#define PLAY_H

#include <check.h>

#include "sim.h"

enum { ALL = -1 };

/* PlaceOrder. lines: "apple 2, pear 1", each piece for 100; payment: "now tok_ok" or "later". */
void play_place(struct sim_world *w, const char *key, const char *lines, const char *payment);
/* Another request: {"type":type,"order_id":key} and more, ",\"token\":\"tok_ok\"" or "". */
void play_ask(struct sim_world *w, const char *type, const char *key, const char *more);

/* The service reads all of one topic, or of ALL; commits; publishes. -> whether anything moved */
bool play_run(struct sim_world *w, int service, int topic);
/* Reads all of a topic into the batch, which stays open. */
void play_read(struct sim_world *w, int service, int topic);
void play_commit(struct sim_world *w, int service);
/* The provider makes all calls that wait, and the payment service hears of them. */
bool play_answer(struct sim_world *w, enum how how);
/* Rows that are due by now. */
bool play_due(struct sim_world *w, int service);
/* When the next row of the service is due, or 0. */
int64_t play_next_due(const struct sim_world *w, int service);
/* Until nothing moves, but for what is due. */
void play_settle(struct sim_world *w);

void play_expect(struct sim_world *w, const char *file, int line, const char *trace);
/* The trace since the last one; all invariants hold. */
#define EXPECT(w, ...) play_expect(w, __FILE__, __LINE__, "" __VA_ARGS__)

#endif
