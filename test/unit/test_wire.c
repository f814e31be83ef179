/* What is said to a payment provider over HTTP and what each of its answers means: money has moved,
 * or will not, only where status and body say so, about this very payment. And which settings will
 * do. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "payment.h"
#include "provider_wire.h"
#include "suites.h"
#include "test.h"

#define SECOND INT64_C(1000000)

static const struct charge asked = {700, "EUR", "tok_ok", "pay-3.9.1", 1};

static struct saga_call call_of(const struct saga_event *what)
{
    return (struct saga_call){"ord-1", what, &asked};
}

static struct wire_said read_answer(const struct saga_event *what, bool look_up, long status,
                                    const char *body)
{
    struct saga_call call = call_of(what);
    struct wire_bytes bytes = {0};
    struct wire_said said;

    ck_assert(wire_take(&bytes, body, strlen(body)));
    wire_read(&said, &call, look_up, status, &bytes);
    free(bytes.at);
    return said;
}

/* ---- Requests ---- */

/* A charge names our payment, the order, the sum and the means of payment; a refund names no token. */
START_TEST(requests)
{
    struct saga_call calls[] = {call_of(&charge), call_of(&refund)};
    static const char *const paths[2][2] = {{"/charges", "/charges/pay-3.9.1"},
                                            {"/refunds", "/refunds/pay-3.9.1"}};
    char path[WIRE_PATH_MAX];

    for (int i = 0; i < 2; i++) {
        json_t *expected = json_pack("{s:s, s:s, s:i, s:s}", "payment_id", "pay-3.9.1", "order_id",
                                     "ord-1", "amount", 700, "currency", "EUR");
        if (i == 0)
            json_object_set_new(expected, "token", json_string("tok_ok"));
        char *body = wire_body(&calls[i]);
        json_t *is = json_loads(body, 0, NULL);
        ck_assert_msg(json_equal(is, expected), "%s", body);
        json_decref(is);
        json_decref(expected);
        free(body);
        for (int look_up = 0; look_up < 2; look_up++) {
            wire_path(&calls[i], look_up, path);
            ck_assert_str_eq(path, paths[i][look_up]);
        }
    }
}
END_TEST

/* ---- Answers ---- */

#define ID   "\"payment_id\":\"pay-3.9.1\""
#define OK   "{" ID ",\"status\":\"succeeded\",\"id\":\"ch-1\"}"
#define NO   "{" ID ",\"status\":\"declined\",\"reason\":\"expired\"}"
#define NO2  "{" ID ",\"status\":\"refused\",\"reason\":\"closed\"}"
#define WAIT "{" ID ",\"status\":\"pending\"}"
#define NONE "{" ID ",\"status\":\"not_found\"}"

enum { ASK, LOOK_UP, BOTH };
enum { ILL, WELL };

