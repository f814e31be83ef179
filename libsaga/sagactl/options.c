/* Reads a command's options from its table, and prints the table as its help. */
#include "ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct ctl_option common[] = {
    {"json", NULL, "print JSON, one object a line", .flag = &ctl_json}, {0}};

static const struct ctl_option *find_in(const struct ctl_option *o, const char *name, size_t n)
{
    for (; o && o->name; o++)
        if (strlen(o->name) == n && memcmp(o->name, name, n) == 0)
            return o;
    return NULL;
}

static void list_options(const struct ctl_option *o)
{
    for (; o && o->name; o++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        printf("  %-22s %s\n", left, o->help);
    }
}

void ctl_help(const struct ctl_command *c)
{
    printf("sagactl %s: %s\n\nUsage: sagactl %s%s%s [options]\n\n", c->name, c->about, c->name,
           *c->args ? " " : "", c->args);
    list_options(c->options);
    list_options(common);
    printf("  %-22s %s\n\nExamples:\n%s", "--help", "this text", c->examples);
}

static void take_number(const struct ctl_option *o, const char *text)
{
    char *end;
    errno = 0;
    int64_t v = strtoll(text, &end, 10);
    if (!*text || *end || errno || v < o->min || v > o->max)
        ctl_die(CTL_USAGE, "--%s %.60s: expected a whole number from %" PRId64 " to %" PRId64,
                o->name, text, o->min, o->max);
    *o->number = v;
}

static void take(const struct ctl_option *o, const char *value)
{
    if (o->flag)
        *o->flag = true;
    else if (o->text)
        *o->text = value;
    else if (o->number)
        take_number(o, value);
    else if (o->list->n == (int)(sizeof o->list->at / sizeof *o->list->at))
        ctl_die(CTL_USAGE, "--%s: more than %d times", o->name, o->list->n);
    else {
        static int turns;
        o->list->turn[o->list->n] = turns++;
        o->list->at[o->list->n++] = value;
    }
}

/* Takes the option in argv[i]. -> the number of words that it is */
static int option(const struct ctl_command *c, char **argv, int i, int argc)
{
    const char *name = argv[i] + 2;
    size_t n = strcspn(name, "=");
    const struct ctl_option *o = find_in(c->options, name, n);
    if (!o)
        o = find_in(common, name, n);
    if (strcmp(name, "help") == 0) {
        ctl_help(c);
        exit(CTL_OK);
    }
    if (!o)
        ctl_die(CTL_USAGE, "%.60s: no such option: see sagactl %s --help", argv[i], c->name);
    if (!o->value && name[n])
        ctl_die(CTL_USAGE, "--%s takes no value", o->name);
    if (o->value && !name[n] && i + 1 == argc)
        ctl_die(CTL_USAGE, "--%s: %s is missing", o->name, o->value);
    bool apart = o->value && !name[n];
    take(o, !o->value ? NULL : apart ? argv[i + 1] : name + n + 1);
    return apart ? 2 : 1;
}

int ctl_options(const struct ctl_command *c, int argc, char **argv)
{
    int n = 0;
    bool only_args = false;
    for (int i = 0; i < argc;) {
        if (only_args || argv[i][0] != '-' || !argv[i][1]) {
            argv[n++] = argv[i++];
        } else if (strcmp(argv[i], "--") == 0) {
            only_args = true;
            i++;
        } else if (strcmp(argv[i], "-h") == 0) {
            ctl_help(c);
            exit(CTL_OK);
        } else if (argv[i][1] != '-') {
            ctl_die(CTL_USAGE, "%.60s: no such option: see sagactl %s --help", argv[i], c->name);
        } else {
            i += option(c, argv, i, argc);
        }
    }
    if (n < c->min)
        ctl_die(CTL_USAGE, "expected sagactl %s %s", c->name, c->args);
    if (n > c->max)
        ctl_die(CTL_USAGE, "%.60s: one argument too many: expected sagactl %s %s", argv[c->max],
                c->name, c->args);
    return n;
}
