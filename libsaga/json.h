/* JSON: a pull reader (strict RFC 8259; UTF-8 checked, no NUL, depth and duplicate members bounded as
 * DESIGN.md section 3 says) and an appending writer. For events and requests, wherever they come from;
 * all else uses jansson, and the two agree on every input. Pure, no allocation but the arena's.
 *
 * Usage:
 *     struct saga_json j;
 *     saga_json_init(&j, text, len, arena, err);
 *     saga_json_open(&j, '{');
 *     while (saga_json_member(&j, &name))       (name: NUL-terminated, in the arena or in a scratch)
 *         if (name is "quantity") saga_json_int(&j, &n); else saga_json_skip(&j);
 *     saga_json_end(&j)   -> 0, or SAGA_POISON with err filled: position and what was expected
 * After the first error every call returns false and changes nothing: one check at the end is enough. */
#ifndef SAGA_JSON_H
#define SAGA_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "mem.h"

enum { SAGA_JSON_DEPTH = 16 };

struct saga_json {
    const char *start, *at, *end;
    struct saga_arena *arena;
    struct saga_err *err;
    int depth;
    bool bad;
    /* private to json.c below: add what it needs */
};

struct saga_span { /* bytes inside the text read, not NUL-terminated */
    const char *at;
    size_t n;
};

void saga_json_init(struct saga_json *j, const char *text, size_t n, struct saga_arena *arena,
                    struct saga_err *err);
char saga_json_peek(struct saga_json *j); /* '{' '[' '"' '0' (number) 't' 'f' 'n' ',' ... 0 at end or error */
bool saga_json_open(struct saga_json *j, char bracket);                 /* '{' or '[' */
bool saga_json_member(struct saga_json *j, struct saga_span *name);     /* false: the object is closed */
bool saga_json_item(struct saga_json *j);                               /* false: the array is closed */
bool saga_json_text(struct saga_json *j, const char **s, size_t *n);    /* decoded, NUL-terminated, arena */
bool saga_json_int(struct saga_json *j, int64_t *v);                    /* 3.0 and 1e3 are refused */
bool saga_json_bool(struct saga_json *j, bool *v);
bool saga_json_null(struct saga_json *j);                               /* true and past it, if null is next */
bool saga_json_skip(struct saga_json *j);                               /* any value, checked */
bool saga_json_raw(struct saga_json *j, struct saga_span *value);       /* any value, checked; its bytes */
int saga_json_end(struct saga_json *j);                                 /* nothing but white space is left */
/* A refusal of the caller's own, at the place that was read last. -> SAGA_POISON */
int saga_json_refuse(struct saga_json *j, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- Writing ---- */
void saga_json_put_text(struct saga_buf *out, const char *s);        /* quoted, escaped */
void saga_json_put_textn(struct saga_buf *out, const char *s, size_t n);
void saga_json_put_time(struct saga_buf *out, int64_t us, int digits); /* quoted RFC 3339, UTC; 3 or 6 digits */

#endif
