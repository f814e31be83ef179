/* lanes: where each lane of each service stands, as the processes tell. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "http_client.h"

static json_int_t number(const json_t *o, const char *name)
{
    return json_integer_value(json_object_get(o, name));
}

static const char *text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

/* Records not yet read, of all inputs whose end is known. */
static json_int_t lag(const json_t *lane)
{
    json_int_t sum = 0;
    size_t i;
    const json_t *input;
    json_array_foreach(json_object_get(lane, "inputs"), i, input) sum += number(input, "lag");
    return sum;
}

static void print(const char *service, json_t *lane)
{
    if (ctl_json) {
        json_object_set_new(lane, "service", json_string(service));
        ctl_print_json(lane);
        return;
    }
    printf("%-14s %5lld  %-8s %14lld %12lld %12lld %8lld\n", service, number(lane, "lane"),
           text(lane, "state"), number(lane, "term"), number(lane, "last_seq"),
           number(lane, "published"), lag(lane));
    if (*text(lane, "why"))
        printf("%22s%s\n", "", text(lane, "why"));
    size_t i;
    const json_t *input;
    json_array_foreach(json_object_get(lane, "inputs"), i, input)
    {
        if (json_is_integer(json_object_get(input, "held")))
            printf("%22s%s: a gap is open, held at offset %lld\n", "", text(input, "topic"),
                   number(input, "held"));
        if (json_is_true(json_object_get(input, "stopped")))
            printf("%22s%s: this input is stopped\n", "", text(input, "topic"));
    }
}

static int show(const struct ctl_service *service)
{
    json_t *answer, *lane;
    const char *why = "no lanes in the answer";
    size_t i;
    long status = ctl_http(service, "/lanes", NULL, NULL, &answer, NULL, &why);
    if (status != 200 || !answer) {
        fprintf(stderr, "sagactl: %s does not answer at %s (%s): %s\n", service->name,
                ctl_url(service), service->variable, why);
        json_decref(answer);
        return CTL_AWAY;
    }
    json_t *list = json_object_get(answer, "lanes");
    json_array_foreach(list, i, lane) print(service->name, lane);
    if (!ctl_json && (json_int_t)json_array_size(list) < number(answer, "total"))
        printf("%-14s %zu of %lld lanes are with this process\n", service->name,
               json_array_size(list), number(answer, "total"));
    json_decref(answer);
    return CTL_OK;
}

static int lanes(int n, char **args)
{
    const struct ctl_service *one = n ? ctl_service(args[0]) : NULL;
    int status = CTL_OK;
    if (n && !one)
        ctl_die(CTL_USAGE, "%.40s: expected order, inventory or payment", args[0]);
    if (!ctl_json)
        printf("%-14s %5s  %-8s %14s %12s %12s %8s\n", "SERVICE", "LANE", "STATE", "TERM",
               "LAST SEQ", "PUBLISHED", "LAG");
    for (int i = 0; i < CTL_SERVICES; i++)
        if (!one || one == &ctl_services[i]) {
            int rc = show(&ctl_services[i]);
            status = rc ? rc : status;
        }
    return status;
}

const struct ctl_command ctl_lanes[] = {
    {"lanes", "[SERVICE]", 0, 1, "shows where each lane of each service stands",
     "  sagactl lanes\n"
     "  sagactl lanes payment --json\n",
     NULL, lanes},
    {0},
};
