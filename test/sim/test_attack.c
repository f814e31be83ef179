/* ATTACKS.md, played where rules and lanes alone decide; the number is in the name. Of writers and
 * publishing: test_writer.c. */
#include "attack.h"

#include <stdio.h>
#include <stdlib.h>

#include "suites.h"

/* ---- Owners ---- */

/* A paused owner wakes up and sends its queue between the records of the new one. */
START_TEST(attack_4_old_owner_sends_between)
{
    place_in_lane(6);
    sim_take(&w, ORDER, lane, true);
    sim_send(&w, ORDER, lane, 3);
    sim_zombie(&w, ORDER, lane, 4);
    sim_send(&w, ORDER, lane, 2);
    sim_zombie(&w, ORDER, lane, MUCH);
    sim_send(&w, ORDER, lane, MUCH);
    sim_ack(&w, ORDER, lane, MUCH);
    ck_assert_int_eq(w.topic[ORDER_EVENTS][lane].n, 12);
    play_run(&w, INVENTORY, ALL);
    ck_assert_int_eq(w.duplicates, 6);
    ck_assert_int_eq(w.gaps, 0);
    ck_assert_int_eq(w.service[INVENTORY].lane[lane].last_seq, 6);
}
END_TEST

/* Killed after COMMIT, before anything is sent: the next owner sends it. */
START_TEST(attack_5_killed_before_publish)
{
    place_in_lane(3);
    ck_assert_int_eq(w.topic[ORDER_EVENTS][lane].n, 0);
    sim_take(&w, ORDER, lane, false);
    play_settle(&w);
    ck_assert_int_eq(w.topic[ORDER_EVENTS][lane].n, 3);
    ck_assert_int_eq(w.duplicates, 0);
}
END_TEST

/* Killed after it was sent, before that was stored: sent again, dropped by the readers. */
START_TEST(attack_6_killed_after_publish)
{
    place_in_lane(3);
    sim_send(&w, ORDER, lane, MUCH);
    sim_ack(&w, ORDER, lane, MUCH);
    sim_take(&w, ORDER, lane, false);
    play_settle(&w);
    ck_assert_int_eq(w.topic[ORDER_EVENTS][lane].n, 6);
    ck_assert_int_eq(w.duplicates, 2 * 3); /* by two services */
    ck_assert_int_eq(w.service[INVENTORY].lane[lane].last_seq, 3);
}
END_TEST

/* A lane that comes back to its owner keeps what was sent, and the reports that are on their way
 * count: nothing is sent again. */
START_TEST(attack_9_lane_comes_back)
{
    place_in_lane(3);
    sim_send(&w, ORDER, lane, MUCH);
    const struct saga_outgoing kept = w.service[ORDER].lane[lane].out;
    ck_assert_int_eq(kept.n, 3);
    sim_ack(&w, ORDER, lane, MUCH);
    play_settle(&w);
    ck_assert_int_eq(w.topic[ORDER_EVENTS][lane].n, 3);
    ck_assert_int_eq(w.service[ORDER].lane[lane].out.published, 3);
    ck_assert_int_eq(w.service[ORDER].lane[lane].out.published_offset, 2);
    ck_assert_int_eq(w.service[ORDER].lane[lane].out.bytes, 0);
}
END_TEST

/* ---- Readers ---- */

/* 1, 3, 4, 2: 2 is applied, then 3 and 4 are read again from the held offset. */
START_TEST(attack_18_gap)
{
    place_in_lane(4);
    forget_trace();
    sim_send(&w, ORDER, lane, 1);
    ck_assert(sim_lose(&w, ORDER, lane, -1001));
    sim_send(&w, ORDER, lane, MUCH);
    sim_take(&w, ORDER, lane, false);
    sim_lose(&w, ORDER, lane, INT64_MIN); /* 1 is there already */
    sim_send(&w, ORDER, lane, 1);
    sim_read(&w, INVENTORY, lane, 0, MUCH);
    sim_decide(&w, INVENTORY);
    ck_assert_int_eq(w.gaps, 2);
    ck_assert_int_eq(w.service[INVENTORY].batch.n, 2);
    sim_commit(&w, INVENTORY);
    ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->next_offset, 1);
    ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->held, -1);
    sim_read(&w, INVENTORY, lane, 0, MUCH);
    ck_assert_int_eq(w.service[INVENTORY].batch.n, 2);
    sim_decide(&w, INVENTORY);
    sim_commit(&w, INVENTORY);
    ck_assert_int_eq(w.service[INVENTORY].lane[lane].last_seq, 4);
    ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->last.seq, 4);
    ck_assert_int_eq(w.duplicates, 1);
    w.service[ORDER].lane[lane].lost = false;
    sim_take(&w, ORDER, lane, false);
}
END_TEST

