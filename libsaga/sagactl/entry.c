/* Reads the records of all topics, orders them, and prints them as lines. */
#include "entry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl.h"
#include "events.h"

static bool ends_in(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static const struct saga_header *header(const struct saga_record *r, const char *name)
{
    for (int i = 0; i < r->headers_n; i++)
        if (r->headers[i].value && strcmp(r->headers[i].name, name) == 0)
            return &r->headers[i];
    return NULL;
}

/* Text that is not UTF-8 becomes "?": jansson refuses it, and it must be shown somehow. */
static json_t *text_json(const char *s, size_t n)
{
    json_t *t = json_stringn(s, n);
    return t ? t : json_string("?");
}

static void set(json_t *o, const char *name, json_t *value)
{
    json_object_set_new(o, name, value);
}

static const char *text_of(const json_t *o, const char *name, const char *otherwise)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : otherwise;
}

/* ---- Reading ---- */

static void read_event(const struct saga_record *r, json_t *o)
{
    static const char *const copied[][2] = {{"id", "id"},
                                            {"type", "type"},
                                            {"subject", "order_id"},
                                            {"previousid", "previousid"},
                                            {"causationid", "cause"},
                                            {"data", "data"}};
    json_t *event =
        r->value ? json_loadb(r->value, r->value_n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
        json_t *v = json_object_get(event, copied[i][0]);
        if (v && (json_is_string(v) || strcmp(copied[i][1], "data") == 0))
            json_object_set(o, copied[i][1], v);
    }
    json_decref(event);
}

/* The data as it would be written plainly, so that every accepted form looks the same. */
static void put_request(const struct saga_message *m, json_t *o)
{
    struct saga_buf plain = {0};
    saga_request_write(m->event, m->key, m->data, &plain);
    json_t *data = json_loadb(plain.at, plain.n, 0, NULL);
    saga_buf_free(&plain);
    set(o, "type", json_string(m->type));
    set(o, "order_id", json_string(m->key));
    if (!data)
        return;
    json_object_del(data, "type");
    json_object_del(data, "order_id");
    set(o, "data", data);
}

static void read_request(const struct saga_record *r, json_t *o)
{
    static struct saga_arena arena;
    struct saga_message m = {0};
    struct saga_err err = {0};
    const char *reason = NULL;
    char place[160];
    snprintf(place, sizeof place, "%s/%d/%" PRId64, r->topic, r->partition, r->offset);
    set(o, "id", json_string(place));
    if (saga_request_read(r, all_requests, &place_order, "", &arena, &m, &reason, &err) == 0 &&
        m.event && m.data) {
        put_request(&m, o);
        const struct saga_header *from = header(r, "forwarded-from");
        if (from) { /* order-svc has passed it on to its lane (DESIGN.md 4.5) */
            set(o, "cause", text_json(from->value, from->n));
            set(o, "forwarded", json_true());
        }
    } else {
        set(o, "reason", json_string(reason ? reason : "invalid"));
        set(o, "detail", text_json(err.text, strlen(err.text)));
    }
    saga_arena_reset(&arena);
}

/* Its dlq-* headers are "letter"; what people look for first stands beside them. */
static void read_dead_letter(const struct saga_record *r, json_t *o)
{
    json_t *letter = json_object();
    for (int i = 0; i < r->headers_n; i++) {
        const struct saga_header *h = &r->headers[i];
        if (h->value && strncmp(h->name, "dlq-", 4) == 0)
            set(letter, h->name + 4, text_json(h->value, h->n));
    }
    set(o, "cause",
        json_sprintf("%s/%s/%s", text_of(letter, "topic", "?"), text_of(letter, "partition", "?"),
                     text_of(letter, "offset", "?")));
    set(o, "type", json_string(text_of(letter, "reason", "(no reason)")));
    if (json_object_get(letter, "id"))
        json_object_set(o, "id", json_object_get(letter, "id"));
    set(o, "detail", json_string(text_of(letter, "detail", "")));
    set(o, "letter", letter);
    if (r->key)
        set(o, "order_id", text_json(r->key, r->key_n));
}

