/* A request inside HTTP: what http.c (the thread of all connections), http_conn.c (their time),
 * http_rules.c (what is wrong with a request), http_reply.c (answers), http_work.c (workers) and
 * http_count.c (metrics) share. It belongs to one thread at a time: the HTTP thread, then perhaps a
 * worker or whom the handler gives it to, in the end the HTTP thread again. */
#ifndef SAGA_HTTP_PRIVATE_H
#define SAGA_HTTP_PRIVATE_H

#include <microhttpd.h>
#include <time.h>

#include "http.h"
#include "mem.h"

enum { SAGA_HTTP_PARAMS = 4, SAGA_HTTP_HEADERS = 8 };
enum {
    SAGA_BODY_MAX = 64 * 1024,
    SAGA_BODY_DRAIN = 1024 * 1024, /* a larger one is not even read to its end: we hang up */
};

struct saga_pair {
    const char *name, *value;
};

struct saga_request {
    struct MHD_Connection *connection;
    struct saga_conn *conn;
    const char *method; /* NULL: its headers are not here yet */
    const char *path;
    size_t target_n;                /* path and query as they came */
    const struct saga_route *route; /* NULL: none fits, or another method */
    struct saga_pair param[SAGA_HTTP_PARAMS];
    int params;
    struct saga_arena arena;
    struct saga_buf body;
    size_t read; /* of the body, with what was thrown away */
    bool http_1_0, has_body, held;
    bool last;          /* of its connection: where the next one would begin is not known */
    struct saga_pg *pg; /* of the worker that has it */
    void (*handle)(struct saga_request *req); /* the route's, or what it was passed to */
    void *kept;
    bool replied, suspended;
    int status; /* the answer */
    const char *type;
    struct saga_pair header[SAGA_HTTP_HEADERS];
    int headers;
    struct saga_buf answer;
    int64_t began, given;      /* us; given: to the workers */
    struct saga_request *next; /* in one of the queues */
};

/* Runs its handler. -> whether it has answered; if not, the request is somebody else's */
bool saga_http_run(struct saga_request *req);

/* ---- Rules ---- */

void saga_rules_init(const struct saga_service *service);
/* Finds the route, or answers: after it, req has one of them. */
void saga_rules_judge(struct saga_request *req);

void saga_reply_too_large(struct saga_request *req);

/* ---- Connections ---- */

struct sockaddr;
enum saga_phase {
    SAGA_NEW,      /* from its beginning to the headers of its first request */
    SAGA_ASKING,   /* to the end of the body */
    SAGA_HANDLED,  /* by whom the request was given to; he bounds the time */
    SAGA_ANSWERED, /* until the client has read it */
    SAGA_KEPT,     /* to the headers of the next request */
    SAGA_ENDED,    /* the client has said its last word, and asks nothing */
    SAGA_CUT,
    SAGA_PHASES,
};

/* -> how many there may be */
int saga_conn_init(const struct saga_conf *conf);
bool saga_conn_may_come(const struct sockaddr *address);
void saga_conn_notify(void *cls, struct MHD_Connection *connection, void **context,
                      enum MHD_ConnectionNotificationCode what);
struct saga_conn *saga_conn_of(struct MHD_Connection *connection);
bool saga_conn_may_ask(struct saga_conn *conn); /* false: too many requests of this client */
void saga_conn_enter(struct saga_conn *conn, enum saga_phase phase);
void saga_conn_cut_late(void); /* those whose time is over */
void saga_conn_cut_idle(void); /* those that ask nothing */
int64_t saga_conn_now(void);   /* us of CLOCK_MONOTONIC */

/* ---- Metrics ---- */

void saga_http_count_init(const struct saga_service *service);
void saga_http_count(const struct saga_request *req); /* it is answered */

/* ---- Workers ---- */

void saga_work_start(const struct saga_conf *conf, const struct saga_service *service);
/* Waits for those that work; nothing is given after this. */
void saga_work_stop(void);
/* Takes req, for a worker of the route's kind. -> false: too many wait there, and req stays */
bool saga_work_give(struct saga_request *req);
extern _Atomic int64_t
    saga_work_patience; /* us: who has waited so long is told to come again, he may be gone */

#endif
