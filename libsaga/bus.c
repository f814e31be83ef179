/* Kafka by librdkafka: membership of the service's group, which says what lanes are ours, and what is asked
 * of the broker. Reading is bus_read.c, sending bus_send.c. */
#include "bus_private.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "failpoint.h"
#include "kafka_file.h"
#include "log.h"

static const char *const common[][2] = {
    {"client.id", "saga"},
    {"socket.nagle.disable", "true"},
    {"reconnect.backoff.ms", "50"},
    {"reconnect.backoff.max.ms", "1000"},
    {"topic.metadata.refresh.interval.ms", "60000"},
    {"allow.auto.create.topics", "false"},
    {"log.connection.close", "false"},
};

/* socket: what a broker owes, one that died has forgotten. Not for producers, whose answer waits for
 * slow followers. */
static const char *const member[][2] = {
    {"enable.auto.commit", "false"},
    {"partition.assignment.strategy", "range"},
    {"max.poll.interval.ms", "300000"},
    {"socket.timeout.ms", "10000"},
    {"topic.metadata.refresh.interval.ms", "5000"}, /* topics that are made after our start */
};

enum {
    FENCED_ONCE = 60 /* s */,
    GATE_KEPT = 3600 /* s */,
    SAID_ONCE = 10 /* s */,
    SHARE_FIRST = 3 /* s */,
    SHARE_MOST = 300 /* s */,
    SHARE_MS = 1000
};

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk;
    char line[400];

    snprintf(line, sizeof line, "%s: %s", facility, text);
    saga_log_text(level <= 3 ? SAGA_WARN : SAGA_DEBUG, "kafka client", line);
}

/* Errors that librdkafka tries again for ever, and that none but an operator ends. */
static bool is_lasting(int code)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT:
    case RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL:
    case RD_KAFKA_RESP_ERR_GROUP_MAX_SIZE_REACHED:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__SSL:
    case RD_KAFKA_RESP_ERR__RESOLVE:
        return true;
    default:
        return false;
    }
}

time_t saga_bus_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now); /* as brokers count */
    return now.tv_sec;
}

void saga_bus_say(struct saga_bus *bus, rd_kafka_t *rk, const char *who, int code, const char *text)
{
    char why[256];

    if (rk && code == RD_KAFKA_RESP_ERR__FATAL) {
        code = rd_kafka_fatal_error(rk, why, sizeof why);
        text = code ? why : text;
    }
    time_t now = saga_bus_seconds();
    bool lasting = is_lasting(code), again = code == bus->said && now < bus->said_at + SAID_ONCE;

    if (lasting && !again) {
        bus->said = code;
        bus->said_at = now;
    }
    saga_log_text(lasting && !again ? SAGA_WARN : SAGA_DEBUG, who, text);
}

bool saga_bus_is_loss(int code, const char *text)
{
    static const char in_state[] = " in state ";
    const char *state = strstr(text, in_state);

    if (state)
        return strncmp(state + strlen(in_state), "UP", 2) == 0;
    return code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
}

static void on_error(rd_kafka_t *rk, int code, const char *text, void *opaque)
{
    struct saga_bus *bus = opaque;

    if (code == RD_KAFKA_RESP_ERR__FATAL) {
        if (rk == bus->producer)
            bus->producer_dead = true;
    }
    if ((code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) &&
        rk == bus->consumer)
        bus->joined_again = 0;
    if (saga_bus_is_loss(code, text))
        bus->lost = true;
    saga_bus_say(bus, rk, "kafka client", code, text);
}

int saga_bus_set(rd_kafka_conf_t *rc, const char *name, const char *value, struct saga_err *err)
{
    char text[200];

    if (rd_kafka_conf_set(rc, name, value, text, sizeof text) != RD_KAFKA_CONF_OK)
        return saga_err(err, SAGA_FATAL, "kafka: %s", text);
    return 0;
}

