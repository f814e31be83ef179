/* Round trip 2 of a batch: rows changed, log rows, outbox rows, the lanes and their inputs, COMMIT
 * (DESIGN.md 4.1). Each statement is set-based: an array per column. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "engine.h"
#include "failpoint.h"
#include "field.h"
#include "outbox.h"

static const char sql_commit[] = "commit";

static const char sql_store_lanes[] =
    "update lane l"
    "   set last_seq = n.last_seq, last_id = n.last_id, published = n.published,"
    "       published_offset = n.published_offset, published_id = n.published_id"
    "  from unnest($1::int[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])"
    "       n(lane, last_seq, last_id, published, published_offset, published_id)"
    " where l.lane = n.lane";

static const char sql_store_inputs[] =
    "update lane_input i"
    "   set next_offset = n.next_offset, screened = n.screened, last_id = n.last_id"
    "  from unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])"
    "       n(lane, topic, next_offset, screened, last_id)"
    " where i.lane = n.lane and i.topic = n.topic";

static const char sql_store_forwards[] =
    "insert into lane_input (lane, topic, next_offset, last_id)"
    "     select lane, topic, 0, last_id from unnest($1::int[], $2::text[], $3::text[])"
    "            n(lane, topic, last_id)"
    "  on conflict (lane, topic) do update set last_id = excluded.last_id";

static void put_id(struct saga_params *p, int32_t lane, struct saga_id id)
{
    char text[SAGA_ID_TEXT];

    if (id.seq == 0)
        saga_element_text(p, NULL, 0);
    else
        saga_element_text(p, text, saga_id_write(lane, id, text));
}

static void put_last(struct saga_params *p, int32_t lane, const struct saga_input *in, bool request)
{
    char text[24];

    if (!request)
        put_id(p, lane, in->last);
    else if (in->hash)
        saga_element_text(p, text, snprintf(text, sizeof text, "%016" PRIx64, in->hash));
    else
        saga_element_text(p, NULL, 0);
}

static void put_offset(struct saga_params *p, int64_t offset)
{
    if (offset < 0)
        saga_element_text(p, NULL, 0);
    else
        saga_element_int(p, offset);
}

/* An array parameter over the lanes of the batch. */
#define EACH_LANE(oid, put)                                                                        \
    do {                                                                                           \
        saga_param_array(p, oid);                                                                  \
        for (int32_t i_ = 0; i_ < e->lanes; i_++) {                                                \
            const struct saga_lane *l = &e->lane[i_];                                              \
            if (l->in_batch)                                                                       \
                put;                                                                               \
        }                                                                                          \
        saga_param_array_end(p);                                                                   \
    } while (0)

#define EACH_INPUT(oid, put)                                                                       \
    EACH_LANE(                                                                                     \
        oid, for (int t = 0; t < e->intake.topics; t++) if (l->moved[t]) {                         \
            const struct saga_input *in = &l->work.input[t];                                       \
            (void)in;                                                                              \
            put;                                                                                   \
        })

#define EACH_FORWARD(oid, put)                                                                     \
    EACH_LANE(                                                                                     \
        oid, for (int32_t q = 0; l->work.forwarded && q < e->lanes;                                \
                  q++) if (!saga_id_same(l->work.forwarded[q], l->reader.forwarded[q])) { put; })

static int store_lanes(struct saga_engine *e, struct saga_err *err)
{
    struct saga_params *p = &e->params;
    const struct saga_writer *w = e->batch.wrote;

    for (int32_t i = 0; i < e->lanes; i++)
        e->lane[i].storing = e->lane[i].out.published;
    saga_params_reset(p);
    EACH_LANE(SAGA_OID_INT4, saga_element_int4(p, l->lane));
    EACH_LANE(SAGA_OID_INT8, saga_element_int(p, w[l->lane].last_seq));
    EACH_LANE(SAGA_OID_TEXT, put_id(p, l->lane, w[l->lane].last));
    EACH_LANE(SAGA_OID_INT8, saga_element_int(p, l->out.published));
    EACH_LANE(SAGA_OID_INT8, put_offset(p, l->out.published_offset));
    EACH_LANE(SAGA_OID_TEXT, put_id(p, l->lane, l->out.published_id));
    return saga_pg_send(e->pg, sql_store_lanes, p, err);
}

static int store_inputs(struct saga_engine *e, struct saga_err *err)
{
    struct saga_params *p = &e->params;

    saga_params_reset(p);
    EACH_INPUT(SAGA_OID_INT4, saga_element_int4(p, l->lane));
    if (p->param[0].elements == 0)
        return 0;
    EACH_INPUT(SAGA_OID_TEXT, saga_element_text(p, e->intake.topic[t], -1));
    EACH_INPUT(SAGA_OID_INT8, saga_element_int(p, saga_input_position(in)));
    EACH_INPUT(SAGA_OID_INT8, put_offset(p, in->screened));
    EACH_INPUT(SAGA_OID_TEXT, put_last(p, l->lane, in, !e->intake.source[t]));
    return saga_pg_send(e->pg, sql_store_inputs, p, err);
}

