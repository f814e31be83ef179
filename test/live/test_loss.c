/* Loss that is not ours (DESIGN.md promise 5): Kafka or a database loses what it had acknowledged. It
 * is noticed, mended where it can be, else its lane alone stops and says which command decides; after
 * that command it goes on. Each case has a world of its own: inventory-svc, whose order-svc is played. */
#include "suites.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "played.h"
#include "web.h"

enum { LANES = 2, PATIENCE = 20 };

static const char *const settings[] = {"SAGA_LOOK_WAIT=300ms", "SAGA_LOOK_EVERY=500ms",
                                       "SAGA_HOLD_WAIT=500ms", NULL};
static struct world *w;
static struct member *inventory;
static int sent[LANES];

static void setup(void)
{
    w = world_new("loss", LANES, settings);
    memset(sent, 0, sizeof sent);
}

static void teardown(void)
{
    world_free(w);
    w = NULL;
}

static void start(void)
{
    inventory = world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(inventory));
}

static const char *events(void)
{
    return world_topic(w, "order.events");
}

static const char *own(void)
{
    return world_topic(w, "inventory.events");
}

static int64_t held(int32_t lane)
{
    return db_int(w->db, "select count(*) from reservation where order_id like 'l%d-%%'", lane);
}

/* The next n orders of a lane, one by one: each is a batch of its own, here and there. */
static void send(int32_t lane, int n)
{
    for (; n > 0; n--, sent[lane]++) {
        played_created(w, lane, sent[lane] + 1, sent[lane],
                       played_order(w, lane, text("l%d-%d", lane, sent[lane])));
        kafka_flush(20);
    }
}

static void orders(int32_t lane, int n)
{
    for (int64_t had = held(lane); n > 0; n--) {
        send(lane, 1);
        AWAIT(PATIENCE, held(lane) == ++had || (had--, false));
    }
}

static json_t *lane_shown(int32_t lane, json_t **answer)
{
    json_t *o;
    size_t i;

    if (web_get(answer, "%s", world_url(inventory, "/lanes")) != 200)
        return NULL;
    json_array_foreach(json_object_get(*answer, "lanes"), i,
                       o) if (json_integer_value(json_object_get(o, "lane")) == lane) return o;
    return NULL;
}

/* A text of a lane, or of its input of a topic. "" where there is none. */
static const char *shown(int32_t lane, const char *topic, const char *name)
{
    json_t *answer = NULL, *o = lane_shown(lane, &answer), *in;
    const char *value = o && !topic ? json_string_value(json_object_get(o, name)) : NULL;
    size_t i;

    json_array_foreach(topic ? json_object_get(o, "inputs") : NULL, i,
                       in) if (same(json_string_value(json_object_get(in, "topic")), topic)) value =
        json_string_value(json_object_get(in, name));
    value = text("%s", value ? value : "");
    json_decref(answer);
    return value;
}

static bool is_state(int32_t lane, const char *state)
{
    return same(shown(lane, NULL, "state"), state);
}

static bool says(int32_t lane, const char *topic, const char *words)
{
    return strstr(shown(lane, topic, "why"), words) != NULL;
}

/* /readyz?verbose has the words. */
static bool readyz_says(const char *words)
{
    return strstr(shell("curl -s '%s'", world_url(inventory, "/readyz?verbose")), words) != NULL;
}

static int64_t metric(const char *name)
{
    return atoll(shell("curl -s '%s' | grep -v '^#' | grep -F '%s ' | sed 's/.* //' || true",
                       world_url(inventory, "/metrics"), name));
}

/* sagactl lane inventory LANE COMMAND -> its output and status, as the last word */
static const char *command(const char *arguments)
{
    return shell("INVENTORY_URL=%s sagactl lane inventory %s 2>&1; echo status $?",
                 world_url(inventory, ""), arguments);
}

static void decide(const char *arguments)
{
    const char *said = command(arguments);

    MUST(strstr(said, "status 0"), "sagactl lane inventory %s: %s", arguments, said);
}

static void refused(const char *arguments, const char *words)
{
    const char *said = command(arguments);

    MUST(strstr(said, "status 1") && strstr(said, words), "sagactl lane inventory %s: %s",
         arguments, said);
}

