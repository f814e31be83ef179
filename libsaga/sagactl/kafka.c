/* Talks to Kafka for the commands. It reads as a consumer that belongs to no group and stores no
 * offsets: looking at a topic changes nothing for anybody. */
#include "kafka.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ctl.h"
#include "kafka_file.h"
#include "post.h"

enum { ANSWER_MS = 10000, SEND_MS = 10000, DONE = -1 };

const char *const ctl_all_topics[] = {
    "order.requests", "order.events",  "inventory.events", "payment.events",
    "order.dlq",      "inventory.dlq", "payment.dlq",      NULL};

const char *ctl_brokers(void)
{
    return ctl_env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092");
}

static const char *prefix(void)
{
    return ctl_env("SAGA_TOPIC_PREFIX", "");
}

const char *ctl_topic(const char *name)
{
    static char ring[8][256];
    static int next;
    char *out = ring[next++ % 8];
    snprintf(out, sizeof ring[0], "%s%s", prefix(), name);
    return out;
}

static _Noreturn void away(rd_kafka_resp_err_t why)
{
    ctl_die(CTL_AWAY, "Kafka does not answer at %s (KAFKA_BOOTSTRAP_SERVERS): %s", ctl_brokers(),
            rd_kafka_err2str(why));
}

/* What is asked again until then, as errors pass: ends the program when the time is over. */
static int left_until(int64_t until, rd_kafka_resp_err_t why)
{
    int64_t now = ctl_now_ms();
    if (now >= until)
        away(why);
    if (why)
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    return (int)(until - now);
}

/* ---- Handles ---- */

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK)
        ctl_die(CTL_USAGE, "Kafka setting: %s", why);
}

/* Quiet: what a connection goes through is not what the user asked; who cannot go on says so. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk, (void)level, (void)facility, (void)text;
}

static int failed_sends;
static rd_kafka_resp_err_t why_failed;
static int32_t last_partition;
static int64_t last_offset;

static bool believe(rd_kafka_t *rk, const rd_kafka_message_t *m)
{
    static struct reported {
        struct saga_reported is;
        char topic[256];
        int32_t partition;
        struct reported *next;
    } * all;
    struct reported *r = all;
    while (r &&
           (r->partition != m->partition || strcmp(r->topic, rd_kafka_topic_name(m->rkt)) != 0))
        r = r->next;
    if (!r) {
        r = saga_alloc(sizeof *r);
        *r = (struct reported){.partition = m->partition, .next = all};
        snprintf(r->topic, sizeof r->topic, "%s", rd_kafka_topic_name(m->rkt));
        all = r;
    }
    return saga_reported_believe(&r->is, m->offset, rd_kafka_outq_len(rk));
}

/* A report of success may be one that was only inferred (post.h). */
static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)opaque;
    if (m->err || !believe(rk, m)) {
        failed_sends++;
        why_failed = m->err ? m->err : RD_KAFKA_RESP_ERR__TIMED_OUT;
    } else {
        last_partition = m->partition;
        last_offset = m->offset;
    }
}

rd_kafka_t *ctl_kafka(rd_kafka_type_t type, ...)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", ctl_brokers());
    set(conf, "client.id", "sagactl");
    set(conf, "socket.nagle.disable", "true");
    set(conf, "reconnect.backoff.ms", "50");
    set(conf, "reconnect.backoff.max.ms", "1000");
    set(conf, "allow.auto.create.topics", "false");
    va_list pairs;
    va_start(pairs, type);
    for (const char *name; (name = va_arg(pairs, const char *));)
        set(conf, name, va_arg(pairs, const char *));
    va_end(pairs);
    const char *file = ctl_env("KAFKA_CONFIG", "");
    struct saga_err err = {0};
    if (*file && saga_kafka_file(conf, file, &err) < 0)
        ctl_die(CTL_USAGE, "%s", err.text);
    rd_kafka_conf_set_log_cb(conf, on_log);
    if (type == RD_KAFKA_PRODUCER)
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    char why[256];
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof why);
    if (!rk)
        ctl_die(CTL_USAGE, "Kafka: %s", why);
    return rk;
}

/* Its group.id is needed by librdkafka to poll, and never joined. */
static rd_kafka_t *reader(void)
{
    static rd_kafka_t *rk;
    if (!rk) {
        rk = ctl_kafka(RD_KAFKA_CONSUMER, "group.id", "sagactl", "enable.auto.commit", "false",
                       "enable.auto.offset.store", "false", "auto.offset.reset", "earliest",
                       "enable.partition.eof", "true", "fetch.wait.max.ms", "100",
                       "fetch.error.backoff.ms", "50", NULL);
        rd_kafka_poll_set_consumer(rk);
    }
    return rk;
}

