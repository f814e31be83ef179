/* All schedules of a small world: each delivery, request, deadline, answer and fault at each moment
 * at which it can come. The invariants are looked at in every state, and where nothing is owed any
 * more (no record unread, nothing unsent, no call open) the end of RULES.md, 3. A state that comes
 * again on its own path would be something that goes on for ever: it fails, too.
 *
 * Depth first. A state is known by what its future depends on (state.c), so that it ends. What comes
 * back with another owner or another place in the topics, but with the same future, is not walked
 * twice; a sample of what comes back is, one step far, and must lead to the same states.
 *
 * What is left out, because nobody can tell the difference:
 * - A record that waits in a topic is as good as one that is not sent yet, or a request that is not
 *   made yet: each input is read in order, at any time. So requests are read when they are made, and
 *   what is committed is sent at once, unless the owner dies between the two.
 * - A record that moves no order (no rule, a duplicate, in a gap) is read at once: its verdict
 *   depends on its own input only. */
#ifndef EXPLORE_H
#define EXPLORE_H

#include "move.h"

enum { ASKS_MAX = 12, KEYS_MAX = 2 };

struct ask {
    const char *key, *text; /* the order, and the request */
    int times;              /* it is made so often, or less */
    int either;             /* of those with the same number only one is made; 0: no matter */
    bool misplaced;         /* it is put into another partition than its order's */
};
struct plan {
    const char *name;
    int pieces; /* of the SKU "apple" */
    struct ask ask[ASKS_MAX];
    bool deadlines; /* they come at any time */
    int batch;      /* inputs of a batch, at most; 0: 1 */
    bool reports;   /* deliveries are reported at any time, not at once */
    /* Faults, how many at most: */
    int silent;    /* calls whose outcome is not told, or that are not made */
    int early;     /* calls made again while the first one runs */
    int crashes;   /* of a service: between any two durable steps */
    int takeovers; /* of a lane, the old owner still sends */
    int copies;    /* of a record of an event topic */
    int rewinds;   /* of an input, to any place */
    int losses;    /* of a record that was sent */
    bool full;     /* too large for each change: by EXPLORE=full only */
};
struct explored {
    int64_t states, steps, ends, sampled;
    int depth;
    double seconds;
    cells cells;
    char failed[1024]; /* "": all is well */
    int moves;         /* of the shrunk schedule that fails */
};

/* What fails is shrunk; its transcript is printed unless a cell was broken on purpose. */
void explore(const struct plan *plan, struct explored *out);

/* state.c: what the future of a world depends on, as a number; only these orders and lanes matter. */
struct scope {
    const char *key[KEYS_MAX];
    int keys, lane[LANES], lanes;
};
uint64_t state_of(const struct sim_world *w, const struct scope *scope, bool all_records);

#endif
