/*
 * structure.h: announcing structure changes, so that a checkpoint can capture the mapping between them (rule R9).
 *
 * Layer 4. Splits, merges and collapses are begun between qr_structure_begin and qr_structure_end, steps that finish what
 * somebody has begun between qr_structure_help and qr_structure_end. They nest.
 *
 * STRUCTURE-1  A thread stores its slot and then loads the flag; a checkpoint stores the flag and then loads the slots; all
 *              sequentially consistent. So a change that was begun without seeing the flag has its slot seen.
 * STRUCTURE-2  Every CAS that changes bounds, links, entries or the existence of a page is made with the slot open, and its id is
 *              put into the map's set of changes before the slot is closed. So who finds all slots closed, and then no
 *              member in the set that was emptied, knows that there was no change since.
 *
 * Wait-free. A change that is postponed leaves a page too large or too small; the next write or walk has another try.
 */
#ifndef QR_TREE_STRUCTURE_H
#define QR_TREE_STRUCTURE_H

#include "tree/tree.h"

static inline void qr_structure_help(struct qr_op *op)
{
    struct qr_thread *thread = op->thread;
    if (thread->structure_depth++ != 0 || op->tree->env->structure == NULL) return;
    /* order: tree.structure.open pairs with tree.structure.look: STRUCTURE-1 */
    atomic_store_explicit(&thread->structure_slot, 1, memory_order_seq_cst);
}

static inline void qr_structure_end(struct qr_op *op)
{
    struct qr_thread *thread = op->thread;
    QR_ASSERT(thread->structure_depth != 0);
    if (--thread->structure_depth != 0 || op->tree->env->structure == NULL) return;
    /* order: tree.structure.close pairs with tree.structure.look: what was changed, and noted */
    atomic_store_explicit(&thread->structure_slot, 0, memory_order_release);
}

/* False: structure changes are postponed, nothing may be begun, and nothing is to be ended. Within another change too: a page
 * above one that was split may stay too large for a while. */
static inline bool qr_structure_begin(struct qr_op *op)
{
    struct qr_structure *structure = op->tree->env->structure;
    qr_structure_help(op);
    if (structure == NULL) return true;
    /* order: tree.structure.read pairs with tree.structure.postpone: STRUCTURE-1 */
    if (atomic_load_explicit(&structure->postponed, memory_order_seq_cst) == 0) return true;
    qr_structure_end(op);
    return false;
}

/* With the slot open: the result of a step that may have left a change half done, for want of memory or of a page. */
static inline int qr_structure_left(struct qr_op *op, int result)
{
    struct qr_structure *structure = op->tree->env->structure;
    /* relaxed: the slot's closing publishes it */
    if (QR_UNLIKELY(result != 0) && structure != NULL) atomic_store_explicit(&structure->left, 1, memory_order_relaxed);
    return result;
}

/* ---- For the checkpoint ----------------------------------------------------------------------------------------- */

static inline void qr_structure_postpone(struct qr_structure *structure, bool postponed)
{
    /* order: tree.structure.postpone pairs with tree.structure.read: STRUCTURE-1 */
    atomic_store_explicit(&structure->postponed, postponed, memory_order_seq_cst);
}

/* Whether a change was left half done since the last call that took the note. With all slots seen closed: up to that moment. */
static inline bool qr_structure_take_left(struct qr_structure *structure)
{
    /* relaxed: what was left before the slots were seen closed is seen with them */
    return atomic_exchange_explicit(&structure->left, 0, memory_order_relaxed) != 0;
}

static inline bool qr_structure_has_left(const struct qr_structure *structure)
{
    /* relaxed: as above */
    return atomic_load_explicit(&structure->left, memory_order_relaxed) != 0;
}

static inline void qr_structure_note_left(struct qr_structure *structure)
{
    /* relaxed: for the thread that took the note */
    atomic_store_explicit(&structure->left, 1, memory_order_relaxed);
}

/* Whether no thread is changing structure at present: each slot was closed at some moment of the call. */
static inline bool qr_structure_is_quiet(struct qr_epoch *epoch)
{
    for (struct qr_thread *t = qr_thread_first(epoch); t != NULL; t = qr_thread_next(t)) {
        /* order: tree.structure.look pairs with tree.structure.open and tree.structure.close: STRUCTURE-1 */
        if (atomic_load_explicit(&t->structure_slot, memory_order_seq_cst) != 0) return false;
    }
    return true;
}

#endif
