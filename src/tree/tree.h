/*
 * tree.h: the Bw-tree: what the layers above may do with it.
 *
 * Layer 4. A tree is a root page id; everything else is in the mapping table. Leaves carry chains of deltas, inner pages
 * are replaced. src/tree/README.md tells the algorithm, doc/concurrency.md argues each window.
 *
 * TREE-1  The root keeps its id. Every level is a list of pages by ascending keys, linked to the right; a page covers
 *         [low key, high key); the left-most low key is empty, the right-most page has no high key.
 * TREE-2  A page installed at a word has a max_lsn not below that of what it replaces, and a record installed has an LSN
 *         above it: per page, install order is LSN order (growing-LSN rule).
 * TREE-3  The tree does no I/O. A call that needs a page which is on disk returns QR_FETCH with the address in the op;
 *         the caller reads it, hands the image in by qr_op_add_image and calls again.
 * TREE-4  Calls are made inside an epoch section of op->thread, and what they hand out lives as long as that section.
 *
 * Progress: lock-free. A thread stopped anywhere stops nobody: half-done structure changes are finished by whoever
 * meets them.
 */
#ifndef QR_TREE_TREE_H
#define QR_TREE_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include <quire/quire.h>

#include "epoch/epoch.h"
#include "log/log.h"
#include "map/map.h"
#include "page/blob.h"
#include "page/leaf.h"
#include "page/plan.h"
#include "page/search.h"

/* ---- Results ---------------------------------------------------------------------------------------------------- */

/* Besides 0 and the codes of enum qr_result that are named at each call. Positive, clear of the public ones. */
enum qr_tree_result {
    QR_FETCH = 1000, /* a page must be read: op->need_address */
    QR_RETRY = 1001, /* inside the tree only: somebody else was first, start again */
    QR_LARGE = 1002, /* inside the tree only: the page would be large */
    QR_NO_ROOM = 1003, /* the log has no room: qr_log_provision, and call again */
    QR_BLOB = 1004,    /* the value is a blob: it is read by its reference, outside the tree */
};

/* ---- Surroundings ----------------------------------------------------------------------------------------------- */

/* What a caller above hands down. Called inside epoch sections; they may not wait. */
struct qr_tree_ops {
    /*
     * Bounds of what open snapshots see, descending; returns their number. If there are more than `capacity`: the highest
     * ones, and capacity + 1; then everything at or below the last one stays. *ret_keep_above: every version above it stays, since a snapshot is being taken
     * whose bound is not known yet; UINT64_MAX if none is.
     */
    uint32_t (*snapshot_bounds)(void *context, uint64_t *ret_bounds, uint32_t capacity, uint64_t *ret_keep_above);
    /* During recovery: every frame of the page up to *ret_max_lsn is in its image (R4). 0, or a failure. May wait for the disk. */
    int (*image_max_lsn)(void *context, uint64_t pid, uint64_t *ret_max_lsn);
    /* Records with these blobs (`count` references, one after the other) were dropped: nobody will find them any more. */
    void (*blobs_dead)(void *context, const uint8_t *references, uint32_t count);
};

/* How a checkpoint keeps structure changes away while it captures the mapping (rule R9). */
struct qr_structure {
    _Atomic uint32_t postponed; /* 1: none is begun */
    _Atomic uint32_t left;      /* 1: one was left half done since it was last set to 0: a separator is missing, or too many */
};

/* What the trees of one database share. */
struct qr_tree_env {
    struct qr_arena *arena;
    const uint8_t *arena_start; /* qr_arena_start */
    struct qr_epoch *epoch;
    struct qr_map *map;
    struct qr_log *log;
    const struct qr_tree_ops *ops;
    void *context;
    struct qr_structure *structure; /* NULL: nobody postpones structure changes */
    /* Raised (seq_cst) by each new snapshot before it loads its tail; see retention.c. */
    _Atomic uint64_t *snapshot_generation;
    /* Not 0 from before the LSN of a checkpoint without log is chosen until its images are made: see consolidate.c. */
    _Atomic uint32_t *holding;
};

/* What the epoch calls back with: kinds of retired things (struct qr_epoch_ops). */
enum { QR_RETIRE_PID = 1 };

struct qr_tree_settings {
    _Atomic uint32_t leaf_page_size_bytes; /* thresholds, which may be changed at any time: see qr_tree_leaf_page_size */
    _Atomic uint32_t inner_page_size_bytes;
    uint32_t chain_limit;
    uint8_t align_log2;
    bool caller_versions;
};

