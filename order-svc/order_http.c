/* Orders over HTTP: one with its history, or a page of them, as the database has them now; how answers
 * look; and the table of routes. */
#include "order_http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "json.h"

enum { LIMIT = 50, LIMIT_MAX = 500, LOOKED_AT_MAX = 5000 };

enum column {
    ID,
    LANE,
    STATE,
    CUSTOMER,
    CURRENCY,
    AMOUNT,
    MODE,
    REQUESTED,
    LINES,
    REASON,
    TRACKING,
    CREATED_AT,
    DUE,
    HISTORY,
    LAST,
    SEEN
};
_Static_assert((int)LAST == ORDER_COLUMNS_N, "the columns of ORDER_COLUMNS");

/* clang-format off */
static const char one[] =
    "select " ORDER_COLUMNS
    "  from orders o"
    " where order_id = $1";

/* $1 after, $2 status or null, $3 limit, $4 rows to look at: a status that hardly any order has must
 * not read the whole table, so a page may be short or empty and still have a next one. At least one
 * row, with the last id looked at and the number of them; its order is null where none was found. */
static const char page[] =
    "with seen as materialized"
    "     (select order_id, state from orders where order_id > $1 order by order_id limit $4),"
    "     found as materialized"
    "     (select order_id from seen where $2::text is null or state = $2"
    "       order by order_id limit $3)"
    " select " ORDER_COLUMNS ", looked.last, looked.n"
    "   from (select max(order_id) as last, count(*) as n from seen) looked"
    "   left join (found join orders o using (order_id)) on true"
    "  order by o.order_id";
/* clang-format on */

static json_t *time_of(const struct saga_rows *rows, int i, int c)
{
    struct saga_buf b = {0};

    if (saga_rows_null(rows, i, c))
        return NULL;
    saga_json_put_time(&b, saga_rows_time(rows, i, c), 6);
    json_t *time = json_stringn(b.at + 1, b.n - 2); /* without the quotes */
    saga_buf_free(&b);
    return time;
}

static json_t *json_of(const struct saga_rows *rows, int i, int c)
{
    return json_loads(saga_rows_text(rows, i, c), 0, NULL);
}

/* The token stays with us: it is the customer's means of payment. */
json_t *order_json(const struct saga_rows *rows, int i, int at)
{
    if (saga_rows_null(rows, i, at + ID))
        return NULL;
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:o, s:{s:s, s:b}, s:s*, s:s*, s:o, s:o*, s:I, s:o}", "order_id",
        saga_rows_text(rows, i, at + ID), "status", saga_rows_text(rows, i, at + STATE),
        "customer_id", saga_rows_text(rows, i, at + CUSTOMER), "currency",
        saga_rows_text(rows, i, at + CURRENCY), "amount",
        (json_int_t)saga_rows_int(rows, i, at + AMOUNT), "lines", json_of(rows, i, at + LINES),
        "payment", "mode", saga_rows_text(rows, i, at + MODE), "requested",
        (int)saga_rows_bool(rows, i, at + REQUESTED), "reason",
        saga_rows_text(rows, i, at + REASON), "tracking", saga_rows_text(rows, i, at + TRACKING),
        "created_at", time_of(rows, i, at + CREATED_AT), "deadline", time_of(rows, i, at + DUE),
        "lane", (json_int_t)saga_rows_int(rows, i, at + LANE), "history",
        json_of(rows, i, at + HISTORY));
}

void order_reply_unknown(struct saga_request *req, const char *order_id)
{
    saga_reply_problem(req, 404, "Unknown order",
                       "no order %.64s; a request sent a moment ago may still be on its way",
                       order_id);
}

void order_reply_rejected(struct saga_request *req, const char *request, const char *order_id,
                          const char *reason, const char *status, bool by_key)
{
    if (strcmp(reason, "unknown_order") == 0)
        saga_reply_problem(req, 404, "Unknown order", "%s of %.64s is rejected: unknown_order",
                           request, order_id);
    else if (by_key && strcmp(reason, "order_exists") == 0)
        saga_reply_problem(req, 422, "Idempotency-Key in use",
                           "%s of %.64s is rejected: order_exists; this Idempotency-Key has placed "
                           "an order with other content",
                           request, order_id);
    else
        saga_reply_problem(req, 409, "Request rejected",
                           "%s of %.64s is rejected: %s; its status is %s", request, order_id,
                           reason, status);
}

