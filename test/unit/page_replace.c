/*
 * Goal: a leaf whose chain only replaces values is copied with those records exchanged, and is the page that the general
 * way makes; a chain that does anything else is not taken for one.
 * Method: random leaves and chains; what qr_leaf_replace builds is compared with what the list retains and with the page
 * that a plan makes of the same; one deviation at a time must be refused.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "page/replace.h"
#include "page_oracle.h"

enum { KEYS_MAX = 90, VALUE = 60 };

/* A leaf of `count` records with values of one size, and what is known of it. */
struct life {
    struct key_pool pool;
    struct record_list list;
    struct leaf_shape shape;
    struct leaf leaf;
    uint64_t lsn;
};

static const uint64_t infinite = UINT64_MAX;
static const struct qr_retention newest_only = {.bounds = &infinite, .count = 1};

static struct record record_for(struct life *life, uint32_t key, uint32_t value_size, unsigned kind)
{
    life->lsn += 3;
    return (struct record){.key = life->pool.keys[key],
                           .value = kind == QR_RECORD_PUT ? value_of(life->lsn, value_size) : (struct quire_slice){0},
                           .lsn = life->lsn,
                           .version = life->lsn,
                           .kind = kind};
}

static struct life life_begin(enum key_shape shape, uint32_t count, uint8_t align_log2, struct random_stream *random)
{
    struct life life = {.pool = keys_make(shape, count, random)};
    life.shape = (struct leaf_shape){
        .align_log2 = align_log2, .high_infinite = true, .area_bytes = area_for(QR_CHAIN_MAX, 300, VALUE)};
    for (uint32_t i = 0; i < life.pool.count; i++) {
        struct record record = record_for(&life, i, VALUE, QR_RECORD_PUT);
        list_add(&life.list, &record);
    }
    list_sort(&life.list);
    life.leaf = leaf_build(&life.list, &life.shape);
    return life;
}

static void life_end(struct life *life)
{
    leaf_free(&life->leaf);
    list_free(&life->list);
    keys_free(&life->pool);
}

static bool add_delta(struct life *life, uint32_t key, uint32_t value_size, unsigned kind)
{
    struct record record = record_for(life, key, value_size, kind);
    if (!leaf_add(&life->leaf, &record))
        return false;
    list_add(&life->list, &record);
    return true;
}

/* Builds it and compares it with the list and with the page of a plan. */
static void expect_replaced(struct life *life, const struct record *pending)
{
    const struct qr_page *page = life->leaf.page;
    struct qr_replacement replacement;
    struct qr_record_spec spec;
    if (pending != NULL) {
        spec = spec_of(pending);
        spec.lsn = 0;
    }
    const struct qr_record_spec *extra = pending == NULL ? NULL : &spec;
    cr_assert(qr_leaf_replaces(&life->leaf.view, extra, &newest_only, &replacement));

    size_t size = page->content_bytes + 64;
    struct qr_page *fresh = qr_malloc_aligned(64, size);
    memset(fresh, 0xa5, size);
    uint8_t *place = qr_leaf_replace(page, &replacement, extra, qr_view_max_lsn(&life->leaf.view),
                                     qr_view_max_version(&life->leaf.view), qr_view_first_lsn(&life->leaf.view),
                                     fresh, size);
    cr_assert_eq(place != NULL, pending != NULL);
    if (pending != NULL) {
        qr_record_set_lsn(place, pending->lsn);
        fresh->max_lsn = fresh->max_version = pending->lsn;
        list_add(&life->list, pending);
    }
    struct record_list kept = list_retained(&life->list, &newest_only, false, true);
    const char *wrong = page_differs(fresh, &kept, 0, kept.count);
    cr_assert(wrong == NULL, "%s", wrong);

    struct qr_plan plan;
    qr_plan_init(&plan, false, life->shape.align_log2);
    cr_assert(qr_plan_add_leaf(&plan, &life->leaf.view, extra, &newest_only));
    cr_assert_eq(plan.dropped, replacement.dropped);
    struct leaf other = leaf_write(&plan, 0, plan.count, &life->shape, fresh->max_lsn, fresh->max_lsn);
    cr_assert_eq(other.page->content_bytes, page->content_bytes);
    cr_assert_eq(memcmp((uint8_t *)fresh + QR_PAGE_HEADER, (uint8_t *)other.page + QR_PAGE_HEADER,
                        page->content_bytes - QR_PAGE_HEADER),
                 0);
    cr_assert_eq(fresh->flags & QR_PAGE_COLLECTED, replacement.dropped != 0 ? QR_PAGE_COLLECTED : 0);
    cr_assert_eq(atomic_load(&fresh->area_used), 0);
    leaf_free(&other);
    qr_plan_done(&plan);
    list_free(&kept);
    qr_free_aligned(fresh);
}

