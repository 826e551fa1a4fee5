/*
 * Goal: whatever is lost with the power, or left by a process that died, at whatever step, also while recovering from the
 * last time: a store opens by itself, with everything that was acknowledged, as it was after some operation, and goes on.
 * The same with a disk that fails at any step, and without memory.
 * Method: one thread drives a database on a simulated disk, in tiny segments; at each operation of the disk and each stop
 * point images are cut out and opened (power_cut.c), and cut again. A model knows the state after each operation. Faults:
 * power_fault.c.
 *
 *     crash_power --seed 1                     # all scenarios
 *     crash_power --rounds 50                  # with the seeds after it: a long run
 *     crash_power --scenario mapped --seed 7 --only 24.5/13.4
 *
 * One seed gives one run, but for the store's id and the salts of its segments, which decide nothing.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/stop.h"
#include "lib/options.h"
#include "power.h"

uint64_t power_images, power_depths[MOST_PATH], power_opens, power_failures;
uint64_t power_lied_refused, power_lied_partly, power_lied_whole, power_lost_blobs, power_verified, power_digest;
uint64_t power_most_failures = 5;
uint64_t power_seed;
const struct scenario *power_scenario;
bool power_trace;
static bool quiet_names;

static void print_path(const struct run *run)
{
    if (run->parent == NULL) return;
    print_path(run->parent);
    printf("%s%llu.%llu", run->parent->parent == NULL ? "" : "/", (unsigned long long)run->event,
           (unsigned long long)run->plan);
}

void power_fail(const struct run *run, const char *format, ...)
{
    va_list arguments;
    power_failures++;
    printf("FAILED: ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n    crash_power --scenario %s --seed %llu", power_scenario->name, (unsigned long long)power_seed);
    if (run != NULL && run->parent != NULL) {
        printf(" --depth %u --effort %llu --only ", cut_depth, (unsigned long long)cut_effort);
        print_path(run);
    }
    printf("\n");
    fflush(stdout);
}

/* ---- What came about -------------------------------------------------------------------------------------------- */

static struct {
    char what[48];
    uint64_t count;
} fired[128];
static size_t fired_count;

void power_fired(const char *what, uint64_t count)
{
    size_t i = 0;
    while (i < fired_count && strcmp(fired[i].what, what) != 0) i++;
    if (i == fired_count && fired_count++ == sizeof(fired) / sizeof(fired[0])) abort();
    snprintf(fired[i].what, sizeof(fired[i].what), "%s", what);
    fired[i].count += count;
}

/* What a whole run, without options that leave something out, must have had. */
static const char *const planned[] = {
    "EIO of dir_open", "EIO of list", "EIO of dir_sync", "EIO of unlink", "EIO of rename", "EIO of lock", "EIO of open",
    "EIO of read", "EIO of write", "EIO of allocate", "EIO of sync", "EIO of map", "EIO of populate", "ENOSPC of write",
    "ENOSPC of allocate", "ENOSPC of populate", "EINTR of read", "EINTR of write", "EINTR of sync", "EINTR of dir_sync",
    "short of read", "short of write", "EIO of sync, reverts", "EIO of sync, late", "quota of write", "quota of allocate",
    "quota of populate", "no memory", "syncs that left clean", "syncs that reverted", "syncs that lied", "late errors",
    "torn sectors", "torn writes", "verifications", "lied: refused", "lied: partly CORRUPT", "lied: whole"};

static void count_effects(void)
{
    static const char *const names[SIMDISK_EFFECTS] = {"syncs that left clean", "syncs that reverted", "syncs that lied",
                                                       "late errors",           "torn sectors",        "torn writes",
                                                       "stale sectors"};
    for (enum simdisk_effect e = 0; e < SIMDISK_EFFECTS; e++) power_fired(names[e], simdisk_effect_count(e));
    power_fired("lied: refused", power_lied_refused);
    power_fired("lied: partly CORRUPT", power_lied_partly);
    power_fired("lied: whole", power_lied_whole);
    power_fired("verifications", power_verified);
    power_fired("large values taken back, CORRUPT", power_lost_blobs);
}

