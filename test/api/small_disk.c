/*
 * Goal: where there is little space a store takes it in small pieces, and makes checkpoints while there is enough for them; so what has
 * filled a small disk can be deleted, and gives its space back. What file systems say of their free space is a hint, and no more.
 * Method: file systems in memory of many sizes, filled by threads with the defaults; a simulated disk for each rule by itself.
 */
#include "api_space.h"

#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>

#include "base/stop.h"
#include "db/db.h"
#include "lib/resting.h"
#include "lib/simdisk.h"
#include "store/internal.h"

TestSuite(small_disk, .init = make_root, .fini = clean_up, .timeout = 250);

static char value[1500000];

/* ---- Whole lives ------------------------------------------------------------------------------------------------ */

struct filler {
    struct quire_tree *tree;
    uint64_t first, count; /* keys */
    size_t least, most;    /* bytes of a value */
    int result;            /* that ended it */
};

static size_t size_at(const struct filler *f, uint64_t k)
{
    return f->least + (k * 7919) % (f->most - f->least + 1);
}

/* Writes until there is no space. */
static void *fill_one(void *argument)
{
    struct filler *f = argument;
    char key[16];
    for (;; f->count++) {
        uint64_t k = f->first + f->count;
        f->result = quire_put(f->tree, key, numbered(k, key), value, size_at(f, k), 0, NULL);
        if (f->result != 0) return NULL;
    }
}

/* A deletion may have to wait, too: for a checkpoint, not for others. */
static void empty(const struct filler *f)
{
    char key[16];
    for (uint64_t k = f->first; k < f->first + f->count; k++) {
        int result = QUIRE_ERR_NO_SPACE;
        for (int tries = 0; tries < 10000 && result == QUIRE_ERR_NO_SPACE; tries++) {
            if (tries != 0) usleep(1000);
            result = quire_delete(f->tree, key, numbered(k, key), 0, NULL, NULL);
        }
        cr_assert_eq(result, 0, "deletion %llu of %llu: %d", (unsigned long long)(k - f->first), (unsigned long long)f->count, result);
    }
}

#define FILLERS 3u

/* F31: filled, emptied, and half as much written again. */
static void live(const char *size, uint32_t fillers, size_t least, size_t most)
{
    char mount[256];
    struct quire_options options;
    struct quire *db = NULL;
    struct filler f[FILLERS];
    pthread_t threads[FILLERS];
    snprintf(mount, sizeof(mount), "mkdir -p %%1$s/m && mount -t tmpfs -o size=%s quire-test %%1$s/m 2>/dev/null", size);
    if (!mount_one(mount)) return;
    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    OK(quire_open(path_of("m/s"), &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    for (uint32_t i = 0; i < fillers; i++) {
        f[i] = (struct filler){.tree = tree, .first = (uint64_t)i << 32, .least = least, .most = most};
        cr_assert_eq(pthread_create(&threads[i], NULL, fill_one, &f[i]), 0);
    }
    for (uint32_t i = 0; i < fillers; i++) {
        pthread_join(threads[i], NULL);
        EXPECT(f[i].result, QUIRE_ERR_NO_SPACE);
    }
    for (uint32_t i = 0; i < fillers; i++) empty(&f[i]);
    settle(db);
    for (uint64_t k = 0; k < f[0].count / 2; k++) put_soon(db, tree, k, value, size_at(&f[0], k));
    OK(quire_close(db));
    OK(quire_open(path_of("m/s"), &options, &db));
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), f[0].count / 2);
    OK(quire_verify(db, NULL, NULL));
    OK(quire_close(db));
    clean_up();
    make_root();
}

/* Smaller ones, of a few segments, may not come back: see doc/durability.md. */
Test(small_disk, of_6_to_12_mib_gives_back)
{
    live("6m", 1, 100, 100);
    live("6m", 1, 10, 10); /* the deletions are as large as what they delete */
    live("8m", 2, 1000, 20000);
    live("8m", 1, 4000, 4090); /* in parts */
    live("9m", 3, 50, 3000);
    live("12m", 3, 100, 100);
}

Test(small_disk, of_24_mib_gives_back)
{
    live("24m", 3, 100, 20000);
    live("24m", 3, 100, 100);
}

