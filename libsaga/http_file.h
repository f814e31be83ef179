/* Files of secrets that are read at start and again when they change. */
#ifndef SAGA_HTTP_FILE_H
#define SAGA_HTTP_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "err.h"

struct saga_file {
    const char *variable, *path; /* the setting that names it, for messages */
    struct stat seen;            /* as it was when it was read */
};

/* Reads at most max bytes. secret: others than owner and group may not read it. -> 0, and *text (NUL
 * added, the caller frees it); SAGA_FATAL */
int saga_file_read(struct saga_file *file, size_t max, bool secret, char **text, size_t *n,
                   struct saga_err *err);
bool saga_file_changed(const struct saga_file *file);

#endif