/* Prints all of it. all: whatever was planned must be among them. */
static void tell_what_fired(bool all)
{
    count_effects();
    for (size_t i = 0; i < fired_count; i++)
        if (fired[i].count != 0) printf("    %8llu %s\n", (unsigned long long)fired[i].count, fired[i].what);
    for (size_t k = 0; all && k < sizeof(planned) / sizeof(planned[0]); k++) {
        size_t i = 0;
        while (i < fired_count && strcmp(fired[i].what, planned[k]) != 0) i++;
        if (i < fired_count && fired[i].count != 0) continue;
        printf("FAILED: never: %s\n", planned[k]);
        power_failures++;
    }
    /* D-31: images with `stale` would show what the disk had before, and there is nothing to show. */
    if (simdisk_effect_count(SIMDISK_STALE_SECTOR) == 0) return;
    printf("FAILED: a file was written to where its space had not been made before\n");
    power_failures++;
}

/* ---- Work by chance --------------------------------------------------------------------------------------------- */

static void work(const struct scenario *scenario, uint64_t seed)
{
    struct run *run = run_create(&scenario->setup, seed);
    run->disk = simdisk_create();
    simdisk_facts(run->disk)->can_map = scenario->variant == 0;
    cut_begin(run);
    int result = run_open(run, 0);
    if (result != 0) power_fail(run, "open: %s", quire_strerror(result));
    bool good = result == 0 && run_accept(run);
    for (uint32_t i = 0; i < scenario->setup.operations && good && power_failures < power_most_failures; i++) {
        good = run_operation(run);
        if (good && i % 8 == 7) cut_here(run);
    }
    if (good) good = run_check(run);
    if (run->db != NULL) run_close(run);
    cut_end(run);
    run_free(run);
}

/* ---- The list --------------------------------------------------------------------------------------------------- */

#define DURABLE QUIRE_LEVEL_DURABLE
#define PROCESS QUIRE_LEVEL_PROCESS

static const struct scenario scenarios[] = {
    {"mapped", work, {.operations = 40, .level = DURABLE, .durable_percent = 40, .large_percent = 10, .mixed = true}, 0},
    {"buffered", work, {.operations = 40, .level = DURABLE, .durable_percent = 40, .large_percent = 10, .buffered = true}, 0},
    {"process", work, {.operations = 60, .level = PROCESS, .durable_percent = 5, .large_percent = 15}, 0},
    {"process_buffered",
     work,
     {.operations = 60, .level = PROCESS, .durable_percent = 5, .large_percent = 15, .buffered = true, .mixed = true},
     0},
    {"large", work, {.operations = 24, .level = PROCESS, .durable_percent = 30, .large_percent = 60, .mixed = true}, 0},
    {"volume",
     work,
     {.operations = 60, .level = PROCESS, .durable_percent = 0, .large_percent = 5, .sync_volume_bytes = 2000},
     0},
    {"blobs",
     work,
     {.operations = 50, .level = DURABLE, .durable_percent = 40, .large_percent = 30, .mixed = true, .blob_threshold = 64,
      .checkpoint_percent = 10},
     0},
    {"blobs_process",
     work,
     {.operations = 60, .level = PROCESS, .durable_percent = 10, .large_percent = 40, .blob_threshold = 1000,
      .checkpoint_percent = 5},
     0},
    {"off", work, {.operations = 60, .level = PROCESS, .large_percent = 10, .off_percent = 100}, 0},
    {"off_blobs",
     work,
     {.operations = 60, .level = PROCESS, .large_percent = 30, .off_percent = 100, .blob_threshold = 64, .checkpoint_percent = 5},
     0},
    {"off_and_on",
     work,
     {.operations = 60, .level = PROCESS, .durable_percent = 20, .large_percent = 10, .off_percent = 50, .mixed = true,
      .blob_threshold = 500},
     0},
    {"unmapped", work, {.operations = 30, .level = DURABLE, .durable_percent = 30, .large_percent = 10}, 1},
};
#define SCENARIOS (sizeof(scenarios) / sizeof(scenarios[0]))

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t ran, failed;

