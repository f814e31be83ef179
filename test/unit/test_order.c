/* RULES.md's table "Order", written out once more and played cell by cell through the real rules:
 * next state, events with their data, history, deadline, and that "-" and a rejection change
 * nothing. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "order-svc/order.h"
#include "suites.h"

enum { LANES = 12, STATE_N = COMPLETED + 1 };
#define NOW_US INT64_C(1795513885123456)
#define PLACE  "order.requests/7/88"

static const struct saga_service service = {.name = "order",
                                            .requests = "order.requests",
                                            .events = order_reads,
                                            .states = order_states,
                                            .rules = order_rules,
                                            .emits = order_emits,
                                            .orders = &order_table,
                                            .log = &refusal_table};

/* ---- A batch of one order, whose row is given ---- */

static struct line lines[] = {{"apple", 2, 150}, {"pear", 1, 90}};
static struct change before[] = {{CREATED, 1, NULL, "order.requests/7/1"}};
static struct saga_batch batch;
static struct sale given;      /* the row as it was, */
static const struct sale *row; /* and as it is now */

static struct sale sale_in(enum state state, enum mode mode)
{
    if (state == NONE)
        return (struct sale){.row.key = "ord-1"};
    return (struct sale){.row = {.key = "ord-1",
                                 .lane = 7,
                                 .state = (int)state,
                                 .due = state == CREATED ? NOW_US + 1 : 0,
                                 .created = 1,
                                 .cause = "order.requests/7/1",
                                 .stored = true},
                         .order = {"cust-1", "EUR", 390, {2, lines}, {(int)mode, "tok_ok"}},
                         .reason = state == CANCELLING || state == CANCELLED ? "first" : NULL,
                         .history = {1, before}};
}

static void begin(const struct sale *sale)
{
    saga_batch_reset(&batch);
    batch.writer[7] = (struct saga_writer){.lane = 7, .term = 5};
    given = *sale;
    struct saga_slot *slot = saga_batch_row(&batch, &batch.orders, "ord-1");
    slot->lane = 7;
    slot->row = &given;
}

/* -> false: no rule names it, which is "-" in every state */
static bool add(const struct saga_event *event, const void *data, const char *id)
{
    const struct saga_rule *rule = saga_rule_of(&service, event->type);

    if (!rule)
        return false;
    bool due = event == &saga_due, request = id && strncmp(id, "order.", 6) == 0;
    struct saga_in *in = saga_batch_add(&batch,
                                        due       ? SAGA_IN_DUE
                                        : request ? SAGA_IN_REQUEST
                                                  : SAGA_IN_EVENT,
                                        7);
    in->key = "ord-1";
    in->rule = rule;
    in->data = data;
    in->id = id;
    in->slot = saga_slots_find(&batch.orders, "ord-1");
    return true;
}

static int decide(void)
{
    struct saga_err err = {0};
    int rc = saga_batch_decide(&batch, NOW_US, &err);

    row = saga_slots_find(&batch.orders, "ord-1")->row;
    return rc;
}

/* Event number i that went out. It can be read by everyone, and names what caused it. -> its data
 */
static json_t *emitted(int i, const char *type, const char *cause)
{
    const struct saga_out *out = &batch.out[i];
    const struct saga_record record = {
        .topic = out->topic, .partition = 7, .value = batch.values.at + out->at, .value_n = out->n};
    struct saga_message message;
    struct saga_err err = {0};
    const char *reason = "", *why = NULL;

    ck_assert_int_lt(i, batch.out_n);
    ck_assert_str_eq(out->topic, "order.events");
    ck_assert_int_eq(out->partition, 7);
    ck_assert_msg(saga_event_read(&record, all_events, "/order-svc", 7, &batch.arena, &message,
                                  &reason, &err) == 0 &&
                      !message.refused,
                  "%s: %s", reason, err.text);
    ck_assert_str_eq(message.type, type);
    ck_assert_str_eq(message.cause, cause);
    ck_assert_str_eq(message.key, "ord-1");
    ck_assert(!message.event->check || message.event->check(message.data, &why));
    json_auto_t *event = json_loadb(record.value, record.value_n, JSON_REJECT_DUPLICATES, NULL);
    json_t *data = json_incref(json_object_get(event, "data"));
    ck_assert_str_eq(json_string_value(json_object_get(data, "order_id")), "ord-1");
    json_object_del(data, "order_id");
    return data;
}

