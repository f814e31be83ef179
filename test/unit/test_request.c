/* Requests in every accepted form, with every fault, at every limit; made keys; forwards. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "events.h"
#include "field.h"
#include "suites.h"

#define PAYLOAD                                                                                    \
    "\"customer_id\":\"cust-1\",\"currency\":\"EUR\",\"lines\":[{\"sku\":\"apple\",\"quantity\":"  \
    "3,"                                                                                           \
    "\"unit_price\":125}],\"payment\":{\"token\":\"tok_ok\"}"
#define CLOUD "\"specversion\":\"1.0\",\"id\":\"x-1\",\"source\":\"/shop\",\"type\":\"PlaceOrder\""

static const char history[] = "5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11";
static const char trace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

static struct line lines[] = {{"apple", 3, 125}};
static struct order order = {"cust-1", "EUR", 0, {1, lines}, {NOW, "tok_ok"}};

static struct saga_arena arena;
static struct saga_err err;
static struct saga_message m;
static const char *reason;

/* The record being made. */
static struct saga_header headers[16];
static struct saga_record record;

static void begin(void)
{
    record = (struct saga_record){.topic = "order.requests",
                                  .partition = 7,
                                  .offset = 88,
                                  .time_ms = 1795513885123,
                                  .headers = headers};
    saga_arena_reset(&arena);
    err = (struct saga_err){0};
}

static void header(const char *name, const char *value)
{
    headers[record.headers_n++] = (struct saga_header){name, value, value ? strlen(value) : 0};
}

static int read_record(void)
{
    err.code = 0;
    *err.text = '\0';
    reason = "";
    return saga_request_read(&record, all_requests, &place_order, history, &arena, &m, &reason,
                             &err);
}

static int read_value(const char *value)
{
    record.value = value;
    record.value_n = strlen(value);
    return read_record();
}

static void check_placed(const char *key)
{
    ck_assert_str_eq(err.text, "");
    ck_assert_str_eq(m.type, "PlaceOrder");
    ck_assert_ptr_eq(m.event, &place_order);
    ck_assert_str_eq(m.key, key);
    ck_assert_str_eq(m.place, "order.requests/7/88");
    ck_assert(saga_fields_equal(place_order.fields, m.data, &order));
    ck_assert_int_eq(m.forwarded.seq, 0);
}

#define PLACED(value, key)                                                                         \
    ck_assert_int_eq(read_value(value), 0);                                                        \
    check_placed(key)
#define REFUSED(value, what, why)                                                                  \
    ck_assert_int_eq(read_value(value), SAGA_POISON);                                              \
    ck_assert_str_eq(reason, what);                                                                \
    ck_assert_str_eq(err.text, why)

/* ---- The forms ---- */

/* Plain: type and order_id may stand anywhere; members that other forms know mean nothing here. */
START_TEST(plain)
{
    begin();
    PLACED("{\"type\":\"PlaceOrder\",\"order_id\":\"ord-1\"," PAYLOAD "}", "ord-1");
    PLACED("{" PAYLOAD ",\"order_id\":\"ord-1\",\"type\":\"PlaceOrder\"}", "ord-1");
    PLACED(
        " {\"id\":17,\"source\":[],\"data\":{\"order_id\":\"x\"},\"subject\":\"ord-2\",\"time\":0,"
        "\"order_id\":\"ord-1\",\"typ\\u0065\":\"PlaceOrder\"," PAYLOAD "}\n",
        "ord-1");
    header("content-type", "application/json");
    PLACED("{\"type\":\"PlaceOrder\",\"order_id\":\"ord-1\"," PAYLOAD "}", "ord-1");
    ck_assert_int_eq(read_value("{\"type\":\"CompleteOrder\",\"order_id\":\"o\"}"), 0);
    ck_assert(m.event == &complete_order && m.data);
    ck_assert_int_eq(read_value("{\"type\":\"CancelOrder\",\"order_id\":\"o\",\"reason\":null}"),
                     0);
    ck_assert(m.event == &cancel_order && !((const struct reason *)m.data)->reason);
}
END_TEST

