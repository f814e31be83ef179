/* A world with stock, and looks at it. See attack.h. */
#include "attack.h"

#include <stdio.h>

struct sim_world w;
int lane;

void attack_begin(void)
{
    sim_init(&w, true);
    sim_stock(&w, "apple", 1000);
    lane = sim_lane("a");
}

void attack_end(void)
{
    play_settle(&w);
    check_end(&w);
    ck_assert_msg(!w.failed[0], "%s\n%.*s", w.failed, (int)w.trace.n, w.trace.at);
    sim_free(&w);
}

void forget_trace(void)
{
    w.trace.n = 0;
}

void place_in_lane(int n)
{
    char key[16] = "a";

    for (int i = 0; n > 0; snprintf(key, sizeof key, "k%d", i++))
        if (sim_lane(key) == lane) {
            play_place(&w, key, "apple 1", "later");
            n--;
        }
    sim_read(&w, ORDER, lane, 0, MUCH);
    sim_decide(&w, ORDER);
    sim_commit(&w, ORDER);
}

const struct saga_input *input(int service, int topic)
{
    const struct service *s = &w.service[service];
    int t = 0;

    while (strcmp(s->intake.topic[t], topic_names[topic]))
        t++;
    return &s->lane[lane].reader.input[t];
}

int count_of(int service, const char *key, const struct saga_event *event)
{
    int i = 0, n = 0;
    char type[64];

    snprintf(type, sizeof type, "\"type\":\"%s\"", event->type);
    const struct lane *l = &w.service[service].lane[sim_lane(key)];
    for (; i < l->outbox_n; i++)
        n += !strcmp(l->outbox[i].out.key, key) && strstr(l->outbox[i].value, type);
    return n;
}
