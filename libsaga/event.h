/* Records as the services read and write them: CloudEvents 1.0 events and plain or CloudEvents
 * requests (DESIGN.md section 3). Pure. Called by engine.c for what Kafka brings, by batch.c for
 * what goes out, by http handlers and sagactl. */
#ifndef SAGA_EVENT_H
#define SAGA_EVENT_H

#include "err.h"
#include "lane.h"
#include "mem.h"
#include "saga.h"

enum {
    SAGA_VALUE_MAX = 64 * 1024,   /* bytes of a record's value, */
    SAGA_HEADERS_MAX = 16 * 1024, /* and of its headers' names and values, */
    SAGA_HEADERS_MANY = 256,      /* and how many of these: an empty one has a size, too. */
    SAGA_FORWARD_EXTRA = 512,     /* A forward may exceed both by this (4.5). */
};

struct saga_header {
    const char *name;
    const char *value; /* NULL: a null header */
    size_t n;          /* bytes of value */
};

/* A record of Kafka. Borrowed from the consumer until the next poll, unless it says kept. */
struct saga_record {
    const char *topic; /* without prefix */
    int32_t partition;
    int64_t offset;
    int64_t time_ms; /* LogAppendTime */
    const char *key; /* NULL: none */
    size_t key_n;
    const char *value; /* NULL: a tombstone */
    size_t value_n;
    const struct saga_header *headers; /* read for requests and for dead letters only */
    int headers_n;
};

uint64_t saga_record_hash(const struct saga_record *record); /* of key and value; never 0 */

/* What a record says. Everything is in the arena that was given. */
struct saga_message {
    const char *type;
    const struct saga_event *event; /* NULL: none of those known */
    const char *key;                /* the order id */
    const char *place;  /* event id as text; request: topic/partition/offset, or forwarded-from */
    const char *cause;  /* causationid, or NULL */
    const char *trace;  /* traceparent, or NULL */
    const char *source; /* events */
    int32_t lane;       /* events: as the id says */
    struct saga_id id, previous; /* events; previous.seq 0: none */
    int64_t time_ms;             /* CloudEvents time, 0: none */
    void *data;                  /* read into event->size bytes; NULL if event is NULL or refused */
    bool refused;    /* events: the envelope is good and the data is not: err says why */
    const char *raw; /* of a refused event: data as it came, JSON text; NULL: there was none */
    /* requests: */
    struct saga_id forwarded; /* of forwarded-id; seq 0: plain, or of another history */
    int32_t forwarded_from;   /* the lane q of it */
};

/* Reads an event (structured mode, with or without header) of the topic's writer. known: up to
 * NULL; data is read only for those. source: what it must be ("/order-svc"). lane: what its ids
 * must name.
 * -> 0 (look at refused), or SAGA_POISON: it stands outside the chain; *reason is "unreadable",
 * "foreign" (another source or lane) or "too_large". */
int saga_event_read(const struct saga_record *record, const struct saga_event *const *known,
                    const char *source, int32_t lane, struct saga_arena *arena,
                    struct saga_message *out, const char **reason, struct saga_err *err);

/* Reads a request in every accepted form: plain JSON; CloudEvents structured, with or without
 * header; CloudEvents binary (ce_* headers). makes_key: the request that may come without order_id
 * ("PlaceOrder"), or NULL: it gets a UUIDv5 of topic, partition, offset, time. history: of this
 * installation, to know its own forwards; with one of another history, or one that is not well
 * formed, the request is plain.
 * -> 0, or SAGA_POISON; *reason is "unreadable", "invalid", "unknown_type" or "too_large". */
int saga_request_read(const struct saga_record *record, const struct saga_event *const *known,
                      const struct saga_event *makes_key, const char *history,
                      struct saga_arena *arena, struct saga_message *out, const char **reason,
                      struct saga_err *err);
/* What looks like a forward of ours is none (attack 45): a plain request, which has its own place. */
void saga_request_plain(const struct saga_record *record, struct saga_arena *arena,
                        struct saga_message *out);

/* The value of a forward: the same bytes with order_id filled in where it was missing (for
 * CloudEvents: in data). */
void saga_request_forward(const struct saga_record *record, const char *order_id,
                          struct saga_arena *arena, const char **value, size_t *n);

/* Appends an event in structured mode. id, previous (seq 0: none) name lane; time in ms. */
struct saga_emission {
    const char *source; /* "/order-svc" */
    const struct saga_event *event;
    const char *key; /* the order */
    int32_t lane;
    struct saga_id id, previous;
    int64_t time_ms;
    const char *cause, *trace; /* trace: or NULL */
    const void *data;
};
void saga_event_write(const struct saga_emission *e, struct saga_buf *out);

/* Appends a request in plain form: {"type":...,"order_id":...,...}. */
void saga_request_write(const struct saga_event *request, const char *order_id, const void *data,
                        struct saga_buf *out);

/* A payload alone, {"order_id":...,...}: of what waits in table parked. read: key is what order_id
 * must be. -> 0, or SAGA_POISON: what fields or check of the event refuse. */
void saga_payload_write(const struct saga_event *event, const char *key, const void *data,
                        struct saga_buf *out);
int saga_payload_read(const struct saga_event *event, const char *key, const char *json, size_t n,
                      struct saga_arena *arena, void **data, struct saga_err *err);

/* "7.1042.1795513885123" <-> lane, id. -> false: not one (leading zeros and signs are refused). */
bool saga_id_read(const char *text, size_t n, int32_t *lane, struct saga_id *id);
enum { SAGA_ID_TEXT = 64 };                                    /* bytes that out must have */
int saga_id_write(int32_t lane, struct saga_id id, char *out); /* NUL added; -> length */

bool saga_name_ok(const char *s, size_t n); /* [A-Za-z0-9._:-]{1,64} */

#endif
