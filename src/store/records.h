/*
 * records.h: the kinds of records of a manifest, and their payloads.
 *
 * Layer 4. Pure. A payload may grow at its end: a reader takes what it knows, and what a shorter payload lacks is
 * CORRUPT unless a comment here gives it a default. What older readers may not overlook takes a feature bit or a new
 * kind. Bytes that no field has are written as zero and not looked at. All numbers are little endian.
 *
 * A kind that is not listed here makes the file one of a newer version, unless the record says that it is optional.
 *
 *   kind             says                                              in force
 *    1 STORE         what was settled when the store was created       the first record of each file; exactly one
 *    2 INCARNATION   an opening for writing began to write log         all whose log is still needed, oldest first
 *    3 CHECKPOINT    where recovery begins                             the last one
 *    4 LSN_RANGE     LSNs below it may have been given out             the last one (log = off)
 *    5 POISON        a sync failed: the page cache proves nothing      until a checkpoint with a higher number
 *    16-31           for segments: not used, since which segments there are follows from the durable mapping
 *                    (pages) and from the numbers in their headers (log); kept for a version that wants more
 *
 * "In force" is what a rewrite has to hand on.
 */
#ifndef QR_STORE_RECORDS_H
#define QR_STORE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "store/manifest.h"

enum qr_manifest_kind {
    QR_MANIFEST_STORE = 1,
    QR_MANIFEST_INCARNATION = 2,
    QR_MANIFEST_CHECKPOINT = 3,
    QR_MANIFEST_LSN_RANGE = 4,
    QR_MANIFEST_POISON = 5,
};

bool qr_manifest_kind_is_known(uint16_t kind);

/*
 * Settled when the store is created, but for `log`, which is that of the last opening. An address is
 * segment-relative and explained by the page store; here it is a number.
 *
 *   offset size
 *      0     8  created: seconds since 1970
 *      8     4  log: 0 off, 1 on
 *     12     4  checksum: 1 CRC32C
 *     16     4  smallest segment of the log
 *     20     4  largest segment of the log
 *     24     4  largest frame of the log
 *     28     4  smallest segment of pages
 *     32     4  largest segment of pages
 *     36    28  zero
 */
struct qr_manifest_store {
    uint64_t created_seconds;
    bool has_log;
    uint32_t checksum; /* enum qr_manifest_checksum */
    uint32_t log_segment_least_bytes, log_segment_most_bytes, log_frame_most_bytes;
    uint32_t page_segment_least_bytes, page_segment_most_bytes;
};
enum qr_manifest_checksum { QR_MANIFEST_CHECKSUM_CRC32C = 1 };
#define QR_MANIFEST_STORE_BYTES 64u

/*
 * R7: synced before the first reservation of the incarnation. Frames of an older incarnation count only up to the end
 * that the next one's record gives it. R8: what recovery decided about frames was synced before this record was
 * written. R12: boot, device, mount and directory are those of whoever wrote log under it; equal ones are one condition
 * of the same-boot rule.
 *
 *   offset size
 *      0     8  number: 1, 2, 3 ...
 *      8     8  first LSN
 *     16     8  end of the incarnation before: frames at or above it, and below the first LSN, are dead
 *     24    16  boot id
 *     40     8  device
 *     48     8  mount id
 *     56     8  inode of the directory
 */
struct qr_manifest_incarnation {
    uint64_t number, first_lsn, previous_end_lsn;
    uint8_t boot_id[16];
    uint64_t device, mount_id, directory_inode;
};
#define QR_MANIFEST_INCARNATION_BYTES 64u

/* Bytes of the page store. size 0: none. */
struct qr_manifest_place {
    uint64_t address;
    uint32_t size_bytes;
};

