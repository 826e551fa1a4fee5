/*
 * Goal: a page that came from a disk is refused or safe: whatever reads pages can read it.
 * Method: the bytes are an image, of a leaf or an inner page; it is adopted as the database does it. What is accepted is searched
 * by each vector code, listed, planned, dumped, and rebuilt, which has to give the same records.
 */
#include <stdio.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "db/flush.h"
#include "fuzz/fuzz.h"
#include "page/inner.h"
#include "page/leaf.h"
#include "page/plan.h"
#include "page/search.h"

#define PID 7u
#define ADDRESS 0x100001000u

static uint64_t seen; /* what was read, so that reading is not left out */

/* ---- Using what was accepted ------------------------------------------------------------------------------------ */

static bool same_record(const struct qr_page *a, const struct qr_page *b, uint32_t i)
{
    uint64_t size = qr_record_size(qr_leaf_record(a, i), qr_page_caller(a), a->align_log2);
    return size == qr_record_size(qr_leaf_record(b, i), qr_page_caller(b), b->align_log2) &&
           memcmp(qr_leaf_record(a, i), qr_leaf_record(b, i), size) == 0;
}

/* A plan that keeps everything gives the same page again. */
static void rebuild_leaf(const struct qr_leaf_view *view)
{
    const struct qr_page *page = view->page;
    struct qr_retention all = {.keep_equal = true};
    struct qr_plan plan;
    struct qr_leaf_measure measure;
    struct qr_page_identity identity = qr_page_identity(page);
    struct qr_leaf_properties properties = {.flags = page->flags & (QR_PAGE_STUB | QR_PAGE_COLLECTED)};
    qr_plan_init(&plan, qr_page_caller(page), page->align_log2);
    FUZZ_CHECK(qr_plan_add_leaf(&plan, view, NULL, &all));
    qr_plan_measure(&plan, 0, plan.count, &identity, &measure);
    struct qr_page *copy = qr_malloc_aligned(64, qr_round_up(measure.size, 64));
    FUZZ_CHECK(copy != NULL);
    qr_plan_write(&plan, &measure, &identity, &properties, copy, qr_round_up(measure.size, 64));
    FUZZ_CHECK(qr_page_check(copy) == NULL);
    FUZZ_CHECK(copy->count == page->count);
    for (uint32_t i = 0; i < page->count; i++)
        FUZZ_CHECK(same_record(page, copy, i));
    seen += qr_plan_split_index(&plan, plan.bytes / 2);
    qr_free_aligned(copy);
    qr_plan_done(&plan);
}

/* As consolidation does it, with snapshots, a pending record, an older image. */
static void plan_leaf(const struct qr_leaf_view *view)
{
    const struct qr_page *page = view->page;
    struct qr_retention some = {.bounds = (uint64_t[]){9, 5}, .count = 2};
    struct qr_record_spec pending = {.key = (const uint8_t *)"pending", .key_size = 7, .lsn = UINT64_MAX, .version = UINT64_MAX};
    struct qr_plan plan;
    qr_plan_init(&plan, qr_page_caller(page), page->align_log2);
    FUZZ_CHECK(qr_plan_add_leaf(&plan, view, &pending, &some));
    qr_plan_done(&plan);
    qr_plan_init(&plan, qr_page_caller(page), page->align_log2);
    FUZZ_CHECK(qr_plan_add_joined(&plan, view, page, NULL, &some));
    qr_plan_done(&plan);
}

static void list_leaf(const struct qr_leaf_view *view, uint64_t version)
{
    struct quire_entry *entries = qr_malloc((2 * (size_t)view->page->count + 1) * sizeof(*entries));
    FUZZ_CHECK(entries != NULL);
    uint32_t count = qr_leaf_entries(view, version, entries);
    for (uint32_t i = 0; i < count; i++)
        seen += qr_hash(entries[i].key, entries[i].key_size) +
                qr_hash(entries[i].value, entries[i].value_size & ~QR_ENTRY_BLOB);
    seen += qr_leaf_entries_joined(view, view->page, version, entries);
    qr_free(entries);
}

