/* The HTTP server with a service of its own, asked by libcurl: what every route gets (limits,
 * errors, methods), and what /livez, /readyz, /lanes and /metrics say of an engine that the test
 * plays. */
#include <check.h>
#include <curl/curl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "http.h"
#include "mem.h"
#include "metrics.h"
#include "suites.h"

enum { BODY_MAX = 64 * 1024 };

/* ---- The engine's part ---- */

/* The test has it but while it asks: what it plays is read in the server's thread. */
static pthread_mutex_t stage = PTHREAD_MUTEX_INITIALIZER;
static struct saga_lane_view lane[3];
static int lanes_n;
static int64_t turned_us;
static const char *what_waits;

static int64_t monotonic_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int lanes(struct saga_lane_view *out, int max)
{
    pthread_mutex_lock(&stage);
    int n = lanes_n < max ? lanes_n : max;
    memcpy(out, lane, (size_t)n * sizeof *out);
    pthread_mutex_unlock(&stage);
    return n;
}

static int total(void)
{
    return 12;
}

static int64_t turned(void)
{
    pthread_mutex_lock(&stage);
    int64_t us = turned_us;
    pthread_mutex_unlock(&stage);
    return us;
}

static const char *waits(char *text, size_t n)
{
    pthread_mutex_lock(&stage);
    snprintf(text, n, "%s", what_waits ? what_waits : "");
    pthread_mutex_unlock(&stage);
    return *text ? text : NULL;
}

/* ---- The service's part ---- */

static void show(struct saga_request *req)
{
    const char *q = saga_query(req, "q");
    saga_reply_header(req, "ETag", "\"7\"");
    saga_reply(req, 200,
               json_pack("{s:s, s:s}", "id", saga_path(req, "id"), "q", q ? q : "(none)"));
}

/* Answers with the size of the body, or the error that X-Error asks for. */
static void take(struct saga_request *req)
{
    size_t n;
    struct saga_err err = {0};
    const char *code = saga_header(req, "X-Error");
    saga_body(req, &n);
    if (!code) {
        saga_reply(req, 202, json_pack("{s:I}", "n", (json_int_t)n));
        return;
    }
    saga_err(&err, atoi(code), "what went wrong");
    saga_reply_error(req, &err);
}

static const struct saga_route routes[] = {{"GET", "/api/v1/orders/{id}", show},
                                           {"POST", "/api/v1/orders", take},
                                           {"GET", "/api/v1/orders", take},
                                           {0}};
static const struct saga_service service = {.name = "order", .routes = routes};
static const struct saga_view view = {lanes, total, turned, waits};
static const struct saga_conf conf = {.http_listen = "127.0.0.1:0", .database = "", .prefix = ""};

/* ---- Asking ---- */

static int port;
static CURL *curl;
static struct curl_slist *headers;
static char answer[65536], answer_headers[8192];
static size_t answer_n, answer_headers_n;

static size_t keep(char *data, size_t size, size_t n, void *to)
{
    bool body = to == answer;
    size_t *at = body ? &answer_n : &answer_headers_n,
           room = body ? sizeof answer : sizeof answer_headers;
    ck_assert_uint_lt(*at + size * n, room);
    memcpy((char *)to + *at, data, size * n);
    *at += size * n;
    ((char *)to)[*at] = 0;
    return size * n;
}

static void header(const char *line)
{
    headers = curl_slist_append(headers, line);
}

/* body NULL: none. -> status; the headers given before are used up. */
static long ask(const char *method, const char *path, const char *body, size_t n)
{
    char url[70000];
    long status = 0;
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", port, path);
    curl_easy_reset(curl);
    answer_n = answer_headers_n = 0;
    *answer = *answer_headers = 0;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 10000L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, answer_headers);
    if (body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)n);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    }
    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    pthread_mutex_unlock(&stage);
    CURLcode rc = curl_easy_perform(curl);
    pthread_mutex_lock(&stage);
    ck_assert_msg(rc == CURLE_OK, "%s %.100s: %s", method, path, curl_easy_strerror(rc));
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    headers = NULL;
    return status;
}

static long get(const char *path)
{
    return ask("GET", path, NULL, 0);
}

static bool has_header(const char *line)
{
    return strcasestr(answer_headers, line) != NULL;
}

