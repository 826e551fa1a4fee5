/*
 * store.h: the page store: images of pages in append-only segments, and the mapping that says which image a page has.
 *
 * Layer 4. It knows (page id, bytes); of keys and trees it knows nothing. README.md draws how the parts work together,
 * format.h has the bytes.
 *
 *     write ---> enter ------+                        manifest record known durable
 *       |                    v                                    |
 *       +---> forget      changes --capture--> captured --commit--+--> committed: mapping, dead segments released
 *                            ^                    |               +--> abandoned \  changes back in the list,
 *                            +--------------------+------------------> unknown   /  nothing is released
 *
 * STORE-1  Bytes of a segment that were published (their address was given out by a write that answered 0) are never
 *          overwritten. Addresses and segment numbers are never used again.
 * STORE-2  A segment is released when no image in it is named by the last durable mapping, by the one under
 *          construction, by the current one, or was written and neither entered nor forgotten; and nobody reads it
 * (R3). STORE-3  A capture swaps the list of changes: what is entered later belongs to the next checkpoint (R2).
 * STORE-4  What a manifest record that a commit filled in names was synced before, with the names of its segments.
 * STORE-5  A sync that failed is final: every later write and commit answers its result. Reads go on.
 * STORE-6  Whatever a file holds: a call answers right bytes, or QUIRE_ERR_CORRUPT with file and offset in the detail.
 * STORE-7  Files that are kept to be used again go before NO_SPACE is answered (qr_db_give_up_spares). From some size on
 *          (QR_STORE_RESERVE_FROM) a segment of large values is made only when the reserve is whole: what has filled a disk
 *          leaves a checkpoint the space with which it releases some.
 *
 * Threads: all calls by any thread at once, but for open and close, and but for the life of a capture, which is one
 * thread's (qr_store_capture to qr_store_committed, _abandoned or _unknown; one at a time). qr_store_enter, _forget,
 * _remove hold a mutex for some instructions and cannot fail. Writes wait for one another; nothing waits for the disk
 * with that mutex held.
 *
 * Results: 0; a positive outcome; a negative failure with its detail (NO_MEMORY, NO_SPACE, IO, CORRUPT ...).
 */
#ifndef QR_STORE_STORE_H
#define QR_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quire/quire.h>

#include "os/disk.h"
#include "store/records.h"

struct qr_store;
struct qr_store_capture;

#define QR_STORE_ADDRESS_BITS 61u /* of an address; 0 is none */
#define QR_STORE_PID_BITS 40u
#define QR_STORE_PARTS 2u /* of a page, at most, beside its image (R10) */

/* Outcome of a read: the segment is gone because the page has a newer image; load the word again. */
#define QR_STORE_GONE 101

/* Numbers of the file format. */
enum qr_store_codec {
    QR_CODEC_STORE = 0, /* what the store's options say; never in a file */
    QR_CODEC_NONE = 1,
    QR_CODEC_LZ4 = 2,
    QR_CODEC_ZSTD = 3,   /* reserved */
    QR_CODEC_SNAPPY = 4, /* reserved */
};

/* Zero fields are the defaults. */
struct qr_store_options {
    uint64_t first_segment_bytes; /* 256 KiB; a power of two, at least 32 KiB */
    uint64_t most_segment_bytes;  /* 64 MiB; a power of two */
    enum qr_store_codec codec;    /* of images that do not name one: none */
    bool direct;                  /* reads and writes past the page cache, where the file system can */
    uint32_t reserve_segments;    /* 2: files kept for a full disk, from QR_STORE_RESERVE_FROM on */
    uint32_t most_open_files;     /* 256 */
    uint8_t store_id[16];
    int (*random)(void *context, void *ret_bytes, size_t size); /* for salts; 0 or a negated errno */
    void *context;
};
#define QR_STORE_RESERVE_FROM 8u /* times the first segment's bytes in segments */
#define QR_STORE_BATCH_BYTES (UINT64_C(1) << 20) /* of a batch, unless one image is larger */

/* ---- Life ------------------------------------------------------------------------------------------------------- */

/*
 * from: the checkpoint in force; NULL, or one without a mapping: an empty store. Reads the root of the mapping and the
 * list of files; the time does not depend on the number of pages. Nothing is written. The caller has locked the
 * directory. CORRUPT: the root does not verify, or a segment that it names is not there.
 */
int qr_store_open(struct qr_dir *dir, const struct qr_store_options *options, const struct qr_manifest_checkpoint *from,
                  bool read_only, struct qr_store **ret_store);

/* STORE-5: the errno of the sync that failed; 0: none has. */
int qr_store_failed_errno(struct qr_store *store);

