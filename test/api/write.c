/*
 * Goal: any bytes can be stored, found, counted and deleted; sizes up to the limits work, sizes above are refused.
 * Method: scripts of single calls, each with its one right answer; threads where the row speaks of threads.
 */
#include "api_tree.h"

#include <pthread.h>

TestSuite(write, .init = open_database, .fini = close_database, .timeout = 60);

/* ---- Bytes ------------------------------------------------------------------------------------------------------ */

/* B07 */
Test(write, the_empty_key_and_the_empty_value_are_data)
{
    char buffer[4];
    size_t size = 99;
    EXPECT(quire_exists(tree, NULL, "", 0), QUIRE_NOT_FOUND);
    OK(quire_put(tree, NULL, 0, NULL, 0, 0, NULL));
    OK(quire_exists(tree, NULL, NULL, 0));
    OK(quire_get(tree, NULL, "", 0, buffer, sizeof(buffer), &size));
    cr_assert_eq(size, 0);
    cr_assert_eq(count_all(tree, NULL), 1);
    OK(quire_put(tree, "", 0, TEXT("x"), 0, NULL));
    expect(tree, NULL, "", "x");
    OK(quire_delete(tree, "", 0, 0, NULL, NULL));
    EXPECT(quire_exists(tree, NULL, NULL, 0), QUIRE_NOT_FOUND);
}

/* B07, M29: no byte pattern is reserved, in keys or values */
Test(write, all_one_byte_keys_and_telling_patterns_are_stored)
{
    static const char *const patterns[] = {"\xff\xff\xff\xff", "\xff\xfe", "\x01", "\xff"};
    char buffer[8];
    size_t size;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t key = (uint8_t)byte;
        OK(quire_put(tree, &key, 1, &key, 1, 0, NULL));
    }
    for (size_t i = 0; i < 4; i++) {
        OK(quire_put(tree, patterns[i], strlen(patterns[i]), patterns[i], strlen(patterns[i]), 0, NULL));
        expect(tree, NULL, patterns[i], patterns[i]);
    }
    OK(quire_put(tree, "\0\0", 2, "\0\0\0", 3, 0, NULL));
    OK(quire_get(tree, NULL, "\0\0", 2, buffer, sizeof(buffer), &size));
    cr_assert(size == 3 && memcmp(buffer, "\0\0\0", 3) == 0, "zero bytes differ");
    cr_assert_eq(count_all(tree, NULL), 256 + 2 + 1);
}

/* B04 */
Test(write, keys_are_ordered_by_unsigned_bytes_a_prefix_first)
{
    static const char *const ordered[] = {"", "\x01", "\x01\x01", "a", "ab", "b", "\x7f", "\x80", "\xff", "\xff\xff"};
    struct quire_pages *pages;
    struct quire_page page;
    size_t at = 0;
    for (size_t i = 10; i-- > 0;)
        put(tree, ordered[i], "v");
    OK(quire_pages_open(tree, NULL, &pages));
    while (quire_pages_next(pages, &page) == 0) {
        for (size_t i = 0; i < page.count; i++, at++) {
            const char *key = ordered[at];
            cr_assert(page.entries[i].key_size == strlen(key) && memcmp(page.entries[i].key, key, strlen(key)) == 0,
                      "key %zu is not '%s'", at, key);
        }
    }
    cr_assert_eq(at, 10);
    OK(quire_pages_close(pages));
}

/* ---- Sizes ------------------------------------------------------------------------------------------------------ */

/* B08 */
Test(write, keys_up_to_the_limit_are_stored_and_longer_ones_refused)
{
    struct quire_limits limits;
    uint64_t lsn = 42;
    size_t size = 0;
    char value[8];
    quire_limits(&limits);
    cr_assert_eq(limits.max_key_size, 131072);
    char *key = malloc(limits.max_key_size + 1);
    memset(key, 'k', limits.max_key_size + 1);

    for (size_t less = 0; less < 2; less++) {
        OK(quire_put(tree, key, limits.max_key_size - less, TEXT("v"), 0, NULL));
        OK(quire_get(tree, NULL, key, limits.max_key_size - less, value, sizeof(value), &size));
        cr_assert_eq(size, 1);
    }
    EXPECT(quire_put(tree, key, limits.max_key_size + 1, TEXT("v"), 0, &lsn), QUIRE_ERR_TOO_LARGE);
    cr_assert_eq(lsn, 42, "the output was touched");
    EXPECT(quire_get(tree, NULL, key, limits.max_key_size + 1, value, sizeof(value), &size), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_delete(tree, key, limits.max_key_size + 1, 0, NULL, NULL), QUIRE_ERR_TOO_LARGE);
    cr_assert_eq(count_all(tree, NULL), 2);
    free(key);
}

