/* Binds the HTTP port, and finds out who holds a busy one: "address in use" alone sends people
 * searching. */
#include "listen.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 512 };

/* The inode of the socket that listens on port, as /proc/net/tcp or tcp6 tells; 0: not found. */
static unsigned long listener_inode(const char *file, int port)
{
    FILE *f = fopen(file, "re");
    if (!f)
        return 0;
    unsigned long found = 0;
    char line[512];
    while (!found && fgets(line, sizeof line, f)) {
        unsigned local, state;
        unsigned long inode;
        /* sl local_address:port remote_address:port st tx:rx tr:when retrnsmt uid timeout inode */
        if (sscanf(line, " %*d: %*[0-9A-F]:%X %*[0-9A-F]:%*X %X %*s %*s %*s %*u %*d %lu", &local,
                   &state, &inode) == 3 &&
            (int)local == port && state == 0x0A)
            found = inode;
    }
    fclose(f);
    return found;
}

static bool process_has(const char *pid, const char *socket_name)
{
    char dir[64];
    snprintf(dir, sizeof dir, "/proc/%.20s/fd", pid);
    DIR *d = opendir(dir);
    if (!d)
        return false;
    bool found = false;
    for (struct dirent *e; !found && (e = readdir(d));) {
        char link[64];
        ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);
        if (n > 0) {
            link[n] = 0;
            found = strcmp(link, socket_name) == 0;
        }
    }
    closedir(d);
    return found;
}

/* ", held by order-svc (pid 1234)", or "" where it cannot be seen. */
static void holder(int port, char *out, size_t n)
{
    *out = 0;
    unsigned long inode = listener_inode("/proc/net/tcp", port);
    if (!inode)
        inode = listener_inode("/proc/net/tcp6", port);
    DIR *proc = inode ? opendir("/proc") : NULL;
    if (!proc)
        return;
    char socket_name[64];
    snprintf(socket_name, sizeof socket_name, "socket:[%lu]", inode);
    for (struct dirent *e; (e = readdir(proc));) {
        if (!isdigit((unsigned char)*e->d_name) || !process_has(e->d_name, socket_name))
            continue;
        char path[64], name[32] = "a process";
        snprintf(path, sizeof path, "/proc/%.20s/comm", e->d_name);
        FILE *f = fopen(path, "re");
        if (f && fgets(name, sizeof name, f))
            name[strcspn(name, "\n")] = 0;
        if (f)
            fclose(f);
        snprintf(out, n, ", held by %s (pid %.20s)", name, e->d_name);
        break;
    }
    closedir(proc);
}

/* host[:port] split at the last colon; brackets of an IPv6 address are taken off. */
static bool split(const char *address, char *host, size_t n, const char **service)
{
    const char *colon = strrchr(address, ':');
    if (!colon || (size_t)(colon - address) >= n)
        return false;
    size_t len = (size_t)(colon - address);
    bool brackets = len >= 2 && *address == '[' && colon[-1] == ']';
    snprintf(host, n, "%.*s", (int)(brackets ? len - 2 : len), address + brackets);
    *service = colon + 1;
    return true;
}

static int bound_port(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

int saga_listen(const char *address, int *port, struct saga_err *err)
{
    char host[256];
    const char *service;
    if (!split(address, host, sizeof host, &service))
        return saga_err(err, SAGA_FATAL, "HTTP_LISTEN=%.60s: expected address:port", address);
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *found = NULL;
    int rc = getaddrinfo(host, service, &hints, &found);
    if (rc)
        return saga_err(err, SAGA_FATAL, "HTTP_LISTEN=%.60s: %s", address, gai_strerror(rc));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    bool ok =
        fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
    int why = errno;
    freeaddrinfo(found);
    if (ok) {
        *port = bound_port(fd);
        return fd;
    }
    char who[96] = "";
    if (why == EADDRINUSE)
        holder(atoi(service), who, sizeof who);
    if (fd >= 0)
        close(fd);
    return saga_err(err, SAGA_FATAL, "HTTP_LISTEN=%.60s: %s%s; set HTTP_LISTEN to move us", address,
                    strerror(why), who);
}
