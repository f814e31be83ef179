/* Serves HTTP: the only caller of libmicrohttpd. One thread with epoll takes connections, reads a
 * request with its body and finds its route. A handler that waits for nothing runs on that thread;
 * another on a worker (http_work.c), or it answers later, while its connection is suspended; what is
 * answered comes back to this thread, which sends it (http_reply.c).
 *
 * What bounds it: connections, their idle time, the memory of their headers (libmicrohttpd answers
 * 431 itself), the body, those that wait for a worker, and a time-out on the workers' statements.
 *
 * Stop: no more connections are taken, requests that are here are answered, for at most DRAIN_S;
 * what is not answered then ends with the process. */
#include "http.h"

#include <assert.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "command.h"
#include "health.h"
#include "http_private.h"
#include "listen.h"
#include "metrics.h"
#include "park_http.h"

enum {
    BODY_MAX = 64 * 1024,
    BODY_DRAIN = 1024 * 1024, /* a larger one is not even read to its end: the connection is cut */
    HEADERS_MAX = 32 * 1024,  /* libmicrohttpd's memory per connection */
    CONNECTIONS = 5000,       /* most of them may be held (saga_later) */
    IDLE_S = 30,
    DRAIN_S = 2,
    TURN_MS = 1000, /* the loop turns at least so often */
};

static const struct saga_route *own;
static struct MHD_Daemon *server;
static struct saga_histogram *seconds;
static const struct saga_guest *guest;
static _Thread_local bool at_front; /* this is the HTTP thread */

/* The HTTP thread. */
static struct {
    pthread_t thread;
    int epoll, wake, watched; /* the guest's, -1: none */
    atomic_bool stop;
    int requests; /* that have begun and not ended */
    pthread_mutex_t lock;
    struct saga_request *answered; /* by others */
} front = {.watched = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- Routes ---- */

static size_t segment(const char *s)
{
    return strcspn(s, "/");
}

/* Compares segment by segment; "{id}" takes one that is not empty. Parameters of a path that does
 * not fit in the end are overwritten by the next try. */
static bool fits(struct saga_request *req, const char *pattern, const char *path)
{
    req->params = 0;
    while (*pattern == '/' && *path == '/') {
        size_t n = segment(++pattern), m = segment(++path);
        if (*pattern == '{') {
            if (m == 0)
                return false;
            assert(req->params < SAGA_HTTP_PARAMS);
            struct saga_pair *p = &req->param[req->params++];
            p->name = saga_arena_text(&req->arena, pattern + 1, n - 2);
            p->value = saga_arena_text(&req->arena, path, m);
        } else if (n != m || memcmp(pattern, path, n) != 0) {
            return false;
        }
        pattern += n;
        path += m;
    }
    return !*pattern && !*path;
}

static bool serves(const char *route, const char *method)
{
    return strcmp(route, method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(route, "GET") == 0);
}

/* allow collects the methods of all routes with this path, for 405. */
static const struct saga_route *find(struct saga_request *req, const char *path,
                                     struct saga_buf *allow)
{
    const struct saga_route *tables[] = {saga_health_routes, saga_command_routes, saga_park_routes,
                                         own};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct saga_route *r = tables[t]; r && r->method; r++) {
            if (!fits(req, r->path, path))
                continue;
            if (serves(r->method, req->method))
                return r;
            saga_buf_printf(allow, "%s%s%s", allow->n ? ", " : "", r->method,
                            strcmp(r->method, "GET") == 0 ? ", HEAD" : "");
        }
    return NULL;
}

/* ---- What a handler asks ---- */

const char *saga_path(const struct saga_request *req, const char *name)
{
    for (int i = 0; i < req->params; i++)
        if (strcmp(req->param[i].name, name) == 0)
            return req->param[i].value;
    assert(!"a parameter that the route has");
    return NULL;
}

