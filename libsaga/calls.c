/* Outside calls and their answers. See calls.h.
 *
 * A call is made after COMMIT and may be lost at any time: the row that wanted it has a due, and
 * calls again. So nothing here is durable, and the queue may refuse. */
#include "calls.h"

#include <assert.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

#include "failpoint.h"
#include "field.h"
#include "log.h"

enum { AT_ONCE = 1000, BUCKETS = 16384 };

struct queued {
    struct queued *next, *same; /* in the queue, in the bucket */
    struct saga_call call;      /* its key and data follow */
};

static struct {
    pthread_mutex_t lock;
    sem_t some; /* to look whether there are any; no condition variable: see http_work.c */
    const struct saga_service *service;
    struct queued *first, *last, *bucket[BUCKETS];
    int n, wake;
    bool stopped;
    struct saga_answered *answers, *newest;
} calls = {.lock = PTHREAD_MUTEX_INITIALIZER};

__attribute__((constructor)) static void prepare(void)
{
    sem_init(&calls.some, 0, 0);
}

static struct queued **bucket_of(const char *key)
{
    return &calls.bucket[saga_hash(key) % BUCKETS];
}

static bool waits(const char *key)
{
    for (const struct queued *q = *bucket_of(key); q; q = q->same)
        if (!strcmp(q->call.key, key))
            return true;
    return false;
}

/* One block for free(): head bytes, zeroed, then copies of the key and of the event's data. The
 * data is copied twice: once to know its size. */
static void *block(size_t head, const char *key, const struct saga_event *event, const void *data,
                   const char **key_copy, const void **data_copy)
{
    static _Thread_local struct saga_arena scratch;
    size_t key_n = strlen(key) + 1, n = 0;
    char *p;

    if (event->size) {
        saga_arena_reset(&scratch);
        const struct saga_block *was = scratch.blocks;
        const char *start = scratch.at;
        saga_fields_copy(event->fields, event->size, data, &scratch);
        n = was && scratch.blocks == was ? (size_t)(scratch.at - start) : scratch.used;
    }
    head = (head + 15) & ~(size_t)15;
    p = saga_alloc(head + n + key_n);
    memset(p, 0, head);
    struct saga_arena room = {.at = p + head, .end = p + head + n};
    if (event->size)
        *data_copy = saga_fields_copy(event->fields, event->size, data, &room);
    *key_copy = memcpy(p + head + n, key, key_n);
    return p;
}

static bool put(const struct saga_call *call, int64_t since)
{
    struct saga_call copy = {.call = call->call, .since = since};
    struct queued *q, **bucket = bucket_of(call->key);

    if (calls.n == SAGA_CALLS_MAX || waits(call->key))
        return false;
    q = block(sizeof *q, call->key, call->call, call->data, &copy.key, &copy.data);
    q->call = copy;
    q->same = *bucket;
    *bucket = q;
    if (calls.last)
        calls.last->next = q;
    else
        calls.first = q;
    calls.last = q;
    calls.n++;
    return true;
}

int saga_calls_put(const struct saga_call *batch, int n, int64_t since)
{
    int queued = 0;

    pthread_mutex_lock(&calls.lock);
    for (int i = 0; i < n; i++)
        queued += put(&batch[i], since);
    if (queued)
        sem_post(&calls.some);
    pthread_mutex_unlock(&calls.lock);
    return queued;
}

static struct queued *pop(void)
{
    struct queued *q = calls.first;
    struct queued **at = bucket_of(q->call.key);

    calls.first = q->next;
    if (!calls.first)
        calls.last = NULL;
    calls.n--;
    while (*at != q)
        at = &(*at)->same;
    *at = q->same;
    return q;
}

static void *caller(void *unused)
{
    struct queued **taken = saga_alloc(AT_ONCE * sizeof *taken);
    struct saga_call *batch = saga_alloc(AT_ONCE * sizeof *batch);

    (void)unused;
    for (;;) {
        int n = 0;
        if (sem_wait(&calls.some) < 0)
            continue; /* a signal */
        pthread_mutex_lock(&calls.lock);
        while (calls.first && n < AT_ONCE && !calls.stopped) {
            taken[n] = pop();
            batch[n] = taken[n]->call;
            n++;
        }
        if (calls.first && !calls.stopped)
            sem_post(&calls.some); /* more than one takes at once: another helps */
        pthread_mutex_unlock(&calls.lock);
        if (n)
            calls.service->call(batch, n);
        for (int i = 0; i < n; i++)
            free(taken[i]);
    }
    return NULL;
}

int saga_calls_start(const struct saga_service *service, int callers, int wake)
{
    pthread_t thread;

    calls.service = service;
    calls.wake = wake;
    int started = 0;
    for (int i = 0; service->call && i < callers; i++)
        if (pthread_create(&thread, NULL, caller, NULL) == 0) {
            pthread_detach(thread);
            started++;
        }
    if (service->call && started < callers)
        saga_log_at(started ? SAGA_WARN : SAGA_ERROR, "threads for outside calls are missing",
                    "\"started\":%d,\"wanted\":%d", started, callers);
    return service->call && callers && !started ? -1 : 0;
}

static bool has_rule(const struct saga_event *event)
{
    for (const struct saga_rule *rule = calls.service->rules; rule->input; rule++)
        if (rule->input == event)
            return true;
    return false;
}

void saga_answer(const struct saga_call *call, const struct saga_event *event, const void *data)
{
    static const uint64_t one = 1;
    struct saga_answered *a;
    const char *key;
    const void *copy = NULL;
    bool first;

    assert(has_rule(event));
    a = block(sizeof *a, call->key, event, data, &key, &copy);
    a->event = event;
    a->key = key;
    a->data = copy;

    pthread_mutex_lock(&calls.lock);
    first = !calls.answers;
    if (first)
        calls.answers = a;
    else
        calls.newest->next = a;
    calls.newest = a;
    pthread_mutex_unlock(&calls.lock);
    SAGA_FAILPOINT(answer_queued);
    if (first && write(calls.wake, &one, sizeof one) < 0)
        abort(); /* an eventfd of ours that cannot be written */
}

struct saga_answered *saga_calls_take(void)
{
    struct saga_answered *all;

    pthread_mutex_lock(&calls.lock);
    all = calls.answers;
    calls.answers = calls.newest = NULL;
    pthread_mutex_unlock(&calls.lock);
    return all;
}

void saga_calls_stop(void)
{
    pthread_mutex_lock(&calls.lock);
    calls.stopped = true;
    pthread_mutex_unlock(&calls.lock);
}
