/* Draws the schedule of a seed. See draw.h. */
#include "draw.h"

#include <stdio.h>
#include <stdlib.h>

#include "order-svc/order.h"

enum { ORDERS_MAX = 12, STEPS = 160 };
#define SECOND INT64_C(1000000)

static struct sim_world w;
static struct schedule schedule;
static uint64_t state; /* of the random numbers */
static int orders, placed;
static double risk; /* of a fault, at each step */

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

static bool chance(double p)
{
    return below(1u << 30) < p * (1u << 30);
}

#define PICK(array) (array)[below(sizeof(array) / sizeof *(array))]

static const char *const skus[] = {"apple", "pear", "last-one"};

/* Makes a move, and keeps it. */
static bool make(struct move move)
{
    schedule_add(&schedule, move);
    return move_make(&w, &schedule.move[schedule.n - 1]);
}

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

    make((struct move){.kind = MOVE_REQUEST,
                       .lane = (int8_t)(unkeyed || one_in(8) ? (int)below(LANES) : -1),
                       .key = unkeyed ? NULL : key,
                       .text = value});
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
        make((struct move){.kind = MOVE_REQUEST, .lane = (int8_t)below(LANES), .text = value});
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
    if (!one_in(4) && !strcmp(sim_state(&w, ORDER, key), "PAID"))
        type = "ShipOrder";
    else if (!one_in(4) && !strcmp(sim_state(&w, ORDER, key), "SHIPPED"))
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
    if (placed < orders && !one_in(3))
        place();
    else
        ask();
}

/* ---- Batches ---- */

static struct move at(enum move_kind kind, int service, int lane, int n)
{
    return (struct move){.kind = kind, .service = (int8_t)service, .lane = (int8_t)lane, .n = n};
}

/* The first input from a random one on that has something to read. */
static void read_some(int service)
{
    const struct service *s = &w.service[service];
    uint32_t n = LANES * (uint32_t)s->intake.topics, first = below(n);
    struct move move = at(MOVE_READ, service, 0, one_in(3) ? 20 : 1 + (int)below(4));

    for (uint32_t i = first; i < first + n; i++) {
        move.lane = (int8_t)(i % LANES);
        move.input = (int8_t)(i % n / LANES);
        if (sim_unread(&w, service, move.lane, move.input) > 0) {
            make(move);
            return;
        }
    }
}

/* Of requests, whose offset decides. */
static void read_stale(int lane)
{
    const struct saga_input *in = &w.service[ORDER].lane[lane].reader.input[0];

    if (w.topic[REQUESTS][lane].n)
        make((struct move){.kind = MOVE_STALE,
                           .lane = (int8_t)lane,
                           .at = below((uint32_t)in->next_offset + 1) %
                                 (uint32_t)w.topic[REQUESTS][lane].n});
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
    bool jump = row->due > w.now && row->due - w.now < (one_in(20) ? 1000 : 20) * SECOND;
    if (jump || row->due <= w.now || one_in(10))
        make((struct move){
            .kind = MOVE_DUE, .service = (int8_t)service, .key = slot->key, .n = jump});
}

static void reply(void)
{
    struct move move = {.kind = MOVE_REPLY};
    int i = (int)below((uint32_t)w.reply_n);

    move.key = w.reply[i].key;
    while (i-- > 0)
        move.n += !strcmp(w.reply[i].key, move.key);
    make(move);
}

static void batch(void)
{
    int service = (int)below(SERVICES), parts = 1 + (int)below(4);

    if (service == ORDER && chance(risk))
        read_stale((int)below(LANES));
    for (; parts; parts--)
        switch (below(8)) {
        case 0:
            due_some(service == INVENTORY ? ORDER : service);
            if (service == INVENTORY)
                service = ORDER;
            break;
        case 1:
            if (service == PAYMENT && w.reply_n)
                reply();
            break;
        default:
            read_some(service);
        }
    for (int i = 0; i < SERVICES; i++) { /* service may have changed on the way */
        if (w.failed[0])
            return;
        if (!move_open(&w.service[i]))
            continue;
        make(at(chance(risk / 2)   ? MOVE_ABORT
                : chance(risk / 2) ? MOVE_TWICE
                                   : MOVE_COMMIT,
                i, 0, 0));
    }
    make((struct move){.kind = MOVE_CLOCK, .at = below(20000)});
}

/* ---- Publishing and calls ---- */

static void publish(void)
{
    uint32_t first = below(SERVICES * LANES);

    for (uint32_t i = first; i < first + SERVICES * LANES; i++) {
        int service = (int)(i % SERVICES), number = (int)(i / SERVICES % LANES);
        const struct lane *lane = &w.service[service].lane[number];
        if (lane->sent == lane->outbox_n && lane->acked == lane->sent)
            continue;
        if (lane->sent < lane->outbox_n)
            make(at(MOVE_SEND, service, number, 1 + (int)below(10)));
        if (!one_in(4))
            make(at(MOVE_ACK, service, number, 1 + (int)below(10)));
        return;
    }
}

