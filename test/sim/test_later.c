/* Orders that are paid later, or not in time, as transcripts. */
#include "play.h"
#include "suites.h"

static struct sim_world w;

#define SECOND INT64_C(1000000)

static void begin(void)
{
    sim_init(&w, true);
    sim_stock(&w, "apple", 100);
    sim_stock(&w, "last-one", 1);
}

static void end(void)
{
    play_settle(&w);
    check_end(&w);
    ck_assert_msg(!w.failed[0], "%s", w.failed);
    sim_free(&w);
}

/* ---- Pay later ---- */

static void requested(const char *lines)
{
    play_place(&w, "a", lines, "later");
    play_run(&w, ORDER, ALL);
    play_ask(&w, "PayOrder", "a", ",\"token\":\"tok_ok\"");
    play_run(&w, ORDER, ALL);
    play_run(&w, PAYMENT, ORDER_EVENTS);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "order a: PayOrder CREATED, OrderPaymentRequested\n"
               "payment a: OrderPaymentRequested NONE -> REQUESTED\n");
}

START_TEST(pay_later)
{
    play_place(&w, "a", "apple 2", "later");
    play_settle(&w);
    play_ask(&w, "PayOrder", "a", ",\"token\":\"tok_ok\"");
    play_ask(&w, "PayOrder", "a", ",\"token\":\"tok_ok\"");
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> AWAITING\n"
               "order a: PayOrder CREATED, OrderPaymentRequested\n"
               "order a: PayOrder CREATED\n"
               "payment a: OrderPaymentRequested AWAITING -> CHARGING, charge\n"
               "payment a: charge_succeeded CHARGING -> COMPLETED, PaymentCompleted\n"
               "order a: PaymentCompleted CREATED -> PAID, OrderPaid\n");
}
END_TEST

/* The wish to pay overtakes the reservation. */
START_TEST(pay_later_overtaking)
{
    requested("apple 2");
    play_settle(&w);
    EXPECT(&w, "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved REQUESTED -> CHARGING, charge\n"
               "payment a: charge_succeeded CHARGING -> COMPLETED, PaymentCompleted\n"
               "order a: PaymentCompleted CREATED -> PAID, OrderPaid\n");
}
END_TEST

/* Asked to pay for what could not be reserved: nobody waits for word from payment. */
START_TEST(pay_later_out_of_stock)
{
    requested("last-one 2");
    play_settle(&w);
    EXPECT(&w, "inventory a: OrderCreated NONE -> FAILED, ReservationFailed out_of_stock\n"
               "order a: ReservationFailed CREATED -> CANCELLED, OrderCancelled out_of_stock\n"
               "payment a: OrderCancelled REQUESTED -> VOIDED\n");
}
END_TEST

/* Reserved, and the customer has not asked to pay. */
START_TEST(cancelled_when_awaiting)
{
    play_place(&w, "a", "apple 2", "later");
    play_settle(&w);
    play_ask(&w, "CancelOrder", "a", "");
    play_settle(&w);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> AWAITING\n"
               "order a: CancelOrder CREATED -> CANCELLING, OrderCancelRequested customer\n"
               "payment a: OrderCancelRequested AWAITING -> VOIDED, PaymentVoided customer\n"
               "inventory a: PaymentVoided HELD -> RELEASED, InventoryReleased customer\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "payment a: OrderCancelled VOIDED\n");
}
END_TEST

/* Asked to pay, and the reservation is not known to payment yet. */
START_TEST(cancelled_when_requested)
{
    requested("apple 2");
    play_ask(&w, "CancelOrder", "a", "");
    play_run(&w, ORDER, ALL);
    play_run(&w, PAYMENT, ORDER_EVENTS);
    play_settle(&w);
    EXPECT(&w, "order a: CancelOrder CREATED -> CANCELLING, OrderCancelRequested customer\n"
               "payment a: OrderCancelRequested REQUESTED -> VOIDED, PaymentVoided customer\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "inventory a: PaymentVoided HELD -> RELEASED, InventoryReleased customer\n"
               "payment a: InventoryReserved VOIDED\n"
               "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled customer\n"
               "payment a: OrderCancelled VOIDED\n");
}
END_TEST

/* ---- Time-out ---- */

START_TEST(unpaid)
{
    play_place(&w, "a", "apple 2", "later");
    play_settle(&w);
    w.now += 900 * SECOND - 1;
    ck_assert(!play_due(&w, ORDER));
    w.now++;
    ck_assert(play_due(&w, ORDER));
    play_settle(&w);
    EXPECT(&w,
           "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
           "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
           "payment a: InventoryReserved NONE -> AWAITING\n"
           "order a: due CREATED -> CANCELLING, OrderCancelRequested payment_timeout\n"
           "payment a: OrderCancelRequested AWAITING -> VOIDED, PaymentVoided payment_timeout\n"
           "inventory a: PaymentVoided HELD -> RELEASED, InventoryReleased payment_timeout\n"
           "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled payment_timeout\n"
           "payment a: OrderCancelled VOIDED\n");
}
END_TEST

static void paid_but_unheard(void)
{
    play_place(&w, "a", "apple 2", "now tok_ok");
    play_run(&w, ORDER, ALL);
    play_run(&w, INVENTORY, ALL);
    play_run(&w, PAYMENT, ALL);
    play_answer(&w, ANSWERED);
    EXPECT(&w, "order a: PlaceOrder NONE -> CREATED, OrderCreated\n"
               "inventory a: OrderCreated NONE -> HELD, InventoryReserved\n"
               "payment a: InventoryReserved NONE -> CHARGING, charge\n"
               "payment a: charge_succeeded CHARGING -> COMPLETED, PaymentCompleted\n");
    w.now += 900 * SECOND;
}

/* The time-out and the payment in one batch: what is paid is no longer due. */
START_TEST(due_and_paid_in_the_same_batch)
{
    paid_but_unheard();
    play_read(&w, ORDER, PAYMENT_EVENTS);
    play_due(&w, ORDER);
    EXPECT(&w, "order a: PaymentCompleted CREATED -> PAID, OrderPaid\n");
}
END_TEST

/* The other way round: the money goes back. */
START_TEST(due_before_paid_in_the_same_batch)
{
    paid_but_unheard();
    sim_due(&w, ORDER, "a");
    play_read(&w, ORDER, PAYMENT_EVENTS);
    play_commit(&w, ORDER);
    play_settle(&w);
    EXPECT(&w,
           "order a: due CREATED -> CANCELLING, OrderCancelRequested payment_timeout\n"
           "order a: PaymentCompleted CANCELLING\n"
           "payment a: OrderCancelRequested COMPLETED -> REFUNDING, refund\n"
           "payment a: refund_succeeded REFUNDING -> REFUNDED, PaymentRefunded payment_timeout\n"
           "inventory a: PaymentRefunded HELD -> RELEASED, InventoryReleased payment_timeout\n"
           "order a: InventoryReleased CANCELLING -> CANCELLED, OrderCancelled payment_timeout\n"
           "payment a: OrderCancelled REFUNDED\n");
}
END_TEST

Suite *later_suite(void)
{
    const TTest *const tests[] = {
        cancelled_when_awaiting,        cancelled_when_requested,         pay_later,
        pay_later_overtaking,           pay_later_out_of_stock,           unpaid,
        due_and_paid_in_the_same_batch, due_before_paid_in_the_same_batch};
    Suite *suite = suite_create("later");
    TCase *t = tcase_create("paths");

    tcase_add_checked_fixture(t, begin, end);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(suite, t);
    return suite;
}
