/* The batch: rows are copied before they change, decide starts anew each time, and what goes out
 * has its ids, headers and limits. A counter stands for an order. */
#include "batch.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "suites.h"

enum { LANES = 3, KIB = 1024 };
#define NOW     INT64_C(1795513885123456)
#define SECOND  INT64_C(1000000)
#define HISTORY "11111111-2222-4333-8444-555555555555"

/* ---- A service: count is changed, reported, asked for outside, logged; shared is a total ---- */

struct number {
    int64_t n;
};
struct numbers {
    int n;
    struct number *at;
};
struct counter {
    struct saga_row row;
    int64_t n;
    struct numbers seen;
};

#define T number
static const struct saga_field number_fields[] = {{SAGA_AT(struct T, n), SAGA_INT, 0, 1000}, {0}};
#undef T
static const struct saga_event add = {"Add", sizeof(struct number), number_fields},
                               look = {"Look", sizeof(struct number), number_fields},
                               never = {"Never", sizeof(struct number), number_fields},
                               counted = {"Counted", sizeof(struct number), number_fields},
                               call_out = {"call", sizeof(struct number), number_fields};

static int ran;

static void adding(struct saga_step *step)
{
    const struct number *number = step->data;
    struct counter *counter = saga_change(step), *total = saga_share(step, "total");

    ran++;
    counter->row.state = 1;
    counter->n += number->n;
    total->n += number->n;
    *(struct number *)saga_append(step, &counter->seen, sizeof(struct number)) = *number;
    saga_emit(step, &counted, &(struct number){counter->n});
    saga_call(step, &call_out, number);
    saga_log(step, counter);
}

static void waking(struct saga_step *step)
{
    const struct counter *counter = step->row;

    ran++;
    ck_assert_int_eq(counter->row.due, 0);
    saga_emit(step, &counted, &(struct number){counter->n});
}

static bool names(const struct saga_step *step,
                  void (*share)(const struct saga_step *step, const char *key))
{
    share(step, "total");
    return step->row != NULL;
}

static const struct saga_rule rules[] = {{&add, {adding, adding}},
                                         {&look, {saga_nothing, saga_nothing}},
                                         {&never, {saga_impossible, saga_nothing}},
                                         {&saga_due, {waking, waking}},
                                         {0}};
static const struct saga_table table = {sizeof(struct counter), number_fields};
static const char *const states[] = {"NONE", "COUNTING", NULL};
static const struct saga_service service = {.name = "counter",
                                            .requests = "counter.requests",
                                            .states = states,
                                            .rules = rules,
                                            .orders = &table,
                                            .shared = &table,
                                            .log = &table,
                                            .names = names};

static struct saga_batch b;

static void start(void)
{
    ran = 0;
    saga_batch_init(&b, &service, LANES, HISTORY);
    for (int i = 0; i < LANES; i++)
        b.writer[i] = (struct saga_writer){.lane = i, .term = 7, .last_seq = 40, .last = {39, 6}};
}

static void stop(void)
{
    saga_batch_free(&b);
}

static struct saga_in *input(enum saga_kind kind, const struct saga_event *event, const char *key)
{
    struct saga_in *in = saga_batch_add(&b, kind, 1);

    in->key = key;
    in->rule = saga_rule_of(&service, event->type);
    in->data = saga_arena_zero(&b.arena, sizeof(struct number));
    in->slot = saga_batch_row(&b, &b.orders, key);
    return in;
}

static void add_to(const char *key, int64_t n)
{
    struct saga_in *in = input(SAGA_IN_EVENT, &add, key);
    struct number *number = saga_arena_alloc(&b.arena, sizeof *number);

    number->n = n;
    in->data = number;
    in->id = "1.5.7";
    in->trace = "trace";
}

static int decide(void)
{
    struct saga_err err = {0};

    saga_batch_name(&b);
    return saga_batch_decide(&b, NOW, &err);
}

static const char *value_of(int i)
{
    return saga_arena_text(&b.arena, b.values.at + b.out[i].at, b.out[i].n);
}

/* ---- Rows ---- */

