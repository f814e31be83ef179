/* The benchmark's client of Kafka: it places orders and sees them paid.
 *
 *     load fill N                      N PlaceOrder requests, as fast as they go
 *     load await N                     until order.events holds N orders created and paid; prints
 *                                      "end", then "MS": from the first OrderCreated to the last
 *                                      OrderPaid, by Kafka's own timestamps
 *     load pace RATE LEAD SECONDS TAG  sends on schedule; prints "begin" after LEAD seconds, "end"
 *                                      after SECONDS more, then "P50 P99 MAX" in ms, from due to
 *                                      OrderPaid
 *     load terms                       prints the time of day in us at each event of order.events
 * whose writer is another than the last one's: order-svc works (again)
 *
 * Order n has the key ord-<n> (pace: ord-<TAG>-<n>), one or two lines of sku-0 to sku-999 and a
 * card that works. KAFKA_BOOTSTRAP_SERVERS and SAGA_TOPIC_PREFIX as for the services. Progress goes
 * to stderr. */
#include <errno.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SKUS = 1000, SECOND = 1000000, PARTITIONS_MAX = 256, ASK_MS = 10000, STUCK_S = 60 };

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("\nload: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec / 1000;
}

static void sleep_until(int64_t us)
{
    struct timespec t = {us / SECOND, us % SECOND * 1000};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void progress(int64_t percent)
{
    if (isatty(2))
        fprintf(stderr, percent < 0 ? "\r        \r" : "\r  %3" PRId64 " %% ", percent);
}

static void say(const char *line)
{
    puts(line);
    fflush(stdout);
}

/* ---- Kafka ---- */

static rd_kafka_t *client(rd_kafka_type_t type, const char *const (*settings)[2])
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    const char *brokers = getenv("KAFKA_BOOTSTRAP_SERVERS");
    char text[256];

    if (rd_kafka_conf_set(conf, "bootstrap.servers", brokers ? brokers : "127.0.0.1:9092", text,
                          sizeof text) ||
        rd_kafka_conf_set(conf, "log_level", "0", text,
                          sizeof text)) /* what matters ends in fail() */
        fail("%s", text);
    for (; (*settings)[0]; settings++)
        if (rd_kafka_conf_set(conf, (*settings)[0], (*settings)[1], text, sizeof text))
            fail("%s", text);
    rd_kafka_t *rk = rd_kafka_new(type, conf, text, sizeof text);
    if (!rk)
        fail("%s", text);
    return rk;
}

static rd_kafka_t *producer(const char *linger_ms)
{
    const char *const settings[][2] = {{"enable.idempotence", "true"},
                                       {"acks", "all"},
                                       {"linger.ms", linger_ms},
                                       {"partitioner", "murmur2_random"},
                                       {"socket.nagle.disable", "true"},
                                       {"compression.codec", "lz4"},
                                       {"queue.buffering.max.messages", "1000000"},
                                       {0}};

    return client(RD_KAFKA_PRODUCER, settings);
}

static rd_kafka_t *consumer(void)
{
    static const char *const settings[][2] = {{"group.id", "saga-bench"},
                                              {"enable.auto.commit", "false"},
                                              {"socket.nagle.disable", "true"},
                                              {0}};
    rd_kafka_t *rk = client(RD_KAFKA_CONSUMER, settings);

    rd_kafka_poll_set_consumer(rk);
    return rk;
}

static const char *topic_name(const char *topic)
{
    static char name[300];
    const char *prefix = getenv("SAGA_TOPIC_PREFIX");

    snprintf(name, sizeof name, "%s%s", prefix ? prefix : "", topic);
    return name;
}

static int partitions_of(rd_kafka_t *rk, const char *topic)
{
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, topic_name(topic), NULL);
    const struct rd_kafka_metadata *all;
    rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 0, handle, &all, ASK_MS);

    if (code || all->topic_cnt != 1 || all->topics[0].err)
        fail("topic %s: %s", topic_name(topic), rd_kafka_err2str(code ? code : all->topics[0].err));
    int n = all->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(all);
    rd_kafka_topic_destroy(handle);
    return n;
}

