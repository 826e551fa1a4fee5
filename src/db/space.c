/*
 * space.c: see space.h.
 *
 * Layer 6.
 */
#include "db/space.h"

#include "base/bugs.h"
#include "db/db.h"

#define FIRST_LEAST_BYTES (UINT64_C(64) << 10)
#define FIRST_SHARE 128u /* of the free space, for a first segment */
#define MOST_SHARE 4u /* of what is left, for what is in no checkpoint */
#define LEAST_SHARE 16u
#define MOST_CAPS 4u /* of log, in no checkpoint yet */
#define BEHIND_LEAST_BYTES (UINT64_C(8) << 20) /* read in some 10 ms, and a checkpoint takes as long */
#define STEP_LEAST_BYTES (UINT64_C(16) << 10)
#define WAIT_US 1000u

/* ---- Sizes ------------------------------------------------------------------------------------------------------- */

uint64_t qr_db_first_segment_bytes(struct quire *db)
{
    uint64_t free_bytes;
    uint64_t size = QR_FIRST_SEGMENT_MOST;
    if (db->files->disk->ops->dir_free_bytes(db->files->dir, &free_bytes) != 0) return size;
    while (size > FIRST_LEAST_BYTES && size > free_bytes / FIRST_SHARE) size /= 2;
    return size;
}

/* ---- What is kept ----------------------------------------------------------------------------------------------- */

void qr_db_keep_reserve(struct quire *db)
{
    struct qr_log_counts log;
    struct qr_store_stats store;
    if (qr_db_clears_later(db)) return; /* there may be no space for it yet */
    qr_log_counts(&db->log, &log);
    qr_store_stats(db->checkpointer.store, &store);
    if (log.segments + store.segments >= QR_STORE_RESERVE_FROM || store.keeps_reserve) qr_log_keep_reserve(&db->log);
}

bool qr_db_give_up_spares(struct quire *db, uint64_t most_ms)
{
    if (QR_BUG(spares_kept)) return false;
    bool of_store = qr_store_drop_spares(db->checkpointer.store);
    bool of_others = qr_db_give_up_leftovers(db, most_ms);
    bool of_log = db->log.files != NULL && qr_log_failure(&db->log) == 0 && qr_log_drop_spares(&db->log);
    return of_store || of_log || of_others;
}

/* ---- What is left ----------------------------------------------------------------------------------------------- */

static uint64_t room_beside(struct quire *db, const struct qr_store_stats *store)
{
    uint64_t bytes;
    if (db->files->disk->ops->dir_free_bytes(db->files->dir, &bytes) != 0 || __builtin_add_overflow(bytes, store->reserve_bytes, &bytes))
        return UINT64_MAX;
    return bytes;
}

uint64_t qr_db_room_bytes(struct quire *db)
{
    struct qr_store_stats store;
    qr_store_stats(db->checkpointer.store, &store);
    return room_beside(db, &store);
}

/* That is allowed however little space there is. */
static uint64_t least_allowed_bytes(const struct quire *db)
{
    return db->checkpointer.first_segment_bytes / 4;
}

/* How much may have come to the log since the last checkpoint: SPACE-2. */
static uint64_t allowed_bytes(struct quire *db)
{
    struct qr_store_stats store;
    qr_store_stats(db->checkpointer.store, &store);
    uint64_t room = room_beside(db, &store);
    if (room == 0 || room == UINT64_MAX) return UINT64_MAX; /* if there were none nothing could be written */
    uint64_t allowed = room / MOST_SHARE;
    if (room > store.durable_bytes) allowed = qr_max(qr_min(allowed, (room - store.durable_bytes) / 2), room / LEAST_SHARE);
    return qr_max(allowed, least_allowed_bytes(db));
}

static uint64_t unsaved_bytes(struct quire *db)
{
    uint64_t tail = qr_log_tail(&db->log);
    /* relaxed: a threshold */
    return tail - qr_min(tail, atomic_load_explicit(&db->checkpointer.replay_from, memory_order_relaxed));
}

/* Whether more came than a share of what is allowed. Most of the time the file system need not be asked. */
static bool is_beyond(struct quire *db, uint64_t share)
{
    uint64_t unsaved = unsaved_bytes(db);
    return unsaved > least_allowed_bytes(db) && unsaved > allowed_bytes(db) / share;
}

/* SPACE-5 */
static bool is_far_behind(struct quire *db)
{
    uint64_t most = qr_max(MOST_CAPS * qr_db_log_cap(db), BEHIND_LEAST_BYTES);
    uint64_t ring = QR_LOG_RING * db->options.log_segment_bytes; /* before that is full, which is NO_SPACE */
    uint64_t unsaved = unsaved_bytes(db);
    if (unsaved > ring / 4 * 3) return true;
    return unsaved > most && !qr_db_clears_later(db); /* none is made before it has cleared */
}

bool qr_db_space_is_little(struct quire *db)
{
    return is_beyond(db, 2);
}

bool qr_db_space_is_short(struct quire *db)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    /* relaxed: a threshold */
    bool failed = atomic_load_explicit(&cp->failed_ns, memory_order_relaxed) != 0 || qr_log_failure(&db->log) != 0;
    /* relaxed: a checkpoint that begins a moment later is not missed for long */
    bool held = atomic_load_explicit(&cp->held, memory_order_relaxed) != 0;
    if (!cp->thread_runs || failed || held || QR_BUG(space_not_awaited)) return false;
    return is_beyond(db, 1) || is_far_behind(db);
}

void qr_db_adapt_steps(struct quire *db)
{
    qr_log_set_step(&db->log, qr_max(allowed_bytes(db) / 4, STEP_LEAST_BYTES));
}

static uint64_t ended_checkpoints(const struct qr_checkpointer *cp)
{
    /* relaxed: how long to wait, no more */
    return atomic_load_explicit(&cp->count, memory_order_relaxed) + atomic_load_explicit(&cp->failures, memory_order_relaxed);
}

uint64_t qr_db_stall_end_ns(const struct quire *db)
{
    return qr_clock_ns() + db->options.stall_timeout_ms * UINT64_C(1000000);
}

void qr_db_wait_space(struct quire *db, struct qr_thread *thread, uint64_t *end_ns)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    uint64_t ended = ended_checkpoints(cp);
    if (*end_ns == 0) *end_ns = qr_db_stall_end_ns(db);
    /* relaxed: only the number itself */
    atomic_fetch_add_explicit(&cp->waiting, 1, memory_order_relaxed);
    while (!qr_epoch_inside(thread) && !qr_log_is_held(thread) && qr_db_space_is_short(db) && ended_checkpoints(cp) - ended < 2 &&
           qr_clock_ns() < *end_ns) {
        qr_event_signal(&cp->wake);
        qr_sleep_us(WAIT_US);
    }
    /* relaxed: as above */
    atomic_fetch_sub_explicit(&cp->waiting, 1, memory_order_relaxed);
}

void qr_db_join_wait(struct quire *db, struct qr_thread *thread, uint64_t *end_ns)
{
    /* relaxed: a segment more or less */
    if (QR_UNLIKELY(atomic_load_explicit(&db->checkpointer.waiting, memory_order_relaxed) != 0)) qr_db_wait_space(db, thread, end_ns);
}
