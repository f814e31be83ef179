/* An operator's commands for a lane. See command.h.
 *
 * accept-gap  what is missing on an input is given up: the record that is held is taken for the next
 *             one. Of requests: read again from the earliest that is there.
 * republish   the events that the outbox has are published again.
 * restart     the lane goes on behind the newest event that Kafka has; what the outbox holds counts as
 *             published.
 * Each looks before it changes anything, and refuses (409) where there is nothing to decide; but for
 * republish, which harms nothing: what readers have seen they drop. */
#include "command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "look.h"
#include "outbox.h"
#include "peek.h"
#include "screen.h"

enum { ASK_MS = 2000, READ_MS = 20000 };

static const struct saga_conf *conf;
static const struct saga_service *service;
static const struct saga_view *view;
static struct saga_intake intake;
static char own_topic[80], own_source[80];

void saga_command_init(const struct saga_conf *settings, const struct saga_service *of,
                       const struct saga_view *shown)
{
    conf = settings;
    service = of;
    view = shown;
    snprintf(own_topic, sizeof own_topic, "%s.events", of->name);
    snprintf(own_source, sizeof own_source, "/%s-svc", of->name);
}

/* ---- What all have in common ---- */

static int64_t number_of(const char *text)
{
    size_t n = strspn(text, "0123456789");

    return n && n < 9 && !text[n] ? atoi(text) : -1;
}

/* -> the lane, or -1 after a refusal */
static int32_t lane_of(struct saga_request *req)
{
    const char *text = saga_path(req, "lane");
    int64_t lane = number_of(text);

    if (!intake.service)
        saga_intake_init(&intake, service, "");
    if (view->total() == 0)
        saga_reply_problem(req, 503, "Service Unavailable",
                           "%s-svc does not know its lanes yet: it waits for a server",
                           service->name);
    else if (lane < 0 || lane >= view->total())
        saga_reply_problem(req, 404, "Not Found", "%s-svc has no lane %.40s: they are 0 to %d",
                           service->name, text, view->total() - 1);
    else
        return (int32_t)lane;
    return -1;
}

static json_t *done(int32_t lane, const char *command, int64_t term)
{
    SAGA_FAILPOINT(lane_commanded);
    return json_pack("{s:o, s:i, s:s, s:I}", "service", json_sprintf("%s-svc", service->name),
                     "lane", (int)lane, "command", command, "term", (json_int_t)term);
}

static void set_id(json_t *o, const char *name, int32_t lane, struct saga_id id)
{
    char text[SAGA_ID_TEXT];

    if (id.seq)
        saga_id_write(lane, id, text);
    json_object_set_new(o, name, id.seq ? json_string(text) : json_null());
}

/* ---- accept-gap ---- */

/* The topic is the body's, or the only one that fits. -> its number, -1 after a refusal */
static int topic_of(struct saga_request *req, int32_t lane)
{
    size_t n;
    const char *text = saga_body(req, &n), *topic = NULL;
    json_t *body = n ? json_loadb(text, n, 0, NULL) : json_object();
    int found = -1, open = 0;

    if (!json_is_object(body)) {
        saga_reply_problem(req, 400, "Bad Request", "the body is no JSON object");
        json_decref(body);
        return -1;
    }
    topic = json_string_value(json_object_get(body, "topic"));
    if (topic) {
        for (int t = 0; t < intake.topics; t++)
            if (!strcmp(topic, intake.topic[t]))
                found = t;
        if (found < 0)
            saga_reply_problem(req, 404, "Not Found", "%s-svc does not read topic %.100s",
                               service->name, topic);
        json_decref(body);
        return found;
    }
    json_decref(body);
    int max = view->total();
    struct saga_lane_view *lanes =
        saga_arena_zero(saga_http_arena(req), (size_t)max * sizeof *lanes);
    max = view->lanes(lanes, max);
    for (int i = 0; i < max; i++)
        for (int t = 0; t < intake.topics && lanes[i].lane == lane; t++)
            if (lanes[i].input[t].held >= 0 || lanes[i].input[t].stopped ||
                (!intake.source[t] && strstr(lanes[i].why, "accept-gap"))) {
                found = t;
                open++;
            }
    if (open == 1)
        return found;
    saga_reply_problem(req, 409, "Conflict",
                       "which gap of lane %d is meant? This process %s: name the topic (\"sagactl "
                       "lanes\" shows what is held)",
                       lane, open ? "knows of several" : "knows of none");
    return -1;
}

