/*
 * Goal: what a level or a call promises is there after power was lost.
 * Method: a simulated disk, of which nothing survives that was not synced; after each step of a script a copy of it loses power
 * and is opened again. (test/crash has the long forms.)
 */
#include "api_dir.h"

#include "db/db.h"
#include "lib/simdisk.h"

#include <errno.h>
#include <pthread.h>

TestSuite(durability, .init = make_root, .fini = remove_root, .timeout = 60);

static struct quire_options options_with(uint32_t level)
{
    struct quire_options options = options_of(0, level);
    options.background_threads = QUIRE_NO_THREADS;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    return options;
}

static struct quire *open_on(struct simdisk *disk, struct quire_options options)
{
    struct quire *db = NULL;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    return db;
}

/* Whether the key of tree t is there if power is lost now, and everything unsynced with it. */
static bool survives(struct simdisk *disk, const char *key)
{
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    struct quire *db = open_on(after, options_with(0));
    int result = quire_exists(open_tree(db, "t"), NULL, key, strlen(key));
    cr_assert(result == 0 || result == QUIRE_NOT_FOUND, "%d", result);
    OK(quire_close(db));
    simdisk_free(after);
    return result == 0;
}

/* A01: the creation is durable when quire_open returns */
Test(durability, of_a_new_store)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, options_with(0));
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    struct quire_options existing = options_with(0);
    existing.open_mode = QUIRE_OPEN_EXISTING;
    struct quire *again = open_on(after, existing);
    put(open_tree(again, "t"), "k", "v");
    OK(quire_close(again));
    simdisk_free(after);
    OK(quire_close(db));
    simdisk_free(disk);
}

/* E30, E31, F10, M23: the database's level, and that of the call */
Test(durability, of_writes_is_that_of_their_level)
{
    for (uint32_t level = QUIRE_LEVEL_DURABLE; level <= QUIRE_LEVEL_PROCESS; level++) {
        struct simdisk *disk = simdisk_create();
        struct quire *db = open_on(disk, options_with(level));
        struct quire_tree *tree = open_tree(db, "t");
        bool durable = level == QUIRE_LEVEL_DURABLE;
        put(tree, "a", "1");
        cr_assert_eq(survives(disk, "a"), durable);
        OK(quire_put(tree, TEXT("b"), TEXT("1"), QUIRE_WRITE_PROCESS, NULL));
        cr_assert_eq(survives(disk, "b"), false);
        OK(quire_insert(tree, TEXT("c"), TEXT("1"), QUIRE_WRITE_DURABLE, NULL));
        cr_assert(survives(disk, "a") && survives(disk, "b") && survives(disk, "c"), "one prefix");
        for (int i = 0; i < 20; i++) {
            OK(quire_add(tree, TEXT("d"), 1, QUIRE_WRITE_DURABLE, NULL, NULL));
            cr_assert(survives(disk, "d"));
            OK(quire_delete(tree, TEXT("d"), QUIRE_WRITE_DURABLE, NULL, NULL));
            cr_assert(!survives(disk, "d"));
        }
        OK(quire_close(db));
        simdisk_free(disk);
    }
}

/* F01, M23: what has returned before quire_sync survives; so does what quire_wait_durable waited for */
Test(durability, is_made_by_sync_and_by_waiting)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, options_with(QUIRE_LEVEL_PROCESS));
    struct quire_tree *tree = open_tree(db, "t");
    uint64_t lsn = 0;
    put(tree, "a", "1");
    cr_assert(!survives(disk, "a"));
    OK(quire_sync(db));
    cr_assert(survives(disk, "a"));
    OK(quire_put(tree, TEXT("b"), TEXT("1"), 0, &lsn));
    OK(quire_wait_durable(db, lsn));
    cr_assert(survives(disk, "b"));
    OK(quire_close(db));
    simdisk_free(disk);
}

/* A08, A09: close syncs, or with no_sync_at_close does not; what was synced before is there in any case */
Test(durability, of_close_is_an_option)
{
    for (uint32_t no_sync = 0; no_sync < 2; no_sync++) {
        struct simdisk *disk = simdisk_create();
        struct quire_options options = options_with(QUIRE_LEVEL_PROCESS);
        options.no_sync_at_close = no_sync;
        struct quire *db = open_on(disk, options);
        struct quire_tree *tree = open_tree(db, "t");
        put(tree, "a", "1");
        OK(quire_sync(db));
        put(tree, "b", "1");
        OK(quire_close(db));
        cr_assert(survives(disk, "a"));
        cr_assert_eq(survives(disk, "b"), no_sync == 0);
        db = open_on(disk, options); /* without power loss everything is there */
        expect(open_tree(db, "t"), NULL, "b", "1");
        OK(quire_close(db));
        simdisk_free(disk);
    }
}

enum { COMMITTERS = 8, COMMITS = 50 };

static void *commit(void *tree)
{
    for (uint64_t i = 0; i < COMMITS; i++) {
        uint64_t key[2] = {(uint64_t)(uintptr_t)pthread_self(), i};
        OK(quire_put(tree, key, sizeof(key), "v", 1, QUIRE_WRITE_DURABLE, NULL));
    }
    return NULL;
}

/* F13: committers share syncs */
Test(durability, of_several_committers_takes_fewer_syncs_than_commits)
{
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    struct quire_tree *tree = open_tree(db, "t");
    pthread_t threads[COMMITTERS];
    uint64_t before = stats_of(db).log_syncs;
    for (int i = 0; i < COMMITTERS; i++) cr_assert_eq(pthread_create(&threads[i], NULL, commit, tree), 0);
    for (int i = 0; i < COMMITTERS; i++) pthread_join(threads[i], NULL);
    uint64_t syncs = stats_of(db).log_syncs - before;
    cr_assert(syncs < COMMITTERS * COMMITS * 3 / 4, "%" PRIu64 " syncs of %d commits", syncs, COMMITTERS * COMMITS);
    cr_assert_eq(count_all(tree, NULL), COMMITTERS * COMMITS);
    OK(quire_close(db));
}

/* F06, in short form: each opening reads the whole log, as there is no checkpoint yet */
Test(durability, of_a_hundred_openings)
{
    struct simdisk *disk = simdisk_create();
    for (uint64_t i = 0; i < 100; i++) {
        struct quire *db = open_on(disk, options_with(QUIRE_LEVEL_PROCESS));
        struct quire_tree *tree = open_tree(db, "t");
        int64_t value = 0;
        OK(quire_add(tree, TEXT("counter"), 1, 0, &value, NULL));
        cr_assert_eq(value, (int64_t)i + 1);
        OK(quire_close(db));
        if (i % 10 != 9) continue;
        struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
        simdisk_free(disk);
        disk = after;
    }
    simdisk_free(disk);
}
