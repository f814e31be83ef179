/* Attack 42 of ATTACKS.md: the limits as written, at n and n + 1, and no event that a reader
 * refuses (invariants.c reads each). */
#include <stdio.h>

#include "play.h"
#include "suites.h"

static struct sim_world w;

static void begin(void)
{
    sim_init(&w, true);
    sim_stock(&w, "apple", 1000);
}

static void end(void)
{
    play_settle(&w);
    check_end(&w);
    ck_assert_msg(!w.failed[0], "%s\n%.*s", w.failed, (int)w.trace.n, w.trace.at);
    sim_free(&w);
}

static const char nameless[] =
    "{\"type\":\"PlaceOrder\",\"customer_id\":\"c\",\"currency\":\"EUR\","
    "\"lines\":[{\"sku\":\"apple\",\"quantity\":1,\"unit_price\":100}],"
    "\"payment\":{\"token\":\"tok_ok\"}}";

static void text_of(struct saga_buf *out, const char *text, int n)
{
    while (n--)
        saga_buf_str(out, text);
    saga_buf_add(out, "", 1);
}

static void ask_with(const char *type, const char *member, const char *text, int n)
{
    struct saga_buf more = {0};

    saga_buf_printf(&more, "{\"type\":\"%s\",\"order_id\":\"a\",\"%s\":\"", type, member);
    text_of(&more, text, n);
    more.n--;
    saga_buf_add(&more, "\"}", 3);
    sim_request(&w, -1, "a", more.at);
    saga_buf_free(&more);
    play_run(&w, ORDER, REQUESTS);
}

/* A reason that is too long is refused; the longest travels, whatever it is written with. */
START_TEST(attack_42_reason)
{
    play_place(&w, "a", "apple 1", "now tok_ok");
    play_run(&w, ORDER, ALL);
    ask_with("CancelOrder", "reason", "x", 64 * 1024);
    ask_with("CancelOrder", "reason", "x", 257);
    ck_assert_int_eq(w.dead, 2);
    ask_with("CancelOrder", "reason", "\\u0001", 256);
    play_settle(&w);
    ck_assert_str_eq(sim_state(&w, ORDER, "a"), "CANCELLED");
    ck_assert_int_eq(w.dead, 2);
}
END_TEST

START_TEST(attack_42_order_id)
{
    struct saga_buf key = {0};

    text_of(&key, "k", 64);
    play_place(&w, key.at, "apple 1", "now tok_ok");
    play_settle(&w);
    ck_assert_str_eq(sim_state(&w, ORDER, key.at), "PAID");
    key.n--;
    saga_buf_add(&key, "k", 2);
    play_place(&w, key.at, "apple 1", "now tok_ok");
    play_settle(&w);
    ck_assert_int_eq(w.dead, 1);
    saga_buf_free(&key);
}
END_TEST

static void place_lines(const char *key, int n, const char *price)
{
    struct saga_buf value = {0};

    saga_buf_printf(&value,
                    "{\"type\":\"PlaceOrder\",\"order_id\":\"%s\",\"customer_id\":\"c\","
                    "\"currency\":\"EUR\",\"payment\":{\"token\":\"tok_ok\"},\"lines\":[",
                    key);
    for (int i = 0; i < n; i++)
        saga_buf_printf(&value, "%s{\"sku\":\"%064d\",\"quantity\":1000000,\"unit_price\":%s}",
                        i ? "," : "", i, price);
    saga_buf_add(&value, "]}", 3);
    sim_request(&w, -1, key, value.at);
    saga_buf_free(&value);
    play_settle(&w);
}

START_TEST(attack_42_lines)
{
    char sku[80];

    for (int i = 0; i < 101; i++) {
        snprintf(sku, sizeof sku, "%064d", i);
        sim_stock(&w, sku, 10000000);
    }
    place_lines("a", 100, "1");
    ck_assert_str_eq(sim_state(&w, ORDER, "a"), "PAID");
    place_lines("b", 101, "1");
    ck_assert_int_eq(w.dead, 1);
    place_lines("c", 100, "10000000"); /* 10^15 in all */
    ck_assert_str_eq(sim_state(&w, ORDER, "c"), "PAID");
    ck_assert_int_eq(w.dead, 1);
    place_lines("d", 100, "10000001");
    ck_assert_int_eq(w.dead, 2);
    place_lines("e", 100, "1000000000000"); /* overflows 64 bits */
    ck_assert_int_eq(w.dead, 3);
    place_lines("f", 1, "1000000000001");
    ck_assert_int_eq(w.dead, 4);
}
END_TEST

/* A request of 64 KiB may be misplaced: its forward is longer and still good. One byte more is a
 * dead letter where it stands. */
START_TEST(attack_42_longest_forward)
{
    struct saga_buf value = {0};

    for (int over = 0; over <= 1; over++) {
        value.n = 0;
        saga_buf_str(&value, "{\"pad\":\"");
        while (value.n < 64 * 1024 - strlen(nameless) - 1 + (size_t)over)
            saga_buf_add(&value, "x", 1);
        saga_buf_str(&value, "\",");
        saga_buf_add(&value, nameless + 1, sizeof nameless - 1);
        ck_assert_uint_eq(strlen(value.at), 64 * 1024 + (size_t)over);
        for (int i = 0; i < 8; i++) /* some of them belong to another lane */
            sim_request(&w, 0, NULL, value.at);
        play_settle(&w);
        ck_assert_int_eq(w.dead, over * 8);
    }
    ck_assert_int_gt(w.forwards, 0);
    ck_assert_int_eq(w.tales, 8);
    saga_buf_free(&value);
}
END_TEST

Suite *limits_suite(void)
{
    Suite *suite = suite_create("limits");
    TCase *t = tcase_create("42");

    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, attack_42_reason);
    tcase_add_test(t, attack_42_order_id);
    tcase_add_test(t, attack_42_lines);
    tcase_add_test(t, attack_42_longest_forward);
    suite_add_tcase(suite, t);
    return suite;
}
