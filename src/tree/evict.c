/*
 * evict.c: a page leaves memory.
 *
 * Layer 4. The word of a page becomes its disk address only if the page could be found again from the level above alone,
 * since a disk word has no bounds and no sibling link:
 *
 * EVICT-1 The page's entry is in the parent, not marked, and the separator of its right sibling is there too (or the
 *         page is the last of the parent and ends where the parent ends).
 * EVICT-2 The floor of the id is raised to the page's max_lsn before the CAS: a blind write that meets the disk word
 *         stays above it.
 *
 * EVICT-1 is judged on the parent as loaded before the CAS. It cannot become false without a change of the page's own
 * word, on which the CAS then fails: a split installs a left half, a merge into this page an absorbed one. Only a mark may
 * come later; then the merge fetches the page.
 */
#include "base/alloc.h"
#include "tree/internal.h"

/* EVICT-1 on the parent of the page of spot. */
static bool found_from_above(struct qr_op *op, const struct qr_spot *spot)
{
    qr_word word = qr_map_load(qr_op_map(op), spot->parent_pid);
    if (qr_word_tag(word) != QR_WORD_HEAD) return false;
    const struct qr_page *parent = qr_word_block(word);
    const struct qr_page *page = spot->page;
    struct quire_slice low = qr_page_low(page);
    struct qr_key key = qr_key_make(low.data, low.size);
    if (parent->level != page->level + 1 || qr_page_key_beyond(parent, &key)) return false;

    uint32_t i = qr_inner_find(parent, &key);
    bool last = i + 1 == parent->count;
    if (QR_BUG(evict_unposted)) return true;
    if (qr_inner_child(parent, i) != spot->pid || qr_inner_merging(parent, i)) return false;
    if (!last && qr_inner_merging(parent, i + 1)) return false;
    if ((page->flags & QR_PAGE_HIGH_INFINITE) != 0) return last && (parent->flags & QR_PAGE_HIGH_INFINITE) != 0;
    if (last && (parent->flags & QR_PAGE_HIGH_INFINITE) != 0) return false;
    struct quire_slice high = qr_page_high(page);
    struct quire_slice next = last ? qr_page_high(parent) : qr_inner_key(parent, i + 1);
    return qr_equal(high.data, high.size, next.data, next.size);
}

int qr_tree_evict_prepare(struct qr_op *op, const struct qr_key *key, uint8_t level, struct qr_evict *ret_evict)
{
    struct qr_spot spot;
    int result = qr_descend(op, key, level, false, &spot);
    if (result != 0) return result;
    if (spot.parent_pid == QR_PID_NONE || spot.by_sibling || !found_from_above(op, &spot)) return QUIRE_NOT_FOUND;
    *ret_evict = (struct qr_evict){.pid = spot.pid, .word = spot.word, .page = spot.page};
    return 0;
}

/* The disk word's address: on success the old block is retired. */
static int install_disk(struct qr_op *op, struct qr_evict *evict, uint64_t address)
{
    struct qr_leaf_view view = qr_view_of(evict->word);
    uint64_t max_lsn = evict->page->kind == QR_PAGE_LEAF ? qr_view_max_lsn(&view) : evict->page->max_lsn;
    if (!QR_BUG(skip_floor)) qr_map_raise_floor(qr_op_map(op), evict->pid, max_lsn);
    QR_STOP("evict.floor_raised");
    if (!qr_map_cas(qr_op_map(op), evict->pid, &evict->word, qr_word_number(QR_WORD_DISK, address))) return QR_RETRY;
    qr_retire_page(op, evict->page);
    return 0;
}

/* A copy of an inner page: built anew, since the whereabouts in it change while it is installed. */
static int inner_image(struct qr_op *op, const struct qr_page *page, struct qr_page **ret_image)
{
    struct qr_page_identity identity = qr_page_identity(page);
    struct qr_inner_entry *entries = qr_malloc(page->count * sizeof(*entries));
    if (entries == NULL) return QUIRE_ERR_NO_MEMORY;
    qr_inner_entries(page, entries);
    for (uint32_t i = 0; i < page->count; i++) entries[i].whereabouts = 0;
    int result = qr_inner_new(op, entries, page->count, &identity, ret_image);
    qr_free(entries);
    return result;
}

