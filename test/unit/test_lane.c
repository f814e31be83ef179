/* The rules of a lane (DESIGN.md 4.2 to 4.5): which lane, each verdict, hold and resume, positions,
 * forwards, and what counts as published. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "lane.h"
#include "suites.h"

#define ID(seq, term) ((struct saga_id){seq, term})
#define SECOND        INT64_C(1000000)

/* ---- Which lane ---- */

/* As org.apache.kafka.common.utils.Utils of Kafka 4.4.0 computes toPositive(murmur2(key)): every
 * length modulo 4, bytes above 127, the longest key. */
START_TEST(lane_is_that_of_kafkas_partitioner)
{
    static const struct {
        const char *key;
        int32_t hash;
    } known[] = {{"", 275646681},
                 {"a", 584102524},
                 {"ab", 316155434},
                 {"abc", 479470107},
                 {"abcd", 823834100},
                 {"abcde", 461995741},
                 {"ord-1", 454404816},
                 {"ord-2", 986846269},
                 {"foobar", 1357151166},
                 {"a-little-bit-long-string", 1161502112},
                 {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 2088585677},
                 {"0123456789012345678901234567890123456789012345678901234567890123", 226109534},
                 {"\u00e4\u00f6\u00fc", 76569092},
                 {"\U0001f600x", 1129346692}};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i].key);
        ck_assert_int_eq(saga_lane_of(known[i].key, n, INT32_MAX), known[i].hash);
        ck_assert_int_eq(saga_lane_of(known[i].key, n, 12), known[i].hash % 12);
        ck_assert_int_eq(saga_lane_of(known[i].key, n, 1), 0);
    }
}
END_TEST

/* ---- Verdicts ---- */

static struct saga_input after(struct saga_id last)
{
    return (struct saga_input){.next_offset = 100, .screened = 99, .last = last, .held = -1};
}

/* The table of DESIGN.md 4.2, with each comparison at its edge. */
START_TEST(every_verdict)
{
    static const struct {
        struct saga_id last, previous, id;
        enum saga_verdict verdict;
    } table[] = {
        /* nothing remembered */
        {{0, 0}, {0, 0}, {1, 7}, SAGA_NEXT},
        {{0, 0}, {0, 0}, {9, 7}, SAGA_NEXT},
        {{0, 0}, {1, 7}, {2, 7}, SAGA_GAP},
        /* what follows; numbers may jump, an owner may have changed */
        {{5, 7}, {5, 7}, {6, 7}, SAGA_NEXT},
        {{5, 7}, {5, 7}, {9, 7}, SAGA_NEXT},
        {{5, 7}, {5, 7}, {6, 8}, SAGA_NEXT},
        /* what was applied */
        {{5, 7}, {4, 7}, {5, 7}, SAGA_DUPLICATE},
        {{5, 7}, {3, 7}, {4, 7}, SAGA_DUPLICATE},
        {{5, 7}, {3, 6}, {4, 6}, SAGA_DUPLICATE},
        {{5, 7}, {0, 0}, {1, 1}, SAGA_DUPLICATE},
        /* another history */
        {{5, 7}, {4, 6}, {5, 6}, SAGA_FORK},
        {{5, 7}, {4, 7}, {5, 8}, SAGA_FORK},
        {{5, 7}, {3, 7}, {4, 8}, SAGA_FORK},
        {{5, 7}, {0, 0}, {1, 8}, SAGA_FORK},
        /* something is missing before it */
        {{5, 7}, {6, 7}, {7, 7}, SAGA_GAP},
        {{5, 7}, {4, 7}, {6, 7}, SAGA_GAP},
        {{5, 7}, {5, 8}, {6, 8}, SAGA_GAP},
        {{5, 7}, {0, 0}, {6, 8}, SAGA_GAP},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct saga_input in = after(table[i].last);
        enum saga_verdict is = saga_input_screen(&in, 100, table[i].id, table[i].previous, 1);
        bool next = is == SAGA_NEXT, fork = is == SAGA_FORK;
        ck_assert_msg(is == table[i].verdict, "row %zu: %d, not %d", i, is, table[i].verdict);
        ck_assert(saga_id_same(in.last, next ? table[i].id : table[i].last));
        ck_assert_int_eq(in.next_offset, fork ? 100 : 101);
        ck_assert_int_eq(in.screened, fork ? 99 : 100);
        ck_assert_int_eq(in.held, is == SAGA_GAP ? 100 : -1);
        ck_assert_int_eq(saga_input_position(&in), is == SAGA_GAP || fork ? 100 : 101);
        ck_assert(in.stopped == fork);
    }
}
END_TEST

