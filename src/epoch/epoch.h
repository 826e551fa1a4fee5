/*
 * Reclamation of one database: sections, guards, retired memory, holds, and the record that each thread has.
 * Layer 1 (epoch). The only user of liburcu.
 *
 * EPOCH-1  What a thread can reach inside a section (enter to exit, pin to unpin) is not reclaimed before that section
 *          ends, provided that it is unlinked before it is retired.
 * EPOCH-2  A retired thing is reclaimed exactly once: after a grace period that began after its retirement, and, for
 *          a block in a hold, after the hold was cleared.
 * EPOCH-3  A record (struct qr_thread) belongs to one thread at a time and is never freed before the database closes.
 *          So others may read its atomic fields at any time.
 * EPOCH-4  A batch is filled by the thread that has it and freed by the reclaimer only; there is one reclaimer at a
 * time. EPOCH-5  In a child made by fork nothing here may be called but qr_epoch_forked.
 *
 * EPOCH-6  A guard is open as long as its ticket is: tickets are not used twice in a record, and all that are open end
 *          with the thread. So a guard that outlived its thread is known, whoever has the record by then.
 *
 * Concurrency: functions that take a record are called by its thread. enter, exit, pin, unpin, repin and hold_set are
 * wait-free, retire is lock-free. qr_epoch_reclaim waits for the sections of other threads and for nothing else. The
 * first call of a thread, its end, and destroy take a process-wide mutex for some instructions (liburcu does so at those
 * places).
 *
 * Why liburcu-bp: the host's threads need no registration, and the read side is two plain stores (membarrier is on the
 * reclaimer's side). Read next: reclaim.c (the round, and why it is enough), thread.c, hold.c.
 */
#ifndef QR_EPOCH_EPOCH_H
#define QR_EPOCH_EPOCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/check.h"

/*
 * ThreadSanitizer cannot follow liburcu: its builds call the functions of the library and name the edges themselves.
 * Under AddressSanitizer and UndefinedBehaviorSanitizer the calls hide that liburcu lays its readers out less aligned
 * than it declares them.
 */
#if defined(__SANITIZE_THREAD__)
#define QR_EPOCH_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define QR_EPOCH_CALLS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define QR_EPOCH_TSAN 1
#elif __has_feature(address_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define QR_EPOCH_CALLS 1
#endif
#endif

#ifdef QR_EPOCH_TSAN
#include <sanitizer/tsan_interface.h>
#elif !defined(QR_EPOCH_CALLS) && !defined(_LGPL_SOURCE)
#define _LGPL_SOURCE /* the inline read side; liburcu is LGPL 2.1 and linked dynamically */
#endif
#include <urcu/urcu-bp.h>

enum {
    QR_RETIRE_BLOCK = 0, /* a block of the arena, size = its usable size; kinds from 1 on go to the callback */
    QR_RETIRE_KIND_MAX = 255,
    QR_RETIRE_BATCH_COUNT = 128,       /* entries of a batch */
    QR_RETIRE_BATCH_BYTES = 512 << 10, /* a batch that retains this much is handed over before it is full */
    QR_THREAD_COUNTERS = 64,
    QR_EPOCH_TAG_BYTES = 32,    /* a guard's tag with its NUL */
    QR_EPOCH_PLACES = 32,       /* guards of a record that are known one by one */
    QR_EPOCH_PLACE_BITS = 6     /* of a ticket */
};

struct qr_epoch;
struct qr_retire_batch;
struct qr_hold;
struct qr_thread_anchor;

/* One for each (database, thread); passed on to a later thread when its thread has ended. */
struct qr_thread {
    /* For the log layer: lower bound of the LSN that this thread is writing; 0 = slot closed. */
    QR_CACHE_ALIGNED _Atomic uint64_t slot_lsn;

    /* The log layer's too: the part of a log segment that this thread writes to, by LSN. Written and read by it alone. */
    uint64_t log_window_start, log_window_end; /* 0, 0: none yet */
    uint8_t *log_window;                       /* memory of log_window_start */
    uint32_t log_salt;
    bool log_writer; /* counted among the log's writers */
    _Atomic uint64_t parts_lsn; /* not 0: what the thread writes from there on counts as not saved (qr_log_hold) */

    /* The tree layer's: whether this thread is changing the structure of a tree; and how deep, which is its own. */
    _Atomic uint32_t structure_slot;
    uint32_t structure_depth;

