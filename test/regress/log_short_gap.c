/*
 * Goal: a log that lacks a segment of which little is needed is damaged, and says so.
 * Method: a store on the simulated disk that dies twice: its older log begins at a place within a segment, behind a checkpoint, with one
 * record that counts. That segment is removed.
 * The bug: less than 4 KiB that were missing were taken for the header of a segment that holds nothing. The simulation found it, by power
 * loss after a sync of the manifest had lied: the log was gone that the checkpoint before still needed.
 */
#include "db/db.h"
#include "lib/check.h"
#include "lib/simdisk.h"

#include <quire/quire.h>

#define STORE "store"

static struct quire *open_on(struct simdisk *disk, int *ret_result)
{
    struct quire_options options;
    struct quire *db = NULL;
    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    options.background_threads = QUIRE_NO_THREADS;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.log_segment_bytes = 65536;
    options.no_sync_at_close = 1;
    *ret_result = qr_db_open(STORE, simdisk_disk(disk), &options, &db);
    return *ret_result == 0 ? db : NULL;
}

/* Opened, written to, and dead. */
static struct simdisk *next(struct simdisk *disk, unsigned writes, bool checkpoint)
{
    int result;
    struct quire *db = open_on(disk, &result);
    struct quire_tree *tree = NULL;
    CHECK_EQUAL(result, 0);
    if (db == NULL) return disk;
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
    struct qr_dir *dir;
    int result;
    struct simdisk *disk = next(simdisk_create(), 100, true);
    disk = next(disk, 0, false);
    struct simdisk *whole = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    struct qr_disk *table = simdisk_disk(disk);
    CHECK_EQUAL(table->ops->dir_open(table, STORE, 0, &dir), 0);
    CHECK_EQUAL(table->ops->dir_unlink(dir, "log-00000000"), 0);
    table->ops->dir_close(dir);
    struct quire *db = open_on(disk, &result);
    CHECK(result == QUIRE_ERR_CORRUPT, "without a segment: %s", quire_strerror(result));
    if (db != NULL) CHECK_EQUAL(quire_close(db), 0);
    db = open_on(whole, &result);
    CHECK(result == 0, "with it: %s", quire_strerror(result));
    if (db != NULL) CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    simdisk_free(whole);
    return check_finish();
}
