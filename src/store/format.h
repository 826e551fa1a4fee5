/*
 * format.h: the bytes of page segments: addresses, headers, batches, images, the mapping's blocks and its root.
 *
 * Layer 4. Pure: bytes in, bytes out. doc/file-format.md has these tables for readers. All numbers are little endian.
 *
 * A segment is a file `page-%08x` of one size, a multiple of 4096. It begins with a header of 4096 bytes, then come
 * batches, each a multiple of 4096, then bytes that nobody has written in this life of the file.
 *
 *   header            batch                                image
 *   offset size       offset size                          offset size
 *     0  8  QUIREPAG    0  4  magic QBAT                      0  4  magic QIMG
 *     8  4  format, 1   4  4  CRC32C of 8 to the summary's    4  4  CRC32C of 8 to the end, begun with the salt
 *    12  4  4096              end, begun with the salt        8  8  its own address
 *    16 16  store id    8  8  sequence                       16  8  page id
 *    32  4  number     16  4  offset in the segment          24  8  least LSN
 *    36  4  stream     20  4  size of the batch              32  8  max LSN
 *    40  8  file size  24  4  images                         40  4  tree id
 *    48  4  salt       28  4  size of the summary            44  4  size of the bytes
 *    52  8  zero       32  8  least LSN                      48  4  size as stored
 *    60  4  CRC32C of  40  8  max LSN                        52  1  kind
 *           0 to 59    48 16  zero                           53  1  level
 *    64     zero       64     for each image 40 bytes:       54  1  codec
 *                             page id 8, least LSN 8,        55  9  zero
 *                             max LSN 8, offset in the       64     the bytes, as stored
 *                             segment 4, size with header
 *                             4, tree id 4, kind 1, level
 *                             1, codec 1, zero 1
 *                             then the images, each at a
 *                             multiple of 64, zeros between
 *
 * FORMAT-1  An image is right only at its address in this life of its segment: the sum is begun with the salt, and
 *           covers the address.
 * FORMAT-2  Batches follow one another. A batch whose sequence is not above that of the one before is a leftover of an
 *           earlier writer: the segment ends before it.
 */
#ifndef QR_STORE_FORMAT_H
#define QR_STORE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "store/blob.h"
#include "store/store.h"

#define QR_SEGMENT_FORMAT 1u
#define QR_SEGMENT_HEADER_BYTES 4096u
#define QR_SEGMENT_HEADER_USED 64u
#define QR_SEGMENT_UNIT 4096u
#define QR_SEGMENT_LEAST UINT64_C(8192)
#define QR_SEGMENT_MOST (UINT64_C(1) << 32)
#define QR_SEGMENT_NUMBER_BITS 29u
#define QR_SEGMENT_NUMBER_END (UINT32_C(1) << QR_SEGMENT_NUMBER_BITS)
#define QR_SEGMENT_NAME_BYTES 16u

#define QR_BATCH_MAGIC UINT32_C(0x54414251) /* QBAT */
#define QR_IMAGE_MAGIC UINT32_C(0x474d4951) /* QIMG */
#define QR_BATCH_HEADER_BYTES 64u
#define QR_BATCH_ENTRY_BYTES 40u
#define QR_IMAGE_HEADER_BYTES 64u
#define QR_IMAGE_UNIT 64u
/* Of an image's bytes: a segment of the largest size holds it, with the summary of its batch. */
#define QR_IMAGE_MOST (UINT32_MAX - 65536u)

/* ---- Addresses -------------------------------------------------------------------------------------------------- */

/*
 * number of the segment (29 bits) | offset / 64 (26) | size in units of 512, rounded up (6): how much to read. 0 units:
 * more than 63, the image's header says how much.
 */
#define QR_ADDRESS_HINT_BITS 6u
#define QR_ADDRESS_HINT_UNIT 512u
#define QR_ADDRESS_HINT_NONE_BYTES 65536u /* what is read first of an image whose size the address does not say */

static inline uint64_t qr_address_make(uint32_t number, uint32_t offset, uint32_t stored_bytes)
{
    QR_ASSERT(offset % QR_IMAGE_UNIT == 0);
    uint64_t units = ((uint64_t)stored_bytes + QR_ADDRESS_HINT_UNIT - 1) / QR_ADDRESS_HINT_UNIT;
    return (uint64_t)number << 32 | offset | (units >> QR_ADDRESS_HINT_BITS != 0 ? 0 : units);
}

static inline uint32_t qr_address_number(uint64_t address)
{
    return (uint32_t)(address >> 32);
}

static inline uint32_t qr_address_offset(uint64_t address)
{
    return (uint32_t)address & ~(QR_IMAGE_UNIT - 1);
}

static inline uint32_t qr_address_hint_bytes(uint64_t address)
{
    uint32_t units = (uint32_t)address & ((1u << QR_ADDRESS_HINT_BITS) - 1);
    return units != 0 ? units * QR_ADDRESS_HINT_UNIT : QR_ADDRESS_HINT_NONE_BYTES;
}

/* Could an image be there? */
static inline bool qr_address_is_possible(uint64_t address)
{
    return address >> QR_STORE_ADDRESS_BITS == 0 && qr_address_number(address) != 0 &&
           qr_address_offset(address) >= QR_SEGMENT_HEADER_BYTES;
}

/* ---- Segments --------------------------------------------------------------------------------------------------- */

enum qr_stream { QR_STREAM_HOT, QR_STREAM_COLD, QR_STREAM_BLOB, QR_STREAMS };

struct qr_segment_header {
    uint8_t store_id[16];
    uint32_t number, stream, salt;
    uint64_t size_bytes;
};

