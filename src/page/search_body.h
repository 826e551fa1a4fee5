/*
 * search_body.h: Layer 2. The searches, compiled once per instruction set by search_isa.h, which defines before each
 * inclusion SEARCH(name) and SEARCH_TARGET, and these functions under their names for the instruction set:
 *
 *     match_bytes(bytes, count, wanted)   positions of a byte among up to 64
 *     match_8(bytes, wanted)              the same among 8
 *     count_less(heads, count, head)      number of heads below one
 *     rank_16(heads, head, &tied)         the same among 16; tied becomes not 0 if one is equal
 */

/* The record of the base for the key with the highest version not above `version`, if that is above best's. */
SEARCH_TARGET static inline const uint8_t *SEARCH(base_find)(const struct qr_page *page, const struct qr_key *key,
                                                             uint64_t version, const uint8_t *best)
{
    const bool caller = qr_page_caller(page);
    const uint8_t *fingerprints = qr_page_fingerprints(page);
    for (uint32_t from = 0; from < page->count; from += 64) {
        uint64_t matches = SEARCH(match_bytes)(fingerprints + from, qr_min(page->count - from, 64), key->fingerprint);
        while (matches != 0) {
            const uint8_t *record = qr_leaf_record(page, from + (uint32_t)__builtin_ctzll(matches));
            matches &= matches - 1;
            __builtin_prefetch(record + 64);
            __builtin_prefetch(record + 128);
            if (!record_has_key(record, key, caller)) continue;
            uint64_t found = qr_record_version(record, caller);
            if (found > version) continue;
            return best == NULL || found > qr_record_version(best, caller) ? record : best;
        }
    }
    return best;
}

SEARCH_TARGET static const uint8_t *SEARCH(leaf_find)(const struct qr_leaf_view *view, const struct qr_key *key,
                                                      uint64_t version)
{
    const struct qr_page *page = view->page;
    const bool caller = qr_page_caller(page);
    const struct qr_delta *head = qr_view_head(view); /* without a chain: the page itself, all matches masked */
    uint32_t matches = SEARCH(match_8)(head->fingerprints, key->fingerprint) & ((1u << view->chain) - 1);
    const uint8_t *best = NULL;

    while (matches != 0) {
        uint32_t i = 31u - (uint32_t)__builtin_clz(matches);
        matches &= ~(1u << i);
        const uint8_t *record = qr_delta_record(page, head->offsets[i]);
        if (!record_has_key(record, key, caller)) continue;
        uint64_t found = qr_record_version(record, caller);
        if (found > version) continue;
        if (!caller) return record;
        if (best == NULL || found > qr_record_version(best, caller)) best = record;
        if (qr_record_version(best, caller) >= qr_page_delta(page, head->offsets[i])->highest_below) return best;
    }
    return SEARCH(base_find)(page, key, version, best);
}

/* The same, for the case that is worth its place in a lookup: engine versions, the key not in the chain, at most 64 records
 * in the base. Everything else goes to the general one. */
SEARCH_TARGET static QR_ALWAYS_INLINE const uint8_t *SEARCH(leaf_find_fast)(const struct qr_leaf_view *view,
                                                                            const struct qr_key *key, uint64_t version)
{
    const struct qr_page *page = view->page;
    const uint32_t count = page->count;
    uint32_t chained = SEARCH(match_8)(qr_view_head(view)->fingerprints, key->fingerprint);
    if (QR_UNLIKELY((chained & ((1u << view->chain) - 1)) != 0 || qr_page_caller(page) || count - 1 > 63))
        return SEARCH(leaf_find)(view, key, version);
    uint64_t matches = SEARCH(match_bytes)(qr_page_fingerprints(page), count, key->fingerprint);
    while (matches != 0) {
        const uint8_t *record = qr_leaf_record(page, (uint32_t)__builtin_ctzll(matches));
        matches &= matches - 1;
        __builtin_prefetch(record + 64);
        __builtin_prefetch(record + 128);
        if (record_has_key(record, key, false) && qr_record_lsn(record) <= version) return record;
    }
    return NULL;
}

