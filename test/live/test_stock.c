/* The stock over HTTP, its real handlers on a real PostgreSQL (libpq's PG* variables) in a schema
 * of its own: what a POST may and may not do beside the batches of the lanes, which are played here
 * with the service's own SQL. */
#include <check.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "db.h"
#include "http.h"
#include "inventory.h"
#include "suites.h"
#include "test.h"
#include "web.h"

enum { PATIENCE_S = 20, ROUNDS = 150, BATCHES = 3 };

static char name[32], schema[40];
static struct saga_service service;
static struct db *db;
static int port;

/* ---- The world ---- */

static int no_lanes(struct saga_lane_view *out, int max)
{
    (void)out, (void)max;
    return 0;
}

static int no_total(void)
{
    return 0;
}

static int64_t never(void)
{
    return 0;
}

static const char *nothing(char *text_of, size_t n)
{
    (void)text_of, (void)n;
    return NULL;
}

static const char *file_text(const char *file_name)
{
    static char text_of[16384];
    FILE *file = fopen(file_name, "r");

    ck_assert_ptr_nonnull(file);
    text_of[fread(text_of, 1, sizeof text_of - 1, file)] = '\0';
    fclose(file);
    return text_of;
}

static void start(void)
{
    static const struct saga_view view = {no_lanes, no_total, never, nothing};
    struct saga_conf conf = {.database = "", .prefix = "", .http_listen = "127.0.0.1:0"};
    struct saga_err err = {0};

    snprintf(name, sizeof name, "stock_test_%ld", (long)getpid());
    snprintf(schema, sizeof schema, "%s_svc", name);
    service = (struct saga_service){.name = name, .routes = inventory_routes};
    db = db_new(NULL);
    db_run(db, "create schema %s; set search_path = %s", schema, schema);
    db_run(db, "%s", file_text("inventory-svc/sql/001.sql"));
    db_run(db, "%s", file_text("inventory-svc/sql/002.sql"));
    ck_assert_msg(saga_http_start(&conf, &service, &view, &port, &err) == 0, "%s", err.text);
}

static void stop(void)
{
    saga_http_stop();
    db_run(db, "drop schema %s cascade", schema);
    db_free(db);
}

/* ---- Asking ---- */

static const char *url(const char *path)
{
    return text("http://127.0.0.1:%d/api/v1/inventory%s", port, path);
}

static json_t *got(const char *path)
{
    json_t *body = NULL;

    ck_assert_int_eq(web_get(&body, "%s", url(path)), 200);
    ck_assert_ptr_nonnull(body);
    return body;
}

static long post(const char *sku, int64_t quantity, const char *header)
{
    const char *const headers[] = {header, NULL};

    return web_post(NULL, url(""), headers,
                    text("{\"sku\":\"%s\",\"quantity\":%" PRId64 "}", sku, quantity));
}

/* available, reserved, shipped, received and version, as a GET shows them */
static const char *counts(const char *sku)
{
    json_int_t n[5];
    json_t *stock = got(text("/%s", sku));

    ck_assert_int_eq(json_unpack(stock, "{s:I, s:I, s:I, s:I, s:I}", "available", &n[0], "reserved",
                                 &n[1], "shipped", &n[2], "received", &n[3], "version", &n[4]),
                     0);
    json_decref(stock);
    return text("%lld %lld %lld %lld v%lld", n[0], n[1], n[2], n[3], n[4]);
}

static int64_t received_rows(void)
{
    return db_int(db, "select count(*) from stock_movement where kind = 'received'");
}

/* What a batch does with n pieces of an SKU. */
static void reserve(const char *sku, int n)
{
    db_run(db,
           "update stock set available = available - %d, reserved = reserved + %d,"
           " version = version + 1 where sku = '%s'",
           n, n, sku);
}

/* ---- What a POST does ---- */

