/* The invariants of RULES.md, looked at after every move: 1 and 2 on the rows and the provider's
 * books, 4 and 5 on what was committed, 7 on the topics, 8 in each cell of a request (order.c), 6
 * where the batch stops at an impossible cell (sim.c), and 3 when nothing moves any more. */
#include <inttypes.h>
#include <stdio.h>

#include "sim.h"

cells cells_run;

/* ---- 4 and 5: what a service has said of an order ---- */

static int number_of(const struct saga_event *event)
{
    int i = 0;

    while (all_events[i] != event)
        i++;
    return i;
}

static int said(const struct tale *tale, const struct saga_event *event)
{
    return tale->n[number_of(event)];
}

static void check_tale(struct sim_world *w, const struct tale *tale, const struct saga_event *event)
{
    const char *wrong = NULL;

    if (event == &request_rejected)
        return;
    if (said(tale, event) > 1)
        wrong = "said twice";
    else if (!said(tale, &order_created))
        wrong = "said before OrderCreated";
    else if (said(tale, &order_cancelled) + said(tale, &order_completed) > 1)
        wrong = "OrderCancelled and OrderCompleted (4)";
    else if (said(tale, &reservation_failed) + said(tale, &inventory_released) > 1)
        wrong = "ReservationFailed and InventoryReleased (5)";
    else if (event == &order_cancelled &&
             said(tale, &reservation_failed) + said(tale, &inventory_released) != 1)
        wrong = "neither ReservationFailed nor InventoryReleased (5)";
    if (wrong)
        sim_fail(w, "order %s: %s: %s", tale->key, event->type, wrong);
}

void check_event(struct sim_world *w, struct service *s, int lane, struct row_out *row)
{
    const struct saga_record record = {.topic = row->out.topic,
                                       .partition = row->out.partition,
                                       .key = row->out.key,
                                       .key_n = row->out.key_n,
                                       .value = row->value,
                                       .value_n = row->out.n};
    struct saga_message message;
    struct saga_err err = {0};
    const char *reason;

    if (row->out.n > SAGA_VALUE_MAX)
        sim_fail(w, "%s of %zu bytes: no reader takes it", row->out.key, row->out.n);
    if (saga_event_read(&record, all_events, s->batch.source, lane, &w->arena, &message, &reason,
                        &err) < 0 ||
        message.refused || !message.data) {
        sim_fail(w, "an event of ours that readers refuse: %s: %s", err.text, row->value);
        return;
    }
    if (!saga_id_same(message.id, row->out.own) || !saga_id_same(message.previous, row->previous))
        sim_fail(w, "%s/%d: the chain breaks at %" PRId64 " (7)", s->as.name, lane,
                 row->out.own.seq);
    row->event = message.event;
    struct tale *tale = sim_tale(w, message.key);
    tale->n[number_of(message.event)]++;
    check_tale(w, tale, message.event);
}

/* ---- 7: first occurrences ---- */

void check_landing(struct sim_world *w, struct service *s, int lane, const struct row_out *row)
{
    struct partition *p = &w->topic[row->topic][lane];

    if (!row->out.own.seq || row->out.own.seq <= p->newest.seq)
        return;
    if (!p->holed && !saga_id_same(p->newest, row->previous))
        sim_fail(w, "%s/%d: %" PRId64 " is sent before what it follows (7)", s->as.name, lane,
                 row->out.own.seq);
    p->newest = row->out.own;
}

/* ---- 6 and 8: cells ---- */

static struct entry *entry_of(struct sim_world *w, const char *place)
{
    int p;
    long long offset;

    if (sscanf(place, "order.requests/%d/%lld", &p, &offset) != 2 || p < 0 || p >= LANES ||
        offset >= w->topic[REQUESTS][p].n)
        return NULL;
    return &w->topic[REQUESTS][p].at[offset];
}

void check_note(struct sim_world *w, struct service *s, const struct note *note)
{
    cells_run[s->number][note->rule][note->before]++;
    if (note->wrong)
        sim_fail(w, "%s of %s in %s: %s (8)", s->real[note->rule].input->type, note->key,
                 s->as.states[note->before], note->wrong);
    if (note->in->kind != SAGA_IN_REQUEST)
        return;
    struct entry *entry = entry_of(w, note->id);
    if (!entry || !entry->asked)
        sim_fail(w, "%s: nobody asked for it", note->id);
    else if (++entry->decided > 1)
        sim_fail(w, "%s was decided twice", note->id);
}

