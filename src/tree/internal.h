/*
 * internal.h: what the files of the tree share.
 *
 * Layer 4, this folder only. descend.c finds pages, write.c installs records, consolidate.c builds leaves, split.c and
 * merge.c change the structure, parent.c posts and removes separators, policy.h says when.
 */
#ifndef QR_TREE_INTERNAL_H
#define QR_TREE_INTERNAL_H

#include "base/counter_ids.h"
#include "base/counters.h"
#include "base/stop.h"
#include "tree/structure.h"
#include "tree/tree.h"

/* A page met on the way down, as its word showed it. */
struct qr_spot {
    uint64_t pid;
    qr_word word;
    const struct qr_page *page;
    uint64_t parent_pid; /* QR_PID_NONE at the root */
    qr_word parent_word;
    uint32_t parent_index; /* of the entry that led here */
    bool by_sibling;       /* reached by a sibling link or a forwarding word */
    bool by_link;          /* if so: by a link of the page before it */
};

static inline void qr_count(struct qr_op *op, enum qr_counter counter)
{
    qr_counter_add(&op->thread->counters[counter], 1);
}

static inline struct qr_map *qr_op_map(const struct qr_op *op)
{
    return op->tree->env->map;
}

static inline struct qr_leaf_view qr_view_of(qr_word word)
{
    return (struct qr_leaf_view){qr_word_block(word), qr_word_chain(word), qr_word_head_offset(word)};
}

/* The head delta of a block word; the block itself without a chain. */
static inline const uint8_t *qr_word_head(qr_word word)
{
    return (const uint8_t *)qr_word_block(word) + (size_t)qr_word_head_offset(word) * QR_DELTA_UNIT;
}

/* ---- Whereabouts of children (page/inner.h) --------------------------------------------------------------------- */

/* Child `index` of an inner page, installed or not, is this page now. */
static inline void qr_child_moved(const struct qr_op *op, const struct qr_page *inner, uint32_t index,
                                  const struct qr_page *child)
{
    uint64_t block = qr_where_block(op->tree->env->arena_start, child);
    qr_inner_moved(inner, index, block | qr_inner_fit(inner, index, child));
}

/* Asks for the lines that a search in a block begins with. */
static inline void qr_prefetch_block(const uint8_t *block)
{
    __builtin_prefetch(block);
    __builtin_prefetch((const void *)((uintptr_t)block + QR_PAGE_HEADER)); /* the block may be none */
}

/*
 * Goes to child `index` of an inner page: returns its word, and its block in *ret_block.
 *
 * The block is the word's. But if it is where the whereabouts say, it is taken from there: so the processor, which predicts
 * that they are right, need not wait for the word before it loads from the block. Nothing is read from the block before
 * the word has confirmed it, as far as the program goes; the empty asm keeps the compiler from using the word after all.
 * delta_bytes: of the delta that is going to be written, 0: none.
 */
static QR_ALWAYS_INLINE qr_word qr_load_child(const struct qr_tree *tree, uint32_t delta_bytes,
                                              struct qr_inner_place place, const uint8_t **ret_block)
{
    const uint64_t where = qr_inner_place_whereabouts(place);
    const uint8_t *guess = tree->env->arena_start + qr_where_block_offset(where);
    qr_prefetch_block(guess);
    if (delta_bytes != 0) { /* a writer */
        __builtin_prefetch(guess + 64, 1);
    } else {
        uint64_t record = qr_where_record_offset(where, place.distance);
        if (record != 0) {
            __builtin_prefetch(guess + record);
            __builtin_prefetch(guess + record + 64);
            __builtin_prefetch(guess + record + 128);
        }
    }
    qr_word word = qr_map_load(tree->env->map, qr_inner_place_child(place));
    const uint8_t *block = qr_word_block(word);
    if (QR_LIKELY(block == guess)) {
        __asm__("" : "+r"(guess));
        block = guess;
    } else {
        qr_prefetch_block(block);
        if (qr_word_tag(word) == QR_WORD_HEAD)
            qr_inner_place_moved(place, qr_where_block(tree->env->arena_start, block));
    }
    if (delta_bytes != 0 && qr_word_chain(word) != 0) {
        /* The head tells the chain and its LSN. A new delta will most likely lie behind it, and be as large. */
        const uint8_t *head = qr_word_head(word);
        __builtin_prefetch(head + sizeof(struct qr_delta));
        for (uint32_t at = 0; at < delta_bytes; at += 64) __builtin_prefetch(head + delta_bytes + at, 1);
    }
    *ret_block = block;
    return word;
}