static const char sql_input[] =
    "select next_offset, last_id from lane_input where lane = $1::bigint and topic = $2";

static const char sql_accept[] =
    "with raised as (update lane set term = " SAGA_TERM_RAISED
    " where lane = $1::bigint returning term),"
    " input as (update lane_input set next_offset = $3, last_id = $4"
    "            where lane = $1::bigint and topic = $2 and next_offset = $5"
    "              and last_id is not distinct from $6 returning 1)"
    " select term, 1 / (select count(*) from input) from raised";

/* What the chain says to the records from the stored position on, as the owner sees them. */
struct gap {
    struct saga_input input;
    int64_t next;  /* the missing event is here, -1: nowhere */
    uint64_t hash; /* requests: of the record before the position, 0: it is not there */
    bool fork;
    int64_t fork_at;
    struct saga_id fork_previous;
};

static bool took(struct saga_range *range, struct saga_record *record)
{
    static const struct saga_event *const none[] = {NULL};
    struct gap *gap = range->owner;
    struct saga_arena arena = {0};
    struct saga_message m;
    struct saga_err err = {0};
    const char *reason, *source = NULL;

    for (int t = 0; t < intake.topics; t++)
        if (!strcmp(range->topic, intake.topic[t]))
            source = intake.source[t];
    bool ours =
        saga_event_read(record, none, source, range->partition, &arena, &m, &reason, &err) >= 0;
    saga_arena_free(&arena);
    if (!ours)
        return true;
    switch (saga_input_screen(&gap->input, record->offset, m.id, m.previous, 0)) {
    case SAGA_NEXT:
        gap->next = record->offset;
        return false;
    case SAGA_FORK:
        gap->fork = true;
        gap->fork_at = record->offset;
        gap->fork_previous = m.previous;
        return false;
    default:
        return true;
    }
}

static bool took_request(struct saga_range *range, struct saga_record *record)
{
    struct gap *gap = range->owner;

    gap->hash = saga_record_hash(record);
    return false;
}

static int find_gap(struct saga_peek *peek, int t, int32_t lane, struct gap *gap,
                    struct saga_range *range, struct saga_err *err)
{
    *range = (struct saga_range){.topic = intake.topic[t], .partition = lane, .owner = gap};
    int rc = saga_peek_marks(peek, range, 1, ASK_MS, err);
    int64_t next = gap->input.next_offset;
    bool gone = next < range->low || next > range->high;
    if (rc < 0)
        return rc;
    if (!intake.source[t]) {
        range->from = gone || next == range->low ? 0 : next - 1;
        range->to = gone || next == range->low ? 0 : next;
        return saga_peek_read(peek, range, 1, took_request, READ_MS, err);
    }
    range->from = gone ? range->low : next;
    range->to = range->high;
    return saga_peek_read(peek, range, 1, took, READ_MS, err);
}

static int store_gap(struct saga_request *req, int32_t lane, int t, int64_t next, const char *last,
                     int64_t was_next, const char *was_last, int64_t *term, struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;

    saga_param_int(&p, lane);
    saga_param_text(&p, intake.topic[t]);
    saga_param_int(&p, next);
    saga_param_text(&p, last);
    saga_param_int(&p, was_next);
    saga_param_text(&p, was_last);
    int rc = saga_pg_query(saga_http_pg(req), sql_accept, &p, &rows, err);
    if (rc >= 0)
        *term = saga_rows_int(rows, 0, 0);
    saga_rows_free(rows);
    saga_params_free(&p);
    return rc;
}

