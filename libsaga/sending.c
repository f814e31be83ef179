/* What is sent and not acknowledged yet: delivery reports, silence, and another producer (DESIGN.md 4.3).
 *
 * Reports are counted in lane.c. Whatever goes wrong has one recovery: a new producer, and what may not have
 * come is sent again from the outbox; readers drop what they know. */
#include <inttypes.h>
#include <stdio.h>

#include "engine.h"
#include "failpoint.h"
#include "log.h"

enum { SECOND = 1000000, MS = 1000 };

void saga_engine_send(struct saga_engine *e, const struct saga_delivery *d, struct saga_id own)
{
    struct saga_lane *lane = &e->lane[d->lane];

    if (lane->out.n == 0)
        lane->sent_at = saga_now();
    if (!lane->waits_since)
        lane->waits_since = lane->sent_at;
    saga_outgoing_sent(&lane->out, d->seq, own, (uint32_t)(d->value_n + d->key_n));
    saga_bus_send(e->bus, d);
    if (!lane->paused && saga_outgoing_full(&lane->out)) {
        lane->paused = true;
        for (int t = 0; t < e->intake.topics; t++)
            saga_bus_pause(e->bus, t, d->lane);
    }
}

static void cannot_send(struct saga_lane *lane, const char *why)
{
    snprintf(lane->refused, sizeof lane->refused, "%s", why);
}

void saga_engine_reported(void *owner, int32_t number, int64_t seq, int64_t offset,
                          const char *refused)
{
    struct saga_engine *e = owner;
    struct saga_lane *lane = &e->lane[number];
    int64_t published = lane->out.published;

    SAGA_FAILPOINT(report_received);
    lane->sent_at = saga_now();
    if (!saga_outgoing_acked(&lane->out, seq, offset) || offset < 0) { /* its gate stays shut */
        saga_log_at(SAGA_WARN, "a delivery report that does not count: new producer",
                    "\"lane\":%d,\"seq\":%" PRId64 ",\"offset\":%" PRId64, number, seq, offset);
        e->renew = true;
        if (refused) /* an offset that is not new is another matter: Kafka has lost something (4.4) */
            cannot_send(lane, refused);
        return;
    }
    e->acked_at = lane->sent_at;
    if (lane->out.published > published)
        lane->waits_since = lane->out.n ? lane->sent_at : 0;
    e->renew_backoff = 0;
    saga_engine_dirty(e, lane);
    SAGA_FAILPOINT(report_counted);
    if (lane->paused && saga_outgoing_eased(&lane->out)) {
        lane->paused = false;
        for (int t = 0; t < e->intake.topics && lane->state == SAGA_LANE_RUNNING; t++)
            if (!lane->reader.input[t].stopped)
                saga_bus_resume(e->bus, t, number);
    }
}

/* A partition that reports nothing although Kafka answers: its producer is given up (4.3). */
void saga_engine_silence(struct saga_engine *e, int64_t now)
{
    int32_t silent = -1, n = 0;
    int led = 0;

    for (int32_t i = 0; i < e->lanes; i++) {
        struct saga_lane *lane = &e->lane[i];
        if (!lane->out.n || now - lane->sent_at <= e->conf->report_wait)
            continue;
        lane->sent_at = now;
        /* No other producer would do better where nobody leads. While Kafka is away each asking waits:
         * it is asked once. */
        if (led >= 0 && (led = saga_bus_led(e->bus, e->batch.topic, i, 300)) > 0) {
            silent = i;
            n++;
        }
    }
    if (silent < 0)
        return;
    /* Others are heard of, and it is this lane's partition that is silent: that of a forward or a dead
     * letter is not known to have a leader. */
    if (n == 1 && now - e->acked_at <= e->conf->report_wait &&
        saga_outgoing_waits_own(&e->lane[silent].out))
        cannot_send(&e->lane[silent], "no delivery report, though its partition has a leader");
    saga_log_at(SAGA_WARN, "no delivery report: new producer", "\"lane\":%d", silent);
    e->renew = true;
}

/* One lane alone because of which producers are given up again and again (4.3). */
static void stop_refused(struct saga_engine *e)
{
    struct saga_lane *alone = NULL;
    char why[SAGA_WHY];
    int n = 0;

    for (int32_t i = 0; i < e->lanes; i++)
        if (*e->lane[i].refused) {
            alone = &e->lane[i];
            n++;
        }
    if (n == 1 && alone->state == SAGA_LANE_RUNNING && saga_outgoing_failed(&alone->out)) {
        snprintf(why, sizeof why,
                 "Kafka did not take outbox row %" PRId64
                 " or one behind it, three times: %s. When "
                 "that is mended \"sagactl lane %s %d republish\" starts the lane again",
                 alone->out.published + 1, alone->refused, e->service->name, alone->lane);
        saga_engine_stop_lane(e, alone, why);
    }
    for (int32_t i = 0; i < e->lanes; i++)
        e->lane[i].refused[0] = '\0';
}

/* The producer is another: every lane that had something on its way is taken again from 4.4 step 2. It looks
 * at what Kafka has, and sends again what is above published. */
static void send_again(struct saga_engine *e)
{
    for (int32_t i = 0; i < e->lanes; i++) {
        struct saga_lane *lane = &e->lane[i];
        if (!lane->out.n)
            continue;
        saga_outgoing_reset(&lane->out);
        lane->resend = true;
        if (lane->state == SAGA_LANE_RUNNING)
            saga_engine_want(e, lane, true);
    }
}

/* The one recovery path: a new producer, and all again that may not have come. */
int saga_engine_renew(struct saga_engine *e, int64_t now, struct saga_err *err)
{
    int rc;

    if (!e->renew || now < e->renew_at)
        return 0;
    e->renew_backoff = e->renew_backoff ? e->renew_backoff * 2 : 100 * MS;
    if (e->renew_backoff > 5 * SECOND)
        e->renew_backoff = 5 * SECOND;
    e->renew_at = now + e->renew_backoff;
    if ((rc = saga_bus_renew(e->bus, err)) < 0)
        return rc;
    e->renew = false;
    stop_refused(e);
    send_again(e);
    return 0;
}

static bool is_sending(const struct saga_engine *e)
{
    for (int32_t i = 0; i < e->lanes; i++)
        if (e->lane[i].state == SAGA_LANE_RUNNING && e->lane[i].out.n)
            return true;
    return false;
}

bool saga_engine_all_reported(struct saga_engine *e, int64_t wait, struct saga_err *err)
{
    int64_t until = saga_now() + wait;

    while (is_sending(e) && !e->renew && saga_now() < until)
        if (saga_engine_turn(e, 50 * MS, -1, 0, err) < 0)
            return false;
    return !is_sending(e) && !e->renew;
}