/* The first occurrences of our events in a partition are one chain of n events. */
static int chain_of(int32_t lane)
{
    struct kafka_log *log = kafka_read(own());
    char last[64] = "";
    int n = 0;

    for (int i = 0; i < log->n; i++) {
        if (log->at[i].partition != lane)
            continue;
        json_t *event = json_loadb(log->at[i].value, log->at[i].value_n, 0, NULL);
        const char *id = json_string_value(json_object_get(event, "id"));
        const char *previous = json_string_value(json_object_get(event, "previousid"));
        if (same(previous ? previous : "", last)) {
            snprintf(last, sizeof last, "%s", id);
            n++;
        }
        json_decref(event);
    }
    kafka_log_free(log);
    return n;
}

/* ---- Readers ---- */

/* Attack 24: a reader that starts for the first time after older records have expired holds an open
 * gap, and says so; accept-gap lets it start. */
START_TEST(attack_24_first_start_after_expiry)
{
    send(0, 3);
    send(1, 1);
    kafka_expire(events(), 0, 2);
    start();
    world_stock(w, "apple", 1000);
    AWAIT(PATIENCE, says(0, "order.events", "a gap is open"));
    AWAIT(PATIENCE, held(1) == 1);
    MUST_BE(held(0), 0);
    MUST(readyz_says("[gap]"), "/readyz does not tell the gap");
    AWAIT(PATIENCE, metric("saga_gaps_open{topic=\"order.events\"}") == 1);
    MUST(strstr(shell("INVENTORY_URL=%s sagactl lanes inventory", world_url(inventory, "")),
                "  gap\n"),
         "sagactl lanes does not tell the gap");
    decide("0 accept-gap order.events");
    AWAIT(PATIENCE, held(0) == 1);
    orders(0, 1);
    AWAIT(PATIENCE, same(shown(0, "order.events", "why"), ""));
    refused("0 accept-gap order.events", "no gap is open");
}
END_TEST

static bool has(struct member *m, int32_t lane)
{
    json_t *answer = NULL;

    inventory = m;
    bool found = lane_shown(lane, &answer) != NULL;
    json_decref(answer);
    return found;
}

/* A command works at a process that has not got the lane, too. */
START_TEST(commands_go_to_any_process)
{
    send(0, 3);
    kafka_expire(events(), 0, 2);
    struct member *first = world_start(w, INVENTORY, 0), *second = world_start(w, INVENTORY, 1);
    AWAIT(PATIENCE, has(first, 0) != has(second, 0) && has(first, 1) != has(second, 1) &&
                        has(first, 0) != has(first, 1));
    AWAIT(PATIENCE, world_is_ready(first) && world_is_ready(second));
    world_stock(w, "apple", 1000);
    inventory = has(first, 0) ? second : first;
    refused("0 accept-gap", "name the topic");
    decide("0 accept-gap order.events");
    AWAIT(PATIENCE, held(0) == 1);
}
END_TEST

/* Attack 30: retention overtakes a stopped service: an open gap, also by a restart; nothing is skipped.
 * The other lane goes on. */
START_TEST(attack_30_retention_overtakes)
{
    start();
    world_stock(w, "apple", 1000);
    orders(0, 2);
    world_kill(inventory);
    send(0, 3);
    kafka_expire(events(), 0, 4);
    for (int round = 0; round < 2; round++) {
        start();
        AWAIT(PATIENCE, says(0, "order.events", "a gap is open"));
        orders(1, 1);
        MUST_BE(held(0), 2);
        if (round == 0)
            world_kill(inventory);
    }
    decide("0 accept-gap");
    AWAIT(PATIENCE, held(0) == 3);
}
END_TEST

/* Attack 30: the topic is empty afterwards. */
START_TEST(attack_30_retention_leaves_nothing)
{
    start();
    world_stock(w, "apple", 1000);
    orders(0, 2);
    world_kill(inventory);
    send(0, 3);
    kafka_expire(events(), 0, 5);
    for (int round = 0; round < 2; round++) {
        start();
        AWAIT(PATIENCE, says(0, "order.events", "nothing has come since"));
        if (round == 0)
            world_kill(inventory);
    }
    refused("0 accept-gap order.events", "nothing has come since");
    send(0, 1);
    AWAIT(PATIENCE, says(0, "order.events", "follows event 0.5."));
    MUST_BE(held(0), 2);
    decide("0 accept-gap order.events");
    AWAIT(PATIENCE, held(0) == 3);
}
END_TEST

