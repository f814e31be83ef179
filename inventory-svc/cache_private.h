/* The cache of the stock inside: stock_cache.c (readers, on the HTTP thread), cache_keeper.c (writers,
 * and whether the cache may be believed), cache_tell.c (what Redis hears from it), cache_watch.c (what the
 * database is asked for that).
 *
 * What bounds how old an answer may be: 1 s, of which 0.8 are used up here.
 *
 * A change is told before its COMMIT is sent (an open one) and again when that is done (one of very many
 * SKUs: with the next beat, together with those that follow it until then, each SKU once); the keeper, a
 * thread of its own, sends tombstones for it: "no version below this one". Where a value stands that is
 * read, and a batch has it in memory, the new one takes its place: else each change of a hot SKU would
 * cost a read of the database. It is as good as what a reader fills in: committed, of the generation in
 * which the batch read it, and newer than what stood there. An open change that takes longer than
 * OPEN_MS is told as a tombstone: a version that is not committed yet keeps old ones out as well. So is
 * one whose COMMIT was not answered, until the database says that its session has ended. Nobody
 * waits for the keeper, and nothing depends on it having done so, because each process that may write
 * holds a lease in Redis (`writers`), which its keeper renews (a beat) only in the same breath as it
 * tells all that was committed. A lease that has run out means: something may be committed that was not
 * told. From then on nobody believes the cache, until either the process is back (its next beat begins a
 * new generation: values of older ones do not count), or the database says that it has no session any
 * more (presence.h), and then whoever sees that first begins the new generation. So
 *   - killed between COMMIT and telling: its lease runs out, its sessions are gone, a new generation;
 *   - cut off from Redis: for as long as it may write, everybody reads from the database;
 *   - the queue to the keeper overflows, or Redis fails in the middle: a new generation;
 *   - the database was away, and may be an older copy of itself: a new generation;
 *   - a process that has never reached Redis: the database knows of it, and that it has no lease, and once
 *     it is gone a new generation is begun;
 *   - Redis restarted, perhaps with what it had an hour ago: its connections break, and whoever
 *     connects again begins a new generation. A reader's connection is believed only after a beat that
 *     was sent later than it was made.
 * An answer is believed if the last beat was sent at most TRUST_MS ago and found every writer's lease
 * in force: OPEN_MS + LEASE_MS + TRUST_MS after a COMMIT that nobody tells of, at the latest, no one
 * uses what is older.
 *
 * A slow reader must not put back what it has read long ago: a value is stored only (one script, so at
 * one moment) by who holds the SKU's lock, which lives LOCK_MS, and which a change that is done takes
 * away; in the generation in which it asked; and not below a version that stands there, be it in a value
 * or in a tombstone, which live longer than the lock.
 *
 * The filter belongs to a generation: a new one has none, until somebody builds it from the database,
 * after all transactions that had made a SKU before it knew (an advisory lock) are over. A SKU's bits
 * are set before its COMMIT; where that fails, the COMMIT waits until everybody has stopped to believe
 * the cache, or has begun a new generation. */
#ifndef CACHE_PRIVATE_H
#define CACHE_PRIVATE_H

#include <stdatomic.h>

#include "cache_rules.h"
#include "inventory.h"
#include "metrics.h"
#include "redis.h"
#include "stock_cache.h"

enum {
    BEAT_MS = 100,
    OPEN_MS = 100,
    LEASE_MS = 400,
    TRUST_MS = 300,
    KEEPER_MS = 200,      /* for an answer to the keeper, which keeps nobody waiting */
    LOCK_MS = 3000,       /* of who fills a key */
    TOMBSTONE_MS = 10000, /* longer than the lock */
    NEGATIVE_MS = 5000,   /* an unknown SKU is remembered */
    DISTRUSTED_MS =
        1500,        /* after its last beat nobody believes the cache because of this process */
    LIVING_MS = 300, /* how often the database is asked who may write */
    LIVING_OLD_MS = 5000,  /* older than this its answer says nothing */
    QUEUE_MAX = 64 * 1024, /* SKUs that wait to be told */
    CHUNK = 100,           /* SKUs in one run of a script: Redis serves others in between */
};

