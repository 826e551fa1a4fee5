/*
 * Goal: on a full disk new data are refused before anything has changed, reads, deletions and checkpoints go on, and with what
 * they bring writes go on by themselves: without more space from outside, without opening the store again.
 * Method: a simulated disk that has no more space from some moment on; a file system in memory and an image of ext4, where they can be
 * mounted.
 */
#include "api_space.h"

#include "db/db.h"
#include "db/testing.h"
#include "lib/resting.h"
#include "lib/simdisk.h"

TestSuite(full_disk, .init = make_root, .fini = clean_up, .timeout = 250);

#define VALUE_BYTES 4000u
#define KEPT 300u
static char value[VALUE_BYTES];

static struct quire_options options_small(void)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    options.log_segment_bytes = 65536;
    options.log_cap_bytes = 256u << 10;
    return options;
}

/* Writes until the store has its reserves: from 8 segments of pages on. Answers how many keys there are. */
static uint64_t fill_up(struct quire *db, struct quire_tree *tree)
{
    struct qr_store_stats stats = {0};
    uint64_t keys = 0;
    char key[16];
    do {
        for (int i = 0; i < 500; i++, keys++) OK(quire_put(tree, key, numbered(keys, key), value, VALUE_BYTES, 0, NULL));
        OK(quire_checkpoint(db));
        quire_maintain(db); /* gives the log its reserve */
        qr_store_stats(db->checkpointer.store, &stats);
    } while (stats.segments < QR_STORE_RESERVE_FROM || stats.reserve_segments < 2 || db->log.files->reserve == NULL);
    return keys;
}

/* The whole life of a full store; there is no space beyond what it has by now. */
static void live_through(struct quire *db, struct quire_tree *tree, uint64_t keys)
{
    char key[16];
    uint64_t made = keys;
    uint64_t refused = 0;
    int result;
    while ((result = quire_put(tree, key, numbered(made, key), value, VALUE_BYTES, 0, NULL)) == 0)
        if (++made % 32 == 0) quire_maintain(db); /* a checkpoint is made when the log is at its cap */
    cr_assert_eq(result, QUIRE_ERR_NO_SPACE);
    EXPECT(quire_exists(tree, NULL, key, numbered(made, key)), QUIRE_NOT_FOUND);
    cr_assert_eq(count_all(tree, NULL), made);

    /* Deletions have the reserve, and when it is used up a checkpoint makes room for more. */
    for (uint64_t i = 0; i < made; i++) {
        result = quire_delete(tree, key, numbered(i, key), 0, NULL, NULL);
        if (i == 0) {
            cr_assert_eq(result, 0);
            EXPECT(quire_put(tree, "new", 3, value, VALUE_BYTES, 0, NULL), QUIRE_ERR_NO_SPACE); /* it is not for these */
        }
        if (result == QUIRE_ERR_NO_SPACE) {
            refused++;
            OK(quire_checkpoint(db));
            result = quire_delete(tree, key, numbered(i, key), 0, NULL, NULL);
        }
        cr_assert_eq(result, 0, "deletion %llu of %llu: %d", (unsigned long long)i, (unsigned long long)made, result);
        if (i % 1000 == 999) quire_maintain(db);
    }
    cr_assert(refused < made / 100);
    settle(db);
    OK(quire_checkpoint(db));
    for (uint64_t i = 0; i < KEPT; i++) put_soon(db, tree, i, value, VALUE_BYTES);
}

/* What is there at the end, after another opening. */
static void look(struct quire *db)
{
    char message[256] = "";
    struct quire_tree *tree = open_tree(db, "t");
    cr_assert_eq(count_all(tree, NULL), KEPT);
    cr_assert_eq(qr_testing_check(tree, message, sizeof(message)), 0, "%s", message);
    OK(quire_close(db));
}

/* F31 */
Test(full_disk, takes_deletions_and_checkpoints_and_then_writes)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_small();
    struct quire *db = NULL;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    uint64_t keys = fill_up(db, tree);
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
    live_through(db, tree, keys);
    OK(quire_close(db));
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    look(db);
    simdisk_free(disk);
}

