/* Stock and reservations: their rows, and the rules over them (RULES.md, "Inventory"). */
#ifndef INVENTORY_H
#define INVENTORY_H

#include "events.h"
#include "mem.h"
#include "saga.h"

enum state { NONE, HELD, FAILED, RELEASED, SHIPPED };
enum kind { KIND_NONE, KIND_RECEIVED, KIND_RESERVED, KIND_RELEASED, KIND_SHIPPED };

#define MAX_STOCK INT64_C(1000000000000) /* pieces of one SKU that a POST may set */

/* Of an order. No lines: FAILED, or the tombstone of an order cancelled before it was known. */
struct reservation {
    struct saga_row row;
    struct lines lines;
};

/* Of a SKU, which is the row's key. available + reserved + shipped = received. */
struct stock {
    struct saga_row row;
    int64_t available, reserved, shipped, received;
    int64_t version; /* one more with each change: for If-Match */
};

struct movement {
    const char *sku;
    int kind;
    int64_t quantity;
    const char *order_id, *event_id;
    int64_t at;
};

/* inventory.c */
extern const char *const inventory_states[];
extern const struct saga_rule inventory_rules[];
extern const struct saga_event *const inventory_emits[];
bool inventory_names(const struct saga_step *step,
                     void (*share)(const struct saga_step *step, const char *key));

/* inventory_store.c */
extern const struct saga_table reservation_table, stock_table, movement_table;
extern const char *const movement_kinds[]; /* enum kind */

/* inventory_http.c */
struct saga_route;
extern const struct saga_route *const inventory_routes;
void inventory_json(const struct stock *stock, struct saga_buf *out); /* as GET answers it */

#endif
