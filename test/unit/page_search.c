/*
 * Goal: the searches of a page, and its tests of bounds, agree with linear search in every instruction set.
 * Method: leaves and inner pages of 1 to 2,000 keys of every shape that makes heads, prefixes or fingerprints tie;
 * each key of the page and many near it are looked up. Bounds: all pairs of short strings against all short strings.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "page_oracle.h"

static const uint32_t counts[] = {1, 2, 3, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 300, 1000, 2000};

static bool is_before(struct quire_slice a, struct quire_slice b)
{
    return qr_compare(a.data, a.size, b.data, b.size) < 0;
}

/* Records of the keys: one version each, or some with several; the values of one size, or of many. */
static struct record_list records_of(const struct key_pool *pool, bool versions, bool mixed,
                                     struct random_stream *random)
{
    struct record_list list = {0};
    uint64_t lsn = 0;
    for (uint32_t i = 0; i < pool->count; i++) {
        uint64_t count = versions ? random_between(random, 1, 3) : 1;
        for (; count > 0; count--, lsn++)
            list_add(&list, &(struct record){.key = pool->keys[i],
                                             .value = value_of(lsn, mixed ? (uint32_t)random_below(random, 60) : 10),
                                             .lsn = 1 + lsn,
                                             .version = 1 + lsn});
    }
    list_sort(&list);
    return list;
}

static uint32_t slow_lower_bound(const struct record_list *sorted, struct quire_slice key)
{
    uint32_t i = 0;
    while (i < sorted->count && is_before(sorted->records[i].key, key))
        i++;
    return i;
}

static void expect_lower_bound(const struct qr_page *page, const struct record_list *sorted, struct quire_slice key)
{
    struct qr_key wanted = qr_key_make(key.data, key.size);
    uint32_t expected = slow_lower_bound(sorted, key);
    enum qr_search_isa best = qr_search_isa();
    for (int isa = QR_SEARCH_PLAIN; isa <= QR_SEARCH_AVX512; isa++) {
        if (!qr_search_select((enum qr_search_isa)isa))
            continue;
        uint32_t found = qr_leaf_lower_bound(page, &wanted);
        if (found != expected)
            cr_assert(false, "isa %d, %u records: %u instead of %u", isa, page->count, found, expected);
    }
    qr_search_select(best);
}

static void check_leaf(enum key_shape shape, uint32_t count, bool versions, struct random_stream *random)
{
    uint8_t buffer[512];
    struct key_pool pool = keys_make(shape, count, random);
    struct record_list list = records_of(&pool, versions, random_chance(random, 50), random);
    struct leaf_shape leaf_shape = {
        .caller = random_chance(random, 50), .align_log2 = (uint8_t)random_below(random, 7), .high_infinite = true};
    struct leaf leaf = leaf_build(&list, &leaf_shape);
    const char *wrong = page_differs(leaf.page, &list, 0, list.count);

    cr_assert(wrong == NULL, "shape %d, %u keys: %s", shape, count, wrong == NULL ? "" : wrong);
    cr_assert_eq(leaf.page->max_version, list_max_version(&list));
    for (uint32_t i = 0; i<pool.count; i += pool.count> 300 ? 7 : 1)
        expect_lower_bound(leaf.page, &list, pool.keys[i]);
    for (int i = 0; i < 300; i++) {
        struct quire_slice key = key_near(&pool, random, buffer);
        expect_lower_bound(leaf.page, &list, key);
        wrong = i < 60 ? find_differs(&leaf.view, &list, key, random_below(random, list.count + 2)) : NULL;
        cr_assert(wrong == NULL, "shape %d, %u keys: %s", shape, count, wrong == NULL ? "" : wrong);
    }
    leaf_free(&leaf);
    list_free(&list);
    keys_free(&pool);
}

Test(page_search, lower_bound_and_find_in_leaves_agree_with_linear_search)
{
    struct random_stream random;
    random_seed(&random, 1);
    for (int shape = 0; shape < SHAPE_COUNT; shape++)
        for (size_t i = 0; i < QR_ARRAY_COUNT(counts); i++)
            for (int versions = 0; versions < 2; versions++)
                check_leaf((enum key_shape)shape, counts[i], versions != 0, &random);
}

Test(page_search, an_empty_leaf_has_no_bounds_to_find)
{
    struct record_list none = {0};
    struct leaf_shape shape = {.low = {"b", 1}, .high = {"bz", 2}};
    struct leaf leaf = leaf_build(&none, &shape);
    cr_assert(qr_page_check(leaf.page) == NULL, "%s", qr_page_check(leaf.page));
    expect_lower_bound(leaf.page, &none, (struct quire_slice){"a", 1});
    expect_lower_bound(leaf.page, &none, (struct quire_slice){"bb", 2});
    cr_assert(find_differs(&leaf.view, &none, (struct quire_slice){"bb", 2}, UINT64_MAX) == NULL);
    cr_assert(entries_differ(&leaf.view, NULL, &none, UINT64_MAX) == NULL);
    leaf_free(&leaf);
}

/* ---- Fingerprints ----------------------------------------------------------------------------------------------- */

