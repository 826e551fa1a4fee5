/*
 * page.c: records and bounds, shared by the builders of leaves and inner pages.
 *
 * Layer 2. Pure.
 */
#include "page/page.h"

#include "page/inner.h"

uint64_t qr_record_write(uint8_t *out, const struct qr_record_spec *spec, bool caller, unsigned align_log2)
{
    uint64_t value_offset = qr_record_value_offset(spec->key_size, caller, align_log2);
    uint64_t size = qr_record_size_for(spec->key_size, spec->value_size, caller, align_log2);
    uint32_t header = qr_record_header_size(caller);

    qr_store_u64(out, spec->lsn);
    qr_store_u32(out + 8, spec->value_size);
    qr_store_u32(out + 12, spec->key_size | (uint32_t)spec->kind << 24);
    if (caller) qr_store_u64(out + 16, spec->version);
    qr_copy(out + header, spec->key, spec->key_size);
    memset(out + header + spec->key_size, 0, value_offset - header - spec->key_size);
    qr_copy(out + value_offset, spec->value, spec->value_size);
    memset(out + value_offset + spec->value_size, 0, size - value_offset - spec->value_size);
    return size;
}

void qr_page_set_identity(struct qr_page *page, const struct qr_page_identity *identity, uint32_t fences_offset)
{
    page->level = identity->level;
    page->flags |= identity->high_infinite ? QR_PAGE_HIGH_INFINITE : 0;
    page->max_lsn = identity->max_lsn;
    page->tree_id = identity->tree_id;
    page->pid = identity->pid;
    page->right_pid = identity->right_pid;
    page->low_offset = fences_offset;
    page->low_size = (uint32_t)identity->low.size;
    page->high_offset = page->low_offset + page->low_size;
    page->high_size = identity->high_infinite ? 0 : (uint32_t)identity->high.size;
    qr_copy((uint8_t *)page + page->low_offset, identity->low.data, page->low_size);
    qr_copy((uint8_t *)page + page->high_offset, identity->high.data, page->high_size);
}

void qr_page_set_bounds(struct qr_page *page, bool has_keys, struct quire_slice first, struct quire_slice last)
{
    struct quire_slice low = qr_page_low(page);
    bool infinite = (page->flags & QR_PAGE_HIGH_INFINITE) != 0;
    struct quire_slice high = qr_page_high(page);

    page->bound_skip = infinite ? 0 : (uint32_t)qr_common_prefix(low.data, low.size, high.data, high.size);
    page->high_first = infinite ? UINT64_MAX : qr_head64(high.data, high.size, 0);
    page->high_head = infinite ? UINT64_MAX : qr_head64(high.data, high.size, page->bound_skip);
    struct quire_slice prefix = low;
    page->prefix_size = page->bound_skip;
    if (has_keys) {
        prefix = first;
        page->prefix_size = (uint32_t)qr_common_prefix(first.data, first.size, last.data, last.size);
    }
    QR_ASSERT(page->prefix_size >= page->bound_skip);
    page->prefix_mask = qr_head_mask(page->prefix_size);
    uint32_t inline_size = page->prefix_size < QR_INLINE_PREFIX ? page->prefix_size : QR_INLINE_PREFIX;
    memset(page->prefix, 0, sizeof(page->prefix));
    qr_copy(page->prefix, prefix.data, inline_size);
}

void qr_page_copy_header(struct qr_page *to, const struct qr_page *from)
{
    const size_t before = offsetof(struct qr_page, area_used);
    const size_t after = before + sizeof(to->area_used);
    memcpy(to, from, before);
    memset((uint8_t *)to + before, 0, sizeof(to->area_used));
    memcpy((uint8_t *)to + after, (const uint8_t *)from + after, offsetof(struct qr_page, image) - after);
    memset((uint8_t *)to + offsetof(struct qr_page, image), 0, sizeof(*to) - offsetof(struct qr_page, image));
}

struct qr_page_identity qr_page_identity(const struct qr_page *page)
{
    return (struct qr_page_identity){
        .pid = page->pid,
        .right_pid = page->right_pid,
        .tree_id = page->tree_id,
        .level = page->level,
        .high_infinite = (page->flags & QR_PAGE_HIGH_INFINITE) != 0,
        .low = qr_page_low(page),
        .high = qr_page_high(page),
        .max_lsn = page->max_lsn,
    };
}
