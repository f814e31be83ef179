/* The provider over HTTP, from end to end: services on real servers, and a provider that has the vices
 * of real ones (test/lib/bank.h). What holds is read from the provider's own ledger: no charge and
 * no refund doubled, none lost, and each saga ends as it must. */
#include "suites.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bank.h"
#include "web.h"
#include "world.h"

#define SECOND INT64_C(1000000)

enum { LANES = 4, PATIENCE = 40, KEEPS_KEYS_S = 4, OTHERS = 2 };

static struct world *w;
static struct bank *bank;
static char url[80], token_file[80];

/* What is later in the list holds. A short time-out, so that much is looked up: keys are sure for two
 * seconds. */
static const char *settings[12] = {url,
                                   token_file,
                                   "PAYMENT_PROVIDER=http",
                                   "PAYMENT_PROVIDER_KEEPS_KEYS=4s",
                                   "PAYMENT_PROVIDER_BREAK=1000000",
                                   "SAGA_CALL_TIMEOUT=500ms"};
enum { OWN = 6 }; /* where a case puts its own */

static struct member *payment(void)
{
    return world_member(w, PAYMENT, 0);
}

static void setup(void)
{
    bank = bank_new("s3cret", KEEPS_KEYS_S * SECOND);
    w = world_new("bank", LANES, settings);
    snprintf(url, sizeof url, "PAYMENT_PROVIDER_URL=%s", bank_url(bank));
    snprintf(token_file, sizeof token_file, "PAYMENT_PROVIDER_TOKEN_FILE=build/live/%s/token",
             w->name);
    shell("echo s3cret >build/live/%s/token", w->name);
    world_start_all(w);
    world_stock(w, "fish", 1000000);
}

static void teardown(void)
{
    world_free(w);
    bank_free(bank);
    w = NULL;
}

static long metric(const char *name)
{
    return atol(shell("curl -s %s | sed -n 's/^%s //p'", world_url(payment(), "/metrics"), name));
}

/* Starts a service again with two settings of a case's own, or without any. */
static void restart(int service, const char *one, const char *two)
{
    struct member *m = world_member(w, service, 0);

    if (m->proc)
        world_stop(m);
    settings[OWN] = one;
    settings[OWN + 1] = two;
    world_start(w, service, 0);
    AWAIT(20, world_is_ready(m));
}

/* name may be a text(), which does not live for so many orders. */
static void place(const char *name, int n, const char *token)
{
    char first[64];

    snprintf(first, sizeof first, "%s", name);
    for (int i = 0; i < n; i++)
        world_place(w, text("%s-%d", first, i), "fish 1 700", token);
    kafka_flush(10);
}

/* How many of the orders "<name>-<n>" are there. */
static int64_t in_state(const char *name, const char *payment_state)
{
    return db_int(w->db,
                  "select count(*) from payment where order_id like '%s-%%' and state = '%s'", name,
                  payment_state);
}

/* ---- The ledger ---- */

struct moved {
    int charges, refunds, declined;
};

static struct moved moved_of(const char *order)
{
    struct bank_entry *list;
    struct moved moved = {0};
    int n = bank_entries(bank, &list);

    for (int i = 0; i < n; i++) {
        if (!same(list[i].order, order))
            continue;
        MUST(list[i].amount == 700, "%s: %lld", order, list[i].amount);
        moved.declined += list[i].declined;
        moved.charges += !list[i].declined && list[i].kind == BANK_CHARGE;
        moved.refunds += !list[i].declined && list[i].kind == BANK_REFUND;
    }
    free(list);
    return moved;
}

/* An order has ended so, and its money has moved so. */
static void ended(const char *order, const char *state, int charges, int refunds)
{
    struct moved moved = moved_of(order);

    MUST(same(world_state(w, order), state), "%s is %s, expected %s", order, world_state(w, order),
         state);
    MUST(moved.charges == charges && moved.refunds == refunds,
         "%s (%s): %d charges and %d refunds, expected %d and %d", order, state, moved.charges,
         moved.refunds, charges, refunds);
}

