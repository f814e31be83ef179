/* Requests that are not for their moment: refused with the reason of RULES.md, or harmless, and
 * then the order goes on as if nobody had asked. */
#include "play.h"
#include "suites.h"

static struct sim_world w;

static void begin(void)
{
    sim_init(&w, true);
    sim_stock(&w, "apple", 100);
}

static void end(void)
{
    play_settle(&w);
    check_end(&w);
    ck_assert_msg(!w.failed[0], "%s", w.failed);
    sim_free(&w);
}

static void forget_trace(void)
{
    w.trace.n = 0;
}

static void ask(const char *type)
{
    play_ask(&w, type, "a", strcmp(type, "PayOrder") ? "" : ",\"token\":\"tok_ok\"");
    play_run(&w, ORDER, REQUESTS);
}

static void other_order(void)
{
    play_place(&w, "a", "apple 3", "now tok_ok");
    play_run(&w, ORDER, REQUESTS);
}

START_TEST(unknown_order)
{
    ask("PayOrder");
    ask("CancelOrder");
    ask("ShipOrder");
    ask("CompleteOrder");
    EXPECT(&w, "order a: PayOrder NONE, RequestRejected unknown_order\n"
               "order a: CancelOrder NONE, RequestRejected unknown_order\n"
               "order a: ShipOrder NONE, RequestRejected unknown_order\n"
               "order a: CompleteOrder NONE, RequestRejected unknown_order\n");
}
END_TEST

static void place(const char *payment)
{
    play_place(&w, "a", "apple 2", payment);
    play_run(&w, ORDER, REQUESTS);
    forget_trace();
}

START_TEST(created)
{
    place("now tok_ok");
    ask("PayOrder");
    ask("ShipOrder");
    ask("CompleteOrder");
    other_order();
    play_place(&w, "a", "apple 2", "now tok_ok");
    play_run(&w, ORDER, REQUESTS);
    EXPECT(&w, "order a: PayOrder CREATED, RequestRejected payment_in_progress\n"
               "order a: ShipOrder CREATED, RequestRejected not_paid\n"
               "order a: CompleteOrder CREATED, RequestRejected not_shipped\n"
               "order a: PlaceOrder CREATED, RequestRejected order_exists\n"
               "order a: PlaceOrder CREATED\n");
}
END_TEST

START_TEST(paid)
{
    place("now tok_ok");
    play_settle(&w);
    forget_trace();
    ask("PayOrder");
    ask("CompleteOrder");
    other_order();
    EXPECT(&w, "order a: PayOrder PAID\n"
               "order a: CompleteOrder PAID, RequestRejected not_shipped\n"
               "order a: PlaceOrder PAID, RequestRejected order_exists\n");
}
END_TEST

START_TEST(cancelling)
{
    place("now tok_ok");
    ask("CancelOrder");
    forget_trace();
    ask("PayOrder");
    ask("CancelOrder");
    ask("ShipOrder");
    ask("CompleteOrder");
    other_order();
    EXPECT(&w, "order a: PayOrder CANCELLING, RequestRejected cancelled\n"
               "order a: CancelOrder CANCELLING\n"
               "order a: ShipOrder CANCELLING, RequestRejected cancelled\n"
               "order a: CompleteOrder CANCELLING, RequestRejected cancelled\n"
               "order a: PlaceOrder CANCELLING, RequestRejected order_exists\n");
}
END_TEST

START_TEST(cancelled)
{
    place("now tok_ok");
    ask("CancelOrder");
    play_settle(&w);
    forget_trace();
    ask("PayOrder");
    ask("CancelOrder");
    ask("ShipOrder");
    ask("CompleteOrder");
    other_order();
    EXPECT(&w, "order a: PayOrder CANCELLED, RequestRejected cancelled\n"
               "order a: CancelOrder CANCELLED\n"
               "order a: ShipOrder CANCELLED, RequestRejected cancelled\n"
               "order a: CompleteOrder CANCELLED, RequestRejected cancelled\n"
               "order a: PlaceOrder CANCELLED, RequestRejected order_exists\n");
}
END_TEST

START_TEST(shipped)
{
    place("now tok_ok");
    play_settle(&w);
    ask("ShipOrder");
    forget_trace();
    ask("PayOrder");
    ask("CancelOrder");
    ask("ShipOrder");
    other_order();
    EXPECT(&w, "order a: PayOrder SHIPPED\n"
               "order a: CancelOrder SHIPPED, RequestRejected already_shipped\n"
               "order a: ShipOrder SHIPPED\n"
               "order a: PlaceOrder SHIPPED, RequestRejected order_exists\n");
}
END_TEST

START_TEST(completed)
{
    place("now tok_ok");
    play_settle(&w);
    ask("ShipOrder");
    ask("CompleteOrder");
    forget_trace();
    ask("PayOrder");
    ask("CancelOrder");
    ask("ShipOrder");
    ask("CompleteOrder");
    other_order();
    EXPECT(&w, "order a: PayOrder COMPLETED\n"
               "order a: CancelOrder COMPLETED, RequestRejected already_shipped\n"
               "order a: ShipOrder COMPLETED\n"
               "order a: CompleteOrder COMPLETED\n"
               "order a: PlaceOrder COMPLETED, RequestRejected order_exists\n");
}
END_TEST

/* What is no request is a dead letter, each once, and the requests beside it go on. */
START_TEST(no_requests)
{
    static const char *const rubbish[] = {
        "",
        "nonsense",
        "{}",
        "{\"type\":\"ShipOrder\"}",
        "{\"type\":\"EatOrder\",\"order_id\":\"a\"}",
        "{\"type\":\"PayOrder\",\"order_id\":\"a\",\"token\":\"no spaces\"}"};

    for (size_t i = 0; i < sizeof rubbish / sizeof *rubbish; i++)
        sim_request(&w, 0, NULL, rubbish[i]);
    sim_append(&w, REQUESTS, 0, &(struct saga_record){.key = "a", .key_n = 1});
    play_run(&w, ORDER, ALL);
    EXPECT(&w, "order/0 dead letter: order.requests/0/0 unreadable\n"
               "order/0 dead letter: order.requests/0/1 unreadable\n"
               "order/0 dead letter: order.requests/0/2 invalid\n"
               "order/0 dead letter: order.requests/0/3 invalid\n"
               "order/0 dead letter: order.requests/0/4 unknown_type\n"
               "order/0 dead letter: order.requests/0/5 invalid\n"
               "order/0 dead letter: order.requests/0/6 unreadable\n");
    sim_take(&w, ORDER, 0, false);
    for (int i = 0; i < 7; i++)
        sim_read_stale(&w, ORDER, 0, 0, i);
    ck_assert_int_eq(w.service[ORDER].batch.n, 0);
    ck_assert_int_eq(w.topic[ORDER_DLQ][0].n, 7);
    ck_assert_ptr_null(w.topic[ORDER_DLQ][0].at[6].record.value);
    sim_commit(&w, ORDER);
    forget_trace();
}
END_TEST

Suite *request_suite(void)
{
    const TTest *const tests[] = {unknown_order, created, paid,      cancelling,
                                  cancelled,     shipped, completed, no_requests};
    Suite *suite = suite_create("request");
    TCase *t = tcase_create("refused");

    tcase_add_checked_fixture(t, begin, end);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(suite, t);
    return suite;
}
