/* Loss that is not ours (DESIGN.md 4.2, 4.4 steps 2 and 3, identity): what a look at Kafka means for a
 * lane, and what follows.
 *
 * Happy path: nothing is found, the lane starts. Kafka is behind: it has lost what it had acknowledged,
 * and the outbox may still have it: then it is published again. All else is for people to decide: the
 * lane, or the input, stops, says what was found, what it means, and which commands decide; the other
 * lanes go on. A finding counts if a second look finds the same. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine.h"
#include "log.h"
#include "outbox.h"
#include "schema.h"

enum { SECOND = 1000000 };

/* ---- Whose Kafka this is ---- */

/* An answer to a question that was asked before the last assignment says nothing. */
static int verify(struct saga_engine *e, const struct saga_look *look, struct saga_err *err)
{
    char history[40];

    if (look->ticket != e->identity_asked)
        return 0;
    e->identity_asked = 0;
    int rc = look->rc ? saga_err(err, look->rc, "%s", look->text)
                      : saga_schema_identity(e->pg, e->service, look->lanes, e->conf->prefix,
                                             look->cluster, history, err);

    if (rc == SAGA_FATAL)
        e->misplaced = true;
    e->verified = rc == 0;
    return rc;
}

/* One question at a time: while Kafka is away each takes seconds, and all that wait would be answered
 * after it is back. */
static void ask_identity(struct saga_engine *e)
{
    static uint32_t ticket;

    if (e->identity_asked)
        return;
    struct saga_look *look = saga_alloc(sizeof *look);
    e->identity_asked = ++ticket ? ticket : ++ticket;
    *look = (struct saga_look){.kind = SAGA_LOOK_IDENTITY, .ticket = e->identity_asked};
    saga_look_ask(look);
}

/* ---- Lanes ---- */

static const char *command(const struct saga_engine *e, const struct saga_lane *lane,
                           const char *what, char *out, size_t n)
{
    snprintf(out, n, "\"sagactl lane %s %d %s\"", e->service->name, lane->lane, what);
    return out;
}

static void stop_requests(struct saga_engine *e, struct saga_lane *lane,
                          const struct saga_look *look)
{
    char why[SAGA_WHY], what[96], decide[160];
    const char *topic = e->intake.topic[0];
    bool gone = look->next_request < look->low[0] || look->next_request > look->high[0];

    snprintf(what, sizeof what, "accept-gap %s", topic);
    command(e, lane, what, decide, sizeof decide);
    if (gone)
        snprintf(why, sizeof why,
                 "requests are lost: the next one of %s/%d is at offset %" PRId64
                 ", Kafka has %" PRId64 " to %" PRId64 ": retention or a new topic took them "
                 "unread. %s reads on from the earliest that is there",
                 topic, lane->lane, look->next_request, look->low[0], look->high[0], decide);
    else
        snprintf(why, sizeof why,
                 "requests are lost: the record of %s/%d before offset %" PRId64
                 " is not the one that was read there: Kafka has lost records, and others stand "
                 "in their place. %s reads all again from the earliest: nothing is done twice, "
                 "but what was refused then is judged anew",
                 topic, lane->lane, look->next_request, decide);
    saga_engine_stop_lane(e, lane, why);
}

static void stop_database(struct saga_engine *e, struct saga_lane *lane,
                          const struct saga_look *look)
{
    char why[SAGA_WHY], decide[80], id[SAGA_ID_TEXT];

    saga_id_write(lane->lane, look->seen.newest, id);
    snprintf(why, sizeof why,
             "the database is behind: %s/%d has event %s at offset %" PRId64 ", the database has "
             "written no more than sequence %" PRId64 ": it was restored from an old copy. Restore "
             "a newer one, or %s goes on behind the newest event, without what was decided since",
             e->batch.topic, lane->lane, id, look->seen.newest_offset, look->last_seq,
             command(e, lane, "restart", decide, sizeof decide));
    saga_engine_stop_lane(e, lane, why);
}

static void stop_kafka(struct saga_engine *e, struct saga_lane *lane, const struct saga_look *look)
{
    char why[SAGA_WHY], again[80], restart[80], id[SAGA_ID_TEXT];

    saga_id_write(lane->lane, look->published_id, id);
    snprintf(why, sizeof why,
             "Kafka is behind: %s/%d has lost event %s, acknowledged at offset %" PRId64
             " (it has %" PRId64 " to %" PRId64 "), and the outbox does not reach back to what is "
             "left. %s publishes what the outbox has, %s goes on behind what Kafka has: readers "
             "will hold a gap",
             e->batch.topic, lane->lane, id, look->published_offset, look->seen.low,
             look->seen.high, command(e, lane, "republish", again, sizeof again),
             command(e, lane, "restart", restart, sizeof restart));
    saga_engine_stop_lane(e, lane, why);
}

