/*
 * Goal: operations of many threads at once are linearizable key by key, scans miss and repeat nothing, snapshots stand
 * still, and the trees are sound afterwards.
 * Method: rounds of random work on tiny pages, with pages dropped, consolidated and maintained from another thread;
 * each mode has an invariant, or records its history for the checker.
 *
 * Test program (stress). The seed fixes what each thread asks for; the interleaving is the machine's.
 */
#include "stress.h"

#include "lib/history.h"
#include "lib/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct mode {
    const char *name;
    stress_mode *round;
};

static const struct mode modes[] = {
    {"history", stress_history},   {"versions", stress_versions}, {"scan", stress_scan},
    {"counters", stress_counters}, {"churn", stress_churn},
};

#define MODE_COUNT (sizeof(modes) / sizeof(modes[0]))

/* ---- Rounds ----------------------------------------------------------------------------------------------------- */

bool stress_open(struct stress *stress, uint32_t versions)
{
    static const uint32_t page_sizes[] = {512, 512, 1024, 4096};
    struct random_stream *random = &stress->random;
    struct quire_options options;
    struct quire_tree_options tree_options;

    quire_options_init(&options);
    options.background_threads = random_chance(random, 50) ? QUIRE_NO_THREADS : (uint32_t)random_between(random, 1, 2);
    quire_tree_options_init(&tree_options);
    tree_options.versions = versions;
    tree_options.leaf_page_size_bytes = page_sizes[random_below(random, 4)];
    tree_options.inner_page_size_bytes = page_sizes[random_below(random, 4)];
    tree_options.page_chain_length = (uint32_t)random_between(random, 1, 8);
    printf("  background threads %d, leaves %u, inner %u, chain %u\n", (int)options.background_threads,
           tree_options.leaf_page_size_bytes, tree_options.inner_page_size_bytes, tree_options.page_chain_length);
    fflush(stdout);

    if (!CHECK_EQUAL(quire_open(NULL, &options, &stress->db), 0))
        return false;
    if (stress->options->drop != 0)
        CHECK_EQUAL(qr_testing_attach_store(stress->db), 0);
    return CHECK_EQUAL(quire_tree_open(stress->db, "stress", &tree_options, &stress->tree), 0);
}

void stress_close(struct stress *stress)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    char message[512] = "";
    int result = QUIRE_MORE;

    for (unsigned i = 0; i < 1000000 && result == QUIRE_MORE; i++)
        result = quire_maintain(stress->db);
    CHECK_EQUAL(result, 0);
    result = qr_testing_check(stress->tree, message, sizeof(message));
    CHECK(result == 0, "structure check says %d: %s", result, message);
    CHECK_EQUAL(quire_stats(stress->db, &stats), 0);
    CHECK_EQUAL(stats.guards_open, 0);
    CHECK_EQUAL(stats.snapshots_open, 0);
    CHECK_EQUAL(stats.iterators_open, 0);
    CHECK_EQUAL(quire_close(stress->db), 0);
}

/* ---- Teams ------------------------------------------------------------------------------------------------------ */

