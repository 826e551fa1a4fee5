/*
 * log.h: the order of writes: LSNs, slots, frames.
 *
 * Layer 3. An LSN is the position of a frame in the log; reserving one is a fetch-add on the tail. In a database without
 * files, or with the log switched off, no bytes stand behind the positions: frames are counted, not kept, and a large one
 * takes no more of them than a frame may. Otherwise they are copied to mapped segments (files.h). The write path is the same: slot open, reserve, write, decide, slot close.
 *
 * A slot is a thread's announcement that it is between reserving an LSN and having decided what becomes of it.
 *
 * LOG-1  While a thread's slot is open with bound B, every frame that it may yet install has an LSN >= B. The bound is
 *        stored before the reservation.
 * LOG-2  Whoever loads a tail T after a reservation of LSN < T sees the slot of that reservation, open or closed after
 *        the frame was installed or voided: the reservation releases the bound, loading the tail acquires it.
 * LOG-3  Nothing sleeps, waits, helps, allocates or fetches with a slot open (rule R11).
 * LOG-4  The tail never passes ready_end. Before each reservation a thread loads tail T and then the margin, and sees
 *        T + (writers + 1) x frame cap <= ready_end. All of this is seq_cst, so looks are ordered by their loads of the tail. After
 *        the last look, at T, come only its own reservation and those of looks before it: one for each writer at most, each a cap
 *        at most, so the tail stays at or below T + writers x cap. Who looked before has registered before its look, and so before
 *        the last look loaded the margin: it is counted.
 *
 * Wait-free.
 */
#ifndef QR_LOG_LOG_H
#define QR_LOG_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/counter_ids.h"
#include "base/counters.h"
#include "epoch/epoch.h"
#include "log/frame.h"

#define QR_LOG_START 16u /* the first LSN of a log without files; 0 means none */
#define QR_LOG_NO_ROOM 0u

struct qr_log_files;

struct qr_log {
    QR_CACHE_ALIGNED _Atomic uint64_t tail; /* the next LSN */

    /* Read by each write, changed seldom. In memory: no limit. */
    QR_CACHE_ALIGNED struct qr_log_files *files;
    _Atomic uint64_t ready_end;    /* up to here LSNs may be given out, and memory stored into; only grows */
    _Atomic uint64_t soft_end;     /* not above it: a writer that comes beyond calls for more */
    _Atomic uint64_t margin_bytes; /* (writers + 1) x frame cap */
    _Atomic uint32_t short_of_space; /* not 0: what room there is, is for deletions. Bits of enum qr_log_shortage */
    uint32_t frame_cap_bytes;
};

static inline void qr_log_init(struct qr_log *log)
{
    atomic_init(&log->tail, QR_LOG_START);
    log->files = NULL;
    atomic_init(&log->ready_end, UINT64_MAX);
    atomic_init(&log->soft_end, UINT64_MAX);
    atomic_init(&log->short_of_space, 0);
    log->frame_cap_bytes = QR_FRAME_MOST_BYTES;
    atomic_init(&log->margin_bytes, log->frame_cap_bytes);
}

/* While nobody writes. */
static inline void qr_log_set_tail(struct qr_log *log, uint64_t tail)
{
    atomic_init(&log->tail, tail);
}

/* The next LSN: all LSNs handed out are below. */
static inline uint64_t qr_log_tail(const struct qr_log *log)
{
    /* order: log.tail.read pairs with log.reserve: slots opened before reservations below the tail are seen; seq_cst for
     * the order of registration and tail (txn/snapshot.c) */
    return atomic_load_explicit(&log->tail, memory_order_seq_cst);
}

/* Whether writes other than deletions are to ask before they begin: the file system is full. */
static inline bool qr_log_is_short(const struct qr_log *log)
{
    /* relaxed: a few writes that see it late take little of the reserve */
    return atomic_load_explicit(&log->short_of_space, memory_order_relaxed) != 0;
}

/* Who misses space: the log, or whoever writes pages. */
enum qr_log_shortage { QR_LOG_SHORT = 1, QR_LOG_PAGES_SHORT = 2 };
static inline void qr_log_set_short(struct qr_log *log, enum qr_log_shortage of, bool is_short)
{
    if (is_short)
        atomic_fetch_or_explicit(&log->short_of_space, (uint32_t)of, memory_order_relaxed); /* relaxed: as above */
    else
        atomic_fetch_and_explicit(&log->short_of_space, ~(uint32_t)of, memory_order_relaxed); /* relaxed: as above */
}