char *cells_unreached(cells run)
{
    static const struct sim_service *const services[SERVICES] = {&sim_order, &sim_inventory,
                                                                 &sim_payment};
    struct saga_buf out = {0};

    for (int i = 0; i < SERVICES; i++) {
        const struct saga_service *s = services[i]->service;
        for (int r = 0; s->rules[r].input; r++)
            for (int c = 0; s->states[c]; c++)
                if (s->rules[r].cell[c] != saga_impossible && s->rules[r].input != &saga_due &&
                    !run[i][r][c])
                    saga_buf_printf(&out, "%s: %s in %s\n", s->name, s->rules[r].input->type,
                                    s->states[c]);
    }
    saga_buf_add(&out, "", 1);
    return out.at;
}

/* ---- 1: stock ---- */

void check_movement(struct sim_world *w, const void *row)
{
    struct movement_view m = movement_view(row);
    int i = 0;

    while (i < w->moved_n && strcmp(w->moved[i].sku, m.sku))
        i++;
    if (i == w->moved_n) {
        ROOM_FOR(w->moved, w->moved_n, w->moved_cap);
        w->moved[w->moved_n++] = (struct moved){.sku = m.sku};
    }
    *(m.kind[2] == 'l'   ? &w->moved[i].released
      : m.kind[0] == 's' ? &w->moved[i].shipped
                         : &w->moved[i].reserved) += m.quantity;
}

static void check_sku(struct sim_world *w, const struct saga_slot *slot)
{
    const struct saga_slots *orders = &w->service[INVENTORY].batch.orders;
    struct stock_view stock = stock_view(slot->row);
    int64_t held = 0, shipped = 0;

    for (int i = 0; i < orders->n; i++) {
        if (!orders->list[i]->row)
            continue;
        struct reservation_view r = reservation_view(orders->list[i]->row);
        if (r.state != R_HELD && r.state != R_SHIPPED)
            continue;
        for (int l = 0; l < r.lines->n; l++)
            if (!strcmp(r.lines->at[l].sku, slot->key))
                *(r.state == R_HELD ? &held : &shipped) += r.lines->at[l].quantity;
    }
    if (stock.available + stock.reserved + stock.shipped != stock.received || stock.available < 0 ||
        stock.reserved != held || stock.shipped != shipped)
        sim_fail(w,
                 "stock of %s: available %" PRId64 ", reserved %" PRId64 " (held %" PRId64
                 "), shipped %" PRId64 " (%" PRId64 "), received %" PRId64 " (1)",
                 slot->key, stock.available, stock.reserved, held, stock.shipped, shipped,
                 stock.received);
    for (int i = 0; i < w->moved_n; i++) {
        const struct moved *m = &w->moved[i];
        if (!strcmp(m->sku, slot->key) &&
            (m->reserved - m->released - m->shipped != held || m->shipped != shipped))
            sim_fail(w, "stock of %s: the movements say otherwise", slot->key);
    }
}

/* ---- 2: money ---- */

static void check_bill(struct sim_world *w, const struct saga_slot *slot)
{
    struct bill_view bill = bill_view(slot->row);
    int64_t money = sim_money(w, slot->key);
    bool ended = bill.state == B_FAILED || bill.state == B_REFUNDED || bill.state == B_VOIDED ||
                 bill.state == B_COMPLETED;

    if (money < 0 || (ended && money != (bill.state == B_COMPLETED ? bill.amount : 0)))
        sim_fail(w, "money of %s: %" PRId64 " in %s (2)", slot->key, money,
                 w->service[PAYMENT].as.states[bill.state]);
}

/* What waits has a deadline, and nothing else has one. */
static void check_due(struct sim_world *w, const struct service *s, const struct saga_row *row)
{
    bool waits = s->number == ORDER     ? row->state == O_CREATED
                 : s->number == PAYMENT ? row->state == B_CHARGING || row->state == B_REFUNDING
                                        : false;

    if ((row->due != 0) != waits)
        sim_fail(w, "%s of %s in %s: %s deadline", s->as.name, row->key, s->as.states[row->state],
                 row->due ? "it has a" : "it has no");
}

void check_world(struct sim_world *w, int service)
{
    const struct saga_batch *b = &w->service[service].batch;

    for (int i = 0; i < b->orders.n; i++)
        if (b->orders.list[i]->row)
            check_due(w, &w->service[service], b->orders.list[i]->row);
    if (service == INVENTORY)
        for (int i = 0; i < b->shared.n; i++)
            if (b->shared.list[i]->row)
                check_sku(w, b->shared.list[i]);
    if (service == PAYMENT)
        for (int i = 0; i < b->orders.n; i++)
            if (b->orders.list[i]->row)
                check_bill(w, b->orders.list[i]);
}

/* ---- 3: the end ---- */

struct ends {
    struct order_view order;
    int reservation, bill;
    int64_t charged;
};