/* kind: 'c'harge, 'r'efund, 'b'oth. text: the reference, or the reason. */
static const struct {
    char kind;
    int how;
    long status;
    const char *body;
    const char *event, *text; /* without "charge_"; NULL: to be asked for */
    int well;
} answers[] = {
    /* certain */
    {'b', BOTH, 200, OK, "succeeded", "ch-1", WELL},
    {'b', BOTH, 201, OK, "succeeded", "ch-1", WELL},
    {'c', BOTH, 200, NO, "declined", "expired", WELL},
    {'c', BOTH, 402, NO, "declined", "expired", WELL},
    {'c', BOTH, 402, "{" ID ",\"status\":\"declined\"}", "declined", "declined", WELL},
    {'c', BOTH, 402, "{" ID ",\"status\":\"declined\",\"reason\":7}", "declined", "declined", WELL},
    {'c', BOTH, 402, "{" ID ",\"status\":\"declined\",\"reason\":\"\"}", "declined", "declined",
     WELL},
    {'r', ASK, 200, NO2, "refused", "closed", WELL},
    {'r', ASK, 402, NO2, "refused", "closed", WELL},
    {'r', ASK, 402, "{" ID ",\"status\":\"refused\"}", "refused", "refused", WELL},
    {'b', BOTH, 200,
     "{" ID
     ",\"status\":\"succeeded\",\"id\":\"x\",\"amount\":700,\"currency\":\"EUR\",\"more\":[]}",
     "succeeded", "x", WELL},
    /* looked up: not there, or refused as yet */
    {'b', LOOK_UP, 404, NONE, NULL, NULL, WELL},
    {'r', LOOK_UP, 200, NO2, NULL, NULL, WELL},
    {'b', ASK, 404, NONE, "unknown", NULL, WELL},
    {'b', BOTH, 404, "<h1>Not Found</h1>", "unknown", NULL, WELL},
    {'b', BOTH, 404, "{\"status\":\"not_found\"}", "unknown", NULL, WELL},
    {'b', BOTH, 404, "{\"payment_id\":\"pay-3.9.2\",\"status\":\"not_found\"}", "unknown", NULL,
     WELL},
    {'b', BOTH, 200, NONE, "unknown", NULL, ILL},
    /* in flight */
    {'b', BOTH, 409, WAIT, "unknown", "in flight (HTTP 409)", WELL},
    {'b', BOTH, 409, "", "unknown", "in flight (HTTP 409)", WELL},
    {'b', BOTH, 409, OK, "unknown", NULL, WELL},
    {'b', BOTH, 202, WAIT, "unknown", "in flight (HTTP 202)", WELL},
    {'b', BOTH, 200, WAIT, "unknown", "in flight (HTTP 200)", WELL},
    /* statuses that no body can mend */
    {'b', BOTH, 500, OK, "unknown", NULL, ILL},
    {'c', BOTH, 500, NO, "unknown", "not done (HTTP 500)", ILL},
    {'c', BOTH, 502, "<html>", "unknown", NULL, ILL},
    {'c', BOTH, 503, NO, "unknown", NULL, ILL},
    {'c', BOTH, 504, "", "unknown", NULL, ILL},
    {'c', BOTH, 429, NO, "unknown", NULL, ILL},
    {'c', BOTH, 408, NO, "unknown", NULL, ILL},
    {'c', BOTH, 401, NO, "unknown", NULL, ILL},
    {'c', BOTH, 403, NO, "unknown", NULL, ILL},
    {'c', BOTH, 400, NO, "unknown", NULL, WELL},
    {'c', BOTH, 422, NO, "unknown", NULL, WELL},
    {'c', BOTH, 404, NO, "unknown", NULL, WELL},
    {'c', BOTH, 302, NO, "unknown", NULL, ILL},
    {'b', BOTH, 302, OK, "unknown", NULL, ILL},
    {'b', BOTH, 202, OK, "unknown", NULL, ILL},
    {'b', BOTH, 206, OK, "unknown", NULL, ILL},
    {'b', BOTH, 402, OK, "unknown", NULL, ILL},
    {'c', BOTH, 201, NONE, "unknown", NULL, ILL},
    /* another's words */
    {'r', BOTH, 402, NO, "unknown", NULL, ILL},
    {'c', BOTH, 402, NO2, "unknown", NULL, ILL},
    {'b', BOTH, 200, "{\"payment_id\":\"pay-3.9.2\",\"status\":\"succeeded\",\"id\":\"ch-1\"}",
     "unknown", NULL, ILL},
    {'c', BOTH, 402, "{\"payment_id\":\"pay-3.9.2\",\"status\":\"declined\"}", "unknown", NULL,
     ILL},
    {'b', BOTH, 200, "{\"status\":\"succeeded\",\"id\":\"ch-1\"}", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"succeeded\",\"id\":\"x\",\"amount\":701}", "unknown",
     NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"succeeded\",\"id\":\"x\",\"amount\":\"700\"}", "unknown",
     NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"succeeded\",\"id\":\"x\",\"currency\":\"USD\"}",
     "unknown", NULL, ILL},
    /* rubbish */
    {'b', BOTH, 200, "", "unknown", "not understood (HTTP 200)", ILL},
    {'b', BOTH, 200, "null", "unknown", NULL, ILL},
    {'b', BOTH, 200, "[" OK "]", "unknown", NULL, ILL},
    {'b', BOTH, 200, "\"succeeded\"", "unknown", NULL, ILL},
    {'b', BOTH, 200, "<html>succeeded</html>", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"succeeded\",\"id\":\"ch-1\"", "unknown", NULL, ILL},
    {'b', BOTH, 200, OK "x", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"succeeded\"}", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"succeeded\",\"id\":\"\"}", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"succeeded\",\"id\":1}", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"SUCCEEDED\",\"id\":\"x\"}", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":true,\"id\":\"x\"}", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"id\":\"x\"}", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"succeeded\",\"id\":\"a\\u0000b\"}", "unknown", NULL,
     ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"succeeded\",\"id\":\"\xff\"}", "unknown", NULL, ILL},
    {'b', BOTH, 200, "{" ID ",\"status\":\"declined\",\"status\":\"succeeded\",\"id\":\"x\"}",
     "unknown", NULL, ILL},
};