static void expect_event(int i, const char *type, const char *cause, const char *data)
{
    json_auto_t *is = emitted(i, type, cause), *should = json_loads(data, 0, NULL);
    char *text = json_dumps(is, JSON_COMPACT);

    ck_assert_ptr_nonnull(should);
    ck_assert_msg(json_equal(is, should), "%s: %s, not %s", type, text, data);
    free(text);
}

/* ---- The table ----
 *
 *     "-"                         nothing changes, nothing is emitted
 *     "impossible"
 *     "! reason"                  RequestRejected, nothing changes
 *     "STATE Event {data}"        the next state, and what is emitted */

static const struct order same_content = {"cust-1", "EUR", 0, {2, lines}, {NOW, "tok_ok"}},
                          other_content = {"cust-2", "EUR", 0, {2, lines}, {NOW, "tok_ok"}};
static const struct pay token = {"tok_slow_5"};
static const struct reason customer = {"wrong size"}, no_reason = {NULL}, empty = {""};
static const struct shipping parcel = {"1Z9"}, no_parcel = {NULL};
static const struct shortfall shortfall = {OUT_OF_STOCK, "pear"}, unknown = {UNKNOWN_SKU, "aple"};
static const struct money money = {"pay-1", 390, "EUR", "sim-1", NULL},
                          refund = {"pay-1", 390, "EUR", NULL, "declined"};
static const struct reason declined = {"declined"};
static const struct order reserved = {NULL, "EUR", 390, {2, lines}, {NOW, "tok_ok"}};

#define CREATED_DATA(mode)                                                                         \
    "{\"customer_id\":\"cust-1\",\"currency\":\"EUR\",\"amount\":390,\"payment\":{\"mode\":"       \
    "\"" mode                                                                                      \
    "\",\"token\":\"tok_ok\"},\"lines\":[{\"sku\":\"apple\",\"quantity\":2,\"unit_price\":150},"   \
    "{\"sku\":\"pear\",\"quantity\":1,\"unit_price\":90}]}"
#define BECAUSE(reason) " {\"reason\":\"" reason "\"}"
#define EXISTS          "! order_exists"
#define X               "impossible"

struct row {
    const char *name;
    const struct saga_event *input;
    const void *data;
    enum mode mode; /* of the order */
    bool requested;
    const char *cell[STATE_N];
};