/* After a fork nothing is read, not even what would follow. */
START_TEST(fork_stops_the_input)
{
    struct saga_input in = after(ID(5, 7));

    ck_assert_int_eq(saga_input_screen(&in, 100, ID(5, 8), ID(4, 7), 1), SAGA_FORK);
    ck_assert_int_eq(saga_input_screen(&in, 100, ID(6, 7), ID(5, 7), 1), SAGA_UNREAD);
    ck_assert_int_eq(in.next_offset, 100);
    ck_assert_int_eq(in.last.seq, 5);
}
END_TEST

/* ---- Hold ---- */

/* 5, 7, 8, 6: the position stays before 7, and 7 is read again when 6 has been applied. */
START_TEST(gap_is_held_and_read_again)
{
    struct saga_input in = after(ID(5, 1));

    ck_assert_int_eq(saga_input_screen(&in, 100, ID(7, 1), ID(6, 1), 11), SAGA_GAP);
    ck_assert_int_eq(saga_input_screen(&in, 101, ID(8, 1), ID(7, 1), 12), SAGA_GAP);
    ck_assert_int_eq(in.held, 100);
    ck_assert_int_eq(in.held_since, 11);
    ck_assert_int_eq(saga_input_position(&in), 100);
    ck_assert_int_eq(saga_input_resume(&in), -1);
    ck_assert_int_eq(saga_input_screen(&in, 102, ID(6, 1), ID(5, 1), 13), SAGA_NEXT);
    ck_assert_int_eq(saga_input_position(&in), 100);
    ck_assert_int_eq(saga_input_screen(&in, 103, ID(7, 1), ID(6, 1), 14), SAGA_UNREAD);
    ck_assert_int_eq(saga_input_resume(&in), 100);
    ck_assert_int_eq(saga_input_resume(&in), -1);
    ck_assert_int_eq(in.next_offset, 100);
    ck_assert_int_eq(in.held, -1);
    ck_assert_int_eq(saga_input_screen(&in, 100, ID(7, 1), ID(6, 1), 15), SAGA_NEXT);
    ck_assert_int_eq(saga_input_screen(&in, 101, ID(8, 1), ID(7, 1), 16), SAGA_NEXT);
    ck_assert_int_eq(saga_input_screen(&in, 102, ID(6, 1), ID(5, 1), 17), SAGA_DUPLICATE);
    ck_assert_int_eq(saga_input_position(&in), 103);
}
END_TEST

/* What comes before the hold's missing event does not end the hold. */
START_TEST(hold_waits_for_its_own_event)
{
    struct saga_input in = after(ID(5, 1));

    saga_input_screen(&in, 100, ID(9, 1), ID(8, 1), 1);
    ck_assert_int_eq(saga_input_screen(&in, 101, ID(6, 1), ID(5, 1), 2), SAGA_NEXT);
    ck_assert_int_eq(saga_input_resume(&in), -1);
    ck_assert_int_eq(saga_input_position(&in), 100);
    ck_assert_int_eq(saga_input_screen(&in, 102, ID(8, 1), ID(6, 1), 3), SAGA_NEXT);
    ck_assert_int_eq(saga_input_resume(&in), 100);
}
END_TEST

/* Read again from below, a gap at a lower offset takes the hold; a higher one never does. A
 * position below the hold is kept. */
