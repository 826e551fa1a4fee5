/*
 * Goal: power loss while a manifest is made leaves a directory that opens, whatever arrived of it.
 * Method: a store is created, and its manifest rewritten, on the simulated disk, without failures and with one of a sync; at each
 * operation the power goes, in many ways of what is unsynced. Every image opens, for creating as for going on.
 * The bug: of the header of `manifest.new` other words had arrived than the magic: it was taken for a file of somebody else.
 */
#include <errno.h>

#include "db/db.h"
#include "lib/check.h"
#include "lib/simdisk.h"

#define STORE "store"
#define SEEDS 12u

static bool in_image;
static uint64_t images;

static int open_on(struct simdisk *disk, struct quire **ret_db)
{
    struct quire_options options;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    return qr_db_open(STORE, simdisk_disk(disk), &options, ret_db);
}

static void at_operation(void *context, const struct simdisk_event *event)
{
    struct simdisk *disk = context;
    if (in_image || event->kind == SIMDISK_READ) return;
    in_image = true;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct quire *db;
        struct simdisk_crash crash = {.mode = SIMDISK_RANDOM, .seed = seed, .names = SIMDISK_NAMES_SUBSET, .unit = SIMDISK_UNIT_WORD};
        struct simdisk *after = simdisk_crash(disk, &crash);
        int result = open_on(after, &db);
        CHECK(result == 0, "an image before operation %d of %s: %s", event->kind, event->name, quire_strerror(result));
        if (result == 0) CHECK_EQUAL(quire_close(db), 0);
        simdisk_free(after);
        images++;
    }
    in_image = false;
}

/* failing: the number of a sync that fails in the second opening; 0: none does. */
static void run(uint64_t failing)
{
    struct quire *db;
    struct simdisk *disk = simdisk_create();
    if (failing == 0) simdisk_set_hook(disk, at_operation, disk);
    if (CHECK_EQUAL(open_on(disk, &db), 0)) CHECK_EQUAL(quire_close(db), 0);
    if (failing != 0) {
        simdisk_set_hook(disk, at_operation, disk);
        simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = failing, .error = EIO});
    }
    if (open_on(disk, &db) == 0) (void)quire_close(db); /* a new incarnation is in a new manifest */
    simdisk_set_hook(disk, NULL, NULL);
    simdisk_free(disk);
}

int main(void)
{
    for (uint64_t failing = 0; failing < 6; failing++) run(failing);
    CHECK(images > 100 * SEEDS, "%llu images", (unsigned long long)images);
    return check_finish();
}
