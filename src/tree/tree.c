/*
 * tree.c: the life of a tree, its safe version, and walks over all of it.
 *
 * Layer 4.
 */
#include "tree/tree.h"

#include "base/alloc.h"
#include "tree/internal.h"
#include "tree/policy.h"

int qr_tree_create_at(struct qr_tree_env *env, struct qr_thread *thread, uint32_t id, uint64_t root,
                      const struct qr_tree_settings *settings, struct qr_tree *ret_tree)
{
    struct qr_op op;
    struct qr_plan plan;
    struct qr_fresh_leaf fresh;
    struct qr_page_identity identity = {.pid = root, .tree_id = id, .high_infinite = true};
    struct qr_leaf_properties properties = {0};

    qr_tree_attach(env, id, root, settings, ret_tree);
    qr_op_init(&op, ret_tree, thread);
    qr_plan_init(&plan, settings->caller_versions, settings->align_log2);
    int result = qr_leaf_from_plan(&op, &plan, 0, 0, &identity, &properties, QR_AREA_FULL, &fresh);
    if (result != 0) return result;
    qr_word word = qr_map_load(env->map, root);
    bool installed = qr_map_cas(env->map, root, &word, qr_word_make(QR_WORD_HEAD, fresh.page, 0, 0));
    qr_map_note_change(env->map, root);
    QR_ASSERT(installed);
    (void)installed;
    return 0;
}

int qr_tree_create(struct qr_tree_env *env, struct qr_thread *thread, uint32_t id,
                   const struct qr_tree_settings *settings, struct qr_tree *ret_tree)
{
    uint64_t root;
    int result = qr_map_alloc(env->map, qr_word_number(QR_WORD_FREE, 0), false, &root);
    if (result != 0) return result;
    result = qr_tree_create_at(env, thread, id, root, settings, ret_tree);
    if (result != 0) qr_map_free(env->map, root);
    return result;
}

void qr_tree_set_page_sizes(struct qr_tree *tree, uint32_t leaf_bytes, uint32_t inner_bytes)
{
    /* relaxed: thresholds */
    atomic_store_explicit(&tree->settings.leaf_page_size_bytes, leaf_bytes, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&tree->settings.inner_page_size_bytes, inner_bytes, memory_order_relaxed);
}

void qr_tree_attach(struct qr_tree_env *env, uint32_t id, uint64_t root, const struct qr_tree_settings *settings,
                    struct qr_tree *ret_tree)
{
    *ret_tree = (struct qr_tree){.env = env, .settings = *settings, .id = id, .root = root};
    atomic_init(&ret_tree->safe_version, 0);
}

void qr_tree_destroy_empty(struct qr_tree *tree, struct qr_thread *thread)
{
    struct qr_op op;
    qr_op_init(&op, tree, thread);
    struct qr_page *page = qr_word_block(qr_map_load(tree->env->map, tree->root));
    qr_map_free(tree->env->map, tree->root);
    qr_map_note_change(tree->env->map, tree->root);
    qr_give_back_page(&op, page);
}

