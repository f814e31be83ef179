/* topics apply: makes the topics as DESIGN.md section 2 wants them. Those that exist are compared
 * and left as they are: a partition count is fixed for life, and the rest is the operator's to
 * decide. */
#include "ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kafka.h"

enum { WAIT_MS = 30000, SETTINGS = 4, LANES = 12 };

static int64_t lanes, replication;

struct setting {
    const char *name, *value;
    bool must;  /* another value breaks a promise: the command fails */
    bool least; /* a higher one is as good */
};

static struct setting settings[SETTINGS] = {
    {"cleanup.policy", "delete", true, false}, /* a late reader must see every event */
    {"retention.ms", "604800000", false, false},
    {"message.timestamp.type", "LogAppendTime", true, false}, /* ids and expiry need one clock */
    {"min.insync.replicas", "1", true, true}, /* what is acknowledged is in so many copies */
};

static rd_kafka_t *admin(void)
{
    static rd_kafka_t *rk;
    if (!rk)
        rk = ctl_kafka(RD_KAFKA_PRODUCER, NULL);
    return rk;
}

static rd_kafka_event_t *await(rd_kafka_queue_t *queue, const char *what)
{
    rd_kafka_event_t *ev = rd_kafka_queue_poll(queue, WAIT_MS);
    if (!ev)
        ctl_die(CTL_AWAY, "%s: Kafka does not answer at %s", what, ctl_brokers());
    if (rd_kafka_event_error(ev))
        ctl_die(CTL_AWAY, "%s: %s", what, rd_kafka_event_error_string(ev));
    return ev;
}

static const struct rd_kafka_metadata *metadata(void)
{
    const struct rd_kafka_metadata *md;
    if (rd_kafka_metadata(admin(), 1, NULL, &md, 5000))
        ctl_die(CTL_AWAY, "Kafka does not answer at %s (KAFKA_BOOTSTRAP_SERVERS)", ctl_brokers());
    return md;
}

/* Brokers that live, which may be fewer than there are. */
static int brokers(void)
{
    const struct rd_kafka_metadata *md = metadata();
    int n = md->broker_cnt;
    rd_kafka_metadata_destroy(md);
    return n;
}

/* Copies of the partition that has the fewest; 0: it is not told. */
static int copies(const char *topic)
{
    const struct rd_kafka_metadata *md = metadata();
    int least = 0;
    for (int i = 0; i < md->topic_cnt; i++)
        for (int p = 0;
             strcmp(md->topics[i].topic, ctl_topic(topic)) == 0 && p < md->topics[i].partition_cnt;
             p++) {
            int n = md->topics[i].partitions[p].replica_cnt;
            least = least == 0 || n < least ? n : least;
        }
    rd_kafka_metadata_destroy(md);
    return least;
}

static void told(const char *topic, int32_t partitions, int replicas, const char *what)
{
    if (ctl_json) {
        json_t *line = json_pack("{s:s,s:i,s:i,s:s}", "topic", ctl_topic(topic), "partitions",
                                 (int)partitions, "replication", replicas, "result", what);
        ctl_print_json(line);
        json_decref(line);
    } else {
        printf("%-24s %3d partitions  %d %s  %s\n", ctl_topic(topic), partitions, replicas,
               replicas == 1 ? "copy  " : "copies", what);
    }
}

/* ---- Comparing ---- */

static bool differs(const char *topic, const struct setting *s,
                    const rd_kafka_ConfigEntry_t **entries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *is = rd_kafka_ConfigEntry_value(entries[i]);
        if (strcmp(rd_kafka_ConfigEntry_name(entries[i]), s->name) != 0 || !is ||
            strcmp(is, s->value) == 0 || (s->least && atoi(is) > atoi(s->value)))
            continue;
        fprintf(stderr, "sagactl: %s: %s is %s, expected %s%s\n", ctl_topic(topic), s->name, is,
                s->value, s->must ? "" : " (left as it is)");
        return s->must;
    }
    return false;
}

static bool settings_differ(const char *topic)
{
    rd_kafka_ConfigResource_t *r =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, ctl_topic(topic));
    rd_kafka_queue_t *queue = rd_kafka_queue_new(admin());
    rd_kafka_DescribeConfigs(admin(), &r, 1, NULL, queue);
    rd_kafka_event_t *ev = await(queue, topic);
    size_t n;
    const rd_kafka_ConfigResource_t *found =
        rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(ev), &n)[0];
    if (rd_kafka_ConfigResource_error(found))
        ctl_die(CTL_NO, "%s: %s", ctl_topic(topic), rd_kafka_ConfigResource_error_string(found));
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(found, &n);
    bool bad = false;
    for (int i = 0; i < SETTINGS; i++)
        bad |= differs(topic, &settings[i], entries, n);
    rd_kafka_event_destroy(ev);
    rd_kafka_queue_destroy(queue);
    rd_kafka_ConfigResource_destroy(r);
    return bad;
}

