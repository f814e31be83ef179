/* sagactl without servers: its arguments, what it would send, timelines and dead letters of recorded
 * topics. */
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libsaga/sagactl/ctl.h"
#include "libsaga/sagactl/dlq.h"
#include "libsaga/sagactl/entry.h"
#include "libsaga/sagactl/kafka.h"
#include "libsaga/sagactl/timeline.h"
#include "suites.h"

enum { WORDS = 16, TEXT = 8000 };

/* ---- What is printed ---- */

static FILE *terminal;
static char *printed;
static size_t printed_n;

static void start(void)
{
    setenv("NO_COLOR", "1", 1);
    setenv("TZ", "UTC", 1);
    tzset();
    terminal = stdout;
    stdout = open_memstream(&printed, &printed_n);
}

static void stop(void)
{
    fclose(stdout);
    stdout = terminal;
    free(printed);
}

/* Since the start, runs of spaces as one. */
static const char *output(void)
{
    static char text[TEXT];
    char *to = text;

    fflush(stdout);
    ck_assert_uint_lt(printed_n, TEXT);
    for (const char *at = printed; *at; at++)
        if (*at != ' ' || (to > text && to[-1] != ' '))
            *to++ = *at;
    *to = '\0';
    return text;
}

/* ---- Arguments ---- */

static const struct ctl_command *command(const struct ctl_command *table, const char *name)
{
    while (strcmp(table->name, name) != 0)
        table++;
    return table;
}

/* Runs a command with words in one text. They stay: options point at them. */
static int run(const struct ctl_command *c, const char *line)
{
    static char texts[8][200];
    static int runs;
    char *argv[WORDS], *rest = texts[runs++ % 8];
    int argc = 0;

    ck_assert_uint_lt(strlen(line), sizeof *texts);
    strcpy(rest, line);
    while ((argv[argc] = strtok_r(rest, " ", &rest)))
        argc++;
    return c->run(ctl_options(c, argc, argv), argv);
}

/* What it says on stderr as it ends with CTL_USAGE. */
static const char *complaint(const struct ctl_command *c, const char *line)
{
    static char said[600];
    int pipes[2], status;
    size_t n = 0;

    ck_assert_int_eq(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], STDERR_FILENO);
        _exit(run(c, line));
    }
    close(pipes[1]);
    for (ssize_t got; (got = read(pipes[0], said + n, sizeof said - 1 - n)) > 0;)
        n += (size_t)got;
    close(pipes[0]);
    said[n] = '\0';
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == CTL_USAGE, "%s: status %x: %s", line,
                  status, said);
    return said;
}

/* Every form of an option: apart, with =, repeated, and the lines put together in their order. */
START_TEST(an_order_of_several_lines)
{
    const struct ctl_command *place = command(ctl_requests, "order place");

    ck_assert_int_eq(run(place, "--print --id o-1 --sku apple --quantity 2 --sku pear --price=450"
                                " --line a:b:3:10 --currency USD --later"),
                     CTL_OK);
    ck_assert_str_eq(output(),
                     "{\"type\":\"PlaceOrder\",\"order_id\":\"o-1\",\"customer_id\":\"customer-1\","
                     "\"currency\":\"USD\",\"lines\":[{\"sku\":\"apple\",\"quantity\":2,"
                     "\"unit_price\":100},{\"sku\":\"pear\",\"quantity\":1,\"unit_price\":450},"
                     "{\"sku\":\"a:b\",\"quantity\":3,\"unit_price\":10}],"
                     "\"payment\":{\"mode\":\"later\"}}\n");
}
END_TEST

/* Without any option it is one apple; with --count so many, numbered. */
START_TEST(orders_by_default_and_by_number)
{
    const struct ctl_command *place = command(ctl_requests, "order place");
    const char *at;

    ck_assert_int_eq(run(place, "--print"), CTL_OK);
    ck_assert_ptr_nonnull(
        strstr(output(), "\"lines\":[{\"sku\":\"apple\",\"quantity\":1,\"unit_price\":100}]"));
    ck_assert_int_eq(run(place, "--print --id many --count 3"), CTL_OK);
    at = output();
    for (int i = 1; i <= 3; i++) {
        char id[32];
        snprintf(id, sizeof id, "\"order_id\":\"many-%d\"", i);
        ck_assert_ptr_nonnull(at = strstr(at, id));
    }
    ck_assert_ptr_null(strstr(at, "many-4"));
}
END_TEST

