/*
 * verify.c: see verify.h.
 *
 * Layer 4.
 */
#include "store/verify.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/internal.h"

struct verify {
    struct qr_store *store;
    const struct qr_store_verifier *verifier;
    uint64_t pages, live_bytes; /* that the mapping names */
    uint64_t *told;             /* addresses of images that were told, without what they say of their size */
    uint64_t told_count, told_room;
    bool ended; /* the fault function has answered not 0 */
};

static int tell(struct verify *v, uint32_t number, uint64_t offset, uint64_t pid, const char *text)
{
    struct qr_store_fault fault = {.offset = offset, .pid = pid, .text = text};
    if (number != 0)
        qr_segment_name(number, fault.file);
    /* A failure's detail begins with the place, which is told apart. */
    if (number != 0 && strncmp(text, fault.file, strlen(fault.file)) == 0 && strstr(text, ": ") != NULL)
        fault.text = strstr(text, ": ") + 2;
    int result = v->verifier->fault(v->verifier->context, &fault);
    v->ended = result != 0;
    return result;
}

/* ---- Pages ------------------------------------------------------------------------------------------------------ */

static uint64_t place_of(uint32_t number, uint32_t offset)
{
    return (uint64_t)number << 32 | offset;
}

static int note_told(struct verify *v, uint64_t place)
{
    uint64_t *larger = qr_grow(v->told, v->told_count, &v->told_room, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a list of damaged images");
    v->told = larger;
    v->told[v->told_count++] = place;
    return 0;
}

static bool was_told(const struct verify *v, uint64_t place)
{
    for (uint64_t i = 0; i < v->told_count; i++) {
        if (v->told[i] == place)
            return true;
    }
    return false;
}

static int tell_image(struct verify *v, uint64_t pid, uint64_t address, const char *text)
{
    uint32_t number = qr_address_number(address), offset = qr_address_offset(address);
    int result = note_told(v, place_of(number, offset));
    return result != 0 ? result : tell(v, number, offset, pid, text);
}

static void *give_memory(void *context, size_t size)
{
    return *(void **)context = qr_malloc_aligned(QR_IMAGE_UNIT, size);
}

/* Under the mutex. */
static void count_image(struct qr_store *store, uint64_t address, uint64_t stored_bytes)
{
    struct qr_segment *segment = address == 0 ? NULL : qr_segment_find(store, qr_address_number(address));
    if (segment != NULL)
        segment->scanned += stored_bytes;
}

static int verify_page(void *context, uint64_t pid, const struct qr_store_entry *entry)
{
    struct verify *v = context;
    struct quire_error_detail detail;
    void *memory = NULL, *bytes;
    uint32_t size;
    v->pages++;
    v->live_bytes += entry->stored_bytes;
    qr_lock(v->store);
    count_image(v->store, entry->address, entry->stored_bytes);
    qr_unlock(v->store);
    int result = qr_store_read(v->store, entry->address, pid, give_memory, &memory, &bytes, &size);
    if (result == 0) {
        const char *wrong = v->verifier->page(v->verifier->context, pid, entry, bytes, size);
        result = wrong == NULL ? 0 : tell_image(v, pid, entry->address, wrong);
    } else if (result != QUIRE_ERR_NO_MEMORY) {
        quire_error_detail(&detail);
        result = tell_image(v, pid, entry->address, detail.message);
    }
    qr_free_aligned(memory);
    return result;
}

/* Under the mutex: the mapping's own blocks, all of which are in memory by now. */
static void count_blocks(struct qr_store *store, const struct qr_map_node *node)
{
    if (node == NULL)
        return;
    count_image(store, node->address, QR_BLOCK_BYTES + QR_IMAGE_HEADER_BYTES);
    for (uint32_t i = 0; node->level != 0 && i < QR_NODE_CHILDREN; i++)
        count_blocks(store, node->children[i]);
}

/* Under the mutex: a segment whose account of live bytes is not what the mapping names in it; 0: there is none. A page that was
 * written since the checkpoint, or a capture, changes them. */
static uint32_t wrong_account(struct qr_store *store)
{
    count_blocks(store, store->top);
    for (uint32_t i = 0; i < store->segment_count; i++) {
        const struct qr_segment *segment = store->segments[i];
        if (segment->stream != QR_STREAM_BLOB && segment->scanned != segment->mapped)
            return segment->number;
    }
    return 0;
}

/* A block of the mapping that cannot be read ends the walk: what it named is not looked at. */
static int verify_mapping(struct verify *v)
{
    struct quire_error_detail detail;
    qr_lock(v->store);
    for (uint32_t i = 0; i < v->store->segment_count; i++)
        v->store->segments[i]->scanned = 0;
    qr_unlock(v->store);
    int result = qr_store_each(v->store, verify_page, v);
    if (!v->ended && (result == QUIRE_ERR_CORRUPT || result == QUIRE_ERR_IO || result == QUIRE_ERR_NEWER)) {
        quire_error_detail(&detail);
        return tell(v, 0, 0, 0, detail.message);
    }
    if (result != 0)
        return result;
    qr_lock(v->store);
    bool right = v->store->changes.count != 0 || (v->pages == v->store->pages && v->live_bytes == v->store->live_bytes);
    uint32_t wrong = v->store->changes.count == 0 && right ? wrong_account(v->store) : 0;
    qr_unlock(v->store);
    if (!right)
        return tell(v, 0, 0, 0, "the mapping does not have the number of pages or bytes that its root says");
    return wrong == 0 ? 0 : tell(v, wrong, 0, 0, "the root says another number of live bytes in it than the mapping names");
}

/* ---- Segments --------------------------------------------------------------------------------------------------- */

/* An image of a batch: is what the summary says of it there? */
static const char *check_image(const uint8_t *memory, const struct qr_segment *segment, const struct qr_image_header *said,
                               uint64_t end)
{
    struct qr_image_header header;
    uint64_t offset = qr_address_offset(said->address);
    if (!qr_address_is_possible(said->address) || offset + QR_IMAGE_HEADER_BYTES + said->stored_size > end)
        return "an image that is not in its batch";
    const char *what = qr_image_header_decode(memory + offset, said->address, said->pid, &header);
    if (what != NULL)
        return what;
    if (header.stored_size != said->stored_size || header.min_lsn != said->min_lsn || header.max_lsn != said->max_lsn ||
        header.tree_id != said->tree_id || header.kind != said->kind || header.level != said->level ||
        header.codec != said->codec)
        return "the image is not what the summary of its batch says";
    return qr_image_sum_is_right(memory + offset, header.stored_size, segment->salt) ? NULL : "the checksum is wrong";
}

static int verify_batch(struct verify *v, const uint8_t *memory, const struct qr_segment *segment,
                        const struct qr_batch *batch)
{
    uint64_t end = (uint64_t)batch->offset + batch->size;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct qr_image_header said;
        qr_batch_entry_decode(memory + batch->offset + QR_BATCH_HEADER_BYTES + (size_t)i * QR_BATCH_ENTRY_BYTES,
                              segment->number, &said);
        const char *wrong = check_image(memory, segment, &said, end);
        uint32_t offset = qr_address_offset(said.address);
        if (wrong == NULL || was_told(v, place_of(segment->number, offset)))
            continue;
        int result = tell(v, segment->number, offset, said.pid, wrong);
        if (result != 0)
            return result;
    }
    return 0;
}

