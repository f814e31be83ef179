/* Rows of recent orders in two generations. See recent.h. */
#include "recent.h"

#include <stdlib.h>

#include "field.h"

enum { ENOUGH = 2 * 1024 * 1024 /* bytes of a generation */ };

struct entry {
    void *row; /* NULL: empty */
    uint32_t hash, epoch;
};

struct generation {
    struct saga_arena arena;
    struct entry *entry; /* open addressing */
    uint32_t n, live, mask;
};

struct saga_recent {
    const struct saga_table *table;
    size_t half;
    bool cause, trace; /* are columns; else they are not the row's */
    uint32_t *epoch;   /* by lane: entries of another one are forgotten */
    struct generation young, old;
};

static bool is_column(const struct saga_table *table, size_t at)
{
    for (const struct saga_field *column = table->columns; column->name; column++)
        if (column->at == at)
            return true;
    return false;
}

struct saga_recent *saga_recent_new(const struct saga_table *table, int32_t lanes, size_t bytes)
{
    struct saga_recent *r = saga_alloc(sizeof *r);

    *r = (struct saga_recent){.table = table,
                              .half = bytes / 2,
                              .cause = is_column(table, offsetof(struct saga_row, cause)),
                              .trace = is_column(table, offsetof(struct saga_row, trace)),
                              .epoch = saga_alloc((size_t)lanes * sizeof *r->epoch)};
    memset(r->epoch, 0, (size_t)lanes * sizeof *r->epoch);
    return r;
}

void saga_recent_free(struct saga_recent *r)
{
    if (!r)
        return;
    saga_arena_free(&r->young.arena);
    saga_arena_free(&r->old.arena);
    free(r->young.entry), free(r->old.entry), free(r->epoch);
    free(r);
}

static struct entry *find(const struct generation *g, const char *key, uint32_t h)
{
    if (!g->entry)
        return NULL;
    for (uint32_t i = h & g->mask;; i = (i + 1) & g->mask) {
        struct entry *e = &g->entry[i];
        if (!e->row || (e->hash == h && !strcmp(((struct saga_row *)e->row)->key, key)))
            return e;
    }
}

static void grow(struct generation *g)
{
    struct generation more = {.mask = g->entry ? g->mask * 2 + 1 : 1023};

    more.entry = saga_alloc(((size_t)more.mask + 1) * sizeof *more.entry);
    memset(more.entry, 0, ((size_t)more.mask + 1) * sizeof *more.entry);
    for (uint32_t i = 0; g->entry && i <= g->mask; i++)
        if (g->entry[i].row)
            *find(&more, ((struct saga_row *)g->entry[i].row)->key, g->entry[i].hash) = g->entry[i];
    free(g->entry);
    g->entry = more.entry;
    g->mask = more.mask;
}

void *saga_recent_get(struct saga_recent *r, int32_t lane, const char *key)
{
    uint32_t h = saga_hash(key);
    struct entry *e = find(&r->young, key, h);

    if (!e || !e->row)
        e = find(&r->old, key, h);
    return e && e->row && e->epoch == r->epoch[lane] ? e->row : NULL;
}

void saga_recent_put(struct saga_recent *r, int32_t lane, const void *row)
{
    struct generation *g = &r->young;
    struct saga_row *copy = saga_fields_copy(r->table->columns, r->table->size, row, &g->arena);
    uint32_t h = saga_hash(copy->key);

    copy->stored = true;
    copy->changed = false;
    if (!r->cause)
        copy->cause = NULL;
    if (!r->trace)
        copy->trace = NULL;
    if (!g->entry || g->n * 2 > g->mask)
        grow(g);
    struct entry *e = find(g, copy->key, h);
    if (!e->row)
        g->n++;
    if (!e->row || e->epoch != r->epoch[lane])
        g->live++;
    *e = (struct entry){copy, h, r->epoch[lane]};
}

/* The entry stays as a mark, of an epoch that no lane has: probing goes on past it. */
void saga_recent_drop(struct saga_recent *r, int32_t lane, const char *key)
{
    uint32_t h = saga_hash(key);
    struct entry *young = find(&r->young, key, h), *old = find(&r->old, key, h);

    if (young && young->row && young->epoch == r->epoch[lane]) {
        young->epoch--;
        r->young.live--;
    }
    if (old && old->row && old->epoch == r->epoch[lane]) {
        old->epoch--;
        r->old.live--;
    }
}

void saga_recent_turn(struct saga_recent *r)
{
    size_t used = r->young.arena.used + (size_t)r->young.mask * sizeof *r->young.entry;
    struct generation old = r->old;

    if (used < r->half && (used < ENOUGH || r->old.live > r->old.n / 8))
        return;
    saga_arena_free(&old.arena);
    free(old.entry);
    r->old = r->young;
    r->young = (struct generation){0};
}

void saga_recent_forget(struct saga_recent *r, int32_t lane)
{
    r->epoch[lane]++;
}
