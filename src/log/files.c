/*
 * files.c: the life of a log with files, and the room in it.
 *
 * Layer 3. Writers pass through qr_log_room and qr_log_reserve_slow seldom: when a segment ends, when little room is left.
 * Neither waits. qr_log_provision and qr_log_work do what waits.
 */
#include "log/files.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/status.h"
#include "base/stop.h"

#define FIRST_SEGMENT_BYTES ((uint64_t)256 << 10)
#define MOST_SEGMENT_BYTES ((uint64_t)64 << 20)
#define POPULATE_BYTES ((uint64_t)256 << 10)
#define FREE_SHARE 8u
#define RESERVE_PAUSE_NS 100000000u /* making it may write much before it is known that there is no space */

/* ---- Room, in a slot window ------------------------------------------------------------------------------------- */

static void call_for_more(struct qr_log_files *files)
{
    /* relaxed: it only spares calls */
    if (atomic_load_explicit(&files->called, memory_order_relaxed) != 0) return;
    /* relaxed: as above */
    atomic_store_explicit(&files->called, 1, memory_order_relaxed);
    if (files->options.wake != NULL) files->options.wake(files->options.context);
}

bool qr_log_room(struct qr_log *log, struct qr_thread *thread)
{
    if (!thread->log_writer) {
        thread->log_writer = true;
        /* order: log.margin.raise pairs with log.margin.read: LOG-4 */
        atomic_fetch_add_explicit(&log->margin_bytes, log->frame_cap_bytes, memory_order_seq_cst);
    }
    if (log->files != NULL) call_for_more(log->files);
    return qr_log_has_room(log);
}

/* Gives the thread the segment that has `lsn` as its window. There is one: lsn is below ready_end (LOG-4), and segments are
 * released below all open slots only. */
static struct qr_log_segment *enter_segment(struct qr_log_files *files, struct qr_thread *thread, uint64_t lsn)
{
    /* order: log.ring.read pairs with log.ring.add */
    uint64_t i = atomic_load_explicit(&files->next, memory_order_acquire);
    struct qr_log_segment *segment;
    do {
        i--;
        /* relaxed: published with the count */
        segment = atomic_load_explicit(&files->ring[i % QR_LOG_RING], memory_order_relaxed);
    } while (segment->start > lsn);
    QR_ASSERT(lsn < segment->end);
    thread->log_window_start = segment->start + QR_LOG_HEADER_BYTES;
    thread->log_window_end = segment->end;
    thread->log_window = segment->memory + QR_LOG_HEADER_BYTES;
    thread->log_salt = segment->salt;
    return segment;
}

/* Fills a range of reserved positions, headers left out, however many segments it touches. */
static void fill(struct qr_log_files *files, struct qr_thread *thread, uint64_t from, uint64_t to)
{
    while (from < to) {
        enter_segment(files, thread, from);
        from = qr_max(from, thread->log_window_start);
        uint64_t end = qr_min(to, thread->log_window_end);
        if (from < end) qr_frame_fill(qr_log_at(thread, from), end - from, from, thread->log_salt);
        from = qr_max(from, end);
    }
}

uint64_t qr_log_reserve_slow(struct qr_log *log, struct qr_thread *thread, uint64_t lsn, uint64_t size_bytes)
{
    for (;;) {
        enter_segment(log->files, thread, lsn);
        if (lsn >= thread->log_window_start && lsn + size_bytes <= thread->log_window_end) return lsn;
        fill(log->files, thread, lsn, lsn + size_bytes);
        QR_STOP("log.boundary_filled");
        if (!qr_log_has_room(log)) return QR_LOG_NO_ROOM;
        /* order: log.reserve as in qr_log_reserve */
        lsn = atomic_fetch_add_explicit(&log->tail, size_bytes, memory_order_seq_cst);
    }
}

/* ---- Making room ------------------------------------------------------------------------------------------------ */

static uint64_t step_bytes(const struct qr_log_files *files)
{
    return atomic_load_explicit(&files->step, memory_order_relaxed); /* relaxed: only the number itself */
}

void qr_log_set_step(struct qr_log *log, uint64_t bytes)
{
    uint64_t step = qr_max(bytes & ~(uint64_t)(QR_LOG_HEADER_BYTES - 1), QR_LOG_HEADER_BYTES);
    atomic_store_explicit(&log->files->step, step, memory_order_relaxed); /* relaxed: as above */
}

