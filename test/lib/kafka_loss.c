/* Kafka loses what it had: by its own means, and by cutting its log. See kafka.h. */
#include <fcntl.h>
#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kafka.h"
#include "proc.h"
#include "test.h"

enum { WAIT_MS = 20000 };

static rd_kafka_t *client(void)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char error[256];

    MUST(rd_kafka_conf_set(conf, "bootstrap.servers", getenv("KAFKA_BOOTSTRAP_SERVERS"), error,
                           sizeof error) == RD_KAFKA_CONF_OK,
         "kafka: %s", error);
    rd_kafka_t *made = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof error);
    MUST(made, "kafka: %s", error);
    return made;
}

/* -> whether it was done; takes queue's event */
static bool answered(rd_kafka_queue_t *queue, const char **why)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, WAIT_MS);
    bool good = event && !rd_kafka_event_error(event);

    *why = !event ? "no answer" : text("%s", rd_kafka_event_error_string(event));
    size_t n = 0;
    const rd_kafka_topic_result_t **results = NULL;
    if (good && rd_kafka_event_type(event) == RD_KAFKA_EVENT_CREATETOPICS_RESULT)
        results =
            rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
    for (size_t i = 0; i < n; i++)
        if (rd_kafka_topic_result_error(results[i])) {
            good = false;
            *why = text("%s", rd_kafka_topic_result_error_string(results[i]));
        }
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    return good;
}

void kafka_expire(const char *topic, int32_t partition, int64_t before)
{
    rd_kafka_t *rk = client();
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    const char *why;

    rd_kafka_topic_partition_list_add(list, topic, partition)->offset = before;
    rd_kafka_DeleteRecords_t *gone = rd_kafka_DeleteRecords_new(list);
    rd_kafka_DeleteRecords(rk, &gone, 1, NULL, queue);
    MUST(answered(queue, &why), "deleting records: %s", why);
    rd_kafka_DeleteRecords_destroy(gone);
    rd_kafka_topic_partition_list_destroy(list);
    int64_t low, high;
    AWAIT(10, !rd_kafka_query_watermark_offsets(rk, topic, partition, &low, &high, 5000) &&
                  low >= before);
    rd_kafka_destroy(rk);
}

static bool create(rd_kafka_t *rk, const char *topic, int lanes)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_NewTopic_t *made = rd_kafka_NewTopic_new(topic, lanes, 1, NULL, 0);
    const char *why;

    rd_kafka_NewTopic_set_config(made, "message.timestamp.type", "LogAppendTime");
    rd_kafka_CreateTopics(rk, &made, 1, NULL, queue);
    bool good = answered(queue, &why); /* false while the old one is being deleted */
    rd_kafka_NewTopic_destroy(made);
    return good;
}

void kafka_remake(const char *topic, int lanes)
{
    rd_kafka_t *rk = client();
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_DeleteTopic_t *gone = rd_kafka_DeleteTopic_new(topic);
    const char *why;

    rd_kafka_DeleteTopics(rk, &gone, 1, NULL, queue);
    MUST(answered(queue, &why), "deleting %s: %s", topic, why);
    rd_kafka_DeleteTopic_destroy(gone);
    AWAIT(20, create(rk, topic, lanes));
    AWAIT(20, kafka_has_leaders(topic, lanes));
    rd_kafka_destroy(rk);
}

void kafka_widen(const char *topic, int lanes)
{
    rd_kafka_t *rk = client();
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    char error[256];
    rd_kafka_NewPartitions_t *more =
        rd_kafka_NewPartitions_new(topic, (size_t)lanes, error, sizeof error);
    const char *why;

    rd_kafka_CreatePartitions(rk, &more, 1, NULL, queue);
    MUST(answered(queue, &why), "partitions of %s: %s", topic, why);
    rd_kafka_NewPartitions_destroy(more);
    rd_kafka_destroy(rk);
}

/* ---- Cutting the log ---- */

static int64_t big_endian(const unsigned char *at, int n)
{
    uint64_t v = 0;

    for (int i = 0; i < n; i++)
        v = v << 8 | at[i];
    return (int64_t)v;
}

/* A segment is batches, each begins with its first offset (8 bytes) and its length behind these 12. */
static void truncate_segment(const char *file, int64_t from)
{
    int fd = open(file, O_RDWR);
    unsigned char head[12];
    off_t at = 0;

    MUST(fd >= 0, "%s cannot be opened", file);
    while (pread(fd, head, sizeof head, at) == sizeof head && big_endian(head, 8) < from)
        at += 12 + big_endian(head + 8, 4);
    MUST(pread(fd, head, sizeof head, at) == sizeof head && big_endian(head, 8) == from,
         "%s has no batch that begins at offset %lld", file, (long long)from);
    MUST(ftruncate(fd, at) == 0, "%s cannot be cut", file);
    close(fd);
}

void kafka_cut(const char *topic, int32_t partition, int64_t from, void (*meanwhile)(void))
{
    const char *run = getenv("SAGA_RUN"), *name = run ? strrchr(run, '/') : NULL;

    MUST(name && strncmp(name, "/run-", 5) == 0, "set SAGA_RUN to build/run-SOMETHING: this "
                                                 "kills its Kafka");
    const char *dir = text("%s/kafka/data/%s-%d", run, topic, partition);
    shell("deploy/local/kill kafka");
    truncate_segment(text("%s/00000000000000000000.log", dir), from);
    shell("rm -f %s/*.index %s/*.timeindex %s/*.snapshot", dir, dir, dir);
    kafka_forget();
    if (meanwhile)
        meanwhile();
    shell("deploy/local/start kafka");
}
