/* HTTP: the real server with the routes of all services, over a socket. The input is a line
 * "METHOD path?query", lines "Name: value" up to an empty one, and the body; its length is said
 * correctly, so that the body arrives. The database is away: what is not refused before is 503.
 *
 * Whatever comes, the answer is whole and never 500; what libsaga refuses is problem+json with a
 * detail. */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "http.h"

enum { ROUTES = 32, ANSWER = 256 * 1024, SECONDS = 3 };

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
                                      .database = "host=/nonexistent",
                                      .http_token_file = "",
                                      .http_tls_cert = "",
                                      .http_tls_key = "",
                                      .http_connections = 4096,
                                      .http_request_timeout = 20000000,
                                      .http_idle_timeout = 30000000};
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

/* libFuzzer's clock is a signal every few seconds; connect() cannot be called again after one. */
static int connect_to(int fd, const struct sockaddr_in *to)
{
    sigset_t clock, before;
    sigemptyset(&clock);
    sigaddset(&clock, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &clock, &before);
    int rc = connect(fd, (const struct sockaddr *)to, sizeof *to);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static ssize_t receive(int fd, char *to, size_t n)
{
    ssize_t got;
    while ((got = recv(fd, to, n, 0)) < 0 && errno == EINTR)
        ;
    return got;
}

/* Closed by RST: thousands of connections per second must not wait in TIME_WAIT. */
static int dial(void)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(0x7F000001)}};
    struct linger reset = {1, 0};
    struct timeval patience = {SECONDS, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(fd >= 0 && connect_to(fd, &to) == 0, "connect: %m");
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

struct answer {
    int status;
    char *body; /* NUL added */
    size_t n;   /* bytes that it must have */
    bool problem;
};

/* The server waits for a body that it believes in. */
static bool is_interim(const char *text)
{
    static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
    return strncmp(text, interim, strlen(text)) == 0;
}

/* The first whole answer in text, 100 Continue aside. -> false: there is more of it to come */
static bool read_answer(char *text, bool head, struct answer *a)
{
    char *end = strstr(text, "\r\n\r\n");
    if (end && strncmp(text, "HTTP/1.1 100 ", 13) == 0)
        end = strstr(text = end + 4, "\r\n\r\n");
    if (!end)
        return false;
    *end = '\0';
    const char *length = strstr(text, "\r\nContent-Length: ");
    a->status = strncmp(text, "HTTP/1.1 ", 9) == 0 ? atoi(text + 9) : 0;
    a->problem = strstr(text, "application/problem+json");
    MUST(a->status >= 100 && (length || a->status == 204), "no answer: %s", text);
    *end = '\r';
    a->body = end + 4;
    a->n = head || !length ? 0 : strtoul(length + 18, NULL, 10);
    return strlen(a->body) >= a->n;
}

/* -> false: the connection is cut without an answer */
static bool ask(const char *request, size_t n, bool head, struct answer *a)
{
    static char text[ANSWER + 1];
    size_t got = 0;
    ssize_t part;
    bool whole = false;
    int fd = dial();
    MUST(send(fd, request, n, MSG_NOSIGNAL) == (ssize_t)n, "send: %m");
    while (!whole && got < ANSWER && (part = receive(fd, text + got, ANSWER - got)) > 0) {
        text[got += (size_t)part] = '\0';
        whole = read_answer(text, head, a);
    }
    close(fd);
    MUST(whole || got == 0 || is_interim(text), "half an answer: %s", text);
    if (whole)
        a->body[a->n] = '\0';
    return whole;
}

/* ---- Question and answer ---- */

/* What says how long it is is ours, and comes last: a line that begins with a space goes on with
 * the one before it. */
static bool ours(const char *name)
{
    return strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0 ||
           strcasecmp(name, "Connection") == 0;
}

static void put_request(struct saga_buf *out, const char *line, size_t n,
                        const struct fuzz_form *form)
{
    saga_buf_add(out, line, n);
    saga_buf_str(out, " HTTP/1.1\nHost: fuzz\n");
    for (int i = 0; i < form->headers; i++) {
        const struct saga_header *h = &form->header[i];
        if (!h->value || ours(h->name))
            continue;
        saga_buf_printf(out, "%s: ", h->name);
        saga_buf_add(out, h->value, h->n);
        saga_buf_str(out, "\n");
    }
    saga_buf_printf(out, "Content-Length: %zu\nConnection: close\n\n", form->n);
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

static const char alive[] = "GET /livez HTTP/1.1\nHost: fuzz\nConnection: close\n\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *end = n ? memchr(data, '\n', n) : NULL;
    size_t line = end ? (size_t)(end - data) : n, past = line + (end != NULL);
    bool head = memmem(data, line, "HEAD", 4);
    struct fuzz_form form;
    struct saga_buf request = {0};
    struct answer answer;
    if (port == 0)
        start();
    fuzz_form(data + past, n - past, &form);
    put_request(&request, (const char *)data, line, &form);
    /* A connection is cut where there is no request line, or the body is far too large, and goes on
     * waiting where a CR has ended the headers early: the others are served all the same. */
    if (!ask(request.at, request.n, head, &answer))
        MUST(ask(alive, sizeof alive - 1, false, &answer), "/livez is not answered");
    MUST(answer.status != 500, "%s", answer.body);
    if (answer.problem && !head)
        check_problem(answer.body, answer.status);
    saga_buf_free(&request);
    fuzz_clean();
    return 0;
}