START_TEST(lowest_gap_is_held)
{
    struct saga_input in = after(ID(5, 1));

    saga_input_screen(&in, 100, ID(9, 1), ID(8, 1), 1);
    in.next_offset = 50;
    ck_assert_int_eq(saga_input_position(&in), 50);
    ck_assert_int_eq(saga_input_screen(&in, 50, ID(7, 1), ID(6, 1), 2), SAGA_GAP);
    ck_assert_int_eq(in.held, 50);
    ck_assert_int_eq(in.held_previous.seq, 6);
    ck_assert_int_eq(in.held_since, 1);
    saga_input_screen(&in, 60, ID(8, 1), ID(7, 1), 3);
    ck_assert_int_eq(in.held, 50);
    ck_assert_int_eq(saga_input_position(&in), 50);
}
END_TEST

/* An open gap: once from the earliest record, after the wait and not before; and again for the
 * next gap. */
START_TEST(overdue_once)
{
    struct saga_input in = after(ID(5, 1));

    ck_assert(!saga_input_overdue(&in, 100 * SECOND, 10 * SECOND));
    saga_input_screen(&in, 100, ID(7, 1), ID(6, 1), 5 * SECOND);
    ck_assert(!saga_input_overdue(&in, 15 * SECOND - 1, 10 * SECOND));
    ck_assert(saga_input_overdue(&in, 15 * SECOND, 10 * SECOND));
    ck_assert(!saga_input_overdue(&in, 60 * SECOND, 10 * SECOND));
    saga_input_screen(&in, 101, ID(6, 1), ID(5, 1), 61 * SECOND);
    ck_assert_int_eq(saga_input_resume(&in), 100);
    ck_assert(!saga_input_overdue(&in, 99 * SECOND, 10 * SECOND));
    saga_input_screen(&in, 102, ID(9, 1), ID(8, 1), 70 * SECOND);
    ck_assert(!saga_input_overdue(&in, 79 * SECOND, 10 * SECOND));
    ck_assert(saga_input_overdue(&in, 80 * SECOND, 10 * SECOND));
}
END_TEST

/* What stands outside the chain is looked at once, wherever reading starts again. */
START_TEST(outside_the_chain_once)
{
    struct saga_input in = after(ID(5, 1));

    ck_assert(saga_input_pass(&in, 100));
    ck_assert_int_eq(in.next_offset, 101);
    in.next_offset = 90;
    ck_assert(!saga_input_pass(&in, 99));
    ck_assert(!saga_input_pass(&in, 100));
    ck_assert_int_eq(in.next_offset, 101);
    ck_assert_int_eq(in.screened, 100);
    ck_assert(saga_input_pass(&in, 101));
}
END_TEST

/* Attacks 24, 30: records that expired unread are a gap, also when nothing is left; the position stays
 * before them until an event is applied. */
START_TEST(expired_records_are_a_gap)
{
    struct saga_input in = after(ID(5, 1));

    saga_input_lose(&in, 140, 50 * SECOND);
    ck_assert(saga_input_open(&in));
    ck_assert_int_eq(in.next_offset, 140);
    ck_assert_int_eq(saga_input_position(&in), 100);
    ck_assert(!saga_input_overdue(&in, 59 * SECOND, 10 * SECOND));
    ck_assert(saga_input_overdue(&in, 60 * SECOND, 10 * SECOND));
    ck_assert_int_eq(saga_input_screen(&in, 140, ID(4, 1), ID(3, 1), 1), SAGA_DUPLICATE);
    ck_assert_int_eq(saga_input_screen(&in, 141, ID(9, 1), ID(8, 1), 1), SAGA_GAP);
    ck_assert_int_eq(in.held, 141);
    ck_assert_int_eq(saga_input_position(&in), 100);
    saga_input_lose(&in, 142, 99 * SECOND); /* and now that one as well */
    ck_assert_int_eq(in.held, -1);
    ck_assert_int_eq(in.held_since, 50 * SECOND);
    ck_assert_int_eq(saga_input_position(&in), 100);
    ck_assert_int_eq(saga_input_screen(&in, 142, ID(6, 1), ID(5, 1), 1), SAGA_NEXT);
    ck_assert(!saga_input_open(&in));
    ck_assert_int_eq(saga_input_position(&in), 143);
}
END_TEST