/* Attack 26: the writer was restored from an old copy and its topic lost as well: its first event is a
 * fork. That input stops, the lane's others and the other lanes go on. */
START_TEST(attack_26_restored_writer_forks)
{
    start();
    world_stock(w, "apple", 1000);
    orders(0, 3);
    world_kill(inventory);
    kafka_remake(events(), LANES);
    kafka_put(&(struct kafka_record){.topic = events(),
                                     .partition = 0,
                                     .value = played_event(0, "2.1895513885123", "1." PLAYED_TERM,
                                                           played_order(w, 0, "l0-new"))});
    start();
    AWAIT(PATIENCE, says(0, "order.events", "fork"));
    MUST(is_state(0, "running"), "the whole lane has stopped");
    MUST(readyz_says("[stop] lane 0: fork"), "/readyz does not tell the fork");
    orders(1, 1);
    MUST_BE(held(0), 3);
    decide("0 accept-gap order.events");
    AWAIT(PATIENCE, held(0) == 4);
}
END_TEST

/* ---- Databases ---- */

static void copy_database(const char *from, const char *to)
{
    struct db *main = db_new(NULL);

    db_drop(main, to);
    db_run(main, "create database %s template %s", to, from);
    db_free(main);
}

/* Attack 25: the database is restored from an older copy: found at start. restart goes on behind the
 * newest event, and its readers see one chain. What it forgot it decides once more: that is for people
 * to weigh. */
START_TEST(attack_25_database_is_behind)
{
    char old[sizeof w->database + 8];

    snprintf(old, sizeof old, "%s_old", w->database);
    start();
    world_stock(w, "apple", 1000);
    orders(0, 2);
    orders(1, 1);
    world_stop(inventory);
    db_free(w->db);
    copy_database(w->database, old);
    w->db = db_new(w->database);
    start();
    orders(0, 3);
    world_stop(inventory);
    db_free(w->db);
    copy_database(old, w->database);
    w->db = db_new(w->database);
    start();
    AWAIT(PATIENCE, is_state(0, "stopped"));
    MUST(says(0, NULL, "the database is behind"), "%s", shown(0, NULL, "why"));
    MUST(readyz_says("[stop] lane 0: the database is behind"), "/readyz does not tell it");
    AWAIT(PATIENCE, metric("saga_lanes_stopped") == 1);
    orders(1, 1);
    decide("0 restart --json");
    AWAIT(PATIENCE, held(0) == 5); /* what was decided since the copy is decided again */
    orders(0, 1);
    AWAIT(PATIENCE, chain_of(0) == 9);
    struct db *main = db_new(NULL);
    db_run(main, "drop database %s", old);
    db_free(main);
}
END_TEST

/* Attack 44: a standby without the last transactions takes over, with the same term: last_seq differs.
 * Played by taking the last transaction's rows back. */
START_TEST(attack_44_standby_lacks_transactions)
{
    start();
    world_stock(w, "apple", 1000);
    orders(0, 1);
    AWAIT(PATIENCE, db_int(w->db, "select published from inventory_svc.lane where lane = 0") == 1);
    db_run(w->db, "create table kept_lane as select * from inventory_svc.lane;"
                  "create table kept_input as select * from inventory_svc.lane_input");
    orders(0, 1);
    AWAIT(PATIENCE, db_int(w->db, "select published from inventory_svc.lane where lane = 0") == 2);
    db_run(
        w->db,
        "begin; update inventory_svc.lane l set last_seq = k.last_seq, last_id = k.last_id,"
        "       published = k.published, published_offset = k.published_offset,"
        "       published_id = k.published_id from kept_lane k where k.lane = l.lane and l.lane = "
        "0;"
        "update inventory_svc.lane_input i set next_offset = k.next_offset, last_id = k.last_id"
        "  from kept_input k where k.lane = i.lane and k.topic = i.topic and i.lane = 0; commit");
    AWAIT(PATIENCE, is_state(0, "stopped"));
    MUST(says(0, NULL, "the database is behind"), "%s", shown(0, NULL, "why"));
    orders(1, 1);
}
END_TEST

