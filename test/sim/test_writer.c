/* ATTACKS.md, played where rules and lanes alone decide: writers, publishing, and what readers make
 * of it. The number is in the name. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "attack.h"
#include "suites.h"

static struct lane *lane_of(int service, int number)
{
    return &w.service[service].lane[number];
}

static int64_t apples(void)
{
    return stock_view(saga_slots_find(&w.service[INVENTORY].batch.shared, "apple")->row).reserved;
}

/* A batch that reads all of the service's topics in the lane, decided and left open. */
static void load(int service)
{
    for (int t = 0; t < w.service[service].intake.topics; t++)
        if (sim_unread(&w, service, lane, t) > 0)
            sim_read(&w, service, lane, t, MUCH);
    sim_decide(&w, service);
}

/* ---- Writers and owners ---- */

/* COMMIT came through and its answer did not. Who takes the lane again finds it done: nothing is
 * read again, and what an old copy brings again is dropped. */
START_TEST(attack_1_commit_without_answer)
{
    place_in_lane(3);
    sim_send(&w, ORDER, lane, MUCH);
    load(INVENTORY);
    sim_commit(&w, INVENTORY);
    ck_assert_int_eq(apples(), 3);
    sim_take(&w, INVENTORY, lane, false);
    ck_assert_int_eq(sim_unread(&w, INVENTORY, lane, 0), 0);
    sim_rewind(&w, INVENTORY, lane, 0, 0);
    play_run(&w, INVENTORY, ALL);
    ck_assert_int_eq(w.duplicates, 3);
    ck_assert_int_eq(apples(), 3);
    ck_assert_int_eq(lane_of(INVENTORY, lane)->last_seq, 3);
}
END_TEST

/* The owner has loaded and decided when another takes the lane; its store is refused. Nothing of it
 * remains, in rows, positions or numbers, and the new owner does the same once. */
START_TEST(attack_2_store_of_an_old_owner)
{
    place_in_lane(3);
    sim_send(&w, ORDER, lane, MUCH);
    load(INVENTORY);
    ck_assert_int_eq(w.service[INVENTORY].batch.out_n, 3);
    int64_t term = lane_of(INVENTORY, lane)->term;
    sim_abort(&w, INVENTORY);
    sim_take(&w, INVENTORY, lane, false);
    ck_assert_int_gt(lane_of(INVENTORY, lane)->term, term);
    ck_assert_int_eq(apples(), 0);
    ck_assert_int_eq(lane_of(INVENTORY, lane)->last_seq, 0);
    ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->next_offset, 0);
    play_run(&w, INVENTORY, ALL);
    ck_assert_int_eq(apples(), 3);
    ck_assert_int_eq(w.duplicates, 0);
}
END_TEST

/* One of the lanes of a batch is another owner's by now: the batch runs again without it, and the
 * others go through. */
START_TEST(attack_8_batch_without_a_lost_lane)
{
    for (int i = 0; i < 9; i++)
        play_place(&w, (const char[]){(char)('a' + i), 0}, "apple 1", "later");
    play_run(&w, ORDER, ALL);
    for (int l = 0; l < LANES; l++)
        sim_read(&w, INVENTORY, l, 0, MUCH);
    sim_decide(&w, INVENTORY);
    ck_assert_int_eq(w.service[INVENTORY].batch.out_n, 9);
    sim_abort(&w, INVENTORY);
    sim_take(&w, INVENTORY, lane, false);
    int theirs = sim_unread(&w, INVENTORY, lane, 0);
    ck_assert_int_gt(theirs, 0);
    for (int l = 0; l < LANES; l++)
        if (l != lane)
            sim_read(&w, INVENTORY, l, 0, MUCH);
    sim_decide(&w, INVENTORY);
    sim_commit(&w, INVENTORY);
    ck_assert_int_eq(apples(), 9 - theirs);
    ck_assert_int_eq(lane_of(INVENTORY, lane)->last_seq, 0);
}
END_TEST

/* COMMIT fails: numbers in memory have not moved, the same batch makes the same ids and events. */
START_TEST(attack_10_same_batch_again)
{
    place_in_lane(3);
    sim_send(&w, ORDER, lane, MUCH);
    load(INVENTORY);
    uint64_t hash = sim_hash(&w, INVENTORY);
    for (int i = 0; i < 3; i++) {
        sim_abort(&w, INVENTORY);
        ck_assert_int_eq(lane_of(INVENTORY, lane)->last_seq, 0);
        ck_assert_int_eq(apples(), 0);
        load(INVENTORY);
        ck_assert(sim_hash(&w, INVENTORY) == hash);
    }
    sim_commit(&w, INVENTORY);
    ck_assert_int_eq(apples(), 3);
}
END_TEST