/* CloudEvents structured, told by its header or by specversion; the subject may stand for order_id.
 */
START_TEST(structured)
{
    static const char *const types[] = {NULL, "application/cloudevents+json",
                                        "Application/CloudEvents+JSON; charset=UTF-8",
                                        "application/cloudevents+json ;charset=utf-8"};
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        begin();
        header("content-type", types[i]);
        PLACED("{" CLOUD ",\"data\":{\"order_id\":\"ord-1\"," PAYLOAD "}}", "ord-1");
        ck_assert_str_eq(m.source, "/shop");
        PLACED("{\"data\":{" PAYLOAD ",\"order_id\":\"ord-1\"}," CLOUD ",\"subject\":\"ord-1\"}",
               "ord-1");
        PLACED("{" CLOUD ",\"subject\":\"ord-1\",\"data\":{" PAYLOAD "}}", "ord-1");
        PLACED("{" CLOUD ",\"subject\":null,\"data\":{\"order_id\":\"ord-1\"," PAYLOAD "}}",
               "ord-1");
        PLACED("{" CLOUD ",\"time\":\"2026-11-24T09:51:25.123Z\",\"subject\":\"ord-1\",\"data\":{"
               "\"order_id\":null," PAYLOAD "}}",
               "ord-1");
        ck_assert_int_eq(m.time_ms, 1795513885123);
    }
    begin();
    ck_assert_int_eq(read_value("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":"
                                "\"CompleteOrder\",\"subject\":\"ord-1\"}"),
                     0); /* data may be left out where it has nothing to say */
    ck_assert_str_eq(m.key, "ord-1");
    REFUSED("{" CLOUD ",\"subject\":\"ord-2\",\"data\":{\"order_id\":\"ord-1\"," PAYLOAD "}}",
            "invalid", "data.order_id: ord-1 is not the subject, ord-2");
    REFUSED("{" CLOUD ",\"subject\":\"a b\",\"data\":{" PAYLOAD "}}", "invalid",
            "subject: \"a b\" is not an order id");
    REFUSED("{" CLOUD ",\"data\":[]}", "invalid", "data: [] is not an object");
    REFUSED("{" CLOUD ",\"data\":{\"order_id\":\"o\"}}", "invalid",
            "data.customer_id: it is missing");
    REFUSED("{\"specversion\":\"1.0\",\"source\":\"/s\",\"type\":\"PlaceOrder\"}", "invalid",
            "id: it is missing");
    REFUSED("{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"\"}", "invalid",
            "source: it is missing");
    REFUSED("{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"/s\"}", "invalid",
            "specversion: \"0.3\" is not 1.0");
    REFUSED("{\"specversion\":\"1.0\",\"id\":1}", "invalid", "id: it is not a string");
    header("content-type", "application/cloudevents+json");
    REFUSED("{\"type\":\"PlaceOrder\",\"order_id\":\"o\"}", "invalid",
            "specversion: it is missing");
}
END_TEST

static void binary(void)
{
    begin();
    header("ce_specversion", "1.0");
    header("ce_id", "x-1");
    header("ce_source", "/shop");
    header("ce_type", "PlaceOrder");
    header("content-type", "application/json");
}

