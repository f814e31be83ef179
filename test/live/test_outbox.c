/* The outbox's two tables against a real PostgreSQL, in a schema of its own: rows that are not in Kafka
 * are never truncated, whoever writes or turns at the same time, and are read back whole and in order. */
#include "outbox.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "db.h"
#include "proc.h"
#include "suites.h"
#include "test.h"

enum { LANES = 2, MANY = 150, PATIENCE = 10, NEVER = INT32_MAX };

static char schema[40];
static struct db *db;
static struct saga_pg *pg;

static struct db *session(void)
{
    struct db *s = db_new(NULL);

    db_run(s, "set search_path = %s", schema);
    return s;
}

static void start(void)
{
    snprintf(schema, sizeof schema, "outbox_test_%ld", (long)getpid());
    db = db_new(NULL);
    db_run(db, "create schema %s", schema);
    db_run(db, "set search_path = %s", schema);
    db_run(db, "%s", shell("cat libsaga/sql/*.sql"));
    db_run(db, "insert into lane (lane) select generate_series(0, %d)", LANES - 1);
    pg = saga_pg_new("", "outbox-test", schema);
    struct saga_err err = {0};
    ck_assert_int_eq(saga_pg_connect(pg, &err), 0);
}

static void stop(void)
{
    saga_pg_free(pg);
    db_run(db, "drop schema %s cascade", schema);
    db_free(db);
}

/* ---- Writing, as batches do ---- */

static const char *const own = "order.events";

/* Inserts a batch of one row, without COMMIT if s is in a transaction. */
static void insert(struct db *s, int slot, int lane, int64_t seq, const char *topic)
{
    const char *value =
        text("'{\"specversion\":\"1.0\",\"id\":\"%d.%lld.7\"}'::bytea", lane, (long long)seq);

    db_run(s,
           "insert into outbox_%d (created_at, lane, seq, topic, partition, key, value, headers)"
           " values (now(), array[%d], array[%lld], array['%s'], array[%d], array['k'::bytea],"
           "         array[%s], array[null::bytea])",
           slot, lane, (long long)seq, topic, lane, value);
    db_run(s, "update lane set last_seq = %lld where lane = %d", (long long)seq, lane);
}

static void published(int lane, int64_t seq)
{
    db_run(db, "update lane set published = %lld where lane = %d", (long long)seq, lane);
}

static int rows_in(int slot)
{
    return (int)db_int(db, "select count(*) from outbox_%d", slot);
}

static int current(void)
{
    return (int)db_int(db, "select slot from outbox_current");
}

/* -> whether it has turned */
static bool rotate(int64_t keep, int64_t bytes)
{
    struct saga_err err = {0};
    int rc = saga_outbox_rotate(pg, keep, bytes, &(struct saga_outbox_table){0}, &err);

    ck_assert_msg(rc >= 0, "%s", err.text);
    return rc == 1;
}

static bool turn(void)
{
    return rotate(0, NEVER);
}

/* ---- Rotation ---- */

/* The tables take turns: the one that was left is empty when it is current again. Not before its time,
 * or its size. */
START_TEST(the_tables_take_turns)
{
    insert(db, 0, 0, 1, own);
    published(0, 1);
    ck_assert(!rotate(INT64_C(3600000000), NEVER));
    ck_assert(rotate(INT64_C(3600000000), 1));
    ck_assert_int_eq(current(), 1);
    ck_assert_int_eq(rows_in(0), 1);
    insert(db, 1, 0, 2, own);
    published(0, 2);
    ck_assert(turn());
    ck_assert_int_eq(current(), 0);
    ck_assert_int_eq(rows_in(0), 0);
    ck_assert_int_eq(rows_in(1), 1);
}
END_TEST

/* Attack 38: while a lane cannot publish, its rows stay where they are, however old; others go on. */
START_TEST(what_is_not_published_stays)
{
    insert(db, 0, 1, 1, own); /* that lane; its row is far from the newest of the table */
    for (int seq = 1; seq <= MANY; seq++)
        insert(db, 0, 0, seq, own);
    ck_assert(turn());
    insert(db, 1, 0, MANY + 1, own);
    published(0, MANY + 1);
    ck_assert(!turn());
    ck_assert_int_eq(current(), 1);
    ck_assert_int_eq(rows_in(0), 1 + MANY);
    published(1, 1);
    ck_assert(turn());
    ck_assert_int_eq(rows_in(0), 0);
}
END_TEST

/* Attack 37: a batch that was open at the turn writes into the table that was left. Its rows count as
 * the others do: not while they are not committed, and not before they are published. */
