/* Records that come twice, thrice, from the beginning, or that nobody can read: copies have no
 * effect, what is unreadable is a dead letter once per reading service. */
#include "suites.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "web.h"
#include "world.h"

enum { LANES = 4, ORDERS = 300, PATIENCE = 25, TOPICS = 4 };

static struct world *w;
static const char *const topics[TOPICS] = {"order.requests", "order.events", "inventory.events",
                                           "payment.events"};

static void setup(void)
{
    w = world_new("copies", LANES, NULL);
    world_start_all(w);
    world_stock_load(w);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

/* ---- What must not change ---- */

/* Everything that orders, stock and money are, in one number. */
static const char *state_of_all(void)
{
    return db_text(w->db,
                   "select md5((select jsonb_agg(o order by order_id)::text from orders o) ||"
                   "           (select jsonb_agg(r order by order_id)::text from reservation r) ||"
                   "           (select jsonb_agg(p order by order_id)::text from payment p) ||"
                   "           (select jsonb_agg(s order by sku)::text from stock s) ||"
                   "           (select count(*) from stock_movement)::text ||"
                   "           (select jsonb_agg(l order by key)::text from ledger l))");
}

/* Events that were ever emitted, by the services' own count: last_seq of all lanes. */
static int64_t emitted(void)
{
    return db_int(w->db, "select (select sum(last_seq) from order_svc.lane) +"
                         "       (select sum(last_seq) from inventory_svc.lane) +"
                         "       (select sum(last_seq) from payment_svc.lane)");
}

static int64_t dead_letters(void)
{
    int64_t ends[LANES], n = 0;

    for (int s = 0; s < SERVICES; s++)
        n += kafka_ends(world_topic(w, text("%s.dlq", service_names[s])), LANES, ends);
    return n;
}

/* A metric of a service, summed over its labels. */
static int64_t metric(int service, const char *name)
{
    const char *all = shell("curl -sf %s | grep '^%s' || true",
                            world_url(world_member(w, service, 0), "/metrics"), name);
    int64_t sum = 0;

    for (const char *line = all; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *value = strrchr(text("%.*s", (int)strcspn(line, "\n"), line), ' ');
        if (!value)
            break;
        sum += strtoll(value, NULL, 10);
    }
    return sum;
}

static int64_t duplicates(void)
{
    int64_t n = 0;

    for (int s = 0; s < SERVICES; s++)
        n += metric(s, "saga_duplicates_total");
    return n;
}

static void send_all(const struct kafka_log *log, int times)
{
    for (int i = 0; i < log->n; i++)
        for (int k = 0; k < times; k++)
            kafka_send(&log->at[i]);
}

/* ---- Copies ---- */

/* Attack 20, while the system is at work: what is on the topics so far is sent again and again. */
START_TEST(copies_in_the_middle_of_a_run_change_nothing)
{
    struct kafka_log *log;
    int64_t ends[LANES];

    for (int from = 0; from < ORDERS; from += ORDERS / 3) {
        world_load(w, "busy", from, from + ORDERS / 3);
        kafka_flush(5);
        AWAIT(PATIENCE, kafka_ends(world_topic(w, topics[1]), LANES, ends) >= from + ORDERS / 6);
        for (int t = 1; t < TOPICS; t++) { /* the first round copies the second, too */
            log = kafka_read(world_topic(w, topics[t]));
            send_all(log, from < ORDERS / 2 ? 2 : 1);
            kafka_log_free(log);
        }
    }
    world_settle(w, PATIENCE);
    world_loaded(w, "busy", ORDERS);
    MUST_BE(dead_letters(), 0);
    MUST(duplicates() > ORDERS, "only %" PRId64 " duplicates: nothing was tested", duplicates());
    world_audit(w);
}
END_TEST

/* Attack 20: every record of every event topic, twice and thrice: no row moves, nothing is emitted.
 */
START_TEST(every_event_again_changes_nothing)
{
    char before[64];
    int64_t had = duplicates(), out = emitted(), copies = 0;

    snprintf(before, sizeof before, "%s", state_of_all());
    for (int t = 1; t < TOPICS; t++) {
        struct kafka_log *log = kafka_read(world_topic(w, topics[t]));
        send_all(log, 2);
        copies += 2 * 2 * log->n; /* each is read by two services */
        kafka_log_free(log);
    }
    world_settle(w, PATIENCE);
    MUST(same(state_of_all(), before), "rows have changed");
    MUST_BE(emitted(), out);
    MUST_BE(dead_letters(), 0);
    MUST_BE(duplicates() - had, copies);
}
END_TEST

/* A copied request is a new request, and every request is idempotent: it may be refused, it never
 * acts twice. */
START_TEST(every_request_again_acts_once)
{
    char before[64];
    struct kafka_log *log = kafka_read(world_topic(w, topics[0]));

    snprintf(before, sizeof before, "%s", state_of_all());
    send_all(log, 2);
    kafka_log_free(log);
    world_settle(w, PATIENCE);
    MUST(same(state_of_all(), before), "rows have changed");
    world_audit(w);
}
END_TEST

/* ---- Copies by the console tools ---- */

/* As many records as there are now: else the consumer reads what it has copied, for ever. */
#define CONSUME                                                                                    \
    "kafka-console-consumer --topic %s --from-beginning --timeout-ms 10000"                        \
    " --max-messages %d 2>/dev/null"
#define PRODUCE "kafka-console-producer --topic %s"

/* Copied with their keys, events come into their own partitions: duplicates, and no dead letters.
 */
START_TEST(a_topic_copied_by_console_tools_changes_nothing)
{
    char before[64];
    const char *topic = world_topic(w, "inventory.events");
    int64_t out = emitted(), had = duplicates(), ends[LANES];

    snprintf(before, sizeof before, "%s", state_of_all());
    shell(CONSUME " --formatter-property print.key=true | " PRODUCE
                  " --reader-property parse.key=true",
          topic, (int)kafka_ends(topic, LANES, ends), topic);
    world_settle(w, PATIENCE);
    MUST(duplicates() > had, "nothing was copied");
    MUST(same(state_of_all(), before), "rows have changed");
    MUST_BE(emitted(), out);
    MUST_BE(dead_letters(), 0);
}
END_TEST

static int32_t lane_named(const struct kafka_record *r)
{
    json_t *event = json_loadb(r->value, r->value_n, 0, NULL);
    const char *id = json_string_value(json_object_get(event, "id"));
    struct saga_id is;
    int32_t lane = -1;

    if (id && !saga_id_read(id, strlen(id), &lane, &is))
        lane = -1;
    json_decref(event);
    return lane;
}

/* Records of a topic that stand in another lane's partition. */
static int64_t misplaced(const char *topic)
{
    struct kafka_log *log = kafka_read(topic);
    int64_t n = 0;

    for (int i = 0; i < log->n; i++)
        n += lane_named(&log->at[i]) != log->at[i].partition;
    kafka_log_free(log);
    return n;
}

/* Without keys copies land anywhere: each in a foreign partition is a dead letter of both services
 * that read the topic, the others are duplicates; no gap, no effect. */
START_TEST(copies_in_foreign_partitions_are_dead_letters)
{
    char before[64];
    const char *topic = world_topic(w, "order.events");
    int64_t ends[LANES];

    snprintf(before, sizeof before, "%s", state_of_all());
    shell(CONSUME " | " PRODUCE, topic, (int)kafka_ends(topic, LANES, ends), topic);
    int64_t foreign = misplaced(topic);
    MUST(foreign > 0, "all copies came into their own partitions");
    world_settle(w, PATIENCE);
    MUST(same(state_of_all(), before), "rows have changed");
    MUST_BE(dead_letters(), 2 * foreign);
    for (int s = INVENTORY; s < SERVICES; s++)
        MUST_BE(metric(s, "saga_gaps_total"), 0);
}
END_TEST

/* ---- From the beginning ---- */

/* Lanes whose events are not all known to be in Kafka, as far as the database knows. */
static int64_t not_stored(void)
{
    int64_t n = 0;

    for (int s = 0; s < SERVICES; s++)
        n += db_int(w->db, "select count(*) from %s_svc.lane where published < last_seq",
                    service_names[s]);
    return n;
}

/* An orderly stop waits for what is on its way and stores it, and a restart sends nothing again, which
 * would show as second copies of dead letters; it is made at once, for who is idle stores it within a
 * second. Attack 21: the group's offsets set to the beginning by Kafka's tool change nothing: they are
 * for lag tools. And where our own positions are set to the beginning, the chain knows what it has
 * seen: no effect twice, no dead letter twice. */
START_TEST(reading_from_the_beginning_changes_nothing)
{
    char before[64];
    int64_t out, dead;

    world_load(w, "last", 0, 50);
    world_settle(w, PATIENCE);
    for (int s = 0; s < SERVICES; s++)
        world_stop(world_member(w, s, 0));
    MUST_BE(not_stored(), 0);
    out = emitted();
    dead = dead_letters();
    snprintf(before, sizeof before, "%s", state_of_all());
    for (int s = 0; s < SERVICES; s++)
        AWAIT(PATIENCE,
              strstr(shell("kafka-consumer-groups --group %s%s-svc"
                           " --reset-offsets --to-earliest --all-topics --execute || true",
                           w->prefix, service_names[s]),
                     "NEW-OFFSET"));
    world_start_all(w);
    world_settle(w, PATIENCE);
    MUST_BE(emitted(), out);
    AWAIT(PATIENCE, not_stored() == 0); /* within a second: who is killed before sends again */
    for (int s = 0; s < SERVICES; s++)
        world_kill(world_member(w, s, 0));
    for (int s = 0; s < SERVICES; s++)
        db_run(w->db, "update %s_svc.lane_input set next_offset = 0 where topic like '%%.events'",
               service_names[s]);
    world_start_all(w);
    world_settle(w, PATIENCE);
    MUST(same(state_of_all(), before), "rows have changed");
    MUST_BE(emitted(), out);
    MUST_BE(dead_letters(), dead);
    MUST(duplicates() > 0, "nothing was read again");
    world_load(w, "after", 0, 50);
    world_settle(w, PATIENCE);
    world_loaded(w, "after", 50);
}
END_TEST

/* RULES.md, invariants 1 to 8, of all of the above. */
START_TEST(it_all_balances)
{
    world_audit(w);
}
END_TEST

Suite *copies_suite(void)
{
    Suite *s = suite_create("copies");
    TCase *t = tcase_create("all");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, copies_in_the_middle_of_a_run_change_nothing);
    tcase_add_test(t, every_event_again_changes_nothing);
    tcase_add_test(t, every_request_again_acts_once);
    tcase_add_test(t, a_topic_copied_by_console_tools_changes_nothing);
    tcase_add_test(t, copies_in_foreign_partitions_are_dead_letters);
    tcase_add_test(t, reading_from_the_beginning_changes_nothing);
    tcase_add_test(t, it_all_balances);
    suite_add_tcase(s, t);
    return s;
}
