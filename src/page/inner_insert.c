/*
 * inner_insert.c: an inner page with one entry more, by copying.
 *
 * Layer 2. Read inner.h first. Each split of a child adds an entry to its parent, so that is what inner pages are built for most.
 * As long as the new key shares with the others what they share, every head stays what it is: arrays are copied in two parts, and
 * the entries behind the new one move on by one place. inner.c makes the same page, byte for byte, from a list of entries.
 */
#include "page/inner.h"

#define MOST_BYTES ((uint64_t)64 << 20) /* what is larger came from a disk as it is: the long way deals with it */

static struct qr_inner_layout lay_out(const struct qr_page *page, size_t key_size)
{
    return qr_inner_lay_out(page->count + 1, (uint64_t)(page->low_offset - page->records_offset) + 4 + key_size,
                            page->content_bytes - page->low_offset);
}

bool qr_inner_may_insert(const struct qr_page *page, struct quire_slice key)
{
    if (page->count < 3 || lay_out(page, key.size).end > MOST_BYTES) return false;
    struct quire_slice other = qr_inner_key(page, 1);
    return qr_common_prefix(key.data, key.size, other.data, other.size) >= page->prefix_size;
}

size_t qr_inner_insert_size(const struct qr_page *page, struct quire_slice key)
{
    return lay_out(page, key.size).end;
}

/* Some places of a group, to places of another one. */
static void copy_places(struct qr_inner_group *to, uint32_t to_first, const struct qr_inner_group *from, uint32_t first,
                        uint32_t count)
{
    memcpy(to->heads + to_first, from->heads + first, count * sizeof(to->heads[0]));
    memcpy(to->children + to_first, from->children + first, count * sizeof(to->children[0]));
    for (uint32_t i = 0; i < count; i++) {
        struct qr_inner_place place = {.group = from, .inside = first + i};
        atomic_init(&to->whereabouts[to_first + i], qr_inner_place_whereabouts(place)); /* others change it meanwhile */
    }
}

static void set_place(struct qr_inner_group *group, uint32_t inside, uint32_t head, uint64_t child)
{
    group->heads[inside] = head;
    group->children[inside] = child;
    atomic_init(&group->whereabouts[inside], 0);
}

/* Group g of the new page, whose entry `index` is the new one; places in use: all, or up to the last entry. */
static void write_group(const struct qr_page *page, struct qr_inner_group *groups, uint32_t g, uint32_t index, uint32_t head,
                        uint64_t child)
{
    const struct qr_inner_group *old = qr_inner_group(page, 0);
    const uint32_t first = g * QR_GROUP;
    const uint32_t used = (uint32_t)qr_min(page->count + 1 - first, QR_GROUP);
    struct qr_inner_group *group = &groups[g];
    if (first + used <= index) {
        copy_places(group, 0, &old[g], 0, used);
    } else if (first > index) {
        copy_places(group, 0, &old[g - 1], QR_GROUP - 1, 1);
        copy_places(group, 1, &old[g], 0, used - 1);
    } else {
        copy_places(group, 0, &old[g], 0, index - first);
        set_place(group, index - first, head, child);
        copy_places(group, index - first + 1, &old[g], index - first, used - (index - first) - 1);
    }
    for (uint32_t i = used; i < QR_GROUP; i++) set_place(group, i, UINT32_MAX, UINT64_MAX);
}

static void write_keys(uint8_t *bytes, const struct qr_inner_layout *at, const struct qr_page *page, uint32_t index, struct quire_slice key)
{
    const uint32_t *old = qr_page_slots(page);
    uint32_t *slots = (uint32_t *)(void *)(bytes + at->slots);
    const uint32_t cut = index == page->count ? page->low_offset : old[index];
    const uint32_t moved = (uint32_t)at->keys - page->records_offset;
    const uint32_t more = 4 + (uint32_t)key.size;
    for (uint32_t i = 0; i < index; i++) slots[i] = old[i] + moved;
    slots[index] = cut + moved;
    for (uint32_t i = index; i < page->count; i++) slots[i + 1] = old[i] + moved + more;
    memcpy(bytes + at->keys, qr_page_bytes(page) + page->records_offset, cut - page->records_offset);
    qr_store_u32(bytes + cut + moved, (uint32_t)key.size);
    qr_copy(bytes + cut + moved + 4, key.data, key.size);
    memcpy(bytes + cut + moved + more, qr_page_bytes(page) + cut, page->content_bytes - cut); /* the fences too */
}

void qr_inner_insert(const struct qr_page *page, uint32_t index, struct quire_slice key, uint64_t child, void *block,
                     size_t block_size)
{
    const struct qr_inner_layout at = lay_out(page, key.size);
    struct qr_page *fresh = block;
    uint8_t *bytes = block;
    struct qr_inner_group *groups = (struct qr_inner_group *)(void *)(bytes + at.groups);
    uint32_t *hints = (uint32_t *)(void *)(bytes + QR_PAGE_HEADER);
    const uint32_t head = qr_head32(key.data, key.size, page->prefix_size);

    QR_ASSERT(index >= 1 && index <= page->count && at.end <= block_size);
    qr_page_copy_header(fresh, page);
    fresh->block_size = (uint32_t)block_size;
    fresh->area_offset = (uint32_t)block_size;
    fresh->count = page->count + 1;
    fresh->heads_offset = (uint32_t)at.groups;
    fresh->slots_offset = (uint32_t)at.slots;
    fresh->records_offset = (uint32_t)at.keys;
    fresh->low_offset = (uint32_t)at.fences;
    fresh->high_offset = (uint32_t)at.fences + page->low_size;
    fresh->content_bytes = (uint32_t)at.end;
    /* What only leaves have is 0, whatever a page from a disk says. */
    fresh->align_log2 = 0;
    fresh->max_version = fresh->safe_version = 0;
    fresh->first_lsn = fresh->image_address = 0;
    fresh->reserved = 0;
    memset(hints, 0xff, at.groups - QR_PAGE_HEADER);
    for (uint32_t g = 0; g * QR_GROUP < fresh->count; g++) {
        write_group(page, groups, g, index, head, child);
        hints[g] = groups[g].heads[0];
    }
    write_keys(bytes, &at, page, index, key);
    /* Its left neighbour is what it was split from, and has moved as well. */
    atomic_init(&groups[(index - 1) / QR_GROUP].whereabouts[(index - 1) % QR_GROUP], 0);
}