/* ---- Publishing ---- */

/* The first record is refused and the second accepted: nothing counts as published, the reader
 * holds, and it heals when the lane is taken again. */
START_TEST(attack_12_first_record_refused)
{
    place_in_lane(3);
    ck_assert(sim_lose(&w, ORDER, lane, INT64_MIN));
    sim_send(&w, ORDER, lane, MUCH);
    sim_ack(&w, ORDER, lane, MUCH);
    ck_assert_int_eq(lane_of(ORDER, lane)->out.published, 0);
    play_run(&w, INVENTORY, ALL);
    ck_assert_int_eq(w.gaps, 2);
    ck_assert_int_eq(apples(), 0);
    sim_take(&w, ORDER, lane, false);
    play_settle(&w);
    ck_assert_int_eq(apples(), 3);
    ck_assert_int_eq(lane_of(ORDER, lane)->out.published, 3);
    ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->held, -1);
}
END_TEST

/* A report that says success with an offset that was made up does not count: what librdkafka is
 * known to say, and an offset that another record has. */
START_TEST(attack_13_report_without_offset)
{
    static const int64_t reports[] = {-1001, -1, 0, 1, 2};

    place_in_lane(3);
    sim_send(&w, ORDER, lane, MUCH);
    sim_ack(&w, ORDER, lane, MUCH);
    ck_assert_int_eq(lane_of(ORDER, lane)->out.known_offset, 2);
    for (size_t i = 0; i < sizeof reports / sizeof *reports; i++) {
        play_ask(&w, "PayOrder", "a", ",\"token\":\"tok_ok\"");
        play_ask(&w, "ShipOrder", "a", "");
        play_read(&w, ORDER, REQUESTS);
        sim_decide(&w, ORDER);
        sim_commit(&w, ORDER);
        int64_t published = lane_of(ORDER, lane)->out.published;
        ck_assert(sim_lose(&w, ORDER, lane, reports[i]));
        ck_assert(!w.failed[0]);
        ck_assert_int_eq(lane_of(ORDER, lane)->out.published, published);
        sim_take(&w, ORDER, lane, false);
        sim_send(&w, ORDER, lane, MUCH);
        sim_ack(&w, ORDER, lane, MUCH);
        ck_assert_int_eq(lane_of(ORDER, lane)->out.published, lane_of(ORDER, lane)->last_seq);
    }
}
END_TEST

/* An old owner's records lie between two of ours, and our offsets jump: our reports count. */
START_TEST(attack_14_offsets_jump)
{
    place_in_lane(4);
    sim_take(&w, ORDER, lane, true);
    for (int i = 0; i < 4; i++) {
        sim_send(&w, ORDER, lane, 1);
        sim_zombie(&w, ORDER, lane, 1);
        sim_ack(&w, ORDER, lane, 1);
        ck_assert_int_eq(lane_of(ORDER, lane)->out.published, i + 1);
        ck_assert_int_eq(lane_of(ORDER, lane)->out.published_offset, 2 * i);
    }
    play_run(&w, INVENTORY, ALL);
    ck_assert_int_eq(w.gaps, 0);
    ck_assert_int_eq(w.duplicates, 4);
}
END_TEST

/* A fatal error with five in flight: two are in Kafka and nobody says so, three are not. A new
 * producer sends all five; order and chain are kept. */
START_TEST(attack_15_five_in_flight)
{
    place_in_lane(5);
    sim_send(&w, ORDER, lane, 2);
    for (int i = 0; i < 3; i++)
        ck_assert(sim_lose(&w, ORDER, lane, INT64_MIN));
    play_run(&w, INVENTORY, ORDER_EVENTS);
    ck_assert_int_eq(apples(), 2);
    sim_take(&w, ORDER, lane, false);
    play_settle(&w);
    ck_assert_int_eq(w.topic[ORDER_EVENTS][lane].n, 2 + 5);
    ck_assert_int_eq(w.gaps, 0);
    ck_assert_int_eq(apples(), 5);
    ck_assert_int_eq(lane_of(ORDER, lane)->out.published, 5);
}
END_TEST

/* ---- Readers ---- */

/* A gap that nothing fills: from the earliest record once, no more; another lane goes on; a restart
 * finds the same state. (Then the lost record comes, so that the world can end.) */
