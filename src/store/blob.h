/*
 * blob.h: large values, each written once to a segment of its own kind, and read by a reference.
 *
 * Layer 4. A segment of the stream "blob" has no batches: blobs lie in it one behind the other, each at a multiple of 64. A
 * blob is a head and the value:
 *
 *      offset  size  field
 *      0       4     magic QBLB
 *      4       4     CRC32C of 8 to the end of the head, begun with the segment's salt
 *      8       8     its own address
 *      16      8     LSN: that of its record is not lower
 *      24      4     tree id
 *      28      4     size of the key
 *      32      4     size of the value
 *      36      4     size of the head
 *      40      24    zero
 *      64      4n    CRC32C of each block of 64 KiB of the value (n of them), begun with the salt
 *      ...           the key, then zeros up to a multiple of 64
 *      head size     the value
 *
 * The reference (page/blob.h) has what reading takes, so a value up to 64 KiB is read by one read. The head is for whoever has
 * the segment and no reference: it says whose value this is.
 *
 *     qr_blob_write ---> record in a leaf, frame in the log ---> dropped by a consolidation: qr_blob_dead
 *         |                                                            |
 *         +--> the write failed: qr_blob_dead                          v
 *                                                     all of a segment dead, and the durable replay_from not below
 *                                                     the tail at which the last one died: released (R3)
 *
 * BLOB-1  A reference is given out when all of the blob was written. qr_blob_sync syncs every blob whose reference was given out
 *         before it was called; the log calls it before each sync of its own. So a frame that survives power loss has its blob.
 * BLOB-2  The dead are a set of places, not a count: a blob may be said to be dead twice, once before a crash and once after, and
 *         counts once. A blob that is said to be dead is not read by anybody who looks for its record from then on.
 * BLOB-3  What is dead becomes durable with a checkpoint whose log was synced after it died: so it is dead for every later
 *         opening too. What was lost by a crash in between is said again when the record is dropped again; but a blob whose
 *         record is in no image and in no frame, because its writer died with it in hand, stays until its segment is cleaned.
 * BLOB-4  After an opening blobs are appended behind all that the checkpoint knows of and all that a frame names: what lies between
 *         is nobody's.
 * BLOB-5  Without a log no frame says what came after a checkpoint's LSN. So the checkpoint knows only of what was written before that
 *         was chosen (qr_blob_mark): after a crash the places behind are used again, and segments that came later are removed.
 *
 * Threads: any, at once; qr_blob_replayed while nobody writes. qr_blob_dead holds a mutex for some instructions.
 */
#ifndef QR_STORE_BLOB_H
#define QR_STORE_BLOB_H

#include "page/blob.h"
#include "store/store.h"

#define QR_BLOB_SEGMENT_MOST (UINT64_C(1) << 33) /* of a segment's size */

struct qr_blob {
    uint32_t tree_id;
    const void *key;
    uint32_t key_size;
    const void *value;
    uint32_t size; /* above 0 */
    uint64_t lsn;
};

/* Writes it; not synced. 0: *ret_ref is to be named by a record, or said to be dead. NO_SPACE, NO_MEMORY, IO: nothing was
 * changed. */
int qr_blob_write(struct qr_store *store, const struct qr_blob *blob, struct qr_blob_ref *ret_ref);

/* Syncs what was written, and the names of its segments. 0, or a negated errno, which is final (STORE-5). */
int qr_blob_sync(struct qr_store *store);

/* Whether there can be a blob where the reference says: asked before memory is taken for as many bytes as it says. 0; results as
 * below. */
int qr_blob_look(struct qr_store *store, const struct qr_blob_ref *ref);

/* Reads and verifies all of the value to `to`, which has ref->size bytes. QR_STORE_GONE: the segment is not there: if the record
 * still is, it is missing. CORRUPT, IO, NO_MEMORY. */
int qr_blob_read(struct qr_store *store, const struct qr_blob_ref *ref, void *to);

