/* The world's moves but for publishing: producers, and the batches of the services. See sim.h. */
#include "sim.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "field.h"

const char *const topic_names[TOPICS] = {"order.requests", "order.events", "inventory.events",
                                         "payment.events", "order.dlq",    "inventory.dlq",
                                         "payment.dlq"};
const int sim_topic[SERVICES] = {ORDER_EVENTS, INVENTORY_EVENTS, PAYMENT_EVENTS};
static const struct sim_service *const sims[SERVICES] = {&sim_order, &sim_inventory, &sim_payment};
#define HISTORY "5b0f3c52-0e0b-4e0c-9c6a-1f0d2e8a7741"

struct sim_broken sim_broken;

enum { ROW_MAX = 1024 };

/* ---- Saying ---- */

void sim_fail(struct sim_world *w, const char *format, ...)
{
    va_list args;

    if (w->failed[0])
        return;
    va_start(args, format);
    vsnprintf(w->failed, sizeof w->failed, format, args);
    va_end(args);
    sim_say(w, "!! %s", w->failed);
}

void sim_say(struct sim_world *w, const char *format, ...)
{
    char line[2048];
    va_list args;

    if (!w->tracing)
        return;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    saga_buf_add(&w->trace, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1);
    saga_buf_add(&w->trace, "\n", 1);
}

/* ---- Rules, each cell within a probe ---- */

static struct service *service_of(struct saga_batch *b)
{
    return (struct service *)(void *)((char *)b - offsetof(struct service, batch));
}

/* The type of an event as it was written. */
static const char *type_of(struct saga_batch *b, int i, char *out, size_t size)
{
    const struct saga_out *o = &b->out[i];
    const char *at = memmem(b->values.at + o->at, o->n, "\"type\":\"", 8);

    assert(at);
    snprintf(out, size, "%.*s", (int)strcspn(at + 8, "\""), at + 8);
    return out;
}

static saga_cell *cell_of(const struct service *s, int rule, int state)
{
    const struct sim_broken *b = &sim_broken;

    return b->input == s->real[rule].input && b->service == s->number && b->state == state
               ? b->cell
               : s->real[rule].cell[state];
}

static void probe(struct saga_step *step)
{
    struct saga_batch *b = step->batch;
    struct service *s = service_of(b);
    const struct saga_row *row = step->row;
    size_t size = s->as.orders->size;
    struct note note = {b->deciding, step->key, step->id,  0, row->state, 0,
                        b->out_n,    0,         b->call_n, 0, NULL};
    _Alignas(16) char was[ROW_MAX];
    char type[64];

    assert(size <= sizeof was);
    memcpy(was, row, size);
    while (s->real[note.rule].input != step->input)
        note.rule++;
    cell_of(s, note.rule, note.before)(step);
    row = step->row;
    note.after = row->state;
    note.out_n = b->out_n - note.out;
    note.call_n = b->call_n - note.call;
    if (s->sim->judge)
        note.wrong =
            s->sim->judge(step, was, note.out_n ? type_of(b, note.out, type, sizeof type) : NULL);
    ROOM_FOR(s->note, s->note_n, s->note_cap);
    s->note[s->note_n++] = note;
}

/* ---- A world's life ---- */

static void init_service(struct sim_world *w, struct service *s, int number)
{
    const struct sim_service *sim = sims[number];
    int n = 0;

    s->number = number;
    s->sim = sim;
    s->real = sim->service->rules;
    for (; s->real[n].input; n++) {
        assert(n + 1 < RULES_MAX);
        s->probes[n].input = s->real[n].input;
        for (int i = 0; i < SAGA_STATES; i++)
            s->probes[n].cell[i] = probe;
    }
    s->as = *sim->service;
    s->as.rules = s->probes;
    saga_intake_init(&s->intake, &s->as, HISTORY);
    saga_batch_init(&s->batch, &s->as, LANES, HISTORY);
    for (int i = 0; i < LANES; i++) {
        struct lane *lane = &s->lane[i];
        for (int t = 0; t < SAGA_READS_MAX; t++)
            lane->stored[t] = (struct saga_input){.screened = -1, .held = -1};
        lane->published_offset = -1;
        sim_take(w, number, i, false);
    }
}

