/* The fields tables of all payloads: RULES.md, "Fields". A test compares each of them, member by
 * member, with schemas/events/<type>.json. */
#include "events.h"

#include <string.h>

#define F(member)      SAGA_AT(struct T, member)
#define CURRENCY       F(currency), SAGA_CODE, 3, 3
#define AMOUNT         F(amount), SAGA_INT, 0, MAX_AMOUNT
#define REASON         F(reason), SAGA_TEXT, 1, 256 /* every reason that travels */
#define LINES(members) F(lines), SAGA_LIST, 1, MAX_LINES, members, sizeof(struct line)

const char *const modes[] = {"now", "later", NULL};
const char *const shortages[] = {"", "out_of_stock", "unknown_sku", NULL};

/* ---- Parts ---- */

#define T line
const struct saga_field line_fields[] = {{F(sku), SAGA_ID},
                                         {F(quantity), SAGA_INT, 1, MAX_QUANTITY},
                                         {F(unit_price), SAGA_INT, 0, MAX_PRICE},
                                         {0}};
const struct saga_field reserved_fields[] = {
    {F(sku), SAGA_ID}, {F(quantity), SAGA_INT, 1, MAX_QUANTITY}, {0}};
#undef T

/* A customer may leave the mode out; what we say of it is complete. */
#define T payment
static const struct saga_field asked_payment[] = {
    {F(mode), SAGA_NAME, .names = modes, .optional = true},
    {F(token), SAGA_ID, .optional = true},
    {0}};
const struct saga_field payment_fields[] = {
    {F(mode), SAGA_NAME, .names = modes}, {F(token), SAGA_ID, .optional = true}, {0}};
#undef T

/* ---- Orders ---- */

#define T order
static const struct saga_field placed[] = {{F(customer_id), SAGA_ID},
                                           {CURRENCY},
                                           {LINES(line_fields)},
                                           {F(payment), SAGA_OBJECT, .of = asked_payment},
                                           {0}};
static const struct saga_field created[] = {{F(customer_id), SAGA_ID},
                                            {CURRENCY},
                                            {AMOUNT},
                                            {LINES(line_fields)},
                                            {F(payment), SAGA_OBJECT, .of = payment_fields},
                                            {0}};
static const struct saga_field reserved[] = {{CURRENCY},
                                             {AMOUNT},
                                             {F(payment), SAGA_OBJECT, .of = payment_fields},
                                             {LINES(reserved_fields)},
                                             {0}};
#undef T

/* Open addressing in a table twice as large as a full list: no SKU is compared with all others. */
static bool sku_twice(const struct lines *lines)
{
    uint8_t at[256] = {0}; /* number of a line, from 1; the index wraps as its type does */

    for (int i = 0; i < lines->n; i++) {
        const char *sku = lines->at[i].sku;
        uint32_t hash = 2166136261u; /* FNV-1a */
        for (const char *c = sku; *c; c++)
            hash = (hash ^ (unsigned char)*c) * 16777619u;
        uint8_t k = (uint8_t)(hash ^ hash >> 8 ^ hash >> 16 ^ hash >> 24);
        for (; at[k]; k++)
            if (strcmp(lines->at[at[k] - 1].sku, sku) == 0)
                return true;
        at[k] = (uint8_t)(i + 1);
    }
    return false;
}

bool order_amount(const struct lines *lines, int64_t *amount)
{
    int64_t sum = 0, price;

    for (int i = 0; i < lines->n; i++)
        if (__builtin_mul_overflow(lines->at[i].quantity, lines->at[i].unit_price, &price) ||
            __builtin_add_overflow(sum, price, &sum) || sum > MAX_AMOUNT)
            return false;
    *amount = sum;
    return true;
}

static bool check_reserved(const void *data, const char **why)
{
    const struct order *order = data;

    *why = order->payment.mode == NOW && !order->payment.token
               ? "payment.token is required for payment.mode now"
           : sku_twice(&order->lines) ? "lines: the same sku stands in two lines"
                                      : NULL;
    return !*why;
}

static bool check_placed(const void *data, const char **why)
{
    const struct order *order = data;
    int64_t amount;

    if (!check_reserved(data, why))
        return false;
    *why = order_amount(&order->lines, &amount)
               ? NULL
               : "lines: the sum of quantity x unit_price is above 1000000000000000";
    return !*why;
}

