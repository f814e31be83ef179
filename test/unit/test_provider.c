/* The provider over HTTP, against one that has the vices of real ones (test/lib/bank.h): what a try
 * comes to, that the same key moves money once, and that nobody waits for another's slow call. */
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bank.h"
#include "calls.h"
#include "engine.h"
#include "log.h"
#include "metrics.h"
#include "payment.h"
#include "proc.h"
#include "provider.h"
#include "suites.h"
#include "test.h"

#define MS INT64_C(1000)

enum { PATIENCE_S = 20, MANY = 300 };

static const struct saga_service service = {.name = "payment", .rules = payment_rules};
static struct bank *bank;
static char url[80], token_file[] = "/tmp/test-bearer-XXXXXX";
static int wake;

/* What a case wants otherwise it sets before its first call. */
static void start(void)
{
    const char *why = "";
    int fd = mkstemp(token_file);

    saga_log_open("unit", SAGA_ERROR);
    ck_assert_int_eq(write(fd, "s3cret\n", 7), 7);
    close(fd);
    bank = bank_new("s3cret", 3600000 * MS);
    snprintf(url, sizeof url, "%s/", bank_url(bank));
    payment_call_timeout = 2000 * MS;
    payment_http = (struct payment_http){url, token_file, "", 1000 * MS, MANY, 1000000, 100 * MS};
    provider_http.keeps_keys_us = 3600000 * MS;
    ck_assert_msg(provider_http.fits(&why), "%s", why);
    unlink(token_file);
    wake = eventfd(0, EFD_CLOEXEC);
    saga_calls_start(&service, 0, wake);
}

static struct charge asked(const char *token, const char *payment_id)
{
    return (struct charge){700, "EUR", token, payment_id, 1};
}

static void call_one(const struct saga_event *what, const char *token)
{
    static int tries;
    struct charge data = asked(token, "pay-1");

    data.tries = ++tries;
    provider_http.call(&(struct saga_call){"o", what, &data}, 1);
}

/* The answers that come next; at least n of them. */
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

/* The next answer is this one, alone. reason: of an unknown one, or NULL */
static void expect(const struct saga_event *event, const char *reason)
{
    struct saga_answered *a = answers(1);
    const struct answer *answer = a->data;

    ck_assert_str_eq(a->key, "o");
    ck_assert_msg(a->event == event, "%s: %s", a->event->type,
                  answer->reason ? answer->reason : answer->ref);
    if (reason)
        ck_assert_str_eq(answer->reason, reason);
    ck_assert_ptr_null(a->next);
    drop(a);
}

static int64_t moved(void)
{
    struct bank_entry *list;
    int n = bank_entries(bank, &list);
    int64_t sum = 0;

    for (int i = 0; i < n; i++)
        sum += list[i].declined              ? 0
               : list[i].kind == BANK_CHARGE ? list[i].amount
                                             : -list[i].amount;
    free(list);
    return sum;
}

/* ---- One call ---- */

static const struct {
    const char *token, *reason; /* of the first answer, which is unknown; NULL: there is none */
    bool declined;
} tries[] = {
    {"tok_ok", NULL, false},
    {"tok_declined", NULL, true},
    {"tok_drop_1", "Server returned nothing (no headers, no data)", false},
    {"tok_cut_1", "Transferred a partial file", false},
    {"tok_500_1", "not done (HTTP 500)", false},
    {"tok_html_1", "not understood (HTTP 200)", false},
    {"tok_json_1", "not understood (HTTP 200)", false},
    {"tok_other_1", "not understood (HTTP 200)", false},
    {"tok_huge_1", "answer too large", false},
    {"tok_redirect_1", "not done (HTTP 307)", false},
    {"tok_no_500_1", "not done (HTTP 500)", true},
};

/* What is not certain is unknown, and asked again it gets the answer that the first try had: the money
 * moves once. No redirect is followed. */
START_TEST(each_vice)
{
    const struct saga_event *end = tries[_i].declined ? &charge_declined : &charge_succeeded;

    for (int again = 0; again < 3; again++) {
        call_one(&charge, tries[_i].token);
        if (again == 0 && tries[_i].reason)
            expect(&charge_unknown, tries[_i].reason);
        else
            expect(end, NULL);
    }
    ck_assert_int_eq(moved(), tries[_i].declined ? 0 : 700);
    struct bank_counts counts = bank_counts(bank);
    ck_assert_int_eq(counts.other_keys + counts.unauthorized + counts.redirected, 0);
    ck_assert_int_eq(counts.requests, 3);
}
END_TEST

