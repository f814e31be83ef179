/* The keeper: tells Redis what was written here, renews this process's lease, and knows from the same
 * answer whether the cache may be believed. See cache_private.h. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cache_private.h"
#include "log.h"
#include "presence.h"

enum { MS = 1000, SECOND = 1000000 };

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t filled, told; /* by the monotonic clock */
    struct stock_change *first, **end;
    int queued; /* SKUs */
    int done;   /* changes in the list that are to leave it */
    bool hurry; /* one of them not only with the next beat */
    bool doubt; /* something is not told and never will be: a new generation */
    bool stop;
    char why[200], address[64];
    /* the keeper's own */
    struct saga_redis *redis;
    struct cache_breaker breaker;
    struct saga_redis_command command;
    struct cache_interest interest;
    bool joined; /* has had a beat */
    int64_t beat_due;
} keeper = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- Who writes ---- */

static void append(struct stock_change *change)
{
    change->link = keeper.end;
    *keeper.end = change;
    keeper.end = &change->next;
    keeper.queued += change->n;
}

static void take_out(struct stock_change *change)
{
    *change->link = change->next;
    if (change->next)
        change->next->link = change->link;
    else
        keeper.end = change->link;
    change->next = NULL;
    change->link = NULL;
    keeper.queued -= change->n;
    keeper.done -= change->end == DONE;
}

static struct stock_change *new_change(int n, int session)
{
    struct stock_change *change = saga_alloc(sizeof *change + (size_t)n * sizeof *change->at);

    *change = (struct stock_change){.n = n, .began = cache_now(), .session = session};
    return change;
}

/* What changes very many SKUs is told with the next beat: until then there will be more of them, of the same
 * SKUs. */
static void be_done(struct stock_change *change)
{
    change->end = DONE;
    keeper.done++;
    if (change->n > CACHE_NARROW)
        return;
    keeper.hurry = true;
    pthread_cond_signal(&keeper.filled);
}

static void list(struct stock_change *change)
{
    pthread_mutex_lock(&keeper.lock);
    change->untold = keeper.queued + change->n > QUEUE_MAX;
    if (change->untold)
        keeper.doubt = true;
    else
        append(change);
    pthread_mutex_unlock(&keeper.lock);
}

struct stock_change *stock_cache_storing(const char *sku, int64_t version, int session)
{
    struct stock_change *change;

    if (!cache.on)
        return NULL;
    change = new_change(1, session);
    change->at->stock.version = version;
    snprintf(change->at->sku, sizeof change->at->sku, "%s", sku);
    list(change);
    return change;
}

/* -> whether it was told within ms */
static bool await_told(struct stock_change *change, int ms)
{
    int64_t until = cache_now() + ms * MS;
    struct timespec t = {until / SECOND, until % SECOND * 1000};

    while (change->waiting == WAITS &&
           pthread_cond_timedwait(&keeper.told, &keeper.lock, &t) != ETIMEDOUT)
        ;
    bool told = change->waiting == TOLD;
    if (change->waiting == WAITS)
        change->waiting = NOBODY; /* the keeper frees it */
    else
        free(change);
    return told;
}

static void end_change(struct stock_change *change, bool known, bool wait)
{
    pthread_mutex_lock(&keeper.lock);
    if (change->untold) {
        keeper.doubt = true;
        free(change);
    } else if (known) {
        change->waiting = wait ? WAITS : NOBODY;
        be_done(change);
        if (wait)
            await_told(change, KEEPER_MS);
    } else { /* told from now on like one that is open, until its session has ended */
        change->end = UNKNOWN;
        change->ended = cache_now();
        change->began = change->told = 0;
    }
    pthread_mutex_unlock(&keeper.lock);
}

void stock_cache_stored(struct stock_change *change, bool known)
{
    if (change)
        end_change(change, known, known);
}

/* ---- The engine's ---- */

static struct stock_change *of_batch;

void stock_cache_batch_storing(const void *const *rows, int n, int session)
{
    if (!cache.on || n == 0)
        return;
    of_batch = new_change(n, session);
    of_batch->generation = atomic_load(&cache.generation);
    for (int i = 0; i < n; i++) {
        const struct stock *stock = rows[i];
        of_batch->at[i].stock = *stock;
        snprintf(of_batch->at[i].sku, sizeof of_batch->at[i].sku, "%s", stock->row.key);
    }
    list(of_batch);
}

