/*
 * page.h: the layout of a page in memory, and how to look at its parts.
 *
 * Layer 2. A page is one block of memory, 64-byte aligned:
 *
 *   leaf:  header | fingerprints | slots | heads | records | fences | delta area
 *   inner: header | hints | groups of 16 (heads, children) | slots | keys | fences
 *
 * PAGE-1  What is reachable through the mapping table is never modified, but for `area_used`, a reservation counter, `image`
 *         (PAGE-7), and the guesses of inner pages (inner.h).
 * PAGE-2  Records lie in key order without holes, the versions of a key together, newest first.
 * PAGE-3  If `record_stride` is not 0 all records have that size and there are no slots: record i is at
 *         records_offset + i * record_stride. Otherwise slots[i] is its offset from the start of the block.
 * PAGE-4  Fingerprints begin at the constant offset QR_PAGE_HEADER, hints too: they can be prefetched as soon as the
 *         address of the block is known.
 * PAGE-5  heads[i] are the 4 bytes of key i after the first `prefix_size` bytes, which all keys of the page share
 *         (in an inner page: all keys but that of entry 0, which stands for the low key).
 * PAGE-7  `image` is 0 as long as the content of the block, deltas apart, is in no image that the store knows; an odd number
 *         while such an image is being written; then twice its address. Whoever writes images changes it, nobody else.
 * PAGE-6  `max_lsn` and `safe_version` are properties of the page, never recomputed from its records (rule R15).
 *
 * Pure data: no atomics but area_used and image, no allocation, no globals. A reader needs an epoch section that
 * keeps the block alive. Read next: search.h, plan.h, inner.h.
 */
#ifndef QR_PAGE_PAGE_H
#define QR_PAGE_PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <quire/quire.h>

#include "base/bytes.h"
#include "base/check.h"

#define QR_PAGE_HEADER 192u /* bytes before fingerprints or hints */
#define QR_CHAIN_MAX 8u     /* deltas on a leaf at most */
#define QR_INLINE_PREFIX 16u
#define QR_GROUP 16u /* entries of an inner page searched with one vector compare */

enum qr_page_kind { QR_PAGE_LEAF = 1, QR_PAGE_INNER = 2 };

enum qr_page_flags {
    QR_PAGE_HIGH_INFINITE = 1, /* no high key: the last page of its level */
    QR_PAGE_CALLER = 2,        /* records carry a caller version beside the LSN */
    QR_PAGE_MULTI = 4,         /* some key has several versions, or there are deletions */
    QR_PAGE_STUB = 8,          /* the base of this leaf is on disk: records are the newer part only */
    QR_PAGE_COLLECTED = 16,    /* since the image: a version was dropped or a bound changed (rule R10) */
    QR_PAGE_BLOBS = 32,        /* a record may be a blob reference; the chain apart */
};

#define QR_LEVELS 256u /* a page's level is below it */

/* The first line holds what a search needs, the second what a writer needs. */
struct qr_page {
    uint8_t kind;
    uint8_t level; /* 0 = leaf */
    uint8_t flags;
    uint8_t align_log2; /* log2 of the alignment of values */
    uint32_t count;     /* records, or entries */
    uint32_t record_stride;
    uint32_t records_offset;
    uint32_t slots_offset;
    uint32_t heads_offset; /* leaf: heads; inner: groups */
    uint32_t prefix_size;  /* bytes shared by all keys */
    uint32_t bound_skip;   /* bytes shared by low and high key; 0 if one of them is infinite */
    uint64_t high_first;   /* the first 8 bytes of the high key; UINT64_MAX if infinite */
    uint64_t prefix_mask;  /* the bits of a big-endian 8-byte head that the shared prefix decides */
    uint8_t prefix[QR_INLINE_PREFIX]; /* the first bytes of the shared prefix */