/* ---- One rule after another ------------------------------------------------------------------------------------- */

static struct quire *open_on(struct simdisk *disk, const struct quire_options *options)
{
    struct quire *db = NULL;
    OK(qr_db_open("store", simdisk_disk(disk), options, &db));
    return db;
}

static void put_some(struct quire_tree *tree, uint64_t first, uint64_t count, size_t size)
{
    char key[16];
    for (uint64_t k = first; k < first + count; k++) OK(quire_put(tree, key, numbered(k, key), value, size, 0, NULL));
}

static uint64_t checkpoints_of(struct quire *db)
{
    struct qr_checkpoint_counts counts;
    qr_db_checkpoint_counts(db, &counts);
    return counts.count + counts.failures;
}

/* SPACE-2: long before the log is at its cap, if there is little space for what it holds; not if there is enough. */
Test(small_disk, makes_checkpoints_early)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    for (uint64_t space = 10; space <= 1000; space *= 100) {
        struct simdisk *disk = simdisk_create();
        struct quire *db = open_on(disk, &options);
        simdisk_facts(disk)->space_bytes = space << 20;
        put_some(open_tree(db, "t"), 0, 4000, 1000);
        qr_clock_advance_ns(1000000000);
        quire_maintain(db);
        cr_assert_eq(checkpoints_of(db), space == 10);
        OK(quire_close(db));
        simdisk_free(disk);
    }
}

/* SPACE-4: what says nothing of its space (there is no limit) has files as large as any. */
Test(small_disk, is_not_one_that_does_not_say)
{
    struct quire_options options;
    struct quire *db = NULL;
    uint64_t free_bytes;
    if (!mount_one("mkdir -p %1$s/m && mount -t tmpfs -o size=0 quire-test %1$s/m 2>/dev/null")) return;
    quire_options_init(&options);
    OK(quire_open(path_of("m/s"), &options, &db));
    cr_assert_eq(db->files->disk->ops->dir_free_bytes(db->files->dir, &free_bytes), -EOPNOTSUPP);
    cr_assert_eq(db->checkpointer.first_segment_bytes, 256u << 10);
    cr_assert_eq(db->log.files->options.first_segment_bytes, 256u << 10);
    cr_assert(!qr_db_space_is_little(db));
    OK(quire_close(db));
}

/* F18. A full disk keeps a store from nothing but 64 KiB for the log. */
Test(small_disk, is_opened_with_little_space)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, &options);
    put_some(open_tree(db, "t"), 0, 1000, 1000);
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH}); /* with all of its log */
    OK(quire_close(db));
    simdisk_free(disk);
    uint64_t used = simdisk_used_bytes(after);
    simdisk_facts(after)->space_bytes = used + (60u << 10);
    EXPECT(qr_db_open("store", simdisk_disk(after), &options, &db), QUIRE_ERR_NO_SPACE);
    cr_assert_leq(simdisk_used_bytes(after), used);
    simdisk_facts(after)->space_bytes = used + (70u << 10);
    db = open_on(after, &options);
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), 1000);
    put(open_tree(db, "t"), "one", "more");
    OK(quire_close(db));
    simdisk_free(after);
}

/* Writes until there is no space; answers the number of the key that found none. */
static uint64_t fill_from(struct quire *db, struct quire_tree *tree, uint64_t k)
{
    char key[16];
    while (quire_put(tree, key, numbered(k, key), value, 1000, 0, NULL) == 0) {
        if (++k % 64 != 0) continue;
        qr_clock_advance_ns(200000000);
        quire_maintain(db);
    }
    return k;
}

/* A segment of the log that finds no space is made smaller. */
Test(small_disk, has_a_log_of_small_segments)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, &options);
    struct quire_tree *tree = open_tree(db, "t");
    put_some(tree, 0, 7000, 1000); /* the log would double */
    uint64_t space = simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk) + (600u << 10);
    cr_assert_gt(fill_from(db, tree, 7000), 7000);
    cr_assert_gt(simdisk_used_bytes(disk) + (256u << 10), space);
    OK(quire_close(db));
    simdisk_free(disk);
}

