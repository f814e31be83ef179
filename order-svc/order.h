/* An order: its row, and the rules over it (RULES.md, "Order"). */
#ifndef ORDER_H
#define ORDER_H

#include "events.h"
#include "saga.h"

/* CANCELLING is the semantic lock while the reverse chain runs: payment, inventory, then we. */
enum state { NONE, CREATED, PAID, CANCELLING, CANCELLED, SHIPPED, COMPLETED };

struct change { /* an entry of the history: the row became status at this time */
    int status;
    int64_t at;
    const char *reason; /* or NULL */
    const char *cause;  /* event id, or the request's topic/partition/offset */
};
struct history {
    int n;
    struct change *at;
};

struct sale {
    struct saga_row row; /* due is the deadline of RULES.md: in force only in CREATED */
    struct order order;
    bool requested;       /* mode later: the customer has asked to pay */
    const char *reason;   /* why it is being or was cancelled, the first one; or NULL */
    const char *tracking; /* or NULL */
    struct history history;
};

/* A request that was rejected, for those who wait for what becomes of it (order_wait.c). */
struct refusal {
    int64_t lane, at;
    const char *request_id, *reason, *status;
};

/* order.c */
extern const char *const order_states[];
extern const struct saga_rule order_rules[];
extern const struct saga_event *const order_emits[];
extern const char *const order_reads[]; /* topics */
extern const struct saga_setting order_settings[];
extern int64_t order_pay_timeout; /* SAGA_PAY_TIMEOUT, microseconds */

/* order_store.c */
extern const struct saga_table order_table, refusal_table;
extern const char order_due[];

/* order_http.c */
struct saga_route;
extern const struct saga_route *const order_routes;

#endif
