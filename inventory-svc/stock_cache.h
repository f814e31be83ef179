/* The stock query behind a cache in Redis. Who reads comes in by stock_cache_get(), who writes says so
 * before its COMMIT and after. What it promises: an answer is that of the database, now or at most a
 * second ago, whatever becomes of Redis, of this process and of others (cache_private.h says how); a
 * SKU that exists is never said not to. Without REDIS_URL, and as long as the promise could not be
 * kept, every question goes to the database. */
#ifndef STOCK_CACHE_H
#define STOCK_CACHE_H

#include "http.h"
#include "saga.h"

extern const struct saga_setting stock_cache_settings[];
int stock_cache_start(const struct saga_conf *conf, struct saga_err *err);
void stock_cache_stop(void); /* nothing is written any more */
const char *stock_cache_degraded(char *text, size_t n);

/* ---- Reading ---- */

/* A row as it is answered: body NULL is no such SKU. */
struct stock_answer {
    int64_t version;
    const char *body; /* of the request's arena */
    size_t n;
};
/* read: asks the database, on a worker. -> 0, or an error that it has answered by itself; answer: of
 * a request that has not been answered, on any thread. */
struct stock_reader {
    int (*read)(struct saga_request *req, const char *sku, struct stock_answer *answer);
    void (*answer)(struct saga_request *req, const char *sku, const struct stock_answer *answer);
};
/* A handler's last call, of a route of SAGA_AT_ONCE. Takes req. */
void stock_cache_get(struct saga_request *req, const char *sku, const struct stock_reader *reader);

/* ---- Writing ---- */

/* A change that is about to be committed in a session, a process id of the server's. Copies. NULL: there
 * is no cache. */
struct stock_change *stock_cache_storing(const char *sku, int64_t version, int session);
/* Takes change. known: it is over, in one way or the other. Then this waits until others are told, if they
 * can be told at once: who is answered reads what he wrote. */
void stock_cache_stored(struct stock_change *change, bool known);
/* Before the COMMIT of a SKU that is new, inside its transaction, with stock_cache_creating_lock held:
 * from here on nobody says that there is none. -> 0; SAGA_RETRY. It may take two seconds when Redis has
 * just gone. */
extern const char stock_cache_creating_lock[];
int stock_cache_creating(const char *sku, struct saga_err *err);

/* The hooks of struct saga_service, of the engine's thread. */
void stock_cache_batch_storing(const void *const *rows, int n, int session);
void stock_cache_batch_stored(bool committed, bool known);

#endif
