/* The payment's rules: every cell of RULES.md's table, transcribed here once more; what is asked of
 * the provider, when it is asked again, and what the events say. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deciding.h"
#include "field.h"
#include "payment.h"
#include "provider.h"
#include "suites.h"

#define MS     INT64_C(1000)
#define SECOND INT64_C(1000000)

static const struct saga_service service = {.name = "payment",
                                            .states = payment_states,
                                            .rules = payment_rules,
                                            .emits = payment_emits,
                                            .orders = &payment_table};
static struct saga_batch b;

static void start(void)
{
    payment_call_timeout = 5 * SECOND;
    deciding_start(&b, &service);
}

static void stop(void)
{
    saga_batch_free(&b);
}

/* ---- The world ---- */

static struct bill *bill_of(const char *order)
{
    return deciding_row(&b, &b.orders, order);
}

static struct line one_line[] = {{"apple", 7, 100}};
static const struct order pay_now = {NULL, "EUR", 700, {1, one_line}, {NOW, "tok_ok"}};
static const struct order pay_later = {NULL, "EUR", 700, {1, one_line}, {LATER, NULL}};
static const struct pay pay = {"tok_later"};
static const struct reason customer = {"customer"};
static const struct answer good = {.ref = "ref-1"}, bad = {.reason = "expired"};

/* What a row of this state has, as its history would have left it. */
static struct bill *put_bill(const char *order, enum state state, bool cancel)
{
    struct bill *bill = bill_of(order);

    bill->row.state = state;
    bill->row.stored = state != NONE;
    bill->row.cause = state == NONE ? NULL : "3.1.1";
    bill->cancel = cancel;
    if (state == REQUESTED)
        bill->token = "tok_later";
    if (state == AWAITING || (state >= CHARGING && state <= REFUNDED)) {
        bill->amount = 700;
        bill->currency = "EUR";
    }
    if (state >= CHARGING && state <= REFUNDED) {
        bill->token = "tok_ok";
        bill->payment_id = "pay-3.1.1";
        bill->calls = 1;
    }
    if (state == COMPLETED || state == REFUNDING || state == REFUNDED)
        bill->provider_ref = "ref-1";
    if (state == REFUNDING || cancel)
        bill->reason = "customer";
    if (state == CHARGING || state == REFUNDING)
        bill->row.due = DECIDING_NOW + SECOND;
    return bill;
}

static enum saga_kind kind_of(const struct saga_event *input)
{
    for (int i = 0; all_events[i]; i++)
        if (all_events[i] == input)
            return SAGA_IN_EVENT;
    return input == &saga_due ? SAGA_IN_DUE : SAGA_IN_ANSWER;
}

/* Decides one input of order "o". An event has the id 3.9.1. */
static int decide(const struct saga_event *input, const void *data)
{
    enum saga_kind kind = kind_of(input);

    if (kind == SAGA_IN_DUE)
        bill_of("o")->row.due = DECIDING_NOW; /* now, exactly, is due */
    deciding_add(&b, kind, "o", input, data, kind == SAGA_IN_EVENT ? "3.9.1" : NULL);
    return deciding_run(&b);
}

static void decided(const struct saga_event *input, const void *data)
{
    ck_assert_int_eq(decide(input, data), 0);
}

/* ---- RULES.md, "Payment", cell by cell ---- */

/* "-": nothing; "!": impossible; else the next state, and of these what the cell does: the event
 * that it emits; "charge" or "refund": the call; "later": the due of a backoff. A call's due is
 * now, the call's time-out and a second; with neither, due stays in CHARGING and is none elsewhere.
 */
