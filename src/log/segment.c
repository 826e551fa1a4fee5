/*
 * segment.c: making the files of the log.
 *
 * Layer 3. A new file gets its space, is written full of zeros once, so that later syncs of it commit no allocation, and
 * synced; then its header is written, and it and its name are synced; then it may be written to (FILES-1). A released segment
 * is used again: a new header, synced. What stands behind the header then has LSNs of other positions and another salt, so
 * that no frame of it can be taken for one of the new life. How the zeros are written is chosen by how often the log was
 * synced lately (FILES-5).
 */
#include <errno.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "log/files.h"

#define COARSE_UNIT_BYTES ((uint32_t)64 << 10)
#define FINE_UNIT_BYTES 4096u

QR_STATIC_ASSERT(sizeof(struct qr_log_header) == 112, "the layout is that of the file");

void qr_log_file_name(uint32_t number, char *ret_name)
{
    snprintf(ret_name, QR_LOG_NAME_BYTES, "log-%08x", number);
}

int qr_log_disk_failure(int error, const char *what, uint32_t number)
{
    return qr_fail_io(-error, "log-%08x: %s", number, what);
}

void qr_log_segment_free(struct qr_log_segment *segment)
{
    if (segment == NULL) return;
    uint64_t size = segment->end - segment->start;
    if (segment->memory != NULL && segment->mapped)
        segment->file->dir->disk->ops->file_unmap(segment->file, segment->memory, size);
    else
        qr_free_aligned(segment->memory);
    if (segment->file != NULL) segment->file->dir->disk->ops->file_close(segment->file);
    qr_free(segment);
}

/* Writes and syncs the header of a segment whose start, end and number are set; draws its salt. */
static int write_header(struct qr_log_files *files, struct qr_log_segment *segment, const char **ret_what)
{
    const struct qr_disk_ops *ops = files->dir->disk->ops;
    struct qr_file_facts facts;
    struct qr_log_header header = {
        .magic = {'Q', 'U', 'I', 'R', 'E', 'L', 'O', 'G'},
        .format = QR_LOG_FORMAT,
        .start = segment->start,
        .end = segment->end,
        .incarnation = segment->idle ? 0 : files->incarnation,
        .attempt = ++files->attempts,
        .device = files->facts.device,
        .mount_id = files->facts.mount_id,
    };
    *ret_what = "facts";
    int error = ops->file_facts(segment->file, &facts);
    if (error != 0) return error;
    if (files->options.random(files->options.context, &header.salt, sizeof(header.salt)) != 0) return -EIO;
    header.inode = facts.inode;
    memcpy(header.store_id, files->options.store_id, sizeof(header.store_id));
    memcpy(header.boot_id, files->facts.boot_id, sizeof(header.boot_id));
    header.crc = qr_crc32c(0, &header, offsetof(struct qr_log_header, crc));
    segment->salt = header.salt;
    *ret_what = "write of the header";
    error = qr_file_write(segment->file, &header, sizeof(header), 0);
    if (error != 0) return error;
    *ret_what = "sync of the header";
    return QR_BUG(log_header_unsynced) ? 0 : qr_file_sync(segment->file);
}

/* The file is none of the log's any more, as one that never had a header. */
static void blank_header(const struct qr_log_segment *segment)
{
    static const struct qr_log_header none;
    if (qr_file_write(segment->file, &none, sizeof(none), 0) == 0) (void)qr_file_sync(segment->file);
}

/* The file of a segment that could not be made goes, and first the header that was begun: power loss may bring the file back. Where neither
 * is possible what is made in its place takes precedence, as long as it is there. */
static void discard(struct qr_log_files *files, const struct qr_log_segment *segment, bool begun)
{
    char name[QR_LOG_NAME_BYTES];
    qr_log_file_name(segment->number, name);
    if (begun) blank_header(segment);
    if (files->dir->disk->ops->dir_unlink(files->dir, name) != 0 && !begun) blank_header(segment);
}

/* The memory that stands for the file. */
static int give_memory(struct qr_log_files *files, struct qr_log_segment *segment)
{
    uint64_t size = segment->end - segment->start;
    void *memory = NULL;
    if (files->options.buffered) {
        segment->memory = qr_malloc_aligned(QR_LOG_HEADER_BYTES, size);
        return segment->memory == NULL ? -ENOMEM : 0;
    }
    int error = files->dir->disk->ops->file_map(segment->file, 0, size, &memory);
    segment->memory = memory;
    segment->mapped = error == 0;
    return error;
}