/* Under the mutex: how far ahead of the tail there should be room: more in a store with large segments, which takes more a second. */
static uint64_t ahead_bytes(const struct qr_log_files *files)
{
    const struct qr_log_segment *last = qr_log_segment_last(files);
    uint64_t least = qr_min(files->options.first_segment_bytes, POPULATE_BYTES);
    return qr_min(qr_min(qr_max((last->end - last->start) / 16, least), POPULATE_BYTES * 16), step_bytes(files));
}

/* Under the mutex. */
static void set_ready(struct qr_log_files *files, uint64_t end)
{
    uint64_t ahead = ahead_bytes(files) / 2;
    /* order: log.ready.raise pairs with log.ready.read: the segment, and its pages */
    atomic_store_explicit(&files->log->ready_end, end, memory_order_release);
    /* relaxed: a hint; the room itself is looked up in ready_end */
    atomic_store_explicit(&files->log->soft_end, end - qr_min(ahead, end), memory_order_relaxed);
}

static uint64_t ready_end(const struct qr_log_files *files)
{
    /* relaxed: raised under the mutex only */
    return atomic_load_explicit(&files->log->ready_end, memory_order_relaxed);
}

/* Under the mutex: makes the next part ready; ready_end is below the end of the last segment. At the beginning of the log it
 * lies behind the first segment's header. */
static int populate(struct qr_log_files *files)
{
    uint64_t from = ready_end(files);
    struct qr_log_segment *segment = qr_log_segment_with(files, from);
    uint64_t to = qr_min(from - from % QR_LOG_HEADER_BYTES + qr_min(POPULATE_BYTES, step_bytes(files)), segment->end);
    if (segment->mapped) {
        uint64_t offset = (from - segment->start) & ~(uint64_t)(QR_LOG_HEADER_BYTES - 1);
        int error = segment->file->dir->disk->ops->file_populate(segment->file, segment->memory + offset,
                                                                 to - segment->start - offset);
        if (error != 0) return qr_log_disk_failure(error, "making pages ready", segment->number);
    }
    set_ready(files, to);
    return 0;
}

static uint64_t power_of_two_in(uint64_t bytes)
{
    return bytes == 0 ? 0 : (uint64_t)1 << (63 - __builtin_clzll(bytes));
}

/* As much as there was so far: the log doubles with each segment, up to the largest ones; but it leaves most of the space that there
 * is, as far as the file system says, to what releases it. Not in more pieces than it can have, though: that may be wrong. */
static uint64_t next_size(const struct qr_log_files *files, uint64_t end, uint64_t in_use)
{
    uint64_t size = qr_min(power_of_two_in(end - (files->first_lsn - QR_LOG_HEADER_BYTES)), files->options.most_segment_bytes);
    uint64_t least = qr_max(files->options.first_segment_bytes, power_of_two_in(in_use / (QR_LOG_RING / 16)));
    uint64_t free_bytes;
    if (files->dir->disk->ops->dir_free_bytes(files->dir, &free_bytes) == 0)
        size = qr_min(size, qr_max(power_of_two_in(free_bytes / FREE_SHARE), least));
    return size;
}

/* Under make_mutex: of that size, or of less if there is no space for it. */
static int make_segment(struct qr_log_files *files, uint64_t start, uint64_t size, struct qr_log_segment **ret_segment)
{
    int result = qr_log_segment_make(files, start, size, ret_segment);
    while (result == QUIRE_ERR_NO_SPACE && size / 2 >= files->options.first_segment_bytes) {
        size /= 2;
        result = qr_log_segment_make(files, start, size, ret_segment);
    }
    return result;
}

static bool ring_is_full(const struct qr_log_files *files)
{
    /* relaxed: under the mutex, or a hint */
    uint64_t next = atomic_load_explicit(&files->next, memory_order_relaxed);
    /* relaxed: as above */
    return next - atomic_load_explicit(&files->first, memory_order_relaxed) == QR_LOG_RING;
}

bool qr_log_is_full(const struct qr_log *log)
{
    return ring_is_full(log->files);
}

/* Under the mutex; there is always one. */
static struct qr_log_segment *first_segment(const struct qr_log_files *files)
{
    /* relaxed: under the mutex */
    uint64_t first = atomic_load_explicit(&files->first, memory_order_relaxed);
    /* relaxed: as above */
    return atomic_load_explicit(&files->ring[first % QR_LOG_RING], memory_order_relaxed);
}

static int check_failure(const struct qr_log *log)
{
    int error = qr_log_failure(log);
    return error == 0 ? 0 : qr_fail(QUIRE_ERR_IO, -error, "the log has failed");
}