static void search_leaf(const struct qr_leaf_view *view, const struct qr_key *key)
{
    const struct qr_page *page = view->page;
    const uint8_t *record = qr_leaf_find(view, key, UINT64_MAX);
    uint32_t at = qr_leaf_lower_bound(page, key);
    FUZZ_CHECK(at <= page->count);
    if (at > 0) {
        struct quire_slice before = qr_leaf_key(page, at - 1);
        FUZZ_CHECK(qr_compare(before.data, before.size, key->data, key->size) < 0);
    }
    if (record == NULL)
        return;
    struct quire_slice found = qr_leaf_key(page, at);
    FUZZ_CHECK(qr_leaf_record(page, at) == record); /* the newest of the versions */
    FUZZ_CHECK(qr_compare(found.data, found.size, key->data, key->size) == 0);
}

static void search_inner(const struct qr_page *page, const struct qr_key *key)
{
    uint32_t at = qr_inner_find(page, key);
    FUZZ_CHECK(at < page->count);
    if (at > 0) {
        struct quire_slice low = qr_inner_key(page, at);
        FUZZ_CHECK(qr_compare(low.data, low.size, key->data, key->size) <= 0);
    }
    seen += qr_inner_child(page, at);
}

static void search_for(const struct qr_page *page, struct quire_slice slice)
{
    struct qr_leaf_view view = {.page = page};
    struct qr_key key = qr_key_make(slice.data, slice.size);
    bool below = qr_page_key_below(page, &key);
    bool beyond = qr_page_key_beyond(page, &key);
    struct quire_slice high = qr_page_high(page);
    FUZZ_CHECK(beyond == ((page->flags & QR_PAGE_HIGH_INFINITE) == 0 &&
                          qr_compare(slice.data, slice.size, high.data, high.size) >= 0));
    if (below || beyond)
        return;
    if (page->kind == QR_PAGE_LEAF)
        search_leaf(&view, &key);
    else
        search_inner(page, &key);
}

static void search(const struct qr_page *page)
{
    static const struct quire_slice keys[] = {{"", 0}, {"a", 1}, {"key-0007", 8}, {"\xff\xff\xff\xff\xff\xff\xff\xff\xff", 9}};
    for (size_t i = 0; i < QR_ARRAY_COUNT(keys); i++)
        search_for(page, keys[i]);
    search_for(page, qr_page_low(page));
    search_for(page, qr_page_high(page));
    uint32_t step = page->count / 16 + 1;
    for (uint32_t i = page->kind == QR_PAGE_INNER; i < page->count; i += step)
        search_for(page, page->kind == QR_PAGE_LEAF ? qr_leaf_key(page, i) : qr_inner_key(page, i));
}

static void use_leaf(const struct qr_page *page)
{
    struct qr_leaf_view view = {.page = page};
    list_leaf(&view, UINT64_MAX);
    list_leaf(&view, 5);
    plan_leaf(&view);
    rebuild_leaf(&view);
}

static void use_inner(const struct qr_page *page)
{
    struct qr_inner_entry *entries = qr_malloc((size_t)page->count * sizeof(*entries));
    struct qr_page_identity identity = qr_page_identity(page);
    FUZZ_CHECK(entries != NULL);
    qr_inner_entries(page, entries);
    size_t size = qr_round_up(qr_inner_size(entries, page->count, &identity), 64);
    struct qr_page *copy = qr_malloc_aligned(64, size);
    FUZZ_CHECK(copy != NULL);
    qr_inner_build(copy, size, entries, page->count, &identity);
    FUZZ_CHECK(qr_page_check(copy) == NULL);
    FUZZ_CHECK(copy->count == page->count);
    seen += qr_inner_split_index(page, true) + qr_inner_split_index(page, false);
    qr_free_aligned(copy);
    qr_free(entries);
}

