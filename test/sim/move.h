/* A schedule: moves on a world as data, so that they can be recorded, played again, dropped one by
 * one and printed. test_random.c draws them, explore.c walks all of them; both shrink what fails. */
#ifndef MOVE_H
#define MOVE_H

#include "sim.h"

enum move_kind {
    MOVE_STOCK,   /* key: the SKU, n: available */
    MOVE_REQUEST, /* lane: partition or -1, key or NULL, text: the value */
    MOVE_READ,    /* n records of an input, into the batch */
    MOVE_STALE,   /* a request is read again: at is its offset */
    MOVE_REPLY,   /* what the provider has said of key comes, */
    MOVE_DUE,     /* and its deadline; n: the clock goes there first */
    MOVE_COMMIT,  /* decided and stored */
    MOVE_TWICE,   /* decided, decided again with the same result, and stored */
    MOVE_ABORT,   /* decided, and rolled back */
    MOVE_SEND,    /* n rows */
    MOVE_ACK,     /* n reports */
    MOVE_LOSE,    /* at: what is reported, see sim_lose() */
    MOVE_TAKE,    /* n: the old owner lives */
    MOVE_ZOMBIE,  /* it sends n rows */
    MOVE_REWIND,  /* an input goes back to offset at */
    MOVE_OVERDUE, /* a gap has been open for too long */
    MOVE_RELOAD,  /* rows are loaded from the database */
    MOVE_CALL,    /* a call of key is made; n: enum how */
    MOVE_AGAIN,   /* another caller will make it, too */
    MOVE_GONE,    /* a caller that is gone never made it */
    MOVE_COPY,    /* of the record at offset at of topic input, to the end of partition n */
    MOVE_APPEND,  /* rubbish: text or NULL, to topic input */
    MOVE_CLOCK,   /* goes forward by at */
    MOVE_KINDS
};
struct move {
    enum move_kind kind;
    int8_t service, lane, input;
    int32_t n;
    int64_t at;
    const char *key, *text;
};
/* input, of a move of calls: which of the key's; 0: the first */
enum { MOVE_CHARGE = 1, MOVE_REFUND = 2, MOVE_ORPHAN = 4, MOVE_LIVE = 8 };
extern const bool move_is_fault[MOVE_KINDS];
extern const char *const move_names[MOVE_KINDS];

bool move_open(const struct service *s); /* a batch is being gathered */
/* -> false: the world is not such that it can be made; nothing has changed */
bool move_make(struct sim_world *w, const struct move *move);

struct schedule {
    int64_t pay_timeout; /* SAGA_PAY_TIMEOUT of its world */
    bool expiring;       /* its world ends after all deadlines */
    struct move *move;
    int n, cap;
    struct saga_arena texts;
};
void schedule_add(struct schedule *s, struct move move); /* copies key and text */
void schedule_clear(struct schedule *s);
void schedule_free(struct schedule *s);

/* A new world plays the moves; then faults are over, everything that waits comes, and nothing moves
 * any more. The caller frees w. -> whether all is well */
bool schedule_play(const struct schedule *s, struct sim_world *w, bool tracing);
void schedule_drain(const struct schedule *s, struct sim_world *w); /* the second half */

/* Drops moves for as long as it fails. -> how many schedules were played for it */
int schedule_shrink(struct schedule *s);
/* The transcript of a schedule that fails, to stdout. */
void schedule_print(const struct schedule *s);

#endif
