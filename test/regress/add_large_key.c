/*
 * Goal: a sum that quire_add stored under a key too large for a frame of the log is there after reopening.
 * Method: two threads count under a key of 100000 bytes; the store is opened again and read.
 * The bug: such a key goes to the log, with the value, before the page is looked at; and the sum was computed after that.
 */
#include "lib/check.h"

#include <quire/quire.h>

#include <pthread.h>
#include <stdlib.h>

#define ADDITIONS 200
static uint8_t key[100000];

static void *count_up(void *tree)
{
    for (int i = 0; i < ADDITIONS; i++) CHECK_EQUAL(quire_add(tree, key, sizeof(key), 3, 0, NULL, NULL), 0);
    return NULL;
}

int main(void)
{
    char path[] = "/tmp/quire-regress-XXXXXX";
    struct quire_options options;
    struct quire *db = NULL;
    struct quire_tree *tree = NULL;
    pthread_t threads[2];
    int64_t sum = 0;

    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    CHECK(mkdtemp(path) != NULL, "no directory");
    CHECK_EQUAL(quire_open(path, &options, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, NULL, NULL, &tree), 0);
    for (int i = 0; i < 2; i++) CHECK_EQUAL(pthread_create(&threads[i], NULL, count_up, tree), 0);
    for (int i = 0; i < 2; i++) CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    CHECK_EQUAL(quire_put(tree, "text", 4, "abc", 3, 0, NULL), 0);
    CHECK_EQUAL(quire_put(tree, key, sizeof(key) - 1, "abc", 3, 0, NULL), 0);
    CHECK_EQUAL(quire_add(tree, key, sizeof(key) - 1, 1, 0, NULL, NULL), QUIRE_ERR_WRONG_TYPE);
    CHECK_EQUAL(quire_add(tree, key, sizeof(key), INT64_MAX, 0, NULL, NULL), QUIRE_ERR_OVERFLOW);
    CHECK_EQUAL(quire_close(db), 0);

    CHECK_EQUAL(quire_open(path, &options, &db), 0);
    CHECK_EQUAL(quire_tree_open(db, NULL, NULL, &tree), 0);
    CHECK_EQUAL(quire_add(tree, key, sizeof(key), 0, 0, &sum, NULL), 0);
    CHECK_EQUAL(sum, 2 * ADDITIONS * 3);
    CHECK_EQUAL(quire_close(db), 0);
    CHECK_EQUAL(quire_destroy(path), 0);
    return check_finish();
}
