/*
 * Goal: a log that lacks a segment in the midst is damaged, and says so.
 * Method: a store on the simulated disk whose log has several segments, of a dead process and after power loss; each segment but the
 * last is removed, or emptied, in turn.
 * The bug: the missing segment was taken for the end of the log, and acknowledged writes behind it were gone without a word.
 */
#include <stdio.h>
#include <string.h>

#include "log_store.h"

#define WRITES 400u

/* The failure names the place between the neighbours of the segment that is missing. */
static void check_detail(unsigned segment)
{
    struct quire_error_detail detail;
    char place[64];
    quire_error_detail(&detail);
    if (segment == 0)
        snprintf(place, sizeof(place), "in front of log-%08x (", segment + 1);
    else
        snprintf(place, sizeof(place), "between log-%08x and log-%08x (", segment - 1, segment + 1);
    CHECK(strncmp(detail.message, place, strlen(place)) == 0, "\"%s\" does not begin with \"%s\"", detail.message, place);
}

/* segment: which to remove; false: there is none. */
static bool without(struct simdisk *made, enum simdisk_mode mode, unsigned segment, bool emptied)
{
    char name[32], next[32];
    uint64_t size;
    struct quire *db;
    struct simdisk *disk = simdisk_crash(made, &(struct simdisk_crash){.mode = mode});
    snprintf(name, sizeof(name), "log-%08x", segment);
    snprintf(next, sizeof(next), "log-%08x", segment + 1);
    bool there = simdisk_content(disk, STORE, next, &size) != NULL; /* the last one may be the end */
    if (there) {
        remove_file(disk, name, emptied);
        int result = open_on(disk, &db);
        CHECK(result == QUIRE_ERR_CORRUPT, "mode %u, without %s: %s", mode, name, quire_strerror(result));
        if (result == 0) quire_close(db);
        check_detail(segment);
    }
    simdisk_free(disk);
    return there;
}

int main(void)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db;
    struct quire_tree *tree;
    char value[200];
    unsigned count = 0;
    memset(value, 'v', sizeof(value));
    CHECK_EQUAL(open_on(disk, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, "t", NULL, &tree), 0);
    for (uint32_t i = 0; i < WRITES; i++) CHECK_EQUAL(quire_put(tree, &i, sizeof(i), value, sizeof(value), 0, NULL), 0);
    CHECK_EQUAL(quire_sync(db), 0);
    while (without(disk, SIMDISK_DEATH, count, false) && without(disk, SIMDISK_DEATH, count, true) &&
           without(disk, SIMDISK_DROP, count, false))
        count++;
    CHECK(count >= 3, "%u segments", count);
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    return check_finish();
}