/* The ends of a topic's partitions, as a list that can be assigned. -> sum of the ends */
static int64_t ends_of(rd_kafka_t *rk, const char *topic, int partitions,
                       rd_kafka_topic_partition_list_t **list)
{
    int64_t sum = 0;

    *list = rd_kafka_topic_partition_list_new(partitions);
    for (int i = 0; i < partitions; i++)
        rd_kafka_topic_partition_list_add(*list, topic_name(topic), i)->offset =
            RD_KAFKA_OFFSET_END;
    rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(rk, *list, ASK_MS);
    if (code)
        fail("offsets of %s: %s", topic_name(topic), rd_kafka_err2str(code));
    for (int i = 0; i < partitions; i++)
        sum += (*list)->elems[i].offset;
    return sum;
}

/* ---- Orders ---- */

static uint64_t mix(uint64_t x) /* splitmix64: the same orders in every run */
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static int request_text(char *out, size_t size, const char *key, int64_t n)
{
    uint64_t r = mix((uint64_t)n);
    unsigned first = (unsigned)(r % SKUS), second = (first + 1 + (unsigned)(r >> 20) % 998) % SKUS;
    unsigned quantity = 1 + (unsigned)(r >> 32) % 3, price = 100 + (unsigned)(r >> 40) % 9900;
    int at =
        snprintf(out, size,
                 "{\"type\":\"PlaceOrder\",\"order_id\":\"%s\",\"customer_id\":\"customer-%u\","
                 "\"currency\":\"EUR\",\"lines\":[{\"sku\":\"sku-%u\",\"quantity\":%u,"
                 "\"unit_price\":%u}",
                 key, (unsigned)(r >> 10) % 5000, first, quantity, price);

    if (n % 2)
        at += snprintf(out + at, size - (size_t)at,
                       ",{\"sku\":\"sku-%u\",\"quantity\":1,\"unit_price\":%u}", second, price / 2);
    return at + snprintf(out + at, size - (size_t)at, "],\"payment\":{\"token\":\"tok_ok\"}}");
}

static void place(rd_kafka_t *rk, rd_kafka_topic_t *requests, const char *key, int64_t n)
{
    char text[512];
    int size = request_text(text, sizeof text, key, n);

    while (rd_kafka_produce(requests, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, text,
                            (size_t)size, key, strlen(key), NULL)) {
        if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            fail("produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
        rd_kafka_poll(rk, 50);
    }
}

static int fill(int64_t n)
{
    rd_kafka_t *rk = producer("20");
    rd_kafka_topic_t *requests = rd_kafka_topic_new(rk, topic_name("order.requests"), NULL);
    char key[32];

    for (int64_t i = 0; i < n; i++) {
        snprintf(key, sizeof key, "ord-%" PRId64, i);
        place(rk, requests, key, i);
    }
    if (rd_kafka_flush(rk, 60000))
        fail("the broker does not take the requests");
    return 0;
}

/* ---- The backlog ---- */

static bool is(const rd_kafka_message_t *m, const char *type)
{
    char member[64];
    int n = snprintf(member, sizeof member, "\"type\":\"%s\"", type);

    return m->payload && memmem(m->payload, m->len, member, (size_t)n);
}

struct span {
    int64_t created, paid, other; /* events */
    int64_t first, last;          /* ms: of the first created, the last paid */
};

static void look_at(const rd_kafka_message_t *m, struct span *span)
{
    int64_t at = rd_kafka_message_timestamp(m, NULL);

    if (is(m, "OrderCreated")) {
        if (span->created++ == 0 || at < span->first)
            span->first = at;
    } else if (is(m, "OrderPaid")) {
        span->paid++;
        if (at > span->last)
            span->last = at;
    } else {
        span->other++;
    }
}

static struct span read_all(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int64_t sum)
{
    struct span span = {0};

    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = 0;
    rd_kafka_assign(rk, list);
    while (span.created + span.paid + span.other < sum) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, ASK_MS);
        if (!m)
            fail("order.events cannot be read to its end");
        if (!m->err)
            look_at(m, &span);
        rd_kafka_message_destroy(m);
    }
    return span;
}

