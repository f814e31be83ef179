/* sagactl and what others have written: topics that end with what is no record, texts that a terminal
 * obeys. */
#include "suites.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka.h"
#include "world.h"

enum { LANES = 1, PATIENCE = 30 };

static struct world *w;

static void setup(void)
{
    w = world_new("sagactl", LANES, NULL);
    world_start_all(w);
    world_stock_load(w);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static const char *sagactl(const char *command)
{
    return shell("SAGA_TOPIC_PREFIX=%s INVENTORY_URL=%s timeout 20 sagactl %s 2>&1; echo status $?",
                 w->prefix, world_url(world_member(w, INVENTORY, 0), ""), command);
}

static void must(rd_kafka_error_t *error)
{
    MUST(!error, "%s", rd_kafka_error_string(error));
}

static void place_in_a_transaction(const char *order)
{
    static const char *const settings[][2] = {{"transactional.id", "somebody"},
                                              {"partitioner", "murmur2_random"}};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char why[200];

    rd_kafka_conf_set(conf, "bootstrap.servers", getenv("KAFKA_BOOTSTRAP_SERVERS"), why,
                      sizeof why);
    for (int i = 0; i < 2; i++)
        rd_kafka_conf_set(conf, settings[i][0], settings[i][1], why, sizeof why);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    MUST(rk, "%s", why);
    must(rd_kafka_init_transactions(rk, PATIENCE * 1000));
    must(rd_kafka_begin_transaction(rk));
    const char *value = world_place_json(order, "load-1 1 100", "tok_ok");
    MUST_BE(rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(world_topic(w, "order.requests")),
                              RD_KAFKA_V_KEY(order, strlen(order)),
                              RD_KAFKA_V_VALUE((void *)(uintptr_t)value, strlen(value)),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
            0);
    must(rd_kafka_commit_transaction(rk, PATIENCE * 1000));
    rd_kafka_destroy(rk);
}

/* Behind it stands a marker, not a record: that is the end, too. */
START_TEST(a_transaction_at_the_end)
{
    place_in_a_transaction("atomic");
    AWAIT(PATIENCE, same(world_state(w, "atomic"), "PAID HELD COMPLETED"));
    const char *said = sagactl("watch --from-beginning --to-end --order atomic");
    MUST(strstr(said, "PlaceOrder") && strstr(said, "status 0"), "%s", said);
}
END_TEST

/* ESC and, in UTF-8, CSI. */
START_TEST(what_a_terminal_obeys)
{
    kafka_put(&(struct kafka_record){.topic = world_topic(w, "order.requests"),
                                     .partition = 0,
                                     .key = "\x1b]0;title\x07",
                                     .value = "{\"type\":\"\\u001b[2J\\u009b2J\"}"});
    AWAIT(PATIENCE, strstr(sagactl("dlq list"), "\\x1b]0;title\\x07"));
    const char *said = sagactl("dlq list");
    MUST(!strpbrk(said, "\x1b\x07") && !strstr(said, "\xc2\x9b"), "%s", said);
    said = sagactl("watch --from-beginning --to-end");
    MUST(!strpbrk(said, "\x1b\x07") && !strstr(said, "\xc2\x9b"), "watch");
}
END_TEST

/* What is known of a SKU may be old: a stock that was counted is set only if nothing has moved since. */
START_TEST(stock_is_set_if_nothing_has_moved)
{
    const char *said = sagactl("stock set counted 20 --json");
    MUST(strstr(said, "\"version\":1") && strstr(said, "status 0"), "%s", said);
    said = sagactl("stock set counted 500 --if-version 1");
    MUST(strstr(said, "500") && strstr(said, "status 0"), "%s", said);
    said = sagactl("stock set counted 600 --if-version 1");
    MUST(strstr(said, "version") && strstr(said, "status 1"), "%s", said);
    said = sagactl("stock get counted");
    MUST(strstr(said, " 500 "), "%s", said);
}
END_TEST

/* What is not as it must be is told and not passed over. */
START_TEST(topics_are_compared)
{
    const char *said = sagactl("topics apply --lanes 1");
    MUST(strstr(said, "1 copy") && strstr(said, "exists") && strstr(said, "status 0"), "%s", said);
    said = sagactl("topics apply --lanes 1 --replication 3");
    MUST(strstr(said, "has 1 copy, expected 3") && strstr(said, "min.insync.replicas is 1") &&
             strstr(said, "differs") && strstr(said, "status 1"),
         "%s", said);
    said = shell("KAFKA_BOOTSTRAP_SERVERS=$KAFKA_BOOTSTRAP_SERVERS,127.0.0.1:1"
                 " SAGA_TOPIC_PREFIX=%s timeout 20 sagactl topics apply 2>&1; echo status $?",
                 w->prefix);
    MUST(strstr(said, "1 of the brokers") && strstr(said, "status 64"), "%s", said);
}
END_TEST

/* They are as many for life, so there are enough for many processes if nobody says how many. */
START_TEST(topics_have_twelve_partitions)
{
    const char *said = shell("SAGA_LANES= SAGA_TOPIC_PREFIX=%stwelve. sagactl topics apply 2>&1;"
                             " echo status $?",
                             w->prefix);
    MUST(strstr(said, "order.events  12 partitions  1 copy ") && strstr(said, " created\n") &&
             strstr(said, "status 0"),
         "%s", said);
}
END_TEST

START_TEST(it_all_balances)
{
    world_settle(w, PATIENCE);
    world_audit(w);
}
END_TEST

Suite *sagactl_suite(void)
{
    Suite *suite = suite_create("sagactl");
    TCase *all = tcase_create("all");

    tcase_add_unchecked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 4 * PATIENCE);
    tcase_add_test(all, a_transaction_at_the_end);
    tcase_add_test(all, what_a_terminal_obeys);
    tcase_add_test(all, stock_is_set_if_nothing_has_moved);
    tcase_add_test(all, topics_are_compared);
    tcase_add_test(all, topics_have_twelve_partitions);
    tcase_add_test(all, it_all_balances);
    suite_add_tcase(suite, all);
    return suite;
}
