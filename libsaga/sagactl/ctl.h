/* What the commands of sagactl share: how a command and its options are declared, how it ends, how
 * it prints. The tool does one thing and exits, so a failure ends it where it is found: one line on
 * stderr and an exit status that scripts can tell apart. */
#ifndef CTL_H
#define CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    CTL_OK = 0,
    CTL_NO = 1,     /* not found, refused, or not as expected */
    CTL_USAGE = 64, /* sysexits.h: EX_USAGE */
    CTL_AWAY = 69,  /* EX_UNAVAILABLE: a server does not answer */
};

/* ---- Commands ---- */

struct ctl_list { /* an option that may be repeated */
    const char *at[100];
    int turn[100]; /* when it came, among those of all lists */
    int n;
};

struct ctl_option {
    const char *name;  /* "quantity": --quantity N and --quantity=N */
    const char *value; /* "N"; NULL: a flag */
    const char *help;
    bool *flag; /* one of these four says where it goes */
    const char **text;
    struct ctl_list *list;
    int64_t *number, min, max;
};

struct ctl_command {
    const char *name; /* "order place" */
    const char *args; /* "ID [TRACKING]", or "" */
    int min, max;     /* number of arguments */
    const char *about, *examples;
    const struct ctl_option *options; /* up to {0}, or NULL */
    int (*run)(int n, char **args);   /* -> exit status */
};

/* Each file's own, up to {0}. */
extern const struct ctl_command ctl_topics[], ctl_orders[], ctl_requests[], ctl_watch[],
    ctl_stock[], ctl_lanes[], ctl_parked[], ctl_dlq[];

/* Reads options and arguments (argv starts behind the command's name) and answers --help. Ends the
 * program with CTL_USAGE and one line for what is not known. -> number of arguments left in argv */
int ctl_options(const struct ctl_command *command, int argc, char **argv);
void ctl_help(const struct ctl_command *command);

/* ---- Ends and output ---- */

extern bool ctl_json; /* --json */

_Noreturn void ctl_die(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ctl_print_json(const json_t *value); /* one line */
/* For a terminal: control characters, which may be anybody's, become \xNN. Valid until sixteen more were
 * asked for. */
const char *ctl_plain(const char *text);
/* The SGR sequence of a service's colour, or "" where stdout is no terminal; NULL: back to plain.
 */
const char *ctl_colour(const char *service);
const char *ctl_env(const char *name, const char *otherwise);
const char *ctl_clock(int64_t time_ms, char out[13]); /* local time, 13:31:25.123; -> out */
int64_t ctl_now_ms(void);                             /* since 1970 */

#endif
