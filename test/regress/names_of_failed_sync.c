/*
 * Goal: what is called durable names no file whose own name may be lost.
 * Method: a large value makes a file, whose name waits for a sync of the directory. Then segments of the log are made until a sync of
 * the directory fails, once. A durable write after that either fails or is there when the power has gone, and the large value with it.
 * The bug: the segment was given up and made again, and the next sync of the directory was believed for both files.
 */
#include <errno.h>
#include <string.h>

#include "db/db.h"
#include "lib/check.h"
#include "lib/simdisk.h"

#define STORE "store"

static char large[5000];

static int open_on(struct simdisk *disk, struct quire **ret_db, struct quire_tree **ret_tree)
{
    struct quire_options options;
    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    options.background_threads = QUIRE_NO_THREADS;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    options.log_segment_bytes = 16384;
    options.no_sync_at_close = 1;
    int result = qr_db_open(STORE, simdisk_disk(disk), &options, ret_db);
    if (result != 0) return result;
    result = quire_tree_open(*ret_db, "t", NULL, ret_tree);
    CHECK_EQUAL(result, 0);
    return result;
}

static void look(struct simdisk *disk)
{
    static char value[sizeof(large)];
    struct quire *db;
    struct quire_tree *tree;
    size_t size = 0;
    if (!CHECK_EQUAL(open_on(disk, &db, &tree), 0)) return;
    CHECK_EQUAL(quire_get(tree, NULL, "large", 5, value, sizeof(value), &size), 0);
    CHECK(size == sizeof(large) && memcmp(value, large, size) == 0, "another value");
    CHECK_EQUAL(quire_exists(tree, NULL, "last", 4), 0);
    CHECK_EQUAL(quire_close(db), 0);
}

static void run(int error)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db;
    struct quire_tree *tree;
    CHECK_EQUAL(open_on(disk, &db, &tree), 0);
    CHECK_EQUAL(quire_put(tree, "first", 5, "x", 1, QUIRE_WRITE_DURABLE, NULL), 0);
    CHECK_EQUAL(quire_put(tree, "large", 5, large, sizeof(large), QUIRE_WRITE_PROCESS, NULL), 0);
    unsigned fault = simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_DIR_SYNC, .nth = 1, .error = error});
    int result = 0;
    for (uint32_t i = 0; i < 10000 && simdisk_fault_fired(disk, fault) == 0; i++)
        result = quire_put(tree, &i, sizeof(i), large, 100, QUIRE_WRITE_PROCESS, NULL);
    CHECK_EQUAL(simdisk_fault_fired(disk, fault), 1u);
    CHECK(result == 0 || result == QUIRE_ERR_IO, "the write answers %s", quire_strerror(result));
    CHECK_EQUAL(quire_exists(tree, NULL, "large", 5), 0); /* reading goes on */
    result = quire_put(tree, "last", 4, "x", 1, QUIRE_WRITE_DURABLE, NULL);
    CHECK(result == 0 || result == QUIRE_ERR_IO || result == QUIRE_ERR_UNKNOWN, "the durable write answers %s", quire_strerror(result));
    if (result == 0) {
        struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
        look(after);
        simdisk_free(after);
    }
    (void)quire_close(db);
    simdisk_free(disk);
}

int main(void)
{
    memset(large, 'v', sizeof(large));
    run(EIO);
    run(ENOSPC);
    return check_finish();
}
