/* The timeline of one order, from the topics: grown while it happens, or read afterwards. */
#ifndef CTL_TIMELINE_H
#define CTL_TIMELINE_H

#include "entry.h"

struct ctl_timeline { /* {0} is empty */
    struct ctl_entry *at;
    int n, cap;
};

/* Reads what the topics hold about the order since from_ms, and the requests that caused it,
 * wherever they are. In order. */
void ctl_timeline_read(struct ctl_timeline *t, const char *order, int64_t from_ms);
void ctl_timeline_free(struct ctl_timeline *t);
const struct ctl_entry *ctl_timeline_find(const struct ctl_timeline *t,
                                          const char *type); /* or NULL */

/* ---- Growing: begin before the request is sent, or its first events may be missed ---- */
void ctl_follow(const char *order);
/* Prints and keeps what comes for the order, until done() says so of an entry or seconds are over.
 * -> the entry, or NULL */
const struct ctl_entry *ctl_follow_until(struct ctl_timeline *t, const char *order, int64_t seconds,
                                         bool (*done)(const struct ctl_entry *e, const void *about),
                                         const void *about);

#endif