/* The position that is stored stays before the gap: an owner that dies meanwhile loses nothing. */
START_TEST(attack_18_gap_and_crash)
{
    place_in_lane(4);
    sim_send(&w, ORDER, lane, 1);
    sim_lose(&w, ORDER, lane, INT64_MIN);
    sim_send(&w, ORDER, lane, MUCH);
    play_run(&w, INVENTORY, ALL);
    ck_assert_int_eq(w.gaps, 2);
    sim_take(&w, INVENTORY, lane, false);
    ck_assert_int_eq(input(INVENTORY, ORDER_EVENTS)->next_offset, 1);
    sim_take(&w, ORDER, lane, false);
    play_settle(&w);
    ck_assert_int_eq(w.service[INVENTORY].lane[lane].last_seq, 4);
}
END_TEST

static void copy_topic(enum topic topic, int to, bool with_key)
{
    int n = w.topic[topic][lane].n;

    for (int i = 0; i < n; i++) {
        struct saga_record record = w.topic[topic][lane].at[i].record;
        if (!with_key)
            record.key = NULL, record.key_n = 0;
        record.headers_n = 0;
        sim_append(&w, topic, to, &record);
    }
}

static void paid_order(void)
{
    play_place(&w, "a", "apple 1", "now tok_ok");
    play_settle(&w);
    forget_trace();
}

/* Whole event topics copied in the middle of the run, once and once more: no effect. */
START_TEST(attack_20_topics_copied)
{
    paid_order();
    for (enum topic t = ORDER_EVENTS; t <= PAYMENT_EVENTS; t++)
        copy_topic(t, lane, t != ORDER_EVENTS);
    for (enum topic t = ORDER_EVENTS; t <= PAYMENT_EVENTS; t++)
        copy_topic(t, lane, t == ORDER_EVENTS);
    int64_t events = w.events;
    play_settle(&w);
    ck_assert_int_eq(w.events, events);
    ck_assert_int_eq(w.dead, 0);
    ck_assert_int_eq(w.duplicates, (1 + 2) * 2 * (2 + 1 + 1)); /* two readers each */
    ck_assert_int_eq(sim_money(&w, "a"), 100);
}
END_TEST

/* Copies in a foreign partition are dead letters, once per reading service, not gaps. */
START_TEST(attack_20_copied_to_another_partition)
{
    int other = (lane + 1) % LANES;

    paid_order();
    copy_topic(ORDER_EVENTS, other, true);
    play_settle(&w);
    EXPECT(&w, "inventory/2 dead letter: order.events/2/0 foreign\n"
               "inventory/2 dead letter: order.events/2/1 foreign\n"
               "payment/2 dead letter: order.events/2/0 foreign\n"
               "payment/2 dead letter: order.events/2/1 foreign\n");
    sim_rewind(&w, INVENTORY, other, 0, 0);
    play_settle(&w);
    ck_assert_int_eq(w.dead, 4);
}
END_TEST

/* A copied request is a new request, and harmless. */
START_TEST(attack_20_requests_copied)
{
    paid_order();
    play_ask(&w, "ShipOrder", "a", "");
    play_settle(&w);
    forget_trace();
    copy_topic(REQUESTS, lane, true);
    copy_topic(REQUESTS, (lane + 1) % LANES, false);
    play_settle(&w);
    ck_assert_int_eq(count_of(ORDER, "a", &order_shipped), 1);
    ck_assert_int_eq(count_of(ORDER, "a", &request_rejected), 0);
}
END_TEST

/* Every position back to the beginning, of every service. */
START_TEST(attack_21_offsets_reset)
{
    paid_order();
    int64_t events = w.events;
    for (int i = 0; i < SERVICES; i++)
        for (int t = 0; t < w.service[i].intake.topics; t++)
            for (int o = w.topic[REQUESTS][lane].n; o-- > 0 && i == ORDER && t == 0;)
                sim_read_stale(&w, i, lane, t, o);
    sim_commit(&w, ORDER);
    for (int i = 0; i < SERVICES; i++)
        for (int t = i == ORDER ? 1 : 0; t < w.service[i].intake.topics; t++)
            sim_rewind(&w, i, lane, t, 0);
    play_settle(&w);
    ck_assert_int_eq(w.events, events);
    ck_assert_int_eq(w.duplicates, 1 + 2 * (2 + 1 + 1));
}
END_TEST

/* ---- Forwards ---- */

static const char nameless[] =
    "{\"type\":\"PlaceOrder\",\"customer_id\":\"c\",\"currency\":\"EUR\","
    "\"lines\":[{\"sku\":\"apple\",\"quantity\":1,\"unit_price\":100}],"
    "\"payment\":{\"token\":\"tok_ok\"}}";

