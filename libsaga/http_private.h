/* A request inside HTTP: what http.c (connections), http_reply.c (answers) and http_work.c (workers)
 * share. It belongs to one thread at a time: the HTTP thread, then perhaps a worker or whom the
 * handler gives it to, in the end the HTTP thread again. */
#ifndef SAGA_HTTP_PRIVATE_H
#define SAGA_HTTP_PRIVATE_H

#include <time.h>

#include "http.h"
#include "mem.h"

enum { SAGA_HTTP_PARAMS = 4, SAGA_HTTP_HEADERS = 8 };

struct saga_pair {
    const char *name, *value;
};

struct saga_request {
    struct MHD_Connection *connection;
    const char *method;
    const char *path;
    const struct saga_route *route; /* NULL: none fits, or another method */
    struct saga_pair param[SAGA_HTTP_PARAMS];
    int params;
    struct saga_arena arena;
    struct saga_buf body;
    bool too_large;
    struct saga_pg *pg;                       /* of the worker that has it */
    void (*handle)(struct saga_request *req); /* the route's, or what it was passed to */
    void *kept;
    bool replied, suspended;
    int status; /* the answer */
    const char *type;
    struct saga_pair header[SAGA_HTTP_HEADERS];
    int headers;
    struct saga_buf answer;
    struct timespec began;
    struct saga_request *next; /* in one of the queues */
};

/* Runs its handler. -> whether it has answered; if not, the request is somebody else's */
bool saga_http_run(struct saga_request *req);

/* ---- Workers ---- */

void saga_work_start(const struct saga_conf *conf, const struct saga_service *service);
/* Waits for those that work; nothing is given after this. */
void saga_work_stop(void);
/* Takes req, for a worker of the route's kind. -> false: too many wait there, and req stays */
bool saga_work_give(struct saga_request *req);

#endif
