/* Metrics in Prometheus' text format (version 0.0.4). Cells are made once, at start or when a lane
 * comes, and are never freed; adding to one is an atomic add from any thread. */
#ifndef SAGA_METRICS_H
#define SAGA_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "mem.h"

typedef _Atomic int64_t saga_cell_t;

/* The cell of name{labels}; the same name and labels give the same cell. labels: "" or
 * "topic=\"order.events\",lane=\"7\"". Names ending in _seconds hold microseconds and are printed in
 * seconds; _total are counters, others gauges. help is printed once a name. */
saga_cell_t *saga_metric(const char *name, const char *labels, const char *help);
static inline void saga_count(saga_cell_t *cell, int64_t n)
{
    atomic_fetch_add_explicit(cell, n, memory_order_relaxed);
}
static inline void saga_gauge(saga_cell_t *cell, int64_t v)
{
    atomic_store_explicit(cell, v, memory_order_relaxed);
}

/* Histograms: bounds ascending, up to 0 (at most 16). *_seconds observe microseconds. */
struct saga_histogram;
struct saga_histogram *saga_histogram(const char *name, const char *labels, const char *help,
                                      const int64_t *bounds);
void saga_observe(struct saga_histogram *h, int64_t v);

void saga_metrics_write(struct saga_buf *out);

#endif
