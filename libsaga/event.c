/* Events: reading and writing CloudEvents 1.0 in structured mode (the JSON event format), ids,
 * names. Requests: request.c.
 *
 * Our own events come with `type` before `data`, so data is read into its struct as it comes; in
 * any other order it is checked, and looked at again when the type is known. */
#include "event.h"

#include <stdio.h>

#include "event_private.h"
#include "field.h"
#include "json.h"

/* ---- Names and ids ---- */

bool saga_name_ok(const char *s, size_t n)
{
    static const bool allowed[256] = {
        ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['.'] = true,
        ['_'] = true,         [':'] = true,         ['-'] = true,
    };
    if (n < 1 || n > 64)
        return false;
    bool ok = true;
    for (size_t i = 0; i < n; i++)
        ok &= allowed[(unsigned char)s[i]];
    return ok;
}

bool event_number(const char **p, const char *end, int64_t most, int64_t *v)
{
    const char *start = *p;
    int64_t sum = 0;
    bool over = false;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++)
        if (*p - start < 18) /* no more can overflow */
            sum = sum * 10 + (**p - '0');
        else
            over |= __builtin_mul_overflow(sum, 10, &sum) ||
                    __builtin_add_overflow(sum, **p - '0', &sum);
    *v = sum;
    return *p > start && !over && sum <= most && (*start != '0' || *p == start + 1);
}

bool saga_id_read(const char *text, size_t n, int32_t *lane, struct saga_id *id)
{
    const char *p = text, *end = text + n;
    int64_t number, seq, term;
    if (!event_number(&p, end, INT32_MAX, &number) || p == end || *p++ != '.' ||
        !event_number(&p, end, INT64_MAX, &seq) || p == end || *p++ != '.' ||
        !event_number(&p, end, INT64_MAX, &term) || p != end || seq == 0)
        return false;
    *lane = (int32_t)number;
    *id = (struct saga_id){seq, term};
    return true;
}

int saga_id_write(int32_t lane, struct saga_id id, char *out)
{
    char *at = out;
    at += saga_int_text(lane, at);
    *at++ = '.';
    at += saga_int_text(id.seq, at);
    *at++ = '.';
    at += saga_int_text(id.term, at);
    *at = '\0';
    return (int)(at - out);
}

