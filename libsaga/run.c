/* The life of a batch: screen, load, decide, store, publish (DESIGN.md 4.1).
 *
 * Happy path: the records collected are screened against copies of their lanes' state; round trip 1
 * locks the lanes' rows and loads what the inputs name; the rules run; round trip 2 stores and
 * commits; the copies become the lanes' state, events are published from memory, calls are handed
 * over. What can fail: anything up to COMMIT is forgotten, the same records run again later. A lane
 * whose term or last_seq is not what we remember is not ours any more: the batch runs again without
 * it. A lost connection leaves COMMIT unknown: the lanes are taken again and the database tells. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "engine.h"
#include "field.h"
#include "log.h"
#include "outbox.h"

/* ---- SQL of lane and lane_input ---- */

static const char sql_begin[] = "begin";

static const char sql_lanes[] =
    "select lane, term, last_seq from lane where lane = any($1) order by lane for no key update";

/* After the locks: no later owner has an earlier clock. */
static const char sql_clock[] =
    "select slot, (extract(epoch from clock_timestamp()) * 1000000)::bigint from outbox_current";

/* ---- Forwards ---- */

static bool is_written(const struct saga_engine *e, const struct saga_message *m)
{
    const struct saga_id *far = &e->written[m->forwarded_from];

    return m->forwarded.seq <= far->seq && m->forwarded.term <= far->term;
}

static int look_at_lanes(struct saga_engine *e, struct saga_err *err)
{
    static const char sql[] = "select lane, term, last_seq from lane";
    const struct saga_rows *rows;
    int rc;

    if ((rc = saga_pg_send(e->pg, sql, NULL, err)) < 0 || (rc = saga_pg_sync(e->pg, err)) < 0 ||
        (rc = saga_engine_wait(e, err)) < 0)
        return rc;
    rows = saga_pg_result(e->pg, 0);
    for (int i = 0; i < saga_rows_n(rows); i++)
        e->written[saga_rows_int(rows, i, 0)] =
            (struct saga_id){saga_rows_int(rows, i, 2), saga_rows_int(rows, i, 1)};
    return 0;
}

/* Attack 45: an id above all that its lane has written is not ours, whoever wrote it, and would hide
 * our own forwards from then on. A forward is sent after its COMMIT, so a look at the lanes decides. */
static int check_forwards(struct saga_engine *e, int to, struct saga_err *err)
{
    bool looked = false;
    char place[300];
    int rc, n;

    for (int i = e->now->from; i < to; i++) {
        struct saga_read *read = &e->now->read[i];
        struct saga_message *m = &read->message;
        if (read->bad || !m->forwarded.seq || m->forwarded_from >= e->lanes || is_written(e, m))
            continue;
        if (!looked && (rc = look_at_lanes(e, err)) < 0)
            return rc;
        looked = true;
        if (is_written(e, m))
            continue;
        m->forwarded = (struct saga_id){0};
        n = snprintf(place, sizeof place, "%s/%d/%" PRId64, e->intake.topic[read->topic],
                     read->lane, read->offset);
        m->place = saga_arena_text(&e->now->arena, place, (size_t)n);
    }
    return 0;
}

/* ---- Screen ---- */

static void join_batch(struct saga_engine *e, struct saga_lane *lane)
{
    struct saga_id *forwarded = lane->work.forwarded;

    if (lane->in_batch)
        return;
    lane->in_batch = true;
    lane->work = lane->reader;
    lane->work.forwarded = forwarded;
    if (forwarded)
        memcpy(forwarded, lane->reader.forwarded, (size_t)e->lanes * sizeof *forwarded);
    e->batch.writer[lane->lane] =
        (struct saga_writer){lane->lane, lane->term, lane->last_seq, lane->last};
}

static void count(struct saga_engine *e, int topic, enum saga_screened what)
{
    saga_count(e->metric.in[topic], 1);
    if (what == SAGA_DROPPED)
        saga_count(e->metric.duplicates[topic], 1);
    if (what == SAGA_HELD)
        saga_count(e->metric.gaps[topic], 1);
}

