/* Fields as columns in PostgreSQL's binary format. On a table that has every type. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "suites.h"
#include "thing.h"

static struct saga_arena arena;
static struct saga_err err;

static void clean(void)
{
    saga_arena_reset(&arena);
    err = (struct saga_err){0};
}

/* Every column is read back from what was written, null where it is optional and empty. */
START_TEST(columns_are_read_back)
{
    struct saga_buf out = {0};
    thing_seed = 11;
    for (int round = 0; round < 2000; round++) {
        struct thing t = thing_any(&arena), back;
        memset(&back, 0x55, sizeof(back)); /* a null must overwrite, too */
        for (const struct saga_field *f = things; f->name; f++) {
            out.n = 0;
            saga_column_write(f, &t, &out);
            int32_t n =
                (int32_t)((uint32_t)(unsigned char)out.at[0] << 24 |
                          (uint32_t)(unsigned char)out.at[1] << 16 |
                          (uint32_t)(unsigned char)out.at[2] << 8 | (unsigned char)out.at[3]);
            ck_assert_int_eq(out.n, 4 + (n < 0 ? 0 : n));
            char *exact = malloc(n > 0 ? (size_t)n : 1);
            memcpy(exact, out.at + 4, n > 0 ? (size_t)n : 0);
            err.code = 0;
            ck_assert_msg(saga_column_read(f, exact, n, &back, &arena, &err) == 0, "%s: %s",
                          f->name, err.text);
            free(exact);
        }
        ck_assert(saga_fields_equal(things, &t, &back));
        clean();
    }
    saga_buf_free(&out);
}
END_TEST

static const struct saga_field *field(const char *name)
{
    const struct saga_field *f = things;
    while (strcmp(f->name, name) != 0)
        f++;
    return f;
}

/* The bytes are those of PostgreSQL's send and receive functions. */
START_TEST(columns_are_postgresqls)
{
    struct part one = {"a", 1};
    struct thing t = {.id = "ab",
                      .count = -2,
                      .at = INT64_C(946684800000001),
                      .flag = true,
                      .colour = 1,
                      .parts = {1, &one}};
    static const struct {
        const char *name;
        uint32_t oid, array;
        size_t n;
        const char *bytes;
    } rows[] = {{"id", 25, 1009, 6, "\0\0\0\2ab"},
                {"count", 20, 1016, 12, "\0\0\0\10\377\377\377\377\377\377\377\376"},
                {"at", 1184, 1185, 12, "\0\0\0\10\0\0\0\0\0\0\0\1"},
                {"flag", 16, 1000, 5, "\0\0\0\1\1"},
                {"colour", 25, 1009, 9, "\0\0\0\5green"},
                {"parts", 114, 199, 23, "\0\0\0\23[{\"sku\":\"a\",\"n\":1}]"},
                {"inner", 114, 199, 6, "\0\0\0\2{}"},
                {"maybe", 25, 1009, 4, "\377\377\377\377"},
                {"maybe_at", 1184, 1185, 4, "\377\377\377\377"},
                {"maybe_kind", 25, 1009, 4, "\377\377\377\377"},
                {"maybe_inner", 114, 199, 4, "\377\377\377\377"},
                {"maybe_parts", 114, 199, 4, "\377\377\377\377"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct saga_buf out = {0};
        const struct saga_field *f = field(rows[i].name);
        saga_column_write(f, &t, &out);
        ck_assert_msg(out.n == rows[i].n && memcmp(out.at, rows[i].bytes, out.n) == 0, "%s",
                      rows[i].name);
        ck_assert_uint_eq(saga_column_oid(f), rows[i].oid);
        ck_assert_uint_eq(saga_column_array_oid(f), rows[i].array);
        saga_buf_free(&out);
    }
}
END_TEST

/* Smaller integers are read as they are; what this program cannot have written is refused. */
START_TEST(columns_of_others)
{
    struct thing t;
    static const struct {
        const char *name, *bytes;
        int n;
        const char *why; /* NULL: read */
    } rows[] = {
        {"count", "\377\376", 2, NULL},
        {"count", "\377\377\377\376", 4, NULL},
        {"count", "\0\0\0\6", 4, "column count: 6 is above 5"},
        {"count", "\0", 1, "column count: not an integer of 2, 4 or 8 bytes"},
        {"at", "\177\377\377\377\377\377\377\377", 8, "column at: not a time"},
        {"at", "\200\0\0\0\0\0\0\0", 8, "column at: not a time"},
        {"at", "\0\0\0\0", 4, "column at: not a time"},
        {"flag", "", 0, "column flag: not a boolean"},
        {"colour", "blue", 4, "column colour: \"blue\" is not one of red green"},
        {"code", "x", 1, "column code: \"x\" is not 2 to 3 capital letters"},
        {"parts", "", 0, "byte 0: a value was expected, but the text ends"},
        {"parts", "[]", 2, "parts: 0 items are less than 1"},
        {"parts", "[{\"n\":1}]", 9, "parts[0].sku: it is missing"},
        {"inner", "{}x", 3, "byte 2: something follows the value"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        err.code = 0;
        int rc = saga_column_read(field(rows[i].name), rows[i].bytes, rows[i].n, &t, &arena, &err);
        ck_assert_int_eq(rc, rows[i].why ? SAGA_POISON : 0);
        if (rows[i].why)
            ck_assert_str_eq(err.text, rows[i].why);
        else
            ck_assert_int_eq(t.count, -2);
    }
}
END_TEST

Suite *column_suite(void)
{
    Suite *suite = suite_create("column");
    TCase *tests = tcase_create("column");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, NULL, clean);
    tcase_add_test(tests, columns_are_read_back);
    tcase_add_test(tests, columns_are_postgresqls);
    tcase_add_test(tests, columns_of_others);
    suite_add_tcase(suite, tests);
    return suite;
}
