/*
 * Goal: the tools that judge the engine are right themselves.
 * Method: the oracle against a brute-force list of writes; keys and values against their promises; see linear_test.c
 * for the linearizability checker.
 *
 * Test library.
 */
#include "check.h"
#include "keys.h"
#include "options.h"
#include "oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define WRITES 400
#define KEYS 12
#define VERSIONS 16

/* The brute-force side: every write in the order of arrival. */
struct write {
    unsigned key;
    uint64_t version;
    bool deleted;
    uint8_t value;
};

static size_t brute_key(unsigned key, uint8_t *buffer)
{
    static const char *const keys[KEYS] = {"", "a", "aa", "ab", "b", "ba", "bb", "bbb", "c", "ca", "\xff", "\xff\xff"};
    size_t size = strlen(keys[key]);
    memcpy(buffer, keys[key], size);
    return size;
}

static const struct write *brute_get(const struct write *writes, size_t count, unsigned key, uint64_t version)
{
    const struct write *best = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct write *write = &writes[i];
        if (write->key == key && write->version <= version && (best == NULL || write->version >= best->version))
            best = write;
    }
    return best != NULL && !best->deleted ? best : NULL;
}

static void compare_reads(const struct oracle *oracle, const struct write *writes, size_t count, uint64_t lowest)
{
    uint8_t bytes[8];
    for (uint64_t version = lowest; version <= VERSIONS; version++) {
        uint64_t live = 0;
        for (unsigned key = 0; key < KEYS; key++) {
            size_t size = brute_key(key, bytes);
            const struct write *expected = brute_get(writes, count, key, version);
            struct oracle_value value;
            bool found = oracle_get(oracle, version, bytes, size, &value);
            CHECK(found == (expected != NULL), "key %u version %" PRIu64, key, version);
            if (found && expected != NULL)
                CHECK(value.size == 1 && *(const uint8_t *)value.data == expected->value &&
                          value.version == expected->version,
                      "key %u version %" PRIu64, key, version);
            live += expected != NULL;
        }
        CHECK(oracle_count(oracle, (struct oracle_range){0}, version) == live, "count at %" PRIu64, version);
    }
}

static void compare_walks(const struct oracle *oracle, const struct write *writes, size_t count, uint64_t version)
{
    uint8_t start[8], end[8];
    for (unsigned low = 0; low < KEYS; low++) {
        for (unsigned high = low; high < KEYS; high++) {
            struct oracle_range range = {start, brute_key(low, start), end, brute_key(high, end)};
            for (int reverse = 0; reverse < 2; reverse++) {
                struct oracle_walk walk;
                struct oracle_item item;
                oracle_walk_start(&walk, oracle, range, version, reverse != 0);
                for (unsigned i = 0; i < high - low; i++) {
                    unsigned key = reverse ? high - 1 - i : low + i;
                    uint8_t bytes[8];
                    size_t size = brute_key(key, bytes);
                    if (brute_get(writes, count, key, version) == NULL)
                        continue;
                    CHECK(oracle_walk_next(&walk, &item) && oracle_compare(item.key, item.key_size, bytes, size) == 0,
                          "walk from %u to %u at key %u", low, high, key);
                }
                CHECK(!oracle_walk_next(&walk, &item), "walk from %u to %u goes on", low, high);
            }
        }
    }
}

static void oracle_answers_like_a_list_of_all_writes(uint64_t seed)
{
    struct random_stream stream;
    struct oracle *oracle = oracle_create();
    struct write *writes = calloc(WRITES, sizeof(*writes));
    uint8_t bytes[8];

    random_seed(&stream, seed);
    for (size_t i = 0; i < WRITES && writes != NULL; i++) {
        writes[i] = (struct write){.key = (unsigned)random_below(&stream, KEYS),
                                   .version = random_between(&stream, 1, VERSIONS),
                                   .deleted = random_chance(&stream, 30),
                                   .value = (uint8_t)i};
        size_t size = brute_key(writes[i].key, bytes);
        if (writes[i].deleted)
            oracle_delete(oracle, bytes, size, writes[i].version, i);
        else
            oracle_put(oracle, bytes, size, writes[i].version, i, &writes[i].value, 1);
        if (i % 50 == 49 || i < 10)
            compare_reads(oracle, writes, i + 1, 0);
    }
    compare_walks(oracle, writes, WRITES, VERSIONS / 2);
    compare_walks(oracle, writes, WRITES, UINT64_MAX);

    uint64_t before = oracle_versions(oracle);
    oracle_collect(oracle, VERSIONS / 2);
    CHECK(oracle_versions(oracle) < before, "%" PRIu64 " versions", before);
    compare_reads(oracle, writes, WRITES, VERSIONS / 2);
    oracle_collect(oracle, UINT64_MAX);
    compare_reads(oracle, writes, WRITES, VERSIONS);
    CHECK(oracle_versions(oracle) == oracle_count(oracle, (struct oracle_range){0}, UINT64_MAX), "one version a key");
    oracle_destroy(oracle);
    free(writes);
}

static void keys_are_functions_of_shape_and_index(void)
{
    uint8_t *first = malloc(KEY_MAX_BYTES);
    uint8_t *second = malloc(KEY_MAX_BYTES);
    bool seen_empty = false, seen_long = false;

    for (uint64_t index = 0; index < 5000 && first != NULL && second != NULL; index++) {
        size_t size = key_make_mixed(index, true, first);
        CHECK(size == key_make_mixed(index, true, second) && memcmp(first, second, size) == 0, "index %" PRIu64, index);
        seen_empty |= size == 0;
        seen_long |= size >= 4000;
        CHECK(key_make_mixed(index, false, first) <= 200, "index %" PRIu64, index);
    }
    CHECK(seen_empty && seen_long, "both extremes occur");
    for (int shape = 0; shape < KEY_SHAPE_COUNT; shape++)
        CHECK(key_make((enum key_shape)shape, 7, first) <= KEY_MAX_BYTES, "shape %d", shape);
    free(first);
    free(second);
}

static void values_prove_whose_they_are(void)
{
    uint8_t value[100];
    for (size_t size = 0; size <= sizeof(value); size++) {
        uint64_t id;
        value_make(0x1122334455667788u + size, value, size);
        CHECK(value_verify(value, size, &id), "size %zu", size);
        uint64_t mask = size < 8 ? (1ull << (8 * size)) - 1 : UINT64_MAX;
        CHECK(id == ((0x1122334455667788u + size) & mask), "size %zu", size);
        for (size_t at = 8; at < size; at += 7) {
            value[at] ^= 1;
            CHECK(!value_verify(value, size, &id), "flipped byte %zu of %zu", at, size);
            value[at] ^= 1;
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 0;
    const struct test_option options[] = {{.name = "seed", .help = "0 = from the clock", .number = &seed}};
    test_options_parse(argc, argv, "tests of the test library", options, 1);
    seed = test_seed(seed);

    for (uint64_t i = 0; i < 5; i++)
        oracle_answers_like_a_list_of_all_writes(seed + i);
    keys_are_functions_of_shape_and_index();
    values_prove_whose_they_are();
    return check_finish();
}
