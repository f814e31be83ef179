/* What Redis is told of a change (cache_private.h says why). Of the keeper's thread. */
#include <stdlib.h>

#include "cache_private.h"

static struct saga_redis_command command;
static struct saga_buf json;

static void creating(const char *sku)
{
    struct saga_redis_command *c = &command;
    uint32_t bit[CACHE_FILTER_HASHES];

    cache_filter_bits(sku, bit);
    saga_redis_script(c, &cache_create, 3);
    cache_key(c, "generation", "");
    cache_key(c, "v:", sku);
    cache_key(c, "filter", "");
    saga_redis_number(c, TOMBSTONE_MS);
    for (int i = 0; i < CACHE_FILTER_HASHES; i++)
        saga_redis_number(c, bit[i]);
}

/* As most would do it. */
static void drop(const struct written *at, int n)
{
    struct saga_redis_command *c = &command;

    saga_redis_word(c, "DEL");
    for (int i = 0; i < n; i++)
        cache_key(c, "v:", at[i].sku);
}

static void bar(const struct written *at, int n)
{
    struct saga_redis_command *c = &command;

    saga_redis_script(c, &cache_bar, 1 + n);
    cache_key(c, "generation", "");
    for (int i = 0; i < n; i++)
        cache_key(c, "v:", at[i].sku);
    saga_redis_number(c, TOMBSTONE_MS);
    for (int i = 0; i < n; i++)
        saga_redis_number(c, at[i].stock.version);
}

static void value_of(const struct written *w)
{
    struct stock stock = w->stock;

    stock.row.key = w->sku;
    json.n = 0;
    inventory_json(&stock, &json);
    saga_redis_bytes(&command, json.at, json.n);
}

/* generation: of the values, 0: they are not told */
static void forget(const struct written *at, int n, int64_t generation)
{
    struct saga_redis_command *c = &command;

    saga_redis_script(c, &cache_forget, 1 + 2 * n);
    cache_key(c, "generation", "");
    for (int i = 0; i < n; i++) {
        cache_key(c, "v:", at[i].sku);
        cache_key(c, "l:", at[i].sku);
    }
    saga_redis_number(c, generation);
    for (int i = 0; i < n; i++) {
        saga_redis_number(c, at[i].stock.version);
        if (generation)
            value_of(&at[i]);
        else
            saga_redis_word(c, "");
    }
}

static int words(const struct stock_change *told)
{
    int n = 0;

    for (; told; told = told->next)
        n += told->n;
    return n;
}

void cache_thin(struct stock_change *told)
{
    const int all = words(told);

    if (!told || all == told->n) /* each SKU once */
        return;
    struct cache_word *word = saga_alloc((size_t)all * sizeof *word);
    int n = 0;
    for (const struct stock_change *c = told; c; c = c->next)
        for (int i = 0; i < c->n; i++)
            word[n++] = (struct cache_word){c->at[i].sku, c->at[i].stock.version, false};
    cache_newest(word, n);
    n = 0;
    for (struct stock_change *c = told; c; c = c->next) {
        int kept = 0;
        for (int i = 0; i < c->n; i++)
            if (word[n++].told)
                c->at[kept++] = c->at[i];
        c->n = kept;
    }
    free(word);
}

void cache_tell(struct saga_redis *redis, const struct stock_change *change, bool values)
{
    const int64_t generation = values ? change->generation : 0;

    if (change->creating) {
        creating(change->creating);
        saga_redis_add(redis, &command);
    }
    for (int i = 0, n; i < change->n; i += n) {
        n = change->n - i < CHUNK ? change->n - i : CHUNK;
        if (cache.without[CACHE_VERSIONS])
            drop(change->at + i, n);
        else if (change->end == DONE &&
                 !cache.without[CACHE_FLIGHT]) /* else readers have no locks */
            forget(change->at + i, n, generation);
        else
            bar(change->at + i, n);
        saga_redis_add(redis, &command);
    }
    saga_count(cache_metric.told, change->n);
}
