/* Fields tables at work on JSON: reading with limits, and writing.
 *
 * Members are written in the table's order, so the reader asks for the next of the table first; any
 * other order only costs a search. */
#include "field.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "event.h"
#include "field_private.h"

/* ---- Errors ---- */

/* Where a value stands, from the innermost part outwards; made to text only for an error. */
struct path {
    const struct path *up;
    const char *name; /* NULL: an item of a list */
    int item;
};

static void put_path(struct saga_buf *out, const struct path *path)
{
    if (path->up)
        put_path(out, path->up);
    if (!path->name)
        saga_buf_printf(out, "[%d]", path->item);
    else if (*path->name)
        saga_buf_printf(out, "%s%s", out->n ? "." : "", path->name);
}

/* One reading: what its functions hand to each other. */
struct reading {
    struct saga_json *json;
    struct saga_arena *arena;
    struct saga_err *err;
};

/* What is good JSON is refused. */
static int refuse(const struct reading *r, const struct path *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int refuse(const struct reading *r, const struct path *path, const char *format, ...)
{
    struct saga_buf text = {0};
    char why[FIELD_WHY + 32];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    put_path(&text, path);
    saga_buf_printf(&text, "%s%s", text.n ? ": " : "", why);
    saga_err(r->err, SAGA_POISON, "%s", text.at);
    saga_err(r->json->err, SAGA_POISON, "%s", text.at);
    saga_buf_free(&text);
    r->json->bad = true;
    return SAGA_POISON;
}

/* The text is not JSON: its reader has said where. */
static int broken(const struct reading *r)
{
    return saga_err(r->err, SAGA_POISON, "%s", r->json->err ? r->json->err->text : "not JSON");
}

/* The value at the mark is not what the table says: "3.0 is not an integer". */
static int wrong(const struct reading *r, const struct path *path, struct saga_json_mark mark,
                 const char *what)
{
    struct saga_span value;
    saga_json_rewind(r->json, mark);
    if (!saga_json_raw(r->json, &value))
        return broken(r);
    if (value.n > 40)
        return refuse(r, path, "it is not %s", what);
    return refuse(r, path, "%.*s is not %s", (int)value.n, value.at, what);
}

/* ---- Limits ---- */

static bool out_of(char *why, const char *s, size_t n, const char *what)
{
    if (n > 64)
        snprintf(why, FIELD_WHY, "a text of %zu bytes is not %s", n, what);
    else
        snprintf(why, FIELD_WHY, "\"%.*s\" is not %s", (int)n, s, what);
    return false;
}

static bool code_ok(const struct saga_field *f, const char *s, size_t n, char *why)
{
    char what[80];
    bool ok = (int64_t)n >= f->min && (int64_t)n <= f->max;
    for (size_t i = 0; ok && i < n; i++)
        ok = s[i] >= 'A' && s[i] <= 'Z';
    if (ok)
        return true;
    if (f->min == f->max)
        snprintf(what, sizeof(what), "%" PRId64 " capital letters", f->min);
    else
        snprintf(what, sizeof(what), "%" PRId64 " to %" PRId64 " capital letters", f->min, f->max);
    return out_of(why, s, n, what);
}

static bool length_ok(const struct saga_field *f, const char *s, size_t n, char *why)
{
    if (n && f->min <= 1 && (int64_t)n <= f->max)
        return true; /* never more characters than bytes */
    int64_t characters = 0;
    for (size_t i = 0; i < n; i++)
        characters += ((unsigned char)s[i] & 0xC0) != 0x80;
    if (characters >= f->min && characters <= f->max)
        return true;
    bool few = characters < f->min;
    snprintf(why, FIELD_WHY, "%" PRId64 " characters are %s than %" PRId64, characters,
             few ? "less" : "more", few ? f->min : f->max);
    return false;
}

bool field_text_ok(const struct saga_field *f, const char *s, size_t n, char *why)
{
    if (f->type == SAGA_TEXT)
        return length_ok(f, s, n, why);
    if (f->type == SAGA_CODE)
        return code_ok(f, s, n, why);
    return saga_name_ok(s, n) || out_of(why, s, n, "1 to 64 of A-Z a-z 0-9 . _ : -");
}

bool field_int_ok(const struct saga_field *f, int64_t v, char *why)
{
    if (v >= f->min && v <= f->max)
        return true;
    snprintf(why, FIELD_WHY, "%" PRId64 " is %s %" PRId64, v, v < f->min ? "below" : "above",
             v < f->min ? f->min : f->max);
    return false;
}

int field_name_index(const struct saga_field *f, const char *s, size_t n, char *why)
{
    for (int i = 0; f->names[i]; i++)
        if (strcmp(f->names[i], s) == 0)
            return i;
    char what[FIELD_WHY / 2] = "one of";
    for (int i = 0; f->names[i]; i++)
        if (*f->names[i])
            snprintf(what + strlen(what), sizeof(what) - strlen(what), " %s", f->names[i]);
    out_of(why, s, n, what);
    return -1;
}

bool field_empty(const struct saga_field *f, const void *at)
{
    switch (f->type) {
    case SAGA_ID:
    case SAGA_TEXT:
    case SAGA_CODE:
        return !*(const char *const *)at;
    case SAGA_INT:
    case SAGA_TIME:
        return !*(const int64_t *)at;
    case SAGA_BOOL:
        return !*(const bool *)at;
    case SAGA_NAME:
        return !*(const int *)at;
    case SAGA_LIST:
        return !field_list(at).n;
    case SAGA_OBJECT:
        for (const struct saga_field *of = f->of; of->name; of++)
            if (!field_empty(of, (const char *)at + of->at))
                return false;
    }
    return true;
}

/* ---- Reading ---- */

static int read_object(const struct reading *r, const struct saga_field *fields, const char **key,
                       const struct path *path, char *out);

static int read_text(const struct reading *r, const struct saga_field *f, const struct path *path,
                     void *at)
{
    const char *s;
    char why[FIELD_WHY];
    size_t n;
    if (saga_json_peek(r->json) != '"')
        return wrong(r, path, saga_json_mark(r->json), "a string");
    if (!saga_json_text(r->json, &s, &n))
        return broken(r);
    switch (f->type) {
    case SAGA_TIME:
        if (!saga_time_read(s, n, at)) {
            out_of(why, s, n, "a time like 2026-11-24T13:31:25.123Z");
            return refuse(r, path, "%s", why);
        }
        return 0;
    case SAGA_NAME:
        if ((*(int *)at = field_name_index(f, s, n, why)) < 0)
            return refuse(r, path, "%s", why);
        return n || f->optional ? 0 : refuse(r, path, "\"\" is for none");
    default:
        if (!field_text_ok(f, s, n, why))
            return refuse(r, path, "%s", why);
        *(const char **)at = s;
        return 0;
    }
}

static int read_int(const struct reading *r, const struct saga_field *f, const struct path *path,
                    int64_t *at)
{
    struct saga_json_mark mark = saga_json_mark(r->json);
    struct saga_err *err = r->json->err;
    char why[FIELD_WHY];
    r->json->err = NULL; /* a failure is named by its path, not by its position */
    bool read = saga_json_int(r->json, at);
    r->json->err = err;
    if (!read)
        return wrong(r, path, mark, "an integer");
    return field_int_ok(f, *at, why) ? 0 : refuse(r, path, "%s", why);
}

static int read_bool(const struct reading *r, const struct path *path, bool *at)
{
    char next = saga_json_peek(r->json);
    if (next != 't' && next != 'f')
        return wrong(r, path, saga_json_mark(r->json), "true or false");
    return saga_json_bool(r->json, at) ? 0 : broken(r);
}

static int read_list(const struct reading *r, const struct saga_field *f, const struct path *path,
                     void *at)
{
    struct field_list list = {0};
    int cap = 0;
    if (saga_json_peek(r->json) != '[')
        return wrong(r, path, saga_json_mark(r->json), "an array");
    saga_json_open(r->json, '[');
    while (saga_json_item(r->json)) {
        if (list.n == f->max)
            return refuse(r, path, "more than %" PRId64 " items", f->max);
        if (list.n == cap) {
            char *old = list.at;
            cap = cap ? cap * 2 : 4;
            list.at = saga_arena_alloc(r->arena, (size_t)cap * f->size);
            if (old)
                memcpy(list.at, old, (size_t)list.n * f->size);
        }
        char *item = memset(list.at + (size_t)list.n * f->size, 0, f->size);
        int rc = read_object(r, f->of, NULL, &(struct path){path, NULL, list.n++}, item);
        if (rc < 0)
            return rc;
    }
    if (r->json->bad)
        return broken(r);
    if (list.n < f->min)
        return refuse(r, path, "%d items are less than %" PRId64, list.n, f->min);
    memcpy(at, &list, sizeof(list));
    return 0;
}

static int read_value(const struct reading *r, const struct saga_field *f, const struct path *path,
                      char *at)
{
    if (f->optional && saga_json_null(r->json))
        return 0;
    switch (f->type) {
    case SAGA_INT:
        return read_int(r, f, path, (int64_t *)(void *)at);
    case SAGA_BOOL:
        return read_bool(r, path, (bool *)at);
    case SAGA_OBJECT:
        return read_object(r, f->of, NULL, path, at);
    case SAGA_LIST:
        return read_list(r, f, path, at);
    default:
        return read_text(r, f, path, at);
    }
}

/* The key of a payload: it stands beside the members of the table. */
static const struct saga_field key_field = {"order_id", 0, SAGA_ID, .optional = true};

static bool is_named(const struct saga_field *f, struct saga_span name)
{
    size_t i = 0;
    while (i < name.n && f->name[i] && name.at[i] == f->name[i])
        i++;
    return i == name.n && !f->name[i];
}

static const struct saga_field *find(const struct saga_field *fields, bool keyed,
                                     struct saga_span name)
{
    if (keyed && is_named(&key_field, name))
        return &key_field;
    for (; fields->name; fields++)
        if (is_named(fields, name))
            return fields;
    return NULL;
}

static int read_object(const struct reading *r, const struct saga_field *fields, const char **key,
                       const struct path *path, char *out)
{
    const struct saga_field *expected = key ? &key_field : fields, *f;
    uint64_t seen = 0;
    struct saga_span name;
    if (saga_json_peek(r->json) != '{')
        return wrong(r, path, saga_json_mark(r->json), "an object");
    saga_json_open(r->json, '{');
    for (;;) {
        f = expected;
        if (!f->name || !saga_json_member_if(r->json, f->name)) {
            if (!saga_json_name(r->json, &name))
                break;
            if (!(f = find(fields, key, name))) {
                if (saga_json_once(r->json, name))
                    saga_json_skip(r->json);
                continue;
            }
        }
        bool is_key = f == &key_field;
        struct path here = {path, f->name};
        assert(is_key || f - fields < 63);
        uint64_t bit = UINT64_C(1) << (is_key ? 63 : f - fields);
        if (seen & bit)
            return refuse(r, &here, "it stands twice");
        seen |= bit;
        expected = is_key ? fields : f + 1;
        int rc = read_value(r, f, &here, is_key ? (char *)key : out + f->at);
        if (rc < 0)
            return rc;
    }
    if (r->json->bad)
        return broken(r);
    for (f = fields; f->name; f++, seen >>= 1)
        if (!(seen & 1) && !f->optional)
            return refuse(r, &(struct path){path, f->name}, "it is missing");
    return 0;
}

int saga_fields_read(const struct saga_field *fields, struct saga_json *json, const char *path,
                     void *out, struct saga_arena *arena, struct saga_err *err)
{
    return saga_fields_read_keyed(fields, json, path, NULL, out, arena, err);
}

int saga_fields_read_keyed(const struct saga_field *fields, struct saga_json *json,
                           const char *path, const char **key, void *out, struct saga_arena *arena,
                           struct saga_err *err)
{
    struct reading r = {json, arena, err};
    return read_object(&r, fields, key, &(struct path){.name = path}, out);
}

int field_value_read(const struct saga_field *f, struct saga_json *json, void *at,
                     struct saga_arena *arena, struct saga_err *err)
{
    struct reading r = {json, arena, err};
    return read_value(&r, f, &(struct path){.name = f->name}, at);
}

/* ---- Writing ---- */

static void write_list(const struct saga_field *f, struct field_list list, struct saga_buf *out)
{
    for (int i = 0; i < list.n; i++) {
        saga_buf_add(out, i ? ",{" : "[{", 2);
        saga_fields_write(f->of, list.at + (size_t)i * f->size, out);
        saga_buf_add(out, "}", 1);
    }
    saga_buf_add(out, list.n ? "]" : "[]", list.n ? 1 : 2);
}

void field_value_write(const struct saga_field *f, const void *at, struct saga_buf *out)
{
    const char *s;
    switch (f->type) {
    case SAGA_ID:
    case SAGA_TEXT:
    case SAGA_CODE:
        s = *(const char *const *)at;
        assert(s); /* a rule gave nothing for a member that is not optional */
        saga_json_put_text(out, s);
        break;
    case SAGA_INT:
        saga_buf_int(out, *(const int64_t *)at);
        break;
    case SAGA_BOOL:
        saga_buf_str(out, *(const bool *)at ? "true" : "false");
        break;
    case SAGA_TIME:
        saga_json_put_time(out, *(const int64_t *)at, 6);
        break;
    case SAGA_NAME:
        s = f->names[*(const int *)at];
        assert(*s); /* the same */
        saga_json_put_text(out, s);
        break;
    case SAGA_OBJECT:
        saga_buf_add(out, "{", 1);
        saga_fields_write(f->of, at, out);
        saga_buf_add(out, "}", 1);
        break;
    case SAGA_LIST:
        write_list(f, field_list(at), out);
        break;
    }
}

int saga_fields_write(const struct saga_field *fields, const void *in, struct saga_buf *out)
{
    int count = 0;
    for (const struct saga_field *f = fields; f->name; f++) {
        const char *at = (const char *)in + f->at;
        if (f->optional && field_empty(f, at))
            continue;
        size_t n = strlen(f->name);
        char *p = saga_buf_room(out, n + 4);
        if (count++)
            *p++ = ',';
        *p++ = '"';
        memcpy(p, f->name, n);
        memcpy(p + n, "\":", 2);
        out->n = (size_t)(p + n + 2 - out->at);
        field_value_write(f, at, out);
    }
    return count;
}