static int compare(const char *topic, int32_t partitions)
{
    bool bad = settings_differ(topic);
    if (partitions != lanes) {
        fprintf(stderr,
                "sagactl: %s: has %d partitions, expected %" PRId64
                ": it is fixed for life, since orders are found by it. Set SAGA_LANES=%d, or begin "
                "with other topics\n",
                ctl_topic(topic), partitions, lanes, partitions);
        bad = true;
    }
    int replicas = copies(topic);
    if (replicas && replicas < replication) {
        fprintf(
            stderr,
            "sagactl: %s: has %d %s, expected %" PRId64
            ": what one broker loses is lost. kafka-reassign-partitions adds copies; --replication "
            "%d says that it is meant\n",
            ctl_topic(topic), replicas, replicas == 1 ? "copy" : "copies", replication, replicas);
        bad = true;
    }
    told(topic, partitions, replicas, bad ? "differs" : "exists");
    return bad ? CTL_NO : CTL_OK;
}

/* ---- Making ---- */

static int create(const char *topic)
{
    char why[256];
    rd_kafka_NewTopic_t *t =
        rd_kafka_NewTopic_new(ctl_topic(topic), (int)lanes, (int)replication, why, sizeof why);
    if (!t)
        ctl_die(CTL_USAGE, "%s: %s", topic, why);
    for (int i = 0; i < SETTINGS; i++)
        rd_kafka_NewTopic_set_config(t, settings[i].name, settings[i].value);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(admin());
    rd_kafka_CreateTopics(admin(), &t, 1, NULL, queue);
    rd_kafka_event_t *ev = await(queue, topic);
    size_t n;
    const rd_kafka_topic_result_t *result =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &n)[0];
    rd_kafka_resp_err_t e = rd_kafka_topic_result_error(result);
    bool exists = e == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS; /* another sagactl was faster */
    if (e && !exists)
        ctl_die(CTL_NO, "%s: %s", ctl_topic(topic), rd_kafka_topic_result_error_string(result));
    rd_kafka_event_destroy(ev);
    rd_kafka_queue_destroy(queue);
    rd_kafka_NewTopic_destroy(t);
    if (exists)
        return compare(topic, ctl_partitions(topic));
    told(topic, (int32_t)lanes, (int)replication, "created");
    return CTL_OK;
}

/* Brokers learn of a new topic a moment after it is made. Who starts right behind us must find it.
 */
static void await_leaders(void)
{
    int64_t until = ctl_now_ms() + WAIT_MS;
    for (int i = 0; ctl_all_topics[i]; i++)
        while (!ctl_is_led(ctl_all_topics[i])) {
            if (ctl_now_ms() > until)
                ctl_die(CTL_AWAY, "%s: has no leader after %d s", ctl_topic(ctl_all_topics[i]),
                        WAIT_MS / 1000);
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        }
}

/* Without --lanes and SAGA_LANES the topics that exist decide. */
static int64_t lanes_wanted(void)
{
    char *end;
    const char *text = ctl_env("SAGA_LANES", "");
    if (lanes)
        return lanes;
    if (*text) {
        long v = strtol(text, &end, 10);
        if (*end || v < 1 || v > 10000)
            ctl_die(CTL_USAGE, "SAGA_LANES=%.40s: expected a whole number from 1 to 10000", text);
        return v;
    }
    int32_t is = 0;
    for (int i = 0; ctl_all_topics[i] && is == 0; i++)
        is = ctl_partitions_of(ctl_all_topics[i]);
    return is ? is : LANES;
}

static int apply(int argc, char **argv)
{
    (void)argc, (void)argv;
    if (!replication) {
        int n = brokers();
        if (n == 2 || (n == 1 && strchr(ctl_brokers(), ',')))
            ctl_die(CTL_USAGE,
                    "%d of the brokers at %s answer: if others are missing, wait for "
                    "them; else --replication says how many copies are wanted",
                    n, ctl_brokers());
        replication = n >= 3 ? 3 : 1;
    }
    settings[3].value = replication >= 3 ? "2" : "1";
    lanes = lanes_wanted();
    int status = CTL_OK;
    for (int i = 0; ctl_all_topics[i]; i++) {
        int32_t n = ctl_partitions_of(ctl_all_topics[i]);
        status |= n ? compare(ctl_all_topics[i], n) : create(ctl_all_topics[i]);
    }
    await_leaders();
    return status;
}

static const struct ctl_option options[] = {
    {"lanes", "N", "partitions of every topic; default SAGA_LANES, else 12", .number = &lanes,
     .min = 1, .max = 10000},
    {"replication", "N", "copies of each; default 3 on three brokers or more, 1 on one",
     .number = &replication, .min = 1, .max = 100},
    {0},
};

const struct ctl_command ctl_topics[] = {
    {"topics apply", "", 0, 0, "creates the topics, compares those that exist",
     "  sagactl topics apply\n"
     "  SAGA_TOPIC_PREFIX=test. sagactl topics apply --lanes 4\n",
     options, apply},
    {0},
};
