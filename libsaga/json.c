/* The strict pull reader for JSON.
 *
 * Speed comes from three things. Text is looked at 16 bytes at a time, and only bytes that are
 * neither plain ASCII nor the end of a string cost more. Strings are not copied one by one: the
 * text is copied once, and each string is ended by a NUL in that copy, where its closing quote
 * stood (an escape is never shorter than what it stands for, so they are undone there too). And who
 * knows what comes next asks for it by name. The text itself is never written to, so any part can
 * be read a second time. */
#include "json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_bytes.h"

/* An object with more members is not searched for each of its names: they are sorted at its end. */
enum { NAMES_SEARCHED = 16 };

static inline const char *past_space(const char *p, const char *end)
{
    while (p < end && (unsigned char)*p <= ' ' &&
           (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

static inline bool is_digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

/* ---- The reader's state ---- */

void saga_json_init(struct saga_json *j, const char *text, size_t n, struct saga_arena *arena,
                    struct saga_err *err)
{
    j->start = j->at = text;
    j->end = text + n;
    j->arena = arena;
    j->err = err;
    j->depth = 0;
    j->bad = j->fresh = false;
    j->copy = NULL;
    j->names = NULL;
    j->names_n = j->names_cap = 0;
}

static bool fail(struct saga_json *j, const char *p, const char *what)
{
    j->bad = true;
    saga_err(j->err, SAGA_POISON, "byte %zu: %s%s", (size_t)(p - j->start), what,
             p == j->end ? ", but the text ends" : "");
    return false;
}

int saga_json_refuse(struct saga_json *j, const char *format, ...)
{
    if (j->bad)
        return SAGA_POISON;
    j->bad = true;
    char text[sizeof(j->err->text)];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return saga_err(j->err, SAGA_POISON, "byte %zu: %s", (size_t)(j->at - j->start), text);
}

struct saga_json_mark saga_json_mark(const struct saga_json *j)
{
    return (struct saga_json_mark){j->at, j->depth, j->fresh, j->names_n};
}

void saga_json_rewind(struct saga_json *j, struct saga_json_mark mark)
{
    j->at = mark.at;
    j->depth = mark.depth;
    j->fresh = mark.fresh;
    j->names_n = mark.names_n;
    j->bad = false;
}

static char *in_copy(struct saga_json *j, const char *p)
{
    if (!j->copy) {
        size_t n = (size_t)(j->end - j->start);
        j->copy = memcpy(saga_arena_alloc(j->arena, n), j->start, n);
    }
    return j->copy + (p - j->start);
}

/* ---- Strings ---- */

static int hex4(const char *p, const char *end) /* -1: not four hexadecimal digits */
{
    int v = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)p[i], lower = c | 0x20;
        int digit = c >= '0' && c <= '9'           ? c - '0'
                    : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                                   : -1;
        if (digit < 0)
            return -1;
        v = v << 4 | digit;
    }
    return v;
}

/* The escape at p ("\..."): its bytes, or 0; *code is the character. */
static int escape(const char *p, const char *end, uint32_t *code)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (end - p < 2)
        return 0;
    const char *simple = p[1] ? strchr(from, p[1]) : NULL;
    if (simple) {
        *code = (unsigned char)to[simple - from];
        return 2;
    }
    int high = p[1] == 'u' ? hex4(p + 2, end) : -1;
    if (high <= 0 || (high & 0xFC00) == 0xDC00) /* NUL, or half a pair */
        return 0;
    *code = (uint32_t)high;
    if ((high & 0xFC00) != 0xD800)
        return 6;
    int low = end - p >= 12 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8, end) : -1;
    if (low < 0 || (low & 0xFC00) != 0xDC00)
        return 0;
    *code = 0x10000 + (((uint32_t)high & 0x3FF) << 10 | ((uint32_t)low & 0x3FF));
    return 12;
}

/* The string whose opening quote is at p, checked. -> its closing quote, or NULL and failed; span
 * is what stands between them, *escaped: with escapes in it. */