/* The row that was given stays as it was; the copy is made once, and only of what changes. */
START_TEST(row_is_copied_before_its_first_change)
{
    struct counter given = {.row = {.key = "a", .stored = true, .state = 1}, .n = 10}, was = given,
                   other = {.row = {.key = "b", .stored = true, .state = 1}};

    add_to("a", 1);
    add_to("a", 2);
    input(SAGA_IN_EVENT, &look, "b");
    saga_slots_find(&b.orders, "a")->row = &given;
    saga_slots_find(&b.orders, "b")->row = &other;
    ck_assert_int_eq(decide(), 0);
    const struct saga_slot *slot = saga_slots_find(&b.orders, "a");
    given.row.lane = was.row.lane;
    ck_assert_mem_eq(&given, &was, sizeof given);
    ck_assert(slot->changed);
    ck_assert_ptr_eq(slot->origin, &given);
    ck_assert_int_eq(((const struct counter *)slot->row)->n, 13);
    ck_assert_int_eq(((const struct counter *)slot->row)->seen.n, 2);
    ck_assert_str_eq(((const struct saga_row *)slot->row)->cause, "1.5.7");
    ck_assert_ptr_eq(saga_slots_find(&b.orders, "b")->row, &other);
    ck_assert(!saga_slots_find(&b.orders, "b")->changed);
}
END_TEST

/* Run again on the same rows, a batch makes the same bytes and the same rows. */
START_TEST(decided_twice_is_the_same)
{
    struct counter given = {.row = {.key = "a", .stored = true, .state = 1}, .n = 10};

    add_to("a", 1);
    add_to("new", 2);
    saga_slots_find(&b.orders, "a")->row = &given;
    ck_assert_int_eq(decide(), 0);
    char *first = saga_arena_text(&b.arena, b.values.at, b.values.n);
    size_t n = b.values.n;
    ck_assert_int_eq(decide(), 0);
    ck_assert_uint_eq(b.values.n, n);
    ck_assert_mem_eq(b.values.at, first, n);
    ck_assert_int_eq(b.out_n, 2);
    ck_assert_int_eq(b.call_n, 2);
    ck_assert_int_eq(b.log_n, 2);
    ck_assert_int_eq(b.wrote[1].last_seq, 42);
    ck_assert_int_eq(((const struct counter *)saga_slots_find(&b.orders, "a")->row)->n, 11);
    ck_assert_int_eq(((const struct counter *)saga_slots_find(&b.orders, "new")->row)->n, 2);
    ck_assert_int_eq(((const struct counter *)saga_slots_find(&b.shared, "total")->row)->n, 3);
}
END_TEST

/* A key that is not there is a zeroed row; rows stay when the simulation commits, and count as
 * stored. */
START_TEST(rows_are_made_and_kept)
{
    add_to("a", 5);
    ck_assert_int_eq(decide(), 0);
    const struct counter *row = saga_slots_find(&b.orders, "a")->row;
    ck_assert_str_eq(row->row.key, "a");
    ck_assert(!row->row.stored && row->row.changed);
    ck_assert_int_eq(row->row.created, NOW);
    ck_assert_int_eq(row->row.lane, 1);
    saga_batch_commit(&b);
    ck_assert_int_eq(b.n + b.out_n + b.call_n + b.log_n, 0);
    ck_assert(row->row.stored && !row->row.changed);
    add_to("a", 6);
    ck_assert_int_eq(saga_batch_decide(&b, NOW + 1, NULL), 0);
    row = saga_slots_find(&b.orders, "a")->row;
    ck_assert_int_eq(row->n, 11);
    ck_assert_int_eq(row->row.created, NOW);
}
END_TEST

/* A list grows by a copy: whoever holds the list as it was still sees that. */
START_TEST(append_leaves_the_old_list)
{
    struct number old[] = {{3}};
    struct counter given = {.row = {.key = "a", .stored = true}, .seen = {1, old}};

    add_to("a", 4);
    saga_slots_find(&b.orders, "a")->row = &given;
    ck_assert_int_eq(decide(), 0);
    const struct counter *row = saga_slots_find(&b.orders, "a")->row;
    ck_assert_int_eq(row->seen.n, 2);
    ck_assert_int_eq(row->seen.at[0].n, 3);
    ck_assert_int_eq(row->seen.at[1].n, 4);
    ck_assert_int_eq(given.seen.n, 1);
    ck_assert_ptr_ne(row->seen.at, old);
}
END_TEST