/* CloudEvents binary: attributes in headers, the value is data, whose members are only that. */
START_TEST(binary_mode)
{
    binary();
    PLACED("{\"order_id\":\"ord-1\"," PAYLOAD "}", "ord-1");
    PLACED("{\"type\":5,\"specversion\":\"0.3\",\"order_id\":\"ord-1\"," PAYLOAD "}", "ord-1");
    header("ce_subject", "ord-1");
    PLACED("{" PAYLOAD "}", "ord-1");
    PLACED("{\"order_id\":\"ord-1\"," PAYLOAD "}", "ord-1");
    REFUSED("{\"order_id\":\"ord-2\"," PAYLOAD "}", "invalid",
            "order_id: ord-2 is not the subject, ord-1");
    REFUSED("{\"customer_id\":\"\"}", "invalid",
            "customer_id: \"\" is not 1 to 64 of A-Z a-z 0-9 . _ : -");
    header("ce_type", "ShipOrder"); /* the newest of a name counts */
    ck_assert_int_eq(read_value("{}"), 0);
    ck_assert_ptr_eq(m.event, &ship_order);
    header("ce_type", "\xff");
    REFUSED("{}", "invalid", "ce_type: it is not UTF-8 without NUL");
    for (int i = 0; i < 4; i++) {
        static const char *const why[] = {"ce_specversion: it is missing", "ce_id: it is missing",
                                          "ce_source: it is missing", "ce_type: it is missing"};
        binary();
        headers[i].value = NULL;
        REFUSED("{\"order_id\":\"ord-1\"," PAYLOAD "}", "invalid", why[i]);
    }
}
END_TEST

/* A traceparent comes as attribute, as ce_ header or as header of its own; what is none is ignored.
 */
START_TEST(traces)
{
    char text[512];
    begin();
    header("traceparent", trace);
    PLACED("{\"type\":\"PlaceOrder\",\"order_id\":\"ord-1\"," PAYLOAD "}", "ord-1");
    ck_assert_str_eq(m.trace, trace);
    binary();
    header("ce_traceparent", trace);
    PLACED("{\"order_id\":\"ord-1\"," PAYLOAD "}", "ord-1");
    ck_assert_str_eq(m.trace, trace);
    begin();
    header("traceparent", "00-nonsense");
    PLACED("{\"type\":\"PlaceOrder\",\"order_id\":\"ord-1\"," PAYLOAD "}", "ord-1");
    ck_assert_ptr_null(m.trace);
    snprintf(text, sizeof(text),
             "{" CLOUD ",\"traceparent\":\"%s\",\"data\":{\"order_id\":\"ord-1\"," PAYLOAD "}}",
             trace);
    PLACED(text, "ord-1");
    ck_assert_str_eq(m.trace, trace);
}
END_TEST

/* ---- Faults ---- */

/* What is no JSON object is unreadable; what is one says which member is wrong. */
START_TEST(faults)
{
    begin();
    REFUSED("", "unreadable", "byte 0: an object was expected, but the text ends");
    REFUSED("[]", "unreadable", "byte 0: an object was expected");
    REFUSED("{\"type\":\"PlaceOrder\"", "unreadable",
            "byte 20: a comma or } was expected, but the text ends");
    REFUSED("{\"a\":1,\"a\":2}", "unreadable", "byte 11: a stands twice");
    REFUSED("{}x", "unreadable", "byte 2: something follows the value");
    REFUSED("{}", "invalid", "type: it is missing");
    REFUSED("{\"type\":7}", "invalid", "type: it is not a string");
    REFUSED("{\"type\":\"Nonsense\",\"order_id\":\"o\"}", "unknown_type",
            "type: there is no request \"Nonsense\"");
    REFUSED("{\"type\":\"OrderCreated\",\"order_id\":\"o\"}", "unknown_type",
            "type: there is no request \"OrderCreated\"");
    REFUSED("{\"type\":\"PayOrder\",\"token\":\"t\"}", "invalid", "order_id: it is missing");
    REFUSED("{\"type\":\"PayOrder\",\"order_id\":\"o\"}", "invalid", "token: it is missing");
    REFUSED("{\"type\":\"PayOrder\",\"order_id\":\"o\",\"token\":\"t t\"}", "invalid",
            "token: \"t t\" is not 1 to 64 of A-Z a-z 0-9 . _ : -");
    REFUSED(
        "{\"type\":\"PlaceOrder\",\"order_id\":\"o\",\"customer_id\":\"c\",\"currency\":\"EUR\","
        "\"payment\":{\"mode\":\"later\"},\"lines\":[{\"sku\":\"a\",\"quantity\":1e3,"
        "\"unit_price\":1}]}",
        "invalid", "lines[0].quantity: 1e3 is not an integer");
    REFUSED(
        "{\"type\":\"PlaceOrder\",\"order_id\":\"o\",\"customer_id\":\"c\",\"currency\":\"EUR\","
        "\"payment\":{\"mode\":\"later\"},\"lines\":[{\"sku\":\"a\",\"quantity\":1000000,"
        "\"unit_price\":1000000000000}]}",
        "invalid", "lines: the sum of quantity x unit_price is above 1000000000000000");
    record.value = NULL;
    record.value_n = 0;
    ck_assert_int_eq(read_record(), SAGA_POISON); /* a tombstone */
    ck_assert_str_eq(reason, "unreadable");
}
END_TEST

