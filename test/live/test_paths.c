/* Every way that an order can go, with the real services: each path of RULES.md to its end, each
 * request that is refused and why. */
#include "suites.h"

#include <stdio.h>
#include <string.h>

#include "web.h"
#include "world.h"

enum { LANES = 12, PATIENCE = 15 };

static struct world *w;

static void setup(void)
{
    w = world_new("paths", LANES, NULL);
    world_start_all(w);
    world_stock(w, "apple", 1000000);
    world_stock(w, "pear", 1000000);
    world_stock(w, "few", 3);
    world_stock(w, "none", 0);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* A path: an order is placed; then request after request is sent, each when the states are there.
 * What its events are in each topic. */
struct step {
    const char *state;   /* of order, reservation, payment: awaited */
    const char *request; /* then sent; NULL: the end */
};
struct path {
    const char *name, *lines, *token;
    struct step step[6];
    const char *order, *inventory, *payment; /* types of events */
};

#define CREATED   "OrderCreated"
#define PAY       "{\"type\":\"PayOrder\",\"order_id\":\"%s\",\"token\":\"tok_ok\"}"
#define PAY_BAD   "{\"type\":\"PayOrder\",\"order_id\":\"%s\",\"token\":\"tok_expired\"}"
#define CANCEL    "{\"type\":\"CancelOrder\",\"order_id\":\"%s\",\"reason\":\"changed my mind\"}"
#define SHIP      "{\"type\":\"ShipOrder\",\"order_id\":\"%s\",\"tracking\":\"T-1\"}"
#define COMPLETE  "{\"type\":\"CompleteOrder\",\"order_id\":\"%s\"}"
#define RESERVED  "InventoryReserved"
#define RETURNED  "InventoryReserved InventoryReleased"
#define PAID      "PAID HELD COMPLETED"
#define DECLINED  "CANCELLED RELEASED FAILED"
#define REFUNDED  "CANCELLED RELEASED REFUNDED"
#define VOIDED    "CANCELLED RELEASED VOIDED"
#define UNSTOCKED "CANCELLED FAILED -"
#define AWAITING  "CREATED HELD AWAITING"
#define CHARGING  "CREATED HELD CHARGING"

/* clang-format off */
static const struct path paths[] = {
    {"happy", "apple 2 150", "tok_ok", {{PAID}},
     CREATED " OrderPaid", RESERVED, "PaymentCompleted"},
    {"lines", "pear 1 99, apple 2 150, few 1 5", "tok_ok", {{PAID}},
     CREATED " OrderPaid", RESERVED, "PaymentCompleted"},
    {"free", "apple 1 0", "tok_ok", {{PAID}},
     CREATED " OrderPaid", RESERVED, "PaymentCompleted"},
    {"most", "apple 1 1000000000000", "tok_ok", {{PAID}},
     CREATED " OrderPaid", RESERVED, "PaymentCompleted"},
    {"none", "apple 1 150, none 1 1", "tok_ok", {{UNSTOCKED}},
     CREATED " OrderCancelled", "ReservationFailed", ""},
    {"more", "few 1000 1, apple 1 1", "tok_ok", {{UNSTOCKED}},
     CREATED " OrderCancelled", "ReservationFailed", ""},
    {"unknown-sku", "apple 1 150, nobody-knows 1 1", "tok_ok", {{UNSTOCKED}},
     CREATED " OrderCancelled", "ReservationFailed", ""},
    {"declined", "apple 1 150", "tok_declined", {{DECLINED}},
     CREATED " OrderCancelled", RETURNED, "PaymentFailed"},
    {"no-funds", "apple 1 150", "tok_insufficient_funds", {{DECLINED}},
     CREATED " OrderCancelled", RETURNED, "PaymentFailed"},
    {"expired", "apple 1 150", "tok_expired", {{DECLINED}},
     CREATED " OrderCancelled", RETURNED, "PaymentFailed"},
    {"strange", "apple 1 150", "tok_of_nobody", {{DECLINED}},
     CREATED " OrderCancelled", RETURNED, "PaymentFailed"},
    {"unsure", "apple 1 150", "tok_unknown_once", {{PAID}},
     CREATED " OrderPaid", RESERVED, "PaymentCompleted"},
    {"unsure-no", "apple 1 150", "tok_unknown_declined", {{DECLINED}},
     CREATED " OrderCancelled", RETURNED, "PaymentFailed"},
    {"slow", "apple 1 150", "tok_slow_300", {{PAID}},
     CREATED " OrderPaid", RESERVED, "PaymentCompleted"},
    {"too-slow", "apple 1 150", "tok_slow_1500", {{PAID}},
     CREATED " OrderPaid", RESERVED, "PaymentCompleted"},
    {"later", "apple 1 150", "later", {{AWAITING, PAY}, {PAID}},
     CREATED " OrderPaymentRequested OrderPaid", RESERVED, "PaymentCompleted"},
    {"later-twice", "apple 1 150", "later", {{AWAITING, PAY}, {PAID, PAY}, {PAID}},
     CREATED " OrderPaymentRequested OrderPaid", RESERVED, "PaymentCompleted"},
    {"later-no", "apple 1 150", "later", {{AWAITING, PAY_BAD}, {DECLINED}},
     CREATED " OrderPaymentRequested OrderCancelled", RETURNED, "PaymentFailed"},
    {"later-none", "none 1 1", "later", {{UNSTOCKED}},
     CREATED " OrderCancelled", "ReservationFailed", ""},
    {"later-cancelled", "apple 1 150", "later", {{AWAITING, CANCEL}, {VOIDED}},
     CREATED " OrderCancelRequested OrderCancelled", RETURNED, "PaymentVoided"},
    {"later-waits", "apple 1 150", "later", {{AWAITING}},
     CREATED, RESERVED, ""},
    {"cancelled-paid", "apple 1 150, pear 2 3", "tok_ok", {{PAID, CANCEL}, {REFUNDED}},
     CREATED " OrderPaid OrderCancelRequested OrderCancelled", RETURNED, "PaymentCompleted PaymentRefunded"},
    {"cancelled-twice", "apple 1 150", "tok_ok", {{PAID, CANCEL}, {REFUNDED, CANCEL}, {REFUNDED}},
     CREATED " OrderPaid OrderCancelRequested OrderCancelled", RETURNED, "PaymentCompleted PaymentRefunded"},
    {"refused-once", "apple 1 150", "tok_refund_refused_1", {{PAID, CANCEL}, {REFUNDED}},
     CREATED " OrderPaid OrderCancelRequested OrderCancelled", RETURNED, "PaymentCompleted PaymentRefunded"},
    {"refused-thrice", "apple 1 150", "tok_refund_refused_3", {{PAID, CANCEL}, {REFUNDED}},
     CREATED " OrderPaid OrderCancelRequested OrderCancelled", RETURNED, "PaymentCompleted PaymentRefunded"},
    {"shipped", "apple 3 150", "tok_ok", {{PAID, SHIP}, {"SHIPPED SHIPPED COMPLETED"}},
     CREATED " OrderPaid OrderShipped", RESERVED, "PaymentCompleted"},
    {"completed", "pear 3 150", "tok_ok",
     {{PAID, SHIP}, {"SHIPPED SHIPPED COMPLETED", COMPLETE}, {"COMPLETED SHIPPED COMPLETED"}},
     CREATED " OrderPaid OrderShipped OrderCompleted", RESERVED, "PaymentCompleted"},
    {"again", "pear 1 150", "tok_ok",
     {{PAID, SHIP}, {"SHIPPED SHIPPED COMPLETED", SHIP}, {"SHIPPED SHIPPED COMPLETED", COMPLETE},
      {"COMPLETED SHIPPED COMPLETED", COMPLETE}, {"COMPLETED SHIPPED COMPLETED"}},
     CREATED " OrderPaid OrderShipped OrderCompleted", RESERVED, "PaymentCompleted"},
};
/* clang-format on */
enum { PATHS = sizeof paths / sizeof *paths };

#pragma GCC diagnostic ignored "-Wformat-nonliteral"

/* Sends the next request of a path whose states are there. -> the path is at its end */
static bool advance(const struct path *p, int *at)
{
    const struct step *step = &p->step[*at];

    if (!step->state)
        return true;
    if (!same(world_state(w, p->name), step->state))
        return false;
    if (step->request)
        world_ask(w, p->name, step->request, p->name);
    (*at)++;
    return !p->step[*at].state;
}

/* Each path of RULES.md ends where its table says: in order, reservation and payment the same. */
START_TEST(every_path_comes_to_its_end)
{
    int at[PATHS] = {0}, open = PATHS;
    int64_t until = test_until(PATIENCE);

    for (int i = 0; i < PATHS; i++)
        world_place(w, paths[i].name, paths[i].lines, paths[i].token);
    while (open > 0) {
        open = 0;
        for (int i = 0; i < PATHS; i++)
            if (!advance(&paths[i], &at[i])) {
                open++;
                MUST(test_now() < until, "%s is %s, not %s", paths[i].name,
                     world_state(w, paths[i].name), paths[i].step[at[i]].state);
            }
        test_pause(until);
    }
    world_settle(w, PATIENCE);
}
END_TEST

static void must_emit(const struct path *of, int n)
{
    struct kafka_log *log[SERVICES];

    for (int s = 0; s < SERVICES; s++)
        log[s] = kafka_read(world_topic(w, text("%s.events", service_names[s])));
    for (int i = 0; i < n; i++) {
        const struct path *p = &of[i];
        const char *const expected[SERVICES] = {p->order, p->inventory, p->payment};
        for (int s = 0; s < SERVICES; s++) {
            const char *is = world_history(log[s], p->name);
            MUST(same(is, expected[s]), "%s on %s.events: %s, expected %s", p->name,
                 service_names[s], is, expected[s]);
        }
    }
    for (int s = 0; s < SERVICES; s++)
        kafka_log_free(log[s]);
}

/* What is told of an order is its path and nothing else: these events, once each, in this order. */
START_TEST(every_path_emits_its_events)
{
    must_emit(paths, PATHS);
}
END_TEST

static const char *reason_of(const char *order)
{
    return db_text(w->db, "select reason from orders where order_id = '%s'", order);
}

/* An order that ended badly says why: in the words of him who ended it. */
START_TEST(an_order_says_why_it_ended)
{
    MUST(same(reason_of("none"), "out_of_stock"), "none: %s", reason_of("none"));
    MUST(same(reason_of("unknown-sku"), "unknown_sku"), "%s", reason_of("unknown-sku"));
    MUST(same(reason_of("declined"), "declined"), "%s", reason_of("declined"));
    MUST(same(reason_of("no-funds"), "insufficient_funds"), "%s", reason_of("no-funds"));
    MUST(same(reason_of("strange"), "unknown_token"), "%s", reason_of("strange"));
    MUST(same(reason_of("cancelled-paid"), "changed my mind"), "%s", reason_of("cancelled-paid"));
    MUST(same(reason_of("happy"), NULL), "happy has a reason");
}
END_TEST

/* A refund is asked for until it is given: refused three times, tried four times. */
START_TEST(a_refused_refund_is_tried_again)
{
    const char *attempts =
        db_text(w->db, "select attempts::jsonb || jsonb_build_array(calls) from payment"
                       " where order_id = 'refused-thrice'");
    int64_t refunds =
        db_int(w->db, "select count(*) from payment p, json_array_elements(attempts) a"
                      " where order_id = 'refused-thrice' and a->>'kind' = 'refund'");

    MUST(refunds == 4, "refused thrice: %s", attempts);
    MUST_BE(db_int(w->db, "select count(*) from ledger where key = 'refund:refused-thrice' and "
                          "reason is null"),
            1);
}
END_TEST

/* ---- Refused ---- */

struct refusal {
    const char *order, *request, *reason;
};

/* clang-format off */
static const struct refusal refusals[] = {
    {"nobody-1", PAY, "unknown_order"},
    {"nobody-2", CANCEL, "unknown_order"},
    {"nobody-3", SHIP, "unknown_order"},
    {"nobody-4", COMPLETE, "unknown_order"},
    {"later-waits", SHIP, "not_paid"},
    {"later-waits", COMPLETE, "not_shipped"},
    {"happy", COMPLETE, "not_shipped"},
    {"declined", PAY, "cancelled"},
    {"declined", SHIP, "cancelled"},
    {"declined", COMPLETE, "cancelled"},
    {"shipped", CANCEL, "already_shipped"},
    {"completed", CANCEL, "already_shipped"},
};
/* clang-format on */
enum { REFUSALS = sizeof refusals / sizeof *refusals };

/* How often a request of a type was rejected for a reason, to an order. */
static int rejections(const char *order, const char *request, const char *reason)
{
    struct kafka_log *log = kafka_read(world_topic(w, "order.events"));
    json_error_t error;
    int n = 0;

    for (int i = 0; i < log->n; i++) {
        json_t *event = json_loadb(log->at[i].value, log->at[i].value_n, 0, &error);
        json_t *data = json_object_get(event, "data");
        n += same(json_string_value(json_object_get(event, "type")), "RequestRejected") &&
             same(json_string_value(json_object_get(data, "order_id")), order) &&
             same(json_string_value(json_object_get(data, "request")), request) &&
             same(json_string_value(json_object_get(data, "reason")), reason);
        json_decref(event);
    }
    kafka_log_free(log);
    return n;
}

static const char *type_of(const char *request)
{
    const char *from = strstr(request, ":\"") + 2;

    return text("%.*s", (int)strcspn(from, "\""), from);
}

/* A request that the table refuses is answered, with the reason, and changes nothing. */
START_TEST(every_illegal_request_is_rejected)
{
    char before[REFUSALS][64];

    for (int i = 0; i < REFUSALS; i++)
        snprintf(before[i], sizeof before[i], "%s", world_state(w, refusals[i].order));
    for (int i = 0; i < REFUSALS; i++)
        world_ask(w, refusals[i].order, refusals[i].request, refusals[i].order);
    world_settle(w, PATIENCE);
    for (int i = 0; i < REFUSALS; i++) {
        const struct refusal *r = &refusals[i];
        MUST_BE(rejections(r->order, type_of(r->request), r->reason), 1);
        MUST(same(world_state(w, r->order), before[i]), "%s: %s", r->order,
             world_state(w, r->order));
    }
}
END_TEST

/* An order stands as it was placed: the same again is nothing, another content is refused, in every
 * state. */
START_TEST(an_order_is_placed_once)
{
    static const char *const orders[] = {"happy", "declined", "shipped", "completed", NULL};

    for (const char *const *o = orders; *o; o++)
        world_place(w, *o, "apple 7 7", "tok_ok");
    world_place(w, "happy", "apple 2 150", "tok_ok");
    world_settle(w, PATIENCE);
    for (const char *const *o = orders; *o; o++)
        MUST_BE(rejections(*o, "PlaceOrder", "order_exists"), 1);
    MUST_BE(db_int(w->db, "select amount from orders where order_id = 'happy'"), 300);
}
END_TEST

/* ---- Time ---- */

/* The provider's books, held until they are let go: no charge is decided before. */
static struct db *hold_books(void)
{
    struct db *holder = db_new(w->database);

    db_run(holder, "begin; lock table payment_svc.ledger in share mode");
    return holder;
}

/* While the charge is under way: the order is cancelled all the same, and the money comes back, if
 * the provider answers at once, and if it does after the call's time. Nobody pays twice: an order
 * that is being charged refuses PayOrder. */
START_TEST(what_is_being_charged_can_be_cancelled_but_not_paid)
{
    static const struct path cancelled[] = {
        {"cancelled-charging", .order = CREATED " OrderCancelRequested OrderCancelled",
         .inventory = RETURNED, .payment = "PaymentRefunded"},
        {"cancelled-unsure", .order = CREATED " OrderCancelRequested OrderCancelled",
         .inventory = RETURNED, .payment = "PaymentRefunded"}};
    struct db *holder = hold_books();

    world_place(w, cancelled[0].name, "apple 1 150", "tok_ok");
    world_place(w, cancelled[1].name, "apple 1 150", "tok_slow_1500");
    world_place(w, "busy", "apple 1 150", "tok_ok");
    kafka_flush(5);
    for (int i = 0; i < 2; i++) {
        AWAIT(PATIENCE, same(world_state(w, cancelled[i].name), CHARGING));
        world_ask(w, cancelled[i].name, CANCEL, cancelled[i].name);
    }
    AWAIT(PATIENCE, same(world_state(w, "busy"), CHARGING));
    world_ask(w, "busy", PAY, "busy");
    kafka_flush(5);
    AWAIT(PATIENCE, db_int(w->db, "select count(*) from payment where cancel and order_id like "
                                  "'cancelled-%%' and state = 'CHARGING'") == 2);
    AWAIT(PATIENCE, rejections("busy", "PayOrder", "payment_in_progress") == 1);
    db_free(holder);
    world_settle(w, PATIENCE);
    MUST(same(world_state(w, "busy"), PAID), "%s", world_state(w, "busy"));
    for (int i = 0; i < 2; i++)
        MUST(same(world_state(w, cancelled[i].name), REFUNDED), "%s",
             world_state(w, cancelled[i].name));
    must_emit(cancelled, 2);
}
END_TEST

/* A customer may cancel at any moment: 200 orders, each cancelled a little later in its life, are
 * all cancelled, with no stock held and no money kept (the audit). */
START_TEST(an_order_can_be_cancelled_at_every_moment)
{
    enum { N = 200 };

    for (int i = 0; i < N; i++)
        world_place(w, text("moment-%d", i), "apple 1 10", i % 3 ? "tok_ok" : "tok_slow_30");
    for (int i = 0; i < N; i++) {
        const char *order = text("moment-%d", i);
        world_ask(w, order, CANCEL, order);
        if (i % 4 == 3)
            kafka_flush(5);
    }
    world_settle(w, PATIENCE);
    MUST_BE(db_int(w->db, "select count(*) from orders where order_id like 'moment-%%' and "
                          "state = 'CANCELLED'"),
            N);
}
END_TEST

/* Who pays before inventory has answered is charged once it has: PayOrder right behind PlaceOrder.
 */
START_TEST(paying_early_is_paying)
{
    enum { N = 100 };

    for (int i = 0; i < N; i++) {
        const char *order = text("early-%d", i);
        world_place(w, order, i % 5 ? "apple 1 10" : "none 1 10", "later");
        world_ask(w, order, PAY, order);
    }
    world_settle(w, PATIENCE);
    MUST_BE(db_int(w->db, "select count(*) from orders where order_id like 'early-%%' and "
                          "state = 'PAID'"),
            N - N / 5);
    MUST_BE(db_int(w->db, "select count(*) from payment where order_id like 'early-%%' and "
                          "state = 'VOIDED'"),
            N / 5);
}
END_TEST

/* What HTTP shows is what is. */
START_TEST(http_shows_orders_payments_stock)
{
    json_t *order, *payment, *stock;
    struct member *m[SERVICES];

    for (int s = 0; s < SERVICES; s++)
        m[s] = world_member(w, s, 0);
    MUST_BE(web_get(&order, "%s", world_url(m[ORDER], "/api/v1/orders/completed")), 200);
    MUST(same(json_string_value(json_object_get(order, "status")), "COMPLETED"), "order");
    MUST_BE(json_array_size(json_object_get(order, "history")), 4);
    MUST_BE(web_get(&payment, "%s", world_url(m[PAYMENT], "/api/v1/payments/refused-once")), 200);
    MUST(same(json_string_value(json_object_get(payment, "state")), "REFUNDED"), "payment");
    MUST_BE(web_get(&stock, "%s", world_url(m[INVENTORY], "/api/v1/inventory/few")), 200);
    MUST_BE(json_integer_value(json_object_get(stock, "available")), 2);
    MUST_BE(json_integer_value(json_object_get(stock, "reserved")), 1);
    MUST_BE(web_get(NULL, "%s", world_url(m[ORDER], "/api/v1/orders/nobody-1")), 404);
    json_decref(order);
    json_decref(payment);
    json_decref(stock);
}
END_TEST

/* An order that is not paid in time is cancelled, with a restart between: the deadline is in the
 * row. One that is charged at that moment is refunded. (Last: it changes settings.) */
START_TEST(an_unpaid_order_is_cancelled_in_time)
{
    static const char *const soon[] = {"SAGA_PAY_TIMEOUT=1500ms", "SAGA_CALL_TIMEOUT=5s", NULL};
    struct member *order = world_member(w, ORDER, 0), *payment = world_member(w, PAYMENT, 0);
    struct db *holder;

    w->settings = soon;
    world_stop(order);
    world_stop(payment);
    world_start(w, ORDER, 0);
    world_start(w, PAYMENT, 0);
    AWAIT(PATIENCE, world_is_ready(order) && world_is_ready(payment));
    holder = hold_books();
    world_place(w, "unpaid", "apple 1 10", "later");
    world_place(w, "unpaid-slow", "apple 1 10", "tok_ok");
    world_place(w, "paid-late", "apple 1 10", "later");
    kafka_flush(5);
    AWAIT(PATIENCE, db_int(w->db, "select count(*) from orders where order_id in"
                                  " ('unpaid', 'unpaid-slow', 'paid-late')") == 3);
    world_kill(order);
    world_start(w, ORDER, 0);
    AWAIT(PATIENCE, db_int(w->db, "select cancel::int from payment"
                                  " where order_id = 'unpaid-slow' and state = 'CHARGING'") == 1);
    db_free(holder);
    AWAIT(PATIENCE, same(world_state(w, "unpaid"), VOIDED));
    AWAIT(PATIENCE, same(world_state(w, "unpaid-slow"), REFUNDED));
    AWAIT(PATIENCE, same(world_state(w, "paid-late"), VOIDED));
    world_ask(w, "paid-late", PAY, "paid-late");
    world_settle(w, PATIENCE);
    MUST_BE(rejections("paid-late", "PayOrder", "cancelled"), 1);
    MUST(same(reason_of("unpaid"), "payment_timeout"), "%s", reason_of("unpaid"));
    MUST(same(reason_of("unpaid-slow"), "payment_timeout"), "%s", reason_of("unpaid-slow"));
}
END_TEST

/* No statement reads all rows of a table that grows with the orders, whatever PostgreSQL knew of the table when it
 * made the plan: an index gives one row, if any, for a key that it is asked for. */
START_TEST(rows_are_looked_up_by_their_keys)
{
    const char *much;

    for (int service = ORDER; service <= PAYMENT; service++)
        world_stop(world_member(w, service, 0)); /* which sends PostgreSQL's statistics home */
    much = db_text(
        w->db, "select string_agg(format('%%s: %%s rows for %%s keys', indexrelname, idx_tup_read,"
               "                         idx_scan), ', ')"
               "  from pg_stat_user_indexes"
               " where indexrelname in ('orders_pkey', 'reservation_pkey', 'payment_pkey')"
               "   and (idx_scan = 0 or idx_tup_read > 1.5 * idx_scan)");
    MUST(!much, "%s", much);
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

Suite *paths_suite(void)
{
    Suite *s = suite_create("paths");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, every_path_comes_to_its_end);
    tcase_add_test(t, every_path_emits_its_events);
    tcase_add_test(t, an_order_says_why_it_ended);
    tcase_add_test(t, a_refused_refund_is_tried_again);
    tcase_add_test(t, every_illegal_request_is_rejected);
    tcase_add_test(t, an_order_is_placed_once);
    tcase_add_test(t, what_is_being_charged_can_be_cancelled_but_not_paid);
    tcase_add_test(t, an_order_can_be_cancelled_at_every_moment);
    tcase_add_test(t, paying_early_is_paying);
    tcase_add_test(t, http_shows_orders_payments_stock);
    tcase_add_test(t, an_unpaid_order_is_cancelled_in_time);
    tcase_add_test(t, rows_are_looked_up_by_their_keys);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
