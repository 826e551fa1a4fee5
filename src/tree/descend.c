/*
 * descend.c: the way down.
 *
 * Layer 4. From the root to the page that covers a key, level by level, and to the right where a split has moved the key.
 * Whoever goes right posts the separator that was missing; whoever meets a half-done change finishes it.
 *
 * Why it is safe to go on from any word loaded: everything met is alive until the section ends, a page that was split
 * or merged meanwhile leads by its sibling link or forwarding word to where its keys are, and a sealed page is not
 * passed: its merge is finished first (its content may name pages that are gone).
 *
 * Without memory nothing can be finished. A missing separator does no harm. A page whose merge is not finished is gone
 * round (go_left); a writer whose key lies in a sealed page has to give up, a reader may go by that page if it is sure not
 * to have been absorbed (may_read_sealed).
 *
 * Pages that came from a file may lead anywhere. A way ends all the same: no page is passed that is not where the way says
 * (is_in_place), and an id that is free ends it (qr_settle_word).
 */
#include "base/alloc.h"
#include "base/status.h"
#include "tree/internal.h"

/* Goes from PRIVATE to HEAD: the page was reached, so the left half of its split is in. */
static void untag(struct qr_op *op, uint64_t pid, qr_word *word)
{
    qr_word head = qr_word_retag(*word, QR_WORD_HEAD);
    if (qr_map_cas(qr_op_map(op), pid, word, head)) *word = head;
}

/* A page that is on disk: installs its image if the op has it, else asks for it. */
static int fetch(struct qr_op *op, uint64_t pid, qr_word *word)
{
    uint64_t address = qr_word_value(*word);
    for (uint32_t i = 0; i < op->image_count; i++) {
        struct qr_op_image *image = &op->images[i];
        if (image->address != address) continue;
        qr_word head = qr_word_make(QR_WORD_HEAD, image->page, 0, 0);
        if (qr_map_cas(qr_op_map(op), pid, word, head)) {
            *word = head;
            *image = op->images[--op->image_count];
        }
        return 0;
    }
    op->need_pid = pid;
    op->need_address = address;
    return QR_FETCH;
}

int qr_settle_word(struct qr_op *op, uint64_t *pid, qr_word *word)
{
    int result;
    switch (qr_word_tag(*word)) {
    case QR_WORD_HEAD:
        return 0;
    case QR_WORD_PRIVATE:
        untag(op, *pid, word);
        return 0;
    case QR_WORD_DISK:
        return fetch(op, *pid, word);
    case QR_WORD_SEALED:
        result = qr_merge_finish(op, *pid, *word);
        if (result != 0) return result;
        *word = qr_map_load(qr_op_map(op), *pid);
        return 0;
    case QR_WORD_FORWARD:
        *pid = qr_word_value(*word);
        *word = qr_map_load(qr_op_map(op), *pid);
        return 0;
    case QR_WORD_UNLOADED: /* the caller finds out where it is */
        op->need_pid = *pid;
        op->need_address = 0;
        return QR_FETCH;
    case QR_WORD_FREE:
    default:
        /* The way here was loaded in this section: a page with an entry for the id, or a link. An id is retired when the last of
         * them has gone, and free after a grace period (MAP-2), so not before this section ends: no page of ours names it. */
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu is named and its id is free", (unsigned long long)*pid);
    }
}

/* The entry for keys just below `key`. */
static uint32_t index_below(const struct qr_page *page, const struct qr_key *key)
{
    uint32_t i = qr_inner_find(page, key);
    if (i == 0) return 0;
    struct quire_slice separator = qr_inner_key(page, i);
    return qr_equal(separator.data, separator.size, key->data, key->size) ? i - 1 : i;
}

/* Whether the keys just below `key` lie beyond the page. */
static bool beyond_below(const struct qr_page *page, const struct qr_key *key)
{
    if ((page->flags & QR_PAGE_HIGH_INFINITE) != 0) return false;
    struct quire_slice high = qr_page_high(page);
    return qr_compare(high.data, high.size, key->data, key->size) < 0;
}

/* The page's right sibling was reached by its link: its separator may be missing above. Without memory it stays so: the
 * link leads there all the same, and a later walker has another try. */