enum { COLUMNS = 10 };
static const struct {
    const struct saga_event *input;
    const void *data;
    /* NONE, AWAITING, REQUESTED, CHARGING, CHARGING and cancel, COMPLETED, FAILED, REFUNDING,
     * REFUNDED, VOIDED */
    const char *cell[COLUMNS];
} table[] = {
    {&inventory_reserved,
     &pay_now,
     {"CHARGING charge", "!", "!", "!", "!", "!", "!", "!", "!", "-"}},
    {&inventory_reserved,
     &pay_later,
     {"AWAITING", "!", "CHARGING charge", "!", "!", "!", "!", "!", "!", "-"}},
    {&order_payment_requested,
     &pay,
     {"REQUESTED", "CHARGING charge", "!", "!", "!", "!", "!", "!", "!", "!"}},
    {&order_cancel_requested,
     &customer,
     {"VOIDED PaymentVoided", "VOIDED PaymentVoided", "VOIDED PaymentVoided", "CHARGING",
      "CHARGING", "REFUNDING refund", "-", "!", "!", "!"}},
    {&charge_succeeded,
     &good,
     {"!", "!", "!", "COMPLETED PaymentCompleted", "REFUNDING refund", "-", "!", "-", "-", "!"}},
    {&charge_declined,
     &bad,
     {"!", "!", "!", "FAILED PaymentFailed", "FAILED PaymentFailed", "!", "-", "!", "!", "!"}},
    {&charge_unknown,
     &bad,
     {"!", "!", "!", "CHARGING later", "CHARGING later", "-", "-", "-", "-", "!"}},
    {&saga_due,
     NULL,
     {"-", "-", "-", "CHARGING charge", "CHARGING charge", "-", "-", "REFUNDING refund", "-", "-"}},
    {&refund_succeeded,
     &good,
     {"!", "!", "!", "!", "!", "!", "!", "REFUNDED PaymentRefunded", "-", "!"}},
    {&refund_refused, &bad, {"!", "!", "!", "!", "!", "!", "!", "REFUNDING later", "-", "!"}},
    {&refund_unknown, &bad, {"!", "!", "!", "!", "!", "!", "!", "REFUNDING later", "-", "!"}},
    {&order_cancelled, &customer, {"-", "!", "VOIDED", "!", "!", "!", "-", "!", "-", "-"}},
};
enum { INPUTS = sizeof table / sizeof *table };

static const enum state column_state[COLUMNS] = {NONE,      AWAITING, REQUESTED, CHARGING, CHARGING,
                                                 COMPLETED, FAILED,   REFUNDING, REFUNDED, VOIDED};

static bool says(const char *cell, const char *word)
{
    const char *at = strchr(cell, ' ');

    return at && strcmp(at + 1, word) == 0;
}

static void check_due(const char *cell, const struct saga_event *input)
{
    int64_t due = bill_of("o")->row.due, wait = due - DECIDING_NOW;

    if (says(cell, "charge") || says(cell, "refund"))
        ck_assert_int_eq(wait, 6 * SECOND);
    else if (says(cell, "later"))
        ck_assert(wait >= 150 * MS && wait <= 200 * MS);
    else if (*cell == '!' || (*cell == '-' && input != &saga_due) || strcmp(cell, "CHARGING") == 0)
        ck_assert(due == 0 || wait == SECOND); /* as it was */
    else
        ck_assert_int_eq(due, 0);
}

static void check_call(const char *cell)
{
    const struct saga_event *call = says(cell, "charge")   ? &charge
                                    : says(cell, "refund") ? &refund
                                                           : NULL;

    ck_assert_int_eq(b.call_n, call != NULL);
    if (!call)
        return;
    const struct charge *asked = b.call[0].data;
    ck_assert_ptr_eq(b.call[0].call, call);
    ck_assert_str_eq(b.call[0].key, "o");
    ck_assert_int_eq(asked->amount, 700);
    ck_assert_str_eq(asked->currency, "EUR");
    ck_assert_str_eq(asked->token, bill_of("o")->token);
    ck_assert_str_eq(asked->payment_id, bill_of("o")->payment_id);
    ck_assert_int_eq(asked->tries, bill_of("o")->calls);
}

/* Each cell has the next state, the event, the call and the due that RULES.md gives it. */
START_TEST(every_cell)
{
    const struct saga_event *input = table[_i / COLUMNS].input;
    int column = _i % COLUMNS;
    const char *cell = table[_i / COLUMNS].cell[column];
    char next[32] = "", what[32] = "";

    put_bill("o", column_state[column], column == 4);
    int rc = decide(input, table[_i / COLUMNS].data);

    ck_assert_int_eq(rc, *cell == '!' ? SAGA_POISON : 0);
    ck_assert((b.impossible != NULL) == (*cell == '!'));
    sscanf(cell, "%31s %31s", next, what);
    ck_assert_str_eq(payment_states[bill_of("o")->row.state],
                     *cell == '-' || *cell == '!' ? payment_states[column_state[column]] : next);
    if ((*cell == '-' || *cell == '!') && input != &saga_due)
        ck_assert(!bill_of("o")->row.changed);
    ck_assert_int_eq(b.out_n, *what == 'P');
    if (b.out_n)
        ck_assert(deciding_is(&b, 0, what));
    check_call(cell);
    check_due(cell, input);
}
END_TEST

