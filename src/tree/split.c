/*
 * split.c: dividing a page that has grown beyond its size.
 *
 * Layer 4. A page P covering [a, b) becomes P [a, s) and R [s, b):
 *
 *   1. R is built under a new id, whose word is PRIVATE: nobody can reach it.          stop point split.right_private
 *   2. P is replaced by its left half, with high key s and sibling link R: one CAS,
 *      the moment from which R is visible. If it fails, R is given back unseen.        split.left_installed
 *   3. R is untagged: PRIVATE to HEAD. Whoever reaches R by the link does it too.      split.untagged
 *   4. The separator s is posted to the parent. Whoever goes right by the link does it too.
 *
 * The root keeps its id: both halves get new ids, and the root is replaced by an inner page with two entries (step 2).
 *
 * SPLIT-1 Both halves inherit max_lsn and the safe version of P.
 * SPLIT-2 A split is a consolidation: what it drops it may drop by the same bounds.
 * SPLIT-3 An inner split never separates a marked entry from its left neighbour.
 */
#include "base/alloc.h"
#include "tree/internal.h"
#include "tree/policy.h"

/* Two pages built and not installed. */
struct halves {
    struct qr_page *left, *right;
    uint64_t left_pid, right_pid; /* left_pid: a new id only at the root */
};

/* tagged: the words were PRIVATE already. */
static void give_back(struct qr_op *op, struct halves *h, bool root, bool tagged)
{
    if (h->right_pid != QR_PID_NONE) qr_map_free(qr_op_map(op), h->right_pid);
    if (root && h->left_pid != QR_PID_NONE) qr_map_free(qr_op_map(op), h->left_pid);
    if (h->right != NULL) (tagged ? qr_give_back_page : qr_discard_page)(op, h->right);
    if (h->left != NULL) (tagged && root ? qr_give_back_page : qr_discard_page)(op, h->left);
}

/* Ids first, with words that are completed when the pages are built: nobody knows them yet. */
static int take_ids(struct qr_op *op, const struct qr_spot *spot, struct halves *h)
{
    bool root = spot->pid == op->tree->root;
    qr_word nothing = qr_word_number(QR_WORD_FREE, 0);
    int result = qr_map_alloc(qr_op_map(op), nothing, true, &h->right_pid);
    if (result != 0) return result;
    if (root) return qr_map_alloc(qr_op_map(op), nothing, true, &h->left_pid);
    h->left_pid = spot->pid;
    return 0;
}

static void set_private(struct qr_op *op, uint64_t pid, const struct qr_page *page)
{
    qr_word word = qr_map_load(qr_op_map(op), pid);
    bool done = qr_map_cas(qr_op_map(op), pid, &word, qr_word_make(QR_WORD_PRIVATE, page, 0, 0));
    QR_ASSERT(done);
    (void)done;
    qr_map_note_change(qr_op_map(op), pid);
}

static void untag(struct qr_op *op, uint64_t pid, const struct qr_page *page)
{
    qr_word word = qr_word_make(QR_WORD_PRIVATE, page, 0, 0);
    qr_map_cas(qr_op_map(op), pid, &word, qr_word_make(QR_WORD_HEAD, page, 0, 0)); /* a helper may have been here */
}

/* Identities of the halves, from that of the whole. */
static void divide_identity(const struct qr_page_identity *whole, struct quire_slice separator, const struct halves *h,
                            struct qr_page_identity *left, struct qr_page_identity *right)
{
    *left = *whole;
    left->pid = h->left_pid;
    left->right_pid = h->right_pid;
    left->high_infinite = false;
    left->high = separator;
    *right = *whole;
    right->pid = h->right_pid;
    right->low = separator;
}

struct quire_slice qr_shortest_separator(struct quire_slice left, struct quire_slice right)
{
    size_t size = qr_common_prefix(left.data, left.size, right.data, right.size) + 1;
    return (struct quire_slice){right.data, size < right.size ? size : right.size};
}