/* B09 */
Test(write, values_above_the_limit_are_refused_before_they_are_read)
{
    struct quire_limits limits;
    quire_limits(&limits);
    cr_assert_eq(limits.max_value_size, 268435456);
    cr_assert_eq(limits.max_file_value_size, 4294967295);
    EXPECT(quire_put(tree, TEXT("k"), "v", limits.max_value_size + 1, 0, NULL), QUIRE_ERR_TOO_LARGE);
    expect_detail(QUIRE_ERR_TOO_LARGE, "value");
    EXPECT(quire_insert(tree, TEXT("k"), "v", SIZE_MAX, 0, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_put(tree, "k", SIZE_MAX, TEXT("v"), 0, NULL), QUIRE_ERR_TOO_LARGE);
    cr_assert_eq(count_all(tree, NULL), 0);
}

/* B09 */
Test(write, a_value_of_16_mebibytes_comes_back)
{
    size_t size = 16u << 20, got = 0;
    uint8_t *value = malloc(size);
    void *copy = NULL;
    for (size_t i = 0; i < size; i++)
        value[i] = (uint8_t)(i * 31 >> 3);
    OK(quire_put(tree, TEXT("big"), value, size, 0, NULL));
    put(tree, "small", "s");
    OK(quire_get_copy(tree, NULL, TEXT("big"), &copy, &got));
    cr_assert(got == size && memcmp(copy, value, size) == 0, "bytes differ");
    expect(tree, NULL, "small", "s");
    quire_free(copy);
    free(value);
}

/* B11, M02: 20 puts of 9 KB over 1, 2 and 20 keys, then the leaf goes on */
Test(write, values_larger_than_a_page_do_not_hang_and_stay_readable)
{
    static char value[9000], read[9000];
    static const unsigned spread[] = {1, 2, 20};
    char key[16];
    size_t size;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 20; i++) {
            memset(value, (int)('a' + i), sizeof(value));
            OK(quire_put(tree, key, numbered(i % spread[round], key), value, sizeof(value), 0, NULL));
        }
        for (unsigned i = 0; i < spread[round]; i++) {
            OK(quire_get(tree, NULL, key, numbered(i, key), read, sizeof(read), &size));
            unsigned last = (19 - i) / spread[round] * spread[round] + i;
            cr_assert(size == sizeof(read) && read[0] == (char)('a' + last) && read[8999] == (char)('a' + last),
                      "round %u key %u", round, i);
        }
    }
    fill(tree, 0, 2000);
    cr_assert_eq(count_all(tree, NULL), 2000);
}

/* B11, M02: many versions in one leaf, kept by a snapshot each */
Test(write, versions_of_one_key_may_exceed_a_page)
{
    struct quire_snapshot *snapshots[200];
    char value[128];
    for (unsigned i = 0; i < 200; i++) {
        memset(value, 'v', 100);
        numbered(i, value + 100);
        put(tree, "k", value);
        OK(quire_snapshot(db, NULL, &snapshots[i]));
    }
    for (unsigned i = 0; i < 200; i++) {
        memset(value, 'v', 100);
        numbered(i, value + 100);
        expect(tree, snapshots[i], "k", value);
    }
    put(tree, "j", "before");
    put(tree, "l", "after");
    for (unsigned i = 0; i < 200; i++)
        OK(quire_snapshot_release(snapshots[i]));
    expect(tree, NULL, "j", "before");
}

/* ---- Reading back ----------------------------------------------------------------------------------------------- */

/* B22 */
Test(write, a_short_buffer_gets_the_needed_size_and_no_bytes)
{
    char buffer[8] = "unread";
    size_t size = 0;
    put(tree, "k", "12345");
    EXPECT(quire_get(tree, NULL, TEXT("k"), NULL, 0, &size), QUIRE_ERR_BUFFER_TOO_SMALL);
    cr_assert_eq(size, 5);
    size = 0;
    EXPECT(quire_get(tree, NULL, TEXT("k"), buffer, 4, &size), QUIRE_ERR_BUFFER_TOO_SMALL);
    cr_assert_eq(size, 5);
    cr_assert_str_eq(buffer, "unread");
    OK(quire_get(tree, NULL, TEXT("k"), buffer, 5, &size));
    cr_assert_eq(memcmp(buffer, "12345", 5), 0);
    cr_assert_eq(buffer[5], 'd', "a byte too many was written");
    OK(quire_put(tree, TEXT("empty"), NULL, 0, 0, NULL));
    OK(quire_get(tree, NULL, TEXT("empty"), NULL, 0, &size));
    cr_assert_eq(size, 0);
}

/* K03 */
Test(write, a_copy_of_an_empty_value_is_not_null)
{
    void *copy = NULL;
    size_t size = 99;
    OK(quire_put(tree, TEXT("k"), NULL, 0, 0, NULL));
    OK(quire_get_copy(tree, NULL, TEXT("k"), &copy, &size));
    cr_assert(copy != NULL && size == 0, "%p, %zu", copy, size);
    quire_free(copy);
    copy = &size;
    EXPECT(quire_get_copy(tree, NULL, TEXT("absent"), &copy, &size), QUIRE_NOT_FOUND);
    cr_assert(copy == &size && size == 0, "outputs were touched");
}