/* Kafka is behind, and the outbox reaches back to what Kafka has, or to the lane's first event.
 * -> 1, 0: it does not, SAGA_RETRY */
static int heal(struct saga_engine *e, struct saga_lane *lane, const struct saga_look *look,
                struct saga_err *err)
{
    struct saga_outbox_back back = {.oldest = lane->oldest, .offset = -1};
    int rc;

    if (!lane->oldest.seq)
        return 0;
    if (look->previous_there)
        back.offset = look->previous_at, back.id = lane->previous;
    else if (look->oldest_there)
        back.offset = look->oldest_at, back.id = lane->oldest;
    else if (lane->previous.seq)
        return 0;
    if ((rc = saga_outbox_set_back(e->pg, lane->lane, e->batch.topic, lane->term, &back, err)) < 0)
        return rc;
    if (rc == 0) { /* the outbox was rotated, or the lane is another's: from the beginning */
        saga_engine_want(e, lane, false);
        return 1;
    }
    saga_log_at(SAGA_WARN, "Kafka is behind: what it has lost is published again",
                "\"lane\":%d,\"from\":%" PRId64 ",\"to\":%" PRId64 ",\"lost_offset\":%" PRId64,
                lane->lane, back.published + 1, lane->last_seq, look->published_offset);
    saga_count(e->metric.healed, 1);
    lane->others = lane->out.published;
    saga_outgoing_reset(&lane->out); /* what is acknowledged from now on is behind what is lost */
    lane->out.published = back.published;
    lane->out.published_offset = back.offset;
    lane->out.published_id = back.id;
    lane->resend = true;
    e->renew = true; /* this producer's idea of the partition is that of the lost log */
    saga_engine_want(e, lane, true);
    return 1;
}

struct compare {
    const struct saga_look *look;
    bool other;
};

static void compare(void *owner, const struct saga_delivery *d, struct saga_id own)
{
    struct compare *c = owner;

    (void)d;
    for (int i = 0; own.seq && i < c->look->ids_n && !c->other; i++)
        c->other = c->look->ids[i].seq == own.seq && c->look->ids[i].term != own.term;
}

/* Another id at a sequence that the outbox holds: after a crash between publishing and storing the
 * same one is there. -> true, false, SAGA_RETRY */
static int is_other(struct saga_engine *e, const struct saga_lane *lane,
                    const struct saga_look *look, struct saga_err *err)
{
    struct compare c = {look, false};

    if (!lane->resend || look->seen.newest.seq <= lane->out.published)
        return false;
    int rc = saga_outbox_read(e->pg, lane->lane, lane->out.published, lane->last_seq,
                              e->batch.topic, compare, &c, err);
    if (rc == SAGA_FATAL)
        err->code = 0; /* rows are missing: publishing again says so */
    return rc == SAGA_RETRY ? rc : c.other;
}

static enum saga_finding judge_requests(const struct saga_engine *e, const struct saga_look *look)
{
    if (e->intake.source[0] || look->next_request < 0)
        return SAGA_FINE;
    if (look->next_request > look->high[0] || look->next_request < look->low[0])
        return SAGA_REQUESTS_LOST;
    return look->before && look->hash && look->hash != look->before ? SAGA_REQUESTS_LOST
                                                                    : SAGA_FINE;
}

/* -> finding, or SAGA_RETRY */
static int judge(struct saga_engine *e, const struct saga_lane *lane, const struct saga_look *look,
                 struct saga_err *err)
{
    enum saga_finding found =
        saga_seen_judge(&look->seen, look->published_offset, look->published_id, look->last_seq);

    if (found == SAGA_FINE && look->kind == SAGA_LOOK_WHOLE) {
        int other = is_other(e, lane, look, err);
        if (other < 0)
            return other;
        found = other ? SAGA_DATABASE_BEHIND : SAGA_FINE;
    }
    return found == SAGA_FINE ? judge_requests(e, look) : found;
}

static const char sql_terms[] = "select lane, term, last_seq from lane";

static const char sql_term[] = "select term from lane where lane = $1::bigint";

static int read_term(struct saga_engine *e, const struct saga_lane *lane, int64_t *term,
                     struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;

    saga_param_int(&p, lane->lane);
    int rc = saga_pg_query(e->pg, sql_term, &p, &rows, err);
    if (rc >= 0)
        *term = saga_rows_n(rows) ? saga_rows_int(rows, 0, 0) : -1;
    saga_rows_free(rows);
    saga_params_free(&p);
    return rc;
}

/* The second look found the same. */
static int act(struct saga_engine *e, struct saga_lane *lane, const struct saga_look *look,
               struct saga_err *err)
{
    int64_t term;
    int rc = 1;

