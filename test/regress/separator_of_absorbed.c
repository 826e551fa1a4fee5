/*
 * Goal: a checkpoint beside a merge has every separator: after reopening each key is read and written.
 * Method: two leaves. While their merge has absorbed the right one, or forwarded it, and not taken its entry out, another thread
 * splits the joint leaf at the same key; then the merge goes on. A checkpoint, a write that the log alone has, the death of the
 * process, a reopening.
 * The bug: the entry of the absorbed leaf was taken for the new leaf's separator, and then removed: the checkpoint's left leaf ended
 * where its entry did not, and the replayed write made it unreadable.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/stop.h"
#include "db/db.h"
#include "db/testing.h"
#include "lib/check.h"
#include "lib/resting.h"
#include "lib/simdisk.h"

#define STORE "store"

static struct quire_tree *tree;
static char bytes[2000];
static const char *stop;
static bool armed, split;

static int put(const char *key, size_t size)
{
    return quire_put(tree, key, 1, bytes, size, QUIRE_WRITE_PROCESS, NULL);
}

static void *widen_left(void *context)
{
    (void)context;
    CHECK_EQUAL(put("a", 1900), 0);
    split = true;
    return NULL;
}

/* The pause ends the slice of maintenance: else the same slice would come by again, and post the separator. */
static void at_stop(const char *name, void *argument)
{
    pthread_t thread;
    (void)argument;
    if (!armed || strcmp(name, stop) != 0) return;
    armed = false;
    CHECK_EQUAL(pthread_create(&thread, NULL, widen_left, NULL), 0);
    pthread_join(thread, NULL);
    usleep(20000);
}

static int open_on(struct simdisk *disk, struct quire **ret_db)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct quire_tree_options small = {
        .struct_size = sizeof(small), .leaf_page_size_bytes = 2048, .inner_page_size_bytes = 2048};
    options.no_sync_at_close = 1;
    int result = qr_db_open(STORE, simdisk_disk(disk), &options, ret_db);
    return result != 0 ? result : quire_tree_open(*ret_db, "t", &small, &tree);
}

static void run(const char *where)
{
    char text[256] = "";
    struct quire *db;
    struct simdisk *disk = simdisk_create();
    if (!CHECK_EQUAL(open_on(disk, &db), 0)) return;
    stop = where;
    split = false;
    CHECK_EQUAL(put("a", 1500), 0);
    for (unsigned i = 0; i < 20; i++) CHECK_EQUAL(put("c", 1500), 0);
    CHECK_EQUAL(qr_testing_consolidate(tree, 1, 100), 0);
    armed = true;
    qr_stop_set_hook(at_stop, NULL);
    CHECK_EQUAL(put("a", 60), 0);
    for (unsigned i = 0; i < 20 && armed; i++) CHECK_EQUAL(put("c", 60), 0);
    for (unsigned i = 0; i < 100 && armed; i++) (void)quire_maintain(db);
    qr_stop_set_hook(NULL, NULL);
    CHECK(split, "nothing was merged");
    CHECK_EQUAL(quire_checkpoint(db), 0);
    CHECK_EQUAL(put("c", 100), 0);
    struct simdisk *dead = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);

    if (CHECK_EQUAL(open_on(dead, &db), 0)) {
        CHECK_EQUAL(quire_exists(tree, NULL, "a", 1), 0);
        CHECK_EQUAL(quire_exists(tree, NULL, "c", 1), 0);
        CHECK_EQUAL(put("a", 10), 0);
        int result = qr_testing_check(tree, text, sizeof(text));
        CHECK(result == 0, "structure: %d %s", result, text);
        CHECK_EQUAL(quire_close(db), 0);
    }
    simdisk_free(dead);
}

int main(void)
{
    run("merge.absorbed");  /* the entry's page is sealed */
    run("merge.forwarded"); /* ... or forwarded */
    return check_finish();
}