/* Sets the limit on the size of files; answers what it was. */
static rlim_t limit_files(rlim_t bytes)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = bytes;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    return before;
}

/* With a limit on the size of files a store goes on in smaller ones; larger values have no space. */
Test(small_disk, is_not_what_a_limit_on_file_sizes_makes)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    rlim_t before = limit_files(900u << 10);
    char key[16];
    uint64_t x = 88172645463325252; /* nothing that could be compressed */
    for (uint32_t i = 0; i < sizeof(value); i++) value[i] = (char)((x = x * 6364136223846793005 + 1442695040888963407) >> 56);
    struct quire *db = open_by("s", &options);
    struct quire_tree *tree = open_tree(db, "t");
    EXPECT(quire_put(tree, "k", 1, value, sizeof(value), 0, NULL), QUIRE_ERR_NO_SPACE);
    for (uint64_t k = 0; k < 20; k++) OK(quire_put(tree, key, numbered(k, key), value, 600000, 0, NULL)); /* above half of it */
    for (uint64_t k = 0; k < 30000; k++) {
        OK(quire_put(tree, key, numbered(k, key), value + k, 1000, 0, NULL));
        if (k % 5000 == 4999) OK(quire_checkpoint(db));
    }
    struct qr_store_stats stats;
    qr_store_stats(db->checkpointer.store, &stats);
    cr_assert_gt(stats.segment_bytes, 20u << 20); /* an eighth of that is above the limit */
    cr_assert(stats.keeps_reserve && !stats.reserve_missing);
    cr_assert_eq(__builtin_popcountll(db->checkpointer.store->options.most_segment_bytes), 1);
    for (uint64_t k = 0; k < 30000; k++) OK(quire_delete(tree, key, numbered(k, key), 0, NULL, NULL));
    settle(db);
    OK(quire_checkpoint(db));
    for (uint64_t k = 0; k < 3000; k++) put_soon(db, tree, k, value, 1000);
    OK(quire_close(db));
    limit_files(before);
    db = open_by("s", &options);
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), 3000);
    OK(quire_verify(db, NULL, NULL));
    OK(quire_close(db));
}

/* The log's first segment too. */
Test(small_disk, is_opened_under_a_limit_on_file_sizes)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    rlim_t before = limit_files(96u << 10);
    struct quire *db = open_by("s", &options);
    put_some(open_tree(db, "t"), 0, 500, 100);
    OK(quire_close(db));
    limit_files(before);
}

/* SPACE-2: who waits, and who does not: while the last checkpoint has failed, while a check keeps them waiting, and who has parts in
 * the log which no checkpoint can save. */
Test(small_disk, is_waited_for_only_if_that_helps)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, &options);
    struct qr_checkpointer *cp = &db->checkpointer;
    struct qr_thread *thread = qr_thread_self(db->epoch);
    simdisk_facts(disk)->space_bytes = 10u << 20;
    put_some(open_tree(db, "t"), 0, 3000, 1000);
    cr_assert(!qr_db_space_is_short(db)); /* nobody would make one */
    cp->thread_runs = true;
    cr_assert(qr_db_space_is_short(db));
    atomic_store(&cp->held, 1);
    cr_assert(!qr_db_space_is_short(db));
    atomic_store(&cp->held, 0);
    atomic_store(&cp->failed_ns, 1);
    cr_assert(!qr_db_space_is_short(db));
    atomic_store(&cp->failed_ns, 0);
    uint32_t called = qr_event_count(&cp->wake);
    uint64_t end_ns = 0;
    qr_log_hold(&db->log, thread);
    qr_db_wait_space(db, thread, &end_ns);
    cr_assert_eq(qr_event_count(&cp->wake), called);
    qr_log_release_hold(thread);
    db->options.stall_timeout_ms = 5;
    end_ns = 0;
    qr_db_wait_space(db, thread, &end_ns);
    cr_assert_gt(qr_event_count(&cp->wake), called);
    cp->thread_runs = false;
    OK(quire_close(db));
    simdisk_free(disk);
}

/* So many seconds, with a look each two. */
static void let_pass(struct quire *db, int seconds)
{
    for (int i = 0; i < seconds; i += 2) {
        qr_clock_advance_ns(2000000000);
        quire_maintain(db);
    }
}

