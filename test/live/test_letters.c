/* Records that nobody can read, of every kind, in every topic that is read: a dead letter each, once
 * per reading service, and the lanes go on. */
#include "suites.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lane.h"
#include "world.h"

enum { LANES = 3, PATIENCE = 20, TOPICS = 4, BIG = 1000000, DEEP = 10000, HEADER = 20000 };

static struct world *w;
static const char *const topics[TOPICS] = {"order.requests", "order.events", "inventory.events",
                                           "payment.events"};
static const int readers[TOPICS] = {1, 2, 2, 2};

static void setup(void)
{
    w = world_new("letters", LANES, NULL);
    world_start_all(w);
    world_stock_load(w);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* ---- What nobody can read ---- */

static char big[BIG], deep[DEEP], huge[HEADER];
static const struct kafka_header huge_headers[] = {{"note", huge, HEADER}};

#define PLACE(members) "{\"type\":\"PlaceOrder\",\"order_id\":\"dead-1\"," members "}"
#define REST           "\"customer_id\":\"a\",\"currency\":\"EUR\",\"payment\":{\"token\":\"tok_ok\"}"
#define LINE(q, p)     "\"lines\":[{\"sku\":\"load-1\",\"quantity\":" q ",\"unit_price\":" p "}]"
#define EVENT(id, source, type)                                                                    \
    "{\"specversion\":\"1.0\",\"id\":\"" id "\",\"source\":\"" source "\",\"type\":\"" type        \
    "\",\"subject\":\"x\",\"time\":\"2026-11-24T13:31:25.123Z\",\"causationid\":\"a\",\"data\":"   \
    "{\"order_id\":\"x\"}}"

/* clang-format off */
static const struct bad {
    const char *value;
    size_t n;           /* 0: the text's length */
    const char *reason; /* in order.requests; NULL: a good request, or no request at all */
    bool event;         /* in the topics of events, too */
    const struct kafka_header *headers;
} bads[] = {
    {NULL, 0, "unreadable", true, NULL},
    {"", 0, "unreadable", true, NULL},
    {"hello", 0, "unreadable", true, NULL},
    {"[]", 0, NULL, true, NULL},
    {"{", 0, "unreadable", true, NULL},
    {"{} {}", 0, "unreadable", true, NULL},
    {"{\"a\":1,\"a\":2}", 0, "unreadable", true, NULL},
    {"{\"a\":\"\xff\"}", 0, "unreadable", true, NULL},
    {"{\"a\":\"b\0c\"}", 11, "unreadable", true, NULL},
    {"{\"a\":\"\\u0000\"}", 0, "unreadable", true, NULL},
    {big, BIG, "too_large", true, NULL},
    {deep, DEEP, "unreadable", true, NULL},
    {"{}", 0, "invalid", true, NULL},
    {"hello", 0, NULL, true, huge_headers},
    {PLACE(REST "," LINE("1", "1")), 0, "too_large", false, huge_headers},
    {"{\"type\":\"EatOrder\",\"order_id\":\"dead-1\"}", 0, "unknown_type", false, NULL},
    {"{\"type\":17,\"order_id\":\"dead-1\"}", 0, "invalid", false, NULL},
    {"{\"type\":\"CancelOrder\"}", 0, "invalid", false, NULL},
    {"{\"type\":\"CancelOrder\",\"order_id\":\"a b\"}", 0, "invalid", false, NULL},
    {"{\"type\":\"PayOrder\",\"order_id\":\"dead-1\"}", 0, "invalid", false, NULL},
    {PLACE(REST "," LINE("1e6", "1")), 0, "invalid", false, NULL},
    {PLACE(REST "," LINE("3.0", "1")), 0, "invalid", false, NULL},
    {PLACE(REST "," LINE("0", "1")), 0, "invalid", false, NULL},
    {PLACE(REST "," LINE("1000001", "1")), 0, "invalid", false, NULL},
    {PLACE(REST "," LINE("1", "1000000000001")), 0, "invalid", false, NULL},
    {PLACE(REST "," LINE("1000000", "1000000000000")), 0, "invalid", false, NULL},
    {PLACE(REST "," LINE("99999999999999999999", "1")), 0, "invalid", false, NULL},
    {PLACE(REST ",\"lines\":[]"), 0, "invalid", false, NULL},
    {PLACE(REST), 0, "invalid", false, NULL},
    {EVENT("0.1.1", "/somebody-svc", "OrderCreated"), 0, NULL, true, NULL},
    {EVENT("2.1.1", "/order-svc", "OrderCreated"), 0, NULL, true, NULL},
    {EVENT("0.01.1", "/order-svc", "OrderCreated"), 0, NULL, true, NULL},
    {EVENT("abc", "/payment-svc", "OrderCreated"), 0, NULL, true, NULL},
};
/* clang-format on */
enum { BADS = sizeof bads / sizeof *bads };

static void make_texts(void)
{
    memset(big, 'x', BIG);
    memset(deep, '[', DEEP);
    memset(huge, 'h', HEADER);
}

/* ---- Dead letters ---- */

static int64_t dead_letters(void)
{
    int64_t ends[LANES], n = 0;

    for (int s = 0; s < SERVICES; s++)
        n += kafka_ends(world_topic(w, text("%s.dlq", service_names[s])), LANES, ends);
    return n;
}

struct sent {
    int topic;
    int64_t offset;
    const struct bad *bad;
};
static struct sent sent[TOPICS * BADS];
static int sent_n;

/* Letters of a record in the dead letters of one service. One is right as it says where the record
 * stood, why, and has what fits of its value. */
static int letters_of(const struct kafka_log *log, const struct sent *s)
{
    int n = 0;

    for (int i = 0; i < log->n; i++) {
        const struct kafka_record *r = &log->at[i];
        if (!same(kafka_header(r, "dlq-topic"), topics[s->topic]) ||
            !same(kafka_header(r, "dlq-partition"), "0") ||
            !same(kafka_header(r, "dlq-offset"), text("%" PRId64, s->offset)))
            continue;
        n++;
        size_t length = s->bad->value ? s->bad->n ? s->bad->n : strlen(s->bad->value) : 0;
        MUST(r->value_n == (length < 256 * 1024 ? length : 256 * 1024), "%zu of %zu bytes kept",
             r->value_n, length);
        MUST(!s->bad->value == !r->value, "null and empty are not the same");
        MUST(length == 0 || memcmp(r->value, s->bad->value, r->value_n) == 0, "another value");
        MUST(same(r->key, "some key"), "its key is lost");
        bool cut = length > 256 * 1024 || s->bad->headers;
        MUST(same(kafka_header(r, "dlq-truncated"), cut ? "true" : NULL), "dlq-truncated");
        const char *reason = kafka_header(r, "dlq-reason"), *detail = kafka_header(r, "dlq-detail");
        MUST(reason && detail && *detail, "it does not say why");
        MUST(s->topic > 0 || !s->bad->reason || same(reason, s->bad->reason), "%s: %s, not %s: %s",
             s->bad->value, reason, s->bad->reason, detail);
    }
    return n;
}

static void check_letters(void)
{
    for (int service = 0; service < SERVICES; service++) {
        struct kafka_log *log = kafka_read(world_topic(w, text("%s.dlq", service_names[service])));
        for (int i = 0; i < sent_n; i++) {
            bool reads = sent[i].topic == 0 ? service == ORDER : service != sent[i].topic - 1;
            MUST(letters_of(log, &sent[i]) == reads, "%d letters by %s-svc of %.40s in %s",
                 letters_of(log, &sent[i]), service_names[service],
                 sent[i].bad->value ? sent[i].bad->value : "(null)", topics[sent[i].topic]);
        }
        kafka_log_free(log);
    }
}

/* Each bad record in each topic, between orders that are well: a dead letter of each service that
 * reads it (attack 23), and the orders of its lane come to their end. */
START_TEST(what_cannot_be_read_is_a_dead_letter)
{
    int expected = 0;

    make_texts();
    world_load(w, "before", 0, 60);
    for (int t = 0; t < TOPICS; t++)
        for (int i = 0; i < BADS; i++) {
            if (t > 0 && !bads[i].event)
                continue;
            struct kafka_record r = {.topic = world_topic(w, topics[t]),
                                     .partition = 0,
                                     .key = "some key",
                                     .value = bads[i].value,
                                     .value_n = bads[i].n,
                                     .headers = bads[i].headers,
                                     .headers_n = bads[i].headers ? 1 : 0};
            sent[sent_n++] = (struct sent){t, kafka_put(&r), &bads[i]};
            expected += readers[t];
        }
    world_load(w, "behind", 0, 60);
    world_settle(w, PATIENCE);
    world_loaded(w, "before", 60);
    world_loaded(w, "behind", 60);
    MUST_BE(dead_letters(), expected);
    check_letters();
}
END_TEST

/* Once: not again after kill -9, nor when all is read again from the beginning. */
START_TEST(a_dead_letter_is_written_once)
{
    int64_t had = dead_letters();

    for (int s = 0; s < SERVICES; s++)
        world_kill(world_member(w, s, 0));
    world_start_all(w);
    world_settle(w, PATIENCE);
    MUST_BE(dead_letters(), had);
    for (int s = 0; s < SERVICES; s++)
        world_kill(world_member(w, s, 0));
    for (int s = 0; s < SERVICES; s++)
        db_run(w->db, "update %s_svc.lane_input set next_offset = 0 where topic like '%%.events'",
               service_names[s]);
    world_start_all(w);
    world_load(w, "again", 0, 60);
    world_settle(w, PATIENCE);
    world_loaded(w, "again", 60);
    MUST_BE(dead_letters(), had);
    check_letters();
}
END_TEST

/* ---- Limits (attack 42) ---- */

static const char *lines_of(int n)
{
    const char *lines = "load-0 1 1";

    for (int i = 1; i < n; i++)
        lines = text("%s, many-%d 1 1", lines, i);
    return lines;
}

/* At a limit a request is taken, above it refused; and what is taken, every reader takes: the order
 * goes its way to the end. */
START_TEST(limits_are_as_written)
{
    char id[66], reason[258 * 4] = "";
    int64_t had = dead_letters();

    memset(id, 'i', 65);
    id[65] = '\0';
    world_place(w, id, "load-0 1 1", "tok_ok"); /* 65: refused */
    id[64] = '\0';
    world_place(w, id, "load-0 1 1", "tok_ok");
    world_place(w, "lines-100", lines_of(100), "tok_ok");
    world_place(w, "lines-101", lines_of(101), "tok_ok");
    world_place(w, "sum", "load-0 1000 1000000000000", "later");
    world_place(w, "sum-more", "load-0 1000 1000000000000, load-1 1 1", "later");
    for (int i = 0; i < 256; i++)
        strcat(reason, "\xf0\x9f\x90\x98"); /* 256 code points, 1024 bytes */
    world_ask(w, "sum", "{\"type\":\"CancelOrder\",\"order_id\":\"sum\",\"reason\":\"%s\"}",
              reason);
    world_ask(w, id, "{\"type\":\"CancelOrder\",\"order_id\":\"%s\",\"reason\":\"%sx\"}", id,
              reason);
    world_settle(w, PATIENCE);
    MUST_BE(dead_letters() - had, 4);
    MUST(same(world_state(w, id), "PAID HELD COMPLETED"), "%s: %s", id, world_state(w, id));
    MUST(same(world_state(w, "lines-100"), "CANCELLED FAILED -"), "lines-100: %s",
         world_state(w, "lines-100"));
    MUST(same(world_state(w, "lines-101"), "- - -"), "%s", world_state(w, "lines-101"));
    MUST(same(world_state(w, "sum"), "CANCELLED RELEASED VOIDED"), "%s", world_state(w, "sum"));
    MUST(same(world_state(w, "sum-more"), "- - -"), "%s", world_state(w, "sum-more"));
    MUST(same(db_text(w->db, "select reason from orders where order_id = 'sum'"), reason),
         "reason");
}
END_TEST

/* A request that became a dead letter is sent again, mended, with its headers; it is listed no more, and
 * what nobody mended is refused before it is sent. */
START_TEST(a_dead_letter_can_be_redriven)
{
    char sagactl[512], listed[640], place[128]; /* text() does not last as long */

    snprintf(sagactl, sizeof sagactl, "SAGA_TOPIC_PREFIX=%s sagactl dlq", w->prefix);
    snprintf(listed, sizeof listed, "%s list --json | grep -c '\"order_id\":\"mended\"' || true",
             sagactl);
    kafka_put(&(struct kafka_record){.topic = world_topic(w, "order.requests"),
                                     .partition = 0, /* it may be forwarded */
                                     .key = "mended",
                                     .value = world_place_json("mended", "load-1 0 1", "tok_ok")});
    AWAIT(PATIENCE, atoi(shell("%s", listed)) == 1);
    snprintf(place, sizeof place, "%s", shell("%s list | awk '/ mended / { printf $1 }'", sagactl));
    const char *refused = shell("%s redrive %s 2>&1 || true", sagactl, place);
    MUST(strstr(refused, "lines[0].quantity: 0 is below 1"), "%s", refused);
    MUST_BE(atoi(shell("%s", listed)), 1);
    int had = atoi(shell("%s list --json | wc -l", sagactl));
    shell("echo '%s' | %s redrive %s --value -", world_place_json("mended", "load-1 1 1", "tok_ok"),
          sagactl, place);
    AWAIT(PATIENCE, same(world_state(w, "mended"), "PAID HELD COMPLETED"));
    MUST_BE(atoi(shell("%s", listed)), 0);
    MUST_BE(atoi(shell("%s list --json | wc -l", sagactl)), had - 1);
}
END_TEST

/* An order without id is one order, however often its letter is redriven: the one who did it may have been
 * killed before it was marked. */
START_TEST(a_nameless_order_is_redriven_once)
{
    static const char order[] =
        "{\"type\":\"PlaceOrder\",\"customer_id\":\"nameless\",\"currency\":\"EUR\","
        "\"lines\":[{\"sku\":\"load-1\",\"quantity\":%d,\"unit_price\":1}],"
        "\"payment\":{\"token\":\"tok_ok\"}}";
    char sagactl[512], place[128];

    snprintf(sagactl, sizeof sagactl, "SAGA_TOPIC_PREFIX=%s sagactl dlq", w->prefix);
    kafka_put(&(struct kafka_record){
        .topic = world_topic(w, "order.requests"), .partition = 1, .value = text(order, 0)});
    AWAIT(PATIENCE, !same(shell("%s list | awk '$1 ~ /order.dlq.1/ { printf $1 }'", sagactl), ""));
    snprintf(place, sizeof place, "%s",
             shell("%s list | awk '$1 ~ /order.dlq.1/ { p = $1 } END { printf p }'", sagactl));
    for (int i = 0; i < 2; i++)
        MUST(strstr(
                 shell("echo '%s' | %s redrive %s --value - 2>&1", text(order, 1), sagactl, place),
                 "is in Kafka again"),
             "it was not sent");
    world_settle(w, PATIENCE);
    MUST_BE(db_int(w->db, "select count(*) from orders where customer_id = 'nameless'"), 1);
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

Suite *letters_suite(void)
{
    Suite *s = suite_create("letters");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, what_cannot_be_read_is_a_dead_letter);
    tcase_add_test(t, a_dead_letter_is_written_once);
    tcase_add_test(t, limits_are_as_written);
    tcase_add_test(t, a_dead_letter_can_be_redriven);
    tcase_add_test(t, a_nameless_order_is_redriven_once);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
