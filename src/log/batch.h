/*
 * batch.h: records of the log gathered while it is replayed, and put in the order of trees and keys.
 *
 * Layer 3. One thread. Replay visits records in the order of their LSNs; leaves are built fastest from records in the order of
 * keys. A batch is both: what was added stays in the window of the replay (REPLAY-5), and an entry of 16 bytes for each record
 * is sorted.
 *
 * BATCH-1  After qr_batch_sort the entries of a tree lie together, by key, those of a key by LSN, oldest first.
 */
#ifndef QR_LOG_BATCH_H
#define QR_LOG_BATCH_H

#include "log/replay.h"

struct qr_batch_entry {
    uint64_t head; /* 8 bytes of the key, behind what the keys of its group share */
    uint32_t at;   /* the frame's place in the window, in units of QR_FRAME_UNIT: rises with the LSN */
    uint32_t tree;
};

#define QR_BATCH_GROUPS 16u

/* Keys of some trees, and how many bytes they share at least: heads are taken behind them. */
struct qr_batch_group {
    const uint8_t *key; /* of the first record; NULL: none yet */
    uint32_t key_size, shared;
};

/* A record whose key and value are in PARTs. */
struct qr_batch_large {
    uint32_t at;
    struct qr_frame frame;
};

struct qr_batch {
    const uint8_t *window;
    struct qr_batch_entry *entries, *other; /* other: room to sort */
    uint32_t count, capacity;
    bool stale; /* heads were taken behind more than what is shared by now */
    struct qr_batch_large *large; /* by `at` */
    uint32_t large_count;
    uint64_t large_capacity;
    struct qr_batch_group groups[QR_BATCH_GROUPS];
};

/* An empty batch of at most `capacity` records of a window. 0 or NO_MEMORY. */
int qr_batch_init(struct qr_batch *batch, const uint8_t *window, uint32_t capacity);
void qr_batch_done(struct qr_batch *batch);

static inline bool qr_batch_is_full(const struct qr_batch *batch)
{
    return batch->count == batch->capacity;
}

/* Adds a record of the window to a batch that is not full. 0 or NO_MEMORY. */
int qr_batch_add(struct qr_batch *batch, const struct qr_replay_record *record);

void qr_batch_sort(struct qr_batch *batch);
void qr_batch_clear(struct qr_batch *batch);

/* After sorting: the record of an entry. *ret_lsn: its LSN. */
void qr_batch_get(const struct qr_batch *batch, uint32_t index, struct qr_frame *ret_frame, uint64_t *ret_lsn);

/* Asks for a line of an entry's record. */
static inline void qr_batch_prefetch(const struct qr_batch *batch, uint32_t index, uint32_t line)
{
    __builtin_prefetch(batch->window + (uint64_t)batch->entries[index].at * QR_FRAME_UNIT + (uint64_t)line * 64);
}

#endif
