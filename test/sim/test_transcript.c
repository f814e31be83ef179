/* Every path of the saga as a transcript: what is done, and what each service makes of it. */
#include "play.h"
#include "suites.h"

static struct sim_world w;

#define SECOND INT64_C(1000000)

static void begin(void)
{
    sim_init(&w, true);
    sim_stock(&w, "apple", 100);
    sim_stock(&w, "pear", 50);
    sim_stock(&w, "last-one", 1);
}

static void end(void)
{
    play_settle(&w);
    check_end(&w);
    ck_assert_msg(!w.failed[0], "%s", w.failed);
    sim_free(&w);
}

static int64_t available(const char *sku)
{
    return stock_view(saga_slots_find(&w.service[INVENTORY].batch.shared, sku)->row).available;
}

/* An order with several lines is reserved, paid, shipped, completed. */
START_TEST(happy)
{
    play_place(&w, "a", "apple 2, pear 1", "now tok_ok");
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> CHARGING, charge\n"
               "payment a: charge_succeeded CHARGING -> COMPLETED, PaymentCompleted\n"
               "order a: PaymentCompleted CREATED -> PAID, OrderPaid\n");
    ck_assert_int_eq(sim_money(&w, "a"), 300);
    ck_assert_int_eq(available("apple"), 98);
    ck_assert_int_eq(available("pear"), 49);
    play_ask(&w, "ShipOrder", "a", ",\"tracking\":\"1Z9\"");
    play_settle(&w);
    EXPECT(&w, "order a: ShipOrder PAID -> SHIPPED, OrderShipped\n"
               "inventory a: OrderShipped HELD -> SHIPPED\n");
    play_ask(&w, "CompleteOrder", "a", "");
    play_settle(&w);
    EXPECT(&w, "order a: CompleteOrder SHIPPED -> COMPLETED, OrderCompleted\n");
}
END_TEST

/* What is not there is not sold: the order is cancelled, nobody is charged. */
START_TEST(out_of_stock)
{
    play_place(&w, "a", "last-one 2", "now tok_ok");
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> FAILED, ReservationFailed out_of_stock\n"
               "order a: ReservationFailed CREATED -> CANCELLED, OrderCancelled out_of_stock\n"
               "payment a: OrderCancelled NONE\n");
}
END_TEST

START_TEST(unknown_sku)
{
    play_place(&w, "a", "plum 1", "now tok_ok");
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> FAILED, ReservationFailed unknown_sku\n"
               "order a: ReservationFailed CREATED -> CANCELLED, OrderCancelled unknown_sku\n"
               "payment a: OrderCancelled NONE\n");
}
END_TEST

/* All lines or none; within a batch one that does not fit fails, and a later smaller one fits. */
START_TEST(all_or_nothing)
{
    play_place(&w, "a", "apple 100, last-one 2", "later");
    play_place(&w, "a", "apple 100, last-one 2", "later");
    play_run(&w, ORDER, ALL);
    play_place(&w, "b", "apple 100, last-one 1", "later");
    play_run(&w, ORDER, ALL);
    play_read(&w, INVENTORY, ORDER_EVENTS);
    play_commit(&w, INVENTORY);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "order a: PlaceOrder CREATED\n"
               "order b: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> FAILED, ReservationFailed out_of_stock\n"
               "inventory b: OrderCreated NONE -> HELD, InventoryReserved\n");
    ck_assert_int_eq(available("apple"), 0);
    ck_assert_int_eq(available("last-one"), 0);
}
END_TEST

/* A declined card: what was held is given back, then the order is cancelled with its reason. */
START_TEST(declined)
{
    play_place(&w, "a", "apple 2", "now tok_insufficient_funds");
    play_settle(&w);
    EXPECT(&w,
           "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
           "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
           "payment a: InventoryReserved NONE -> CHARGING, charge\n"
           "payment a: charge_declined CHARGING -> FAILED, PaymentFailed insufficient_funds\n"
           "inventory a: PaymentFailed HELD -> RELEASED, InventoryReleased insufficient_funds\n"
           "order a: InventoryReleased CREATED -> CANCELLED, OrderCancelled insufficient_funds\n"
           "payment a: OrderCancelled FAILED\n");
    ck_assert_int_eq(available("apple"), 100);
}
END_TEST

/* ---- Cancelled at every legal moment ---- */

