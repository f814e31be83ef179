/* All schedules of small worlds (explore.h). */
#include <stdio.h>
#include <stdlib.h>

#include "explore.h"
#include "payment-svc/provider.h"
#include "play.h"
#include "suites.h"
#include "workers.h"

#define PLACE(key, payment)                                                                        \
    "{\"type\":\"PlaceOrder\",\"order_id\":\"" key                                                 \
    "\",\"customer_id\":\"c\",\"currency\":\"EUR\","                                               \
    "\"lines\":[{\"sku\":\"apple\",\"quantity\":1,\"unit_price\":100}],\"payment\":{" payment "}}"
#define NOW(token)      "\"token\":\"" token "\""
#define LATER           "\"mode\":\"later\""
#define TO(key, type)   "{\"type\":\"" type "\",\"order_id\":\"" key "\"}"
#define PAY(key, token) "{\"type\":\"PayOrder\",\"order_id\":\"" key "\",\"token\":\"" token "\"}"
#define CANCEL(key, n)                                                                             \
    {                                                                                              \
        key, TO(key, "CancelOrder"), n, 0                                                          \
    }
#define SHIP(key, n)                                                                               \
    {                                                                                              \
        key, TO(key, "ShipOrder"), n, 0                                                            \
    }
#define COMPLETE(key, n)                                                                           \
    {                                                                                              \
        key, TO(key, "CompleteOrder"), n, 0                                                        \
    }
/* An order that is paid now, or that is paid later, and all that can be asked of it. */
#define PAID_NOW(token)                                                                            \
    {                                                                                              \
        "a", PLACE("a", NOW(token)), 1, 1                                                          \
    }
#define PAID_LATER(token)                                                                          \
    {                                                                                              \
        "a", PAY("a", token), 1, 1                                                                 \
    }
#define REST  CANCEL("a", 1), SHIP("a", 1), COMPLETE("a", 1)
#define A_NOW PAID_NOW("tok_ok"), PAID_NOW("tok_declined"), {"a", PAY("a", "tok_ok"), 1, 0}, REST
#define A_LATER                                                                                    \
    {"a", PLACE("a", LATER), 1, 0}, PAID_LATER("tok_ok"), PAID_LATER("tok_declined"), REST
#define REFUSED "tok_refund_refused_1"
/* Two that want the last piece; "c" has the lane of "a", "b" another one. */
#define RIVAL(key) {key, PLACE(key, NOW("tok_ok")), 1, 0}, CANCEL(key, 1)
#define A_RIVAL    PAID_NOW("tok_ok"), PAID_NOW("tok_declined"), CANCEL("a", 1)

#define A_FEW PAID_NOW("tok_ok"), PAID_NOW("tok_declined"), CANCEL("a", 1), SHIP("a", 1)
#define MISPLACED                                                                                  \
    {"a", PLACE("a", NOW("tok_ok")), 1, 0, .misplaced = true},                                     \
        {"a", TO("a", "CancelOrder"), 1, 0, .misplaced = true},                                    \
    {                                                                                              \
        "a", TO("a", "ShipOrder"), 1, 0, .misplaced = true                                         \
    }
#define A_FEW_LATER {"a", PLACE("a", LATER), 1, 0}, PAID_LATER("tok_ok"), CANCEL("a", 1)

