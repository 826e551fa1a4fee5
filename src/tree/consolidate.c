/*
 * consolidate.c: building the leaf that replaces a chain, and what it may leave out.
 *
 * Layer 4.
 *
 * What may be collected. A version that has a newer one of its key is needed by a snapshot S with version <= S < newer.
 * Engine versions: let T be the tail, loaded after the page's word: all versions in the page are below T. A snapshot that
 * is not in the registry when it is scanned afterwards loads its own tail later, so its S >= T: of what is in the page
 * it sees the newest of each key only. So the bounds are T and the registered snapshots; a snapshot that is in the registry
 * without its bound yet keeps everything above a lower one.
 *
 * With a pending record the version that it replaces is the newest below T and would have to stay. To drop it too the
 * bounds are taken as if T were infinite, and checked inside the slot, after the pending LSN P was reserved: if the
 * registry's generation is still that of the scan, a snapshot not seen raises it after this check, and so loads a tail
 * above P: it sees the pending record. (Raise, then load the tail; reserve, then load the generation: of two such
 * sequences at least one sees the other's first step. Both first steps and the loads are seq_cst.) A writer that is
 * disappointed takes T as it is the next time and keeps the version that he replaces, so that snapshots that are taken
 * faster than a page is built do not keep him from writing.
 *
 * Caller versions: the bound is the tree's safe version, which the page then carries (rule R15). While a checkpoint without
 * log is under way (`holding`) nothing is collected, and of equal (key, version) both stay: its images are as of an LSN C,
 * for which a safe version that was raised above C, and records with LSNs above C, are not there (rule R14). `holding` is
 * set before the tail is loaded that C comes from. So who builds without having seen it drops nothing that C needs: a safe
 * version that it saw was raised below C, and so are all records that it found. Only the pending record may be above C,
 * and hide an equal one; so `holding` is looked at again with its LSN reserved, as the generation is, and by the same
 * argument. A blind write does not ask: it leaves out nothing. What its record hides stays in the image until they are joined,
 * which is a building like any other. Its stub may carry a safe version that was raised above C; that of a page is read by repair
 * alone, which then leaves out versions that the caller had given up.
 */
#include "base/alloc.h"
#include "base/status.h"
#include "page/replace.h"
#include "tree/internal.h"
#include "tree/policy.h"

#define LARGEST_BLOCK (UINT32_MAX - (1u << 20)) /* its usable size, rounded up by the arena, must fit 32 bits too */

void qr_bounds_load(struct qr_tree *tree, bool pending, struct qr_bounds *bounds)
{
    struct qr_tree_env *env = tree->env;
    bounds->retention.bounds = bounds->values;
    bounds->safe_version = 0;
    bounds->generation = 0;
    bounds->pending = pending;
    bounds->retention.keep_below = 0;
    bounds->retention.keep_equal = false;
    bounds->retention.as_of_lsn = 0;
    bounds->holding = false;
    if (tree->settings.caller_versions) {
        bounds->safe_version = qr_tree_safe_version(tree);
        /* order: db.holding.read pairs with db.holding.set: after the safe version; one that was raised after it was set is
         * seen with it */
        bounds->holding = atomic_load_explicit(env->holding, memory_order_seq_cst) != 0;
        if (bounds->holding && !QR_BUG(equal_not_held)) {
            bounds->safe_version = 0;
            bounds->retention.keep_equal = true;
        }
        bounds->values[0] = bounds->safe_version;
        bounds->retention.count = bounds->safe_version == 0 ? 0 : 1;
        if (QR_BUG(collect_above_safe) && bounds->safe_version != 0) bounds->values[0] += 5;
        return;
    }
    /* order: txn.generation.read pairs with txn.generation.raise: a snapshot seen here is in the registry */
    bounds->generation = atomic_load_explicit(env->snapshot_generation, memory_order_seq_cst);
    uint64_t horizon = pending ? UINT64_MAX : qr_log_tail(env->log) - 1;
    uint64_t keep_above;
    uint32_t count = env->ops->snapshot_bounds(env->context, bounds->values + 1, QR_BOUNDS_MAX, &keep_above);
    if (QR_BUG(ignore_snapshot_registry)) {
        count = 0;
        keep_above = UINT64_MAX;
    }
    bounds->values[0] = qr_min(horizon, keep_above);
    if (count > QR_BOUNDS_MAX) { /* older snapshots that are not in the list: all that they may see stays */
        count = QR_BOUNDS_MAX;
        bounds->retention.keep_below = bounds->values[QR_BOUNDS_MAX] + 1;
    }
    uint32_t kept = 1; /* a bound above the horizon says nothing: all above the horizon stays */
    for (uint32_t i = 1; i <= count; i++)
        if (bounds->values[i] < bounds->values[0]) bounds->values[kept++] = bounds->values[i];
    bounds->retention.count = kept;
}

