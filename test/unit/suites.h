/* The unit suites. A new one is a line here and its file beside this. */
#ifndef SUITES_H
#define SUITES_H

#include <check.h>

/* clang-format off */
#define SUITES(X) \
    X(column)     \
    X(write)      \
    X(batch)      \
    X(share)      \
    X(lane)       \
    X(bus)        \
    X(post)       \
    X(pg)         \
    X(request)    \
    X(event)      \
    X(field)      \
    X(json)       \
    X(inventory)  \
    X(cache)      \
    X(order)      \
    X(ask)        \
    X(payment)    \
    X(calls)      \
    X(wire)       \
    X(breaker)    \
    X(provider)   \
    X(recent)     \
    X(schemas)    \
    X(openapi)    \
    X(conf)       \
    X(health)     \
    X(http)       \
    X(limits)     \
    X(guard)      \
    X(sagactl)    \
    X(metrics)    \
    X(memory)     \
    X(log)
/* clang-format on */

#define DECLARE(name) Suite *name##_suite(void);
SUITES(DECLARE)

#endif
