/* What people ask of the stock over HTTP: an SKU, a page of them, its movements; and what came in.
 * Runs on HTTP's workers; one SKU is read through a cache (stock_cache.h).
 *
 * POST writes the same rows as the lanes do, in a transaction of its own that locks one row of
 * stock and nothing else after it: it waits for a batch that holds the row, and cannot wait in a
 * ring. */
#include "http.h"
#include "inventory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "failpoint.h"
#include "field.h"
#include "json.h"
#include "stock_cache.h"

enum { LIMIT = 100, LIMIT_MAX = 1000, HEADER_MAX = 255 };

/* clang-format off */
#define COLUMNS "sku, available, reserved, shipped, received, version"
enum column { SKU, AVAILABLE, RESERVED, SHIPPED_PIECES, RECEIVED, VERSION };

static const char one[] =
    "select " COLUMNS
    "  from stock"
    " where sku = $1";

static const char page[] = /* $1 after, $2 limit */
    "select " COLUMNS
    "  from stock"
    " where sku > $1"
    " order by sku"
    " limit $2";

/* $1 SKU, $2 before or null, $3 limit. A batch writes many movements at one time, which is all that
 * orders them: no page ends within such a time, so that the next one can begin below it. */
static const char movements[] =
    "select kind, quantity, order_id, event_id, by_whom,"
    "       to_char(at, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), reason"
    "  from stock_movement"
    " where sku = $1 and at < coalesce($2::text::timestamptz, 'infinity')"
    " order by at desc"
    " fetch first $3 rows with ties";

static const char begin[] = "begin";
static const char commit[] = "commit";
static const char rollback[] = "rollback";

static const char lock[] =
    "select version, available"
    "  from stock"
    " where sku = $1"
    "   for no key update";

static const char used[] =
    "select sku, asked"
    "  from stock_movement"
    " where idempotency_key = $1";

static const char create[] = /* nothing happens if another has just created it */
    "insert into stock (sku, available, received)"
    " values ($1, $2, $2)"
    " on conflict (sku) do nothing";

static const char set[] =
    "update stock"
    "   set available = $2, received = received + $2 - available, version = version + 1"
    " where sku = $1";

static const char record[] = /* nothing happens if another has just used the key */
    "insert into stock_movement (sku, kind, quantity, by_whom, idempotency_key, reason, asked, at)"
    " values ($1, 'received', $2, $3, $4, $5, $6, now())"
    " on conflict (idempotency_key) where idempotency_key is not null do nothing";
/* clang-format on */

void inventory_json(const struct stock *stock, struct saga_buf *out)
{
    saga_buf_str(out, "{\"sku\":");
    saga_json_put_text(out, stock->row.key);
    saga_buf_str(out, ",\"available\":");
    saga_buf_int(out, stock->available);
    saga_buf_str(out, ",\"reserved\":");
    saga_buf_int(out, stock->reserved);
    saga_buf_str(out, ",\"shipped\":");
    saga_buf_int(out, stock->shipped);
    saga_buf_str(out, ",\"received\":");
    saga_buf_int(out, stock->received);
    saga_buf_str(out, ",\"version\":");
    saga_buf_int(out, stock->version);
    saga_buf_str(out, "}\n");
}

static void write_row(const struct saga_rows *rows, int i, struct saga_buf *out)
{
    const struct stock stock = {
        .row.key = saga_rows_text(rows, i, SKU),
        .available = saga_rows_int(rows, i, AVAILABLE),
        .reserved = saga_rows_int(rows, i, RESERVED),
        .shipped = saga_rows_int(rows, i, SHIPPED_PIECES),
        .received = saga_rows_int(rows, i, RECEIVED),
        .version = saga_rows_int(rows, i, VERSION),
    };

    inventory_json(&stock, out);
}