void sim_init(struct sim_world *w, bool tracing)
{
    *w = (struct sim_world){.now = INT64_C(1795513885000000), .tracing = tracing};
    for (int i = 0; i < SERVICES; i++)
        init_service(w, &w->service[i], i);
}

void sim_free(struct sim_world *w)
{
    for (int i = 0; i < SERVICES; i++) {
        struct service *s = &w->service[i];
        saga_intake_free(&s->intake);
        saga_batch_free(&s->batch);
        for (int l = 0; l < LANES; l++) {
            free(s->lane[l].outbox);
            free(s->lane[l].offsets);
            free(s->lane[l].out.ring);
        }
        free(s->note);
        free(s->first);
    }
    for (int t = 0; t < TOPICS; t++)
        for (int p = 0; p < LANES; p++)
            free(w->topic[t][p].at);
    free(w->pending), free(w->ledger), free(w->reply), free(w->tale), free(w->moved);
    saga_buf_free(&w->trace);
    saga_arena_free(&w->arena);
}

/* ---- Looking ---- */

int sim_lane(const char *key)
{
    return saga_lane_of(key, strlen(key), LANES);
}

struct tale *sim_tale(struct sim_world *w, const char *key)
{
    for (int i = 0; i < w->tales; i++)
        if (!strcmp(w->tale[i].key, key))
            return &w->tale[i];
    ROOM_FOR(w->tale, w->tales, w->tale_cap);
    w->tale[w->tales] = (struct tale){.key = saga_arena_text(&w->arena, key, strlen(key))};
    return &w->tale[w->tales++];
}

const void *sim_row(const struct sim_world *w, int service, const char *key)
{
    const struct saga_slot *slot = saga_slots_find(&w->service[service].batch.orders, key);

    return slot ? slot->row : NULL;
}

const char *sim_state(const struct sim_world *w, int service, const char *key)
{
    const struct saga_row *row = sim_row(w, service, key);

    return w->service[service].as.states[row ? row->state : 0];
}

/* ---- Producers ---- */

static const char *copy(struct sim_world *w, const char *s, size_t n)
{
    return s ? saga_arena_text(&w->arena, s, n) : NULL;
}

int64_t sim_append(struct sim_world *w, enum topic topic, int partition,
                   const struct saga_record *record)
{
    struct partition *p = &w->topic[topic][partition];
    struct saga_header *headers =
        saga_arena_alloc(&w->arena, (size_t)record->headers_n * sizeof *headers);

    ROOM_FOR(p->at, p->n, p->cap);
    struct entry *e = &p->at[p->n];
    *e = (struct entry){.record = *record, .asked = topic == REQUESTS};
    e->record.topic = topic_names[topic];
    e->record.partition = partition;
    e->record.offset = p->n;
    e->record.time_ms = w->now / 1000;
    e->record.key = copy(w, record->key, record->key_n);
    e->record.value = copy(w, record->value, record->value_n);
    for (int i = 0; i < record->headers_n; i++) {
        headers[i] = record->headers[i];
        headers[i].value = copy(w, headers[i].value, headers[i].n);
    }
    e->record.headers = headers;
    return p->n++;
}

int64_t sim_request(struct sim_world *w, int partition, const char *key, const char *value)
{
    if (partition < 0)
        partition = sim_lane(key);
    sim_move(w, "# request to %d: %s", partition, value);
    return sim_append(
        w, REQUESTS, partition,
        &(struct saga_record){
            .key = key, .key_n = key ? strlen(key) : 0, .value = value, .value_n = strlen(value)});
}

void sim_stock(struct sim_world *w, const char *sku, int64_t available)
{
    struct saga_batch *b = &w->service[INVENTORY].batch;
    struct saga_slot *slot = saga_batch_row(b, &b->shared, sku);

    sim_move(w, "# stock of %s := %lld", sku, (long long)available);
    if (!slot->row) {
        struct saga_row *row = saga_arena_zero(&b->arena, b->shared.table->size);
        row->key = slot->key;
        slot->row = row;
    }
    stock_put(slot->row, available);
}

/* ---- A batch ---- */

