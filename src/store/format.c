/*
 * format.c: encoding and decoding what format.h describes.
 *
 * Layer 4. Pure. What is decoded is a file's, so that nothing about it is taken for granted: each number is compared
 * with its bounds before it is used.
 */
#include "store/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

#define SEGMENT_MAGIC "QUIREPAG"

/* ---- Segments --------------------------------------------------------------------------------------------------- */

void qr_segment_name(uint32_t number, char *ret_name)
{
    snprintf(ret_name, QR_SEGMENT_NAME_BYTES, "page-%08x", number);
}

bool qr_segment_number_of(const char *name, uint32_t *ret_number)
{
    char again[QR_SEGMENT_NAME_BYTES];
    if (strncmp(name, "page-", 5) != 0 || strlen(name) != 13)
        return false;
    unsigned long number = strtoul(name + 5, NULL, 16);
    if (number == 0 || number >= QR_SEGMENT_NUMBER_END)
        return false;
    qr_segment_name((uint32_t)number, again);
    *ret_number = (uint32_t)number;
    return strcmp(name, again) == 0;
}

void qr_segment_header_encode(const struct qr_segment_header *header, uint8_t *to)
{
    memset(to, 0, QR_SEGMENT_HEADER_USED);
    memcpy(to, SEGMENT_MAGIC, 8);
    qr_store_u32(to + 8, QR_SEGMENT_FORMAT);
    qr_store_u32(to + 12, QR_SEGMENT_HEADER_BYTES);
    memcpy(to + 16, header->store_id, 16);
    qr_store_u32(to + 32, header->number);
    qr_store_u32(to + 36, header->stream);
    qr_store_u64(to + 40, header->size_bytes);
    qr_store_u32(to + 48, header->salt);
    qr_store_u32(to + 60, qr_crc32c(0, to, 60));
}

static bool is_segment_header(const uint8_t *from)
{
    return memcmp(from, SEGMENT_MAGIC, 8) == 0 && qr_load_u32(from + 60) == qr_crc32c(0, from, 60);
}

uint32_t qr_segment_header_newer(const uint8_t *from)
{
    uint32_t format = qr_load_u32(from + 8);
    return is_segment_header(from) && format > QR_SEGMENT_FORMAT ? format : 0;
}

bool qr_segment_header_decode(const uint8_t *from, struct qr_segment_header *ret_header)
{
    if (!is_segment_header(from) || qr_load_u32(from + 8) != QR_SEGMENT_FORMAT || qr_load_u32(from + 12) != QR_SEGMENT_HEADER_BYTES)
        return false;
    *ret_header = (struct qr_segment_header){.number = qr_load_u32(from + 32),
                                             .stream = qr_load_u32(from + 36),
                                             .size_bytes = qr_load_u64(from + 40),
                                             .salt = qr_load_u32(from + 48)};
    memcpy(ret_header->store_id, from + 16, 16);
    return true;
}

/* ---- Images ----------------------------------------------------------------------------------------------------- */

void qr_image_header_encode(const struct qr_image_header *header, uint32_t salt, uint8_t *to)
{
    memset(to, 0, QR_IMAGE_HEADER_BYTES);
    qr_store_u32(to, QR_IMAGE_MAGIC);
    qr_store_u64(to + 8, header->address);
    qr_store_u64(to + 16, header->pid);
    qr_store_u64(to + 24, header->min_lsn);
    qr_store_u64(to + 32, header->max_lsn);
    qr_store_u32(to + 40, header->tree_id);
    qr_store_u32(to + 44, header->size);
    qr_store_u32(to + 48, header->stored_size);
    to[52] = header->kind;
    to[53] = header->level;
    to[54] = header->codec;
    qr_store_u32(to + 4, qr_crc32c(salt, to + 8, QR_IMAGE_HEADER_BYTES - 8 + (size_t)header->stored_size));
}

const char *qr_image_header_decode(const uint8_t *from, uint64_t address, uint64_t pid,
                                   struct qr_image_header *ret_header)
{
    struct qr_image_header header = {
        .address = qr_load_u64(from + 8),
        .pid = qr_load_u64(from + 16),
        .min_lsn = qr_load_u64(from + 24),
        .max_lsn = qr_load_u64(from + 32),
        .tree_id = qr_load_u32(from + 40),
        .size = qr_load_u32(from + 44),
        .stored_size = qr_load_u32(from + 48),
        .kind = from[52],
        .level = from[53],
        .codec = from[54],
    };
    if (qr_load_u32(from) != QR_IMAGE_MAGIC)
        return "no image is there";
    if (header.address != address)
        return "the image is of another address";
    if (header.pid != pid)
        return "the image is of another page";
    if (header.stored_size == 0 || header.stored_size > header.size || header.size > QR_IMAGE_MOST)
        return "the image has an impossible size";
    if (header.codec == QR_CODEC_NONE && header.stored_size != header.size)
        return "the image has two sizes";
    *ret_header = header;
    return NULL;
}

