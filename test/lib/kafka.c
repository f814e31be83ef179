/* Kafka from outside. See kafka.h. */
#include "kafka.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

enum { TOPICS = 7, PARTITIONS_MAX = 64, WAIT_MS = 20000 };

static const char *const topics[TOPICS] = {"order.requests", "order.events", "inventory.events",
                                           "payment.events", "order.dlq",    "inventory.dlq",
                                           "payment.dlq"};

static rd_kafka_t *producer, *random_producer, *reader;
static int64_t put_offset;
static int refused;   /* deliveries that failed, */
static char why[300]; /* and why the last one did */

static void *destroy(void *client)
{
    rd_kafka_destroy(client);
    return NULL;
}

/* The library may wait for one of its threads for ever when the broker was killed (2.0.2). */
void kafka_forget(void)
{
    pthread_t thread;

    rd_kafka_t **const all[] = {&producer, &random_producer, &reader};

    for (int i = 0; i < 3; i++) {
        if (*all[i] && pthread_create(&thread, NULL, destroy, *all[i]) == 0)
            pthread_detach(thread);
        *all[i] = NULL;
    }
}

static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk;
    (void)opaque;
    if (m->err) {
        refused++;
        snprintf(why, sizeof why, "%s/%d: %s", rd_kafka_topic_name(m->rkt), m->partition,
                 rd_kafka_message_errstr(m));
    } else
        put_offset = m->offset;
}

static void ignore_log(const rd_kafka_t *rk, int level, const char *facility, const char *line)
{
    (void)rk, (void)level, (void)facility, (void)line;
}

static rd_kafka_t *open_client(rd_kafka_type_t type, const char *partitioner)
{
    const char *const settings[][2] = {{"bootstrap.servers", getenv("KAFKA_BOOTSTRAP_SERVERS")},
                                       {"allow.auto.create.topics", "false"},
                                       {"reconnect.backoff.max.ms", "500"},
                                       {"socket.nagle.disable", "true"},
                                       {"partitioner", partitioner},
                                       {"enable.idempotence", partitioner ? "true" : NULL},
                                       {"linger.ms", partitioner ? "5" : NULL},
                                       {"message.max.bytes", "4000000"},
                                       {"group.id", partitioner ? NULL : "test"},
                                       {"fetch.wait.max.ms", partitioner ? NULL : "10"},
                                       {"enable.auto.commit", partitioner ? NULL : "false"},
                                       {"enable.partition.eof", partitioner ? NULL : "true"}};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char error[256];

    MUST(settings[0][1], "KAFKA_BOOTSTRAP_SERVERS is not set: source deploy/local/env");
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        MUST(!settings[i][1] || rd_kafka_conf_set(conf, settings[i][0], settings[i][1], error,
                                                  sizeof error) == RD_KAFKA_CONF_OK,
             "kafka: %s", error);
    rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    rd_kafka_conf_set_log_cb(conf, ignore_log);
    rd_kafka_t *client = rd_kafka_new(type, conf, error, sizeof error);
    MUST(client != NULL, "kafka: %s", error);
    static bool registered;
    if (!registered)
        atexit(kafka_forget);
    registered = true;
    return client;
}

static rd_kafka_t *keyed(void)
{
    return producer ? producer : (producer = open_client(RD_KAFKA_PRODUCER, "murmur2_random"));
}

static rd_kafka_t *unkeyed(void)
{
    if (!random_producer)
        random_producer = open_client(RD_KAFKA_PRODUCER, "random");
    return random_producer;
}

static rd_kafka_t *reading(void)
{
    return reader ? reader : (reader = open_client(RD_KAFKA_CONSUMER, NULL));
}

/* ---- Topics ---- */

