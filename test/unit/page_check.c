/*
 * Goal: qr_page_check passes good pages, and names each way in which a page can be wrong.
 * Method: good pages of all kinds; in each one field, array element or record is damaged, and the text is compared.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "page_oracle.h"

/* ---- Good pages ------------------------------------------------------------------------------------------------- */

static const struct quire_slice keys[] = {{"key a", 5}, {"key b", 5}, {"key b\0", 6}, {"key c", 5}};
static const struct quire_slice all_low = {"key", 3}, all_high = {"kez", 3};

/* What a page of the tests is made of: four keys, key b twice if multi. */
enum sample { UNIFORM, MIXED, CALLER, STUB, EMPTY, INNER, INNER_WIDE, SAMPLE_COUNT };

static struct qr_page *make_leaf(enum sample sample)
{
    bool mixed = sample == MIXED || sample == STUB;
    struct leaf_shape shape = {.caller = sample == CALLER,
                               .align_log2 = sample == CALLER ? 4 : 0,
                               .flags = sample == STUB ? QR_PAGE_STUB : 0,
                               .low = all_low,
                               .high = all_high,
                               .area_bytes = sample == MIXED ? 300 : 0};
    struct record_list list = {0};
    for (uint32_t i = 0; i < QR_ARRAY_COUNT(keys) && sample != EMPTY; i++) {
        if (sample == UNIFORM && i == 2)
            continue; /* a key of another size */
        struct record r = {
            .key = keys[i], .value = value_of(i, mixed ? 3 + 5 * i : 8), .lsn = 20 + i, .version = 20 + i};
        list_add(&list, &r);
        if (i == 1 && sample != UNIFORM) {
            r.kind = QR_RECORD_DELETE;
            r.lsn = r.version = 10;
            list_add(&list, &r);
        }
    }
    struct leaf leaf = leaf_build(&list, &shape);
    list_free(&list);
    return leaf.page;
}

static struct qr_page *make_inner(uint32_t count)
{
    struct qr_inner_entry *entries = calloc(count, sizeof(*entries));
    uint8_t *bytes = calloc(count, 8);
    struct qr_page_identity identity = {.pid = 5, .right_pid = 6, .tree_id = 1, .level = 1, .max_lsn = 9};
    identity.low = all_low;
    identity.high = all_high;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(bytes + (size_t)i * 8, "key ", 4);
        bytes[i * 8 + 4] = (uint8_t)(i >> 8);
        bytes[i * 8 + 5] = (uint8_t)i;
        entries[i].key = (struct quire_slice){bytes + (size_t)i * 8, 6 + i % 3};
        entries[i].child = (100 + i) | (i % 5 == 3 ? QR_CHILD_MERGING : 0);
    }
    size_t size = qr_inner_size(entries, count, &identity) + 16;
    struct qr_page *page = qr_malloc_aligned(64, size);
    cr_assert(page != NULL);
    memset(page, 0, size);
    qr_inner_build(page, size, entries, count, &identity);
    free(entries);
    free(bytes);
    return page;
}

static struct qr_page *make(enum sample sample)
{
    if (sample == INNER || sample == INNER_WIDE)
        return make_inner(sample == INNER ? 20 : 300);
    return make_leaf(sample);
}

Test(page_check, good_pages_pass)
{
    for (int sample = 0; sample < SAMPLE_COUNT; sample++) {
        struct qr_page *page = make((enum sample)sample);
        const char *wrong = qr_page_check(page);
        cr_assert(wrong == NULL, "sample %d: %s", sample, wrong == NULL ? "" : wrong);
        cr_assert(qr_page_check_bytes(page, page->block_size) == NULL);
        cr_assert(qr_page_check_bytes(page, page->block_size + 100) == NULL);
        cr_assert_str_eq(qr_page_check_bytes(page, page->block_size - 1), "block size is not that of the block");
        qr_free_aligned(page);
    }
}

/* ---- One thing wrong -------------------------------------------------------------------------------------------- */

static void expect_wrong(enum sample sample, const char *expected, void (*damage)(struct qr_page *page))
{
    struct qr_page *page = make(sample);
    damage(page);
    const char *wrong = qr_page_check(page);
    cr_expect(wrong != NULL && strcmp(wrong, expected) == 0, "sample %d: \"%s\" instead of \"%s\"", sample,
              wrong == NULL ? "nothing" : wrong, expected);
    qr_free_aligned(page);
}

/* A damage: a statement about `page`, in a function of its own. */
#define DAMAGE(name, statement)                                                                                        \
    static void damage_##name(struct qr_page *page)                                                                    \
    {                                                                                                                  \
        statement;                                                                                                     \
    }