/* Drops pages, forces consolidation and maintains, at random times, until told to stop. */
static void *disturb(void *argument)
{
    struct stress *stress = (struct stress *)argument;
    struct random_stream *random = &stress->disturber_random;

    /* relaxed: only ends the loop; joining orders everything else */
    while (atomic_load_explicit(&stress->stop, memory_order_relaxed) == 0) {
        unsigned percent = (unsigned)random_between(random, 1, 30);
        uint64_t lot = random_below(random, 10);
        if (lot < 3 && stress->options->drop != 0) {
            qr_testing_drop_pages(stress->db, random_next(random), percent);
        } else if (lot < 5) {
            CHECK(qr_testing_consolidate(stress->tree, random_next(random), percent) >= 0, "forced consolidation");
        } else {
            int result = quire_maintain(stress->db);
            CHECK(result == 0 || result == QUIRE_MORE, "maintain: %d", result);
        }
        struct timespec pause = {.tv_nsec = (long)random_below(random, 2000000)};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void *work(void *argument)
{
    struct stress_worker *worker = (struct stress_worker *)argument;
    pthread_barrier_wait(worker->start);
    worker->body(worker);
    return NULL;
}

void stress_team(struct stress *stress, unsigned count, void (*body)(struct stress_worker *worker), void *shared)
{
    struct stress_worker workers[STRESS_THREADS_MAX];
    pthread_barrier_t start;

    if (!CHECK(count >= 1 && count <= STRESS_THREADS_MAX, "a team of %u", count))
        return;
    /* relaxed: creating the disturber publishes it */
    atomic_store_explicit(&stress->stop, 0, memory_order_relaxed);
    stress->disturber_random = random_split(&stress->random);
    pthread_barrier_init(&start, NULL, count);
    if (pthread_create(&stress->disturber, NULL, disturb, stress) != 0)
        abort();
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct stress_worker){.stress = stress,
                                            .number = i,
                                            .random = random_split(&stress->random),
                                            .shared = shared,
                                            .body = body,
                                            .start = &start};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
    /* relaxed: the disturber sees it some time soon, and is joined */
    atomic_store_explicit(&stress->stop, 1, memory_order_relaxed);
    pthread_join(stress->disturber, NULL);
    pthread_barrier_destroy(&start);
}

/* ---- The program ------------------------------------------------------------------------------------------------ */

/* Rounds of one mode for its share of the time; at least one. False: a check failed. */
static bool run_mode(const char *program, const struct mode *mode, const struct stress_options *options,
                     uint64_t seconds)
{
    uint64_t end_ns = history_now_ns() + seconds * 1000000000u;
    uint64_t seed = options->seed;
    do {
        struct stress stress = {.options = options};
        random_seed(&stress.random, seed);
        printf("%s, seed %" PRIu64 "\n", mode->name, seed);
        mode->round(&stress);
        if (check_failures() != 0) {
            fprintf(stderr,
                    "to repeat (QUIRE_TEST_SCALE unset): %s --mode %s --threads %" PRIu64 " --ops %" PRIu64
                    " --seed %" PRIu64 " --drop %" PRIu64 "\n",
                    program, mode->name, options->threads, options->ops, seed, options->drop);
            return false;
        }
        seed = random_mix(seed) >> 16;
    } while (history_now_ns() < end_ns);
    return true;
}

int main(int argc, char **argv)
{
    struct stress_options options = {.threads = 4, .seconds = 20, .ops = 20000, .drop = 1, .mode = "all"};
    const struct test_option table[] = {
        {.name = "mode", .help = "history, versions, scan, counters, churn, or all", .text = &options.mode},
        {.name = "threads", .help = "threads of a team, 2 to 32", .number = &options.threads},
        {.name = "seconds", .help = "new rounds are begun for so long, over all modes", .number = &options.seconds},
        {.name = "ops", .help = "operations of a thread in a round", .number = &options.ops},
        {.name = "seed", .help = "0 = from the clock", .number = &options.seed},
        {.name = "drop", .help = "1: pages are dropped and fetched meanwhile; 0: not", .number = &options.drop},
    };
    test_options_parse(argc, argv,
                       "many threads on one tree, with invariants and a linearizability checker\n"
                       "Long form: stress --seconds 3600 --threads 8 --seed 0",
                       table, sizeof(table) / sizeof(table[0]));
    options.ops = test_scaled(options.ops);
    options.seconds = test_scaled(options.seconds);
    options.seed = test_seed(options.seed);
    if (options.threads < 2 || options.threads > 32) {
        fprintf(stderr, "--threads is 2 to 32\n");
        return 2;
    }

    bool all = strcmp(options.mode, "all") == 0;
    bool known = false, passed = true;
    for (size_t i = 0; i < MODE_COUNT && passed; i++) {
        if (!all && strcmp(options.mode, modes[i].name) != 0)
            continue;
        known = true;
        passed = run_mode(argv[0], &modes[i], &options, all ? options.seconds / MODE_COUNT : options.seconds);
    }
    if (!known) {
        fprintf(stderr, "--mode %s: there is no such mode (see --help)\n", options.mode);
        return 2;
    }
    return check_finish();
}
