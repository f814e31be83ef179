/* inventory-svc: reserves stock for orders, gives it back, and sees it leave. */
#include "inventory.h"
#include "sql.h"

/* clang-format off */
int main(int argc, char **argv)
{
    return saga_main(argc, argv, &(struct saga_service){
        .name = "inventory",
        .about = "reserves stock for orders, gives it back, and sees it leave",
        .events = (const char *[]){"order.events", "payment.events", NULL},
        .states = inventory_states, .rules = inventory_rules, .emits = inventory_emits,
        .orders = &reservation_table, .shared = &stock_table, .log = &movement_table,
        .names = inventory_names, .migrations = migrations,
        .routes = inventory_routes, .http_port = 8082,
    });
}
