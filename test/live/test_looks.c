/* What inventory-svc finds when it looks at Kafka, or at what it reads there, and what it does not believe at
 * once. Each case has a world of its own: inventory-svc, whose order-svc is played. */
#include "suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "played.h"
#include "web.h"

enum { LANES = 2, PATIENCE = 20 };

/* It looks at the start and for a cause only, and there is time between two looks. */
static const char *const settings[] = {"SAGA_LOOK_WAIT=2s", "SAGA_LOOK_EVERY=1h",
                                       "SAGA_HOLD_WAIT=500ms",
                                       "SAGA_LOCK_WAIT=20s" /* a person may hold locks */, NULL};
static struct world *w;
static struct member *inventory;
static int sent[LANES];

static void setup(void)
{
    w = world_new("looks", LANES, settings);
    memset(sent, 0, sizeof sent);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static void start(void)
{
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(inventory));
}

static void start_stocked(void)
{
    start();
    world_stock(w, "apple", 1000);
}

static const char *events(void)
{
    return world_topic(w, "order.events");
}

static const char *own(void)
{
    return world_topic(w, "inventory.events");
}

static int64_t held(int32_t lane)
{
    return db_int(w->db, "select count(*) from reservation where order_id like 'l%d-%%'", lane);
}

/* The next n orders of a lane, one by one. */
static void send(int32_t lane, int n)
{
    for (; n > 0; n--, sent[lane]++) {
        played_created(w, lane, sent[lane] + 1, sent[lane],
                       played_order(w, lane, text("l%d-%d", lane, sent[lane])));
        kafka_flush(20);
    }
}

static void orders(int32_t lane, int n)
{
    for (int64_t had = held(lane); n > 0; n--) {
        send(lane, 1);
        had++;
        AWAIT(PATIENCE, held(lane) == had);
    }
}

static int64_t end_of(const char *topic, int32_t lane)
{
    int64_t ends[LANES];

    kafka_ends(topic, LANES, ends);
    return ends[lane];
}

static int64_t lane_0(const char *column)
{
    return db_int(w->db, "select %s from inventory_svc.lane where lane = 0", column);
}

static const char *published_id(void)
{
    return db_text(w->db, "select published_id from inventory_svc.lane where lane = 0");
}

/* /readyz?verbose has the words. */
static bool says(const char *words)
{
    return strstr(shell("curl -s '%s'", world_url(inventory, "/readyz?verbose")), words) != NULL;
}

static int64_t healed(void)
{
    return atoll(shell("curl -s '%s' | sed -n 's/^saga_healed_total //p'",
                       world_url(inventory, "/metrics")));
}

/* An event of inventory-svc in lane 0, from another owner. */
static void own_event(const char *id, const char *previous)
{
    kafka_put(&(struct kafka_record){
        .topic = own(),
        .partition = 0,
        .key = "x",
        .value = text("{\"specversion\":\"1.0\",\"id\":\"%s\",\"source\":\"/inventory-svc\","
                      "\"type\":\"InventoryReserved\",\"subject\":\"x\",%s"
                      "\"time\":\"2026-11-24T13:31:25.123Z\",\"causationid\":\"a\","
                      "\"data\":{\"order_id\":\"x\"}}",
                      id, previous ? text("\"previousid\":\"%s\",", previous) : "")});
}

/* ---- What it reads ---- */

/* The topic of events made again; in lane 0 rubbish, which no reader has seen, and a fork. */
static void remade_with_a_fork(void)
{
    kafka_remake(events(), LANES);
    kafka_put(&(struct kafka_record){.topic = events(), .partition = 0, .value = "rubbish"});
    kafka_put(&(struct kafka_record){.topic = events(),
                                     .partition = 0,
                                     .value = played_event(0, "2.1895513885123", "1." PLAYED_TERM,
                                                           played_order(w, 0, "l0-new"))});
}

/* Attack 26 while it runs, and the topic made again: Kafka tells that the position is not there. Rubbish that
 * stands where something else was read is a dead letter. */
START_TEST(attack_26_while_it_runs)
{
    start_stocked();
    orders(0, 3);
    remade_with_a_fork();
    AWAIT(PATIENCE, says("[stop] lane 0: fork"));
    AWAIT(PATIENCE, end_of(world_topic(w, "inventory.dlq"), 0) == 1);
    orders(1, 1);
    MUST_BE(held(0), 3);
}
END_TEST

/* An operator's command is for what he has seen: not where the input moves between the command's look
 * and its change. */
