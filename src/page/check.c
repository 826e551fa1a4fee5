/*
 * check.c: verifying a page against everything that page.h and inner.h say of it.
 *
 * Layer 2. Nothing in the bytes is believed before it has been compared with the size of the block, so a block from a
 * damaged disk gets an answer and no wild read. The order of the steps is what makes that true:
 *
 * CHECK-1  Header and layout come first: after them every array and every fence lies inside the block.
 * CHECK-2  Records and keys are walked from their start, each by the size that it claims, cut at their common end; an
 *          offset that is stored is compared with the walk, never followed.
 * CHECK-3  What depends on other records (order, prefix, bounds) comes after the walk has been over them.
 *
 * Pure; any number of threads, beside writers that reserve room in the area (`area_used` is not looked at).
 */
#include "base/hash.h"
#include "page/blob.h"
#include "page/inner.h"

#define ALIGN_LOG2_MAX 6u

/* ---- Header and layout ------------------------------------------------------------------------------------------ */

static const char *check_header(const struct qr_page *page, size_t size)
{
    const unsigned leaf_flags =
        QR_PAGE_HIGH_INFINITE | QR_PAGE_CALLER | QR_PAGE_MULTI | QR_PAGE_STUB | QR_PAGE_COLLECTED | QR_PAGE_BLOBS;

    if (page->block_size < QR_PAGE_HEADER || page->block_size > size)
        return "block size is not that of the block";
    if (page->kind != QR_PAGE_LEAF && page->kind != QR_PAGE_INNER)
        return "unknown kind of page";
    if ((page->kind == QR_PAGE_LEAF) != (page->level == 0))
        return "kind and level disagree";
    if ((page->flags & ~(page->kind == QR_PAGE_LEAF ? leaf_flags : QR_PAGE_HIGH_INFINITE)) != 0)
        return "unknown flags";
    if (page->align_log2 > ALIGN_LOG2_MAX)
        return "alignment of values out of range";
    if ((page->right_pid == 0) != ((page->flags & QR_PAGE_HIGH_INFINITE) != 0))
        return "right page and high key disagree";
    return NULL;
}

/* From the end of the records on: fences, content, area. */
static const char *check_tail(const struct qr_page *page)
{
    bool infinite = (page->flags & QR_PAGE_HIGH_INFINITE) != 0;
    uint64_t unit = qr_max(QR_DELTA_UNIT, (uint64_t)1 << page->align_log2);

    if (page->low_offset < page->records_offset)
        return "fences lie before the records";
    if (page->high_offset != (uint64_t)page->low_offset + page->low_size)
        return "high key does not follow the low key";
    if (infinite && page->high_size != 0)
        return "infinite high key has a size";
    if (page->content_bytes != (uint64_t)page->high_offset + page->high_size)
        return "content does not end with the fences";
    if (page->content_bytes > page->area_offset || page->area_offset > page->block_size)
        return "area is not between content and end of the block";
    if (page->area_offset == page->block_size)
        return NULL;
    if (page->kind != QR_PAGE_LEAF || page->block_size > QR_AREA_END_MAX)
        return "a delta area where there may be none";
    return page->area_offset % unit != 0 ? "delta area is not aligned" : NULL;
}

static const char *check_leaf_layout(const struct qr_page *page)
{
    uint64_t count = page->count;
    uint64_t align = qr_max(sizeof(uint32_t), (uint64_t)1 << page->align_log2);
    uint64_t slots = QR_PAGE_HEADER + qr_round_up(count, 64);
    uint64_t heads = slots + (page->record_stride == 0 ? sizeof(uint32_t) * (count + 1) : 0);
    uint64_t records = qr_round_up(heads + sizeof(uint32_t) * count, align);

    if (page->slots_offset != slots)
        return "slots do not follow the fingerprints";
    if (page->heads_offset != heads)
        return "heads do not follow the slots";
    if (page->records_offset != records)
        return "records do not follow the heads";
    return check_tail(page);
}