/* The answer is RFC 9457's, with this detail. */
static void is_problem(int status, const char *detail)
{
    json_t *o = json_loads(answer, 0, NULL);
    ck_assert_msg(o != NULL, "%s", answer);
    ck_assert(has_header("Content-Type: application/problem+json"));
    ck_assert_int_eq(json_integer_value(json_object_get(o, "status")), status);
    ck_assert_ptr_nonnull(json_string_value(json_object_get(o, "title")));
    ck_assert_str_eq(json_string_value(json_object_get(o, "detail")), detail);
    json_decref(o);
}

static void start(void)
{
    struct saga_err err = {0};
    pthread_mutex_lock(&stage);
    lanes_n = 1;
    lane[0] = (struct saga_lane_view){.lane = 7, .state = "running"};
    turned_us = monotonic_us();
    what_waits = NULL;
    ck_assert_msg(saga_http_start(&conf, &service, &view, &port, &err) == 0, "%s", err.text);
    ck_assert_int_gt(port, 0);
    curl = curl_easy_init();
}

static void stop(void)
{
    curl_easy_cleanup(curl);
    saga_http_stop();
}

/* ---- Every route ---- */

/* Path and query arrive decoded, the reply with its headers, and HEAD is GET without the body. */
START_TEST(get_and_head)
{
    ck_assert_int_eq(get("/api/v1/orders/a%3A1?q=x%20y&z"), 200);
    ck_assert_str_eq(answer, "{\"id\":\"a:1\",\"q\":\"x y\"}\n");
    ck_assert(has_header("Content-Type: application/json"));
    ck_assert(has_header("ETag: \"7\""));
    ck_assert_int_eq(ask("HEAD", "/api/v1/orders/a", NULL, 0), 200);
    ck_assert_str_eq(answer, "");
    ck_assert(has_header("Content-Length: 24"));
    ck_assert_int_eq(get("/api/v1/orders/a?q"), 200);
    ck_assert_str_eq(answer, "{\"id\":\"a\",\"q\":\"\"}\n");
}
END_TEST

/* An encoded NUL does not cut a name short, and make it another one's. */
START_TEST(encoded_nul_ends_nothing)
{
    ck_assert_int_eq(get("/api/v1/orders/ord-1%00x"), 200);
    ck_assert_str_eq(answer, "{\"id\":\"ord-1%00x\",\"q\":\"(none)\"}\n");
}
END_TEST

static const char *const unknown[] = {"/",
                                      "/api/v1/orders/",
                                      "/api/v1/orders/a/b",
                                      "/api/v1/order",
                                      "/api/v1/ordersx",
                                      "//api/v1/orders"};

/* What is no resource is 404, whatever it looks like. */
START_TEST(unknown_paths)
{
    char detail[128];
    snprintf(detail, sizeof detail, "no resource %s", unknown[_i]);
    ck_assert_int_eq(get(unknown[_i]), 404);
    is_problem(404, detail);
}
END_TEST

/* Another method is 405 and names those that go. */
START_TEST(other_methods)
{
    ck_assert_int_eq(ask("DELETE", "/api/v1/orders", NULL, 0), 405);
    ck_assert(has_header("Allow: POST, GET, HEAD\r\n"));
    is_problem(405, "DELETE: allowed is POST, GET, HEAD");
    ck_assert_int_eq(ask("POST", "/livez", "{}", 2), 405);
    ck_assert(has_header("Allow: GET, HEAD\r\n"));
}
END_TEST

/* A body of 64 KiB is taken, one byte more is 413; both with and without waiting for 100. */
START_TEST(body_limit)
{
    static char body[BODY_MAX + 1];
    for (int expect = 0; expect < 2; expect++) {
        memset(body, ' ', sizeof body);
        header("Content-Type: application/json");
        header(expect ? "Expect: 100-continue" : "Expect:");
        ck_assert_int_eq(ask("POST", "/api/v1/orders", body, BODY_MAX), 202);
        ck_assert_str_eq(answer, "{\"n\":65536}\n");
        header("Content-Type: application/json");
        header(expect ? "Expect: 100-continue" : "Expect:");
        ck_assert_int_eq(ask("POST", "/api/v1/orders", body, BODY_MAX + 1), 413);
        is_problem(413, "the body is over 65536 bytes");
    }
}
END_TEST

/* Headers beyond the connection's memory are 431, and the server goes on. */
START_TEST(header_limit)
{
    static char line[40000];
    memset(line, 'a', sizeof line - 1);
    memcpy(line, "X: ", 3);
    header(line);
    ck_assert_int_eq(get("/livez"), 431);
    ck_assert_int_eq(get("/livez"), 200);
}
END_TEST

