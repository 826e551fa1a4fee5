/*
 * Goal: a log that lacks a segment of which little is needed is damaged, and says so.
 * Method: a store on the simulated disk that dies twice: its older log begins at a place within a segment, behind a checkpoint, with one
 * record that counts. That segment is removed.
 * The bug: less than 4 KiB that were missing were taken for the header of a segment that holds nothing. The simulation found it, by power
 * loss after a sync of the manifest had lied: the log was gone that the checkpoint before still needed.
 */
#include "log_store.h"

/* Opened, written to, and dead. */
static struct simdisk *next(struct simdisk *disk, unsigned writes, bool checkpoint)
{
    struct quire *db;
    struct quire_tree *tree = NULL;
    int result = open_on(disk, &db);
    CHECK_EQUAL(result, 0);
    if (result != 0) return disk;
    CHECK_EQUAL(quire_tree_open(db, "t", NULL, &tree), 0);
    for (uint32_t i = 0; i < writes; i++) CHECK_EQUAL(quire_put(tree, &i, sizeof(i), "value", 5, 0, NULL), 0);
    if (checkpoint) CHECK_EQUAL(quire_checkpoint(db), 0);
    CHECK_EQUAL(quire_put(tree, "last", 4, "value", 5, 0, NULL), 0);
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    return after;
}

int main(void)
{
    struct quire *db;
    struct simdisk *disk = next(simdisk_create(), 100, true);
    disk = next(disk, 0, false);
    struct simdisk *whole = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    remove_file(disk, "log-00000000", false);
    int result = open_on(disk, &db);
    CHECK(result == QUIRE_ERR_CORRUPT, "without a segment: %s", quire_strerror(result));
    if (result == 0) CHECK_EQUAL(quire_close(db), 0);
    result = open_on(whole, &db);
    CHECK(result == 0, "with it: %s", quire_strerror(result));
    if (result == 0) CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    simdisk_free(whole);
    return check_finish();
}