/* Inventory hears of the end before it hears of the order: it keeps a tombstone. */
START_TEST(cancelled_before_inventory_knows)
{
    play_place(&w, "a", "apple 2", "now tok_ok");
    play_run(&w, ORDER, ALL);
    play_ask(&w, "CancelOrder", "a", "");
    play_run(&w, ORDER, ALL);
    play_run(&w, PAYMENT, ALL);
    play_run(&w, INVENTORY, PAYMENT_EVENTS);
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "order a: CancelOrder CREATED -> CANCELLING, OrderCancelRequested customer\n"
               "payment a: OrderCancelRequested NONE -> VOIDED, PaymentVoided customer\n"
               "inventory a: PaymentVoided NONE -> RELEASED, InventoryReleased customer\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "inventory a: OrderCreated RELEASED\n"
               "payment a: OrderCancelled VOIDED\n");
    ck_assert_int_eq(available("apple"), 100);
}
END_TEST

/* The reservation is made, payment hears of the cancellation first. */
START_TEST(cancelled_before_payment_knows)
{
    play_place(&w, "a", "apple 2", "now tok_ok");
    play_run(&w, ORDER, ALL);
    play_run(&w, INVENTORY, ALL);
    play_ask(&w, "CancelOrder", "a", ",\"reason\":\"too slow\"");
    play_run(&w, ORDER, ALL);
    play_run(&w, PAYMENT, ORDER_EVENTS);
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "order a: CancelOrder CREATED -> CANCELLING, OrderCancelRequested too slow\n"
               "payment a: OrderCancelRequested NONE -> VOIDED, PaymentVoided too slow\n"
               "inventory a: PaymentVoided HELD -> RELEASED, InventoryReleased too slow\n"
               "payment a: InventoryReserved VOIDED\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled too slow\n"
               "payment a: OrderCancelled VOIDED\n");
}
END_TEST

static void charging(const char *token)
{
    char payment[64] = "now ";

    play_place(&w, "a", "apple 2", strcat(payment, token));
    play_run(&w, ORDER, ALL);
    play_run(&w, INVENTORY, ALL);
    play_run(&w, PAYMENT, ALL);
    play_ask(&w, "CancelOrder", "a", "");
    play_run(&w, ORDER, ALL);
    play_run(&w, PAYMENT, ALL);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> CHARGING, charge\n"
               "order a: CancelOrder CREATED -> CANCELLING, OrderCancelRequested customer\n"
               "payment a: OrderCancelRequested CHARGING\n");
}

