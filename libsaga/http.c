/* Serves HTTP: with http_conn.c, http_rules.c and http_tls.c the only caller of libmicrohttpd. One thread
 * with epoll takes connections, reads a request with its body and finds its route. A handler that
 * waits for nothing runs on that thread; another on a worker (http_work.c), or it answers later, while
 * its connection is suspended; what is answered comes back to this thread, which sends it
 * (http_reply.c).
 *
 * What bounds it: connections and their time (http_conn.c), headers (http_rules.c; far beyond,
 * libmicrohttpd's memory for them), the body, those that wait for a worker and for how long, and a
 * time-out on the workers' statements.
 *
 * Stop: no more connections are taken, those that ask nothing are closed, requests that are here are
 * answered, for at most DRAIN_S; what is not answered then ends with the process. */
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
#include "http_tls.h"
#include "http_token.h"
#include "listen.h"
#include "metrics.h"

enum {
    MEMORY = 20 * 1024, /* libmicrohttpd's, of a connection: its headers and its answer's */
    DRAIN_S = 2,
    TURN_MS = 1000, /* the loop turns at least so often */
};

static struct MHD_Daemon *server;
static saga_cell_t *held;
static const struct saga_guest *guest;
static _Thread_local bool at_front; /* this is the HTTP thread */

/* The HTTP thread. */
static struct {
    pthread_t thread;
    int epoll, wake, watched; /* the guest's, -1: none */
    atomic_bool stop, renew;
    int requests; /* that have begun and not ended */
    int room;     /* connections that there may be */
    pthread_mutex_t lock;
    struct saga_request *answered; /* by others */
} front = {.wake = -1, .watched = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

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
    bool cached = false;
    for (int i = 0; i < req->headers; i++) {
        MHD_add_response_header(response, req->header[i].name, req->header[i].value);
        cached |= strcasecmp(req->header[i].name, "Cache-Control") == 0;
    }
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (!cached)
        MHD_add_response_header(response, "Cache-Control", "no-store");
    if (req->last || atomic_load(&front.stop))
        MHD_add_response_header(response, "Connection", "close");
    saga_http_count(req);
    saga_conn_enter(req->conn, SAGA_ANSWERED);
    enum MHD_Result rc = MHD_queue_response(req->connection, (unsigned)req->status, response);
    MHD_destroy_response(response);
    return rc;
}

static _Thread_local bool later;

void saga_later(struct saga_request *req)
{
    if (!req->held)
        saga_count(held, 1);
    later = req->held = true;
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
    if (req->held)
        saga_count(held, -1);
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

static enum MHD_Result wait_for_answer(struct saga_request *req)
{
    saga_conn_enter(req->conn, SAGA_HANDLED);
    MHD_suspend_connection(req->connection);
    req->suspended = true;
    return MHD_YES;
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
    req->handle = req->route->handle;
    if (req->route->where == SAGA_AT_ONCE) {
        if (saga_http_run(req))
            return send_answer(req);
    } else if (!saga_work_give(req)) {
        busy(req);
        return send_answer(req);
    }
    return wait_for_answer(req);
}

/* The headers are here. What is refused for them is answered after the body, which is thrown away: an
 * answer before its end would be lost with most clients, who write before they read. */
static enum MHD_Result begin(struct saga_request *req)
{
    front.requests++;
    req->began = saga_conn_now();
    saga_conn_enter(req->conn, SAGA_ASKING);
    saga_rules_judge(req);
    return req->replied && req->last ? send_answer(req) : MHD_YES;
}

static enum MHD_Result take(struct saga_request *req, const char *data, size_t *n)
{
    req->read += *n;
    if (req->read > SAGA_BODY_DRAIN)
        return MHD_NO;
    if (!req->replied && req->read > SAGA_BODY_MAX) {
        saga_buf_free(&req->body);
        saga_reply_too_large(req);
    }
    if (!req->replied)
        saga_buf_add(&req->body, data, *n);
    *n = 0;
    return MHD_YES;
}

/* The request line is here. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct saga_request *req = saga_alloc(sizeof *req);
    (void)cls;
    *req = (struct saga_request){
        .connection = connection, .conn = saga_conn_of(connection), .target_n = strlen(target)};
    return req;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **state)
{
    (void)cls, (void)connection;
    struct saga_request *req = *state;
    if (!req->method) {
        req->method = method;
        req->path = path;
        req->http_1_0 = strcmp(version, "HTTP/1.0") == 0;
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
    front.requests -= req->method != NULL;
    saga_conn_enter(req->conn, SAGA_KEPT);
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

/* Once a second, and when told to. */
static void renew(void)
{
    static int64_t looked;
    bool told = atomic_exchange(&front.renew, false);
    int64_t now = saga_conn_now();
    if (!told && now - looked < TURN_MS * 1000)
        return;
    looked = now;
    saga_token_renew(told);
    saga_tls_renew(told);
}

/* One round of epoll: what others have answered, then libmicrohttpd. -> ms to wait in the next one */
static int turn(int wait_ms)
{
    struct epoll_event event[3]; /* wake, libmicrohttpd, the guest */
    MHD_UNSIGNED_LONG_LONG ms;
    if (MHD_get_timeout(server, &ms) == MHD_YES && ms < (unsigned)wait_ms)
        wait_ms = (int)ms;
    int n = epoll_wait(front.epoll, event, 3, wait_ms);
    for (int i = 0; i < n; i++)
        if (event[i].data.fd == front.watched)
            guest->ready(event[i].events);
    resume_answered();
    MHD_run(server);
    saga_conn_cut_late();
    renew();
    wait_ms = guest ? guest->turn() : TURN_MS;
    return wait_ms < TURN_MS ? wait_ms : TURN_MS;
}

/* Nobody at work is interrupted for an answer: where all processors are busy it waits for its turn, some ms,
 * and then answers all that have come meanwhile (sched(7): SCHED_BATCH). */
static void stand_back(void)
{
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &(struct sched_param){0});
}

