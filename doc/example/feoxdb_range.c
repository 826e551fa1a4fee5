/*
 * FeOxDB's example "Range queries": the users 001 to 003, both ends included, at most ten of them.
 *
 * Layer: example. Quire's ranges end before `end`; the smallest key above "user:003" is that key and a byte 0 behind it.
 */
#include "example.h"

struct user {
    const char *key;
    const char *name;
};

static const struct user users[] = {
    {"user:001", "Mehran"}, {"user:002", "Bob"}, {"user:003", "Charlie"}, {"user:004", "David"}};

/* Prints the entries from first to last, both included, at most `limit`. Returns their number. */
static size_t range_query(struct quire_tree *tree, const char *first, const char *last, size_t limit)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    char end[64];
    size_t count = 0;
    int result = 0;

    CHECK(strlen(last) + 1 < sizeof(end));
    memcpy(end, last, strlen(last) + 1); /* with its NUL, which is the byte 0 */
    quire_pages_options_init(&options);
    options.start = (struct quire_slice){first, strlen(first)};
    options.end = (struct quire_slice){end, strlen(last) + 1};

    OK(quire_pages_open(tree, &options, &pages));
    while (count < limit && (result = quire_pages_next(pages, &page)) == 0) {
        for (size_t i = 0; i < page.count && count < limit; i++, count++) {
            const struct quire_entry *entry = &page.entries[i];
            printf("%.*s: %.*s\n", (int)entry->key_size, (const char *)entry->key, (int)entry->value_size,
                   (const char *)entry->value);
            CHECK(example_equal(entry->key, entry->key_size, users[count].key));
            CHECK(example_equal(entry->value, entry->value_size, users[count].name));
        }
    }
    CHECK(result == 0 || result == QUIRE_END);
    OK(quire_pages_close(pages));
    return count;
}

int main(void)
{
    struct quire_tree *tree;
    struct quire *db;

    OK(quire_open(NULL, NULL, &db));
    OK(quire_tree_open(db, NULL, NULL, &tree));
    for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++)
        OK(quire_put(tree, users[i].key, strlen(users[i].key), users[i].name, strlen(users[i].name), 0, NULL));

    CHECK(range_query(tree, "user:001", "user:003", 10) == 3);
    CHECK(range_query(tree, "user:001", "user:003", 2) == 2);
    OK(quire_close(db));
    return 0;
}