bool qr_bounds_hold(const struct qr_tree *tree, const struct qr_bounds *bounds)
{
    if (tree->settings.caller_versions) {
        /* order: db.holding.read pairs with db.holding.set: not seen, the LSN that was reserved is below the checkpoint's */
        return bounds->holding || atomic_load_explicit(tree->env->holding, memory_order_seq_cst) == 0;
    }
    if (!bounds->pending || QR_BUG(generation_ignored)) return true;
    /* order: txn.generation.read pairs with txn.generation.raise: see the head of this file */
    return atomic_load_explicit(tree->env->snapshot_generation, memory_order_seq_cst) == bounds->generation;
}

void *qr_block_outside(size_t size, size_t *ret_block_size)
{
    size_t block_size = (size + QR_CACHE_LINE_BYTES - 1) / QR_CACHE_LINE_BYTES * QR_CACHE_LINE_BYTES;
    *ret_block_size = block_size;
    return qr_malloc_aligned(QR_CACHE_LINE_BYTES, block_size);
}

/*
 * Blobs. What a plan drops, nobody will find from the install of its page on; it is noted in the op when the page is built, and told
 * when the page that it replaces is retired. That may be another page's, of a change that is helped meanwhile: then it is told
 * early, and rightly so, since what may be dropped is seen by no reader, in whatever page it still lies. What a pending record
 * hides is the exception: between its page's building and its install, or its end, there is nothing else.
 */
static void forget_dead(struct qr_op *op)
{
    qr_free(op->dead);
    op->dead = NULL;
    op->dead_count = 0;
}

void qr_tell_dead(struct qr_op *op)
{
    if (op->dead_count == 0) return;
    op->tree->env->ops->blobs_dead(op->tree->env->context, op->dead, op->dead_count);
    forget_dead(op);
}

/* False: no memory. */
static QR_NOINLINE bool note_dead(struct qr_op *op, const struct qr_plan *plan)
{
    uint8_t *copy = qr_malloc((size_t)plan->dead_count * QR_BLOB_REF_BYTES);
    if (copy == NULL) return false;
    memcpy(copy, plan->dead, (size_t)plan->dead_count * QR_BLOB_REF_BYTES);
    forget_dead(op); /* the other half of a split says the same */
    op->dead = copy;
    op->dead_count = plan->dead_count;
    return true;
}

void qr_discard_page(struct qr_op *op, struct qr_page *page)
{
    if (QR_UNLIKELY(op->dead_count != 0)) forget_dead(op);
    qr_arena_free(op->tree->env->arena, &op->thread->cache, page, page->block_size);
}

void qr_retire_page(struct qr_op *op, const struct qr_page *page)
{
    if (QR_UNLIKELY(op->dead_count != 0)) qr_tell_dead(op);
    qr_epoch_retire(op->thread, QR_RETIRE_BLOCK, (void *)(uintptr_t)page, page->block_size);
}

void qr_give_back_page(struct qr_op *op, struct qr_page *page)
{
    if (op->tree->env->structure != NULL)
        qr_retire_page(op, page);
    else
        qr_discard_page(op, page);
}

/* A block for a leaf of `size` bytes with `count` records of record_bytes in all, and a delta area as qr_leaf_from_plan
 * says. NULL: no memory. */