/* Notes page segments that the checkpoint does not name. Call it when the manifest cannot go back any more, after the
 * rewrite with which a writer begins, and the log's blobs are known (qr_blob_replayed); before the first write. 0 or a
 * failure, after which it may be called again or not. */
int qr_store_find_leftovers(struct qr_store *store);

/* How many there are that are not removed yet. */
uint32_t qr_store_leftovers(const struct qr_store *store);

/* Removes the i-th, if it is provably this store's; the last takes its place. Also while others write, but one at a time: the
 * caller's mutex. 0 or a negated errno, after which it may be called again or not: a leftover that stays does no harm. */
int qr_store_clear_leftover(struct qr_store *store, uint32_t i);

/* Finds and removes all of them. */
int qr_store_clean_up(struct qr_store *store);

/* Removes what is kept ready for a full disk, for somebody who cannot go on without the space; the next checkpoint
 * makes it again. Whether there was something. */
bool qr_store_drop_reserve(struct qr_store *store);

/* Makes what is missing of the reserve, as far as there is space. Whether it is whole. Any thread. */
bool qr_store_regain(struct qr_store *store);

/* Whether a segment was made since it was asked last. Any thread. */
bool qr_store_has_grown(struct qr_store *store);

/* Removes the files that are kept to be used again, for somebody who finds no space; not the reserve. Whether there were any. */
bool qr_store_drop_spares(struct qr_store *store);

/* Nobody uses it any more, no capture is open. Writes nothing. NULL is fine. */
void qr_store_close(struct qr_store *store);

/* ---- Images ----------------------------------------------------------------------------------------------------- */

/* What an image is of. 1 to 15 are the caller's (a page's own kinds); the others are the store's. */
enum qr_store_kind {
    QR_STORE_LEAF = 1,
    QR_STORE_INNER = 2,
    QR_STORE_PART = 3,       /* deltas since an image */
    QR_STORE_TOMBSTONES = 8, /* the list of range tombstones; page id 0 */
    QR_STORE_BLOCK = 16,     /* of the mapping */
    QR_STORE_NODE = 17,      /* of the mapping's index */
    QR_STORE_ROOT = 18,
    QR_STORE_FREE_IDS = 19,
    QR_STORE_DEAD_BLOBS = 20, /* of a segment of blobs, whose number is in place of the page id */
};

struct qr_store_image {
    uint64_t pid;
    uint32_t tree_id;
    uint8_t kind, level;
    uint8_t codec; /* enum qr_store_codec */
    uint64_t min_lsn, max_lsn;
    const void *bytes;
    uint32_t size;         /* above 0 */
    uint32_t stored_bytes; /* out: in the file, with its header */
    uint64_t address;      /* out */
};

enum qr_store_write_flags {
    QR_STORE_COLD = 1,    /* into the segments of what will not change soon */
    QR_STORE_RESERVE = 2, /* may use the segments kept for a full disk: checkpoint, deletes, cleaning */
};

/*
 * Appends the images in batches, several at once. 0: all are written, none is synced; each has an address, and is to be
 * entered or forgotten, once. Otherwise nothing counts as written: NO_SPACE, NO_MEMORY: try again later; IO.
 * TOO_LARGE: an image that no segment can hold.
 */
int qr_store_write(struct qr_store *store, struct qr_store_image *images, uint32_t count, unsigned flags);

/* The image will not be entered (the page has changed meanwhile). */
void qr_store_forget(struct qr_store *store, uint64_t address);

/* Gives memory for `size` bytes of an image; NULL: there is none. Called at most once for each image, after its bytes
 * were verified; the memory is the caller's whatever the result of the read. */
typedef void *qr_store_alloc(void *context, size_t size);

/*
 * Reads the image at the address and verifies it: magic, page id, address, checksum, sizes. 0: *ret_bytes is what alloc
 * gave. QR_STORE_GONE; CORRUPT, IO, NO_MEMORY.
 */
int qr_store_read(struct qr_store *store, uint64_t address, uint64_t pid, qr_store_alloc *alloc, void *context,
                  void **ret_bytes, uint32_t *ret_size);

struct qr_store_read {
    uint64_t address, pid;
    int result; /* out, as of qr_store_read */
    uint32_t size;
    void *bytes; /* NULL unless result is 0 */
};

/* The same for several at once. Each has its result; 0, or the first negative one. The detail is of some failure. */
int qr_store_read_many(struct qr_store *store, struct qr_store_read *reads, uint32_t count, qr_store_alloc *alloc,
                       void *context);

/* ---- Mapping ---------------------------------------------------------------------------------------------------- */

