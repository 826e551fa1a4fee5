/*
 * Goal: leaves of hundreds of records stay right through consolidation, split, merge and changes of prefix.
 * Method: the life of a leaf under random operations, with random bounds of retention, for every key shape, both kinds
 * of versions, full pages and stubs; after each step compared with a list to which the definitions were applied.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "page_oracle.h"

/* A leaf, what it holds, and where its records come from. */
struct life {
    struct random_stream random;
    struct key_pool pool;
    struct leaf_shape shape;
    struct leaf leaf;
    struct record_list list;
    uint64_t lsn;
    uint32_t value_max;
};

static void expect_same(const char *wrong, const struct life *life, const char *step)
{
    cr_assert(wrong == NULL, "%s at LSN %llu, %u records: %s", step, (unsigned long long)life->lsn, life->list.count,
              wrong == NULL ? "" : wrong);
}

static bool in_bounds(const struct leaf_shape *shape, struct quire_slice key)
{
    return qr_compare(key.data, key.size, shape->low.data, shape->low.size) >= 0 &&
           (shape->high_infinite || qr_compare(key.data, key.size, shape->high.data, shape->high.size) < 0);
}

/* A record for some key of the pool within the bounds. */
static struct record next_record(struct life *life, const struct leaf_shape *shape)
{
    struct random_stream *random = &life->random;
    struct record r = {.lsn = ++life->lsn, .version = life->lsn};
    do {
        r.key = life->pool.keys[random_below(random, life->pool.count)];
    } while (!in_bounds(shape, r.key));
    r.kind = random_chance(random, 25) ? QR_RECORD_DELETE : QR_RECORD_PUT;
    if (r.kind == QR_RECORD_PUT)
        r.value = value_of(random_next(random) % 256, (uint32_t)random_below(random, life->value_max + 1));
    if (shape->caller)
        r.version = random_between(random, life->lsn / 2, life->lsn / 2 + 30);
    return r;
}

static void add_deltas(struct life *life, struct leaf *leaf, const struct leaf_shape *shape, struct record_list *list)
{
    for (uint64_t n = random_below(&life->random, QR_CHAIN_MAX + 1); n > 0; n--) {
        struct record r = next_record(life, shape);
        if (leaf_add(leaf, &r))
            list_add(list, &r);
    }
}

/* Up to three descending bounds. */
static struct qr_retention random_retention(struct life *life, uint64_t bounds[3])
{
    uint32_t count = (uint32_t)random_below(&life->random, 4);
    uint64_t bound = life->lsn + 1;
    for (uint32_t i = 0; i < count; i++)
        bounds[i] = bound = random_below(&life->random, bound + 1);
    return (struct qr_retention){.bounds = bounds, .count = count};
}

static void expect_reads(struct life *life)
{
    uint8_t buffer[512];
    for (int i = 0; i < 8; i++) {
        uint64_t version = random_chance(&life->random, 30) ? UINT64_MAX : random_below(&life->random, life->lsn + 3);
        struct quire_slice key = key_near(&life->pool, &life->random, buffer);
        expect_same(find_differs(&life->leaf.view, &life->list, key, version), life, "find");
        if (i < 2)
            expect_same(entries_differ(&life->leaf.view, NULL, &life->list, version), life, "entries");
    }
}

/* What the writer fills in once its LSN is known. */
static void settle(struct record_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->records[i].version == UINT64_MAX)
            list->records[i].version = list->records[i].lsn;
}

/* Replaces leaf and list by what consolidation makes of them. */
static void consolidate(struct life *life)
{
    const bool caller = life->shape.caller;
    uint64_t bounds[3];
    struct qr_retention retention = random_retention(life, bounds);
    struct record pending = next_record(life, &life->shape);
    bool is_pending = random_chance(&life->random, 50);
    struct qr_record_spec spec = spec_of(&pending);
    struct qr_plan plan;

    if (is_pending) {
        struct record last = pending;
        if (!caller)
            last.version = UINT64_MAX;
        list_add(&life->list, &last);
    }
    qr_plan_init(&plan, caller, life->shape.align_log2);
    cr_assert(qr_plan_add_leaf(&plan, &life->leaf.view, is_pending ? &spec : NULL, &retention));
    struct record_list kept = list_retained(&life->list, &retention, caller, (life->shape.flags & QR_PAGE_STUB) == 0);
    settle(&kept);
    list_free(&life->list);
    life->list = kept;
    expect_same(split_index_differs(&plan, &kept), life, "split index");
    struct leaf leaf = leaf_write(&plan, 0, plan.count, &life->shape, life->lsn, is_pending ? pending.lsn : 0);
    expect_same(page_differs(leaf.page, &kept, 0, kept.count), life, "consolidation");
    qr_plan_done(&plan);
    leaf_free(&life->leaf);
    life->leaf = leaf;
}

