/* Seeded schedules (draw.h): the invariants hold after every step, and when nothing moves any more
 * every order has its end. A seed replays exactly. One that fails is shrunk and printed. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "draw.h"
#include "order-svc/order.h"
#include "play.h"
#include "suites.h"
#include "workers.h"

enum { SEEDS_IN_CHECK = 200000, SEEDS_A_JOB = 500 };

static const struct sim_world *w; /* of the seed that was played last, */
static struct schedule *schedule; /* and its moves */

static bool play(uint64_t seed)
{
    w = draw(seed, &schedule);
    return !w->failed[0];
}

static bool play_again(const struct schedule *again)
{
    struct sim_world *other = saga_alloc(sizeof *other);
    bool well = schedule_play(again, other, false);

    sim_free(other);
    free(other);
    return well;
}

static void report(uint64_t seed)
{
    int before = schedule->n, played = schedule_shrink(schedule);

    printf("sim: seed %llu fails: %d of its %d moves do, found by %d schedules:\n",
           (unsigned long long)seed, schedule->n, before, played);
    schedule_print(schedule);
}

/* What a job has played; added up over all of them. */
struct sums {
    uint64_t failed; /* a seed, or 0 */
    int64_t schedules, orders, ends[SAGA_STATES], events, duplicates, gaps, forwards, dead;
    int64_t moves[MOVE_KINDS];
    cells cells;
};

static void count(struct sums *sum)
{
    const struct saga_slots *rows = &w->service[ORDER].batch.orders;

    for (int i = 0; i < rows->n; i++) {
        const struct saga_row *row = rows->list[i]->row;
        sum->orders += row && row->state;
        sum->ends[row ? row->state : 0]++;
    }
    for (int i = 0; i < schedule->n; i++)
        sum->moves[schedule->move[i].kind]++;
    sum->schedules++;
    sum->events += w->events;
    sum->duplicates += w->duplicates;
    sum->gaps += w->gaps;
    sum->forwards += w->forwards;
    sum->dead += w->dead;
}

static uint64_t seeds; /* 1 to seeds are played */

static void job(int i, void *result)
{
    struct sums *sum = result;
    uint64_t from = (uint64_t)i * SEEDS_A_JOB + 1, to = from + SEEDS_A_JOB;

    memset(cells_run, 0, sizeof cells_run);
    for (uint64_t seed = from; seed < to && seed <= seeds && !sum->failed; seed++) {
        sum->failed = play(seed) ? 0 : seed;
        count(sum);
    }
    memcpy(sum->cells, cells_run, sizeof cells_run);
}

/* All members but failed are numbers to be added. */
static struct sums add_up(const struct sums *result, int n)
{
    struct sums all = {0};

    for (int i = 0; i < n; i++) {
        const int64_t *from = &result[i].schedules;
        int64_t *to = &all.schedules;
        for (size_t k = 0; k < (sizeof all - offsetof(struct sums, schedules)) / sizeof *to; k++)
            to[k] += from[k];
        if (!all.failed)
            all.failed = result[i].failed;
    }
    return all;
}

static void print(const struct sums *sum)
{
    printf("sim: %lld seeds: %lld orders, %lld events, %lld duplicates dropped, %lld in gaps, "
           "%lld forwards, %lld dead letters\n",
           (long long)sum->schedules, (long long)sum->orders, (long long)sum->events,
           (long long)sum->duplicates, (long long)sum->gaps, (long long)sum->forwards,
           (long long)sum->dead);
    for (int i = 1; order_states[i]; i++)
        printf("%s %s %lld", i > 1 ? "," : "sim:", order_states[i], (long long)sum->ends[i]);
    printf("\nsim: faults:");
    for (int i = 0, n = 0; i < MOVE_KINDS; i++)
        if (move_is_fault[i])
            printf("%s %lld %s", n++ ? "," : "", (long long)sum->moves[i], move_names[i]);
    printf("\n");
}

static void play_one(uint64_t seed)
{
    bool well = play(seed);

    if (well)
        schedule_print(schedule);
    else
        report(seed);
    ck_assert_msg(well, "seed %llu fails", (unsigned long long)seed);
}

/* SEEDS=n plays n of them, SEED=n one, with its transcript. */
START_TEST(seeds_1_to_n)
{
    const char *n = getenv("SEEDS"), *one = getenv("SEED");

    if (one) {
        play_one(strtoull(one, NULL, 10));
        return;
    }
    seeds = n ? strtoull(n, NULL, 10) : SEEDS_IN_CHECK;
    int jobs = (int)((seeds + SEEDS_A_JOB - 1) / SEEDS_A_JOB);
    struct sums sum = add_up(workers_run(jobs, sizeof sum, job), jobs);
    print(&sum);
    if (sum.failed)
        play_one(sum.failed);
    ck_assert_msg(!sum.failed, "seed %llu failed, and does not replay",
                  (unsigned long long)sum.failed);
    if (seeds < SEEDS_IN_CHECK)
        return;
    char *unreached = cells_unreached(sum.cells);
    ck_assert_str_eq(unreached, "");
    free(unreached);
    for (int i = 0; i < MOVE_KINDS; i++)
        ck_assert_msg(!move_is_fault[i] || sum.moves[i] > 0, "no %s", move_names[i]);
}
END_TEST

/* ---- The shrinker ---- */

/* The tombstone is not written: an order that comes after its cancellation holds stock for ever. */
static void no_tombstone(struct saga_step *step)
{
    saga_emit(step, &inventory_released, step->data);
}

/* The next seed from there on that fails, played. */
static uint64_t failing(uint64_t seed)
{
    for (; seed < 10000; seed++)
        if (!play(seed))
            return seed;
    ck_abort_msg("not found");
}

/* What is wrong is found, and told in few moves, without which it would not happen. (An order whose
 * id is made of its place keeps what stood before it.) */
START_TEST(failure_is_shrunk)
{
    uint64_t seed = 0;
    int fewest = INT_MAX;

    for (int i = 0; i < 5; i++) {
        sim_broken = (struct sim_broken){INVENTORY, &payment_voided, R_NONE, no_tombstone};
        seed = failing(seed + 1);
        int before = schedule->n;
        schedule_shrink(schedule);
        ck_assert(!play_again(schedule));
        printf("sim: without a tombstone: seed %llu fails, %d moves of %d do\n",
               (unsigned long long)seed, schedule->n, before);
        ck_assert_int_gt(before, 100);
        if (schedule->n < fewest)
            fewest = schedule->n;
        sim_broken = (struct sim_broken){0};
        ck_assert_msg(play_again(schedule), "it fails without the bug, too");
    }
    ck_assert_int_le(fewest, 12);
}
END_TEST

Suite *random_suite(void)
{
    Suite *suite = suite_create("random");
    TCase *t = tcase_create("seeds");

    tcase_set_timeout(t, 36000);
    tcase_add_test(t, failure_is_shrunk);
    tcase_add_test(t, seeds_1_to_n);
    suite_add_tcase(suite, t);
    return suite;
}
