/* What the engine shows to the HTTP thread: a snapshot of its lanes, when it last turned, and what
 * it waits for. The engine writes, others read, under one lock held for a copy. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine.h"

enum { EVERY = 200000 /* us */ };

static struct {
    pthread_mutex_t lock;
    struct saga_lane_view *lane;
    int n, total;
    char waits[256];
    int64_t updated;
    _Atomic int64_t turned;
} view = {.lock = PTHREAD_MUTEX_INITIALIZER};

void saga_view_turned(void)
{
    atomic_store(&view.turned, saga_now());
}

void saga_view_waits(const char *text)
{
    if (!text && !view.waits[0])
        return; /* the engine is the only writer */
    pthread_mutex_lock(&view.lock);
    snprintf(view.waits, sizeof view.waits, "%s", text ? text : "");
    pthread_mutex_unlock(&view.lock);
}

void saga_view_stale(void)
{
    view.updated = 0;
}

static const char *state_of(const struct saga_lane *lane)
{
    if (lane->state == SAGA_LANE_STOPPED)
        return "stopped";
    if (lane->state == SAGA_LANE_WANTED || lane->state == SAGA_LANE_LOOKING)
        return lane->backoff ? "lost" : "taking";
    return lane->paused ? "paused" : "running";
}

/* Where an input ends: as the last fetch saw it, or, where nothing is fetched, the last look at Kafka. */
static int64_t end_of(const struct saga_engine *e, const struct saga_lane *lane, int t)
{
    int64_t end = saga_bus_end(e->bus, t, lane->lane);

    if (lane->state == SAGA_LANE_STOPPED && lane->end[t])
        return lane->end[t]; /* also if there is less than there was */
    bool stands = lane->paused || lane->reader.input[t].stopped;
    return stands && lane->end[t] > end ? lane->end[t] : end;
}

static void show(struct saga_engine *e, const struct saga_lane *lane, struct saga_lane_view *v)
{
    *v = (struct saga_lane_view){.lane = lane->lane,
                                 .term = lane->term,
                                 .last_seq = lane->last_seq,
                                 .published = lane->out.published,
                                 .unpublished_bytes = lane->out.bytes,
                                 .inputs = e->intake.topics};
    snprintf(v->state, sizeof v->state, "%s", state_of(lane));
    if (lane->state != SAGA_LANE_RUNNING)
        snprintf(v->why, sizeof v->why, "%s", lane->why);
    else if (lane->paused)
        snprintf(v->why, sizeof v->why, "%u events wait for Kafka's acknowledgement", lane->out.n);
    for (int t = 0; t < e->intake.topics; t++) {
        const struct saga_input *in = &lane->reader.input[t];
        struct saga_input_view *i = &v->input[t];
        i->topic = e->intake.topic[t];
        i->next_offset = in->next_offset;
        i->end_offset = end_of(e, lane, t);
        i->held = in->held < 0 && in->lost ? in->lost_at : in->held;
        i->stopped = in->stopped;
        if (in->stopped)
            snprintf(i->why, sizeof i->why, "%s", lane->forked[t]);
        else if (lane->alarmed[t])
            saga_loss_gap(e, lane, t, i->why);
        if (in->last.seq)
            i->last_id[saga_id_write(lane->lane, in->last, i->last_id)] = '\0';
    }
}

static void count(struct saga_engine *e)
{
    int64_t unpublished = 0, oldest = 0, now = saga_now(), lag[SAGA_READS_MAX] = {0};
    int64_t gaps[SAGA_READS_MAX] = {0}, forks[SAGA_READS_MAX] = {0}, stopped = 0;

    for (int32_t i = 0; i < e->lanes; i++) {
        const struct saga_lane *lane = &e->lane[i];
        unpublished += lane->out.n;
        stopped += lane->state == SAGA_LANE_STOPPED;
        if (lane->waits_since && now - lane->waits_since > oldest)
            oldest = now - lane->waits_since;
        for (int t = 0; t < e->intake.topics && lane->ours; t++) {
            int64_t end = end_of(e, lane, t);
            gaps[t] += saga_input_open(&lane->reader.input[t]);
            forks[t] += lane->reader.input[t].stopped;
            if (end > lane->reader.input[t].next_offset)
                lag[t] += end - lane->reader.input[t].next_offset;
        }
    }
    saga_gauge(e->metric.unpublished, unpublished);
    saga_gauge(e->metric.oldest, oldest);
    saga_gauge(e->metric.lanes_stopped, stopped);
    for (int t = 0; t < e->intake.topics; t++) {
        saga_gauge(e->metric.lag[t], lag[t]);
        saga_gauge(e->metric.gaps_open[t], gaps[t]);
        saga_gauge(e->metric.inputs_stopped[t], forks[t]);
    }
}

void saga_view_update(struct saga_engine *e)
{
    int64_t now = saga_now();

    if (now - view.updated < EVERY)
        return;
    view.updated = now;
    count(e);
    pthread_mutex_lock(&view.lock);
    view.n = 0;
    for (int32_t i = 0; i < e->lanes; i++)
        if (e->lane[i].ours)
            show(e, &e->lane[i], &view.lane[view.n++]);
    pthread_mutex_unlock(&view.lock);
}

