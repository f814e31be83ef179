/* Sending (bus_send.c) to librdkafka's mock cluster, in this process: no server. It injects errors of
 * single requests; it checks no sequence numbers, as a broker does not of a producer that it does not
 * know. One record is one request here. */
#include <check.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h> /* needs the one above */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bus_private.h"
#include "log.h"
#include "suites.h"

enum {
    PRODUCE = 0 /* its API key */,
    PATIENCE = 15000 /* ms */,
    REPORTS = 64,
    PARTITIONS = 2,
    SLOW = 400 /* ms */
};

static rd_kafka_t *mock_owner;
static rd_kafka_mock_cluster_t *cluster;
static struct saga_bus *bus;
static struct saga_err err;
static char settings[] = "/tmp/test-bus-XXXXXX";

static struct report {
    int32_t lane;
    int64_t seq, offset;
    char refused[128];
} report[REPORTS];
static int reports;

static void reported(void *owner, int32_t lane, int64_t seq, int64_t offset, const char *refused)
{
    (void)owner;
    ck_assert_int_lt(reports, REPORTS);
    report[reports] = (struct report){lane, seq, offset, ""};
    snprintf(report[reports++].refused, sizeof report->refused, "%s", refused ? refused : "");
}

static void assigned(void *owner, const int32_t *lanes, int n)
{
    (void)owner, (void)lanes, (void)n;
}

static void start(void)
{
    static const char one_by_one[] = "batch.num.messages=1\n";
    static const char *const topics[] = {"thing.events", NULL};
    static struct saga_conf conf = {.prefix = "", .instance = "i", .session_timeout = 6000000};
    int file = mkstemp(settings);

    saga_log_open("test", SAGA_ERROR);
    ck_assert_int_eq(write(file, one_by_one, strlen(one_by_one)), (int)strlen(one_by_one));
    close(file);
    rd_kafka_conf_t *quiet = rd_kafka_conf_new();
    rd_kafka_conf_set(quiet, "log_level", "0", NULL, 0);
    mock_owner = rd_kafka_new(RD_KAFKA_PRODUCER, quiet, NULL, 0);
    cluster = rd_kafka_mock_cluster_new(mock_owner, 2);
    rd_kafka_mock_topic_create(cluster, "thing.events", PARTITIONS, 1);
    for (int32_t i = 0; i < PARTITIONS; i++)
        rd_kafka_mock_partition_set_leader(cluster, "thing.events", i, i + 1);
    conf.brokers = rd_kafka_mock_cluster_bootstraps(cluster);
    conf.kafka_config = settings;
    bus = saga_bus_new(&conf, "thing-svc", topics,
                       &(struct saga_bus_events){NULL, assigned, reported}, &err);
    ck_assert_msg(bus != NULL, "%s", err.text);
}

static void stop(void)
{
    unlink(settings);
}

/* The next produce request to broker 1 is refused; the answer takes its time, in which others are sent,
 * if anybody sends them. */
static void refuse(rd_kafka_resp_err_t code)
{
    rd_kafka_mock_broker_push_request_error_rtts(cluster, 1, PRODUCE, 1, code, SLOW);
}

static void send_rows(int32_t lane, int64_t from, int64_t to)
{
    for (; from <= to; from++) {
        char value[24];
        int n = snprintf(value, sizeof value, "%lld", (long long)from);
        saga_bus_send(bus, &(struct saga_delivery){.topic = "thing.events",
                                                   .partition = lane,
                                                   .value = value,
                                                   .value_n = (size_t)n,
                                                   .lane = lane,
                                                   .seq = from});
    }
}

/* Until there are n reports. */
static void await(int n)
{
    saga_bus_serve(bus, &err);
    for (int waited = 0; reports < n; waited += 10) {
        ck_assert_msg(waited < PATIENCE, "%d reports, not %d", reports, n);
        poll(&(struct pollfd){saga_bus_fd(bus), POLLIN, 0}, 1, 10);
        saga_bus_woken(bus);
        saga_bus_serve(bus, &err);
    }
}

static bool is_reported(int64_t seq)
{
    for (int i = 0; i < reports; i++)
        if (report[i].seq == seq)
            return true;
    return false;
}

/* What lies in a partition, "1 2 3". */
static const char *log_of(int32_t lane)
{
    static char text[400];
    int64_t begin, end;
    struct saga_record record;
    int waited = 0;
    size_t n = 0;

    ck_assert_int_eq(
        rd_kafka_query_watermark_offsets(bus->producer, "thing.events", lane, &begin, &end, 5000),
        RD_KAFKA_RESP_ERR_NO_ERROR);
    saga_bus_read(bus, 0, lane, 0);
    text[0] = '\0';
    for (int64_t next = 0; next < end; waited += 10) {
        ck_assert_int_lt(waited, PATIENCE);
        if (saga_bus_next(bus, 0, &record) == 1) {
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%.*s", n ? " " : "",
                                  (int)record.value_n, record.value);
            next = record.offset + 1;
        } else {
            poll(NULL, 0, 10);
        }
    }
    saga_bus_pause(bus, 0, lane);
    return text;
}