/* Splits the leaf, goes on writing to both halves, merges them again. */
static void split_and_merge(struct life *life)
{
    struct qr_retention everything = {.count = 0};
    struct qr_plan plan;
    uint64_t bounds[3];
    qr_plan_init(&plan, life->shape.caller, life->shape.align_log2);
    cr_assert(qr_plan_add_leaf(&plan, &life->leaf.view, NULL, &everything));
    uint32_t at = qr_plan_split_index(&plan, plan.bytes / 16 * (random_chance(&life->random, 30) ? 15 : 8));
    if (at != 0) {
        struct record_list lists[2] = {{0}, {0}};
        struct leaf_shape shapes[2] = {life->shape, life->shape};
        shapes[0].high = shapes[1].low = life->list.records[at].key;
        shapes[0].high_infinite = false;
        struct leaf halves[2] = {leaf_write(&plan, 0, at, &shapes[0], life->lsn, 0),
                                 leaf_write(&plan, at, plan.count, &shapes[1], life->lsn, 0)};
        qr_plan_done(&plan);
        expect_same(page_differs(halves[0].page, &life->list, 0, at), life, "left half");
        expect_same(page_differs(halves[1].page, &life->list, at, life->list.count), life, "right half");
        for (uint32_t i = 0; i < life->list.count; i++)
            list_add(&lists[i >= at], &life->list.records[i]);
        for (int half = 0; half < 2; half++)
            add_deltas(life, &halves[half], &shapes[half], &lists[half]);

        struct qr_retention retention = random_retention(life, bounds);
        for (uint32_t i = 0; i < lists[1].count; i++)
            list_add(&lists[0], &lists[1].records[i]);
        list_free(&life->list);
        life->list = list_retained(&lists[0], &retention, life->shape.caller, (life->shape.flags & QR_PAGE_STUB) == 0);
        qr_plan_init(&plan, life->shape.caller, life->shape.align_log2);
        cr_assert(qr_plan_add_leaf(&plan, &halves[0].view, NULL, &retention));
        cr_assert(qr_plan_add_leaf(&plan, &halves[1].view, NULL, &retention));
        leaf_free(&life->leaf);
        life->leaf = leaf_write(&plan, 0, plan.count, &life->shape, life->lsn, 0);
        expect_same(page_differs(life->leaf.page, &life->list, 0, life->list.count), life, "merge");
        for (int half = 0; half < 2; half++) {
            leaf_free(&halves[half]);
            list_free(&lists[half]);
        }
    }
    qr_plan_done(&plan);
}

static void live(struct life life, int steps)
{
    life.shape.area_bytes = area_for(QR_CHAIN_MAX / 2, 300, life.value_max); /* may be full before the chain is long */
    life.shape.high_infinite = true;
    life.leaf = leaf_build(&life.list, &life.shape);
    for (int step = 0; step < steps; step++) {
        add_deltas(&life, &life.leaf, &life.shape, &life.list);
        expect_reads(&life);
        consolidate(&life);
        expect_reads(&life);
        if (step % 8 == 7)
            split_and_merge(&life);
    }
    leaf_free(&life.leaf);
    list_free(&life.list);
    keys_free(&life.pool);
}

static struct life life_of(int seed, enum key_shape shape, uint32_t keys, bool caller, uint8_t flags)
{
    struct life life = {.value_max = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 20 : 500};
    random_seed(&life.random, (uint64_t)seed * 1000 + (uint64_t)shape);
    life.pool = keys_make(shape, keys, &life.random);
    life.shape.caller = caller;
    life.shape.align_log2 = (uint8_t)random_below(&life.random, 7);
    life.shape.flags = flags;
    return life;
}

Test(page_random, leaves_live_through_consolidation_split_and_merge)
{
    for (int shape = 0; shape < SHAPE_COUNT; shape++)
        for (int kind = 0; kind < 4; kind++)
            live(life_of(shape * 4 + kind, (enum key_shape)shape, 150, kind % 2 != 0, kind / 2 != 0 ? QR_PAGE_STUB : 0),
                 60);
}

Test(page_random, many_versions_of_few_keys)
{
    for (int keys = 1; keys <= 3; keys++)
        for (int caller = 0; caller < 2; caller++)
            live(life_of(keys, SHAPE_COUNTER, (uint32_t)keys, caller != 0, 0), 60);
}

/* ---- Joins ------------------------------------------------------------------------------------------------------ */

static void add_records(struct life *life, uint64_t count, struct record_list *list)
{
    for (; count > 0; count--) {
        struct record r = next_record(life, &life->shape);
        list_add(list, &r);
    }
}