/* Thousands of keys: each has one slot, in the order in which they came. */
START_TEST(slots_grow)
{
    char key[16];

    for (int again = 0; again < 2; again++)
        for (int i = 0; i < 5000; i++) {
            snprintf(key, sizeof key, "key-%d", i);
            saga_batch_row(&b, &b.orders, key);
        }
    ck_assert_int_eq(b.orders.n, 5000);
    ck_assert_str_eq(b.orders.list[4321]->key, "key-4321");
    ck_assert_ptr_eq(saga_slots_find(&b.orders, "key-4999"), b.orders.list[4999]);
    ck_assert_ptr_null(saga_slots_find(&b.orders, "key-5000"));
    saga_batch_reset(&b);
    ck_assert_ptr_null(saga_slots_find(&b.orders, "key-1"));
}
END_TEST

/* Shared rows are those that the hook names; a row that is not known yet is asked for. */
START_TEST(hook_names_shared_rows)
{
    struct counter given = {.row = {.key = "a", .stored = true}};

    add_to("a", 1);
    add_to("b", 1);
    saga_slots_find(&b.orders, "a")->row = &given;
    saga_batch_name(&b);
    ck_assert_int_eq(b.shared.n, 1);
    ck_assert(!saga_slots_find(&b.orders, "a")->names_more);
    ck_assert(saga_slots_find(&b.orders, "b")->names_more);
}
END_TEST

/* ---- Inputs ---- */

static struct saga_out *waking_at(int64_t due, const char *cause)
{
    struct counter *row = saga_arena_zero(&b.arena, sizeof *row);

    row->row = (struct saga_row){.key = "a", .stored = true, .due = due, .cause = cause};
    input(SAGA_IN_DUE, &saga_due, "a");
    saga_slots_find(&b.orders, "a")->row = row;
    ck_assert_int_eq(decide(), 0);
    return b.out;
}

/* What is due runs, with the row's cause, and is not due any more; */
START_TEST(due_runs)
{
    waking_at(NOW, "1.2.3");
    ck_assert_int_eq(ran, 1);
    ck_assert_ptr_nonnull(strstr(value_of(0), "\"causationid\":\"1.2.3\""));
    ck_assert(saga_slots_find(&b.orders, "a")->changed);
}
END_TEST

/* what is due later, or was settled meanwhile, does not. */
START_TEST(due_is_skipped)
{
    waking_at(NOW + 1, NULL);
    waking_at(0, NULL);
    ck_assert_int_eq(ran, 0);
    ck_assert_int_eq(b.out_n, 0);
    ck_assert(!saga_slots_find(&b.orders, "a")->changed);
}
END_TEST

/* What an answer leads to has the cause of what asked for it, however many answers come. */
START_TEST(answers_keep_the_cause)
{
    static const struct number one = {1};

    add_to("a", 1);
    input(SAGA_IN_ANSWER, &add, "a")->data = &one;
    input(SAGA_IN_ANSWER, &add, "a")->data = &one;
    ck_assert_int_eq(decide(), 0);
    ck_assert_int_eq(b.out_n, 3);
    for (int i = 0; i < 3; i++) {
        ck_assert_ptr_nonnull(strstr(value_of(i), "\"causationid\":\"1.5.7\""));
        ck_assert_ptr_nonnull(strstr(value_of(i), "\"traceparent\":\"trace\""));
    }
}
END_TEST

/* An impossible cell stops the batch there and is named. */
START_TEST(impossible_stops)
{
    struct saga_err err = {0};

    add_to("a", 1);
    input(SAGA_IN_EVENT, &never, "b");
    add_to("c", 1);
    saga_batch_name(&b);
    ck_assert_int_eq(saga_batch_decide(&b, NOW, &err), SAGA_POISON);
    ck_assert_int_eq(ran, 1);
    ck_assert_ptr_eq(b.impossible, &b.in[1]);
    ck_assert_str_eq(err.text, "Never of order b is impossible in state NONE");
    b.in[1].rule = saga_rule_of(&service, look.type);
    ck_assert_int_eq(decide(), 0);
    ck_assert_ptr_null(b.impossible);
    ck_assert_int_eq(ran, 3);
}
END_TEST