static json_t *stock_of(const struct saga_rows *rows, int i)
{
    struct saga_buf text = {0};

    write_row(rows, i, &text);
    json_t *stock = json_loadb(text.at, text.n, 0, NULL);
    saga_buf_free(&text);
    return stock;
}

static void unknown(struct saga_request *req, const char *sku)
{
    saga_reply_problem(req, 404, "Unknown SKU", "no SKU %.64s is in the inventory", sku);
}

/* Runs sql and answers with what make() makes of the rows; none is 404 where sku is given. */
static void answer(struct saga_request *req, const char *sql, const struct saga_params *p,
                   const char *sku, int status,
                   json_t *(*make)(struct saga_request *req, const struct saga_rows *rows))
{
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    if (saga_pg_query(saga_http_pg(req), sql, p, &rows, &err) < 0)
        saga_reply_error(req, &err);
    else if (sku && saga_rows_n(rows) == 0)
        unknown(req, sku);
    else
        saga_reply(req, status, make(req, rows));
    saga_rows_free(rows);
}

/* The row's version goes out as ETag, to come back as If-Match. */
static json_t *make_one(struct saga_request *req, const struct saga_rows *rows)
{
    char tag[32];

    snprintf(tag, sizeof tag, "\"%" PRId64 "\"", saga_rows_int(rows, 0, VERSION));
    saga_reply_header(req, "ETag", tag);
    return stock_of(rows, 0);
}

static void show_with(struct saga_request *req, const char *sku, int status)
{
    struct saga_params p = {0};

    saga_param_text(&p, sku);
    answer(req, one, &p, sku, status, make_one);
    saga_params_free(&p);
}

/* ---- One SKU, through the cache ---- */

static int read_one(struct saga_request *req, const char *sku, struct stock_answer *to)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    saga_param_text(&p, sku);
    int rc = saga_pg_query(saga_http_pg(req), one, &p, &rows, &err);
    if (rc < 0) {
        saga_reply_error(req, &err);
    } else if (saga_rows_n(rows)) {
        struct saga_buf text = {0};
        write_row(rows, 0, &text);
        to->version = saga_rows_int(rows, 0, VERSION);
        to->n = text.n;
        to->body = saga_arena_text(saga_http_arena(req), text.at, text.n);
        saga_buf_free(&text);
    }
    saga_rows_free(rows);
    saga_params_free(&p);
    return rc;
}

static void answer_one(struct saga_request *req, const char *sku, const struct stock_answer *stock)
{
    char tag[32];

    if (!stock->body) {
        unknown(req, sku);
        return;
    }
    snprintf(tag, sizeof tag, "\"%" PRId64 "\"", stock->version);
    saga_reply_header(req, "ETag", tag);
    saga_reply_text(req, 200, "application/json", stock->body, stock->n);
}

/* On the HTTP thread. */
static void show(struct saga_request *req)
{
    static const struct stock_reader reader = {read_one, answer_one};
    const char *sku = saga_path(req, "sku");

    if (saga_name_ok(sku, strlen(sku)))
        stock_cache_get(req, sku, &reader);
    else
        unknown(req, sku);
}

/* -> false: it is not one, and the request is answered. */
static bool limit_of(struct saga_request *req, int64_t *limit)
{
    const char *text = saga_query(req, "limit");
    char *end = "";

    *limit = text ? strtol(text, &end, 10) : LIMIT;
    if (!*end && *limit >= 1 && *limit <= LIMIT_MAX)
        return true;
    saga_reply_problem(req, 400, "Bad limit", "limit: expected 1 to %d", LIMIT_MAX);
    return false;
}

/* next is what to pass as after; it is left out on a page that is not full. */
static json_t *make_page(struct saga_request *req, const struct saga_rows *rows)
{
    json_t *items = json_array();
    int n = saga_rows_n(rows);
    const char *limit = saga_query(req, "limit");

    for (int i = 0; i < n; i++)
        json_array_append_new(items, stock_of(rows, i));
    bool full = n > 0 && n == (limit ? atol(limit) : LIMIT);
    return json_pack("{s:o, s:s*}", "inventory", items, "next",
                     full ? saga_rows_text(rows, n - 1, SKU) : NULL);
}

