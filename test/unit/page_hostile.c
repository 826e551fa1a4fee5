/*
 * Goal: qr_page_check_bytes survives any bytes, and what it accepts is safe to use; qr_page_dump shows what is there.
 * Method: good leaves and inner pages, in blocks of just their size; every single bit flipped; random damage, also cut
 * short; random bytes. Whatever still passes is searched, listed, planned and dumped.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "page_oracle.h"

/* A leaf of `count` records with deletions and several versions. */
static struct qr_page *make_leaf(bool caller, uint8_t align_log2, bool mixed, uint32_t count)
{
    static const char *const names[] = {"", "\0", "aaaa", "aaaaa", "aaaab", "b"};
    static const size_t sizes[] = {0, 1, 4, 5, 5, 1};
    struct leaf_shape shape = {.caller = caller, .align_log2 = align_log2, .high = {"c", 1}, .area_bytes = 64};
    struct record_list list = {0};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t k = mixed ? i % 6 : i % 2 + 3; /* of one size, or of many */
        struct record r = {.key = {names[k], sizes[k]}, .lsn = 1 + i, .version = 1 + i, .kind = i % 3 == 2};
        r.value = value_of(i, mixed ? i % 11 : 6);
        list_add(&list, &r);
    }
    list_sort(&list);
    struct leaf leaf = leaf_build(&list, &shape);
    list_free(&list);
    return leaf.page;
}

static struct qr_page *make_inner(uint32_t count, struct random_stream *random)
{
    struct key_pool pool = keys_make(SHAPE_HEADS, count, random);
    struct qr_inner_entry *entries = calloc(pool.count, sizeof(*entries));
    struct qr_page_identity identity = {.pid = 5, .level = 1, .high_infinite = true, .max_lsn = 9};
    for (uint32_t i = 0; i < pool.count; i++)
        entries[i] = (struct qr_inner_entry){pool.keys[i], (100 + i) | (i % 4 == 3 ? QR_CHILD_MERGING : 0)};
    size_t size = qr_inner_size(entries, pool.count, &identity);
    struct qr_page *page = qr_malloc_aligned(64, size);
    cr_assert(page != NULL);
    memset(page, 0, size);
    qr_inner_build(page, size, entries, pool.count, &identity);
    free(entries);
    keys_free(&pool);
    return page;
}

#define SAMPLES 6

static struct qr_page *make(int sample, struct random_stream *random)
{
    switch (sample) {
    case 0:
        return make_leaf(false, 0, true, 14);
    case 1:
        return make_leaf(false, 3, false, 9);
    case 2:
        return make_leaf(true, 6, true, 8);
    case 3:
        return make_leaf(true, 0, false, 70);
    case 4:
        return make_inner(1, random);
    default:
        return make_inner(40, random);
    }
}

/* ---- Using what was accepted ------------------------------------------------------------------------------------ */

static uint64_t accepted, refused;
static uint64_t seen; /* what was read, so that reading is not left out */

static void use_leaf(const struct qr_page *page, const struct qr_key *key)
{
    struct qr_leaf_view view = {.page = page};
    struct qr_retention retention = {.bounds = (uint64_t[]){5}, .count = 1};
    struct quire_entry *entries = qr_malloc((page->count + 1) * sizeof(*entries));
    struct qr_plan plan;
    seen += qr_leaf_find(&view, key, UINT64_MAX) != NULL;
    seen += qr_leaf_lower_bound(page, key);
    seen += qr_leaf_entries(&view, 5, entries);
    qr_plan_init(&plan, qr_page_caller(page), page->align_log2);
    cr_assert(qr_plan_add_leaf(&plan, &view, NULL, &retention));
    struct leaf_shape shape = {.caller = qr_page_caller(page), .align_log2 = page->align_log2, .high_infinite = true};
    struct leaf copy = leaf_write(&plan, 0, plan.count, &shape, page->max_lsn, 0);
    const char *wrong = qr_page_check(copy.page);
    cr_assert(wrong == NULL, "a copy of an accepted page: %s", wrong == NULL ? "" : wrong);
    leaf_free(&copy);
    qr_plan_done(&plan);
    qr_free(entries);
}

