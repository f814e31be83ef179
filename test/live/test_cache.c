/* The stock query behind a cache: its three diseases, each with the remedy taken away and with it, by
 * counting what the database was asked; and a reader that is slower than a writer. */
#include "suites.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db.h"
#include "fetch.h"
#include "proxy.h"
#include "web.h"
#include "world.h"

enum { LANES = 4, PATIENCE = 30, READERS = 48, UNKNOWN = 200, MANY = 300 };

static struct world *w;

static void setup(void)
{
    w = world_new("cache", LANES, NULL);
    world_start(w, ORDER, 0); /* for its half of the database */
    world_start(w, PAYMENT, 0);
    world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(world_member(w, INVENTORY, 0)));
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* ---- Processes ---- */

static int64_t metric(struct member *m, const char *name)
{
    world_url(m, "");
    return fetch_metric(m->port, text("saga_cache_%s", name));
}

/* How often the database was asked; */
static int64_t reads(struct member *m)
{
    return metric(m, "database_reads_total");
}

/* and for the cache: the others are what cannot be trusted to it for a moment, as when this machine
 * does not let it speak to Redis in time. */
static int64_t cache_reads(struct member *m)
{
    int64_t bypassed = metric(m, "bypassed_total");

    return reads(m) - bypassed;
}

static bool has_filter(void)
{
    return atoi(shell("redis-cli -p $SAGA_REDIS_PORT getbit %sstock:filter 0", w->prefix)) == 1;
}

/* Believes the cache, and there is a filter. */
static void await_cache(struct member *m)
{
    AWAIT(PATIENCE, metric(m, "believed") == 1);
    AWAIT(PATIENCE, has_filter());
}

/* inventory-svc number, which may die at fail, with settings of its own. */
static struct member *with(int number, const char *fail, const char *const *settings)
{
    w->settings = settings;
    struct member *m = world_start_failing(w, INVENTORY, number, fail);
    w->settings = NULL;
    await_cache(m);
    return m;
}

static const char *sku_path(const char *sku)
{
    return text("/api/v1/inventory/%s", sku);
}

static void make_skus(struct member *m, const char *name, int n)
{
    for (int i = 0; i < n; i++) {
        long status = web_post(NULL, world_url(m, "/api/v1/inventory"), NULL,
                               text("{\"sku\":\"%s-%d\",\"quantity\":100}", name, i));
        MUST(status == 201, "POST %s-%d: %ld", name, i, status);
    }
}

static void post(struct member *m, const char *sku, int quantity)
{
    long status = web_post(NULL, world_url(m, "/api/v1/inventory"), NULL,
                           text("{\"sku\":\"%s\",\"quantity\":%d}", sku, quantity));
    MUST(status == 200 || status == 201, "POST %s: %ld", sku, status);
}

/* ---- Readers, each a connection and a thread ---- */

struct reader {
    pthread_t thread;
    int port, status;
    int64_t version;
    char path[100];
};

static void *read_one(void *reader)
{
    struct reader *r = reader;
    struct fetch *f = fetch_new(r->port);

    r->status = fetch_get(f, r->path, &r->version);
    fetch_free(f);
    return NULL;
}

static void begin_reading(struct reader *r, struct member *m, const char *sku)
{
    world_url(m, "");
    *r = (struct reader){.port = m->port};
    snprintf(r->path, sizeof r->path, "%s", sku_path(sku));
    MUST_BE(pthread_create(&r->thread, NULL, read_one, r), 0);
}

static void end_reading(struct reader *r, int status)
{
    pthread_join(r->thread, NULL);
    MUST(r->status == status, "GET %s: %d", r->path, r->status);
}

/* ---- Breakdown: a key that everybody wants is not there ---- */

static int64_t tried(struct member *m)
{
    return metric(m, "misses_total") + metric(m, "bypassed_total");
}

static int64_t sum(struct member *const *m, int n, int64_t (*of)(struct member *m))
{
    int64_t sum = 0;

    for (int i = 0; i < n; i++)
        sum += of(m[i]);
    return sum;
}

/* READERS want it at the processes in turn while the database cannot answer. -> how often it was asked */
static int64_t rush(struct member *const *m, int n, const char *sku,
                    int64_t (*asked)(struct member *m))
{
    struct reader reader[READERS];

    post(m[0], sku, 100);
    const int64_t tries = sum(m, n, tried), before = sum(m, n, asked);
    db_run(w->db, "begin; lock table inventory_svc.stock in access exclusive mode");
    for (int i = 0; i < READERS; i++)
        begin_reading(&reader[i], m[i % n], sku);
    AWAIT(PATIENCE, sum(m, n, tried) - tries >= READERS);
    db_run(w->db, "commit");
    for (int i = 0; i < READERS; i++)
        end_reading(&reader[i], 200);
    return sum(m, n, asked) - before;
}

