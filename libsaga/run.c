/* The life of a batch: screen, load, decide, store, publish (DESIGN.md 4.1).
 *
 * Happy path: the records collected are screened against copies of their lanes' state; round trip 1
 * locks the lanes' rows and loads what the inputs name (load.c: it is left out where nothing is to be
 * loaded); the rules run; round trip 2 stores and commits (store.c); the copies become the lanes' state,
 * events are published from memory, calls are handed over. What can fail: anything up to COMMIT is forgotten, the same records run again later. A lane
 * whose term or last_seq is not what we remember is not ours any more: the batch runs again without
 * it. A lost connection leaves COMMIT unknown: the lanes are taken again and the database tells. */
#include <inttypes.h>
#include <stdlib.h>

#include "engine.h"
#include "failpoint.h"
#include "log.h"
#include "outbox.h"
#include "share.h"

enum { SECOND = 1000000 };

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
    e->batch.wrote[lane->lane] = e->batch.writer[lane->lane] =
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

/* What has waited in table parked, unless another owner may have seen to it meanwhile. */
static void add_redriven(struct saga_engine *e)
{
    for (int i = 0; i < e->parking.redriven_n; i++) {
        const struct saga_redriven *r = &e->parking.redriven[i];
        struct saga_lane *lane = &e->lane[r->lane];
        if (lane->state != SAGA_LANE_RUNNING || lane->term != r->term)
            continue;
        join_batch(e, lane);
        struct saga_in *in = saga_batch_add(&e->batch,
                                            r->why                        ? SAGA_IN_PARKED
                                            : r->drop                     ? SAGA_IN_DROPPED
                                            : r->rule->input == &saga_due ? SAGA_IN_DUE
                                                                          : SAGA_IN_EVENT,
                                            r->lane);
        in->reason = r->why;
        in->key = r->key;
        in->rule = r->rule;
        in->data = r->data;
        in->id = r->id;
        in->trace = r->trace;
        in->redriven = r->n;
        in->slot = saga_batch_row(&e->batch, &e->batch.orders, in->key);
        in->slot->lane = r->lane;
    }
}

/* Fills the batch from the work's records [from, to), the keys due and the first answers, for lanes
 * that are running. */
