/*
 * Goal: a large value is a value as any other, wherever it lies.
 * Method: every call on values around each size that matters, in stores that are closed, checkpointed, abandoned, killed and copied
 * in between; statistics looked at. The largest value is tried with QUIRE_TEST_LARGEST=1 (it takes 8 GiB of memory, 4 of disk).
 */
#include "api_blob.h"

#include "db/db.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

TestSuite(blobs, .init = make_root, .fini = remove_root, .timeout = 200);

/* ---- Sizes ------------------------------------------------------------------------------------------------------ */

static const size_t sizes[] = {0,      1,     4095,  4096,   4097,   65535,     65536,        65537,
                               131071, 131072, 131073, MIB - 1, MIB,  MIB + 1, 3 * MIB + 12345, 9 * MIB};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void check_sizes(struct quire *db, struct quire_tree *tree)
{
    struct quire_guard guard;
    uint8_t *buffer = malloc(16 * MIB);
    OK(quire_pin(db, "sizes", &guard));
    for (size_t i = 0; i < SIZES; i++) {
        char key[32];
        size_t key_size = key_of(i, key);
        size_t size = 1;
        uint8_t *value = make_value(i, sizes[i]);
        struct quire_value held = {0};
        expect_value(tree, i, i, sizes[i]);
        OK(quire_get(tree, NULL, key, key_size, buffer, 16 * MIB, &size));
        cr_assert(size == sizes[i] && memcmp(buffer, value, size) == 0);
        OK(quire_guard_get(&guard, tree, NULL, key, key_size, &held));
        cr_assert(held.size == sizes[i] && memcmp(held.data, value, held.size) == 0);
        OK(quire_exists(tree, NULL, key, key_size));
        if (sizes[i] != 0) {
            EXPECT(quire_get(tree, NULL, key, key_size, buffer, sizes[i] - 1, &size), QUIRE_ERR_BUFFER_TOO_SMALL);
            cr_assert_eq(size, sizes[i]);
        }
        free(value);
    }
    OK(quire_unpin(&guard));
    free(buffer);
}

/* B09, M02: after closing with and without a checkpoint, too */
Test(blobs, values_of_all_sizes_come_back)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    for (size_t i = 0; i < SIZES; i++) put_value(tree, i, i, sizes[i]);
    check_sizes(db, tree);
    struct quire_stats stats = stats_of(db);
    cr_assert_eq(stats.blobs_written, SIZES - 4);
    cr_assert_gt(stats.blobs_read, 0);
    cr_assert_lt(stats.log_bytes, 100000, "the log has the large values too");
    for (int round = 0; round < 3; round++) {
        if (round == 1) OK(quire_checkpoint(db));
        OK(quire_close(db));
        db = open_blobs("s");
        tree = open_tree(db, NULL);
        check_sizes(db, tree);
        cr_assert_eq(stats_of(db).blob_live_bytes, stats.blob_live_bytes);
    }
    OK(quire_close(db));
}

/* M02 */
Test(blobs, a_value_of_64_mib)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    put_value(tree, 1, 1, 64 * (size_t)MIB);
    expect_value(tree, 1, 1, 64 * (size_t)MIB);
    OK(quire_close(db));
    db = open_blobs("s");
    expect_value(open_tree(db, NULL), 1, 1, 64 * (size_t)MIB);
    OK(quire_close(db));
}

