/*
 * blob.h: what a leaf holds of a value that lies in a blob segment: a reference.
 *
 * Layer 2. Pure. A record of kind BLOB has this in place of its value, in pages, in their images, and in frames of the log:
 *
 *      offset  size  field
 *      0       8     address: number of the segment (29 bits) | offset in it (32 bits), a multiple of 64
 *      8       4     size of the value
 *      12      4     size of the head, a multiple of 64: the value begins behind it
 *      16      4     of a value up to 64 KiB its checksum, of a larger one that of the checksums of its blocks
 *      20      4     zero
 *
 * The head (store/blob.h) says what the value is of; the reference has all that reading it takes.
 */
#ifndef QR_PAGE_BLOB_H
#define QR_PAGE_BLOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define QR_BLOB_REF_BYTES 24u
#define QR_BLOB_UNIT 64u
#define QR_BLOB_BLOCK_BYTES 65536u /* of a value, with one checksum */

struct qr_blob_ref {
    uint64_t address;
    uint32_t size, head_size;
    uint32_t crc;
};

static inline uint64_t qr_blob_blocks(uint64_t size)
{
    return (size + QR_BLOB_BLOCK_BYTES - 1) / QR_BLOB_BLOCK_BYTES;
}

/* Bytes of its segment that the blob takes. */
static inline uint64_t qr_blob_extent(const struct qr_blob_ref *ref)
{
    return qr_round_up((uint64_t)ref->head_size + ref->size, QR_BLOB_UNIT);
}

static inline void qr_blob_ref_encode(const struct qr_blob_ref *ref, uint8_t *to)
{
    qr_store_u64(to, ref->address);
    qr_store_u32(to + 8, ref->size);
    qr_store_u32(to + 12, ref->head_size);
    qr_store_u32(to + 16, ref->crc);
    qr_store_u32(to + 20, 0);
}

/* False: no reference is like that. from: QR_BLOB_REF_BYTES bytes; they may be anything. */
static inline bool qr_blob_ref_decode(const uint8_t *from, struct qr_blob_ref *ret_ref)
{
    struct qr_blob_ref ref = {.address = qr_load_u64(from),
                              .size = qr_load_u32(from + 8),
                              .head_size = qr_load_u32(from + 12),
                              .crc = qr_load_u32(from + 16)};
    if (ref.address >> 61 != 0 || ref.address >> 32 == 0 || ref.address % QR_BLOB_UNIT != 0 || ref.size == 0 ||
        ref.head_size == 0 || ref.head_size % QR_BLOB_UNIT != 0 || qr_load_u32(from + 20) != 0 ||
        ref.head_size < 64 + 4 * qr_blob_blocks(ref.size))
        return false;
    *ret_ref = ref;
    return true;
}

#endif
