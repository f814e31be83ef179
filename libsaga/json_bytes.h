/* How the library looks at the bytes of a string: what needs an escape, what is UTF-8. Private to
 * it. */
#ifndef SAGA_JSON_BYTES_H
#define SAGA_JSON_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

static inline bool json_plain(char c) /* stands for itself within a string */
{
    return (signed char)c >= ' ' && c != '"' && c != '\\';
}

#ifdef __SSE2__
static inline unsigned json_special16(__m128i bytes) /* a bit for each byte that is not plain */
{
    __m128i quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'));
    __m128i slash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
    __m128i other = _mm_cmplt_epi8(bytes, _mm_set1_epi8(' ')); /* signed: 0x80 and above too */
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), other));
}
#endif

static inline const char *json_past_plain(const char *p, const char *end)
{
#ifdef __SSE2__
    for (; end - p >= 16; p += 16) {
        unsigned special = json_special16(_mm_loadu_si128((const __m128i *)(const void *)p));
        if (special)
            return p + __builtin_ctz(special);
    }
#endif
    while (p < end && json_plain(*p))
        p++;
    return p;
}

/* Bytes of the character at p, which is not ASCII (Unicode 15, table 3-7: no overlong forms, no
 * surrogates, nothing above U+10FFFF), or 0. */
static inline int json_utf8_length(const char *p, const char *end)
{
    const unsigned char *u = (const unsigned char *)p;
    ptrdiff_t n = end - p;
    if (u[0] < 0xC2 || u[0] > 0xF4 || n < 2)
        return 0;
    if (u[0] < 0xE0)
        return (u[1] & 0xC0) == 0x80 ? 2 : 0;
    unsigned char low = u[0] == 0xE0 ? 0xA0 : u[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = u[0] == 0xED ? 0x9F : u[0] == 0xF4 ? 0x8F : 0xBF;
    if (u[1] < low || u[1] > high || n < 3 || (u[2] & 0xC0) != 0x80)
        return 0;
    if (u[0] < 0xF0)
        return 3;
    return n >= 4 && (u[3] & 0xC0) == 0x80 ? 4 : 0;
}

static inline bool json_utf8_ok(const char *p, size_t n) /* UTF-8 without NUL */
{
    for (const char *end = p + n; p < end;) {
        int length = (unsigned char)*p < 0x80 ? *p != 0 : json_utf8_length(p, end);
        if (!length)
            return false;
        p += length;
    }
    return true;
}

static inline char *json_put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
        return out;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
    *out++ = (char)(lead[more] | c >> (6 * more));
    while (more--)
        *out++ = (char)(0x80 | ((c >> (6 * more)) & 0x3F));
    return out;
}

#endif
