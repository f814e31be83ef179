/* order show, order list: an order as order-svc and the topics tell it, and what it waits for. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl.h"
#include "http_client.h"
#include "timeline.h"

enum { SLACK_MS = 5000 }; /* between the database's clock and Kafka's, and from request to order */

static const char *status_wanted;
static int64_t most = 50;

static const char *text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

static json_int_t number(const json_t *o, const char *name)
{
    return json_integer_value(json_object_get(o, name));
}

/* "2026-11-24T13:31:25.123456Z" -> ms since 1970 */
static int64_t time_of(const char *rfc3339)
{
    struct tm tm = {0};
    const char *rest = strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        return 0;
    double fraction = *rest == '.' ? strtod(rest, NULL) : 0;
    return (int64_t)timegm(&tm) * 1000 + (int64_t)(fraction * 1000);
}

/* ---- What it waits for ---- */

struct waiting {
    const char *what, *service; /* service NULL: a person, or nobody */
};

static struct waiting of_created(const json_t *order, const struct ctl_timeline *t)
{
    bool later = strcmp(text(json_object_get(order, "payment"), "mode"), "later") == 0;
    if (ctl_timeline_find(t, "PaymentCompleted"))
        return (struct waiting){"OrderPaid", "order-svc"};
    if (ctl_timeline_find(t, "ReservationFailed") || ctl_timeline_find(t, "InventoryReleased"))
        return (struct waiting){"OrderCancelled", "order-svc"};
    if (ctl_timeline_find(t, "PaymentFailed"))
        return (struct waiting){"InventoryReleased", "inventory-svc"};
    if (!ctl_timeline_find(t, "InventoryReserved"))
        return (struct waiting){"InventoryReserved", "inventory-svc"};
    if (later && !ctl_timeline_find(t, "OrderPaymentRequested"))
        return (struct waiting){"the customer to pay (sagactl order pay), until its deadline",
                                NULL};
    return (struct waiting){"PaymentCompleted", "payment-svc"};
}

static struct waiting of_cancelling(const struct ctl_timeline *t)
{
    if (ctl_timeline_find(t, "InventoryReleased") || ctl_timeline_find(t, "ReservationFailed"))
        return (struct waiting){"OrderCancelled", "order-svc"};
    if (ctl_timeline_find(t, "PaymentRefunded") || ctl_timeline_find(t, "PaymentVoided") ||
        ctl_timeline_find(t, "PaymentFailed"))
        return (struct waiting){"InventoryReleased", "inventory-svc"};
    if (ctl_timeline_find(t, "PaymentCompleted"))
        return (struct waiting){"PaymentRefunded", "payment-svc"};
    return (struct waiting){"PaymentVoided", "payment-svc"};
}

static struct waiting waiting(const json_t *order, const struct ctl_timeline *t)
{
    const char *status = text(order, "status");
    if (strcmp(status, "CREATED") == 0)
        return of_created(order, t);
    if (strcmp(status, "CANCELLING") == 0)
        return of_cancelling(t);
    if (strcmp(status, "PAID") == 0)
        return (struct waiting){"nothing: it can be shipped, or cancelled", NULL};
    if (strcmp(status, "SHIPPED") == 0)
        return (struct waiting){"nothing: it can be completed", NULL};
    return (struct waiting){"nothing: it is at its end", NULL};
}

/* Why the lane of the order does not move, if the process that has it says so. */
static bool lane_trouble(const struct ctl_service *service, json_int_t lane, char *out, size_t n)
{
    json_t *answer, *l;
    size_t i;
    bool found = false;
    ctl_http(service, "/lanes", NULL, NULL, &answer, NULL, NULL);
    json_array_foreach(json_object_get(answer, "lanes"), i,
                       l) if (number(l, "lane") == lane && strcmp(text(l, "state"), "running") != 0)
    {
        snprintf(out, n, "whose lane %lld is %s%s%s", lane, text(l, "state"),
                 *text(l, "why") ? ": " : "", text(l, "why"));
        found = true;
    }
    json_decref(answer);
    return found;
}

/* How the one that it waits for is: asked at its /readyz. */
static void how_is(const char *name, json_int_t lane, char *out, size_t n)
{
    const struct ctl_service *service = ctl_service(name);
    char *answer = NULL;
    const char *why = "";
    long status = ctl_http(service, "/readyz", NULL, NULL, NULL, &answer, &why);
    if (answer)
        answer[strcspn(answer, "\n")] = 0;
    if (status == 0)
        snprintf(out, n, "which does not answer at %s: %s", ctl_url(service), why);
    else if (status != 200)
        snprintf(out, n, "which is %s", answer && *answer ? answer : "not ready");
    else if (!lane_trouble(service, lane, out, n))
        snprintf(out, n, "which is ready");
    free(answer);
}