/* Where room must reach for all writers to go on. */
static inline uint64_t qr_log_needed_end(const struct qr_log *log)
{
    /* relaxed: asked again by who needs the room */
    return qr_log_tail(log) + atomic_load_explicit(&log->margin_bytes, memory_order_relaxed);
}

/* Without files: LSNs below `end` may be given out. One thread at a time; the limit that is set first, nobody writing, may be
 * below the one before, that of memory. */
static inline void qr_log_allow(struct qr_log *log, uint64_t end)
{
    /* relaxed: a hint, as the same bound stands in ready_end */
    atomic_store_explicit(&log->soft_end, end, memory_order_relaxed);
    /* order: log.ready.raise pairs with log.ready.read */
    atomic_store_explicit(&log->ready_end, end, memory_order_release);
}

/* Whether there is room below which LSNs may be given out to all writers, as far as it was allowed. */
static inline bool qr_log_is_allowed(const struct qr_log *log, uint64_t end)
{
    /* order: log.ready.read pairs with log.ready.raise */
    return end <= atomic_load_explicit(&log->ready_end, memory_order_acquire);
}

/* Whether key and value are too much for one frame: then they go to PARTs first (parts.c). */
static inline bool qr_log_is_large(const struct qr_log *log, uint64_t key_size, uint64_t value_size)
{
    return log->files != NULL && key_size + value_size + 128 > log->frame_cap_bytes;
}

/* ---- The slot window -------------------------------------------------------------------------------------------- */

/* Whether one more reservation has room: before another one in the same window. */
static inline bool qr_log_has_room(const struct qr_log *log)
{
    uint64_t tail = qr_log_tail(log);
    /* order: log.margin.read as in qr_log_slot_open */
    uint64_t margin = atomic_load_explicit(&log->margin_bytes, memory_order_seq_cst);
    /* order: log.ready.read pairs with log.ready.raise: what was made ready */
    return tail + margin <= atomic_load_explicit(&log->ready_end, memory_order_acquire);
}

/* Whether there is room for so many bytes in frames, as far as can be seen at a glance. */
static inline bool qr_log_is_ready(const struct qr_log *log, uint64_t bytes)
{
    /* relaxed: a hint */
    uint64_t margin = atomic_load_explicit(&log->margin_bytes, memory_order_relaxed);
    /* relaxed: a hint */
    return qr_log_tail(log) + bytes + 2 * margin <= atomic_load_explicit(&log->ready_end, memory_order_relaxed);
}

/* The slow sides. */
bool qr_log_room(struct qr_log *log, struct qr_thread *thread);
uint64_t qr_log_reserve_slow(struct qr_log *log, struct qr_thread *thread, uint64_t lsn, uint64_t size_bytes);

/* Opens the slot, if there is room for a frame. False: nothing is open; qr_log_provision makes room, outside. */
static inline bool qr_log_slot_open(struct qr_log *log, struct qr_thread *thread)
{
    QR_ASSERT(atomic_load_explicit(&thread->slot_lsn, memory_order_relaxed) == 0); /* relaxed: own slot */
    /* order: log.room.tail pairs with log.reserve: LOG-4; as a bound any earlier tail would do */
    uint64_t bound = atomic_load_explicit(&log->tail, memory_order_seq_cst);
    /* order: log.margin.read pairs with log.margin.raise: a writer that this look does not count looks later */
    uint64_t margin = atomic_load_explicit(&log->margin_bytes, memory_order_seq_cst);
    /* relaxed: it only grows */
    bool call = bound + margin > atomic_load_explicit(&log->soft_end, memory_order_relaxed) || !thread->log_writer;
    if (QR_UNLIKELY(call) && !qr_log_room(log, thread)) return false;
    /* relaxed: published by log.reserve, which comes after it */
    atomic_store_explicit(&thread->slot_lsn, bound, memory_order_relaxed);
    return true;
}

/* The position of a frame that is wholly in one segment; QR_LOG_NO_ROOM: close the slot, make room outside. */
static inline uint64_t qr_log_reserve(struct qr_log *log, struct qr_thread *thread, uint64_t size_bytes)
{
    QR_ASSERT(size_bytes <= log->frame_cap_bytes || log->files == NULL);
    size_bytes = qr_min(size_bytes, log->frame_cap_bytes); /* no bytes stand behind it: LOG-4 is kept all the same */
    /* order: log.reserve pairs with log.tail.read and txn.generation.raise: publishes the slot's bound */
    uint64_t lsn = atomic_fetch_add_explicit(&log->tail, size_bytes, memory_order_seq_cst);
    if (QR_LIKELY(log->files == NULL ||
                  (lsn >= thread->log_window_start && lsn + size_bytes <= thread->log_window_end)))
        return lsn;
    return qr_log_reserve_slow(log, thread, lsn, size_bytes);
}

