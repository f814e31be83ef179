/* Fields as columns, in PostgreSQL's binary format (its *_send and *_recv functions): numbers in
 * network order, timestamptz in microseconds since 2000, json as its text: jsonb costs a tenth of all of
 * PostgreSQL's time to take apart, and nobody asks for a part of it. */
#include <endian.h>
#include <limits.h>
#include <stdio.h>

#include "field.h"
#include "field_private.h"

#define SINCE_2000 (INT64_C(946684800) * 1000000) /* from 1970 */

uint32_t saga_column_oid(const struct saga_field *column)
{
    switch (column->type) {
    case SAGA_INT:
        return 20;
    case SAGA_BOOL:
        return 16;
    case SAGA_TIME:
        return 1184;
    case SAGA_OBJECT:
    case SAGA_LIST:
        return 114;
    default:
        return 25;
    }
}

uint32_t saga_column_array_oid(const struct saga_field *column)
{
    switch (column->type) {
    case SAGA_INT:
        return 1016;
    case SAGA_BOOL:
        return 1000;
    case SAGA_TIME:
        return 1185;
    case SAGA_OBJECT:
    case SAGA_LIST:
        return 199;
    default:
        return 1009;
    }
}

/* ---- Writing ---- */

static void put_length(struct saga_buf *out, size_t n)
{
    uint32_t wire = htobe32((uint32_t)n);
    saga_buf_add(out, &wire, sizeof(wire));
}

static void put_int(struct saga_buf *out, int64_t v)
{
    uint64_t wire = htobe64((uint64_t)v);
    put_length(out, sizeof(wire));
    saga_buf_add(out, &wire, sizeof(wire));
}

static void put_text(struct saga_buf *out, const char *s)
{
    size_t n = strlen(s);
    put_length(out, n);
    saga_buf_add(out, s, n);
}

static void put_json(struct saga_buf *out, const struct saga_field *column, const void *at)
{
    size_t start = out->n;
    put_length(out, 0); /* known afterwards */
    field_value_write(column, at, out);
    uint32_t wire = htobe32((uint32_t)(out->n - start - sizeof(wire)));
    memcpy(out->at + start, &wire, sizeof(wire));
}

void saga_column_write(const struct saga_field *column, const void *row, struct saga_buf *out)
{
    const void *at = (const char *)row + column->at;
    /* A text that is NULL has no other way: the column's "not null" is the judge of it. */
    if ((column->optional || field_is_text(column)) && field_empty(column, at)) {
        put_length(out, (size_t)-1);
        return;
    }
    switch (column->type) {
    case SAGA_INT:
        put_int(out, *(const int64_t *)at);
        break;
    case SAGA_TIME:
        put_int(out, *(const int64_t *)at - SINCE_2000);
        break;
    case SAGA_BOOL:
        put_length(out, 1);
        saga_buf_add(out, *(const bool *)at ? "\1" : "\0", 1);
        break;
    case SAGA_NAME:
        put_text(out, column->names[*(const int *)at]);
        break;
    case SAGA_OBJECT:
    case SAGA_LIST:
        put_json(out, column, at);
        break;
    default:
        put_text(out, *(const char *const *)at);
    }
}

/* ---- Reading ---- */

static int refuse(const struct saga_field *column, const char *why, struct saga_err *err)
{
    return saga_err(err, SAGA_POISON, "column %s: %s", column->name, why);
}

/* bigint, int or smallint: a table may have reason for a smaller one. */
static bool get_int(const char *value, int len, int64_t *v)
{
    uint64_t wide = 0;
    if (len != 8 && len != 4 && len != 2)
        return false;
    for (int i = 0; i < len; i++)
        wide = wide << 8 | (unsigned char)value[i];
    *v = len == 8 ? (int64_t)wide : len == 4 ? (int32_t)wide : (int16_t)wide;
    return true;
}

static void clear(const struct saga_field *column, char *at)
{
    static const size_t size[] = {
        [SAGA_ID] = sizeof(char *),    [SAGA_TEXT] = sizeof(char *),
        [SAGA_CODE] = sizeof(char *),  [SAGA_INT] = sizeof(int64_t),
        [SAGA_TIME] = sizeof(int64_t), [SAGA_BOOL] = sizeof(bool),
        [SAGA_NAME] = sizeof(int),     [SAGA_LIST] = sizeof(struct field_list)};
    if (column->type == SAGA_OBJECT)
        for (const struct saga_field *f = column->of; f->name; f++)
            clear(f, at + f->at);
    else
        memset(at, 0, size[column->type]);
}

static int read_text(const struct saga_field *column, const char *value, int len, char *at,
                     struct saga_arena *arena, struct saga_err *err)
{
    const char *s = saga_arena_text(arena, value, (size_t)len);
    char why[FIELD_WHY];
    if (column->type == SAGA_NAME) {
        *(int *)(void *)at = field_name_index(column, s, (size_t)len, why);
        return *(int *)(void *)at < 0 ? refuse(column, why, err) : 0;
    }
    if (!field_text_ok(column, s, (size_t)len, why))
        return refuse(column, why, err);
    *(const char **)(void *)at = s;
    return 0;
}

static int read_json(const struct saga_field *column, const char *value, int len, char *at,
                     struct saga_arena *arena, struct saga_err *err)
{
    struct saga_json json;
    clear(column, at); /* for what the JSON leaves out */
    saga_json_init(&json, value, (size_t)len, arena, err);
    if (field_value_read(column, &json, at, arena, err) < 0 || saga_json_end(&json) < 0)
        return SAGA_POISON;
    return 0;
}

int saga_column_read(const struct saga_field *column, const char *value, int len, void *row,
                     struct saga_arena *arena, struct saga_err *err)
{
    char *at = (char *)row + column->at, why[FIELD_WHY];
    int64_t v;
    if (len < 0) {
        clear(column, at);
        return 0;
    }
    switch (column->type) {
    case SAGA_INT:
        if (!get_int(value, len, &v))
            return refuse(column, "not an integer of 2, 4 or 8 bytes", err);
        memcpy(at, &v, sizeof(v));
        return field_int_ok(column, v, why) ? 0 : refuse(column, why, err);
    case SAGA_TIME: /* infinity, the two ends of the range, is no time either */
        if (len != 8 || !get_int(value, len, &v) || v == INT64_MIN ||
            __builtin_add_overflow(v, SINCE_2000, &v))
            return refuse(column, "not a time", err);
        memcpy(at, &v, sizeof(v));
        return 0;
    case SAGA_BOOL:
        if (len != 1)
            return refuse(column, "not a boolean", err);
        *(bool *)(void *)at = *value != 0;
        return 0;
    case SAGA_OBJECT:
    case SAGA_LIST:
        return read_json(column, value, len, at, arena, err);
    default:
        return read_text(column, value, len, at, arena, err);
    }
}
