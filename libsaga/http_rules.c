/* What is wrong with a request whatever its route does: told by its headers alone, before its body.
 * What libmicrohttpd has let in is judged again where it is more tolerant than RFC 9112, because
 * what stands between us and the client may read the same bytes in another way. */
#include <assert.h>
#include <ctype.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <strings.h>

#include "command.h"
#include "health.h"
#include "http_private.h"
#include "http_token.h"
#include "park_http.h"

enum { TARGET_MAX = 4 * 1024, HEADERS_MAX = 8 * 1024 };

/* ---- Routes ---- */

static const struct saga_route *own;

void saga_rules_init(const struct saga_service *service)
{
    own = service->routes;
}

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

/* allow collects the methods of all routes with this path, for 405 and OPTIONS; *any is one of them. */
static const struct saga_route *find(struct saga_request *req, struct saga_buf *allow,
                                     const struct saga_route **any)
{
    const struct saga_route *tables[] = {saga_health_routes, saga_command_routes, saga_park_routes,
                                         own};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct saga_route *r = tables[t]; r && r->method; r++) {
            if (!fits(req, r->path, req->path))
                continue;
            *any = r;
            if (serves(r->method, req->method))
                return r;
            saga_buf_printf(allow, "%s%s, ", r->method, strcmp(r->method, "GET") ? "" : ", HEAD");
        }
    return NULL;
}

/* ---- What the headers say ---- */

/* One pass over all of them. */
struct headers {
    int lengths, hosts, tokens, keys;
    size_t bytes;
    bool garbled;
    const char *type; /* of the answer, for weigh */
    bool asked, acceptable;
    int rank;
};

static bool is(const char *s, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(s, word, n) == 0;
}

/* How closely a media range of RFC 9110, 12.5.1 fits type; 0: not at all. */
static int rank_of(const char *range, size_t n, const char *type)
{
    size_t whole = strcspn(type, ";"), major = strcspn(type, "/") + 1;
    if (n == whole && strncasecmp(range, type, n) == 0)
        return 3;
    if (n == major + 1 && strncasecmp(range, type, major) == 0 && range[major] == '*')
        return 2;
    return is(range, n, "*/*");
}

/* "q=0", "q=0.0": whatever fits is not wanted */
static bool is_zero(const char *parameters, size_t n)
{
    const char *end = parameters + n;
    for (const char *q = parameters; q + 2 < end; q++)
        if ((q[-1] == ';' || q[-1] == ' ' || q[-1] == '\t') && (*q == 'q' || *q == 'Q') &&
            q[1] == '=')
            return q[2] == '0' && strspn(q + 2, "0.") == strspn(q + 2, "0123456789.");
    return false;
}

/* The closest range decides. */
static void weigh(struct headers *h, const char *value)
{
    while (*(value += strspn(value, ", \t"))) {
        size_t n = strcspn(value, ","), name = strcspn(value, ";, \t");
        int rank = rank_of(value, name, h->type);
        bool wanted = name == n || !is_zero(value + name + 1, n - name - 1);
        h->asked = true;
        if (rank > h->rank)
            h->acceptable = false;
        if (rank >= h->rank && rank) {
            h->acceptable |= wanted;
            h->rank = rank;
        }
        value += n;
    }
}

static bool is_text(const char *s)
{
    for (; *s; s++)
        if (((unsigned char)*s < ' ' && *s != '\t') || *s == 0x7f)
            return false;
    return true;
}

static bool is_name(const char *s)
{
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("!#$%&'*+-.^_`|~", *s))
            return false;
    return true;
}

static enum MHD_Result look(void *to, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct headers *h = to;
    (void)kind;
    if (!value)
        value = "";
    h->bytes += strlen(name) + strlen(value) + 4; /* ": " and CRLF */
    h->garbled |= !is_name(name) || !is_text(value);
    h->lengths += strcasecmp(name, "Content-Length") == 0;
    h->lengths += strcasecmp(name, "Transfer-Encoding") == 0;
    h->hosts += strcasecmp(name, "Host") == 0;
    h->tokens += strcasecmp(name, "Authorization") == 0;
    h->keys += strcasecmp(name, "Idempotency-Key") == 0;
    if (strcasecmp(name, "Accept") == 0)
        weigh(h, value);
    return MHD_YES;
}

/* ---- What is wrong. Each: -> whether it has answered ---- */

/* Where a request ends must not be open to opinion (RFC 9112, 6.3): the connection ends with it. */
static bool is_ambiguous(struct saga_request *req, const struct headers *h)
{
    const char *coding = saga_header(req, "Transfer-Encoding");
    if (h->garbled)
        saga_reply_problem(req, 400, "Bad Request", "a header is not one of HTTP");
    else if (h->lengths > 1)
        saga_reply_problem(req, 400, "Bad Request", "the length of the body is given twice");
    else if (coding && req->http_1_0)
        saga_reply_problem(req, 400, "Bad Request", "HTTP/1.0 knows no Transfer-Encoding");
    else if (coding && strcasecmp(coding, "chunked") != 0)
        saga_reply_problem(req, 501, "Not Implemented", "Transfer-Encoding: expected chunked");
    else if (h->hosts > 1 || (!h->hosts && !req->http_1_0))
        saga_reply_problem(req, 400, "Bad Request", "Host: expected once");
    else
        return false;
    req->last = true;
    return true;
}

