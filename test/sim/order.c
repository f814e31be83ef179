/* order-svc in the simulation: what its main.c says of it, its rows for the invariants, and
 * invariant 8 for each cell of the requests. */
#include "order-svc/order.h"

#include <string.h>

#include "sim.h"

static const struct saga_service service = {
    .name = "order",
    .requests = "order.requests",
    .accepts = all_requests,
    .creates = &place_order,
    .events = order_reads,
    .states = order_states,
    .rules = order_rules,
    .emits = order_emits,
    .orders = &order_table,
    .log = &refusal_table,
};

struct order_view order_view(const void *row)
{
    const struct sale *sale = row;

    return (struct order_view){sale->row.state, (enum mode)sale->order.payment.mode,
                               sale->requested, sale->order.amount,
                               sale->row.due,   &sale->order.lines};
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

static bool same_order(const struct order *a, const struct order *b)
{
    if (!same_text(a->customer_id, b->customer_id) || !same_text(a->currency, b->currency) ||
        a->lines.n != b->lines.n || a->payment.mode != b->payment.mode ||
        !same_text(a->payment.token, b->payment.token))
        return false;
    for (int i = 0; i < a->lines.n; i++)
        if (!same_text(a->lines.at[i].sku, b->lines.at[i].sku) ||
            a->lines.at[i].quantity != b->lines.at[i].quantity ||
            a->lines.at[i].unit_price != b->lines.at[i].unit_price)
            return false;
    return true;
}

/* RULES.md, "Order", the rows of the requests once more: what must come out of a cell. */
struct act {
    int next;
    const char *event; /* NULL: none */
};

static struct act placed(const struct saga_step *step, const struct sale *was)
{
    if (was->row.state == NONE)
        return (struct act){CREATED, "OrderCreated"};
    return (struct act){was->row.state,
                        same_order(step->data, &was->order) ? NULL : "RequestRejected"};
}

static struct act paying(const struct sale *was)
{
    switch (was->row.state) {
    case CREATED:
        if (was->order.payment.mode == LATER)
            return (struct act){CREATED, was->requested ? NULL : "OrderPaymentRequested"};
        return (struct act){CREATED, "RequestRejected"};
    case PAID:
    case SHIPPED:
    case COMPLETED:
        return (struct act){was->row.state, NULL};
    default:
        return (struct act){was->row.state, "RequestRejected"};
    }
}

static struct act cancelling(const struct sale *was)
{
    switch (was->row.state) {
    case CREATED:
    case PAID:
        return (struct act){CANCELLING, "OrderCancelRequested"};
    case CANCELLING:
    case CANCELLED:
        return (struct act){was->row.state, NULL};
    default:
        return (struct act){was->row.state, "RequestRejected"};
    }
}

static struct act moving(const struct sale *was, int from, int to, const char *event)
{
    if (was->row.state == from)
        return (struct act){to, event};
    if (was->row.state == to || (to == SHIPPED && was->row.state == COMPLETED))
        return (struct act){was->row.state, NULL};
    return (struct act){was->row.state, "RequestRejected"};
}

static const char *judge(const struct saga_step *step, const void *row, const char *emitted)
{
    const struct sale *was = row, *is = step->row;
    struct act act;

    if (step->input == &place_order)
        act = placed(step, was);
    else if (step->input == &pay_order)
        act = paying(was);
    else if (step->input == &cancel_order)
        act = cancelling(was);
    else if (step->input == &ship_order)
        act = moving(was, PAID, SHIPPED, "OrderShipped");
    else if (step->input == &complete_order)
        act = moving(was, SHIPPED, COMPLETED, "OrderCompleted");
    else
        return NULL;
    if (act.next != is->row.state)
        return "another state than RULES.md says";
    if (!same_text(act.event, emitted))
        return "another event than RULES.md says";
    if (step->input == &pay_order && emitted && !strcmp(emitted, "OrderPaymentRequested") &&
        !is->requested)
        return "the payment is not marked as requested";
    return NULL;
}

const struct sim_service sim_order = {&service, judge};
