/* Moves, and schedules of them. See move.h. */
#include "move.h"

#include <stdio.h>
#include <stdlib.h>

#include "order-svc/order.h"
#include "play.h"

enum { MOST = 1000000, ROUNDS_MAX = 2000, PAIR_FAR = 8 };

const char *const move_names[MOVE_KINDS] = {
    [MOVE_STOCK] = "stock set",
    [MOVE_REQUEST] = "requests",
    [MOVE_READ] = "reads",
    [MOVE_STALE] = "requests read again",
    [MOVE_REPLY] = "answers",
    [MOVE_DUE] = "deadlines",
    [MOVE_COMMIT] = "batches",
    [MOVE_TWICE] = "batches decided twice",
    [MOVE_ABORT] = "rolled back",
    [MOVE_SEND] = "sent",
    [MOVE_ACK] = "acknowledged",
    [MOVE_LOSE] = "records lost",
    [MOVE_TAKE] = "lanes taken",
    [MOVE_ZOMBIE] = "old owners sending",
    [MOVE_REWIND] = "positions lost",
    [MOVE_OVERDUE] = "gaps overdue",
    [MOVE_RELOAD] = "rows loaded",
    [MOVE_CALL] = "calls",
    [MOVE_AGAIN] = "calls made twice",
    [MOVE_GONE] = "calls never made",
    [MOVE_COPY] = "records copied",
    [MOVE_APPEND] = "rubbish",
    [MOVE_CLOCK] = "clock",
};
const bool move_is_fault[MOVE_KINDS] = {
    [MOVE_STALE] = true,  [MOVE_TWICE] = true,  [MOVE_ABORT] = true,  [MOVE_LOSE] = true,
    [MOVE_TAKE] = true,   [MOVE_ZOMBIE] = true, [MOVE_REWIND] = true, [MOVE_OVERDUE] = true,
    [MOVE_RELOAD] = true, [MOVE_AGAIN] = true,  [MOVE_COPY] = true,   [MOVE_APPEND] = true,
};

/* ---- One move ---- */

bool move_open(const struct service *s)
{
    for (int l = 0; l < LANES; l++)
        if (s->lane[l].in_batch)
            return true;
    return false;
}

/* An owner's memory is lost with its open batch. */
static void close_batch(struct sim_world *w, int service)
{
    if (move_open(&w->service[service]))
        sim_abort(w, service);
}

static bool due(struct sim_world *w, const struct move *m)
{
    const struct saga_row *row = sim_row(w, m->service, m->key);

    if (!row || !row->due)
        return false;
    if (m->n && row->due > w->now)
        w->now = row->due;
    sim_due(w, m->service, m->key);
    return true;
}

static bool reply(struct sim_world *w, const char *key, int n)
{
    for (int i = 0; i < w->reply_n; i++)
        if (!strcmp(w->reply[i].key, key) && n-- == 0) {
            sim_reply(w, i);
            return true;
        }
    return false;
}

static bool decide_twice(struct sim_world *w, int service)
{
    struct service *s = &w->service[service];

    sim_decide(w, service);
    if (w->failed[0])
        return true;
    uint64_t hash = sim_hash(w, service);
    for (int l = 0; l < LANES; l++)
        s->batch.writer[l] =
            (struct saga_writer){l, s->lane[l].term, s->lane[l].last_seq, s->lane[l].last};
    sim_decide(w, service);
    if (hash != sim_hash(w, service))
        sim_fail(w, "a batch decided twice is not the same");
    return true;
}

static bool finish(struct sim_world *w, const struct move *m)
{
    if (!move_open(&w->service[m->service]))
        return false;
    if (m->kind == MOVE_TWICE)
        decide_twice(w, m->service);
    else
        sim_decide(w, m->service);
    if (w->failed[0])
        return true;
    if (m->kind == MOVE_ABORT)
        sim_abort(w, m->service);
    else
        sim_commit(w, m->service);
    return true;
}

static bool is_meant(const struct pending *p, const struct move *m)
{
    bool charge = !strcmp(p->call.call->type, "charge");

    return !strcmp(p->call.key, m->key) && (m->kind != MOVE_GONE || p->orphan) &&
           !(m->input & (charge ? MOVE_REFUND : MOVE_CHARGE)) &&
           !(m->input & (p->orphan ? MOVE_LIVE : MOVE_ORPHAN));
}

