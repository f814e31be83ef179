/* Runs the live suites, or those that are named as arguments, on the servers of the environment
 * (deploy/local/env), in the root of the repository. Exit status 1 if a case fails. Cases run in
 * this process, and what they start ends with it, whatever becomes of it.
 * --alone, --beside: only tells which suites need servers to themselves, and which do not. */
#include "suites.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proc.h"
#include "test.h"

enum { LONGEST = 600 /* s, of a suite: then something hangs */, LOG_LINES = 25 };

static const struct {
    const char *name;
    Suite *(*make)(void);
    const char *list;
} suites[] = {
#define ALONE_ROW(name) {#name, name##_suite, "--alone"},
    ALONE(ALONE_ROW)
#define BESIDE_ROW(name) {#name, name##_suite, "--beside"},
        BESIDE(BESIDE_ROW)};
enum { N = sizeof suites / sizeof *suites };

static void failed(const char *file, int line, const char *what)
{
    printf("%s:%d: %s\n", file, line, what); /* now: check tells it at the end of the suite */
    proc_tails(LOG_LINES);
    fflush(stdout);
    _ck_assert_failed(file, line, what, NULL);
}

static int wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return 1;
    return argc < 2;
}

static int run(int i)
{
    alarm((unsigned)((test_until(LONGEST) - test_now()) / 1000000));
    int64_t began = test_now();
    SRunner *runner = srunner_create(suites[i].make());

    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int bad = srunner_ntests_failed(runner);
    printf("   %s: %.1f s\n", suites[i].name, (double)(test_now() - began) / 1e6);
    fflush(stdout);
    srunner_free(runner);
    proc_free_all();
    return bad;
}

static int tell(const char *list)
{
    int n = 0;

    for (int i = 0; i < N; i++)
        if (strcmp(suites[i].list, list) == 0)
            n += printf("%s\n", suites[i].name);
    return n;
}

int main(int argc, char **argv)
{
    int bad = 0, n = 0;

    if (argc == 2 && tell(argv[1]))
        return EXIT_SUCCESS;
    test_failed = failed;
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < N; i++)
        if (wanted(suites[i].name, argc, argv)) {
            bad += run(i);
            n++;
        }
    if (n == 0 || n < argc - 1) {
        fprintf(stderr, "live: no such suite. There are:");
        for (int i = 0; i < N; i++)
            fprintf(stderr, " %s", suites[i].name);
        fprintf(stderr, "\n");
        return 2;
    }
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