/* Forwards of one lane: by term, then sequence. */
START_TEST(forwards_in_order)
{
    struct saga_id last = {0, 0};

    ck_assert(saga_forward_screen(&last, ID(3, 7)));
    ck_assert(!saga_forward_screen(&last, ID(3, 7)));
    ck_assert(!saga_forward_screen(&last, ID(2, 7)));
    ck_assert(saga_forward_screen(&last, ID(9, 7)));
    ck_assert(!saga_forward_screen(&last, ID(10, 6)));
    ck_assert_int_eq(last.seq, 9);
    ck_assert(saga_forward_screen(&last, ID(10, 8)));
    ck_assert(!saga_forward_screen(&last, ID(11, 7)));
    ck_assert_int_eq(last.term, 8);
}
END_TEST

/* ---- Publishing ---- */

static struct saga_outgoing out;

/* 4.4 step 2, each comparison at its edge: published_offset 50 is event 7.1, last_seq is 9. */
START_TEST(what_a_look_finds)
{
    static const struct {
        struct saga_seen seen;
        int64_t published_offset;
        enum saga_finding finding;
    } table[] = {
        {{0, 51, true, {7, 1}, {7, 1}, 50}, 50, SAGA_FINE},
        {{50, 60, true, {7, 1}, {9, 1}, 59}, 50, SAGA_FINE},
        /* it has expired */
        {{51, 51, false, {0, 0}, {0, 0}, 0}, 50, SAGA_FINE},
        {{51, 60, false, {0, 0}, {9, 2}, 0}, 50, SAGA_FINE},
        /* the end lies at or below it */
        {{0, 50, false, {0, 0}, {0, 0}, 0}, 50, SAGA_KAFKA_BEHIND},
        {{0, 0, false, {0, 0}, {0, 0}, 0}, 50, SAGA_KAFKA_BEHIND},
        {{0, 0, false, {0, 0}, {0, 0}, 0}, 0, SAGA_KAFKA_BEHIND},
        /* another record stands there */
        {{0, 60, true, {7, 2}, {7, 2}, 50}, 50, SAGA_KAFKA_BEHIND},
        {{0, 60, true, {8, 1}, {8, 1}, 50}, 50, SAGA_KAFKA_BEHIND},
        {{50, 60, true, {7, 2}, {7, 2}, 50}, 50, SAGA_KAFKA_BEHIND},
        {{0, 60, true, {0, 0}, {9, 1}, 51}, 50, SAGA_KAFKA_BEHIND},
        {{0, 60, false, {0, 0}, {9, 1}, 51}, 50, SAGA_KAFKA_BEHIND},
        {{0, 60, true, {7, 2}, {10, 2}, 51}, 50, SAGA_KAFKA_BEHIND},
        /* events that the database has not written */
        {{0, 60, true, {7, 1}, {10, 1}, 51}, 50, SAGA_DATABASE_BEHIND},
        {{51, 60, false, {0, 0}, {10, 1}, 51}, 50, SAGA_DATABASE_BEHIND},
        {{0, 60, false, {0, 0}, {10, 1}, 51}, -1, SAGA_DATABASE_BEHIND},
        /* nothing of its own is published yet */
        {{0, 0, false, {0, 0}, {0, 0}, 0}, -1, SAGA_FINE},
        {{0, 60, false, {0, 0}, {9, 1}, 51}, -1, SAGA_FINE},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_msg(saga_seen_judge(&table[i].seen, table[i].published_offset, ID(7, 1), 9) ==
                          table[i].finding,
                      "row %zu", i);
}
END_TEST

static void start(void)
{
    out = (struct saga_outgoing){.published_offset = -1, .known_offset = 9};
}

static void stop(void)
{
    free(out.ring);
}

static void send(int64_t from, int64_t to)
{
    for (; from <= to; from++)
        saga_outgoing_sent(&out, from, ID(from, 1), 10);
}

/* published moves over what is acknowledged without a hole. */
START_TEST(published_is_the_prefix)
{
    send(1, 3);
    saga_outgoing_sent(&out, 4, ID(0, 0), 5); /* a dead letter */
    ck_assert_int_eq(out.bytes, 35);
    ck_assert(saga_outgoing_acked(&out, 1, 10));
    ck_assert_int_eq(out.published, 1);
    ck_assert_int_eq(out.published_offset, 10);
    ck_assert(saga_outgoing_acked(&out, 4, 0)); /* of another topic: its offsets are its own */
    ck_assert_int_eq(out.published, 1);
    ck_assert(saga_outgoing_acked(&out, 2, 11));
    ck_assert(saga_outgoing_acked(&out, 3, 15)); /* others' records lie between */
    ck_assert_int_eq(out.published, 4);
    ck_assert_int_eq(out.published_offset, 15);
    ck_assert_int_eq(out.published_id.seq, 3);
    ck_assert_uint_eq(out.n, 0);
    ck_assert_int_eq(out.bytes, 0);
}
END_TEST

/* A success whose offset the library has made up is none. */
START_TEST(invented_offsets_do_not_count)
{
    static const int64_t invented[] = {-1001, -1, 0, 1, 9};

    send(1, 2);
    for (size_t i = 0; i < sizeof invented / sizeof *invented; i++)
        ck_assert(!saga_outgoing_acked(&out, 1, invented[i]));
    ck_assert_int_eq(out.published, 0);
    ck_assert_int_eq(out.known_offset, 9);
    ck_assert(saga_outgoing_acked(&out, 1, 10));
    ck_assert(!saga_outgoing_acked(&out, 2, 10));
    ck_assert(saga_outgoing_acked(&out, 2, 11));
    ck_assert(!saga_outgoing_acked(&out, 3, 12)); /* never sent */
    saga_outgoing_sent(&out, 3, ID(0, 0), 1);
    ck_assert(!saga_outgoing_acked(&out, 3, -1));
    ck_assert_int_eq(out.published, 2);
}
END_TEST

/* A row that is in Kafka already keeps its place between those that are sent again. */
START_TEST(passed_rows_are_published_in_turn)
{
    send(1, 1);
    saga_outgoing_passed(&out, 2);
    send(3, 3);
    saga_outgoing_passed(&out, 4);
    ck_assert(saga_outgoing_acked(&out, 1, 10));
    ck_assert_int_eq(out.published, 2);
    ck_assert_int_eq(out.published_offset, 10);
    ck_assert(saga_outgoing_acked(&out, 3, 11));
    ck_assert_int_eq(out.published, 4);
    ck_assert_uint_eq(out.n, 0);
}
END_TEST

/* The report of a second copy changes nothing, whether the first is published or waits. */
START_TEST(second_copies)
{
    send(1, 3);
    ck_assert(saga_outgoing_acked(&out, 1, 10));
    ck_assert(saga_outgoing_acked(&out, 1, 20));
    ck_assert(saga_outgoing_acked(&out, 1, -1));
    ck_assert(saga_outgoing_acked(&out, 3, 12));
    ck_assert(saga_outgoing_acked(&out, 3, 22));
    ck_assert_int_eq(out.published, 1);
    ck_assert_int_eq(out.known_offset, 12);
    ck_assert_int_eq(out.published_offset, 10);
}
END_TEST

/* A lane that fails for the third time without an acknowledgement between stops; one between, of
 * whatever it sent, and it has three again. What counts is an acknowledgement, no report and no reset. */
START_TEST(third_failure_without_an_acknowledgement)
{
    send(1, 3);
    for (int round = 0; round < 2; round++) {
        ck_assert(!saga_outgoing_failed(&out));
        saga_outgoing_reset(&out);
        send(1, 3);
        ck_assert(!saga_outgoing_acked(&out, 1, -1));
        ck_assert(!saga_outgoing_failed(&out));
        ck_assert(saga_outgoing_failed(&out));
    }
    ck_assert(!saga_outgoing_failed(&out));
    ck_assert(!saga_outgoing_failed(&out));
    ck_assert(saga_outgoing_acked(&out, 2, 10)); /* 1 is not: it can send */
    ck_assert(!saga_outgoing_failed(&out));
    ck_assert(!saga_outgoing_failed(&out));
    ck_assert(saga_outgoing_failed(&out));
}
END_TEST

/* 5,000 unacknowledged events, 16 MiB: full is one more, eased is less than half, of both. */
START_TEST(limits_of_a_lane)
{
    enum { EVENTS = 5000, BYTES = 16 * 1024 * 1024 };

    send(1, EVENTS);
    ck_assert(!saga_outgoing_full(&out));
    send(EVENTS + 1, EVENTS + 1);
    ck_assert(saga_outgoing_full(&out));
    for (int64_t seq = 1; out.n > EVENTS / 2; seq++)
        ck_assert(saga_outgoing_acked(&out, seq, 9 + seq));
    ck_assert(!saga_outgoing_full(&out) && !saga_outgoing_eased(&out));
    ck_assert(saga_outgoing_acked(&out, out.published + 1, out.published_offset + 1));
    ck_assert(saga_outgoing_eased(&out));

    saga_outgoing_reset(&out);
    saga_outgoing_sent(&out, 6001, ID(6001, 1), BYTES / 2);
    saga_outgoing_sent(&out, 6002, ID(6002, 1), BYTES / 2);
    ck_assert(!saga_outgoing_full(&out));
    saga_outgoing_sent(&out, 6003, ID(6003, 1), 1);
    ck_assert(saga_outgoing_full(&out));
    saga_outgoing_reset(&out);
    saga_outgoing_sent(&out, 6004, ID(6004, 1), BYTES / 2);
    ck_assert(!saga_outgoing_eased(&out));
    saga_outgoing_reset(&out);
    saga_outgoing_sent(&out, 6004, ID(6004, 1), BYTES / 2 - 1);
    ck_assert(saga_outgoing_eased(&out));
}
END_TEST

/* The ring grows while its head is anywhere, and forgets all when the lane is taken again. */
START_TEST(ring_grows)
{
    int64_t offset = 10;

    send(1, 40);
    for (int64_t seq = 1; seq <= 30; seq++)
        ck_assert(saga_outgoing_acked(&out, seq, offset++));
    send(41, 1000);
    ck_assert_uint_eq(out.n, 970);
    ck_assert_int_eq(out.bytes, 9700);
    for (int64_t seq = 31; seq <= 990; seq++)
        ck_assert(saga_outgoing_acked(&out, seq, offset++));
    ck_assert_int_eq(out.published, 990);
    saga_outgoing_reset(&out);
    ck_assert_uint_eq(out.n, 0);
    ck_assert_int_eq(out.bytes, 0);
    ck_assert_int_eq(out.published, 990);
    ck_assert(!saga_outgoing_acked(&out, 991, offset));
    send(991, 995);
    ck_assert(saga_outgoing_acked(&out, 991, offset));
    ck_assert_int_eq(out.published, 991);
}
END_TEST

Suite *lane_suite(void)
{
    Suite *suite = suite_create("lane");
    TCase *reading = tcase_create("reading"), *publishing = tcase_create("publishing");

    tcase_add_test(reading, lane_is_that_of_kafkas_partitioner);
    tcase_add_test(reading, every_verdict);
    tcase_add_test(reading, fork_stops_the_input);
    tcase_add_test(reading, gap_is_held_and_read_again);
    tcase_add_test(reading, hold_waits_for_its_own_event);
    tcase_add_test(reading, lowest_gap_is_held);
    tcase_add_test(reading, overdue_once);
    tcase_add_test(reading, outside_the_chain_once);
    tcase_add_test(reading, expired_records_are_a_gap);
    tcase_add_test(reading, forwards_in_order);
    tcase_add_checked_fixture(publishing, start, stop);
    tcase_add_test(publishing, published_is_the_prefix);
    tcase_add_test(publishing, invented_offsets_do_not_count);
    tcase_add_test(publishing, second_copies);
    tcase_add_test(publishing, third_failure_without_an_acknowledgement);
    tcase_add_test(publishing, passed_rows_are_published_in_turn);
    tcase_add_test(publishing, limits_of_a_lane);
    tcase_add_test(publishing, what_a_look_finds);
    tcase_add_test(publishing, ring_grows);
    suite_add_tcase(suite, reading);
    suite_add_tcase(suite, publishing);
    return suite;
}
