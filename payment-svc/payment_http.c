/* What people ask of payments over HTTP: that of an order with its attempts, and what the simulated
 * provider's books come to. Reads the database as it is now, on the HTTP thread. */
#include "http.h"
#include "payment.h"

/* clang-format off */
static const char time_format[] = "YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"";

static const char one[] = /* $2 time_format */
    "select state, amount, currency, payment_id, provider_ref, reason, cancel, calls,"
    "       to_char(created_at, $2), to_char(due, $2), attempts"
    "  from payment"
    " where order_id = $1";
enum column { STATE, AMOUNT, CURRENCY, PAYMENT_ID, PROVIDER_REF, REASON, CANCEL, CALLS, CREATED_AT,
              DUE, ATTEMPTS };

static const char ledger[] =
    "select coalesce(sum(amount) filter (where refusals is null), 0)::bigint,"
    "       coalesce(sum(amount) filter (where refusals is not null), 0)::bigint,"
    "       count(*) filter (where refusals is null),"
    "       count(*) filter (where refusals is not null)"
    "  from ledger"
    " where reason is null";
/* clang-format on */

/* The token stays with us: it is the customer's means of payment. */
static json_t *payment_of(const char *order_id, const struct saga_rows *rows)
{
    const char *attempts = saga_rows_text(rows, 0, ATTEMPTS);
    json_t *payment = json_pack(
        "{s:s, s:s, s:s*, s:s*, s:s*, s:s*, s:b, s:I, s:s, s:s*, s:o}", "order_id", order_id,
        "state", saga_rows_text(rows, 0, STATE), "currency", saga_rows_text(rows, 0, CURRENCY),
        "payment_id", saga_rows_text(rows, 0, PAYMENT_ID), "provider_ref",
        saga_rows_text(rows, 0, PROVIDER_REF), "reason", saga_rows_text(rows, 0, REASON), "cancel",
        (int)saga_rows_bool(rows, 0, CANCEL), "calls", (json_int_t)saga_rows_int(rows, 0, CALLS),
        "created_at", saga_rows_text(rows, 0, CREATED_AT), "due", saga_rows_text(rows, 0, DUE),
        "attempts", attempts ? json_loads(attempts, 0, NULL) : json_array());

    if (!saga_rows_null(rows, 0, CURRENCY)) /* an amount of 0 is one, and stored as null */
        json_object_set_new(payment, "amount", json_integer(saga_rows_int(rows, 0, AMOUNT)));
    return payment;
}

static void show(struct saga_request *req)
{
    const char *order_id = saga_path(req, "order_id");
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    saga_param_text(&p, order_id);
    saga_param_text(&p, time_format);
    if (saga_pg_query(saga_http_pg(req), one, &p, &rows, &err) < 0)
        saga_reply_error(req, &err);
    else if (saga_rows_n(rows) == 0)
        saga_reply_problem(req, 404, "Unknown payment",
                           "no payment of order %s: nothing is reserved for it yet, or it failed",
                           order_id);
    else
        saga_reply(req, 200, payment_of(order_id, rows));
    saga_rows_free(rows);
    saga_params_free(&p);
}

static void show_ledger(struct saga_request *req)
{
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    if (saga_pg_query(saga_http_pg(req), ledger, NULL, &rows, &err) < 0)
        saga_reply_error(req, &err);
    else
        saga_reply(req, 200,
                   json_pack("{s:I, s:I, s:I, s:I}", "captured",
                             (json_int_t)saga_rows_int(rows, 0, 0), "refunded",
                             (json_int_t)saga_rows_int(rows, 0, 1), "charges",
                             (json_int_t)saga_rows_int(rows, 0, 2), "refunds",
                             (json_int_t)saga_rows_int(rows, 0, 3)));
    saga_rows_free(rows);
}

static const struct saga_route routes[] = {{"GET", "/api/v1/payments/{order_id}", show},
                                           {"GET", "/api/v1/provider/ledger", show_ledger},
                                           {0}};
const struct saga_route *const payment_routes = routes;
