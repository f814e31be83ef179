/* Kafka by librdkafka: the producer of what comes over HTTP. See post.h.
 *
 * Happy path: a record is queued, and its delivery report, on the posting thread, says where it
 * stands. A report with an error says whether it may have arrived; so does one without error whose
 * offset is none: the caller must be able to say the request's place, as its events will name it. What
 * is not reported in time is reported as failed by librdkafka (message.timeout.ms). A producer that
 * has died, as idempotent ones do after a cut connection, is replaced at once, and destroyed when what
 * it had on its way is reported. When HTTP stops, what is on its way is given up while it can
 * still be told. */
#include "post.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bus_private.h"
#include "engine.h"
#include "http.h"
#include "log.h"
#include "metrics.h"

enum {
    POSTS_MAX = 1024, /* on their way: of at most SAGA_VALUE_MAX each */
    TURN_MS = 100,
    GRACE_US = 1000000, /* until what is on its way is given up: half of HTTP's drain */
    GIVE_UP = RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING,
};

int64_t saga_post_timeout = INT64_C(5000000);

static struct {
    pthread_rwlock_t lock; /* who uses the producer reads; who replaces it writes */
    struct saga_bus bus;   /* conf and producer */
    atomic_bool dead;      /* the producer is */
    rd_kafka_t *old; /* the one before, while it has something to tell; the posting thread's */
    atomic_int under_way;
    atomic_int asking;              /* for an end: with a producer, but without the lock */
    struct saga_reported *reported; /* by partition; the posting thread's */
    int32_t partitions;
    saga_cell_t *in_flight, *ends[SAGA_POST_NOT_SENT + 1], *refused;
    struct saga_histogram *seconds;
} post = {.lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP};

struct flight {
    void (*done)(void *owner, enum saga_post_end end, int32_t partition, int64_t offset);
    void *owner;
    int64_t began;
};

void saga_post_init(const struct saga_conf *conf)
{
    pthread_rwlock_wrlock(&post.lock);
    post.bus.conf = conf;
    pthread_rwlock_unlock(&post.lock);
}

/* ---- Reports ---- */

bool saga_reported_believe(struct saga_reported *r, int64_t offset, int under_way)
{
    bool goes_on = r->left > 0 && offset == r->inferred, good = offset >= r->next;

    if (goes_on || offset < 0) {
        r->left = goes_on ? r->left - 1 : under_way;
        r->inferred = offset + 1;
        return false;
    }
    r->left = 0;
    r->next = offset + 1;
    return good;
}

static bool believe(int32_t partition, int64_t offset)
{
    if (partition < 0)
        return false;
    if (partition >= post.partitions) {
        size_t n = (size_t)partition + 1, had = (size_t)post.partitions;
        post.reported = saga_realloc(post.reported, n * sizeof *post.reported);
        memset(post.reported + had, 0, (n - had) * sizeof *post.reported);
        post.partitions = partition + 1;
    }
    return saga_reported_believe(&post.reported[partition], offset,
                                 atomic_load(&post.under_way) - 1);
}

static enum saga_post_end end_of(const rd_kafka_message_t *m)
{
    if (!m->err)
        return believe(m->partition, m->offset) ? SAGA_POST_DONE : SAGA_POST_UNKNOWN;
    return rd_kafka_message_status(m) == RD_KAFKA_MSG_STATUS_NOT_PERSISTED ? SAGA_POST_NOT_SENT
                                                                           : SAGA_POST_UNKNOWN;
}

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    struct flight *flight = m->_private;
    enum saga_post_end end = end_of(m);

    (void)rk, (void)opaque;
    saga_count(post.ends[end], 1);
    saga_observe(post.seconds, saga_now() - flight->began);
    saga_gauge(post.in_flight, atomic_fetch_sub(&post.under_way, 1) - 1);
    flight->done(flight->owner, end, m->partition, m->offset);
    free(flight);
}

/* ---- The producer ---- */

