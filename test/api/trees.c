/*
 * Goal: named trees are separate, keep the options that they were created with, and say what is wrong with others.
 * Method: each tree option with values at, inside and beyond its bounds; opening again with the same and other options.
 */
#include "api.h"

static struct quire *db;

static void open_database(void)
{
    db = open_quiet();
}

static void close_database(void)
{
    OK(quire_close(db));
}

TestSuite(trees, .init = open_database, .fini = close_database);

/* ---- Names ------------------------------------------------------------------------------------------------------ */

/* B33 */
Test(trees, of_different_names_are_separate_maps)
{
    struct quire_tree *one = open_tree(db, "one");
    struct quire_tree *two = open_tree(db, "two");
    struct quire_tree *none = open_tree(db, NULL);
    put(one, "k", "1");
    put(two, "k", "2");
    expect(one, NULL, "k", "1");
    expect(two, NULL, "k", "2");
    expect(none, NULL, "k", NULL);
    cr_assert_eq(count_all(one, NULL), 1);
    cr_assert_eq(count_all(none, NULL), 0);
}

/* B33 */
Test(trees, opened_twice_give_the_same_handle)
{
    cr_assert(open_tree(db, "one") == open_tree(db, "one"), "two handles");
    cr_assert(open_tree(db, NULL) == open_tree(db, ""), "NULL and the empty name differ");
}

/* B33, K03 */
Test(trees, are_listed_in_the_order_of_their_names)
{
    char **names = NULL;
    size_t count = 0;
    open_tree(db, "pear");
    open_tree(db, "apple");
    open_tree(db, "");
    OK(quire_tree_list(db, &names, &count));
    cr_assert_eq(count, 3, "%zu names", count);
    cr_assert_str_eq(names[0], "");
    cr_assert_str_eq(names[1], "apple");
    cr_assert_str_eq(names[2], "pear");
    quire_free(names);
}

/* K02 */
Test(trees, names_have_at_most_255_bytes)
{
    struct quire_limits limits;
    struct quire_tree *tree = NULL;
    char name[258];
    quire_limits(&limits);
    cr_assert_eq(limits.max_tree_name_size, 255);
    memset(name, 'n', sizeof(name));
    name[256] = 0;
    EXPECT(quire_tree_open(db, name, NULL, &tree), QUIRE_ERR_TOO_LARGE);
    cr_assert_null(tree);
    name[255] = 0;
    OK(quire_tree_open(db, name, NULL, &tree));
    cr_assert_not_null(tree);
}

/* A02 */
Test(trees, must_exist_creates_nothing)
{
    struct quire_tree_options options;
    struct quire_tree *tree = NULL;
    char **names = NULL;
    size_t count = 99;
    quire_tree_options_init(&options);
    options.must_exist = 1;
    open_tree(db, "there");
    EXPECT(quire_tree_open(db, "absent", &options, &tree), QUIRE_NOT_FOUND);
    cr_assert_null(tree);
    OK(quire_tree_list(db, &names, &count));
    for (size_t i = 0; i < count; i++)
        cr_assert_str_neq(names[i], "absent");
    quire_free(names);
    OK(quire_tree_open(db, "there", &options, &tree));
    cr_assert(tree == open_tree(db, "there"), "another handle");
}

/* A03 */
Test(trees, must_create_takes_no_name_twice)
{
    struct quire_tree_options options;
    struct quire_tree *tree = NULL, *again = NULL;
    quire_tree_options_init(&options);
    options.must_create = 1;
    OK(quire_tree_open(db, "new", &options, &tree));
    put(tree, "k", "v");
    EXPECT(quire_tree_open(db, "new", &options, &again), QUIRE_EXISTS);
    cr_assert_null(again);
    expect(tree, NULL, "k", "v");
}

/* ---- Options ---------------------------------------------------------------------------------------------------- */

