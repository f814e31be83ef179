/* The circuit breaker: when it opens, what it lets through then, and when it closes. */
#include "breaker.h"

#include <check.h>

#include "suites.h"

enum { AFTER = 3, FOR = 100 };

static struct breaker b;
static int64_t clock_us;

static void start(void)
{
    b = (struct breaker){.break_after = AFTER, .break_for = FOR};
    clock_us = 1000;
}

/* A call begins now and fails a moment later. */
static void fail_one(void)
{
    ck_assert(breaker_lets(&b, clock_us));
    breaker_failed(&b, clock_us, clock_us + 1);
    clock_us += 2;
}

static void open_it(void)
{
    for (int i = 0; i < AFTER; i++)
        fail_one();
    ck_assert_int_eq(b.is, BREAKER_OPEN);
    clock_us = b.since;
}

/* It opens at the failure of the limit, and not one before. */
START_TEST(opens_after_so_many)
{
    for (int i = 0; i < AFTER - 1; i++)
        fail_one();
    ck_assert_int_eq(b.is, BREAKER_CLOSED);
    fail_one();
    ck_assert_int_eq(b.is, BREAKER_OPEN);
    ck_assert(!breaker_lets(&b, clock_us));
}
END_TEST

/* A good answer between them begins the count anew. */
START_TEST(a_good_answer_resets_the_count)
{
    for (int i = 0; i < 10 * AFTER; i++) {
        fail_one();
        if (i % (AFTER - 1) == 0)
            breaker_well(&b, clock_us++);
    }
    ck_assert_int_eq(b.is, BREAKER_CLOSED);
}
END_TEST

/* Slow calls that come to their time-out together tell nothing, if others that ended since they
 * began were answered. */
START_TEST(failures_of_before_the_last_good_answer_do_not_count)
{
    breaker_well(&b, clock_us + 50);
    for (int i = 0; i < 100 * AFTER; i++)
        breaker_failed(&b, clock_us + 49, clock_us + 60);
    ck_assert_int_eq(b.is, BREAKER_CLOSED);
    for (int i = 0; i < AFTER; i++)
        breaker_failed(&b, clock_us + 50, clock_us + 60);
    ck_assert_int_eq(b.is, BREAKER_OPEN);
}
END_TEST

/* Open, it lets nobody through for so long, and then one, until that one's end. */
START_TEST(one_is_tried)
{
    open_it();
    ck_assert(!breaker_lets(&b, clock_us + FOR - 1));
    ck_assert(breaker_lets(&b, clock_us + FOR));
    ck_assert_int_eq(b.is, BREAKER_PROBING);
    ck_assert(!breaker_lets(&b, clock_us + FOR));
    ck_assert(!breaker_lets(&b, clock_us + 100 * FOR));
}
END_TEST

/* The one that is answered closes it for all; the one that fails keeps it open, for as long again. */
START_TEST(the_tried_one_decides)
{
    open_it();
    clock_us += FOR;
    ck_assert(breaker_lets(&b, clock_us));
    breaker_failed(&b, clock_us, clock_us + 7);
    ck_assert_int_eq(b.is, BREAKER_OPEN);
    ck_assert(!breaker_lets(&b, clock_us + 7 + FOR - 1));
    ck_assert(breaker_lets(&b, clock_us + 7 + FOR));
    breaker_well(&b, clock_us + 200);
    ck_assert_int_eq(b.is, BREAKER_CLOSED);
    ck_assert(breaker_lets(&b, clock_us + 201));
    ck_assert(breaker_lets(&b, clock_us + 201));
}
END_TEST

/* Calls that were on their way when it opened: a failure neither prolongs it nor ends a probe that
 * began later; a good answer closes it. */
START_TEST(calls_from_before)
{
    open_it();
    breaker_failed(&b, clock_us - 5, clock_us + FOR - 1);
    ck_assert(breaker_lets(&b, clock_us + FOR));
    breaker_failed(&b, clock_us - 5, clock_us + FOR + 1);
    ck_assert_int_eq(b.is, BREAKER_PROBING);
    breaker_well(&b, clock_us + FOR + 2);
    ck_assert_int_eq(b.is, BREAKER_CLOSED);
    breaker_failed(&b, clock_us + FOR, clock_us + FOR + 3); /* the probe, too late to tell */
    ck_assert_int_eq(b.failures, 0);
}
END_TEST

Suite *breaker_suite(void)
{
    Suite *s = suite_create("breaker");
    TCase *t = tcase_create("all");

    tcase_add_checked_fixture(t, start, NULL);
    tcase_add_test(t, opens_after_so_many);
    tcase_add_test(t, a_good_answer_resets_the_count);
    tcase_add_test(t, failures_of_before_the_last_good_answer_do_not_count);
    tcase_add_test(t, one_is_tried);
    tcase_add_test(t, the_tried_one_decides);
    tcase_add_test(t, calls_from_before);
    suite_add_tcase(s, t);
    return s;
}