    uint64_t max_lsn;
    uint32_t block_size;        /* usable bytes of the block */
    uint32_t area_offset;       /* leaf: the delta area, up to block_size */
    _Atomic uint32_t area_used; /* bytes of the area handed out to writers */
    uint32_t tree_id;
    uint64_t pid;
    uint64_t right_pid; /* 0 = none */
    uint32_t low_offset, low_size;
    uint32_t high_offset, high_size;
    uint64_t max_version; /* highest version among the records; the LSN with engine versions */

    uint64_t safe_version;  /* caller versions: what has been collected, inherited */
    uint64_t image_address; /* stub: where its image is on disk; 0 = none */
    uint64_t first_lsn;     /* oldest LSN that was in no image when the block was built; 0 = none (rule R1) */
    uint64_t high_head;     /* 8 bytes of the high key after bound_skip; UINT64_MAX if infinite */
    uint32_t content_bytes; /* what counts for split and merge: arrays and records */
    uint32_t reserved;
    _Atomic uint64_t image; /* PAGE-7 */
    uint32_t more[4];
};

QR_STATIC_ASSERT(sizeof(struct qr_page) == QR_PAGE_HEADER, "header is three lines");
QR_STATIC_ASSERT(offsetof(struct qr_page, max_lsn) == 64, "what a search needs is in the first line");

/* ---- Records ---------------------------------------------------------------------------------------------------- */

enum qr_record_kind {
    QR_RECORD_PUT = 0,
    QR_RECORD_DELETE = 1,
    QR_RECORD_BLOB = 4, /* the value is a reference (page/blob.h) */
    /* Reserved by the format: */
    QR_RECORD_MERGE = 2,
    QR_RECORD_RANGE_DELETE = 3,
    QR_RECORD_INTENT = 5,
};

/*
 * A record: LSN (8) | value size (4) | key size (24 bits), kind (4), flags (4) | version (8, only with caller versions)
 * | key | padding to the alignment | value | padding to the alignment. Records may start at any byte if the alignment
 * is 1, so they are read through the functions below.
 */
#define QR_RECORD_HEADER 16u
#define QR_RECORD_HEADER_CALLER 24u

static inline uint64_t qr_record_lsn(const uint8_t *record)
{
    return qr_load_u64(record);
}

static inline uint32_t qr_record_value_size(const uint8_t *record)
{
    return qr_load_u32(record + 8);
}

static inline uint32_t qr_record_key_size(const uint8_t *record)
{
    return qr_load_u32(record + 12) & 0xffffffu;
}

static inline unsigned qr_record_kind(const uint8_t *record)
{
    return (qr_load_u32(record + 12) >> 24) & 0xfu;
}

/* Whether a record of the kind gives its key a value. */
static inline bool qr_kind_is_value(unsigned kind)
{
    return kind == QR_RECORD_PUT || kind == QR_RECORD_BLOB;
}

static inline uint32_t qr_record_header_size(bool caller)
{
    return caller ? QR_RECORD_HEADER_CALLER : QR_RECORD_HEADER;
}

static inline uint64_t qr_record_version(const uint8_t *record, bool caller)
{
    return caller ? qr_load_u64(record + 16) : qr_load_u64(record);
}

static inline const uint8_t *qr_record_key(const uint8_t *record, bool caller)
{
    return record + qr_record_header_size(caller);
}

/* Offset of the value from the start of the record. */
static inline uint64_t qr_record_value_offset(uint32_t key_size, bool caller, unsigned align_log2)
{
    return qr_round_up((uint64_t)qr_record_header_size(caller) + key_size, (uint64_t)1 << align_log2);
}

static inline uint64_t qr_record_size_for(uint32_t key_size, uint64_t value_size, bool caller, unsigned align_log2)
{
    return qr_round_up(qr_record_value_offset(key_size, caller, align_log2) + value_size, (uint64_t)1 << align_log2);
}

static inline uint64_t qr_record_size(const uint8_t *record, bool caller, unsigned align_log2)
{
    return qr_record_size_for(qr_record_key_size(record), qr_record_value_size(record), caller, align_log2);
}

