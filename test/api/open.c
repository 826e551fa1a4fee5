/*
 * Goal: a database in memory opens with any sensible options, names what is wrong with others, and closes when nothing
 * of it is in use.
 * Method: each option with values at, inside and beyond its bounds; close with something open.
 */
#include "api.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

/* A10, A12 */
Test(open, no_options_are_the_defaults)
{
    struct quire *db = NULL;
    struct quire_options options;
    OK(quire_open(NULL, NULL, &db));
    quire_options_init(&options);
    OK(quire_options_get(db, &options));
    cr_assert_eq(options.struct_size, sizeof(options));
    cr_assert_eq(options.memory_limit_bytes, 0);
    cr_assert_eq(options.background_threads, 1);
    cr_assert_eq(options.stall_timeout_ms, 10000);
    cr_assert_eq(options.disable_statistics, 0);
    OK(quire_close(db));
}

/* A12: a struct of zero bytes means the defaults too */
Test(open, zero_bytes_are_the_defaults)
{
    struct quire *db = NULL;
    struct quire_options zero = {0}, options;
    OK(quire_open(NULL, &zero, &db));
    quire_options_init(&options);
    OK(quire_options_get(db, &options));
    cr_assert_eq(options.background_threads, 1);
    cr_assert_eq(options.stall_timeout_ms, 10000);
    OK(quire_close(db));
}

/* A13 */
Test(open, every_option_is_kept_and_the_others_stay_defaults)
{
    struct quire *db = NULL;
    struct quire_options options, effective;
    quire_options_init(&options);
    options.memory_limit_bytes = 1;
    options.memory_limit_bytes = 64u << 20; /* the later setting wins */
    options.stall_timeout_ms = 77;
    OK(quire_open(NULL, &options, &db));
    quire_options_init(&effective);
    OK(quire_options_get(db, &effective));
    cr_assert_eq(effective.memory_limit_bytes, 64u << 20);
    cr_assert_eq(effective.stall_timeout_ms, 77);
    cr_assert_eq(effective.background_threads, 1);
    OK(quire_close(db));
}

static void refuse(const struct quire_options *options, const char *field)
{
    struct quire *db = (struct quire *)&db;
    EXPECT(quire_open(NULL, options, &db), QUIRE_ERR_INVALID);
    expect_detail(QUIRE_ERR_INVALID, field);
    cr_assert(db == (struct quire *)&db, "the output was touched");
}

static void accept(const struct quire_options *options)
{
    struct quire *db = NULL;
    OK(quire_open(NULL, options, &db));
    OK(quire_close(db));
}

/* A12 */
Test(open, memory_limit_below_four_mebibytes_is_refused)
{
    struct quire_options options;
    quire_options_init(&options);
    options.memory_limit_bytes = (4u << 20) - 1;
    refuse(&options, "memory_limit_bytes");
    options.memory_limit_bytes = 4u << 20;
    accept(&options);
    options.memory_limit_bytes = UINT64_MAX;
    accept(&options);
}

/* A12 */
Test(open, more_than_16_background_threads_are_refused)
{
    struct quire_options options;
    quire_options_init(&options);
    options.background_threads = 17;
    refuse(&options, "background_threads");
    options.background_threads = QUIRE_NO_THREADS - 1;
    refuse(&options, "background_threads");
    options.background_threads = 16;
    accept(&options);
    options.background_threads = QUIRE_NO_THREADS;
    accept(&options);
}

/* A12 */
Test(open, a_stall_timeout_above_an_hour_is_refused)
{
    struct quire_options options;
    quire_options_init(&options);
    options.stall_timeout_ms = 3600001;
    refuse(&options, "stall_timeout_ms");
    options.stall_timeout_ms = 3600000;
    accept(&options);
}

/* A12 */
Test(open, disable_statistics_is_zero_or_one)
{
    struct quire_options options;
    quire_options_init(&options);
    options.disable_statistics = 2;
    refuse(&options, "disable_statistics");
    options.disable_statistics = 1;
    accept(&options);
}

/* A12 */
Test(open, the_reserved_field_must_be_zero)
{
    struct quire_options options;
    quire_options_init(&options);
    options.reserved = 1;
    refuse(&options, "options.reserved ");
}

/* Bad input: a struct larger or smaller than ours */
Test(open, a_struct_from_a_newer_header_is_accepted_if_the_unknown_is_zero)
{
    struct {
        struct quire_options options;
        uint64_t unknown;
    } newer;
    memset(&newer, 0, sizeof(newer));
    newer.options.struct_size = sizeof(newer);
    accept(&newer.options);
    newer.unknown = 1;
    refuse(&newer.options, "struct_size");
}

