/*
 * Goal: inner pages hold their entries, find the child of a key, split where they may, and guess where records are.
 * Method: pages of 1 to 1,000 entries of every key shape, with marks at random, against the array they were built
 * from and linear search.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "page_oracle.h"

/* The entries of a page to build, and between which bounds. */
struct entries {
    struct qr_inner_entry *items;
    uint32_t count;
    struct qr_page_identity identity;
};

/* Keys of the pool: the first is the low key, the last the high key if the page gets one; marks in `percent` of the
 * entries that may have one. */
static struct entries make_entries(const struct key_pool *pool, bool high_infinite, unsigned percent,
                                   struct random_stream *random)
{
    struct entries e = {.items = calloc(pool->count, sizeof(*e.items)), .count = pool->count - !high_infinite};
    e.identity = (struct qr_page_identity){.pid = 11,
                                           .right_pid = high_infinite ? 0 : 12,
                                           .tree_id = 2,
                                           .level = 1,
                                           .high_infinite = high_infinite,
                                           .low = pool->keys[0],
                                           .high = pool->keys[pool->count - 1],
                                           .max_lsn = 77};
    for (uint32_t i = 0; i < e.count; i++) {
        bool may = i > 0 && (e.items[i - 1].child & QR_CHILD_MERGING) == 0;
        e.items[i].key = pool->keys[i];
        e.items[i].child = 1000 + i;
        if (may && random_chance(random, percent))
            e.items[i].child |= QR_CHILD_MERGING;
    }
    return e;
}

static struct qr_page *build(const struct qr_inner_entry *items, uint32_t count,
                             const struct qr_page_identity *identity)
{
    size_t size = qr_inner_size(items, count, identity);
    struct qr_page *page = qr_malloc_aligned(64, size);
    cr_assert(page != NULL);
    memset(page, 0xa5, size);
    qr_inner_build(page, size, items, count, identity);
    return page;
}

/* The page passes the check and has these entries. */
static const char *entries_differ_from(const struct qr_page *page, const struct qr_inner_entry *items, uint32_t count)
{
    const char *wrong = qr_page_check(page);
    if (wrong != NULL)
        return wrong;
    if (page->count != count)
        return "another number of entries";
    struct qr_inner_entry *out = calloc(count, sizeof(*out));
    qr_inner_entries(page, out);
    for (uint32_t i = 0; i < count; i++) {
        if (out[i].child != items[i].child)
            wrong = "another child";
        if (i > 0 && !qr_equal(out[i].key.data, out[i].key.size, items[i].key.data, items[i].key.size))
            wrong = "another key";
        if (qr_inner_child(page, i) != (items[i].child & ~QR_CHILD_MERGING) ||
            qr_inner_merging(page, i) != ((items[i].child & QR_CHILD_MERGING) != 0))
            wrong = "mark and child are not told apart";
    }
    free(out);
    return wrong;
}

static uint32_t slow_find(const struct entries *e, struct quire_slice key)
{
    uint32_t i = 1;
    while (i < e->count && qr_compare(e->items[i].key.data, e->items[i].key.size, key.data, key.size) <= 0)
        i++;
    return i - 1;
}

static void expect_find(const struct qr_page *page, const struct entries *e, struct quire_slice key)
{
    struct qr_key wanted = qr_key_make(key.data, key.size);
    uint32_t expected = slow_find(e, key);
    enum qr_search_isa best = qr_search_isa();
    for (int isa = QR_SEARCH_PLAIN; isa <= QR_SEARCH_AVX512; isa++) {
        if (!qr_search_select((enum qr_search_isa)isa))
            continue;
        uint32_t found = qr_inner_find(page, &wanted);
        if (found != expected)
            cr_assert(false, "isa %d, %u entries: %u instead of %u", isa, page->count, found, expected);
    }
    qr_search_select(best);
}

/* Builds both halves as a split does. */
static const char *halves_differ(const struct entries *e, uint32_t at)
{
    struct qr_page_identity left_identity = e->identity, right_identity = e->identity;
    left_identity.high = right_identity.low = e->items[at].key;
    left_identity.high_infinite = false;
    left_identity.right_pid = 13;
    struct qr_page *left = build(e->items, at, &left_identity);
    struct qr_page *right = build(e->items + at, e->count - at, &right_identity);
    const char *wrong = entries_differ_from(left, e->items, at);
    if (wrong == NULL)
        wrong = entries_differ_from(right, e->items + at, e->count - at);
    qr_free_aligned(left);
    qr_free_aligned(right);
    return wrong;
}

