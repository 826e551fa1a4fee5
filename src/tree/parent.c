/*
 * parent.c: separators: posting, removing, and replacing inner pages.
 *
 * Layer 4. An inner page changes only by being replaced. Each function here loads the parent's word first and judges
 * everything else afterwards, so that a CAS from that word fails if the judgement became wrong:
 *
 * PARENT-1 A separator is posted only if, after the load of the parent's word, the right page was HEAD, unsealed, with
 *          that low key. If it is merged away later, its separator is removed from a later word of the parent, and the
 *          CAS here fails. So a separator never leads to a page that is gone.
 * PARENT-2 A separator is removed only after the page's word is FORWARD. The remover retires the id.
 * PARENT-3 Where a separator is to be posted an entry with the same key may stand: of the page itself, or of one that was absorbed,
 *          if the joint page was split at that key again (MERGE-5) before the entry was taken out. That merge is finished
 *          first. Else the entry would be taken for the separator, and gone a moment later: nobody would have posted it, and
 *          nobody would say that it was left (CHECK-6).
 */
#include "base/alloc.h"
#include "tree/internal.h"
#include "tree/policy.h"

static void *block_for(struct qr_op *op, size_t size, size_t *ret_block_size)
{
    return op->outside ? qr_block_outside(size, ret_block_size)
                       : qr_arena_alloc(op->tree->env->arena, &op->thread->cache, size, op->use_reserve, ret_block_size);
}

int qr_inner_new(struct qr_op *op, const struct qr_inner_entry *entries, uint32_t count,
                 const struct qr_page_identity *identity, struct qr_page **ret_page)
{
    size_t block_size;
    size_t size = qr_inner_size(entries, count, identity);
    void *block = block_for(op, size, &block_size);
    if (block == NULL) return QUIRE_ERR_NO_MEMORY;
    qr_inner_build(block, block_size, entries, count, identity);
    *ret_page = block;
    return 0;
}

/* The whereabouts of a child that has changed its block, in an inner page that is not installed yet. */
static void note_child(struct qr_op *op, const struct qr_page *inner, uint32_t index)
{
    qr_word word = qr_map_load(qr_op_map(op), qr_inner_child(inner, index));
    if (qr_word_tag(word) == QR_WORD_HEAD) qr_child_moved(op, inner, index, qr_word_block(word));
}

void qr_inner_note_children(struct qr_op *op, const struct qr_page *inner, const struct qr_inner_entry *entries)
{
    for (uint32_t i = 0; i < inner->count; i++)
        if (entries[i].whereabouts == 0) note_child(op, inner, i);
}

/* Puts a page in the place of the one at the spot. QR_RETRY: another one was faster. */
static int install(struct qr_op *op, const struct qr_spot *spot, struct qr_page *fresh)
{
    qr_word expected = spot->word;
    QR_STOP("inner.built");
    if (!qr_map_cas(qr_op_map(op), spot->pid, &expected, qr_word_make(QR_WORD_HEAD, fresh, 0, 0))) {
        qr_discard_page(op, fresh);
        return QR_RETRY;
    }
    qr_map_note_change(qr_op_map(op), spot->pid);
    if (spot->parent_pid != QR_PID_NONE && !spot->by_sibling)
        qr_child_moved(op, qr_word_block(spot->parent_word), spot->parent_index, fresh);
    qr_retire_page(op, spot->page);
    return 0;
}

int qr_inner_replace(struct qr_op *op, const struct qr_spot *spot, const struct qr_inner_entry *entries, uint32_t count,
                     const struct qr_page_identity *identity)
{
    struct qr_page *fresh;
    int result = qr_inner_new(op, entries, count, identity, &fresh);
    if (result != 0) return result;
    qr_inner_note_children(op, fresh, entries);
    return install(op, spot, fresh);
}

/* An array for the entries of an inner page and some more. */
static struct qr_inner_entry *entries_alloc(const struct qr_page *page, uint32_t more)
{
    return qr_malloc(((size_t)page->count + more) * sizeof(struct qr_inner_entry));
}

/* Whether the page that a separator is to lead to is live: PARENT-1. */
static bool is_live(struct qr_op *op, uint64_t pid, uint8_t level, struct quire_slice low)
{
    qr_word word = qr_map_load(qr_op_map(op), pid);
    if (qr_word_tag(word) != QR_WORD_HEAD) return false;
    const struct qr_page *page = qr_word_block(word);
    struct quire_slice other = qr_page_low(page);
    return page->level == level && qr_equal(other.data, other.size, low.data, low.size);
}

/* An entry for a page that was split off the child of entry `at`. */
static int add_entry(struct qr_op *op, const struct qr_spot *parent, uint32_t at, const struct qr_page *right)
{
    const struct qr_page *page = parent->page;
    struct quire_slice low = qr_page_low(right);
    if (qr_inner_may_insert(page, low)) {
        size_t block_size;
        struct qr_page *fresh = block_for(op, qr_inner_insert_size(page, low), &block_size);
        if (fresh == NULL) return QUIRE_ERR_NO_MEMORY;
        qr_inner_insert(page, at + 1, low, right->pid, fresh, block_size);
        note_child(op, fresh, at);
        note_child(op, fresh, at + 1);
        return install(op, parent, fresh);
    }
    struct qr_inner_entry *entries = entries_alloc(page, 1);
    if (entries == NULL) return QUIRE_ERR_NO_MEMORY;
    struct qr_page_identity identity = qr_page_identity(page);
    qr_inner_entries(page, entries);
    memmove(entries + at + 2, entries + at + 1, (page->count - at - 1) * sizeof(*entries));
    entries[at].whereabouts = 0; /* both halves of the split have moved */
    entries[at + 1] = (struct qr_inner_entry){.key = low, .child = right->pid};
    int result = qr_inner_replace(op, parent, entries, page->count + 1, &identity);
    qr_free(entries);
    return result;
}