/* The first makes the SKU, later ones set what is available; what came in is the difference. */
START_TEST(a_post_sets_what_is_available)
{
    ck_assert_int_eq(post("apple", 10, "From: ada@example.org"), 201);
    ck_assert_str_eq(counts("apple"), "10 0 0 10 v1");
    reserve("apple", 4);
    ck_assert_int_eq(post("apple", 50, NULL), 200);
    ck_assert_str_eq(counts("apple"), "50 4 0 54 v3");
    ck_assert_int_eq(post("apple", 0, NULL), 200);
    ck_assert_str_eq(counts("apple"), "0 4 0 4 v4");

    json_t *body = got("/apple/movements"), *list = json_object_get(body, "movements");
    static const int quantity[] = {-50, 44, 10}; /* newest first */
    ck_assert_int_eq((int)json_array_size(list), 3);
    for (int i = 0; i < 3; i++) {
        json_t *row = json_array_get(list, (size_t)i);
        ck_assert_str_eq(json_string_value(json_object_get(row, "kind")), "received");
        ck_assert_int_eq(json_integer_value(json_object_get(row, "quantity")), quantity[i]);
        ck_assert(
            same(json_string_value(json_object_get(row, "by")), i == 2 ? "ada@example.org" : NULL));
    }
    json_decref(body);
}
END_TEST

static const struct {
    const char *json, *header;
    long status;
} refusals[] = {
    {"{\"sku\":\"apple\",\"quantity\":-1}", NULL, 422},
    {"{\"sku\":\"apple\",\"quantity\":1000000000001}", NULL, 422},
    {"{\"sku\":\"apple\",\"quantity\":1.0}", NULL, 422},
    {"{\"sku\":\"a b\",\"quantity\":1}", NULL, 422},
    {"{\"sku\":\"apple\"}", NULL, 422},
    {"{\"quantity\":1}", NULL, 422},
    {"{\"sku\":\"apple\",\"quantity\":1", NULL, 400},
    {"{\"sku\":\"apple\",\"quantity\":1}x", NULL, 400},
    {"{\"sku\":\"apple\",\"quantity\":1}", "If-Match: seven", 400},
    {"{\"sku\":\"apple\",\"quantity\":1}", "If-Match: \"7", 400},
    {"{\"sku\":\"apple\",\"quantity\":1}", "If-Match: *", 412}, /* there is none */
    {"{\"sku\":\"apple\",\"quantity\":1}", "If-Match: \"1\"", 412},
};

/* What is refused leaves nothing behind, and the next is served. */
START_TEST(a_refused_post_changes_nothing)
{
    const char *const headers[] = {refusals[_i].header, NULL};
    json_t *body = NULL;

    ck_assert_int_eq(web_post(&body, url(""), headers, refusals[_i].json), refusals[_i].status);
    ck_assert_ptr_nonnull(json_object_get(body, "title"));
    json_decref(body);
    ck_assert_int_eq(db_int(db, "select count(*) from stock"), 0);
    ck_assert_int_eq(received_rows(), 0);
    ck_assert_int_eq(post("apple", 1, NULL), 201);
}
END_TEST

/* If-Match sets only the version that was seen. */
START_TEST(if_match_is_kept)
{
    ck_assert_int_eq(post("apple", 10, NULL), 201);
    ck_assert_int_eq(post("apple", 20, "If-Match: \"1\""), 200);
    ck_assert_int_eq(post("apple", 30, "If-Match: \"1\""), 412);
    ck_assert_int_eq(post("apple", 30, "If-Match: 1"), 412);
    ck_assert_str_eq(counts("apple"), "20 0 0 20 v2");
    ck_assert_int_eq(post("apple", 30, "If-Match: 2"), 200);
    ck_assert_int_eq(post("apple", 40, "If-Match: *"), 200);
    ck_assert_str_eq(counts("apple"), "40 0 0 40 v4");
}
END_TEST

/* ATTACKS 41: the answer is lost, 30 pieces are reserved meanwhile, the POST is repeated: no stock
 * is invented. Also if it asked for a version, which its own first run has moved. */
START_TEST(a_repeated_post_invents_no_stock)
{
    ck_assert_int_eq(post("apple", 10, NULL), 201);
    const char *const headers[] = {"Idempotency-Key: k1", "If-Match: \"1\"", NULL};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(web_post(NULL, url(""), headers, "{\"sku\":\"apple\",\"quantity\":100}"),
                         200);
        if (i == 0)
            reserve("apple", 30);
        ck_assert_str_eq(counts("apple"), "70 30 0 100 v3");
    }
    ck_assert_int_eq(received_rows(), 2);
}
END_TEST

