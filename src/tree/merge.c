/*
 * merge.c: joining an underfull page with its left neighbour, and letting the tree shrink.
 *
 * Layer 4. R, with its left neighbour X under the same parent P, goes away:
 *
 *   1. mark: R's entry in P is marked by replacing P: no neighbour of it may be marked.   merge.marked
 *   2. seal: R's word goes from HEAD to SEALED, never back: R takes no change any more.   merge.sealed
 *   3. absorb: X (found by R's low key) is replaced by a page with the records of both,
 *      R's high key and R's sibling link.                                                 merge.absorbed
 *   4. forward: R's word becomes FORWARD to X; R's block is retired.                      merge.forwarded
 *   5. R's separator is removed from the level above; R's id is retired.
 *
 * Steps 3 to 5 can be done by anybody at any time after 2, any number of times: each looks whether it was done. Whoever
 * meets a sealed page does them, before he goes on. Step 2 can be done by anybody who finds the mark.
 *
 * The roles are by position: an underfull first child takes the place of X and its right neighbour that of R.
 * A root with one child: the child is sealed and its content becomes the root's (collapse); FORWARD to the root. By the
 * time of the seal the root may have grown; but a sealed page that covers all keys is the only one of its level, so every
 * level between it and the root has one page too, and these are collapsed first.
 *
 * MERGE-1 Only a page whose separator is in the parent is marked, so a sealed page (but a root's only child) has a
 *         left neighbour on its level, reached by going down to the keys just below R's low key.
 * MERGE-2 Between 2 and 3 R's content is what it was when it was sealed; from 3 on X answers for its keys. From R alone
 *         nobody can know which of the two it is, so whoever meets it finishes the merge first. Only a reader who has no
 *         memory for that goes by R's content, if he came by the link of X: before 3 it leads to R, after 3 it does not.
 *         (Or by the entry of the root, for a root's only child.) So R was not absorbed when X was loaded, and its
 *         content is that of this moment, or of the seal, if that was later.
 * MERGE-3 The absorbed page has the maximum of both max_lsn and both safe versions.
 * MERGE-4 Step 5 follows 4 in every thread that does it, so no separator is removed while its page can be reached
 *         unforwarded.
 * MERGE-5 Between 3 and 4 X may be split again, at any key, also at R's low key. Then R's new neighbour ends where R
 *         begins, as before step 3; but its sibling link leads to R if and only if R was not absorbed.
 * MERGE-6 A FORWARD word that an entry leads to is not followed but its separator removed: after step 4, if step 5 is
 *         not done in the same section, X may be split to the left of R's keys, merged away, and its id used again.
 * MERGE-7 What is sealed was found where its entry says: from step 2 on nothing depends on what pages of a file say of one
 *         another. So there is an end to the way to X, and only a page right below the root is collapsed.
 */
#include "base/alloc.h"
#include "tree/internal.h"
#include "tree/policy.h"

/* ---- Absorb ----------------------------------------------------------------------------------------------------- */

static int absorb_leaf(struct qr_op *op, const struct qr_spot *left, qr_word sealed, struct qr_page **ret_page)
{
    struct qr_leaf_view left_view = qr_view_of(left->word);
    struct qr_leaf_view right_view = qr_view_of(sealed);
    const struct qr_page *right = right_view.page;
    struct qr_page_identity identity = qr_page_identity(left->page);
    struct qr_bounds bounds;
    struct qr_plan plan;
    struct qr_fresh_leaf fresh;
    uint64_t unused;

    identity.high = qr_page_high(right);
    identity.high_infinite = (right->flags & QR_PAGE_HIGH_INFINITE) != 0;
    identity.max_lsn = qr_max(qr_view_max_lsn(&left_view), qr_view_max_lsn(&right_view));
    qr_bounds_load(op->tree, false, &bounds);
    struct qr_leaf_properties properties = {.flags = QR_PAGE_COLLECTED};
    properties.safe_version =
        qr_max(bounds.safe_version, qr_max(left->page->safe_version, right->safe_version));
    properties.first_lsn = qr_view_first_lsn(&left_view);
    uint64_t right_first = qr_view_first_lsn(&right_view);
    if (properties.first_lsn == 0 || (right_first != 0 && right_first < properties.first_lsn))
        properties.first_lsn = right_first;
    qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
    int result = qr_plan_whole_leaf(op, &plan, &left_view, &bounds.retention, &unused);
    if (result == 0) result = qr_plan_whole_leaf(op, &plan, &right_view, &bounds.retention, &identity.right_pid);
    if (result == 0)
        result = qr_leaf_from_plan(op, &plan, 0, plan.count, &identity, &properties, QR_AREA_FULL, &fresh);
    qr_plan_done(&plan);
    if (result == 0) *ret_page = fresh.page;
    return result;
}

