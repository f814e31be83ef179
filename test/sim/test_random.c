/* Seeded schedules: orders of all kinds, requests at any moment, batches of any shape, deliveries
 * in any order, crashes, owners that come and go, old copies between new ones, lost answers. The
 * invariants hold after every step, and when nothing moves any more every order has its end.
 *
 * A seed replays exactly. When one fails it is played again with its transcript. */
#include <stdio.h>
#include <stdlib.h>

#include "order-svc/order.h"
#include "play.h"
#include "suites.h"

enum { ORDERS = 30, STEPS = 800, SEEDS_IN_CHECK = 2000, MOST = 1000000 };
#define SECOND INT64_C(1000000)

static struct sim_world w;
static uint64_t state; /* of the random numbers */
static int placed;
static bool expiring; /* this world ends after all deadlines */

static uint32_t below(uint32_t n)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (uint32_t)((z ^ z >> 31) >> 32) % n;
}

static bool one_in(uint32_t n)
{
    return below(n) == 0;
}

#define PICK(array) (array)[below(sizeof(array) / sizeof *(array))]

static const char *const skus[] = {"apple", "pear", "last-one"};

/* ---- Requests ---- */

static const char *token(char *out)
{
    static const char *const tokens[] = {
        "tok_ok",     "tok_ok",       "tok_ok",      "tok_ok",           "tok_ok",
        "tok_ok",     "tok_declined", "tok_expired", "tok_unknown_once", "tok_unknown_declined",
        "tok_slow_5", "tok_other"};

    if (one_in(5))
        sprintf(out, "tok_refund_refused_%u", below(4));
    else
        strcpy(out, PICK(tokens));
    return out;
}

/* Some producers give no key, or have another partitioner. */
static void send_request(const char *key, const char *value)
{
    bool unkeyed = one_in(6);

    sim_request(&w, unkeyed || one_in(8) ? (int)below(LANES) : -1, unkeyed ? NULL : key, value);
}

static void place(void)
{
    char value[1024], key[16], tok[32];
    int n, first = one_in(5) ? 2 : (int)below(2), lines = one_in(2) ? 1 : 1 + (int)below(3);
    bool nameless = one_in(12);

    sprintf(key, "o%d", placed);
    if (placed && one_in(10)) /* placed again, with other content */
        sprintf(key, "o%u", below((uint32_t)placed));
    else
        placed++;
    n = sprintf(value, "{\"type\":\"PlaceOrder\",");
    if (!nameless)
        n += sprintf(value + n, "\"order_id\":\"%s\",", key);
    n += sprintf(value + n, "\"customer_id\":\"c\",\"currency\":\"EUR\",\"lines\":[");
    for (int i = 0; i < lines; i++)
        n +=
            sprintf(value + n, "%s{\"sku\":\"%s\",\"quantity\":%u,\"unit_price\":%u}", i ? "," : "",
                    one_in(60) ? "plum" : skus[(first + i) % 3], 1 + below(3), below(500));
    if (one_in(3))
        sprintf(value + n, "],\"payment\":{\"mode\":\"later\"}}");
    else
        sprintf(value + n, "],\"payment\":{\"token\":\"%s\"}}", token(tok));
    if (nameless && one_in(2))
        sim_request(&w, (int)below(LANES), NULL, value);
    else if (strstr(value, "plum") && strstr(strstr(value, "plum") + 1, "plum"))
        return; /* an SKU twice: refused, and not what is looked at here */
    else
        send_request(key, value);
}