/* The remedies that CACHE_WITHOUT takes away, for tests and the demo. */
enum cache_remedy {
    CACHE_FLIGHT,   /* one reader fills a key while the others wait */
    CACHE_SPREAD,   /* of lifetimes */
    CACHE_FILTER,   /* the Bloom filter */
    CACHE_NEGATIVE, /* unknown SKUs are remembered */
    CACHE_VERSIONS, /* are compared */
    CACHE_LEASES,   /* of writers */
    CACHE_REMEDIES
};

extern struct cache {
    bool on;
    bool without[CACHE_REMEDIES];
    int64_t ttl_ms, timeout_ms; /* of values; of answers to readers */
    const char *prefix;         /* of all keys */
    const char *database;       /* DATABASE_URL */
    struct saga_redis_place at;
    /* The keeper's word: an answer of this generation, over a connection made before the last beat was
     * sent, is good until then (us). */
    _Atomic int64_t generation, beat_at, good_until;
    _Atomic int64_t beat_tried_at;
    _Atomic int64_t connected_at; /* the keeper, to where it is now */
    _Atomic bool filter_wanted;   /* the generation has none */
} cache;

extern struct saga_redis_script cache_miss, cache_fill, cache_bar, cache_create, cache_forget,
    cache_beat, cache_complete;
extern struct saga_redis_script *const cache_scripts[]; /* all, up to NULL */

/* Each is a row of /metrics. */
extern struct cache_metrics {
    saga_cell_t *hits, *misses, *fills, *refused, *waits, *negative, *filter, *bypassed, *reads,
        *errors, *breaker, *told, *queue, *generations, *trusted;
} cache_metric;

void cache_key(struct saga_redis_command *c, const char *kind, const char *sku); /* a word */
int64_t cache_now(void);                                                         /* us, monotonic */

void cache_make_metrics(
    void); /* once; stock_cache_start() does it, but without it there are readers, too */

/* ---- stock_cache.c: the HTTP thread ---- */
extern const struct saga_guest cache_guest;
bool cache_front_is_well(void); /* Redis answers readers in time. Any thread */

/* ---- cache_tell.c: the keeper's thread ---- */
/* What was or will be written by one transaction; in a list, oldest first. */
struct stock_change {
    struct stock_change *next, **link; /* link: what points to this one, NULL: not in the list */
    int64_t began, told, ended;        /* us; told 0: not yet */
    enum { OPEN, UNKNOWN, DONE } end;  /* UNKNOWN: whether it is committed, or still may be */
    bool untold;                       /* there was no room for it */
    int session;                       /* in which it is made: a process id of the server's */
    int64_t generation;                /* of the rows in at[]; 0: only the versions are known */
    enum waiting { NOBODY, WAITS, TOLD, NOT_TOLD } waiting;
    const char *creating; /* instead: a SKU that is about to be made */
    int n;
    struct written {
        struct stock stock; /* without its key */
        char sku[65];
    } at[];
};
/* Of these, which are told together, oldest first: what a later one says as well is not told by an earlier one. */
void cache_thin(struct stock_change *told);
/* Puts it into redis' batch. values: the new ones, too, for those who read them. */
void cache_tell(struct saga_redis *redis, const struct stock_change *change, bool values);

/* ---- cache_keeper.c ---- */
void cache_keeper_start(void);
void cache_keeper_doubt(void); /* a new generation is to begin */
/* Whether there are changes of which nobody knows what became of them; */
bool cache_keeper_wonders(void);
/* and the sessions (process ids of the server's) that we have by an answer that was asked for at a time. */
void cache_keeper_sessions(const int *session, int n, int64_t asked);
void cache_keeper_stop(void); /* tells what is left, and gives the lease back */
const char *cache_keeper_why(char *text, size_t n); /* it is not believed, or NULL */
const char *cache_keeper_address(char *text, size_t n);

/* ---- cache_watch.c ---- */
void cache_watch_start(void);
/* Two or more words: how many ms ago the database was asked who may write (-1: too long ago), and the
 * numbers of those. -> whether it is known */
bool cache_watch_living(struct saga_redis_command *c);

#endif
