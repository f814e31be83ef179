/* Events: their layout to the byte, reading in any order of members, what is unreadable, foreign or
 * refused, every truncation, ids. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "event.h"
#include "events.h"
#include "field.h"
#include "suites.h"

static const char trace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

static struct line lines[] = {{"apple", 3, 125}, {"pear", 1, 99}};
static struct order order = {"cust-1", "EUR", 474, {2, lines}, {NOW, "tok_ok"}};

/* The emission of DESIGN.md section 3. */
static struct saga_emission emission(void)
{
    return (struct saga_emission){.source = "/order-svc",
                                  .event = &order_created,
                                  .key = "ord-1",
                                  .lane = 7,
                                  .id = {1042, 1795513885123},
                                  .previous = {1041, 1795513885123},
                                  .time_ms = 1795513885123,
                                  .cause = "order.requests/7/88",
                                  .trace = trace,
                                  .data = &order};
}

static struct saga_arena arena;
static struct saga_err err;
static const char *reason;

static void clean(void)
{
    saga_arena_reset(&arena);
    err = (struct saga_err){0};
}

static int read_bytes(const char *text, size_t n, struct saga_message *m)
{
    struct saga_record record = {
        .topic = "order.events", .partition = 7, .offset = 3, .value = text, .value_n = n};
    err.code = 0;
    reason = NULL;
    return saga_event_read(&record, all_events, "/order-svc", 7, &arena, m, &reason, &err);
}

static int read_text(const char *text, struct saga_message *m)
{
    return read_bytes(text, strlen(text), m);
}

static char *write_text(const struct saga_emission *e)
{
    struct saga_buf out = {0};
    saga_event_write(e, &out);
    saga_buf_add(&out, "", 1);
    return out.at;
}

/* ---- Writing ---- */

/* One line of compact JSON with its members in this order. */
START_TEST(layout)
{
    struct saga_emission e = emission();
    char *text = write_text(&e);
    ck_assert_str_eq(
        text,
        "{\"specversion\":\"1.0\",\"id\":\"7.1042.1795513885123\",\"source\":\"/order-svc\","
        "\"type\":\"OrderCreated\",\"subject\":\"ord-1\",\"time\":\"2026-11-24T09:51:25.123Z\","
        "\"previousid\":\"7.1041.1795513885123\",\"causationid\":\"order.requests/7/88\","
        "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\","
        "\"data\":{\"order_id\":\"ord-1\",\"customer_id\":\"cust-1\",\"currency\":\"EUR\","
        "\"amount\":474,\"lines\":[{\"sku\":\"apple\",\"quantity\":3,\"unit_price\":125},"
        "{\"sku\":\"pear\",\"quantity\":1,\"unit_price\":99}],\"payment\":{\"mode\":\"now\","
        "\"token\":\"tok_ok\"}}}");
    free(text);
    e.previous.seq = 0; /* the first of its lane, with no cause that is known, and no trace */
    e.cause = e.trace = NULL;
    e.event = &order_completed;
    e.data = NULL;
    text = write_text(&e);
    ck_assert_str_eq(text,
                     "{\"specversion\":\"1.0\",\"id\":\"7.1042.1795513885123\",\"source\":"
                     "\"/order-svc\",\"type\":\"OrderCompleted\",\"subject\":\"ord-1\","
                     "\"time\":\"2026-11-24T09:51:25.123Z\",\"data\":{\"order_id\":\"ord-1\"}}");
    free(text);
}
END_TEST

/* ---- Reading ---- */

static void check_message(const struct saga_message *m)
{
    ck_assert_str_eq(m->type, "OrderCreated");
    ck_assert_ptr_eq(m->event, &order_created);
    ck_assert_str_eq(m->key, "ord-1");
    ck_assert_str_eq(m->place, "7.1042.1795513885123");
    ck_assert_str_eq(m->cause, "order.requests/7/88");
    ck_assert_str_eq(m->trace, trace);
    ck_assert_str_eq(m->source, "/order-svc");
    ck_assert_int_eq(m->lane, 7);
    ck_assert(m->id.seq == 1042 && m->id.term == 1795513885123);
    ck_assert(m->previous.seq == 1041 && m->previous.term == 1795513885123);
    ck_assert_int_eq(m->time_ms, 1795513885123);
    ck_assert(!m->refused && m->forwarded.seq == 0);
    ck_assert(saga_fields_equal(order_created.fields, m->data, &order));
}

