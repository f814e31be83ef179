/* Placing, paying, cancelling, shipping and completing orders over HTTP. A handler reads the body by
 * the fields table of the request, refuses what the rules would reject as the order stands now
 * (order_try.c), and posts the request to Kafka just as any other program would. 202 says that Kafka has it,
 * on all replicas in sync; what comes of it, the saga decides: Prefer: wait holds the answer until
 * then (order_wait.c).
 *
 * A client that got no answer repeats what it asked, with the same Idempotency-Key or order_id: a
 * PlaceOrder of the same content changes nothing, and the others have acted once (RULES.md). What the
 * row says may be old by a moment, so a rejection can still come from the saga.
 *
 * What makes the order, or brings it on, may be in a request that is still unread. A request for it
 * stands behind that one, in the same partition; so 404 and 409 are only answered once the lane has read
 * all that Kafka had when we looked, and who places an order and pays it at once is served, as is who
 * ships and completes it. Of a lane that is behind nothing is known: 202, and a rejection follows if
 * there is no such order, or it stands otherwise. */
#include "order_http.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <uuid.h>

#include "event.h"
#include "field.h"
#include "post.h"

enum {
    KAFKA_MS = 2000,
    LOOKS = 6,
    NEAR = 100, /* records that a lane reads while we look */
    LOOKERS = 2 /* of HTTP's workers: the others have other things to do */,
    TRACE_MAX = 512
};

/* What is asked for. Lives in its request's arena. */
struct asking {
    struct order_wait wait; /* has the request, the order, and what the request came to */
    const struct saga_event *event;
    void *data;
    const char *body_id; /* order_id of the body, or NULL */
};

/* ---- Keys ---- */

