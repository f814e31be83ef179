/* A service alone, whose neighbours are played by the test: what it does with events that come in
 * any order, that are missing, or that do not follow from what it knows. */
#include "suites.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "played.h"
#include "web.h"
#include "world.h"

enum { LANES = 2, PATIENCE = 15 };
static struct world *w;
static struct member *inventory;

static void setup(void)
{
    w = world_new("gaps", LANES, NULL);
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(inventory));
    world_stock(w, "apple", 1000000);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static int64_t held(void)
{
    return db_int(w->db, "select count(*) from reservation where state = 'HELD'");
}

/* The lane's input as /lanes shows it: a member of its first input. */
static int64_t shown(int32_t lane, const char *member)
{
    json_t *answer;
    int64_t value = -1;

    MUST_BE(web_get(&answer, "%s", world_url(inventory, "/lanes")), 200);
    json_t *input = json_array_get(
        json_object_get(json_array_get(json_object_get(answer, "lanes"), (size_t)lane), "inputs"),
        0);
    json_t *found = json_object_get(input, member);
    if (json_is_integer(found))
        value = json_integer_value(found);
    json_decref(answer);
    return value;
}

/* Attack 18: 1, 2, then 4, 5 before 3: what is missing is waited for; then all are applied, each
 * once, in the order of the chain. Sequence numbers may jump. */
START_TEST(events_in_another_order_are_applied_in_theirs)
{
    static const int seqs[] = {5, 7, 12, 13, 9}, previous[] = {0, 5, 9, 12, 7};

    for (int i = 0; i < 5; i++)
        played_created(w, 0, seqs[i], previous[i], played_order(w, 0, text("swap%d", i)));
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 5);
    AWAIT(PATIENCE, shown(0, "held") == -1);
    AWAIT(PATIENCE, db_int(w->db, "select published from inventory_svc.lane where lane = 0") == 5);

    struct kafka_log *log = kafka_read(world_topic(w, "inventory.events"));
    static const int order[] = {0, 1, 4, 2, 3};
    MUST_BE(log->n, 5);
    for (int i = 0; i < 5; i++)
        MUST(same(log->at[i].key, played_order(w, 0, text("swap%d", order[i]))), "place %d: %s", i,
             log->at[i].key);
    kafka_log_free(log);
}
END_TEST

/* Attack 19: a gap that nobody fills is held, also by a restart; the other lane goes on. When what
 * was missing comes after all, the lane goes on, too. */
START_TEST(an_open_gap_stops_its_lane_only)
{
    played_created(w, 0, 15, 14, played_order(w, 0, "late-b"));
    played_created(w, 1, 1, 0, played_order(w, 1, "other"));
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 6);
    AWAIT(PATIENCE, proc_said(inventory->proc, "a gap stays open"));
    AWAIT(PATIENCE, shown(0, "held") == 5);
    world_kill(inventory);
    world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(inventory));
    played_created(w, 1, 2, 1, played_order(w, 1, "another"));
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 7);
    AWAIT(PATIENCE, shown(0, "held") == 5);
    played_created(w, 0, 14, 13, played_order(w, 0, "late-a"));
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 9);
    AWAIT(PATIENCE, shown(0, "held") == -1);
}
END_TEST

/* An event that does not follow from what is known, and is not known itself, is another history:
 * the input stops, loudly, and only in its lane. */