/* A parked input is not decided, nor is any later one of its order; earlier ones and other orders
 * are. */
START_TEST(parked_is_not_decided)
{
    struct saga_err err = {0};

    add_to("b", 1);
    input(SAGA_IN_EVENT, &never, "a");
    add_to("a", 1);
    add_to("b", 1);
    saga_batch_name(&b);
    ck_assert_int_eq(saga_batch_decide(&b, NOW, &err), SAGA_POISON);
    saga_batch_park(&b, b.impossible, err.text);
    ck_assert_int_eq(decide(), 0);
    for (int i = 0; i < b.n; i++)
        ck_assert_int_eq(b.in[i].kind == SAGA_IN_PARKED, i == 1 || i == 2);
    ck_assert_str_eq(b.in[1].reason, "Never of order a is impossible in state NONE");
    ck_assert_str_eq(b.in[2].reason, "its order is parked");
    ck_assert_int_eq(ran, 1 + 2);
}
END_TEST

/* ---- What goes out ---- */

static const char *header_of(const struct saga_out *out, const char *name)
{
    const char *value = NULL;

    for (int i = 0; i < out->headers_n; i++)
        if (!strcmp(out->headers[i].name, name)) {
            ck_assert_ptr_null(value);
            value = saga_arena_text(&b.arena, out->headers[i].value, out->headers[i].n);
        }
    return value;
}

static struct saga_out *put(enum saga_kind kind, struct saga_record *record)
{
    struct saga_in *in = saga_batch_add(&b, kind, 1);

    in->record = record;
    in->key = kind == SAGA_IN_FORWARD ? "ord-1" : NULL;
    in->reason = "unreadable";
    in->detail = "why";
    ck_assert_int_eq(decide(), 0);
    return &b.out[b.out_n - 1];
}

/* Events form a chain; a forward and a dead letter take a number and no place in it. */
START_TEST(events_form_a_chain)
{
    static struct saga_record record = {.topic = "counter.requests", .value = "{}", .value_n = 2};

    add_to("a", 1);
    put(SAGA_IN_FORWARD, &record);
    add_to("a", 1);
    ck_assert_int_eq(decide(), 0);
    ck_assert_int_eq(b.out_n, 3);
    ck_assert_ptr_nonnull(strstr(value_of(0), "\"id\":\"1.41.7\""));
    ck_assert_ptr_nonnull(strstr(value_of(0), "\"previousid\":\"1.39.6\""));
    ck_assert_ptr_nonnull(strstr(value_of(0), "\"causationid\":\"1.5.7\""));
    ck_assert_ptr_nonnull(strstr(value_of(0), "\"traceparent\":\"trace\""));
    ck_assert_int_eq(b.out[1].seq, 42);
    ck_assert_int_eq(b.out[1].own.seq, 0);
    ck_assert_ptr_nonnull(strstr(value_of(2), "\"id\":\"1.43.7\""));
    ck_assert_ptr_nonnull(strstr(value_of(2), "\"previousid\":\"1.41.7\""));
    ck_assert_str_eq(b.out[0].topic, "counter.events");
    ck_assert_int_eq(b.out[0].partition, 1);
    ck_assert_int_eq(b.wrote[1].last_seq, 43);
    ck_assert_int_eq(b.wrote[1].last.seq, 43);
    ck_assert_int_eq(b.wrote[0].last_seq, 40);
}
END_TEST

/* A forward goes to its order's lane with the order's key, the same headers, and ours in the place
 * of any that claimed to be. */
