/*
 * Goal: quire_last_lsn is not below the LSN of a tree that was made, or of a safe version that was raised, also after the store was
 * closed and opened again.
 * Method: a store on a simulated disk. A tree is made, a version written, the safe version raised: each has a higher last LSN than what
 * was before it. After a close and an opening it is what it was.
 * The bug: writes to the list of trees were not counted as somebody's last write, so neither they nor a checkpoint's record had them.
 */
#include "db/db.h"
#include "lib/check.h"
#include "lib/simdisk.h"

#include <quire/quire.h>

static uint64_t last_lsn(struct quire *db)
{
    uint64_t lsn = 0;
    CHECK_EQUAL(quire_last_lsn(db, &lsn), 0);
    return lsn;
}

static struct quire *open_store(struct simdisk *disk)
{
    struct quire_options options;
    struct quire *db = NULL;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.log_segment_bytes = 65536;
    int result = qr_db_open("store", simdisk_disk(disk), &options, &db);
    CHECK(result == 0, "open: %s", quire_strerror(result));
    return db;
}

int main(void)
{
    struct simdisk *disk = simdisk_create();
    struct quire_tree_options options;
    struct quire_tree *tree = NULL;
    uint64_t written = 0;
    struct quire *db = open_store(disk);
    if (db == NULL) return check_finish();
    quire_tree_options_init(&options);
    options.versions = QUIRE_VERSIONS_CALLER;
    CHECK_EQUAL(quire_tree_open(db, "versions", &options, &tree), 0);
    uint64_t made = last_lsn(db);
    CHECK(made != 0, "a tree was made, and there is no last LSN");
    CHECK_EQUAL(quire_put_at(tree, 5, "key", 3, "value", 5, 0, &written), 0);
    CHECK(written > made, "%llu, then %llu", (unsigned long long)made, (unsigned long long)written);
    CHECK_EQUAL(last_lsn(db), written);
    CHECK_EQUAL(quire_set_safe_lsn(tree, 4), 0);
    uint64_t raised = last_lsn(db);
    CHECK(raised > written, "%llu, then %llu", (unsigned long long)written, (unsigned long long)raised);
    CHECK_EQUAL(quire_checkpoint(db), 0);
    CHECK_EQUAL(quire_close(db), 0);
    db = open_store(disk);
    if (db == NULL) return check_finish();
    CHECK_EQUAL(last_lsn(db), raised);
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    return check_finish();
}