START_TEST(a_gap_that_moves_is_not_accepted)
{
    struct db *person = db_new(w->database);
    char said[200];

    snprintf(said, sizeof said, "%s/said", getenv("SAGA_RUN"));
    send(0, 3);
    kafka_expire(events(), 0, 2);
    start();
    AWAIT(PATIENCE, says("[gap]"));
    db_run(person, "begin; update inventory_svc.lane set term = term + 1 where lane = 0;"
                   " update inventory_svc.lane_input set last_id = '0.1." PLAYED_TERM "'"
                   " where lane = 0 and topic = 'order.events'");
    shell("(INVENTORY_URL=%s sagactl lane inventory 0 accept-gap order.events;"
          " echo status $?) >%s 2>&1 </dev/null &",
          world_url(inventory, ""), said);
    AWAIT(PATIENCE, db_int(w->db,
                           "select count(*) from pg_stat_activity where datname = '%s' and "
                           "wait_event_type = 'Lock' and query like 'with raised%%'",
                           w->database) == 1);
    db_run(person, "commit");
    db_free(person);
    AWAIT(PATIENCE, strstr(shell("cat %s", said), "status"));
    MUST(strstr(shell("cat %s", said), "moved meanwhile"), "%s", shell("cat %s", said));
}
END_TEST

/* Attack 24, and nothing is left: what has expired before the first start is missed all the same. */
START_TEST(attack_24_nothing_is_left)
{
    send(0, 3);
    kafka_expire(events(), 0, 3);
    start();
    AWAIT(PATIENCE, says("nothing has come since"));
}
END_TEST

/* ---- What it has written ---- */

/* What the first look misses the second one finds: a record that was late. Nothing is lost. */
START_TEST(what_a_second_look_does_not_find_is_nothing)
{
    start_stocked();
    orders(0, 3);
    AWAIT(PATIENCE, lane_0("published") == 3);
    world_stop(inventory);
    db_run(w->db,
           "update inventory_svc.lane set published_offset = published_offset + 1 where lane = 0");
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, proc_said(inventory->proc, "a second look decides"));
    own_event(published_id(), NULL);
    AWAIT(PATIENCE, world_is_ready(inventory));
    orders(0, 1);
    AWAIT(PATIENCE, end_of(own(), 0) == 5);
    MUST_BE(healed(), 0);
}
END_TEST

/* What both looks find may be another owner's, who has gone on meanwhile (here in SQL). */
START_TEST(another_owner_has_gone_on)
{
    start_stocked();
    orders(0, 2);
    AWAIT(PATIENCE, lane_0("published") == 2);
    world_stop(inventory);
    own_event("0.3.1895513885123", published_id());
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, proc_said(inventory->proc, "a second look decides"));
    db_run(w->db, "update inventory_svc.lane set term = term + 1, last_seq = 3, published = 3,"
                  " published_offset = 2, last_id = '0.3.1895513885123',"
                  " published_id = '0.3.1895513885123' where lane = 0");
    AWAIT(PATIENCE, world_is_ready(inventory));
    MUST(!proc_said(inventory->proc, "lane stopped"), "it was taken for lost");
    orders(0, 1);
    MUST_BE(lane_0("last_seq"), 4);
}
END_TEST

/* Another event of ours stands there at a sequence number whose event the outbox still holds, and that is
 * not known to be published: the database was restored, and went on. */
START_TEST(another_event_at_a_sequence_of_the_outbox)
{
    start_stocked();
    orders(0, 2);
    AWAIT(PATIENCE, lane_0("published") == 2);
    world_stop(inventory);
    own_event("0.2.1895513885123", published_id());
    db_run(w->db,
           "update inventory_svc.lane set published = 1, published_offset = 0, published_id ="
           " '0.1.' || split_part(published_id, '.', 3) where lane = 0");
    start();
    AWAIT(PATIENCE, says("[stop] lane 0: the database is behind"));
    orders(1, 1);
}
END_TEST

Suite *looks_suite(void)
{
    Suite *s = suite_create("looks");
    TCase *t = tcase_create("all");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, attack_26_while_it_runs);
    tcase_add_test(t, attack_24_nothing_is_left);
    tcase_add_test(t, a_gap_that_moves_is_not_accepted);
    tcase_add_test(t, what_a_second_look_does_not_find_is_nothing);
    tcase_add_test(t, another_owner_has_gone_on);
    tcase_add_test(t, another_event_at_a_sequence_of_the_outbox);
    suite_add_tcase(s, t);
    return s;
}
