/*
 * The command-line table of options.h.
 *
 * Test library. One thread.
 */
#include "options.h"

#include "random.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void print_help(const char *program, const char *purpose, const struct test_option *options, size_t count)
{
    printf("%s: %s\n\nOptions:\n", program, purpose);
    for (size_t i = 0; i < count; i++) {
        const struct test_option *option = &options[i];
        char left[64];
        snprintf(left, sizeof(left), "--%s%s", option->name,
                 option->number != NULL ? " N" : (option->text != NULL ? " TEXT" : ""));
        printf("  %-22s %s", left, option->help);
        if (option->number != NULL)
            printf(" (default %" PRIu64 ")", *option->number);
        else if (option->text != NULL)
            printf(" (default %s)", *option->text);
        printf("\n");
    }
    printf("\nEnvironment: QUIRE_TEST_SCALE multiplies the amount of work (default 1.0).\n");
}

static void refuse(const char *program, const char *what, const char *argument)
{
    fprintf(stderr, "%s: %s: %s (see --help)\n", program, argument, what);
    exit(2);
}

static const struct test_option *find_option(const char *argument, const struct test_option *options, size_t count)
{
    if (strncmp(argument, "--", 2) != 0)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(argument + 2, options[i].name) == 0)
            return &options[i];
    }
    return NULL;
}

void test_options_parse(int argc, char **argv, const char *purpose, const struct test_option *options, size_t count)
{
    for (int i = 1; i < argc; i++) {
        const struct test_option *option = find_option(argv[i], options, count);
        if (strcmp(argv[i], "--help") == 0) {
            print_help(argv[0], purpose, options, count);
            exit(0);
        }
        if (option == NULL)
            refuse(argv[0], "no such option", argv[i]);
        if (option->flag != NULL) {
            *option->flag = 1;
            continue;
        }
        if (i + 1 == argc)
            refuse(argv[0], "needs a value", argv[i]);
        i++;
        if (option->text != NULL) {
            *option->text = argv[i];
            continue;
        }
        char *end;
        *option->number = strtoull(argv[i], &end, 0);
        if (*argv[i] == '\0' || *end != '\0')
            refuse(argv[0], "is not a number", argv[i]);
    }
}

uint64_t test_seed(uint64_t seed)
{
    if (seed == 0) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        seed = random_mix((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) >> 16;
    }
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    return seed;
}

uint64_t test_scaled(uint64_t number)
{
    const char *text = getenv("QUIRE_TEST_SCALE");
    if (text == NULL)
        return number;
    char *end;
    double scale = strtod(text, &end);
    if (end == text || *end != '\0' || !(scale > 0)) {
        fprintf(stderr, "QUIRE_TEST_SCALE=%s: is not a number above 0\n", text);
        exit(2);
    }
    double scaled = (double)number * scale;
    return scaled < 1 ? 1 : (uint64_t)scaled;
}
