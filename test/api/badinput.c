/*
 * Goal: wrong arguments are answered with a clear code, and change nothing.
 * Method: every function with NULL, with sizes that do not fit their pointers, with bounds in the wrong order, with
 * handles of another database; a value written before is still there in the end, and outputs are untouched.
 */
#include "api.h"

static struct quire *db;
static struct quire_tree *tree;

static void open_database(void)
{
    db = open_quiet();
    tree = open_tree(db, NULL);
    put(tree, "k", "v");
}

static void close_database(void)
{
    expect(tree, NULL, "k", "v");
    cr_assert_eq(count_all(tree, NULL), 1);
    OK(quire_close(db));
}

TestSuite(badinput, .init = open_database, .fini = close_database);

/* The call is INVALID, and the detail has a text. */
#define INVALID(call)                                                                                                  \
    do {                                                                                                               \
        EXPECT(call, QUIRE_ERR_INVALID);                                                                               \
        struct quire_error_detail detail_;                                                                             \
        quire_error_detail(&detail_);                                                                                  \
        cr_assert(detail_.result == QUIRE_ERR_INVALID && detail_.message[0] != 0, "%s has no detail", #call);          \
    } while (0)

/* ---- Handles ---------------------------------------------------------------------------------------------------- */

/* Bad input: NULL handles */
Test(badinput, a_null_database_is_invalid)
{
    struct quire_options options;
    struct quire_tree *out_tree = NULL;
    struct quire_snapshot *snapshot = NULL;
    struct quire_guard guard;
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    char **names = NULL;
    size_t count = 0;
    uint64_t lsn = 7;
    quire_options_init(&options);
    INVALID(quire_options_get(NULL, &options));
    INVALID(quire_tree_open(NULL, "t", NULL, &out_tree));
    INVALID(quire_tree_list(NULL, &names, &count));
    INVALID(quire_pin(NULL, "tag", &guard));
    INVALID(quire_snapshot(NULL, "tag", &snapshot));
    INVALID(quire_last_lsn(NULL, &lsn));
    INVALID(quire_maintain(NULL));
    INVALID(quire_stats(NULL, &stats));
    INVALID(quire_stats_reset(NULL));
    cr_assert(out_tree == NULL && snapshot == NULL && names == NULL && lsn == 7, "an output was touched");
}

/* Bad input: NULL handles */
Test(badinput, a_null_tree_is_invalid)
{
    struct quire_slice none = {NULL, 0};
    struct quire_tree_options options;
    struct quire_pages *pages = NULL;
    void *copy = NULL;
    size_t size = 7;
    uint64_t number = 7;
    int64_t sum = 7;
    int existed = 7;
    quire_tree_options_init(&options);
    INVALID(quire_tree_options_get(NULL, &options));
    INVALID(quire_put(NULL, TEXT("k"), TEXT("x"), 0, &number));
    INVALID(quire_delete(NULL, TEXT("k"), 0, &existed, &number));
    INVALID(quire_insert(NULL, TEXT("k"), TEXT("x"), 0, &number));
    INVALID(quire_compare_and_swap(NULL, TEXT("k"), TEXT("v"), TEXT("x"), 0, &number));
    INVALID(quire_add(NULL, TEXT("k"), 1, 0, &sum, &number));
    INVALID(quire_get(NULL, NULL, TEXT("k"), NULL, 0, &size));
    INVALID(quire_get_copy(NULL, NULL, TEXT("k"), &copy, &size));
    INVALID(quire_exists(NULL, NULL, TEXT("k")));
    INVALID(quire_count(NULL, NULL, none, none, &number));
    INVALID(quire_put_at(NULL, 1, TEXT("k"), TEXT("x"), 0, &number));
    INVALID(quire_delete_at(NULL, 1, TEXT("k"), 0, &number));
    INVALID(quire_get_at(NULL, 1, TEXT("k"), NULL, 0, &size));
    INVALID(quire_set_safe_lsn(NULL, 1));
    INVALID(quire_safe_lsn(NULL, &number));
    INVALID(quire_pages_open(NULL, NULL, &pages));
    cr_assert(size == 7 && number == 7 && sum == 7 && existed == 7 && copy == NULL && pages == NULL,
              "an output was touched");
}

/* Bad input: outputs that a call cannot do without */
Test(badinput, a_null_output_is_invalid)
{
    struct quire_slice none = {NULL, 0};
    struct quire_guard guard;
    struct quire_value value;
    struct quire_pages *pages;
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    char **names = NULL;
    char buffer[8];
    void *copy;
    size_t size;
    int result;
    INVALID(quire_open(NULL, NULL, NULL));
    INVALID(quire_options_get(db, NULL));
    INVALID(quire_tree_open(db, "t", NULL, NULL));
    INVALID(quire_tree_options_get(tree, NULL));
    INVALID(quire_tree_list(db, NULL, &size));
    INVALID(quire_tree_list(db, &names, NULL));
    INVALID(quire_get(tree, NULL, TEXT("k"), buffer, sizeof(buffer), NULL));
    INVALID(quire_get_copy(tree, NULL, TEXT("k"), NULL, &size));
    INVALID(quire_get_copy(tree, NULL, TEXT("k"), &copy, NULL));
    INVALID(quire_count(tree, NULL, none, none, NULL));
    INVALID(quire_pin(db, NULL, NULL));
    INVALID(quire_snapshot(db, NULL, NULL));
    INVALID(quire_last_lsn(db, NULL));
    INVALID(quire_pages_open(tree, NULL, NULL));
    INVALID(quire_stats(db, NULL));
    INVALID(quire_stats_print(&stats, QUIRE_FORMAT_TEXT, buffer, sizeof(buffer), NULL));
    INVALID(quire_stats_diff(&stats, &stats, NULL));
    INVALID(quire_stats_diff(NULL, &stats, &stats));
    OK(quire_pin(db, NULL, &guard));
    INVALID(quire_guard_get(&guard, tree, NULL, TEXT("k"), NULL));
    INVALID(quire_get_many(&guard, tree, NULL, &none, 1, NULL, &result));
    INVALID(quire_get_many(&guard, tree, NULL, &none, 1, &value, NULL));
    INVALID(quire_get_many(&guard, tree, NULL, NULL, 1, &value, &result));
    OK(quire_unpin(&guard));
    OK(quire_pages_open(tree, NULL, &pages));
    INVALID(quire_pages_next(pages, NULL));
    OK(quire_pages_close(pages));
    INVALID(quire_pages_next(NULL, &(struct quire_page){0}));
}

/* ---- Keys and values -------------------------------------------------------------------------------------------- */

/* Bad input: NULL with a length above 0 */
Test(badinput, null_with_a_size_is_invalid)
{
    struct quire_slice bad = {NULL, 1};
    struct quire_guard guard;
    struct quire_value value;
    size_t size = 7;
    uint64_t lsn = 7;
    void *copy;
    int result;
    INVALID(quire_put(tree, NULL, 1, TEXT("x"), 0, &lsn));
    INVALID(quire_put(tree, TEXT("k"), NULL, 1, 0, &lsn));
    INVALID(quire_delete(tree, NULL, 1, 0, NULL, &lsn));
    INVALID(quire_insert(tree, NULL, 1, TEXT("x"), 0, &lsn));
    INVALID(quire_insert(tree, TEXT("new"), NULL, 1, 0, &lsn));
    INVALID(quire_compare_and_swap(tree, NULL, 1, TEXT("v"), TEXT("x"), 0, &lsn));
    INVALID(quire_compare_and_swap(tree, TEXT("k"), NULL, 1, TEXT("x"), 0, &lsn));
    INVALID(quire_compare_and_swap(tree, TEXT("k"), TEXT("v"), NULL, 1, 0, &lsn));
    INVALID(quire_add(tree, NULL, 8, 1, 0, NULL, &lsn));
    INVALID(quire_get(tree, NULL, NULL, 1, NULL, 0, &size));
    INVALID(quire_get(tree, NULL, TEXT("k"), NULL, 1, &size));
    INVALID(quire_get_copy(tree, NULL, NULL, 1, &copy, &size));
    INVALID(quire_exists(tree, NULL, NULL, 1));
    OK(quire_pin(db, NULL, &guard));
    INVALID(quire_guard_get(&guard, tree, NULL, NULL, 1, &value));
    INVALID(quire_get_many(&guard, tree, NULL, &bad, 1, &value, &result));
    OK(quire_unpin(&guard));
    cr_assert(size == 7 && lsn == 7, "an output was touched");
}

/* Bad input: caller versions, the same */
Test(badinput, null_with_a_size_is_invalid_with_versions_too)
{
    struct quire_tree *other = open_caller_tree(db, "caller");
    struct quire_guard guard;
    struct quire_value value;
    size_t size = 7;
    INVALID(quire_put_at(other, 1, NULL, 1, TEXT("x"), 0, NULL));
    INVALID(quire_put_at(other, 1, TEXT("k"), NULL, 1, 0, NULL));
    INVALID(quire_delete_at(other, 1, NULL, 1, 0, NULL));
    INVALID(quire_get_at(other, 1, NULL, 1, NULL, 0, &size));
    OK(quire_pin(db, NULL, &guard));
    INVALID(quire_guard_get_at(&guard, other, 1, NULL, 1, &value));
    OK(quire_unpin(&guard));
}

/* Bad input: oversize arguments */
Test(badinput, keys_above_the_limit_are_too_large_everywhere)
{
    static const char big[131073];
    struct quire_tree *other = open_caller_tree(db, "caller");
    struct quire_slice key = {big, sizeof(big)}, none = {NULL, 0};
    struct quire_guard guard;
    struct quire_value value;
    size_t size = 7;
    uint64_t count;
    int result;
    EXPECT(quire_put(tree, big, sizeof(big), TEXT("x"), 0, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_insert(tree, big, sizeof(big), TEXT("x"), 0, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_compare_and_swap(tree, big, sizeof(big), TEXT("v"), TEXT("x"), 0, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), TEXT("v"), "x", SIZE_MAX, 0, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_add(tree, big, sizeof(big), 1, 0, NULL, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_delete(tree, big, sizeof(big), 0, NULL, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_exists(tree, NULL, big, sizeof(big)), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_get(tree, NULL, big, sizeof(big), NULL, 0, &size), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_count(tree, NULL, key, none, &count), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_put_at(other, 1, big, sizeof(big), TEXT("x"), 0, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_delete_at(other, 1, big, sizeof(big), 0, NULL), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_get_at(other, 1, big, sizeof(big), NULL, 0, &size), QUIRE_ERR_TOO_LARGE);
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_guard_get(&guard, tree, NULL, big, sizeof(big), &value), QUIRE_ERR_TOO_LARGE);
    EXPECT(quire_get_many(&guard, tree, NULL, &key, 1, &value, &result), QUIRE_ERR_TOO_LARGE);
    OK(quire_unpin(&guard));
}

/* Bad input: flags that no version knows, and two levels at once */
Test(badinput, unknown_flags_are_invalid)
{
    struct quire_tree *other = open_caller_tree(db, "caller");
    INVALID(quire_put(tree, TEXT("k"), TEXT("x"), 3, NULL));
    expect_detail(QUIRE_ERR_INVALID, "flags");
    INVALID(quire_delete(tree, TEXT("k"), 0x80000000u, NULL, NULL));
    INVALID(quire_insert(tree, TEXT("new"), TEXT("x"), 3, NULL));
    INVALID(quire_compare_and_swap(tree, TEXT("k"), TEXT("v"), TEXT("x"), 3, NULL));
    INVALID(quire_add(tree, TEXT("new"), 1, 4, NULL, NULL));
    INVALID(quire_put_at(other, 1, TEXT("k"), TEXT("x"), 3, NULL));
    INVALID(quire_delete_at(other, 1, TEXT("k"), 3, NULL));
}

/* ---- Ranges ----------------------------------------------------------------------------------------------------- */

static void refuse_range(struct quire_slice start, struct quire_slice end)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    uint64_t count = 7;
    for (uint32_t reverse = 0; reverse < 2; reverse++) {
        quire_pages_options_init(&options);
        options.start = start;
        options.end = end;
        options.reverse = reverse;
        INVALID(quire_pages_open(tree, &options, &pages));
    }
    INVALID(quire_count(tree, NULL, start, end, &count));
    cr_assert(pages == NULL && count == 7, "an output was touched");
}

/* Bad input: start after end; NULL bounds with a size */
Test(badinput, ranges_must_be_in_order_and_have_bytes)
{
    refuse_range(slice("b"), slice("a"));
    refuse_range(slice("aa"), slice("a"));
    refuse_range(slice("a"), slice(""));
    refuse_range((struct quire_slice){NULL, 1}, slice("a"));
    refuse_range(slice("a"), (struct quire_slice){NULL, 3});
}

/* Bad input: wrong options of pages */
Test(badinput, pages_options_are_checked)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct {
        struct quire_pages_options options;
        uint64_t unknown;
    } newer;
    quire_pages_options_init(&options);
    options.reverse = 2;
    INVALID(quire_pages_open(tree, &options, &pages));
    expect_detail(QUIRE_ERR_INVALID, "reverse");
    quire_pages_options_init(&options);
    options.skip_large_values = 2;
    INVALID(quire_pages_open(tree, &options, &pages));
    expect_detail(QUIRE_ERR_INVALID, "skip_large_values");
    memset(&newer, 0, sizeof(newer));
    quire_pages_options_init(&newer.options);
    newer.options.struct_size = sizeof(newer);
    newer.unknown = 1;
    INVALID(quire_pages_open(tree, &newer.options, &pages));
    cr_assert_null(pages);
    newer.unknown = 0;
    OK(quire_pages_open(tree, &newer.options, &pages));
    OK(quire_pages_close(pages));
}

/* ---- Handles of another database -------------------------------------------------------------------------------- */

/* Bad input: a handle of another database */
Test(badinput, a_snapshot_of_another_database_is_invalid)
{
    struct quire *other = open_quiet();
    struct quire_slice key = slice("k"), none = {NULL, 0};
    struct quire_snapshot *snapshot;
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_guard guard;
    struct quire_value value;
    void *copy = NULL;
    size_t size = 7;
    uint64_t count = 7;
    int result;
    OK(quire_snapshot(other, NULL, &snapshot));
    INVALID(quire_get(tree, snapshot, TEXT("k"), NULL, 0, &size));
    INVALID(quire_get_copy(tree, snapshot, TEXT("k"), &copy, &size));
    INVALID(quire_exists(tree, snapshot, TEXT("k")));
    INVALID(quire_count(tree, snapshot, none, none, &count));
    OK(quire_pin(db, NULL, &guard));
    INVALID(quire_guard_get(&guard, tree, snapshot, TEXT("k"), &value));
    INVALID(quire_get_many(&guard, tree, snapshot, &key, 1, &value, &result));
    OK(quire_unpin(&guard));
    quire_pages_options_init(&options);
    options.snapshot = snapshot;
    INVALID(quire_pages_open(tree, &options, &pages));
    cr_assert(size == 7 && count == 7 && copy == NULL && pages == NULL, "an output was touched");
    OK(quire_snapshot_release(snapshot));
    OK(quire_close(other));
}

/* Bad input: a handle of another database */
Test(badinput, a_guard_of_another_database_is_invalid)
{
    struct quire *other = open_quiet();
    struct quire_tree *caller = open_caller_tree(db, "caller");
    struct quire_slice key = slice("k");
    struct quire_guard guard;
    struct quire_value value;
    int result;
    OK(quire_pin(other, NULL, &guard));
    INVALID(quire_guard_get(&guard, tree, NULL, TEXT("k"), &value));
    INVALID(quire_guard_get_at(&guard, caller, 1, TEXT("k"), &value));
    INVALID(quire_get_many(&guard, tree, NULL, &key, 1, &value, &result));
    OK(quire_unpin(&guard));
    OK(quire_close(other));
}

/* Bad input: guards that are not pinned */
Test(badinput, an_unpinned_guard_is_invalid)
{
    struct quire_guard guard;
    struct quire_value value;
    memset(&guard, 0, sizeof(guard));
    INVALID(quire_unpin(&guard));
    INVALID(quire_repin(&guard));
    INVALID(quire_guard_get(&guard, tree, NULL, TEXT("k"), &value));
    INVALID(quire_unpin(NULL));
    INVALID(quire_repin(NULL));
    OK(quire_pin(db, NULL, &guard));
    OK(quire_unpin(&guard));
    INVALID(quire_unpin(&guard));
    INVALID(quire_guard_get(&guard, tree, NULL, TEXT("k"), &value));
}
