/*
 * Goal: chains of every length answer as the list of their records, a delta can be linked again to another view, and
 * its summary says what lies below.
 * Method: random chains of 1 to 8 deltas over a few keys, compared after each delta; summaries compared field by field;
 * the early end of a lookup shown on a base that would answer otherwise.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "page_oracle.h"

#define KEYS 6u

static const struct quire_slice chain_keys[KEYS] = {{"", 0}, {"\0", 1}, {"k", 1}, {"k\0", 2}, {"kk", 2}, {"\xff", 1}};

/* A record that a writer installs as number `lsn`. */
static struct record next_record(bool caller, uint64_t lsn, struct random_stream *random)
{
    struct record r = {.key = chain_keys[random_below(random, KEYS)], .lsn = lsn, .version = lsn};
    r.kind = random_chance(random, 30) ? QR_RECORD_DELETE : QR_RECORD_PUT;
    if (r.kind == QR_RECORD_PUT)
        r.value = value_of(random_below(random, 256), (uint32_t)random_below(random, 40));
    if (caller)
        r.version = 1 + random_below(random, 12);
    return r;
}

/* A leaf whose base holds up to 10 records, which are also put on the list. */
static struct leaf random_leaf(bool caller, struct record_list *list, struct random_stream *random)
{
    struct qr_retention everything = {.count = 0};
    struct record_list raw = {0};
    struct leaf_shape shape = {.caller = caller, .align_log2 = (uint8_t)random_below(random, 7), .high_infinite = true};
    shape.area_bytes = area_for(QR_CHAIN_MAX + 1, 2, 40);
    for (uint64_t i = random_below(random, 11); i > 0; i--) {
        struct record r = next_record(caller, 11 - i, random);
        list_add(&raw, &r);
    }
    *list = list_retained(&raw, &everything, caller, true);
    list_free(&raw);
    return leaf_build(list, &shape);
}

static const char *view_differs(const struct qr_leaf_view *view, const struct record_list *list)
{
    const char *wrong = NULL;
    for (uint64_t version = 0; wrong == NULL && version <= 22; version++) {
        for (uint32_t k = 0; wrong == NULL && k < KEYS; k++)
            wrong = find_differs(view, list, chain_keys[k], version);
        if (wrong == NULL)
            wrong = entries_differ(view, NULL, list, version);
    }
    if (wrong == NULL && qr_view_max_lsn(view) != list_max_lsn(list))
        wrong = "highest LSN of the view is wrong";
    if (wrong == NULL && qr_view_max_version(view) != list_max_version(list))
        wrong = "highest version of the view is wrong";
    return wrong;
}

/* The head tells about the whole chain, each delta about what is below it; base_count records of the list are in the
 * base. */
static const char *summary_differs(const struct qr_leaf_view *view, const struct record_list *list, uint32_t base_count)
{
    struct record_list below = {0};
    const char *wrong = NULL;
    for (uint32_t i = 0; i < base_count; i++)
        list_add(&below, &list->records[i]);
    for (uint32_t i = 0; i < view->chain; i++) {
        const struct record *r = &list->records[base_count + i];
        const struct qr_delta *head = qr_view_head(view);
        const struct qr_delta *delta = qr_page_delta(view->page, head->offsets[i]);
        if (delta->count != i + 1)
            wrong = "a delta's count is wrong";
        if (delta->highest_below != list_max_version(&below))
            wrong = "highest version below is wrong";
        if (head->fingerprints[i] != qr_key_make(r->key.data, r->key.size).fingerprint)
            wrong = "a fingerprint of the chain is wrong";
        if (qr_record_lsn(qr_delta_record(view->page, head->offsets[i])) != r->lsn)
            wrong = "an offset of the chain is wrong";
        list_add(&below, r);
    }
    list_free(&below);
    return wrong;
}

