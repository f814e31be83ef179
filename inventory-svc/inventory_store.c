/* The inventory's tables: reservation, stock and stock_movement, their columns and their SQL. */
#include "inventory.h"

#define F(member)  SAGA_AT(struct T, member)
#define AT(member) offsetof(struct T, member)
#define COUNT      SAGA_INT, 0, INT64_MAX

/* clang-format off */
/* Nothing is due here and nothing is called, so no row needs its cause and trace, nor its lane. */
#define T reservation
static const struct saga_field reservation_columns[] = {
    {"order_id", AT(row.key), SAGA_ID, .fixed = true},
    {F(lines), SAGA_LIST, 0, MAX_LINES, reserved_fields, sizeof(struct line), .optional = true,
     .fixed = true},
    {"state", AT(row.state), SAGA_NAME, .names = inventory_states},
    {0}};
#undef T

const struct saga_table reservation_table = {
    sizeof(struct reservation), reservation_columns,

    .load =
    "select order_id, lines, state"
    "  from reservation"
    " where order_id = any($1)",

    .insert =
    "insert into reservation (order_id, lines, state)"
    " select unnest($1::text[]), unnest($2::json[]), unnest($3::text[])",

    .update =
    "update reservation r"
    "   set state = n.state"
    "  from (select unnest($1::text[]) order_id, unnest($2::text[]) state) n"
    " where r.order_id = n.order_id",
};

/* received is fixed as far as rules go: only a POST changes it. */
#define T stock
static const struct saga_field stock_columns[] = {
    {"sku", AT(row.key), SAGA_ID, .fixed = true},
    {F(received), COUNT, .fixed = true},
    {F(available), COUNT},
    {F(reserved), COUNT},
    {F(shipped), COUNT},
    {F(version), COUNT},
    {0}};
#undef T

/* Stock is shared by the lanes. Every writer locks its rows in the order of sku, so none waits in a
 * ring. "= any" of one array keeps every plan on the primary key ("in (select ...)" would read the
 * whole table), and when $2 is empty the reservations are not touched. Rules never make a row of
 * stock, they only see that it is not there: no insert. */
const struct saga_table stock_table = {
    sizeof(struct stock), stock_columns,

    .load =
    "select sku, received, available, reserved, shipped, version"
    "  from stock"
    " where sku = any($1::text[] || array(select line->>'sku'"
    "                                       from reservation, json_array_elements(lines) line"
    "                                      where order_id = any($2) and state = 'HELD'))"
    " order by sku"
    "   for no key update of stock",

    .update =
    "update stock s"
    "   set available = n.available, reserved = n.reserved, shipped = n.shipped,"
    "       version = n.version"
    "  from (select unnest($1::text[]) sku, unnest($2::bigint[]) available,"
    "               unnest($3::bigint[]) reserved, unnest($4::bigint[]) shipped,"
    "               unnest($5::bigint[]) version) n"
    " where s.sku = n.sku",
};

const char *const movement_kinds[] = {"", "received", "reserved", "released", "shipped", NULL};

#define T movement
static const struct saga_field movement_columns[] = {
    {F(sku), SAGA_ID},
    {F(kind), SAGA_NAME, .names = movement_kinds},
    {F(quantity), SAGA_INT, INT64_MIN, INT64_MAX},
    {F(order_id), SAGA_ID},
    {F(event_id), SAGA_TEXT, 1, 512},
    {F(at), SAGA_TIME},
    {0}};
#undef T

const struct saga_table movement_table = {
    sizeof(struct movement), movement_columns,

    .insert =
    "insert into stock_movement (sku, kind, quantity, order_id, event_id, at)"
    " select unnest($1::text[]), unnest($2::text[]), unnest($3::bigint[]), unnest($4::text[]),"
    "        unnest($5::text[]), unnest($6::timestamptz[])",
};
/* clang-format on */