/* While the charge is under way: its answer says whether there is something to refund. */
START_TEST(cancelled_while_charging)
{
    charging("tok_ok");
    play_settle(&w);
    EXPECT(&w, "payment a: charge_succeeded CHARGING -> REFUNDING, refund\n"
               "payment a: refund_succeeded REFUNDING -> REFUNDED, PaymentRefunded customer\n"
               "inventory a: PaymentRefunded HELD -> RELEASED, InventoryReleased customer\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "payment a: OrderCancelled REFUNDED\n");
    ck_assert_int_eq(sim_money(&w, "a"), 0);
}
END_TEST

/* The first reason stays, whatever the charge comes to. */
START_TEST(cancelled_while_charging_and_declined)
{
    charging("tok_expired");
    play_settle(&w);
    EXPECT(&w, "payment a: charge_declined CHARGING -> FAILED, PaymentFailed expired\n"
               "inventory a: PaymentFailed HELD -> RELEASED, InventoryReleased expired\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "payment a: OrderCancelled FAILED\n");
}
END_TEST

/* Declined, and the cancellation comes to payment after that. */
START_TEST(cancelled_when_declined)
{
    play_place(&w, "a", "apple 2", "now tok_expired");
    play_run(&w, ORDER, ALL);
    play_run(&w, INVENTORY, ALL);
    play_run(&w, PAYMENT, ALL);
    play_ask(&w, "CancelOrder", "a", "");
    play_run(&w, ORDER, ALL);
    play_answer(&w, ANSWERED);
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> CHARGING, charge\n"
               "order a: CancelOrder CREATED -> CANCELLING, OrderCancelRequested customer\n"
               "payment a: charge_declined CHARGING -> FAILED, PaymentFailed expired\n"
               "inventory a: PaymentFailed HELD -> RELEASED, InventoryReleased expired\n"
               "payment a: OrderCancelRequested FAILED\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "payment a: OrderCancelled FAILED\n");
}
END_TEST

static void settle_paid(const char *token)
{
    char payment[64] = "now ";

    play_place(&w, "a", "apple 2", strcat(payment, token));
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> CHARGING, charge\n"
               "payment a: charge_succeeded CHARGING -> COMPLETED, PaymentCompleted\n"
               "order a: PaymentCompleted CREATED -> PAID, OrderPaid\n");
}

/* A paid order: refund, release, cancel. */
START_TEST(cancelled_when_paid)
{
    settle_paid("tok_ok");
    play_ask(&w, "CancelOrder", "a", "");
    play_settle(&w);
    EXPECT(&w, "order a: CancelOrder PAID -> CANCELLING, OrderCancelRequested customer\n"
               "payment a: OrderCancelRequested COMPLETED -> REFUNDING, refund\n"
               "payment a: refund_succeeded REFUNDING -> REFUNDED, PaymentRefunded customer\n"
               "inventory a: PaymentRefunded HELD -> RELEASED, InventoryReleased customer\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "payment a: OrderCancelled REFUNDED\n");
    ck_assert_int_eq(available("apple"), 100);
    ck_assert_int_eq(sim_money(&w, "a"), 0);
}
END_TEST

/* The reservation fails while the cancellation runs: the customer's reason stays. */
START_TEST(cancelled_and_out_of_stock)
{
    play_place(&w, "a", "last-one 2", "now tok_ok");
    play_run(&w, ORDER, ALL);
    play_run(&w, INVENTORY, ALL);
    play_ask(&w, "CancelOrder", "a", "");
    play_run(&w, ORDER, REQUESTS);
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> FAILED, ReservationFailed out_of_stock\n"
               "order a: CancelOrder CREATED -> CANCELLING, OrderCancelRequested customer\n"
               "order a: ReservationFailed CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "payment a: OrderCancelRequested NONE -> VOIDED, PaymentVoided customer\n"
               "payment a: OrderCancelled VOIDED\n"
               "inventory a: PaymentVoided FAILED\n");
}
END_TEST

/* Placed, cancelled and cancelled again in one batch. */
START_TEST(cancelled_in_the_same_batch)
{
    play_place(&w, "a", "apple 2", "now tok_ok");
    play_ask(&w, "CancelOrder", "a", "");
    play_ask(&w, "CancelOrder", "a", ",\"reason\":\"again\"");
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "order a: CancelOrder CREATED -> CANCELLING, OrderCancelRequested customer\n"
               "order a: CancelOrder CANCELLING\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: OrderCancelRequested NONE -> VOIDED, PaymentVoided customer\n"
               "payment a: InventoryReserved VOIDED\n"
               "inventory a: PaymentVoided HELD -> RELEASED, InventoryReleased customer\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "payment a: OrderCancelled VOIDED\n");
}
END_TEST

/* Payment's word that the charge went through comes after inventory's that all is given back. */
START_TEST(completed_after_released)
{
    play_place(&w, "a", "apple 2", "now tok_ok");
    play_run(&w, ORDER, ALL);
    play_run(&w, INVENTORY, ALL);
    play_run(&w, PAYMENT, ALL);
    play_answer(&w, ANSWERED);
    play_ask(&w, "CancelOrder", "a", "");
    play_run(&w, ORDER, REQUESTS);
    play_run(&w, PAYMENT, ALL);
    play_answer(&w, ANSWERED);
    play_run(&w, INVENTORY, ALL);
    play_run(&w, ORDER, INVENTORY_EVENTS);
    play_run(&w, ORDER, PAYMENT_EVENTS);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> CHARGING, charge\n"
               "payment a: charge_succeeded CHARGING -> COMPLETED, PaymentCompleted\n"
               "order a: CancelOrder CREATED -> CANCELLING, OrderCancelRequested customer\n"
               "payment a: OrderCancelRequested COMPLETED -> REFUNDING, refund\n"
               "payment a: refund_succeeded REFUNDING -> REFUNDED, PaymentRefunded customer\n"
               "inventory a: PaymentRefunded HELD -> RELEASED, InventoryReleased customer\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "order a: PaymentCompleted CANCELLED\n");
}
END_TEST

/* ---- The provider ---- */

static void wait_due(int service)
{
    w.now = play_next_due(&w, service);
    ck_assert_int_ne(w.now, 0);
    ck_assert(play_due(&w, service));
}

/* A refund that is refused is owed all the same: asked for again until it is given. */
START_TEST(refund_refused_again_and_again)
{
    settle_paid("tok_refund_refused_2");
    play_ask(&w, "CancelOrder", "a", "");
    play_settle(&w);
    EXPECT(&w, "order a: CancelOrder PAID -> CANCELLING, OrderCancelRequested customer\n"
               "payment a: OrderCancelRequested COMPLETED -> REFUNDING, refund\n"
               "payment a: refund_refused REFUNDING\n");
    wait_due(PAYMENT);
    play_settle(&w);
    wait_due(PAYMENT);
    play_settle(&w);
    EXPECT(&w, "payment a: due REFUNDING, refund\n"
               "payment a: refund_refused REFUNDING\n"
               "payment a: due REFUNDING, refund\n"
               "payment a: refund_succeeded REFUNDING -> REFUNDED, PaymentRefunded customer\n"
               "inventory a: PaymentRefunded HELD -> RELEASED, InventoryReleased customer\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "payment a: OrderCancelled REFUNDED\n");
}
END_TEST

/* What is not known is asked for again with the same key: charged once. */
START_TEST(unknown_then_charged)
{
    play_place(&w, "a", "apple 2", "now tok_unknown_once");
    play_settle(&w);
    ck_assert_int_eq(sim_money(&w, "a"), 200);
    wait_due(PAYMENT);
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> CHARGING, charge\n"
               "payment a: charge_unknown CHARGING\n"
               "payment a: due CHARGING, charge\n"
               "payment a: charge_succeeded CHARGING -> COMPLETED, PaymentCompleted\n"
               "order a: PaymentCompleted CREATED -> PAID, OrderPaid\n");
    ck_assert_int_eq(sim_money(&w, "a"), 200);
}
END_TEST

START_TEST(unknown_then_declined)
{
    play_place(&w, "a", "apple 2", "now tok_unknown_declined");
    play_settle(&w);
    wait_due(PAYMENT);
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> CHARGING, charge\n"
               "payment a: charge_unknown CHARGING\n"
               "payment a: due CHARGING, charge\n"
               "payment a: charge_declined CHARGING -> FAILED, PaymentFailed declined\n"
               "inventory a: PaymentFailed HELD -> RELEASED, InventoryReleased declined\n"
               "order a: InventoryReleased CREATED -> CANCELLED, OrderCancelled declined\n"
               "payment a: OrderCancelled FAILED\n");
}
END_TEST

