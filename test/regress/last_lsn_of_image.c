/*
 * Goal: quire_last_lsn is not below the LSN of a record that the opening found in a page.
 * Method: a store on a simulated disk. A write stops when it is done and has not returned; another thread makes a checkpoint, and the
 * power goes. In what is left the record is there, and the last LSN is its.
 * The bug: a checkpoint's record had the last LSN of those writes that had returned, and the log below it is not read again.
 */
#include "base/stop.h"
#include "db/db.h"
#include "lib/check.h"
#include "lib/simdisk.h"

#include <quire/quire.h>

#include <pthread.h>
#include <string.h>

static struct simdisk *disk, *left;
static struct quire *db;

static bool open_store(struct simdisk *on, struct quire_tree **ret_tree)
{
    struct quire_options options;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.log_segment_bytes = 65536;
    int result = qr_db_open("store", simdisk_disk(on), &options, &db);
    if (result == 0) result = quire_tree_open(db, "tree", NULL, ret_tree);
    CHECK(result == 0, "open: %s", quire_strerror(result));
    return result == 0;
}

static void *checkpoint_and_cut(void *argument)
{
    struct simdisk_crash crash = {.mode = SIMDISK_DROP};
    (void)argument;
    CHECK_EQUAL(quire_checkpoint(db), 0);
    CHECK_EQUAL(quire_checkpoint(db), 0); /* has nothing of that page to write, and says no less */
    left = simdisk_crash(disk, &crash);
    return NULL;
}

static void at_stop(const char *name, void *argument)
{
    pthread_t thread;
    (void)argument;
    if (left != NULL || strcmp(name, "write.done") != 0) return;
    CHECK_EQUAL(pthread_create(&thread, NULL, checkpoint_and_cut, NULL), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
}

int main(void)
{
    struct quire_tree *tree = NULL;
    struct quire_guard guard;
    struct quire_value value;
    uint64_t last = 0;
    disk = simdisk_create();
    if (!open_store(disk, &tree)) return check_finish();
    CHECK_EQUAL(quire_put(tree, "first", 5, "value", 5, 0, NULL), 0);
    qr_stop_set_hook(at_stop, NULL);
    CHECK_EQUAL(quire_put(tree, "key", 3, "value", 5, 0, NULL), 0);
    qr_stop_set_hook(NULL, NULL);
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);
    if (left == NULL || !open_store(left, &tree)) return check_finish();
    CHECK_EQUAL(quire_pin(db, "look", &guard), 0);
    CHECK_EQUAL(quire_guard_get(&guard, tree, NULL, "key", 3, &value), 0);
    CHECK_EQUAL(quire_last_lsn(db, &last), 0);
    CHECK(last == value.lsn, "the last LSN is %llu, a record's %llu", (unsigned long long)last, (unsigned long long)value.lsn);
    CHECK_EQUAL(quire_unpin(&guard), 0);
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(left);
    return check_finish();
}
