/* The engine's loop: collect, run a batch, keep house; waiting for Kafka or PostgreSQL is a turn of
 * the same loop, so that the group does not expel us and memory stays bounded. See engine.h,
 * DESIGN.md 4.1. */
#include "engine.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "failpoint.h"
#include "log.h"
#include "outbox.h"

enum { SECOND = 1000000, MS = 1000, FEW = 400, MANY = 2000 /* records in a second */ };

int64_t saga_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec / 1000;
}

/* ---- Lanes ---- */

void saga_engine_stop_lane(struct saga_engine *e, struct saga_lane *lane, const char *why)
{
    lane->state = SAGA_LANE_STOPPED;
    snprintf(lane->why, sizeof lane->why, "%s", why);
    for (int t = 0; t < e->intake.topics; t++)
        saga_bus_pause(e->bus, t, lane->lane);
    saga_log_at(SAGA_ERROR, "lane stopped", "\"lane\":%d", lane->lane);
    saga_log_text(SAGA_ERROR, "lane stopped", why);
}

void saga_engine_dirty(struct saga_engine *e, struct saga_lane *lane)
{
    lane->dirty = true;
    if (!e->flush_at)
        e->flush_at = saga_now() + SECOND;
}

/* After a lost connection nobody knows what was committed: the database tells. */
void saga_engine_lost_database(struct saga_engine *e)
{
    for (int32_t i = 0; i < e->lanes; i++) {
        e->lane[i].known = false;
        if (e->lane[i].state == SAGA_LANE_RUNNING || e->lane[i].state == SAGA_LANE_LOOKING)
            saga_engine_want(e, &e->lane[i], true);
    }
}

/* ---- Collecting ---- */

static void read_headers(void *owner, struct saga_record *record)
{
    saga_bus_headers(((struct saga_engine *)owner)->bus, record);
}

/* A position that Kafka does not have, or no longer had when it was asked: taking the lane looks at
 * where the topic begins and ends now, and decides (4.4 step 3). */
static void out_of_range(struct saga_engine *e, int32_t number)
{
    if (e->lane[number].state == SAGA_LANE_RUNNING)
        saga_engine_want(e, &e->lane[number], false);
}

static bool is_full(const struct saga_engine *e)
{
    return e->next->n >= e->conf->batch_records || e->next->bytes >= SAGA_BATCH_BYTES;
}

/* -> whether the batch is full; else all that waits has been collected */
static bool collect_topic(struct saga_engine *e, int topic)
{
    struct saga_work *work = e->next;
    struct saga_record record;
    int rc;

    while (!is_full(e)) {
        if ((rc = saga_bus_next(e->bus, topic, &record)) == 0)
            return false;
        if (rc < 0) {
            out_of_range(e, record.partition);
            continue;
        }
        if (record.partition >= e->lanes)
            continue;
        if (work->n == work->cap) {
            work->cap = work->cap ? work->cap * 2 : 256;
            work->read = saga_realloc(work->read, (size_t)work->cap * sizeof *work->read);
        }
        saga_intake_read(&e->intake, topic, e->lanes, &record, read_headers, e, &work->arena,
                         &work->read[work->n]);
        work->read[work->n++].epoch = e->lane[record.partition].epoch;
        e->collected++;
        work->bytes += record.value_n;
    }
    return true;
}

/* Events before requests, so that what was begun ends before more is begun: under a backlog no
 * service waits for what another one has put off, and rows are still in memory when they are asked
 * for. Of several topics of events each is the first in turn. */
static void collect(struct saga_engine *e)
{
    int requests = e->service->requests != NULL, events = e->intake.topics - requests;

    e->more = false;
    for (int i = 0; i < events && !e->more; i++)
        e->more = collect_topic(e, requests + (e->first + i) % events);
    if (requests && !e->more)
        e->more = collect_topic(e, 0);
    if (e->more)
        e->first = (e->first + 1) % (events ? events : 1);
}

static void take_looks(struct saga_engine *e)
{
    struct saga_look **end = &e->looked;

    while (*end)
        end = &(*end)->next;
    *end = saga_look_answered();
}

