/* An allocator that only goes forward, in one piece of memory. See region.h. */
#include "region.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "mem.h"

enum { REGION_BYTES = 1 << 28, SCRATCH_BYTES = 1 << 20, PIECE = 16 };

static char *region; /* SCRATCH_BYTES of it are not saved */
static size_t used, used_scratch;
static enum { CLOSED, OPEN, SCRATCH } to;

void *__real_malloc(size_t n);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);

void region_start(void)
{
    if (!region)
        region = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    used = SCRATCH_BYTES;
    used_scratch = 0;
}

void region_open(void)
{
    to = OPEN;
}

void region_scratch(void)
{
    to = SCRATCH;
}

void region_close(void)
{
    to = CLOSED;
}

static bool inside(const void *p)
{
    return region && (uintptr_t)p - (uintptr_t)region < REGION_BYTES;
}

/* The size of a piece stands before it. */
static size_t *size_of(void *p)
{
    return (size_t *)(void *)((char *)p - PIECE);
}

void *__wrap_malloc(size_t n)
{
    if (to == CLOSED)
        return __real_malloc(n);
    size_t *end = to == OPEN ? &used : &used_scratch;
    char *p = region + *end + PIECE;
    size_t room = (n + PIECE - 1) & ~(size_t)(PIECE - 1);
    if (*end + PIECE + room > (to == OPEN ? REGION_BYTES : SCRATCH_BYTES))
        return NULL;
    *end += PIECE + room;
    *size_of(p) = room;
    return p;
}

void *__wrap_realloc(void *p, size_t n)
{
    if (!(p ? inside(p) : to != CLOSED))
        return __real_realloc(p, n);
    if (p && *size_of(p) >= n)
        return p;
    void *larger = __wrap_malloc(n);
    if (larger && p)
        memcpy(larger, p, *size_of(p));
    return larger;
}

/* The newest piece is given back, others are left. */
void __wrap_free(void *p)
{
    if (!inside(p))
        __real_free(p);
    else if ((char *)p + *size_of(p) == region + used)
        used -= PIECE + *size_of(p);
}

void region_save(struct image *image)
{
    size_t n = used - SCRATCH_BYTES;

    if (image->cap < n) {
        image->cap = n * 2;
        image->bytes = saga_realloc(image->bytes, image->cap);
    }
    image->n = n;
    memcpy(image->bytes, region + SCRATCH_BYTES, n);
}

void region_restore(const struct image *image)
{
    used = SCRATCH_BYTES + image->n;
    memcpy(region + SCRATCH_BYTES, image->bytes, image->n);
}