static bool call(struct sim_world *w, const struct move *m)
{
    for (int i = 0; i < w->pending_n; i++) {
        if (!is_meant(&w->pending[i], m))
            continue;
        if (m->kind == MOVE_AGAIN) {
            ROOM_FOR(w->pending, w->pending_n, w->pending_cap);
            w->pending[w->pending_n++] = w->pending[i];
        } else
            sim_call(w, i, m->kind == MOVE_GONE ? NEVER : (enum how)m->n);
        return true;
    }
    return false;
}

/* By somebody's tool. A request copied by kafka-console-producer has no headers. */
static bool copy(struct sim_world *w, const struct move *m)
{
    const struct partition *p = &w->topic[(int)m->input][(int)m->lane];

    if (m->at >= p->n)
        return false;
    struct entry of = p->at[m->at];
    sim_move(w, "# copy of %s/%d/%lld", topic_names[(int)m->input], m->lane, (long long)m->at);
    if (m->input == REQUESTS)
        of.record.headers_n = 0;
    int64_t at = sim_append(w, (enum topic)m->input, m->n, &of.record);
    struct entry *entry = &w->topic[(int)m->input][m->n].at[at];
    entry->event = of.event;
    entry->own = of.own;
    entry->previous = of.previous;
    return true;
}

static void append(struct sim_world *w, const struct move *m)
{
    sim_append(w, (enum topic)m->input, m->lane,
               &(struct saga_record){.value = m->text, .value_n = m->text ? strlen(m->text) : 0});
}

/* Never one above what was read: that would be a request lost. */
static bool stale(struct sim_world *w, const struct move *m)
{
    const struct lane *lane = &w->service[m->service].lane[(int)m->lane];
    const struct saga_reader *reader = lane->in_batch ? &lane->work : &lane->reader;

    if (m->at >= w->topic[REQUESTS][(int)m->lane].n ||
        m->at > reader->input[(int)m->input].next_offset)
        return false;
    sim_read_stale(w, m->service, m->lane, m->input, m->at);
    return true;
}

static bool overdue(struct sim_world *w, const struct move *m)
{
    close_batch(w, m->service);
    sim_overdue(w, m->service, m->lane, m->input);
    return true;
}

static bool rewind_to(struct sim_world *w, const struct move *m)
{
    close_batch(w, m->service);
    if (m->at > w->service[m->service].lane[(int)m->lane].reader.input[(int)m->input].next_offset)
        return false;
    sim_rewind(w, m->service, m->lane, m->input, m->at);
    return true;
}

bool move_make(struct sim_world *w, const struct move *m)
{
    switch (m->kind) {
    case MOVE_STOCK:
        sim_stock(w, m->key, m->n);
        return true;
    case MOVE_REQUEST:
        sim_request(w, m->lane, m->key, m->text);
        return true;
    case MOVE_READ:
        return sim_unread(w, m->service, m->lane, m->input) > 0 &&
               sim_read(w, m->service, m->lane, m->input, m->n) > 0;
    case MOVE_STALE:
        return stale(w, m);
    case MOVE_REPLY:
        return reply(w, m->key, m->n);
    case MOVE_DUE:
        return due(w, m);
    case MOVE_COMMIT:
    case MOVE_TWICE:
    case MOVE_ABORT:
        return finish(w, m);
    case MOVE_SEND:
        return sim_send(w, m->service, m->lane, m->n) > 0;
    case MOVE_ACK:
        sim_ack(w, m->service, m->lane, m->n);
        return true;
    case MOVE_LOSE:
        return sim_lose(w, m->service, m->lane,
                        m->at > w->service[m->service].lane[(int)m->lane].out.known_offset
                            ? -1 /* it could be true */
                            : m->at);
    case MOVE_TAKE:
        close_batch(w, m->service);
        sim_take(w, m->service, m->lane, m->n);
        return true;
    case MOVE_ZOMBIE:
        return sim_zombie(w, m->service, m->lane, m->n) > 0;
    case MOVE_REWIND:
        return rewind_to(w, m);
    case MOVE_OVERDUE:
        return overdue(w, m);
    case MOVE_RELOAD:
        close_batch(w, m->service);
        sim_reload(w, m->service, m->lane);
        return true;
    case MOVE_CALL:
    case MOVE_AGAIN:
    case MOVE_GONE:
        return call(w, m);
    case MOVE_COPY:
        return copy(w, m);
    case MOVE_APPEND:
        append(w, m);
        return true;
    case MOVE_CLOCK:
        w->now += m->at;
        return true;
    case MOVE_KINDS:
        break;
    }
    return false;
}

