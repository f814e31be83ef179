/* The inventory's rules: RULES.md, "Inventory". */
#include "inventory.h"

/* Moves the reservation's lines, never the event's, between the counts of their stock. */
static void move(struct saga_step *step, enum kind kind)
{
    const struct lines *lines = &((const struct reservation *)step->row)->lines;

    for (int i = 0; i < lines->n; i++) {
        const int64_t q = lines->at[i].quantity;
        struct stock *stock = saga_share(step, lines->at[i].sku);
        stock->available += kind == KIND_RESERVED ? -q : kind == KIND_RELEASED ? q : 0;
        stock->reserved += kind == KIND_RESERVED ? q : -q;
        stock->shipped += kind == KIND_SHIPPED ? q : 0;
        stock->version++;
        saga_log(step, &(struct movement){stock->row.key, kind, q, step->key, step->id, step->now});
    }
}

static struct reservation *become(struct saga_step *step, enum state state)
{
    struct reservation *reservation = saga_change(step);

    reservation->row.state = state;
    return reservation;
}

/* The first line that the stock cannot serve, or NULL. */
static const struct line *lacking(const struct saga_step *step, const struct lines *lines)
{
    for (int i = 0; i < lines->n; i++) {
        const struct stock *stock = saga_see(step, lines->at[i].sku);
        if (stock->available < lines->at[i].quantity)
            return &lines->at[i];
    }
    return NULL;
}

/* All lines or none. */
static void reserve(struct saga_step *step)
{
    const struct order *order = step->data;
    const struct line *line = lacking(step, &order->lines);

    if (line) {
        const struct stock *stock = saga_see(step, line->sku);
        enum shortage why = stock->row.stored ? OUT_OF_STOCK : UNKNOWN_SKU;
        become(step, FAILED);
        saga_emit(step, &reservation_failed, &(struct shortfall){why, line->sku});
        return;
    }
    become(step, HELD)->lines = order->lines;
    move(step, KIND_RESERVED);
    saga_emit(step, &inventory_reserved, order);
}

/* Also the tombstone of an order not known yet: it has no lines to give back. */
static void release(struct saga_step *step)
{
    const char *reason = step->input == &payment_refunded
                             ? ((const struct money *)step->data)->reason
                             : ((const struct reason *)step->data)->reason;

    become(step, RELEASED);
    move(step, KIND_RELEASED);
    saga_emit(step, &inventory_released, &(struct reason){reason});
}

static void ship(struct saga_step *step)
{
    become(step, SHIPPED);
    move(step, KIND_SHIPPED);
}

/* ---- The table. An input without a row is "-" in every state. ---- */

#define ____ saga_nothing
#define XXXX saga_impossible

const char *const inventory_states[] = {"NONE", "HELD", "FAILED", "RELEASED", "SHIPPED", NULL};

/* clang-format off */
const struct saga_rule inventory_rules[] = {
    /*                    NONE     HELD     FAILED RELEASED SHIPPED */
    {&order_created,    { reserve, XXXX,    XXXX,  ____,    XXXX }},
    {&payment_failed,   { XXXX,    release, XXXX,  XXXX,    XXXX }},
    {&payment_voided,   { release, release, ____,  XXXX,    XXXX }},
    {&payment_refunded, { XXXX,    release, XXXX,  XXXX,    XXXX }},
    {&order_shipped,    { XXXX,    ship,    XXXX,  XXXX,    XXXX }},
    {0}
};
/* clang-format on */

const struct saga_event *const inventory_emits[] = {&inventory_reserved, &reservation_failed,
                                                    &inventory_released, NULL};

/* The stock that an input names: a new order its own lines, all else those of the reservation. An
 * order that comes in the same batch as its end has named them itself. */
bool inventory_names(const struct saga_step *step,
                     void (*share)(const struct saga_step *step, const char *key))
{
    const struct reservation *held = step->row;
    const struct lines *lines = NULL;

    if (step->input == &order_created)
        lines = &((const struct order *)step->data)->lines;
    else if (!held)
        return false; /* stock_table's load finds them by the reservation's row */
    else if (held->row.state == HELD)
        lines = &held->lines;
    for (int i = 0; lines && i < lines->n; i++)
        share(step, lines->at[i].sku);
    return true;
}
