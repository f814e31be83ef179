/* dlq list, show, redrive: the dead letters of the three services. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "dlq.h"
#include "events.h"
#include "kafka.h"

static const char *const topics[] = {"order.dlq", "inventory.dlq", "payment.dlq", NULL};

static const char *letter(const struct ctl_entry *e, const char *name)
{
    const char *s = json_string_value(json_object_get(json_object_get(e->json, "letter"), name));
    return s ? s : "-";
}

static void print(const struct ctl_entry *e)
{
    char place[64], clock[13];
    if (ctl_json) {
        ctl_print_json(e->json);
        return;
    }
    snprintf(place, sizeof place, "%s/%d/%" PRId64, e->topic, e->partition, e->offset);
    printf("%-22s %s  %-13s  %-12s  %-20s  %s", place, ctl_clock(e->time_ms, clock),
           ctl_plain(letter(e, "service")), ctl_plain(e->type), *e->key ? ctl_plain(e->key) : "-",
           ctl_plain(letter(e, "detail")));
    if (e->copies > 1)
        printf("  (written %d times)", e->copies);
    putchar('\n');
}

static int by_time(const void *a, const void *b)
{
    int64_t x = ((const struct ctl_entry *)a)->time_ms, y = ((const struct ctl_entry *)b)->time_ms;
    return x < y ? -1 : x > y;
}

/* Copies of a letter stand beside each other, the first one first. */
static int by_id(const void *a, const void *b)
{
    const struct ctl_entry *x = a, *y = b;
    int order = strcmp(x->topic, y->topic);
    if (order == 0)
        order = strcmp(x->id, y->id);
    return order ? order : by_time(a, b);
}

static bool is_mark(const struct ctl_entry *e)
{
    return strcmp(letter(e, "redriven"), "-") != 0;
}

static bool is_copy(const struct ctl_entry *e, const struct ctl_entry *of)
{
    return *e->id && strcmp(e->id, of->id) == 0 && strcmp(e->topic, of->topic) == 0;
}

/* What was written again after a crash is one letter; what was redriven is none. -> the number left, by
 * time */
static size_t once_each(struct ctl_entry *e, size_t n)
{
    size_t kept = 0;
    if (n)
        qsort(e, n, sizeof *e, by_id);
    for (size_t i = 0; i < n; i++)
        if (kept && is_copy(&e[i], &e[kept - 1])) {
            e[kept - 1].copies++;
            e[kept - 1].redriven |= is_mark(&e[i]);
            ctl_entry_free(&e[i]);
        } else {
            e[i].redriven = is_mark(&e[i]); /* the letter itself has expired */
            e[kept++] = e[i];
        }
    n = kept;
    kept = 0;
    for (size_t i = 0; i < n; i++)
        if (e[i].redriven)
            ctl_entry_free(&e[i]);
        else
            e[kept++] = e[i];
    if (kept)
        qsort(e, kept, sizeof *e, by_time);
    return kept;
}

void ctl_letters_print(struct ctl_entry *e, size_t n)
{
    n = once_each(e, n);
    if (!ctl_json && n)
        printf("%-22s %-12s  %-13s  %-12s  %-20s  %s\n", "PLACE", "TIME", "SERVICE", "REASON",
               "KEY", "DETAIL");
    else if (!ctl_json)
        printf("no dead letters\n");
    for (size_t i = 0; i < n; i++) {
        print(&e[i]);
        ctl_entry_free(&e[i]);
    }
}

static int list(int argc, char **argv)
{
    (void)argc, (void)argv;
    struct ctl_entry *e = NULL;
    size_t n = 0, cap = 0;
    struct saga_record record;
    ctl_read(&(struct ctl_where){
        .topics = topics, .partition = -1, .from = CTL_BEGINNING, .bounded = true});
    for (int rc; (rc = ctl_next(1000, &record)) >= 0;) {
        if (rc == 0)
            continue;
        if (n == cap)
            e = saga_realloc(e, (cap = cap ? 2 * cap : 64) * sizeof *e);
        ctl_entry_read(&record, &e[n++]);
    }
    ctl_letters_print(e, n);
    free(e);
    return CTL_OK;
}

/* Bytes as text: what is no printable ASCII or UTF-8 letter is \xNN, so that no terminal is harmed.
 */