static void expect_view(const struct qr_leaf_view *view, const struct record_list *list, uint32_t base_count, int round)
{
    const char *wrong = view_differs(view, list);
    if (wrong == NULL)
        wrong = summary_differs(view, list, base_count);
    cr_assert(wrong == NULL, "round %d, chain %u: %s", round, view->chain, wrong == NULL ? "" : wrong);
}

Test(page_chain, chains_of_every_length_answer_as_their_records)
{
    struct random_stream random;
    random_seed(&random, 3);
    for (int round = 0; round < 600; round++) {
        bool caller = round % 2 != 0;
        struct record_list list;
        struct leaf leaf = random_leaf(caller, &list, &random);
        uint32_t base_count = list.count;
        expect_view(&leaf.view, &list, base_count, round);
        for (uint64_t i = 1; i <= QR_CHAIN_MAX; i++) {
            struct record r = next_record(caller, 10 + i, &random);
            cr_assert(leaf_add(&leaf, &r));
            list_add(&list, &r);
            expect_view(&leaf.view, &list, base_count, round);
        }
        leaf_free(&leaf);
        list_free(&list);
    }
}

/* Writes a delta's record behind what the area holds; returns its offset. */
static uint32_t write_delta(struct leaf *leaf, const struct record *r)
{
    const struct qr_page *page = leaf->page;
    struct qr_record_spec spec = spec_of(r);
    uint64_t size = qr_record_size_for(spec.key_size, spec.value_size, qr_page_caller(page), page->align_log2);
    uint32_t offset = page->area_offset + leaf->area_used;
    qr_delta_write(page, offset, &spec);
    leaf->area_used += (uint32_t)qr_delta_size(size, page->align_log2);
    return offset;
}

Test(page_chain, a_delta_that_lost_is_linked_again_to_the_new_head)
{
    struct random_stream random;
    random_seed(&random, 4);
    for (int round = 0; round < 600; round++) {
        bool caller = round % 2 != 0;
        uint32_t length = (uint32_t)random_below(&random, QR_CHAIN_MAX - 1);
        struct record_list list;
        struct leaf leaf = random_leaf(caller, &list, &random);
        uint32_t base_count = list.count;
        for (uint32_t i = 0; i < length; i++) {
            struct record r = next_record(caller, 11 + i, &random);
            cr_assert(leaf_add(&leaf, &r));
            list_add(&list, &r);
        }
        /* The loser links first, and is still to be installed when the winner is. */
        struct record winner = next_record(caller, 11 + length, &random);
        struct record loser = next_record(caller, 12 + length, &random);
        uint8_t fingerprint = qr_key_make(loser.key.data, loser.key.size).fingerprint;
        uint32_t offset = write_delta(&leaf, &loser);
        qr_delta_link(&leaf.view, offset, fingerprint);
        cr_assert(leaf_add(&leaf, &winner));
        list_add(&list, &winner);
        expect_view(&leaf.view, &list, base_count, round);

        uint8_t *before = malloc(leaf.page->block_size);
        memcpy(before, leaf.page, leaf.page->block_size);
        qr_delta_link(&leaf.view, offset, fingerprint);
        cr_assert(memcmp(before, leaf.page, offset) == 0, "linking changed what lies before the delta");
        uint32_t end = offset + (uint32_t)sizeof(struct qr_delta);
        cr_assert(memcmp(before + end, (uint8_t *)leaf.page + end, leaf.page->block_size - end) == 0,
                  "linking changed what lies behind the header of the delta");
        free(before);

        leaf.view = (struct qr_leaf_view){leaf.page, leaf.view.chain + 1, offset / QR_DELTA_UNIT};
        list_add(&list, &loser);
        expect_view(&leaf.view, &list, base_count, round);
        leaf_free(&leaf);
        list_free(&list);
    }
}