/* ---- read.c ----------------------------------------------------------------------------------------------------- */

/* Goes down to the leaf that covers key, if the way is plain: every page on it resident, unsealed and not split
 * meanwhile. False: ret_spot says nothing, go by qr_descend. The leaf may be a stub. */
bool qr_descend_plain(const struct qr_op *op, const struct qr_key *key, struct qr_spot *ret_spot);

/* ---- descend.c -------------------------------------------------------------------------------------------------- */

/*
 * Goes down to `level` and to the page that covers key there; with `below`, to the page that covers the keys just below
 * it. The page is HEAD. 0, QR_FETCH, NO_MEMORY (helping needed memory); QUIRE_NOT_FOUND if the tree is not that high.
 */
int qr_descend(struct qr_op *op, const struct qr_key *key, uint8_t level, bool below, struct qr_spot *ret_spot);

/* As qr_descend to the leaf, for a reader: helping that fails for want of memory does not keep him from reading, and the
 * word of the page may be SEALED. */
int qr_descend_read(struct qr_op *op, const struct qr_key *key, bool below, struct qr_spot *ret_spot);

/* As qr_descend to the leaf, but a leaf on disk whose bounds are sure from its parent is not fetched: then spot->word is
 * DISK, page is NULL, and parent_word and parent_index tell its bounds. */
int qr_descend_blind(struct qr_op *op, const struct qr_key *key, struct qr_spot *ret_spot);

/* The identity of a stub for the leaf on disk at which qr_descend_blind has ended. */
struct qr_page_identity qr_blind_identity(const struct qr_op *op, const struct qr_spot *spot);

/*
 * Deals with a word that is not HEAD: *pid and *word become what to go on with (the word may again be anything).
 * 0, QR_FETCH, NO_MEMORY; QR_RETRY: start at the root; CORRUPT: it is FREE. So the id must be one that a page names which was
 * loaded in the op's section.
 */
int qr_settle_word(struct qr_op *op, uint64_t *pid, qr_word *word);

/* Whether a page is where entry `index` of an inner page says: one level lower, with its low key. As long as a page has its
 * id this stays; of pages from a file nobody knows. */
bool qr_is_child(const struct qr_page *parent, uint32_t index, const struct qr_page *page);

/* CORRUPT: a page is not where the way to it says. */
int qr_out_of_place(uint64_t pid);

/* ---- consolidate.c ---------------------------------------------------------------------------------------------- */

#define QR_BOUNDS_MAX 64u

/* What may be collected, as of one moment. */
struct qr_bounds {
    struct qr_retention retention;
    uint64_t generation; /* of the snapshot registry; see qr_bounds_hold */
    bool pending;        /* no snapshot may begin before the install */
    bool holding;        /* a checkpoint without log is under way: in trees with caller versions nothing is collected */
    uint64_t safe_version;
    uint64_t values[QR_BOUNDS_MAX + 1];
};

/* Loads the bounds; `pending`: for a page that will also get a record with a newer LSN than all others, which may hide the
 * one before it. Then qr_bounds_hold must be asked before the install. */
void qr_bounds_load(struct qr_tree *tree, bool pending, struct qr_bounds *ret_bounds);

/* With an LSN reserved: whether no snapshot has begun since the bounds were loaded, and no checkpoint without log. Otherwise
 * what was dropped because of the pending record may be seen by it. */
bool qr_bounds_hold(const struct qr_tree *tree, const struct qr_bounds *bounds);

/* A leaf built and not installed. */
struct qr_fresh_leaf {
    struct qr_page *page;
    uint8_t *pending; /* its pending record, NULL if none or dropped */
    uint32_t dropped;
};

/*
 * Builds the consolidation of a leaf, with a pending record or without. may_be_large: false = if the page would be larger
 * than the tree's pages should be, nothing is built. 0, NO_MEMORY; QR_LARGE.
 */
int qr_consolidate_build(struct qr_op *op, uint64_t pid, const struct qr_leaf_view *view,
                         const struct qr_record_spec *pending, const struct qr_bounds *bounds, bool may_be_large,
                         struct qr_fresh_leaf *ret_fresh);

/* Room for deltas: none, or that of a full chain; any other number: what is left in a block of so many bytes, if that is
 * room for a delta, else that of a full chain. */
#define QR_AREA_NONE 0u
#define QR_AREA_FULL UINT64_MAX

