/* Cuts connections at random. See cutter.h. One thread, one poll over all; what is read is written at
 * once, because on this machine it fits. */
#include "cutter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

enum { PAIRS_MAX = 256 };

struct cutter {
    pid_t pid;
    int port;
    _Atomic int64_t *cuts;
};

struct pair {
    int client, server;
    int left; /* bytes until it is cut */
};

static struct pair pairs[PAIRS_MAX];
static int pairs_n;

static struct sockaddr_in local(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* What has been written before still arrives as far as the other side has read; the rest does not. */
static void close_pair(struct pair *p, bool cut)
{
    struct linger reset = {1, 0};

    if (cut) {
        setsockopt(p->client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        setsockopt(p->server, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    close(p->client);
    close(p->server);
}

/* -> false: it has ended, or *cut */
static bool pass_on(struct pair *p, int from, int to, bool *cut)
{
    char buffer[16384];
    ssize_t n = recv(from, buffer, sizeof buffer, 0);

    if (n <= 0)
        return n < 0 && errno == EINTR;
    *cut = n >= p->left;
    n = *cut ? p->left : n;
    p->left -= (int)n;
    return send(to, buffer, (size_t)n, MSG_NOSIGNAL) == n && !*cut;
}

static void accept_one(int listener, int server_port, unsigned *seed, int bytes)
{
    struct sockaddr_in address = local(server_port);
    int client = accept(listener, NULL, NULL), on = 1;
    int server = socket(AF_INET, SOCK_STREAM, 0);

    if (client < 0 || server < 0 || pairs_n == PAIRS_MAX ||
        connect(server, (struct sockaddr *)&address, sizeof address) < 0) {
        close(client);
        close(server);
        return;
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pairs[pairs_n++] = (struct pair){client, server, 1 + rand_r(seed) % bytes};
}

static void run(int listener, int server_port, unsigned seed, int bytes, _Atomic int64_t *cuts)
{
    static struct pollfd fds[1 + 2 * PAIRS_MAX];

    for (;;) {
        fds[0] = (struct pollfd){listener, POLLIN, 0};
        for (int i = 0; i < pairs_n; i++) {
            fds[1 + 2 * i] = (struct pollfd){pairs[i].client, POLLIN, 0};
            fds[2 + 2 * i] = (struct pollfd){pairs[i].server, POLLIN, 0};
        }
        poll(fds, (nfds_t)(1 + 2 * pairs_n), -1);
        for (int i = pairs_n - 1; i >= 0; i--) {
            struct pair *p = &pairs[i];
            bool cut = false, good = true;
            if (fds[1 + 2 * i].revents)
                good = pass_on(p, p->client, p->server, &cut);
            if (good && fds[2 + 2 * i].revents)
                good = pass_on(p, p->server, p->client, &cut);
            if (good)
                continue;
            close_pair(p, cut);
            *cuts += cut;
            pairs[i] = pairs[--pairs_n];
        }
        if (fds[0].revents)
            accept_one(listener, server_port, &seed, bytes);
    }
}

struct cutter *cutter_start(int server_port, unsigned seed, int bytes)
{
    struct cutter *c = calloc(1, sizeof *c);
    struct sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pid_t parent = getpid();

    MUST(c && listener >= 0 && bind(listener, (struct sockaddr *)&address, size) == 0 &&
             listen(listener, PAIRS_MAX) == 0 &&
             getsockname(listener, (struct sockaddr *)&address, &size) == 0,
         "cutter: %s", strerror(errno));
    c->cuts =
        mmap(NULL, sizeof *c->cuts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(c->cuts != MAP_FAILED, "mmap: %s", strerror(errno));
    c->port = ntohs(address.sin_port);
    c->pid = fork();
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        run(listener, server_port, seed, bytes, c->cuts);
    }
    MUST(c->pid > 0, "fork: %s", strerror(errno));
    close(listener);
    return c;
}

int cutter_port(const struct cutter *c)
{
    return c->port;
}

int64_t cutter_cuts(const struct cutter *c)
{
    return *c->cuts;
}

void cutter_stop(struct cutter *c)
{
    if (!c)
        return;
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    munmap((void *)c->cuts, sizeof *c->cuts);
    free(c);
}