Test(page_chain, a_view_of_an_older_head_does_not_see_what_came_later)
{
    struct random_stream random;
    random_seed(&random, 5);
    for (int round = 0; round < 200; round++) {
        bool caller = round % 2 != 0;
        struct record_list list;
        struct leaf leaf = random_leaf(caller, &list, &random);
        uint32_t base_count = list.count;
        struct qr_leaf_view views[QR_CHAIN_MAX + 1];
        for (uint32_t i = 0; i < QR_CHAIN_MAX; i++) {
            struct record r = next_record(caller, 11 + i, &random);
            views[i] = leaf.view;
            cr_assert(leaf_add(&leaf, &r));
            list_add(&list, &r);
        }
        views[QR_CHAIN_MAX] = leaf.view;
        for (uint32_t i = 0; i <= QR_CHAIN_MAX; i++) {
            struct record_list older = list;
            older.count = base_count + i;
            expect_view(&views[i], &older, base_count, round);
        }
        leaf_free(&leaf);
        list_free(&list);
    }
}

/* A leaf with key "k" at base_version, and a delta for it at delta_version. The base's record then gets a version that
 * it must not have, so that a lookup which goes on to the base answers it. Returns the version found. */
static uint64_t version_found(uint64_t base_version, uint64_t delta_version, uint64_t forged_version)
{
    struct record base = {.key = {"k", 1}, .lsn = 1, .version = base_version};
    struct record delta = {.key = {"k", 1}, .lsn = 2, .version = delta_version};
    struct record_list list = {0};
    list_add(&list, &base);
    struct leaf_shape shape = {.caller = true, .high_infinite = true, .area_bytes = area_for(1, 1, 0)};
    struct leaf leaf = leaf_build(&list, &shape);
    cr_assert(leaf_add(&leaf, &delta));
    qr_store_u64((uint8_t *)leaf.page + leaf.page->records_offset + 16, forged_version);
    struct qr_key key = qr_key_make("k", 1);
    const uint8_t *found = qr_leaf_find(&leaf.view, &key, UINT64_MAX);
    cr_assert(found != NULL);
    uint64_t version = qr_record_version(found, true);
    leaf_free(&leaf);
    list_free(&list);
    return version;
}

Test(page_chain, with_caller_versions_a_hit_not_below_the_rest_ends_the_search)
{
    enum qr_search_isa best = qr_search_isa();
    for (int isa = QR_SEARCH_PLAIN; isa <= QR_SEARCH_AVX512; isa++) {
        if (!qr_search_select((enum qr_search_isa)isa))
            continue;
        cr_assert_eq(version_found(5, 6, 9), 6, "the base was looked at though nothing there is higher");
        cr_assert_eq(version_found(5, 5, 9), 5, "of equal versions the chain's came last");
        cr_assert_eq(version_found(5, 4, 9), 9, "the base was not looked at though something there is higher");
    }
    qr_search_select(best);
}

Test(page_chain, values_of_deltas_are_aligned)
{
    for (uint8_t align_log2 = 0; align_log2 <= 6; align_log2++) {
        for (uint32_t key_size = 0; key_size <= 40; key_size++) {
            struct record_list none = {0};
            struct leaf_shape shape = {.align_log2 = align_log2, .high_infinite = true};
            shape.area_bytes = area_for(QR_CHAIN_MAX, 40, 9);
            struct leaf leaf = leaf_build(&none, &shape);
            struct record r = {.key = value_of(3, key_size), .value = value_of(key_size, 9), .lsn = 1, .version = 1};
            while (leaf_add(&leaf, &r))
                list_add(&none, &r), r.lsn++, r.version++;
            cr_assert_eq(leaf.view.chain, QR_CHAIN_MAX);
            cr_assert(find_differs(&leaf.view, &none, r.key, UINT64_MAX) == NULL);
            cr_assert(entries_differ(&leaf.view, NULL, &none, UINT64_MAX) == NULL);
            leaf_free(&leaf);
            list_free(&none);
        }
    }
}