/* A body that is not JSON by its own account is 415; JSON of any kind, or of no stated kind, and no
 * body at all are taken. */
START_TEST(media_types)
{
    header("Content-Type: text/plain");
    ck_assert_int_eq(ask("POST", "/api/v1/orders", "{}", 2), 415);
    ck_assert(has_header("Accept: application/json"));
    is_problem(415, "the body is text/plain, expected application/json");
    header("Content-Type: application/jsonx");
    ck_assert_int_eq(ask("POST", "/api/v1/orders", "{}", 2), 415);
    header("Content-Type: application/json; charset=utf-8");
    ck_assert_int_eq(ask("POST", "/api/v1/orders", "{}", 2), 202);
    header("Content-Type: application/cloudevents+json");
    ck_assert_int_eq(ask("POST", "/api/v1/orders", "{}", 2), 202);
    header("Content-Type:");
    ck_assert_int_eq(ask("POST", "/api/v1/orders", "{}", 2), 202);
    ck_assert_int_eq(ask("POST", "/api/v1/orders", "", 0), 202);
}
END_TEST

static long fails(const char *code, const char *body)
{
    header(code);
    header("Content-Type: application/json");
    return ask("POST", "/api/v1/orders", body, strlen(body));
}

/* Whose fault an error is, is its status: the client's JSON, what it says, ours, or the database's.
 */
START_TEST(errors_by_kind)
{
    ck_assert_int_eq(fails("X-Error: -1", "{}"), 503);
    ck_assert(has_header("Retry-After: 1"));
    is_problem(503, "what went wrong");
    ck_assert_int_eq(fails("X-Error: -2", "{"), 400);
    ck_assert_int_eq(fails("X-Error: -2", "{\"a\":1,\"a\":2}"), 400);
    ck_assert_int_eq(fails("X-Error: -2", "{\"a\":1}"), 422);
    ck_assert_int_eq(fails("X-Error: -4", "{}"), 500);
}
END_TEST

/* A client keeps its connection from one request to the next, errors included. */
START_TEST(connection_is_kept)
{
    long connects;
    ck_assert_int_eq(get("/livez"), 200);
    ck_assert_int_eq(get("/nowhere"), 404);
    ck_assert_int_eq(fails("X-Error: -2", "{}"), 422);
    curl_easy_getinfo(curl, CURLINFO_NUM_CONNECTS, &connects);
    ck_assert_int_eq(connects, 0);
}
END_TEST

/* A busy port is told with its holder and the variable that moves us. */
START_TEST(busy_port)
{
    struct saga_err err = {0};
    char listen[32];
    int other;
    snprintf(listen, sizeof listen, "127.0.0.1:%d", port);
    struct saga_conf second = {.http_listen = listen, .database = "", .prefix = ""};
    ck_assert_int_eq(saga_http_start(&second, &service, &view, &other, &err), SAGA_FATAL);
    ck_assert_ptr_nonnull(strstr(err.text, listen));
    ck_assert_ptr_nonnull(strstr(err.text, "held by "));
    ck_assert_ptr_nonnull(strstr(err.text, "set HTTP_LISTEN to move us"));
}
END_TEST

/* ---- How the service is ---- */

/* The loop may wait 30 s, not longer. Before its first turn it counts as alive. */
START_TEST(livez_follows_the_loop)
{
    turned_us = 0;
    ck_assert_int_eq(get("/livez"), 200);
    turned_us = monotonic_us() - 29000000;
    ck_assert_int_eq(get("/livez"), 200);
    turned_us = monotonic_us() - 30000001;
    ck_assert_int_eq(get("/livez"), 503);
    ck_assert_str_eq(answer, "engine: its loop has not turned for 30 s\n");
}
END_TEST

/* Ready: nothing is waited for, and every lane that is assigned is taken, at least one. */
START_TEST(readyz_needs_servers_and_lanes)
{
    ck_assert_int_eq(get("/readyz"), 200);
    ck_assert_str_eq(answer, "ready\n");
    what_waits = "database: connection refused";
    ck_assert_int_eq(get("/readyz"), 503);
    ck_assert_str_eq(answer, "not ready: database: connection refused\n");
    what_waits = NULL;
    lanes_n = 2;
    lane[1] = (struct saga_lane_view){.lane = 8, .state = "taking"};
    ck_assert_int_eq(get("/readyz"), 503);
    ck_assert_str_eq(answer, "not ready: lanes are being taken\n");
    lanes_n = 0;
    ck_assert_int_eq(get("/readyz"), 503);
    ck_assert_str_eq(answer, "not ready: no lane is assigned to this process\n");
}
END_TEST

