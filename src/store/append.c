/*
 * append.c: images into batches, batches into segments.
 *
 * Layer 4. A batch takes as many images as fit, uncompressed, into what is left of its segment, and is encoded where it
 * will be: only then are addresses known, and an address is under the image's checksum. Several batches are written at
 * once, each in pieces, so that the device has more than one thing to do.
 *
 *   place (room for the images as they are) -> encode (compress, copy, sum) -> [more batches] -> transfer -> publish
 *
 * APPEND-1  Nothing of a call is known to the store before all of it is written: then its images are put into
 * `written`. Until then its segments are pinned, and after a failure they end where they ended before: a later call, of
 * this opening or the next one, writes to the same places again, which nobody has been told of (STORE-1). APPEND-2  After
 * a failure that is not want of space or memory this opening leaves the segment alone: a new one is begun.
 *
 * Under the write mutex from beginning to end.
 */
#include <lz4.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/internal.h"

#define BATCHES 4u
#define PIECE_BYTES (UINT32_C(256) << 10)
#define IOS_AT_ONCE 64u
/* Compression has to save a sixteenth, or the image is stored as it is. */
#define LEAST_SAVED_LOG2 4
#define LEAST_PACKED_BYTES 128u

struct placed {
    struct qr_segment *segment;
    uint32_t offset, size;
    uint8_t *memory;
};

struct append {
    struct qr_store *store;
    struct qr_store_image *images;
    uint32_t count;
    enum qr_stream stream;
    bool use_reserve;
    struct placed batches[BATCHES]; /* encoded, to be written */
    uint32_t batch_count;
    struct qr_segment *left; /* segments that this call left behind, still pinned, by `left` */
    struct qr_change *nodes; /* one for each image */
    uint64_t written_bytes, write_operations, batches_done, stored_raw;
};

static uint64_t footprint(const struct qr_store_image *image)
{
    return qr_round_up((uint64_t)image->size + QR_IMAGE_HEADER_BYTES, QR_IMAGE_UNIT);
}

/* ---- Placing ---------------------------------------------------------------------------------------------------- */

/* How many images, from the first on, fit into `room` bytes as they are. */
static uint32_t count_fitting(const struct append *append, uint32_t first, uint64_t room)
{
    uint64_t images = 0;
    uint32_t count = 0;
    while (first + count < append->count) {
        uint64_t more = images + footprint(&append->images[first + count]);
        if (qr_batch_summary_bytes(count + 1) + more > room)
            break;
        images = more;
        count++;
    }
    return count;
}

/* Leaves the open segment; it stays pinned until the call ends. */
static void leave_segment(struct append *append)
{
    struct qr_store *store = append->store;
    struct qr_segment *segment = store->open[append->stream];
    store->open[append->stream] = NULL;
    if (segment == NULL)
        return;
    segment->left = append->left;
    append->left = segment;
}

/* The segment that batches go to; after an opening the one of before goes on. NULL: none. */
static struct qr_segment *open_segment(struct append *append)
{
    struct qr_store *store = append->store;
    struct qr_segment *segment;
    uint32_t number = store->resume[append->stream];
    store->resume[append->stream] = 0;
    if (store->open[append->stream] == NULL && number != 0 && qr_segment_pin(store, number, &segment) == 0)
        store->open[append->stream] = segment;
    return store->open[append->stream];
}

/* The segment and the number of images of the batch that begins with `first`. */
static int place(struct append *append, uint32_t first, struct qr_segment **ret_segment, uint32_t *ret_count)
{
    struct qr_store *store = append->store;
    struct qr_segment *segment = store->open[append->stream];
    if (segment != NULL) {
        uint32_t count = count_fitting(append, first, qr_min(segment->size - segment->used, QR_STORE_BATCH_BYTES));
        uint64_t alone = qr_batch_summary_bytes(1) + footprint(&append->images[first]);
        if (count == 0 && alone <= segment->size - segment->used)
            count = 1; /* larger than a batch */
        if (count != 0) {
            *ret_segment = segment;
            *ret_count = count;
            return 0;
        }
    }
    uint64_t need = qr_batch_summary_bytes(1) + footprint(&append->images[first]);
    int result = qr_segment_make(store, append->stream, need, append->use_reserve, &segment);
    if (result != 0)
        return result;
    leave_segment(append);
    store->open[append->stream] = segment;
    return place(append, first, ret_segment, ret_count);
}

