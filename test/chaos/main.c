/* Chaos: ORDERS orders of all kinds (2,000) on two processes of each service, while by SEED (drawn if
 * not given) processes, servers, connections and topics come to harm; before that Kafka is away for
 * AWAY seconds, if they are given. Afterwards everything is mended, all orders are at their end within
 * 30 s, and what RULES.md says holds: by topics, HTTP, databases and the provider's books. Runs on the
 * servers of SAGA_RUN, in the root of the repository: test/chaos/run has some of its own. Exit status 1,
 * with the seed and where the logs are, if anything is amiss. */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "chaos.h"

enum {
    LANES = 12,
    HEALED_IN = 30 /* s */
    ,
    LOG_LINES = 30,
    PATIENCE = 30,
    SAY_EVERY = 5
};
enum { GROWTH = 32 * 1024 /* KiB */ };
enum { LONGEST = 1200 /* s: then something hangs */, SOON = 200000, LATER = 1200000 /* us */ };

static struct chaos c = {.kafka = true, .postgres = true};
static uint64_t seed;

static void failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "chaos: %s:%d: %s\n", file, line, what);
    proc_tails(LOG_LINES);
    fprintf(stderr,
            "chaos: FAILED: %s\n"
            "chaos: again with SEED=%" PRIu64 " ORDERS=%d; logs: build/live/%s and %s/log\n",
            what, seed, c.orders, c.w ? c.w->name : "", getenv("SAGA_RUN"));
    _exit(
        EXIT_FAILURE); /* the world is left as it is, to be looked at; its processes end with us */
}

static int64_t setting(const char *name, int64_t otherwise)
{
    const char *value = getenv(name);

    return value && *value ? strtoll(value, NULL, 10) : otherwise;
}

static void say_versions(void)
{
    printf("chaos: seed %" PRIu64 ", %d orders, %d lanes, %d processes of each service\n", seed,
           c.orders, LANES, EACH);
    printf("chaos: commit %s", shell("git describe --always --dirty 2>/dev/null || echo unknown"));
    printf("chaos: PostgreSQL %s, librdkafka %s, Kafka %s", db_text(c.w->db, "show server_version"),
           rd_kafka_version_str(),
           shell("source deploy/local/env && ls $SAGA_JARS | sed -n "
                 "'s/^kafka_2.13-\\(.*\\).jar/\\1/p'"));
    fflush(stdout);
}

static void start(void)
{
    static char port[32];
    static const char *const settings[] = {port, "SAGA_OUTBOX_KEEP=5s", NULL};
    const char *run = getenv("SAGA_RUN"), *name = run ? strrchr(run, '/') : NULL;

    MUST(name && strncmp(name, "/run-", 5) == 0,
         "set SAGA_RUN to build/run-SOMETHING and bring its servers up: this kills them");
    c.proxy = proxy_start(atoi(getenv("PGPORT"))); /* before anything has threads */
    snprintf(port, sizeof port, "PGPORT=%d", proxy_port(c.proxy));
    c.w = world_new("chaos", LANES, settings);
    for (int s = 0; s < SERVICES; s++)
        for (int n = 0; n < EACH; n++)
            world_start(c.w, s, n);
    for (int i = 0; i < c.w->members; i++)
        AWAIT(PATIENCE, world_is_ready(&c.w->member[i]));
    world_stock_load(c.w);
}

/* ---- The run ---- */

static void say_progress(int64_t began)
{
    static int64_t said;

    if (test_now() < said + SAY_EVERY * INT64_C(1000000) || !c.postgres)
        return;
    said = test_now();
    printf("chaos: %4.0f s, %d orders sent, %" PRId64 " at an end, %d faults to come\n",
           (double)(said - began) / 1e6, c.sent, load_ended(&c), faults_left());
    fflush(stdout);
}

/* Attack 17: Kafka is away with a load in its hands. Nobody grows, nobody ends; what follows finds out
 * whether all go on. */
static void be_away(int64_t seconds)
{
    long before[SERVICES * EACH], most = 0;

    load_send(&c, c.orders / 4);
    AWAIT(PATIENCE, load_ended(&c) > c.orders / 40);
    shell("deploy/local/kill kafka");
    c.kafka = false;
    for (int i = 0; i < c.w->members; i++)
        before[i] = proc_rss(c.w->member[i].proc);
    for (int64_t until = test_until((double)seconds); test_pause(until); faults_look(&c))
        for (int i = 0; i < c.w->members; i++) {
            long grown = proc_rss(c.w->member[i].proc) - before[i];
            most = grown > most ? grown : most;
            MUST(grown < GROWTH, "%s-svc had %ld KiB and has %ld more",
                 service_names[c.w->member[i].service], before[i], grown);
        }
    int64_t ended = load_ended(&c);
    shell("deploy/local/start kafka");
    c.kafka = true;
    printf("chaos: Kafka was away for %" PRId64 " s, with %" PRId64 " orders under way; "
           "no process grew by more than %ld KiB\n",
           seconds, load_sent(&c) - ended, most);
    fflush(stdout);
}

