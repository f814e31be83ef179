/* Jobs in forked processes. See workers.h. */
#include "workers.h"

#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void work(int n, size_t size, void (*job)(int i, void *result), atomic_int *next,
                 char *results)
{
    for (int i; (i = atomic_fetch_add(next, 1)) < n;)
        job(i, results + (size_t)i * size);
    fflush(stdout);
    _exit(0);
}

void *workers_run(int n, size_t size, void (*job)(int i, void *result))
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t head = 64, bytes = head + (size_t)n * size;
    char *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int status;

    ck_assert(shared != MAP_FAILED);
    fflush(stdout);
    for (long i = 0; i < cores && i < n; i++)
        if (fork() == 0)
            work(n, size, job, (atomic_int *)(void *)shared, shared + head);
    while (wait(&status) > 0)
        ck_assert_msg(status == 0, "a worker has died: status %d", status);
    return shared + head;
}
