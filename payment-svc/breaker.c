/* A circuit breaker. See breaker.h. */
#include "breaker.h"

bool breaker_lets(struct breaker *b, int64_t now)
{
    if (b->is == BREAKER_CLOSED)
        return true;
    if (b->is == BREAKER_PROBING || now - b->since < b->break_for)
        return false;
    b->is = BREAKER_PROBING;
    b->since = now;
    return true;
}

void breaker_well(struct breaker *b, int64_t now)
{
    b->is = BREAKER_CLOSED;
    b->well = now;
    b->failures = 0;
}

static void open_it(struct breaker *b, int64_t now)
{
    b->is = BREAKER_OPEN;
    b->since = now;
}

void breaker_failed(struct breaker *b, int64_t began, int64_t now)
{
    if (b->is == BREAKER_PROBING && began >= b->since) /* the probe, not one from before */
        open_it(b, now);
    if (b->is == BREAKER_CLOSED && began >= b->well && ++b->failures >= b->break_after)
        open_it(b, now);
}
