/* A batch decided: rows by key, the verbs of a rule, and what goes out. See batch.h. */
#include "batch.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "field.h"

const struct saga_event saga_due = {"due", 0, NULL, NULL};

enum { DEAD_VALUE_MAX = 256 * 1024 };

/* ---- Rows by key ---- */

static uint32_t place_of(const struct saga_slots *rows, const char *key, uint32_t h)
{
    uint32_t i = h & rows->mask;

    for (; rows->index[i]; i = (i + 1) & rows->mask) {
        const struct saga_slot *slot = rows->list[rows->index[i] - 1];
        if (slot->hash == h && !strcmp(slot->key, key))
            break;
    }
    return i;
}

static void grow(struct saga_slots *rows)
{
    rows->cap = rows->cap ? rows->cap * 2 : 64;
    rows->mask = (uint32_t)rows->cap * 2 - 1;
    rows->list = saga_realloc(rows->list, (size_t)rows->cap * sizeof *rows->list);
    rows->index = saga_realloc(rows->index, ((size_t)rows->mask + 1) * sizeof *rows->index);
    memset(rows->index, 0, ((size_t)rows->mask + 1) * sizeof *rows->index);
    for (int i = 0; i < rows->n; i++)
        rows->index[place_of(rows, rows->list[i]->key, rows->list[i]->hash)] = (uint32_t)i + 1;
}

struct saga_slot *saga_slots_find(const struct saga_slots *rows, const char *key)
{
    uint32_t at = rows->n ? rows->index[place_of(rows, key, saga_hash(key))] : 0;

    return at ? rows->list[at - 1] : NULL;
}

struct saga_slot *saga_batch_row(struct saga_batch *b, struct saga_slots *rows, const char *key)
{
    uint32_t h = saga_hash(key), i;

    if (rows->n == rows->cap)
        grow(rows);
    i = place_of(rows, key, h);
    if (rows->index[i])
        return rows->list[rows->index[i] - 1];
    struct saga_slot *slot = saga_arena_zero(&b->arena, sizeof *slot);
    slot->key = saga_arena_text(&b->arena, key, strlen(key));
    slot->hash = h;
    rows->list[rows->n++] = slot;
    rows->index[i] = (uint32_t)rows->n;
    return slot;
}

static void empty(struct saga_slots *rows)
{
    if (rows->n)
        memset(rows->index, 0, ((size_t)rows->mask + 1) * sizeof *rows->index);
    rows->n = 0;
}

static void *written(struct saga_batch *b, struct saga_slot *slot, size_t size)
{
    if (!slot->changed) {
        void *copy = saga_arena_alloc(&b->arena, size);
        memcpy(copy, slot->row, size);
        slot->origin = slot->row;
        slot->row = copy;
        slot->changed = ((struct saga_row *)copy)->changed = true;
    }
    return slot->row;
}

/* ---- A batch's life ---- */

static char *joined(const char *a, const char *b, const char *c)
{
    size_t n = strlen(a) + strlen(b) + strlen(c) + 1;
    char *s = saga_alloc(n);

    snprintf(s, n, "%s%s%s", a, b, c);
    return s;
}

void saga_batch_init(struct saga_batch *b, const struct saga_service *service, int32_t lanes,
                     const char *history)
{
    *b = (struct saga_batch){.service = service, .lanes = lanes, .history = history};
    b->source = joined("/", service->name, "-svc");
    b->topic = joined("", service->name, ".events");
    b->dead = joined("", service->name, ".dlq");
    b->writer = saga_alloc((size_t)lanes * sizeof *b->writer);
    b->wrote = saga_alloc((size_t)lanes * sizeof *b->wrote);
    for (int32_t i = 0; i < lanes; i++)
        b->writer[i] = (struct saga_writer){.lane = i};
    b->orders.table = service->orders;
    b->shared.table = service->shared;
}

static void forget_output(struct saga_batch *b)
{
    b->out_n = b->call_n = b->log_n = 0;
    b->values.n = 0;
    b->impossible = NULL;
}

void saga_batch_reset(struct saga_batch *b)
{
    forget_output(b);
    b->n = 0;
    empty(&b->orders);
    empty(&b->shared);
    saga_arena_reset(&b->arena);
}

