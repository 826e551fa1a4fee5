/*
 * What the source files of the epoch share: batches of retired things.
 * Layer 1 (epoch). Included by src/epoch/ *.c only. Read epoch.h first.
 *
 * A batch is an array that its thread fills from the front. The thread writes entries and `count`; the reclaimer reads
 * entries below the count that it has seen, and owns them from then on:
 *
 *      0        held            taken            count          128
 *      | in holds | reclaimed     | not taken yet  | free         |
 *
 * The batch lies in its thread's record until it is full, then in the queue, then with the reclaimer, which frees it or
 * gives it back to the record as the spare. Nobody else ever frees one.
 */
#ifndef QR_EPOCH_INTERNAL_H
#define QR_EPOCH_INTERNAL_H

#include "epoch/epoch.h"

struct qr_retire_entry {
    void *pointer;
    uint64_t word; /* size << 8 | kind */
};

struct qr_retire_batch {
    struct qr_retire_batch *next; /* in the queue, then in a list of the reclaimer */
    struct qr_thread *thread;     /* the record that it was made for */
    uint64_t bytes;               /* the thread's */
    uint32_t held;                /* the reclaimer's */
    uint32_t taken;               /* the reclaimer's */
    _Atomic uint32_t count;       /* written by the thread */
    struct qr_retire_entry entries[QR_RETIRE_BATCH_COUNT];
};

/* ---- thread.c --------------------------------------------------------------------------------------------------- */

/* Makes the fork word and the thread key; once for the process. 0, or QUIRE_ERR_NO_MEMORY. */
int qr_registry_start(void);
/* Never 0, never the same twice. */
uint64_t qr_registry_serial(void);
/* Takes all records away from their threads: no thread that ends touches them from now on. */
/* Makes an epoch known, and forgets it. */
void qr_registry_attach(struct qr_epoch *epoch);
void qr_registry_detach(struct qr_epoch *epoch);

/* ---- hold.c ----------------------------------------------------------------------------------------------------- */

/* Collects what is in holds now, for qr_hold_holds. The reclaimer only. */
void qr_hold_collect(struct qr_epoch *epoch);
bool qr_hold_holds(struct qr_epoch *epoch, const void *block);
void qr_hold_destroy_all(struct qr_epoch *epoch);

/* ---- reclaim.c -------------------------------------------------------------------------------------------------- */

/* Reclaims everything without a grace period and frees all batches. Nobody else is there; self is any record. */
void qr_reclaim_all(struct qr_epoch *epoch, struct qr_thread *self);

#endif