static void all_ended(const char *name, int n, const char *state, int charges, int refunds)
{
    char first[64];

    snprintf(first, sizeof first, "%s", name);
    for (int i = 0; i < n; i++)
        ended(text("%s-%d", first, i), state, charges, refunds);
}

#define PAID     "PAID HELD COMPLETED"
#define DECLINED "CANCELLED RELEASED FAILED"
#define REFUNDED "CANCELLED RELEASED REFUNDED"

/* ---- Its vices ---- */

static const struct {
    const char *token, *end;
} vices[] = {
    {"tok_ok", PAID},           {"tok_declined", DECLINED},    {"tok_drop_2", PAID},
    {"tok_cut_2", PAID},        {"tok_500_2", PAID},           {"tok_html_2", PAID},
    {"tok_json_2", PAID},       {"tok_huge_2", PAID},          {"tok_redirect_2", PAID},
    {"tok_other_2", PAID},      {"tok_slow_1700", PAID},       {"tok_no_drop_2", DECLINED},
    {"tok_no_500_2", DECLINED}, {"tok_no_slow_900", DECLINED},
};
enum { VICES = sizeof vices / sizeof *vices };

/* Whatever becomes of the first answers to a charge, the order ends as the provider has it, charged
 * once or not at all. */
START_TEST(charges)
{
    for (int i = 0; i < VICES; i++)
        place(vices[i].token, OTHERS, vices[i].token);
    world_settle(w, PATIENCE);
    for (int i = 0; i < VICES; i++)
        all_ended(vices[i].token, OTHERS, vices[i].end, same(vices[i].end, PAID), 0);
    MUST(proc_said(payment()->proc, "a call without answer"), "nobody was told");
}
END_TEST

static const char *const refund_vices[] = {
    "tok_ok",
    "tok_refund_drop_2",
    "tok_refund_cut_2",
    "tok_refund_500_2",
    "tok_refund_html_2",
    "tok_refund_slow_1700",
    "tok_refund_refused_2",
    "tok_refund_redirect_2",
};
enum { REFUND_VICES = sizeof refund_vices / sizeof *refund_vices };

/* The same for refunds: what was charged comes back, once. */
START_TEST(refunds)
{
    for (int i = 0; i < REFUND_VICES; i++)
        place(text("back-%s", refund_vices[i]), OTHERS, refund_vices[i]);
    AWAIT(PATIENCE, in_state("back", "COMPLETED") == REFUND_VICES * OTHERS);
    for (int i = 0; i < REFUND_VICES * OTHERS; i++)
        world_ask(w, text("back-%s-%d", refund_vices[i / OTHERS], i % OTHERS),
                  "{\"type\":\"CancelOrder\",\"order_id\":\"back-%s-%d\"}",
                  refund_vices[i / OTHERS], i % OTHERS);
    world_settle(w, PATIENCE);
    for (int i = 0; i < REFUND_VICES; i++)
        all_ended(text("back-%s", refund_vices[i]), OTHERS, REFUNDED, 1, 1);
}
END_TEST

/* No answer until the key is forgotten: what was applied is found by a look-up, never asked again. */
START_TEST(forgotten_keys)
{
    long before = bank_counts(bank).looked_up;

    place("forgot", 4, "tok_drop_6");
    place("unback", 4, "tok_refund_drop_6");
    AWAIT(PATIENCE, in_state("unback", "COMPLETED") == 4);
    for (int i = 0; i < 4; i++)
        world_ask(w, text("unback-%d", i), "{\"type\":\"CancelOrder\",\"order_id\":\"unback-%d\"}",
                  i);
    world_settle(w, PATIENCE);
    all_ended("forgot", 4, PAID, 1, 0);
    all_ended("unback", 4, REFUNDED, 1, 1);
    MUST(bank_counts(bank).looked_up - before >= 8, "%ld look-ups",
         bank_counts(bank).looked_up - before);
    MUST(bank_counts(bank).forgotten == 0, "a key was used after it was forgotten");
}
END_TEST

