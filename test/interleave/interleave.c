/*
 * Goal: whatever a thread was doing when it stopped, the others get on, read what is right, and the tree is sound in
 * the end. Method: threads are stopped at named points of the engine: scripted cases, every window with every work of
 * others, and every window with every other.
 *
 * Test program (interleave). Nothing is left to chance: a run depends on its options alone.
 */
#include "interleave.h"

#include "lib/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SLOWER 10
#else
#define SLOWER 1
#endif

static void run_cases(const struct interleave_case *cases, const char *only)
{
    for (; cases->name != NULL && !failed(); cases++) {
        if (only != NULL && strstr(cases->name, only) == NULL)
            continue;
        progress_case(cases->name);
        cases->run();
        printf("case: %s\n", cases->name);
        if (failed())
            fprintf(stderr, "case: %s\n", cases->name);
    }
}

/* The amount of work is scaled by leaving combinations out. */
static uint64_t scaled_every(uint64_t every)
{
    uint64_t kept = test_scaled(1000);
    return kept >= 1000 ? every : every * 1000 / kept;
}

int main(int argc, char **argv)
{
    const char *mode = "all", *only = NULL;
    uint64_t every = 1, seed = 1, limit_ms = 20000 * SLOWER;
    const struct test_option table[] = {
        {.name = "mode", .help = "cases, windows, pairs, or all", .text = &mode},
        {.name = "only", .help = "cases and points whose name contains this", .text = &only},
        {.name = "every", .help = "of windows and pairs, one combination in so many", .number = &every},
        {.name = "seed", .help = "which ones; 0 = from the clock", .number = &seed},
        {.name = "limit-ms", .help = "a step that takes longer has failed", .number = &limit_ms},
    };
    test_options_parse(argc, argv,
                       "stops threads at named points while others work\n"
                       "Long form: interleave --every 1",
                       table, sizeof(table) / sizeof(table[0]));
    every = scaled_every(every == 0 ? 1 : every);
    seed = test_seed(seed);
    progress_begin(limit_ms);

    bool all = strcmp(mode, "all") == 0;
    if (all || strcmp(mode, "cases") == 0) {
        run_cases(structure_cases, only);
        run_cases(write_cases, only);
        run_cases(memory_cases, only);
    }
    if (all || strcmp(mode, "windows") == 0)
        run_windows(only, every, seed);
    if (all || strcmp(mode, "pairs") == 0)
        run_pairs(only, every, seed);
    progress_end();
    if (failed())
        fprintf(stderr, "to repeat: %s --mode %s --every %" PRIu64 " --seed %" PRIu64 "\n", argv[0], mode, every, seed);
    return check_finish();
}
