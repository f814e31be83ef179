/* Orders over HTTP, by two processes of order-svc that share the lanes: what is answered and what comes
 * of it, also where the other process owns the lane, Kafka does not answer, or connections are cut. */
#include "suites.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crowd.h"
#include "cutter.h"
#include "web.h"
#include "world.h"

enum {
    LANES = 6,
    PATIENCE = 20,
    HURRIED = 20, /* orders that are paid as soon as they are placed */
    WAITERS = 1000,
    LOOK_EVERY_MS = 50,
    MANY = 10000, /* orders over connections that are cut, */
    CLIENTS = 50, /* by so many at once */
    CUT_BYTES = 5000,
    SEED = 9,
};

static struct world *w;

static void setup(void)
{
    static const char *const settings[] = {"SAGA_POST_TIMEOUT=4s", NULL};

    w = world_new("orders_http", LANES, settings);
    world_start_all(w);
    world_start(w, ORDER, 1);
    AWAIT(PATIENCE, world_is_ready(world_member(w, ORDER, 1)) && world_is_whole(w));
    world_stock(w, "apple", 1000000);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* ---- Asking ---- */

static const char *url(int process, const char *path)
{
    return world_url(world_member(w, ORDER, process), text("/api/v1/orders%s", path));
}

static struct crowd_ask asked; /* the newest */

/* headers: of the test's, or NULL. -> the status; the answer is in asked until the next one */
static long ask(int process, const char *path, const char *body, const char *header,
                const char *second)
{
    struct crowd *crowd = crowd_new(1);

    json_decref(asked.answer);
    asked = (struct crowd_ask){.url = url(process, path), .body = body, .header = {header, second}};
    crowd_add(crowd, &asked);
    while (crowd_turn(crowd))
        ;
    crowd_free(crowd);
    return asked.status;
}

static const char *member(const char *name)
{
    const char *value = json_string_value(json_object_get(asked.answer, name));

    return value ? text("%s", value) : "";
}

/* For longer than a text() lives. */
static char *kept(const char *s)
{
    char *copy = strdup(s);

    MUST(copy, "out of memory");
    return copy;
}

#define EXPECT(status_, ...)                                                                       \
    do {                                                                                           \
        long is_ = ask(__VA_ARGS__);                                                               \
        MUST(is_ == (status_), "%ld, expected %d: %s", is_, (int)(status_), member("detail"));     \
    } while (0)

static const char *content(const char *token)
{
    return world_place_json(NULL, "apple 1 100", token);
}

static const char *key_of(const char *name)
{
    return text("Idempotency-Key: %s", name);
}

/* Places an order and waits until it has come to something. -> its id */
static const char *placed(int process, const char *token)
{
    EXPECT(same(token, "later") ? 202 : 200, process, "", content(token),
           same(token, "later") ? NULL : "Prefer: wait=20", NULL);
    return kept(member("order_id"));
}

static const char *status_of(const char *order)
{
    const char *state =
        db_text(w->db, "select state from order_svc.orders where order_id = '%s'", order);

    return state ? state : "NONE";
}

static void await_status(const char *order, const char *status)
{
    AWAIT(PATIENCE, same(status_of(order), status));
}

static int64_t requests(void)
{
    return kafka_ends(world_topic(w, "order.requests"), LANES, (int64_t[LANES]){0});
}

/* ---- Placing ---- */

/* 202 says where the request is in Kafka; the order's history names it as the cause, and it is the very
 * record that any other program would write. */
START_TEST(what_is_accepted_is_in_kafka)
{
    for (int process = 0; process < 2; process++) {
        EXPECT(202, process, "", world_place_json("ord:1", "apple 2 150", "tok_ok"), NULL, NULL);
        const char *id = kept(member("order_id")), *place = kept(member("request_id"));
        MUST(same(id, "ord:1") && same(asked.location, "/api/v1/orders/ord:1"), "%s", id);
        await_status(id, "PAID");
        MUST(same(place, db_text(w->db, "select history->0->>'cause' from order_svc.orders where "
                                        "order_id = 'ord:1'")),
             "%s", place);
    }
    struct kafka_log *log = kafka_read(world_topic(w, "order.requests"));
    MUST_BE(log->n, 1); /* the second found the first */
    const char *line = shell("sagactl order place --id ord:1 --customer ann "
                             "--line apple:2:150 --token tok_ok --print");
    MUST(log->at[0].value_n == strcspn(line, "\n") &&
             strncmp(log->at[0].value, line, log->at[0].value_n) == 0,
         "%.*s", (int)log->at[0].value_n, log->at[0].value);
    MUST(log->at[0].key_n == 5 && memcmp(log->at[0].key, "ord:1", 5) == 0, "the key");
    kafka_log_free(log);
}
END_TEST

/* The same key names the same order at every process; other content under it is refused. */
START_TEST(a_key_places_one_order)
{
    EXPECT(200, 0, "", content("tok_ok"), key_of("a-key"), "Prefer: wait=20");
    const char *id = kept(member("order_id")), *place = kept(member("request_id"));
    MUST(same(member("status"), "PAID") && same(asked.applied, "wait=20"), "%s", member("status"));
    int64_t had = requests();
    for (int process = 0; process < 2; process++) {
        EXPECT(202, process, "", content("tok_ok"), key_of("a-key"), NULL);
        MUST(same(member("order_id"), id) && same(member("request_id"), place), "%s", id);
        EXPECT(200, process, "", content("tok_ok"), key_of("\"a-key\""), "Prefer: wait=20");
        MUST(same(member("order_id"), id) && same(member("request_id"), place), "%s", id);
        EXPECT(422, process, "", content("tok_declined"), key_of("a-key"), NULL);
        EXPECT(409, process, "", world_place_json(id, "apple 2 100", "tok_ok"), NULL, NULL);
    }
    MUST_BE(requests(), had);
    EXPECT(202, 0, "", content("tok_ok"), key_of("b-key"), NULL);
    MUST(!same(member("order_id"), id), "two keys, one order");
    EXPECT(202, 0, "", content("tok_ok"), NULL, NULL);
    const char *first = kept(member("order_id"));
    EXPECT(202, 0, "", content("tok_ok"), NULL, NULL);
    MUST(!same(member("order_id"), first), "no key, one order");
}
END_TEST

/* The fields tables decide what is read, and the answer names the member. */
START_TEST(what_is_wrong_is_named)
{
    static const struct {
        int status;
        const char *path, *body, *says;
    } bad[] = {
        {400, "", "nope", "byte"},
        {422, "", "{}", "customer_id"},
        {422, "",
         "{\"customer_id\":\"c\",\"currency\":\"EUR\",\"payment\":{},\"lines\":[{\"sku\":\"a\","
         "\"quantity\":0,\"unit_price\":1}]}",
         "lines[0].quantity"},
        {422, "/x/pay", "{}", "token"},
        {422, "/x/cancel", "{\"reason\":1}", "reason"},
        {422, "/x/ship", "{\"order_id\":\"y\"}", "order_id"},
        {404, "/x/ship", "{}", "unknown_order"},
        {404, "/no%20name/ship", "{}", "no name"},
    };

    world_settle(w, PATIENCE); /* of a lane that is behind it is not known what orders there are */
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        EXPECT(bad[i].status, 0, bad[i].path, bad[i].body, NULL, NULL);
        MUST(strstr(member("detail"), bad[i].says), "%s: %s", bad[i].says, member("detail"));
    }
    EXPECT(400, 0, "", content("tok_ok"), "Idempotency-Key: a b", NULL);
    EXPECT(404, 0, "/x", NULL, NULL, NULL);
    EXPECT(404, 0, "/%FF", NULL, NULL, NULL);
    EXPECT(404, 0, "/%FF/ship", "{}", NULL, NULL);
    EXPECT(400, 0, "?after=%FF", NULL, NULL, NULL);
}
END_TEST

