/* The payloads of all events and requests, declared once for the three services (RULES.md,
 * "Fields"). A test compares each with schemas/events/<type>.json. */
#ifndef EVENTS_H
#define EVENTS_H

#include "saga.h"

enum { MAX_LINES = 100 };
#define MAX_QUANTITY INT64_C(1000000)
#define MAX_PRICE    INT64_C(1000000000000)    /* minor units */
#define MAX_AMOUNT   INT64_C(1000000000000000) /* minor units */

enum mode { NOW, LATER };
enum shortage { SHORTAGE_NONE, OUT_OF_STOCK, UNKNOWN_SKU };

struct line {
    const char *sku;
    int64_t quantity, unit_price;
};
struct lines {
    int n;
    struct line *at;
};
struct payment {
    int mode;
    const char *token;
};

/* PlaceOrder (its amount is not a member: order_amount() computes it), OrderCreated (all),
 * InventoryReserved (currency, amount, payment, lines without price). */
struct order {
    const char *customer_id, *currency;
    int64_t amount;
    struct lines lines;
    struct payment payment;
};

/* PayOrder, OrderPaymentRequested */
struct pay {
    const char *token;
};

/* CancelOrder (optional), OrderCancelRequested, OrderCancelled, InventoryReleased, PaymentFailed,
 * PaymentVoided */
struct reason {
    const char *reason;
};

/* ShipOrder, OrderShipped */
struct shipping {
    const char *tracking; /* or NULL */
};

/* RequestRejected */
struct rejection {
    const char *request, *reason, *status;
};

/* ReservationFailed */
struct shortfall {
    int reason; /* enum shortage */
    const char *sku;
};

/* OrderPaid (amount, currency), PaymentCompleted (no reason), PaymentRefunded (no provider_ref) */
struct money {
    const char *payment_id;
    int64_t amount;
    const char *currency, *provider_ref, *reason;
};

/* requests */
extern const struct saga_event place_order, pay_order, cancel_order, ship_order, complete_order;
/* by order */
extern const struct saga_event order_created, order_payment_requested, order_paid,
    order_cancel_requested, order_cancelled, order_shipped, order_completed, request_rejected;
/* by inventory */
extern const struct saga_event inventory_reserved, reservation_failed, inventory_released;
/* by payment */
extern const struct saga_event payment_completed, payment_failed, payment_voided, payment_refunded;

extern const struct saga_event *const all_requests[]; /* up to NULL */
extern const struct saga_event *const all_events[];

extern const char *const modes[];                 /* enum mode */
extern const char *const shortages[];             /* enum shortage */
extern const struct saga_field line_fields[];     /* sku, quantity, unit_price */
extern const struct saga_field reserved_fields[]; /* sku, quantity */
extern const struct saga_field payment_fields[];  /* mode, token: as events have them */

/* The sum of quantity x unit_price. -> false: over MAX_AMOUNT (checked for overflow) */
bool order_amount(const struct lines *lines, int64_t *amount);

#endif