/* What the table does not name has no rule: other events, one's own. */
START_TEST(no_other_input_has_a_rule)
{
    int n = 0;

    for (int i = 0; all_events[i]; i++) {
        bool named = false;
        for (int k = 0; k < INPUTS; k++)
            named = named || table[k].input == all_events[i];
        ck_assert(named == (saga_rule_of(&service, all_events[i]->type) != NULL));
    }
    while (payment_rules[n].input)
        n++;
    ck_assert_int_eq(n, INPUTS - 1); /* InventoryReserved has two rows above */
}
END_TEST

/* ---- What the events say ---- */

/* PaymentCompleted names the charge, ours and the provider's, and was caused by the reservation. */
START_TEST(completed_says_what_was_paid)
{
    decided(&inventory_reserved, &pay_now);
    deciding_done(&b);
    decided(&charge_succeeded, &good);
    deciding_expect(&b, 0, "PaymentCompleted", "3.9.1",
                    json_pack("{s:s, s:s, s:i, s:s, s:s}", "order_id", "o", "payment_id", "o",
                              "amount", 700, "currency", "EUR", "provider_ref", "ref-1"));
}
END_TEST

/* Whatever asks for it: inputs that are read again after a loss may come in another order. */
START_TEST(an_order_has_one_charge)
{
    decided(&inventory_reserved, &pay_now);
    ck_assert_str_eq(bill_of("o")->payment_id, "o");
    deciding_done(&b);
    put_bill("o", AWAITING, false);
    decided(&order_payment_requested, &pay);
    ck_assert_str_eq(bill_of("o")->payment_id, "o");
}
END_TEST

/* The provider's reason travels on. */
START_TEST(failed_has_the_reason_of_the_decline)
{
    put_bill("o", CHARGING, false);
    decided(&charge_declined, &bad);
    deciding_expect(&b, 0, "PaymentFailed", "3.1.1",
                    json_pack("{s:s, s:s}", "order_id", "o", "reason", "expired"));
    ck_assert_str_eq(bill_of("o")->reason, "expired");
}
END_TEST

/* So does the reason of a cancellation. */
START_TEST(voided_has_the_reason_of_the_cancellation)
{
    decided(&order_cancel_requested, &customer);
    deciding_expect(&b, 0, "PaymentVoided", "3.9.1",
                    json_pack("{s:s, s:s}", "order_id", "o", "reason", "customer"));
}
END_TEST

static json_t *refunded_json(void)
{
    return json_pack("{s:s, s:s, s:i, s:s, s:s}", "order_id", "o", "payment_id", "pay-3.1.1",
                     "amount", 700, "currency", "EUR", "reason", "customer");
}

/* A paid order that is cancelled: the whole is refunded, for that reason. */
START_TEST(refunded_has_the_reason_of_the_cancellation)
{
    put_bill("o", COMPLETED, false);
    decided(&order_cancel_requested, &customer);
    ck_assert_int_eq(bill_of("o")->calls, 1); /* counted anew for the refund */
    deciding_done(&b);
    decided(&refund_succeeded, &(struct answer){.ref = "ref-2"});
    deciding_expect(&b, 0, "PaymentRefunded", "3.9.1", refunded_json());
    ck_assert_str_eq(bill_of("o")->provider_ref, "ref-1");
}
END_TEST

/* Cancelled while the charge was on its way: it succeeds, and is refunded for the reason of then.
 */
START_TEST(a_charge_that_succeeds_after_the_cancellation_is_refunded)
{
    put_bill("o", CHARGING, false);
    decided(&order_cancel_requested, &customer);
    ck_assert(bill_of("o")->cancel);
    ck_assert_int_eq(b.out_n + b.call_n, 0);
    deciding_done(&b);
    decided(&charge_succeeded, &good);
    ck_assert_int_eq(b.out_n, 0);
    ck_assert_ptr_eq(b.call[0].call, &refund);
    deciding_done(&b);
    decided(&refund_succeeded, &(struct answer){.ref = "ref-2"});
    deciding_expect(&b, 0, "PaymentRefunded", "3.9.1", refunded_json());
}
END_TEST