static const char *string(struct saga_json *j, const char *p, struct saga_span *span, bool *escaped)
{
    const char *end = j->end, *start = ++p;
    uint32_t code;
    *escaped = false;
    for (int n;; p += n) {
        p = json_past_plain(p, end);
        if (p == end)
            return fail(j, p, "a string is not closed"), NULL;
        if (*p == '"')
            break;
        if (*p == '\\') {
            *escaped = true;
            if (!(n = escape(p, end, &code)))
                return fail(j, p, "not an escape, or one of NUL or of half a surrogate pair"), NULL;
        } else if ((unsigned char)*p < ' ') {
            return fail(j, p, "a control character in a string"), NULL;
        } else if (!(n = json_utf8_length(p, end))) {
            return fail(j, p, "not UTF-8"), NULL;
        }
    }
    *span = (struct saga_span){start, (size_t)(p - start)};
    return p;
}

static void unescape(struct saga_json *j, struct saga_span *span)
{
    const char *p = span->at, *end = p + span->n;
    char *start = in_copy(j, p), *out = start;
    uint32_t code = 0;
    while (p < end) {
        if (*p == '\\') {
            p += escape(p, end, &code);
            out = json_put_utf8(out, code);
        } else {
            *out++ = *p++;
        }
    }
    *span = (struct saga_span){start, (size_t)(out - start)};
}

bool saga_json_text(struct saga_json *j, const char **s, size_t *n)
{
    if (j->bad)
        return false;
    const char *p = past_space(j->at, j->end);
    struct saga_span span;
    bool escaped;
    if (p == j->end || *p != '"')
        return fail(j, p, "a string was expected");
    if (!(p = string(j, p, &span, &escaped)))
        return false;
    if (escaped)
        unescape(j, &span);
    else
        span.at = in_copy(j, span.at);
    ((char *)span.at)[span.n] = '\0'; /* in the copy, at or before the closing quote */
    *s = span.at;
    *n = span.n;
    j->at = p + 1;
    return true;
}

/* ---- Objects and arrays ---- */

bool saga_json_open(struct saga_json *j, char bracket)
{
    if (j->bad)
        return false;
    const char *p = past_space(j->at, j->end);
    if (p == j->end || *p != bracket)
        return fail(j, p, bracket == '{' ? "an object was expected" : "an array was expected");
    if (j->depth == SAGA_JSON_DEPTH)
        return fail(j, p, "nested too deeply");
    j->first[++j->depth] = j->names_n;
    j->fresh = true;
    j->at = p + 1;
    return true;
}

static bool twice(struct saga_json *j, struct saga_span name)
{
    char text[64];
    snprintf(text, sizeof(text), "%.*s stands twice", name.n < 40 ? (int)name.n : 0, name.at);
    return fail(j, j->at, name.n < 40 ? text : "a member stands twice");
}

static int by_name(const void *a, const void *b)
{
    const struct saga_span *x = a, *y = b;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return memcmp(x->at, y->at, x->n);
}

bool saga_json_once(struct saga_json *j, struct saga_span name)
{
    if (j->bad)
        return false;
    uint32_t first = j->first[j->depth];
    if (j->names_n - first < NAMES_SEARCHED)
        for (uint32_t i = first; i < j->names_n; i++)
            if (by_name(&j->names[i], &name) == 0)
                return twice(j, name);
    if (j->names_n == j->names_cap) {
        struct saga_span *old = j->names;
        j->names_cap = old ? j->names_cap * 2 : NAMES_SEARCHED;
        j->names = saga_arena_alloc(j->arena, j->names_cap * sizeof(*old));
        if (old)
            memcpy(j->names, old, j->names_n * sizeof(*old));
    }
    j->names[j->names_n++] = name;
    return true;
}

