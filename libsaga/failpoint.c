/* Dies, or stands still, where a test wants it. See failpoint.h. */
#include "failpoint.h"

#ifdef SAGA_FAILPOINTS
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME(name) #name,
static const char *const names[] = {SAGA_FAILPOINTS_ALL(NAME)};

static enum saga_failpoint wanted = SAGA_FAILPOINTS_N;
static atomic_int passes_left = 1;
static int signal_sent = SIGKILL;

/* A name that is not in the list would be a test that tests nothing. */
static void read_wish(void)
{
    const char *wish = getenv("SAGA_FAIL");
    char name[64] = "", how[16] = "";
    int n = 1, point = 0;

    if (!wish || !*wish)
        return;
    if (sscanf(wish, "%63[a-z_]:%d:%15s", name, &n, how) < 2)
        sscanf(wish, "%63[a-z_]:%15s", name, how);
    while (point < SAGA_FAILPOINTS_N && strcmp(names[point], name) != 0)
        point++;
    if (point == SAGA_FAILPOINTS_N || n < 1 || (*how && strcmp(how, "stop") != 0)) {
        fprintf(stderr, "SAGA_FAIL=%s: not a name[:n][:stop]\n", wish);
        abort();
    }
    wanted = point;
    passes_left = n;
    signal_sent = *how ? SIGSTOP : SIGKILL;
}

/* To this thread: it goes no further, and the others stop with it. */
void saga_failpoint(enum saga_failpoint point)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, read_wish);
    if (point == wanted && atomic_fetch_sub(&passes_left, 1) == 1) {
        fprintf(stderr, "failpoint %s\n", names[point]);
        raise(signal_sent);
    }
}
#endif
