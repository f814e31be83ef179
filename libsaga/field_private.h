/* What field.c (JSON), field_struct.c and field_sql.c (columns) share. Private to them. */
#ifndef SAGA_FIELD_PRIVATE_H
#define SAGA_FIELD_PRIVATE_H

#include <stdbool.h>

#include "field.h"

struct field_list { /* a SAGA_LIST of any T */
    int n;
    char *at;
};

static inline struct field_list field_list(const void *at)
{
    struct field_list list;
    memcpy(&list, at, sizeof(list)); /* its own type is not ours to know */
    return list;
}

static inline bool field_is_text(const struct saga_field *f)
{
    return f->type == SAGA_ID || f->type == SAGA_TEXT || f->type == SAGA_CODE;
}

/* Limits. -> true, or what is wrong stands in why: "0 is below 1". */
enum { FIELD_WHY = 200 };
bool field_text_ok(const struct saga_field *f, const char *s, size_t n, char *why);
bool field_int_ok(const struct saga_field *f, int64_t v, char *why);
int field_name_index(const struct saga_field *f, const char *s, size_t n, char *why); /* or -1 */

/* NULL, 0, false, no items, no members: what an optional field reads as when it is absent. */
bool field_empty(const struct saga_field *f, const void *at);

/* An object or a list, at its place in the struct. */
int field_value_read(const struct saga_field *f, struct saga_json *json, void *at,
                     struct saga_arena *arena, struct saga_err *err);
void field_value_write(const struct saga_field *f, const void *at, struct saga_buf *out);

#endif