void stock_cache_batch_stored(bool committed, bool known)
{
    if (!of_batch)
        return;
    if (!committed)
        of_batch->generation = 0;
    end_change(of_batch, known, false);
    of_batch = NULL;
}

/* ---- A new SKU ---- */

static bool tell_creating(const char *sku)
{
    struct stock_change *change = new_change(0, 0);

    change->creating = sku;
    change->waiting = WAITS;
    pthread_mutex_lock(&keeper.lock);
    append(change);
    be_done(change);
    bool told = await_told(change, 2 * KEEPER_MS);
    if (!told) {
        /* what is in the list still points to sku */
        for (struct stock_change *c = keeper.first; c; c = c->next)
            if (c == change) {
                take_out(c);
                free(c);
                break;
            }
    }
    pthread_mutex_unlock(&keeper.lock);
    return told;
}

/* Until it is told, or nobody believes the cache any more: our lease has run out, and what others knew
 * before. What begins after that begins with a new generation, whose filter waits for our transaction. */
int stock_cache_creating(const char *sku, struct saga_err *err)
{
    static const struct timespec pause = {0, 20 * 1000000};
    const int64_t until = cache_now() + 2 * DISTRUSTED_MS * MS;

    if (!cache.on)
        return 0;
    while (!tell_creating(sku)) {
        if (cache_now() - atomic_load(&cache.beat_tried_at) >= DISTRUSTED_MS * MS)
            return 0;
        if (cache_now() >= until)
            return saga_err(err, SAGA_RETRY, "Redis takes no new SKU, and is not away either");
        nanosleep(&pause, NULL);
    }
    return 0;
}

/* ---- The keeper's thread ---- */

static bool is_due(const struct stock_change *change, int64_t now)
{
    return change->end == DONE ||
           (now - change->began > OPEN_MS * MS && now - change->told > OPEN_MS * MS);
}

/* Puts what is due into the batch for Redis. -> those that are done, out of the list. */
static struct stock_change *collect(int64_t now, bool connected, bool *doubt)
{
    struct stock_change *taken = NULL, **end = &taken;

    pthread_mutex_lock(&keeper.lock);
    for (struct stock_change *c = keeper.first, *next; c; c = next) {
        next = c->next;
        if (!is_due(c, now))
            continue;
        c->told = now;
        if (connected && (c->end != DONE || c->creating)) /* its owner may be gone in a moment */
            cache_tell(keeper.redis, c, false);
        if (c->end != DONE)
            continue;
        take_out(c);
        *end = c;
        end = &c->next;
    }
    *doubt = keeper.doubt;
    keeper.doubt = keeper.hurry = false;
    saga_gauge(cache_metric.queue, keeper.queued);
    pthread_mutex_unlock(&keeper.lock);
    cache_thin(taken);
    for (const struct stock_change *c = taken; c && connected; c = c->next)
        if (!c->creating)
            cache_tell(keeper.redis, c, cache_interest_in(&keeper.interest, c->n, now));
    return taken;
}

/* What could not be told makes the generation doubtful. */
static void release(struct stock_change *taken, bool told, bool doubt)
{
    pthread_mutex_lock(&keeper.lock);
    keeper.doubt |= !told && (doubt || taken);
    for (struct stock_change *next; taken; taken = next) {
        next = taken->next;
        if (taken->waiting == WAITS)
            taken->waiting = told ? TOLD : NOT_TOLD; /* who waits frees it */
        else
            free(taken);
    }
    pthread_cond_broadcast(&keeper.told);
    pthread_mutex_unlock(&keeper.lock);
}

static void explain(const char *why)
{
    pthread_mutex_lock(&keeper.lock);
    bool changed = strncmp(keeper.why, why, sizeof keeper.why - 1) != 0;
    snprintf(keeper.why, sizeof keeper.why, "%.*s", (int)sizeof keeper.why - 1, why);
    pthread_mutex_unlock(&keeper.lock);
    if (changed)
        saga_log_text(*why ? SAGA_WARN : SAGA_INFO, "stock cache",
                      *why ? why : "believed from now on");
}

