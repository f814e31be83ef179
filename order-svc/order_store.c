/* The table orders: its columns and its SQL. */
#include "order.h"

#define F(member) SAGA_AT(struct T, member)

#define T change
static const struct saga_field change_fields[] = {{F(status), SAGA_NAME, .names = order_states},
                                                  {F(at), SAGA_TIME},
                                                  {F(reason), SAGA_TEXT, 1, 256, .optional = true},
                                                  {F(cause), SAGA_TEXT, 1, 512},
                                                  {0}};
#undef T

/* What never changes stands first here and in the table. The history has at most four entries. */
#define T          sale
#define AT(member) offsetof(struct T, member)
static const struct saga_field columns[] = {
    {"order_id", AT(row.key), SAGA_ID, .fixed = true},
    {"lane", AT(row.lane), SAGA_INT, 0, INT32_MAX, .fixed = true},
    {"created_at", AT(row.created), SAGA_TIME, .fixed = true},
    {"amount", AT(order.amount), SAGA_INT, 0, MAX_AMOUNT, .fixed = true},
    {"customer_id", AT(order.customer_id), SAGA_ID, .fixed = true},
    {"currency", AT(order.currency), SAGA_CODE, 3, 3, .fixed = true},
    {"payment_mode", AT(order.payment.mode), SAGA_NAME, .names = modes, .fixed = true},
    {"payment_token", AT(order.payment.token), SAGA_ID, .optional = true, .fixed = true},
    {"lines", AT(order.lines), SAGA_LIST, 1, MAX_LINES, line_fields, sizeof(struct line),
     .fixed = true},
    {"state", AT(row.state), SAGA_NAME, .names = order_states},
    {F(requested), SAGA_BOOL},
    {"due", AT(row.due), SAGA_TIME, .optional = true},
    {"cause", AT(row.cause), SAGA_TEXT, 1, 512, .optional = true},
    {"trace", AT(row.trace), SAGA_TEXT, 1, 512, .optional = true},
    {F(reason), SAGA_TEXT, 1, 256, .optional = true},
    {F(tracking), SAGA_TEXT, 0, 64, .optional = true},
    {F(history), SAGA_LIST, 1, 16, change_fields, sizeof(struct change)},
    {0}};
#undef T

/* clang-format off */
const struct saga_table order_table = {
    sizeof(struct sale), columns,

    .load =
    "select order_id, lane, created_at, amount, customer_id, currency, payment_mode, payment_token,"
    "       lines, state, requested, due, cause, trace, reason, tracking, history"
    "  from orders"
    " where order_id = any($1)",

    .insert =
    "insert into orders (order_id, lane, created_at, amount, customer_id, currency, payment_mode,"
    "                    payment_token, lines, state, requested, due, cause, trace, reason,"
    "                    tracking, history)"
    " select *"
    "   from unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::text[],"
    "               $6::text[], $7::text[], $8::text[], $9::jsonb[], $10::text[], $11::boolean[],"
    "               $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::text[],"
    "               $17::jsonb[])",

    .update =
    "update orders o"
    "   set state = n.state, requested = n.requested, due = n.due, cause = n.cause,"
    "       trace = n.trace, reason = n.reason, tracking = n.tracking, history = n.history"
    "  from unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::text[],"
    "              $6::text[], $7::text[], $8::text[], $9::jsonb[])"
    "       n(order_id, state, requested, due, cause, trace, reason, tracking, history)"
    " where o.order_id = n.order_id",
};

/* Lane by lane in the order of the index: a plain index scan, which leaves a mark at the entries of
 * orders that are paid by now, so that they are passed over until vacuum comes. A bitmap would not. */
/* Table due says where to look, the order's row decides. */
const char order_due[] =
    "select o.order_id"
    "  from due d cross join unnest(d.keys) k(key) join orders o on o.order_id = k.key"
    " where d.lane = any($1::int[]) and d.at <= $2 and o.due <= $2"
    " limit 500";
/* clang-format on */