/* What was written is read, and nothing of it depends on the record's bytes afterwards. */
START_TEST(events_are_read_back)
{
    struct saga_emission e = emission();
    struct saga_message m;
    char *text = write_text(&e);
    ck_assert_msg(read_text(text, &m) == 0, "%s", err.text);
    memset(text, 'x', strlen(text));
    check_message(&m);
    free(text);
}
END_TEST

/* In any order of members, with data before type, with white space and members that we do not know.
 */
START_TEST(order_does_not_matter)
{
    struct saga_emission e = emission();
    char *text = write_text(&e);
    json_auto_t *event = json_loads(text, 0, NULL);
    const char *names[16], *name;
    json_t *value;
    unsigned n = 0, seed = 1;
    json_object_set_new(event, "unknown", json_pack("{s:[i, n]}", "a", 1));
    json_object_set_new(event, "data_", json_null());
    json_object_foreach(event, name, value) if (value) names[n++] = name;
    for (int round = 0; round < 500; round++) {
        struct saga_message m;
        json_auto_t *other = json_object();
        for (unsigned left = n; left; left--) {
            unsigned i = (seed = seed * 1103515245 + 12345) / 65536 % left;
            const char *chosen = names[i];
            json_object_set(other, chosen, json_object_get(event, chosen));
            names[i] = names[left - 1];
            names[left - 1] = chosen;
        }
        char *dump = json_dumps(other, round % 2 ? JSON_INDENT(2) : JSON_COMPACT);
        ck_assert_msg(read_text(dump, &m) == 0 && !m.refused, "%s: %s", err.text, dump);
        check_message(&m);
        free(dump);
        clean();
    }
    free(text);
}
END_TEST

/* However one member is spelled: the quick way for our own spelling and the other one agree. */
START_TEST(spelled_otherwise)
{
    static const struct {
        const char *ours, *other;
    } rows[] = {{"\"type\":\"OrderCreated\"", "\"type\":\"Order\\u0043reated\""},
                {"\"type\":", "\"typ\\u0065\":"},
                {"\"subject\":", "\"subject\" :\t"},
                {",\"time\":", " , \"time\":"},
                {"{\"specversion\"", "\n{ \"specversion\""},
                {"\"causationid\":\"order.", "\"causationid\":\"\\u006frder."},
                {"\"order_id\":\"ord-1\"", "\"x\":{},\"order_id\":\"ord\\u002d1\""},
                {",\"data\":", ",\"data\"\n:\n"}};
    struct saga_emission e = emission();
    char *text = write_text(&e);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct saga_buf out = {0};
        struct saga_message m;
        const char *at = strstr(text, rows[i].ours);
        saga_buf_printf(&out, "%.*s%s%s", (int)(at - text), text, rows[i].other,
                        at + strlen(rows[i].ours));
        ck_assert_msg(read_text(out.at, &m) == 0, "%s: %s", err.text, out.at);
        check_message(&m);
        saga_buf_free(&out);
    }
    free(text);
}
END_TEST

/* Types that nobody here knows are read without their data. */
START_TEST(unknown_types)
{
    struct saga_message m;
    struct saga_emission e = emission();
    const struct saga_event *const none[] = {NULL};
    char *text = write_text(&e);
    struct saga_record record = {.value = text, .value_n = strlen(text)};
    ck_assert_int_eq(saga_event_read(&record, none, "/order-svc", 7, &arena, &m, &reason, &err), 0);
    ck_assert(!m.event && !m.data && !m.refused && m.id.seq == 1042);
    ck_assert_str_eq(m.type, "OrderCreated");
    ck_assert_str_eq(m.key, "ord-1");
    free(text);
}
END_TEST

