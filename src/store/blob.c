/*
 * blob.c: blobs written and read.
 *
 * Layer 4. See blob.h for the bytes. A writer takes a place under the mutex and writes there outside of it, beside others; the
 * segment is pinned meanwhile. It is dirty from the end of the write on, so whoever syncs and finds it clean has a sync that
 * began later than every write that has ended (BLOB-1): one sync of blobs at a time, which others wait for.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "base/stop.h"
#include "store/blob_internal.h"

#define AT_ONCE_BYTES (UINT32_C(128) << 10) /* up to this, head and value are written by one write */
#define PIECE_BYTES (UINT32_C(1) << 20)     /* read, and then verified while it is in the processor's cache */

/* ---- A place ---------------------------------------------------------------------------------------------------- */

static uint64_t room_of(const struct qr_segment *segment)
{
    return segment->used > UINT32_MAX ? 0 : segment->size - segment->used; /* offsets have 32 bits */
}

/* Under the mutex. */
static void take(struct qr_segment *segment, uint64_t extent, uint32_t *ret_offset)
{
    *ret_offset = (uint32_t)segment->used;
    segment->used += extent;
    segment->pins++;
}

static bool take_open(struct qr_store *store, uint64_t extent, struct qr_segment **ret_segment, uint32_t *ret_offset)
{
    qr_lock(store);
    struct qr_segment *open = store->open[QR_STREAM_BLOB];
    bool fits = open != NULL && extent <= room_of(open);
    if (fits) {
        take(open, extent, ret_offset);
        *ret_segment = open;
    }
    qr_unlock(store);
    return fits;
}

/* Under the blob mutex: the segment of before the opening goes on. False: there is none. Until it is the open one it is still the one
 * that goes on: a capture in between must not take it for one that nobody appends to. */
static bool resume(struct qr_store *store)
{
    struct qr_segment *segment = NULL;
    qr_lock(store);
    uint32_t number = store->open[QR_STREAM_BLOB] != NULL ? 0 : store->resume[QR_STREAM_BLOB];
    qr_unlock(store);
    bool there = number != 0 && qr_segment_pin(store, number, &segment) == 0;
    QR_STOP("blob.resumed");
    qr_lock(store);
    there = there && store->resume[QR_STREAM_BLOB] == number; /* else a capture has given it up meanwhile */
    store->resume[QR_STREAM_BLOB] = 0;
    if (there)
        store->open[QR_STREAM_BLOB] = segment;
    else if (segment != NULL)
        segment->pins--;
    qr_unlock(store);
    return there;
}

/* Under the blob mutex: a place in a new segment. Of that and the open one the roomier goes on. */
static int take_new(struct qr_store *store, uint64_t extent, struct qr_segment **ret_segment, uint32_t *ret_offset)
{
    struct qr_segment *made;
    int result = qr_segment_make(store, QR_STREAM_BLOB, extent, false, &made);
    if (result != 0)
        return result;
    QR_STOP("blob.segment_made");
    qr_lock(store);
    take(made, extent, ret_offset);
    struct qr_segment *open = store->open[QR_STREAM_BLOB];
    struct qr_segment *left = made;
    if (open == NULL || room_of(made) >= room_of(open)) {
        store->open[QR_STREAM_BLOB] = made;
        left = open;
    }
    if (left != NULL)
        left->pins--;
    qr_unlock(store);
    *ret_segment = made;
    return 0;
}

