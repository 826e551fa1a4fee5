/*
 * inner.c: building inner pages.
 *
 * Layer 2. Read inner.h first.
 */
#include "page/inner.h"

static struct qr_inner_layout lay_out(const struct qr_inner_entry *entries, uint32_t count,
                                      const struct qr_page_identity *identity)
{
    uint64_t key_bytes = 4; /* entry 0: an empty key */
    for (uint32_t i = 1; i < count; i++) key_bytes += 4 + entries[i].key.size;
    return qr_inner_lay_out(count, key_bytes, identity->low.size + (identity->high_infinite ? 0 : identity->high.size));
}

size_t qr_inner_size(const struct qr_inner_entry *entries, uint32_t count, const struct qr_page_identity *identity)
{
    return lay_out(entries, count, identity).end;
}

/* Whereabouts for heads that begin `to` bytes into a key instead of `from`: the head grows 256 times as fast for each. */
static uint64_t where_shifted(uint64_t whereabouts, uint32_t from, uint32_t to)
{
    if (whereabouts == 0) return 0;
    int64_t exponent = (int64_t)(whereabouts >> QR_WHERE_EXPONENT_SHIFT) + 8 * ((int64_t)to - from);
    if (exponent < 0 || exponent > 31) return (uint32_t)whereabouts;
    return (whereabouts & (UINT64_MAX >> 5)) | (uint64_t)exponent << QR_WHERE_EXPONENT_SHIFT;
}

static void write_entries(struct qr_page *page, const struct qr_inner_layout *at, const struct qr_inner_entry *entries)
{
    uint8_t *bytes = (uint8_t *)page;
    struct qr_inner_group *groups = (struct qr_inner_group *)(void *)(bytes + at->groups);
    uint32_t *hints = (uint32_t *)(void *)(bytes + QR_PAGE_HEADER);
    uint32_t *slots = (uint32_t *)(void *)(bytes + at->slots);
    uint32_t group_count = (page->count + QR_GROUP - 1) / QR_GROUP;
    uint64_t offset = at->keys;

    memset(hints, 0xff, at->groups - QR_PAGE_HEADER);
    memset(&groups[group_count - 1], 0, sizeof(groups[0]));
    memset(groups[group_count - 1].heads, 0xff, sizeof(groups[0].heads));
    memset(groups[group_count - 1].children, 0xff, sizeof(groups[0].children));
    for (uint32_t i = 0; i < page->count; i++) {
        struct quire_slice key = i == 0 ? (struct quire_slice){0} : entries[i].key;
        uint32_t head = i == 0 ? 0 : qr_head32(key.data, key.size, page->prefix_size);
        groups[i / QR_GROUP].heads[i % QR_GROUP] = head;
        groups[i / QR_GROUP].children[i % QR_GROUP] = entries[i].child;
        atomic_init(&groups[i / QR_GROUP].whereabouts[i % QR_GROUP],
                    where_shifted(entries[i].whereabouts, entries[i].prefix_size, page->prefix_size));
        if (i % QR_GROUP == 0) hints[i / QR_GROUP] = head;
        slots[i] = (uint32_t)offset;
        qr_store_u32(bytes + offset, (uint32_t)key.size);
        qr_copy(bytes + offset + 4, key.data, key.size);
        offset += 4 + key.size;
    }
    QR_ASSERT(offset == at->fences);
}

void qr_inner_build(void *block, size_t block_size, const struct qr_inner_entry *entries, uint32_t count,
                    const struct qr_page_identity *identity)
{
    struct qr_page *page = block;
    struct qr_inner_layout at = lay_out(entries, count, identity);

    QR_ASSERT(count >= 1 && at.end <= block_size);
    memset(page, 0, sizeof(*page));
    page->block_size = (uint32_t)block_size;
    page->kind = QR_PAGE_INNER;
    page->count = count;
    page->heads_offset = (uint32_t)at.groups;
    page->slots_offset = (uint32_t)at.slots;
    page->records_offset = (uint32_t)at.keys;
    page->area_offset = (uint32_t)block_size;
    qr_page_set_identity(page, identity, (uint32_t)at.fences);
    page->content_bytes = (uint32_t)at.end;
    if (count > 1)
        qr_page_set_bounds(page, true, entries[1].key, entries[count - 1].key);
    else
        qr_page_set_bounds(page, false, (struct quire_slice){0}, (struct quire_slice){0});
    write_entries(page, &at, entries);
}

void qr_inner_entries(const struct qr_page *page, struct qr_inner_entry *ret_entries)
{
    for (uint32_t i = 0; i < page->count; i++)
        ret_entries[i] = (struct qr_inner_entry){qr_inner_key(page, i), qr_inner_child_word(page, i),
                                                 qr_inner_whereabouts(page, i), page->prefix_size};
}

/* ---- Whereabouts ------------------------------------------------------------------------------------------------ */

/* Head of record i's key, as entries of an inner page with this prefix have it. */
static uint32_t record_head(const struct qr_page *leaf, uint32_t i, uint32_t prefix_size)
{
    struct quire_slice key = qr_leaf_key(leaf, i);
    return qr_head32(key.data, key.size, prefix_size);
}

/* bytes / span as mantissa and exponent in their places; 0 if out of range. */
static uint64_t slope_of(uint64_t bytes, uint32_t span)
{
    uint64_t scaled = (bytes << 31) / span;
    if (scaled < 1024) return 0;
    unsigned top = 63 - (unsigned)__builtin_clzll(scaled);
    if (top - 10 > 31) return 0;
    return scaled >> (top - 10) << QR_WHERE_SLOPE_SHIFT | (uint64_t)(31 - (top - 10)) << QR_WHERE_EXPONENT_SHIFT;
}

uint64_t qr_inner_fit(const struct qr_page *page, uint32_t i, const struct qr_page *child)
{
    if (child->kind != QR_PAGE_LEAF || child->record_stride == 0 || child->count < 4) return 0;
    if ((child->flags & QR_PAGE_MULTI) != 0) return 0;
    const uint32_t prefix_size = page->prefix_size;
    const uint32_t last = child->count - 1;
    uint32_t own = qr_inner_group(page, i / QR_GROUP)->heads[i % QR_GROUP];
    uint32_t low = record_head(child, 0, prefix_size);
    uint32_t high = record_head(child, last, prefix_size);
    if (low < own || high <= low) return 0;

    uint64_t fit = slope_of((uint64_t)last * child->record_stride, high - low);
    uint64_t before = qr_where_record_offset(fit, low - own);
    if (fit == 0 || before > child->records_offset) return 0;
    fit |= (child->records_offset - before) / 4 << QR_WHERE_FIRST_SHIFT;
    for (uint32_t quarter = 0; quarter <= 4; quarter++) {
        uint32_t at = last * quarter / 4;
        uint64_t guess = qr_where_record_offset(fit, record_head(child, at, prefix_size) - own);
        uint64_t offset = qr_leaf_record_offset(child, at);
        if (guess + 64 < offset || guess > offset + 64) return 0;
    }
    return fit;
}

uint32_t qr_inner_split_index(const struct qr_page *page, bool at_end)
{
    if (page->count < 2) return 0;
    uint32_t middle = at_end ? page->count - 1 - page->count / 16 : page->count / 2;
    if (middle == 0) middle = 1;
    for (uint32_t i = middle; i < page->count; i++)
        if (!qr_inner_merging(page, i)) return i;
    for (uint32_t i = middle; i-- > 1;)
        if (!qr_inner_merging(page, i)) return i;
    return 0;
}
