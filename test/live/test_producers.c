/* Requests by every tool that people have: with and without a key, by any partitioner, plain and as
 * CloudEvents; and what becomes of those that land in another lane's partition. */
#include "suites.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "lane.h"
#include "world.h"

enum { LANES = 6, EACH = 30, PATIENCE = 20 };
#define PAID     "PAID HELD COMPLETED"
#define AWAITING "CREATED HELD AWAITING"

static struct world *w;
static const char *requests;
static char topic[100], file[100];

static void setup(void)
{
    w = world_new("producers", LANES, NULL);
    snprintf(topic, sizeof topic, "%s", world_topic(w, "order.requests"));
    snprintf(file, sizeof file, "build/live/%s/lines", w->name);
    requests = topic;
    world_start_all(w);
    world_stock(w, "apple", 1000000);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static bool is_paid(const char *name, int n)
{
    return db_int(w->db,
                  "select count(*) from orders where order_id ~ '^%s-[0-9]+$' and state = 'PAID'",
                  name) == n;
}

/* A file of EACH lines, one order a line; each line with its key before a bar, or without. */
static void write_lines(const char *name, bool keyed, const char *before, const char *after)
{
    FILE *f = fopen(file, "w");

    MUST(f, "%s", file);
    for (int i = 0; i < EACH; i++) {
        const char *order = text("%s-%d", name, i);
        fprintf(f, "%s%s%s%s%s\n", keyed ? order : "", keyed ? "|" : "", before,
                world_place_json(order, "apple 1 150", "tok_ok"), after);
    }
    fclose(f);
}

/* How many forwards to their lane there were of these orders. */
static int forwards_of(const char *name)
{
    struct kafka_log *log = kafka_read(requests);
    int n = 0;

    for (int i = 0; i < log->n; i++) {
        const struct kafka_record *r = &log->at[i];
        const char *mark = text("\"%s-", name), *at = r->value ? strstr(r->value, mark) : NULL;
        n += at && kafka_header(r, "forwarded-id") && isdigit((unsigned char)at[strlen(mark)]);
    }
    kafka_log_free(log);
    return n;
}

#define STRUCTURED                                                                                 \
    "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/shop\",\"type\":\"PlaceOrder\",\"data\":"
#define STRUCTURED_HEADER "-H content-type=application/cloudevents+json"
#define BINARY_HEADERS                                                                             \
    "-H ce_specversion=1.0 -H ce_id=1 -H ce_source=/shop -H ce_type=PlaceOrder"                    \
    " -H content-type=application/json"
#define JAVA "kafka-console-producer --topic %s <%s"
#define KCAT "kcat -b $KAFKA_BOOTSTRAP_SERVERS -P -t %s <%s"

/* clang-format off */
static const struct tool {
    const char *name, *command;
    bool keyed;
    const char *before, *after;
    int forwards; /* 0: none, each stands where it belongs; 1: some; ANY: as chance has it */
} tools[] = {
    {"java", JAVA, false, "", "", -1},
    {"java-key", JAVA " --reader-property parse.key=true --reader-property 'key.separator=|'", true, "", "", 0},
    {"java-structured", JAVA " --reader-property parse.key=true --reader-property 'key.separator=|'",
     true, STRUCTURED, "}", 0},
    {"kcat", KCAT, false, "", "", 1},
    {"kcat-key", KCAT " -K '|'", true, "", "", 1},
    {"kcat-murmur", KCAT " -K '|' -X topic.partitioner=murmur2_random", true, "", "", 0},
    {"kcat-structured", KCAT " -K '|' " STRUCTURED_HEADER, true, STRUCTURED, "}", 1},
    {"kcat-structured-bare", KCAT, false, STRUCTURED, "}", 1},
    {"kcat-binary", KCAT " " BINARY_HEADERS, false, "", "", 1},
    {"kcat-binary-key", KCAT " -K '|' " BINARY_HEADERS, true, "", "", 1},
};
/* clang-format on */
enum { TOOLS = sizeof tools / sizeof *tools };

#pragma GCC diagnostic ignored "-Wformat-nonliteral"

/* Whatever tool sends it, with or without a key, in whatever form, an order is made and paid; what
 * lands in a wrong partition is forwarded, what lands in the right one is not. */
START_TEST(every_tool_can_place_orders)
{
    for (int i = 0; i < TOOLS; i++) {
        const struct tool *t = &tools[i];
        write_lines(t->name, t->keyed, t->before, t->after);
        shell(t->command, requests, file);
    }
    world_settle(w, PATIENCE);
    for (int i = 0; i < TOOLS; i++)
        MUST(is_paid(tools[i].name, EACH), "%s: not all are paid", tools[i].name);
    for (int i = 0; i < TOOLS; i++) {
        int n = forwards_of(tools[i].name);
        MUST(tools[i].forwards < 0 || (tools[i].forwards == 0) == (n == 0), "%s: %d forwards",
             tools[i].name, n);
        MUST(n <= EACH, "%s: %d forwards", tools[i].name, n);
    }
    MUST_BE(db_int(w->db, "select count(*) from orders"), TOOLS * EACH);
}
END_TEST

/* A PlaceOrder without order_id makes one order, also when its forward is sent again (attack 32),
 * in whichever form it came. */
START_TEST(an_order_without_id_is_made_once)
{
    int64_t before = db_int(w->db, "select count(*) from orders");
    const char *place = world_place_json(NULL, "apple 1 150", "tok_ok");
    const char *const forms[] = {place, text(STRUCTURED "%s}", place)};

    for (int i = 0; i < EACH; i++)
        kafka_send(&(struct kafka_record){
            .topic = requests, .partition = i % LANES, .value = forms[i % 2]});
    world_settle(w, PATIENCE);
    MUST_BE(db_int(w->db, "select count(*) from orders") - before, EACH);

    struct kafka_log *log = kafka_read(requests);
    int again = 0;
    for (int i = 0; i < log->n; i++)
        if (kafka_header(&log->at[i], "forwarded-id")) {
            kafka_send(&log->at[i]);
            again++;
        }
    kafka_log_free(log);
    MUST(again > EACH / 2, "only %d forwards", again);
    world_settle(w, PATIENCE);
    MUST_BE(db_int(w->db, "select count(*) from orders") - before, EACH);
}
END_TEST

/* Another partition than that of the order. */
static int32_t wrong_place(const char *order)
{
    return (saga_lane_of(order, strlen(order), LANES) + 1) % LANES;
}

static void ask_in_wrong_place(const char *order, const char *json)
{
    kafka_send(&(struct kafka_record){
        .topic = requests, .partition = wrong_place(order), .key = order, .value = json});
}

/* Attack 33: a ShipOrder that was forwarded and refused is answered for good: its forward, sent
 * again when the order has been paid, and once more after a restart, does not ship it. */
START_TEST(a_forward_sent_again_does_not_act)
{
    world_place(w, "ship-33", "apple 1 150", "later");
    kafka_flush(5);
    AWAIT(PATIENCE, same(world_state(w, "ship-33"), AWAITING));
    ask_in_wrong_place("ship-33", "{\"type\":\"ShipOrder\",\"order_id\":\"ship-33\"}");
    world_settle(w, PATIENCE);
    ask_in_wrong_place("ship-33",
                       "{\"type\":\"PayOrder\",\"order_id\":\"ship-33\",\"token\":\"tok_ok\"}");
    kafka_flush(5);
    AWAIT(PATIENCE, same(world_state(w, "ship-33"), PAID));

    struct kafka_log *log = kafka_read(requests);
    for (int round = 0; round < 2; round++) {
        int again = 0;
        for (int i = 0; i < log->n; i++)
            if (kafka_header(&log->at[i], "forwarded-id") &&
                strstr(log->at[i].value, "ShipOrder")) {
                kafka_send(&log->at[i]);
                again++;
            }
        MUST_BE(again, 1);
        world_settle(w, PATIENCE);
        MUST(same(world_state(w, "ship-33"), PAID), "%s", world_state(w, "ship-33"));
        if (round == 0) {
            world_kill(world_member(w, ORDER, 0));
            world_start(w, ORDER, 0);
            AWAIT(PATIENCE, world_is_whole(w));
        }
    }
    kafka_log_free(log);

    log = kafka_read(world_topic(w, "order.events"));
    const char *events = world_history(log, "ship-33");
    kafka_log_free(log);
    MUST(same(events, "OrderCreated RequestRejected OrderPaymentRequested OrderPaid"), "%s",
         events);
}
END_TEST

/* A PlaceOrder in its own lane that claims to be a forward from source. */
static void claim(const char *order, const char *history, int32_t source)
{
    const char *id = text("%s/%d.999999999999.9999999999999", history, source);
    const char *from = text("order.requests/%d/5", source);
    struct kafka_header headers[] = {{"forwarded-id", id, 0}, {"forwarded-from", from, 0}};

    kafka_send(&(struct kafka_record){.topic = requests,
                                      .partition = KEYED,
                                      .key = order,
                                      .value = world_place_json(order, "apple 1 150", "tok_ok"),
                                      .headers = headers,
                                      .headers_n = 2});
}

/* Places orders in lanes that are not theirs, from each lane to each other. */
static void place_crosswise(const char *name)
{
    for (int i = 0; i < EACH * 4; i++) {
        const char *order = text("%s-%d", name, i);
        kafka_send(
            &(struct kafka_record){.topic = requests,
                                   .partition = i % LANES,
                                   .value = world_place_json(order, "apple 1 150", "tok_ok")});
    }
    kafka_flush(5);
}

/* Attack 45: a request copied from another installation, forwarded-id and all, is a plain one, and
 * our own forwards go on working. */
START_TEST(a_forward_of_another_installation_is_a_plain_request)
{
    for (int i = 0; i < EACH; i++)
        claim(text("claim-%d", i), "6b1f0a52-1111-4222-8333-944445555666", i % LANES);
    kafka_flush(5);
    AWAIT(PATIENCE, is_paid("claim", EACH));
    place_crosswise("cross");
    AWAIT(PATIENCE, is_paid("cross", EACH * 4));
}
END_TEST

/* Attack 45: one with a forwarded-id of ours that is above all that we have written is a plain
 * request, too, and does not make our own forwards duplicates. */
START_TEST(a_forward_above_all_of_ours_is_a_plain_request)
{
    const char *history = db_text(w->db, "select history::text from order_svc.identity");

    for (int i = 0; i < EACH; i++)
        claim(text("above-%d", i), history, i % LANES);
    kafka_flush(5);
    AWAIT(PATIENCE, is_paid("above", EACH));
    place_crosswise("after");
    AWAIT(PATIENCE, is_paid("after", EACH * 4));
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_settle(w, PATIENCE);
    world_audit(w);
}
END_TEST

Suite *producers_suite(void)
{
    Suite *s = suite_create("producers");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, every_tool_can_place_orders);
    tcase_add_test(t, an_order_without_id_is_made_once);
    tcase_add_test(t, a_forward_sent_again_does_not_act);
    tcase_add_test(t, a_forward_of_another_installation_is_a_plain_request);
    tcase_add_test(t, a_forward_above_all_of_ours_is_a_plain_request);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
