/*
 * SIMD R Drive's example: write five entries, read them in place, overwrite one, delete it.
 *
 * Layer: example. An entry handle of that store is a value under a guard here: a pointer into the page, unchanged until
 * the guard ends, whatever is written meanwhile.
 */
#include "example.h"

static const char *const keys[] = {"key1", "key2", "key3", "key4", "key5"};
static const char *const values[] = {"value1", "value2", "value3", "value4", "value5"};
enum { ENTRIES = 5 };

int main(void)
{
    struct quire_value entry, old;
    struct quire_guard guard;
    struct quire_tree *tree;
    struct quire *db;

    OK(quire_open(NULL, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));
    for (int i = 0; i < ENTRIES; i++)
        OK(quire_put(tree, keys[i], strlen(keys[i]), values[i], strlen(values[i]), 0, NULL));

    OK(quire_pin(db, "example", &guard));
    for (int i = 0; i < ENTRIES; i++) {
        OK(quire_guard_get(&guard, tree, NULL, keys[i], strlen(keys[i]), &entry));
        CHECK(example_equal(entry.data, entry.size, values[i]));
    }

    /* Overwritten: who asks again sees the new value, who held the old one still has it. */
    OK(quire_guard_get(&guard, tree, NULL, TEXT("key3"), &old));
    OK(quire_put(tree, TEXT("key3"), TEXT("A new value"), 0, NULL));
    OK(quire_guard_get(&guard, tree, NULL, TEXT("key3"), &entry));
    CHECK(example_equal(entry.data, entry.size, "A new value"));
    CHECK(example_equal(old.data, old.size, "value3"));

    OK(quire_delete(tree, TEXT("key3"), 0, NULL, NULL));
    EXPECT(QUIRE_NOT_FOUND, quire_guard_get(&guard, tree, NULL, TEXT("key3"), &entry));
    CHECK(example_equal(old.data, old.size, "value3"));
    OK(quire_unpin(&guard));

    puts("five entries written, read, one overwritten and deleted");
    OK(quire_close(db));
    return 0;
}
