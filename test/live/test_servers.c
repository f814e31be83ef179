/* Kafka and PostgreSQL go away in the middle of a load and come back: everything waits, nothing is
 * lost. These are the servers of SAGA_RUN, stopped and started by deploy/local's scripts. */
#include "suites.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "web.h"
#include "world.h"

enum { LANES = 12, ORDERS = 1000, PATIENCE = 60, AWAY = 60 /* s */, GROWTH = 32 * 1024 /* KiB */ };

static struct world *w;

/* Servers that people may be using are not ours to kill. */
static bool are_ours(void)
{
    const char *run = getenv("SAGA_RUN"), *name = run ? strrchr(run, '/') : NULL;

    return name && strncmp(name, "/run-", 5) == 0;
}

static void setup(void)
{
    MUST(are_ours(),
         "set SAGA_RUN to build/run-SOMETHING and bring its servers up: this kills them");
    w = world_new("servers", LANES, NULL);
    world_start_all(w);
    world_stock_load(w);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static int64_t ended(const char *name)
{
    return db_int(w->db,
                  "select count(*) from orders where order_id ~ '^%s-[0-9]+$' and state in "
                  "('PAID', 'CANCELLED')",
                  name);
}

static void all_well(const char *name, int n)
{
    world_settle(w, PATIENCE);
    world_loaded(w, name, n);
    for (int s = 0; s < SERVICES; s++)
        AWAIT(PATIENCE, world_is_ready(world_member(w, s, 0)));
}

static bool none_is_ready(void)
{
    for (int s = 0; s < SERVICES; s++)
        if (world_is_ready(world_member(w, s, 0)))
            return false;
    return true;
}

/* PostgreSQL stopped at once, as by a crash (immediate shutdown: SIGQUIT), and recovered. */
START_TEST(postgres_can_crash)
{
    world_load(w, "pg", 0, ORDERS);
    kafka_flush(10);
    AWAIT(PATIENCE, ended("pg") > ORDERS / 4);
    shell("deploy/local/kill postgres QUIT");
    AWAIT(PATIENCE, none_is_ready()); /* and says so */
    world_load(w, "pg", ORDERS, ORDERS + 200);
    kafka_flush(10);
    shell("deploy/local/start postgres");
    all_well("pg", ORDERS + 200);
}
END_TEST

/* PostgreSQL killed with -9. */
START_TEST(postgres_can_be_killed)
{
    world_load(w, "pg-kill", 0, ORDERS);
    kafka_flush(10);
    AWAIT(PATIENCE, ended("pg-kill") > ORDERS / 4);
    shell("deploy/local/kill postgres && deploy/local/start postgres");
    all_well("pg-kill", ORDERS);
}
END_TEST

/* Kafka killed with -9 and started again, twice. */
START_TEST(kafka_can_be_killed)
{
    world_load(w, "kafka", 0, ORDERS);
    kafka_flush(10);
    for (int k = 1; k <= 2; k++) {
        AWAIT(PATIENCE, ended("kafka") > ORDERS / 4 * k);
        shell("deploy/local/kill kafka && deploy/local/start kafka");
    }
    all_well("kafka", ORDERS);
}
END_TEST

/* Attack 17: Kafka is away for a while, at full load. The services keep what they have committed,
 * take nothing more, and do not grow. */
START_TEST(kafka_can_be_away)
{
    world_load(w, "away", 0, 2 * ORDERS);
    kafka_flush(10);
    AWAIT(PATIENCE, ended("away") > ORDERS / 4);
    shell("deploy/local/kill kafka");
    long before[SERVICES];
    for (int s = 0; s < SERVICES; s++)
        before[s] = proc_rss(world_member(w, s, 0)->proc);
    int64_t until = test_now() + AWAY * 1000000;
    while (test_pause(until)) /* the time that it is away is what is tested */
        for (int s = 0; s < SERVICES; s++) {
            struct member *m = world_member(w, s, 0);
            MUST(proc_alive(m->proc), "%s-svc has ended", service_names[s]);
            MUST(proc_rss(m->proc) < before[s] + GROWTH, "%s-svc had %ld KiB and has %ld",
                 service_names[s], before[s], proc_rss(m->proc));
        }
    for (int s = 0; s < SERVICES; s++)
        MUST_BE(web_get(NULL, "%s", world_url(world_member(w, s, 0), "/livez")), 200);
    shell("deploy/local/start kafka");
    all_well("away", 2 * ORDERS);
}
END_TEST

/* Services that are started while neither server is there wait for them. */
START_TEST(services_wait_for_their_servers)
{
    for (int s = 0; s < SERVICES; s++)
        world_kill(world_member(w, s, 0));
    shell("deploy/local/kill kafka; deploy/local/kill postgres");
    for (int s = 0; s < SERVICES; s++)
        world_start(w, s, 0);
    for (int s = 0; s < SERVICES; s++)
        AWAIT(PATIENCE, proc_said(world_member(w, s, 0)->proc, "waiting for the database"));
    shell("deploy/local/start postgres");
    for (int s = 0; s < SERVICES; s++)
        AWAIT(PATIENCE, proc_said(world_member(w, s, 0)->proc, "waiting for Kafka"));
    shell("deploy/local/start kafka");
    for (int s = 0; s < SERVICES; s++)
        AWAIT(PATIENCE, world_is_ready(world_member(w, s, 0)));
    world_load(w, "waited", 0, 100);
    all_well("waited", 100);
}
END_TEST

/* Fences payment-svc, which joins again; times: for how often it has, in its life. */
static void fence_payment(int times)
{
    struct proc *fenced = world_member(w, PAYMENT, 0)->proc;
    const char *again = "fenced: joining the group again"; /* is said first, then done */

    /* A twin that is there before payment has come back is fenced by it, and fences nobody. */
    for (int k = 0; k < 5 && proc_count(fenced, again) < times; k++) {
        struct kafka_twin *twin = kafka_twin(text("%spayment-svc", w->prefix), "payment-0",
                                             world_topic(w, "order.events"));
        AWAIT(PATIENCE, kafka_twin_fenced(twin) || !proc_alive(fenced));
        kafka_twin_free(twin);
        MUST(proc_alive(fenced), "it has ended");
    }
    MUST_BE(proc_count(fenced, again), times);
}

/* A commit that waited while Kafka was away fences its own member. So one that is fenced twice in a
 * minute has no twin, if Kafka was away in between. PostgreSQL is away meanwhile, so that nothing is
 * committed and the fences are the test's alone. */
START_TEST(kafka_can_go_twice_in_a_minute)
{
    int had = proc_count(world_member(w, PAYMENT, 0)->proc, "fenced: joining the group again");

    world_load(w, "twice", 0, 200);
    kafka_flush(10);
    shell("deploy/local/kill postgres QUIT");
    AWAIT(PATIENCE, none_is_ready());
    shell("deploy/local/kill kafka && deploy/local/start kafka");
    fence_payment(had + 1);
    shell("deploy/local/kill kafka && deploy/local/start kafka");
    fence_payment(had + 2);
    shell("deploy/local/start postgres");
    all_well("twice", 200);
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

Suite *servers_suite(void)
{
    Suite *s = suite_create("servers");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, postgres_can_crash);
    tcase_add_test(t, postgres_can_be_killed);
    tcase_add_test(t, kafka_can_be_killed);
    tcase_add_test(t, kafka_can_be_away);
    tcase_add_test(t, services_wait_for_their_servers);
    tcase_add_test(t, kafka_can_go_twice_in_a_minute);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