bool event_trace_ok(const char *s, size_t n) /* W3C Trace Context, version 00 */
{
    if (n != 55)
        return false;
    for (size_t i = 0; i < n; i++) {
        bool dash = i == 2 || i == 35 || i == 52;
        bool hex = (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f');
        if (dash ? s[i] != '-' : !hex)
            return false;
    }
    return memcmp(s, "ff", 2) != 0;
}

const struct saga_event *event_known(const struct saga_event *const *known, const char *type)
{
    for (; *known; known++)
        if (strcmp((*known)->type, type) == 0)
            return *known;
    return NULL;
}

/* ---- Reading ---- */

enum attribute { /* in the order in which they are written */
                 SPECVERSION,
                 ID,
                 SOURCE,
                 TYPE,
                 SUBJECT,
                 TIME,
                 PREVIOUSID,
                 CAUSATIONID,
                 TRACEPARENT,
                 DATA,
                 ATTRIBUTES
};
static const char *const attribute[ATTRIBUTES] = {
    "specversion", "id",         "source",      "type",        "subject",
    "time",        "previousid", "causationid", "traceparent", "data"};

/* The same as we spell them before a text. */
#define SPELLED(name)                                                                              \
    {                                                                                              \
        ",\"" name "\":\"", sizeof(name) + 4                                                       \
    }
static const struct {
    const char *text;
    size_t n;
} spelled[DATA] = {SPELLED("specversion"), SPELLED("id"),          SPELLED("source"),
                   SPELLED("type"),        SPELLED("subject"),     SPELLED("time"),
                   SPELLED("previousid"),  SPELLED("causationid"), SPELLED("traceparent")};

enum { CAUSE_MAX = 512 };

struct envelope {
    const char *text[DATA]; /* NULL: not there */
    size_t n[DATA];
    struct saga_span data; /* at NULL: not there */
    bool read;             /* data has been read as it came */
    const char *key;       /* data.order_id, if it has been read */
    struct saga_err why;   /* data is refused */
};

int event_poison(const char **reason, const char *which)
{
    *reason = which;
    return SAGA_POISON;
}

/* Reads the payload at json's place. A refusal is told apart from broken JSON by a second look. */
static bool read_data(struct saga_json *j, struct saga_arena *arena, struct envelope *env,
                      struct saga_message *out)
{
    struct saga_json_mark mark = saga_json_mark(j);
    struct saga_err *err = j->err;
    const struct saga_event *event = out->event;
    env->read = true;
    out->data = saga_arena_zero(arena, event->size + 1);
    j->err = &env->why;
    int rc = saga_fields_read_keyed(event->fields, j, "data", &env->key, out->data, arena, j->err);
    j->err = err;
    if (rc == 0)
        return true;
    out->data = NULL;
    saga_json_rewind(j, mark);
    return saga_json_skip(j);
}

/* Text, or null, which is the same as not there (CloudEvents JSON format 1.0.2, section 2.2). */
static void read_attribute(struct saga_json *j, struct envelope *env, int i)
{
    if (!saga_json_null(j))
        saga_json_text(j, &env->text[i], &env->n[i]);
}

/* The next member: its attribute, ATTRIBUTES for any other (past it), or -1: no more, or failed. */
static int next_attribute(struct saga_json *j, int expected)
{
    struct saga_span name;
    for (int i = expected; i < ATTRIBUTES; i++) /* some may be left out */
        if (saga_json_member_if(j, attribute[i]))
            return i;
    if (!saga_json_name(j, &name))
        return -1;
    for (int i = 0; i < ATTRIBUTES; i++) /* in another order, or spelled with escapes */
        if (strlen(attribute[i]) == name.n && memcmp(attribute[i], name.at, name.n) == 0)
            return i;
    if (saga_json_once(j, name))
        saga_json_skip(j);
    return ATTRIBUTES;
}

static void read_envelope(struct saga_json *j, const struct saga_event *const *known,
                          struct saga_arena *arena, struct envelope *env, struct saga_message *out)
{
    unsigned seen = 0;
    saga_json_open(j, '{');
    for (int i = 0; i < DATA; i++) /* ours to the byte; what is not is found below */
        if (saga_json_text_if(j, spelled[i].text, spelled[i].n, &env->text[i], &env->n[i]))
            seen |= 1u << i;
    for (int i = DATA - 1; (i = next_attribute(j, i + 1)) >= 0;) {
        if (i == ATTRIBUTES)
            continue;
        if (seen & 1u << i) {
            saga_json_refuse(j, "%s stands twice", attribute[i]);
            return;
        }
        seen |= 1u << i;
        if (i != DATA) {
            read_attribute(j, env, i);
        } else if (env->text[TYPE] && (out->event = event_known(known, env->text[TYPE]))) {
            env->data.at = j->at;
            read_data(j, arena, env, out);
            env->data.n = (size_t)(j->at - env->data.at);
        } else {
            saga_json_raw(j, &env->data);
        }
    }
}

/* What the envelope must have, as text. */
static int require(const struct envelope *env, struct saga_err *err)
{
    static const enum attribute needed[] = {SPECVERSION, ID, SOURCE, TYPE, SUBJECT};
    for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++)
        if (!env->text[needed[i]])
            return saga_err(err, SAGA_POISON, "%s: it is missing", attribute[needed[i]]);
    if (strcmp(env->text[SPECVERSION], "1.0") != 0)
        return saga_err(err, SAGA_POISON, "specversion: %.40s is not 1.0", env->text[SPECVERSION]);
    if (!saga_name_ok(env->text[SUBJECT], env->n[SUBJECT]))
        return saga_err(err, SAGA_POISON, "subject: it is not an order id");
    if (env->n[CAUSATIONID] > CAUSE_MAX)
        return saga_err(err, SAGA_POISON, "causationid: it is longer than %d bytes", CAUSE_MAX);
    return 0;
}

