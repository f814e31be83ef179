/* What the files of order-svc's HTTP share: order_http.c (answers, and what is read), order_ask.c (what is
 * asked for), order_try.c (what the rules would say), order_wait.c (those that wait). */
#ifndef ORDER_HTTP_H
#define ORDER_HTTP_H

#include "http.h"
#include "order.h"

/* ---- order_http.c ---- */

/* clang-format off */
#define ORDER_COLUMNS                                                                              \
    "o.order_id, o.lane, o.state, o.customer_id, o.currency, o.amount, o.payment_mode,"            \
    " o.requested, o.lines, o.reason, o.tracking, o.created_at, o.due, o.history"
/* clang-format on */
enum { ORDER_COLUMNS_N = 14 };

/* The order of row i, whose columns stand from first on; NULL: it is none (order_id is null). */
json_t *order_json(const struct saga_rows *rows, int i, int first);
/* 404 to who asks for an order that is not there. */
void order_reply_unknown(struct saga_request *req, const char *order_id);
/* What a rejection comes to: 404, 409, or 422 where the order was named by an Idempotency-Key. */
void order_reply_rejected(struct saga_request *req, const char *request, const char *order_id,
                          const char *reason, const char *status, bool by_key);

/* ---- order_ask.c: handlers ---- */

void order_place(struct saga_request *req);
void order_pay(struct saga_request *req);
void order_cancel(struct saga_request *req);
void order_ship(struct saga_request *req);
void order_complete(struct saga_request *req);

enum { ORDER_KEY_MAX = 255, ORDER_ID_TEXT = 37 };
/* The order that an Idempotency-Key names: a UUIDv5, the same for ever. The quotes of a structured
 * field's string do not count. -> false: it is empty, longer than ORDER_KEY_MAX, or has other than
 * visible ASCII. */
bool order_id_of_key(const char *key, char id[ORDER_ID_TEXT]);

/* ---- order_try.c ---- */

/* The order's row, in arena. -> 1, 0: there is none, or an error of the database */
int order_load(struct saga_pg *pg, const char *order_id, struct saga_arena *arena,
               const struct sale **sale, struct saga_err *err);
/* What the rules would say to the request now, without doing it. sale: or NULL, there is no such
 * order. -> the reason of a rejection, or NULL: it would act, or change nothing. In arena. */
const char *order_refusal(const struct sale *sale, const char *order_id,
                          const struct saga_event *request, const void *data,
                          struct saga_arena *arena);

/* ---- order_wait.c ---- */

enum { ORDER_WAIT_MAX = 30 /* s */ };
/* "Prefer: respond-async, wait=10" (RFC 7240) -> 10, at most ORDER_WAIT_MAX; -1: it does not say. */
int order_prefers_wait(const char *prefer);

struct order_wait {
    struct saga_request *req;
    const char *order_id; /* all texts live as long as the request */
    /* What was asked, and where it stands; NULL and -1: nothing, or before this. */
    const char *request, *request_id;
    int64_t lane, offset;
    bool by_key; /* its order was named by an Idempotency-Key */
    int seconds; /* -1: it does not wait */
    /* of order_wait.c */
    int64_t until; /* ms, monotonic */
    bool over;     /* it has come */
    int row;       /* of the look, -1: none */
    struct order_wait *next;
};
/* Takes w with its request (saga_later() is said), and answers when the order has left CREATED and
 * CANCELLING, the request was rejected, or the time is up; whoever owns the lane. -> false: nothing is
 * taken, too many wait or we are stopping */
bool order_wait(struct order_wait *w);
/* The answer of who does not wait, or has waited in vain: 202. status: of the order, or NULL. */
void order_reply_accepted(struct saga_request *req, const struct order_wait *w, const char *status);

#endif