/* A12, A15, A16 */
Test(trees, defaults_are_8_kib_pages_and_chains_of_8)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    OK(quire_tree_options_get(open_tree(db, NULL), &options));
    cr_assert_eq(options.struct_size, sizeof(options));
    cr_assert_eq(options.versions, QUIRE_VERSIONS_ENGINE);
    cr_assert_eq(options.leaf_page_size_bytes, 8192);
    cr_assert_eq(options.inner_page_size_bytes, 8192);
    cr_assert_eq(options.page_chain_length, 8);
    cr_assert_eq(options.value_alignment, 1);
}

static unsigned trees_tried;

static void refuse(const struct quire_tree_options *options, const char *field)
{
    struct quire_tree *tree = NULL;
    char name[20] = "tree-";
    numbered(trees_tried++, name + 5);
    EXPECT(quire_tree_open(db, name, options, &tree), QUIRE_ERR_INVALID);
    expect_detail(QUIRE_ERR_INVALID, field);
    cr_assert_null(tree);
}

/* The tree opens, keeps the options, and works. */
static void accept(const struct quire_tree_options *options)
{
    struct quire_tree *tree = NULL;
    struct quire_tree_options effective;
    char name[20] = "tree-";
    numbered(trees_tried++, name + 5);
    OK(quire_tree_open(db, name, options, &tree));
    quire_tree_options_init(&effective);
    OK(quire_tree_options_get(tree, &effective));
    if (options->leaf_page_size_bytes != 0)
        cr_assert_eq(effective.leaf_page_size_bytes, options->leaf_page_size_bytes);
    if (options->inner_page_size_bytes != 0)
        cr_assert_eq(effective.inner_page_size_bytes, options->inner_page_size_bytes);
    if (options->page_chain_length != 0)
        cr_assert_eq(effective.page_chain_length, options->page_chain_length);
    if (options->value_alignment != 0)
        cr_assert_eq(effective.value_alignment, options->value_alignment);
    if (options->versions == QUIRE_VERSIONS_CALLER)
        return;
    fill(tree, 0, 500);
    cr_assert_eq(count_all(tree, NULL), 500);
}

/* A12 */
Test(trees, versions_are_of_the_engine_or_the_caller)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.versions = 2;
    refuse(&options, "versions");
    options.versions = QUIRE_VERSIONS_CALLER;
    accept(&options);
}

/* A12, A15 */
Test(trees, leaf_page_size_is_512_to_65536)
{
    struct quire_tree_options options;
    static const uint32_t good[] = {512, 513, 1000, 4096, 16384, 65536};
    quire_tree_options_init(&options);
    options.leaf_page_size_bytes = 511;
    refuse(&options, "leaf_page_size_bytes");
    options.leaf_page_size_bytes = 65537;
    refuse(&options, "leaf_page_size_bytes");
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        options.leaf_page_size_bytes = good[i];
        accept(&options);
    }
}

/* A12, A15 */
Test(trees, inner_page_size_is_512_to_65536)
{
    struct quire_tree_options options;
    static const uint32_t good[] = {512, 1000, 65536};
    quire_tree_options_init(&options);
    options.inner_page_size_bytes = 511;
    refuse(&options, "inner_page_size_bytes");
    options.inner_page_size_bytes = UINT32_MAX;
    refuse(&options, "inner_page_size_bytes");
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        options.inner_page_size_bytes = good[i];
        accept(&options);
    }
}

/* A12, A16 */
Test(trees, chain_length_is_1_to_8)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.page_chain_length = 9;
    refuse(&options, "page_chain_length");
    for (uint32_t length = 1; length <= 8; length++) {
        options.page_chain_length = length;
        accept(&options);
    }
}

/* A12, C12 */
Test(trees, value_alignment_is_a_power_of_two_to_64)
{
    struct quire_tree_options options;
    static const uint32_t bad[] = {3, 5, 63, 65, 128, UINT32_MAX};
    quire_tree_options_init(&options);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        options.value_alignment = bad[i];
        refuse(&options, "value_alignment");
    }
    for (uint32_t alignment = 1; alignment <= 64; alignment *= 2) {
        options.value_alignment = alignment;
        accept(&options);
    }
}

