/* The simulated provider against a real PostgreSQL (libpq's PG* variables), in a schema of its own:
 * the same key moves money once, whoever asks and however often, and nobody waits for another's
 * slow call. */
#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "calls.h"
#include "db.h"
#include "payment.h"
#include "pg.h"
#include "provider.h"
#include "suites.h"
#include "test.h"

enum { MANY = 1000, THREADS = 8, PATIENCE_S = 20 };

static const struct saga_service service = {.name = "payment", .rules = payment_rules};
static char schema[40];
static struct db *db;
static int wake;

/* ---- The world ---- */

static char *file_text(const char *name)
{
    static char text_of[16384];
    FILE *file = fopen(name, "r");

    ck_assert_ptr_nonnull(file);
    text_of[fread(text_of, 1, sizeof text_of - 1, file)] = '\0';
    fclose(file);
    return text_of;
}

static void start(void)
{
    snprintf(schema, sizeof schema, "provider_test_%ld", (long)getpid());
    payment_schema = schema;
    payment_call_timeout = 5000000;
    db = db_new(NULL);
    db_run(db, "create schema %s; set search_path = %s; %s", schema, schema,
           file_text("payment-svc/sql/001.sql"));
    wake = eventfd(0, EFD_CLOEXEC);
    saga_calls_start(&service, 0, wake); /* takes the answers; the callers' threads are ours */
}

static void stop(void)
{
    db_run(db, "drop schema %s cascade", schema);
    db_free(db);
    close(wake);
}

/* ---- Calls and answers ---- */

static struct charge asked(const char *token, int64_t amount)
{
    return (struct charge){amount, "EUR", token, "pay-1", 1};
}

static void call_one(const struct saga_event *what, const char *order, const char *token,
                     int64_t amount)
{
    struct charge data = asked(token, amount);

    provider_simulated.call(&(struct saga_call){order, what, &data}, 1);
}

/* The answers that have come, oldest first; at least n of them. */
static struct saga_answered *answers(int n)
{
    struct saga_answered *all = NULL, **end = &all;

    while (n > 0) {
        struct pollfd fd = {wake, POLLIN, 0};
        uint64_t count;
        MUST(poll(&fd, 1, PATIENCE_S * 1000) == 1, "%d answers are missing", n);
        MUST(read(wake, &count, sizeof count) == sizeof count, "eventfd");
        for (*end = saga_calls_take(); *end; end = &(*end)->next)
            n--;
    }
    return all;
}

static void drop(struct saga_answered *all)
{
    while (all) {
        struct saga_answered *next = all->next;
        free(all);
        all = next;
    }
}

/* The next answer is this one, for this order. text is its reason, or the reference of a success.
 */
static void expect(const char *order, const struct saga_event *event, const char *text_of)
{
    struct saga_answered *a = answers(1);
    const struct answer *answer = a->data;

    ck_assert_str_eq(a->key, order);
    ck_assert_str_eq(a->event->type, event->type);
    ck_assert_str_eq(answer->ref ? answer->ref : answer->reason, text_of);
    ck_assert_ptr_null(a->next);
    drop(a);
}

static int64_t moved(const char *kind)
{
    return db_int(db,
                  "select coalesce(sum(amount), 0)::bigint from ledger"
                  " where reason is null and key like '%s:%%'",
                  kind);
}

/* ---- Tokens ---- */

static const struct {
    const char *token;
    const struct saga_event *first;
    const char *first_text;
    const struct saga_event *then; /* and for ever */
    const char *then_text;
    int64_t captured;
} tokens[] = {
    {"tok_ok", &charge_succeeded, "sim-charge:o", &charge_succeeded, "sim-charge:o", 700},
    {"tok_declined", &charge_declined, "declined", &charge_declined, "declined", 0},
    {"tok_insufficient_funds", &charge_declined, "insufficient_funds", &charge_declined,
     "insufficient_funds", 0},
    {"tok_expired", &charge_declined, "expired", &charge_declined, "expired", 0},
    {"tok_unknown_once", &charge_unknown, "timeout", &charge_succeeded, "sim-charge:o", 700},
    {"tok_unknown_declined", &charge_unknown, "timeout", &charge_declined, "declined", 0},
    {"tok_slow_1", &charge_succeeded, "sim-charge:o", &charge_succeeded, "sim-charge:o", 700},
    {"tok_refund_refused_2", &charge_succeeded, "sim-charge:o", &charge_succeeded, "sim-charge:o",
     700},
    {"tok_slow_", &charge_declined, "unknown_token", &charge_declined, "unknown_token", 0},
    {"tok_slow_1x", &charge_declined, "unknown_token", &charge_declined, "unknown_token", 0},
    {"tok_okay", &charge_declined, "unknown_token", &charge_declined, "unknown_token", 0},
};

