/*
 * search_body.h: Layer 2. The searches, compiled once per instruction set by search.c, which defines before each inclusion:
 * SEARCH(name), SEARCH_TARGET, match_bytes(bytes, count, wanted) and count_less(heads, count, head).
 */

/* Positions of the fingerprints equal to the wanted one, among the first `chain` of a delta's. */
SEARCH_TARGET static inline uint32_t SEARCH(chain_matches)(const struct qr_delta *head, uint32_t chain, uint8_t wanted)
{
    uint64_t bytes = qr_load_u64(head->fingerprints) ^ (wanted * 0x0101010101010101ull);
    /* A byte of `zero` is 0x80 where a byte of `bytes` is 0, exactly. */
    uint64_t zero = ~(((bytes & 0x7f7f7f7f7f7f7f7full) + 0x7f7f7f7f7f7f7f7full) | bytes | 0x7f7f7f7f7f7f7f7full);
    uint32_t bits = (uint32_t)(((zero >> 7) * 0x0102040810204080ull) >> 56);
    return bits & ((1u << chain) - 1);
}

SEARCH_TARGET static const uint8_t *SEARCH(leaf_find)(const struct qr_leaf_view *view, const struct qr_key *key,
                                                      uint64_t version)
{
    const struct qr_page *page = view->page;
    const bool caller = qr_page_caller(page);
    const uint8_t *best = NULL;
    uint64_t best_version = 0;

    if (view->chain != 0) {
        const struct qr_delta *head = qr_view_head(view);
        uint32_t matches = SEARCH(chain_matches)(head, view->chain, key->fingerprint);
        while (matches != 0) {
            uint32_t i = 31u - (uint32_t)__builtin_clz(matches);
            matches &= ~(1u << i);
            const uint8_t *record = qr_delta_record(page, head->offsets[i]);
            if (!record_has_key(record, key, caller)) continue;
            uint64_t found = qr_record_version(record, caller);
            if (found > version) continue;
            if (!caller) return record;
            if (best == NULL || found > best_version) {
                best = record;
                best_version = found;
            }
            if (best_version >= qr_page_delta(page, head->offsets[i])->highest_below) return best;
        }
    }

    const uint8_t *fingerprints = qr_page_fingerprints(page);
    for (uint32_t from = 0; from < page->count; from += 64) {
        uint64_t matches = match_bytes(fingerprints + from, qr_min(page->count - from, 64), key->fingerprint);
        while (matches != 0) {
            const uint8_t *record = qr_leaf_record(page, from + (uint32_t)__builtin_ctzll(matches));
            matches &= matches - 1;
            __builtin_prefetch(record + 64);
            __builtin_prefetch(record + 128);
            if (!record_has_key(record, key, caller)) continue;
            uint64_t found = qr_record_version(record, caller);
            if (found > version) continue;
            return best == NULL || found > best_version ? record : best;
        }
    }
    return best;
}

SEARCH_TARGET static void SEARCH(leaf_prefetch_match)(const struct qr_leaf_view *view, const struct qr_key *key)
{
    const struct qr_page *page = view->page;
    if (page->count == 0) return;
    uint64_t matches = match_bytes(qr_page_fingerprints(page), qr_min(page->count, 64), key->fingerprint);
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
    return (uint32_t)(from - heads) + count_less(from, count, head);
}

SEARCH_TARGET static uint32_t SEARCH(leaf_lower_bound)(const struct qr_page *page, const struct qr_key *key)
{
    uint32_t low = 0;
    uint32_t high = page->count;

    if (high == 0) return 0;
    if (page->prefix_size != 0) {
        int order = prefix_compare(page, key, 0);
        if (order != 0) return order < 0 ? 0 : high;
    }
    uint32_t head = qr_head32(key->data, key->size, page->prefix_size);
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

SEARCH_TARGET static uint32_t SEARCH(inner_find)(const struct qr_page *page, const struct qr_key *key)
{
    const uint32_t count = page->count;
    if (count == 1) return 0;
    if (page->prefix_size != 0) {
        int order = prefix_compare(page, key, 1);
        if (order != 0) return order < 0 ? 0 : count - 1;
    }
    const uint32_t head = qr_head32(key->data, key->size, page->prefix_size);
    const uint32_t *hints = qr_inner_hints(page);
    uint32_t group_index = SEARCH(heads_below)(hints, (count + QR_GROUP - 1) / QR_GROUP, head);
    if (group_index != 0) group_index--;
    const struct qr_inner_group *group = qr_inner_group(page, group_index);
    __builtin_prefetch(group->whereabouts);
    __builtin_prefetch(group->children);
    __builtin_prefetch(group->children + 8);
    uint32_t inside = count_less(group->heads, QR_GROUP, head);
    uint32_t below = group_index * QR_GROUP + inside;
    if (below < count) {
        uint32_t next = inside < QR_GROUP ? group->heads[inside] : hints[group_index + 1];
        if (QR_UNLIKELY(next == head)) return inner_find_tied(page, key, below, head);
    }
    return below == 0 ? 0 : below - 1;
}
