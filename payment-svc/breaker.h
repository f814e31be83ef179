/* A circuit breaker: while nobody is answered, nobody is asked but one now and then. Pure; one thread.
 *
 * It opens after so many failures of calls that began after the newest good answer: a provider that
 * answers others in the meantime is well, however many slow calls come to their time-out together.
 * Open, it lets one call through each break_for (half open); a good answer closes it, also a late one
 * to a call from before. */
#ifndef BREAKER_H
#define BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum breaker_state { BREAKER_CLOSED, BREAKER_PROBING, BREAKER_OPEN };

struct breaker { /* times in us of any clock that does not go back */
    int64_t break_after, break_for;
    enum breaker_state is;
    int64_t well;     /* when the newest good answer came */
    int64_t failures; /* of calls that began since */
    int64_t since;    /* when it was opened, or its probe began */
};

/* -> whether a call may begin now. If so, its end must be told: */
bool breaker_lets(struct breaker *b, int64_t now);
void breaker_well(struct breaker *b, int64_t now);
void breaker_failed(struct breaker *b, int64_t began, int64_t now);

#endif