/* clang-format off */
static const struct row table[] = {
    /* NONE, CREATED, PAID, CANCELLING, CANCELLED, SHIPPED, COMPLETED */
    {"PlaceOrder, same content", &place_order, &same_content, NOW, false, {
        "CREATED OrderCreated " CREATED_DATA("now"), "-", "-", "-", "-", "-", "-"}},
    {"PlaceOrder, other content", &place_order, &other_content, NOW, false, {
        NULL, EXISTS, EXISTS, EXISTS, EXISTS, EXISTS, EXISTS}},
    {"PayOrder, mode later, not yet requested", &pay_order, &token, LATER, false, {
        "! unknown_order", "CREATED OrderPaymentRequested {\"token\":\"tok_slow_5\"}", "-",
        "! cancelled", "! cancelled", "-", "-"}},
    {"PayOrder, requested already", &pay_order, &token, LATER, true, {
        "! unknown_order", "-", "-", "! cancelled", "! cancelled", "-", "-"}},
    {"PayOrder, mode now", &pay_order, &token, NOW, false, {
        "! unknown_order", "! payment_in_progress", "-", "! cancelled", "! cancelled", "-", "-"}},
    {"CancelOrder", &cancel_order, &customer, NOW, false, {
        "! unknown_order", "CANCELLING OrderCancelRequested" BECAUSE("wrong size"),
        "CANCELLING OrderCancelRequested" BECAUSE("wrong size"), "-", "-",
        "! already_shipped", "! already_shipped"}},
    {"CancelOrder without reason", &cancel_order, &no_reason, LATER, false, {
        "! unknown_order", "CANCELLING OrderCancelRequested" BECAUSE("customer"),
        "CANCELLING OrderCancelRequested" BECAUSE("customer"), "-", "-",
        "! already_shipped", "! already_shipped"}},
    {"CancelOrder, reason of no length", &cancel_order, &empty, LATER, true, {
        "! unknown_order", "CANCELLING OrderCancelRequested" BECAUSE("customer"),
        "CANCELLING OrderCancelRequested" BECAUSE("customer"), "-", "-",
        "! already_shipped", "! already_shipped"}},
    {"ShipOrder", &ship_order, &parcel, NOW, false, {
        "! unknown_order", "! not_paid", "SHIPPED OrderShipped {\"tracking\":\"1Z9\"}",
        "! cancelled", "! cancelled", "-", "-"}},
    {"ShipOrder without tracking", &ship_order, &no_parcel, NOW, false, {
        "! unknown_order", "! not_paid", "SHIPPED OrderShipped {}",
        "! cancelled", "! cancelled", "-", "-"}},
    {"CompleteOrder", &complete_order, NULL, NOW, false, {
        "! unknown_order", "! not_shipped", "! not_shipped", "! cancelled", "! cancelled",
        "COMPLETED OrderCompleted {}", "-"}},
    {"due", &saga_due, NULL, NOW, false, {
        "-", "CANCELLING OrderCancelRequested" BECAUSE("payment_timeout"),
        "-", "-", "-", "-", "-"}},
    {"due, mode later, requested", &saga_due, NULL, LATER, true, {
        "-", "CANCELLING OrderCancelRequested" BECAUSE("payment_timeout"),
        "-", "-", "-", "-", "-"}},
    {"ReservationFailed, out of stock", &reservation_failed, &shortfall, NOW, false, {
        X, "CANCELLED OrderCancelled" BECAUSE("out_of_stock"), X,
        "CANCELLED OrderCancelled" BECAUSE("first"), X, X, X}},
    {"ReservationFailed, unknown SKU", &reservation_failed, &unknown, LATER, false, {
        X, "CANCELLED OrderCancelled" BECAUSE("unknown_sku"), X,
        "CANCELLED OrderCancelled" BECAUSE("first"), X, X, X}},
    {"InventoryReleased", &inventory_released, &declined, NOW, false, {
        X, "CANCELLED OrderCancelled" BECAUSE("declined"), X,
        "CANCELLED OrderCancelled" BECAUSE("first"), X, X, X}},
    {"PaymentCompleted", &payment_completed, &money, NOW, false, {
        X, "PAID OrderPaid {\"amount\":390,\"currency\":\"EUR\"}", X, "-", "-", X, X}},
    {"InventoryReserved", &inventory_reserved, &reserved, NOW, false, {
        "-", "-", "-", "-", "-", "-", "-"}},
    {"PaymentFailed", &payment_failed, &declined, NOW, false, {
        "-", "-", "-", "-", "-", "-", "-"}},
    {"PaymentVoided", &payment_voided, &declined, NOW, false, {
        "-", "-", "-", "-", "-", "-", "-"}},
    {"PaymentRefunded", &payment_refunded, &refund, NOW, false, {
        "-", "-", "-", "-", "-", "-", "-"}},
};
/* clang-format on */
enum { ROWS = sizeof table / sizeof *table };

static int state_of(const char *name, size_t n)
{
    for (int i = 0; i < STATE_N; i++)
        if (strlen(order_states[i]) == n && strncmp(order_states[i], name, n) == 0)
            return i;
    ck_abort_msg("%s: no state", name);
    return -1;
}

static void expect_unchanged(const struct row *r, const struct sale *was)
{
    struct sale is = *row;

    if (r->input == &saga_due) /* the engine has taken the deadline off */
        is.row.due = was->row.due, is.row.changed = was->row.changed;
    is.row.lane = was->row.lane; /* the engine sets it in a row that it makes */
    ck_assert_msg(memcmp(&is, was, sizeof is) == 0, "%s in %s changes the row", r->name,
                  order_states[was->row.state]);
}

