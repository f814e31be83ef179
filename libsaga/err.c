/* The error record: formatting, prefixes, and texts that end in a whole character. */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* vsnprintf cuts at a byte; these texts travel in headers and logs, which are UTF-8. */
static void whole_characters(char *text, size_t size)
{
    size_t n = strlen(text);
    if (n + 1 < size)
        return;
    size_t tail = 0; /* continuation bytes at the end */
    while (tail < 3 && tail < n && ((unsigned char)text[n - 1 - tail] & 0xC0) == 0x80)
        tail++;
    if (tail == n)
        return;
    unsigned char lead = (unsigned char)text[n - 1 - tail];
    size_t need = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (need > tail)
        text[n - 1 - tail] = '\0';
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
    whole_characters(err->text, sizeof(err->text));
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
    whole_characters(err->text, sizeof(err->text));
    return err->code;
}