static int absorb_inner(struct qr_op *op, const struct qr_spot *left, qr_word sealed, struct qr_page **ret_page)
{
    const struct qr_page *page = left->page;
    const struct qr_page *right = qr_word_block(sealed);
    struct qr_page_identity identity = qr_page_identity(page);
    struct qr_inner_entry *entries = qr_malloc(((size_t)page->count + right->count) * sizeof(*entries));
    if (entries == NULL) return QUIRE_ERR_NO_MEMORY;
    identity.right_pid = right->right_pid;
    identity.high = qr_page_high(right);
    identity.high_infinite = (right->flags & QR_PAGE_HIGH_INFINITE) != 0;
    identity.max_lsn = qr_max(page->max_lsn, right->max_lsn);
    qr_inner_entries(page, entries);
    qr_inner_entries(right, entries + page->count);
    entries[page->count].key = qr_page_low(right);
    int result = qr_inner_new(op, entries, page->count + right->count, &identity, ret_page);
    qr_free(entries);
    return result;
}

/* Whether the page with the keys just below R's is past the absorption: it covers R's keys, or it ends where R began but
 * its sibling link does not lead to R: it was split again, just there (MERGE-5). */
static bool has_absorbed(const struct qr_page *left, uint64_t pid, const struct qr_key *low)
{
    struct quire_slice high = qr_page_high(left);
    if ((left->flags & QR_PAGE_HIGH_INFINITE) != 0 || qr_compare(high.data, high.size, low->data, low->size) > 0)
        return true;
    return left->right_pid != pid && !QR_BUG(absorb_twice);
}

/* Step 3, one try. *ret_left_pid: the page that has R's keys afterwards, or leads there by its sibling link. */
static int absorb_once(struct qr_op *op, uint64_t pid, qr_word sealed, const struct qr_key *low, uint64_t *ret_left_pid)
{
    const struct qr_page *right = qr_word_block(sealed);
    struct qr_spot left;
    struct qr_page *fresh;
    int result = qr_descend(op, low, right->level, true, &left);
    if (result == 0 && left.page->right_pid == QR_PID_UNKNOWN) result = qr_join(op, &left);
    if (result != 0) return result;
    *ret_left_pid = left.pid;
    if (has_absorbed(left.page, pid, low)) return 0;
    result = right->kind == QR_PAGE_LEAF ? absorb_leaf(op, &left, sealed, &fresh)
                                         : absorb_inner(op, &left, sealed, &fresh);
    if (result != 0) return result;
    QR_STOP("merge.absorb_built");
    if (!qr_map_cas(qr_op_map(op), left.pid, &left.word, qr_word_make(QR_WORD_HEAD, fresh, 0, 0))) {
        qr_count(op, QR_COUNTER_MERGE_CONFLICTS);
        qr_discard_page(op, fresh);
        return QR_RETRY;
    }
    qr_map_note_change(qr_op_map(op), left.pid);
    qr_count(op, QR_COUNTER_MERGES);
    qr_retire_page(op, left.page);
    return 0;
}

/* ---- Collapse --------------------------------------------------------------------------------------------------- */

/* The sealed child covers everything, so the root's second entry is that of a page which was merged into it: finishes
 * that merge. */
static int collapse_clear(struct qr_op *op, const struct qr_spot *root)
{
    uint64_t other = qr_inner_child(root->page, 1);
    qr_word word = qr_map_load(qr_op_map(op), other);
    int result = 0;
    if (qr_word_tag(word) == QR_WORD_SEALED)
        result = qr_merge_finish(op, other, word);
    else if (qr_word_tag(word) == QR_WORD_FORWARD)
        result = qr_remove_separator(op, (uint8_t)(root->page->level - 1), qr_inner_key(root->page, 1), other);
    return result == 0 ? QR_RETRY : result;
}

