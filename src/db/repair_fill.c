/*
 * repair_fill.c: records of leaves, and large values, into the new store.
 *
 * Layer 6. Piece by piece, in the order of keys, by the public calls. A tree with engine versions gets the newest record of each
 * key; one with caller versions all of them, the oldest first.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/bugs.h"
#include "db/repair.h"
#include "store/blob.h"

/* ---- Values that are lost (REPAIR-5) -------------------------------------------------------------------------- */

static int compare_value(const struct qr_lost_value *value, const struct qr_repair_tree *tree, struct quire_slice key)
{
    if (value->tree != tree) return value->tree->id < tree->id ? -1 : 1;
    return qr_compare(value->key.data, value->key.size, key.data, key.size);
}

/* The first one of a key, or where it would be. */
static uint64_t find_value(const struct qr_repair *r, const struct qr_repair_tree *tree, struct quire_slice key)
{
    uint64_t low = 0, high = r->lost_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (compare_value(&r->lost_values[middle], tree, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int note_lost(struct qr_repair *r, struct qr_repair_tree *tree, struct quire_slice key, uint64_t version)
{
    struct qr_lost_value *larger = qr_grow(r->lost_values, r->lost_count, &r->lost_room, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the list of lost values");
    r->lost_values = larger;
    uint8_t *copy = qr_malloc(key.size + 1);
    if (copy == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the key of a lost value");
    qr_copy(copy, key.data, key.size);
    uint64_t at = find_value(r, tree, key);
    memmove(&r->lost_values[at + 1], &r->lost_values[at], (r->lost_count - at) * sizeof(*r->lost_values));
    r->lost_values[at] = (struct qr_lost_value){tree, {copy, key.size}, version, UINT64_MAX};
    r->lost_count++;
    return 0;
}

static void forget(struct qr_repair *r, uint64_t at)
{
    qr_free((void *)(uintptr_t)r->lost_values[at].key.data);
    r->lost_count--;
    memmove(&r->lost_values[at], &r->lost_values[at + 1], (r->lost_count - at) * sizeof(*r->lost_values));
}

void qr_repair_hide(struct qr_repair *r, const struct qr_repair_tree *tree, struct quire_slice key, uint64_t version)
{
    for (uint64_t at = find_value(r, tree, key); at < r->lost_count && compare_value(&r->lost_values[at], tree, key) == 0;) {
        struct qr_lost_value *value = &r->lost_values[at];
        if ((!tree->caller_versions || version == value->version) && !QR_BUG(repair_hidden_told)) {
            forget(r, at);
            continue;
        }
        if (version > value->version) value->hidden_by = qr_min(value->hidden_by, version);
        at++;
    }
}

/* One that a version hides for every reader may have been released: the safe version says whether there are readers. */
int qr_repair_finish_values(struct qr_repair *r)
{
    int result = 0;
    for (uint64_t at = 0; at < r->lost_count; at++) {
        const struct qr_lost_value *value = &r->lost_values[at];
        bool hidden = value->tree->caller_versions && value->hidden_by <= value->tree->safe_version;
        if (!hidden) qr_repair_tell(r, QUIRE_LOSS_VALUE, value->tree->name, value->key, value->key, "a large value cannot be read");
    }
    for (uint32_t i = 0; i < r->tree_count && result == 0; i++)
        if (r->trees[i]->to != NULL && r->trees[i]->safe_version != 0)
            result = quire_set_safe_lsn(r->trees[i]->to, r->trees[i]->safe_version);
    return result;
}

void qr_repair_fill_done(struct qr_repair *r)
{
    while (r->lost_count != 0) forget(r, r->lost_count - 1);
    qr_free(r->lost_values);
}

/* ---- Records ---------------------------------------------------------------------------------------------------- */

static int put_value(struct qr_repair_tree *tree, uint64_t version, struct quire_slice key, const void *value, uint64_t size)
{
    return tree->caller_versions ? quire_put_at(tree->to, version, key.data, key.size, value, size, 0, NULL)
                                 : quire_put(tree->to, key.data, key.size, value, size, 0, NULL);
}

/* In place of a value that is lost: so that no older one shows. */
static int put_deletion(struct qr_repair_tree *tree, uint64_t version, struct quire_slice key)
{
    return tree->caller_versions ? quire_delete_at(tree->to, version, key.data, key.size, 0, NULL)
                                 : quire_delete(tree->to, key.data, key.size, 0, NULL, NULL);
}

/* *ret_value is to be freed. A positive result: it is lost. */
static int read_blob(struct qr_repair *r, struct quire_slice reference, void **ret_value, uint32_t *ret_size)
{
    struct qr_blob_reader reader;
    struct qr_blob_ref ref;
    if (reference.size != QR_BLOB_REF_BYTES || !qr_blob_ref_decode(reference.data, &ref) || r->store == NULL) return 1;
    int result = qr_blob_open(r->store, &ref, &reader); /* so the size is one that the segment can have */
    if (result != 0) return qr_salvage_is_lost(result) ? 1 : result;
    qr_blob_close(&reader);
    uint8_t *value = qr_malloc(ref.size);
    if (value == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a value of %u bytes", ref.size);
    result = qr_blob_read(r->store, &ref, value);
    if (result != 0) {
        qr_free(value);
        return qr_salvage_is_lost(result) ? 1 : result;
    }
    *ret_value = value;
    *ret_size = ref.size;
    return 0;
}

static int put_blob(struct qr_repair *r, struct qr_repair_tree *tree, uint64_t version, struct quire_slice key,
                    struct quire_slice reference)
{
    void *value = NULL;
    uint32_t size = 0;
    int result = read_blob(r, reference, &value, &size);
    if (result > 0) {
        result = note_lost(r, tree, key, version);
        return result == 0 ? put_deletion(tree, version, key) : result;
    }
    if (result != 0) return result;
    result = put_value(tree, version, key, value, size);
    qr_free(value);
    return result;
}

int qr_repair_put(struct qr_repair *r, struct qr_repair_tree *tree, unsigned kind, uint64_t version, struct quire_slice key,
                  struct quire_slice value)
{
    if (kind == QR_RECORD_DELETE) return put_deletion(tree, version, key);
    if (kind == QR_RECORD_BLOB) return put_blob(r, tree, version, key, value);
    return put_value(tree, version, key, value.data, value.size);
}

/* ---- Leaves ----------------------------------------------------------------------------------------------------- */

/* Whether what a page says can be put: anything else was written by nobody. */
static bool is_possible(const struct qr_repair_tree *tree, const struct qr_page *page, const uint8_t *record)
{
    unsigned kind = qr_record_kind(record);
    return (kind == QR_RECORD_PUT || kind == QR_RECORD_DELETE || kind == QR_RECORD_BLOB) &&
           qr_page_caller(page) == tree->caller_versions && qr_record_key_size(record) <= QR_MAX_KEY_SIZE;
}

static int put_record(struct qr_repair *r, struct qr_repair_tree *tree, const struct qr_page *page, uint32_t i)
{
    const uint8_t *record = qr_leaf_record(page, i);
    const bool caller = qr_page_caller(page);
    struct quire_slice key = qr_leaf_key(page, i);
    struct quire_slice value = {qr_record_value(record, caller, page->align_log2), qr_record_value_size(record)};
    if (!is_possible(tree, page, record)) return note_lost(r, tree, key, 0);
    unsigned kind = qr_record_kind(record);
    uint64_t version = qr_record_version(record, caller);
    if (kind == QR_RECORD_DELETE && !caller) return 0; /* nothing is there */
    r->report.records++;
    if (caller && r->lost_count != 0) qr_repair_hide(r, tree, key, version);
    return qr_repair_put(r, tree, kind, version, key, value);
}

static bool same_key(const struct qr_page *page, uint32_t i, uint32_t k)
{
    struct quire_slice a = qr_leaf_key(page, i), b = qr_leaf_key(page, k);
    return qr_equal(a.data, a.size, b.data, b.size);
}

/* The versions of a key lie together, newest first. */
static int put_records(struct qr_repair *r, struct qr_repair_tree *tree, const struct qr_page *page, uint32_t first,
                       uint32_t end)
{
    int result = 0;
    for (uint32_t i = first, next; i < end && result == 0; i = next) {
        for (next = i + 1; next < end && same_key(page, i, next); next++) {
        }
        if (!tree->caller_versions) {
            result = put_record(r, tree, page, i);
            continue;
        }
        for (uint32_t k = next; k > i && result == 0; k--) result = put_record(r, tree, page, k - 1);
    }
    return result;
}

static int fill_piece(struct qr_repair *r, struct qr_repair_tree *tree, const struct qr_laid_piece *piece)
{
    struct qr_page *page;
    uint32_t first, end;
    if (qr_repair_is_lost(piece)) return 0;
    int result = qr_repair_read_leaf(r, piece->from, &page);
    if (result != 0) return result;
    qr_repair_records(page, piece, &first, &end);
    result = put_records(r, tree, page, first, end);
    qr_free_aligned(page);
    return result;
}

/* Neighbouring pieces that are lost are one loss. */
static void tell_lost(struct qr_repair *r, const struct qr_repair_tree *tree)
{
    for (uint32_t i = 0; i < tree->piece_count; i++) {
        if (!qr_repair_is_lost(&tree->pieces[i])) continue;
        uint32_t last = i;
        while (last + 1 < tree->piece_count && qr_repair_is_lost(&tree->pieces[last + 1])) last++;
        struct quire_slice low = tree->pieces[i].low, high = tree->pieces[last].high;
        if (tree->pieces[last].infinite) high = (struct quire_slice){NULL, 0};
        qr_repair_tell(r, QUIRE_LOSS_RANGE, tree->name, low, high, "no page that verifies and is sure to count has these keys");
        i = last;
    }
}

static int create_tree(struct qr_repair *r, struct qr_repair_tree *tree)
{
    tree->options.must_create = 1;
    int result = quire_tree_open(r->to, tree->name, &tree->options, &tree->to);
    if (result == QUIRE_EXISTS) return qr_fail(QUIRE_ERR_CORRUPT, 0, "two trees are named \"%s\"", tree->name);
    if (result == 0) r->report.trees++;
    return result;
}

int qr_repair_fill(struct qr_repair *r)
{
    int result = 0;
    for (uint32_t i = 0; i < r->tree_count && result == 0; i++) {
        struct qr_repair_tree *tree = r->trees[i];
        if (tree->id == 0 || !tree->named) continue;
        result = create_tree(r, tree);
        tell_lost(r, tree);
        for (uint32_t k = 0; k < tree->piece_count && result == 0; k++) result = fill_piece(r, tree, &tree->pieces[k]);
    }
    return result;
}
