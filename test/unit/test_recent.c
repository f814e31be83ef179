/* Rows of recent orders in memory: what is found is what was put last, and nothing of a lane that was
 * forgotten, or of a row that was dropped, however old the copy. */
#include "recent.h"

#include <check.h>
#include <stdio.h>

#include "suites.h"

enum { LANES = 2, MANY = 5000 };

struct counter {
    struct saga_row row;
    int64_t n;
    const char *note;
};

#define T counter
static const struct saga_field columns[] = {{"key", offsetof(struct T, row.key), SAGA_ID},
                                            {SAGA_AT(struct T, n), SAGA_INT, 0, INT64_MAX},
                                            {SAGA_AT(struct T, note), SAGA_TEXT, 0, 100},
                                            {0}};
#undef T
static const struct saga_table table = {sizeof(struct counter), columns};

static struct saga_recent *recent;

static void start(void)
{
    recent = saga_recent_new(&table, LANES, 0); /* no room: each turn is one */
}

static void stop(void)
{
    saga_recent_free(recent);
}

static void put(int32_t lane, const char *key, int64_t n)
{
    char note[16];

    snprintf(note, sizeof note, "%lld", (long long)n);
    saga_recent_put(recent, lane, &(struct counter){.row.key = key, .n = n, .note = note});
}

/* -1: it is not there */
static int64_t get(int32_t lane, const char *key)
{
    const struct counter *c = saga_recent_get(recent, lane, key);
    char note[16];

    if (!c)
        return -1;
    snprintf(note, sizeof note, "%lld", (long long)c->n);
    ck_assert_str_eq(c->row.key, key);
    ck_assert_str_eq(c->note, note); /* a copy: what was put is long gone */
    ck_assert(c->row.stored && !c->row.changed);
    return c->n;
}

/* The newest copy is the one that is found, whichever generation the others are of. */
START_TEST(the_newest_copy_counts)
{
    put(0, "a", 1);
    ck_assert_int_eq(get(0, "a"), 1);
    put(0, "a", 2);
    ck_assert_int_eq(get(0, "a"), 2);
    saga_recent_turn(recent);
    ck_assert_int_eq(get(0, "a"), 2);
    put(0, "a", 3);
    ck_assert_int_eq(get(0, "a"), 3);
    ck_assert_int_eq(get(0, "b"), -1);
}
END_TEST

/* What was dropped does not come back, not even as an older copy. */
START_TEST(what_was_dropped_is_gone)
{
    put(0, "a", 1);
    saga_recent_turn(recent);
    put(0, "a", 2);
    saga_recent_drop(recent, 0, "a");
    ck_assert_int_eq(get(0, "a"), -1);
    put(0, "a", 3);
    ck_assert_int_eq(get(0, "a"), 3);
    saga_recent_turn(recent);
    saga_recent_drop(recent, 0, "a");
    ck_assert_int_eq(get(0, "a"), -1);
}
END_TEST

/* A lane that was another's is forgotten, in both generations, and it alone. */
START_TEST(a_forgotten_lane_is_empty)
{
    put(0, "a", 1), put(1, "b", 2);
    saga_recent_turn(recent);
    put(0, "c", 3), put(1, "d", 4);
    saga_recent_forget(recent, 1);
    ck_assert_int_eq(get(0, "a"), 1);
    ck_assert_int_eq(get(0, "c"), 3);
    ck_assert_int_eq(get(1, "b"), -1);
    ck_assert_int_eq(get(1, "d"), -1);
    put(1, "b", 5);
    ck_assert_int_eq(get(1, "b"), 5);
}
END_TEST

/* Memory is bounded: what nobody has put for two generations goes. */
START_TEST(old_rows_go)
{
    put(0, "a", 1);
    saga_recent_turn(recent);
    put(0, "b", 2);
    saga_recent_turn(recent);
    ck_assert_int_eq(get(0, "a"), -1);
    ck_assert_int_eq(get(0, "b"), 2);
}
END_TEST

/* Many rows, every third dropped: each of the others is found behind the marks. */
START_TEST(many_rows)
{
    char key[16];

    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof key, "o-%d", i);
        put(i % LANES, key, i);
    }
    for (int i = 0; i < MANY; i += 3) {
        snprintf(key, sizeof key, "o-%d", i);
        saga_recent_drop(recent, i % LANES, key);
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof key, "o-%d", i);
        ck_assert_int_eq(get(i % LANES, key), i % 3 ? i : -1);
    }
}
END_TEST

Suite *recent_suite(void)
{
    Suite *s = suite_create("recent");
    TCase *t = tcase_create("all");

    tcase_add_checked_fixture(t, start, stop);
    tcase_add_test(t, the_newest_copy_counts);
    tcase_add_test(t, what_was_dropped_is_gone);
    tcase_add_test(t, a_forgotten_lane_is_empty);
    tcase_add_test(t, old_rows_go);
    tcase_add_test(t, many_rows);
    suite_add_tcase(s, t);
    return s;
}