static void stop_for(struct saga_engine *e, struct saga_lane *lane, const struct saga_read *read)
{
    char why[256];

    snprintf(why, sizeof why, "%s/%d offset %" PRId64 ": %s of order %s cannot be applied: %s",
             e->intake.topic[read->topic], lane->lane, read->offset, read->message.type,
             read->message.key, read->detail);
    saga_engine_stop_lane(e, lane, why);
}

/* Fills the batch from the work's records [from, to), the keys due and the answers, for lanes that
 * are running. */
static void screen(struct saga_engine *e, int to)
{
    struct saga_batch *b = &e->batch;
    int64_t now = saga_now();

    saga_batch_reset(b);
    for (int32_t i = 0; i < e->lanes; i++)
        e->lane[i].in_batch = false;
    for (int i = e->now->from; i < to; i++) {
        const struct saga_read *read = &e->now->read[i];
        struct saga_lane *lane = &e->lane[read->lane];
        if (lane->state != SAGA_LANE_RUNNING || read->epoch != lane->epoch)
            continue;
        join_batch(e, lane);
        struct saga_input before = lane->work.input[read->topic];
        enum saga_screened what = saga_screen(&e->intake, b, &lane->work, read, now);
        count(e, read->topic, what);
        if (what == SAGA_FORKED) {
            lane->work.input[read->topic] = before; /* it is not applied: what came before it is */
            saga_loss_fork(e, lane, read);
        } else if (what == SAGA_REFUSED) {
            lane->work.input[read->topic] = before;
            stop_for(e, lane, read);
        } else if (what != SAGA_IGNORED)
            lane->moved[read->topic] = true;
    }
    for (int i = 0; i < e->due_n; i++) {
        int32_t lane = saga_lane_of(e->due[i], strlen(e->due[i]), e->lanes);
        if (e->lane[lane].state != SAGA_LANE_RUNNING)
            continue;
        join_batch(e, &e->lane[lane]);
        struct saga_in *in = saga_batch_add(b, SAGA_IN_DUE, lane);
        in->key = e->due[i];
        in->rule = saga_rule_of(e->service, saga_due.type);
        in->slot = saga_batch_row(b, &b->orders, in->key);
        in->slot->lane = lane;
    }
    e->answers_in = e->answers_n;
    for (struct saga_answered *a = e->answers; a; a = a->next) {
        int32_t lane = saga_lane_of(a->key, strlen(a->key), e->lanes);
        if (e->lane[lane].state != SAGA_LANE_RUNNING)
            continue;
        join_batch(e, &e->lane[lane]);
        struct saga_in *in = saga_batch_add(b, SAGA_IN_ANSWER, lane);
        in->key = a->key;
        in->data = a->data;
        in->rule = saga_rule_of(e->service, a->event->type);
        in->slot = saga_batch_row(b, &b->orders, in->key);
        in->slot->lane = lane;
    }
}

/* ---- Load ---- */

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
        if (!rows->list[i]->row)
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

static int load(struct saga_engine *e, struct saga_err *err)
{
    struct saga_batch *b = &e->batch;
    struct saga_params *p = &e->params;
    int rc, orders = -1, shared = -1, n = 3;

    for (int i = 0; i < b->orders.n; i++)
        b->orders.list[i]->row =
            saga_recent_get(e->recent, b->orders.list[i]->lane, b->orders.list[i]->key);
    saga_batch_name(b);

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
    if ((rc = saga_pg_sync(e->pg, err)) < 0 || (rc = saga_engine_wait(e, err)) < 0 ||
        (rc = compare(e, err)) < 0)
        return rc;
    if (orders >= 0 && (rc = fill(e, &b->orders, orders, err)) < 0)
        return rc;
    if (shared >= 0 && (rc = fill(e, &b->shared, shared, err)) < 0)
        return rc;
    return 0;
}

