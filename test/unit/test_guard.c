/* Who may ask, and how: token, TLS, methods, media types, and what no client can make us say. */
#include <curl/curl.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http_stage.h"
#include "suites.h"

#define CLOSING " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

/* ---- Methods and media types ---- */

/* OPTIONS names the methods of a resource, of * those of the server; HEAD is GET without a body. */
START_TEST(options)
{
    ck_assert_int_eq(ask("OPTIONS", "/api/v1/orders", NULL, 0), 204);
    ck_assert(has_header("Allow: POST, GET, HEAD, OPTIONS\r\n"));
    ck_assert_str_eq(answer, "");
    ck_assert_int_eq(ask("OPTIONS", "/nowhere", NULL, 0), 404);
    ck_assert_int_eq(say("OPTIONS *" CLOSING), 204);
    ck_assert_ptr_nonnull(strstr(answer, "Allow: GET, HEAD, POST, OPTIONS\r\n"));
    ck_assert_int_eq(ask("PUT", "/api/v1/orders", "{}", 2), 405);
    ck_assert_int_eq(ask("BREW", "/api/v1/orders", NULL, 0), 501);
    is_problem(501, "BREW: no method that is known here");
}
END_TEST

static const struct {
    const char *path, *accept;
    long status;
} accepts[] = {
    {"/api/v1/orders/a", "*/*", 200},
    {"/api/v1/orders/a", "application/json", 200},
    {"/api/v1/orders/a", "application/*;q=0.1", 200},
    {"/api/v1/orders/a", "text/html, application/json;q=0.5", 200},
    {"/api/v1/orders/a", "text/html", 406},
    {"/api/v1/orders/a", "text/html,application/xhtml+xml", 406},
    {"/api/v1/orders/a", "application/json;q=0", 406},
    {"/api/v1/orders/a", "*/*, application/json; q=0.0", 406},
    {"/api/v1/orders/a", "application/json;q=1, */*;q=0", 200},
    {"/api/v1/orders/a", "application/jsonx", 406},
    {"/api/v1/orders/a", "", 200},
    {"/metrics", "text/plain;version=0.0.4;q=0.3,*/*;q=0.1", 200},
    {"/metrics", "application/json", 406},
    {"/livez", "text/*", 200},
};

/* What a client takes decides whether it is answered; the range that fits best counts. */
START_TEST(accept_is_heeded)
{
    char line[200];
    snprintf(line, sizeof line, *accepts[_i].accept ? "Accept: %s" : "Accept;%s",
             accepts[_i].accept);
    header(line);
    ck_assert_int_eq(get(accepts[_i].path), accepts[_i].status);
    if (accepts[_i].status == 406)
        is_problem(406, strcmp(accepts[_i].path, "/metrics")
                            ? "the answer is application/json"
                            : "the answer is text/plain; charset=utf-8");
}
END_TEST

/* What cannot be read is not guessed at: an encoding, an expectation. */
START_TEST(strange_headers)
{
    header("Content-Encoding: gzip");
    header("Content-Type: application/json");
    ck_assert_int_eq(ask("POST", "/api/v1/orders", "{}", 2), 415);
    ck_assert(has_header("Accept-Encoding: identity"));
    header("Expect: miracles");
    ck_assert_int_eq(get("/livez"), 417);
}
END_TEST