/* ---- The reserve (FILES-6) -------------------------------------------------------------------------------------- */

/* Under make_mutex: the next segment is made of it. NO_SPACE: there is none. */
static int use_reserve(struct qr_log_files *files, uint64_t start, struct qr_log_segment **ret_segment)
{
    struct qr_log_segment *segment = files->reserve;
    if (segment == NULL) return qr_fail(QUIRE_ERR_NO_SPACE, ENOSPC, "the log has used up its reserve");
    files->reserve = NULL;
    qr_log_set_short(files->log, QR_LOG_SHORT, true);
    int result = qr_log_segment_use_again(files, segment, start);
    if (result == 0) *ret_segment = segment;
    return result;
}

/* Under make_mutex: there is one again. */
static void set_reserve(struct qr_log_files *files, struct qr_log_segment *segment)
{
    files->reserve = segment;
    qr_log_set_short(files->log, QR_LOG_SHORT, false);
}

/* Under make_mutex: sees to it that there is one, of a spare segment or a new file, if one is to be kept. */
static int complete_reserve(struct qr_log_files *files)
{
    struct qr_log_segment *segment;
    int result = 0;
    if (!files->keeps_reserve || files->reserve != NULL) return 0;
    if (files->spares != NULL) {
        segment = qr_log_spare_pop(files);
    } else if (qr_clock_ns() - files->reserve_failed_ns < RESERVE_PAUSE_NS) {
        return qr_fail(QUIRE_ERR_NO_SPACE, 0, "there was no space for the log's reserve a moment ago");
    } else {
        pthread_mutex_lock(&files->mutex);
        const struct qr_log_segment *last = qr_log_segment_last(files);
        uint64_t size = last->end - last->start;
        pthread_mutex_unlock(&files->mutex);
        result = qr_log_segment_make_idle(files, size, &segment);
        if (result != 0) files->reserve_failed_ns = qr_clock_ns();
        if (result == QUIRE_ERR_NO_SPACE) qr_log_set_short(files->log, QR_LOG_SHORT, true); /* what room there is is the reserve */
    }
    if (result == 0) set_reserve(files, segment);
    return result;
}

void qr_log_keep_reserve(struct qr_log *log)
{
    pthread_mutex_lock(&log->files->make_mutex);
    log->files->keeps_reserve = true;
    pthread_mutex_unlock(&log->files->make_mutex);
}

bool qr_log_drop_spares(struct qr_log *log)
{
    pthread_mutex_lock(&log->files->make_mutex);
    bool found = log->files->spares != NULL;
    while (log->files->spares != NULL) (void)qr_log_segment_remove(log->files, qr_log_spare_pop(log->files));
    pthread_mutex_unlock(&log->files->make_mutex);
    return found;
}

int qr_log_regain(struct qr_log *log)
{
    pthread_mutex_lock(&log->files->make_mutex);
    int result = check_failure(log);
    if (result == 0) result = complete_reserve(log->files);
    pthread_mutex_unlock(&log->files->make_mutex);
    return result;
}

/* ---- Segments --------------------------------------------------------------------------------------------------- */

/* Makes a segment behind the one that ends at `end`, if there is none yet. */
static int add_segment(struct qr_log_files *files, uint64_t end, bool may_use_reserve)
{
    struct qr_log_segment *segment;
    pthread_mutex_lock(&files->make_mutex);
    pthread_mutex_lock(&files->mutex);
    struct qr_log_segment *last = qr_log_segment_last(files);
    bool wanted = last->end == end;
    bool full = ring_is_full(files);
    uint64_t in_use = last->end - first_segment(files)->start;
    pthread_mutex_unlock(&files->mutex);
    int result = check_failure(files->log); /* it may have come while this waited: what another one has made is not used, either */
    if (result == 0 && wanted && full) {
        result = qr_fail(QUIRE_ERR_NO_SPACE, 0, "the log has %u segments, and no checkpoint has set one free", QR_LOG_RING);
    } else if (result == 0 && wanted) {
        result = make_segment(files, end, next_size(files, end, in_use), &segment);
        if (result == QUIRE_ERR_NO_SPACE && may_use_reserve) result = use_reserve(files, end, &segment);
        if (result == 0) {
            pthread_mutex_lock(&files->mutex);
            bool added = qr_log_segment_add(files, segment); /* only here are any added, under make_mutex */
            result = check_failure(files->log);
            if (result != 0) qr_log_segment_mark(segment->file); /* FILES-3: it was not there to be marked */
            pthread_mutex_unlock(&files->mutex);
            QR_ASSERT(added);
            (void)added;
        }
    }
    pthread_mutex_unlock(&files->make_mutex);
    return result;
}