/* Cut off anywhere, in any form, a request is refused and never read beyond its end. */
START_TEST(every_truncation)
{
    static const char *const values[] = {
        "{\"type\":\"PlaceOrder\",\"order_id\":\"ord-1\"," PAYLOAD "}",
        "{" CLOUD ",\"data\":{\"order_id\":\"ord-1\"," PAYLOAD "}}"};
    begin();
    for (size_t i = 0; i < 2; i++)
        for (size_t n = 0, all = strlen(values[i]); n <= all; n++) {
            char *exact = malloc(n ? n : 1);
            memcpy(exact, values[i], n);
            record.value = exact;
            record.value_n = n;
            ck_assert_int_eq(read_record(), n == all ? 0 : SAGA_POISON);
            free(exact);
        }
}
END_TEST

/* ---- Made keys ---- */

static const char *made(void)
{
    static const char value[] = "{\"type\":\"PlaceOrder\"," PAYLOAD "}";
    ck_assert_int_eq(read_value(value), 0);
    ck_assert(saga_name_ok(m.key, strlen(m.key)));
    return m.key;
}

/* A PlaceOrder without order_id gets a UUIDv5: the same one for the same record, whoever reads it
 * and whatever the value; another for another place or time. */
START_TEST(made_keys)
{
    char first[40];
    begin();
    strcpy(first, made());
    ck_assert_uint_eq(strlen(first), 36);
    ck_assert_int_eq(first[14], '5');
    ck_assert_str_eq(first,
                     "870c9a4c-eba8-57fc-b382-12e414a46b53"); /* fixed for ever: a redelivered
                                                                 request must find its order */
    ck_assert_str_eq(first, made());
    ck_assert_int_eq(read_value("{\"order_id\":null,\"type\":\"PlaceOrder\"," PAYLOAD "}"), 0);
    ck_assert_str_eq(first, m.key);
    ck_assert_int_eq(read_value("{" CLOUD ",\"data\":{" PAYLOAD "}}"), 0);
    ck_assert_str_eq(first, m.key);
    record.offset++;
    ck_assert_str_ne(first, made());
    begin();
    record.partition++;
    ck_assert_str_ne(first, made());
    begin();
    record.time_ms++;
    ck_assert_str_ne(first, made());
    begin();
    record.topic = "other";
    ck_assert_str_ne(first, made());
    begin();
    REFUSED("{\"type\":\"ShipOrder\"}", "invalid", "order_id: it is missing");
    REFUSED("{" CLOUD "}", "invalid", "data.customer_id: it is missing");
}
END_TEST

/* ---- Forwards ---- */

static int read_forward(const char *id, const char *from)
{
    begin();
    header("forwarded-id", id);
    header("forwarded-from", from);
    return read_value("{\"type\":\"PlaceOrder\",\"order_id\":\"ord-1\"," PAYLOAD "}");
}

/* A forward of ours has its place in its source's chain and the place where it first stood; one
 * that is not of our history, or not whole, is a plain request. */
