/*
 * Goal: what large values took on disk comes back, what they have not got is told, and damage is of one value alone.
 * Method: checkpoints between the steps of a write, full and failing disks, bytes of files flipped; statistics and sizes of files
 * looked at.
 */
#include "api_blob.h"

#include "base/stop.h"
#include "db/db.h"
#include "lib/simdisk.h"

#include <errno.h>
#include <pthread.h>

TestSuite(blob_space, .init = make_root, .fini = remove_root, .timeout = 200);

/* ---- Space ------------------------------------------------------------------------------------------------------ */

/* F31: segments of which all is dead are used again, before and after reopening */
Test(blob_space, space_comes_back)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    uint64_t most = 0;
    for (uint64_t round = 0; round < 30; round++) {
        for (uint64_t i = 0; i < 100; i++) put_value(tree, i, round, 20000 + round);
        settle(db);
        OK(quire_checkpoint(db));
        struct quire_stats stats = stats_of(db);
        if (stats.blob_segment_bytes > most) most = stats.blob_segment_bytes;
        cr_assert_leq(stats.blob_live_bytes, 100 * 20224u, "round %" PRIu64, round);
        if (round % 5 == 4) {
            OK(quire_close(db));
            db = open_blobs("s");
            tree = open_tree(db, NULL);
            struct quire_stats again = stats_of(db);
            cr_assert_eq(again.blob_live_bytes, stats.blob_live_bytes, "%" PRIu64 " live, and after reopening %" PRIu64,
                         stats.blob_live_bytes, again.blob_live_bytes);
            cr_assert_eq(again.blob_dead_bytes, stats.blob_dead_bytes);
        }
    }
    cr_assert_leq(most, 16 * MIB, "%" PRIu64 " bytes for 2 MB of values", most);
    for (uint64_t i = 0; i < 100; i++) expect_value(tree, i, 29, 20029);
    for (uint64_t i = 0; i < 100; i++) {
        char key[32];
        OK(quire_delete(tree, key, key_of(i, key), 0, NULL, NULL));
    }
    settle(db);
    OK(quire_checkpoint(db));
    put_value(tree, 1, 1, 10); /* replay_from is to be above the last death */
    OK(quire_checkpoint(db));
    struct quire_stats stats = stats_of(db);
    cr_assert_eq(stats.blob_live_bytes, 0);
    cr_assert_leq(stats.blob_segments, 1);
    OK(quire_close(db));
    db = open_blobs("s");
    cr_assert_eq(stats_of(db).blob_live_bytes, 0);
    OK(quire_close(db));
}

/* F31: what died before and after a checkpoint, with the log of it replayed or not, is counted once */
Test(blob_space, the_dead_are_counted_once)
{
    for (int way = 0; way < 8; way++) {
        char name[16];
        sprintf(name, "s%d", way);
        struct quire *db = open_blobs(name);
        struct quire_tree *tree = open_tree(db, NULL);
        for (uint64_t i = 0; i < 60; i++) put_value(tree, i, 1, 10000);
        if (way & 1) OK(quire_checkpoint(db));
        for (uint64_t i = 0; i < 30; i++) put_value(tree, i, 2, 10000);
        if (way & 2) settle(db);
        if (way & 4) OK(quire_checkpoint(db));
        for (int again = 0; again < 3; again++) {
            OK(quire_close(db));
            db = open_blobs(name);
            tree = open_tree(db, NULL);
        }
        settle(db);
        struct quire_stats stats = stats_of(db);
        for (uint64_t i = 0; i < 60; i++) expect_value(tree, i, i < 30 ? 2 : 1, 10000);
        cr_assert_eq(stats.blob_live_bytes, 60 * 10176u, "way %d: %" PRIu64 " live", way, stats.blob_live_bytes);
        OK(quire_close(db));
    }
}

/* F31: refused before anything has changed, and what was written of it is nobody's */
Test(blob_space, a_full_disk_refuses_large_values_and_passes)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    uint64_t written = 0;
    int result = 0;
    options.background_threads = QUIRE_NO_THREADS;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *tree = open_tree(db, NULL);
    put_value(tree, 0, 0, 10000);
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
    while (result == 0 && ++written < 10000) {
        char key[32];
        uint8_t *value = make_value(written, 10000);
        result = quire_put(tree, key, key_of(written, key), value, 10000, 0, NULL);
        free(value);
    }
    EXPECT(result, QUIRE_ERR_NO_SPACE);
    EXPECT(quire_put(tree, TEXT("k"), root, 0, 0, NULL), 0); /* the log still has room */
    cr_assert_gt(written, 1);
    cr_assert_gt(stats_of(db).errors_no_space, 0);
    for (uint64_t i = 0; i < written; i++) expect_value(tree, i, i, 10000);
    simdisk_facts(disk)->space_bytes = UINT64_MAX;
    put_value(tree, written, written, 10000);
    OK(quire_close(db));
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    tree = open_tree(db, NULL);
    for (uint64_t i = 0; i <= written; i++) expect_value(tree, i, i, 10000);
    cr_assert_eq(stats_of(db).blob_live_bytes, (written + 1) * 10176);
    OK(quire_close(db));
    simdisk_free(disk);
}