static int store_forwards(struct saga_engine *e, struct saga_err *err)
{
    struct saga_params *p = &e->params;
    char topic[300];

    if (!e->service->requests)
        return 0;
    saga_params_reset(p);
    EACH_FORWARD(SAGA_OID_INT4, saga_element_int4(p, l->lane));
    if (p->param[0].elements == 0)
        return 0;
    EACH_FORWARD(SAGA_OID_TEXT,
                 saga_element_text(
                     p, topic, snprintf(topic, sizeof topic, "%s/%d", e->service->requests, q)));
    EACH_FORWARD(SAGA_OID_TEXT, put_id(p, q, l->work.forwarded[q]));
    return saga_pg_send(e->pg, sql_store_forwards, p, err);
}

/* ---- Store ---- */

enum which { NEW, KNOWN };

static bool is_meant(const struct saga_slot *slot, enum which which)
{
    return slot->changed && ((const struct saga_row *)slot->row)->stored == (which == KNOWN);
}

static int store_rows(struct saga_engine *e, const struct saga_slots *rows, enum which which,
                      struct saga_err *err)
{
    struct saga_params *p = &e->params;
    const struct saga_table *table = rows->table;
    const char *sql = which == NEW ? table->insert : table->update;
    int n = 0;

    for (int i = 0; i < rows->n; i++)
        n += is_meant(rows->list[i], which);
    if (n == 0)
        return 0;
    assert(sql && "rows of this table are never made by rules");
    saga_params_reset(p);
    for (const struct saga_field *c = table->columns; c->name; c++) {
        if (which == KNOWN && c->fixed && c != table->columns)
            continue;
        saga_param_array(p, saga_column_oid(c));
        for (int i = 0; i < rows->n; i++)
            if (is_meant(rows->list[i], which))
                saga_element_column(p, c, rows->list[i]->row);
        saga_param_array_end(p);
    }
    return saga_pg_send(e->pg, sql, p, err);
}

static int store_log(struct saga_engine *e, struct saga_err *err)
{
    struct saga_params *p = &e->params;
    const struct saga_batch *b = &e->batch;

    if (b->log_n == 0)
        return 0;
    saga_params_reset(p);
    for (const struct saga_field *c = e->service->log->columns; c->name; c++) {
        saga_param_array(p, saga_column_oid(c));
        for (int i = 0; i < b->log_n; i++)
            saga_element_column(p, c, b->log[i]);
        saga_param_array_end(p);
    }
    return saga_pg_send(e->pg, e->service->log->insert, p, err);
}

/* A content error of one of the service's statements is that of the batch (4.7), of any other one,
 * COMMIT among them, our bug: it is tried again and reported, and no order is blamed. But first comes
 * the doubt whether rows were taken to be new that are not. */
static int blame(struct saga_engine *e, int first, int end, struct saga_err *err)
{
    int failed = saga_pg_failed(e->pg);

    if (failed < first || (failed < end && e->presuming))
        return saga_load_doubt(e, err);
    return failed < end ? SAGA_POISON : (err->code = SAGA_RETRY);
}

int saga_engine_store(struct saga_engine *e, bool guarded, struct saga_err *err)
{
    const struct saga_batch *b = &e->batch;
    int rc, first, end; /* statements of the service: [first, end) */

    if (guarded && (rc = saga_load_guard(e, err)) < 0)
        return rc;
    first = saga_pg_sent(e->pg);
    if ((rc = store_rows(e, &b->orders, NEW, err)) < 0 ||
        (rc = store_rows(e, &b->orders, KNOWN, err)) < 0 ||
        (b->shared.table && ((rc = store_rows(e, &b->shared, NEW, err)) < 0 ||
                             (rc = store_rows(e, &b->shared, KNOWN, err)) < 0)) ||
        (rc = store_log(e, err)) < 0)
        return rc;
    end = saga_pg_sent(e->pg);
    SAGA_FAILPOINT(store_begun);
    if ((rc = saga_due_store(e, err)) < 0 || (rc = saga_park_store(e, err)) < 0 ||
        (b->out_n && (rc = saga_outbox_store(e->pg, b, e->slot, &e->params, err)) < 0) ||
        (rc = store_lanes(e, err)) < 0 || (rc = store_inputs(e, err)) < 0 ||
        (rc = store_forwards(e, err)) < 0 ||
        (rc = saga_pg_send(e->pg, sql_commit, NULL, err)) < 0 ||
        (rc = saga_pg_sync(e->pg, err)) < 0)
        return rc;
    SAGA_FAILPOINT(commit_sent);
    rc = saga_engine_wait(e, err);
    return rc == SAGA_POISON ? blame(e, first, end, err) : rc;
}