/* A stopped lane does not take the others out of service, and is told with its command. */
START_TEST(readyz_tells_a_stopped_lane)
{
    lanes_n = 2;
    lane[1] = (struct saga_lane_view){
        .lane = 8, .state = "stopped", .why = "the database is behind: sagactl lane restart 8"};
    ck_assert_int_eq(get("/readyz"), 200);
    ck_assert_str_eq(answer, "ready, but 1 of 2 lanes are stopped: see /readyz?verbose\n");
    ck_assert_int_eq(get("/readyz?verbose"), 200);
    ck_assert_str_eq(answer, "[ok]   database and Kafka answer\n"
                             "[ok]   lanes: 2 of the 2 assigned here are taken; order has 12\n"
                             "[stop] lane 8: the database is behind: sagactl lane restart 8\n"
                             "ready, but 1 of 2 lanes are stopped: see /readyz?verbose\n");
}
END_TEST

/* Each lane with its inputs; what is not known is null, not a number. */
START_TEST(lanes_as_json)
{
    lane[0] = (struct saga_lane_view){.lane = 7,
                                      .term = 5,
                                      .last_seq = 9,
                                      .published = 8,
                                      .inputs = 2,
                                      .state = "running",
                                      .input = {{.topic = "order.events",
                                                 .next_offset = 3,
                                                 .end_offset = 10,
                                                 .held = -1,
                                                 .last_id = "7.1.2"},
                                                {.topic = "payment.events",
                                                 .next_offset = 4,
                                                 .end_offset = -1,
                                                 .held = 6,
                                                 .stopped = true}}};
    ck_assert_int_eq(get("/lanes"), 200);
    ck_assert_str_eq(
        answer,
        "{\"service\":\"order-svc\",\"total\":12,\"lanes\":[{\"lane\":7,\"state\":\"running\","
        "\"why\":null,"
        "\"term\":5,\"last_seq\":9,\"published\":8,\"unpublished_bytes\":0,\"inputs\":["
        "{\"topic\":\"order.events\",\"next_offset\":3,\"end_offset\":10,\"lag\":7,\"held\":null,"
        "\"last_id\":\"7.1.2\",\"stopped\":false,\"why\":null},"
        "{\"topic\":\"payment.events\",\"next_offset\":4,\"end_offset\":null,\"lag\":null,\"held\":"
        "6,"
        "\"last_id\":null,\"stopped\":true,\"why\":null}]}]}\n");
}
END_TEST

/* Metrics have Prometheus' content type, and count the requests themselves. */
START_TEST(metrics_are_prometheus)
{
    get("/livez");
    ck_assert_int_eq(get("/metrics"), 200);
    ck_assert(has_header("Content-Type: text/plain; version=0.0.4"));
    ck_assert_ptr_nonnull(strstr(answer, "\nsaga_http_requests_total{status=\"200\"} 1\n"));
    ck_assert_ptr_nonnull(strstr(answer, "\nsaga_http_request_seconds_count 1\n"));
}
END_TEST

Suite *http_suite(void)
{
    Suite *s = suite_create("http");
    TCase *t = tcase_create("http");
    tcase_add_checked_fixture(t, start, stop);
    tcase_set_timeout(t, 30);
    tcase_add_test(t, get_and_head);
    tcase_add_test(t, encoded_nul_ends_nothing);
    tcase_add_loop_test(t, unknown_paths, 0, (int)(sizeof unknown / sizeof *unknown));
    tcase_add_test(t, other_methods);
    tcase_add_test(t, body_limit);
    tcase_add_test(t, header_limit);
    tcase_add_test(t, media_types);
    tcase_add_test(t, errors_by_kind);
    tcase_add_test(t, connection_is_kept);
    tcase_add_test(t, busy_port);
    tcase_add_test(t, livez_follows_the_loop);
    tcase_add_test(t, readyz_needs_servers_and_lanes);
    tcase_add_test(t, readyz_tells_a_stopped_lane);
    tcase_add_test(t, lanes_as_json);
    tcase_add_test(t, metrics_are_prometheus);
    suite_add_tcase(s, t);
    return s;
}
