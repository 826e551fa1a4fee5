/*
 * log.h: the order of writes: LSNs, slots, frames.
 *
 * Layer 3. An LSN is the position of a frame in the log; reserving one is a fetch-add on the tail. In this version no bytes
 * stand behind the positions: frames are counted, not kept. The calls are those of the mapped log, so that the write
 * path is the final one: slot open, reserve, write, decide, slot close.
 *
 * A slot is a thread's announcement that it is between reserving an LSN and having decided what becomes of it.
 *
 * LOG-1  While a thread's slot is open with bound B, every frame that it may yet install has an LSN >= B. The bound is
 *        stored before the reservation.
 * LOG-2  Whoever loads a tail T after a reservation of LSN < T sees the slot of that reservation, open or closed after
 *        the frame was installed or voided: the reservation releases the bound, loading the tail acquires it.
 * LOG-3  Nothing sleeps, waits, helps, allocates or fetches with a slot open (rule R11).
 *
 * Wait-free.
 */
#ifndef QR_LOG_LOG_H
#define QR_LOG_LOG_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/counter_ids.h"
#include "base/counters.h"
#include "epoch/epoch.h"

#define QR_LOG_FRAME_HEADER 16u
#define QR_LOG_FRAME_UNIT 16u
#define QR_LOG_START 16u /* the first LSN; 0 means none */

struct qr_log {
    QR_CACHE_ALIGNED _Atomic uint64_t tail; /* the next LSN */
};

/* What a frame says of a single-key write. */
struct qr_frame {
    uint32_t tree_id;
    uint8_t kind; /* enum qr_record_kind */
    uint32_t key_size, value_size;
    const void *key, *value;
    uint64_t version;       /* caller versions */
    uint64_t named_version; /* conditional operation: the version that it replaces */
};

enum qr_frame_state { QR_FRAME_DONE, QR_FRAME_VOID };

static inline void qr_log_init(struct qr_log *log)
{
    atomic_init(&log->tail, QR_LOG_START);
}

/* The next LSN: all LSNs handed out are below. */
static inline uint64_t qr_log_tail(const struct qr_log *log)
{
    /* order: log.tail.read pairs with log.reserve: slots opened before reservations below the tail are seen; seq_cst for
     * the order of registration and tail (txn/snapshot.c) */
    return atomic_load_explicit(&log->tail, memory_order_seq_cst);
}

static inline uint64_t qr_log_frame_size(const struct qr_frame *frame)
{
    return qr_round_up(QR_LOG_FRAME_HEADER + 24 + (uint64_t)frame->key_size + frame->value_size, QR_LOG_FRAME_UNIT);
}

static inline void qr_log_slot_open(struct qr_log *log, struct qr_thread *thread)
{
    QR_ASSERT(atomic_load_explicit(&thread->slot_lsn, memory_order_relaxed) == 0); /* relaxed: own slot */
    /* relaxed: any earlier tail is a lower bound */
    uint64_t bound = atomic_load_explicit(&log->tail, memory_order_relaxed);
    /* relaxed: published by log.reserve, which comes after it */
    atomic_store_explicit(&thread->slot_lsn, bound, memory_order_relaxed);
}

static inline uint64_t qr_log_reserve(struct qr_log *log, uint64_t size_bytes)
{
    /* order: log.reserve pairs with log.tail.read and txn.generation.raise: publishes the slot's bound */
    return atomic_fetch_add_explicit(&log->tail, size_bytes, memory_order_seq_cst);
}

/* Writes the frame at its position, state TENTATIVE. */
static inline void qr_log_write(struct qr_log *log, struct qr_thread *thread, const struct qr_frame *frame,
                                uint64_t lsn)
{
    (void)log;
    (void)lsn;
    qr_counter_add(&thread->counters[QR_COUNTER_LOG_FRAMES], 1);
    qr_counter_add(&thread->counters[QR_COUNTER_LOG_BYTES], qr_log_frame_size(frame));
}

/* Decides the frame. */
static inline void qr_log_decide(struct qr_log *log, struct qr_thread *thread, uint64_t lsn, enum qr_frame_state state)
{
    (void)log;
    (void)lsn;
    if (state == QR_FRAME_VOID) qr_counter_add(&thread->counters[QR_COUNTER_LOG_VOIDS], 1);
}

static inline void qr_log_slot_close(struct qr_thread *thread)
{
    /* order: log.slot.close pairs with log.slot.read: the install is visible to who sees the slot closed */
    atomic_store_explicit(&thread->slot_lsn, 0, memory_order_release);
}

/* Lower bound of what the thread may yet install; UINT64_MAX if its slot is closed. */
static inline uint64_t qr_log_slot_bound(const struct qr_thread *thread)
{
    /* order: log.slot.read pairs with log.slot.close */
    uint64_t bound = atomic_load_explicit(&thread->slot_lsn, memory_order_acquire);
    return bound == 0 ? UINT64_MAX : bound;
}

#endif
