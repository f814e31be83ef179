/* Things: see thing.h. */
#include "thing.h"

const char *const thing_colours[] = {"red", "green", NULL};
const char *const thing_kinds[] = {"", "big", "small", NULL};

#define F(member) SAGA_AT(struct T, member)
#define T         part
static const struct saga_field part_fields[] = {{F(sku), SAGA_ID}, {F(n), SAGA_INT, 1, 10}, {0}};
#undef T
#define T inner
static const struct saga_field inner_fields[] = {
    {F(kind), SAGA_NAME, .names = thing_kinds, .optional = true},
    {F(note), SAGA_TEXT, 0, 5, .optional = true},
    {0}};
#undef T
#define T thing
const struct saga_field things[] = {
    {F(id), SAGA_ID},
    {F(text), SAGA_TEXT, 2, 4},
    {F(code), SAGA_CODE, 2, 3},
    {F(count), SAGA_INT, -5, 5},
    {F(at), SAGA_TIME},
    {F(flag), SAGA_BOOL},
    {F(colour), SAGA_NAME, .names = thing_colours},
    {F(inner), SAGA_OBJECT, .of = inner_fields},
    {F(parts), SAGA_LIST, 1, 3, part_fields, sizeof(struct part)},
    {F(maybe), SAGA_TEXT, 0, 4, .optional = true},
    {F(maybe_count), SAGA_INT, INT64_MIN, INT64_MAX, .optional = true},
    {F(maybe_at), SAGA_TIME, .optional = true},
    {F(maybe_flag), SAGA_BOOL, .optional = true},
    {F(maybe_kind), SAGA_NAME, .names = thing_kinds, .optional = true},
    {F(maybe_inner), SAGA_OBJECT, .of = inner_fields, .optional = true},
    {F(maybe_parts), SAGA_LIST, 0, 3, part_fields, sizeof(struct part), .optional = true},
    {0}};
#undef T

uint64_t thing_seed;

unsigned thing_number(unsigned n)
{
    thing_seed = thing_seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)(thing_seed >> 33) % n;
}

static const char *any_text(struct saga_arena *arena, int least, int most)
{
    static const char *const letters[] = {"a", "\"", "\\", "é", "😀", "\n", "\x01", " "};
    struct saga_buf text = {0};
    for (int n = least + (int)thing_number((unsigned)(most - least + 1)); n--;)
        saga_buf_str(&text, letters[thing_number(8)]);
    const char *s = saga_arena_text(arena, text.at ? text.at : "", text.n);
    saga_buf_free(&text);
    return s;
}

static struct parts any_parts(struct saga_arena *arena, int least)
{
    struct parts parts = {.n = least + (int)thing_number((unsigned)(4 - least))};
    parts.at = parts.n ? saga_arena_zero(arena, (size_t)parts.n * sizeof(*parts.at)) : NULL;
    for (int i = 0; i < parts.n; i++)
        parts.at[i] = (struct part){saga_arena_text(arena, thing_number(2) ? "apple" : "lemon", 5),
                                    1 + thing_number(10)};
    return parts;
}

static struct inner any_inner(struct saga_arena *arena)
{
    return (struct inner){(int)thing_number(3), thing_number(2) ? any_text(arena, 0, 5) : NULL};
}

struct thing thing_any(struct saga_arena *arena)
{
    struct thing t = {.id = thing_number(2) ? "ord-1" : "A:9._",
                      .text = any_text(arena, 2, 4),
                      .code = thing_number(2) ? "EUR" : "XY",
                      .count = (int64_t)thing_number(11) - 5,
                      .at = (int64_t)thing_number(INT32_MAX) * 1000003 - 5,
                      .flag = thing_number(2),
                      .colour = (int)thing_number(2),
                      .inner = any_inner(arena),
                      .parts = any_parts(arena, 1)};
    if (thing_number(2))
        t.maybe = any_text(arena, 0, 4);
    if (thing_number(2))
        t.maybe_count = thing_number(2) ? INT64_MIN : INT64_MAX;
    if (thing_number(2))
        t.maybe_at = -(int64_t)thing_number(INT32_MAX) * 1000 - 1;
    if (thing_number(2))
        t.maybe_inner = any_inner(arena);
    if (thing_number(2))
        t.maybe_parts = any_parts(arena, 0);
    t.maybe_flag = thing_number(2);
    t.maybe_kind = (int)thing_number(3);
    return t;
}
