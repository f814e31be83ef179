/* Moves in handfuls. See play.h. */
#include "play.h"

#include <stdio.h>
#include <stdlib.h>

enum { MUCH = 1000000 };

void play_place(struct sim_world *w, const char *key, const char *lines, const char *payment)
{
    struct saga_buf value = {0};
    char sku[65];
    int quantity, n, comma = 0;

    saga_buf_printf(&value,
                    "{\"type\":\"PlaceOrder\",\"order_id\":\"%s\",\"customer_id\":\"cust-1\","
                    "\"currency\":\"EUR\",\"lines\":[",
                    key);
    for (; sscanf(lines, " %64[^ ,] %d%n", sku, &quantity, &n) == 2; lines += lines[n] ? n + 1 : n)
        saga_buf_printf(&value, "%s{\"sku\":\"%s\",\"quantity\":%d,\"unit_price\":100}",
                        comma++ ? "," : "", sku, quantity);
    if (!strcmp(payment, "later"))
        saga_buf_printf(&value, "],\"payment\":{\"mode\":\"later\"}}");
    else
        saga_buf_printf(&value, "],\"payment\":{\"token\":\"%s\"}}", payment + strlen("now "));
    saga_buf_add(&value, "", 1);
    sim_request(w, -1, key, value.at);
    saga_buf_free(&value);
}

void play_ask(struct sim_world *w, const char *type, const char *key, const char *more)
{
    char value[1024];

    snprintf(value, sizeof value, "{\"type\":\"%s\",\"order_id\":\"%s\"%s}", type, key, more);
    sim_request(w, -1, key, value);
}

static bool is_input(const struct service *s, int input, int topic)
{
    return topic == ALL || !strcmp(s->intake.topic[input], topic_names[topic]);
}

static int read_all(struct sim_world *w, int service, int topic)
{
    const struct service *s = &w->service[service];
    int n = 0;

    for (int t = 0; t < s->intake.topics; t++)
        for (int l = 0; l < LANES; l++)
            if (is_input(s, t, topic) && sim_unread(w, service, l, t) > 0)
                n += sim_read(w, service, l, t, MUCH);
    return n;
}

static int publish(struct sim_world *w, int service)
{
    int n = 0;

    for (int l = 0; l < LANES; l++) {
        n += sim_send(w, service, l, MUCH);
        sim_ack(w, service, l, MUCH);
    }
    return n;
}

static void finish(struct sim_world *w, int service)
{
    sim_decide(w, service);
    if (!w->failed[0])
        sim_commit(w, service);
}

void play_read(struct sim_world *w, int service, int topic)
{
    ck_assert_int_gt(read_all(w, service, topic), 0);
}

void play_commit(struct sim_world *w, int service)
{
    finish(w, service);
    publish(w, service);
}

bool play_run(struct sim_world *w, int service, int topic)
{
    int n = read_all(w, service, topic);

    if (n)
        finish(w, service);
    return n + publish(w, service) > 0;
}

bool play_answer(struct sim_world *w, enum how how)
{
    bool any = w->pending_n > 0;

    while (w->pending_n > 0)
        sim_call(w, 0, how);
    if (w->reply_n == 0)
        return any;
    while (w->reply_n > 0)
        sim_reply(w, 0);
    play_commit(w, PAYMENT);
    return true;
}

bool play_due(struct sim_world *w, int service)
{
    const struct saga_slots *rows = &w->service[service].batch.orders;
    bool any = false;

    for (int i = 0; i < rows->n; i++) {
        const struct saga_row *row = rows->list[i]->row;
        if (row && row->due && row->due <= w->now) {
            sim_due(w, service, rows->list[i]->key);
            any = true;
        }
    }
    if (any)
        play_commit(w, service);
    return any;
}

int64_t play_next_due(const struct sim_world *w, int service)
{
    const struct saga_slots *rows = &w->service[service].batch.orders;
    int64_t next = 0;

    for (int i = 0; i < rows->n; i++) {
        const struct saga_row *row = rows->list[i]->row;
        if (row && row->due && (!next || row->due < next))
            next = row->due;
    }
    return next;
}

void play_settle(struct sim_world *w)
{
    bool moved = true;

    while (moved && !w->failed[0]) {
        moved = false;
        for (int i = 0; i < SERVICES && !w->failed[0]; i++)
            moved |= play_run(w, i, ALL);
        moved |= !w->failed[0] && play_answer(w, ANSWERED);
    }
}

void play_expect(struct sim_world *w, const char *file, int line, const char *trace)
{
    saga_buf_add(&w->trace, "", 1);
    w->trace.n = 0;
    if (w->failed[0] || strcmp(w->trace.at, trace) != 0)
        ck_abort_msg("%s:%d: %s\n--- expected\n%s--- happened\n%s---", file, line, w->failed, trace,
                     w->trace.at);
}
