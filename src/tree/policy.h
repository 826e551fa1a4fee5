/*
 * policy.h: when to consolidate, split and merge, and how much room a page gets.
 *
 * Layer 4. Mechanism is elsewhere; every threshold of the tree is here.
 */
#ifndef QR_TREE_POLICY_H
#define QR_TREE_POLICY_H

#include "tree/tree.h"

static inline uint32_t qr_policy_page_size(const struct qr_tree *tree, const struct qr_page *page)
{
    return page->kind == QR_PAGE_LEAF ? qr_tree_leaf_page_size(&tree->settings)
                                      : qr_tree_inner_page_size(&tree->settings);
}

/* What counts of a page: an inner page's groups of 16 places count by the places in use. */
static inline uint64_t qr_policy_weight(const struct qr_page *page)
{
    if (page->kind == QR_PAGE_LEAF) return page->content_bytes;
    return page->content_bytes - (page->slots_offset - QR_PAGE_HEADER) + (uint64_t)page->count * 12;
}

/* Entries that an inner page may have whatever their size: the tree must branch, with the longest keys too. */
#define QR_POLICY_BRANCHES 8u

static inline bool qr_policy_large(const struct qr_tree *tree, const struct qr_page *page)
{
    if (page->kind == QR_PAGE_INNER && page->count <= QR_POLICY_BRANCHES) return false;
    return qr_policy_weight(page) > qr_policy_page_size(tree, page);
}

/* Underfull: below a quarter, so that a page that was just split is far from it. */
static inline bool qr_policy_small(const struct qr_tree *tree, const struct qr_page *page)
{
    if (page->kind == QR_PAGE_INNER && page->count <= QR_POLICY_BRANCHES / 4) return true;
    return qr_policy_weight(page) - QR_PAGE_HEADER < (qr_policy_page_size(tree, page) - QR_PAGE_HEADER) / 4;
}

/* Whether two neighbours may become one page: it must not split again at once. */
static inline bool qr_policy_fit(const struct qr_tree *tree, const struct qr_page *left, const struct qr_page *right)
{
    uint64_t size = qr_policy_page_size(tree, left);
    if (left->kind == QR_PAGE_INNER && left->count + right->count <= QR_POLICY_BRANCHES) return true;
    return qr_policy_weight(left) + qr_policy_weight(right) - QR_PAGE_HEADER <= size - size / 4;
}

/* Of `bytes` of records in a large leaf, which with its chain weighs so much, those for the left half of its split: half of them; at
 * the growing end as many as make the left page nearly full, but not large. */
static inline uint64_t qr_policy_left_bytes(const struct qr_tree *tree, uint64_t weight, uint64_t bytes, bool near_end)
{
    uint64_t size = qr_tree_leaf_page_size(&tree->settings);
    if (!near_end) return bytes / 2;
    return qr_min(bytes - bytes / 16, bytes * (size - size / 16) / qr_max(weight, 1));
}

/* Bytes of delta area for a leaf: room for a full chain of average records. */
static inline uint64_t qr_policy_area(const struct qr_tree *tree, uint64_t record_bytes, uint32_t records)
{
    uint64_t average = records == 0 ? 64 : record_bytes / records;
    if (average > qr_tree_leaf_page_size(&tree->settings) / 4) return 0; /* few large records: consolidate each time */
    return tree->settings.chain_limit * qr_delta_size(average, tree->settings.align_log2);
}

/* The same for who may use the memory reserve, while the limit is exceeded: the reserve is for the records. Deletions,
 * which are small, still find room for some. */
static inline uint64_t qr_policy_area_at_limit(uint64_t area)
{
    return area / 4;
}

#endif
