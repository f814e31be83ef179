/* Readers of the cache, on the HTTP thread: a GET of Redis per request, all of a round in one write, and
 * most are answered from what comes back. A key that is not there is filled by one of those who want
 * it (a flight): it asks the filter and for the key's lock in one go, reads the database on a worker,
 * stores what it found and is answered; the others then ask Redis again, right behind it on the same
 * connection. What another process fills is asked for again every PAUSE_MS.
 *
 * Whatever goes wrong with Redis, a request goes on to the database; nothing is tried twice. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

#include "cache_private.h"
#include "event.h"
#include "failpoint.h"
#include "log.h"
#include "presence.h"

enum {
    MS = 1000,
    PAUSE_MS = 15,
    WAIT_MS = 500 /* for another process */,
    TRIES = 66,
    BUCKETS = 256
};

/* A request that is being answered: of one thread at a time, as its request is. */
struct reading {
    struct saga_request *req;
    const char *sku;
    const struct stock_reader *reader;
    int tries;
    int64_t began; /* us */
    bool filling;  /* what it reads is to be stored: */
    bool leads;    /* others wait for it */
    bool whole;    /* it has sent the whole script */
    int64_t generation;
    char token[32]; /* of the lock, "": without one */
    struct stock_answer answer;
    bool answered; /* by the database's error */
    int64_t due;   /* us: asks again */
    struct reading *next;
};

/* A SKU that one of us fills; the others stand in its queue. */
struct flight {
    const char *sku; /* of the leader */
    uint32_t hash;
    struct reading *waiting, **end;
    struct flight *next;
};

static struct {
    struct saga_redis_line *line;
    int64_t made; /* us: when the line was */
    struct cache_breaker breaker;
    struct saga_redis_command command;
    struct flight *flights[BUCKETS];
    struct reading *pausing; /* in order of due */
    struct reading **pausing_end;
    bool whole; /* Redis has forgotten its scripts */
    uint32_t random;
    uint32_t tokens;
} front = {.pausing_end = &front.pausing};

static struct {
    pthread_mutex_t lock;
    struct reading *first; /* what the database has answered */
} done = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Atomic int breaker_shown;

/* ---- Whether Redis is asked, and believed ---- */

/* Nothing is believed that comes over a connection which the keeper has not beaten after; nor if it is older
 * than the keeper's, which may be one to another server. */
static bool believed(int64_t now)
{
    return now < atomic_load(&cache.good_until) && atomic_load(&cache.beat_at) >= front.made &&
           atomic_load(&cache.connected_at) <= front.made;
}

static bool usable(int64_t now)
{
    return saga_redis_line_open(front.line) && believed(now);
}

static void show_breaker(void)
{
    atomic_store(&breaker_shown, (int)front.breaker.state);
}

static void drop_line(int64_t now)
{
    struct saga_redis_line *line = front.line;

    saga_count(cache_metric.errors, 1);
    front.line = NULL;
    cache_breaker_failed(&front.breaker, now);
    show_breaker();
    saga_redis_line_free(line); /* who waits hears it, and finds no line */
}

static void leave_line(void)
{
    struct saga_redis_line *line = front.line;

    front.line = NULL;
    saga_redis_line_free(line);
}

/* ---- Answers ---- */

static void go_on(struct reading *r);

static void answer(struct reading *r)
{
    if (!r->answered)
        r->reader->answer(r->req, r->sku, &r->answer);
    saga_answered(r->req);
}

/* On a worker. */
static void read_database(struct saga_request *req)
{
    struct reading *r = saga_kept(req);

    saga_count(cache_metric.reads, 1);
    r->answered = r->reader->read(req, r->sku, &r->answer) < 0;
    if (!r->filling) {
        if (!r->answered)
            r->reader->answer(req, r->sku, &r->answer);
        return;
    }
    SAGA_FAILPOINT(stock_read);
    saga_later(req);
    pthread_mutex_lock(&done.lock);
    r->next = done.first;
    done.first = r;
    bool first = !r->next;
    pthread_mutex_unlock(&done.lock);
    if (first)
        saga_http_wake();
}

static void land(struct reading *r);

/* filling: what it reads is stored, and the others go on then. */
static void ask_database(struct reading *r, bool filling)
{
    r->filling = filling;
    if (!filling)
        land(r);
    if (!saga_pass(r->req, read_database) && filling)
        land(r);
}

static void bypass(struct reading *r)
{
    saga_count(cache_metric.bypassed, 1);
    ask_database(r, false);
}

/* ---- Flights ---- */

static struct flight **flight_of(const char *sku, uint32_t hash)
{
    struct flight **f = &front.flights[hash % BUCKETS];

    while (*f && ((*f)->hash != hash || strcmp((*f)->sku, sku) != 0))
        f = &(*f)->next;
    return f;
}