/* Requests about an order take its id as an argument, also behind "--". */
START_TEST(requests_about_an_order)
{
    run(command(ctl_requests, "order cancel"), "o-1 --print --reason late");
    run(command(ctl_requests, "order pay"), "--print --token=t -- o-1");
    run(command(ctl_requests, "order ship"), "--print o-1 --tracking 1Z");
    run(command(ctl_requests, "order complete"), "o-1 --print");
    ck_assert_str_eq(output(),
                     "{\"type\":\"CancelOrder\",\"order_id\":\"o-1\",\"reason\":\"late\"}\n"
                     "{\"type\":\"PayOrder\",\"order_id\":\"o-1\",\"token\":\"t\"}\n"
                     "{\"type\":\"ShipOrder\",\"order_id\":\"o-1\",\"tracking\":\"1Z\"}\n"
                     "{\"type\":\"CompleteOrder\",\"order_id\":\"o-1\"}\n");
}
END_TEST

/* What is not understood ends it with 64 and a line that names it; nothing is sent. */
START_TEST(complaints)
{
    static const struct {
        const char *command, *line, *says;
    } table[] = {
        {"order place", "--colour red", "--colour: no such option: see sagactl order place --help"},
        {"order place", "-x", "-x: no such option"},
        {"order place", "--sku", "--sku: SKU is missing"},
        {"order place", "--later=yes", "--later takes no value"},
        {"order place", "--count ten", "--count ten: expected a whole number from 1 to 10000000"},
        {"order place", "--count 0", "--count 0: expected a whole number from 1 to 10000000"},
        {"order place", "--count 10000001", "expected a whole number from 1 to 10000000"},
        {"order place", "--count 99999999999999999999", "expected a whole number"},
        {"order place", "--rate 5 --print", "--rate goes with --count"},
        {"order place", "--quantity 2 --print", "each goes with a --sku before it"},
        {"order place", "--sku apple --quantity 2 --quantity 3 --print",
         "each goes with a --sku before it"},
        {"order place", "--line apple --print", "--line apple: expected SKU:QUANTITY:PRICE"},
        {"order place", "--line :1:2 --print", "expected SKU:QUANTITY:PRICE"},
        {"order place", "--line a::2 --print", "expected a whole number as quantity"},
        {"order place", "--sku apple --quantity 0 --print", "lines[0].quantity"},
        {"order place", "--sku apple --sku apple --print", "the same sku stands in two lines"},
        {"order place", "--id a/b --print", "order_id"},
        {"order place", "o-1", "o-1: one argument too many"},
        {"order cancel", "--print", "expected sagactl order cancel ID"},
        {"order cancel", "a b", "b: one argument too many"},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *said = complaint(command(ctl_requests, table[i].command), table[i].line);
        ck_assert_msg(strncmp(said, "sagactl: ", 9) == 0 && strstr(said, table[i].says),
                      "%s: not \"%s\" but %s", table[i].line, table[i].says, said);
    }
}
END_TEST

/* The help of every command names its options and has examples. */
START_TEST(every_command_has_help)
{
    static const struct ctl_command *const tables[] = {
        ctl_topics, ctl_orders, ctl_requests, ctl_watch, ctl_stock, ctl_lanes, ctl_dlq};

    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct ctl_command *c = tables[t]; c->name; c++) {
            char usage[100];
            size_t before = printed_n;
            ctl_help(c);
            fflush(stdout);
            snprintf(usage, sizeof usage, "Usage: sagactl %s", c->name);
            ck_assert_ptr_nonnull(strstr(printed + before, usage));
            ck_assert_ptr_nonnull(strstr(c->examples, c->name));
            for (const struct ctl_option *o = c->options; o && o->name; o++) {
                ck_assert_ptr_nonnull(strstr(printed + before, o->help));
                ck_assert_int_eq(!!o->flag + !!o->text + !!o->list + !!o->number, 1);
                ck_assert(!o->flag == !!o->value);
            }
        }
}
END_TEST

