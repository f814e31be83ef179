/* What Kafka costs alone: the same hops as a saga without SQL, rules or reading.
 *
 *     floor_kafka N      of N requests that wait in order.requests; prints "SECONDS CPU_US": from
 * the first event sent to the last one acknowledged, and our CPU per saga
 *
 * Three threads stand for the services, each with a consumer and a producer of the library, so
 * their settings are those of the services: a request is answered by an OrderCreated, that by an
 * InventoryReserved, that by a PaymentCompleted, that by an OrderPaid. What goes out was written
 * beforehand, a thousand different events of each kind, as large and as compressible as real ones.
 */
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bus.h"
#include "engine.h"
#include "events.h"
#include "log.h"

enum { SAMPLES = 1000, SECOND = 1000000, STUCK_S = 60 };

/* ---- What goes out ---- */

enum what { CREATED, RESERVED, COMPLETED, PAID, WHATS };

static const struct {
    const struct saga_event *event;
    const char *source, *topic;
} whats[WHATS] = {{&order_created, "/order-svc", "order.events"},
                  {&inventory_reserved, "/inventory-svc", "inventory.events"},
                  {&payment_completed, "/payment-svc", "payment.events"},
                  {&order_paid, "/order-svc", "order.events"}};

static struct saga_buf samples[WHATS][SAMPLES];

static void write_sample(enum what what, int i)
{
    char key[32], cause[64], customer[32], skus[2][16], ref[64], id[80];
    int64_t seq = 10000 + i * 7;
    struct line lines[2] = {{skus[0], 1 + i % 3, 100 + i * 9}, {skus[1], 1, 4000 - i}};
    struct order order = {customer, "EUR", 0, {1 + i % 2, lines}, {NOW, "tok_ok"}};
    struct money money = {id, 100 + i * 13, "EUR", ref, NULL};

    snprintf(key, sizeof key, "ord-%d", i * 97);
    snprintf(cause, sizeof cause, "%d.%" PRId64 ".1795513885123", i % 12, seq - 3);
    snprintf(customer, sizeof customer, "customer-%d", i * 5);
    snprintf(skus[0], sizeof skus[0], "sku-%d", i);
    snprintf(skus[1], sizeof skus[1], "sku-%d", SAMPLES - 1 - i);
    snprintf(ref, sizeof ref, "sim-charge:%s", key);
    snprintf(id, sizeof id, "pay-%s", cause);
    order_amount(&order.lines, &order.amount);
    saga_event_write(
        &(struct saga_emission){.source = whats[what].source,
                                .event = whats[what].event,
                                .key = key,
                                .lane = i % 12,
                                .id = {seq, INT64_C(1795513885123)},
                                .previous = {seq - 1, INT64_C(1795513885123)},
                                .time_ms = INT64_C(1795513889000) + i,
                                .cause = cause,
                                .data = what < COMPLETED ? (void *)&order : (void *)&money},
        &samples[what][i]);
}

/* ---- The loops ---- */

struct hop {
    const char *group;
    const char *topics[4]; /* read */
    struct {
        const char *type; /* NULL: any; what is read */
        enum what answer;
    } answers[3]; /* by topic; WHATS: none */
    struct saga_bus *bus;
    int64_t sent;
};

static struct hop hops[] = {
    {"order",
     {"order.requests", "inventory.events", "payment.events"},
     {{NULL, CREATED}, {NULL, WHATS}, {NULL, PAID}}},
    {"inventory",
     {"order.events", "payment.events"},
     {{"\"OrderCreated\"", RESERVED}, {NULL, WHATS}}},
    {"payment", {"order.events", "inventory.events"}, {{NULL, WHATS}, {NULL, COMPLETED}}},
};
enum { HOPS = sizeof hops / sizeof *hops };

static int64_t wanted;
static _Atomic int64_t started, ended; /* us */
static _Atomic int64_t acknowledged;   /* records */
static pthread_barrier_t ready;

static void die(const char *what, const char *text)
{
    fprintf(stderr, "floor_kafka: %s: %s\n", what, text);
    exit(1);
}