static void *run(void *unused)
{
    (void)unused;
    int wait_ms = 0;
    at_front = true;
    stand_back();
    while (!atomic_load(&front.stop))
        wait_ms = turn(wait_ms);
    int64_t until = saga_conn_now() + DRAIN_S * 1000000;
    close(MHD_quiesce_daemon(server));
    wait_ms = turn(0); /* what has come meanwhile is no idle connection's */
    saga_conn_cut_idle();
    while (front.requests && saga_conn_now() < until)
        wait_ms = turn(wait_ms);
    return NULL;
}

void saga_http_renew(void)
{
    atomic_store(&front.renew, true);
    saga_http_wake();
}

bool saga_http_stopping(void)
{
    return atomic_load(&front.stop);
}

int saga_http_room(void)
{
    return front.room;
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

static enum MHD_Result on_connection(void *cls, const struct sockaddr *address, socklen_t n)
{
    (void)cls, (void)n;
    return saga_conn_may_come(address) ? MHD_YES : MHD_NO;
}

static struct MHD_Daemon *start_daemon(const struct saga_conf *conf, int fd)
{
    static const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    const struct MHD_OptionItem *tls = saga_tls_options();
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | (tls ? MHD_USE_TLS : 0);

    front.room = saga_conn_init(conf);
    return MHD_start_daemon(
        flags, 0, on_connection, NULL, on_request, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_ARRAY, tls ? tls : none, MHD_OPTION_NOTIFY_CONNECTION, saga_conn_notify, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL, MHD_OPTION_URI_LOG_CALLBACK, on_target, NULL,
        MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)front.room, MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY, MHD_OPTION_END);
}

int saga_http_start(const struct saga_conf *conf, const struct saga_service *service,
                    const struct saga_view *view, int *port, struct saga_err *err)
{
    int fd = saga_listen(conf->http_listen, port, err);
    if (fd < 0)
        return fd;
    if (saga_token_init(conf->http_token_file, err) < 0 ||
        saga_tls_init(conf->http_tls_cert, conf->http_tls_key, err) < 0) {
        close(fd);
        return SAGA_FATAL;
    }
    saga_rules_init(service);
    saga_health_init(service, view);
    saga_command_init(conf, service, view);
    saga_http_count_init(service);
    held = saga_metric("saga_http_held", "", "HTTP requests that wait for what will happen");
    server = start_daemon(conf, fd);
    if (!server) {
        close(fd);
        return saga_err(err, SAGA_FATAL, "HTTP: the server does not start on %s",
                        conf->http_listen);
    }
    saga_work_start(conf, service);
    start_thread();
    return 0;
}

bool saga_http_stop(void)
{
    if (!server)
        return true;
    atomic_store(&front.stop, true);
    saga_http_wake();
    pthread_join(front.thread, NULL);
    if (front.requests) /* they still have their connections: all ends with the process */
        return false;
    saga_work_stop();
    MHD_stop_daemon(server);
    close(front.epoll);
    close(front.wake);
    front.wake = -1; /* a signal may still ask for it */
    server = NULL;
    return true;
}