static void *leaf_block(struct qr_op *op, uint64_t size, uint64_t record_bytes, uint32_t count, uint64_t area,
                        size_t *ret_block_size)
{
    struct qr_arena *arena = op->tree->env->arena;
    if (op->outside) return qr_block_outside(size, ret_block_size);
    uint64_t full = qr_policy_area(op->tree, record_bytes, count);
    if (op->use_reserve && qr_arena_over(arena, 100)) full = qr_policy_area_at_limit(full);
    uint64_t wanted = area == QR_AREA_NONE ? size : size + full;
    if (area != QR_AREA_NONE && area != QR_AREA_FULL && area >= size + full / op->tree->settings.chain_limit)
        wanted = qr_min(area, wanted);
    if (wanted > LARGEST_BLOCK) return NULL;
    void *block = qr_arena_alloc(arena, &op->thread->cache, wanted, op->use_reserve, ret_block_size);
    if (block == NULL && wanted != size) /* without an area it may fit a block like the one that it replaces */
        block = qr_arena_alloc(arena, &op->thread->cache, size, op->use_reserve, ret_block_size);
    return block;
}

/* Whether a key lies below the low key. Every way to a leaf leads from its low key on, if the pages on it are in place; files with
 * right checksums may hold inner pages that are not, and the plain way down does not compare. So a leaf may take deltas below its
 * bounds, which all readers of it answer, but is not built anew with them. */
static bool is_below(const struct qr_plan *plan, uint32_t i, const struct qr_page_identity *identity)
{
    struct quire_slice first = qr_plan_key(plan, i);
    return qr_compare(first.data, first.size, identity->low.data, identity->low.size) < 0;
}

int qr_leaf_from_plan(struct qr_op *op, const struct qr_plan *plan, uint32_t from, uint32_t to,
                      const struct qr_page_identity *identity, const struct qr_leaf_properties *properties,
                      uint64_t area, struct qr_fresh_leaf *ret_fresh)
{
    if (to > from && QR_UNLIKELY(is_below(plan, from, identity)))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu has a key below its bounds", (unsigned long long)identity->pid);
    struct qr_leaf_measure measure;
    qr_plan_measure(plan, from, to, identity, &measure);
    if (measure.size > LARGEST_BLOCK) return QUIRE_ERR_TOO_LARGE;

    size_t block_size;
    if (QR_UNLIKELY(plan->dead_count != 0) && !note_dead(op, plan)) return QUIRE_ERR_NO_MEMORY;
    void *block = leaf_block(op, measure.size, measure.bytes, to - from, area, &block_size);
    if (block == NULL) {
        if (QR_UNLIKELY(op->dead_count != 0)) forget_dead(op);
        return QUIRE_ERR_NO_MEMORY;
    }
    ret_fresh->page = block;
    ret_fresh->dropped = plan->dropped;
    ret_fresh->pending = qr_plan_write(plan, &measure, identity, properties, block, block_size);
    return 0;
}

#define PREFETCH_BYTES 65536u /* of a larger page the first would be gone before they are used */

/* All of it is going to be read, in an order that the processor does not foresee: asks for it at once. */
static void prefetch_leaf(const struct qr_leaf_view *view)
{
    const uint8_t *bytes = qr_page_bytes(view->page);
    uint32_t end = qr_min(view->page->content_bytes, PREFETCH_BYTES);
    if (view->chain != 0) {
        uint32_t head = view->head_offset * QR_DELTA_UNIT;
        for (uint32_t at = view->page->area_offset; at < head; at += 64) __builtin_prefetch(bytes + at);
    }
    for (uint32_t at = view->page->heads_offset; at < end; at += 64) __builtin_prefetch(bytes + at);
}

/* The consolidation that only replaces records (page/replace.h). */
static int replace(struct qr_op *op, const struct qr_leaf_view *view, const struct qr_replacement *replacement,
                   const struct qr_record_spec *pending, uint64_t area, struct qr_fresh_leaf *ret_fresh)
{
    const struct qr_page *page = view->page;
    size_t block_size;
    void *block = leaf_block(op, page->content_bytes, (uint64_t)page->record_stride * page->count, page->count, area,
                             &block_size);
    if (block == NULL) return QUIRE_ERR_NO_MEMORY;
    ret_fresh->page = block;
    ret_fresh->dropped = replacement->dropped;
    ret_fresh->pending = qr_leaf_replace(page, replacement, pending, qr_view_max_lsn(view), qr_view_max_version(view),
                                         qr_view_first_lsn(view), block, block_size);
    return 0;
}