/* -> false: there is nothing to accept, and that has been said */
static bool is_gap(struct saga_request *req, int t, int32_t lane, const struct gap *gap,
                   const struct saga_range *range)
{
    const char *topic = intake.topic[t];

    if (gap->next >= 0)
        saga_reply_problem(req, 409, "Conflict",
                           "no gap is open: the event that follows in %s/%d is at offset %" PRId64,
                           topic, lane, gap->next);
    else if (gap->fork || gap->input.held >= 0)
        return true;
    else if (gap->input.next_offset < range->low && range->low == range->high)
        saga_reply_problem(req, 409, "Conflict",
                           "%s/%d has expired up to offset %" PRId64 " and nothing has come since: "
                           "repeat this when the next event is there, it says what it follows",
                           topic, lane, range->low);
    else
        saga_reply_problem(req, 409, "Conflict",
                           "no gap is open in %s/%d: nothing there follows what is missing", topic,
                           lane);
    return false;
}

/* A failed statement of ours: the rows moved between looking and changing, or the database is away. */
static void refuse(struct saga_request *req, const struct saga_err *err)
{
    if (err->code == SAGA_POISON)
        saga_reply_problem(req, 409, "Conflict",
                           "the lane has moved meanwhile: look at it again (\"sagactl lanes\")");
    else
        saga_reply_error(req, err);
}

static void accept_events(struct saga_request *req, int t, int32_t lane, const struct gap *gap,
                          int64_t was_next, const char *was_last)
{
    struct saga_err err = {0};
    char last[SAGA_ID_TEXT];
    struct saga_id previous = gap->fork ? gap->fork_previous : gap->input.held_previous;
    int64_t at = gap->fork ? gap->fork_at : gap->input.held, term;

    if (previous.seq)
        saga_id_write(lane, previous, last);
    if (store_gap(req, lane, t, at, previous.seq ? last : NULL, was_next, was_last, &term, &err) <
        0) {
        refuse(req, &err);
        return;
    }
    json_t *o = done(lane, "accept-gap", term);
    json_object_set_new(o, "topic", json_string(intake.topic[t]));
    json_object_set_new(o, "next_offset", json_integer(at));
    set_id(o, "last_id", lane, previous);
    saga_reply(req, 200, o);
}

static void accept_requests(struct saga_request *req, int32_t lane, const struct gap *gap,
                            const struct saga_range *range, int64_t was_next, const char *was_last)
{
    struct saga_err err = {0};
    int64_t term;

    if (was_next >= range->low && was_next <= range->high &&
        (!was_last || !gap->hash || strtoull(was_last, NULL, 16) == gap->hash)) {
        saga_reply_problem(req, 409, "Conflict",
                           "no request of %s/%d is lost: the next one is at offset %" PRId64
                           ", Kafka has %" PRId64 " to %" PRId64,
                           intake.topic[0], lane, was_next, range->low, range->high);
        return;
    }
    if (store_gap(req, lane, 0, range->low, NULL, was_next, was_last, &term, &err) < 0) {
        refuse(req, &err);
        return;
    }
    json_t *o = done(lane, "accept-gap", term);
    json_object_set_new(o, "topic", json_string(intake.topic[0]));
    json_object_set_new(o, "next_offset", json_integer(range->low));
    saga_reply(req, 200, o);
}

static void accept_gap(struct saga_request *req)
{
    int32_t lane = lane_of(req);
    int t = lane < 0 ? -1 : topic_of(req, lane);
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_err err = {0};
    struct saga_range range;

    if (t < 0)
        return;
    saga_param_int(&p, lane);
    saga_param_text(&p, intake.topic[t]);
    int rc = saga_pg_query(saga_http_pg(req), sql_input, &p, &rows, &err);
    saga_params_free(&p);
    if (rc < 0) {
        saga_reply_error(req, &err);
        return;
    }
    if (saga_rows_n(rows) == 0) {
        saga_reply_problem(req, 409, "Conflict", "lane %d has never been taken", lane);
        saga_rows_free(rows);
        return;
    }
    int64_t next = saga_rows_int(rows, 0, 0);
    const char *last = saga_rows_text(rows, 0, 1);
    struct gap gap = {.input = {.next_offset = next, .screened = -1, .held = -1}, .next = -1};
    int32_t named;
    if (last && intake.source[t])
        saga_id_read(last, strlen(last), &named, &gap.input.last);
    struct saga_peek *peek = saga_peek_new(conf, &err);
    if (!peek || find_gap(peek, t, lane, &gap, &range, &err) < 0)
        saga_reply_error(req, &err);
    else if (!intake.source[t])
        accept_requests(req, lane, &gap, &range, next, last);
    else if (is_gap(req, t, lane, &gap, &range))
        accept_events(req, t, lane, &gap, next, last);
    saga_peek_free(peek);
    saga_rows_free(rows);
}

