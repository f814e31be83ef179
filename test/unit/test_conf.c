/* The settings: what is accepted, what each unit means, and that a refusal names variable, value
 * and what would do. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf.h"
#include "kafka_file.h"
#include "suites.h"

static int64_t pay_timeout, pieces;
static const struct saga_setting own[] = {
    {"SAGA_PAY_TIMEOUT", "900s", "unpaid orders are cancelled after it", &pay_timeout, 1000000, 0},
    {"PIECES", "3", "a plain number", &pieces, 0, 10},
    {0},
};
static const struct saga_service service = {
    .name = "order", .about = "takes orders", .settings = own, .http_port = 8081};
static struct saga_conf conf;
static struct saga_err err;

static int read_conf(void)
{
    char *argv[] = {"order-svc", NULL};
    bool exit_now = false;
    err = (struct saga_err){0};
    int rc = saga_conf_read(&conf, &service, 1, argv, &exit_now, &err);
    ck_assert(!exit_now);
    return rc;
}

/* Each test starts from an environment without settings; check forks it. */
static void bare(void)
{
    clearenv();
}

/* Without any variable everything has the default that --help shows. */
START_TEST(defaults)
{
    ck_assert_int_eq(read_conf(), 0);
    ck_assert_str_eq(conf.brokers, "127.0.0.1:9092");
    ck_assert_str_eq(conf.http_listen, "127.0.0.1:8081");
    ck_assert_str_eq(conf.prefix, "");
    ck_assert_str_eq(conf.database, "");
    ck_assert_int_eq(conf.callers, 16);
    ck_assert_int_eq(conf.call_timeout, 5000000);
    ck_assert_int_eq(conf.outbox_keep, INT64_C(600000000));
    ck_assert_int_eq(conf.outbox_bytes, INT64_C(1) << 30);
    ck_assert_int_eq(conf.batch_records, 2000);
    ck_assert_int_eq(pay_timeout, INT64_C(900000000));
    ck_assert_int_eq(pieces, 3);
}
END_TEST

static const struct {
    const char *text;
    int64_t us;
} durations[] = {{"900", 900000000},  {"900s", 900000000},  {"1s", 1000000},
                 {"1500ms", 1500000}, {"10min", 600000000}, {"2h", INT64_C(7200000000)}};

/* Every unit of a duration; without one it is seconds. */
START_TEST(durations_are_read)
{
    setenv("SAGA_PAY_TIMEOUT", durations[_i].text, 1);
    ck_assert_int_eq(read_conf(), 0);
    ck_assert_int_eq(pay_timeout, durations[_i].us);
}
END_TEST

static const struct {
    const char *text;
    int64_t bytes;
} sizes[] = {{"1048576", 1048576},
             {"1048576B", 1048576},
             {"2048KiB", 2097152},
             {"16MiB", 16777216},
             {"2GiB", INT64_C(2) << 30}};

START_TEST(sizes_are_read)
{
    setenv("SAGA_OUTBOX_BYTES", sizes[_i].text, 1);
    ck_assert_int_eq(read_conf(), 0);
    ck_assert_int_eq(conf.outbox_bytes, sizes[_i].bytes);
}
END_TEST

static const char *const refused[][2] = {
    {"SAGA_PAY_TIMEOUT", "0"},
    {"SAGA_PAY_TIMEOUT", "999ms"},
    {"SAGA_PAY_TIMEOUT", "1x"},
    {"SAGA_PAY_TIMEOUT", "-1s"},
    {"SAGA_PAY_TIMEOUT", "1 s"},
    {"SAGA_PAY_TIMEOUT", "16MiB"},
    {"SAGA_PAY_TIMEOUT", "s"},
    {"SAGA_PAY_TIMEOUT", "9223372036854775807"},
    {"SAGA_PAY_TIMEOUT", "99999999999999999999s"},
    {"PIECES", "11"},
    {"PIECES", "3s"},
    {"PIECES", "1.5"},
    {"SAGA_OUTBOX_BYTES", "1s"},
    {"SAGA_CALLERS", "0"},
    {"SAGA_CALLERS", "1025"},
    {"HTTP_LISTEN", "8081"},
    {"HTTP_LISTEN", ":8081"},
    {"HTTP_LISTEN", "127.0.0.1:65536"},
    {"HTTP_LISTEN", "127.0.0.1:"},
    {"HTTP_LISTEN", "127.0.0.1:http"},
    {"LOG_LEVEL", "INFO"},
    {"SAGA_TOPIC_PREFIX", "a/b"},
    {"SAGA_INSTANCE", "a b"},
    {"KAFKA_CONFIG", "/nowhere/at/all"},
};