static int32_t partitions_of(const char *topic, bool led)
{
    rd_kafka_topic_t *t = rd_kafka_topic_new(reader(), ctl_topic(topic), NULL);
    const struct rd_kafka_metadata *md;
    int64_t until = ctl_now_ms() + ANSWER_MS;
    rd_kafka_resp_err_t e = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (!t)
        away(rd_kafka_last_error());
    while ((e = rd_kafka_metadata(reader(), 0, t, &md, left_until(until, e))))
        ;
    int32_t n = 0;
    if (md->topic_cnt == 1 && !md->topics[0].err)
        n = md->topics[0].partition_cnt;
    for (int32_t i = 0; led && i < n; i++)
        if (md->topics[0].partitions[i].leader < 0)
            n = 0;
    rd_kafka_metadata_destroy(md);
    rd_kafka_topic_destroy(t);
    return n;
}

int32_t ctl_partitions_of(const char *topic)
{
    return partitions_of(topic, false);
}

bool ctl_is_led(const char *topic)
{
    return partitions_of(topic, true) > 0;
}

int32_t ctl_partitions(const char *topic)
{
    int32_t n = ctl_partitions_of(topic);
    if (n == 0)
        ctl_die(CTL_AWAY, "topic %s does not exist at %s: sagactl topics apply", ctl_topic(topic),
                ctl_brokers());
    return n;
}

/* ---- Sending ---- */

static rd_kafka_t *producer(void)
{
    static rd_kafka_t *rk;
    static char ms[16];
    snprintf(ms, sizeof ms, "%d", SEND_MS);
    if (!rk) {
        ctl_partitions(
            "order.requests"); /* a missing topic is told at once, not after a time-out */
        rk = ctl_kafka(RD_KAFKA_PRODUCER, "enable.idempotence", "true", "partitioner",
                       "murmur2_random", "linger.ms", "0", "message.timeout.ms", ms, NULL);
    }
    return rk;
}

void ctl_send(const char *key, const char *value, size_t n)
{
    for (;;) {
        rd_kafka_resp_err_t e =
            rd_kafka_producev(producer(), RD_KAFKA_V_TOPIC(ctl_topic("order.requests")),
                              RD_KAFKA_V_KEY((void *)(uintptr_t)key, key ? strlen(key) : 0),
                              RD_KAFKA_V_VALUE((void *)(uintptr_t)value, n),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        if (!e)
            return;
        if (e != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            ctl_die(CTL_AWAY, "not sent: %s", rd_kafka_err2str(e));
        rd_kafka_poll(producer(), 100);
    }
}

/* After a failure it is not known whether the request is in Kafka: the same order id makes a repeat
 * harmless, and the user must know to keep it. */
void ctl_flush(const char *id, char place[128])
{
    rd_kafka_resp_err_t e = rd_kafka_flush(producer(), SEND_MS + 1000);
    if (e || failed_sends)
        ctl_die(
            CTL_AWAY,
            "%s: Kafka at %s did not acknowledge %d requests: the outcome is unknown, repeat them "
            "with the same order id%s%s",
            rd_kafka_err2str(e ? e : why_failed), ctl_brokers(),
            e ? rd_kafka_outq_len(producer()) : failed_sends, id ? ", " : "", id ? id : "");
    snprintf(place, 128, "order.requests/%d/%lld", last_partition, (long long)last_offset);
}

void ctl_send_record(const char *topic, int32_t partition, const struct saga_record *record,
                     char place[128])
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)record->headers_n);
    for (int i = 0; i < record->headers_n; i++) {
        const struct saga_header *h = &record->headers[i];
        rd_kafka_header_add(headers, h->name, -1, h->value, h->value ? (ssize_t)h->n : -1);
    }
    rd_kafka_resp_err_t e = rd_kafka_producev(
        producer(), RD_KAFKA_V_TOPIC(ctl_topic(topic)), RD_KAFKA_V_PARTITION(partition),
        RD_KAFKA_V_KEY((void *)(uintptr_t)record->key, record->key_n),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)record->value, record->value_n),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    if (e) {
        rd_kafka_headers_destroy(headers);
        ctl_die(CTL_AWAY, "not sent: %s", rd_kafka_err2str(e));
    }
    ctl_flush(NULL, place);
    snprintf(place, 128, "%s/%d/%lld", topic, last_partition, (long long)last_offset);
}

/* ---- Reading ---- */

static struct {
    rd_kafka_topic_partition_list_t *ends; /* of what is still to be read; offset: the end, DONE */
    bool bounded;
    int open;
    rd_kafka_message_t *message;
    struct saga_header *headers;
    int headers_cap;
} now;

static rd_kafka_topic_partition_list_t *partitions(const struct ctl_where *w)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(64);
    for (int t = 0; w->topics[t]; t++) {
        int32_t n = ctl_partitions(w->topics[t]);
        for (int32_t p = 0; p < n; p++)
            if (w->partition < 0 || w->partition == p)
                rd_kafka_topic_partition_list_add(list, ctl_topic(w->topics[t]), p);
    }
    return list;
}

/* Replaces each offset, which is a time or one of Kafka's logical ones, by the offset that it
 * means. */