/* PARENT-3: an entry has the key of a separator that is to be posted, for a page that was live after the parent was loaded.
 * QUIRE_EXISTS: it is that page's entry. Entry 0 never is another's (INNER-1), and could not be taken out. */
static int make_way(struct qr_op *op, const struct qr_page *parent, uint32_t at, const struct qr_page *right)
{
    uint64_t pid = qr_inner_child(parent, at);
    qr_word word = qr_map_load(qr_op_map(op), pid);
    int result;
    if (at == 0 || pid == right->pid || QR_BUG(post_over_absorbed)) return QUIRE_EXISTS;
    switch (qr_word_tag(word)) {
    case QR_WORD_SEALED:
        result = qr_merge_finish(op, pid, word);
        return result == 0 || result == QUIRE_NOT_FOUND ? QR_RETRY : result;
    case QR_WORD_FORWARD:
        result = qr_remove_separator(op, right->level, qr_page_low(right), pid);
        return result == 0 ? QR_RETRY : result;
    default:
        return QUIRE_EXISTS; /* two pages of one key are not live at once: the other one went away meanwhile */
    }
}

/* One try. QUIRE_EXISTS: the separator is there, or is not wanted any more. */
static int post_once(struct qr_op *op, const struct qr_key *key, const struct qr_page *right, struct qr_spot *parent,
                     bool *ret_at_end)
{
    struct quire_slice low = qr_page_low(right);
    int result = qr_descend(op, key, (uint8_t)(right->level + 1), false, parent);
    if (result == QUIRE_NOT_FOUND) return QUIRE_EXISTS; /* the level above went away: the page is being merged */
    if (result != 0) return result;
    const struct qr_page *page = parent->page;
    uint32_t at = qr_inner_find(page, key);
    struct quire_slice present = at == 0 ? qr_page_low(page) : qr_inner_key(page, at);
    QR_STOP("post.parent_loaded");
    if (!is_live(op, right->pid, right->level, low) && !QR_BUG(post_to_dead_child)) return QUIRE_EXISTS;
    if (qr_equal(present.data, present.size, low.data, low.size)) return make_way(op, page, at, right);

    *ret_at_end = (page->flags & QR_PAGE_HIGH_INFINITE) != 0 && at + 1 == page->count;
    return add_entry(op, parent, at, right);
}

static int post(struct qr_op *op, const struct qr_page *right)
{
    struct quire_slice low = qr_page_low(right);
    struct qr_key key = qr_key_make(low.data, low.size);
    struct qr_spot parent;
    bool at_end = false;
    int result = qr_epoch_prepare(op->thread); /* a reader has not done so */
    if (result != 0) return result;
    do {
        result = post_once(op, &key, right, &parent, &at_end);
    } while (result == QR_RETRY);
    if (result == QUIRE_EXISTS) return 0;
    if (result != 0) return result;
    QR_STOP("post.posted");
    return qr_split_if_large(op, parent.pid, at_end);
}

int qr_post_separator(struct qr_op *op, const struct qr_page *right)
{
    qr_structure_help(op);
    int result = qr_structure_left(op, post(op, right));
    qr_structure_end(op);
    return result;
}

/* One try. QUIRE_NOT_FOUND: no such separator. */
static int remove_once(struct qr_op *op, const struct qr_key *key, uint8_t level, uint64_t pid, struct qr_spot *parent)
{
    int result = qr_descend(op, key, (uint8_t)(level + 1), false, parent);
    if (result != 0) return result;
    const struct qr_page *page = parent->page;
    uint32_t at = qr_inner_find(page, key);
    if (at == 0 || qr_inner_child(page, at) != pid) return QUIRE_NOT_FOUND;
    struct quire_slice separator = qr_inner_key(page, at);
    if (!qr_equal(separator.data, separator.size, key->data, key->size)) return QUIRE_NOT_FOUND;

    struct qr_inner_entry *entries = entries_alloc(page, 0);
    if (entries == NULL) return QUIRE_ERR_NO_MEMORY;
    struct qr_page_identity identity = qr_page_identity(page);
    qr_inner_entries(page, entries);
    memmove(entries + at, entries + at + 1, (page->count - at - 1) * sizeof(*entries));
    result = qr_inner_replace(op, parent, entries, page->count - 1, &identity);
    qr_free(entries);
    return result;
}

int qr_remove_separator(struct qr_op *op, uint8_t level, struct quire_slice low, uint64_t pid)
{
    struct qr_key key = qr_key_make(low.data, low.size);
    struct qr_spot parent;
    qr_structure_help(op);
    int result = qr_epoch_prepare(op->thread); /* a reader has not done so */
    if (result == 0) {
        do {
            result = remove_once(op, &key, level, pid, &parent);
        } while (result == QR_RETRY);
    }
    qr_structure_left(op, result == QUIRE_NOT_FOUND ? 0 : result);
    qr_structure_end(op);
    if (result == QUIRE_NOT_FOUND) return 0;
    if (result != 0) return result;
    if (QR_BUG(reuse_id_early))
        qr_map_free(qr_op_map(op), pid);
    else
        qr_epoch_retire(op->thread, QR_RETIRE_PID, (void *)(uintptr_t)pid, 0);
    return 0;
}
