/*
 * fetch.c: from an address to verified bytes.
 *
 * Layer 4. The address says how much to read, so that one read does for any usual image; what it cannot say (more than
 * 32 KiB) the header does, and a second read gets all of it. Everything that was read is a file's: sizes are compared
 * with what was read before they are believed, and the memory for the bytes is asked for when the checksum is right.
 *
 * The segment is pinned while it is read, so it is not released meanwhile. If it was before, the image was not the
 * page's any more: QR_STORE_GONE, unless the mapping still names it.
 */
#include <lz4.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/internal.h"

#define READS_AT_ONCE 32u

struct fetch {
    struct qr_fetch_want want;
    struct qr_segment *segment;
    uint8_t *memory;            /* what was read */
    uint64_t begin, size, done; /* of the segment: where it was read, how much was asked for, how much there was */
};

/* Asks for `bytes` from the image's beginning on, or what is left of the segment; aligned. */
static int make_window(struct fetch *fetch, uint64_t bytes)
{
    const struct qr_segment *segment = fetch->segment;
    uint64_t offset = qr_address_offset(fetch->want.address);
    uint64_t end = qr_round_up(qr_min(offset + bytes, segment->size), segment->align);
    qr_free_aligned(fetch->memory);
    fetch->begin = offset & ~(uint64_t)(segment->align - 1);
    fetch->size = end - fetch->begin;
    fetch->memory = qr_malloc_aligned(QR_SEGMENT_UNIT, fetch->size);
    return fetch->memory != NULL
               ? 0
               : qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a read of %llu bytes", (unsigned long long)fetch->size);
}

static int corrupt(struct qr_store *store, const struct fetch *fetch, const char *what)
{
    return qr_segment_corrupt(store, qr_address_number(fetch->want.address), qr_address_offset(fetch->want.address),
                              what);
}

static int begin(struct qr_store *store, struct fetch *fetch)
{
    uint64_t address = fetch->want.address;
    if (!qr_address_is_possible(address))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu has the impossible address %llx",
                       (unsigned long long)fetch->want.pid, (unsigned long long)address);
    int result = qr_segment_pin(store, qr_address_number(address), &fetch->segment);
    if (result != 0)
        return result;
    if (qr_address_offset(address) > fetch->segment->size - QR_IMAGE_HEADER_BYTES)
        return corrupt(store, fetch, "the address is behind the segment's end");
    return make_window(fetch, qr_address_hint_bytes(address));
}

static void end(struct qr_store *store, struct fetch *fetch)
{
    qr_free_aligned(fetch->memory);
    fetch->memory = NULL;
    if (fetch->segment != NULL)
        qr_segment_unpin(store, fetch->segment);
    fetch->segment = NULL;
}

static int read_window(struct fetch *fetch)
{
    int64_t count = qr_file_read(fetch->segment->file, fetch->memory, fetch->size, fetch->begin);
    if (count < 0)
        return qr_segment_failure((int)count, fetch->segment->number, "read");
    fetch->done = (uint64_t)count;
    return 0;
}

/* Bytes of the image that were read. */
static uint64_t available(const struct fetch *fetch)
{
    uint64_t before = qr_address_offset(fetch->want.address) - fetch->begin;
    return fetch->done > before ? fetch->done - before : 0;
}

static const uint8_t *image_of(const struct fetch *fetch)
{
    return fetch->memory + (qr_address_offset(fetch->want.address) - fetch->begin);
}

static const char *check_kind(const struct qr_fetch_want *want, const struct qr_image_header *header)
{
    if (want->kind != 0 ? header->kind != want->kind : header->kind == 0 || header->kind >= QR_STORE_BLOCK)
        return "the image is of another kind";
    if ((want->kind == QR_STORE_BLOCK || want->kind == QR_STORE_NODE) &&
        (header->level != want->level || header->size != QR_BLOCK_BYTES))
        return "the image is of another level";
    return NULL;
}

static int unpack(struct qr_store *store, const struct fetch *fetch, const struct qr_image_header *header, void *to)
{
    const char *from = (const char *)image_of(fetch) + QR_IMAGE_HEADER_BYTES;
    if (header->codec == QR_CODEC_NONE) {
        memcpy(to, from, header->size);
        return 0;
    }
    int size = LZ4_decompress_safe(from, to, (int)header->stored_size, (int)header->size);
    return size == (int)header->size ? 0 : corrupt(store, fetch, "the image does not unpack");
}

/* The largest size that so many bytes can unpack to, so that a wrong one asks for no memory. */
static bool is_plausible(const struct qr_image_header *header)
{
    return header->codec != QR_CODEC_LZ4 ||
           (header->size <= LZ4_MAX_INPUT_SIZE && header->size / 256 <= header->stored_size);
}