static int build_leaf_halves(struct qr_op *op, const struct qr_spot *spot, bool near_end, struct halves *h)
{
    struct qr_leaf_view view = qr_view_of(spot->word);
    const struct qr_page *page = spot->page;
    struct qr_page_identity whole = qr_page_identity(page);
    struct qr_page_identity left, right;
    struct qr_bounds bounds;
    struct qr_plan plan;
    struct qr_fresh_leaf fresh;
    int result;

    qr_bounds_load(op->tree, false, &bounds);
    struct qr_leaf_properties properties = {.flags = QR_PAGE_COLLECTED, /* a bound changes: rule R10 */
                                            .safe_version = qr_max(page->safe_version, bounds.safe_version),
                                            .first_lsn = qr_view_first_lsn(&view)};
    whole.max_lsn = qr_view_max_lsn(&view);
    qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
    result = qr_plan_whole_leaf(op, &plan, &view, &bounds.retention, &whole.right_pid);
    if (result != 0) goto done;
    uint64_t weight = QR_PAGE_HEADER + plan.bytes + qr_leaf_arrays_size(plan.count);
    uint32_t at = qr_plan_split_index(&plan, qr_policy_left_bytes(op->tree, weight, plan.bytes, near_end));
    result = QUIRE_NOT_FOUND;
    if (at == 0) goto done; /* one key: stays oversize */
    struct quire_slice separator = qr_shortest_separator(qr_plan_key(&plan, at - 1), qr_plan_key(&plan, at));
    divide_identity(&whole, separator, h, &left, &right);
    result = qr_leaf_from_plan(op, &plan, at, plan.count, &right, &properties, QR_AREA_FULL, &fresh);
    if (result != 0) goto done;
    h->right = fresh.page;
    /* At the growing end nobody is expected to write to the left half any more: no room for deltas. */
    result = qr_leaf_from_plan(op, &plan, 0, at, &left, &properties, near_end ? QR_AREA_NONE : QR_AREA_FULL, &fresh);
    if (result != 0) goto done;
    h->left = fresh.page;
done:
    qr_plan_done(&plan);
    return result;
}

static int build_inner_halves(struct qr_op *op, const struct qr_spot *spot, bool near_end, struct halves *h)
{
    const struct qr_page *page = spot->page;
    struct qr_page_identity whole = qr_page_identity(page);
    struct qr_page_identity left, right;
    uint32_t at = qr_inner_split_index(page, near_end);
    if (at == 0) return QUIRE_NOT_FOUND;
    struct qr_inner_entry *entries = qr_malloc(page->count * sizeof(*entries));
    if (entries == NULL) return QUIRE_ERR_NO_MEMORY;
    qr_inner_entries(page, entries);
    divide_identity(&whole, entries[at].key, h, &left, &right);
    int result = qr_inner_new(op, entries + at, page->count - at, &right, &h->right);
    if (result == 0) result = qr_inner_new(op, entries, at, &left, &h->left);
    qr_free(entries);
    return result;
}

/* Step 2 for the root: an inner page over both halves. */
static int install_root(struct qr_op *op, struct qr_spot *spot, const struct halves *h)
{
    struct qr_page_identity identity = qr_page_identity(spot->page);
    struct qr_inner_entry entries[2] = {{.child = h->left_pid},
                                        {.key = qr_page_low(h->right), .child = h->right_pid}};
    identity.level++;
    identity.max_lsn = h->right->max_lsn;
    set_private(op, h->left_pid, h->left);
    int result = qr_inner_replace(op, spot, entries, 2, &identity);
    if (result != 0) return result;
    untag(op, h->left_pid, h->left);
    return 0;
}

static int install_left(struct qr_op *op, struct qr_spot *spot, const struct halves *h)
{
    if (!qr_map_cas(qr_op_map(op), spot->pid, &spot->word, qr_word_make(QR_WORD_HEAD, h->left, 0, 0)))
        return QR_RETRY;
    if (!QR_BUG(checkpoint_changes)) qr_map_note_change(qr_op_map(op), spot->pid);
    qr_retire_page(op, spot->page);
    return 0;
}

/* Steps 1 to 3, one try. QUIRE_NOT_FOUND: it cannot be divided. *ret_right: the page whose separator is to be posted;
 * NULL: none. */