rd_kafka_conf_t *saga_bus_conf(struct saga_bus *bus, const char *const (*settings)[2], size_t n,
                               struct saga_err *err)
{
    rd_kafka_conf_t *rc = rd_kafka_conf_new();
    int bad = saga_bus_set(rc, "bootstrap.servers", bus->conf->brokers, err);

    for (size_t i = 0; i < sizeof common / sizeof *common && !bad; i++)
        bad = saga_bus_set(rc, common[i][0], common[i][1], err);
    for (size_t i = 0; i < n && !bad; i++)
        bad = saga_bus_set(rc, settings[i][0], settings[i][1], err);
    if (!bad && *bus->conf->kafka_config)
        bad = saga_kafka_file(rc, bus->conf->kafka_config, err);
    if (bad) {
        rd_kafka_conf_destroy(rc);
        return NULL;
    }
    rd_kafka_conf_set_opaque(rc, bus);
    rd_kafka_conf_set_log_cb(rc, on_log);
    rd_kafka_conf_set_error_cb(rc, on_error);
    return rc;
}

/* The full name of a topic. */
const char *saga_bus_name(const struct saga_bus *bus, const char *topic, char *out, size_t n)
{
    snprintf(out, n, "%s%s", bus->conf->prefix, topic);
    return out;
}

void saga_bus_wake(struct saga_bus *bus, rd_kafka_queue_t *queue)
{
    static const uint64_t one = 1;

    rd_kafka_queue_io_event_enable(queue, bus->fd, &one, sizeof one);
}

/* ---- Assignment ---- */

/* -> by partition, up to highest, how many topics that we read it was given of */
static int *count_topics(const struct saga_bus *bus, const rd_kafka_topic_partition_list_t *parts,
                         int32_t highest)
{
    size_t size = ((size_t)highest + 2) * sizeof(int);
    int *seen = memset(saga_alloc(size), 0, size);
    char name[300];

    for (int t = 0; t < bus->topics_n; t++) {
        saga_bus_name(bus, bus->topics[t], name, sizeof name);
        for (int i = 0; i < parts->cnt; i++)
            seen[parts->elems[i].partition] += strcmp(parts->elems[i].topic, name) == 0;
    }
    return seen;
}

/* A lane is ours when its partition of every topic is: range gives the same numbers of all. */
static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t code,
                         rd_kafka_topic_partition_list_t *parts, void *opaque)
{
    struct saga_bus *bus = opaque;
    int32_t highest = -1;

    if (bus->closing ||
        rk != bus->consumer) { /* on a closing thread: the engine is not to be told */
        rd_kafka_assign(rk, NULL);
        return;
    }
    bus->lanes_n = 0;
    bus->lacks = false;
    if (code != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        rd_kafka_assign(rk, NULL);
        saga_bus_read_nothing(bus);
        bus->events.assigned(bus->events.owner, NULL, 0);
        return;
    }
    rd_kafka_topic_partition_list_t *nothing = rd_kafka_topic_partition_list_new(0);
    rd_kafka_assign(rk, nothing); /* taken note of: the member itself reads nothing */
    rd_kafka_topic_partition_list_destroy(nothing);
    for (int i = 0; i < parts->cnt; i++)
        highest = parts->elems[i].partition > highest ? parts->elems[i].partition : highest;
    saga_bus_room(bus, highest);
    int *seen = count_topics(bus, parts, highest);
    for (int32_t i = 0; i <= highest; i++)
        if (seen[i] == bus->topics_n)
            bus->lanes[bus->lanes_n++] = i;
    free(seen);
    bus->lacks = bus->lanes_n == 0;
    if (!bus->lacks)
        bus->share_wait = 0;
    bus->share_at = saga_bus_seconds() + (bus->share_wait ? bus->share_wait : SHARE_FIRST);
    saga_bus_read_nothing(bus);
    bus->events.assigned(bus->events.owner, bus->lanes, bus->lanes_n);
}

/* ---- Life ---- */