bool qr_image_sum_is_right(const uint8_t *from, uint32_t stored_size, uint32_t salt)
{
    return qr_load_u32(from + 4) == qr_crc32c(salt, from + 8, QR_IMAGE_HEADER_BYTES - 8 + (size_t)stored_size);
}

/* ---- Batches ---------------------------------------------------------------------------------------------------- */

void qr_batch_entry_encode(const struct qr_image_header *image, uint8_t *to)
{
    qr_store_u64(to, image->pid);
    qr_store_u64(to + 8, image->min_lsn);
    qr_store_u64(to + 16, image->max_lsn);
    qr_store_u32(to + 24, qr_address_offset(image->address));
    qr_store_u32(to + 28, image->stored_size + QR_IMAGE_HEADER_BYTES);
    qr_store_u32(to + 32, image->tree_id);
    to[36] = image->kind;
    to[37] = image->level;
    to[38] = image->codec;
    to[39] = 0;
}

void qr_batch_entry_decode(const uint8_t *from, uint32_t number, struct qr_image_header *ret_image)
{
    uint32_t offset = qr_load_u32(from + 24) & ~(QR_IMAGE_UNIT - 1), stored = qr_load_u32(from + 28);
    *ret_image = (struct qr_image_header){
        .address = qr_address_make(number, offset, stored),
        .pid = qr_load_u64(from),
        .min_lsn = qr_load_u64(from + 8),
        .max_lsn = qr_load_u64(from + 16),
        .stored_size = stored < QR_IMAGE_HEADER_BYTES ? 0 : stored - QR_IMAGE_HEADER_BYTES,
        .tree_id = qr_load_u32(from + 32),
        .kind = from[36],
        .level = from[37],
        .codec = from[38],
    };
}

void qr_batch_encode(const struct qr_batch *batch, uint32_t salt, uint8_t *to)
{
    uint32_t summary = (uint32_t)qr_batch_summary_bytes(batch->count);
    qr_store_u32(to, QR_BATCH_MAGIC);
    qr_store_u64(to + 8, batch->sequence);
    qr_store_u32(to + 16, batch->offset);
    qr_store_u32(to + 20, batch->size);
    qr_store_u32(to + 24, batch->count);
    qr_store_u32(to + 28, summary);
    qr_store_u64(to + 32, batch->min_lsn);
    qr_store_u64(to + 40, batch->max_lsn);
    memset(to + 48, 0, 16);
    qr_store_u32(to + 4, qr_crc32c(salt, to + 8, summary - 8));
}

bool qr_batch_decode(const uint8_t *from, uint64_t available, uint32_t offset, uint32_t salt,
                     struct qr_batch *ret_batch)
{
    if (available < QR_BATCH_HEADER_BYTES || qr_load_u32(from) != QR_BATCH_MAGIC || qr_load_u32(from + 16) != offset)
        return false;
    struct qr_batch batch = {
        .sequence = qr_load_u64(from + 8),
        .min_lsn = qr_load_u64(from + 32),
        .max_lsn = qr_load_u64(from + 40),
        .offset = offset,
        .size = qr_load_u32(from + 20),
        .count = qr_load_u32(from + 24),
    };
    uint64_t summary = qr_batch_summary_bytes(batch.count);
    if (summary != qr_load_u32(from + 28) || summary > batch.size || batch.size > available ||
        batch.size % QR_SEGMENT_UNIT != 0)
        return false;
    if (qr_load_u32(from + 4) != qr_crc32c(salt, from + 8, (size_t)summary - 8))
        return false;
    *ret_batch = batch;
    return true;
}

/* ---- Mapping ---------------------------------------------------------------------------------------------------- */

bool qr_entry_is_possible(const struct qr_entry *entry)
{
    if (entry->address == 0)
        return true;
    if (!qr_address_is_possible(entry->address) || entry->stored_bytes <= QR_IMAGE_HEADER_BYTES ||
        entry->parts > QR_STORE_PARTS)
        return false;
    for (uint32_t i = 0; i < entry->parts; i++) {
        if (!qr_address_is_possible(entry->part_address[i]) || entry->part_stored_bytes[i] <= QR_IMAGE_HEADER_BYTES)
            return false;
    }
    return true;
}

