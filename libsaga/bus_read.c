/* Kafka by librdkafka: reading. A handle outside the group, whose partitions are started and stopped
 * one by one, at the positions that the engine tells; each stop is waited for. The group's consumer cannot do
 * that in librdkafka 2.0.2: assignments that follow each other within milliseconds end the process by
 * an assertion (rd_kafka_assignment_partition_stopped), or leave a partition that is never fetched
 * again, and seeking beside them does too (seen when lanes were taken several times within a second).
 */
#include <stdlib.h>

#include "bus_private.h"
#include "log.h"

/* What waits is bounded by topic. librdkafka stops fetching for a whole second (not configurable in
 * 2.0.2) once a partition's queue, and ours is its topic's, holds more than these: it must last longer
 * than that. */
#define READER                                                                                     \
    {"enable.auto.commit", "false"}, {"enable.auto.offset.store", "false"},                        \
        {"auto.offset.reset", "error"}, /* a lost position is found, never jumped over */          \
        {"enable.partition.eof", "false"}, {"queued.min.messages", "30000"},                       \
        {"queued.max.messages.kbytes", "16384"}, {"fetch.max.bytes", "2097152"},                   \
        {"fetch.message.max.bytes", "1048576"},                                                    \
    {                                                                                              \
        "fetch.error.backoff.ms", "100"                                                            \
    }

/* A fetch is answered by the first record, */
static const char *const eager[][2] = {READER, {"fetch.wait.max.ms", "500"}};
/* or by many: at a thousand orders a second that spares a quarter of all work, and no time. */
static const char *const patient[][2] = {
    READER, {"fetch.min.bytes", "20000"}, {"fetch.wait.max.ms", "8"}};

static int open_reader(struct saga_bus *bus, struct reader *reader, struct saga_err *err)
{
    char text[300];
    rd_kafka_conf_t *rc = reader == &bus->eager
                              ? saga_bus_conf(bus, eager, sizeof eager / sizeof *eager, err)
                              : saga_bus_conf(bus, patient, sizeof patient / sizeof *patient, err);

    if (!rc)
        return SAGA_FATAL;
    reader->handle = rd_kafka_new(RD_KAFKA_CONSUMER, rc, text, sizeof text);
    if (!reader->handle) {
        rd_kafka_conf_destroy(rc);
        return saga_err(err, SAGA_FATAL, "kafka consumer: %s", text);
    }
    for (int t = 0; t < bus->topics_n; t++) {
        reader->source[t] = rd_kafka_topic_new(
            reader->handle, saga_bus_name(bus, bus->topics[t], text, sizeof text), NULL);
        reader->records[t] = rd_kafka_queue_new(reader->handle);
        saga_bus_wake(bus, reader->records[t]);
    }
    return 0;
}

int saga_bus_open_reader(struct saga_bus *bus, struct saga_err *err)
{
    bus->reader = &bus->eager;
    return open_reader(bus, bus->reader, err);
}

int saga_bus_patience(struct saga_bus *bus, bool patience, struct saga_err *err)
{
    struct reader *from = bus->reader, *to = patience ? &bus->patient : &bus->eager;
    rd_kafka_message_t *m;
    int rc;

    if (from == to)
        return 0;
    if (!to->handle && (rc = open_reader(bus, to, err)) < 0)
        return rc;
    for (int t = 0; t < bus->topics_n; t++)
        for (int32_t i = 0; i < bus->room; i++) {
            struct position *p = &bus->position[t][i];
            if (!p->reading)
                continue;
            bus->reader = from;
            saga_bus_pause(bus, t, i);
            bus->reader = to;
            saga_bus_read(bus, t, i, p->offset);
        }
    bus->reader = to;
    for (int t = 0; t < bus->topics_n; t++) /* what it holds is read again: it may be megabytes */
        while ((m = rd_kafka_consume_queue(from->records[t], 0)))
            rd_kafka_message_destroy(m);
    return 0;
}

void saga_bus_room(struct saga_bus *bus, int32_t lane)
{
    int32_t n = bus->room;

    if (lane < n)
        return;
    bus->room = lane + 1;
    bus->lanes = saga_realloc(bus->lanes, (size_t)bus->room * sizeof *bus->lanes);
    for (int t = 0; t < bus->topics_n; t++) {
        bus->position[t] =
            saga_realloc(bus->position[t], (size_t)bus->room * sizeof *bus->position[t]);
        for (int32_t i = n; i < bus->room; i++)
            bus->position[t][i] = (struct position){.offset = -1, .commit = -1};
    }
}

