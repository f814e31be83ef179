/* The inventory's rules: every cell of RULES.md's table, transcribed here once more, and what the
 * cells do to stock, movements and events. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "deciding.h"
#include "inventory.h"
#include "suites.h"

static const struct saga_service service = {.name = "inventory",
                                            .states = inventory_states,
                                            .rules = inventory_rules,
                                            .emits = inventory_emits,
                                            .orders = &reservation_table,
                                            .shared = &stock_table,
                                            .log = &movement_table,
                                            .names = inventory_names};
static struct saga_batch b;

/* ---- The world ---- */

static void start(void)
{
    deciding_start(&b, &service);
}

static void stop(void)
{
    saga_batch_free(&b);
}

static struct stock *stock_of(const char *sku)
{
    return deciding_row(&b, &b.shared, sku);
}

static void put_stock(const char *sku, int64_t available, int64_t reserved)
{
    struct stock *s = stock_of(sku);

    s->available = available;
    s->reserved = reserved;
    s->received = available + reserved;
    s->version = 1;
    s->row.stored = true;
}

static void check_stock(const char *sku, int64_t available, int64_t reserved, int64_t shipped)
{
    const struct stock *s = stock_of(sku);

    ck_assert_int_eq(s->available, available);
    ck_assert_int_eq(s->reserved, reserved);
    ck_assert_int_eq(s->shipped, shipped);
    ck_assert_int_eq(s->received, available + reserved + shipped);
}

static struct reservation *reservation_of(const char *order)
{
    return deciding_row(&b, &b.orders, order);
}

static struct line two[] = {{"apple", 2, 100}, {"pear", 3, 10}};
static const struct order of_two = {"ada", "EUR", 230, {2, two}, {NOW, "tok_ok"}};

static void put_reservation(const char *order, enum state state)
{
    struct reservation *r = reservation_of(order);

    r->row.state = state;
    r->row.stored = state != NONE;
    if (state == HELD || state == RELEASED || state == SHIPPED)
        r->lines = of_two.lines;
}

static void create(const char *order, const struct order *data)
{
    deciding_add(&b, SAGA_IN_EVENT, order, &order_created, data, "3.1.1");
}

static struct order order_of(struct line *lines, int n)
{
    return (struct order){"ada", "EUR", 1, {n, lines}, {NOW, "tok_ok"}};
}

static const struct movement *movement(int i)
{
    ck_assert_int_lt(i, b.log_n);
    return b.log[i];
}

/* ---- RULES.md, "Inventory", cell by cell ---- */

/* "-": nothing; "!": impossible; else the next state, the event and the movement of each line. */
static const struct {
    const struct saga_event *input;
    const char *cell[5]; /* NONE, HELD, FAILED, RELEASED, SHIPPED */
} table[] = {
    {&order_created, {"HELD InventoryReserved reserved", "!", "!", "-", "!"}},
    {&payment_failed, {"!", "RELEASED InventoryReleased released", "!", "!", "!"}},
    {&payment_voided,
     {"RELEASED InventoryReleased", "RELEASED InventoryReleased released", "-", "!", "!"}},
    {&payment_refunded, {"!", "RELEASED InventoryReleased released", "!", "!", "!"}},
    {&order_shipped, {"!", "SHIPPED - shipped", "!", "!", "!"}},
};
enum { INPUTS = sizeof table / sizeof *table };

static const void *data_of(const struct saga_event *input)
{
    static const struct reason reason = {"why"};
    static const struct money money = {
        .payment_id = "pay-1", .amount = 230, .currency = "EUR", .reason = "why"};
    static const struct shipping shipping;

    return input == &order_created      ? (const void *)&of_two
           : input == &payment_refunded ? (const void *)&money
           : input == &order_shipped    ? (const void *)&shipping
                                        : (const void *)&reason;
}

static void check_counts(const char *moved)
{
    bool reserved = strcmp(moved, "reserved") == 0, released = strcmp(moved, "released") == 0;
    bool shipped = strcmp(moved, "shipped") == 0;
    int n = reserved ? 1 : released || shipped ? -1 : 0; /* times that reserved takes the lines */

    check_stock("apple", 10 - (shipped ? 0 : 2 * n), 2 + 2 * n, shipped ? 2 : 0);
    check_stock("pear", 10 - (shipped ? 0 : 3 * n), 3 + 3 * n, shipped ? 3 : 0);
    ck_assert_int_eq(stock_of("apple")->version, n ? 2 : 1);
    ck_assert_int_eq(b.log_n, n ? 2 : 0);
    for (int i = 0; i < b.log_n; i++) {
        ck_assert_str_eq(movement_kinds[movement(i)->kind], moved);
        ck_assert_str_eq(movement(i)->sku, two[i].sku);
        ck_assert_int_eq(movement(i)->quantity, two[i].quantity);
        ck_assert_str_eq(movement(i)->order_id, "o");
        ck_assert_str_eq(movement(i)->event_id, "3.9.1");
        ck_assert_int_eq(movement(i)->at, DECIDING_NOW);
    }
}

