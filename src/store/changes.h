/*
 * changes.h: a table of images by a number: written ones by address, entered ones by page id.
 *
 * Layer 4. A hash table of chained nodes that grows by one bucket at a time (linear hashing), so that no insertion
 * takes long, and none can fail: if there is no memory for buckets, chains become longer. Nodes are their owner's; what
 * moves from one table to another needs no memory. The caller locks.
 */
#ifndef QR_STORE_CHANGES_H
#define QR_STORE_CHANGES_H

#include <stdbool.h>
#include <stdint.h>

struct qr_change {
    struct qr_change *next; /* in its bucket */
    uint64_t key;           /* of its table */
    uint64_t pid;
    uint64_t address; /* 0: the page was removed */
    uint64_t max_lsn;
    uint32_t stored_bytes;
};

#define QR_CHANGES_LEAST_LOG2 6u
#define QR_CHANGES_ARRAYS 26u

struct qr_changes {
    struct qr_change *least[1u << QR_CHANGES_LEAST_LOG2];
    struct qr_change **arrays[QR_CHANGES_ARRAYS]; /* the i-th has 64 << i buckets, those from 64 << i on */
    uint64_t buckets, count;
    bool lost; /* a removal found no memory for its node */
};

void qr_changes_init(struct qr_changes *changes);
/* Frees the nodes and the buckets. */
void qr_changes_done(struct qr_changes *changes);

struct qr_change *qr_changes_find(struct qr_changes *changes, uint64_t key);
/* There is no node of the key. */
void qr_changes_add(struct qr_changes *changes, struct qr_change *change);
/* Takes it out; NULL: there is none. */
struct qr_change *qr_changes_take(struct qr_changes *changes, uint64_t key);

/* Takes some node out of bucket i; NULL: it is empty. */
struct qr_change *qr_changes_take_from(struct qr_changes *changes, uint64_t i);

/* Fills an array of `count` places, in no order. */
void qr_changes_list(struct qr_changes *changes, struct qr_change **ret_changes);

uint64_t qr_changes_memory(struct qr_changes *changes);

#endif
