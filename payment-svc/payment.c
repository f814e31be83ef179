/* The payment's rules: RULES.md, "Payment". */
#include "payment.h"
#include "provider.h"

#include <string.h>

#define MS     INT64_C(1000)
#define SECOND INT64_C(1000000)

int64_t payment_call_timeout = 5 * SECOND;

static struct bill *become(struct saga_step *step, enum state state)
{
    struct bill *bill = saga_change(step);

    bill->row.state = state;
    bill->row.due = 0;
    return bill;
}

/* ---- Asking the provider ---- */

/* Once the clock was seen to be set back nobody knows how old the key is: it stays old (asked 0). */
static void look_at_clock(struct bill *bill, int64_t now)
{
    const struct attempts *list = &bill->attempts;

    if (now < bill->asked || (list->n && now < list->at[list->n - 1].at))
        bill->asked = 0;
}

/* The provider may have forgotten the key by the time that it is asked (4.6): well before, as calls may
 * wait. */
static bool is_late(struct bill *bill, int64_t now)
{
    if (bill->calls == 0)
        return false;
    look_at_clock(bill, now);
    return now - bill->asked >= payment_keeps_keys() / 2;
}

/* Asks, or asks again: the call has the same key each time. The row is the durable intent; should
 * no answer come, its due does. */
static void ask(struct saga_step *step)
{
    struct bill *bill = saga_change(step);
    bool late = is_late(bill, step->now);

    bill->row.due = step->now + payment_call_timeout + SECOND;
    if (bill->calls++ == 0)
        bill->asked = step->now;
    saga_call(step, bill->row.state == CHARGING ? &charge : &refund,
              &(struct charge){bill->amount, bill->currency, bill->token, bill->payment_id,
                               bill->calls, late});
}

static void charge_it(struct saga_step *step)
{
    /* an order is charged once: whatever asks for it, and whenever it asks again, it is this charge */
    become(step, CHARGING)->payment_id = step->key;
    ask(step);
}

static void refund_it(struct saga_step *step)
{
    become(step, REFUNDING)->calls = 0;
    ask(step);
}

/* ---- Events ---- */

static const struct order *owe(struct saga_step *step, enum state state)
{
    const struct order *order = step->data;
    struct bill *bill = become(step, state);

    bill->amount = order->amount;
    bill->currency = order->currency;
    return order;
}

static void reserved(struct saga_step *step)
{
    const struct order *order = owe(step, AWAITING);

    if (order->payment.mode == LATER)
        return;
    ((struct bill *)saga_change(step))->token = order->payment.token;
    charge_it(step);
}

/* The customer asked to pay, and we heard of that first. */
static void awaited(struct saga_step *step)
{
    if (((const struct order *)step->data)->payment.mode == NOW) {
        saga_impossible(step);
        return;
    }
    owe(step, REQUESTED);
    charge_it(step);
}

static void request(struct saga_step *step)
{
    become(step, REQUESTED)->token = ((const struct pay *)step->data)->token;
}

static void pay(struct saga_step *step)
{
    request(step);
    charge_it(step);
}

static void voided(struct saga_step *step)
{
    const struct reason *cancel = step->data;

    become(step, VOIDED)->reason = cancel->reason;
    saga_emit(step, &payment_voided, cancel);
}

/* The charge is on its way: whether there is something to refund, its answer says. */
static void cancel(struct saga_step *step)
{
    struct bill *bill = saga_change(step);

    bill->cancel = true;
    bill->reason = ((const struct reason *)step->data)->reason;
}

static void give_back(struct saga_step *step)
{
    ((struct bill *)saga_change(step))->reason = ((const struct reason *)step->data)->reason;
    refund_it(step);
}

/* The reservation had failed: nobody waits for word from us. */
static void forget(struct saga_step *step)
{
    become(step, VOIDED)->reason = ((const struct reason *)step->data)->reason;
}

/* ---- Answers ---- */

static void note(struct saga_step *step, enum purpose kind, enum outcome outcome)
{
    const struct answer *answer = step->data;
    struct bill *bill = saga_change(step);
    struct attempts *list = &bill->attempts;

    look_at_clock(bill, step->now); /* here, as what is due has waited for its time */
    struct attempt *last = saga_append(step, list, sizeof *last);

    *last = (struct attempt){kind, outcome, step->now, answer->ref, answer->reason, 0};
    if (list->n <= ATTEMPTS_MAX)
        return;
    struct attempt *out = &list->at[ATTEMPTS_FIRST];
    out[1].skipped += out->skipped + 1;
    memmove(out, out + 1, (size_t)(--list->n - ATTEMPTS_FIRST) * sizeof *out);
}

