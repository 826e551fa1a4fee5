/*
 * manifest_format.h: the bytes of a manifest: header and records, and which of the records of a file count.
 *
 * Layer 4. Pure: bytes in, bytes out. Only manifest.c, db/destroy.c and tests include it; manifest.h says what a manifest is for.
 *
 * doc/file-format.md has these tables for readers, and a dump. All numbers are little endian. The file begins with a
 * header of 512 bytes, which is never changed:
 *
 *   offset size
 *      0     8  magic "QUIREMAN"
 *      8     4  format version, 1
 *     12     4  size of the header, 512
 *     16    16  store id: random, the same in every manifest of the store
 *     32     8  generation: 1 in the first manifest of the store, one more with each rollover
 *     40     8  sequence number of the first record
 *     48     8  size of the file
 *     56     8  base end: where the records end that the file began with
 *     64     8  compatible features: who does not know one may read and write
 *     72     8  read-compatible features: who does not know one may read
 *     80     8  incompatible features: who does not know one may do neither
 *     88   420  zero
 *    508     4  CRC32C of bytes 0 to 507
 *
 * Magic, format version and CRC32C stay where they are in all versions. Then come appends, one behind the other, then
 * zeros. An append is one or more records; a record is a multiple of 16 bytes:
 *
 *   offset size
 *      0     4  CRC32C of bytes 4 to the end of the record, begun with the CRC32C of bytes 16 to 39 of the header
 *      4     4  size of the record
 *      8     8  sequence number: one more than the record before
 *     16     2  kind (records.h)
 *     18     2  flags: 1 = optional, who does not know the kind skips it
 *     20     2  index of the record in its append
 *     22     2  number of records of the append
 *     24     4  size of the payload, 0 to 4096
 *     28     4  zero
 *     32        payload, zeros up to a multiple of 16
 *
 * FORMAT-1  An append counts if all its records are there and right, else none of them does.
 * FORMAT-2  A record is right only in the file that it was written for: the sum is begun with store id and generation.
 */
#ifndef QR_STORE_MANIFEST_FORMAT_H
#define QR_STORE_MANIFEST_FORMAT_H

#include "store/manifest.h"

#define QR_MANIFEST_MAGIC "QUIREMAN"
#define QR_MANIFEST_MAGIC_BYTES 8u
#define QR_MANIFEST_VERSION 1u
#define QR_MANIFEST_HEADER_BYTES 512u
#define QR_MANIFEST_RECORD_HEADER_BYTES 32u
#define QR_MANIFEST_UNIT 16u

/* The features that this version knows. */
#define QR_MANIFEST_KNOWN_COMPATIBLE UINT64_C(0)
#define QR_MANIFEST_KNOWN_READ_COMPATIBLE UINT64_C(0)
#define QR_MANIFEST_KNOWN_INCOMPATIBLE UINT64_C(0)

/* A size of file that a header may name: at least room for a record, and no more than anybody would read into memory.
 */
#define QR_MANIFEST_SIZE_MOST (UINT64_C(64) << 20)

void qr_manifest_header_encode(const struct qr_manifest_header *header, uint8_t *to);

/*
 * bytes: the beginning of a file, `size` of them, as far as the header if the file is that long. QUIRE_ERR_FOREIGN,
 * QUIRE_ERR_NEWER (for_writing: also if it may only be read), QUIRE_ERR_CORRUPT: an error in a header that is ours.
 */
int qr_manifest_header_decode(const uint8_t *bytes, size_t size, bool for_writing,
                              struct qr_manifest_header *ret_header);

/*
 * bytes: the beginning of a file named `manifest.new`, as far as the header; size_bytes: of the file. Is it what a
 * crash left of a manifest in the making, for this store (NULL: for whatever store)? Its header is written and synced
 * before the rest: so it is ours if there are not more than a header's bytes and all of them are zero, or if it begins
 * with our magic and is not a whole header of another store.
 */
bool qr_manifest_is_leftover(const uint8_t *bytes, uint64_t size_bytes, const uint8_t *store_id);

/* What the sums of the file's records begin with. */
uint32_t qr_manifest_seed(const struct qr_manifest_header *header);

/* The size of an append of these records. 0: a payload is too large, there are no records or too many. */
size_t qr_manifest_append_size(const struct qr_manifest_record *records, size_t count);

/* Writes an append of qr_manifest_append_size bytes, whose first record gets the sequence number. */
void qr_manifest_append_encode(const struct qr_manifest_record *records, size_t count, uint64_t sequence, uint32_t seed,
                               uint8_t *to);

/* What counts of a file. */
struct qr_manifest_extent {
    uint64_t last_begin;    /* of the last append */
    uint64_t end;           /* of the last append */
    uint64_t next_sequence; /* of a record to come */
};

/*
 * file: the first `size` bytes, all or fewer than the header says. QUIRE_ERR_CORRUPT: something was damaged that no
 * crash explains; the comment at the function argues which states are which.
 */
int qr_manifest_scan(const uint8_t *file, uint64_t size, const struct qr_manifest_header *header,
                     struct qr_manifest_extent *ret_extent);

/* The record at offset, which a scan has found to count; returns where the next one is. The payload points into file.
 */
uint64_t qr_manifest_record_at(const uint8_t *file, uint64_t offset, struct qr_manifest_record *ret_record);

#endif
