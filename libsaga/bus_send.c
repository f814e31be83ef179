/* Kafka by librdkafka: the idempotent producer, its reports, and its replacement (DESIGN.md 4.3).
 */
#include <assert.h>
#include <stdlib.h>

#include "bus_private.h"
#include "log.h"

static const char *const producer[][2] = {
    {"enable.idempotence", "true"},
    {"acks", "all"},
    {"enable.gapless.guarantee", "true"},
    {"message.timeout.ms", "0"}, /* with a time-out one is dropped and later ones go: a hole */
    {"linger.ms", "5"}, /* or until saga_bus_send_now: with 0 the first of a batch go alone, and
                         * librdkafka 2.0.2 polls without a pause while others of their partition wait */
    {"compression.codec", "lz4"},
    {"partitioner", "murmur2_random"},
    {"batch.num.messages", "10000"},
    {"message.max.bytes", "1000000"},
    {"queue.buffering.max.messages", "1000000"},
    {"queue.buffering.max.kbytes", "1048576"},
    {"retry.backoff.ms", "50"},
};
enum { AT_MOST_MS = 1 };

struct waiting {
    struct waiting *next;
    struct saga_delivery d; /* its texts follow in the same block */
};

/* Lane and sequence number travel with the record as its opaque pointer. */
enum { SEQ_BITS = 48 };

static void *ticket_of(const struct saga_delivery *d)
{
    assert(d->seq >> SEQ_BITS == 0);
    return (void *)((uintptr_t)d->lane << SEQ_BITS | (uintptr_t)d->seq);
}

static struct target *target_of(struct saga_bus *bus, const char *topic)
{
    char name[300];

    for (int i = 0; i < bus->targets; i++)
        if (bus->target[i].topic == topic || !strcmp(bus->target[i].topic, topic))
            return &bus->target[i];
    assert(bus->targets < TARGETS);
    struct target *t = &bus->target[bus->targets++];
    *t = (struct target){.topic = saga_strdup(topic)};
    t->handle =
        rd_kafka_topic_new(bus->producer, saga_bus_name(bus, topic, name, sizeof name), NULL);
    return t;
}

rd_kafka_topic_t *saga_bus_topic(struct saga_bus *bus, const char *topic)
{
    return target_of(bus, topic)->handle;
}

static struct gate *gate_of(struct target *t, int32_t partition)
{
    if (partition >= t->gates) {
        t->gate = saga_realloc(t->gate, (size_t)(partition + 1) * sizeof *t->gate);
        memset(t->gate + t->gates, 0, (size_t)(partition + 1 - t->gates) * sizeof *t->gate);
        t->gates = partition + 1;
    }
    return &t->gate[partition];
}

static rd_kafka_headers_t *headers_of(const struct saga_delivery *d)
{
    static const char name[] = "content-type";
    static const char value[] = "application/cloudevents+json; charset=UTF-8";
    rd_kafka_headers_t *headers = rd_kafka_headers_new(d->headers_n ? (size_t)d->headers_n : 1);

    if (d->headers_n == 0)
        rd_kafka_header_add(headers, name, sizeof name - 1, value, sizeof value - 1);
    for (int i = 0; i < d->headers_n; i++)
        rd_kafka_header_add(headers, d->headers[i].name, -1, d->headers[i].value,
                            d->headers[i].value ? (ssize_t)d->headers[i].n : -1);
    return headers;
}

static void produce(struct saga_bus *bus, struct target *t, const struct saga_delivery *d)
{
    rd_kafka_headers_t *headers = headers_of(d);
    rd_kafka_vu_t with[] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = t->handle},
        {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = d->partition},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {(void *)(uintptr_t)d->value, d->value_n}},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {(void *)(uintptr_t)d->key, d->key_n}},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = ticket_of(d)},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
    };
    rd_kafka_error_t *error = rd_kafka_produceva(bus->producer, with, sizeof with / sizeof *with);

    if (!error)
        return;
    /* Too large for the topic, or a producer that is dead: never skipped. The row stays in the
     * outbox; a new producer and a retransmission are the one recovery. */
    saga_log_text(SAGA_ERROR, "produce", rd_kafka_error_string(error));
    bus->producer_dead = true;
    if (rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE) /* no report follows */
        bus->events.reported(bus->events.owner, d->lane, d->seq, -1, rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    rd_kafka_headers_destroy(headers);
}

static const char *kept(char **at, const char *s, size_t n)
{
    char *copy = *at;

    if (!s)
        return NULL;
    memcpy(copy, s, n);
    *at += n;
    return copy;
}

static void wait_for_first(struct gate *gate, const struct saga_delivery *d)
{
    size_t n = sizeof(struct waiting) + (size_t)d->headers_n * sizeof *d->headers;
    size_t texts = d->key_n + d->value_n;

    for (int i = 0; i < d->headers_n; i++)
        texts += strlen(d->headers[i].name) + 1 + d->headers[i].n;
    struct waiting *w = saga_alloc(n + texts);
    struct saga_header *headers = (struct saga_header *)(w + 1);
    char *at = (char *)w + n;

    w->next = NULL;
    w->d = *d;
    w->d.key = kept(&at, d->key, d->key_n);
    w->d.value = kept(&at, d->value, d->value_n);
    for (int i = 0; i < d->headers_n; i++) {
        const struct saga_header *h = &d->headers[i];
        headers[i].name = kept(&at, h->name, strlen(h->name) + 1);
        headers[i].value = kept(&at, h->value, h->n);
        headers[i].n = h->n;
    }
    w->d.headers = headers;
    if (gate->last)
        gate->last->next = w;
    else
        gate->first = w;
    gate->last = w;
}