void qr_root_encode(const struct qr_root *root, uint8_t *to)
{
    memset(to, 0, QR_ROOT_BYTES);
    qr_store_u32(to, root->height);
    qr_store_u32(to + 4, root->segment_count);
    qr_store_u64(to + 8, root->top);
    qr_store_u64(to + 16, root->pages);
    qr_store_u64(to + 24, root->live_bytes);
    qr_store_u64(to + 32, root->sequence);
    qr_store_u32(to + 40, root->dead_count);
}

void qr_root_dead_encode(const struct qr_root_dead *dead, uint8_t *to)
{
    qr_store_u32(to, dead->number);
    qr_store_u32(to + 4, dead->stored_bytes);
    qr_store_u64(to + 8, dead->address);
    qr_store_u64(to + 16, dead->lsn);
}

struct qr_root_dead qr_root_dead_decode(const uint8_t *from, const struct qr_root *root, uint32_t i)
{
    from += QR_ROOT_BYTES + (size_t)root->segment_count * QR_ROOT_SEGMENT_BYTES + (size_t)i * QR_ROOT_DEAD_BYTES;
    return (struct qr_root_dead){.number = qr_load_u32(from),
                                 .stored_bytes = qr_load_u32(from + 4),
                                 .address = qr_load_u64(from + 8),
                                 .lsn = qr_load_u64(from + 16)};
}

void qr_root_segment_encode(const struct qr_root_segment *segment, uint8_t *to)
{
    qr_store_u32(to, segment->number);
    qr_store_u32(to + 4, segment->stream);
    qr_store_u64(to + 8, segment->size_bytes);
    qr_store_u64(to + 16, segment->used_bytes);
    qr_store_u64(to + 24, segment->live_bytes);
    qr_store_u32(to + 32, segment->salt);
    qr_store_u32(to + 36, 0);
}

struct qr_root_segment qr_root_segment_decode(const uint8_t *from, uint32_t i)
{
    from += QR_ROOT_BYTES + (size_t)i * QR_ROOT_SEGMENT_BYTES;
    return (struct qr_root_segment){.number = qr_load_u32(from),
                                    .stream = qr_load_u32(from + 4),
                                    .size_bytes = qr_load_u64(from + 8),
                                    .used_bytes = qr_load_u64(from + 16),
                                    .live_bytes = qr_load_u64(from + 24),
                                    .salt = qr_load_u32(from + 32)};
}

bool qr_segment_size_is_possible(uint32_t stream, uint64_t size)
{
    uint64_t most = stream == QR_STREAM_BLOB ? QR_BLOB_SEGMENT_MOST : QR_SEGMENT_MOST;
    return size >= QR_SEGMENT_LEAST && size <= most && size % QR_SEGMENT_UNIT == 0;
}

static bool segment_is_possible(const struct qr_root_segment *s)
{
    bool blobs = s->stream == QR_STREAM_BLOB;
    return s->stream < QR_STREAMS && qr_segment_size_is_possible(s->stream, s->size_bytes) &&
           s->used_bytes >= QR_SEGMENT_HEADER_BYTES && s->used_bytes <= s->size_bytes &&
           s->used_bytes % (blobs ? QR_BLOB_UNIT : QR_SEGMENT_UNIT) == 0 && s->live_bytes <= s->used_bytes;
}

const char *qr_root_decode(const uint8_t *from, uint64_t size, uint64_t next_number, struct qr_root *ret_root)
{
    if (size < QR_ROOT_BYTES)
        return "the root is cut";
    struct qr_root root = {
        .height = qr_load_u32(from),
        .segment_count = qr_load_u32(from + 4),
        .top = qr_load_u64(from + 8),
        .pages = qr_load_u64(from + 16),
        .live_bytes = qr_load_u64(from + 24),
        .sequence = qr_load_u64(from + 32),
        .dead_count = qr_load_u32(from + 40),
    };
    if (size != QR_ROOT_BYTES + (uint64_t)root.segment_count * QR_ROOT_SEGMENT_BYTES +
                    (uint64_t)root.dead_count * QR_ROOT_DEAD_BYTES)
        return "the root has another size";
    if (root.height > QR_HEIGHT_MOST)
        return "the mapping is too high";
    if (root.top != 0 && !qr_address_is_possible(root.top))
        return "the mapping has an impossible address";
    uint64_t previous = 0;
    for (uint32_t i = 0; i < root.segment_count; i++) {
        struct qr_root_segment segment = qr_root_segment_decode(from, i);
        if (segment.number <= previous || segment.number >= next_number || !segment_is_possible(&segment))
            return "the list of segments is impossible";
        previous = segment.number;
    }
    *ret_root = root;
    return NULL;
}