static struct lane *join(struct service *s, int number)
{
    struct lane *lane = &s->lane[number];

    if (lane->in_batch)
        return lane;
    lane->in_batch = true;
    lane->work = lane->reader;
    lane->work.forwarded = lane->work_forwarded;
    memcpy(lane->work_forwarded, lane->forwarded, sizeof lane->forwarded);
    s->batch.writer[number] = (struct saga_writer){number, lane->term, lane->last_seq, lane->last};
    return lane;
}

static struct partition *source(struct sim_world *w, const struct service *s, int lane, int input)
{
    int t = 0;

    while (strcmp(topic_names[t], s->intake.topic[input]))
        t++;
    return &w->topic[t][lane];
}

int sim_unread(struct sim_world *w, int service, int lane, int input)
{
    const struct service *s = &w->service[service];
    const struct lane *l = &s->lane[lane];
    const struct saga_reader *reader = l->in_batch ? &l->work : &l->reader;

    return source(w, s, lane, input)->n - (int)reader->input[input].next_offset;
}

static void no_more_headers(void *owner, struct saga_record *record)
{
    (void)owner, (void)record; /* they are there */
}

static const char *const screened[] = {"next",   "passed", "duplicate", "gap", "read again later",
                                       "a fork", "refused"};

static enum saga_screened screen(struct sim_world *w, struct service *s, int number, int input,
                                 int64_t offset)
{
    struct lane *lane = join(s, number);
    struct entry *entry = &source(w, s, number, input)->at[offset];
    struct saga_record record = entry->record;
    struct saga_read read;

    saga_intake_read(&s->intake, input, LANES, &record, no_more_headers, NULL, &s->batch.arena,
                     &read);
    enum saga_screened what = saga_screen(&s->intake, &s->batch, &lane->work, &read, w->now);
    if (what == SAGA_FORKED || read.message.refused)
        sim_fail(w, "%s-svc, %s/%d/%lld: %s: %s", s->as.name, record.topic, number,
                 (long long)offset, screened[what], read.detail ? read.detail : "");
    else if (what != SAGA_APPLIED && what != SAGA_PASSED)
        sim_say(w, "%s %s/%d/%lld: %s", s->as.name, record.topic, number, (long long)offset,
                screened[what]);
    if (what != SAGA_IGNORED)
        lane->moved[input] = true;
    if (read.bad && s->intake.source[input])
        entry->bad |= 1u << s->number;
    w->duplicates += what == SAGA_DROPPED;
    w->gaps += what == SAGA_HELD;
    return what;
}

int sim_read(struct sim_world *w, int service, int lane, int input, int k)
{
    struct service *s = &w->service[service];
    int n = 0;

    sim_move(w, "# read up to %d of %s/%d at %lld for %s", k, s->intake.topic[input], lane,
             (long long)join(s, lane)->work.input[input].next_offset, s->as.name);
    for (; n < k && sim_unread(w, service, lane, input) > 0; n++)
        if (screen(w, s, lane, input, join(s, lane)->work.input[input].next_offset) == SAGA_IGNORED)
            break;
    return n;
}

void sim_read_stale(struct sim_world *w, int service, int lane, int input, int64_t offset)
{
    sim_move(w, "# read again offset %lld of input %d, lane %d", (long long)offset, input, lane);
    screen(w, &w->service[service], lane, input, offset);
}

static struct saga_in *add(struct service *s, enum saga_kind kind, const char *key,
                           const struct saga_event *event)
{
    int lane = sim_lane(key);

    join(s, lane);
    struct saga_in *in = saga_batch_add(&s->batch, kind, lane);
    in->key = key;
    in->rule = saga_rule_of(&s->as, event->type);
    in->slot = saga_batch_row(&s->batch, &s->batch.orders, key);
    in->slot->lane = lane;
    return in;
}

void sim_due(struct sim_world *w, int service, const char *key)
{
    sim_move(w, "# due of %s", key);
    add(&w->service[service], SAGA_IN_DUE, key, &saga_due);
}

