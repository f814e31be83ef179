/* order place, pay, cancel, ship, complete: sends requests to order.requests, and waits for what
 * becomes of them if asked to. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uuid/uuid.h>

#include "bulk.h"
#include "ctl.h"
#include "events.h"
#include "kafka.h"
#include "timeline.h"

static const char *id, *customer = "customer-1", *currency = "EUR", *token = "tok_ok";
static const char *reason, *tracking, *pay_token = "tok_ok";
static bool later, print_only;
static int64_t wait_s, count, rate;
static struct ctl_list skus, quantities, prices, line_texts;

static struct saga_buf written;

/* The request as JSON, read back by the very reader of the services: what they would refuse is told
 * here. */
static void write_request(const struct saga_event *request, const char *order, const void *data)
{
    static struct saga_arena arena;
    struct saga_message m = {0};
    struct saga_err err = {0};
    const char *why = NULL;
    written.n = 0;
    saga_request_write(request, order, data, &written);
    struct saga_record r = {.topic = "order.requests", .value = written.at, .value_n = written.n};
    if (saga_request_read(&r, all_requests, &place_order, "", &arena, &m, &why, &err) < 0)
        ctl_die(CTL_USAGE, "%s", *err.text ? err.text : why);
    saga_arena_reset(&arena);
}

static void print_written(void)
{
    fwrite(written.at, 1, written.n, stdout);
    putchar('\n');
}

/* ---- Waiting for one ---- */

struct wait {
    const char *place; /* of the request */
    const char *ends[3];
};

static bool is_end(const struct ctl_entry *e, const void *about)
{
    const struct wait *w = about;
    for (int i = 0; i < 3 && w->ends[i]; i++)
        if (strcmp(e->type, w->ends[i]) == 0)
            return true;
    bool answer = strcmp(e->type, "RequestRejected") == 0 || strcmp(e->service, "dead letter") == 0;
    return answer && e->cause && strcmp(e->cause, w->place) == 0;
}

static int await(const char *order, const struct wait *w)
{
    struct ctl_timeline t = {0};
    const struct ctl_entry *end = ctl_follow_until(&t, order, wait_s, is_end, w);
    int status = CTL_OK;
    if (!end) {
        fprintf(stderr, "sagactl: %s: not at its end after %" PRId64 " s: sagactl order show %s\n",
                order, wait_s, order);
        status = CTL_NO;
    } else if (strcmp(end->type, "RequestRejected") == 0 ||
               strcmp(end->service, "dead letter") == 0) {
        status = CTL_NO;
    }
    ctl_timeline_free(&t);
    return status;
}

static void told(const char *what, const char *order, const char *place)
{
    if (ctl_json) {
        json_t *line =
            json_pack("{s:s,s:s,s:s}", "request", what, "order_id", order, "place", place);
        ctl_print_json(line);
        json_decref(line);
    } else {
        printf("%s %s is in Kafka: %s\n", what, order, place);
    }
}

/* Sends what is written. ends: what to wait for. */
static int deliver(const struct saga_event *request, const char *order, const struct wait *ends)
{
    char place[128];
    struct wait w = *ends;
    if (print_only) {
        print_written();
        return CTL_OK;
    }
    if (wait_s)
        ctl_follow(order);
    ctl_send(order, written.at, written.n);
    ctl_flush(order, place);
    w.place = place;
    told(request->type, order, place);
    return wait_s ? await(order, &w) : CTL_OK;
}

/* ---- order place ---- */

static int64_t number(const char *text, size_t n, const char *what)
{
    char copy[32], *end;
    snprintf(copy, sizeof copy, "%.*s", (int)n, text);
    int64_t v = strtoll(copy, &end, 10);
    if (!n || n >= sizeof copy || *end)
        ctl_die(CTL_USAGE, "%.*s: expected a whole number as %s", (int)(n < 40 ? n : 40), text,
                what);
    return v;
}

