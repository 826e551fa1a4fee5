/*
 * What the tests of large values share: stores, and values that follow from a seed and a size.
 */
#ifndef TEST_API_BLOB_H
#define TEST_API_BLOB_H

#include "api_dir.h"

#define MIB (1u << 20)

static inline struct quire *open_with(const char *name, uint32_t mode, uint64_t threshold)
{
    struct quire_options options = options_of(mode, QUIRE_LEVEL_PROCESS);
    options.background_threads = QUIRE_NO_THREADS;
    options.blob_threshold_bytes = threshold;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    return open_by(name, &options);
}

static inline struct quire *open_blobs(const char *name)
{
    return open_with(name, QUIRE_OPEN_OR_CREATE, 0);
}

/* Bytes that depend on seed and size. */
static inline uint8_t *make_value(uint64_t seed, size_t size)
{
    uint8_t *value = malloc(size + 8);
    uint64_t x = seed * 0x9e3779b97f4a7c15u + size + 1;
    cr_assert_not_null(value);
    for (size_t i = 0; i < size; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(value + i, &x, 8);
    }
    return value;
}

static inline size_t key_of(uint64_t number, char *key)
{
    return (size_t)sprintf(key, "key %06" PRIu64, number);
}

static inline void put_value(struct quire_tree *tree, uint64_t number, uint64_t seed, size_t size)
{
    char key[32];
    uint8_t *value = make_value(seed, size);
    int result = quire_put(tree, key, key_of(number, key), value, size, 0, NULL);
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    cr_assert(result == 0, "put: %s (%s, errno %d)", quire_strerror(result), detail.message, detail.os_errno);
    free(value);
}

static inline void expect_value_at(struct quire_tree *tree, struct quire_snapshot *snapshot, uint64_t number, uint64_t seed, size_t size)
{
    char key[32];
    uint8_t *value = make_value(seed, size);
    void *found = NULL;
    size_t found_size = 0;
    OK(quire_get_copy(tree, snapshot, key, key_of(number, key), &found, &found_size));
    cr_assert_eq(found_size, size);
    cr_assert(memcmp(found, value, size) == 0, "key %" PRIu64 " has another value", number);
    quire_free(found);
    free(value);
}

static inline void expect_value(struct quire_tree *tree, uint64_t number, uint64_t seed, size_t size)
{
    expect_value_at(tree, NULL, number, seed, size);
}

#endif