/* ---- After COMMIT ---- */

static void publish(struct saga_engine *e)
{
    const struct saga_batch *b = &e->batch;

    for (int i = 0; i < b->out_n; i++) {
        const struct saga_out *o = &b->out[i];
        bool null = o->n == SIZE_MAX;
        saga_engine_send(e,
                         &(struct saga_delivery){.topic = o->topic,
                                                 .partition = o->partition,
                                                 .key = o->key,
                                                 .key_n = o->key_n,
                                                 .value = null ? NULL : b->values.at + o->at,
                                                 .value_n = null ? 0 : o->n,
                                                 .headers = o->headers,
                                                 .headers_n = o->headers_n,
                                                 .lane = o->lane,
                                                 .seq = o->seq},
                         o->own);
        if (!o->own.seq)
            saga_count(o->topic == b->dead ? e->metric.dead : e->metric.forwards, 1);
    }
    saga_count(e->metric.out, b->out_n);
}

static void remember_rows(struct saga_engine *e)
{
    const struct saga_slots *rows = &e->batch.orders;

    for (int i = 0; i < rows->n; i++) {
        const struct saga_slot *slot = rows->list[i];
        const struct saga_row *row = slot->row, *was = slot->origin;
        if (!slot->changed)
            continue;
        if (row->due) /* something is to come for it soon */
            saga_recent_put(e->recent, slot->lane, row);
        else
            saga_recent_drop(e->recent, slot->lane, slot->key);
        if (row->state != was->state) {
            saga_count(e->metric.state[row->state], 1);
            if (row->created)
                saga_observe(e->metric.state_seconds[row->state], e->batch.now - row->created);
        }
        if (row->due) {
            int64_t at = row->due - e->clock;
            e->due_at = at < e->due_at ? at : e->due_at;
        }
    }
    saga_recent_turn(e->recent);
}

/* All inputs from where the lane stands; what was collected of it beyond is dropped. */
static void read_again(struct saga_engine *e, struct saga_lane *lane)
{
    lane->epoch++;
    for (int t = 0; t < e->intake.topics; t++) {
        if (lane->reader.input[t].stopped)
            continue;
        saga_bus_read(e->bus, t, lane->lane, lane->reader.input[t].next_offset);
        if (lane->paused)
            saga_bus_pause(e->bus, t, lane->lane);
    }
}

/* The copies become the lanes' state. */
static void move_lanes(struct saga_engine *e, bool stored)
{
    for (int32_t i = 0; i < e->lanes; i++) {
        struct saga_lane *lane = &e->lane[i];
        if (!lane->in_batch)
            continue;
        lane->in_batch = false;
        bool back = false;
        for (int t = 0; t < e->intake.topics; t++) {
            bool seek = saga_input_resume(&lane->work.input[t]) >= 0;
            lane->reader.input[t] = lane->work.input[t];
            lane->moved[t] = seek || (lane->moved[t] && !stored);
            back |= seek;
        }
        if (back && lane->state == SAGA_LANE_RUNNING)
            read_again(e, lane); /* else when it is taken */
        if (lane->work.forwarded)
            memcpy(lane->reader.forwarded, lane->work.forwarded,
                   (size_t)e->lanes * sizeof *lane->work.forwarded);
        lane->last_seq = e->batch.writer[i].last_seq;
        lane->last = e->batch.writer[i].last;
        if (stored && lane->out.published == lane->storing)
            lane->dirty = false;
        else
            saga_engine_dirty(e, lane);
    }
}

static void done(struct saga_engine *e, int to)
{
    const struct saga_batch *b = &e->batch;

    remember_rows(e);
    move_lanes(e, true);
    publish(e);
    saga_count(e->metric.calls, saga_calls_put(b->call, b->call_n));
    saga_engine_forget(e);
    e->now->from = to;
}

/* ---- A run ---- */

