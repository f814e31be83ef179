/* The suites of the simulation.
 *
 * transcript: every path of the saga, played once. later: orders that are paid later, or not in
 * time. request: every illegal request, at its moment. attack, writer: ATTACKS.md, where rules and
 * lanes alone decide. limits: of what is asked and said. explore: all schedules of small worlds. random:
 * seeded schedules. */
#ifndef SIM_SUITES_H
#define SIM_SUITES_H

#include <check.h>
#include <stdbool.h>

#define SUITES(X)                                                                                  \
    X(transcript) X(later) X(request) X(attack) X(writer) X(limits) X(explore) X(random)
#define DECLARE(name) Suite *name##_suite(void);
SUITES(DECLARE)

#endif