/* ---- Schedules ---- */

void schedule_add(struct schedule *s, struct move move)
{
    if (move.key)
        move.key = saga_arena_text(&s->texts, move.key, strlen(move.key));
    if (move.text)
        move.text = saga_arena_text(&s->texts, move.text, strlen(move.text));
    ROOM_FOR(s->move, s->n, s->cap);
    s->move[s->n++] = move;
}

void schedule_clear(struct schedule *s)
{
    s->n = 0;
    saga_arena_reset(&s->texts);
}

void schedule_free(struct schedule *s)
{
    free(s->move);
    saga_arena_free(&s->texts);
    *s = (struct schedule){0};
}

static void heal(struct sim_world *w)
{
    for (int i = 0; i < SERVICES; i++) {
        close_batch(w, i);
        for (int l = 0; l < LANES; l++) {
            while (w->service[i].lane[l].zombies)
                sim_zombie(w, i, l, MOST);
            if (w->service[i].lane[l].lost)
                sim_take(w, i, l, false);
        }
    }
}

static bool next_due(struct sim_world *w, bool expiring)
{
    int64_t payment = play_next_due(w, PAYMENT), order = play_next_due(w, ORDER);

    if (order > w->now && !expiring)
        order = 0; /* these customers have time left when the world ends */
    int64_t at = payment && (!order || payment < order) ? payment : order;
    if (!at)
        return false;
    if (at > w->now)
        w->now = at;
    bool any = play_due(w, PAYMENT);
    return play_due(w, ORDER) || any;
}

void schedule_drain(const struct schedule *s, struct sim_world *w)
{
    int rounds = 0;

    heal(w);
    do {
        play_settle(w);
        if (rounds++ > ROUNDS_MAX)
            sim_fail(w, "it never comes to rest");
    } while (!w->failed[0] && next_due(w, s->expiring));
    if (!w->failed[0])
        check_end(w);
}

bool schedule_play(const struct schedule *s, struct sim_world *w, bool tracing)
{
    sim_init(w, tracing);
    w->moves = tracing;
    order_pay_timeout = s->pay_timeout;
    for (int i = 0; i < s->n && !w->failed[0]; i++)
        move_make(w, &s->move[i]);
    if (!w->failed[0])
        schedule_drain(s, w);
    return !w->failed[0];
}

/* ---- Shrinking ---- */

/* Drops n moves from from on and one more, far behind them (0: none), if it fails all the same. */
static bool dropped(struct schedule *s, int from, int n, int far)
{
    struct sim_world *w = saga_alloc(sizeof *w);
    struct schedule shorter = *s;

    shorter.move = saga_alloc((size_t)s->n * sizeof *s->move);
    shorter.n = 0;
    for (int i = 0; i < s->n; i++)
        if (i < from || (i >= from + n && (!far || i != from + far)))
            shorter.move[shorter.n++] = s->move[i];
    bool well = schedule_play(&shorter, w, false);
    sim_free(w);
    free(w);
    if (well) {
        free(shorter.move);
        return false;
    }
    free(s->move);
    s->move = shorter.move;
    s->n = shorter.n;
    s->cap = s->n + 1;
    return true;
}

/* Halves, quarters, ... and single moves, from the end; then two that make sense only together (a
 * read and its commit); again until nothing can be dropped. */
int schedule_shrink(struct schedule *s)
{
    int played = 0, before;

    do {
        before = s->n;
        for (int size = (s->n + 1) / 2; size > 0; size /= 2)
            for (int from = s->n - size; from >= 0; from -= size, played++)
                if (dropped(s, from, size, 0) && from > s->n)
                    from = s->n;
        for (int far = 1; far <= PAIR_FAR; far++)
            for (int from = s->n - far - 1; from >= 0; from--, played++)
                if (dropped(s, from, 1, far) && from > s->n - far)
                    from = s->n - far;
    } while (s->n < before);
    return played;
}

void schedule_print(const struct schedule *s)
{
    struct sim_world *w = saga_alloc(sizeof *w);

    schedule_play(s, w, true);
    printf("%.*s\n", (int)w->trace.n, w->trace.at);
    fflush(stdout);
    sim_free(w);
    free(w);
}