/* "topic/partition/offset", and nothing else. */
START_TEST(places)
{
    static const char *const bad[] = {"",      "a",         "a/1",    "a/1/",    "/1/2",
                                      "a/x/2", "a/1/2more", "a/-1/2", "a/1/2/3", "a/1/-2"};
    char topic[128];
    int32_t partition;
    int64_t offset;

    ck_assert(ctl_place_read("order.dlq/3/17", topic, &partition, &offset));
    ck_assert_str_eq(topic, "order.dlq");
    ck_assert_int_eq(partition, 3);
    ck_assert_int_eq(offset, 17);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!ctl_place_read(bad[i], topic, &partition, &offset), "%s", bad[i]);
}
END_TEST

/* ---- Recorded topics ---- */

#define PLACE                                                                                      \
    "{\"type\":\"PlaceOrder\",\"order_id\":\"o-1\",\"customer_id\":\"c\",\"currency\":\"EUR\","    \
    "\"lines\":[{\"sku\":\"apple\",\"quantity\":2,\"unit_price\":450}],"                           \
    "\"payment\":{\"token\":\"tok_ok\"}}"
#define EVENT(id, type, cause, data)                                                               \
    "{\"specversion\":\"1.0\",\"id\":\"" id "\",\"type\":\"" type "\",\"subject\":\"o-1\","        \
    "\"causationid\":\"" cause "\",\"data\":{\"order_id\":\"o-1\"" data "}}"

static void read_record(const char *topic, int64_t offset, int64_t ms, const char *value,
                        struct ctl_entry *e)
{
    ctl_entry_read(&(struct saga_record){.topic = topic,
                                         .partition = 1,
                                         .offset = offset,
                                         .time_ms = ms,
                                         .key = "o-1",
                                         .key_n = 3,
                                         .value = value,
                                         .value_n = value ? strlen(value) : 0},
                   e);
}

static int recorded(struct ctl_entry *e)
{
    int n = 0;

    read_record("payment.events", 3, 5012,
                EVENT("1.4.1", "PaymentCompleted", "1.7.1", ",\"amount\":900,\"currency\":\"EUR\""),
                &e[n++]);
    read_record("order.events", 8, 5000, EVENT("1.42.1", "OrderCreated", "order.requests/1/5", ""),
                &e[n++]);
    read_record("inventory.events", 9, 5000, EVENT("1.7.1", "InventoryReserved", "1.42.1", ""),
                &e[n++]);
    read_record("order.events", 7, 5000, EVENT("1.42.1", "OrderCreated", "order.requests/1/5", ""),
                &e[n++]);
    read_record("order.requests", 5, 5000, PLACE, &e[n++]);
    read_record("order.events", 9, 5013, EVENT("1.43.1", "OrderPaid", "1.4.1", ""), &e[n++]);
    return n;
}

/* In whatever order it was read, within one millisecond too: causes before effects, with the time
 * between, what caused each, and once what was written twice. */
START_TEST(timeline)
{
    struct ctl_entry e[8];
    int n = recorded(e);

    ck_assert_int_eq(n = ctl_entries_order(e, n), 5);
    for (int i = 0; i < n; i++)
        ctl_timeline_print(e, i);
    ck_assert_str_eq(
        output(),
        "00:00:05.000 client PlaceOrder 1@5 2 apple\n"
        " 00:00:05.000 +0 ms order-svc OrderCreated 1@8 <- PlaceOrder (written 2 times)\n"
        " 00:00:05.000 +0 ms inventory-svc InventoryReserved 1@9 <- OrderCreated \n"
        " 00:00:05.012 +12 ms payment-svc PaymentCompleted 1@3 <- InventoryReserved 900 EUR\n"
        " 00:00:05.013 +1 ms order-svc OrderPaid 1@9 <- PaymentCompleted \n");
    for (int i = 0; i < n; i++)
        ctl_entry_free(&e[i]);
}
END_TEST

/* A lane where something comes all the time: one's own order first, then those of others. */
int __wrap_ctl_next(int ms, struct saga_record *record);
int __wrap_ctl_next(int ms, struct saga_record *record)
{
    static const char paid[] = EVENT("1.43.1", "OrderPaid", "1.4.1", "");
    static int64_t offset;

    (void)ms;
    poll(NULL, 0, 2);
    *record = (struct saga_record){.topic = "order.events",
                                   .offset = offset,
                                   .key = offset ? "o-2" : "o-1",
                                   .key_n = 3,
                                   .value = paid,
                                   .value_n = sizeof paid - 1};
    offset++;
    return 1;
}

