/*
 * Goal: what a checkpoint says of the log before it is right, whatever is under way while it is made.
 * Method: one write or split at the one moment that matters, then the end of a process that has died, and a look at what is there.
 */
#include "api_dir.h"
#include "api_inside.h"

#include "base/stop.h"

#include <pthread.h>
#include <stdatomic.h>

TestSuite(checkpoint_rules, .init = make_root, .fini = remove_root);

static struct quire *open_rested(void)
{
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, QUIRE_LEVEL_PROCESS);
    options.background_threads = QUIRE_NO_THREADS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.blob_threshold_bytes = 1 << 20;
    return open_by("s", &options);
}

/* A checkpoint as one that comes by itself: it writes what has changed its structure, and leaves the rest to the log. */
static int save(struct quire *db)
{
    struct qr_thread *thread = qr_thread_self(db->epoch);
    cr_assert_not_null(thread);
    return qr_db_checkpoint(db, thread, false);
}

/* Ends the database as a killed process would, and opens it again. */
static struct quire *after_death(struct quire *db)
{
    abandon(db);
    return open_rested();
}

static void fill_keys(struct quire_tree *tree, unsigned count)
{
    char key[32];
    for (unsigned i = 0; i < count; i++) {
        sprintf(key, "key-%06u", i);
        put(tree, key, "value");
    }
}

/* ---- R1 --------------------------------------------------------------------------------------------------------- */

static struct quire_tree *scanned_tree;
static unsigned scanned;

/* Page by page: the leaf of the first keys was among the first. */
static void write_behind_the_scan(const char *name, void *argument)
{
    (void)argument;
    if (strcmp(name, "checkpoint.scanned") != 0 || ++scanned != 200) return;
    put(scanned_tree, "key-000000", "late");
}

/* R1: a page that was looked at is written to while the others are. What is written counts by where the log ended before. */
Test(checkpoint_rules, writes_behind_the_scan_are_in_the_log)
{
    struct quire *db = open_rested();
    struct quire_tree *tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
    fill_keys(tree, 4000);
    OK(quire_checkpoint(db));
    scanned_tree = tree;
    qr_stop_set_hook(write_behind_the_scan, NULL);
    OK(save(db));
    qr_stop_set_hook(NULL, NULL);
    cr_assert_geq(scanned, 200u);
    db = after_death(db);
    tree = open_tree(db, "t");
    expect(tree, NULL, "key-000000", "late");
    OK(quire_close(db));
}

static _Atomic int halted, go_on;

/* Holds the first thread that comes by. */
static void halt(const char *name, void *argument)
{
    if (strcmp(name, argument) != 0 || atomic_exchange(&halted, 1) != 0) return;
    while (atomic_load(&go_on) == 0) usleep(100);
}

/* The same for a write that has its LSN; it goes on when the mapping has been captured. */
static void halt_write(const char *name, void *argument)
{
    static char stop[] = "write.reserved";
    (void)argument;
    if (strcmp(name, "checkpoint.captured") == 0) atomic_store(&go_on, 1);
    halt(name, stop);
}

static void start_halting(qr_stop_fn *hook, void *argument)
{
    atomic_store(&halted, 0);
    atomic_store(&go_on, 0);
    qr_stop_set_hook(hook, argument);
}

static void *put_late(void *argument)
{
    put(argument, "key-000003", "late");
    return NULL;
}

/* R1: a write has its LSN, and is installed after the capture, so no image has it. */
Test(checkpoint_rules, a_write_with_an_open_slot_is_in_the_log)
{
    pthread_t writer;
    struct quire *db = open_rested();
    struct quire_tree *tree = open_tree(db, "t");
    fill_keys(tree, 10);
    OK(quire_checkpoint(db));
    start_halting(halt_write, NULL);
    cr_assert_eq(pthread_create(&writer, NULL, put_late, tree), 0);
    while (atomic_load(&halted) == 0) usleep(100);
    OK(save(db));
    cr_assert_eq(pthread_join(writer, NULL), 0);
    qr_stop_set_hook(NULL, NULL);
    db = after_death(db);
    expect(open_tree(db, "t"), NULL, "key-000003", "late");
    OK(quire_close(db));
}