/* ---- What is asked of an order ---- */

static const char *const verbs[] = {"pay", "cancel", "ship", "complete"};

static const char *body_of(const char *verb)
{
    return same(verb, "pay") ? "{\"token\":\"tok_ok\"}" : "{}";
}

/* 409 is answered where the rules reject (RULES.md, "Order"), and nothing else is refused. What is
 * accepted is then really not rejected. */
START_TEST(what_the_rules_reject_is_refused)
{
    static const struct {
        const char *status, *token, *by; /* by: what brings it there */
        int pay, cancel, ship, complete;
    } table[] = {
        {"CREATED", "later", "", 202, 202, 409, 409},
        {"PAID", "tok_ok", "", 202, 202, 202, 409},
        {"CANCELLED", "tok_declined", "", 409, 202, 409, 409},
        {"SHIPPED", "tok_ok", "ship", 202, 409, 202, 202},
        {"COMPLETED", "tok_ok", "ship complete", 202, 409, 202, 202},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const int expected[] = {table[i].pay, table[i].cancel, table[i].ship, table[i].complete};
        for (int v = 0; v < 4; v++) {
            const char *id = placed(v % 2, table[i].token);
            if (strstr(table[i].by, "ship"))
                EXPECT(200, v % 2, text("/%s/ship", id), "{}", "Prefer: wait=20", NULL);
            if (strstr(table[i].by, "complete"))
                EXPECT(200, v % 2, text("/%s/complete", id), "{}", "Prefer: wait=20", NULL);
            await_status(id, table[i].status);
            EXPECT(expected[v], v / 2, text("/%s/%s", id, verbs[v]), body_of(verbs[v]), NULL, NULL);
            if (expected[v] == 409)
                MUST(strstr(member("detail"), table[i].status), "%s", member("detail"));
        }
    }
    world_settle(w, PATIENCE);
    MUST_BE(db_int(w->db, "select count(*) from order_svc.refusal"), 0);
}
END_TEST