/* Builds the image of what a view shows, dropping what the retention lets go. */
static int leaf_image(struct qr_op *op, const struct qr_leaf_view *view, const struct qr_retention *retention,
                      uint64_t safe_version, struct qr_page **ret_image)
{
    const struct qr_page *page = view->page;
    struct qr_page_identity identity = qr_page_identity(page);
    struct qr_leaf_properties properties = {.flags = page->flags & QR_PAGE_COLLECTED,
                                            .safe_version = qr_max(page->safe_version, safe_version)};
    struct qr_plan plan;
    struct qr_fresh_leaf fresh;
    identity.max_lsn = qr_view_max_lsn(view);
    qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
    int result = qr_plan_add_leaf(&plan, view, NULL, retention) ? 0 : QUIRE_ERR_NO_MEMORY;
    if (result == 0) result = qr_leaf_from_plan(op, &plan, 0, plan.count, &identity, &properties, QR_AREA_NONE, &fresh);
    qr_plan_done(&plan);
    if (result == 0) *ret_image = fresh.page;
    return result;
}

int qr_tree_evict_image(struct qr_op *op, const struct qr_evict *evict, struct qr_page **ret_image)
{
    struct qr_spot spot = {.pid = evict->pid, .word = evict->word, .page = evict->page};
    struct qr_leaf_view view = qr_view_of(evict->word);
    struct qr_bounds bounds;

    op->use_reserve = true;
    if (evict->page->kind == QR_PAGE_INNER) return inner_image(op, evict->page, ret_image);
    if ((evict->page->flags & QR_PAGE_STUB) != 0) {
        int result = qr_join(op, &spot);
        return result == 0 ? QR_RETRY : result;
    }
    qr_bounds_load(op->tree, false, &bounds);
    return leaf_image(op, &view, &bounds.retention, bounds.safe_version, ret_image);
}

int qr_tree_evict_base_image(struct qr_op *op, const struct qr_evict *evict, struct qr_page **ret_image)
{
    struct qr_leaf_view base = {.page = evict->page};
    struct qr_retention all = {.count = 0};
    op->use_reserve = true;
    return leaf_image(op, &base, &all, 0, ret_image);
}

int qr_tree_evict(struct qr_op *op, struct qr_evict *evict, uint64_t address)
{
    struct qr_spot spot = {.pid = evict->pid, .word = evict->word, .page = evict->page};
    struct quire_slice low = qr_page_low(evict->page);
    struct qr_key key = qr_key_make(low.data, low.size);
    struct qr_spot now;
    int result = qr_descend(op, &key, evict->page->level, false, &now);
    if (result != 0) return result;
    spot.parent_pid = now.parent_pid;
    if (now.pid != evict->pid || !qr_word_same(now.word, evict->word) || now.parent_pid == QR_PID_NONE ||
        !found_from_above(op, &spot))
        return QR_RETRY;
    return install_disk(op, evict, address);
}

int qr_tree_evict_base(struct qr_op *op, struct qr_evict *evict, uint64_t address)
{
    struct qr_leaf_view view = qr_view_of(evict->word);
    struct qr_page_identity identity = qr_page_identity(evict->page);
    struct qr_leaf_properties properties = {.flags = QR_PAGE_STUB,
                                            .safe_version = evict->page->safe_version,
                                            .image_address = address,
                                            .first_lsn = qr_view_first_lsn(&view)};
    struct qr_retention all = {.count = 0};
    struct qr_plan plan;
    struct qr_fresh_leaf fresh;

    identity.max_lsn = qr_view_max_lsn(&view);
    qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
    int result = qr_plan_add_chain(&plan, &view, &all) ? 0 : QUIRE_ERR_NO_MEMORY;
    if (result == 0) result = qr_leaf_from_plan(op, &plan, 0, plan.count, &identity, &properties, QR_AREA_FULL, &fresh);
    qr_plan_done(&plan);
    if (result != 0) return result;
    if (!qr_map_cas(qr_op_map(op), evict->pid, &evict->word, qr_word_make(QR_WORD_HEAD, fresh.page, 0, 0))) {
        qr_discard_page(op, fresh.page);
        return QR_RETRY;
    }
    qr_retire_page(op, evict->page);
    return 0;
}