static const struct {
    const char *request;
    int status;
} strict[] = {
    {"GET /livez HTTP/1.1\r\n\r\n", 400},
    {"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
    {"GET /livez HTTP/1.0\r\n\r\n", 200},
    {"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
    {"POST /api/v1/orders HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\nConnection: close\r\n\r\na", 400},
    {"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\nConnection: close\r\n\r\na", 400},
    {"GET /livez HTTP/1.1\r\nHost: a\r\nX: a\rb\r\nConnection: close\r\n\r\n", 400},
    {"GET /livez HTTP/1.1\r\nHost: a\r\nX: a\x01\x62\r\nConnection: close\r\n\r\n", 400},
    {"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\nConnection: close\r\n\r\n", 400},
    {"GET /livez HTTP/1.1\r\nHost : a\r\nHost: a\r\n\r\n", 400},
};

/* Where a proxy and we could read a request differently, it is refused, and the connection ends. */
START_TEST(ambiguous_requests)
{
    ck_assert_int_eq(say(strict[_i].request), strict[_i].status);
}
END_TEST

/* Requests sent at once are answered in their order. */
START_TEST(pipelining)
{
    int status = say("GET /api/v1/orders/one HTTP/1.1\r\nHost: a\r\n\r\n"
                     "POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{ }"
                     "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
                     "GET /api/v1/orders/two" CLOSING);
    ck_assert_int_eq(status, 200);
    const char *at = answer;
    static const char *const expected[] = {"{\"id\":\"one\"", "{\"n\":3}", "no resource /nowhere",
                                           "{\"id\":\"two\""};
    for (int i = 0; i < 4; i++)
        ck_assert_ptr_nonnull(at = strstr(at, expected[i]));
}
END_TEST

/* ---- What we say ---- */

/* No browser guesses a type, no cache keeps an answer that does not say so. */
START_TEST(headers_of_every_answer)
{
    static const char *const paths[] = {"/api/v1/orders/a", "/nowhere", "/livez"};
    for (int i = 0; i < 3; i++) {
        get(paths[i]);
        ck_assert(has_header("X-Content-Type-Options: nosniff\r\n"));
        ck_assert(has_header("Cache-Control: no-store\r\n"));
    }
    ck_assert_int_eq(get("/header?v=1"), 200);
    ck_assert(has_header("X-Value: 1\r\n"));
    ck_assert(has_header("Cache-Control: max-age=5\r\n"));
    ck_assert(!has_header("no-store"));
}
END_TEST

/* A value that a client chose makes no header of its own. */
START_TEST(no_header_is_injected)
{
    ck_assert_int_eq(get("/header?v=a%0D%0AX-Evil:%20b"), 200);
    ck_assert(!has_header("X-Evil"));
    ck_assert_int_eq(get("/header?v=a%0AX-Evil:%20b"), 200);
    ck_assert(!has_header("X-Evil"));
    get("/nowhere%0D%0AX-Evil:%20b");
    ck_assert(!has_header("X-Evil"));
}
END_TEST

/* ---- Stop ---- */

static void *stop_server(void *unused)
{
    (void)unused;
    saga_http_stop();
    return NULL;
}

/* An idle connection is closed at once, not when the last request of others is answered. */
START_TEST(stop_closes_idle_connections)
{
    pthread_t stopper;
    struct timeval patience = {10, 0};
    int idle = dial("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"), busy;
    setsockopt(idle, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ck_assert(is_answered(idle));
    busy = dial("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    await_waiting(1);
    pthread_create(&stopper, NULL, stop_server, NULL);
    pthread_mutex_unlock(&stage);
    ck_assert_int_eq(recv(idle, answer, sizeof answer, 0), 0);
    close(idle);
    pthread_mutex_lock(&stage);
    open_gate();
    pthread_mutex_unlock(&stage);
    ck_assert_int_eq(hear(busy), 200);
    pthread_join(stopper, NULL);
    pthread_mutex_lock(&stage);
}
END_TEST

/* ---- Token ---- */

static char folder[] = "/tmp/saga-guard-XXXXXX";
static char token_file[64], cert[64], key[64];
#define TOKEN "0123456789-._~+/abcDEF=="

static void put(const char *path, const char *text, mode_t mode)
{
    char next[80];
    snprintf(next, sizeof next, "%s.new", path);
    FILE *f = fopen(next, "we");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
    chmod(next, mode);
    ck_assert_int_eq(rename(next, path), 0);
}

static void make_folder(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(token_file, sizeof token_file, "%s/token", folder);
    snprintf(cert, sizeof cert, "%s/cert", folder);
    snprintf(key, sizeof key, "%s/key", folder);
    conf.http_token_file = token_file;
    put(token_file, TOKEN "\n", 0600);
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}

static long with(const char *authorization)
{
    char line[700];
    snprintf(line, sizeof line, "Authorization: %s", authorization);
    header(line);
    return get("/api/v1/orders/a");
}

static const char *const wrong[] = {"Bearer 0123456789-._~+/abcDEF=", /* all but its end */
                                    "Bearer " TOKEN "=",              /* and more */
                                    "Bearer 0123456789-._~+/abcDEF==x",
                                    "Bearer 1123456789-._~+/abcDEF==",
                                    "Bearer ",
                                    "Bearer",
                                    "Basic " TOKEN,
                                    TOKEN,
                                    "Bearer x " TOKEN};

/* Whoever knows the token is served, nobody else but probes is, and a refusal says what was wrong. */
START_TEST(token_is_needed)
{
    stage_start();
    ck_assert_int_eq(get("/api/v1/orders/a"), 401);
    ck_assert(has_header("WWW-Authenticate: Bearer realm=\"saga\"\r\n"));
    is_problem(401, "Authorization: a bearer token is expected");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert_msg(with(wrong[i]) == 401, "%s", wrong[i]);
        ck_assert(
            has_header("WWW-Authenticate: Bearer realm=\"saga\", error=\"invalid_token\"\r\n"));
    }
    ck_assert_int_eq(with("Bearer " TOKEN), 200);
    ck_assert_int_eq(with("bearer " TOKEN), 200);
    header("Authorization: Bearer " TOKEN);
    header("Authorization: Bearer other-other-other-other");
    ck_assert_int_eq(get("/api/v1/orders/a"), 401);
    ck_assert_int_eq(get("/livez"), 200);
    ck_assert_int_eq(get("/readyz?verbose"), 200);
    ck_assert_int_eq(get("/metrics"), 401);
    ck_assert_int_eq(get("/nowhere"), 401);
    ck_assert_int_eq(ask("POST", "/api/v1/orders", "{}", 2), 401);
    stage_stop();
}
END_TEST

/* Another token in the file replaces it while we run; a file that is not right does not. */
START_TEST(token_is_renewed)
{
    stage_start();
    ck_assert_int_eq(with("Bearer " TOKEN), 200);
    put(token_file, "another-token-of-ours", 0600);
    int64_t began = monotonic_us();
    while (with("Bearer another-token-of-ours") != 200)
        ck_assert_int_lt(monotonic_us() - began, 10000000);
    ck_assert_int_eq(with("Bearer " TOKEN), 401);
    put(token_file, "", 0600);
    saga_http_renew();
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(with("Bearer another-token-of-ours"), 200);
    stage_stop();
}
END_TEST

static void refuses_to_start(const char *why)
{
    struct saga_err err = {0};
    ck_assert_int_eq(stage_busy(&err), SAGA_FATAL);
    ck_assert_msg(strstr(err.text, why) != NULL, "%s", err.text);
}

/* A file that holds no secret is no protection: it is refused at the start, with its name. */
START_TEST(token_file_must_hold_a_secret)
{
    char expected[128];
    put(token_file, "", 0600);
    snprintf(expected, sizeof expected, "HTTP_TOKEN_FILE=%s: it is empty", token_file);
    refuses_to_start(expected);
    put(token_file, TOKEN, 0604);
    refuses_to_start("everybody may read it: chmod o-rwx");
    put(token_file, "fifteen-letters", 0600);
    refuses_to_start("expected one line of 16 to 256 of the characters");
    put(token_file, TOKEN "\n" TOKEN, 0600);
    refuses_to_start("expected one line of 16");
    put(token_file, TOKEN " ", 0600);
    refuses_to_start("expected one line of 16");
    unlink(token_file);
    refuses_to_start("No such file");
}
END_TEST

/* ---- TLS ---- */

static void make_certificate(const char *name)
{
    char command[1024];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
             "-subj /CN=%s -addext subjectAltName=IP:127.0.0.1 -keyout %s.tmp -out %s.tmp "
             "2>/dev/null && chmod 600 %s.tmp && mv %s.tmp %s && mv %s.tmp %s && cp %s %s.%s",
             name, key, cert, key, key, key, cert, cert, cert, cert, name);
    ck_assert_int_eq(system(command), 0);
}

static void set_tls(void)
{
    conf.http_token_file = "";
    conf.http_tls_cert = cert;
    conf.http_tls_key = key;
}

static CURLcode handshake(long version, const char *ca)
{
    char url[64];
    CURL *other = curl_easy_init();
    snprintf(url, sizeof url, "https://127.0.0.1:%d/livez", stage_port());
    curl_easy_setopt(other, CURLOPT_URL, url);
    curl_easy_setopt(other, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(other, CURLOPT_CAINFO, ca);
    curl_easy_setopt(other, CURLOPT_SSLVERSION, version);
    curl_easy_setopt(other, CURLOPT_SSL_CIPHER_LIST, "DEFAULT@SECLEVEL=0");
    pthread_mutex_unlock(&stage);
    CURLcode rc = curl_easy_perform(other);
    pthread_mutex_lock(&stage);
    curl_easy_cleanup(other);
    return rc;
}

/* With a certificate it is HTTPS, of version 1.2 at least, and nothing else on this port. */
START_TEST(tls_is_served)
{
    set_tls();
    make_certificate("one");
    stage_start();
    stage_ca = cert;
    ck_assert_int_eq(get("/api/v1/orders/a"), 200);
    ck_assert_int_eq(ask("POST", "/api/v1/orders", "{}", 2), 415);
    ck_assert_int_eq(say("GET /livez" CLOSING), -1);
    ck_assert_int_eq(handshake(CURL_SSLVERSION_TLSv1_3, cert), CURLE_OK);
    ck_assert_int_eq(handshake(CURL_SSLVERSION_TLSv1_2 | CURL_SSLVERSION_MAX_TLSv1_2, cert),
                     CURLE_OK);
    ck_assert_int_eq(handshake(CURL_SSLVERSION_TLSv1_0 | CURL_SSLVERSION_MAX_TLSv1_1, cert),
                     CURLE_SSL_CONNECT_ERROR);
    stage_stop();
}
END_TEST

/* A renewed certificate is what the next who connect are shown; who is connected goes on. */
START_TEST(certificate_is_renewed)
{
    char one[80], two[80];
    set_tls();
    make_certificate("one");
    snprintf(one, sizeof one, "%s.one", cert);
    snprintf(two, sizeof two, "%s.two", cert);
    stage_start();
    stage_ca = one;
    ck_assert_int_eq(get("/livez"), 200);
    make_certificate("two");
    int64_t began = monotonic_us();
    while (handshake(CURL_SSLVERSION_DEFAULT, two) != CURLE_OK)
        ck_assert_int_lt(monotonic_us() - began, 10000000);
    ck_assert_int_eq(handshake(CURL_SSLVERSION_DEFAULT, one), CURLE_PEER_FAILED_VERIFICATION);
    ck_assert_int_eq(get("/livez"), 200);
    put(cert, "broken", 0600);
    saga_http_renew();
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(handshake(CURL_SSLVERSION_DEFAULT, two), CURLE_OK);
    stage_stop();
}
END_TEST

/* Files that do not do are told by the variable that names them. */
START_TEST(certificate_must_fit)
{
    set_tls();
    refuses_to_start("HTTP_TLS_CERT=");
    make_certificate("one");
    char other[80];
    snprintf(other, sizeof other, "%s.one", cert);
    make_certificate("two");
    conf.http_tls_cert = other;
    refuses_to_start("not the key of HTTP_TLS_CERT=");
    conf.http_tls_cert = cert;
    chmod(key, 0644);
    refuses_to_start("HTTP_TLS_KEY=");
    chmod(key, 0600);
    put(key, "broken", 0600);
    refuses_to_start("HTTP_TLS_KEY=");
    conf.http_tls_key = "";
    refuses_to_start("only one of them is set");
}
END_TEST

Suite *guard_suite(void)
{
    Suite *s = suite_create("guard");
    TCase *how = tcase_create("how"), *who = tcase_create("who");
    tcase_add_checked_fixture(how, stage_start, stage_stop);
    tcase_set_timeout(how, 30);
    tcase_add_test(how, options);
    tcase_add_loop_test(how, accept_is_heeded, 0, (int)(sizeof accepts / sizeof *accepts));
    tcase_add_test(how, strange_headers);
    tcase_add_loop_test(how, ambiguous_requests, 0, (int)(sizeof strict / sizeof *strict));
    tcase_add_test(how, pipelining);
    tcase_add_test(how, headers_of_every_answer);
    tcase_add_test(how, no_header_is_injected);
    tcase_add_test(how, stop_closes_idle_connections);
    suite_add_tcase(s, how);
    tcase_add_checked_fixture(who, make_folder, remove_folder);
    tcase_set_timeout(who, 60);
    tcase_add_test(who, token_is_needed);
    tcase_add_test(who, token_is_renewed);
    tcase_add_test(who, token_file_must_hold_a_secret);
    tcase_add_test(who, tls_is_served);
    tcase_add_test(who, certificate_is_renewed);
    tcase_add_test(who, certificate_must_fit);
    suite_add_tcase(s, who);
    return s;
}