/* The root has one child: seals it, and the child's content becomes the root's. */
static int collapse_root(struct qr_op *op, const struct qr_spot *root)
{
    struct qr_map *map = qr_op_map(op);
    uint64_t pid = qr_inner_child(root->page, 0);
    qr_word word = qr_map_load(map, pid);
    if (qr_word_tag(word) == QR_WORD_HEAD) {
        const struct qr_page *child = qr_word_block(word);
        qr_word sealed = qr_word_retag(word, QR_WORD_SEALED);
        if (!qr_is_child(root->page, 0, child)) return qr_out_of_place(pid);
        /* The CAS is from a word whose page covers everything, and the root had one entry after that was loaded: a second
         * one needs a split of the child. So the root stays as it is until it takes the child's content. */
        if ((child->flags & QR_PAGE_HIGH_INFINITE) == 0 || !qr_word_same(qr_map_load(map, root->pid), root->word) ||
            !qr_map_cas(map, pid, &word, sealed))
            return QUIRE_NOT_FOUND;
        word = sealed;
        QR_STOP("merge.child_sealed");
    }
    return qr_word_tag(word) == QR_WORD_SEALED ? qr_merge_finish(op, pid, word) : QUIRE_NOT_FOUND;
}

/* The sealed page is the left-most of its level: it becomes the root's content. One try. */
static int collapse_once(struct qr_op *op, uint64_t pid, qr_word sealed)
{
    const struct qr_page *child = qr_word_block(sealed);
    struct qr_spot root = {.pid = op->tree->root};
    struct qr_page *fresh;
    int result;

    root.word = qr_map_load(qr_op_map(op), root.pid);
    if (qr_word_tag(root.word) != QR_WORD_HEAD) return qr_settle_word(op, &root.pid, &root.word);
    root.page = qr_word_block(root.word);
    if (root.page->kind != QR_PAGE_INNER || root.page->level <= child->level) return 0; /* done */
    if (root.page->level > child->level + 1) { /* the levels between have one page each: they go first */
        result = root.page->count > 1 ? collapse_clear(op, &root) : collapse_root(op, &root);
        return result == 0 || result == QUIRE_NOT_FOUND ? QR_RETRY : result;
    }
    if (qr_inner_child(root.page, 0) != pid) return 0;
    if (root.page->count > 1) return collapse_clear(op, &root);
    struct qr_page_identity identity = qr_page_identity(child);
    identity.pid = root.pid;
    if (child->kind == QR_PAGE_LEAF) {
        struct qr_leaf_view view = qr_view_of(sealed);
        struct qr_bounds bounds;
        struct qr_plan plan;
        struct qr_fresh_leaf leaf;
        qr_bounds_load(op->tree, false, &bounds);
        struct qr_leaf_properties properties = {.flags = QR_PAGE_COLLECTED,
                                                .safe_version = qr_max(child->safe_version, bounds.safe_version),
                                                .first_lsn = qr_view_first_lsn(&view)};
        identity.max_lsn = qr_view_max_lsn(&view);
        qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
        result = qr_plan_whole_leaf(op, &plan, &view, &bounds.retention, &identity.right_pid);
        if (result == 0) result = qr_leaf_from_plan(op, &plan, 0, plan.count, &identity, &properties, QR_AREA_FULL, &leaf);
        qr_plan_done(&plan);
        fresh = leaf.page;
    } else {
        struct qr_inner_entry *entries = qr_malloc(child->count * sizeof(*entries));
        if (entries == NULL) return QUIRE_ERR_NO_MEMORY;
        qr_inner_entries(child, entries);
        result = qr_inner_new(op, entries, child->count, &identity, &fresh);
        qr_free(entries);
    }
    if (result != 0) return result;
    if (!qr_map_cas(qr_op_map(op), root.pid, &root.word, qr_word_make(QR_WORD_HEAD, fresh, 0, 0))) {
        qr_discard_page(op, fresh);
        return QR_RETRY;
    }
    qr_map_note_change(qr_op_map(op), root.pid);
    qr_count(op, QR_COUNTER_MERGES);
    qr_retire_page(op, root.page);
    return 0;
}

/* ---- Finish ----------------------------------------------------------------------------------------------------- */

/* Step 4. Whoever does it retires the block. */
static bool forward(struct qr_op *op, uint64_t pid, qr_word sealed, uint64_t to)
{
    qr_word expected = sealed;
    if (!qr_map_cas(qr_op_map(op), pid, &expected, qr_word_number(QR_WORD_FORWARD, to))) return false;
    qr_map_note_change(qr_op_map(op), pid);
    qr_retire_page(op, qr_word_block(sealed));
    return true;
}