/* The same without a log: a checkpoint finds no space, and says so; deletions make some. */
Test(full_disk, without_a_log_too)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_small();
    struct quire *db = NULL;
    char key[16];
    uint64_t made = 0;
    int result = 0;
    options.level = 0;
    options.disable_log = 1;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    simdisk_facts(disk)->space_bytes = 24u << 20;
    while ((result = quire_put(tree, key, numbered(made, key), value, VALUE_BYTES, 0, NULL)) == 0)
        if (++made % 200 == 0) quire_checkpoint(db); /* one that has to use the reserve ends the writing */
    cr_assert_eq(result, QUIRE_ERR_NO_SPACE);
    cr_assert(made > 2000);
    EXPECT(quire_put(tree, "new", 3, value, VALUE_BYTES, 0, NULL), QUIRE_ERR_NO_SPACE);
    for (uint64_t i = 0; i < made; i++) OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    settle(db);
    OK(quire_checkpoint(db));
    for (uint64_t i = 0; i < KEPT; i++) OK(quire_put(tree, key, numbered(i, key), value, VALUE_BYTES, 0, NULL));
    OK(quire_close(db));
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    look(db);
    simdisk_free(disk);
}

/* Large values have files of their own: they are refused when there is no space for them, and come back with what dies. */
static void fill_with_large_values(bool off)
{
    static char large[40000];
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_small();
    struct quire *db = NULL;
    char key[16];
    uint64_t made = 0;
    int result = 0;
    options.level = off ? 0 : QUIRE_LEVEL_PROCESS;
    options.disable_log = off;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    simdisk_facts(disk)->space_bytes = 48u << 20;
    while ((result = quire_put(tree, key, numbered(made, key), large, sizeof(large), 0, NULL)) == 0)
        if (++made % 100 == 0) (void)quire_checkpoint(db);
    cr_assert_eq(result, QUIRE_ERR_NO_SPACE);
    cr_assert_gt(made, 400);
    EXPECT(quire_exists(tree, NULL, key, numbered(made, key)), QUIRE_NOT_FOUND);
    for (uint64_t k = 0; k < made; k++) OK(quire_delete(tree, key, numbered(k, key), 0, NULL, NULL));
    settle(db);
    OK(quire_checkpoint(db));
    for (uint64_t k = 0; k < KEPT; k++) put_soon(db, tree, k, large, sizeof(large));
    OK(quire_verify(db, NULL, NULL));
    OK(quire_close(db));
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    look(db);
    simdisk_free(disk);
}

Test(full_disk, of_large_values)
{
    fill_with_large_values(false);
}

Test(full_disk, of_large_values_without_a_log)
{
    fill_with_large_values(true);
}

/* Where there is no space for the log's reserve either, new data are refused before the last room in the log is used up. */
Test(full_disk, without_a_reserve_what_room_there_is_is_for_deletions)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_small();
    struct quire *db = NULL;
    char key[16];
    int result = 0;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    fill_up(db, open_tree(db, "t"));
    OK(quire_close(db));
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk); /* somebody else has taken the rest */
    quire_maintain(db);
    cr_assert_null(db->log.files->reserve);
    for (uint64_t i = 0; i < 1000 && result == 0; i++) {
        result = quire_put(tree, "new", 3, value, VALUE_BYTES, 0, NULL);
        quire_maintain(db);
    }
    cr_assert_eq(result, QUIRE_ERR_NO_SPACE);
    for (uint64_t i = 0; i < 100; i++) OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    simdisk_facts(disk)->space_bytes = UINT64_MAX;
    for (int tries = 0; tries < 1000 && result == QUIRE_ERR_NO_SPACE; tries++) {
        usleep(1000);
        result = quire_put(tree, "new", 3, value, VALUE_BYTES, 0, NULL);
    }
    OK(result);
    OK(quire_close(db));
    simdisk_free(disk);
}

/* A manifest that is full is written anew. A checkpoint that finds no space for that has failed, and no more: the next one can do. */
static void fill_the_manifest(bool off)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_small();
    struct quire *db = NULL;
    uint64_t keys = 0;
    int result = 0;
    char key[16];
    options.level = off ? 0 : QUIRE_LEVEL_PROCESS;
    options.disable_log = off;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    const struct qr_manifest_header *header = qr_manifest_header(db->files->manifest);
    while (qr_manifest_used_bytes(db->files->manifest) + 1000 < header->size_bytes) {
        OK(quire_put(tree, key, numbered(keys++, key), "v", 1, 0, NULL));
        OK(quire_checkpoint(db));
    }
    (void)qr_db_give_up_spares(db, 0); /* a checkpoint would take their space */
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
    for (int i = 0; i < 10 && result == 0; i++) {
        OK(quire_put(tree, key, numbered(keys++, key), "v", 1, 0, NULL));
        result = quire_checkpoint(db);
    }
    cr_assert_eq(result, QUIRE_ERR_NO_SPACE);
    EXPECT(quire_checkpoint(db), QUIRE_ERR_NO_SPACE);
    OK(quire_delete(tree, key, numbered(0, key), 0, NULL, NULL));
    simdisk_facts(disk)->space_bytes = UINT64_MAX;
    OK(quire_checkpoint(db));
    OK(quire_put(tree, key, numbered(0, key), "v", 1, 0, NULL));
    OK(quire_verify(db, NULL, NULL));
    OK(quire_close(db));
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), keys);
    OK(quire_close(db));
    simdisk_free(disk);
}

