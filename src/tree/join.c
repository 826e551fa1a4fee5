/*
 * join.c: leaves whose base is on disk.
 *
 * Layer 4. A stub holds the newer records of a leaf; the older ones are in its image on disk. What the stub says is final
 * for a key with engine versions; for everything else stub and image are joined into a whole leaf, which is installed.
 */
#include "base/status.h"
#include "tree/internal.h"
#include "tree/policy.h"

/* The image that the op has fetched, or NULL after asking for it. */
static const struct qr_page *image_of(struct qr_op *op, const struct qr_page *stub)
{
    for (uint32_t i = 0; i < op->image_count; i++)
        if (op->images[i].address == stub->image_address) return op->images[i].page;
    op->need_pid = stub->pid;
    op->need_address = stub->image_address;
    return NULL;
}

/* Whether an image is of the leaf that the stub is of: a page leaves memory with the bounds that its entry in the parent has, and
 * keeps them while it is on disk (EVICT-1, CHECK-6). Of what comes from a file nobody knows. */
static bool is_of_stub(const struct qr_page *image, const struct qr_page *stub)
{
    struct quire_slice low = qr_page_low(image);
    struct quire_slice high = qr_page_high(image);
    struct quire_slice stub_low = qr_page_low(stub);
    struct quire_slice stub_high = qr_page_high(stub);
    bool infinite = (image->flags & QR_PAGE_HIGH_INFINITE) != 0;
    return image->kind == QR_PAGE_LEAF && image->tree_id == stub->tree_id &&
           infinite == ((stub->flags & QR_PAGE_HIGH_INFINITE) != 0) &&
           qr_equal(low.data, low.size, stub_low.data, stub_low.size) &&
           (infinite || qr_equal(high.data, high.size, stub_high.data, stub_high.size));
}

int qr_plan_whole_leaf(struct qr_op *op, struct qr_plan *plan, const struct qr_leaf_view *view,
                       const struct qr_retention *retention, uint64_t *ret_right_pid)
{
    bool planned;
    *ret_right_pid = view->page->right_pid;
    if ((view->page->flags & QR_PAGE_STUB) == 0) {
        planned = qr_plan_add_leaf(plan, view, NULL, retention);
    } else {
        const struct qr_page *image = image_of(op, view->page);
        if (image == NULL) return QR_FETCH;
        if (!is_of_stub(image, view->page))
            return qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu has other bounds than its parent says",
                           (unsigned long long)view->page->pid);
        *ret_right_pid = image->right_pid;
        planned = qr_plan_add_joined(plan, view, image, NULL, retention);
    }
    return planned ? 0 : QUIRE_ERR_NO_MEMORY;
}

int qr_join(struct qr_op *op, struct qr_spot *spot)
{
    struct qr_leaf_view view = qr_view_of(spot->word);
    const struct qr_page *stub = view.page;
    struct qr_page_identity identity = qr_page_identity(stub);
    struct qr_bounds bounds;
    struct qr_plan plan;
    struct qr_fresh_leaf fresh;

    if (qr_word_tag(spot->word) != QR_WORD_HEAD || qr_epoch_prepare(op->thread) != 0) return QUIRE_ERR_NO_MEMORY;
    qr_bounds_load(op->tree, false, &bounds);
    struct qr_leaf_properties properties = {.flags = stub->flags & QR_PAGE_COLLECTED,
                                            .safe_version = qr_max(stub->safe_version, bounds.safe_version),
                                            .image_address = stub->image_address,
                                            .first_lsn = qr_view_first_lsn(&view)};
    identity.max_lsn = qr_view_max_lsn(&view);
    qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
    int result = qr_plan_whole_leaf(op, &plan, &view, &bounds.retention, &identity.right_pid);
    bool reserve = op->use_reserve;
    op->use_reserve = true; /* a read must not fail for want of a page's memory */
    if (result == 0) result = qr_leaf_from_plan(op, &plan, 0, plan.count, &identity, &properties, QR_AREA_FULL, &fresh);
    op->use_reserve = reserve;
    qr_plan_done(&plan);
    if (result != 0) return result;
    QR_STOP("join.built");
    qr_word word = qr_word_make(QR_WORD_HEAD, fresh.page, 0, 0);
    if (!qr_map_cas(qr_op_map(op), spot->pid, &spot->word, word)) {
        qr_discard_page(op, fresh.page);
        return QR_RETRY;
    }
    qr_retire_page(op, stub);
    spot->word = word;
    spot->page = fresh.page;
    return 0;
}
