/* Serves HTTP: the only caller of libmicrohttpd. One thread with epoll takes connections, reads a
 * request's body, finds its route and runs the handler to its end.
 *
 * What bounds it: connections, their idle time, the memory of their headers (libmicrohttpd answers
 * 431 itself), the body; and a time-out on the statements of its own database session, because a
 * handler that waits makes all others wait. A request is answered exactly once: that a handler did
 * is asserted. */
#include "http.h"

#include <assert.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "health.h"
#include "listen.h"
#include "mem.h"
#include "metrics.h"
#include "park_http.h"

enum {
    BODY_MAX = 64 * 1024,
    BODY_DRAIN = 1024 * 1024, /* a larger one is not even read to its end: the connection is cut */
    HEADERS_MAX = 32 * 1024,  /* libmicrohttpd's memory per connection */
    CONNECTIONS = 512,
    IDLE_S = 30,
    PARAMS = 4,
    REPLY_HEADERS = 8,
};

struct pair {
    const char *name, *value;
};

struct saga_request {
    struct MHD_Connection *connection;
    const char *method;
    const struct saga_route *route; /* NULL: none fits, or another method */
    struct pair param[PARAMS];
    int params;
    struct saga_arena arena;
    struct saga_buf body;
    bool too_large;
    struct pair header[REPLY_HEADERS]; /* of the answer */
    int headers;
    bool replied;
    enum MHD_Result queued;
    struct timespec began;
};

static const struct saga_route *own;
static struct saga_pg *pg;
static struct MHD_Daemon *server;
static struct saga_histogram *seconds;

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
            assert(req->params < PARAMS);
            struct pair *p = &req->param[req->params++];
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
    (void)req;
    return pg;
}

struct saga_arena *saga_http_arena(struct saga_request *req)
{
    return &req->arena;
}

/* ---- Answers ---- */

void saga_reply_header(struct saga_request *req, const char *name, const char *value)
{
    assert(!req->replied && req->headers < REPLY_HEADERS);
    req->header[req->headers++] = (struct pair){saga_arena_text(&req->arena, name, strlen(name)),
                                                saga_arena_text(&req->arena, value, strlen(value))};
}

static void measure(struct saga_request *req, int status)
{
    char labels[32];
    struct timespec now;
    snprintf(labels, sizeof labels, "status=\"%d\"", status);
    saga_count(saga_metric("saga_http_requests_total", labels, "HTTP requests answered"), 1);
    clock_gettime(CLOCK_MONOTONIC, &now);
    saga_observe(seconds, (now.tv_sec - req->began.tv_sec) * INT64_C(1000000) +
                              (now.tv_nsec - req->began.tv_nsec) / 1000);
}