/* Cancelled while the charge was on its way: it is declined, and that is the reason. */
START_TEST(a_charge_that_is_declined_after_the_cancellation_has_failed)
{
    put_bill("o", CHARGING, true);
    decided(&charge_declined, &bad);
    deciding_expect(&b, 0, "PaymentFailed", "3.1.1",
                    json_pack("{s:s, s:s}", "order_id", "o", "reason", "expired"));
}
END_TEST

/* Whichever comes first, the reservation or the wish to pay, the charge has the amount of the one
 * and the token of the other. */
START_TEST(reservation_and_wish_to_pay_come_in_any_order)
{
    bool reserved_first = _i == 0;

    deciding_add(&b, SAGA_IN_EVENT, "o",
                 reserved_first ? &inventory_reserved : &order_payment_requested,
                 reserved_first ? (const void *)&pay_later : &pay, "3.7.1");
    deciding_add(&b, SAGA_IN_EVENT, "o",
                 reserved_first ? &order_payment_requested : &inventory_reserved,
                 reserved_first ? (const void *)&pay : &pay_later, "3.8.1");
    ck_assert_int_eq(deciding_run(&b), 0);
    ck_assert_int_eq(b.call_n, 1);
    const struct charge *asked = b.call[0].data;
    ck_assert_int_eq(asked->amount, 700);
    ck_assert_str_eq(asked->currency, "EUR");
    ck_assert_str_eq(asked->token, "tok_later");
    ck_assert_str_eq(asked->payment_id, "o");
}
END_TEST

/* ---- Asking again ---- */

/* The time-out of a call is the setting's. */
START_TEST(due_follows_the_time_out)
{
    payment_call_timeout = 250 * MS;
    decided(&inventory_reserved, &pay_now);
    ck_assert_int_eq(bill_of("o")->row.due, DECIDING_NOW + 250 * MS + SECOND);
}
END_TEST

/* Every call for one thing asks the same: payment_id, amount and token; only the count differs. */
START_TEST(asking_again_asks_the_same)
{
    decided(&inventory_reserved, &pay_now);
    for (int try = 1; try <= 5; try++) {
        const struct charge *asked = b.call[0].data;
        ck_assert_int_eq(asked->tries, try);
        ck_assert_str_eq(asked->payment_id, "o");
        ck_assert_str_eq(asked->token, "tok_ok");
        deciding_done(&b);
        if (try % 2) { /* without an answer, or after one that says nothing */
            decided(&charge_unknown, &bad);
            deciding_done(&b);
        }
        decided(&saga_due, NULL);
    }
}
END_TEST

static const struct payment_provider forgets_in_a_day = {"simulated", 24 * 3600 * SECOND, NULL};

/* What asking in this state, first asked so long ago, says of looking up. */
static bool looks_up(enum state state, int64_t calls, int64_t ago)
{
    struct bill *bill = put_bill("o", state, false);

    bill->calls = calls;
    bill->asked = DECIDING_NOW - ago;
    decided(&saga_due, NULL);
    bool look_up = ((const struct charge *)b.call[0].data)->look_up;
    deciding_done(&b);
    ck_assert_int_eq(bill_of("o")->asked,
                     ago < 0 ? 0 : DECIDING_NOW - ago); /* it is the first asking that counts */
    return look_up;
}

/* DESIGN.md 4.6: what was asked first so long ago that the provider may forget the key, half of the time
 * that it keeps keys, is looked up before; never at one that keeps them for ever. */
START_TEST(late_calls_are_looked_up)
{
    static const enum state states[] = {CHARGING, REFUNDING};

    for (int i = 0; i < 2; i++) {
        payment_providers[0] = &provider_simulated;
        ck_assert(!looks_up(states[i], 3, 24 * 365 * 3600 * SECOND));
        ck_assert(!looks_up(states[i], 3, -SECOND));
        payment_providers[0] = &forgets_in_a_day;
        ck_assert(!looks_up(states[i], 3, 12 * 3600 * SECOND - 1));
        ck_assert(looks_up(states[i], 3, 12 * 3600 * SECOND));
        ck_assert(looks_up(states[i], 1, 24 * 365 * 3600 * SECOND));
        ck_assert(looks_up(states[i], 1, -SECOND)); /* a clock was set back */
    }
}
END_TEST