/* n: the first so many of the topics */
static int subscribe(struct saga_bus *bus, int n, struct saga_err *err)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
    char name[300];

    bus->subscribed = n;
    bus->lacks = false;
    for (int t = 0; t < n; t++)
        rd_kafka_topic_partition_list_add(
            list, saga_bus_name(bus, bus->topics[t], name, sizeof name), RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t code = rd_kafka_subscribe(bus->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    return code ? saga_err(err, SAGA_FATAL, "subscribe: %s", rd_kafka_err2str(code)) : 0;
}

static int join(struct saga_bus *bus, struct saga_err *err)
{
    char text[300], timeout[24], beat[24];
    rd_kafka_conf_t *rc = saga_bus_conf(bus, member, sizeof member / sizeof *member, err);

    bus->share_wait = 0;
    if (!rc)
        return SAGA_FATAL;
    snprintf(timeout, sizeof timeout, "%" PRId64, bus->conf->session_timeout / 1000);
    snprintf(beat, sizeof beat, "%" PRId64, bus->conf->session_timeout / 1000 / 5);
    if (saga_bus_set(rc, "group.id", saga_bus_name(bus, bus->group, text, sizeof text), err) < 0 ||
        saga_bus_set(rc, "group.instance.id", bus->conf->instance, err) < 0 ||
        saga_bus_set(rc, "session.timeout.ms", timeout, err) < 0 ||
        saga_bus_set(rc, "heartbeat.interval.ms", beat, err) < 0) {
        rd_kafka_conf_destroy(rc);
        return SAGA_FATAL;
    }
    rd_kafka_conf_set_rebalance_cb(rc, on_rebalance);
    bus->consumer = rd_kafka_new(RD_KAFKA_CONSUMER, rc, text, sizeof text);
    if (!bus->consumer) {
        rd_kafka_conf_destroy(rc);
        return saga_err(err, SAGA_FATAL, "kafka consumer: %s", text);
    }
    rd_kafka_poll_set_consumer(bus->consumer);
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(bus->consumer);
    saga_bus_wake(bus, queue);
    rd_kafka_queue_destroy(queue);
    return subscribe(bus, bus->topics_n, err);
}

/* Whether there is a lane at least for each member of the group, which is at rest. */
static bool is_for_each(struct saga_bus *bus)
{
    const struct rd_kafka_group_list *groups = NULL;
    struct saga_err err = {0};
    char name[300];
    int lanes = saga_bus_partitions(bus, bus->topics[0], SHARE_MS, &err);
    bool enough = false;

    rd_kafka_list_groups(bus->producer, saga_bus_name(bus, bus->group, name, sizeof name), &groups,
                         SHARE_MS);
    for (int i = 0; groups && i < groups->group_cnt; i++)
        enough =
            strcmp(groups->groups[i].state, "Stable") == 0 && groups->groups[i].member_cnt <= lanes;
    if (groups)
        rd_kafka_group_list_destroy(groups);
    return enough;
}

/* A static member that comes back is given what its name had, whatever it subscribes now (KAFKA-12759): of an
 * earlier version, say, that read other topics, or nothing at all, from before there were topics. The group
 * assigns anew when a member subscribes something else: all topics but one, and then all. */
static int ask_for_share(struct saga_bus *bus, struct saga_err *err)
{
    int n = bus->topics_n;

    if (!bus->lacks)
        return 0;
    if (bus->subscribed < n)
        return subscribe(bus, n, err);
    time_t now = saga_bus_seconds();
    if (now < bus->share_at)
        return 0;
    bool first = bus->share_wait == 0;
    bus->share_wait = first ? SHARE_FIRST : bus->share_wait * 2;
    if (bus->share_wait > SHARE_MOST)
        bus->share_wait = SHARE_MOST;
    bus->share_at = now + bus->share_wait;
    if (!is_for_each(bus)) {
        if (first)
            saga_log_text(SAGA_INFO, "given no lane: a spare",
                          "there are more processes than lanes, or they are being assigned");
        return 0;
    }
    saga_log_text(SAGA_WARN, "given no lane, though there is one for each",
                  "the group is asked to assign them anew");
    return subscribe(bus, n > 1 ? n - 1 : n, err);
}

static void *destroy(void *handle)
{
    rd_kafka_destroy(handle);
    return NULL;
}

void saga_bus_forget(rd_kafka_t *handle)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, destroy, handle) == 0)
        pthread_detach(thread);
}

