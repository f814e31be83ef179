/* Takes answers to COMMIT away. See proxy.h.
 *
 * What clients say is read as messages of PostgreSQL's protocol (Frontend/Backend Protocol, "Message
 * Formats"): a Parse whose text is `commit` gives a statement its name, a Bind of that name and the
 * Sync after it are a COMMIT on its way; so is a Query that ends in `commit`. Answers are passed on
 * unread. One thread, one poll over all connections; each direction has one buffer and is read when
 * that is empty. */
#include "proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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

enum { PAIRS_MAX = 300, NAMES_MAX = 16, BUFFER = 65536, HEAD = 128, TAIL = 6 };

struct shared {
    _Atomic int wanted[PROXY_KINDS];
    _Atomic int64_t cuts[PROXY_KINDS], commits;
};

struct proxy {
    pid_t pid;
    int port;
    struct shared *shared;
};

struct side {
    int fd;
    size_t from, to; /* of buffer: read from fd, not yet written to the other side */
    char buffer[BUFFER];
};

struct pair {
    struct side client, server;
    bool cut; /* the client is gone; the server does what it was told, and is not listened to */
    /* the message that the client is sending */
    bool typed;                            /* after the startup packet */
    unsigned char head[HEAD];              /* its first bytes, */
    char tail[TAIL];                       /* and the last ones */
    size_t had, size;                      /* bytes so far; of how many, 0: not known yet */
    char name[PROXY_KINDS][NAMES_MAX][16]; /* statements that are a COMMIT */
    int names[PROXY_KINDS];
    bool pending[PROXY_KINDS]; /* bound, Sync has not come */
};

static struct shared *shared;
static struct pair *pairs[PAIRS_MAX];
static int pairs_n;

/* ---- What clients say ---- */

static const char *const words[PROXY_KINDS] = {"commit", "insert into ledger"};

static const char *second_text(const struct pair *p)
{
    const char *first = (const char *)p->head + 5;
    size_t n = strnlen(first, HEAD - 6);

    return first + n + 1 < (const char *)p->head + HEAD ? first + n + 1 : "";
}

static void note_statement(struct pair *p)
{
    const char *name = (const char *)p->head + 5, *sql = second_text(p);

    for (int k = 0; k < PROXY_KINDS; k++)
        if (strncmp(sql, words[k], strlen(words[k])) == 0 && p->names[k] < NAMES_MAX)
            strncpy(p->name[k][p->names[k]++], name, sizeof p->name[k][0] - 1);
}

static void note_bind(struct pair *p)
{
    const char *name = second_text(p);

    for (int k = 0; k < PROXY_KINDS; k++)
        for (int i = 0; i < p->names[k]; i++)
            p->pending[k] |= strcmp(p->name[k][i], name) == 0;
}

static bool wish(int kind)
{
    int wanted = atomic_load(&shared->wanted[kind]);

    while (wanted > 0)
        if (atomic_compare_exchange_weak(&shared->wanted[kind], &wanted, wanted - 1))
            return true;
    return false;
}

/* -> whether its answer is to be lost */
static bool is_last_word(struct pair *p)
{
    bool lost = false;

    for (int k = 0; k < PROXY_KINDS; k++) {
        if (!p->pending[k])
            continue;
        p->pending[k] = false;
        shared->commits += k == PROXY_COMMIT;
        if (!lost && wish(k)) {
            lost = true;
            shared->cuts[k]++;
        }
    }
    return lost;
}

/* A whole message has been seen. */
static bool ended(struct pair *p)
{
    unsigned char type = p->head[0];
    uint32_t code;

    if (!p->typed) { /* SSLRequest and the like come before the startup packet, version 3 */
        memcpy(&code, p->head + 4, 4);
        p->typed = ntohl(code) >> 16 == 3;
        return false;
    }
    if (type == 'P')
        note_statement(p);
    if (type == 'B')
        note_bind(p);
    if (type == 'Q' && memcmp(p->tail, "commit", TAIL) == 0)
        p->pending[PROXY_COMMIT] = true;
    return (type == 'S' || type == 'Q') && is_last_word(p);
}

static void keep(struct pair *p, char byte)
{
    if (p->had < HEAD - 1)
        p->head[p->had] = (unsigned char)byte;
    if (byte) {
        memmove(p->tail, p->tail + 1, TAIL - 1);
        p->tail[TAIL - 1] = byte;
    }
    p->had++;
}

/* -> how many of n bytes the server is to have, fewer than n: the answer to the last is lost */
static size_t listen_to(struct pair *p, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const size_t length_at = p->typed ? 1 : 0;
        size_t rest = n - i;
        uint32_t length;
        if (p->had >= HEAD && p->head[0] != 'Q') { /* nothing in the middle matters */
            rest = rest < p->size - p->had ? rest : p->size - p->had;
            p->had += rest - 1;
            i += rest - 1;
        }
        keep(p, bytes[i]);
        if (p->had == length_at + 4) {
            memcpy(&length, p->head + length_at, 4);
            p->size = length_at + ntohl(length);
        }
        if (p->had < length_at + 4 || p->had < p->size)
            continue;
        bool lost = ended(p);
        p->had = p->size = 0;
        memset(p->head, 0, sizeof p->head);
        if (lost) {
            p->cut = true;
            return i + 1;
        }
    }
    return n;
}