static void on_error(rd_kafka_t *rk, int code, const char *text, void *opaque)
{
    (void)opaque;
    if (code == RD_KAFKA_RESP_ERR__FATAL && rk == post.bus.producer)
        atomic_store(&post.dead, true);
    saga_bus_say(&post.bus, rk, "kafka client", code, text);
}

static rd_kafka_t *open_producer(struct saga_err *err)
{
    char ms[24], text[300];
    const char *const settings[][2] = {
        {"enable.idempotence", "true"},
        {"acks", "all"},
        {"message.timeout.ms", ms},
        {"linger.ms", "0"},
        {"partitioner", "murmur2_random"},
        {"retry.backoff.ms", "50"},
        {"isolation.level", "read_uncommitted"}, /* an end is where the next record will stand */
    };

    snprintf(ms, sizeof ms, "%lld", (long long)saga_post_timeout / 1000);
    rd_kafka_conf_t *rc =
        saga_bus_conf(&post.bus, settings, sizeof settings / sizeof *settings, err);
    if (!rc)
        return NULL;
    rd_kafka_conf_set_error_cb(rc, on_error);
    rd_kafka_conf_set_dr_msg_cb(rc, on_report);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, rc, text, sizeof text);
    if (!rk) {
        rd_kafka_conf_destroy(rc);
        saga_err(err, SAGA_FATAL, "kafka producer: %s", text);
    }
    return rk;
}

static void replace(void)
{
    struct saga_err err = {0};
    rd_kafka_t *old = post.bus.producer, *made = open_producer(&err);

    if (!made) { /* out of threads: once more at the next turn */
        saga_log_text(SAGA_ERROR, "kafka client", err.text);
        return;
    }
    pthread_rwlock_wrlock(&post.lock);
    post.bus.producer = made;
    atomic_store(&post.dead, false);
    pthread_rwlock_unlock(&post.lock);
    rd_kafka_purge(old, GIVE_UP);
    post.old = old;
}

/* What the one before had on its way is told when it can be, and holds up nobody. */
static void hear_old(void)
{
    rd_kafka_poll(post.old, 0);
    if (rd_kafka_outq_len(post.old) > 0 || atomic_load(&post.asking))
        return;
    saga_bus_forget(post.old);
    post.old = NULL;
}

static void *serve(void *unused)
{
    int64_t until = 0;

    (void)unused;
    while (true) {
        if (post.old)
            hear_old(); /* first: its places are below those of the new one */
        rd_kafka_poll(post.bus.producer, TURN_MS);
        if (atomic_load(&post.dead) && !post.old) /* two in a row: it takes nothing meanwhile */
            replace();
        if (saga_http_stopping() && !until)
            until = saga_now() + GRACE_US;
        if (until && saga_now() >= until)
            rd_kafka_purge(post.bus.producer, GIVE_UP);
    }
    return NULL;
}

static saga_cell_t *counter(const char *end)
{
    char labels[40];

    snprintf(labels, sizeof labels, "end=\"%s\"", end);
    return saga_metric("saga_posts_total", labels, "Requests of HTTP to Kafka, by their end");
}

static int start(struct saga_err *err)
{
    static const int64_t bounds[] = {1000,   2500,   5000,    10000,   25000,   50000,
                                     100000, 250000, 1000000, 2500000, 5000000, 0};
    pthread_t thread;

    if (!post.bus.conf)
        return saga_err(err, SAGA_RETRY, "this process does not know its Kafka yet");
    post.in_flight = saga_metric("saga_posts_in_flight", "", "Requests on their way to Kafka");
    post.refused = counter("refused");
    post.ends[SAGA_POST_DONE] = counter("acknowledged");
    post.ends[SAGA_POST_UNKNOWN] = counter("unknown");
    post.ends[SAGA_POST_NOT_SENT] = counter("not_sent");
    post.seconds = saga_histogram("saga_post_seconds", "",
                                  "From a request of HTTP to Kafka's acknowledgement", bounds);
    post.bus.producer = open_producer(err);
    if (!post.bus.producer)
        return SAGA_FATAL;
    if (pthread_create(&thread, NULL, serve, NULL) != 0)
        _exit(70); /* out of threads */
    pthread_detach(thread);
    return 0;
}