/* B09: the limit, and one byte more */
Test(blobs, the_largest_value)
{
    struct quire_limits limits;
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    quire_limits(&limits);
    cr_assert_eq(limits.max_file_value_size, UINT32_MAX);
    EXPECT(quire_put(tree, TEXT("k"), "v", limits.max_file_value_size + 1, 0, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_exists(tree, NULL, TEXT("k")), QUIRE_NOT_FOUND);
    if (getenv("QUIRE_TEST_LARGEST") != NULL) {
        put_value(tree, 1, 1, limits.max_file_value_size);
        OK(quire_checkpoint(db));
        OK(quire_close(db));
        db = open_blobs("s");
        tree = open_tree(db, NULL);
        expect_value(tree, 1, 1, limits.max_file_value_size);
    }
    OK(quire_close(db));
}

/* M11: positions in the log of more than 32 bits; only with QUIRE_TEST_LARGEST=1 */
Test(blobs, a_log_beyond_four_gib)
{
    enum { COUNT = 64, SIZE = MIB };
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, QUIRE_LEVEL_PROCESS);
    options.log_segment_bytes = 0;
    options.blob_threshold_bytes = 4 * MIB; /* so the values are in PART frames */
    uint64_t lsn;
    uint64_t rounds = getenv("QUIRE_TEST_LARGEST") != NULL ? 70 : 1;
    struct quire *db = open_by("s", &options);
    struct quire_tree *tree = open_tree(db, NULL);
    for (uint64_t round = 1; round <= rounds; round++) {
        for (uint64_t i = 0; i < COUNT; i++) put_value(tree, i, round * COUNT + i, SIZE);
        if (round % 8 != 0) continue;
        OK(quire_checkpoint(db));
        OK(quire_close(db));
        db = open_by("s", &options);
        tree = open_tree(db, NULL);
        for (uint64_t i = 0; i < COUNT; i++) expect_value(tree, i, round * COUNT + i, SIZE);
    }
    OK(quire_last_lsn(db, &lsn));
    cr_assert_gt(lsn, rounds * COUNT * SIZE);
    db->options.no_sync_at_close = 1;
    OK(quire_close(db));
    db = open_by("s", &options);
    tree = open_tree(db, NULL);
    for (uint64_t i = 0; i < COUNT; i++) expect_value(tree, i, rounds * COUNT + i, SIZE);
    OK(quire_close(db));
}

/* B08 */
Test(blobs, a_large_value_under_the_largest_key)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    uint8_t *key = make_value(7, 131072);
    uint8_t *value = make_value(8, 100000);
    void *found;
    size_t size;
    OK(quire_put(tree, key, 131072, value, 100000, 0, NULL));
    for (int round = 0; round < 3; round++) {
        OK(quire_get_copy(tree, NULL, key, 131072, &found, &size));
        cr_assert(size == 100000 && memcmp(found, value, size) == 0);
        quire_free(found);
        if (round == 1) OK(quire_checkpoint(db));
        OK(quire_close(db));
        db = open_blobs("s");
        tree = open_tree(db, NULL);
    }
    OK(quire_close(db));
    free(key);
    free(value);
}

/* B09: the threshold is how values are written, not how they are read */
Test(blobs, the_threshold_may_change)
{
    static const uint64_t thresholds[] = {64, 268435456, 5000, 0};
    for (size_t round = 0; round < 4; round++) {
        struct quire *db = open_with("s", QUIRE_OPEN_OR_CREATE, thresholds[round]);
        struct quire_tree *tree = open_tree(db, NULL);
        for (uint64_t i = 0; i < round * 20; i++) expect_value(tree, i, i, 100 + i * 1000);
        for (uint64_t i = round * 20; i < round * 20 + 20; i++) put_value(tree, i, i, 100 + i * 1000);
        cr_assert_eq(stats_of(db).blobs_written, round == 1 ? 0 : 20);
        OK(quire_close(db));
    }
    struct quire_options options = options_of(0, 0);
    struct quire *db;
    options.blob_threshold_bytes = 63;
    EXPECT(quire_open(path_of("t"), &options, &db), QUIRE_ERR_INVALID);
    options.blob_threshold_bytes = 268435457;
    EXPECT(quire_open(path_of("t"), &options, &db), QUIRE_ERR_INVALID);
    quire_options_init(&options);
    options.blob_threshold_bytes = 4096;
    EXPECT(quire_open(NULL, &options, &db), QUIRE_ERR_INVALID);
}

