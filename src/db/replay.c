/*
 * replay.c: what the log says, done again in the trees.
 *
 * Layer 6. One thread, in the order of LSNs, each record with the LSN that it had. So every page ends with the max_lsn that
 * it had, and a record that a page has already is not applied twice (R4).
 *
 * A tree is created again where its catalogue record stands: root ids are those of this life of the mapping table.
 */
#include "db/files.h"

#include "db/blobs.h"
#include "db/db.h"

struct replayer {
    struct quire *db;
    struct qr_thread *thread;
};

/* Finds the tree of a record; NULL: the catalogue does not know it at this point, and the record is dropped (R4). */
static struct quire_tree *tree_of(struct quire *db, uint32_t id)
{
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    return id < count ? handles[id] : NULL;
}

/* A blob that the record names. QR_REPLAY_END: it did not become durable (R3). */
static int take_blob(struct quire *db, const struct qr_replay_record *record)
{
    struct qr_blob_ref ref;
    if (!qr_blob_ref_decode(record->frame.value, &ref))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "log: a record with a blob reference that is none");
    int result = qr_blob_replayed(db->checkpointer.store, &ref, record->suspect);
    return record->suspect && (result == QUIRE_ERR_CORRUPT || result == QR_STORE_GONE) ? QR_REPLAY_END : result;
}

static int apply(struct replayer *r, const struct qr_replay_record *record)
{
    const struct qr_frame *frame = &record->frame;
    struct quire_tree *tree = tree_of(r->db, frame->tree_id);
    if (tree == NULL) return 0;
    struct qr_write write = {
        .key = qr_key_make(frame->key, frame->key_size),
        .kind = frame->kind,
        .value = frame->value,
        .value_size = frame->value_size,
        .version = frame->version,
        .replay_lsn = record->lsn,
        .replay_named = frame->named_version,
        .replay_conditional = record->tentative && frame->has_named,
    };
    bool blob = frame->kind == QR_RECORD_BLOB;
    if (frame->has_version != tree->tree.settings.caller_versions ||
        (frame->kind != QR_RECORD_PUT && frame->kind != QR_RECORD_DELETE && !blob) ||
        (blob && (frame->value_size != QR_BLOB_REF_BYTES || frame->tree_id == 0)))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "log: a record of tree %u that it cannot have", frame->tree_id);
    int result = QR_UNLIKELY(blob) ? take_blob(r->db, record) : 0;
    if (result != 0) return result;
    if (frame->tree_id == 0) return qr_db_catalogue_replay(r->db, r->thread, &write);
    return qr_db_run_write(tree, r->thread, &write);
}

static int visit(void *context, const struct qr_replay_record *record)
{
    struct replayer *r = context;
    struct qr_recovery *recovery = &r->db->files->recovery;
    int result = apply(r, record);
    if (result < 0) return result;
    if (result == QR_REPLAY_END) return result;
    if (result == QUIRE_CONFLICT) {
        if (record->frame.kind == QR_RECORD_BLOB)
            qr_blob_dead(r->db->checkpointer.store, record->frame.value, 1, record->lsn);
        recovery->refused++;
        return QR_REPLAY_VOID;
    }
    recovery->last_lsn = qr_max(recovery->last_lsn, record->lsn);
    recovery->applied++;
    qr_db_after_write(r->db, r->thread);
    return 0;
}

static int progress(void *context, uint64_t done_bytes, uint64_t all_bytes)
{
    struct replayer *r = context;
    const struct quire_options *o = &r->db->options;
    if (o->recovery_progress == NULL || o->recovery_progress(o->recovery_context, done_bytes, all_bytes) == 0) return 0;
    return qr_fail(QUIRE_ERR_BUSY, 0, "options.recovery_progress ended the opening");
}

int qr_db_image_max_lsn(void *context, uint64_t pid, uint64_t *ret_max_lsn)
{
    struct quire *db = context;
    struct qr_store_entry entry;
    int result = qr_store_lookup(db->checkpointer.store, pid, &entry);
    if (result == 0) *ret_max_lsn = entry.max_lsn;
    return result == QUIRE_NOT_FOUND ? qr_fail(QUIRE_ERR_CORRUPT, 0, "a page of the tree is not in the mapping") : result;
}

int qr_db_replay(struct quire *db, struct qr_thread *thread, const struct qr_log_list *list)
{
    struct qr_db_files *files = db->files;
    struct replayer replayer = {db, thread};
    struct qr_replay replay = {
        .dir = files->dir,
        .list = list,
        .incarnations = files->incarnations,
        .incarnation_count = files->incarnation_count,
        .from = db->checkpointer.record.replay_from,
        .durable_end = db->checkpointer.record.durable_lsn,
        .read_only = files->read_only,
        .visit = visit,
        .progress = progress,
        .context = &replayer,
    };
    int result = qr_log_replay(&replay, &files->recovery.log);
    if (result != 0) return result;
    qr_db_catalogue_replayed(db);
    qr_blob_recovered(db->checkpointer.store);
    if (files->read_only) return 0;
    int error = qr_blob_sync(db->checkpointer.store); /* before the incarnation that may count on them (R8) */
    return error == 0 ? 0 : qr_fail_io(-error, "sync of blobs");
}
