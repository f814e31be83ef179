/* Requests in every form that people's tools make: plain JSON, CloudEvents structured, CloudEvents
 * binary (Kafka protocol binding 1.0.2); and forwards of them (DESIGN.md 4.5).
 *
 * The forms allow any order of members, so a request is taken apart first, which checks all of it
 * as JSON; then its payload is read by the table of its type. There is one request for eight
 * events. */
#include "event.h"

#include <stdio.h>
#include <strings.h>
#include <uuid.h>

#include "event_private.h"
#include "field.h"
#include "json.h"
#include "json_bytes.h"

enum form {
    PLAIN,      /* the value: type, order_id and the members of the payload */
    STRUCTURED, /* the value: attributes, and data with order_id and the payload */
    BINARY,     /* headers: attributes; the value: order_id and the payload */
};

enum part { SPECVERSION, ID, SOURCE, TYPE, SUBJECT, TIME, TRACEPARENT, DATA, ORDER_ID, PARTS };
static const char *const part_name[PARTS] = {
    "specversion", "id", "source", "type", "subject", "time", "traceparent", "data", "order_id"};

struct request {
    enum form form;
    struct saga_span part[PARTS]; /* the value's members; at NULL: not there, or null */
    const char *text[DATA];       /* the attributes; NULL: not there */
    struct saga_span data;        /* the object with order_id and payload */
    const char *path;             /* of data, for errors */
};

/* ---- Headers ---- */

static const struct saga_header *find_header(const struct saga_record *record, const char *name)
{
    for (int i = record->headers_n; i-- > 0;) /* the newest counts, as in Kafka's lastHeader() */
        if (record->headers[i].value && strcmp(record->headers[i].name, name) == 0)
            return &record->headers[i];
    return NULL;
}

static size_t headers_size(const struct saga_record *record)
{
    size_t n = 0;
    for (int i = 0; i < record->headers_n; i++)
        n +=
            strlen(record->headers[i].name) + (record->headers[i].value ? record->headers[i].n : 0);
    return n;
}

static enum form form_of(const struct saga_record *record, const struct saga_span *part)
{
    static const char structured[] = "application/cloudevents+json";
    const struct saga_header *type = find_header(record, "content-type");
    size_t n = sizeof(structured) - 1;
    if (type && type->n >= n && strncasecmp(type->value, structured, n) == 0 &&
        (type->n == n || strchr("; ", type->value[n])))
        return STRUCTURED;
    if (find_header(record, "ce_specversion") || find_header(record, "ce_type"))
        return BINARY;
    return part[SPECVERSION].at ? STRUCTURED : PLAIN;
}

/* ---- Taking apart ---- */

/* The members of the object that is the whole text. null counts as not there. */
static int find_parts(const char *text, size_t n, struct saga_span *part, struct saga_arena *arena,
                      struct saga_err *err)
{
    struct saga_json j;
    struct saga_span name, value;
    saga_json_init(&j, text, n, arena, err);
    saga_json_open(&j, '{');
    while (saga_json_member(&j, &name)) {
        if (!saga_json_raw(&j, &value) || *value.at == 'n')
            continue;
        for (int i = 0; i < PARTS; i++)
            if (strlen(part_name[i]) == name.n && memcmp(part_name[i], name.at, name.n) == 0)
                part[i] = value;
    }
    return saga_json_end(&j);
}

static int part_text(struct request *q, enum part i, struct saga_arena *arena, struct saga_err *err)
{
    struct saga_json j;
    size_t n;
    if (!q->part[i].at)
        return 0;
    saga_json_init(&j, q->part[i].at, q->part[i].n, arena, NULL);
    if (saga_json_text(&j, &q->text[i], &n))
        return 0;
    return saga_err(err, SAGA_POISON, "%s: it is not a string", part_name[i]);
}

