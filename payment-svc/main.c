/* payment-svc: charges what is reserved, and gives it back when the order is cancelled. */
#include "payment.h"
#include "provider.h"
#include "sql.h"

/* clang-format off */
int main(int argc, char **argv)
{
    return saga_main(argc, argv, &(struct saga_service){
        .name = "payment",
        .about = "charges what is reserved, gives it back when the order is cancelled",
        .events = (const char *[]){"order.events", "inventory.events", NULL},
        .states = payment_states, .rules = payment_rules, .emits = payment_emits,
        .orders = &payment_table, .due = payment_due, .migrations = migrations,
        .call = payment_call, .settings = payment_settings, .fits = payment_settings_fit,
        .routes = payment_routes, .http_port = 8083,
    });
}