/* B10: what the log could never hold is not written to it, whatever the threshold */
Test(blobs, what_is_too_much_for_the_log_is_a_blob)
{
    const size_t size = 20 << 20; /* the log has 1024 segments at most: 16 MiB */
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, QUIRE_LEVEL_PROCESS), taken;
    struct quire *db;
    options.background_threads = QUIRE_NO_THREADS;
    options.log_segment_bytes = 16384;
    options.blob_threshold_bytes = 268435456;
    OK(quire_open(path_of("s"), &options, &db));
    quire_options_init(&taken);
    OK(quire_options_get(db, &taken));
    cr_assert_eq(taken.blob_threshold_bytes, 256 * 16384);
    struct quire_tree *tree = open_tree(db, NULL);
    put_value(tree, 1, 1, size);
    cr_assert_eq(stats_of(db).blobs_written, 1);
    OK(quire_close(db));
    db = open_with("s", QUIRE_OPEN_EXISTING, 4096);
    expect_value(open_tree(db, NULL), 1, 1, size);
    OK(quire_close(db));
}

/* ---- Operations ------------------------------------------------------------------------------------------------- */

/* C02, M01 */
Test(blobs, snapshots_see_the_large_value_of_their_time)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    struct quire_snapshot *snapshots[20];
    for (uint64_t i = 0; i < 20; i++) {
        put_value(tree, 5, i, 5000 + i * 3000);
        OK(quire_snapshot(db, NULL, &snapshots[i]));
    }
    OK(quire_delete(tree, TEXT("key 000005"), 0, NULL, NULL));
    settle(db);
    OK(quire_checkpoint(db));
    for (uint64_t i = 0; i < 20; i++) expect_value_at(tree, snapshots[i], 5, i, 5000 + i * 3000);
    EXPECT(quire_exists(tree, NULL, TEXT("key 000005")), QUIRE_NOT_FOUND);
    for (int i = 0; i < 20; i++) OK(quire_snapshot_release(snapshots[i]));
    settle(db);
    cr_assert_eq(stats_of(db).blob_live_bytes, 0);
    OK(quire_close(db));
}

/* C03 */
Test(blobs, caller_versions_of_large_values)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_caller_tree(db, "v");
    uint8_t *value = make_value(1, 400000);
    uint8_t *buffer = malloc(400000);
    size_t size;
    for (uint64_t v = 40; v > 0; v--) OK(quire_put_at(tree, v * 10, TEXT("k"), value, v * 10000, 0, NULL));
    OK(quire_put_at(tree, 100, TEXT("k"), value, 77777, 0, NULL)); /* the same version again */
    for (int round = 0; round < 3; round++) {
        struct quire_guard guard;
        struct quire_value held;
        for (uint64_t v = 1; v <= 40; v++) {
            OK(quire_get_at(tree, v * 10 + 3, TEXT("k"), buffer, 400000, &size));
            cr_assert_eq(size, v == 10 ? 77777 : v * 10000);
            cr_assert(memcmp(buffer, value, size) == 0);
        }
        OK(quire_pin(db, NULL, &guard));
        OK(quire_guard_get_at(&guard, tree, 255, TEXT("k"), &held));
        cr_assert(held.size == 250000 && held.version == 250 && memcmp(held.data, value, held.size) == 0);
        OK(quire_unpin(&guard));
        if (round == 1) OK(quire_checkpoint(db));
        OK(quire_close(db));
        db = open_blobs("s");
        tree = open_caller_tree(db, "v");
    }
    OK(quire_set_safe_lsn(tree, 200));
    settle(db);
    OK(quire_get_at(tree, 200, TEXT("k"), buffer, 400000, &size));
    cr_assert_eq(size, 200000);
    OK(quire_close(db));
    free(value);
    free(buffer);
}

