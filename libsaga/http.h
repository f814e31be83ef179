/* HTTP, as a service sees it. It shares nothing with the engine but counters and the snapshot of the
 * lanes, and has database sessions of its own: nothing here keeps the engine waiting, nor one request
 * another. Errors are RFC 9457 application/problem+json. */
#ifndef SAGA_HTTP_H
#define SAGA_HTTP_H

#include <jansson.h>

#include "conf.h"
#include "err.h"
#include "pg.h"
#include "saga.h"

struct saga_request;

enum saga_where {
    SAGA_WORKER,  /* on one of a few threads; it may wait for the database, */
    SAGA_SEARCH,  /* or on one that they do not share: it may read much of Kafka, */
    SAGA_AT_ONCE, /* or on the thread of all connections: it waits for nothing */
};

struct saga_route {
    const char *method; /* "GET" (HEAD is served from it), "POST" */
    const char *path;   /* "/api/v1/orders/{id}" */
    void (*handle)(struct saga_request *req);
    enum saga_where where;
    const char *type; /* of what it answers; NULL: application/json */
    bool open;        /* to all: it asks for no token and no rate */
};

/* What a handler asks. Texts live as long as the request. */
const char *saga_path(const struct saga_request *req, const char *name);   /* "id" of the path */
const char *saga_query(const struct saga_request *req, const char *name);  /* NULL: not given */
const char *saga_header(const struct saga_request *req, const char *name); /* NULL: not given */
const char *saga_body(const struct saga_request *req, size_t *n);
struct saga_pg *saga_http_pg(struct saga_request *req); /* of the worker; connected on demand */
struct saga_arena *saga_http_arena(struct saga_request *req);
/* A session like a worker's, for a thread of the service that answers later. */
struct saga_pg *saga_http_session(void);

/* Exactly one of these per request, before the handler returns; or the handler says saga_later(),
 * gives req to somebody and touches it no more: who has it answers, from any thread, and gives it back
 * by saga_answered(). Whoever keeps requests bounds their number and their time, and answers all when
 * we are stopping. */
void saga_reply(struct saga_request *req, int status,
                json_t *body); /* Takes body. application/json */
void saga_reply_text(struct saga_request *req, int status, const char *type, const char *text,
                     size_t n);
void saga_reply_problem(struct saga_request *req, int status, const char *title, const char *format,
                        ...) __attribute__((format(printf, 4, 5)));
void saga_reply_error(struct saga_request *req,
                      const struct saga_err *err); /* RETRY 503, POISON 400 or 422, else 500 */
/* Before the reply; a value with a control character is left out. Without a Cache-Control of its own an
 * answer is kept by no cache. */
void saga_reply_header(struct saga_request *req, const char *name, const char *value);
void saga_later(struct saga_request *req);
void saga_answered(struct saga_request *req); /* Takes req. */
bool saga_http_stopping(void);
int saga_http_room(void); /* connections that there may be at once */

/* On the HTTP thread, of a request that is answered later: a worker runs handle with it, which
 * answers it or says saga_later() again. Takes req. -> false: too many wait there, it is answered 503 */
bool saga_pass(struct saga_request *req, void (*handle)(struct saga_request *req));
void saga_keep(struct saga_request *req, void *kept); /* for who answers it later */
void *saga_kept(const struct saga_request *req);

/* Somebody else's connection on the HTTP thread: what many requests of one round of its loop ask goes
 * out together, and no thread changes for it. */
struct saga_guest {
    void (*ready)(unsigned events); /* what it watches is: EPOLLIN, EPOLLOUT, EPOLLERR */
    int (*turn)(
        void); /* after the requests of each round; -> ms until it wants to be called at most */
};
void saga_http_guest(const struct saga_guest *guest); /* before saga_http_start; there is one */
void saga_http_watch(int fd, unsigned events);        /* instead of what was; 0: fd no more */
void saga_http_wake(void);                            /* from any thread: a round comes now */

/* ---- What the engine shows ---- */

enum { SAGA_WHY = 640 };

struct saga_lane_view {
    int32_t lane;
    int64_t term, last_seq, published, unpublished_bytes;
    int inputs;
    struct saga_input_view {
        const char *topic;                     /* static */
        int64_t next_offset, end_offset, held; /* end -1: not known; held -1: none */
        char last_id[64];
        bool stopped;
        char why[SAGA_WHY]; /* a fork, or a gap that stays open: as below */
    } input[6];
    char state[16]; /* "taking", "running", "paused", "stopped", "lost" */
    char
        why[SAGA_WHY]; /* stopped or paused: what was found, what it means, which command decides */
};

/* Given by the engine; may be called from the HTTP thread at any time. */
struct saga_view {
    int (*lanes)(struct saga_lane_view *out, int max); /* copies the snapshot; -> number */
    int (*total)(void);                                /* lanes of the service, 0: not known yet */
    int64_t (*turned)(void); /* when the engine's loop last turned, us of CLOCK_BOOTTIME */
    /* one line of what keeps the service from being ready, or NULL: "database: connection refused" */
    const char *(*waits)(char *text, size_t n);
};

/* Starts the thread: the service's routes and /livez, /readyz[?verbose], /lanes, /metrics.
 * port: the one bound. A busy port: SAGA_FATAL, err says who holds it if that can be seen, and that
 * HTTP_LISTEN moves us. A token or certificate that is not right: SAGA_FATAL. */
int saga_http_start(const struct saga_conf *conf, const struct saga_service *service,
                    const struct saga_view *view, int *port, struct saga_err *err);
bool saga_http_stop(void);
void saga_http_renew(
    void); /* reads token and certificate again; from any thread or signal handler */

#endif