static int find_place(struct qr_store *store, uint64_t extent, struct qr_segment **ret_segment, uint32_t *ret_offset)
{
    int result = 0;
    if (take_open(store, extent, ret_segment, ret_offset))
        return 0;
    pthread_mutex_lock(&store->blob_mutex);
    bool taken = take_open(store, extent, ret_segment, ret_offset) ||
                 (resume(store) && take_open(store, extent, ret_segment, ret_offset));
    if (!taken)
        result = take_new(store, extent, ret_segment, ret_offset);
    pthread_mutex_unlock(&store->blob_mutex);
    return result;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static uint64_t head_size_of(const struct qr_blob *blob)
{
    return qr_round_up(QR_BLOB_HEAD_BYTES + 4 * qr_blob_blocks(blob->size) + blob->key_size, QR_BLOB_UNIT);
}

static uint32_t sum_of(uint32_t salt, const void *bytes, uint64_t size)
{
    return qr_crc32c(salt, bytes, size);
}

/* Writes the head to memory; completes the reference. */
static void make_head(const struct qr_blob *blob, uint32_t salt, struct qr_blob_ref *ref, uint8_t *head)
{
    uint64_t blocks = qr_blob_blocks(blob->size);
    uint8_t *sums = head + QR_BLOB_HEAD_BYTES;
    memset(head, 0, ref->head_size);
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t at = i * QR_BLOB_BLOCK_BYTES;
        const uint8_t *block = (const uint8_t *)blob->value + at;
        qr_store_u32(sums + 4 * i, sum_of(salt, block, qr_min(QR_BLOB_BLOCK_BYTES, blob->size - at)));
    }
    ref->crc = blocks == 1 ? qr_load_u32(sums) : sum_of(salt, sums, 4 * blocks);
    qr_copy(sums + 4 * blocks, blob->key, blob->key_size);
    qr_store_u32(head, QR_BLOB_MAGIC);
    qr_store_u64(head + 8, ref->address);
    qr_store_u64(head + 16, blob->lsn);
    qr_store_u32(head + 24, blob->tree_id);
    qr_store_u32(head + 28, blob->key_size);
    qr_store_u32(head + 32, blob->size);
    qr_store_u32(head + 36, ref->head_size);
    qr_store_u32(head + 4, sum_of(salt, head + 8, ref->head_size - 8));
}

static int write_at(struct qr_segment *segment, const struct qr_blob *blob, struct qr_blob_ref *ref, uint32_t offset)
{
    bool at_once = (uint64_t)ref->head_size + blob->size <= AT_ONCE_BYTES;
    uint64_t size = ref->head_size + (at_once ? blob->size : 0);
    uint8_t *memory = qr_malloc(size);
    if (memory == NULL)
        return -ENOMEM;
    make_head(blob, segment->salt, ref, memory);
    if (at_once)
        memcpy(memory + ref->head_size, blob->value, blob->size);
    int error = qr_file_write(segment->file, memory, size, offset);
    if (error == 0 && !at_once)
        error = qr_file_write(segment->file, blob->value, blob->size, (uint64_t)offset + ref->head_size);
    qr_free(memory);
    return error;
}

/* A segment that could not be written to is not appended to any more. */
static void close_open(struct qr_store *store, const struct qr_segment *segment)
{
    qr_lock(store);
    if (store->open[QR_STREAM_BLOB] == segment) {
        store->open[QR_STREAM_BLOB]->pins--;
        store->open[QR_STREAM_BLOB] = NULL;
    }
    qr_unlock(store);
}

static int may_write(struct qr_store *store)
{
    int result = qr_store_may_write(store);
    if (result == 0 && store->options.direct)
        result = qr_fail(QUIRE_ERR_UNSUPPORTED, 0, "blobs go through the page cache");
    return result;
}

