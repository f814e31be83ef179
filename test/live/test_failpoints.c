/* Every service dies at every point between two durable steps (libsaga/failpoint.h), under a load of
 * all kinds of orders, and is started again: each order comes to its end, once. At the points of a
 * batch it also stands still there, until another process has taken its lanes and done the work, and
 * goes on then. A point that a service does not pass, though it is listed for it, fails. */
#include "suites.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "failpoint.h"
#include "web.h"
#include "world.h"

enum { LANES = 4, ORDERS = 20, PATIENCE = 30, AGAIN = 3 /* s */ };

static struct world *w;
static int loaded; /* orders of the load */

/* ---- What makes a service pass a point ---- */

enum way {
    START,   /* starting is enough: nothing else works yet */
    TAKE,    /* as is taking lanes */
    LOAD,    /* orders of all kinds */
    CRASHED, /* a crash between COMMIT and publishing, before */
    LETTER,  /* a record that nobody can read, on the topics that the service reads */
    FORWARD, /* a request in a partition that is not its order's */
    LATE,    /* an order that is not paid in time */
    PARK,    /* an order that the database refuses */
    REDRIVE, /* and that it takes after all */
    COMMAND, /* an operator's: to publish once more what the outbox has of each lane */
    POST,    /* of stock, by HTTP */
    READ,    /* and a GET of it, through the cache */
    QUIT     /* SIGTERM */
};

enum { O = 1 << ORDER, I = 1 << INVENTORY, P = 1 << PAYMENT, ALL = O | I | P };

/* clang-format off */
static const struct point {
    const char *name;
    enum way way;
    int services;    /* that pass it */
    int pass;        /* which one: not the first, where there are many */
    bool can_pause;
} points[] = {
#define AT(name) [SAGA_AT_##name] = {#name
    AT(migrating), START, ALL, 1, false},
    AT(migrated), START, ALL, 1, false},
    AT(identified), START, ALL, 1, false},
    AT(term_sent), TAKE, ALL, 2, true},
    AT(term_raised), TAKE, ALL, 2, true},
    AT(republishing), CRASHED, ALL, 1, false},
    AT(republished), CRASHED, ALL, 1, false},
    AT(lane_taken), TAKE, ALL, 2, true},
    AT(screened), LOAD, ALL, 2, true},
    AT(load_sent), LOAD, ALL, 1, true},
    AT(loaded), LOAD, ALL, 1, true},
    AT(decided), LOAD, ALL, 3, false},
    AT(store_begun), LOAD, ALL, 2, true},
    AT(commit_sent), LOAD, ALL, 2, true},
    AT(committed), LOAD, ALL, 2, true},
    AT(publishing), LOAD, ALL, 1, false},
    AT(first_published), LOAD, ALL, 1, true},
    AT(last_publishing), LOAD, ALL, 1, false},
    AT(published), LOAD, ALL, 2, true},
    AT(letter_publishing), LETTER, ALL, 1, false},
    AT(letter_published), LETTER, ALL, 1, false},
    AT(forward_publishing), FORWARD, O, 1, false},
    AT(forward_published), FORWARD, O, 1, false},
    AT(report_received), LOAD, ALL, 3, true},
    AT(report_counted), LOAD, ALL, 3, false},
    AT(published_storing), LOAD, ALL, 1, false},
    AT(published_stored), LOAD, ALL, 1, false},
    AT(due_stored), LOAD, O | P, 2, false},
    AT(due_asked), LATE, O | P, 1, false},
    AT(due_forgetting), LOAD, O | P, 1, false},
    AT(due_forgotten), LOAD, O | P, 1, false},
    AT(calls_handing), LOAD, P, 1, true},
    AT(calls_handed), LOAD, P, 1, false},
    AT(call_begun), LOAD, P, 1, false},
    AT(call_booked), LOAD, P, 1, true},
    AT(answer_queued), LOAD, P, 3, false},
    AT(answers_taken), LOAD, P, 1, false},
    AT(parked), PARK, ALL, 1, false},
    AT(redrive_marked), REDRIVE, ALL, 1, false},
    AT(redriven), REDRIVE, ALL, 1, false},
    AT(lane_commanded), COMMAND, ALL, 1, false},
    AT(stock_written), POST, I, 1, false},
    AT(stock_committed), POST, I, 1, false},
    AT(stock_read), READ, I, 1, false},
    AT(offsets_committing), LOAD, ALL, 1, false},
    AT(offsets_committed), LOAD, ALL, 1, false},
    AT(rotating), LOAD, ALL, 1, false},
    AT(rotated), LOAD, ALL, 1, false},
    AT(stopping), QUIT, ALL, 1, false},
    AT(settled), QUIT, ALL, 1, false},
    AT(closed), QUIT, ALL, 1, false}
};
/* clang-format on */