/* Nothing was applied for as long as keys are kept: looked up, not there, asked for. */
START_TEST(looked_up_and_not_there)
{
    long before = bank_counts(bank).not_found;

    bank_down(bank, 503);
    place("absent", 4, "tok_ok");
    AWAIT(PATIENCE, db_int(w->db,
                           "select count(*) from payment where order_id like 'absent-%%'"
                           " and now() - asked_at > interval '%d s'",
                           KEEPS_KEYS_S) == 4);
    bank_down(bank, 0);
    world_settle(w, PATIENCE);
    all_ended("absent", 4, PAID, 1, 0);
    MUST(bank_counts(bank).not_found - before >= 4, "%ld were not found",
         bank_counts(bank).not_found - before);
}
END_TEST

/* The order is given up while its charge is on its way: what succeeds in the end comes back, what is
 * declined is none. */
START_TEST(beyond_the_deadline)
{
    restart(ORDER, "SAGA_PAY_TIMEOUT=2s", NULL);
    place("late", 4, "tok_slow_5000");
    place("late-no", 2, "tok_no_slow_5000");
    world_settle(w, PATIENCE);
    all_ended("late", 4, REFUNDED, 1, 1);
    all_ended("late-no", 2, DECLINED, 0, 0);
    restart(ORDER, NULL, NULL);
}
END_TEST

/* ---- Many ---- */

/* Killed with a hundred calls in flight and many applied whose answers were lost, again and again. */
START_TEST(killed_with_calls_in_flight)
{
    bank_keep_keys(bank, 3600 * SECOND); /* from here on better than what it says */
    restart(PAYMENT, "SAGA_CALL_TIMEOUT=3s", "PAYMENT_PROVIDER_KEEPS_KEYS=60s");
    for (int i = 0; i < 3; i++) {
        place(text("killed-%d", i), 150, "tok_slow_2000");
        place(text("unheard-%d", i), 50, "tok_drop_1");
        AWAIT(PATIENCE, in_state(text("killed-%d", i), "CHARGING") >= 100 &&
                            bank_counts(bank).in_flight >= 100);
        world_kill(payment());
        world_start(w, PAYMENT, 0);
    }
    world_settle(w, PATIENCE);
    for (int i = 0; i < 3; i++) {
        all_ended(text("killed-%d", i), 150, PAID, 1, 0);
        all_ended(text("unheard-%d", i), 50, PAID, 1, 0);
    }
}
END_TEST

/* Of two processes one stands still with calls in flight, for longer than its session and than the
 * provider keeps keys: the other makes them up, by look-ups, and what the first does then moves nothing. */
START_TEST(one_of_two_stands_still_with_calls_in_flight)
{
    struct member *still, *other = world_start(w, PAYMENT, 1);

    AWAIT(PATIENCE, world_is_whole(w) && proc_said(other->proc, "lane taken"));
    still = payment();
    place("still", 200, "tok_slow_2000");
    place("unheard-still", 100, "tok_drop_1");
    AWAIT(PATIENCE, metric("payment_provider_in_flight") > 0);
    proc_signal(still->proc, SIGSTOP);
    AWAIT(PATIENCE, in_state("still", "COMPLETED") + in_state("unheard-still", "COMPLETED") == 300);
    proc_signal(still->proc, SIGCONT);
    world_settle(w, PATIENCE);
    all_ended("still", 200, PAID, 1, 0);
    all_ended("unheard-still", 100, PAID, 1, 0);
    world_stop(other);
    AWAIT(PATIENCE, world_is_whole(w));
}
END_TEST

/* What has been answered is kept while the database is away and lanes are taken again: no call is made
 * twice. Sessions are ended while answers come in. */