const char *saga_query(const struct saga_request *req, const char *name)
{
    const char *value = NULL;
    size_t n;
    if (MHD_lookup_connection_value_n(req->connection, MHD_GET_ARGUMENT_KIND, name, strlen(name),
                                      &value, &n) != MHD_YES)
        return NULL;
    return value ? value : ""; /* "?verbose" */
}

const char *saga_header(const struct saga_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

const char *saga_body(const struct saga_request *req, size_t *n)
{
    *n = req->body.n;
    return req->body.at ? req->body.at : "";
}

struct saga_pg *saga_http_pg(struct saga_request *req)
{
    assert(req->pg); /* a route of SAGA_AT_ONCE may not wait for the database */
    return req->pg;
}

struct saga_arena *saga_http_arena(struct saga_request *req)
{
    return &req->arena;
}

/* ---- A request's life ---- */

static bool is_json_type(const char *type)
{
    size_t n = strcspn(type, "; \t");
    return (n == 16 && strncasecmp(type, "application/json", n) == 0) ||
           (n > 5 && strncasecmp(type + n - 5, "+json", 5) == 0);
}

/* What is wrong with a request whatever its route does. -> false: it is answered */
static bool acceptable(struct saga_request *req)
{
    struct saga_buf allow = {0};
    const char *type = saga_header(req, "Content-Type");
    req->route = find(req, req->path, &allow);
    if (req->too_large) {
        saga_reply_problem(req, 413, "Content Too Large", "the body is over %d bytes", BODY_MAX);
    } else if (req->route && req->body.n && type && !is_json_type(type)) {
        saga_reply_header(req, "Accept", "application/json");
        saga_reply_problem(req, 415, "Unsupported Media Type",
                           "the body is %.100s, expected application/json", type);
    } else if (allow.n && !req->route) {
        saga_buf_add(&allow, "", 1);
        saga_reply_header(req, "Allow", allow.at);
        saga_reply_problem(req, 405, "Method Not Allowed", "%.20s: allowed is %s", req->method,
                           allow.at);
    } else if (!req->route) {
        saga_reply_problem(req, 404, "Not Found", "no resource %.200s", req->path);
    }
    saga_buf_free(&allow);
    return !req->replied;
}

static void measure(const struct saga_request *req)
{
    char labels[32];
    struct timespec now;
    snprintf(labels, sizeof labels, "status=\"%d\"", req->status);
    saga_count(saga_metric("saga_http_requests_total", labels, "HTTP requests answered"), 1);
    clock_gettime(CLOCK_MONOTONIC, &now);
    saga_observe(seconds, (now.tv_sec - req->began.tv_sec) * INT64_C(1000000) +
                              (now.tv_nsec - req->began.tv_nsec) / 1000);
}

/* libmicrohttpd leaves the body of an answer to HEAD out by itself. */
static enum MHD_Result send_answer(struct saga_request *req)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(req->answer.n, req->answer.at, MHD_RESPMEM_MUST_FREE);
    if (!response)
        return MHD_NO;
    req->answer = (struct saga_buf){0};
    if (req->type)
        MHD_add_response_header(response, "Content-Type", req->type);
    for (int i = 0; i < req->headers; i++)
        MHD_add_response_header(response, req->header[i].name, req->header[i].value);
    if (atomic_load(&front.stop))
        MHD_add_response_header(response, "Connection", "close");
    measure(req);
    enum MHD_Result rc = MHD_queue_response(req->connection, (unsigned)req->status, response);
    MHD_destroy_response(response);
    return rc;
}

static _Thread_local bool later;

void saga_later(struct saga_request *req)
{
    (void)req;
    later = true;
}

bool saga_http_run(struct saga_request *req)
{
    later = false;
    req->handle(req);
    if (later)
        return false;
    assert(req->replied);
    return true;
}

void saga_http_wake(void)
{
    static const uint64_t one = 1;
    ssize_t n = write(front.wake, &one, sizeof one);
    (void)n;
}

