/* Schedules that no load meets by chance, forced: the order service alone, held at COMMIT, killed there,
 * overtaken by an owner that the test plays in SQL. */
#include "suites.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "lane.h"
#include "played.h"
#include "web.h"
#include "world.h"

enum { LANES = 2, PATIENCE = 15 };

static struct world *w;
static struct member *order;

static void setup(void)
{
    w = world_new("schedules", LANES, NULL);
    order = world_start(w, ORDER, 0);
    AWAIT(PATIENCE, world_is_ready(order));
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* An order of lane 0: the first of "<name>-0", "<name>-1", ... that belongs there. It lives on. */
static const char *order_in_0(const char *name)
{
    static char keys[64][32];
    static int n;
    char *key = keys[n++ % 64];

    for (int i = 0;; i++) {
        snprintf(key, sizeof *keys, "%s-%d", name, i);
        if (saga_lane_of(key, strlen(key), LANES) == 0)
            return key;
    }
}

static void place_later(const char *key)
{
    world_place(w, key, "apple 1 150", "later");
    kafka_flush(5);
}

static const char *state(const char *key)
{
    return db_text(w->db, "select state from orders where order_id = '%s'", key);
}

static int64_t events(void)
{
    int64_t ends[LANES];

    return kafka_ends(world_topic(w, "order.events"), LANES, ends);
}

static int64_t rows_out(void)
{
    return db_int(w->db, "select count(*) from outbox where topic = 'order.events'");
}

static int64_t lane_0(const char *column)
{
    return db_int(w->db, "select %s from lane where lane = 0", column);
}

/* ---- Between COMMIT and publish ---- */

/* From now on each COMMIT of a batch that emits waits in the server until let_commits_go(), whoever has
 * asked for it: also if he is dead by then. */
static void hold_commits(void)
{
    db_run(w->db, "create function order_svc.hold() returns trigger language plpgsql as $$"
                  "begin perform pg_advisory_xact_lock_shared(1); return null; end $$");
    for (int slot = 0; slot < 2; slot++)
        db_run(w->db,
               "create constraint trigger hold after insert on order_svc.outbox_%d deferrable"
               " initially deferred for each row execute function order_svc.hold()",
               slot);
    db_run(w->db, "select pg_advisory_lock(1)");
}

static void let_commits_go(void)
{
    db_run(w->db, "select pg_advisory_unlock(1)");
}

static bool commit_is_held(void)
{
    return db_int(w->db,
                  "select count(*) from pg_stat_activity where datname = '%s' and "
                  "application_name = 'order-svc' and wait_event = 'advisory'",
                  w->database) > 0;
}

/* Attacks 1 and 5: the process dies while its COMMIT is on its way, and the server commits. What it had
 * no time to publish is published by the next owner, and nothing is decided twice. */
START_TEST(killed_between_commit_and_publish)
{
    const char *key = order_in_0("unpublished");

    place_later(order_in_0("first")); /* one that is published */
    AWAIT(PATIENCE, events() == 1 && lane_0("published") == 1);
    hold_commits();
    place_later(key);
    AWAIT(PATIENCE, commit_is_held());
    world_kill(order);
    MUST_BE(rows_out(), 1);
    let_commits_go();
    AWAIT(PATIENCE, rows_out() == 2);
    MUST_BE(events(), 1);
    db_run(w->db, "drop function order_svc.hold cascade");
    world_start(w, ORDER, 0);
    AWAIT(PATIENCE, events() == 2);
    AWAIT(PATIENCE, lane_0("published") == 2);
    MUST_BE(rows_out(), 2);
    MUST(same(state(key), "CREATED"), "%s", state(key));
}
END_TEST

/* Attack 6: the process dies when all is published and not yet stored as such: it is sent again, the
 * very same, in the same order. */
START_TEST(killed_between_publish_and_its_note)
{
    for (int i = 0; i < 20; i++)
        world_place(w, order_in_0(text("again-%d", i)), "apple 1 150", "later");
    kafka_flush(5);
    AWAIT(PATIENCE, rows_out() == 22 && lane_0("published") == lane_0("last_seq"));
    world_kill(order);
    MUST_BE(events(), 22);
    db_run(w->db, "update lane set published = published - 15, published_offset ="
                  "  published_offset - 15, published_id = '0.' || (last_seq - 15) || '.' ||"
                  "  split_part(published_id, '.', 3) where lane = 0");
    world_start(w, ORDER, 0);
    AWAIT(PATIENCE, lane_0("published") == lane_0("last_seq"));
    MUST_BE(events(), 37);
    MUST_BE(rows_out(), 22);
    struct kafka_log *log = kafka_read(world_topic(w, "order.events"));
    for (int i = 0; i < 15; i++)
        MUST(same(log->at[22 + i].value, log->at[7 + i].value), "%s is sent again as %s",
             log->at[7 + i].value, log->at[22 + i].value);
    kafka_log_free(log);
}
END_TEST

static const char *sagactl(const char *command)
{
    return shell("ORDER_URL=%s sagactl lane order 0 %s 2>&1 || true", world_url(order, ""),
                 command);
}

/* What was not published and is not in the outbox any more: the lane stops, names the command that gives it
 * up, and goes on by it. */
START_TEST(missing_rows_stop_a_lane_until_it_is_restarted)
{
    const char *key = order_in_0("behind"), *gone = order_in_0("gone");

    place_later(order_in_0("there"));
    place_later(gone);
    AWAIT(PATIENCE, same(state(gone), "CREATED"));
    AWAIT(PATIENCE, lane_0("published") == lane_0("last_seq"));
    MUST(strstr(sagactl("restart"), "nothing to give up"), "%s", sagactl("restart"));
    world_kill(order);
    db_run(w->db, "update lane set published = published - 1, published_offset ="
                  "  published_offset - 1, published_id = '0.' || (last_seq - 1) || '.' ||"
                  "  split_part(published_id, '.', 3) where lane = 0");
    for (int slot = 0; slot < 2; slot++)
        db_run(w->db,
               "delete from outbox_%d o using lane l where l.lane = 0"
               "   and exists (select from unnest(o.lane, o.seq) u(lane, seq)"
               "                where u.lane = 0 and u.seq = l.last_seq)",
               slot);
    order = world_start(w, ORDER, 0);
    AWAIT(PATIENCE, proc_said(order->proc, "are missing"));
    MUST(proc_said(order->proc, "sagactl lane order 0 restart"), "it names no command");
    place_later(key);
    const char *said = sagactl("restart");
    MUST(strstr(said, "restart done"), "%s", said);
    AWAIT(PATIENCE, same(state(key), "CREATED"));
    AWAIT(PATIENCE, lane_0("published") == lane_0("last_seq"));
}
END_TEST

/* ---- Another owner ---- */

/* What another owner does to lane 0 while ours believes it has it: raises the term, and this. */
#define OVERTAKE(statement)                                                                        \
    "begin; update lane set term = term + 1 where lane = 0;" statement ";commit"

/* What is remembered of a lane's orders is worth nothing once the lane was another's: an order that is
 * in memory as CREATED was paid meanwhile, and ships. */
START_TEST(rows_in_memory_are_forgotten_with_the_lane)
{
    const char *key = order_in_0("remembered");

    place_later(key);
    AWAIT(PATIENCE, same(state(key), "CREATED"));
    int64_t term = lane_0("term");
    db_run(w->db, OVERTAKE("update orders set state = 'PAID', due = null where order_id = '%s'"),
           key);
    world_ask(w, key, "{\"type\":\"ShipOrder\",\"order_id\":\"%s\"}", key);
    kafka_flush(5);
    AWAIT(PATIENCE, lane_0("term") > term + 1);
    AWAIT(PATIENCE, same(state(key), "SHIPPED"));
}
END_TEST

/* Between looking for what is due and forgetting it the lane becomes another owner's, who writes a deadline
 * that was not seen. It is kept: the order is cancelled when it comes. */
START_TEST(a_deadline_of_another_owner_is_kept)
{
    const char *key = order_in_0("kept");

    place_later(key);
    AWAIT(PATIENCE, same(state(key), "CREATED"));
    world_stop(order);
    order = world_start_failing(w, ORDER, 0, "due_forgetting:stop");
    AWAIT(PATIENCE, proc_said(order->proc, "failpoint due_forgetting"));
    AWAIT(PATIENCE, *shell("cut -d' ' -f3 /proc/%d/stat", (int)proc_pid(order->proc)) == 'T');
    db_run(w->db,
           OVERTAKE("update orders set due = date_trunc('second', now()) - interval '9 s'"
                    "  where order_id = '%s';"
                    "insert into due (lane, at, keys)"
                    "  select 0, due, array[order_id] from orders where order_id = '%s'"),
           key, key);
    proc_signal(order->proc, SIGCONT);
    AWAIT(PATIENCE, same(state(key), "CANCELLING"));
    world_stop(order);
    order = world_start(w, ORDER, 0);
    AWAIT(PATIENCE, world_is_ready(order));
}
END_TEST

static int64_t lane_1(const char *column)
{
    return db_int(w->db, "select %s from lane where lane = 1", column);
}

/* A process has the lane and runs it. */
static bool has_lane_1(struct member *m)
{
    json_t *answer = NULL, *lane;
    bool has = false;
    size_t i;

    if (web_get(&answer, "%s", world_url(m, "/lanes")) != 200)
        return false;
    json_array_foreach(json_object_get(answer, "lanes"), i, lane) has |=
        json_integer_value(json_object_get(lane, "lane")) == 1 &&
        same(json_string_value(json_object_get(lane, "state")), "running");
    json_decref(answer);
    return has;
}

/* Attack 7: the group gives a lane to another process while its owner waits for the lane's row, and finds
 * another term there. It leaves the lane to its new owner. */
START_TEST(a_lane_that_has_gone_is_not_taken_back)
{
    struct db *person = db_new(w->database);
    const char *key = played_order(w, 1, "unknown");

    db_run(person, "begin; update lane set term = term + 1 where lane = 1");
    world_ask(w, key, "{\"type\":\"ShipOrder\",\"order_id\":\"%s\"}",
              key); /* its row is asked for */
    kafka_flush(5);
    AWAIT(PATIENCE, db_int(w->db,
                           "select count(*) from pg_stat_activity where datname = '%s' and "
                           "application_name = 'order-svc' and wait_event_type = 'Lock'",
                           w->database) == 1);
    struct member *other = world_start(w, ORDER, 1);
    AWAIT(PATIENCE, proc_said(order->proc, "lanes assigned\",\"lanes\":1}"));
    db_run(person, "commit");
    db_free(person);
    AWAIT(PATIENCE, proc_said(order->proc, "lane lost"));
    AWAIT(PATIENCE, has_lane_1(other));
    int64_t term = lane_1("term");
    key = order_in_0("stays");
    place_later(key);
    AWAIT(PATIENCE, same(state(key), "CREATED"));
    /* after a second: a lane that is wanted would be taken by then */
    AWAIT(PATIENCE, lane_0("published") == lane_0("last_seq"));
    MUST_BE(lane_1("term"), term);
    world_stop(other);
    AWAIT(PATIENCE, has_lane_1(order));
}
END_TEST

/* Attack 44: after a fail-over the database lacks the last transactions, under the same term. Nothing is
 * built on what is not there: the lane is taken anew. (Last: its history is another one from here on.) */
START_TEST(a_database_that_lacks_the_last_batch_is_noticed)
{
    const char *key = order_in_0("lacked");

    place_later(key);
    AWAIT(PATIENCE, same(state(key), "CREATED") && lane_0("published") == lane_0("last_seq"));
    int64_t term = lane_0("term");
    db_run(w->db,
           "begin; delete from orders where order_id = '%s';"
           "update lane set last_seq = last_seq - 1, published = published - 1"
           " where lane = 0; commit",
           key);
    place_later(order_in_0("behind"));
    AWAIT(PATIENCE, lane_0("term") > term);
}
END_TEST

Suite *schedules_suite(void)
{
    Suite *s = suite_create("schedules");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, killed_between_commit_and_publish);
    tcase_add_test(t, killed_between_publish_and_its_note);
    tcase_add_test(t, missing_rows_stop_a_lane_until_it_is_restarted);
    tcase_add_test(t, rows_in_memory_are_forgotten_with_the_lane);
    tcase_add_test(t, a_deadline_of_another_owner_is_kept);
    tcase_add_test(t, a_lane_that_has_gone_is_not_taken_back);
    tcase_add_test(t, a_database_that_lacks_the_last_batch_is_noticed);
    suite_add_tcase(s, t);
    return s;
}
