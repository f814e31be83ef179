/* The pull reader against jansson on generated input (agree.h), and at its limits. (Writing:
 * test_write.c.)
 *
 * Generated: texts by a seeded generator, most of them then mutated byte by byte. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agree.h"
#include "json.h"
#include "suites.h"

enum { TEXTS = 250000 };

static struct saga_arena arena;
static struct saga_err err;

static void clean(void)
{
    saga_arena_reset(&arena);
    err = (struct saga_err){0};
}

static void start(struct saga_json *j, const char *text, size_t n)
{
    err.code = 0;
    saga_json_init(j, text, n, &arena, &err);
}

static bool is_json(const char *text, size_t n)
{
    struct saga_json j;
    start(&j, text, n);
    saga_json_skip(&j);
    return saga_json_end(&j) == 0;
}

#define IS_JSON(literal) is_json(literal, sizeof(literal) - 1)

/* ---- The generator ---- */

static uint64_t seed;

static unsigned any(unsigned n) /* 0 to n - 1; xorshift64* */
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (unsigned)((seed * UINT64_C(2685821657736338717)) >> 33) % n;
}

static const char *one_of(const char *const *list, unsigned n)
{
    return list[any(n)];
}
#define ONE_OF(...)                                                                                \
    one_of((const char *const[]){__VA_ARGS__},                                                     \
           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void make_space(struct saga_buf *out)
{
    if (any(6) == 0)
        saga_buf_str(out, ONE_OF(" ", "\n", "\t", "\r\n", "   "));
}

static void make_string(struct saga_buf *out)
{
    saga_buf_str(out, "\"");
    for (unsigned n = any(4) ? any(6) : any(60); n--;)
        switch (any(10)) {
        case 0:
            saga_buf_str(out, ONE_OF("\\n", "\\\"", "\\\\", "\\/", "\\b", "\\f", "\\r", "\\t"));
            break;
        case 1:
            saga_buf_str(out, ONE_OF("\\u0041", "\\u00e9", "\\u20AC", "\\ud83d\\ude00", "\\uFFFF",
                                     "\\u0000", "\\ud800", "\\udc00", "\\ud83dx", "\\u12g4"));
            break;
        case 2:
            saga_buf_str(out, ONE_OF("é", "€", "😀", "\x7f", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"));
            break;
        case 3:
            if (any(20) == 0)
                saga_buf_str(out, ONE_OF("\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80",
                                         "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\x1f", "\xc3"));
            break;
        default:
            saga_buf_add(out, &(char){(char)('a' + any(4))}, 1);
        }
    saga_buf_str(out, "\"");
}

static void make_number(struct saga_buf *out)
{
    saga_buf_str(out, ONE_OF("0", "-0", "1", "-17", "123456789", "9223372036854775807",
                             "-9223372036854775808", "9223372036854775808", "-9223372036854775809",
                             "01", "-", "+1", "1.", ".5", "123456789012345678901234567890",
                             "999999999999999999", "1000000000000000000", "18446744073709551616"));
    if (any(4) == 0)
        saga_buf_str(out, ONE_OF(".0", ".25", ".", ".5e3", ".1E-2"));
    if (any(6) == 0)
        saga_buf_str(out, ONE_OF("e1", "E+2", "e-3", "e", "e999", "e-999", "e+"));
}

static void make_value(struct saga_buf *out, unsigned depth);

static void make_members(struct saga_buf *out, unsigned depth, bool object)
{
    saga_buf_str(out, object ? "{" : "[");
    for (unsigned n = any(16) ? any(4) : any(30), i = 0; i < n && out->n < 1000; i++) {
        if (i)
            saga_buf_str(out, ",");
        make_space(out);
        if (object) {
            if (any(3) == 0)
                make_string(out);
            else /* so many that duplicates are rare, but are there */
                saga_buf_printf(out, "\"%c%u\"", 'a' + (char)any(3), any(300));
            make_space(out);
            saga_buf_str(out, ":");
        }
        make_value(out, depth + 1);
    }
    saga_buf_str(out, object ? "}" : "]");
}

static void make_value(struct saga_buf *out, unsigned depth)
{
    make_space(out);
    unsigned kind = depth > 18 ? 3 + any(7) : any(10);
    if (depth > 5 && depth < 18 && any(3)) /* once deep, towards the limit and over it */
        kind = any(2);
    if (kind < 2 || (depth < 3 && kind < 5))
        make_members(out, depth, kind & 1);
    else if (kind < 6)
        make_string(out);
    else if (kind < 8)
        make_number(out);
    else
        saga_buf_str(out, ONE_OF("true", "false", "null"));
    make_space(out);
}

/* As bytes get lost, repeated and changed. */
static void mutate(struct saga_buf *text)
{
    static const char likely[] = "{}[]\",:\\u0019-+.eEtfn \n\x1f\x80\xc3\xed\xf0\xff";
    for (unsigned times = 1 + any(3); times-- && text->n;) {
        size_t at = any((unsigned)text->n);
        saga_buf_room(text, 1);
        char *p = text->at + at;
        switch (any(4)) {
        case 0: /* gone */
            memmove(p, p + 1, --text->n - at);
            break;
        case 1: /* one more */
            memmove(p + 1, p, text->n++ - at);
            *p = likely[any(sizeof(likely))];
            break;
        case 2: /* another; NUL is one of them */
            *p = any(2) ? likely[any(sizeof(likely))] : (char)any(256);
            break;
        default: /* cut off */
            if (any(4) == 0)
                text->n = at;
        }
    }
}

/* On every generated text, mutated or not, reader and jansson agree; both verdicts are frequent. */
START_TEST(agrees_with_jansson_on_generated_texts)
{
    struct saga_buf text = {0};
    int good = 0;
    seed = 20261124;
    for (int i = 0; i < TEXTS; i++) {
        text.n = 0;
        make_value(&text, 0);
        if (i % 3)
            mutate(&text);
        char *exact = malloc(text.n ? text.n : 1); /* so that reading beyond it is seen */
        memcpy(exact, text.at, text.n);
        good += agree(exact, text.n);
        free(exact);
    }
    ck_assert_int_gt(good, TEXTS / 10);
    ck_assert_int_lt(good, TEXTS * 9 / 10);
    saga_buf_free(&text);
}
END_TEST

/* The cases that people argue about, one by one. */
START_TEST(agrees_with_jansson_on_the_classics)
{
    static const char *const texts[] = {"",
                                        " ",
                                        "\xef\xbb\xbf{}",
                                        "nul",
                                        "nulll",
                                        "truefalse",
                                        "{}{}",
                                        "[1,]",
                                        "[,1]",
                                        "{\"a\":1,}",
                                        "{,}",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{a:1}",
                                        "{'a':1}",
                                        "[1 2]",
                                        "[1:2]",
                                        "{\"a\",1}",
                                        "[",
                                        "{",
                                        "]",
                                        "}",
                                        "[}",
                                        "{]",
                                        "\"",
                                        "\"\\",
                                        "\"\\u",
                                        "\"\\u12",
                                        "\"\\ud83d\\u0041\"",
                                        "\"\\ud83d\\ude00\"",
                                        "\"\\x41\"",
                                        "\"\t\"",
                                        "00",
                                        "0x10",
                                        "1e",
                                        "1e+",
                                        "-",
                                        "--1",
                                        "1.e3",
                                        "NaN",
                                        "Infinity",
                                        "[1]//",
                                        "/**/1",
                                        "\f1",
                                        "\v1",
                                        "{\"\":1}",
                                        "{\"\":1,\"\":2}",
                                        "{\"a\":1,\"\\u0061\":2}",
                                        "{\"a\":{\"b\":1},\"c\":{\"b\":1}}",
                                        "-0",
                                        "0.0",
                                        "[[],{}]",
                                        "{\"a\":[{\"a\":1}]}",
                                        "\"\xf0\x9f\x98\x80\"",
                                        "\"\xed\xa0\x80\""};
    int good = 0;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        good += agree(texts[i], strlen(texts[i]));
    ck_assert_int_eq(good, 8);
    agree("\"a\0b\"", 5);
    agree("[1]\0", 4);
}
END_TEST

/* ---- Limits ---- */

/* 16 levels are read, 17 are not, whatever brackets they are made of. */
START_TEST(depth_ends_at_16)
{
    for (int depth = 16; depth <= 17; depth++)
        for (int objects = 0; objects < 2; objects++) {
            struct saga_buf text = {0};
            for (int i = 0; i < depth; i++)
                saga_buf_str(&text, objects ? "{\"a\":" : "[");
            saga_buf_str(&text, "1");
            for (int i = 0; i < depth; i++)
                saga_buf_str(&text, objects ? "}" : "]");
            ck_assert_int_eq(is_json(text.at, text.n), depth == 16);
            saga_buf_free(&text);
        }
    ck_assert(strstr(err.text, "nested too deeply"));
    ck_assert(IS_JSON("[[[[[[[[[[[[[[[[]],[[]]]]]]]]]]]]]]]]")); /* closing gives levels back */
}
END_TEST

static void members(struct saga_buf *text, int n, int twice)
{
    text->n = 0;
    for (int i = 0; i < n; i++)
        saga_buf_printf(text, "%c\"m%d\":%d", i ? ',' : '{', i == n - 1 ? twice : i, i);
    saga_buf_str(text, "}");
}

/* A second member of the same name is refused in an object of any size, at whatever distance. */
START_TEST(duplicates_are_refused)
{
    struct saga_buf text = {0};
    static const int sizes[] = {2, 3, 15, 16, 17, 18, 33, 1000, 5000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        int n = sizes[i];
        members(&text, n, n - 1);
        ck_assert(is_json(text.at, text.n));
        members(&text, n, 0);
        ck_assert(!is_json(text.at, text.n));
        ck_assert(strstr(err.text, "m0 stands twice"));
        members(&text, n, n - 2);
        ck_assert(!is_json(text.at, text.n));
    }
    ck_assert(!IS_JSON("{\"x\":{\"a\":1,\"b\":[{\"c\":1,\"c\":1}]}}"));
    ck_assert(!IS_JSON("{\"\\u0061\":1,\"a\":1}"));   /* spelled in two ways */
    ck_assert(!IS_JSON("{\"a\":{\"b\":1},\"a\":1}")); /* with an object between */
    ck_assert(IS_JSON("{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":1},{\"a\":1}]}"));
    saga_buf_free(&text);
}
END_TEST

/* Integers are read up to 64 bits; what has a fraction or an exponent is none. */
START_TEST(integers_are_exact)
{
    static const struct {
        const char *text;
        bool ok;
        int64_t v;
    } rows[] = {{"0", true, 0},
                {"-0", true, 0},
                {"9223372036854775807", true, INT64_MAX},
                {"9223372036854775808", false, 0},
                {"-9223372036854775808", true, INT64_MIN},
                {"-9223372036854775809", false, 0},
                {"99999999999999999999", false, 0},
                {"999999999999999999", true, INT64_C(999999999999999999)},
                {"1234567890123456789", true, INT64_C(1234567890123456789)},
                {"3.0", false, 0},
                {"1e3", false, 0},
                {"1E0", false, 0},
                {"01", false, 0},
                {"+1", false, 0},
                {"", false, 0},
                {"-", false, 0},
                {"\"1\"", false, 0},
                {"true", false, 0},
                {"1x", false, 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct saga_json j;
        int64_t v = 0;
        start(&j, rows[i].text, strlen(rows[i].text));
        saga_json_int(&j, &v);
        ck_assert_msg((saga_json_end(&j) == 0) == rows[i].ok, "%s: %s", rows[i].text, err.text);
        if (rows[i].ok)
            ck_assert_int_eq(v, rows[i].v);
    }
}
END_TEST

/* After the first error nothing is read any more, and the error is the first one. */
START_TEST(an_error_stays)
{
    struct saga_json j;
    struct saga_span name;
    const char *s;
    size_t n;
    int64_t v = 7;
    start(&j, "{\"a\":x,\"b\":1}", 13);
    ck_assert(saga_json_open(&j, '{') && saga_json_member(&j, &name));
    ck_assert(!saga_json_int(&j, &v));
    ck_assert_str_eq(err.text, "byte 5: an integer was expected");
    ck_assert(!saga_json_member(&j, &name) && !saga_json_member_if(&j, "b") &&
              !saga_json_item(&j) && !saga_json_open(&j, '{') && !saga_json_text(&j, &s, &n) &&
              !saga_json_skip(&j) && !saga_json_null(&j) && saga_json_peek(&j) == 0);
    ck_assert_int_eq(saga_json_refuse(&j, "late"), SAGA_POISON);
    ck_assert_int_eq(saga_json_end(&j), SAGA_POISON);
    ck_assert_str_eq(err.text, "byte 5: an integer was expected");
    ck_assert_int_eq(v, 7);
}
END_TEST

/* Going back to a mark reads the same again, names and strings included. */
START_TEST(a_mark_reads_again)
{
    struct saga_json j;
    struct saga_span name, raw;
    const char *s, *again;
    size_t n;
    start(&j, "{\"k\": {\"a\\n\":\"b\\tc\",\"d\":\"e\"} , \"l\":1}", 37);
    saga_json_open(&j, '{');
    saga_json_member(&j, &name);
    struct saga_json_mark mark = saga_json_mark(&j);
    for (int i = 0; i < 2; i++) {
        ck_assert(saga_json_open(&j, '{') && saga_json_member(&j, &name));
        ck_assert(name.n == 2 && memcmp(name.at, "a\n", 2) == 0);
        ck_assert(saga_json_text(&j, i ? &again : &s, &n) && n == 3);
        ck_assert_str_eq(i ? again : s, "b\tc");
        ck_assert(!saga_json_open(&j, '[') && j.bad);
        saga_json_rewind(&j, mark);
    }
    ck_assert(saga_json_raw(&j, &raw) && raw.n == 22 && *raw.at == '{');
    ck_assert(saga_json_member_if(&j, "l") && saga_json_skip(&j));
    ck_assert(!saga_json_member_if(&j, "m") && !saga_json_member(&j, &name));
    ck_assert_int_eq(saga_json_end(&j), 0);
}
END_TEST

Suite *json_suite(void)
{
    Suite *suite = suite_create("json");
    TCase *tests = tcase_create("json");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, NULL, clean);
    tcase_add_test(tests, agrees_with_jansson_on_generated_texts);
    tcase_add_test(tests, agrees_with_jansson_on_the_classics);
    tcase_add_test(tests, depth_ends_at_16);
    tcase_add_test(tests, duplicates_are_refused);
    tcase_add_test(tests, integers_are_exact);
    tcase_add_test(tests, an_error_stays);
    tcase_add_test(tests, a_mark_reads_again);
    suite_add_tcase(suite, tests);
    return suite;
}