/* F30: a sync of large values that fails is as one of the log */
Test(blob_space, a_failed_sync_poisons)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    uint8_t *value = make_value(1, 10000);
    options.background_threads = QUIRE_NO_THREADS;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *tree = open_tree(db, NULL);
    put_value(tree, 1, 1, 10000);
    OK(quire_sync(db));
    put_value(tree, 2, 2, 10000);
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_SYNC, .nth = 1, .error = EIO}); /* the blobs' */
    EXPECT(quire_sync(db), QUIRE_ERR_UNKNOWN);
    EXPECT(quire_put(tree, TEXT("k"), value, 10000, 0, NULL), QUIRE_ERR_IO);
    expect_value(tree, 1, 1, 10000);
    expect_value(tree, 2, 2, 10000);
    (void)quire_close(db);
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    tree = open_tree(db, NULL);
    expect_value(tree, 1, 1, 10000);
    OK(quire_close(db));
    simdisk_free(disk);
    free(value);
}

/* ---- A checkpoint between the steps of a write ------------------------------------------------------------------- */

static struct quire *saved_db;
static const char *saved_at;

static void *save(void *argument)
{
    OK(quire_checkpoint(argument));
    return NULL;
}

static void save_there(const char *name, void *argument)
{
    pthread_t thread;
    (void)argument;
    if (saved_at == NULL || strcmp(name, saved_at) != 0) return;
    saved_at = NULL;
    cr_assert_eq(pthread_create(&thread, NULL, save, saved_db), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

static void put_beside_a_checkpoint(struct quire *db, struct quire_tree *tree, uint64_t number, const char *at)
{
    saved_db = db;
    saved_at = at;
    qr_stop_set_hook(save_there, NULL);
    put_value(tree, number, 1, 100000);
    qr_stop_set_hook(NULL, NULL);
    cr_assert_null(saved_at, "it did not come to %s", at);
}

/* Values that fill the segment in hand and more; then what can be released is. */
static void go_on(struct quire *db, struct quire_tree *tree, uint64_t first)
{
    for (uint64_t i = first; i < first + 20; i++) put_value(tree, i, 1, 100000);
    for (unsigned i = 0; i < 3; i++) {
        put(tree, "small", "so that there is something to save");
        OK(quire_checkpoint(db));
    }
}

/* R3: a segment that a writer has in hand is empty, or all that was in it is dead, and is not given up for that. */
Test(blob_space, a_segment_that_a_writer_has_just_made_is_kept)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, "t");
    put_beside_a_checkpoint(db, tree, 0, "blob.segment_made");
    go_on(db, tree, 1);
    for (uint64_t i = 0; i < 21; i++) expect_value(tree, i, 1, 100000);
    OK(quire_close(db));
    db = open_blobs("s");
    tree = open_tree(db, "t");
    for (uint64_t i = 0; i < 21; i++) expect_value(tree, i, 1, 100000);
    OK(quire_close(db));
}

Test(blob_space, a_segment_that_a_writer_goes_on_with_is_kept)
{
    char key[32];
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, "t");
    put_value(tree, 0, 1, 5000);
    OK(quire_delete(tree, key, key_of(0, key), 0, NULL, NULL));
    while (quire_maintain(db) == QUIRE_MORE)
        ;
    OK(quire_checkpoint(db));
    OK(quire_close(db));
    db = open_blobs("s");
    tree = open_tree(db, "t");
    put(tree, "small", "so that replay begins behind the death of that value");
    put_beside_a_checkpoint(db, tree, 1, "blob.resumed");
    go_on(db, tree, 2);
    for (uint64_t i = 1; i < 22; i++) expect_value(tree, i, 1, 100000);
    OK(quire_close(db));
}

