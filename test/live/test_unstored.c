/* What Kafka has acknowledged and the database does not know yet: it is written a second after; order-svc
 * alone, whose rows the test locks within that second. */
#include "suites.h"
#include <stdlib.h>

#include "world.h"

enum { LANES = 3, PATIENCE = 20 };

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
    MUST_BE(
        atoi(shell("SAGA_TOPIC_PREFIX=%s build/bin/sagactl dlq list --json | wc -l", w->prefix)),
        letters);
}
END_TEST

Suite *unstored_suite(void)
{
    Suite *s = suite_create("unstored");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, dead_letters_written_again_have_the_same_id);
    suite_add_tcase(s, t);
    return s;
}
