/* What bus.c, bus_read.c and bus_send.c share. */
#ifndef SAGA_BUS_PRIVATE_H
#define SAGA_BUS_PRIVATE_H

#include <librdkafka/rdkafka.h>
#include <poll.h>
#include <stdatomic.h>
#include <time.h>

#include "bus.h"

enum { TARGETS = 8 }; /* topics that one service writes */

struct waiting; /* a record that waits for its partition's first acknowledgement */

struct target { /* a topic written */
    char *topic;
    rd_kafka_topic_t *handle;
    struct gate {
        bool open, asked; /* its first record of this producer is acknowledged, is on its way */
        time_t acked;     /* monotonic: the newest acknowledgement */
        struct waiting *first, *last;
    } * gate; /* by partition */
    int32_t gates;
};

/* A handle that reads outside the group. */
struct reader {
    rd_kafka_t *handle; /* NULL: not opened yet */
    rd_kafka_topic_t *source[SAGA_TOPICS_MAX];
    rd_kafka_queue_t *records[SAGA_TOPICS_MAX];
};

struct saga_bus {
    const struct saga_conf *conf;
    struct saga_bus_events events;
    rd_kafka_t *consumer, *producer; /* consumer: the group's, for membership alone */
    int fd;
    /* reading */
    struct reader eager, patient, *reader; /* the one that reads */
    const char *const *topics;
    int topics_n;
    int32_t *lanes; /* assigned to us */
    int lanes_n;
    int subscribed;    /* of topics */
    bool lacks;        /* was assigned no lane */
    time_t share_at;   /* when to ask for more */
    time_t share_wait; /* s: before the next time, 0: has not asked */
    struct position {
        int64_t offset; /* of the next record to hand out, -1: not told yet */
        int64_t commit; /* to be committed, -1: nothing */
        bool reading;
    } * position[SAGA_TOPICS_MAX]; /* by lane */
    int32_t room;                  /* lanes in position, lanes */
    rd_kafka_message_t *current;
    struct saga_header *headers;
    size_t headers_cap;
    /* writing */
    struct target target[TARGETS];
    int targets;
    bool producer_dead;
    time_t gate_kept; /* s: a gate without an acknowledgement for so long shuts again */
    /* state */
    bool lost; /* a connection to a broker */
    atomic_bool closing, closed;
    const char *group;
    rd_kafka_resp_err_t fatal;
    time_t joined_again; /* monotonic, 0: never since the broker was lost */
    char fatal_text[128];
    int said; /* the last warning */
    time_t said_at;
    char *cluster;
};

time_t saga_bus_seconds(void); /* monotonic, also while the machine sleeps */
/* Logs an error: what is not over by itself as a warning, once in a while. rk: whose fatal error it may be, or
 * NULL */
void saga_bus_say(struct saga_bus *bus, rd_kafka_t *rk, const char *who, int code,
                  const char *text);
/* The metadata of one topic -> its partitions, 0: there is no such topic, SAGA_RETRY: it is not told */
int saga_bus_count(const struct rd_kafka_metadata *all, const char *topic, struct saga_err *err);
int saga_bus_set(rd_kafka_conf_t *rc, const char *name, const char *value, struct saga_err *err);
rd_kafka_conf_t *saga_bus_conf(struct saga_bus *bus, const char *const (*settings)[2], size_t n,
                               struct saga_err *err);
/* Destroys a client that has been given up, on a thread of its own: librdkafka 2.0.2 may wait for one of
 * its threads for ever when a broker was killed. */
void saga_bus_forget(rd_kafka_t *handle);
const char *saga_bus_name(const struct saga_bus *bus, const char *topic, char *out, size_t n);
void saga_bus_wake(struct saga_bus *bus, rd_kafka_queue_t *queue);

/* bus_read.c */
int saga_bus_open_reader(struct saga_bus *bus, struct saga_err *err);
void saga_bus_room(struct saga_bus *bus, int32_t lane); /* for positions of lanes up to this */
void saga_bus_read_nothing(struct saga_bus *bus);       /* until it is told again */

/* bus_send.c */
rd_kafka_topic_t *saga_bus_topic(struct saga_bus *bus, const char *topic);

/* Whether librdkafka's error says that a connection to a broker was lost: one that was up, for one that is
 * tried again and again has been lost before. Its texts end with "(after 12ms in state UP)". */
bool saga_bus_is_loss(int code, const char *text);

#endif