/* A member can be fenced by itself: a commit that waited while the broker was away arrives after the
 * member has joined again. So the first time in a minute, and the first time after a connection to the
 * broker was lost, we join anew; of two processes with one SAGA_INSTANCE the first that is fenced again
 * has to go. */
static int join_again(struct saga_bus *bus, struct saga_err *err)
{
    struct timespec now;
    rd_kafka_t *old = bus->consumer;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (bus->fatal != RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID ||
        (bus->joined_again && now.tv_sec - bus->joined_again < FENCED_ONCE))
        return saga_err(err, SAGA_FATAL,
                        bus->fatal == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID
                            ? "another process has SAGA_INSTANCE=%s in this group: give each its "
                              "own (%s)"
                            : "kafka consumer of %s: %s",
                        bus->conf->instance, bus->fatal_text);
    saga_log_text(SAGA_WARN, "fenced: joining the group again", bus->fatal_text);
    bus->joined_again = now.tv_sec;
    bus->fatal = RD_KAFKA_RESP_ERR_NO_ERROR;
    bus->consumer = NULL;
    bus->lanes_n = 0;
    saga_bus_read_nothing(bus);
    saga_bus_forget(old);
    bus->events.assigned(bus->events.owner, NULL, 0);
    return join(bus, err);
}

struct saga_bus *saga_bus_new(const struct saga_conf *conf, const char *group,
                              const char *const *topics, const struct saga_bus_events *events,
                              struct saga_err *err)
{
    struct saga_bus *bus = saga_alloc(sizeof *bus);

    *bus = (struct saga_bus){.conf = conf,
                             .group = saga_strdup(group),
                             .events = *events,
                             .topics = topics,
                             .gate_kept = GATE_KEPT};
    while (topics[bus->topics_n])
        bus->topics_n++;
    bus->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (saga_bus_renew(bus, err) < 0 || saga_bus_open_reader(bus, err) < 0 || join(bus, err) < 0) {
        saga_bus_close(bus, 100);
        return NULL;
    }
    return bus;
}

static void *close_consumer(void *arg)
{
    struct saga_bus *bus = arg;

    rd_kafka_consumer_close(bus->consumer);
    bus->closed = true;
    return NULL;
}

/* Closing can hang in librdkafka 2.0.2: it gets a thread of its own, and the process ends anyway.
 */
void saga_bus_close(struct saga_bus *bus, int ms)
{
    pthread_t thread;

    bus->closing = true;
    if (bus->producer)
        rd_kafka_flush(bus->producer, ms / 2);
    if (bus->current) {
        rd_kafka_message_destroy(bus->current);
        bus->current = NULL;
    }
    if (bus->consumer && pthread_create(&thread, NULL, close_consumer, bus) == 0) {
        pthread_detach(thread);
        for (int waited = 0; !bus->closed && waited < ms / 2; waited += 10)
            poll(NULL, 0, 10);
    }
}

int saga_bus_fd(const struct saga_bus *bus)
{
    return bus->fd;
}

/* Rebalances happen in here. A fatal error comes as a message, not to on_error. */
static void poll_member(struct saga_bus *bus)
{
    rd_kafka_message_t *m;

    while (!bus->fatal && (m = rd_kafka_consumer_poll(bus->consumer, 0))) {
        if (m->err == RD_KAFKA_RESP_ERR__FATAL)
            bus->fatal =
                rd_kafka_fatal_error(bus->consumer, bus->fatal_text, sizeof bus->fatal_text);
        saga_bus_say(bus, bus->consumer, "kafka group", m->err, rd_kafka_message_errstr(m));
        rd_kafka_message_destroy(m);
    }
}