/* While space is missing a checkpoint is made for what it brings, or when there is space again; else seldom, and without filling it. */
Test(small_disk, is_not_filled_by_checkpoints_that_bring_nothing)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, &options);
    struct quire_tree *tree = open_tree(db, "t");
    simdisk_facts(disk)->space_bytes = 12u << 20;
    (void)fill_from(db, tree, 0);
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
    while (quire_checkpoint(db) == 0 && qr_db_checkpoint_refusal(db) == 0) put_some(tree, 0, 1, 1000);
    EXPECT(qr_db_checkpoint_refusal(db), QUIRE_ERR_NO_SPACE);
    let_pass(db, 40); /* each may go on where the one before came to */
    uint64_t checkpoints = checkpoints_of(db);
    uint64_t used = simdisk_used_bytes(disk);
    let_pass(db, 40);
    cr_assert_leq(checkpoints_of(db), checkpoints + 3); /* in 40 s */
    cr_assert_eq(simdisk_used_bytes(disk), used);
    EXPECT(quire_put(tree, "new", 3, value, 1000, 0, NULL), QUIRE_ERR_NO_SPACE);
    simdisk_facts(disk)->space_bytes = UINT64_MAX;
    qr_clock_advance_ns(2000000000);
    quire_maintain(db);
    OK(quire_put(tree, "new", 3, value, 1000, 0, NULL));
    OK(quire_close(db));
    simdisk_free(disk);
}

/* F31. What no statvfs tells of, as a quota: when it is lifted a checkpoint finds out by itself. */
Test(small_disk, is_tried_again_whatever_it_says)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct quire *db = open_by("s", &options);
    struct quire_tree *tree = open_tree(db, "t");
    put_some(tree, 0, 20000, 1000);
    rlim_t before = limit_files(40u << 10);
    EXPECT(quire_checkpoint(db), QUIRE_ERR_NO_SPACE);
    let_pass(db, 40);
    EXPECT(quire_put(tree, "new", 3, value, 1000, 0, NULL), QUIRE_ERR_NO_SPACE);
    limit_files(before);
    let_pass(db, 20);
    OK(quire_put(tree, "new", 3, value, 1000, 0, NULL));
    OK(quire_close(db));
}

static uint64_t failures_of(struct quire *db)
{
    struct qr_checkpoint_counts counts;
    qr_db_checkpoint_counts(db, &counts);
    return counts.failures;
}

/* How many failed while so many seconds went by. */
static uint64_t failures_in(struct quire *db, int seconds)
{
    uint64_t before = failures_of(db);
    let_pass(db, seconds);
    return failures_of(db) - before;
}

/* Each time twice as long after, from 2 to 16 s; after a success as at first. While the disk says that there is space, and gives none. */
Test(small_disk, is_tried_again_more_and_more_seldom)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, &options);
    struct quire_tree *tree = open_tree(db, "t");
    simdisk_facts(disk)->space_bytes = 1u << 30;
    for (int i = 0; i < 2; i++) {
        put_some(tree, 0, 20000, 1000);
        simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_ALLOCATE, .nth = 1, .for_good = true, .error = ENOSPC});
        EXPECT(quire_checkpoint(db), QUIRE_ERR_NO_SPACE);
        cr_assert_eq(failures_in(db, 2), 1);
        (void)failures_in(db, 80); /* the first may come further than the ones before */
        cr_assert_eq(failures_in(db, 160), 10);
        simdisk_faults_clear(disk);
        OK(quire_checkpoint(db));
    }
    OK(quire_close(db));
    simdisk_free(disk);
}

/* What did not come leaves no reserve behind: the space is for smaller values. */
Test(small_disk, keeps_no_reserve_for_what_was_refused)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, &options);
    struct quire_tree *tree = open_tree(db, "t");
    struct qr_store_stats stats;
    put_some(tree, 0, 10, 100);
    OK(quire_checkpoint(db));
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk) + (1u << 20);
    for (int i = 0; i < 5; i++) EXPECT(quire_put(tree, "large", 5, value, sizeof(value), 0, NULL), QUIRE_ERR_NO_SPACE);
    qr_store_stats(db->checkpointer.store, &stats);
    cr_assert(!stats.keeps_reserve);
    cr_assert_eq(stats.reserve_segments, 0);
    put_some(tree, 10, 20, 10000);
    OK(quire_close(db));
    simdisk_free(disk);
}