static void run_all(const struct scenario *list, size_t count, const char *only, uint64_t seed)
{
    for (size_t i = 0; i < count && power_failures < power_most_failures; i++) {
        if (only != NULL && strcmp(only, list[i].name) != 0) continue;
        uint64_t failures = power_failures, images = power_images;
        double begin = seconds();
        power_scenario = &list[i];
        power_seed = seed;
        list[i].act(&list[i], random_mix(seed));
        qr_stop_set_hook(NULL, NULL);
        ran++;
        failed += power_failures != failures;
        if (!quiet_names)
            printf("%-24s %7llu images %6.1f s\n", list[i].name, (unsigned long long)(power_images - images),
                   seconds() - begin);
    }
}

static void parse_path(const char *text)
{
    char *end = NULL;
    while (text != NULL && *text != '\0' && cut_only_count < MOST_PATH) {
        cut_only[cut_only_count][0] = strtoull(text, &end, 10);
        cut_only[cut_only_count++][1] = *end == '.' ? strtoull(end + 1, &end, 10) : 0;
        text = *end == '/' ? end + 1 : NULL;
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, rounds = 1, depth = cut_depth;
    const char *only = NULL, *path = NULL;
    int trace = 0, first = 0, no_faults = 0, no_cuts = 0;
    const struct test_option options[] = {
        {.name = "seed", .help = "of the run; 0: from the clock", .number = &seed},
        {.name = "rounds", .help = "how often, each time with the next seed", .number = &rounds},
        {.name = "effort", .help = "percent of the usual number of images", .number = &cut_effort},
        {.name = "depth", .help = "how often an image is cut again", .number = &depth},
        {.name = "scenario", .help = "only this one", .text = &only},
        {.name = "only", .help = "only the image with this path", .text = &path},
        {.name = "no-faults", .help = "power loss alone", .flag = &no_faults},
        {.name = "no-cuts", .help = "faults alone", .flag = &no_cuts},
        {.name = "first", .help = "end at the first failure", .flag = &first},
        {.name = "trace", .help = "print operations", .flag = &trace},
    };
    test_options_parse(argc, argv, "a store on a disk that loses power and fails", options,
                       sizeof(options) / sizeof(options[0]));
    setvbuf(stdout, NULL, _IOLBF, 0);
    seed = test_seed(seed);
    rounds = test_scaled(rounds);
    cut_depth = (unsigned)depth;
    power_trace = trace != 0;
    if (first != 0) power_most_failures = 1;
    quiet_names = rounds > 3;
    parse_path(path);
    for (uint64_t i = 0; i < rounds && power_failures < power_most_failures; i++) {
        if (no_cuts == 0) run_all(power_scripts, power_script_count, only, seed + i);
        if (no_cuts == 0) run_all(scenarios, SCENARIOS, only, seed + i);
        if (no_faults == 0) run_all(power_faults, power_fault_count, only, seed + i);
    }
    printf("%llu images (of the first depths: %llu, %llu, %llu, %llu), %llu openings\n", (unsigned long long)power_images,
           (unsigned long long)power_depths[1], (unsigned long long)power_depths[2], (unsigned long long)power_depths[3],
           (unsigned long long)power_depths[4], (unsigned long long)power_opens);
    printf("digest %016llx\n", (unsigned long long)power_digest);
    tell_what_fired(only == NULL && no_cuts == 0 && no_faults == 0 && power_failures == 0);
    if (power_failures != 0 && failed == 0) failed = 1;
    printf("%llu passed, %llu failed\n", (unsigned long long)(ran - failed), (unsigned long long)failed);
    return ran == 0 || failed != 0;
}
