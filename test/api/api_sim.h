/*
 * Shorthand for the tests of databases on a simulated disk: open them there, look at their files, crash.
 *
 * Test programs (api). The store is the directory "store" of the disk; nothing happens that the test does not do: no
 * threads, no sync by itself.
 */
#ifndef TEST_API_API_SIM_H
#define TEST_API_API_SIM_H

#include "api_inside.h"

#include "base/hash.h"
#include "lib/resting.h"
#include "lib/simdisk.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#define STORE "store"

HELPER struct quire_options sim_options(uint32_t level)
{
    struct quire_options options = resting_options(level);
    options.log_segment_bytes = 65536;
    return options;
}

HELPER struct quire *open_on(struct simdisk *disk, struct quire_options options)
{
    struct quire *db = NULL;
    struct quire_error_detail detail;
    int result = qr_db_open(STORE, simdisk_disk(disk), &options, &db);
    quire_error_detail(&detail);
    cr_assert(result == 0, "open: %s (%s)", quire_strerror(result), detail.message);
    return db;
}

/* ---- The files -------------------------------------------------------------------------------------------------- */

enum { MOST_NAMES = 256 };
struct sim_list {
    uint32_t count;
    char names[MOST_NAMES][24];
};

HELPER int note_name(void *context, const char *name)
{
    struct sim_list *list = context;
    cr_assert_lt(list->count, (uint32_t)MOST_NAMES);
    snprintf(list->names[list->count++], sizeof(list->names[0]), "%s", name);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The names of the store, in order. */
HELPER struct sim_list list_files(struct simdisk *disk)
{
    struct sim_list list = {0};
    struct qr_disk *table = simdisk_disk(disk);
    struct qr_dir *dir;
    cr_assert_eq(table->ops->dir_open(table, STORE, QR_DIR_READ_ONLY, &dir), 0);
    cr_assert_eq(table->ops->dir_list(dir, note_name, &list), 0);
    table->ops->dir_close(dir);
    qsort(list.names, list.count, sizeof(list.names[0]), compare_names);
    return list;
}

/* A number that changes with any name or byte, but for those of the lock's file, where the process id is. */
HELPER uint64_t sim_digest(struct simdisk *disk)
{
    struct sim_list list = list_files(disk);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < list.count; i++) {
        uint64_t size = 0;
        const uint8_t *content = simdisk_content(disk, STORE, list.names[i], &size);
        sum = sum * 31 + qr_hash(list.names[i], strlen(list.names[i]));
        if (strcmp(list.names[i], "lock") != 0) sum = sum * 31 + size + qr_hash(content, size);
    }
    return sum;
}

#endif
