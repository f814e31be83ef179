/* The real services as HTTP servers: stopping, token, TLS, and memory over many requests of all kinds. */
#include "suites.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "web.h"
#include "world.h"

#define TOKEN "a-token-of-the-live-tests"
enum { PATIENCE = 20 };

static struct world *w;
static const char *folder;

static void setup(void)
{
    static const char *settings[2];

    folder = strdup(shell("mktemp -d | tr -d '\\n'"));
    shell("umask 077 && echo %s >%s/token", TOKEN, folder);
    settings[0] = strdup(text("HTTP_TOKEN_FILE=%s/token", folder));
    w = world_new("http", 6, settings);
    web_token(TOKEN);
    world_start_all(w);
    world_stock(w, "apple", 1000);
}

static void teardown(void)
{
    world_free(w);
    web_token(NULL);
    shell("rm -r %s", folder);
}

/* ---- Sockets ---- */

static int dial(struct member *m, const char *request)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval patience = {PATIENCE, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    world_url(m, "");
    to.sin_port = htons((uint16_t)m->port);
    MUST(connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "connect: %m");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    MUST(send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request), "send: %m");
    return fd;
}

static char heard[8192]; /* the last that came over a connection, up to its end */

/* -> the status of the first answer that comes up to the end of the connection; 0: nothing, and then its end */
static int hear(int fd)
{
    size_t n = 0;
    ssize_t part;

    while (n < sizeof heard - 1 && (part = recv(fd, heard + n, sizeof heard - 1 - n, 0)) > 0)
        n += (size_t)part;
    MUST(part == 0, "the connection does not end");
    heard[n] = '\0';
    close(fd);
    return n ? atoi(heard + strlen("HTTP/1.1 ")) : 0;
}

#define HEAD " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " TOKEN "\r\n"

static int64_t metric(struct member *m, const char *name)
{
    return atoll(shell("curl -s -H 'Authorization: Bearer %s' %s | sed -n 's/^%s //p'", TOKEN,
                       world_url(m, "/metrics"), name));
}

/* ---- Stopping ---- */

/* SIGTERM: who waits is answered, who asks nothing is hung up on, and the process ends with 0. */
START_TEST(stop_answers_and_hangs_up)
{
    struct member *m = world_member(w, ORDER, 0);
    int idle = dial(m, "GET /livez" HEAD "\r\n"), waits[10];
    char byte;

    MUST_BE(recv(idle, &byte, 1, MSG_PEEK), 1);
    for (int i = 0; i < 10; i++)
        waits[i] = dial(m, "GET /api/v1/orders/nobody" HEAD "Prefer: wait=25\r\n\r\n");
    AWAIT(PATIENCE, metric(m, "saga_http_held") == 10);
    proc_signal(m->proc, SIGTERM);
    for (int i = 0; i < 10; i++)
        MUST_BE(hear(waits[i]), 404);
    MUST_BE(hear(idle), 200); /* that of before, and the end */
    MUST_BE(proc_wait(m->proc, 6), 0);
    world_kill(m);
    world_start(w, ORDER, 0);
    AWAIT(PATIENCE, world_is_ready(m));
}
END_TEST

/* Whoever asks between SIGTERM and the end is told so. */
START_TEST(readyz_says_stopping)
{
    static const char ready[] = "GET /readyz" HEAD "Connection: close\r\n\r\n";
    struct member *m = world_member(w, PAYMENT, 0);
    char byte;

    world_stop(m);
    m = world_start_failing(w, PAYMENT, 0, "stopping:stop");
    AWAIT(PATIENCE, world_is_ready(m));
    int fd = dial(m, "GET /livez" HEAD "\r\n");
    MUST_BE(recv(fd, &byte, 1, MSG_PEEK), 1);
    proc_signal(m->proc, SIGTERM);
    AWAIT(PATIENCE, proc_said(m->proc, "failpoint stopping"));
    AWAIT(PATIENCE, *shell("cut -d' ' -f3 /proc/%d/stat", (int)proc_pid(m->proc)) == 'T');
    MUST(send(fd, ready, strlen(ready), MSG_NOSIGNAL) == (ssize_t)strlen(ready), "send: %m");
    proc_signal(m->proc, SIGCONT);
    MUST_BE(hear(fd), 200); /* that of /livez */
    MUST(strstr(heard, "HTTP/1.1 503") && strstr(heard, "stopping"), "%s", heard);
    MUST_BE(proc_wait(m->proc, 6), 0);
    world_kill(m);
    m = world_start(w, PAYMENT, 0);
    AWAIT(PATIENCE, world_is_ready(m));
}
END_TEST