/* Asks for the ends only: reading the events would cost what is being measured. */
static int await(int64_t n)
{
    rd_kafka_t *rk = consumer();
    rd_kafka_topic_partition_list_t *list = NULL;
    int partitions = partitions_of(rk, "order.events");
    int64_t sum = 0, was = -1, since = now_us(), shown = since;

    while ((sum = ends_of(rk, "order.events", partitions, &list)) < 2 * n) {
        int64_t now = now_us();
        if (sum != was)
            since = now;
        was = sum;
        if (now - since > (int64_t)STUCK_S * SECOND)
            fail("nothing has moved for %d s: %" PRId64 " of %" PRId64 " events", STUCK_S, sum,
                 2 * n);
        if (now - shown >= SECOND / 2) {
            progress(sum * 50 / n);
            shown = now;
        }
        rd_kafka_topic_partition_list_destroy(list);
        sleep_until(now_us() + 20000);
    }
    say("end");
    struct span span = read_all(rk, list, sum);
    rd_kafka_topic_partition_list_destroy(list);
    progress(-1);
    if (span.created != n || span.paid != n || span.other)
        fail("order.events: %" PRId64 " OrderCreated, %" PRId64 " OrderPaid and %" PRId64
             " others for %" PRId64 " orders",
             span.created, span.paid, span.other, n);
    printf("%" PRId64 "\n", span.last - span.first);
    return 0;
}

/* ---- On schedule ---- */

static struct pace {
    rd_kafka_t *consumer;
    const char *tag;
    int64_t n, *due, *took; /* us; took 0: not paid yet */
    _Atomic int64_t paid;
    _Atomic bool over;
} pace;

static void *see_paid(void *unused)
{
    size_t tag = strlen(pace.tag);

    while (!atomic_load(&pace.over)) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(pace.consumer, 200);
        int64_t now = now_us();
        char key[64];
        if (!m)
            continue;
        if (!m->err && m->key && m->key_len < sizeof key && is(m, "OrderPaid")) {
            snprintf(key, sizeof key, "%.*s", (int)m->key_len, (const char *)m->key);
            int64_t i = strncmp(key, "ord-", 4) || strncmp(key + 4, pace.tag, tag)
                            ? -1
                            : strtoll(key + 4 + tag + 1, NULL, 10);
            if (i >= 0 && i < pace.n && !pace.took[i]) {
                pace.took[i] = now - pace.due[i];
                atomic_fetch_add(&pace.paid, 1);
            }
        }
        rd_kafka_message_destroy(m);
    }
    return unused;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static double quantile_ms(const int64_t *sorted, int64_t n, double q)
{
    int64_t i = (int64_t)(q * (double)n + 0.999999) - 1; /* nearest rank */

    return (double)sorted[i < 0 ? 0 : i] / 1000;
}

/* Reads order.events from where it ends now. */
static void assign_end(rd_kafka_t *rk)
{
    rd_kafka_topic_partition_list_t *list;

    ends_of(rk, "order.events", partitions_of(rk, "order.events"), &list);
    rd_kafka_assign(rk, list);
    rd_kafka_topic_partition_list_destroy(list);
}

static void start_seeing(void)
{
    pthread_t thread;

    pace.consumer = consumer();
    assign_end(pace.consumer);
    if (pthread_create(&thread, NULL, see_paid, NULL))
        fail("no thread");
    pthread_detach(thread);
}

