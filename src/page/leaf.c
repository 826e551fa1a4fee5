/*
 * leaf.c: writing deltas, and the merged view of chain and base that readers get.
 *
 * Layer 2. Read leaf.h first. Without a chain, with one version a key and none too new, the view is a walk over the
 * records; otherwise the newest visible version of each key is picked while chain and base (and image) are merged.
 */
#include "page/leaf.h"

#include "base/stop.h"
#include "page/search.h"

uint8_t *qr_delta_write(const struct qr_page *page, uint32_t offset, const struct qr_record_spec *spec)
{
    uint8_t *at = (uint8_t *)(uintptr_t)page + offset; /* the reserved bytes are the writer's own */
    uint8_t *record = at + qr_delta_record_offset(page->align_log2);
    qr_record_write(record, spec, qr_page_caller(page), page->align_log2);
    return record;
}

void qr_delta_link(const struct qr_leaf_view *view, uint32_t offset, uint8_t fingerprint)
{
    struct qr_delta *delta = (struct qr_delta *)(uintptr_t)qr_page_delta(view->page, offset / QR_DELTA_UNIT);
    const bool stale = view->chain != 0 && QR_BUG(keep_stale_summary);

    QR_ASSERT(view->chain < QR_CHAIN_MAX);
    if (view->chain != 0) {
        const struct qr_delta *below = qr_view_head(view);
        memcpy(delta->fingerprints, below->fingerprints, sizeof(delta->fingerprints));
        memcpy(delta->offsets, below->offsets, sizeof(delta->offsets));
    } else {
        memset(delta->fingerprints, 0, sizeof(delta->fingerprints));
        memset(delta->offsets, 0, sizeof(delta->offsets));
    }
    delta->highest_below = stale ? qr_view_head(view)->highest_below : qr_view_max_version(view);
    if (!stale) delta->fingerprints[view->chain] = fingerprint;
    delta->offsets[view->chain] = (uint16_t)(offset / QR_DELTA_UNIT);
    delta->count = (uint8_t)(view->chain + 1);
    memset(delta->reserved, 0, sizeof(delta->reserved));
}

/* ---- Entries ---------------------------------------------------------------------------------------------------- */

static inline void set_entry(struct quire_entry *out, const uint8_t *record, bool caller, unsigned align_log2)
{
    out->key = qr_record_key(record, caller);
    out->key_size = qr_record_key_size(record);
    out->value = qr_record_value(record, caller, align_log2);
    out->value_size = qr_record_value_size(record);
    out->lsn = qr_record_lsn(record);
    out->version = qr_record_version(record, caller);
}

/* Of a record that may be of any kind; the number of entries that it makes. */
static inline uint32_t add_entry(struct quire_entry *out, const uint8_t *record, bool caller, unsigned align_log2)
{
    if (!qr_kind_is_value(qr_record_kind(record))) return 0;
    set_entry(out, record, caller, align_log2);
    if (qr_record_kind(record) == QR_RECORD_BLOB) out->value_size |= QR_ENTRY_BLOB;
    return 1;
}

/* Records this far ahead are asked for while entries are made: about what a core can have under way. */
#define READ_AHEAD_BYTES 1024

/* No chain, one version a key, no deletions, nothing newer than the reader: entry by entry. */
static uint32_t entries_plain(const struct qr_page *page, uint32_t from, uint32_t to, struct quire_entry *out)
{
    const bool caller = qr_page_caller(page);
    const unsigned align_log2 = page->align_log2;
    const uint32_t stride = page->record_stride;

    if (stride != 0) {
        const uint8_t *record = qr_leaf_record(page, from);
        for (uint32_t i = from; i < to; i++, record += stride) {
            __builtin_prefetch(record + READ_AHEAD_BYTES);
            __builtin_prefetch(record + READ_AHEAD_BYTES + 64);
            set_entry(out++, record, caller, align_log2);
        }
    } else {
        const uint32_t *slots = qr_page_slots(page);
        for (uint32_t i = from; i < to; i++) set_entry(out++, qr_page_bytes(page) + slots[i], caller, align_log2);
    }
    return to - from;
}

/* The first version at or below `version` of the base's key at i, or NULL; *ret_next: where the next key begins. */
static const uint8_t *pick_base(const struct qr_page *page, uint32_t i, uint64_t version, uint32_t *ret_next)
{
    const bool caller = qr_page_caller(page);
    struct quire_slice key = qr_leaf_key(page, i);
    const uint8_t *picked = NULL;
    uint32_t at = i;
    do {
        const uint8_t *record = qr_leaf_record(page, at);
        if (picked == NULL && qr_record_version(record, caller) <= version) picked = record;
        at++;
        if (at == page->count) break;
        struct quire_slice other = qr_leaf_key(page, at);
        if (!qr_equal(other.data, other.size, key.data, key.size)) break;
    } while (true);
    *ret_next = at;
    return picked;
}

/* Base keys [from, to), which no newer record touches. */
static uint32_t entries_base(const struct qr_page *page, uint32_t from, uint32_t to, uint64_t version,
                             struct quire_entry *out)
{
    if ((page->flags & (QR_PAGE_MULTI | QR_PAGE_BLOBS)) == 0 && page->max_version <= version) return entries_plain(page, from, to, out);
    struct quire_entry *start = out;
    while (from < to) {
        const uint8_t *record = pick_base(page, from, version, &from);
        if (record != NULL) out += add_entry(out, record, qr_page_caller(page), page->align_log2);
    }
    return (uint32_t)(out - start);
}

