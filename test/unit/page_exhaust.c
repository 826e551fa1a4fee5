/*
 * Goal: lookups, entries, retention, splits and joins of a leaf agree with definitions in every small case.
 * Method: all sequences of a few puts and deletes over two or three keys and, with caller versions, a few versions in
 * any arrival order; each cut in all ways into image, base, chain and pending record; all sets of up to two bounds.
 * Alignments and sizes of values take turns. Then the same with planted bugs, which must be found.
 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "base/bugs.h"
#include "page_oracle.h"

#define OPS_MAX 5u
#define KEYS_MAX 3u

/* The keys of a run: neighbours, prefixes of each other, the empty one. */
static const struct quire_slice key_sets[][KEYS_MAX] = {
    {{"", 0}, {"a", 1}, {"ab", 2}},
    {{"a", 1}, {"a\0", 2}, {"b", 1}},
    {{"the same prefix of 17", 21}, {"the same prefix of 17 ", 22}, {"the same prefix of 18", 21}},
};
static const struct quire_slice absent_keys[] = {{"\0", 1}, {"aa", 2}, {"the same prefix", 15}, {"\xff\xff", 2}};

/* One run: all sequences of `ops` operations. */
struct space {
    bool caller;
    unsigned ops;
    unsigned keys;
    unsigned versions; /* with caller versions: 1 to this number */
    unsigned key_set;
    int align_log2; /* -1: taking turns */
    bool stubs;     /* cut off an image too */
};

/* One sequence, cut: ops [0, image) are in the image, [image, base) in the base, [base, chain) are deltas, and the last
 * one is pending if chain < count. */
struct situation {
    const struct space *space;
    struct record ops[OPS_MAX];
    unsigned count;
    unsigned image, base, chain;
    struct leaf_shape shape;
};

static char failure[512];
static uint64_t situations;

static const char *fail(const struct situation *s, const char *step, const char *wrong)
{
    int length = snprintf(failure, sizeof(failure), "%s: %s; image %u base %u chain %u align %u stub %d, ops:", step,
                          wrong, s->image, s->base, s->chain, s->shape.align_log2, s->space->stubs);
    for (unsigned i = 0; i < s->count && length > 0 && (size_t)length < sizeof(failure); i++)
        length += snprintf(failure + length, sizeof(failure) - (size_t)length, " %s[%zu]@%llu",
                           s->ops[i].kind == QR_RECORD_PUT ? "put" : "delete", s->ops[i].key.size,
                           (unsigned long long)s->ops[i].version);
    return failure;
}

