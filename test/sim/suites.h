/* The suites of the simulation. */
#ifndef SIM_SUITES_H
#define SIM_SUITES_H

#include <check.h>

Suite *transcript_suite(void); /* every path of the saga, played once */
Suite *later_suite(void);      /* orders that are paid later, or not in time */
Suite *request_suite(void);    /* every illegal request, at its moment */
Suite *attack_suite(void);     /* ATTACKS.md, where rules and lanes alone decide */
Suite *limits_suite(void);     /* of what is asked and said */
Suite *random_suite(void);     /* seeded schedules */

#endif
