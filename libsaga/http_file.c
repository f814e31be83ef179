/* Files of secrets. See http_file.h. */
#include "http_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "mem.h"

static int refuse(const struct saga_file *file, const char *why, struct saga_err *err)
{
    return saga_err(err, SAGA_FATAL, "%s=%.120s: %s", file->variable, file->path, why);
}

static int read_open(struct saga_file *file, int fd, size_t max, bool secret, char **text,
                     size_t *n, struct saga_err *err)
{
    if (fd < 0 || fstat(fd, &file->seen) < 0)
        return refuse(file, strerror(errno), err);
    if (!S_ISREG(file->seen.st_mode))
        return refuse(file, "expected a file", err);
    if (secret && file->seen.st_mode & S_IROTH)
        return refuse(file, "everybody may read it: chmod o-rwx", err);
    if ((size_t)file->seen.st_size > max)
        return refuse(file, "too large", err);
    *text = saga_alloc(max + 1);
    ssize_t got = read(fd, *text, max);
    *n = got > 0 ? (size_t)got : 0;
    (*text)[*n] = '\0';
    return got > 0 ? 0 : refuse(file, got < 0 ? strerror(errno) : "it is empty", err);
}

int saga_file_read(struct saga_file *file, size_t max, bool secret, char **text, size_t *n,
                   struct saga_err *err)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *text = NULL;
    int rc = read_open(file, fd, max, secret, text, n, err);
    if (fd >= 0)
        close(fd);
    if (rc < 0) {
        free(*text);
        *text = NULL;
    }
    return rc;
}

bool saga_file_changed(const struct saga_file *file)
{
    struct stat now;
    const struct stat *was = &file->seen;
    return stat(file->path, &now) == 0 &&
           (now.st_ino != was->st_ino || now.st_dev != was->st_dev || now.st_size != was->st_size ||
            now.st_mode != was->st_mode || now.st_mtim.tv_sec != was->st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != was->st_mtim.tv_nsec);
}