static void print_bytes(const char *p, size_t n)
{
    json_t *utf8 = json_stringn(p, n);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        bool c1 = c == 0xC2 && i + 1 < n && (unsigned char)p[i + 1] < 0xA0; /* a control, too */
        if ((c >= ' ' && c != 127 && (c < 128 || (utf8 && !c1))) || c == '\n' || c == '\t')
            putchar(c);
        else
            printf("\\x%02x", c);
    }
    json_decref(utf8);
    putchar('\n');
}

static void print_value(const struct saga_record *r)
{
    if (!r->value) {
        printf("(null)\n");
        return;
    }
    json_t *json = json_loadb(r->value, r->value_n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    char *pretty = json ? json_dumps(json, JSON_INDENT(2) | JSON_ENCODE_ANY) : NULL;
    if (pretty)
        puts(pretty);
    else
        print_bytes(r->value, r->value_n);
    free(pretty);
    json_decref(json);
}

static void print_record(const struct saga_record *r)
{
    for (int i = 0; i < r->headers_n; i++) {
        printf("%s: ", ctl_plain(r->headers[i].name));
        print_bytes(r->headers[i].value ? r->headers[i].value : "(null)",
                    r->headers[i].value ? r->headers[i].n : 6);
    }
    printf("key: ");
    print_bytes(r->key ? r->key : "(null)", r->key ? r->key_n : 6);
    printf("\n");
    print_value(r);
}

/* As list's --json, with the value; JSON text cannot hold one that is not UTF-8. */
static void print_record_json(const struct saga_record *r)
{
    struct ctl_entry e;
    ctl_entry_read(r, &e);
    json_t *text = r->value ? json_stringn(r->value, r->value_n) : json_null();
    json_object_set_new(e.json, "value", text ? text : json_string("(not UTF-8)"));
    ctl_print_json(e.json);
    ctl_entry_free(&e);
}

/* The record at a place; borrowed until the next is read. */
static struct saga_record find(const char *place, char topic[128])
{
    int32_t partition;
    int64_t offset;
    if (!ctl_place_read(place, topic, &partition, &offset))
        ctl_die(CTL_USAGE, "%.100s: expected a place as dlq list prints it, order.dlq/3/17", place);
    if (partition >= ctl_partitions(topic))
        ctl_die(CTL_NO, "%s: there is no such partition", place);
    struct saga_record record;
    ctl_read(&(struct ctl_where){.topics = (const char *const[]){topic, NULL},
                                 .partition = partition,
                                 .from = CTL_OFFSET,
                                 .at = offset,
                                 .bounded = true});
    int rc;
    while ((rc = ctl_next(1000, &record)) == 0)
        ;
    if (rc < 0 || record.offset != offset)
        ctl_die(CTL_NO, "%s: there is no such record (any more)", place);
    return record;
}

static int show(int n, char **args)
{
    (void)n;
    char topic[128];
    struct saga_record record = find(args[0], topic);
    if (ctl_json)
        print_record_json(&record);
    else
        print_record(&record);
    return CTL_OK;
}

/* ---- Redriving ---- */

static const char *value_file;

/* The last one: any before it came with the record. */
static const char *header(const struct saga_record *r, const char *name)
{
    for (int i = r->headers_n - 1; i >= 0; i--)
        if (r->headers[i].value && strcmp(r->headers[i].name, name) == 0)
            return strndup(r->headers[i].value, r->headers[i].n); /* the program ends soon */
    return NULL;
}

static bool starts(const char *s, const char *with)
{
    return strncmp(s, with, strlen(with)) == 0;
}

static void read_value(struct saga_record *r)
{
    struct saga_buf value = {0};
    size_t n = 1;
    FILE *f = strcmp(value_file, "-") == 0 ? stdin : fopen(value_file, "re");
    if (!f)
        ctl_die(CTL_USAGE, "%s: %m", value_file);
    for (; n; value.n += n)
        n = fread(saga_buf_room(&value, 65536), 1, 65536, f);
    if (ferror(f))
        ctl_die(CTL_USAGE, "%s: %m", value_file);
    r->value = value.at;
    r->value_n = value.n;
}

/* Keeps of the headers those that are the letter's (dlq-...), or those of a request: one that had been
 * forwarded is none any more (DESIGN.md 4.5). */
static struct saga_record with_headers(struct saga_record r, bool letters)
{
    struct saga_header *kept = saga_alloc(((size_t)r.headers_n + 1) * sizeof *kept);
    int n = 0;
    for (int i = 0; i < r.headers_n; i++)
        if (letters
                ? starts(r.headers[i].name, "dlq-")
                : !starts(r.headers[i].name, "dlq-") && !starts(r.headers[i].name, "forwarded-"))
            kept[n++] = r.headers[i];
    r.headers = kept;
    r.headers_n = n;
    return r;
}

static int64_t number(const struct saga_record *letter, const char *name)
{
    const char *text = header(letter, name);
    return text ? atoll(text) : 0;
}

/* What the services would refuse again is told here. An order without id gets the one that it would have
 * had where the letter's record stood: however often it is redriven, it is one order. */
static void judge(struct saga_record *r, const struct saga_record *letter)
{
    static struct saga_arena arena;
    struct saga_message m = {0};
    struct saga_err err = {0};
    const char *why = NULL;
    r->topic = "order.requests";
    r->partition = (int32_t)number(letter, "dlq-partition");
    r->offset = number(letter, "dlq-offset");
    r->time_ms = number(letter, "dlq-time");
    if (saga_request_read(r, all_requests, &place_order, "", &arena, &m, &why, &err) < 0)
        ctl_die(CTL_NO, "it would be refused again: %s; --value FILE sends a mended one",
                *err.text ? err.text : why);
    saga_request_forward(r, m.key, &arena, &r->value, &r->value_n);
    r->key = m.key;
    r->key_n = strlen(m.key);
}

static int redrive(int n, char **args)
{
    (void)n;
    char topic[128], place[128], mark[128];
    struct saga_record letter_record = find(args[0], topic);
    const char *from = header(&letter_record, "dlq-topic");
    if (!header(&letter_record, "dlq-id") || !from || strcmp(from, "order.requests") != 0)
        ctl_die(CTL_NO, "%s: it holds no request; events are published again by their service",
                args[0]);
    if (header(&letter_record, "dlq-redriven"))
        ctl_die(CTL_NO, "%s: it is the mark of a letter that was redriven", args[0]);
    if (header(&letter_record, "dlq-truncated") && !value_file)
        ctl_die(CTL_NO, "%s: it was cut; --value FILE sends the whole one", args[0]);
    struct saga_record request = with_headers(letter_record, false);
    if (value_file)
        read_value(&request);
    judge(&request, &letter_record);
    ctl_send_record("order.requests", -1, &request, place);
    /* Dying here lists it still: a request sent twice is answered twice and acts once. */
    struct saga_record copy = with_headers(letter_record, true);
    ((struct saga_header *)(uintptr_t)copy.headers)[copy.headers_n++] =
        (struct saga_header){"dlq-redriven", place, strlen(place)};
    copy.value = NULL;
    copy.value_n = 0;
    ctl_send_record(topic, letter_record.partition, &copy, mark);
    if (ctl_json)
        ctl_print_json(
            json_pack("{s:s, s:s, s:s}", "letter", args[0], "place", place, "mark", mark));
    else
        printf("%s is in Kafka again: %s\n", args[0], place);
    return CTL_OK;
}

static const struct ctl_option redrive_options[] = {
    {"value", "FILE", "sends this in place of the value; - is standard input", .text = &value_file},
    {0}};

const struct ctl_command ctl_dlq[] = {
    {"dlq list", "", 0, 0, "lists the dead letters: what could not be read, and why",
     "  sagactl dlq list\n"
     "  sagactl dlq list --json | jq -r .type | sort | uniq -c\n",
     NULL, list},
    {"dlq show", "PLACE", 1, 1, "shows a dead letter with its headers",
     "  sagactl dlq show order.dlq/3/17\n", NULL, show},
    {"dlq redrive", "PLACE", 1, 1, "sends a request again that became a dead letter",
     "  sagactl dlq redrive order.dlq/3/17\n"
     "  sagactl dlq redrive order.dlq/3/17 --value mended.json\n",
     redrive_options, redrive},
    {0},
};