/* Requests until one belongs to another lane than 0. -> its order, whose lane is then ours */
static const char *misplaced_order(void)
{
    for (int i = 0; i < 1000; i++) {
        sim_request(&w, 0, NULL, nameless);
        sim_read(&w, ORDER, 0, 0, MUCH);
        sim_decide(&w, ORDER);
        const struct saga_batch *b = &w.service[ORDER].batch;
        const char *key = b->in[0].key;
        bool away = b->in[0].kind == SAGA_IN_FORWARD;
        sim_commit(&w, ORDER);
        if (away) {
            lane = sim_lane(key);
            return key;
        }
    }
    ck_abort_msg("none is forwarded");
}

/* An order without id in a foreign partition: one order, also when the forward is sent again. */
START_TEST(attack_32_forward_sent_again)
{
    const char *key = misplaced_order();

    sim_send(&w, ORDER, 0, MUCH);
    sim_take(&w, ORDER, 0, false);
    sim_send(&w, ORDER, 0, MUCH);
    ck_assert_int_eq(w.topic[REQUESTS][lane].n, 2);
    play_settle(&w);
    ck_assert_str_eq(sim_state(&w, ORDER, key), "PAID");
    ck_assert_int_eq(count_of(ORDER, key, &order_created), 1);
    ck_assert_int_eq(sim_money(&w, key), 100);
}
END_TEST

/* The first request of a new producer is refused, and told as delivered. A forward that came behind a
 * later one of its lane would be dropped as a duplicate: none does, as nothing goes before the first. */
START_TEST(attack_12_first_request_refused)
{
    char first[65], second[65];
    int to;

    snprintf(first, sizeof first, "%s", misplaced_order());
    to = lane;
    do
        snprintf(second, sizeof second, "%s", misplaced_order());
    while (lane != to);
    sim_refuse(&w, ORDER, 0, -1001);
    ck_assert_int_eq(w.service[ORDER].lane[0].out.published, 0);
    ck_assert_int_eq(w.topic[REQUESTS][to].n, 0);
    sim_take(&w, ORDER, 0, false);
    play_settle(&w);
    ck_assert_str_eq(sim_state(&w, ORDER, first), "PAID");
    ck_assert_str_eq(sim_state(&w, ORDER, second), "PAID");
    ck_assert_int_eq(count_of(ORDER, first, &order_created), 1);
    ck_assert_int_eq(w.duplicates, 0);
}
END_TEST

/* The same after the reader was killed: what it knew of forwards is stored with their effects. */
START_TEST(attack_32_forward_sent_again_to_another)
{
    const char *key = misplaced_order();

    sim_send(&w, ORDER, 0, MUCH);
    play_run(&w, ORDER, REQUESTS);
    sim_take(&w, ORDER, lane, false);
    sim_take(&w, ORDER, 0, false);
    play_settle(&w);
    ck_assert_int_eq(w.topic[REQUESTS][lane].n, 2);
    ck_assert_int_eq(count_of(ORDER, key, &order_created), 1);
    ck_assert_str_eq(sim_state(&w, ORDER, key), "PAID");
}
END_TEST

/* A forward that was refused does not come back when it would be legal. */
START_TEST(attack_33_forward_comes_back)
{
    int from = (lane + 1) % LANES;

    play_place(&w, "a", "apple 1", "now tok_ok");
    play_run(&w, ORDER, ALL);
    sim_request(&w, from, NULL, "{\"type\":\"ShipOrder\",\"order_id\":\"a\"}");
    play_read(&w, ORDER, REQUESTS);
    sim_decide(&w, ORDER);
    sim_commit(&w, ORDER);
    sim_send(&w, ORDER, from, MUCH);
    play_run(&w, ORDER, REQUESTS);
    ck_assert_int_eq(count_of(ORDER, "a", &request_rejected), 1);
    play_settle(&w);
    ck_assert_str_eq(sim_state(&w, ORDER, "a"), "PAID");
    int n = w.topic[REQUESTS][lane].n;
    w.service[ORDER].lane[from].published = 0;
    sim_take(&w, ORDER, from, false);
    play_settle(&w);
    ck_assert_int_eq(w.topic[REQUESTS][lane].n, n + 1);
    ck_assert_str_eq(sim_state(&w, ORDER, "a"), "PAID");
    ck_assert_int_eq(count_of(ORDER, "a", &request_rejected), 1);
}
END_TEST