static void check_join(struct life life)
{
    const bool caller = life.shape.caller;
    struct qr_retention everything = {.count = 0};
    struct record_list old = {0}, raw = {0}, all = {0};
    uint64_t bounds[3];

    life.shape.high_infinite = true;
    add_records(&life, random_below(&life.random, 300), &old);
    add_records(&life, random_below(&life.random, 60), &raw);
    struct record_list in_image = list_retained(&old, &everything, caller, true);
    life.list = list_retained(&raw, &everything, caller, true);
    struct leaf image = leaf_build(&in_image, &life.shape);
    struct leaf_shape stub_shape = life.shape;
    stub_shape.flags = QR_PAGE_STUB;
    stub_shape.area_bytes = area_for(QR_CHAIN_MAX, 300, life.value_max);
    life.leaf = leaf_build(&life.list, &stub_shape);
    add_deltas(&life, &life.leaf, &stub_shape, &life.list);

    for (uint32_t i = 0; i < in_image.count; i++)
        list_add(&all, &in_image.records[i]);
    for (uint32_t i = 0; i < life.list.count; i++)
        list_add(&all, &life.list.records[i]);
    for (int i = 0; i < 6; i++) {
        uint64_t version = i == 0 ? UINT64_MAX : random_below(&life.random, life.lsn + 2);
        expect_same(entries_differ(&life.leaf.view, image.page, &all, version), &life, "joined entries");
    }
    struct qr_retention retention = random_retention(&life, bounds);
    struct record_list kept = list_retained(&all, &retention, caller, true);
    struct qr_plan plan;
    qr_plan_init(&plan, caller, life.shape.align_log2);
    cr_assert(qr_plan_add_joined(&plan, &life.leaf.view, image.page, NULL, &retention));
    struct leaf joined = leaf_write(&plan, 0, plan.count, &life.shape, life.lsn, 0);
    expect_same(page_differs(joined.page, &kept, 0, kept.count), &life, "join");
    qr_plan_done(&plan);
    leaf_free(&joined);
    leaf_free(&image);
    leaf_free(&life.leaf);
    list_free(&kept);
    list_free(&all);
    list_free(&in_image);
    list_free(&old);
    list_free(&raw);
    list_free(&life.list);
    keys_free(&life.pool);
}

Test(page_random, stubs_join_with_their_images)
{
    for (int seed = 0; seed < 40; seed++)
        for (int shape = 0; shape < SHAPE_COUNT; shape++)
            check_join(life_of(seed, (enum key_shape)shape, 80, seed % 2 != 0, 0));
}

/* ---- Without memory --------------------------------------------------------------------------------------------- */

/* Every second record of the page is dropped, so that the plan has a piece for each that is left. */
static bool make_scattered_plan(const struct leaf *leaf, const struct leaf *stub, struct qr_plan *plan)
{
    struct qr_retention retention = {.bounds = (uint64_t[]){10000}, .count = 1};
    qr_plan_init(plan, false, 0);
    return stub == NULL ? qr_plan_add_leaf(plan, &leaf->view, NULL, &retention)
                        : qr_plan_add_joined(plan, &stub->view, leaf->page, NULL, &retention);
}

Test(page_random, a_plan_without_memory_fails_and_leaves_nothing_behind)
{
    struct random_stream random;
    random_seed(&random, 11);
    struct key_pool pool = keys_make(SHAPE_COUNTER, 200, &random);
    struct record_list list = {0}, none = {0}, newest = {0};
    for (uint32_t i = 0; i < 2 * pool.count; i++)
        list_add(&list, &(struct record){.key = pool.keys[i / 2], .lsn = 1000 - i, .version = 1000 - i});
    for (uint32_t i = 0; i < list.count; i += 2)
        list_add(&newest, &list.records[i]);
    struct leaf_shape shape = {.high_infinite = true};
    struct leaf_shape stub_shape = {.high_infinite = true, .flags = QR_PAGE_STUB};
    struct leaf leaf = leaf_build(&list, &shape);
    struct leaf stub = leaf_build(&none, &stub_shape);

    for (int joined = 0; joined < 2; joined++) {
        struct qr_plan plan;
        int64_t failures = 0;
        for (bool done = false; !done;) {
            qr_alloc_fail_after(failures + 1);
            done = make_scattered_plan(&leaf, joined ? &stub : NULL, &plan);
            qr_alloc_fail_after(-1);
            if (!done)
                qr_plan_done(&plan);
            failures += !done;
        }
        cr_assert_geq(failures, 3 + joined);
        struct leaf fresh = leaf_write(&plan, 0, plan.count, &shape, 1000, 0);
        const char *wrong = page_differs(fresh.page, &newest, 0, newest.count);
        cr_assert(wrong == NULL, "%s", wrong == NULL ? "" : wrong);
        leaf_free(&fresh);
        qr_plan_done(&plan);
    }
    leaf_free(&leaf);
    leaf_free(&stub);
    list_free(&list);
    list_free(&newest);
    keys_free(&pool);
}

