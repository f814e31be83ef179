/* sagactl: finds the command among those of the other files and runs it. */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#ifndef SAGA_VERSION
#define SAGA_VERSION "1.0.0"
#endif

static const struct ctl_command *const tables[] = {ctl_orders, ctl_requests, ctl_watch, ctl_stock,
                                                   ctl_lanes,  ctl_parked,   ctl_dlq,   ctl_topics};
enum { TABLES = sizeof tables / sizeof *tables };

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
    printf(
        "\nWhere the servers are, as environment variables:\n"
        "  KAFKA_BOOTSTRAP_SERVERS  127.0.0.1:9092           Kafka's brokers\n"
        "  KAFKA_CONFIG             -                        file of librdkafka properties\n"
        "  SAGA_TOPIC_PREFIX        -                        before the name of every topic\n"
        "  ORDER_URL                http://127.0.0.1:8081    order-svc\n"
        "  INVENTORY_URL            http://127.0.0.1:8082    inventory-svc\n"
        "  PAYMENT_URL              http://127.0.0.1:8083    payment-svc\n"
        "  SAGA_TOKEN               -                        the services' bearer token\n"
        "  SAGA_CA_FILE             -                        certificates to believe, for https\n\n"
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
            int status = c->run(args, argv + 1 + n);
            if (fflush(stdout) != 0 || ferror(stdout))
                ctl_die(CTL_NO, "what was to be printed: %s", strerror(errno));
            return status;
        }
    return half_known(argc, argv);
}