static int finish(struct qr_op *op, uint64_t pid, qr_word sealed)
{
    const struct qr_page *right = qr_word_block(sealed);
    struct quire_slice low = qr_page_low(right);
    uint64_t to = op->tree->root;
    int result;

    if (low.size == 0) {
        do {
            /* Once somebody has finished it the root may have grown again: it says nothing of this child any more. */
            if (!qr_word_same(qr_map_load(qr_op_map(op), pid), sealed) && !QR_BUG(collapse_again)) return 0;
            result = collapse_once(op, pid, sealed);
        } while (result == QR_RETRY);
        if (result != 0) return result;
        QR_STOP("merge.collapsed");
        if (forward(op, pid, sealed, to))
            qr_epoch_retire(op->thread, QR_RETIRE_PID, (void *)(uintptr_t)pid, 0);
        return 0;
    }
    struct qr_key key = qr_key_make(low.data, low.size);
    do {
        qr_word present = qr_map_load(qr_op_map(op), pid);
        if (!qr_word_same(present, sealed)) break; /* somebody has finished it */
        result = absorb_once(op, pid, sealed, &key, &to);
        if (result != 0 && result != QR_RETRY) return result;
    } while (result == QR_RETRY);
    QR_STOP("merge.absorbed");
    forward(op, pid, sealed, to);
    QR_STOP("merge.forwarded");
    return qr_remove_separator(op, right->level, low, pid);
}

int qr_merge_finish(struct qr_op *op, uint64_t pid, qr_word sealed)
{
    bool reserve = op->use_reserve;
    int result = qr_epoch_prepare(op->thread); /* a reader has not done so */
    op->use_reserve = true; /* a read that meets a sealed page must not fail for want of memory that comes back */
    qr_structure_help(op);
    if (result == 0) result = finish(op, pid, sealed);
    qr_structure_end(op);
    op->use_reserve = reserve;
    return result;
}

/* ---- Begin ------------------------------------------------------------------------------------------------------ */

/* Step 2 and the rest, for the child of an entry of the parent. */
static int seal_and_finish(struct qr_op *op, const struct qr_page *parent, uint32_t index)
{
    struct qr_map *map = qr_op_map(op);
    uint64_t pid = qr_inner_child(parent, index);
    qr_word word = qr_map_load(map, pid);
    while (qr_word_tag(word) == QR_WORD_HEAD || qr_word_tag(word) == QR_WORD_PRIVATE) {
        if (!qr_is_child(parent, index, qr_word_block(word))) return qr_out_of_place(pid);
        qr_word sealed = qr_word_retag(word, QR_WORD_SEALED);
        if (qr_word_tag(word) == QR_WORD_HEAD && qr_map_cas(map, pid, &word, sealed)) {
            word = sealed;
            QR_STOP("merge.sealed");
            break;
        }
        if (qr_word_tag(word) == QR_WORD_PRIVATE) qr_settle_word(op, &pid, &word);
    }
    if (qr_word_tag(word) == QR_WORD_SEALED && QR_BUG(unseal)) {
        qr_map_cas(map, pid, &word, qr_word_retag(word, QR_WORD_HEAD));
        return 0;
    }
    switch (qr_word_tag(word)) {
    case QR_WORD_DISK:
    case QR_WORD_UNLOADED:
    case QR_WORD_FREE:
        return qr_settle_word(op, &pid, &word);
    case QR_WORD_SEALED:
        return qr_merge_finish(op, pid, word);
    case QR_WORD_FORWARD:
        return qr_remove_separator(op, (uint8_t)(parent->level - 1), qr_inner_key(parent, index), pid);
    default:
        return 0;
    }
}

int qr_merge_marked(struct qr_op *op, const struct qr_spot *parent, uint32_t index)
{
    qr_structure_help(op);
    int result = seal_and_finish(op, parent->page, index);
    qr_structure_end(op);
    return result;
}

/* Page of a child, if it is in memory and takes changes. */
static const struct qr_page *child_page(struct qr_op *op, const struct qr_page *parent, uint32_t index)
{
    qr_word word = qr_map_load(qr_op_map(op), qr_inner_child(parent, index));
    return qr_word_tag(word) == QR_WORD_HEAD ? qr_word_block(word) : NULL;
}

/* Whether the pages of a merge can be had: the joint page, and the parent twice (mark, removal). What was asked for goes
 * into the thread's own cache, from where the merge takes it. */