/* Reads and verifies all of it, and keeps nothing. Results as above. */
int qr_blob_verify(struct qr_store *store, const struct qr_blob_ref *ref);

/* Reading piece by piece. *ret_reader is to be closed. Results as above. */
struct qr_blob_reader {
    struct qr_store *store;
    struct qr_segment *segment;
    struct qr_blob_ref ref;
    uint8_t *sums; /* NULL: there is one, in the reference */
};
int qr_blob_open(struct qr_store *store, const struct qr_blob_ref *ref, struct qr_blob_reader *ret_reader);
/* [offset, offset + size) of the value, in whole blocks: offset a multiple of 64 KiB, size too, or up to the end. */
int qr_blob_read_at(struct qr_blob_reader *reader, uint32_t offset, uint32_t size, void *to);
void qr_blob_close(struct qr_blob_reader *reader);

/* No record has it any more, or will (BLOB-2). lsn: the log's tail. references: `count` of them, one after the other. */
void qr_blob_dead(struct qr_store *store, const uint8_t *references, uint32_t count, uint64_t lsn);

/* During recovery: a frame names it. verify: power may have been lost since: reads all of it; CORRUPT then means that it did not
 * become durable. Otherwise a segment that is missing or damaged is noted by whoever reads. rewrite: a sync has failed meanwhile, so
 * what verifies is in the page cache, and perhaps not on disk: it is written again. IO, NO_MEMORY. */
int qr_blob_replayed(struct qr_store *store, const struct qr_blob_ref *ref, bool verify, bool rewrite);

/* After the last of them (LIFE-3 in blob_life.c). */
void qr_blob_recovered(struct qr_store *store);

/* Whether the last checkpoint has left the segment out. Under the mutex. */
struct qr_segment;
bool qr_blob_segment_is_dead(const struct qr_store *store, const struct qr_segment *segment);

struct qr_blob_stats {
    uint64_t segments, segment_bytes;
    uint64_t live_bytes, dead_bytes; /* of blobs with their heads */
    uint64_t written, written_bytes; /* since the opening */
    uint64_t read, read_bytes;
};
void qr_blob_stats(struct qr_store *store, struct qr_blob_stats *ret_stats);
uint64_t qr_blob_written_bytes(struct qr_store *store);

/* ---- For commit.c: the dead in a checkpoint --------------------------------------------------------------------- */

/*
 * An image of kind DEAD_BLOBS for each segment that has dead blobs: for each of them, by offset, 8 bytes: offset (4) and extent (4),
 * both in units of 64.
 */
struct qr_store_capture;

/* Without a log: what is written from now on is above the LSN of the checkpoint whose capture comes next. */
void qr_blob_mark(struct qr_store *store);

/* What is dead at this moment belongs to the capture's checkpoint. The caller syncs the log after it (BLOB-3). marked: and what there
 * was at the mark. Once for each capture. NO_MEMORY. */
int qr_blob_capture(struct qr_store_capture *capture, bool marked);
/* Decides which segments the checkpoint leaves out, and writes the lists of the others. */
int qr_blob_lists_write(struct qr_store_capture *capture, uint64_t replay_from);
struct qr_blob_captured;
/* What was captured of the segment; NULL: it came later, or is left out. */
const struct qr_blob_captured *qr_blob_captured_find(const struct qr_store_capture *capture, uint32_t number);
/* Whether a list that the checkpoint will name lies in the segment. Under the mutex. */
bool qr_blob_list_is_in(const struct qr_store_capture *capture, uint32_t number);
/* Their table for the root; to NULL: only the number. Under the mutex. */
uint32_t qr_blob_table(const struct qr_store_capture *capture, uint8_t *to);
/* Under the mutex: they are the durable ones now. */
void qr_blob_lists_committed(struct qr_store_capture *capture);
void qr_blob_capture_free(struct qr_store_capture *capture);

/* For store.c: takes a list that was read. CORRUPT. */
int qr_blob_take_list(struct qr_store *store, struct qr_segment *segment, const uint8_t *bytes, uint32_t size);

#endif