/* ---- republish ---- */

static void republish(struct saga_request *req)
{
    struct saga_outbox_back back = {.offset = -1};
    struct saga_err err = {0};
    int32_t lane = lane_of(req);

    if (lane < 0)
        return;
    int rc = saga_outbox_set_back(saga_http_pg(req), lane, own_topic, 0, &back, &err);
    if (rc < 0) {
        saga_reply_error(req, &err);
        return;
    }
    if (rc == 0) {
        saga_reply_problem(req, 409, "Conflict",
                           "the outbox holds no event of lane %d, and nothing else that is not "
                           "published",
                           lane);
        return;
    }
    json_t *o = done(lane, "republish", back.term);
    json_object_set_new(o, "published", json_integer(back.published));
    saga_reply(req, 200, o);
}

/* ---- restart ---- */

static const char sql_published[] =
    "select published_offset, published_id, last_seq, published from lane where lane = $1::bigint";

/* What an owner has written since we looked is not given up. */
static const char sql_restart[] =
    "update lane"
    "   set term = " SAGA_TERM_RAISED ", last_seq = greatest(last_seq, $2), last_id = $3,"
    "       published = greatest(last_seq, $2), published_offset = nullif($4, -1),"
    "       published_id = $3"
    " where lane = $1::bigint and last_seq = $5 and published = $6 returning term, last_seq";

struct restart {
    struct saga_look *look;
    int64_t published;
    enum saga_finding found;
};

/* The newest event that Kafka has of the lane: behind published_offset, or else anywhere. */
static int find_newest(struct restart *r, struct saga_err *err)
{
    struct saga_look *look = r->look;
    struct saga_peek *peek = saga_peek_new(conf, err);
    struct saga_range range = {.topic = own_topic, .partition = look->lane};
    int rc = peek ? saga_peek_marks(peek, &range, 1, ASK_MS, err) : SAGA_RETRY;

    look->seen.low = range.low;
    look->seen.high = range.high;
    if (rc >= 0 && look->published_offset < range.high)
        rc = saga_look_own(peek, &look, 1, own_topic, own_source, READ_MS, err);
    r->found =
        saga_seen_judge(&look->seen, look->published_offset, look->published_id, look->last_seq);
    if (rc >= 0 && !look->seen.newest.seq && look->published_offset >= 0) {
        look->published_offset = -1;
        rc = saga_look_own(peek, &look, 1, own_topic, own_source, READ_MS, err);
    }
    saga_peek_free(peek);
    return rc;
}

/* -> 1, 0: the lane has moved, or an error */
static int store_restart(struct saga_request *req, const struct restart *r, int64_t *term,
                         int64_t *last_seq, struct saga_err *err)
{
    const struct saga_seen *seen = &r->look->seen;
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    char id[SAGA_ID_TEXT];
    bool any = seen->newest.seq > 0;

    saga_param_int(&p, r->look->lane);
    saga_param_int(&p, seen->newest.seq);
    if (any)
        saga_id_write(r->look->lane, seen->newest, id);
    saga_param_text(&p, any ? id : NULL);
    saga_param_int(&p, any ? seen->newest_offset : -1);
    saga_param_int(&p, r->look->last_seq);
    saga_param_int(&p, r->published);
    int rc = saga_pg_query(saga_http_pg(req), sql_restart, &p, &rows, err);
    int n = rc < 0 ? 0 : saga_rows_n(rows);
    if (n) {
        *term = saga_rows_int(rows, 0, 0);
        *last_seq = saga_rows_int(rows, 0, 1);
    }
    saga_rows_free(rows);
    saga_params_free(&p);
    return rc < 0 ? rc : n;
}

