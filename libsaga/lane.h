/* The rules of a lane (DESIGN.md 4.2 to 4.4) as pure functions on plain structs: which record is
 * next, which is a duplicate, where to read on, what counts as published. No I/O, clock or
 * allocation: the simulation runs these very functions. engine.c owns the structs, in its one
 * thread.
 *
 * Happy path: every record of an input is "next"; its offset moves next_offset, its id is
 * remembered, and both are stored with its effects. A record in a gap sets the hold: the stored
 * position stays before it, and when the missing event has been applied and committed the input
 * seeks back to it. Records that were read twice are told by the chain, so a position is only ever
 * a hint. */
#ifndef SAGA_LANE_H
#define SAGA_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The place of an event in its lane (which is known from where it stands), and its writer's term.
 */
struct saga_id {
    int64_t seq; /* 0: no event */
    int64_t term;
};

static inline bool saga_id_same(struct saga_id a, struct saga_id b)
{
    return a.seq == b.seq && a.term == b.term;
}

/* The lane of an order: Kafka's own partitioner, murmur2 (org.apache.kafka.common.utils.Utils) of
 * the key, sign bit cleared, modulo lanes. */
int32_t saga_lane_of(const char *key, size_t n, int32_t lanes);

/* ---- Reading ---- */

enum saga_verdict {
    SAGA_NEXT,      /* apply */
    SAGA_DUPLICATE, /* drop, count */
    SAGA_GAP,       /* drop, count, held */
    SAGA_FORK,      /* the writer's history was restarted or restored: the input stops */
    SAGA_UNREAD,    /* drop: the input seeks back when this batch is committed, or is stopped */
};

/* One topic as read by one lane. next_offset, screened and last are columns of lane_input. */
struct saga_input {
    int64_t next_offset; /* the next record to look at; the stored one is saga_input_position() */
    int64_t screened;    /* highest offset looked at, -1: none */
    struct saga_id last; /* newest event applied */
    int64_t held;        /* lowest offset in a gap, -1: none, */
    struct saga_id held_previous; /* and what must come before it */
    int64_t held_since;           /* microseconds, */
    bool reached;                 /* what was missing has been applied: seek to held after COMMIT */
    bool rewound;                 /* the input was read again from its earliest record */
    bool stopped;                 /* fork: nothing more is read */
    bool lost;       /* records from lost_at on are not in Kafka any more: a gap as well, */
    int64_t lost_at; /* open until an event is applied; the stored position stays here */
    uint64_t hash;   /* of requests: of the record before next_offset (key and value), 0: none */
};

/* Judges an event at offset and moves in. now in microseconds. */
enum saga_verdict saga_input_screen(struct saga_input *in, int64_t offset, struct saga_id id,
                                    struct saga_id previous, int64_t now);

/* A record outside the chain, or a request, at offset. -> false: it was looked at before. */
bool saga_input_pass(struct saga_input *in, int64_t offset);

int64_t saga_input_position(const struct saga_input *in); /* what is stored as next_offset */

/* Retention, or a new topic, has taken what stands between next_offset and low, the earliest record
 * (4.4 step 3): reads on from low. now in microseconds. */
void saga_input_lose(struct saga_input *in, int64_t low, int64_t now);
static inline bool saga_input_open(const struct saga_input *in) /* a gap */
{
    return in->held >= 0 || in->lost;
}

/* After COMMIT: -> where to seek because the hold's missing event has been applied, or -1. */
int64_t saga_input_resume(struct saga_input *in);

/* Open for longer than wait: -> true once, the caller seeks to the earliest record. */
bool saga_input_overdue(struct saga_input *in, int64_t now, int64_t wait);

/* A forwarded request (4.5): the chain of its source lane, by (term, seq). -> false: a duplicate.
 */
bool saga_forward_screen(struct saga_id *last, struct saga_id id);

/* ---- Publishing ---- */

/* What of the lane's outbox is in Kafka. A ring of what was sent and is not known to be there. */
struct saga_sent {
    int64_t seq;
    struct saga_id id; /* of an event on the own topic; seq 0: a dead letter or a forward */
    int64_t offset;    /* its report's; -1: none yet */
    uint32_t bytes;
};
struct saga_outgoing {
    int64_t published;        /* every outbox row up to here is in Kafka */
    int64_t published_offset; /* of the newest of them on the own topic, -1: none */
    struct saga_id published_id;
    int64_t known_offset;   /* a report on the own topic counts only above this */
    struct saga_sent *ring; /* cap is a power of two */
    uint32_t head, n, cap;
    int64_t bytes; /* in the ring */
    int failures;  /* without an acknowledgement between */
};

void saga_outgoing_sent(struct saga_outgoing *out, int64_t seq, struct saga_id own, uint32_t bytes);
/* A delivery report that says success. -> true: counted (published moves over the contiguous
 * prefix); false: it does not count (4.3): the lane must be taken again. */
bool saga_outgoing_acked(struct saga_outgoing *out, int64_t seq, int64_t offset);
/* A producer had to be given up because of this lane and no other. -> true: for the third time without
 * an acknowledgement between; the lane stops (4.3), or it would disturb the others for ever. */
bool saga_outgoing_failed(struct saga_outgoing *out);
/* What is waited for first is an event of the own topic, not a forward or a dead letter. */
bool saga_outgoing_waits_own(const struct saga_outgoing *out);
/* A row that need not be sent again takes its place in the ring: it is in Kafka. */
void saga_outgoing_passed(struct saga_outgoing *out, int64_t seq);
void saga_outgoing_reset(struct saga_outgoing *out); /* empties the ring */
/* Above the limits all inputs of the lane are paused, until it is below half of them (4.3). */
enum { SAGA_LANE_EVENTS = 5000, SAGA_LANE_BYTES = 16 * 1024 * 1024 };
bool saga_outgoing_full(const struct saga_outgoing *out);
bool saga_outgoing_eased(const struct saga_outgoing *out);

/* ---- Looking at the own partition (4.4 step 2) ---- */

/* What it holds from published_offset on (from its earliest record, if that is later or nothing is
 * published) to its end. */
struct saga_seen {
    int64_t low, high;        /* of the partition */
    bool there;               /* the record at published_offset was read, */
    struct saga_id published; /* and is this event; seq 0: it is none of ours */
    struct saga_id newest;    /* highest sequence of ours, */
    int64_t newest_offset;    /* and where it was read first */
};
enum saga_finding {
    SAGA_FINE,
    SAGA_KAFKA_BEHIND,    /* it has lost what it had acknowledged */
    SAGA_DATABASE_BEHIND, /* it was restored from an old copy */
    SAGA_REQUESTS_LOST,   /* their offset is gone, or stands behind another record (step 3) */
};
/* published_offset (-1: none), published_id, last_seq: as they were when it was looked. */
enum saga_finding saga_seen_judge(const struct saga_seen *seen, int64_t published_offset,
                                  struct saga_id published_id, int64_t last_seq);

#endif
