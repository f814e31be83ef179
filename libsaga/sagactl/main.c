/* sagactl: finds the command among those of the other files and runs it. */
#include "ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef SAGA_VERSION
#define SAGA_VERSION "1.0.0"
#endif

bool ctl_json;

static const struct ctl_command *const tables[] = {ctl_orders, ctl_requests, ctl_watch, ctl_stock,
                                                   ctl_lanes,  ctl_parked,   ctl_dlq,   ctl_topics};
enum { TABLES = sizeof tables / sizeof *tables };

void ctl_die(int status, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fputs("sagactl: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(status);
}

void ctl_print_json(const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (text)
        puts(text);
    free(text);
}

const char *ctl_env(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

const char *ctl_colour(const char *service)
{
    static const char *const colours[][2] = {{"client", "\033[36m"},
                                             {"order-svc", "\033[34m"},
                                             {"inventory-svc", "\033[33m"},
                                             {"payment-svc", "\033[35m"},
                                             {"dead letter", "\033[31m"}};
    static int terminal = -1;
    if (terminal < 0)
        terminal = isatty(STDOUT_FILENO) && !*ctl_env("NO_COLOR", "");
    if (!terminal)
        return "";
    for (size_t i = 0; service && i < sizeof colours / sizeof *colours; i++)
        if (strcmp(colours[i][0], service) == 0)
            return colours[i][1];
    return "\033[0m";
}

const char *ctl_clock(int64_t time_ms, char out[13])
{
    struct tm tm;
    time_t s = (time_t)(time_ms / 1000);
    localtime_r(&s, &tm);
    char text[32];
    snprintf(text, sizeof text, "%02d:%02d:%02d.%03d", tm.tm_hour, tm.tm_min, tm.tm_sec,
             (int)(time_ms % 1000));
    return memcpy(out, text, 13);
}

int64_t ctl_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void print_command(const struct ctl_command *c)
{
    char left[64];
    snprintf(left, sizeof left, "%s %s", c->name, c->args);
    printf("  %-30s %s\n", left, c->about);
}

static void usage(void)
{
    printf("sagactl: places orders, and shows what becomes of them, over Kafka and HTTP\n\n"
           "Usage: sagactl COMMAND [arguments] [options]        (sagactl COMMAND --help says "
           "more)\n\n");
    for (int t = 0; t < TABLES; t++)
        for (const struct ctl_command *c = tables[t]; c->name; c++)
            print_command(c);
    printf("\nWhere the servers are, as environment variables:\n"
           "  KAFKA_BOOTSTRAP_SERVERS  127.0.0.1:9092           Kafka's brokers\n"
           "  KAFKA_CONFIG             -                        file of librdkafka properties\n"
           "  SAGA_TOPIC_PREFIX        -                        before the name of every topic\n"
           "  ORDER_URL                http://127.0.0.1:8081    order-svc\n"
           "  INVENTORY_URL            http://127.0.0.1:8082    inventory-svc\n"
           "  PAYMENT_URL              http://127.0.0.1:8083    payment-svc\n\n"
           "Exit status: 0 done, 1 not found or refused, 64 not understood, 69 a server does not "
           "answer.\n");
}

/* "order place" is argv[1] and argv[2], "watch" argv[1] alone. -> words of the name, 0: another one
 */
static int words(const char *name, int argc, char **argv)
{
    const char *space = strchr(name, ' ');
    size_t n = space ? (size_t)(space - name) : strlen(name);
    if (argc < 2 || strlen(argv[1]) != n || memcmp(argv[1], name, n) != 0)
        return 0;
    if (!space)
        return 1;
    return argc > 2 && strcmp(argv[2], space + 1) == 0 ? 2 : 0;
}

/* Those that begin with the same word: what follows "order" is missing or unknown. */
static int half_known(int argc, char **argv)
{
    bool help = argc > 2 && strcmp(argv[2], "--help") == 0;
    char known[256] = "";
    for (int t = 0; t < TABLES; t++)
        for (const struct ctl_command *c = tables[t]; c->name; c++) {
            size_t n = strlen(argv[1]);
            if (strncmp(c->name, argv[1], n) != 0 || c->name[n] != ' ')
                continue;
            size_t at = strlen(known);
            snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "", c->name + n + 1);
            if (help)
                print_command(c);
        }
    if (help && *known)
        return CTL_OK;
    if (*known)
        ctl_die(CTL_USAGE, "%.40s: expected one of %s", argv[1], known);
    ctl_die(CTL_USAGE, "%.40s: no such command: see sagactl --help", argv[1]);
}

int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        usage();
        return argc < 2 ? CTL_USAGE : CTL_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("sagactl %s\n", SAGA_VERSION);
        return CTL_OK;
    }
    for (int t = 0; t < TABLES; t++)
        for (const struct ctl_command *c = tables[t]; c->name; c++) {
            int n = words(c->name, argc, argv);
            if (n == 0)
                continue;
            setvbuf(stdout, NULL, _IOLBF, 0); /* a pipe too sees each line when it happens */
            int args = ctl_options(c, argc - 1 - n, argv + 1 + n);
            return c->run(args, argv + 1 + n);
        }
    return half_known(argc, argv);
}