START_TEST(rows_of_a_batch_open_at_the_turn_stay)
{
    struct db *batch = session();

    insert(db, 0, 0, 1, own);
    published(0, 1);
    db_run(batch, "begin");
    ck_assert_int_eq(db_int(batch, "select slot from outbox_current"), 0);
    ck_assert(turn());
    insert(batch, 0, 1, 1, own);
    ck_assert(!turn()); /* it waits for the lock only so long */
    db_run(batch, "commit");
    ck_assert(!turn());
    ck_assert_int_eq(rows_in(0), 2);
    published(1, 1);
    ck_assert(turn());
    ck_assert_int_eq(rows_in(0), 0);
    db_free(batch);
}
END_TEST

/* One that has written and not committed is waited for: nobody would know of its rows. */
START_TEST(no_turn_beside_a_batch_that_has_written)
{
    struct db *batch = session();

    db_run(batch, "begin");
    insert(batch, 0, 1, 1, own);
    ck_assert(!turn());
    db_run(batch, "commit");
    ck_assert(turn());
    ck_assert(!turn()); /* it is not published */
    ck_assert_int_eq(rows_in(0), 1);
    db_free(batch);
}
END_TEST

static void *turn_at_once(void *turned)
{
    *(bool *)turned = turn();
    return NULL;
}

/* Two processes turn at the same time: the one that had to wait finds that the table which it was to
 * empty has become the current one, and leaves it alone. */
START_TEST(the_current_table_is_not_emptied)
{
    struct db *other = session();
    pthread_t thread;
    bool turned = true;

    db_run(other, "begin; update outbox_current set slot = 1, since = now() - interval '1h'");
    insert(other, 1, 0, 1, own);
    db_run(other, "update lane set published = 1 where lane = 0");
    ck_assert_int_eq(pthread_create(&thread, NULL, turn_at_once, &turned), 0);
    AWAIT(PATIENCE, db_int(db, "select count(*) from pg_stat_activity where application_name = "
                               "'outbox-test' and wait_event_type = 'Lock'") == 1);
    db_run(other, "commit");
    pthread_join(thread, NULL);
    ck_assert(!turned);
    ck_assert_int_eq(current(), 1);
    ck_assert_int_eq(rows_in(1), 1);
    db_free(other);
}
END_TEST

/* ---- Reading back ---- */

static struct {
    int64_t seq;
    struct saga_id own;
} sent[200];
static int sent_n;
static const struct saga_header *headers;
static int headers_n;

static void take(void *owner, const struct saga_delivery *d, struct saga_id id)
{
    (void)owner;
    ck_assert_int_eq(d->lane, 0);
    ck_assert_int_eq(d->partition, 0);
    sent[sent_n].seq = d->seq;
    sent[sent_n++].own = id;
    ck_assert_int_eq(d->headers_n, headers_n);
    ck_assert((d->value == NULL) == (headers_n > 0)); /* here tombstones alone have headers */
    for (int i = 0; i < headers_n; i++) {
        ck_assert_str_eq(d->headers[i].name, headers[i].name);
        ck_assert((d->headers[i].value == NULL) == (headers[i].value == NULL));
        ck_assert_uint_eq(d->headers[i].n, headers[i].n);
        ck_assert(!headers[i].n || !memcmp(d->headers[i].value, headers[i].value, headers[i].n));
    }
}

static int read_back(int64_t above, int64_t last)
{
    struct saga_err err = {0};

    sent_n = 0;
    return saga_outbox_read(pg, 0, above, last, own, take, NULL, &err);
}

/* What is above published comes back, of this lane only, in order, whichever table is the older one and
 * in however many batches it stands; with its ids, which dead letters have not. */
START_TEST(what_is_not_published_is_read_back)
{
    for (int older = 0; older < 2; older++) {
        db_run(db, "truncate outbox_0; truncate outbox_1");
        for (int seq = 1; seq <= 100; seq++)
            insert(db, seq <= 60 ? older : !older, 0, seq, seq % 10 ? own : "order.dlq");
        for (int slot = 0; slot < 2; slot++) /* each batch has rows of the other lane, too */
            db_run(db,
                   "update outbox_%d set lane = array[1] || lane, seq = seq[1] || seq, topic = "
                   "array['x'] || topic,"
                   " partition = array[1] || partition, key = key[1] || key, value = value[1] || "
                   "value,"
                   " headers = array[null, null]::bytea[]",
                   slot);
        ck_assert_int_eq(read_back(10, 100), 90);
        ck_assert_int_eq(sent_n, 90);
        for (int i = 0; i < 90; i++) {
            ck_assert_int_eq(sent[i].seq, 11 + i);
            ck_assert_int_eq(sent[i].own.seq, sent[i].seq % 10 ? sent[i].seq : 0);
            ck_assert_int_eq(sent[i].own.term, sent[i].seq % 10 ? 7 : 0);
        }
        ck_assert_int_eq(read_back(100, 100), 0);
        ck_assert_int_eq(read_back(99, 100), 1);
    }
}
END_TEST

