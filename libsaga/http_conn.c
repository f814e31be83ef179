/* The connections: how long each may take for what it does, and how much one client may have of them.
 *
 * libmicrohttpd's time-out is one of inactivity: who sends a byte now and then stays for ever. Here a
 * connection is in one phase at a time, and each phase has its time. Those in a phase stand in a list
 * in the order in which they came, so that only its head need be looked at. One that is late is shut
 * down; libmicrohttpd sees its end and closes it. HTTP thread only.
 *
 * A client that goes in the middle of a request is seen here, too: libmicrohttpd (0.9.75) reads no
 * more once it has less than it asked for, and the end may have come together with that. */
#include <assert.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "http_private.h"
#include "metrics.h"

enum {
    CONNECTIONS = 4096 /* of who says nothing */,
    CHAINS = 1024,
    IDLE_CLIENTS_MAX = 4096,
    OTHER_FILES = 256,
    SECOND = 1000000 /* us */
};

/* An address; of IPv6 the first half, which is what one client has. */
struct client {
    unsigned char address[17];
    int connections;
    int64_t full;           /* us: when it may have its whole second's requests again */
    struct client *next;    /* in the chain */
    struct client *idle[2]; /* before and after it among those without connections, oldest first */
};

struct saga_conn {
    int fd;
    enum saga_phase phase;
    bool ended;    /* by the client: it reads at most */
    int64_t since; /* us */
    struct saga_conn *before, *after;
    struct client *client;
};

static struct {
    struct saga_conn *first[SAGA_PHASES], *last[SAGA_PHASES];
    int64_t limit[SAGA_PHASES]; /* us, 0: none */
    int n, max, ends;           /* ends: epoll */
    struct client *chain[CHAINS];
    struct client *oldest, *newest; /* idle */
    int idle;
    int64_t client_max, client_rate;
    saga_cell_t *open, *late, *crowded, *room;
} all;

/* ---- Clients ---- */

static void address_of(const struct sockaddr *a, unsigned char *out)
{
    memset(out, 0, 17);
    out[0] = (unsigned char)a->sa_family;
    if (a->sa_family == AF_INET)
        memcpy(out + 1, &((const struct sockaddr_in *)a)->sin_addr, 4);
    else if (a->sa_family == AF_INET6) {
        const struct in6_addr *six = &((const struct sockaddr_in6 *)a)->sin6_addr;
        memcpy(out + 1, six, IN6_IS_ADDR_V4MAPPED(six) ? 16 : 8);
    }
}

static struct client **place_of(const unsigned char *address)
{
    struct client **at = &all.chain[saga_hash64(0, address, 17) % CHAINS];
    while (*at && memcmp((*at)->address, address, 17) != 0)
        at = &(*at)->next;
    return at;
}

static void leave_idle(struct client *c)
{
    *(c->idle[0] ? &c->idle[0]->idle[1] : &all.oldest) = c->idle[1];
    *(c->idle[1] ? &c->idle[1]->idle[0] : &all.newest) = c->idle[0];
    c->idle[0] = c->idle[1] = NULL;
    all.idle--;
}

static void join_idle(struct client *c)
{
    c->idle[0] = all.newest;
    *(all.newest ? &all.newest->idle[1] : &all.oldest) = c;
    all.newest = c;
    all.idle++;
}

/* One that may ask as if it were new need not be known. So many that they would fill our memory are
 * not known either. */
static void forget_idle(int64_t now)
{
    for (struct client *c; (c = all.oldest) && (c->full <= now || all.idle > IDLE_CLIENTS_MAX);) {
        leave_idle(c);
        *place_of(c->address) = c->next;
        free(c);
    }
}

static struct client *client_enter(const struct sockaddr *a)
{
    unsigned char address[17];
    forget_idle(saga_conn_now());
    address_of(a, address);
    struct client **at = place_of(address), *c = *at;
    if (!c) {
        *at = c = saga_alloc(sizeof *c);
        *c = (struct client){0};
        memcpy(c->address, address, sizeof address);
    } else if (c->connections == 0) {
        leave_idle(c);
    }
    c->connections++;
    return c;
}

static void client_leave(struct client *c)
{
    if (--c->connections == 0)
        join_idle(c);
}

bool saga_conn_may_come(const struct sockaddr *a)
{
    unsigned char address[17];
    if (!all.client_max)
        return true;
    address_of(a, address);
    const struct client *c = *place_of(address);
    if (!c || c->connections < all.client_max)
        return true;
    saga_count(all.crowded, 1);
    return false;
}

/* A second's requests may come at once, then one by one as they grow again. */
bool saga_conn_may_ask(struct saga_conn *conn)
{
    struct client *c = conn->client;
    int64_t now = saga_conn_now(), each = all.client_rate ? SECOND / all.client_rate : 0;
    int64_t full = c->full > now ? c->full : now;
    if (full + each > now + SECOND)
        return false;
    c->full = full + each;
    return true;
}

