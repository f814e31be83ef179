/* The thread that looks at Kafka. See look.h.
 *
 * All questions that wait are answered together: where their partitions begin and end by one request
 * each, what is in them side by side. A partition without leader is told by Kafka's metadata and not
 * asked at all; what cannot be told in time is answered by SAGA_RETRY, and asked again by the lane. */
#include "look.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "log.h"
#include "peek.h"

enum { ASK_MS = 2000, READ_MS = 10000, TOPICS = SAGA_READS_MAX + 2 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t asked;
    struct saga_look *question, **last, *answer;
    const struct saga_conf *conf;
    const struct saga_intake *intake;
    const char *topic[TOPICS]; /* the inputs, the own one, dead letters */
    char source[80];           /* of the own one */
    int own, topics, wake;
} looker = {.lock = PTHREAD_MUTEX_INITIALIZER, .asked = PTHREAD_COND_INITIALIZER};

/* ---- Identity ---- */

static void identify(struct saga_peek *peek, struct saga_look *look)
{
    struct saga_err err = {0};
    const char *cluster, *prefix = looker.conf->prefix;
    bool led;

    for (int t = 0; t < looker.topics && !look->rc; t++) {
        int n = saga_peek_partitions(peek, looker.topic[t], &led, 0, ASK_MS, &err);
        if (n < 0)
            look->rc = n;
        else if (n == 0)
            look->rc =
                saga_err(&err, SAGA_RETRY, "topic %s%s is missing: run \"sagactl topics apply\"",
                         prefix, looker.topic[t]);
        else if (look->lanes && n != look->lanes)
            look->rc = saga_err(&err, SAGA_FATAL,
                                "topic %s%s has %d partitions, %s%s has %d: all must have the same",
                                prefix, looker.topic[t], n, prefix, looker.topic[0], look->lanes);
        else
            look->lanes = n;
    }
    if (!look->rc && !(cluster = saga_peek_cluster(peek, ASK_MS)))
        look->rc = saga_err(&err, SAGA_RETRY, "kafka does not tell its cluster id");
    else if (!look->rc)
        snprintf(look->cluster, sizeof look->cluster, "%s", cluster);
    snprintf(look->text, sizeof look->text, "%s", err.text);
}

/* ---- Lanes ---- */

static bool took_own(struct saga_range *range, struct saga_record *record)
{
    static const struct saga_event *const none[] = {NULL};
    struct saga_look *look = range->owner;
    struct saga_arena arena = {0};
    struct saga_message m;
    struct saga_err err = {0};
    const char *reason;
    bool ours = saga_event_read(record, none, look->source, range->partition, &arena, &m, &reason,
                                &err) >= 0;

    saga_arena_free(&arena);
    if (record->offset == look->published_offset) {
        look->seen.there = true;
        look->seen.published = ours ? m.id : (struct saga_id){0};
    }
    if (!ours)
        return true;
    if (look->oldest.seq) {
        if (!look->oldest_there && (look->oldest_there = saga_id_same(m.id, look->oldest)))
            look->oldest_at = record->offset;
        if (!look->previous_there && look->previous.seq &&
            (look->previous_there = saga_id_same(m.id, look->previous)))
            look->previous_at = record->offset;
    }
    if (m.id.seq > look->seen.newest.seq) {
        look->seen.newest = m.id;
        look->seen.newest_offset = record->offset;
    }
    if (record->offset <= look->published_offset || m.id.seq <= look->published)
        return true;
    if (look->ids_n == look->ids_cap) {
        look->ids_cap = look->ids_cap ? look->ids_cap * 2 : 64;
        look->ids = saga_realloc(look->ids, (size_t)look->ids_cap * sizeof *look->ids);
    }
    look->ids[look->ids_n++] = m.id;
    return true;
}

static bool took_request(struct saga_range *range, struct saga_record *record)
{
    struct saga_look *look = range->owner;

    look->hash = saga_record_hash(record);
    return false;
}

static void fail(struct saga_look *look, const struct saga_range *range, const struct saga_err *err)
{
    if (range->rc && !look->rc) {
        look->rc = range->rc;
        snprintf(look->text, sizeof look->text, "%s", err->text);
    }
}