/* What the current mapping says of a page. */
struct qr_store_entry {
    uint64_t address;
    uint32_t stored_bytes;
    uint64_t max_lsn; /* every frame of the page up to it is in the image */
};

/* The image that was written there is the page's newest. The one before is not in the current mapping any more. */
void qr_store_enter(struct qr_store *store, uint64_t pid, uint64_t address);

/* The id is free. */
void qr_store_remove(struct qr_store *store, uint64_t pid);

/* 0, or QUIRE_NOT_FOUND. May read a block of the mapping. */
int qr_store_lookup(struct qr_store *store, uint64_t pid, struct qr_store_entry *ret_entry);

/* Sees each page of the current mapping, in the order of ids; reads all of it. Not 0 ends it, which is answered. For
 * checks; not while other threads enter or a capture is open, but others may remove. */
typedef int qr_store_visit(void *context, uint64_t pid, const struct qr_store_entry *entry);
int qr_store_each(struct qr_store *store, qr_store_visit *visit, void *context);

/* The free ids of the checkpoint that the store was opened with, rising; *ret_ids is to be freed by qr_free. */
int qr_store_read_free_ids(struct qr_store *store, const struct qr_manifest_checkpoint *from, uint64_t **ret_ids,
                           uint64_t *ret_count);

/* Gives back the memory of the mapping's blocks, which are read again when they are asked for. Does nothing while a
 * capture is open. */
void qr_store_trim(struct qr_store *store);

/* ---- Checkpoint ------------------------------------------------------------------------------------------------- */

/* Closes the list of changes (STORE-3), in a time that does not depend on its length. NO_MEMORY: nothing happened. */
int qr_store_capture(struct qr_store *store, struct qr_store_capture **ret_capture);

/* As qr_store_enter and qr_store_remove, for what was captured and is written afterwards. If the page has changed again
 * since, the current mapping stays with the newer image. */
void qr_store_capture_enter(struct qr_store_capture *capture, uint64_t pid, uint64_t address);
void qr_store_capture_remove(struct qr_store_capture *capture, uint64_t pid);

/*
 * Writes what changed of the mapping, its index and the free ids (rising, all below record->next_page_id), and syncs
 * what the record names (STORE-4). record: the caller has filled in its own fields, among them next_page_id and
 * range_tombstones (an image of this store that was written, or that of the checkpoint before; it is not to be
 * entered). Set here: mapping_index, free_ids, next_segment, page_count, free_id_count, live_bytes; last_lsn is raised to the newest
 * LSN in an image that was entered: its write need not have returned. After a failure the capture is still open, and is to be abandoned.
 */
int qr_store_commit(struct qr_store *store, struct qr_store_capture *capture, const uint64_t *free_ids,
                    uint64_t free_id_count, struct qr_manifest_checkpoint *record);

/* The record is durable. What only the checkpoint before named is released: segments in which nothing is left are used
 * again or removed, one after the other. Frees the capture, as the next two do. */
void qr_store_committed(struct qr_store *store, struct qr_store_capture *capture);

/* There is no record, and there will be none. The changes belong to the next checkpoint. */
void qr_store_abandoned(struct qr_store *store, struct qr_store_capture *capture);

/* It is not known whether the record is durable: both mappings stay readable, nothing is released until the store was
 * opened again. */
void qr_store_unknown(struct qr_store *store, struct qr_store_capture *capture);

/* A file with images or blobs, as the checkpoint in force, or what came after it, names it. */
struct qr_store_segment {
    bool blob;
    uint64_t used_bytes, live_bytes;
};
/* False: none of that number is named. */
bool qr_store_segment(struct qr_store *store, uint32_t number, struct qr_store_segment *ret_segment);

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

struct qr_store_stats {
    uint64_t segments, segment_bytes; /* files, without the reserve */
    uint64_t reserve_segments, reserve_bytes;
    bool keeps_reserve;            /* QR_STORE_RESERVE_FROM */
    bool reserve_missing;          /* when it was to be completed last there was no space for all of it */
    uint64_t live_bytes;           /* that some mapping names, or may yet */
    uint64_t durable_bytes, pages; /* of the last durable mapping: images */
    uint64_t changes;              /* pages entered or removed since the last capture */
    uint64_t written_bytes, write_operations, batches, images_written, images_stored_raw;
    uint64_t reads, read_bytes, blocks_read, checksum_failures;
    uint64_t segments_made, segments_recycled, segments_removed;
    uint64_t memory_bytes; /* of the mapping, its changes and the tables */
};
void qr_store_stats(struct qr_store *store, struct qr_store_stats *ret_stats);

#endif
