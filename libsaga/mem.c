/* Arenas, growing buffers, and an allocator that ends the process instead of failing. */
#include "mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    BLOCK_FIRST = 8 * 1024,   /* each block is twice the one before, */
    BLOCK_MOST = 1024 * 1024, /* up to this; one of at most this size survives a reset */
    BUF_FIRST = 256,
};

static void out_of_memory(void)
{
    static const char line[] = "{\"level\":\"error\",\"message\":\"out of memory\"}\n";
    ssize_t ignored = write(STDERR_FILENO, line, sizeof(line) - 1);
    (void)ignored;
    _exit(70); /* no atexit handlers: they may allocate */
}

void *saga_alloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p)
        out_of_memory();
    return p;
}

void *saga_realloc(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p)
        out_of_memory();
    return p;
}

char *saga_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(saga_alloc(n), s, n);
}

uint32_t saga_hash(const char *key)
{
    uint64_t h = 0xcbf29ce484222325;

    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 0x100000001b3;
    return (uint32_t)(h ^ h >> 32);
}

/* Eight bytes at a time; the length too, so that what is cut at another place differs. */
uint64_t saga_hash64(uint64_t h, const void *bytes, size_t n)
{
    const char *at = bytes;
    uint64_t word;

    h = (h ^ n) * 0x9e3779b97f4a7c15;
    for (; n >= 8; n -= 8, at += 8) {
        memcpy(&word, at, 8);
        h = (h ^ word) * 0x9e3779b97f4a7c15;
        h ^= h >> 29;
    }
    for (word = 0; n; n--)
        word = word << 8 | (unsigned char)at[n - 1];
    h = (h ^ word) * 0x9e3779b97f4a7c15;
    return h ^ h >> 32;
}

/* ---- Arena ---- */

struct saga_block {
    struct saga_block *older;
    size_t size; /* of room */
    _Alignas(16) char room[];
};

/* A piece that does not fit opens a new block; what is left of the one before is not used any more.
 */
void *saga_arena_more(struct saga_arena *a, size_t n)
{
    n = (n + 7) & ~(size_t)7;
    size_t size = BLOCK_FIRST;
    if (a->blocks)
        size = a->blocks->size < BLOCK_MOST / 2 ? a->blocks->size * 2 : BLOCK_MOST;
    if (size < n)
        size = n;
    struct saga_block *block = saga_alloc(sizeof(*block) + size);
    block->older = a->blocks;
    block->size = size;
    a->blocks = block;
    a->used += size;
    a->at = block->room + n;
    a->end = block->room + size;
    return block->room;
}

void *saga_arena_zero(struct saga_arena *a, size_t n)
{
    void *p = saga_arena_alloc(a, n);
    return n ? memset(p, 0, n) : p;
}

char *saga_arena_text(struct saga_arena *a, const char *s, size_t n)
{
    char *copy = saga_arena_alloc(a, n + 1);
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

/* The newest block that may stay is the largest of those. */
void saga_arena_reset(struct saga_arena *a)
{
    struct saga_block *keep = NULL;
    for (struct saga_block *b = a->blocks, *older; b; b = older) {
        older = b->older;
        if (!keep && b->size <= BLOCK_MOST)
            keep = b;
        else
            free(b);
    }
    *a = (struct saga_arena){.blocks = keep};
    if (!keep)
        return;
    keep->older = NULL;
    a->used = keep->size;
    a->at = keep->room;
    a->end = keep->room + keep->size;
}

void saga_arena_free(struct saga_arena *a)
{
    for (struct saga_block *b = a->blocks, *older; b; b = older) {
        older = b->older;
        free(b);
    }
    *a = (struct saga_arena){0};
}

/* ---- Buffer ---- */

void saga_buf_grow(struct saga_buf *b, size_t more)
{
    size_t cap = b->cap ? b->cap : BUF_FIRST;
    while (cap - b->n < more)
        cap = cap > SIZE_MAX / 2 ? SIZE_MAX : cap * 2; /* SIZE_MAX: saga_realloc ends us */
    b->at = saga_realloc(b->at, cap);
    b->cap = cap;
}

/* Two digits at a time, straight to their places: events are full of ids. */
size_t saga_int_text(int64_t v, char *out)
{
    static const char pairs[] = "0001020304050607080910111213141516171819"
                                "2021222324252627282930313233343536373839"
                                "4041424344454647484950515253545556575859"
                                "6061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    uint64_t rest = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    size_t n = v < 0 ? 2 : 1;
    for (uint64_t limit = 10; rest >= limit; limit *= 10) {
        n++;
        if (limit > UINT64_MAX / 10)
            break;
    }
    char *at = out + n;
    for (; rest >= 100; rest /= 100)
        memcpy(at -= 2, pairs + rest % 100 * 2, 2);
    if (rest >= 10)
        memcpy(at -= 2, pairs + rest * 2, 2);
    else
        *--at = (char)('0' + rest);
    if (v < 0)
        *out = '-';
    return n;
}

void saga_buf_int(struct saga_buf *b, int64_t v)
{
    b->n += saga_int_text(v, saga_buf_room(b, SAGA_INT_TEXT));
}

void saga_buf_printf(struct saga_buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t room = b->cap - b->n;
    int n = vsnprintf(room ? b->at + b->n : NULL, room, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n >= room) {
        saga_buf_room(b, (size_t)n + 1);
        vsnprintf(b->at + b->n, (size_t)n + 1, format, again);
    }
    va_end(again);
    if (n > 0)
        b->n += (size_t)n;
}

void saga_buf_free(struct saga_buf *b)
{
    free(b->at);
    *b = (struct saga_buf){0};
}
