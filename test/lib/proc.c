/* Processes that tests start. See proc.h. */
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

struct proc {
    pid_t pid;
    bool ended;
    int status; /* of waitpid */
    char *program, *log;
    struct proc *next;
};

static struct proc *all;

/* Whether one of these settings, "NAME=value" or "NAME" (it is not to be there), is of this variable. */
static bool is_set(const char *variable, const char *const *env)
{
    const size_t n = strcspn(variable, "=");

    for (; env && *env; env++)
        if (strcspn(*env, "=") == n && strncmp(*env, variable, n) == 0)
            return true;
    return false;
}

/* Ours with these settings, of which a later one counts. Only the list is to be freed. */
static char **environment(const char *const *env)
{
    char **list;
    size_t ours = 0, settings = 0, n = 0;

    while (environ[ours])
        ours++;
    while (env && env[settings])
        settings++;
    list = calloc(ours + settings + 1, sizeof *list);
    MUST(list, "out of memory");
    for (size_t i = 0; i < ours; i++)
        if (!is_set(environ[i], env))
            list[n++] = environ[i];
    for (size_t i = 0; i < settings; i++)
        if (strchr(env[i], '=') && !is_set(env[i], env + i + 1))
            list[n++] = (char *)env[i];
    return list;
}

/* In a child of a process of several threads: only what a signal handler may call (POSIX, fork), no malloc. With
 * AddressSanitizer's it waits for ever, now and then, for a lock that another thread had. */
static void become(const char *program, char *const *env, const char *log, pid_t parent)
{
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char *const words[] = {(char *)program, NULL};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0); /* a stopped one would have the kernel hang up our group if its leader ends */
    if (getppid() != parent || out < 0 || in < 0)
        _exit(127);
    dup2(in, 0);
    dup2(out, 1);
    dup2(out, 2);
    execvpe(program, words, env);
    dprintf(2, "%s: %s\n", program, strerror(errno));
    _exit(127);
}

const char *proc_build(void)
{
    static char folder[4096];
    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);

    MUST(n > 0, "/proc/self/exe");
    folder[n] = '\0';
    for (int up = 0; up < 2; up++)
        *strrchr(folder, '/') = '\0';
    return folder;
}

void proc_find_programs(void)
{
    const char *path = getenv("PATH");

    setenv("PATH", text("%s/bin:%s", proc_build(), path ? path : "/usr/bin:/bin"), 1);
}

struct proc *proc_start(const char *program, const char *const *env, const char *log)
{
    struct proc *p = calloc(1, sizeof *p);
    char **variables = environment(env);
    pid_t parent = getpid();

    MUST(p && (p->program = strdup(program)) && (p->log = strdup(log)), "out of memory");
    fflush(NULL);
    p->pid = fork();
    if (p->pid == 0)
        become(program, variables, log, parent);
    free(variables);
    MUST(p->pid > 0, "fork: %s", strerror(errno));
    p->next = all;
    all = p;
    return p;
}

pid_t proc_pid(const struct proc *p)
{
    return p->pid;
}

const char *proc_log(const struct proc *p)
{
    return p->log;
}

bool proc_alive(struct proc *p)
{
    if (!p->ended && waitpid(p->pid, &p->status, WNOHANG) == p->pid)
        p->ended = true;
    return !p->ended;
}

void proc_signal(struct proc *p, int number)
{
    if (proc_alive(p))
        kill(p->pid, number);
}

int proc_wait(struct proc *p, double seconds)
{
    AWAIT(seconds, !proc_alive(p));
    return WIFSIGNALED(p->status) ? 128 + WTERMSIG(p->status) : WEXITSTATUS(p->status);
}

long proc_rss(const struct proc *p)
{
    FILE *f = fopen(text("/proc/%d/status", (int)p->pid), "r");
    char line[256];
    long kib = 0;

    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib;
}

void proc_free(struct proc *p)
{
    struct proc **at = &all;

    if (!p)
        return;
    if (proc_alive(p)) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, &p->status, 0);
    }
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    free(p->program);
    free(p->log);
    free(p);
}

void proc_free_all(void)
{
    while (all)
        proc_free(all);
}

/* ---- Logs ---- */

int proc_count(const struct proc *p, const char *words)
{
    FILE *f = fopen(p->log, "r");
    char *line = NULL;
    size_t size = 0;
    int n = 0;

    while (f && getline(&line, &size, f) >= 0)
        n += strstr(line, words) != NULL;
    free(line);
    if (f)
        fclose(f);
    return n;
}

bool proc_said(const struct proc *p, const char *words)
{
    return proc_count(p, words) > 0;
}

void proc_tails(int lines)
{
    for (struct proc *p = all; p; p = p->next) {
        char command[600];
        fprintf(stderr, "---- %s (pid %d)%s: %s\n", p->program, (int)p->pid,
                proc_alive(p) ? "" : ", ended", p->log);
        snprintf(command, sizeof command, "tail -n %d '%s' | cut -c 1-400 >&2", lines, p->log);
        if (system(command) != 0)
            fprintf(stderr, "(no log)\n");
    }
}

/* ---- Shell ---- */

const char *shell(const char *format, ...)
{
    char *line, *out = NULL;
    size_t n = 0;
    va_list args;
    FILE *f, *memory = open_memstream(&out, &n);

    va_start(args, format);
    MUST(vasprintf(&line, format, args) >= 0 && memory, "out of memory");
    va_end(args);
    setenv("SHELL_LINE", line, 1);
    f = popen("exec timeout -k 5 60 bash -o pipefail -c \"$SHELL_LINE\" 2>&1", "r");
    MUST(f != NULL, "popen: %s", strerror(errno));
    for (int c; (c = fgetc(f)) != EOF;)
        fputc(c, memory);
    int status = pclose(f);
    fclose(memory);
    const char *printed = text("%s", out);
    free(out);
    if (status != 0)
        test_fail(__FILE__, __LINE__, "status %d of: %s\n%s", WEXITSTATUS(status), text("%s", line),
                  printed);
    free(line);
    return printed;
}