/* Cut off anywhere, an event is unreadable, and not a byte beyond its end is looked at (the page
 * after it cannot be read), nor memory asked for beyond an arena that is given. */
START_TEST(every_truncation)
{
    static char room[64 * 1024] __attribute__((aligned(16)));
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct saga_emission e = emission();
    char *text = write_text(&e);
    size_t n = strlen(text);
    char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(two != MAP_FAILED && mprotect(two + page, page, PROT_NONE) == 0);
    ck_assert_uint_lt(n, page);
    for (size_t cut = 0; cut <= n; cut++) {
        struct saga_message m;
        struct saga_arena given = {.at = room, .end = room + sizeof(room)};
        struct saga_record record = {.value = two + page - cut, .value_n = cut};
        memcpy(two + page - cut, text, cut);
        err.code = 0;
        int rc = saga_event_read(&record, all_events, "/order-svc", 7, &given, &m, &reason, &err);
        ck_assert_int_eq(rc, cut == n ? 0 : SAGA_POISON);
        if (cut < n)
            ck_assert_str_eq(reason, "unreadable");
        ck_assert_ptr_null(given.blocks);
    }
    munmap(two, 2 * page);
    free(text);
}
END_TEST

/* However its bytes are changed: what is read is JSON for jansson too, and is written and
 * read again as the same; all else has a reason. */
START_TEST(changed_bytes)
{
    struct saga_emission e = emission();
    char *text = write_text(&e);
    size_t n = strlen(text);
    unsigned seed = 5, good = 0;
    for (int round = 0; round < 60000; round++) {
        char *exact = malloc(n);
        struct saga_message m;
        memcpy(exact, text, n);
        for (int i = 0; i < 1 + round % 2; i++) {
            seed = seed * 1103515245 + 12345;
            exact[seed / 65536 % n] = "{}[]\",:\\ 019eE.-unx\x1f\xc3\xff"[seed / 7 % 22];
        }
        int rc = read_bytes(exact, n, &m);
        json_auto_t *theirs = json_loadb(exact, n, JSON_REJECT_DUPLICATES, NULL);
        if (rc == 0 && !theirs)
            ck_abort_msg("jansson refuses %.*s", (int)n, exact);
        if (rc < 0 && (rc != SAGA_POISON || !reason || !*err.text))
            ck_abort_msg("no reason: %.*s", (int)n, exact);
        if (rc == 0 && m.event && !m.refused) {
            struct saga_emission again = {.source = m.source,
                                          .event = m.event,
                                          .key = m.key,
                                          .lane = m.lane,
                                          .id = m.id,
                                          .previous = m.previous,
                                          .time_ms = m.time_ms,
                                          .cause = m.cause,
                                          .trace = m.trace,
                                          .data = m.data};
            char *other = write_text(&again);
            struct saga_message back;
            if (read_text(other, &back) < 0 || back.refused || strcmp(back.key, m.key) != 0 ||
                !saga_id_same(back.id, m.id) || !saga_id_same(back.previous, m.previous) ||
                !saga_fields_equal(m.event->fields, m.data, back.data))
                ck_abort_msg("%.*s became %s", (int)n, exact, other);
            good++;
            free(other);
        }
        free(exact);
        clean();
    }
    ck_assert_uint_gt(good, 6000);
    free(text);
}
END_TEST

/* An event with one attribute, or member of data (".name"), set to value (NULL: left out). */
static int read_changed(const char *name, const char *value, struct saga_message *m)
{
    struct saga_emission e = emission();
    char *text = write_text(&e);
    json_auto_t *event = json_loads(text, 0, NULL);
    json_t *object = *name == '.' ? json_object_get(event, "data") : event;
    name += *name == '.';
    if (value)
        json_object_set_new(object, name, json_loads(value, JSON_DECODE_ANY, NULL));
    else
        json_object_del(object, name);
    char *dump = json_dumps(event, JSON_COMPACT);
    int rc = read_text(dump, m);
    free(text);
    free(dump);
    return rc;
}