/* Each token does what RULES.md says, the first time and ever after, and moves money once. */
START_TEST(every_token)
{
    call_one(&charge, "o", tokens[_i].token, 700);
    expect("o", tokens[_i].first, tokens[_i].first_text);
    ck_assert_int_eq(moved("charge"), tokens[_i].captured);
    for (int again = 0; again < 3; again++) {
        call_one(&charge, "o", tokens[_i].token, 700);
        expect("o", tokens[_i].then, tokens[_i].then_text);
    }
    ck_assert_int_eq(moved("charge"), tokens[_i].captured);
    ck_assert_int_eq(db_int(db, "select count(*) from ledger"), 1);
}
END_TEST

/* Once declined is declined for ever, whatever a later call with the key brings; and so is a
 * success. */
START_TEST(the_first_answer_holds_for_any_later_token)
{
    call_one(&charge, "o", "tok_declined", 700);
    expect("o", &charge_declined, "declined");
    call_one(&charge, "o", "tok_ok", 700);
    expect("o", &charge_declined, "declined");
    call_one(&charge, "p", "tok_ok", 700);
    expect("p", &charge_succeeded, "sim-charge:p");
    call_one(&charge, "p", "tok_expired", 900);
    expect("p", &charge_succeeded, "sim-charge:p");
    ck_assert_int_eq(moved("charge"), 700);
}
END_TEST

/* To be looked up before: what is there is answered and moves no money, what is not is asked for. */
START_TEST(a_look_up_finds_or_asks)
{
    struct charge late = asked("tok_ok", 700);

    late.look_up = true;
    late.tries = 2;
    call_one(&charge, "o", "tok_unknown_once", 700);
    expect("o", &charge_unknown, "timeout");
    provider_simulated.call(&(struct saga_call){"o", &charge, &late}, 1);
    expect("o", &charge_succeeded, "sim-charge:o");
    ck_assert_int_eq(moved("charge"), 700);
    provider_simulated.call(&(struct saga_call){"p", &charge, &late}, 1);
    expect("p", &charge_succeeded, "sim-charge:p");
    ck_assert_int_eq(moved("charge"), 1400);
    for (int again = 0; again < 2; again++) {
        provider_simulated.call(&(struct saga_call){"o", &refund, &late}, 1);
        expect("o", &refund_succeeded, "sim-refund:o");
        ck_assert_int_eq(moved("refund"), 700);
    }
}
END_TEST

/* ---- Refunds ---- */

/* A refund is of what was charged, not of what is asked; refused so often as the token says, then
 * given once and for ever. */
START_TEST(a_refund_is_refused_as_often_as_the_token_says)
{
    char token[32];

    snprintf(token, sizeof token, _i ? "tok_refund_refused_%d" : "tok_ok", _i);
    call_one(&charge, "o", token, 700);
    expect("o", &charge_succeeded, "sim-charge:o");
    for (int k = 0; k < _i; k++) {
        call_one(&refund, "o", token, 9999);
        expect("o", &refund_refused, "refused");
        ck_assert_int_eq(moved("refund"), 0);
    }
    for (int k = 0; k < 3; k++) {
        call_one(&refund, "o", token, 9999);
        expect("o", &refund_succeeded, "sim-refund:o");
        ck_assert_int_eq(moved("refund"), 700);
    }
}
END_TEST

/* What was never charged, or declined, is not paid out. */
START_TEST(nothing_is_refunded_that_was_not_charged)
{
    call_one(&refund, "o", "tok_ok", 700);
    expect("o", &refund_refused, "not_charged");
    call_one(&charge, "o", "tok_declined", 700);
    expect("o", &charge_declined, "declined");
    call_one(&refund, "o", "tok_ok", 700);
    expect("o", &refund_refused, "not_charged");
    ck_assert_int_eq(moved("refund"), 0);
}
END_TEST

/* ---- Many ---- */

static char order_name[MANY][16];
static struct charge many_data[MANY];

