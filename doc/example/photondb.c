/*
 * PhotonDB's README program: versions from the caller, a read in place, and the tree page by page.
 *
 * Layer: example. The table of that program is a tree whose records carry the versions that the program gives them; a
 * read names a version too.
 */
#include "example.h"

#include <inttypes.h>

/* The value of key at a version: 0 and *ret_value, or QUIRE_NOT_FOUND. */
static int get_at(struct quire_tree *tree, uint8_t key, uint64_t version, uint8_t *ret_value)
{
    size_t size;
    int result = quire_get_at(tree, version, &key, 1, ret_value, 1, &size);
    CHECK(result != 0 || size == 1);
    return result;
}

/* Every page hands out pointers into itself; they live until the next step. Returns how many entries there were. */
static size_t print_pages(struct quire_tree *tree)
{
    struct quire_pages *pages;
    struct quire_page page;
    size_t count = 0;
    int result;

    OK(quire_pages_open(tree, NULL, &pages));
    while ((result = quire_pages_next(pages, &page)) == 0) {
        for (size_t i = 0; i < page.count; i++) {
            const struct quire_entry *entry = &page.entries[i];
            CHECK(entry->key_size == 1 && entry->value_size == 1);
            printf("[%u] [%u], version %" PRIu64 "\n", *(const uint8_t *)entry->key, *(const uint8_t *)entry->value,
                   entry->version);
            count++;
        }
    }
    CHECK(result == QUIRE_END);
    OK(quire_pages_close(pages));
    return count;
}

int main(void)
{
    struct quire_tree_options options;
    struct quire_guard guard;
    struct quire_value value;
    struct quire_tree *table;
    struct quire *db;
    const uint8_t key = 1, val1 = 2, val2 = 3;
    uint8_t found;

    OK(quire_open(NULL, NULL, &db));
    quire_tree_options_init(&options);
    options.versions = QUIRE_VERSIONS_CALLER;
    OK(quire_tree_open(db, "table", &options, &table));

    /* Simple operations. */
    OK(quire_put_at(table, 1, &key, 1, &val1, 1, 0, NULL));
    OK(quire_delete_at(table, 2, &key, 1, 0, NULL));
    OK(quire_put_at(table, 3, &key, 1, &val2, 1, 0, NULL));
    OK(get_at(table, key, 1, &found));
    CHECK(found == val1);
    EXPECT(QUIRE_NOT_FOUND, get_at(table, key, 2, &found));
    OK(get_at(table, key, 3, &found));
    CHECK(found == val2);

    /* The value without a copy. */
    OK(quire_pin(db, "example", &guard));
    OK(quire_guard_get_at(&guard, table, 3, &key, 1, &value));
    CHECK(value.size == 1 && *(const uint8_t *)value.data == val2 && value.version == 3);
    OK(quire_unpin(&guard));

    CHECK(print_pages(table) == 1);
    OK(quire_close(db));
    return 0;
}