/* At the closing bracket at p. */
static bool close_at(struct saga_json *j, const char *p)
{
    uint32_t first = j->first[j->depth], n = j->names_n - first;
    if (n > NAMES_SEARCHED) {
        struct saga_span *names = j->names + first;
        qsort(names, n, sizeof(*names), by_name);
        for (uint32_t i = 1; i < n; i++)
            if (by_name(&names[i - 1], &names[i]) == 0)
                return twice(j, names[i]);
    }
    j->names_n = first;
    j->depth--;
    j->fresh = false;
    j->at = p + 1;
    return false;
}

/* Past the comma, if one is due. -> where a member or item begins, or NULL: closed or failed. */
static inline const char *next(struct saga_json *j, char bracket)
{
    if (j->bad)
        return NULL;
    const char *p = past_space(j->at, j->end);
    if (p < j->end && *p == bracket) {
        close_at(j, p);
        return NULL;
    }
    if (!j->fresh) {
        if (p == j->end || *p != ',') {
            fail(j, p, bracket == '}' ? "a comma or } was expected" : "a comma or ] was expected");
            return NULL;
        }
        p = past_space(p + 1, j->end);
    }
    j->fresh = false;
    return p;
}

static bool past_colon(struct saga_json *j, const char *p)
{
    p = past_space(p, j->end);
    if (p == j->end || *p != ':')
        return fail(j, p, "a colon was expected");
    j->at = p + 1;
    return true;
}

bool saga_json_name(struct saga_json *j, struct saga_span *name)
{
    const char *p = next(j, '}');
    bool escaped;
    if (!p)
        return false;
    if (p == j->end || *p != '"')
        return fail(j, p, "a member's name was expected");
    if (!(p = string(j, p, name, &escaped)))
        return false;
    if (escaped)
        unescape(j, name);
    return past_colon(j, p + 1);
}

bool saga_json_member(struct saga_json *j, struct saga_span *name)
{
    return saga_json_name(j, name) && saga_json_once(j, *name);
}

bool saga_json_member_if(struct saga_json *j, const char *name)
{
    if (j->bad)
        return false;
    const char *p = past_space(j->at, j->end), *end = j->end;
    if (!j->fresh) {
        if (p == end || *p != ',')
            return false;
        p = past_space(p + 1, end);
    }
    if (p == end || *p++ != '"')
        return false;
    for (; p < end && *name && *p == *name; p++)
        name++;
    if (p == end || *name || *p != '"')
        return false;
    j->fresh = false;
    return past_colon(j, p + 1);
}

bool saga_json_text_if(struct saga_json *j, const char *spelled, size_t spelled_n, const char **s,
                       size_t *n)
{
    const char *p = j->at, *end = j->end;
    spelled += j->fresh;
    spelled_n -= j->fresh;
    if (j->bad || (size_t)(end - p) < spelled_n || memcmp(p, spelled, spelled_n) != 0)
        return false;
    p += spelled_n;
    const char *close = json_past_plain(p, end);
    if (close == end || *close != '"')
        return false;
    char *copy = in_copy(j, p);
    *n = (size_t)(close - p);
    copy[*n] = '\0';
    *s = copy;
    j->fresh = false;
    j->at = close + 1;
    return true;
}

bool saga_json_item(struct saga_json *j)
{
    const char *p = next(j, ']');
    if (!p)
        return false;
    if (p < j->end && *p == ']') /* after a comma */
        return fail(j, p, "a value was expected");
    j->at = p;
    return true;
}

/* ---- Other values ---- */

char saga_json_peek(struct saga_json *j)
{
    if (j->bad)
        return 0;
    const char *p = past_space(j->at, j->end);
    if (p == j->end)
        return 0;
    return *p == '-' || is_digit(p, j->end) ? '0' : *p;
}

/* Past the number at p (RFC 8259 section 6), or NULL: not one. *whole: neither fraction nor
 * exponent. */
