/* Taking a lane (DESIGN.md 4.4): raise its term, so that the old owner's batches fail from now on; look
 * at what Kafka has of it (look.c asks, loss.c judges; other lanes go on meanwhile); send again what
 * is above published; read where the database says. */
#include <inttypes.h>
#include <stdlib.h>

#include "engine.h"
#include "failpoint.h"
#include "log.h"
#include "outbox.h"

enum { MS = 1000, NOT_MADE = -1 };

static const char sql_begin[] = "begin";
static const char sql_commit[] = "commit";

static const char sql_make[] = "insert into lane (lane) values ($1::bigint) on conflict do nothing";

static const char sql_raise[] =
    "update lane"
    "   set term = " SAGA_TERM_RAISED " where lane = $1::bigint"
    " returning term, last_seq, last_id, published, published_offset, published_id,"
    "           (extract(epoch from clock_timestamp()) * 1000000)::bigint";

static const char sql_make_inputs[] =
    "insert into lane_input (lane, topic, next_offset)"
    "     select $1::bigint, topic, next from unnest($2::text[], $3::bigint[]) n(topic, next)"
    "  on conflict do nothing";

static const char sql_inputs[] =
    "select topic, next_offset, screened, last_id from lane_input where lane = $1::bigint";

static const char sql_same[] = "select term, last_seq from lane where lane = $1::bigint";

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
            struct saga_input *in = &lane->reader.input[t];
            const char *last = saga_rows_text(rows, row, 3);
            *in = (struct saga_input){.next_offset = saga_rows_int(rows, row, 1),
                                      .screened = offset_at(rows, row, 2),
                                      .held = -1};
            if (e->intake.source[t])
                in->last = id_at(rows, row, 3);
            else if (last)
                in->hash = strtoull(last, NULL, 16);
            return;
        }
    if (n && !strncmp(topic, e->service->requests, n) && topic[n] == '/') {
        int q = atoi(topic + n + 1);
        if (q >= 0 && q < e->lanes)
            lane->reader.forwarded[q] = id_at(rows, row, 3);
    }
}