Test(full_disk, a_full_manifest)
{
    fill_the_manifest(false);
}

Test(full_disk, a_full_manifest_without_a_log)
{
    fill_the_manifest(true);
}

#define LARGE_BYTES 5000u
static char large_value[LARGE_BYTES];

/* ---- Before the first checkpoint -------------------------------------------------------------------------------- */

static char own_file_value[1500000];

/* Values that go to files of their own, and nobody asks for a checkpoint, until there is no space; answers how many. */
static uint64_t fill_without_checkpoint(struct quire *db, struct quire_tree *tree, size_t size)
{
    char key[16];
    uint64_t made = 0;
    int result;
    while ((result = quire_put(tree, key, numbered(made, key), own_file_value, size, 0, NULL)) == 0)
        if (++made % 32 == 0) quire_maintain(db);
    cr_assert_eq(result, QUIRE_ERR_NO_SPACE);
    cr_assert_eq(count_all(tree, NULL), made);
    return made;
}

/* All of it dies; then there is space again without another opening. */
static void empty_and_write(struct quire *db, struct quire_tree *tree, uint64_t made)
{
    char key[16];
    for (uint64_t i = 0; i < made; i++) OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    settle(db);
    OK(quire_checkpoint(db));
    OK(quire_checkpoint(db));
    for (uint64_t i = 0; i < KEPT; i++) put_soon(db, tree, i, own_file_value, 5000);
}

static void fill_first(uint64_t space, size_t size, bool off)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_small();
    struct quire *db = NULL;
    options.log_cap_bytes = 0;
    options.level = off ? 0 : QUIRE_LEVEL_PROCESS;
    options.disable_log = off;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    simdisk_facts(disk)->space_bytes = space;
    empty_and_write(db, tree, fill_without_checkpoint(db, tree, size));
    OK(quire_verify(db, NULL, NULL));
    OK(quire_close(db));
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    look(db);
    simdisk_free(disk);
}

/* Large values take a disk before anything has asked for a checkpoint. */
Test(full_disk, of_large_values_before_the_first_checkpoint)
{
    static const size_t sizes[] = {5000, 70000, sizeof(own_file_value)};
    for (uint64_t space = 6u << 20; space <= 40u << 20; space += 1234567) {
        fill_first(space, sizes[space % 3], false);
        fill_first(space, sizes[space % 3], true);
    }
}

/* Log and page store have files that they keep only to use them again, and no more space than that. */
static struct quire *open_with_spares(struct simdisk *disk, struct quire_tree **ret_tree)
{
    struct quire_options options = options_small();
    struct qr_store_stats stats;
    struct quire *db = NULL;
    char key[16];
    options.log_cap_bytes = 16u << 20;
    options.log_segment_bytes = 256u << 10;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    *ret_tree = open_tree(db, "t");
    for (uint64_t i = 0; i < 10; i++) OK(quire_put(*ret_tree, key, numbered(i, key), own_file_value, 100000, 0, NULL));
    for (uint64_t i = 0; i < 10; i++) OK(quire_delete(*ret_tree, key, numbered(i, key), 0, NULL, NULL));
    settle(db);
    OK(quire_checkpoint(db));
    for (uint64_t i = 0; i < 1000; i++) OK(quire_put(*ret_tree, "again", 5, value, VALUE_BYTES, 0, NULL));
    settle(db);
    OK(quire_checkpoint(db));
    qr_store_stats(db->checkpointer.store, &stats);
    cr_assert(!stats.keeps_reserve);
    cr_assert_gt(stats.reserve_segments, 0);
    cr_assert_gt(db->log.files->spare_bytes, 1u << 20);
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
    return db;
}

/* Writes until there is no space; then nobody keeps any. */
static void use_up(struct quire *db, struct quire_tree *tree, size_t size, uint64_t least)
{
    struct qr_store_stats stats;
    char key[16];
    uint64_t made = 0;
    int result;
    while ((result = quire_put(tree, key, numbered(made, key), own_file_value, size, 0, NULL)) == 0) made++;
    cr_assert_eq(result, QUIRE_ERR_NO_SPACE);
    cr_assert_geq(made, least, "%llu", (unsigned long long)made);
    qr_store_stats(db->checkpointer.store, &stats);
    cr_assert_leq(stats.reserve_segments, stats.keeps_reserve ? 2 : 0);
    cr_assert_eq(db->log.files->spare_bytes, 0);
    OK(quire_close(db));
}

