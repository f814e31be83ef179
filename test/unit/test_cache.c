/* What the cache of the stock decides alone: values, lifetimes, the filter's bits, who is told new values, the
 * breaker. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache_rules.h"
#include "suites.h"

/* ---- Values ---- */

static const struct {
    const char *text;
    bool good;
    int64_t version, generation;
    const char *body;
} values[] = {
    {"7 12 {}", true, 7, 12, "{}"},
    {"0 12 ", true, 0, 12, ""}, /* there is no such SKU */
    {"9223372036854775807 9223372036854775807 x y", true, INT64_MAX, INT64_MAX, "x y"},
    {"7 t", false}, /* a tombstone */
    {"7 12", false},
    {"7", false},
    {"", false},
    {" 7 12 {}", false},
    {"-7 12 {}", false},
    {"7  12 {}", false},
    {"9223372036854775808 1 {}", false},
    {"7x 12 {}", false},
};

/* A value is read whole or not at all; a tombstone is none. */
START_TEST(values_are_read)
{
    struct cache_value v = {0};

    ck_assert_int_eq(cache_value_read(values[_i].text, strlen(values[_i].text), &v),
                     values[_i].good);
    if (!values[_i].good)
        return;
    ck_assert_int_eq(v.version, values[_i].version);
    ck_assert_int_eq(v.generation, values[_i].generation);
    ck_assert_uint_eq(v.n, strlen(values[_i].body));
    ck_assert_int_eq(memcmp(v.body, values[_i].body, v.n), 0);
}
END_TEST

/* Without its end it is not taken for another value. */
START_TEST(nothing_is_read_beyond_the_end)
{
    struct cache_value v;

    ck_assert(!cache_value_read("7 123", 4, &v));
    ck_assert(cache_value_read("7 12 {}", 5, &v));
    ck_assert_uint_eq(v.n, 0);
}
END_TEST

/* ---- Lifetimes ---- */

/* A fifth more or less, over all of that; always some time. */
START_TEST(lifetimes_are_spread)
{
    int64_t least = INT64_MAX, most = 0;

    for (uint32_t i = 0; i < 4096; i++) {
        int64_t ms = cache_lifetime(300000, true, i * 2654435761u);
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
        ck_assert_int_eq(cache_lifetime(300000, false, i), 300000);
    }
    ck_assert_int_ge(least, 240000);
    ck_assert_int_le(least, 241000);
    ck_assert_int_ge(most, 359000);
    ck_assert_int_le(most, 360000);
    ck_assert_int_eq(cache_lifetime(0, true, 7), 1);
}
END_TEST

/* ---- The filter ---- */

static uint8_t filter[CACHE_FILTER_BYTES];

static bool knows(const char *sku)
{
    uint32_t bit[CACHE_FILTER_HASHES];
    bool all = true;

    cache_filter_bits(sku, bit);
    for (int i = 0; i < CACHE_FILTER_HASHES; i++)
        all &= cache_filter_has(filter, bit[i]);
    return all;
}

static void learn(const char *sku)
{
    uint32_t bit[CACHE_FILTER_HASHES];

    cache_filter_bits(sku, bit);
    for (int i = 0; i < CACHE_FILTER_HASHES; i++)
        cache_filter_set(filter, bit[i]);
}

/* What it has been told it knows, and of the rest it lets through as few as the header says; the bit
 * that says that it is complete is nobody's. */
START_TEST(the_filter_knows_what_it_was_told)
{
    enum { SKUS = 500000, UNKNOWN = 300000 };
    char sku[65];
    int wrong = 0;

    memset(filter, 0, sizeof filter);
    for (int i = 0; i < SKUS; i++) {
        snprintf(sku, sizeof sku, "sku-%d", i);
        learn(sku);
    }
    for (int i = 0; i < SKUS; i++) {
        snprintf(sku, sizeof sku, "sku-%d", i);
        ck_assert(knows(sku));
    }
    for (int i = 0; i < UNKNOWN; i++) {
        snprintf(sku, sizeof sku, "unknown:%d", i);
        wrong += knows(sku);
    }
    ck_assert_int_lt(wrong, UNKNOWN / 1000);
    ck_assert(!cache_filter_has(filter, CACHE_FILTER_COMPLETE));
}
END_TEST

/* Bits are numbered as Redis' SETBIT does it: the first is the highest of the first byte. */
START_TEST(bits_are_those_of_redis)
{
    memset(filter, 0, sizeof filter);
    cache_filter_set(filter, 0);
    cache_filter_set(filter, 15);
    ck_assert_int_eq(filter[0], 0x80);
    ck_assert_int_eq(filter[1], 0x01);
    ck_assert(cache_filter_has(filter, 15) && !cache_filter_has(filter, 14));
}
END_TEST

