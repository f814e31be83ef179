/* Writing: texts, integers and times that are read back; and what else is written: error texts,
 * into arenas. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "suites.h"

/* ck_assert without its system call for each time that all is well. */
#define REQUIRE(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

/* ---- Texts and numbers ---- */

/* Every character is written so that jansson and we read it back. */
START_TEST(texts_are_read_back)
{
    struct saga_buf out = {0};
    struct saga_arena arena = {0};
    struct saga_json j;
    const char *s;
    size_t n;
    for (uint32_t c = 1; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 97) {
        char text[64] = "0123456789abcdef", *at = text + c % 17; /* at every place of a block */
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        if (c < 0x80)
            *at++ = (char)c;
        else if (c < 0x800)
            *at++ = (char)(0xC0 | c >> 6), *at++ = (char)(0x80 | (c & 63));
        else if (c < 0x10000)
            *at++ = (char)(0xE0 | c >> 12), *at++ = (char)(0x80 | (c >> 6 & 63)),
            *at++ = (char)(0x80 | (c & 63));
        else
            *at++ = (char)(0xF0 | c >> 18), *at++ = (char)(0x80 | (c >> 12 & 63)),
            *at++ = (char)(0x80 | (c >> 6 & 63)), *at++ = (char)(0x80 | (c & 63));
        strcpy(at, "end");
        out.n = 0;
        saga_json_put_text(&out, text);
        json_t *theirs = json_loadb(out.at, out.n, JSON_DECODE_ANY, NULL);
        REQUIRE(theirs && strcmp(json_string_value(theirs), text) == 0, "U+%04X", c);
        json_decref(theirs);
        saga_json_init(&j, out.at, out.n, &arena, NULL);
        REQUIRE(saga_json_text(&j, &s, &n) && saga_json_end(&j) == 0 && strcmp(s, text) == 0,
                "U+%04X", c);
        saga_arena_reset(&arena);
    }
    saga_buf_free(&out);
    saga_arena_free(&arena);
}
END_TEST

/* What is no text becomes U+FFFD, so that whatever goes through here is JSON. */
START_TEST(bytes_that_are_no_text_are_replaced)
{
    struct saga_buf out = {0};
    saga_json_put_textn(&out, "a\xff\0\xc3z\xed\xa0\x80", 8);
    saga_buf_add(&out, "", 1);
    ck_assert_str_eq(out.at, "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd"
                             "\xef\xbf\xbd\"");
    out.n = 0;
    saga_json_put_text(&out, "\"\\/\b\f\n\r\t\x01\x1f\x7f");
    saga_buf_add(&out, "", 1);
    ck_assert_str_eq(out.at, "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"");
    saga_buf_free(&out);
}
END_TEST

/* Integers of every length, and the two ends. */
START_TEST(integers_are_written)
{
    struct saga_buf out = {0};
    char expected[32];
    for (int shift = 0; shift < 64; shift++)
        for (int64_t d = -1; d <= 1; d++)
            for (int sign = 0; sign < 2; sign++) {
                int64_t v = (int64_t)((UINT64_C(1) << shift) + (uint64_t)d);
                v = sign && v != INT64_MIN ? -v : v;
                out.n = 0;
                saga_buf_int(&out, v);
                saga_buf_add(&out, "", 1);
                snprintf(expected, sizeof(expected), "%lld", (long long)v);
                ck_assert_str_eq(out.at, expected);
            }
    for (int64_t v = 1; v < INT64_MAX / 10; v *= 10)
        for (int64_t d = -1; d <= 1; d++) {
            out.n = 0;
            saga_buf_int(&out, v + d);
            saga_buf_add(&out, "", 1);
            snprintf(expected, sizeof(expected), "%lld", (long long)(v + d));
            ck_assert_str_eq(out.at, expected);
        }
    saga_buf_free(&out);
}
END_TEST

/* ---- Times ---- */

/* Known moments are written and read; every written time is read back. */
START_TEST(times_are_exact)
{
    static const struct {
        int64_t us;
        const char *text;
    } rows[] = {{0, "\"1970-01-01T00:00:00.000000Z\""},
                {-1, "\"1969-12-31T23:59:59.999999Z\""},
                {INT64_C(951782400000000), "\"2000-02-29T00:00:00.000000Z\""},
                {INT64_C(1795513885123456), "\"2026-11-24T09:51:25.123456Z\""},
                {INT64_C(4107542399999999), "\"2100-02-28T23:59:59.999999Z\""},
                {INT64_C(-62167219200000000), "\"0000-01-01T00:00:00.000000Z\""},
                {INT64_C(253402300799999999), "\"9999-12-31T23:59:59.999999Z\""}};
    struct saga_buf out = {0};
    int64_t us;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        out.n = 0;
        saga_json_put_time(&out, rows[i].us, 6);
        saga_buf_add(&out, "", 1);
        ck_assert_str_eq(out.at, rows[i].text);
        ck_assert(saga_time_read(out.at + 1, out.n - 3, &us) && us == rows[i].us);
    }
    uint32_t seed = 3;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 1103515245 + 12345;
        int64_t t = ((int64_t)seed - INT32_MAX / 4) * 60 * 1000000 + seed % 60000000;
        out.n = 0;
        saga_json_put_time(&out, t, i & 1 ? 6 : 3);
        REQUIRE(saga_time_read(out.at + 1, out.n - 2, &us) &&
                    us == (i & 1 ? t : t - (t % 1000 + 1000) % 1000),
                "%.*s", (int)out.n, out.at);
    }
    saga_buf_free(&out);
}
END_TEST

