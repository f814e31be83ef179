/* Out of memory: in every reading path each allocation fails in turn, in a process of its own. It
 * must end with one line and status 70, never by a signal and never by going on: the database knows
 * nothing of what was being read. (Allocations come through --wrap, see the Makefile.) */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "events.h"
#include "field.h"
#include "json.h"
#include "pg.h"
#include "screen.h"
#include "suites.h"

/* ---- Failing ---- */

static long due; /* how many allocations from now one fails; 0: none does */
static bool failed;

static bool fails(void)
{
    if (due == 0 || --due > 0)
        return false;
    failed = true;
    return true;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

/* ---- What is read ---- */

static struct saga_arena arena;
static struct saga_buf value; /* made before anything fails */

static void put_lines(int n)
{
    for (int i = 0; i < n; i++)
        saga_buf_printf(&value, "%s{\"sku\":\"sku-%d\",\"quantity\":1,\"unit_price\":1}",
                        i ? "," : "", i);
}

/* Members that nobody knows are remembered, to tell duplicates. */
static void put_strange(int n)
{
    for (int i = 0; i < n; i++)
        saga_buf_printf(&value, "\"strange-%d\":[{\"a\":\"\\u00e9\"}],", i);
}

#define ORDER                                                                                      \
    "\"customer_id\":\"ann\",\"currency\":\"EUR\",\"payment\":{\"token\":\"tok_ok\"},\"lines\":["
#define CREATED                                                                                    \
    "\"customer_id\":\"ann\",\"currency\":\"EUR\",\"amount\":100,"                                 \
    "\"payment\":{\"mode\":\"now\",\"token\":\"tok_ok\"},\"lines\":["
#define HEAD "\"specversion\":\"1.0\",\"id\":\"7.1.1\",\"source\":\"/order-svc\",\"subject\":\"o\","

static void make_event(void)
{
    saga_buf_str(&value, "{" HEAD "\"type\":\"OrderCreated\",");
    put_strange(300);
    saga_buf_str(&value, "\"data\":{\"order_id\":\"o\"," CREATED);
    put_lines(100);
    saga_buf_str(&value, "]}}");
}

static void make_event_backwards(void)
{
    saga_buf_str(&value, "{\"data\":{\"order_id\":\"o\",");
    put_strange(100);
    saga_buf_str(&value, CREATED);
    put_lines(100);
    saga_buf_str(&value, "]}," HEAD "\"type\":\"OrderCreated\"}");
}

static void make_event_refused(void)
{
    saga_buf_str(&value,
                 "{" HEAD "\"type\":\"OrderCreated\",\"data\":{\"order_id\":\"o\"," CREATED);
    put_lines(100);
    saga_buf_str(&value, ",{\"sku\":\"one too many\"}]}}");
}

static void make_request(void)
{
    saga_buf_str(&value, "{\"type\":\"PlaceOrder\",");
    put_strange(300);
    saga_buf_str(&value, ORDER);
    put_lines(100);
    saga_buf_str(&value, "]}");
}

static void make_structured(void)
{
    saga_buf_str(&value, "{" HEAD "\"type\":\"PlaceOrder\",\"data\":{\"order_id\":\"o\"," ORDER);
    put_lines(100);
    saga_buf_str(&value, "]}}");
}

static void make_binary(void)
{
    saga_buf_str(&value, "{" ORDER);
    put_lines(100);
    saga_buf_str(&value, "]}");
}

static void make_refused(void)
{
    saga_buf_str(&value, "{\"type\":\"PlaceOrder\"," ORDER "{\"sku\":\"a\",\"quantity\":0}]}");
}

static const char *const reads[] = {"order.events", NULL};
static const struct saga_service service = {
    .name = "inventory",
    .requests = "order.requests",
    .accepts = all_requests,
    .creates = &place_order,
    .events = reads,
    .rules = (const struct saga_rule[]){{&order_created}, {0}},
};

static void no_headers(void *owner, struct saga_record *record)
{
    (void)owner, (void)record;
}

static const struct saga_header binary[] = {{"ce_specversion", "1.0", 3},
                                            {"ce_id", "x", 1},
                                            {"ce_source", "/s", 2},
                                            {"ce_type", "PlaceOrder", 10}};

/* As the engine does: the record is kept where it is to be forwarded or buried. */
static void take_in(int topic, const struct saga_header *headers, int n)
{
    struct saga_intake in;
    struct saga_read read;
    struct saga_record record = {.topic = service.requests,
                                 .partition = 7,
                                 .value = value.at,
                                 .value_n = value.n,
                                 .headers = headers,
                                 .headers_n = n};
    saga_intake_init(&in, &service, "history");
    saga_intake_read(&in, topic, 12, &record, no_headers, NULL, &arena, &read);
    saga_intake_free(&in);
}

static void take_event(void)
{
    take_in(1, NULL, 0);
}

static void take_request(void)
{
    take_in(0, NULL, 0);
}

static void take_binary(void)
{
    take_in(0, binary, 4);
}

static void forward(void)
{
    struct saga_record record = {.topic = service.requests, .value = value.at, .value_n = value.n};
    const char *out;
    size_t n;
    saga_request_forward(&record, "o-1", &arena, &out, &n);
}

static void skip(void)
{
    struct saga_json j;
    saga_json_init(&j, value.at, value.n, &arena, NULL);
    saga_json_skip(&j);
}

static void write_it(void)
{
    static struct line lines[100];
    struct saga_buf out = {0};
    struct order order = {"ann", "EUR", 100, {100, lines}, {NOW, "tok_ok"}};
    for (int i = 0; i < 100; i++)
        lines[i] = (struct line){"a-sku-of-some-length", 1, 1};
    saga_event_write(&(struct saga_emission){.source = "/order-svc",
                                             .event = &order_created,
                                             .key = "o",
                                             .id = {1, 1},
                                             .data = &order},
                     &out);
    saga_fields_copy(order_created.fields, sizeof order, &order, &arena);
    saga_buf_free(&out);
}

/* A session of the database, without the database. */
static void session(void)
{
    saga_pg_free(saga_pg_new("host=/nonexistent", "order-svc", "order_svc"));
}

static const struct {
    const char *name;
    void (*make)(void), (*run)(void);
    int least; /* allocations that there are at least */
} paths[] = {{"event", make_event, take_event, 3},
             {"event, data first", make_event_backwards, take_event, 3},
             {"event, refused", make_event_refused, take_event, 3},
             {"request", make_request, take_request, 3},
             {"request, structured", make_structured, take_request, 3},
             {"request, binary", make_binary, take_binary, 3},
             {"request, refused", make_refused, take_request, 3},
             {"forward", make_request, forward, 3},
             {"skip", make_request, skip, 2},
             {"write", make_refused, write_it, 5},
             {"session", make_refused, session, 4}};
enum { PATHS = sizeof paths / sizeof *paths };

/* ---- Failing in turn ---- */

static void child(int path, long n, int out)
{
    dup2(out, STDERR_FILENO);
    due = n;
    paths[path].run();
    due = 0;
    _exit(failed ? 1 : 0);
}

/* -> exit status; text: what it said. */
static int fail_at(int path, long n, char *text, size_t room)
{
    int fd[2], status;
    size_t got = 0;
    ssize_t part;
    ck_assert_int_eq(pipe(fd), 0);
    pid_t pid = fork();
    if (pid == 0)
        child(path, n, fd[1]);
    close(fd[1]);
    while (got + 1 < room && (part = read(fd[0], text + got, room - 1 - got)) > 0)
        got += (size_t)part;
    text[got] = '\0';
    close(fd[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status), "%s: allocation %ld: signal %d: %s", paths[path].name, n,
                  WTERMSIG(status), text);
    return WEXITSTATUS(status);
}

/* Whichever allocation fails, the process ends with its line; after the last one all is well. */
START_TEST(every_allocation_fails)
{
    char said[4096];
    int n = 1, status;
    paths[_i].make();
    for (; (status = fail_at(_i, n, said, sizeof said)) != 0; n++) {
        ck_assert_msg(status == 70, "%s: allocation %d: status %d: %s", paths[_i].name, n, status,
                      said);
        ck_assert_str_eq(said, "{\"level\":\"error\",\"message\":\"out of memory\"}\n");
    }
    ck_assert_str_eq(said, "");
    ck_assert_msg(n - 1 >= paths[_i].least, "%s: %d allocations", paths[_i].name, n - 1);
    saga_buf_free(&value);
}
END_TEST

Suite *memory_suite(void)
{
    Suite *s = suite_create("memory");
    TCase *t = tcase_create("memory");
    tcase_add_loop_test(t, every_allocation_fails, 0, PATHS);
    suite_add_tcase(s, t);
    return s;
}