/* One transaction over the records [from, to). -> 0, or an error after ROLLBACK. */
static int transaction(struct saga_engine *e, int to, struct saga_err *err)
{
    struct saga_batch *b = &e->batch;
    int64_t start = saga_now();
    int rc, slot;

    if ((rc = load(e, err)) < 0)
        return rc;
    slot = (int)saga_rows_int(saga_pg_result(e->pg, 2), 0, 0);
    int64_t now = saga_rows_int(saga_pg_result(e->pg, 2), 0, 1);
    e->clock = now - saga_now();
    if (saga_batch_decide(b, now, err) < 0) {
        saga_engine_stop_lane(e, &e->lane[b->impossible->lane], err->text);
        return SAGA_FENCED; /* the others run again without it */
    }
    if ((rc = saga_engine_store(e, slot, err)) < 0)
        return rc;
    done(e, to);
    saga_observe(e->metric.batch_size, b->n);
    saga_observe(e->metric.batch_seconds, saga_now() - start);
    return 0;
}

static bool is_dirty(const struct saga_lane *lane)
{
    return lane->dirty && lane->state == SAGA_LANE_RUNNING;
}

/* Lanes that moved a second ago and are not stored join the batch. -> how many */
static int join_dirty(struct saga_engine *e)
{
    int n = 0;

    for (int32_t i = 0; i < e->lanes; i++)
        if (is_dirty(&e->lane[i])) {
            join_batch(e, &e->lane[i]);
            n++;
        }
    return n;
}

/* Keys due are asked for again and calls without an answer are made again: when one of those is what
 * the database refuses it is found by leaving half of them for later. -> false: there are none */
static bool leave_half(struct saga_engine *e)
{
    struct saga_answered **end = &e->answers;
    int due = e->due_n / 2, answers = e->answers_n / 2;

    if (e->due_n + e->answers_n == 0)
        return false;
    while (e->due_n > due)
        free(e->due[--e->due_n]);
    for (int i = 0; i < answers; i++)
        end = &(*end)->next;
    while (*end) {
        struct saga_answered *a = *end;
        *end = a->next;
        free(a);
    }
    e->answers_n = answers;
    e->answers_end = end;
    return true;
}

int saga_engine_run(struct saga_engine *e, struct saga_err *err)
{
    int size = e->now->n - e->now->from, rc;
    bool flush = e->flush_at && saga_now() >= e->flush_at;

    if (flush)
        e->flush_at = 0;
    do {
        int to = e->now->from + size < e->now->n ? e->now->from + size : e->now->n;
        err->code = 0;
        if ((rc = check_forwards(e, to, err)) < 0)
            return rc;
        screen(e, to);
        if ((flush ? join_dirty(e) : 0) + e->batch.n == 0) {
            move_lanes(e, false);  /* positions only: stored with the next batch, or after 1 s */
            saga_engine_forget(e); /* those of lanes that are not running any more */
            e->now->from = to;
            rc = 0;
            continue;
        }
        rc = transaction(e, to, err);
        if (rc == 0)
            continue;
        saga_count(e->metric.failed, 1);
        if (flush)
            e->flush_at = saga_now();
        if (!saga_pg_connected(e->pg))
            return rc;
        struct saga_err rolled = {0};
        if (saga_engine_rollback(e, &rolled) < 0)
            return SAGA_RETRY;
        if (rc == SAGA_POISON && e->batch.n == 1) {
            saga_engine_stop_lane(e, &e->lane[e->batch.in[0].lane], err->text);
            rc = SAGA_FENCED;
        } else if (rc == SAGA_POISON && size > 1) {
            size /= 2; /* the one that the database refuses is found by halves */
            rc = SAGA_FENCED;
        } else if (rc == SAGA_POISON && leave_half(e)) {
            rc = SAGA_FENCED;
        }
    } while (rc == SAGA_FENCED || (rc == 0 && e->now->from < e->now->n));
    return rc;
}
