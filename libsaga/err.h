/* What went wrong, and what to do about it. Every function that can fail returns 0 or more, or one of
 * these, and fills the caller's saga_err; the first error wins. */
#ifndef SAGA_ERR_H
#define SAGA_ERR_H

enum {
    SAGA_RETRY = -1,  /* server or network: roll back, wait, again */
    SAGA_POISON = -2, /* this record: dead letter or parked */
    SAGA_FENCED = -3, /* the lane is another's now */
    SAGA_FATAL = -4,  /* us, or the installation: log, exit */
};

struct saga_err {
    int code; /* 0: none yet */
    char text[256];
};

/* Sets err unless it is set already; err may be NULL. -> code. */
int saga_err(struct saga_err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the text. -> err->code. */
int saga_err_in(struct saga_err *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