START_TEST(a_fork_stops_its_lane_only)
{
    played_created(w, 0, 13, 7, played_order(w, 0, "fork")); /* 13 is known, and follows 12 */
    played_created(w, 1, 3, 2, played_order(w, 1, "third"));
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 10);
    played_created(w, 0, 16, 15, played_order(w, 0, "next"));
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 11);
    kafka_send(&(struct kafka_record){
        .topic = world_topic(w, "order.events"),
        .partition = 0,
        .value =
            "{\"specversion\":\"1.0\",\"id\":\"0.3.1895513885123\",\"source\":\"/order-svc\","
            "\"type\":\"OrderCompleted\",\"subject\":\"x\",\"previousid\":\"0.2.1795513885123\","
            "\"time\":\"2026-11-24T13:31:25.123Z\",\"causationid\":\"a\","
            "\"data\":{\"order_id\":\"x\"}}"});
    played_created(w, 1, 4, 3, played_order(w, 1, "fourth"));
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 12);
    AWAIT(PATIENCE, proc_said(inventory->proc, "fork"));
    played_created(w, 0, 17, 16, played_order(w, 0, "behind"));
    played_created(w, 1, 5, 4, played_order(w, 1, "fifth"));
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 13);
    MUST(same(db_text(w->db, "select coalesce(string_agg(order_id, ' '), '') from reservation"
                             " where order_id like 'behind%%'"),
              ""),
         "it was applied behind a fork");
    MUST_BE(web_get(NULL, "%s", world_url(inventory, "/livez")), 200);
}
END_TEST

/* Attack 2: another owner (here in SQL) has taken the lane and shipped an order, which emits nothing and so
 * moves no sequence number. Ours is alive, believes that it has the lane, and reads the same event: the
 * term tells it. It applies nothing, takes the lane again and goes on behind what the other has done. */
START_TEST(a_fenced_owner_applies_nothing)
{
    char order[32];

    snprintf(order, sizeof order, "%s", played_order(w, 1, "shipped"));
    played_created(w, 1, 6, 5, order);
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 14);
    int64_t term = db_int(w->db, "select term from lane where lane = 1");
    db_run(w->db,
           "begin; update lane set term = term + 1 where lane = 1;"
           "update reservation set state = 'SHIPPED' where order_id = '%s';"
           "update stock set reserved = reserved - 1, shipped = shipped + 1, version = version + 1;"
           "update lane_input set next_offset = next_offset + 1, screened = next_offset, last_id ="
           " '1.7." PLAYED_TERM "' where lane = 1 and topic = 'order.events'; commit",
           order);
    kafka_send(&(struct kafka_record){
        .topic = world_topic(w, "order.events"),
        .partition = 1,
        .key = order,
        .value = text(
            "{\"specversion\":\"1.0\",\"id\":\"1.7." PLAYED_TERM "\",\"source\":\"/order-svc\","
            "\"type\":\"OrderShipped\",\"subject\":\"%s\",\"previousid\":\"1.6." PLAYED_TERM "\","
            "\"time\":\"2026-11-24T13:31:25.123Z\",\"causationid\":\"a\","
            "\"data\":{\"order_id\":\"%s\"}}",
            order, order)});
    played_created(w, 1, 8, 7, played_order(w, 1, "behind"));
    kafka_flush(5);
    AWAIT(PATIENCE, held() == 14);
    MUST(db_int(w->db, "select term from lane where lane = 1") > term + 1, "it was not noticed");
}
END_TEST

/* A position is a hint: one that lies behind an event which was never applied (a bug, a person) makes a gap,
 * and the event is found from the earliest record on. */
START_TEST(a_position_too_far_is_mended)
{
    world_kill(inventory);
    db_run(w->db, "update lane_input set next_offset = next_offset + 1"
                  " where lane = 1 and topic = 'order.events'");
    played_created(w, 1, 9, 8, played_order(w, 1, "skipped"));
    played_created(w, 1, 10, 9, played_order(w, 1, "read"));
    kafka_flush(5);
    world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, held() == 16);
    AWAIT(PATIENCE, shown(1, "held") == -1);
}
END_TEST

/* Stock balances all the same. */
START_TEST(stock_balances)
{
    MUST_BE(db_int(w->db,
                   "select count(*) from stock where available + reserved + shipped = received"
                   " and reserved = 16 and shipped = 1"),
            1);
}
END_TEST

Suite *gaps_suite(void)
{
    Suite *s = suite_create("gaps");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, events_in_another_order_are_applied_in_theirs);
    tcase_add_test(t, an_open_gap_stops_its_lane_only);
    tcase_add_test(t, a_fork_stops_its_lane_only);
    tcase_add_test(t, a_fenced_owner_applies_nothing);
    tcase_add_test(t, a_position_too_far_is_mended);
    tcase_add_test(t, stock_balances);
    suite_add_tcase(s, t);
    return s;
}
