/* What /livez, /readyz, /lanes and /metrics say of the engine. */
#include "http_stage.h"
#include "suites.h"

/* The loop may wait 30 s, not longer. Before its first turn it counts as alive. */
START_TEST(livez_follows_the_loop)
{
    turned_us = 0;
    ck_assert_int_eq(get("/livez"), 200);
    turned_us = monotonic_us() - 29000000;
    ck_assert_int_eq(get("/livez"), 200);
    turned_us = monotonic_us() - 30000001;
    ck_assert_int_eq(get("/livez"), 503);
    ck_assert_str_eq(answer, "engine: its loop has not turned for 30 s\n");
}
END_TEST

/* Ready: nothing is waited for, and every lane that is assigned is taken, at least one. */
START_TEST(readyz_needs_servers_and_lanes)
{
    ck_assert_int_eq(get("/readyz"), 200);
    ck_assert_str_eq(answer, "ready\n");
    what_waits = "database: connection refused";
    ck_assert_int_eq(get("/readyz"), 503);
    ck_assert_str_eq(answer, "not ready: database: connection refused\n");
    what_waits = NULL;
    lanes_n = 2;
    lane[1] = (struct saga_lane_view){.lane = 8, .state = "taking"};
    ck_assert_int_eq(get("/readyz"), 503);
    ck_assert_str_eq(answer, "not ready: lanes are being taken\n");
    lanes_n = 0;
    ck_assert_int_eq(get("/readyz"), 503);
    ck_assert_str_eq(answer, "not ready: no lane is assigned to this process\n");
}
END_TEST

/* A stopped lane does not take the others out of service, and is told with its command. */
START_TEST(readyz_tells_a_stopped_lane)
{
    lanes_n = 2;
    lane[1] = (struct saga_lane_view){
        .lane = 8, .state = "stopped", .why = "the database is behind: sagactl lane restart 8"};
    ck_assert_int_eq(get("/readyz"), 200);
    ck_assert_str_eq(answer, "ready, but 1 of 2 lanes are stopped: see /readyz?verbose\n");
    ck_assert_int_eq(get("/readyz?verbose"), 200);
    ck_assert_str_eq(answer, "[ok]   database and Kafka answer\n"
                             "[ok]   lanes: 2 of the 2 assigned here are taken; order has 12\n"
                             "[stop] lane 8: the database is behind: sagactl lane restart 8\n"
                             "ready, but 1 of 2 lanes are stopped: see /readyz?verbose\n");
}
END_TEST

/* Nor does one whose partition does not answer, unless it is the only one. */
START_TEST(readyz_tells_a_lost_lane)
{
    lanes_n = 2;
    lane[1] = (struct saga_lane_view){.lane = 8, .state = "lost", .why = "8 has no leader"};
    ck_assert_int_eq(get("/readyz?verbose"), 200);
    ck_assert_str_eq(answer, "[ok]   database and Kafka answer\n"
                             "[ok]   lanes: 1 of the 2 assigned here are taken; order has 12\n"
                             "[note] lane 8 lost: 8 has no leader\n"
                             "ready, but 1 of 2 lanes are lost: see /readyz?verbose\n");
    lane[0] = (struct saga_lane_view){.lane = 7, .state = "stopped", .why = "why"};
    ck_assert_int_eq(get("/readyz"), 503);
    lane[0] = lane[1];
    ck_assert_int_eq(get("/readyz"), 503);
}
END_TEST

/* Each lane with its inputs; what is not known is null, not a number. */
START_TEST(lanes_as_json)
{
    lane[0] = (struct saga_lane_view){.lane = 7,
                                      .term = 5,
                                      .last_seq = 9,
                                      .published = 8,
                                      .inputs = 2,
                                      .state = "running",
                                      .input = {{.topic = "order.events",
                                                 .next_offset = 3,
                                                 .end_offset = 10,
                                                 .held = -1,
                                                 .last_id = "7.1.2"},
                                                {.topic = "payment.events",
                                                 .next_offset = 4,
                                                 .end_offset = -1,
                                                 .held = 6,
                                                 .stopped = true}}};
    ck_assert_int_eq(get("/lanes"), 200);
    ck_assert_str_eq(
        answer,
        "{\"service\":\"order-svc\",\"total\":12,\"lanes\":[{\"lane\":7,\"state\":\"running\","
        "\"why\":null,"
        "\"term\":5,\"last_seq\":9,\"published\":8,\"unpublished_bytes\":0,\"inputs\":["
        "{\"topic\":\"order.events\",\"next_offset\":3,\"end_offset\":10,\"lag\":7,\"held\":null,"
        "\"last_id\":\"7.1.2\",\"stopped\":false,\"why\":null},"
        "{\"topic\":\"payment.events\",\"next_offset\":4,\"end_offset\":null,\"lag\":null,\"held\":"
        "6,"
        "\"last_id\":null,\"stopped\":true,\"why\":null}]}]}\n");
}
END_TEST

/* Metrics have Prometheus' content type, and count the requests themselves: by the route, whatever is
 * asked. */
START_TEST(metrics_are_prometheus)
{
    get("/livez");
    get("/api/v1/orders/a");
    get("/api/v1/orders/b");
    get("/nowhere");
    ck_assert_int_eq(get("/metrics"), 200);
    ck_assert_ptr_nonnull(
        strstr(answer, "{route=\"/api/v1/orders/{id}\",method=\"GET\",status=\"200\"} 2\n"));
    ck_assert_ptr_nonnull(strstr(answer, "{route=\"none\",method=\"any\",status=\"404\"} 1\n"));
    ck_assert_ptr_null(strstr(answer, "nowhere"));
    ck_assert(has_header("Content-Type: text/plain; version=0.0.4"));
    ck_assert_ptr_nonnull(strstr(
        answer, "\nsaga_http_requests_total{route=\"/livez\",method=\"GET\",status=\"200\"} 1\n"));
    ck_assert_ptr_nonnull(
        strstr(answer, "\nsaga_http_request_seconds_count{route=\"/livez\",method=\"GET\"} 1\n"));
    ck_assert_ptr_nonnull(strstr(answer, "\nsaga_http_connections 1\n"));
}
END_TEST

Suite *health_suite(void)
{
    Suite *s = suite_create("health");
    TCase *t = tcase_create("health");
    tcase_add_checked_fixture(t, stage_start, stage_stop);
    tcase_set_timeout(t, 30);
    tcase_add_test(t, livez_follows_the_loop);
    tcase_add_test(t, readyz_needs_servers_and_lanes);
    tcase_add_test(t, readyz_tells_a_stopped_lane);
    tcase_add_test(t, readyz_tells_a_lost_lane);
    tcase_add_test(t, lanes_as_json);
    tcase_add_test(t, metrics_are_prometheus);
    suite_add_tcase(s, t);
    return s;
}
