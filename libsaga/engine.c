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

/* ---- Sending ---- */

void saga_engine_send(struct saga_engine *e, const struct saga_delivery *d, struct saga_id own)
{
    struct saga_lane *lane = &e->lane[d->lane];

    if (lane->out.n == 0)
        lane->sent_at = saga_now();
    if (!lane->waits_since)
        lane->waits_since = lane->sent_at;
    saga_outgoing_sent(&lane->out, d->seq, own, (uint32_t)(d->value_n + d->key_n));
    saga_bus_send(e->bus, d);
    if (!lane->paused && saga_outgoing_full(&lane->out)) {
        lane->paused = true;
        for (int t = 0; t < e->intake.topics; t++)
            saga_bus_pause(e->bus, t, d->lane);
    }
}

static void cannot_send(struct saga_lane *lane, const char *why)
{
    snprintf(lane->refused, sizeof lane->refused, "%s", why);
}

static void reported(void *owner, int32_t number, int64_t seq, int64_t offset, const char *refused)
{
    struct saga_engine *e = owner;
    struct saga_lane *lane = &e->lane[number];
    int64_t published = lane->out.published;

    SAGA_FAILPOINT(report_received);
    lane->sent_at = saga_now();
    if (!saga_outgoing_acked(&lane->out, seq, offset) || offset < 0) { /* its gate stays shut */
        saga_log_at(SAGA_WARN, "a delivery report that does not count: new producer",
                    "\"lane\":%d,\"seq\":%" PRId64 ",\"offset\":%" PRId64, number, seq, offset);
        e->renew = true;
        if (refused) /* an offset that is not new is another matter: Kafka has lost something (4.4) */
            cannot_send(lane, refused);
        return;
    }
    e->acked_at = lane->sent_at;
    if (lane->out.published > published)
        lane->waits_since = lane->out.n ? lane->sent_at : 0;
    e->renew_backoff = 0;
    saga_engine_dirty(e, lane);
    SAGA_FAILPOINT(report_counted);
    if (lane->paused && saga_outgoing_eased(&lane->out)) {
        lane->paused = false;
        for (int t = 0; t < e->intake.topics && lane->state == SAGA_LANE_RUNNING; t++)
            if (!lane->reader.input[t].stopped)
                saga_bus_resume(e->bus, t, number);
    }
}

/* A partition that reports nothing although Kafka answers: its producer is given up (4.3). */
static void look_for_silence(struct saga_engine *e, int64_t now)
{
    int32_t silent = -1, n = 0;
    int led = 0;

    for (int32_t i = 0; i < e->lanes; i++) {
        struct saga_lane *lane = &e->lane[i];
        if (!lane->out.n || now - lane->sent_at <= e->conf->report_wait)
            continue;
        lane->sent_at = now;
        /* No other producer would do better where nobody leads. While Kafka is away each asking waits:
         * it is asked once. */
        if (led >= 0 && (led = saga_bus_led(e->bus, e->batch.topic, i, 300)) > 0) {
            silent = i;
            n++;
        }
    }
    if (silent < 0)
        return;
    /* Others are heard of, and it is this lane's partition that is silent: that of a forward or a dead
     * letter is not known to have a leader. */
    if (n == 1 && now - e->acked_at <= e->conf->report_wait &&
        saga_outgoing_waits_own(&e->lane[silent].out))
        cannot_send(&e->lane[silent], "no delivery report, though its partition has a leader");
    saga_log_at(SAGA_WARN, "no delivery report: new producer", "\"lane\":%d", silent);
    e->renew = true;
}

