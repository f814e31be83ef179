/* Fields tables at work on structs: deep copies and comparison. */
#include "field.h"
#include "field_private.h"

static void copy_parts(const struct saga_field *fields, char *to, struct saga_arena *arena)
{
    for (const struct saga_field *f = fields; f->name; f++) {
        char *at = to + f->at;
        if (field_is_text(f)) {
            const char **s = (const char **)(void *)at;
            if (*s)
                *s = saga_arena_text(arena, *s, strlen(*s));
        } else if (f->type == SAGA_OBJECT) {
            copy_parts(f->of, at, arena);
        } else if (f->type == SAGA_LIST) {
            struct field_list list = field_list(at);
            size_t size = (size_t)list.n * f->size;
            list.at = list.n ? memcpy(saga_arena_alloc(arena, size), list.at, size) : NULL;
            memcpy(at, &list, sizeof(list));
            for (int i = 0; i < list.n; i++)
                copy_parts(f->of, list.at + (size_t)i * f->size, arena);
        }
    }
}

void *saga_fields_copy(const struct saga_field *fields, size_t size, const void *in,
                       struct saga_arena *arena)
{
    char *to = saga_arena_alloc(arena, size + 1); /* never NULL, even for no members */
    if (size)
        memcpy(to, in, size);
    copy_parts(fields, to, arena);
    return to;
}

static bool same(const struct saga_field *f, const void *a, const void *b)
{
    switch (f->type) {
    case SAGA_ID:
    case SAGA_TEXT:
    case SAGA_CODE: {
        const char *x = *(const char *const *)a, *y = *(const char *const *)b;
        return x == y || (x && y && strcmp(x, y) == 0);
    }
    case SAGA_INT:
    case SAGA_TIME:
        return *(const int64_t *)a == *(const int64_t *)b;
    case SAGA_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case SAGA_NAME:
        return *(const int *)a == *(const int *)b;
    case SAGA_OBJECT:
        return saga_fields_equal(f->of, a, b);
    case SAGA_LIST:
        break;
    }
    struct field_list x = field_list(a), y = field_list(b);
    if (x.n != y.n)
        return false;
    for (int i = 0; i < x.n; i++)
        if (!saga_fields_equal(f->of, x.at + (size_t)i * f->size, y.at + (size_t)i * f->size))
            return false;
    return true;
}

bool saga_fields_equal(const struct saga_field *fields, const void *a, const void *b)
{
    for (const struct saga_field *f = fields; f->name; f++)
        if (!same(f, (const char *)a + f->at, (const char *)b + f->at))
            return false;
    return true;
}