static void expect_rejection(const struct row *r, const struct sale *was, const char *reason)
{
    char data[256];

    expect_unchanged(r, was);
    ck_assert_int_eq(batch.out_n, 1);
    snprintf(data, sizeof data, "{\"request\":\"%s\",\"reason\":\"%s\",\"status\":\"%s\"}",
             r->input->type, reason, order_states[was->row.state]);
    expect_event(0, "RequestRejected", PLACE, data);
    const struct refusal *refusal = batch.log_n == 1 ? batch.log[0] : NULL;
    ck_assert_ptr_nonnull(refusal);
    ck_assert(refusal->lane == 7 && refusal->at == NOW_US);
    ck_assert_str_eq(refusal->request_id, PLACE);
    ck_assert_str_eq(refusal->reason, reason);
    ck_assert_str_eq(refusal->status, order_states[was->row.state]);
}

static void expect_action(const struct row *r, const struct sale *was, const char *cell,
                          const char *cause)
{
    const char *event = strchr(cell, ' ') + 1, *data = strchr(event, ' ') + 1;
    int next = state_of(cell, (size_t)(event - cell - 1));
    char type[64];

    snprintf(type, sizeof type, "%.*s", (int)(data - event - 1), event);
    ck_assert_int_eq(row->row.state, next);
    ck_assert(row->row.changed);
    ck_assert_int_eq(batch.out_n, 1);
    expect_event(0, type, cause, data);
    if (was->row.state == next) { /* PayOrder */
        ck_assert(row->requested && row->row.due == was->row.due && row->history.n == 1);
        return;
    }
    int n = was->history.n;
    const struct change *change = &row->history.at[n];
    const char *reason = next == CANCELLING || next == CANCELLED ? row->reason : NULL;
    ck_assert_msg(row->row.due == (next == CREATED ? NOW_US + order_pay_timeout : 0),
                  "%s: a deadline is in force in CREATED and only there", r->name);
    ck_assert_int_eq(row->history.n, n + 1);
    ck_assert(n == 0 || memcmp(row->history.at, before, sizeof before) == 0);
    ck_assert(change->status == next && change->at == NOW_US);
    ck_assert_str_eq(change->cause, cause);
    ck_assert_pstr_eq(change->reason, reason);
    ck_assert((reason == NULL) == (next != CANCELLING && next != CANCELLED));
    ck_assert(!reason || strstr(data, reason));
    if (next == SHIPPED)
        ck_assert_pstr_eq(row->tracking, ((const struct shipping *)r->data)->tracking);
}

static void play(const struct row *r, enum state state)
{
    struct sale was = sale_in(state, r->mode);
    bool request = false, due = r->input == &saga_due;
    const char *cell = r->cell[state];

    for (int i = 0; all_requests[i]; i++)
        request |= r->input == all_requests[i];
    was.requested = state != NONE && r->requested;
    if (due)
        was.row.due = NOW_US;
    begin(&was);
    const char *id = due ? NULL : request ? PLACE : "7.3.4", *cause = due ? was.row.cause : id;
    if (!add(r->input, r->data, id)) {
        ck_assert_msg(strcmp(cell, "-") == 0, "%s has no rule", r->name);
        return;
    }
    int rc = decide();
    ck_assert_msg((rc == SAGA_POISON) == (strcmp(cell, X) == 0), "%s in %s", r->name,
                  order_states[state]);
    if (strcmp(cell, X) == 0 || strcmp(cell, "-") == 0) {
        expect_unchanged(r, &was);
        ck_assert_msg(batch.out_n == 0, "%s in %s emits", r->name, order_states[state]);
    } else if (*cell == '!')
        expect_rejection(r, &was, cell + 2);
    else
        expect_action(r, &was, cell, cause);
    ck_assert_int_eq(batch.call_n, 0);
}

/* Each cell of RULES.md's table does what stands there, and nothing else. (The loop index is the
 * row.) */
START_TEST(every_cell_is_as_written)
{
    for (int state = 0; state < STATE_N; state++)
        if (table[_i].cell[state]) /* NULL: the same as in the row above */
            play(&table[_i], (enum state)state);
}
END_TEST

