/* Parked orders (DESIGN.md 4.7). An input that cannot be applied (the database refuses its content,
 * its payload is not what the fields tables say, RULES.md calls it impossible) waits in table
 * parked, and so does every later one of its order, in the same transaction as its offset: other
 * orders go on, and this one keeps its order.
 *
 * Redrive: an operator sets a mark, by any process of the service; the lane's owner asks for marked
 * rows once a second and takes the first of each order as an input of its next batch, which removes
 * the row. What comes meanwhile for the order queues behind, marked too. When nothing of it is left
 * it is an order like any other. One that fails again keeps its place and loses its mark.
 *
 * Only the owner of a lane adds or removes its rows, so what it knows of them holds for its term. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "failpoint.h"
#include "log.h"

enum { SECOND = 1000000, NOT_ASKED = -1 /* no term */ };

static const char sql_keys[] = "select distinct lane, key from parked where lane = any($1::int[])";

/* What came between an operator's mark and our reading it belongs to the marked ones. */
static const char sql_mark[] =
    "update parked set mark = 'redrive'"
    " where mark is null"
    "   and (lane, key) in (select lane, key from parked"
    "                        where lane = any($1::int[]) and mark is not null)";

static const char sql_first[] =
    "select distinct on (lane, key) lane, n, key, mark = 'drop', input, id, trace, value"
    "  from parked where lane = any($1::int[]) and mark is not null"
    " order by lane, key, n limit 500";

static const char sql_park[] =
    "insert into parked (lane, key, at, input, id, trace, value, reason, mark)"
    "     select lane, key, clock_timestamp(), input, id, trace, value, reason, mark"
    "       from unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],"
    "                   $7::text[], $8::text[]) with ordinality"
    "            n(lane, key, input, id, trace, value, reason, mark, i)"
    "      order by i";

/* Not if it was to be dropped, and is to be redriven since. */
static const char sql_remove[] =
    "delete from parked p"
    " using unnest($1::int[], $2::text[], $3::bigint[], $4::text[]) r(lane, key, n, mark)"
    " where p.key = r.key and p.n = r.n and (r.mark is null or p.mark = r.mark)";

static const char sql_failed[] =
    "update parked p set mark = null, reason = case when p.n = f.n then f.reason else p.reason end"
    "  from unnest($1::int[], $2::text[], $3::bigint[], $4::text[]) f(lane, key, n, reason)"
    " where p.key = f.key";

/* ---- The orders that are parked ---- */

struct saga_parked_key {
    struct saga_parked_key *next;
    int32_t lane;
    bool marked; /* what is parked of it is being redriven: newcomers are to follow */
    char key[];
};

static struct saga_parked_key **find(struct saga_parking *p, const char *key)
{
    struct saga_parked_key **at = &p->bucket[saga_hash(key) % 64];

    while (*at && strcmp((*at)->key, key))
        at = &(*at)->next;
    return at;
}

static struct saga_parked_key *put(struct saga_parking *p, int32_t lane, const char *key)
{
    struct saga_parked_key **at = find(p, key);
    size_t n = strlen(key) + 1;

    if (*at)
        return *at;
    *at = saga_alloc(sizeof **at + n);
    **at = (struct saga_parked_key){.lane = lane};
    memcpy((*at)->key, key, n);
    p->n++;
    return *at;
}

static void forget_lane(struct saga_parking *p, int32_t lane)
{
    for (int b = 0; b < 64; b++)
        for (struct saga_parked_key **at = &p->bucket[b], *k; (k = *at);) {
            if (k->lane != lane) {
                at = &k->next;
                continue;
            }
            *at = k->next;
            free(k);
            p->n--;
        }
}

void saga_park_keys(const struct saga_engine *e, struct saga_params *p)
{
    saga_param_array(p, SAGA_OID_TEXT);
    for (int b = 0; b < 64; b++)
        for (const struct saga_parked_key *k = e->parking.bucket[b]; k; k = k->next)
            saga_element_text(p, k->key, -1);
    saga_param_array_end(p);
}

/* ---- In a batch ---- */