START_TEST(forwards)
{
    static const char *const from = "order.requests/3/17";
    static const struct {
        const char *id, *from;
    } plain_ones[] = {
        {"00000000-0000-0000-0000-000000000000/3.5.9", from},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11", from},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c113.5.9", from},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11/3.5", from},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11/3.5.9x", from},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11/4.5.9", from}, /* of another lane than its place */
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11/3.5.9", NULL},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11/3.5.9", "order.requests/3"},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11/3.5.9", "/3/17"},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11/3.5.9", "order.requests/03/17"},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11/3.5.9", "order.requests/3/-1"},
        {"5f0c2a52-6f1e-4f0e-8a53-0d3c5a1b7c11/3.5.9", ""},
        {NULL, from}};
    char id[80];
    snprintf(id, sizeof(id), "%s/3.5.9", history);
    ck_assert_int_eq(read_forward(id, from), 0);
    ck_assert(m.forwarded.seq == 5 && m.forwarded.term == 9 && m.forwarded_from == 3);
    ck_assert_str_eq(m.place, from);
    ck_assert_str_eq(m.key, "ord-1");
    for (size_t i = 0; i < sizeof(plain_ones) / sizeof(*plain_ones); i++) {
        ck_assert_int_eq(read_forward(plain_ones[i].id, plain_ones[i].from), 0);
        check_placed("ord-1");
    }
}
END_TEST

/* The value of a forward names its order, and is otherwise the same bytes: what reads it finds the
 * order that the first reader found. */
START_TEST(forwarded_values)
{
    static const struct {
        const char *value, *becomes; /* NULL: stays */
    } rows[] = {{"{\"type\":\"PlaceOrder\"," PAYLOAD "}",
                 "{\"order_id\":\"ord-9\",\"type\":\"PlaceOrder\"," PAYLOAD "}"},
                {" { \"type\":\"PlaceOrder\"," PAYLOAD "} ",
                 " {\"order_id\":\"ord-9\", \"type\":\"PlaceOrder\"," PAYLOAD "} "},
                {"{\"type\":\"PlaceOrder\",\"order_id\": null ," PAYLOAD "}",
                 "{\"type\":\"PlaceOrder\",\"order_id\": \"ord-9\" ," PAYLOAD "}"},
                {"{\"type\":\"PlaceOrder\",\"order_id\":\"ord-9\"," PAYLOAD "}", NULL},
                {"{" CLOUD ",\"data\": {" PAYLOAD "}}",
                 "{" CLOUD ",\"data\": {\"order_id\":\"ord-9\"," PAYLOAD "}}"},
                {"{" CLOUD ",\"data\":{" PAYLOAD ",\"order_id\":null}}",
                 "{" CLOUD ",\"data\":{" PAYLOAD ",\"order_id\":\"ord-9\"}}"},
                {"{" CLOUD ",\"subject\":\"ord-9\",\"data\":{" PAYLOAD "}}", NULL},
                {"{" CLOUD ",\"data\":{\"order_id\":\"ord-9\"," PAYLOAD "}}", NULL},
                {"{" CLOUD ",\"order_id\":\"ord-8\",\"data\":{" PAYLOAD "}}",
                 "{" CLOUD ",\"order_id\":\"ord-8\",\"data\":{\"order_id\":\"ord-9\"," PAYLOAD
                 "}}"}};
    const char *value;
    size_t n;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        const char *expected = rows[i].becomes ? rows[i].becomes : rows[i].value;
        begin();
        ck_assert_int_eq(read_value(rows[i].value), 0);
        saga_request_forward(&record, "ord-9", &arena, &value, &n);
        ck_assert_msg(n == strlen(expected) && memcmp(value, expected, n) == 0, "%.*s", (int)n,
                      value);
        record.value = value;
        record.value_n = n;
        ck_assert_int_eq(read_record(), 0);
        check_placed("ord-9");
    }
    binary();
    record.value = "{" PAYLOAD "}";
    record.value_n = strlen(record.value);
    saga_request_forward(&record, "ord-9", &arena, &value, &n);
    ck_assert(n == record.value_n + strlen("\"order_id\":\"ord-9\","));
    header("ce_subject", "ord-9");
    saga_request_forward(&record, "ord-9", &arena, &value, &n);
    ck_assert_ptr_eq(value, record.value);
    begin();
    record.value = "{}";
    record.value_n = 2;
    saga_request_forward(&record, "ord-9", &arena, &value, &n);
    ck_assert(n == 20 && memcmp(value, "{\"order_id\":\"ord-9\"}", n) == 0);
}
END_TEST