START_TEST(forward_row)
{
    const struct saga_header headers[] = {
        {"x", "1", 1}, {"forwarded-id", "forged", 6}, {"forwarded-from", "forged", 6}};
    struct saga_record record = {.topic = "counter.requests",
                                 .partition = 1,
                                 .offset = 88,
                                 .value = "{\"type\":\"Add\"}",
                                 .value_n = 14,
                                 .headers = headers,
                                 .headers_n = 3};
    const struct saga_out *out = put(SAGA_IN_FORWARD, &record);

    ck_assert_str_eq(out->topic, "counter.requests");
    ck_assert_int_eq(out->partition, saga_lane_of("ord-1", 5, LANES));
    ck_assert_int_eq(out->lane, 1);
    ck_assert_uint_eq(out->key_n, 5);
    ck_assert_str_eq(value_of(0), "{\"order_id\":\"ord-1\",\"type\":\"Add\"}");
    ck_assert_int_eq(out->headers_n, 3);
    ck_assert_str_eq(header_of(out, "x"), "1");
    ck_assert_str_eq(header_of(out, "forwarded-id"), HISTORY "/1.41.7");
    ck_assert_str_eq(header_of(out, "forwarded-from"), "counter.requests/1/88");
}
END_TEST

/* A dead letter keeps key, value and headers, and says where it stood and why, itself. */
START_TEST(dead_letter_row)
{
    const struct saga_header headers[] = {{"dlq-topic", "y", 1}, {"x", "1", 1}, {"null", NULL, 0}};
    struct saga_record record = {.topic = "order.events",
                                 .partition = 1,
                                 .offset = 88,
                                 .time_ms = 99,
                                 .key = "k",
                                 .key_n = 1,
                                 .value = "rubbish",
                                 .value_n = 7,
                                 .headers = headers,
                                 .headers_n = 3};
    const struct saga_out *out = put(SAGA_IN_DEAD, &record);

    ck_assert_str_eq(out->topic, "counter.dlq");
    ck_assert_int_eq(out->partition, 1);
    ck_assert_str_eq(out->key, "k");
    ck_assert_str_eq(value_of(0), "rubbish");
    ck_assert_int_eq(out->headers_n, 2 + 8);
    ck_assert_ptr_null(out->headers[1].value);
    ck_assert_str_eq(header_of(out, "dlq-id"), "1.41.7");
    ck_assert_str_eq(header_of(out, "dlq-topic"), "order.events");
    ck_assert_str_eq(header_of(out, "dlq-partition"), "1");
    ck_assert_str_eq(header_of(out, "dlq-offset"), "88");
    ck_assert_str_eq(header_of(out, "dlq-time"), "99");
    ck_assert_str_eq(header_of(out, "dlq-service"), "counter-svc");
    ck_assert_str_eq(header_of(out, "dlq-reason"), "unreadable");
    ck_assert_str_eq(header_of(out, "dlq-detail"), "why");
    ck_assert_ptr_null(header_of(out, "dlq-truncated"));
}
END_TEST

/* A tombstone stays one. */
START_TEST(dead_tombstone)
{
    struct saga_record record = {.topic = "order.events"};
    const struct saga_out *out = put(SAGA_IN_DEAD, &record);

    size_t n;

    ck_assert_ptr_null(saga_out_value(&b.values, out, &n));
    ck_assert_uint_eq(n, 0);
    ck_assert_ptr_null(out->key);
    ck_assert_uint_eq(b.values.n, 0);
}
END_TEST

/* An empty value is none of these, also in a batch that writes nothing else. */
START_TEST(dead_empty_value)
{
    struct saga_record record = {.topic = "order.events", .value = ""};
    size_t n;

    saga_buf_free(&b.values);
    const struct saga_out *out = put(SAGA_IN_DEAD, &record);
    ck_assert_ptr_null(b.values.at);
    ck_assert_ptr_nonnull(saga_out_value(&b.values, out, &n));
    ck_assert_uint_eq(n, 0);
}
END_TEST