/* ---- Token ---- */

static const char *sagactl(struct member *m, const char *variables)
{
    return shell("INVENTORY_URL=%s %s sagactl stock get apple 2>&1 || echo \"exit $?\"",
                 world_url(m, ""), variables);
}

/* sagactl needs the token as everybody does; a new one in the file is in force with SIGHUP, which
 * ends nobody. */
START_TEST(token)
{
    struct member *m = world_member(w, INVENTORY, 0);
    const char *refused = sagactl(m, "SAGA_TOKEN=");

    MUST(strstr(refused, "a bearer token is expected") && strstr(refused, "exit 1"), "%s", refused);
    MUST(strstr(sagactl(m, "SAGA_TOKEN=another-token-than-that"), "exit 1"), "let in");
    MUST(strstr(sagactl(m, "SAGA_TOKEN=" TOKEN), "apple"), "not let in");
    shell("umask 077 && echo %s-2 >%s/new && mv %s/new %s/token", TOKEN, folder, folder, folder);
    proc_signal(m->proc, SIGHUP);
    AWAIT(PATIENCE, strstr(sagactl(m, "SAGA_TOKEN=" TOKEN "-2"), "1000"));
    MUST(strstr(sagactl(m, "SAGA_TOKEN=" TOKEN), "exit 1"), "the old token is still good");
    shell("umask 077 && echo %s >%s/new && mv %s/new %s/token", TOKEN, folder, folder, folder);
    AWAIT(PATIENCE, strstr(sagactl(m, "SAGA_TOKEN=" TOKEN), "1000"));
}
END_TEST

/* A file that does not do ends the start: one line, exit status 78. */
START_TEST(wrong_files)
{
    static const char *const wrong[] = {"HTTP_TOKEN_FILE=/dev/null", "HTTP_TOKEN_FILE=/nowhere",
                                        "HTTP_TLS_CERT=/nowhere"};

    for (int i = 0; i < 3; i++) {
        const char *log = text("build/live/%s/wrong-%d.log", w->name, i);
        const char *const env[] = {wrong[i], "HTTP_LISTEN=127.0.0.1:0", NULL};
        struct proc *p = proc_start("payment-svc", env, log);
        MUST_BE(proc_wait(p, PATIENCE), 78);
        MUST_BE(atoi(shell("wc -l <%s", log)), 1);
        MUST(proc_said(p, text("%.*s", (int)strcspn(wrong[i], "="), wrong[i])), "no name");
        proc_free(p);
    }
}
END_TEST

/* ---- TLS ---- */

/* HTTPS with sagactl, who believes the certificate that he is told to, and no other. */
START_TEST(tls)
{
    struct member *m = world_member(w, INVENTORY, 0);
    const char *own[3];

    shell("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
          "-subj /CN=saga -addext subjectAltName=IP:127.0.0.1 -keyout %s/key -out %s/cert "
          "2>/dev/null && chmod 600 %s/key",
          folder, folder, folder);
    world_stop(m);
    own[0] = strdup(text("HTTP_TLS_CERT=%s/cert", folder));
    own[1] = strdup(text("HTTP_TLS_KEY=%s/key", folder));
    own[2] = NULL;
    const char *const *before = w->settings;
    w->settings = own;
    world_start(w, INVENTORY, 0);
    world_url(m, "");
    const char *url = strdup(text("INVENTORY_URL=https://127.0.0.1:%d", m->port));
    AWAIT(PATIENCE, strstr(sagactl(m, text("%s SAGA_CA_FILE=%s/cert", url, folder)), "1000"));
    MUST(strstr(sagactl(m, url), "exit 69"), "any certificate is believed");
    proc_signal(m->proc, SIGTERM);
    MUST_BE(proc_wait(m->proc, 6), 0);
    world_kill(m);
    w->settings = before;
    world_start(w, INVENTORY, 0);
    AWAIT(PATIENCE, world_is_ready(m));
}
END_TEST

