/* The error record: formatting, prefixes, and texts that are UTF-8. */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "json_bytes.h"

/* These texts travel in headers and logs, which are UTF-8. vsnprintf cuts at any byte, and what is
 * quoted may be anything. */
static void clean(char *text)
{
    char *end = text + strlen(text);
    for (int n = 1; text < end; text += n) {
        n = (unsigned char)*text < 0x80 ? 1 : json_utf8_length(text, end);
        if (n == 0)
            *text = '?', n = 1;
    }
}

int saga_err(struct saga_err *err, int code, const char *format, ...)
{
    if (!err || err->code)
        return code;
    err->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    clean(err->text);
    return code;
}

int saga_err_in(struct saga_err *err, const char *format, ...)
{
    char text[sizeof(err->text)];
    memcpy(text, err->text, sizeof(text));
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    strncat(err->text, ": ", sizeof(err->text) - 1 - strlen(err->text));
    strncat(err->text, text, sizeof(err->text) - 1 - strlen(err->text));
    clean(err->text);
    return err->code;
}
