/*
 * blob_life.c: which blobs are dead, in memory, through checkpoints, and after an opening.
 *
 * Layer 4. See blob.h for the rules. A segment's dead are an array sorted by offset; its size is what ends a segment's life:
 *
 *     header | dead | dead | live | dead |      used - header - dead bytes = live bytes
 *
 * LIFE-1  What is in the array at a capture is written as a list by the checkpoint, which syncs the log after the capture. So the
 *         records that hid those blobs are durable when the list is (BLOB-3).
 * LIFE-2  A checkpoint leaves a segment out of its root if at its capture all of it was dead, the tail at which the last died was
 *         not above its replay_from, and nothing was appended to it any more; the segment is released when the record is durable
 *         (R3). Frames from replay_from on name no blob of it: those that named one are below that tail.
 *         Without a log a checkpoint as of C is captured before anything that C sees may be dropped (CHECK-8 in db/checkpoint.h): so
 *         what is dead then is not needed at C, and what C does not know of is behind the mark (BLOB-5).
 * LIFE-3  A blob that was appended after a capture has its frame above the replay_from of that checkpoint. So after an opening
 *         what lies behind the root's `used` is named by a frame that was replayed, or is nobody's.
 * LIFE-4  Places never overlap. What damaged references or lists say against it is not taken, since the next opening would refuse a
 *         list with it, and all of the store: such a blob counts as alive.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/blob_internal.h"

#define LIST_ENTRY_BYTES 8u

/* ---- Places ----------------------------------------------------------------------------------------------------- */

static uint64_t place_make(uint64_t offset, uint64_t extent)
{
    return offset / QR_BLOB_UNIT << 32 | extent / QR_BLOB_UNIT;
}

static uint64_t place_offset(uint64_t place)
{
    return (place >> 32) * QR_BLOB_UNIT;
}

static uint64_t place_extent(uint64_t place)
{
    return (uint64_t)(uint32_t)place * QR_BLOB_UNIT;
}

