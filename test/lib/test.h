/* What suites and benches share: failing, waiting for a condition, short-lived texts. Knows nothing
 * of `check`, because benches are linked without it: a suite says what a failure does. One thread.
 */
#ifndef TEST_H
#define TEST_H

#include <stdbool.h>
#include <stdint.h>

/* With SAGA_FAIL_FAST in the environment nothing is waited for after a failure: for those who want to
 * know only whether there is one.
 *
 * Called with what failed; does not return. NULL: prints it and exits with 1. */
extern void (*test_failed)(const char *file, int line, const char *text);

__attribute__((noreturn, format(printf, 3, 4))) void test_fail(const char *file, int line,
                                                               const char *format, ...);

/* MUST(n == 3, "n is %d", n) */
#define MUST(condition, ...)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            test_fail(__FILE__, __LINE__, __VA_ARGS__);                                            \
    } while (0)

#define MUST_BE(expression, expected)                                                              \
    do {                                                                                           \
        int64_t is_ = (expression), expected_ = (expected);                                        \
        MUST(is_ == expected_, "%s is %lld, expected %lld", #expression, (long long)is_,           \
             (long long)expected_);                                                                \
    } while (0)

/* Asks again and again, every 10 ms, until the condition is true; fails after so many seconds
 * (test_until). */
#define AWAIT(seconds, condition)                                                                  \
    do {                                                                                           \
        int64_t until_ = test_until(seconds);                                                      \
        while (!(condition))                                                                       \
            if (!test_pause(until_))                                                               \
                test_fail(__FILE__, __LINE__, "not within %g s: %s", (double)(seconds),            \
                          #condition);                                                             \
    } while (0)

int64_t test_now(void); /* us, monotonic */
/* The deadline in so many seconds: times CK_TIMEOUT_MULTIPLIER of the environment, as
 * check's own time-outs, for slow builds. */
int64_t test_until(double seconds);
bool test_pause(int64_t until); /* 10 ms; -> false: until has passed */

/* printf into a text that lives until 255 further calls. */
const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool same(const char *a, const char *b); /* NULL is the same as NULL only */

#endif
