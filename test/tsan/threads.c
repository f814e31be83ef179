/* C11's threads by POSIX's, for builds with ThreadSanitizer: it knows only the latter, and crashes in
 * a thread that it has not seen begin. librdkafka has C11's; glibc's types of both are the same
 * underneath, and what a program defines goes before glibc's own. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

static_assert(sizeof(mtx_t) >= sizeof(pthread_mutex_t), "mtx_t");
static_assert(sizeof(cnd_t) >= sizeof(pthread_cond_t), "cnd_t");

static pthread_mutex_t *mutex(mtx_t *m)
{
    return (pthread_mutex_t *)(void *)m;
}

static pthread_cond_t *condition(cnd_t *c)
{
    return (pthread_cond_t *)(void *)c;
}

static int result(int error)
{
    return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : thrd_error;
}

struct start {
    thrd_start_t function;
    void *argument;
};

static void *begin(void *at)
{
    struct start start = *(struct start *)at;
    free(at);
    return (void *)(intptr_t)start.function(start.argument);
}

int thrd_create(thrd_t *thread, thrd_start_t function, void *argument)
{
    struct start *start = malloc(sizeof *start);
    if (!start)
        return thrd_nomem;
    *start = (struct start){function, argument};
    int error = pthread_create(thread, NULL, begin, start);
    if (error)
        free(start);
    return result(error);
}

int thrd_join(thrd_t thread, int *value)
{
    void *returned;
    int error = pthread_join(thread, &returned);
    if (value && !error)
        *value = (int)(intptr_t)returned;
    return result(error);
}

int mtx_init(mtx_t *m, int type)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (type & mtx_recursive)
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    int error = pthread_mutex_init(mutex(m), &attributes);
    pthread_mutexattr_destroy(&attributes);
    return result(error);
}

int mtx_lock(mtx_t *m)
{
    return result(pthread_mutex_lock(mutex(m)));
}

int mtx_unlock(mtx_t *m)
{
    return result(pthread_mutex_unlock(mutex(m)));
}

void mtx_destroy(mtx_t *m)
{
    pthread_mutex_destroy(mutex(m));
}

int cnd_init(cnd_t *c)
{
    return result(pthread_cond_init(condition(c), NULL));
}

int cnd_wait(cnd_t *c, mtx_t *m)
{
    return result(pthread_cond_wait(condition(c), mutex(m)));
}

int cnd_timedwait(cnd_t *c, mtx_t *m, const struct timespec *until)
{
    return result(pthread_cond_timedwait(condition(c), mutex(m), until));
}

int cnd_signal(cnd_t *c)
{
    return result(pthread_cond_signal(condition(c)));
}

int cnd_broadcast(cnd_t *c)
{
    return result(pthread_cond_broadcast(condition(c)));
}

void cnd_destroy(cnd_t *c)
{
    pthread_cond_destroy(condition(c));
}

void call_once(once_flag *flag, void (*function)(void))
{
    pthread_once((pthread_once_t *)(void *)flag, function);
}