/* ---- Memory ---- */

/* What stands on a connection, one after the other; the last ends it. */
static const char *const talks[] = {
    "GET /api/v1/inventory/apple" HEAD "\r\nGET /livez" HEAD
    "\r\nGET /api/v1/inventory?limit=5" HEAD "Connection: close\r\n\r\n",
    "GET /nowhere" HEAD "\r\nPUT /livez" HEAD "\r\nGET /lanes" HEAD "Accept: text/html\r\n"
    "Connection: close\r\n\r\n",
    "POST /api/v1/inventory" HEAD "Content-Length: 9\r\n\r\n{\"sku\":7}POST /api/v1/inventory" HEAD
    "Content-Length: 3\r\nConnection: close\r\n\r\n{{{",
    "POST /api/v1/inventory" HEAD "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    "5\r\n{\"sku\r\n0\r\n\r\nGET /metrics" HEAD "Connection: close\r\n\r\n",
    "GET /api/v1/inventory/apple HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET /livez" HEAD "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "GARBAGE\r\n\r\n"};
enum { TALKS = sizeof talks / sizeof *talks };
static const int requests[TALKS] = {3, 3, 2, 2, 1, 1, 1};

/* All of the talks at once; each 20th time a connection, too, that ends in the middle of its request
 * (the service keeps one for up to two seconds, and how many there are at once is not what is looked
 * at). -> requests */
static int talk(struct member *m)
{
    static int times;
    int fd[TALKS], n = 0;

    for (int i = 0; i < TALKS; i++)
        fd[i] = dial(m, talks[i]);
    if (times++ % 20 == 0)
        close(dial(m, "POST /api/v1/inventory" HEAD "Content-Length: 1000\r\n\r\n{"));
    for (int i = 0; i < TALKS; i++) {
        char rest[16384];
        while (recv(fd[i], rest, sizeof rest, 0) > 0)
            ;
        close(fd[i]);
        n += requests[i];
    }
    return n;
}

/* Requests of all kinds, good and bad, over connections that come and go: the memory of the process
 * is the same after a tenth, at least 30,000, and after all of them. HTTP_REQUESTS says how many. */
START_TEST(memory_is_flat)
{
    enum { WARM = 30000, KB_MAX = 4096 };
    struct member *m = world_member(w, INVENTORY, 0);
    const char *wanted = getenv("HTTP_REQUESTS");
    int64_t all = wanted ? atoll(wanted) : 2 * WARM, n = 0, began = test_now();
    long early = 0, late;

    alarm(0); /* a million takes its time */
    while (n < all) {
        n += talk(m);
        if (!early && n >= WARM && n >= all / 10)
            early = proc_rss(m->proc);
    }
    late = proc_rss(m->proc);
    printf("   %lld requests in %.0f s: RSS %ld KB at first, %ld KB in the end\n", (long long)n,
           (double)(test_now() - began) / 1e6, early, late);
    MUST(late - early <= KB_MAX, "RSS grew from %ld to %ld KB", early, late);
    AWAIT(PATIENCE, metric(m, "saga_http_connections") <= 2); /* web.c's, and this question's */
}
END_TEST

Suite *http_suite(void)
{
    Suite *s = suite_create("http");
    TCase *t = tcase_create("http");

    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, stop_answers_and_hangs_up);
    tcase_add_test(t, readyz_says_stopping);
    tcase_add_test(t, token);
    tcase_add_test(t, wrong_files);
    tcase_add_test(t, tls);
    tcase_add_test(t, memory_is_flat);
    suite_add_tcase(s, t);
    return s;
}