/* ---- Encoding --------------------------------------------------------------------------------------------------- */

static uint8_t codec_of(const struct qr_store *store, const struct qr_store_image *image)
{
    uint8_t codec = image->codec != QR_CODEC_STORE ? image->codec : (uint8_t)store->options.codec;
    return codec == QR_CODEC_LZ4 && image->size >= LEAST_PACKED_BYTES && image->size <= LZ4_MAX_INPUT_SIZE
               ? QR_CODEC_LZ4
               : QR_CODEC_NONE;
}

/* Stores the bytes at `to`; the header is what decides. */
static void store_bytes(struct append *append, const struct qr_store_image *image, struct qr_image_header *header,
                        uint8_t *to)
{
    header->codec = codec_of(append->store, image);
    if (header->codec == QR_CODEC_LZ4) {
        uint32_t most = image->size - (image->size >> LEAST_SAVED_LOG2) - 1;
        int size = LZ4_compress_default(image->bytes, (char *)to, (int)image->size, (int)most);
        if (size > 0) {
            header->stored_size = (uint32_t)size;
            return;
        }
        append->stored_raw++;
    }
    header->codec = QR_CODEC_NONE;
    header->stored_size = image->size;
    memcpy(to, image->bytes, image->size);
}

static uint32_t encode_image(struct append *append, struct qr_store_image *image, const struct placed *placed,
                             uint32_t at, uint32_t index)
{
    uint8_t *to = placed->memory + at;
    struct qr_image_header header = {.pid = image->pid,
                                     .min_lsn = image->min_lsn,
                                     .max_lsn = image->max_lsn,
                                     .tree_id = image->tree_id,
                                     .size = image->size,
                                     .kind = image->kind,
                                     .level = image->level};
    store_bytes(append, image, &header, to + QR_IMAGE_HEADER_BYTES);
    image->stored_bytes = header.stored_size + QR_IMAGE_HEADER_BYTES;
    image->address = qr_address_make(placed->segment->number, placed->offset + at, image->stored_bytes);
    header.address = image->address;
    qr_image_header_encode(&header, placed->segment->salt, to);
    uint32_t end = at + image->stored_bytes, next = (uint32_t)qr_round_up(end, QR_IMAGE_UNIT);
    memset(placed->memory + end, 0, next - end); /* a codec may have been there */
    qr_batch_entry_encode(&header, placed->memory + QR_BATCH_HEADER_BYTES + (size_t)index * QR_BATCH_ENTRY_BYTES);
    return next;
}