/* Attack 43: an expelled owner raises the term and dies; no rebalance follows. The lane is idle. */
START_TEST(attack_43_expelled_owner_raises_the_term)
{
    start();
    world_stock(w, "apple", 1000);
    orders(0, 1);
    AWAIT(PATIENCE, db_int(w->db, "select published from inventory_svc.lane where lane = 0") == 1);
    int taken = proc_count(inventory->proc, "lane taken");
    db_run(w->db, "update inventory_svc.lane set term = term + 1000000 where lane = 0");
    AWAIT(PATIENCE, proc_count(inventory->proc, "lane taken") > taken);
    orders(0, 1);
    AWAIT(PATIENCE, chain_of(0) == 2);
}
END_TEST

/* ---- Kafka ---- */

/* Attack 27: the own topic is deleted and made again. The outbox has it all: published again, in order. */
START_TEST(attack_27_topic_made_again)
{
    start();
    world_stock(w, "apple", 1000);
    orders(0, 3);
    orders(1, 1);
    AWAIT(PATIENCE, chain_of(0) == 3 && chain_of(1) == 1);
    kafka_remake(own(), LANES);
    AWAIT(PATIENCE, chain_of(0) == 3 && chain_of(1) == 1);
    orders(0, 1);
    AWAIT(PATIENCE, chain_of(0) == 4);
    AWAIT(PATIENCE, metric("saga_healed_total") == 2);
    MUST_BE(metric("saga_lanes_stopped"), 0);
}
END_TEST

/* The same, but the outbox does not reach back: the lane stops; restart goes on. Its other lane, which
 * never published, does not care. */
START_TEST(attack_27_topic_made_again_too_late)
{
    start();
    world_stock(w, "apple", 1000);
    orders(0, 3);
    AWAIT(PATIENCE, chain_of(0) == 3);
    world_stop(inventory);
    db_run(w->db, "truncate inventory_svc.outbox_0, inventory_svc.outbox_1");
    kafka_remake(own(), LANES);
    start();
    AWAIT(PATIENCE, is_state(0, "stopped"));
    MUST(says(0, NULL, "Kafka is behind"), "%s", shown(0, NULL, "why"));
    orders(1, 1);
    refused("0 republish", "the outbox holds no event");
    refused("1 restart", "agree");
    decide("0 restart");
    AWAIT(PATIENCE, is_state(0, "running"));
    orders(0, 1);
    AWAIT(PATIENCE, chain_of(0) == 1);
    MUST_BE(db_int(w->db, "select last_seq from inventory_svc.lane where lane = 0"), 4);
}
END_TEST

static int64_t end_of(const char *topic, int32_t lane)
{
    int64_t ends[LANES];

    kafka_ends(topic, LANES, ends);
    return ends[lane];
}

/* The first n orders of lane 0, whose events are batches of their own in Kafka, too: the log can be cut
 * between them. */
static void orders_apart(int n)
{
    for (int i = 1; i <= n; i++) {
        orders(0, 1);
        AWAIT(PATIENCE, chain_of(0) == i);
    }
}

/* What was cut is there again, in one chain, and the lane goes on. */
static void is_healed(int n)
{
    AWAIT(PATIENCE, chain_of(0) == n);
    orders(0, 1);
    AWAIT(PATIENCE, chain_of(0) == n + 1);
    AWAIT(PATIENCE, metric("saga_healed_total") > 0);
    orders(1, 1);
}

/* Attack 28: three acknowledged records are lost on an idle lane: the lost connection is noticed. */
START_TEST(attack_28_log_cut_while_idle)
{
    start();
    world_stock(w, "apple", 1000);
    orders_apart(5);
    kafka_cut(own(), 0, 2, NULL);
    is_healed(5);
}
END_TEST

/* Attack 28: while its owner is down, and other records stand in their place. */
START_TEST(attack_28_log_cut_while_down)
{
    start();
    world_stock(w, "apple", 1000);
    orders_apart(5);
    world_kill(inventory);
    kafka_cut(own(), 0, 2, NULL);
    for (int i = 0; i < 4; i++)
        kafka_put(&(struct kafka_record){.topic = own(), .partition = 0, .value = "over it"});
    start();
    is_healed(5);
}
END_TEST

static void orders_wait(void)
{
    /* OrderCreated comes as soon as Kafka is back: the owner writes over what is lost */
    for (int i = 0; i < 5; i++, sent[0]++)
        played_created(w, 0, sent[0] + 1, sent[0], played_order(w, 0, text("l0-%d", sent[0])));
}