/* -> false: r waits for another, which goes first */
static bool lead(struct reading *r)
{
    uint32_t hash = saga_hash(r->sku);
    struct flight **f = flight_of(r->sku, hash), *made;

    r->next = NULL;
    if (*f) {
        saga_count(cache_metric.waits, 1);
        *(*f)->end = r;
        (*f)->end = &r->next;
        return false;
    }
    made = saga_alloc(sizeof *made);
    *made = (struct flight){.sku = r->sku, .hash = hash};
    made->end = &made->waiting;
    *f = made;
    r->leads = true;
    return true;
}

/* The leader has done what it can: the others go on, behind what it has asked of Redis. */
static void land(struct reading *r)
{
    struct flight **f, *ended;

    if (!r->leads)
        return;
    r->leads = false;
    f = flight_of(r->sku, saga_hash(r->sku));
    ended = *f;
    *f = ended->next;
    for (struct reading *w = ended->waiting, *next; w; w = next) {
        next = w->next;
        go_on(w);
    }
    free(ended);
}

/* ---- What goes into Redis ---- */

static uint32_t random_bits(void)
{
    if (!front.random)
        front.random = (uint32_t)saga_presence();
    front.random ^= front.random << 13; /* xorshift */
    front.random ^= front.random >> 17;
    front.random ^= front.random << 5;
    return front.random;
}

static void script(const struct saga_redis_script *of, int keys)
{
    (front.whole ? saga_redis_script_text : saga_redis_script)(&front.command, of, keys);
}

static void on_stored(void *unused, const struct redisReply *reply)
{
    (void)unused;
    if (reply && !saga_redis_error(reply))
        saga_count(saga_redis_int(reply) ? cache_metric.fills : cache_metric.refused, 1);
}

/* ms 0: only r's lock is given back. A script that Redis forgets between a miss and this is not sent
 * again, which costs a read. */
static void fill(const struct reading *r, int64_t ms)
{
    struct saga_redis_command *c = &front.command;
    const struct stock_answer *a = &r->answer;

    if (!saga_redis_line_open(front.line) || (!ms && !*r->token))
        return;
    script(&cache_fill, 3);
    cache_key(c, "v:", r->sku);
    cache_key(c, "l:", r->sku);
    cache_key(c, "generation", "");
    saga_redis_word(c, r->token);
    saga_redis_number(c, r->generation);
    saga_redis_number(c, a->version);
    saga_redis_bytes(c, a->body ? a->body : "", a->n);
    saga_redis_number(c, ms);
    saga_redis_number(c, !cache.without[CACHE_VERSIONS]);
    saga_redis_line_ask(front.line, c, ms ? on_stored : NULL, NULL);
}

/* What the database has answered, unless that was an error. */
static void store(const struct reading *r)
{
    const struct stock_answer *a = &r->answer;
    const bool good = !r->answered && (a->body || !cache.without[CACHE_NEGATIVE]);

    fill(r, good ? cache_lifetime(a->body ? cache.ttl_ms : NEGATIVE_MS,
                                  !cache.without[CACHE_SPREAD], random_bits())
                 : 0);
}

/* ---- A miss ---- */

static bool give(struct reading *r, const char *text, size_t n);

static void pause_reading(struct reading *r)
{
    saga_count(cache_metric.waits, 1);
    r->due = cache_now() + PAUSE_MS * MS;
    r->next = NULL;
    *front.pausing_end = r;
    front.pausing_end = &r->next;
}

static void ask_lock(struct reading *r);

static void on_lock(void *reading, const struct redisReply *reply)
{
    struct reading *r = reading;
    size_t n;
    const char *text = reply ? saga_redis_text(reply, &n) : NULL;
    const int64_t now = cache_now();

    if (reply && saga_redis_forgot(reply) && !r->whole && usable(now)) {
        r->whole = front.whole = true;
        ask_lock(r);
        return;
    }
    if (text && believed(now)) {
        if (give(r, text, n)) {
            land(r);
            return;
        }
        if (strcmp(text, "none") == 0) {
            saga_count(cache_metric.filter, 1);
            answer(r);
            land(r);
            return;
        }
        if (strcmp(text, "lead") == 0) {
            ask_database(r, true);
            return;
        }
        if (now - r->began < WAIT_MS * MS) {
            pause_reading(r);
            return;
        }
    }
    if (text && strcmp(text, "lead") == 0)
        fill(r, 0);
    bypass(r);
}

static void ask_lock(struct reading *r)
{
    struct saga_redis_command *c = &front.command;
    uint32_t bit[CACHE_FILTER_HASHES];

    script(&cache_miss, 3);
    cache_key(c, "v:", r->sku);
    cache_key(c, "l:", r->sku);
    cache_key(c, "filter", "");
    saga_redis_number(c, r->generation);
    saga_redis_word(c, r->token);
    saga_redis_number(c, LOCK_MS);
    if (!cache.without[CACHE_FILTER]) {
        cache_filter_bits(r->sku, bit);
        for (int i = 0; i < CACHE_FILTER_HASHES; i++)
            saga_redis_number(c, bit[i]);
    }
    saga_redis_line_ask(front.line, c, on_lock, r);
}

