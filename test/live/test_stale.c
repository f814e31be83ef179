/* How old an answer of the cache may be: a second, whatever happens. Readers at two processes compare
 * each answer with what the database had committed a second before they asked, while POSTs and orders
 * change the stock, Redis is killed, stopped and emptied, and a process dies between COMMIT and telling
 * the cache. The servers are those of SAGA_RUN. */
#include "suites.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fetch.h"
#include "pg.h"
#include "web.h"
#include "world.h"

enum { LANES = 4, PATIENCE = 30, SKUS = 16, READERS = 8, SECOND = 1000000 };
enum { SHARE = 11 /* SKUs that orders change, the first ones, and that POSTs do, the last ones */ };
enum { SNAPSHOTS = 1024, CHECKED = 15000 /* reads, unless CACHE_READS says how many */ };

static struct world *w;

/* Readers and two processes on few cores: nobody is to be taken for dead for that. */
#define CALM "SAGA_SESSION_TIMEOUT=4s"
static const char *const calm[] = {CALM, NULL};

static struct member *process(int number)
{
    return world_member(w, INVENTORY, number);
}

static int64_t metric(struct member *m, const char *name)
{
    world_url(m, "");
    return fetch_metric(m->port, text("saga_cache_%s", name));
}

static void await_cache(struct member *m)
{
    AWAIT(PATIENCE, metric(m, "believed") == 1);
}

static bool has_filter(void)
{
    return atoi(shell("redis-cli -p $SAGA_REDIS_PORT getbit %sstock:filter 0", w->prefix)) == 1;
}

static void post(struct member *m, const char *sku, int64_t quantity)
{
    long status = web_post(NULL, world_url(m, "/api/v1/inventory"), NULL,
                           text("{\"sku\":\"%s\",\"quantity\":%" PRId64 "}", sku, quantity));
    MUST(status == 200 || status == 201, "POST %s: %ld", sku, status);
}

