/*
 * segments.c: the table of segments: found by number, opened when they are read, kept while they are, synced.
 *
 * Layer 4. A file is opened at the first read of its segment, and compared then: store, number, size and salt have to
 * be those that the root says. When many are open, some that nobody uses are closed, those first that were not visited
 * since the hand last came by. What has to be synced stays open.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/internal.h"

int qr_segment_failure(int error, uint32_t number, const char *what)
{
    return qr_fail_io(-error, "page-%08x: %s", number, what);
}

int qr_segment_corrupt(struct qr_store *store, uint32_t number, uint64_t offset, const char *what)
{
    qr_lock(store);
    store->stats.checksum_failures++;
    qr_unlock(store);
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "page-%08x, offset %llu: %s", number, (unsigned long long)offset, what);
}

static const struct qr_disk_ops *ops_of(struct qr_store *store)
{
    return store->dir->disk->ops;
}

/* ---- The table -------------------------------------------------------------------------------------------------- */

/* Where the number is or would be. */
static uint32_t index_of(struct qr_store *store, uint32_t number)
{
    uint32_t low = 0, high = store->segment_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (store->segments[middle]->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct qr_segment *qr_segment_find(struct qr_store *store, uint32_t number)
{
    uint32_t i = index_of(store, number);
    return i < store->segment_count && store->segments[i]->number == number ? store->segments[i] : NULL;
}

int qr_segment_register(struct qr_store *store, struct qr_segment *segment)
{
    qr_lock(store);
    struct qr_segment **larger = qr_grow(store->segments, store->segment_count, &store->segment_room, sizeof(*larger));
    if (larger == NULL) {
        qr_unlock(store);
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the list of page segments");
    }
    store->segments = larger;
    uint32_t i = index_of(store, segment->number);
    memmove(&store->segments[i + 1], &store->segments[i], (store->segment_count - i) * sizeof(*store->segments));
    store->segments[i] = segment;
    store->segment_count++;
    store->segment_bytes += segment->size;
    if (segment->file != NULL)
        store->open_files++;
    /* It was made just now. A checkpoint may name it from here on, and then it syncs it, and its name. */
    if (segment->dirty) {
        store->names_dirty = true;
        if (segment->stream == QR_STREAM_BLOB)
            store->blobs_dirty = store->blob_names_dirty = true;
    }
    qr_unlock(store);
    return 0;
}

void qr_segment_free(struct qr_segment *segment)
{
    if (segment == NULL)
        return;
    if (segment->file != NULL)
        segment->file->dir->disk->ops->file_close(segment->file);
    qr_free(segment->dead.places);
    qr_free(segment->named.places);
    qr_free(segment);
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

/* Takes the file of a segment that nobody uses; NULL: there is none. Under the mutex. */
static struct qr_file *take_idle_file(struct qr_store *store)
{
    for (uint32_t i = 0; i < 2 * store->segment_count; i++) {
        struct qr_segment *segment = store->segments[store->close_hand++ % store->segment_count];
        if (segment->file == NULL || segment->pins != 0 || segment->dirty)
            continue;
        if (segment->visited) {
            segment->visited = false;
            continue;
        }
        struct qr_file *file = segment->file;
        segment->file = NULL;
        store->open_files--;
        return file;
    }
    return NULL;
}

bool qr_segment_close_idle(struct qr_store *store)
{
    qr_lock(store);
    struct qr_file *file = take_idle_file(store);
    qr_unlock(store);
    if (file != NULL)
        ops_of(store)->file_close(file);
    return file != NULL;
}

/* Opens a file past the page cache if that is wanted and its alignment suits ours. */
int qr_segment_open_file(struct qr_store *store, uint32_t number, unsigned flags, struct qr_file **ret_file,
                         uint32_t *ret_align)
{
    const struct qr_disk_ops *ops = ops_of(store);
    char name[QR_SEGMENT_NAME_BYTES];
    struct qr_file_facts facts;
    struct qr_file *file;
    qr_segment_name(number, name);
    if (store->options.direct)
        flags |= QR_FILE_DIRECT;
    for (;;) {
        uint32_t align = 0;
        int error = ops->file_open(store->dir, name, flags, &file);
        if ((error == -EMFILE || error == -ENFILE) && qr_segment_close_idle(store))
            continue;
        if (error != 0)
            return error;
        if ((flags & QR_FILE_DIRECT) != 0) {
            error = ops->file_facts(file, &facts);
            align = error == 0 ? facts.direct_align_bytes : 0;
        }
        if (error == 0 && align <= QR_SEGMENT_UNIT && (align & (align - 1)) == 0) {
            *ret_align = align == 0 ? 1 : align;
            *ret_file = file;
            return 0;
        }
        ops->file_close(file);
        if (error != 0)
            return error;
        flags &= ~(unsigned)(QR_FILE_DIRECT | QR_FILE_EXCLUSIVE); /* made just now; again without */
    }
}

/* Reads and compares the header; salt and size are set if they were not known (size 0). */
static int verify(struct qr_store *store, struct qr_segment *segment, struct qr_file *file)
{
    struct qr_segment_header header;
    struct qr_file_facts facts;
    const char *what = NULL;
    uint32_t newer = 0;
    int error = ops_of(store)->file_facts(file, &facts);
    if (error != 0)
        return qr_segment_failure(error, segment->number, "facts");
    uint8_t *bytes = qr_malloc_aligned(QR_SEGMENT_UNIT, QR_SEGMENT_HEADER_BYTES);
    if (bytes == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the header of a page segment");
    int64_t count = qr_file_read(file, bytes, QR_SEGMENT_HEADER_BYTES, 0);
    if (count == QR_SEGMENT_HEADER_BYTES) {
        newer = qr_segment_header_newer(bytes);
        if (!qr_segment_header_decode(bytes, &header))
            what = "the header does not verify";
        else if (memcmp(header.store_id, store->options.store_id, sizeof(header.store_id)) != 0)
            what = "the segment is of another store";
        else if (header.number != segment->number)
            what = "the segment has another number";
        else if (header.size_bytes > facts.size_bytes)
            what = "the file is cut";
        else if (header.stream >= QR_STREAMS || !qr_segment_size_is_possible(header.stream, header.size_bytes))
            what = "the header is impossible";
        else if (segment->size != 0 && (header.size_bytes != segment->size || header.salt != segment->salt))
            what = "the segment is another one than the checkpoint's";
    } else if (count >= 0) {
        what = "the file is cut";
    }
    qr_free_aligned(bytes);
    if (count < 0)
        return qr_segment_failure((int)count, segment->number, "read of the header");
    if (newer != 0)
        return qr_fail(QUIRE_ERR_NEWER, 0, "page-%08x has format %u", segment->number, newer);
    if (what != NULL)
        return qr_segment_corrupt(store, segment->number, 0, what);
    segment->size = header.size_bytes;
    segment->salt = header.salt;
    segment->stream = header.stream;
    return 0;
}

int qr_segment_load(struct qr_store *store, uint32_t number, struct qr_segment **ret_segment)
{
    struct qr_segment *segment = qr_calloc(1, sizeof(*segment));
    if (segment == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a page segment");
    segment->number = number;
    int error =
        qr_segment_open_file(store, number, store->read_only ? 0 : QR_FILE_WRITE, &segment->file, &segment->align);
    int result;
    if (error == -ENOENT)
        result = qr_segment_corrupt(store, number, 0, "the file is missing");
    else if (error != 0)
        result = qr_segment_failure(error, number, "opening");
    else
        result = verify(store, segment, segment->file);
    if (result != 0) {
        qr_segment_free(segment);
        return result;
    }
    segment->verified = true;
    *ret_segment = segment;
    return 0;
}

/* Opens the file of a segment that is pinned. */
static int reopen(struct qr_store *store, struct qr_segment *segment)
{
    struct qr_file *file;
    uint32_t align;
    int error = qr_segment_open_file(store, segment->number, store->read_only ? 0 : QR_FILE_WRITE, &file, &align);
    if (error == -ENOENT)
        return qr_segment_corrupt(store, segment->number, 0, "the file is missing");
    if (error != 0)
        return qr_segment_failure(error, segment->number, "opening");
    qr_lock(store);
    bool verified = segment->verified;
    qr_unlock(store);
    int result = 0;
    if (!verified) {
        struct qr_segment found = {.number = segment->number, .size = segment->size, .salt = segment->salt};
        result = verify(store, &found, file);
    }
    qr_lock(store);
    if (result == 0 && segment->file == NULL) {
        segment->file = file;
        segment->align = align;
        segment->verified = true;
        store->open_files++;
        file = NULL;
    }
    bool many = store->open_files > store->options.most_open_files;
    qr_unlock(store);
    if (file != NULL)
        ops_of(store)->file_close(file);
    if (many)
        (void)qr_segment_close_idle(store);
    return result;
}

int qr_segment_pin(struct qr_store *store, uint32_t number, struct qr_segment **ret_segment)
{
    qr_lock(store);
    struct qr_segment *segment = qr_segment_find(store, number);
    if (segment == NULL) {
        qr_unlock(store);
        return QR_STORE_GONE;
    }
    segment->pins++;
    segment->visited = true;
    bool is_open = segment->file != NULL;
    qr_unlock(store);
    int result = is_open ? 0 : reopen(store, segment);
    if (result != 0) {
        qr_segment_unpin(store, segment);
        return result;
    }
    *ret_segment = segment;
    return 0;
}

void qr_segment_unpin(struct qr_store *store, struct qr_segment *segment)
{
    qr_lock(store);
    segment->pins--;
    qr_unlock(store);
}

/* ---- Sync ------------------------------------------------------------------------------------------------------- */

int qr_store_may_write(struct qr_store *store)
{
    qr_lock(store);
    int failed = store->failed, failed_errno = store->failed_errno;
    qr_unlock(store);
    if (failed != 0)
        return qr_fail(failed, failed_errno, "page segments: an earlier sync failed");
    return store->read_only ? qr_fail(QUIRE_ERR_READ_ONLY, 0, "the page store is open for reading") : 0;
}

int qr_store_failed_errno(struct qr_store *store)
{
    qr_lock(store);
    int failed_errno = store->failed != 0 ? store->failed_errno : 0;
    qr_unlock(store);
    return failed_errno;
}

int qr_segment_fail_for_good(struct qr_store *store, int error, const char *what)
{
    int result = qr_fail_io(-error, "page segments: %s", what);
    qr_lock(store);
    store->failed = result;
    store->failed_errno = -error;
    qr_unlock(store);
    return result;
}

int qr_segments_sync(struct qr_store *store)
{
    int failed = qr_blob_sync(store);
    if (failed != 0)
        return qr_fail_io(-failed, "sync of blobs");
    qr_lock(store);
    uint32_t room = store->segment_count, count = 0;
    qr_unlock(store);
    struct qr_io *ios = qr_calloc(room + 1, sizeof(*ios));
    struct qr_segment **synced = qr_calloc(room + 1, sizeof(struct qr_segment *));
    if (ios == NULL || synced == NULL) {
        qr_free(ios);
        qr_free(synced);
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a sync");
    }
    qr_lock(store);
    /* Segments that came meanwhile are another writer's, and not in the mapping under construction. */
    for (uint32_t i = 0; i < store->segment_count && count < room; i++) {
        struct qr_segment *segment = store->segments[i];
        if (!segment->dirty || segment->stream == QR_STREAM_BLOB)
            continue;
        segment->dirty = false;
        segment->pins++;
        synced[count] = segment;
        ios[count++] = (struct qr_io){.kind = QR_IO_SYNC, .file = segment->file};
    }
    bool names = store->names_dirty;
    store->names_dirty = false;
    qr_unlock(store);
    int error = count == 0 || QR_BUG(store_data_unsynced) ? 0 : qr_disk_transfer(store->dir->disk, ios, count);
    const char *what = "sync";
    if (error == 0 && names && !QR_BUG(store_names_unsynced)) {
        error = qr_dir_sync(store->dir);
        what = "sync of the directory";
    }
    for (uint32_t i = 0; i < count; i++)
        qr_segment_unpin(store, synced[i]);
    qr_free(ios);
    qr_free(synced);
    return error == 0 ? 0 : qr_segment_fail_for_good(store, error, what);
}
