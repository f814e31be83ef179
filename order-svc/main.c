/* order-svc: takes requests and says what an order has come to. */
#include "http.h"
#include "order.h"
#include "sql.h"

/* clang-format off */
int main(int argc, char **argv)
{
    return saga_main(argc, argv, &(struct saga_service){
        .name = "order",
        .about = "takes requests and says what an order has come to",
        .requests = "order.requests", .accepts = all_requests, .creates = &place_order,
        .events = order_reads,
        .states = order_states, .rules = order_rules, .emits = order_emits,
        .orders = &order_table, .log = &refusal_table, .due = order_due, .migrations = migrations,
        .routes = order_routes, .http_port = 8081,
        .settings = order_settings,
    });
}
