/* The queue of outside calls (DESIGN.md 4.6): a key stands in it once, it is bounded, and what waits is
 * called in its order, with what was said when it was put. */
#include "calls.h"

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

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
    int64_t amount, since;
} called[SAGA_CALLS_MAX];
static int called_n;

static void write_down(const struct saga_call *calls, int n)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n; i++, called_n++) {
        snprintf(called[called_n].key, sizeof called->key, "%s", calls[i].key);
        called[called_n].amount = ((const struct sum *)calls[i].data)->amount;
        called[called_n].since = calls[i].since;
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
    return saga_calls_put(&(struct saga_call){key, &pay, &(struct sum){amount}}, 1, i);
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
        ck_assert_int_eq(called[i].since, i); /* how old it is, its caller knows */
    }
    called_n = 0;
    ck_assert_int_eq(put(SAGA_CALLS_MAX, 1), 1);
}
END_TEST

/* ---- Answers, from several threads at once ---- */

enum { CALLERS = 4, ORDERS = 8000 /* fewer than may wait */, PATIENCE_MS = 20000 };

static void answer(const struct saga_call *calls, int n)
{
    for (int i = 0; i < n; i++)
        saga_answer(&calls[i], &pay, calls[i].data);
}

static const struct saga_rule pay_rules[] = {{&pay}, {0}};
static const struct saga_service answering = {.name = "s", .rules = pay_rules, .call = answer};

/* seen: by order, how often. -> number of those that had come */
static int take(int *seen)
{
    int n = 0;

    for (struct saga_answered *a = saga_calls_take(), *next; a; a = next, n++) {
        int64_t i = ((const struct sum *)a->data)->amount;
        char key[24];
        next = a->next;
        ck_assert_int_lt(i, ORDERS);
        snprintf(key, sizeof key, "order-%d", (int)i);
        ck_assert_str_eq(a->key, key);
        seen[i]++;
        free(a);
    }
    return n;
}

/* Every call that is queued is answered once, with its own data, and the engine is woken for it. */
START_TEST(each_call_is_answered_once)
{
    static int seen[ORDERS];
    struct pollfd wake = {eventfd(0, EFD_NONBLOCK), POLLIN, 0};
    uint64_t times;
    int asked = 0, answered = 0;

    saga_calls_start(&answering, CALLERS, wake.fd);
    while (answered < ORDERS) {
        if (asked < ORDERS) {
            ck_assert_int_eq(put(asked, asked), 1);
            asked++;
        } else {
            ck_assert_msg(poll(&wake, 1, PATIENCE_MS) == 1, "%d of %d answers", answered, ORDERS);
            ck_assert_int_eq(read(wake.fd, &times, sizeof times), sizeof times);
        }
        answered += take(seen);
    }
    for (int i = 0; i < ORDERS; i++)
        ck_assert_int_eq(seen[i], 1);
}
END_TEST

Suite *calls_suite(void)
{
    Suite *s = suite_create("calls");
    TCase *t = tcase_create("all");

    tcase_add_test(t, a_key_waits_once);
    tcase_add_test(t, the_queue_is_bounded);
    tcase_add_test(t, each_call_is_answered_once);
    suite_add_tcase(s, t);
    return s;
}
