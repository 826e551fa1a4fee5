/*
 * inner.h: inner pages: their layout, and the copies that replace them.
 *
 * Layer 2. An inner page maps keys to children: entry i covers [key i, key i+1); entry 0 has the page's low key. Inner
 * pages carry no deltas: each change builds a new page. Entries lie in groups of 16: their heads, then their children,
 * so that one vector compare over the hints (the first head of each group) and one over the group find the entry, and
 * the child is in a line that was fetched along.
 *
 * Beside each child stand its whereabouts: where its block was when somebody last looked, and, if it was a leaf with
 * evenly spaced keys, where in it a key's record is to be expected. They save a reader from waiting for the child's
 * mapping word before he asks for the memory of the block, and for the leaf's fingerprints before he asks for that of
 * the record. They are guesses and used for nothing but prefetches, so they may be wrong, and are the one thing in an
 * installed inner page that changes (relaxed atomics).
 *
 * INNER-1 Entry 0 is never marked: a marked entry and its left neighbour are in one page.
 * INNER-2 Of two neighbouring entries at most one is marked.
 */
#ifndef QR_PAGE_INNER_H
#define QR_PAGE_INNER_H

#include <stdatomic.h>

#include "page/page.h"

/* In a child word: the child is being merged into its left neighbour. */
#define QR_CHILD_MERGING ((uint64_t)1 << 63)

/*
 * Whereabouts: block, in units of 64 bytes from the start of the arena (32 bits, 0: not known) | place of the record of
 * the entry's own head, in units of 4 bytes from the start of the block (16) | bytes by which the place moves as the
 * head grows by one: a mantissa (11, 0: not known) to be shifted right by an exponent (5).
 */
#define QR_WHERE_FIRST_SHIFT 32
#define QR_WHERE_SLOPE_SHIFT 48
#define QR_WHERE_EXPONENT_SHIFT 59

static inline uint64_t qr_where_block_offset(uint64_t whereabouts)
{
    return (uint64_t)(uint32_t)whereabouts * 64;
}

/* The block part: 0 if the block lies outside the arena or too far up. */
static inline uint64_t qr_where_block(const uint8_t *arena_start, const void *block)
{
    uint64_t units = (uint64_t)((const uint8_t *)block - arena_start) / 64;
    return units <= UINT32_MAX ? units : 0;
}

/* Offset of the record from the block; 0 if no guess is to be had. */
static inline uint64_t qr_where_record_offset(uint64_t whereabouts, uint32_t distance)
{
    uint64_t mantissa = (whereabouts >> QR_WHERE_SLOPE_SHIFT) & 0x7ff;
    if (mantissa == 0) return 0;
    return ((whereabouts >> QR_WHERE_FIRST_SHIFT) & 0xffff) * 4 +
           (distance * mantissa >> (whereabouts >> QR_WHERE_EXPONENT_SHIFT));
}

struct qr_inner_group {
    uint32_t heads[QR_GROUP];
    _Atomic uint64_t whereabouts[QR_GROUP];
    uint64_t children[QR_GROUP];
};
QR_STATIC_ASSERT(sizeof(struct qr_inner_group) == 320, "a group is five lines");

static inline const uint32_t *qr_inner_hints(const struct qr_page *page)
{
    return (const uint32_t *)(const void *)(qr_page_bytes(page) + QR_PAGE_HEADER);
}

static inline const struct qr_inner_group *qr_inner_group(const struct qr_page *page, uint32_t g)
{
    return (const struct qr_inner_group *)(const void *)(qr_page_bytes(page) + page->heads_offset) + g;
}

/* An entry, by its group and its place in there, and how far a key's head lies above the entry's. */
struct qr_inner_place {
    const struct qr_inner_group *group;
    uint32_t group_index, inside;
    uint32_t distance;
};

static inline struct qr_inner_place qr_inner_place(const struct qr_page *page, uint32_t i)
{
    return (struct qr_inner_place){qr_inner_group(page, i / QR_GROUP), i / QR_GROUP, i % QR_GROUP, 0};
}

static inline uint64_t qr_inner_place_child(struct qr_inner_place place)
{
    return place.group->children[place.inside] & ~QR_CHILD_MERGING;
}

static inline uint64_t qr_inner_place_whereabouts(struct qr_inner_place place)
{
    /* relaxed: a guess for a prefetch */
    return atomic_load_explicit(&place.group->whereabouts[place.inside], memory_order_relaxed);
}

static inline uint64_t qr_inner_child_word(const struct qr_page *page, uint32_t i)
{
    return qr_inner_group(page, i / QR_GROUP)->children[i % QR_GROUP];
}

static inline uint64_t qr_inner_child(const struct qr_page *page, uint32_t i)
{
    return qr_inner_child_word(page, i) & ~QR_CHILD_MERGING;
}

static inline bool qr_inner_merging(const struct qr_page *page, uint32_t i)
{
    return (qr_inner_child_word(page, i) & QR_CHILD_MERGING) != 0;
}

