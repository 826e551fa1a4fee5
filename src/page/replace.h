/*
 * replace.h: the consolidation of a leaf whose chain only replaces values: a copy with some records exchanged.
 *
 * Layer 2. Much of what is written is an update of a record by one of the same size. Then the new leaf has the keys of the
 * old one in the same places: fingerprints, heads and bounds are copied with the rest in one go, and nothing is merged.
 * Whatever else a chain holds takes the way of plan.h; both make the same page (the tests compare them).
 *
 * REPLACE-1 Only for leaves with engine versions, one version a key and no deletions, records of one size, and a
 *           retention under which of each key the newest version alone stays.
 */
#ifndef QR_PAGE_REPLACE_H
#define QR_PAGE_REPLACE_H

#include "page/plan.h"

/* Which records of the base are exchanged, and for what. */
struct qr_replacement {
    uint32_t count;
    uint32_t dropped; /* records that are in nobody's way any more: of the base, and older ones of the chain */
    bool has_pending; /* the first one is the pending record */
    struct {
        uint32_t index;        /* in the base */
        const uint8_t *record; /* a delta's; NULL: the pending record */
    } items[QR_CHAIN_MAX + 1];
};

/* Whether chain and pending record (NULL: none) of a leaf do nothing but replace; then *ret_replacement says what. */
bool qr_leaf_replaces(const struct qr_leaf_view *view, const struct qr_record_spec *pending,
                      const struct qr_retention *retention, struct qr_replacement *ret_replacement);

/*
 * Builds the leaf into block (block_size >= page->content_bytes; what is left over becomes the delta area), with this
 * max_lsn and so on. Returns the place of the pending record, NULL without one.
 */
uint8_t *qr_leaf_replace(const struct qr_page *page, const struct qr_replacement *replacement,
                         const struct qr_record_spec *pending, uint64_t max_lsn, uint64_t max_version,
                         uint64_t first_lsn, void *block, size_t block_size);

#endif
