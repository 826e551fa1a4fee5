/*
 * What the tests of the benchmark have in common: counting checks, and the seed that a failed one is printed with.
 *
 * Layer: bench. One thread; each test program has its own counts.
 */
#ifndef BENCH_CHECK_H
#define BENCH_CHECK_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned check_passed, check_failed;
static uint64_t check_seed = 1;

static inline void check(bool good, const char *what, uint64_t detail)
{
    if (good) {
        check_passed++;
        return;
    }
    check_failed++;
    printf("FAILED: %s (%" PRIu64 "), seed %" PRIu64 "\n", what, detail, check_seed);
}

/* Takes the seed from the command line, if there is one, and prints it. */
static inline void check_begin(int argc, char **argv)
{
    if (argc > 1)
        check_seed = strtoull(argv[1], NULL, 10);
    printf("seed %" PRIu64 "\n", check_seed);
}

/* Prints the counts; the program's exit status. */
static inline int check_end(void)
{
    printf("%u passed, %u failed\n", check_passed, check_failed);
    return check_failed == 0 ? 0 : 1;
}

#endif