/* Offsets and fractions of any length are understood; what is no time of the calendar is refused.
 */
START_TEST(times_of_others)
{
    static const char *const same[] = {
        "2026-11-24T09:51:25.12Z",      "2026-11-24T09:51:25.120000Z",
        "2026-11-24t09:51:25.12z",      "2026-11-24T11:51:25.12+02:00",
        "2026-11-23T22:21:25.12-11:30", "2026-11-24T09:51:25.1200009Z",
        "2026-11-24T09:51:25.12+00:00"};
    static const char *const none[] = {"",
                                       "2026-11-24",
                                       "2026-11-24T09:51:25",
                                       "2026-11-24T09:51Z",
                                       "2026-02-29T00:00:00Z",
                                       "1900-02-29T00:00:00Z",
                                       "2026-13-01T00:00:00Z",
                                       "2026-00-01T00:00:00Z",
                                       "2026-04-31T00:00:00Z",
                                       "2026-01-00T00:00:00Z",
                                       "2026-01-01T24:00:00Z",
                                       "2026-01-01T00:60:00Z",
                                       "2026-01-01T00:00:61Z",
                                       "2026-01-01T00:00:00.Z",
                                       "2026-01-01T00:00:00+24:00",
                                       "2026-01-01T00:00:00Zx",
                                       "26-01-01T00:00:00Z",
                                       "2026-1-01T00:00:00Z",
                                       "2026-01-01 00:00:00Z",
                                       "2026-01-01T00:00:00+0200",
                                       "0000-01-01T00:00:00+00:01", /* outside four digits */
                                       "9999-12-31T23:59:00-00:01",
                                       "9999-12-31T23:59:60Z"};
    int64_t us;
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
        ck_assert_msg(saga_time_read(same[i], strlen(same[i]), &us) &&
                          us == INT64_C(1795513885120000),
                      "%s", same[i]);
    for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++)
        ck_assert_msg(!saga_time_read(none[i], strlen(none[i]), &us), "%s", none[i]);
}
END_TEST

/* ---- Errors and memory ---- */

/* The first error wins, prefixes stand before it, and the text is UTF-8 however it is cut. */
START_TEST(error_texts)
{
    struct saga_err e = {0};
    ck_assert_int_eq(saga_err(&e, SAGA_RETRY, "first %d", 1), SAGA_RETRY);
    ck_assert_int_eq(saga_err(&e, SAGA_FATAL, "second"), SAGA_FATAL);
    ck_assert_int_eq(saga_err_in(&e, "lane %d", 7), SAGA_RETRY);
    ck_assert_str_eq(e.text, "lane 7: first 1");
    ck_assert_int_eq(saga_err(NULL, SAGA_POISON, "none"), SAGA_POISON);
    for (int n = 240; n < 260; n++) {
        e = (struct saga_err){0};
        saga_err(&e, SAGA_FATAL, "%*s😀é€\xff", n, "");
        json_t *text = json_string(e.text);
        ck_assert_msg(text, "%s", e.text);
        json_decref(text);
        saga_err_in(&e, "a prefix of any length");
        ck_assert_uint_lt(strlen(e.text), sizeof(e.text));
    }
}
END_TEST

/* An arena gives pieces that do not overlap, of any size, and keeps at most 1 MiB after a reset. */
START_TEST(arena_pieces_are_apart)
{
    struct saga_arena a = {0};
    for (int round = 0; round < 3; round++) {
        char *piece[400];
        for (int i = 0; i < 400; i++) {
            size_t n = 1 + (size_t)i * 37 % 5000 + (i == 300 ? 3000000 : 0);
            piece[i] = saga_arena_zero(&a, n);
            ck_assert_uint_eq((uintptr_t)piece[i] % 8, 0);
            memset(piece[i], i, n);
        }
        for (int i = 0; i < 400; i++)
            for (size_t k = 0; k < (size_t)i * 37 % 5000; k++)
                REQUIRE(piece[i][k] == (char)i, "piece %d, byte %zu", i, k);
        saga_arena_reset(&a);
        ck_assert_uint_le(a.used, 1024 * 1024);
    }
    saga_arena_free(&a);
}
END_TEST

Suite *write_suite(void)
{
    Suite *suite = suite_create("write");
    TCase *tests = tcase_create("write");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, texts_are_read_back);
    tcase_add_test(tests, bytes_that_are_no_text_are_replaced);
    tcase_add_test(tests, integers_are_written);
    tcase_add_test(tests, times_are_exact);
    tcase_add_test(tests, times_of_others);
    tcase_add_test(tests, error_texts);
    tcase_add_test(tests, arena_pieces_are_apart);
    suite_add_tcase(suite, tests);
    return suite;
}