/* ---- Connections ---- */

static void end_client(struct pair *p)
{
    close(p->client.fd);
    p->client.fd = -1;
    p->server.from = p->server.to = 0;
}

static bool read_side(struct pair *p, struct side *s)
{
    ssize_t n = recv(s->fd, s->buffer, BUFFER, 0);

    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    s->from = 0;
    s->to = (size_t)n;
    if (s == &p->client) {
        s->to = listen_to(p, s->buffer, s->to);
        if (p->cut)
            end_client(p);
    } else if (p->cut) {
        s->to = 0;
    }
    return true;
}

static bool write_side(struct side *from, int to)
{
    ssize_t n = send(to, from->buffer + from->from, from->to - from->from, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    from->from += (size_t)n;
    if (from->from == from->to)
        from->from = from->to = 0;
    return true;
}

static void set_up(int fd)
{
    int on = 1;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static struct sockaddr_in local(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void accept_one(int listener, int server_port)
{
    struct sockaddr_in address = local(server_port);
    int client = accept(listener, NULL, NULL);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    struct pair *p = calloc(1, sizeof *p);

    if (client < 0 || server < 0 || !p || pairs_n == PAIRS_MAX ||
        connect(server, (struct sockaddr *)&address, sizeof address) < 0) {
        close(client);
        close(server);
        free(p);
        return;
    }
    set_up(client);
    set_up(server);
    p->client.fd = client;
    p->server.fd = server;
    pairs[pairs_n++] = p;
}

/* -> false: it is over */
static bool serve(struct pair *p, short client, short server)
{
    const short in = POLLIN | POLLHUP | POLLERR;
    bool good = true;

    if (p->client.fd >= 0 && client & in && p->client.to == 0)
        good = read_side(p, &p->client);
    if (good && server & in && p->server.to == 0)
        good = read_side(p, &p->server);
    if (good && p->client.to)
        good = write_side(&p->client, p->server.fd);
    if (good && p->server.to && p->client.fd >= 0)
        good = write_side(&p->server, p->client.fd);
    if (good && p->cut && p->client.to == 0)
        shutdown(p->server.fd, SHUT_WR); /* it ends its session when it has done the COMMIT */
    return good;
}

static short events_of(const struct side *s, const struct side *other)
{
    return (short)((s->to ? 0 : POLLIN) | (other->to ? POLLOUT : 0));
}

static void run(int listener, int server_port)
{
    static struct pollfd fds[1 + 2 * PAIRS_MAX];

    for (;;) {
        int n = pairs_n;
        fds[0] = (struct pollfd){listener, POLLIN, 0};
        for (int i = 0; i < n; i++) {
            struct pair *p = pairs[i];
            fds[1 + 2 * i] = (struct pollfd){p->client.fd, events_of(&p->client, &p->server), 0};
            fds[2 + 2 * i] = (struct pollfd){p->server.fd, events_of(&p->server, &p->client), 0};
        }
        poll(fds, (nfds_t)(1 + 2 * n), -1);
        for (int i = n - 1; i >= 0; i--) {
            struct pair *p = pairs[i];
            if (serve(p, fds[1 + 2 * i].revents, fds[2 + 2 * i].revents))
                continue;
            close(p->client.fd);
            close(p->server.fd);
            free(p);
            pairs[i] = pairs[--pairs_n];
        }
        if (fds[0].revents)
            accept_one(listener, server_port);
    }
}

/* ---- From outside ---- */

struct proxy *proxy_start(int server_port)
{
    struct proxy *p = calloc(1, sizeof *p);
    struct sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pid_t parent = getpid();

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(p && shared != MAP_FAILED && listener >= 0 &&
             bind(listener, (struct sockaddr *)&address, size) == 0 &&
             listen(listener, PAIRS_MAX) == 0 &&
             getsockname(listener, (struct sockaddr *)&address, &size) == 0,
         "proxy: %s", strerror(errno));
    p->shared = shared;
    p->port = ntohs(address.sin_port);
    p->pid = fork();
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        run(listener, server_port);
    }
    MUST(p->pid > 0, "fork: %s", strerror(errno));
    close(listener);
    return p;
}

int proxy_port(const struct proxy *p)
{
    return p->port;
}

void proxy_cut(struct proxy *p, enum proxy_kind kind, int n)
{
    p->shared->wanted[kind] += n;
}

void proxy_heal(struct proxy *p)
{
    for (int k = 0; k < PROXY_KINDS; k++)
        p->shared->wanted[k] = 0;
}

int64_t proxy_cuts(const struct proxy *p, enum proxy_kind kind)
{
    return p->shared->cuts[kind];
}

int64_t proxy_commits(const struct proxy *p)
{
    return p->shared->commits;
}

void proxy_stop(struct proxy *p)
{
    if (!p)
        return;
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    munmap(p->shared, sizeof *p->shared);
    free(p);
}