static void explain(const json_t *order, const struct ctl_timeline *t, char *out, size_t n)
{
    struct waiting w = waiting(order, t);
    char state[400];
    if (!w.service) {
        snprintf(out, n, "%s", w.what);
        return;
    }
    how_is(w.service, number(order, "lane"), state, sizeof state);
    snprintf(out, n, "%s from %s, %s", w.what, w.service, state);
}

/* ---- order show ---- */

static void print_order(const json_t *order)
{
    size_t i;
    const json_t *line;
    printf("%s  %s%s%s%s   customer %s, %lld %s:", text(order, "order_id"), text(order, "status"),
           *text(order, "reason") ? " (" : "", ctl_plain(text(order, "reason")),
           *text(order, "reason") ? ")" : "", ctl_plain(text(order, "customer_id")),
           number(order, "amount"), text(order, "currency"));
    json_array_foreach(json_object_get(order, "lines"), i, line)
        printf("%s %lld %s", i ? " +" : "", number(line, "quantity"), text(line, "sku"));
    putchar('\n');
}

static void print_show(json_t *order, const struct ctl_timeline *t)
{
    char waits[700];
    explain(order, t, waits, sizeof waits);
    if (ctl_json) {
        json_t *timeline = json_array();
        for (int i = 0; i < t->n; i++)
            json_array_append(timeline, t->at[i].json);
        json_object_set_new(order, "timeline", timeline);
        json_object_set_new(order, "waits_for", json_string(waits));
        ctl_print_json(order);
        return;
    }
    print_order(order);
    for (int i = 0; i < t->n; i++)
        ctl_timeline_print(t->at, i);
    printf("  waits for %s\n", ctl_plain(waits));
}

static int show(int n, char **args)
{
    (void)n;
    char *id = ctl_escape(args[0]);
    json_t *order = ctl_get("order", "/api/v1/orders/%s", id);
    free(id);
    if (!order) {
        char state[400];
        how_is("order-svc", -1, state, sizeof state);
        ctl_die(CTL_NO, "%s: no such order at order-svc, %s", args[0], state);
    }
    struct ctl_timeline t = {0};
    ctl_timeline_read(&t, args[0], time_of(text(order, "created_at")) - SLACK_MS);
    print_show(order, &t);
    ctl_timeline_free(&t);
    json_decref(order);
    return CTL_OK;
}

/* ---- order list ---- */

static void print_row(const json_t *order)
{
    char created[20];
    if (ctl_json) {
        ctl_print_json(order);
        return;
    }
    snprintf(created, sizeof created, "%s", text(order, "created_at"));
    printf("%-38s %-10s %14lld %-3s  %-19s  %s\n", text(order, "order_id"), text(order, "status"),
           number(order, "amount"), text(order, "currency"), created,
           ctl_plain(text(order, "reason")));
}

/* A page may be short, or empty, and still have a next one. */
static int list(int argc, char **argv)
{
    (void)argc, (void)argv;
    char *after = strdup(""), *status = status_wanted ? ctl_escape(status_wanted) : NULL;
    if (!ctl_json)
        printf("%-38s %-10s %14s %-3s  %-19s  %s\n", "ORDER", "STATUS", "AMOUNT", "",
               "CREATED (UTC)", "REASON");
    for (int64_t left = most; after && left > 0;) {
        size_t i;
        const json_t *order;
        json_t *page =
            ctl_get("order", "/api/v1/orders?limit=%" PRId64 "&after=%s%s%s",
                    left < 500 ? left : 500, after, status ? "&status=" : "", status ? status : "");
        json_array_foreach(json_object_get(page, "orders"), i, order)
        {
            print_row(order);
            left--;
        }
        const char *next = json_string_value(json_object_get(page, "next"));
        free(after);
        after = next ? ctl_escape(next) : NULL;
        json_decref(page);
    }
    free(after);
    free(status);
    return CTL_OK;
}

static const struct ctl_option list_options[] = {
    {"status", "STATUS", "only CREATED, PAID, CANCELLING, CANCELLED, SHIPPED or COMPLETED",
     .text = &status_wanted},
    {"limit", "N", "at most N orders; default 50", .number = &most, .min = 1, .max = 100000000},
    {0},
};

const struct ctl_command ctl_orders[] = {
    {"order show", "ID", 1, 1, "shows an order: timeline, state, and what it waits for",
     "  sagactl order show ord-1\n"
     "  sagactl order show ord-1 --json | jq .status\n",
     NULL, show},
    {"order list", "", 0, 0, "lists orders",
     "  sagactl order list --status CANCELLED\n"
     "  sagactl order list --limit 1000 --json\n",
     list_options, list},
    {0},
};
