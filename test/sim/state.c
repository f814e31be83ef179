/* What the future of a world depends on, as a number: two worlds with the same number have the same
 * futures. Left out is the clock, but for what is due; ids, sequence numbers, terms and offsets
 * count by their order only (the chain compares them, and nothing else does); records that every
 * reader has behind it and would never read again; and what events tell people (reasons, times). */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "explore.h"

enum { CODE_MAX = 2048, RANKS_MAX = 128 };

static uint32_t code[CODE_MAX];
static int n;

static void put(int64_t value)
{
    assert(n < CODE_MAX);
    code[n++] = (uint32_t)value;
}

static void put_text(const char *s)
{
    put(s ? saga_hash(s) : 0);
}

static void put_pointer(const void *p) /* of something static */
{
    put((int64_t)((uintptr_t)p >> 3));
}

/* ---- Numbers by their order ---- */

struct ranks {
    int64_t at[RANKS_MAX];
    int n;
};

static void rank_add(struct ranks *r, int64_t value)
{
    int i = r->n;

    while (i > 0 && r->at[i - 1] > value)
        i--;
    if (i > 0 && r->at[i - 1] == value)
        return;
    assert(r->n < RANKS_MAX);
    memmove(&r->at[i + 1], &r->at[i], (size_t)(r->n - i) * sizeof *r->at);
    r->at[i] = value;
    r->n++;
}

static void put_rank(const struct ranks *r, int64_t value)
{
    int i = 0;

    while (i < r->n && r->at[i] < value)
        i++;
    put(i);
}

/* Of one writer, in one lane. */
static struct ranks seqs[SERVICES][LANES], terms[SERVICES][LANES];

static void id_add(int service, int lane, struct saga_id id)
{
    rank_add(&seqs[service][lane], id.seq);
    rank_add(&terms[service][lane], id.term);
}

static void put_id(int service, int lane, struct saga_id id)
{
    put_rank(&seqs[service][lane], id.seq);
    put_rank(&terms[service][lane], id.term);
}

/* ---- Which rows and records matter ---- */

/* A forward's id: of a lane of order-svc, among its events. -> false: it is none */
static bool forward_of(const struct saga_header *headers, int headers_n, int *lane,
                       struct saga_id *id)
{
    for (int i = 0; i < headers_n; i++)
        if (!strcmp(headers[i].name, "forwarded-id"))
            return sscanf(strrchr(headers[i].value, '/'), "/%d.%" SCNd64 ".%" SCNd64, lane,
                          &id->seq, &id->term) == 3;
    return false;
}

static void see_forward(const struct saga_header *headers, int headers_n)
{
    struct saga_id id;
    int lane;

    if (forward_of(headers, headers_n, &lane, &id))
        id_add(ORDER, lane, id);
}

static int first_row(const struct lane *lane)
{
    int from = lane->outbox_n;

    while (from > 0 && lane->outbox[from - 1].out.seq > lane->published)
        from--;
    if (lane->acked < from)
        from = lane->acked;
    for (int i = 0; i < lane->zombies; i++)
        if (lane->zombie[i].from < from)
            from = lane->zombie[i].from;
    return from;
}

static int writer_of(const struct service *s, int input) /* -1: requests */
{
    for (int i = 0; i < SERVICES; i++)
        if (!strcmp(s->intake.topic[input], topic_names[sim_topic[i]]))
            return i;
    return -1;
}

static int topic_of_input(const struct service *s, int input)
{
    int writer = writer_of(s, input);

    return writer < 0 ? REQUESTS : sim_topic[writer];
}

static void see_reader(const struct service *s, int number, int input, int64_t *first)
{
    const struct lane *lane = &s->lane[number];
    const struct saga_input *in = &lane->reader.input[input], *stored = &lane->stored[input];
    int writer = writer_of(s, input);

    if (in->next_offset < *first)
        *first = in->next_offset;
    if (stored->next_offset < *first)
        *first = stored->next_offset;
    if (in->held >= 0 && in->held < *first)
        *first = in->held;
    if (writer < 0)
        return;
    id_add(writer, number, in->last);
    id_add(writer, number, stored->last);
    if (in->held >= 0)
        id_add(writer, number, in->held_previous);
}

static void see_writer(const struct sim_world *w, int service, int number, int64_t first)
{
    const struct lane *lane = &w->service[service].lane[number];
    const struct partition *p = &w->topic[sim_topic[service]][number];

    rank_add(&seqs[service][number], lane->last_seq);
    rank_add(&terms[service][number], lane->term);
    id_add(service, number, lane->last);
    id_add(service, number, p->newest);
    for (int i = first_row(lane); i < lane->outbox_n; i++) {
        id_add(service, number, lane->outbox[i].out.own);
        id_add(service, number, lane->outbox[i].previous);
        see_forward(lane->outbox[i].out.headers, lane->outbox[i].out.headers_n);
    }
    for (int i = (int)first; i < p->n; i++) {
        id_add(service, number, p->at[i].own);
        id_add(service, number, p->at[i].previous);
    }
}

