/* The order's rules: RULES.md, "Order". */
#include "order.h"

#include "field.h"
#include "post.h"

int64_t order_pay_timeout = INT64_C(900000000);

const struct saga_setting order_settings[] = {
    {"SAGA_PAY_TIMEOUT", "900s", "an order that is not paid by then is cancelled",
     &order_pay_timeout, 1000, INT64_C(365) * 86400 * 1000000},
    {"SAGA_POST_TIMEOUT", "5s", "HTTP: what Kafka has not acknowledged by then is answered 504",
     &saga_post_timeout, 10000, INT64_C(60) * 1000000},
    {0}};

/* Every change of state goes through here: the history has it, and the deadline ends with CREATED.
 */
static struct sale *become(struct saga_step *step, enum state state, const char *reason)
{
    struct sale *sale = saga_change(step);

    sale->row.state = state;
    sale->row.due = state == CREATED ? step->now + order_pay_timeout : 0;
    *(struct change *)saga_append(step, &sale->history, sizeof(struct change)) =
        (struct change){state, step->now, reason, step->id};
    return sale;
}

static void reject(struct saga_step *step, const char *reason)
{
    const struct sale *sale = step->row;
    const char *status = order_states[sale->row.state];

    saga_log(step, &(struct refusal){sale->row.lane, step->now, step->id, reason, status});
    saga_emit(step, &request_rejected, &(struct rejection){step->input->type, reason, status});
}

/* ---- Requests ---- */

static void place(struct saga_step *step)
{
    struct sale *sale = become(step, CREATED, NULL);

    sale->order = *(const struct order *)step->data;
    order_amount(&sale->order.lines, &sale->order.amount); /* in range: PlaceOrder's check */
    saga_emit(step, &order_created, &sale->order);
}

static void again(struct saga_step *step)
{
    const struct sale *sale = step->row;

    if (!saga_fields_equal(place_order.fields, step->data, &sale->order))
        reject(step, "order_exists");
}

static void pay(struct saga_step *step)
{
    const struct sale *sale = step->row;

    if (sale->order.payment.mode == NOW)
        reject(step, "payment_in_progress");
    else if (!sale->requested) {
        ((struct sale *)saga_change(step))->requested = true;
        saga_emit(step, &order_payment_requested, step->data);
    }
}

static void cancelling(struct saga_step *step, const char *reason)
{
    become(step, CANCELLING, reason)->reason = reason;
    saga_emit(step, &order_cancel_requested, &(struct reason){reason});
}

static void cancel(struct saga_step *step)
{
    const char *reason = ((const struct reason *)step->data)->reason;

    cancelling(step, reason && *reason ? reason : "customer");
}

static void expire(struct saga_step *step)
{
    cancelling(step, "payment_timeout");
}

static void ship(struct saga_step *step)
{
    const struct shipping *shipping = step->data;

    become(step, SHIPPED, NULL)->tracking = shipping->tracking;
    saga_emit(step, &order_shipped, shipping);
}

static void complete(struct saga_step *step)
{
    become(step, COMPLETED, NULL);
    saga_emit(step, &order_completed, NULL);
}

static void unknown(struct saga_step *step)
{
    reject(step, "unknown_order");
}

static void unpaid(struct saga_step *step)
{
    reject(step, "not_paid");
}

static void unsent(struct saga_step *step)
{
    reject(step, "not_shipped");
}

static void gone(struct saga_step *step)
{
    reject(step, "cancelled");
}

static void sent(struct saga_step *step)
{
    reject(step, "already_shipped");
}

/* ---- Events ---- */

static void paid(struct saga_step *step)
{
    const struct order *order = &become(step, PAID, NULL)->order;

    saga_emit(step, &order_paid,
              &(struct money){.amount = order->amount, .currency = order->currency});
}

/* The end of the reverse chain. The first reason stays: it is why the chain runs. */
static void cancelled(struct saga_step *step, const char *reason)
{
    const struct sale *sale = step->row;
    const char *first = sale->reason ? sale->reason : reason;

    become(step, CANCELLED, first)->reason = first;
    saga_emit(step, &order_cancelled, &(struct reason){first});
}

static void unstocked(struct saga_step *step)
{
    cancelled(step, shortages[((const struct shortfall *)step->data)->reason]);
}

static void released(struct saga_step *step)
{
    cancelled(step, ((const struct reason *)step->data)->reason);
}

/* ---- The table. An input without a row is "-" in every state. ---- */

#define ____ saga_nothing
#define XXXX saga_impossible

const char *const order_states[] = {"NONE",      "CREATED", "PAID",      "CANCELLING",
                                    "CANCELLED", "SHIPPED", "COMPLETED", NULL};

/* clang-format off */
const struct saga_rule order_rules[] = {
    /*                      NONE     CREATED    PAID    CANCELLING CANCELLED SHIPPED   COMPLETED */
    {&place_order,        { place,   again,     again,  again,     again,    again,    again }},
    {&pay_order,          { unknown, pay,       ____,   gone,      gone,     ____,     ____  }},
    {&cancel_order,       { unknown, cancel,    cancel, ____,      ____,     sent,     sent  }},
    {&ship_order,         { unknown, unpaid,    ship,   gone,      gone,     ____,     ____  }},
    {&complete_order,     { unknown, unsent,    unsent, gone,      gone,     complete, ____  }},
    {&saga_due,           { ____,    expire,    ____,   ____,      ____,     ____,     ____  }},
    {&reservation_failed, { XXXX,    unstocked, XXXX,   unstocked, XXXX,     XXXX,     XXXX  }},
    {&inventory_released, { XXXX,    released,  XXXX,   released,  XXXX,     XXXX,     XXXX  }},
    {&payment_completed,  { XXXX,    paid,      XXXX,   ____,      ____,     XXXX,     XXXX  }},
    {0}
};
/* clang-format on */

const struct saga_event *const order_emits[] = {
    &order_created,          &order_payment_requested, &order_paid,
    &order_cancel_requested, &order_cancelled,         &order_shipped,
    &order_completed,        &request_rejected,        NULL};

const char *const order_reads[] = {"inventory.events", "payment.events", NULL};