/* One lane alone because of which producers are given up again and again (4.3). */
static void stop_refused(struct saga_engine *e)
{
    struct saga_lane *alone = NULL;
    char why[SAGA_WHY];
    int n = 0;

    for (int32_t i = 0; i < e->lanes; i++)
        if (*e->lane[i].refused) {
            alone = &e->lane[i];
            n++;
        }
    if (n == 1 && alone->state == SAGA_LANE_RUNNING && saga_outgoing_failed(&alone->out)) {
        snprintf(why, sizeof why,
                 "Kafka did not take outbox row %" PRId64
                 " or one behind it, three times: %s. When "
                 "that is mended \"sagactl lane %s %d republish\" starts the lane again",
                 alone->out.published + 1, alone->refused, e->service->name, alone->lane);
        saga_engine_stop_lane(e, alone, why);
    }
    for (int32_t i = 0; i < e->lanes; i++)
        e->lane[i].refused[0] = '\0';
}

/* The one recovery path: a new producer, and every lane that had something on its way is taken again
 * from 4.4 step 2: it looks at what Kafka has, and sends again what is above published. */
static int renew(struct saga_engine *e, int64_t now, struct saga_err *err)
{
    int rc;

    if (!e->renew || now < e->renew_at)
        return 0;
    e->renew_backoff = e->renew_backoff ? e->renew_backoff * 2 : 100 * MS;
    if (e->renew_backoff > 5 * SECOND)
        e->renew_backoff = 5 * SECOND;
    e->renew_at = now + e->renew_backoff;
    if ((rc = saga_bus_renew(e->bus, err)) < 0)
        return rc;
    e->renew = false;
    stop_refused(e);
    for (int32_t i = 0; i < e->lanes; i++) {
        struct saga_lane *lane = &e->lane[i];
        if (!lane->out.n)
            continue;
        saga_outgoing_reset(&lane->out);
        lane->resend = true;
        if (lane->state == SAGA_LANE_RUNNING)
            saga_engine_want(e, lane, true);
    }
    return 0;
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

const struct saga_bus_events saga_engine_events = {NULL, assigned, reported};

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

/* Many records a second come many at a time, few come at once. */
static void choose_patience(struct saga_engine *e, int64_t now)
{
    int64_t rate = e->collected * (int64_t)SECOND / (now - e->counted_at);
    struct saga_err err = {0};

    e->collected = 0;
    e->counted_at = now;
    e->paced = rate >= FEW;
    if ((rate >= MANY || rate <= MANY / 2) && saga_bus_patience(e->bus, rate >= MANY, &err) < 0)
        saga_log_text(SAGA_WARN, "reading many records at a time", err.text);
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
    look_for_silence(e, now);
    look_at_holds(e, now);
    commit_offsets(e);
    choose_patience(e, now);
    if ((rc = saga_loss_watch(e, now, err)) < 0)
        return rc;
    return now >= e->rotate_at && saga_pg_connected(e->pg) ? rotate(e, now, err) : rc;
}

/* When the next batch may start: where much comes, what comes while two batches last makes one; where
 * little comes nothing waits for more. */
static int64_t next_start(const struct saga_engine *e)
{
    return e->paced ? e->started + 2 * e->lasted : e->started;
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
    if ((rc = saga_pg_connect(e->pg, err)) < 0 || (rc = renew(e, now, err)) < 0 ||
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

static bool is_sending(const struct saga_engine *e)
{
    for (int32_t i = 0; i < e->lanes; i++)
        if (e->lane[i].state == SAGA_LANE_RUNNING && e->lane[i].out.n)
            return true;
    return false;
}

void saga_engine_settle(struct saga_engine *e, int64_t wait)
{
    int64_t until = saga_now() + wait;
    struct saga_err err = {0};

    while (is_sending(e) && !e->renew && saga_now() < until)
        if (saga_engine_turn(e, 50 * MS, -1, 0, &err) < 0)
            return;
    if (!e->flush_at || e->failures || !saga_pg_connected(e->pg))
        return;
    e->now->from = e->now->n; /* the next owner's */
    e->answers_in = e->answers_n;
    saga_engine_forget(e);
    e->flush_at = saga_now();
    if (saga_engine_run(e, &err) < 0)
        saga_log_text(SAGA_INFO, "the last acknowledgements are not stored", err.text);
}