/* SKU:QTY:PRICE; an SKU may hold colons itself. */
static struct line read_line(const char *text)
{
    const char *price = strrchr(text, ':'), *quantity = price;
    while (quantity && quantity > text && *--quantity != ':')
        ;
    if (!quantity || *quantity != ':' || quantity == text || quantity == price)
        ctl_die(CTL_USAGE, "--line %.80s: expected SKU:QUANTITY:PRICE", text);
    return (struct line){.sku = strndup(text, (size_t)(quantity - text)),
                         .quantity =
                             number(quantity + 1, (size_t)(price - quantity - 1), "quantity"),
                         .unit_price = number(price + 1, strlen(price + 1), "price")};
}

/* What list says of the SKU before it; -1: what stands before the first one. */
static const char *of_sku(const struct ctl_list *list, int sku, const char *otherwise)
{
    int from = sku < 0 ? -1 : skus.turn[sku], n = 0;
    const char *found = otherwise;
    for (int i = 0; i < list->n; i++)
        if (list->turn[i] > from && (sku + 1 == skus.n || list->turn[i] < skus.turn[sku + 1])) {
            found = list->at[i];
            n++;
        }
    if (n > (sku >= 0))
        ctl_die(CTL_USAGE, "--quantity and --price: each goes with a --sku before it");
    return found;
}

static struct lines read_lines(void)
{
    static struct line lines[2 * MAX_LINES];
    int n = 0;
    of_sku(&quantities, -1, NULL);
    of_sku(&prices, -1, NULL);
    for (int i = 0; i < skus.n; i++) {
        const char *q = of_sku(&quantities, i, "1"), *p = of_sku(&prices, i, "100");
        lines[n++] = (struct line){skus.at[i], number(q, strlen(q), "--quantity"),
                                   number(p, strlen(p), "--price")};
    }
    for (int i = 0; i < line_texts.n; i++)
        lines[n++] = read_line(line_texts.at[i]);
    if (n == 0)
        lines[n++] = (struct line){"apple", 1, 100};
    return (struct lines){n, lines};
}

static const char *random_id(void)
{
    static char text[37];
    uuid_t uuid;
    uuid_generate(uuid);
    uuid_unparse_lower(uuid, text);
    return text;
}

/* The i-th of rate a second, counted from the first: a late one does not delay those after it. */
static void pace(int64_t i)
{
    static struct timespec due;
    if (!rate)
        return;
    if (i == 1)
        clock_gettime(CLOCK_MONOTONIC, &due);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    due.tv_nsec += 1000000000 / rate;
    due.tv_sec += due.tv_nsec / 1000000000;
    due.tv_nsec %= 1000000000;
}

/* BASE-1 to BASE-COUNT. */
static int place_many(struct order *o)
{
    static char base[64];
    struct ctl_bulk bulk = {.base = base, .count = count, .later = later};
    if (id && strlen(id) > 56)
        ctl_die(CTL_USAGE, "--id: at most 56 characters with --count, which adds a number");
    snprintf(base, sizeof base, id ? "%.56s" : "bulk-%.8s", id ? id : random_id());
    if (wait_s && !print_only)
        ctl_bulk_begin(&bulk);
    for (int64_t i = 1; i <= count; i++) {
        char order[96];
        snprintf(order, sizeof order, "%s-%" PRId64, base, i);
        pace(i);
        write_request(&place_order, order, o);
        if (print_only)
            print_written();
        else
            ctl_send(order, written.at, written.n);
    }
    return print_only ? CTL_OK : ctl_bulk_end(&bulk, wait_s);
}

static int place(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct order o = {.customer_id = customer,
                      .currency = currency,
                      .lines = read_lines(),
                      .payment = {later ? LATER : NOW, later ? NULL : token}};
    if (rate && !count)
        ctl_die(CTL_USAGE, "--rate goes with --count");
    if (count)
        return place_many(&o);
    const char *order = id ? id : random_id();
    write_request(&place_order, order, &o);
    return deliver(
        &place_order, order,
        &(struct wait){.ends = {later ? "InventoryReserved" : "OrderPaid", "OrderCancelled"}});
}

/* ---- The others ---- */

