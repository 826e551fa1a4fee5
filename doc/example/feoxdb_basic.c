/*
 * FeOxDB's example "Basic usage": store a value, read it, ask for it, delete it.
 *
 * Layer: example.
 */
#include "example.h"

int main(void)
{
    struct quire_tree *tree;
    struct quire *db;
    void *value;
    size_t size;

    /* A database in memory, and its default tree. */
    OK(quire_open(NULL, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));

    OK(quire_put(tree, TEXT("user:123"), TEXT("{\"name\":\"Mehran\"}"), 0, NULL));

    OK(quire_get_copy(tree, NULL, TEXT("user:123"), &value, &size));
    CHECK(example_equal(value, size, "{\"name\":\"Mehran\"}"));
    printf("Value: %.*s\n", (int)size, (const char *)value);
    quire_free(value);

    OK(quire_exists(tree, NULL, TEXT("user:123")));
    puts("Key exists!");

    OK(quire_delete(tree, TEXT("user:123"), 0, NULL, NULL));
    EXPECT(QUIRE_NOT_FOUND, quire_exists(tree, NULL, TEXT("user:123")));

    OK(quire_close(db));
    return 0;
}