/* -> 0, with the lock to read; or an error, without it */
static int use(struct saga_err *err)
{
    int rc = 0;

    pthread_rwlock_rdlock(&post.lock);
    if (post.bus.producer)
        return 0;
    pthread_rwlock_unlock(&post.lock);
    pthread_rwlock_wrlock(&post.lock);
    if (!post.bus.producer)
        rc = start(err);
    pthread_rwlock_unlock(&post.lock);
    return rc < 0 ? rc : use(err);
}

/* ---- From outside ---- */

static rd_kafka_resp_err_t produce(const struct saga_post *p, struct flight *flight)
{
    char name[300];
    rd_kafka_headers_t *headers = rd_kafka_headers_new(1);

    if (p->trace)
        rd_kafka_header_add(headers, "traceparent", -1, p->trace, -1);
    rd_kafka_resp_err_t e = rd_kafka_producev(
        post.bus.producer, RD_KAFKA_V_TOPIC(saga_bus_name(&post.bus, p->topic, name, sizeof name)),
        RD_KAFKA_V_KEY((void *)(uintptr_t)p->key, strlen(p->key)),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)p->value, p->n),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(flight),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
    if (e)
        rd_kafka_headers_destroy(headers);
    return e;
}

int saga_post(const struct saga_post *p, struct saga_err *err)
{
    int rc = use(err);

    if (rc < 0)
        return rc;
    int before = atomic_fetch_add(&post.under_way, 1);
    saga_gauge(post.in_flight, before + 1);
    if (before >= POSTS_MAX) {
        rc = saga_err(err, SAGA_RETRY, "%d requests wait for Kafka already", before);
    } else {
        struct flight *flight = saga_alloc(sizeof *flight);
        *flight = (struct flight){p->done, p->owner, saga_now()};
        rd_kafka_resp_err_t e = produce(p, flight);
        if (e == RD_KAFKA_RESP_ERR__FATAL)
            atomic_store(&post.dead, true);
        if (e) {
            free(flight);
            rc = saga_err(err, SAGA_RETRY, "Kafka: %s", rd_kafka_err2str(e));
        }
    }
    pthread_rwlock_unlock(&post.lock);
    if (rc < 0) {
        saga_count(post.refused, 1);
        saga_gauge(post.in_flight, atomic_fetch_sub(&post.under_way, 1) - 1);
    }
    return rc;
}

int saga_post_end_of(const char *topic, int32_t partition, int ms, int64_t *end,
                     struct saga_err *err)
{
    char name[300];
    int rc = use(err);

    if (rc < 0)
        return rc;
    /* Not rd_kafka_query_watermark_offsets: in 2.0.2 it waits for longer than it is told to (#2588). */
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *p = rd_kafka_topic_partition_list_add(
        list, saga_bus_name(&post.bus, topic, name, sizeof name), partition);
    p->offset = RD_KAFKA_OFFSET_END;
    rd_kafka_t *rk = post.bus.producer;
    /* Asked without the lock: who replaces the producer would wait, too, and all behind him. */
    atomic_fetch_add(&post.asking, 1);
    pthread_rwlock_unlock(&post.lock);
    rd_kafka_resp_err_t e = rd_kafka_offsets_for_times(rk, list, ms);
    atomic_fetch_sub(&post.asking, 1);
    e = e ? e : p->err ? p->err : p->offset < 0 ? RD_KAFKA_RESP_ERR_UNKNOWN : 0;
    *end = p->offset;
    rd_kafka_topic_partition_list_destroy(list);
    return e ? saga_err(err, SAGA_RETRY, "Kafka: %s", rd_kafka_err2str(e)) : 0;
}
