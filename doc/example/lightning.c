/*
 * Lightning DB's examples "Basic usage" and "Range queries", and its batch of reads: a range, a prefix, backwards.
 *
 * Layer: example. A prefix is the range from it to the first text that does not begin with it.
 */
#include "example.h"

static const char *const keys[] = {"hello", "user:1", "user:2", "user:3", "users", "zebra"};
enum { KEYS = sizeof(keys) / sizeof(keys[0]) };

static void basic_usage(struct quire_tree *tree)
{
    char value[16];
    size_t size;

    OK(quire_put(tree, TEXT("hello"), TEXT("world"), 0, NULL));
    OK(quire_get(tree, NULL, TEXT("hello"), value, sizeof(value), &size));
    CHECK(example_equal(value, size, "world"));
    OK(quire_delete(tree, TEXT("hello"), 0, NULL, NULL));
    EXPECT(QUIRE_NOT_FOUND, quire_get(tree, NULL, TEXT("hello"), value, sizeof(value), &size));
}

/* Prints at most `limit` keys of [start, end), which have to be keys[first] and its neighbours. */
static size_t scan(struct quire_tree *tree, const char *start, const char *end, int reverse, size_t limit, int first)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    size_t count = 0;

    quire_pages_options_init(&options);
    if (start != NULL)
        options.start = (struct quire_slice){start, strlen(start)};
    if (end != NULL)
        options.end = (struct quire_slice){end, strlen(end)};
    options.reverse = reverse != 0;
    OK(quire_pages_open(tree, &options, &pages));
    while (count < limit && quire_pages_next(pages, &page) == 0) {
        for (size_t i = 0; i < page.count && count < limit; i++, count++) {
            const struct quire_entry *entry = &page.entries[i];
            int expected = reverse ? first - (int)count : first + (int)count;
            CHECK(expected >= 0 && expected < KEYS);
            CHECK(example_equal(entry->key, entry->key_size, keys[expected]));
            printf("%.*s ", (int)entry->key_size, (const char *)entry->key);
        }
    }
    putchar('\n');
    OK(quire_pages_close(pages));
    return count;
}

/* Two keys that are there and one that is not, in one call; the values lie in their pages until the guard ends. */
static void get_batch(struct quire *db, struct quire_tree *tree)
{
    const struct quire_slice wanted[] = {{"user:1", 6}, {"user:9", 6}, {"user:2", 6}};
    struct quire_value values[3];
    struct quire_guard guard;
    int results[3];

    OK(quire_pin(db, "batch", &guard));
    OK(quire_get_many(&guard, tree, NULL, wanted, 3, values, results));
    CHECK(results[0] == 0 && example_equal(values[0].data, values[0].size, "value of user:1"));
    CHECK(results[1] == QUIRE_NOT_FOUND);
    CHECK(results[2] == 0 && example_equal(values[2].data, values[2].size, "value of user:2"));
    OK(quire_unpin(&guard));
}

int main(void)
{
    struct quire_tree *tree;
    struct quire *db;
    char value[32];

    OK(quire_open(NULL, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));
    basic_usage(tree);
    for (int i = 0; i < KEYS; i++) {
        int size = snprintf(value, sizeof(value), "value of %s", keys[i]);
        OK(quire_put(tree, keys[i], strlen(keys[i]), value, (size_t)size, 0, NULL));
    }

    CHECK(scan(tree, "user:", "user:~", 0, SIZE_MAX, 1) == 3); /* a range */
    CHECK(scan(tree, "user", "uses", 0, 10, 1) == 4);          /* the prefix "user" */
    CHECK(scan(tree, NULL, NULL, 1, 5, KEYS - 1) == 5);        /* backwards, five of them */
    get_batch(db, tree);
    OK(quire_close(db));
    return 0;
}
