/* Kafka by librdkafka: looking into partitions. See peek.h. */
#include "peek.h"

#include <stdlib.h>

#include "bus_private.h"
#include "log.h"

static const char *const settings[][2] = {
    {"enable.auto.commit", "false"},      {"enable.auto.offset.store", "false"},
    {"auto.offset.reset", "error"},       {"fetch.wait.max.ms", "10"},
    {"fetch.error.backoff.ms", "100"},    {"queued.max.messages.kbytes", "4096"},
    {"fetch.message.max.bytes", "65536"}, {"socket.timeout.ms", "10000"}};

struct saga_peek {
    struct saga_bus bus; /* for its settings alone */
    rd_kafka_t *handle;
};

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct saga_peek *saga_peek_new(const struct saga_conf *conf, struct saga_err *err)
{
    struct saga_peek *peek = saga_alloc(sizeof *peek);
    char text[300];

    *peek = (struct saga_peek){.bus = {.conf = conf}};
    rd_kafka_conf_t *rc =
        saga_bus_conf(&peek->bus, settings, sizeof settings / sizeof *settings, err);
    if (rc && !(peek->handle = rd_kafka_new(RD_KAFKA_CONSUMER, rc, text, sizeof text))) {
        rd_kafka_conf_destroy(rc);
        saga_err(err, SAGA_FATAL, "kafka consumer: %s", text);
    }
    if (peek->handle)
        return peek;
    free(peek);
    return NULL;
}

void saga_peek_free(struct saga_peek *peek)
{
    if (!peek)
        return;
    rd_kafka_destroy(peek->handle);
    free(peek);
}

const char *saga_peek_cluster(struct saga_peek *peek, int ms)
{
    free(peek->bus.cluster);
    char *id = rd_kafka_clusterid(peek->handle, ms);
    peek->bus.cluster = id ? strdup(id) : NULL;
    if (id)
        rd_kafka_mem_free(peek->handle, id);
    return peek->bus.cluster;
}

static rd_kafka_topic_t *handle_of(struct saga_peek *peek, const char *topic)
{
    char name[300];

    return rd_kafka_topic_new(peek->handle, saga_bus_name(&peek->bus, topic, name, sizeof name),
                              NULL);
}

int saga_peek_partitions(struct saga_peek *peek, const char *topic, bool *led, int max, int ms,
                         struct saga_err *err)
{
    const struct rd_kafka_metadata *all = NULL;
    rd_kafka_topic_t *handle = handle_of(peek, topic);
    rd_kafka_resp_err_t code = rd_kafka_metadata(peek->handle, 0, handle, &all, ms);
    int n = 0;

    rd_kafka_topic_destroy(handle);
    rd_kafka_poll(peek->handle, 0);
    if (code)
        return saga_err(err, SAGA_RETRY, "kafka at %s: %s", peek->bus.conf->brokers,
                        rd_kafka_err2str(code));
    n = saga_bus_count(all, topic, err);
    for (int i = 0; i < n; i++) {
        const struct rd_kafka_metadata_partition *p = &all->topics[0].partitions[i];
        if (p->id < max)
            led[p->id] = p->leader >= 0;
    }
    rd_kafka_metadata_destroy(all);
    return n;
}

static int ask_offsets(struct saga_peek *peek, struct saga_range *ranges, int n, bool end, int ms,
                       struct saga_err *err)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
    char name[300];
    int rc = 0;

    for (int i = 0; i < n; i++)
        if (ranges[i].rc == 0)
            rd_kafka_topic_partition_list_add(
                list, saga_bus_name(&peek->bus, ranges[i].topic, name, sizeof name),
                ranges[i].partition)
                ->offset = end ? RD_KAFKA_OFFSET_END : RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_resp_err_t all =
        list->cnt ? rd_kafka_offsets_for_times(peek->handle, list, ms) : RD_KAFKA_RESP_ERR_NO_ERROR;
    for (int i = 0; i < n; i++) {
        if (ranges[i].rc)
            continue;
        saga_bus_name(&peek->bus, ranges[i].topic, name, sizeof name);
        const rd_kafka_topic_partition_t *p =
            rd_kafka_topic_partition_list_find(list, name, ranges[i].partition);
        rd_kafka_resp_err_t code = all ? all : p->err;
        *(end ? &ranges[i].high : &ranges[i].low) = code ? -1 : p->offset;
        if (code || p->offset < 0)
            rc = ranges[i].rc = saga_err(err, SAGA_RETRY, "kafka: offsets of %s/%d: %s", name,
                                         ranges[i].partition, rd_kafka_err2str(code));
    }
    rd_kafka_topic_partition_list_destroy(list);
    return rc;
}

