/*
 * Goal: whatever operation of the disk fails, whatever allocation: the call says so, what was there stays, and the
 * store goes on, or after a failed sync refuses; a full disk refuses, keeps a reserve for the checkpoint, and goes on
 * by itself when there is space. Method: the same operations again with the 1st, 2nd, 3rd ... operation of each kind
 * failing, once or for good, then power loss, and comparison with the last checkpoint; the same with allocations; a
 * small disk filled and emptied.
 */
#include "store/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "lib/check.h"
#include "lib/options.h"

static uint64_t seed;

static struct world make_world(void)
{
    struct world world = {.path = "db", .least_bytes = 40, .most_bytes = 3000};
    world.options.first_segment_bytes = 32 << 10;
    world.options.most_segment_bytes = 64 << 10;
    world.options.most_open_files = 4;
    world.sim = simdisk_create();
    world.disk = simdisk_disk(world.sim);
    random_seed(&world.random, seed);
    return world;
}

static void end_world(struct world *world)
{
    world_close(world);
    CHECK_EQUAL(simdisk_open_count(world->sim), 0);
    simdisk_free(world->sim);
}

/* Until something has failed for good. */
static void steps(struct world *world, uint64_t count)
{
    for (uint64_t i = 0; i < count && !world->dead; i++)
        world_step(world);
}

/* What is on the disk is the last checkpoint, or the one in doubt. */
static void compare_after_power_loss(struct world *world, enum simdisk_mode mode)
{
    struct world after = *world;
    after.may_fail = false;
    after.sim = simdisk_crash(world->sim, &(struct simdisk_crash){.mode = mode});
    after.disk = simdisk_disk(after.sim);
    simdisk_facts(after.sim)->space_bytes = UINT64_MAX; /* for the manifest */
    int result = world_open(&after);
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    if (CHECK(result == 0, "%s", detail.message)) {
        CHECK(world_is(&after, world->durable) || (world->next_possible && world_is(&after, world->next)), "mode %d",
              (int)mode);
        world_close(&after);
    }
    simdisk_free(after.sim);
}

/* ---- Operations of the disk ------------------------------------------------------------------------------------- */

/* False: the fault never came. */
static bool run_with_fault(enum simdisk_kind kind, uint64_t nth, bool for_good, int error)
{
    struct world world = make_world();
    CHECK_EQUAL(world_open(&world), 0);
    steps(&world, 20);
    world.may_fail = true;
    struct simdisk_fault fault = {.kind = kind, .nth = nth, .for_good = for_good, .error = error};
    unsigned number = simdisk_fault_set(world.sim, &fault);
    steps(&world, 25);
    bool fired = simdisk_fault_fired(world.sim, number) != 0;
    simdisk_faults_clear(world.sim);
    /* In memory all is as it was; reads go on after a failed sync. */
    if (!world.next_possible)
        CHECK_EQUAL(world_compare(&world, world.current, NULL), 0);
    /* Without the fault it goes on, unless a sync or the manifest has failed. */
    struct qr_store_image image = {.pid = 1, .kind = QR_STORE_LEAF, .max_lsn = 1, .bytes = "x", .size = 1};
    int result = qr_store_write(world.store, &image, 1, 0);
    if (result == 0)
        qr_store_forget(world.store, image.address);
    CHECK(result == 0 || kind == SIMDISK_SYNC || kind == SIMDISK_DIR_SYNC || kind == SIMDISK_ANY, "kind %d: %d",
          (int)kind, result);
    compare_after_power_loss(&world, SIMDISK_DROP);
    compare_after_power_loss(&world, SIMDISK_KEEP);
    compare_after_power_loss(&world, SIMDISK_DEATH);
    end_world(&world);
    return fired;
}

static void every_operation_fails(uint64_t step)
{
    static const enum simdisk_kind kinds[] = {SIMDISK_OPEN,     SIMDISK_READ,     SIMDISK_WRITE,
                                              SIMDISK_RESIZE,   SIMDISK_ALLOCATE, SIMDISK_SYNC,
                                              SIMDISK_DIR_SYNC, SIMDISK_RENAME,   SIMDISK_UNLINK};
    for (uint32_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        for (int for_good = 0; for_good <= 1; for_good++) {
            uint64_t nth = 1;
            while (run_with_fault(kinds[k], nth, for_good, kinds[k] == SIMDISK_ALLOCATE ? ENOSPC : EIO))
                nth += step;
            printf("kind %d, %s: %llu\n", (int)kinds[k], for_good ? "for good" : "once", (unsigned long long)nth);
        }
    }
}

