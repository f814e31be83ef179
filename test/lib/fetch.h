/* GETs over one connection that is kept, from any thread (web.h is for one). */
#ifndef FETCH_H
#define FETCH_H

#include <stdint.h>

struct fetch;

struct fetch *fetch_new(int port);
void fetch_free(struct fetch *f);
/* -> the status, 0: no answer in 10 s. version: of the ETag, 0 without one; may be NULL */
int fetch_get(struct fetch *f, const char *path, int64_t *version);
const char *fetch_body(const struct fetch *f); /* of the last one */

/* The value of a line of /metrics, whose labels belong to its name; fails the test if there is none. */
int64_t fetch_metric(int port, const char *name);

#endif
