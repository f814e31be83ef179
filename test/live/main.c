/* Runs the live suites, or those that are named as arguments ("gaps", or a case: "owners/..."), on
 * the servers of the environment (deploy/local/env), in the root of the repository. Exit status 1 if
 * a case fails. Cases run in this process, and what they start ends with it, whatever becomes of it.
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

/* ---- What is wanted: the arguments ---- */

static char **names; /* up to NULL; none: all */
static bool *found;
static const char *making; /* the suite */
static int cases;

static bool is_named(const char *name, const char *suite, const char *test)
{
    size_t n = strcspn(name, "/");

    return strlen(suite) == n && !strncmp(name, suite, n) &&
           (!test || !name[n] || !strcmp(name + n + 1, test));
}

static bool is_wanted(const char *suite, const char *test)
{
    bool wanted = !names[0];

    for (int i = 0; names[i]; i++)
        if (is_named(names[i], suite, test)) {
            wanted = true;
            found[i] |= test != NULL;
        }
    return wanted;
}

bool live_wants(const TTest *test)
{
    bool wanted = is_wanted(making, test->name);

    cases += wanted;
    return wanted;
}

bool live_has_case(void)
{
    bool has = cases > 0;

    cases = 0;
    return has;
}

static bool all_found(void)
{
    for (int i = 0; names[i]; i++)
        if (!found[i]) {
            fprintf(stderr, "live: there is no %s. Suites are:", names[i]);
            for (int s = 0; s < N; s++)
                fprintf(stderr, " %s", suites[s].name);
            fprintf(stderr, "\n");
            return false;
        }
    return true;
}

/* ---- The run ---- */

static int run(int i)
{
    alarm((unsigned)((test_until(LONGEST) - test_now()) / 1000000));
    int64_t began = test_now();
    making = suites[i].name;
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
    int bad = 0;

    if (argc == 2 && tell(argv[1]))
        return EXIT_SUCCESS;
    test_failed = failed;
    signal(SIGPIPE, SIG_IGN);
    proc_find_programs();
    names = argv + 1;
    found = calloc((size_t)argc, sizeof *found);
    for (int i = 0; i < N; i++)
        if (is_wanted(suites[i].name, NULL))
            bad += run(i);
    if (!all_found())
        return 2;
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