/* A request for an order that has just been accepted is not told that there is none, wherever it goes; nor
 * that it is not shipped, when that has just been accepted. */
START_TEST(an_order_is_known_from_its_202_on)
{
    for (int i = 0; i < HURRIED; i++) {
        EXPECT(202, i % 2, "", content("later"), NULL, NULL);
        const char *id = kept(member("order_id"));
        EXPECT(200, (i / 2) % 2, text("/%s/pay", id), body_of("pay"), "Prefer: wait=20", NULL);
        MUST(same(member("status"), "PAID") && same(member("order_id"), id), "%s",
             member("status"));
        EXPECT(202, (i / 4) % 2, text("/%s/ship", id), "{}", NULL, NULL);
        EXPECT(200, (i / 8) % 2, text("/%s/complete", id), "{}", "Prefer: wait=20", NULL);
        MUST(same(member("status"), "COMPLETED"), "%s", member("status"));
    }
}
END_TEST

/* ---- Waiting ---- */

/* The answer is held until there is something to say, whoever owns the lane; or until the time is up. */
START_TEST(an_answer_waits_for_the_outcome)
{
    for (int process = 0; process < 2; process++)
        for (int i = 0; i < LANES; i++) {
            const char *id = placed(process, "tok_ok");
            MUST(same(member("status"), "PAID"), "%s", member("status"));
            EXPECT(200, process, text("/%s/cancel", id), "{}", "Prefer: wait=20", NULL);
            MUST(same(member("status"), "CANCELLED") && same(member("reason"), "customer"), "%s",
                 member("status"));
        }
    const char *id = placed(0, "later");
    await_status(id, "CREATED");
    EXPECT(200, 1, text("/%s", id), NULL, "Prefer: respond-async, wait=1", NULL);
    MUST(same(member("status"), "CREATED") && same(asked.applied, "wait=1"), "%s", asked.applied);
    EXPECT(202, 1, "", content("later"), "Prefer: wait=3", NULL);
    MUST(same(member("status"), "CREATED"), "%s", member("status"));
    EXPECT(404, 1, "/nobody", NULL, "Prefer: wait=1", NULL);
}
END_TEST

/* As a client does: after a broken connection, where too many wait for a worker, and without an
 * acknowledgement. */
static bool until_accepted(const struct crowd_ask *one)
{
    return one->status == 0 || one->status == 503 || one->status == 504;
}