static bool is_paid(const struct ctl_entry *e, const void *unused)
{
    (void)unused;
    return strcmp(e->type, "OrderPaid") == 0;
}

/* What is waited for is seen although the lane is never quiet. */
START_TEST(a_busy_lane)
{
    struct ctl_timeline t = {0};

    ck_assert_ptr_nonnull(ctl_follow_until(&t, "o-1", 5, is_paid, NULL));
    ctl_timeline_free(&t);
}
END_TEST

/* Whatever stands in a topic is shown as something, its order where it tells one. */
START_TEST(unreadable_records)
{
    static const char *const values[] = {NULL, "", "{", "[]", "7", "{\"type\":7}", "\xff"};
    static const char *const topics[] = {"order.requests", "order.events", "order.dlq"};
    struct ctl_entry e;

    for (size_t t = 0; t < 3; t++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            read_record(topics[t], 1, 5000, values[i], &e);
            ck_assert_str_eq(e.type, t < 2 ? "(unreadable)" : "(no reason)");
            ctl_entry_print(&e);
            ctl_entry_free(&e);
        }
}
END_TEST

/* ---- Dead letters ---- */

static void read_letter(const char *topic, int64_t offset, int64_t ms, const char *id,
                        struct ctl_entry *e)
{
    struct saga_header headers[] = {{"dlq-service", "order-svc", 9},
                                    {"dlq-reason", "invalid", 7},
                                    {"dlq-detail", "amount: -1 is below 0", 21},
                                    {"dlq-id", id, id ? strlen(id) : 0}};

    ctl_entry_read(&(struct saga_record){.topic = topic,
                                         .partition = 2,
                                         .offset = offset,
                                         .time_ms = ms,
                                         .key = "k",
                                         .key_n = 1,
                                         .headers = headers,
                                         .headers_n = id ? 4 : 3},
                   e);
}

/* By time; the same dlq-id in the same topic is the same letter, at its first place; letters without one
 * are each their own. */
START_TEST(dead_letters)
{
    struct ctl_entry e[6];

    read_letter("order.dlq", 12, 3000, "2.8.1", &e[0]);
    read_letter("order.dlq", 10, 1000, "2.8.1", &e[1]);
    read_letter("inventory.dlq", 4, 2000, "2.8.1", &e[2]);
    read_letter("order.dlq", 11, 2500, NULL, &e[3]);
    read_letter("order.dlq", 13, 3500, "2.8.1", &e[4]);
    read_letter("order.dlq", 14, 3600, NULL, &e[5]);
    ctl_letters_print(e, 6);
    ck_assert_str_eq(
        output(),
        "PLACE TIME SERVICE REASON KEY DETAIL\n"
        "order.dlq/2/10 00:00:01.000 order-svc invalid k amount: -1 is below 0 (written 3 times)\n"
        "inventory.dlq/2/4 00:00:02.000 order-svc invalid k amount: -1 is below 0\n"
        "order.dlq/2/11 00:00:02.500 order-svc invalid k amount: -1 is below 0\n"
        "order.dlq/2/14 00:00:03.600 order-svc invalid k amount: -1 is below 0\n");
}
END_TEST

START_TEST(no_dead_letters)
{
    ctl_letters_print(NULL, 0);
    ck_assert_str_eq(output(), "no dead letters\n");
    ctl_json = true;
    ctl_letters_print(NULL, 0);
    ck_assert_str_eq(output(), "no dead letters\n");
}
END_TEST

Suite *sagactl_suite(void)
{
    Suite *suite = suite_create("sagactl");
    TCase *all = tcase_create("all");

    tcase_add_checked_fixture(all, start, stop);
    tcase_add_test(all, an_order_of_several_lines);
    tcase_add_test(all, orders_by_default_and_by_number);
    tcase_add_test(all, requests_about_an_order);
    tcase_add_test(all, complaints);
    tcase_add_test(all, every_command_has_help);
    tcase_add_test(all, places);
    tcase_add_test(all, timeline);
    tcase_add_test(all, a_busy_lane);
    tcase_add_test(all, unreadable_records);
    tcase_add_test(all, dead_letters);
    tcase_add_test(all, no_dead_letters);
    suite_add_tcase(suite, all);
    return suite;
}