    if (lane->found == SAGA_REQUESTS_LOST) {
        stop_requests(e, lane, look);
    } else if (lane->found == SAGA_KAFKA_BEHIND) {
        if ((rc = heal(e, lane, look, err)) == 0)
            stop_kafka(e, lane, look);
    } else if ((rc = read_term(e, lane, &term, err)) >= 0) {
        if (term == lane->term)
            stop_database(e, lane, look);
        else /* another owner has gone on meanwhile */
            saga_engine_want(e, lane, false);
    }
    if (lane->state == SAGA_LANE_STOPPED)
        saga_count(e->metric.found[lane->found], 1);
    return rc < 0 ? rc : 0;
}

/* A lane that is being taken. */
static int taken(struct saga_engine *e, struct saga_lane *lane, const struct saga_look *look,
                 struct saga_err *err)
{
    int found, rc = 0;

    if (look->rc < 0) { /* this partition does not answer: the others go on */
        lane->backoff = 0;
        saga_engine_want(e, lane, false);
        snprintf(lane->why, sizeof lane->why, "%s", look->text);
        return 0;
    }
    if ((found = judge(e, lane, look, err)) < 0)
        return found;
    if (found == SAGA_FINE)
        return saga_engine_start(e, lane, look, err);
    if (found == (int)lane->found)
        return act(e, lane, look, err);
    lane->found = (enum saga_finding)found;
    lane->look_at = saga_now() + e->conf->look_wait;
    snprintf(lane->why, sizeof lane->why,
             "Kafka and database differ: looked at again in %" PRId64 " ms",
             e->conf->look_wait / 1000);
    saga_log_at(SAGA_WARN, "Kafka and database differ: a second look decides",
                "\"lane\":%d,\"finding\":%d", lane->lane, found);
    if (found == SAGA_KAFKA_BEHIND)
        rc = saga_outbox_oldest(e->pg, lane->lane, e->batch.topic, &lane->oldest, &lane->previous,
                                err);
    return rc < 0 ? rc : 0;
}

/* A lane that runs: taking it looks twice. */
static void checked(struct saga_engine *e, struct saga_lane *lane, const struct saga_look *look)
{
    struct saga_err ignored = {0};

    if (look->rc < 0) {
        int64_t again = saga_now() + SECOND;
        e->look_at = e->look_at < again ? e->look_at : again;
        return;
    }
    if (judge(e, lane, look, &ignored) == SAGA_FINE)
        return;
    saga_log_at(SAGA_WARN, "Kafka lacks what it had acknowledged: the lane is taken again",
                "\"lane\":%d", lane->lane);
    lane->resend = true;
    saga_engine_want(e, lane, true);
}

static int looked_at(struct saga_engine *e, struct saga_lane *lane, const struct saga_look *look,
                     struct saga_err *err)
{
    int rc = 0;

    if (look->ticket != lane->ticket)
        return 0; /* of a taking that was given up */
    for (int t = 0; t < e->intake.topics && look->rc >= 0; t++)
        lane->end[t] = look->high[t];
    if (lane->state == SAGA_LANE_RUNNING)
        checked(e, lane, look);
    else if (lane->state == SAGA_LANE_LOOKING && (rc = taken(e, lane, look, err)) < 0)
        saga_engine_want(e, lane, false);
    return rc;
}

int saga_loss_judge(struct saga_engine *e, struct saga_err *err)
{
    struct saga_look *look;
    int rc = 0;

    while (rc >= 0 && (look = e->looked)) {
        e->looked = look->next;
        rc = look->kind == SAGA_LOOK_IDENTITY ? verify(e, look, err)
                                              : looked_at(e, &e->lane[look->lane], look, err);
        saga_look_free(look);
        saga_view_stale();
    }
    return rc;
}

/* ---- Inputs ---- */

void saga_loss_fork(struct saga_engine *e, struct saga_lane *lane, const struct saga_read *read)
{
    int t = read->topic;
    char *why = lane->forked[t], what[96], decide[160];

    snprintf(what, sizeof what, "accept-gap %s", e->intake.topic[t]);
    snprintf(why, SAGA_WHY,
             "fork: %s at %s/%d offset %" PRId64
             " does not follow what was applied: the history of "
             "its writer was restarted, or restored from an old copy. %s goes on with it",
             read->message.place, e->intake.topic[t], lane->lane, read->offset,
             command(e, lane, what, decide, sizeof decide));
    lane->work.input[t].stopped = true;
    saga_bus_pause(e->bus, t, lane->lane);
    saga_log_at(SAGA_ERROR, "input stopped", "\"lane\":%d,\"topic\":\"%s\"", lane->lane,
                e->intake.topic[t]);
    saga_log_text(SAGA_ERROR, "input stopped", why);
}