/* -> whether we know who else may write */
static bool add_beat(bool doubt)
{
    struct saga_redis_command *c = &keeper.command;
    bool known;

    saga_redis_script(c, &cache_beat, 5);
    cache_key(c, "generation", "");
    cache_key(c, "writers", "");
    cache_key(c, "filter", "");
    cache_key(c, "builder", "");
    cache_key(c, "left:", "");
    saga_redis_number(c, saga_presence());
    saga_redis_number(c, cache.without[CACHE_LEASES] ? 3600 * MS : LEASE_MS);
    saga_redis_word(c, doubt ? "doubt" : keeper.joined ? "same" : "first");
    if (cache.without[CACHE_LEASES]) {
        saga_redis_number(c, -1);
        known = true;
    } else {
        known = cache_watch_living(c);
    }
    saga_redis_add(keeper.redis, c);
    return known;
}

static void hear_beat(const struct redisReply *reply, bool known, int64_t sent)
{
    const int64_t generation = saga_redis_int(saga_redis_item(reply, 0));
    const int64_t late = saga_redis_int(saga_redis_item(reply, 1));
    char why[120] = "";

    if (atomic_load(&cache.generation) != generation)
        saga_count(cache_metric.generations, 1);
    atomic_store(&cache.generation, generation);
    atomic_store(&cache.filter_wanted, saga_redis_int(saga_redis_item(reply, 2)) == 0);
    if (!known)
        snprintf(why, sizeof why, "the database does not tell who may write");
    else if (late && !cache.without[CACHE_LEASES])
        snprintf(why, sizeof why,
                 "%" PRId64 " of the processes that may write do not tell the cache", late);
    explain(why);
    keeper.joined = true;
    atomic_store(&cache.beat_at, sent);
    atomic_store(&cache.good_until, *why ? 0 : sent + TRUST_MS * MS);
}

static void fail(const struct saga_err *err)
{
    atomic_store(&cache.good_until, 0);
    saga_count(cache_metric.errors, 1);
    cache_breaker_failed(&keeper.breaker, cache_now());
    saga_gauge(cache_metric.breaker, keeper.breaker.state);
    explain(err->text);
}

static bool connect_redis(struct saga_err *err)
{
    if (saga_redis_connected(keeper.redis))
        return true;
    if (!cache_breaker_lets(&keeper.breaker, cache_now()))
        return false;
    saga_gauge(cache_metric.breaker, keeper.breaker.state);
    if (saga_redis_connect(keeper.redis, KEEPER_MS, err) < 0) {
        fail(err);
        return false;
    }
    pthread_mutex_lock(&keeper.lock);
    keeper.doubt |= keeper.joined; /* it may be another server, or have lost what it had */
    snprintf(keeper.address, sizeof keeper.address, "%s", saga_redis_address(keeper.redis));
    pthread_mutex_unlock(&keeper.lock);
    atomic_store(&cache.connected_at, cache_now());
    keeper.beat_due = 0;
    return true;
}

static void hear_told(const struct stock_change *told, int64_t now)
{
    int64_t skus = 0, values = 0;

    for (; told; told = told->next)
        skus += told->n;
    for (int i = 0; i < saga_redis_answers(keeper.redis); i++)
        values += saga_redis_int(saga_redis_reply(keeper.redis, i));
    cache_interest_heard(&keeper.interest, skus, values, now);
}

/* Tells what there is, and beats if it is time. A beat that follows all that was done before it. */
static void pass(void)
{
    struct saga_err err = {0};
    bool connected = connect_redis(&err), doubt, known = false, told = connected;
    int64_t now = cache_now();
    struct stock_change *taken = collect(now, connected, &doubt);
    bool beat = connected && (now >= keeper.beat_due || doubt);

    if (connected) {
        int64_t tried = atomic_load(&cache.beat_tried_at);
        if (beat) {
            known = add_beat(doubt);
            atomic_store(&cache.beat_tried_at, now);
        }
        bool heard = saga_redis_run(keeper.redis, KEEPER_MS, &err) == 0;
        if (heard && beat && saga_redis_error(saga_redis_last(keeper.redis)))
            atomic_store(&cache.beat_tried_at, tried); /* it was none */
        told = heard && saga_redis_all_well(keeper.redis, &err) == 0;
        if (told && beat)
            hear_beat(saga_redis_last(keeper.redis), known, now);
        if (told) {
            hear_told(taken, now);
            cache_breaker_well(&keeper.breaker);
            saga_gauge(cache_metric.breaker, CACHE_CLOSED);
        } else {
            fail(&err);
        }
    }
    if (beat)
        keeper.beat_due = now + BEAT_MS * MS;
    release(taken, told, doubt);
}