/* Nothing is sent as if it were all: a row that is missing, at whichever end, is an error. */
START_TEST(a_missing_row_is_an_error)
{
    for (int seq = 1; seq <= 5; seq++)
        insert(db, 0, 0, seq, own);
    ck_assert_int_eq(read_back(0, 5), 5);
    ck_assert_int_eq(read_back(0, 6), SAGA_FATAL);
    db_run(db, "delete from outbox_0 where seq = array[1::bigint]");
    ck_assert_int_eq(read_back(0, 5), SAGA_FATAL);
    ck_assert_int_eq(read_back(1, 5), 4);
    db_run(db, "delete from outbox_0 where seq = array[3::bigint]");
    ck_assert_int_eq(read_back(1, 5), SAGA_FATAL);
    ck_assert_int_eq(sent_n, 1); /* what stands behind it is not sent */
}
END_TEST

/* A tombstone's dead letter, with headers, one of them null, comes back as it was stored by a batch. */
START_TEST(headers_and_nulls_come_back)
{
    static const struct saga_header all[] = {
        {"a", "1", 1}, {"empty", "", 0}, {"null", NULL, 0}, {"b", "23", 2}};
    struct saga_out out = {.lane = 0,
                           .seq = 1,
                           .topic = "order.dlq",
                           .partition = 0,
                           .n = SIZE_MAX,
                           .headers = all,
                           .headers_n = 4};
    struct saga_batch batch = {.out = &out, .out_n = 1, .now = 1795513885123456};
    struct saga_params p = {0};
    struct saga_err err = {0};

    ck_assert_int_eq(saga_outbox_store(pg, &batch, 1, &p, &err), 0);
    ck_assert_int_eq(saga_pg_sync(pg, &err), 0);
    ck_assert_int_eq(saga_pg_wait(pg, &err), 0);
    saga_params_free(&p);
    ck_assert_int_eq(rows_in(1), 1);
    db_run(db, "update lane set last_seq = 1 where lane = 0");
    headers = all;
    headers_n = 4;
    ck_assert_int_eq(read_back(0, 1), 1);
    ck_assert_int_eq(sent_n, 1);
    headers_n = 0;
}
END_TEST

/* A command of the operator sends what is not published, whatever it is, and says where there is nothing. */
START_TEST(a_letter_alone_is_sent_again)
{
    struct saga_outbox_back back = {.offset = -1};
    struct saga_err err = {0};

    insert(db, 0, 0, 1, "order.dlq");
    int64_t term = db_int(db, "select term from lane where lane = 0");
    ck_assert_int_eq(saga_outbox_set_back(pg, 0, own, 0, &back, &err), 1);
    ck_assert_int_eq(back.published, 0);
    ck_assert_int_gt(back.term, term);
    ck_assert_int_eq(db_int(db, "select term from lane where lane = 0"), back.term);
    published(0, 1);
    ck_assert_int_eq(saga_outbox_set_back(pg, 0, own, 0, &back, &err), 0);
    ck_assert_int_eq(db_int(db, "select term from lane where lane = 0"), back.term);
}
END_TEST

/* What the database says to others does not make our commits less than durable. */
START_TEST(commits_are_durable)
{
    static const char *const said[][2] = {{"off", "on"}, {"remote_apply", "remote_apply"}};
    struct saga_err err = {0};

    for (int i = 0; i < 2; i++) {
        struct saga_rows *rows;
        struct saga_pg *other = saga_pg_new("", "outbox-test", schema);
        db_run(db, "alter role saga in database %s set synchronous_commit = %s",
               db_text(db, "select current_database()"), said[i][0]);
        ck_assert_int_eq(saga_pg_query(other, "show synchronous_commit", NULL, &rows, &err), 0);
        ck_assert_str_eq(saga_rows_text(rows, 0, 0), said[i][1]);
        saga_rows_free(rows);
        saga_pg_free(other);
    }
    db_run(db, "alter role saga in database %s reset synchronous_commit",
           db_text(db, "select current_database()"));
}
END_TEST

Suite *outbox_suite(void)
{
    Suite *s = suite_create("outbox");
    TCase *t = tcase_create("all");

    tcase_add_checked_fixture(t, start, stop);
    tcase_add_test(t, the_tables_take_turns);
    tcase_add_test(t, what_is_not_published_stays);
    tcase_add_test(t, rows_of_a_batch_open_at_the_turn_stay);
    tcase_add_test(t, no_turn_beside_a_batch_that_has_written);
    tcase_add_test(t, the_current_table_is_not_emptied);
    tcase_add_test(t, what_is_not_published_is_read_back);
    tcase_add_test(t, a_missing_row_is_an_error);
    tcase_add_test(t, headers_and_nulls_come_back);
    tcase_add_test(t, a_letter_alone_is_sent_again);
    tcase_add_test(t, commits_are_durable);
    suite_add_tcase(s, t);
    return s;
}
