/* inventory-svc: reserves stock for orders, gives it back, and sees it leave. */
#include "inventory.h"
#include "sql.h"
#include "stock_cache.h"

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
        .start = stock_cache_start, .stop = stock_cache_stop, .degraded = stock_cache_degraded,
        .storing = stock_cache_batch_storing, .stored = stock_cache_batch_stored,
        .routes = inventory_routes, .settings = stock_cache_settings, .http_port = 8082,
    });
}