/* What was read: is it the image? Reads all of it if that was not all. */
static int finish(struct qr_store *store, struct fetch *fetch, qr_store_alloc *alloc, void *context, void **ret_bytes,
                  uint32_t *ret_size)
{
    struct qr_image_header header;
    if (available(fetch) < QR_IMAGE_HEADER_BYTES)
        return corrupt(store, fetch, "the file is cut");
    const char *what = qr_image_header_decode(image_of(fetch), fetch->want.address, fetch->want.pid, &header);
    if (what == NULL)
        what = check_kind(&fetch->want, &header);
    uint64_t stored = (uint64_t)header.stored_size + QR_IMAGE_HEADER_BYTES;
    if (what == NULL && stored > fetch->segment->size - qr_address_offset(fetch->want.address))
        what = "the image is larger than the segment";
    if (what != NULL)
        return corrupt(store, fetch, what);
    if (stored > available(fetch)) {
        int result = make_window(fetch, stored);
        if (result == 0)
            result = read_window(fetch);
        if (result != 0)
            return result;
        if (stored > available(fetch))
            return corrupt(store, fetch, "the file is cut");
        if (qr_image_header_decode(image_of(fetch), fetch->want.address, fetch->want.pid, &header) != NULL ||
            (uint64_t)header.stored_size + QR_IMAGE_HEADER_BYTES != stored || check_kind(&fetch->want, &header) != NULL)
            return corrupt(store, fetch, "the image reads differently twice");
    }
    if (!qr_image_sum_is_right(image_of(fetch), header.stored_size, fetch->segment->salt))
        return corrupt(store, fetch, "the checksum is wrong");
    if (header.codec != QR_CODEC_NONE && header.codec != QR_CODEC_LZ4)
        return qr_fail(QUIRE_ERR_NEWER, 0, "page-%08x: codec %u is not known", fetch->segment->number, header.codec);
    if (!is_plausible(&header))
        return corrupt(store, fetch, "the image has an impossible size");
    void *bytes = alloc(context, header.size);
    if (bytes == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for an image of %u bytes", header.size);
    int result = unpack(store, fetch, &header, bytes);
    /* The memory is the caller's, whatever comes of it. */
    *ret_bytes = bytes;
    *ret_size = header.size;
    return result;
}

static void count_reads(struct qr_store *store, uint64_t reads, uint64_t bytes)
{
    qr_lock(store);
    store->stats.reads += reads;
    store->stats.read_bytes += bytes;
    qr_unlock(store);
}

int qr_fetch(struct qr_store *store, const struct qr_fetch_want *want, qr_store_alloc *alloc, void *context,
             void **ret_bytes, uint32_t *ret_size)
{
    struct fetch fetch = {.want = *want};
    int result = begin(store, &fetch);
    if (result == 0)
        result = read_window(&fetch);
    if (result == 0)
        result = finish(store, &fetch, alloc, context, ret_bytes, ret_size);
    count_reads(store, 1, fetch.size);
    end(store, &fetch);
    return result;
}

/* The segment is not there: because the page has gone elsewhere, or because something is missing? */
static int explain_gone(struct qr_store *store, uint64_t address, uint64_t pid)
{
    struct qr_store_entry entry;
    int result = qr_store_lookup(store, pid, &entry);
    if (result < 0)
        return result;
    if (result == 0 && entry.address == address)
        return qr_segment_corrupt(store, qr_address_number(address), qr_address_offset(address),
                                  "the segment that the mapping names is missing");
    return QR_STORE_GONE;
}

int qr_store_read(struct qr_store *store, uint64_t address, uint64_t pid, qr_store_alloc *alloc, void *context,
                  void **ret_bytes, uint32_t *ret_size)
{
    struct qr_fetch_want want = {.address = address, .pid = pid};
    int result = qr_fetch(store, &want, alloc, context, ret_bytes, ret_size);
    return result == QR_STORE_GONE ? explain_gone(store, address, pid) : result;
}

/* ---- Several ---------------------------------------------------------------------------------------------------- */

static void read_group(struct qr_store *store, struct qr_store_read *reads, uint32_t count, qr_store_alloc *alloc,
                       void *context)
{
    struct fetch fetches[READS_AT_ONCE];
    struct qr_io ios[READS_AT_ONCE];
    uint32_t of[READS_AT_ONCE]; /* the read of each transfer */
    uint32_t io_count = 0;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        fetches[i] = (struct fetch){.want = {.address = reads[i].address, .pid = reads[i].pid}};
        reads[i].bytes = NULL;
        reads[i].size = 0;
        reads[i].result = begin(store, &fetches[i]);
        if (reads[i].result != 0)
            continue;
        of[io_count] = i;
        ios[io_count++] = (struct qr_io){QR_IO_READ,        fetches[i].segment->file,  fetches[i].begin,
                                         fetches[i].memory, (uint32_t)fetches[i].size, 0};
    }
    if (io_count != 0)
        (void)qr_disk_transfer(store->dir->disk, ios, io_count); /* each has its result */
    for (uint32_t k = 0; k < io_count; k++) {
        struct qr_store_read *read = &reads[of[k]];
        struct fetch *fetch = &fetches[of[k]];
        bytes += fetch->size;
        if (ios[k].result < 0) /* whatever it was: once more, alone, where the end of a file is no failure */
            read->result = read_window(fetch);
        else
            fetch->done = (uint64_t)ios[k].result;
        if (read->result == 0)
            read->result = finish(store, fetch, alloc, context, &read->bytes, &read->size);
    }
    count_reads(store, io_count, bytes);
    for (uint32_t i = 0; i < count; i++) {
        end(store, &fetches[i]);
        if (reads[i].result == QR_STORE_GONE)
            reads[i].result = explain_gone(store, reads[i].address, reads[i].pid);
    }
}

int qr_store_read_many(struct qr_store *store, struct qr_store_read *reads, uint32_t count, qr_store_alloc *alloc,
                       void *context)
{
    int result = 0;
    for (uint32_t first = 0; first < count; first += READS_AT_ONCE)
        read_group(store, reads + first, count - first < READS_AT_ONCE ? count - first : READS_AT_ONCE, alloc, context);
    for (uint32_t i = 0; i < count && result == 0; i++)
        result = reads[i].result < 0 ? reads[i].result : 0;
    return result;
}