static void miss(struct reading *r)
{
    bool together = !cache.without[CACHE_FLIGHT];

    saga_count(cache_metric.misses, 1);
    if (together && !r->leads && !lead(r))
        return;
    r->generation = atomic_load(&cache.generation);
    *r->token = '\0';
    if (together)
        snprintf(r->token, sizeof r->token, "%x-%x", (unsigned)saga_presence(), front.tokens++);
    ask_lock(r);
}

/* ---- A read ---- */

/* -> false: what Redis has is no answer */
static bool give(struct reading *r, const char *text, size_t n)
{
    struct cache_value value;

    if (!text || !cache_value_read(text, n, &value) ||
        value.generation != atomic_load(&cache.generation))
        return false;
    r->answer = (struct stock_answer){value.version, value.n ? value.body : NULL, value.n};
    saga_count(value.n ? cache_metric.hits : cache_metric.negative, 1);
    answer(r);
    return true;
}

static void on_value(void *reading, const struct redisReply *reply)
{
    struct reading *r = reading;
    size_t n;
    const char *text = reply ? saga_redis_text(reply, &n) : NULL;

    if (!reply || saga_redis_error(reply) || !believed(cache_now()) ||
        !saga_redis_line_open(front.line)) {
        bypass(r);
        return;
    }
    if (give(r, text, n))
        land(r);
    else
        miss(r);
}

/* Asks Redis, or the database if it is not to be asked. */
static void go_on(struct reading *r)
{
    struct saga_redis_command *c = &front.command;

    if (!usable(cache_now()) || r->tries++ > TRIES) {
        bypass(r);
        return;
    }
    saga_redis_word(c, "GET");
    cache_key(c, "v:", r->sku);
    saga_redis_line_ask(front.line, c, on_value, r);
}

/* ---- What the database has answered ---- */

static void take_done(void)
{
    pthread_mutex_lock(&done.lock);
    struct reading *r = done.first;
    done.first = NULL;
    pthread_mutex_unlock(&done.lock);
    for (struct reading *next; r; r = next) {
        next = r->next;
        store(r);
        land(r);
        answer(r);
    }
}

/* ---- The HTTP thread's guest ---- */

static void ask_again(int64_t now)
{
    struct reading *r;

    while ((r = front.pausing) && r->due <= now) {
        front.pausing = r->next;
        if (!front.pausing)
            front.pausing_end = &front.pausing;
        go_on(r);
    }
}

static void on_first(void *unused, const struct redisReply *reply)
{
    (void)unused;
    if (!reply || saga_redis_error(reply))
        return; /* what follows fails as well */
    cache_breaker_well(&front.breaker);
    show_breaker();
}

/* A line to where the keeper is connected; it is used when the next beat has come. */
static void make_line(int64_t now)
{
    char address[64];

    if (now >= atomic_load(&cache.good_until) || !*cache_keeper_address(address, sizeof address) ||
        !cache_breaker_lets(&front.breaker, now))
        return;
    show_breaker();
    front.made = now;
    front.whole = false;
    front.line = saga_redis_line_new(&cache.at, address, saga_http_watch, on_first);
}

static void ready(unsigned events)
{
    saga_redis_line_ready(front.line, events);
}

static int turn(void)
{
    int64_t now = cache_now(), since;

    take_done();
    ask_again(now);
    if (front.line && !saga_redis_line_open(front.line) && now - front.made > cache.timeout_ms * MS)
        drop_line(now);
    if (front.line && (since = saga_redis_line_since(front.line)) &&
        now - since > cache.timeout_ms * MS)
        drop_line(now);
    if (front.line && front.made < atomic_load(&cache.connected_at))
        leave_line();
    if (!front.line)
        make_line(now);
    saga_gauge(cache_metric.trusted, usable(now));
    if (front.line)
        saga_redis_line_flush(front.line);
    return front.line && saga_redis_line_since(front.line) ? (int)cache.timeout_ms / 5 + 1
           : front.pausing || !front.line                  ? PAUSE_MS
                                                           : BEAT_MS;
}

const struct saga_guest cache_guest = {ready, turn};

bool cache_front_is_well(void)
{
    return atomic_load(&breaker_shown) == CACHE_CLOSED;
}

void stock_cache_get(struct saga_request *req, const char *sku, const struct stock_reader *reader)
{
    struct reading *r = saga_arena_zero(saga_http_arena(req), sizeof *r);

    cache_make_metrics();
    *r = (struct reading){.req = req, .sku = sku, .reader = reader, .began = cache_now()};
    saga_keep(req, r);
    saga_later(req);
    if (cache.on)
        go_on(r);
    else
        ask_database(r, false);
}
