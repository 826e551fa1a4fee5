/*
 * Command lines of test programs: `--name value` and `--flag`, a --help made from the table, and the scale of a run.
 *
 * Test library. Called once, before threads start.
 */
#ifndef TEST_LIB_OPTIONS_H
#define TEST_LIB_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

/* Exactly one of number, text and flag is set; it holds the default before, the given value after. */
struct test_option {
    const char *name; /* without the dashes */
    const char *help;
    uint64_t *number; /* decimal or 0x... */
    const char **text;
    int *flag; /* set to 1 */
};

/*
 * Fills the options in. --help prints `purpose` and the table and exits with 0; anything that is not understood is
 * named on standard error, exit code 2.
 */
void test_options_parse(int argc, char **argv, const char *purpose, const struct test_option *options, size_t count);

/* A seed from the clock if it is 0. Prints it, so that a run can be repeated. */
uint64_t test_seed(uint64_t seed);

/*
 * The number times QUIRE_TEST_SCALE (default 1.0; the short runs under sanitizers set less), at least 1. A program
 * multiplies its amount of work by it and nothing else.
 */
uint64_t test_scaled(uint64_t number);

#endif
