/*
 * Goal: whatever several clients do at once, in whatever order the steps of their operations come, whenever the power goes or
 * the process dies, while working or recovering, with disks that fail: every answer and every content can be explained by one
 * order of the operations, and nothing that was acknowledged is lost.
 * Method: one seed decides everything: threads of which one runs at a time (schedule.h), a disk in memory (lib/simdisk.h), a
 * clock that does not run by itself. README.md tells more.
 *
 *     sim --seeds 2000 --from 1
 *     sim --seeds 1 --from 1234 --trace
 */
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "lib/options.h"
#include "sim/sim.h"

struct sim_counts sim_counts;
bool sim_trace;
uint64_t sim_failures;
static uint64_t seed_now, depth_now = 2;

void sim_fail(const struct life *life, const char *format, ...)
{
    va_list arguments;
    if (sim_failures++ > 10) return;
    printf("FAILED: ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    if (life != NULL) printf("\n    in the life of: %s", life->image.name);
    printf("\n    sim --seeds 1 --from %llu --depth %llu\n", (unsigned long long)seed_now, (unsigned long long)depth_now);
    fflush(stdout);
}

/* A signal that ends the program: which seed it was. */
static void on_signal(int number)
{
    char text[128];
    int size = snprintf(text, sizeof(text), "\nFAILED: signal %d\n    sim --seeds 1 --from %llu --depth %llu\n", number,
                        (unsigned long long)seed_now, (unsigned long long)depth_now);
    (void)!write(STDOUT_FILENO, text, (size_t)size);
    signal(number, SIG_DFL);
    raise(number);
}

/* ---- A seed ----------------------------------------------------------------------------------------------------- */

static struct plan plan_of(struct random_stream *random, unsigned depth)
{
    static const unsigned switches[] = {2, 10, 30, 60};
    static const uint64_t thresholds[] = {NO_BLOBS, 0, 64, 500};
    static const enum simdisk_failed_sync ways[] = {SIMDISK_FAILED_CLEAN, SIMDISK_FAILED_CLEAN, SIMDISK_FAILED_REVERTS,
                                                    SIMDISK_FAILED_REVERTS, SIMDISK_FAILED_LATE};
    struct plan plan = {
        .clients = (uint32_t)random_between(random, 2, 6),
        .ops = (uint32_t)random_between(random, 40, 160),
        .kind = random_chance(random, 50) ? SCHED_PCT : SCHED_WALK,
        .switch_percent = switches[random_below(random, 4)],
        .leaf_bytes = random_chance(random, 75) ? 512 : 1024,
        .keys = random_chance(random, 30) ? 4 : 16,
        .mixed = random_chance(random, 25),
        .buffered = random_chance(random, 50),
        .off_percent = random_chance(random, 80) ? 0 : random_chance(random, 50) ? 100 : 50,
        .durable_percent = random_chance(random, 50) ? 10 : 50,
        .large_percent = random_chance(random, 50) ? 5 : 25,
        .fault_percent = random_chance(random, 25) ? 60 : 0,
        .opening_fault_percent = random_chance(random, 25) ? 60 : 0,
        .checkpoint_percent = random_chance(random, 30) ? 8 : 0,
        .conditional_percent = random_chance(random, 30) ? 60 : 20,
        .read_percent = random_chance(random, 30) ? 60 : 30,
        .hot_percent = random_chance(random, 30) ? 60 : 0,
        .raise_percent = random_chance(random, 50) ? 0 : random_chance(random, 50) ? 2 : 5,
        .make_percent = random_chance(random, 50) ? 0 : random_chance(random, 50) ? 3 : 8,
        .memory_percent = random_chance(random, 75) ? 0 : 10,
        .burst_percent = random_chance(random, 50) ? 12 : 1,
        .level = random_chance(random, 50) ? QUIRE_LEVEL_DURABLE : QUIRE_LEVEL_PROCESS,
        .blob_threshold = thresholds[random_below(random, 4)],
        .log_cap = random_chance(random, 50) ? 4 * SEGMENT_BYTES : 0,
        .depth = depth,
        .failed_sync = ways[random_below(random, 5)],
    };
    if (plan.hot_percent != 0 && random_chance(random, 70)) { /* races for it */
        plan.kind = SCHED_WALK;
        plan.switch_percent = 40;
        plan.conditional_percent = 60;
        plan.read_percent = 20;
    }
    if (plan.memory_percent != 0) { /* values that are kept in memory, so that it ends */
        plan.large_percent = 25;
        if (random_chance(random, 50)) plan.blob_threshold = NO_BLOBS;
    }
    return plan;
}

static uint64_t run_seed(uint64_t seed, unsigned depth)
{
    struct random_stream random;
    seed_now = seed;
    random_seed(&random, seed);
    sched_begin(random_mix(seed));
    struct plan plan = plan_of(&random, depth);
    struct image empty = {.disk = simdisk_create(), .name = ""};
    int64_t blocks = qr_alloc_live_count();
    life_run(&plan, &empty, 0, random_next(&random));
    if (sim_failures == 0 && qr_alloc_live_count() != blocks)
        sim_fail(NULL, "%lld blocks were not given back", (long long)(qr_alloc_live_count() - blocks));
    struct sched_counts counts = sched_counts();
    sim_counts.seeds++;
    sim_counts.points += counts.points;
    sim_counts.switches += counts.switches;
    sim_counts.waits += counts.waits;
    sim_counts.jumps += counts.jumps;
    return counts.hash;
}

/* ---- Counts ----------------------------------------------------------------------------------------------------- */

static double processor_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void print_counts(uint64_t from)
{
    const struct sim_counts *c = &sim_counts;
    double seconds = processor_seconds();
    uint64_t ops = 0;
    for (uint32_t k = 0; k < OP_KINDS; k++) ops += c->ops[k];
    printf("seeds %llu to %llu, %.1f s of processor time, %.1f a second\n", (unsigned long long)from,
           (unsigned long long)(from + c->seeds - 1), seconds, (double)c->seeds / seconds);
#define N(What) ((unsigned long long)(What))
    printf("operations %llu: puts %llu, deletions %llu, insertions %llu, swaps %llu, additions %llu, reads %llu, with a snapshot %llu,\n"
           "    snapshots %llu, syncs %llu, waits %llu, checkpoints %llu, maintenance %llu, checks %llu\n",
           N(ops), N(c->ops[OP_PUT]), N(c->ops[OP_DELETE]), N(c->ops[OP_INSERT]), N(c->ops[OP_SWAP]), N(c->ops[OP_ADD]),
           N(c->ops[OP_READ]), N(c->ops[OP_READ_OLD]), N(c->ops[OP_SNAPSHOT]), N(c->ops[OP_SYNC]), N(c->ops[OP_WAIT]),
           N(c->ops[OP_CHECKPOINT]), N(c->ops[OP_MAINTAIN]), N(c->ops[OP_VERIFY]));
    printf("memory: what is left changed %llu times, answers NO_MEMORY %llu, STALLED %llu\n", N(c->limits), N(c->no_memory), N(c->stalled));
    printf("trees made %llu, in calls %llu, given other sizes %llu, opened again %llu; found by openings of the store %llu\n", N(c->made),
           N(c->ops[OP_MAKE]), N(c->adopted), N(c->opened), N(c->made_found));
    printf("safe versions raised %llu, in calls %llu; reads and writes refused for them %llu, of %llu\n", N(c->raised),
           N(c->ops[OP_RAISE]), N(c->refused), N(c->ops[OP_ASK]));
    printf("writes done %llu, after another attempt %llu, failed %llu, of them unknown %llu\n", N(c->writes_done), N(c->retried),
           N(c->failed_writes), N(c->unknown_writes));
    printf("splits %llu, merges %llu, consolidations %llu, checkpoints %llu, segments of the log %llu\n", N(c->splits), N(c->merges),
           N(c->consolidations), N(c->checkpoints), N(c->log_segments));
    printf("points %llu, switches %llu, waits %llu, jumps of the clock %llu\n", N(c->points), N(c->switches), N(c->waits),
           N(c->jumps));
    printf("lives %llu, images %llu: death %llu, power loss: drop %llu, keep %llu, one %llu, but one %llu, random %llu; "
           "cut while opening %llu, closing %llu; reopened %llu\n",
           N(c->lives), N(c->images), N(c->cuts[SIMDISK_DEATH]), N(c->cuts[SIMDISK_DROP]), N(c->cuts[SIMDISK_KEEP]),
           N(c->cuts[SIMDISK_ONE]), N(c->cuts[SIMDISK_BUT_ONE]), N(c->cuts[SIMDISK_RANDOM]), N(c->cuts_opening),
           N(c->cuts_closing), N(c->reopened));
    printf("faults set %llu, fired %llu; while opening set %llu, fired %llu, of them it was refused %llu:\n   ", N(c->faults_set),
           N(c->faults_fired), N(c->opening_set), N(c->opening_fired), N(c->opening_refused));
    static const char *const kinds[SIMDISK_KINDS] = {"",     "dir_open", "list",     "dir_sync", "unlink", "rename",   "lock",    "open",
                                                     "read", "write",    "resize",   "allocate", "sync",   "map",      "populate", ""};
    for (uint32_t k = 0; k < SIMDISK_KINDS; k++)
        if (c->opening_hits[k] != 0) printf(" %s %llu", kinds[k], N(c->opening_hits[k]));
    printf("\nfailed syncs: clean %llu, reverted %llu (CORRUPT was an answer %llu times), lies %llu; images after a lie and power loss %llu, "
           "of them CORRUPT %llu\n", N(simdisk_effect_count(SIMDISK_SYNC_LEFT_CLEAN)), N(simdisk_effect_count(SIMDISK_SYNC_REVERTED)),
           N(c->reverted_corrupt), N(c->lies), N(c->lied_images), N(c->lied_corrupt));
#undef N
}

/* What the program's first use of the library keeps for good. */
static void warm_up(void)
{
    struct quire *db = NULL;
    struct quire_tree *tree = NULL;
    if (quire_open(NULL, NULL, &db) != 0 || quire_tree_open(db, "", NULL, &tree) != 0 || quire_close(db) != 0) abort();
}

/* The switch from thread to thread is cheapest on one processor. */
static void stay_on_one(void)
{
    cpu_set_t set;
    int here = sched_getcpu();
    if (here < 0) return;
    CPU_ZERO(&set);
    CPU_SET(here, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

int main(int argc, char **argv)
{
    uint64_t seeds = 100, from = 1, depth = 2, every = 1000;
    int trace = 0, twice = 0;
    const struct test_option options[] = {
        {.name = "seeds", .help = "how many", .number = &seeds},
        {.name = "from", .help = "the first one", .number = &from},
        {.name = "depth", .help = "how often an image is cut again", .number = &depth},
        {.name = "twice", .help = "run each seed twice, and compare the histories", .flag = &twice},
        {.name = "every", .help = "print counts after so many seeds", .number = &every},
        {.name = "trace", .help = "print operations", .flag = &trace},
    };
    test_options_parse(argc, argv, "Several clients, one after the other in an order by chance; crashes; faults.", options,
                       sizeof(options) / sizeof(options[0]));
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTERM};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) signal(signals[i], on_signal);
    sim_trace = trace != 0;
    stay_on_one();
    warm_up();
    if (seeds != 1) seeds = test_scaled(seeds);
    depth_now = depth;
    printf("seeds: %llu from %llu\n", (unsigned long long)seeds, (unsigned long long)from);
    for (uint64_t seed = from; seed < from + seeds && sim_failures == 0; seed++) {
        uint64_t hash = run_seed(seed, (unsigned)depth);
        if (twice && sim_failures == 0 && run_seed(seed, (unsigned)depth) != hash) sim_fail(NULL, "run again it is another history");
        if (trace) printf("hash %016llx\n", (unsigned long long)hash);
        if ((seed - from + 1) % every == 0) {
            printf("... next --from %llu\n", (unsigned long long)(seed + 1));
            fflush(stdout);
        }
    }
    print_counts(from);
    printf("%llu passed, %llu failed\n", (unsigned long long)(sim_counts.seeds - (sim_failures != 0)),
           (unsigned long long)(sim_failures != 0));
    return sim_failures != 0;
}