bool kafka_has_leaders(const char *name, int lanes)
{
    const struct rd_kafka_metadata *md;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(keyed(), name, NULL);
    bool good = rd_kafka_metadata(keyed(), 0, topic, &md, 5000) == RD_KAFKA_RESP_ERR_NO_ERROR;

    if (good) {
        good = md->topic_cnt == 1 && md->topics[0].partition_cnt == lanes;
        for (int i = 0; good && i < lanes; i++)
            good = md->topics[0].partitions[i].leader >= 0;
        rd_kafka_metadata_destroy(md);
    }
    rd_kafka_topic_destroy(topic);
    return good;
}

/* -> false: not yet; the broker that would have them is fenced for a moment, or stands still */
static bool are_made(rd_kafka_NewTopic_t **topic)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(keyed());
    size_t n = 0;

    rd_kafka_CreateTopics(keyed(), topic, TOPICS, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, WAIT_MS);
    bool made = event && !rd_kafka_event_error(event);
    const rd_kafka_topic_result_t **results =
        made ? rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n)
             : NULL;
    for (size_t i = 0; i < n; i++) {
        rd_kafka_resp_err_t e = rd_kafka_topic_result_error(results[i]);
        bool fenced = e == RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR ||
                      e == RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT;
        made &= !fenced;
        MUST(!e || fenced || e == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS, "topic %s: %s",
             rd_kafka_topic_result_name(results[i]),
             rd_kafka_topic_result_error_string(results[i]));
    }
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    return made;
}

void kafka_make_topics(const char *prefix, int lanes)
{
    static const char *const config[][2] = {{"cleanup.policy", "delete"},
                                            {"retention.ms", "604800000"},
                                            {"message.timestamp.type", "LogAppendTime"}};
    rd_kafka_NewTopic_t *made[TOPICS];
    char error[256];

    for (int i = 0; i < TOPICS; i++) {
        made[i] =
            rd_kafka_NewTopic_new(text("%s%s", prefix, topics[i]), lanes, 1, error, sizeof error);
        MUST(made[i], "%s", error);
        for (int c = 0; c < 3; c++)
            rd_kafka_NewTopic_set_config(made[i], config[c][0], config[c][1]);
    }
    AWAIT(60, are_made(made));
    rd_kafka_NewTopic_destroy_array(made, TOPICS);
    for (int i = 0; i < TOPICS; i++)
        AWAIT(20, kafka_has_leaders(text("%s%s", prefix, topics[i]), lanes));
}

void kafka_drop_topics(const char *prefix)
{
    rd_kafka_DeleteTopic_t *gone[TOPICS];
    rd_kafka_queue_t *queue = rd_kafka_queue_new(keyed());

    for (int i = 0; i < TOPICS; i++)
        gone[i] = rd_kafka_DeleteTopic_new(text("%s%s", prefix, topics[i]));
    rd_kafka_DeleteTopics(keyed(), gone, TOPICS, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, WAIT_MS);
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_DeleteTopic_destroy_array(gone, TOPICS);
}

/* All that the topic has of its own is then this. */
static void alter(const char *topic, const char *const settings[][2], int n)
{
    rd_kafka_ConfigResource_t *of = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(keyed());
    size_t answers = 0;

    for (int i = 0; i < n; i++)
        rd_kafka_ConfigResource_set_config(of, settings[i][0], settings[i][1]);
    rd_kafka_AlterConfigs(keyed(), &of, 1, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, WAIT_MS);
    MUST(event && !rd_kafka_event_error(event), "settings of %s: %s", topic,
         event ? rd_kafka_event_error_string(event) : "no answer");
    const rd_kafka_ConfigResource_t **results =
        rd_kafka_AlterConfigs_result_resources(rd_kafka_event_AlterConfigs_result(event), &answers);
    MUST(answers == 1 && !rd_kafka_ConfigResource_error(results[0]), "settings of %s: %s", topic,
         answers ? rd_kafka_ConfigResource_error_string(results[0]) : "no answer");
    rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_ConfigResource_destroy(of);
}