void saga_batch_free(struct saga_batch *b)
{
    saga_arena_free(&b->arena);
    saga_buf_free(&b->values);
    free(b->orders.list), free(b->orders.index);
    free(b->shared.list), free(b->shared.index);
    free(b->in), free(b->out), free(b->call), free(b->log), free(b->writer), free(b->wrote);
    free((char *)b->source), free((char *)b->topic), free((char *)b->dead);
    *b = (struct saga_batch){0};
}

/* Room for one more item in an array. */
#define ROOM(array, n, cap)                                                                        \
    ((n) < (cap) ? (void)0                                                                         \
                 : (void)((cap) = (cap) ? (cap)*2 : 64,                                            \
                          (array) = saga_realloc((array), (size_t)(cap) * sizeof *(array))))

struct saga_in *saga_batch_add(struct saga_batch *b, enum saga_kind kind, int32_t lane)
{
    ROOM(b->in, b->n, b->cap);
    b->in[b->n] = (struct saga_in){.kind = kind, .lane = lane};
    return &b->in[b->n++];
}

const struct saga_rule *saga_rule_of(const struct saga_service *service, const char *type)
{
    for (const struct saga_rule *rule = service->rules; rule->input; rule++)
        if (!strcmp(rule->input->type, type))
            return rule;
    return NULL;
}

static struct saga_step step_of(struct saga_batch *b, const struct saga_in *in)
{
    return (struct saga_step){in->key, in->rule->input, in->data,  in->slot->row,
                              b->now,  in->id,          in->trace, b};
}

static void share(const struct saga_step *step, const char *key)
{
    saga_batch_row(step->batch, &step->batch->shared, key);
}

void saga_batch_name(struct saga_batch *b)
{
    if (!b->service->names)
        return;
    for (int i = 0; i < b->n; i++) {
        struct saga_in *in = &b->in[i];
        if (!in->slot || in->kind == SAGA_IN_PARKED || in->kind == SAGA_IN_DROPPED)
            continue;
        struct saga_step step = step_of(b, in);
        if (!b->service->names(&step, share))
            in->slot->names_more = true;
    }
}

/* ---- What goes out ---- */

static struct saga_out *put(struct saga_batch *b, int32_t lane, const char *topic,
                            int32_t partition)
{
    ROOM(b->out, b->out_n, b->out_cap);
    struct saga_out *out = &b->out[b->out_n++];
    *out = (struct saga_out){.lane = lane,
                             .seq = ++b->wrote[lane].last_seq,
                             .topic = topic,
                             .partition = partition,
                             .at = b->values.n};
    return out;
}

static const char *text(struct saga_batch *b, const char *format, ...)
{
    char s[512];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(s, sizeof s, format, args);
    va_end(args);
    return saga_arena_text(&b->arena, s, n < (int)sizeof s ? (size_t)n : sizeof s - 1);
}

static void header(struct saga_header *headers, int *n, const char *name, const char *value)
{
    headers[(*n)++] = (struct saga_header){name, value, strlen(value)};
}

static bool is_ours(const char *name)
{
    return !strcmp(name, "forwarded-id") || !strcmp(name, "forwarded-from");
}

/* 4.5: the same request, its order_id filled in, to the lane of its order. */
static void forward(struct saga_batch *b, const struct saga_in *in)
{
    const struct saga_record *r = in->record;
    int32_t to = saga_lane_of(in->key, strlen(in->key), b->lanes);
    struct saga_out *out = put(b, in->lane, b->service->requests, to);
    struct saga_header *headers =
        saga_arena_alloc(&b->arena, (size_t)(r->headers_n + 2) * sizeof *headers);
    const char *value;

    for (int i = 0; i < r->headers_n; i++)
        if (!is_ours(r->headers[i].name))
            headers[out->headers_n++] = r->headers[i];
    header(headers, &out->headers_n, "forwarded-id",
           text(b, "%s/%d.%" PRId64 ".%" PRId64, b->history, in->lane, out->seq,
                b->wrote[in->lane].term));
    header(headers, &out->headers_n, "forwarded-from",
           text(b, "%s/%d/%" PRId64, r->topic, r->partition, r->offset));
    out->headers = headers;
    out->key = in->key;
    out->key_n = (uint32_t)strlen(in->key);
    saga_request_forward(r, in->key, &b->arena, &value, &out->n);
    saga_buf_add(&b->values, value, out->n);
}

/* 4.7: what cannot be applied, with where it stood and why. It always fits: the value and the
 * headers are cut to limits below the broker's. */