static void assigned(void *owner, const int32_t *lanes, int n)
{
    struct hop *hop = owner;

    for (int i = 0; i < n; i++)
        for (int t = 0; hop->topics[t]; t++)
            saga_bus_read(hop->bus, t, lanes[i], 0);
}

static void reported(void *owner, int32_t lane, int64_t seq, int64_t offset, const char *refused)
{
    (void)owner, (void)lane, (void)seq;
    if (offset < 0)
        die("a delivery report", refused ? refused : "not delivered");
    if (atomic_fetch_add(&acknowledged, 1) + 1 == 4 * wanted)
        atomic_store(&ended, saga_now());
}

static void answer(struct hop *hop, const struct saga_record *record, int topic)
{
    const char *type = hop->answers[topic].type;
    enum what what = hop->answers[topic].answer;
    int64_t none = 0;

    if (what == WHATS || (type && !memmem(record->value, record->value_n, type, strlen(type))))
        return;
    atomic_compare_exchange_strong(&started, &none, saga_now());
    const struct saga_buf *value = &samples[what][hop->sent % SAMPLES];
    saga_bus_send(hop->bus, &(struct saga_delivery){.topic = whats[what].topic,
                                                    .partition = record->partition,
                                                    .key = record->key,
                                                    .key_n = record->key_n,
                                                    .value = value->at,
                                                    .value_n = value->n,
                                                    .lane = record->partition,
                                                    .seq = ++hop->sent});
}

static void turn(struct hop *hop, struct saga_err *err)
{
    struct pollfd fd = {saga_bus_fd(hop->bus), POLLIN, 0};
    struct saga_record record;
    int rc;

    poll(&fd, 1, 100);
    saga_bus_woken(hop->bus);
    if (saga_bus_serve(hop->bus, err) < 0)
        die(hop->group, err->text);
    for (int topic = 0; hop->topics[topic]; topic++)
        while ((rc = saga_bus_next(hop->bus, topic, &record)) != 0)
            if (rc > 0)
                answer(hop, &record, topic);
}

static void *run(void *arg)
{
    const char *brokers = getenv("KAFKA_BOOTSTRAP_SERVERS"), *prefix = getenv("SAGA_TOPIC_PREFIX");
    struct hop *hop = arg;
    struct saga_conf conf = {.brokers = brokers ? brokers : "127.0.0.1:9092",
                             .kafka_config = "",
                             .instance = hop->group,
                             .prefix = prefix ? prefix : "",
                             .session_timeout = 10 * SECOND};
    const struct saga_bus_events events = {hop, assigned, reported};
    char group[32];
    struct saga_err err = {0};

    snprintf(group, sizeof group, "floor-%s", hop->group);
    hop->bus = saga_bus_new(&conf, group, hop->topics, &events, &err);
    if (!hop->bus)
        die(hop->group, err.text);
    while (!atomic_load(&ended))
        turn(hop, &err);
    pthread_barrier_wait(&ready);
    return NULL;
}

static void watch(void)
{
    int64_t was = -1, since = saga_now();

    while (!atomic_load(&ended)) {
        int64_t now = saga_now(), is = atomic_load(&acknowledged);
        if (is != was)
            since = now;
        was = is;
        if (now - since > (int64_t)STUCK_S * SECOND)
            die("stuck", "not all hops were made");
        poll(NULL, 0, 20);
    }
}

int main(int argc, char **argv)
{
    struct rusage used;
    pthread_t thread;

    wanted = argc == 2 ? atoll(argv[1]) : 0;
    if (wanted <= 0)
        die("usage", "floor_kafka N");
    saga_log_open("floor-kafka", SAGA_ERROR);
    for (int what = 0; what < WHATS; what++)
        for (int i = 0; i < SAMPLES; i++)
            write_sample(what, i);
    pthread_barrier_init(&ready, NULL, HOPS + 1);
    for (int i = 0; i < HOPS; i++)
        if (pthread_create(&thread, NULL, run, &hops[i]))
            die("thread", "none");
    watch();
    getrusage(RUSAGE_SELF, &used);
    pthread_barrier_wait(&ready);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * SECOND +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    printf("%.3f %.1f\n", (double)(ended - started) / SECOND, cpu / (double)wanted);
    fflush(stdout);
    _Exit(0); /* closing a consumer can hang, and nothing is kept */
}