void saga_bus_woken(struct saga_bus *bus)
{
    uint64_t count;
    ssize_t n = read(bus->fd, &count, sizeof count);

    (void)n;
}

int saga_bus_serve(struct saga_bus *bus, struct saga_err *err)
{
    rd_kafka_poll(bus->producer, 0);
    rd_kafka_poll(bus->eager.handle, 0);
    if (bus->patient.handle)
        rd_kafka_poll(bus->patient.handle, 0);
    poll_member(bus);
    if ((bus->fatal && join_again(bus, err) < 0) || ask_for_share(bus, err) < 0)
        return SAGA_FATAL;
    if (bus->producer_dead)
        return saga_err(err, SAGA_RETRY, "kafka producer failed");
    return 0;
}

bool saga_bus_lost(struct saga_bus *bus)
{
    bool lost = bus->lost;

    bus->lost = false;
    return lost;
}

/* ---- Lag tools ---- */

void saga_bus_commit(struct saga_bus *bus, int topic, int32_t lane, int64_t offset)
{
    if (lane < bus->room)
        bus->position[topic][lane].commit = offset;
}

void saga_bus_commit_flush(struct saga_bus *bus)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(64);
    char name[300];

    for (int t = 0; t < bus->topics_n; t++) {
        saga_bus_name(bus, bus->topics[t], name, sizeof name);
        for (int i = 0; i < bus->lanes_n; i++) {
            struct position *p = &bus->position[t][bus->lanes[i]];
            if (p->commit >= 0)
                rd_kafka_topic_partition_list_add(list, name, bus->lanes[i])->offset = p->commit;
            p->commit = -1;
        }
    }
    if (list->cnt) {
        SAGA_FAILPOINT(offsets_committing);
        rd_kafka_commit(bus->consumer, list, 1);
        SAGA_FAILPOINT(offsets_committed);
    }
    rd_kafka_topic_partition_list_destroy(list);
}

/* ---- Asking ---- */

int saga_bus_count(const struct rd_kafka_metadata *all, const char *topic, struct saga_err *err)
{
    rd_kafka_resp_err_t code =
        all->topic_cnt == 1 ? all->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;

    if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
        return 0;
    if (code)
        return saga_err(err, SAGA_RETRY, "kafka: topic %s: %s", topic, rd_kafka_err2str(code));
    return all->topics[0].partition_cnt;
}

int saga_bus_partitions(struct saga_bus *bus, const char *topic, int ms, struct saga_err *err)
{
    const struct rd_kafka_metadata *all = NULL;
    rd_kafka_topic_t *handle = saga_bus_topic(bus, topic);
    rd_kafka_resp_err_t code = rd_kafka_metadata(bus->producer, 0, handle, &all, ms);
    int n = 0;

    if (code)
        return saga_err(err, SAGA_RETRY, "kafka at %s: %s", bus->conf->brokers,
                        rd_kafka_err2str(code));
    n = saga_bus_count(all, topic, err);
    rd_kafka_metadata_destroy(all);
    return n;
}

int saga_bus_led(struct saga_bus *bus, const char *topic, int32_t partition, int ms)
{
    const struct rd_kafka_metadata *all = NULL;
    int led = 0;

    if (rd_kafka_metadata(bus->producer, 0, saga_bus_topic(bus, topic), &all, ms))
        return SAGA_RETRY;
    for (int i = 0; all->topic_cnt == 1 && i < all->topics[0].partition_cnt; i++)
        if (all->topics[0].partitions[i].id == partition)
            led = all->topics[0].partitions[i].leader >= 0;
    rd_kafka_metadata_destroy(all);
    return led;
}

const char *saga_bus_cluster(struct saga_bus *bus, int ms)
{
    if (!bus->cluster)
        bus->cluster = rd_kafka_clusterid(bus->producer, ms);
    return bus->cluster;
}
