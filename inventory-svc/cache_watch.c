/* What the cache asks the database: who may write, three times a second; and all SKUs, when a
 * generation has no filter. A thread with connections of its own: neither the keeper nor a reader ever
 * waits for the database here. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cache_private.h"
#include "log.h"
#include "pg.h"
#include "presence.h"

enum { WRITERS_MAX = 400, PAGE = 10000, BUILD_MS = 30000 };

/* clang-format off */
static const char session[] = /* a builder waits little, and asks again */
    "set statement_timeout = '5s'; set lock_timeout = '100ms'";

static const char living[] =
    "select distinct objid::bigint"
    "  from pg_locks"
    " where locktype = 'advisory' and objsubid = 2"
    "   and classid::bigint = " SAGA_PRESENCE "::bigint & 4294967295"
    "   and database = (select oid from pg_database where datname = current_database())";

static const char our_sessions[] =
    "select pid"
    "  from pg_locks"
    " where locktype = 'advisory' and objsubid = 2"
    "   and classid::bigint = " SAGA_PRESENCE "::bigint & 4294967295 and objid::bigint = $1"
    "   and database = (select oid from pg_database where datname = current_database())";

/* Held, shared, by transactions that make a SKU. */
#define CREATING "(hashtext('creating ' || current_setting('search_path'))::bigint)"
const char stock_cache_creating_lock[] = "select pg_advisory_xact_lock_shared" CREATING;
static const char wait_for_creators[] = "select pg_advisory_lock" CREATING;
static const char let_creators[] = "select pg_advisory_unlock" CREATING;

static const char page[] =
    "select sku"
    "  from stock"
    " where sku > $1"
    " order by sku"
    " limit $2";
/* clang-format on */

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    int64_t asked_at; /* us; 0: never */
    int64_t writer[WRITERS_MAX];
    int n;
    struct saga_pg *pg;
    struct saga_redis *redis;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool cache_watch_living(struct saga_redis_command *c)
{
    pthread_mutex_lock(&watch.lock);
    int64_t age = (cache_now() - watch.asked_at) / 1000 + 1;
    bool known = watch.asked_at && age <= LIVING_OLD_MS;
    saga_redis_number(c, known ? age : -1);
    for (int i = 0; known && i < watch.n; i++)
        saga_redis_number(c, watch.writer[i]);
    pthread_mutex_unlock(&watch.lock);
    return known;
}

static int ask_living(struct saga_err *err)
{
    struct saga_rows *rows = NULL;
    int64_t now = cache_now();
    int rc = saga_pg_query(watch.pg, living, NULL, &rows, err);

    if (rc == 0 && saga_rows_n(rows) <= WRITERS_MAX) { /* with more of them nothing is known */
        pthread_mutex_lock(&watch.lock);
        watch.asked_at = now;
        watch.n = saga_rows_n(rows);
        for (int i = 0; i < watch.n; i++)
            watch.writer[i] = saga_rows_int(rows, i, 0);
        pthread_mutex_unlock(&watch.lock);
    }
    saga_rows_free(rows);
    return rc;
}

/* Sessions that we have given up may still be at work. */
static int ask_our_sessions(struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    int64_t now = cache_now();

    saga_param_int(&p, saga_presence());
    int rc = saga_pg_query(watch.pg, our_sessions, &p, &rows, err);
    if (rc == 0) {
        int n = saga_rows_n(rows), *pid = saga_alloc((size_t)(n + 1) * sizeof *pid);
        for (int i = 0; i < n; i++)
            pid[i] = (int)saga_rows_int(rows, i, 0);
        cache_keeper_sessions(pid, n, now);
        free(pid);
    }
    saga_rows_free(rows);
    saga_params_free(&p);
    return rc;
}

/* ---- The filter ---- */

/* Everybody who makes a SKU and did so before we began is done. */
static int pass_creators(struct saga_err *err)
{
    int rc = saga_pg_query(watch.pg, wait_for_creators, NULL, NULL, err);

    return rc < 0 ? rc : saga_pg_query(watch.pg, let_creators, NULL, NULL, err);
}

/* Adds a page to the filter. -> its rows, or an error; after: its last SKU */
static int add_page(uint8_t *filter, char after[65], struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    uint32_t bit[CACHE_FILTER_HASHES];

    saga_param_text(&p, after);
    saga_param_int(&p, PAGE);
    int rc = saga_pg_query(watch.pg, page, &p, &rows, err);
    for (int i = 0; rc == 0 && i < saga_rows_n(rows); i++) {
        cache_filter_bits(saga_rows_text(rows, i, 0), bit);
        for (int b = 0; b < CACHE_FILTER_HASHES; b++)
            cache_filter_set(filter, bit[b]);
    }
    if (rc == 0 && (rc = saga_rows_n(rows)) > 0)
        snprintf(after, 65, "%s", saga_rows_text(rows, rc - 1, 0));
    saga_rows_free(rows);
    saga_params_free(&p);
    return rc;
}