static void expect_split(const struct qr_page *page, const struct entries *e)
{
    uint32_t unmarked = 0;
    for (uint32_t i = 1; i < e->count; i++)
        unmarked += (e->items[i].child & QR_CHILD_MERGING) == 0;
    for (int at_end = 0; at_end < 2; at_end++) {
        uint32_t at = qr_inner_split_index(page, at_end != 0);
        if (unmarked == 0) {
            cr_assert_eq(at, 0);
            continue;
        }
        cr_assert(at >= 1 && at < e->count, "split at %u of %u", at, e->count);
        cr_assert((e->items[at].child & QR_CHILD_MERGING) == 0, "a marked entry loses its left neighbour");
        /* No two neighbours are marked, so a place next to the ideal one is free. */
        uint32_t ideal = at_end ? e->count - 1 - e->count / 16 : e->count / 2;
        cr_assert(at + 1 >= ideal && at <= ideal + 1, "split at %u of %u, ideal %u", at, e->count, ideal);
        const char *wrong = halves_differ(e, at);
        cr_assert(wrong == NULL, "split at %u of %u: %s", at, e->count, wrong == NULL ? "" : wrong);
    }
}

static void check_inner(enum key_shape shape, uint32_t count, bool high_infinite, struct random_stream *random)
{
    uint8_t buffer[512];
    struct key_pool pool = keys_make(shape, count, random);
    if (pool.count >= 2 || high_infinite) {
        unsigned percent = (unsigned)random_below(random, 4) * 33;
        struct entries e = make_entries(&pool, high_infinite, percent, random);
        struct qr_page *page = build(e.items, e.count, &e.identity);
        const char *wrong = entries_differ_from(page, e.items, e.count);
        cr_assert(wrong == NULL, "shape %d, %u keys: %s", shape, count, wrong == NULL ? "" : wrong);
        struct qr_page_identity identity = qr_page_identity(page);
        cr_assert(identity.pid == 11 && identity.tree_id == 2 && identity.level == 1 && identity.max_lsn == 77);
        cr_assert(qr_equal(identity.low.data, identity.low.size, e.identity.low.data, e.identity.low.size));
        for (uint32_t i = 0; i < pool.count; i++)
            expect_find(page, &e, pool.keys[i]);
        for (int i = 0; i < 300; i++)
            expect_find(page, &e, key_near(&pool, random, buffer));
        expect_split(page, &e);
        qr_free_aligned(page);
        free(e.items);
    }
    keys_free(&pool);
}

Test(page_inner, entries_find_and_split_agree_with_the_array)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 15, 16, 17, 18, 31, 32, 33, 64, 100, 255, 256, 257, 400, 1000};
    struct random_stream random;
    random_seed(&random, 2);
    for (int shape = 0; shape < SHAPE_COUNT; shape++)
        for (size_t i = 0; i < QR_ARRAY_COUNT(counts); i++)
            for (int infinite = 0; infinite < 2; infinite++)
                check_inner((enum key_shape)shape, counts[i], infinite != 0, &random);
}

/* A page without entry `index`, which is then inserted: the same as one that is built with it. 1: it may not be inserted. */
static int insert_one(const struct entries *e, uint32_t index, struct random_stream *random)
{
    struct qr_inner_entry *items = calloc(e->count, sizeof(*items));
    memcpy(items, e->items, index * sizeof(*items));
    memcpy(items + index, e->items + index + 1, (e->count - index - 1) * sizeof(*items));
    for (uint32_t i = 0; i < e->count - 1; i++)
        items[i].whereabouts = (uint32_t)random_next(random);
    struct qr_page *page = build(items, e->count - 1, &e->identity);
    struct quire_slice key = e->items[index].key;
    bool may = qr_inner_may_insert(page, key);
    if (may) {
        size_t size = qr_inner_insert_size(page, key);
        struct qr_page *inserted = qr_malloc_aligned(64, size);
        memset(inserted, 0x5a, size);
        qr_inner_insert(page, index, key, e->items[index].child, inserted, size);
        qr_inner_entries(page, items);
        memmove(items + index + 1, items + index, (e->count - 1 - index) * sizeof(*items));
        items[index] = (struct qr_inner_entry){.key = key, .child = e->items[index].child};
        items[index - 1].whereabouts = 0;
        struct qr_page *built = build(items, e->count, &e->identity);
        cr_assert_eq(size, qr_inner_size(items, e->count, &e->identity));
        cr_assert(memcmp(inserted, built, size) == 0, "entry %u of %u", index, e->count);
        qr_free_aligned(built);
        qr_free_aligned(inserted);
    }
    qr_free_aligned(page);
    free(items);
    return !may;
}