/* E02, E03 */
Test(blobs, conditional_operations_on_large_values)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    size_t size = 200000;
    uint8_t *first = make_value(1, size);
    uint8_t *second = make_value(2, size);
    int existed = -1;
    OK(quire_insert(tree, TEXT("k"), first, size, 0, NULL));
    EXPECT(quire_insert(tree, TEXT("k"), second, size, 0, NULL), QUIRE_EXISTS);
    EXPECT(quire_add(tree, TEXT("k"), 1, 0, NULL, NULL), QUIRE_ERR_WRONG_TYPE);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), second, size, "small", 5, 0, NULL), QUIRE_CONFLICT);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), first, size - 1, "small", 5, 0, NULL), QUIRE_CONFLICT);
    first[size - 1] ^= 1;
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), first, size, "small", 5, 0, NULL), QUIRE_CONFLICT);
    first[size - 1] ^= 1;
    OK(quire_compare_and_swap(tree, TEXT("k"), first, size, second, size, 0, NULL));
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), first, size, "small", 5, 0, NULL), QUIRE_CONFLICT);
    OK(quire_compare_and_swap(tree, TEXT("k"), second, size, "small", 5, 0, NULL));
    OK(quire_compare_and_swap(tree, TEXT("k"), "small", 5, first, size, 0, NULL));
    OK(quire_delete(tree, TEXT("k"), 0, &existed, NULL));
    cr_assert_eq(existed, 1);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), first, size, second, size, 0, NULL), QUIRE_NOT_FOUND);
    settle(db);
    struct quire_stats stats = stats_of(db);
    cr_assert_eq(stats.blob_live_bytes, 0, "%" PRIu64 " bytes are live, with no key", stats.blob_live_bytes);
    OK(quire_close(db));
    free(first);
    free(second);
}

/* H02 */
Test(blobs, many_at_once_and_under_one_guard)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    struct quire_slice keys[50];
    struct quire_value values[50];
    int results[50];
    char text[50][32];
    struct quire_guard guard;
    for (uint64_t i = 0; i < 50; i++) {
        keys[i] = (struct quire_slice){text[i], key_of(i, text[i])};
        if (i % 7 != 0) put_value(tree, i, i, i * 900);
    }
    OK(quire_pin(db, NULL, &guard));
    OK(quire_get_many(&guard, tree, NULL, keys, 50, values, results));
    for (uint64_t i = 0; i < 50; i++) put_value(tree, i, 1000 + i, 20000); /* what the guard has stays */
    for (uint64_t i = 0; i < 50; i++) {
        uint8_t *value = make_value(i, i * 900);
        cr_assert_eq(results[i], i % 7 != 0 ? 0 : QUIRE_NOT_FOUND);
        if (i % 7 != 0) cr_assert(values[i].size == i * 900 && memcmp(values[i].data, value, values[i].size) == 0);
        free(value);
    }
    OK(quire_unpin(&guard));
    OK(quire_close(db));
}

/* H05: a value that the memory limit has no room for */
Test(blobs, a_guard_holds_no_more_than_the_limit)
{
    struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
    struct quire *db;
    struct quire_guard guard;
    struct quire_value value;
    char byte;
    size_t size;
    options.memory_limit_bytes = 8 * MIB;
    options.background_threads = QUIRE_NO_THREADS;
    OK(quire_open(path_of("s"), &options, &db));
    struct quire_tree *tree = open_tree(db, NULL);
    put_value(tree, 1, 1, 20 * MIB);
    put_value(tree, 2, 2, 1 * MIB);
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_guard_get(&guard, tree, NULL, TEXT("key 000001"), &value), QUIRE_ERR_NO_MEMORY);
    OK(quire_guard_get(&guard, tree, NULL, TEXT("key 000002"), &value));
    OK(quire_unpin(&guard));
    expect_value(tree, 1, 1, 20 * MIB); /* the caller's own memory is the caller's affair */
    EXPECT(quire_get(tree, NULL, TEXT("key 000001"), &byte, 1, &size), QUIRE_ERR_BUFFER_TOO_SMALL);
    for (int i = 0; i < 100; i++) { /* and it comes back */
        OK(quire_pin(db, NULL, &guard));
        int result = quire_guard_get(&guard, tree, NULL, TEXT("key 000002"), &value);
        OK(quire_unpin(&guard));
        if (result == QUIRE_ERR_NO_MEMORY) settle(db);
        else OK(result);
    }
    OK(quire_close(db));
}

/* ---- Pages ------------------------------------------------------------------------------------------------------ */

#define PAGED 300u

