/* Requests that are lost before they are read (attack 29): they have no chain, so their offset and a
 * hash of the record before it tell. order-svc alone; its lane stops, and the other one goes on. */
#include "suites.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "played.h"
#include "web.h"

enum { LANES = 2, PATIENCE = 20 };

/* The group stays as it is while Kafka is away. */
static const char *const settings[] = {"SAGA_LOOK_WAIT=300ms", "SAGA_LOOK_EVERY=500ms",
                                       "SAGA_SESSION_TIMEOUT=10s", NULL};
static struct world *w;
static struct member *order;

static void setup(void)
{
    w = world_new("unasked", LANES, settings);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static void start(void)
{
    order = world_start(w, ORDER, 0);
    AWAIT(PATIENCE, world_is_ready(order));
}

static const char *requests(void)
{
    return world_topic(w, "order.requests");
}

static void ask(int32_t lane, const char *name)
{
    const char *key = played_order(w, lane, name);

    kafka_put(&(struct kafka_record){.topic = requests(),
                                     .partition = lane,
                                     .key = key,
                                     .value = world_place_json(key, "apple 1 150", "tok_ok")});
}

static bool is_placed(int32_t lane, const char *name)
{
    return db_int(w->db, "select count(*) from orders where order_id = '%s'",
                  played_order(w, lane, name)) == 1;
}

static void placed(int32_t lane, const char *name)
{
    ask(lane, name);
    AWAIT(PATIENCE, is_placed(lane, name));
}

/* Five requests, each a batch of its own, and the service is down. */
static void five_and_down(void)
{
    start();
    for (int i = 0; i < 5; i++)
        placed(0, text("first%d", i));
    placed(1, "other");
    AWAIT(PATIENCE, db_int(w->db, "select next_offset from order_svc.lane_input"
                                  " where lane = 0 and topic = 'order.requests'") == 5);
    world_kill(order);
}

static const char *lane_0(const char *name)
{
    json_t *answer = NULL;

    if (web_get(&answer, "%s", world_url(order, "/lanes")) != 200)
        return "";
    const char *value = json_string_value(
        json_object_get(json_array_get(json_object_get(answer, "lanes"), 0), name));
    value = text("%s", value ? value : "");
    json_decref(answer);
    return value;
}

static void is_stopped(const char *words)
{
    AWAIT(PATIENCE, same(lane_0("state"), "stopped"));
    MUST(strstr(lane_0("why"), words), "%s", lane_0("why"));
    placed(1, "meanwhile");
}

static const char *accept(void)
{
    return shell("ORDER_URL=%s sagactl lane order 0 accept-gap 2>&1; echo status $?",
                 world_url(order, ""));
}

static void goes_on(void)
{
    const char *said = accept();

    MUST(strstr(said, "status 0"), "%s", said);
    AWAIT(PATIENCE, same(lane_0("state"), "running"));
    placed(0, "last");
    said = shell("ORDER_URL=%s sagactl lane order 0 accept-gap order.requests 2>&1;"
                 " echo status $?",
                 world_url(order, ""));
    MUST(strstr(said, "status 1") && strstr(said, "no request"), "%s", said);
    MUST_BE(db_int(w->db, "select count(*) from orders where order_id like 'first%%'"), 5);
}

/* Attack 29: two acknowledged requests are lost, three new ones stand in their place. */
START_TEST(attack_29_others_in_their_place)
{
    five_and_down();
    kafka_cut(requests(), 0, 3, NULL);
    for (int i = 0; i < 3; i++)
        ask(0, text("over%d", i));
    start();
    is_stopped("is not the one that was read there");
    MUST(!is_placed(0, "over2"), "it was read on");
    goes_on();
    for (int i = 0; i < 3; i++)
        MUST(is_placed(0, text("over%d", i)), "the request at offset %d was skipped", 3 + i);
}
END_TEST

/* Fewer stand there than were read. */
START_TEST(attack_29_the_end_is_lower)
{
    five_and_down();
    kafka_cut(requests(), 0, 3, NULL);
    start();
    is_stopped("the next one of order.requests/0 is at offset 5, Kafka has 0 to 3");
    goes_on();
}
END_TEST

/* Attack 29, while it runs: the connection is lost, and what stands there is looked at. */
START_TEST(attack_29_while_it_runs)
{
    five_and_down();
    start();
    kafka_cut(requests(), 0, 3, NULL);
    is_stopped("the next one of order.requests/0 is at offset 5, Kafka has 0 to 3");
    goes_on();
}
END_TEST

static void reads_nothing_and_stands_still(void)
{
    AWAIT(PATIENCE, same(lane_0("state"), "taking") || same(lane_0("state"), "lost"));
    proc_signal(order->proc, SIGSTOP);
}

/* Attack 29, while it runs: all is written over, and more, before it fetches again. It reads nothing
 * before it has looked, for it would go on at its offset, and remember what stands there then. */
START_TEST(attack_29_written_over_while_it_runs)
{
    five_and_down();
    start();
    AWAIT(PATIENCE, same(lane_0("state"), "running"));
    kafka_cut(requests(), 0, 3, reads_nothing_and_stands_still);
    for (int i = 0; i < 4; i++)
        ask(0, text("over%d", i));
    proc_signal(order->proc, SIGCONT);
    is_stopped("the record of order.requests/0 before offset 5 is not the one that was read there");
    goes_on();
    for (int i = 0; i < 4; i++)
        MUST(is_placed(0, text("over%d", i)), "the request at offset %d was skipped", 3 + i);
}
END_TEST

/* Retention took requests that were not read. Those that were read may expire: no check. */
START_TEST(requests_that_expired)
{
    five_and_down();
    kafka_expire(requests(), 0, 5);
    start();
    placed(0, "after");
    world_kill(order);
    for (int i = 0; i < 3; i++)
        ask(0, text("unread%d", i));
    kafka_expire(requests(), 0, 8);
    start();
    is_stopped("Kafka has 8 to 9");
    goes_on();
}
END_TEST

Suite *unasked_suite(void)
{
    Suite *s = suite_create("unasked");
    TCase *t = tcase_create("all");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, attack_29_others_in_their_place);
    tcase_add_test(t, attack_29_the_end_is_lower);
    tcase_add_test(t, attack_29_while_it_runs);
    tcase_add_test(t, attack_29_written_over_while_it_runs);
    tcase_add_test(t, requests_that_expired);
    suite_add_tcase(s, t);
    return s;
}
