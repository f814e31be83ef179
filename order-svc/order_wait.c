/* Those who asked to be answered when there is news of their order (Prefer: wait). Any process may own
 * its lane, so the database is looked at: by one thread, with one statement for all, 50 ms after the
 * last; by none while nobody waits. What is answered, and by which row, is decided in that statement,
 * hence in one snapshot: a request has been decided once the lane's input stands behind it, and
 * its effects, or its refusal, came with that.
 *
 * A request of HTTP is taken in order_wait() and given back in answer(); in between it is in the list,
 * to which anybody adds and from which only the thread takes. */
#include "order_http.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "metrics.h"

enum { LOOK_EVERY_MS = 50, WAITERS_MAX = 4096 };

static const char session[] =
    /* rows are asked for by their keys, whatever the statistics say */
    "set statement_timeout = '5s'; set enable_seqscan = off; set enable_hashjoin = off;"
    "set enable_mergejoin = off; set jit = off; set plan_cache_mode = force_generic_plan";

enum column { N, DONE, REASON, STATUS, ORDER, ORDER_STATE = ORDER + 2 };

/* $1 orders, $2 lanes and $3 offsets of requests (-1: of none), $4 ids of requests, $5 1: the time is
 * up. A row for each whose waiting is over. */
/* clang-format off */
static const char sql_look[] =
    "select w.n, d.done, r.reason, r.status, " ORDER_COLUMNS
    "  from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[])"
    "       with ordinality w(order_id, lane, place, request_id, last, n)"
    "  left join refusal r on r.request_id = w.request_id"
    "  left join lane_input i on i.lane = w.lane and i.topic = 'order.requests'"
    "  left join orders o on o.order_id = w.order_id"
    " cross join lateral (select o.state not in ('CREATED', 'CANCELLING')"
    "                        and (w.place < 0 or (i.next_offset > w.place and not exists"
    "                             (select from parked p where p.key = w.order_id))) as done) d"
    " where d.done or r.request_id is not null or w.last = 1";
/* clang-format on */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t came;
    struct order_wait *first; /* newest first */
    int n;
    bool started;
    struct order_wait **at; /* as they were passed in $1..$5; the thread's */
    int cap;
    saga_cell_t *waiting, *looks;
} here = {.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER};

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- RFC 7240 ---- */

/* "wait = 10 ; x=y" up to a comma. -> seconds, -1: it says something else */
static int wait_of(const char *s, size_t n)
{
    const char *end = s + n;
    int seconds = 0;

    s += strspn(s, " \t");
    if (end - s < 4 || strncasecmp(s, "wait", 4) != 0)
        return -1;
    s += 4;
    s += strspn(s, " \t");
    if (s >= end || *s++ != '=')
        return -1;
    s += strspn(s, " \t");
    bool quoted = s < end && *s == '"';
    const char *digits = s += quoted;
    for (; s < end && *s >= '0' && *s <= '9'; s++)
        seconds = seconds > ORDER_WAIT_MAX ? seconds : seconds * 10 + (*s - '0');
    if (s == digits || (quoted && *s++ != '"'))
        return -1;
    s += strspn(s, " \t");
    return s >= end || *s == ';' ? seconds : -1;
}

int order_prefers_wait(const char *prefer)
{
    int seconds = -1;

    while (prefer && seconds < 0) {
        size_t n = strcspn(prefer, ",");
        seconds = wait_of(prefer, n);
        prefer = prefer[n] ? prefer + n + 1 : NULL;
    }
    return seconds > ORDER_WAIT_MAX ? ORDER_WAIT_MAX : seconds;
}

/* ---- Looking ---- */

static void put_waiters(struct saga_params *p, int n, int64_t now)
{
    bool stop = saga_http_stopping();

    saga_params_reset(p);
    saga_param_array(p, SAGA_OID_TEXT);
    for (int i = 0; i < n; i++)
        saga_element_text(p, here.at[i]->order_id, -1);
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_INT8);
    for (int i = 0; i < n; i++)
        saga_element_int(p, here.at[i]->lane);
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_INT8);
    for (int i = 0; i < n; i++)
        saga_element_int(p, here.at[i]->offset);
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_TEXT);
    for (int i = 0; i < n; i++)
        saga_element_text(p, here.at[i]->request_id, -1);
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_INT8);
    for (int i = 0; i < n; i++)
        saga_element_int(p, here.at[i]->over = stop || now >= here.at[i]->until);
    saga_param_array_end(p);
}

