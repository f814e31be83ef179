/* saga_main: a service from start to stop. Start: settings, HTTP (alive, not ready), the database
 * with its migrations, Kafka with its topics, whose the database is, then the engine's loop. Stop:
 * SIGTERM ends the loop after its batch; five seconds later the process ends whatever hangs; a
 * second signal ends it at once. Everything that matters is in the database. */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "failpoint.h"
#include "log.h"
#include "post.h"
#include "presence.h"
#include "schema.h"

enum { OK = 0, BAD_SETTING = 78 /* EX_CONFIG */, BROKEN = 70 /* EX_SOFTWARE */ };
enum { STOP_SECONDS = 5, SETTLE = 1000000, SAY_EVERY = 5000000 /* us */ };

static struct saga_engine *the_engine; /* of this process, for the signal handler */

static void on_signal(int signal)
{
    static const uint64_t one = 1;
    static volatile sig_atomic_t before;

    (void)signal;
    if (before++)
        _exit(BROKEN);
    atomic_store(&the_engine->stop, true);
    alarm(STOP_SECONDS);
    ssize_t n = write(the_engine->wake, &one, sizeof one);
    (void)n;
}

static volatile sig_atomic_t ends_with = OK;

static void on_alarm(int signal)
{
    (void)signal;
    _exit(ends_with); /* something hangs while closing; nothing that matters is lost */
}

static void on_hangup(int signal)
{
    (void)signal;
    saga_http_renew();
}