/* An envelope that cannot be read, or is not of this topic and lane, stands outside the chain. */
START_TEST(outside_the_chain)
{
    static const struct {
        const char *name, *value, *reason, *why;
    } rows[] = {{"specversion", "\"0.3\"", "unreadable", "specversion: 0.3 is not 1.0"},
                {"specversion", NULL, "unreadable", "specversion: it is missing"},
                {"id", NULL, "unreadable", "id: it is missing"},
                {"id", "null", "unreadable", "id: it is missing"},
                {"id", "\"7.1042\"", "unreadable", "id: 7.1042 is not lane.sequence.term"},
                {"id", "\"6.1042.1\"", "foreign", "id: it names lane 6, not 7"},
                {"previousid", "\"6.1041.1\"", "foreign", "id: it names lane 6, not 7"},
                {"previousid", "\"x\"", "unreadable", "previousid: x is not lane.sequence.term"},
                {"source", "\"/payment-svc\"", "foreign", "source: /payment-svc is not /order-svc"},
                {"source", NULL, "unreadable", "source: it is missing"},
                {"type", NULL, "unreadable", "type: it is missing"},
                {"subject", NULL, "unreadable", "subject: it is missing"},
                {"subject", "\"a b\"", "unreadable", "subject: it is not an order id"},
                {"time", "\"now\"", "unreadable", "time: now is not a time"}};
    struct saga_message m;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        ck_assert_int_eq(read_changed(rows[i].name, rows[i].value, &m), SAGA_POISON);
        ck_assert_str_eq(err.text, rows[i].why);
        ck_assert_str_eq(reason, rows[i].reason);
    }
    ck_assert_int_eq(read_changed("type", "17", &m), SAGA_POISON);
    ck_assert_str_eq(reason, "unreadable");
    static const char *const texts[] = {"",
                                        "[]",
                                        "{}",
                                        "null",
                                        "{\"specversion\":\"1.0\"}x",
                                        "{\"id\":\"7.1.1\",\"id\":\"7.1.1\"}",
                                        "{\"a\":1,\"a\":1}"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        ck_assert_int_eq(read_text(texts[i], &m), SAGA_POISON);
        ck_assert_str_eq(reason, "unreadable");
    }
    ck_assert_int_eq(read_bytes(NULL, 0, &m), SAGA_POISON); /* a tombstone */
    ck_assert_str_eq(reason, "unreadable");
}
END_TEST

/* A second member of any name makes the whole unreadable, in a good event too. */
START_TEST(duplicate_attributes)
{
    struct saga_emission e = emission();
    struct saga_message m;
    char *text = write_text(&e);
    json_auto_t *event = json_loads(text, 0, NULL);
    const char *name;
    json_t *value;
    json_object_foreach(event, name, value)
    {
        struct saga_buf twice = {0};
        char *part = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        saga_buf_printf(&twice, "%.*s,\"%s\":%s}", (int)strlen(text) - 1, text, name, part);
        ck_assert_int_eq(read_text(twice.at, &m), SAGA_POISON);
        ck_assert_str_eq(reason, "unreadable");
        ck_assert_ptr_nonnull(strstr(err.text, " stands twice"));
        free(part);
        saga_buf_free(&twice);
    }
    free(text);
}
END_TEST

/* A good envelope with data that is not: it has its place in the chain, and says what is wrong; so
 * it does when data is looked at twice. */
