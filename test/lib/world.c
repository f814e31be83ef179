/* A whole installation for tests: its processes. See world.h. */
#include "world.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "web.h"

const char *const service_names[] = {"order", "inventory", "payment"};

/* Waits that are long for people are short for tests. */
static const char *const settings[] = {"SAGA_SESSION_TIMEOUT=1500ms", "SAGA_CALL_TIMEOUT=1s",
                                       "SAGA_LOCK_WAIT=1s",           "SAGA_HOLD_WAIT=2s",
                                       "HTTP_LISTEN=127.0.0.1:0",     NULL};
enum { ENV_MAX = 32 };

struct world *world_new_elsewhere(const char *name, int lanes, const char *const *own)
{
    struct world *w = calloc(1, sizeof *w);
    struct db *main = db_new(NULL);

    MUST(w != NULL, "out of memory");
    snprintf(w->name, sizeof w->name, "%s-%d", name, (int)getpid());
    snprintf(w->prefix, sizeof w->prefix, "live.%s.%d.", name, (int)getpid());
    snprintf(w->database, sizeof w->database, "live_%s_%d", name, (int)getpid());
    w->lanes = lanes;
    w->settings = own;
    shell("rm -rf build/live/%s && mkdir -p build/live/%s", w->name, w->name);
    db_drop(main, w->database);
    db_run(main, "create database %s", w->database);
    db_free(main);
    w->db = db_new(w->database);
    return w;
}

struct world *world_new(const char *name, int lanes, const char *const *own)
{
    struct world *w = world_new_elsewhere(name, lanes, own);

    kafka_make_topics(w->prefix, lanes);
    w->topics = true;
    return w;
}

void world_free(struct world *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->members; i++)
        proc_free(w->member[i].proc);
    db_free(w->db);
    struct db *main = db_new(NULL);
    db_drop(main, w->database);
    db_free(main);
    if (w->topics)
        kafka_drop_topics(w->prefix);
    free(w);
}

/* ---- Processes ---- */

static struct member *find(struct world *w, int service, int number)
{
    for (int i = 0; i < w->members; i++)
        if (w->member[i].service == service && w->member[i].number == number)
            return &w->member[i];
    return NULL;
}

struct member *world_member(struct world *w, int service, int number)
{
    struct member *m = find(w, service, number);

    MUST(m, "%s-svc %d was never started", service_names[service], number);
    return m;
}

struct member *world_start_failing(struct world *w, int service, int number, const char *fail)
{
    struct member *m = find(w, service, number);
    const char *env[ENV_MAX], *name = service_names[service];
    int n = 0;

    if (!m) {
        MUST(w->members < MEMBERS_MAX, "too many processes");
        m = &w->member[w->members++];
    }
    MUST(!m->proc, "%s-svc %d runs already", name, number);
    for (const char *const *s = settings; *s; s++)
        env[n++] = *s;
    for (const char *const *s = w->settings; s && *s; s++)
        env[n++] = *s;
    env[n++] = "DATABASE_URL";
    env[n++] = text("PGDATABASE=%s", w->database);
    env[n++] = text("SAGA_TOPIC_PREFIX=%s", w->prefix);
    env[n++] = text("SAGA_INSTANCE=%s-%d", name, number);
    env[n++] = fail ? text("SAGA_FAIL=%s", fail) : "SAGA_FAIL";
    env[n] = NULL;
    *m = (struct member){.service = service, .number = number};
    m->proc = proc_start(text("%s/%s/%s-svc", proc_build(), fail ? "failpoint/bin" : "bin", name),
                         env, text("build/live/%s/%s-%d.log", w->name, name, number));
    return m;
}

struct member *world_start(struct world *w, int service, int number)
{
    return world_start_failing(w, service, number, NULL);
}

void world_start_all(struct world *w)
{
    for (int s = 0; s < SERVICES; s++)
        world_start(w, s, 0);
    for (int s = 0; s < SERVICES; s++)
        AWAIT(20, world_is_ready(world_member(w, s, 0)));
}

void world_kill(struct member *m)
{
    proc_free(m->proc);
    m->proc = NULL;
    m->port = 0;
}

void world_stop(struct member *m)
{
    world_url(m, ""); /* it has started, and knows what SIGTERM means */
    proc_signal(m->proc, SIGTERM);
    MUST_BE(proc_wait(m->proc, 6), 0);
    world_kill(m);
}

/* ---- HTTP ---- */

/* The log of a process that was started again has a line for each of its lives. */
static int find_port(struct member *m)
{
    FILE *f = fopen(proc_log(m->proc), "r");
    const char *pid = text("\"pid\":%d}", (int)proc_pid(m->proc));
    char line[1000];
    int port = 0;

    while (f && fgets(line, sizeof line, f)) {
        const char *at = strstr(line, "\"http_port\":");
        if (at && strstr(line, "\"message\":\"started\"") && strstr(line, pid))
            port = atoi(at + strlen("\"http_port\":"));
    }
    if (f)
        fclose(f);
    return port;
}

const char *world_url(struct member *m, const char *path)
{
    MUST(m->proc, "%s-svc %d does not run", service_names[m->service], m->number);
    if (m->port == 0)
        AWAIT(10, (m->port = find_port(m)) != 0 || !proc_alive(m->proc));
    MUST(m->port, "%s-svc %d ended before it listened", service_names[m->service], m->number);
    return text("http://127.0.0.1:%d%s", m->port, path);
}