static const char *const settings[] = {"SAGA_OUTBOX_KEEP=1s", NULL};
static const char *const short_deadline[] = {"SAGA_OUTBOX_KEEP=1s", "SAGA_PAY_TIMEOUT=500ms", NULL};

static void setup(void)
{
    w = world_new("failpoints", LANES, settings);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static void end_all(void)
{
    for (int i = 0; i < w->members; i++)
        if (w->member[i].proc)
            world_kill(&w->member[i]);
}

static void start_at(const struct point *p, const char *suffix)
{
    w->settings = p->way == LATE ? short_deadline : p->way == COMMAND ? NULL : settings;
    for (int s = 0; s < SERVICES; s++)
        world_start_failing(
            w, s, 0, p->services & 1 << s ? text("%s:%d%s", p->name, p->pass, suffix) : NULL);
    w->settings = settings;
}

/* ---- Provocations ---- */

static const struct {
    int service;
    const char *topic;
} letters[] = {{ORDER, "order.requests"}, {INVENTORY, "order.events"}, {PAYMENT, "order.events"}};

static void send_rubbish(void)
{
    for (size_t i = 0; i < 2; i++)
        for (int lane = 0; lane < LANES; lane++)
            kafka_send(&(struct kafka_record){
                .topic = world_topic(w, letters[i].topic), .partition = lane, .value = "rubbish"});
}

static void send_misplaced(const char *name)
{
    for (int lane = 0; lane < LANES; lane++)
        kafka_send(&(struct kafka_record){
            .topic = world_topic(w, "order.requests"),
            .partition = lane,
            .value = world_place_json(text("%s-misplaced", name), "load-0 1 150", "tok_ok")});
}

/* The one request of a test that is not read from Kafka: its sender repeats it. */
static long post(const char *name)
{
    const char *const headers[] = {text("Idempotency-Key: %s", name), NULL};

    return web_post(NULL, world_url(world_member(w, INVENTORY, 0), "/api/v1/inventory"), headers,
                    text("{\"sku\":\"stock-%s\",\"quantity\":7}", name));
}

/* Each service's database refuses a step of an order of its own. */
static const char *const refused[SERVICES][2] = {[ORDER] = {"orders", "state = 'PAID'"},
                                                 [INVENTORY] = {"reservation", "state = 'HELD'"},
                                                 [PAYMENT] = {"payment", "state = 'COMPLETED'"}};

static const char *sick(const struct point *p, int service)
{
    return text("%s-%s", p->name, service_names[service]);
}

static void place_sick(const struct point *p)
{
    for (int s = 0; s < SERVICES; s++) {
        db_run(w->db,
               "alter table %s add constraint refused check (order_id <> '%s' or not %s)"
               " not valid",
               refused[s][0], sick(p, s), refused[s][1]);
        world_place(w, sick(p, s), "load-4 1 150", "tok_ok");
    }
}

/* Services may die of the POST. */
static void cure(const struct point *p)
{
    for (int s = 0; s < SERVICES; s++)
        AWAIT(PATIENCE, db_int(w->db, "select count(*) from %s_svc.parked where key = '%s'",
                               service_names[s], sick(p, s)) == 1);
    for (int s = 0; s < SERVICES; s++) {
        db_run(w->db, "alter table %s drop constraint refused", refused[s][0]);
        AWAIT(PATIENCE, world_is_ready(world_member(w, s, 0)));
        web_post(NULL, world_url(world_member(w, s, 0), text("/parked/%s/redrive", sick(p, s))),
                 NULL, "{}");
    }
}

/* Until each has died of it. */
static void command_all(void)
{
    for (int s = 0; s < SERVICES; s++) {
        struct member *m = world_member(w, s, 0);
        AWAIT(PATIENCE, world_is_ready(m));
        const char *url = world_url(m, "");
        for (int64_t until = test_until(PATIENCE), lane = 0; proc_alive(m->proc); lane++) {
            web_post(NULL, text("%s/lanes/%d/republish", url, (int)(lane % LANES)), NULL, "{}");
            MUST(test_pause(until), "%s-svc takes no command", service_names[s]);
        }
    }
}

static void provoke(const struct point *p)
{
    if (p->way == START)
        return;
    if (p->way == LATE) { /* nothing else would be paid in time */
        world_place(w, text("%s-late", p->name), "load-0 1 150", "later");
        world_place(w, text("%s-unsure", p->name), "load-0 1 150", "tok_unknown_once");
    } else {
        world_load(w, p->name, 0, loaded = ORDERS);
    }
    if (p->way == LETTER)
        send_rubbish();
    if (p->way == FORWARD)
        send_misplaced(p->name);
    if (p->way == PARK || p->way == REDRIVE)
        place_sick(p);
    kafka_flush(10);
    if (p->way == REDRIVE)
        cure(p);
    if (p->way == COMMAND)
        command_all();
    if (p->way == POST || p->way == READ)
        post(p->name);
    if (p->way == READ) { /* not before the process believes its cache */
        struct member *m = world_member(w, INVENTORY, 0);
        const char *url = world_url(m, text("/api/v1/inventory/stock-%s", p->name));
        AWAIT(PATIENCE, (web_get(NULL, "%s", url), !proc_alive(m->proc)));
    }
    for (int s = 0; s < SERVICES && p->way == QUIT; s++) {
        AWAIT(PATIENCE, world_is_ready(world_member(w, s, 0)));
        proc_signal(world_member(w, s, 0)->proc, SIGTERM);
    }
}

/* ---- Dying ---- */

/* Starts again who has died; next: to die once more, or NULL. -> which services have */
static int bury(int services, const char *next)
{
    int dead = 0;

    for (int s = 0; s < SERVICES; s++) {
        struct member *m = world_member(w, s, 0);
        if (!(services & 1 << s) || proc_alive(m->proc))
            continue;
        MUST_BE(proc_wait(m->proc, 0), 128 + SIGKILL);
        world_kill(m);
        world_start_failing(w, s, 0, next);
        dead |= 1 << s;
    }
    return dead;
}

/* All that pass the point die at it, each when its turn comes: who comes first is back by then. Some
 * points need a batch of several events, which is a matter of luck: the load comes again until then. */
static void die_at(const struct point *p)
{
    if (p->way == START) { /* what comes next has to find a database as fresh as this one left it */
        for (int s = 0; s < SERVICES; s++)
            MUST_BE(proc_wait(world_member(w, s, 0)->proc, PATIENCE), 128 + SIGKILL);
        return;
    }
    int64_t until = test_now() + PATIENCE * INT64_C(1000000),
            again = test_now() + AGAIN * INT64_C(1000000);
    int crash = p->way == CRASHED ? p->services : 0, left = p->services;

    while (left) {
        crash &= ~bury(crash, text("%s:%d", p->name, p->pass));
        left &= crash | ~bury(left & ~crash, NULL);
        if (left && p->way == LOAD && test_now() > again) {
            world_load(w, p->name, loaded, loaded + ORDERS);
            loaded += ORDERS;
            again += AGAIN * INT64_C(1000000);
        }
        if (!test_pause(until))
            for (int s = 0; s < SERVICES; s++)
                MUST(!(left & 1 << s), "%s-svc has not passed %s", service_names[s], p->name);
    }
}

static void check_ends(const struct point *p)
{
    const char *name = p->name;

    if (p->way == START)
        return;
    if (p->way == LATE)
        AWAIT(PATIENCE, same(world_state(w, text("%s-late", name)), "CANCELLED RELEASED VOIDED"));
    if (p->way == PARK)
        cure(p);
    for (int s = 0; s < SERVICES && (p->way == PARK || p->way == REDRIVE); s++)
        AWAIT(PATIENCE, same(world_state(w, sick(p, s)), "PAID HELD COMPLETED"));
    world_settle(w, PATIENCE);
    if (p->way != LATE)
        world_loaded(w, name, loaded);
    if (p->way == FORWARD)
        MUST(db_int(w->db,
                    "select count(*) from orders where order_id = '%s-misplaced'"
                    " and state = 'PAID'",
                    name) == 1,
             "%s: the misplaced order", name);
    if (p->way != POST && p->way != READ)
        return;
    long status = post(name);
    MUST(status == 200 || status == 201, "a repeated POST of stock: %ld", status);
    MUST_BE(db_int(w->db, "select received from stock where sku = 'stock-%s'", name), 7);
    MUST_BE(db_int(w->db, "select count(*) from stock_movement where sku = 'stock-%s'", name), 1);
}

static const struct point crash = {"publishing", LOAD, ALL, 1, false};

/* Killed at each point, by itself, and started again. */
START_TEST(a_service_can_die_at_each_point)
{
    const struct point *p = &points[_i];

    end_all();
    if (p->way == TAKE && points[_i - 1].way == START) { /* the first that can have a load */
        world_start_all(w);
        world_stock_load(w);
        end_all();
    }
    start_at(p->way == CRASHED ? &crash : p, "");
    provoke(p);
    die_at(p);
    check_ends(p);
}
END_TEST

/* ---- Standing still ---- */

static bool is_paused(const struct member *m)
{
    const char *stat = shell("cut -d' ' -f3 /proc/%d/stat", (int)proc_pid(m->proc));

    return *stat == 'T';
}

/* Stopped at a point until another process has taken the lanes and come to the end of all orders;
 * then it goes on, with what it was about to do (attacks 2, 3, 4, 40, 43). */
START_TEST(a_service_can_stand_still_at_each_point)
{
    const struct point *p = &points[_i];

    if (!p->can_pause)
        return;
    end_all();
    start_at(p, ":stop");
    world_load(w, text("%s-paused", p->name), 0, ORDERS);
    kafka_flush(10);
    for (int s = 0; s < SERVICES; s++)
        if (p->services & 1 << s) {
            AWAIT(PATIENCE, is_paused(world_member(w, s, 0)));
            world_start(w, s, 1);
        }
    AWAIT(PATIENCE, db_int(w->db,
                           "select count(*) from orders where order_id like '%s-paused-%%' and "
                           "state in ('PAID', 'CANCELLED')",
                           p->name) == ORDERS);
    for (int s = 0; s < SERVICES; s++)
        if (p->services & 1 << s) {
            AWAIT(PATIENCE, proc_said(world_member(w, s, 1)->proc, "lane taken"));
            proc_signal(world_member(w, s, 0)->proc, SIGCONT);
        }
    world_settle(w, PATIENCE);
    world_loaded(w, text("%s-paused", p->name), ORDERS);
}
END_TEST

/* A taker that has raised the term of a lane, and sleeps until another one has taken it, sent what was
 * to be sent again, and turned the outbox twice: those rows are gone, and that is no loss. */
START_TEST(a_taker_that_sleeps_through_another_taking_lets_go)
{
    world_start_all(w);
    world_stock_load(w);
    AWAIT(PATIENCE, world_is_whole(w)); /* all lanes are of number 0 */
    world_kill(world_member(w, ORDER, 0));
    world_start_failing(w, ORDER, 0, "publishing:1");
    world_load(w, "sleep", 0, ORDERS);
    kafka_flush(10);
    MUST_BE(proc_wait(world_member(w, ORDER, 0)->proc, PATIENCE), 128 + SIGKILL);
    world_kill(world_member(w, ORDER, 0));
    int64_t lane = db_int(w->db, "select min(lane) from order_svc.lane where published < last_seq");
    int64_t row =
        db_int(w->db, "select published + 1 from order_svc.lane where lane = %d", (int)lane);
    world_start_failing(w, ORDER, 0, text("term_raised:%d:stop", (int)lane + 1));
    AWAIT(PATIENCE, is_paused(world_member(w, ORDER, 0)));
    world_start(w, ORDER, 1);
    AWAIT(PATIENCE,
          db_int(w->db, "select count(*) from order_svc.outbox where lane = %d and seq = %d",
                 (int)lane, (int)row) == 0);
    proc_signal(world_member(w, ORDER, 0)->proc, SIGCONT);
    world_settle(w, PATIENCE);
    world_loaded(w, "sleep", ORDERS);
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

Suite *failpoints_suite(void)
{
    Suite *s = suite_create("failpoints");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, a_service_can_die_at_each_point, 0, SAGA_FAILPOINTS_N);
    tcase_add_loop_test(t, a_service_can_stand_still_at_each_point, 0, SAGA_FAILPOINTS_N);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    t = tcase_create("sleeper");
    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, a_taker_that_sleeps_through_another_taking_lets_go);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
