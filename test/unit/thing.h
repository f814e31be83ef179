/* A struct with every type of field, each also optional, and its table; for tests of field.h. */
#ifndef THING_H
#define THING_H

#include "field.h"

struct part {
    const char *sku;
    int64_t n;
};
struct parts {
    int n;
    struct part *at;
};
struct inner {
    int kind;
    const char *note;
};
struct thing {
    const char *id, *text, *code;
    int64_t count, at;
    bool flag;
    int colour;
    struct inner inner;
    struct parts parts;
    const char *maybe;
    int64_t maybe_count, maybe_at;
    bool maybe_flag;
    int maybe_kind;
    struct inner maybe_inner;
    struct parts maybe_parts;
};

extern const struct saga_field things[];
extern const char *const thing_colours[]; /* colour */
extern const char *const thing_kinds[];   /* kind */

/* A number below n, and a thing with any of its members; from a seed that the caller sets. */
extern uint64_t thing_seed;
unsigned thing_number(unsigned n);
struct thing thing_any(struct saga_arena *arena);

#endif