void saga_park_screen(struct saga_engine *e)
{
    struct saga_batch *b = &e->batch;
    const struct saga_parking *p = &e->parking;

    for (int i = 0; i < b->n; i++) {
        struct saga_in *in = &b->in[i];
        if (!in->rule || in->kind == SAGA_IN_DROPPED)
            continue;
        if (b->n == 1 && !strcmp(in->key, p->refused))
            saga_batch_park(b, in, p->why);
        else if (in->kind == SAGA_IN_PARKED && !in->reason)
            saga_batch_park(b, in, in->detail);
        else if (p->n && !in->redriven && in->kind != SAGA_IN_PARKED && *find(&e->parking, in->key))
            saga_batch_park(b, in, "its order is parked");
    }
}

int saga_park_refused(struct saga_engine *e, struct saga_err *err)
{
    const struct saga_in *in = &e->batch.in[0];

    if (!in->rule || in->kind == SAGA_IN_PARKED)
        return err->code = SAGA_RETRY; /* nothing of an order is stored: no order is to blame */
    snprintf(e->parking.refused, sizeof e->parking.refused, "%s", in->key);
    snprintf(e->parking.why, sizeof e->parking.why, "%s", err->text);
    return SAGA_FENCED;
}

static bool is_new(const struct saga_in *in)
{
    return in->kind == SAGA_IN_PARKED && !in->redriven;
}

static bool is_gone(const struct saga_in *in)
{
    return in->kind != SAGA_IN_PARKED && in->redriven;
}

static bool has_failed(const struct saga_in *in)
{
    return in->kind == SAGA_IN_PARKED && in->redriven;
}

/* Of whatever may stand in a message: text that every database takes. */
static void put_reason(struct saga_params *p, const char *reason)
{
    char text[256];
    size_t n = 0;

    for (; reason[n] && n < sizeof text - 1; n++)
        text[n] = reason[n] >= ' ' && reason[n] <= '~' ? reason[n] : '?';
    saga_element_text(p, text, (int64_t)n);
}

static void put_value(struct saga_engine *e, struct saga_params *p, const struct saga_in *in)
{
    e->scratch.n = 0;
    if (in->data)
        saga_payload_write(in->rule->input, in->key, in->data, &e->scratch);
    if (in->data)
        saga_element_text(p, e->scratch.at, (int64_t)e->scratch.n);
    else
        saga_element_text(p, in->raw, -1);
}

/* An array parameter over the inputs that which() names. */
#define EACH(which, oid, put)                                                                      \
    do {                                                                                           \
        saga_param_array(p, oid);                                                                  \
        for (int i_ = 0; i_ < e->batch.n; i_++) {                                                  \
            const struct saga_in *in = &e->batch.in[i_];                                           \
            if (which(in))                                                                         \
                put;                                                                               \
        }                                                                                          \
        saga_param_array_end(p);                                                                   \
    } while (0)

static bool begin(struct saga_engine *e, bool (*which)(const struct saga_in *))
{
    struct saga_params *p = &e->params;

    saga_params_reset(p);
    EACH(which, SAGA_OID_INT4, saga_element_int4(p, in->lane));
    if (p->param[0].elements == 0)
        return false;
    EACH(which, SAGA_OID_TEXT, saga_element_text(p, in->key, -1));
    return true;
}

static const char *mark_of(struct saga_engine *e, const char *key)
{
    const struct saga_parked_key *k = *find(&e->parking, key);

    return k && k->marked ? "redrive" : NULL;
}

