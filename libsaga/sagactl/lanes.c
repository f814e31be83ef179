/* lanes: where each lane of each service stands, as the processes tell; and what an operator decides
 * about one that has stopped. */
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

/* One word for what keeps a lane or one of its inputs from going on. */
static const char *trouble(const json_t *lane)
{
    const char *found = strcmp(text(lane, "state"), "stopped") == 0 ? "stopped" : "-";
    size_t i;
    const json_t *input;
    json_array_foreach(json_object_get(lane, "inputs"), i, input)
    {
        if (json_is_true(json_object_get(input, "stopped")))
            return "fork";
        if (json_is_integer(json_object_get(input, "held")) && *found == '-')
            found = "gap";
    }
    return found;
}

static void print(const char *service, json_t *lane)
{
    if (ctl_json) {
        json_object_set_new(lane, "service", json_string(service));
        ctl_print_json(lane);
        return;
    }
    printf("%-14s %5lld  %-8s %14lld %12lld %12lld %8lld  %s\n", service, number(lane, "lane"),
           text(lane, "state"), number(lane, "term"), number(lane, "last_seq"),
           number(lane, "published"), lag(lane), trouble(lane));
    if (*text(lane, "why"))
        printf("%22s%s\n", "", ctl_plain(text(lane, "why")));
    size_t i;
    const json_t *input;
    json_array_foreach(json_object_get(lane, "inputs"), i, input)
    {
        if (*text(input, "why"))
            printf("%22s%s\n", "", ctl_plain(text(input, "why")));
        else if (json_is_integer(json_object_get(input, "held")))
            printf("%22s%s: a gap is open, held at offset %lld\n", "", text(input, "topic"),
                   number(input, "held"));
    }
}

static int show(const struct ctl_service *service)
{
    json_t *answer, *lane;
    const char *why = "no lanes in the answer";
    size_t i;
    long status = ctl_http(service, "/lanes", NULL, NULL, &answer, NULL, &why);
    if (status && status != 200)
        ctl_refused(service->name, status, answer);
    if (!status || !answer) {
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
        printf("%-14s %5s  %-8s %14s %12s %12s %8s  %s\n", "SERVICE", "LANE", "STATE", "TERM",
               "LAST SEQ", "PUBLISHED", "LAG", "TROUBLE");
    for (int i = 0; i < CTL_SERVICES; i++)
        if (!one || one == &ctl_services[i]) {
            int rc = show(&ctl_services[i]);
            status = rc ? rc : status;
        }
    return status;
}

/* ---- lane ---- */

/* What each command is for; the services say what they did, or why not. */
static const char *const decisions[] = {"accept-gap", "republish", "restart", NULL};

static void say(const json_t *answer)
{
    const json_t *last = json_object_get(answer, "last_id");
    const char *topic = text(answer, "topic");
    printf("%s lane %lld: %s done, term %lld", text(answer, "service"), number(answer, "lane"),
           text(answer, "command"), number(answer, "term"));
    if (*topic)
        printf("; %s is read on at offset %lld", topic, number(answer, "next_offset"));
    if (json_is_integer(json_object_get(answer, "published")))
        printf("; published again above sequence %lld", number(answer, "published"));
    if (last)
        printf("; goes on behind %s",
               json_is_string(last) ? json_string_value(last) : "nothing: the first event");
    printf(". \"sagactl lanes\" shows what becomes of it\n");
}

static int decide(int n, char **args)
{
    const struct ctl_service *service = ctl_service(args[0]);
    char *end, path[100];
    long lane = strtol(args[1], &end, 10);
    const char *why = "no answer", *const *known = decisions;
    if (!service)
        ctl_die(CTL_USAGE, "%.40s: expected order, inventory or payment", args[0]);
    if (*end || !*args[1] || lane < 0)
        ctl_die(CTL_USAGE, "%.40s: expected the number of a lane", args[1]);
    while (*known && strcmp(*known, args[2]))
        known++;
    if (!*known)
        ctl_die(CTL_USAGE, "%.40s: expected accept-gap, republish or restart", args[2]);
    if (n > 3 && *known != decisions[0])
        ctl_die(CTL_USAGE, "%.40s: only accept-gap is told a topic", args[3]);
    json_t *answer, *body = n > 3 ? json_pack("{s:s}", "topic", args[3]) : json_object();
    snprintf(path, sizeof path, "/lanes/%ld/%s", lane, *known);
    long status = ctl_http(service, path, body, NULL, &answer, NULL, &why);
    json_decref(body);
    if (status == 0)
        ctl_die(
            CTL_AWAY,
            "%s does not answer at %s (%s): %s. Should it have been asked, it may have done it: "
            "\"sagactl lanes\" shows the lane's term",
            service->name, ctl_url(service), service->variable, why);
    if (status != 200)
        ctl_refused(service->name, status, answer);
    if (ctl_json)
        ctl_print_json(answer);
    else
        say(answer);
    json_decref(answer);
    return CTL_OK;
}

const struct ctl_command ctl_lanes[] = {
    {"lanes", "[SERVICE]", 0, 1, "shows where each lane of each service stands",
     "  sagactl lanes\n"
     "  sagactl lanes payment --json\n",
     NULL, lanes},
    {"lane", "SERVICE LANE COMMAND [TOPIC]", 3, 4,
     "accept-gap, republish or restart: decides what becomes of a lane that lost something",
     "  sagactl lanes                                  what was found, and what can be decided\n"
     "  sagactl lane inventory 3 accept-gap order.events   goes on with the record that is held,\n"
     "                                                 without what is missing before it\n"
     "  sagactl lane order 3 accept-gap order.requests     reads again from the earliest request\n"
     "  sagactl lane order 3 republish                 Kafka is behind: publishes what the outbox "
     "has\n"
     "  sagactl lane order 3 restart --json            goes on behind the newest event in Kafka\n",
     NULL, decide},
    {0},
};