int qr_blob_write(struct qr_store *store, const struct qr_blob *blob, struct qr_blob_ref *ret_ref)
{
    struct qr_blob_ref ref = {.size = blob->size, .head_size = (uint32_t)head_size_of(blob)};
    struct qr_segment *segment;
    uint32_t offset;
    QR_ASSERT(blob->size != 0);
    uint64_t extent = qr_blob_extent(&ref);
    int result = may_write(store);
    if (result == 0)
        result = find_place(store, extent, &segment, &offset);
    if (result != 0)
        return result;
    ref.address = (uint64_t)segment->number << 32 | offset;
    int error = write_at(segment, blob, &ref, offset);
    qr_lock(store);
    if (error == 0) {
        segment->dirty = store->blobs_dirty = true;
        store->blob_stats.written++;
        store->blob_stats.written_bytes += extent;
    } else {
        qr_blob_note_dead(segment, offset, extent, blob->lsn);
    }
    segment->pins--;
    qr_unlock(store);
    if (error == -ENOMEM)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the head of a blob");
    if (error != 0) {
        close_open(store, segment);
        return qr_segment_failure(error, (uint32_t)(ref.address >> 32), "write of a blob");
    }
    *ret_ref = ref;
    return 0;
}

/* ---- Sync ------------------------------------------------------------------------------------------------------- */

/* Pins the next dirty segment with a number above; NULL: there is none. The file of one that was written to is open, and stays open
 * while it is dirty, so that the log's sync fails only if the disk does. */
static struct qr_segment *pin_dirty(struct qr_store *store, uint32_t above, bool *ret_is_open)
{
    struct qr_segment *found = NULL;
    qr_lock(store);
    for (uint32_t i = 0; i < store->segment_count && found == NULL; i++) {
        struct qr_segment *segment = store->segments[i];
        if (segment->stream == QR_STREAM_BLOB && segment->dirty && segment->number > above)
            found = segment;
    }
    if (found != NULL) {
        found->dirty = false; /* what is written from now on makes it dirty again */
        found->pins++;
        *ret_is_open = found->file != NULL;
    }
    qr_unlock(store);
    return found;
}

/* Of a segment that is pinned. Recovery syncs what frames name, too, and has not opened all of that. */
static int sync_segment(struct qr_store *store, struct qr_segment *segment, bool is_open)
{
    if (!is_open) {
        int result = qr_segment_pin(store, segment->number, &segment);
        if (result != 0)
            return result == QUIRE_ERR_NO_MEMORY ? -ENOMEM : -EIO;
        qr_segment_unpin(store, segment); /* it is pinned by the caller */
    }
    return QR_BUG(blob_unsynced) ? 0 : qr_file_sync(segment->file);
}