/* The ids and the time. *lane is the lane of previousid if there is one. */
static int read_ids(const struct envelope *env, struct saga_message *out, int32_t *previous_lane,
                    struct saga_err *err)
{
    int64_t us = 0;
    if (!saga_id_read(env->text[ID], env->n[ID], &out->lane, &out->id))
        return saga_err(err, SAGA_POISON, "id: %.100s is not lane.sequence.term", env->text[ID]);
    *previous_lane = out->lane;
    if (env->text[PREVIOUSID] &&
        !saga_id_read(env->text[PREVIOUSID], env->n[PREVIOUSID], previous_lane, &out->previous))
        return saga_err(err, SAGA_POISON, "previousid: %.100s is not lane.sequence.term",
                        env->text[PREVIOUSID]);
    if (env->text[TIME] && !saga_time_read(env->text[TIME], env->n[TIME], &us))
        return saga_err(err, SAGA_POISON, "time: %.40s is not a time", env->text[TIME]);
    out->time_ms = us / 1000;
    return 0;
}

/* Everything about data but its JSON. */
static void judge_data(const struct envelope *env, struct saga_message *out, struct saga_err *err)
{
    const char *why;
    if (!env->data.at)
        saga_err(err, SAGA_POISON, "data: it is missing");
    else if (env->why.code)
        saga_err(err, SAGA_POISON, "%s", env->why.text);
    else if (!env->key)
        saga_err(err, SAGA_POISON, "data.order_id: it is missing");
    else if (strcmp(env->key, out->key) != 0)
        saga_err(err, SAGA_POISON, "data.order_id: %s is not the subject, %s", env->key, out->key);
    else if (out->event->check && !out->event->check(out->data, &why))
        saga_err(err, SAGA_POISON, "data.%s", why);
    else
        return;
    out->refused = true;
    out->data = NULL;
}

int saga_event_read(const struct saga_record *record, const struct saga_event *const *known,
                    const char *source, int32_t lane, struct saga_arena *arena,
                    struct saga_message *out, const char **reason, struct saga_err *err)
{
    struct saga_err broken; /* the caller's may be NULL */
    struct saga_json j, again;
    struct envelope env;
    int32_t previous_lane;

    memset(&env, 0, offsetof(struct envelope, why.text));
    if (!err) {
        broken.code = 0;
        err = &broken;
    }
    *out = (struct saga_message){0};
    if (!record->value) {
        saga_err(err, SAGA_POISON, "no value");
        return event_poison(reason, "unreadable");
    }
    if (record->value_n > SAGA_VALUE_MAX) {
        saga_err(err, SAGA_POISON, "%zu bytes of value are more than %d", record->value_n,
                 SAGA_VALUE_MAX);
        return event_poison(reason, "too_large");
    }
    saga_json_init(&j, record->value, record->value_n, arena, err);
    read_envelope(&j, known, arena, &env, out);
    if (saga_json_end(&j) < 0 || require(&env, err) < 0)
        return event_poison(reason, "unreadable");
    if (strcmp(env.text[SOURCE], source) != 0) {
        saga_err(err, SAGA_POISON, "source: %.100s is not %s", env.text[SOURCE], source);
        return event_poison(reason, "foreign");
    }
    if (read_ids(&env, out, &previous_lane, err) < 0)
        return event_poison(reason, "unreadable");
    if (out->lane != lane || previous_lane != lane) {
        saga_err(err, SAGA_POISON, "id: it names lane %d, not %d",
                 out->lane != lane ? out->lane : previous_lane, lane);
        return event_poison(reason, "foreign");
    }
    out->type = env.text[TYPE];
    out->key = env.text[SUBJECT];
    out->place = env.text[ID];
    out->source = env.text[SOURCE];
    out->cause = env.text[CAUSATIONID];
    if (env.text[TRACEPARENT] && event_trace_ok(env.text[TRACEPARENT], env.n[TRACEPARENT]))
        out->trace = env.text[TRACEPARENT];
    if (!out->event)
        out->event = event_known(known, out->type);
    if (!out->event)
        return 0;
    if (env.data.at && !env.read) {
        saga_json_init(&again, env.data.at, env.data.n, arena, err);
        read_data(&again, arena, &env, out);
    }
    judge_data(&env, out, err);
    if (out->refused && env.data.at)
        out->raw = saga_arena_text(arena, env.data.at, env.data.n);
    return 0;
}