static void use(const struct qr_page *page)
{
    struct qr_leaf_view view = {.page = page};
    enum qr_search_isa best = qr_search_isa();
    char text[256];
    for (int isa = QR_SEARCH_PLAIN; isa <= QR_SEARCH_AVX512; isa++)
        if (qr_search_select((enum qr_search_isa)isa))
            search(page);
    qr_search_select(best);
    seen += qr_page_dump(&view, text, sizeof(text)) + qr_view_first_lsn(&view) + qr_view_max_version(&view);
    if (page->kind == QR_PAGE_LEAF)
        use_leaf(page);
    else
        use_inner(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t begun = fuzz_begin();
    uint8_t *block = qr_malloc_aligned(64, size + 1);
    FUZZ_CHECK(block != NULL);
    qr_copy(block, data, size);
    if (qr_db_adopt_image(block, (uint32_t)size, size, PID, ADDRESS) == NULL)
        use((const struct qr_page *)(const void *)block);
    qr_free_aligned(block);
    fuzz_end(begun, NULL);
    return 0;
}

/* ---- Repair ----------------------------------------------------------------------------------------------------- */

/* What follows from bounds and keys. first, last: of the keys; NULL data: there are none. False: no page is like that. */
static bool set_bounds(struct qr_page *page, struct quire_slice first, struct quire_slice last)
{
    struct quire_slice low = qr_page_low(page);
    struct quire_slice high = qr_page_high(page);
    bool infinite = (page->flags & QR_PAGE_HIGH_INFINITE) != 0;
    size_t skip = infinite ? 0 : qr_common_prefix(low.data, low.size, high.data, high.size);
    if (first.data != NULL && qr_common_prefix(first.data, first.size, last.data, last.size) < skip)
        return false;
    const uint8_t *content = qr_page_bytes(page) + QR_PAGE_HEADER;
    bool over = first.data != NULL ? (const uint8_t *)first.data < content || (const uint8_t *)last.data < content
                                   : low.size != 0 && (const uint8_t *)low.data < content;
    if (over) return false; /* it would be written over itself */
    qr_page_set_bounds(page, first.data != NULL, first, last);
    return true;
}

/* Makes the places of a leaf's parts those that follow from its count, and the slots those of the records. False: there is no
 * room. */
static bool place_leaf(struct qr_page *page, uint64_t size)
{
    uint64_t align = qr_max(4, (uint64_t)1 << page->align_log2);
    page->count = (uint32_t)qr_min(page->count, size / 16);
    page->slots_offset = (uint32_t)(QR_PAGE_HEADER + qr_round_up(page->count, 64));
    page->heads_offset = page->slots_offset + (page->record_stride == 0 ? 4 * (page->count + 1) : 0);
    page->records_offset = (uint32_t)qr_round_up(page->heads_offset + 4 * page->count, align);
    uint64_t at = page->records_offset;
    for (uint32_t i = 0; i <= page->count; i++) {
        if (at + QR_RECORD_HEADER_CALLER > size)
            return false;
        if (page->record_stride == 0)
            qr_store_u32((uint8_t *)page + page->slots_offset + 4 * (uint64_t)i, (uint32_t)at);
        if (i == page->count)
            break;
        uint64_t record = qr_record_size((uint8_t *)page + at, qr_page_caller(page), page->align_log2);
        if (page->record_stride != 0 && record != page->record_stride)
            return false;
        at += record;
    }
    page->low_offset = (uint32_t)at;
    return true;
}

static void sum_leaf(struct qr_page *page)
{
    uint8_t *bytes = (uint8_t *)page;
    for (uint32_t i = 0; i < page->count; i++) {
        struct quire_slice key = qr_leaf_key(page, i);
        bytes[QR_PAGE_HEADER + i] = qr_fingerprint(qr_hash(key.data, key.size));
        qr_store_u32(bytes + page->heads_offset + 4 * (uint64_t)i, qr_head32(key.data, key.size, page->prefix_size));
        page->max_lsn = qr_max(page->max_lsn, qr_record_lsn(qr_leaf_record(page, i)));
        page->max_version = qr_max(page->max_version, qr_record_version(qr_leaf_record(page, i), qr_page_caller(page)));
    }
}

static void repair_leaf(struct qr_page *page, uint64_t size)
{
    page->align_log2 &= 7;
    page->level = 0;
    if (page->align_log2 > 6 || page->record_stride > size || !place_leaf(page, size))
        return;
    page->low_size &= 0xffff;
    page->high_size = (page->flags & QR_PAGE_HIGH_INFINITE) != 0 ? 0 : page->high_size & 0xffff;
    page->high_offset = page->low_offset + page->low_size;
    page->content_bytes = page->high_offset + page->high_size;
    if (page->content_bytes != size) /* the last bound takes what is left */
        page->high_size += (uint32_t)size - page->content_bytes;
    page->content_bytes = (uint32_t)size;
    if (page->high_offset > size || page->high_size > size || (uint64_t)page->high_offset + page->high_size > size)
        return;
    struct quire_slice none = {0};
    bool has_keys = page->count != 0;
    if (set_bounds(page, has_keys ? qr_leaf_key(page, 0) : none, has_keys ? qr_leaf_key(page, page->count - 1) : none))
        sum_leaf(page);
}

static void repair_inner(struct qr_page *page)
{
    uint8_t *bytes = (uint8_t *)page;
    for (uint32_t i = 0; i < page->count; i++) {
        struct quire_slice key = qr_inner_key(page, i);
        uint32_t head = i == 0 ? 0 : qr_head32(key.data, key.size, page->prefix_size);
        qr_store_u32(bytes + page->heads_offset + i / QR_GROUP * sizeof(struct qr_inner_group) + 4 * (i % QR_GROUP), head);
        if (i % QR_GROUP == 0)
            qr_store_u32(bytes + QR_PAGE_HEADER + 4 * (uint64_t)(i / QR_GROUP), head);
    }
}

/* Of an inner page only heads and bounds, if its places are right. */
static bool inner_is_placed(const struct qr_page *page, uint64_t size)
{
    uint64_t groups = ((uint64_t)page->count + QR_GROUP - 1) / QR_GROUP;
    if (page->count == 0 || page->count > size || page->heads_offset % 64 != 0 || page->heads_offset < QR_PAGE_HEADER + 4 * groups ||
        page->heads_offset + groups * sizeof(struct qr_inner_group) > page->slots_offset || page->slots_offset % 4 != 0 ||
        page->slots_offset + 4 * (uint64_t)page->count > size || (uint64_t)page->low_offset + page->low_size > size ||
        (uint64_t)page->high_offset + page->high_size > size)
        return false;
    for (uint32_t i = 0; i < page->count; i++) {
        uint64_t slot = qr_page_slots(page)[i];
        if (slot + 4 > size || slot + 4 + qr_load_u32((const uint8_t *)page + slot) > size)
            return false;
    }
    return true;
}

void fuzz_repair(uint8_t *data, size_t size)
{
    if (size < QR_PAGE_HEADER)
        return;
    struct qr_page *page = qr_malloc_aligned(64, size);
    FUZZ_CHECK(page != NULL);
    memcpy(page, data, size);
    page->pid = PID;
    page->flags &= 0x3f;
    page->content_bytes = (uint32_t)size;
    page->right_pid = (page->flags & QR_PAGE_HIGH_INFINITE) != 0 ? 0 : page->right_pid | 1;
    if (page->kind != QR_PAGE_INNER) {
        page->kind = QR_PAGE_LEAF;
        repair_leaf(page, size);
    } else if (inner_is_placed(page, size)) {
        struct quire_slice none = {0};
        bool has_keys = page->count > 1;
        if (set_bounds(page, has_keys ? qr_inner_key(page, 1) : none, has_keys ? qr_inner_key(page, page->count - 1) : none))
            repair_inner(page);
    }
    memcpy(data, page, size);
    qr_free_aligned(page);
}

/* ---- Seeds ------------------------------------------------------------------------------------------------------ */

struct leaf_seed {
    const char *name;
    bool caller, high_infinite;
    uint8_t align_log2;
    uint32_t count, versions; /* of a key */
    bool mixed, blobs;
};

static void seed_leaf(const struct leaf_seed *seed, fuzz_sink *sink, void *context)
{
    struct qr_plan plan;
    struct qr_leaf_measure measure;
    struct qr_page_identity identity = {.pid = PID, .right_pid = seed->high_infinite ? 0 : 8, .tree_id = 1,
                                        .high_infinite = seed->high_infinite, .low = {"key", 3}, .high = {"kez", 3},
                                        .max_lsn = 1000};
    struct qr_leaf_properties properties = {0};
    struct qr_record_spec records[64];
    static char keys[64][24];
    uint8_t reference[QR_BLOB_REF_BYTES];
    qr_blob_ref_encode(&(struct qr_blob_ref){.address = 1ull << 32 | 4096, .size = 100, .head_size = 128, .crc = 9}, reference);
    for (uint32_t i = 0; i < seed->count; i++) {
        uint32_t key = i / seed->versions;
        uint64_t version = 500 - i % seed->versions * 3;
        snprintf(keys[i], sizeof(keys[i]), "key-%04u%s", key, seed->mixed && key % 3 == 0 ? "more" : "");
        records[i] = (struct qr_record_spec){.key = (const uint8_t *)keys[i], .key_size = (uint32_t)strlen(keys[i]),
                                             .value = (const uint8_t *)"0123456789", .value_size = seed->mixed ? key % 11 : 6,
                                             .lsn = version, .version = version};
        if (seed->versions > 1 && i % 5 == 4) {
            records[i].kind = QR_RECORD_DELETE;
            records[i].value_size = 0;
        }
        if (seed->blobs && i % 4 == 1) {
            records[i].kind = QR_RECORD_BLOB;
            records[i].value = reference;
            records[i].value_size = sizeof(reference);
        }
    }
    qr_plan_init(&plan, seed->caller, seed->align_log2);
    FUZZ_CHECK(qr_plan_add_batch(&plan, NULL, records, seed->count, &(struct qr_retention){0}));
    qr_plan_measure(&plan, 0, plan.count, &identity, &measure);
    uint64_t size = qr_round_up(measure.size, 64);
    struct qr_page *page = qr_malloc_aligned(64, size);
    FUZZ_CHECK(page != NULL);
    memset(page, 0, size);
    qr_plan_write(&plan, &measure, &identity, &properties, page, size);
    sink(context, seed->name, page, page->content_bytes);
    qr_free_aligned(page);
    qr_plan_done(&plan);
}

static void seed_inner(const char *name, uint32_t count, fuzz_sink *sink, void *context)
{
    struct qr_page_identity identity = {.pid = PID, .right_pid = 8, .level = 1, .low = {"key", 3}, .high = {"kez", 3}, .max_lsn = 9};
    struct qr_inner_entry entries[64] = {{{0}}};
    static char keys[64][24];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(keys[i], sizeof(keys[i]), "key-%04u", i * 7);
        entries[i] = (struct qr_inner_entry){.key = {keys[i], strlen(keys[i])},
                                             .child = (100 + i) | (i % 5 == 3 ? QR_CHILD_MERGING : 0)};
    }
    size_t size = qr_round_up(qr_inner_size(entries, count, &identity), 64);
    struct qr_page *page = qr_malloc_aligned(64, size);
    FUZZ_CHECK(page != NULL);
    memset(page, 0, size);
    qr_inner_build(page, size, entries, count, &identity);
    sink(context, name, page, page->content_bytes);
    qr_free_aligned(page);
}

void fuzz_seeds(fuzz_sink *sink, void *context)
{
    static const struct leaf_seed leaves[] = {
        {.name = "leaf_empty", .high_infinite = true},
        {.name = "leaf_one", .count = 1, .versions = 1},
        {.name = "leaf_stride", .count = 20, .versions = 1},
        {.name = "leaf_mixed", .count = 20, .versions = 1, .mixed = true},
        {.name = "leaf_versions", .count = 20, .versions = 3, .mixed = true, .high_infinite = true},
        {.name = "leaf_caller", .caller = true, .align_log2 = 3, .count = 15, .versions = 3},
        {.name = "leaf_aligned", .align_log2 = 6, .count = 6, .versions = 1, .mixed = true},
        {.name = "leaf_blobs", .count = 12, .versions = 1, .mixed = true, .blobs = true},
    };
    for (size_t i = 0; i < QR_ARRAY_COUNT(leaves); i++)
        seed_leaf(&leaves[i], sink, context);
    seed_inner("inner_one", 1, sink, context);
    seed_inner("inner_many", 40, sink, context);
}