static struct crowd_ask *many_asks(int n)
{
    struct crowd_ask *asks = calloc((size_t)n, sizeof *asks);

    MUST(asks, "out of memory");
    return asks;
}

static void free_asks(struct crowd_ask *asks, int n)
{
    for (int i = 0; i < n; i++) {
        json_decref(asks[i].answer);
        free((char *)(uintptr_t)asks[i].url);
        free((char *)(uintptr_t)asks[i].header[0]);
    }
    free(asks);
}

/* What the processes have of requests: for who looks for one that is not answered. */
static const char *inside(void)
{
    const char *all = "";

    for (int k = 0; k < 2; k++)
        all = text("%s; process %d: %s", all, k,
                   shell("curl -s -m 5 %s | grep -E '^saga_(http|post|wait).* [^0]' | "
                         "grep -v seconds | tr '\\n' ' ' || echo no answer",
                         world_url(world_member(w, ORDER, k), "/metrics")));
    return all;
}

static void wait_all(struct crowd *crowd, double seconds)
{
    const char *left = crowd_wait(crowd, seconds);

    MUST(!left, "%s%s", left, inside());
    crowd_free(crowd);
}

static int64_t metric(int process, const char *name)
{
    const char *line = shell("curl -sf %s | grep '^%s '",
                             world_url(world_member(w, ORDER, process), "/metrics"), name);

    return atoll(line + strlen(name));
}

/* Two bodies under one key while the order's lane stands still: both are accepted, the second is
 * rejected by the saga, and who waits is told. */
START_TEST(who_waits_is_told_of_a_rejection)
{
    struct member *other = world_member(w, ORDER, 1);
    struct crowd_ask *asks = many_asks(LANES);
    struct crowd *crowd = crowd_new(LANES);
    int told = 0;

    for (int i = 0; i < LANES; i++)
        asks[i] =
            (struct crowd_ask){.url = kept(url(0, "")),
                               .body = kept(content("tok_declined")),
                               .header = {kept(key_of(text("twice-%d", i))), "Prefer: wait=20"}};
    proc_signal(other->proc, SIGSTOP); /* its lanes are process 0's in a moment */
    for (int i = 0; i < LANES; i++)
        EXPECT(202, 0, "", content("tok_ok"), asks[i].header[0], NULL);
    for (int i = 0; i < LANES; i++)
        crowd_add(crowd, &asks[i]);
    AWAIT(PATIENCE, (crowd_turn(crowd), metric(0, "saga_waiting") > 0));
    proc_signal(other->proc, SIGCONT);
    wait_all(crowd, PATIENCE);
    for (int i = 0; i < LANES; i++) {
        told += asks[i].applied[0] != 0;
        MUST(asks[i].status == 422 &&
                 strstr(json_string_value(json_object_get(asks[i].answer, "detail")),
                        "order_exists"),
             "%ld", asks[i].status);
    }
    MUST(told > 0, "all were refused at once");
    free_asks(asks, LANES);
}
END_TEST

static int64_t waiting(void)
{
    return metric(0, "saga_waiting") + metric(1, "saga_waiting");
}