static void assigned(void *owner, const int32_t *lanes, int n)
{
    struct saga_engine *e = owner;
    int64_t now = saga_now();

    e->verified = false; /* asked at once: nothing is taken before */
    e->identity_asked = 0;
    e->second_at = 0;
    for (int32_t i = 0; i < e->lanes; i++)
        e->lane[i].ours = false;
    for (int i = 0; i < n; i++)
        if (lanes[i] < e->lanes)
            e->lane[lanes[i]].ours = true;
    for (int32_t i = 0; i < e->lanes; i++) {
        struct saga_lane *lane = &e->lane[i];
        lane->epoch++;
        if (!lane->ours) {
            lane->state = SAGA_LANE_AWAY;
            lane->waits_since = 0;
        } else if (lane->state != SAGA_LANE_STOPPED) {
            lane->state = SAGA_LANE_WANTED;
            lane->try_at = now;
            lane->backoff = 0;
        }
    }
    saga_engine_bring_back(e);
    saga_view_stale();
    saga_log_at(SAGA_INFO, "lanes assigned", "\"lanes\":%d", n);
}

const struct saga_bus_events saga_engine_events = {NULL, assigned, saga_engine_reported};

int saga_engine_turn(struct saga_engine *e, int64_t wait, int fd, short events,
                     struct saga_err *err)
{
    struct pollfd fds[3] = {
        {saga_bus_fd(e->bus), POLLIN, 0}, {e->wake, POLLIN, 0}, {fd, events, 0}};
    struct timespec limit = {wait / SECOND, wait % SECOND * 1000};
    uint64_t woken;
    int rc;

    saga_view_turned();
    if (ppoll(fds, fd < 0 ? 2 : 3, &limit, NULL) < 0 && errno != EINTR)
        return saga_err(err, SAGA_FATAL, "poll: %s", strerror(errno));
    if (fds[1].revents && read(e->wake, &woken, sizeof woken) > 0) {
        saga_engine_take_answers(e);
        take_looks(e);
    }
    saga_bus_woken(e->bus);
    collect(e);
    if ((rc = saga_bus_serve(e->bus, err)) == SAGA_FATAL)
        return rc;
    if (rc < 0) {
        e->renew = true;
        err->code = 0;
    }
    if (saga_bus_lost(e->bus)) /* known before any record that came after it is looked at */
        saga_loss_connection(e);
    return 0;
}

/* ---- Waiting for PostgreSQL ---- */

static const char sql_end_blockers[] =
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where pid = any(pg_blocking_pids($1::bigint::int)) and application_name = $2"
    "   and wait_event = 'ClientRead'"
    "   and state_change < clock_timestamp() - $3::bigint * interval '1 microsecond'";

/* 4.4 step 1: a paused owner's session holds locks that no time-out frees (KAFKA.md). Only sessions
 * of this service, and only those that have said nothing for as long as we have waited. */
static void end_blockers(struct saga_engine *e)
{
    struct saga_pg *second = saga_pg_new(e->conf->database, e->batch.source + 1, "pg_catalog");
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};

    saga_param_int(&p, saga_pg_pid(e->pg));
    saga_param_text(&p, e->batch.source + 1);
    saga_param_int(&p, e->conf->lock_wait);
    if (saga_pg_query(second, sql_end_blockers, &p, &rows, &err) < 0)
        saga_log_text(SAGA_WARN, "looking for who blocks us", err.text);
    else if (saga_rows_n(rows) > 0)
        saga_log_at(SAGA_WARN, "ended sessions of a silent owner that held our rows",
                    "\"sessions\":%d", saga_rows_n(rows));
    saga_rows_free(rows);
    saga_params_free(&p);
    saga_pg_free(second);
}

int saga_engine_wait(struct saga_engine *e, struct saga_err *err)
{
    int64_t since = saga_now(), look = since + e->conf->lock_wait;
    int rc;

    while ((rc = saga_pg_ready(e->pg, err)) == 0) {
        if ((rc = saga_engine_turn(e, 200 * MS, saga_pg_socket(e->pg), saga_pg_events(e->pg),
                                   err)) < 0)
            return rc;
        if (saga_now() >= look) {
            end_blockers(e);
            look = saga_now() + SECOND;
        }
    }
    return rc < 0 ? rc : 0;
}

