/* Answers: a status, headers and a body, kept in the request until the HTTP thread sends them. A
 * request is answered exactly once: that it is not answered twice is asserted. Errors are RFC 9457's
 * application/problem+json. */
#include <assert.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "http_private.h"
#include "log.h"

enum { FAILED_EVERY = 10 /* s */ };

/* A line end would begin a header, or an answer, of the client's own making. */
static bool is_clean(const char *value)
{
    for (; *value; value++)
        if ((unsigned char)*value < ' ' || *value == 0x7f)
            return false;
    return true;
}

void saga_reply_header(struct saga_request *req, const char *name, const char *value)
{
    assert(!req->replied && req->headers < SAGA_HTTP_HEADERS);
    if (!is_clean(value))
        return;
    req->header[req->headers++] =
        (struct saga_pair){saga_arena_text(&req->arena, name, strlen(name)),
                           saga_arena_text(&req->arena, value, strlen(value))};
}

static void reply(struct saga_request *req, int status, const char *type)
{
    assert(!req->replied);
    req->replied = true;
    req->status = status;
    req->type = type;
}

void saga_reply_text(struct saga_request *req, int status, const char *type, const char *text,
                     size_t n)
{
    saga_buf_add(&req->answer, text, n);
    reply(req, status, type);
}

static void reply_json(struct saga_request *req, int status, const char *type, json_t *body)
{
    char *dump = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    assert(dump); /* only text that is not UTF-8, which no reader lets in */
    saga_buf_str(&req->answer, dump);
    saga_buf_str(&req->answer, "\n");
    free(dump);
    reply(req, status, type);
}

void saga_reply(struct saga_request *req, int status, json_t *body)
{
    reply_json(req, status, "application/json", body);
}

/* One line in FAILED_EVERY, of the first, with the number of those before it that have none. */
static void tell_failed(const struct saga_request *req, int status, const char *detail)
{
    static _Atomic int64_t next;
    static atomic_int untold;
    char text[400];
    int64_t now = saga_conn_now(), due = atomic_load(&next);

    if (now < due || !atomic_compare_exchange_strong(&next, &due, now + FAILED_EVERY * 1000000)) {
        atomic_fetch_add(&untold, 1);
        return;
    }
    snprintf(text, sizeof text, "%s %s: %d, %s (and %d before it)", req->method,
             req->route ? req->route->path : "?", status, detail, atomic_exchange(&untold, 0));
    saga_log_text(SAGA_WARN, "requests fail", text);
}

static void problem(struct saga_request *req, int status, const char *title, const char *detail)
{
    if (status == 500 || status == 503 || status == 504) /* it is not the client's fault */
        tell_failed(req, status, detail);
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

void saga_reply_too_large(struct saga_request *req)
{
    saga_reply_problem(req, 413, "Content Too Large", "the body is over %d bytes", SAGA_BODY_MAX);
}

/* 400: not JSON at all; 422: JSON that says what we do not accept. */
static bool is_json(const struct saga_request *req)
{
    size_t n;
    const char *body = saga_body(req, &n);
    json_t *json = json_loadb(
        body, n,
        JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
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