/*
 * A structurally consistent mapping, and where replay begins. All that it names was synced before the record was
 * written. R1: replay_from was computed before the capture. R2: what the capture contains. R3: segments and log that it
 * no longer needs are released once this record is known to be durable, and not before. R12: a frame that is damaged at
 * or below durable_lsn is damage to the store, one above it is the end of the log. R14: with log = off the contents are
 * those of as_of_lsn exactly, and replay_from is one more.
 *
 *   offset size
 *      0     8  number: 1, 2, 3 ...
 *      8     8  replay_from
 *     16     8  durable_lsn: the newest LSN that was synced when the record was written
 *     24     8  as_of_lsn: log = off; else 0
 *     32     8  index of the mapping: address
 *     40     4  index of the mapping: size
 *     44     4  flags, zero
 *     48     8  next page id
 *     56     8  list of free page ids: address
 *     64     4  list of free page ids: size
 *     68     4  next tree id
 *     72     8  page id of the catalogue's root
 *     80     8  list of range tombstones: address
 *     88     4  list of range tombstones: size
 *     92     4  number of trees
 *     96     8  next segment number
 *    104     8  number of pages
 *    112     8  number of free page ids
 *    120     8  live bytes: of the images and parts that the mapping names
 *    128     8  the highest LSN that a write had returned with, or that an image has, below replay_from or above
 *    136    56  zero
 */
struct qr_manifest_checkpoint {
    uint64_t number;
    uint64_t replay_from, durable_lsn, as_of_lsn;
    struct qr_manifest_place mapping_index, free_ids, range_tombstones;
    uint64_t next_page_id, catalogue_root_id, next_segment;
    uint32_t next_tree_id, tree_count;
    uint64_t page_count, free_id_count, live_bytes;
    uint64_t last_lsn;
};
#define QR_MANIFEST_CHECKPOINT_BYTES 192u

/*
 * R14: LSNs below `end` may have been given out; after an unclean end LSNs continue from it.
 *
 *   offset size
 *      0     8  first LSN that is not reserved
 *      8     8  zero
 */
struct qr_manifest_lsn_range {
    uint64_t end_lsn;
};
#define QR_MANIFEST_LSN_RANGE_BYTES 16u

/*
 * R12: after a failed sync the page cache may show what the disk does not have, so the same-boot rule does not hold.
 *
 *   offset size
 *      0     8  LSN up to which the log was durable
 *      8     8  number of the last checkpoint
 *     16     4  errno of the sync, 0 if not known
 *     20    12  zero
 */
struct qr_manifest_poison {
    uint64_t durable_lsn, checkpoint_number;
    int32_t os_errno;
};
#define QR_MANIFEST_POISON_BYTES 32u

/* Each writes its payload to `to`, of ..._BYTES bytes, and returns a record that points to it, sequence 0. */
struct qr_manifest_record qr_manifest_store_encode(const struct qr_manifest_store *store, uint8_t *to);
struct qr_manifest_record qr_manifest_incarnation_encode(const struct qr_manifest_incarnation *incarnation,
                                                         uint8_t *to);
struct qr_manifest_record qr_manifest_checkpoint_encode(const struct qr_manifest_checkpoint *checkpoint, uint8_t *to);
struct qr_manifest_record qr_manifest_lsn_range_encode(const struct qr_manifest_lsn_range *range, uint8_t *to);
struct qr_manifest_record qr_manifest_poison_encode(const struct qr_manifest_poison *poison, uint8_t *to);

/* Each takes a record of its kind. QUIRE_ERR_CORRUPT: too short, or a number that nobody writes; QUIRE_ERR_NEWER. */
int qr_manifest_store_decode(const struct qr_manifest_record *record, struct qr_manifest_store *ret_store);
int qr_manifest_incarnation_decode(const struct qr_manifest_record *record,
                                   struct qr_manifest_incarnation *ret_incarnation);
int qr_manifest_checkpoint_decode(const struct qr_manifest_record *record,
                                  struct qr_manifest_checkpoint *ret_checkpoint);
int qr_manifest_lsn_range_decode(const struct qr_manifest_record *record, struct qr_manifest_lsn_range *ret_range);
int qr_manifest_poison_decode(const struct qr_manifest_record *record, struct qr_manifest_poison *ret_poison);

#endif