static const char *check_inner_layout(const struct qr_page *page)
{
    uint64_t groups = ((uint64_t)page->count + QR_GROUP - 1) / QR_GROUP;
    uint64_t groups_at = QR_PAGE_HEADER + qr_round_up(groups * sizeof(uint32_t), 64);
    uint64_t slots = groups_at + groups * sizeof(struct qr_inner_group);

    if (page->count == 0)
        return "inner page without entries";
    if (page->record_stride != 0)
        return "inner page with a stride";
    if (page->heads_offset != groups_at)
        return "groups do not follow the hints";
    if (page->slots_offset != slots)
        return "slots do not follow the groups";
    if (page->records_offset != slots + sizeof(uint32_t) * (uint64_t)page->count)
        return "keys do not follow the slots";
    return check_tail(page);
}

/* ---- Bounds and prefix ------------------------------------------------------------------------------------------ */

/* The low key, the high key and what was derived from them. */
static const char *check_bounds(const struct qr_page *page)
{
    struct quire_slice low = qr_page_low(page);
    struct quire_slice high = qr_page_high(page);

    if ((page->flags & QR_PAGE_HIGH_INFINITE) != 0) {
        if (page->bound_skip != 0 || page->high_head != UINT64_MAX || page->high_first != UINT64_MAX)
            return "infinite bound has a prefix or a head";
        return NULL;
    }
    if (qr_compare(low.data, low.size, high.data, high.size) >= 0)
        return "low key is not below the high key";
    if (page->bound_skip != qr_common_prefix(low.data, low.size, high.data, high.size))
        return "bound_skip is not what the bounds share";
    if (page->high_head != qr_head64(high.data, high.size, page->bound_skip))
        return "head of the high key is wrong";
    if (page->high_first != qr_head64(high.data, high.size, 0))
        return "first bytes of the high key are wrong";
    return NULL;
}

/* A key within low <= key < high. */
static bool within_bounds(const struct qr_page *page, struct quire_slice key)
{
    struct quire_slice low = qr_page_low(page);
    struct quire_slice high = qr_page_high(page);
    if (qr_compare(key.data, key.size, low.data, low.size) < 0)
        return false;
    return (page->flags & QR_PAGE_HIGH_INFINITE) != 0 || qr_compare(key.data, key.size, high.data, high.size) < 0;
}

/* The prefix of all keys: what first and last share, those between share too, as they are in order. Without keys the
 * page has what all keys within its bounds would share. */
static const char *check_prefix(const struct qr_page *page, bool has_keys, struct quire_slice first,
                                struct quire_slice last)
{
    struct quire_slice prefix = has_keys ? first : qr_page_low(page);
    size_t shared = has_keys ? qr_common_prefix(first.data, first.size, last.data, last.size) : page->bound_skip;

    if (page->prefix_size < page->bound_skip)
        return "prefix is shorter than what the bounds share";
    if (page->prefix_size != shared)
        return "prefix is not what the keys share";
    if (page->prefix_mask != qr_head_mask(page->prefix_size))
        return "prefix_mask is not that of prefix_size";
    for (uint32_t i = 0; i < QR_INLINE_PREFIX; i++) {
        uint8_t expected = i < shared ? ((const uint8_t *)prefix.data)[i] : 0;
        if (page->prefix[i] != expected)
            return "bytes of the prefix are wrong";
    }
    return NULL;
}

/* ---- Leaves ----------------------------------------------------------------------------------------------------- */

/* The size of the record at `at`, 0 if it does not end by the end of the records. */
static uint64_t bounded_record_size(const struct qr_page *page, uint64_t at)
{
    bool caller = qr_page_caller(page);
    uint64_t room = page->low_offset - at;
    if (room < qr_record_header_size(caller))
        return 0;
    uint64_t size = qr_record_size(qr_page_bytes(page) + at, caller, page->align_log2);
    return size <= room ? size : 0;
}

static bool check_blob(const struct qr_page *page, const uint8_t *record)
{
    struct qr_blob_ref ref;
    return (page->flags & QR_PAGE_BLOBS) != 0 && qr_record_value_size(record) == QR_BLOB_REF_BYTES &&
           qr_blob_ref_decode(qr_record_value(record, qr_page_caller(page), page->align_log2), &ref);
}