static void ask(void)
{
    static const char *const types[] = {"PayOrder",  "PayOrder",      "CancelOrder",  "ShipOrder",
                                        "ShipOrder", "CompleteOrder", "CompleteOrder"};
    const char *type = PICK(types);
    char value[256], key[16], tok[32];

    sprintf(key, "o%u", below((uint32_t)placed + 1));
    if (one_in(2) && !strcmp(sim_state(&w, ORDER, key), "PAID"))
        type = "ShipOrder";
    else if (one_in(2) && !strcmp(sim_state(&w, ORDER, key), "SHIPPED"))
        type = "CompleteOrder";
    if (!strcmp(type, "PayOrder"))
        sprintf(value, "{\"type\":\"PayOrder\",\"order_id\":\"%s\",\"token\":\"%s\"}", key,
                token(tok));
    else
        sprintf(value, "{\"type\":\"%s\",\"order_id\":\"%s\"}", type, key);
    send_request(key, value);
}

static void request(void)
{
    if (placed < ORDERS && !one_in(3))
        place();
    else
        ask();
}

/* ---- Batches ---- */

static void read_some(int service)
{
    const struct service *s = &w.service[service];
    int lane = (int)below(LANES), input = (int)below((uint32_t)s->intake.topics);

    if (sim_unread(&w, service, lane, input) > 0)
        sim_read(&w, service, lane, input, one_in(3) ? 20 : 1 + (int)below(4));
    else if (one_in(20) && w.topic[REQUESTS][lane].n && service == ORDER)
        sim_read_stale(&w, service, lane, 0,
                       below((uint32_t)s->lane[lane].reader.input[0].next_offset + 1) %
                           (uint32_t)w.topic[REQUESTS][lane].n);
}

/* A key that is due, or, rarely, one that is not. */
static void due_some(int service)
{
    const struct saga_slots *rows = &w.service[service].batch.orders;

    if (rows->n == 0)
        return;
    const struct saga_slot *slot = rows->list[below((uint32_t)rows->n)];
    const struct saga_row *row = slot->row;
    if (!row || !row->due)
        return;
    if (row->due > w.now && row->due - w.now < (one_in(400) ? 1000 : 20) * SECOND)
        w.now = row->due;
    if (row->due <= w.now || one_in(10))
        sim_due(&w, service, slot->key);
}

static void batch(void)
{
    int service = (int)below(SERVICES), parts = 1 + (int)below(4);

    for (; parts; parts--)
        switch (below(8)) {
        case 0:
            due_some(service == INVENTORY ? ORDER : service);
            if (service == INVENTORY)
                service = ORDER;
            break;
        case 1:
            if (service == PAYMENT && w.reply_n)
                sim_reply(&w, (int)below((uint32_t)w.reply_n));
            break;
        default:
            read_some(service);
        }
    for (int i = 0; i < SERVICES; i++) { /* service may have changed on the way */
        sim_decide(&w, i);
        if (w.failed[0])
            return;
        if (one_in(20)) {
            uint64_t hash = sim_hash(&w, i);
            for (int l = 0; l < LANES; l++)
                w.service[i].batch.writer[l] =
                    (struct saga_writer){l, w.service[i].lane[l].term,
                                         w.service[i].lane[l].last_seq, w.service[i].lane[l].last};
            sim_decide(&w, i);
            if (hash != sim_hash(&w, i))
                sim_fail(&w, "a batch decided twice is not the same");
        }
        if (one_in(15))
            sim_abort(&w, i);
        else
            sim_commit(&w, i);
    }
    w.now += below(20000);
}

/* ---- Publishing and calls ---- */

static void publish(void)
{
    int service = (int)below(SERVICES), lane = (int)below(LANES);

    sim_send(&w, service, lane, 1 + (int)below(10));
    if (!one_in(4))
        sim_ack(&w, service, lane, 1 + (int)below(10));
}

static void call(void)
{
    static const enum how hows[] = {ANSWERED,        ANSWERED,     ANSWERED,       ANSWERED,
                                    APPLIED_UNKNOWN, UNKNOWN_ONLY, APPLIED_SILENT, NEVER};

    if (w.pending_n == 0)
        return;
    int i = (int)below((uint32_t)w.pending_n);
    if (one_in(6)) { /* made twice, by two callers; the other one's comes at any time */
        ROOM_FOR(w.pending, w.pending_n, w.pending_cap);
        w.pending[w.pending_n++] = w.pending[i];
    }
    sim_call(&w, i, PICK(hows));
}