/* Each answer means what the table says, to a charge and to a refund, asked or looked up. */
START_TEST(every_answer)
{
    for (int refunding = 0; refunding < 2; refunding++)
        for (int look_up = 0; look_up < 2; look_up++) {
            if (answers[_i].kind == (refunding ? 'c' : 'r') ||
                (answers[_i].how != BOTH && answers[_i].how != look_up))
                continue;
            const struct saga_event *what = refunding ? &refund : &charge;
            struct wire_said said =
                read_answer(what, look_up, answers[_i].status, answers[_i].body);
            const char *where = text("%s %s: %ld %s", look_up ? "look up" : "ask", what->type,
                                     answers[_i].status, answers[_i].body);
            ck_assert_msg(said.well == answers[_i].well, "%s: well %d", where, said.well);
            ck_assert_msg(!said.event == !answers[_i].event, "%s", where);
            if (!said.event)
                continue;
            ck_assert_msg(same(said.event->type, text("%s_%s", what->type, answers[_i].event)),
                          "%s: %s", where, said.event->type);
            if (answers[_i].text)
                ck_assert_str_eq(*said.ref ? said.ref : said.reason, answers[_i].text);
            if (!same(answers[_i].event, "succeeded"))
                ck_assert_msg(*said.reason && !*said.ref, "%s: no reason", where);
        }
}
END_TEST

/* No answer at all, for whatever cause. */
START_TEST(no_answer_is_unknown)
{
    struct saga_call calls[] = {call_of(&charge), call_of(&refund)};
    struct wire_said said;

    for (int i = 0; i < 2; i++) {
        wire_failed(&said, &calls[i], "timeout");
        ck_assert_ptr_eq(said.event, i ? &refund_unknown : &charge_unknown);
        ck_assert_str_eq(said.reason, "timeout");
        ck_assert(!said.well);
    }
}
END_TEST

/* ---- Limits ---- */

static char *repeated(const char *what, int n)
{
    char *all = calloc((size_t)n, strlen(what) + 1);

    for (int i = 0; i < n; i++)
        strcat(all, what);
    return all;
}

/* A reference of 256 code points is taken, one of 257 is none; a reason that long is left out. */
START_TEST(texts_are_limited)
{
    static const char *const points[] = {"x", "\xc3\xa9", "\xf0\x9f\x90\x9f"};

    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        for (int n = WIRE_TEXT_MAX; n <= WIRE_TEXT_MAX + 1; n++) {
            char *long_text = repeated(points[i], n);
            bool taken = n == WIRE_TEXT_MAX;
            struct wire_said said =
                read_answer(&charge, false, 200,
                            text("{" ID ",\"status\":\"succeeded\",\"id\":\"%s\"}", long_text));
            ck_assert_ptr_eq(said.event, taken ? &charge_succeeded : &charge_unknown);
            ck_assert(!taken || same(said.ref, long_text));
            said =
                read_answer(&charge, false, 402,
                            text("{" ID ",\"status\":\"declined\",\"reason\":\"%s\"}", long_text));
            ck_assert_ptr_eq(said.event, &charge_declined);
            ck_assert_str_eq(said.reason, taken ? long_text : "declined");
            free(long_text);
        }
}
END_TEST

/* An answer of the limit is read, one byte more is given up, in however many pieces it comes. */
START_TEST(answers_are_limited)
{
    static char body[WIRE_ANSWER_MAX + 1];
    struct saga_call call = call_of(&charge);

    memset(body, ' ', sizeof body);
    memcpy(body, OK, strlen(OK));
    for (size_t piece = 1; piece <= sizeof body; piece = piece * 7 + 3)
        for (size_t n = WIRE_ANSWER_MAX; n <= WIRE_ANSWER_MAX + 1; n++) {
            struct wire_bytes bytes = {0};
            struct wire_said said;
            bool taken = true;
            for (size_t at = 0; at < n && taken; at += piece)
                taken = wire_take(&bytes, body + at, n - at < piece ? n - at : piece);
            ck_assert_int_eq(taken, n == WIRE_ANSWER_MAX);
            ck_assert_int_eq(bytes.too_large, n > WIRE_ANSWER_MAX);
            ck_assert_uint_le(bytes.n, WIRE_ANSWER_MAX);
            if (taken) {
                wire_read(&said, &call, false, 200, &bytes);
                ck_assert_ptr_eq(said.event, &charge_succeeded);
            }
            free(bytes.at);
        }
}
END_TEST

/* ---- Settings ---- */

static void settings(void)
{
    payment_call_timeout = 5 * SECOND;
    payment_http =
        (struct payment_http){"https://pay.example/v1", "", "", 2 * SECOND, 400, 20, 5 * SECOND};
    provider_http.keeps_keys_us = 24 * 3600 * SECOND;
}

/* They do, or the line begins with the name of the variable. */
static void expect_fit(bool fit, const char *variable)
{
    const char *why = "";

    ck_assert_msg(provider_http.fits(&why) == fit, "%s", why);
    ck_assert(fit || (strncmp(why, variable, strlen(variable)) == 0 &&
                      why[strlen(variable)] == '=' && !strchr(why, '\n')));
}

