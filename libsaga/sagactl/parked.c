/* parked list, show, redrive, drop: orders of which something could not be applied, and what is to
 * become of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "http_client.h"

static bool all;

static const char *text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));

    return s ? s : "-";
}

static json_int_t number(const json_t *o, const char *name)
{
    return json_integer_value(json_object_get(o, name));
}

/* ---- Over the services ---- */

static json_t *ask(const struct ctl_service *service, const char *path, const json_t *body,
                   long *status)
{
    const char *why = NULL;
    json_t *answer;

    *status = ctl_http(service, path, body, NULL, &answer, NULL, &why);
    if (*status == 0)
        ctl_die(CTL_AWAY, "%s does not answer at %s (%s): %s", service->name, ctl_url(service),
                service->variable, why);
    if (*status != 404 && (*status >= 300 || !answer))
        ctl_refused(service->name, *status, answer);
    return answer;
}

/* Calls each(service, order) for every parked order, page by page. -> how many */
static int each_order(const struct ctl_service *service,
                      void (*each)(const struct ctl_service *service, const json_t *order))
{
    char path[256] = "/parked", *escaped;
    int n = 0;

    for (const char *next = ""; next;) {
        long status;
        json_t *answer = ask(service, path, NULL, &status), *order;
        size_t i;
        json_array_foreach(json_object_get(answer, "parked"), i, order) each(service, order), n++;
        if ((next = json_string_value(json_object_get(answer, "next")))) {
            escaped = ctl_escape(next);
            snprintf(path, sizeof path, "/parked?after=%s", escaped);
            free(escaped);
        }
        json_decref(answer);
    }
    return n;
}

static const struct ctl_service *service_named(const char *name)
{
    const struct ctl_service *service = ctl_service(name);

    if (!service)
        ctl_die(CTL_USAGE, "%.40s: expected order, inventory or payment", name);
    return service;
}

/* ---- Showing ---- */

static void print_order(const struct ctl_service *service, const json_t *order)
{
    if (ctl_json) {
        json_t *line = json_copy((json_t *)(uintptr_t)order);
        json_object_set_new(line, "service", json_string(service->name));
        ctl_print_json(line);
        json_decref(line);
        return;
    }
    printf("%-14s %-36s %6lld  %-27s  %-8s %s: %s\n", service->name, text(order, "order_id"),
           number(order, "inputs"), text(order, "since"), text(order, "mark"), text(order, "input"),
           ctl_plain(text(order, "reason")));
}

static int list(int n, char **args)
{
    const struct ctl_service *one = n ? service_named(args[0]) : NULL;
    int found = 0;

    if (!ctl_json)
        printf("%-14s %-36s %6s  %-27s  %-8s %s\n", "SERVICE", "ORDER", "INPUTS", "SINCE", "MARK",
               "WHY");
    for (int i = 0; i < CTL_SERVICES; i++)
        if (!one || one == &ctl_services[i])
            found += each_order(&ctl_services[i], print_order);
    if (!ctl_json && !found)
        printf("nothing is parked\n");
    return CTL_OK;
}

static void print_input(const struct ctl_service *service, const json_t *input)
{
    char *value = json_dumps(json_object_get(input, "value"), JSON_INDENT(2) | JSON_ENCODE_ANY);

    printf("%s  %s  %s  caused by %s%s%s\n  %s\n  %s\n", text(input, "at"), service->name,
           text(input, "input"), text(input, "id"), *text(input, "mark") == '-' ? "" : "  to be ",
           strcmp(text(input, "mark"), "redrive") == 0 ? "redriven"
           : *text(input, "mark") == '-'               ? ""
                                                       : "dropped",
           ctl_plain(text(input, "reason")), value ? value : "");
    free(value);
}

static int show(int n, char **args)
{
    char path[512], *id = ctl_escape(args[0]);
    int found = 0;

    (void)n;
    snprintf(path, sizeof path, "/parked/%.400s", id);
    free(id);
    for (int i = 0; i < CTL_SERVICES; i++) {
        long status;
        json_t *answer = ask(&ctl_services[i], path, NULL, &status), *input;
        size_t k;
        if (status == 404) {
            json_decref(answer);
            continue;
        }
        found++;
        json_object_set_new(answer, "service", json_string(ctl_services[i].name));
        if (ctl_json)
            ctl_print_json(answer);
        else
            json_array_foreach(json_object_get(answer, "inputs"), k, input)
                print_input(&ctl_services[i], input);
        json_decref(answer);
    }
    if (!found)
        ctl_die(CTL_NO, "nothing of order %.64s is parked", args[0]);
    return CTL_OK;
}

/* ---- Deciding ---- */

static const char *verb;

/* -> whether something of it was parked there */
static bool decide(const struct ctl_service *service, const char *order)
{
    char path[512], *id = ctl_escape(order);
    json_t *body = json_object();
    long status;

    snprintf(path, sizeof path, "/parked/%.400s/%s", id, verb);
    json_t *answer = ask(service, path, body, &status);
    if (status != 404 && ctl_json) {
        json_object_set_new(answer, "service", json_string(service->name));
        ctl_print_json(answer);
    } else if (status != 404) {
        printf("%s: %lld inputs of order %s are to be %s\n", service->name,
               number(answer, "inputs"), order, strcmp(verb, "drop") ? "redriven" : "dropped");
    }
    json_decref(answer);
    json_decref(body);
    free(id);
    return status != 404;
}

static void decide_one(const struct ctl_service *service, const json_t *order)
{
    decide(service, text(order, "order_id"));
}

static int redrive(int n, char **args)
{
    int found = 0;

    verb = "redrive";
    if (!all == !n)
        ctl_die(CTL_USAGE, "expected an order, or --all");
    for (int i = 0; i < CTL_SERVICES; i++)
        found += n ? decide(&ctl_services[i], args[0]) : each_order(&ctl_services[i], decide_one);
    if (!found)
        ctl_die(CTL_NO, n ? "nothing of order %.64s is parked" : "nothing is parked",
                n ? args[0] : "");
    return CTL_OK;
}

static int drop(int n, char **args)
{
    (void)n;
    verb = "drop";
    if (!decide(service_named(args[0]), args[1]))
        ctl_die(CTL_NO, "nothing of order %.64s is parked in %s", args[1],
                service_named(args[0])->name);
    return CTL_OK;
}

static const struct ctl_option redrive_options[] = {
    {"all", NULL, "every order that is parked", .flag = &all}, {0}};

const struct ctl_command ctl_parked[] = {
    {"parked list", "[SERVICE]", 0, 1, "lists orders of which something could not be applied",
     "  sagactl parked list\n"
     "  sagactl parked list payment --json\n",
     NULL, list},
    {"parked show", "ORDER", 1, 1, "shows what waits of an order, and why",
     "  sagactl parked show ord-17\n", NULL, show},
    {"parked redrive", "[ORDER]", 0, 1, "applies what waits of an order, in its order",
     "  sagactl parked redrive ord-17\n"
     "  sagactl parked redrive --all\n",
     redrive_options, redrive},
    {"parked drop", "SERVICE ORDER", 2, 2, "gives up what waits of an order, for ever",
     "  sagactl parked drop inventory ord-17\n", NULL, drop},
    {0},
};