/* A refund has a key of its own and comes back once, also if it was refused before. */
START_TEST(refund_once)
{
    call_one(&charge, "tok_refund_refused_1");
    expect(&charge_succeeded, NULL);
    call_one(&refund, "tok_refund_refused_1");
    expect(&refund_refused, "no_money");
    for (int again = 0; again < 2; again++) {
        call_one(&refund, "tok_refund_refused_1");
        expect(&refund_succeeded, NULL);
        ck_assert_int_eq(moved(), 0);
    }
}
END_TEST

/* A key that is forgotten: a look-up finds what was applied, and it is not asked for again. What is not
 * there is asked for. */
START_TEST(look_up_finds_or_asks)
{
    struct charge late = asked("tok_500_1", "pay-1");
    struct saga_call calls[] = {{"o", &charge, &late}, {"o", &refund, &late}};

    bank_keep_keys(bank, 0);
    late.look_up = true;
    late.tries = 2;
    for (int i = 0; i < 2; i++) {
        provider_http.call(&calls[i], 1);
        if (i == 0)
            expect(&charge_unknown, NULL);
        else
            expect(&refund_succeeded, NULL);
        ck_assert_int_eq(bank_counts(bank).not_found, i + 1);
        for (int again = 0; again < 2; again++) {
            provider_http.call(&calls[i], 1);
            expect(i ? &refund_succeeded : &charge_succeeded, NULL);
            ck_assert_int_eq(moved(), i ? 0 : 700);
        }
    }
    ck_assert_int_eq(bank_counts(bank).not_found, 2);
    ck_assert_int_eq(bank_counts(bank).forgotten, 0);
}
END_TEST

/* A call that has waited for longer than its due is not made, nor answered: whether it needs a look-up
 * was decided too long ago. */
START_TEST(old_calls_are_not_made)
{
    struct charge data = asked("tok_ok", "pay-1"), other = asked("tok_ok", "pay-2");
    int64_t old = saga_now() - payment_call_timeout - 1000 * MS;

    provider_http.call(&(struct saga_call){"o", &charge, &data, old - 1}, 1);
    provider_http.call(&(struct saga_call){"p", &charge, &other, old + 1000 * MS}, 1);
    struct saga_answered *a = answers(1);
    ck_assert_str_eq(a->key, "p");
    ck_assert_ptr_null(a->next);
    drop(a);
    ck_assert_int_eq(bank_counts(bank).requests, 1);
    ck_assert_int_eq(*saga_metric("payment_provider_dropped_total", "", ""), 1);
}
END_TEST

/* ---- Nobody answers ---- */

START_TEST(time_outs)
{
    payment_call_timeout = 200 * MS;
    int64_t began = test_now();
    call_one(&charge, "tok_slow_600");
    expect(&charge_unknown, "timeout");
    ck_assert_int_ge(test_now() - began, 200 * MS);
    call_one(&charge, "tok_slow_600");
    expect(&charge_unknown, "in flight (HTTP 409)");
    AWAIT(PATIENCE_S, moved() == 700);
    call_one(&charge, "tok_slow_600");
    expect(&charge_succeeded, NULL);
    ck_assert_int_eq(moved(), 700);
}
END_TEST

START_TEST(nobody_there)
{
    snprintf(url, sizeof url, "http://127.0.0.1:1");
    call_one(&charge, "tok_ok");
    expect(&charge_unknown, "Couldn't connect to server");
    call_one(&refund, "tok_ok");
    expect(&refund_unknown, "Couldn't connect to server");
}
END_TEST

static char *contents(const char *name)
{
    static char text_of[8192];
    FILE *file = fopen(name, "r");

    ck_assert_ptr_nonnull(file);
    text_of[fread(text_of, 1, sizeof text_of - 1, file)] = '\0';
    fclose(file);
    return strdup(text_of);
}

