/* Handlers that wait for the database run on workers, each with a session of its own, so that no
 * request holds up another's connection; those that search Kafka on one more, because they may take
 * minutes. What waits for a worker is bounded: beyond it a client is told to come again. */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "http_private.h"
#include "metrics.h"
#include "presence.h"

enum { WORKERS = 4, WAITING_MAX = 256, SEARCHES_MAX = 16, SEARCH_S = 1 };
enum { PG_PATIENCE_MS = 7000 /* longer than a statement may take: its server hangs */ };

_Atomic int64_t saga_work_patience = INT64_C(10000000);

/* A queue and those that serve it. They wait for a semaphore: a condition variable for which several wait
 * can lose a signal (glibc before 2.41, bug 25847; DESIGN.md 7), and a request with it. */
struct line {
    struct saga_request *first, **end;
    int waiting, max;
    sem_t filled; /* one for each that waits; more when all are to stop */
};

static struct {
    pthread_mutex_t lock;
    struct line line[2]; /* SAGA_WORKER, SAGA_SEARCH */
    struct saga_pg *pg[WORKERS + 1];
    pthread_t thread[WORKERS + 1];
    bool stop;
    saga_cell_t *waiting;
    const char *database; /* and whose: */
    const char *session;  /* what each of its sessions begins with */
    const struct saga_service *service;
} work = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct line *line_of(enum saga_where where)
{
    return &work.line[where == SAGA_SEARCH];
}

/* The line of thread i. */
static struct line *served_by(int i)
{
    return &work.line[i == WORKERS];
}

/* -> NULL: we are to stop */
static struct saga_request *next_of(struct line *line)
{
    while (sem_wait(&line->filled) < 0)
        ; /* a signal */
    pthread_mutex_lock(&work.lock);
    struct saga_request *req = line->first;
    if (req) {
        line->first = req->next;
        if (!line->first)
            line->end = &line->first;
        line->waiting--;
        saga_count(work.waiting, -1);
    }
    pthread_mutex_unlock(&work.lock);
    return req;
}

static void too_late(struct saga_request *req)
{
    saga_reply_header(req, "Retry-After", "1");
    saga_reply_problem(req, 503, "Service Unavailable", "no worker was free for %g s",
                       (double)saga_work_patience / 1e6);
}

static void *run(void *number)
{
    int i = (int)(intptr_t)number;
    struct saga_request *req;

    while ((req = next_of(served_by(i)))) {
        req->pg = work.pg[i];
        saga_pg_freshen(req->pg); /* who asks is not to hear of a session that ended while idle */
        if (i < WORKERS && !req->held && saga_conn_now() - req->given > saga_work_patience)
            too_late(req); /* who is held has others that wait for him */
        else if (!saga_http_run(req))
            continue;
        saga_answered(req);
    }
    return NULL;
}

bool saga_work_give(struct saga_request *req)
{
    struct line *line = line_of(req->route->where);

    pthread_mutex_lock(&work.lock);
    bool room = line->waiting < line->max && !work.stop;
    if (room) {
        req->given = saga_conn_now();
        req->next = NULL;
        *line->end = req;
        line->end = &req->next;
        line->waiting++;
        saga_count(work.waiting, 1);
        sem_post(&line->filled);
    }
    pthread_mutex_unlock(&work.lock);
    return room;
}

struct saga_pg *saga_http_session(void)
{
    char name[160], schema[80];

    snprintf(name, sizeof name, "%s-svc",
             work.service->name); /* the engine's, so that a taker may end it */
    snprintf(schema, sizeof schema, "%s_svc", work.service->name);
    struct saga_pg *made = saga_pg_new(work.database, name, schema);
    saga_pg_session(made, work.session);
    saga_pg_patience(made, PG_PATIENCE_MS);
    return made;
}

void saga_work_start(const struct saga_conf *conf, const struct saga_service *service)
{
    work.stop = false;
    work.database = conf->database;
    work.service = service;
    if (!work.session)
        work.session = saga_presence_sql("set statement_timeout = '5s'");
    work.waiting = saga_metric("saga_http_waiting", "", "HTTP requests that wait for a worker");
    for (int l = 0; l < 2; l++) {
        work.line[l] = (struct line){.max = l ? SEARCHES_MAX : WAITING_MAX};
        work.line[l].end = &work.line[l].first;
        sem_init(&work.line[l].filled, 0, 0);
    }
    for (int i = 0; i <= WORKERS; i++) {
        work.pg[i] = saga_http_session();
        if (pthread_create(&work.thread[i], NULL, run, (void *)(intptr_t)i) != 0)
            _exit(70); /* out of threads at start */
    }
}

/* A search that goes on ends with the process. */
void saga_work_stop(void)
{
    struct timespec until;

    pthread_mutex_lock(&work.lock);
    work.stop = true;
    pthread_mutex_unlock(&work.lock);
    for (int i = 0; i <= WORKERS; i++)
        sem_post(&served_by(i)->filled);
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(work.thread[i], NULL);
        saga_pg_free(work.pg[i]);
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SEARCH_S;
    if (pthread_timedjoin_np(work.thread[WORKERS], NULL, &until) == 0)
        saga_pg_free(work.pg[WORKERS]);
}