static bool check_created(const void *data, const char **why)
{
    const struct order *order = data;
    int64_t amount;

    if (!check_placed(data, why))
        return false;
    *why = order_amount(&order->lines, &amount) && amount == order->amount
               ? NULL
               : "amount is not the sum of quantity x unit_price of the lines";
    return !*why;
}

/* ---- The others ---- */

#define T pay
static const struct saga_field pay[] = {{F(token), SAGA_ID}, {0}};
#undef T

#define T reason
static const struct saga_field cancel[] = {{F(reason), SAGA_TEXT, 0, 256, .optional = true}, {0}};
static const struct saga_field undone[] = {{REASON}, {0}};
#undef T

#define T shipping
static const struct saga_field shipping[] = {{F(tracking), SAGA_TEXT, 0, 64, .optional = true},
                                             {0}};
#undef T

#define T rejection
static const struct saga_field rejected[] = {
    {F(request), SAGA_ID}, {REASON}, {F(status), SAGA_ID}, {0}};
#undef T

#define T shortfall
static const struct saga_field failed[] = {
    {F(reason), SAGA_NAME, .names = shortages}, {F(sku), SAGA_ID}, {0}};
#undef T

#define T money
static const struct saga_field paid[] = {{AMOUNT}, {CURRENCY}, {0}};
static const struct saga_field completed[] = {
    {F(payment_id), SAGA_ID}, {AMOUNT}, {CURRENCY}, {F(provider_ref), SAGA_TEXT, 1, 256}, {0}};
static const struct saga_field refunded[] = {
    {F(payment_id), SAGA_ID}, {AMOUNT}, {CURRENCY}, {REASON}, {0}};
#undef T

static const struct saga_field nothing[] = {{0}};

/* ---- Requests ---- */

const struct saga_event place_order = {"PlaceOrder", sizeof(struct order), placed, check_placed};
const struct saga_event pay_order = {"PayOrder", sizeof(struct pay), pay};
const struct saga_event cancel_order = {"CancelOrder", sizeof(struct reason), cancel};
const struct saga_event ship_order = {"ShipOrder", sizeof(struct shipping), shipping};
const struct saga_event complete_order = {"CompleteOrder", 0, nothing};

const struct saga_event *const all_requests[] = {&place_order, &pay_order,      &cancel_order,
                                                 &ship_order,  &complete_order, NULL};

/* ---- Events ---- */

const struct saga_event order_created = {"OrderCreated", sizeof(struct order), created,
                                         check_created};
const struct saga_event order_payment_requested = {"OrderPaymentRequested", sizeof(struct pay),
                                                   pay};
const struct saga_event order_paid = {"OrderPaid", sizeof(struct money), paid};
const struct saga_event order_cancel_requested = {"OrderCancelRequested", sizeof(struct reason),
                                                  undone};
const struct saga_event order_cancelled = {"OrderCancelled", sizeof(struct reason), undone};
const struct saga_event order_shipped = {"OrderShipped", sizeof(struct shipping), shipping};
const struct saga_event order_completed = {"OrderCompleted", 0, nothing};
const struct saga_event request_rejected = {"RequestRejected", sizeof(struct rejection), rejected};

const struct saga_event inventory_reserved = {"InventoryReserved", sizeof(struct order), reserved,
                                              check_reserved};
const struct saga_event reservation_failed = {"ReservationFailed", sizeof(struct shortfall),
                                              failed};
const struct saga_event inventory_released = {"InventoryReleased", sizeof(struct reason), undone};

const struct saga_event payment_completed = {"PaymentCompleted", sizeof(struct money), completed};
const struct saga_event payment_failed = {"PaymentFailed", sizeof(struct reason), undone};
const struct saga_event payment_voided = {"PaymentVoided", sizeof(struct reason), undone};
const struct saga_event payment_refunded = {"PaymentRefunded", sizeof(struct money), refunded};

const struct saga_event *const all_events[] = {
    &order_created,      &order_payment_requested, &order_paid,         &order_cancel_requested,
    &order_cancelled,    &order_shipped,           &order_completed,    &request_rejected,
    &inventory_reserved, &reservation_failed,      &inventory_released, &payment_completed,
    &payment_failed,     &payment_voided,          &payment_refunded,   NULL};