/* Newest visible record of each key of the chain, sorted by key. */
static uint32_t chain_visible(const struct qr_leaf_view *view, uint64_t version, const uint8_t **list)
{
    const struct qr_page *page = view->page;
    const bool caller = qr_page_caller(page);
    const struct qr_delta *head = qr_view_head(view);
    uint32_t count = 0;
    for (uint32_t i = view->chain; i-- > 0;) { /* newest first */
        const uint8_t *record = qr_delta_record(page, head->offsets[i]);
        uint64_t found = qr_record_version(record, caller);
        if (found > version) continue;
        uint32_t at = count;
        int order = -1;
        while (at > 0) {
            const uint8_t *other = list[at - 1];
            order = qr_compare(qr_record_key(other, caller), qr_record_key_size(other), qr_record_key(record, caller),
                               qr_record_key_size(record));
            if (order <= 0) break;
            at--;
        }
        if (at > 0 && order == 0) {
            if (found > qr_record_version(list[at - 1], caller)) list[at - 1] = record;
            continue;
        }
        memmove(list + at + 1, list + at, (count - at) * sizeof(*list));
        list[at] = record;
        count++;
    }
    return count;
}

/* A sorted newer record (visible, one a key) over a base of older ones: writes the base's keys from *at up to its key,
 * then the higher version of the two; the newer record's if they are equal. Moves *at beyond the key. */
static uint32_t entries_up_to(const struct qr_page *base, uint32_t *at, const uint8_t *record, uint64_t version,
                              struct quire_entry *out)
{
    const bool caller = qr_page_caller(base);
    struct qr_key key = qr_key_ordered(qr_record_key(record, caller), qr_record_key_size(record));
    uint32_t from = qr_leaf_lower_bound(base, &key);
    struct quire_entry *start = out;

    out += entries_base(base, *at, from, version, out);
    *at = from;
    if (from < base->count) {
        struct quire_slice other = qr_leaf_key(base, from);
        if (qr_equal(other.data, other.size, key.data, key.size)) {
            const uint8_t *older = pick_base(base, from, version, at);
            if (older != NULL && qr_record_version(older, caller) > qr_record_version(record, caller)) record = older;
        }
    }
    out += add_entry(out, record, caller, base->align_log2);
    return (uint32_t)(out - start);
}

uint32_t qr_leaf_entries(const struct qr_leaf_view *view, uint64_t version, struct quire_entry *out)
{
    const uint8_t *list[QR_CHAIN_MAX];
    const struct qr_page *page = view->page;
    if (view->chain == 0) return entries_base(page, 0, page->count, version, out);

    uint32_t count = chain_visible(view, version, list);
    struct quire_entry *start = out;
    uint32_t at = 0;
    for (uint32_t i = 0; i < count; i++) out += entries_up_to(page, &at, list[i], version, out);
    out += entries_base(page, at, page->count, version, out);
    return (uint32_t)(out - start);
}

/* ---- A stub together with its image ----------------------------------------------------------------------------- */

/* The visible record of the stub's next key, from the sorted visible deltas list[*i ..) and the records from *j on,
 * both moved beyond the key. NULL if what the stub has of the key is too new. */
static const uint8_t *next_of_stub(const struct qr_page *stub, const uint8_t *const *list, uint32_t count,
                                   uint64_t version, uint32_t *i, uint32_t *j)
{
    const bool caller = qr_page_caller(stub);
    int order = *i == count ? 1 : -1; /* of the delta's key against the record's */
    if (*i < count && *j < stub->count) {
        struct quire_slice key = qr_leaf_key(stub, *j);
        order = qr_compare(qr_record_key(list[*i], caller), qr_record_key_size(list[*i]), key.data, key.size);
    }
    const uint8_t *record = order <= 0 ? list[(*i)++] : NULL;
    if (order < 0) return record;
    const uint8_t *older = pick_base(stub, *j, version, j);
    if (record == NULL || older == NULL) return record == NULL ? older : record;
    return qr_record_version(older, caller) > qr_record_version(record, caller) ? older : record;
}

uint32_t qr_leaf_entries_joined(const struct qr_leaf_view *view, const struct qr_page *image, uint64_t version,
                                struct quire_entry *out)
{
    const uint8_t *list[QR_CHAIN_MAX];
    const struct qr_page *stub = view->page;
    uint32_t count = view->chain == 0 ? 0 : chain_visible(view, version, list);
    struct quire_entry *start = out;
    uint32_t at = 0;

    QR_ASSERT(image->align_log2 == stub->align_log2);
    QR_ASSERT(qr_page_caller(image) == qr_page_caller(stub));
    for (uint32_t i = 0, j = 0; i < count || j < stub->count;) {
        const uint8_t *record = next_of_stub(stub, list, count, version, &i, &j);
        if (record != NULL) out += entries_up_to(image, &at, record, version, out);
    }
    out += entries_base(image, at, image->count, version, out);
    return (uint32_t)(out - start);
}
