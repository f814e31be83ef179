/* See cache_rules.h. */
#include "cache_rules.h"

#include <stdlib.h>

#include "mem.h"

/* Digits up to a space. -> what follows it, NULL: it is no number */
static const char *number(const char *at, const char *end, int64_t *n)
{
    const char *first = at;

    for (*n = 0; at < end && *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(*n, 10, n) || __builtin_add_overflow(*n, *at - '0', n))
            return NULL;
    return at > first && at < end && *at == ' ' ? at + 1 : NULL;
}

bool cache_value_read(const char *text, size_t n, struct cache_value *value)
{
    const char *end = text + n, *at = number(text, end, &value->version);

    if (!at || !(at = number(at, end, &value->generation)))
        return false;
    value->body = at;
    value->n = (size_t)(end - at);
    return true;
}

int64_t cache_lifetime(int64_t ttl_ms, bool spread, uint32_t random)
{
    int64_t ms =
        spread ? ttl_ms * 4 / 5 + (int64_t)(random % 1024) * (ttl_ms * 2 / 5) / 1024 : ttl_ms;

    return ms > 0 ? ms : 1;
}

/* Two hashes make all (Kirsch and Mitzenmacher); the first byte is not theirs. */
void cache_filter_bits(const char *sku, uint32_t bit[CACHE_FILTER_HASHES])
{
    static const uint64_t bits = (uint64_t)(CACHE_FILTER_BYTES - 1) * 8;
    const size_t n = strlen(sku);
    const uint64_t a = saga_hash64(0, sku, n), b = saga_hash64(a, sku, n) | 1;

    for (uint64_t i = 0; i < CACHE_FILTER_HASHES; i++)
        bit[i] = (uint32_t)(8 + (a % bits + i * (b % bits)) % bits);
}

void cache_filter_set(uint8_t *filter, uint32_t bit)
{
    filter[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
}

bool cache_filter_has(const uint8_t *filter, uint32_t bit)
{
    return filter[bit / 8] & 0x80 >> bit % 8;
}

void cache_interest_heard(struct cache_interest *i, int64_t skus, int64_t values, int64_t now)
{
    if (values > 0)
        i->read_at = now;
    if (skus > 0)
        i->often = values * CACHE_OFTEN >= skus;
}

bool cache_interest_in(const struct cache_interest *i, int n, int64_t now)
{
    return i->read_at && now - i->read_at < CACHE_INTEREST_US && (n <= CACHE_NARROW || i->often);
}

static int by_number(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static bool says_no_more(const struct cache_word *w, const struct cache_word *later)
{
    return w->version <= later->version && strcmp(w->sku, later->sku) == 0;
}

/* By hash and place: the words on one SKU stand together, the later ones last. */
void cache_newest(struct cache_word *word, int n)
{
    uint64_t *order = saga_alloc((size_t)n * sizeof *order);

    for (int i = 0; i < n; i++)
        order[i] = (uint64_t)saga_hash(word[i].sku) << 32 | (uint32_t)i;
    qsort(order, (size_t)n, sizeof *order, by_number);
    for (int i = 0; i < n; i++) {
        struct cache_word *w = &word[(uint32_t)order[i]];
        w->told = i + 1 == n || !says_no_more(w, &word[(uint32_t)order[i + 1]]);
    }
    free(order);
}

bool cache_breaker_lets(struct cache_breaker *b, int64_t now)
{
    if (b->state == CACHE_CLOSED)
        return true;
    if (now < b->until)
        return false;
    b->state = CACHE_HALF_OPEN;
    b->until = now + CACHE_REST_US; /* of who asks and never tells */
    return true;
}

void cache_breaker_well(struct cache_breaker *b)
{
    *b = (struct cache_breaker){0};
}

void cache_breaker_failed(struct cache_breaker *b, int64_t now)
{
    b->failures++;
    if (b->state == CACHE_CLOSED && b->failures < CACHE_FAILURES)
        return;
    b->state = CACHE_OPEN;
    b->until = now + CACHE_REST_US;
}
