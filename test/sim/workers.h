/* Work on all cores: jobs in forked processes, their results in memory that is shared. */
#ifndef WORKERS_H
#define WORKERS_H

#include <stddef.h>

/* Runs job(i, result i) for each i below n, one process for each core, in any order. -> n results of
 * size bytes, zeroed before, never freed. A process that dies ends the test. */
void *workers_run(int n, size_t size, void (*job)(int i, void *result));

#endif