/* A key belongs to the SKU that it was first used for. */
START_TEST(a_key_of_another_sku_is_refused)
{
    ck_assert_int_eq(post("apple", 10, "Idempotency-Key: k1"), 201);
    ck_assert_int_eq(post("pear", 10, "Idempotency-Key: k1"), 422);
    ck_assert_int_eq((int)web_get(NULL, "%s", url("/pear")), 404);
    ck_assert_int_eq(post("apple", 10, "Idempotency-Key: k1"), 200);
    ck_assert_int_eq(received_rows(), 1);
}
END_TEST

/* Nor does it serve for another quantity. */
START_TEST(a_key_of_another_quantity_is_refused)
{
    ck_assert_int_eq(post("apple", 10, "Idempotency-Key: k1"), 201);
    ck_assert_int_eq(post("apple", 11, "Idempotency-Key: k1"), 422);
    ck_assert_str_eq(counts("apple"), "10 0 0 10 v1");
    ck_assert_int_eq(post("apple", 10, "Idempotency-Key: k1"), 200);
    db_run(db, "update stock_movement set asked = null"); /* an older row does not say */
    ck_assert_int_eq(post("apple", 11, "Idempotency-Key: k1"), 200);
    ck_assert_str_eq(counts("apple"), "10 0 0 10 v1");
}
END_TEST

/* Why is kept with by whom. */
START_TEST(the_reason_is_kept)
{
    const char *const headers[] = {"From: ada@example.org", NULL};

    ck_assert_int_eq(web_post(NULL, url(""), headers,
                              "{\"sku\":\"apple\",\"quantity\":3,\"reason\":\"counted\"}"),
                     201);
    json_t *body = got("/apple/movements");
    json_t *row = json_array_get(json_object_get(body, "movements"), 0);
    ck_assert(same(json_string_value(json_object_get(row, "reason")), "counted"));
    ck_assert(same(json_string_value(json_object_get(row, "by")), "ada@example.org"));
    json_decref(body);
}
END_TEST

/* ---- Beside others ---- */

struct posted {
    const char *sku, *header;
    long status;
};

static void *post_ten(void *posted)
{
    struct posted *p = posted;

    p->status = post(p->sku, 10, p->header);
    return NULL;
}

#define WAITING                                                                                    \
    "select count(*) from pg_locks w join pg_locks h on h.pid = pg_backend_pid() and"              \
    " h.transactionid = w.transactionid where not w.granted"

/* Begins a POST of 10, lets it wait for the transaction that db has open, commits that. -> its
 * status */
static long post_meanwhile(const char *sku, const char *header)
{
    struct posted p = {sku, header, 0};
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, post_ten, &p), 0);
    AWAIT(PATIENCE_S, db_int(db, WAITING) == 1);
    db_run(db, "commit");
    pthread_join(thread, NULL);
    return p.status;
}

/* Two processes make the same SKU: the later one sets what the earlier has made. */
START_TEST(an_sku_is_made_once)
{
    db_run(db, "begin; insert into stock (sku, available, received) values ('apple', 3, 3)");
    ck_assert_int_eq(post_meanwhile("apple", NULL), 200);
    ck_assert_str_eq(counts("apple"), "10 0 0 10 v2");
    ck_assert_int_eq(db_int(db, "select quantity from stock_movement"), 7);
}
END_TEST

/* The same key in two processes at once: the later one is a repeat. */
START_TEST(a_key_used_at_the_same_time_is_a_repeat)
{
    ck_assert_int_eq(post("apple", 5, NULL), 201);
    db_run(db, "begin; update stock set available = 10, received = 10, version = 2;"
               "insert into stock_movement (sku, kind, quantity, at, idempotency_key)"
               " values ('apple', 'received', 5, now(), 'k1')");
    ck_assert_int_eq(post_meanwhile("apple", "Idempotency-Key: k1"), 200);
    ck_assert_str_eq(counts("apple"), "10 0 0 10 v2");
    ck_assert_int_eq(received_rows(), 2);
}
END_TEST

