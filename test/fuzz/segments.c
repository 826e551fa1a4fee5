/*
 * segments.c: page stores of bytes, and bytes of page stores.
 */
#include "fuzz/segments.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "store/blob_internal.h"
#include "store/format.h"

#define FILE_MOST (64u << 10)
#define FIRST_BYTES (32u << 10)

static const uint8_t store_id[16] = "fuzz the pages.";

static size_t first_size(const uint8_t *data, size_t size)
{
    return size <= SEGMENTS_PRELUDE ? 0 : qr_min(qr_load_u16(data + 37) * (size_t)64, size - SEGMENTS_PRELUDE);
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

static void make_segment(struct qr_dir *dir, uint32_t number, struct fuzz_input input)
{
    static uint8_t file[FILE_MOST];
    char name[QR_SEGMENT_NAME_BYTES];
    if (input.left < QR_SEGMENT_HEADER_USED)
        return;
    memset(file, 0, sizeof(file));
    fuzz_take(&input, file, QR_SEGMENT_HEADER_USED);
    uint64_t size = qr_min(qr_load_u64(file + 40), FILE_MOST);
    size = qr_max(size, QR_SEGMENT_HEADER_BYTES);
    fuzz_take(&input, file + QR_SEGMENT_HEADER_BYTES, size - QR_SEGMENT_HEADER_BYTES);
    qr_segment_name(number, name);
    fuzz_make_file(dir, name, file, size, size);
}

void segments_make(struct segments *ret_segments, struct fuzz_input input)
{
    struct segments segments = {.disk = simdisk_create()};
    size_t first = first_size(input.at, input.left);
    struct qr_manifest_checkpoint *c = &segments.checkpoint;
    segments.dir = fuzz_open_dir(segments.disk, "db");
    c->mapping_index.address = fuzz_take_number(&input, 8);
    c->mapping_index.size_bytes = (uint32_t)fuzz_take_number(&input, 4);
    c->free_ids.address = fuzz_take_number(&input, 8);
    c->free_ids.size_bytes = (uint32_t)fuzz_take_number(&input, 4);
    c->next_page_id = fuzz_take_number(&input, 8);
    c->next_segment = fuzz_take_number(&input, 4);
    segments.flags = (unsigned)fuzz_take_number(&input, 1);
    (void)fuzz_take_number(&input, 2);
    uint8_t rest[SEGMENTS_PRELUDE - 39];
    fuzz_take(&input, rest, sizeof(rest));
    make_segment(segments.dir, 1, (struct fuzz_input){input.at, first});
    make_segment(segments.dir, 2, (struct fuzz_input){input.at + first, input.left - first});
    *ret_segments = segments;
}

int segments_open(struct segments *segments, struct qr_store **ret_store)
{
    struct qr_store_options options = {.first_segment_bytes = FIRST_BYTES, .most_segment_bytes = FIRST_BYTES,
                                       .random = fuzz_random};
    memcpy(options.store_id, store_id, sizeof(store_id));
    return qr_store_open(segments->dir, &options, &segments->checkpoint, (segments->flags & SEGMENTS_READ_ONLY) != 0,
                         ret_store);
}

int segments_commit(struct segments *segments, struct qr_store *store)
{
    struct qr_store_capture *capture;
    struct qr_manifest_checkpoint record = segments->checkpoint;
    record.range_tombstones = (struct qr_manifest_place){0};
    FUZZ_CHECK(qr_store_capture(store, &capture) == 0);
    int result = qr_blob_capture(capture, false);
    if (result == 0)
        result = qr_store_commit(store, capture, NULL, 0, &record);
    if (result != 0) {
        qr_store_abandoned(store, capture);
        return result;
    }
    qr_store_committed(store, capture);
    segments->checkpoint = record;
    return 0;
}

void *segments_give(void *context, size_t size)
{
    (void)context;
    return qr_malloc(size);
}

/* ---- Repair ----------------------------------------------------------------------------------------------------- */

/* An image, a batch or the head of a blob at `at`, which is at `offset` of the segment, with `left` bytes behind it. */
static void repair_part(uint8_t *at, size_t left, uint32_t number, uint32_t offset, uint32_t salt)
{
    uint64_t summed = 0;
    if (memcmp(at, "QIMG", 4) == 0) {
        qr_store_u32(at + 12, number);
        qr_store_u32(at + 8, offset | (qr_load_u32(at + 8) & (QR_IMAGE_UNIT - 1)));
        summed = QR_IMAGE_HEADER_BYTES + (uint64_t)qr_load_u32(at + 48);
    } else if (memcmp(at, "QBAT", 4) == 0) {
        qr_store_u32(at + 16, offset);
        summed = qr_batch_summary_bytes(qr_load_u32(at + 24));
        qr_store_u32(at + 28, (uint32_t)summed);
    } else if (memcmp(at, "QBLB", 4) == 0) {
        qr_store_u64(at + 8, (uint64_t)number << 32 | offset);
        summed = qr_load_u32(at + 36);
    }
    if (summed >= 8 && summed <= left)
        qr_store_u32(at + 4, qr_crc32c(salt, at + 8, summed - 8));
}

static void repair_segment(uint8_t *data, size_t size, uint32_t number)
{
    if (size < QR_SEGMENT_HEADER_USED)
        return;
    struct qr_segment_header header = {.number = number, .stream = qr_load_u32(data + 36) % QR_STREAMS,
                                       .size_bytes = qr_load_u64(data + 40), .salt = qr_load_u32(data + 48)};
    memcpy(header.store_id, store_id, sizeof(store_id));
    qr_segment_header_encode(&header, data);
    for (size_t at = QR_SEGMENT_HEADER_USED; at + QR_IMAGE_HEADER_BYTES <= size; at += QR_IMAGE_UNIT)
        repair_part(data + at, size - at, number, (uint32_t)(at - QR_SEGMENT_HEADER_USED + QR_SEGMENT_HEADER_BYTES), header.salt);
}

void segments_repair(uint8_t *data, size_t size)
{
    if (size <= SEGMENTS_PRELUDE)
        return;
    size_t first = first_size(data, size);
    repair_segment(data + SEGMENTS_PRELUDE, first, 1);
    repair_segment(data + SEGMENTS_PRELUDE + first, size - SEGMENTS_PRELUDE - first, 2);
}

/* ---- Seeds ------------------------------------------------------------------------------------------------------ */

/* Returns the size that it took, in pieces of 64 bytes, without the zeros at its end. */
static size_t take_segment(const struct segments *segments, uint32_t number, uint8_t *to, size_t most)
{
    char name[QR_SEGMENT_NAME_BYTES];
    uint64_t size;
    qr_segment_name(number, name);
    const uint8_t *content = simdisk_content(segments->disk, "db", name, &size);
    if (content == NULL)
        return 0;
    while (size > QR_SEGMENT_HEADER_BYTES && content[size - 1] == 0)
        size--;
    size = qr_round_up(size, 64);
    size_t taken = size - QR_SEGMENT_HEADER_BYTES + QR_SEGMENT_HEADER_USED;
    FUZZ_CHECK(taken <= most);
    memcpy(to, content, QR_SEGMENT_HEADER_USED);
    memcpy(to + QR_SEGMENT_HEADER_USED, content + QR_SEGMENT_HEADER_BYTES, size - QR_SEGMENT_HEADER_BYTES);
    return taken;
}

void segments_take(const struct segments *segments, uint8_t *data, size_t *size, size_t most)
{
    const struct qr_manifest_checkpoint *c = &segments->checkpoint;
    uint8_t *to = data + *size;
    memset(to, 0, SEGMENTS_PRELUDE);
    qr_store_u64(to, c->mapping_index.address);
    qr_store_u32(to + 8, c->mapping_index.size_bytes);
    qr_store_u64(to + 12, c->free_ids.address);
    qr_store_u32(to + 20, c->free_ids.size_bytes);
    qr_store_u64(to + 24, c->next_page_id);
    qr_store_u32(to + 32, (uint32_t)c->next_segment);
    to[36] = (uint8_t)segments->flags;
    *size += SEGMENTS_PRELUDE;
    size_t first = take_segment(segments, 1, data + *size, most - *size);
    qr_store_u16(to + 37, (uint16_t)(first / 64));
    *size += first;
    *size += take_segment(segments, 2, data + *size, most - *size);
}
