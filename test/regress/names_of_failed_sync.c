/*
 * Goal: what is called durable names no file whose own name may be lost.
 * Method: a large value makes a file, whose name waits for a sync of the directory. Then segments of the log are made until a sync of
 * the directory fails, once. A durable write after that either fails or is there when the power has gone, and the large value with it.
 * The bug: the segment was given up and made again, and the next sync of the directory was believed for both files.
 */
#include <errno.h>

#include "large_value.h"

static void look(struct simdisk *disk)
{
    struct quire *db;
    struct quire_tree *tree;
    if (!CHECK_EQUAL(open_on(disk, &db, &tree), 0)) return;
    CHECK_EQUAL(read_large(tree, "large"), 0);
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