static int pay(int n, char **args)
{
    (void)n;
    write_request(&pay_order, args[0], &(struct pay){pay_token});
    return deliver(&pay_order, args[0], &(struct wait){.ends = {"OrderPaid", "OrderCancelled"}});
}

static int cancel(int n, char **args)
{
    (void)n;
    write_request(&cancel_order, args[0], &(struct reason){reason});
    return deliver(&cancel_order, args[0], &(struct wait){.ends = {"OrderCancelled"}});
}

static int ship(int n, char **args)
{
    (void)n;
    write_request(&ship_order, args[0], &(struct shipping){tracking});
    return deliver(&ship_order, args[0], &(struct wait){.ends = {"OrderShipped"}});
}

static int complete(int n, char **args)
{
    (void)n;
    char none[256] = {0}; /* CompleteOrder has no members */
    write_request(&complete_order, args[0], none);
    return deliver(&complete_order, args[0], &(struct wait){.ends = {"OrderCompleted"}});
}

#define WAIT                                                                                       \
    {                                                                                              \
        "wait", "SECONDS", "print the timeline as it grows, until the outcome",                    \
            .number = &wait_s, .min = 1, .max = 86400                                              \
    }
#define PRINT                                                                                      \
    {                                                                                              \
        "print", NULL, "print the JSON line instead of sending it", .flag = &print_only            \
    }

static const struct ctl_option place_options[] = {
    {"id", "ID", "the order's id; default a random UUID", .text = &id},
    {"customer", "ID", "default customer-1", .text = &customer},
    {"currency", "CODE", "default EUR", .text = &currency},
    {"sku", "SKU", "what is ordered (repeatable); default apple", .list = &skus},
    {"quantity", "N", "of the --sku before it; default 1", .list = &quantities},
    {"price", "N", "of one piece of the --sku before it, in minor units; default 100",
     .list = &prices},
    {"line", "SKU:N:PRICE", "the three in one (repeatable)", .list = &line_texts},
    {"token", "TOKEN", "means of payment; default tok_ok", .text = &token},
    {"later", NULL, "to be paid by order pay, before the deadline", .flag = &later},
    {"count", "N", "N such orders, ID-1 to ID-N", .number = &count, .min = 1, .max = 10000000},
    {"rate", "N", "that many of them a second; default as fast as can be", .number = &rate,
     .min = 1, .max = 1000000},
    WAIT,
    PRINT,
    {0},
};
static const struct ctl_option pay_options[] = {
    {"token", "TOKEN", "means of payment; default tok_ok", .text = &pay_token}, WAIT, PRINT, {0}};
static const struct ctl_option cancel_options[] = {
    {"reason", "TEXT", "default customer", .text = &reason}, WAIT, PRINT, {0}};
static const struct ctl_option ship_options[] = {
    {"tracking", "TEXT", "the parcel's number", .text = &tracking}, WAIT, PRINT, {0}};
static const struct ctl_option complete_options[] = {WAIT, PRINT, {0}};

const struct ctl_command ctl_requests[] = {
    {"order place", "", 0, 0, "places an order",
     "  sagactl order place --sku apple --quantity 2 --price 450 --wait 10\n"
     "  sagactl order place --id ord-1 --line apple:2:450 --line pear:1:300 --token tok_declined\n"
     "  sagactl order place --count 1000 --rate 200 --wait 60\n"
     "  sagactl order place --print | kafka-console-producer --topic order.requests\n",
     place_options, place},
    {"order cancel", "ID", 1, 1, "cancels an order",
     "  sagactl order cancel ord-1 --reason 'changed my mind' --wait 10\n", cancel_options, cancel},
    {"order pay", "ID", 1, 1, "pays an order that was placed with --later",
     "  sagactl order pay ord-1 --token tok_ok --wait 10\n", pay_options, pay},
    {"order ship", "ID", 1, 1, "ships a paid order",
     "  sagactl order ship ord-1 --tracking 1Z999 --wait 10\n", ship_options, ship},
    {"order complete", "ID", 1, 1, "completes a shipped order",
     "  sagactl order complete ord-1 --wait 10\n", complete_options, complete},
    {0},
};