/* As the broker knows it. */
static int64_t setting_of(const char *topic, const char *name)
{
    rd_kafka_ConfigResource_t *of = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(keyed());
    size_t answers = 0, entries = 0;
    int64_t value = -1;

    rd_kafka_DescribeConfigs(keyed(), &of, 1, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, WAIT_MS);
    MUST(event && !rd_kafka_event_error(event), "settings of %s: %s", topic,
         event ? rd_kafka_event_error_string(event) : "no answer");
    const rd_kafka_ConfigResource_t **results = rd_kafka_DescribeConfigs_result_resources(
        rd_kafka_event_DescribeConfigs_result(event), &answers);
    MUST_BE(answers, 1);
    const rd_kafka_ConfigEntry_t **entry = rd_kafka_ConfigResource_configs(results[0], &entries);
    for (size_t i = 0; i < entries; i++)
        if (strcmp(rd_kafka_ConfigEntry_name(entry[i]), name) == 0)
            value = atoll(rd_kafka_ConfigEntry_value(entry[i]));
    rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_ConfigResource_destroy(of);
    return value;
}

/* A broker hears of a change after it was acknowledged; knows it; and then does it, before it hears of
 * the next one. So another change that it knows, made after it knew the first, says that this is done. */
void kafka_limit(const char *topic, int bytes)
{
    static int64_t change = 60000;
    const char *settings[][2] = {{"file.delete.delay.ms", text("%d", (int)++change)},
                                 {"max.message.bytes", text("%d", bytes)}};
    int n = bytes ? 2 : 1;

    alter(topic, settings, n);
    AWAIT(WAIT_MS / 1000, setting_of(topic, settings[0][0]) == change);
    settings[0][1] = text("%d", (int)++change);
    alter(topic, settings, n);
    AWAIT(WAIT_MS / 1000, setting_of(topic, settings[0][0]) == change);
}

/* ---- Groups ---- */

struct kafka_twin {
    rd_kafka_t *member;
    bool fenced;
};

struct kafka_twin *kafka_twin(const char *group, const char *instance, const char *topic)
{
    const char *const settings[][2] = {{"bootstrap.servers", getenv("KAFKA_BOOTSTRAP_SERVERS")},
                                       {"group.id", group},
                                       {"group.instance.id", instance},
                                       {"session.timeout.ms", "1500"},
                                       {"heartbeat.interval.ms", "300"},
                                       {"enable.auto.commit", "false"},
                                       {"partition.assignment.strategy", "range"}};
    struct kafka_twin *twin = calloc(1, sizeof *twin);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char error[256];

    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        MUST(rd_kafka_conf_set(conf, settings[i][0], settings[i][1], error, sizeof error) ==
                 RD_KAFKA_CONF_OK,
             "kafka: %s", error);
    rd_kafka_conf_set_log_cb(conf, ignore_log);
    twin->member = rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof error);
    MUST(twin->member, "kafka: %s", error);
    rd_kafka_poll_set_consumer(twin->member);
    kafka_twin_subscribe(twin, (const char *const[]){topic, NULL});
    return twin;
}

void kafka_twin_subscribe(struct kafka_twin *twin, const char *const *names)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);

    for (; *names; names++)
        rd_kafka_topic_partition_list_add(list, *names, RD_KAFKA_PARTITION_UA);
    MUST_BE(rd_kafka_subscribe(twin->member, list), 0);
    rd_kafka_topic_partition_list_destroy(list);
}

bool kafka_twin_has(struct kafka_twin *twin, const char *topic)
{
    rd_kafka_topic_partition_list_t *list;

    MUST(!kafka_twin_fenced(twin), "the twin is fenced");
    MUST_BE(rd_kafka_assignment(twin->member, &list), 0);
    bool has = list->cnt && same(list->elems[0].topic, topic);
    rd_kafka_topic_partition_list_destroy(list);
    return has;
}

