/* Requests of HTTP on their way to Kafka (bus_post.c), to librdkafka's mock cluster: what the caller is
 * told when it acknowledges, is silent or away, and when too many are on their way. Each case has a
 * process of its own. */
#include <check.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h> /* needs the one above */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lane.h"
#include "log.h"
#include "post.h"
#include "suites.h"

enum {
    LANES = 4,
    BROKER = 1,
    INIT_PRODUCER_ID = 22, /* its API key */
    SLOW_MS = 5000,        /* longer than TIMEOUT_US */
    TIMEOUT_US = 2000000,  /* where the acknowledgement does not come */
    MANY = 5000,
    PATIENCE_S = 15,
};

static rd_kafka_mock_cluster_t *cluster;
static struct saga_err err;

static struct end {
    int n; /* how often it was told */
    enum saga_post_end end;
    int32_t partition;
    int64_t offset;
} told[MANY];
static int ends;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;

static void start(void)
{
    static struct saga_conf conf = {.prefix = "", .instance = "i", .kafka_config = ""};
    rd_kafka_conf_t *quiet = rd_kafka_conf_new();

    saga_log_open("test", SAGA_ERROR + 1);
    rd_kafka_conf_set(quiet, "log_level", "0", NULL, 0);
    cluster = rd_kafka_mock_cluster_new(rd_kafka_new(RD_KAFKA_PRODUCER, quiet, NULL, 0), 1);
    rd_kafka_mock_topic_create(cluster, "thing.requests", LANES, 1);
    conf.brokers = rd_kafka_mock_cluster_bootstraps(cluster);
    saga_post_timeout = TIMEOUT_US;
    saga_post_init(&conf);
}

static void done(void *owner, enum saga_post_end end, int32_t partition, int64_t offset)
{
    struct end *e = owner;

    pthread_mutex_lock(&lock);
    *e = (struct end){e->n + 1, end, partition, offset};
    ends++;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

static int send_one(int i, const char *key)
{
    return saga_post(&(struct saga_post){.topic = "thing.requests",
                                         .key = key,
                                         .value = "{}",
                                         .n = 2,
                                         .done = done,
                                         .owner = &told[i]},
                     &err);
}

/* Until n were told. */
static void await(int n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&lock);
    while (ends < n)
        ck_assert_msg(pthread_cond_timedwait(&moved, &lock, &until) == 0, "%d told, not %d", ends,
                      n);
    pthread_mutex_unlock(&lock);
}

/* Until Kafka acknowledges one: the first may wait for the connection too long. -> how many were sent */
static int acknowledged(int i)
{
    do {
        ck_assert_int_eq(send_one(i, "ord-1"), 0);
        await(++i);
    } while (told[i - 1].end != SAGA_POST_DONE);
    return i;
}

/* The place is that of the key's lane, as services and Kafka's own tools count it. */
START_TEST(what_is_acknowledged_has_a_place)
{
    int64_t next[LANES] = {0}, end;
    char key[16];

    saga_post_timeout = PATIENCE_S * INT64_C(1000000);
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "ord-%d", i);
        ck_assert_int_eq(send_one(i, key), 0);
        await(i + 1);
        int32_t lane = saga_lane_of(key, strlen(key), LANES);
        ck_assert_int_eq(told[i].end, SAGA_POST_DONE);
        ck_assert_int_eq(told[i].partition, lane);
        ck_assert_int_eq(told[i].offset, next[lane]++);
    }
    for (int32_t i = 0; i < LANES; i++) {
        ck_assert_int_eq(saga_post_end_of("thing.requests", i, 2000, &end, &err), 0);
        ck_assert_int_eq(end, next[i]);
    }
}
END_TEST

/* It was sent, and Kafka says nothing in time: nobody knows. */
START_TEST(silence_is_no_answer)
{
    int i = acknowledged(0);

    rd_kafka_mock_broker_set_rtt(cluster, BROKER, SLOW_MS);
    ck_assert_int_eq(send_one(i, "ord-1"), 0);
    await(i + 1);
    ck_assert_int_eq(told[i].end, SAGA_POST_UNKNOWN);
}
END_TEST

/* Kafka is away: it was not sent, and that is certain. When it is back all goes on. */
START_TEST(what_is_not_sent_is_known_not_to_be)
{
    int i = acknowledged(0);

    rd_kafka_mock_broker_set_down(cluster, BROKER);
    do { /* the first may have been on its way when the connection went */
        ck_assert_int_eq(send_one(i, "ord-1"), 0);
        await(++i);
        ck_assert_int_ne(told[i - 1].end, SAGA_POST_DONE);
    } while (told[i - 1].end != SAGA_POST_NOT_SENT);
    rd_kafka_mock_broker_set_up(cluster, BROKER);
    acknowledged(i);
}
END_TEST

/* Beyond what may be on its way a caller is told at once; the others are told once each. */
START_TEST(what_is_on_its_way_is_bounded)
{
    int taken = 0;

    rd_kafka_mock_broker_set_rtt(cluster, BROKER, SLOW_MS);
    while (taken < MANY && send_one(taken, "ord-1") == 0)
        taken++;
    ck_assert_int_eq(taken, 1024);
    ck_assert_int_eq(err.code, SAGA_RETRY);
    await(taken);
    for (int i = 0; i < taken; i++)
        ck_assert(told[i].n == 1 && told[i].end != SAGA_POST_DONE);
    rd_kafka_mock_broker_set_rtt(cluster, BROKER, 0);
    acknowledged(taken);
}
END_TEST

/* A producer that has died, here before it had an id, is replaced: who waits is told, and later ones are
 * served. */
START_TEST(a_dead_producer_is_replaced)
{
    rd_kafka_mock_push_request_errors(cluster, INIT_PRODUCER_ID, 1,
                                      RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED);
    ck_assert_int_eq(send_one(0, "ord-1"), 0);
    await(1);
    ck_assert_int_eq(told[0].end, SAGA_POST_NOT_SENT);
    int i = 1;
    do
        if (send_one(i, "ord-1") == 0)
            await(++i);
    while (told[i - 1].end != SAGA_POST_DONE);
    ck_assert_int_eq(told[i - 1].n, 1);
}
END_TEST

/* A process without Kafka, and one whose settings are wrong, say so. */
START_TEST(without_kafka_nothing_is_taken)
{
    static struct saga_conf bad = {.prefix = "", .brokers = "x:1", .kafka_config = "/nowhere"};

    saga_post_init(NULL);
    ck_assert_int_eq(send_one(0, "ord-1"), SAGA_RETRY);
    err.code = 0;
    saga_post_init(&bad);
    ck_assert_int_eq(send_one(0, "ord-1"), SAGA_FATAL);
    ck_assert_int_eq(ends, 0);
}
END_TEST

Suite *post_suite(void)
{
    Suite *s = suite_create("post");
    TCase *t = tcase_create("all");

    tcase_add_checked_fixture(t, start, NULL);
    tcase_set_timeout(t, 2 * PATIENCE_S);
    tcase_add_test(t, what_is_acknowledged_has_a_place);
    tcase_add_test(t, silence_is_no_answer);
    tcase_add_test(t, what_is_not_sent_is_known_not_to_be);
    tcase_add_test(t, what_is_on_its_way_is_bounded);
    tcase_add_test(t, a_dead_producer_is_replaced);
    tcase_add_test(t, without_kafka_nothing_is_taken);
    suite_add_tcase(s, t);
    return s;
}
