/*
 * Goal: a fuzz target holds for its corpus and for what is near to it, whatever the compiler.
 * Method: each file of --corpus, a file or a directory, is an input; then --rounds inputs, each one of them mutated as its number
 * and the seed say. An input that fails is written to --save, to be replayed with --corpus. --make writes the seeds.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "lib/options.h"
#include "lib/random.h"

#define MOST_BYTES (256u << 10)
#define MOST_SECONDS 60u
#define MOST_MEMORY_KIB (1024 * 1024)

struct input {
    uint8_t *data;
    size_t size;
};
static struct input *corpus;
static size_t corpus_count;

static const char *save;
static const uint8_t *current;
static size_t current_size;
static uint64_t seed = 1, current_round; /* 0: of the corpus */

/* ---- Failing ---------------------------------------------------------------------------------------------------- */

static void save_input(void)
{
    if (current == NULL)
        return;
    FILE *file = fopen(save, "wb");
    fprintf(stderr, "seed %llu, round %llu: the input is in %s; again: --corpus %s --rounds 0\n", (unsigned long long)seed,
            (unsigned long long)current_round, save, save);
    if (file == NULL)
        return;
    fwrite(current, 1, current_size, file);
    fclose(file);
}

/* What it calls is not safe in a handler; the process ends in any case, and mostly it gets so far. */
static void on_signal(int number)
{
    signal(number, SIG_DFL);
    if (number == SIGALRM)
        fprintf(stderr, "an input takes more than %u seconds\n", MOST_SECONDS);
    save_input();
    raise(number);
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void watch(void)
{
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(save_input);
    } else {
        signal(SIGSEGV, on_signal);
        signal(SIGBUS, on_signal);
        signal(SIGILL, on_signal);
    }
    signal(SIGABRT, on_signal);
    signal(SIGALRM, on_signal);
}

/* ---- Running ---------------------------------------------------------------------------------------------------- */

/* In a block of just its size, so that a sanitizer sees what is read beyond it. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    memcpy(copy, data, size);
    current = copy;
    current_size = size;
    alarm(MOST_SECONDS);
    LLVMFuzzerTestOneInput(copy, size);
    alarm(0);
    current = NULL;
    free(copy);
}

static void mutate_and_run(uint64_t round)
{
    static uint8_t buffer[MOST_BYTES];
    struct random_stream random;
    random_seed(&random, seed * 1000003u + round);
    const struct input *from = &corpus[random_below(&random, corpus_count)];
    memcpy(buffer, from->data, from->size);
    current_round = round;
    run(buffer, LLVMFuzzerCustomMutator(buffer, from->size, sizeof(buffer), (unsigned)random_next(&random) & ~3u));
}

/* ---- Corpus ----------------------------------------------------------------------------------------------------- */

static void add(const void *data, size_t size)
{
    if (size > MOST_BYTES)
        return;
    corpus = realloc(corpus, (corpus_count + 1) * sizeof(*corpus));
    corpus[corpus_count].data = malloc(size == 0 ? 1 : size);
    memcpy(corpus[corpus_count].data, data, size);
    corpus[corpus_count++].size = size;
}

static void add_seed(void *context, const char *name, const void *data, size_t size)
{
    (void)context;
    (void)name;
    add(data, size);
}

static void write_seed(void *context, const char *name, const void *data, size_t size)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", (const char *)context, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

static void add_file(const char *path)
{
    static uint8_t buffer[MOST_BYTES + 1];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    add(buffer, fread(buffer, 1, sizeof(buffer), file));
    fclose(file);
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void add_path(const char *path)
{
    struct stat facts;
    struct dirent **names = NULL;
    char name[4096];
    if (stat(path, &facts) != 0 || !S_ISDIR(facts.st_mode)) {
        add_file(path);
        return;
    }
    int count = scandir(path, &names, is_visible, alphasort);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%s/%s", path, names[i]->d_name);
        add_file(name);
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    uint64_t rounds = 0, first = 1;
    const char *path = NULL, *make = NULL;
    save = "fuzz.failed";
    const struct test_option options[] = {
        {.name = "corpus", .help = "file or directory of inputs; else the seeds are taken", .text = &path},
        {.name = "rounds", .help = "mutated inputs", .number = &rounds},
        {.name = "first", .help = "number of the first of them", .number = &first},
        {.name = "seed", .help = "of the mutations; 0: from the clock", .number = &seed},
        {.name = "save", .help = "file for an input that fails", .text = &save},
        {.name = "make", .help = "directory to write the seeds to; nothing is run", .text = &make},
    };
    test_options_parse(argc, argv, "Replays and mutates inputs of a fuzz target.", options, QR_ARRAY_COUNT(options));
    if (make != NULL) {
        fuzz_seeds(write_seed, (void *)(uintptr_t)make);
        return 0;
    }
    seed = test_seed(seed);
    rounds = rounds == 0 ? 0 : test_scaled(rounds);
    if (path != NULL)
        add_path(path);
    if (corpus_count == 0)
        fuzz_seeds(add_seed, NULL);
    watch();
    for (size_t i = 0; i < corpus_count; i++)
        run(corpus[i].data, corpus[i].size);
    for (uint64_t round = first; round < first + rounds; round++)
        mutate_and_run(round);

    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    bool small = usage.ru_maxrss <= MOST_MEMORY_KIB;
    if (!small)
        fprintf(stderr, "an input took %ld MiB of memory\n", usage.ru_maxrss / 1024);
    printf("%zu inputs of the corpus, %llu mutated\n%d passed, %d failed\n", corpus_count, (unsigned long long)rounds, small,
           !small);
    for (size_t i = 0; i < corpus_count; i++)
        free(corpus[i].data);
    free(corpus);
    return !small;
}