/* Index of the first place at or behind `offset`. */
static uint32_t index_of(const struct qr_blob_places *places, uint64_t offset)
{
    uint32_t low = 0, high = places->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (place_offset(places->places[middle]) < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The index says where among the places it belongs: whether one of them has some of its bytes, or all. */
static bool overlaps(const struct qr_blob_places *places, uint32_t index, uint64_t offset, uint64_t extent)
{
    if (index > 0 && place_offset(places->places[index - 1]) + place_extent(places->places[index - 1]) > offset)
        return true;
    return index < places->count && place_offset(places->places[index]) < offset + extent;
}

/* 1: added; 0: it was there, or a damaged file has one that cannot be beside it (LIFE-4); -1: no memory. */
static int add_place(struct qr_blob_places *places, uint64_t offset, uint64_t extent)
{
    uint32_t i = index_of(places, offset);
    if (overlaps(places, i, offset, extent))
        return 0;
    uint64_t *larger = qr_grow(places->places, places->count, &places->room, sizeof(*larger));
    if (larger == NULL) return -1;
    places->places = larger;
    memmove(&places->places[i + 1], &places->places[i], (places->count - i) * sizeof(*places->places));
    places->places[i] = place_make(offset, extent);
    places->count++;
    return 1;
}

/* ---- Dying ------------------------------------------------------------------------------------------------------ */

void qr_blob_note_dead(struct qr_segment *segment, uint64_t offset, uint64_t extent, uint64_t lsn)
{
    if (add_place(&segment->dead, offset, extent) != 1)
        return; /* without memory for it it counts as alive: until it is said again, or cleaned */
    segment->dead_bytes += extent;
    segment->dead_lsn = qr_max(segment->dead_lsn, lsn);
    segment->dead_changed = true;
}

void qr_blob_dead(struct qr_store *store, const uint8_t *references, uint32_t count, uint64_t lsn)
{
    qr_lock(store);
    for (uint32_t i = 0; i < count; i++) {
        struct qr_blob_ref ref;
        if (!qr_blob_ref_decode(references + (size_t)i * QR_BLOB_REF_BYTES, &ref))
            continue;
        struct qr_segment *segment = qr_segment_find(store, qr_address_number(ref.address));
        uint64_t offset = qr_address_offset(ref.address), extent = qr_blob_extent(&ref);
        if (segment != NULL && segment->stream == QR_STREAM_BLOB && offset >= QR_SEGMENT_HEADER_BYTES &&
            offset + extent <= segment->used) /* else it has been released, or the reference is damaged */
            qr_blob_note_dead(segment, offset, extent, lsn);
    }
    qr_unlock(store);
}

bool qr_blob_segment_is_dead(const struct qr_store *store, const struct qr_segment *segment)
{
    if (QR_BUG(blob_released_early) && store->open[QR_STREAM_BLOB] != segment)
        return segment->dead_bytes != 0;
    return segment->left_out;
}

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

void qr_blob_stats(struct qr_store *store, struct qr_blob_stats *ret_stats)
{
    qr_lock(store);
    struct qr_blob_stats stats = store->blob_stats;
    for (uint32_t i = 0; i < store->segment_count; i++) {
        const struct qr_segment *segment = store->segments[i];
        if (segment->stream != QR_STREAM_BLOB)
            continue;
        stats.segments++;
        stats.segment_bytes += segment->size;
        stats.dead_bytes += segment->dead_bytes;
        stats.live_bytes += segment->used - QR_SEGMENT_HEADER_BYTES - segment->dead_bytes;
    }
    qr_unlock(store);
    *ret_stats = stats;
}

uint64_t qr_blob_written_bytes(struct qr_store *store)
{
    qr_lock(store);
    uint64_t bytes = store->blob_stats.written_bytes;
    qr_unlock(store);
    return bytes;
}

/* ---- Checkpoint ------------------------------------------------------------------------------------------------- */

/*
 * Under the mutex: whether all of the segment is dead, and nobody appends to it any more. A writer that is about to has it pinned, or
 * finds it as the open one, or the one that goes on after an opening, under the mutex. Of these one that is more than half full and all
 * dead is given up here: its space may be more than all the rest, and come back only when large values are written again.
 */
static bool is_over(struct qr_store *store, struct qr_segment *segment)
{
    if (segment->dead_bytes != segment->used - QR_SEGMENT_HEADER_BYTES)
        return false;
    const bool half = segment->used > segment->size / 2;
    if (store->open[QR_STREAM_BLOB] == segment && segment->pins == 1 && half) {
        store->open[QR_STREAM_BLOB] = NULL;
        segment->pins = 0;
    }
    if (store->resume[QR_STREAM_BLOB] == segment->number && segment->pins == 0 && half)
        store->resume[QR_STREAM_BLOB] = 0;
    return segment->pins == 0 && store->open[QR_STREAM_BLOB] != segment && store->resume[QR_STREAM_BLOB] != segment->number;
}

void qr_blob_mark(struct qr_store *store)
{
    qr_lock(store);
    for (uint32_t i = 0; i < store->segment_count; i++)
        store->segments[i]->mark = store->segments[i]->used;
    qr_unlock(store);
}

/* Under the mutex: of what is captured of the segment those that are dead, as a list if it is to be written. */
static bool copy_dead(const struct qr_segment *segment, struct qr_blob_captured *captured)
{
    uint32_t count = captured->used == segment->used ? segment->dead.count : index_of(&segment->dead, captured->used);
    while (count != 0 && place_offset(segment->dead.places[count - 1]) + place_extent(segment->dead.places[count - 1]) > captured->used)
        count--; /* only of damaged references (LIFE-4) */
    captured->dead_bytes = segment->dead_bytes;
    for (uint32_t i = count; i < segment->dead.count; i++)
        captured->dead_bytes -= place_extent(segment->dead.places[i]);
    if (!segment->dead_changed || count == 0)
        return true;
    captured->bytes = qr_malloc((size_t)count * LIST_ENTRY_BYTES);
    if (captured->bytes == NULL)
        return false;
    captured->size = count * LIST_ENTRY_BYTES;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t place = segment->dead.places[i];
        qr_store_u32(captured->bytes + (size_t)i * LIST_ENTRY_BYTES, (uint32_t)(place >> 32));
        qr_store_u32(captured->bytes + (size_t)i * LIST_ENTRY_BYTES + 4, (uint32_t)place);
    }
    return true;
}

int qr_blob_capture(struct qr_store_capture *capture, bool marked)
{
    struct qr_store *store = capture->store;
    bool done = true;
    qr_lock(store);
    capture->blobs = qr_calloc(store->segment_count + 1, sizeof(*capture->blobs));
    for (uint32_t i = 0; capture->blobs != NULL && i < store->segment_count && done; i++) {
        struct qr_segment *segment = store->segments[i];
        if (segment->stream != QR_STREAM_BLOB || (marked && segment->mark == 0))
            continue;
        struct qr_blob_captured *captured = &capture->blobs[capture->blob_count++];
        *captured = (struct qr_blob_captured){
            .number = segment->number,
            .used = marked ? segment->mark : segment->used,
            .dead_lsn = segment->dead_lsn,
            .all_dead = is_over(store, segment),
            .place = segment->dead_place,
        };
        done = copy_dead(segment, captured);
    }
    qr_unlock(store);
    return capture->blobs != NULL && done ? 0 : qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the lists of dead blobs");
}

int qr_blob_lists_write(struct qr_store_capture *capture, uint64_t replay_from)
{
    int result = 0;
    for (uint32_t i = 0; i < capture->blob_count && result == 0; i++) {
        struct qr_blob_captured *captured = &capture->blobs[i];
        captured->left_out = captured->all_dead && captured->dead_lsn <= replay_from; /* LIFE-2 */
        if (captured->left_out || captured->bytes == NULL)
            continue;
        struct qr_store_image image = {.pid = captured->number,
                                       .kind = QR_STORE_DEAD_BLOBS,
                                       .codec = QR_CODEC_NONE,
                                       .bytes = captured->bytes,
                                       .size = captured->size};
        result = qr_store_write(capture->store, &image, 1, QR_STORE_RESERVE);
        if (result != 0)
            break;
        captured->place = (struct qr_manifest_place){image.address, image.stored_bytes};
        captured->written = true;
    }
    return result;
}

const struct qr_blob_captured *qr_blob_captured_find(const struct qr_store_capture *capture, uint32_t number)
{
    for (uint32_t low = 0, high = capture->blob_count; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        const struct qr_blob_captured *captured = &capture->blobs[middle];
        if (captured->number == number)
            return captured->left_out ? NULL : captured;
        if (captured->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

bool qr_blob_list_is_in(const struct qr_store_capture *capture, uint32_t number)
{
    bool in = false;
    for (uint32_t i = 0; i < capture->blob_count && !in; i++) {
        const struct qr_blob_captured *captured = &capture->blobs[i];
        in = !captured->left_out && captured->place.size_bytes != 0 &&
             qr_address_number(captured->place.address) == number;
    }
    return in;
}

uint32_t qr_blob_table(const struct qr_store_capture *capture, uint8_t *to)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < capture->blob_count; i++) {
        const struct qr_blob_captured *captured = &capture->blobs[i];
        if (captured->left_out || captured->place.size_bytes == 0)
            continue;
        struct qr_root_dead entry = {.number = captured->number,
                                     .stored_bytes = captured->place.size_bytes,
                                     .address = captured->place.address,
                                     .lsn = captured->dead_lsn};
        if (to != NULL)
            qr_root_dead_encode(&entry, to + (size_t)count * QR_ROOT_DEAD_BYTES);
        count++;
    }
    return count;
}

/* Under the mutex. */
static void count_place(struct qr_store *store, const struct qr_manifest_place *place, int sign)
{
    struct qr_segment *segment =
        place->size_bytes == 0 ? NULL : qr_segment_find(store, qr_address_number(place->address));
    if (segment != NULL)
        segment->meta += (uint64_t)sign * place->size_bytes;
}

void qr_blob_lists_committed(struct qr_store_capture *capture)
{
    struct qr_store *store = capture->store;
    for (uint32_t i = 0; i < capture->blob_count; i++) {
        const struct qr_blob_captured *captured = &capture->blobs[i];
        struct qr_segment *segment = qr_segment_find(store, captured->number);
        if (segment == NULL)
            continue; /* left out before, and released since the capture, for want of space */
        if (captured->left_out) {
            segment->left_out = true;
            count_place(store, &segment->dead_place, -1);
            segment->dead_place = (struct qr_manifest_place){0};
        } else if (captured->written) {
            count_place(store, &segment->dead_place, -1);
            count_place(store, &captured->place, 1);
            segment->dead_place = captured->place;
            segment->dead_changed = segment->dead_bytes != captured->dead_bytes; /* it only grows */
        }
    }
}

void qr_blob_capture_free(struct qr_store_capture *capture)
{
    for (uint32_t i = 0; i < capture->blob_count; i++)
        qr_free(capture->blobs[i].bytes);
    qr_free(capture->blobs);
    capture->blobs = NULL;
    capture->blob_count = 0;
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

int qr_blob_take_list(struct qr_store *store, struct qr_segment *segment, const uint8_t *bytes, uint32_t size)
{
    uint64_t end = QR_SEGMENT_HEADER_BYTES;
    uint32_t count = size / LIST_ENTRY_BYTES;
    bool possible = size % LIST_ENTRY_BYTES == 0;
    segment->dead.places = qr_malloc((size_t)count * sizeof(uint64_t));
    if (segment->dead.places == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a list of dead blobs");
    segment->dead.room = count;
    for (uint32_t i = 0; i < count && possible; i++) {
        uint64_t offset = (uint64_t)qr_load_u32(bytes + (size_t)i * LIST_ENTRY_BYTES) * QR_BLOB_UNIT;
        uint64_t extent = (uint64_t)qr_load_u32(bytes + (size_t)i * LIST_ENTRY_BYTES + 4) * QR_BLOB_UNIT;
        possible = extent != 0 && offset >= end && offset + extent <= segment->used;
        end = offset + extent;
        segment->dead.places[segment->dead.count++] = place_make(offset, extent);
        segment->dead_bytes += extent;
    }
    return possible ? 0 : qr_segment_corrupt(store, segment->number, 0, "the list of its dead blobs is impossible");
}

/* A segment that no checkpoint knows. */
static int adopt(struct qr_store *store, uint32_t number)
{
    struct qr_segment *segment;
    int result = qr_segment_load(store, number, &segment);
    if (result != 0)
        return result;
    segment->used = segment->known = QR_SEGMENT_HEADER_BYTES;
    result = segment->stream == QR_STREAM_BLOB
                 ? qr_segment_register(store, segment)
                 : qr_segment_corrupt(store, number, 0, "a blob is to be in a segment of another kind");
    if (result != 0) {
        qr_segment_free(segment);
        return result;
    }
    if (!store->read_only)
        store->resume[QR_STREAM_BLOB] = (uint32_t)qr_max(store->resume[QR_STREAM_BLOB], number);
    return 0;
}

int qr_blob_verify(struct qr_store *store, const struct qr_blob_ref *ref)
{
    struct qr_blob_reader reader;
    int result = qr_blob_open(store, ref, &reader);
    if (result != 0)
        return result;
    uint8_t *block = qr_malloc(QR_BLOB_BLOCK_BYTES);
    if (block == NULL)
        result = qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to verify a blob");
    for (uint64_t done = 0; done < ref->size && result == 0; done += QR_BLOB_BLOCK_BYTES)
        result = qr_blob_read_at(&reader, (uint32_t)done, (uint32_t)qr_min(QR_BLOB_BLOCK_BYTES, ref->size - done), block);
    qr_free(block);
    qr_blob_close(&reader);
    return result;
}

/* Writes a part of the file as it is. */
static int rewrite_part(struct qr_segment *segment, uint64_t offset, uint64_t size, uint8_t *piece)
{
    int error = 0;
    for (uint64_t done = 0; done < size && error == 0; done += QR_BLOB_BLOCK_BYTES) {
        uint64_t count = qr_min(QR_BLOB_BLOCK_BYTES, size - done);
        int64_t got = qr_file_read(segment->file, piece, count, offset + done);
        error = got < 0 ? (int)got : qr_file_write(segment->file, piece, (size_t)got, offset + done);
    }
    return error;
}

/* The header with it: that may have been in the sync that failed. */
static int rewrite_blob(struct qr_store *store, const struct qr_blob_ref *ref)
{
    struct qr_segment *segment;
    int result = qr_segment_pin(store, qr_address_number(ref->address), &segment);
    if (result != 0)
        return result;
    uint8_t *piece = qr_malloc(QR_BLOB_BLOCK_BYTES);
    int error = piece == NULL ? -ENOMEM : rewrite_part(segment, 0, QR_SEGMENT_HEADER_BYTES, piece);
    if (error == 0)
        error = rewrite_part(segment, qr_address_offset(ref->address), (uint64_t)ref->head_size + ref->size, piece);
    qr_free(piece);
    qr_segment_unpin(store, segment);
    return error == 0 ? 0 : qr_segment_failure(error, segment->number, "writing a blob again");
}

/* Whether it is there and has its header; 0, or a failure. */
static int look_at_segment(struct qr_store *store, uint32_t number)
{
    struct qr_segment *segment;
    int result = qr_segment_pin(store, number, &segment);
    if (result == 0)
        qr_segment_unpin(store, segment);
    return result;
}

int qr_blob_replayed(struct qr_store *store, const struct qr_blob_ref *ref, bool verified, bool rewrite)
{
    uint32_t number = qr_address_number(ref->address);
    uint64_t offset = qr_address_offset(ref->address), extent = qr_blob_extent(ref);
    struct qr_segment *segment = qr_segment_find(store, number);
    int result = segment != NULL ? 0 : adopt(store, number);
    if (result == QUIRE_ERR_CORRUPT && !verified)
        return 0; /* whoever reads it is told */
    if (result != 0)
        return result;
    segment = qr_segment_find(store, number);
    result = verified ? qr_blob_verify(store, ref) : look_at_segment(store, number);
    if (result == QUIRE_ERR_CORRUPT && !verified)
        return 0; /* as above */
    if (result == 0 && verified && rewrite && !QR_BUG(blob_not_rewritten))
        result = rewrite_blob(store, ref);
    if (result != 0)
        return result;
    if (offset < QR_SEGMENT_HEADER_BYTES || offset + extent > segment->size)
        return 0; /* as above */
    qr_lock(store);
    if (offset >= segment->known)
        (void)add_place(&segment->named, offset, extent);
    segment->used = qr_max(segment->used, offset + extent);
    segment->dirty = store->blobs_dirty = store->blob_names_dirty = true;
    qr_unlock(store);
    return 0;
}

void qr_blob_recovered(struct qr_store *store)
{
    for (uint32_t i = 0; i < store->segment_count; i++) {
        struct qr_segment *segment = store->segments[i];
        if (segment->stream != QR_STREAM_BLOB)
            continue;
        uint64_t end = segment->known;
        for (uint32_t k = 0; k < segment->named.count; k++) {
            uint64_t offset = place_offset(segment->named.places[k]);
            if (offset > end) /* LIFE-3 */
                qr_blob_note_dead(segment, end, offset - end, 0);
            end = qr_max(end, offset + place_extent(segment->named.places[k]));
        }
        qr_free(segment->named.places);
        segment->named = (struct qr_blob_places){0};
    }
}
