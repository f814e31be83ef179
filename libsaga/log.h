/* Log: JSON lines on stderr. {"time":"2026-11-24T13:31:25.123Z","level":"info","service":"order-svc",
 * "message":"lane taken","lane":7,"term":1795513885123}. Any thread; one write(2) a line. */
#ifndef SAGA_LOG_H
#define SAGA_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum saga_level { SAGA_DEBUG, SAGA_INFO, SAGA_WARN, SAGA_ERROR };

void saga_log_open(const char *service,
                   enum saga_level least);        /* LOG_LEVEL: debug, info, warn, error */
enum saga_level saga_log_level(const char *name); /* of LOG_LEVEL's value; unknown: SAGA_INFO */
bool saga_log_on(enum saga_level level);

/* members: a JSON fragment made with printf, strings by %s are the caller's to keep clean, or NULL:
 * saga_log_at(SAGA_INFO, "lane taken", "\"lane\":%d,\"term\":%" PRId64, 7, term). */
void saga_log_at(enum saga_level level, const char *message, const char *members, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with a text member "detail", escaped: error texts. */
void saga_log_text(enum saga_level level, const char *message, const char *detail);

#endif
