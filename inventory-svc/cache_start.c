/* The cache's settings, metrics and start; and what its files share. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cache_private.h"
#include "conf.h"

enum { MS = 1000 };

struct cache cache;
struct cache_metrics cache_metric;

int64_t cache_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void cache_key(struct saga_redis_command *c, const char *kind, const char *sku)
{
    char key[256];

    saga_redis_bytes(c, key,
                     (size_t)snprintf(key, sizeof key, "%sstock:%s%s", cache.prefix, kind, sku));
}

static const char *url, *without;
static int64_t ttl, timeout;

const struct saga_setting stock_cache_settings[] = {
    {"REDIS_URL", "", "Redis for the stock query: redis://[[user]:password@]host[:port][/n]; none",
     .text = &url},
    {"CACHE_TTL", "300s", "how long it keeps a value, a fifth more or less", &ttl, 100000,
     INT64_C(86400000000)},
    {"CACHE_TIMEOUT", "50ms", "an answer of Redis that takes longer is not waited for", &timeout,
     1000, 1000000},
    {"CACHE_WITHOUT", "",
     "takes remedies away, in all processes alike, for demonstrations: "
     "flight,spread,filter,negative,versions,leases",
     .text = &without},
    {0}};

static const char *const remedies[] = {"flight",   "spread",   "filter",
                                       "negative", "versions", "leases"};

static int read_without(struct saga_err *err)
{
    for (const char *at = without; *at; at += *at == ',') {
        size_t n = strcspn(at, ","), i = 0;
        while (i < CACHE_REMEDIES && (strlen(remedies[i]) != n || strncmp(at, remedies[i], n) != 0))
            i++;
        if (i == CACHE_REMEDIES)
            return saga_err(
                err, SAGA_FATAL,
                "CACHE_WITHOUT=%.60s: expected some of flight, spread, filter, negative, "
                "versions, leases, with commas",
                without);
        cache.without[i] = true;
        at += n;
    }
    return 0;
}

#define COUNTER(what, help) saga_metric("saga_cache_" what, "", help)

void cache_make_metrics(void)
{
    if (cache_metric.reads)
        return;
    cache_metric = (struct cache_metrics){
        .hits = COUNTER("hits_total", "Reads of stock that Redis answered"),
        .misses = COUNTER("misses_total", "Reads that found nothing in Redis"),
        .fills = COUNTER("fills_total", "Values stored in Redis"),
        .refused = COUNTER("fills_refused_total", "Values that were too old to be stored"),
        .waits = COUNTER("waits_total", "Reads that waited for another to fill the key"),
        .negative = COUNTER("negative_total", "Reads of a SKU remembered as unknown"),
        .filter = COUNTER("filtered_total", "Reads of a SKU that the filter does not know"),
        .bypassed =
            COUNTER("bypassed_total", "Reads for which Redis was not asked or not believed"),
        .reads = COUNTER("database_reads_total", "Reads of stock that the database answered"),
        .errors = COUNTER("errors_total", "Connections to Redis that failed or took too long"),
        .breaker = COUNTER("breaker", "Of the writers' side: 0 closed, 1 half open, 2 open"),
        .told = COUNTER("invalidations_total", "Changes of a SKU told to Redis"),
        .queue = COUNTER("queue", "Changes of a SKU that wait to be told"),
        .generations = COUNTER("generations_total", "Times that all values were given up"),
        .trusted = COUNTER("believed", "1: answers of Redis are given out"),
    };
}

int stock_cache_start(const struct saga_conf *conf, struct saga_err *err)
{
    int rc;

    cache_make_metrics();
    if (!*url)
        return 0;
    if ((rc = saga_redis_place(&cache.at, url, err)) < 0 || (rc = read_without(err)) < 0)
        return rc;
    cache.on = true;
    cache.ttl_ms = ttl / MS;
    cache.timeout_ms = timeout / MS;
    cache.prefix = conf->prefix;
    cache.database = conf->database;
    cache_keeper_start();
    cache_watch_start();
    saga_http_guest(&cache_guest);
    return 0;
}

void stock_cache_stop(void)
{
    if (cache.on)
        cache_keeper_stop();
}

const char *stock_cache_degraded(char *text, size_t n)
{
    char why[200];

    if (!cache.on)
        return NULL;
    if (!cache_keeper_why(why, sizeof why)) {
        if (cache_front_is_well())
            return NULL;
        snprintf(why, sizeof why, "Redis does not answer readers in time");
    }
    snprintf(text, n, "stock is read from the database (%.160s)", why);
    return text;
}