static void list(struct saga_request *req)
{
    const char *after = saga_query(req, "after");
    struct saga_params p = {0};
    int64_t limit;

    if (!limit_of(req, &limit))
        return;
    saga_param_text(&p, after ? after : "");
    saga_param_int(&p, limit);
    answer(req, page, &p, NULL, 200, make_page);
    saga_params_free(&p);
}

/* next is what to pass as before. */
static json_t *make_movements(struct saga_request *req, const struct saga_rows *rows)
{
    json_t *items = json_array();
    int n = saga_rows_n(rows);
    const char *limit = saga_query(req, "limit");

    for (int i = 0; i < n; i++)
        json_array_append_new(
            items,
            json_pack("{s:s, s:s, s:I, s:s*, s:s*, s:s*, s:s*}", "at", saga_rows_text(rows, i, 5),
                      "kind", saga_rows_text(rows, i, 0), "quantity",
                      (json_int_t)saga_rows_int(rows, i, 1), "order_id", saga_rows_text(rows, i, 2),
                      "event_id", saga_rows_text(rows, i, 3), "by", saga_rows_text(rows, i, 4),
                      "reason", saga_rows_text(rows, i, 6)));
    bool full = n > 0 && n >= (limit ? atol(limit) : LIMIT);
    return json_pack("{s:s, s:o, s:s*}", "sku", saga_path(req, "sku"), "movements", items, "next",
                     full ? saga_rows_text(rows, n - 1, 5) : NULL);
}

/* before of the query, as PostgreSQL reads it; it knows more of times than RFC 3339 and less, too.
 * -> false: it is not one, and the request is answered. */
static bool before_of(struct saga_request *req, const char **before)
{
    const char *text = saga_query(req, "before");
    struct saga_buf b = {0};
    int64_t us;

    *before = NULL;
    if (!text)
        return true;
    if (!saga_time_read(text, strlen(text), &us)) {
        saga_reply_problem(req, 400, "Bad before", "before: expected a time as %s",
                           "2026-11-24T13:31:25.123456Z");
        return false;
    }
    saga_json_put_time(&b, us, 6);
    *before = saga_arena_text(saga_http_arena(req), b.at + 1, b.n - 2); /* without the quotes */
    saga_buf_free(&b);
    return true;
}

static void list_movements(struct saga_request *req)
{
    struct saga_params p = {0};
    const char *before;
    int64_t limit;

    if (!limit_of(req, &limit) || !before_of(req, &before))
        return;
    saga_param_text(&p, saga_path(req, "sku"));
    saga_param_text(&p, before);
    saga_param_int(&p, limit);
    answer(req, movements, &p, NULL, 200, make_movements);
    saga_params_free(&p);
}

/* ---- POST ---- */

struct wish {
    const char *sku;
    int64_t quantity;
    const char *key, *by, *reason; /* or NULL */
    int64_t version;               /* of If-Match; ANY, or NONE_ASKED */
};
enum { NONE_ASKED = -1, ANY = -2 };
enum { AGAIN = 0, DONE = 200, CREATED = 201, STALE = 412, KEY_OF_ANOTHER = 422 };

#define T wish
static const struct saga_field wish_fields[] = {
    {SAGA_AT(struct T, sku), SAGA_ID},
    {SAGA_AT(struct T, quantity), SAGA_INT, 0, MAX_STOCK},
    {SAGA_AT(struct T, reason), SAGA_TEXT, 0, 256, .optional = true},
    {0}};
#undef T

/* What is there: its row, locked, and whether the key has been used, for this or another request. */
struct found {
    bool exists, repeated, of_another;
    int64_t version, available;
};