/* B18 */
Test(write, exists_says_what_get_would_find)
{
    EXPECT(quire_exists(tree, NULL, TEXT("k")), QUIRE_NOT_FOUND);
    put(tree, "k", "");
    OK(quire_exists(tree, NULL, TEXT("k")));
    OK(quire_delete(tree, TEXT("k"), 0, NULL, NULL));
    EXPECT(quire_exists(tree, NULL, TEXT("k")), QUIRE_NOT_FOUND);
}

/* B21, B03 */
Test(write, delete_reports_whether_there_was_a_value)
{
    int existed = -1;
    OK(quire_delete(tree, TEXT("k"), 0, &existed, NULL));
    cr_assert_eq(existed, 0);
    put(tree, "k", "v");
    OK(quire_delete(tree, TEXT("k"), 0, &existed, NULL));
    cr_assert_eq(existed, 1);
    OK(quire_delete(tree, TEXT("k"), 0, &existed, NULL));
    cr_assert_eq(existed, 0);
    OK(quire_delete(tree, TEXT("k"), 0, NULL, NULL));
}

/* B12: the last write of a key is the one with the highest LSN */
Test(write, lsns_grow_and_last_lsn_knows_them)
{
    uint64_t first = 0, second = 0, last = 99;
    struct quire *fresh = open_quiet();
    OK(quire_last_lsn(fresh, &last));
    cr_assert_eq(last, 0, "last LSN %" PRIu64 " before the first write", last);
    OK(quire_close(fresh));
    OK(quire_put(tree, TEXT("a"), TEXT("1"), 0, &first));
    OK(quire_put(tree, TEXT("b"), TEXT("1"), 0, &second));
    cr_assert(first > 0 && second > first, "%" PRIu64 ", %" PRIu64, first, second);
    OK(quire_delete(tree, TEXT("a"), 0, NULL, &first));
    cr_assert_gt(first, second);
    OK(quire_last_lsn(db, &last));
    cr_assert_eq(last, first, "last LSN %" PRIu64 ", not %" PRIu64, last, first);
}

/* B20 */
Test(write, count_is_exact_and_does_not_count_deletions)
{
    char key[16];
    uint64_t count = 0;
    fill(tree, 0, 3000);
    fill(tree, 1000, 2000); /* again: no new keys */
    cr_assert_eq(count_all(tree, NULL), 3000);
    for (uint64_t i = 0; i < 3000; i += 2)
        OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    cr_assert_eq(count_all(tree, NULL), 1500);
    OK(quire_count(tree, NULL, slice("key-000100"), slice("key-000200"), &count));
    cr_assert_eq(count, 50);
    OK(quire_count(tree, NULL, slice("key-000101"), slice("key-000101"), &count));
    cr_assert_eq(count, 0);
    OK(quire_count(tree, NULL, slice("key-002990"), (struct quire_slice){NULL, 0}, &count));
    cr_assert_eq(count, 5);
}

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

struct writer {
    pthread_t thread;
    unsigned number;
    uint64_t highest_lsn;
    char value[16];
};

static void *put_one_key(void *argument)
{
    struct writer *writer = argument;
    for (unsigned i = 0; i < 2000; i++) {
        char value[16];
        uint64_t lsn = 0;
        numbered(writer->number * 100000 + i, value);
        if (quire_put(tree, TEXT("shared"), value, 10, 0, &lsn) != 0 || lsn <= writer->highest_lsn)
            return "put";
        writer->highest_lsn = lsn;
        memcpy(writer->value, value, 11);
    }
    return NULL;
}

static void *put_own_keys(void *argument)
{
    struct writer *writer = argument;
    fill(tree, writer->number * 1000, writer->number * 1000 + 1000);
    return NULL;
}

static void run(struct writer *writers, unsigned count, void *(*body)(void *))
{
    void *failed = NULL;
    for (unsigned i = 0; i < count; i++) {
        writers[i].number = i;
        cr_assert_eq(pthread_create(&writers[i].thread, NULL, body, &writers[i]), 0);
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(writers[i].thread, &failed);
        cr_assert_null(failed, "a thread failed");
    }
}

/* B12, A06 */
Test(write, of_eight_threads_the_value_with_the_highest_lsn_stays)
{
    static struct writer writers[8];
    const struct writer *last = &writers[0];
    run(writers, 8, put_one_key);
    for (unsigned i = 1; i < 8; i++)
        last = writers[i].highest_lsn > last->highest_lsn ? &writers[i] : last;
    expect(tree, NULL, "shared", last->value);
}

/* B20, L04: the concurrent example of FeOxDB */
Test(write, ten_threads_of_a_thousand_keys_make_ten_thousand)
{
    static struct writer writers[10];
    char key[16];
    run(writers, 10, put_own_keys);
    cr_assert_eq(count_all(tree, NULL), 10000);
    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t value = 0;
        size_t size = 0;
        OK(quire_get(tree, NULL, key, numbered(i, key), &value, sizeof(value), &size));
        cr_assert_eq(value, i);
    }
}