int saga_park_store(struct saga_engine *e, struct saga_err *err)
{
    struct saga_params *p = &e->params;
    int rc;

    if (begin(e, is_new)) {
        EACH(is_new, SAGA_OID_TEXT, saga_element_text(p, in->rule->input->type, -1));
        EACH(is_new, SAGA_OID_TEXT, saga_element_text(p, in->id, -1));
        EACH(is_new, SAGA_OID_TEXT, saga_element_text(p, in->trace, -1));
        EACH(is_new, SAGA_OID_TEXT, put_value(e, p, in));
        EACH(is_new, SAGA_OID_TEXT, put_reason(p, in->reason));
        EACH(is_new, SAGA_OID_TEXT, saga_element_text(p, mark_of(e, in->key), -1));
        if ((rc = saga_pg_send(e->pg, sql_park, p, err)) < 0)
            return rc;
    }
    if (begin(e, is_gone)) {
        EACH(is_gone, SAGA_OID_INT8, saga_element_int(p, in->redriven));
        EACH(is_gone, SAGA_OID_TEXT,
             saga_element_text(p, in->kind == SAGA_IN_DROPPED ? "drop" : NULL, -1));
        if ((rc = saga_pg_send(e->pg, sql_remove, p, err)) < 0)
            return rc;
    }
    if (begin(e, has_failed)) {
        EACH(has_failed, SAGA_OID_INT8, saga_element_int(p, in->redriven));
        EACH(has_failed, SAGA_OID_TEXT, put_reason(p, in->reason));
        if ((rc = saga_pg_send(e->pg, sql_failed, p, err)) < 0)
            return rc;
    }
    return 0;
}

static void say(const struct saga_in *in)
{
    char text[512];

    snprintf(text, sizeof text, "%s of order %s: %s", in->rule->input->type, in->key, in->reason);
    saga_log_text(SAGA_ERROR, in->redriven ? "parked again" : "parked", text);
}

void saga_park_done(struct saga_engine *e)
{
    struct saga_parking *parking = &e->parking;

    for (int i = 0; i < e->batch.n; i++) {
        const struct saga_in *in = &e->batch.in[i];
        if (in->kind == SAGA_IN_DROPPED)
            saga_log_text(SAGA_WARN, "a parked input was dropped by an operator, of order",
                          in->key);
        if (is_gone(in)) {
            SAGA_FAILPOINT(redriven);
            e->lane[in->lane].parked_term = NOT_ASKED; /* it may have nothing parked any more */
            parking->ask_at = 0;
        }
        if (in->kind != SAGA_IN_PARKED)
            continue;
        SAGA_FAILPOINT(parked);
        bool before = *find(parking, in->key) != NULL;
        struct saga_parked_key *k = put(parking, in->lane, in->key);
        if (in->redriven)
            k->marked = false;
        else
            saga_count(e->metric.parked, 1);
        if (in->redriven || !before)
            say(in);
    }
    saga_gauge(e->metric.parked_orders, parking->n);
}

/* ---- Asking ---- */

static int query(struct saga_engine *e, const char *first, const char *second, struct saga_err *err)
{
    int rc;

    if ((rc = saga_pg_send(e->pg, first, &e->params, err)) < 0 ||
        (second && (rc = saga_pg_send(e->pg, second, &e->params, err)) < 0) ||
        (rc = saga_pg_sync(e->pg, err)) < 0)
        return rc;
    return saga_engine_wait(e, err);
}

static bool is_asked(const struct saga_lane *lane)
{
    return lane->state == SAGA_LANE_RUNNING && lane->parked_term != lane->term;
}

/* The parked orders of the lanes that were taken since, or where some may be none any more. */
static int ask_keys(struct saga_engine *e, struct saga_err *err)
{
    struct saga_params *p = &e->params;
    const struct saga_rows *rows;
    int rc;

    for (int32_t i = 0; i < e->lanes; i++)
        if (!e->lane[i].ours && e->lane[i].parked_term) {
            forget_lane(&e->parking, i);
            e->lane[i].parked_term = 0;
        }
    saga_params_reset(p);
    saga_param_array(p, SAGA_OID_INT4);
    for (int32_t i = 0; i < e->lanes; i++)
        if (is_asked(&e->lane[i]))
            saga_element_int4(p, i);
    saga_param_array_end(p);
    if (p->param[0].elements == 0)
        return 0;
    int64_t *term =
        saga_alloc((size_t)e->lanes * sizeof *term); /* a turn of the loop may move it */
    for (int32_t i = 0; i < e->lanes; i++)
        term[i] = is_asked(&e->lane[i]) ? e->lane[i].term : -1;
    if ((rc = query(e, sql_keys, NULL, err)) >= 0) {
        for (int32_t i = 0; i < e->lanes; i++)
            if (term[i] >= 0) {
                forget_lane(&e->parking, i);
                e->lane[i].parked_term = term[i];
            }
        rows = saga_pg_result(e->pg, 0);
        for (int i = 0; i < saga_rows_n(rows); i++)
            put(&e->parking, (int32_t)saga_rows_int(rows, i, 0), saga_rows_text(rows, i, 1));
        saga_gauge(e->metric.parked_orders, e->parking.n);
        if (e->parking.n)
            e->parking.ask_at = 0;
        e->due_at = 0; /* what is parked no more may be due */
    }
    free(term);
    return rc;
}

