/* What Kafka has acknowledged and the database does not know yet: it is written a second after; order-svc
 * alone, whose rows the test locks within that second. */
#include "suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lane.h"
#include "played.h"
#include "world.h"

enum { LANES = 3, PATIENCE = 20 };
#define LOOKS_AT_LANES "select lane, term, last_seq from lane"

static struct world *w;
static struct member *order_svc;

static void setup(void)
{
    w = world_new("unstored", LANES, NULL);
    order_svc = world_start(w, ORDER, 0);
    AWAIT(PATIENCE, world_is_ready(order_svc));
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static int64_t unstored(void)
{
    return db_int(w->db, "select count(*) from order_svc.lane where published < last_seq");
}

static int64_t end_of(const char *topic)
{
    int64_t ends[LANES];

    return kafka_ends(world_topic(w, topic), LANES, ends);
}

/* ---- Dead letters ---- */

static void send_rubbish(void)
{
    static const char *const values[] = {NULL, "", "rubbish"};

    for (int i = 0; i < 3; i++)
        kafka_send(&(struct kafka_record){
            .topic = world_topic(w, "order.requests"), .partition = i, .value = values[i]});
    kafka_flush(10);
}

/* Lanes whose acknowledgements are not stored, and cannot be until the session ends. */
static struct db *lock_unstored(void)
{
    struct db *person = db_new(w->database);

    db_run(person, "begin");
    if (db_int(person, "select count(*) from (select lane from order_svc.lane"
                       "  where published < last_seq for update) locked") == LANES)
        return person;
    db_free(person);
    return NULL;
}

static int copies_of(const struct kafka_log *log, const struct kafka_record *letter)
{
    int n = 0;

    for (int i = 0; i < log->n; i++)
        if (same(kafka_header(&log->at[i], "dlq-id"), kafka_header(letter, "dlq-id"))) {
            const struct kafka_record *copy = &log->at[i];
            MUST(copy->value_n == letter->value_n && !copy->value == !letter->value &&
                     copy->headers_n == letter->headers_n &&
                     same(kafka_header(copy, "dlq-offset"), kafka_header(letter, "dlq-offset")),
                 "a copy is another one");
            n++;
        }
    return n;
}

/* Killed after its dead letters were acknowledged and before that was stored, order-svc writes them
 * again, from the outbox: the same, a null value null and an empty one empty, with the same dlq-id, by
 * which readers tell them, as sagactl does. */
START_TEST(dead_letters_written_again_have_the_same_id)
{
    struct db *person = NULL;
    int64_t letters = 0;
    int nulls = 0, empty = 0;

    while (!person) {
        send_rubbish();
        letters += 3;
        AWAIT(PATIENCE, end_of("order.dlq") == letters);
        if (!(person = lock_unstored()))
            AWAIT(PATIENCE, unstored() == 0);
    }
    world_kill(order_svc);
    db_free(person);
    order_svc = world_start(w, ORDER, 0);
    AWAIT(PATIENCE, end_of("order.dlq") == letters + 3 && unstored() == 0);
    struct kafka_log *log = kafka_read(world_topic(w, "order.dlq"));
    for (int i = 0; i < log->n; i++) {
        const struct kafka_record *letter = &log->at[i];
        bool again = atoi(kafka_header(letter, "dlq-offset")) == letters / 3 - 1;
        MUST_BE(copies_of(log, letter), again ? 2 : 1);
        nulls += again && !letter->value;
        empty += again && letter->value && letter->value_n == 0;
    }
    kafka_log_free(log);
    MUST_BE(nulls, 2);
    MUST_BE(empty, 2);
    MUST_BE(atoi(shell("SAGA_TOPIC_PREFIX=%s sagactl dlq list --json | wc -l", w->prefix)),
            letters);
}
END_TEST

/* ---- An error on the way ---- */

/* An order in lane 0, whose event is acknowledged. -> a session that keeps everybody from the lanes'
 * table, NULL: that had been stored already */
static struct db *lock_behind(const char *name)
{
    struct db *person = db_new(w->database);
    int64_t events = end_of("order.events");

    world_place(w, played_order(w, 0, name), "apple 1 1", "later");
    kafka_flush(10);
    AWAIT(PATIENCE, end_of("order.events") == events + 1);
    db_run(person, "begin; lock table order_svc.lane in access exclusive mode");
    if (db_int(person, "select count(*) from order_svc.lane where published < last_seq"))
        return person;
    db_free(person);
    return NULL;
}

/* A request that claims to be a forward above all that lane 2 has written. */
static void send_forged(const char *order)
{
    const char *id = text("%s/2.1000000.9000000000000",
                          db_text(w->db, "select history::text from order_svc.identity"));
    const struct kafka_header headers[] = {{"forwarded-id", id, strlen(id)},
                                           {"forwarded-from", "order.requests/2/1", 18}};

    kafka_put(&(struct kafka_record){.topic = world_topic(w, "order.requests"),
                                     .partition = saga_lane_of(order, strlen(order), LANES),
                                     .key = order,
                                     .value = world_place_json(order, "apple 1 1", "later"),
                                     .headers = headers,
                                     .headers_n = 2});
}

/* Sessions of order-svc that wait for the lock: the end of a query on pg_stat_activity. */
static const char *that_wait(void)
{
    return text("from pg_stat_activity where datname = '%s' and wait_event_type = 'Lock'"
                "  and application_name = 'order-svc'",
                w->database);
}

/* Cancels what order-svc waits with. -> it was the look at the lanes for a forward */
static bool cancel_the_look(void)
{
    const char *of = that_wait();

    if (db_int(w->db, "select count(*) %s and query = '%s'", of, LOOKS_AT_LANES))
        return db_int(w->db, "select pg_cancel_backend(pid)::int %s", of);
    db_run(w->db, "select pg_cancel_backend(pid) %s", of);
    return false;
}

/* The database fails while a lane waits to be stored, in the question that a forward above all known
 * ones asks: the lane is stored all the same, though nothing moves any more. */
START_TEST(a_failed_look_at_a_forward_leaves_nothing_unstored)
{
    struct db *person = NULL;
    int64_t events = end_of("order.events");
    char order[32];

    snprintf(order, sizeof order, "%s", played_order(w, 1, "known"));
    world_place(w, order, "apple 1 1", "later");
    kafka_flush(10);
    AWAIT(PATIENCE, end_of("order.events") == events + 1);
    for (int i = 0; !person; i++)
        person = lock_behind(text("behind-%d", i));
    AWAIT(PATIENCE, db_int(w->db, "select count(*) %s", that_wait())); /* about to store it */
    send_forged(order);
    AWAIT(PATIENCE, cancel_the_look());
    AWAIT(PATIENCE, cancel_the_look()); /* it has come back from the first */
    db_free(person);
    AWAIT(PATIENCE, unstored() == 0);
}
END_TEST

/* ---- Read before ---- */

static bool is_taking(void)
{
    return db_int(w->db, "select count(*) %s and query like 'insert into lane (lane)%%'",
                  that_wait()) == 1;
}

static bool waits(const char *name)
{
    return db_int(w->db,
                  "select count(*) from pg_stat_activity where datname = '%s' and"
                  " wait_event_type = 'Lock' and application_name = '%s'",
                  w->database, name) == 1;
}

/* Kafka has given the lanes anew, because the machine stood still for longer than a session. */
static bool given_anew(int assigned)
{
    return proc_count(order_svc->proc, "lanes assigned") != assigned;
}

/* A request is in a batch that fails with its connection, the next one is collected for the batch after.
 * The first is passed over while the lane is being taken again, and when that is done the second is
 * there, read before: it is not applied, because the first would be taken for read, and lost. */
START_TEST(records_read_before_a_taking_are_not_applied)
{
    static const char lock[] = "begin; lock table order_svc.lane in access exclusive mode";

    for (int round = 0, rounds = 3; round < rounds; round++) {
        struct db *person = db_new(w->database), *second = db_new(w->database);
        AWAIT(PATIENCE, unstored() == 0);
        int assigned = proc_count(order_svc->proc, "lanes assigned");
        db_run(second, "select");
        db_run(person, lock);
        world_place(w, played_order(w, 0, text("fails-%d", round)), "apple 1 1", "later");
        kafka_flush(10);
        AWAIT(PATIENCE, waits("order-svc"));
        if (rounds < 20 && db_int(w->db, "select count(*) %s and query = '%s'", that_wait(),
                                  LOOKS_AT_LANES)) /* no batch has begun: another time */
            rounds++;
        world_place(w, played_order(w, 0, text("behind-it-%d", round)), "apple 1 1", "later");
        kafka_flush(10);
        end_of("order.requests"); /* it is with the service, too, by now */
        db_run(w->db, "select pg_terminate_backend(pid) %s", that_wait());
        AWAIT(PATIENCE, is_taking() || given_anew(assigned)); /* lane 0 */
        db_start(second, lock);
        AWAIT(PATIENCE, waits("test"));
        db_free(person);
        AWAIT(PATIENCE, db_finished(second) && /* lane 1; Kafka is asked for lane 0 */
                            (is_taking() || given_anew(assigned)));
        end_of("order.requests");
        db_free(second);
        AWAIT(PATIENCE, db_int(w->db,
                               "select count(*) from orders where order_id like 'fails-%d-%%'"
                               " or order_id like 'behind-it-%d-%%'",
                               round, round) == 2);
        if (rounds < 20 && given_anew(assigned)) /* another time */
            rounds++;
    }
}
END_TEST

Suite *unstored_suite(void)
{
    Suite *s = suite_create("unstored");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, dead_letters_written_again_have_the_same_id);
    tcase_add_test(t, a_failed_look_at_a_forward_leaves_nothing_unstored);
    tcase_add_test(t, records_read_before_a_taking_are_not_applied);
    suite_add_tcase(s, t);
    return s;
}
