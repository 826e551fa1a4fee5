/*
 * Goal: who asks where a page lies on disk, while others read it and merge it away, finds its key, or that it is gone.
 * Method: after a reopening a reader stops before it looks a page up, at each page on its way; another thread deletes all other keys
 * meanwhile, and maintenance merges the leaves, frees their ids and lets the store forget them; then the reader goes on.
 * The bug: the reader took what was not in the store's mapping any more for damage.
 */
#include "base/stop.h"
#include "lib/check.h"

#include <quire/quire.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 200u
#define READ 100u
#define PLACES 6u

static struct quire *db;
static struct quire_tree *tree;
static unsigned passes, place;
static bool reading;

static void open_store(const char *path)
{
    struct quire_options options;
    struct quire_tree_options small = {
        .struct_size = sizeof(small), .leaf_page_size_bytes = 512, .inner_page_size_bytes = 512};
    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    options.background_threads = QUIRE_NO_THREADS;
    CHECK_EQUAL(quire_open(path, &options, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, "t", &small, &tree), 0);
}

static void *delete_others(void *argument)
{
    char key[16];
    (void)argument;
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(key, sizeof(key), "%06u", i);
        if (i != READ) CHECK_EQUAL(quire_delete(tree, key, 6, 0, NULL, NULL), 0);
    }
    while (quire_maintain(db) == QUIRE_MORE) {
    }
    return NULL;
}

static void at_stop(const char *name, void *argument)
{
    pthread_t thread;
    (void)argument;
    if (!reading || strcmp(name, "page.locate") != 0 || ++passes != place) return;
    reading = false;
    CHECK_EQUAL(pthread_create(&thread, NULL, delete_others, NULL), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
}

static void run(const char *path)
{
    char key[16], value[60] = {1};
    size_t size;
    open_store(path);
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(key, sizeof(key), "%06u", i);
        CHECK_EQUAL(quire_put(tree, key, 6, value, sizeof(value), 0, NULL), 0);
    }
    CHECK_EQUAL(quire_close(db), 0);
    open_store(path);
    passes = 0;
    reading = true;
    qr_stop_set_hook(at_stop, NULL);
    snprintf(key, sizeof(key), "%06u", READ);
    int result = quire_get(tree, NULL, key, 6, value, sizeof(value), &size);
    qr_stop_set_hook(NULL, NULL);
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    CHECK(result == 0, "place %u: %s (%s)", place, quire_strerror(result), detail.message);
    reading = false;
    CHECK_EQUAL(quire_close(db), 0);
}

int main(void)
{
    char root[] = "/tmp/quire-regress-XXXXXX";
    char path[64];
    CHECK(mkdtemp(root) != NULL, "no directory");
    for (place = 1; place <= PLACES; place++) {
        snprintf(path, sizeof(path), "%s/%u", root, place);
        run(path);
    }
    snprintf(path, sizeof(path), "rm -rf %s", root);
    CHECK_EQUAL(system(path), 0);
    return check_finish();
}
