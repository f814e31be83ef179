/* An order's payment: its row, and the rules over it (RULES.md, "Payment"). */
#ifndef PAYMENT_H
#define PAYMENT_H

#include "events.h"
#include "saga.h"

/* AWAITING: reserved, the customer pays later. REQUESTED: asked to pay before the reservation was
 * known here. CHARGING: the intent is committed, the outcome not known. */
enum state { NONE, AWAITING, REQUESTED, CHARGING, COMPLETED, FAILED, REFUNDING, REFUNDED, VOIDED };
enum purpose { CHARGE, REFUND };
enum outcome { SUCCEEDED, DECLINED, REFUSED, UNKNOWN };

/* What the provider said. A refund is tried for ever, so a list of them keeps its first and its
 * last; skipped is how many were left out before this one. */
struct attempt {
    int kind;    /* enum purpose */
    int outcome; /* enum outcome */
    int64_t at;
    const char *ref, *reason; /* or NULL */
    int64_t skipped;
};
struct attempts {
    int n;
    struct attempt *at;
};
enum { ATTEMPTS_FIRST = 2, ATTEMPTS_MAX = 10 };

struct bill {
    struct saga_row row; /* due: when the provider is asked again */
    int64_t amount;
    const char *currency, *token;
    const char *payment_id, *provider_ref; /* of the charge */
    const char *reason; /* of the end: why cancelled, also while CHARGING; or why declined */
    bool cancel;        /* CHARGING: refund what succeeds */
    int64_t calls;      /* made for the charge, then for the refund */
    int64_t asked;      /* when the first of these was made */
    struct attempts attempts;
};

/* payment.c */
extern const char *const payment_states[], *const payment_kinds[], *const payment_outcomes[];
extern const struct saga_rule payment_rules[];
extern const struct saga_event *const payment_emits[];
extern int64_t payment_call_timeout; /* SAGA_CALL_TIMEOUT, microseconds */

/* payment_store.c */
extern const struct saga_table payment_table;
extern const char payment_due[];

/* payment_http.c */
struct saga_route;
extern const struct saga_route *const payment_routes;

#endif
