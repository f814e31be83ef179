/* What HTTP bounds: sizes, times, connections and requests of one client; each limit at n and n + 1. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_stage.h"
#include "suites.h"

enum { TARGET_MAX = 4096, HEADERS_MAX = 8192, MS = 1000 /* us */, TURN = 1000 * MS };

/* ---- Sizes ---- */

/* Path and query of 4 KiB are taken, one byte more is 414. */
START_TEST(target_limit)
{
    static char path[TARGET_MAX + 2];
    memset(path, 'a', sizeof path - 1);
    memcpy(path, "/nowhere?", 9);
    path[TARGET_MAX] = '\0';
    ck_assert_int_eq(get(path), 404);
    path[TARGET_MAX] = 'a';
    ck_assert_int_eq(get(path), 414);
    is_problem(414, "path and query are over 4096 bytes");
}
END_TEST

/* Sends headers of n bytes in all, each line with its end, split into lines of at most part. */
static int ask_with_headers(int n, int part)
{
    static char request[2 * HEADERS_MAX];
    char *at = request + sprintf(request, "GET /api/v1/orders/a HTTP/1.1\r\n");
    at += sprintf(at, "Host: a\r\nConnection: close\r\n");
    for (int left = n - 9 - 19; left > 0;) {
        int line = left <= part || left - part < 8 ? left : part;
        at += sprintf(at, "X: %0*d\r\n", line - 5, 0);
        left -= line;
    }
    strcpy(at, "\r\n");
    return say(request);
}

/* Headers of 8 KiB in all are taken, one byte more is 431, as one long line and as many. */
START_TEST(headers_limit)
{
    static const int parts[] = {HEADERS_MAX, 100};
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(ask_with_headers(HEADERS_MAX, parts[i]), 200);
        ck_assert_int_eq(ask_with_headers(HEADERS_MAX + 1, parts[i]), 431);
        ck_assert_ptr_nonnull(strstr(answer, "the headers are over 8192 bytes"));
        ck_assert_ptr_nonnull(strstr(answer, "application/problem+json"));
    }
}
END_TEST

/* Far beyond, libmicrohttpd answers by itself, and the server goes on. */
START_TEST(headers_beyond_memory)
{
    static char line[40000];
    memset(line, 'a', sizeof line - 1);
    memcpy(line, "X: ", 3);
    header(line);
    ck_assert_int_eq(get("/livez"), 431);
    ck_assert_int_eq(get("/livez"), 200);
}
END_TEST

/* ---- Time ---- */

