/* Answers of outside calls between the callers and a batch: they are in memory only. See engine.h. */
#include <stdlib.h>

#include "calls.h"
#include "engine.h"
#include "failpoint.h"

void saga_engine_take_answers(struct saga_engine *e)
{
    *e->answers_end = saga_calls_take();
    for (; *e->answers_end; e->answers_end = &(*e->answers_end)->next) {
        e->answers_n++;
        saga_count(e->metric.answers, 1);
        SAGA_FAILPOINT(answers_taken);
    }
}

/* Answers that came while the batch ran are of the next one. */
void saga_engine_forget(struct saga_engine *e)
{
    for (; e->answers_in; e->answers_in--, e->answers_n--) {
        struct saga_answered *a = e->answers;
        e->answers = a->next;
        free(a);
    }
    if (!e->answers)
        e->answers_end = &e->answers;
    while (e->due_n)
        free(e->due[--e->due_n]);
    e->parking.redriven_n = 0;
}

void saga_engine_put_aside(struct saga_engine *e)
{
    struct saga_answered **at = &e->answers;

    for (struct saga_answered *a; (a = *at);) {
        int state = e->lane[saga_lane_of(a->key, strlen(a->key), e->lanes)].state;
        if (state != SAGA_LANE_WANTED && state != SAGA_LANE_LOOKING) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        a->next = e->aside;
        e->aside = a;
        e->answers_n--;
    }
    e->answers_end = at;
}

void saga_engine_bring_back(struct saga_engine *e)
{
    *e->answers_end = e->aside;
    e->aside = NULL;
    for (; *e->answers_end; e->answers_end = &(*e->answers_end)->next)
        e->answers_n++;
}