/* A clock that was set back is seen by the next answer, and not forgotten when it has come there again. */
START_TEST(a_clock_set_back_makes_calls_late)
{
    struct attempt answered = {CHARGE, UNKNOWN, DECIDING_NOW + SECOND, NULL, "no answer", 0};
    struct bill *bill = put_bill("o", CHARGING, false);

    payment_providers[0] = &forgets_in_a_day;
    bill->asked = DECIDING_NOW - SECOND;
    bill->attempts = (struct attempts){1, &answered};
    decided(&charge_unknown, &bad);
    deciding_done(&b);
    bill_of("o")->row.due = DECIDING_NOW;
    decided(&saga_due, NULL);
    ck_assert(((const struct charge *)b.call[0].data)->look_up);
}
END_TEST

/* The first asking is never late; a refund is asked for anew, however old the charge. */
START_TEST(first_calls_are_not_looked_up)
{
    payment_providers[0] = &forgets_in_a_day;
    decided(&inventory_reserved, &pay_now);
    ck_assert(!((const struct charge *)b.call[0].data)->look_up);
    ck_assert_int_eq(bill_of("o")->asked, DECIDING_NOW);
    deciding_done(&b);
    bill_of("o")->asked -= 24 * 3600 * SECOND;
    bill_of("o")->cancel = true;
    decided(&charge_succeeded, &good);
    ck_assert_ptr_eq(b.call[0].call, &refund);
    ck_assert(!((const struct charge *)b.call[0].data)->look_up);
    ck_assert_int_eq(bill_of("o")->asked, DECIDING_NOW);
}
END_TEST

/* The wait doubles from 200 ms to 60 s, less up to a quarter that differs from order to order, and
 * stays there: a refund that is refused is asked for for ever. */
START_TEST(backoff_has_bounds)
{
    int64_t most = 200 * MS;

    put_bill("o", REFUNDING, false);
    for (int try = 1; try <= 40; try++) {
        decided(&refund_refused, &bad);
        int64_t wait = bill_of("o")->row.due - DECIDING_NOW;
        ck_assert_int_le(wait, most);
        ck_assert_int_ge(wait, most - most / 4);
        deciding_done(&b);
        decided(&saga_due, NULL);
        ck_assert_ptr_eq(b.call[0].call, &refund);
        deciding_done(&b);
        most = most * 2 > 60 * SECOND ? 60 * SECOND : most * 2;
    }
    ck_assert_int_ne(saga_backoff("a", 3, 200 * MS, 60 * SECOND),
                     saga_backoff("b", 3, 200 * MS, 60 * SECOND));
}
END_TEST

/* ---- Attempts ---- */

/* An attempt says what was asked for, when, and what came of it. */
START_TEST(attempts_are_kept_in_order)
{
    put_bill("o", CHARGING, true);
    decided(&charge_unknown, &(struct answer){.reason = "timeout"});
    deciding_done(&b);
    decided(&charge_succeeded, &good);
    deciding_done(&b);
    decided(&refund_refused, &(struct answer){.reason = "refused"});

    const struct attempts *list = &bill_of("o")->attempts;
    ck_assert_int_eq(list->n, 3);
    ck_assert(list->at[0].kind == CHARGE && list->at[0].outcome == UNKNOWN);
    ck_assert_str_eq(list->at[0].reason, "timeout");
    ck_assert_int_eq(list->at[0].at, DECIDING_NOW);
    ck_assert(list->at[1].kind == CHARGE && list->at[1].outcome == SUCCEEDED);
    ck_assert_str_eq(list->at[1].ref, "ref-1");
    ck_assert(list->at[2].kind == REFUND && list->at[2].outcome == REFUSED);
}
END_TEST

