/* A partition without leader harms its own lane only (attack 16). With one real broker none loses its
 * leader alone: Kafka is played by librdkafka's mock cluster, in this process. */
#include "suites.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <string.h>

#include "played.h"
#include "web.h"
#include "world.h"

enum { LANES = 2, PATIENCE = 20 };

/* The mock cluster lets a group wait for 3 s before it answers, and forgets members that are quiet for
 * their session time-out meanwhile. */
static const char *settings[] = {NULL, "SAGA_SESSION_TIMEOUT=6s", "SAGA_REPORT_WAIT=500ms",
                                 "SAGA_LOOK_EVERY=500ms", NULL};
static rd_kafka_t *client;
static rd_kafka_mock_cluster_t *cluster;
static struct world *w;
static struct member *inventory;
static char own[100];
static int sent[LANES];

static void setup(void)
{
    static const char *const topics[] = {"order.events", "inventory.events", "payment.events",
                                         "inventory.dlq"};
    static char servers[100];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char error[256];

    MUST(rd_kafka_conf_set(conf, "test.mock.num.brokers", "1", error, sizeof error) ==
             RD_KAFKA_CONF_OK,
         "%s", error);
    MUST((client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof error)), "%s", error);
    cluster = rd_kafka_handle_mock_cluster(client);
    snprintf(servers, sizeof servers, "KAFKA_BOOTSTRAP_SERVERS=%s",
             rd_kafka_mock_cluster_bootstraps(cluster));
    settings[0] = servers;
    w = world_new_elsewhere("leaders", LANES, settings);
    for (int i = 0; i < 4; i++)
        rd_kafka_mock_topic_create(cluster, world_topic(w, topics[i]), LANES, 1);
    snprintf(own, sizeof own, "%s", world_topic(w, "inventory.events"));
    memset(sent, 0, sizeof sent);
}

static void teardown(void)
{
    world_free(w);
    rd_kafka_destroy(client);
    w = NULL;
}

static void leader(int32_t lane, bool there)
{
    rd_kafka_mock_partition_set_leader(cluster, own, lane, there ? 1 : -1);
}

static void put(int32_t lane, const char *key, const char *value)
{
    MUST(!rd_kafka_producev(client, RD_KAFKA_V_TOPIC(world_topic(w, "order.events")),
                            RD_KAFKA_V_PARTITION(lane),
                            RD_KAFKA_V_KEY((void *)(uintptr_t)key, strlen(key)),
                            RD_KAFKA_V_VALUE((void *)(uintptr_t)value, strlen(value)),
                            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
         "produce");
    MUST(!rd_kafka_flush(client, 5000), "flush");
}

/* The next OrderCreated of a lane. */
static void create(int32_t lane)
{
    const char *order = played_order(w, lane, text("led%d", sent[lane]));
    const char *before = sent[lane] ? text("%d." PLAYED_TERM, sent[lane]) : NULL;
    const char *value = played_event(lane, text("%d." PLAYED_TERM, sent[lane] + 1), before, order);

    sent[lane]++;
    put(lane, order, value);
}

static int64_t published(int32_t lane)
{
    return db_int(w->db, "select published from inventory_svc.lane where lane = %d", lane);
}

static int64_t decided(int32_t lane)
{
    return db_int(w->db, "select last_seq from inventory_svc.lane where lane = %d", lane);
}

static const char *member(int32_t lane, const char *name)
{
    json_t *answer = NULL, *o;
    const char *found = "";
    size_t i;

    if (web_get(&answer, "%s", world_url(inventory, "/lanes")) != 200)
        return "";
    json_array_foreach(json_object_get(answer, "lanes"), i,
                       o) if (json_integer_value(json_object_get(o, "lane")) == lane &&
                              json_is_string(json_object_get(o, name))) found =
        text("%s", json_string_value(json_object_get(o, name)));
    json_decref(answer);
    return found;
}

static bool is_state(int32_t lane, const char *state)
{
    return same(member(lane, "state"), state);
}

/* A lane whose own partition has no leader is not taken, and says why; the other one is, and works at
 * once. When the leader is there the lane is taken as well. */
START_TEST(a_lane_without_leader_is_taken_later)
{
    leader(1, false);
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, is_state(0, "running"));
    MUST(!is_state(1, "running"), "lane 1 runs without a leader");
    world_stock(w, "apple", 1000);
    create(0);
    create(1);
    AWAIT(PATIENCE, published(0) == 1);
    AWAIT(PATIENCE, strstr(member(1, "why"), "has no leader") != NULL);
    MUST_BE(decided(1), 0);
    leader(1, true);
    AWAIT(PATIENCE, published(1) == 1);
    AWAIT(PATIENCE, world_is_ready(inventory));
}
END_TEST

