/*
 * search.h: finding a key in a page.
 *
 * Layer 2. Point lookups in a leaf compare one-byte fingerprints, all at once; ordered lookups and inner pages compare
 * 4-byte heads. The vector code is chosen at run time (AVX-512, AVX2, plain C); the plain version is the oracle of the
 * tests. Pure functions of their arguments; the caller keeps the block alive.
 */
#ifndef QR_PAGE_SEARCH_H
#define QR_PAGE_SEARCH_H

#include "base/hash.h"
#include "page/page.h"

/* A key to look for, with all that the searches want to know about it. The bytes belong to the caller. */
struct qr_key {
    const uint8_t *data;
    uint32_t size;
    uint32_t reach; /* bytes up to which heads of 4 bytes can be loaded, if the prefix is decided by `head` */
    uint64_t head;  /* qr_head64(data, size, 0) */
    uint8_t fingerprint;
};

/* For ordered searches only, which do not look at the fingerprint. */
static inline struct qr_key qr_key_ordered(const void *data, size_t size)
{
    return (struct qr_key){
        .data = (const uint8_t *)data,
        .size = (uint32_t)size,
        .reach = size < 8 + 4 ? (uint32_t)size : 8 + 4,
        .head = qr_head64((const uint8_t *)data, size, 0),
    };
}

static inline struct qr_key qr_key_make(const void *data, size_t size)
{
    struct qr_key key = qr_key_ordered(data, size);
    key.fingerprint = qr_fingerprint(qr_hash(data, size));
    return key;
}

/* The vector code in use, and the choice of another (tests): false if the machine lacks it. Not for use while other
 * threads search. */
enum qr_search_isa { QR_SEARCH_PLAIN = 0, QR_SEARCH_AVX2 = 1, QR_SEARCH_AVX512 = 2 };
bool qr_search_select(enum qr_search_isa isa);

struct qr_search_ops {
    enum qr_search_isa isa;
    const uint8_t *(*leaf_find)(const struct qr_leaf_view *view, const struct qr_key *key, uint64_t version);
    uint32_t (*leaf_lower_bound)(const struct qr_page *page, const struct qr_key *key);
    uint32_t (*inner_find)(const struct qr_page *page, const struct qr_key *key);
};
extern struct qr_search_ops qr_search;

static inline enum qr_search_isa qr_search_isa(void)
{
    return qr_search.isa;
}

/*
 * The record of chain or base with the highest version not above `version` for that key; NULL if there is none. A
 * deletion is returned as the record that it is. Of equal versions the one installed last.
 */
static inline const uint8_t *qr_leaf_find(const struct qr_leaf_view *view, const struct qr_key *key, uint64_t version)
{
    return qr_search.leaf_find(view, key, version);
}

/* Base page: index of the first record whose key is not below `key` (its newest version); count if there is none. */
static inline uint32_t qr_leaf_lower_bound(const struct qr_page *page, const struct qr_key *key)
{
    return qr_search.leaf_lower_bound(page, key);
}

/* Inner page: index of the entry whose child covers `key` (0 for keys below the low key). */
static inline uint32_t qr_inner_find(const struct qr_page *page, const struct qr_key *key)
{
    return qr_search.inner_find(page, key);
}

/* Rare halves of the searches. */

/* Order of the key's first prefix_size bytes against the prefix that the page's keys share; 0: the key has it, and
 * *ret_head is its head behind it. index: an entry or record that has it too. */
int qr_prefix_order(const struct qr_page *page, const struct qr_key *key, uint32_t index, uint32_t *ret_head);

/* Inner page: entries from `from` on may have the key's head; compares full keys. Entry 0 counts as below every key. */
uint32_t qr_inner_find_tied(const struct qr_page *page, const struct qr_key *key, uint32_t from, uint32_t head);

/* Of qr_page_key_beyond: the first 8 bytes are those of the high key. */
bool qr_page_key_beyond_slow(const struct qr_page *page, const struct qr_key *key);

/* Whether the key lies at or above the page's high key: it belongs to a page further right. */
static inline bool qr_page_key_beyond(const struct qr_page *page, const struct qr_key *key)
{
    if (QR_LIKELY(key->head < page->high_first)) return false;
    return qr_page_key_beyond_slow(page, key);
}

/* Whether the key lies below the page's low key. */
static inline bool qr_page_key_below(const struct qr_page *page, const struct qr_key *key)
{
    struct quire_slice low = qr_page_low(page);
    return qr_compare(key->data, key->size, low.data, low.size) < 0;
}

#endif
