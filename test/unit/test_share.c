/* How the input that the database refuses is found among others (share.h): a run is played with a database
 * that refuses some, and only says that it does. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "share.h"
#include "suites.h"

enum { MOST = 64, ROOM = 200, RUNS_MOST = 200 };
enum kind { RECORD, ANSWER, DUE, REDRIVEN, KINDS };

/* What waits, in order; true: the database refuses it. */
static struct waiting {
    bool bad[ROOM];
    int n;
} waiting[KINDS];
static int parked, transactions;

static void take_out(struct waiting *w, int n)
{
    memmove(w->bad, w->bad + n, (size_t)(w->n - n) * sizeof *w->bad);
    w->n -= n;
}

static int bad_of(const struct waiting *w, int n)
{
    int bad = 0;

    for (int i = 0; i < n; i++)
        bad += w->bad[i];
    return bad;
}

/* As saga_engine_run() does. */
static void run(void)
{
    struct saga_share s = {waiting[RECORD].n, waiting[ANSWER].n, waiting[DUE].n,
                           waiting[REDRIVEN].n, waiting[ANSWER].n};
    bool more = true;

    while (more) {
        const int n[KINDS] = {s.records, s.answers, s.due, s.redriven};
        int all = 0, bad = 0;
        transactions++;
        for (int k = 0; k < KINDS; k++) {
            ck_assert(n[k] >= 0 && n[k] <= waiting[k].n);
            all += n[k];
            bad += bad_of(&waiting[k], n[k]);
        }
        if (bad && all > 1) {
            ck_assert(saga_share_less(&s));
            ck_assert_int_lt(s.records + s.answers + s.due + s.redriven, all);
            ck_assert_int_gt(s.records + s.answers + s.due + s.redriven, 0);
            continue;
        }
        parked += bad; /* it stands alone */
        for (int k = 0; k < KINDS; k++)
            take_out(&waiting[k], n[k]);
        more = saga_share_more(&s, waiting[RECORD].n, s.answers);
    }
    ck_assert_int_eq(waiting[RECORD].n + waiting[ANSWER].n, 0);
}

static void add(enum kind kind, int n, int bad)
{
    for (int i = 0; i < n; i++)
        waiting[kind].bad[waiting[kind].n++] = i == bad;
}

/* One refused input, at each place of each kind, beside all numbers of others: all records and answers are
 * done in one run; it is parked after a few, though records and deadlines come with each. */
START_TEST(one_is_found)
{
    for (int refused = 0; refused < KINDS; refused++)
        for (int seed = 1; seed <= 3000; seed++) {
            int number[KINDS], runs = 0;
            srand((unsigned)(seed * KINDS + refused));
            memset(waiting, 0, sizeof waiting);
            parked = transactions = 0;
            for (int k = 0; k < KINDS; k++) {
                number[k] = rand() % 3 ? rand() % MOST : rand() % 2;
                number[k] += k == refused && !number[k];
                add(k, number[k], k == refused ? rand() % number[k] : -1);
            }
            while (!parked) {
                run();
                ck_assert_msg(++runs < 20, "%d runs", runs);
                add(RECORD, 1 + rand() % 5, -1);
                add(DUE, 1 + rand() % 2, -1);
            }
            while (waiting[DUE].n + waiting[REDRIVEN].n)
                run();
            ck_assert_int_eq(parked, 1);
            ck_assert_msg(transactions < 60, "%d transactions", transactions);
        }
}
END_TEST

/* Many are refused: each is parked, and nothing else. */
START_TEST(many_are_found)
{
    for (int seed = 1; seed <= 3000; seed++) {
        int bad = 0, runs = 0;
        srand((unsigned)seed);
        memset(waiting, 0, sizeof waiting);
        parked = 0;
        for (int k = 0; k < KINDS; k++)
            for (int n = rand() % MOST; n > 0; n--) {
                bool is_bad = rand() % 4 == 0;
                add(k, 1, is_bad ? 0 : -1);
                bad += is_bad;
            }
        while (waiting[RECORD].n + waiting[ANSWER].n + waiting[DUE].n + waiting[REDRIVEN].n) {
            run();
            ck_assert_msg(++runs < RUNS_MOST, "%d runs", runs);
        }
        ck_assert_int_eq(parked, bad);
    }
}
END_TEST

Suite *share_suite(void)
{
    Suite *s = suite_create("share");
    TCase *t = tcase_create("all");

    tcase_add_test(t, one_is_found);
    tcase_add_test(t, many_are_found);
    suite_add_tcase(s, t);
    return s;
}