static int help_right(struct qr_op *op, uint64_t pid, qr_word *word)
{
    while (qr_word_tag(*word) != QR_WORD_HEAD) {
        if (qr_word_tag(*word) != QR_WORD_PRIVATE) return 0;
        untag(op, pid, word);
    }
    if (QR_BUG(post_separator_late)) return 0;
    qr_count(op, QR_COUNTER_HELPS);
    int result = qr_post_separator(op, qr_word_block(*word));
    return result == QUIRE_ERR_NO_MEMORY ? 0 : result;
}

/* Whether a leaf on disk may be written without reading it: its bounds are those of its entry in the parent, which is
 * the same before and after its word was loaded, and no merge is open on it or beside it. */
static bool blind_allowed(struct qr_op *op, const struct qr_spot *spot)
{
    if (spot->parent_pid == QR_PID_NONE || (spot->by_sibling && !QR_BUG(blind_write_by_sibling))) return false;
    const struct qr_page *parent = qr_word_block(spot->parent_word);
    if (parent->level != 1) return false;
    uint32_t i = spot->parent_index;
    if (qr_inner_merging(parent, i) || (i + 1 < parent->count && qr_inner_merging(parent, i + 1))) return false;
    return qr_word_same(qr_map_load(qr_op_map(op), spot->parent_pid), spot->parent_word) ||
           QR_BUG(blind_write_by_sibling);
}

/* A sibling link that a stub does not know: the whole leaf does. */
static int learn_right(struct qr_op *op, struct qr_spot *spot)
{
    return spot->page->right_pid == QR_PID_UNKNOWN ? qr_join(op, spot) : 0;
}

/* An entry led to a page that was merged away: its separator is still there because whoever merged it has stopped, or has
 * given up. Removed, and QR_RETRY: the word is not followed (MERGE-6). */
static int help_forwarded(struct qr_op *op, const struct qr_spot *spot)
{
    const struct qr_page *parent = qr_word_block(spot->parent_word);
    qr_count(op, QR_COUNTER_HELPS);
    int result = qr_remove_separator(op, (uint8_t)(parent->level - 1), qr_inner_key(parent, spot->parent_index),
                                     spot->pid);
    return result == 0 ? QR_RETRY : result;
}

/* One step with a word that is not HEAD. As qr_settle_word. */
static int settle_spot(struct qr_op *op, struct qr_spot *spot)
{
    uint64_t pid = spot->pid;
    bool by_entry = spot->parent_pid != QR_PID_NONE && !spot->by_sibling && spot->parent_index != 0 &&
                    !QR_BUG(forwarded_followed);
    if (qr_word_tag(spot->word) == QR_WORD_FORWARD && by_entry) return help_forwarded(op, spot);
    int result = qr_settle_word(op, &spot->pid, &spot->word);
    if (spot->pid != pid) {
        spot->by_sibling = true;
        spot->by_link = false;
    }
    return result;
}

/* How to go down. */
struct descent {
    uint8_t level;
    bool below; /* to the page for the keys just below the key */
    bool blind; /* a leaf on disk will do */
    bool read;  /* for a reader: so will a sealed page that was not absorbed; help does not depend on memory */
};

/*
 * Goes from an entry of a page that is being merged, or was, to the entry before it. Sibling links lead on from there, past
 * a page that was absorbed, or to one that was not. For readers, and where there is no memory to finish the merge.
 */
static bool go_left(struct qr_op *op, struct qr_spot *spot)
{
    if (spot->parent_pid == QR_PID_NONE || spot->by_sibling || spot->parent_index == 0) return false;
    if (QR_BUG(read_absorbed)) return false;
    spot->pid = qr_inner_child(qr_word_block(spot->parent_word), --spot->parent_index);
    spot->word = qr_map_load(qr_op_map(op), spot->pid);
    return true;
}

/*
 * Whether a reader may go by what a sealed page says (MERGE-2): it was not absorbed yet when the page was loaded that led to
 * it. That is so if that was its left neighbour, by its link, or the parent of the left-most page of its level, which is
 * sealed by a collapse only. So at the later of the two moments, that load and the sealing, it held the state of its keys.
 * (An entry says nothing of the kind: it goes last.) A stub would have to be installed whole.
 */
