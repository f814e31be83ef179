/* The table payment: its columns and its SQL. */
#include "payment.h"

#define F(member)  SAGA_AT(struct T, member)
#define AT(member) offsetof(struct T, member)

/* clang-format off */
#define T attempt
static const struct saga_field attempt_fields[] = {
    {F(kind), SAGA_NAME, .names = payment_kinds},
    {F(at), SAGA_TIME},
    {F(outcome), SAGA_NAME, .names = payment_outcomes},
    {F(ref), SAGA_TEXT, 1, 256, .optional = true},
    {F(reason), SAGA_TEXT, 1, 256, .optional = true},
    {F(skipped), SAGA_INT, 0, INT64_MAX, .optional = true},
    {0}};
#undef T

/* Amount, currency and token are not fixed: of an order that is paid later they come one by one. */
#define T bill
static const struct saga_field columns[] = {
    {"order_id", AT(row.key), SAGA_ID, .fixed = true},
    {"lane", AT(row.lane), SAGA_INT, 0, INT32_MAX, .fixed = true},
    {"created_at", AT(row.created), SAGA_TIME, .fixed = true},
    {F(amount), SAGA_INT, 0, MAX_AMOUNT, .optional = true},
    {F(currency), SAGA_CODE, 3, 3, .optional = true},
    {F(token), SAGA_ID, .optional = true},
    {F(payment_id), SAGA_ID, .optional = true},
    {F(cancel), SAGA_BOOL},
    {F(calls), SAGA_INT, 0, INT32_MAX},
    {"cause", AT(row.cause), SAGA_TEXT, 1, 512, .optional = true},
    {"trace", AT(row.trace), SAGA_TEXT, 1, 512, .optional = true},
    {"state", AT(row.state), SAGA_NAME, .names = payment_states},
    {"due", AT(row.due), SAGA_TIME, .optional = true},
    {F(provider_ref), SAGA_TEXT, 1, 256, .optional = true},
    {F(reason), SAGA_TEXT, 1, 256, .optional = true},
    {F(attempts), SAGA_LIST, 0, ATTEMPTS_MAX, attempt_fields, sizeof(struct attempt),
     .optional = true},
    {"asked_at", AT(asked), SAGA_TIME, .optional = true},
    {0}};
#undef T

const struct saga_table payment_table = {
    sizeof(struct bill), columns,

    .load =
    "select order_id, lane, created_at, amount, currency, token, payment_id, cancel, calls, cause,"
    "       trace, state, due, provider_ref, reason, attempts, asked_at"
    "  from payment"
    " where order_id = any($1)",

    .insert =
    "insert into payment (order_id, lane, created_at, amount, currency, token, payment_id, cancel,"
    "                     calls, cause, trace, state, due, provider_ref, reason, attempts,"
    "                     asked_at)"
    " select unnest($1::text[]), unnest($2::bigint[]), unnest($3::timestamptz[]),"
    "        unnest($4::bigint[]), unnest($5::text[]), unnest($6::text[]), unnest($7::text[]),"
    "        unnest($8::boolean[]), unnest($9::bigint[]), unnest($10::text[]),"
    "        unnest($11::text[]), unnest($12::text[]), unnest($13::timestamptz[]),"
    "        unnest($14::text[]), unnest($15::text[]), unnest($16::json[]),"
    "        unnest($17::timestamptz[])",

    .update =
    "update payment p"
    "   set amount = n.amount, currency = n.currency, token = n.token,"
    "       payment_id = n.payment_id, cancel = n.cancel, calls = n.calls, cause = n.cause,"
    "       trace = n.trace, state = n.state, due = n.due, provider_ref = n.provider_ref,"
    "       reason = n.reason, attempts = n.attempts, asked_at = n.asked_at"
    "  from (select unnest($1::text[]) order_id, unnest($2::bigint[]) amount,"
    "               unnest($3::text[]) currency, unnest($4::text[]) token,"
    "               unnest($5::text[]) payment_id, unnest($6::boolean[]) cancel,"
    "               unnest($7::bigint[]) calls, unnest($8::text[]) cause,"
    "               unnest($9::text[]) trace, unnest($10::text[]) state,"
    "               unnest($11::timestamptz[]) due, unnest($12::text[]) provider_ref,"
    "               unnest($13::text[]) reason, unnest($14::json[]) attempts,"
    "               unnest($15::timestamptz[]) asked_at) n"
    " where p.order_id = n.order_id",
};

/* Table due says where to look, the payment's row decides. With offset 0 PostgreSQL looks up key by key, and does not join
 * by the deadline first, which reads every row there is (its plan is that of empty tables). */
const char payment_due[] =
    "select p.order_id, (extract(epoch from d.at) * 1000000)::bigint"
    "  from due d cross join unnest(d.keys) k(key)"
    " cross join lateral (select order_id from payment where order_id = k.key and due = d.at offset 0) p"
    " where d.lane = any($1::int[]) and d.at <= $2 and k.key <> all($3::text[])"
    " order by d.at"
    " limit 500";
/* clang-format on */