/* The same, for another SKU: nothing locks both, only the key itself can tell. */
START_TEST(a_key_used_at_the_same_time_for_another_sku_is_refused)
{
    ck_assert_int_eq(post("apple", 5, NULL), 201);
    db_run(db, "begin; insert into stock_movement (sku, kind, quantity, at, idempotency_key)"
               " values ('pear', 'received', 5, now(), 'k1')");
    ck_assert_int_eq(post_meanwhile("apple", "Idempotency-Key: k1"), 422);
    ck_assert_str_eq(counts("apple"), "5 0 0 5 v1");
}
END_TEST

static const char begin[] = "begin";
static const char commit[] = "commit";

/* One batch: locks both SKUs as the engine does, reserves a piece of each, stores them. -> 0 */
static int batch(struct saga_pg *pg, const char *first, const char *second, struct saga_err *err)
{
    struct saga_params p = {0};
    int64_t n[2][4];
    int rc;

    saga_param_array(&p, SAGA_OID_TEXT);
    saga_element_text(&p, first, -1);
    saga_element_text(&p, second, -1);
    saga_param_array_end(&p);
    saga_param_array(&p, SAGA_OID_TEXT);
    saga_param_array_end(&p);
    if ((rc = saga_pg_send(pg, begin, NULL, err)) < 0 ||
        (rc = saga_pg_send(pg, stock_table.load, &p, err)) < 0 ||
        (rc = saga_pg_sync(pg, err)) < 0 || (rc = saga_pg_wait(pg, err)) < 0)
        goto out;
    const struct saga_rows *rows = saga_pg_result(pg, 1);
    saga_params_reset(&p);
    saga_param_array(&p, SAGA_OID_TEXT);
    for (int i = 0; i < 2; i++) {
        saga_element_text(&p, saga_rows_text(rows, i, 0), -1);
        for (int c = 0; c < 4; c++) /* available, reserved, shipped, version */
            n[i][c] = saga_rows_int(rows, i, 2 + c) + (c == 0 ? -1 : c == 2 ? 0 : 1);
    }
    saga_param_array_end(&p);
    for (int c = 0; c < 4; c++) {
        saga_param_array(&p, SAGA_OID_INT8);
        for (int i = 0; i < 2; i++)
            saga_element_int(&p, n[i][c]);
        saga_param_array_end(&p);
    }
    if ((rc = saga_pg_send(pg, stock_table.update, &p, err)) < 0 ||
        (rc = saga_pg_send(pg, commit, NULL, err)) < 0 || (rc = saga_pg_sync(pg, err)) < 0)
        goto out;
    rc = saga_pg_wait(pg, err);
out:
    saga_params_free(&p);
    return rc;
}

struct batches {
    bool forward;
    struct saga_err err;
};

static void *run_batches(void *batches)
{
    struct batches *b = batches;
    struct saga_pg *pg = saga_pg_new("", "stock-test", schema);

    for (int i = 0; i < ROUNDS; i++)
        if (batch(pg, b->forward ? "Apple" : "pear", b->forward ? "pear" : "Apple", &b->err) < 0)
            break;
    saga_pg_free(pg);
    return NULL;
}

/* ATTACKS 39: batches touch two SKUs in opposite orders, while POSTs set one and the other. Each
 * gets through (a deadlock would fail one) and counts (a lost update would lack in version,
 * reserved or the balance). The SKUs are ordered otherwise by most languages than by bytes. */
START_TEST(batches_and_posts_neither_deadlock_nor_lose)
{
    pthread_t thread[BATCHES];
    struct batches all[BATCHES] = {{0}};

    ck_assert_int_eq(post("Apple", 1000000, NULL), 201);
    ck_assert_int_eq(post("pear", 1000000, NULL), 201);
    for (int i = 0; i < BATCHES; i++) {
        all[i].forward = i % 2;
        ck_assert_int_eq(pthread_create(&thread[i], NULL, run_batches, &all[i]), 0);
    }
    for (int i = 0; i < ROUNDS; i++)
        ck_assert_int_eq(post(i % 2 ? "Apple" : "pear", 1000000 + i, NULL), 200);
    for (int i = 0; i < BATCHES; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < BATCHES; i++)
        ck_assert_msg(!all[i].err.code, "%s", all[i].err.text);
    ck_assert_int_eq(db_int(db,
                            "select count(*) from stock s where available + reserved = received"
                            " and reserved = %d and version = 1 + %d + %d and received ="
                            " (select sum(quantity) from stock_movement m where m.sku = s.sku)",
                            BATCHES * ROUNDS, BATCHES * ROUNDS, ROUNDS / 2),
                     2);
}
END_TEST

