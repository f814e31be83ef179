/* Keeps the metrics and prints them in Prometheus' text format. Families and their cells are lists
 * that only grow; a lock guards the lists, the numbers themselves are atomic, so that counting
 * costs one instruction in any thread and a scrape never stops the engine. */
#include "metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { BOUNDS = 16 };

struct cell {
    struct cell *next;
    char *labels;
    saga_cell_t value;
};

struct saga_histogram {
    struct saga_histogram *next;
    char *labels;
    int64_t bounds[BOUNDS];
    int n;
    saga_cell_t bucket[BOUNDS + 1]; /* each value counts once, here; the last is +Inf */
    saga_cell_t sum;
};

struct family {
    struct family *next;
    char *name, *help;
    bool is_histogram;
    struct cell *cells;
    struct saga_histogram *histograms;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct family *families;

static char *copy(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(saga_alloc(n), s, n);
}

static bool ends_in(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* One name is one kind: a name used for both would print what Prometheus refuses. */
static struct family *family(const char *name, const char *help, bool is_histogram)
{
    struct family **at = &families;
    for (; *at; at = &(*at)->next)
        if (strcmp((*at)->name, name) == 0) {
            assert((*at)->is_histogram == is_histogram);
            return *at;
        }
    *at = saga_alloc(sizeof **at);
    **at = (struct family){.name = copy(name), .help = copy(help), .is_histogram = is_histogram};
    return *at;
}

saga_cell_t *saga_metric(const char *name, const char *labels, const char *help)
{
    pthread_mutex_lock(&lock);
    struct cell **at = &family(name, help, false)->cells;
    while (*at && strcmp((*at)->labels, labels) != 0)
        at = &(*at)->next;
    if (!*at) {
        *at = saga_alloc(sizeof **at);
        **at = (struct cell){.labels = copy(labels)};
    }
    struct cell *found = *at;
    pthread_mutex_unlock(&lock);
    return &found->value;
}

struct saga_histogram *saga_histogram(const char *name, const char *labels, const char *help,
                                      const int64_t *bounds)
{
    pthread_mutex_lock(&lock);
    struct saga_histogram **at = &family(name, help, true)->histograms;
    while (*at && strcmp((*at)->labels, labels) != 0)
        at = &(*at)->next;
    if (!*at) {
        *at = saga_alloc(sizeof **at);
        **at = (struct saga_histogram){.labels = copy(labels)};
        for (; bounds[(*at)->n]; (*at)->n++) {
            assert((*at)->n < BOUNDS);
            (*at)->bounds[(*at)->n] = bounds[(*at)->n];
        }
    }
    struct saga_histogram *found = *at;
    pthread_mutex_unlock(&lock);
    return found;
}

void saga_observe(struct saga_histogram *h, int64_t v)
{
    int i = 0;
    while (i < h->n && v > h->bounds[i])
        i++;
    saga_count(&h->bucket[i], 1);
    saga_count(&h->sum, v);
}

static void put_value(struct saga_buf *out, int64_t v, bool seconds)
{
    if (seconds)
        saga_buf_printf(out, "%.15g", (double)v / 1e6);
    else
        saga_buf_int(out, v);
}

static void put_cell(struct saga_buf *out, const char *name, struct cell *cell, bool seconds)
{
    saga_buf_str(out, name);
    if (*cell->labels)
        saga_buf_printf(out, "{%s}", cell->labels);
    saga_buf_str(out, " ");
    put_value(out, atomic_load_explicit(&cell->value, memory_order_relaxed), seconds);
    saga_buf_str(out, "\n");
}

/* The count is the sum of the buckets that were read, so that a scrape in the middle of an
 * observation still prints a histogram that agrees with itself. */
static void put_histogram(struct saga_buf *out, const char *name, struct saga_histogram *h,
                          bool seconds)
{
    const char *comma = *h->labels ? "," : "";
    int64_t count = 0;
    for (int i = 0; i <= h->n; i++) {
        count += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
        saga_buf_printf(out, "%s_bucket{%s%sle=\"", name, h->labels, comma);
        if (i < h->n)
            put_value(out, h->bounds[i], seconds);
        else
            saga_buf_str(out, "+Inf");
        saga_buf_printf(out, "\"} %" PRId64 "\n", count);
    }
    const char *open = *h->labels ? "{" : "", *close = *h->labels ? "}" : "";
    saga_buf_printf(out, "%s_sum%s%s%s ", name, open, h->labels, close);
    put_value(out, atomic_load_explicit(&h->sum, memory_order_relaxed), seconds);
    saga_buf_printf(out, "\n%s_count%s%s%s %" PRId64 "\n", name, open, h->labels, close, count);
}

void saga_metrics_write(struct saga_buf *out)
{
    pthread_mutex_lock(&lock);
    for (struct family *f = families; f; f = f->next) {
        bool total = ends_in(f->name, "_total");
        bool seconds = ends_in(f->name, "_seconds") || ends_in(f->name, "_seconds_total");
        saga_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name,
                        f->is_histogram ? "histogram"
                        : total         ? "counter"
                                        : "gauge");
        for (struct cell *c = f->cells; c; c = c->next)
            put_cell(out, f->name, c, seconds);
        for (struct saga_histogram *h = f->histograms; h; h = h->next)
            put_histogram(out, f->name, h, seconds);
    }
    pthread_mutex_unlock(&lock);
}
