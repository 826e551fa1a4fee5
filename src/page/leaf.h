/*
 * leaf.h: deltas, and what a reader sees of a leaf.
 *
 * Layer 2. A delta is written into a part of the area that its writer has reserved, so nobody else reads or writes those
 * bytes until the delta is installed.
 */
#ifndef QR_PAGE_LEAF_H
#define QR_PAGE_LEAF_H

#include "page/page.h"

/*
 * Writes the record of a delta at `offset` bytes from the block; the place has qr_delta_size bytes. The LSN may be
 * filled in later, through the returned record.
 */
uint8_t *qr_delta_write(const struct qr_page *page, uint32_t offset, const struct qr_record_spec *spec);

/* Makes the delta at `offset` the head of the chain that `view` shows (view->chain < QR_CHAIN_MAX). May be repeated with
 * another view of the same block while the delta is not installed. */
void qr_delta_link(const struct qr_leaf_view *view, uint32_t offset, uint8_t fingerprint);

/*
 * Writes an entry for each key with a value at `version` to out, ascending; room for page->count + chain entries. The
 * entries point into the page. Returns their number. A stub shows its own records only. The value of a blob is its
 * reference, and its size has QR_ENTRY_BLOB set.
 */
#define QR_ENTRY_BLOB ((size_t)1 << 63)
uint32_t qr_leaf_entries(const struct qr_leaf_view *view, uint64_t version, struct quire_entry *out);

/* As qr_leaf_entries for a stub together with its image. out: room for the records of both. */
uint32_t qr_leaf_entries_joined(const struct qr_leaf_view *view, const struct qr_page *image, uint64_t version,
                                struct quire_entry *out);

#endif
