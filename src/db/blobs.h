/*
 * blobs.h: values above the threshold, between the calls and the page store.
 *
 * Layer 6. Writing: the blob goes to the store first, the record and its frame then have its reference; if the write comes to
 * nothing the blob is said to be dead. Reading: the tree answers QR_BLOB with the reference, which is read outside sections. If the
 * blob is gone by then, its record was replaced: the key is looked up again.
 */
#ifndef QR_DB_BLOBS_H
#define QR_DB_BLOBS_H

#include "db/db.h"
#include "store/blob.h"

/* Whether the value of a write is to be a blob. */
static inline bool qr_db_is_large(const struct quire_tree *tree, const struct qr_write *write)
{
    return tree->db->files != NULL && write->value_size > tree->db->options.blob_threshold_bytes &&
           write->kind == QR_RECORD_PUT && write->replay_lsn == 0 && tree->tree.id != 0;
}

/* Writes the value; *ret_record is the write of its reference, which is put at `reference`. 0 or a failure. */
int qr_db_blob_write(struct quire_tree *tree, const struct qr_write *write, uint8_t reference[QR_BLOB_REF_BYTES],
                     struct qr_write *ret_record);

/* Where a value is read to. */
struct qr_db_room {
    struct quire *db;
    struct qr_thread *thread;
    /* Memory for a value; once more if the value has changed meanwhile. 0, or what the read answers. */
    int (*make)(struct qr_db_room *room, size_t size, void **ret_memory);
    void *memory; /* its own, as the next two */
    size_t size;
    size_t *ret_size;
};

/* Room under a guard: a block of the arena that is retired at once, so that it lives as long as the guard. */
int qr_db_room_of_guard(struct qr_db_room *room, size_t size, void **ret_memory);

/*
 * After qr_db_find has answered QR_BLOB with *value, in the same section, which is left and entered again: reads the value to the
 * room. QR_BLOB: *value is there; otherwise as qr_db_find, if the key has changed meanwhile, or a failure with its detail.
 */
int qr_db_blob_read(struct quire_tree *tree, const struct qr_key *key, uint64_t version, struct quire_value *value,
                    struct qr_db_room *room);

/* Before memory is taken for as many bytes as a reference says: whether its file has them. Of at most QR_DB_BLOB_TRUSTED_BYTES it is
 * not asked. 0, QR_STORE_GONE, or a failure. */
#define QR_DB_BLOB_TRUSTED_BYTES (UINT64_C(1) << 20)
int qr_db_blob_look(struct quire *db, const struct qr_blob_ref *ref);

/* Compares a blob with `expected`, which is as large. QR_STORE_GONE, or a failure. */
int qr_db_blob_equals(struct quire *db, const struct qr_blob_ref *ref, const void *expected, bool *ret_equal);

/* What a record says whose blob is not there. */
int qr_db_blob_missing(const struct qr_blob_ref *ref);

#endif
