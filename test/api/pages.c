/*
 * Goal: pages hand out every visible record once, in order, in both directions and within bounds, and stay readable
 * until the next step.
 * Method: trees of many small leaves, scanned whole and in ranges, with writers, drops and merges between the steps.
 */
#include "api_tree.h"
#include "base/check.h"
#include "db/testing.h"

#include <pthread.h>
#include <stdio.h>

TestSuite(pages, .init = open_small_database, .fini = close_database, .timeout = 60);

static uint64_t number_of(const struct quire_entry *entry)
{
    uint64_t number = 0;
    cr_assert(entry->key_size == 10 && memcmp(entry->key, "key-", 4) == 0, "key of %zu bytes", entry->key_size);
    for (unsigned i = 4; i < 10; i++)
        number = number * 10 + (uint64_t)(((const char *)entry->key)[i] - '0');
    return number;
}

/* Scans and expects every step-th number of [first, beyond), ascending or descending. */
static void expect_scan(const struct quire_pages_options *options, uint64_t first, uint64_t beyond, uint64_t step)
{
    struct quire_pages *pages = NULL;
    struct quire_page page;
    uint64_t count = (beyond - first + step - 1) / step, seen = 0;
    int result;

    OK(quire_pages_open(tree, options, &pages));
    while ((result = quire_pages_next(pages, &page)) == 0) {
        cr_assert_geq(page.count, 1);
        for (size_t i = 0; i < page.count; i++, seen++) {
            uint64_t right = first + step * (options->reverse ? count - 1 - seen : seen);
            cr_assert_lt(seen, count, "entries beyond the end");
            cr_assert_eq(number_of(&page.entries[i]), right, "%" PRIu64 " where %" PRIu64 " belongs",
                         number_of(&page.entries[i]), right);
        }
    }
    cr_assert_eq(result, QUIRE_END);
    cr_assert_eq(seen, count, "%" PRIu64 " of %" PRIu64, seen, count);
    OK(quire_pages_close(pages));
}

static struct quire_pages_options range(const char *start, const char *end, uint32_t reverse)
{
    struct quire_pages_options options;
    quire_pages_options_init(&options);
    if (start != NULL)
        options.start = slice(start);
    if (end != NULL)
        options.end = slice(end);
    options.reverse = reverse;
    return options;
}

/* ---- Whole trees ------------------------------------------------------------------------------------------------ */

/* C03, C05 */
Test(pages, of_an_empty_tree_are_none)
{
    struct quire_pages *pages;
    struct quire_page page = {.count = 77};
    OK(quire_pages_open(tree, NULL, &pages));
    for (unsigned i = 0; i < 3; i++)
        EXPECT(quire_pages_next(pages, &page), QUIRE_END);
    cr_assert_eq(page.count, 77, "the output was touched");
    OK(quire_pages_close(pages));
}

/* C03 */
Test(pages, hand_out_every_record_once_in_order_in_both_directions)
{
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        struct quire_pages_options options = range(NULL, NULL, reverse);
        fill(tree, 0, 5000);
        expect_scan(&options, 0, 5000, 1);
        cr_assert_geq(qr_testing_consolidate(tree, 1, 100), 0);
        expect_scan(&options, 0, 5000, 1);
    }
}

static uint64_t splits_of(void)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    OK(quire_stats(db, &stats));
    return stats.tree_splits;
}

/* Keys that come in order leave nearly full leaves, and none that maintenance would have to split. */
Test(pages, of_a_sequential_fill_are_full_and_stay_so)
{
    static const size_t sizes[] = {0, 10, 100, 400, 1000};
    static char value[1000];
    for (uint32_t i = 0; i < QR_ARRAY_COUNT(sizes); i++) {
        char name[16], key[16];
        uint64_t bytes = 0, count = 0;
        struct quire_pages *pages = NULL;
        struct quire_page page;
        snprintf(name, sizeof(name), "fill %u", i);
        struct quire_tree *filled = open_tree(db, name);
        for (uint64_t k = 0; bytes < 2000000; k++, bytes += 16 + sizes[i]) {
            snprintf(key, sizeof(key), "%015" PRIu64, k);
            OK(quire_put(filled, key, 15, value, sizes[i], 0, NULL));
        }
        uint64_t splits = splits_of();
        while (quire_maintain(db) == QUIRE_MORE) {
        }
        cr_assert_leq(splits_of(), splits + 1, "values of %zu bytes: maintenance splits more than the last leaf", sizes[i]);
        OK(quire_pages_open(filled, NULL, &pages));
        while (quire_pages_next(pages, &page) == 0) count++;
        OK(quire_pages_close(pages));
        cr_assert_gt(bytes / count, sizes[i] < 100 ? 2500 : 5500, "values of %zu bytes: %" PRIu64 " bytes a page", sizes[i], bytes / count);
    }
}