void qr_segment_name(uint32_t number, char *ret_name);
/* False: the name is that of another file. */
bool qr_segment_number_of(const char *name, uint32_t *ret_number);

/* Of the file. */
bool qr_segment_size_is_possible(uint32_t stream, uint64_t size);

/* to: QR_SEGMENT_HEADER_USED bytes; the rest of the header is zero. */
void qr_segment_header_encode(const struct qr_segment_header *header, uint8_t *to);
/* False: not a header. */
bool qr_segment_header_decode(const uint8_t *from, struct qr_segment_header *ret_header);
/* A header of a later format; magic, format and sum stay where they are. 0: it is none. */
uint32_t qr_segment_header_newer(const uint8_t *from);

/* ---- Images and batches ----------------------------------------------------------------------------------------- */

struct qr_image_header {
    uint64_t address, pid, min_lsn, max_lsn;
    uint32_t tree_id, size, stored_size; /* stored_size: without the header */
    uint8_t kind, level, codec;
};

/* The stored bytes are behind the header at `to`; sums them too. */
void qr_image_header_encode(const struct qr_image_header *header, uint32_t salt, uint8_t *to);
/* NULL, or what is wrong; not the checksum yet, and not whether the bytes are there. */
const char *qr_image_header_decode(const uint8_t *from, uint64_t address, uint64_t pid,
                                   struct qr_image_header *ret_header);
/* from: header and stored bytes. */
bool qr_image_sum_is_right(const uint8_t *from, uint32_t stored_size, uint32_t salt);

struct qr_batch {
    uint64_t sequence, min_lsn, max_lsn;
    uint32_t offset, size, count;
};

static inline uint64_t qr_batch_summary_bytes(uint32_t count)
{
    return ((uint64_t)QR_BATCH_HEADER_BYTES + (uint64_t)QR_BATCH_ENTRY_BYTES * count + QR_IMAGE_UNIT - 1) &
           ~(uint64_t)(QR_IMAGE_UNIT - 1);
}

void qr_batch_entry_encode(const struct qr_image_header *image, uint8_t *to);
void qr_batch_entry_decode(const uint8_t *from, uint32_t number, struct qr_image_header *ret_image);
/* The entries are behind the header; sums them too. */
void qr_batch_encode(const struct qr_batch *batch, uint32_t salt, uint8_t *to);
/* from: `available` bytes at an offset of a segment. False: no batch is there. */
bool qr_batch_decode(const uint8_t *from, uint64_t available, uint32_t offset, uint32_t salt,
                     struct qr_batch *ret_batch);

/* ---- Mapping ---------------------------------------------------------------------------------------------------- */

/* An entry of a block, in memory and in the file. address 0: no page. */
struct qr_entry {
    uint64_t address, max_lsn;
    uint32_t stored_bytes, parts;
    uint64_t part_address[QR_STORE_PARTS];
    uint32_t part_stored_bytes[QR_STORE_PARTS];
};
QR_STATIC_ASSERT(sizeof(struct qr_entry) == 48, "the layout is that of the file");

/* With its header an image of a block, and one of a node, has 4096 bytes. */
#define QR_BLOCK_ENTRIES 84u
#define QR_NODE_CHILDREN 504u
#define QR_BLOCK_BYTES 4032u
#define QR_HEIGHT_MOST 4u
QR_STATIC_ASSERT(QR_BLOCK_ENTRIES * sizeof(struct qr_entry) == QR_BLOCK_BYTES, "a block is full");
QR_STATIC_ASSERT(QR_NODE_CHILDREN * sizeof(uint64_t) == QR_BLOCK_BYTES, "a node is full");

bool qr_entry_is_possible(const struct qr_entry *entry);

/*
 * Root, as the bytes of an image of kind ROOT, page id 0:
 *
 *   offset size
 *     0  4  height: 0, the top is a block; else the level of the top node
 *     4  4  number of segments
 *     8  8  address of the top; 0: no page
 *    16  8  pages
 *    24  8  bytes of their images and parts
 *    32  8  sequence of the next batch
 *    40  4  number of segments with dead blobs
 *    44 20  zero
 *    64     for each segment that is not the reserve's, by number, 40 bytes: number 4, stream 4, file size 8, end of
 * its last batch or blob 8, bytes that the mapping names (images, parts, blocks, nodes), of blobs those that are not dead 8, salt
 * 4, zero 4
 *           then for each segment with dead blobs, by number, 24 bytes: number 4, and the list of them (blob.h): size with header
 *           4, address 8; an LSN 8: none died later
 */
#define QR_ROOT_BYTES 64u
#define QR_ROOT_SEGMENT_BYTES 40u
#define QR_ROOT_DEAD_BYTES 24u

struct qr_root {
    uint32_t height, segment_count, dead_count;
    uint64_t top, pages, live_bytes, sequence;
};
struct qr_root_segment {
    uint32_t number, stream, salt;
    uint64_t size_bytes, used_bytes, live_bytes;
};

struct qr_root_dead {
    uint32_t number, stored_bytes;
    uint64_t address, lsn;
};

void qr_root_encode(const struct qr_root *root, uint8_t *to);
void qr_root_segment_encode(const struct qr_root_segment *segment, uint8_t *to);
void qr_root_dead_encode(const struct qr_root_dead *dead, uint8_t *to);
/* NULL, or what is wrong. next_number: segments have numbers below it. */
const char *qr_root_decode(const uint8_t *from, uint64_t size, uint64_t next_number, struct qr_root *ret_root);
/* i below segment_count of a root that was decoded. */
struct qr_root_segment qr_root_segment_decode(const uint8_t *from, uint32_t i);
/* i below dead_count. */
struct qr_root_dead qr_root_dead_decode(const uint8_t *from, const struct qr_root *root, uint32_t i);

#endif
