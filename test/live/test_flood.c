/* Many open charges at a slow provider (attack 46): memory stays flat, each is charged once, and
 * deadlines of other orders come on time. */
#include "suites.h"

#include <inttypes.h>
#include <string.h>

#include "world.h"

enum { LANES = 6, OPEN = 5000, UNPAID = 200, PATIENCE = 60, RSS_MAX = 100 * 1024 /* KiB */ };

static const char *const settings[] = {"SAGA_PAY_TIMEOUT=4s", "SAGA_CALL_TIMEOUT=3s", NULL};
static struct world *w;

static void setup(void)
{
    w = world_new("flood", LANES, settings);
    world_start_all(w);
    world_stock(w, "apple", 100000000);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static int64_t count(const char *table, const char *where)
{
    return db_int(w->db, "select count(*) from %s where %s", table, where);
}

static bool is_small(void)
{
    for (int s = 0; s < SERVICES; s++) {
        long rss = proc_rss(world_member(w, s, 0)->proc);
        MUST(rss < RSS_MAX, "%s-svc has %ld KiB", service_names[s], rss);
    }
    return true;
}

/* 5,000 charges wait at a provider that takes two seconds for each; between them orders that nobody
 * pays. Those are cancelled when their time has come, not when the provider has. */
START_TEST(deadlines_are_kept_while_thousands_of_charges_are_open)
{
    for (int i = 0; i < OPEN; i++) {
        world_place(w, text("open-%d", i), "apple 1 150", "tok_slow_2000");
        if (i % (OPEN / UNPAID) == 0)
            world_place(w, text("unpaid-%d", i), "apple 1 150", "later");
    }
    kafka_flush(10);
    AWAIT(PATIENCE, is_small() && count("payment", "state = 'CHARGING'") > OPEN / 2);
    AWAIT(PATIENCE, is_small() && count("orders", "order_id like 'unpaid-%' and state = "
                                                  "'CANCELLED'") == UNPAID);
    int64_t late =
        db_int(w->db, "select (max(extract(epoch from (h->>'at')::timestamptz - created_at))"
                      "        * 1000)::bigint - 4000"
                      "  from orders, json_array_elements(history) h"
                      " where order_id like 'unpaid-%%' and h->>'status' = 'CANCELLING'");
    MUST(late >= 0 && late < 2000, "a deadline came %" PRId64 " ms late", late);
}
END_TEST

/* Every one of them comes to its end: paid, or, if that came too late, given back. Each was charged
 * once and nobody's money is kept (the audit). */
START_TEST(every_open_charge_comes_to_its_end)
{
    AWAIT(PATIENCE, is_small() && count("payment", "state in ('CHARGING', 'REFUNDING')") == 0);
    world_settle(w, PATIENCE);
    MUST_BE(count("orders", "order_id like 'open-%' and state in ('PAID', 'CANCELLED')"), OPEN);
    MUST_BE(count("ledger", "key like 'charge:open-%' and reason is null"), OPEN);
    MUST_BE(count("ledger", "key like 'refund:%'"),
            count("orders", "order_id like 'open-%' and state = 'CANCELLED'"));
    MUST(count("orders", "order_id like 'open-%' and state = 'PAID'") > 0, "none was paid");
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

Suite *flood_suite(void)
{
    Suite *s = suite_create("flood");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, deadlines_are_kept_while_thousands_of_charges_are_open);
    tcase_add_test(t, every_open_charge_comes_to_its_end);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