START_TEST(attack_19_gap_stays_open)
{
    place_in_lane(3);
    play_place(&w, "b", "apple 1", "later");
    sim_send(&w, ORDER, lane, 1);
    sim_lose(&w, ORDER, lane, INT64_MIN);
    sim_send(&w, ORDER, lane, MUCH);
    play_run(&w, INVENTORY, ALL);
    for (int restarted = 0; restarted < 2; restarted++) {
        ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->held, 1);
        w.now += INT64_C(11000000);
        sim_overdue(&w, INVENTORY, lane, 0);
        ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->next_offset, 0);
        play_run(&w, INVENTORY, ALL);
        w.now += INT64_C(11000000);
        sim_overdue(&w, INVENTORY, lane, 0);
        ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->next_offset, 2);
        ck_assert_int_eq(apples(), 1 + restarted);
        play_run(&w, ORDER, ALL); /* "b" */
        sim_take(&w, INVENTORY, lane, false);
        ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->next_offset, 1);
        play_run(&w, INVENTORY, ALL);
    }
    ck_assert_int_eq(apples(), 2);
    sim_take(&w, ORDER, lane, false);
    play_settle(&w);
    ck_assert_int_eq(apples(), 4);
}
END_TEST

/* What cannot be read, in every topic: a dead letter of each service that reads it, once, also
 * after a restart and when it is read again. */
START_TEST(attack_23_rubbish_is_buried_once)
{
    static const char *const values[] = {NULL,
                                         "",
                                         "nonsense",
                                         "{}",
                                         "[]",
                                         "{\"type\":1}",
                                         "{\"specversion\":\"1.0\",\"id\":\"1.1.1\"}"};
    static const int readers[] = {1, 2, 2, 2};
    enum { VALUES = sizeof values / sizeof *values };

    for (int t = REQUESTS; t <= PAYMENT_EVENTS; t++)
        for (int i = 0; i < VALUES; i++)
            sim_append(&w, (enum topic)t, lane,
                       &(struct saga_record){.value = values[i],
                                             .value_n = values[i] ? strlen(values[i]) : 0});
    play_settle(&w);
    ck_assert_int_eq(w.dead, VALUES * (readers[0] + readers[1] + readers[2] + readers[3]));
    int64_t dead = w.dead;
    for (int i = 0; i < SERVICES; i++) {
        sim_take(&w, i, lane, false);
        for (int t = i == ORDER ? 1 : 0; t < w.service[i].intake.topics; t++)
            sim_rewind(&w, i, lane, t, 0);
    }
    play_settle(&w);
    ck_assert_int_eq(w.dead, dead);
}
END_TEST

/* Records that retention took before they were read: what comes after them is not applied, whether
 * the reader has read before (30) or starts for the first time (24). */
static void expired(int remembered)
{
    place_in_lane(4);
    sim_send(&w, ORDER, lane, MUCH);
    if (remembered) {
        sim_read(&w, INVENTORY, lane, 0, remembered);
        sim_decide(&w, INVENTORY);
        sim_commit(&w, INVENTORY);
    }
    int64_t before = apples();
    sim_rewind(&w, INVENTORY, lane, 0, 3); /* the earliest record that is left */
    sim_read(&w, INVENTORY, lane, 0, MUCH);
    sim_decide(&w, INVENTORY);
    sim_commit(&w, INVENTORY);
    ck_assert_int_eq(apples(), before);
    ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->held, 3);
    ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->last.seq, remembered);
    sim_take(&w, INVENTORY, lane, false);
    sim_rewind(&w, INVENTORY, lane, 0, 0); /* so that the world can end */
}

START_TEST(attack_24_first_start_after_expiry)
{
    expired(0);
}
END_TEST

START_TEST(attack_30_overtaken_by_retention)
{
    expired(2);
}
END_TEST

/* OrderCancelRequested of "a" as another history of order-svc would have written it. */
static void append_foreign(struct saga_id id, struct saga_id previous)
{
    struct saga_buf value = {0};

    saga_event_write(&(struct saga_emission){.source = "/order-svc",
                                             .event = &order_cancel_requested,
                                             .key = "a",
                                             .lane = lane,
                                             .id = id,
                                             .previous = previous,
                                             .time_ms = w.now / 1000,
                                             .cause = "order.requests/0/0",
                                             .data = &(struct reason){"customer"}},
                     &value);
    sim_append(
        &w, ORDER_EVENTS, lane,
        &(struct saga_record){.key = "a", .key_n = 1, .value = value.at, .value_n = value.n});
    saga_buf_free(&value);
}