/* An attribute of the binary form, its header's value being the text itself. */
static int header_text(struct request *q, enum part i, const struct saga_record *record,
                       struct saga_arena *arena, struct saga_err *err)
{
    char name[32];
    snprintf(name, sizeof(name), "ce_%s", part_name[i]);
    const struct saga_header *header = find_header(record, name);
    if (!header)
        return 0;
    if (!json_utf8_ok(header->value, header->n))
        return saga_err(err, SAGA_POISON, "%s: it is not UTF-8 without NUL", name);
    q->text[i] = saga_arena_text(arena, header->value, header->n);
    return 0;
}

static int need_attributes(const struct request *q, struct saga_err *err)
{
    static const enum part needed[] = {SPECVERSION, ID, SOURCE};
    const char *prefix = q->form == BINARY ? "ce_" : "";
    for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++)
        if (!q->text[needed[i]] || !*q->text[needed[i]])
            return saga_err(err, SAGA_POISON, "%s%s: it is missing", prefix, part_name[needed[i]]);
    if (strcmp(q->text[SPECVERSION], "1.0") != 0)
        return saga_err(err, SAGA_POISON, "%sspecversion: \"%.40s\" is not 1.0", prefix,
                        q->text[SPECVERSION]);
    return 0;
}

/* -> 0, or SAGA_POISON: *reason "unreadable" or "invalid". */
static int take_apart(const struct saga_record *record, struct saga_arena *arena, struct request *q,
                      const char **reason, struct saga_err *err)
{
    int rc = 0;
    *q = (struct request){.path = ""};
    *reason = "unreadable";
    if (find_parts(record->value, record->value_n, q->part, arena, err) < 0)
        return SAGA_POISON;
    *reason = "invalid";
    q->form = form_of(record, q->part);
    q->data = (struct saga_span){record->value, record->value_n};
    if (q->form == STRUCTURED) {
        q->data = q->part[DATA].at ? q->part[DATA] : (struct saga_span){"{}", 2};
        q->path = "data";
    }
    if (q->form == PLAIN)
        return part_text(q, TYPE, arena, err);
    for (int i = 0; i < DATA && rc == 0; i++)
        rc =
            q->form == BINARY ? header_text(q, i, record, arena, err) : part_text(q, i, arena, err);
    return rc < 0 ? rc : need_attributes(q, err);
}

static bool without_data(const struct request *q) /* it was left out: no place for an order_id */
{
    return q->form == STRUCTURED && !q->part[DATA].at;
}

/* ---- Reading ---- */

static const char *place_text(const struct saga_record *record, struct saga_arena *arena)
{
    size_t n = strlen(record->topic);
    char *text = saga_arena_alloc(arena, n + 2 * SAGA_INT_TEXT + 3), *at = text + n;
    memcpy(text, record->topic, n);
    *at++ = '/';
    at += saga_int_text(record->partition, at);
    *at++ = '/';
    at += saga_int_text(record->offset, at);
    *at = '\0';
    return text;
}

/* "order.requests/7/88", of partition q. */
static bool is_place(const char *s, size_t n, int32_t q)
{
    const char *end = s + n, *offset = memrchr(s, '/', n);
    const char *partition = offset ? memrchr(s, '/', (size_t)(offset - s)) : NULL;
    int64_t number, ignored;
    if (!partition || partition == s || n > 300 || !json_utf8_ok(s, n))
        return false;
    partition++;
    return event_number(&partition, offset, INT32_MAX, &number) && partition == offset &&
           number == q && (offset++, event_number(&offset, end, INT64_MAX, &ignored)) &&
           offset == end;
}

/* 4.5: a forward of this installation has another place and a place in its source's chain. */
static void read_forward(const struct saga_record *record, const char *history,
                         struct saga_arena *arena, struct saga_message *out)
{
    const struct saga_header *id = find_header(record, "forwarded-id");
    const struct saga_header *from = find_header(record, "forwarded-from");
    size_t n = strlen(history);
    struct saga_id forwarded;
    int32_t q;
    if (!id || !from || id->n <= n || memcmp(id->value, history, n) != 0 || id->value[n] != '/' ||
        !saga_id_read(id->value + n + 1, id->n - n - 1, &q, &forwarded) ||
        !is_place(from->value, from->n, q))
        return;
    out->forwarded = forwarded;
    out->forwarded_from = q;
    out->place = saga_arena_text(arena, from->value, from->n);
}