/* The broker accepts a record out of its place only from a producer of which it knows nothing in that
 * partition: a new one, or one whose state has expired (producer.id.expiration.ms, a day). What then
 * arrives behind a later one is lost if it is a forward (4.5): so one goes alone again long before. */
static void shut_idle(const struct saga_bus *bus, struct gate *gate)
{
    if (gate->open && saga_bus_seconds() - gate->acked >= bus->gate_kept)
        gate->open = gate->asked = false;
}

void saga_bus_send(struct saga_bus *bus, const struct saga_delivery *d)
{
    if (bus->producer_dead)
        return; /* nothing after what it refused: all is sent again by the next one */
    struct target *t = target_of(bus, d->topic);
    struct gate *gate = gate_of(t, d->partition);

    shut_idle(bus, gate);
    if (!gate->open && gate->asked) {
        wait_for_first(gate, d);
        return;
    }
    gate->asked = true;
    produce(bus, t, d);
}

void saga_bus_send_now(struct saga_bus *bus)
{
    if (!bus->producer_dead)
        rd_kafka_flush(bus->producer, AT_MOST_MS);
}

static void open_gate(struct saga_bus *bus, struct target *t, struct gate *gate)
{
    gate->open = true;
    while (gate->first) {
        struct waiting *w = gate->first;
        gate->first = w->next;
        if (bus && !bus->producer_dead)
            produce(bus, t, &w->d);
        free(w);
    }
    gate->last = NULL;
}

static struct target *target_of_handle(struct saga_bus *bus, const char *name)
{
    name += strlen(bus->conf->prefix);
    for (int i = 0; i < bus->targets; i++)
        if (!strcmp(bus->target[i].topic, name))
            return &bus->target[i];
    return NULL;
}

/* Why this very record was not taken; NULL: it was, or all fail with it. */
static const char *refusal(const rd_kafka_message_t *m)
{
    switch (m->err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return m->offset < 0 ? "delivered, says the client, but not where" : NULL;
    case RD_KAFKA_RESP_ERR__FATAL:
    case RD_KAFKA_RESP_ERR__DESTROY:
    case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
    case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
        return NULL;
    default:
        return rd_kafka_err2str(m->err);
    }
}

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    struct saga_bus *bus = opaque;
    uintptr_t ticket = (uintptr_t)m->_private;
    bool good = !m->err && m->offset >= 0;
    struct target *t;

    if (rk != bus->producer)
        return; /* of a producer that was given up */
    if (m->err)
        saga_bus_say(bus, rk, "kafka producer", m->err, rd_kafka_err2str(m->err));
    bus->events.reported(bus->events.owner, (int32_t)(ticket >> SEQ_BITS),
                         (int64_t)(ticket & (((uintptr_t)1 << SEQ_BITS) - 1)),
                         good ? m->offset : -1, refusal(m));
    if (!good)
        return;
    t = target_of_handle(bus, rd_kafka_topic_name(m->rkt));
    if (!t)
        return;
    gate_of(t, m->partition)->acked = saga_bus_seconds();
    if (!gate_of(t, m->partition)->open)
        open_gate(bus, t, gate_of(t, m->partition));
}

static void give_up(struct saga_bus *bus)
{
    rd_kafka_t *old = bus->producer;

    rd_kafka_poll(old, 0); /* who is to blame may come behind the news that it is dead */
    bus->producer = NULL;
    for (int i = 0; i < bus->targets; i++) {
        struct target *t = &bus->target[i];
        for (int32_t p = 0; p < t->gates; p++)
            open_gate(NULL, t, &t->gate[p]);
        free(t->gate);
        free(t->topic);
        rd_kafka_topic_destroy(t->handle);
    }
    bus->targets = 0;
    rd_kafka_purge(old, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
                            RD_KAFKA_PURGE_F_NON_BLOCKING);
    saga_bus_forget(old);
}

int saga_bus_renew(struct saga_bus *bus, struct saga_err *err)
{
    char text[300];
    rd_kafka_conf_t *rc = saga_bus_conf(bus, producer, sizeof producer / sizeof *producer, err);

    if (!rc)
        return SAGA_FATAL;
    if (bus->producer)
        give_up(bus);
    rd_kafka_conf_set_dr_msg_cb(rc, on_report);
    bus->producer = rd_kafka_new(RD_KAFKA_PRODUCER, rc, text, sizeof text);
    if (!bus->producer) {
        rd_kafka_conf_destroy(rc);
        return saga_err(err, SAGA_FATAL, "kafka producer: %s", text);
    }
    bus->producer_dead = false;
    rd_kafka_queue_t *queue = rd_kafka_queue_get_main(bus->producer);
    saga_bus_wake(bus, queue);
    rd_kafka_queue_destroy(queue);
    return 0;
}