static inline const uint8_t *qr_record_value(const uint8_t *record, bool caller, unsigned align_log2)
{
    return record + qr_record_value_offset(qr_record_key_size(record), caller, align_log2);
}

static inline void qr_record_set_lsn(uint8_t *record, uint64_t lsn)
{
    qr_store_u64(record, lsn);
}

/* What a record is to say, before it lies in a page. */
struct qr_record_spec {
    const uint8_t *key;
    uint32_t key_size;
    uint32_t value_size;
    const uint8_t *value;
    uint64_t lsn;
    uint64_t version; /* used with caller versions only */
    unsigned kind;
    uint8_t fingerprint;
};

/* Writes the record and its padding to `out`, which has room for qr_record_size_for bytes. Returns that size. */
uint64_t qr_record_write(uint8_t *out, const struct qr_record_spec *spec, bool caller, unsigned align_log2);

/* ---- Leaves ----------------------------------------------------------------------------------------------------- */

static inline bool qr_page_caller(const struct qr_page *page)
{
    return (page->flags & QR_PAGE_CALLER) != 0;
}

static inline const uint8_t *qr_page_bytes(const struct qr_page *page)
{
    return (const uint8_t *)page;
}

static inline const uint8_t *qr_page_fingerprints(const struct qr_page *page)
{
    return qr_page_bytes(page) + QR_PAGE_HEADER;
}

static inline const uint32_t *qr_page_slots(const struct qr_page *page)
{
    return (const uint32_t *)(const void *)(qr_page_bytes(page) + page->slots_offset);
}

static inline const uint32_t *qr_leaf_heads(const struct qr_page *page)
{
    return (const uint32_t *)(const void *)(qr_page_bytes(page) + page->heads_offset);
}

/* Offset of record i; i = count gives the end of the last record. */
static inline uint32_t qr_leaf_record_offset(const struct qr_page *page, uint32_t i)
{
    if (QR_LIKELY(page->record_stride != 0)) return page->records_offset + i * page->record_stride;
    return qr_page_slots(page)[i];
}

static inline const uint8_t *qr_leaf_record(const struct qr_page *page, uint32_t i)
{
    return qr_page_bytes(page) + qr_leaf_record_offset(page, i);
}

static inline struct quire_slice qr_leaf_key(const struct qr_page *page, uint32_t i)
{
    const uint8_t *record = qr_leaf_record(page, i);
    return (struct quire_slice){qr_record_key(record, qr_page_caller(page)), qr_record_key_size(record)};
}

static inline struct quire_slice qr_page_low(const struct qr_page *page)
{
    return (struct quire_slice){qr_page_bytes(page) + page->low_offset, page->low_size};
}

/* Meaningless if QR_PAGE_HIGH_INFINITE. */
static inline struct quire_slice qr_page_high(const struct qr_page *page)
{
    return (struct quire_slice){qr_page_bytes(page) + page->high_offset, page->high_size};
}

/* ---- Deltas ----------------------------------------------------------------------------------------------------- */

/*
 * A delta lies in the area of its page, 16-byte aligned, and ends with one record. It tells all about the chain that it
 * heads: position i of the arrays is the i-th oldest delta, `count - 1` itself. Offsets are in units of 16 bytes from
 * the start of the block.
 */
struct qr_delta {
    uint64_t highest_below; /* highest version below it, in chain and base */
    uint8_t fingerprints[QR_CHAIN_MAX];
    uint16_t offsets[QR_CHAIN_MAX];
    uint8_t count;
    uint8_t reserved[7];
};

#define QR_DELTA_UNIT 16u
#define QR_AREA_END_MAX (65536u * QR_DELTA_UNIT) /* blocks beyond 1 MiB have no delta area */
QR_STATIC_ASSERT(sizeof(struct qr_delta) == 40, "delta header");