struct qr_tree {
    struct qr_tree_env *env;
    struct qr_tree_settings settings;
    uint32_t id;
    uint64_t root;
    _Atomic uint64_t safe_version; /* caller versions: 0 = not set */
};

/* Pages of a size that was in force before stay legal, and are split or merged when they are written to again. */
static inline uint32_t qr_tree_leaf_page_size(const struct qr_tree_settings *settings)
{
    /* relaxed: a threshold; it says of no page what is in it */
    return atomic_load_explicit(&settings->leaf_page_size_bytes, memory_order_relaxed);
}

static inline uint32_t qr_tree_inner_page_size(const struct qr_tree_settings *settings)
{
    /* relaxed: as above */
    return atomic_load_explicit(&settings->inner_page_size_bytes, memory_order_relaxed);
}

void qr_tree_set_page_sizes(struct qr_tree *tree, uint32_t leaf_bytes, uint32_t inner_bytes);

/* ---- Operations ------------------------------------------------------------------------------------------------- */

#define QR_OP_IMAGES 24u

struct qr_op_image {
    uint64_t address;
    struct qr_page *page; /* a block of the arena; the op owns it until it is installed */
};

/* The context of one operation: who does it, on which tree, with which images. */
struct qr_op {
    struct qr_tree *tree;
    struct qr_thread *thread;
    uint64_t need_pid, need_address; /* after QR_FETCH; address 0: nothing is known of the page but its id */
    uint32_t image_count;
    bool use_reserve;     /* may dip into the memory reserve: deletions, structure changes */
    bool outside;         /* pages that are built are images only: in memory outside the arena, for qr_free_aligned */
    uint32_t delta_bytes; /* of the delta that is going to be written; 0: none. For a prefetch */
    uint8_t *dead;        /* references of blobs that the page which was built last leaves out; see qr_retire_page */
    uint32_t dead_count;
    struct qr_op_image images[QR_OP_IMAGES];
};

static inline void qr_op_init(struct qr_op *op, struct qr_tree *tree, struct qr_thread *thread)
{
    op->tree = tree;
    op->thread = thread;
    op->image_count = 0;
    op->use_reserve = false;
    op->outside = false;
    op->delta_bytes = 0;
    op->dead = NULL;
    op->dead_count = 0;
}

/* Frees images that were not installed. Every op that got images needs it. */
void qr_op_done(struct qr_op *op);

/* After QR_FETCH: hands in a block of the arena with the page that was read; the op owns it. */
void qr_op_add_image(struct qr_op *op, uint64_t address, struct qr_page *page);

/* ---- Life ------------------------------------------------------------------------------------------------------- */

/* Makes an empty tree: a root that is an empty leaf. 0 or NO_MEMORY. */
int qr_tree_create(struct qr_tree_env *env, struct qr_thread *thread, uint32_t id,
                   const struct qr_tree_settings *settings, struct qr_tree *ret_tree);

/* The same for a root whose id is known and no page's. */
int qr_tree_create_at(struct qr_tree_env *env, struct qr_thread *thread, uint32_t id, uint64_t root,
                      const struct qr_tree_settings *settings, struct qr_tree *ret_tree);

/* A tree that is in the mapping: its root has that id. */
void qr_tree_attach(struct qr_tree_env *env, uint32_t id, uint64_t root, const struct qr_tree_settings *settings,
                    struct qr_tree *ret_tree);

/* Undoes qr_tree_create for a tree that nobody else has seen. */
void qr_tree_destroy_empty(struct qr_tree *tree, struct qr_thread *thread);

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

/*
 * Finds the record with the highest version not above `version`. 0: *ret_record (a put) lies in the page of *ret_view;
 * QUIRE_NOT_FOUND (absent or deleted), QR_FETCH, NO_MEMORY. QR_BLOB: as 0, but the value is a reference.
 */
int qr_tree_find(struct qr_op *op, const struct qr_key *key, uint64_t version, struct quire_value *ret_value);

/* The same if nothing is out of the ordinary on the way: 0, QR_BLOB, QUIRE_NOT_FOUND; QR_RETRY: ask qr_tree_find. */
int qr_tree_find_plain(const struct qr_tree *tree, const void *key, size_t key_size, uint64_t version,
                       struct quire_value *ret_value);

/* Lookups that qr_tree_find_many interleaves at a time. */
#define QR_FIND_BATCH 16u

/*
 * As qr_tree_find for count <= QR_FIND_BATCH keys, their memory latencies overlapped. ret_results[i]: 0, QR_BLOB,
 * QUIRE_NOT_FOUND, or QR_RETRY: not to be had this way, ask singly.
 */