/* No answer comes, the deadline does; the second answer of two finds it done. */
START_TEST(answered_twice)
{
    play_place(&w, "a", "apple 2", "now tok_ok");
    play_run(&w, ORDER, ALL);
    play_run(&w, INVENTORY, ALL);
    play_run(&w, PAYMENT, ALL);
    w.now += 5 * SECOND;
    ck_assert(!play_due(&w, PAYMENT));
    wait_due(PAYMENT);
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> CHARGING, charge\n"
               "payment a: due CHARGING, charge\n"
               "payment a: charge_succeeded CHARGING -> COMPLETED, PaymentCompleted\n"
               "payment a: charge_succeeded COMPLETED\n"
               "order a: PaymentCompleted CREATED -> PAID, OrderPaid\n");
    ck_assert_int_eq(sim_money(&w, "a"), 200);
}
END_TEST

Suite *transcript_suite(void)
{
    const TTest *const tests[] = {happy,
                                  out_of_stock,
                                  unknown_sku,
                                  all_or_nothing,
                                  declined,
                                  cancelled_before_inventory_knows,
                                  cancelled_before_payment_knows,
                                  cancelled_while_charging,
                                  cancelled_while_charging_and_declined,
                                  cancelled_when_declined,
                                  cancelled_when_paid,
                                  cancelled_and_out_of_stock,
                                  cancelled_in_the_same_batch,
                                  completed_after_released,
                                  refund_refused_again_and_again,
                                  unknown_then_charged,
                                  unknown_then_declined,
                                  answered_twice};
    Suite *suite = suite_create("transcript");
    TCase *t = tcase_create("paths");

    tcase_add_checked_fixture(t, begin, end);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(suite, t);
    return suite;
}