/* A record by itself and its place in the arrays. */
static const char *check_record(const struct qr_page *page, uint32_t i, const uint8_t *record)
{
    bool caller = qr_page_caller(page);
    const uint8_t *key = qr_record_key(record, caller);
    uint32_t key_size = qr_record_key_size(record);
    unsigned kind = qr_record_kind(record);

    if (kind != QR_RECORD_PUT && kind != QR_RECORD_DELETE && kind != QR_RECORD_BLOB)
        return "a record of a kind that pages do not hold";
    if (kind == QR_RECORD_BLOB && !check_blob(page, record))
        return "a blob reference that is none, or in a page that says it has none";
    if (qr_load_u32(record + 12) >> 28 != 0)
        return "a record with unknown flags";
    if (kind == QR_RECORD_DELETE && (page->flags & QR_PAGE_MULTI) == 0)
        return "a deletion in a page that says it has none";
    if (qr_record_lsn(record) > page->max_lsn)
        return "max_lsn is below a record's LSN";
    if (qr_record_version(record, caller) > page->max_version)
        return "max_version is below a record's version";
    if (qr_page_fingerprints(page)[i] != qr_fingerprint(qr_hash(key, key_size)))
        return "fingerprint is not the key's";
    if (qr_leaf_heads(page)[i] != qr_head32(key, key_size, page->prefix_size))
        return "head is not the key's";
    return within_bounds(page, (struct quire_slice){key, key_size}) ? NULL : "a key outside the bounds";
}

/* A record after the one before it: keys ascending, versions of a key descending, LSNs of equal ones too. */
static const char *check_order(const struct qr_page *page, const uint8_t *before, const uint8_t *record)
{
    bool caller = qr_page_caller(page);
    int order = qr_compare(qr_record_key(before, caller), qr_record_key_size(before), qr_record_key(record, caller),
                           qr_record_key_size(record));
    if (order > 0)
        return "keys are not in order";
    if (order < 0)
        return NULL;
    if ((page->flags & QR_PAGE_MULTI) == 0)
        return "two versions of a key in a page that says it has none";
    uint64_t version = qr_record_version(record, caller);
    uint64_t newer = qr_record_version(before, caller);
    /* Equal ones: R14. */
    if (newer < version || (newer == version && qr_record_lsn(before) <= qr_record_lsn(record)))
        return "versions of a key are not newest first";
    return NULL;
}

static const char *check_records(const struct qr_page *page)
{
    const bool mixed = page->record_stride == 0;
    const uint8_t *before = NULL;
    uint64_t at = page->records_offset;

    for (uint32_t i = 0; i < page->count; i++) {
        if (mixed && qr_page_slots(page)[i] != at)
            return "slot is not where its record begins";
        uint64_t size = bounded_record_size(page, at);
        if (size == 0)
            return "a record reaches beyond the records";
        if (!mixed && size != page->record_stride)
            return "a record's size is not the stride";
        const uint8_t *record = qr_page_bytes(page) + at;
        const char *wrong = check_record(page, i, record);
        if (wrong == NULL && before != NULL)
            wrong = check_order(page, before, record);
        if (wrong != NULL)
            return wrong;
        before = record;
        at += size;
    }
    if (mixed && qr_page_slots(page)[page->count] != at)
        return "last slot is not the end of the records";
    return at != page->low_offset ? "a hole after the records" : NULL;
}

static const char *check_leaf(const struct qr_page *page)
{
    const char *wrong = check_leaf_layout(page);
    if (wrong == NULL)
        wrong = check_bounds(page);
    if (wrong == NULL)
        wrong = check_records(page);
    if (wrong != NULL)
        return wrong;
    if (page->count == 0)
        return check_prefix(page, false, (struct quire_slice){0}, (struct quire_slice){0});
    return check_prefix(page, true, qr_leaf_key(page, 0), qr_leaf_key(page, page->count - 1));
}

/* ---- Inner pages ------------------------------------------------------------------------------------------------ */