/* C03, C29: deleted records are not handed out, nor are empty pages */
Test(pages, skip_deletions)
{
    char key[16];
    fill(tree, 0, 3000);
    for (uint64_t i = 0; i < 3000; i++) {
        if (i % 10 != 0)
            OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    }
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        struct quire_pages_options options = range(NULL, NULL, reverse);
        expect_scan(&options, 0, 3000, 10);
        settle(db);
        expect_scan(&options, 0, 3000, 10);
    }
}

/* C05 */
Test(pages, end_again_and_again)
{
    struct quire_pages *pages;
    struct quire_page page;
    fill(tree, 0, 100);
    OK(quire_pages_open(tree, NULL, &pages));
    while (quire_pages_next(pages, &page) == 0)
        continue;
    for (unsigned i = 0; i < 3; i++)
        EXPECT(quire_pages_next(pages, &page), QUIRE_END);
    put(tree, "key-999999", "later");
    EXPECT(quire_pages_next(pages, &page), QUIRE_END);
    OK(quire_pages_close(pages));
}

/* C05, K02: a step that cannot read a page says so, and goes on from the same place when it is tried again */
Test(pages, a_step_that_cannot_read_is_tried_again_without_gap_or_repetition)
{
    fill(tree, 0, 1000);
    OK(qr_testing_attach_store(db));
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        struct quire_pages_options options = range(NULL, NULL, reverse);
        struct quire_pages *pages;
        struct quire_page page;
        uint64_t seen = 0, failures = 0;
        int result = 0;
        OK(quire_pages_open(tree, &options, &pages));
        for (uint64_t n = 0; result == 0; n++) {
            qr_testing_drop_pages(db, n, 100);
            qr_testing_fail_read(db, 1 + n % 3); /* the root's child, or what is below */
            memset(&page, 0xaa, sizeof(page));
            result = quire_pages_next(pages, &page);
            qr_testing_fail_read(db, 0);
            if (result < 0) {
                cr_assert_eq(result, QUIRE_ERR_CORRUPT, "%d", result);
                expect_detail(QUIRE_ERR_CORRUPT, "verification");
                cr_assert_eq(page.reverse, 0xaaaaaaaa, "the output was touched");
                failures++;
                result = quire_pages_next(pages, &page);
            }
            for (size_t i = 0; result == 0 && i < page.count; i++, seen++)
                cr_assert_eq(number_of(&page.entries[i]), reverse ? 999 - seen : seen, "after %" PRIu64 " failures",
                             failures);
        }
        cr_assert_eq(result, QUIRE_END, "%d", result);
        cr_assert_eq(seen, 1000);
        cr_assert_gt(failures, 20, "%" PRIu64 " reads failed", failures);
        OK(quire_pages_close(pages));
    }
}

/* C05, K02: the same of a get; what cannot be read is neither absent nor damaged for ever */
Test(pages, a_get_that_cannot_read_fails_and_is_tried_again)
{
    uint64_t value = 0;
    size_t size = 0;
    fill(tree, 0, 100);
    OK(qr_testing_attach_store(db));
    cr_assert_gt(qr_testing_drop_pages(db, 1, 100), 0);
    qr_testing_fail_read(db, 1);
    EXPECT(quire_get(tree, NULL, TEXT("key-000042"), &value, sizeof(value), &size), QUIRE_ERR_CORRUPT);
    OK(quire_get(tree, NULL, TEXT("key-000042"), &value, sizeof(value), &size));
    cr_assert_eq(value, 42);
}

/* C30 */
Test(pages, carry_raw_keys_values_and_lsns)
{
    struct quire_pages *pages;
    struct quire_page page;
    uint64_t lsn = 0;
    OK(quire_put(tree, "\0k\xff", 3, TEXT("value"), 0, &lsn));
    OK(quire_pages_open(tree, NULL, &pages));
    OK(quire_pages_next(pages, &page));
    const struct quire_entry *entry = &page.entries[0];
    cr_assert(page.count == 1 && entry->key_size == 3 && memcmp(entry->key, "\0k\xff", 3) == 0, "key");
    cr_assert(entry->value_size == 5 && memcmp(entry->value, "value", 5) == 0, "value");
    cr_assert(entry->lsn == lsn && entry->version == lsn, "lsn");
    OK(quire_pages_close(pages));
}