/* Takes response. libmicrohttpd leaves the body of an answer to HEAD out by itself. */
static void queue(struct saga_request *req, int status, const char *type,
                  struct MHD_Response *response)
{
    assert(!req->replied);
    req->replied = true;
    if (!response) {
        req->queued = MHD_NO;
        return;
    }
    MHD_add_response_header(response, "Content-Type", type);
    for (int i = 0; i < req->headers; i++)
        MHD_add_response_header(response, req->header[i].name, req->header[i].value);
    req->queued = MHD_queue_response(req->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    measure(req, status);
}

void saga_reply_text(struct saga_request *req, int status, const char *type, const char *text,
                     size_t n)
{
    /* MUST_COPY only reads what it is given, but its parameter is not const */
    queue(req, status, type,
          MHD_create_response_from_buffer(n, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY));
}

static void reply_json(struct saga_request *req, int status, const char *type, json_t *body)
{
    struct saga_buf text = {0};
    char *dump = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    assert(dump); /* only text that is not UTF-8, which no reader lets in */
    saga_buf_printf(&text, "%s\n", dump);
    free(dump);
    saga_reply_text(req, status, type, text.at, text.n);
    saga_buf_free(&text);
}

void saga_reply(struct saga_request *req, int status, json_t *body)
{
    reply_json(req, status, "application/json", body);
}

static void problem(struct saga_request *req, int status, const char *title, const char *detail)
{
    json_t *body = json_object();
    json_object_set_new(body, "type", json_string("about:blank"));
    json_object_set_new(body, "title", json_string(title));
    json_object_set_new(body, "status", json_integer(status));
    json_t *text = json_string(detail); /* NULL: not UTF-8, what a client sent */
    json_object_set_new(body, "detail", text ? text : json_string(title));
    reply_json(req, status, "application/problem+json", body);
}

void saga_reply_problem(struct saga_request *req, int status, const char *title, const char *format,
                        ...)
{
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    problem(req, status, title, detail);
}

/* 400: not JSON at all; 422: JSON that says what we do not accept. */
static bool is_json(const struct saga_request *req)
{
    size_t n;
    const char *body = saga_body(req, &n);
    json_t *json = json_loadb(body, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    json_decref(json);
    return json != NULL;
}

void saga_reply_error(struct saga_request *req, const struct saga_err *err)
{
    if (err->code == SAGA_RETRY) {
        saga_reply_header(req, "Retry-After", "1");
        problem(req, 503, "Service Unavailable", err->text);
    } else if (err->code != SAGA_POISON) {
        problem(req, 500, "Internal Server Error", err->text);
    } else if (is_json(req)) {
        problem(req, 422, "Unprocessable Content", err->text);
    } else {
        problem(req, 400, "Bad Request", err->text);
    }
}

/* ---- A request's life ---- */

static bool is_json_type(const char *type)
{
    size_t n = strcspn(type, "; \t");
    return (n == 16 && strncasecmp(type, "application/json", n) == 0) ||
           (n > 5 && strncasecmp(type + n - 5, "+json", 5) == 0);
}

static void dispatch(struct saga_request *req, const char *path)
{
    struct saga_buf allow = {0};
    const char *type = saga_header(req, "Content-Type");
    req->route = find(req, path, &allow);
    if (req->too_large) {
        saga_reply_problem(req, 413, "Content Too Large", "the body is over %d bytes", BODY_MAX);
    } else if (req->route && req->body.n && type && !is_json_type(type)) {
        saga_reply_header(req, "Accept", "application/json");
        saga_reply_problem(req, 415, "Unsupported Media Type",
                           "the body is %.100s, expected application/json", type);
    } else if (req->route) {
        req->route->handle(req);
    } else if (allow.n) {
        saga_buf_add(&allow, "", 1);
        saga_reply_header(req, "Allow", allow.at);
        saga_reply_problem(req, 405, "Method Not Allowed", "%.20s: allowed is %s", req->method,
                           allow.at);
    } else {
        saga_reply_problem(req, 404, "Not Found", "no resource %.200s", path);
    }
    saga_buf_free(&allow);
    assert(req->replied);
}

static bool hopelessly_large(struct saga_request *req)
{
    const char *length = saga_header(req, "Content-Length");
    return length && strtoll(length, NULL, 10) > BODY_DRAIN;
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
        *req = (struct saga_request){.connection = connection, .method = method, .queued = MHD_NO};
        clock_gettime(CLOCK_MONOTONIC, &req->began);
        if (!hopelessly_large(req))
            return MHD_YES;
        req->too_large = true;
    } else if (*n) {
        return take(req, data, n);
    }
    if (!req->replied)
        dispatch(req, path);
    return req->queued;
}

static void on_end(void *cls, struct MHD_Connection *connection, void **state,
                   enum MHD_RequestTerminationCode why)
{
    (void)cls, (void)connection, (void)why;
    struct saga_request *req = *state;
    if (!req)
        return;
    saga_arena_free(&req->arena);
    saga_buf_free(&req->body);
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

/* ---- Start and stop ---- */

static struct saga_pg *session(const struct saga_conf *conf, const struct saga_service *service)
{
    char name[160], schema[80];
    snprintf(name, sizeof name, "%s-svc",
             service->name); /* the engine's, so that a taker may end it */
    snprintf(schema, sizeof schema, "%s_svc", service->name);
    struct saga_pg *made = saga_pg_new(conf->database, name, schema);
    saga_pg_session(made, "set statement_timeout = '5s'");
    return made;
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
    pg = session(conf, service);
    seconds = saga_histogram("saga_http_request_seconds", "",
                             "From a request's headers to its answer", bounds);
    server = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, on_request, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL,
        MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADERS_MAX, MHD_OPTION_END);
    if (server)
        return 0;
    close(fd);
    return saga_err(err, SAGA_FATAL, "HTTP: the server does not start on %s", conf->http_listen);
}

void saga_http_stop(void)
{
    if (!server)
        return;
    MHD_stop_daemon(server); /* closes the listening socket too */
    server = NULL;
    saga_pg_free(pg);
    pg = NULL;
}
