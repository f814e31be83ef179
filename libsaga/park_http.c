/* Parked orders for people. See park_http.h. */
#include "park_http.h"

#include <string.h>

#include "failpoint.h"

enum { PAGE = 100 };
#define TIME "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'"

static const char sql_list[] =
    "select key, count(*), to_char(min(at) at time zone 'UTC', " TIME "),"
    "       (array_agg(input order by n))[1], (array_agg(reason order by n))[1],"
    "       (array_agg(mark order by n))[1]"
    "  from parked where key > $1 group by key order by key limit $2";

static const char sql_one[] =
    "select n, to_char(at at time zone 'UTC', " TIME "), input, id, value, reason, mark"
    "  from parked where key = $1 order by n";

static const char sql_mark[] = "update parked set mark = $2 where key = $1";

static json_t *text(const struct saga_rows *rows, int i, int column)
{
    const char *s = saga_rows_text(rows, i, column);

    return s ? json_string(s) : json_null();
}

static void list(struct saga_request *req)
{
    const char *after = saga_query(req, "after");
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    saga_param_text(&p, after ? after : "");
    saga_param_int(&p, PAGE);
    if (saga_pg_query(saga_http_pg(req), sql_list, &p, &rows, &err) < 0) {
        saga_reply_error(req, &err);
    } else {
        json_t *orders = json_array();
        int n = saga_rows_n(rows);
        for (int i = 0; i < n; i++)
            json_array_append_new(
                orders,
                json_pack("{s:s, s:I, s:s, s:s, s:s, s:o}", "order_id", saga_rows_text(rows, i, 0),
                          "inputs", (json_int_t)saga_rows_int(rows, i, 1), "since",
                          saga_rows_text(rows, i, 2), "input", saga_rows_text(rows, i, 3), "reason",
                          saga_rows_text(rows, i, 4), "mark", text(rows, i, 5)));
        saga_reply(req, 200,
                   json_pack("{s:o, s:s*}", "parked", orders, "next",
                             n == PAGE ? saga_rows_text(rows, n - 1, 0) : NULL));
    }
    saga_rows_free(rows);
    saga_params_free(&p);
}

/* What was refused need not be what it says it is; it is JSON all the same, or null. */
static json_t *value(const struct saga_rows *rows, int i, int column)
{
    const char *s = saga_rows_text(rows, i, column);
    json_t *json = s ? json_loads(s, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;

    return json ? json : text(rows, i, column);
}

static void unknown(struct saga_request *req, const char *id)
{
    saga_reply_problem(req, 404, "Not parked", "nothing of order %.64s is parked here", id);
}

static void show(struct saga_request *req)
{
    const char *id = saga_path(req, "id");
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    saga_param_text(&p, id);
    if (saga_pg_query(saga_http_pg(req), sql_one, &p, &rows, &err) < 0) {
        saga_reply_error(req, &err);
    } else if (saga_rows_n(rows) == 0) {
        unknown(req, id);
    } else {
        json_t *inputs = json_array();
        for (int i = 0; i < saga_rows_n(rows); i++)
            json_array_append_new(
                inputs, json_pack("{s:I, s:s, s:s, s:o, s:o, s:s, s:o}", "n",
                                  (json_int_t)saga_rows_int(rows, i, 0), "at",
                                  saga_rows_text(rows, i, 1), "input", saga_rows_text(rows, i, 2),
                                  "id", text(rows, i, 3), "value", value(rows, i, 4), "reason",
                                  saga_rows_text(rows, i, 5), "mark", text(rows, i, 6)));
        saga_reply(req, 200, json_pack("{s:s, s:o}", "order_id", id, "inputs", inputs));
    }
    saga_rows_free(rows);
    saga_params_free(&p);
}

static void mark(struct saga_request *req, const char *as)
{
    const char *id = saga_path(req, "id");
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    saga_param_text(&p, id);
    saga_param_text(&p, as);
    if (saga_pg_query(saga_http_pg(req), sql_mark, &p, &rows, &err) < 0)
        saga_reply_error(req, &err);
    else if (saga_rows_affected(rows) == 0)
        unknown(req, id);
    else {
        SAGA_FAILPOINT(redrive_marked);
        saga_reply(req, 202,
                   json_pack("{s:s, s:I, s:s}", "order_id", id, "inputs",
                             (json_int_t)saga_rows_affected(rows), "mark", as));
    }
    saga_rows_free(rows);
    saga_params_free(&p);
}

static void redrive(struct saga_request *req)
{
    mark(req, "redrive");
}

static void drop(struct saga_request *req)
{
    mark(req, "drop");
}

const struct saga_route saga_park_routes[] = {
    {"GET", "/parked", list},
    {"GET", "/parked/{id}", show},
    {"POST", "/parked/{id}/redrive", redrive},
    {"POST", "/parked/{id}/drop", drop},
    {0},
};