static const char *number(const char *p, const char *end, bool *whole)
{
    *whole = true;
    if (p < end && *p == '-')
        p++;
    if (!is_digit(p, end))
        return NULL;
    if (*p == '0')
        p++;
    else
        while (is_digit(p, end))
            p++;
    if (p < end && *p == '.') {
        *whole = false;
        if (!is_digit(++p, end))
            return NULL;
        while (is_digit(p, end))
            p++;
    }
    if (p < end && (*p | 0x20) == 'e') {
        *whole = false;
        if (++p < end && (*p == '+' || *p == '-'))
            p++;
        if (!is_digit(p, end))
            return NULL;
        while (is_digit(p, end))
            p++;
    }
    return p;
}

bool saga_json_int(struct saga_json *j, int64_t *v)
{
    if (j->bad)
        return false;
    const char *p = past_space(j->at, j->end), *end;
    bool whole;
    if (!(end = number(p, j->end, &whole)) || !whole)
        return fail(j, p, "an integer was expected");
    bool minus = *p == '-', over = false;
    int64_t sum = 0;
    p += minus;
    if (end - p <= 18) { /* no more can overflow */
        for (; p < end; p++)
            sum = sum * 10 + (*p - '0');
        sum = minus ? -sum : sum;
    } else {
        for (; p < end; p++) /* away from 0: INT64_MIN has no positive */
            over |= __builtin_mul_overflow(sum, 10, &sum) ||
                    __builtin_add_overflow(sum, minus ? '0' - *p : *p - '0', &sum);
    }
    if (over)
        return fail(j, p, "the integer has more than 64 bits");
    *v = sum;
    j->at = end;
    return true;
}

static bool word(struct saga_json *j, const char *text, size_t n)
{
    const char *p = past_space(j->at, j->end);
    if ((size_t)(j->end - p) < n || memcmp(p, text, n) != 0)
        return false;
    j->at = p + n;
    return true;
}

bool saga_json_bool(struct saga_json *j, bool *v)
{
    if (j->bad)
        return false;
    *v = word(j, "true", 4);
    return *v || word(j, "false", 5) ||
           fail(j, past_space(j->at, j->end), "true or false was expected");
}

bool saga_json_null(struct saga_json *j)
{
    return !j->bad && word(j, "null", 4);
}

static bool skip_object(struct saga_json *j)
{
    struct saga_span name;
    saga_json_open(j, '{');
    while (saga_json_member(j, &name))
        saga_json_skip(j);
    return !j->bad;
}

static bool skip_array(struct saga_json *j)
{
    saga_json_open(j, '[');
    while (saga_json_item(j))
        saga_json_skip(j);
    return !j->bad;
}

/* Recursion is bounded by saga_json_open(). */
bool saga_json_skip(struct saga_json *j)
{
    if (j->bad)
        return false;
    const char *p = past_space(j->at, j->end);
    struct saga_span span;
    bool flag;
    switch (saga_json_peek(j)) {
    case '{':
        return skip_object(j);
    case '[':
        return skip_array(j);
    case '"':
        if (!(p = string(j, p, &span, &flag)))
            return false;
        j->at = p + 1;
        return true;
    case '0':
        if (!(p = number(p, j->end, &flag)))
            return fail(j, past_space(j->at, j->end), "not a number");
        j->at = p;
        return true;
    default:
        return word(j, "true", 4) || word(j, "false", 5) || word(j, "null", 4) ||
               fail(j, p, "a value was expected");
    }
}

bool saga_json_raw(struct saga_json *j, struct saga_span *value)
{
    if (j->bad)
        return false;
    j->at = past_space(j->at, j->end);
    value->at = j->at;
    if (!saga_json_skip(j))
        return false;
    value->n = (size_t)(j->at - value->at);
    return true;
}

int saga_json_end(struct saga_json *j)
{
    if (j->bad)
        return SAGA_POISON;
    j->at = past_space(j->at, j->end);
    if (j->at < j->end) {
        fail(j, j->at, "something follows the value");
        return SAGA_POISON;
    }
    return 0;
}
