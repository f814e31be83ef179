/* A whole installation for tests: topics and a database of its own, services started and killed at
 * will, orders placed, and a way to know that nothing moves any more. */
#ifndef WORLD_H
#define WORLD_H

#include <jansson.h>

#include "db.h"
#include "kafka.h"
#include "proc.h"
#include "test.h"

enum { ORDER, INVENTORY, PAYMENT, SERVICES };
enum { MEMBERS_MAX = 16 };

/* A process of a service. number is its SAGA_INSTANCE's: the same after a restart. */
struct member {
    int service, number;
    struct proc *proc; /* NULL: it does not run */
    int port;          /* of its HTTP, 0: not known yet */
};

struct world {
    char name[32], prefix[64], database[64];
    int lanes;
    bool topics;                 /* made, to be dropped */
    const char *const *settings; /* "NAME=value" up to NULL, of all services; or NULL */
    struct db *db;
    struct member member[MEMBERS_MAX];
    int members;
};

extern const char *const service_names[]; /* "order", ... */

/* Makes topics and database, starts nothing. */
struct world *world_new(const char *name, int lanes, const char *const *settings);
/* Without topics: its Kafka is another than KAFKA_BOOTSTRAP_SERVERS, and settings say which. */
struct world *world_new_elsewhere(const char *name, int lanes, const char *const *settings);
void world_free(struct world *w); /* kills what runs, drops topics and database */

/* Starts process number of a service; does not wait for it. */
struct member *world_start(struct world *w, int service, int number);
/* As above, one that ends at a failpoint: "name:n" of libsaga/failpoint.h. */
struct member *world_start_failing(struct world *w, int service, int number, const char *fail);
void world_start_all(struct world *w); /* number 0 of each service, and waits until all are ready */
struct member *world_member(struct world *w, int service, int number); /* fails if there is none */
void world_kill(struct member *m);                                     /* -9 */
void world_stop(struct member *m);     /* SIGTERM; it must end with 0 in 6 s */
bool world_is_ready(struct member *m); /* /readyz is 200 */
const char *world_url(struct member *m, const char *path);
/* All lanes of each service are running at the processes that live. Fails if one is stopped. */
bool world_is_whole(struct world *w);

/* Nothing moves any more: every record is read, everything is published, no call is open. */
void world_settle(struct world *w, double seconds);

/* ---- Orders ---- */
const char *world_topic(const struct world *w, const char *topic);
/* Queues a request in JSON, keyed by its order. kafka_flush() sends. */
void world_ask(struct world *w, const char *order, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* PlaceOrder with lines "apple 2 150, pear 1 99" (sku, quantity, price) and a token; token
 * "later": the customer pays later. */
void world_place(struct world *w, const char *order, const char *lines, const char *token);
const char *world_place_json(const char *order, const char *lines, const char *token);
void world_stock(struct world *w, const char *sku, int64_t quantity); /* POST */
/* "PAID HELD COMPLETED": of order, reservation and payment, "-" where there is none. */
const char *world_state(struct world *w, const char *order);
/* Types of an order's events in a topic as it was read, without repeats: "OrderCreated OrderPaid".
 */
const char *world_history(const struct kafka_log *log, const char *order);

/* A load of all kinds of orders, ids "<name>-<n>": paid, declined, without stock, cancelled, paid
 * later, of an unsure provider, several lines. world_loaded: each has ended as it must. The SKUs
 * are made by world_stock_load. */
void world_stock_load(struct world *w);
void world_load(struct world *w, const char *name, int from, int to);
void world_loaded(struct world *w, const char *name, int n);

/* The invariants of RULES.md, from outside; the world must have settled. -> what they held for */
struct world_found {
    int64_t orders, skus, movements, books; /* rows; books: entries of the provider's ledger */
    int64_t records, events;   /* on the topics of events; of them, first occurrences */
    int64_t sequences;         /* of one order's events, in each service */
    int64_t requests, letters; /* records; places of dead ones */
};
struct world_found world_audit(struct world *w);

#endif
