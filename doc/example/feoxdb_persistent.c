/*
 * FeOxDB's example "Persistent storage": what was stored is there after the store was closed and opened again.
 *
 * Layer: example. Arguments: the directory of the store, which is created, and removed at the end; or none: one in /tmp.
 */
#include "example.h"

int main(int argc, char **argv)
{
    char made[] = "/tmp/quire-example-XXXXXX";
    const char *path = argc > 1 ? argv[1] : mkdtemp(made);
    struct quire_tree *tree;
    struct quire *db;
    void *value;
    size_t size;

    OK(quire_open(path, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));

    /* Durable when the call returns, the default. With QUIRE_WRITE_PROCESS it would survive the process alone ... */
    OK(quire_put(tree, TEXT("config:app"), TEXT("production"), 0, NULL));
    OK(quire_put(tree, TEXT("config:port"), TEXT("8080"), QUIRE_WRITE_PROCESS, NULL));
    /* ... until it is synced. */
    OK(quire_sync(db));

    OK(quire_close(db));
    OK(quire_open(path, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));

    OK(quire_get_copy(tree, NULL, TEXT("config:app"), &value, &size));
    CHECK(example_equal(value, size, "production"));
    printf("config:app is still %.*s\n", (int)size, (const char *)value);
    quire_free(value);
    OK(quire_get_copy(tree, NULL, TEXT("config:port"), &value, &size));
    CHECK(example_equal(value, size, "8080"));
    quire_free(value);

    OK(quire_close(db));
    OK(quire_destroy(path));
    return 0;
}