static const struct {
    const char *url;
    bool fits;
} urls[] = {
    {"https://pay.example", true},
    {"https://pay.example/v1/", true},
    {"https://pay.example:8443/a/b", true},
    {"https://10.0.0.7/", true},
    {"http://127.0.0.1:8090", true},
    {"http://127.1.2.3/x", true},
    {"http://localhost:1/x", true},
    {"http://[::1]:8090/x", true},
    {"http://pay.example/", false},
    {"http://10.0.0.7/", false},
    {"http://127.0.0.1.pay.example/", false},
    {"http://localhost.pay.example/", false},
    {"http://[::2]/", false},
    {"http://user@127.0.0.1/", false},
    {"https://user:secret@pay.example/", false},
    {"https://pay.example/?a=b", false},
    {"https://pay.example/#a", false},
    {"ftp://127.0.0.1/", false},
    {"file:///etc/passwd", false},
    {"pay.example", false},
    {"https://", false},
    {"", false},
};

/* TLS everywhere but on this machine; nothing in the URL that would be lost or told. */
START_TEST(urls_are_looked_at)
{
    payment_http.url = urls[_i].url;
    expect_fit(urls[_i].fits, "PAYMENT_PROVIDER_URL");
}
END_TEST

START_TEST(urls_are_limited)
{
    char *path = repeated("x", 1024);
    char *url = strdup(text("https://pay.example/%s", path));

    payment_http.url = url;
    url[1024] = '\0';
    expect_fit(true, "");
    url[1024] = 'x';
    url[1025] = '\0';
    expect_fit(false, "PAYMENT_PROVIDER_URL");
    free(url);
    free(path);
}
END_TEST

/* What a rule counts on, half of the time that keys are kept, is longer than a call may be on its way:
 * its due, and the time-out of a call. */
START_TEST(keys_are_kept_for_long_enough)
{
    provider_http.keeps_keys_us = 4 * payment_call_timeout + 2 * SECOND;
    expect_fit(true, "");
    provider_http.keeps_keys_us--;
    expect_fit(false, "PAYMENT_PROVIDER_KEEPS_KEYS");
}
END_TEST

/* A token is one line, one word. */
START_TEST(token_files)
{
    static const struct {
        const char *token;
        bool fits;
    } tokens[] = {{"s3cret", true}, {"s3cret\n", true},       {"s3cret\r\n", true},
                  {"a b", false},   {"a\nX-Other: b", false}, {"", false},
                  {"\n", false},    {"\x7f", false},          {"\xc3\xa9", false}};
    char name[] = "/tmp/test-token-XXXXXX";
    int fd = mkstemp(name);

    ck_assert_int_ge(fd, 0);
    payment_http.token_file = name;
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        ck_assert_int_eq(ftruncate(fd, 0), 0);
        ck_assert_int_ge(pwrite(fd, tokens[i].token, strlen(tokens[i].token), 0), 0);
        expect_fit(tokens[i].fits, "PAYMENT_PROVIDER_TOKEN_FILE");
    }
    for (int n = 4096; n <= 4097; n++) {
        char *long_token = repeated("x", n);
        ck_assert_int_eq(pwrite(fd, long_token, (size_t)n, 0), n);
        expect_fit(n == 4096, "PAYMENT_PROVIDER_TOKEN_FILE");
        free(long_token);
    }
    close(fd);
    unlink(name);
    expect_fit(false, "PAYMENT_PROVIDER_TOKEN_FILE");
    payment_http.token_file = "/tmp";
    expect_fit(false, "PAYMENT_PROVIDER_TOKEN_FILE");
    payment_http.token_file = "";
    payment_http.ca_file = name;
    expect_fit(false, "PAYMENT_PROVIDER_CA_FILE");
}
END_TEST

/* The simulated provider needs none of these. */
START_TEST(only_the_chosen_provider_is_asked)
{
    const char *why;

    payment_http.url = "";
    ck_assert(payment_settings_fit(&why));
}
END_TEST

Suite *wire_suite(void)
{
    Suite *s = suite_create("wire");
    TCase *said = tcase_create("said"), *set = tcase_create("settings");

    tcase_add_test(said, requests);
    tcase_add_loop_test(said, every_answer, 0, sizeof answers / sizeof *answers);
    tcase_add_test(said, no_answer_is_unknown);
    tcase_add_test(said, texts_are_limited);
    tcase_add_test(said, answers_are_limited);
    suite_add_tcase(s, said);
    tcase_add_checked_fixture(set, settings, NULL);
    tcase_add_loop_test(set, urls_are_looked_at, 0, sizeof urls / sizeof *urls);
    tcase_add_test(set, urls_are_limited);
    tcase_add_test(set, keys_are_kept_for_long_enough);
    tcase_add_test(set, token_files);
    tcase_add_test(set, only_the_chosen_provider_is_asked);
    suite_add_tcase(s, set);
    return s;
}