/* Makes ready what lies below `target`. */
static int make_ready(struct qr_log_files *files, uint64_t target, bool may_use_reserve)
{
    int result = 0;
    while (result == 0) {
        pthread_mutex_lock(&files->mutex);
        uint64_t ready = ready_end(files);
        uint64_t end = qr_log_segment_last(files)->end;
        result = check_failure(files->log); /* what another one has added is not made ready, either */
        if (result == 0 && ready < target && ready < end) result = populate(files);
        pthread_mutex_unlock(&files->mutex);
        if (result == 0 && ready >= target) return 0;
        if (result == 0 && ready == end) result = add_segment(files, end, may_use_reserve);
    }
    return result;
}

int qr_log_provision(struct qr_log *log, bool may_use_reserve)
{
    int result = check_failure(log);
    if (result != 0) return result;
    /* relaxed: statistics */
    atomic_fetch_add_explicit(&log->files->provision_waits, 1, memory_order_relaxed);
    return make_ready(log->files, qr_log_needed_end(log) + log->frame_cap_bytes, may_use_reserve);
}

int qr_log_work(struct qr_log *log)
{
    struct qr_log_files *files = log->files;
    if (files == NULL || qr_log_failure(log) != 0) return 0;
    /* relaxed: a call that comes now is answered by this round or made again */
    atomic_store_explicit(&files->called, 0, memory_order_relaxed);
    pthread_mutex_lock(&files->mutex);
    struct qr_log_segment *last = qr_log_segment_last(files);
    uint64_t end = last->end;
    uint64_t half = (last->end - last->start) / 2;
    uint64_t target = qr_log_needed_end(log) + ahead_bytes(files);
    pthread_mutex_unlock(&files->mutex);
    int result = make_ready(files, target, false);
    /* A segment takes long to make: it is begun when half of the last one is used. */
    if (result == 0 && qr_log_tail(log) + half > end && half > POPULATE_BYTES && step_bytes(files) >= POPULATE_BYTES)
        result = add_segment(files, end, false);
    int regained = qr_log_regain(log); /* also without space for a segment: then it is known to be short */
    return result == 0 ? regained : result;
}

/* ---- Release ---------------------------------------------------------------------------------------------------- */

int qr_log_release(struct qr_log *log, uint64_t lsn)
{
    struct qr_log_files *files = log->files;
    int error = 0;
    lsn = qr_min(lsn, qr_log_durable_end(log));
    pthread_mutex_lock(&files->make_mutex);
    uint64_t in_use = UINT64_MAX; /* bytes of the ring's segments when this began: as much is kept spare, no more */
    while (error == 0) {
        pthread_mutex_lock(&files->mutex);
        /* relaxed: under the mutex */
        uint64_t first = atomic_load_explicit(&files->first, memory_order_relaxed);
        /* relaxed: under the mutex */
        struct qr_log_segment *segment = atomic_load_explicit(&files->ring[first % QR_LOG_RING], memory_order_relaxed);
        struct qr_log_segment *last = qr_log_segment_last(files);
        bool over = segment->end <= lsn && segment != last;
        bool large = (segment->end - segment->start) * 2 >= last->end - last->start;
        if (in_use == UINT64_MAX) in_use = last->end - segment->start;
        /* relaxed: under the mutex */
        if (over) atomic_store_explicit(&files->first, first + 1, memory_order_relaxed);
        pthread_mutex_unlock(&files->mutex);
        if (!over) break;
        if (!large) {
            error = qr_log_segment_remove(files, segment);
            continue;
        }
        if (files->keeps_reserve && files->reserve == NULL) {
            set_reserve(files, segment);
            continue;
        }
        segment->next = files->spares;
        files->spares = segment;
        files->spare_bytes += segment->end - segment->start;
    }
    while (error == 0 && files->spare_bytes > in_use) error = qr_log_segment_remove(files, qr_log_spare_pop(files));
    pthread_mutex_unlock(&files->make_mutex);
    return error == 0 ? 0 : QUIRE_ERR_IO;
}

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

static uint64_t count_of(const _Atomic uint64_t *count)
{
    return atomic_load_explicit(count, memory_order_relaxed); /* relaxed: statistics */
}

