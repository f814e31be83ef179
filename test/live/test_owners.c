/* Several processes of a service: they share the lanes, lose them and get them back, are paused,
 * come and go; in the middle of a load. */
#include "suites.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "web.h"
#include "world.h"

enum { LANES = 12, ORDERS = 1000, PATIENCE = 40 };

static struct world *w;

static void setup(void)
{
    w = world_new("owners", LANES, NULL);
    world_start_all(w);
    world_stock_load(w);
    for (int s = 0; s < SERVICES; s++)
        world_start(w, s, 1);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static int64_t ended(const char *name)
{
    return db_int(w->db,
                  "select count(*) from orders where order_id ~ '^%s-[0-9]+$' and state in "
                  "('PAID', 'CANCELLED')",
                  name);
}

static int64_t lanes_of(struct member *m)
{
    json_t *answer = NULL;

    if (web_get(&answer, "%s", world_url(m, "/lanes")) != 200)
        return -1;
    int64_t n = 0;
    size_t i;
    json_t *lane;
    json_array_foreach(json_object_get(answer, "lanes"), i, lane) n +=
        same(json_string_value(json_object_get(lane, "state")), "running");
    json_decref(answer);
    return n;
}

static bool are_shared(void)
{
    for (int s = 0; s < SERVICES; s++)
        for (int number = 0; number < 2; number++)
            if (lanes_of(world_member(w, s, number)) != LANES / 2)
                return false;
    return true;
}

static void all_well(const char *name, int n)
{
    world_settle(w, PATIENCE);
    world_loaded(w, name, n);
}

/* Two processes of each service have half of the lanes each, and do the work of one. */
START_TEST(two_processes_share_the_lanes)
{
    AWAIT(PATIENCE, are_shared());
    world_load(w, "shared", 0, ORDERS);
    all_well("shared", ORDERS);
}
END_TEST

/* A process stopped (SIGSTOP) for longer than the session time-out loses its lanes to the other.
 * When it goes on, with whatever it had in its hands, it does no harm (attacks 2, 4), and gets its
 * share again. */
static void pause_under_load(int service)
{
    struct member *paused = world_member(w, service, 1), *other = world_member(w, service, 0);
    char name[32];

    snprintf(name, sizeof name, "pause-%s", service_names[service]);
    world_load(w, name, 0, ORDERS);
    kafka_flush(10);
    AWAIT(PATIENCE, ended(name) > 0);
    proc_signal(paused->proc, SIGSTOP);
    AWAIT(PATIENCE, lanes_of(other) == LANES);
    world_load(w, name, ORDERS, ORDERS + 200);
    kafka_flush(10);
    AWAIT(PATIENCE, ended(name) == ORDERS + 200);
    proc_signal(paused->proc, SIGCONT);
    AWAIT(PATIENCE, are_shared());
    all_well(name, ORDERS + 200);
}

START_TEST(order_svc_can_be_paused)
{
    pause_under_load(ORDER);
}
END_TEST

START_TEST(inventory_svc_can_be_paused)
{
    pause_under_load(INVENTORY);
}
END_TEST

START_TEST(payment_svc_can_be_paused)
{
    pause_under_load(PAYMENT);
}
END_TEST

/* Attacks 2, 3: an owner is paused inside its transaction, with lanes and stock locked. Its session is
 * ended by him who needs the rows; when it goes on nothing of that transaction remains. */
START_TEST(an_owner_paused_inside_its_transaction_is_ended)
{
    struct member *paused = world_member(w, INVENTORY, 1), *other = world_member(w, INVENTORY, 0);
    struct db *person = db_new(w->database);

    db_run(person, "begin; select from stock where sku like 'load-%%' order by sku for update");
    world_load(w, "inside", 0, ORDERS);
    kafka_flush(10);
    AWAIT(PATIENCE, db_int(w->db,
                           "select count(distinct pid) from pg_stat_activity where datname = '%s' "
                           "and application_name = 'inventory-svc' and wait_event_type = 'Lock'",
                           w->database) == 2);
    proc_signal(paused->proc, SIGSTOP);
    db_run(person, "commit");
    db_free(person);
    AWAIT(PATIENCE, lanes_of(other) == LANES && ended("inside") == ORDERS);
    MUST(proc_said(other->proc, "ended sessions of a silent owner"), "nobody was ended");
    proc_signal(paused->proc, SIGCONT);
    AWAIT(PATIENCE, are_shared());
    all_well("inside", ORDERS);
}
END_TEST

/* A process that has been expelled (stopped for longer than the session time-out) is alone when it goes
 * on, as the one that had taken its lanes leaves: it owns them all again, and goes on. */
START_TEST(an_expelled_process_is_left_alone)
{
    struct member *paused = world_member(w, PAYMENT, 1), *other = world_member(w, PAYMENT, 0);

    world_load(w, "expelled", 0, ORDERS);
    kafka_flush(10);
    AWAIT(PATIENCE, ended("expelled") > 0);
    proc_signal(paused->proc, SIGSTOP);
    AWAIT(PATIENCE, lanes_of(other) == LANES);
    proc_signal(paused->proc, SIGCONT);
    world_stop(other);
    AWAIT(PATIENCE, lanes_of(paused) == LANES);
    world_load(w, "expelled", ORDERS, ORDERS + 200);
    all_well("expelled", ORDERS + 200);
    MUST(proc_alive(paused->proc), "it has ended");
    world_start(w, PAYMENT, 0);
    AWAIT(PATIENCE, are_shared());
}
END_TEST

/* A member that finds itself fenced, though no other process is there to stay, joins the group again: once
 * in a minute, and with the lanes that it had. */
START_TEST(a_fenced_process_joins_again)
{
    struct member *fenced = world_member(w, PAYMENT, 0);

    world_load(w, "fenced", 0, ORDERS);
    kafka_flush(10);
    AWAIT(PATIENCE, ended("fenced") > 0);
    struct kafka_twin *twin =
        kafka_twin(text("%spayment-svc", w->prefix), "payment-0", world_topic(w, "order.events"));
    AWAIT(PATIENCE, kafka_twin_fenced(twin));
    kafka_twin_free(twin);
    MUST(proc_said(fenced->proc, "fenced: joining the group again"), "it was not fenced");
    AWAIT(PATIENCE, are_shared());
    world_load(w, "fenced", ORDERS, ORDERS + 200);
    all_well("fenced", ORDERS + 200);
    MUST(proc_alive(fenced->proc), "it has ended");
}
END_TEST

/* A static member that comes back is given what its name had, whatever that one subscribed (KAFKA-12759):
 * an earlier version, say. Given no lane it asks for its share until it has it. */
static void comes_back_after(const char *first, const char *second)
{
    const char *both[] = {world_topic(w, first), second ? world_topic(w, second) : NULL, NULL};

    world_kill(world_member(w, PAYMENT, 0));
    struct kafka_twin *other =
        kafka_twin(text("%spayment-svc", w->prefix), "payment-0", world_topic(w, "payment.events"));
    AWAIT(PATIENCE, kafka_twin_has(other, world_topic(w, "inventory.events")));
    kafka_twin_subscribe(other, both);
    AWAIT(PATIENCE, kafka_twin_has(other, world_topic(w, first)));
    world_start(w, PAYMENT, 0);
    AWAIT(PATIENCE, kafka_twin_fenced(other));
    kafka_twin_free(other);
    AWAIT(PATIENCE, are_shared());
}

START_TEST(a_name_that_had_no_lane_gets_its_share)
{
    AWAIT(PATIENCE, are_shared());
    comes_back_after("order.events", NULL);
    comes_back_after("order.dlq", "payment.dlq");
    world_load(w, "share", 0, 200);
    all_well("share", 200);
}
END_TEST

/* A process more than there are lanes is given none and asks for none: it waits for the others' end. */
START_TEST(a_spare_only_looks)
{
    struct world *few = world_new("spare", 1, NULL);
    struct member *owner = world_start(few, PAYMENT, 0), *spare;

    AWAIT(PATIENCE, lanes_of(owner) == 1);
    spare = world_start(few, PAYMENT, 1);
    AWAIT(PATIENCE,
          proc_said(spare->proc, "given no lane") || proc_said(owner->proc, "given no lane"));
    MUST_BE(proc_count(spare->proc, "assign them anew") +
                proc_count(owner->proc, "assign them anew"),
            0);
    world_free(few);
}
END_TEST

/* Attack 9: lanes that stay with a process through a rebalance are kept as they are: their term is
 * not raised, nothing is sent again. */
START_TEST(a_lane_that_stays_is_kept)
{
    struct member *stays = world_member(w, INVENTORY, 0);
    const char *terms = "select string_agg(term::text, ' ' order by lane) from inventory_svc.lane"
                        " where lane < 4";
    char before[200];

    snprintf(before, sizeof before, "%s", db_text(w->db, "%s", terms));
    int kept = proc_count(stays->proc, "lane kept");
    world_start(w, INVENTORY, 2);
    AWAIT(PATIENCE, lanes_of(stays) == 4 && world_is_whole(w));
    MUST(same(db_text(w->db, "%s", terms), before), "terms were %s, are %s", before,
         db_text(w->db, "%s", terms));
    MUST_BE(proc_count(stays->proc, "lane kept") - kept, 4);
    world_kill(world_member(w, INVENTORY, 2));
    AWAIT(PATIENCE, world_is_whole(w));
}
END_TEST

/* Attack 7: processes come and go for ten seconds, of every service, in a load: no gap, no double
 * effect, and then it goes on at its pace. */
START_TEST(processes_come_and_go)
{
    int64_t until = test_now() + 10000000;
    int sent = 0;

    for (int round = 0; test_now() < until; round++) {
        for (int s = 0; s < SERVICES; s++) {
            struct member *m = world_member(w, s, 1);
            if (m->proc && (round + s) % 2)
                world_kill(m);
            else if (m->proc)
                world_stop(m);
            else
                world_start(w, s, 1);
            world_load(w, "turns", sent, sent + 100);
            kafka_flush(10);
            sent += 100;
            AWAIT(PATIENCE, ended("turns") > sent / 2);
        }
    }
    for (int s = 0; s < SERVICES; s++)
        if (!world_member(w, s, 1)->proc)
            world_start(w, s, 1);
    all_well("turns", sent);
    AWAIT(PATIENCE, are_shared());
}
END_TEST

/* Attack 39: two processes reserve the same two SKUs, in one order and the other, while people set
 * their stock: no deadlock, no lost update. */
START_TEST(stock_is_set_while_two_processes_reserve_it)
{
    enum { N = 1200 };

    world_stock(w, "left", 1000000);
    world_stock(w, "right", 1000000);
    for (int i = 0; i < N; i++)
        world_place(w, text("both-%d", i), i % 2 ? "left 1 1, right 2 1" : "right 2 1, left 1 1",
                    i % 7 ? "tok_ok" : "tok_declined");
    kafka_flush(10);
    for (int i = 0; ended("both") < N; i++) {
        const char *sku = i % 2 ? "left" : "right";
        int number = i / 2 % 2;
        long status =
            web_post(NULL, world_url(world_member(w, INVENTORY, number), "/api/v1/inventory"), NULL,
                     text("{\"sku\":\"%s\",\"quantity\":%d}", sku, 1000000 + i));
        MUST_BE(status, 200);
    }
    world_settle(w, PATIENCE);
    MUST_BE(db_int(w->db, "select count(*) from orders where order_id like 'both-%%' and state = "
                          "'PAID'"),
            N - (N + 6) / 7);
    for (int number = 0; number < 2; number++)
        MUST(!proc_said(world_member(w, INVENTORY, number)->proc, "deadlock"), "a deadlock");
}
END_TEST

/* Attack 11: two processes with one SAGA_INSTANCE: one goes, and says why; the other goes on. */
START_TEST(one_of_two_with_the_same_instance_ends)
{
    struct member *twin = world_start(w, PAYMENT, 7), *first = world_member(w, PAYMENT, 1);
    struct proc *twin_proc;

    AWAIT(PATIENCE, world_is_ready(twin));
    world_kill(twin);
    twin->number = 1; /* started again under the other's name */
    first->number = 7;
    twin = world_start(w, PAYMENT, 1);
    first->number = 1;
    twin->number = 7;
    twin_proc = twin->proc;
    AWAIT(PATIENCE, !proc_alive(twin_proc) || !proc_alive(first->proc));
    struct member *gone = proc_alive(twin_proc) ? first : twin;
    MUST_BE(proc_wait(gone->proc, 5), 70);
    MUST(proc_said(gone->proc, "another process has SAGA_INSTANCE=payment-1"),
         "it does not say why");
    world_kill(gone);
    world_load(w, "twin", 0, 100);
    AWAIT(PATIENCE, world_is_whole(w));
    all_well("twin", 100);
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

Suite *owners_suite(void)
{
    Suite *s = suite_create("owners");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, two_processes_share_the_lanes);
    tcase_add_test(t, order_svc_can_be_paused);
    tcase_add_test(t, inventory_svc_can_be_paused);
    tcase_add_test(t, payment_svc_can_be_paused);
    tcase_add_test(t, an_owner_paused_inside_its_transaction_is_ended);
    tcase_add_test(t, an_expelled_process_is_left_alone);
    tcase_add_test(t, a_fenced_process_joins_again);
    tcase_add_test(t, a_name_that_had_no_lane_gets_its_share);
    tcase_add_test(t, a_spare_only_looks);
    tcase_add_test(t, a_lane_that_stays_is_kept);
    tcase_add_test(t, processes_come_and_go);
    tcase_add_test(t, stock_is_set_while_two_processes_reserve_it);
    tcase_add_test(t, one_of_two_with_the_same_instance_ends);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