void saga_loss_gap(const struct saga_engine *e, const struct saga_lane *lane, int t, char *why)
{
    const struct saga_input *in = &lane->reader.input[t];
    char what[96], decide[160], last[SAGA_ID_TEXT] = "the first event", missing[SAGA_ID_TEXT];

    snprintf(what, sizeof what, "accept-gap %s", e->intake.topic[t]);
    command(e, lane, what, decide, sizeof decide);
    if (in->last.seq)
        saga_id_write(lane->lane, in->last, last);
    if (in->held >= 0) {
        saga_id_write(lane->lane, in->held_previous, missing);
        snprintf(
            why, SAGA_WHY,
            "a gap is open: the record of %s/%d at offset %" PRId64 " follows event %s, which "
            "is not there; %s was the last one applied%s. %s goes on with that record, without "
            "what is missing",
            e->intake.topic[t], lane->lane, in->held, in->held_previous.seq ? missing : "none",
            last, in->lost ? ", and records after it have expired" : "", decide);
    } else {
        snprintf(
            why, SAGA_WHY,
            "a gap is open: records of %s/%d from offset %" PRId64 " on have expired or were "
            "deleted before they were read, and nothing has come since (last applied: %s). When "
            "the next event is there, %s goes on with it",
            e->intake.topic[t], lane->lane, in->lost_at, in->last.seq ? last : "none", decide);
    }
}

/* A gap that is open after it was read again from the earliest record, and that was waited for. */
static void alarm_gaps(struct saga_engine *e, struct saga_lane *lane, int64_t now)
{
    for (int t = 0; t < e->intake.topics; t++) {
        const struct saga_input *in = &lane->reader.input[t];
        char why[SAGA_WHY];
        if (!saga_input_open(in))
            lane->alarmed[t] = false;
        if (!saga_input_open(in) || !in->rewound || lane->alarmed[t] ||
            now - in->held_since < 2 * e->conf->hold_wait)
            continue;
        lane->alarmed[t] = true;
        saga_loss_gap(e, lane, t, why);
        saga_log_text(SAGA_ERROR, "gap", why);
        saga_view_stale();
    }
}

/* ---- Once a second ---- */

/* Lanes that no batch looks at: idle or stopped. Another term is an operator's command, or an owner
 * that was expelled and died (attack 43); another last_seq another database (attack 44). */
static int compare_terms(struct saga_engine *e, struct saga_err *err)
{
    const struct saga_rows *rows;
    int rc;

    if ((rc = saga_pg_send(e->pg, sql_terms, NULL, err)) < 0 ||
        (rc = saga_pg_sync(e->pg, err)) < 0 || (rc = saga_engine_wait(e, err)) < 0)
        return rc;
    rows = saga_pg_result(e->pg, 0);
    for (int i = 0; i < saga_rows_n(rows); i++) {
        int64_t number = saga_rows_int(rows, i, 0);
        struct saga_lane *lane = number < e->lanes ? &e->lane[number] : NULL;
        if (!lane || (lane->state != SAGA_LANE_RUNNING && lane->state != SAGA_LANE_STOPPED) ||
            (lane->term == saga_rows_int(rows, i, 1) &&
             lane->last_seq == saga_rows_int(rows, i, 2)))
            continue;
        saga_log_at(SAGA_WARN, "its row was changed: the lane is taken again",
                    "\"lane\":%d,\"term\":%" PRId64 ",\"found\":%" PRId64, lane->lane, lane->term,
                    saga_rows_int(rows, i, 1));
        saga_engine_want(e, lane, lane->state == SAGA_LANE_STOPPED);
        lane->known = false;
    }
    return 0;
}

/* Kafka may have lost its tail, and others may write over it at once. Requests have no chain: nothing is
 * read before the record before them has been looked at, for after that it is another one. What was seen
 * before the connection was lost says nothing. */
void saga_loss_connection(struct saga_engine *e)
{
    e->look_at = 0;
    for (int32_t i = 0; i < e->lanes && e->service->requests; i++)
        if (e->lane[i].state == SAGA_LANE_RUNNING || e->lane[i].state == SAGA_LANE_LOOKING)
            saga_engine_want(e, &e->lane[i], true);
}

int saga_loss_watch(struct saga_engine *e, int64_t now, struct saga_err *err)
{
    if (!e->verified)
        ask_identity(e);
    if (now >= e->look_at) {
        e->look_at = now + e->conf->look_every;
        for (int32_t i = 0; i < e->lanes; i++)
            if (e->lane[i].state == SAGA_LANE_RUNNING || e->lane[i].state == SAGA_LANE_STOPPED)
                saga_engine_look(e, &e->lane[i], SAGA_LOOK_RECORD);
    }
    for (int32_t i = 0; i < e->lanes; i++)
        if (e->lane[i].state == SAGA_LANE_RUNNING)
            alarm_gaps(e, &e->lane[i], now);
    return saga_pg_connected(e->pg) ? compare_terms(e, err) : 0;
}