START_TEST(refused_data)
{
    static const struct {
        const char *name, *value, *why;
    } rows[] = {
        {"data", NULL, "data: it is missing"},
        {"data", "17", "data: 17 is not an object"},
        {"data", "null", "data: null is not an object"},
        {".order_id", NULL, "data.order_id: it is missing"},
        {".order_id", "\"ord-2\"", "data.order_id: ord-2 is not the subject, ord-1"},
        {".amount", "473", "data.amount is not the sum of quantity x unit_price of the lines"},
        {".amount", "474.0", "data.amount: 474.0 is not an integer"},
        {".amount", NULL, "data.amount: it is missing"},
        {".lines", "[{\"sku\":\"a\",\"quantity\":0,\"unit_price\":1}]",
         "data.lines[0].quantity: 0 is below 1"},
        {".lines",
         "[{\"sku\":\"a\",\"quantity\":1,\"unit_price\":1},"
         "{\"sku\":\"a\",\"quantity\":1,\"unit_price\":473}]",
         "data.lines: the same sku stands in two lines"},
        {".payment", "{\"mode\":\"now\"}", "data.payment.token is required for payment.mode now"},
        {".payment", "{\"mode\":\"never\"}",
         "data.payment.mode: \"never\" is not one of now later"},
    };
    struct saga_message m;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        ck_assert_int_eq(read_changed(rows[i].name, rows[i].value, &m), 0);
        ck_assert(m.refused && !m.data);
        ck_assert_int_eq(err.code, SAGA_POISON);
        ck_assert_str_eq(err.text, rows[i].why);
        ck_assert_str_eq(m.key, "ord-1");
        ck_assert(m.id.seq == 1042 && m.previous.seq == 1041);
    }
    ck_assert_int_eq(
        read_text("{\"data\":{\"order_id\":\"o\",\"token\":7},\"specversion\":\"1.0\",\"id\":"
                  "\"7.1.1\",\"source\":\"/order-svc\",\"type\":\"OrderPaymentRequested\","
                  "\"subject\":\"o\"}",
                  &m),
        0);
    ck_assert(m.refused && m.previous.seq == 0);
    ck_assert_str_eq(err.text, "data.token: 7 is not a string");
    /* but what follows refused data must still be JSON */
    ck_assert_int_eq(
        read_text("{\"specversion\":\"1.0\",\"id\":\"7.1.1\",\"source\":\"/order-svc\",\"type\":"
                  "\"OrderPaymentRequested\",\"subject\":\"o\",\"data\":{\"token\":7,\"x\":01}}",
                  &m),
        SAGA_POISON);
    ck_assert_str_eq(reason, "unreadable");
}
END_TEST

/* What may be left out, and what is ignored. */
START_TEST(optional_attributes)
{
    struct saga_message m;
    ck_assert(read_changed("previousid", NULL, &m) == 0 && m.previous.seq == 0);
    ck_assert(read_changed("previousid", "null", &m) == 0 && m.previous.seq == 0);
    ck_assert(read_changed("causationid", NULL, &m) == 0 && !m.cause);
    ck_assert(read_changed("time", NULL, &m) == 0 && m.time_ms == 0);
    ck_assert(read_changed("traceparent", NULL, &m) == 0 && !m.trace);
    ck_assert(read_changed("traceparent", "\"00-0AF\"", &m) == 0 && !m.trace);
    ck_assert(read_changed("datacontenttype", "\"application/json\"", &m) == 0 && !m.refused);
}
END_TEST

/* 64 KiB are read, a byte more is not; a causationid likewise at 512. */
START_TEST(sizes)
{
    struct saga_message m;
    struct saga_emission e = emission();
    struct saga_buf out = {0};
    char cause[520] = "\"";
    saga_event_write(&e, &out);
    while (out.n < SAGA_VALUE_MAX)
        saga_buf_add(&out, " ", 1);
    ck_assert_int_eq(read_bytes(out.at, out.n, &m), 0);
    check_message(&m);
    saga_buf_add(&out, " ", 1);
    ck_assert_int_eq(read_bytes(out.at, out.n, &m), SAGA_POISON);
    ck_assert_str_eq(reason, "too_large");
    saga_buf_free(&out);
    memset(cause + 1, 'c', 512);
    strcpy(cause + 513, "\"");
    ck_assert_int_eq(read_changed("causationid", cause, &m), 0);
    strcpy(cause + 513, "c\"");
    ck_assert_int_eq(read_changed("causationid", cause, &m), SAGA_POISON);
}
END_TEST

/* ---- Ids and names ---- */