/* The key is looked up when the lock is held: a request of the same key that held it is done then.
 */
static int find(struct saga_pg *pg, const struct wish *w, struct found *found, struct saga_err *err)
{
    struct saga_params sku = {0}, key = {0};
    int rc;

    saga_param_text(&sku, w->sku);
    saga_param_text(&key, w->key);
    if ((rc = saga_pg_send(pg, begin, NULL, err)) == 0 &&
        (rc = saga_pg_send(pg, lock, &sku, err)) == 0 &&
        (rc = saga_pg_send(pg, used, &key, err)) == 0 && (rc = saga_pg_sync(pg, err)) == 0 &&
        (rc = saga_pg_wait(pg, err)) == 0) {
        const struct saga_rows *row = saga_pg_result(pg, 1), *use = saga_pg_result(pg, 2);
        found->exists = saga_rows_n(row) > 0;
        found->version = found->exists ? saga_rows_int(row, 0, 0) : 0;
        found->available = found->exists ? saga_rows_int(row, 0, 1) : 0;
        found->repeated = saga_rows_n(use) > 0;
        found->of_another =
            found->repeated &&
            (strcmp(saga_rows_text(use, 0, 0), w->sku) != 0 ||
             (!saga_rows_null(use, 0, 1) && saga_rows_int(use, 0, 1) != w->quantity));
    }
    saga_params_free(&sku);
    saga_params_free(&key);
    return rc;
}

/* Writes stock and movement, in one round trip. -> AGAIN: another was faster, CREATED or DONE */
static int write(struct saga_pg *pg, const struct wish *w, const struct found *found,
                 struct saga_err *err)
{
    struct saga_params stock = {0}, movement = {0};
    int rc;

    saga_param_text(&stock, w->sku);
    saga_param_int(&stock, w->quantity);
    saga_param_text(&movement, w->sku);
    saga_param_int(&movement, w->quantity - found->available);
    saga_param_text(&movement, w->by);
    saga_param_text(&movement, w->key);
    saga_param_text(&movement, w->reason);
    saga_param_int(&movement, w->quantity);
    if ((rc = saga_pg_send(pg, found->exists ? set : create, &stock, err)) == 0 &&
        (rc = saga_pg_send(pg, record, &movement, err)) == 0 && (rc = saga_pg_sync(pg, err)) == 0 &&
        (rc = saga_pg_wait(pg, err)) == 0)
        rc = saga_rows_affected(saga_pg_result(pg, 0)) == 0 ||
                     saga_rows_affected(saga_pg_result(pg, 1)) == 0
                 ? AGAIN
             : found->exists ? DONE
                             : CREATED;
    saga_params_free(&stock);
    saga_params_free(&movement);
    return rc;
}

/* A new one is known before anybody can see it, to all who say what there is not. */
static int announce(struct saga_pg *pg, const struct wish *w, struct saga_err *err)
{
    int rc = saga_pg_query(pg, stock_cache_creating_lock, NULL, NULL, err);

    return rc < 0 ? rc : stock_cache_creating(w->sku, err);
}

/* A repeat is known before If-Match is looked at: its own first run has moved the version. */
static int decide(struct saga_pg *pg, const struct wish *w, struct found *found,
                  struct saga_err *err)
{
    int rc = find(pg, w, found, err);

    if (rc < 0)
        return rc;
    if (found->repeated)
        return found->of_another ? KEY_OF_ANOTHER : DONE;
    if (w->version != NONE_ASKED &&
        (!found->exists || (w->version != ANY && w->version != found->version)))
        return STALE;
    if (!found->exists && (rc = announce(pg, w, err)) < 0)
        return rc;
    return write(pg, w, found, err);
}

static int apply(struct saga_pg *pg, const struct wish *w, struct found *found,
                 struct saga_err *err)
{
    int rc, end;