static void screen(struct saga_engine *e, int to, int answers)
{
    struct saga_batch *b = &e->batch;
    int64_t now = saga_now();

    saga_batch_reset(b);
    for (int32_t i = 0; i < e->lanes; i++)
        e->lane[i].in_batch = false;
    add_redriven(e);
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
    e->answers_in = 0;
    for (struct saga_answered *a = e->answers; a && e->answers_in < answers; a = a->next) {
        e->answers_in++;
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
    saga_park_screen(e);
}

/* ---- After COMMIT ---- */

static void pass_publishing(const struct saga_batch *b, int i)
{
    if (i == 0 && b->out_n > 1)
        SAGA_FAILPOINT(publishing);
    if (i == b->out_n - 1 && b->out_n > 1)
        SAGA_FAILPOINT(last_publishing);
    if (!b->out[i].own.seq && b->out[i].topic == b->dead)
        SAGA_FAILPOINT(letter_publishing);
    else if (!b->out[i].own.seq)
        SAGA_FAILPOINT(forward_publishing);
}

static void pass_published(const struct saga_batch *b, int i)
{
    if (i == 0 && b->out_n > 1)
        SAGA_FAILPOINT(first_published);
    if (i == b->out_n - 1)
        SAGA_FAILPOINT(published);
    if (!b->out[i].own.seq && b->out[i].topic == b->dead)
        SAGA_FAILPOINT(letter_published);
    else if (!b->out[i].own.seq)
        SAGA_FAILPOINT(forward_published);
}

static void publish(struct saga_engine *e)
{
    const struct saga_batch *b = &e->batch;

    for (int i = 0; i < b->out_n; i++) {
        const struct saga_out *o = &b->out[i];
        size_t n;
        const char *value = saga_out_value(&b->values, o, &n);
        pass_publishing(b, i);
        saga_engine_send(e,
                         &(struct saga_delivery){.topic = o->topic,
                                                 .partition = o->partition,
                                                 .key = o->key,
                                                 .key_n = o->key_n,
                                                 .value = value,
                                                 .value_n = n,
                                                 .headers = o->headers,
                                                 .headers_n = o->headers_n,
                                                 .lane = o->lane,
                                                 .seq = o->seq},
                         o->own);
        pass_published(b, i);
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
            SAGA_FAILPOINT(due_stored);
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
        lane->last_seq = e->batch.wrote[i].last_seq;
        lane->last = e->batch.wrote[i].last;
        if (stored && lane->out.published == lane->storing)
            lane->dirty = false;
        else
            saga_engine_dirty(e, lane);
    }
}

static void done(struct saga_engine *e, int to, int64_t start)
{
    const struct saga_batch *b = &e->batch;

    remember_rows(e);
    move_lanes(e, true);
    saga_park_done(e);
    publish(e);
    if (b->call_n)
        SAGA_FAILPOINT(calls_handing);
    saga_count(e->metric.calls, saga_calls_put(b->call, b->call_n, start));
    if (b->call_n)
        SAGA_FAILPOINT(calls_handed);
    if (b->out_n && !e->more) /* else what is sent may wait: there is other work */
        saga_bus_send_now(e->bus);
    saga_engine_forget(e);
    e->now->from = to;
}

/* ---- A run ---- */

/* Impossible inputs are a bug of ours: their orders wait, others go on. -> SAGA_FENCED: a row that was
 * taken to be new must be asked for */
static int decide(struct saga_engine *e, int64_t now, struct saga_err *err)
{
    struct saga_batch *b = &e->batch;

    while (saga_batch_decide(b, now, err) < 0) {
        if (e->presuming)
            break;
        saga_batch_park(b, b->impossible, err->text);
        err->code = 0;
    }
    return e->presuming && !saga_load_presumed_well(e) ? saga_load_doubt(e, err) : 0;
}

/* A cache of shared rows is told of them before anybody can see them changed. */
static void tell(struct saga_engine *e)
{
    const struct saga_slots *rows = &e->batch.shared;
    const void **changed;
    int n = 0;

    if (!e->service->storing)
        return;
    changed = saga_arena_alloc(&e->batch.arena, (size_t)rows->n * sizeof *changed);
    for (int i = 0; i < rows->n; i++)
        if (rows->list[i]->changed)
            changed[n++] = rows->list[i]->row;
    e->service->storing(changed, n, saga_pg_pid(e->pg));
}

/* One transaction over the records [from, to). -> 0, or an error: ROLLBACK is to follow. */
static int transaction(struct saga_engine *e, int to, struct saga_err *err)
{
    const struct saga_batch *b = &e->batch;
    int64_t start = saga_now();
    int rc;

    SAGA_FAILPOINT(screened);
    bool load = saga_load_prepare(e, start);
    if (load && (rc = saga_load(e, err)) < 0)
        return rc;
    if ((rc = decide(e, load ? e->loaded_at + e->clock : start + e->clock, err)) < 0)
        return load ? rc : transaction(e, to, err); /* nothing was begun */
    SAGA_FAILPOINT(decided);
    tell(e);
    if ((rc = saga_engine_store(e, !load, err)) == 0)
        SAGA_FAILPOINT(committed);
    if (e->service->stored)
        e->service->stored(rc == 0, rc != SAGA_FATAL && saga_pg_connected(e->pg));
    if (rc < 0)
        return rc;
    done(e, to, start);
    if (e->doubts)
        e->doubts--;
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

/* After a transaction that failed. -> SAGA_FENCED: again, as the share now says */
static int back_out(struct saga_engine *e, struct saga_share *share, int rc, struct saga_err *err)
{
    struct saga_err rolled = {0};

    saga_count(e->metric.failed, 1);
    if (!saga_pg_connected(e->pg))
        return rc;
    if (saga_engine_rollback(e, &rolled) < 0)
        return SAGA_RETRY;
    if (rc == SAGA_POISON && e->batch.n == 1)
        return saga_park_refused(e, err);
    if (rc != SAGA_POISON || !saga_share_less(share))
        return rc;
    while (e->due_n > share->due)
        free(e->due[--e->due_n]);
    e->parking.redriven_n = share->redriven;
    return SAGA_FENCED;
}

/* Ends early if it takes long, so that what is done once a second is done; the rest is the next one's. */
int saga_engine_run(struct saga_engine *e, struct saga_err *err)
{
    int64_t until = saga_now() + SECOND;
    bool flush = e->flush_at && saga_now() >= e->flush_at, more = true;
    int rc = 0;

    saga_engine_put_aside(e);
    struct saga_share share = {e->now->n - e->now->from, e->answers_n, e->due_n,
                               e->parking.redriven_n, e->answers_n};
    if (flush)
        e->flush_at = 0;
    e->parking.refused[0] = '\0';
    while (more || rc == SAGA_FENCED) {
        int to = e->now->from + share.records;
        err->code = 0;
        if ((rc = check_forwards(e, to, err)) < 0) {
            if (flush)
                e->flush_at = saga_now();
            return rc;
        }
        screen(e, to, share.answers);
        int answers = e->answers_in;
        if ((flush ? join_dirty(e) : 0) + e->batch.n == 0) {
            move_lanes(e, false);  /* positions only: stored with the next batch, or after 1 s */
            saga_engine_forget(e); /* those of lanes that are not ours any more */
            e->now->from = to;
            more = saga_share_more(&share, e->now->n - e->now->from, answers);
            continue;
        }
        if (flush)
            SAGA_FAILPOINT(published_storing);
        rc = transaction(e, to, err);
        if (rc == 0) {
            if (flush)
                SAGA_FAILPOINT(published_stored);
            e->parking.refused[0] = '\0';
            more = saga_share_more(&share, e->now->n - e->now->from, answers) && saga_now() < until;
            continue;
        }
        if (flush)
            e->flush_at = saga_now();
        more = false;
        rc = back_out(e, &share, rc, err);
    }
    return rc;
}