/* The record starts after the header, at the alignment of values. */
static inline uint32_t qr_delta_record_offset(unsigned align_log2)
{
    return (uint32_t)qr_round_up(sizeof(struct qr_delta), (uint64_t)1 << align_log2);
}

/* Bytes of area that a delta with a record of this size takes. */
static inline uint64_t qr_delta_size(uint64_t record_size, unsigned align_log2)
{
    uint64_t unit = (uint64_t)1 << align_log2;
    return qr_round_up(qr_delta_record_offset(align_log2) + record_size, unit < QR_DELTA_UNIT ? QR_DELTA_UNIT : unit);
}

static inline const struct qr_delta *qr_page_delta(const struct qr_page *page, uint32_t offset_units)
{
    return (const struct qr_delta *)(const void *)(qr_page_bytes(page) + (size_t)offset_units * QR_DELTA_UNIT);
}

static inline const uint8_t *qr_delta_record(const struct qr_page *page, uint32_t offset_units)
{
    return qr_page_bytes(page) + (size_t)offset_units * QR_DELTA_UNIT + qr_delta_record_offset(page->align_log2);
}

/* ---- A leaf as seen through one mapping word -------------------------------------------------------------------- */

/* The block and the head of its chain: what a reader or writer works on. chain = 0: no deltas. */
struct qr_leaf_view {
    const struct qr_page *page;
    uint32_t chain;
    uint32_t head_offset; /* in units of 16 bytes from the block */
};

static inline const struct qr_delta *qr_view_head(const struct qr_leaf_view *view)
{
    return qr_page_delta(view->page, view->head_offset);
}

/* The highest LSN of chain and base. */
static inline uint64_t qr_view_max_lsn(const struct qr_leaf_view *view)
{
    if (view->chain == 0) return view->page->max_lsn;
    return qr_record_lsn(qr_delta_record(view->page, view->head_offset));
}

/* Whether what the block holds, deltas apart, is in an image (PAGE-7). */
static inline bool qr_page_has_image(const struct qr_page *page)
{
    /* relaxed: whoever does not see it yet takes the page for less saved than it is */
    uint64_t image = atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)&page->image, memory_order_relaxed);
    return image != 0 && (image & 1) == 0;
}

/* The oldest LSN of base and chain that is in no image, or a lower one; 0: all are (first-unflushed LSN, rule R1). */
static inline uint64_t qr_view_first_lsn(const struct qr_leaf_view *view)
{
    const struct qr_page *page = view->page;
    if (page->first_lsn != 0 && !qr_page_has_image(page)) return page->first_lsn;
    if (view->chain == 0) return 0;
    return qr_record_lsn(qr_delta_record(page, qr_view_head(view)->offsets[0]));
}

/* The highest version of chain and base. */
static inline uint64_t qr_view_max_version(const struct qr_leaf_view *view)
{
    if (view->chain == 0) return view->page->max_version;
    const uint8_t *record = qr_delta_record(view->page, view->head_offset);
    uint64_t version = qr_record_version(record, qr_page_caller(view->page));
    uint64_t below = qr_view_head(view)->highest_below;
    return version > below ? version : below;
}

/* Copies the header of an installed leaf to that of a new one, whose area is untouched. */
void qr_page_copy_header(struct qr_page *to, const struct qr_page *from);

/* ---- Checking --------------------------------------------------------------------------------------------------- */

/* Walks everything in a page that invariants say. NULL, or a static text that names what is wrong. */
const char *qr_page_check(const struct qr_page *page);

/* The same for bytes that may be anything, 64-byte aligned, such as an image read from a disk: the page and all that it
 * points to must lie in the first `size` bytes; nothing beyond them is read. */
const char *qr_page_check_bytes(const void *bytes, size_t size);

/* Writes a readable dump of the page and, for a leaf, its chain; returns the length it would have (as snprintf). */
size_t qr_page_dump(const struct qr_leaf_view *view, char *out, size_t capacity);

#endif
