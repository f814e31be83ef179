/* Round trip 1 of a batch (DESIGN.md 4.1): BEGIN, the lanes' rows locked and compared with what memory
 * has, the rows that the inputs name.
 *
 * Most batches need not ask. Rows of recent orders are in memory. A row that the first input of its order
 * makes (PlaceOrder, say) is taken to be new: if it is not, its INSERT fails for its key, which is told
 * apart from content that is wrong by running the batch again with everything asked for. Where nothing
 * is left to ask, round trip 1 is left out: a guard in front of round trip 2 locks and compares the
 * lanes, and fails the pipeline if they are not as memory has them. */
#include <inttypes.h>

#include "engine.h"
#include "failpoint.h"
#include "field.h"
#include "log.h"

enum { SECOND = 1000000, DOUBTS = 64 /* batches that ask for everything after one was wrong */ };

static const char sql_begin[] = "begin";

static const char sql_lanes[] =
    "select lane, term, last_seq from lane where lane = any($1) order by lane for no key update";

/* After the locks: no later owner has an earlier clock. */
static const char sql_clock[] =
    "select slot, (extract(epoch from clock_timestamp()) * 1000000)::bigint from outbox_current";

/* Division by zero ends the pipeline: a lane is another's, or the outbox has turned. */
static const char sql_guard[] =
    "with ours as (select l.lane"
    "                from unnest($1::int[], $2::bigint[], $3::bigint[]) n(lane, term, last_seq)"
    "                join lane l on l.lane = n.lane"
    "               where l.term = n.term and l.last_seq = n.last_seq"
    "               order by l.lane for no key update of l)"
    "select 1 / ((select count(*) from ours) = cardinality($1::int[])"
    "            and (select slot from outbox_current) = $4::bigint)::int";

/* ---- What need not be asked ---- */

static bool makes(const struct saga_in *in)
{
    saga_cell *none = in->rule->cell[0];

    return (in->kind == SAGA_IN_EVENT || in->kind == SAGA_IN_REQUEST) && none != saga_nothing &&
           none != saga_impossible;
}

bool saga_load_prepare(struct saga_engine *e, int64_t now)
{
    struct saga_batch *b = &e->batch;
    bool ask = e->doubts || now - e->loaded_at >= SECOND; /* the clock is the database's */

    for (int i = 0; i < b->orders.n; i++) {
        struct saga_slot *slot = b->orders.list[i];
        slot->row = saga_recent_get(e->recent, slot->lane, slot->key);
        slot->presumed = slot->seen = slot->changed = false;
    }
    e->presuming = false;
    for (int i = 0; i < b->n; i++) {
        struct saga_slot *slot = b->in[i].slot;
        if (!slot || slot->row || slot->seen)
            continue;
        slot->seen = true;
        slot->presumed = !e->doubts && makes(&b->in[i]);
        e->presuming |= slot->presumed;
        ask |= !slot->presumed;
    }
    saga_batch_name(b);
    ask |= b->shared.n > 0;
    for (int i = 0; i < b->orders.n && !ask; i++)
        ask = b->orders.list[i]->names_more;
    return ask;
}

bool saga_load_presumed_well(const struct saga_engine *e)
{
    const struct saga_batch *b = &e->batch;

    for (int i = 0; i < b->orders.n; i++)
        if (b->orders.list[i]->presumed && !b->orders.list[i]->changed)
            return false; /* nothing is inserted, so nothing would tell */
    return !b->impossible;
}

int saga_load_doubt(struct saga_engine *e, struct saga_err *err)
{
    e->doubts = DOUBTS;
    err->code = 0;
    return SAGA_FENCED;
}

/* ---- Asking ---- */

static void put_lanes(struct saga_engine *e, struct saga_params *p)
{
    saga_param_array(p, SAGA_OID_INT4);
    for (int32_t i = 0; i < e->lanes; i++)
        if (e->lane[i].in_batch)
            saga_element_int4(p, i);
    saga_param_array_end(p);
}

static int send_keys(struct saga_engine *e, const char *sql, const struct saga_slots *rows,
                     bool shared, struct saga_err *err)
{
    struct saga_params *p = &e->params;
    const struct saga_slots *orders = &e->batch.orders;
    int more = 0;

    saga_params_reset(p);
    saga_param_array(p, SAGA_OID_TEXT);
    for (int i = 0; i < rows->n; i++)
        if (!rows->list[i]->row && !rows->list[i]->presumed)
            saga_element_text(p, rows->list[i]->key, -1);
    saga_param_array_end(p);
    if (shared) {
        saga_param_array(p, SAGA_OID_TEXT);
        for (int i = 0; i < orders->n; i++)
            if (orders->list[i]->names_more) {
                saga_element_text(p, orders->list[i]->key, -1);
                more++;
            }
        saga_param_array_end(p);
    }
    if (p->param[0].elements + more == 0)
        return 0;
    int rc = saga_pg_send(e->pg, sql, p, err);
    return rc < 0 ? rc : 1;
}

