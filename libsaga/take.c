/* Taking a lane (DESIGN.md 4.4): raise its term, so that the old owner's batches fail from now on;
 * send again what is above published; read where the database says. */
#include <inttypes.h>
#include <stdlib.h>

#include "engine.h"
#include "failpoint.h"
#include "log.h"
#include "outbox.h"

enum { MS = 1000, WAIT_MS = 5000 };

static const char sql_begin[] = "begin";
static const char sql_commit[] = "commit";

static const char sql_make[] = "insert into lane (lane) values ($1::bigint) on conflict do nothing";

static const char sql_raise[] =
    "update lane"
    "   set term = greatest(term + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint)"
    " where lane = $1::bigint"
    " returning term, last_seq, last_id, published, published_offset, published_id,"
    "           (extract(epoch from clock_timestamp()) * 1000000)::bigint";

static const char sql_make_inputs[] =
    "insert into lane_input (lane, topic, next_offset)"
    "     select $1::bigint, topic, low from unnest($2::text[], $3::bigint[]) n(topic, low)"
    "  on conflict do nothing";

static const char sql_inputs[] =
    "select topic, next_offset, screened, last_id from lane_input where lane = $1::bigint";

static const char sql_same[] = "select term, last_seq from lane where lane = $1::bigint";

/* Where the topics begin and end, asked once for all lanes taken together. */
struct marks {
    int64_t *low[SAGA_READS_MAX], *high[SAGA_READS_MAX], *own;
};

void saga_engine_want(struct saga_engine *e, struct saga_lane *lane, bool soon)
{
    int64_t first = 1000 * MS, last = 5000 * MS;

    lane->backoff = soon ? 0 : lane->backoff ? lane->backoff * 2 : first;
    if (lane->backoff > last)
        lane->backoff = last;
    lane->try_at = saga_now() + lane->backoff;
    lane->state = lane->ours ? SAGA_LANE_WANTED : SAGA_LANE_AWAY;
    lane->epoch++;
    for (int t = 0; t < e->intake.topics; t++)
        saga_bus_pause(e->bus, t, lane->lane);
}

static int ask_marks(struct saga_engine *e, struct marks *m, struct saga_err *err)
{
    size_t size = (size_t)e->lanes * sizeof(int64_t);
    int rc;

    m->own = saga_arena_alloc(&e->batch.arena, size);
    rc = saga_bus_offsets(e->bus, e->batch.topic, e->lanes, true, m->own, WAIT_MS, err);
    for (int t = 0; t < e->intake.topics && rc >= 0; t++) {
        m->low[t] = saga_arena_alloc(&e->batch.arena, size);
        m->high[t] = saga_arena_alloc(&e->batch.arena, size);
        if ((rc = saga_bus_offsets(e->bus, e->intake.topic[t], e->lanes, false, m->low[t], WAIT_MS,
                                   err)) >= 0)
            rc = saga_bus_offsets(e->bus, e->intake.topic[t], e->lanes, true, m->high[t], WAIT_MS,
                                  err);
    }
    return rc;
}

static struct saga_id id_at(const struct saga_rows *rows, int row, int column)
{
    const char *text = saga_rows_text(rows, row, column);
    struct saga_id id = {0};
    int32_t lane;

    if (text)
        saga_id_read(text, strlen(text), &lane, &id);
    return id;
}

static int64_t offset_at(const struct saga_rows *rows, int row, int column)
{
    return saga_rows_null(rows, row, column) ? -1 : saga_rows_int(rows, row, column);
}

static void read_input(struct saga_engine *e, struct saga_lane *lane, const struct saga_rows *rows,
                       int row)
{
    const char *topic = saga_rows_text(rows, row, 0);
    size_t n = e->service->requests ? strlen(e->service->requests) : 0;

    for (int t = 0; t < e->intake.topics; t++)
        if (!strcmp(topic, e->intake.topic[t])) {
            lane->reader.input[t] = (struct saga_input){.next_offset = saga_rows_int(rows, row, 1),
                                                        .screened = offset_at(rows, row, 2),
                                                        .last = id_at(rows, row, 3),
                                                        .held = -1};
            return;
        }
    if (n && !strncmp(topic, e->service->requests, n) && topic[n] == '/') {
        int q = atoi(topic + n + 1);
        if (q >= 0 && q < e->lanes)
            lane->reader.forwarded[q] = id_at(rows, row, 3);
    }
}

/* The transaction of a taking. -> 0 with the lane's memory as the database has it */
static int raise_term(struct saga_engine *e, struct saga_lane *lane, const struct marks *m,
                      struct saga_err *err)
{
    struct saga_params p = {0}, inputs = {0};
    int rc;