bool kafka_twin_fenced(struct kafka_twin *twin)
{
    rd_kafka_message_t *m;

    while (!twin->fenced && (m = rd_kafka_consumer_poll(twin->member, 0))) {
        twin->fenced = m->err == RD_KAFKA_RESP_ERR__FATAL;
        rd_kafka_message_destroy(m);
    }
    return twin->fenced;
}

void kafka_twin_free(struct kafka_twin *twin)
{
    rd_kafka_destroy(twin->member);
    free(twin);
}

/* ---- Writing ---- */

static rd_kafka_headers_t *headers_of(const struct kafka_record *r)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)r->headers_n + 1);

    for (int i = 0; i < r->headers_n; i++) {
        const struct kafka_header *h = &r->headers[i];
        rd_kafka_header_add(headers, h->name, -1, h->value,
                            h->value ? (ssize_t)(h->n ? h->n : strlen(h->value)) : 0);
    }
    return headers;
}

static size_t length(const char *s, size_t n)
{
    return s ? n ? n : strlen(s) : 0;
}

void kafka_send(const struct kafka_record *r)
{
    rd_kafka_t *client = r->partition == RANDOM ? unkeyed() : keyed();
    rd_kafka_headers_t *headers = headers_of(r);
    rd_kafka_resp_err_t err;

    do {
        err = rd_kafka_producev(
            client, RD_KAFKA_V_TOPIC(r->topic),
            RD_KAFKA_V_PARTITION(r->partition < 0 ? RD_KAFKA_PARTITION_UA : r->partition),
            RD_KAFKA_V_KEY(r->key, length(r->key, r->key_n)),
            RD_KAFKA_V_VALUE((void *)r->value, length(r->value, r->value_n)),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
        rd_kafka_poll(client, err ? 10 : 0);
    } while (err == RD_KAFKA_RESP_ERR__QUEUE_FULL);
    MUST(!err, "send to %s: %s", r->topic, rd_kafka_err2str(err));
}

void kafka_flush(double seconds)
{
    rd_kafka_t *const clients[] = {producer, random_producer};

    for (int i = 0; i < 2; i++)
        MUST(!clients[i] || rd_kafka_flush(clients[i], (int)(seconds * 1000)) == 0,
             "Kafka did not take %d records", rd_kafka_outq_len(clients[i]));
    MUST(refused == 0, "Kafka refused %d records: %s", refused, why);
}

int64_t kafka_put(const struct kafka_record *record)
{
    kafka_flush(20);
    put_offset = -1;
    kafka_send(record);
    kafka_flush(20);
    MUST(put_offset >= 0, "no offset of a record of %s", record->topic);
    return put_offset;
}

/* ---- Reading ---- */

static int partitions_of(const char *name)
{
    const struct rd_kafka_metadata *md;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(reading(), name, NULL);
    int n = 0;

    if (rd_kafka_metadata(reading(), 0, topic, &md, WAIT_MS) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        n = md->topic_cnt ? md->topics[0].partition_cnt : 0;
        rd_kafka_metadata_destroy(md);
    }
    rd_kafka_topic_destroy(topic);
    MUST(n > 0, "there is no topic %s", name);
    return n;
}

static bool ask_ends(rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = RD_KAFKA_OFFSET_END;
    if (rd_kafka_offsets_for_times(reading(), list, 5000))
        return false;
    for (int i = 0; i < list->cnt; i++)
        if (list->elems[i].err || list->elems[i].offset < 0)
            return false;
    return true;
}

int64_t kafka_ends(const char *topic, int n, int64_t *ends)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
    int64_t sum = 0;

    for (int i = 0; i < n; i++)
        rd_kafka_topic_partition_list_add(list, topic, i);
    AWAIT(20, ask_ends(list));
    for (int i = 0; i < n; i++)
        sum += ends[i] = list->elems[i].offset;
    rd_kafka_topic_partition_list_destroy(list);
    return sum;
}