static void send_on_schedule(int64_t rate, int64_t lead)
{
    rd_kafka_t *rk = producer("0");
    rd_kafka_topic_t *requests = rd_kafka_topic_new(rk, topic_name("order.requests"), NULL);
    int64_t start, shown;
    char key[64];

    partitions_of(rk, "order.requests"); /* connects, and knows where to send */
    start = shown = now_us() + SECOND / 10;
    for (int64_t i = 0; i < pace.n; i++) {
        pace.due[i] = start + i * SECOND / rate;
        sleep_until(pace.due[i]);
        if (i == lead)
            say("begin");
        snprintf(key, sizeof key, "ord-%s-%" PRId64, pace.tag, i);
        place(rk, requests, key, i);
        if (i % 16 == 0)
            rd_kafka_poll(rk, 0);
        if (pace.due[i] - shown >= SECOND) {
            progress(i * 100 / pace.n);
            shown = pace.due[i];
        }
    }
    rd_kafka_flush(rk, ASK_MS);
}

static int run_pace(int64_t rate, int64_t lead_seconds, int64_t seconds, const char *tag)
{
    int64_t lead = rate * lead_seconds, counted = rate * seconds, deadline;

    pace.tag = tag;
    pace.n = lead + counted;
    pace.due = calloc((size_t)pace.n, sizeof *pace.due);
    pace.took = calloc((size_t)pace.n, sizeof *pace.took);
    if (!pace.due || !pace.took)
        fail("out of memory");
    start_seeing();
    send_on_schedule(rate, lead);
    deadline = now_us() + (int64_t)STUCK_S * SECOND;
    while (atomic_load(&pace.paid) < pace.n) {
        if (now_us() > deadline)
            fail("%" PRId64 " of %" PRId64 " orders are not paid", pace.n - atomic_load(&pace.paid),
                 pace.n);
        sleep_until(now_us() + 1000);
    }
    say("end");
    atomic_store(&pace.over, true);
    progress(-1);
    int64_t *took = pace.took + lead;
    qsort(took, (size_t)counted, sizeof *took, by_size);
    printf("%.2f %.2f %.2f\n", quantile_ms(took, counted, 0.5), quantile_ms(took, counted, 0.99),
           (double)took[counted - 1] / 1000);
    return 0;
}

/* ---- Who writes ---- */

static int64_t term_of(const rd_kafka_message_t *m)
{
    char text[64];
    const char *id = m->payload ? memmem(m->payload, m->len, "\"id\":\"", 6) : NULL;
    int64_t term = 0;

    if (!id)
        return 0;
    snprintf(text, sizeof text, "%.*s", (int)((const char *)m->payload + m->len - id), id);
    return sscanf(text, "\"id\":\"%*d.%*d.%" SCNd64, &term) == 1 ? term : 0;
}

static void see_terms(void) __attribute__((noreturn));
static void see_terms(void)
{
    int64_t newest = 0;

    pace.consumer = consumer();
    assign_end(pace.consumer);
    for (;;) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(pace.consumer, 200);
        struct timespec now;
        char line[32];
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t term = m && !m->err ? term_of(m) : 0;
        /* Each lane has a term of its own; those of one start lie within half a second. */
        if (term > newest + 500) {
            snprintf(line, sizeof line, "%" PRId64,
                     (int64_t)now.tv_sec * SECOND + now.tv_nsec / 1000);
            say(line);
        }
        newest = term > newest ? term : newest;
        if (m)
            rd_kafka_message_destroy(m);
    }
}

static int64_t number(const char *text)
{
    char *end;
    int64_t n = strtoll(text, &end, 10);

    if (*end || n < 0)
        fail("%s is not a number", text);
    return n;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";

    if (!strcmp(verb, "fill") && argc == 3)
        return fill(number(argv[2]));
    if (!strcmp(verb, "await") && argc == 3)
        return await(number(argv[2]));
    if (!strcmp(verb, "pace") && argc == 6)
        return run_pace(number(argv[2]), number(argv[3]), number(argv[4]), argv[5]);
    if (!strcmp(verb, "terms") && argc == 2)
        see_terms();
    fail("usage: load fill N | await N | pace RATE LEAD SECONDS TAG | terms");
}