int saga_peek_marks(struct saga_peek *peek, struct saga_range *ranges, int n, int ms,
                    struct saga_err *err)
{
    int rc = ask_offsets(peek, ranges, n, false, ms, err);
    int end = ask_offsets(peek, ranges, n, true, ms, err);

    return rc < 0 ? rc : end;
}

/* ---- Reading ---- */

struct reading {
    rd_kafka_topic_t *topic; /* NULL: done */
};

static void stop(struct saga_range *range, struct reading *r)
{
    rd_kafka_consume_stop(r->topic, range->partition);
    rd_kafka_topic_destroy(r->topic);
    r->topic = NULL;
}

static void headers_of(rd_kafka_message_t *m, struct saga_record *record, struct saga_header **kept)
{
    rd_kafka_headers_t *headers;

    if (rd_kafka_message_headers(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    size_t n = rd_kafka_header_cnt(headers);
    *kept = saga_realloc(*kept, n * sizeof **kept);
    for (size_t i = 0; i < n; i++) {
        const void *value;
        struct saga_header *h = &(*kept)[i];
        rd_kafka_header_get_all(headers, i, &h->name, &value, &h->n);
        h->value = value;
    }
    record->headers = *kept;
    record->headers_n = (int)n;
}

/* -> whether its range is done */
static bool give(struct saga_peek *peek, struct saga_range *range, rd_kafka_message_t *m,
                 bool (*took)(struct saga_range *range, struct saga_record *record),
                 struct saga_err *err)
{
    struct saga_header *headers = NULL;
    struct saga_record record = {.topic = range->topic,
                                 .partition = m->partition,
                                 .offset = m->offset,
                                 .time_ms = rd_kafka_message_timestamp(m, NULL),
                                 .key = m->key,
                                 .key_n = m->key_len,
                                 .value = m->payload,
                                 .value_n = m->len};

    (void)peek;
    if (m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET) {
        range->rc = saga_err(err, SAGA_RETRY, "kafka: %s/%d: %s", range->topic, range->partition,
                             rd_kafka_message_errstr(m));
        return true;
    }
    if (m->err) /* it goes on by itself, or the time ends */
        return false;
    if (m->offset >= range->to)
        return true;
    headers_of(m, &record, &headers);
    bool more = took(range, &record);
    free(headers);
    return !more || m->offset + 1 >= range->to;
}

int saga_peek_read(struct saga_peek *peek, struct saga_range *ranges, int n,
                   bool (*took)(struct saga_range *range, struct saga_record *record), int ms,
                   struct saga_err *err)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(peek->handle);
    struct reading *r = saga_alloc((size_t)n * sizeof *r + 1);
    rd_kafka_message_t *m;
    int64_t until; /* a long range takes its time, as long as it goes on */
    int open = 0, rc = 0;

    for (int i = 0; i < n; i++) {
        r[i].topic = NULL;
        if (ranges[i].rc || ranges[i].from >= ranges[i].to)
            continue;
        r[i].topic = handle_of(peek, ranges[i].topic);
        rd_kafka_consume_start_queue(r[i].topic, ranges[i].partition, ranges[i].from, queue);
        open++;
    }
    until = now_ms() + ms;
    while (open && now_ms() < until) {
        if (!(m = rd_kafka_consume_queue(queue, (int)(until - now_ms()))))
            continue;
        if (!m->err)
            until = now_ms() + ms;
        for (int i = 0; i < n; i++) {
            if (!r[i].topic || ranges[i].partition != m->partition || !m->rkt ||
                strcmp(rd_kafka_topic_name(m->rkt), rd_kafka_topic_name(r[i].topic)))
                continue;
            if (give(peek, &ranges[i], m, took, err)) {
                stop(&ranges[i], &r[i]);
                open--;
            }
        }
        rd_kafka_message_destroy(m);
    }
    for (int i = 0; i < n; i++) {
        if (r[i].topic) {
            stop(&ranges[i], &r[i]);
            ranges[i].rc = saga_err(err, SAGA_RETRY, "kafka: %s/%d cannot be read to its end",
                                    ranges[i].topic, ranges[i].partition);
        }
        rc = ranges[i].rc ? ranges[i].rc : rc;
    }
    rd_kafka_queue_destroy(queue);
    free(r);
    rd_kafka_poll(peek->handle, 0);
    return rc;
}
