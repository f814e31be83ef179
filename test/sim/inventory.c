/* inventory-svc in the simulation: what its main.c says of it, and its rows for the invariants. */
#include "inventory-svc/inventory.h"

#include "sim.h"

static const struct saga_service service = {
    .name = "inventory",
    .events = (const char *[]){"order.events", "payment.events", NULL},
    .states = inventory_states,
    .rules = inventory_rules,
    .emits = inventory_emits,
    .orders = &reservation_table,
    .shared = &stock_table,
    .log = &movement_table,
    .names = inventory_names,
};

const struct sim_service sim_inventory = {&service, NULL};

struct reservation_view reservation_view(const void *row)
{
    const struct reservation *reservation = row;

    return (struct reservation_view){reservation->row.state, &reservation->lines};
}

struct stock_view stock_view(const void *row)
{
    const struct stock *stock = row;

    return (struct stock_view){stock->available, stock->reserved, stock->shipped, stock->received};
}

void stock_put(void *row, int64_t available)
{
    struct stock *stock = row;

    stock->received += available - stock->available;
    stock->available = available;
    stock->version++;
    stock->row.stored = true;
}

struct movement_view movement_view(const void *row)
{
    const struct movement *movement = row;

    return (struct movement_view){movement->sku, movement_kinds[movement->kind],
                                  movement->quantity};
}
