/* Failing, waiting, short-lived texts. See test.h. */
#include "test.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void (*test_failed)(const char *file, int line, const char *text);
static bool over; /* nothing is waited for any more */

void test_fail(const char *file, int line, const char *format, ...)
{
    static char what[4000];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    over = getenv("SAGA_FAIL_FAST") != NULL;
    if (test_failed)
        test_failed(file, line, what);
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    exit(EXIT_FAILURE);
}

int64_t test_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t test_until(double seconds)
{
    static double patience;

    if (patience == 0) {
        const char *factor = getenv("CK_TIMEOUT_MULTIPLIER");
        patience = factor && atof(factor) > 0 ? atof(factor) : 1;
    }
    return test_now() + (int64_t)(seconds * patience * 1e6);
}

bool test_pause(int64_t until)
{
    struct timespec t = {0, 10000000};

    if (over || test_now() >= until)
        return false;
    nanosleep(&t, NULL);
    return true;
}

const char *text(const char *format, ...)
{
    static char *kept[256];
    static unsigned next;
    char **slot = &kept[next++ % 256];
    va_list args;

    free(*slot);
    va_start(args, format);
    if (vasprintf(slot, format, args) < 0)
        abort();
    va_end(args);
    return *slot;
}

bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}