static void bury(struct saga_batch *b, const struct saga_in *in)
{
    const struct saga_record *r = in->record;
    struct saga_out *out = put(b, in->lane, b->dead, in->lane);
    struct saga_header *headers =
        saga_arena_alloc(&b->arena, (size_t)(SAGA_HEADERS_MANY + 9) * sizeof *headers);
    size_t room = SAGA_HEADERS_MAX;
    bool cut = r->value_n > DEAD_VALUE_MAX;

    for (int i = 0; i < r->headers_n; i++) {
        if (strncmp(r->headers[i].name, "dlq-", 4) == 0)
            continue; /* of a letter that was copied back: what follows is what counts */
        size_t n = strlen(r->headers[i].name) + r->headers[i].n;
        if (n <= room && out->headers_n < SAGA_HEADERS_MANY)
            headers[out->headers_n++] = r->headers[i];
        else
            cut = true;
        room -= n <= room ? n : room;
    }
    /* After a crash it may be written again: the same letter, by which readers tell it. */
    header(headers, &out->headers_n, "dlq-id",
           text(b, "%d.%" PRId64 ".%" PRId64, in->lane, out->seq, b->wrote[in->lane].term));
    header(headers, &out->headers_n, "dlq-topic", r->topic);
    header(headers, &out->headers_n, "dlq-partition", text(b, "%d", r->partition));
    header(headers, &out->headers_n, "dlq-offset", text(b, "%" PRId64, r->offset));
    header(headers, &out->headers_n, "dlq-time", text(b, "%" PRId64, r->time_ms));
    header(headers, &out->headers_n, "dlq-service", b->source + 1);
    header(headers, &out->headers_n, "dlq-reason", in->reason);
    header(headers, &out->headers_n, "dlq-detail", in->detail);
    if (cut)
        header(headers, &out->headers_n, "dlq-truncated", "true");
    out->headers = headers;
    out->key = r->key;
    out->key_n = (uint32_t)(r->key_n < DEAD_VALUE_MAX ? r->key_n : DEAD_VALUE_MAX);
    out->n = r->value ? (r->value_n < DEAD_VALUE_MAX ? r->value_n : DEAD_VALUE_MAX) : SIZE_MAX;
    if (r->value)
        saga_buf_add(&b->values, r->value, out->n);
}

/* ---- Deciding ---- */

static void ready(struct saga_batch *b, struct saga_slots *rows)
{
    for (int i = 0; i < rows->n; i++) {
        struct saga_slot *slot = rows->list[i];
        if (slot->changed) {
            slot->row = slot->origin;
            slot->changed = false;
        }
        if (!slot->row) {
            struct saga_row *row = saga_arena_zero(&b->arena, rows->table->size);
            row->key = slot->key;
            slot->row = row;
        }
    }
}

static void decide(struct saga_batch *b, struct saga_in *in)
{
    struct saga_row *row = in->slot->row;

    if (in->kind == SAGA_IN_DUE) {
        if (row->due == 0 || row->due > b->now)
            return; /* no longer due */
        row = written(b, in->slot, b->service->orders->size);
        row->due = 0;
    }
    row->lane = in->lane;
    struct saga_step step = step_of(b, in);
    if (!step.id) {
        step.id = row->cause ? row->cause : "";
        step.trace = row->trace;
    }
    b->deciding = in;
    in->rule->cell[row->state](&step);
}

int saga_batch_decide(struct saga_batch *b, int64_t now, struct saga_err *err)
{
    forget_output(b);
    memcpy(b->wrote, b->writer, (size_t)b->lanes * sizeof *b->wrote);
    b->now = now;
    ready(b, &b->orders);
    ready(b, &b->shared);
    for (int i = 0; i < b->n && !b->impossible; i++) {
        struct saga_in *in = &b->in[i];
        if (in->kind == SAGA_IN_FORWARD)
            forward(b, in);
        else if (in->kind == SAGA_IN_DEAD)
            bury(b, in);
        else if (in->kind != SAGA_IN_PARKED && in->kind != SAGA_IN_DROPPED)
            decide(b, in);
    }
    b->deciding = NULL;
    if (!b->impossible)
        return 0;
    const struct saga_row *row = b->impossible->slot->row;
    return saga_err(err, SAGA_POISON, "%s of order %s is impossible in state %s",
                    b->impossible->rule->input->type, b->impossible->key,
                    b->service->states[row->state]);
}

