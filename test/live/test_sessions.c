/* What the database does to us in the middle of a load: sessions ended, COMMITs refused, locks and lanes
 * taken from under their owners. Whatever happens, each order comes to its end, once. */
#include "suites.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "lane.h"
#include "web.h"
#include "world.h"

enum { LANES = 12, ORDERS = 1000, PATIENCE = 40 };

static struct world *w;

static void setup(void)
{
    w = world_new("sessions", LANES, NULL);
    world_start_all(w);
    world_stock_load(w);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* Orders of a load that are at their end. */
static int64_t ended(const char *name)
{
    return db_int(w->db,
                  "select count(*) from orders where order_id ~ '^%s-[0-9]+$' and state in "
                  "('PAID', 'CANCELLED')",
                  name);
}

/* A load of which the last part is sent when something has happened to the first. */
static void start_load(const char *name)
{
    world_load(w, name, 0, ORDERS);
    kafka_flush(10);
}

static void all_well(const char *name)
{
    world_settle(w, PATIENCE);
    world_loaded(w, name, ORDERS);
    for (int i = 0; i < w->members; i++)
        MUST(!w->member[i].proc || !proc_said(w->member[i].proc, "Assertion"), "assertion failed");
}

/* ---- Sessions and transactions ---- */

/* Attack 10: sessions are ended by the administrator, in whatever they are doing. */
START_TEST(sessions_can_be_terminated)
{
    start_load("session");
    for (int k = 1; k <= 8; k++) {
        AWAIT(PATIENCE, ended("session") > ORDERS / 10 * k);
        db_run(w->db,
               "select pg_terminate_backend(pid) from pg_stat_activity where datname = '%s' and "
               "application_name like '%%-svc'",
               w->database);
    }
    all_well("session");
}
END_TEST

/* Nobody who asks by HTTP hears of a session that was ended while it had nothing to do. */
START_TEST(sessions_end_unseen_by_people)
{
    const char *url = world_url(world_member(w, INVENTORY, 0), "/api/v1/inventory");
    const char *idle = text("from pg_stat_activity where datname = '%s' and "
                            "application_name = 'inventory-svc' and state = 'idle'",
                            w->database);

    for (int i = 0; i < 8; i++)
        MUST_BE(web_get(NULL, "%s", url), 200);
    const char *newest = text("%s", db_text(w->db, "select max(backend_start) %s", idle));
    db_run(w->db, "select pg_terminate_backend(pid) %s", idle);
    AWAIT(PATIENCE,
          db_int(w->db, "select count(*) %s and backend_start <= '%s'", idle, newest) == 0);
    for (int i = 0; i < 8; i++)
        MUST_BE(web_get(NULL, "%s", url), 200);
}
END_TEST

/* Attack 10: COMMIT itself fails, for one cause after the other; the same batch is run again. Attack
 * 36: also if its content is what is wrong, time and again. COMMIT is not the service's, so no order
 * is to blame. */
START_TEST(commit_can_fail)
{
    int lost[SERVICES];

    static const char *const make =
        "create sequence %1$s_svc.commits;"
        "create function %1$s_svc.fail() returns trigger language plpgsql as $$"
        "declare n bigint := nextval('%1$s_svc.commits');"
        "begin"
        "    if n between 3 and 8 then"
        "        raise unique_violation;"
        "    elsif n %% 3 = 2 then"
        "        raise exception 'as the test wants it' using errcode ="
        "            (array['40001', '40P01', '53100', '57014'])[n / 3 %% 4 + 1];"
        "    end if;"
        "    return null;"
        "end $$;"
        "create constraint trigger fail after insert on %1$s_svc.outbox_%2$d deferrable initially"
        " deferred for each row execute function %1$s_svc.fail()";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    for (int s = 0; s < SERVICES; s++)
        db_run(w->db, make, service_names[s],
               (int)db_int(w->db, "select slot from %s_svc.outbox_current", service_names[s]));
#pragma GCC diagnostic pop
    for (int s = 0; s < SERVICES; s++)
        lost[s] = proc_count(world_member(w, s, 0)->proc, "lane lost");
    for (int i = 0; i < ORDERS; i += ORDERS / 10) { /* at least so many batches */
        world_load(w, "commit", i, i + ORDERS / 10);
        kafka_flush(PATIENCE);
        AWAIT(PATIENCE, ended("commit") == i + ORDERS / 10);
    }
    all_well("commit");
    for (int s = 0; s < SERVICES; s++) {
        const char *name = service_names[s];
        MUST(db_int(w->db, "select last_value from %s_svc.commits", name) > 12,
             "%s-svc: hardly any COMMIT failed", name);
        MUST_BE(proc_count(world_member(w, s, 0)->proc, "lane lost"),
                lost[s]); /* memory was right */
        db_run(w->db, "drop function %s_svc.fail cascade; drop sequence %s_svc.commits", name,
               name);
    }
}
END_TEST

/* Attack 3: a former owner is stopped while it holds the rows of a lane and of stock. Whoever needs
 * them ends its session, after SAGA_LOCK_WAIT (1 s here), and the lanes go on. */
START_TEST(a_silent_owner_of_locks_is_ended)
{
    struct db *silent = db_new(w->database);

    db_run(silent, "set application_name = 'inventory-svc'");
    db_run(silent, "begin; select from inventory_svc.lane where lane in (1, 5) for update;"
                   "select from inventory_svc.stock where sku = 'load-3' for update");
    start_load("locks");
    all_well("locks");
    MUST(db_lost(silent), "the session that held the locks is still there");
    db_free(silent);
}
END_TEST

/* Not so a session that is no former owner's: a person's, in psql, is waited for. */
START_TEST(a_session_of_others_is_not_ended)
{
    struct db *person = db_new(w->database);

    db_run(person, "begin; select from inventory_svc.stock where sku = 'load-3' for update");
    world_place(w, "patient", "load-3 1 150", "tok_ok");
    kafka_flush(5);
    AWAIT(PATIENCE, db_int(w->db,
                           "select count(*) from pg_stat_activity where datname = '%s' and "
                           "wait_event_type = 'Lock' and query_start < now() - interval '3s'",
                           w->database) > 0);
    MUST(!db_lost(person), "a person's session was ended");
    db_run(person, "commit");
    db_free(person);
    world_settle(w, PATIENCE);
    MUST(same(world_state(w, "patient"), "PAID HELD COMPLETED"), "%s", world_state(w, "patient"));
}
END_TEST

static bool is_blocked(int service, int seconds)
{
    return db_int(
               w->db,
               "select count(*) from pg_stat_activity where datname = '%s' and application_name ="
               " '%s-svc' and wait_event_type = 'Lock' and query_start < now() - interval '%ds'",
               w->database, service_names[service], seconds) > 0;
}

/* Attack 47: nor one of the service itself that is at work: many short statements, or a long one. */
START_TEST(a_busy_session_is_not_ended)
{
    struct db *busy = db_new(w->database);

    for (int round = 0; round < 2; round++) {
        const char *order = round == 0 ? "busy-many" : "busy-long";
        db_run(busy, "set application_name = 'inventory-svc'; begin;"
                     " select from inventory_svc.stock where sku = 'load-3' for update");
        int64_t pid = db_int(busy, "select pg_backend_pid()");
        world_place(w, order, "load-3 1 150", "tok_ok");
        kafka_flush(5);
        if (round == 0)
            AWAIT(PATIENCE, (db_run(busy, "select"), is_blocked(INVENTORY, 3)));
        else
            db_run(busy, "select pg_sleep(3)");
        MUST_BE(db_int(busy, "select pg_backend_pid()"), pid); /* it was not ended */
        db_run(busy, "commit");
        AWAIT(PATIENCE, same(world_state(w, order), "PAID HELD COMPLETED"));
    }
    db_free(busy);
}
END_TEST

/* ---- Lanes ---- */

/* Attacks 2, 8, 43: somebody raises the term of lanes (an expelled owner that woke up and died) and
 * no rebalance follows: the owner's batch, which has waited for that, finds it, the other lanes of the
 * batch go through, and it takes the lanes again. */
START_TEST(a_lane_taken_from_under_its_owner_comes_back)
{
    enum { TIMES = 3 * SERVICES };
    struct db *taker = db_new(w->database);

    for (int k = 0; k < TIMES; k++) {
        int s = k % SERVICES;
        /* row by row from the first on, as owners do */
        db_run(taker,
               "begin; with l as materialized (select lane from %s_svc.lane where lane %% 4 = %d"
               "                                order by lane for update)"
               " update %s_svc.lane t set term = term + 1 from l where t.lane = l.lane",
               service_names[s], k % 4, service_names[s]);
        world_load(w, "term", ORDERS * k / TIMES, ORDERS * (k + 1) / TIMES);
        kafka_flush(PATIENCE);
        AWAIT(PATIENCE, is_blocked(s, 0));
        db_run(taker, "commit");
    }
    db_free(taker);
    all_well("term");
    for (int s = 0; s < SERVICES; s++)
        MUST(proc_said(world_member(w, s, 0)->proc, "lane lost"), "%s-svc has not lost a lane",
             service_names[s]);
}
END_TEST

static void pay(const char *order)
{
    world_ask(w, order, "{\"type\":\"PayOrder\",\"order_id\":\"%s\",\"token\":\"tok_ok\"}", order);
    kafka_flush(5);
}

/* Attack 2, of a batch that loads nothing because its rows are in memory: another owner (here in SQL) has
 * written one of them meanwhile, without any event. Ours notices it, and builds on the row as it is. */
START_TEST(a_fenced_owner_with_rows_in_memory_applies_nothing)
{
    static const char order[] = "memory";
    int lane = saga_lane_of(order, sizeof order - 1, LANES);

    world_place(w, order, "load-1 1 150", "later");
    world_settle(w, PATIENCE);
    int64_t term = db_int(w->db, "select term from order_svc.lane where lane = %d", lane);
    db_run(w->db,
           "begin; update order_svc.lane set term = term + 1 where lane = %d;"
           "update orders set reason = 'another owner' where order_id = '%s'; commit",
           lane, order);
    pay(order);
    AWAIT(PATIENCE, same(world_state(w, order), "PAID HELD COMPLETED"));
    MUST(same(db_text(w->db, "select reason from orders where order_id = '%s'", order),
              "another owner"),
         "what another owner wrote is lost");
    MUST(db_int(w->db, "select term from order_svc.lane where lane = %d", lane) > term + 1,
         "it was not noticed");
}
END_TEST

/* An order that is not in memory is not taken for one that does not exist: after a restart requests
 * find it, and one that is placed again is the same order. */
START_TEST(orders_that_are_not_in_memory_exist)
{
    world_place(w, "known", "load-1 1 150", "later");
    world_settle(w, PATIENCE);
    world_kill(world_member(w, ORDER, 0));
    world_start(w, ORDER, 0);
    pay("known");
    AWAIT(PATIENCE, same(world_state(w, "known"), "PAID HELD COMPLETED"));
    world_place(w, "known", "load-1 1 150", "later");
    world_place(w, "next", "load-1 1 150", "tok_ok");
    kafka_flush(5);
    AWAIT(PATIENCE, same(world_state(w, "next"), "PAID HELD COMPLETED"));
    world_settle(w, PATIENCE);
    MUST(same(world_state(w, "known"), "PAID HELD COMPLETED"), "%s", world_state(w, "known"));
    MUST_BE(db_int(w->db, "select count(*) from order_svc.parked"), 0);
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

Suite *sessions_suite(void)
{
    Suite *s = suite_create("sessions");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, sessions_can_be_terminated);
    tcase_add_test(t, sessions_end_unseen_by_people);
    tcase_add_test(t, commit_can_fail);
    tcase_add_test(t, a_silent_owner_of_locks_is_ended);
    tcase_add_test(t, a_session_of_others_is_not_ended);
    tcase_add_test(t, a_busy_session_is_not_ended);
    tcase_add_test(t, a_lane_taken_from_under_its_owner_comes_back);
    tcase_add_test(t, a_fenced_owner_with_rows_in_memory_applies_nothing);
    tcase_add_test(t, orders_that_are_not_in_memory_exist);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