bool order_id_of_key(const char *key, char id[ORDER_ID_TEXT])
{
    /* of the keys, for ever: another one would make other orders of the same keys */
    static const uuid_t namespace = {0x47, 0x1f, 0x41, 0xb0, 0x54, 0xeb, 0x31, 0xca,
                                     0x0d, 0xa3, 0xb3, 0x52, 0xd5, 0xec, 0x1c, 0x93};
    size_t n = strlen(key);
    uuid_t uuid;

    if (n >= 2 && *key == '"' && key[n - 1] == '"')
        key++, n -= 2;
    if (n < 1 || n > ORDER_KEY_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (key[i] < '!' || key[i] > '~')
            return false;
    uuid_generate_sha1(uuid, namespace, key, n);
    uuid_unparse_lower(uuid, id);
    return true;
}

/* -> the order's id, NULL: the key is none, and that has been said */
static const char *id_of(struct asking *a)
{
    struct saga_request *req = a->wait.req;
    const char *key = saga_header(req, "Idempotency-Key");
    char *id = saga_arena_alloc(saga_http_arena(req), ORDER_ID_TEXT);
    uuid_t uuid;

    if (key && !order_id_of_key(key, id)) {
        saga_reply_problem(req, 400, "Bad Idempotency-Key",
                           "Idempotency-Key: expected 1 to %d visible ASCII characters",
                           ORDER_KEY_MAX);
        return NULL;
    }
    a->wait.by_key = key && !a->body_id;
    if (a->body_id)
        return a->body_id;
    if (!key) {
        uuid_generate_random(uuid);
        uuid_unparse_lower(uuid, id);
    }
    return id;
}

/* ---- Reading ---- */

/* -> false: it is refused, and that has been said */
static bool read_body(struct asking *a)
{
    struct saga_request *req = a->wait.req;
    struct saga_arena *arena = saga_http_arena(req);
    struct saga_json json;
    struct saga_err err = {0};
    const char *why;
    size_t n;
    const char *body = saga_body(req, &n);

    if (n == 0 && a->event != &place_order) {
        body = "{}";
        n = 2;
    }
    a->data = saga_arena_zero(arena, a->event->size + 1);
    saga_json_init(&json, body, n, arena, &err);
    if (saga_fields_read_keyed(a->event->fields, &json, "", &a->body_id, a->data, arena, &err) >=
            0 &&
        saga_json_end(&json) >= 0 && a->event->check && !a->event->check(a->data, &why))
        saga_err(&err, SAGA_POISON, "%s", why);
    if (err.code)
        saga_reply_error(req, &err);
    return !err.code;
}

static struct asking *asking_of(struct saga_request *req, const struct saga_event *event)
{
    struct asking *a = saga_arena_zero(saga_http_arena(req), sizeof *a);

    a->event = event;
    a->wait = (struct order_wait){.req = req,
                                  .request = event->type,
                                  .lane = -1,
                                  .offset = -1,
                                  .seconds = order_prefers_wait(saga_header(req, "Prefer"))};
    return a;
}

/* ---- To Kafka ---- */

static void accepted(struct asking *a)
{
    if (a->wait.seconds > 0 && order_wait(&a->wait))
        return;
    order_reply_accepted(a->wait.req, &a->wait, NULL);
    saga_answered(a->wait.req);
}

static void failed(struct asking *a, bool unknown)
{
    struct saga_request *req = a->wait.req;

    saga_reply_header(req, "Retry-After", "1");
    if (unknown)
        saga_reply_problem(req, 504, "Outcome unknown",
                           "Kafka did not acknowledge %s of %.64s in time: it is not known whether "
                           "it has it. Repeat it with the same Idempotency-Key or order_id: done "
                           "twice it has the effect of once",
                           a->event->type, a->wait.order_id);
    else
        saga_reply_problem(req, 503, "Kafka does not answer",
                           "%s of %.64s was not sent, nothing has been done. Repeat it later; with "
                           "the same Idempotency-Key or order_id that is safe whatever happened",
                           a->event->type, a->wait.order_id);
    saga_answered(req);
}

/* On the posting thread. */
static void posted(void *owner, enum saga_post_end end, int32_t partition, int64_t offset)
{
    struct asking *a = owner;
    char place[80];

    if (end != SAGA_POST_DONE) {
        failed(a, end == SAGA_POST_UNKNOWN);
        return;
    }
    int n = snprintf(place, sizeof place, "order.requests/%d/%" PRId64, (int)partition, offset);
    a->wait.request_id = saga_arena_text(saga_http_arena(a->wait.req), place, (size_t)n);
    a->wait.lane = partition;
    a->wait.offset = offset;
    accepted(a);
}

static void send_request(struct asking *a)
{
    struct saga_request *req = a->wait.req;
    struct saga_buf value = {0};
    struct saga_err err = {0};
    const char *trace = saga_header(req, "traceparent");

    saga_request_write(a->event, a->wait.order_id, a->data, &value);
    saga_later(req);
    if (saga_post(&(struct saga_post){.topic = "order.requests",
                                      .key = a->wait.order_id,
                                      .value = value.at,
                                      .n = value.n,
                                      .trace = trace && strlen(trace) <= TRACE_MAX ? trace : NULL,
                                      .done = posted,
                                      .owner = a},
                  &err) < 0) {
        saga_reply_error(req, &err);
        saga_answered(req);
    }
    saga_buf_free(&value);
}

/* ---- Placing ---- */

/* What has happened is answered again, and nothing happens again. */
static void place_again(struct asking *a, const struct sale *sale)
{
    const char *reason =
        order_refusal(sale, a->wait.order_id, a->event, a->data, saga_http_arena(a->wait.req));

    if (reason) {
        order_reply_rejected(a->wait.req, a->event->type, a->wait.order_id, reason,
                             order_states[sale->row.state], a->wait.by_key);
        return;
    }
    a->wait.request_id = sale->history.at[0].cause;
    if (a->wait.seconds <= 0 || !order_wait(&a->wait))
        order_reply_accepted(a->wait.req, &a->wait, order_states[sale->row.state]);
}

void order_place(struct saga_request *req)
{
    struct asking *a = asking_of(req, &place_order);
    const struct sale *sale = NULL;
    struct saga_err err = {0};
    int rc = 0;

    if (!read_body(a) || !(a->wait.order_id = id_of(a)))
        return;
    if (a->wait.by_key || a->body_id) /* one that is random is new */
        rc = order_load(saga_http_pg(req), a->wait.order_id, saga_http_arena(req), &sale, &err);
    if (rc < 0)
        saga_reply_error(req, &err);
    else if (sale)
        place_again(a, sale);
    else
        send_request(a);
}

/* ---- The others ---- */

static const char sql_lanes[] = "select lanes from identity";

/* One statement, one snapshot: whether the order is there, and how far its lane has read. */
static const char sql_read[] =
    "select next_offset, exists (select from orders where order_id = $2)"
    "  from lane_input where lane = $1::bigint and topic = 'order.requests'";

static int ask_int(struct saga_pg *pg, const char *sql, const struct saga_params *p, int64_t *first,
                   bool *second, struct saga_err *err)
{
    struct saga_rows *rows = NULL;
    int rc = saga_pg_query(pg, sql, p, &rows, err);
    int n = rc < 0 ? 0 : saga_rows_n(rows);

    if (n)
        *first = saga_rows_int(rows, 0, 0);
    if (n && second)
        *second = saga_rows_bool(rows, 0, 1);
    saga_rows_free(rows);
    return rc < 0 ? rc : n;
}

/* A lane that is not far behind is given the time to come there: then what the row says then is certain.
 * until_known: an order that is there is enough. -> 1: something may still come, 0: nothing, or an error */
static int may_come(struct saga_pg *pg, const char *order_id, bool until_known,
                    struct saga_err *err)
{
    static const struct timespec pause = {.tv_nsec = 10000000};
    struct saga_params p = {0};
    int64_t lanes = 0, next = 0, end = 0;
    bool known = false;
    int rc = ask_int(pg, sql_lanes, NULL, &lanes, NULL, err);

    if (rc == 0)
        return saga_err(err, SAGA_RETRY, "order-svc does not know its lanes yet");
    if (rc < 0)
        return rc;
    int32_t lane = saga_lane_of(order_id, strlen(order_id), (int32_t)lanes);
    if ((rc = saga_post_end_of("order.requests", lane, KAFKA_MS, &end, err)) < 0)
        return rc;
    saga_param_int(&p, lane);
    saga_param_text(&p, order_id);
    for (int look = 0; look < LOOKS; look++) {
        if (look)
            nanosleep(&pause, NULL);
        rc = ask_int(pg, sql_read, &p, &next, &known, err);
        if (rc < 0 || (known && until_known) || next >= end || end - next > NEAR)
            break;
    }
    saga_params_free(&p);
    return rc < 0 ? rc : next < end && !(known && until_known);
}

/* As may_come(), unless too many workers do that already. */
static int may_still_come(struct saga_pg *pg, const char *order_id, bool until_known,
                          struct saga_err *err)
{
    static _Atomic int lookers;
    int rc = atomic_fetch_add(&lookers, 1) < LOOKERS ? may_come(pg, order_id, until_known, err) : 1;

    atomic_fetch_sub(&lookers, 1);
    return rc;
}

/* What the rules would say of the row as it is. -> NULL: they would do it, or an error (*rc) */
static const char *refusal(struct asking *a, const struct sale **sale, int *rc,
                           struct saga_err *err)
{
    struct saga_arena *arena = saga_http_arena(a->wait.req);

    *sale = NULL;
    *rc = order_load(saga_http_pg(a->wait.req), a->wait.order_id, arena, sale, err);
    return *rc < 0 ? NULL : order_refusal(*sale, a->wait.order_id, a->event, a->data, arena);
}

/* -> false: it is answered */
static bool is_allowed(struct asking *a)
{
    struct saga_request *req = a->wait.req;
    struct saga_err err = {0};
    const struct sale *sale;
    int rc;
    const char *reason = refusal(a, &sale, &rc, &err);

    if (reason) {
        rc = may_still_come(saga_http_pg(req), a->wait.order_id, !sale, &err);
        if (rc > 0)
            return true;
        if (rc == 0)
            reason = refusal(a, &sale, &rc, &err);
    }
    if (rc < 0) {
        saga_reply_error(req, &err);
        return false;
    }
    if (reason)
        order_reply_rejected(req, a->event->type, a->wait.order_id, reason,
                             order_states[sale ? sale->row.state : NONE], false);
    return !reason;
}

static void ask(struct saga_request *req, const struct saga_event *event)
{
    struct asking *a = asking_of(req, event);
    const char *id = saga_path(req, "id");

    a->wait.order_id = id;
    if (!saga_name_ok(id, strlen(id)))
        order_reply_unknown(req, id);
    else if (!read_body(a))
        return;
    else if (a->body_id && strcmp(a->body_id, id) != 0)
        saga_reply_problem(req, 422, "Another order", "order_id: %s is not that of the path, %s",
                           a->body_id, id);
    else if (is_allowed(a))
        send_request(a);
}

void order_pay(struct saga_request *req)
{
    ask(req, &pay_order);
}

void order_cancel(struct saga_request *req)
{
    ask(req, &cancel_order);
}

void order_ship(struct saga_request *req)
{
    ask(req, &ship_order);
}

void order_complete(struct saga_request *req)
{
    ask(req, &complete_order);
}
