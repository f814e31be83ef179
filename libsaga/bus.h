/* Kafka: the only caller of librdkafka in a service. One member of the service's group,
 * one reader outside it, one idempotent producer. All calls come from the engine's thread; nothing blocks but what says so.
 *
 * The group decides which lanes are ours; a handle outside it reads them: positions are given
 * by saga_bus_read and kept, and never depend on Kafka's own offsets.
 *
 * Source of the settings: DESIGN.md section 7. */
#ifndef SAGA_BUS_H
#define SAGA_BUS_H

#include "conf.h"
#include "err.h"
#include "event.h"
#include "saga.h"

enum { SAGA_TOPICS_MAX = 5 }; /* that one service reads */

struct saga_bus;

struct saga_bus_events {
    void *owner;
    /* The lanes that the group gives us now: all of them, ascending. Fetching starts by
     * saga_bus_read. */
    void (*assigned)(void *owner, const int32_t *lanes, int n);
    /* A delivery report of the present producer. offset -1: not delivered, or not known where; refused
     * says why, or is NULL: it went with its producer or its topic, no lane is to blame. */
    void (*reported)(void *owner, int32_t lane, int64_t seq, int64_t offset, const char *refused);
};

/* topics: those read, up to NULL. Does not wait for a broker. -> NULL: a setting is wrong (err). */
struct saga_bus *saga_bus_new(const struct saga_conf *conf, const char *group,
                              const char *const *topics, const struct saga_bus_events *events,
                              struct saga_err *err);
/* Leaves: flushes the producer and closes the consumer, at most ms. Static members stay members. */
void saga_bus_close(struct saga_bus *bus, int ms);

int saga_bus_fd(
    const struct saga_bus *bus); /* an eventfd: readable when there is something to do */

void saga_bus_woken(struct saga_bus *bus); /* before all that is there is looked for */
/* Serves callbacks and reports. -> 0, SAGA_RETRY: the producer is dead, saga_bus_renew it;
 * SAGA_FATAL: another process has our SAGA_INSTANCE. */
int saga_bus_serve(struct saga_bus *bus, struct saga_err *err);

/* The next record of a topic, by its place in topics; borrowed until the next call. -> 1, 0: none
 * is waiting, SAGA_POISON: the position of record->partition is not in Kafka. */
int saga_bus_next(struct saga_bus *bus, int topic, struct saga_record *record);
void saga_bus_headers(struct saga_bus *bus,
                      struct saga_record *record); /* reads those of the record */

/* ---- Where to read ---- */
/* From here on. Waits, shorter than 1 ms, until what was read before has stopped. */
void saga_bus_read(struct saga_bus *bus, int topic, int32_t lane, int64_t offset);
void saga_bus_pause(struct saga_bus *bus, int topic, int32_t lane); /* until saga_bus_resume */
void saga_bus_resume(struct saga_bus *bus, int topic, int32_t lane);
/* Patience: records are fetched many at a time, up to 8 ms after they came. Reading goes on where it is.
 * -> 0, SAGA_FATAL: a setting is wrong */
int saga_bus_patience(struct saga_bus *bus, bool patience, struct saga_err *err);
bool saga_bus_lost(struct saga_bus *bus); /* a connection to a broker, since the last call */
/* End of the partition as the last fetch saw it, -1: not known. Does not ask. */
int64_t saga_bus_end(const struct saga_bus *bus, int topic, int32_t lane);
/* Commits where lanes stand, for lag tools only. offset < 0: left out. */
void saga_bus_commit(struct saga_bus *bus, int topic, int32_t lane, int64_t offset);
void saga_bus_commit_flush(struct saga_bus *bus);

/* ---- Asking (blocks, at most ms) ---- */
/* -> partitions of topic, 0: there is no such topic, SAGA_RETRY */
int saga_bus_partitions(struct saga_bus *bus, const char *topic, int ms, struct saga_err *err);
/* -> 1 the partition has a leader, 0, SAGA_RETRY: Kafka does not answer */
int saga_bus_led(struct saga_bus *bus, const char *topic, int32_t partition, int ms);
const char *saga_bus_cluster(struct saga_bus *bus, int ms); /* cluster id, or NULL */

/* ---- Writing ---- */
/* Copies. topic without prefix. Until a new producer's first record in a partition is acknowledged,
 * later ones wait here (KAFKA.md: a first request that is refused leaves a hole otherwise); the same
 * after an hour without one. */
struct saga_delivery {
    const char *topic;
    int32_t partition;
    const char *key, *value; /* NULL: null */
    size_t key_n, value_n;
    const struct saga_header *headers; /* headers_n 0: the one header of our events */
    int headers_n;
    int32_t lane;
    int64_t seq;
};
void saga_bus_send(struct saga_bus *bus, const struct saga_delivery *d);
/* What was sent: else it waits for more, 5 ms at most. Serves reports until all are there, for 1 ms at most. */
void saga_bus_send_now(struct saga_bus *bus);
/* A new producer; reports of the old one are ignored from now on. */
int saga_bus_renew(struct saga_bus *bus, struct saga_err *err);

#endif