/* The log has its reserve as soon as the page store has grown, not when its thread comes by. */
Test(small_disk, has_the_log_s_reserve_at_once)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, &options);
    struct quire_tree *tree = open_tree(db, "t");
    put_some(tree, 0, 3, sizeof(value));
    cr_assert_not_null(db->log.files->reserve);
    OK(quire_close(db));
    simdisk_free(disk);
}

static int say_most(struct qr_dir *dir, uint64_t *ret_bytes)
{
    (void)dir;
    *ret_bytes = UINT64_MAX - 1;
    return 0;
}

/* What is compared later is what one found that had no space, not what another failure left; and no sum of what there is overflows. */
Test(small_disk, is_known_by_who_found_no_space)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct simdisk *disk = simdisk_create();
    struct quire *db = open_on(disk, &options);
    struct quire_tree *tree = open_tree(db, "t");
    _Atomic uint64_t *room_bytes = &db->checkpointer.room_bytes;
    put_some(tree, 0, 5000, 1000);
    OK(quire_checkpoint(db));
    put_some(tree, 0, 5000, 1000);
    atomic_store(room_bytes, 7);
    simdisk_fault_set(disk, &(struct simdisk_fault){.kind = SIMDISK_ALLOCATE, .nth = 1, .error = EIO});
    EXPECT(quire_checkpoint(db), QUIRE_ERR_IO);
    cr_assert_eq(atomic_load(room_bytes), 7);
    simdisk_faults_clear(disk);
    simdisk_facts(disk)->space_bytes = simdisk_used_bytes(disk);
    for (int i = 0; i < 3 && qr_db_checkpoint_refusal(db) == 0; i++) {
        put_some(tree, 0, 5000, 100);
        (void)quire_checkpoint(db);
    }
    EXPECT(qr_db_checkpoint_refusal(db), QUIRE_ERR_NO_SPACE);
    cr_assert_eq(atomic_load(room_bytes), qr_db_room_bytes(db));
    struct qr_disk_ops other = *simdisk_disk(disk)->ops;
    const struct qr_disk_ops *own = simdisk_disk(disk)->ops;
    struct qr_store_stats stats;
    qr_store_stats(db->checkpointer.store, &stats);
    cr_assert_gt(stats.reserve_bytes, 1);
    other.dir_free_bytes = say_most;
    simdisk_disk(disk)->ops = &other;
    cr_assert_eq(qr_db_room_bytes(db), UINT64_MAX);
    simdisk_disk(disk)->ops = own;
    simdisk_facts(disk)->space_bytes = UINT64_MAX;
    OK(quire_close(db));
    simdisk_free(disk);
}

static struct quire *watched;
static uint32_t calls; /* for a checkpoint, when the value was written and nobody saw it */

static void at_blob(const char *name, void *argument)
{
    (void)argument;
    if (strcmp(name, "write.blob_written") == 0) calls = qr_event_count(&watched->checkpointer.wake);
}

/* A large value waits while nobody sees it. */
Test(small_disk, is_waited_for_before_a_large_value_is_seen)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    options.stall_timeout_ms = 5;
    struct simdisk *disk = simdisk_create();
    watched = open_on(disk, &options);
    struct quire_tree *tree = open_tree(watched, "t");
    simdisk_facts(disk)->space_bytes = 12u << 20;
    put_some(tree, 0, 3000, 1000);
    watched->checkpointer.thread_runs = true;
    uint32_t before = qr_event_count(&watched->checkpointer.wake);
    qr_stop_set_hook(at_blob, NULL);
    OK(quire_put(tree, "large", 5, value, 1000000, 0, NULL));
    qr_stop_set_hook(NULL, NULL);
    cr_assert_gt(calls, before);
    watched->checkpointer.thread_runs = false;
    OK(quire_close(watched));
    simdisk_free(disk);
}
