/* Metrics of requests, by route and status. The label is the route's pattern, never the path that was
 * asked for: clients do not decide how many there are. HTTP thread only. */
#include <stdio.h>

#include "command.h"
#include "health.h"
#include "http_private.h"
#include "metrics.h"
#include "park_http.h"

enum { ROUTES = 48, STATUSES = 24 };

static struct counted {
    const struct saga_route *route; /* NULL: no route, the last */
    struct saga_histogram *seconds;
    struct {
        int status;
        saga_cell_t *requests;
    } by_status[STATUSES];
} all[ROUTES];

static void label(char *out, size_t n, const struct saga_route *r)
{
    snprintf(out, n, "route=\"%s\",method=\"%s\"", r ? r->path : "none", r ? r->method : "any");
}

static void add(struct counted *c, const struct saga_route *r)
{
    static const int64_t bounds[] = {500,   1000,   2500,    5000,    10000,
                                     25000, 100000, 1000000, 5000000, 0};
    char labels[160];
    label(labels, sizeof labels, r);
    *c = (struct counted){.route = r};
    c->seconds = saga_histogram("saga_http_request_seconds", labels,
                                "From a request's headers to its answer", bounds);
}

void saga_http_count_init(const struct saga_service *service)
{
    const struct saga_route *tables[] = {saga_health_routes, saga_command_routes, saga_park_routes,
                                         service->routes};
    int n = 0;
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct saga_route *r = tables[t]; r && r->method && n + 1 < ROUTES; r++)
            add(&all[n++], r);
    add(&all[n], NULL);
}

static saga_cell_t *cell(struct counted *c, int status)
{
    char labels[192], route[160];
    int i = 0;
    while (i < STATUSES - 1 && c->by_status[i].status && c->by_status[i].status != status)
        i++;
    if (c->by_status[i].status == status)
        return c->by_status[i].requests;
    label(route, sizeof route, c->route);
    snprintf(labels, sizeof labels, "%s,status=\"%d\"", route, status);
    c->by_status[i].status = status;
    return c->by_status[i].requests =
               saga_metric("saga_http_requests_total", labels, "HTTP requests answered");
}

void saga_http_count(const struct saga_request *req)
{
    struct counted *c = all;
    while (c->route && c->route != req->route)
        c++;
    saga_count(cell(c, req->status), 1);
    saga_observe(c->seconds, saga_conn_now() - req->began);
}
