/* Fields tables at work: JSON in any order of members, limits at n and n + 1, errors by path;
 * copies and comparison; PostgreSQL's binary columns. On a table that has every type. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "field.h"
#include "suites.h"
#include "thing.h"

static struct saga_arena arena;
static struct saga_err err;

static void clean(void)
{
    saga_arena_reset(&arena);
    err = (struct saga_err){0};
}

static int read_text(const char *text, struct thing *out)
{
    struct saga_json j;
    *out = (struct thing){0};
    err.code = 0;
    saga_json_init(&j, text, strlen(text), &arena, &err);
    int rc = saga_fields_read(things, &j, "data", out, &arena, &err);
    return rc < 0 ? rc : saga_json_end(&j);
}

/* The smallest that is whole; members as pairs of name and value, so that a case may change one. */
static json_t *whole(void)
{
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:b, s:s, s:{}, s:[{s:s, s:i}]}", "id", "a-1",
                     "text", "text", "code", "EU", "count", 0, "at", "2026-11-24T09:51:25Z", "flag",
                     0, "colour", "red", "inner", "parts", "sku", "apple", "n", 1);
}

static int read_json(json_t *value, struct thing *out)
{
    char *text = json_dumps(value, JSON_COMPACT);
    int rc = read_text(text, out);
    free(text);
    return rc;
}

/* The whole with one member changed (value is JSON; NULL: left out). -> NULL: read; or the error.
 */
static const char *changed(const char *name, const char *value)
{
    struct thing out;
    json_t *object = whole();
    if (value) {
        json_t *part = json_loads(value, JSON_DECODE_ANY, NULL);
        ck_assert_ptr_nonnull(part);
        json_object_set_new(object, name, part);
    } else {
        json_object_del(object, name);
    }
    int rc = read_json(object, &out);
    json_decref(object);
    ck_assert(rc == 0 || (rc == SAGA_POISON && err.code == SAGA_POISON));
    return rc == 0 ? NULL : err.text;
}

#define READ(name, value)         ck_assert_ptr_null(changed(name, value))
#define REFUSED(name, value, why) ck_assert_str_eq(changed(name, value), why)

/* ---- Limits and errors ---- */

/* Each type is refused with its path and value just outside its limits, and read just inside. */
START_TEST(limits)
{
    char id[80] = "\"";
    READ("count", "-5");
    READ("count", "5");
    REFUSED("count", "-6", "data.count: -6 is below -5");
    REFUSED("count", "6", "data.count: 6 is above 5");
    REFUSED("count", "3.0", "data.count: 3.0 is not an integer");
    REFUSED("count", "1e0", "data.count: 1.0 is not an integer"); /* as jansson spells it */
    REFUSED("count", "\"3\"", "data.count: \"3\" is not an integer");
    REFUSED("count", "null", "data.count: null is not an integer");

    memset(id + 1, 'x', 64);
    strcpy(id + 65, "\"");
    READ("id", id);
    strcpy(id + 65, "x\"");
    REFUSED("id", id, "data.id: a text of 65 bytes is not 1 to 64 of A-Z a-z 0-9 . _ : -");
    READ("id", "\"AZaz09._:-\"");
    REFUSED("id", "\"\"", "data.id: \"\" is not 1 to 64 of A-Z a-z 0-9 . _ : -");
    REFUSED("id", "\"a b\"", "data.id: \"a b\" is not 1 to 64 of A-Z a-z 0-9 . _ : -");
    REFUSED("id", "\"é\"", "data.id: \"é\" is not 1 to 64 of A-Z a-z 0-9 . _ : -");
    REFUSED("id", "17", "data.id: 17 is not a string");

    READ("text", "\"ab\"");
    READ("text", "\"é😀\""); /* two characters, whatever their bytes */
    READ("text", "\"😀😀😀😀\"");
    REFUSED("text", "\"é\"", "data.text: 1 characters are less than 2");
    REFUSED("text", "\"abcde\"", "data.text: 5 characters are more than 4");
    REFUSED("text", "\"😀😀😀😀😀\"", "data.text: 5 characters are more than 4");
    REFUSED("text", "{}", "data.text: {} is not a string");

    READ("code", "\"AZ\"");
    READ("code", "\"EUR\"");
    REFUSED("code", "\"E\"", "data.code: \"E\" is not 2 to 3 capital letters");
    REFUSED("code", "\"EURO\"", "data.code: \"EURO\" is not 2 to 3 capital letters");
    REFUSED("code", "\"EuR\"", "data.code: \"EuR\" is not 2 to 3 capital letters");

    READ("colour", "\"green\"");
    REFUSED("colour", "\"blue\"", "data.colour: \"blue\" is not one of red green");
    READ("flag", "true");
    REFUSED("flag", "0", "data.flag: 0 is not true or false");
    READ("at", "\"2026-11-24T11:51:25.123456+02:00\"");
    REFUSED("at", "\"yesterday\"",
            "data.at: \"yesterday\" is not a time like 2026-11-24T13:31:25.123Z");

    READ("parts", "[{\"sku\":\"a\",\"n\":1},{\"sku\":\"b\",\"n\":10},{\"sku\":\"c\",\"n\":1}]");
    REFUSED("parts", "[]", "data.parts: 0 items are less than 1");
    REFUSED("parts",
            "[{\"sku\":\"a\",\"n\":1},{\"sku\":\"b\",\"n\":1},{\"sku\":\"c\",\"n\":1},{\"x\":1}]",
            "data.parts: more than 3 items");
    REFUSED("parts", "[{\"sku\":\"a\",\"n\":1},{\"sku\":\"b\",\"n\":0}]",
            "data.parts[1].n: 0 is below 1");
    REFUSED("parts", "[{\"n\":1}]", "data.parts[0].sku: it is missing");
    REFUSED("parts", "[1]", "data.parts[0]: 1 is not an object");
    REFUSED("parts", "{}", "data.parts: {} is not an array");
    REFUSED("inner", "{\"note\":\"123456\"}", "data.inner.note: 6 characters are more than 5");
    REFUSED("inner", "[]", "data.inner: [] is not an object");
}
END_TEST