/* ---- Bounds ----------------------------------------------------------------------------------------------------- */

/* C08 */
Test(pages, start_at_the_start_and_end_before_the_end)
{
    fill(tree, 0, 2000);
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        struct quire_pages_options options = range("key-000500", "key-001500", reverse);
        expect_scan(&options, 500, 1500, 1);
        options = range("key-000500", NULL, reverse);
        expect_scan(&options, 500, 2000, 1);
        options = range(NULL, "key-001500", reverse);
        expect_scan(&options, 0, 1500, 1);
        options = range("key-0005", "key-000501x", reverse); /* bounds that are no keys */
        expect_scan(&options, 500, 502, 1);
        options = range("key-000500", "key-000500", reverse);
        expect_scan(&options, 500, 500, 1);
        options = range("key-000500", "key-000501", reverse);
        expect_scan(&options, 500, 501, 1);
        options = range("l", NULL, reverse);
        expect_scan(&options, 0, 0, 1);
    }
}

/* C08, B07: the empty key as a bound is not "no bound" */
Test(pages, bounds_may_be_the_empty_key)
{
    fill(tree, 0, 10);
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        struct quire_pages_options options = range("", NULL, reverse);
        expect_scan(&options, 0, 10, 1);
        options = range("", "", reverse);
        expect_scan(&options, 0, 0, 1);
        options = range(NULL, "", reverse);
        expect_scan(&options, 0, 0, 1);
    }
}

/* C08 */
Test(pages, from_a_key_do_not_read_what_lies_before)
{
    struct quire_pages *pages;
    struct quire_page page;
    struct quire_pages_options options = range("key-019990", NULL, 0);
    fill(tree, 0, 20000);
    uint64_t before = stats_of(db).pages_read;
    OK(quire_pages_open(tree, &options, &pages));
    OK(quire_pages_next(pages, &page));
    cr_assert_eq(number_of(&page.entries[0]), 19990);
    OK(quire_pages_close(pages));
    cr_assert_leq(stats_of(db).pages_read - before, 3);
}

/* The bounds are copied at open */
Test(pages, bounds_may_be_freed_after_open)
{
    struct quire_pages *pages;
    struct quire_page page;
    char start[] = "key-000010", end[] = "key-000020";
    struct quire_pages_options options = range(start, end, 0);
    uint64_t seen = 0;
    fill(tree, 0, 100);
    OK(quire_pages_open(tree, &options, &pages));
    memset(start, 'z', sizeof(start) - 1);
    memset(end, 'a', sizeof(end) - 1);
    while (quire_pages_next(pages, &page) == 0) {
        for (size_t i = 0; i < page.count; i++, seen++)
            cr_assert_eq(number_of(&page.entries[i]), 10 + seen);
    }
    cr_assert_eq(seen, 10);
    OK(quire_pages_close(pages));
}

/* ---- Between the steps ------------------------------------------------------------------------------------------ */

/* C02, C03: the page of the last step stays */
Test(pages, entries_stay_valid_until_the_next_step)
{
    struct quire_pages *pages;
    struct quire_page page;
    char key[16];
    fill(tree, 0, 1000);
    OK(qr_testing_attach_store(db));
    OK(quire_pages_open(tree, NULL, &pages));
    for (unsigned step = 0; step < 10; step++) {
        uint64_t values[512], numbers[512];
        OK(quire_pages_next(pages, &page));
        cr_assert_leq(page.count, 512);
        for (size_t i = 0; i < page.count; i++) {
            memcpy(&values[i], page.entries[i].value, 8);
            numbers[i] = number_of(&page.entries[i]);
        }
        for (uint64_t i = 0; i < 1000; i++)
            OK(quire_put(tree, key, numbered(i, key), i % 2 ? "something" : "changed!", 8, 0, NULL));
        qr_testing_drop_pages(db, step, 100);
        settle(db);
        for (size_t i = 0; i < page.count; i++)
            cr_assert(memcmp(&values[i], page.entries[i].value, 8) == 0 && number_of(&page.entries[i]) == numbers[i],
                      "entry %zu changed", i);
    }
    OK(quire_pages_close(pages));
}