static bool may_read_sealed(const struct qr_spot *spot)
{
    const struct qr_page *page = qr_word_block(spot->word);
    if (QR_BUG(read_absorbed)) return true;
    if ((page->flags & QR_PAGE_STUB) != 0) return false;
    return spot->by_sibling ? spot->by_link : qr_page_low(page).size == 0;
}

/* Goes on until the spot's word is HEAD, or what else the descent is content with: DISK, SEALED. As qr_settle_word. */
static int settle(struct qr_op *op, struct qr_spot *spot, struct descent d)
{
    enum qr_word_tag tag;
    while ((tag = qr_word_tag(spot->word)) != QR_WORD_HEAD) {
        if (d.blind && tag == QR_WORD_DISK && blind_allowed(op, spot)) return 0;
        if (d.read && tag == QR_WORD_SEALED && may_read_sealed(spot)) return 0;
        if (d.read && (tag == QR_WORD_SEALED || tag == QR_WORD_FORWARD) && go_left(op, spot)) continue;
        int result = settle_spot(op, spot);
        if (result == QUIRE_ERR_NO_MEMORY && go_left(op, spot)) continue;
        if (result != 0) return result;
    }
    return 0;
}

bool qr_is_child(const struct qr_page *parent, uint32_t index, const struct qr_page *page)
{
    struct quire_slice low = qr_page_low(page);
    struct quire_slice entry = index == 0 ? qr_page_low(parent) : qr_inner_key(parent, index);
    return page->level + 1 == parent->level && page->tree_id == parent->tree_id && qr_equal(low.data, low.size, entry.data, entry.size);
}

/*
 * Whether a page is where the way there says. What is read from a file has only been compared with itself, and pages with right
 * checksums may lead in a circle; but each step down is one level, to the low key that the entry says, and each to the right goes on
 * at the key where the last page ended. None of that can change while a page has its id: so a way has an end, and whoever helps on it does, too: it works one level
 * higher, or at a smaller key. from: the page whose link led there; NULL: none.
 */
static bool is_in_place(const struct qr_op *op, const struct qr_spot *spot, const struct qr_page *from)
{
    const struct qr_page *page = qr_word_block(spot->word);
    if (page->tree_id != op->tree->id) return false;
    if (page->pid != spot->pid) return true; /* settled somewhere else */
    if (from != NULL && spot->by_link) {
        struct quire_slice low = qr_page_low(page);
        struct quire_slice high = qr_page_high(from);
        return page->level == from->level && qr_equal(low.data, low.size, high.data, high.size);
    }
    if (spot->by_sibling) return true;
    if (spot->parent_pid == QR_PID_NONE) /* the root has all keys */
        return (page->flags & QR_PAGE_HIGH_INFINITE) != 0 && qr_page_low(page).size == 0;
    return qr_is_child(qr_word_block(spot->parent_word), spot->parent_index, page);
}

QR_NOINLINE int qr_out_of_place(uint64_t pid)
{
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu is not where the pages before it lead", (unsigned long long)pid);
}