    saga_param_int(&p, lane->lane);
    saga_param_int(&inputs, lane->lane);
    saga_param_array(&inputs, SAGA_OID_TEXT);
    for (int t = 0; t < e->intake.topics; t++)
        saga_element_text(&inputs, e->intake.topic[t], -1);
    saga_param_array_end(&inputs);
    saga_param_array(&inputs, SAGA_OID_INT8);
    for (int t = 0; t < e->intake.topics; t++)
        saga_element_int(&inputs, m->low[t][lane->lane]);
    saga_param_array_end(&inputs);
    if ((rc = saga_pg_send(e->pg, sql_begin, NULL, err)) >= 0 &&
        (rc = saga_pg_send(e->pg, sql_make, &p, err)) >= 0 &&
        (rc = saga_pg_send(e->pg, sql_raise, &p, err)) >= 0 &&
        (rc = saga_pg_send(e->pg, sql_make_inputs, &inputs, err)) >= 0 &&
        (rc = saga_pg_send(e->pg, sql_inputs, &p, err)) >= 0 &&
        (rc = saga_pg_send(e->pg, sql_commit, NULL, err)) >= 0 &&
        (rc = saga_pg_sync(e->pg, err)) >= 0) {
        SAGA_FAILPOINT(term_sent);
        rc = saga_engine_wait(e, err);
    }
    saga_params_free(&p);
    saga_params_free(&inputs);
    if (rc < 0) {
        struct saga_err ignored = {0};
        if (saga_pg_connected(e->pg))
            saga_engine_rollback(e, &ignored);
        return rc;
    }
    SAGA_FAILPOINT(term_raised);
    const struct saga_rows *row = saga_pg_result(e->pg, 2), *rows = saga_pg_result(e->pg, 4);
    lane->term = saga_rows_int(row, 0, 0);
    lane->last_seq = saga_rows_int(row, 0, 1);
    lane->last = id_at(row, 0, 2);
    lane->out.published = saga_rows_int(row, 0, 3);
    lane->out.published_offset = offset_at(row, 0, 4);
    lane->out.published_id = id_at(row, 0, 5);
    lane->out.known_offset = m->own[lane->lane] - 1;
    e->clock = saga_rows_int(row, 0, 6) - saga_now(); /* deadlines come before any batch, too */
    if (lane->reader.forwarded)
        memset(lane->reader.forwarded, 0, (size_t)e->lanes * sizeof *lane->reader.forwarded);
    for (int i = 0; i < saga_rows_n(rows); i++)
        read_input(e, lane, rows, i);
    return 0;
}

/* Attack 9: a lane that comes back with the term that we gave it, and nothing written since. */
static int still_ours(struct saga_engine *e, const struct saga_lane *lane, struct saga_err *err)
{
    struct saga_params p = {0};
    const struct saga_rows *rows;
    int rc;

    if (!lane->known)
        return 0;
    saga_param_int(&p, lane->lane);
    if ((rc = saga_pg_send(e->pg, sql_same, &p, err)) >= 0 && (rc = saga_pg_sync(e->pg, err)) >= 0)
        rc = saga_engine_wait(e, err);
    saga_params_free(&p);
    if (rc < 0)
        return rc;
    rows = saga_pg_result(e->pg, 0);
    return saga_rows_n(rows) == 1 && saga_rows_int(rows, 0, 0) == lane->term &&
           saga_rows_int(rows, 0, 1) == lane->last_seq;
}

static void send_again(void *owner, const struct saga_delivery *d, struct saga_id own)
{
    SAGA_FAILPOINT(republishing);
    saga_engine_send(owner, d, own);
}

/* The outbox lacks rows that were committed; unless we have slept through another owner's taking, who
 * has sent them and turned the outbox since. */
static int rows_missing(struct saga_engine *e, struct saga_lane *lane, struct saga_err *err)
{
    struct saga_err found = *err;

    err->code = 0;
    int ours = still_ours(e, lane, err);
    lane->known = false;
    if (ours > 0)
        saga_engine_stop_lane(e, lane, found.text);
    else
        saga_engine_want(e, lane, false);
    return ours < 0 ? ours : 0;
}

int saga_engine_republish(struct saga_engine *e, struct saga_lane *lane, struct saga_err *err)
{
    int n;

    saga_outgoing_reset(&lane->out);
    n = saga_outbox_read(e->pg, lane->lane, lane->out.published, lane->last_seq, e->batch.topic,
                         send_again, e, err);
    if (n > 0)
        SAGA_FAILPOINT(republished);
    if (n > 0)
        saga_log_at(SAGA_INFO, "published again", "\"lane\":%d,\"rows\":%d", lane->lane, n);
    return n == SAGA_FATAL ? rows_missing(e, lane, err) : n < 0 ? n : 0;
}

