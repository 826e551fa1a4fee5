/*
 * Goal: log that a checkpoint has set free is not asked for by a later one: the store opens, with all that was written.
 * Method: while a checkpoint scans the pages for the oldest LSN that is in no image, one that it has not come to is merged into one
 * that it has passed, at each place of the scan; then one more checkpoint, and a reopening.
 * The bug: the first checkpoint rightly did without that LSN, since the page merged into was captured, and its log was removed; but
 * in memory the page went on to need it, so the next checkpoint's replay began in log that was gone.
 */
#include "base/stop.h"
#include "db/db.h"
#include "lib/check.h"

#include <quire/quire.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 40u
#define OLDEST 20u
#define PLACES 16u
#define OTHERS 4000u

static struct quire *db;
static struct quire_tree *tree;
static unsigned passes, place; /* place 0: no change at all */

static void key_of(unsigned number, char *key)
{
    snprintf(key, 16, "%06u", number);
}

/* Deletes all keys but that of the oldest write, and merges what has become small. */
static void at_stop(const char *name, void *argument)
{
    char key[16];
    (void)argument;
    if (strcmp(name, "checkpoint.scanned") != 0 || passes == place || ++passes != place) return;
    for (unsigned i = 0; i < KEYS; i++) {
        if (i == OLDEST) continue;
        key_of(i, key);
        CHECK_EQUAL(quire_delete(tree, key, 6, 0, NULL, NULL), 0);
    }
    while (quire_maintain(db) == QUIRE_MORE) {
    }
}

static bool open_store(const char *path)
{
    struct quire_options options;
    struct quire_tree_options small = {
        .struct_size = sizeof(small), .leaf_page_size_bytes = 512, .inner_page_size_bytes = 512};
    CHECK_EQUAL(quire_options_preset(&options, QUIRE_PRESET_DEVELOPMENT), 0);
    options.background_threads = QUIRE_NO_THREADS;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.log_segment_bytes = 65536;
    int result = quire_open(path, &options, &db);
    return CHECK(result == 0, "at place %u: open: %s", place, quire_strerror(result)) &&
           CHECK_EQUAL(quire_tree_open(db, "t", &small, &tree), 0);
}

/* A checkpoint that flushes those pages only whose structure has changed. */
static void checkpoint(void)
{
    CHECK_EQUAL(qr_db_checkpoint(db, qr_thread_self(db->epoch), false), 0);
}

static void run(const char *path)
{
    char key[16];
    char value[60] = {1};
    size_t size;
    struct quire_tree *other = NULL;
    passes = 0;
    if (!open_store(path)) return;
    CHECK_EQUAL(quire_tree_open(db, "other", NULL, &other), 0);
    for (unsigned i = 0; i < KEYS; i++) {
        key_of(i, key);
        CHECK_EQUAL(quire_put(tree, key, 6, value, sizeof(value), 0, NULL), 0);
    }
    for (unsigned i = OLDEST; i < OLDEST + 2; i++) { /* so that what comes does not split the leaf */
        key_of(i, key);
        CHECK_EQUAL(quire_delete(tree, key, 6, 0, NULL, NULL), 0);
    }
    CHECK_EQUAL(quire_checkpoint(db), 0);
    key_of(OLDEST, key);
    CHECK_EQUAL(quire_put(tree, key, 6, "the oldest", 10, 0, NULL), 0);
    for (unsigned i = 0; i < OTHERS; i++) { /* segments of the log */
        key_of(i, key);
        CHECK_EQUAL(quire_put(other, key, 6, value, sizeof(value), 0, NULL), 0);
    }
    qr_stop_set_hook(at_stop, NULL);
    checkpoint();
    qr_stop_set_hook(NULL, NULL);
    checkpoint();
    db->options.no_sync_at_close = 1;
    CHECK_EQUAL(quire_close(db), 0);

    if (!open_store(path)) return;
    key_of(OLDEST, key);
    CHECK_EQUAL(quire_get(tree, NULL, key, 6, value, sizeof(value), &size), 0);
    CHECK(size == 10 && memcmp(value, "the oldest", 10) == 0, "place %u: it has another value", place);
    CHECK_EQUAL(quire_close(db), 0);
}

int main(void)
{
    char root[] = "/tmp/quire-regress-XXXXXX";
    char path[64];
    CHECK(mkdtemp(root) != NULL, "no directory");
    for (place = 0; place < PLACES && check_failures() == 0; place++) {
        snprintf(path, sizeof(path), "%s/%u", root, place);
        run(path);
    }
    snprintf(path, sizeof(path), "rm -rf %s", root);
    CHECK_EQUAL(system(path), 0);
    return check_finish();
}