/* Each cell has the next state, the events, the stock and the movements that RULES.md gives it. */
START_TEST(every_cell)
{
    const struct saga_event *input = table[_i / 5].input;
    const char *cell = table[_i / 5].cell[_i % 5];
    char next[32] = "", event[64] = "-", moved[32] = "";

    put_stock("apple", 10, 2);
    put_stock("pear", 10, 3);
    put_reservation("o", (enum state)(_i % 5));
    deciding_add(&b, SAGA_IN_EVENT, "o", input, data_of(input), "3.9.1");
    int rc = deciding_run(&b);

    sscanf(cell, "%31s %63s %31s", next, event, moved);
    ck_assert_int_eq(rc, *cell == '!' ? SAGA_POISON : 0);
    ck_assert((b.impossible != NULL) == (*cell == '!'));
    if (*cell == '-' || *cell == '!')
        snprintf(next, sizeof next, "%s", inventory_states[_i % 5]);
    ck_assert_str_eq(inventory_states[reservation_of("o")->row.state], next);
    ck_assert(reservation_of("o")->row.changed == (*cell != '-' && *cell != '!'));
    ck_assert_int_eq(b.out_n, strcmp(event, "-") != 0);
    if (b.out_n)
        ck_assert(deciding_is(&b, 0, event));
    check_counts(moved);
}
END_TEST

/* What the table does not name has no rule: other order events, PaymentCompleted, one's own. */
START_TEST(no_other_input_has_a_rule)
{
    for (int i = 0; all_events[i]; i++) {
        bool named = false;
        for (int k = 0; k < INPUTS; k++)
            named = named || table[k].input == all_events[i];
        ck_assert(named == (saga_rule_of(&service, all_events[i]->type) != NULL));
    }
    int n = 0;
    while (inventory_rules[n].input)
        n++;
    ck_assert_int_eq(n, INPUTS);
}
END_TEST

/* ---- What the events say ---- */

static json_t *lines_json(void)
{
    return json_pack("[{s:s, s:i}, {s:s, s:i}]", "sku", "apple", "quantity", 2, "sku", "pear",
                     "quantity", 3);
}

/* InventoryReserved has all that payment needs, and the lines without their prices. */
START_TEST(reserved_says_what_is_to_be_paid)
{
    put_stock("apple", 10, 0);
    put_stock("pear", 10, 0);
    create("o", &of_two);
    ck_assert_int_eq(deciding_run(&b), 0);
    deciding_expect(&b, 0, "InventoryReserved", "3.1.1",
                    json_pack("{s:s, s:s, s:i, s:{s:s, s:s}, s:o}", "order_id", "o", "currency",
                              "EUR", "amount", 230, "payment", "mode", "now", "token", "tok_ok",
                              "lines", lines_json()));
}
END_TEST

/* The reason of PaymentFailed, PaymentVoided and PaymentRefunded travels on, whatever their form.
 */
START_TEST(released_carries_the_reason_on)
{
    const struct saga_event *input = table[1 + _i].input;

    put_stock("apple", 10, 2);
    put_stock("pear", 10, 3);
    put_reservation("o", HELD);
    deciding_add(&b, SAGA_IN_EVENT, "o", input, data_of(input), "3.9.1");
    ck_assert_int_eq(deciding_run(&b), 0);
    deciding_expect(&b, 0, "InventoryReleased", "3.9.1",
                    json_pack("{s:s, s:s}", "order_id", "o", "reason", "why"));
}
END_TEST

/* The first line that the stock cannot serve is named, and nothing of the order is taken. */
START_TEST(an_order_is_all_or_nothing)
{
    put_stock("apple", 2, 0);
    put_stock("pear", 2, 0);
    create("o", &of_two);
    ck_assert_int_eq(deciding_run(&b), 0);
    deciding_expect(
        &b, 0, "ReservationFailed", "3.1.1",
        json_pack("{s:s, s:s, s:s}", "order_id", "o", "reason", "out_of_stock", "sku", "pear"));
    ck_assert_int_eq(reservation_of("o")->row.state, FAILED);
    ck_assert_int_eq(reservation_of("o")->lines.n, 0);
    check_stock("apple", 2, 0, 0);
    check_stock("pear", 2, 0, 0);
    ck_assert_int_eq(b.log_n, 0);
    ck_assert(!stock_of("apple")->row.changed);
}
END_TEST

