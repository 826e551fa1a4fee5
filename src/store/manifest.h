/*
 * manifest.h: the append-only file that says of what a store consists and how far it got.
 *
 * Layer 4. Everything else in a store's directory is found through its manifest: a checkpoint, the start of an
 * incarnation, a range of reserved LSNs come into force with the record that says so. manifest_format.h has the bytes,
 * records.h the kinds of records.
 *
 * MANIFEST-1  What a call of qr_manifest_append or qr_manifest_rewrite that answered 0 wrote survives power loss. All
 * of it or nothing is read at the next opening if the call did not answer 0 or did not return. MANIFEST-2  Before an
 * append is begun, all that counts in the file is durable, and so are zeros behind it. So behind the last durable
 * append there are never bytes of more than one other. MANIFEST-3  The file of the name `manifest` was complete and
 * durable before it got the name: its header, the records that it began with and its size were never half written. A
 * new one replaces the old one whole. MANIFEST-4  A sync of an append changes no size of the file: its zeros were
 * written before. MANIFEST-5  After a write or sync of an append that failed the manifest has failed: nobody knows what
 * is in it (DISK-2), and every later append and rewrite answers the same. Whoever opens it again finds one of the two
 * states. MANIFEST-6  A file that is not this store's is neither changed nor removed.
 *
 * Rules that rest on MANIFEST-1: R3 (log is recycled only when its checkpoint's record is known durable), R7 and R8 (an
 * incarnation's record before its first reservation, and before the first user is answered), R14 (LSNs are reserved
 * ahead).
 *
 * What is assumed of the disk: bytes that a write does not change survive it, whenever power is lost, even in the same
 * sector. Nothing is assumed of the order or the unit in which one write reaches the disk.
 *
 * Threads: one caller at a time. Every call waits for the disk.
 */
#ifndef QR_STORE_MANIFEST_H
#define QR_STORE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/disk.h"

#define QR_MANIFEST_NAME "manifest"
#define QR_MANIFEST_NEW_NAME "manifest.new"
#define QR_MANIFEST_PAYLOAD_MOST 4096u
#define QR_MANIFEST_RECORDS_MOST 4096u /* in one append */
#define QR_MANIFEST_SIZE_LEAST 16384u  /* of the file */

struct qr_manifest;

/* A record: to be appended, or as it was read. */
struct qr_manifest_record {
    uint16_t kind;
    bool optional;       /* a version that does not know the kind skips it, and loses it at its next rewrite */
    uint32_t size;       /* of the payload */
    const void *payload; /* as read: valid during the visit */
    uint64_t sequence;   /* as read; not looked at when appended */
};

/* What the header of the present file says. */
struct qr_manifest_header {
    uint8_t store_id[16];
    uint64_t generation;
    uint64_t first_sequence;
    uint64_t size_bytes;
    uint64_t base_end;
    uint64_t features_compatible, features_read_compatible, features_incompatible;
};

/* How a store is begun. */
struct qr_manifest_setup {
    /* Fills memory with random bytes, for the store's id: 0 or a negated errno. Handed in so that tests repeat. */
    int (*random)(void *context, void *memory, size_t size);
    void *context;
    uint64_t features_compatible, features_read_compatible, features_incompatible;
};

/* Sees one record; not 0 ends the opening, which answers it. */
typedef int qr_manifest_visit(void *context, const struct qr_manifest_record *record);

/* An outcome of qr_manifest_append, apart from the public ones. */
#define QR_MANIFEST_FULL 100

/*
 * Begins a store in a directory that the caller has locked, with these records. QUIRE_EXISTS: there is a file of the
 * name, whatever it is. QUIRE_ERR_FOREIGN: `manifest.new` is somebody's. After a failure the store may exist or not: a
 * later opening finds out.
 */
int qr_manifest_create(struct qr_dir *dir, const struct qr_manifest_setup *setup,
                       const struct qr_manifest_record *records, size_t count, struct qr_manifest **ret_manifest);

/*
 * Reads the manifest and visits its records in order. Nothing is visited if one of them cannot be understood.
 *
 * for_writing: the directory is locked, and when the call has answered 0 all that was visited is durable, whoever wrote
 * it and however that ended, and `manifest.new` is gone. Before the visits are over nothing is written. Otherwise
 * nothing is written at all, and nothing may be appended. One thing it cannot know: that a rollover went before whose
 * sync of the directory failed; then the name may still go back to the old file (DISK-2). A store therefore begins with
 * a rewrite, which gives the name anew, and appends only if there is no space for one.
 *
 * QUIRE_NOT_FOUND: no such file. QUIRE_ERR_FOREIGN, QUIRE_ERR_NEWER, QUIRE_ERR_CORRUPT, QUIRE_ERR_NO_MEMORY, IO,
 * NO_SPACE.
 */
int qr_manifest_open(struct qr_dir *dir, bool for_writing, qr_manifest_visit *visit, void *context,
                     struct qr_manifest **ret_manifest);

/*
 * Appends the records, all or none (MANIFEST-1), by one write and one sync. QR_MANIFEST_FULL: there is no room, nothing
 * was done; qr_manifest_rewrite makes some. QUIRE_ERR_INVALID: no records, or too large ones; QUIRE_ERR_NO_MEMORY:
 * nothing was done. Any other failure: MANIFEST-5.
 */
int qr_manifest_append(struct qr_manifest *manifest, const struct qr_manifest_record *records, size_t count);

/*
 * Replaces everything by these records, those that would have been appended among them: rollover. The new file has room
 * for as many bytes again, and is not smaller than QR_MANIFEST_SIZE_LEAST. A failure before the new file has taken the
 * name (no space, no memory) leaves everything as it was, and may be tried again; a later one: MANIFEST-5.
 */
int qr_manifest_rewrite(struct qr_manifest *manifest, const struct qr_manifest_record *records, size_t count);

const struct qr_manifest_header *qr_manifest_header(const struct qr_manifest *manifest);

/* MANIFEST-5: whether a call before has left it unknown what is in it. */
bool qr_manifest_has_failed(const struct qr_manifest *manifest);

/* Bytes of the file that are taken; its size is in the header. */
uint64_t qr_manifest_used_bytes(const struct qr_manifest *manifest);

/* Writes nothing. NULL is fine. */
void qr_manifest_close(struct qr_manifest *manifest);

#endif
