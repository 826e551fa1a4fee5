/*
 * flush.c: images of pages that stay in memory.
 *
 * Layer 4. The image of a leaf is its base block, chain consolidated into it first; deltas may come on top while it is being
 * written, and the image stays that of the base. So a page that is written to all the time gets an image all the same.
 *
 * FLUSH-1  The image of a block is the page's up to the block's max_lsn (growing-LSN rule): every frame up to there is in it.
 * FLUSH-2  Whether the page still is that block is asked when the image was written, by the token in its header: a block has it
 *          only if it was there when the flush began and was not built anew in the same memory, since builders clear it. The
 *          id is taken out of the set of changes before the word is loaded: a change whose note was taken away by that is
 *          then seen in the word, and noted again here; one that is not seen comes later, and so does its note.
 * FLUSH-3  Tokens are odd and not used twice. One thread flushes at a time.
 * FLUSH-4  An image as of an LSN has the records up to there and the bounds of now. A page that has others too stays without
 *          an image, though the store has one: what it must still save is all that it says of itself (R14).
 *
 * Linearization point of qr_tree_flush_end: the load of the word. ABA: FLUSH-2. Reclamation: nothing is kept between the two
 * halves but the number of the page and the token.
 */
#include "base/alloc.h"
#include "tree/internal.h"
#include "tree/structure.h"

#define WALKS 4u /* others may have split a page in between */

static _Atomic uint64_t *image_of_block(const struct qr_page *page)
{
    return (_Atomic uint64_t *)(uintptr_t)&page->image;
}

static uint64_t next_token(void)
{
    static _Atomic uint64_t last;
    /* relaxed: a number that nobody else gets */
    return (atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) << 1) | 1;
}

bool qr_tree_first_lsn(struct qr_map *map, uint64_t pid, uint32_t *ret_tree_id, uint64_t *ret_first_lsn)
{
    qr_word word = qr_map_load(map, pid);
    enum qr_word_tag tag = qr_word_tag(word);
    if (tag != QR_WORD_HEAD && tag != QR_WORD_SEALED && tag != QR_WORD_PRIVATE) return false;
    if (tag == QR_WORD_PRIVATE) QR_STOP("flush.private_seen");
    struct qr_leaf_view view = qr_view_of(word);
    *ret_tree_id = view.page->tree_id;
    *ret_first_lsn = view.page->kind == QR_PAGE_LEAF ? qr_view_first_lsn(&view) : 0;
    return true;
}

/* What is built here and not installed needs no room within the memory limit: a checkpoint can be made at the limit too. */

/* A copy of an inner page without what is known of where its children are: that changes while it is installed. */
static int copy_inner(struct qr_op *op, const struct qr_page *page, struct qr_page **ret_copy)
{
    struct qr_page_identity identity = qr_page_identity(page);
    struct qr_inner_entry *entries = qr_malloc(page->count * sizeof(*entries));
    if (entries == NULL) return QUIRE_ERR_NO_MEMORY;
    qr_inner_entries(page, entries);
    for (uint32_t i = 0; i < page->count; i++) entries[i].whereabouts = 0;
    op->outside = true;
    int result = qr_inner_new(op, entries, page->count, &identity, ret_copy);
    op->outside = false;
    qr_free(entries);
    return result;
}

/* An image as of an LSN has all that the page has up to there: what it left out nobody would drop after an opening, and so blobs would
 * stay that no record has. */
static void bounds_as_of(uint64_t as_of_lsn, struct qr_bounds *bounds)
{
    bounds->safe_version = 0;
    bounds->retention.count = 0;
    bounds->retention.keep_below = 0;
    bounds->retention.keep_equal = true;
    bounds->retention.as_of_lsn = QR_BUG(as_of_unfiltered) ? 0 : as_of_lsn;
}

/* The leaf of a view as a page of its own, chain consolidated, stub joined. as_of_lsn: 0, or what is above is left out. */
static int build_leaf(struct qr_op *op, const struct qr_leaf_view *view, uint64_t as_of_lsn, struct qr_page **ret_page)
{
    struct qr_page_identity identity = qr_page_identity(view->page);
    struct qr_leaf_properties properties = {0};
    struct qr_bounds bounds;
    struct qr_plan plan;
    struct qr_fresh_leaf fresh;
    qr_bounds_load(op->tree, false, &bounds);
    if (as_of_lsn != 0) bounds_as_of(as_of_lsn, &bounds);
    properties.safe_version = qr_max(view->page->safe_version, bounds.safe_version);
    identity.max_lsn = qr_view_max_lsn(view);
    qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
    int result = qr_plan_whole_leaf(op, &plan, view, &bounds.retention, &identity.right_pid);
    op->outside = true;
    if (result == 0) result = qr_leaf_from_plan(op, &plan, 0, plan.count, &identity, &properties, QR_AREA_NONE, &fresh);
    op->outside = false;
    qr_plan_done(&plan);
    if (result == 0) *ret_page = fresh.page;
    return result;
}

/* Leaves: no chain, no stub. */
static int make_plain(struct qr_op *op, struct qr_spot *spot)
{
    int result = 0;
    if ((spot->page->flags & QR_PAGE_STUB) != 0) result = qr_join(op, spot);
    if (result == 0 && qr_word_chain(spot->word) != 0) result = qr_consolidate(op, spot);
    return result == QUIRE_NOT_FOUND ? 0 : result;
}