/* Kafka knows whether a partition has a leader; those without are not asked. */
static void find_leaders(struct saga_peek *peek, struct saga_look **looks, int n, int32_t lanes)
{
    bool *led = saga_alloc((size_t)lanes * sizeof *led);

    for (int t = 0; t <= looker.own; t++) {
        struct saga_err err = {0};
        memset(led, 0, (size_t)lanes * sizeof *led);
        int there = saga_peek_partitions(peek, looker.topic[t], led, (int)lanes, ASK_MS, &err);
        for (int i = 0; i < n; i++) {
            struct saga_look *look = looks[i];
            if (look->rc || (there > look->lane && led[look->lane]))
                continue;
            look->rc = SAGA_RETRY;
            if (there < 0)
                snprintf(look->text, sizeof look->text, "%s", err.text);
            else
                snprintf(look->text, sizeof look->text,
                         there > look->lane ? "kafka: %s%s/%d has no leader"
                                            : "kafka: %s%s/%d does not exist",
                         looker.conf->prefix, looker.topic[t], look->lane);
        }
        if (there < 0)
            break; /* Kafka is away: each asking would wait */
    }
    free(led);
}

static void find_marks(struct saga_peek *peek, struct saga_look **looks, int n)
{
    int topics = looker.own + 1;
    struct saga_range *ranges = saga_alloc((size_t)(n * topics) * sizeof *ranges);
    struct saga_err err = {0};

    for (int i = 0; i < n * topics; i++)
        ranges[i] = (struct saga_range){.topic = looker.topic[i % topics],
                                        .partition = looks[i / topics]->lane,
                                        .rc = looks[i / topics]->rc};
    saga_peek_marks(peek, ranges, n * topics, ASK_MS, &err);
    for (int i = 0; i < n * topics; i++) {
        struct saga_look *look = looks[i / topics];
        fail(look, &ranges[i], &err);
        if (i % topics < looker.own) {
            look->low[i % topics] = ranges[i].low;
            look->high[i % topics] = ranges[i].high;
        } else {
            look->seen.low = ranges[i].low;
            look->seen.high = ranges[i].high;
        }
    }
    free(ranges);
}

static int64_t from_of(const struct saga_look *look)
{
    return look->oldest.seq || look->published_offset < look->seen.low ? look->seen.low
                                                                       : look->published_offset;
}

int saga_look_own(struct saga_peek *peek, struct saga_look **looks, int n, const char *topic,
                  const char *source, int ms, struct saga_err *err)
{
    struct saga_range *ranges = saga_alloc((size_t)n * sizeof *ranges);
    int rc;

    for (int i = 0; i < n; i++) {
        struct saga_look *look = looks[i];
        look->source = source;
        ranges[i] = (struct saga_range){.topic = topic,
                                        .partition = look->lane,
                                        .from = from_of(look),
                                        .to = look->seen.high,
                                        .rc = look->rc,
                                        .owner = look};
        if (look->kind == SAGA_LOOK_RECORD)
            ranges[i].to = look->published_offset < look->seen.low    ? 0
                           : look->published_offset < look->seen.high ? look->published_offset + 1
                                                                      : 0;
    }
    rc = saga_peek_read(peek, ranges, n, took_own, ms, err);
    for (int i = 0; i < n; i++)
        fail(looks[i], &ranges[i], err);
    free(ranges);
    return rc;
}

static void read_requests(struct saga_peek *peek, struct saga_look **looks, int n)
{
    struct saga_range *ranges = saga_alloc((size_t)n * sizeof *ranges);
    struct saga_err err = {0};

    for (int i = 0; i < n; i++) {
        struct saga_look *look = looks[i];
        ranges[i] = (struct saga_range){
            .topic = looker.topic[0], .partition = look->lane, .rc = look->rc, .owner = look};
        if (look->next_request > look->low[0] && look->next_request <= look->high[0]) {
            ranges[i].from = look->next_request - 1;
            ranges[i].to = look->next_request;
        }
    }
    saga_peek_read(peek, ranges, n, took_request, READ_MS, &err);
    for (int i = 0; i < n; i++)
        fail(looks[i], &ranges[i], &err);
    free(ranges);
}

static void look_at_lanes(struct saga_peek *peek, struct saga_look **looks, int n)
{
    struct saga_err err = {0};
    int32_t lanes = 0;

    for (int i = 0; i < n; i++)
        lanes = looks[i]->lane >= lanes ? looks[i]->lane + 1 : lanes;
    find_leaders(peek, looks, n, lanes);
    find_marks(peek, looks, n);
    saga_look_own(peek, looks, n, looker.topic[looker.own], looker.source, READ_MS, &err);
    if (!looker.intake->source[0])
        read_requests(peek, looks, n);
}

/* ---- The thread ---- */