/* One try; QR_RETRY: start again at the root. */
static int descend_once(struct qr_op *op, const struct qr_key *key, struct descent d, struct qr_spot *spot)
{
    const uint8_t level = d.level;
    const bool below = d.below;
    struct qr_map *map = qr_op_map(op);
    const struct qr_page *child = NULL; /* the block of the child gone to, as qr_load_child gave it */
    const struct qr_page *from = NULL;  /* whose right link was taken last */
    *spot = (struct qr_spot){.pid = op->tree->root, .parent_pid = QR_PID_NONE};
    spot->word = qr_map_load(map, spot->pid);
    for (;;) {
        if (QR_UNLIKELY(qr_word_tag(spot->word) != QR_WORD_HEAD)) {
            int result = settle(op, spot, d);
            if (result != 0) return result;
            if (qr_word_tag(spot->word) == QR_WORD_DISK) {
                spot->page = NULL;
                return 0;
            }
        }
        const struct qr_page *page = qr_word_block(spot->word);
        if (QR_UNLIKELY(!is_in_place(op, spot, from))) return qr_out_of_place(spot->pid);
        if (page == child) {
            __asm__("" : "+r"(child)); /* as in qr_load_child */
            page = child;
        }
        if (QR_UNLIKELY(page->level < level)) return QUIRE_NOT_FOUND;
        bool beyond = below ? beyond_below(page, key) : qr_page_key_beyond(page, key);
        if (QR_UNLIKELY(beyond) && !QR_BUG(forget_high_key)) {
            spot->page = page;
            int result = learn_right(op, spot);
            if (result != 0) return result;
            from = spot->page;
            spot->pid = from->right_pid;
            spot->word = qr_map_load(map, spot->pid);
            spot->by_sibling = true;
            spot->by_link = true;
            if (qr_word_tag(spot->word) == QR_WORD_HEAD && !is_in_place(op, spot, from)) return qr_out_of_place(spot->pid);
            result = help_right(op, spot->pid, &spot->word);
            if (result != 0) return result;
            continue;
        }
        spot->page = page;
        if (page->level == level) return 0;
        uint32_t i = below ? index_below(page, key) : qr_inner_find(page, key);
        spot->parent_pid = spot->pid;
        spot->parent_word = spot->word;
        spot->parent_index = i;
        spot->by_sibling = false;
        from = NULL;
        spot->pid = qr_inner_child(page, i);
        QR_STOP("descend.parent_loaded");
        const uint8_t *block;
        spot->word = qr_load_child(op->tree, op->delta_bytes, qr_inner_place(page, i), &block);
        __builtin_prefetch((const void *)((uintptr_t)block + 64)); /* the block may be none */
        child = (const struct qr_page *)(const void *)block;
    }
}

int qr_descend(struct qr_op *op, const struct qr_key *key, uint8_t level, bool below, struct qr_spot *ret_spot)
{
    int result;
    if (level == 0 && !below && qr_descend_plain(op, key, ret_spot)) return 0;
    do {
        result = descend_once(op, key, (struct descent){.level = level, .below = below}, ret_spot);
    } while (result == QR_RETRY);
    return result;
}

int qr_descend_read(struct qr_op *op, const struct qr_key *key, bool below, struct qr_spot *ret_spot)
{
    int result;
    if (!below && qr_descend_plain(op, key, ret_spot)) return 0;
    do {
        result = descend_once(op, key, (struct descent){.below = below, .read = true}, ret_spot);
    } while (result == QR_RETRY);
    return result;
}

int qr_descend_blind(struct qr_op *op, const struct qr_key *key, struct qr_spot *ret_spot)
{
    int result;
    if (QR_LIKELY(qr_descend_plain(op, key, ret_spot))) return 0;
    do {
        result = descend_once(op, key, (struct descent){.blind = true}, ret_spot);
    } while (result == QR_RETRY);
    return result;
}

struct qr_page_identity qr_blind_identity(const struct qr_op *op, const struct qr_spot *spot)
{
    const struct qr_page *parent = qr_word_block(spot->parent_word);
    uint32_t i = spot->parent_index;
    bool last = i + 1 == parent->count;
    return (struct qr_page_identity){
        .pid = spot->pid,
        .right_pid = QR_PID_UNKNOWN,
        .tree_id = op->tree->id,
        .high_infinite = last && (parent->flags & QR_PAGE_HIGH_INFINITE) != 0,
        .low = i == 0 ? qr_page_low(parent) : qr_inner_key(parent, i),
        .high = last ? qr_page_high(parent) : qr_inner_key(parent, i + 1),
    };
}

int qr_tree_leaf_at(struct qr_op *op, const struct qr_key *key, bool below, struct qr_leaf_spot *ret_spot)
{
    struct qr_spot spot;
    int result;
    do {
        result = qr_descend_read(op, key, below, &spot);
        if (result == 0 && (spot.page->flags & QR_PAGE_STUB) != 0) result = qr_join(op, &spot);
    } while (result == QR_RETRY);
    if (result != 0) return result;
    *ret_spot = (struct qr_leaf_spot){spot.pid, spot.word, qr_view_of(spot.word)};
    return 0;
}