void saga_request_plain(const struct saga_record *record, struct saga_arena *arena,
                        struct saga_message *out)
{
    out->forwarded = (struct saga_id){0};
    out->place = place_text(record, arena);
}

/* The same record makes the same order whenever and by whomever it is read. */
static const char *make_key(const struct saga_record *record, struct saga_arena *arena)
{
    static const uuid_t namespace = {0x5b, 0x0f, 0x3c, 0x52, 0x0e, 0x0b, 0x4e, 0x0c,
                                     0x9c, 0x6a, 0x1f, 0x0d, 0x2e, 0x8a, 0x77, 0x41};
    struct saga_buf name = {0};
    uuid_t uuid;
    saga_buf_printf(&name, "%s/%d/%lld/%lld", record->topic, record->partition,
                    (long long)record->offset, (long long)record->time_ms);
    uuid_generate_sha1(uuid, namespace, name.at, name.n);
    saga_buf_free(&name);
    char *key = saga_arena_alloc(arena, UUID_STR_LEN);
    uuid_unparse_lower(uuid, key);
    return key;
}

/* order_id, or the subject in its stead. */
static int read_key(const struct request *q, const char *order_id, bool makes,
                    const struct saga_record *record, struct saga_arena *arena,
                    struct saga_message *out, struct saga_err *err)
{
    const char *subject = q->text[SUBJECT], *dot = *q->path ? "." : "";
    if (subject && !saga_name_ok(subject, strlen(subject)))
        return saga_err(err, SAGA_POISON, "subject: \"%.64s\" is not an order id", subject);
    if (subject && order_id && strcmp(subject, order_id) != 0)
        return saga_err(err, SAGA_POISON, "%s%sorder_id: %s is not the subject, %s", q->path, dot,
                        order_id, subject);
    out->key = order_id ? order_id : subject;
    if (!out->key && makes)
        out->key = make_key(record, arena);
    return out->key ? 0 : saga_err(err, SAGA_POISON, "%s%sorder_id: it is missing", q->path, dot);
}

static int read_payload(const struct request *q, const struct saga_event *makes_key,
                        const struct saga_record *record, struct saga_arena *arena,
                        struct saga_message *out, struct saga_err *err)
{
    const struct saga_event *event = out->event;
    const char *key = NULL, *why;
    struct saga_json j;
    saga_json_init(&j, q->data.at, q->data.n, arena, err);
    out->data = saga_arena_zero(arena, event->size + 1);
    if (saga_fields_read_keyed(event->fields, &j, q->path, &key, out->data, arena, err) < 0 ||
        read_key(q, key, event == makes_key && !without_data(q), record, arena, out, err) < 0)
        return SAGA_POISON;
    if (event->check && !event->check(out->data, &why))
        return saga_err(err, SAGA_POISON, "%s%s%s", q->path, *q->path ? "." : "", why);
    return 0;
}

/* traceparent: the attribute (CloudEvents' distributed tracing extension), else the header. */
static const char *read_trace(const struct request *q, const struct saga_record *record,
                              struct saga_arena *arena)
{
    const char *attribute = q->text[TRACEPARENT];
    if (attribute && event_trace_ok(attribute, strlen(attribute)))
        return attribute;
    const struct saga_header *header = find_header(record, "traceparent");
    if (header && event_trace_ok(header->value, header->n))
        return saga_arena_text(arena, header->value, header->n);
    return NULL;
}