/* ---- Pages ---- */

/* Pages go through all SKUs once, in the order of bytes. */
START_TEST(pages_of_the_inventory)
{
    static const char *const skus[] = {"B", "a", "b", "c", "d"};
    const char *after = "";
    int n = 0;

    for (int i = 4; i >= 0; i--)
        ck_assert_int_eq(post(skus[i], i, NULL), 201);
    while (after) {
        json_t *body = got(text("?limit=2&after=%s", after));
        json_t *list = json_object_get(body, "inventory"), *row;
        size_t i;
        json_array_foreach(list, i, row)
            ck_assert_str_eq(json_string_value(json_object_get(row, "sku")), skus[n++]);
        const char *next = json_string_value(json_object_get(body, "next"));
        after = next ? text("%s", next) : NULL;
        json_decref(body);
    }
    ck_assert_int_eq(n, 5);
    ck_assert_int_eq((int)web_get(NULL, "%s", url("?limit=0")), 400);
    ck_assert_int_eq((int)web_get(NULL, "%s", url("?limit=1001")), 400);
    ck_assert_int_eq((int)web_get(NULL, "%s", url("?limit=x")), 400);
}
END_TEST

/* A page of movements never ends within those of one time, so the pages have each of them once. */
START_TEST(pages_of_movements)
{
    const char *before = NULL;
    int n = 0, pages = 0;

    db_run(db, "insert into stock_movement (sku, kind, quantity, order_id, event_id, at)"
               " select 'apple', 'reserved', i, 'o' || i, '1.1.1',"
               "        timestamptz '2026-11-24 12:00:00Z' + i / 5 * interval '1 us'"
               "   from generate_series(0, 19) i");
    do {
        json_t *body = got(before ? text("/apple/movements?limit=3&before=%s", before)
                                  : "/apple/movements?limit=3");
        n += (int)json_array_size(json_object_get(body, "movements"));
        const char *next = json_string_value(json_object_get(body, "next"));
        before = next ? text("%s", next) : NULL;
        json_decref(body);
        pages++;
    } while (before);
    ck_assert_int_eq(n, 20);
    ck_assert_int_eq(pages, 5); /* four of five, and one that is empty */
    ck_assert_int_ge((int)web_get(NULL, "%s", url("/apple/movements?before=noon")), 400);
}
END_TEST

Suite *stock_suite(void)
{
    Suite *suite = suite_create("stock");
    TCase *alone = tcase_create("alone"), *beside = tcase_create("beside others");

    tcase_add_checked_fixture(alone, start, stop);
    tcase_add_test(alone, a_post_sets_what_is_available);
    tcase_add_loop_test(alone, a_refused_post_changes_nothing, 0,
                        sizeof refusals / sizeof *refusals);
    tcase_add_test(alone, if_match_is_kept);
    tcase_add_test(alone, a_repeated_post_invents_no_stock);
    tcase_add_test(alone, a_key_of_another_sku_is_refused);
    tcase_add_test(alone, a_key_of_another_quantity_is_refused);
    tcase_add_test(alone, the_reason_is_kept);
    tcase_add_test(alone, pages_of_the_inventory);
    tcase_add_test(alone, pages_of_movements);
    suite_add_tcase(suite, alone);

    tcase_add_checked_fixture(beside, start, stop);
    tcase_set_timeout(beside, 3 * PATIENCE_S);
    tcase_add_test(beside, an_sku_is_made_once);
    tcase_add_test(beside, a_key_used_at_the_same_time_is_a_repeat);
    tcase_add_test(beside, a_key_used_at_the_same_time_for_another_sku_is_refused);
    tcase_add_test(beside, batches_and_posts_neither_deadlock_nor_lose);
    suite_add_tcase(suite, beside);
    return suite;
}
