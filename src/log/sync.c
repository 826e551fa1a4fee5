/*
 * sync.c: how far the log survives: the death of the process, and power loss.
 *
 * Layer 3. Whoever needs an LSN to survive and finds nobody at it writes and syncs the stable prefix himself, for all; the
 * others wait for the end of that and look again. So a sync carries all that were decided when it began: group commit without
 * a thread of its own.
 *
 * SYNC-1  The stable prefix ends at the lowest open slot (LOG-1, LOG-2), so every frame in it is decided, and its bytes, with
 *         the state, happen before the sync: the slot's close releases them, the look at the slot acquires them.
 * SYNC-2  durable_end is raised only after every segment that has bytes between the old and the new end was synced without
 *         error, and those bytes were written before the sync began (DISK-2).
 */
#include <errno.h>

#include "base/status.h"
#include "base/stop.h"
#include "log/files.h"

#define LOOK_AGAIN_US 10000u

uint64_t qr_log_stable_end(const struct qr_log *log, struct qr_epoch *epoch)
{
    uint64_t end = qr_log_tail(log); /* before the slots: LOG-2 */
    if (QR_BUG(log_past_open_slot)) return end;
    for (struct qr_thread *t = qr_thread_first(epoch); t != NULL; t = qr_thread_next(t))
        end = qr_min(end, qr_log_slot_bound(t));
    return end;
}

uint64_t qr_log_open_bound(const struct qr_log *log, struct qr_epoch *epoch)
{
    uint64_t bound = qr_log_stable_end(log, epoch);
    for (struct qr_thread *t = qr_thread_first(epoch); t != NULL; t = qr_thread_next(t)) {
        /* order: log.parts.look pairs with log.parts.open and log.parts.close */
        uint64_t parts = atomic_load_explicit(&t->parts_lsn, memory_order_seq_cst);
        if (parts != 0) bound = qr_min(bound, parts);
    }
    return bound;
}

uint64_t qr_log_durable_end(const struct qr_log *log)
{
    if (log->files == NULL) return 0;
    /* order: log.durable.read pairs with log.durable.raise */
    return atomic_load_explicit(&log->files->durable_end, memory_order_acquire);
}

uint64_t qr_log_last_sync_ns(const struct qr_log *log)
{
    /* relaxed: a time to compare with */
    return atomic_load_explicit(&log->files->last_sync_ns, memory_order_relaxed);
}

void qr_log_fail(struct qr_log_files *files, int error)
{
    int none = 0;
    QR_ASSERT(error < 0);
    /* order: log.failure.set pairs with log.failure.read: the first one stays */
    if (!atomic_compare_exchange_strong_explicit(&files->failure, &none, error, memory_order_acq_rel,
                                                 memory_order_acquire))
        return;
    /* The mark for recovery within this boot (R12): what the page cache holds need not be what the disk has. A file system on
     * which not even this can be written takes nothing until it is mounted again, and then it is another mount. */
    pthread_mutex_lock(&files->mutex);
    /* relaxed: under the mutex */
    uint64_t first = atomic_load_explicit(&files->first, memory_order_relaxed);
    /* relaxed: under the mutex. The newest first, which is the one that recovery reads for certain. */
    for (uint64_t i = atomic_load_explicit(&files->next, memory_order_relaxed); i > first; i--) {
        /* relaxed: under the mutex */
        struct qr_log_segment *s = atomic_load_explicit(&files->ring[(i - 1) % QR_LOG_RING], memory_order_relaxed);
        qr_log_segment_mark(s->file);
    }
    pthread_mutex_unlock(&files->mutex);
}

/* Calls `step` for each segment with bytes in [from, to), oldest first, with the part that it has. */
static int each_segment(struct qr_log_files *files, uint64_t from, uint64_t to,
                        int (*step)(struct qr_log_segment *segment, uint64_t from, uint64_t to))
{
    while (from < to) {
        pthread_mutex_lock(&files->mutex);
        struct qr_log_segment *segment = qr_log_segment_with(files, from);
        pthread_mutex_unlock(&files->mutex); /* segments above durable_end are not released */
        uint64_t end = qr_min(to, segment->end);
        int error = step(segment, qr_max(from, segment->start + QR_LOG_HEADER_BYTES), end);
        if (error != 0) return error;
        from = end;
    }
    return 0;
}

