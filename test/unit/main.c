/* Runs the unit suites, or those that are named as arguments. Exit status 1 if a case fails. Run it
 * in the root of the repository. CK_FORK=no lets a debugger in. */
#include "suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define ROW(name) {#name, name##_suite},
    SUITES(ROW)};

static void failed(const char *file, int line, const char *what)
{
    _ck_assert_failed(file, line, what, NULL);
}

static int wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return 1;
    return argc < 2;
}

int main(int argc, char **argv)
{
    SRunner *runner = srunner_create(NULL);
    int n = 0;

    setenv("CK_DEFAULT_TIMEOUT", "60", 0); /* s: for what hangs, not for what is slow */
    test_failed = failed;
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
        if (wanted(suites[i].name, argc, argv)) {
            srunner_add_suite(runner, suites[i].make());
            n++;
        }
    if (n == 0 || n < argc - 1) {
        fprintf(stderr, "unit: no such suite. There are:");
        for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
            fprintf(stderr, " %s", suites[i].name);
        fprintf(stderr, "\n");
        return 2;
    }
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
