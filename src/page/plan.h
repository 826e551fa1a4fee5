/*
 * plan.h: what a new leaf is to contain, decided before any byte is copied.
 *
 * Layer 2. A plan is a list of pieces in key order: runs of records of a base page, and single records (deltas, the
 * pending record). Consolidation, split and merge are all: make a plan, measure it, get a block, write it. Runs that no
 * delta touches are copied whole.
 *
 * Retention (what may be dropped) is decided while the plan is made:
 *
 * PLAN-1  A version is kept if it is above bounds[0], or if it is the newest at or below some bound.
 * PLAN-2  A deletion goes if it is at or below the lowest bound and the base is in this page, so that nothing older can
 *         lie below it (a stub keeps its deletions).
 * PLAN-3  Of two records with equal key and version the one with the higher LSN stays; while a checkpoint as of an LSN is
 *         under way both do (rule R14).
 * PLAN-4  max_lsn and safe_version do not depend on what is kept (rule R15).
 */
#ifndef QR_PAGE_PLAN_H
#define QR_PAGE_PLAN_H

#include "page/inner.h"
#include "page/page.h"

/* bounds in descending order. count = 0: keep everything (but PLAN-3), as all versions below keep_below. */
struct qr_retention {
    const uint64_t *bounds;
    uint32_t count;
    bool keep_equal;    /* PLAN-3 does not hold: equal ones stay, the one with the higher LSN first */
    uint64_t keep_below;
    uint64_t as_of_lsn; /* 0, or records above it are left out before anything is decided */
};

struct qr_piece {
    const struct qr_page *page; /* a run of records [from, to) of this base, or NULL */
    const uint8_t *record;      /* a single record that lies elsewhere, or NULL */
    const struct qr_record_spec *spec; /* the pending record */
    uint32_t from, to;
    uint64_t bytes;
    uint8_t fingerprint; /* of a single record */
};

#define QR_PLAN_INLINE 40u

struct qr_plan {
    struct qr_piece *pieces;
    uint32_t piece_count, piece_capacity;
    bool caller;
    uint8_t align_log2;
    bool multi;        /* becomes QR_PAGE_MULTI */
    bool collected;    /* something was dropped */
    uint32_t dropped;  /* how many records were */
    bool blobs;        /* becomes QR_PAGE_BLOBS */
    uint8_t *dead;     /* references to blobs of records that were dropped; allocated */
    uint32_t dead_count;
    uint64_t dead_capacity;
    uint32_t count;    /* records */
    uint64_t bytes;    /* of records */
    uint64_t max_version;
    struct qr_piece inline_pieces[QR_PLAN_INLINE];
};

/* A plan without pieces, for pages of this kind of tree. */
void qr_plan_init(struct qr_plan *plan, bool caller, uint8_t align_log2);

/*
 * Appends all that chain and base of a leaf say, and the pending record (NULL: none), under the retention. The plan
 * keeps pointers into the page and to `pending`. False if there is no memory for pieces.
 * A pending record of a tree with engine versions has the version UINT64_MAX here.
 */
bool qr_plan_add_leaf(struct qr_plan *plan, const struct qr_leaf_view *view, const struct qr_record_spec *pending,
                      const struct qr_retention *retention);

/* Appends the records of the chain only, without the base's. */
bool qr_plan_add_chain(struct qr_plan *plan, const struct qr_leaf_view *view, const struct qr_retention *retention);

/* Appends a single record that is to be a page's first. */
bool qr_plan_add_record(struct qr_plan *plan, const struct qr_record_spec *record);

/* Appends the records of `older` that a stub's own records in `view` do not hide: joins a stub with its image. */
bool qr_plan_add_joined(struct qr_plan *plan, const struct qr_leaf_view *view, const struct qr_page *image,
                        const struct qr_record_spec *pending, const struct qr_retention *retention);

/*
 * Appends all that chain and base of a leaf say, and `count` newer records: by key, those of a key by version, newest first,
 * of equal versions the one with the higher LSN first; of engine versions the LSN is the version. view NULL: there is
 * nothing but these records, and older ones elsewhere.
 */
bool qr_plan_add_batch(struct qr_plan *plan, const struct qr_leaf_view *view, const struct qr_record_spec *records,
                       uint32_t count, const struct qr_retention *retention);

/* Frees what the plan allocated. */
void qr_plan_done(struct qr_plan *plan);

/* Key of the i-th record of the plan. */
struct quire_slice qr_plan_key(const struct qr_plan *plan, uint32_t i);

/* What a page of the records [from, to) needs. */
struct qr_leaf_measure {
    uint32_t from, to;
    uint64_t bytes;
    uint32_t stride; /* 0: records differ in size */
    uint64_t size;   /* of a block without delta area */
};
void qr_plan_measure(const struct qr_plan *plan, uint32_t from, uint32_t to, const struct qr_page_identity *identity,
                     struct qr_leaf_measure *ret_measure);

/* Header, fingerprints and heads of a leaf of so many records of one size: what there is beside records and bounds. */
static inline uint64_t qr_leaf_arrays_size(uint32_t count)
{
    return QR_PAGE_HEADER + qr_round_up(count, 64) + 4 * (uint64_t)count;
}

/* Properties of a leaf beside its identity. */
struct qr_leaf_properties {
    uint8_t flags; /* QR_PAGE_STUB, QR_PAGE_COLLECTED */
    uint64_t safe_version;
    uint64_t image_address;
    uint64_t first_lsn;
};

/*
 * Builds the leaf that was measured into block (block_size >= measure->size; what is left over becomes the delta area).
 * Returns the place of the pending record in the block if it is among the records, else NULL.
 */
uint8_t *qr_plan_write(const struct qr_plan *plan, const struct qr_leaf_measure *measure,
                       const struct qr_page_identity *identity, const struct qr_leaf_properties *properties,
                       void *block, size_t block_size);

/*
 * Where to split: the index of the first record of the right page, at the boundary between keys that is nearest to the
 * record in which byte `left_bytes` of all records lies; 0 if all records have one key.
 */
uint32_t qr_plan_split_index(const struct qr_plan *plan, uint64_t left_bytes);

#endif