static size_t paged_size(uint64_t i)
{
    return i % 5 == 0 ? 30 : i == 77 ? 3 * (size_t)MIB : i % 11 == 0 ? 400000 : 4097 + i * 10;
}

static void walk(struct quire_tree *tree, bool reverse, bool skip)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    uint64_t seen = 0;
    int result;
    quire_pages_options_init(&options);
    options.reverse = reverse;
    options.skip_large_values = skip;
    OK(quire_pages_open(tree, &options, &pages));
    while ((result = quire_pages_next(pages, &page)) == 0) {
        uint64_t large = 0;
        cr_assert_gt(page.count, 0);
        for (size_t k = 0; k < page.count; k++) {
            const struct quire_entry *entry = &page.entries[k];
            uint64_t i = reverse ? PAGED - 1 - seen : seen;
            char key[32];
            cr_assert(entry->key_size == key_of(i, key) && memcmp(entry->key, key, entry->key_size) == 0);
            cr_assert_eq(entry->value_size, paged_size(i));
            if (skip && paged_size(i) > 4096) {
                cr_assert_null(entry->value);
            } else {
                uint8_t *value = make_value(i, paged_size(i));
                cr_assert(memcmp(entry->value, value, entry->value_size) == 0);
                free(value);
            }
            large += paged_size(i) > 4096 ? paged_size(i) : 0;
            seen++;
        }
        cr_assert(skip || large <= MIB || page.count == 1 || large <= 3 * MIB + 30, "%" PRIu64 " bytes in a step", large);
    }
    EXPECT(result, QUIRE_END);
    cr_assert_eq(seen, PAGED);
    OK(quire_pages_close(pages));
}

/* C01, C10 */
Test(blobs, pages_hand_out_large_values)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    uint64_t count;
    for (uint64_t i = 0; i < PAGED; i++) put_value(tree, i, i, paged_size(i));
    for (int round = 0; round < 2; round++) {
        for (int way = 0; way < 4; way++) walk(tree, way & 1, way & 2);
        uint64_t read = stats_of(db).blobs_read;
        OK(quire_count(tree, NULL, (struct quire_slice){0}, (struct quire_slice){0}, &count));
        cr_assert_eq(count, PAGED);
        cr_assert_eq(stats_of(db).blobs_read, read, "counting reads values");
        OK(quire_checkpoint(db));
        OK(quire_close(db));
        db = open_blobs("s");
        tree = open_tree(db, NULL);
    }
    OK(quire_close(db));
}

/* One that was put since its leaf was last consolidated. */
Test(blobs, pages_hand_out_a_large_value_of_a_chain)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    struct quire_pages *pages;
    struct quire_page page;
    uint8_t *value = make_value(7, MIB);
    for (size_t i = 0; i < 30; i++) put_value(tree, i, i, 10);
    while (quire_maintain(db) == QUIRE_MORE) {
    }
    put_value(tree, 7, 7, MIB);
    OK(quire_pages_open(tree, NULL, &pages));
    OK(quire_pages_next(pages, &page));
    cr_assert_eq(page.count, 30);
    cr_assert(page.entries[7].value_size == MIB && memcmp(page.entries[7].value, value, MIB) == 0);
    OK(quire_pages_close(pages));
    free(value);
    OK(quire_close(db));
}

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

#define SHARED_KEYS 32u /* a power of two */
static struct quire *shared_db;
static struct quire_tree *shared_tree;
static _Atomic uint32_t wrong, over;

/* A value that tells what it is: its number, over and over. */
static void fill_value(uint64_t number, uint8_t *value, size_t size)
{
    for (size_t i = 0; i < size; i += 8) memcpy(value + i, &number, 8);
}

static bool is_whole(const void *value, size_t size)
{
    uint64_t first, word;
    memcpy(&first, value, 8);
    for (size_t i = 8; i < size; i += 8) {
        memcpy(&word, (const uint8_t *)value + i, 8);
        if (word != first) return false;
    }
    return size == 8 * (1 + first % 3000);
}

