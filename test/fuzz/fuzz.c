/* What the fuzz targets share. See fuzz.h. */
#include "fuzz.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "json_bytes.h"

struct saga_arena fuzz_arena;

static struct {
    void *at[4096];
    int n;
} copies;

void fuzz_clean(void)
{
    saga_arena_free(&fuzz_arena);
    while (copies.n)
        free(copies.at[--copies.n]);
}

char *fuzz_copy(const void *data, size_t n)
{
    MUST(copies.n < (int)(sizeof copies.at / sizeof *copies.at), "too many copies");
    char *copy = saga_alloc(n);
    if (n)
        memcpy(copy, data, n);
    return copies.at[copies.n++] = copy;
}

/* The header in a line of n bytes. */
static struct saga_header header_of(const char *line, size_t n)
{
    const char *colon = memmem(line, n, ": ", 2);
    size_t name_n = colon ? (size_t)(colon - line) : n;
    struct saga_header header = {.name = strndup(line, name_n)};
    MUST(header.name && copies.n < (int)(sizeof copies.at / sizeof *copies.at), "too many copies");
    copies.at[copies.n++] = (void *)(uintptr_t)header.name;
    if (colon) {
        header.n = n - name_n - 2;
        header.value = fuzz_copy(colon + 2, header.n);
    }
    return header;
}

void fuzz_form(const uint8_t *data, size_t n, struct fuzz_form *form)
{
    const char *at = (const char *)data, *end = at + n;
    form->headers = 0;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t line = stop ? (size_t)(stop - at) : (size_t)(end - at);
        if (line && form->headers < FUZZ_HEADERS)
            form->header[form->headers++] = header_of(at, line);
        at += line + (stop != NULL);
        if (!line)
            break;
    }
    form->n = (size_t)(end - at);
    form->body = fuzz_copy(at, form->n);
}

/* ---- Limits ---- */

static void text_within(const struct saga_field *f, const char *s)
{
    static const char id[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    int64_t points = 0, n = (int64_t)strlen(s);
    MUST(json_utf8_ok(s, (size_t)n), "%s: not UTF-8", f->name);
    for (const char *p = s; *p; p++)
        points += ((unsigned char)*p & 0xC0) != 0x80;
    if (f->type == SAGA_ID)
        MUST(n >= 1 && n <= 64 && strspn(s, id) == (size_t)n, "%s: %s", f->name, s);
    else
        MUST(points >= f->min && points <= f->max, "%s: %s", f->name, s);
    if (f->type == SAGA_CODE)
        MUST(strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == (size_t)n, "%s: %s", f->name, s);
}

static void list_within(const struct saga_field *f, const void *at)
{
    struct lines list; /* a list of any T begins like this one */
    memcpy(&list, at, sizeof list);
    MUST((list.n || f->optional ? 1 : 0) && (!list.n || list.n >= f->min) && list.n <= f->max,
         "%s: %d items", f->name, list.n);
    for (int i = 0; i < list.n; i++)
        fuzz_within(f->of, (const char *)list.at + (size_t)i * f->size);
}

static void value_within(const struct saga_field *f, const void *at)
{
    const char *s;
    int64_t v;
    int i, names = 0;
    switch (f->type) {
    case SAGA_ID:
    case SAGA_TEXT:
    case SAGA_CODE:
        memcpy(&s, at, sizeof s);
        MUST(s || f->optional, "%s: it is missing", f->name);
        if (s)
            text_within(f, s);
        break;
    case SAGA_INT:
        memcpy(&v, at, sizeof v);
        MUST((v >= f->min && v <= f->max) || (f->optional && v == 0), "%s: %lld", f->name,
             (long long)v);
        break;
    case SAGA_NAME:
        memcpy(&i, at, sizeof i);
        while (f->names[names])
            names++;
        MUST(i >= 0 && i < names && (*f->names[i] || f->optional), "%s: %d", f->name, i);
        break;
    case SAGA_OBJECT:
        fuzz_within(f->of, at);
        break;
    case SAGA_LIST:
        list_within(f, at);
        break;
    case SAGA_BOOL:
    case SAGA_TIME:
        break;
    }
}

void fuzz_within(const struct saga_field *fields, const void *in)
{
    for (const struct saga_field *f = fields; f->name; f++)
        value_within(f, (const char *)in + f->at);
}

/* ---- Refusals ---- */

static bool is_word(const char *word, size_t n, const char *expected)
{
    return strlen(expected) == n && memcmp(word, expected, n) == 0;
}

static bool has_member(const struct saga_field *fields, const char *word, size_t n)
{
    for (const struct saga_field *f = fields; f && f->name; f++)
        if (is_word(word, n, f->name) || has_member(f->of, word, n))
            return true;
    return false;
}

static bool is_member(const char *word, size_t n)
{
    static const char *const envelope[] = {"specversion", "id",   "source",     "type",
                                           "subject",     "time", "previousid", "causationid",
                                           "traceparent", "data", "order_id",   NULL};
    for (const char *const *e = envelope; *e; e++)
        if (is_word(word, n, *e))
            return true;
    const struct saga_event *const *lists[] = {all_events, all_requests};
    for (int i = 0; i < 2; i++)
        for (const struct saga_event *const *e = lists[i]; *e; e++)
            if (has_member((*e)->fields, word, n))
                return true;
    return false;
}

/* "data.lines[0].sku" or "ce_type": of members that there are. */
static bool is_place(const char *s, size_t n)
{
    const char *end = s + n;
    if (n > 3 && memcmp(s, "ce_", 3) == 0)
        s += 3;
    while (s < end) {
        size_t word = strcspn(s, ".[: ");
        if (!is_member(s, word))
            return false;
        s += word;
        if (*s == '[') {
            size_t digits = strspn(s + 1, "0123456789");
            if (!digits || s[1 + digits] != ']')
                return false;
            s += digits + 2;
        }
        if (s < end && *s++ != '.')
            return false;
    }
    return true;
}

void fuzz_refused(const struct saga_err *err)
{
    const char *s = err->text;
    size_t n = strcspn(s, ": ");
    long number;
    int past = 0;
    MUST(err->code == SAGA_POISON, "code %d", err->code);
    MUST(*s && json_utf8_ok(s, strlen(s)), "not UTF-8: %s", s);
    if (sscanf(s, "byte %ld: %n", &number, &past) == 1 && s[past])
        return;
    if (same(s, "no value") || (isdigit((unsigned char)*s) && strstr(s, " bytes of ")))
        return;
    MUST(n && s[n] && is_place(s, n), "it names no member: %s", s);
}

/* ---- Failing: so that libFuzzer sees it ---- */

static void failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    abort();
}

__attribute__((constructor)) static void begin(void)
{
    test_failed = failed;
}