/* Bad input: a struct larger or smaller than ours */
Test(open, the_fields_that_an_older_header_lacks_are_defaults)
{
    struct quire_options options, effective;
    struct quire *db = NULL;
    memset(&options, 0xff, sizeof(options));
    options.struct_size = offsetof(struct quire_options, background_threads);
    options.memory_limit_bytes = 8u << 20;
    OK(quire_open(NULL, &options, &db));
    quire_options_init(&effective);
    OK(quire_options_get(db, &effective));
    cr_assert_eq(effective.memory_limit_bytes, 8u << 20);
    cr_assert_eq(effective.background_threads, 1);
    cr_assert_eq(effective.reserved, 0);
    OK(quire_close(db));
}

/* Bad input: an output struct of an older header is not written beyond its end */
Test(open, options_get_stays_within_the_size_that_it_is_given)
{
    struct quire *db = open_quiet();
    struct quire_options options, untouched;
    memset(&options, 0xaa, sizeof(options));
    memset(&untouched, 0xaa, sizeof(untouched));
    options.struct_size = offsetof(struct quire_options, stall_timeout_ms);
    OK(quire_options_get(db, &options));
    cr_assert_eq(options.background_threads, QUIRE_NO_THREADS);
    cr_assert_eq(options.stall_timeout_ms, untouched.stall_timeout_ms);
    cr_assert_eq(options.reserved, untouched.reserved);
    OK(quire_close(db));
}

/* A12: what a larger struct has beyond ours is zero, so that it can be handed to open again */
Test(open, options_get_zeroes_what_a_newer_header_has_more)
{
    struct {
        struct quire_options options;
        uint64_t unknown[2];
    } newer;
    struct {
        struct quire_tree_options options;
        uint64_t unknown[2];
    } newer_tree;
    struct quire *db = open_quiet();
    struct quire_tree *tree = open_tree(db, "t");
    memset(&newer, 0xaa, sizeof(newer));
    newer.options.struct_size = offsetof(__typeof__(newer), unknown[1]);
    OK(quire_options_get(db, &newer.options));
    cr_assert_eq(newer.options.struct_size, offsetof(__typeof__(newer), unknown[1]));
    cr_assert_eq(newer.options.background_threads, QUIRE_NO_THREADS);
    cr_assert_eq(newer.unknown[0], 0);
    cr_assert_eq(newer.unknown[1], 0xaaaaaaaaaaaaaaaa, "written beyond the end");
    accept(&newer.options);
    memset(&newer_tree, 0xaa, sizeof(newer_tree));
    newer_tree.options.struct_size = offsetof(__typeof__(newer_tree), unknown[1]);
    OK(quire_tree_options_get(tree, &newer_tree.options));
    cr_assert_eq(newer_tree.unknown[0], 0);
    cr_assert_eq(newer_tree.unknown[1], 0xaaaaaaaaaaaaaaaa, "written beyond the end");
    OK(quire_tree_open(db, "t", &newer_tree.options, &tree));
    newer.options.struct_size = SIZE_MAX; /* not set */
    EXPECT(quire_options_get(db, &newer.options), QUIRE_ERR_INVALID);
    newer_tree.options.struct_size = SIZE_MAX;
    EXPECT(quire_tree_options_get(tree, &newer_tree.options), QUIRE_ERR_INVALID);
    OK(quire_close(db));
}

static unsigned count_entries(const char *directory)
{
    unsigned count = 0;
    DIR *opened = opendir(directory);
    cr_assert_not_null(opened);
    for (const struct dirent *entry = readdir(opened); entry != NULL; entry = readdir(opened))
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(opened);
    return count;
}

/* A10 */
Test(open, memory_mode_creates_no_file_and_keeps_none_open)
{
    char directory[] = "/tmp/quire-api-XXXXXX";
    cr_assert_not_null(mkdtemp(directory));
    cr_assert_eq(chdir(directory), 0);
    unsigned before = count_entries("/proc/self/fd");

    struct quire *db = NULL;
    OK(quire_open(NULL, NULL, &db));
    struct quire_tree *tree = open_tree(db, NULL);
    fill(tree, 0, 10000);
    cr_assert_eq(count_all(tree, NULL), 10000);
    cr_assert_eq(count_entries("."), 0);
    OK(quire_close(db));
    cr_assert_eq(count_entries("/proc/self/fd"), before);
    cr_assert_eq(count_entries("."), 0);
    cr_assert_eq(chdir("/"), 0);
    cr_assert_eq(rmdir(directory), 0);
}