    /* Written by the thread alone, read by it alone. */
    QR_CACHE_ALIGNED struct qr_epoch *epoch;
    uint64_t random;  /* state of a random generator, never 0; for whoever needs one */
    uint64_t yielded_bytes; /* retired_bytes when the thread last gave its processor to whoever does rounds */
    uint32_t nesting; /* sections of this record that are open, guards included */
    bool in_reclaim;  /* this thread runs a round now: callbacks may retire, not reclaim */

    /* Written by the thread alone, read by all. */
    _Atomic uint32_t pins;            /* guards that are open */
    _Atomic uint64_t pinned_since_ns; /* the outermost one, monotonic; 0 while its tag changes */
    _Atomic uint64_t pin_tag[QR_EPOCH_TAG_BYTES / 8];
    _Atomic uint64_t retired_bytes; /* since the record was made */
    _Atomic uint64_t retired_count;
    _Atomic uint64_t lost_bytes; /* retired with no memory to remember it: kept until the database closes */

    /* Retired and not handed over yet. The reclaimer reads the first, fills the second. */
    _Atomic(struct qr_retire_batch *) batch;
    _Atomic(struct qr_retire_batch *) spare;

    /* The reclaimer's: what this round takes of `batch`. */
    struct qr_retire_batch *taken_batch;
    uint32_t taken_end;

    /* Thread list of the database: constant. */
    struct qr_thread *next;

    /* Under the registry mutex: the owner's anchor (NULL = nobody's), and its list of records. */
    struct qr_thread_anchor *anchor;
    struct qr_thread *anchor_next;

    /* Written by the thread alone, read by it alone: the guards that are open. See qr_epoch_pin. */
    QR_CACHE_ALIGNED uint64_t ticket_serial; /* of the latest ticket; never set back */
    uint32_t places_used;                    /* bit i: tickets[i] is open */
    uint32_t crowd;                          /* open ones that found no place */
    uint64_t crowd_since;                    /* serial of the first of them */
    uint64_t tickets[QR_EPOCH_PLACES];       /* 0 = none */

    QR_CACHE_ALIGNED struct qr_arena_cache cache;
    QR_CACHE_ALIGNED _Atomic uint64_t counters[QR_THREAD_COUNTERS]; /* for base/counters.h; never set back */
};

struct qr_epoch_ops {
    /*
     * Takes what was retired with a kind from 1 on, after its grace period. Called by the reclaiming thread outside
     * sections; it may retire, not reclaim. thread: the record of the reclaiming thread.
     */
    void (*reclaim)(void *context, struct qr_thread *thread, unsigned kind, void *pointer, uint64_t size);
};

/* The fields are private; the struct is here for the inline functions. */
struct qr_epoch {
    uint64_t serial; /* never used twice in a process */
    struct qr_arena *arena;
    const struct qr_epoch_ops *ops;
    void *context;
    struct qr_epoch *next_in_process; /* under the registry mutex */
    _Atomic(struct qr_thread *) threads;
    _Atomic(struct qr_hold *) holds;
    QR_CACHE_ALIGNED _Atomic(struct qr_retire_batch *) queue; /* batches handed over, newest first */
    _Atomic uint64_t queued_bytes;
    QR_CACHE_ALIGNED _Atomic uint32_t reclaiming; /* 1 while a thread runs a round; the fields below are its own */
    struct qr_retire_batch *deferred;             /* batches of earlier rounds with blocks in holds */
    struct qr_retire_batch *taken;                /* what this round took from the queue */
    const void **held;                            /* blocks in holds, sorted */
    size_t held_count;
    uint64_t held_capacity;
    bool held_complete; /* false: no memory for the array, walk the holds */
    uint64_t kept_bytes;                          /* what this round has found in holds so far */
    _Atomic uint64_t held_bytes;                  /* the same of the last round, when it had ended */
    _Atomic uint64_t reclaimed_bytes;
    _Atomic uint64_t reclaimed_count;
    _Atomic uint64_t rounds;
};

/* ---- A database's epoch ----------------------------------------------------------------------------------------- */

/*
 * ops may be NULL if only blocks are retired; else it and context must outlive the epoch. Blocks go back to arena,
 * which must outlive the epoch. Results: 0, QUIRE_ERR_NO_MEMORY; QUIRE_ERR_FORKED in a child whose parent has made an
 * epoch (the child's liburcu is not in a usable state).
 */
int qr_epoch_create(struct qr_arena *arena, const struct qr_epoch_ops *ops, void *context, struct qr_epoch **ret_epoch);

/*
 * Reclaims everything and frees all records and holds, in use or not. No other thread is inside a call, and no section
 * is open; threads that have used it may end at any time, also during this call. NULL is fine.
 */