/* However large the record, its dead letter fits: 256 KiB of value and of key, 16 KiB of headers. */
START_TEST(dead_letter_limits)
{
    static char much[256 * KIB + 1];
    static struct saga_header many[600000] = {{.name = ""}, {.name = ""}};
    struct saga_header headers[] = {{"12345678", much, 16 * KIB - 8}, {"more", much, 1}};
    struct saga_record record = {.topic = "order.events",
                                 .key = much,
                                 .value = much,
                                 .value_n = 256 * KIB,
                                 .headers = headers,
                                 .headers_n = 1};
    const struct saga_out *out;

    out = put(SAGA_IN_DEAD, &record);
    ck_assert_uint_eq(out->n, 256 * KIB);
    ck_assert_int_eq(out->headers_n, 1 + 8);
    ck_assert_ptr_null(header_of(out, "dlq-truncated"));
    record.value_n++;
    record.key_n = 256 * KIB + 1;
    out = put(SAGA_IN_DEAD, &record);
    ck_assert_uint_eq(out->n, 256 * KIB);
    ck_assert_uint_eq(out->key_n, 256 * KIB);
    ck_assert_str_eq(header_of(out, "dlq-truncated"), "true");
    record.value_n = 1;
    headers[0].n++;
    out = put(SAGA_IN_DEAD, &record);
    ck_assert_ptr_null(header_of(out, "12345678"));
    ck_assert_str_eq(header_of(out, "dlq-truncated"), "true");
    headers[0].n--;
    record.headers_n = 2;
    out = put(SAGA_IN_DEAD, &record);
    ck_assert_ptr_nonnull(header_of(out, "12345678"));
    ck_assert_ptr_null(header_of(out, "more"));
    for (record.headers = many; record.headers_n < 600000; record.headers_n++)
        many[record.headers_n].name = ""; /* of nothing, too, there may be too much */
    ck_assert_int_eq(put(SAGA_IN_DEAD, &record)->headers_n, SAGA_HEADERS_MANY + 9);
}
END_TEST

/* What an outside call carries is its own, and is not the row's when that changes again. */
START_TEST(calls_are_copies)
{
    add_to("a", 4);
    ck_assert_int_eq(decide(), 0);
    ck_assert_int_eq(b.call_n, 1);
    ck_assert_str_eq(b.call[0].key, "a");
    ck_assert_ptr_eq(b.call[0].call, &call_out);
    ck_assert_ptr_ne(b.call[0].data, b.in[0].data);
    ck_assert_int_eq(((const struct number *)b.call[0].data)->n, 4);
}
END_TEST

/* Doubling, no longer than the longest, up to a quarter less; the same for the same key and try. */
START_TEST(backoff_doubles)
{
    static const int64_t upper[] = {200000, 400000, 800000, 1600000, 3200000};
    bool differs = false;

    for (int i = 0; i < 5; i++) {
        int64_t wait = saga_backoff("a", i + 1, 200000, 60 * SECOND);
        ck_assert_int_le(wait, upper[i]);
        ck_assert_int_ge(wait, upper[i] - upper[i] / 4);
        ck_assert_int_eq(wait, saga_backoff("a", i + 1, 200000, 60 * SECOND));
        differs |= wait != saga_backoff("b", i + 1, 200000, 60 * SECOND);
    }
    ck_assert(differs);
    ck_assert_int_le(saga_backoff("a", 1000000000, 200000, 60 * SECOND), 60 * SECOND);
    ck_assert_int_ge(saga_backoff("a", 1000000000, 200000, 60 * SECOND), 45 * SECOND);
}
END_TEST

Suite *batch_suite(void)
{
    const TTest *const tests[] = {row_is_copied_before_its_first_change,
                                  decided_twice_is_the_same,
                                  rows_are_made_and_kept,
                                  append_leaves_the_old_list,
                                  slots_grow,
                                  hook_names_shared_rows,
                                  due_runs,
                                  due_is_skipped,
                                  answers_keep_the_cause,
                                  impossible_stops,
                                  parked_is_not_decided,
                                  events_form_a_chain,
                                  forward_row,
                                  dead_letter_row,
                                  dead_tombstone,
                                  dead_empty_value,
                                  dead_letter_limits,
                                  calls_are_copies,
                                  backoff_doubles};
    Suite *suite = suite_create("batch");
    TCase *t = tcase_create("batch");

    tcase_add_checked_fixture(t, start, stop);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(suite, t);
    return suite;
}