static const char *judge_end(const struct ends *e, int64_t now)
{
    bool stocked = e->reservation == R_HELD || e->reservation == R_SHIPPED;

    switch (e->order.state) {
    case O_CREATED:
        return e->order.mode != LATER || e->order.requested || e->order.due <= now
                   ? "left in CREATED"
               : e->bill != B_AWAITING || e->reservation != R_HELD || e->charged
                   ? "CREATED, and payment or reservation do not wait for the customer"
                   : NULL;
    case O_CANCELLING:
        return "left in CANCELLING";
    case O_CANCELLED:
        if (e->charged != 0)
            return "CANCELLED, and money is kept";
        if (e->reservation != R_FAILED && e->reservation != R_RELEASED)
            return "CANCELLED, and stock is kept";
        return e->bill != B_NONE && e->bill != B_VOIDED && e->bill != B_FAILED &&
                       e->bill != B_REFUNDED
                   ? "CANCELLED, and the payment goes on"
                   : NULL;
    default:
        if (e->bill != B_COMPLETED || e->charged != e->order.amount)
            return "paid, and the money is not there";
        if (!stocked || (e->reservation == R_SHIPPED) != (e->order.state != O_PAID))
            return "paid, and the reservation is not as it should be";
        return NULL;
    }
}

static void check_order_end(struct sim_world *w, const struct saga_slot *slot)
{
    const void *reservation = sim_row(w, INVENTORY, slot->key),
               *bill = sim_row(w, PAYMENT, slot->key);
    struct ends ends = {order_view(slot->row), 0, 0, sim_money(w, slot->key)};

    if (ends.order.state == O_NONE)
        return; /* asked about, never placed */
    ends.reservation = reservation ? reservation_view(reservation).state : R_NONE;
    ends.bill = bill ? bill_view(bill).state : B_NONE;
    const char *wrong = judge_end(&ends, w->now);
    if (wrong)
        sim_fail(w, "order %s: %s: order %s, reservation %s, payment %s, money %" PRId64 " (3)",
                 slot->key, wrong, sim_state(w, ORDER, slot->key),
                 sim_state(w, INVENTORY, slot->key), sim_state(w, PAYMENT, slot->key),
                 ends.charged);
}

/* All that was committed is in Kafka, and all that is in Kafka was read. */
static void check_lane_end(struct sim_world *w, struct service *s, int number)
{
    const struct lane *lane = &s->lane[number];

    for (int i = 0; i < lane->outbox_n; i++)
        if (!lane->outbox[i].landed)
            sim_fail(w, "%s/%d: %" PRId64 " was never sent", s->as.name, number,
                     lane->outbox[i].out.seq);
    if (lane->out.published != lane->last_seq)
        sim_fail(w, "%s/%d: published stays at %" PRId64 " of %" PRId64, s->as.name, number,
                 lane->out.published, lane->last_seq);
    for (int t = 0; t < s->intake.topics; t++) {
        if (!s->intake.source[t])
            continue;
        if (lane->reader.input[t].held >= 0)
            sim_fail(w, "%s/%d: a gap stays open in %s, and all was sent", s->as.name, number,
                     s->intake.topic[t]);
        for (int from = 0; from < SERVICES; from++)
            if (!strcmp(topic_names[sim_topic[from]], s->intake.topic[t]) &&
                !saga_id_same(lane->reader.input[t].last, w->service[from].lane[number].last))
                sim_fail(w, "%s/%d has not applied all of %s (7)", s->as.name, number,
                         s->intake.topic[t]);
    }
}

/* What stands outside the chain is a dead letter of each service that reads it. */
static void check_buried(struct sim_world *w)
{
    for (int t = ORDER_EVENTS; t <= PAYMENT_EVENTS; t++)
        for (int p = 0; p < LANES; p++)
            for (int i = 0; i < w->topic[t][p].n; i++)
                if (w->topic[t][p].at[i].bad != w->topic[t][p].at[i].buried)
                    sim_fail(w, "%s/%d/%d is no dead letter", topic_names[t], p, i);
}

void check_end(struct sim_world *w)
{
    check_buried(w);
    const struct saga_slots *orders = &w->service[ORDER].batch.orders;

    for (int i = 0; i < orders->n; i++)
        if (orders->list[i]->row)
            check_order_end(w, orders->list[i]);
    for (int i = 0; i < SERVICES; i++)
        for (int l = 0; l < LANES; l++)
            check_lane_end(w, &w->service[i], l);
    for (int p = 0; p < LANES; p++)
        for (int i = 0; i < w->topic[REQUESTS][p].n; i++) {
            const struct entry *e = &w->topic[REQUESTS][p].at[i];
            if (e->asked && e->decided != 1)
                sim_fail(w, "request %d/%d was decided %d times", p, i, e->decided);
        }
}