void qr_epoch_destroy(struct qr_epoch *epoch);

/* One word: not 0 in the process that made the first epoch, 0 in its children. */
extern _Atomic uint64_t *qr_epoch_fork_word;

/* Whether this process is a child of the one that made the epoch. Two loads. */
static QR_ALWAYS_INLINE bool qr_epoch_forked(const struct qr_epoch *epoch)
{
    (void)epoch; /* children make none of their own, see qr_epoch_create */
    /* relaxed: the word changes in fork only, which the child sees as a whole */
    return QR_UNLIKELY(atomic_load_explicit(qr_epoch_fork_word, memory_order_relaxed) == 0);
}

/*
 * Whether some thread has a guard open, on any database of the process: a round would wait for it. An answer for a moment:
 * a guard may be pinned right after. Takes the process-wide mutex.
 */
bool qr_epoch_process_guarded(void);

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

struct qr_thread_recent {
    uint64_t serial;
    struct qr_thread *thread;
};
enum { QR_THREAD_RECENT_COUNT = 4 }; /* databases used in turn without a slow call each time */
extern _Thread_local struct qr_thread_recent qr_thread_recent[QR_THREAD_RECENT_COUNT]
    __attribute__((tls_model("initial-exec")));

struct qr_thread *qr_thread_self_slow(struct qr_epoch *epoch);

/*
 * The calling thread's record, made at its first call; NULL without memory. It stays the thread's until the thread
 * or the database ends. A guard that is open when the thread ends is closed with it.
 */
static QR_ALWAYS_INLINE struct qr_thread *qr_thread_self(struct qr_epoch *epoch)
{
    const struct qr_thread_recent *recent = &qr_thread_recent[epoch->serial % QR_THREAD_RECENT_COUNT];
    if (QR_LIKELY(recent->serial == epoch->serial))
        return recent->thread;
    return qr_thread_self_slow(epoch);
}

/* All records ever made, those without a thread too: their counters go on counting with the next thread. Any thread. */
struct qr_thread *qr_thread_first(struct qr_epoch *epoch);
struct qr_thread *qr_thread_next(struct qr_thread *thread);

/* ---- Sections --------------------------------------------------------------------------------------------------- */

/* Opens a section. Nests. About a nanosecond. */
static QR_ALWAYS_INLINE void qr_epoch_enter(struct qr_thread *thread)
{
    thread->nesting++;
    urcu_bp_read_lock();
}

static QR_ALWAYS_INLINE void qr_epoch_exit(struct qr_thread *thread)
{
    QR_ASSERT(thread->nesting > 0);
    thread->nesting--;
#ifdef QR_EPOCH_TSAN
    __tsan_release(thread);
#endif
    urcu_bp_read_unlock();
}

/* Whether the thread is in a section of this database. */
static inline bool qr_epoch_inside(const struct qr_thread *thread)
{
    return thread->nesting > 0;
}

/* Whether the calling thread is in any section of the process: of any database, or the host's own of the same liburcu.
 * A thread that waits for a grace period then waits for itself. */
bool qr_epoch_inside_any(void);

/* ---- Guards ----------------------------------------------------------------------------------------------------- */

/*
 * A section that a user holds: counted, and the outermost one shown in statistics. tag: NULL, or text that is copied.
 * Answers a ticket, never 0: a serial number and the place in the record where it is noted.
 *
 *      63                              6 5      0
 *      | serial, grows with each pin    | place  |      place QR_EPOCH_PLACES: none was free
 */
uint64_t qr_epoch_pin(struct qr_thread *thread, const char *tag);

/* The ticket must be open. */
void qr_epoch_unpin(struct qr_thread *thread, uint64_t ticket);

/*
 * Whether the ticket is open in this record. Exact for one that has a place. One without is taken for open as long as
 * any without is, unless it is older than the first of these: what is looked at under it is protected all the same, as
 * some guard of the record is open.
 */
static QR_ALWAYS_INLINE bool qr_epoch_pinned(const struct qr_thread *thread, uint64_t ticket)
{
    uint64_t serial = ticket >> QR_EPOCH_PLACE_BITS;
    unsigned place = ticket & ((1u << QR_EPOCH_PLACE_BITS) - 1);

    if (QR_LIKELY(place < QR_EPOCH_PLACES))
        return thread->tickets[place] == ticket && ticket != 0;
    return thread->crowd != 0 && serial >= thread->crowd_since && serial <= thread->ticket_serial;
}