/* What is not accepted names itself, and ends the start. */
START_TEST(refusals_name_variable_and_value)
{
    char start[128];
    snprintf(start, sizeof start, "%s=%s: ", refused[_i][0], refused[_i][1]);
    setenv(refused[_i][0], refused[_i][1], 1);
    ck_assert_int_eq(read_conf(), SAGA_FATAL);
    ck_assert_int_eq(strncmp(err.text, start, strlen(start)), 0);
    ck_assert_ptr_null(strchr(err.text, '\n'));
}
END_TEST

static const char *const accepted[][2] = {
    {"SAGA_PAY_TIMEOUT", "1000ms"},
    {"PIECES", "0"},
    {"PIECES", "10"},
    {"SAGA_CALLERS", "1"},
    {"SAGA_CALLERS", "1024"},
    {"HTTP_LISTEN", "127.0.0.1:65535"},
    {"HTTP_LISTEN", "[::1]:0"},
    {"LOG_LEVEL", "error"},
    {"SAGA_TOPIC_PREFIX", "t-1_x."},
    {"SAGA_INSTANCE", "host-8081"},
    {"KAFKA_CONFIG", "/dev/null"},
};

START_TEST(limits_are_accepted)
{
    setenv(accepted[_i][0], accepted[_i][1], 1);
    ck_assert_msg(read_conf() == 0, "%s", err.text);
}
END_TEST

/* Lines of a file of librdkafka's properties, and what is said of them; NULL: they are taken. */
static const struct {
    const char *lines, *says;
} files[] = {
    {"# who we are\n\n security.protocol = plaintext \r\nlinger.ms=1\n", NULL},
    {"socket.timeout.ms=60000", NULL},
    {"nothing", "line 1: \"nothing\": expected name=value"},
    {"\nno.such.name=1\n", "line 2: No such configuration property"},
    {"linger.ms=soon\n", "line 1: Invalid value"},
    {"auto.offset.reset=latest\n", "line 1: auto.offset.reset is fixed"},
    {"request.required.acks = 1\n", "line 1: request.required.acks is fixed"},
    {"topic.auto.offset.reset=latest\n", "line 1: topic.auto.offset.reset is fixed"},
    {"max.in.flight=10\n", "line 1: max.in.flight is fixed"},
    {"bootstrap.servers=x:1\n", "line 1: bootstrap.servers is set by KAFKA_BOOTSTRAP_SERVERS"},
};

/* What is promised rests on some of them: those are not changed by a file. */
START_TEST(kafka_files_are_checked)
{
    char path[] = "/tmp/unit-conf-XXXXXX", start[64];
    int fd = mkstemp(path);

    ck_assert_int_eq(write(fd, files[_i].lines, strlen(files[_i].lines)),
                     (ssize_t)strlen(files[_i].lines));
    close(fd);
    setenv("KAFKA_CONFIG", path, 1);
    int rc = read_conf();
    unlink(path);
    if (!files[_i].says) {
        ck_assert_msg(rc == 0, "%s", err.text);
        return;
    }
    ck_assert_int_eq(rc, SAGA_FATAL);
    snprintf(start, sizeof start, "KAFKA_CONFIG=%s: ", path);
    ck_assert_int_eq(strncmp(err.text, start, strlen(start)), 0);
    ck_assert_msg(strncmp(err.text + strlen(start), files[_i].says, strlen(files[_i].says)) == 0,
                  "%s", err.text);
}
END_TEST