/* C04: splits and merges between steps hide and repeat nothing that is always there */
Test(pages, every_lasting_key_appears_once_while_leaves_split_and_merge)
{
    char key[16];
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        struct quire_pages_options options = range(NULL, NULL, reverse);
        struct quire_pages *pages;
        struct quire_page page;
        uint64_t seen = 0, step = 0;
        fill(tree, 0, 4000);
        OK(quire_pages_open(tree, &options, &pages));
        while (quire_pages_next(pages, &page) == 0) {
            for (size_t i = 0; i < page.count; i++) {
                uint64_t number = number_of(&page.entries[i]);
                if (number % 20 != 0)
                    continue;
                uint64_t right = 20 * (reverse ? 199 - seen : seen);
                cr_assert_eq(number, right, "%" PRIu64 " where %" PRIu64 " belongs", number, right);
                seen++;
            }
            if (step++ % 10 == 0) {
                for (uint64_t i = 0; i < 4000; i++) {
                    if (i % 20 != 0)
                        OK(step % 20 == 1 ? quire_delete(tree, key, numbered(i, key), 0, NULL, NULL)
                                          : quire_put(tree, key, numbered(i, key), &i, 8, 0, NULL));
                }
                settle(db);
            }
        }
        cr_assert_eq(seen, 200, "%" PRIu64 " of 200", seen);
        OK(quire_pages_close(pages));
    }
}

/* ---- Position in a page ----------------------------------------------------------------------------------------- */

/* C07 */
Test(pages, seek_finds_the_first_entry_not_before_a_key)
{
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        struct quire_pages_options options = range(NULL, NULL, reverse);
        struct quire_pages *pages;
        struct quire_page page;
        char key[16];
        fill(tree, 0, 300);
        OK(quire_pages_open(tree, &options, &pages));
        while (quire_pages_next(pages, &page) == 0) {
            cr_assert_gt(page.count, 1);
            for (size_t i = 0; i < page.count; i++) {
                size_t size = numbered(number_of(&page.entries[i]), key);
                cr_assert_eq(quire_page_seek(&page, key, size), i);
                key[size] = 'x'; /* just after the key */
                cr_assert_eq(quire_page_seek(&page, key, size + 1), reverse ? i : i + 1);
            }
            cr_assert_eq(quire_page_seek(&page, "", 0), reverse ? page.count : 0);
            cr_assert_eq(quire_page_seek(&page, TEXT("z")), reverse ? 0 : page.count);
        }
        OK(quire_pages_close(pages));
    }
}

/* C07: a page of one entry, where nothing but its iterator knows the direction */
Test(pages, seek_in_a_page_of_one_entry_goes_by_the_direction_of_the_scan)
{
    put(tree, "m", "v");
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        struct quire_pages_options options = range(NULL, NULL, reverse);
        struct quire_pages *pages;
        struct quire_page page;
        OK(quire_pages_open(tree, &options, &pages));
        OK(quire_pages_next(pages, &page));
        cr_assert_eq(page.count, 1);
        cr_assert_eq(quire_page_seek(&page, TEXT("m")), 0);
        cr_assert_eq(quire_page_seek(&page, TEXT("a")), reverse ? 1 : 0, "reverse %u, key before", reverse);
        cr_assert_eq(quire_page_seek(&page, TEXT("z")), reverse ? 0 : 1, "reverse %u, key after", reverse);
        OK(quire_pages_close(pages));
    }
}

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

static void *next_page(void *argument)
{
    struct quire_page page;
    return quire_pages_next(argument, &page) == 0 && page.count > 0 ? NULL : "next";
}

/* C03: an iterator may move between threads */
Test(pages, an_iterator_may_be_handed_to_another_thread)
{
    struct quire_pages *pages;
    fill(tree, 0, 500);
    OK(quire_pages_open(tree, NULL, &pages));
    for (unsigned i = 0; i < 10; i++) {
        pthread_t thread;
        void *failed = NULL;
        cr_assert_eq(pthread_create(&thread, NULL, next_page, pages), 0);
        pthread_join(thread, &failed);
        cr_assert_null(failed);
        cr_assert_null(next_page(pages));
    }
    OK(quire_pages_close(pages));
    cr_assert_eq(stats_of(db).iterators_open, 0);
}