/* A writer that starts its history again (its database restored, its topic lost) is a fork, at its
 * first record; nothing of it is applied, now or after a restart. */
START_TEST(attack_26_history_starts_again)
{
    place_in_lane(2);
    play_settle(&w);
    int64_t events = w.events;
    append_foreign((struct saga_id){1, lane_of(ORDER, lane)->term + 1}, (struct saga_id){0});
    for (int i = 0; i < 2; i++) {
        sim_read(&w, PAYMENT, lane, 0, MUCH);
        ck_assert_msg(strstr(w.failed, "a fork"), "%s", w.failed);
        w.failed[0] = '\0';
        sim_decide(&w, PAYMENT);
        sim_commit(&w, PAYMENT);
        ck_assert(input(PAYMENT, ORDER_EVENTS)->stopped);
        ck_assert_int_eq(sim_read(&w, PAYMENT, lane, 0, MUCH), 0);
        sim_abort(&w, PAYMENT);
        sim_take(&w, PAYMENT, lane, false);
    }
    ck_assert_int_eq(w.events, events);
    ck_assert_str_eq(sim_state(&w, PAYMENT, "a"), "AWAITING");
    w.topic[ORDER_EVENTS][lane].n--; /* so that the world can end */
}
END_TEST

/* One that goes on where a restored database ends: what it follows has the number of the event that
 * we know, and is another one. It is not applied. */
START_TEST(attack_26_history_goes_on_elsewhere)
{
    place_in_lane(2);
    play_settle(&w);
    int64_t term = lane_of(ORDER, lane)->term;
    append_foreign((struct saga_id){3, term + 1}, (struct saga_id){2, term + 1});
    play_run(&w, PAYMENT, ORDER_EVENTS);
    ck_assert_int_eq(w.gaps, 1);
    ck_assert_int_eq(input(PAYMENT, ORDER_EVENTS)->last.term, term);
    ck_assert_str_eq(sim_state(&w, PAYMENT, "a"), "AWAITING");
    w.topic[ORDER_EVENTS][lane].n--; /* so that the world can end */
    sim_take(&w, PAYMENT, lane, false);
}
END_TEST

/* ---- The provider ---- */

/* The charge was made and its answer lost with the process: another owner asks with the same key,
 * and money has moved once. So has what the old process may still ask. */
START_TEST(attack_40_answer_lost_with_its_owner)
{
    play_place(&w, "a", "apple 1", "now tok_ok");
    for (int i = 0; i < SERVICES; i++)
        play_run(&w, i, ALL);
    ck_assert_int_eq(w.pending_n, 1);
    ROOM_FOR(w.pending, w.pending_n, w.pending_cap);
    w.pending[w.pending_n++] = w.pending[0];
    sim_call(&w, 0, APPLIED_SILENT);
    ck_assert_int_eq(sim_money(&w, "a"), 100);
    sim_take(&w, PAYMENT, lane, false);
    ck_assert(w.pending[0].orphan);
    w.now = play_next_due(&w, PAYMENT);
    play_due(&w, PAYMENT);
    ck_assert_int_eq(w.pending_n, 2);
    play_settle(&w);
    ck_assert_str_eq(sim_state(&w, ORDER, "a"), "PAID");
    ck_assert_int_eq(sim_money(&w, "a"), 100);
    ck_assert_int_eq(w.ledger_n, 1);
}
END_TEST

Suite *writer_suite(void)
{
    const TTest *const tests[] = {attack_1_commit_without_answer,
                                  attack_2_store_of_an_old_owner,
                                  attack_8_batch_without_a_lost_lane,
                                  attack_10_same_batch_again,
                                  attack_12_first_record_refused,
                                  attack_13_report_without_offset,
                                  attack_14_offsets_jump,
                                  attack_15_five_in_flight,
                                  attack_19_gap_stays_open,
                                  attack_23_rubbish_is_buried_once,
                                  attack_24_first_start_after_expiry,
                                  attack_26_history_starts_again,
                                  attack_26_history_goes_on_elsewhere,
                                  attack_30_overtaken_by_retention,
                                  attack_40_answer_lost_with_its_owner};
    Suite *suite = suite_create("writer");
    TCase *t = tcase_create("attacks");

    tcase_add_checked_fixture(t, attack_begin, attack_end);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(suite, t);
    return suite;
}