int qr_log_segment_remove(struct qr_log_files *files, struct qr_log_segment *segment)
{
    char name[QR_LOG_NAME_BYTES];
    uint32_t number = segment->number;
    uint64_t size = segment->end - segment->start;
    qr_log_file_name(number, name);
    qr_log_segment_free(segment);
    int error = files->dir->disk->ops->dir_unlink(files->dir, name);
    if (error != 0) {
        qr_log_disk_failure(error, "removal", number);
        return error;
    }
    /* relaxed: statistics */
    atomic_fetch_sub_explicit(&files->size_bytes, size, memory_order_relaxed);
    return 0;
}

/* ---- Spare ones ------------------------------------------------------------------------------------------------- */

struct qr_log_segment *qr_log_spare_pop(struct qr_log_files *files)
{
    struct qr_log_segment *segment = files->spares;
    files->spares = segment->next;
    files->spare_bytes -= segment->end - segment->start;
    return segment;
}

/* How the segment at `start` is to be: page by page if a coarse unit would have been written more than once; coarse again only
 * when units were filled several times between syncs. */
static bool choose_fine(struct qr_log_files *files, uint64_t start)
{
    /* relaxed: statistics */
    uint64_t syncs = atomic_load_explicit(&files->syncs, memory_order_relaxed);
    uint64_t units = (start - qr_min(files->chosen_lsn, start)) / COARSE_UNIT_BYTES;
    uint64_t since = syncs - files->chosen_syncs;
    if (files->chosen_lsn == 0 || since > units)
        files->fine = true;
    else if (since * 8 < units)
        files->fine = false;
    files->chosen_lsn = start;
    files->chosen_syncs = syncs;
    return files->fine;
}

/* A spare segment of the right kind; NULL: none. Others are removed: their kind of work is over. */
static struct qr_log_segment *take_spare(struct qr_log_files *files, bool fine)
{
    while (files->spares != NULL) {
        struct qr_log_segment *segment = qr_log_spare_pop(files);
        if (segment->fine == fine) return segment;
        qr_log_segment_remove(files, segment); /* a file that stays holds nothing that is needed */
    }
    return NULL;
}

/* ---- Making one ------------------------------------------------------------------------------------------------- */

static int make_new(struct qr_log_files *files, struct qr_log_segment *segment)
{
    const struct qr_disk_ops *ops = files->dir->disk->ops;
    char name[QR_LOG_NAME_BYTES];
    const char *what = "creation";
    int result = 0;
    qr_log_file_name(segment->number, name);
    int error = ops->file_open(files->dir, name, QR_FILE_WRITE | QR_FILE_CREATE | QR_FILE_EXCLUSIVE, &segment->file);
    if (error != 0) return qr_log_disk_failure(error, what, segment->number);
    what = "space";
    /* If the file system gives it this reads as zeros; a write that makes a file longer and does not arrive may leave anything, the
     * header of a segment that was removed, too. */
    error = ops->file_allocate(segment->file, 0, segment->end - segment->start);
    if (error == 0 || error == -EOPNOTSUPP)
        error = qr_file_write_zeros(segment->file, 0, segment->end - segment->start,
                                    segment->fine ? FINE_UNIT_BYTES : COARSE_UNIT_BYTES);
    /* Before the header, or power loss leaves a header whose file is shorter than it says: damage, to who finds it. */
    if (error == 0) error = qr_file_sync(segment->file);
    bool begun = error == 0;
    if (error == 0) error = write_header(files, segment, &what);
    if (error == 0) {
        what = "sync of the directory";
        error = QR_BUG(log_name_unsynced) ? 0 : qr_dir_sync(files->dir);
        if (error != 0 && !QR_BUG(dir_sync_retried)) {
            qr_log_fail(files, error); /* no segment can be made any more: DISK-6 */
            result = QUIRE_ERR_IO;
        }
    }
    if (error == 0 && !segment->idle) {
        what = "mapping";
        error = give_memory(files, segment);
    }
    if (error == 0) return 0;
    discard(files, segment, begun);
    if (result != 0) return qr_fail(result, -error, "log-%08x: %s; the log takes no more writes", segment->number, what);
    return qr_log_disk_failure(error, what, segment->number);
}