/* Until the next beat, or something is done that is not to wait for it. -> false: we are to stop, and
 * nothing is left */
static bool wait_for_work(void)
{
    int64_t due = keeper.beat_due, now = cache_now();

    if (!saga_redis_connected(keeper.redis))
        due = now + BEAT_MS * MS;
    struct timespec t = {due / SECOND, due % SECOND * 1000};
    pthread_mutex_lock(&keeper.lock);
    while (!keeper.stop && !keeper.hurry &&
           pthread_cond_timedwait(&keeper.filled, &keeper.lock, &t) != ETIMEDOUT)
        ;
    bool go_on = !keeper.stop || (keeper.done && saga_redis_connected(keeper.redis));
    pthread_mutex_unlock(&keeper.lock);
    return go_on;
}

static void leave(void)
{
    struct saga_redis_command *c = &keeper.command;
    struct saga_err err = {0};

    pthread_mutex_lock(&keeper.lock);
    bool doubt = keeper.doubt || keeper.first; /* what is open may still be committed */
    pthread_mutex_unlock(&keeper.lock);
    if (!saga_redis_connected(keeper.redis) || doubt)
        return; /* others will find our lease */
    char number[16];
    snprintf(number, sizeof number, "%d", (int)saga_presence());
    saga_redis_word(c, "SET"); /* our sessions end in a moment */
    cache_key(c, "left:", number);
    saga_redis_word(c, "1");
    saga_redis_word(c, "PX");
    saga_redis_number(c, TOMBSTONE_MS);
    saga_redis_add(keeper.redis, c);
    saga_redis_word(c, "ZREM");
    cache_key(c, "writers", "");
    saga_redis_number(c, saga_presence());
    saga_redis_add(keeper.redis, c);
    saga_redis_run(keeper.redis, KEEPER_MS, &err);
}

static void *run(void *unused)
{
    (void)unused;
    while (wait_for_work())
        pass();
    leave();
    return NULL;
}

void cache_keeper_start(void)
{
    pthread_condattr_t clock;

    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&keeper.filled, &clock);
    pthread_cond_init(&keeper.told, &clock);
    keeper.end = &keeper.first;
    snprintf(keeper.why, sizeof keeper.why, "starting");
    atomic_store(&cache.beat_tried_at, cache_now()); /* others may not know of us yet */
    keeper.redis = saga_redis_new(&cache.at, cache_scripts);
    if (pthread_create(&keeper.thread, NULL, run, NULL) != 0)
        _Exit(70); /* out of threads at start */
}

void cache_keeper_doubt(void)
{
    pthread_mutex_lock(&keeper.lock);
    keeper.doubt = true;
    pthread_mutex_unlock(&keeper.lock);
}

bool cache_keeper_wonders(void)
{
    bool wonders = false;

    pthread_mutex_lock(&keeper.lock);
    for (const struct stock_change *c = keeper.first; c && !wonders; c = c->next)
        wonders = c->end == UNKNOWN;
    pthread_mutex_unlock(&keeper.lock);
    return wonders;
}

/* Whose session has ended will not be committed any more. */
void cache_keeper_sessions(const int *session, int n, int64_t asked)
{
    pthread_mutex_lock(&keeper.lock);
    for (struct stock_change *c = keeper.first; c; c = c->next) {
        bool lives = c->end != UNKNOWN || c->ended >= asked;
        for (int i = 0; i < n && !lives; i++)
            lives = session[i] == c->session;
        if (!lives)
            be_done(c);
    }
    pthread_mutex_unlock(&keeper.lock);
}

void cache_keeper_stop(void)
{
    pthread_mutex_lock(&keeper.lock);
    keeper.stop = true;
    pthread_cond_signal(&keeper.filled);
    pthread_mutex_unlock(&keeper.lock);
    pthread_join(keeper.thread, NULL);
}

const char *cache_keeper_why(char *text, size_t n)
{
    pthread_mutex_lock(&keeper.lock);
    snprintf(text, n, "%s", keeper.why);
    pthread_mutex_unlock(&keeper.lock);
    return *text ? text : NULL;
}

const char *cache_keeper_address(char *text, size_t n)
{
    pthread_mutex_lock(&keeper.lock);
    snprintf(text, n, "%s", keeper.address);
    pthread_mutex_unlock(&keeper.lock);
    return text;
}