/* A thousand wait for one query in 50 ms, each is told of its own order, and nobody waiting costs none. */
START_TEST(a_thousand_can_wait)
{
    struct crowd_ask *asks = many_asks(WAITERS);
    struct crowd *crowd = crowd_new(WAITERS);

    for (int i = 0; i < WAITERS; i++)
        world_place(w, text("wait-%d", i), "apple 1 100", "later");
    kafka_flush(10);
    AWAIT(PATIENCE, db_int(w->db, "select count(*) from order_svc.orders where order_id like "
                                  "'wait-%%'") == WAITERS);
    AWAIT(PATIENCE, waiting() == 0);
    int64_t idle = metric(0, "saga_waiting_looks_total");
    for (int i = 0; i < WAITERS; i++) {
        asks[i] = (struct crowd_ask){.url = kept(url(i % 2, text("/wait-%d", i))),
                                     .header = {kept("Prefer: wait=30")},
                                     .again = until_accepted};
        crowd_add(crowd, &asks[i]);
    }
    MUST_BE(metric(0, "saga_waiting_looks_total"), idle);
    int64_t until = test_until(PATIENCE);
    do
        MUST(crowd_turn(crowd) == WAITERS && test_now() < until, "%d wait", (int)waiting());
    while (waiting() < WAITERS);

    int64_t began = test_now(), looks = metric(0, "saga_waiting_looks_total"), most;
    while (metric(0, "saga_waiting_looks_total") < looks + 10)
        MUST(crowd_turn(crowd) == WAITERS && test_now() < until, "they do not look");
    looks = metric(0, "saga_waiting_looks_total") - looks;
    most = (test_now() - began) / (LOOK_EVERY_MS * 1000) + 1;
    MUST(looks <= most, "%lld looks where %lld were due", (long long)looks, (long long)most);

    for (int i = 0; i < WAITERS; i++)
        world_ask(w, text("wait-%d", i),
                  "{\"type\":\"PayOrder\",\"order_id\":\"wait-%d\",\"token\":\"%s\"}", i,
                  i % 3 ? "tok_ok" : "tok_declined");
    kafka_flush(10);
    wait_all(crowd, PATIENCE);
    for (int i = 0; i < WAITERS; i++) {
        const char *id = json_string_value(json_object_get(asks[i].answer, "order_id"));
        const char *status = json_string_value(json_object_get(asks[i].answer, "status"));
        MUST(asks[i].status == 200 && same(id, text("wait-%d", i)) &&
                 same(status, i % 3 ? "PAID" : "CANCELLED"),
             "%ld %s %s for wait-%d", asks[i].status, id, status, i);
    }
    MUST_BE(waiting(), 0);
    free_asks(asks, WAITERS);
}
END_TEST

/* Who waits is answered when the process stops, with what is known. */
START_TEST(who_waits_is_answered_at_the_end)
{
    struct crowd_ask *one = many_asks(1);
    struct crowd *crowd = crowd_new(1);
    const char *id = placed(0, "later");

    await_status(id, "CREATED");
    *one = (struct crowd_ask){.url = kept(url(1, text("/%s", id))),
                              .header = {kept("Prefer: wait=30")}};
    crowd_add(crowd, one);
    int64_t until = test_until(PATIENCE);
    do
        MUST(crowd_turn(crowd) == 1 && test_now() < until, "it does not wait");
    while (waiting() == 0);
    proc_signal(world_member(w, ORDER, 1)->proc, SIGTERM);
    wait_all(crowd, 3);
    MUST_BE(one->status, 200);
    free_asks(one, 1);
    MUST_BE(proc_wait(world_member(w, ORDER, 1)->proc, 6), 0);
    world_kill(world_member(w, ORDER, 1));
    world_start(w, ORDER, 1);
    AWAIT(PATIENCE, world_is_ready(world_member(w, ORDER, 1)) && world_is_whole(w));
}
END_TEST

/* ---- Trouble ---- */

/* Stopped when this returns: not one of its threads runs. */
static void freeze(pid_t pid)
{
    kill(pid, SIGSTOP);
    AWAIT(PATIENCE, same(shell("grep -h '^State:' /proc/%d/task/*/status | grep -v stopped || true",
                               (int)pid),
                         ""));
}

/* Kafka says nothing: it is not known whether it has the request, and a repeat with the same key
 * is one order. */
START_TEST(kafka_does_not_acknowledge)
{
    const char *kafka = shell("head -n 1 $SAGA_RUN/kafka.pid");
    pid_t pid = atoi(kafka);

    MUST(pid > 1, "no pid: %s", kafka);
    EXPECT(202, 0, "", content("tok_ok"), NULL, NULL); /* connected */
    freeze(pid);
    int64_t began = test_now();
    long status = ask(0, "", content("tok_ok"), key_of("silent"), NULL);
    MUST(strstr(member("detail"), "same Idempotency-Key"), "%ld after %.3f s: %s, %s", status,
         (double)(test_now() - began) / 1e6, asked.why, member("detail"));
    long unknown = ask(0, "/nobody/cancel", "{}", NULL, NULL); /* is it on its way? */
    kill(pid, SIGCONT);
    MUST_BE(unknown, 503);
    MUST_BE(status, 504);
    do
        ask(0, "", content("tok_ok"), key_of("silent"), "Prefer: wait=20");
    while (until_accepted(&asked));
    MUST_BE(asked.status, 200);
    MUST(same(member("status"), "PAID"), "%s", member("status"));
    MUST(metric(0, "saga_posts_total{end=\"unknown\"}") >= 1, "it is not counted");
    AWAIT(PATIENCE, world_is_whole(w));
}
END_TEST