/* Where an input starts: what retention or a new topic took is judged by the chain; of requests
 * there is no chain, so their lane stops. -> false: it stopped */
static bool start_input(struct saga_engine *e, struct saga_lane *lane, int t, const struct marks *m)
{
    struct saga_input *in = &lane->reader.input[t];
    int64_t low = m->low[t][lane->lane], high = m->high[t][lane->lane];
    bool gone = in->next_offset < low || in->next_offset > high;
    char why[256];

    if (gone && !e->intake.source[t]) {
        snprintf(why, sizeof why,
                 "%s/%d: the next request is at offset %" PRId64 ", Kafka has %" PRId64
                 " to %" PRId64 ": requests were lost by retention or by a new topic",
                 e->intake.topic[t], lane->lane, in->next_offset, low, high);
        saga_engine_stop_lane(e, lane, why);
        return false;
    }
    if (gone) {
        saga_log_at(SAGA_WARN, "position not in Kafka: reading from the earliest record",
                    "\"lane\":%d,\"topic\":\"%s\",\"position\":%" PRId64 ",\"earliest\":%" PRId64,
                    lane->lane, e->intake.topic[t], in->next_offset, low);
        in->screened = in->next_offset > high ? -1 : in->screened;
    }
    if (gone || in->rewound)
        in->next_offset = low;
    saga_bus_read(e->bus, t, lane->lane, in->next_offset);
    return true;
}

/* The old owner may have read on after we had asked where the topics end: a position beyond an end
 * counts only if it still is. */
static int look_again(struct saga_engine *e, const struct saga_lane *lane, const struct marks *m,
                      struct saga_err *err)
{
    int rc = 0;

    for (int t = 0; t < e->intake.topics && rc >= 0; t++)
        if (lane->reader.input[t].next_offset > m->high[t][lane->lane])
            rc = saga_bus_offsets(e->bus, e->intake.topic[t], e->lanes, true, m->high[t], WAIT_MS,
                                  err);
    return rc;
}

static int take(struct saga_engine *e, struct saga_lane *lane, const struct marks *m,
                struct saga_err *err)
{
    int same = still_ours(e, lane, err), rc = 0;

    if (same < 0)
        return same;
    if (!same) {
        lane->known = false; /* until all of it is: a taking that fails half-way begins anew */
        saga_recent_forget(e->recent, lane->lane);
        if ((rc = raise_term(e, lane, m, err)) < 0)
            return rc;
        lane->known = true;
        if ((rc = saga_engine_republish(e, lane, err)) < 0)
            lane->known = false;
        if (!lane->known)
            return rc;
        lane->dirty = false;
        memset(lane->moved, 0, sizeof lane->moved);
    }
    if (!lane->ours) { /* taken from us while we took it */
        lane->state = SAGA_LANE_AWAY;
        return 0;
    }
    if ((rc = look_again(e, lane, m, err)) < 0)
        return rc;
    lane->epoch++;
    lane->paused = lane->out.n > SAGA_LANE_EVENTS || lane->out.bytes > SAGA_LANE_BYTES;
    for (int t = 0; t < e->intake.topics; t++)
        if (!start_input(e, lane, t, m))
            return 0;
    for (int t = 0; t < e->intake.topics && lane->paused; t++)
        saga_bus_pause(e->bus, t, lane->lane);
    SAGA_FAILPOINT(lane_taken);
    lane->state = SAGA_LANE_RUNNING;
    lane->backoff = 0;
    lane->why[0] = '\0';
    saga_log_at(SAGA_INFO, same ? "lane kept" : "lane taken",
                "\"lane\":%d,\"term\":%" PRId64 ",\"last_seq\":%" PRId64, lane->lane, lane->term,
                lane->last_seq);
    return 0;
}

int saga_engine_take(struct saga_engine *e, struct saga_err *err)
{
    struct marks m = {0};
    int64_t now = saga_now();
    int rc = 0;

    for (int32_t i = 0; i < e->lanes && rc >= 0; i++) {
        struct saga_lane *lane = &e->lane[i];
        if (lane->state != SAGA_LANE_WANTED || now < lane->try_at)
            continue;
        if (!m.own) {
            saga_batch_reset(&e->batch); /* no batch is under way: its arena is ours */
            if ((rc = ask_marks(e, &m, err)) < 0)
                break;
        }
        if ((rc = take(e, lane, &m, err)) == 0)
            e->due_at = 0;
        saga_view_stale();
    }
    return rc;
}