static struct saga_look *wait_for_questions(void)
{
    pthread_mutex_lock(&looker.lock);
    while (!looker.question)
        pthread_cond_wait(&looker.asked, &looker.lock);
    struct saga_look *first = looker.question;
    looker.question = NULL;
    looker.last = &looker.question;
    pthread_mutex_unlock(&looker.lock);
    return first;
}

static void answer(struct saga_look *first)
{
    static const uint64_t one = 1;
    struct saga_look *last = first;

    while (last->next)
        last = last->next;
    pthread_mutex_lock(&looker.lock);
    last->next = looker.answer;
    looker.answer = first;
    pthread_mutex_unlock(&looker.lock);
    ssize_t n = write(looker.wake, &one, sizeof one);
    (void)n;
}

static void look_at(struct saga_peek *peek, struct saga_look *first)
{
    struct saga_look **looks = NULL;
    int n = 0;

    for (struct saga_look *look = first; look; look = look->next) {
        if (look->kind == SAGA_LOOK_IDENTITY) {
            identify(peek, look);
            continue;
        }
        looks = saga_realloc(looks, (size_t)(n + 1) * sizeof *looks);
        looks[n++] = look;
    }
    if (n)
        look_at_lanes(peek, looks, n);
    free(looks);
}

/* Of a lane that has written, all that Kafka has is read: to search it, or because it is not known how much
 * of it is published. */
static bool is_search(const struct saga_look *look)
{
    return look->oldest.seq ||
           (look->kind == SAGA_LOOK_WHOLE && look->published_offset < 0 && look->last_seq > 0);
}

/* -> those that are quick to answer; the others to *search */
static struct saga_look *put_off(struct saga_look *first, struct saga_look **search)
{
    struct saga_look *quick = NULL, **end = &quick, *next;

    for (; first; first = next) {
        next = first->next;
        first->next = NULL;
        if (is_search(first)) {
            first->next = *search;
            *search = first;
        } else {
            *end = first;
            end = &first->next;
        }
    }
    return quick;
}

static struct saga_peek *open_peek(void)
{
    struct saga_err err = {0};
    struct saga_peek *peek = saga_peek_new(looker.conf, &err);

    if (!peek) {
        saga_log_text(SAGA_ERROR, "looking at Kafka", err.text);
        _exit(70); /* the same settings have just made another handle: out of memory, or threads */
    }
    return peek;
}

/* A search of a whole log may take long: on a thread of its own, the questions of others go on. */
static void *search_alone(void *question)
{
    struct saga_peek *peek = open_peek();

    look_at(peek, question);
    saga_peek_free(peek);
    answer(question);
    return NULL;
}

static void start_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, run, argument) != 0)
        _exit(70);
    pthread_detach(thread);
}

static void *run(void *unused)
{
    struct saga_peek *peek = open_peek();

    (void)unused;
    while (true) {
        struct saga_look *search = NULL, *first = put_off(wait_for_questions(), &search);
        while (search) {
            struct saga_look *next = search->next;
            search->next = NULL;
            start_thread(search_alone, search);
            search = next;
        }
        if (first) {
            look_at(peek, first);
            answer(first);
        }
    }
    return NULL;
}

void saga_look_start(const struct saga_conf *conf, const struct saga_intake *intake,
                     const char *own_topic, const char *dead_topic, int wake)
{
    looker.conf = conf;
    looker.intake = intake;
    looker.wake = wake;
    looker.last = &looker.question;
    for (int t = 0; t < intake->topics; t++)
        looker.topic[looker.topics++] = intake->topic[t];
    looker.own = looker.topics;
    looker.topic[looker.topics++] = own_topic;
    looker.topic[looker.topics++] = dead_topic;
    snprintf(looker.source, sizeof looker.source, "/%s-svc", intake->service->name);
    start_thread(run, NULL);
}

void saga_look_ask(struct saga_look *look)
{
    pthread_mutex_lock(&looker.lock);
    look->next = NULL;
    *looker.last = look;
    looker.last = &look->next;
    pthread_cond_signal(&looker.asked);
    pthread_mutex_unlock(&looker.lock);
}

struct saga_look *saga_look_answered(void)
{
    pthread_mutex_lock(&looker.lock);
    struct saga_look *first = looker.answer;
    looker.answer = NULL;
    pthread_mutex_unlock(&looker.lock);
    return first;
}

void saga_look_free(struct saga_look *look)
{
    if (look)
        free(look->ids);
    free(look);
}
