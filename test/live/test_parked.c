/* Orders of which something cannot be applied (DESIGN.md 4.7): they wait, with all that comes for
 * them later; others go on; redriven they end as if nothing had been. */
#include "suites.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lane.h"
#include "web.h"
#include "world.h"

enum { LANES = 3, PATIENCE = 20 };
#define TERM "1795513885123"

static struct world *w;

static void setup(void)
{
    w = world_new("parked", LANES, NULL);
    world_start_all(w);
    world_stock_load(w);
}

static void setup_soon(void) /* deadlines come soon */
{
    static const char *const settings[] = {"SAGA_PAY_TIMEOUT=2500ms", "SAGA_CALL_TIMEOUT=1s", NULL};

    w = world_new("parked2", LANES, settings);
    world_start_all(w);
    world_stock_load(w);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* The database refuses rows of a table for which the condition holds, as for a column that is too
 * narrow, until mended. */
static void refuse(const char *table, const char *condition)
{
    db_run(w->db, "alter table %s add constraint refused check (not (%s)) not valid", table,
           condition);
}

static void mended(const char *table)
{
    db_run(w->db, "alter table %s drop constraint refused", table);
}

/* Inputs of an order that are parked at a service, in order: "PlaceOrder CancelOrder". */
static const char *parked(int service, const char *order)
{
    return db_text(w->db,
                   "select coalesce(string_agg(input, ' ' order by n), '-') from %s_svc.parked "
                   "where key = '%s'",
                   service_names[service], order);
}

static void redrive(struct member *m, const char *order)
{
    json_t *answer;

    MUST_BE(web_post(&answer, world_url(m, text("/parked/%s/redrive", order)), NULL, "{}"), 202);
    json_decref(answer);
}

static void cancel(const char *order)
{
    world_ask(w, order, "{\"type\":\"CancelOrder\",\"order_id\":\"%s\",\"reason\":\"mind\"}",
              order);
    kafka_flush(5);
}

static bool is(const char *order, const char *state)
{
    return same(world_state(w, order), state);
}

/* Attack 36: of 500 orders that come at once the database refuses one. It is parked, the others are
 * done; redriven it goes its way. */
START_TEST(one_order_of_five_hundred_is_parked)
{
    refuse("inventory_svc.reservation", "order_id = 'many-250'");
    for (int i = 0; i < 500; i++)
        world_place(w, text("many-%d", i), "load-1 1 150", "tok_ok");
    world_settle(w, PATIENCE);
    MUST_BE(db_int(w->db, "select count(*) from orders where state = 'PAID'"), 499);
    MUST(is("many-250", "CREATED - -"), "%s", world_state(w, "many-250"));
    MUST(same(parked(INVENTORY, "many-250"), "OrderCreated"), "%s", parked(INVENTORY, "many-250"));
    MUST_BE(db_int(w->db, "select count(*) from inventory_svc.parked"), 1);
    mended("inventory_svc.reservation");
    redrive(world_member(w, INVENTORY, 0), "many-250");
    AWAIT(PATIENCE, is("many-250", "PAID HELD COMPLETED"));
    MUST_BE(db_int(w->db, "select count(*) from inventory_svc.parked"), 0);
}
END_TEST

/* Attack 35: the deadline, a request and, at payment-svc, the provider's answer come while their
 * order is parked. Redriven all is applied in the order in which it came. */
START_TEST(what_comes_later_waits_behind)
{
    refuse("orders", "order_id = 'wait' and state = 'PAID'");
    world_place(w, "wait", "load-2 1 150", "tok_ok");
    AWAIT(PATIENCE, same(parked(ORDER, "wait"), "PaymentCompleted"));
    cancel("wait");
    AWAIT(PATIENCE, same(parked(ORDER, "wait"), "PaymentCompleted CancelOrder"));
    AWAIT(PATIENCE, db_int(w->db, "select count(*) from orders where order_id = 'wait' and "
                                  "due < now() - interval '1.5s'") == 1);
    MUST(is("wait", "CREATED HELD COMPLETED"), "the deadline did not wait: %s",
         world_state(w, "wait"));
    MUST(same(parked(ORDER, "wait"), "PaymentCompleted CancelOrder"), "%s", parked(ORDER, "wait"));
    mended("orders");
    redrive(world_member(w, ORDER, 0), "wait");
    AWAIT(PATIENCE, is("wait", "CANCELLED RELEASED REFUNDED"));
    world_settle(w, PATIENCE);
    MUST(same(world_history(kafka_read(world_topic(w, "order.events")), "wait"),
              "OrderCreated OrderPaid OrderCancelRequested OrderCancelled"),
         "%s", world_history(kafka_read(world_topic(w, "order.events")), "wait"));

    refuse("payment", "order_id = 'answer' and state = 'COMPLETED'");
    world_place(w, "answer", "load-2 1 150", "tok_ok");
    AWAIT(PATIENCE, same(parked(PAYMENT, "answer"), "charge_succeeded"));
    AWAIT(PATIENCE, is("answer", "CANCELLING HELD CHARGING"));
    AWAIT(PATIENCE, same(parked(PAYMENT, "answer"), "charge_succeeded OrderCancelRequested"));
    mended("payment");
    redrive(world_member(w, PAYMENT, 0), "answer");
    AWAIT(PATIENCE, is("answer", "CANCELLED RELEASED REFUNDED"));
    MUST_BE(db_int(w->db, "select count(*) from payment_svc.ledger where key like '%%answer%%' and "
                          "reason is null"),
            2);
}
END_TEST

/* What waits behind a parked input is not decided, though its lane has read on: nobody is told that it was. */
START_TEST(who_asks_of_a_parked_order_is_told_that_it_waits)
{
    static const char *const wait[] = {"Prefer: wait=1", NULL};
    json_t *answer;

    world_place(w, "held", "load-2 1 150", "tok_ok");
    AWAIT(PATIENCE, is("held", "PAID HELD COMPLETED"));
    refuse("orders", "order_id = 'held' and state = 'SHIPPED'");
    world_ask(w, "held", "{\"type\":\"ShipOrder\",\"order_id\":\"held\"}");
    kafka_flush(5);
    AWAIT(PATIENCE, same(parked(ORDER, "held"), "ShipOrder"));
    MUST_BE(web_post(&answer, world_url(world_member(w, ORDER, 0), "/api/v1/orders/held/cancel"),
                     wait, "{}"),
            202);
    json_decref(answer);
    AWAIT(PATIENCE, same(parked(ORDER, "held"), "ShipOrder CancelOrder"));
    mended("orders");
    redrive(world_member(w, ORDER, 0), "held");
    AWAIT(PATIENCE, is("held", "SHIPPED SHIPPED COMPLETED"));
}
END_TEST

/* Attack 36, of what is no record: of many deadlines that come at once the database refuses one. It alone
 * waits. */
START_TEST(one_deadline_of_many_is_parked)
{
    refuse("orders", "order_id = 'unpaid-20' and state = 'CANCELLING'");
    for (int i = 0; i < 50; i++)
        world_place(w, text("unpaid-%d", i), "load-1 1 150", "later");
    kafka_flush(5);
    AWAIT(PATIENCE, db_int(w->db, "select count(*) from orders where order_id like 'unpaid-%%' and "
                                  "state = 'CANCELLED'") == 49);
    AWAIT(PATIENCE, same(parked(ORDER, "unpaid-20"), "due"));
    MUST_BE(db_int(w->db, "select count(*) from order_svc.parked"), 1);
    mended("orders");
    redrive(world_member(w, ORDER, 0), "unpaid-20");
    AWAIT(PATIENCE, db_int(w->db, "select count(*) from orders where order_id = 'unpaid-20' and "
                                  "state = 'CANCELLED'") == 1);
    world_settle(w, PATIENCE);
}
END_TEST

/* Attack 36, of what is in memory only: of many answers that come at once the database refuses one. The
 * others are stored, and no call is made a second time. */
START_TEST(one_answer_of_many_is_parked)
{
    refuse("payment", "order_id = 'slow-20' and state = 'COMPLETED'");
    for (int i = 0; i < 50; i++)
        world_place(w, text("slow-%d", i), "load-1 1 150", "tok_slow_300");
    kafka_flush(5);
    AWAIT(PATIENCE, same(parked(PAYMENT, "slow-20"), "charge_succeeded"));
    AWAIT(PATIENCE, db_int(w->db, "select count(*) from orders where order_id like 'slow-%%' and "
                                  "state = 'PAID'") == 49);
    MUST_BE(
        db_int(w->db, "select count(*) from payment where order_id like 'slow-%%' and calls > 1"),
        0);
    MUST_BE(db_int(w->db, "select count(*) from payment_svc.parked"), 1);
    AWAIT(PATIENCE, /* what others were to be called again for goes, though one is parked */
          db_int(w->db, "select count(*) from payment_svc.due where 'slow-20' <> all(keys)") == 0);
    MUST_BE(db_int(w->db, "select count(*) from payment_svc.due"), 1);
    mended("payment");
    redrive(world_member(w, PAYMENT, 0), "slow-20");
    AWAIT(PATIENCE, is("slow-20", "PAID HELD COMPLETED"));
}
END_TEST

/* What is parked is known after a crash, and by whoever is asked. An input that fails again keeps its
 * place and its newcomers. */
START_TEST(parked_orders_survive_a_crash)
{
    refuse("orders", "order_id = 'crash' and state = 'PAID'");
    world_place(w, "crash", "load-3 1 150", "tok_ok");
    AWAIT(PATIENCE, same(parked(ORDER, "crash"), "PaymentCompleted"));
    world_kill(world_member(w, ORDER, 0));
    cancel("crash");
    world_start(w, ORDER, 0);
    AWAIT(PATIENCE, same(parked(ORDER, "crash"), "PaymentCompleted CancelOrder"));
    redrive(world_member(w, ORDER, 0), "crash"); /* it is still refused */
    AWAIT(PATIENCE, db_int(w->db, "select count(*) from parked where mark is not null") == 0);
    MUST(same(parked(ORDER, "crash"), "PaymentCompleted CancelOrder"), "%s",
         parked(ORDER, "crash"));
    world_start(w, ORDER, 1);
    AWAIT(PATIENCE, world_is_whole(w));
    MUST(strstr(shell("ORDER_URL=%s INVENTORY_URL=%s PAYMENT_URL=%s sagactl parked list",
                      world_url(world_member(w, ORDER, 0), ""),
                      world_url(world_member(w, INVENTORY, 0), ""),
                      world_url(world_member(w, PAYMENT, 0), "")),
                "PaymentCompleted: database: new row"),
         "not listed");
    mended("orders");
    MUST(strstr(shell("ORDER_URL=%s INVENTORY_URL=%s PAYMENT_URL=%s sagactl parked "
                      "redrive --all",
                      world_url(world_member(w, ORDER, 1), ""),
                      world_url(world_member(w, INVENTORY, 0), ""),
                      world_url(world_member(w, PAYMENT, 0), "")),
                "order-svc: 2 inputs of order crash are to be redriven"),
         "not redriven");
    AWAIT(PATIENCE, is("crash", "CANCELLED RELEASED REFUNDED"));
    world_stop(world_member(w, ORDER, 1));
    AWAIT(PATIENCE, world_is_whole(w));
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

/* ---- inventory-svc alone: order-svc is played by the test ---- */

static struct member *inventory;
static int seq; /* of the newest event */

static void setup_alone(void)
{
    seq = 0;
    w = world_new("parked1", 1, NULL);
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(inventory));
    world_stock(w, "apple", 1000);
}

/* The next event of order-svc's lane 0. */
static void event(const char *type, const char *order, const char *data)
{
    seq++;
    kafka_send(&(struct kafka_record){
        .topic = world_topic(w, "order.events"),
        .partition = 0,
        .key = order,
        .value =
            text("{\"specversion\":\"1.0\",\"id\":\"0.%d." TERM "\",\"source\":\"/order-svc\","
                 "\"type\":\"%s\",\"subject\":\"%s\",\"time\":\"2026-11-24T13:31:25.123Z\","
                 "%s\"causationid\":\"order.requests/0/1\",\"data\":{\"order_id\":\"%s\"%s}}",
                 seq, type, order,
                 seq > 1 ? text("\"previousid\":\"0.%d." TERM "\",", seq - 1) : "", order, data)});
}

#define CREATED(quantity)                                                                          \
    ",\"customer_id\":\"ann\",\"currency\":\"EUR\",\"amount\":150,\"lines\":[{\"sku\":\"apple\","  \
    "\"quantity\":" quantity ",\"unit_price\":150}],\"payment\":{\"mode\":\"now\",\"token\":"      \
    "\"tok_ok\"}"

static const char *reservation(const char *order)
{
    return db_text(w->db, "select state from inventory_svc.reservation where order_id = '%s'",
                   order);
}

/* Attack 22: an event of our own with a good envelope and data that is refused; and one that RULES.md
 * calls impossible. Both are parked with their orders, and the chain goes on. */
START_TEST(what_is_refused_or_impossible_is_parked)
{
    event("OrderCreated", "refused", CREATED("0"));
    event("OrderCreated", "good-1", CREATED("1"));
    event("OrderShipped", "impossible", "");
    event("OrderShipped", "refused", "");
    event("OrderCreated", "good-2", CREATED("1"));
    kafka_flush(5);
    AWAIT(PATIENCE, same(reservation("good-2"), "HELD"));
    MUST(same(reservation("good-1"), "HELD"), "%s", reservation("good-1"));
    MUST(same(parked(INVENTORY, "refused"), "OrderCreated OrderShipped"), "%s",
         parked(INVENTORY, "refused"));
    MUST(same(parked(INVENTORY, "impossible"), "OrderShipped"), "%s",
         parked(INVENTORY, "impossible"));
    MUST(strstr(db_text(w->db, "select reason from inventory_svc.parked where key = 'refused' "
                               "order by n limit 1"),
                "data.lines[0].quantity: 0 is below 1"),
         "reason");
    MUST(
        strstr(db_text(w->db,
                       "select coalesce(value, '') from inventory_svc.parked where key = 'refused' "
                       "order by n limit 1"),
               "\"quantity\":0"),
        "value");
    redrive(inventory, "refused"); /* nothing is mended */
    AWAIT(PATIENCE, db_int(w->db, "select count(*) from inventory_svc.parked where mark is not "
                                  "null") == 0);
    MUST(same(parked(INVENTORY, "refused"), "OrderCreated OrderShipped"), "%s",
         parked(INVENTORY, "refused"));
    db_run(w->db, "update inventory_svc.parked set value = replace(value, '\"quantity\":0', "
                  "'\"quantity\":1') where key = 'refused'");
    redrive(inventory, "refused");
    AWAIT(PATIENCE, same(parked(INVENTORY, "refused"), "-"));
    MUST(same(reservation("refused"), "SHIPPED"), "%s", reservation("refused"));
    MUST_BE(proc_count(inventory->proc, "parked again"), 1); /* what nobody has marked waits */
}
END_TEST

/* An operator may give up what waits: the order goes on without it. */
START_TEST(parked_inputs_can_be_dropped)
{
    json_t *answer;

    event("OrderShipped", "given-up", "");
    event("OrderShipped", "kept", "");
    kafka_flush(5);
    AWAIT(PATIENCE, same(parked(INVENTORY, "kept"), "OrderShipped"));
    MUST_BE(web_post(&answer, world_url(inventory, "/parked/given-up/drop"), NULL, "{}"), 202);
    json_decref(answer);
    AWAIT(PATIENCE, same(parked(INVENTORY, "given-up"), "-"));
    MUST(same(parked(INVENTORY, "kept"), "OrderShipped"), "another order's was dropped, too");
    event("OrderCreated", "given-up", CREATED("1"));
    kafka_flush(5);
    AWAIT(PATIENCE, same(reservation("given-up"), "HELD"));
    AWAIT(PATIENCE, atoll(shell("curl -s '%s' | sed -n 's/^saga_parked_orders //p'",
                                world_url(inventory, "/metrics"))) ==
                        db_int(w->db, "select count(distinct key) from inventory_svc.parked"));
    MUST_BE(web_post(&answer, world_url(inventory, "/parked/given-up/drop"), NULL, "{}"), 404);
    json_decref(answer);
}
END_TEST

/* An input that comes while its order is redriven, and is in the very batch that takes the last of what
 * was marked, is redriven after it. */
START_TEST(a_newcomer_is_redriven_behind_the_others)
{
    int64_t ends[1];
    struct db *person = db_new(w->database);

    event("OrderCreated", "same", CREATED("0"));
    kafka_flush(5);
    AWAIT(PATIENCE, same(parked(INVENTORY, "same"), "OrderCreated"));
    db_run(person, "begin; update inventory_svc.parked set mark = 'redrive',"
                   " value = replace(value, '\"quantity\":0', '\"quantity\":1') where key = 'same';"
                   "lock table inventory_svc.parked in access exclusive mode");
    AWAIT(PATIENCE, db_int(w->db,
                           "select count(*) from pg_stat_activity where datname = '%s' and "
                           "application_name = 'inventory-svc' and wait_event_type = 'Lock'",
                           w->database) == 1);
    event("OrderShipped", "same", "");
    kafka_flush(5);
    kafka_ends(world_topic(w, "order.events"), 1, ends); /* inventory-svc has it, too, by now */
    db_run(person, "commit");
    db_free(person);
    AWAIT(PATIENCE, same(reservation("same"), "SHIPPED"));
    MUST(same(parked(INVENTORY, "same"), "-"), "%s", parked(INVENTORY, "same"));
}
END_TEST

/* COMMIT of a batch that parks fails: nothing of it remains in memory, the order is parked once, and for
 * its own reason. */
START_TEST(commit_can_fail_while_parking)
{
    db_run(w->db,
           "create sequence inventory_svc.parkings;"
           "create function inventory_svc.fail() returns trigger language plpgsql as $$ begin"
           " if nextval('inventory_svc.parkings') <= 2 then"
           "   raise exception 'as the test wants it' using errcode = '40001'; end if;"
           " return null; end $$;"
           "create constraint trigger fail after insert on inventory_svc.parked deferrable"
           " initially deferred for each row execute function inventory_svc.fail()");
    event("OrderShipped", "commit", "");
    kafka_flush(5);
    AWAIT(PATIENCE, same(parked(INVENTORY, "commit"), "OrderShipped"));
    MUST(db_int(w->db, "select last_value from inventory_svc.parkings") > 2, "no COMMIT failed");
    const char *reason =
        db_text(w->db, "select reason from inventory_svc.parked where key = 'commit'");
    MUST(!strstr(reason, "its order is parked"), "%s", reason);
    db_run(w->db, "drop function inventory_svc.fail cascade");
}
END_TEST

Suite *parked_suite(void)
{
    Suite *s = suite_create("parked");
    TCase *t = tcase_create("all"), *soon = tcase_create("soon"), *alone = tcase_create("alone");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, one_order_of_five_hundred_is_parked);
    tcase_add_test(t, who_asks_of_a_parked_order_is_told_that_it_waits);
    tcase_add_test(t, one_answer_of_many_is_parked);
    tcase_add_test(t, parked_orders_survive_a_crash);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    tcase_add_unchecked_fixture(soon, setup_soon, teardown);
    tcase_add_test(soon, what_comes_later_waits_behind);
    tcase_add_test(soon, one_deadline_of_many_is_parked);
    tcase_add_test(soon, it_all_balances);
    suite_add_tcase(s, soon);
    tcase_add_unchecked_fixture(alone, setup_alone, teardown);
    tcase_add_test(alone, what_is_refused_or_impossible_is_parked);
    tcase_add_test(alone, parked_inputs_can_be_dropped);
    tcase_add_test(alone, a_newcomer_is_redriven_behind_the_others);
    tcase_add_test(alone, commit_can_fail_while_parking);
    suite_add_tcase(s, alone);
    return s;
}