/* Builds the leaf of plan records [from, to). 0, NO_MEMORY. */
int qr_leaf_from_plan(struct qr_op *op, const struct qr_plan *plan, uint32_t from, uint32_t to,
                      const struct qr_page_identity *identity, const struct qr_leaf_properties *properties, uint64_t area,
                      struct qr_fresh_leaf *ret_fresh);

/* Consolidates a leaf that has a chain or something to drop. 0: installed; QR_RETRY: lost; QUIRE_NOT_FOUND: nothing to
 * do; NO_MEMORY. On 0 spot shows the new page. */
int qr_consolidate(struct qr_op *op, struct qr_spot *spot);

/* Gives back a block that was never installed. */
void qr_discard_page(struct qr_op *op, struct qr_page *page);
/* A block for an image, not of the arena; see outside in struct qr_op. NULL: no memory. */
void *qr_block_outside(size_t size, size_t *ret_block_size);

/* Gives back the block of a page that no operation can have met, but whose word was set: a checkpoint, if there are any,
 * looks at the words of all ids. The word must be another by now. */
void qr_give_back_page(struct qr_op *op, struct qr_page *page);

/* Tells which blobs the page that was built last leaves out: it is installed, and replaced none. Else retiring does it. */
void qr_tell_dead(struct qr_op *op);

/* Retires the block of a page that was replaced. */
void qr_retire_page(struct qr_op *op, const struct qr_page *page);

/* ---- join.c ----------------------------------------------------------------------------------------------------- */

/* Appends a leaf, with its image if it is a stub. *ret_right_pid: its sibling link. 0, QR_FETCH, NO_MEMORY. */
int qr_plan_whole_leaf(struct qr_op *op, struct qr_plan *plan, const struct qr_leaf_view *view,
                       const struct qr_retention *retention, uint64_t *ret_right_pid);

/* Makes a stub whole and installs it. 0: spot shows the whole leaf; QR_FETCH, NO_MEMORY (also if it is sealed: there was no
 * memory to finish its merge), QR_RETRY: it has changed. */
int qr_join(struct qr_op *op, struct qr_spot *spot);

/* ---- Structure changes ------------------------------------------------------------------------------------------ */

/* The shortest key that is above `left` and not above `right`, a part of it: what separates two leaves needs no more. */
struct quire_slice qr_shortest_separator(struct quire_slice left, struct quire_slice right);

/* Splits the page if it is above its size and can be; at the growing end also what is split off, as long as that is large. Done or not,
 * only NO_MEMORY and QR_FETCH are failures. */
int qr_split_if_large(struct qr_op *op, uint64_t pid, bool near_end);

/* Splits the leaf of spot as it is, one try. 0: divided, with its separator posted or not; QUIRE_NOT_FOUND: it cannot be
 * divided; QR_RETRY, QR_FETCH, NO_MEMORY. */
int qr_split_leaf(struct qr_op *op, const struct qr_spot *spot, bool near_end);

/* Merges the page if it is underfull, and goes on upwards. As above. */
int qr_merge_if_small(struct qr_op *op, const struct qr_spot *spot);

/* Finishes the merge of a sealed page. 0: its word is FORWARD now. QR_FETCH, NO_MEMORY, QR_RETRY. */
int qr_merge_finish(struct qr_op *op, uint64_t pid, qr_word sealed);

/* A marked entry at index of the inner page of spot: seals the child and finishes. */
int qr_merge_marked(struct qr_op *op, const struct qr_spot *parent, uint32_t index);

/* Puts the separator of `right` (a page of the op's section) into the level above. One that is there or no longer wanted
 * is no failure. 0, QR_FETCH, NO_MEMORY. */
int qr_post_separator(struct qr_op *op, const struct qr_page *right);

/* Takes the separator of a merged page out of the level above it and frees the id. low: points to live memory. */
int qr_remove_separator(struct qr_op *op, uint8_t level, struct quire_slice low, uint64_t pid);

/* Installs a new inner page of these entries over spot's, whose old block it retires. 0, QR_RETRY, NO_MEMORY. */
int qr_inner_replace(struct qr_op *op, const struct qr_spot *spot, const struct qr_inner_entry *entries, uint32_t count,
                     const struct qr_page_identity *identity);

/* Fills in where the children are of whose entries that is not known, in an inner page that is not installed yet. */
void qr_inner_note_children(struct qr_op *op, const struct qr_page *inner, const struct qr_inner_entry *entries);

/* Allocates and builds an inner page. */
int qr_inner_new(struct qr_op *op, const struct qr_inner_entry *entries, uint32_t count,
                 const struct qr_page_identity *identity, struct qr_page **ret_page);

#endif