static bool is_ended(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

/* Sends bytes, one in 50 ms, until the connection is ended. -> us that it lasted */
static int64_t dribble(int fd, const char *bytes)
{
    int64_t began = monotonic_us();
    for (; !is_ended(fd) && monotonic_us() - began < 20 * TURN; bytes += bytes[1] != '\0') {
        send(fd, bytes, 1, MSG_NOSIGNAL);
        poll(NULL, 0, 50); /* the pace of the client */
    }
    close(fd);
    return monotonic_us() - began;
}

static int64_t counted(const char *line)
{
    ck_assert_int_eq(get("/metrics"), 200);
    const char *at = strstr(answer, line);
    return at ? atoll(at + strlen(line)) : -1;
}
#define CUT(why) counted("\nsaga_http_cut_total{why=\"" why "\"} ")

static void start_impatient(void)
{
    conf.http_request_timeout = 300 * MS;
    conf.http_idle_timeout = 900 * MS;
    stage_start();
}

static const char *const slow[] = {
    "", "GET /livez HTTP/1.1\r\nHost: a\r\nX: ",
    "POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"};

/* A request must be here in its time, whatever is sent meanwhile: nothing, headers or a body byte by
 * byte. */
START_TEST(slow_senders_are_cut)
{
    int fd = dial(slow[_i]);
    int64_t took = dribble(fd, "aaaa");
    ck_assert_int_ge(took, 250 * MS);
    ck_assert_int_lt(took, 300 * MS + 3 * TURN);
    ck_assert_int_eq(CUT("late"), 1);
}
END_TEST

/* A second request on a kept connection has its time, too. */
START_TEST(slow_second_request_is_cut)
{
    int fd = dial("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
    ck_assert(is_answered(fd));
    int64_t took = dribble(fd, "GET /livez HTTP/1.1\r\nHost: a\r\nX: aaaa");
    ck_assert_int_ge(took, 850 * MS);
    ck_assert_int_lt(took, 900 * MS + 3 * TURN);
}
END_TEST

/* A client that goes in the middle of a request takes its connection with it at once; one that only
 * says that nothing more comes is answered all the same. */
START_TEST(ends_are_seen)
{
    static const char part[] =
        "POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{";
    int fd = dial("");
    while (counted("\nsaga_http_connections ") < 2)
        ;
    setsockopt(fd, IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int)); /* both in one packet */
    ck_assert_int_eq(send(fd, part, sizeof part - 1, MSG_NOSIGNAL), sizeof part - 1);
    close(fd);
    int64_t began = monotonic_us();
    while (counted("\nsaga_http_connections ") > 1)
        ck_assert_int_lt(monotonic_us() - began, 8 * TURN);
    fd = dial("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
              "GET /api/v1/orders/a HTTP/1.1\r\nHost: a\r\n\r\n");
    shutdown(fd, SHUT_WR);
    pthread_mutex_unlock(&stage);
    ck_assert_int_eq(hear(fd), 200);
    pthread_mutex_lock(&stage);
    ck_assert_ptr_nonnull(strstr(answer, "{\"id\":\"a\""));
}
END_TEST

/* Who does not read its answer is cut: the rest of it never comes. */
START_TEST(slow_reader_is_cut)
{
    static char part[1 << 20];
    int64_t n = 0, got;
    int fd = dial("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    pthread_mutex_unlock(&stage);
    ck_assert_int_eq(recv(fd, part, 1, MSG_PEEK), 1); /* made, and not waited for by what follows */
    pthread_mutex_lock(&stage);
    int64_t began = monotonic_us();
    while (CUT("late") == 0 && monotonic_us() - began < 10 * TURN)
        poll(NULL, 0, 20);
    ck_assert_int_eq(CUT("late"), 1);
    while ((got = recv(fd, part, sizeof part, 0)) > 0)
        n += got;
    ck_assert_int_lt(n, LARGE);
    close(fd);
}
END_TEST

/* A handler's time is not the client's: who waits for an answer is not cut. */
START_TEST(who_waits_is_not_cut)
{
    int fd = dial("GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    await_waiting(1);
    int64_t began = monotonic_us();
    while (monotonic_us() - began < 3 * TURN) /* three times the longest limit */
        ck_assert_int_eq(get("/livez"), 200);
    open_gate();
    pthread_mutex_unlock(&stage);
    ck_assert_int_eq(hear(fd), 200);
    pthread_mutex_lock(&stage);
}
END_TEST

/* ---- How many ---- */

/* A client has no more connections than it may; when one ends there is room again. */
START_TEST(connections_of_a_client)
{
    conf.http_client_connections = 3;
    stage_start();
    ck_assert_int_eq(get("/livez"), 200); /* curl's, kept */
    int fd[2] = {dial(""), dial("")};
    while (counted("\nsaga_http_connections ") < 3)
        ;
    ck_assert_int_eq(say("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"), -1);
    ck_assert_int_eq(CUT("client_connections"), 1);
    close(fd[0]);
    while (counted("\nsaga_http_connections ") > 2)
        ;
    ck_assert_int_eq(say("GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 200);
    close(fd[1]);
    stage_stop();
}
END_TEST

/* Requests of a second at once, then 429 with a time; who waits may ask again. Probes are not
 * counted. */
START_TEST(rate_of_a_client)
{
    conf.http_client_rate = 2;
    stage_start();
    int64_t began = monotonic_us();
    ck_assert_int_eq(get("/api/v1/orders/a"), 200);
    ck_assert_int_eq(get("/nowhere"), 404);
    long third = get("/api/v1/orders/a");
    if (monotonic_us() - began < 500 * MS) { /* else a third is due */
        ck_assert_int_eq(third, 429);
        ck_assert(has_header("Retry-After: 1\r\n"));
        is_problem(429, "more requests per second than one client may make here");
    }
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(get("/livez"), 200);
    began = monotonic_us();
    while (get("/api/v1/orders/a") != 200)
        ck_assert_int_lt(monotonic_us() - began, 2 * TURN);
    stage_stop();
}
END_TEST

/* When all places are taken, who has kept one idle for longest makes room for who comes. */
START_TEST(idle_connections_make_room)
{
    enum { PLACES = 16 };
    int fd[PLACES];
    conf.http_connections = PLACES;
    stage_start();
    for (int i = 0; i < PLACES; i++) {
        fd[i] = dial("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
        ck_assert(is_answered(fd[i]));
    }
    ck_assert_int_eq(get("/livez"), 200);
    ck_assert(is_ended(fd[0]));
    ck_assert_int_ge(CUT("room"), 1);
    for (int i = 0; i < PLACES; i++)
        close(fd[i]);
    stage_stop();
}
END_TEST

static long resident_kb(void)
{
    char line[128];
    long kb = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmRSS:", 6) == 0)
            kb = atol(line + 6);
    fclose(f);
    return kb;
}

/* 1,000 that wait and 2,000 that keep an idle connection, and others are served meanwhile, in
 * bounded memory: 32 KB each. */
START_TEST(many_connections)
{
    enum { HELD = 1000, IDLE = 2000, KB_EACH = 32 };
    static int fd[HELD + IDLE];
    struct rlimit files = {2 * (HELD + IDLE) + 500,
                           2 * (HELD + IDLE) + 500}; /* both ends are ours */
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
    stage_start();
    long before = resident_kb();
    ck_assert_int_gt(before, 0);
    pthread_mutex_unlock(&stage); /* the server's thread comes to it */
    for (int i = 0; i < HELD; i++)
        fd[i] = dial("GET /later HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    pthread_mutex_lock(&stage);
    for (int i = HELD; i < HELD + IDLE; i++) {
        fd[i] = dial("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n");
        ck_assert(is_answered(fd[i]));
    }
    while (kept_n < HELD)
        pthread_cond_wait(&moved, &stage);
    ck_assert_int_eq(counted("\nsaga_http_connections "), HELD + IDLE + 1);
    ck_assert_int_eq(counted("\nsaga_http_held "), HELD);
#ifndef __SANITIZE_THREAD__ /* it keeps a multiple of it */
    printf("   %d connections: %ld KB each\n", HELD + IDLE,
           (resident_kb() - before) / (HELD + IDLE));
    ck_assert_int_lt(resident_kb() - before, (HELD + IDLE) * KB_EACH);
#endif
    for (int i = 0; i < HELD; i++) {
        saga_reply(kept[i], 200, json_object());
        saga_answered(kept[i]);
    }
    pthread_mutex_unlock(&stage);
    for (int i = 0; i < HELD; i++)
        ck_assert_int_eq(hear(fd[i]), 200);
    for (int i = HELD; i < HELD + IDLE; i++)
        close(fd[i]);
    pthread_mutex_lock(&stage);
    ck_assert_int_eq(counted("\nsaga_http_held "), 0);
    stage_stop();
}
END_TEST

Suite *limits_suite(void)
{
    Suite *s = suite_create("limits");
    TCase *size = tcase_create("size"), *time = tcase_create("time"), *n = tcase_create("number");
    tcase_add_checked_fixture(size, stage_start, stage_stop);
    tcase_set_timeout(size, 30);
    tcase_add_test(size, target_limit);
    tcase_add_test(size, headers_limit);
    tcase_add_test(size, headers_beyond_memory);
    tcase_add_test(size, ends_are_seen);
    suite_add_tcase(s, size);
    tcase_add_checked_fixture(time, start_impatient, stage_stop);
    tcase_set_timeout(time, 60);
    tcase_add_loop_test(time, slow_senders_are_cut, 0, (int)(sizeof slow / sizeof *slow));
    tcase_add_test(time, slow_second_request_is_cut);
    tcase_add_test(time, slow_reader_is_cut);
    tcase_add_test(time, who_waits_is_not_cut);
    suite_add_tcase(s, time);
    tcase_set_timeout(n, 15);
    tcase_add_test(n, connections_of_a_client);
    tcase_add_test(n, rate_of_a_client);
    tcase_add_test(n, idle_connections_make_room);
    tcase_add_test(n, many_connections);
    suite_add_tcase(s, n);
    return s;
}