/* ---- Faults ---- */

static void lose(int service, int lane)
{
    static const int64_t reports[] = {INT64_MIN, -1001, -1, 0, 1};
    int64_t report = PICK(reports);

    if (report > w.service[service].lane[lane].out.known_offset)
        report = -1; /* it could be true */
    sim_lose(&w, service, lane, report);
}

/* A record is copied by somebody's tool: into its partition, or into another. */
static void copy(int service, int lane)
{
    enum topic topic = one_in(4) ? REQUESTS : (enum topic)sim_topic[service];
    const struct partition *p = &w.topic[topic][lane];

    if (p->n == 0)
        return;
    struct saga_record record = p->at[below((uint32_t)p->n)].record;
    sim_move(&w, "# copy of %s/%d/%lld", topic_names[topic], lane, (long long)record.offset);
    if (topic == REQUESTS)
        record.headers_n = 0; /* by kafka-console-producer */
    sim_append(&w, topic, one_in(2) ? lane : (int)below(LANES), &record);
}

static void rubbish(int lane)
{
    static const char *const values[] = {"nonsense", "{}", "{\"type\":\"PlaceOrder\"}", ""};
    const char *value = PICK(values);

    sim_append(&w, (enum topic)below(PAYMENT_EVENTS + 1), lane,
               &(struct saga_record){.value = one_in(5) ? NULL : value, .value_n = strlen(value)});
}

static void fault(void)
{
    int service = (int)below(SERVICES), lane = (int)below(LANES);
    const struct service *s = &w.service[service];
    int input = (int)below((uint32_t)s->intake.topics);
    int64_t next = s->lane[lane].reader.input[input].next_offset;

    switch (below(10)) {
    case 0:
    case 1:
        sim_take(&w, service, lane, one_in(2));
        break;
    case 2:
    case 3:
        sim_zombie(&w, service, lane, 1 + (int)below(5));
        break;
    case 4:
        lose(service, lane);
        break;
    case 5:
        if (one_in(4)) {
            w.now += 11 * SECOND;
            sim_overdue(&w, service, lane, input);
        } else if (s->intake.source[input])
            sim_rewind(&w, service, lane, input,
                       one_in(4) ? 0 : (int64_t)below((uint32_t)next + 1));
        break;
    case 6:
        copy(service, lane);
        break;
    case 7:
        rubbish(lane);
        break;
    case 8:
        sim_stock(&w, PICK(skus), below(60));
        break;
    case 9:
        sim_reload(&w, service, lane);
        break;
    }
}

static void step(void)
{
    switch (below(20)) {
    case 0:
    case 1:
        request();
        break;
    case 2:
    case 3:
    case 4:
        call();
        break;
    case 5:
        fault();
        break;
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
        publish();
        break;
    default:
        batch();
    }
}

/* ---- The end: faults are over, everything that waits comes ---- */

static void heal(void)
{
    for (int i = 0; i < SERVICES; i++)
        for (int l = 0; l < LANES; l++) {
            while (w.service[i].lane[l].zombies)
                sim_zombie(&w, i, l, MOST);
            if (w.service[i].lane[l].lost)
                sim_take(&w, i, l, false);
        }
}

static bool next_due(void)
{
    int64_t payment = play_next_due(&w, PAYMENT), order = play_next_due(&w, ORDER);

    if (order > w.now && !expiring)
        order = 0; /* these customers have time left when the world ends */
    int64_t at = payment && (!order || payment < order) ? payment : order;
    if (!at)
        return false;
    if (at > w.now)
        w.now = at;
    bool any = play_due(&w, PAYMENT);
    return play_due(&w, ORDER) || any;
}

static void drain(void)
{
    int rounds = 0;

    heal();
    do {
        play_settle(&w);
        if (rounds++ > 2000)
            sim_fail(&w, "it never comes to rest");
    } while (!w.failed[0] && next_due());
    if (!w.failed[0])
        check_end(&w);
}

