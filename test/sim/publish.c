/* The world's moves of publishing, and of owners that come and go. See sim.h. */
#include "sim.h"

#include <inttypes.h>

#include "field.h"

enum { NOT_SENT = -2, LOST = -1 };

/* ---- Sending ---- */

static int64_t land(struct sim_world *w, struct service *s, int number, int i)
{
    struct row_out *row = &s->lane[number].outbox[i];
    const struct saga_out *o = &row->out;
    struct partition *p = &w->topic[row->topic][o->partition];

    check_landing(w, s, number, row);
    row->landed = true;
    ROOM_FOR(p->at, p->n, p->cap);
    p->at[p->n] = (struct entry){.record = {.topic = o->topic,
                                            .partition = o->partition,
                                            .offset = p->n,
                                            .time_ms = w->now / 1000,
                                            .key = o->key,
                                            .key_n = o->key_n,
                                            .value = row->value,
                                            .value_n = row->value ? o->n : 0,
                                            .headers = o->headers,
                                            .headers_n = o->headers_n},
                                 .event = row->event,
                                 .own = o->own,
                                 .previous = row->previous};
    return p->n++;
}

/* Hands the next row to the producer. -> its place in offsets */
static int64_t *hand_over(struct lane *lane)
{
    const struct saga_out *o = &lane->outbox[lane->sent].out;

    lane->offsets = saga_realloc(lane->offsets, (size_t)lane->outbox_cap * sizeof *lane->offsets);
    saga_outgoing_sent(&lane->out, o->seq, o->own, (uint32_t)o->n);
    return &lane->offsets[lane->sent++];
}

int sim_send(struct sim_world *w, int service, int number, int k)
{
    struct service *s = &w->service[service];
    struct lane *lane = &s->lane[number];
    int n = 0;

    for (; n < k && lane->sent < lane->outbox_n; n++) {
        int i = lane->sent;
        int64_t *offset = hand_over(lane);
        *offset = land(w, s, number, i);
    }
    if (n)
        sim_move(w, "# %s/%d sends %d", s->as.name, number, n);
    return n;
}

int sim_zombie(struct sim_world *w, int service, int number, int k)
{
    struct service *s = &w->service[service];
    struct lane *lane = &s->lane[number];
    int n = 0;

    if (lane->zombies == 0)
        return 0;
    struct zombie *z = &lane->zombie[lane->zombies - 1];
    for (; n < k && z->from < z->to; n++)
        land(w, s, number, z->from++);
    sim_move(w, "# an old owner of %s/%d sends %d", s->as.name, number, n);
    if (z->from == z->to)
        lane->zombies--;
    return n;
}

void sim_ack(struct sim_world *w, int service, int number, int k)
{
    struct service *s = &w->service[service];
    struct lane *lane = &s->lane[number];

    for (; k > 0 && lane->acked < lane->sent; lane->acked++) {
        const struct saga_out *o = &lane->outbox[lane->acked].out;
        if (lane->offsets[lane->acked] == LOST)
            continue;
        if (!saga_outgoing_acked(&lane->out, o->seq, lane->offsets[lane->acked]))
            sim_fail(w, "%s/%d: the report of %" PRId64 " does not count", s->as.name, number,
                     o->seq);
        k--;
    }
    if (lane->out.published > lane->last_seq)
        sim_fail(w, "%s/%d: published is above the outbox", s->as.name, number);
}

bool sim_lose(struct sim_world *w, int service, int number, int64_t report)
{
    struct service *s = &w->service[service];
    struct lane *lane = &s->lane[number];

    if (lane->sent == lane->outbox_n || !lane->outbox[lane->sent].out.own.seq)
        return false;
    const struct row_out *row = &lane->outbox[lane->sent];
    sim_move(w, "# %s/%d loses %" PRId64, s->as.name, number, row->out.seq);
    *hand_over(lane) = LOST;
    lane->lost = true;
    w->topic[row->topic][number].holed = true;
    if (report != INT64_MIN && saga_outgoing_acked(&lane->out, row->out.seq, report))
        sim_fail(w, "%s/%d: a report with offset %" PRId64 " was counted", s->as.name, number,
                 report);
    return true;
}

void sim_refuse(struct sim_world *w, int service, int number, int64_t report)
{
    struct service *s = &w->service[service];
    struct lane *lane = &s->lane[number];
    int64_t first = lane->outbox[lane->sent].out.seq;

    sim_move(w, "# %s/%d: %" PRId64 " is refused", s->as.name, number, first);
    while (lane->sent < lane->outbox_n)
        *hand_over(lane) = LOST;
    lane->lost = true;
    if (saga_outgoing_acked(&lane->out, first, report))
        sim_fail(w, "%s/%d: a report with offset %" PRId64 " was counted", s->as.name, number,
                 report);
}