void qr_tree_find_many(const struct qr_tree *tree, const struct qr_key *keys, uint32_t count, uint64_t version,
                       struct quire_value *ret_values, int *ret_results);

/* A leaf found for a scan. */
struct qr_leaf_spot {
    uint64_t pid;
    qr_word word;
    struct qr_leaf_view view;
};

/* The leaf that covers key; with `below`, the one that covers the keys just below it (key not empty). 0, QR_FETCH,
 * NO_MEMORY. */
int qr_tree_leaf_at(struct qr_op *op, const struct qr_key *key, bool below, struct qr_leaf_spot *ret_spot);

/* The last leaf. As above. */
int qr_tree_last_leaf(struct qr_op *op, struct qr_leaf_spot *ret_spot);

/* Asks for the first cache lines of the leaf `pid`, should it be one. */
void qr_tree_prefetch_leaf(struct qr_op *op, uint64_t pid);

/* After qr_tree_prefetch_leaf, when its lines may have come: asks for what the step to `pid` and the look behind it wait for, the
 * low key and the mapping word of the right sibling. */
void qr_tree_prefetch_behind(struct qr_op *op, uint64_t pid);

/* Whether `pid` is at present a leaf of this tree with exactly this low key: then *ret_spot is set. A shortcut for
 * scans; any id that once was a page may be asked for. */
bool qr_tree_leaf_if_low(struct qr_op *op, uint64_t pid, struct quire_slice low, struct qr_leaf_spot *ret_spot);

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

struct qr_write;

/*
 * Looks at the newest record of the key (NULL: none or deleted) and decides: 0 = go on (it may change write->value and
 * kind), else the result that the write returns. May be called several times; must not wait. Of a blob present->data is NULL,
 * and write->present is its reference; a condition that wants to know what it says answers QR_BLOB.
 */
typedef int qr_write_condition(struct qr_write *write, const struct quire_value *present);

struct qr_write {
    struct qr_key key;
    uint8_t kind; /* QR_RECORD_PUT, _DELETE, or _BLOB: then the value is a reference */
    uint32_t value_size;
    const uint8_t *value;
    uint64_t version;              /* caller versions */
    qr_write_condition *condition; /* NULL: blind */
    void *argument;                /* the condition's own */
    struct qr_blob_ref present;    /* what the condition was asked about, if that is a blob */
    uint64_t present_lsn;
    uint32_t level;                /* for whoever acknowledges the write */
    uint64_t first_part;           /* not 0: LSN of the first PART, see last_part */
    uint64_t last_part;            /* not 0: key and value stand in PARTs of the log */
    uint32_t part_count;
    uint64_t replay_lsn;           /* not 0: the write is in the log, at this LSN; nobody else writes */
    uint64_t replay_named;         /* ... and was conditional: the LSN of the record that it replaces */
    bool replay_conditional;
    uint64_t ret_lsn;
};

/*
 * Writes one record. 0, what the condition answered, NO_MEMORY, LSN_TOO_OLD (caller versions), QR_FETCH, QR_NO_ROOM. On
 * anything but 0 nothing has changed. A replayed write that the page has already is 0; one whose condition no longer holds is
 * QUIRE_CONFLICT.
 */
int qr_tree_write(struct qr_op *op, struct qr_write *write);

/* ---- Caller versions -------------------------------------------------------------------------------------------- */

void qr_tree_raise_safe_version(struct qr_tree *tree, uint64_t version);
uint64_t qr_tree_safe_version(const struct qr_tree *tree);

/* ---- Maintenance ------------------------------------------------------------------------------------------------ */

/* Where a walk of maintenance stands. The key is copied. */
struct qr_walk {
    uint8_t *key; /* qr_malloc */
    uint32_t key_size, key_capacity;
    bool started;
    uint32_t skipped; /* leaves where there was something to do and no memory for it; the caller sets it back */
};
void qr_walk_done(struct qr_walk *walk);

/*
 * Visits the next `leaves` leaves: consolidates chains, drops what nobody sees, merges underfull pages, finishes what is
 * half done. *ret_changes grows by what was changed. A leaf for which there is no memory is stepped over. 0: more leaves to come; QUIRE_END: the walk came to the end of
 * the tree (and begins anew with the next call); QR_FETCH, NO_MEMORY.
 */
int qr_tree_maintain(struct qr_op *op, struct qr_walk *walk, uint32_t leaves, uint64_t *ret_changes);

/* ---- Eviction --------------------------------------------------------------------------------------------------- */

/* A page chosen to leave memory. */
struct qr_evict {
    uint64_t pid;
    qr_word word;
    const struct qr_page *page;
};

