/*
 * A store on the simulated disk in which one value is large: it lies in a file of its own, small segments of the log beside it. Nothing is
 * synced that is not asked for.
 */
#ifndef TEST_REGRESS_LARGE_VALUE_H
#define TEST_REGRESS_LARGE_VALUE_H

#include <string.h>

#include "db/db.h"
#include "lib/check.h"
#include "lib/resting.h"
#include "lib/simdisk.h"

static char large[5000]; /* the value; filled by main */

static inline int open_on(struct simdisk *disk, struct quire **ret_db, struct quire_tree **ret_tree)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    options.log_segment_bytes = 16384;
    options.no_sync_at_close = 1;
    int result = qr_db_open("store", simdisk_disk(disk), &options, ret_db);
    if (result != 0) return result;
    result = quire_tree_open(*ret_db, "t", NULL, ret_tree);
    CHECK_EQUAL(result, 0);
    return result;
}

/* What a key, a text, answers: 0, and then it has the value, or NOT_FOUND. */
static inline int read_large(struct quire_tree *tree, const char *key)
{
    static char value[sizeof(large)];
    size_t size = 0;
    int result = quire_get(tree, NULL, key, strlen(key), value, sizeof(value), &size);
    CHECK(result == 0 || result == QUIRE_NOT_FOUND, "the value answers %s", quire_strerror(result));
    if (result == 0) CHECK(size == sizeof(large) && memcmp(value, large, size) == 0, "another value");
    return result;
}

#endif
