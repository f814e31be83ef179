/* Runs the simulation: transcripts, attacks, random schedules. SEEDS=n: so many random ones;
 * SEED=s: this one alone, with its transcript. Exit status 1 if a case fails. */
#include <stdlib.h>

#include "suites.h"

int main(void)
{
    SRunner *runner = srunner_create(transcript_suite());

    srunner_add_suite(runner, later_suite());
    srunner_add_suite(runner, request_suite());
    srunner_add_suite(runner, attack_suite());
    srunner_add_suite(runner, limits_suite());
    srunner_add_suite(runner, random_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