static int encode(struct append *append, uint32_t first, struct qr_segment *segment, uint32_t count)
{
    struct qr_store *store = append->store;
    uint64_t most = qr_batch_summary_bytes(count);
    uint32_t at = (uint32_t)most;
    for (uint32_t i = 0; i < count; i++)
        most += footprint(&append->images[first + i]);
    most = qr_round_up(most, QR_SEGMENT_UNIT);
    struct placed *placed = &append->batches[append->batch_count];
    *placed = (struct placed){segment, (uint32_t)segment->used, 0, qr_malloc_aligned(QR_SEGMENT_UNIT, most)};
    if (placed->memory == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a batch of %llu bytes", (unsigned long long)most);
    memset(placed->memory, 0, most);
    struct qr_batch batch = {
        .sequence = store->sequence++, .min_lsn = UINT64_MAX, .offset = placed->offset, .count = count};
    for (uint32_t i = 0; i < count; i++) {
        struct qr_store_image *image = &append->images[first + i];
        batch.min_lsn = qr_min(batch.min_lsn, image->min_lsn);
        batch.max_lsn = qr_max(batch.max_lsn, image->max_lsn);
        at = encode_image(append, image, placed, at, i);
    }
    placed->size = batch.size = (uint32_t)qr_round_up(at, QR_SEGMENT_UNIT);
    memset(placed->memory + at, 0, placed->size - at); /* as above */
    qr_batch_encode(&batch, segment->salt, placed->memory);
    if (segment->settled == 0)
        segment->settled = segment->used;
    segment->used += placed->size;
    append->batch_count++;
    return 0;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static int transfer(struct append *append, struct qr_io *ios, uint32_t *count)
{
    int error = *count == 0 ? 0 : qr_disk_transfer(append->store->dir->disk, ios, *count);
    append->write_operations += *count;
    *count = 0;
    return error;
}

/* Writes the batches that are encoded, and frees them. */
static int write_batches(struct append *append)
{
    struct qr_io ios[IOS_AT_ONCE];
    uint32_t count = 0;
    int error = 0;
    for (uint32_t i = 0; i < append->batch_count && error == 0; i++) {
        const struct placed *placed = &append->batches[i];
        for (uint32_t done = 0; done < placed->size && error == 0; done += ios[count - 1].size) {
            if (count == IOS_AT_ONCE)
                error = transfer(append, ios, &count);
            uint32_t size = placed->size - done < PIECE_BYTES ? placed->size - done : PIECE_BYTES;
            ios[count++] = (struct qr_io){
                QR_IO_WRITE, placed->segment->file, (uint64_t)placed->offset + done, placed->memory + done, size, 0};
        }
        append->written_bytes += placed->size;
    }
    if (error == 0)
        error = transfer(append, ios, &count);
    int result = error == 0 ? 0 : qr_segment_failure(error, append->batches[0].segment->number, "write of a batch");
    for (uint32_t i = 0; i < append->batch_count; i++)
        qr_free_aligned(append->batches[i].memory);
    append->batches_done += append->batch_count;
    append->batch_count = 0;
    return result;
}

static int write_all(struct append *append)
{
    int result = 0;
    for (uint32_t first = 0, count; first < append->count && result == 0; first += count) {
        struct qr_segment *segment;
        count = 0;
        result = place(append, first, &segment, &count);
        if (result == 0)
            result = encode(append, first, segment, count);
        if (result == 0 && append->batch_count == BATCHES)
            result = write_batches(append);
    }
    if (result == 0)
        return append->batch_count == 0 ? 0 : write_batches(append);
    for (uint32_t i = 0; i < append->batch_count; i++)
        qr_free_aligned(append->batches[i].memory);
    append->batch_count = 0;
    return result;
}

/* ---- The call --------------------------------------------------------------------------------------------------- */

static void free_nodes(struct qr_change *nodes)
{
    while (nodes != NULL) {
        struct qr_change *next = nodes->next;
        qr_free(nodes);
        nodes = next;
    }
}

static int make_nodes(struct append *append)
{
    for (uint32_t i = 0; i < append->count; i++) {
        struct qr_change *node = qr_calloc(1, sizeof(*node));
        if (node == NULL) {
            free_nodes(append->nodes);
            return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the entries of %u images", append->count);
        }
        node->next = append->nodes;
        append->nodes = node;
    }
    return 0;
}

/* The images are the store's from here on. */
static void publish(struct append *append)
{
    struct qr_store *store = append->store;
    for (uint32_t i = 0; i < append->count; i++) {
        const struct qr_store_image *image = &append->images[i];
        struct qr_change *node = append->nodes;
        append->nodes = node->next;
        *node = (struct qr_change){.key = image->address,
                                   .pid = image->pid,
                                   .address = image->address,
                                   .max_lsn = image->max_lsn,
                                   .stored_bytes = image->stored_bytes};
        qr_lock(store);
        struct qr_segment *segment = qr_segment_find(store, qr_address_number(image->address));
        segment->pending += image->stored_bytes; /* it is pinned, so it is there */
        segment->dirty = true;
        qr_changes_add(&store->written, node);
        qr_unlock(store);
    }
}

/* A segment of the call, at its end. After a failure it is used as far as before: between batches that are there lies none
 * that was not written. */
static void settle(struct qr_segment *segment, bool failed)
{
    if (failed && segment->settled != 0)
        segment->used = segment->settled;
    segment->settled = 0;
}

/* APPEND-1, APPEND-2. */
static void take_back(struct append *append, int result)
{
    free_nodes(append->nodes);
    if (result != QUIRE_ERR_NO_SPACE && result != QUIRE_ERR_NO_MEMORY && result != QUIRE_ERR_TOO_LARGE)
        leave_segment(append);
}

static void settle_all(struct append *append, bool failed)
{
    struct qr_segment *open = append->store->open[append->stream];
    for (struct qr_segment *segment = append->left; segment != NULL; segment = segment->left)
        settle(segment, failed);
    if (open != NULL)
        settle(open, failed);
}

static void unpin_left(struct append *append)
{
    for (struct qr_segment *next, *segment = append->left; segment != NULL; segment = next) {
        next = segment->left;
        qr_segment_unpin(append->store, segment);
    }
    append->left = NULL;
}

static void count(struct append *append, int result)
{
    struct qr_store *store = append->store;
    qr_lock(store);
    store->stats.written_bytes += append->written_bytes;
    store->stats.write_operations += append->write_operations;
    store->stats.batches += append->batches_done;
    if (result == 0) {
        store->stats.images_written += append->count;
        store->stats.images_stored_raw += append->stored_raw;
    }
    qr_unlock(store);
}

/* Under the write mutex. */
static int append_images(struct append *append)
{
    struct qr_store *store = append->store;
    int result = qr_store_may_write(store);
    if (result == 0)
        result = make_nodes(append);
    if (result != 0) {
        unpin_left(append);
        return result;
    }
    (void)open_segment(append);
    result = write_all(append);
    if (result == 0)
        publish(append);
    else
        take_back(append, result);
    settle_all(append, result != 0);
    unpin_left(append);
    count(append, result);
    return result;
}

int qr_store_write(struct qr_store *store, struct qr_store_image *images, uint32_t image_count, unsigned flags)
{
    struct append append = {.store = store,
                            .images = images,
                            .count = image_count,
                            .stream = (flags & QR_STORE_COLD) != 0 ? QR_STREAM_COLD : QR_STREAM_HOT,
                            .use_reserve = (flags & QR_STORE_RESERVE) != 0};
    for (uint32_t i = 0; i < image_count; i++) {
        QR_ASSERT(images[i].size != 0);
        if (images[i].size > QR_IMAGE_MOST)
            return qr_fail(QUIRE_ERR_TOO_LARGE, 0, "an image of %u bytes", images[i].size);
    }
    pthread_mutex_lock(&store->write_mutex);
    int result = append_images(&append);
    pthread_mutex_unlock(&store->write_mutex);
    return result;
}

int qr_append_root(struct qr_store *store, qr_append_fill *fill, void *context, struct qr_store_image *image)
{
    struct append append = {.store = store, .images = image, .count = 1, .stream = QR_STREAM_HOT, .use_reserve = true};
    uint8_t *bytes = NULL;
    int result = 0;
    pthread_mutex_lock(&store->write_mutex);
    struct qr_segment *segment = open_segment(&append);
    image->size = fill(context, NULL, 0, NULL); /* at most */
    uint64_t most = qr_batch_summary_bytes(1) + footprint(image);
    if (segment == NULL || segment->size - segment->used < most) {
        result = qr_segment_make(store, QR_STREAM_HOT, most, true, &segment);
        if (result == 0) {
            leave_segment(&append);
            store->open[QR_STREAM_HOT] = segment;
        }
    }
    if (result == 0 && (bytes = qr_malloc(image->size)) == NULL)
        result = qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the root of the mapping");
    if (result == 0) {
        image->codec = QR_CODEC_NONE;
        image->bytes = bytes;
        image->size = fill(context, segment, 0, NULL);
        uint64_t end = segment->used + qr_round_up(qr_batch_summary_bytes(1) + footprint(image), QR_SEGMENT_UNIT);
        (void)fill(context, segment, end, bytes);
        result = append_images(&append);
    } else {
        unpin_left(&append);
    }
    pthread_mutex_unlock(&store->write_mutex);
    qr_free(bytes);
    return result;
}