static void handle_signals(struct saga_engine *e)
{
    struct sigaction stop = {.sa_handler = on_signal}, hang = {.sa_handler = on_alarm},
                     renew = {.sa_handler = on_hangup, .sa_flags = SA_RESTART};

    the_engine = e;
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGALRM, &hang, NULL);
    sigaction(SIGHUP, &renew, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* A connection is a file, and there may be more of them than the 1,024 that a shell gives. */
static void allow_files(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* A server or topic that is not there: one line per 5 s, and again. -> false: we are to stop */
static bool wait_for(struct saga_engine *e, const char *what, int64_t *said,
                     const struct saga_err *err)
{
    struct pollfd fd = {e->wake, POLLIN, 0};
    int64_t now = saga_now();

    saga_view_turned();
    saga_view_waits(err->text);
    if (now - *said >= SAY_EVERY) {
        saga_log_text(SAGA_WARN, what, err->text);
        *said = now;
    }
    poll(&fd, 1, 200);
    return !atomic_load(&e->stop);
}

/* ---- What must be there ---- */

static const char session[] =
    /* plans made while tables are empty stay wrong: only indexes, and no planning per batch */
    "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;"
    "set enable_bitmapscan = off;"
    "set jit = off; set plan_cache_mode = force_generic_plan";

static int open_database(struct saga_engine *e, struct saga_err *err)
{
    char name[64], schema[64];
    int64_t said = 0;
    int rc;

    snprintf(name, sizeof name, "%s-svc", e->service->name);
    snprintf(schema, sizeof schema, "%s_svc", e->service->name);
    e->pg = saga_pg_new(e->conf->database, name, schema);
    saga_pg_session(e->pg, saga_presence_sql(session));
    while ((rc = saga_schema_migrate(e->pg, e->service, schema, err)) < 0 && rc != SAGA_FATAL) {
        if (!wait_for(e, "waiting for the database", &said, err))
            return 0;
        err->code = 0;
    }
    return rc;
}

/* N, the number of partitions that all topics of the service have. -> N, SAGA_RETRY, SAGA_FATAL */
static int count_lanes(struct saga_engine *e, const char *const *topics, struct saga_err *err)
{
    int lanes = 0;

    for (int i = 0; topics[i]; i++) {
        int n = saga_bus_partitions(e->bus, topics[i], 2000, err);
        if (n < 0)
            return n;
        if (n == 0)
            return saga_err(err, SAGA_RETRY, "topic %s%s is missing: run \"sagactl topics apply\"",
                            e->conf->prefix, topics[i]);
        if (lanes && n != lanes)
            return saga_err(err, SAGA_FATAL,
                            "topic %s%s has %d partitions, %s%s has %d: all must have the same",
                            e->conf->prefix, topics[i], n, e->conf->prefix, topics[0], lanes);
        lanes = n;
    }
    return lanes;
}

static int open_kafka(struct saga_engine *e, struct saga_err *err)
{
    struct saga_bus_events events = saga_engine_events;
    const char *topics[SAGA_READS_MAX + 3] = {0};
    char name[64], own[64], dead[64];
    const char *cluster;
    int64_t said = 0;
    int n = 0, lanes;

    events.owner = e;
    snprintf(name, sizeof name, "%s-svc", e->service->name);
    snprintf(own, sizeof own, "%s.events", e->service->name);
    snprintf(dead, sizeof dead, "%s.dlq", e->service->name);
    saga_intake_init(&e->intake, e->service, e->history);
    e->bus = saga_bus_new(e->conf, name, e->intake.topic, &events, err);
    if (!e->bus)
        return SAGA_FATAL;
    for (; n < e->intake.topics; n++)
        topics[n] = e->intake.topic[n];
    topics[n++] = own;
    topics[n++] = dead;
    while ((lanes = count_lanes(e, topics, err)) == SAGA_RETRY ||
           (lanes > 0 && !(cluster = saga_bus_cluster(e->bus, 2000)))) {
        if (!wait_for(e, "waiting for Kafka", &said, err))
            return 0;
        err->code = 0;
    }
    e->misplaced = true; /* unless all that follows is as it must be */
    if (lanes < 0)
        return lanes;
    e->lanes = lanes;
    while (true) {
        int rc = saga_schema_identity(e->pg, e->service, lanes, e->conf->prefix, cluster,
                                      e->history, err);
        e->misplaced = rc == SAGA_FATAL;
        if (rc != SAGA_RETRY || !wait_for(e, "waiting for the database", &said, err))
            return rc;
        err->code = 0;
    }
}

static void init_lanes(struct saga_engine *e)
{
    size_t n = (size_t)e->lanes;

    e->written = saga_alloc(n * sizeof *e->written);
    memset(e->written, 0, n * sizeof *e->written);
    e->lane = saga_alloc(n * sizeof *e->lane);
    memset(e->lane, 0, n * sizeof *e->lane);
    for (int32_t i = 0; i < e->lanes; i++) {
        struct saga_lane *lane = &e->lane[i];
        lane->lane = i;
        if (!e->service->requests)
            continue;
        lane->reader.forwarded = saga_alloc(n * sizeof(struct saga_id));
        lane->work.forwarded = saga_alloc(n * sizeof(struct saga_id));
        memset(lane->reader.forwarded, 0, n * sizeof(struct saga_id));
        memset(lane->work.forwarded, 0, n * sizeof(struct saga_id));
    }
    saga_batch_init(&e->batch, e->service, e->lanes, e->history);
    saga_look_start(e->conf, &e->intake, e->batch.topic, e->batch.dead, e->wake);
    e->recent = saga_recent_new(e->service->orders, e->lanes, (size_t)e->conf->memory);
    e->now = &e->work[0];
    e->next = &e->work[1];
    e->answers_end = &e->answers;
    saga_view_init(e);
}

static int serve(struct saga_engine *e, struct saga_err *err)
{
    int rc;

    if ((rc = open_database(e, err)) < 0 || atomic_load(&e->stop) ||
        (rc = open_kafka(e, err)) < 0 || atomic_load(&e->stop))
        return rc;
    saga_post_init(
        e->conf); /* nothing is taken for a Kafka that is not known to be the right one */
    init_lanes(e);
    saga_view_waits(NULL);
    if (saga_calls_start(e->service, (int)e->conf->callers, e->wake) < 0)
        return saga_err(err, SAGA_FATAL, "no thread for outside calls can be started");
    rc = saga_engine_loop(e, err);
    saga_view_waits("stopping");
    SAGA_FAILPOINT(stopping);
    if (rc == 0)
        saga_engine_settle(e, SETTLE);
    SAGA_FAILPOINT(settled);
    return rc;
}

int saga_main(int argc, char **argv, const struct saga_service *service)
{
    static struct saga_engine engine;
    static struct saga_conf conf;
    struct saga_err err = {0};
    char name[64];
    bool exit_now = false;
    int port = 0, rc;

    /* Fetches and batches are megabytes: memory that malloc keeps need not be faulted in for each. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    allow_files();
    if (saga_conf_read(&conf, service, argc, argv, &exit_now, &err) < 0 ||
        (!exit_now && saga_pg_check(conf.database, &err) < 0)) {
        fprintf(stderr, "%s-svc: %s\n", service->name, err.text);
        return BAD_SETTING;
    }
    if (exit_now)
        return OK;
    snprintf(name, sizeof name, "%s-svc", service->name);
    saga_log_open(name, saga_log_level(conf.level));
    engine.service = service;
    engine.conf = &conf;
    engine.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    handle_signals(&engine);
    saga_view_turned();
    saga_view_waits("starting");
    if (service->start && service->start(&conf, &err) < 0) {
        fprintf(stderr, "%s-svc: %s\n", service->name, err.text);
        return BAD_SETTING;
    }
    if (saga_http_start(&conf, service, &saga_engine_view, &port, &err) < 0) {
        saga_log_text(SAGA_ERROR, "HTTP", err.text);
        return BAD_SETTING;
    }
    saga_log_at(SAGA_INFO, "started", "\"http_port\":%d,\"pid\":%d", port, (int)getpid());
    if ((rc = serve(&engine, &err)) < 0)
        saga_log_text(SAGA_ERROR, "cannot go on", err.text);
    if (rc == SAGA_FATAL)
        ends_with = engine.misplaced ? BAD_SETTING : BROKEN;
    if (!atomic_load(&engine.stop)) /* else it has been set */
        alarm(STOP_SECONDS);
    saga_calls_stop();
    bool answered = saga_http_stop();
    if (service->stop &&
        answered) /* else a worker may still commit, and is to be missed as if killed */
        service->stop();
    if (engine.bus)
        saga_bus_close(engine.bus, 3000);
    SAGA_FAILPOINT(closed);
    saga_log_at(SAGA_INFO, "stopped", NULL);
    _exit(ends_with); /* threads of librdkafka may hang; they have nothing to lose */
}
