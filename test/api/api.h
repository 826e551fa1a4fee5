/*
 * Shorthand for the tests of the public API: open, put text, expect text, look at the detail of a failure.
 *
 * Test programs (api). Included once by each test file, after the framework's header is chosen. Names of tests are
 * sentences; the comment above a test names its row in the acceptance table.
 */
#ifndef TEST_API_API_H
#define TEST_API_API_H

#include <criterion/criterion.h>

#include <quire/quire.h>

#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Not every file uses all of these. */
#define HELPER __attribute__((unused)) static

/* With a sanitizer: the largest tests take too long, and the process's memory is not the engine's. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define INSTRUMENTED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define INSTRUMENTED 1
#endif
#endif
#ifndef INSTRUMENTED
#define INSTRUMENTED 0
#endif

/* A call answered this result. */
#define EXPECT(call, right)                                                                                            \
    do {                                                                                                               \
        int result_ = (call);                                                                                          \
        cr_assert(result_ == (right), "%s is %d (%s), not %d", #call, result_, quire_strerror(result_), (int)(right)); \
    } while (0)

#define OK(call) EXPECT(call, QUIRE_OK)

/* A key or value given as a string literal: pointer and size. */
#define TEXT(literal) (literal), (sizeof(literal) - 1)

HELPER struct quire_slice slice(const char *text)
{
    return (struct quire_slice){text, strlen(text)};
}

/* A database in memory without background threads: what happens is what the test does. */
HELPER struct quire *open_quiet(void)
{
    struct quire_options options;
    struct quire *db = NULL;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    OK(quire_open(NULL, &options, &db));
    cr_assert(db != NULL, "no handle");
    return db;
}

HELPER struct quire_tree *open_tree(struct quire *db, const char *name)
{
    struct quire_tree *tree = NULL;
    OK(quire_tree_open(db, name, NULL, &tree));
    cr_assert(tree != NULL, "no handle");
    return tree;
}

HELPER struct quire_tree *open_caller_tree(struct quire *db, const char *name)
{
    struct quire_tree_options options;
    struct quire_tree *tree = NULL;
    quire_tree_options_init(&options);
    options.versions = QUIRE_VERSIONS_CALLER;
    OK(quire_tree_open(db, name, &options, &tree));
    cr_assert(tree != NULL, "no handle");
    return tree;
}

/* A tree whose leaves split after a few records. */
HELPER struct quire_tree *open_small_tree(struct quire *db, const char *name, uint32_t versions)
{
    struct quire_tree_options options;
    struct quire_tree *tree = NULL;
    quire_tree_options_init(&options);
    options.versions = versions;
    options.leaf_page_size_bytes = 512;
    options.inner_page_size_bytes = 512;
    OK(quire_tree_open(db, name, &options, &tree));
    return tree;
}

HELPER void put(struct quire_tree *tree, const char *key, const char *value)
{
    OK(quire_put(tree, key, strlen(key), value, strlen(value), 0, NULL));
}

/* The key has this value; NULL: it has none. */
HELPER void expect(struct quire_tree *tree, struct quire_snapshot *snapshot, const char *key, const char *right)
{
    char value[256];
    size_t size = 0;
    int result = quire_get(tree, snapshot, key, strlen(key), value, sizeof(value), &size);
    cr_assert(result == (right != NULL ? 0 : QUIRE_NOT_FOUND), "get '%s': %d (%s)", key, result,
              quire_strerror(result));
    if (right != NULL)
        cr_assert(size == strlen(right) && memcmp(value, right, size) == 0, "'%s' is '%.*s', not '%s'", key, (int)size,
                  value, right);
}

HELPER void expect_at(struct quire_tree *tree, uint64_t version, const char *key, const char *right)
{
    char value[256];
    size_t size = 0;
    int result = quire_get_at(tree, version, key, strlen(key), value, sizeof(value), &size);
    cr_assert(result == (right != NULL ? 0 : QUIRE_NOT_FOUND), "get '%s' at %" PRIu64 ": %d (%s)", key, version, result,
              quire_strerror(result));
    if (right != NULL)
        cr_assert(size == strlen(right) && memcmp(value, right, size) == 0, "'%s' at %" PRIu64 " is '%.*s', not '%s'",
                  key, version, (int)size, value, right);
}

HELPER uint64_t count_all(struct quire_tree *tree, struct quire_snapshot *snapshot)
{
    uint64_t count = UINT64_MAX;
    struct quire_slice none = {NULL, 0};
    OK(quire_count(tree, snapshot, none, none, &count));
    return count;
}

/* The last failure of this thread was `result`, and its message contains `word`. */
HELPER void expect_detail(int result, const char *word)
{
    struct quire_error_detail detail;
    memset(&detail, 0xff, sizeof(detail));
    quire_error_detail(&detail);
    cr_assert(detail.result == result, "detail of %d, not %d", detail.result, result);
    cr_assert(detail.message != NULL && strstr(detail.message, word) != NULL, "'%s' does not name %s", detail.message,
              word);
}

/* Maintains until there is nothing left to do. */
HELPER void settle(struct quire *db)
{
    int result = QUIRE_MORE;
    for (unsigned i = 0; i < 1000000 && result == QUIRE_MORE; i++)
        result = quire_maintain(db);
    cr_assert(result == 0, "maintain: %d", result);
}

HELPER struct quire_stats stats_of(struct quire *db)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    OK(quire_stats(db, &stats));
    return stats;
}

/* "key-000042": ordered as the numbers are. */
HELPER size_t numbered(uint64_t number, char *key)
{
    memcpy(key, "key-", 4);
    for (int i = 9; i >= 4; i--, number /= 10)
        key[i] = (char)('0' + number % 10);
    key[10] = 0;
    return 10;
}

HELPER void fill(struct quire_tree *tree, uint64_t first, uint64_t beyond)
{
    char key[16];
    for (uint64_t i = first; i < beyond; i++)
        OK(quire_put(tree, key, numbered(i, key), &i, sizeof(i), 0, NULL));
}

#endif