/* A12 */
Test(trees, must_exist_and_must_create_are_flags_and_exclude_each_other)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.must_exist = 1;
    options.must_create = 1;
    refuse(&options, "must_");
    options.must_exist = 2;
    options.must_create = 0;
    refuse(&options, "must_exist");
    options.must_exist = 0;
    options.must_create = 2;
    refuse(&options, "must_create");
}

/* A15 */
Test(trees, that_exist_refuse_other_options_and_accept_the_same_or_none)
{
    struct quire_tree_options options;
    struct quire_tree *tree = NULL, *again = NULL;
    quire_tree_options_init(&options);
    options.leaf_page_size_bytes = 1024;
    options.page_chain_length = 3;
    OK(quire_tree_open(db, "t", &options, &tree));
    OK(quire_tree_open(db, "t", &options, &again));
    cr_assert(again == tree, "another handle");
    OK(quire_tree_open(db, "t", NULL, &again));

    options.leaf_page_size_bytes = 0;
    options.page_chain_length = 4;
    EXPECT(quire_tree_open(db, "t", &options, &again), QUIRE_ERR_INVALID);
    expect_detail(QUIRE_ERR_INVALID, "page_chain_length");
    options.page_chain_length = 0;
    options.versions = QUIRE_VERSIONS_CALLER;
    EXPECT(quire_tree_open(db, "t", &options, &again), QUIRE_ERR_INVALID);
    expect_detail(QUIRE_ERR_INVALID, "versions");
}

/* The size of the default tree's leaves, as it says, and as its pages say: what the largest has. */
static uint32_t leaf_size(struct quire_tree *tree, size_t *ret_largest)
{
    struct quire_tree_options options;
    struct quire_pages *pages;
    struct quire_page page;
    quire_tree_options_init(&options);
    OK(quire_tree_options_get(tree, &options));
    OK(quire_pages_open(tree, NULL, &pages));
    for (*ret_largest = 0; quire_pages_next(pages, &page) == 0;)
        if (page.count > *ret_largest) *ret_largest = page.count;
    OK(quire_pages_close(pages));
    return options.leaf_page_size_bytes;
}

/* A15: another size takes its place, 0 leaves it, and pages follow as they are written */
Test(trees, that_exist_take_another_page_size_from_now_on)
{
    static const uint32_t sizes[] = {512, 65536, 4096, 16384, 8192, 512};
    struct quire_tree_options options;
    struct quire_tree *tree = NULL, *again = NULL;
    size_t largest = 0, before = 0;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        quire_tree_options_init(&options);
        options.leaf_page_size_bytes = sizes[i];
        OK(quire_tree_open(db, "t", &options, &tree));
        OK(quire_tree_open(db, "t", NULL, &again));
        cr_assert(again == tree);
        fill(tree, 0, 5000); /* each page is written to often */
        fill(tree, 0, 5000);
        settle(db);
        cr_assert_eq(count_all(tree, NULL), 5000);
        cr_assert_eq(leaf_size(tree, &largest), sizes[i]);
        cr_assert(largest * 30 < sizes[i] * 2, "%zu entries in %u bytes", largest, sizes[i]);
        if (i > 0) cr_assert(sizes[i] > sizes[i - 1] ? largest >= before : largest < before);
        before = largest;
    }
    options.leaf_page_size_bytes = 511;
    EXPECT(quire_tree_open(db, "t", &options, &again), QUIRE_ERR_INVALID);
    cr_assert_eq(leaf_size(tree, &largest), 512);
}

/* Bad input: a struct larger than ours */
Test(trees, a_struct_from_a_newer_header_is_accepted_if_the_unknown_is_zero)
{
    struct {
        struct quire_tree_options options;
        uint64_t unknown[2];
    } newer;
    memset(&newer, 0, sizeof(newer));
    newer.options.struct_size = sizeof(newer);
    accept(&newer.options);
    newer.unknown[1] = 7;
    refuse(&newer.options, "struct_size");
}