int saga_payload_read(const struct saga_event *event, const char *key, const char *json, size_t n,
                      struct saga_arena *arena, void **data, struct saga_err *err)
{
    struct saga_message m = {.event = event, .key = key};
    struct envelope env = {.data = {json, n}};
    struct saga_json j;

    saga_json_init(&j, json, n, arena, err);
    read_data(&j, arena, &env, &m);
    judge_data(&env, &m, err);
    *data = m.data;
    return m.refused ? SAGA_POISON : 0;
}

/* ---- Writing ---- */

#define PUT(out, literal) saga_buf_add(out, literal, sizeof(literal) - 1)

static void put_id(struct saga_buf *out, int32_t lane, struct saga_id id)
{
    out->n += (size_t)saga_id_write(lane, id, saga_buf_room(out, SAGA_ID_TEXT));
}

/* ,"order_id":"ord-1","amount":1} */
static void put_payload(struct saga_buf *out, const char *key, const struct saga_field *fields,
                        const void *data)
{
    PUT(out, "\"order_id\":");
    saga_json_put_text(out, key);
    PUT(out, ",");
    if (saga_fields_write(fields, data, out) == 0)
        out->n--;
}

void saga_payload_write(const struct saga_event *event, const char *key, const void *data,
                        struct saga_buf *out)
{
    PUT(out, "{");
    put_payload(out, key, event->fields, data);
    PUT(out, "}");
}

void saga_event_write(const struct saga_emission *e, struct saga_buf *out)
{
    PUT(out, "{\"specversion\":\"1.0\",\"id\":\"");
    put_id(out, e->lane, e->id);
    PUT(out, "\",\"source\":");
    saga_json_put_text(out, e->source);
    PUT(out, ",\"type\":");
    saga_json_put_text(out, e->event->type);
    PUT(out, ",\"subject\":");
    saga_json_put_text(out, e->key);
    PUT(out, ",\"time\":");
    saga_json_put_time(out, e->time_ms * 1000, 3);
    if (e->previous.seq) {
        PUT(out, ",\"previousid\":\"");
        put_id(out, e->lane, e->previous);
        PUT(out, "\"");
    }
    if (e->cause) {
        PUT(out, ",\"causationid\":");
        saga_json_put_text(out, e->cause);
    }
    if (e->trace) {
        PUT(out, ",\"traceparent\":");
        saga_json_put_text(out, e->trace);
    }
    PUT(out, ",\"data\":{");
    put_payload(out, e->key, e->event->fields, e->data);
    PUT(out, "}}");
}

void saga_request_write(const struct saga_event *request, const char *order_id, const void *data,
                        struct saga_buf *out)
{
    PUT(out, "{\"type\":");
    saga_json_put_text(out, request->type);
    PUT(out, ",");
    if (order_id)
        put_payload(out, order_id, request->fields, data);
    else if (saga_fields_write(request->fields, data, out) == 0)
        out->n--;
    PUT(out, "}");
}

uint64_t saga_record_hash(const struct saga_record *record)
{
    uint64_t h = saga_hash64(record->key != NULL, record->key, record->key ? record->key_n : 0);

    h = saga_hash64(h ^ (record->value != NULL), record->value,
                    record->value ? record->value_n : 0);
    return h ? h : 1;
}
