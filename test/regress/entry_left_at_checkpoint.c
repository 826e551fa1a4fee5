/*
 * Goal: a merge whose last step found no memory does not end in the checkpoint: after reopening every key is read and written.
 * Method: the allocation fails with which the entry of a forwarded page would be removed; then a checkpoint, and a reopening.
 * The bug: the checkpoint had the entry, and took the id of the page for free; who came by that entry searched without end.
 */
#include "base/alloc.h"
#include "base/stop.h"
#include "db/testing.h"
#include "lib/check.h"

#include <quire/quire.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS 400u
#define DELETED_FROM 100u
#define DELETED_TO 300u

static bool armed;

/* The pause ends the slice of maintenance: else the same slice would come by again, and remove the entry. */
static void at_stop(const char *name, void *argument)
{
    (void)argument;
    if (!armed || strcmp(name, "merge.forwarded") != 0) return;
    armed = false;
    usleep(20000);
    qr_alloc_fail_after(1);
}

static void put(struct quire_tree *tree, uint32_t number)
{
    char key[16];
    char value[60] = {1};
    snprintf(key, sizeof(key), "%06u", number);
    CHECK_EQUAL(quire_put(tree, key, 6, value, sizeof(value), 0, NULL), 0);
}

static void check_keys(struct quire_tree *tree)
{
    char key[16];
    char value[60];
    size_t size;
    for (uint32_t i = 0; i < KEYS; i++) {
        bool deleted = i >= DELETED_FROM && i < DELETED_TO;
        snprintf(key, sizeof(key), "%06u", i);
        CHECK_EQUAL(quire_get(tree, NULL, key, 6, value, sizeof(value), &size), deleted ? QUIRE_NOT_FOUND : 0);
    }
}

int main(void)
{
    char root[] = "/tmp/quire-regress-XXXXXX";
    char text[256] = "";
    struct quire_options options;
    struct quire_tree_options small = {
        .struct_size = sizeof(small), .leaf_page_size_bytes = 512, .inner_page_size_bytes = 512};
    struct quire *db = NULL;
    struct quire_tree *tree = NULL;
    CHECK(mkdtemp(root) != NULL, "no directory");
    CHECK_EQUAL(quire_options_preset(&options, QUIRE_PRESET_DEVELOPMENT), 0);
    options.background_threads = QUIRE_NO_THREADS;
    CHECK_EQUAL(quire_open(root, &options, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, NULL, &small, &tree), 0);
    for (uint32_t i = 0; i < KEYS; i++) put(tree, i);
    CHECK_EQUAL(quire_checkpoint(db), 0);
    for (uint32_t i = DELETED_FROM; i < DELETED_TO; i++) {
        snprintf(text, sizeof(text), "%06u", i);
        CHECK_EQUAL(quire_delete(tree, text, 6, 0, NULL, NULL), 0);
    }
    armed = true;
    qr_stop_set_hook(at_stop, NULL);
    while (armed && quire_maintain(db) == QUIRE_MORE) {
    }
    qr_stop_set_hook(NULL, NULL);
    CHECK(!armed, "nothing was merged");
    CHECK_EQUAL(qr_alloc_fail_pending(), 0);
    CHECK_EQUAL(quire_checkpoint(db), 0);
    CHECK_EQUAL(quire_close(db), 0);

    CHECK_EQUAL(quire_open(root, &options, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, NULL, NULL, &tree), 0);
    check_keys(tree);
    for (uint32_t i = 0; i < KEYS; i++) put(tree, i);
    int result = qr_testing_check(tree, text, sizeof(text));
    CHECK(result == 0, "structure: %d %s", result, text);
    CHECK_EQUAL(quire_close(db), 0);
    snprintf(text, sizeof(text), "rm -rf %s", root);
    CHECK_EQUAL(system(text), 0);
    return check_finish();
}
