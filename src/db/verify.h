/*
 * verify.h: reading everything of a database and comparing it with what it has to be.
 *
 * Layer 6. Each layer checks what it knows: the store its segments and mapping (store/verify.c), the log its frames
 * (log/walk.c), here pages and trees. Nothing is changed, but that pages are fetched and half-done structure changes finished.
 *
 * VERIFY-1  What is told is a defect, also while others write: the mutex of checkpoints keeps segments, mapping and all log that is
 *           needed as they are; of the log only what was durable at the beginning is judged; and a page that does not fit the entry that
 *           led to it is one only if that entry stays as it is.
 */
#ifndef QR_DB_VERIFY_H
#define QR_DB_VERIFY_H

#include "db/db.h"

struct qr_verify {
    struct quire *db;
    struct qr_thread *thread;
    quire_verify_callback *callback; /* NULL: only whether there are defects */
    void *context;
    uint64_t defects;
    uint64_t *bad_pids; /* pages whose image was told to be damaged, and is not told again */
    uint64_t bad_count, bad_capacity;
};

/* A defect: counts and tells it. 0, or what the callback answered. */
QR_PRINTF(6, 7) int qr_verify_tell(struct qr_verify *v, const char *file, uint64_t offset, const char *tree, uint64_t pid,
                                   const char *format, ...);

/* Every page of a tree, from the root: bounds, order, reachability. 0, what the callback answered, NO_MEMORY, BUSY (structure
 * changes did not come to an end). Outside sections. */
int qr_verify_tree(struct qr_verify *v, struct quire_tree *tree);

/* The large values of a tree. 0, what the callback answered, or a failure. Outside sections. */
int qr_verify_blobs(struct qr_verify *v, struct quire_tree *tree);

#endif