void saga_answered(struct saga_request *req)
{
    assert(req->replied);
    if (at_front && req->suspended) {
        MHD_resume_connection(req->connection);
        return;
    }
    pthread_mutex_lock(&front.lock);
    bool first = !front.answered;
    req->next = front.answered;
    front.answered = req;
    pthread_mutex_unlock(&front.lock);
    if (first)
        saga_http_wake();
}

static void busy(struct saga_request *req)
{
    saga_reply_header(req, "Retry-After", "1");
    saga_reply_problem(req, 503, "Service Unavailable", "too many requests wait here");
}

bool saga_pass(struct saga_request *req, void (*handle)(struct saga_request *req))
{
    req->handle = handle;
    if (saga_work_give(req))
        return true;
    busy(req);
    saga_answered(req);
    return false;
}

void saga_keep(struct saga_request *req, void *kept)
{
    req->kept = kept;
}

void *saga_kept(const struct saga_request *req)
{
    return req->kept;
}

/* The whole request is here. */
static enum MHD_Result dispatch(struct saga_request *req)
{
    bool answered = true;
    if (acceptable(req)) {
        req->handle = req->route->handle;
        if (req->route->where == SAGA_AT_ONCE)
            answered = saga_http_run(req);
        else if (saga_work_give(req))
            answered = false;
        else
            busy(req);
    }
    if (answered)
        return send_answer(req);
    MHD_suspend_connection(req->connection);
    req->suspended = true;
    return MHD_YES;
}

/* ---- Whose length cannot be believed (RFC 9112, 6.3) ---- */

static enum MHD_Result count_length(void *count, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    (void)kind, (void)value;
    if (strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0)
        ++*(int *)count;
    return MHD_YES;
}

/* Two lengths: we would wait for one, and what is between takes the other. */
static bool ambiguous(struct saga_request *req)
{
    int n = 0;
    MHD_get_connection_values(req->connection, MHD_HEADER_KIND, count_length, &n);
    if (n < 2)
        return false;
    saga_reply_header(req, "Connection", "close");
    saga_reply_problem(req, 400, "Bad Request", "the length of the body is given twice");
    return true;
}

static bool hopelessly_large(struct saga_request *req)
{
    const char *length = saga_header(req, "Content-Length");
    return length && strtoll(length, NULL, 10) > BODY_DRAIN;
}

/* The headers are here. */
static enum MHD_Result begin(struct saga_request *req)
{
    front.requests++;
    clock_gettime(CLOCK_MONOTONIC, &req->began);
    if (ambiguous(req))
        return send_answer(req);
    if (!hopelessly_large(req))
        return MHD_YES;
    req->too_large = true;
    return dispatch(req);
}

/* A body that is a little too large is read and thrown away: an answer before its end would be lost
 * with most clients, who write before they read. */
static enum MHD_Result take(struct saga_request *req, const char *data, size_t *n)
{
    if (req->body.n + *n > BODY_DRAIN)
        return MHD_NO;
    saga_buf_add(&req->body, data, *n);
    req->too_large = req->body.n > BODY_MAX;
    *n = 0;
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    (void)cls, (void)version;
    struct saga_request *req = *state;
    if (!req) {
        *state = req = saga_alloc(sizeof *req);
        *req = (struct saga_request){.connection = connection, .method = method, .path = path};
        return begin(req);
    }
    if (*n)
        return take(req, data, n);
    return req->replied ? send_answer(req) : dispatch(req);
}

static void on_end(void *cls, struct MHD_Connection *connection, void **state,
                   enum MHD_RequestTerminationCode why)
{
    (void)cls, (void)connection, (void)why;
    struct saga_request *req = *state;
    if (!req)
        return;
    front.requests--;
    saga_arena_free(&req->arena);
    saga_buf_free(&req->body);
    saga_buf_free(&req->answer);
    free(req);
    *state = NULL;
}

/* A path or query with an encoded NUL stays as it is: decoded, it would end early and name
 * something else. */
static size_t unescape(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls, (void)connection;
    return strstr(text, "%00") ? strlen(text) : MHD_http_unescape(text);
}