int qr_blob_sync(struct qr_store *store)
{
    struct qr_segment *segment;
    uint32_t number = 0;
    bool is_open = false;
    int error = 0;
    pthread_mutex_lock(&store->blob_sync_mutex);
    qr_lock(store);
    bool dirty = store->blobs_dirty, names = store->blob_names_dirty;
    store->blobs_dirty = store->blob_names_dirty = false;
    qr_unlock(store);
    int failed_errno = qr_store_failed_errno(store);
    if (failed_errno != 0)
        error = -failed_errno;
    while (dirty && error == 0 && (segment = pin_dirty(store, number, &is_open)) != NULL) {
        number = segment->number;
        error = sync_segment(store, segment, is_open);
        qr_segment_unpin(store, segment);
    }
    if (names && error == 0 && !QR_BUG(blob_unsynced))
        error = qr_dir_sync(store->dir);
    if (error != 0 && failed_errno == 0)
        (void)qr_segment_fail_for_good(store, error, "sync of blobs");
    pthread_mutex_unlock(&store->blob_sync_mutex);
    return error;
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

static int corrupt(struct qr_store *store, const struct qr_blob_ref *ref, const char *what)
{
    return qr_segment_corrupt(store, qr_address_number(ref->address), qr_address_offset(ref->address), what);
}

static int read_bytes(struct qr_blob_reader *reader, uint64_t offset, uint64_t size, void *to)
{
    struct qr_segment *segment = reader->segment;
    int64_t count = qr_file_read(segment->file, to, size, qr_address_offset(reader->ref.address) + offset);
    if (count < 0)
        return qr_segment_failure((int)count, segment->number, "read of a blob");
    return (uint64_t)count == size ? 0 : corrupt(reader->store, &reader->ref, "the file is cut");
}

static int read_sums(struct qr_blob_reader *reader)
{
    uint64_t size = 4 * qr_blob_blocks(reader->ref.size);
    if (size == 4)
        return 0;
    reader->sums = qr_malloc(size);
    if (reader->sums == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the checksums of a blob");
    int result = read_bytes(reader, QR_BLOB_HEAD_BYTES, size, reader->sums);
    if (result == 0 && sum_of(reader->segment->salt, reader->sums, size) != reader->ref.crc && !QR_BUG(blob_unchecked))
        result = corrupt(reader->store, &reader->ref, "the checksums of a blob have another checksum");
    return result;
}

/* Pins the segment of a reference that says nothing impossible. */
static int pin_place(struct qr_store *store, const struct qr_blob_ref *ref, struct qr_segment **ret_segment)
{
    int result = qr_segment_pin(store, qr_address_number(ref->address), ret_segment);
    if (result != 0)
        return result;
    const struct qr_segment *segment = *ret_segment;
    if (segment->stream == QR_STREAM_BLOB && qr_address_offset(ref->address) >= QR_SEGMENT_HEADER_BYTES &&
        qr_address_offset(ref->address) + qr_blob_extent(ref) <= segment->size)
        return 0;
    qr_segment_unpin(store, *ret_segment);
    return corrupt(store, ref, "no blob can be there");
}

int qr_blob_look(struct qr_store *store, const struct qr_blob_ref *ref)
{
    struct qr_segment *segment;
    int result = pin_place(store, ref, &segment);
    if (result == 0)
        qr_segment_unpin(store, segment);
    return result;
}

int qr_blob_open(struct qr_store *store, const struct qr_blob_ref *ref, struct qr_blob_reader *ret_reader)
{
    struct qr_blob_reader reader = {.store = store, .ref = *ref};
    int result = pin_place(store, ref, &reader.segment);
    if (result != 0)
        return result;
    result = read_sums(&reader);
    if (result != 0) {
        qr_blob_close(&reader);
        return result;
    }
    qr_lock(store);
    store->blob_stats.read++;
    store->blob_stats.read_bytes += ref->size;
    qr_unlock(store);
    *ret_reader = reader;
    return 0;
}

int qr_blob_read_at(struct qr_blob_reader *reader, uint32_t offset, uint32_t size, void *to)
{
    QR_ASSERT(offset % QR_BLOB_BLOCK_BYTES == 0);
    int result = read_bytes(reader, (uint64_t)reader->ref.head_size + offset, size, to);
    for (uint64_t done = 0; done < size && result == 0; done += QR_BLOB_BLOCK_BYTES) {
        uint64_t block = (offset + done) / QR_BLOB_BLOCK_BYTES;
        uint32_t right = reader->sums == NULL ? reader->ref.crc : qr_load_u32(reader->sums + 4 * block);
        const uint8_t *bytes = (const uint8_t *)to + done;
        if (sum_of(reader->segment->salt, bytes, qr_min(QR_BLOB_BLOCK_BYTES, size - done)) != right &&
            !QR_BUG(blob_unchecked))
            result = corrupt(reader->store, &reader->ref, "a block of a blob has another checksum");
    }
    return result;
}

void qr_blob_close(struct qr_blob_reader *reader)
{
    qr_free(reader->sums);
    qr_segment_unpin(reader->store, reader->segment);
}

int qr_blob_read(struct qr_store *store, const struct qr_blob_ref *ref, void *to)
{
    struct qr_blob_reader reader;
    int result = qr_blob_open(store, ref, &reader);
    if (result != 0)
        return result;
    for (uint64_t done = 0; done < ref->size && result == 0; done += PIECE_BYTES)
        result = qr_blob_read_at(&reader, (uint32_t)done, (uint32_t)qr_min(PIECE_BYTES, ref->size - done),
                                 (uint8_t *)to + done);
    qr_blob_close(&reader);
    return result;
}