/* ---- Records ---- */

int saga_bus_next(struct saga_bus *bus, int topic, struct saga_record *record)
{
    rd_kafka_message_t *m;

    if (bus->current) {
        rd_kafka_message_destroy(bus->current);
        bus->current = NULL;
    }
    while ((m = rd_kafka_consume_queue(bus->reader->records[topic], 0))) {
        struct position *p = m->partition < 0 || m->partition >= bus->room
                                 ? NULL
                                 : &bus->position[topic][m->partition];
        *record = (struct saga_record){.partition = m->partition, .offset = m->offset};
        if (m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET && p && p->reading) {
            rd_kafka_message_destroy(m);
            saga_bus_pause(bus, topic, record->partition);
            return SAGA_POISON;
        }
        if (m->err || !p || !p->reading || m->offset < p->offset) {
            if (m->err)
                saga_bus_say(bus, NULL, "kafka consumer", m->err, rd_kafka_message_errstr(m));
            rd_kafka_message_destroy(m);
            continue;
        }
        bus->current = m;
        p->offset = m->offset + 1;
        record->topic = bus->topics[topic];
        record->time_ms = rd_kafka_message_timestamp(m, NULL);
        record->key = m->key;
        record->key_n = m->key_len;
        record->value = m->payload;
        record->value_n = m->len;
        return 1;
    }
    return 0;
}

void saga_bus_headers(struct saga_bus *bus, struct saga_record *record)
{
    rd_kafka_headers_t *headers;
    size_t n;

    record->headers = NULL;
    record->headers_n = 0;
    if (rd_kafka_message_headers(bus->current, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    n = rd_kafka_header_cnt(headers);
    if (n > bus->headers_cap) {
        bus->headers = saga_realloc(bus->headers, n * sizeof *bus->headers);
        bus->headers_cap = n;
    }
    for (size_t i = 0; i < n; i++) {
        const void *value;
        struct saga_header *h = &bus->headers[i];
        rd_kafka_header_get_all(headers, i, &h->name, &value, &h->n);
        h->value = value;
    }
    record->headers = bus->headers;
    record->headers_n = (int)n;
}

/* ---- Where to read ---- */

void saga_bus_pause(struct saga_bus *bus, int topic, int32_t lane)
{
    if (lane >= bus->room || !bus->position[topic][lane].reading)
        return;
    bus->position[topic][lane].reading = false;
    if (rd_kafka_consume_stop(bus->reader->source[topic], lane) < 0)
        saga_log_text(SAGA_WARN, "stop reading", rd_kafka_err2str(rd_kafka_last_error()));
}

void saga_bus_read(struct saga_bus *bus, int topic, int32_t lane, int64_t offset)
{
    saga_bus_room(bus, lane);
    saga_bus_pause(bus, topic, lane);
    bus->position[topic][lane].offset = offset;
    bus->position[topic][lane].reading = true;
    if (rd_kafka_consume_start_queue(bus->reader->source[topic], lane, offset,
                                     bus->reader->records[topic]) < 0)
        saga_log_text(SAGA_ERROR, "start reading", rd_kafka_err2str(rd_kafka_last_error()));
}

void saga_bus_resume(struct saga_bus *bus, int topic, int32_t lane)
{
    if (lane < bus->room && !bus->position[topic][lane].reading &&
        bus->position[topic][lane].offset >= 0)
        saga_bus_read(bus, topic, lane, bus->position[topic][lane].offset);
}

void saga_bus_read_nothing(struct saga_bus *bus)
{
    for (int t = 0; t < bus->topics_n; t++)
        for (int32_t i = 0; i < bus->room; i++) {
            saga_bus_pause(bus, t, i);
            bus->position[t][i] = (struct position){.offset = -1, .commit = -1};
        }
}

int64_t saga_bus_end(const struct saga_bus *bus, int topic, int32_t lane)
{
    int64_t low, high;
    char name[300];

    saga_bus_name(bus, bus->topics[topic], name, sizeof name);
    return rd_kafka_get_watermark_offsets(bus->reader->handle, name, lane, &low, &high) ? -1 : high;
}