/* Where a position of the thread's window is in memory. */
static inline uint8_t *qr_log_at(const struct qr_thread *thread, uint64_t lsn)
{
    return thread->log_window + (lsn - thread->log_window_start);
}

/* The frames of small records are two or three lines. Where several threads write, the next one may be another's. */
#define QR_LOG_AHEAD_LINES 6u

/* Writes the frame at its position, state TENTATIVE. */
static inline void qr_log_write(struct qr_log *log, struct qr_thread *thread, const struct qr_frame *frame,
                                uint64_t size_bytes, uint64_t lsn)
{
    qr_counter_add(&thread->counters[QR_COUNTER_LOG_FRAMES], 1);
    qr_counter_add(&thread->counters[QR_COUNTER_LOG_BYTES], size_bytes);
    if (log->files == NULL) return;
    qr_frame_write(qr_log_at(thread, lsn), frame, (uint32_t)size_bytes, lsn, thread->log_salt);
    /* The lines of the next frames, whoever writes them: they were last touched when the segment was made ready, and a store into
     * them would wait for memory. Beyond the end of a segment it is no use and no harm. */
    const uintptr_t next = (uintptr_t)qr_log_at(thread, lsn) + size_bytes;
    for (unsigned line = 1; line <= QR_LOG_AHEAD_LINES; line++) __builtin_prefetch((const void *)(next + line * 64), 1);
}

/* Decides a frame that was written: DONE or VOID. */
static inline void qr_log_decide(struct qr_log *log, struct qr_thread *thread, uint64_t lsn, enum qr_frame_state state)
{
    if (state == QR_FRAME_VOID) qr_counter_add(&thread->counters[QR_COUNTER_LOG_VOIDS], 1);
    if (log->files != NULL) qr_frame_decide(qr_log_at(thread, lsn), state);
}

/* Gives up a reservation before anything was written there. */
static inline void qr_log_skip(struct qr_log *log, struct qr_thread *thread, uint64_t lsn, uint64_t size_bytes)
{
    qr_counter_add(&thread->counters[QR_COUNTER_LOG_VOIDS], 1);
    if (log->files != NULL) qr_frame_fill(qr_log_at(thread, lsn), size_bytes, lsn, thread->log_salt);
}

static inline void qr_log_slot_close(struct qr_thread *thread)
{
    /* order: log.slot.close pairs with log.slot.read: the install, and the frame with its state, are visible to who sees the
     * slot closed */
    atomic_store_explicit(&thread->slot_lsn, 0, memory_order_release);
}

/* Lower bound of what the thread may yet install; UINT64_MAX if its slot is closed. */
static inline uint64_t qr_log_slot_bound(const struct qr_thread *thread)
{
    /* order: log.slot.read pairs with log.slot.close */
    uint64_t bound = atomic_load_explicit(&thread->slot_lsn, memory_order_acquire);
    return bound == 0 ? UINT64_MAX : bound;
}

/* What this thread is going to write from now on counts for checkpoints as not saved (R1, R6), whether it is installed or not, until
 * the hold is released: PARTs, for the write that names them; what has to be saved together with something that comes after it. */
static inline void qr_log_hold(const struct qr_log *log, struct qr_thread *thread)
{
    /* order: log.parts.open pairs with log.parts.look: before the reservations */
    atomic_store_explicit(&thread->parts_lsn, qr_log_tail(log), memory_order_seq_cst);
}

static inline bool qr_log_is_held(const struct qr_thread *thread)
{
    return atomic_load_explicit(&thread->parts_lsn, memory_order_relaxed) != 0; /* relaxed: its own */
}

/* The write is done, or was given up. */
static inline void qr_log_release_hold(struct qr_thread *thread)
{
    /* order: log.parts.close pairs with log.parts.look: the page has the first PART's LSN by now */
    atomic_store_explicit(&thread->parts_lsn, 0, memory_order_release);
}

/* For a checkpoint: every frame that is not installed yet, or belongs to a write that is not, is at or above it (R1, R6). */
uint64_t qr_log_open_bound(const struct qr_log *log, struct qr_epoch *epoch);

/* All frames below are decided: the lowest open slot, or the tail. */
uint64_t qr_log_stable_end(const struct qr_log *log, struct qr_epoch *epoch);

#endif
