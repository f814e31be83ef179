/* Appending JSON: strings and times. What it writes is UTF-8 without NUL, whatever it is given:
 * error texts of libraries go through here to the log. */
#include "json.h"

#include <string.h>

#include "json_bytes.h"

static char *put_special(char *out, const char **s, const char *end)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char c = (unsigned char)**s;
    int n = c >= 0x80 ? json_utf8_length(*s, end) : 0;
    if (n) {
        memcpy(out, *s, (size_t)n);
        *s += n;
        return out + n;
    }
    (*s)++;
    if (c == 0 || c >= 0x80)
        return json_put_utf8(out, 0xFFFD);
    const char *simple = strchr("\"\\\bb\ff\nn\rr\tt", c);
    *out++ = '\\';
    if (c == '"' || c == '\\') {
        *out++ = (char)c;
    } else if (simple) {
        *out++ = simple[1];
    } else {
        memcpy(out, "u00", 3);
        out[3] = hex[c >> 4];
        out[4] = hex[c & 15];
        out += 5;
    }
    return out;
}

/* Copies and looks at the same time; room for the worst case is there. */
static char *put_plain(char *out, const char **s, const char *end)
{
    const char *p = *s;
#ifdef __SSE2__
    for (; end - p >= 16; p += 16, out += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned special = json_special16(bytes);
        _mm_storeu_si128((__m128i *)(void *)out, bytes);
        if (special) {
            *s = p + __builtin_ctz(special);
            return out + __builtin_ctz(special);
        }
    }
#endif
    while (p < end && json_plain(*p))
        *out++ = *p++;
    *s = p;
    return out;
}

void saga_json_put_textn(struct saga_buf *out, const char *s, size_t n)
{
    const char *end = s + n;
    char *start = saga_buf_room(out, n * 6 + 2), *at = start; /* \u001f */
    *at++ = '"';
    while (s < end) {
        at = put_plain(at, &s, end);
        if (s < end)
            at = put_special(at, &s, end);
    }
    *at++ = '"';
    out->n += (size_t)(at - start);
}

void saga_json_put_text(struct saga_buf *out, const char *s)
{
    saga_json_put_textn(out, s, strlen(s));
}

/* ---- Time: the proleptic Gregorian calendar, by days since 1970 (after Howard Hinnant's chrono
 * algorithms: years begin in March, so that the leap day is the last one) ---- */

/* What four digits of a year can say. */
#define FIRST_US (INT64_C(-62167219200) * 1000000) /* 0000-01-01T00:00:00Z */
#define LAST_US  INT64_C(253402300799999999)       /* 9999-12-31T23:59:59.999999Z */

static int64_t days_of(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of(int64_t days, int *year, int *month, int *day)
{
    days += 719468;
    int era = (int)((days >= 0 ? days : days - 146096) / 146097);
    int of_era = (int)(days - (int64_t)era * 146097);
    int y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int of_year = of_era - (365 * y + y / 4 - y / 100), m = (5 * of_year + 2) / 153;
    *day = of_year - (153 * m + 2) / 5 + 1;
    *month = m < 10 ? m + 3 : m - 9;
    *year = era * 400 + y + (*month <= 2);
}

static char *put_digits(char *out, int v, int digits)
{
    for (int i = digits; i-- > 0; v /= 10)
        out[i] = (char)('0' + v % 10);
    return out + digits;
}

void saga_json_put_time(struct saga_buf *out, int64_t us, int digits)
{
    static const int64_t second = 1000000, day_us = 86400 * INT64_C(1000000);
    us = us < FIRST_US ? FIRST_US : us > LAST_US ? LAST_US : us;
    int64_t days = us / day_us - (us % day_us < 0), rest = us - days * day_us;
    int year, month, day, seconds = (int)(rest / second), fraction = (int)(rest % second);
    date_of(days, &year, &month, &day);
    char *start = saga_buf_room(out, 32), *at = start;
    *at++ = '"';
    at = put_digits(at, year, 4);
    *at++ = '-';
    at = put_digits(at, month, 2);
    *at++ = '-';
    at = put_digits(at, day, 2);
    *at++ = 'T';
    at = put_digits(at, seconds / 3600, 2);
    *at++ = ':';
    at = put_digits(at, seconds / 60 % 60, 2);
    *at++ = ':';
    at = put_digits(at, seconds % 60, 2);
    *at++ = '.';
    at = put_digits(at, digits == 3 ? fraction / 1000 : fraction, digits);
    *at++ = 'Z';
    *at++ = '"';
    out->n += (size_t)(at - start);
}

/* ---- Reading a time ---- */

static bool digits_at(const char **s, const char *end, int n, int *v)
{
    *v = 0;
    if (end - *s < n)
        return false;
    for (; n--; (*s)++) {
        if (**s < '0' || **s > '9')
            return false;
        *v = *v * 10 + (**s - '0');
    }
    return true;
}

static bool char_at(const char **s, const char *end, char one, char other)
{
    if (*s == end || (**s != one && **s != other))
        return false;
    (*s)++;
    return true;
}

/* "Z" or "+02:00" */
static bool offset_at(const char **s, const char *end, int *minutes)
{
    int hour, minute;
    *minutes = 0;
    if (char_at(s, end, 'Z', 'z'))
        return true;
    bool west = *s < end && **s == '-';
    if (!char_at(s, end, '+', '-') || !digits_at(s, end, 2, &hour) || !char_at(s, end, ':', ':') ||
        !digits_at(s, end, 2, &minute) || hour > 23 || minute > 59)
        return false;
    *minutes = (hour * 60 + minute) * (west ? -1 : 1);
    return true;
}

static bool day_exists(int year, int month, int day)
{
    static const char days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1] &&
           (month != 2 || day < 29 || leap);
}

bool saga_time_read(const char *s, size_t n, int64_t *us)
{
    const char *end = s + n;
    int year, month, day, hour, minute, second, offset, digit, fraction = 0;
    if (!digits_at(&s, end, 4, &year) || !char_at(&s, end, '-', '-') ||
        !digits_at(&s, end, 2, &month) || !char_at(&s, end, '-', '-') ||
        !digits_at(&s, end, 2, &day) || !char_at(&s, end, 'T', 't') ||
        !digits_at(&s, end, 2, &hour) || !char_at(&s, end, ':', ':') ||
        !digits_at(&s, end, 2, &minute) || !char_at(&s, end, ':', ':') ||
        !digits_at(&s, end, 2, &second))
        return false;
    if (char_at(&s, end, '.', '.')) {
        if (!digits_at(&s, end, 1, &digit))
            return false;
        fraction = digit * 100000;
        for (int scale = 10000; digits_at(&s, end, 1, &digit); scale /= 10)
            fraction += digit * scale;
    }
    if (!offset_at(&s, end, &offset) || s != end || !day_exists(year, month, day) || hour > 23 ||
        minute > 59 || second > 60) /* 60: a leap second, here the second after it */
        return false;
    int64_t seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    *us = (seconds - offset * 60) * 1000000 + fraction;
    return *us >= FIRST_US && *us <= LAST_US; /* an offset or leap second may lead beyond */
}
