/* Collects what the topics say about one order. All of it stands in the partition of its key, but
 * for a request that was sent to another one: that is found by the place that its effects name. */
#include "timeline.h"

#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "kafka.h"

enum { WINDOW_MS = 30, CAUSES = 20 };

static int32_t lane_of(const char *order)
{
    return saga_lane_of(order, strlen(order), ctl_partitions("order.events"));
}

static struct ctl_entry *add(struct ctl_timeline *t)
{
    if (t->n == t->cap)
        t->at = saga_realloc(t->at, (size_t)(t->cap = t->cap ? 2 * t->cap : 32) * sizeof *t->at);
    return &t->at[t->n++];
}

/* -> whether it is about the order, and was added */
static bool take(struct ctl_timeline *t, const struct saga_record *record, const char *order)
{
    if (!ctl_entry_may_be(record, order))
        return false;
    struct ctl_entry *e = add(t);
    ctl_entry_read(record, e);
    if (strcmp(e->key, order) == 0)
        return true;
    ctl_entry_free(e);
    t->n--;
    return false;
}

static void read_all(struct ctl_timeline *t, const char *order, const struct ctl_where *where)
{
    struct saga_record record;
    ctl_read(where);
    for (int rc; (rc = ctl_next(1000, &record)) >= 0;)
        if (rc > 0)
            take(t, &record, order);
}

static bool is_here(const struct ctl_timeline *t, const char *place)
{
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->at[i].id, place) == 0)
            return true;
    return false;
}

/* A place may be a client's, which writes what it likes. */
static bool is_known(const char *topic)
{
    for (int i = 0; ctl_all_topics[i]; i++)
        if (strcmp(ctl_all_topics[i], topic) == 0)
            return true;
    return false;
}

/* The record at a place, if it is still there. */
static void fetch(struct ctl_timeline *t, const char *order, const char *place)
{
    char topic[128];
    int32_t partition;
    int64_t offset;
    struct saga_record record;
    if (!ctl_place_read(place, topic, &partition, &offset) || !is_known(topic) ||
        partition >= ctl_partitions(topic))
        return;
    ctl_read(&(struct ctl_where){.topics = (const char *const[]){topic, NULL},
                                 .partition = partition,
                                 .from = CTL_OFFSET,
                                 .at = offset,
                                 .bounded = true});
    for (int rc; (rc = ctl_next(1000, &record)) >= 0;)
        if (rc > 0) {
            if (record.offset == offset)
                take(t, &record, order);
            return;
        }
}

void ctl_timeline_read(struct ctl_timeline *t, const char *order, int64_t from_ms)
{
    read_all(t, order,
             &(struct ctl_where){.topics = ctl_all_topics,
                                 .partition = lane_of(order),
                                 .from = CTL_TIME,
                                 .at = from_ms,
                                 .bounded = true});
    for (int i = 0, fetched = 0; i < t->n && fetched < CAUSES; i++) {
        const char *cause = t->at[i].cause;
        if (cause && strchr(cause, '/') && !is_here(t, cause)) {
            fetch(t, order, cause);
            fetched++;
        }
    }
    t->n = ctl_entries_order(t->at, t->n);
}

void ctl_timeline_free(struct ctl_timeline *t)
{
    for (int i = 0; i < t->n; i++)
        ctl_entry_free(&t->at[i]);
    free(t->at);
    *t = (struct ctl_timeline){0};
}

const struct ctl_entry *ctl_timeline_find(const struct ctl_timeline *t, const char *type)
{
    for (int i = t->n - 1; i >= 0; i--)
        if (strcmp(t->at[i].type, type) == 0)
            return &t->at[i];
    return NULL;
}

/* ---- Growing ---- */

void ctl_follow(const char *order)
{
    ctl_read(&(struct ctl_where){
        .topics = ctl_all_topics, .partition = lane_of(order), .from = CTL_END});
}

/* Orders and prints what has come since from. -> the first of it that is the end, or -1 */
static int show(struct ctl_timeline *t, int from,
                bool (*done)(const struct ctl_entry *e, const void *about), const void *about)
{
    int end = -1;
    t->n = from + ctl_entries_order(t->at + from, t->n - from);
    for (int i = from; i < t->n; i++) {
        ctl_timeline_print(t->at, i);
        if (end < 0 && done(&t->at[i], about))
            end = i;
    }
    return end;
}

const struct ctl_entry *ctl_follow_until(struct ctl_timeline *t, const char *order, int64_t seconds,
                                         bool (*done)(const struct ctl_entry *e, const void *about),
                                         const void *about)
{
    int64_t until = ctl_now_ms() + seconds * 1000, now = 0, first = 0;
    int shown = t->n, end = -1;
    while (end < 0 && now < until) {
        struct saga_record record;
        int rc = ctl_next(WINDOW_MS, &record);
        now = ctl_now_ms();
        if (rc > 0 && take(t, &record, order) && t->n == shown + 1)
            first = now;
        if (t->n > shown && (rc == 0 || now - first >= WINDOW_MS || now >= until)) {
            end = show(t, shown, done, about);
            shown = t->n;
        }
    }
    return end < 0 ? NULL : &t->at[end];
}