/* Those that wait now. -> how many */
static int gather(void)
{
    int n = 0;

    pthread_mutex_lock(&here.lock);
    while (here.n == 0)
        pthread_cond_wait(&here.came, &here.lock);
    if (here.n > here.cap) {
        here.cap = here.n;
        here.at = saga_realloc(here.at, (size_t)here.cap * sizeof *here.at);
    }
    for (struct order_wait *w = here.first; w; w = w->next)
        here.at[n++] = w;
    pthread_mutex_unlock(&here.lock);
    return n;
}

static void answer(struct order_wait *w, const struct saga_rows *rows, const struct saga_err *err)
{
    struct saga_request *req = w->req;
    bool seen = w->row >= 0, found = seen && !saga_rows_null(rows, w->row, ORDER);
    bool done = found && saga_rows_bool(rows, w->row, DONE);

    if (seen && !saga_rows_null(rows, w->row, REASON)) {
        order_reply_rejected(req, w->request, w->order_id, saga_rows_text(rows, w->row, REASON),
                             saga_rows_text(rows, w->row, STATUS), w->by_key);
    } else if (w->request && !done) {
        order_reply_accepted(req, w, found ? saga_rows_text(rows, w->row, ORDER_STATE) : NULL);
    } else if (found) {
        json_t *order = order_json(rows, w->row, ORDER);
        if (w->request_id)
            json_object_set_new(order, "request_id", json_string(w->request_id));
        saga_reply(req, 200, order);
    } else if (rows) {
        order_reply_unknown(req, w->order_id);
    } else {
        saga_reply_error(req, err);
    }
    saga_answered(req);
}

/* Takes those out of the list whose waiting is over, and answers them. rows: NULL, the database does
 * not answer. */
static void settle(int n, const struct saga_rows *rows, const struct saga_err *err)
{
    struct order_wait *over = NULL, *next;

    for (int i = 0; i < n; i++)
        here.at[i]->row = -1;
    for (int i = 0; rows && i < saga_rows_n(rows); i++)
        here.at[saga_rows_int(rows, i, N) - 1]->row = i;
    pthread_mutex_lock(&here.lock);
    for (struct order_wait **at = &here.first; *at;) {
        struct order_wait *w = *at;
        if (w->row < 0 && !w->over) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = over;
        over = w;
        here.n--;
    }
    saga_gauge(here.waiting, here.n);
    pthread_mutex_unlock(&here.lock);
    for (; over; over = next) {
        next = over->next;
        answer(over, rows, err);
    }
}

static void *run(void *unused)
{
    static const struct timespec pause = {.tv_nsec = LOOK_EVERY_MS * 1000000L};
    struct saga_pg *pg = saga_http_session();
    struct saga_params p = {0};

    (void)unused;
    saga_pg_session(pg, session);
    while (true) {
        struct saga_rows *rows = NULL;
        struct saga_err err = {0};
        int n = gather();
        put_waiters(&p, n, now_ms());
        saga_count(here.looks, 1);
        if (saga_pg_query(pg, sql_look, &p, &rows, &err) < 0)
            rows = NULL;
        for (int i = 0; !rows && i < n; i++) /* it may have taken long */
            here.at[i]->over |= saga_http_stopping() || now_ms() >= here.at[i]->until;
        settle(n, rows, &err);
        saga_rows_free(rows);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* ---- From outside ---- */

static void start(void)
{
    pthread_t thread;

    here.started = true;
    here.waiting = saga_metric("saga_waiting", "", "Requests of HTTP held by Prefer: wait");
    here.looks = saga_metric("saga_waiting_looks_total", "", "Looks for news of their orders");
    if (pthread_create(&thread, NULL, run, NULL) != 0)
        _exit(70); /* out of threads */
    pthread_detach(thread);
}

bool order_wait(struct order_wait *w)
{
    char applied[24];

    w->until = now_ms() + w->seconds * 1000;
    pthread_mutex_lock(&here.lock);
    if (!here.started)
        start();
    bool room = here.n < WAITERS_MAX && here.n < saga_http_room() / 2 && !saga_http_stopping();
    if (room) {
        snprintf(applied, sizeof applied, "wait=%d", w->seconds);
        saga_reply_header(w->req, "Preference-Applied", applied);
        saga_later(w->req); /* of a handler; on the posting thread it has been said */
        w->row = -1;        /* it may come while the others are looked for */
        w->over = false;
        w->next = here.first;
        here.first = w;
        saga_gauge(here.waiting, ++here.n);
        pthread_cond_signal(&here.came);
    }
    pthread_mutex_unlock(&here.lock);
    return room;
}