Test(full_disk, what_is_kept_to_be_used_again_goes_before_a_refusal)
{
    struct quire_tree *tree;
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_with_spares(disk, &tree);
    use_up(db, tree, 100000, 10); /* 1 MiB of the log's */
    simdisk_free(disk);
    disk = simdisk_create();
    db = open_with_spares(disk, &tree);
    use_up(db, tree, 3000, 300); /* and what the page store had */
    simdisk_free(disk);
}

/* ---- An opening ------------------------------------------------------------------------------------------------- */

#define BEFORE 1000u

/* A store whose only checkpoint has failed for want of space and left its page files behind, with large values that the log alone names. */
static void leave_behind(struct quire *db, struct simdisk *disk)
{
    struct quire_tree *tree = open_tree(db, "t");
    char key[16];
    for (uint64_t i = 0; i < BEFORE; i++) OK(quire_put(tree, key, numbered(i, key), value, VALUE_BYTES, 0, NULL));
    for (uint64_t i = BEFORE; i < BEFORE + 3; i++) OK(quire_put(tree, key, numbered(i, key), large_value, LARGE_BYTES, 0, NULL));
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk) + (2u << 20);
    EXPECT(quire_checkpoint(db), QUIRE_ERR_NO_SPACE);
}

static void find_all(struct quire *db)
{
    struct quire_tree *tree = open_tree(db, "t");
    char key[16];
    char got[LARGE_BYTES];
    for (uint64_t i = 0; i < BEFORE + 3; i++) {
        size_t size = 0;
        OK(quire_get(tree, NULL, key, numbered(i, key), got, sizeof(got), &size));
        cr_assert_eq(size, i < BEFORE ? VALUE_BYTES : LARGE_BYTES);
    }
}

/* F18. What fills the disk is what the opening removes: it takes no space before. */
static void open_when_full(bool dies)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = options_small();
    struct quire *db = NULL;
    options.log_cap_bytes = 0;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    leave_behind(db, disk);
    struct simdisk *after = dies ? simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH}) : disk;
    OK(quire_close(db));
    for (int i = 0; i < 20; i++) { /* and it is no matter of how often: each opening gives back what it takes */
        uint64_t used = simdisk_used_bytes(after);
        simdisk_facts(after)->space_bytes = used;
        OK(qr_db_open("store", simdisk_disk(after), &options, &db));
        if (i == 0) cr_assert_lt(simdisk_used_bytes(after) + (1u << 19), used);
        find_all(db);
        OK(quire_close(db));
    }
    if (dies) simdisk_free(after);
    simdisk_free(disk);
}

Test(full_disk, an_opening_removes_what_nothing_needs_before_it_takes_space)
{
    open_when_full(false);
    open_when_full(true);
}

/* ---- File systems of the machine -------------------------------------------------------------------------------- */

/* F31, on a file system of the machine. */
static void live_on(const char *mount)
{
    if (!mount_one(mount)) return;
    struct quire_options options = options_small();
    struct quire *db = NULL;
    OK(quire_open(path_of("m/s"), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    uint64_t keys = fill_up(db, tree);
    live_through(db, tree, keys);
    OK(quire_close(db));
    OK(quire_open(path_of("m/s"), &options, &db));
    look(db);
}

Test(full_disk, of_a_file_system_in_memory)
{
    live_on("mkdir %1$s/m && mount -t tmpfs -o size=64m quire-test %1$s/m 2>/dev/null");
}

/* Space that was written to is allocated late there, and the journal has a part of it. */
Test(full_disk, of_ext4)
{
    live_on("cd %1$s && mkdir m && truncate -s 80M image && { mkfs.ext4 -q -F image && mount -o loop image m; } 2>/dev/null");
}

/* With the defaults, threads and all, on one that is small. */
Test(full_disk, of_a_small_file_system_in_memory)
{
    struct quire_options options;
    if (!mount_one("mkdir %1$s/m && mount -t tmpfs -o size=16m quire-test %1$s/m 2>/dev/null")) return;
    struct quire *db = NULL;
    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    OK(quire_open(path_of("m/s"), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    empty_and_write(db, tree, fill_without_checkpoint(db, tree, 5000));
    OK(quire_close(db));
    OK(quire_open(path_of("m/s"), &options, &db));
    look(db);
}