/* A line as long as a certificate is one line. */
START_TEST(long_lines_of_a_kafka_file)
{
    static char lines[20000];
    struct saga_err why = {0};
    char path[] = "/tmp/unit-conf-XXXXXX", value[sizeof lines];
    size_t n = sizeof value;
    rd_kafka_conf_t *to = rd_kafka_conf_new();
    int fd = mkstemp(path);

    memset(lines, 'x', sizeof lines);
    memcpy(lines, "ssl.ca.location=", 16);
    ck_assert_int_eq(write(fd, lines, sizeof lines), sizeof lines);
    close(fd);
    ck_assert_msg(saga_kafka_file(to, path, &why) == 0, "%s", why.text);
    unlink(path);
    ck_assert_int_eq(rd_kafka_conf_get(to, "ssl.ca.location", value, &n), RD_KAFKA_CONF_OK);
    ck_assert_uint_eq(n, sizeof lines - 16 + 1);
    rd_kafka_conf_destroy(to);
}
END_TEST

/* VAR= in an environment file means the default. */
START_TEST(empty_is_not_set)
{
    setenv("SAGA_CALLERS", "", 1);
    setenv("HTTP_LISTEN", "", 1);
    ck_assert_int_eq(read_conf(), 0);
    ck_assert_int_eq(conf.callers, 16);
    ck_assert_str_eq(conf.http_listen, "127.0.0.1:8081");
}
END_TEST

/* The default instance is the same after a restart with a fixed port, and the process's own
 * without. */
START_TEST(instance_names_host_and_port)
{
    char host[65] = "", expected[128];
    gethostname(host, sizeof host - 1);
    ck_assert_int_eq(read_conf(), 0);
    snprintf(expected, sizeof expected, "%s-8081", host);
    ck_assert_str_eq(conf.instance, expected);
    free((char *)(uintptr_t)conf.instance), free((char *)(uintptr_t)conf.http_listen);
    setenv("HTTP_LISTEN", "127.0.0.1:0", 1);
    ck_assert_int_eq(read_conf(), 0);
    snprintf(expected, sizeof expected, "%s-0-%ld", host, (long)getpid());
    ck_assert_str_eq(conf.instance, expected);
}
END_TEST

/* An argument is not silently ignored; --help and --version end the start. */
START_TEST(arguments)
{
    char *strange[] = {"order-svc", "start", NULL}, *version[] = {"order-svc", "--version", NULL};
    bool exit_now = false;
    err = (struct saga_err){0};
    ck_assert_int_eq(saga_conf_read(&conf, &service, 2, strange, &exit_now, &err), SAGA_FATAL);
    ck_assert_ptr_nonnull(strstr(err.text, "start: not an argument"));
    ck_assert_int_eq(saga_conf_read(&conf, &service, 2, version, &exit_now, NULL), 0);
    ck_assert(exit_now);
}
END_TEST

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

Suite *conf_suite(void)
{
    Suite *s = suite_create("conf");
    TCase *t = tcase_create("conf");
    tcase_add_checked_fixture(t, bare, NULL);
    tcase_add_test(t, defaults);
    tcase_add_loop_test(t, durations_are_read, 0, COUNT(durations));
    tcase_add_loop_test(t, sizes_are_read, 0, COUNT(sizes));
    tcase_add_loop_test(t, refusals_name_variable_and_value, 0, COUNT(refused));
    tcase_add_loop_test(t, limits_are_accepted, 0, COUNT(accepted));
    tcase_add_loop_test(t, kafka_files_are_checked, 0, sizeof files / sizeof *files);
    tcase_add_test(t, long_lines_of_a_kafka_file);
    tcase_add_test(t, empty_is_not_set);
    tcase_add_test(t, instance_names_host_and_port);
    tcase_add_test(t, arguments);
    suite_add_tcase(s, t);
    return s;
}