void saga_batch_park(struct saga_batch *b, struct saga_in *in, const char *reason)
{
    static const char behind[] = "its order is parked";

    in->kind = SAGA_IN_PARKED;
    in->reason = saga_arena_text(&b->arena, reason, strlen(reason));
    for (struct saga_in *later = in + 1; later < b->in + b->n; later++)
        if (later->rule && !strcmp(later->key, in->key)) {
            later->kind = SAGA_IN_PARKED;
            later->reason = behind;
        }
}

static void store(struct saga_slots *rows)
{
    for (int i = 0; i < rows->n; i++) {
        struct saga_slot *slot = rows->list[i];
        struct saga_row *row = slot->row;
        if (slot->changed)
            row->stored = true;
        slot->changed = row->changed = false;
        slot->origin = NULL;
    }
}

void saga_batch_commit(struct saga_batch *b)
{
    store(&b->orders);
    store(&b->shared);
    forget_output(b);
    b->n = 0;
}

/* ---- The verbs ---- */

void saga_nothing(struct saga_step *step)
{
    (void)step;
}

void saga_impossible(struct saga_step *step)
{
    step->batch->impossible = step->batch->deciding;
}

void *saga_change(struct saga_step *step)
{
    const struct saga_in *in = step->batch->deciding;
    struct saga_row *row = written(step->batch, in->slot, step->batch->service->orders->size);

    if (in->id) {
        row->cause = in->id;
        row->trace = in->trace;
    }
    if (!row->stored && !row->created)
        row->created = step->now;
    step->row = row;
    return row;
}

static struct saga_slot *named(const struct saga_step *step, const char *key)
{
    struct saga_slot *slot = saga_slots_find(&step->batch->shared, key);

    assert(slot && "a shared row that names() did not name");
    return slot;
}

const void *saga_see(const struct saga_step *step, const char *key)
{
    return named(step, key)->row;
}

void *saga_share(struct saga_step *step, const char *key)
{
    return written(step->batch, named(step, key), step->batch->service->shared->size);
}

void *saga_append(struct saga_step *step, void *list, size_t size)
{
    struct {
        int n;
        char *at;
    } *l = list; /* the shape of every list field */
    char *at = saga_arena_alloc(&step->batch->arena, (size_t)(l->n + 1) * size);

    if (l->n)
        memcpy(at, l->at, (size_t)l->n * size);
    l->at = at;
    return memset(at + (size_t)l->n++ * size, 0, size);
}

void saga_log(struct saga_step *step, const void *row)
{
    struct saga_batch *b = step->batch;

    ROOM(b->log, b->log_n, b->log_cap);
    b->log[b->log_n] = saga_arena_alloc(&b->arena, b->service->log->size);
    memcpy(b->log[b->log_n++], row, b->service->log->size);
}

void saga_emit(struct saga_step *step, const struct saga_event *event, const void *data)
{
    struct saga_batch *b = step->batch;
    int32_t lane = b->deciding->lane;
    struct saga_writer *w = &b->wrote[lane];
    struct saga_out *out = put(b, lane, b->topic, lane);

    out->own = (struct saga_id){out->seq, w->term};
    out->key = step->key;
    out->key_n = (uint32_t)strlen(step->key);
    saga_event_write(&(struct saga_emission){.source = b->source,
                                             .event = event,
                                             .key = step->key,
                                             .lane = lane,
                                             .id = out->own,
                                             .previous = w->last,
                                             .time_ms = b->now / 1000,
                                             .cause = step->id,
                                             .trace = step->trace,
                                             .data = data},
                     &b->values);
    out->n = b->values.n - out->at;
    w->last = out->own;
}

void saga_call(struct saga_step *step, const struct saga_event *call, const void *data)
{
    struct saga_batch *b = step->batch;

    ROOM(b->call, b->call_n, b->call_cap);
    b->call[b->call_n++] = (struct saga_call){
        step->key, call, saga_fields_copy(call->fields, call->size, data, &b->arena)};
}

int64_t saga_backoff(const char *key, int64_t n, int64_t first, int64_t last)
{
    int64_t wait = first;
    uint32_t jitter = (saga_hash(key) ^ (uint32_t)n * 0x9e3779b1) * 0x85ebca6b;

    while (--n > 0 && wait < last)
        wait *= 2;
    if (wait > last)
        wait = last;
    return wait - (int64_t)((uint64_t)(wait / 4) * (jitter >> 16) >> 16);
}