/* Attack 28: while its owner runs, which writes new events over them. */
START_TEST(attack_28_log_cut_while_running)
{
    start();
    world_stock(w, "apple", 1000);
    orders_apart(5);
    kafka_cut(own(), 0, 2, orders_wait);
    AWAIT(PATIENCE, held(0) == 10);
    is_healed(10);
}
END_TEST

/* While its owner is down, and the outbox begins in the middle of what is left: it reaches back. */
START_TEST(attack_28_outbox_without_its_beginning)
{
    start();
    world_stock(w, "apple", 1000);
    orders_apart(5);
    world_kill(inventory);
    db_run(w->db, "delete from inventory_svc.outbox_0 where 1 >= any(seq)");
    kafka_cut(own(), 0, 2, NULL);
    start();
    is_healed(5);
}
END_TEST

/* The same, and the outbox does not reach back: stopped; republish publishes what it has. */
START_TEST(attack_28_log_cut_too_late)
{
    start();
    world_stock(w, "apple", 1000);
    orders_apart(4);
    world_kill(inventory);
    db_run(w->db, "delete from inventory_svc.outbox_0 where 3 >= any(seq)");
    kafka_cut(own(), 0, 1, NULL);
    start();
    AWAIT(PATIENCE, is_state(0, "stopped"));
    MUST(says(0, NULL, "Kafka is behind"), "%s", shown(0, NULL, "why"));
    decide("0 republish");
    AWAIT(PATIENCE, end_of(own(), 0) == 2);
    AWAIT(PATIENCE, is_state(0, "running"));
    orders(0, 1);
    AWAIT(PATIENCE, end_of(own(), 0) == 3);
}
END_TEST

/* ---- Installations ---- */

/* The process ends with 78 and one line that has the words. */
static void is_refused(const char *words)
{
    struct proc *p = inventory->proc;

    AWAIT(PATIENCE, !proc_alive(p));
    MUST_BE(proc_wait(p, 5), 78);
    MUST(proc_said(p, words), "it does not say: %s", words);
    world_kill(inventory);
}

/* Attack 31: another prefix, another N, another cluster with the same database; at start and at an
 * assignment. */
START_TEST(attack_31_another_installation)
{
    start();
    world_stop(inventory);
    char prefix[sizeof w->prefix];
    snprintf(prefix, sizeof prefix, "%s", w->prefix);
    snprintf(w->prefix, sizeof w->prefix, "other.%.50s", prefix);
    kafka_make_topics(w->prefix, LANES);
    inventory = world_start(w, INVENTORY, 0);
    is_refused("this database belongs to inventory-svc");
    kafka_drop_topics(w->prefix);
    snprintf(w->prefix, sizeof w->prefix, "%s", prefix);

    db_run(w->db, "update inventory_svc.identity set kafka_cluster_id = 'another'");
    inventory = world_start(w, INVENTORY, 0);
    is_refused("cluster another");
    shell("true");
    db_run(w->db, "delete from inventory_svc.identity");
    start();
    kafka_widen(own(), LANES + 1); /* not read by it: seen at the next assignment */
    kafka_widen(events(), LANES + 1);
    is_refused("all must have the same");
    inventory = world_start(w, INVENTORY, 0);
    is_refused("all must have the same");
}
END_TEST

Suite *loss_suite(void)
{
    Suite *s = suite_create("loss");
    TCase *t = tcase_create("all");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, attack_24_first_start_after_expiry);
    tcase_add_test(t, commands_go_to_any_process);
    tcase_add_test(t, attack_25_database_is_behind);
    tcase_add_test(t, attack_26_restored_writer_forks);
    tcase_add_test(t, attack_27_topic_made_again);
    tcase_add_test(t, attack_27_topic_made_again_too_late);
    tcase_add_test(t, attack_28_log_cut_while_idle);
    tcase_add_test(t, attack_28_log_cut_while_down);
    tcase_add_test(t, attack_28_log_cut_while_running);
    tcase_add_test(t, attack_28_outbox_without_its_beginning);
    tcase_add_test(t, attack_28_log_cut_too_late);
    tcase_add_test(t, attack_30_retention_overtakes);
    tcase_add_test(t, attack_30_retention_leaves_nothing);
    tcase_add_test(t, attack_31_another_installation);
    tcase_add_test(t, attack_43_expelled_owner_raises_the_term);
    tcase_add_test(t, attack_44_standby_lacks_transactions);
    suite_add_tcase(s, t);
    return s;
}