static uint8_t *bytes_at(struct qr_page *page, uint64_t offset)
{
    return (uint8_t *)page + offset;
}

static uint8_t *record_at(struct qr_page *page, uint32_t i)
{
    return bytes_at(page, qr_leaf_record_offset(page, i));
}

static struct qr_inner_group *group_at(struct qr_page *page, uint32_t g)
{
    return (struct qr_inner_group *)(void *)bytes_at(page, page->heads_offset) + g;
}

static void exchange(uint8_t *a, uint8_t *b, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

DAMAGE(block_size, page->block_size = 100)
DAMAGE(kind, page->kind = 9)
DAMAGE(level, page->level ^= 1)
DAMAGE(flags, page->flags |= 0x80)
DAMAGE(align, page->align_log2 = 7)
DAMAGE(right, page->right_pid = 0)
DAMAGE(right_of_last, page->flags |= QR_PAGE_HIGH_INFINITE)
DAMAGE(count, page->count += 64)
DAMAGE(huge_count, page->count = UINT32_MAX)
DAMAGE(no_entries, page->count = 0)
DAMAGE(stride, page->record_stride = 1)
DAMAGE(records_offset, page->records_offset += 1)
DAMAGE(slots_offset, page->slots_offset += 4)
DAMAGE(heads_offset, page->heads_offset -= 4)
DAMAGE(low_offset, page->low_offset = 0)
DAMAGE(low_size, page->low_size++)
DAMAGE(high_size, page->high_size++)
DAMAGE(area_low, page->area_offset = 1)
DAMAGE(area_high, page->area_offset = page->block_size + 16)
DAMAGE(area_unaligned, page->area_offset += 1)
DAMAGE(area_of_inner, page->area_offset -= 16)
DAMAGE(infinite, page->flags |= QR_PAGE_HIGH_INFINITE; page->right_pid = 0; page->high_size = 0;
       page->content_bytes = page->high_offset)
DAMAGE(bounds, exchange(bytes_at(page, page->low_offset), bytes_at(page, page->high_offset), 3))
DAMAGE(bound_skip, page->bound_skip--)
DAMAGE(high_head, page->high_head++)
DAMAGE(high_first, page->high_first++)
DAMAGE(prefix_size, page->prefix_size = 0; page->bound_skip = 0)
DAMAGE(prefix_mask, page->prefix_mask ^= (uint64_t)1 << 63)
DAMAGE(prefix, page->prefix[1] = 'E')
DAMAGE(prefix_padding, page->prefix[15] = 1)
DAMAGE(max_lsn, page->max_lsn = 22)
DAMAGE(max_version, page->max_version = 22)
DAMAGE(multi, page->flags &= (uint8_t)~QR_PAGE_MULTI)
DAMAGE(multi_on_inner, page->flags |= QR_PAGE_MULTI)
DAMAGE(fingerprint, bytes_at(page, QR_PAGE_HEADER)[1] ^= 1)
DAMAGE(head, bytes_at(page, page->heads_offset)[0] ^= 1)
DAMAGE(slot, bytes_at(page, page->slots_offset)[4] ^= 1)
DAMAGE(last_slot, bytes_at(page, page->slots_offset)[4 * page->count] ^= 1)
DAMAGE(record_kind, record_at(page, 0)[15] = QR_RECORD_INTENT)
DAMAGE(record_blob, record_at(page, 0)[15] = QR_RECORD_BLOB)
DAMAGE(record_flags, record_at(page, 0)[15] |= 0x10)
DAMAGE(record_key_size, record_at(page, 0)[14] = 0xff)
DAMAGE(record_value_size, qr_store_u32(record_at(page, 0) + 8, UINT32_MAX))
DAMAGE(record_stride, record_at(page, 0)[8]++)
DAMAGE(versions, exchange(record_at(page, 1), record_at(page, 2), 8))
/* LSN and version: of equal versions the one with the higher LSN comes first. */
DAMAGE(equal_versions, (memcpy(record_at(page, 2) + 16, record_at(page, 1) + 16, 8),
                        memcpy(record_at(page, 2), record_at(page, 1), 8)))

/* Exchanges all that is said of the first two records of a uniform page. */
static void damage_order(struct qr_page *page)
{
    exchange(record_at(page, 0), record_at(page, 1), page->record_stride);
    exchange(bytes_at(page, QR_PAGE_HEADER), bytes_at(page, QR_PAGE_HEADER + 1), 1);
    exchange(bytes_at(page, page->heads_offset), bytes_at(page, page->heads_offset + 4), 4);
}

/* Gives record 0 of a uniform page a key below the low key, and all that follows from it. */
static void damage_key_low(struct qr_page *page)
{
    uint8_t *key = record_at(page, 0) + QR_RECORD_HEADER;
    key[0] = 'a';
    bytes_at(page, QR_PAGE_HEADER)[0] = qr_key_make(key, 5).fingerprint;
}

/* Moves the fences up by a byte; the block has room for it. */
static void damage_hole(struct qr_page *page)
{
    memmove(bytes_at(page, page->low_offset + 1), bytes_at(page, page->low_offset), page->low_size + page->high_size);
    page->low_offset++;
    page->high_offset++;
    page->content_bytes++;
    page->area_offset = page->block_size;
}

DAMAGE(child, group_at(page, 0)->children[2] = 0)
DAMAGE(marked_first, group_at(page, 0)->children[0] |= QR_CHILD_MERGING)
DAMAGE(marked_neighbours, group_at(page, 0)->children[4] |= QR_CHILD_MERGING)
DAMAGE(inner_head, group_at(page, 0)->heads[5]++)
DAMAGE(first_head, group_at(page, 0)->heads[0] = 1)
DAMAGE(hint, qr_store_u32(bytes_at(page, QR_PAGE_HEADER + 4), 0))
DAMAGE(hint_padding, qr_store_u32(bytes_at(page, QR_PAGE_HEADER + 8), 0))
DAMAGE(head_padding, group_at(page, 1)->heads[4] = 0)
DAMAGE(first_key, qr_store_u32(bytes_at(page, page->records_offset), 4))
DAMAGE(key_size, qr_store_u32(bytes_at(page, page->records_offset + 4), 0x10000))
DAMAGE(inner_key, bytes_at(page, qr_page_slots(page)[3])[5] = 'E')

static void damage_inner_order(struct qr_page *page)
{
    exchange(bytes_at(page, qr_page_slots(page)[1]) + 4, bytes_at(page, qr_page_slots(page)[4]) + 4, 6);
    exchange((uint8_t *)&group_at(page, 0)->heads[1], (uint8_t *)&group_at(page, 0)->heads[4], 4);
}

Test(page_check, a_block_without_room_for_a_header_is_refused)
{
    uint8_t *bytes = qr_malloc_aligned(64, 100);
    cr_assert(bytes != NULL);
    memset(bytes, 1, 100);
    cr_assert(qr_page_check_bytes(bytes, 100) != NULL);
    cr_assert(qr_page_check_bytes(bytes, 0) != NULL);
    cr_assert(qr_page_check_bytes(bytes + 1, 99) != NULL);
    qr_free_aligned(bytes);
}

Test(page_check, header_and_layout)
{
    expect_wrong(MIXED, "block is smaller than a header", damage_block_size);
    expect_wrong(MIXED, "unknown kind of page", damage_kind);
    expect_wrong(MIXED, "kind and level disagree", damage_level);
    expect_wrong(INNER, "kind and level disagree", damage_level);
    expect_wrong(MIXED, "unknown flags", damage_flags);
    expect_wrong(INNER, "unknown flags", damage_multi_on_inner);
    expect_wrong(MIXED, "alignment of values out of range", damage_align);
    expect_wrong(MIXED, "right page and high key disagree", damage_right);
    expect_wrong(MIXED, "right page and high key disagree", damage_right_of_last);
    expect_wrong(MIXED, "slots do not follow the fingerprints", damage_count);
    expect_wrong(UNIFORM, "slots do not follow the fingerprints", damage_huge_count);
    expect_wrong(INNER, "groups do not follow the hints", damage_huge_count);
    expect_wrong(INNER, "inner page without entries", damage_no_entries);
    expect_wrong(INNER, "inner page with a stride", damage_stride);
    expect_wrong(MIXED, "heads do not follow the slots", damage_stride);
    expect_wrong(MIXED, "records do not follow the heads", damage_records_offset);
    expect_wrong(MIXED, "slots do not follow the fingerprints", damage_slots_offset);
    expect_wrong(MIXED, "heads do not follow the slots", damage_heads_offset);
    expect_wrong(INNER, "groups do not follow the hints", damage_heads_offset);
    expect_wrong(INNER, "slots do not follow the groups", damage_slots_offset);
    expect_wrong(INNER, "keys do not follow the slots", damage_records_offset);
    expect_wrong(MIXED, "fences lie before the records", damage_low_offset);
    expect_wrong(MIXED, "high key does not follow the low key", damage_low_size);
    expect_wrong(MIXED, "content does not end with the fences", damage_high_size);
    expect_wrong(MIXED, "area is not between content and end of the block", damage_area_low);
    expect_wrong(MIXED, "area is not between content and end of the block", damage_area_high);
    expect_wrong(MIXED, "delta area is not aligned", damage_area_unaligned);
    expect_wrong(INNER, "a delta area where there may be none", damage_area_of_inner);
    expect_wrong(EMPTY, "slots do not follow the fingerprints", damage_count);
}

Test(page_check, bounds_and_prefix)
{
    expect_wrong(MIXED, "infinite bound has a prefix or a head", damage_infinite);
    expect_wrong(INNER, "infinite bound has a prefix or a head", damage_infinite);
    expect_wrong(MIXED, "low key is not below the high key", damage_bounds);
    expect_wrong(EMPTY, "bound_skip is not what the bounds share", damage_bound_skip);
    expect_wrong(INNER, "head of the high key is wrong", damage_high_head);
    expect_wrong(INNER, "first bytes of the high key are wrong", damage_high_first);
    expect_wrong(MIXED, "first bytes of the high key are wrong", damage_high_first);
    expect_wrong(EMPTY, "bound_skip is not what the bounds share", damage_prefix_size);
    expect_wrong(INNER, "prefix_mask is not that of prefix_size", damage_prefix_mask);
    expect_wrong(UNIFORM, "prefix_mask is not that of prefix_size", damage_prefix_mask);
    expect_wrong(UNIFORM, "bytes of the prefix are wrong", damage_prefix);
    expect_wrong(EMPTY, "bytes of the prefix are wrong", damage_prefix);
    expect_wrong(INNER, "bytes of the prefix are wrong", damage_prefix);
    expect_wrong(INNER, "bytes of the prefix are wrong", damage_prefix_padding);
}

Test(page_check, records)
{
    expect_wrong(UNIFORM, "max_lsn is below a record's LSN", damage_max_lsn);
    expect_wrong(UNIFORM, "max_version is below a record's version", damage_max_version);
    expect_wrong(MIXED, "a deletion in a page that says it has none", damage_multi);
    expect_wrong(UNIFORM, "fingerprint is not the key's", damage_fingerprint);
    expect_wrong(UNIFORM, "head is not the key's", damage_head);
    expect_wrong(MIXED, "slot is not where its record begins", damage_slot);
    expect_wrong(MIXED, "last slot is not the end of the records", damage_last_slot);
    expect_wrong(EMPTY, "last slot is not the end of the records", damage_last_slot);
    expect_wrong(UNIFORM, "a record of a kind that pages do not hold", damage_record_kind);
    expect_wrong(UNIFORM, "a blob reference that is none, or in a page that says it has none", damage_record_blob);
    expect_wrong(UNIFORM, "a record with unknown flags", damage_record_flags);
    expect_wrong(MIXED, "a record reaches beyond the records", damage_record_key_size);
    expect_wrong(CALLER, "a record reaches beyond the records", damage_record_value_size);
    expect_wrong(UNIFORM, "a record's size is not the stride", damage_record_stride);
    expect_wrong(MIXED, "versions of a key are not newest first", damage_versions);
    expect_wrong(CALLER, "versions of a key are not newest first", damage_equal_versions);
    expect_wrong(UNIFORM, "keys are not in order", damage_order);
    expect_wrong(UNIFORM, "a key outside the bounds", damage_key_low);
    expect_wrong(MIXED, "a hole after the records", damage_hole);
}

Test(page_check, entries_of_inner_pages)
{
    expect_wrong(INNER, "an entry without child", damage_child);
    expect_wrong(INNER, "entry 0 is marked (INNER-1)", damage_marked_first);
    expect_wrong(INNER, "two neighbours are marked (INNER-2)", damage_marked_neighbours);
    expect_wrong(INNER, "head is not the key's", damage_inner_head);
    expect_wrong(INNER, "head is not the key's", damage_first_head);
    expect_wrong(INNER, "hint is not its group's first head", damage_hint);
    expect_wrong(INNER, "padding of the hints is wrong", damage_hint_padding);
    expect_wrong(INNER, "padding of the last group is wrong", damage_head_padding);
    expect_wrong(INNER, "entry 0 has a key of its own", damage_first_key);
    expect_wrong(INNER, "a key reaches beyond the keys", damage_key_size);
    expect_wrong(INNER, "slot is not where its key begins", damage_slot);
    expect_wrong(INNER, "a key outside the bounds", damage_inner_key);
    expect_wrong(INNER, "keys are not in order", damage_inner_order);
    expect_wrong(INNER, "a hole after the keys", damage_hole);
}