void qr_log_counts(const struct qr_log *log, struct qr_log_counts *ret_counts)
{
    const struct qr_log_files *files = log->files;
    *ret_counts = (struct qr_log_counts){0};
    if (files == NULL) return;
    ret_counts->syncs = count_of(&files->syncs);
    ret_counts->segments_made = count_of(&files->segments_made);
    ret_counts->segments_recycled = count_of(&files->segments_recycled);
    ret_counts->provision_waits = count_of(&files->provision_waits);
    ret_counts->size_bytes = count_of(&files->size_bytes);
    ret_counts->segments = count_of(&files->next) - count_of(&files->first);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static void set_defaults(struct qr_log_options *o, const struct qr_dir_facts *facts)
{
    if (o->first_segment_bytes == 0) o->first_segment_bytes = FIRST_SEGMENT_BYTES;
    if (o->most_segment_bytes == 0) o->most_segment_bytes = MOST_SEGMENT_BYTES;
    o->most_segment_bytes = qr_max(o->most_segment_bytes, o->first_segment_bytes);
    uint64_t quarter = (o->first_segment_bytes - QR_LOG_HEADER_BYTES) / 4 & ~(uint64_t)(QR_FRAME_UNIT - 1);
    if (o->frame_cap_bytes == 0 || o->frame_cap_bytes > QR_FRAME_MOST_BYTES) o->frame_cap_bytes = QR_FRAME_MOST_BYTES;
    o->frame_cap_bytes = (uint32_t)qr_min(o->frame_cap_bytes, quarter);
    if (!facts->can_map) o->buffered = true;
}

int qr_log_open(struct qr_log *log, struct qr_epoch *epoch, struct qr_dir *dir, const struct qr_log_options *options,
                uint64_t incarnation, uint64_t start_lsn, uint32_t first_number)
{
    struct qr_log_segment *segment;
    struct qr_log_files *files = qr_malloc_aligned(QR_CACHE_LINE_BYTES, sizeof(*files));
    if (files == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the log");
    memset(files, 0, sizeof(*files));
    files->log = log;
    files->epoch = epoch;
    files->dir = dir;
    files->options = *options;
    files->incarnation = incarnation;
    files->next_number = first_number;
    files->attempts = first_number; /* above those of an opening that could not make its first segment, and went on with another number */
    int error = dir->disk->ops->dir_facts(dir, &files->facts);
    if (error != 0) {
        qr_free_aligned(files);
        return qr_fail(QUIRE_ERR_IO, -error, "facts of the directory");
    }
    set_defaults(&files->options, &files->facts);
    pthread_mutex_init(&files->make_mutex, NULL);
    pthread_mutex_init(&files->mutex, NULL);
    int result = qr_log_segment_make(files, start_lsn, files->options.first_segment_bytes, &segment);
    if (result != 0) {
        log->files = files;
        qr_log_close(log);
        return result;
    }
    qr_log_segment_add(files, segment);
    uint64_t first_lsn = start_lsn + QR_LOG_HEADER_BYTES;
    files->first_lsn = first_lsn;
    atomic_init(&files->step, UINT64_MAX);
    atomic_init(&files->written_end, first_lsn);
    atomic_init(&files->durable_end, first_lsn);
    atomic_init(&files->last_sync_ns, qr_clock_ns());
    log->frame_cap_bytes = files->options.frame_cap_bytes;
    atomic_init(&log->margin_bytes, log->frame_cap_bytes);
    atomic_init(&log->ready_end, first_lsn);
    atomic_init(&log->soft_end, first_lsn);
    atomic_init(&log->tail, first_lsn);
    log->files = files;
    return make_ready(files, qr_log_needed_end(log) + log->frame_cap_bytes, false);
}

void qr_log_close(struct qr_log *log)
{
    struct qr_log_files *files = log->files;
    if (files == NULL) return;
    /* relaxed: nobody else is here */
    uint64_t next = atomic_load_explicit(&files->next, memory_order_relaxed);
    /* relaxed: as above */
    for (uint64_t i = atomic_load_explicit(&files->first, memory_order_relaxed); i < next; i++) {
        /* relaxed: as above */
        qr_log_segment_free(atomic_load_explicit(&files->ring[i % QR_LOG_RING], memory_order_relaxed));
    }
    while (files->spares != NULL) qr_log_segment_remove(files, qr_log_spare_pop(files));
    if (files->reserve != NULL) qr_log_segment_remove(files, files->reserve);
    pthread_mutex_destroy(&files->make_mutex);
    pthread_mutex_destroy(&files->mutex);
    qr_free_aligned(files);
    log->files = NULL;
}