static void short_counts_and_interruptions(void)
{
    static const enum simdisk_kind kinds[] = {SIMDISK_READ, SIMDISK_WRITE};
    for (uint32_t k = 0; k < 2; k++) {
        for (int interrupted = 0; interrupted <= 1; interrupted++) {
            struct world world = make_world();
            CHECK_EQUAL(world_open(&world), 0);
            for (uint32_t i = 0; i < 40; i++) {
                simdisk_faults_clear(world.sim);
                struct simdisk_fault fault = {
                    .kind = kinds[k], .nth = 1 + i % 3, .error = interrupted ? EINTR : 0, .short_bytes = 700};
                simdisk_fault_set(world.sim, &fault);
                world_step(&world);
            }
            simdisk_faults_clear(world.sim);
            CHECK_EQUAL(world_compare(&world, world.current, NULL), 0);
            end_world(&world);
        }
    }
}

/* ---- Allocations ------------------------------------------------------------------------------------------------ */

static void every_allocation_fails(uint64_t step)
{
    for (uint64_t nth = 1;; nth += step) {
        struct world world = make_world();
        int64_t live = qr_alloc_live_count();
        CHECK_EQUAL(world_open(&world), 0);
        steps(&world, 10);
        world.may_fail = true;
        qr_alloc_fail_after((int64_t)nth);
        steps(&world, 25);
        bool ended = qr_alloc_fail_pending() > 0;
        qr_alloc_fail_after(-1);
        CHECK_EQUAL(world_compare(&world, world.current, NULL), 0);
        compare_after_power_loss(&world, SIMDISK_DROP);
        world.may_fail = false;
        CHECK_EQUAL(world_checkpoint(&world, false), 0);
        CHECK_EQUAL(world_compare(&world, world.current, NULL), 0);
        compare_after_power_loss(&world, SIMDISK_DROP);
        world_close(&world);
        CHECK_EQUAL(qr_alloc_live_count(), live);
        end_world(&world);
        if (ended) {
            printf("allocations: %llu\n", (unsigned long long)nth);
            return;
        }
    }
}

static void opening_fails_without_a_trace(void)
{
    struct world world = make_world();
    CHECK_EQUAL(world_open(&world), 0);
    steps(&world, 60);
    CHECK_EQUAL(world_checkpoint(&world, false), 0);
    world_close(&world);
    int64_t live = qr_alloc_live_count();
    bool ended = false;
    for (int64_t nth = 1; !ended; nth++) {
        qr_alloc_fail_after(nth);
        int result = world_open(&world);
        ended = qr_alloc_fail_pending() > 0;
        qr_alloc_fail_after(-1);
        if (result != 0) {
            CHECK_EQUAL(qr_alloc_live_count(), live);
            continue;
        }
        CHECK_EQUAL(world_compare(&world, world.durable, NULL), 0);
        world_close(&world);
        CHECK_EQUAL(qr_alloc_live_count(), live);
    }
    end_world(&world);
}

/* ---- A full disk ------------------------------------------------------------------------------------------------ */

static void a_full_disk(void)
{
    struct world world = make_world();
    struct qr_store_stats stats;
    world.may_fail = true;
    world.least_bytes = world.most_bytes = 3000;
    world.plain = true;
    simdisk_facts(world.sim)->space_bytes = 2 << 20;
    CHECK_EQUAL(world_open(&world), 0);
    /* Pages are written without any going, until nothing fits any more. */
    uint64_t pid = 1 << 20;
    static uint8_t bytes[3000];
    uint64_t entered = 0;
    int result;
    for (;;) {
        struct qr_store_image image = {
            .pid = pid, .kind = QR_STORE_LEAF, .max_lsn = 1, .bytes = bytes, .size = sizeof(bytes)};
        result = qr_store_write(world.store, &image, 1, 0);
        if (result != 0)
            break;
        qr_store_enter(world.store, pid++, image.address);
        if (++entered % 50 == 0)
            CHECK_EQUAL(world_checkpoint(&world, false), 0);
    }
    CHECK_EQUAL(result, QUIRE_ERR_NO_SPACE);
    qr_store_stats(world.store, &stats);
    CHECK_EQUAL(stats.reserve_segments, 2);
    /* The reserve lets a checkpoint through, and deletes. */
    CHECK_EQUAL(world_checkpoint(&world, false), 0);
    while (pid > 1 << 20)
        qr_store_remove(world.store, --pid);
    CHECK_EQUAL(world_checkpoint(&world, false), 0);
    CHECK_EQUAL(world_checkpoint(&world, false), 0);
    qr_store_stats(world.store, &stats);
    CHECK(stats.segments < 8, "%llu segments are left", (unsigned long long)stats.segments);
    /* And it goes on. */
    world.failures = 0;
    for (uint32_t page = 0; page < PAGES; page++)
        world_write_page(&world, page);
    CHECK_EQUAL(world.failures, 0);
    CHECK_EQUAL(world_checkpoint(&world, false), 0);
    CHECK_EQUAL(world_compare(&world, world.current, NULL), 0);
    compare_after_power_loss(&world, SIMDISK_DROP);
    end_world(&world);
}