Test(page_replace, makes_the_page_that_a_plan_makes)
{
    /* Of these shapes all keys have one size, so that records have. */
    static const enum key_shape shapes[] = {SHAPE_RANDOM, SHAPE_COUNTER};
    struct random_stream random;
    random_seed(&random, 11);
    for (unsigned round = 0; round < 4000; round++) {
        uint32_t count = 1 + (uint32_t)random_below(&random, KEYS_MAX);
        uint8_t align_log2 = (uint8_t)random_below(&random, 5);
        struct life life = life_begin(shapes[round % 2], count, align_log2, &random);
        uint32_t deltas = (uint32_t)random_below(&random, QR_CHAIN_MAX + 1);
        uint32_t range = 1 + (uint32_t)random_below(&random, life.pool.count); /* small: the same keys again */
        for (uint32_t i = 0; i < deltas; i++)
            cr_assert(add_delta(&life, (uint32_t)random_below(&random, range), VALUE, QR_RECORD_PUT));
        struct record pending = record_for(&life, (uint32_t)random_below(&random, range), VALUE, QR_RECORD_PUT);
        expect_replaced(&life, random_chance(&random, 70) ? &pending : NULL);
        life_end(&life);
    }
}

/* Whether the leaf with a chain of one good delta, and this one more, is still taken. */
static bool is_taken(struct life *life, const struct qr_record_spec *pending, const struct qr_retention *retention)
{
    struct qr_replacement replacement;
    return qr_leaf_replaces(&life->leaf.view, pending, retention, &replacement);
}

Test(page_replace, refuses_whatever_is_more_than_that)
{
    struct random_stream random;
    random_seed(&random, 12);
    for (int what = 0; what < 8; what++) {
        struct life life = life_begin(SHAPE_COUNTER, 20, 0, &random);
        cr_assert(add_delta(&life, 3, VALUE, QR_RECORD_PUT));
        uint64_t bounds[2] = {infinite, life.lsn - 5};
        struct qr_retention retention = {.bounds = bounds, .count = 1};
        struct record pending = record_for(&life, 4, VALUE, QR_RECORD_PUT);
        pending.version = UINT64_MAX;
        uint8_t absent[8] = {0xff, 1};
        cr_assert(is_taken(&life, NULL, &retention), "what %d", what);
        switch (what) {
        case 0: /* a deletion in the chain */
            cr_assert(add_delta(&life, 5, 0, QR_RECORD_DELETE));
            break;
        case 1: /* another size in the chain */
            cr_assert(add_delta(&life, 5, VALUE + 1, QR_RECORD_PUT));
            break;
        case 2: /* a snapshot sees something older */
            retention.count = 2;
            break;
        case 3: /* all versions stay */
            retention.count = 0;
            break;
        case 4: /* older snapshots that are not in the list */
            retention.keep_below = 1;
            break;
        case 5: /* what the pending record replaces must stay */
            bounds[0] = life.lsn;
            break;
        case 6: /* a new key */
            pending.key = (struct quire_slice){absent, sizeof(absent)};
            break;
        case 7:
            pending.kind = QR_RECORD_DELETE;
            pending.value.size = 0;
            break;
        default:
            break;
        }
        struct qr_record_spec spec = spec_of(&pending);
        cr_assert_not(is_taken(&life, &spec, &retention), "what %d", what);
        life_end(&life);
    }
}