void sim_reply(struct sim_world *w, int i)
{
    struct reply reply = w->reply[i];

    memmove(&w->reply[i], &w->reply[i + 1], (size_t)(--w->reply_n - i) * sizeof *w->reply);
    sim_move(w, "# %s of %s", reply.event->type, reply.key);
    add(&w->service[PAYMENT], SAGA_IN_ANSWER, reply.key, reply.event)->data = reply.data;
}

void sim_decide(struct sim_world *w, int service)
{
    struct service *s = &w->service[service];
    struct saga_err err = {0};

    s->note_n = 0;
    saga_batch_name(&s->batch);
    if (saga_batch_decide(&s->batch, w->now, &err) < 0)
        sim_fail(w, "%s-svc: %s", s->as.name, err.text);
}

/* ---- COMMIT and ROLLBACK ---- */

static enum topic topic_of(const char *name)
{
    int t = 0;

    while (strcmp(topic_names[t], name))
        t++;
    return (enum topic)t;
}

static void store_out(struct sim_world *w, struct service *s)
{
    struct saga_batch *b = &s->batch;

    for (int i = 0; i < b->out_n; i++) {
        const struct saga_out *o = &b->out[i];
        struct lane *lane = &s->lane[o->lane];
        ROOM_FOR(lane->outbox, lane->outbox_n, lane->outbox_cap);
        struct row_out *row = &lane->outbox[lane->outbox_n++];
        *row = (struct row_out){.out = *o, .topic = topic_of(o->topic), .previous = lane->last};
        size_t n;
        const char *value = saga_out_value(&b->values, o, &n);
        row->value = copy(w, value, n);
        if (o->own.seq) {
            lane->last = o->own;
            w->events++;
            check_event(w, s, o->lane, row);
        }
        lane->last_seq = o->seq;
    }
}

static void store_lane(struct service *s, struct lane *lane, bool stored)
{
    for (int t = 0; t < s->intake.topics; t++) {
        if (stored && lane->moved[t]) {
            lane->stored[t] =
                (struct saga_input){.next_offset = saga_input_position(&lane->work.input[t]),
                                    .screened = lane->work.input[t].screened,
                                    .last = lane->work.input[t].last,
                                    .held = -1};
            lane->moved[t] = false;
        }
        if (saga_input_resume(&lane->work.input[t]) >= 0)
            lane->moved[t] = true;
        lane->reader.input[t] = lane->work.input[t];
    }
    memcpy(lane->forwarded, lane->work_forwarded, sizeof lane->forwarded);
    if (stored) {
        memcpy(lane->stored_forwarded, lane->forwarded, sizeof lane->forwarded);
        lane->published = lane->out.published;
        lane->published_offset = lane->out.published_offset;
        lane->published_id = lane->out.published_id;
    }
    lane->in_batch = false;
}

/* Rows as they are inserted: what is fixed in them is never written again. */
static void store_first(struct service *s)
{
    const struct saga_slots *rows = &s->batch.orders;

    while (s->first_n < rows->n) {
        ROOM_FOR(s->first, s->first_n, s->first_cap);
        s->first[s->first_n++] = NULL;
    }
    for (int i = 0; i < rows->n; i++)
        if (rows->list[i]->changed && !s->first[i]) {
            void *first = saga_arena_alloc(&s->batch.arena, rows->table->size);
            s->first[i] = memcpy(first, rows->list[i]->row, rows->table->size);
        }
}

/* "order a: PlaceOrder NONE -> CREATED, OrderCreated" */
static void say_note(struct sim_world *w, struct service *s, const struct note *note)
{
    const char *const *states = s->as.states;
    struct saga_buf text = {0};
    char type[64];

    saga_buf_printf(&text, "%s %s: %s %s", s->as.name, note->key, s->real[note->rule].input->type,
                    states[note->before]);
    if (note->after != note->before)
        saga_buf_printf(&text, " -> %s", states[note->after]);
    for (int i = note->out; i < note->out + note->out_n; i++) {
        const struct saga_out *o = &s->batch.out[i];
        const char *reason = memmem(s->batch.values.at + o->at, o->n, "\"reason\":\"", 10);
        saga_buf_printf(&text, ", %s", type_of(&s->batch, i, type, sizeof type));
        if (reason)
            saga_buf_printf(&text, " %.*s", (int)strcspn(reason + 10, "\""), reason + 10);
    }
    for (int i = note->call; i < note->call + note->call_n; i++)
        saga_buf_printf(&text, ", %s", s->batch.call[i].call->type);
    sim_say(w, "%.*s", (int)text.n, text.at);
    saga_buf_free(&text);
}