bool world_is_ready(struct member *m)
{
    MUST(proc_alive(m->proc), "%s-svc %d has ended", service_names[m->service], m->number);
    return web_get(NULL, "%s", world_url(m, "/readyz")) == 200;
}

/* ---- Lanes ---- */

static char unread[256]; /* what world_settle waits for */

struct standing { /* of a service's lanes, told by its processes */
    bool running[64], read[64], published[64];
};

/* seqs: of the lanes' newest outbox rows, as the database has them. */
static void look_at(const struct member *m, json_t *lane, int64_t (*ends)[64], const int64_t *seqs,
                    struct standing *s)
{
    json_t *input;
    size_t i;
    int n = (int)json_integer_value(json_object_get(lane, "lane"));
    const char *state = json_string_value(json_object_get(lane, "state"));

    MUST(!same(state, "stopped"), "lane %d of %s-svc is stopped: %s", n, service_names[m->service],
         json_string_value(json_object_get(lane, "why")));
    s->running[n] = same(state, "running");
    s->published[n] = !seqs || json_integer_value(json_object_get(lane, "published")) >= seqs[n];
    s->read[n] = true;
    json_array_foreach(json_object_get(lane, "inputs"), i, input)
    {
        const char *topic = json_string_value(json_object_get(input, "topic"));
        int64_t next = json_integer_value(json_object_get(input, "next_offset"));
        int t = same(topic, "order.requests") ? SERVICES : 0;
        while (t < SERVICES && !same(topic, text("%s.events", service_names[t])))
            t++;
        if (ends && (next < ends[t][n] || !json_is_null(json_object_get(input, "held")))) {
            s->read[n] = false;
            snprintf(unread, sizeof unread, "%s-svc %d has read %s/%d to %lld of %lld",
                     service_names[m->service], m->number, topic, n, (long long)next,
                     (long long)ends[t][n]);
        }
    }
}

static void look(struct world *w, int service, int64_t (*ends)[64], const int64_t *seqs,
                 struct standing *s)
{
    json_t *answer, *lane;
    size_t i;

    memset(s, 0, sizeof *s);
    for (int k = 0; k < w->members; k++) {
        struct member *m = &w->member[k];
        if (!m->proc || m->service != service)
            continue;
        MUST(proc_alive(m->proc), "%s-svc %d has ended", service_names[service], m->number);
        if (web_get(&answer, "%s", world_url(m, "/lanes")) != 200)
            continue;
        json_array_foreach(json_object_get(answer, "lanes"), i, lane)
            look_at(m, lane, ends, seqs, s);
        json_decref(answer);
    }
}

bool world_is_whole(struct world *w)
{
    struct standing s;

    for (int service = 0; service < SERVICES; service++) {
        look(w, service, NULL, NULL, &s);
        for (int i = 0; i < w->lanes; i++)
            if (!s.running[i])
                return false;
    }
    return true;
}

static void ask_ends(struct world *w, int64_t (*ends)[64])
{
    for (int t = 0; t < SERVICES; t++)
        kafka_ends(world_topic(w, text("%s.events", service_names[t])), w->lanes, ends[t]);
    kafka_ends(world_topic(w, "order.requests"), w->lanes, ends[SERVICES]);
}

static void ask_seqs(struct world *w, int service, int64_t *seqs)
{
    const char *at =
        db_text(w->db, "select string_agg(last_seq::text, ' ' order by lane) from %s_svc.lane",
                service_names[service]);

    for (int i = 0; i < w->lanes && at; i++)
        seqs[i] = strtoll(at, (char **)&at, 10);
}

/* As the lanes of this service stand by what its processes say of themselves, perhaps of a moment ago. */
static bool are(struct world *w, int service, int64_t (*ends)[64], const int64_t *seqs)
{
    struct standing s;

    look(w, service, ends, seqs, &s);
    for (int i = 0; i < w->lanes; i++) {
        if (s.running[i] && s.read[i] && s.published[i])
            continue;
        if (!s.running[i] || s.read[i])
            snprintf(unread, sizeof unread, "lane %d of %s-svc is %s", i, service_names[service],
                     s.running[i] ? "not published" : "not running");
        return false;
    }
    return true;
}

/* In this order, for each makes work for the next: all that was in the topics is read, no call is open,
 * all that was written then is published; and nothing has come into the topics. */
static bool is_settled(struct world *w)
{
    int64_t before[SERVICES + 1][64] = {{0}}, after[SERVICES + 1][64] = {{0}};

    ask_ends(w, before);
    for (int service = 0; service < SERVICES; service++)
        if (!are(w, service, before, NULL))
            return false;
    snprintf(unread, sizeof unread, "calls are open");
    if (db_int(w->db, "select count(*) from payment where state in ('CHARGING', 'REFUNDING')"))
        return false;
    for (int service = 0; service < SERVICES; service++) {
        int64_t seqs[64] = {0};
        ask_seqs(w, service, seqs);
        if (!are(w, service, NULL, seqs))
            return false;
    }
    snprintf(unread, sizeof unread, "more is published");
    ask_ends(w, after);
    return memcmp(before, after, sizeof before) == 0;
}

void world_settle(struct world *w, double seconds)
{
    int64_t until = test_until(seconds);

    kafka_flush(seconds);
    while (!is_settled(w))
        MUST(test_pause(until), "not settled in %g s: %s", seconds, unread);
}