static void charged(struct saga_step *step)
{
    struct bill *bill = saga_change(step);

    note(step, CHARGE, SUCCEEDED);
    bill->provider_ref = ((const struct answer *)step->data)->ref;
    if (bill->cancel) {
        refund_it(step);
        return;
    }
    become(step, COMPLETED);
    saga_emit(step, &payment_completed,
              &(struct money){.payment_id = bill->payment_id,
                              .amount = bill->amount,
                              .currency = bill->currency,
                              .provider_ref = bill->provider_ref});
}

static void declined(struct saga_step *step)
{
    const char *reason = ((const struct answer *)step->data)->reason;

    note(step, CHARGE, DECLINED);
    become(step, FAILED)->reason = reason;
    saga_emit(step, &payment_failed, &(struct reason){reason});
}

static void refunded(struct saga_step *step)
{
    note(step, REFUND, SUCCEEDED);
    const struct bill *bill = become(step, REFUNDED);
    saga_emit(step, &payment_refunded,
              &(struct money){.payment_id = bill->payment_id,
                              .amount = bill->amount,
                              .currency = bill->currency,
                              .reason = bill->reason});
}

/* An unknown outcome is never a failure, and a refund that is refused is owed all the same. */
static void later(struct saga_step *step, enum purpose kind, enum outcome outcome)
{
    struct bill *bill = saga_change(step);

    note(step, kind, outcome);
    bill->row.due = step->now + saga_backoff(step->key, bill->calls, 200 * MS, 60 * SECOND);
}

static void uncharged(struct saga_step *step)
{
    later(step, CHARGE, UNKNOWN);
}

static void refused(struct saga_step *step)
{
    later(step, REFUND, step->input == &refund_refused ? REFUSED : UNKNOWN);
}

/* ---- The table. An input without a row is "-" in every state. ---- */

#define ____ saga_nothing
#define XXXX saga_impossible

const char *const payment_states[] = {"NONE",   "AWAITING",  "REQUESTED", "CHARGING", "COMPLETED",
                                      "FAILED", "REFUNDING", "REFUNDED",  "VOIDED",   NULL};
const char *const payment_kinds[] = {"charge", "refund", NULL};
const char *const payment_outcomes[] = {"succeeded", "declined", "refused", "unknown", NULL};

/* clang-format off */
const struct saga_rule payment_rules[] = {
    /*                            NONE      AWAITING REQUESTED CHARGING   COMPLETED  FAILED REFUNDING REFUNDED VOIDED */
    {&inventory_reserved,       { reserved, XXXX,    awaited,  XXXX,      XXXX,      XXXX,  XXXX,     XXXX,    ____ }},
    {&order_payment_requested,  { request,  pay,     XXXX,     XXXX,      XXXX,      XXXX,  XXXX,     XXXX,    XXXX }},
    {&order_cancel_requested,   { voided,   voided,  voided,   cancel,    give_back, ____,  XXXX,     XXXX,    XXXX }},
    {&charge_succeeded,         { XXXX,     XXXX,    XXXX,     charged,   ____,      XXXX,  ____,     ____,    XXXX }},
    {&charge_declined,          { XXXX,     XXXX,    XXXX,     declined,  XXXX,      ____,  XXXX,     XXXX,    XXXX }},
    {&charge_unknown,           { XXXX,     XXXX,    XXXX,     uncharged, ____,      ____,  ____,     ____,    XXXX }},
    {&saga_due,                 { ____,     ____,    ____,     ask,       ____,      ____,  ask,      ____,    ____ }},
    {&refund_succeeded,         { XXXX,     XXXX,    XXXX,     XXXX,      XXXX,      XXXX,  refunded, ____,    XXXX }},
    {&refund_refused,           { XXXX,     XXXX,    XXXX,     XXXX,      XXXX,      XXXX,  refused,  ____,    XXXX }},
    {&refund_unknown,           { XXXX,     XXXX,    XXXX,     XXXX,      XXXX,      XXXX,  refused,  ____,    XXXX }},
    {&order_cancelled,          { ____,     XXXX,    forget,   XXXX,      XXXX,      ____,  XXXX,     ____,    ____ }},
    {0}
};
/* clang-format on */

const struct saga_event *const payment_emits[] = {&payment_completed, &payment_failed,
                                                  &payment_voided, &payment_refunded, NULL};