static int check_size(const struct saga_record *record, bool forward, struct saga_err *err)
{
    size_t extra = forward ? SAGA_FORWARD_EXTRA : 0, headers = headers_size(record);
    if (record->value_n > SAGA_VALUE_MAX + extra)
        return saga_err(err, SAGA_POISON, "%zu bytes of value are more than %zu", record->value_n,
                        SAGA_VALUE_MAX + extra);
    if (headers > SAGA_HEADERS_MAX + extra)
        return saga_err(err, SAGA_POISON, "%zu bytes of headers are more than %zu", headers,
                        SAGA_HEADERS_MAX + extra);
    if (record->headers_n > SAGA_HEADERS_MANY + (forward ? 2 : 0))
        return saga_err(err, SAGA_POISON, "%d headers are more than %d", record->headers_n,
                        SAGA_HEADERS_MANY);
    return 0;
}

int saga_request_read(const struct saga_record *record, const struct saga_event *const *known,
                      const struct saga_event *makes_key, const char *history,
                      struct saga_arena *arena, struct saga_message *out, const char **reason,
                      struct saga_err *err)
{
    struct request q;
    struct saga_err own; /* the caller's may be NULL */
    int64_t us;

    if (!err) {
        own.code = 0;
        err = &own;
    }
    *out = (struct saga_message){.place = place_text(record, arena)};
    read_forward(record, history, arena, out);
    if (check_size(record, out->forwarded.seq, err) < 0)
        return event_poison(reason, "too_large");
    if (!record->value) {
        saga_err(err, SAGA_POISON, "no value");
        return event_poison(reason, "unreadable");
    }
    if (take_apart(record, arena, &q, reason, err) < 0)
        return SAGA_POISON;
    if (!(out->type = q.text[TYPE])) {
        saga_err(err, SAGA_POISON, "%stype: it is missing", q.form == BINARY ? "ce_" : "");
        return event_poison(reason, "invalid");
    }
    if (!(out->event = event_known(known, out->type))) {
        saga_err(err, SAGA_POISON, "type: there is no request \"%.64s\"", out->type);
        return event_poison(reason, "unknown_type");
    }
    if (read_payload(&q, makes_key, record, arena, out, err) < 0) {
        out->data = NULL;
        return event_poison(reason, "invalid");
    }
    out->trace = read_trace(&q, record, arena);
    out->source = q.text[SOURCE];
    if (q.text[TIME] && saga_time_read(q.text[TIME], strlen(q.text[TIME]), &us))
        out->time_ms = us / 1000;
    return 0;
}

/* ---- Forwarding ---- */

/* Where order_id is to be written: over a null, or as the first member (n 0). at NULL: it is there.
 */
static struct saga_span find_hole(struct saga_span object, struct saga_arena *arena, bool *empty)
{
    struct saga_json j;
    struct saga_span name, value;
    saga_json_init(&j, object.at, object.n, arena, NULL);
    saga_json_open(&j, '{');
    struct saga_span hole = {j.at, 0};
    for (*empty = true; saga_json_member(&j, &name); *empty = false)
        if (saga_json_raw(&j, &value) && name.n == 8 && memcmp(name.at, "order_id", 8) == 0)
            hole = *value.at == 'n' ? value : (struct saga_span){0};
    return hole;
}

void saga_request_forward(const struct saga_record *record, const char *order_id,
                          struct saga_arena *arena, const char **value, size_t *n)
{
    struct request q;
    struct saga_span hole = {0};
    const char *reason, *end = record->value + record->value_n;
    char member[128];
    bool empty;

    *value = record->value;
    *n = record->value_n;
    if (take_apart(record, arena, &q, &reason, NULL) == 0 && !q.text[SUBJECT] && !without_data(&q))
        hole = find_hole(q.data, arena, &empty);
    if (!hole.at)
        return;
    int length = hole.n ? snprintf(member, sizeof(member), "\"%s\"", order_id)
                        : snprintf(member, sizeof(member), "\"order_id\":\"%s\"%s", order_id,
                                   empty ? "" : ",");
    size_t head = (size_t)(hole.at - record->value), tail = (size_t)(end - hole.at) - hole.n;
    char *text = saga_arena_alloc(arena, head + (size_t)length + tail);
    memcpy(text, record->value, head);
    memcpy(text + head, member, (size_t)length);
    memcpy(text + head + length, hole.at + hole.n, tail);
    *value = text;
    *n = head + (size_t)length + tail;
}