/* A part of the orders is sent before each fault, which comes while they are under way, or after. */
static void play(void)
{
    int64_t began = test_now(), next = began;
    int all = faults_left();
    bool sent = false;

    while (faults_left()) {
        test_pause(INT64_MAX);
        faults_look(&c);
        faults_mend(&c, false);
        say_progress(began);
        if (test_now() < next)
            continue;
        if (!sent) {
            load_send(&c, (int)((int64_t)c.orders * (all - faults_left() + 1) / all));
            load_ship(&c);
            next = test_now() + (int64_t)chaos_random(&c, SOON);
            sent = true;
            continue;
        }
        int64_t under_way = c.postgres ? load_sent(&c) - load_ended(&c) : 0;
        if (!faults_next(&c))
            continue;
        c.under_way += under_way;
        next = test_now() + (int64_t)chaos_random(&c, LATER);
        sent = false;
    }
}

/* -> seconds until nothing moved any more */
static double heal(void)
{
    int64_t since;

    faults_mend(&c, true);
    load_send(&c, c.orders);
    proxy_heal(c.proxy);
    since = test_now();
    while (load_ship(&c) > 0 || load_ended(&c) < load_sent(&c))
        MUST(test_pause(since + HEALED_IN * INT64_C(1000000)),
             "not at their end within %d s: %" PRId64 " orders: %s", HEALED_IN,
             load_sent(&c) - load_ended(&c), load_open(&c));
    world_settle(c.w, HEALED_IN - (double)(test_now() - since) / 1e6);
    return (double)(test_now() - since) / 1e6;
}

static void report(double healed, const struct world_found *f, int64_t compared)
{
    int faults = 0;

    for (int i = 0; i < FAULTS; i++)
        faults += faults_meant(i);
    for (int i = 0; i < FAULTS; i++)
        printf("chaos: %-24s %" PRId64 "\n", fault_names[i], faults_made(&c, i));
    printf("chaos: %-24s %" PRId64 " on average\n", "orders that a fault met",
           c.under_way / faults);
    printf("chaos: %-24s %.1f s after the last fault\n", "all at their end", healed);
    printf("chaos: %-24s %" PRId64 "\n", "duplicates absorbed", c.absorbed);
    printf("chaos: invariants 1, stock: %" PRId64 " SKUs, %" PRId64 " movements; 2, money: %" PRId64
           " entries in the books; 3, ends: %" PRId64 " orders\n",
           f->skus, f->movements, f->books, f->orders);
    printf("chaos: invariants 4 and 5, order of events: %" PRId64 " sequences; 7, chain: %" PRId64
           " events in %" PRId64 " records; 8: %" PRId64 " requests, %" PRId64 " letters\n",
           f->sequences, f->events, f->records, f->requests, f->letters);
    printf("chaos: %" PRId64 " orders and SKUs told the same by HTTP\n", compared);
    for (int i = 0; i < FAULTS; i++)
        MUST(faults_made(&c, i) >= faults_meant(i), "%s: only %" PRId64, fault_names[i],
             faults_made(&c, i));
    MUST(c.absorbed > 0, "no duplicate was absorbed");
    MUST(c.under_way > faults, "the faults met hardly any order");
}

int main(void)
{
    int64_t began = test_now();
    struct world_found found;
    double healed;

    test_failed = failed;
    signal(SIGPIPE, SIG_IGN);
    alarm((unsigned)(LONGEST + setting("AWAY", 0)));
    seed = (uint64_t)setting("SEED", (int64_t)time(NULL) % 1000000);
    c.random = seed;
    c.orders = (int)setting("ORDERS", 2000);
    start();
    say_versions();
    faults_draw(&c);
    if (setting("AWAY", 0))
        be_away(setting("AWAY", 0));
    play();
    healed = heal();
    for (int i = 0; i < c.w->members; i++)
        faults_absorbed(&c, &c.w->member[i]);
    found = load_check(&c);
    report(healed, &found, load_compare(&c));
    printf("chaos: all well, %.0f s\n", (double)(test_now() - began) / 1e6);
    world_free(c.w);
    proxy_stop(c.proxy);
    return EXIT_SUCCESS;
}