int saga_engine_rollback(struct saga_engine *e, struct saga_err *err)
{
    static const char sql[] = "rollback";
    int rc;

    if ((rc = saga_pg_send(e->pg, sql, NULL, err)) < 0 || (rc = saga_pg_sync(e->pg, err)) < 0)
        return rc;
    return saga_engine_wait(e, err);
}

/* ---- The loop ---- */

static void commit_offsets(struct saga_engine *e)
{
    for (int32_t i = 0; i < e->lanes; i++)
        for (int t = 0; t < e->intake.topics && e->lane[i].state == SAGA_LANE_RUNNING; t++)
            saga_bus_commit(e->bus, t, i, saga_input_position(&e->lane[i].reader.input[t]));
    saga_bus_commit_flush(e->bus);
}

/* A gap that stays open is looked for once from the earliest record (4.2). */
static void look_at_holds(struct saga_engine *e, int64_t now)
{
    for (int32_t i = 0; i < e->lanes; i++) {
        struct saga_lane *lane = &e->lane[i];
        for (int t = 0; t < e->intake.topics && lane->state == SAGA_LANE_RUNNING; t++)
            if (saga_input_overdue(&lane->reader.input[t], now, e->conf->hold_wait)) {
                saga_log_at(SAGA_WARN, "a gap stays open: reading again from the earliest record",
                            "\"lane\":%d,\"topic\":\"%s\",\"held\":%" PRId64, i, e->intake.topic[t],
                            lane->reader.input[t].held);
                saga_engine_want(e, lane, true); /* taking reads where the input says */
            }
    }
}

/* Where much comes in a second it is read many records at a time; where little comes each at once. */
static void choose_patience(struct saga_engine *e, int64_t now)
{
    const int64_t past = now - e->counted_at, rate = e->collected * (int64_t)SECOND / (past + 1);
    bool patient = rate >= (e->patient ? MANY / 2 : MANY);
    struct saga_err err = {0};

    if (past < SECOND / 2) /* a rebalance has made us look early */
        return;
    e->collected = 0;
    e->counted_at = now;
    e->paced = rate >= FEW;
    if (patient != e->patient && saga_bus_patience(e->bus, patient, &err) < 0)
        saga_log_text(SAGA_WARN, "reading many records at a time", err.text);
    else
        e->patient = patient;
}

static int rotate(struct saga_engine *e, int64_t now, struct saga_err *err)
{
    int64_t keep = e->conf->outbox_keep;
    struct saga_outbox_table present = {0};

    e->rotate_at = now + (keep < 40 * SECOND ? keep / 4 + 1 : 10 * SECOND);
    int rc = saga_outbox_rotate(e->pg, keep, e->conf->outbox_bytes, &present, err);
    if (rc == 1)
        saga_log_at(SAGA_INFO, "outbox rotated", NULL);
    saga_gauge(e->metric.outbox_age, rc == 1 ? 0 : present.age);
    saga_gauge(e->metric.outbox_bytes, rc == 1 ? 0 : present.bytes);
    return rc;
}

static int once_a_second(struct saga_engine *e, int64_t now, struct saga_err *err)
{
    int rc = 0;

    if (now < e->second_at)
        return 0;
    e->second_at = now + SECOND;
    saga_engine_silence(e, now);
    look_at_holds(e, now);
    commit_offsets(e);
    choose_patience(e, now);
    if ((rc = saga_loss_watch(e, now, err)) < 0)
        return rc;
    return now >= e->rotate_at && saga_pg_connected(e->pg) ? rotate(e, now, err) : rc;
}

/* When the next batch may start: where much comes, what comes while two batches last makes one, where very
 * much comes three (more would be cheaper still, and take longer); where little comes nothing waits. */
static int64_t next_start(const struct saga_engine *e)
{
    return e->started + e->lasted * (e->patient ? 3 : e->paced ? 2 : 0);
}