static const char *copy(struct saga_arena *arena, const struct saga_rows *rows, int row, int column)
{
    const char *s = saga_rows_text(rows, row, column);

    return s ? saga_arena_text(arena, s, strlen(s)) : NULL;
}

enum { LANE, N, KEY, DROP, INPUT, ID, TRACE, VALUE };

static void read_one(struct saga_engine *e, const struct saga_rows *rows, int i,
                     struct saga_redriven *r)
{
    struct saga_arena *arena = &e->parking.arena;
    const char *input = saga_rows_text(rows, i, INPUT), *value = saga_rows_text(rows, i, VALUE);
    struct saga_err err = {0};
    void *data = NULL;

    *r = (struct saga_redriven){.lane = (int32_t)saga_rows_int(rows, i, LANE),
                                .n = saga_rows_int(rows, i, N),
                                .drop = saga_rows_bool(rows, i, DROP),
                                .key = copy(arena, rows, i, KEY),
                                .id = copy(arena, rows, i, ID),
                                .trace = copy(arena, rows, i, TRACE),
                                .rule = saga_rule_of(e->service, input)};
    r->term = e->lane[r->lane].term;
    if (!r->rule) {
        r->rule = e->service->rules; /* any: it is not run */
        saga_err(&err, SAGA_POISON, "there is no rule for %.60s", input);
    } else if (!r->drop && r->rule->input != &saga_due)
        saga_payload_read(r->rule->input, r->key, value ? value : "", value ? strlen(value) : 0,
                          arena, &data, &err);
    r->data = data;
    if (err.code && !r->drop)
        r->why = saga_arena_text(arena, err.text, strlen(err.text));
}

/* The first of each order that is marked. */
static int ask_first(struct saga_engine *e, int64_t now, struct saga_err *err)
{
    struct saga_parking *parking = &e->parking;
    struct saga_params *p = &e->params;
    const struct saga_rows *rows;
    int rc, n;

    parking->ask_at = now + SECOND;
    saga_params_reset(p);
    saga_param_array(p, SAGA_OID_INT4);
    for (int32_t i = 0; i < e->lanes; i++)
        if (e->lane[i].state == SAGA_LANE_RUNNING && !e->lane[i].paused)
            saga_element_int4(p, i);
    saga_param_array_end(p);
    if (p->param[0].elements == 0)
        return 0;
    if ((rc = query(e, sql_mark, sql_first, err)) < 0)
        return rc;
    rows = saga_pg_result(e->pg, 1);
    n = saga_rows_n(rows);
    saga_arena_reset(&parking->arena);
    if (n > parking->redriven_cap)
        parking->redriven = saga_realloc(parking->redriven, (size_t)(parking->redriven_cap = n) *
                                                                sizeof *parking->redriven);
    for (int i = 0; i < n; i++) {
        put(parking, (int32_t)saga_rows_int(rows, i, LANE), saga_rows_text(rows, i, KEY))->marked =
            true;
        read_one(e, rows, i, &parking->redriven[i]);
    }
    parking->redriven_n = n;
    return 0;
}

int saga_park_ask(struct saga_engine *e, struct saga_err *err)
{
    int64_t now = saga_now();
    int rc;

    if ((rc = ask_keys(e, err)) < 0 || e->parking.redriven_n)
        return rc;
    return e->parking.n && now >= e->parking.ask_at ? ask_first(e, now, err) : 0;
}