static int fill(struct saga_engine *e, struct saga_slots *rows, int result, struct saga_err *err)
{
    const struct saga_table *table = rows->table;
    const struct saga_rows *r = saga_pg_result(e->pg, result);

    for (int i = 0; i < saga_rows_n(r); i++) {
        struct saga_row *row = saga_arena_zero(&e->batch.arena, table->size);
        for (int c = 0; table->columns[c].name; c++) {
            int n;
            const char *value = saga_rows_bytes(r, i, c, &n);
            if (saga_column_read(&table->columns[c], value, n, row, &e->batch.arena, err) < 0) {
                saga_err_in(err, "column %s of %s", table->columns[c].name,
                            row->key ? row->key : "a row");
                return SAGA_FATAL; /* the database holds what we cannot have written */
            }
        }
        row->stored = true;
        /* keys named by the database (shared rows of an order's row) get their slots here */
        saga_batch_row(&e->batch, rows, row->key)->row = row;
    }
    return 0;
}

/* -> 0; SAGA_FENCED: some lanes were another's, they are not running any more */
static int compare(struct saga_engine *e, struct saga_err *err)
{
    const struct saga_rows *r = saga_pg_result(e->pg, 1);
    int found = 0, lost = 0, expected = 0;

    for (int32_t i = 0; i < e->lanes; i++)
        expected += e->lane[i].in_batch;
    for (; found < saga_rows_n(r); found++) {
        struct saga_lane *lane = &e->lane[saga_rows_int(r, found, 0)];
        if (lane->term == saga_rows_int(r, found, 1) &&
            lane->last_seq == saga_rows_int(r, found, 2))
            continue;
        saga_log_at(SAGA_WARN, "lane lost: another owner, or another database",
                    "\"lane\":%d,\"term\":%" PRId64 ",\"found\":%" PRId64, lane->lane, lane->term,
                    saga_rows_int(r, found, 1));
        lane->known = false;
        saga_engine_want(e, lane, false);
        lost++;
    }
    if (found < expected)
        return saga_err(err, SAGA_FATAL, "rows of table lane are missing");
    return lost ? SAGA_FENCED : 0;
}

int saga_load(struct saga_engine *e, struct saga_err *err)
{
    struct saga_batch *b = &e->batch;
    struct saga_params *p = &e->params;
    int rc, orders = -1, shared = -1, n = 3;

    saga_params_reset(p);
    put_lanes(e, p);
    if ((rc = saga_pg_send(e->pg, sql_begin, NULL, err)) < 0 ||
        (rc = saga_pg_send(e->pg, sql_lanes, p, err)) < 0 ||
        (rc = saga_pg_send(e->pg, sql_clock, NULL, err)) < 0 ||
        (rc = send_keys(e, b->orders.table->load, &b->orders, false, err)) < 0)
        return rc;
    if (rc)
        orders = n++;
    if (b->shared.table) {
        if ((rc = send_keys(e, b->shared.table->load, &b->shared, true, err)) < 0)
            return rc;
        if (rc)
            shared = n++;
    }
    if ((rc = saga_pg_sync(e->pg, err)) < 0)
        return rc;
    SAGA_FAILPOINT(load_sent);
    if ((rc = saga_engine_wait(e, err)) < 0 || (rc = compare(e, err)) < 0)
        return rc;
    SAGA_FAILPOINT(loaded);
    if (orders >= 0 && (rc = fill(e, &b->orders, orders, err)) < 0)
        return rc;
    if (shared >= 0 && (rc = fill(e, &b->shared, shared, err)) < 0)
        return rc;
    e->slot = (int)saga_rows_int(saga_pg_result(e->pg, 2), 0, 0);
    e->loaded_at = saga_now();
    e->clock = saga_rows_int(saga_pg_result(e->pg, 2), 0, 1) - e->loaded_at;
    return 0;
}

int saga_load_guard(struct saga_engine *e, struct saga_err *err)
{
    struct saga_params *p = &e->params;
    int rc;

    saga_params_reset(p);
    put_lanes(e, p);
    saga_param_array(p, SAGA_OID_INT8);
    for (int32_t i = 0; i < e->lanes; i++)
        if (e->lane[i].in_batch)
            saga_element_int(p, e->lane[i].term);
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_INT8);
    for (int32_t i = 0; i < e->lanes; i++)
        if (e->lane[i].in_batch)
            saga_element_int(p, e->lane[i].last_seq);
    saga_param_array_end(p);
    saga_param_int(p, e->slot);
    if ((rc = saga_pg_send(e->pg, sql_begin, NULL, err)) < 0)
        return rc;
    return saga_pg_send(e->pg, sql_guard, p, err);
}
