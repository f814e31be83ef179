/* Runs the suites of the simulation, or those that are named as arguments. SEEDS=n: so many random
 * schedules, SEED=n: this one, with its transcript; EXPLORE=full: the large worlds, too,
 * EXPLORE=name: this one; each of them runs its own suite alone. Exit status 1 if a case fails. */
#include "suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define ROW(name) {#name, name##_suite},
    SUITES(ROW)};

static bool is_wanted(const char *name, int argc, char **argv)
{
    const char *only = getenv("SEED") || getenv("SEEDS") ? "random"
                       : getenv("EXPLORE")               ? "explore"
                                                         : NULL;

    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2 && (!only || !strcmp(only, name));
}

int main(int argc, char **argv)
{
    SRunner *runner = srunner_create(NULL);
    int n = 0;

    setenv("CK_DEFAULT_TIMEOUT", "60", 0); /* s: for what hangs, not for what is slow */
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
        if (is_wanted(suites[i].name, argc, argv)) {
            srunner_add_suite(runner, suites[i].make());
            n++;
        }
    if (n == 0 || n < argc - 1) {
        fprintf(stderr, "sim: no such suite. There are:");
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