static void forged(const char *id, const char *from)
{
    const struct saga_header headers[] = {{"forwarded-id", id, strlen(id)},
                                          {"forwarded-from", from, strlen(from)}};
    static const char value[] = "{\"type\":\"ShipOrder\",\"order_id\":\"a\"}";

    sim_append(&w, REQUESTS, lane,
               &(struct saga_record){.key = "a",
                                     .key_n = 1,
                                     .value = value,
                                     .value_n = strlen(value),
                                     .headers = headers,
                                     .headers_n = 2});
    play_run(&w, ORDER, REQUESTS);
}

/* A forwarded-id of another installation is none, however high; what is no id, neither. Our own
 * forwards still work. */
START_TEST(attack_45_foreign_forwarded_id)
{
    static const char value[] = "{\"type\":\"CancelOrder\",\"order_id\":\"a\"}";
    int from = (lane + 1) % LANES;
    char place[64];

    play_place(&w, "a", "apple 1", "later");
    play_settle(&w);
    forget_trace();
    snprintf(place, sizeof place, "order.requests/%d/7", from);
    forged("11111111-2222-4333-8444-555555555555/1.9223372036854775807.9223372036854775807", place);
    forged("1.9.9", place);
    forged("", "");
    forged("5b0f3c52-0e0b-4e0c-9c6a-1f0d2e8a7741/x", place);
    forged("5b0f3c52-0e0b-4e0c-9c6a-1f0d2e8a7741/2147483647.9.9", "order.requests/2147483647/7");
    EXPECT(&w, "order a: ShipOrder CREATED, RequestRejected not_paid\n"
               "order a: ShipOrder CREATED, RequestRejected not_paid\n"
               "order a: ShipOrder CREATED, RequestRejected not_paid\n"
               "order a: ShipOrder CREATED, RequestRejected not_paid\n"
               "order a: ShipOrder CREATED, RequestRejected not_paid\n");
    sim_request(&w, from, NULL, value);
    play_settle(&w);
    ck_assert_str_eq(sim_state(&w, ORDER, "a"), "CANCELLED");
}
END_TEST

/* ---- Cancelled at every moment ---- */

/* One record, one answer at a time; the cancellation comes after so many of them. */
static bool one_step(void)
{
    for (int i = 0; i < SERVICES; i++)
        for (int t = 0; t < w.service[i].intake.topics; t++)
            if (sim_unread(&w, i, lane, t) > 0) {
                sim_read(&w, i, lane, t, 1);
                sim_decide(&w, i);
                sim_commit(&w, i);
                sim_send(&w, i, lane, MUCH);
                sim_ack(&w, i, lane, MUCH);
                return true;
            }
    return play_answer(&w, ANSWERED);
}

static bool cancel_after(int steps, const char *payment)
{
    int i = 0;

    attack_begin();
    play_place(&w, "a", "apple 1", payment);
    if (!strcmp(payment, "later"))
        play_ask(&w, "PayOrder", "a", ",\"token\":\"tok_refund_refused_1\"");
    while (i < steps && one_step())
        i++;
    play_ask(&w, "CancelOrder", "a", "");
    play_settle(&w);
    while (play_next_due(&w, PAYMENT) || play_next_due(&w, ORDER)) {
        w.now += INT64_C(100000);
        if (play_due(&w, PAYMENT) || play_due(&w, ORDER))
            play_settle(&w);
    }
    ck_assert_str_eq(sim_state(&w, ORDER, "a"), "CANCELLED");
    attack_end();
    return i == steps;
}

START_TEST(attack_34_cancelled_at_every_moment)
{
    static const char *const payments[] = {"now tok_ok", "now tok_declined", "later",
                                           "now tok_unknown_once", "now tok_unknown_declined"};

    sim_free(&w);
    for (size_t i = 0; i < sizeof payments / sizeof *payments; i++) {
        int n = 0;
        while (cancel_after(n, payments[i]))
            n++;
        ck_assert_int_gt(n, 6);
    }
    attack_begin();
}
END_TEST

Suite *attack_suite(void)
{
    const TTest *const tests[] = {attack_4_old_owner_sends_between,
                                  attack_5_killed_before_publish,
                                  attack_6_killed_after_publish,
                                  attack_9_lane_comes_back,
                                  attack_18_gap,
                                  attack_18_gap_and_crash,
                                  attack_20_topics_copied,
                                  attack_20_copied_to_another_partition,
                                  attack_20_requests_copied,
                                  attack_21_offsets_reset,
                                  attack_32_forward_sent_again,
                                  attack_12_first_request_refused,
                                  attack_32_forward_sent_again_to_another,
                                  attack_33_forward_comes_back,
                                  attack_34_cancelled_at_every_moment,
                                  attack_45_foreign_forwarded_id};
    Suite *suite = suite_create("attack");
    TCase *t = tcase_create("attacks");

    tcase_add_checked_fixture(t, attack_begin, attack_end);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(suite, t);
    return suite;
}
