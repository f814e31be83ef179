/* Writes the log: one JSON object a line, one write(2) a line, so that lines of several threads and
 * processes never mix. A reader of stderr that goes away costs lines, not the service. */
#include "log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "mem.h"

static const char *const names[] = {"debug", "info", "warn", "error"};
static const char *service = "";
static enum saga_level least = SAGA_INFO;

void saga_log_open(const char *name, enum saga_level level)
{
    service = name;
    least = level;
    signal(SIGPIPE, SIG_IGN);
}

enum saga_level saga_log_level(const char *name)
{
    for (int i = SAGA_DEBUG; i <= SAGA_ERROR; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum saga_level)i;
    return SAGA_INFO;
}

bool saga_log_on(enum saga_level level)
{
    return level >= least;
}

static void begin(struct saga_buf *line, enum saga_level level, const char *message)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    saga_buf_str(line, "{\"time\":");
    saga_json_put_time(line, (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000, 3);
    saga_buf_printf(line, ",\"level\":\"%s\",\"service\":", names[level]);
    saga_json_put_text(line, service);
    saga_buf_str(line, ",\"message\":");
    saga_json_put_text(line, message);
}

/* What fits into a pipe at once; a little time for the rest of a long line. */
static bool has_room(bool rest)
{
    struct pollfd fd = {STDERR_FILENO, POLLOUT, 0};

    return poll(&fd, 1, rest ? 100 : 0) > 0;
}

/* What cannot be written at once is dropped: a log that blocks or fails must not stop the work. */
static void end(struct saga_buf *line)
{
    saga_buf_str(line, "}\n");
    for (size_t at = 0; at < line->n && has_room(at > 0);) {
        size_t left = line->n - at;
        ssize_t n = write(STDERR_FILENO, line->at + at, left < PIPE_BUF ? left : PIPE_BUF);
        if (n > 0)
            at += (size_t)n;
        else if (n == 0 || errno != EINTR)
            break;
    }
    saga_buf_free(line);
}

void saga_log_at(enum saga_level level, const char *message, const char *members, ...)
{
    if (level < least)
        return;
    int was = errno;
    struct saga_buf line = {0};
    begin(&line, level, message);
    if (members && *members) {
        char *text = NULL;
        va_list args;
        va_start(args, members);
        int n = vasprintf(&text, members, args);
        va_end(args);
        if (n > 0) {
            saga_buf_str(&line, ",");
            saga_buf_add(&line, text, (size_t)n);
        }
        if (n >= 0)
            free(text);
    }
    end(&line);
    errno = was;
}

void saga_log_text(enum saga_level level, const char *message, const char *detail)
{
    if (level < least)
        return;
    int was = errno;
    struct saga_buf line = {0};
    begin(&line, level, message);
    saga_buf_str(&line, ",\"detail\":");
    saga_json_put_text(&line, detail ? detail : "");
    end(&line);
    errno = was;
}