/* A planted bug. */
static void break_max_lsn(int result, const struct qr_fresh_leaf *fresh)
{
    if (result != 0 || !QR_BUG(recompute_max_lsn)) return;
    struct qr_page *page = fresh->page; /* not set when the build has failed */
    page->max_lsn = 0;
    for (uint32_t i = 0; i < page->count; i++)
        page->max_lsn = qr_max(page->max_lsn, qr_record_lsn(qr_leaf_record(page, i)));
}

int qr_consolidate_build(struct qr_op *op, uint64_t pid, const struct qr_leaf_view *view,
                         const struct qr_record_spec *pending, const struct qr_bounds *bounds, bool may_be_large,
                         struct qr_fresh_leaf *ret_fresh)
{
    const struct qr_page *page = view->page;
    struct qr_page_identity identity = qr_page_identity(page);
    struct qr_leaf_properties properties = {
        .flags = page->flags & (QR_PAGE_STUB | QR_PAGE_COLLECTED),
        .safe_version = qr_max(page->safe_version, bounds->safe_version),
        .image_address = page->image_address,
        .first_lsn = qr_view_first_lsn(view),
    };
    struct qr_plan plan;
    struct qr_replacement replacement;
    /* Without a writer it is maintenance: no more room than there was, so that memory is not used up by it. */
    uint64_t area = pending != NULL ? QR_AREA_FULL : page->block_size;
    int result = QUIRE_ERR_NO_MEMORY;

    QR_ASSERT(pid == page->pid);
    (void)pid;
    prefetch_leaf(view);
    if (qr_leaf_replaces(view, pending, &bounds->retention, &replacement)) {
        result = replace(op, view, &replacement, pending, area, ret_fresh);
        break_max_lsn(result, ret_fresh);
        return result;
    }
    identity.max_lsn = qr_view_max_lsn(view);
    qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
    if (qr_plan_add_leaf(&plan, view, pending, &bounds->retention)) {
        bool large = plan.bytes + qr_leaf_arrays_size(plan.count) > qr_tree_leaf_page_size(&op->tree->settings);
        result = large && !may_be_large
                     ? QR_LARGE
                     : qr_leaf_from_plan(op, &plan, 0, plan.count, &identity, &properties, area, ret_fresh);
    }
    break_max_lsn(result, ret_fresh);
    qr_plan_done(&plan);
    return result;
}

/* Whether a consolidation would change anything: a chain, or versions that may go. */
static bool worth_it(struct qr_op *op, const struct qr_leaf_view *view, const struct qr_bounds *bounds, bool *ret_worth)
{
    *ret_worth = view->chain != 0;
    if (*ret_worth || (view->page->flags & QR_PAGE_MULTI) == 0) return true;
    struct qr_plan plan;
    qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
    bool planned = qr_plan_add_leaf(&plan, view, NULL, &bounds->retention);
    *ret_worth = planned && plan.dropped != 0;
    qr_plan_done(&plan);
    return planned;
}

int qr_consolidate(struct qr_op *op, struct qr_spot *spot)
{
    struct qr_leaf_view view = qr_view_of(spot->word);
    struct qr_fresh_leaf fresh;
    struct qr_bounds bounds;
    bool worth;

    qr_bounds_load(op->tree, false, &bounds);
    if (!worth_it(op, &view, &bounds, &worth)) return QUIRE_ERR_NO_MEMORY;
    if (!worth) return QUIRE_NOT_FOUND;
    int result = qr_consolidate_build(op, spot->pid, &view, NULL, &bounds, true, &fresh);
    if (result != 0) return result;
    QR_STOP("consolidate.built");
    qr_word word = qr_word_make(QR_WORD_HEAD, fresh.page, 0, 0);
    if (!qr_map_cas(qr_op_map(op), spot->pid, &spot->word, word)) {
        qr_count(op, QR_COUNTER_CONSOLIDATION_CONFLICTS);
        qr_discard_page(op, fresh.page);
        return QR_RETRY;
    }
    qr_count(op, QR_COUNTER_CONSOLIDATIONS);
    qr_counter_add(&op->thread->counters[QR_COUNTER_VERSIONS_COLLECTED], fresh.dropped);
    qr_retire_page(op, view.page);
    if (spot->parent_pid != QR_PID_NONE && !spot->by_sibling)
        qr_child_moved(op, qr_word_block(spot->parent_word), spot->parent_index, fresh.page);
    spot->word = word;
    spot->page = fresh.page;
    return 0;
}
