/* The live suites. A new one is a line here and its file beside this. Each has a world of its own,
 * shared by its cases, which run in order; the last case of each is the audit.
 *
 * Those that stop servers, or load them as nobody else does, need some to themselves. All others run
 * side by side on the same; `check` starts them in this order, the longest first. */
#ifndef SUITES_H
#define SUITES_H

#include <check.h>
#include <stdbool.h>

/* clang-format off */
#define ALONE(X)  \
    X(servers)    \
    X(orders_http) \
    X(cache)      \
    X(stale)      \
    X(loss)       \
    X(unasked)    \
    X(flood)
#define BESIDE(X) \
    X(failpoints) \
    X(sessions)   \
    X(owners)     \
    X(provider)   \
    X(provider_http) \
    X(stock)      \
    X(http)       \
    X(schemathesis) \
    X(outbox)     \
    X(paths)      \
    X(producers)  \
    X(copies)     \
    X(letters)    \
    X(parked)     \
    X(unstored)   \
    X(sagactl)    \
    X(refused)    \
    X(gaps)       \
    X(schedules)  \
    X(leaders)    \
    X(looks)      \
    X(kills)
#define SUITES(X) ALONE(X) BESIDE(X)
/* clang-format on */

#define DECLARE(name) Suite *name##_suite(void);
SUITES(DECLARE)

/* `live SUITE/CASE` runs this case alone: one that needs what an earlier one of its suite has left
 * fails, then. A fixture without a case is not set up. */
bool live_wants(const TTest *test);
bool live_has_case(void); /* since it was asked last */
#undef tcase_add_test
#define tcase_add_test(tcase, test)                                                                \
    do {                                                                                           \
        if (live_wants(test))                                                                      \
            tcase_add_test_raise_signal(tcase, test, 0);                                           \
    } while (0)
#define suite_add_tcase(suite, tcase)                                                              \
    do {                                                                                           \
        if (live_has_case())                                                                       \
            suite_add_tcase(suite, tcase);                                                         \
    } while (0)

#endif