Test(page_inner, an_entry_inserted_makes_the_page_that_would_be_built)
{
    static const uint32_t counts[] = {2, 3, 4, 5, 15, 16, 17, 18, 31, 32, 33, 34, 100, 257, 600};
    unsigned inserted = 0, refused = 0;
    struct random_stream random;
    random_seed(&random, 3);
    for (unsigned round = 0; round < 2 * SHAPE_COUNT * QR_ARRAY_COUNT(counts); round++) {
        uint32_t count = counts[round / 2 / SHAPE_COUNT];
        struct key_pool pool = keys_make((enum key_shape)(round / 2 % SHAPE_COUNT), count, &random);
        struct entries e = make_entries(&pool, round % 2 == 0, 33, &random);
        uint32_t step = 1 + e.count / 40;
        for (uint32_t i = 1; i < e.count; i = i + step < e.count || i == e.count - 1 ? i + step : e.count - 1) {
            int result = insert_one(&e, i, &random);
            inserted += result == 0;
            refused += result == 1;
        }
        free(e.items);
        keys_free(&pool);
    }
    cr_assert(inserted > 1000 && refused > 20, "%u inserted, %u not", inserted, refused);
}

Test(page_inner, every_legal_placement_of_marks_in_small_pages)
{
    static const struct quire_slice keys[] = {{"", 0},    {"\0", 1}, {"\0\0", 2}, {"a", 1},
                                              {"a\0", 2}, {"b", 1},  {"b\xff", 2}};
    for (uint32_t count = 1; count <= QR_ARRAY_COUNT(keys); count++) {
        for (unsigned marks = 0; marks < 1u << count; marks++) {
            struct qr_inner_entry items[QR_ARRAY_COUNT(keys)];
            struct entries e = {.items = items, .count = count, .identity = {.pid = 1, .level = 2}};
            e.identity.high_infinite = true;
            for (uint32_t i = 0; i < count; i++)
                items[i] = (struct qr_inner_entry){keys[i], (i + 1) | ((marks >> i & 1) != 0 ? QR_CHILD_MERGING : 0)};
            struct qr_page *page = build(items, count, &e.identity);
            bool legal = (marks & 1) == 0 && (marks & marks >> 1) == 0; /* INNER-1, INNER-2 */
            cr_assert_eq(qr_page_check(page) == NULL, legal, "%u entries, marks %x", count, marks);
            if (legal)
                expect_split(page, &e);
            qr_free_aligned(page);
        }
    }
}

Test(page_inner, heads_of_all_ones_are_not_taken_for_padding)
{
    static const struct quire_slice keys[] = {{"", 0}, {"a", 1}, {"\xff\xff\xff\xff", 4}, {"\xff\xff\xff\xff\x01", 5}};
    struct qr_inner_entry items[4];
    for (uint32_t i = 0; i < 4; i++)
        items[i] = (struct qr_inner_entry){keys[i], i + 1};
    struct entries e = {.items = items, .count = 4, .identity = {.pid = 1, .level = 1, .high_infinite = true}};
    struct qr_page *page = build(items, 4, &e.identity);
    cr_assert(qr_page_check(page) == NULL);
    expect_find(page, &e, (struct quire_slice){"\xff\xff\xff\xff", 4});
    expect_find(page, &e, (struct quire_slice){"\xff\xff\xff\xff\xff", 5});
    expect_find(page, &e, (struct quire_slice){"\xff\xff\xff\xfe", 4});
    qr_free_aligned(page);
}

/* ---- Whereabouts ------------------------------------------------------------------------------------------------ */

/* A leaf of these keys with values of one size. */
static struct leaf leaf_of(const struct key_pool *pool, uint32_t from, uint32_t to)
{
    struct record_list list = {0};
    struct leaf_shape shape = {.high_infinite = true, .low = pool->keys[from]};
    for (uint32_t i = from; i < to; i++) {
        struct record record = {
            .key = pool->keys[i], .value = value_of(i + 1, 100), .lsn = i + 1, .version = i + 1, .kind = QR_RECORD_PUT};
        list_add(&list, &record);
    }
    struct leaf leaf = leaf_build(&list, &shape);
    list_free(&list);
    return leaf;
}

/* Evenly spaced numbers of 8 bytes. */
static struct key_pool spaced_keys(uint32_t count, uint64_t first, uint64_t step)
{
    struct key_pool pool = {
        .keys = calloc(count, sizeof(*pool.keys)), .count = count, .bytes = malloc((size_t)count * 8)};
    for (uint32_t i = 0; i < count; i++) {
        uint64_t number = __builtin_bswap64(first + i * step);
        memcpy(pool.bytes + (size_t)i * 8, &number, 8);
        pool.keys[i] = (struct quire_slice){pool.bytes + (size_t)i * 8, 8};
    }
    return pool;
}