static bool has_memory(struct qr_op *op, uint64_t joint_size, uint64_t parent_size)
{
    struct qr_arena *arena = op->tree->env->arena;
    struct qr_arena_cache *cache = &op->thread->cache;
    const uint64_t sizes[] = {joint_size, parent_size, parent_size};
    void *blocks[QR_ARRAY_COUNT(sizes)];
    size_t block_sizes[QR_ARRAY_COUNT(sizes)];
    uint32_t count = 0;
    while (count < QR_ARRAY_COUNT(sizes)) {
        blocks[count] = qr_arena_alloc(arena, cache, sizes[count], op->use_reserve, &block_sizes[count]);
        if (blocks[count] == NULL) break;
        count++;
    }
    for (uint32_t i = 0; i < count; i++) qr_arena_free(arena, cache, blocks[i], block_sizes[i]);
    return count == QR_ARRAY_COUNT(sizes);
}

/* Step 1, one try. QUIRE_NOT_FOUND: not to be merged now. */
static int mark_once(struct qr_op *op, const struct qr_spot *parent, uint32_t index)
{
    const struct qr_page *page = parent->page;
    for (uint32_t i = index - 1; i <= index + 1 && i < page->count; i++) {
        if (!qr_inner_merging(page, i) || QR_BUG(mark_neighbours)) continue;
        int finished = qr_merge_marked(op, parent, i); /* begun by somebody else */
        return finished == 0 ? QR_RETRY : finished;
    }
    const struct qr_page *left = child_page(op, page, index - 1);
    const struct qr_page *right = child_page(op, page, index);
    if (left == NULL || right == NULL || !qr_policy_fit(op->tree, left, right)) return QUIRE_NOT_FOUND;

    if (!has_memory(op, (uint64_t)left->block_size + right->block_size, (uint64_t)page->block_size + 64))
        return QUIRE_ERR_NO_MEMORY;
    struct qr_inner_entry *entries = qr_malloc(page->count * sizeof(*entries));
    if (entries == NULL) return QUIRE_ERR_NO_MEMORY;
    struct qr_page_identity identity = qr_page_identity(page);
    qr_inner_entries(page, entries);
    entries[index].child |= QR_CHILD_MERGING;
    int result = qr_inner_replace(op, parent, entries, page->count, &identity);
    qr_free(entries);
    return result;
}

/* One try to merge the page that covers key on this level. *parent: its parent, for the next level. QUIRE_MORE: it is
 * the only child, the parent must be merged first. */
static int merge_once(struct qr_op *op, const struct qr_key *key, uint8_t level, struct qr_spot *parent)
{
    int result = qr_descend(op, key, (uint8_t)(level + 1), false, parent);
    if (result != 0) return result; /* QUIRE_NOT_FOUND: it is the root */
    const struct qr_page *page = parent->page;
    if (page->count == 1)
        return parent->pid == op->tree->root ? collapse_root(op, parent) : QUIRE_MORE;
    uint32_t index = qr_inner_find(page, key);
    const struct qr_page *child = child_page(op, page, index);
    if (child == NULL || !qr_policy_small(op->tree, child)) return QUIRE_NOT_FOUND;
    if (index == 0) index = 1;
    result = mark_once(op, parent, index);
    if (result != 0) return result;
    QR_STOP("merge.marked");
    return seal_and_finish(op, page, index);
}

static int merge_upwards(struct qr_op *op, const struct qr_spot *spot)
{
    struct quire_slice low = qr_page_low(spot->page);
    struct qr_key key = qr_key_make(low.data, low.size);
    for (uint8_t level = spot->page->level;; level++) {
        struct qr_spot parent;
        int result;
        do {
            result = merge_once(op, &key, level, &parent);
        } while (result == QR_RETRY);
        if (result == QUIRE_MORE) continue;
        if (result != 0) return result == QUIRE_NOT_FOUND ? 0 : result;
        /* The parent lost an entry: it may be underfull now, or a root with one child. */
        qr_word word = qr_map_load(qr_op_map(op), parent.pid);
        if (qr_word_tag(word) != QR_WORD_HEAD) return 0;
        const struct qr_page *page = qr_word_block(word);
        if (page->count > 1 && !qr_policy_small(op->tree, page)) return 0;
    }
}

int qr_merge_if_small(struct qr_op *op, const struct qr_spot *spot)
{
    if (!qr_structure_begin(op)) return 0; /* the next one who comes by */
    int result = merge_upwards(op, spot);
    qr_structure_end(op);
    return result;
}
