/* Orders over HTTP, what needs no server: the order that a key names, what Prefer says, and that what is
 * refused is what the rules reject. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "order-svc/order_http.h"
#include "post.h"
#include "suites.h"

/* ---- Keys ---- */

/* For ever: another id for a key that was used before would be another order. */
START_TEST(a_key_names_the_same_order_for_ever)
{
    char id[ORDER_ID_TEXT], quoted[ORDER_ID_TEXT];

    ck_assert(order_id_of_key("8e03978e-40d5-43dd-bc93-6894a57f9324", id));
    ck_assert_str_eq(id, "8c3171d7-e544-51dc-82cd-c4f7c5cb2863");
    ck_assert(order_id_of_key("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", quoted));
    ck_assert_str_eq(quoted, id);
    ck_assert(order_id_of_key("\"", quoted)); /* a quote alone encloses nothing */
    ck_assert(order_id_of_key("8e03978e-40d5-43dd-bc93-6894a57f9325", quoted));
    ck_assert_str_ne(quoted, id);
}
END_TEST

START_TEST(a_key_is_visible_and_not_too_long)
{
    char id[ORDER_ID_TEXT], key[ORDER_KEY_MAX + 2];

    memset(key, 'k', sizeof key);
    key[ORDER_KEY_MAX] = '\0';
    ck_assert(order_id_of_key(key, id));
    key[ORDER_KEY_MAX] = 'k';
    key[ORDER_KEY_MAX + 1] = '\0';
    ck_assert(!order_id_of_key(key, id));
    static const char *const bad[] = {"", "\"\"", "a b", "a\tb", "\x7f", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!order_id_of_key(bad[i], id), "\"%s\"", bad[i]);
    ck_assert(order_id_of_key("!", id) && order_id_of_key("~", id));
}
END_TEST

/* ---- Prefer ---- */

