/* The faults of a run of chaos. See chaos.h.
 *
 * A deck holds so many of each kind and is shuffled by the seed. What a fault takes away comes back
 * after a time that is drawn too: until then it is in the list of what is to be mended. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chaos.h"

enum { DECK_MAX = 2000, SESSION_MS = 1500 /* world.c's SAGA_SESSION_TIMEOUT */, CUTS = 2 };

const char *const fault_names[] = {
    "services killed",     "services paused",         "PostgreSQL crashed", "sessions terminated",
    "COMMIT answers lost", "provider's answers lost", "Kafka killed",       "records copied"};

/* Of each kind, for 20,000 orders; and at least, for any number. */
static const struct {
    int long_run, least;
} shares[FAULTS] = {
    [KILL] = {130, 14}, [PAUSE] = {40, 8}, [POSTGRES] = {8, 2}, [TERMINATE] = {30, 4},
    [CUT] = {40, 6},    [BOOK] = {12, 3},  [KAFKA] = {8, 2},    [COPY] = {6, 3}};
enum { LONG_RUN = 20000 };

static enum fault deck[DECK_MAX];
static int dealt, deck_n, meant[FAULTS], copies;
static int64_t made[FAULTS];

struct mend {
    int64_t at; /* us, 0: free */
    enum fault what;
    struct member *member;
};
enum { MENDS = 64 };
static struct mend mends[MENDS];

uint64_t chaos_random(struct chaos *c, uint64_t below) /* splitmix64 */
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) % below;
}

void faults_draw(struct chaos *c)
{
    for (int f = 0; f < FAULTS; f++) {
        meant[f] = (int)((int64_t)shares[f].long_run * c->orders / LONG_RUN);
        if (meant[f] < shares[f].least)
            meant[f] = shares[f].least;
        for (int i = 0; i < meant[f] && deck_n < DECK_MAX; i++)
            deck[deck_n++] = (enum fault)f;
    }
    for (int i = deck_n - 1; i > 0; i--) {
        int j = (int)chaos_random(c, (uint64_t)i + 1);
        enum fault other = deck[j];
        deck[j] = deck[i];
        deck[i] = other;
    }
}

int faults_left(void)
{
    return deck_n - dealt;
}

int faults_meant(enum fault fault)
{
    return meant[fault];
}

int64_t faults_made(const struct chaos *c, enum fault fault)
{
    return fault == CUT    ? proxy_cuts(c->proxy, PROXY_COMMIT)
           : fault == BOOK ? proxy_cuts(c->proxy, PROXY_BOOK)
                           : made[fault];
}

static void mend_later(enum fault what, struct member *member, uint64_t ms)
{
    struct mend *m = mends;

    while (m < mends + MENDS && m->at)
        m++;
    MUST(m < mends + MENDS, "too much is broken at once");
    *m = (struct mend){test_now() + (int64_t)ms * 1000, what, member};
}

static bool is_broken(const struct member *member)
{
    for (int i = 0; i < MENDS; i++)
        if (mends[i].at && mends[i].member == member)
            return true;
    return false;
}

void faults_absorbed(struct chaos *c, struct member *m)
{
    const char *sum = shell("curl -sf -m 2 %s | awk '/^saga_duplicates_total/ {n += $NF} END "
                            "{print n + 0}' || true",
                            world_url(m, "/metrics"));

    c->absorbed += strtoll(sum, NULL, 10);
}

/* ---- Breaking ---- */

static struct member *any_whole(struct chaos *c)
{
    struct member *whole[MEMBERS_MAX];
    uint64_t n = 0;

    for (int i = 0; i < c->w->members; i++)
        if (!is_broken(&c->w->member[i]))
            whole[n++] = &c->w->member[i];
    return n ? whole[chaos_random(c, n)] : NULL;
}

static bool break_service(struct chaos *c)
{
    struct member *m = any_whole(c);

    if (!m)
        return false;
    faults_absorbed(c, m);
    world_kill(m);
    made[KILL]++;
    mend_later(KILL, m, chaos_random(c, 2) ? 0 : chaos_random(c, 2 * SESSION_MS));
    return true;
}

static bool pause_service(struct chaos *c)
{
    struct member *m = any_whole(c);

    if (!m)
        return false;
    proc_signal(m->proc, SIGSTOP);
    made[PAUSE]++;
    mend_later(PAUSE, m, SESSION_MS + 500 + chaos_random(c, 2000));
    return true;
}

/* What pg_ctl -m immediate does. */
static bool crash_postgres(struct chaos *c)
{
    if (!c->postgres)
        return false;
    c->postgres = false;
    shell("deploy/local/kill postgres QUIT");
    made[POSTGRES]++;
    mend_later(POSTGRES, NULL, chaos_random(c, 2000));
    return true;
}

static bool kill_kafka(struct chaos *c)
{
    if (!c->kafka)
        return false;
    c->kafka = false;
    shell("deploy/local/kill kafka");
    made[KAFKA]++;
    mend_later(KAFKA, NULL, chaos_random(c, 2000));
    return true;
}

static bool terminate(struct chaos *c)
{
    if (!c->postgres)
        return false;
    int64_t n = db_int(c->w->db,
                       "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                       " where datname = '%s' and application_name like '%%-svc'"
                       "   and (pid + %d) %% 3 > 0",
                       c->w->database, (int)chaos_random(c, 3));
    made[TERMINATE] += n;
    return n > 0;
}

static bool copy_topic(struct chaos *c)
{
    if (!c->kafka)
        return false;
    int service = copies % SERVICES, n;
    struct kafka_log *log =
        kafka_read(world_topic(c->w, text("%s.events", service_names[service])));
    n = log->n;
    copies += n > 0;
    for (int i = 0; i < n; i++)
        kafka_send(&log->at[i]);
    kafka_flush(30);
    made[COPY] += n;
    kafka_log_free(log);
    return n > 0;
}

static bool cut(struct chaos *c, enum proxy_kind kind)
{
    proxy_cut(c->proxy, kind, CUTS);
    return true;
}

bool faults_next(struct chaos *c)
{
    static bool (*const all[FAULTS])(struct chaos *) = {
        [KILL] = break_service,  [PAUSE] = pause_service, [POSTGRES] = crash_postgres,
        [TERMINATE] = terminate, [KAFKA] = kill_kafka,    [COPY] = copy_topic};
    enum fault f = deck[dealt];
    bool good = f == CUT ? cut(c, PROXY_COMMIT) : f == BOOK ? cut(c, PROXY_BOOK) : all[f](c);

    dealt += good;
    return good;
}

/* ---- Mending ---- */

static void mend(struct chaos *c, const struct mend *m)
{
    switch (m->what) {
    case KILL:
        world_start(c->w, m->member->service, m->member->number);
        break;
    case PAUSE:
        proc_signal(m->member->proc, SIGCONT);
        break;
    case POSTGRES:
        shell("deploy/local/start postgres");
        c->postgres = true;
        break;
    case KAFKA:
        shell("deploy/local/start kafka");
        c->kafka = true;
        break;
    default:
        break;
    }
}

void faults_mend(struct chaos *c, bool all)
{
    for (int i = 0; i < MENDS; i++)
        if (mends[i].at && (all || test_now() >= mends[i].at)) {
            mends[i].at = 0;
            mend(c, &mends[i]);
        }
}

void faults_look(struct chaos *c)
{
    for (int i = 0; i < c->w->members; i++) {
        struct member *m = &c->w->member[i];
        MUST(!m->proc || proc_alive(m->proc), "%s-svc %d has ended by itself",
             service_names[m->service], m->number);
    }
}