/* The transaction of a taking. -> 0 with the lane's memory as the database has it */
static int raise_term(struct saga_engine *e, struct saga_lane *lane, struct saga_err *err)
{
    struct saga_params p = {0};
    int rc;

    saga_param_int(&p, lane->lane);
    if ((rc = saga_pg_send(e->pg, sql_begin, NULL, err)) >= 0 &&
        (rc = saga_pg_send(e->pg, sql_make, &p, err)) >= 0 &&
        (rc = saga_pg_send(e->pg, sql_raise, &p, err)) >= 0 &&
        (rc = saga_pg_send(e->pg, sql_inputs, &p, err)) >= 0 &&
        (rc = saga_pg_send(e->pg, sql_commit, NULL, err)) >= 0 &&
        (rc = saga_pg_sync(e->pg, err)) >= 0) {
        SAGA_FAILPOINT(term_sent);
        rc = saga_engine_wait(e, err);
    }
    saga_params_free(&p);
    if (rc < 0) {
        struct saga_err ignored = {0};
        if (saga_pg_connected(e->pg))
            saga_engine_rollback(e, &ignored);
        return rc;
    }
    SAGA_FAILPOINT(term_raised);
    const struct saga_rows *row = saga_pg_result(e->pg, 2), *rows = saga_pg_result(e->pg, 3);
    lane->term = saga_rows_int(row, 0, 0);
    lane->last_seq = saga_rows_int(row, 0, 1);
    lane->last = id_at(row, 0, 2);
    lane->out.published = saga_rows_int(row, 0, 3);
    lane->out.published_offset = offset_at(row, 0, 4);
    lane->out.published_id = id_at(row, 0, 5);
    e->clock = saga_rows_int(row, 0, 6) - saga_now(); /* deadlines come before any batch, too */
    if (lane->reader.forwarded)
        memset(lane->reader.forwarded, 0, (size_t)e->lanes * sizeof *lane->reader.forwarded);
    for (int t = 0; t < e->intake.topics; t++)
        lane->reader.input[t] =
            (struct saga_input){.next_offset = NOT_MADE, .screened = -1, .held = -1};
    for (int i = 0; i < saga_rows_n(rows); i++)
        read_input(e, lane, rows, i);
    lane->known = lane->resend = true;
    lane->dirty = false;
    lane->others = 0;
    memset(lane->moved, 0, sizeof lane->moved);
    memset(lane->alarmed, 0, sizeof lane->alarmed);
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

/* ---- Looking ---- */

void saga_engine_look(struct saga_engine *e, struct saga_lane *lane, enum saga_look_kind kind)
{
    const struct saga_input *requests = e->service->requests ? &lane->reader.input[0] : NULL;
    struct saga_look *look = saga_alloc(sizeof *look);

    *look = (struct saga_look){.kind = kind,
                               .lane = lane->lane,
                               .ticket = ++e->tickets,
                               .source = e->batch.source,
                               .published_offset = lane->out.published_offset,
                               .published_id = lane->out.published_id,
                               .published = lane->out.published,
                               .last_seq = lane->last_seq,
                               .next_request = requests ? requests->next_offset : -1,
                               .before = requests ? requests->hash : 0};
    if (kind == SAGA_LOOK_WHOLE) {
        look->oldest = lane->oldest;
        look->previous = lane->previous;
    }
    lane->ticket = look->ticket;
    lane->look_at = 0;
    saga_look_ask(look);
}

static int begin(struct saga_engine *e, struct saga_lane *lane, struct saga_err *err)
{
    int same = still_ours(e, lane, err), rc;

    if (same < 0)
        return same;
    if (!same) {
        lane->known = false; /* until all of it is: a taking that fails half-way begins anew */
        saga_recent_forget(e->recent, lane->lane);
        if ((rc = raise_term(e, lane, err)) < 0)
            return rc;
    }
    if (!lane->ours) { /* taken from us while we took it */
        lane->state = SAGA_LANE_AWAY;
        return 0;
    }
    lane->state = SAGA_LANE_LOOKING;
    lane->found = SAGA_FINE;
    lane->oldest = lane->previous = (struct saga_id){0};
    saga_engine_look(e, lane, SAGA_LOOK_WHOLE);
    return 0;
}

/* ---- Sending again ---- */

struct again {
    struct saga_engine *e;
    int64_t others;
    int n;
};
enum { TURN = 1000 }; /* rows between turns of the loop: there may be very many */

static void send_again(void *owner, const struct saga_delivery *d, struct saga_id own)
{
    struct again *again = owner;
    struct saga_err ignored = {0};

    SAGA_FAILPOINT(republishing);
    if (own.seq || d->seq > again->others)
        saga_engine_send(again->e, d, own);
    else
        saga_outgoing_passed(&again->e->lane[d->lane].out, d->seq);
    if (++again->n % TURN == 0)
        saga_engine_turn(again->e, 0, -1, 0, &ignored);
}

/* The outbox lacks rows that were committed; unless we have slept through another owner's taking, who
 * has sent them and turned the outbox since. */
static int rows_missing(struct saga_engine *e, struct saga_lane *lane, struct saga_err *err)
{
    struct saga_err found = *err;

    err->code = 0;
    int ours = still_ours(e, lane, err);
    lane->known = false;
    if (ours > 0) {
        char why[SAGA_WHY];
        snprintf(why, sizeof why,
                 "%s: what they said is lost. \"sagactl lane %s %d restart\" goes on behind what "
                 "Kafka has: readers do not notice, and orders of those events stay where they are",
                 found.text, e->service->name, lane->lane);
        saga_engine_stop_lane(e, lane, why);
    } else
        saga_engine_want(e, lane, false);
    return ours < 0 ? ours : 0;
}

/* -> 1; 0: the lane has stopped, or is to be taken again */
static int republish(struct saga_engine *e, struct saga_lane *lane, struct saga_err *err)
{
    struct again again = {e, lane->others, 0};
    int n;

    saga_outgoing_reset(&lane->out);
    n = saga_outbox_read(e->pg, lane->lane, lane->out.published, lane->last_seq, e->batch.topic,
                         send_again, &again, err);
    if (n > 0)
        SAGA_FAILPOINT(republished);
    if (n > 0)
        saga_log_at(SAGA_INFO, "published again", "\"lane\":%d,\"rows\":%d", lane->lane, n);
    if (n == SAGA_FATAL)
        return rows_missing(e, lane, err);
    if (n < 0)
        return n;
    lane->resend = false;
    if (!lane->out.n)
        lane->waits_since = 0; /* Kafka had it all */
    lane->others = 0;
    return 1;
}

/* ---- Reading ---- */

/* An event topic is read from its first record ever: what retention has taken of it is missing. For
 * requests the first taking begins where they begin. */
static int make_inputs(struct saga_engine *e, struct saga_lane *lane, const struct saga_look *look,
                       struct saga_err *err)
{
    struct saga_params p = {0};
    int rc = 0, n = 0;

    for (int t = 0; t < e->intake.topics; t++) {
        struct saga_input *in = &lane->reader.input[t];
        if (in->next_offset == NOT_MADE) {
            in->next_offset = e->intake.source[t] ? 0 : look->low[t];
            n++;
        }
    }
    if (n == 0)
        return 0;
    saga_param_int(&p, lane->lane);
    saga_param_array(&p, SAGA_OID_TEXT);
    for (int t = 0; t < e->intake.topics; t++)
        saga_element_text(&p, e->intake.topic[t], -1);
    saga_param_array_end(&p);
    saga_param_array(&p, SAGA_OID_INT8);
    for (int t = 0; t < e->intake.topics; t++)
        saga_element_int(&p, lane->reader.input[t].next_offset);
    saga_param_array_end(&p);
    if ((rc = saga_pg_send(e->pg, sql_make_inputs, &p, err)) >= 0 &&
        (rc = saga_pg_sync(e->pg, err)) >= 0)
        rc = saga_engine_wait(e, err);
    saga_params_free(&p);
    return rc;
}

/* What retention or a new topic took of events is judged by the chain; requests have been judged. */
static void start_input(struct saga_engine *e, struct saga_lane *lane, int t, int64_t low,
                        int64_t high)
{
    struct saga_input *in = &lane->reader.input[t];
    bool gone = in->next_offset < low || in->next_offset > high;

    if (in->stopped)
        return;
    if (gone) {
        saga_log_at(SAGA_WARN, "position not in Kafka: reading from the earliest record",
                    "\"lane\":%d,\"topic\":\"%s\",\"position\":%" PRId64 ",\"earliest\":%" PRId64,
                    lane->lane, e->intake.topic[t], in->next_offset, low);
        in->screened = in->next_offset > high ? -1 : in->screened;
    }
    if (in->next_offset < low)
        saga_input_lose(in, low, saga_now());
    else if (gone || in->rewound)
        in->next_offset = low;
    saga_bus_read(e->bus, t, lane->lane, in->next_offset);
    if (lane->paused)
        saga_bus_pause(e->bus, t, lane->lane);
}

int saga_engine_start(struct saga_engine *e, struct saga_lane *lane, const struct saga_look *look,
                      struct saga_err *err)
{
    bool kept = !lane->resend;
    int rc;

    if ((rc = make_inputs(e, lane, look, err)) < 0)
        return rc;
    if (lane->resend) {
        lane->out.known_offset = look->seen.high - 1;
        if ((rc = republish(e, lane, err)) <= 0)
            return rc;
    }
    if (!lane->ours || lane->state != SAGA_LANE_LOOKING) /* taken from us meanwhile */
        return 0;
    lane->epoch++;
    lane->paused = saga_outgoing_full(&lane->out);
    for (int t = 0; t < e->intake.topics; t++)
        start_input(e, lane, t, look->low[t], look->high[t]);
    SAGA_FAILPOINT(lane_taken);
    lane->state = SAGA_LANE_RUNNING;
    lane->backoff = 0;
    lane->why[0] = '\0';
    e->due_at = 0;
    saga_engine_bring_back(e);
    saga_log_at(SAGA_INFO, kept ? "lane kept" : "lane taken",
                "\"lane\":%d,\"term\":%" PRId64 ",\"last_seq\":%" PRId64, lane->lane, lane->term,
                lane->last_seq);
    return 0;
}

int saga_engine_take(struct saga_engine *e, struct saga_err *err)
{
    int64_t now = saga_now();
    int rc = saga_loss_judge(e, err);

    for (int32_t i = 0; i < e->lanes && rc >= 0 && e->verified; i++) {
        struct saga_lane *lane = &e->lane[i];
        if (lane->state == SAGA_LANE_WANTED && now >= lane->try_at) {
            rc = begin(e, lane, err);
            saga_view_stale();
        } else if (lane->state == SAGA_LANE_LOOKING && lane->look_at && now >= lane->look_at) {
            saga_engine_look(e, lane, SAGA_LOOK_WHOLE);
        }
    }
    return rc;
}