/* RFC 7240: a list of preferences, the first of a name counts; what is not understood is ignored. */
START_TEST(prefer_says_how_long)
{
    static const struct {
        const char *prefer;
        int seconds;
    } table[] = {
        {"wait=10", 10},
        {"Wait = 7", 7},
        {"respond-async, wait=3", 3},
        {"respond-async,wait=3; x=y , foo", 3},
        {"wait=\"5\"", 5},
        {"wait=0", 0},
        {"wait=30", 30},
        {"wait=31", 30},
        {"wait=99999999999999999999", 30},
        {"wait=2, wait=9", 2},
        {"wait=x, wait=9", 9},
        {NULL, -1},
        {"", -1},
        {"wait", -1},
        {"wait=", -1},
        {"wait=-1", -1},
        {"wait=1.5", -1},
        {"wait=\"5", -1},
        {"wait=5\"", -1},
        {"waiting=5", -1},
        {"await=5", -1},
        {"x=\"wait=5\"", -1},
        {",,,", -1},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_msg(order_prefers_wait(table[i].prefer) == table[i].seconds, "%s: %d",
                      table[i].prefer, order_prefers_wait(table[i].prefer));
}
END_TEST

/* ---- What the rules would say ---- */

static struct line lines[] = {{"apple", 2, 150}};
static struct change history[] = {{CREATED, 1, NULL, "order.requests/7/1"}};

static const char *refused(enum state state, enum mode mode, const struct saga_event *request,
                           const void *data)
{
    static struct saga_arena arena;
    const struct sale sale = {.row = {.key = "ord-1",
                                      .lane = 7,
                                      .state = (int)state,
                                      .created = 1,
                                      .cause = "order.requests/7/1",
                                      .stored = true},
                              .order = {"ann", "EUR", 300, {1, lines}, {(int)mode, "tok_ok"}},
                              .history = {1, history}};
    const struct sale before = sale;

    saga_arena_reset(&arena);
    const char *reason =
        order_refusal(state == NONE ? NULL : &sale, "ord-1", request, data, &arena);
    ck_assert(memcmp(&sale, &before, sizeof sale) == 0);
    return reason ? reason : "-";
}

/* RULES.md, "Order": the cells of the four requests that reject; "-" is every other one. */
START_TEST(what_is_refused_is_what_the_rules_reject)
{
    static const struct pay pay = {"tok_ok"};
    static const struct reason reason = {NULL};
    static const struct shipping shipping = {NULL};
    static const char nothing[1];
    static const struct {
        const struct saga_event *request;
        const void *data;
        const char *by[COMPLETED + 1]; /* state, mode later */
    } table[] = {
        {&pay_order, &pay, {"unknown_order", "-", "-", "cancelled", "cancelled", "-", "-"}},
        {&cancel_order,
         &reason,
         {"unknown_order", "-", "-", "-", "-", "already_shipped", "already_shipped"}},
        {&ship_order,
         &shipping,
         {"unknown_order", "not_paid", "-", "cancelled", "cancelled", "-", "-"}},
        {&complete_order,
         nothing,
         {"unknown_order", "not_shipped", "not_shipped", "cancelled", "cancelled", "-", "-"}},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (int state = NONE; state <= COMPLETED; state++)
            ck_assert_str_eq(refused(state, LATER, table[i].request, table[i].data),
                             table[i].by[state]);
    ck_assert_str_eq(refused(CREATED, NOW, &pay_order, &pay), "payment_in_progress");
}
END_TEST

/* "Same content" is customer, currency, lines and payment. */
START_TEST(an_order_with_other_content_is_refused)
{
    struct line other = {"apple", 3, 150};
    const struct order same = {"ann", "EUR", 0, {1, lines}, {NOW, "tok_ok"}};
    struct order o[] = {same, same, same, same, same};

    o[0].customer_id = "bob";
    o[1].currency = "USD";
    o[2].lines.at = &other;
    o[3].payment.token = "tok_declined";
    o[4].payment.mode = LATER;
    for (int state = CREATED; state <= COMPLETED; state++) {
        ck_assert_str_eq(refused(state, NOW, &place_order, &same), "-");
        for (int i = 0; i < 5; i++)
            ck_assert_str_eq(refused(state, NOW, &place_order, &o[i]), "order_exists");
    }
    ck_assert_str_eq(refused(NONE, NOW, &place_order, &same), "-");
}
END_TEST

/* ---- Reports ---- */

/* DESIGN.md 4.3: librdkafka reports -1001, or -1, 0, 1..., for what it only infers to be delivered: at most
 * for so many as are under way then. */
START_TEST(an_inferred_offset_is_not_believed)
{
    static const struct {
        int64_t offset;
        int under_way;
        bool good;
    } reports[] = {{0, 0, true},   {1, 0, true},      {5, 9, true},  {-1, 2, false}, {0, 1, false},
                   {1, 0, false},  {9, 9, true},      {8, 9, false}, {9, 9, true},   {-1, 2, false},
                   {0, 1, false},  {10, 9, true},     {1, 9, false}, {2, 9, true},   {3, 9, true},
                   {-1, 0, false}, {-1001, 1, false}, {5, 0, true},  {5, 9, false},  {6, 9, true}};
    struct saga_reported r = {0};

    for (size_t i = 0; i < sizeof reports / sizeof *reports; i++)
        ck_assert_msg(saga_reported_believe(&r, reports[i].offset, reports[i].under_way) ==
                          reports[i].good,
                      "%zu", i);
    struct saga_reported fresh = {0};
    ck_assert(!saga_reported_believe(&fresh, -1, 1));
    ck_assert(!saga_reported_believe(&fresh, 0, 9));
    ck_assert(saga_reported_believe(&fresh, 1, 9));
}
END_TEST

Suite *ask_suite(void)
{
    Suite *s = suite_create("ask");
    TCase *t = tcase_create("all");

    tcase_add_test(t, a_key_names_the_same_order_for_ever);
    tcase_add_test(t, a_key_is_visible_and_not_too_long);
    tcase_add_test(t, prefer_says_how_long);
    tcase_add_test(t, what_is_refused_is_what_the_rules_reject);
    tcase_add_test(t, an_order_with_other_content_is_refused);
    tcase_add_test(t, an_inferred_offset_is_not_believed);
    suite_add_tcase(s, t);
    return s;
}