/* ---- Sizes ---- */

static int read_sized(size_t value_n, size_t headers_n, bool forward)
{
    static char value[SAGA_VALUE_MAX + 1024], filler[SAGA_HEADERS_MAX + 1024], id[80];
    size_t used = 0;
    begin();
    if (forward) {
        snprintf(id, sizeof(id), "%s/3.5.9", history);
        header("forwarded-id", id);
        header("forwarded-from", "order.requests/3/17");
        used = strlen("forwarded-idforwarded-fromorder.requests/3/17") + strlen(id);
    }
    memset(value, ' ', sizeof(value));
    memcpy(value, "{\"type\":\"CompleteOrder\",\"order_id\":\"o\"}", 39);
    header("filler", "");
    headers[record.headers_n - 1].value = filler;
    headers[record.headers_n - 1].n = headers_n - used - strlen("filler");
    record.value = value;
    record.value_n = value_n;
    return read_record();
}

/* 64 KiB of value and 16 KiB of headers, each 512 more for a forward; not a byte more. */
START_TEST(sizes)
{
    for (int forward = 0; forward < 2; forward++) {
        size_t value = SAGA_VALUE_MAX + (forward ? 512 : 0),
               all = SAGA_HEADERS_MAX + (forward ? 512 : 0);
        ck_assert_int_eq(read_sized(value, all, forward), 0);
        ck_assert_int_eq(read_sized(value + 1, all, forward), SAGA_POISON);
        ck_assert_str_eq(reason, "too_large");
        ck_assert_int_eq(read_sized(value, all + 1, forward), SAGA_POISON);
        ck_assert_str_eq(reason, "too_large");
    }
}
END_TEST

/* What we write ourselves is the plain form, and is read back. */
START_TEST(requests_are_read_back)
{
    struct saga_buf out = {0};
    struct reason none = {NULL};
    begin();
    saga_request_write(&place_order, "ord-1", &order, &out);
    saga_buf_add(&out, "", 1);
    PLACED(out.at, "ord-1");
    out.n = 0;
    saga_request_write(&place_order, NULL, &order, &out);
    saga_buf_add(&out, "", 1);
    ck_assert_int_eq(strncmp(out.at, "{\"type\":\"PlaceOrder\",\"customer_id\":", 35), 0);
    ck_assert_int_eq(read_value(out.at), 0);
    out.n = 0;
    saga_request_write(&complete_order, "ord-1", NULL, &out);
    saga_buf_add(&out, "", 1);
    ck_assert_str_eq(out.at, "{\"type\":\"CompleteOrder\",\"order_id\":\"ord-1\"}");
    out.n = 0;
    saga_request_write(&cancel_order, NULL, &none, &out);
    saga_buf_add(&out, "", 1);
    ck_assert_str_eq(out.at, "{\"type\":\"CancelOrder\"}");
    saga_buf_free(&out);
}
END_TEST

static void end(void)
{
    saga_arena_free(&arena);
}

Suite *request_suite(void)
{
    Suite *suite = suite_create("request");
    TCase *tests = tcase_create("request");
    tcase_add_checked_fixture(tests, NULL, end);
    tcase_add_test(tests, plain);
    tcase_add_test(tests, structured);
    tcase_add_test(tests, binary_mode);
    tcase_add_test(tests, traces);
    tcase_add_test(tests, faults);
    tcase_add_test(tests, every_truncation);
    tcase_add_test(tests, made_keys);
    tcase_add_test(tests, forwards);
    tcase_add_test(tests, forwarded_values);
    tcase_add_test(tests, sizes);
    tcase_add_test(tests, requests_are_read_back);
    suite_add_tcase(suite, tests);
    return suite;
}