START_TEST(breakdown)
{
    static const char *const off[] = {"CACHE_WITHOUT=flight", NULL};
    struct member *without = with(1, NULL, off), *one = world_member(w, INVENTORY, 0);

    MUST_BE(rush(&without, 1, "hot-off", reads), READERS);
    MUST(rush(&one, 1, "hot-on", cache_reads) <= 1, "the database was asked more than once");
    world_stop(without);
}
END_TEST

/* The same at two processes: the one that does not hold the lock waits for the other, unless that takes
 * so long that it asks by itself. */
START_TEST(breakdown_of_two_processes)
{
    struct member *both[] = {world_member(w, INVENTORY, 0), with(1, NULL, NULL)};
    int64_t asked = rush(both, 2, "hot-two", cache_reads);

    MUST(asked <= 1, "the database was asked %" PRId64 " times", asked);
    world_stop(both[1]);
}
END_TEST

/* ---- Penetration: what does not exist cannot be kept ---- */

/* UNKNOWN SKUs, then one of them as often. -> how often the database was asked */
static int64_t ask_for_nothing(struct member *m, const char *name,
                               int64_t (*asked)(struct member *m))
{
    const int64_t before = asked(m);
    struct fetch *f = fetch_new(m->port);

    for (int i = 0; i < 2 * UNKNOWN; i++)
        MUST_BE(fetch_get(f, sku_path(text("%s-%d", name, i < UNKNOWN ? i : 0)), NULL), 404);
    fetch_free(f);
    return asked(m) - before;
}

START_TEST(penetration)
{
    static const char *const neither[] = {"CACHE_WITHOUT=filter,negative", NULL},
                             *const no_filter[] = {"CACHE_WITHOUT=filter", NULL};
    struct member *m = with(1, NULL, neither);

    MUST_BE(ask_for_nothing(m, "nothing-off", reads), 2 * UNKNOWN);
    world_stop(m);
    m = with(1, NULL, no_filter);
    int64_t kept = ask_for_nothing(m, "nothing-kept", cache_reads);
    world_stop(m);
    m = world_member(w, INVENTORY, 0);
    await_cache(m);
    int64_t on = ask_for_nothing(m, "nothing-on", cache_reads);
    MUST(kept < 5 * UNKNOWN / 4 && on < UNKNOWN / 4, "%" PRId64 " kept, %" PRId64 " with all", kept,
         on);
}
END_TEST

/* Somebody asks for a SKU before it is made: neither the filter nor what was remembered hides it, in any
 * process, from the answer to the POST on. */
START_TEST(a_sku_that_is_made_is_there)
{
    static const char *const no_filter[] = {"CACHE_WITHOUT=filter", NULL};
    struct member *m[] = {world_member(w, INVENTORY, 0), with(1, NULL, no_filter)};
    struct fetch *f[] = {fetch_new(m[0]->port), fetch_new(m[1]->port)};

    for (int i = 0; i < 100; i++) {
        const char *sku = text("made-%d", i);
        for (int j = 0; j < 2; j++)
            MUST_BE(fetch_get(f[j], sku_path(sku), NULL), 404);
        post(m[i % 2], sku, 1);
        for (int j = 0; j < 2; j++)
            MUST_BE(fetch_get(f[j], sku_path(sku), NULL), 200);
    }
    fetch_free(f[0]);
    fetch_free(f[1]);
    world_stop(m[1]);
}
END_TEST

/* A batch that changes what is read stores the new value: few have to ask the database for it, as when
 * the cache is not believed for a moment. */