/* Asks for the cache lines of the first record of the base that may be the key's. */
SEARCH_TARGET static inline void SEARCH(leaf_prefetch_match)(const struct qr_page *page, const struct qr_key *key)
{
    if (page->count == 0) return;
    uint64_t matches =
        SEARCH(match_bytes)(qr_page_fingerprints(page), qr_min(page->count, 64), key->fingerprint);
    if (matches == 0) return;
    const uint8_t *record = qr_leaf_record(page, (uint32_t)__builtin_ctzll(matches));
    __builtin_prefetch(record);
    __builtin_prefetch(record + 64);
    __builtin_prefetch(record + 128);
}

/* Number of heads below `head` among `count` sorted ones. */
SEARCH_TARGET static inline uint32_t SEARCH(heads_below)(const uint32_t *heads, uint32_t count, uint32_t head)
{
    const uint32_t *from = heads;
    while (count > 64) { /* halve down to what a few vector compares do */
        uint32_t half = count / 2;
        from = from[half - 1] < head ? from + half : from;
        count -= half;
    }
    return (uint32_t)(from - heads) + SEARCH(count_less)(from, count, head);
}

SEARCH_TARGET static uint32_t SEARCH(leaf_lower_bound)(const struct qr_page *page, const struct qr_key *key)
{
    uint32_t low = 0;
    uint32_t high = page->count;

    if (high == 0) return 0;
    uint32_t head;
    if (!head_after_prefix(page, key, &head)) {
        int order = qr_prefix_order(page, key, 0, &head);
        if (order != 0) return order < 0 ? 0 : high;
    }
    const uint32_t *heads = qr_leaf_heads(page);
    low = SEARCH(heads_below)(heads, high, head);
    if (low == high || heads[low] != head) return low;
    while (low < high) { /* among equal heads (and what follows) by full keys */
        uint32_t middle = low + (high - low) / 2;
        struct quire_slice other = qr_leaf_key(page, middle);
        if (heads[middle] == head && qr_compare(other.data, other.size, key->data, key->size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Where the entry for a key is. The index is the group's times 16 and what is inside. */
SEARCH_TARGET static QR_ALWAYS_INLINE struct qr_inner_place SEARCH(inner_place)(const struct qr_page *page,
                                                                                const struct qr_key *key)
{
    const uint32_t count = page->count;
    uint32_t head;
    if (QR_UNLIKELY(!head_after_prefix(page, key, &head))) {
        int order = count > 1 ? qr_prefix_order(page, key, 1, &head) : -1;
        if (order != 0) return qr_inner_place(page, order < 0 ? 0 : count - 1);
    }
    /* Hints and groups are padded to 16 with the highest head, so they are compared whole; the head equal to it looks
     * tied. */
    const uint32_t *hints = qr_inner_hints(page);
    uint32_t tied = 0;
    uint32_t g;
    if (QR_LIKELY(count <= 16 * QR_GROUP)) {
        g = SEARCH(rank_16)(hints, head, &tied);
    } else {
        const uint32_t groups = (count + QR_GROUP - 1) / QR_GROUP;
        g = SEARCH(heads_below)(hints, groups, head);
        tied = g < groups && hints[g] == head;
    }
    g -= g != 0;
    const struct qr_inner_group *group = qr_inner_group(page, g);
    __builtin_prefetch(group->whereabouts);
    __builtin_prefetch(group->whereabouts + 8);
    __builtin_prefetch(group->children);
    __builtin_prefetch(group->children + 8);
    uint32_t inside = SEARCH(rank_16)(group->heads, head, &tied);
    if (QR_UNLIKELY(tied != 0))
        return qr_inner_place(page, qr_inner_find_tied(page, key, g * QR_GROUP + inside, head));
    inside -= inside != 0;
    return (struct qr_inner_place){group, g, inside, head - group->heads[inside]};
}

SEARCH_TARGET static uint32_t SEARCH(inner_find)(const struct qr_page *page, const struct qr_key *key)
{
    struct qr_inner_place place = SEARCH(inner_place)(page, key);
    return place.group_index * QR_GROUP + place.inside;
}