static void check_reports(int from, int to, int64_t seq, int64_t offset)
{
    for (; from < to; from++, seq++, offset++) {
        ck_assert_int_eq(report[from].seq, seq);
        ck_assert_int_eq(report[from].offset, offset);
        ck_assert_str_eq(report[from].refused, "");
    }
}

/* Attack 12: the first request of a new producer is refused, a later one would be taken. Nothing goes
 * before the first has been acknowledged; so order is kept and each report tells an offset. */
START_TEST(attack_12_first_request_refused)
{
    refuse(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    refuse(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    send_rows(0, 1, 5);
    await(5);
    check_reports(0, 5, 1, 0);
    ck_assert_str_eq(log_of(0), "1 2 3 4 5");
}
END_TEST

/* The same in each partition of its own: one that waits for its first does not keep the others. */
START_TEST(attack_12_partitions_apart)
{
    send_rows(1, 1, 1);
    await(1);
    rd_kafka_mock_partition_set_leader(cluster, "thing.events", 0, -1);
    ck_assert_int_eq(saga_bus_led(bus, "thing.events", 0, 5000), 0);
    send_rows(0, 11, 13);
    send_rows(1, 2, 3);
    await(3);
    check_reports(0, 3, 1, 0);
    rd_kafka_mock_partition_set_leader(cluster, "thing.events", 0, 1);
    await(6);
    check_reports(3, 6, 11, 0);
    ck_assert_int_eq(saga_bus_led(bus, "thing.events", 0, 5000), 1);
}
END_TEST

/* After long idleness the broker may have forgotten the producer: as with a new one. */
START_TEST(attack_12_after_idleness)
{
    send_rows(0, 1, 1);
    await(1);
    bus->gate_kept = 0;
    refuse(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    send_rows(0, 2, 4);
    await(4);
    check_reports(0, 4, 1, 0);
    ck_assert_str_eq(log_of(0), "1 2 3 4");
}
END_TEST

/* Attack 13: a broker that takes what comes behind the refused one makes the client report that as
 * delivered, without an offset. It is not counted, and another producer sends all again. */
START_TEST(attack_13_success_without_offset)
{
    send_rows(0, 1, 1);
    await(1);
    refuse(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    send_rows(0, 2, 3);
    await(3);
    int lost = report[1].seq == 2 ? 1 : 2;
    ck_assert_int_eq(report[lost].seq, 2);
    ck_assert_int_eq(report[lost].offset, -1);
    ck_assert_str_ne(report[lost].refused, "");
    ck_assert_str_eq(log_of(0), "1 3");
    ck_assert_int_eq(saga_bus_renew(bus, &err), 0);
    send_rows(0, 2, 3);
    await(5);
    check_reports(3, 5, 2, 2);
    ck_assert_str_eq(log_of(0), "1 3 2 3");
}
END_TEST

/* A broker that stays away is no new loss each time that it is tried. */
START_TEST(a_loss_is_one_of_a_connection)
{
    static const struct {
        int code;
        const char *text;
        bool loss;
    } errors[] = {
        {RD_KAFKA_RESP_ERR__TRANSPORT, "k:9092/1: Disconnected (after 250ms in state UP)", true},
        {RD_KAFKA_RESP_ERR__TIMED_OUT,
         "k: 2 request(s) timed out: disconnect (after 9ms in state UP)", true},
        {RD_KAFKA_RESP_ERR__TRANSPORT,
         "k: Connect to k:9092 failed: Connection refused (after 0ms in state CONNECT)", false},
        {RD_KAFKA_RESP_ERR__TRANSPORT,
         "k: Disconnected (after 3ms in state APIVERSION_QUERY, 4 identical error(s) suppressed)",
         false},
        {RD_KAFKA_RESP_ERR__TRANSPORT, "something new", true},
        {RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "1/1 brokers are down", true},
        {RD_KAFKA_RESP_ERR__TIMED_OUT, "something else", false},
        {RD_KAFKA_RESP_ERR__RESOLVE, "k: Failed to resolve 'k:9092' (after 3ms in state CONNECT)",
         false},
    };

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        ck_assert_msg(saga_bus_is_loss(errors[i].code, errors[i].text) == errors[i].loss, "%s",
                      errors[i].text);
}
END_TEST

/* A record that Kafka does not take ends its producer (a gap would follow). Its own report says why, and
 * those that go with it blame nobody. */
START_TEST(a_refused_record_is_told_from_those_that_fail_with_it)
{
    send_rows(0, 1, 1);
    await(1);
    rd_kafka_mock_broker_set_rtt(cluster, 2, PATIENCE); /* lane 1's */
    send_rows(1, 11, 13);
    refuse(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    send_rows(0, 2, 2);
    while (!is_reported(2))
        await(reports + 1);
    while (saga_bus_serve(bus, &err) == 0)
        poll(NULL, 0, 1);
    err.code = 0;
    ck_assert_int_eq(saga_bus_renew(bus, &err), 0);
    rd_kafka_mock_broker_set_rtt(cluster, 2, 0);
    for (int i = 1; i < reports; i++) {
        ck_assert_int_eq(report[i].offset, -1);
        ck_assert_msg(!*report[i].refused == (report[i].lane == 1), "%lld: %s",
                      (long long)report[i].seq, report[i].refused);
    }
    reports = 0;
    send_rows(1, 11, 13);
    await(3);
    check_reports(0, 3, 11, report[0].offset);
    ck_assert_int_ge(report[0].offset, 0);
}
END_TEST

/* One that the client itself does not take has no report of its own: who sent it is told all the same. */
START_TEST(a_record_too_large_for_the_client)
{
    static char value[2 << 20];

    saga_bus_send(bus,
                  &(struct saga_delivery){
                      .topic = "thing.events", .value = value, .value_n = sizeof value, .seq = 7});
    ck_assert_int_eq(reports, 1);
    ck_assert_int_eq(report[0].seq, 7);
    ck_assert_int_eq(report[0].offset, -1);
    ck_assert_msg(*report[0].refused, "not told why");
    saga_bus_serve(bus, &err);
    err.code = 0;
    ck_assert_int_eq(saga_bus_renew(bus, &err), 0);
}
END_TEST

/* ---- Reading ---- */

/* Hands out rows of lane 0 up to number to, each once, in order. */
static void read_rows(int64_t *next, int64_t to)
{
    struct saga_record record;

    for (int waited = 0; *next <= to; waited += 10) {
        char value[24];
        ck_assert_msg(waited < PATIENCE, "row %lld does not come", (long long)*next);
        if (saga_bus_next(bus, 0, &record) != 1) {
            poll(NULL, 0, 10);
            continue;
        }
        snprintf(value, sizeof value, "%lld", (long long)*next);
        ck_assert_int_eq(record.value_n, strlen(value));
        ck_assert_mem_eq(record.value, value, record.value_n);
        ++*next;
    }
}

/* One at a time or many: what waits for one handle is read by the other. */
START_TEST(patience_loses_nothing)
{
    int64_t next = 1;

    send_rows(0, 1, 40);
    await(40);
    saga_bus_read(bus, 0, 0, 0);
    for (int to = 10; to <= 30; to += 10) {
        read_rows(&next, to);
        ck_assert_int_eq(saga_bus_patience(bus, to / 10 % 2, &err), 0);
    }
    read_rows(&next, 40);
    send_rows(0, 41, 45);
    await(45);
    read_rows(&next, 45);
    ck_assert_int_eq(saga_bus_patience(bus, false, &err), 0);
    saga_bus_pause(bus, 0, 0);
    ck_assert_int_eq(saga_bus_patience(bus, true, &err), 0);
    send_rows(0, 46, 50);
    await(50);
    saga_bus_resume(bus, 0, 0);
    read_rows(&next, 50);
}
END_TEST

/* What only an operator can end is a warning, once in a while; what ends by itself is none. */
START_TEST(what_is_forbidden_is_said)
{
    static struct saga_bus ours;
    char said[4096] = "";
    int file = memfd_create("log", MFD_CLOEXEC), was = dup(STDERR_FILENO);

    saga_log_open("test", SAGA_WARN);
    dup2(file, STDERR_FILENO);
    saga_bus_say(&ours, NULL, "kafka client", RD_KAFKA_RESP_ERR__TRANSPORT, "gone for now");
    for (int i = 0; i < 2; i++)
        saga_bus_say(&ours, NULL, "kafka consumer", RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                     "not for you");
    dup2(was, STDERR_FILENO);
    ck_assert_int_gt(pread(file, said, sizeof said - 1, 0), 0);
    ck_assert_msg(strstr(said, "not for you") && strchr(said, '\n') == strrchr(said, '\n'), "%s",
                  said);
    close(file);
    close(was);
}
END_TEST

Suite *bus_suite(void)
{
    Suite *suite = suite_create("bus");
    TCase *sending = tcase_create("sending"), *reading = tcase_create("reading");

    tcase_set_timeout(sending, 60);
    tcase_add_checked_fixture(sending, start, stop);
    tcase_add_test(sending, attack_12_first_request_refused);
    tcase_add_test(sending, attack_12_partitions_apart);
    tcase_add_test(sending, attack_12_after_idleness);
    tcase_add_test(sending, attack_13_success_without_offset);
    tcase_add_test(sending, a_loss_is_one_of_a_connection);
    tcase_add_test(sending, a_refused_record_is_told_from_those_that_fail_with_it);
    tcase_add_test(sending, a_record_too_large_for_the_client);
    suite_add_tcase(suite, sending);
    tcase_set_timeout(reading, 60);
    tcase_add_checked_fixture(reading, start, stop);
    tcase_add_test(reading, patience_loses_nothing);
    suite_add_tcase(suite, reading);
    TCase *words = tcase_create("words");
    tcase_add_test(words, what_is_forbidden_is_said);
    suite_add_tcase(suite, words);
    return suite;
}