/* An SKU that nobody ever received is another reason than one that is sold out. */
START_TEST(an_unknown_sku_is_told_from_a_sold_out_one)
{
    struct line lines[] = {{"ghost", 1, 1}};
    struct order order = order_of(lines, 1);

    create("o", &order);
    ck_assert_int_eq(deciding_run(&b), 0);
    deciding_expect(
        &b, 0, "ReservationFailed", "3.1.1",
        json_pack("{s:s, s:s, s:s}", "order_id", "o", "reason", "unknown_sku", "sku", "ghost"));
    deciding_done(&b);

    put_stock("ghost", 0, 0);
    create("p", &order);
    ck_assert_int_eq(deciding_run(&b), 0);
    deciding_expect(
        &b, 0, "ReservationFailed", "3.1.1",
        json_pack("{s:s, s:s, s:s}", "order_id", "p", "reason", "out_of_stock", "sku", "ghost"));
}
END_TEST

/* ---- Batches ---- */

/* Orders are decided as they stand in the batch: one that does not fit fails, a later smaller one
 * may. */
START_TEST(a_later_smaller_order_still_fits)
{
    struct line lines[] = {{"apple", 6, 1}, {"apple", 5, 1}, {"apple", 4, 1}, {"apple", 1, 1}};
    struct order order[] = {order_of(&lines[0], 1), order_of(&lines[1], 1), order_of(&lines[2], 1),
                            order_of(&lines[3], 1)};

    put_stock("apple", 10, 0);
    create("six", &order[0]);
    create("five", &order[1]);
    create("four", &order[2]);
    create("one", &order[3]);
    ck_assert_int_eq(deciding_run(&b), 0);
    ck_assert_int_eq(b.out_n, 4);
    ck_assert(deciding_is(&b, 0, "InventoryReserved"));
    ck_assert(deciding_is(&b, 1, "ReservationFailed"));
    ck_assert(deciding_is(&b, 2, "InventoryReserved"));
    ck_assert(deciding_is(&b, 3, "ReservationFailed"));
    check_stock("apple", 0, 10, 0);
    ck_assert_int_eq(stock_of("apple")->version, 3);
}
END_TEST

/* What an order gives back, a later one of the same batch can have. */
START_TEST(what_is_released_can_be_reserved_in_the_same_batch)
{
    static const struct reason reason = {"declined"};

    put_stock("apple", 0, 2);
    put_stock("pear", 0, 3);
    put_reservation("o", HELD);
    deciding_add(&b, SAGA_IN_EVENT, "o", &payment_failed, &reason, "3.9.1");
    create("p", &of_two);
    ck_assert_int_eq(deciding_run(&b), 0);
    ck_assert_int_eq(reservation_of("p")->row.state, HELD);
    check_stock("apple", 0, 2, 0);
    check_stock("pear", 0, 3, 0);
    ck_assert_int_eq(b.log_n, 4);
}
END_TEST

/* An order and its end may stand in one batch: the row is stored once, released, with its lines. */
START_TEST(an_order_may_come_and_go_in_one_batch)
{
    static const struct reason reason = {"customer"};

    put_stock("apple", 10, 0);
    put_stock("pear", 10, 0);
    create("o", &of_two);
    deciding_add(&b, SAGA_IN_EVENT, "o", &payment_voided, &reason, "3.9.1");
    ck_assert_int_eq(deciding_run(&b), 0);
    ck_assert_int_eq(reservation_of("o")->row.state, RELEASED);
    check_stock("apple", 10, 0, 0);
    ck_assert_int_eq(b.log_n, 4);
    ck_assert_int_eq(b.out_n, 2);
}
END_TEST

/* A cancellation that overtakes its order leaves a tombstone, on which the order ends: no stock
 * moves. */
START_TEST(an_order_cancelled_before_it_was_known_never_reserves)
{
    static const struct reason reason = {"customer"};

    put_stock("apple", 10, 0);
    put_stock("pear", 10, 0);
    deciding_add(&b, SAGA_IN_EVENT, "o", &payment_voided, &reason, "3.9.1");
    ck_assert_int_eq(deciding_run(&b), 0);
    deciding_expect(&b, 0, "InventoryReleased", "3.9.1",
                    json_pack("{s:s, s:s}", "order_id", "o", "reason", "customer"));
    deciding_done(&b);
    ck_assert_int_eq(reservation_of("o")->lines.n, 0);

    create("o", &of_two);
    ck_assert_int_eq(deciding_run(&b), 0);
    ck_assert_int_eq(b.out_n, 0);
    ck_assert_int_eq(b.log_n, 0);
    check_stock("apple", 10, 0, 0);
}
END_TEST

