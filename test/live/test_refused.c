/* Kafka refuses an event of one lane, for ever: that lane stops and says so, the others go on. order-svc
 * alone. */
#include "suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fetch.h"
#include "lane.h"
#include "played.h"
#include "web.h"
#include "world.h"

enum { LANES = 3, PATIENCE = 20, LIMIT = 5000 /* bytes */, BEHIND = 5 };

static struct world *w;
static struct member *order_svc;

static void setup(void)
{
    static const char *const settings[] = {"SAGA_LOOK_EVERY=500ms", NULL};

    w = world_new("refused", LANES, settings);
    order_svc = world_start(w, ORDER, 0);
    AWAIT(PATIENCE, world_is_ready(order_svc));
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static int64_t events_of(int32_t lane)
{
    int64_t ends[LANES];

    kafka_ends(world_topic(w, "order.events"), LANES, ends);
    return ends[lane];
}

/* lz4 makes nothing of it. */
static const char *large_lines(void)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._";
    static char lines[100 * 80];
    size_t n = 0;

    for (int i = 0; i < 100; i++) {
        char sku[61] = "";
        for (int c = 0; c < 60; c++)
            sku[c] = letters[rand() % 64];
        n += (size_t)snprintf(lines + n, sizeof lines - n, "%s%s 1 1", i ? ", " : "", sku);
    }
    return lines;
}

/* A lane of /lanes: its state, or why it is so. */
static const char *lane_is(int32_t lane, const char *member)
{
    json_t *answer;

    MUST_BE(web_get(&answer, "%s", world_url(order_svc, "/lanes")), 200);
    const char *value =
        text("%s", json_string_value(json_object_get(
                       json_array_get(json_object_get(answer, "lanes"), lane), member)));
    json_decref(answer);
    return value;
}

/* Requests of a lane that wait, by /lanes, and of all lanes, by /metrics. */
static int64_t lag_is(int32_t lane)
{
    json_t *answer;

    MUST_BE(web_get(&answer, "%s", world_url(order_svc, "/lanes")), 200);
    json_t *inputs =
        json_object_get(json_array_get(json_object_get(answer, "lanes"), (size_t)lane), "inputs");
    int64_t lag = json_integer_value(json_object_get(json_array_get(inputs, 0), "lag"));
    json_decref(answer);
    return lag;
}

static const char *sagactl(const char *command)
{
    return shell("ORDER_URL=%s sagactl lane order 0 %s 2>&1 || true", world_url(order_svc, ""),
                 command);
}

/* An event that is larger than its topic takes: the lane is stopped at the third refusal, one that has
 * events taken between keeps on, and once the topic takes it a start sends it. */
START_TEST(a_lane_whose_event_is_refused_stops_alone)
{
    char topic[100];

    snprintf(topic, sizeof topic, "%s", world_topic(w, "order.events"));
    kafka_limit(topic, LIMIT);
    world_place(w, played_order(w, 0, "large"), large_lines(), "later");
    kafka_flush(10);
    int64_t until = test_until(PATIENCE);
    for (int i = 0; !same(lane_is(0, "state"), "stopped"); i++) {
        int64_t had = events_of(1);
        MUST(test_now() < until, "it does not stop");
        world_place(w, played_order(w, 1, text("small-%d", i)), "apple 1 1", "later");
        kafka_flush(10);
        AWAIT(PATIENCE, events_of(1) > had);
    }
    MUST(strstr(lane_is(0, "why"), "three times"), "why: %s", lane_is(0, "why"));
    MUST(strstr(lane_is(0, "why"), "too large"), "why: %s", lane_is(0, "why"));
    MUST(strstr(lane_is(0, "why"), "order 0 republish\""), "why: %s", lane_is(0, "why"));
    AWAIT(PATIENCE, same(lane_is(1, "state"), "running") && same(lane_is(2, "state"), "running"));
    int producers = proc_count(order_svc->proc, "does not count");
    int64_t had = events_of(1);
    for (int i = 0; i < 10; i++)
        world_place(w, played_order(w, 1, text("behind-%d", i)), "apple 1 1", "later");
    kafka_flush(10);
    AWAIT(PATIENCE, events_of(1) >= had + 10);
    MUST_BE(proc_count(order_svc->proc, "does not count"), producers);
    MUST_BE(events_of(0), 0);
    for (int i = 0; i < BEHIND; i++) /* what waits for a lane that stands still is not hidden */
        world_place(w, played_order(w, 0, text("waiting-%d", i)), "apple 1 1", "later");
    kafka_flush(10);
    AWAIT(PATIENCE, lag_is(0) == BEHIND);
    AWAIT(PATIENCE, fetch_metric(order_svc->port, "saga_lag{topic=\"order.requests\"}") == BEHIND);
    kafka_limit(topic, 0);
    MUST(strstr(sagactl("restart"), "would give them up"), "restart gives up what was not sent");
    sagactl("republish");
    AWAIT(PATIENCE, events_of(0) == 1 + BEHIND && world_is_ready(order_svc));
}
END_TEST

Suite *refused_suite(void)
{
    Suite *s = suite_create("refused");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, a_lane_whose_event_is_refused_stops_alone);
    suite_add_tcase(s, t);
    return s;
}