/* One try; QR_RETRY: start again at the root. */
static int last_leaf_once(struct qr_op *op, struct qr_spot *spot)
{
    struct qr_map *map = qr_op_map(op);
    const struct qr_page *from = NULL;
    *spot = (struct qr_spot){.pid = op->tree->root, .parent_pid = QR_PID_NONE};
    spot->word = qr_map_load(map, spot->pid);
    for (;;) {
        int result = settle(op, spot, (struct descent){.read = true});
        if (result != 0) return result;
        if (!is_in_place(op, spot, from)) return qr_out_of_place(spot->pid);
        spot->page = qr_word_block(spot->word);
        if (spot->page->kind == QR_PAGE_LEAF && (spot->page->flags & QR_PAGE_STUB) != 0) result = qr_join(op, spot);
        if (result != 0) return result;
        const struct qr_page *page = spot->page;
        from = (page->flags & QR_PAGE_HIGH_INFINITE) == 0 ? page : NULL;
        if (from != NULL) {
            spot->pid = page->right_pid;
            spot->by_sibling = true;
            spot->by_link = true;
        } else if (page->kind == QR_PAGE_LEAF) {
            return 0;
        } else {
            spot->parent_pid = spot->pid;
            spot->parent_word = spot->word;
            spot->parent_index = page->count - 1;
            spot->by_sibling = false;
            spot->pid = qr_inner_child(page, spot->parent_index);
        }
        spot->word = qr_map_load(map, spot->pid);
    }
}

int qr_tree_last_leaf(struct qr_op *op, struct qr_leaf_spot *ret_spot)
{
    struct qr_spot spot;
    int result;
    do {
        result = last_leaf_once(op, &spot);
    } while (result == QR_RETRY);
    if (result != 0) return result;
    *ret_spot = (struct qr_leaf_spot){spot.pid, spot.word, qr_view_of(spot.word)};
    return 0;
}

#define NEXT_LEAF_BYTES 1024u /* the rest follows while it is read; all at once would be in the way of what is read now */

void qr_tree_prefetch_leaf(struct qr_op *op, uint64_t pid)
{
    if (pid == QR_PID_NONE || pid == QR_PID_UNKNOWN) return;
    qr_word word = qr_map_load(qr_op_map(op), pid);
    if (qr_word_tag(word) != QR_WORD_HEAD) return;
    const uint8_t *block = qr_word_block(word);
    for (uint32_t at = 0; at < NEXT_LEAF_BYTES; at += 64) __builtin_prefetch(block + at);
}

void qr_tree_prefetch_behind(struct qr_op *op, uint64_t pid)
{
    if (pid == QR_PID_NONE || pid == QR_PID_UNKNOWN) return;
    qr_word word = qr_map_load(qr_op_map(op), pid);
    if (qr_word_tag(word) != QR_WORD_HEAD) return;
    const struct qr_page *page = qr_word_block(word);
    __builtin_prefetch(qr_page_low(page).data);
    if (page->right_pid != QR_PID_UNKNOWN) qr_map_prefetch(qr_op_map(op), page->right_pid);
}

bool qr_tree_leaf_if_low(struct qr_op *op, uint64_t pid, struct quire_slice low, struct qr_leaf_spot *ret_spot)
{
    if (pid == QR_PID_NONE || pid == QR_PID_UNKNOWN) return false;
    qr_word word = qr_map_load(qr_op_map(op), pid);
    if (qr_word_tag(word) != QR_WORD_HEAD) return false;
    const struct qr_page *page = qr_word_block(word);
    struct quire_slice other = qr_page_low(page);
    if (page->kind != QR_PAGE_LEAF || (page->flags & QR_PAGE_STUB) != 0 || page->tree_id != op->tree->id ||
        !qr_equal(other.data, other.size, low.data, low.size))
        return false;
    *ret_spot = (struct qr_leaf_spot){pid, word, qr_view_of(word)};
    return true;
}

/* ---- The op ----------------------------------------------------------------------------------------------------- */

void qr_op_add_image(struct qr_op *op, uint64_t address, struct qr_page *page)
{
    QR_ASSERT(op->image_count < QR_OP_IMAGES);
    op->images[op->image_count++] = (struct qr_op_image){address, page};
}

void qr_op_done(struct qr_op *op)
{
    while (op->image_count > 0) qr_discard_page(op, op->images[--op->image_count].page);
    qr_free(op->dead); /* of an image that went its own way */
    op->dead = NULL;
    op->dead_count = 0;
}