/* However often a refund is refused, the list keeps its first and its last and counts the rest. */
START_TEST(attempts_are_bounded)
{
    char reason[500][24];
    struct answer answer[500];

    put_bill("o", REFUNDING, false);
    for (int i = 0; i < 500; i++) {
        snprintf(reason[i], sizeof reason[i], "refusal %d", i);
        answer[i] = (struct answer){.reason = reason[i]};
        decided(&refund_refused, &answer[i]);
        deciding_done(&b);
        const struct attempts *list = &bill_of("o")->attempts;
        int64_t all = list->n;
        for (int k = 0; k < list->n; k++)
            all += list->at[k].skipped;
        ck_assert_int_eq(all, i + 1);
        ck_assert_int_le(list->n, ATTEMPTS_MAX);
        ck_assert_str_eq(list->at[list->n - 1].reason, reason[i]);
    }
    const struct attempts *list = &bill_of("o")->attempts;
    for (int k = 0; k < list->n; k++)
        ck_assert_str_eq(list->at[k].reason, reason[k < ATTEMPTS_FIRST ? k : 490 + k]);
    ck_assert_int_eq(list->at[ATTEMPTS_FIRST].skipped, 490);
}
END_TEST

/* A run that failed to commit is decided again on the same rows, with the same result. */
START_TEST(deciding_again_changes_nothing)
{
    put_bill("o", REFUNDING, false);
    for (int i = 0; i < 20; i++) {
        decided(&refund_refused, &bad);
        deciding_done(&b);
    }
    deciding_add(&b, SAGA_IN_ANSWER, "o", &refund_refused, &bad, NULL);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(deciding_run(&b), 0);
        ck_assert_int_eq(bill_of("o")->attempts.n, ATTEMPTS_MAX);
        ck_assert_int_eq(bill_of("o")->attempts.at[ATTEMPTS_FIRST].skipped, 11);
    }
}
END_TEST

/* What a rule writes, the row's columns accept: a row goes through the database unchanged. */
START_TEST(a_row_survives_its_columns)
{
    struct saga_buf bytes = {0};
    struct saga_err err = {0};
    struct bill back = {0};

    decided(&inventory_reserved, &pay_now);
    deciding_done(&b);
    decided(&charge_unknown, &bad);
    deciding_done(&b);
    decided(&charge_succeeded, &good);
    const struct bill *bill = bill_of("o");
    for (const struct saga_field *c = payment_table.columns; c->name; c++) {
        bytes.n = 0;
        saga_column_write(c, bill, &bytes);
        int len = (int)(bytes.n - 4);
        ck_assert_msg(saga_column_read(c, bytes.at + 4, bytes.at[0] == -1 ? -1 : len, &back,
                                       &b.arena, &err) == 0,
                      "%s: %s", c->name, err.text);
    }
    ck_assert(saga_fields_equal(payment_table.columns, bill, &back));
    ck_assert_int_eq(back.attempts.n, 2);
    saga_buf_free(&bytes);
}
END_TEST

Suite *payment_suite(void)
{
    Suite *suite = suite_create("payment");
    TCase *cells = tcase_create("cells"), *calls = tcase_create("calls");

    tcase_add_checked_fixture(cells, start, stop);
    tcase_add_loop_test(cells, every_cell, 0, INPUTS * COLUMNS);
    tcase_add_test(cells, no_other_input_has_a_rule);
    tcase_add_test(cells, completed_says_what_was_paid);
    tcase_add_test(cells, an_order_has_one_charge);
    tcase_add_test(cells, failed_has_the_reason_of_the_decline);
    tcase_add_test(cells, voided_has_the_reason_of_the_cancellation);
    tcase_add_test(cells, refunded_has_the_reason_of_the_cancellation);
    tcase_add_test(cells, a_charge_that_succeeds_after_the_cancellation_is_refunded);
    tcase_add_test(cells, a_charge_that_is_declined_after_the_cancellation_has_failed);
    tcase_add_loop_test(cells, reservation_and_wish_to_pay_come_in_any_order, 0, 2);
    suite_add_tcase(suite, cells);

    tcase_add_checked_fixture(calls, start, stop);
    tcase_add_test(calls, due_follows_the_time_out);
    tcase_add_test(calls, asking_again_asks_the_same);
    tcase_add_test(calls, late_calls_are_looked_up);
    tcase_add_test(calls, a_clock_set_back_makes_calls_late);
    tcase_add_test(calls, first_calls_are_not_looked_up);
    tcase_add_test(calls, backoff_has_bounds);
    tcase_add_test(calls, attempts_are_kept_in_order);
    tcase_add_test(calls, attempts_are_bounded);
    tcase_add_test(calls, deciding_again_changes_nothing);
    tcase_add_test(calls, a_row_survives_its_columns);
    suite_add_tcase(suite, calls);
    return suite;
}
