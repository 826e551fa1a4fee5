/*
 * FeOxDB's example "Concurrent access": ten threads write a thousand keys each into one tree, and all are there.
 *
 * Layer: example. A thread needs no registration: it calls, and ends.
 */
#include "example.h"

#include <inttypes.h>
#include <pthread.h>

enum { THREADS = 10, KEYS_PER_THREAD = 1000 };

struct writer {
    pthread_t thread;
    struct quire_tree *tree;
    unsigned number;
};

static void *write_keys(void *argument)
{
    struct writer *writer = argument;
    char key[64];

    for (unsigned i = 0; i < KEYS_PER_THREAD; i++) {
        int size = snprintf(key, sizeof(key), "thread_%u:key_%u", writer->number, i);
        OK(quire_put(writer->tree, key, (size_t)size, TEXT("value"), 0, NULL));
    }
    return NULL;
}

int main(void)
{
    const struct quire_slice everything = {NULL, 0};
    struct writer writers[THREADS];
    struct quire_tree *tree;
    struct quire *db;
    uint64_t count;

    OK(quire_open(NULL, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i].tree = tree;
        writers[i].number = i;
        CHECK(pthread_create(&writers[i].thread, NULL, write_keys, &writers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        CHECK(pthread_join(writers[i].thread, NULL) == 0);

    OK(quire_count(tree, NULL, everything, everything, &count));
    printf("Total keys: %" PRIu64 "\n", count);
    CHECK(count == THREADS * KEYS_PER_THREAD);
    OK(quire_close(db));
    return 0;
}