/* What one very large value took comes back when it is gone, also if no other one comes. */
Test(blob_space, the_space_of_the_last_large_value_comes_back)
{
    for (unsigned again = 0; again < 2; again++) {
        char key[32];
        shell("rm -rf s");
        struct quire *db = open_blobs("s");
        struct quire_tree *tree = open_tree(db, "t");
        put_value(tree, 0, 1, 16 * MIB);
        OK(quire_checkpoint(db));
        cr_assert_gt(stats_of(db).blob_segment_bytes, 16u * MIB);
        OK(quire_delete(tree, key, key_of(0, key), 0, NULL, NULL));
        if (again != 0) {
            OK(quire_close(db));
            db = open_blobs("s");
            tree = open_tree(db, "t");
        }
        while (quire_maintain(db) == QUIRE_MORE)
            ;
        for (unsigned i = 0; i < 4; i++) {
            put(tree, "small", "so that there is something to save");
            OK(quire_checkpoint(db));
        }
        cr_assert_lt(stats_of(db).blob_segment_bytes, 1u * MIB, "again %u", again);
        OK(quire_close(db));
    }
}

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

/* Flips a byte of the first file that has these bytes. */
static bool flip(const char *name, const uint8_t *bytes, size_t size, size_t at)
{
    char command[256], path[256];
    snprintf(command, sizeof(command), "ls %s/page-*", path_of(name));
    FILE *list = popen(command, "r");
    bool found = false;
    while (!found && fgets(path, sizeof(path), list) != NULL) {
        path[strcspn(path, "\n")] = '\0';
        FILE *file = fopen(path, "r+b");
        fseek(file, 0, SEEK_END);
        size_t length = (size_t)ftell(file);
        uint8_t *all = malloc(length);
        rewind(file);
        cr_assert_eq(fread(all, 1, length, file), length);
        uint8_t *place = memmem(all, length, bytes, size);
        if (place != NULL) {
            uint8_t other = place[at] ^ 0x10;
            fseek(file, place - all + (long)at, SEEK_SET);
            fwrite(&other, 1, 1, file);
            found = true;
        }
        free(all);
        fclose(file);
    }
    pclose(list);
    return found;
}

static void expect_damaged(struct quire *db, struct quire_tree *tree, uint64_t damaged, uint64_t count, size_t size)
{
    struct quire_guard guard;
    struct quire_value held;
    struct quire_pages *pages;
    struct quire_page page;
    char key[32];
    void *found;
    size_t found_size;
    uint64_t seen = 0;
    size_t key_size = key_of(damaged, key);
    EXPECT(quire_get_copy(tree, NULL, key, key_size, &found, &found_size), QUIRE_ERR_CORRUPT);
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_guard_get(&guard, tree, NULL, key, key_size, &held), QUIRE_ERR_CORRUPT);
    OK(quire_unpin(&guard));
    OK(quire_exists(tree, NULL, key, key_size));
    for (uint64_t i = 0; i < count; i++)
        if (i != damaged) expect_value(tree, i, i, size);
    OK(quire_pages_open(tree, NULL, &pages));
    int result;
    while ((result = quire_pages_next(pages, &page)) == 0) seen += page.count;
    EXPECT(result, QUIRE_ERR_CORRUPT);
    cr_assert_eq(seen, damaged, "entries before the damaged one");
    EXPECT(quire_pages_next(pages, &page), QUIRE_ERR_CORRUPT);
    OK(quire_pages_close(pages));
}

/* F03 */
Test(blob_space, damage_is_of_one_value_alone)
{
    static const size_t of[] = {5000, 200000};
    for (int kind = 0; kind < 2; kind++) {
        for (int where = 0; where < 3; where++) {
            char name[16];
            sprintf(name, "s%d%d", kind, where);
            struct quire *db = open_blobs(name);
            struct quire_tree *tree = open_tree(db, NULL);
            for (uint64_t i = 0; i < 30; i++) put_value(tree, i, i, of[kind]);
            if (where == 1) OK(quire_checkpoint(db));
            OK(quire_close(db));
            uint8_t *value = make_value(17, of[kind]);
            size_t at = where == 0 ? 0 : where == 1 ? of[kind] / 2 : of[kind] - 1;
            cr_assert(flip(name, value, of[kind], at), "the value is not in a file");
            free(value);
            db = open_blobs(name); /* opening looks at no value that was synced */
            tree = open_tree(db, NULL);
            expect_damaged(db, tree, 17, 30, of[kind]);
            put_value(tree, 17, 17, of[kind]);
            expect_value(tree, 17, 17, of[kind]);
            OK(quire_close(db));
        }
    }
}