static void see_requests(const struct sim_world *w, int number, int64_t first)
{
    const struct partition *p = &w->topic[REQUESTS][number];
    const struct lane *lane = &w->service[ORDER].lane[number];

    for (int i = (int)first; i < p->n; i++)
        see_forward(p->at[i].record.headers, p->at[i].record.headers_n);
    for (int l = 0; l < LANES; l++) {
        id_add(ORDER, l, lane->forwarded[l]);
        id_add(ORDER, l, lane->stored_forwarded[l]);
    }
}

/* ---- Putting ---- */

static void put_forward(const struct saga_header *headers, int headers_n)
{
    struct saga_id id;
    int lane;

    if (forward_of(headers, headers_n, &lane, &id))
        put_id(ORDER, lane, id);
}

static void put_records(const struct sim_world *w, int topic, int number, int from)
{
    const struct partition *p = &w->topic[topic][number];

    put(p->n - from);
    put(p->holed);
    for (int i = 0, decided = 0; i < p->n && topic == REQUESTS; i++) {
        decided += p->at[i].decided;
        if (i == p->n - 1)
            put(decided);
    }
    for (int i = from; i < p->n; i++) {
        const struct entry *e = &p->at[i];
        if (topic == REQUESTS) {
            put_text(e->record.value);
            put_forward(e->record.headers, e->record.headers_n);
            put(e->decided);
            continue;
        }
        put_text(e->record.key);
        put_pointer(e->event);
        put_id(topic - ORDER_EVENTS, number, e->own);
        put_id(topic - ORDER_EVENTS, number, e->previous);
    }
    if (topic != REQUESTS)
        put_id(topic - ORDER_EVENTS, number, p->newest);
}

static void put_writer(const struct lane *lane, int service, int number)
{
    int from = first_row(lane), published = from, known = from;

    put(lane->outbox_n - from);
    put(lane->acked - from);
    put(lane->sent - from);
    put(lane->lost);
    put_rank(&seqs[service][number], lane->last_seq);
    put_rank(&terms[service][number], lane->term);
    put_id(service, number, lane->last);
    for (int i = from; i < lane->outbox_n; i++) {
        const struct row_out *row = &lane->outbox[i];
        put_text(row->out.key);
        put_pointer(row->event);
        if (!row->event) /* a forward */
            put_text(row->value);
        put_forward(row->out.headers, row->out.headers_n);
        put_id(service, number, row->out.own);
        put_id(service, number, row->previous);
        put(row->landed);
        put(i >= lane->acked && i < lane->sent && lane->offsets[i] < 0);
        published += row->out.seq <= lane->published;
        known += row->out.seq <= lane->out.published;
    }
    put(published - from);
    put(known - from);
    put(lane->zombies);
    for (int i = 0; i < lane->zombies; i++) {
        put(lane->zombie[i].from - from);
        put(lane->zombie[i].to - from);
    }
}

static void put_reader(const struct service *s, int number, int input, int64_t first)
{
    const struct lane *lane = &s->lane[number];
    const struct saga_input *in = &lane->reader.input[input], *stored = &lane->stored[input];
    int writer = writer_of(s, input);

    put(in->next_offset - first);
    put(stored->next_offset - first);
    put(lane->moved[input]);
    for (int l = 0; l < LANES && writer < 0; l++) {
        put_id(ORDER, l, lane->forwarded[l]);
        put_id(ORDER, l, lane->stored_forwarded[l]);
    }
    if (writer < 0)
        return;
    put_id(writer, number, in->last);
    put_id(writer, number, stored->last);
    put(in->held < 0 ? -1 : in->held - first);
    if (in->held >= 0)
        put_id(writer, number, in->held_previous);
    put(in->reached | in->rewound << 1 | in->stopped << 2);
}

/* -> the first record that matters, of each topic */
static void see_lane(const struct sim_world *w, int number, bool all_records, int64_t *first)
{
    for (int t = REQUESTS; t <= PAYMENT_EVENTS; t++)
        first[t] = all_records ? 0 : w->topic[t][number].n;
    for (int i = 0; i < SERVICES; i++) {
        const struct service *s = &w->service[i];
        for (int t = 0; t < s->intake.topics; t++)
            see_reader(s, number, t, &first[topic_of_input(s, t)]);
    }
    for (int i = 0; i < SERVICES; i++)
        see_writer(w, i, number, first[sim_topic[i]]);
    see_requests(w, number, first[REQUESTS]);
}