static void *write_shared(void *argument)
{
    uint64_t x = (uint64_t)(uintptr_t)argument;
    uint8_t *value = malloc(24008);
    for (uint32_t i = 0; i < (INSTRUMENTED ? 400 : 3000); i++) {
        char key[32];
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint64_t number = x >> 16;
        size_t size = 8 * (1 + number % 3000), key_size = key_of(x >> 33 & 0xffff & (SHARED_KEYS - 1), key);
        fill_value(number, value, size);
        void *old = NULL;
        size_t old_size = 0;
        int result;
        if (i % 10 == 0) {
            result = quire_delete(shared_tree, key, key_size, 0, NULL, NULL);
        } else if (i % 10 == 1 && quire_get_copy(shared_tree, NULL, key, key_size, &old, &old_size) == 0) {
            result = quire_compare_and_swap(shared_tree, key, key_size, old, old_size, value, size, 0, NULL);
            quire_free(old);
        } else {
            result = quire_put(shared_tree, key, key_size, value, size, i % 50 == 0 ? QUIRE_WRITE_DURABLE : 0, NULL);
        }
        if (result < 0) wrong++;
    }
    free(value);
    return NULL;
}

static void *read_shared(void *argument)
{
    uint64_t x = (uint64_t)(uintptr_t)argument;
    while (atomic_load(&over) == 0) {
        struct quire_guard guard;
        struct quire_value value;
        char key[32];
        x = x * 6364136223846793005u + 1442695040888963407u;
        size_t key_size = key_of(x >> 33 & (SHARED_KEYS - 1), key);
        if (quire_pin(shared_db, NULL, &guard) != 0) wrong++;
        int result = quire_guard_get(&guard, shared_tree, NULL, key, key_size, &value);
        if (result < 0 || (result == 0 && !is_whole(value.data, value.size))) wrong++;
        quire_unpin(&guard);
        struct quire_pages *pages;
        struct quire_page page;
        if (x >> 60 != 0 || quire_pages_open(shared_tree, NULL, &pages) != 0) continue;
        while ((result = quire_pages_next(pages, &page)) == 0)
            for (size_t i = 0; i < page.count; i++)
                if (!is_whole(page.entries[i].value, page.entries[i].value_size)) wrong++;
        if (result != QUIRE_END) wrong++;
        quire_pages_close(pages);
    }
    return NULL;
}

static void *checkpoint_shared(void *argument)
{
    while (atomic_load(&over) == 0) {
        if (quire_checkpoint(shared_db) != 0) wrong++;
        usleep(3000);
    }
    return argument;
}

/* A04, C02: and in the end the living are those that keys have */
Test(blobs, of_many_threads)
{
    struct quire_options options = options_of(0, QUIRE_LEVEL_PROCESS);
    pthread_t threads[5];
    uint64_t live = 0;
    OK(quire_open(path_of("s"), &options, &shared_db));
    shared_tree = open_tree(shared_db, NULL);
    for (uintptr_t i = 0; i < 2; i++) pthread_create(&threads[i], NULL, write_shared, (void *)(i + 1));
    for (uintptr_t i = 2; i < 4; i++) pthread_create(&threads[i], NULL, read_shared, (void *)(i + 1));
    pthread_create(&threads[4], NULL, checkpoint_shared, NULL);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    atomic_store(&over, 1);
    for (int i = 2; i < 5; i++) pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&wrong), 0, "%u calls answered wrongly", atomic_load(&wrong));
    for (int round = 0; round < 2; round++) {
        settle(shared_db);
        live = 0;
        for (uint64_t k = 0; k < SHARED_KEYS; k++) {
            char key[32];
            size_t size;
            void *found;
            if (quire_get_copy(shared_tree, NULL, key, key_of(k, key), &found, &size) != 0) continue;
            cr_assert(is_whole(found, size));
            if (size > 4096) live += 128 + (size + 63) / 64 * 64;
            quire_free(found);
        }
        uint64_t said = stats_of(shared_db).blob_live_bytes;
        cr_assert_eq(said, live, "%" PRIu64 " live, not %" PRIu64, said, live);
        OK(quire_close(shared_db));
        OK(quire_open(path_of("s"), &options, &shared_db));
        shared_tree = open_tree(shared_db, NULL);
    }
    OK(quire_close(shared_db));
}