static bool is_oversized(struct saga_request *req, const struct headers *h)
{
    if (req->target_n > TARGET_MAX)
        saga_reply_problem(req, 414, "URI Too Long", "path and query are over %d bytes",
                           TARGET_MAX);
    else if (h->bytes > HEADERS_MAX)
        saga_reply_problem(req, 431, "Request Header Fields Too Large",
                           "the headers are over %d bytes", HEADERS_MAX);
    return req->replied;
}

/* RFC 6750: without a token the client is told that one is needed, a wrong one is called so. */
static bool is_stranger(struct saga_request *req, const struct headers *h)
{
    const char *given = saga_header(req, "Authorization");
    if (!saga_token_needed() || (h->tokens == 1 && saga_token_fits(given)))
        return false;
    saga_reply_header(req, "WWW-Authenticate",
                      given ? "Bearer realm=\"saga\", error=\"invalid_token\""
                            : "Bearer realm=\"saga\"");
    saga_reply_problem(req, 401, "Unauthorized", "%s",
                       given ? "Authorization: not the bearer token of this service"
                             : "Authorization: a bearer token is expected");
    return true;
}

static bool is_too_fast(struct saga_request *req)
{
    if (saga_conn_may_ask(req->conn))
        return false;
    saga_reply_header(req, "Retry-After", "1");
    saga_reply_problem(req, 429, "Too Many Requests",
                       "more requests per second than one client may make here");
    return true;
}

static bool is_json_type(const char *type)
{
    size_t n = strcspn(type, "; \t");
    return is(type, n, "application/json") || (n > 5 && strncasecmp(type + n - 5, "+json", 5) == 0);
}

static bool is_foreign(struct saga_request *req)
{
    const char *type = saga_header(req, "Content-Type"),
               *coding = saga_header(req, "Content-Encoding"), *expect = saga_header(req, "Expect");
    if (expect && strcasecmp(expect, "100-continue") != 0) {
        saga_reply_problem(req, 417, "Expectation Failed", "Expect: expected 100-continue");
    } else if (coding && strcasecmp(coding, "identity") != 0) {
        saga_reply_header(req, "Accept-Encoding", "identity");
        saga_reply_problem(req, 415, "Unsupported Media Type",
                           "the body is encoded as %.100s, expected identity", coding);
    } else if (type && req->has_body && !is_json_type(type)) {
        saga_reply_header(req, "Accept", "application/json");
        saga_reply_problem(req, 415, "Unsupported Media Type",
                           "the body is %.100s, expected application/json", type);
    }
    return req->replied;
}

static bool is_known_method(const char *method)
{
    static const char *const known[] = {"GET",     "HEAD",    "POST",  "PUT",   "DELETE",
                                        "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], method) == 0)
            return true;
    return false;
}

/* No route: which methods there are is the answer to OPTIONS, and part of that to others. */
static void answer_without_route(struct saga_request *req, struct saga_buf *allow)
{
    bool options = strcmp(req->method, "OPTIONS") == 0;
    if (options && strcmp(req->path, "*") == 0)
        saga_buf_str(allow, "GET, HEAD, POST, ");
    if (!is_known_method(req->method)) {
        saga_reply_problem(req, 501, "Not Implemented", "%.20s: no method that is known here",
                           req->method);
    } else if (!allow->n) {
        saga_reply_problem(req, 404, "Not Found", "no resource %.200s", req->path);
    } else {
        saga_buf_add(allow, "OPTIONS", sizeof "OPTIONS");
        saga_reply_header(req, "Allow", allow->at);
        if (options)
            saga_reply_text(req, 204, NULL, "", 0);
        else
            saga_reply_problem(req, 405, "Method Not Allowed", "%.20s: allowed is %s", req->method,
                               allow->at);
    }
}

static bool is_unacceptable(struct saga_request *req, struct headers *h)
{
    if (h->acceptable || !h->asked)
        return false;
    saga_reply_problem(req, 406, "Not Acceptable", "the answer is %s", h->type);
    return true;
}

/* Whoever passes it on may keep the other one. */
static bool is_doubled(struct saga_request *req, const struct headers *h)
{
    if (h->keys > 1)
        saga_reply_problem(req, 400, "Bad Request", "Idempotency-Key: expected once");
    return h->keys > 1;
}

static bool is_large(struct saga_request *req)
{
    const char *length = saga_header(req, "Content-Length");
    int64_t n = length ? strtoll(length, NULL, 10) : 0;
    req->has_body = n > 0 || saga_header(req, "Transfer-Encoding");
    if (n <= SAGA_BODY_MAX)
        return false;
    req->last = n > SAGA_BODY_DRAIN;
    saga_reply_too_large(req);
    return true;
}

void saga_rules_judge(struct saga_request *req)
{
    struct saga_buf allow = {0};
    const struct saga_route *any = NULL;

    req->route = find(req, &allow, &any);
    struct headers h = {.type = any && any->type ? any->type : "application/json"};
    MHD_get_connection_values(req->connection, MHD_HEADER_KIND, look, &h);
    bool open = any && any->open;
    if (is_ambiguous(req, &h) || is_oversized(req, &h) ||
        (!open && (is_too_fast(req) || is_stranger(req, &h))))
        req->route = NULL;
    else if (!req->route)
        answer_without_route(req, &allow);
    else
        (void)(is_unacceptable(req, &h) || is_doubled(req, &h) || is_large(req) || is_foreign(req));
    const char *expect = saga_header(req, "Expect");
    if (expect) /* the client waits with its body */
        req->last |= req->replied;
    saga_buf_free(&allow);
}
