/*
 * blobs.c: see blobs.h.
 *
 * Layer 6.
 */
#include "db/blobs.h"

#define COMPARED_BYTES (256u << 10) /* at a time; whole blocks */

int qr_db_blob_write(struct quire_tree *tree, const struct qr_write *write, uint8_t reference[QR_BLOB_REF_BYTES],
                     struct qr_write *ret_record)
{
    struct qr_blob_ref ref;
    struct qr_blob blob = {.tree_id = tree->tree.id,
                           .key = write->key.data,
                           .key_size = write->key.size,
                           .value = write->value,
                           .size = write->value_size,
                           .lsn = qr_log_tail(&tree->db->log)};
    int result = qr_blob_write(tree->db->checkpointer.store, &blob, &ref);
    if (result != 0) return result;
    qr_blob_ref_encode(&ref, reference);
    *ret_record = *write;
    ret_record->kind = QR_RECORD_BLOB;
    ret_record->value = reference;
    ret_record->value_size = QR_BLOB_REF_BYTES;
    return 0;
}

int qr_db_room_of_guard(struct qr_db_room *room, size_t size, void **ret_memory)
{
    size_t block_size;
    int result = qr_epoch_prepare(room->thread);
    void *block = result == 0 ? qr_arena_alloc(room->db->arena, &room->thread->cache, size, false, &block_size) : NULL;
    if (block == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "the memory limit leaves no room for a value of %zu bytes", size);
    qr_epoch_retire(room->thread, QR_RETIRE_BLOCK, block, block_size);
    *ret_memory = block;
    return 0;
}

int qr_db_blob_missing(const struct qr_blob_ref *ref)
{
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "page-%08x is missing, which a value lies in", (unsigned)(ref->address >> 32));
}

int qr_db_blob_look(struct quire *db, const struct qr_blob_ref *ref)
{
    return ref->size <= QR_DB_BLOB_TRUSTED_BYTES ? 0 : qr_blob_look(db->checkpointer.store, ref);
}

int qr_db_blob_read(struct quire_tree *tree, const struct qr_key *key, uint64_t version, struct quire_value *value,
                    struct qr_db_room *room)
{
    struct qr_store *store = tree->db->checkpointer.store;
    uint64_t gone = 0; /* address of a blob that was not there */
    int result;
    do {
        struct qr_blob_ref ref;
        void *memory = NULL;
        if (!qr_blob_ref_decode(value->data, &ref)) return qr_fail(QUIRE_ERR_CORRUPT, 0, "a blob reference is none");
        if (ref.address == gone) return qr_db_blob_missing(&ref);
        qr_epoch_exit(room->thread);
        result = qr_db_blob_look(tree->db, &ref);
        if (result == 0) result = room->make(room, ref.size, &memory);
        if (result == 0) result = qr_blob_read(store, &ref, memory);
        qr_epoch_enter(room->thread);
        if (result == 0) {
            value->data = memory;
            value->size = ref.size;
            return QR_BLOB;
        }
        if (result != QR_STORE_GONE) return result;
        gone = ref.address;
        result = qr_db_find(tree, room->thread, key, version, value);
    } while (result == QR_BLOB);
    return result == QUIRE_ERR_NO_MEMORY ? qr_fail(result, 0, "no memory to look up a value") : result;
}

int qr_db_blob_equals(struct quire *db, const struct qr_blob_ref *ref, const void *expected, bool *ret_equal)
{
    struct qr_blob_reader reader;
    bool equal = true;
    int result = qr_blob_open(db->checkpointer.store, ref, &reader);
    if (result != 0) return result;
    uint8_t *memory = qr_malloc(qr_min(ref->size, COMPARED_BYTES));
    if (memory == NULL) result = qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to compare a value");
    for (uint64_t at = 0; at < ref->size && result == 0 && equal; at += COMPARED_BYTES) {
        uint32_t size = (uint32_t)qr_min(COMPARED_BYTES, ref->size - at);
        result = qr_blob_read_at(&reader, (uint32_t)at, size, memory);
        if (result == 0) equal = memcmp(memory, (const uint8_t *)expected + at, size) == 0;
    }
    qr_free(memory);
    qr_blob_close(&reader);
    if (result == 0) *ret_equal = equal;
    return result;
}