static saga_cell_t *of_topic(const char *name, const char *topic, const char *help)
{
    char labels[128];

    snprintf(labels, sizeof labels, "topic=\"%s\"", topic);
    return saga_metric(name, labels, help);
}

static saga_cell_t *found(const char *what)
{
    char labels[64];

    snprintf(labels, sizeof labels, "finding=\"%s\"", what);
    return saga_metric("saga_losses_total", labels, "Lanes stopped because something was lost.");
}

void saga_view_init(struct saga_engine *e)
{
    static const int64_t sizes[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 0};
    static const int64_t times[] = {200,   500,    1000,   2000,    5000,    10000, 20000,
                                    50000, 100000, 500000, 1000000, 5000000, 0};
    static const int64_t ages[] = {1000,      5000,      10000,   50000,    100000,
                                   500000,    1000000,   5000000, 30000000, 60000000,
                                   300000000, 900000000, 0};
    struct saga_metrics *m = &e->metric;

    for (int t = 0; t < e->intake.topics; t++) {
        const char *topic = e->intake.topic[t];
        m->in[t] = of_topic("saga_records_total", topic, "Records read.");
        m->duplicates[t] = of_topic("saga_duplicates_total", topic,
                                    "Records dropped because they had been applied.");
        m->gaps[t] =
            of_topic("saga_gaps_total", topic, "Records held back: one before is missing.");
        m->lag[t] = of_topic("saga_lag", topic, "Records in Kafka that are not applied yet.");
        m->gaps_open[t] = of_topic("saga_gaps_open", topic, "Lanes that wait for a missing event.");
        m->inputs_stopped[t] =
            of_topic("saga_inputs_stopped", topic, "Lanes whose input a fork has stopped.");
    }
    m->lanes_stopped = saga_metric("saga_lanes_stopped", "", "Lanes that wait for an operator.");
    m->found[SAGA_KAFKA_BEHIND] = found("kafka_behind");
    m->found[SAGA_DATABASE_BEHIND] = found("database_behind");
    m->found[SAGA_REQUESTS_LOST] = found("requests_lost");
    m->healed =
        saga_metric("saga_healed_total", "", "Lanes whose lost events were published again.");
    m->out = saga_metric("saga_events_total", "", "Outbox rows written.");
    m->dead = saga_metric("saga_dead_letters_total", "", "Dead letters written.");
    m->forwards = saga_metric("saga_forwards_total", "", "Requests forwarded to their lane.");
    m->unpublished =
        saga_metric("saga_unpublished", "", "Outbox rows that Kafka has not acknowledged.");
    m->oldest = saga_metric("saga_unpublished_age_seconds", "",
                            "For how long none of those of a lane was.");
    m->outbox_age = saga_metric("saga_outbox_age_seconds", "",
                                "Since when the present outbox table is written; about twice "
                                "SAGA_OUTBOX_KEEP: it cannot be turned.");
    m->outbox_bytes = saga_metric("saga_outbox_bytes", "", "Size of the present outbox table.");
    m->failed = saga_metric("saga_batches_failed_total", "", "Transactions rolled back.");
    m->calls = saga_metric("saga_calls_total", "", "Outside calls handed over.");
    m->answers = saga_metric("saga_answers_total", "", "Answers of outside calls.");
    m->parked = saga_metric("saga_parked_total", "", "Inputs that were parked.");
    m->parked_orders = saga_metric("saga_parked_orders", "", "Orders that are parked.");
    m->due = saga_metric("saga_due_total", "", "Orders whose due came.");
    m->batch_size = saga_histogram("saga_batch_inputs", "", "Inputs of a transaction.", sizes);
    m->batch_seconds =
        saga_histogram("saga_batch_seconds", "", "Time of a transaction, load to COMMIT.", times);
    for (int s = 1; e->service->states[s]; s++) {
        char labels[64];
        snprintf(labels, sizeof labels, "state=\"%s\"", e->service->states[s]);
        m->state[s] = saga_metric("saga_state_total", labels, "Orders that came to this state.");
        m->state_seconds[s] = saga_histogram("saga_state_seconds", labels,
                                             "Age of orders when they came to this state.", ages);
    }
    pthread_mutex_lock(&view.lock);
    view.lane = saga_alloc((size_t)e->lanes * sizeof *view.lane);
    view.total = e->lanes;
    pthread_mutex_unlock(&view.lock);
}

/* ---- For the HTTP thread ---- */

static int lanes(struct saga_lane_view *out, int max)
{
    pthread_mutex_lock(&view.lock);
    int n = view.n < max ? view.n : max;
    if (n)
        memcpy(out, view.lane, (size_t)n * sizeof *out);
    pthread_mutex_unlock(&view.lock);
    return n;
}

static int total(void)
{
    pthread_mutex_lock(&view.lock);
    int n = view.total;
    pthread_mutex_unlock(&view.lock);
    return n;
}

static int64_t turned(void)
{
    return atomic_load(&view.turned);
}

static const char *waits(char *text, size_t n)
{
    pthread_mutex_lock(&view.lock);
    snprintf(text, n, "%s", view.waits);
    pthread_mutex_unlock(&view.lock);
    return *text ? text : NULL;
}

const struct saga_view saga_engine_view = {lanes, total, turned, waits};