/* ---- The thread ---- */

static void resume_answered(void)
{
    uint64_t n;
    ssize_t got = read(front.wake, &n, sizeof n);
    (void)got;
    pthread_mutex_lock(&front.lock);
    struct saga_request *req = front.answered;
    front.answered = NULL;
    pthread_mutex_unlock(&front.lock);
    for (struct saga_request *next; req; req = next) {
        next = req->next;
        MHD_resume_connection(req->connection);
    }
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* One round of epoll: what others have answered, then libmicrohttpd. -> ms to wait in the next one */
static int turn(int wait)
{
    struct epoll_event event[3]; /* wake, libmicrohttpd, the guest */
    MHD_UNSIGNED_LONG_LONG ms;
    if (MHD_get_timeout(server, &ms) == MHD_YES && ms < (unsigned)wait)
        wait = (int)ms;
    int n = epoll_wait(front.epoll, event, 3, wait);
    for (int i = 0; i < n; i++)
        if (event[i].data.fd == front.watched)
            guest->ready(event[i].events);
    resume_answered();
    MHD_run(server);
    wait = guest ? guest->turn() : TURN_MS;
    return wait < TURN_MS ? wait : TURN_MS;
}

static void *run(void *unused)
{
    (void)unused;
    int wait = 0;
    at_front = true;
    while (!atomic_load(&front.stop))
        wait = turn(wait);
    int64_t until = now_ms() + DRAIN_S * 1000;
    close(MHD_quiesce_daemon(server));
    while (front.requests && now_ms() < until)
        wait = turn(wait);
    return NULL;
}

bool saga_http_stopping(void)
{
    return atomic_load(&front.stop);
}

/* ---- Start and stop ---- */

void saga_http_guest(const struct saga_guest *g)
{
    guest = g;
}

void saga_http_watch(int fd, unsigned events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (fd == front.watched)
        epoll_ctl(front.epoll, events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, fd, &event);
    else if (events)
        epoll_ctl(front.epoll, EPOLL_CTL_ADD, fd, &event);
    front.watched = events ? fd : fd == front.watched ? -1 : front.watched;
}

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(front.epoll, EPOLL_CTL_ADD, fd, &event);
}

static void start_thread(void)
{
    front.epoll = epoll_create1(EPOLL_CLOEXEC);
    front.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    atomic_store(&front.stop, false);
    watch(front.wake);
    watch(MHD_get_daemon_info(server, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd);
    if (pthread_create(&front.thread, NULL, run, NULL) != 0)
        _exit(70); /* out of threads at start */
}

int saga_http_start(const struct saga_conf *conf, const struct saga_service *service,
                    const struct saga_view *view, int *port, struct saga_err *err)
{
    static const int64_t bounds[] = {500,   1000,   2500,    5000,    10000,
                                     25000, 100000, 1000000, 5000000, 0};
    int fd = saga_listen(conf->http_listen, port, err);
    if (fd < 0)
        return fd;
    own = service->routes;
    saga_health_init(service, view);
    saga_command_init(conf, service, view);
    seconds = saga_histogram("saga_http_request_seconds", "",
                             "From a request's headers to its answer", bounds);
    server =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, NULL,
                         MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL,
                         MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL, MHD_OPTION_CONNECTION_LIMIT,
                         (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADERS_MAX, MHD_OPTION_END);
    if (!server) {
        close(fd);
        return saga_err(err, SAGA_FATAL, "HTTP: the server does not start on %s",
                        conf->http_listen);
    }
    saga_work_start(conf, service);
    start_thread();
    return 0;
}

void saga_http_stop(void)
{
    if (!server)
        return;
    atomic_store(&front.stop, true);
    saga_http_wake();
    pthread_join(front.thread, NULL);
    if (front.requests) /* they still have their connections: all ends with the process */
        return;
    saga_work_stop();
    MHD_stop_daemon(server);
    close(front.epoll);
    close(front.wake);
    server = NULL;
}
