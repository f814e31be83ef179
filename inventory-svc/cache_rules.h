/* What the cache of the stock decides without asking anybody: how a value looks in Redis, whether it
 * may be believed, the bits of the filter, who is told new values, when a server that fails is left alone. Pure. */
#ifndef CACHE_RULES_H
#define CACHE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Values: "<version> <generation> <body>"; no body: there is no such SKU; a tombstone, which
 * only says that no version below its own may come back, has "t" for the generation ---- */
struct cache_value {
    int64_t version, generation;
    const char *body;
    size_t n;
};
bool cache_value_read(const char *text, size_t n, struct cache_value *value); /* false: none */

/* ms that a value lives: ttl, or up to a fifth more or less, so that what came together does not
 * go together. */
int64_t cache_lifetime(int64_t ttl_ms, bool spread, uint32_t random);

/* ---- The filter (Bloom): has an SKU ever been made? ----
 * A MiB of bits and 6 hashes: of 500,000 SKUs 1 unknown one in 1,300 is let through, of a million
 * 1 in 50, of two million 1 in 5; those cost a negative entry each, nothing else. Bit 0 says that it
 * has all SKUs that there are: in the same string, so that no server that has lost some of it can say
 * so. */
enum {
    CACHE_FILTER_BYTES = 1 << 20,
    CACHE_FILTER_HASHES = 6,
    CACHE_FILTER_COMPLETE = 0,
    CACHE_FILTER_BUILDING = 1
};
void cache_filter_bits(const char *sku, uint32_t bit[CACHE_FILTER_HASHES]);
void cache_filter_set(uint8_t *filter, uint32_t bit); /* as SETBIT numbers them */
bool cache_filter_has(const uint8_t *filter, uint32_t bit);

/* ---- Interest: for whom would the new values of a change be? In a shop of very many SKUs few of those that
 * a large batch changes are in the cache, and writing them all out is not worth its price (2 to 3 us for each);
 * where many are read, to read each again from the database costs more (about 200). {0}: nobody reads. Times in
 * us. ---- */
enum { CACHE_INTEREST_US = 10000000, CACHE_NARROW = 300 /* SKUs of a change */, CACHE_OFTEN = 64 };
struct cache_interest {
    int64_t read_at; /* a value stood where something was told; 0: never */
    bool often;      /* at one in CACHE_OFTEN, or more, of what was told last */
};
void cache_interest_heard(struct cache_interest *i, int64_t skus, int64_t values, int64_t now);
/* Whether a change of n SKUs is told with its new values. */
bool cache_interest_in(const struct cache_interest *i, int n, int64_t now);

/* ---- What is told together: of words on one SKU, in the order in which they were made, only the newest ---- */
struct cache_word {
    const char *sku;
    int64_t version;
    bool told; /* out */
};
/* told: no later word on this SKU is as new. (Rarely one too many is told: where hashes meet.) */
void cache_newest(struct cache_word *word, int n);

/* ---- The breaker: after so many failures in a row a server is left alone for a while; then one asks,
 * and its answer decides. {0} is closed. Times in us. ---- */
enum cache_breaker_state { CACHE_CLOSED, CACHE_HALF_OPEN, CACHE_OPEN };
enum { CACHE_FAILURES = 3, CACHE_REST_US = 1000000 };
struct cache_breaker {
    enum cache_breaker_state state;
    int failures;
    int64_t until;
};
bool cache_breaker_lets(struct cache_breaker *b, int64_t now); /* half open: once */
void cache_breaker_well(struct cache_breaker *b);
void cache_breaker_failed(struct cache_breaker *b, int64_t now);

#endif