/* ---- R2 --------------------------------------------------------------------------------------------------------- */

/* R2: all pages of a split are in the next checkpoint, by their new bounds. */
Test(checkpoint_rules, what_splits_have_changed_is_in_it)
{
    char key[32];
    struct quire *db = open_rested();
    struct quire_tree *tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = round; i < 3000; i += 3) {
            sprintf(key, "key-%06u", i);
            put(tree, key, "value");
        }
        OK(save(db));
    }
    db = after_death(db);
    tree = open_tree(db, "t");
    for (unsigned i = 0; i < 3000; i++) {
        sprintf(key, "key-%06u", i);
        expect(tree, NULL, key, "value");
    }
    check_structure(tree);
    OK(quire_close(db));
}

/* ---- R6 --------------------------------------------------------------------------------------------------------- */

/* R6: a large record that is in no image needs its PARTs, which are many segments of log before it. */
Test(checkpoint_rules, the_parts_of_a_large_record_stay)
{
    static char value[600000], found[600000];
    struct quire *db = open_rested();
    struct quire_tree *tree = open_tree(db, "t");
    size_t size = 0;
    put(tree, "key", "value");
    OK(quire_checkpoint(db));
    memset(value, 'v', sizeof(value));
    OK(quire_put(tree, TEXT("key"), value, sizeof(value), 0, NULL)); /* of one key: no split */
    OK(save(db));
    OK(save(db));
    db = after_death(db);
    tree = open_tree(db, "t");
    OK(quire_get(tree, NULL, TEXT("key"), found, sizeof(found), &size));
    cr_assert(size == sizeof(value) && memcmp(found, value, size) == 0);
    OK(quire_close(db));
}

/* ---- R9 --------------------------------------------------------------------------------------------------------- */

static _Atomic int saved;

static void *fill_more(void *argument)
{
    char key[32];
    for (unsigned i = 0; i < 3000; i++) {
        sprintf(key, "key-%06u-more", i);
        put(argument, key, "value");
    }
    return NULL;
}

static void *save_beside(void *argument)
{
    OK(save(argument));
    atomic_store(&saved, 1);
    return NULL;
}

/* R9: the mapping is that of one moment, in which no structure change is half done. Such a one is waited for. */
Test(checkpoint_rules, a_split_that_is_under_way_is_waited_for)
{
    static char *const points[] = {"split.right_private", "split.left_installed", "post.parent_loaded"};
    for (unsigned i = 0; i < 3; i++) {
        pthread_t writer, saver;
        struct quire *db = open_rested();
        struct quire_tree *tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
        fill_keys(tree, 3000);
        OK(quire_checkpoint(db));
        atomic_store(&saved, 0);
        start_halting(halt, points[i]);
        cr_assert_eq(pthread_create(&writer, NULL, fill_more, tree), 0);
        while (atomic_load(&halted) == 0) usleep(100);
        cr_assert_eq(pthread_create(&saver, NULL, save_beside, db), 0);
        usleep(20000);
        bool waited = atomic_load(&saved) == 0;
        atomic_store(&go_on, 1);
        cr_assert_eq(pthread_join(saver, NULL), 0);
        cr_assert_eq(pthread_join(writer, NULL), 0);
        qr_stop_set_hook(NULL, NULL);
        cr_assert(waited, "it did not wait at %s", points[i]);
        db = after_death(db);
        tree = open_tree(db, "t");
        check_structure(tree);
        expect(tree, NULL, "key-002999-more", "value");
        expect(tree, NULL, "key-000000-more", "value");
        OK(quire_close(db));
        shell("rm -r s");
    }
}