void qr_tree_raise_safe_version(struct qr_tree *tree, uint64_t version)
{
    /* relaxed: the exchange below checks it */
    uint64_t present = atomic_load_explicit(&tree->safe_version, memory_order_relaxed);
    /* order: tree.safe.raise pairs with tree.safe.read: only the number itself is published */
    while (present < version &&
           !atomic_compare_exchange_weak_explicit(&tree->safe_version, &present, version, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

uint64_t qr_tree_safe_version(const struct qr_tree *tree)
{
    /* order: tree.safe.read pairs with tree.safe.raise */
    return atomic_load_explicit(&tree->safe_version, memory_order_acquire);
}

/* ---- Maintenance ------------------------------------------------------------------------------------------------ */

void qr_walk_done(struct qr_walk *walk)
{
    qr_free(walk->key);
    *walk = (struct qr_walk){0};
}

static bool walk_to(struct qr_walk *walk, struct quire_slice key)
{
    if (key.size > walk->key_capacity || walk->key == NULL) {
        uint8_t *grown = qr_realloc(walk->key, key.size + 64);
        if (grown == NULL) return false;
        walk->key = grown;
        walk->key_capacity = (uint32_t)key.size + 64;
    }
    if (key.size != 0) memmove(walk->key, key.data, key.size);
    walk->key_size = (uint32_t)key.size;
    return true;
}

/* Finishes merges that somebody has begun and left. */
static int finish_marked(struct qr_op *op, const struct qr_spot *leaf, uint64_t *changes)
{
    if (leaf->parent_pid == QR_PID_NONE) return 0;
    struct qr_spot parent = {.pid = leaf->parent_pid, .word = leaf->parent_word};
    parent.page = qr_word_block(parent.word);
    uint32_t i = leaf->parent_index;
    if (i >= parent.page->count || !qr_inner_merging(parent.page, i)) return 0;
    int result = qr_merge_marked(op, &parent, i);
    if (result != QUIRE_ERR_NO_MEMORY) (*changes)++;
    return result;
}

/* On to the leaf after that of spot. *ret_end: there is none. */
static int step(struct qr_walk *walk, const struct qr_spot *spot, bool *ret_end)
{
    *ret_end = (spot->page->flags & QR_PAGE_HIGH_INFINITE) != 0;
    return *ret_end || walk_to(walk, qr_page_high(spot->page)) ? 0 : QUIRE_ERR_NO_MEMORY;
}

static int step_over(struct qr_walk *walk, const struct qr_spot *spot, bool *ret_end)
{
    walk->skipped++;
    return step(walk, spot, ret_end);
}

/* All that is to be done at one leaf. *ret_end: it was the last one. */
static int maintain_leaf(struct qr_op *op, struct qr_walk *walk, uint64_t *changes, bool *ret_end)
{
    struct qr_spot spot;
    struct qr_key key = qr_key_make(walk->key, walk->key_size);
    int result = qr_descend(op, &key, 0, false, &spot);
    if (result != 0) return result;
    result = finish_marked(op, &spot, changes);
    if (result == QUIRE_ERR_NO_MEMORY) return step_over(walk, &spot, ret_end);
    if (result != 0) return result;
    result = qr_consolidate(op, &spot);
    if (result == QUIRE_ERR_NO_MEMORY) return step_over(walk, &spot, ret_end);
    if (result == 0) (*changes)++;
    if (result == QR_RETRY) return 0; /* somebody writes there: look again */
    if (result == QUIRE_NOT_FOUND && spot.parent_pid != QR_PID_NONE && !spot.by_sibling)
        qr_child_moved(op, qr_word_block(spot.parent_word), spot.parent_index, spot.page); /* what was lost by others */
    if (result != 0 && result != QUIRE_NOT_FOUND) return result;

    result = step(walk, &spot, ret_end);
    if (result != 0) return result;
    /* relaxed: own counters */
    uint64_t before = qr_counter_read(&op->thread->counters[QR_COUNTER_MERGES]) +
                      qr_counter_read(&op->thread->counters[QR_COUNTER_SPLITS]);
    if (qr_policy_large(op->tree, spot.page)) {
        result = qr_split_if_large(op, spot.pid, false);
    } else {
        bool lonely = spot.parent_pid != QR_PID_NONE && ((struct qr_page *)qr_word_block(spot.parent_word))->count == 1;
        result = qr_policy_small(op->tree, spot.page) || lonely ? qr_merge_if_small(op, &spot) : 0;
    }
    *changes += qr_counter_read(&op->thread->counters[QR_COUNTER_MERGES]) +
                qr_counter_read(&op->thread->counters[QR_COUNTER_SPLITS]) - before;
    if (result != QUIRE_ERR_NO_MEMORY) return result;
    walk->skipped++;
    return 0;
}

int qr_tree_maintain(struct qr_op *op, struct qr_walk *walk, uint32_t leaves, uint64_t *ret_changes)
{
    if (!walk->started) {
        if (!walk_to(walk, (struct quire_slice){0})) return QUIRE_ERR_NO_MEMORY;
        walk->started = true;
    }
    for (uint32_t i = 0; i < leaves; i++) {
        uint32_t skipped = walk->skipped;
        bool end = false;
        int result = maintain_leaf(op, walk, ret_changes, &end);
        if (result != 0) return result;
        if (end) {
            walk->started = false;
            return QUIRE_END;
        }
        if (walk->skipped != skipped) return 0; /* to fail takes long */
    }
    return 0;
}

int qr_tree_walk_leaf(struct qr_op *op, struct qr_walk *walk, bool consolidate, uint64_t *ret_changes)
{
    struct qr_spot spot;
    if (!walk->started) {
        if (!walk_to(walk, (struct quire_slice){0})) return QUIRE_ERR_NO_MEMORY;
        walk->started = true;
    }
    struct qr_key key = qr_key_make(walk->key, walk->key_size);
    int result = qr_descend(op, &key, 0, false, &spot);
    if (result != 0) return result;
    if (consolidate) {
        result = qr_consolidate(op, &spot);
        if (result == QR_RETRY) return 0;
        if (result < 0) return result;
        if (result == 0) (*ret_changes)++;
    }
    if ((spot.page->flags & QR_PAGE_HIGH_INFINITE) == 0)
        return walk_to(walk, qr_page_high(spot.page)) ? 0 : QUIRE_ERR_NO_MEMORY;
    walk->started = false;
    return QUIRE_END;
}

int qr_tree_page_at(struct qr_op *op, uint64_t pid, uint8_t level, struct quire_slice low, struct qr_evict *ret_page)
{
    struct qr_spot spot = {.pid = pid};
    if (pid == QR_PID_NONE || pid == QR_PID_UNKNOWN) return QUIRE_NOT_FOUND;
    spot.word = qr_map_load(qr_op_map(op), pid);
    if (qr_word_tag(spot.word) == QR_WORD_FREE) return QUIRE_NOT_FOUND;
    if (qr_word_tag(spot.word) == QR_WORD_FORWARD) return QUIRE_EXISTS;
    if (qr_word_tag(spot.word) != QR_WORD_HEAD) {
        int result = qr_settle_word(op, &spot.pid, &spot.word);
        return result == 0 ? QR_RETRY : result;
    }
    spot.page = qr_word_block(spot.word);
    if ((spot.page->flags & QR_PAGE_STUB) != 0) {
        int result = qr_join(op, &spot);
        if (result != 0) return result;
    }
    struct quire_slice other = qr_page_low(spot.page);
    if ((level != UINT8_MAX && spot.page->level != level) || !qr_equal(other.data, other.size, low.data, low.size))
        return QUIRE_NOT_FOUND;
    *ret_page = (struct qr_evict){spot.pid, spot.word, spot.page};
    return 0;
}

/* ---- Measuring -------------------------------------------------------------------------------------------------- */

static void measure_leaf(const struct qr_leaf_view *view, struct qr_tree_gauges *gauges)
{
    gauges->leaves++;
    gauges->records += view->page->count + view->chain;
    gauges->chains[view->chain]++;
}

/* The children of one inner page. */
static void measure_children(struct qr_op *op, const struct qr_page *page, struct qr_tree_gauges *gauges)
{
    gauges->inners++;
    for (uint32_t i = 0; i < page->count; i++) {
        qr_word word = qr_map_load(qr_op_map(op), qr_inner_child(page, i));
        if (qr_word_tag(word) != QR_WORD_HEAD && qr_word_tag(word) != QR_WORD_PRIVATE) continue;
        struct qr_leaf_view view = qr_view_of(word);
        if (!qr_is_child(page, i, view.page)) continue; /* of a file: it might lead in a circle */
        if (view.page->kind == QR_PAGE_LEAF)
            measure_leaf(&view, gauges);
        else
            measure_children(op, view.page, gauges);
    }
}

void qr_tree_measure(struct qr_op *op, struct qr_tree_gauges *gauges)
{
    qr_word word = qr_map_load(qr_op_map(op), op->tree->root);
    if (qr_word_tag(word) != QR_WORD_HEAD) return;
    struct qr_leaf_view view = qr_view_of(word);
    gauges->height = qr_max(gauges->height, view.page->level + 1u);
    if (view.page->kind == QR_PAGE_LEAF)
        measure_leaf(&view, gauges);
    else
        measure_children(op, view.page, gauges);
}