/* -> 1, 0: lane has no row, or an error */
static int read_lane(struct saga_request *req, struct restart *r, struct saga_err *err)
{
    struct saga_look *look = r->look;
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;

    saga_param_int(&p, look->lane);
    int rc = saga_pg_query(saga_http_pg(req), sql_published, &p, &rows, err);
    saga_params_free(&p);
    int n = rc < 0 ? 0 : saga_rows_n(rows);
    if (n) {
        const char *id = saga_rows_text(rows, 0, 1);
        int32_t named;
        look->published_offset = saga_rows_null(rows, 0, 0) ? -1 : saga_rows_int(rows, 0, 0);
        if (id)
            saga_id_read(id, strlen(id), &named, &look->published_id);
        look->last_seq = saga_rows_int(rows, 0, 2);
        r->published = saga_rows_int(rows, 0, 3);
    }
    saga_rows_free(rows);
    return rc < 0 ? rc : n;
}

static bool is_stopped_here(struct saga_request *req, int32_t lane)
{
    struct saga_lane_view *lanes =
        saga_arena_zero(saga_http_arena(req), (size_t)view->total() * sizeof *lanes);
    int n = view->lanes(lanes, view->total());

    for (int i = 0; i < n; i++)
        if (lanes[i].lane == lane)
            return !strcmp(lanes[i].state, "stopped");
    return false;
}

static void pass_over(void *unused, const struct saga_delivery *d, struct saga_id own)
{
    (void)unused, (void)d, (void)own;
}

/* -> rows that were not sent and are all there, 0: there is none, SAGA_FATAL: some are missing, SAGA_RETRY */
static int count_unsent(struct saga_request *req, const struct restart *r, struct saga_err *err)
{
    return saga_outbox_read(saga_http_pg(req), r->look->lane, r->published, r->look->last_seq,
                            own_topic, pass_over, NULL, err);
}

static void restart_lane(struct saga_request *req, struct restart *r)
{
    struct saga_err err = {0};
    int64_t term, last_seq;
    int32_t lane = r->look->lane;
    int rc = read_lane(req, r, &err);

    if (rc == 0) {
        saga_reply_problem(req, 409, "Conflict", "lane %d has never been taken", lane);
        return;
    }
    if (rc > 0)
        rc = find_newest(r, &err);
    int unsent = rc >= 0 && r->found == SAGA_FINE ? count_unsent(req, r, &err) : 0;
    if (unsent == SAGA_RETRY)
        rc = unsent;
    if (rc >= 0 && r->found == SAGA_FINE && unsent != SAGA_FATAL && !is_stopped_here(req, lane)) {
        saga_reply_problem(req, 409, "Conflict",
                           "Kafka and database agree on lane %d, and this process has not stopped "
                           "it: there is nothing to give up",
                           lane);
        return;
    }
    if (unsent > 0) {
        saga_reply_problem(
            req, 409, "Conflict",
            "%d rows of lane %d are to be sent, and all are there: \"sagactl lane %s "
            "%d republish\" sends them, this command would give them up",
            unsent, lane, service->name, lane);
        return;
    }
    if (unsent == SAGA_FATAL)
        err.code = 0; /* some are missing, and given up */
    if (rc >= 0)
        rc = store_restart(req, r, &term, &last_seq, &err);
    if (rc == 0)
        err.code = SAGA_POISON;
    if (rc <= 0) {
        refuse(req, &err);
        return;
    }
    json_t *o = done(lane, "restart", term);
    json_object_set_new(o, "last_seq", json_integer(last_seq));
    set_id(o, "last_id", lane, r->look->seen.newest);
    saga_reply(req, 200, o);
}

static void restart(struct saga_request *req)
{
    int32_t lane = lane_of(req);
    struct restart r = {.look = saga_alloc(sizeof *r.look)};

    *r.look = (struct saga_look){.kind = SAGA_LOOK_WHOLE, .lane = lane, .published = INT64_MAX};
    if (lane >= 0)
        restart_lane(req, &r);
    saga_look_free(r.look);
}

const struct saga_route saga_command_routes[] = {
    {"POST", "/lanes/{lane}/accept-gap", accept_gap, SAGA_SEARCH},
    {"POST", "/lanes/{lane}/republish", republish, SAGA_SEARCH},
    {"POST", "/lanes/{lane}/restart", restart, SAGA_SEARCH},
    {0},
};