/* A call for each of MANY orders, in this order or the reverse. */
static void fill(struct saga_call *calls, bool backwards)
{
    for (int i = 0; i < MANY; i++) {
        snprintf(order_name[i], sizeof order_name[i], "o%d", (i * 7919) % MANY);
        many_data[i] = asked("tok_ok", 1);
    }
    for (int i = 0; i < MANY; i++)
        calls[i] =
            (struct saga_call){order_name[backwards ? MANY - 1 - i : i], &charge, &many_data[i]};
}

static void expect_all(const struct saga_answered *all, const struct saga_event *event, int n)
{
    for (; all; all = all->next, n--)
        ck_assert_str_eq(all->event->type, event->type);
    ck_assert_int_eq(n, 0);
}

/* All calls that wait together are one transaction, and each is answered. */
START_TEST(calls_of_a_batch_are_one_transaction)
{
    static struct saga_call calls[MANY];

    fill(calls, false);
    provider_simulated.call(calls, MANY);
    struct saga_answered *all = answers(MANY);
    expect_all(all, &charge_succeeded, MANY);
    drop(all);
    ck_assert_int_eq(moved("charge"), MANY);
    ck_assert_int_eq(db_int(db, "select count(distinct xmin::text) from ledger"), 1);
}
END_TEST

/* Charges and refunds of different orders, new and repeated, in one batch: each has its own answer.
 */
START_TEST(a_batch_may_be_mixed)
{
    struct charge ok = asked("tok_ok", 700), no = asked("tok_expired", 700);
    struct saga_call calls[] = {
        {"b", &refund, &ok}, {"c", &charge, &no}, {"a", &charge, &ok}, {"x", &refund, &ok}};

    call_one(&charge, "a", "tok_ok", 700);
    expect("a", &charge_succeeded, "sim-charge:a");
    call_one(&charge, "b", "tok_ok", 700);
    expect("b", &charge_succeeded, "sim-charge:b");
    provider_simulated.call(calls, 4);
    struct saga_answered *all = answers(4);
    for (struct saga_answered *a = all; a; a = a->next)
        ck_assert_ptr_eq(a->event, *a->key == 'a'   ? &charge_succeeded
                                   : *a->key == 'b' ? &refund_succeeded
                                   : *a->key == 'c' ? &charge_declined
                                                    : &refund_refused);
    drop(all);
    ck_assert_int_eq(moved("charge"), 1400);
    ck_assert_int_eq(moved("refund"), 700);
}
END_TEST

static pthread_barrier_t together;

static void *caller(void *calls)
{
    pthread_barrier_wait(&together);
    provider_simulated.call(calls, MANY);
    return NULL;
}

/* The same keys asked by several at once, each over a connection of its own as two processes have,
 * and in opposite orders: nobody waits in a ring, all get the one answer, money moves once. */
START_TEST(the_same_key_at_once_moves_money_once)
{
    static struct saga_call calls[2][MANY];
    pthread_t thread[THREADS];

    fill(calls[0], false);
    fill(calls[1], true);
    pthread_barrier_init(&together, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, caller, calls[i % 2]), 0);
    struct saga_answered *all = answers(THREADS * MANY);
    expect_all(all, &charge_succeeded, THREADS * MANY);
    drop(all);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    ck_assert_int_eq(moved("charge"), MANY);
}
END_TEST

/* ---- Slow ones ---- */

static void *call_in_thread(void *calls)
{
    const struct saga_call *c = calls;
    int n = 0;

    while (c[n].key)
        n++;
    provider_simulated.call(calls, n);
    return NULL;
}

static int transactions_open(void)
{
    return (int)db_int(db, "select count(*) from pg_locks"
                           " where relation = 'ledger'::regclass and pid <> pg_backend_pid()");
}

/* A slow call holds up none of its batch, whichever stands first, and no transaction. */
START_TEST(a_slow_call_holds_up_nobody)
{
    struct charge slow = asked("tok_slow_3000", 7), fast = asked("tok_ok", 7);
    struct saga_call calls[] = {{"slow", &charge, &slow}, {"z", &charge, &fast}, {NULL}};
    pthread_t thread;
    int64_t began = test_now();

    ck_assert_int_eq(pthread_create(&thread, NULL, call_in_thread, calls), 0);
    struct saga_answered *first = answers(1);
    ck_assert_str_eq(first->key, "z");
    ck_assert_ptr_null(first->next);
    drop(first);
    ck_assert_int_lt(test_now() - began, 3000000);
    ck_assert_int_eq(moved("charge"), 14);
    ck_assert_int_eq(transactions_open(), 0);
    expect("slow", &charge_succeeded, "sim-charge:slow");
    ck_assert_int_ge(test_now() - began, 3000000);
    pthread_join(thread, NULL);
}
END_TEST