static void resolve(rd_kafka_topic_partition_list_t *list, int64_t what)
{
    int64_t until = ctl_now_ms() + ANSWER_MS;
    rd_kafka_resp_err_t e = RD_KAFKA_RESP_ERR_NO_ERROR;
    do {
        for (int i = 0; i < list->cnt; i++)
            list->elems[i].offset = what;
    } while ((e = rd_kafka_offsets_for_times(reader(), list, left_until(until, e))));
}

static void start(rd_kafka_topic_partition_list_t *list, const struct ctl_where *w)
{
    resolve(list, w->from == CTL_BEGINNING ? RD_KAFKA_OFFSET_BEGINNING
                  : w->from == CTL_TIME    ? w->at
                                           : RD_KAFKA_OFFSET_END);
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_topic_partition_t *p = &list->elems[i];
        if (w->from == CTL_OFFSET)
            p->offset = w->at;
        else if (p->offset < 0) /* no record is as young as that */
            p->offset = now.ends->elems[i].offset;
    }
}

void ctl_read(const struct ctl_where *w)
{
    rd_kafka_topic_partition_list_t *from = partitions(w);
    if (now.ends)
        rd_kafka_topic_partition_list_destroy(now.ends);
    now.ends = rd_kafka_topic_partition_list_copy(from);
    now.bounded = w->bounded;
    resolve(now.ends, RD_KAFKA_OFFSET_END);
    start(from, w);
    for (int i = from->cnt - 1; w->bounded && i >= 0; i--)
        if (from->elems[i].offset >= now.ends->elems[i].offset) { /* nothing to read */
            rd_kafka_topic_partition_list_del_by_idx(from, i);
            rd_kafka_topic_partition_list_del_by_idx(now.ends, i);
        }
    now.open = from->cnt;
    rd_kafka_resp_err_t e = rd_kafka_assign(reader(), from);
    if (e)
        away(e);
    rd_kafka_topic_partition_list_destroy(from);
}

/* Closes the partition if all up to its end has been read: it is not always a record that stands there
 * last (a transaction's marker). What lies behind the end came later: not ours. */
static bool within(const rd_kafka_message_t *m)
{
    if (!now.bounded)
        return !m->err;
    rd_kafka_topic_partition_t *end =
        rd_kafka_topic_partition_list_find(now.ends, rd_kafka_topic_name(m->rkt), m->partition);
    if (!end || end->offset == DONE)
        return false;
    bool ours = !m->err && m->offset < end->offset;
    if (m->offset + ours >= end->offset) {
        end->offset = DONE;
        now.open--;
    }
    return ours;
}

/* -> false: there is nothing to tell of it */
static bool is_told(const rd_kafka_message_t *m)
{
    if (m->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
        ctl_die(CTL_AWAY, "%s", rd_kafka_message_errstr(m));
    return (!m->err || m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) && within(m);
}

static void headers(rd_kafka_message_t *m, struct saga_record *record)
{
    rd_kafka_headers_t *h;
    record->headers = now.headers;
    record->headers_n = 0;
    if (rd_kafka_message_headers(m, &h))
        return;
    const char *name;
    const void *value;
    size_t n;
    while (!rd_kafka_header_get_all(h, (size_t)record->headers_n, &name, &value, &n)) {
        if (record->headers_n == now.headers_cap) {
            now.headers_cap = now.headers_cap ? 2 * now.headers_cap : 16;
            now.headers = saga_realloc(now.headers, (size_t)now.headers_cap * sizeof *now.headers);
            record->headers = now.headers;
        }
        now.headers[record->headers_n++] = (struct saga_header){name, value, n};
    }
}

/* Brokers that are away are waited for: a watch outlives a restart of Kafka. A bounded read gives
 * up when nothing has come for long. */
int ctl_next(int ms, struct saga_record *record)
{
    static int64_t silent_since;
    if (now.message)
        rd_kafka_message_destroy(now.message);
    now.message = NULL;
    int64_t until = ctl_now_ms() + ms;
    for (;;) {
        if (now.bounded && now.open == 0)
            return -1;
        int64_t left = until - ctl_now_ms();
        rd_kafka_message_t *m = rd_kafka_consumer_poll(reader(), left > 0 ? (int)left : 0);
        if (!m) {
            silent_since = silent_since ? silent_since : ctl_now_ms();
            if (now.bounded && ctl_now_ms() - silent_since > SEND_MS)
                away(RD_KAFKA_RESP_ERR__TIMED_OUT);
            return 0;
        }
        if (!is_told(m)) {
            rd_kafka_message_destroy(m);
            continue;
        }
        silent_since = 0;
        now.message = m;
        *record = (struct saga_record){.topic = rd_kafka_topic_name(m->rkt) + strlen(prefix()),
                                       .partition = m->partition,
                                       .offset = m->offset,
                                       .time_ms = rd_kafka_message_timestamp(m, NULL),
                                       .key = m->key,
                                       .key_n = m->key_len,
                                       .value = m->payload,
                                       .value_n = m->len};
        headers(m, record);
        return 1;
    }
}
