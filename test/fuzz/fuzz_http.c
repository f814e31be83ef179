/* HTTP: the real server with the routes of all services, over a socket. The input is a line
 * "METHOD path?query", lines "Name: value" up to an empty one, and the body; its length is said
 * correctly, so that the body arrives. The database is away: what is not refused before is 503.
 *
 * Whatever comes, there is one whole answer, and it is never 500; what libsaga refuses is
 * problem+json with a detail. */
#include <arpa/inet.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "http.h"

enum { ROUTES = 32, ANSWER = 256 * 1024, SECONDS = 20 };

/* ---- The engine's part ---- */

static int lanes(struct saga_lane_view *out, int max)
{
    if (max > 0)
        *out = (struct saga_lane_view){.lane = 3, .term = 1795513885123, .state = "running"};
    return max > 0;
}

static int total(void)
{
    return 12;
}

static int64_t turned(void)
{
    return test_now();
}

static const char *waits(char *out, size_t n)
{
    (void)out, (void)n;
    return NULL;
}

/* ---- The server ---- */

/* The services' headers do not go together in one file. */
extern const struct saga_route *const order_routes, *const inventory_routes, *const payment_routes;

static struct saga_route routes[ROUTES];
static const struct saga_view view = {lanes, total, turned, waits};
static const struct saga_service service = {.name = "order", .routes = routes};
static const struct saga_conf conf = {.http_listen = "127.0.0.1:0",
                                      .database = "host=/nonexistent"};
static int port;

static void start(void)
{
    const struct saga_route *const parts[] = {order_routes, inventory_routes, payment_routes};
    struct saga_err err = {0};
    int n = 0;
    for (int i = 0; i < 3; i++)
        for (const struct saga_route *r = parts[i]; r->method; r++) {
            MUST(n + 1 < ROUTES, "more routes than room");
            routes[n++] = *r;
        }
    MUST(saga_http_start(&conf, &service, &view, &port, &err) == 0, "%s", err.text);
}

/* Closed by RST: thousands of connections per second must not wait in TIME_WAIT. */
static int dial(void)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(0x7F000001)}};
    struct linger reset = {1, 0};
    struct timeval patience = {SECONDS, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0, "connect: %m");
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

/* -> bytes of the answer, up to the connection's end, which the server makes: NUL added */
static size_t ask(const char *request, size_t n, char *answer)
{
    size_t got = 0;
    ssize_t part;
    int fd = dial();
    MUST(send(fd, request, n, MSG_NOSIGNAL) == (ssize_t)n, "send: %m");
    shutdown(fd, SHUT_WR);
    while (got < ANSWER && (part = recv(fd, answer + got, ANSWER - got, 0)) != 0) {
        if (part < 0)
            break;
        got += (size_t)part;
    }
    close(fd);
    answer[got] = '\0';
    return got;
}

/* ---- Question and answer ---- */

static void put_request(struct saga_buf *out, const char *line, size_t n,
                        const struct fuzz_form *form)
{
    saga_buf_add(out, line, n);
    saga_buf_str(out, " HTTP/1.1\r\nHost: fuzz\r\nConnection: close\r\n");
    for (int i = 0; i < form->headers; i++) {
        const struct saga_header *h = &form->header[i];
        if (!h->value || strcasecmp(h->name, "Transfer-Encoding") == 0)
            continue;
        saga_buf_printf(out, "%s: ", h->name);
        saga_buf_add(out, h->value, h->n);
        saga_buf_str(out, "\r\n");
    }
    saga_buf_printf(out, "Content-Length: %zu\r\n\r\n", form->n);
    saga_buf_add(out, form->body, form->n);
}

static void check_problem(const char *body, int status)
{
    json_error_t error;
    json_t *problem = json_loads(body, JSON_REJECT_DUPLICATES, &error);
    const char *detail = json_string_value(json_object_get(problem, "detail"));
    MUST(problem, "%s: %s", error.text, body);
    MUST(detail && *detail, "no detail: %s", body);
    MUST(json_integer_value(json_object_get(problem, "status")) == status, "%s", body);
    json_decref(problem);
}

static void check_answer(const char *answer, bool head)
{
    const char *body = strstr(answer, "\r\n\r\n");
    int status = strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : 0;
    MUST(status >= 100 && body, "no answer: %.200s", answer);
    MUST(status != 500, "%s", answer);
    if (!head && strstr(answer, "application/problem+json"))
        check_problem(body + 4, status);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static char answer[ANSWER + 1];
    const uint8_t *end = n ? memchr(data, '\n', n) : NULL;
    size_t line = end ? (size_t)(end - data) : n, past = line + (end != NULL);
    struct fuzz_form form;
    struct saga_buf request = {0};
    if (port == 0)
        start();
    fuzz_form(data + past, n - past, &form);
    put_request(&request, (const char *)data, line, &form);
    /* A connection that is cut has no answer: a request line that is none, a body far too large. */
    if (ask(request.at, request.n, answer))
        check_answer(answer, n > 4 && memcmp(data, "HEAD", 4) == 0);
    saga_buf_free(&request);
    fuzz_clean();
    return 0;
}
