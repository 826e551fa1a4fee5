/*
 * Goal: snapshots that are taken faster than a page can be built do not keep a writer from writing.
 * Method: at the stop point between the reservation and the install of a consolidated page, take a snapshot, each time.
 * The bug: the writer built the page anew whenever a snapshot had begun meanwhile, without end.
 */
#include "base/stop.h"
#include "lib/check.h"

#include <quire/quire.h>

#include <pthread.h>
#include <string.h>

#define MOST_TRIES 20u

static unsigned tries;

/* The writer's slot is open, so it may not take the snapshot itself: another thread begins one, which then waits for it. */
static void *take_and_release(void *db)
{
    struct quire_snapshot *snapshot = NULL;
    CHECK_EQUAL(quire_snapshot(db, "storm", &snapshot), 0);
    CHECK_EQUAL(quire_snapshot_release(snapshot), 0);
    return NULL;
}

struct storm {
    struct quire *db;
    pthread_t threads[MOST_TRIES];
    pthread_t writer;
    _Atomic unsigned begun;
};

static void at_stop(const char *name, void *arg)
{
    struct storm *storm = arg;
    if (strcmp(name, "snapshot.bounded") == 0) {
        /* order: test.begun pairs with itself: the generation was raised before it */
        atomic_fetch_add_explicit(&storm->begun, 1, memory_order_acq_rel);
        return;
    }
    if (strcmp(name, "write.leaf_reserved") != 0 || !pthread_equal(pthread_self(), storm->writer)) return;
    if (tries == MOST_TRIES) return;
    if (pthread_create(&storm->threads[tries], NULL, take_and_release, storm->db) != 0) return;
    tries++;
    /* order: test.begun pairs with itself */
    while (atomic_load_explicit(&storm->begun, memory_order_acquire) < tries) {
    }
}

int main(void)
{
    static uint8_t large[100000];
    struct storm storm = {.writer = pthread_self()};
    struct quire_tree *tree = NULL;
    size_t size = 0;

    CHECK_EQUAL(quire_open(NULL, NULL, &storm.db), 0);
    CHECK_EQUAL(quire_tree_open(storm.db, NULL, NULL, &tree), 0);
    CHECK_EQUAL(quire_put(tree, "key", 3, large, sizeof(large), 0, NULL), 0);
    qr_stop_set_hook(at_stop, &storm);
    CHECK_EQUAL(quire_put(tree, "key", 3, large, sizeof(large) - 1, 0, NULL), 0);
    qr_stop_set_hook(NULL, NULL);
    CHECK(tries >= 1 && tries <= 3, "%u tries", tries);
    for (unsigned i = 0; i < tries; i++) CHECK_EQUAL(pthread_join(storm.threads[i], NULL), 0);
    CHECK_EQUAL(quire_get(tree, NULL, "key", 3, large, sizeof(large), &size), 0);
    CHECK_EQUAL(size, sizeof(large) - 1);
    CHECK_EQUAL(quire_close(storm.db), 0);
    return check_finish();
}