static int divide(struct qr_op *op, struct qr_spot *spot, bool near_end, const struct qr_page **ret_right)
{
    struct halves h = {.left_pid = QR_PID_NONE, .right_pid = QR_PID_NONE};
    bool root = spot->pid == op->tree->root;
    int result = take_ids(op, spot, &h);
    if (result == 0)
        result = spot->page->kind == QR_PAGE_LEAF ? build_leaf_halves(op, spot, near_end, &h)
                                                  : build_inner_halves(op, spot, near_end, &h);
    const bool built = result == 0;
    if (built) {
        set_private(op, h.right_pid, h.right);
        QR_STOP("split.right_private");
        result = root ? install_root(op, spot, &h) : install_left(op, spot, &h);
        if (result == QR_RETRY) qr_count(op, QR_COUNTER_SPLIT_CONFLICTS);
    }
    if (result != 0) {
        give_back(op, &h, root, built);
        return result;
    }
    QR_STOP("split.left_installed");
    qr_count(op, QR_COUNTER_SPLITS);
    untag(op, h.right_pid, h.right);
    QR_STOP("split.untagged");
    *ret_right = root || QR_BUG(post_separator_late) ? NULL : h.right;
    return 0;
}

/* All steps, one try. NO_MEMORY may be for want of the separator alone. QUIRE_NOT_FOUND: not to be divided, or not now. *ret_right_pid:
 * of the page on the right; NONE: it was the root. */
static int split_once(struct qr_op *op, struct qr_spot *spot, bool near_end, uint64_t *ret_right_pid)
{
    const struct qr_page *right;
    if (!qr_structure_begin(op)) return QUIRE_NOT_FOUND;
    int result = divide(op, spot, near_end, &right);
    *ret_right_pid = result == 0 && right != NULL ? right->pid : QR_PID_NONE;
    if (result == 0 && right != NULL) result = qr_post_separator(op, right);
    qr_structure_end(op);
    return result;
}

/* A consolidated leaf whose records are all of one key stays oversize. */
static bool has_one_key(const struct qr_spot *spot)
{
    const struct qr_page *page = spot->page;
    if (page->kind != QR_PAGE_LEAF || page->count == 0 || qr_word_chain(spot->word) != 0) return false;
    struct quire_slice first = qr_leaf_key(page, 0);
    struct quire_slice last = qr_leaf_key(page, page->count - 1);
    return qr_equal(first.data, first.size, last.data, last.size);
}

int qr_split_leaf(struct qr_op *op, const struct qr_spot *spot, bool near_end)
{
    struct qr_spot copy = *spot;
    const struct qr_page *right;
    if (has_one_key(spot)) return QUIRE_NOT_FOUND;
    if (!qr_structure_begin(op)) return QUIRE_NOT_FOUND;
    int result = divide(op, &copy, near_end, &right);
    if (result == 0 && right != NULL) {
        result = qr_post_separator(op, right);
        if (result == QUIRE_ERR_NO_MEMORY) result = 0; /* whoever goes right by the link has another try */
    }
    qr_structure_end(op);
    /* Large records fill more than one page at once: what is left at the growing end is divided again, or it would only grow. */
    if (result == 0 && near_end && right != NULL) (void)qr_split_if_large(op, right->pid, true);
    return result;
}

int qr_split_if_large(struct qr_op *op, uint64_t pid, bool near_end)
{
    for (;;) {
        struct qr_spot spot = {.pid = pid};
        spot.word = qr_map_load(qr_op_map(op), pid);
        if (qr_word_tag(spot.word) != QR_WORD_HEAD) return 0;
        spot.page = qr_word_block(spot.word);
        if (!qr_policy_large(op->tree, spot.page) || has_one_key(&spot)) return 0;
        uint64_t right_pid;
        int result = split_once(op, &spot, near_end, &right_pid);
        if (result != 0 && result != QR_RETRY) return result == QUIRE_NOT_FOUND ? 0 : result;
        if (result == 0 && (!near_end || right_pid == QR_PID_NONE)) return 0;
        if (result == 0) pid = right_pid; /* as in qr_split_leaf */
    }
}