/* Dead letters and forwards; requests are counted where they first stood. */
static void count_in(struct sim_world *w, struct service *s, const struct saga_in *in)
{
    const struct saga_record *r = in->record;

    if (in->kind == SAGA_IN_DEAD) {
        w->dead++;
        sim_say(w, "%s/%d dead letter: %s/%d/%lld %s", s->as.name, in->lane, r->topic, r->partition,
                (long long)r->offset, in->reason);
        struct entry *entry = &w->topic[topic_of(r->topic)][r->partition].at[r->offset];
        entry->decided++;
        if (!entry->asked && entry->buried & 1u << s->number)
            sim_fail(w, "%s/%d/%lld is buried twice by %s-svc", r->topic, r->partition,
                     (long long)r->offset, s->as.name);
        entry->buried |= 1u << s->number;
    } else if (in->kind == SAGA_IN_FORWARD) {
        w->forwards++;
        sim_say(w, "%s/%d forward: %s to %d", s->as.name, in->lane, in->key, sim_lane(in->key));
    }
}

void sim_commit(struct sim_world *w, int service)
{
    struct service *s = &w->service[service];
    struct saga_batch *b = &s->batch;

    store_out(w, s);
    store_first(s);
    for (int i = 0; i < b->n; i++)
        count_in(w, s, &b->in[i]);
    for (int i = 0; i < s->note_n; i++) {
        if (w->tracing)
            say_note(w, s, &s->note[i]);
        check_note(w, s, &s->note[i]);
    }
    s->note_n = 0;
    for (int i = 0; i < b->log_n && b->service->shared; i++)
        check_movement(w, b->log[i]);
    for (int i = 0; i < b->call_n; i++) {
        ROOM_FOR(w->pending, w->pending_n, w->pending_cap);
        w->pending[w->pending_n++] = (struct pending){b->call[i], sim_lane(b->call[i].key), false};
    }
    for (int i = 0; i < LANES; i++)
        if (s->lane[i].in_batch)
            store_lane(s, &s->lane[i], b->n > 0);
    saga_batch_commit(b);
    check_world(w, service);
}

void sim_abort(struct sim_world *w, int service)
{
    struct service *s = &w->service[service];
    struct saga_err err = {0};

    sim_move(w, "# ROLLBACK of %s", s->as.name);
    s->batch.n = s->note_n = 0;
    for (int i = 0; i < LANES; i++)
        s->lane[i].in_batch = false;
    saga_batch_decide(&s->batch, w->now, &err); /* rows are as they were before the batch */
    saga_batch_commit(&s->batch);
}

/* ---- What a batch has made, as a number ---- */

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    const unsigned char *at = p;

    for (size_t i = 0; i < n; i++)
        h = (h ^ at[i]) * 0x100000001b3;
    return h;
}

static uint64_t hash_rows(uint64_t h, const struct saga_slots *rows)
{
    struct saga_buf bytes = {0};

    for (int i = 0; i < rows->n; i++)
        for (const struct saga_field *c = rows->table->columns; rows->list[i]->changed && c->name;
             c++)
            saga_column_write(c, rows->list[i]->row, &bytes);
    h = mix(h, bytes.at, bytes.n);
    saga_buf_free(&bytes);
    return h;
}

uint64_t sim_hash(const struct sim_world *w, int service)
{
    const struct saga_batch *b = &w->service[service].batch;
    uint64_t h = mix(0xcbf29ce484222325, b->values.at, b->values.n);

    for (int i = 0; i < b->out_n; i++) {
        h = mix(h, &b->out[i].seq, sizeof b->out[i].seq);
        h = mix(h, &b->out[i].own, sizeof b->out[i].own);
    }
    h = mix(h, &b->call_n, sizeof b->call_n);
    h = mix(h, &b->log_n, sizeof b->log_n);
    h = hash_rows(h, &b->orders);
    return b->shared.table ? hash_rows(h, &b->shared) : h;
}
