/* Processes that tests start: they end with the test program, whatever becomes of it. */
#ifndef PROC_H
#define PROC_H

#include <stdbool.h>
#include <sys/types.h>

struct proc;

/* The folder of the build that this program is of: build, or that of a sanitizer. Its programs are in
 * bin; with failpoints, in failpoint/bin. */
const char *proc_build(void);
void proc_find_programs(void); /* from now on, by their names alone: before threads */

/* Starts program with the environment of ours and env ("NAME=value" up to NULL; "NAME" alone is
 * taken out) on top, both outputs appended to the file log. Fails the test if it cannot. */
struct proc *proc_start(const char *program, const char *const *env, const char *log);
pid_t proc_pid(const struct proc *p);
const char *proc_log(const struct proc *p); /* the file's name */
bool proc_alive(struct proc *p);
void proc_signal(struct proc *p, int number);
/* Waits for its end. -> exit status; 128 + number of the signal that ended it */
int proc_wait(struct proc *p, double seconds);
long proc_rss(const struct proc *p); /* resident memory, KiB */
void proc_free(struct proc *p);      /* ends it with -9 if it lives */

bool proc_said(const struct proc *p, const char *words); /* stands in its log */
int proc_count(const struct proc *p, const char *words); /* in how many lines */
void proc_tails(int lines); /* prints the end of the log of every process that is not freed */
void proc_free_all(void);

/* Runs a line of bash (pipefail) in the root of the repository; fails the test with its output if
 * its status is not 0. -> what it printed; lives as a text() does */
const char *shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