/* ---- Seeds ---- */

static void play(uint64_t seed, bool tracing)
{
    static const int64_t timeouts[] = {SECOND, 60 * SECOND, 900 * SECOND, 900 * SECOND,
                                       900 * SECOND};

    state = seed * 0x2545f4914f6cdd1d + 1;
    sim_init(&w, tracing);
    w.moves = tracing;
    placed = 0;
    expiring = one_in(2);
    order_pay_timeout = PICK(timeouts);
    for (int i = 0; i < 3; i++)
        sim_stock(&w, skus[i], i == 2 ? 1 + below(5) : below(100));
    for (int i = 0; i < STEPS && !w.failed[0]; i++)
        step();
    if (!w.failed[0])
        drain();
}

static void play_one(uint64_t seed)
{
    play(seed, true);
    printf("%.*s\n", (int)w.trace.n, w.trace.at);
    fflush(stdout);
    if (w.failed[0])
        ck_abort_msg("seed %llu: %s (make sim SEED=%llu prints its transcript)",
                     (unsigned long long)seed, w.failed, (unsigned long long)seed);
}

struct sums {
    int64_t orders, ends[SAGA_STATES], events, duplicates, gaps, forwards, dead;
};

static void add_up(struct sums *sum)
{
    const struct saga_slots *rows = &w.service[ORDER].batch.orders;

    for (int i = 0; i < rows->n; i++) {
        const struct saga_row *row = rows->list[i]->row;
        sum->orders += row && row->state;
        sum->ends[row ? row->state : 0]++;
    }
    sum->events += w.events;
    sum->duplicates += w.duplicates;
    sum->gaps += w.gaps;
    sum->forwards += w.forwards;
    sum->dead += w.dead;
}

/* Cells that are not impossible and that no schedule came to; what is not due has no cell. -> how
 * many */
static int unreached(void)
{
    int n = 0;

    for (int i = 0; i < SERVICES; i++) {
        const struct saga_service *s = w.service[i].sim->service;
        for (int r = 0; s->rules[r].input; r++)
            for (int c = 0; s->states[c]; c++)
                if (s->rules[r].cell[c] != saga_impossible && s->rules[r].input != &saga_due &&
                    !cells_run[i][r][c]) {
                    printf("sim: not reached: %s, %s in %s\n", s->name, s->rules[r].input->type,
                           s->states[c]);
                    n++;
                }
    }
    fflush(stdout);
    return n;
}

START_TEST(seeds)
{
    const char *n = getenv("SEEDS"), *one = getenv("SEED");
    uint64_t to = n ? strtoull(n, NULL, 10) : SEEDS_IN_CHECK;
    struct sums sum = {0};

    if (one) {
        play_one(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= to; seed++) {
        play(seed, false);
        add_up(&sum);
        if (w.failed[0]) {
            sim_free(&w);
            play_one(seed);
        }
        if (seed < to)
            sim_free(&w);
    }
    printf("sim: %llu seeds: %lld orders, %lld events, %lld duplicates dropped, %lld in gaps, "
           "%lld forwards, %lld dead letters\n",
           (unsigned long long)to, (long long)sum.orders, (long long)sum.events,
           (long long)sum.duplicates, (long long)sum.gaps, (long long)sum.forwards,
           (long long)sum.dead);
    for (int i = 1; order_states[i]; i++)
        printf("%s %s %lld", i > 1 ? "," : "sim:", order_states[i], (long long)sum.ends[i]);
    printf("\n");
    if (to >= SEEDS_IN_CHECK)
        ck_assert_msg(unreached() == 0, "cells that no schedule reaches");
}
END_TEST

Suite *random_suite(void)
{
    Suite *suite = suite_create("random");
    TCase *t = tcase_create("seeds");

    tcase_set_timeout(t, 3600);
    tcase_add_test(t, seeds);
    suite_add_tcase(suite, t);
    return suite;
}
