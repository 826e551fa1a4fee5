/*
 * replace.c: see replace.h.
 *
 * Layer 2. Pure.
 */
#include "page/replace.h"

#include "page/search.h"

/* Index of the base's record for a key; UINT32_MAX if there is none. */
static uint32_t base_index(const struct qr_page *page, const struct qr_key *key)
{
    const struct qr_leaf_view base = {.page = page};
    const uint8_t *record = qr_leaf_find(&base, key, UINT64_MAX);
    if (record == NULL) return UINT32_MAX;
    return ((uint32_t)(record - qr_page_bytes(page)) - page->records_offset) / page->record_stride;
}

/* Adds one, newest first: an older one for the same record is dropped with that. */
static bool add(struct qr_replacement *r, const struct qr_page *page, const struct qr_key *key, const uint8_t *record)
{
    uint32_t index = base_index(page, key);
    if (index == UINT32_MAX) return false;
    r->dropped++;
    for (uint32_t i = 0; i < r->count; i++)
        if (r->items[i].index == index) return true;
    r->items[r->count].index = index;
    r->items[r->count++].record = record;
    return true;
}

bool qr_leaf_replaces(const struct qr_leaf_view *view, const struct qr_record_spec *pending,
                      const struct qr_retention *retention, struct qr_replacement *ret_replacement)
{
    const struct qr_page *page = view->page;
    const uint32_t stride = page->record_stride;
    struct qr_replacement *r = ret_replacement;

    if (stride == 0 || (page->flags & (QR_PAGE_CALLER | QR_PAGE_MULTI | QR_PAGE_STUB | QR_PAGE_BLOBS)) != 0) return false;
    if (retention->count != 1 || retention->keep_below != 0) return false;
    if (retention->bounds[0] < (pending != NULL ? UINT64_MAX : qr_view_max_version(view))) return false;
    r->count = 0;
    r->dropped = 0;
    r->has_pending = pending != NULL;
    if (pending != NULL) {
        struct qr_key key = qr_key_ordered(pending->key, pending->key_size);
        key.fingerprint = pending->fingerprint;
        if (pending->kind != QR_RECORD_PUT ||
            qr_record_size_for(pending->key_size, pending->value_size, false, page->align_log2) != stride ||
            !add(r, page, &key, NULL))
            return false;
    }
    if (view->chain == 0) return true;
    const struct qr_delta *head = qr_view_head(view);
    for (uint32_t i = view->chain; i-- > 0;) {
        const uint8_t *record = qr_delta_record(page, head->offsets[i]);
        struct qr_key key = qr_key_ordered(qr_record_key(record, false), qr_record_key_size(record));
        key.fingerprint = head->fingerprints[i];
        if (qr_record_kind(record) != QR_RECORD_PUT || qr_record_size(record, false, page->align_log2) != stride ||
            !add(r, page, &key, record))
            return false;
    }
    return true;
}

uint8_t *qr_leaf_replace(const struct qr_page *page, const struct qr_replacement *replacement,
                         const struct qr_record_spec *pending, uint64_t max_lsn, uint64_t max_version,
                         uint64_t first_lsn, void *block, size_t block_size)
{
    struct qr_page *fresh = block;
    uint8_t *bytes = block;
    uint8_t *pending_record = NULL;
    uint64_t area = qr_round_up(page->content_bytes, qr_max(QR_DELTA_UNIT, (uint64_t)1 << page->align_log2));

    QR_ASSERT(block_size >= page->content_bytes);
    /* All but the header in one go; that of the old page has an atomic field, which writers may be counting up. */
    memcpy(bytes + QR_PAGE_HEADER, qr_page_bytes(page) + QR_PAGE_HEADER, page->content_bytes - QR_PAGE_HEADER);
    qr_page_copy_header(fresh, page);
    fresh->block_size = (uint32_t)block_size;
    fresh->area_offset = block_size > QR_AREA_END_MAX || area > block_size ? (uint32_t)block_size : (uint32_t)area;
    fresh->max_lsn = max_lsn;
    fresh->max_version = max_version;
    fresh->first_lsn = first_lsn;
    if (replacement->dropped != 0) fresh->flags |= QR_PAGE_COLLECTED;
    for (uint32_t i = 0; i < replacement->count; i++) {
        uint8_t *to = bytes + page->records_offset + (size_t)replacement->items[i].index * page->record_stride;
        if (replacement->items[i].record != NULL) {
            memcpy(to, replacement->items[i].record, page->record_stride);
        } else {
            qr_record_write(to, pending, false, page->align_log2);
            pending_record = to;
        }
    }
    return pending_record;
}