static void call(void)
{
    static const enum how hows[] = {APPLIED_UNKNOWN, UNKNOWN_ONLY, APPLIED_SILENT, NEVER};

    if (w.pending_n == 0)
        return;
    const char *key = w.pending[below((uint32_t)w.pending_n)].call.key;
    if (chance(risk)) /* by two callers; the other one's answer comes at any time */
        make((struct move){.kind = MOVE_AGAIN, .key = key});
    make((struct move){
        .kind = MOVE_CALL, .key = key, .n = chance(risk * 2) ? (int)PICK(hows) : ANSWERED});
}

/* ---- Faults ---- */

/* A record is copied by somebody's tool: into its partition, or into another. */
static void copy(int service, int lane)
{
    int topic = one_in(4) ? REQUESTS : sim_topic[service];
    int n = w.topic[topic][lane].n;

    if (n)
        make((struct move){.kind = MOVE_COPY,
                           .input = (int8_t)topic,
                           .lane = (int8_t)lane,
                           .at = below((uint32_t)n),
                           .n = one_in(2) ? lane : (int)below(LANES)});
}

static void rubbish(int lane)
{
    static const char *const values[] = {"nonsense", "{}", "{\"type\":\"PlaceOrder\"}", "", NULL};

    make((struct move){.kind = MOVE_APPEND,
                       .input = (int8_t)below(PAYMENT_EVENTS + 1),
                       .lane = (int8_t)lane,
                       .text = PICK(values)});
}

static void wind(int service, int lane)
{
    const struct service *s = &w.service[service];
    int input = (int)below((uint32_t)s->intake.topics);
    struct move move = at(MOVE_REWIND, service, lane, 0);

    move.input = (int8_t)input;
    if (s->lane[lane].reader.input[input].held >= 0 && one_in(2)) {
        make((struct move){.kind = MOVE_CLOCK, .at = 11 * SECOND});
        move.kind = MOVE_OVERDUE;
    } else if (!s->intake.source[input])
        return;
    move.at =
        one_in(4) ? 0 : (int64_t)below((uint32_t)s->lane[lane].reader.input[input].next_offset + 1);
    make(move);
}

static void fault(void)
{
    static const int64_t reports[] = {INT64_MIN, -1001, -1, 0, 1};
    int service = (int)below(SERVICES), lane = (int)below(LANES);
    struct move move = at(MOVE_LOSE, service, lane, 0);

    switch (below(10)) {
    case 0:
    case 1:
        make(at(MOVE_TAKE, service, lane, one_in(2)));
        break;
    case 2:
    case 3:
        for (int i = 0; i < SERVICES * LANES; i++) /* the next one that there is */
            if (w.service[(service + i) % SERVICES].lane[(lane + i / 3) % LANES].zombies) {
                make(at(MOVE_ZOMBIE, (service + i) % SERVICES, (lane + i / 3) % LANES,
                        1 + (int)below(5)));
                break;
            }
        break;
    case 4:
        move.at = PICK(reports);
        make(move);
        break;
    case 5:
        wind(service, lane);
        break;
    case 6:
        copy(service, lane);
        break;
    case 7:
        rubbish(lane);
        break;
    case 8:
        make((struct move){.kind = MOVE_STOCK, .key = PICK(skus), .n = (int32_t)below(20)});
        break;
    case 9:
        make(at(MOVE_RELOAD, service, lane, 0));
        break;
    }
}

static void step(void)
{
    if (chance(risk)) {
        fault();
        return;
    }
    switch (below(20)) {
    case 0:
    case 1:
    case 2:
        request();
        break;
    case 3:
    case 4:
        call();
        break;
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
        publish();
        break;
    default:
        batch();
    }
}

/* ---- Seeds ---- */

const struct sim_world *draw(uint64_t seed, struct schedule **drawn)
{
    static const int64_t timeouts[] = {SECOND, 60 * SECOND, 900 * SECOND, 900 * SECOND,
                                       900 * SECOND};

    state = seed * 0x2545f4914f6cdd1d + 1;
    sim_free(&w);
    sim_init(&w, false);
    schedule_clear(&schedule);
    placed = 0;
    orders = 1 + (int)below(ORDERS_MAX);
    risk = 0.05 + 0.25 * below(1000) / 1000;
    schedule.expiring = one_in(2);
    schedule.pay_timeout = PICK(timeouts);
    order_pay_timeout = schedule.pay_timeout;
    for (int i = 0; i < 3; i++)
        make((struct move){
            .kind = MOVE_STOCK, .key = skus[i], .n = (int32_t)(i == 2 ? 1 + below(3) : below(60))});
    for (int i = 0; i < STEPS && !w.failed[0]; i++)
        step();
    if (!w.failed[0])
        schedule_drain(&schedule, &w);
    *drawn = &schedule;
    return &w;
}