static inline uint64_t qr_inner_whereabouts(const struct qr_page *page, uint32_t i)
{
    return qr_inner_place_whereabouts(qr_inner_place(page, i));
}

/* The block of a child has moved. The page may be installed, or replaced meanwhile: then this is lost. */
static inline void qr_inner_place_moved(struct qr_inner_place place, uint64_t whereabouts)
{
    struct qr_inner_group *group = (struct qr_inner_group *)(uintptr_t)place.group;
    /* relaxed: as above */
    atomic_store_explicit(&group->whereabouts[place.inside], whereabouts, memory_order_relaxed);
}

static inline void qr_inner_moved(const struct qr_page *page, uint32_t i, uint64_t whereabouts)
{
    qr_inner_place_moved(qr_inner_place(page, i), whereabouts);
}

/* Key i: 4 bytes of size, then the bytes. */
static inline struct quire_slice qr_inner_key(const struct qr_page *page, uint32_t i)
{
    const uint8_t *at = qr_page_bytes(page) + qr_page_slots(page)[i];
    return (struct quire_slice){at + 4, qr_load_u32(at)};
}

/* The part of the whereabouts of child i that tells where records are: 0 unless the child is a leaf of records of one
 * size whose keys are evenly spaced. */
uint64_t qr_inner_fit(const struct qr_page *page, uint32_t i, const struct qr_page *child);

struct qr_inner_entry {
    struct quire_slice key; /* of entry 0: ignored, the low key counts */
    uint64_t child;         /* with QR_CHILD_MERGING, if so */
    uint64_t whereabouts;
    uint32_t prefix_size; /* of the page whose heads the whereabouts are for */
};

/* Where the parts of an inner page lie. Of 64 bits: of a page from a disk the sum may be more than 32 can hold. */
struct qr_inner_layout {
    uint64_t groups, slots, keys, fences, end;
};

/* key_bytes, fence_bytes: of all keys with their sizes, and of both fences. */
static inline struct qr_inner_layout qr_inner_lay_out(uint32_t count, uint64_t key_bytes, uint64_t fence_bytes)
{
    struct qr_inner_layout at;
    uint64_t group_count = ((uint64_t)count + QR_GROUP - 1) / QR_GROUP;
    at.groups = QR_PAGE_HEADER + qr_round_up(group_count * sizeof(uint32_t), 64);
    at.slots = at.groups + group_count * sizeof(struct qr_inner_group);
    at.keys = at.slots + sizeof(uint32_t) * (uint64_t)count;
    at.fences = at.keys + key_bytes;
    at.end = at.fences + fence_bytes;
    return at;
}

/* What identifies a page, beside its contents. Slices are copied into the page. */
struct qr_page_identity {
    uint64_t pid;
    uint64_t right_pid;
    uint32_t tree_id;
    uint8_t level;
    bool high_infinite;
    struct quire_slice low, high;
    uint64_t max_lsn;
};

/* Bytes of block that an inner page of these entries needs. */
size_t qr_inner_size(const struct qr_inner_entry *entries, uint32_t count, const struct qr_page_identity *identity);

/* Builds the page into block (block_size bytes, at least qr_inner_size, 64-byte aligned). count >= 1. */
void qr_inner_build(void *block, size_t block_size, const struct qr_inner_entry *entries, uint32_t count,
                    const struct qr_page_identity *identity);

/*
 * A copy with one entry more, which becomes number `index` (1 to count), for a page that was split off its left neighbour; the
 * whereabouts of these two are not known. Only for a key that may be inserted, that is, shares with the others what they
 * share: else the page has to be built. block: at least qr_inner_insert_size bytes, 64-byte aligned. The same page as that of
 * qr_inner_build.
 */
bool qr_inner_may_insert(const struct qr_page *page, struct quire_slice key);
size_t qr_inner_insert_size(const struct qr_page *page, struct quire_slice key);
void qr_inner_insert(const struct qr_page *page, uint32_t index, struct quire_slice key, uint64_t child, void *block,
                     size_t block_size);

/* Copies the entries of a page into an array of page->count entries, whose keys point into the page. */
void qr_inner_entries(const struct qr_page *page, struct qr_inner_entry *ret_entries);

/* The page's identity, its slices pointing into it. */
struct qr_page_identity qr_page_identity(const struct qr_page *page);

/* Fills in what the identity says, and copies its fences to their offset; used by both builders. The other flags are set
 * already. */
void qr_page_set_identity(struct qr_page *page, const struct qr_page_identity *identity, uint32_t fences_offset);

/* Fills bounds, prefix and head of the high key from the fences already copied; used by both builders. first and last:
 * keys whose common prefix all keys share; ignored if there are no keys. */
void qr_page_set_bounds(struct qr_page *page, bool has_keys, struct quire_slice first, struct quire_slice last);

/* Index at which to split: 1 <= index < count, entry index is not marked and becomes the first of the right page. 0 if
 * there is no such place. `at_end`: the page grows at its right end, leave the left half full. */
uint32_t qr_inner_split_index(const struct qr_page *page, bool at_end);

#endif