/* Other programs may set them as well: they are the same for ever. */
START_TEST(the_bits_of_a_sku_do_not_change)
{
    uint32_t bit[CACHE_FILTER_HASHES];
    char text[200] = "";

    cache_filter_bits("apple", bit);
    for (int i = 0; i < CACHE_FILTER_HASHES; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%u ", bit[i]);
    ck_assert_str_eq(text, "4269413 1987184 8093555 5811326 3529097 1246868 ");
}
END_TEST

/* ---- Interest ---- */

START_TEST(values_are_for_who_reads)
{
    struct cache_interest i = {0};

    ck_assert(!cache_interest_in(&i, 1, 1));
    cache_interest_heard(&i, 1000, 0, 1);
    ck_assert(!cache_interest_in(&i, 1, 2));
    cache_interest_heard(&i, CACHE_OFTEN * 20 + 1, 20, 10); /* few of many: a narrow change only */
    ck_assert(cache_interest_in(&i, CACHE_NARROW, 10));
    ck_assert(!cache_interest_in(&i, CACHE_NARROW + 1, 10));
    cache_interest_heard(&i, CACHE_OFTEN * 20, 20, 20);
    ck_assert(cache_interest_in(&i, 100000, 20));
    cache_interest_heard(&i, 0, 0, 30); /* nothing was told: nothing is known */
    ck_assert(cache_interest_in(&i, 100000, 20 + CACHE_INTEREST_US - 1));
    ck_assert(!cache_interest_in(&i, 1, 20 + CACHE_INTEREST_US));
}
END_TEST

/* ---- What is told together ---- */

/* Any words, most of them in the order of their versions: what is left says as much as all. One is left out
 * only for a later one, and no two of a SKU are told where the later is as new. */
START_TEST(only_the_newest_word_is_told)
{
    enum { MOST = 40 };
    static const char *const names[] = {"a", "b", "c", "d", "apple", "apple-1", "apple-2"};
    struct cache_word word[MOST];
    uint32_t x = 1;

    for (int n = 0; n <= MOST; n++) {
        for (int i = 0; i < n; i++) {
            x = x * 1664525 + 1013904223;
            word[i] = (struct cache_word){names[(x >> 16) % 7], i + (x >> 24) % 8, false};
        }
        cache_newest(word, n);
        for (int i = 0; i < n; i++) {
            int next = i + 1; /* word on this SKU */
            while (next < n && strcmp(word[next].sku, word[i].sku) != 0)
                next++;
            const bool said = next < n && word[next].version >= word[i].version;
            ck_assert_msg(word[i].told == !said, "%d of %d: %s", i, n, word[i].sku);
        }
    }
}
END_TEST

/* ---- The breaker ---- */

/* Closed until the last of so many failures in a row; then it rests, asks once, and asks no second
 * time before it has heard. */
START_TEST(the_breaker)
{
    struct cache_breaker b = {0};

    for (int i = 1; i < CACHE_FAILURES; i++) {
        cache_breaker_failed(&b, 10);
        ck_assert(cache_breaker_lets(&b, 10));
    }
    cache_breaker_failed(&b, 10);
    ck_assert_int_eq(b.state, CACHE_OPEN);
    ck_assert(!cache_breaker_lets(&b, 10));
    ck_assert(!cache_breaker_lets(&b, 10 + CACHE_REST_US - 1));
    ck_assert(cache_breaker_lets(&b, 10 + CACHE_REST_US));
    ck_assert_int_eq(b.state, CACHE_HALF_OPEN);
    ck_assert(!cache_breaker_lets(&b, 11 + CACHE_REST_US));
    cache_breaker_failed(&b, 20 + CACHE_REST_US);
    ck_assert_int_eq(b.state, CACHE_OPEN);
    ck_assert(!cache_breaker_lets(&b, 19 + 2 * CACHE_REST_US));
    ck_assert(cache_breaker_lets(&b, 20 + 2 * CACHE_REST_US));
    cache_breaker_well(&b);
    ck_assert(cache_breaker_lets(&b, 21 + 2 * CACHE_REST_US));
    for (int i = 1; i < CACHE_FAILURES; i++)
        cache_breaker_failed(&b, 30 + 2 * CACHE_REST_US);
    ck_assert_int_eq(b.state, CACHE_CLOSED); /* it has counted from the start */
}
END_TEST

/* Who asks and never tells does not keep it half open for ever. */
START_TEST(a_half_open_breaker_asks_again)
{
    struct cache_breaker b = {CACHE_OPEN, CACHE_FAILURES, 100};

    ck_assert(cache_breaker_lets(&b, 100));
    ck_assert(!cache_breaker_lets(&b, 99 + CACHE_REST_US));
    ck_assert(cache_breaker_lets(&b, 100 + CACHE_REST_US));
}
END_TEST

Suite *cache_suite(void)
{
    Suite *suite = suite_create("cache");
    TCase *all = tcase_create("all");

    tcase_add_loop_test(all, values_are_read, 0, sizeof values / sizeof *values);
    tcase_add_test(all, nothing_is_read_beyond_the_end);
    tcase_add_test(all, lifetimes_are_spread);
    tcase_add_test(all, the_filter_knows_what_it_was_told);
    tcase_add_test(all, bits_are_those_of_redis);
    tcase_add_test(all, the_bits_of_a_sku_do_not_change);
    tcase_add_test(all, values_are_for_who_reads);
    tcase_add_test(all, only_the_newest_word_is_told);
    tcase_add_test(all, the_breaker);
    tcase_add_test(all, a_half_open_breaker_asks_again);
    suite_add_tcase(suite, all);
    return suite;
}
