/* What a transaction may have of a run's inputs. The database says no more than that it refuses one of
 * them: less and less is tried until that one stands alone, then more again. Pure. */
#ifndef SAGA_SHARE_H
#define SAGA_SHARE_H

#include <stdbool.h>

struct saga_share {
    int records, answers; /* the first so many that are there */
    int due, redriven;    /* what the database was asked for: what is left out is asked for again */
    int answers_left;     /* of those that were there when the run began */
};

/* After a transaction with more than one input that was refused. -> false: it had no more than one */
bool saga_share_less(struct saga_share *s);
/* After one that was not. -> false: nothing is left */
bool saga_share_more(struct saga_share *s, int records_left, int answers_done);

#endif