static void put_time(json_t *o, int64_t ms)
{
    char text[64];
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    size_t n = strftime(text, 40, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(ms % 1000));
    set(o, "time", json_string(text));
}

void ctl_entry_read(const struct saga_record *r, struct ctl_entry *e)
{
    json_t *o = json_object();
    char service[64];
    if (ends_in(r->topic, ".requests"))
        snprintf(service, sizeof service, "client");
    else if (ends_in(r->topic, ".dlq"))
        snprintf(service, sizeof service, "dead letter");
    else
        snprintf(service, sizeof service, "%.*s-svc", (int)strcspn(r->topic, "."), r->topic);
    if (*service == 'c')
        read_request(r, o);
    else if (*service == 'd')
        read_dead_letter(r, o);
    else
        read_event(r, o);
    put_time(o, r->time_ms);
    set(o, "service", json_string(json_object_get(o, "forwarded") ? "order-svc" : service));
    set(o, "topic", json_string(r->topic));
    set(o, "partition", json_integer(r->partition));
    set(o, "offset", json_integer(r->offset));
    if (!json_object_get(o, "type"))
        set(o, "type", json_string("(unreadable)"));
    *e = (struct ctl_entry){.json = o,
                            .service = text_of(o, "service", ""),
                            .type = text_of(o, "type", ""),
                            .key = text_of(o, "order_id", ""),
                            .id = text_of(o, "id", ""),
                            .cause = text_of(o, "cause", NULL),
                            .topic = text_of(o, "topic", ""),
                            .partition = r->partition,
                            .offset = r->offset,
                            .time_ms = r->time_ms,
                            .copies = 1};
}

void ctl_entry_free(struct ctl_entry *e)
{
    json_decref(e->json);
    *e = (struct ctl_entry){0};
}

bool ctl_entry_may_be(const struct saga_record *r, const char *order)
{
    size_t n = strlen(order);
    if (r->key && r->key_n == n && memcmp(r->key, order, n) == 0)
        return true;
    return ends_in(r->topic, ".requests") || ends_in(r->topic, ".dlq");
}

bool ctl_place_read(const char *place, char topic[128], int32_t *partition, int64_t *offset)
{
    int end = 0;
    long long o;
    if (sscanf(place, "%127[^/]/%" SCNd32 "/%lld%n", topic, partition, &o, &end) != 3 ||
        place[end] || *partition < 0 || o < 0)
        return false;
    *offset = o;
    return true;
}

/* ---- Ordering ---- */

static int merge_copies(struct ctl_entry *e, int n)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        int j = 0;
        while (j < kept &&
               (!*e[i].id || strcmp(e[j].id, e[i].id) != 0 || strcmp(e[j].topic, e[i].topic) != 0))
            j++;
        if (j == kept) {
            e[kept++] = e[i];
        } else {
            e[j].copies++;
            ctl_entry_free(&e[i]);
        }
    }
    return kept;
}

/* Whether b must stand before a. */
static bool follows(const struct ctl_entry *a, const struct ctl_entry *b)
{
    if (a->cause && *b->id && strcmp(a->cause, b->id) == 0)
        return true;
    return a->partition == b->partition && a->offset > b->offset && strcmp(a->topic, b->topic) == 0;
}

static bool is_free(const struct ctl_entry *e, int i, int from, int n)
{
    for (int j = from; j < n; j++)
        if (j != i && follows(&e[i], &e[j]))
            return false;
    return true;
}

