/*
 * Goal: a large value that was shown after an opening stays, also when a sync that was to cover it had failed before.
 * Method: a large value at PROCESS on the simulated disk; a sync of its file fails, in the running store, or in the next opening; the
 * store is opened in the same boot, read, and then the power goes, with all that is unsynced. In each way in which file systems
 * go on after a failed sync.
 * The bugs: recovery wrote the log again, but not the large values that it names, which the page cache had and the disk had not; and a
 * sync of them that failed during recovery left no mark in the log, so the next opening took the page cache at its word.
 */
#include <errno.h>

#include "large_value.h"

/* The large value is written, and a sync that must cover it fails: of the store that wrote it, or of the next opening. */
static struct simdisk *make(enum simdisk_failed_sync behaviour, bool in_recovery, uint64_t nth)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db;
    struct quire_tree *tree;
    CHECK_EQUAL(open_on(disk, &db, &tree), 0);
    CHECK_EQUAL(quire_put(tree, "first", 5, "x", 1, QUIRE_WRITE_DURABLE, NULL), 0);
    CHECK_EQUAL(quire_put(tree, "key", 3, large, sizeof(large), QUIRE_WRITE_PROCESS, NULL), 0);
    simdisk_facts(disk)->failed_sync = behaviour;
    if (!in_recovery) {
        simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 1, .error = EIO});
        CHECK_EQUAL(quire_sync(db), QUIRE_ERR_UNKNOWN);
        simdisk_faults_clear(disk);
    }
    struct simdisk *dead = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    (void)quire_close(db);
    simdisk_free(disk);
    if (!in_recovery) return dead;
    simdisk_fault_set(dead, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = nth, .error = EIO});
    if (open_on(dead, &db, &tree) == 0) CHECK_EQUAL(quire_close(db), 0);
    simdisk_faults_clear(dead);
    return dead;
}

static void look(struct simdisk *disk)
{
    struct quire *db;
    struct quire_tree *tree;
    if (!CHECK_EQUAL(open_on(disk, &db, &tree), 0)) return;
    int shown = read_large(tree, "key");
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    CHECK_EQUAL(quire_close(db), 0);
    if (CHECK_EQUAL(open_on(after, &db, &tree), 0)) {
        CHECK(read_large(tree, "key") == shown, "it was shown, and is lost");
        CHECK_EQUAL(quire_exists(tree, NULL, "first", 5), 0);
        CHECK_EQUAL(quire_close(db), 0);
    }
    simdisk_free(after);
}

int main(void)
{
    memset(large, 'v', sizeof(large));
    for (enum simdisk_failed_sync behaviour = SIMDISK_FAILED_CLEAN; behaviour <= SIMDISK_FAILED_REVERTS; behaviour++) {
        for (uint64_t nth = 0; nth < 8; nth++) {
            struct simdisk *disk = make(behaviour, nth != 0, nth);
            look(disk);
            simdisk_free(disk);
        }
    }
    return check_finish();
}
