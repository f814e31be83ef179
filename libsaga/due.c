/* Deadlines (DESIGN.md 4.6). A row's due is kept in the row, without an index: an index on what
 * every order changes twice would keep PostgreSQL from updating rows in place (HOT). Table due
 * finds them: a row for each lane and deadline of a batch, with the orders' keys. It is written
 * with the batch and says where to look; the order's row decides, by the same deadline. They are dealt with
 * from the oldest on, and what is older than the oldest that is still open is forgotten. */
#include <stdlib.h>

#include "engine.h"
#include "failpoint.h"

enum { SECOND = 1000000 };

static const char sql_store[] =
    "insert into due (lane, at, keys)"
    "     select lane, at, array_agg(key)"
    "       from unnest($1::int[], $2::timestamptz[], $3::text[]) n(lane, at, key)"
    "      group by lane, at";

/* What these rows announced has been dealt with, unless it is parked. Under another term they are another
 * owner's, who may have written some that we have not seen. */
static const char sql_forget[] =
    "delete from due d using unnest($1::int[], $4::bigint[]) o(lane, term) join lane l using "
    "(lane, term)"
    " where d.lane = l.lane and d.at <= $2 and d.at < $5"
    "   and not exists (select from unnest(d.keys) k where k in (select unnest($3::text[])))";

static bool is_new(const struct saga_slot *slot)
{
    return slot->changed && ((const struct saga_row *)slot->row)->due &&
           ((const struct saga_row *)slot->row)->due !=
               ((const struct saga_row *)slot->origin)->due;
}

int saga_due_store(struct saga_engine *e, struct saga_err *err)
{
    static const struct saga_field at = {"due", offsetof(struct saga_row, due), SAGA_TIME};
    const struct saga_slots *rows = &e->batch.orders;
    struct saga_params *p = &e->params;

    saga_params_reset(p);
    saga_param_array(p, SAGA_OID_INT4);
    for (int i = 0; i < rows->n; i++)
        if (is_new(rows->list[i]))
            saga_element_int4(p, rows->list[i]->lane);
    saga_param_array_end(p);
    if (p->param[0].elements == 0)
        return 0;
    saga_param_array(p, SAGA_OID_TIMESTAMPTZ);
    for (int i = 0; i < rows->n; i++)
        if (is_new(rows->list[i]))
            saga_element_column(p, &at, rows->list[i]->row);
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_TEXT);
    for (int i = 0; i < rows->n; i++)
        if (is_new(rows->list[i]))
            saga_element_text(p, rows->list[i]->key, -1);
    saga_param_array_end(p);
    return saga_pg_send(e->pg, sql_store, p, err);
}

static bool may_have_inputs(const struct saga_lane *lane)
{
    return lane->state == SAGA_LANE_RUNNING && !lane->paused;
}

/* The lanes that may have inputs now, up to when, what is parked, and the lanes' terms. -> false: there
 * is no such lane */
static bool put_lanes(struct saga_engine *e, int64_t until)
{
    struct saga_params *p = &e->params;

    saga_params_reset(p);
    saga_param_array(p, SAGA_OID_INT4);
    for (int32_t i = 0; i < e->lanes; i++)
        if (may_have_inputs(&e->lane[i]))
            saga_element_int4(p, i);
    saga_param_array_end(p);
    if (p->param[0].elements == 0)
        return false;
    saga_param_time(p, until);
    saga_park_keys(e, p);
    saga_param_array(p, SAGA_OID_INT8);
    for (int32_t i = 0; i < e->lanes; i++)
        if (may_have_inputs(&e->lane[i]))
            saga_element_int(p, e->lane[i].term);
    saga_param_array_end(p);
    return true;
}

static int query(struct saga_engine *e, const char *sql, struct saga_err *err)
{
    int rc;

    if ((rc = saga_pg_send(e->pg, sql, &e->params, err)) < 0 || (rc = saga_pg_sync(e->pg, err)) < 0)
        return rc;
    return saga_engine_wait(e, err);
}

int saga_due_ask(struct saga_engine *e, struct saga_err *err)
{
    int64_t now = saga_now(), until = now + e->clock, open = until + 1;
    const struct saga_rows *rows;
    int rc, n;

    if (!e->service->due || e->due_n || now < e->due_at)
        return 0;
    e->due_at = now + SECOND;
    if (!put_lanes(e, until))
        return 0;
    if ((rc = query(e, e->service->due, err)) < 0)
        return rc;
    rows = saga_pg_result(e->pg, 0);
    n = saga_rows_n(rows);
    e->due = saga_realloc(e->due, (size_t)n * sizeof *e->due);
    for (e->due_n = 0; e->due_n < n; e->due_n++)
        e->due[e->due_n] = saga_strdup(saga_rows_text(rows, e->due_n, 0));
    saga_count(e->metric.due, n);
    if (n) {
        SAGA_FAILPOINT(due_asked);
        e->due_at = now; /* again after these, until nothing is found */
        open = saga_rows_int(rows, 0, 1);
    }
    SAGA_FAILPOINT(due_forgetting);
    /* of the lanes asked for: others may be running by now */
    saga_param_time(&e->params, open);
    rc = query(e, sql_forget, err);
    SAGA_FAILPOINT(due_forgotten);
    return rc;
}
