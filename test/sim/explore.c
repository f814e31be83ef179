/* Walks all schedules of a small world, depth first. See explore.h. */
#include "explore.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "region.h"
#include "step.h"

enum { DEPTH_MAX = 400, SAMPLE_ALL = 5000, SAMPLE = 61, FIRST_CAP = 1 << 16 };

static struct explored *out;

/* ---- States that were seen ---- */

struct seen {
    uint64_t hash; /* 0: free */
    uint32_t next; /* sum over the states that are one step away */
    bool open;     /* on the path to where we are */
};
static struct seen *seen;
static size_t seen_cap;

static struct seen *find(uint64_t hash)
{
    size_t i = hash & (seen_cap - 1);

    while (seen[i].hash && seen[i].hash != hash)
        i = (i + 1) & (seen_cap - 1);
    return &seen[i];
}

static void remember(uint64_t hash)
{
    if ((size_t)out->states * 2 >= seen_cap) {
        struct seen *old = seen;
        size_t n = seen_cap;
        seen_cap *= 2;
        seen = saga_alloc(seen_cap * sizeof *seen);
        memset(seen, 0, seen_cap * sizeof *seen);
        for (size_t i = 0; i < n; i++)
            if (old[i].hash)
                *find(old[i].hash) = old[i];
        free(old);
    }
    out->states++;
    *find(hash) = (struct seen){.hash = hash, .open = true};
}

static uint64_t state(void)
{
    const struct left *left = &place->left;
    bool all = left->copies || left->rewinds;
    uint64_t h = state_of(&place->w, &scope, all);

    for (size_t i = 0; i < sizeof *left; i++)
        h = (h ^ ((const unsigned char *)left)[i]) * 0x100000001b3;
    h ^= h >> 29;
    return h ? h : 1;
}

/* ---- The walk ---- */

static struct step path[DEPTH_MAX];
static struct image before[DEPTH_MAX]; /* what was, at each depth */
static int path_n;                     /* of what fails */
static int64_t back;                   /* how often a state came back */

static bool failed(void)
{
    return out->failed[0] != '\0';
}

static void fail(int depth)
{
    snprintf(out->failed, sizeof out->failed, "%s", place->w.failed);
    path_n = depth;
}

static void step_from(int depth, const struct step *step, bool back_to_it)
{
    if (back_to_it)
        region_restore(&before[depth]);
    region_open();
    step_make(step);
    region_close();
}

/* -> over the states that are one step from here */
static uint32_t sum_of(int depth, const struct steps *steps)
{
    uint32_t sum = 0;

    for (int i = 0; i < steps->n; i++) {
        step_from(depth, &steps->at[i], i > 0);
        sum += (uint32_t)(state() >> 32);
    }
    region_restore(&before[depth]);
    return sum;
}

static void come_back(int depth, const struct seen *s)
{
    struct steps steps;

    if (s->open) {
        snprintf(out->failed, sizeof out->failed, "it goes on for ever");
        path_n = depth;
    } else if (++back < SAMPLE_ALL || back % SAMPLE == 0) {
        region_save(&before[depth]);
        step_list(&steps);
        out->sampled++;
        if (sum_of(depth, &steps) != s->next) {
            snprintf(out->failed, sizeof out->failed,
                     "state.c leaves out something that the future depends on");
            path_n = depth;
        }
    }
}

static void judge_end(const struct steps *steps)
{
    for (int i = 0; i < steps->n; i++)
        if (steps->at[i].owed)
            return;
    out->ends++;
    check_end(&place->w);
}

static uint64_t visit(int depth)
{
    uint64_t hash = state();
    const struct seen *s = find(hash);
    struct steps steps;
    uint32_t sum = 0;

    if (s->hash) {
        come_back(depth, s);
        return hash;
    }
    assert(depth < DEPTH_MAX);
    if (depth > out->depth)
        out->depth = depth;
    remember(hash);
    step_list(&steps);
    judge_end(&steps);
    if (place->w.failed[0]) {
        fail(depth);
        return hash;
    }
    region_save(&before[depth]);
    for (int i = 0; i < steps.n && !failed(); i++) {
        out->steps++;
        path[depth] = steps.at[i];
        step_from(depth, &steps.at[i], i > 0);
        if (place->w.failed[0])
            fail(depth + 1);
        else
            sum += (uint32_t)(visit(depth + 1) >> 32);
    }
    struct seen *own = find(hash);
    own->next = sum;
    own->open = false;
    return hash;
}

/* ---- Before and after ---- */

/* The path that fails, as a schedule. */
static void tell(void)
{
    struct schedule schedule = {.pay_timeout = PAY_TIMEOUT};

    recording = &schedule;
    step_begin(plan);
    region_open();
    for (int i = 0; i < path_n; i++)
        step_make(&path[i]);
    region_close();
    recording = NULL;
    schedule_shrink(&schedule);
    out->moves = schedule.n;
    if (!sim_broken.input) {
        printf("sim: %s: %s; in %d moves:\n", plan->name, out->failed, schedule.n);
        schedule_print(&schedule);
    }
    schedule_free(&schedule);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void explore(const struct plan *p, struct explored *explored)
{
    double start = now();

    out = explored;
    *out = (struct explored){0};
    back = 0;
    memset(cells_run, 0, sizeof cells_run);
    seen_cap = FIRST_CAP;
    seen = saga_alloc(seen_cap * sizeof *seen);
    memset(seen, 0, seen_cap * sizeof *seen);
    step_begin(p);
    visit(0);
    free(seen);
    memcpy(out->cells, cells_run, sizeof cells_run);
    out->seconds = now() - start;
    if (failed())
        tell();
}