/* Ten thousand orders over connections that are cut in the middle of requests and answers; each client
 * repeats what it asked, with the same key, until it has its 202. No order is lost, none is there twice. */
START_TEST(cut_connections_lose_and_double_nothing)
{
    struct cutter *cutter[2];
    struct crowd_ask *asks = many_asks(MANY);
    struct crowd *crowd = crowd_new(CLIENTS);
    char *body = kept(world_place_json(NULL, "apple 1 101", "tok_ok")); /* a price of their own */
    int64_t sent = requests();
    int tries = 0;

    for (int k = 0; k < 2; k++)
        cutter[k] = cutter_start(world_member(w, ORDER, k)->port, SEED + (unsigned)k, CUT_BYTES);
    for (int i = 0; i < MANY; i++) {
        asks[i] = (struct crowd_ask){
            .url = kept(text("http://127.0.0.1:%d/api/v1/orders", cutter_port(cutter[i % 2]))),
            .body = body,
            .header = {kept(key_of(text("cut-%d", i)))},
            .again = until_accepted};
        crowd_add(crowd, &asks[i]);
    }
    wait_all(crowd, 2 * PATIENCE);
    int64_t cuts = cutter_cuts(cutter[0]) + cutter_cuts(cutter[1]);
    for (int k = 0; k < 2; k++)
        cutter_stop(cutter[k]);
    for (int i = 0; i < MANY; i++) {
        MUST(asks[i].status == 202, "%ld", asks[i].status);
        tries += asks[i].tries;
    }
    world_settle(w, 2 * PATIENCE);
    sent = requests() - sent;
    printf("   %d orders, %lld connections cut, %d requests, %lld of them accepted\n", MANY,
           (long long)cuts, tries, (long long)sent);
    MUST(cuts > MANY / 20 && sent > MANY && tries > sent, "too few cuts to show anything");
    MUST_BE(db_int(w->db, "select count(*) from order_svc.orders where amount = 101"), MANY);
    MUST_BE(db_int(w->db, "select count(*) from order_svc.orders where state = 'CREATED' and "
                          "payment_mode = 'now'"),
            0);
    db_run(w->db, "create table answered (order_id text)");
    for (int i = 0; i < MANY;) {
        const char *list = "";
        for (int n = 0; n < 200 && i < MANY; n++, i++)
            list = text("%s%s('%s')", list, *list ? "," : "",
                        json_string_value(json_object_get(asks[i].answer, "order_id")));
        db_run(w->db, "insert into answered values %s", list);
    }
    MUST_BE(db_int(w->db,
                   "select count(distinct order_id) from answered join order_svc.orders using "
                   "(order_id) where state = 'PAID'"),
            MANY);
    free_asks(asks, MANY);
    free(body);
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_settle(w, PATIENCE);
    world_audit(w);
}
END_TEST

Suite *orders_http_suite(void)
{
    Suite *s = suite_create("orders_http");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, what_is_accepted_is_in_kafka);
    tcase_add_test(t, a_key_places_one_order);
    tcase_add_test(t, what_is_wrong_is_named);
    tcase_add_test(t, what_the_rules_reject_is_refused);
    tcase_add_test(t, an_order_is_known_from_its_202_on);
    tcase_add_test(t, an_answer_waits_for_the_outcome);
    tcase_add_test(t, who_waits_is_told_of_a_rejection);
    tcase_add_test(t, a_thousand_can_wait);
    tcase_add_test(t, who_waits_is_answered_at_the_end);
    tcase_add_test(t, kafka_does_not_acknowledge);
    tcase_add_test(t, cut_connections_lose_and_double_nothing);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