/* memory: the segment up to `used`. */
static int verify_batches(struct verify *v, const uint8_t *memory, const struct qr_segment *segment, uint64_t used)
{
    uint64_t sequence = 0;
    for (uint64_t offset = QR_SEGMENT_HEADER_BYTES; offset < used;) {
        struct qr_batch batch;
        if (!qr_batch_decode(memory + offset, used - offset, (uint32_t)offset, segment->salt, &batch))
            return tell(v, segment->number, offset, 0, "the summary of a batch is wrong");
        if (batch.sequence <= sequence || batch.size > used - offset)
            return tell(v, segment->number, offset, 0, "a batch that does not follow the one before");
        sequence = batch.sequence;
        int result = verify_batch(v, memory, segment, &batch);
        if (result != 0)
            return result;
        offset += batch.size;
    }
    return 0;
}

static int verify_segment(struct verify *v, uint32_t number)
{
    struct quire_error_detail detail;
    struct qr_segment *segment;
    int result = qr_segment_pin(v->store, number, &segment); /* compares the header, if that was not done yet */
    if (result == QR_STORE_GONE)
        return 0;
    if (result != 0) {
        quire_error_detail(&detail);
        return result == QUIRE_ERR_NO_MEMORY ? result : tell(v, number, 0, 0, detail.message);
    }
    if (segment->stream == QR_STREAM_BLOB) { /* no batches; who has a reference verifies the blob */
        qr_segment_unpin(v->store, segment);
        return 0;
    }
    uint64_t used = segment->used;
    uint8_t *memory = qr_malloc_aligned(QR_SEGMENT_UNIT, qr_round_up(used, QR_SEGMENT_UNIT));
    if (memory == NULL) {
        result = qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to verify a segment");
    } else {
        int64_t count = qr_file_read(segment->file, memory, qr_round_up(used, QR_SEGMENT_UNIT), 0);
        if (count < 0 || (uint64_t)count < used)
            result = tell(v, number, count < 0 ? 0 : (uint64_t)count, 0, count < 0 ? "it cannot be read" : "the file is cut");
        else
            result = verify_batches(v, memory, segment, used);
    }
    qr_free_aligned(memory);
    qr_segment_unpin(v->store, segment);
    return result;
}

static int verify_segments(struct verify *v)
{
    int result = 0;
    qr_lock(v->store);
    uint32_t count = v->store->segment_count;
    uint32_t *numbers = qr_calloc((size_t)count + 1, sizeof(*numbers));
    for (uint32_t i = 0; numbers != NULL && i < count; i++)
        numbers[i] = v->store->segments[i]->number;
    qr_unlock(v->store);
    if (numbers == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a list of segments");
    for (uint32_t i = 0; i < count && result == 0; i++)
        result = verify_segment(v, numbers[i]);
    qr_free(numbers);
    return result;
}

int qr_store_verify(struct qr_store *store, const struct qr_store_verifier *verifier)
{
    struct verify v = {.store = store, .verifier = verifier};
    int result = verify_mapping(&v);
    if (result == 0)
        result = verify_segments(&v);
    qr_free(v.told);
    return result;
}