/* How long to wait before the next batch may start, and for what there is at most. */
static int64_t pause_of(const struct saga_engine *e, int64_t now)
{
    bool input =
        e->now->from < e->now->n || e->next->n || e->answers_n || e->due_n || e->parking.redriven_n;
    int64_t until = e->second_at;

    if (now < e->retry_at)
        return e->retry_at - now;
    if (e->looked)
        return 0;
    if (e->more || (input && now >= next_start(e))) /* more: no event announces it */
        return 0;
    if (input)
        return next_start(e) - now;
    if (e->service->due && e->due_at < until)
        until = e->due_at;
    if (e->flush_at && e->flush_at < until)
        until = e->flush_at;
    for (int32_t i = 0; i < e->lanes; i++) {
        const struct saga_lane *lane = &e->lane[i];
        if (lane->state == SAGA_LANE_WANTED && e->verified && lane->try_at < until)
            until = lane->try_at;
        if (lane->state == SAGA_LANE_LOOKING && lane->look_at && lane->look_at < until)
            until = lane->look_at;
    }
    if (e->renew && e->renew_at < until)
        until = e->renew_at;
    if (e->parking.n && e->parking.ask_at < until)
        until = e->parking.ask_at;
    return until > now ? until - now : 0;
}

static int batch(struct saga_engine *e, struct saga_err *err)
{
    if (e->now->from == e->now->n) {
        struct saga_work *empty = e->now;
        saga_arena_reset(&empty->arena);
        empty->n = empty->from = 0;
        empty->bytes = 0;
        e->now = e->next;
        e->next = empty;
    }
    if (e->now->n == e->now->from && !e->answers_n && !e->due_n && !e->parking.redriven_n &&
        !(e->flush_at && saga_now() >= e->flush_at))
        return 0;
    e->started = saga_now();
    int rc = saga_engine_run(e, err);
    e->lasted = saga_now() - e->started;
    if (e->lasted > 100 * MS)
        e->lasted = 100 * MS;
    return rc;
}

static void failed(struct saga_engine *e, const struct saga_err *err)
{
    int64_t wait = 100 * MS;

    for (int64_t i = 0; i < e->failures && wait < 5 * SECOND; i++)
        wait *= 2;
    if (wait > 5 * SECOND)
        wait = 5 * SECOND;
    wait -= rand() % (wait / 4);
    e->retry_at = saga_now() + wait;
    if (e->failures++ % 8 == 0)
        saga_log_text(SAGA_WARN, "waiting", err->text);
    saga_view_waits(err->text);
    if (!saga_pg_connected(e->pg))
        saga_engine_lost_database(e);
}

static int step(struct saga_engine *e, struct saga_err *err)
{
    int64_t now = saga_now();
    int rc;

    if (now < e->retry_at)
        return 0;
    if ((rc = saga_pg_connect(e->pg, err)) < 0 || (rc = saga_engine_renew(e, now, err)) < 0 ||
        (rc = saga_engine_take(e, err)) < 0 || (rc = once_a_second(e, now, err)) < 0 ||
        (rc = saga_park_ask(e, err)) < 0 || (rc = saga_due_ask(e, err)) < 0 ||
        (rc = batch(e, err)) < 0)
        return rc;
    if (e->failures) {
        e->failures = 0;
        saga_log_at(SAGA_INFO, "working again", NULL);
    }
    saga_view_waits(NULL);
    return 0;
}

int saga_engine_loop(struct saga_engine *e, struct saga_err *err)
{
    while (!atomic_load(&e->stop)) {
        int rc;
        saga_view_update(e);
        err->code = 0;
        if ((rc = saga_engine_turn(e, pause_of(e, saga_now()), -1, 0, err)) < 0)
            return rc;
        if (pause_of(e, saga_now()) > 0)
            continue;
        if ((rc = step(e, err)) == SAGA_FATAL)
            return rc;
        if (rc < 0)
            failed(e, err);
    }
    return 0;
}

void saga_engine_settle(struct saga_engine *e, int64_t wait)
{
    struct saga_err err = {0};

    saga_engine_all_reported(e, wait, &err);
    if (err.code || !e->flush_at || e->failures || !saga_pg_connected(e->pg))
        return;
    e->now->from = e->now->n; /* the next owner's */
    e->answers_in = e->answers_n;
    saga_engine_forget(e);
    e->flush_at = saga_now();
    if (saga_engine_run(e, &err) < 0)
        saga_log_text(SAGA_INFO, "the last acknowledgements are not stored", err.text);
}