/* One that loses its leader while it runs waits; the other one goes on, with the producer that it has:
 * nobody takes lanes again for it. */
START_TEST(a_lane_that_loses_its_leader_waits_alone)
{
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(inventory));
    world_stock(w, "apple", 1000);
    create(0);
    create(1);
    AWAIT(PATIENCE, published(0) == 1 && published(1) == 1);
    leader(1, false);
    create(1);
    AWAIT(PATIENCE, decided(1) == 2);
    int64_t until = test_now() + 2000000; /* four times as long as a report is waited for */
    for (int n = 1; test_now() < until; n++) {
        create(0);
        AWAIT(PATIENCE, published(0) > n);
    }
    MUST_BE(published(1), 1);
    MUST(!proc_said(inventory->proc, "new producer\",\"lane\":1"), "a producer was given up");
    leader(1, true);
    AWAIT(PATIENCE, published(1) == 2);
}
END_TEST

/* One whose dead letter has nowhere to go waits, however often its producer is given up: it is not
 * stopped for what another partition lacks. */
START_TEST(a_letter_without_leader_stops_no_lane)
{
    int64_t until = test_now() + PATIENCE * 1000000;
    char letters[100];

    snprintf(letters, sizeof letters, "%s", world_topic(w, "inventory.dlq"));
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(inventory));
    world_stock(w, "apple", 1000);
    create(0);
    AWAIT(PATIENCE, published(0) == 1);
    rd_kafka_mock_partition_set_leader(cluster, letters, 1, -1);
    put(1, "nobody", "{");
    for (int n = 1; proc_count(inventory->proc, "no delivery report: new producer") < 5; n++) {
        MUST(test_now() < until, "no producer is given up");
        create(0); /* others are heard of */
        AWAIT(PATIENCE, decided(0) > n);
    }
    MUST(!is_state(1, "stopped"), "%s", member(1, "why"));
    rd_kafka_mock_partition_set_leader(cluster, letters, 1, 1);
    AWAIT(PATIENCE, published(1) == 1);
    create(1);
    AWAIT(PATIENCE, published(1) == 2);
}
END_TEST

/* A partition that reports nothing although its leader is there, because it has each record sent again
 * (4.3): its producer is given up, once for each time that a report is waited for. */
START_TEST(a_silent_partition_gets_a_new_producer)
{
    rd_kafka_resp_err_t again[1000];
    struct db *person = db_new(w->database);

    for (int i = 0; i < 1000; i++)
        again[i] = RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(inventory));
    world_stock(w, "apple", 1000);
    create(0);
    AWAIT(PATIENCE, published(0) == 1);
    db_run(person, "begin; select from inventory_svc.stock for update");
    create(1); /* by a client of the same cluster, before it is silent */
    rd_kafka_mock_push_request_errors_array(cluster, 0 /* Produce */, 1000, again);
    db_run(person, "commit");
    db_free(person);
    AWAIT(PATIENCE, proc_count(inventory->proc, "no delivery report: new producer") > 1);
    rd_kafka_mock_clear_request_errors(cluster, 0);
    AWAIT(PATIENCE, published(1) == 1);
    AWAIT(PATIENCE, world_is_ready(inventory));
}
END_TEST

Suite *leaders_suite(void)
{
    Suite *s = suite_create("leaders");
    TCase *t = tcase_create("all");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_lane_without_leader_is_taken_later);
    tcase_add_test(t, a_lane_that_loses_its_leader_waits_alone);
    tcase_add_test(t, a_letter_without_leader_stops_no_lane);
    tcase_add_test(t, a_silent_partition_gets_a_new_producer);
    suite_add_tcase(s, t);
    return s;
}
