/* The pull reader against jansson. See agree.h. */
#include "agree.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "test.h"

static struct saga_arena arena;

/* ---- The value, as jansson's tree, read by pulling ---- */

static json_t *pull(struct saga_json *j, bool *beyond);

static json_t *pull_number(struct saga_json *j, bool *beyond)
{
    struct saga_span raw;
    int64_t v;
    if (!saga_json_raw(j, &raw))
        return NULL;
    const char *digits = saga_arena_text(&arena, raw.at, raw.n);
    if (strpbrk(digits, ".eE")) {
        double real = strtod(digits, NULL);
        *beyond |= isinf(real);
        return isinf(real) ? json_null() : json_real(real);
    }
    struct saga_json again;
    saga_json_init(&again, digits, raw.n, &arena, NULL);
    bool fits = saga_json_int(&again, &v);
    errno = 0;
    long long expected = strtoll(digits, NULL, 10);
    MUST(fits == (errno == 0) && (!fits || v == expected), "%s", digits);
    *beyond |= !fits;
    return json_integer(fits ? v : 0);
}

static json_t *pull_text(struct saga_json *j)
{
    const char *s;
    size_t n;
    if (!saga_json_text(j, &s, &n))
        return NULL;
    json_t *string = json_stringn(s, n);
    MUST(string && strlen(s) == n, "not UTF-8, or with NUL: %s", s);
    return string;
}

static json_t *pull_object(struct saga_json *j, bool *beyond)
{
    struct saga_span name;
    json_t *object = json_object();
    saga_json_open(j, '{');
    while (saga_json_member(j, &name)) {
        char *key = strndup(name.at, name.n);
        json_t *value = pull(j, beyond);
        if (value)
            json_object_set_new(object, key, value);
        free(key);
    }
    return object;
}

static json_t *pull_array(struct saga_json *j, bool *beyond)
{
    json_t *array = json_array();
    saga_json_open(j, '[');
    while (saga_json_item(j)) {
        json_t *value = pull(j, beyond);
        if (value)
            json_array_append_new(array, value);
    }
    return array;
}

static json_t *pull(struct saga_json *j, bool *beyond)
{
    bool flag;
    switch (saga_json_peek(j)) {
    case '{':
        return pull_object(j, beyond);
    case '[':
        return pull_array(j, beyond);
    case '"':
        return pull_text(j);
    case '0':
        return pull_number(j, beyond);
    case 'n':
        return saga_json_null(j) ? json_null() : (saga_json_skip(j), NULL);
    default:
        return saga_json_bool(j, &flag) ? json_boolean(flag) : NULL;
    }
}

static int depth_of(const json_t *value)
{
    int deepest = 0, depth;
    const char *key;
    size_t i;
    json_t *part;
    if (!json_is_object(value) && !json_is_array(value))
        return 0;
    json_object_foreach((json_t *)value, key, part) if ((depth = depth_of(part)) > deepest)
        deepest = depth;
    json_array_foreach(value, i, part) if ((depth = depth_of(part)) > deepest) deepest = depth;
    return deepest + 1;
}

static bool skips(const char *text, size_t n)
{
    struct saga_json j;
    saga_json_init(&j, text, n, &arena, NULL);
    saga_json_skip(&j);
    return saga_json_end(&j) == 0;
}

bool agree(const char *text, size_t n)
{
    struct saga_json j;
    struct saga_err err = {0};
    json_error_t error;
    bool beyond = false;
    json_t *theirs = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    saga_json_init(&j, text, n, &arena, &err);
    json_t *ours = pull(&j, &beyond);
    if (saga_json_end(&j) < 0) {
        json_decref(ours);
        ours = NULL;
        MUST(err.code == SAGA_POISON && *err.text, "no error: %.*s", (int)n, text);
    }
    MUST(skips(text, n) == !!ours, "skipping and pulling differ: %.*s", (int)n, text);
    if (theirs && depth_of(theirs) > SAGA_JSON_DEPTH)
        MUST(!ours, "too deep: %.*s", (int)n, text);
    else if (n && memchr(text, '\0', n))
        MUST(!ours, "NUL in %.*s", (int)n, text);
    else if (ours && beyond)
        MUST(!theirs, "jansson has learned big numbers: %.*s", (int)n, text);
    else
        MUST(!ours == !theirs && (!ours || json_equal(ours, theirs)), "we: %s; jansson: %s: %.*s",
             ours ? "good" : err.text, theirs ? "good" : error.text, (int)n, text);
    bool good = ours;
    json_decref(ours);
    json_decref(theirs);
    saga_arena_reset(&arena);
    return good;
}
