/*
 * A store on the simulated disk with small segments of the log, of which files are taken away. Nothing is synced that is not asked for.
 */
#ifndef TEST_REGRESS_LOG_STORE_H
#define TEST_REGRESS_LOG_STORE_H

#include "db/db.h"
#include "lib/check.h"
#include "lib/resting.h"
#include "lib/simdisk.h"

#define STORE "store"

static inline int open_on(struct simdisk *disk, struct quire **ret_db)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    options.log_segment_bytes = 16384;
    options.no_sync_at_close = 1;
    return qr_db_open(STORE, simdisk_disk(disk), &options, ret_db);
}

/* emptied: the name stays. */
static inline void remove_file(struct simdisk *disk, const char *name, bool emptied)
{
    struct qr_disk *table = simdisk_disk(disk);
    struct qr_dir *dir;
    struct qr_file *file;
    CHECK_EQUAL(table->ops->dir_open(table, STORE, 0, &dir), 0);
    if (emptied) {
        CHECK_EQUAL(table->ops->file_open(dir, name, QR_FILE_WRITE, &file), 0);
        CHECK_EQUAL(table->ops->file_resize(file, 0), 0);
        table->ops->file_close(file);
    } else {
        CHECK_EQUAL(table->ops->dir_unlink(dir, name), 0);
    }
    table->ops->dir_close(dir);
}

#endif