START_TEST(a_sku_that_is_read_stays)
{
    enum { CHANGES = 20 };
    struct member *m = world_member(w, INVENTORY, 0);
    struct fetch *f = fetch_new(m->port);
    int64_t version, asked, hits;

    make_skus(m, "hot", 1);
    await_cache(m);
    asked = cache_reads(m);
    hits = metric(m, "hits_total");
    for (int i = 1; i <= CHANGES; i++) {
        world_place(w, text("hot-%d", i), "hot-0 1 100", "tok_ok");
        kafka_flush(10);
        AWAIT(PATIENCE, fetch_get(f, sku_path("hot-0"), &version) == 200 && version == i + 1);
        const char *is = fetch_body(f),
                   *expected = text("{\"sku\":\"hot-0\",\"available\":%d,\"reserved\":%d,"
                                    "\"shipped\":0,\"received\":100,\"version\":%d}\n",
                                    100 - i, i, i + 1);
        MUST(same(is, expected), "%s: %s", expected, is);
    }
    MUST(cache_reads(m) - asked < CHANGES / 2, "the database was asked %" PRId64 " times",
         cache_reads(m) - asked);
    MUST(metric(m, "hits_total") - hits >= CHANGES / 2, "%" PRId64 " hits",
         metric(m, "hits_total") - hits);
    fetch_free(f);
}
END_TEST

/* How often Redis had no room for a SET. */
static int refused_sets(void)
{
    return atoi(shell("redis-cli -p $SAGA_REDIS_PORT info commandstats |"
                      " sed -n 's/^cmdstat_set:.*rejected_calls=\\([0-9]*\\).*/\\1/p'"));
}

/* The filter has been thrown out, and Redis has no room for another: without one all SKUs may be there. */
START_TEST(no_room_for_a_filter)
{
    struct member *m = world_member(w, INVENTORY, 0);
    struct fetch *f = fetch_new(m->port);

    make_skus(m, "roomy", 50);
    await_cache(m);
    int before = refused_sets();
    shell("redis() { redis-cli -p $SAGA_REDIS_PORT \"$@\"; }; filter=%sstock:filter; "
          "used=$(redis info memory | sed -n 's/^used_memory:\\([0-9]*\\).*/\\1/p'); "
          "room=$((used - $(redis memory usage $filter) + 600000)); "
          "printf '%%s\\n' multi \"del $filter\" \"config set maxmemory $room\" exec | redis",
          w->prefix);
    AWAIT(PATIENCE, refused_sets() > before);
    for (int i = 0; i < 50; i++)
        MUST_BE(fetch_get(f, sku_path(text("roomy-%d", i)), NULL), 200);
    MUST(!has_filter(), "it is whole");
    shell("redis-cli -p $SAGA_REDIS_PORT config set maxmemory 0");
    await_cache(m);
    fetch_free(f);
}
END_TEST

/* ---- Avalanche: what came together goes together ---- */

enum { SAMPLES = 50000 };

static struct {
    pthread_t thread[4];
    int port;
    const char *name;
    _Atomic bool stop;
} crowd;

static void *read_all(void *unused)
{
    struct fetch *f = fetch_new(crowd.port);
    char path[100];

    (void)unused;
    for (int i = 0; !crowd.stop; i++) {
        snprintf(path, sizeof path, "/api/v1/inventory/%s-%d", crowd.name, i % MANY);
        MUST_BE(fetch_get(f, path, NULL), 200);
    }
    fetch_free(f);
    return NULL;
}

/* MANY SKUs are read at once, and again and again until each has gone and come back. -> the most reads
 * of the database by the cache within *window us; 0: a time in which this machine reads them all twice */
static int64_t busiest_of(struct member *m, const char *name, int64_t *window)
{
    static int64_t at[SAMPLES], asked[SAMPLES];
    int64_t most = 0, first, began;
    int n = 0;

    make_skus(m, name, MANY);
    crowd.port = m->port;
    crowd.name = name;
    crowd.stop = false;
    first = cache_reads(m);
    began = test_now();
    for (int i = 0; i < 4; i++)
        MUST_BE(pthread_create(&crowd.thread[i], NULL, read_all, NULL), 0);
    AWAIT(PATIENCE, cache_reads(m) - first >= MANY); /* all are there */
    if (!*window)
        *window = 2 * (test_now() - began) + 300000;
    do {
        MUST(n < SAMPLES, "they do not go");
        at[n] = test_now();
        asked[n] = cache_reads(m) - first - MANY;
        for (int i = n; i >= 0 && at[n] - at[i] <= *window; i--)
            most = asked[n] - asked[i] > most ? asked[n] - asked[i] : most;
        test_pause(test_until(PATIENCE));
    } while (asked[n++] < MANY);
    crowd.stop = true;
    for (int i = 0; i < 4; i++)
        pthread_join(crowd.thread[i], NULL);
    return most;
}

