/* What every route gets of HTTP: limits, errors, methods, and that no request keeps another waiting. */
#include <curl/curl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_private.h"
#include "http_stage.h"
#include "suites.h"

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
    ck_assert(has_header("Allow: POST, GET, HEAD, OPTIONS\r\n"));
    is_problem(405, "DELETE: allowed is POST, GET, HEAD, OPTIONS");
    ck_assert_int_eq(ask("POST", "/livez", "{}", 2), 405);
    ck_assert(has_header("Allow: GET, HEAD, OPTIONS\r\n"));
}
END_TEST

/* A body of 64 KiB is taken, one byte more is 413: its length said before, with and without waiting for
 * 100, and not said. */
START_TEST(body_limit)
{
    static char body[BODY_MAX + 1];
    static const char *const how[] = {"Expect:", "Expect: 100-continue",
                                      "Transfer-Encoding: chunked"};
    for (int i = 0; i < 3; i++) {
        memset(body, ' ', sizeof body);
        header("Content-Type: application/json");
        header(how[i]);
        ck_assert_int_eq(ask("POST", "/api/v1/orders", body, BODY_MAX), 202);
        ck_assert_str_eq(answer, "{\"n\":65536}\n");
        header("Content-Type: application/json");
        header(how[i]);
        ck_assert_int_eq(ask("POST", "/api/v1/orders", body, BODY_MAX + 1), 413);
        is_problem(413, "the body is over 65536 bytes");
    }
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

/* What is not the client's fault is logged, of many the first. */
START_TEST(failures_are_logged)
{
    char text[4096] = "";
    int file = memfd_create("log", MFD_CLOEXEC), was = dup(STDERR_FILENO);

    dup2(file, STDERR_FILENO);
    fails("X-Error: -2", "{}");
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(fails("X-Error: -1", "{}"), 503);
    dup2(was, STDERR_FILENO);
    ck_assert_int_gt(pread(file, text, sizeof text - 1, 0), 0);
    ck_assert_msg(strstr(text, "POST /api/v1/orders: 503, what went wrong (and 0 before it)") &&
                      strchr(text, '\n') == strrchr(text, '\n'),
                  "%s", text);
    close(file);
    close(was);
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

/* Of two lengths we would believe one, and what stands between us and the client the other. */
START_TEST(a_length_given_twice_is_refused)
{
    static const char *const twice[] = {"Content-Length: 2\r\nContent-Length: 2000\r\n",
                                        "Content-Length: 2000\r\nTransfer-Encoding: chunked\r\n"};
    static const char *const methods[] = {"GET", "POST"};
    char request[300];
    for (int i = 0; i < 4; i++) {
        snprintf(request, sizeof request, "%s /api/v1/orders HTTP/1.1\r\nHost: a\r\n%s\r\n{}",
                 methods[i / 2], twice[i % 2]);
        ck_assert_int_eq(hear(dial(request)), 400);
        ck_assert_ptr_nonnull(strstr(answer, "the length of the body is given twice"));
    }
}
END_TEST

START_TEST(a_key_given_twice_is_refused)
{
    ck_assert_int_eq(
        hear(dial("POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
                  "Connection: close\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\n\r\n{}")),
        400);
    ck_assert_ptr_nonnull(strstr(answer, "Idempotency-Key: expected once"));
}
END_TEST

#define CLOSING " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

/* A handler that waits keeps nobody waiting but those of its kind, and a search not even them. */
START_TEST(waiting_is_not_contagious)
{
    int slow[5], search[2];
    for (int i = 0; i < 2; i++)
        search[i] = dial("GET /search" CLOSING);
    await_waiting(1); /* searches go one by one */
    ck_assert_int_eq(get("/api/v1/orders/a"), 200);
    for (int i = 0; i < 4; i++)
        slow[i] = dial("GET /slow" CLOSING);
    await_waiting(5);
    slow[4] = dial("GET /slow" CLOSING);
    ck_assert_int_eq(get("/livez"), 200);
    open_gate();
    pthread_mutex_unlock(&stage);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(hear(slow[i]), 200);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(hear(search[i]), 200);
    pthread_mutex_lock(&stage);
}
END_TEST

/* Who has waited too long for a worker is told so; but one that was passed on is run, for others wait for
 * what it finds. The time of a slow body does not count. */
START_TEST(patience_for_workers)
{
    const int64_t usual = saga_work_patience;
    int slow[5], passed;
    saga_work_patience = 100000;
    for (int i = 0; i < 4; i++)
        slow[i] = dial("GET /slow" CLOSING);
    await_waiting(4);
    slow[4] = dial("GET /slow" CLOSING);
    passed = dial("GET /passed" CLOSING);
    int body = dial("POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                    "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n");
    while (get("/metrics") == 200 && !strstr(answer, "saga_http_waiting 2\n"))
        ;
    for (int64_t until = monotonic_us() + 2 * saga_work_patience; monotonic_us() < until;)
        ck_assert_int_eq(get("/livez"), 200);
    open_gate();
    pthread_mutex_unlock(&stage);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(hear(slow[i]), 200);
    ck_assert_int_eq(hear(slow[4]), 503);
    ck_assert_int_eq(hear(passed), 200);
    ck_assert_int_eq(send(body, "{}", 2, MSG_NOSIGNAL), 2);
    ck_assert_int_eq(hear(body), 202);
    pthread_mutex_lock(&stage);
    saga_work_patience = usual;
}
END_TEST

/* 256 may wait for a worker; the next is told to come again, and they are all answered. */
START_TEST(those_that_wait_are_bounded)
{
    enum { WORKERS = 4, WAITING_MAX = 256 };
    int fd[WORKERS + WAITING_MAX];
    for (int i = 0; i < WORKERS; i++)
        fd[i] = dial("GET /slow" CLOSING);
    await_waiting(WORKERS);
    for (int i = 0; i < WAITING_MAX; i++)
        fd[WORKERS + i] = dial("GET /slow" CLOSING);
    while (get("/livez") == 200 && get("/metrics") == 200 &&
           !strstr(answer, "saga_http_waiting 256\n"))
        ;
    ck_assert_int_eq(get("/slow"), 503);
    ck_assert(has_header("Retry-After: 1"));
    is_problem(503, "too many requests wait here");
    open_gate();
    pthread_mutex_unlock(&stage);
    for (int i = 0; i < WORKERS + WAITING_MAX; i++)
        ck_assert_int_eq(hear(fd[i]), 200);
    pthread_mutex_lock(&stage);
}
END_TEST

static void *answer_kept(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&stage);
    while (!kept_n)
        pthread_cond_wait(&moved, &stage);
    struct saga_request *req = kept[--kept_n];
    pthread_mutex_unlock(&stage);
    saga_reply(req, 200, json_pack("{s:s}", "said", "later"));
    saga_answered(req);
    return NULL;
}

/* Who is given a request answers it when it can, from its own thread. */
START_TEST(answered_later)
{
    pthread_t other;
    pthread_create(&other, NULL, answer_kept, NULL);
    ck_assert_int_eq(get("/later"), 200);
    ck_assert_str_eq(answer, "{\"said\":\"later\"}\n");
    pthread_mutex_unlock(&stage);
    pthread_join(other, NULL);
    pthread_mutex_lock(&stage);
}
END_TEST

static void *stop_server(void *unused)
{
    (void)unused;
    saga_http_stop();
    return NULL;
}

/* Stop: nobody new is taken, what is here is answered, and its connection closed. */
START_TEST(stop_answers_what_is_here)
{
    pthread_t stopper;
    int fd = dial("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    await_waiting(1);
    pthread_create(&stopper, NULL, stop_server, NULL);
    while (!saga_http_stopping())
        sched_yield();
    open_gate();
    pthread_mutex_unlock(&stage);
    ck_assert_int_eq(hear(fd), 200);
    ck_assert_ptr_nonnull(strstr(answer, "Connection: close\r\n"));
    pthread_join(stopper, NULL);
    pthread_mutex_lock(&stage);
}
END_TEST

/* A busy port is told with its holder and the variable that moves us. */
START_TEST(busy_port)
{
    struct saga_err err = {0};
    char listen[32];
    snprintf(listen, sizeof listen, "127.0.0.1:%d", stage_port());
    ck_assert_int_eq(stage_busy(&err), SAGA_FATAL);
    ck_assert_ptr_nonnull(strstr(err.text, listen));
    ck_assert_ptr_nonnull(strstr(err.text, "held by "));
    ck_assert_ptr_nonnull(strstr(err.text, "set HTTP_LISTEN to move us"));
}
END_TEST

Suite *http_suite(void)
{
    Suite *s = suite_create("http");
    TCase *t = tcase_create("http");
    tcase_add_checked_fixture(t, stage_start, stage_stop);
    tcase_set_timeout(t, 30);
    tcase_add_test(t, get_and_head);
    tcase_add_test(t, encoded_nul_ends_nothing);
    tcase_add_loop_test(t, unknown_paths, 0, (int)(sizeof unknown / sizeof *unknown));
    tcase_add_test(t, other_methods);
    tcase_add_test(t, body_limit);
    tcase_add_test(t, media_types);
    tcase_add_test(t, errors_by_kind);
    tcase_add_test(t, failures_are_logged);
    tcase_add_test(t, connection_is_kept);
    tcase_add_test(t, a_length_given_twice_is_refused);
    tcase_add_test(t, a_key_given_twice_is_refused);
    tcase_add_test(t, waiting_is_not_contagious);
    tcase_add_test(t, patience_for_workers);
    tcase_add_test(t, those_that_wait_are_bounded);
    tcase_add_test(t, answered_later);
    tcase_add_test(t, stop_answers_what_is_here);
    tcase_add_test(t, busy_port);
    suite_add_tcase(s, t);
    return s;
}
