/* The queue of outside calls (DESIGN.md 4.6): a key stands in it once, it is bounded, and what waits is
 * called in its order, with what was said when it was put. */
#include "calls.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "suites.h"

struct sum {
    int64_t amount;
};
#define T sum
static const struct saga_field fields[] = {{SAGA_AT(struct T, amount), SAGA_INT, 0, 1000000}, {0}};
#undef T
static const struct saga_event pay = {"pay", sizeof(struct sum), fields};

/* ---- A caller that writes down what it is asked ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct {
    char key[24];
    int64_t amount;
} called[SAGA_CALLS_MAX];
static int called_n;

static void write_down(const struct saga_call *calls, int n)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n; i++, called_n++) {
        snprintf(called[called_n].key, sizeof called->key, "%s", calls[i].key);
        called[called_n].amount = ((const struct sum *)calls[i].data)->amount;
    }
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
}

static const struct saga_rule no_rules[] = {{0}};
static const struct saga_service service = {.name = "s", .rules = no_rules, .call = write_down};

static int put(int i, int64_t amount)
{
    char key[24];

    snprintf(key, sizeof key, "order-%d", i);
    return saga_calls_put(&(struct saga_call){key, &pay, &(struct sum){amount}}, 1);
}

static void await_calls(int n)
{
    saga_calls_start(&service, 1, eventfd(0, 0));
    pthread_mutex_lock(&lock);
    while (called_n < n)
        pthread_cond_wait(&more, &lock);
    pthread_mutex_unlock(&lock);
    ck_assert_int_eq(called_n, n);
}

/* ---- The cases: each has a process of its own, and so a queue ---- */

/* While a key waits it is not queued again; what it was first put with is called. */
START_TEST(a_key_waits_once)
{
    ck_assert_int_eq(put(1, 10), 1);
    ck_assert_int_eq(put(2, 20), 1);
    ck_assert_int_eq(put(1, 30), 0);
    await_calls(2);
    ck_assert_int_eq(called[0].amount, 10);
    ck_assert_int_eq(put(1, 40), 1);
}
END_TEST

/* Attack 46: the queue has room for so many, and takes what comes when they have gone. They are called
 * in the order in which they came. */
START_TEST(the_queue_is_bounded)
{
    char key[24];

    for (int i = 0; i < SAGA_CALLS_MAX; i++)
        ck_assert_int_eq(put(i, i), 1);
    ck_assert_int_eq(put(SAGA_CALLS_MAX, 1), 0);
    await_calls(SAGA_CALLS_MAX);
    for (int i = 0; i < SAGA_CALLS_MAX; i++) {
        snprintf(key, sizeof key, "order-%d", i);
        ck_assert_str_eq(called[i].key, key);
        ck_assert_int_eq(called[i].amount, i);
    }
    called_n = 0;
    ck_assert_int_eq(put(SAGA_CALLS_MAX, 1), 1);
}
END_TEST

Suite *calls_suite(void)
{
    Suite *s = suite_create("calls");
    TCase *t = tcase_create("all");

    tcase_add_test(t, a_key_waits_once);
    tcase_add_test(t, the_queue_is_bounded);
    suite_add_tcase(s, t);
    return s;
}
