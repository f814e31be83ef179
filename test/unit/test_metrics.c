/* The metrics as Prometheus reads them: text compared whole, because its parser forgives nothing.
 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "suites.h"

/* Everything printed; the static memory of cells is the process's, so each test runs in its fork.
 */
static const char *printed(void)
{
    static struct saga_buf out;
    out.n = 0;
    saga_metrics_write(&out);
    saga_buf_add(&out, "", 1);
    return out.at;
}

/* A name is introduced once, with its kind by its ending, and its cells stand together even if
 * another name was made between them. */
START_TEST(cells_of_a_name_stand_together)
{
    saga_count(saga_metric("saga_events_total", "topic=\"a\"", "Events read"), 3);
    saga_gauge(saga_metric("saga_lanes", "", "Lanes taken"), 12);
    saga_count(saga_metric("saga_events_total", "topic=\"b\"", "Events read"), 4);
    ck_assert_str_eq(printed(), "# HELP saga_events_total Events read\n"
                                "# TYPE saga_events_total counter\n"
                                "saga_events_total{topic=\"a\"} 3\n"
                                "saga_events_total{topic=\"b\"} 4\n"
                                "# HELP saga_lanes Lanes taken\n"
                                "# TYPE saga_lanes gauge\n"
                                "saga_lanes 12\n");
}
END_TEST

/* The same name and labels are the same cell, wherever they are asked for. */
START_TEST(same_labels_same_cell)
{
    saga_cell_t *one = saga_metric("saga_x_total", "lane=\"1\"", "x");
    ck_assert_ptr_eq(one, saga_metric("saga_x_total", "lane=\"1\"", "x"));
    ck_assert_ptr_ne(one, saga_metric("saga_x_total", "lane=\"2\"", "x"));
}
END_TEST

/* What is kept in microseconds is printed in seconds, exactly. */
START_TEST(seconds_are_seconds)
{
    saga_gauge(saga_metric("saga_age_seconds", "", "Age"), 1500001);
    saga_count(saga_metric("saga_busy_seconds_total", "", "Busy"), 250);
    ck_assert_ptr_nonnull(strstr(printed(), "\nsaga_age_seconds 1.500001\n"));
    ck_assert_ptr_nonnull(strstr(printed(), "\nsaga_busy_seconds_total 0.00025\n"));
}
END_TEST

/* Buckets are cumulative, a value on a bound belongs to it, one above all to +Inf alone. */
START_TEST(histogram_counts_upward)
{
    static const int64_t bounds[] = {1000, 10000, 0};
    struct saga_histogram *h =
        saga_histogram("saga_batch_seconds", "kind=\"x\"", "Batches", bounds);
    saga_observe(h, 1000);
    saga_observe(h, 1001);
    saga_observe(h, 20000);
    ck_assert_str_eq(printed(), "# HELP saga_batch_seconds Batches\n"
                                "# TYPE saga_batch_seconds histogram\n"
                                "saga_batch_seconds_bucket{kind=\"x\",le=\"0.001\"} 1\n"
                                "saga_batch_seconds_bucket{kind=\"x\",le=\"0.01\"} 2\n"
                                "saga_batch_seconds_bucket{kind=\"x\",le=\"+Inf\"} 3\n"
                                "saga_batch_seconds_sum{kind=\"x\"} 0.022001\n"
                                "saga_batch_seconds_count{kind=\"x\"} 3\n");
}
END_TEST

/* Without labels a histogram has only le, and sizes are printed as they are. */
START_TEST(histogram_without_labels)
{
    static const int64_t bounds[] = {1, 0};
    saga_observe(saga_histogram("saga_batch_records", "", "Records", bounds), 5);
    ck_assert_ptr_nonnull(strstr(printed(), "saga_batch_records_bucket{le=\"1\"} 0\n"
                                            "saga_batch_records_bucket{le=\"+Inf\"} 1\n"
                                            "saga_batch_records_sum 5\n"
                                            "saga_batch_records_count 1\n"));
}
END_TEST

static void *count_a_lot(void *cell)
{
    for (int i = 0; i < 100000; i++)
        saga_count(cell, 1);
    return NULL;
}

/* No count is lost between threads. */
START_TEST(threads_lose_nothing)
{
    saga_cell_t *cell = saga_metric("saga_many_total", "", "Many");
    pthread_t other;
    ck_assert_int_eq(pthread_create(&other, NULL, count_a_lot, cell), 0);
    count_a_lot(cell);
    pthread_join(other, NULL);
    ck_assert_int_eq(*cell, 200000);
}
END_TEST

Suite *metrics_suite(void)
{
    Suite *s = suite_create("metrics");
    TCase *t = tcase_create("metrics");
    tcase_add_test(t, cells_of_a_name_stand_together);
    tcase_add_test(t, same_labels_same_cell);
    tcase_add_test(t, seconds_are_seconds);
    tcase_add_test(t, histogram_counts_upward);
    tcase_add_test(t, histogram_without_labels);
    tcase_add_test(t, threads_lose_nothing);
    suite_add_tcase(s, t);
    return s;
}
