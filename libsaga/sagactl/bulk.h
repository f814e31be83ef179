/* Many orders at once: counts which of them are at their end. Used by order place --count. */
#ifndef CTL_BULK_H
#define CTL_BULK_H

#include <stdbool.h>
#include <stdint.h>

struct ctl_bulk {
    const char *base; /* ids are base-1 to base-count */
    int64_t count;
    bool later; /* their end is the reservation */
    /* private: */
    bool *ended;
    int64_t began_ms, paid, cancelled, reserved;
};

void ctl_bulk_begin(struct ctl_bulk *b); /* before the first is sent */
/* Waits for Kafka's acknowledgements, then at most wait_s seconds (0: not at all) for the ends, and
 * tells. -> exit status */
int ctl_bulk_end(struct ctl_bulk *b, int64_t wait_s);

#endif