/* A full order takes and gives back each of its 100 lines. */
START_TEST(a_hundred_lines)
{
    static char sku[MAX_LINES][16];
    static struct line lines[MAX_LINES];
    static const struct reason reason = {"declined"};
    struct order order = order_of(lines, MAX_LINES);

    for (int i = 0; i < MAX_LINES; i++) {
        snprintf(sku[i], sizeof sku[i], "s%02d", i);
        lines[i] = (struct line){sku[i], i + 1, 1};
        put_stock(sku[i], MAX_LINES, 0);
    }
    create("o", &order);
    ck_assert_int_eq(deciding_run(&b), 0);
    ck_assert_int_eq(b.log_n, MAX_LINES);
    for (int i = 0; i < MAX_LINES; i++)
        check_stock(sku[i], MAX_LINES - (i + 1), i + 1, 0);
    deciding_done(&b);

    deciding_add(&b, SAGA_IN_EVENT, "o", &payment_failed, &reason, "3.9.1");
    ck_assert_int_eq(deciding_run(&b), 0);
    ck_assert_int_eq(b.log_n, MAX_LINES);
    for (int i = 0; i < MAX_LINES; i++)
        check_stock(sku[i], MAX_LINES, 0, 0);
}
END_TEST

/* A run that failed to commit is decided again on the same rows, with the same result. */
START_TEST(deciding_again_changes_nothing)
{
    put_stock("apple", 10, 0);
    put_stock("pear", 10, 0);
    create("o", &of_two);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(deciding_run(&b), 0);
        ck_assert_int_eq(b.out_n, 1);
        ck_assert_int_eq(b.log_n, 2);
        check_stock("apple", 8, 2, 0);
    }
}
END_TEST

/* ---- Which stock is loaded ---- */

static int shared_n;

static void count(const struct saga_step *step, const char *key)
{
    (void)step, (void)key;
    shared_n++;
}

static bool names(const struct saga_event *input, const struct reservation *row)
{
    struct saga_step step = {.key = "o", .input = input, .data = data_of(input), .row = row};

    shared_n = 0;
    return inventory_names(&step, count);
}

/* An order names the stock of its lines; its end that of the reservation, if that is known here,
 * else the database has to say; and one that holds nothing names none. */
START_TEST(an_input_names_the_stock_it_may_move)
{
    struct reservation row = {.row = {.state = HELD}, .lines = {2, two}};

    ck_assert(names(&order_created, NULL));
    ck_assert_int_eq(shared_n, 2);
    for (int i = 1; i < INPUTS; i++) {
        row.row.state = HELD;
        ck_assert(names(table[i].input, &row));
        ck_assert_int_eq(shared_n, 2);
        row.row.state = RELEASED;
        ck_assert(names(table[i].input, &row));
        ck_assert_int_eq(shared_n, 0);
        ck_assert(!names(table[i].input, NULL));
    }
}
END_TEST

Suite *inventory_suite(void)
{
    Suite *suite = suite_create("inventory");
    TCase *cells = tcase_create("cells"), *batches = tcase_create("batches");

    tcase_add_checked_fixture(cells, start, stop);
    tcase_add_loop_test(cells, every_cell, 0, INPUTS * 5);
    tcase_add_test(cells, no_other_input_has_a_rule);
    tcase_add_test(cells, reserved_says_what_is_to_be_paid);
    tcase_add_loop_test(cells, released_carries_the_reason_on, 0, 3);
    tcase_add_test(cells, an_order_is_all_or_nothing);
    tcase_add_test(cells, an_unknown_sku_is_told_from_a_sold_out_one);
    suite_add_tcase(suite, cells);

    tcase_add_checked_fixture(batches, start, stop);
    tcase_add_test(batches, a_later_smaller_order_still_fits);
    tcase_add_test(batches, what_is_released_can_be_reserved_in_the_same_batch);
    tcase_add_test(batches, an_order_may_come_and_go_in_one_batch);
    tcase_add_test(batches, an_order_cancelled_before_it_was_known_never_reserves);
    tcase_add_test(batches, a_hundred_lines);
    tcase_add_test(batches, deciding_again_changes_nothing);
    tcase_add_test(batches, an_input_names_the_stock_it_may_move);
    suite_add_tcase(suite, batches);
    return suite;
}
