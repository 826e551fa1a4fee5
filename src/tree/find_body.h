/*
 * find_body.h: Layer 4. The plain way down, compiled once per instruction set by read.c, which defines FIND(name) and
 * FIND_TARGET before each inclusion, so that the searches of the pages become part of it.
 *
 * Plain: every word on the way is HEAD, every key lies below its page's high key, the leaf is no stub, and is the tree's: pages with
 * right checksums may lead anywhere. Gets compare only the kind of versions, which is in the line of the page that they need: they are
 * safe from records that look different. Anything else is
 * answered with QR_RETRY and goes another way, which helps and fetches.
 */

/* Goes from the root to the leaf. What `spot` is told of the parent is for writers, and dropped by a reader's compiler.
 */
FIND_TARGET static QR_ALWAYS_INLINE bool FIND(go_down)(const struct qr_tree *tree, uint32_t delta_bytes,
                                                       const struct qr_key *key, struct qr_spot *spot)
{
    qr_word word = qr_map_load(tree->env->map, tree->root);
    const uint8_t *block = qr_word_block(word);
    spot->pid = tree->root;
    spot->parent_pid = QR_PID_NONE;
    spot->by_sibling = false;
    for (unsigned level = QR_LEVELS;;) {
        if (QR_UNLIKELY(qr_word_tag(word) != QR_WORD_HEAD))
            return false;
        const struct qr_page *page = (const struct qr_page *)(const void *)block;
        if (QR_UNLIKELY(page->level >= level || qr_page_key_beyond(page, key)))
            return false; /* a way that does not go down might go in a circle: the other one says so */
        level = page->level;
        if (page->kind == QR_PAGE_LEAF) {
            spot->word = word;
            spot->page = page;
            return true;
        }
        struct qr_inner_place place = FIND(inner_place)(page, key);
        spot->parent_pid = spot->pid;
        spot->parent_word = word;
        spot->parent_index = place.group_index * QR_GROUP + place.inside;
        spot->pid = qr_inner_place_child(place);
        QR_STOP("find.parent_loaded");
        word = qr_load_child(tree, delta_bytes, place, &block);
    }
}

FIND_TARGET static bool FIND(descend)(const struct qr_tree *tree, uint32_t delta_bytes, const struct qr_key *key,
                                      struct qr_spot *ret_spot)
{
    return FIND(go_down)(tree, delta_bytes, key, ret_spot) && QR_LIKELY(ret_spot->page->tree_id == tree->id);
}

/* Searches a leaf that is all there. */
FIND_TARGET static QR_ALWAYS_INLINE int FIND(search_leaf)(const struct qr_page *page, qr_word word,
                                                          const struct qr_key *key, uint64_t version,
                                                          struct quire_value *ret_value)
{
    struct qr_leaf_view view = {page, qr_word_chain(word), qr_word_head_offset(word)};
    return answer(page, FIND(leaf_find_fast)(&view, key, version), ret_value);
}

/* The fingerprint is computed on the way, when the leaf has been asked for: nothing before that waits for it. */
FIND_TARGET static int FIND(find)(const struct qr_tree *tree, const void *data, size_t size, uint64_t version,
                                  struct quire_value *ret_value)
{
    struct qr_key key = qr_key_ordered(data, size);
    struct qr_spot spot;
    if (QR_UNLIKELY(!FIND(go_down)(tree, 0, &key, &spot)))
        return QR_RETRY;
    if (QR_UNLIKELY(!is_whole_leaf(tree, spot.page)))
        return QR_RETRY;
    QR_STOP("find.leaf_loaded");
    key.fingerprint = qr_fingerprint(qr_hash(data, size));
    return FIND(search_leaf)(spot.page, spot.word, &key, version, ret_value);
}

/* One level for all lanes: from words to child ids, asking for the words; then the words, asking for the pages. A
 * lookup that has reached its leaf, or must go the slow way, waits. False: none is on its way any more. */
FIND_TARGET static QR_ALWAYS_INLINE bool FIND(step_lanes)(const struct qr_tree *tree, const struct qr_key *keys,
                                                          uint32_t count, qr_word *words, uint8_t *lanes)
{
    const struct qr_map *map = tree->env->map;
    uint64_t pids[QR_FIND_BATCH];
    bool more = false;

    for (uint32_t i = 0; i < count; i++) {
        if (lanes[i] != LANE_DOWN)
            continue;
        if (QR_UNLIKELY(qr_word_tag(words[i]) != QR_WORD_HEAD)) {
            lanes[i] = LANE_SLOW;
            continue;
        }
        const struct qr_page *page = qr_word_block(words[i]);
        if (QR_UNLIKELY(qr_page_key_beyond(page, &keys[i]))) {
            lanes[i] = LANE_SLOW;
        } else if (page->kind == QR_PAGE_LEAF) {
            lanes[i] = is_whole_leaf(tree, page) ? LANE_LEAF : LANE_SLOW;
        } else {
            struct qr_inner_place place = FIND(inner_place)(page, &keys[i]);
            pids[i] = qr_inner_place_child(place);
            qr_map_prefetch(map, pids[i]);
            qr_prefetch_block(tree->env->arena_start + qr_where_block_offset(qr_inner_place_whereabouts(place)));
            more = true;
        }
    }
    if (!more)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (lanes[i] != LANE_DOWN)
            continue;
        words[i] = qr_map_load(map, pids[i]);
        qr_prefetch_block(qr_word_block(words[i]));
        __builtin_prefetch(qr_word_head(words[i]));
    }
    return true;
}

FIND_TARGET static void FIND(find_many)(const struct qr_tree *tree, const struct qr_key *keys, uint32_t count,
                                        uint64_t version, struct quire_value *ret_values, int *ret_results)
{
    qr_word words[QR_FIND_BATCH];
    uint8_t lanes[QR_FIND_BATCH];
    const qr_word root = qr_map_load(tree->env->map, tree->root);

    for (uint32_t i = 0; i < count; i++) {
        words[i] = root;
        lanes[i] = LANE_DOWN;
    }
    for (unsigned level = QR_LEVELS; level != 0 && FIND(step_lanes)(tree, keys, count, words, lanes); level--) {
    }
    for (uint32_t i = 0; i < count; i++) /* records: the fingerprints are there, ask for what they point at */
        if (lanes[i] == LANE_LEAF)
            FIND(leaf_prefetch_match)(qr_word_block(words[i]), &keys[i]);
    for (uint32_t i = 0; i < count; i++)
        ret_results[i] = lanes[i] != LANE_LEAF
                             ? QR_RETRY
                             : FIND(search_leaf)(qr_word_block(words[i]), words[i], &keys[i], version, &ret_values[i]);
}