/* The same, of a time in which not all values were given up at once, as when Redis has failed to answer. */
static int64_t busiest(struct member *m, const char *name, int64_t *window)
{
    static char skus[40];
    int64_t most, given_up, wide;

    for (int again = 0;; again++) {
        MUST(again < 5, "all values were given up, each time");
        snprintf(skus, sizeof skus, "%s-%d", name, again);
        given_up = metric(m, "generations_total");
        wide = *window;
        most = busiest_of(m, skus, &wide);
        if (metric(m, "generations_total") == given_up)
            break;
    }
    *window = wide;
    return most;
}

START_TEST(avalanche)
{
    static const char *const on[] = {"CACHE_TTL=20s", NULL};
    static const char *const off[] = {"CACHE_TTL=20s", "CACHE_WITHOUT=spread", NULL};
    struct member *m = with(1, NULL, off);
    int64_t window = 0, together = busiest(m, "snow-off", &window);

    world_stop(m);
    m = with(1, NULL, on);
    int64_t spread = busiest(m, "snow-on", &window);
    printf("   of %d SKUs, in the worst %" PRId64 " ms: %" PRId64
           " reads of the database without, %" PRId64 " with a spread TTL\n",
           MANY, window / 1000, together, spread);
    MUST(spread * 4 < together * 3, "%" PRId64 " with, %" PRId64 " without", spread, together);
    world_stop(m);
}
END_TEST

/* ---- A slow reader ---- */

/* A process stands still when it has read version 1 and not stored it; version 2 is written and told
 * meanwhile. -> what is read then */
static int64_t read_slowly(struct member *slow, struct member *other, const char *sku)
{
    struct reader reader;
    struct fetch *f = fetch_new(other->port);
    int64_t version;

    post(other, sku, 1);
    begin_reading(&reader, slow, sku);
    AWAIT(PATIENCE, proc_said(slow->proc, "failpoint stock_read"));
    AWAIT(PATIENCE, *shell("cut -d' ' -f3 /proc/%d/stat", (int)proc_pid(slow->proc)) == 'T');
    post(other, sku, 2);
    proc_signal(slow->proc, SIGCONT);
    end_reading(&reader, 200);
    MUST_BE(reader.version, 1); /* it was asked before */
    AWAIT(PATIENCE, metric(slow, "fills_total") + metric(slow, "fills_refused_total") > 0);
    MUST_BE(fetch_get(f, sku_path(sku), &version), 200);
    fetch_free(f);
    return version;
}

/* Leases are left out: else the slow one's would run out, which would hide what versions are for. */
START_TEST(a_slow_reader)
{
    static const char *const off[] = {"CACHE_WITHOUT=versions,leases", NULL},
                             *const on[] = {"CACHE_WITHOUT=leases", NULL};

    world_stop(world_member(w, INVENTORY, 0));
    struct member *slow = with(1, "stock_read:1:stop", off), *other = with(2, NULL, off);
    MUST_BE(read_slowly(slow, other, "slow-off"), 1); /* for as long as it lives there */
    world_kill(slow);
    world_stop(other);
    slow = with(1, "stock_read:1:stop", on);
    other = with(2, NULL, on);
    MUST_BE(read_slowly(slow, other, "slow-on"), 2);
    MUST_BE(metric(slow, "fills_refused_total"), 1);
    world_kill(slow);
    world_stop(other);
    world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(world_member(w, INVENTORY, 0)));
}
END_TEST

/* ---- A COMMIT that comes late ---- */

static const char late[] =
    "set search_path = inventory_svc;"
    "create function late() returns trigger language plpgsql as"
    " 'begin perform pg_advisory_xact_lock(4711); return null; end';"
    "create constraint trigger late after update on stock deferrable initially deferred"
    " for each row execute function late()";

static int64_t stock_version(const char *sku)
{
    return db_int(w->db, "select version from inventory_svc.stock where sku = '%s'", sku);
}

/* What is read is version 1, and is not stored; again where Redis was not asked in time. */
static void read_in_vain(struct member *m, struct fetch *f)
{
    int64_t refused = metric(m, "fills_refused_total"), version = 0;

    AWAIT(PATIENCE, fetch_get(f, sku_path("late"), &version) == 200 && version == 1 &&
                        metric(m, "fills_refused_total") > refused);
}

/* The connection is gone in the middle of a COMMIT, which the server goes on with: nothing that is read
 * before its end may be there after it, also if Redis forgets all that it was told. */