/* ---- Phases ---- */

int64_t saga_conn_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec / 1000;
}

static void leave(struct saga_conn *c)
{
    *(c->before ? &c->before->after : &all.first[c->phase]) = c->after;
    *(c->after ? &c->after->before : &all.last[c->phase]) = c->before;
}

static void join(struct saga_conn *c, enum saga_phase phase)
{
    c->phase = phase;
    c->since = saga_conn_now();
    c->before = all.last[phase];
    c->after = NULL;
    *(c->before ? &c->before->after : &all.first[phase]) = c;
    all.last[phase] = c;
}

void saga_conn_enter(struct saga_conn *c, enum saga_phase phase)
{
    bool asks = phase == SAGA_NEW || phase == SAGA_ASKING || phase == SAGA_KEPT;
    if (c->phase == SAGA_CUT)
        return;
    leave(c);
    join(c, c->ended && asks ? SAGA_ENDED : phase);
}

/* What has come before the end is still read: ENDED is no end yet. */
static void see_ends(void)
{
    struct epoll_event event[64];
    int n = epoll_wait(all.ends, event, 64, 0);
    for (int i = 0; i < n; i++) {
        struct saga_conn *c = event[i].data.ptr;
        c->ended = true;
        saga_conn_enter(c, c->phase);
    }
}

static void cut(struct saga_conn *c)
{
    shutdown(c->fd, SHUT_RDWR);
    saga_conn_enter(c, SAGA_CUT);
}

void saga_conn_cut_idle(void)
{
    while (all.first[SAGA_KEPT])
        cut(all.first[SAGA_KEPT]);
}

void saga_conn_cut_late(void)
{
    see_ends();
    int64_t now = saga_conn_now();
    for (int p = 0; p < SAGA_PHASES; p++)
        for (struct saga_conn *c; all.limit[p] && (c = all.first[p]);) {
            if (now - c->since < all.limit[p])
                break;
            saga_count(all.late, p != SAGA_KEPT && p != SAGA_ENDED);
            cut(c);
        }
    /* Who waits for a place gets that of the one that has used its own least. */
    if (all.n >= all.max && all.first[SAGA_KEPT]) {
        saga_count(all.room, 1);
        cut(all.first[SAGA_KEPT]);
    }
}

void saga_conn_notify(void *cls, struct MHD_Connection *connection, void **context,
                      enum MHD_ConnectionNotificationCode what)
{
    struct saga_conn *c = *context;
    (void)cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = c = saga_alloc(sizeof *c);
        *c = (struct saga_conn){0};
        c->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        c->client = client_enter(
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
        epoll_ctl(all.ends, EPOLL_CTL_ADD, c->fd,
                  &(struct epoll_event){.events = EPOLLRDHUP | EPOLLET, .data.ptr = c});
        join(c, SAGA_NEW);
        all.n++;
    } else if (c) {
        /* Not left to close(): a child that has just been forked may have the file, too. */
        epoll_ctl(all.ends, EPOLL_CTL_DEL, c->fd, NULL);
        leave(c);
        client_leave(c->client);
        free(c);
        *context = NULL;
        all.n--;
    }
    saga_gauge(all.open, all.n);
}

struct saga_conn *saga_conn_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* ---- Start ---- */

/* Each connection is a file (service.c has raised their number as far as it may). */
static int as_files_allow(int wanted)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= (rlim_t)wanted + OTHER_FILES)
        return wanted;
    return files.rlim_cur > 2 * OTHER_FILES ? (int)files.rlim_cur - OTHER_FILES : OTHER_FILES;
}

int saga_conn_init(const struct saga_conf *conf)
{
    static const char name[] = "saga_http_cut_total",
                      help[] = "HTTP connections ended by us in the middle, by reason";
    all.limit[SAGA_NEW] = all.limit[SAGA_ASKING] = conf->http_request_timeout;
    all.limit[SAGA_KEPT] = all.limit[SAGA_ANSWERED] = conf->http_idle_timeout;
    all.limit[SAGA_ENDED] = SECOND;
    if (!all.ends)
        all.ends = epoll_create1(EPOLL_CLOEXEC);
    all.client_max = conf->http_client_connections;
    all.client_rate = conf->http_client_rate;
    all.max = as_files_allow(conf->http_connections ? (int)conf->http_connections : CONNECTIONS);
    all.open = saga_metric("saga_http_connections", "", "HTTP connections that are open");
    all.late = saga_metric(name, "why=\"late\"", help);
    all.room = saga_metric(name, "why=\"room\"", help);
    all.crowded = saga_metric(name, "why=\"client_connections\"", help);
    return all.max;
}