static void use(const struct qr_page *page)
{
    struct qr_leaf_view view = {.page = page};
    struct qr_key keys[] = {qr_key_make("", 0), qr_key_make("aaaab", 5), qr_key_make("hhhhhhhhh", 9)};
    enum qr_search_isa best = qr_search_isa();
    char text[64];
    for (int isa = QR_SEARCH_PLAIN; isa <= QR_SEARCH_AVX512; isa++) {
        if (!qr_search_select((enum qr_search_isa)isa))
            continue;
        for (size_t i = 0; i < QR_ARRAY_COUNT(keys); i++) {
            seen += qr_page_key_beyond(page, &keys[i]) + qr_page_key_below(page, &keys[i]);
            if (page->kind == QR_PAGE_LEAF)
                use_leaf(page, &keys[i]);
            else
                seen += qr_inner_child(page, qr_inner_find(page, &keys[i]));
        }
    }
    qr_search_select(best);
    seen += qr_page_dump(&view, text, sizeof(text));
}

static void try(const void *bytes, size_t size)
{
    if (qr_page_check_bytes(bytes, size) != NULL) {
        refused++;
        return;
    }
    accepted++;
    use(bytes);
}

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

Test(page_hostile, every_single_bit_flipped)
{
    struct random_stream random;
    random_seed(&random, 7);
    for (int sample = 0; sample < SAMPLES; sample++) {
        struct qr_page *page = make(sample, &random);
        size_t size = page->block_size;
        uint8_t *bytes = (uint8_t *)page;
        cr_assert(qr_page_check(page) == NULL, "sample %d: %s", sample, qr_page_check(page));
        for (size_t bit = 0; bit < size * 8; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            try(bytes, size);
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        cr_assert(qr_page_check(page) == NULL);
        qr_free_aligned(page);
    }
    cr_assert_gt(refused, 10000);
    cr_assert_gt(accepted, 1000, "values and ids may have any bits");
    cr_assert_gt(seen, 0);
}

/* Overwrites a few numbers of the page with what goes wrong most easily. */
static void damage(uint8_t *bytes, size_t size, struct random_stream *random)
{
    static const uint32_t bad[] = {0, 1, 3, 16, 64, 0xff, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff};
    for (uint64_t n = random_between(random, 1, 4); n > 0; n--) {
        size_t place = random_chance(random, 60) ? random_below(random, 32) * 4 : random_below(random, size - 4);
        uint32_t value = random_chance(random, 50)
                             ? bad[random_below(random, QR_ARRAY_COUNT(bad))]
                             : qr_load_u32(bytes + place) + (uint32_t)random_below(random, 33) - 16;
        qr_store_u32(bytes + place, value);
    }
}

Test(page_hostile, random_damage_and_blocks_cut_short)
{
    struct random_stream random;
    random_seed(&random, 8);
    for (int sample = 0; sample < SAMPLES; sample++) {
        struct qr_page *page = make(sample, &random);
        for (int round = 0; round < 8000; round++) {
            size_t size = page->block_size;
            size_t left = round % 4 == 0 ? random_below(&random, size + 1) : size;
            uint8_t *bytes = qr_malloc_aligned(64, left);
            cr_assert(bytes != NULL);
            memcpy(bytes, page, left);
            if (left >= QR_PAGE_HEADER)
                damage(bytes, left, &random);
            try(bytes, left);
            qr_free_aligned(bytes);
        }
        qr_free_aligned(page);
    }
    cr_assert_gt(refused, 10000);
}

Test(page_hostile, random_bytes)
{
    struct random_stream random;
    random_seed(&random, 9);
    for (int round = 0; round < 20000; round++) {
        size_t size = random_below(&random, 600);
        uint8_t *bytes = qr_malloc_aligned(64, size);
        cr_assert(bytes != NULL);
        random_fill(&random, bytes, size);
        cr_assert(qr_page_check_bytes(bytes, size) != NULL);
        if (size >= QR_PAGE_HEADER) { /* so that it gets further */
            qr_store_u32(bytes, (uint32_t)size);
            bytes[4] = (uint8_t)random_between(&random, 1, 2);
            bytes[5] = bytes[4] - 1;
            bytes[6] = (uint8_t)random_below(&random, 2);
            try(bytes, size);
        }
        qr_free_aligned(bytes);
    }
    cr_assert_gt(refused, 10000);
}

/* ---- Dump ------------------------------------------------------------------------------------------------------- */

static void expect_text(const struct qr_leaf_view *view, const char *const *parts, size_t count)
{
    char text[8192], part[100];
    size_t length = qr_page_dump(view, text, sizeof(text));
    cr_assert(length < sizeof(text));
    cr_assert_eq(length, strlen(text));
    for (size_t i = 0; i < count; i++)
        cr_expect(strstr(text, parts[i]) != NULL, "no \"%s\" in:\n%s", parts[i], text);
    cr_assert_eq(qr_page_dump(view, NULL, 0), length);
    cr_assert_eq(qr_page_dump(view, part, sizeof(part)), length);
    cr_assert_eq(strlen(part), sizeof(part) - 1);
    cr_assert(memcmp(part, text, sizeof(part) - 1) == 0);
}

Test(page_hostile, a_dump_shows_header_bounds_records_and_chain)
{
    static const char *const parts[] = {
        "leaf pid 7 tree 3 level 0 right 8 count 2 caller-versions multi\n",
        "low \"\"",
        "high \"x\\xff\"",
        "\"a\\x00\\x22b\" put lsn 4 version 9 value 3 bytes\n",
        "\"k\" delete lsn 5 version 2 value 0 bytes\n",
        "delta 0 at ",
        " highest below 9: \"new\" put lsn 6 version 1 value 2 bytes\n",
    };
    struct leaf_shape shape = {.caller = true, .high = {"x\xff", 2}, .area_bytes = area_for(1, 3, 2)};
    struct record records[] = {
        {.key = {"a\0\"b", 4}, .value = value_of(1, 3), .lsn = 4, .version = 9},
        {.key = {"k", 1}, .lsn = 5, .version = 2, .kind = QR_RECORD_DELETE},
        {.key = {"new", 3}, .value = value_of(2, 2), .lsn = 6, .version = 1},
    };
    struct leaf leaf = leaf_build(&(struct record_list){.records = records, .count = 2}, &shape);
    cr_assert(leaf_add(&leaf, &records[2]));
    expect_text(&leaf.view, parts, QR_ARRAY_COUNT(parts));
    leaf_free(&leaf);
}

Test(page_hostile, a_dump_of_an_inner_page_shows_children_and_marks)
{
    static const char *const parts[] = {
        "inner pid 5 tree 0 level 1 right 0 count 40\n",
        "high infinite",
        "entry 0: \"\" child 100\n",
        "child 101\n",
        "child 103 merging\n",
    };
    struct random_stream random;
    random_seed(&random, 10);
    struct qr_page *page = make_inner(40, &random);
    expect_text(&(struct qr_leaf_view){.page = page}, parts, QR_ARRAY_COUNT(parts));
    qr_free_aligned(page);
}

Test(page_hostile, a_dump_cuts_long_keys)
{
    struct record r = {.key = value_of(0, 300), .lsn = 1, .version = 1};
    struct leaf_shape shape = {.high_infinite = true};
    static const char *const parts[] = {"\"... (300 bytes) put lsn 1 value 0 bytes"};
    struct leaf leaf = leaf_build(&(struct record_list){.records = &r, .count = 1}, &shape);
    expect_text(&leaf.view, parts, 1);
    leaf_free(&leaf);
}
