/* The tables orders and refusal: their columns and their SQL. */
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
    " select unnest($1::text[]), unnest($2::bigint[]), unnest($3::timestamptz[]),"
    "        unnest($4::bigint[]), unnest($5::text[]), unnest($6::text[]), unnest($7::text[]),"
    "        unnest($8::text[]), unnest($9::json[]), unnest($10::text[]),"
    "        unnest($11::boolean[]), unnest($12::timestamptz[]), unnest($13::text[]),"
    "        unnest($14::text[]), unnest($15::text[]), unnest($16::text[]), unnest($17::json[])",

    .update =
    "update orders o"
    "   set state = n.state, requested = n.requested, due = n.due, cause = n.cause,"
    "       trace = n.trace, reason = n.reason, tracking = n.tracking, history = n.history"
    "  from (select unnest($1::text[]) order_id, unnest($2::text[]) state,"
    "               unnest($3::boolean[]) requested, unnest($4::timestamptz[]) due,"
    "               unnest($5::text[]) cause, unnest($6::text[]) trace,"
    "               unnest($7::text[]) reason, unnest($8::text[]) tracking,"
    "               unnest($9::json[]) history) n"
    " where o.order_id = n.order_id",
};

#define T refusal
static const struct saga_field refusal_columns[] = {
    {F(lane), SAGA_INT, 0, INT32_MAX},
    {F(at), SAGA_TIME},
    {F(request_id), SAGA_TEXT, 1, 512},
    {F(reason), SAGA_TEXT, 1, 256},
    {F(status), SAGA_ID},
    {0}};
#undef T

/* Who waits looks many times a second, so a minute is enough: the next refusal of the lane removes what
 * is older. A lane has one writer, which therefore waits for nobody here. */
const struct saga_table refusal_table = {
    sizeof(struct refusal), refusal_columns,

    .insert =
    "with old as (delete from refusal"
    "              where lane = any($1::bigint[]) and at < now() - interval '1 min')"
    " insert into refusal (lane, at, request_id, reason, status)"
    " select unnest($1::bigint[]), unnest($2::timestamptz[]), unnest($3::text[]),"
    "        unnest($4::text[]), unnest($5::text[])",
};

/* Table due says where to look, the order's row decides. With offset 0 PostgreSQL looks up key by key, and does not join
 * by the deadline first, which reads every row there is (its plan is that of empty tables). */
const char order_due[] =
    "select o.order_id, (extract(epoch from d.at) * 1000000)::bigint"
    "  from due d cross join unnest(d.keys) k(key)"
    " cross join lateral (select order_id from orders where order_id = k.key and due = d.at offset 0) o"
    " where d.lane = any($1::int[]) and d.at <= $2 and k.key <> all($3::text[])"
    " order by d.at"
    " limit 500";
/* clang-format on */
