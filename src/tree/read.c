/*
 * read.c: point lookups, one at a time and interleaved.
 *
 * Layer 4. Linearization point of a lookup: the load of the leaf's mapping word whose page covers the key. The words of
 * the pages above only have to lead there.
 */
#include "tree/internal.h"

/* Lines of a page that a search will want, asked for as soon as its address is known. */
static inline void prefetch_page(qr_word word)
{
    const uint8_t *block = qr_word_block(word);
    qr_prefetch_block(block);
    if (qr_word_chain(word) != 0)
        __builtin_prefetch(block + (size_t)qr_word_head_offset(word) * QR_DELTA_UNIT);
}

static inline void set_value(struct quire_value *ret_value, const struct qr_page *page, const uint8_t *record)
{
    const bool caller = qr_page_caller(page);
    ret_value->data = qr_record_value(record, caller, page->align_log2);
    ret_value->size = qr_record_value_size(record);
    ret_value->lsn = qr_record_lsn(record);
    ret_value->version = qr_record_version(record, caller);
}

/* Searches a leaf that is all there. */
static inline int search_leaf(const struct qr_page *page, qr_word word, const struct qr_key *key, uint64_t version,
                              struct quire_value *ret_value)
{
    struct qr_leaf_view view = {page, qr_word_chain(word), qr_word_head_offset(word)};
    const uint8_t *record = qr_leaf_find(&view, key, version);
    if (record == NULL || qr_record_kind(record) != QR_RECORD_PUT) return QUIRE_NOT_FOUND;
    set_value(ret_value, view.page, record);
    return 0;
}

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

/* Any way down but the plain one. */
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
    return search_leaf(spot.page, spot.word, key, version, ret_value);
}

int qr_tree_find(struct qr_op *op, const struct qr_key *key, uint64_t version, struct quire_value *ret_value)
{
    qr_word word = qr_map_load(qr_op_map(op), op->tree->root);
    const uint8_t *block = qr_word_block(word);
    for (;;) {
        if (QR_UNLIKELY(qr_word_tag(word) != QR_WORD_HEAD)) return find_slow(op, key, version, ret_value);
        const struct qr_page *page = (const struct qr_page *)(const void *)block;
        if (QR_UNLIKELY(qr_page_key_beyond(page, key))) return find_slow(op, key, version, ret_value);
        if (page->kind == QR_PAGE_LEAF) {
            if (QR_UNLIKELY((page->flags & QR_PAGE_STUB) != 0)) return find_slow(op, key, version, ret_value);
            QR_STOP("find.leaf_loaded");
            return search_leaf(page, word, key, version, ret_value);
        }
        QR_STOP("find.parent_loaded");
        word = qr_load_child(op, page, qr_inner_find(page, key), &block);
    }
}

/* ---- Many at once ----------------------------------------------------------------------------------------------- */

/* One level for all: from words to child ids, asking for the words; then the words, asking for the pages. A lookup that
 * has reached its leaf, or must go the slow way, waits. */
enum lane { LANE_DOWN, LANE_LEAF, LANE_SLOW };

static bool step_lanes(struct qr_op *op, const struct qr_key *keys, uint32_t count, qr_word *words, uint8_t *lanes)
{
    const struct qr_map *map = qr_op_map(op);
    uint64_t pids[QR_FIND_BATCH];
    bool more = false;

    for (uint32_t i = 0; i < count; i++) {
        if (lanes[i] != LANE_DOWN) continue;
        if (QR_UNLIKELY(qr_word_tag(words[i]) != QR_WORD_HEAD)) {
            lanes[i] = LANE_SLOW;
            continue;
        }
        const struct qr_page *page = qr_word_block(words[i]);
        if (QR_UNLIKELY(qr_page_key_beyond(page, &keys[i]))) {
            lanes[i] = LANE_SLOW;
        } else if (page->kind == QR_PAGE_LEAF) {
            lanes[i] = (page->flags & QR_PAGE_STUB) != 0 ? LANE_SLOW : LANE_LEAF;
        } else {
            uint32_t index = qr_inner_find(page, &keys[i]);
            pids[i] = qr_inner_child(page, index);
            qr_map_prefetch(map, pids[i]);
            qr_prefetch_block(op->tree->env->arena_start + (uint64_t)qr_inner_whereabouts(page, index) * 64);
            more = true;
        }
    }
    if (!more) return false;
    for (uint32_t i = 0; i < count; i++) {
        if (lanes[i] != LANE_DOWN) continue;
        words[i] = qr_map_load(map, pids[i]);
        prefetch_page(words[i]);
    }
    return true;
}

void qr_tree_find_many(struct qr_op *op, const struct qr_key *keys, uint32_t count, uint64_t version,
                       struct quire_value *ret_values, int *ret_results)
{
    qr_word words[QR_FIND_BATCH];
    uint8_t lanes[QR_FIND_BATCH];
    qr_word root = qr_map_load(qr_op_map(op), op->tree->root);

    QR_ASSERT(count <= QR_FIND_BATCH);
    for (uint32_t i = 0; i < count; i++) {
        words[i] = root;
        lanes[i] = LANE_DOWN;
    }
    while (step_lanes(op, keys, count, words, lanes)) {
    }
    for (uint32_t i = 0; i < count; i++) { /* records: the fingerprints are there, ask for what they point at */
        if (lanes[i] != LANE_LEAF) continue;
        struct qr_leaf_view view = qr_view_of(words[i]);
        qr_leaf_prefetch_match(&view, &keys[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        ret_results[i] = QR_RETRY;
        if (lanes[i] == LANE_LEAF) ret_results[i] = search_leaf(qr_word_block(words[i]), words[i], &keys[i], version, &ret_values[i]);
    }
}
