/* A whole installation for tests: its orders. See world.h. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "web.h"
#include "world.h"

enum { LOAD_SKUS = 10, KINDS = 10 };

const char *world_topic(const struct world *w, const char *topic)
{
    return text("%s%s", w->prefix, topic);
}

void world_ask(struct world *w, const char *order, const char *format, ...)
{
    char *json;
    va_list args;

    va_start(args, format);
    MUST(vasprintf(&json, format, args) >= 0, "out of memory");
    va_end(args);
    kafka_send(&(struct kafka_record){.topic = world_topic(w, "order.requests"),
                                      .partition = KEYED,
                                      .key = order,
                                      .value = json});
    free(json);
}

static const char *lines_json(const char *lines)
{
    char *copy = strdup(lines), *rest = copy, sku[65];
    const char *json = "";
    long long quantity, price;

    MUST(copy, "out of memory");
    for (char *line; (line = strsep(&rest, ","));) {
        MUST(sscanf(line, " %64s %lld %lld", sku, &quantity, &price) == 3, "line: %s", line);
        json = text("%s%s{\"sku\":\"%s\",\"quantity\":%lld,\"unit_price\":%lld}", json,
                    *json ? "," : "", sku, quantity, price);
    }
    free(copy);
    return json;
}

const char *world_place_json(const char *order, const char *lines, const char *token)
{
    return text("{\"type\":\"PlaceOrder\",%s\"customer_id\":\"ann\",\"currency\":\"EUR\","
                "\"lines\":[%s],\"payment\":{%s}}",
                order ? text("\"order_id\":\"%s\",", order) : "", lines_json(lines),
                same(token, "later") ? "\"mode\":\"later\"" : text("\"token\":\"%s\"", token));
}

void world_place(struct world *w, const char *order, const char *lines, const char *token)
{
    world_ask(w, order, "%s", world_place_json(order, lines, token));
}

void world_stock(struct world *w, const char *sku, int64_t quantity)
{
    long status = web_post(NULL, world_url(world_member(w, INVENTORY, 0), "/api/v1/inventory"),
                           NULL, text("{\"sku\":\"%s\",\"quantity\":%" PRId64 "}", sku, quantity));

    MUST(status == 200 || status == 201, "POST of %s: %ld", sku, status);
}

const char *world_state(struct world *w, const char *order)
{
    return db_text(w->db,
                   "select coalesce(o.state, '-') || ' ' || coalesce(r.state, '-') || ' ' ||"
                   "       coalesce(p.state, '-')"
                   "  from (select '%s' as order_id) n left join orders o using (order_id)"
                   "  left join reservation r using (order_id)"
                   "  left join payment p using (order_id)",
                   order);
}

/* ---- Events ---- */

static const char *member_of(json_t *event, const char *name)
{
    return json_string_value(json_object_get(event, name));
}

const char *world_history(const struct kafka_log *log, const char *order)
{
    json_t *seen = json_object();
    const char *types = "";

    for (int i = 0; i < log->n; i++) {
        const struct kafka_record *r = &log->at[i];
        if (!r->value || !strstr(r->value, order))
            continue;
        json_t *event = json_loadb(r->value, r->value_n, 0, NULL);
        const char *id = member_of(event, "id"), *type = member_of(event, "type");
        if (id && type && same(member_of(event, "subject"), order) && !json_object_get(seen, id)) {
            json_object_set_new(seen, id, json_true());
            types = text("%s%s%s", types, *types ? " " : "", type);
        }
        json_decref(event);
    }
    json_decref(seen);
    return types;
}

/* ---- Load ---- */

void world_stock_load(struct world *w)
{
    for (int i = 0; i < LOAD_SKUS; i++)
        world_stock(w, text("load-%d", i), 100000000);
    world_stock(w, "load-none", 0);
}

/* What kind an order is, its number tells: n % 10. */
static const struct kind {
    const char *lines, *token, *then; /* then: another request, right after */
    const char *end;                  /* pattern of its states */
} kinds[KINDS] = {
    {"load-%d 1 150", "tok_ok", NULL, "PAID HELD COMPLETED"},
    {"load-%d 2 99", "tok_ok", NULL, "PAID HELD COMPLETED"},
    {"load-%d 3 1", "tok_ok", NULL, "PAID HELD COMPLETED"},
    {"load-%d 1 150, load-%d 5 7, load-%d 2 3", "tok_ok", NULL, "PAID HELD COMPLETED"},
    {"load-%d 1 4000", "tok_unknown_once", NULL, "PAID HELD COMPLETED"},
    {"load-%d 1 150", "tok_declined", NULL, "CANCELLED RELEASED FAILED"},
    {"load-%d 1 150, load-unknown 1 1", "tok_ok", NULL, "CANCELLED FAILED -"},
    {"load-%d 4 150", "tok_ok", "CancelOrder", "CANCELLED RELEASED (VOIDED|REFUNDED)"},
    {"load-%d 1 25", "later", "PayOrder", "PAID HELD COMPLETED"},
    {"load-%d 1 150, load-none 1 1", "tok_ok", NULL, "CANCELLED FAILED -"},
};

void world_load(struct world *w, const char *name, int from, int to)
{
    for (int i = from; i < to; i++) {
        const struct kind *kind = &kinds[i % KINDS];
        const char *order = text("%s-%d", name, i);
        int sku = i / KINDS % LOAD_SKUS, second = (sku + 7) % LOAD_SKUS,
            third = (sku + 3) % LOAD_SKUS;
        char lines[128];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(lines, sizeof lines, kind->lines, sku, second, third);
#pragma GCC diagnostic pop
        world_place(w, order, lines, kind->token);
        if (kind->then)
            world_ask(w, order, "{\"type\":\"%s\",\"order_id\":\"%s\",\"token\":\"tok_ok\"}",
                      kind->then, order);
    }
}

void world_loaded(struct world *w, const char *name, int n)
{
    for (int k = 0; k < KINDS; k++) {
        const char *wrong = db_text(
            w->db,
            "select n.order_id || ': ' || coalesce(o.state, '-') || ' ' ||"
            "       coalesce(r.state, '-') || ' ' || coalesce(p.state, '-')"
            "  from (select '%s-' || i as order_id from generate_series(%d, %d - 1, %d) i) n"
            "  left join orders o using (order_id)"
            "  left join reservation r using (order_id)"
            "  left join payment p using (order_id)"
            " where coalesce(o.state, '-') || ' ' || coalesce(r.state, '-') || ' ' ||"
            "       coalesce(p.state, '-') !~ '^%s$'",
            name, k, n, KINDS, kinds[k].end);
        MUST(!wrong, "%s, expected %s", wrong, kinds[k].end);
    }
}