START_TEST(answers_outlive_a_lost_session)
{
    restart(PAYMENT, "SAGA_CALL_TIMEOUT=20s", "PAYMENT_PROVIDER_KEEPS_KEYS=90s");
    for (int round = 0; round < 5; round++) {
        const long before = bank_counts(bank).requests;
        place(text("kept-%d", round), 100, "tok_slow_300");
        AWAIT(PATIENCE, bank_counts(bank).requests == before + 100);
        AWAIT(PATIENCE, bank_counts(bank).in_flight < 50);
        db_run(w->db, "select pg_terminate_backend(pid) from pg_stat_activity where datname = "
                      "current_database() and application_name = 'payment-svc'");
        AWAIT(PATIENCE, in_state(text("kept-%d", round), "COMPLETED") == 100);
    }
    MUST_BE(
        db_int(w->db, "select count(*) from payment where order_id like 'kept-%%' and calls > 1"),
        0);
    restart(PAYMENT, NULL, NULL);
}
END_TEST

/* Hundreds of slow calls hold up nobody else, and no stop. */
START_TEST(slow_calls_hold_up_nobody)
{
    restart(PAYMENT, "SAGA_CALL_TIMEOUT=10s", "PAYMENT_PROVIDER_KEEPS_KEYS=60s");
    place("crawl", 300, "tok_slow_8000");
    AWAIT(PATIENCE, bank_counts(bank).in_flight >= 300);
    place("quick", 100, "tok_ok");
    AWAIT(5, in_state("quick", "COMPLETED") == 100);
    MUST(bank_counts(bank).in_flight >= 300, "the slow ones have ended: %ld",
         bank_counts(bank).in_flight);
    restart(PAYMENT, NULL, NULL);
    world_settle(w, PATIENCE);
    all_ended("crawl", 300, PAID, 1, 0);
    all_ended("quick", 100, PAID, 1, 0);
}
END_TEST

/* As many are in flight as the setting says, and connections are used again. */
START_TEST(calls_in_flight_are_limited)
{
    restart(PAYMENT, "PAYMENT_PROVIDER_CALLS=7", NULL);
    bank_begin_count(bank);
    place("narrow", 70, "tok_slow_20");
    world_settle(w, PATIENCE);
    all_ended("narrow", 70, PAID, 1, 0);
    MUST_BE(bank_counts(bank).most_in_flight, 7);
    MUST(bank_counts(bank).connections <= 8, "%ld connections", bank_counts(bank).connections);
    MUST_BE(metric("payment_provider_in_flight"), 0);
    restart(PAYMENT, NULL, NULL);
}
END_TEST

/* ---- The circuit breaker ---- */

/* While nobody is answered the provider is asked once each half second; when it answers again, all is
 * made up for. */
START_TEST(the_breaker_opens_and_closes)
{
    restart(PAYMENT, "PAYMENT_PROVIDER_BREAK=10", "PAYMENT_PROVIDER_BREAK_FOR=500ms");
    bank_down(bank, 503);
    place("broken", 100, "tok_ok");
    AWAIT(PATIENCE, metric("payment_provider_breaker") > 0);
    AWAIT(PATIENCE, in_state("broken", "CHARGING") == 100);
    AWAIT(PATIENCE, metric("payment_provider_in_flight") == 0); /* of those that began before */
    int64_t began = test_now();
    long before = bank_counts(bank).requests;
    AWAIT(PATIENCE, metric("payment_provider_broken_total") >= 200);
    AWAIT(PATIENCE, test_now() - began >= 2000000);
    long tried = bank_counts(bank).requests - before;
    int64_t most = (test_now() - began) / 500000 + 1;
    MUST(tried >= 1 && tried <= most, "%ld requests, %lld tries were due", tried, (long long)most);
    MUST(proc_said(payment()->proc, "the circuit breaker is open"), "nobody was told");
    bank_down(bank, 0);
    world_settle(w, 2 * PATIENCE);
    all_ended("broken", 100, PAID, 1, 0);
    MUST_BE(metric("payment_provider_breaker"), 0);
    MUST(proc_said(payment()->proc, "its circuit breaker is closed"), "nobody was told");
    restart(PAYMENT, NULL, NULL);
}
END_TEST