/* A segment of a new file. */
static int make(struct qr_log_files *files, uint64_t start, uint64_t size_bytes, bool idle, bool fine,
                struct qr_log_segment **ret_segment)
{
    struct qr_log_segment *segment = qr_calloc(1, sizeof(*segment));
    if (segment == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a log segment");
    segment->start = start;
    segment->end = start + size_bytes;
    segment->idle = idle;
    segment->number = files->next_number++;
    segment->fine = fine;
    int result = make_new(files, segment);
    if (result != 0) {
        qr_log_segment_free(segment);
        return result;
    }
    /* relaxed: statistics */
    atomic_fetch_add_explicit(&files->segments_made, 1, memory_order_relaxed);
    /* relaxed: statistics */
    atomic_fetch_add_explicit(&files->size_bytes, size_bytes, memory_order_relaxed);
    *ret_segment = segment;
    return 0;
}

int qr_log_segment_use_again(struct qr_log_files *files, struct qr_log_segment *segment, uint64_t start)
{
    const char *what = "mapping";
    uint64_t size = segment->end - segment->start;
    segment->start = start;
    segment->end = start + size;
    segment->idle = false;
    int error = segment->memory == NULL ? give_memory(files, segment) : 0;
    bool begun = error == 0;
    if (error == 0) error = write_header(files, segment, &what);
    if (error == 0) {
        /* relaxed: statistics */
        atomic_fetch_add_explicit(&files->segments_recycled, 1, memory_order_relaxed);
        return 0;
    }
    uint32_t number = segment->number;
    discard(files, segment, begun);
    qr_log_segment_free(segment);
    /* relaxed: statistics */
    atomic_fetch_sub_explicit(&files->size_bytes, size, memory_order_relaxed);
    return qr_log_disk_failure(error, what, number);
}

int qr_log_segment_make(struct qr_log_files *files, uint64_t start, uint64_t size_bytes,
                        struct qr_log_segment **ret_segment)
{
    bool fine = choose_fine(files, start);
    struct qr_log_segment *segment = take_spare(files, fine);
    if (segment == NULL) return make(files, start, size_bytes, false, fine, ret_segment);
    int result = qr_log_segment_use_again(files, segment, start);
    if (result == 0) *ret_segment = segment;
    return result;
}

int qr_log_segment_make_idle(struct qr_log_files *files, uint64_t size_bytes, struct qr_log_segment **ret_segment)
{
    return make(files, 0, size_bytes, true, files->fine, ret_segment);
}

int qr_log_segment_mark(struct qr_file *file)
{
    static const uint32_t poisoned = 1;
    if (QR_BUG(log_mark_forgotten)) return 0;
    return qr_file_write(file, &poisoned, sizeof(poisoned), offsetof(struct qr_log_header, poisoned));
}

bool qr_log_segment_add(struct qr_log_files *files, struct qr_log_segment *segment)
{
    /* relaxed: under the mutex */
    uint64_t next = atomic_load_explicit(&files->next, memory_order_relaxed);
    /* relaxed: under the mutex */
    if (next - atomic_load_explicit(&files->first, memory_order_relaxed) == QR_LOG_RING) return false;
    /* relaxed: published with the count */
    atomic_store_explicit(&files->ring[next % QR_LOG_RING], segment, memory_order_relaxed);
    /* order: log.ring.add pairs with log.ring.read: the segment before the count */
    atomic_store_explicit(&files->next, next + 1, memory_order_release);
    return true;
}

struct qr_log_segment *qr_log_segment_last(const struct qr_log_files *files)
{
    /* relaxed: under the mutex; there is always one */
    uint64_t next = atomic_load_explicit(&files->next, memory_order_relaxed);
    /* relaxed: as above */
    return atomic_load_explicit(&files->ring[(next - 1) % QR_LOG_RING], memory_order_relaxed);
}

struct qr_log_segment *qr_log_segment_with(const struct qr_log_files *files, uint64_t lsn)
{
    struct qr_log_segment *segment;
    /* relaxed: under the mutex */
    uint64_t i = atomic_load_explicit(&files->first, memory_order_relaxed);
    do {
        /* relaxed: under the mutex */
        segment = atomic_load_explicit(&files->ring[i++ % QR_LOG_RING], memory_order_relaxed);
    } while (segment->end <= lsn);
    return segment;
}