/* L14, in small: opening and closing again and again leaves nothing behind */
Test(open, a_hundred_databases_one_after_the_other_and_ten_at_once)
{
    struct quire *many[10];
    for (unsigned i = 0; i < 100; i++) {
        struct quire *db = NULL;
        OK(quire_open(NULL, NULL, &db));
        put(open_tree(db, NULL), "k", "v");
        OK(quire_close(db));
    }
    for (unsigned i = 0; i < 10; i++) {
        many[i] = open_quiet();
        put(open_tree(many[i], NULL), "k", i % 2 ? "odd" : "even");
    }
    for (unsigned i = 0; i < 10; i++) {
        expect(open_tree(many[i], NULL), NULL, "k", i % 2 ? "odd" : "even");
        OK(quire_close(many[i]));
    }
}

/* ---- Closing ---------------------------------------------------------------------------------------------------- */

/* A07 */
Test(close, with_an_open_guard_is_busy_and_the_handle_stays_valid)
{
    struct quire *db = open_quiet();
    struct quire_tree *tree = open_tree(db, NULL);
    struct quire_guard guard;
    put(tree, "k", "v");
    OK(quire_pin(db, "test", &guard));
    EXPECT(quire_close(db), QUIRE_ERR_BUSY);
    expect(tree, NULL, "k", "v");
    put(tree, "k", "w");
    OK(quire_unpin(&guard));
    OK(quire_close(db));
}

/* A07 */
Test(close, with_an_open_iterator_is_busy)
{
    struct quire *db = open_quiet();
    struct quire_tree *tree = open_tree(db, NULL);
    struct quire_pages *pages = NULL;
    struct quire_page page;
    put(tree, "k", "v");
    OK(quire_pages_open(tree, NULL, &pages));
    EXPECT(quire_close(db), QUIRE_ERR_BUSY);
    OK(quire_pages_next(pages, &page));
    EXPECT(quire_close(db), QUIRE_ERR_BUSY);
    cr_assert_eq(page.count, 1);
    cr_assert_eq(page.entries[0].value_size, 1);
    OK(quire_pages_close(pages));
    OK(quire_close(db));
}

/* A07 */
Test(close, with_an_open_snapshot_is_busy)
{
    struct quire *db = NULL;
    struct quire_snapshot *snapshot = NULL;
    OK(quire_open(NULL, NULL, &db)); /* with its background thread */
    struct quire_tree *tree = open_tree(db, NULL);
    OK(quire_snapshot(db, "test", &snapshot));
    EXPECT(quire_close(db), QUIRE_ERR_BUSY);
    put(tree, "k", "v");
    expect(tree, snapshot, "k", NULL);
    OK(quire_snapshot_release(snapshot));
    OK(quire_close(db));
}

/* A07: the background thread's grace period would wait for the guard, and close for the background thread */
Test(close, under_a_guard_of_another_database_is_busy, .timeout = 20)
{
    for (int threads = 0; threads < 2; threads++) {
        struct quire *db = NULL;
        struct quire *other = open_quiet();
        struct quire_options options;
        struct quire_guard guard;
        quire_options_init(&options);
        options.background_threads = threads != 0 ? 2 : QUIRE_NO_THREADS;
        OK(quire_open(NULL, &options, &db));
        struct quire_tree *tree = open_tree(db, NULL);
        OK(quire_pin(other, "other", &guard));
        fill(tree, 0, 20000); /* something to reclaim */
        EXPECT(quire_close(db), QUIRE_ERR_BUSY);
        expect_detail(QUIRE_ERR_BUSY, "guard of another database");
        fill(tree, 0, 20000);
        OK(quire_unpin(&guard));
        uint64_t retired = UINT64_MAX;
        for (unsigned i = 0; i < 10000 && retired != 0; i++) { /* the background still works */
            if (threads == 0)
                settle(db);
            else
                usleep(1000);
            retired = stats_of(db).memory_retired_bytes;
        }
        cr_assert_eq(retired, 0);
        OK(quire_close(db));
        OK(quire_close(other));
    }
}

/* A08, K03 */
Test(close, of_nothing_is_fine)
{
    OK(quire_close(NULL));
    OK(quire_pages_close(NULL));
    OK(quire_snapshot_release(NULL));
    quire_free(NULL);
}
