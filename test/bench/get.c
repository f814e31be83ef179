/* The benchmark's readers of the stock: many connections that are kept, one thread.
 *
 *     get PORT CONNECTIONS RATE SECONDS     each connection GETs sku-0 to sku-999 at random, RATE a
 *                                           second on schedule, or as fast as it is answered if RATE is
 *                                           0; prints "READS/S P50 P99 MAX", ms, from when it was due.
 *                                           SECONDS 0: until the service closes a connection
 *
 * Waits for a service that is starting. An answer that is not 200, or none, ends it with status 1. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SKUS = 1000, SECOND = 1000000, BUCKET_US = 10, BUCKETS = 1000000, STUCK_S = 10 };

struct connection {
    int fd;
    int64_t due; /* of the GET that is on its way, or of the next one */
    bool waits;  /* for an answer */
    size_t n;
    char answer[2048];
};

static uint32_t seen[BUCKETS]; /* answers, by their time */
static int64_t began, span;    /* span 0: until the service ends */

static void fail(const char *what)
{
    fprintf(stderr, "get: %s\n", what);
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec / 1000;
}

static uint32_t some(void)
{
    static uint32_t x = 2463534242;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return x;
}

static double quantile(int64_t all, double q)
{
    int64_t sum = 0, i = 0;

    while (i < BUCKETS - 1 && (sum += seen[i]) < (int64_t)((double)all * q))
        i++;
    return (double)i * BUCKET_US / 1000;
}

static void report(void)
{
    int64_t all = 0, slowest = 0;

    for (int64_t i = 0; i < BUCKETS; i++) {
        all += seen[i];
        slowest = seen[i] ? i : slowest;
    }
    printf("%.0f %.2f %.2f %.2f\n", (double)all * SECOND / (double)(now_us() - began),
           quantile(all, 0.5), quantile(all, 0.99), (double)slowest * BUCKET_US / 1000);
}

static void closed(void)
{
    if (span)
        fail("a connection is closed");
    report();
    exit(0);
}

static void ask(struct connection *c)
{
    char request[128];
    int n =
        snprintf(request, sizeof request,
                 "GET /api/v1/inventory/sku-%u HTTP/1.1\r\nHost: localhost\r\n\r\n", some() % SKUS);

    if (send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        closed();
    c->waits = true;
    c->n = 0;
}

static bool is_whole(const struct connection *c)
{
    const char *body = strstr(c->answer, "\r\n\r\n"), *length;

    if (!body)
        return false;
    if (strncmp(c->answer, "HTTP/1.1 200", 12) != 0)
        fail(c->answer);
    length = strstr(c->answer, "Content-Length: ");
    return length && (size_t)(body + 4 - c->answer) + strtoul(length + 16, NULL, 10) <= c->n;
}

/* -> whether the answer is whole */
static bool hear(struct connection *c)
{
    ssize_t n = read(c->fd, c->answer + c->n, sizeof c->answer - 1 - c->n);

    if (n <= 0)
        closed();
    c->n += (size_t)n;
    c->answer[c->n] = '\0';
    if (!is_whole(c))
        return false;
    int64_t bucket = (now_us() - c->due) / BUCKET_US;
    seen[bucket < 0 ? 0 : bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    c->waits = false;
    return true;
}

static void connect_all(struct connection *c, int n, int port, int epoll)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int64_t until = now_us() + STUCK_S * (int64_t)SECOND;

    for (int i = 0; i < n; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &c[i]};
        int on = 1;
        c[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        while (connect(c[i].fd, (struct sockaddr *)&to, sizeof to) != 0) {
            if (errno != ECONNREFUSED || now_us() > until)
                fail(strerror(errno));
            poll(NULL, 0, 10);
        }
        setsockopt(c[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_ctl(epoll, EPOLL_CTL_ADD, c[i].fd, &event);
    }
}

/* Those that are due ask. -> when the next one is */
static int64_t ask_due(struct connection *c, int n, int64_t now)
{
    int64_t next = now + SECOND;

    for (int i = 0; i < n; i++) {
        if (!c[i].waits && c[i].due <= now)
            ask(&c[i]);
        if (c[i].waits && now - c[i].due > STUCK_S * (int64_t)SECOND)
            fail("no answer in 10 s");
        if (!c[i].waits && c[i].due < next)
            next = c[i].due;
    }
    return next;
}

int main(int argc, char **argv)
{
    struct epoll_event event[256];
    int64_t now, next;

    if (argc != 5)
        fail("get PORT CONNECTIONS RATE SECONDS");
    const int n = atoi(argv[2]), rate = atoi(argv[3]);
    const int64_t every = rate ? SECOND / rate : 0;
    struct connection *c = calloc((size_t)n, sizeof *c);
    int epoll = epoll_create1(0);
    if (!c)
        fail("out of memory");
    connect_all(c, n, atoi(argv[1]), epoll);
    span = atoll(argv[4]) * SECOND;
    if (!span) /* nobody measures us: those who are measured beside us are not interrupted */
        sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
    began = now_us();
    for (int i = 0; i < n; i++)
        c[i].due = began + (every ? (int64_t)(some() % (uint32_t)every) : 0);
    for (next = began; (now = now_us(), !span || now < began + span);) {
        if (now >= next)
            next = ask_due(c, n, now);
        /* to the microsecond: in whole milliseconds it would ask again and again, with a processor that others need */
        const int64_t wait = next > now ? next - now : 0;
        const struct timespec until = {wait / SECOND, wait % SECOND * 1000};
        int ready = epoll_pwait2(epoll, event, 256, &until, NULL);
        for (int i = 0; i < ready; i++) {
            struct connection *one = event[i].data.ptr;
            if (!hear(one))
                continue;
            one->due = every ? one->due + every : now_us();
            if (!every)
                ask(one);
            else if (one->due < next)
                next = one->due;
        }
    }
    report();
    return 0;
}