/* Slots and sizes of all keys, without looking at the keys. */
static const char *check_inner_places(const struct qr_page *page)
{
    uint64_t at = page->records_offset;
    for (uint32_t i = 0; i < page->count; i++) {
        if (qr_page_slots(page)[i] != at)
            return "slot is not where its key begins";
        if (page->low_offset - at < sizeof(uint32_t))
            return "a key reaches beyond the keys";
        uint64_t size = sizeof(uint32_t) + (uint64_t)qr_load_u32(qr_page_bytes(page) + at);
        if (size > page->low_offset - at)
            return "a key reaches beyond the keys";
        if (i == 0 && size != sizeof(uint32_t))
            return "entry 0 has a key of its own";
        at += size;
    }
    return at != page->low_offset ? "a hole after the keys" : NULL;
}

static const char *check_inner_entry(const struct qr_page *page, uint32_t i)
{
    struct quire_slice key = qr_inner_key(page, i);
    uint32_t head = qr_inner_group(page, i / QR_GROUP)->heads[i % QR_GROUP];

    if (qr_inner_child(page, i) == 0)
        return "an entry without child";
    if (qr_inner_merging(page, i) && i == 0)
        return "entry 0 is marked (INNER-1)";
    if (qr_inner_merging(page, i) && qr_inner_merging(page, i - 1))
        return "two neighbours are marked (INNER-2)";
    if (head != (i == 0 ? 0 : qr_head32(key.data, key.size, page->prefix_size)))
        return "head is not the key's";
    if (i % QR_GROUP == 0 && qr_inner_hints(page)[i / QR_GROUP] != head)
        return "hint is not its group's first head";
    if (i == 0)
        return NULL;
    if (!within_bounds(page, key))
        return "a key outside the bounds";
    struct quire_slice before = i == 1 ? qr_page_low(page) : qr_inner_key(page, i - 1);
    return qr_compare(before.data, before.size, key.data, key.size) >= 0 ? "keys are not in order" : NULL;
}

/* Heads behind the last entry compare as above all others, and so do hints behind the last group. */
static const char *check_inner_padding(const struct qr_page *page)
{
    uint32_t groups = (page->count - 1) / QR_GROUP + 1;
    uint32_t hints = (page->heads_offset - QR_PAGE_HEADER) / (uint32_t)sizeof(uint32_t);
    for (uint32_t i = page->count; i < groups * QR_GROUP; i++)
        if (qr_inner_group(page, i / QR_GROUP)->heads[i % QR_GROUP] != UINT32_MAX)
            return "padding of the last group is wrong";
    for (uint32_t i = groups; i < hints; i++)
        if (qr_inner_hints(page)[i] != UINT32_MAX)
            return "padding of the hints is wrong";
    return NULL;
}

static const char *check_inner(const struct qr_page *page)
{
    const char *wrong = check_inner_layout(page);
    if (wrong == NULL)
        wrong = check_bounds(page);
    if (wrong == NULL)
        wrong = check_inner_places(page);
    for (uint32_t i = 0; wrong == NULL && i < page->count; i++)
        wrong = check_inner_entry(page, i);
    if (wrong == NULL)
        wrong = check_inner_padding(page);
    if (wrong != NULL)
        return wrong;
    if (page->count == 1)
        return check_prefix(page, false, (struct quire_slice){0}, (struct quire_slice){0});
    return check_prefix(page, true, qr_inner_key(page, 1), qr_inner_key(page, page->count - 1));
}

/* ---- Entry points ----------------------------------------------------------------------------------------------- */

const char *qr_page_check_bytes(const void *bytes, size_t size)
{
    if ((uintptr_t)bytes % 64 != 0)
        return "block is not aligned";
    if (size < QR_PAGE_HEADER)
        return "block is smaller than a header";
    const struct qr_page *page = bytes;
    const char *wrong = check_header(page, size);
    if (wrong != NULL)
        return wrong;
    return page->kind == QR_PAGE_LEAF ? check_leaf(page) : check_inner(page);
}

const char *qr_page_check(const struct qr_page *page)
{
    return qr_page_check_bytes(page, page->block_size);
}