START_TEST(a_commit_that_comes_late)
{
    struct proxy *proxy = proxy_start(atoi(getenv("PGPORT")));
    struct db *holder = db_new(w->database);
    char port[24];
    const char *const settings[] = {port, "CACHE_WITHOUT=leases", NULL};
    int64_t version;

    snprintf(port, sizeof port, "PGPORT=%d", proxy_port(proxy));
    /* Its leases are short: one of an hour is of another clock to it. */
    world_stop(world_member(w, INVENTORY, 0));
    struct member *m = with(3, NULL, settings);
    struct fetch *f = fetch_new(m->port);
    post(m, "late", 1);
    db_run(w->db, "%s", late);
    db_run(holder, "select pg_advisory_lock(4711)");
    proxy_cut(proxy, PROXY_COMMIT, 1);
    MUST_BE(web_post(NULL, world_url(m, "/api/v1/inventory"), NULL,
                     "{\"sku\":\"late\",\"quantity\":2}"),
            503);
    AWAIT(PATIENCE, metric(m, "invalidations_total") > 1);
    read_in_vain(m, f);
    for (int again = 0; again < 2; again++) { /* who builds the filter has asked for sessions */
        int64_t generations = metric(m, "generations_total");
        shell("redis-cli -p $SAGA_REDIS_PORT --scan --pattern '%s*' |"
              " xargs redis-cli -p $SAGA_REDIS_PORT del",
              w->prefix);
        AWAIT(PATIENCE, metric(m, "generations_total") > generations);
        await_cache(m);
        int64_t told = metric(m, "invalidations_total");
        AWAIT(PATIENCE, metric(m, "invalidations_total") > told);
        read_in_vain(m, f);
    }
    MUST_BE(metric(m, "fills_total"), 0);
    db_run(holder, "select pg_advisory_unlock(4711)");
    AWAIT(PATIENCE, stock_version("late") == 2);
    MUST_BE(fetch_get(f, sku_path("late"), &version), 200);
    MUST_BE(version, 2);
    AWAIT(PATIENCE, metric(m, "queue") == 0); /* its session has ended */
    db_run(w->db, "drop function inventory_svc.late cascade");
    fetch_free(f);
    db_free(holder);
    world_stop(m);
    proxy_stop(proxy);
    world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(world_member(w, INVENTORY, 0)));
}
END_TEST

/* ---- One that the database refuses ---- */

static const char refuse[] =
    "set search_path = inventory_svc;"
    "create function refuse() returns trigger language plpgsql as"
    " 'begin raise exception ''not now''; end';"
    "create constraint trigger refuse after update on stock deferrable initially deferred"
    " for each row when (new.sku = 'refused-0') execute function refuse()";

/* In sessions that live on: that of a POST, and the engine's. What was never committed is not told for
 * as long as they live. */
START_TEST(a_commit_that_is_refused)
{
    struct member *m = world_member(w, INVENTORY, 0);

    make_skus(m, "refused", 1);
    await_cache(m);
    world_url(m, "");
    int64_t failed = fetch_metric(m->port, "saga_batches_failed_total");
    db_run(w->db, "%s", refuse);
    MUST_BE(web_post(NULL, world_url(m, "/api/v1/inventory"), NULL,
                     "{\"sku\":\"refused-0\",\"quantity\":50}"),
            503);
    world_place(w, "refused", "refused-0 1 100", "tok_ok");
    kafka_flush(10);
    AWAIT(PATIENCE, fetch_metric(m->port, "saga_batches_failed_total") > failed);
    MUST_BE(stock_version("refused-0"), 1);
    db_run(w->db, "drop function inventory_svc.refuse cascade");
    AWAIT(PATIENCE, stock_version("refused-0") == 2);
    AWAIT(PATIENCE, metric(m, "queue") == 0);
}
END_TEST

Suite *cache_suite(void)
{
    Suite *suite = suite_create("cache");
    TCase *all = tcase_create("all");

    tcase_add_unchecked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 4 * PATIENCE);
    tcase_add_test(all, breakdown);
    tcase_add_test(all, breakdown_of_two_processes);
    tcase_add_test(all, penetration);
    tcase_add_test(all, a_sku_that_is_made_is_there);
    tcase_add_test(all, a_sku_that_is_read_stays);
    tcase_add_test(all, no_room_for_a_filter);
    tcase_add_test(all, avalanche);
    tcase_add_test(all, a_slow_reader);
    tcase_add_test(all, a_commit_that_comes_late);
    tcase_add_test(all, a_commit_that_is_refused);
    suite_add_tcase(suite, all);
    return suite;
}
