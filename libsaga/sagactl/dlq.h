/* Dead letters as dlq list shows them. */
#ifndef CTL_DLQ_H
#define CTL_DLQ_H

#include "entry.h"

/* A line for each letter, by time. One that was written again after a crash (the same dlq-id) is shown
 * once, one that was redriven not at all: a copy of it with the header dlq-redriven, which tells where
 * it went, is its mark. Frees the entries; e itself is the caller's. */
void ctl_letters_print(struct ctl_entry *e, size_t n);

#endif