/* How far from its place a key's record is expected, in bytes; -1: no guess. */
static int64_t guess_error(const struct qr_page *page, uint64_t whereabouts, uint32_t i, const struct qr_page *leaf,
                           uint32_t record)
{
    struct quire_slice key = qr_leaf_key(leaf, record);
    uint32_t own = qr_inner_group(page, i / QR_GROUP)->heads[i % QR_GROUP];
    uint32_t head = qr_head32(key.data, key.size, page->prefix_size);
    uint64_t guess = qr_where_record_offset(whereabouts, head - own);
    if (guess == 0)
        return -1;
    return llabs((int64_t)guess - (int64_t)qr_leaf_record_offset(leaf, record));
}

/* Leaves of 40 keys each under one inner page; all records are expected where they are, also after the page was built
 * anew with fewer entries, and so with a longer prefix. */
Test(page_inner, records_of_evenly_spaced_keys_are_expected_where_they_are)
{
    static const uint64_t steps[] = {1, 2, 7, 100, 4096, 1u << 20, 12345678901ull};
    enum { LEAF = 40, LEAVES = 50 };
    for (size_t s = 0; s < QR_ARRAY_COUNT(steps); s++) {
        struct key_pool pool = spaced_keys(LEAF * LEAVES, 1000000007ull * 50, steps[s]);
        struct qr_inner_entry items[LEAVES];
        struct leaf leaves[LEAVES];
        struct qr_page_identity identity = {.pid = 1, .level = 1, .high_infinite = true};
        uint32_t guessed = 0;
        for (uint32_t i = 0; i < LEAVES; i++) {
            items[i] = (struct qr_inner_entry){.key = pool.keys[i * LEAF], .child = i + 1};
            leaves[i] = leaf_of(&pool, i * LEAF, (i + 1) * LEAF);
        }
        struct qr_page *page = build(items, LEAVES, &identity);
        for (uint32_t i = 1; i < LEAVES; i++)
            qr_inner_moved(page, i, 7 | qr_inner_fit(page, i, leaves[i].page));
        qr_inner_entries(page, items);
        identity.low = items[LEAVES - 4].key;
        struct qr_page *rest = build(items + LEAVES - 4, 4, &identity);
        for (uint32_t i = 1; i < LEAVES; i++) {
            for (uint32_t r = 0; r < LEAF; r++) {
                int64_t error = guess_error(page, qr_inner_whereabouts(page, i), i, leaves[i].page, r);
                cr_assert_leq(error, 64, "step %zu: off by %lld", s, (long long)error);
                guessed += error >= 0;
                if (i < LEAVES - 3)
                    continue;
                uint32_t at = i - (LEAVES - 4);
                cr_assert_eq((uint32_t)qr_inner_whereabouts(rest, at), 7, "the block is forgotten");
                error = guess_error(rest, qr_inner_whereabouts(rest, at), at, leaves[i].page, r);
                cr_assert_leq(error, 128, "step %zu, prefix %u to %u: off by %lld", s, page->prefix_size,
                              rest->prefix_size, (long long)error);
            }
        }
        /* With the largest steps 4 bytes behind the prefix tell too few keys apart, or the slope is out of range. */
        cr_assert(s >= 5 || guessed == (LEAVES - 1) * LEAF, "step %zu: %u guesses", s, guessed);
        for (uint32_t i = 0; i < LEAVES; i++)
            leaf_free(&leaves[i]);
        qr_free_aligned(rest);
        qr_free_aligned(page);
        keys_free(&pool);
    }
}

/* Uneven keys, records of several sizes and inner pages: no guess, or one that is right for a quarter of them. */
Test(page_inner, no_guess_where_records_are_not_evenly_spaced)
{
    struct random_stream random;
    random_seed(&random, 5);
    for (unsigned round = 0; round < 500; round++) {
        struct key_pool pool = keys_make((enum key_shape)(round % SHAPE_COUNT), 60, &random);
        struct qr_inner_entry items[2] = {{.child = 1}, {.key = pool.keys[0], .child = 2}};
        struct qr_page_identity identity = {.pid = 1, .level = 1, .high_infinite = true};
        if (pool.keys[0].size != 0) {
            struct qr_page *page = build(items, 2, &identity);
            struct leaf leaf = leaf_of(&pool, 0, pool.count);
            uint64_t fit = qr_inner_fit(page, 1, leaf.page);
            for (uint32_t quarter = 0; fit != 0 && quarter <= 4; quarter++)
                cr_assert_leq(guess_error(page, fit, 1, leaf.page, (leaf.page->count - 1) * quarter / 4), 64);
            cr_assert_eq(qr_inner_fit(page, 1, page), 0);
            leaf_free(&leaf);
            qr_free_aligned(page);
        }
        keys_free(&pool);
    }
}