int qr_tree_flush_begin(struct qr_op *op, uint64_t pid, uint64_t as_of_lsn, struct qr_flush *ret_flush)
{
    struct qr_spot spot = {.pid = pid, .parent_pid = QR_PID_NONE};
    spot.word = qr_map_load(qr_op_map(op), pid);
    if (qr_word_tag(spot.word) != QR_WORD_HEAD) return QUIRE_NOT_FOUND;
    spot.page = qr_word_block(spot.word);
    if (spot.page->tree_id != op->tree->id) return QUIRE_NOT_FOUND; /* the id has come to be another page's */
    op->use_reserve = true;
    int result = spot.page->kind == QR_PAGE_LEAF ? make_plain(op, &spot) : 0;
    if (result != 0) return result;
    if (qr_page_has_image(spot.page)) return QUIRE_NOT_FOUND;

    struct qr_leaf_view view = {.page = spot.page};
    struct qr_flush flush = {
        .pid = pid,
        .token = next_token(),
        .max_lsn = spot.page->max_lsn,
        .min_lsn = spot.page->kind == QR_PAGE_LEAF ? qr_view_first_lsn(&view) : 0,
        .page = spot.page,
        .partial = as_of_lsn != 0 && spot.page->kind == QR_PAGE_LEAF && spot.page->max_lsn > as_of_lsn,
    };
    if (spot.page->kind == QR_PAGE_INNER) result = copy_inner(op, spot.page, &flush.built);
    if (flush.partial) result = build_leaf(op, &view, as_of_lsn, &flush.built);
    if (result != 0) return result;
    /* relaxed: read again by this thread only */
    atomic_store_explicit(image_of_block(spot.page), flush.token, memory_order_relaxed);
    if (flush.built != NULL) flush.page = flush.built;
    *ret_flush = flush;
    return 0;
}

int qr_tree_flush_captured(struct qr_op *op, qr_word word, uint64_t as_of_lsn, struct qr_flush *ret_flush)
{
    struct qr_evict evict = {.word = word, .page = qr_word_block(word)};
    struct qr_leaf_view view = qr_view_of(word);
    struct qr_flush flush = {.pid = evict.page->pid};
    int result;
    evict.pid = flush.pid;
    op->use_reserve = true;
    if (evict.page->kind == QR_PAGE_INNER) {
        flush.max_lsn = evict.page->max_lsn;
        result = copy_inner(op, evict.page, &flush.built);
    } else {
        flush.max_lsn = qr_view_max_lsn(&view);
        flush.min_lsn = qr_view_first_lsn(&view);
        result = build_leaf(op, &view, as_of_lsn, &flush.built);
    }
    if (result != 0) return result;
    flush.page = flush.built;
    *ret_flush = flush;
    return 0;
}

/* Goes to a key from the root; walkers do what is left to do on their way. NO_MEMORY: a link had to be followed all the same. */
static int walk_to(struct qr_op *op, struct quire_slice low, uint8_t level)
{
    struct qr_key key = qr_key_make(low.data, low.size);
    for (unsigned i = 0; i < WALKS; i++) {
        struct qr_spot spot = {.by_link = false}; /* not set where no link is in the way */
        int result = qr_descend(op, &key, level, false, &spot);
        if (result != 0) return result == QUIRE_NOT_FOUND ? 0 : result;
        if (!spot.by_link) return 0;
    }
    return QUIRE_ERR_NO_MEMORY;
}

int qr_tree_finish(struct qr_op *op, uint64_t pid)
{
    qr_word word = qr_map_load(qr_op_map(op), pid);
    op->use_reserve = true;
    if (qr_word_tag(word) == QR_WORD_SEALED) {
        int result = qr_merge_finish(op, pid, word);
        return result == QR_RETRY ? 0 : result;
    }
    if (qr_word_tag(word) != QR_WORD_HEAD) return 0;
    const struct qr_page *page = qr_word_block(word);
    int result = walk_to(op, qr_page_low(page), page->level);
    if (page->kind == QR_PAGE_LEAF) return result;
    for (uint32_t i = 1; i < page->count && result == 0; i++) {
        qr_word child = qr_map_load(qr_op_map(op), qr_inner_child(page, i));
        if (qr_word_tag(child) == QR_WORD_FORWARD)
            result = walk_to(op, qr_inner_key(page, i), (uint8_t)(page->level - 1));
    }
    return result;
}

void qr_tree_flush_done(struct qr_flush *flush)
{
    qr_free_aligned(flush->built);
    flush->built = NULL;
}

void qr_tree_flush_copy(const struct qr_flush *flush, uint8_t *to)
{
    const struct qr_page *page = flush->page;
    struct qr_page *copy = (struct qr_page *)(void *)to;
    memcpy(to + QR_PAGE_HEADER, qr_page_bytes(page) + QR_PAGE_HEADER, page->content_bytes - QR_PAGE_HEADER);
    qr_page_copy_header(copy, page);
    copy->block_size = page->content_bytes;
    copy->area_offset = page->content_bytes;
    copy->image_address = 0;
    copy->first_lsn = 0;
    copy->flags &= (uint8_t)~QR_PAGE_COLLECTED;
}

bool qr_tree_flush_end(struct qr_map *map, const struct qr_flush *flush, uint64_t address)
{
    bool noted = qr_map_take_change(map, flush->pid); /* FLUSH-2: before the word */
    qr_word word = qr_map_load_latest(map, flush->pid);
    bool same = false;
    if (qr_word_tag(word) == QR_WORD_HEAD) {
        _Atomic uint64_t *image = image_of_block(qr_word_block(word));
        /* relaxed: written by this thread */
        same = atomic_load_explicit(image, memory_order_relaxed) == flush->token;
        /* relaxed: whoever does not see it takes the page for less saved than it is */
        if (same) atomic_store_explicit(image, flush->partial ? 0 : address << 1, memory_order_relaxed);
    }
    if (noted && !same) qr_map_note_change(map, flush->pid);
    return same;
}