int ctl_entries_order(struct ctl_entry *e, int n)
{
    n = merge_copies(e, n);
    for (int at = 0; at < n; at++) {
        int best = -1;
        for (int i = at; i < n; i++)
            if ((best < 0 || e[i].time_ms < e[best].time_ms) && is_free(e, i, at, n))
                best = i;
        if (best < 0) /* a ring of causes: no such thing is written by us */
            best = at;
        struct ctl_entry first = e[best];
        memmove(&e[at + 1], &e[at], (size_t)(best - at) * sizeof *e);
        e[at] = first;
    }
    return n;
}

/* ---- Printing ---- */

static void print_lines(const json_t *lines)
{
    size_t i;
    const json_t *line;
    const char *sep = " ";
    json_array_foreach(lines, i, line)
    {
        printf("%s%" JSON_INTEGER_FORMAT " %s", sep,
               json_integer_value(json_object_get(line, "quantity")),
               ctl_plain(text_of(line, "sku", "?")));
        sep = " + ";
    }
}

/* The members that tell something at a glance. Tokens are a means of payment, ids are long: both
 * are in --json. */
static void print_data(const json_t *data)
{
    static const char *const told[] = {"request", "reason", "status", "sku", "tracking", "detail"};
    const json_t *amount = json_object_get(data, "amount");
    print_lines(json_object_get(data, "lines"));
    if (amount)
        printf(" %" JSON_INTEGER_FORMAT " %s", json_integer_value(amount),
               ctl_plain(text_of(data, "currency", "")));
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        if (*text_of(data, told[i], ""))
            printf(" %s=%s", told[i], ctl_plain(text_of(data, told[i], "")));
    const char *mode = text_of(json_object_get(data, "payment"), "mode", "now");
    if (strcmp(mode, "now") != 0)
        printf(" pay %s", ctl_plain(mode));
}

static void print_what(const struct ctl_entry *e)
{
    bool foreign = strcmp(e->service, "dead letter") == 0 || strcmp(e->type, "(unreadable)") == 0;
    print_data(foreign ? e->json : json_object_get(e->json, "data"));
    if (json_object_get(e->json, "forwarded"))
        printf("  (forwarded to its lane)");
    if (e->copies > 1)
        printf("  (written %d times)", e->copies);
}

void ctl_entry_print(const struct ctl_entry *e)
{
    char clock[13], place[32];
    if (ctl_json) {
        ctl_print_json(e->json);
        return;
    }
    snprintf(place, sizeof place, "%d@%" PRId64, e->partition, e->offset);
    printf("%s  %s%-13s  %-21s%s  %-24s  %-16s %8s ", ctl_clock(e->time_ms, clock),
           ctl_colour(e->service), e->service, ctl_plain(e->type), ctl_colour(NULL),
           *e->key ? ctl_plain(e->key) : "-", e->topic, place);
    print_what(e);
    putchar('\n');
}

/* What caused e[i], by its name where the timeline has it. */
static const char *cause_of(const struct ctl_entry *e, int i)
{
    if (!e[i].cause)
        return "";
    for (int j = 0; j < i; j++)
        if (strcmp(e[j].id, e[i].cause) == 0)
            return e[j].type;
    return e[i].cause;
}

void ctl_timeline_print(const struct ctl_entry *e, int i)
{
    char clock[13], delta[32] = "", place[32];
    const char *cause = cause_of(e, i);
    if (ctl_json) {
        ctl_print_json(e[i].json);
        return;
    }
    if (i > 0)
        snprintf(delta, sizeof delta, "+%" PRId64 " ms", e[i].time_ms - e[i - 1].time_ms);
    snprintf(place, sizeof place, "%d@%" PRId64, e[i].partition, e[i].offset);
    printf("  %s %10s  %s%-13s  %-21s%s %8s  %s%-21s", ctl_clock(e[i].time_ms, clock), delta,
           ctl_colour(e[i].service), e[i].service, ctl_plain(e[i].type), ctl_colour(NULL), place,
           *cause ? "<- " : "   ", ctl_plain(cause));
    print_what(&e[i]);
    putchar('\n');
}