/* Each member that is not optional is missed; optional ones may be left out or null. */
START_TEST(missing_members)
{
    char expected[80];
    for (const struct saga_field *f = things; f->name; f++) {
        snprintf(expected, sizeof(expected), "data.%s: it is missing", f->name);
        if (f->optional) {
            READ(f->name, NULL);
            READ(f->name, "null");
        } else {
            REFUSED(f->name, NULL, expected);
            ck_assert_ptr_nonnull(changed(f->name, "null"));
        }
    }
    READ("maybe", "\"\"");
    READ("maybe_kind", "\"\"");
    REFUSED("maybe_count", "false", "data.maybe_count: false is not an integer");
}
END_TEST

/* Unknown members are ignored, but they must be JSON, and stand once, as the known ones. */
START_TEST(unknown_members)
{
    struct thing out;
    struct saga_buf text = {0};
    json_auto_t *all = whole();
    char *object = json_dumps(all, JSON_COMPACT);
    static const struct {
        const char *more;
        bool ok;
    } rows[] = {{"\"x\":[1,{\"y\":null}]", true},
                {"\"x\":1,\"z\":2", true},
                {"\"x\":1,\"x\":2", false},
                {"\"x\":{\"y\":1,\"y\":1}", false},
                {"\"x\":01", false},
                {"\"x\":", false},
                {"\"id\":\"b\"", false},
                {"\"i\\u0064\":\"b\"", false},
                {"\"idx\":1,\"i\":1,\"\":1", true},
                {"\"maybe\":null,\"maybe\":null", false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        for (int first = 0; first < 2; first++) {
            text.n = 0;
            if (first)
                saga_buf_printf(&text, "{%s,%s", rows[i].more, object + 1);
            else
                saga_buf_printf(&text, "%.*s,%s}", (int)strlen(object) - 1, object, rows[i].more);
            ck_assert_msg((read_text(text.at, &out) == 0) == rows[i].ok, "%s: %s", text.at,
                          err.text);
        }
    free(object);
    saga_buf_free(&text);
}
END_TEST

/* Without a prefix the path begins with the member, and the whole is named by its value alone. */
START_TEST(paths_without_prefix)
{
    struct saga_json j;
    struct thing out;
    static const struct {
        const char *text, *why;
    } rows[] = {{"{\"parts\":[{\"sku\":\"a\",\"n\":11}]}", "parts[0].n: 11 is above 10"},
                {"{}", "id: it is missing"},
                {"[1]", "[1] is not an object"},
                {"{\"id\":\"a\",\"id\":\"a\"}", "id: it stands twice"},
                {"{\"id\":}", "byte 6: a value was expected"},
                {"{\"count\":1", "byte 10: a comma or } was expected, but the text ends"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct saga_err apart = {0}; /* the reader's own record gets the same */
        err.code = 0;
        saga_json_init(&j, rows[i].text, strlen(rows[i].text), &arena, &apart);
        ck_assert_int_eq(saga_fields_read(things, &j, "", &out, &arena, &err), SAGA_POISON);
        ck_assert_str_eq(err.text, rows[i].why);
        ck_assert_str_eq(apart.text, rows[i].why);
        ck_assert_int_eq(saga_json_end(&j), SAGA_POISON);
    }
}
END_TEST

/* The key stands among the members, wherever, once, and within the limits of an id. */
START_TEST(the_key)
{
    static const struct saga_field one[] = {{"n", offsetof(struct part, n), SAGA_INT, 1, 10}, {0}};
    static const struct {
        const char *text, *key, *why;
    } rows[] = {
        {"{\"order_id\":\"ord-1\",\"n\":1}", "ord-1", NULL},
        {"{\"n\":1,\"order_id\":\"ord-1\"}", "ord-1", NULL},
        {"{\"n\":1,\"order_id\":null}", NULL, NULL},
        {"{\"n\":1}", NULL, NULL},
        {"{\"order_id\":\"a b\"}", NULL,
         "data.order_id: \"a b\" is not 1 to 64 of A-Z a-z 0-9 . _ : -"},
        {"{\"order_id\":\"a\",\"order_id\":\"a\"}", NULL, "data.order_id: it stands twice"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct saga_json j;
        struct part out = {0};
        const char *key = NULL;
        err.code = 0;
        saga_json_init(&j, rows[i].text, strlen(rows[i].text), &arena, &err);
        int rc = saga_fields_read_keyed(one, &j, "data", &key, &out, &arena, &err);
        ck_assert_int_eq(rc, rows[i].why ? SAGA_POISON : 0);
        if (rows[i].why)
            ck_assert_str_eq(err.text, rows[i].why);
        else if (rows[i].key)
            ck_assert_str_eq(key, rows[i].key);
        else
            ck_assert_ptr_null(key);
    }
}
END_TEST

/* ---- Generated structs ---- */

static char *write_thing(const struct thing *t)
{
    struct saga_buf out = {0};
    saga_buf_str(&out, "{");
    saga_fields_write(things, t, &out);
    saga_buf_add(&out, "}", 2);
    return out.at;
}

/* The members of a JSON object in any order, at every level. */
static void shuffled(const json_t *value, struct saga_buf *out)
{
    if (json_is_object(value)) {
        const char *name[32], *key;
        json_t *part;
        unsigned n = 0;
        json_object_foreach((json_t *)value, key, part) if (part) name[n++] = key;
        saga_buf_str(out, "{ ");
        for (const char *comma = ""; n; comma = " ,") {
            unsigned i = thing_number(n);
            saga_buf_printf(out, "%s\"%s\" :", comma, name[i]);
            shuffled(json_object_get(value, name[i]), out);
            name[i] = name[--n];
        }
        saga_buf_str(out, "}");
    } else if (json_is_array(value)) {
        size_t i;
        json_t *part;
        saga_buf_str(out, "[");
        json_array_foreach(value, i, part)
        {
            saga_buf_str(out, i ? "," : "");
            shuffled(part, out);
        }
        saga_buf_str(out, "]");
    } else {
        char *text = json_dumps(value, JSON_ENCODE_ANY | (thing_number(2) ? JSON_ENSURE_ASCII : 0));
        saga_buf_str(out, text);
        free(text);
    }
}

static void same_text(const json_t *object, const char *name, const char *s)
{
    const char *is = json_string_value(json_object_get(object, name));
    ck_assert_msg((!s && !is) || (s && is && strcmp(s, is) == 0), "%s: %s, not %s", name, is, s);
}

/* What is written is what stands in the struct, says jansson; it is read back equal, in the order
 * written and in any other, with escapes or without; and a copy of it has nothing of the original.
 */
START_TEST(structs_are_read_back)
{
    thing_seed = 7;
    for (int round = 0; round < 3000; round++) {
        struct thing t = thing_any(&arena), back;
        char *text = write_thing(&t);
        json_t *theirs = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        ck_assert_msg(theirs, "%s", text);
        same_text(theirs, "id", t.id);
        same_text(theirs, "text", t.text);
        same_text(theirs, "colour", thing_colours[t.colour]);
        same_text(theirs, "maybe", t.maybe);
        same_text(theirs, "maybe_kind", t.maybe_kind ? thing_kinds[t.maybe_kind] : NULL);
        same_text(json_object_get(theirs, "inner"), "note", t.inner.note);
        ck_assert_int_eq(json_integer_value(json_object_get(theirs, "count")), t.count);
        ck_assert_int_eq(json_integer_value(json_object_get(theirs, "maybe_count")), t.maybe_count);
        ck_assert_int_eq(json_is_true(json_object_get(theirs, "flag")), t.flag);
        ck_assert_int_eq(json_array_size(json_object_get(theirs, "parts")), t.parts.n);
        ck_assert_int_eq(json_array_size(json_object_get(theirs, "maybe_parts")), t.maybe_parts.n);

        ck_assert_msg(read_text(text, &back) == 0, "%s: %s", text, err.text);
        ck_assert_msg(saga_fields_equal(things, &t, &back), "%s", text);
        struct saga_buf other = {0};
        shuffled(theirs, &other);
        saga_buf_add(&other, "", 1);
        ck_assert_msg(read_text(other.at, &back) == 0, "%s: %s", other.at, err.text);
        ck_assert_msg(saga_fields_equal(things, &t, &back), "%s and %s", text, other.at);

        struct saga_arena apart = {0};
        struct thing *copy = saga_fields_copy(things, sizeof(t), &t, &apart);
        for (int i = 0; i < t.parts.n; i++) {
            memset((char *)t.parts.at[i].sku, 'X', 5);
            t.parts.at[i] = (struct part){0};
        }
        memset((char *)t.text, 'X', strlen(t.text));
        t = (struct thing){0};
        char *again = write_thing(copy);
        ck_assert_str_eq(again, text);
        saga_arena_free(&apart);
        saga_buf_free(&other);
        json_decref(theirs);
        free(text);
        free(again);
        clean();
    }
}
END_TEST

/* Structs differ by any of their fields, at any depth, and by nothing that is no field. */
START_TEST(every_field_counts)
{
    struct part parts[2] = {{"a", 1}, {"b", 2}}, others[2] = {{"a", 1}, {"b", 3}};
    struct thing a = {.id = "a", .text = "tt", .code = "EUR", .parts = {2, parts}}, b = a;
    char same[] = "a";
    b.id = same;
    ck_assert(saga_fields_equal(things, &a, &b));
#define DIFFERS(member, value)                                                                     \
    b = a;                                                                                         \
    b.member = value;                                                                              \
    ck_assert(!saga_fields_equal(things, &a, &b) && !saga_fields_equal(things, &b, &a))
    DIFFERS(id, "b");
    DIFFERS(text, NULL);
    DIFFERS(maybe, "");
    DIFFERS(code, "EU");
    DIFFERS(count, 1);
    DIFFERS(at, 1);
    DIFFERS(flag, true);
    DIFFERS(colour, 1);
    DIFFERS(inner.kind, 1);
    DIFFERS(maybe_inner.note, "n");
    DIFFERS(parts.n, 1);
    DIFFERS(parts.at, others);
    const struct saga_field none[] = {{0}};
    ck_assert(saga_fields_equal(none, &a, &b));
    ck_assert_ptr_nonnull(saga_fields_copy(none, 0, NULL, &arena));
}
END_TEST

Suite *field_suite(void)
{
    Suite *suite = suite_create("field");
    TCase *tests = tcase_create("field");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, NULL, clean);
    tcase_add_test(tests, limits);
    tcase_add_test(tests, missing_members);
    tcase_add_test(tests, unknown_members);
    tcase_add_test(tests, paths_without_prefix);
    tcase_add_test(tests, the_key);
    tcase_add_test(tests, structs_are_read_back);
    tcase_add_test(tests, every_field_counts);
    suite_add_tcase(suite, tests);
    return suite;
}
