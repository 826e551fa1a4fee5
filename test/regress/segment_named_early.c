/*
 * Goal: a segment of large values that is in the store's list when a checkpoint is made is synced, and its name is, before the
 * checkpoint names it: else the store does not open after power loss.
 * Method: a store on a simulated disk; a thread that writes a large value stops when its new segment has come into the list; a
 * checkpoint is made; the power goes, with nothing unsynced left. Then the store is opened.
 * The bug: the marks that there is something to sync were set after the segment had come into the list.
 */
#include "base/stop.h"
#include "db/db.h"
#include "lib/check.h"
#include "lib/simdisk.h"

#include <quire/quire.h>

#include <pthread.h>
#include <semaphore.h>
#include <string.h>

static struct quire_tree *tree;
static pthread_t writer;
static sem_t stopped, released;

static struct quire *open_store(struct simdisk *disk)
{
    struct quire_options options;
    struct quire *db = NULL;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.log_segment_bytes = 65536;
    options.blob_threshold_bytes = 64;
    int result = qr_db_open("store", simdisk_disk(disk), &options, &db);
    if (!CHECK(result == 0, "open: %s", quire_strerror(result))) return NULL;
    CHECK_EQUAL(quire_tree_open(db, "t", NULL, &tree), 0);
    return db;
}

static void at_stop(const char *name, void *argument)
{
    (void)argument;
    if (strcmp(name, "segment.registered") != 0 || !pthread_equal(pthread_self(), writer)) return;
    sem_post(&stopped);
    sem_wait(&released);
}

static void *write_large(void *argument)
{
    static char value[1000];
    (void)argument;
    writer = pthread_self();
    qr_stop_set_hook(at_stop, NULL);
    CHECK_EQUAL(quire_put(tree, "large", 5, value, sizeof(value), 0, NULL), 0);
    return NULL;
}

int main(void)
{
    struct simdisk *disk = simdisk_create();
    pthread_t thread;
    struct quire *db = open_store(disk);
    if (db == NULL) return check_finish();
    sem_init(&stopped, 0, 0);
    sem_init(&released, 0, 0);
    CHECK_EQUAL(quire_put(tree, "small", 5, "value", 5, 0, NULL), 0);
    CHECK_EQUAL(quire_checkpoint(db), 0); /* the next one makes no segment of pages, whose name would have to be synced */
    CHECK_EQUAL(quire_put(tree, "small", 5, "other", 5, 0, NULL), 0);
    if (pthread_create(&thread, NULL, write_large, NULL) != 0) return 1;
    sem_wait(&stopped);
    CHECK_EQUAL(quire_checkpoint(db), 0);
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DROP});
    sem_post(&released);
    pthread_join(thread, NULL);
    qr_stop_set_hook(NULL, NULL);
    CHECK_EQUAL(quire_close(db), 0);
    simdisk_free(disk);

    db = open_store(after);
    if (db != NULL) {
        CHECK_EQUAL(quire_verify(db, NULL, NULL), 0);
        CHECK_EQUAL(quire_exists(tree, NULL, "small", 5), 0);
        CHECK_EQUAL(quire_exists(tree, NULL, "large", 5), QUIRE_NOT_FOUND);
        CHECK_EQUAL(quire_close(db), 0);
        simdisk_free(after);
    }
    return check_finish();
}