/* ---- Crashes and copies ----------------------------------------------------------------------------------------- */

#define KILLED_KEYS 50u

static size_t killed_size(uint64_t k)
{
    return 3000 + k * 700;
}

/* Writes on from number *done until it is killed. */
static void write_until_killed(volatile uint64_t *done)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    for (uint64_t n = *done;; n++) {
        put_value(tree, n % KILLED_KEYS, n, killed_size(n % KILLED_KEYS));
        *done = n + 1;
        if (n % 97 == 0) OK(quire_checkpoint(db));
    }
}

/* Every key has the last write that was acknowledged, or the one that was under way. */
static bool all_are_there(uint64_t done)
{
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    bool right = true;
    for (uint64_t k = 0; k < KILLED_KEYS && k < done; k++) {
        char key[32];
        void *found;
        size_t size;
        OK(quire_get_copy(tree, NULL, key, key_of(k, key), &found, &size));
        uint8_t *last = make_value((done - 1 - k) / KILLED_KEYS * KILLED_KEYS + k, killed_size(k));
        uint8_t *next = make_value(done, killed_size(k));
        right = right && size == killed_size(k) && (memcmp(found, last, size) == 0 || memcmp(found, next, size) == 0);
        free(last);
        free(next);
        quire_free(found);
    }
    settle(db);
    right = right && stats_of(db).blob_live_bytes <= KILLED_KEYS * 2 * killed_size(KILLED_KEYS);
    OK(quire_close(db));
    return right;
}

/* F01: the death of the process at any time. Children do everything: a parent that has used Quire must not fork (FORKED). */
Test(blobs, what_a_dead_process_wrote_is_there)
{
    volatile uint64_t *done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (uint64_t round = 0; round < 12; round++) {
        int status;
        uint64_t from = *done;
        pid_t child = fork();
        if (child == 0) write_until_killed(done);
        for (int ms = 0; *done < from + 30 + round * 20 && ms < 10000; ms++) usleep(1000);
        kill(child, SIGKILL);
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(*done >= from + 30, "the writer came to %" PRIu64, *done);
        child = fork();
        if (child == 0) _exit(all_are_there(*done) ? 0 : 1);
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "round %" PRIu64, round);
    }
}

/* F19, F32: read-only, and a copy beside the original */
Test(blobs, copies_and_readers)
{
    char command[256];
    struct quire *db = open_blobs("s");
    struct quire_tree *tree = open_tree(db, NULL);
    for (uint64_t i = 0; i < 20; i++) put_value(tree, i, i, 9000);
    OK(quire_checkpoint(db));
    for (uint64_t i = 20; i < 40; i++) put_value(tree, i, i, 9000);
    OK(quire_sync(db));
    snprintf(command, sizeof(command), "cp -r %s/s %s/copy", root, root);
    cr_assert_eq(system(command), 0);
    OK(quire_close(db));
    uint64_t before = digest("s");
    db = open_with("s", QUIRE_OPEN_READ_ONLY, 0);
    tree = open_tree(db, NULL);
    for (uint64_t i = 0; i < 40; i++) expect_value(tree, i, i, 9000);
    EXPECT(quire_put(tree, TEXT("k"), root, sizeof(root), 0, NULL), QUIRE_ERR_READ_ONLY);
    OK(quire_close(db));
    cr_assert_eq(digest("s"), before);
    db = open_blobs("copy");
    tree = open_tree(db, NULL);
    for (uint64_t i = 0; i < 40; i++) expect_value(tree, i, i, 9000);
    put_value(tree, 3, 33, 70000);
    OK(quire_close(db));
    db = open_blobs("copy");
    expect_value(open_tree(db, NULL), 3, 33, 70000);
    OK(quire_close(db));
    OK(quire_destroy(path_of("copy")));
    OK(quire_destroy(path_of("s")));
}