/* clang-format off */
static const struct plan plans[] = {
    /* Everything that can be asked, each outcome of each call */
    {"now", 1, {A_NOW, PAID_NOW(REFUSED)}, .deadlines = true, .silent = 1},
    {"later", 1, {A_LATER, PAID_LATER(REFUSED)}, .deadlines = true, .silent = 1},
    {"now, out of stock", 0, {A_NOW}, .deadlines = true, .silent = 1},
    {"later, out of stock", 0, {A_LATER}, .deadlines = true, .silent = 1},
    {"requests twice", 1, {{"a", PLACE("a", NOW("tok_ok")), 2, 0}, {"a", PLACE("a", LATER), 1, 0}, CANCEL("a", 2), SHIP("a", 2), COMPLETE("a", 2)}},
    {"calls", 1, {PAID_NOW("tok_ok"), PAID_NOW("tok_declined"), PAID_NOW(REFUSED), CANCEL("a", 1)}, .deadlines = true, .silent = 2, .early = 2},
    {"now, batches", 1, {A_FEW}, .deadlines = true, .batch = 3},
    {"later, batches", 1, {A_FEW_LATER}, .deadlines = true, .batch = 3},
    /* Faults */
    {"now, crash", 1, {A_NOW}, .deadlines = true, .crashes = 1},
    {"later, crash", 1, {A_LATER}, .deadlines = true, .crashes = 1},
    {"two crashes", 1, {A_FEW}, .crashes = 2},
    {"crash, late reports", 1, {PAID_NOW("tok_ok"), CANCEL("a", 1)}, .crashes = 1, .reports = true},
    {"now, take-over", 1, {A_FEW}, .deadlines = true, .takeovers = 1},
    {"later, take-over", 1, {A_FEW_LATER}, .deadlines = true, .takeovers = 1},
    {"two copies", 1, {A_FEW}, .deadlines = true, .copies = 2},
    {"read again twice", 1, {A_FEW}, .deadlines = true, .rewinds = 2},
    {"loss", 1, {A_FEW}, .deadlines = true, .losses = 1},
    {"crash, silence", 1, {A_FEW}, .crashes = 1, .silent = 1, .early = 1},
    {"two take-overs", 1, {PAID_NOW("tok_ok"), CANCEL("a", 1)}, .takeovers = 2},
    /* Requests in another partition than their order's */
    {"misplaced, crash", 1, {MISPLACED}, .deadlines = true, .crashes = 1},
    {"misplaced, take-over", 1, {MISPLACED}, .takeovers = 1},
    /* Two orders and one piece */
    {"rivals in a lane", 1, {A_RIVAL, RIVAL("c")}},
    {"rivals", 1, {A_RIVAL, RIVAL("b")}},
    {"rivals in a lane, batches", 1, {A_RIVAL, RIVAL("c")}, .batch = 2},
    {"rivals, crash", 1, {PAID_NOW("tok_ok"), CANCEL("a", 1), RIVAL("b")}, .crashes = 1},
    {"rivals, deadlines", 1, {A_RIVAL, RIVAL("b")}, .deadlines = true},
    /* EXPLORE=full */
    {"now, larger batches", 1, {A_NOW}, .deadlines = true, .batch = 4, .full = true},
    {"later, larger batches", 1, {A_LATER}, .deadlines = true, .batch = 4, .full = true},
    {"now, take-over of all", 1, {A_NOW}, .deadlines = true, .takeovers = 1, .full = true},
    {"later, take-over of all", 1, {A_LATER}, .deadlines = true, .takeovers = 1, .full = true},
    {"loss, crash", 1, {A_FEW}, .deadlines = true, .losses = 1, .crashes = 1, .full = true},
    {"rivals, take-over", 1, {A_RIVAL, RIVAL("b")}, .takeovers = 1, .full = true},
};
/* clang-format on */

/* Cells that are not impossible and that no schedule comes to, a line for each: there is none. */
static const char unreachable[] = "";

enum { PLANS = sizeof plans / sizeof *plans };

static void job(int i, void *result)
{
    const char *extent = getenv("EXPLORE");
    struct explored *e = result;

    if (extent && strcmp(extent, "full") != 0 ? strcmp(extent, plans[i].name) != 0
                                              : plans[i].full && !extent)
        return;
    explore(&plans[i], e);
    printf("sim: %s: %lld states, %lld steps, %lld ends, %.1f s%s%s\n", plans[i].name,
           (long long)e->states, (long long)e->steps, (long long)e->ends, e->seconds,
           e->failed[0] ? ": " : "", e->failed);
    fflush(stdout);
}

/* In every state the invariants hold, nothing goes on for ever, and where nothing is owed any more
 * every order has its end. */
START_TEST(every_schedule)
{
    const struct explored *e = workers_run(PLANS, sizeof *e, job);
    struct explored all = {0};

    for (int i = 0; i < PLANS; i++) {
        all.states += e[i].states;
        all.steps += e[i].steps;
        all.seconds += e[i].seconds;
        for (size_t k = 0; k < sizeof all.cells / sizeof(int64_t); k++)
            (&all.cells[0][0][0])[k] += (&e[i].cells[0][0][0])[k];
    }
    printf("sim: all of %d worlds: %lld states, %lld steps, %.0f s of CPU\n", PLANS,
           (long long)all.states, (long long)all.steps, all.seconds);
    for (int i = 0; i < PLANS; i++)
        ck_assert_msg(!e[i].failed[0], "%s: %s", plans[i].name, e[i].failed);
    if (getenv("EXPLORE") && strcmp(getenv("EXPLORE"), "full") != 0)
        return;
    char *unreached = cells_unreached(all.cells);
    ck_assert_str_eq(unreached, unreachable);
    free(unreached);
}
END_TEST

/* ---- That it can fail ---- */