/* Ids are read as they are written, in no other spelling. */
START_TEST(ids)
{
    char text[SAGA_ID_TEXT];
    struct saga_id id;
    int32_t lane;
    static const char *const good[] = {"0.1.0", "7.1042.1795513885123", "11.1.1",
                                       "2147483647.9223372036854775807.9223372036854775807"};
    static const char *const bad[] = {"",
                                      "7",
                                      "7.1",
                                      "7.1.1.1",
                                      "7.1.",
                                      "7..1",
                                      ".1.1",
                                      "07.1.1",
                                      "7.01.1",
                                      "7.1.01",
                                      "7.0.1",
                                      "-7.1.1",
                                      "+7.1.1",
                                      "7.-1.1",
                                      "7.1.1 ",
                                      " 7.1.1",
                                      "7.1.1x",
                                      "7,1,1",
                                      "7.1.0x1",
                                      "2147483648.1.1",
                                      "7.1e3.1",
                                      "a.b.c",
                                      "7.1.9223372036854775808",
                                      "7.99999999999999999999.1"};
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        ck_assert_msg(saga_id_read(good[i], strlen(good[i]), &lane, &id), "%s", good[i]);
        ck_assert_int_eq(saga_id_write(lane, id, text), strlen(good[i]));
        ck_assert_str_eq(text, good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        ck_assert_msg(!saga_id_read(bad[i], strlen(bad[i]), &lane, &id), "%s", bad[i]);
}
END_TEST

/* A payload that waits in table parked is read back as it was, and refused as in an event; of what is
 * refused the text is kept. */
START_TEST(payload_alone)
{
    struct saga_emission e = emission();
    struct saga_buf out = {0};
    struct saga_message m;
    void *data;

    saga_payload_write(e.event, e.key, e.data, &out);
    ck_assert_int_eq(saga_payload_read(e.event, e.key, out.at, out.n, &arena, &data, &err), 0);
    ck_assert(saga_fields_equal(e.event->fields, data, e.data));
    ck_assert_int_eq(saga_payload_read(e.event, "other", out.at, out.n, &arena, &data, &err),
                     SAGA_POISON);
    ck_assert_ptr_null(data);
    err.code = 0;
    ck_assert_int_eq(saga_payload_read(e.event, e.key, out.at, out.n - 1, &arena, &data, &err),
                     SAGA_POISON);
    err.code = 0;
    order.amount++; /* not what the lines sum up to */
    char *text = write_text(&e);
    order.amount--;
    ck_assert_int_eq(read_text(text, &m), 0);
    ck_assert(m.refused);
    out.n = 0;
    order.amount++;
    saga_payload_write(e.event, e.key, e.data, &out);
    order.amount--;
    saga_buf_add(&out, "", 1);
    ck_assert_str_eq(m.raw, out.at);
    free(text);
    saga_buf_free(&out);
}
END_TEST

/* Names have 1 to 64 bytes of the set, and no other byte. */
START_TEST(names)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    char name[66];
    for (int c = 0; c < 256; c++) {
        name[0] = (char)c;
        ck_assert_int_eq(saga_name_ok(name, 1), c && strchr(set, c));
    }
    memset(name, 'a', sizeof(name));
    ck_assert(!saga_name_ok(name, 0) && saga_name_ok(name, 64) && !saga_name_ok(name, 65));
    name[63] = ' ';
    ck_assert(!saga_name_ok(name, 64));
}
END_TEST

Suite *event_suite(void)
{
    Suite *suite = suite_create("event");
    TCase *tests = tcase_create("event");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, NULL, clean);
    tcase_add_test(tests, layout);
    tcase_add_test(tests, events_are_read_back);
    tcase_add_test(tests, order_does_not_matter);
    tcase_add_test(tests, spelled_otherwise);
    tcase_add_test(tests, unknown_types);
    tcase_add_test(tests, every_truncation);
    tcase_add_test(tests, changed_bytes);
    tcase_add_test(tests, outside_the_chain);
    tcase_add_test(tests, duplicate_attributes);
    tcase_add_test(tests, refused_data);
    tcase_add_test(tests, optional_attributes);
    tcase_add_test(tests, sizes);
    tcase_add_test(tests, ids);
    tcase_add_test(tests, payload_alone);
    tcase_add_test(tests, names);
    suite_add_tcase(suite, tests);
    return suite;
}