/* ---- Settings ---- */

/* A wrong one is a line that names it, and exit 78. */
START_TEST(wrong_settings)
{
    static const struct {
        const char *set, *says;
    } wrong[] = {
        {"PAYMENT_PROVIDER=stripe", "PAYMENT_PROVIDER=stripe: expected one of simulated, http"},
        {"PAYMENT_PROVIDER=http", "PAYMENT_PROVIDER_URL=: expected https://"},
        {"PAYMENT_PROVIDER=http PAYMENT_PROVIDER_URL=http://pay.example",
         "PAYMENT_PROVIDER_URL=http://pay.example: expected https://"},
        {"PAYMENT_PROVIDER=http PAYMENT_PROVIDER_URL=https://pay.example "
         "PAYMENT_PROVIDER_KEEPS_KEYS=20s",
         "PAYMENT_PROVIDER_KEEPS_KEYS=20000ms: expected at least 22000ms"},
        {"PAYMENT_PROVIDER=http PAYMENT_PROVIDER_URL=https://pay.example "
         "PAYMENT_PROVIDER_TOKEN_FILE=/nowhere",
         "PAYMENT_PROVIDER_TOKEN_FILE=/nowhere: cannot be read"},
        {"PAYMENT_PROVIDER_CALLS=0", "PAYMENT_PROVIDER_CALLS=0: expected a whole number from 1"},
    };

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *out = shell("%s payment-svc || [[ $? == 78 ]]", wrong[i].set);
        MUST(strstr(out, wrong[i].says) && strchr(out, '\n') == strrchr(out, '\n'), "%s: %s",
             wrong[i].set, out);
    }
}
END_TEST

/* ---- Audit ---- */

/* The invariants, with the provider's ledger where the simulated one has its own, whose keys are
 * unique: an entry too many is refused. */
START_TEST(audit)
{
    struct bank_entry *list;
    int n = bank_entries(bank, &list);
    struct bank_counts counts = bank_counts(bank);

    for (int i = 0; i < n; i++)
        db_run(w->db, "insert into ledger values (%lld, %s, '%s:%s', %s)", list[i].amount,
               list[i].kind == BANK_CHARGE ? "null" : "0",
               list[i].kind == BANK_CHARGE ? "charge" : "refund", list[i].order,
               list[i].declined ? "'declined'" : "null");
    free(list);
    struct world_found found = world_audit(w);
    MUST_BE(found.books, n);
    MUST(n > 1000, "%d entries", n);
    MUST(counts.conflicts > 0, "no key was in flight when it was used again");
    MUST_BE(counts.other_keys, 0);
    MUST_BE(counts.forgotten, 0);
    MUST_BE(counts.unauthorized, 0);
    MUST_BE(counts.redirected, 0);
    printf("   provider: %ld requests, %ld look-ups, %ld conflicts, %d entries\n", counts.requests,
           counts.looked_up, counts.conflicts, n);
}
END_TEST

Suite *provider_http_suite(void)
{
    Suite *suite = suite_create("provider_http");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 0);
    tcase_add_test(t, charges);
    tcase_add_test(t, refunds);
    tcase_add_test(t, forgotten_keys);
    tcase_add_test(t, looked_up_and_not_there);
    tcase_add_test(t, beyond_the_deadline);
    tcase_add_test(t, killed_with_calls_in_flight);
    tcase_add_test(t, one_of_two_stands_still_with_calls_in_flight);
    tcase_add_test(t, answers_outlive_a_lost_session);
    tcase_add_test(t, slow_calls_hold_up_nobody);
    tcase_add_test(t, calls_in_flight_are_limited);
    tcase_add_test(t, the_breaker_opens_and_closes);
    tcase_add_test(t, wrong_settings);
    tcase_add_test(t, audit);
    suite_add_tcase(suite, t);
    return suite;
}