/* A call that is slower than the time-out has no answer, and the next with its key has. */
START_TEST(a_call_beyond_the_time_out_is_unknown)
{
    int64_t began = test_now();

    payment_call_timeout = 50000;
    call_one(&charge, "o", "tok_slow_600000", 700);
    expect("o", &charge_unknown, "timeout");
    ck_assert_int_lt(test_now() - began, PATIENCE_S * INT64_C(1000000));
    call_one(&charge, "o", "tok_slow_600000", 700);
    expect("o", &charge_succeeded, "sim-charge:o");
    ck_assert_int_eq(moved("charge"), 700);
}
END_TEST

/* ---- Trouble ---- */

/* Not pg_stat_activity, which does not move within a transaction. */
#define WAITING "from pg_locks where relation = 'ledger'::regclass and not granted"

/* A connection that is lost in the middle of a call: the outcome is not known, and the same key
 * tells. */
START_TEST(a_lost_connection_is_unknown)
{
    struct charge data = asked("tok_ok", 700);
    struct saga_call calls[] = {{"o", &charge, &data}, {NULL}};
    pthread_t thread;

    db_run(db, "begin; lock table ledger");
    ck_assert_int_eq(pthread_create(&thread, NULL, call_in_thread, calls), 0);
    AWAIT(PATIENCE_S, db_int(db, "select count(*) " WAITING) == 1);
    int64_t first = db_int(db, "select pid " WAITING);
    db_run(db, "select pg_terminate_backend(pid) " WAITING);
    /* asked once more, on a new connection: the one before may have died long ago */
    AWAIT(PATIENCE_S,
          db_int(db, "select count(*) " WAITING " and pid <> %lld", (long long)first) == 1);
    db_run(db, "select pg_terminate_backend(pid) " WAITING);
    expect("o", &charge_unknown, "the provider cannot be reached");
    db_run(db, "rollback");
    pthread_join(thread, NULL);

    call_one(&charge, "o", "tok_ok", 700);
    expect("o", &charge_succeeded, "sim-charge:o");
    ck_assert_int_eq(moved("charge"), 700);
}
END_TEST

static void *call_nobody(void *unused)
{
    (void)unused;
    call_one(&charge, "o", "tok_ok", 700);
    call_one(&refund, "p", "tok_ok", 700);
    return NULL;
}

/* A provider that cannot be reached fails nothing. */
START_TEST(nobody_there_is_unknown)
{
    pthread_t thread; /* a new one, without a connection */

    payment_database = "host=127.0.0.1 port=1";
    ck_assert_int_eq(pthread_create(&thread, NULL, call_nobody, NULL), 0);
    pthread_join(thread, NULL);
    payment_database = "";
    struct saga_answered *all = answers(2);
    ck_assert_ptr_eq(all->event, &charge_unknown);
    ck_assert_ptr_eq(all->next->event, &refund_unknown);
    drop(all);
}
END_TEST

Suite *provider_suite(void)
{
    Suite *suite = suite_create("provider");
    TCase *answered = tcase_create("answers"), *together_ = tcase_create("together");

    tcase_add_checked_fixture(answered, start, stop);
    tcase_add_loop_test(answered, every_token, 0, sizeof tokens / sizeof *tokens);
    tcase_add_test(answered, the_first_answer_holds_for_any_later_token);
    tcase_add_test(answered, a_look_up_finds_or_asks);
    tcase_add_loop_test(answered, a_refund_is_refused_as_often_as_the_token_says, 0, 3);
    tcase_add_test(answered, nothing_is_refunded_that_was_not_charged);
    suite_add_tcase(suite, answered);

    tcase_add_checked_fixture(together_, start, stop);
    tcase_set_timeout(together_, 3 * PATIENCE_S);
    tcase_add_test(together_, calls_of_a_batch_are_one_transaction);
    tcase_add_test(together_, a_batch_may_be_mixed);
    tcase_add_test(together_, the_same_key_at_once_moves_money_once);
    tcase_add_test(together_, a_slow_call_holds_up_nobody);
    tcase_add_test(together_, a_call_beyond_the_time_out_is_unknown);
    tcase_add_test(together_, a_lost_connection_is_unknown);
    tcase_add_test(together_, nobody_there_is_unknown);
    suite_add_tcase(suite, together_);
    return suite;
}
