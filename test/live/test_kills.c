/* Crashes and stops in the middle of a load: processes killed, and restarted. Whatever happens, each order
 * comes to its end, once. */
#include "suites.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "web.h"
#include "world.h"

enum { LANES = 12, ORDERS = 1000, PATIENCE = 40 };

static struct world *w;

static void setup(void)
{
    w = world_new("kills", LANES, NULL);
    world_start_all(w);
    world_stock_load(w);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* Orders of a load that are at their end. */
static int64_t ended(const char *name)
{
    return db_int(w->db,
                  "select count(*) from orders where order_id ~ '^%s-[0-9]+$' and state in "
                  "('PAID', 'CANCELLED')",
                  name);
}

/* A load of which the last part is sent when something has happened to the first. */
static void start_load(const char *name)
{
    world_load(w, name, 0, ORDERS);
    kafka_flush(10);
}

static void all_well(const char *name)
{
    world_settle(w, PATIENCE);
    world_loaded(w, name, ORDERS);
    for (int i = 0; i < w->members; i++)
        MUST(!w->member[i].proc || !proc_said(w->member[i].proc, "Assertion"), "assertion failed");
}

/* ---- Killed ---- */

static void kill_under_load(int service)
{
    char name[32];
    struct member *m = world_member(w, service, 0);

    snprintf(name, sizeof name, "kill-%s", service_names[service]);
    start_load(name);
    for (int k = 1; k <= 3; k++) {
        AWAIT(PATIENCE, ended(name) > ORDERS / 8 * k);
        world_kill(m);
        world_start(w, service, 0);
    }
    all_well(name);
}

/* kill -9 of a service, three times in a load, at whatever it was doing (attacks 1, 5, 6). */
START_TEST(order_svc_can_be_killed)
{
    kill_under_load(ORDER);
}
END_TEST

START_TEST(inventory_svc_can_be_killed)
{
    kill_under_load(INVENTORY);
}
END_TEST

/* Its charges under way are charged once (attack 40): a tenth of the load has lost answers. */
START_TEST(payment_svc_can_be_killed)
{
    kill_under_load(PAYMENT);
}
END_TEST

/* All of them, at once. */
START_TEST(all_services_can_be_killed)
{
    start_load("kill-all");
    for (int k = 1; k <= 2; k++) {
        AWAIT(PATIENCE, ended("kill-all") > ORDERS / 8 * k);
        for (int s = 0; s < SERVICES; s++)
            world_kill(world_member(w, s, 0));
        for (int s = 0; s < SERVICES; s++)
            world_start(w, s, 0);
    }
    all_well("kill-all");
}
END_TEST

/* SIGTERM in a load: each ends in time, with 0, and goes on where it was. */
START_TEST(services_can_be_restarted)
{
    start_load("restart");
    for (int s = 0; s < SERVICES; s++) {
        world_stop(world_member(w, s, 0));
        world_start(w, s, 0);
    }
    all_well("restart");
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

Suite *kills_suite(void)
{
    Suite *s = suite_create("kills");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, order_svc_can_be_killed);
    tcase_add_test(t, inventory_svc_can_be_killed);
    tcase_add_test(t, payment_svc_can_be_killed);
    tcase_add_test(t, all_services_can_be_killed);
    tcase_add_test(t, services_can_be_restarted);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
