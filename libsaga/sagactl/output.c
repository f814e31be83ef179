/* How sagactl ends, and what its output has in common. See ctl.h. */
#include "ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mem.h"

bool ctl_json;

void ctl_die(int status, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fputs("sagactl: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(status);
}

void ctl_print_json(const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (text)
        puts(text);
    free(text);
}

/* Those of ISO 8859 (C1) are two bytes of UTF-8. */
static size_t control(const unsigned char *p)
{
    if (*p < ' ' || *p == 127)
        return 1;
    return p[0] == 0xC2 && p[1] >= 0x80 && p[1] < 0xA0 ? 2 : 0;
}

const char *ctl_plain(const char *text)
{
    static struct saga_buf ring[16];
    static int next;
    struct saga_buf *out = &ring[next++ % 16];
    out->n = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        size_t n = control(p);
        for (size_t i = 0; i < n; i++)
            saga_buf_printf(out, "\\x%02x", *p++);
        if (!n)
            saga_buf_add(out, p++, 1);
    }
    saga_buf_add(out, "", 1);
    return out->at;
}

const char *ctl_env(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

const char *ctl_colour(const char *service)
{
    static const char *const colours[][2] = {{"client", "\033[36m"},
                                             {"order-svc", "\033[34m"},
                                             {"inventory-svc", "\033[33m"},
                                             {"payment-svc", "\033[35m"},
                                             {"dead letter", "\033[31m"}};
    static int terminal = -1;
    if (terminal < 0)
        terminal = isatty(STDOUT_FILENO) && !*ctl_env("NO_COLOR", "");
    if (!terminal)
        return "";
    for (size_t i = 0; service && i < sizeof colours / sizeof *colours; i++)
        if (strcmp(colours[i][0], service) == 0)
            return colours[i][1];
    return "\033[0m";
}

const char *ctl_clock(int64_t time_ms, char out[13])
{
    struct tm tm;
    time_t s = (time_t)(time_ms / 1000);
    localtime_r(&s, &tm);
    char text[32];
    snprintf(text, sizeof text, "%02d:%02d:%02d.%03d", tm.tm_hour, tm.tm_min, tm.tm_sec,
             (int)(time_ms % 1000));
    return memcpy(out, text, 13);
}

int64_t ctl_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