/* A cell that another of its service stands in for; from NULL: nothing does. */
static const struct {
    const struct sim_service *service;
    int number;
    const struct saga_event *input;
    int state;
    const struct saga_event *from;
    int from_state;
    bool later; /* how the order is paid */
} breaks[] = {
    {&sim_order, ORDER, &payment_completed, O_CANCELLING, &payment_completed, O_CREATED},
    {&sim_order, ORDER, &inventory_released, O_CANCELLING},
    {&sim_order, ORDER, &reservation_failed, O_CANCELLING},
    {&sim_order, ORDER, &saga_due, O_CREATED},
    {&sim_order, ORDER, &cancel_order, O_CANCELLING, &cancel_order, O_CREATED},
    {&sim_inventory, INVENTORY, &payment_voided, R_NONE},
    {&sim_inventory, INVENTORY, &payment_voided, R_HELD},
    {&sim_inventory, INVENTORY, &payment_voided, R_FAILED, &payment_voided, R_HELD},
    {&sim_inventory, INVENTORY, &payment_refunded, R_HELD},
    {&sim_inventory, INVENTORY, &order_created, R_RELEASED, &order_created, R_NONE},
    {&sim_inventory, INVENTORY, &order_shipped, R_HELD},
    {&sim_payment, PAYMENT, &order_cancel_requested, B_NONE},
    {&sim_payment, PAYMENT, &order_cancel_requested, B_CHARGING},
    {&sim_payment, PAYMENT, &order_cancel_requested, B_CHARGING, &order_cancel_requested,
     B_AWAITING},
    {&sim_payment, PAYMENT, &order_cancel_requested, B_COMPLETED, &order_cancel_requested,
     B_AWAITING},
    {&sim_payment, PAYMENT, &order_cancel_requested, B_FAILED, &order_cancel_requested, B_AWAITING},
    {&sim_payment, PAYMENT, &inventory_reserved, B_VOIDED, &inventory_reserved, B_NONE},
    {&sim_payment, PAYMENT, &charge_unknown, B_CHARGING, &charge_declined, B_CHARGING},
    {&sim_payment, PAYMENT, &saga_due, B_CHARGING},
    {&sim_payment, PAYMENT, &refund_refused, B_REFUNDING, &refund_succeeded, B_REFUNDING},
    {&sim_payment, PAYMENT, &order_payment_requested, B_NONE, .later = true},
    {&sim_payment, PAYMENT, &inventory_reserved, B_REQUESTED, .later = true},
    {&sim_payment, PAYMENT, &order_cancelled, B_REQUESTED, .later = true},
};
enum { BREAKS = sizeof breaks / sizeof *breaks };

static saga_cell *cell_of(const struct sim_service *s, const struct saga_event *input, int state)
{
    return input ? saga_rule_of(s->service, input->type)->cell[state] : saga_nothing;
}

static void break_job(int i, void *result)
{
    static const struct plan now = {
        "now", 1, {A_NOW, PAID_NOW(REFUSED)}, .deadlines = true, .silent = 1};
    static const struct plan later = {"later", 1, {A_LATER}, .deadlines = true, .silent = 1};
    static const struct plan late = {"out of stock", 0, {A_LATER}, .deadlines = true};
    static const struct plan none = {"out of stock", 0, {A_NOW}, .deadlines = true};
    const struct plan *const worlds[2][2] = {{&now, &none}, {&later, &late}};
    struct explored *e = result;

    sim_broken =
        (struct sim_broken){breaks[i].number, breaks[i].input, breaks[i].state,
                            cell_of(breaks[i].service, breaks[i].from, breaks[i].from_state)};
    for (int k = 0; k < 2 && !e->failed[0]; k++)
        explore(worlds[breaks[i].later][k], e);
}

/* A cell of RULES.md that is wrong is found, and told in few moves. */
START_TEST(wrong_cells_are_found)
{
    const struct explored *e = workers_run(BREAKS, sizeof *e, break_job);
    int64_t most = 0;
    int moves = 0;

    for (int i = 0; i < BREAKS; i++) {
        ck_assert_msg(e[i].failed[0], "%s in %s of %s: not found", breaks[i].input->type,
                      breaks[i].service->service->states[breaks[i].state],
                      breaks[i].service->service->name);
        ck_assert_int_le(e[i].moves, 20);
        most = e[i].states > most ? e[i].states : most;
        moves = e[i].moves > moves ? e[i].moves : moves;
    }
    printf("sim: %d wrong cells: each is found, after at most %lld states, and told in at most %d "
           "moves\n",
           BREAKS, (long long)most, moves);
}
END_TEST

Suite *explore_suite(void)
{
    Suite *suite = suite_create("explore");
    TCase *t = tcase_create("all");

    tcase_set_timeout(t, 36000);
    tcase_add_test(t, wrong_cells_are_found);
    tcase_add_test(t, every_schedule);
    suite_add_tcase(suite, t);
    return suite;
}