/* Ends the section and starts a new one; without effect on what is held if another section of the thread is open. */
void qr_epoch_repin(struct qr_thread *thread);

/* ---- Retiring --------------------------------------------------------------------------------------------------- */

int qr_epoch_prepare_slow(struct qr_thread *thread);

/*
 * Makes sure that the thread can retire QR_RETIRE_BATCH_COUNT things without new memory. Call it before an operation
 * that may retire, outside of whatever must not fail. 0 or QUIRE_ERR_NO_MEMORY. One load, most of the time.
 */
static QR_ALWAYS_INLINE int qr_epoch_prepare(struct qr_thread *thread)
{
    /* relaxed: only this thread takes the spare away; whether there is one is all that is asked */
    if (QR_LIKELY(atomic_load_explicit(&thread->spare, memory_order_relaxed) != NULL))
        return 0;
    return qr_epoch_prepare_slow(thread);
}

/*
 * Hands over a thing that no section can find from now on. Inside a section or outside. Does not fail; without
 * qr_epoch_prepare and without memory the thing is counted as lost and freed when the database closes (blocks) or
 * never.
 */
void qr_epoch_retire(struct qr_thread *thread, unsigned kind, void *pointer, uint64_t size);

/*
 * One round: takes everything retired so far, by any thread, waits for the sections that are open (a grace period),
 * and reclaims it, except for blocks in holds. Returns true if it reclaimed something, or if another thread is in a
 * round right now and things wait: calling again may help. false: nothing is left, or only what holds retain.
 * Must not be called inside a section of this database; inside a section of another one (it would wait for itself) it
 * does nothing and returns false.
 */
bool qr_epoch_reclaim(struct qr_epoch *epoch, struct qr_thread *self);

/* Bytes in batches that were handed over, full ones in the main: for thresholds. One load. */
static inline uint64_t qr_epoch_queued_bytes(const struct qr_epoch *epoch)
{
    /* relaxed: a threshold; a stale sum only moves the moment of a round */
    return atomic_load_explicit(&epoch->queued_bytes, memory_order_relaxed);
}

/* ---- Holds ------------------------------------------------------------------------------------------------------ */

/* Keeps one block alive without a section, for iterators. A hold belongs to its holder; it may move between threads. */
struct qr_hold {
    QR_CACHE_ALIGNED _Atomic(const void *) block;
    _Atomic uint32_t in_use;
    struct qr_hold *next; /* constant */
};

/* NULL without memory. */
struct qr_hold *qr_hold_acquire(struct qr_epoch *epoch);

/*
 * Lets the hold keep `block` instead of what it kept before. Not NULL: inside the section in which the caller found the
 * block; NULL: anywhere.
 */
void qr_hold_set(struct qr_hold *hold, const void *block);

/* Clears it and gives it back. NULL is fine. */
void qr_hold_release(struct qr_hold *hold);

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

/* Sums over running threads: exact when nothing happens meanwhile. */
struct qr_epoch_stats {
    uint64_t retired_bytes; /* waiting now */
    uint64_t retired_count;
    uint64_t reclaimed_bytes; /* since creation */
    uint64_t reclaimed_count;
    uint64_t rounds;     /* that found something */
    uint64_t lost_bytes; /* see qr_epoch_retire */
    uint64_t guards_open;
    uint64_t holds_open;
    uint64_t oldest_guard_age_ms; /* 0 without guards */
    char oldest_guard_tag[QR_EPOCH_TAG_BYTES];
};
void qr_epoch_stats(struct qr_epoch *epoch, struct qr_epoch_stats *ret_stats);

/* Bytes reclaimed since creation. One load. */
static inline uint64_t qr_epoch_reclaimed_bytes(const struct qr_epoch *epoch)
{
    /* relaxed: a gauge; a stale one only makes somebody wait a little */
    return atomic_load_explicit(&epoch->reclaimed_bytes, memory_order_relaxed);
}

/* Of the retired bytes, those that the last round left in holds. One load. */
static inline uint64_t qr_epoch_held_bytes(const struct qr_epoch *epoch)
{
    /* relaxed: a gauge; a stale one lasts until the next round */
    return atomic_load_explicit(&epoch->held_bytes, memory_order_relaxed);
}

/* The same singly. Each walks the thread list (or the holds). */
uint64_t qr_epoch_retired_bytes(struct qr_epoch *epoch);
uint64_t qr_epoch_guards_open(struct qr_epoch *epoch);
uint64_t qr_epoch_holds_open(struct qr_epoch *epoch);

#endif