static char *copy(const void *from, size_t n)
{
    char *to = from ? malloc(n + 1) : NULL;

    if (to) {
        memcpy(to, from, n);
        to[n] = '\0';
    }
    return to;
}

static void keep_headers(struct kafka_record *r, const rd_kafka_message_t *m)
{
    rd_kafka_headers_t *from;
    const char *name;
    const void *value;
    size_t n;

    if (rd_kafka_message_headers(m, &from) || rd_kafka_header_cnt(from) == 0)
        return;
    struct kafka_header *headers = calloc(rd_kafka_header_cnt(from), sizeof *headers);
    MUST(headers, "out of memory");
    for (size_t i = 0; !rd_kafka_header_get_all(from, i, &name, &value, &n); i++)
        headers[r->headers_n++] = (struct kafka_header){strdup(name), copy(value, n), n};
    r->headers = headers;
}

static void keep(struct kafka_log *log, const char *topic, const rd_kafka_message_t *m)
{
    rd_kafka_timestamp_type_t type;

    if (log->n == log->cap) {
        log->cap = log->cap ? log->cap * 2 : 256;
        log->at = realloc(log->at, (size_t)log->cap * sizeof *log->at);
        MUST(log->at, "out of memory");
    }
    struct kafka_record *r = &log->at[log->n++];
    *r = (struct kafka_record){.topic = strdup(topic),
                               .partition = m->partition,
                               .offset = m->offset,
                               .time_ms = rd_kafka_message_timestamp(m, &type),
                               .key = copy(m->key, m->key_len),
                               .key_n = m->key_len,
                               .value = copy(m->payload, m->len),
                               .value_n = m->len};
    keep_headers(r, m);
}

static int by_place(const void *a, const void *b)
{
    const struct kafka_record *x = a, *y = b;

    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

struct kafka_log *kafka_read(const char *topic)
{
    struct kafka_log *log = calloc(1, sizeof *log);
    int n = partitions_of(topic), open = n;
    int64_t ends[PARTITIONS_MAX], until = test_until(60);
    bool ended[PARTITIONS_MAX] = {false};
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);

    MUST(log && n <= PARTITIONS_MAX, "%s has %d partitions", topic, n);
    kafka_ends(topic, n, ends);
    for (int i = 0; i < n; i++)
        rd_kafka_topic_partition_list_add(list, topic, i)->offset = 0;
    rd_kafka_assign(reading(), list);
    while (open > 0) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(reading(), 1000);
        MUST(m || test_now() < until, "%s cannot be read to its end", topic);
        if (!m)
            continue;
        if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) { /* comes again after what is new */
            open -= !ended[m->partition];
            ended[m->partition] = true;
        } else if (!m->err && m->offset < ends[m->partition])
            keep(log, topic, m);
        rd_kafka_message_destroy(m);
    }
    rd_kafka_assign(reading(), NULL);
    rd_kafka_topic_partition_list_destroy(list);
    if (log->n) /* qsort takes no NULL */
        qsort(log->at, (size_t)log->n, log->n ? sizeof *log->at : 1, by_place);
    return log;
}

void kafka_log_free(struct kafka_log *log)
{
    if (!log)
        return;
    for (int i = 0; i < log->n; i++) {
        struct kafka_record *r = &log->at[i];
        for (int h = 0; h < r->headers_n; h++) {
            free((char *)r->headers[h].name);
            free((char *)r->headers[h].value);
        }
        free((void *)r->headers);
        free((char *)r->topic);
        free((char *)r->key);
        free((char *)r->value);
    }
    free(log->at);
    free(log);
}

const char *kafka_header(const struct kafka_record *record, const char *name)
{
    for (int i = 0; i < record->headers_n; i++)
        if (strcmp(record->headers[i].name, name) == 0 && record->headers[i].value)
            return text("%.*s", (int)record->headers[i].n, record->headers[i].value);
    return NULL;
}
