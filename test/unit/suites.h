/* The unit suites. A new one is a line here and its file beside this. */
#ifndef SUITES_H
#define SUITES_H

#include <check.h>

#define SUITES(X) X(schemas)

#define DECLARE(name) Suite *name##_suite(void);
SUITES(DECLARE)

#endif