void order_reply_accepted(struct saga_request *req, const struct order_wait *w, const char *status)
{
    char location[96];

    snprintf(location, sizeof location, "/api/v1/orders/%.64s", w->order_id);
    saga_reply_header(req, "Location", location);
    saga_reply(req, 202,
               json_pack("{s:s, s:s*, s:s*}", "order_id", w->order_id, "request_id", w->request_id,
                         "status", status));
}

/* ---- One ---- */

/* CREATED and CANCELLING are on their way to something else. */
static bool is_moving(const struct saga_rows *rows)
{
    const char *state = saga_rows_n(rows) ? saga_rows_text(rows, 0, STATE) : NULL;

    return !state || strcmp(state, order_states[CREATED]) == 0 ||
           strcmp(state, order_states[CANCELLING]) == 0;
}

static bool waits(struct saga_request *req, const char *id)
{
    struct order_wait *w = saga_arena_zero(saga_http_arena(req), sizeof *w);

    *w = (struct order_wait){.req = req,
                             .order_id = id,
                             .lane = -1,
                             .offset = -1,
                             .seconds = order_prefers_wait(saga_header(req, "Prefer"))};
    return w->seconds > 0 && order_wait(w);
}

static void show(struct saga_request *req)
{
    const char *id = saga_path(req, "id");
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    saga_param_text(&p, id);
    if (!saga_name_ok(id, strlen(id)))
        order_reply_unknown(req, id);
    else if (saga_pg_query(saga_http_pg(req), one, &p, &rows, &err) < 0)
        saga_reply_error(req, &err);
    else if (is_moving(rows) && waits(req, id))
        ;
    else if (saga_rows_n(rows) == 0)
        order_reply_unknown(req, id);
    else
        saga_reply(req, 200, order_json(rows, 0, 0));
    saga_rows_free(rows);
    saga_params_free(&p);
}

/* ---- A page ---- */

static bool is_status(const char *status)
{
    for (int i = NONE + 1; order_states[i]; i++)
        if (strcmp(order_states[i], status) == 0)
            return true;
    return false;
}

/* limit of the query. -> 0: not one */
static int64_t limit_of(const char *text)
{
    char *end;

    if (!text)
        return LIMIT;
    long n = strtol(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && n <= LIMIT_MAX ? n : 0;
}

/* next is what to pass as after: it is left out when there is nothing more. */
static json_t *page_of(const struct saga_rows *rows, int64_t limit, int64_t window)
{
    json_t *orders = json_array();
    int n = saga_rows_null(rows, 0, ID) ? 0 : saga_rows_n(rows);

    for (int i = 0; i < n; i++)
        json_array_append_new(orders, order_json(rows, i, 0));
    const char *next = n == limit                               ? saga_rows_text(rows, n - 1, ID)
                       : saga_rows_int(rows, 0, SEEN) == window ? saga_rows_text(rows, 0, LAST)
                                                                : NULL;
    return json_pack("{s:o, s:s*}", "orders", orders, "next", next);
}

static void list(struct saga_request *req)
{
    const char *after = saga_query(req, "after"), *status = saga_query(req, "status");
    int64_t limit = limit_of(saga_query(req, "limit")), window = status ? LOOKED_AT_MAX : limit;
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    saga_param_text(&p, after ? after : "");
    saga_param_text(&p, status);
    saga_param_int(&p, limit);
    saga_param_int(&p, window);
    if (limit == 0)
        saga_reply_problem(req, 400, "Bad limit", "limit: expected 1 to %d", LIMIT_MAX);
    else if (status && !is_status(status))
        saga_reply_problem(req, 400, "Unknown status",
                           "status %.64s: expected CREATED, PAID, CANCELLING, CANCELLED, SHIPPED "
                           "or COMPLETED",
                           status);
    else if (saga_pg_query(saga_http_pg(req), page, &p, &rows, &err) < 0)
        saga_reply_error(req, &err);
    else
        saga_reply(req, 200, page_of(rows, limit, window));
    saga_rows_free(rows);
    saga_params_free(&p);
}

static const struct saga_route routes[] = {{"GET", "/api/v1/orders/{id}", show},
                                           {"GET", "/api/v1/orders", list},
                                           {"POST", "/api/v1/orders", order_place},
                                           {"POST", "/api/v1/orders/{id}/pay", order_pay},
                                           {"POST", "/api/v1/orders/{id}/cancel", order_cancel},
                                           {"POST", "/api/v1/orders/{id}/ship", order_ship},
                                           {"POST", "/api/v1/orders/{id}/complete", order_complete},
                                           {0}};
const struct saga_route *const order_routes = routes;