/* Finds the page that covers key on a level, if it may leave memory. 0, QUIRE_NOT_FOUND, QR_FETCH, NO_MEMORY. */
int qr_tree_evict_prepare(struct qr_op *op, const struct qr_key *key, uint8_t level, struct qr_evict *ret_evict);

/* Builds what is to be written: the whole page, consolidated, in a block of the arena that the caller owns. 0, NO_MEMORY,
 * QR_FETCH; QR_RETRY: the page has changed. */
int qr_tree_evict_image(struct qr_op *op, const struct qr_evict *evict, struct qr_page **ret_image);

/* The same for the base page of a leaf alone, which is no stub. */
int qr_tree_evict_base_image(struct qr_op *op, const struct qr_evict *evict, struct qr_page **ret_image);

/* After the image was written: the word becomes the address, and the block is retired. 0, or QR_RETRY: the page has
 * changed and stays. */
int qr_tree_evict(struct qr_op *op, struct qr_evict *evict, uint64_t address);

/* The same, if the image is that of the base page alone: the chain stays in memory, as a stub. */
int qr_tree_evict_base(struct qr_op *op, struct qr_evict *evict, uint64_t address);

/* ---- Flushing --------------------------------------------------------------------------------------------------- */

/* A page whose image is going to be written; the block is that of the page, or `built`, which the caller frees by
 * qr_tree_flush_done. Valid in the section in which it was made. */
struct qr_flush {
    uint64_t pid, token;
    uint64_t max_lsn, min_lsn; /* min_lsn: the oldest LSN in no other image, 0: none */
    const struct qr_page *page;
    struct qr_page *built; /* NULL, or a copy */
    bool partial;          /* the page has records above as_of_lsn, which are in no image yet */
};

/* What is known of a page without touching it much: *ret_tree_id, and the oldest LSN that is in no image (0: none). False: no
 * page in memory. In a section. */
bool qr_tree_first_lsn(struct qr_map *map, uint64_t pid, uint32_t *ret_tree_id, uint64_t *ret_first_lsn);

/*
 * Makes the page of an id ready to be written: a leaf is consolidated and a stub joined first. Only one thread at a time may
 * flush. 0; QUIRE_NOT_FOUND: no page in memory, or one that has an image; QR_RETRY: it is being changed, another time;
 * QR_FETCH, NO_MEMORY. op->tree must be the page's. as_of_lsn: 0, or records of leaves above it are left out.
 */
int qr_tree_flush_begin(struct qr_op *op, uint64_t pid, uint64_t as_of_lsn, struct qr_flush *ret_flush);

/* An image for a word that was captured, whatever the page has become since. `built` is always set. 0, NO_MEMORY, QR_FETCH. */
int qr_tree_flush_captured(struct qr_op *op, qr_word word, uint64_t as_of_lsn, struct qr_flush *ret_flush);

/* What others have left half done at a page: a merge of it, its separator that is missing above, in an inner page separators of
 * pages that are no more: brings that to its end. 0, QR_FETCH, NO_MEMORY. */
int qr_tree_finish(struct qr_op *op, uint64_t pid);

void qr_tree_flush_done(struct qr_flush *flush);

/* Copies the image to `to` (page->content_bytes), without what has a meaning in memory only. */
void qr_tree_flush_copy(const struct qr_flush *flush, uint8_t *to);

/*
 * After the image was written: whether the page is still as it was, deltas apart. Then it has an image from now on, unless
 * that is partial, the id is out of the map's set of changes, and the caller enters the address in the mapping. In a section.
 */
bool qr_tree_flush_end(struct qr_map *map, const struct qr_flush *flush, uint64_t address);

/* For checks: the page in memory under an id, if it is of that level (UINT8_MAX: any) and has that low key. 0; QR_FETCH;
 * QR_RETRY: the word was settled, look again; QUIRE_NOT_FOUND: another page;
 * QUIRE_EXISTS: it was merged into another. */
int qr_tree_page_at(struct qr_op *op, uint64_t pid, uint8_t level, struct quire_slice low, struct qr_evict *ret_page);

/* For tests: one leaf of a walk, consolidated or not. As qr_tree_maintain. */
int qr_tree_walk_leaf(struct qr_op *op, struct qr_walk *walk, bool consolidate, uint64_t *ret_changes);

/* What a walk over the whole tree finds; sums are added to *stats. Resident pages only. */
struct qr_tree_gauges {
    uint64_t leaves, inners, height, records;
    uint64_t chains[QR_CHAIN_MAX + 1];
};
void qr_tree_measure(struct qr_op *op, struct qr_tree_gauges *gauges);

#endif
