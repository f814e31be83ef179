/* Memory: arenas (freed at once) and growing buffers. Out of memory ends the process with a line on
 * stderr: everything that matters is in the database. */
#ifndef SAGA_MEM_H
#define SAGA_MEM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

void *saga_alloc(size_t n); /* malloc that cannot fail */
void *saga_realloc(void *p, size_t n);
char *saga_strdup(const char *s);

uint32_t saga_hash(const char *key); /* FNV-1a, folded: for tables by key, in memory only */

/* 64 bits, the same for ever: stored in lane_input, compared with what Kafka has. n bytes after those
 * that gave h. */
uint64_t saga_hash64(uint64_t h, const void *bytes, size_t n);

/* ---- Arena ---- */
struct saga_block;
struct saga_arena { /* {0} is an empty one */
    char *at, *end;
    struct saga_block *blocks; /* newest first */
    size_t used;               /* bytes of its blocks */
};

void *saga_arena_more(struct saga_arena *a, size_t n);
/* Aligned to 8, not zeroed; may be NULL if n is 0. */
static inline void *saga_arena_alloc(struct saga_arena *a, size_t n)
{
    n = (n + 7) & ~(size_t)7;
    if ((size_t)(a->end - a->at) < n)
        return saga_arena_more(a, n);
    void *p = a->at;
    a->at += n;
    return p;
}
void *saga_arena_zero(struct saga_arena *a, size_t n);
char *saga_arena_text(struct saga_arena *a, const char *s, size_t n); /* a copy, NUL added */
void saga_arena_reset(struct saga_arena *a); /* keeps at most 1 MiB for the next use */
void saga_arena_free(struct saga_arena *a);

/* ---- Buffer ---- */
struct saga_buf { /* {0} is an empty one */
    char *at;
    size_t n, cap;
};

void saga_buf_grow(struct saga_buf *b, size_t more);
static inline char *saga_buf_room(struct saga_buf *b,
                                  size_t more) /* -> where to write; then b->n += */
{
    if (b->cap - b->n < more)
        saga_buf_grow(b, more);
    return b->at + b->n;
}
static inline void saga_buf_add(struct saga_buf *b, const void *p, size_t n)
{
    if (n == 0) /* memcpy takes no NULL, and an empty buffer is one */
        return;
    memcpy(saga_buf_room(b, n), p, n);
    b->n += n;
}
static inline void saga_buf_str(struct saga_buf *b, const char *s)
{
    saga_buf_add(b, s, strlen(s));
}
void saga_buf_int(struct saga_buf *b, int64_t v); /* decimal */
enum { SAGA_INT_TEXT = 20 };
size_t saga_int_text(int64_t v,
                     char *out); /* the same: at most SAGA_INT_TEXT bytes, no NUL; -> length */
void saga_buf_printf(struct saga_buf *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void saga_buf_free(struct saga_buf *b);

#endif
