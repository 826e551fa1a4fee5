/*
 * read.c: point lookups, one at a time and interleaved, and the plain way down for writers.
 *
 * Layer 4. Linearization point of a lookup: the load of the leaf's mapping word whose page covers the key. The words of
 * the pages above only have to lead there.
 */
#include "page/search_isa.h"
#include "tree/internal.h"

/* What a lookup answers that has found this record of the leaf; NULL: none. */
static QR_ALWAYS_INLINE int answer(const struct qr_page *page, const uint8_t *record, struct quire_value *ret_value)
{
    if (record == NULL) return QUIRE_NOT_FOUND;
    const unsigned kind = qr_record_kind(record);
    if (QR_UNLIKELY(!qr_kind_is_value(kind))) return QUIRE_NOT_FOUND;
    const bool caller = qr_page_caller(page);
    ret_value->data = qr_record_value(record, caller, page->align_log2);
    ret_value->size = qr_record_value_size(record);
    ret_value->lsn = qr_record_lsn(record);
    ret_value->version = qr_record_version(record, caller);
    return QR_LIKELY(kind == QR_RECORD_PUT) ? 0 : QR_BLOB;
}

/* Not a stub, and with versions as the tree's. */
static QR_ALWAYS_INLINE bool is_whole_leaf(const struct qr_tree *tree, const struct qr_page *page)
{
    unsigned expected = tree->settings.caller_versions ? QR_PAGE_CALLER : 0;
    return (page->flags & (QR_PAGE_STUB | QR_PAGE_CALLER)) == expected;
}

enum lane { LANE_DOWN, LANE_LEAF, LANE_SLOW };

/* ---- The plain way ---------------------------------------------------------------------------------------------- */

#define FIND(name) name##_plain
#define FIND_TARGET QR_TARGET_PLAIN
#include "tree/find_body.h"
#undef FIND
#undef FIND_TARGET

#if QR_SEARCH_X86
#define FIND(name) name##_avx2
#define FIND_TARGET QR_TARGET_AVX2
#include "tree/find_body.h"
#undef FIND
#undef FIND_TARGET

#define FIND(name) name##_avx512
#define FIND_TARGET QR_TARGET_AVX512
#include "tree/find_body.h"
#undef FIND
#undef FIND_TARGET

/* Calls the function for the instruction set in use. */
#define DISPATCH(name, ...)                                                                                            \
    (qr_search_isa() == QR_SEARCH_AVX512 ? name##_avx512(__VA_ARGS__)                                                  \
     : qr_search_isa() == QR_SEARCH_AVX2 ? name##_avx2(__VA_ARGS__)                                                    \
                                         : name##_plain(__VA_ARGS__))
#else
#define DISPATCH(name, ...) name##_plain(__VA_ARGS__)
#endif

int qr_tree_find_plain(const struct qr_tree *tree, const void *key, size_t key_size, uint64_t version,
                       struct quire_value *ret_value)
{
    return DISPATCH(find, tree, key, key_size, version, ret_value);
}

bool qr_descend_plain(const struct qr_op *op, const struct qr_key *key, struct qr_spot *ret_spot)
{
    return DISPATCH(descend, op->tree, op->delta_bytes, key, ret_spot);
}

void qr_tree_find_many(const struct qr_tree *tree, const struct qr_key *keys, uint32_t count, uint64_t version,
                       struct quire_value *ret_values, int *ret_results)
{
    QR_ASSERT(count <= QR_FIND_BATCH);
    DISPATCH(find_many, tree, keys, count, version, ret_values, ret_results);
}

/* ---- Any other way ---------------------------------------------------------------------------------------------- */

/* Whether what a stub says of the key is all there is to say: its records are newer than those of the image. A caller's
 * version may be topped by one in the image, unless it is the very version asked for. */
static bool stub_decides(struct qr_op *op, qr_word word, const struct qr_key *key, uint64_t version)
{
    struct qr_leaf_view view = qr_view_of(word);
    const uint8_t *record = qr_leaf_find(&view, key, version);
    if (QR_BUG(stub_is_whole)) return true;
    if (record == NULL) return false;
    return !op->tree->settings.caller_versions || qr_record_version(record, true) == version;
}

static QR_NOINLINE int find_slow(struct qr_op *op, const struct qr_key *key, uint64_t version,
                                 struct quire_value *ret_value)
{
    struct qr_spot spot;
    int result;
    do {
        result = qr_descend_read(op, key, false, &spot);
        if (result == 0 && (spot.page->flags & QR_PAGE_STUB) != 0 && !stub_decides(op, spot.word, key, version))
            result = qr_join(op, &spot);
    } while (result == QR_RETRY);
    if (result != 0) return result;
    struct qr_leaf_view view = qr_view_of(spot.word);
    return answer(view.page, qr_leaf_find(&view, key, version), ret_value);
}

int qr_tree_find(struct qr_op *op, const struct qr_key *key, uint64_t version, struct quire_value *ret_value)
{
    int result = qr_tree_find_plain(op->tree, key->data, key->size, version, ret_value);
    return QR_LIKELY(result != QR_RETRY) ? result : find_slow(op, key, version, ret_value);
}