/* By TLS, to whom the certificate says: one that is not trusted, or another's, is told nothing. */
START_TEST(certificates)
{
    char folder[] = "/tmp/test-tls-XXXXXX", ca[40], key[40];

    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(ca, sizeof ca, "%s/ca", folder);
    snprintf(key, sizeof key, "%s/key", folder);
    shell("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bank "
          "-addext subjectAltName=DNS:localhost -keyout %s -out %s",
          key, ca);
    bank_free(bank);
    bank = bank_new_tls("s3cret", 3600000 * MS, contents(key), contents(ca));
    snprintf(url, sizeof url, "%s", bank_url(bank));
    call_one(&charge, "tok_ok");
    expect(&charge_unknown, "SSL peer certificate or SSH remote key was not OK");
    payment_http.ca_file = ca;
    snprintf(url, sizeof url, "https://127.0.0.1%s", strrchr(bank_url(bank), ':'));
    call_one(&charge, "tok_ok");
    expect(&charge_unknown, "SSL peer certificate or SSH remote key was not OK");
    ck_assert_int_eq(bank_counts(bank).requests, 0);
    snprintf(url, sizeof url, "%s", bank_url(bank));
    call_one(&charge, "tok_ok");
    expect(&charge_succeeded, NULL);
    ck_assert_int_eq(moved(), 700);
    shell("rm -r %s", folder);
}
END_TEST

/* Open, nothing is sent; half open, one is; and after a good answer all are. */
START_TEST(breaker)
{
    payment_http.break_after = 3;
    payment_http.break_for = 300 * MS;
    bank_down(bank, 503);
    for (int i = 0; i < 3; i++) {
        call_one(&charge, "tok_ok");
        expect(&charge_unknown, "not done (HTTP 503)");
    }
    bank_down(bank, 0);
    long before = bank_counts(bank).requests;
    int64_t opened = test_now();
    call_one(&charge, "tok_ok");
    expect(&charge_unknown, "circuit breaker open");
    ck_assert_int_eq(bank_counts(bank).requests, before);
    ck_assert_int_eq(*saga_metric("payment_provider_breaker", "", ""), 2);
    AWAIT(PATIENCE_S, test_now() - opened > 300 * MS);
    for (int i = 0; i < 3; i++) {
        call_one(&charge, "tok_ok");
        expect(&charge_succeeded, NULL);
    }
    ck_assert_int_eq(*saga_metric("payment_provider_breaker", "", ""), 0);
    ck_assert_int_eq(moved(), 700);
}
END_TEST

/* ---- Many ---- */

/* Calls of so many orders, from here on. */
static void call_many(int from, int n, const char *token)
{
    char order[16], id[24];

    for (int i = from; i < from + n; i++) {
        snprintf(order, sizeof order, "o-%d", i);
        snprintf(id, sizeof id, "pay-%d", i);
        struct charge data = asked(token, id);
        provider_http.call(&(struct saga_call){order, &charge, &data}, 1);
    }
}

/* All but one of the calls that may be in flight are held: the last is answered before them. */
START_TEST(slow_calls_hold_up_nobody)
{
    payment_call_timeout = 2 * PATIENCE_S * 1000 * MS;
    call_many(0, MANY - 1, "tok_held");
    AWAIT(PATIENCE_S, bank_counts(bank).in_flight == MANY - 1);
    for (int i = 0; i < 5; i++) {
        call_many(MANY + i, 1, "tok_ok");
        drop(answers(1));
    }
    ck_assert_int_eq(moved(), 5 * 700);
    bank_let_go(bank);
    drop(answers(MANY - 1));
    ck_assert_int_eq(moved(), (MANY + 4) * 700);
}
END_TEST

/* As many are in flight as the setting says, over as many connections, which are used again. */
START_TEST(calls_in_flight_are_limited)
{
    payment_http.calls = 5;
    call_many(0, 50, "tok_slow_10");
    drop(answers(50));
    ck_assert_int_eq(moved(), 50 * 700);
    ck_assert_int_eq(bank_counts(bank).most_in_flight, 5);
    ck_assert_int_le(bank_counts(bank).connections, 6);
}
END_TEST

Suite *provider_suite(void)
{
    Suite *s = suite_create("provider");
    TCase *t = tcase_create("all");

    tcase_add_checked_fixture(t, start, NULL);
    tcase_set_timeout(t, 2 * PATIENCE_S);
    tcase_add_loop_test(t, each_vice, 0, sizeof tries / sizeof *tries);
    tcase_add_test(t, refund_once);
    tcase_add_test(t, look_up_finds_or_asks);
    tcase_add_test(t, old_calls_are_not_made);
    tcase_add_test(t, time_outs);
    tcase_add_test(t, nobody_there);
    tcase_add_test(t, certificates);
    tcase_add_test(t, breaker);
    tcase_add_test(t, slow_calls_hold_up_nobody);
    tcase_add_test(t, calls_in_flight_are_limited);
    suite_add_tcase(s, t);
    return s;
}