/* ---- Splits and prefixes ---------------------------------------------------------------------------------------- */

Test(page_random, every_split_of_a_leaf_gives_two_good_ones)
{
    struct qr_retention everything = {.count = 0};
    struct random_stream random;
    random_seed(&random, 6);
    for (int shape = 0; shape < SHAPE_COUNT; shape++) {
        for (uint32_t value_max = 0; value_max <= VALUE_MAX; value_max += VALUE_MAX / 2) {
            struct key_pool pool = keys_make((enum key_shape)shape, 120, &random);
            struct record_list list = {0};
            for (uint32_t i = 0; i < pool.count; i++)
                for (uint64_t n = random_below(&random, 3); n < 3; n++)
                    list_add(&list,
                             &(struct record){.key = pool.keys[i],
                                              .lsn = list.count + 1,
                                              .version = list.count + 1,
                                              .value = value_of(i, (uint32_t)random_below(&random, value_max + 1))});
            list_sort(&list);
            struct leaf_shape leaf_shape = {.high_infinite = true};
            struct leaf leaf = leaf_build(&list, &leaf_shape);
            struct qr_plan plan;
            qr_plan_init(&plan, false, 0);
            cr_assert(qr_plan_add_leaf(&plan, &leaf.view, NULL, &everything));
            const char *wrong = splits_differ(&plan, &list, &leaf_shape);
            if (wrong == NULL)
                wrong = split_index_differs(&plan, &list);
            cr_assert(wrong == NULL, "shape %d: %s", shape, wrong == NULL ? "" : wrong);
            for (uint32_t i = 0; i < list.count; i++) {
                struct quire_slice key = qr_plan_key(&plan, i);
                cr_assert(qr_equal(key.data, key.size, list.records[i].key.data, list.records[i].key.size));
            }
            qr_plan_done(&plan);
            leaf_free(&leaf);
            list_free(&list);
            keys_free(&pool);
        }
    }
}

/* Adds the key to a leaf of keys that share more than it does with them, then cuts it off again. */
Test(page_random, the_prefix_shrinks_and_grows_with_the_keys)
{
    static const struct quire_slice outsiders[] = {{"", 0}, {"aaaaaaaaaaaaaaaaaaaaaaaa", 24}, {"ab", 2}, {"b", 1}};
    static const struct quire_slice insiders[] = {
        {"aaaaaaaaaaaaaaaaaaaaaaaab1", 26}, {"aaaaaaaaaaaaaaaaaaaaaaaab2", 26}, {"aaaaaaaaaaaaaaaaaaaaaaaab2\0", 27}};
    for (size_t o = 0; o < QR_ARRAY_COUNT(outsiders); o++) {
        struct record_list list = {0};
        for (uint32_t i = 0; i < QR_ARRAY_COUNT(insiders); i++)
            list_add(&list, &(struct record){.key = insiders[i], .lsn = i + 1, .version = i + 1});
        struct leaf_shape shape = {.high_infinite = true, .area_bytes = area_for(1, 30, 0)};
        struct leaf leaf = leaf_build(&list, &shape);
        cr_assert_eq(leaf.page->prefix_size, 25);
        struct record outsider = {.key = outsiders[o], .lsn = 9, .version = 9};
        cr_assert(leaf_add(&leaf, &outsider));
        list_add(&list, &outsider);
        list_sort(&list);

        struct qr_retention everything = {.count = 0};
        struct qr_plan plan;
        qr_plan_init(&plan, false, 0);
        cr_assert(qr_plan_add_leaf(&plan, &leaf.view, NULL, &everything));
        struct leaf wide = leaf_write(&plan, 0, plan.count, &shape, 9, 0);
        cr_assert(page_differs(wide.page, &list, 0, list.count) == NULL);
        cr_assert_lt(wide.page->prefix_size, 25);
        for (uint32_t i = 0; i < list.count; i++)
            cr_assert(find_differs(&wide.view, &list, list.records[i].key, UINT64_MAX) == NULL);
        qr_plan_done(&plan);
        qr_plan_init(&plan, false, 0);
        cr_assert(qr_plan_add_leaf(&plan, &wide.view, NULL, &everything));
        cr_assert(splits_differ(&plan, &list, &shape) == NULL);
        qr_plan_done(&plan);
        leaf_free(&wide);
        leaf_free(&leaf);
        list_free(&list);
    }
}
