/* From a record to an input of a batch: what it says (intake), and whether its lane's chain takes
 * it (screen). Pure. engine.c reads while PostgreSQL works on the batch before, and screens when
 * that has committed; the simulation does the same with its topics in memory. */
#ifndef SAGA_SCREEN_H
#define SAGA_SCREEN_H

#include "batch.h"
#include "event.h"
#include "lane.h"

enum { SAGA_READS_MAX = 5, SAGA_KNOWN_MAX = 40 };

/* What a service reads, derived from its saga_service once. */
struct saga_intake {
    const struct saga_service *service;
    const char *history;
    const char *topic[SAGA_READS_MAX + 1]; /* requests first, up to NULL */
    const char *source[SAGA_READS_MAX];    /* of whose events: "/order-svc"; NULL: requests */
    int topics;
    const struct saga_event *known[SAGA_KNOWN_MAX]; /* events with a rule, up to NULL */
};
void saga_intake_init(struct saga_intake *in, const struct saga_service *service,
                      const char *history);
void saga_intake_free(struct saga_intake *in);

/* A record as it was read. In the arena given. */
struct saga_read {
    int topic;
    int32_t lane;
    int64_t offset;
    uint64_t hash;               /* of requests: saga_record_hash */
    uint32_t epoch;              /* the caller's: of the reading that it belongs to */
    bool bad;                    /* stands outside the chain, or no request: */
    const char *reason, *detail; /* why; also of refused data */
    struct saga_message message;
    struct saga_record *record; /* a copy, for what has to be forwarded or buried; else NULL */
};
/* headers of record: of requests; of events only if it asks by calling headers(record). */
void saga_intake_read(const struct saga_intake *in, int topic, int32_t lanes,
                      struct saga_record *record,
                      void (*headers)(void *owner, struct saga_record *record), void *owner,
                      struct saga_arena *arena, struct saga_read *out);

/* A lane's inputs as a batch moves them: copies, kept when COMMIT is confirmed. */
struct saga_reader {
    struct saga_input input[SAGA_READS_MAX]; /* by topic */
    struct saga_id *forwarded;               /* requests: newest forward, by source lane */
};

enum saga_screened {
    SAGA_APPLIED, /* an input was added to the batch */
    SAGA_PASSED,  /* the position moved, nothing to do */
    SAGA_DROPPED, /* a duplicate */
    SAGA_HELD,    /* in a gap */
    SAGA_IGNORED, /* of an input that seeks back or is stopped */
    SAGA_FORKED,  /* the input is stopped */
};
enum saga_screened saga_screen(const struct saga_intake *in, struct saga_batch *b,
                               struct saga_reader *reader, const struct saga_read *read,
                               int64_t now);

#endif