static void setup(void)
{
    w = world_new("stale", LANES, calm);
    world_start_all(w);
    world_start(w, INVENTORY, 1);
    for (int i = 0; i < SKUS; i++)
        post(process(0), text("s-%d", i), 1000000);
    await_cache(process(0));
    await_cache(process(1));
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* ---- What the database has ---- */

static struct {
    pthread_t thread;
    atomic_bool stop;
    pthread_mutex_t lock;
    char database[80],
        failed[256]; /* said by who joins: a failure of this thread's would be nobody's */
    int n;           /* that were ever taken */
    struct snapshot {
        int64_t at; /* after the answer: what it shows was committed by then */
        int64_t version[SKUS];
    } ring[SNAPSHOTS];
} truth = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char versions[] =
    "select substr(sku, 3)::int, version from stock where sku ~ '^s-[0-9]+$'";

static void *look(void *unused)
{
    struct saga_pg *pg = saga_pg_new(truth.database, "truth", "inventory_svc");

    (void)unused;
    while (!truth.stop) {
        struct snapshot now = {0};
        struct saga_rows *rows = NULL;
        struct saga_err err = {0};
        if (saga_pg_query(pg, versions, NULL, &rows, &err) < 0) {
            snprintf(truth.failed, sizeof truth.failed, "%s", err.text);
            break;
        }
        for (int i = 0; i < saga_rows_n(rows); i++)
            now.version[saga_rows_int(rows, i, 0)] = saga_rows_int(rows, i, 1);
        saga_rows_free(rows);
        now.at = test_now();
        pthread_mutex_lock(&truth.lock);
        truth.ring[truth.n++ % SNAPSHOTS] = now;
        pthread_mutex_unlock(&truth.lock);
        test_pause(INT64_MAX);
    }
    saga_pg_free(pg);
    return NULL;
}

/* How old version is at a time: how long the database had had a newer one, by what was seen of it. us */
static int64_t age(int sku, int64_t version, int64_t at)
{
    int64_t since = at;

    pthread_mutex_lock(&truth.lock);
    for (int i = truth.n - 1; i >= 0 && i >= truth.n - SNAPSHOTS; i--) {
        const struct snapshot *s = &truth.ring[i % SNAPSHOTS];
        if (s->version[sku] <= version)
            break;
        since = s->at < since ? s->at : since;
    }
    pthread_mutex_unlock(&truth.lock);
    return at - since;
}

/* ---- Readers ---- */

static struct {
    pthread_t thread[READERS];
    int port[READERS];
    atomic_bool stop;
    _Atomic int64_t reads, stale, wrong; /* older than a second; not 200 */
    _Atomic int64_t oldest, slowest;     /* us */
} readers;

static void most(_Atomic int64_t *of, int64_t v)
{
    int64_t old = atomic_load(of);

    while (v > old && !atomic_compare_exchange_weak(of, &old, v))
        ;
}

static void *read_on(void *number)
{
    static const struct timespec pause = {0, 1000000};
    int me = (int)(intptr_t)number;
    struct fetch *f = fetch_new(readers.port[me]);
    char path[100];

    for (int i = me; !readers.stop; i++) {
        int64_t version, asked = test_now();
        snprintf(path, sizeof path, "/api/v1/inventory/s-%d", i % SKUS);
        int status = fetch_get(f, path, &version);
        int64_t old = status == 200 ? age(i % SKUS, version, asked) : 0;
        readers.reads++;
        readers.wrong += status != 200;
        readers.stale += old > SECOND;
        most(&readers.oldest, old);
        most(&readers.slowest, test_now() - asked);
        nanosleep(&pause, NULL); /* others want to work, too */
    }
    fetch_free(f);
    return NULL;
}

/* READERS at these processes in turn. */
static void begin_reading(struct member *const *m, int n)
{
    snprintf(truth.database, sizeof truth.database, "dbname=%s", w->database);
    truth.stop = readers.stop = false;
    readers.reads = readers.stale = readers.wrong = readers.oldest = readers.slowest = 0;
    MUST_BE(pthread_create(&truth.thread, NULL, look, NULL), 0);
    for (int i = 0; i < READERS; i++) {
        world_url(m[i % n], "");
        readers.port[i] = m[i % n]->port;
        MUST_BE(pthread_create(&readers.thread[i], NULL, read_on, (void *)(intptr_t)i), 0);
    }
}

static void end_reading(const char *what)
{
    readers.stop = true;
    for (int i = 0; i < READERS; i++)
        pthread_join(readers.thread[i], NULL);
    truth.stop = true;
    pthread_join(truth.thread, NULL);
    MUST(!*truth.failed, "%s", truth.failed);
    printf("   %s: %" PRId64 " reads, %" PRId64 " stale, the oldest by %" PRId64
           " ms, the slowest %" PRId64 " ms\n",
           what, readers.reads, readers.stale, readers.oldest / 1000, readers.slowest / 1000);
    MUST_BE(readers.wrong, 0);
    MUST_BE(readers.stale, 0);
}

/* ---- Writers ---- */

static int placed; /* orders */

/* One round: some orders of two SKUs each, and a POST at each process. Some SKUs are changed by orders
 * alone, some by POSTs alone: what the ones do not tell the cache, the others do not either. */
static void write_some(int number_of_processes)
{
    for (int i = 0; i < 10; i++, placed++)
        world_place(
            w, text("stale-%d", placed),
            text("s-%d 1 100, s-%d 1 100", placed % SHARE, (placed + 1 + placed % 5) % SHARE),
            placed % 7 ? "tok_ok" : "tok_declined");
    kafka_flush(PATIENCE);
    for (int i = 0; i < number_of_processes; i++)
        post(process(i), text("s-%d", SKUS - 1 - (placed / 10 + i) % SHARE), 1000000 + placed);
}

static void settle(void)
{
    for (int i = 0; i < w->members; i++)
        if (w->member[i].proc)
            AWAIT(PATIENCE, world_is_ready(&w->member[i]));
    world_settle(w, PATIENCE);
}

/* ---- Cases ---- */

enum { HITS, READS, BYPASSED, ERRORS, COUNTED };

static void count(struct member *m, int64_t v[COUNTED])
{
    static const char *const names[] = {"hits_total", "database_reads_total", "bypassed_total",
                                        "errors_total"};

    for (int i = 0; i < COUNTED; i++)
        v[i] = metric(m, names[i]);
}

/* Nothing fails: no answer is older than a second, and nearly all come from Redis. Where a machine that
 * stands still has it taken for gone, and only there, reads that do not ask it are not counted. */
START_TEST(under_writes)
{
    struct member *both[] = {process(0), process(1)};
    int64_t least = getenv("CACHE_READS") ? atoll(getenv("CACHE_READS")) : CHECKED;
    int64_t before[COUNTED], now[COUNTED], hits, missed;

    count(both[0], before);
    begin_reading(both, 2);
    do {
        write_some(2);
        count(both[0], now);
        hits = now[HITS] - before[HITS];
        missed = now[READS] - before[READS];
        if (now[ERRORS] > before[ERRORS])
            missed -= now[BYPASSED] - before[BYPASSED];
    } while (2 * (hits + missed) < least); /* of one of two */
    end_reading("under writes");
    MUST(hits > missed, "%" PRId64 " from Redis, %" PRId64 " from the database", hits, missed);
    settle();
}
END_TEST

/* Batches that change very many SKUs are told a little later: not too late either. */
START_TEST(very_many_skus_at_once)
{
    enum { MANY = 500, MOST = 300 /* CACHE_NARROW */, ROUNDS = 5, ORDERS = 20 };
    struct member *both[] = {process(0), process(1)};
    struct proc *order_svc = world_member(w, ORDER, 0)->proc;

    for (int i = 0; i < MANY; i++)
        post(both[i % 2], text("w-%d", i), 1000000);
    begin_reading(both, 2);
    for (int round = 0; round < ROUNDS; round++) {
        proc_signal(order_svc, SIGSTOP); /* they come in one batch */
        for (int i = round * ORDERS; i < (round + 1) * ORDERS; i++) {
            const char *lines = text("s-%d 1 100", i % SHARE);
            for (int j = 0; j < 99; j++)
                lines = text("%s, w-%d 1 100", lines, (i * 99 + j) % MANY);
            world_place(w, text("wide-%d", i), lines, "tok_ok");
        }
        kafka_flush(PATIENCE);
        proc_signal(order_svc, SIGCONT);
        settle();
    }
    end_reading("very many SKUs at once");
    int64_t widest =
        db_int(w->db, "select max(n) from (select count(distinct sku) n from stock_movement"
                      " group by xmin::text) t");
    MUST(widest > MOST, "no transaction changed more than %" PRId64 " SKUs", widest);
}
END_TEST

/* Who is answered a POST reads what it wrote, at any process. */
START_TEST(a_post_is_read_at_once)
{
    struct fetch *f[] = {fetch_new(process(0)->port), fetch_new(process(1)->port)};

    for (int i = 0; i < 200; i++) {
        int64_t version[3];
        fetch_get(f[0], "/api/v1/inventory/s-3", &version[0]);
        post(process(i % 2), "s-3", 2000000 + i);
        for (int j = 0; j < 2; j++) {
            MUST_BE(fetch_get(f[j], "/api/v1/inventory/s-3", &version[1 + j]), 200);
            MUST(version[1 + j] > version[0], "version %" PRId64 " after %" PRId64, version[1 + j],
                 version[0]);
        }
    }
    fetch_free(f[0]);
    fetch_free(f[1]);
}
END_TEST

/* And is ready. */
static bool says_degraded(struct member *m)
{
    struct fetch *f = fetch_new(m->port);
    int status = fetch_get(f, "/readyz", NULL);
    bool degraded = status == 200 && strstr(fetch_body(f), "ready, degraded: ");

    fetch_free(f);
    return degraded;
}

static const struct {
    const char *name, *harm, *cure;
    bool degrades;
} harms[] = {
    {"killed", "deploy/local/kill redis", "deploy/local/start redis", true},
    {"paused", "kill -STOP $(head -n 1 $SAGA_RUN/redis.pid)",
     "kill -CONT $(head -n 1 $SAGA_RUN/redis.pid)", true},
    {"flushed", "redis-cli -p $SAGA_REDIS_PORT flushall", "true", false},
    {"begun anew", "deploy/local/kill redis && deploy/local/start redis", "true", false},
    {"without scripts", "redis-cli -p $SAGA_REDIS_PORT script flush", "true", false},
};

/* Whatever Redis does, answers are right, a SKU that is made is there at once and everywhere, nobody
 * waits long, the service is ready and says what is wrong; afterwards Redis answers again. */
START_TEST(redis_fails)
{
    struct member *both[] = {process(0), process(1)};
    int64_t hits;

    begin_reading(both, 2);
    write_some(2);
    shell("%s", harms[_i].harm);
    for (int i = 0; i < 6; i++) {
        const char *sku = text("%c-new-%d", *harms[_i].name, i);
        struct fetch *f = fetch_new(both[(i + 1) % 2]->port);
        post(both[i % 2], sku, 1);
        MUST_BE(fetch_get(f, text("/api/v1/inventory/%s", sku), NULL), 200);
        fetch_free(f);
        write_some(2);
    }
    if (harms[_i].degrades)
        AWAIT(PATIENCE, says_degraded(both[0]) && says_degraded(both[1]));
    shell("%s", harms[_i].cure);
    await_cache(both[0]);
    await_cache(both[1]);
    AWAIT(PATIENCE, !says_degraded(both[0]));
    hits = metric(both[0], "hits_total");
    AWAIT(PATIENCE, metric(both[0], "hits_total") > hits + 100);
    AWAIT(PATIENCE, has_filter());
    for (int i = 0; i < 6; i++)
        MUST_BE(web_get(NULL, "%s",
                        world_url(both[i % 2],
                                  text("/api/v1/inventory/%c-new-%d", *harms[_i].name, i))),
                200);
    write_some(2);
    end_reading(harms[_i].name);
    MUST(readers.slowest < 3 * SECOND, "an answer took %" PRId64 " ms", readers.slowest / 1000);
    settle();
}
END_TEST

/* ---- Killed between COMMIT and telling ---- */

static const char *const without[] = {CALM, "CACHE_WITHOUT=leases", NULL};

/* Process 2 dies of a POST, committed and not told. -> how long afterwards
 * process 3 gave the old answer, us */
static int64_t die_untold(const char *const *settings)
{
    int64_t version, died, oldest = 0;
    struct fetch *f;

    w->settings = settings;
    struct member *reader = world_start(w, INVENTORY, 3);
    struct member *writer = world_start_failing(w, INVENTORY, 2, "stock_committed:2");
    w->settings = calm;
    await_cache(writer);
    await_cache(reader);
    post(writer, "victim", 10);
    int64_t hits = metric(reader, "hits_total");
    f = fetch_new(reader->port);
    AWAIT(PATIENCE, fetch_get(f, "/api/v1/inventory/victim", &version) == 200 &&
                        metric(reader, "hits_total") > hits); /* it is in Redis */
    int64_t old = version;
    web_post(NULL, world_url(writer, "/api/v1/inventory"), NULL,
             "{\"sku\":\"victim\",\"quantity\":20}");
    MUST_BE(proc_wait(writer->proc, PATIENCE), 128 + SIGKILL);
    died = test_now();
    MUST_BE(db_int(w->db, "select version from inventory_svc.stock where sku = 'victim'"), old + 1);
    for (int64_t now = died; now - died < SECOND * 3 / 2;) {
        now = test_now();
        MUST_BE(fetch_get(f, "/api/v1/inventory/victim", &version), 200);
        if (version == old)
            oldest = now - died;
    }
    await_cache(reader); /* and what stands in Redis when it is believed: */
    hits = metric(reader, "hits_total");
    AWAIT(PATIENCE, fetch_get(f, "/api/v1/inventory/victim", &version) == 200 &&
                        metric(reader, "hits_total") > hits);
    if (version == old)
        oldest = test_now() - died;
    fetch_free(f);
    world_kill(writer);
    world_stop(reader);
    return oldest;
}

/* Without leases the old value stands for as long as it lives. */
START_TEST(killed_before_telling)
{
    world_stop(process(0));
    world_stop(process(1));
    int64_t off = die_untold(without), on = die_untold(calm);

    printf("   killed before telling: an old answer for %" PRId64 " ms, without leases for %" PRId64
           " ms and more\n",
           on / 1000, off / 1000);
    MUST(off > SECOND, "%" PRId64 " us", off);
    MUST(on < SECOND, "%" PRId64 " us", on);
    world_start(w, INVENTORY, 0);
    world_start(w, INVENTORY, 1);
}
END_TEST

/* The engine as well: its process dies after the COMMIT of a batch, under load, and is started again. */
START_TEST(the_engine_is_killed_before_telling)
{
    struct member *m[] = {process(0), process(1)};

    await_cache(m[0]);
    await_cache(m[1]);
    begin_reading(m, 1); /* at the one that lives */
    for (int i = 0; i < 3; i++) {
        world_stop(process(1));
        world_start_failing(w, INVENTORY, 1, "committed:12");
        for (int64_t until = test_until(PATIENCE); proc_alive(process(1)->proc);) {
            MUST(test_now() < until, "it lives");
            write_some(1);
        }
        world_kill(process(1));
        world_start(w, INVENTORY, 1);
        AWAIT(PATIENCE, world_is_ready(process(1)));
    }
    end_reading("the engine is killed");
    settle();
}
END_TEST

static const char *generation(void)
{
    return shell("redis-cli -p $SAGA_REDIS_PORT get %sstock:generation", w->prefix);
}

/* Redis' clock was ahead when a process that is gone took its lease: nobody waits for its end, and what it
 * may not have told is not believed. */
START_TEST(a_lease_of_another_clock)
{
    const char *was = text("%s", generation());

    await_cache(process(0));
    MUST(strlen(was) > 10, "%s", was);
    shell("redis-cli -p $SAGA_REDIS_PORT zadd %sstock:writers 9000000000000 77", w->prefix);
    AWAIT(PATIENCE,
          !atoll(shell("redis-cli -p $SAGA_REDIS_PORT zscore %sstock:writers 77", w->prefix)));
    MUST(!same(generation(), was), "the generation is still %s", was);
    await_cache(process(0));
}
END_TEST

/* A process that is cut off from Redis and goes on writing: the others read from the database, also what it
 * has written when it is gone. */
START_TEST(cut_off_from_redis)
{
    static const char *const elsewhere[] = {CALM, "REDIS_URL=redis://127.0.0.1:1", NULL};

    world_stop(process(1));
    w->settings = elsewhere;
    struct member *m[] = {process(0), world_start(w, INVENTORY, 1)};
    w->settings = calm;
    AWAIT(PATIENCE, world_is_ready(m[1]));
    begin_reading(m, 2);
    for (int i = 0; i < 10; i++)
        write_some(2);
    AWAIT(PATIENCE, says_degraded(m[0]) && says_degraded(m[1]));
    end_reading("cut off from Redis");
    begin_reading(m, 1);
    post(m[1], "cut-off", 1);
    write_some(2);
    world_stop(m[1]);
    await_cache(m[0]);
    end_reading("was cut off from Redis");
    MUST_BE(web_get(NULL, "%s", world_url(m[0], "/api/v1/inventory/cut-off")), 200);
    settle();
}
END_TEST

START_TEST(audit)
{
    settle();
    world_audit(w);
}
END_TEST

Suite *stale_suite(void)
{
    Suite *suite = suite_create("stale");
    TCase *all = tcase_create("all");

    tcase_add_unchecked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 20 * PATIENCE);
    tcase_add_test(all, under_writes);
    tcase_add_test(all, very_many_skus_at_once);
    tcase_add_test(all, a_post_is_read_at_once);
    tcase_add_loop_test(all, redis_fails, 0, sizeof harms / sizeof *harms);
    tcase_add_test(all, killed_before_telling);
    tcase_add_test(all, the_engine_is_killed_before_telling);
    tcase_add_test(all, a_lease_of_another_clock);
    tcase_add_test(all, cut_off_from_redis);
    tcase_add_test(all, audit);
    suite_add_tcase(suite, all);
    return suite;
}