static struct record_list list_of(const struct record *records, unsigned from, unsigned to)
{
    struct record_list list = {0};
    for (unsigned i = from; i < to; i++)
        list_add(&list, &records[i]);
    return list;
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

static const char *check_reads(const struct situation *s, const struct qr_leaf_view *view, const struct qr_page *image)
{
    struct record_list own = list_of(s->ops, s->image, s->chain);
    struct record_list all = list_of(s->ops, 0, s->chain);
    uint64_t highest = s->space->caller ? s->space->versions : s->count;
    const char *wrong = NULL;

    for (uint64_t v = 0; wrong == NULL && v <= highest + 2; v++) {
        uint64_t version = v > highest + 1 ? UINT64_MAX : v;
        for (unsigned k = 0; wrong == NULL && k < s->space->keys; k++)
            wrong = find_differs(view, &own, key_sets[s->space->key_set][k], version);
        for (unsigned k = 0; wrong == NULL && k < QR_ARRAY_COUNT(absent_keys); k++)
            wrong = find_differs(view, &own, absent_keys[k], version);
        if (wrong == NULL)
            wrong = entries_differ(view, NULL, &own, version);
        if (wrong == NULL && image != NULL)
            wrong = entries_differ(view, image, &all, version);
    }
    list_free(&own);
    list_free(&all);
    return wrong == NULL ? NULL : fail(s, "read", wrong);
}

/* ---- Planning --------------------------------------------------------------------------------------------------- */

/* What readers at the bounds and above see is not changed by retention, but that a deletion may become an absence. */
static const char *check_harmless(const struct record_list *before, const struct record_list *after,
                                  const struct qr_retention *retention, uint64_t highest)
{
    for (uint32_t i = 0; i < before->count; i++) {
        struct quire_slice key = before->records[i].key;
        for (uint64_t version = 0; version <= highest; version++) {
            bool read = retention->count == 0 || version > retention->bounds[0];
            for (uint32_t b = 0; b < retention->count; b++)
                read |= version == retention->bounds[b];
            if (!read)
                continue;
            const struct record *was = list_visible(before, key, version);
            const struct record *is = list_visible(after, key, version);
            bool was_value = was != NULL && was->kind == QR_RECORD_PUT;
            bool is_value = is != NULL && is->kind == QR_RECORD_PUT;
            if (was_value != is_value || (was_value && was->lsn != is->lsn))
                return "retention changes what a reader sees";
        }
    }
    return NULL;
}

static const char *check_plan_result(const struct situation *s, const struct qr_plan *plan,
                                     const struct record_list *given, const struct record_list *kept)
{
    uint64_t lsn = s->ops[s->count - 1].lsn;
    uint64_t pending_lsn = s->chain < s->count ? lsn : 0;

    if (plan->dropped != given->count - kept->count)
        return "plan counts other records as dropped";
    if (plan->collected != (plan->dropped != 0))
        return "plan does not say that something was collected";
    if (plan->multi != list_is_multi(kept))
        return "plan's multi is wrong";
    struct leaf leaf = leaf_write(plan, 0, plan->count, &s->shape, lsn, pending_lsn);
    const char *wrong = page_differs(leaf.page, kept, 0, kept->count);
    if (wrong == NULL && leaf.page->max_version < list_max_version(kept))
        wrong = "max_version is below a version";
    if (wrong == NULL && ((leaf.page->flags & QR_PAGE_COLLECTED) != 0) != plan->collected)
        wrong = "page does not say that something was collected";
    if (wrong == NULL)
        wrong = split_index_differs(plan, kept);
    if (wrong == NULL)
        wrong = splits_differ(plan, kept, &s->shape);
    leaf_free(&leaf);
    return wrong;
}

/* What lies in chain, pages and pending record: of equal (key, version) in one page only the newest came in. */
static struct record_list present_records(const struct situation *s, const struct record_list *given, unsigned from)
{
    struct record_list present = {0};
    for (unsigned i = 0; i < given->count; i++) {
        const struct record *r = &given->records[i];
        unsigned end = i + from < s->image ? s->image : i + from < s->base ? s->base : 0; /* of its page */
        bool hidden = false;
        for (unsigned j = i + 1; s->space->caller && j + from < end; j++) {
            const struct record *later = &given->records[j];
            hidden |=
                later->version == r->version && qr_equal(later->key.data, later->key.size, r->key.data, r->key.size);
        }
        if (!hidden)
            list_add(&present, r);
    }
    return present;
}

/* One plan under one retention; image: join with it. */
static const char *check_plan(const struct situation *s, const struct qr_leaf_view *view, const struct qr_page *image,
                              const struct qr_retention *retention)
{
    const bool caller = s->space->caller;
    const bool is_pending = s->chain < s->count;
    const bool full = !s->space->stubs || image != NULL;
    const unsigned from = image != NULL ? 0 : s->image;
    struct record_list given = list_of(s->ops, from, s->count);
    if (is_pending && !caller)
        given.records[given.count - 1].version = UINT64_MAX;
    struct record_list kept = list_retained(&given, retention, caller, full);
    struct record_list present = present_records(s, &given, from);
    const char *wrong = check_harmless(&given, &kept, retention, OPS_MAX + 1);

    for (uint32_t i = 0; i < kept.count; i++)
        if (kept.records[i].version == UINT64_MAX)
            kept.records[i].version = kept.records[i].lsn; /* as the writer will fill it in */
    struct record pending = s->ops[s->count - 1];
    pending.lsn = 0;
    struct qr_record_spec spec = spec_of(&pending);
    struct qr_plan plan;
    qr_plan_init(&plan, caller, s->shape.align_log2);
    bool done = image == NULL ? qr_plan_add_leaf(&plan, view, is_pending ? &spec : NULL, retention)
                              : qr_plan_add_joined(&plan, view, image, is_pending ? &spec : NULL, retention);
    if (wrong == NULL)
        wrong = done ? check_plan_result(s, &plan, &present, &kept) : "no memory";
    qr_plan_done(&plan);
    list_free(&present);
    list_free(&given);
    list_free(&kept);
    return wrong == NULL ? NULL : fail(s, image != NULL ? "join" : "plan", wrong);
}

/* All sets of at most two bounds, and that of all. */
static const char *check_plans(const struct situation *s, const struct qr_leaf_view *view, const struct qr_page *image)
{
    uint64_t bounds[OPS_MAX + 2];
    uint64_t highest = s->space->caller ? s->space->versions : s->count;
    struct qr_retention retention = {.bounds = bounds, .count = 0};
    const char *wrong = check_plan(s, view, image, &retention);

    for (uint64_t a = 0; wrong == NULL && a <= highest; a++) {
        bounds[0] = a;
        retention.count = 1;
        wrong = check_plan(s, view, image, &retention);
        for (uint64_t b = 0; wrong == NULL && b < a; b++) {
            bounds[1] = b;
            retention.count = 2;
            wrong = check_plan(s, view, image, &retention);
        }
    }
    for (uint64_t i = 0; i <= highest; i++)
        bounds[i] = highest - i;
    retention.count = (uint32_t)highest + 1;
    return wrong != NULL ? wrong : check_plan(s, view, image, &retention);
}

/* ---- Situations ------------------------------------------------------------------------------------------------- */

/* A leaf of ops [from, to), as it is when only the newest of equal (key, version) is left. */
static struct leaf leaf_of(const struct situation *s, unsigned from, unsigned to, uint8_t flags, uint32_t area_bytes)
{
    struct qr_retention everything = {.count = 0};
    struct record_list all = list_of(s->ops, from, to);
    struct record_list sorted = list_retained(&all, &everything, s->space->caller, true);
    struct leaf_shape shape = s->shape;
    shape.flags = flags;
    shape.area_bytes = area_bytes;
    struct leaf leaf = leaf_build(&sorted, &shape);
    list_free(&all);
    list_free(&sorted);
    return leaf;
}

static const char *check_situation(const struct situation *s)
{
    const bool stubs = s->space->stubs;
    uint32_t area_bytes = s->chain == s->base ? 0 : area_for(s->chain - s->base, 24, 40);
    struct leaf image = leaf_of(s, 0, s->image, 0, 0);
    struct leaf leaf = leaf_of(s, s->image, s->base, stubs ? QR_PAGE_STUB : 0, area_bytes);
    const char *wrong = NULL;

    situations++;
    for (unsigned i = s->base; wrong == NULL && i < s->chain; i++)
        if (!leaf_add(&leaf, &s->ops[i]))
            wrong = fail(s, "chain", "area too small");
    if (wrong == NULL)
        wrong = check_reads(s, &leaf.view, stubs ? image.page : NULL);
    if (wrong == NULL)
        wrong = check_plans(s, &leaf.view, NULL);
    if (wrong == NULL && stubs)
        wrong = check_plans(s, &leaf.view, image.page);
    leaf_free(&leaf);
    leaf_free(&image);
    return wrong;
}

static const char *check_cuts(struct situation *s)
{
    const char *wrong = NULL;
    for (s->image = 0; wrong == NULL && s->image <= (s->space->stubs ? s->count : 0); s->image++)
        for (s->base = s->image; wrong == NULL && s->base <= s->count; s->base++)
            for (unsigned is_pending = 0; wrong == NULL && is_pending <= (s->base < s->count); is_pending++) {
                s->chain = s->count - is_pending;
                wrong = check_situation(s);
            }
    return wrong;
}

/* The sequence with this number; its digits choose key, kind and version of each operation. */
static void make_sequence(const struct space *space, uint64_t number, struct situation *s)
{
    static const uint32_t sizes[] = {0, 5, 33, 1, 16, 7};
    const bool mixed = number % 3 != 0;

    *s = (struct situation){.space = space, .count = space->ops, .shape = {.caller = space->caller}};
    s->shape.align_log2 = space->align_log2 >= 0 ? (uint8_t)space->align_log2 : (uint8_t)(number % 7);
    s->shape.low = key_sets[space->key_set][0];
    s->shape.high = (struct quire_slice){"thf", 3};
    s->shape.high_infinite = number % 2 == 0;
    for (unsigned i = 0; i < space->ops; i++) {
        struct record *op = &s->ops[i];
        op->key = key_sets[space->key_set][number % space->keys];
        number /= space->keys;
        op->kind = number % 2 == 0 ? QR_RECORD_PUT : QR_RECORD_DELETE;
        number /= 2;
        op->lsn = space->caller ? 100 + i : 1 + i;
        op->version = space->caller ? 1 + number % space->versions : op->lsn;
        if (space->caller)
            number /= space->versions;
        op->value =
            op->kind == QR_RECORD_DELETE ? (struct quire_slice){0} : value_of(op->lsn * 31, mixed ? sizes[i] : 8);
    }
}

/* NULL if everything agrees; else what the first difference is. */
static const char *exhaust(const struct space *space)
{
    uint64_t sequences = 1;
    for (unsigned i = 0; i < space->ops; i++)
        sequences *= (uint64_t)space->keys * 2 * (space->caller ? space->versions : 1);
    const char *wrong = NULL;
    for (uint64_t number = 0; wrong == NULL && number < sequences; number++) {
        struct situation s;
        make_sequence(space, number, &s);
        wrong = check_cuts(&s);
    }
    return wrong;
}

static void expect_agreement(struct space space)
{
    situations = 0;
    const char *wrong = exhaust(&space);
    cr_assert(wrong == NULL, "%s", wrong == NULL ? "" : wrong);
    cr_assert_gt(situations, 0);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------ */

Test(page_exhaust, every_alignment_of_values_with_two_operations)
{
    for (int align_log2 = 0; align_log2 <= 6; align_log2++) {
        for (unsigned key_set = 0; key_set < QR_ARRAY_COUNT(key_sets); key_set++) {
            expect_agreement((struct space){.ops = 1, .keys = 3, .key_set = key_set, .align_log2 = align_log2});
            expect_agreement((struct space){.ops = 2, .keys = 3, .key_set = key_set, .align_log2 = align_log2});
            expect_agreement((struct space){
                .caller = true, .ops = 2, .keys = 3, .versions = 2, .key_set = key_set, .align_log2 = align_log2});
        }
    }
}

Test(page_exhaust, engine_versions_four_operations_over_three_keys)
{
    for (unsigned key_set = 0; key_set < QR_ARRAY_COUNT(key_sets); key_set++)
        expect_agreement((struct space){.ops = 3, .keys = 3, .key_set = key_set, .align_log2 = -1});
    expect_agreement((struct space){.ops = 4, .keys = 3, .align_log2 = -1});
}

Test(page_exhaust, engine_versions_five_operations_over_two_keys)
{
    expect_agreement((struct space){.ops = 5, .keys = 2, .align_log2 = -1});
}

Test(page_exhaust, engine_versions_stub_with_image)
{
    expect_agreement((struct space){.ops = 3, .keys = 3, .key_set = 1, .align_log2 = -1, .stubs = true});
    expect_agreement((struct space){.ops = 4, .keys = 2, .align_log2 = -1, .stubs = true});
}

Test(page_exhaust, caller_versions_three_operations_in_any_arrival_order)
{
    expect_agreement((struct space){.caller = true, .ops = 3, .keys = 2, .versions = 3, .align_log2 = -1});
    expect_agreement(
        (struct space){.caller = true, .ops = 3, .keys = 2, .versions = 3, .key_set = 2, .align_log2 = -1});
}

Test(page_exhaust, caller_versions_four_and_five_operations)
{
    expect_agreement(
        (struct space){.caller = true, .ops = 4, .keys = 2, .versions = 2, .key_set = 1, .align_log2 = -1});
    expect_agreement((struct space){.caller = true, .ops = 4, .keys = 1, .versions = 3, .align_log2 = -1});
    expect_agreement((struct space){.caller = true, .ops = 5, .keys = 1, .versions = 2, .align_log2 = -1});
}

Test(page_exhaust, caller_versions_stub_with_image)
{
    expect_agreement(
        (struct space){.caller = true, .ops = 3, .keys = 2, .versions = 2, .align_log2 = -1, .stubs = true});
    expect_agreement(
        (struct space){.caller = true, .ops = 4, .keys = 1, .versions = 2, .align_log2 = -1, .stubs = true});
}

Test(page_exhaust, a_deletion_dropped_over_an_image_is_noticed)
{
    struct space space = {.ops = 3, .keys = 2, .align_log2 = -1, .stubs = true};
    cr_assert_eq(qr_bug_set("drop_tombstone_over_base", 1), 0);
    cr_assert(exhaust(&space) != NULL);
    qr_bug_set("drop_tombstone_over_base", 0);
    cr_assert(exhaust(&space) == NULL, "%s", failure);
}

Test(page_exhaust, a_stale_chain_summary_is_noticed)
{
    struct space engine = {.ops = 3, .keys = 2, .align_log2 = -1};
    struct space caller = {.caller = true, .ops = 3, .keys = 2, .versions = 2, .align_log2 = -1};
    cr_assert_eq(qr_bug_set("keep_stale_summary", 1), 0);
    cr_assert(exhaust(&engine) != NULL);
    cr_assert(exhaust(&caller) != NULL);
    qr_bug_set("keep_stale_summary", 0);
    cr_assert(exhaust(&engine) == NULL, "%s", failure);
}