    do {
        rc = decide(pg, w, found, err);
        bool good = rc == DONE || rc == CREATED;
        struct stock_change *change = NULL;
        struct saga_err later = {0};
        if (good) /* a repeat, too: who made the change may have died before he told of it */
            change =
                stock_cache_storing(w->sku, found->version + !found->repeated, saga_pg_pid(pg));
        if (good)
            SAGA_FAILPOINT(stock_written);
        /* A lost connection has rolled back already. */
        end = saga_pg_connected(pg)
                  ? saga_pg_query(pg, good ? commit : rollback, NULL, NULL, good ? err : &later)
                  : 0;
        if (good)
            SAGA_FAILPOINT(stock_committed);
        stock_cache_stored(change, end == 0 || saga_pg_connected(pg));
    } while (rc == AGAIN && end == 0);
    return end < 0 ? end : rc;
}

/* "7", 7 or *. -> false: none of these */
static bool read_match(const char *text, int64_t *version)
{
    char *end;
    bool quoted = text && *text == '"';

    *version = !text ? NONE_ASKED : ANY;
    if (!text || strcmp(text, "*") == 0)
        return true;
    text += quoted;
    *version = strtoll(text, &end, 10);
    return *text >= '0' && *text <= '9' && strcmp(end, quoted ? "\"" : "") == 0;
}

/* NULL, or ASCII from least to ~, so many of it. */
static bool is_line(const char *text, char least, size_t min)
{
    size_t n = text ? strlen(text) : min;

    for (const char *c = text; c && *c; c++)
        if (*c < least || *c > '~')
            return false;
    return n >= min && n <= HEADER_MAX;
}

/* -> false: refused, and the request is answered. */
static bool read_wish(struct saga_request *req, struct wish *w)
{
    struct saga_json json;
    struct saga_err err = {0};
    size_t n;
    const char *body = saga_body(req, &n);

    *w = (struct wish){.key = saga_header(req, "Idempotency-Key"), .by = saga_header(req, "From")};
    saga_json_init(&json, body, n, saga_http_arena(req), &err);
    if (saga_fields_read(wish_fields, &json, "", w, saga_http_arena(req), &err) < 0 ||
        saga_json_end(&json) < 0)
        saga_reply_error(req, &err);
    else if (!read_match(saga_header(req, "If-Match"), &w->version))
        saga_reply_problem(req, 400, "Bad If-Match", "If-Match: expected a version, as \"7\"");
    else if (!is_line(w->key, '!', 1))
        saga_reply_problem(req, 400, "Bad Idempotency-Key",
                           "Idempotency-Key: expected 1 to %d visible ASCII characters",
                           HEADER_MAX);
    else if (!is_line(w->by, ' ', 0))
        saga_reply_problem(req, 400, "Bad From", "From: expected at most %d ASCII characters",
                           HEADER_MAX);
    else
        return true;
    return false;
}

static void receive(struct saga_request *req)
{
    struct wish w;
    struct found found = {0};
    struct saga_err err = {0};

    if (!read_wish(req, &w))
        return;
    int rc = apply(saga_http_pg(req), &w, &found, &err);
    if (rc < 0)
        saga_reply_error(req, &err);
    else if (rc == STALE)
        saga_reply_problem(req, rc, "Another version",
                           "SKU %s is at version %" PRId64 ", not at that of If-Match", w.sku,
                           found.version);
    else if (rc == KEY_OF_ANOTHER)
        saga_reply_problem(req, rc, "Idempotency-Key in use",
                           "this Idempotency-Key has set another SKU or quantity");
    else
        show_with(req, w.sku, rc);
}

static const struct saga_route routes[] = {
    {"GET", "/api/v1/inventory/{sku}", show, SAGA_AT_ONCE},
    {"GET", "/api/v1/inventory", list},
    {"POST", "/api/v1/inventory", receive},
    {"GET", "/api/v1/inventory/{sku}/movements", list_movements},
    {0}};
const struct saga_route *const inventory_routes = routes;
