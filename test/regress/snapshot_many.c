/*
 * Goal: with more snapshots open than a collection looks at singly, versions that none of them sees are still collected.
 * Method: open 200 snapshots, each over its own version of a key, overwrite the key many times, count the records left;
 * each snapshot must still see its version. The bug: beyond 64 snapshots nothing was collected, so that the page grew
 * with every write, and every write copied it.
 */
#include "lib/check.h"

#include <quire/quire.h>

#include <string.h>

#define SNAPSHOTS 200u
#define OVERWRITES 5000u

static uint64_t read_at(struct quire_tree *tree, struct quire_snapshot *snapshot)
{
    uint64_t value = UINT64_MAX;
    size_t size = 0;
    CHECK_EQUAL(quire_get(tree, snapshot, "key", 3, &value, sizeof(value), &size), 0);
    return value;
}

static void check_snapshots(struct quire_tree *tree, struct quire_snapshot **snapshots)
{
    for (uint64_t i = 0; i < SNAPSHOTS; i++) {
        if (snapshots[i] == NULL) continue;
        if (i % 10 == 7)
            CHECK_EQUAL(quire_exists(tree, snapshots[i], "key", 3), QUIRE_NOT_FOUND);
        else
            CHECK_EQUAL(read_at(tree, snapshots[i]), i);
    }
}

static void overwrite(struct quire_tree *tree)
{
    for (uint64_t i = 0; i < OVERWRITES; i++)
        CHECK_EQUAL(quire_put(tree, "key", 3, &i, sizeof(i), 0, NULL), 0);
}

static uint64_t records(struct quire *db)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    while (quire_maintain(db) == QUIRE_MORE) {
    }
    CHECK_EQUAL(quire_stats(db, &stats), 0);
    return stats.records_live_estimate;
}

int main(void)
{
    struct quire_snapshot *snapshots[SNAPSHOTS] = {NULL};
    struct quire *db = NULL;
    struct quire_tree *tree = NULL;

    CHECK_EQUAL(quire_open(NULL, NULL, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, NULL, NULL, &tree), 0);
    for (uint64_t i = 0; i < SNAPSHOTS; i++) {
        if (i % 10 == 7)
            CHECK_EQUAL(quire_delete(tree, "key", 3, 0, NULL, NULL), 0);
        else
            CHECK_EQUAL(quire_put(tree, "key", 3, &i, sizeof(i), 0, NULL), 0);
        CHECK_EQUAL(quire_snapshot(db, "regress", &snapshots[i]), 0);
    }
    overwrite(tree);
    uint64_t left = records(db);
    CHECK(left <= SNAPSHOTS + 16, "%llu records", (unsigned long long)left);
    check_snapshots(tree, snapshots);

    for (uint64_t i = 0; i < SNAPSHOTS; i += 2) { /* the places of these are taken again, out of order */
        CHECK_EQUAL(quire_snapshot_release(snapshots[i]), 0);
        snapshots[i] = NULL;
    }
    overwrite(tree);
    check_snapshots(tree, snapshots);
    for (uint64_t i = 0; i < SNAPSHOTS; i++) CHECK_EQUAL(quire_snapshot_release(snapshots[i]), 0);
    left = records(db);
    CHECK(left <= 16, "%llu records without snapshots", (unsigned long long)left);
    CHECK_EQUAL(quire_close(db), 0);
    return check_finish();
}
