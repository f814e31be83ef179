/* What the services answer is what schemas/openapi.yaml says, as schemathesis asks them. */
#include "suites.h"

#include "test.h"
#include "world.h"

enum { LONGEST = 300 /* s: at the first time it is installed, too */ };

/* All checks that it has, of valid and invalid questions by a seed: none fails. */
START_TEST(no_answer_is_another_than_described)
{
    struct world *w = world_new("schemathesis", 6, NULL);

    world_start_all(w);
    world_stock(w, "apple", 1000000);
    world_place(w, "ord-1", "apple 2 150", "tok_ok");
    world_settle(w, 20);
    const char *const env[] = {
        text("ORDER_URL=%s", world_url(world_member(w, ORDER, 0), "")),
        text("INVENTORY_URL=%s", world_url(world_member(w, INVENTORY, 0), "")),
        text("PAYMENT_URL=%s", world_url(world_member(w, PAYMENT, 0), "")), NULL};
    struct proc *p =
        proc_start("test/schemathesis/run", env, text("build/live/%s/schemathesis.log", w->name));
    MUST_BE(proc_wait(p, LONGEST), 0);
    proc_free(p);
    world_free(w);
}
END_TEST

Suite *schemathesis_suite(void)
{
    Suite *s = suite_create("schemathesis");
    TCase *t = tcase_create("schemathesis");

    tcase_add_test(t, no_answer_is_another_than_described);
    suite_add_tcase(s, t);
    return s;
}