static int write_part(struct qr_log_segment *segment, uint64_t from, uint64_t to)
{
    if (from >= to) return 0;
    return qr_file_write(segment->file, segment->memory + (from - segment->start), to - from, from - segment->start);
}

static int sync_part(struct qr_log_segment *segment, uint64_t from, uint64_t to)
{
    if (from >= to) return 0; /* in the header, which is synced (FILES-1) */
    if (!segment->mapped) return qr_file_sync(segment->file);
    /* Whole pages below the end hold decided frames: they are stored into no more (SYNC-1). */
    return qr_file_sync_mapped(segment->file, segment->memory + (from - segment->start), to - from);
}

/* With `syncing`: takes the prefix as far as it goes. */
static void advance(struct qr_log_files *files, enum qr_log_level level)
{
    uint64_t end = qr_log_stable_end(files->log, files->epoch);
    /* relaxed: with `syncing`, whose taking acquired it */
    uint64_t written = atomic_load_explicit(&files->written_end, memory_order_relaxed);
    /* relaxed: as above */
    uint64_t durable = atomic_load_explicit(&files->durable_end, memory_order_relaxed);
    int error = 0;
    if (files->options.buffered && end > written && !QR_BUG(log_ack_unwritten)) error = each_segment(files, written, end, write_part);
    if (error == 0 && end > written) {
        /* order: log.written.raise pairs with log.durable.read */
        atomic_store_explicit(&files->written_end, end, memory_order_release);
    }
    if (error == 0 && level == QR_LOG_DURABLE && end > durable) {
        QR_STOP("log.before_sync");
        /* Whatever a frame below the end names was written before that frame was (BLOB-1). */
        if (files->options.before_sync != NULL) error = files->options.before_sync(files->options.context);
        if (error == 0 && !QR_BUG(log_ack_unsynced)) error = each_segment(files, durable, end, sync_part);
        QR_STOP("log.synced");
        if (error == 0) {
            /* order: log.durable.raise pairs with log.durable.read: SYNC-2 */
            atomic_store_explicit(&files->durable_end, end, memory_order_release);
            /* relaxed: statistics */
            atomic_fetch_add_explicit(&files->syncs, 1, memory_order_relaxed);
        }
        /* relaxed: a time to compare with */
        atomic_store_explicit(&files->last_sync_ns, qr_clock_ns(), memory_order_relaxed);
    }
    if (error != 0 && !QR_BUG(log_sync_retried)) qr_log_fail(files, error);
}

/* Takes the lead and advances; false: another thread has it. */
static bool lead(struct qr_log_files *files, enum qr_log_level level)
{
    uint32_t none = 0;
    /* order: log.lead.take pairs with log.lead.leave */
    if (!atomic_compare_exchange_strong_explicit(&files->syncing, &none, 1, memory_order_acquire, memory_order_relaxed))
        return false;
    if (qr_log_failure(files->log) == 0) advance(files, level);
    /* order: log.lead.leave pairs with log.lead.take: what the ends are now */
    atomic_store_explicit(&files->syncing, 0, memory_order_release);
    qr_event_signal(&files->synced);
    return true;
}

int qr_log_wait(struct qr_log *log, uint64_t lsn, enum qr_log_level level)
{
    struct qr_log_files *files = log->files;
    while (!qr_log_survives(log, lsn, level)) {
        uint32_t seen = qr_event_count(&files->synced);
        if (qr_log_survives(log, lsn, level)) return 0;
        int error = qr_log_failure(log);
        if (error != 0)
            return qr_fail(QUIRE_ERR_UNKNOWN, -error, "a sync of the log failed: it is unknown whether the write survives");
        if (!lead(files, level))
            qr_event_wait(&files->synced, seen, LOOK_AGAIN_US);
        else if (!qr_log_survives(log, lsn, level))
            qr_thread_yield(); /* a slot below is open: its thread comes to its end without waiting for anything (LOG-3) */
    }
    return 0;
}
