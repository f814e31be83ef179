/* The live suites. A new one is a line here and its file beside this. Each has a world of its own,
 * shared by its cases, which run in order; the last case of each is the audit. */
#ifndef SUITES_H
#define SUITES_H

#include <check.h>

/* clang-format off */
#define SUITES(X) \
    X(servers)    \
    X(provider)   \
    X(provider_http) \
    X(stock)      \
    X(outbox)     \
    X(paths)      \
    X(producers)  \
    X(copies)     \
    X(letters)    \
    X(parked)     \
    X(unstored)   \
    X(refused)    \
    X(gaps)       \
    X(schedules)  \
    X(leaders)    \
    X(loss)       \
    X(unasked)    \
    X(kills)      \
    X(sessions)   \
    X(owners)     \
    X(failpoints) \
    X(flood)
/* clang-format on */

#define DECLARE(name) Suite *name##_suite(void);
SUITES(DECLARE)

#endif