/* The rules have no row that the table has not. */
START_TEST(the_rules_have_no_other_row)
{
    for (const struct saga_rule *rule = order_rules; rule->input; rule++) {
        int n = 0;
        for (int i = 0; i < ROWS; i++)
            n += table[i].input == rule->input;
        ck_assert_msg(n > 0, "%s is not in the table", rule->input->type);
        for (int state = 0; state < STATE_N; state++)
            ck_assert_ptr_nonnull(rule->cell[state]);
    }
}
END_TEST

/* What differs makes other content: customer, currency, each member of a line, their order,
 * payment. */
START_TEST(content_is_compared_member_by_member)
{
    struct line more[] = {{"apple", 2, 151}, {"pear", 1, 90}}, fewer[] = {{"apple", 2, 150}},
                turned[] = {{"pear", 1, 90}, {"apple", 2, 150}},
                sku[] = {{"apple", 2, 150}, {"bear", 1, 90}},
                quantity[] = {{"apple", 3, 150}, {"pear", 1, 90}};
    char copied[] = "cust-1";
    const struct order orders[] = {
        {copied, "EUR", 0, {2, lines}, {NOW, "tok_ok"}}, /* the same, elsewhere in memory */
        {"cust-1", "USD", 0, {2, lines}, {NOW, "tok_ok"}},
        {"cust-1", "EUR", 0, {2, more}, {NOW, "tok_ok"}},
        {"cust-1", "EUR", 0, {1, fewer}, {NOW, "tok_ok"}},
        {"cust-1", "EUR", 0, {2, turned}, {NOW, "tok_ok"}},
        {"cust-1", "EUR", 0, {2, sku}, {NOW, "tok_ok"}},
        {"cust-1", "EUR", 0, {2, quantity}, {NOW, "tok_ok"}},
        {"cust-1", "EUR", 0, {2, lines}, {LATER, "tok_ok"}},
        {"cust-1", "EUR", 0, {2, lines}, {NOW, "tok_declined"}},
        {"cust-1", "EUR", 0, {2, lines}, {NOW, NULL}},
    };
    const struct sale sale = sale_in(PAID, NOW);

    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        begin(&sale);
        add(&place_order, &orders[i], PLACE);
        ck_assert_int_eq(decide(), 0);
        ck_assert_msg(batch.out_n == (i > 0), "order %zu", i);
    }
}
END_TEST

/* ---- Invariant 8: a request that the table lets act has acted once it is read ---- */

struct act {
    enum state state;
    enum mode mode;
    const struct saga_event *request;
    const void *data;
    const char *event;
    enum state next;
};
static const struct act acts[] = {
    {NONE, NOW, &place_order, &same_content, "OrderCreated", CREATED},
    {CREATED, LATER, &pay_order, &token, "OrderPaymentRequested", CREATED},
    {CREATED, NOW, &cancel_order, &no_reason, "OrderCancelRequested", CANCELLING},
    {PAID, NOW, &cancel_order, &no_reason, "OrderCancelRequested", CANCELLING},
    {PAID, NOW, &ship_order, &parcel, "OrderShipped", SHIPPED},
    {SHIPPED, NOW, &complete_order, NULL, "OrderCompleted", COMPLETED},
};

/* ACTS: each of them acts when it is read, and sent again in the same batch it does not act again.
 */
START_TEST(requests_that_may_act_do)
{
    const struct act *act = &acts[_i];
    const struct sale sale = sale_in(act->state, act->mode);

    begin(&sale);
    add(act->request, act->data, PLACE);
    add(act->request, act->data, "order.requests/7/89");
    ck_assert_int_eq(decide(), 0);
    json_decref(emitted(0, act->event, PLACE));
    ck_assert_int_eq(row->row.state, (int)act->next);
    ck_assert_int_eq(batch.out_n, 1);
}
END_TEST