/* -> SKUs, or an error */
static int64_t read_skus(uint8_t *filter, struct saga_err *err)
{
    char after[65] = "";
    int64_t n = 0;
    int rc;

    while ((rc = add_page(filter, after, err)) > 0) {
        n += rc;
        if (rc < PAGE)
            break;
        ask_living(err);
    }
    return rc < 0 ? rc : n;
}

/* One builder at a time. From now on the bits of SKUs that are being made are kept. -> whether it is us */
static bool begin_filter(const char *token, struct saga_err *err)
{
    struct saga_redis_command c = {0};
    size_t n;

    if (saga_redis_connect(watch.redis, KEEPER_MS, err) < 0)
        return false;
    saga_redis_word(&c, "SET");
    cache_key(&c, "builder", "");
    saga_redis_word(&c, token);
    saga_redis_word(&c, "NX");
    saga_redis_word(&c, "PX");
    saga_redis_number(&c, BUILD_MS);
    saga_redis_add(watch.redis, &c);
    bool ours = saga_redis_run(watch.redis, KEEPER_MS, err) == 0 &&
                saga_redis_text(saga_redis_reply(watch.redis, 0), &n);
    if (ours) {
        saga_redis_word(&c, "SETBIT");
        cache_key(&c, "filter", "");
        saga_redis_number(&c, CACHE_FILTER_BUILDING);
        saga_redis_number(&c, 1);
        saga_redis_add(watch.redis, &c);
        ours = saga_redis_run(watch.redis, KEEPER_MS, err) == 0; /* else it is missed at the end */
    }
    saga_buf_free(&c.words);
    return ours;
}

/* The filter is all of it. -> whether Redis has taken it */
static bool complete_filter(const char *token, const uint8_t *filter, struct saga_err *err)
{
    struct saga_redis_command c = {0};

    saga_redis_word(&c, "SET");
    cache_key(&c, "part:", token);
    saga_redis_bytes(&c, filter, CACHE_FILTER_BYTES);
    saga_redis_word(&c, "PX");
    saga_redis_number(&c, BUILD_MS);
    saga_redis_add(watch.redis, &c);
    saga_redis_script(&c, &cache_complete, 3);
    cache_key(&c, "filter", "");
    cache_key(&c, "builder", "");
    cache_key(&c, "part:", token);
    saga_redis_word(&c, token);
    saga_redis_number(&c, CACHE_FILTER_BYTES);
    saga_redis_add(watch.redis, &c);
    saga_buf_free(&c.words);
    return saga_redis_run(watch.redis, 5 * KEEPER_MS, err) == 0 &&
           saga_redis_int(saga_redis_reply(watch.redis, 1)) == 1;
}

/* We leave the building to the next one. */
static void leave_filter(void)
{
    struct saga_redis_command c = {0};
    struct saga_err ignored = {0};

    saga_redis_word(&c, "DEL");
    cache_key(&c, "builder", "");
    saga_redis_add(watch.redis, &c);
    saga_buf_free(&c.words);
    saga_redis_run(watch.redis, KEEPER_MS, &ignored);
}

static void build_filter(void)
{
    static int64_t builds;
    struct saga_err err = {0};
    char token[48];
    uint8_t *filter;
    int64_t n = -1;

    snprintf(token, sizeof token, "%lld.%lld", (long long)saga_presence(), (long long)++builds);
    if (!begin_filter(token, &err))
        return;
    filter = saga_alloc(CACHE_FILTER_BYTES);
    memset(filter, 0, CACHE_FILTER_BYTES);
    if (pass_creators(&err) == 0)
        n = read_skus(filter, &err);
    if (n < 0 || !complete_filter(token, filter, &err))
        leave_filter();
    else
        saga_log_at(SAGA_INFO, "stock cache: filter built", "\"skus\":%lld", (long long)n);
    free(filter);
}

static void *run(void *unused)
{
    static const struct timespec pause = {0, LIVING_MS * 1000000};

    bool lost = false;
    int pid = 0; /* of our session: another one may be with another server */

    (void)unused;
    while (true) {
        struct saga_err err = {0};
        bool answers =
            ask_living(&err) == 0 && (!cache_keeper_wonders() || ask_our_sessions(&err) == 0);
        if (answers && (lost || (pid && saga_pg_pid(watch.pg) != pid)))
            cache_keeper_doubt(); /* it may have been restored from an old copy */
        if (answers)
            pid = saga_pg_pid(watch.pg);
        lost = !answers;
        if (answers && atomic_load(&cache.filter_wanted) && !cache.without[CACHE_FILTER])
            build_filter();
        nanosleep(&pause, NULL);
    }
    return NULL;
}

void cache_watch_start(void)
{
    watch.pg = saga_pg_new(cache.database, "inventory-svc-cache", "inventory_svc");
    saga_pg_session(watch.pg, session);
    watch.redis = saga_redis_new(&cache.at, cache_scripts);
    if (pthread_create(&watch.thread, NULL, run, NULL) != 0)
        _Exit(70); /* out of threads at start */
}
