/* JSON: a pull reader (strict RFC 8259; UTF-8 checked, no NUL, depth and duplicate members bounded
 * as DESIGN.md section 3 says) and an appending writer. For events and requests, wherever they come
 * from; all else uses jansson, and the two agree on every input. Pure, no allocation but the
 * arena's.
 *
 * Usage:
 *     struct saga_json j;
 *     saga_json_init(&j, text, len, arena, err);
 *     saga_json_open(&j, '{');
 *     while (saga_json_member(&j, &name))
 *         if (name is "quantity") saga_json_int(&j, &n); else saga_json_skip(&j);
 *     saga_json_end(&j)   -> 0, or SAGA_POISON with err filled: position and what was expected
 * After the first error every call returns false and changes nothing: one check at the end is
 * enough. */
#ifndef SAGA_JSON_H
#define SAGA_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "mem.h"

enum { SAGA_JSON_DEPTH = 16 };

struct saga_span { /* bytes, not NUL-terminated */
    const char *at;
    size_t n;
};

struct saga_json {
    const char *start, *at, *end; /* the text, borrowed */
    struct saga_arena *arena;
    struct saga_err *err;
    int depth;
    bool bad;
    /* private to json.c: */
    bool fresh; /* just after an opening bracket: no comma yet */
    char *copy; /* of the text, made for the first string: strings are unescaped and ended in it */
    struct saga_span *names; /* of the members of all open objects, to tell duplicates */
    uint32_t names_n, names_cap;
    uint32_t first[SAGA_JSON_DEPTH + 1]; /* by depth: where that object's names begin */
};

struct saga_json_mark { /* a place to go back to */
    const char *at;
    int depth;
    bool fresh;
    uint32_t names_n;
};

void saga_json_init(struct saga_json *j, const char *text, size_t n, struct saga_arena *arena,
                    struct saga_err *err);
char saga_json_peek(
    struct saga_json *j); /* '{' '[' '"' '0' (number) 't' 'f' 'n' ',' ... 0 at end or error */
bool saga_json_open(struct saga_json *j, char bracket); /* '{' or '[' */
bool saga_json_member(struct saga_json *j,
                      struct saga_span *name); /* false: the object is closed */
bool saga_json_item(struct saga_json *j);      /* false: the array is closed */
bool saga_json_text(struct saga_json *j, const char **s,
                    size_t *n);                      /* decoded, NUL-terminated, arena */
bool saga_json_int(struct saga_json *j, int64_t *v); /* 3.0 and 1e3 are refused */
bool saga_json_bool(struct saga_json *j, bool *v);
bool saga_json_null(struct saga_json *j); /* true and past it, if null is next */
bool saga_json_skip(struct saga_json *j); /* any value, checked */
bool saga_json_raw(struct saga_json *j,
                   struct saga_span *value); /* any value, checked; its bytes */
int saga_json_end(struct saga_json *j);      /* nothing but white space is left */
/* A refusal of the caller's own, at the place that was read last. -> SAGA_POISON */
int saga_json_refuse(struct saga_json *j, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Back to a place before a value, forgetting an error since then (not what stands in err). */
struct saga_json_mark saga_json_mark(const struct saga_json *j);
void saga_json_rewind(struct saga_json *j, struct saga_json_mark mark);

/* For those who know which members to expect, and tell duplicates of these by a bit mask: member_if
 * is true, and past the name, if the next one is spelled like this; name is saga_json_member
 * without a look for duplicates; once makes that look, for names that are not expected. -> false:
 * it stands twice. */
bool saga_json_member_if(struct saga_json *j, const char *name);
/* member_if and text in one, for what we write ourselves: true if the next bytes are those of
 * spelled
 * (,"name":" of n bytes; no comma is asked for where none is due) and a text that needs no
 * decoding. */
bool saga_json_text_if(struct saga_json *j, const char *spelled, size_t spelled_n, const char **s,
                       size_t *n);
bool saga_json_name(struct saga_json *j, struct saga_span *name);
bool saga_json_once(struct saga_json *j, struct saga_span name);

/* ---- Writing. What is not UTF-8, or NUL, becomes U+FFFD: what we write, we can read. ---- */
void saga_json_put_text(struct saga_buf *out, const char *s); /* quoted, escaped */
void saga_json_put_textn(struct saga_buf *out, const char *s, size_t n);
void saga_json_put_time(struct saga_buf *out, int64_t us,
                        int digits); /* quoted RFC 3339, UTC; 3 or 6 digits */

/* RFC 3339 with any offset, to microseconds since 1970; more digits of the fraction are cut off.
 * -> false: not one, or outside the years 0 to 9999, which cannot be written. */
bool saga_time_read(const char *s, size_t n, int64_t *us);

#endif