static void put_lane(const struct sim_world *w, int number, const int64_t *first)
{
    for (int t = REQUESTS; t <= PAYMENT_EVENTS; t++)
        put_records(w, t, number, (int)first[t]);
    for (int i = 0; i < SERVICES; i++) {
        const struct service *s = &w->service[i];
        put_writer(&s->lane[number], i, number);
        for (int t = 0; t < s->intake.topics; t++)
            put_reader(s, number, t, first[topic_of_input(s, t)]);
    }
}

static void put_lanes(const struct sim_world *w, const struct scope *scope, bool all_records)
{
    int64_t first[LANES][TOPICS];

    for (int i = 0; i < SERVICES; i++)
        for (int l = 0; l < LANES; l++)
            seqs[i][l].n = terms[i][l].n = 0;
    for (int i = 0; i < scope->lanes; i++)
        see_lane(w, scope->lane[i], all_records, first[i]);
    for (int i = 0; i < scope->lanes; i++)
        put_lane(w, scope->lane[i], first[i]);
}

static void put_ledger(const struct sim_world *w, const char *key)
{
    for (int i = 0; i < w->ledger_n; i++)
        if (!strcmp(w->ledger[i].key, key)) {
            put(1 + w->ledger[i].refund);
            put(w->ledger[i].refusals);
            put(w->ledger[i].reason == NULL);
        }
    put(0);
}

static void put_tale(const struct sim_world *w, const char *key)
{
    for (int i = 0; i < w->tales; i++)
        if (!strcmp(w->tale[i].key, key))
            for (int e = 0; e < EVENT_TYPES; e++)
                if (all_events[e] != &request_rejected)
                    put(w->tale[i].n[e]);
    put(0);
}

static void put_order(const struct sim_world *w, const char *key, const struct ranks *dues)
{
    const void *sale = sim_row(w, ORDER, key), *reservation = sim_row(w, INVENTORY, key),
               *bill = sim_row(w, PAYMENT, key);

    put(sale ? order_view(sale).state : -1);
    if (sale) {
        put(order_view(sale).mode);
        put(order_view(sale).requested);
        put_rank(dues, order_view(sale).due);
    }
    put(reservation ? reservation_view(reservation).state : -1);
    put(bill ? bill_view(bill).state : -1);
    if (bill) {
        put(bill_view(bill).cancel);
        put(((const struct saga_row *)bill)->due != 0);
    }
    put_ledger(w, key);
    put_tale(w, key);
}

static void put_stock(const struct sim_world *w)
{
    const struct saga_slots *stock = &w->service[INVENTORY].batch.shared;

    for (int i = 0; i < stock->n; i++) {
        struct stock_view view = stock_view(stock->list[i]->row);
        put(view.available);
        put(view.reserved);
        put(view.shipped);
    }
}

static void put_calls(const struct sim_world *w)
{
    put(w->pending_n);
    for (int i = 0; i < w->pending_n; i++) {
        put_text(w->pending[i].call.key);
        put_pointer(w->pending[i].call.call);
        put(w->pending[i].orphan);
    }
    for (int i = 0; i < w->reply_n; i++) {
        put_text(w->reply[i].key);
        put_pointer(w->reply[i].event);
    }
}

/* What is gathered and not decided yet. */
static void put_batches(const struct sim_world *w)
{
    for (int i = 0; i < SERVICES; i++) {
        const struct saga_batch *b = &w->service[i].batch;
        put(b->n);
        for (int k = 0; k < b->n; k++) {
            put_text(b->in[k].key);
            put_pointer(b->in[k].rule);
        }
        for (int l = 0; l < LANES && b->n; l++)
            for (int t = 0; t < w->service[i].intake.topics; t++)
                put(w->service[i].lane[l].in_batch
                        ? w->service[i].lane[l].work.input[t].next_offset -
                              w->service[i].lane[l].reader.input[t].next_offset
                        : 0);
    }
}

uint64_t state_of(const struct sim_world *w, const struct scope *scope, bool all_records)
{
    struct ranks dues = {.n = 0};
    uint64_t h = 0x9e3779b97f4a7c15;

    n = 0;
    rank_add(&dues, 0);
    rank_add(&dues, w->now);
    for (int i = 0; i < scope->keys; i++) {
        const void *sale = sim_row(w, ORDER, scope->key[i]);
        if (sale)
            rank_add(&dues, order_view(sale).due);
    }
    put_rank(&dues, w->now);
    put_lanes(w, scope, all_records);
    for (int i = 0; i < scope->keys; i++)
        put_order(w, scope->key[i], &dues);
    put_stock(w);
    put_calls(w);
    put_batches(w);
    for (int i = 0; i < n; i++) {
        h = (h ^ code[i]) * 0xff51afd7ed558ccd;
        h ^= h >> 32;
    }
    return h;
}
