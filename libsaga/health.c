/* Says how the service is: alive, ready, where its lanes stand, its metrics. Everything comes from
 * the engine's snapshot; nothing here asks Kafka or the database, so it answers when they do not.
 */
#include "health.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mem.h"
#include "metrics.h"

/* An engine that waits turns its loop all the same (DESIGN.md 4.3): one that does not hangs. */
#define LIVE_US INT64_C(30000000)

static const char text_plain[] = "text/plain; charset=utf-8";
static const struct saga_service *service;
static const struct saga_view *view;

void saga_health_init(const struct saga_service *of, const struct saga_view *shown)
{
    service = of;
    view = shown;
}

/* The snapshot of all lanes that this process has, in the request's arena. */
static struct saga_lane_view *snapshot(struct saga_request *req, int *n)
{
    int max = view->total() > 0 ? view->total() : 1;
    struct saga_lane_view *lanes =
        saga_arena_zero(saga_http_arena(req), (size_t)max * sizeof *lanes);
    *n = view->lanes(lanes, max);
    return lanes;
}

static void reply_buffer(struct saga_request *req, int status, const char *type, struct saga_buf *b)
{
    saga_reply_text(req, status, type, b->at ? b->at : "", b->n);
    saga_buf_free(b);
}

static void livez(struct saga_request *req)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    int64_t turned = view->turned();
    int64_t age = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 - turned;
    struct saga_buf out = {0};
    bool alive = turned == 0 || age <= LIVE_US; /* 0: not started yet */
    if (alive)
        saga_buf_str(&out, "alive\n");
    else
        saga_buf_printf(&out, "engine: its loop has not turned for %" PRId64 " s\n", age / 1000000);
    reply_buffer(req, alive ? 200 : 503, text_plain, &out);
}

static bool is(const struct saga_lane_view *lane, const char *state)
{
    return strcmp(lane->state, state) == 0;
}

static void line(struct saga_buf *out, bool ok, const char *text)
{
    saga_buf_printf(out, "%s %s\n", ok ? "[ok]  " : "[wait]", text);
}

/* A stopped lane, or one whose partition does not answer, is told but does not make the service unready:
 * the other lanes go on, and taking all of them out of service would turn one lane's harm into everybody's.
 */
static void stopped(struct saga_buf *out, const struct saga_lane_view *lanes, int n)
{
    for (int i = 0; i < n; i++)
        if (is(&lanes[i], "stopped"))
            saga_buf_printf(out, "[stop] lane %d: %s\n", lanes[i].lane, lanes[i].why);
        else if (*lanes[i].why)
            saga_buf_printf(out, "[note] lane %d %s: %s\n", lanes[i].lane, lanes[i].state,
                            lanes[i].why);
    for (int i = 0; i < n; i++)
        for (int t = 0; t < lanes[i].inputs; t++)
            if (*lanes[i].input[t].why)
                saga_buf_printf(out, "%s lane %d: %s\n",
                                lanes[i].input[t].stopped ? "[stop]" : "[gap] ", lanes[i].lane,
                                lanes[i].input[t].why);
}

static void readyz(struct saga_request *req)
{
    char text[256];
    const char *waits = view->waits(text, sizeof text);
    int n, taken = 0, lost = 0, halted = 0, total = view->total();
    const struct saga_lane_view *lanes = snapshot(req, &n);
    for (int i = 0; i < n; i++) {
        lost += is(&lanes[i], "lost");
        taken += !is(&lanes[i], "taking") && !is(&lanes[i], "lost");
        halted += is(&lanes[i], "stopped");
    }
    bool settled = taken > 0 && taken + lost == n && (taken > halted || !lost),
         ready = !waits && settled;
    struct saga_buf out = {0};
    if (saga_query(req, "verbose")) {
        line(&out, !waits, waits ? waits : "database and Kafka answer");
        char counts[128];
        snprintf(counts, sizeof counts, "lanes: %d of the %d assigned here are taken; %s has %d",
                 taken, n, service->name, total);
        line(&out, settled, counts);
        stopped(&out, lanes, n);
    }
    saga_buf_printf(&out, "%s", ready ? "ready" : "not ready");
    if (!ready)
        saga_buf_printf(&out, ": %s",
                        waits ? waits
                        : n   ? "lanes are being taken"
                              : "no lane is assigned to this process");
    else if (halted + lost)
        saga_buf_printf(&out, ", but %d of %d lanes are %s: see /readyz?verbose", halted + lost, n,
                        !lost    ? "stopped"
                        : halted ? "stopped or lost"
                                 : "lost");
    if (ready && service->degraded && (waits = service->degraded(text, sizeof text)))
        saga_buf_printf(&out, ", degraded: %s", waits);
    saga_buf_str(&out, "\n");
    reply_buffer(req, ready ? 200 : 503, text_plain, &out);
}

static void set(json_t *o, const char *name, json_t *value)
{
    json_object_set_new(o, name, value);
}

static json_t *known(int64_t v)
{
    return v < 0 ? json_null() : json_integer(v);
}

static json_t *input_json(const struct saga_input_view *in)
{
    json_t *o = json_object();
    set(o, "topic", json_string(in->topic));
    set(o, "next_offset", json_integer(in->next_offset));
    set(o, "end_offset", known(in->end_offset));
    set(o, "lag",
        in->end_offset < 0                 ? json_null()
        : in->end_offset < in->next_offset ? json_integer(0) /* Kafka has lost records */
                                           : json_integer(in->end_offset - in->next_offset));
    set(o, "held", known(in->held));
    set(o, "last_id", *in->last_id ? json_string(in->last_id) : json_null());
    set(o, "stopped", json_boolean(in->stopped));
    set(o, "why", *in->why ? json_string(in->why) : json_null());
    return o;
}

static json_t *lane_json(const struct saga_lane_view *lane)
{
    json_t *o = json_object(), *inputs = json_array();
    set(o, "lane", json_integer(lane->lane));
    set(o, "state", json_string(lane->state));
    set(o, "why", *lane->why ? json_string(lane->why) : json_null());
    set(o, "term", json_integer(lane->term));
    set(o, "last_seq", json_integer(lane->last_seq));
    set(o, "published", json_integer(lane->published));
    set(o, "unpublished_bytes", json_integer(lane->unpublished_bytes));
    for (int i = 0; i < lane->inputs; i++)
        json_array_append_new(inputs, input_json(&lane->input[i]));
    set(o, "inputs", inputs);
    return o;
}

static void lanes_json(struct saga_request *req)
{
    int n;
    const struct saga_lane_view *lanes = snapshot(req, &n);
    json_t *o = json_object(), *list = json_array();
    set(o, "service", json_sprintf("%s-svc", service->name));
    set(o, "total", json_integer(view->total()));
    for (int i = 0; i < n; i++)
        json_array_append_new(list, lane_json(&lanes[i]));
    set(o, "lanes", list);
    saga_reply(req, 200, o);
}

static void metrics(struct saga_request *req)
{
    struct saga_buf out = {0};
    saga_metrics_write(&out);
    reply_buffer(req, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}

const struct saga_route saga_health_routes[] = {
    {"GET", "/livez", livez, SAGA_AT_ONCE, text_plain, .open = true},
    {"GET", "/readyz", readyz, SAGA_AT_ONCE, text_plain, .open = true},
    {"GET", "/lanes", lanes_json, SAGA_AT_ONCE},
    {"GET", "/metrics", metrics, SAGA_AT_ONCE, text_plain},
    {0},
};
