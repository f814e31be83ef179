/* A record of any of the topics as people want to see it: who wrote it, what it says, what caused
 * it. Its JSON form is what --json prints. */
#ifndef CTL_ENTRY_H
#define CTL_ENTRY_H

#include <jansson.h>

#include "event.h"

struct ctl_entry {
    json_t *json; /* owns what the texts below point into; reason and detail of dead letters too */
    const char *service; /* "order-svc", "client" for requests, "dead letter" */
    const char *type;    /* of the event or request; "(unreadable)"; a dead letter's reason */
    const char *key;     /* the order, or "" */
    const char *id;      /* of the event, of the dead letter; a request's place */
    const char *cause;   /* its causationid, a forward's or dead letter's source; or NULL */
    const char *topic;
    int32_t partition;
    int64_t offset, time_ms; /* Kafka's clock */
    int copies;              /* more than 1: written again after a crash */
    bool redriven;           /* dead letters: what it holds was sent again */
};

/* Reads any record; one that says nothing is "(unreadable)". */
void ctl_entry_read(const struct saga_record *record, struct ctl_entry *e);
void ctl_entry_free(struct ctl_entry *e);

/* Whether the record may be about the order, without reading it (requests may come without key). */
bool ctl_entry_may_be(const struct saga_record *record, const char *order);

/* By time, but causes before effects and each partition in its order: a millisecond holds many.
 * Copies of one event become one entry. -> the number left */
int ctl_entries_order(struct ctl_entry *e, int n);

/* "13:31:25.123 order-svc OrderCreated ord-1 order.events 7@42 amount=900 ..." */
void ctl_entry_print(const struct ctl_entry *e);
/* Within one order's timeline: e[i] with the time since the one before it and what caused it. */
void ctl_timeline_print(const struct ctl_entry *e, int i);

/* "topic/partition/offset" -> its parts; topic is copied. -> false: it is none */
bool ctl_place_read(const char *place, char topic[128], int32_t *partition, int64_t *offset);

#endif