/* ... and these are all that act: in each other cell of a request the order's state stays. */
START_TEST(no_other_request_acts)
{
    static const void *const data[] = {&same_content, &token, &no_reason, &parcel, NULL};
    int n = 0;

    for (int state = 0; state < STATE_N; state++)
        for (int i = 0; all_requests[i]; i++) {
            const struct sale sale = sale_in((enum state)state, LATER);
            begin(&sale);
            add(all_requests[i], data[i], PLACE);
            ck_assert_int_eq(decide(), 0);
            n += row->row.changed;
        }
    ck_assert_int_eq(n, (int)(sizeof acts / sizeof *acts));
}
END_TEST

/* ---- Several inputs of one order in one batch ---- */

/* A whole life in one batch: each event once, in order, each chained to the one before it. */
START_TEST(a_life_in_one_batch)
{
    static const char *const types[] = {"OrderCreated", "OrderPaid", "OrderShipped",
                                        "OrderCompleted"};
    static const int states[] = {CREATED, PAID, SHIPPED, COMPLETED};

    begin(&(struct sale){.row.key = "ord-1"});
    add(&place_order, &same_content, PLACE);
    add(&payment_completed, &money, "7.3.4");
    add(&ship_order, &parcel, PLACE);
    add(&complete_order, NULL, PLACE);
    ck_assert_int_eq(decide(), 0);
    ck_assert_int_eq(batch.out_n, 4);
    ck_assert_int_eq(row->history.n, 4);
    for (int i = 0; i < 4; i++) {
        json_decref(emitted(i, types[i], i == 1 ? "7.3.4" : PLACE));
        ck_assert_int_eq(row->history.at[i].status, states[i]);
        ck_assert_int_eq(batch.out[i].own.seq, i + 1);
    }
    ck_assert_int_eq(row->row.due, 0);
}
END_TEST

/* The deadline and the payment in one batch: the first of them decides, whichever it is. */
START_TEST(deadline_and_payment_in_one_batch)
{
    struct sale sale = sale_in(CREATED, NOW);

    sale.row.due = NOW_US;
    begin(&sale);
    add(&saga_due, NULL, NULL);
    add(&payment_completed, &money, "7.3.4");
    ck_assert_int_eq(decide(), 0);
    ck_assert_int_eq(row->row.state, CANCELLING);
    ck_assert_int_eq(batch.out_n, 1);

    begin(&sale);
    add(&payment_completed, &money, "7.3.4");
    add(&saga_due, NULL, NULL);
    ck_assert_int_eq(decide(), 0);
    ck_assert_int_eq(row->row.state, PAID);
    ck_assert_int_eq(batch.out_n, 1);
}
END_TEST

/* SAGA_PAY_TIMEOUT is 900 s unless told otherwise, and the deadline follows it. */
START_TEST(the_deadline_is_a_setting)
{
    ck_assert_int_eq(order_pay_timeout, INT64_C(900000000));
    ck_assert_str_eq(order_settings[0].name, "SAGA_PAY_TIMEOUT");
    *order_settings[0].to = 5;
    begin(&(struct sale){.row.key = "ord-1"});
    add(&place_order, &same_content, PLACE);
    ck_assert_int_eq(decide(), 0);
    ck_assert_int_eq(row->row.due, NOW_US + 5);
    order_pay_timeout = INT64_C(900000000);
}
END_TEST

static void set_up(void)
{
    saga_batch_init(&batch, &service, LANES, "history");
}

static void tear_down(void)
{
    saga_batch_free(&batch);
}

Suite *order_suite(void)
{
    Suite *suite = suite_create("order");
    TCase *rules = tcase_create("rules");

    tcase_add_checked_fixture(rules, set_up, tear_down);
    tcase_add_loop_test(rules, every_cell_is_as_written, 0, ROWS);
    tcase_add_test(rules, the_rules_have_no_other_row);
    tcase_add_test(rules, content_is_compared_member_by_member);
    tcase_add_loop_test(rules, requests_that_may_act_do, 0, sizeof acts / sizeof *acts);
    tcase_add_test(rules, no_other_request_acts);
    tcase_add_test(rules, a_life_in_one_batch);
    tcase_add_test(rules, deadline_and_payment_in_one_batch);
    tcase_add_test(rules, the_deadline_is_a_setting);
    suite_add_tcase(suite, rules);
    return suite;
}