Test(page_search, keys_with_one_fingerprint_are_told_apart_in_chain_and_base)
{
    static uint8_t bytes[200][4];
    struct record_list all = {0};
    uint8_t wanted = qr_key_make("seed", 4).fingerprint;
    uint32_t made = 0;
    for (uint32_t number = 0; made < 200; number++) {
        qr_store_u32(bytes[made], number);
        if (qr_key_make(bytes[made], 4).fingerprint != wanted)
            continue;
        list_add(&all, &(struct record){
                           .key = {bytes[made], 4}, .value = value_of(made, 9), .lsn = made + 1, .version = made + 1});
        made++;
    }
    for (int caller = 0; caller < 2; caller++) {
        struct record_list base = {0};
        for (uint32_t i = 0; i < 190; i++)
            list_add(&base, &all.records[i]);
        list_sort(&base);
        struct leaf_shape shape = {.caller = caller != 0, .high_infinite = true, .area_bytes = area_for(8, 4, 9)};
        struct leaf leaf = leaf_build(&base, &shape);
        for (uint32_t i = 190; i < 198; i++) {
            cr_assert(leaf_add(&leaf, &all.records[i]));
            list_add(&base, &all.records[i]);
        }
        for (uint32_t i = 0; i < all.count; i++) {
            const char *wrong = find_differs(&leaf.view, &base, all.records[i].key, UINT64_MAX);
            cr_assert(wrong == NULL, "key %u: %s", i, wrong == NULL ? "" : wrong);
        }
        leaf_free(&leaf);
        list_free(&base);
    }
    list_free(&all);
}

/* ---- Bounds ----------------------------------------------------------------------------------------------------- */

#define SHORT_STRINGS (1 + 3 + 9 + 27)

static uint8_t short_bytes[SHORT_STRINGS][32];
static struct quire_slice short_strings[SHORT_STRINGS];

/* All strings of up to three of {00, 61, ff}, after `prefix` bytes that they share. */
static void make_short_strings(size_t prefix)
{
    static const uint8_t letters[] = {0x00, 0x61, 0xff};
    unsigned made = 0;
    for (unsigned size = 0, many = 1; size <= 3; size++, many *= 3) {
        for (unsigned number = 0; number < many; number++, made++) {
            memset(short_bytes[made], 'x', prefix);
            for (unsigned i = 0, rest = number; i < size; i++, rest /= 3)
                short_bytes[made][prefix + i] = letters[rest % 3];
            short_strings[made] = (struct quire_slice){short_bytes[made], prefix + size};
        }
    }
}

static void expect_bounds(const struct qr_page *page, bool infinite, struct quire_slice low, struct quire_slice high)
{
    static const struct quire_slice others[] = {{"", 0}, {"x", 1}, {"xxxxx", 5}, {"y", 1}, {"w", 1}, {"\xff\xff", 2}};
    for (unsigned i = 0; i < SHORT_STRINGS + QR_ARRAY_COUNT(others); i++) {
        struct quire_slice key = i < SHORT_STRINGS ? short_strings[i] : others[i - SHORT_STRINGS];
        struct qr_key wanted = qr_key_make(key.data, key.size);
        if (qr_page_key_below(page, &wanted) != is_before(key, low))
            cr_assert(false, "below: string %u", i);
        if (qr_page_key_beyond(page, &wanted) != (!infinite && !is_before(key, high)))
            cr_assert(false, "beyond: string %u", i);
    }
}

Test(page_search, keys_are_placed_against_low_and_high_key_as_by_comparison)
{
    static const size_t prefixes[] = {0, 1, 7, 8, 15, 16, 17, 20};
    struct record_list none = {0};
    for (size_t p = 0; p < QR_ARRAY_COUNT(prefixes); p++) {
        make_short_strings(prefixes[p]);
        for (unsigned l = 0; l < SHORT_STRINGS; l++) {
            for (unsigned h = 0; h < SHORT_STRINGS; h++) {
                bool infinite = h == 0;
                struct quire_slice low = short_strings[l], high = short_strings[h];
                if (!infinite && !is_before(low, high))
                    continue;
                struct leaf_shape shape = {.low = low, .high = high, .high_infinite = infinite};
                struct leaf leaf = leaf_build(&none, &shape);
                if (qr_page_check(leaf.page) != NULL)
                    cr_assert(false, "%s", qr_page_check(leaf.page));
                expect_bounds(leaf.page, infinite, low, high);
                leaf_free(&leaf);
            }
        }
    }
}

Test(page_search, a_selected_instruction_set_is_the_one_in_use)
{
    cr_assert(qr_search_select(QR_SEARCH_PLAIN));
    cr_assert_eq(qr_search_isa(), QR_SEARCH_PLAIN);
    for (int isa = QR_SEARCH_PLAIN; isa <= QR_SEARCH_AVX512; isa++) {
        enum qr_search_isa before = qr_search_isa();
        bool selected = qr_search_select((enum qr_search_isa)isa);
        cr_assert_eq(qr_search_isa(), selected ? (enum qr_search_isa)isa : before);
    }
}