/* ---- Owners ---- */

static int first_unpublished(const struct lane *lane)
{
    int i = lane->outbox_n;

    while (i > 0 && lane->outbox[i - 1].out.seq > lane->published)
        i--;
    return i;
}

/* Its calls may still be made; their answers, and those that wait, find nobody. */
static void orphan(struct sim_world *w, int number)
{
    int n = 0;

    for (int i = 0; i < w->pending_n; i++)
        w->pending[i].orphan |= w->pending[i].lane == number;
    for (int i = 0; i < w->reply_n; i++)
        if (w->reply[i].lane != number)
            w->reply[n++] = w->reply[i];
    w->reply_n = n;
}

void sim_take(struct sim_world *w, int service, int number, bool zombie)
{
    struct service *s = &w->service[service];
    struct lane *lane = &s->lane[number];
    int from = first_unpublished(lane);
    int64_t ms = w->now / 1000;

    sim_move(w, "# %s/%d has a new owner%s", s->as.name, number,
             zombie ? ", the old one lives" : "");
    if (zombie && from < lane->outbox_n && lane->zombies < ZOMBIES_MAX)
        lane->zombie[lane->zombies++] = (struct zombie){from, lane->outbox_n};
    lane->term = lane->term + 1 > ms ? lane->term + 1 : ms;
    memcpy(lane->reader.input, lane->stored, sizeof lane->stored);
    memcpy(lane->forwarded, lane->stored_forwarded, sizeof lane->forwarded);
    lane->reader.forwarded = lane->forwarded;
    memset(lane->moved, 0, sizeof lane->moved);
    saga_outgoing_reset(&lane->out);
    lane->out.published = lane->published;
    lane->out.published_offset = lane->published_offset;
    lane->out.published_id = lane->published_id;
    lane->out.known_offset = w->topic[sim_topic[service]][number].n - 1;
    lane->sent = lane->acked = from;
    lane->lost = false;
    if (service == PAYMENT)
        orphan(w, number);
    sim_reload(w, service, number);
}

static void *read_row(struct saga_batch *b, const struct saga_table *table, const void *row,
                      const void *first, struct sim_world *w)
{
    struct saga_row *read = saga_arena_zero(&b->arena, table->size);
    struct saga_buf bytes = {0};
    struct saga_err err = {0};

    for (const struct saga_field *c = table->columns; c->name; c++) {
        bytes.n = 0;
        saga_column_write(c, c->fixed ? first : row, &bytes);
        uint32_t n = (uint32_t)(unsigned char)bytes.at[0] << 24 |
                     (uint32_t)(unsigned char)bytes.at[1] << 16 |
                     (uint32_t)(unsigned char)bytes.at[2] << 8 | (unsigned char)bytes.at[3];
        if (saga_column_read(c, bytes.at + 4, (int)n, read, &b->arena, &err) < 0)
            sim_fail(w, "column %s: %s", c->name, err.text);
    }
    saga_buf_free(&bytes);
    read->stored = true;
    return read;
}

void sim_reload(struct sim_world *w, int service, int number)
{
    struct service *s = &w->service[service];
    struct saga_batch *b = &s->batch;

    for (int i = 0; i < s->first_n; i++) {
        struct saga_slot *slot = b->orders.list[i];
        if (s->first[i] && sim_lane(slot->key) == number)
            slot->row = read_row(b, b->orders.table, slot->row, s->first[i], w);
    }
    for (int i = 0; i < b->shared.n; i++) {
        struct saga_slot *slot = b->shared.list[i];
        const struct saga_row *row = slot->row;
        if (row && row->stored)
            slot->row = read_row(b, b->shared.table, row, row, w);
    }
}

/* ---- Reading again ---- */

void sim_rewind(struct sim_world *w, int service, int number, int input, int64_t offset)
{
    struct service *s = &w->service[service];

    sim_move(w, "# %s reads %s/%d again from %" PRId64, s->as.name, s->intake.topic[input], number,
             offset);
    s->lane[number].reader.input[input].next_offset = offset;
}

void sim_overdue(struct sim_world *w, int service, int number, int input)
{
    struct saga_input *in = &w->service[service].lane[number].reader.input[input];

    if (saga_input_overdue(in, w->now, INT64_C(10000000)))
        sim_rewind(w, service, number, input, 0);
}