static void a_disk_that_is_nearly_full(void)
{
    for (uint64_t space = 100 << 10; space < 900 << 10; space += 50 << 10) {
        struct world world = make_world();
        world.may_fail = true;
        simdisk_facts(world.sim)->space_bytes = space;
        if (world_open(&world) == 0) {
            steps(&world, 60);
            CHECK_EQUAL(world_compare(&world, world.current, NULL), 0);
            compare_after_power_loss(&world, SIMDISK_DEATH);
            simdisk_facts(world.sim)->space_bytes = 64 << 20;
            world.may_fail = world.dead;
            steps(&world, 20);
            CHECK_EQUAL(world_compare(&world, world.current, NULL), 0);
        }
        end_world(&world);
    }
}

/* ---- Files of others -------------------------------------------------------------------------------------------- */

static void foreign_files_stay(void)
{
    struct world world = make_world();
    CHECK_EQUAL(world_open(&world), 0);
    struct qr_file *file;
    const char *names[] = {"page-00000007", "page-1", "page-0000000g", "page-00000001x"};
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_EQUAL(world.disk->ops->file_open(world.dir, names[i], QR_FILE_WRITE | QR_FILE_CREATE, &file), 0);
        CHECK_EQUAL(qr_file_write(file, "somebody's", 10, 0), 0);
        world.disk->ops->file_close(file);
    }
    world_close(&world);
    CHECK_EQUAL(world_open(&world), 0);
    steps(&world, 60);
    CHECK_EQUAL(world_checkpoint(&world, false), 0);
    world_close(&world);
    CHECK_EQUAL(world_open(&world), 0);
    CHECK_EQUAL(world_compare(&world, world.durable, NULL), 0);
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t size = 0;
        const uint8_t *content = simdisk_content(world.sim, "db", names[i], &size);
        CHECK(content != NULL && size == 10 && memcmp(content, "somebody's", 10) == 0, "%s", names[i]);
    }
    end_world(&world);
}

static void reading_only_writes_nothing(void)
{
    struct world world = make_world();
    CHECK_EQUAL(world_open(&world), 0);
    steps(&world, 60);
    CHECK_EQUAL(world_checkpoint(&world, false), 0);
    world_write(&world, 30);
    world_close(&world);
    uint64_t writes = simdisk_count(world.sim, SIMDISK_WRITE), unlinks = simdisk_count(world.sim, SIMDISK_UNLINK);
    simdisk_facts(world.sim)->read_only = true;
    world.only_reads = true;
    CHECK_EQUAL(world_open(&world), 0);
    CHECK_EQUAL(world_compare(&world, world.durable, NULL), 0);
    struct qr_store_image image = {.pid = 1, .kind = QR_STORE_LEAF, .max_lsn = 1, .bytes = "x", .size = 1};
    CHECK_EQUAL(qr_store_write(world.store, &image, 1, 0), QUIRE_ERR_READ_ONLY);
    CHECK_EQUAL(qr_store_clean_up(world.store), QUIRE_ERR_READ_ONLY);
    CHECK_EQUAL(simdisk_count(world.sim, SIMDISK_WRITE), writes);
    CHECK_EQUAL(simdisk_count(world.sim, SIMDISK_UNLINK), unlinks);
    end_world(&world);
}

int main(int argc, char **argv)
{
    uint64_t step = 5;
    const struct test_option options[] = {{.name = "seed", .help = "0 = from the clock", .number = &seed},
                                          {.name = "step", .help = "from one that fails to the next", .number = &step}};
    test_options_parse(argc, argv, "failures under the page store", options, 2);
    seed = test_seed(seed);
    foreign_files_stay();
    reading_only_writes_nothing();
    short_counts_and_interruptions();
    a_full_disk();
    a_disk_that_is_nearly_full();
    opening_fails_without_a_trace();
    every_allocation_fails(step * 2 + 1);
    every_operation_fails(step);
    return check_finish();
}
