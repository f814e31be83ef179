/* What event.c and request.c share. Private to them. */
#ifndef SAGA_EVENT_PRIVATE_H
#define SAGA_EVENT_PRIVATE_H

#include "event.h"

/* Decimal digits without leading zeros, at most most. -> false: not that. *p is past them. */
bool event_number(const char **p, const char *end, int64_t most, int64_t *v);
bool event_trace_ok(const char *s, size_t n); /* what is no traceparent is ignored, as W3C says */
const struct saga_event *event_known(const struct saga_event *const *known, const char *type);
int event_poison(const char **reason, const char *which); /* -> SAGA_POISON */

#endif
