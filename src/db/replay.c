/*
 * replay.c: what the log says, done again in the trees.
 *
 * Layer 6. One thread. Records are gathered as far as the window reaches (log/batch.h), sorted by tree and key, and installed
 * leaf by leaf (tree/bulk.h), each with the LSN that it had; a record that a page has already is not applied twice (R4).
 *
 * REDO-1  What depends on the order of LSNs does not wait: a record of the catalogue is applied when it comes, so a tree is there
 *         before its records, and one whose tree is not there is dropped. An undecided record is applied when all before it are:
 *         it may ask for the newest version of its key.
 * REDO-2  So of two records of one page the one with the lower LSN is installed before the other or together with it.
 *
 * At the memory limit it borrows (qr_db_lend_memory).
 *
 * A tree is created again where its catalogue record stands: root ids are those of this life of the mapping table.
 */
#include "db/files.h"

#include "base/bugs.h"
#include "db/blobs.h"
#include "db/db.h"
#include "db/testing.h"
#include "log/batch.h"
#include "tree/bulk.h"

/* The window: as much as there is to read, within these bounds; of a memory limit a part. Its share for sorting comes to it. */
#define WINDOW_MOST_BYTES ((uint64_t)256 << 20)
#define WINDOW_LIMIT_SHARE 16u
#define WINDOW_BYTES_PER_ENTRY 64u

struct replayer {
    struct quire *db;
    struct qr_thread *thread;
    struct qr_batch batch;
};

/* Finds the tree of a record; NULL: the catalogue does not know it at this point, and the record is dropped (R4). */
static struct quire_tree *tree_of(struct quire *db, uint32_t id)
{
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    return id < count ? handles[id] : NULL;
}

/* Whether a write that failed may be tried again, since there is more memory now. */
static bool may_go_on(struct quire *db, int result)
{
    return QR_UNLIKELY(result == QUIRE_ERR_NO_MEMORY || result == QUIRE_ERR_STALLED) && qr_db_lend_memory(db);
}

static int no_room(void)
{
    return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "memory_limit_bytes leaves no room for what the log holds; open with a larger one");
}

/* ---- One record ------------------------------------------------------------------------------------------------- */

static int apply_one(struct replayer *r, struct quire_tree *tree, const struct qr_replay_record *record)
{
    const struct qr_frame *frame = &record->frame;
    struct qr_write write = {
        .key = qr_key_make(frame->key, frame->key_size),
        .kind = frame->kind,
        .value = frame->value,
        .value_size = frame->value_size,
        .version = frame->version,
        .first_part = frame->first_part,
        .replay_lsn = record->lsn,
        .replay_named = frame->named_version,
        .replay_conditional = record->tentative && frame->has_named && !QR_BUG(log_condition_ignored),
    };
    int result;
    do {
        result = frame->tree_id == 0 ? qr_db_catalogue_replay(r->db, r->thread, &write)
                                     : qr_db_run_write(tree, r->thread, &write);
        qr_db_after_write(r->db, r->thread);
    } while (may_go_on(r->db, result));
    return result == QUIRE_ERR_NO_MEMORY ? no_room() : result;
}

/* ---- Many records ----------------------------------------------------------------------------------------------- */

/* A run of records of one tree in the sorted batch. */
struct run {
    const struct qr_batch *batch;
    uint32_t from, to;
};

#define FILL_AHEAD 12u /* records; a processor does not have many more lines under way, and drops what is more */

static void fill(void *context, uint32_t from, uint32_t count, struct qr_bulk_record *ret_records)
{
    const struct run *run = context;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t index = run->from + from + i;
        struct qr_frame frame;
        uint64_t lsn;
        if (index + FILL_AHEAD < run->to) qr_batch_prefetch(run->batch, index + FILL_AHEAD, 0);
        qr_batch_prefetch(run->batch, index, 1); /* for when it is copied */
        qr_batch_prefetch(run->batch, index, 2);
        qr_batch_get(run->batch, index, &frame, &lsn);
        ret_records[i] = (struct qr_bulk_record){
            .spec = {.key = frame.key,
                     .key_size = frame.key_size,
                     .value = frame.value,
                     .value_size = frame.kind == QR_RECORD_DELETE ? 0 : frame.value_size,
                     .lsn = lsn,
                     .version = frame.version,
                     .kind = frame.kind,
                     .fingerprint = qr_fingerprint(qr_hash(frame.key, frame.key_size))},
            .first_lsn = frame.last_part != 0 ? frame.first_part : lsn};
    }
}

/* One step after another, until it is done: pages are fetched and memory waited for as by qr_db_run_write. */
static int run_bulk(struct replayer *r, struct quire_tree *tree, struct qr_bulk *bulk)
{
    struct qr_memory_wait wait = {.use_reserve = true}; /* what it builds anew was there before */
    struct qr_op op;
    int result = 0;
    qr_op_init(&op, &tree->tree, r->thread);
    op.use_reserve = true;
    while (result == 0) {
        qr_epoch_enter(r->thread);
        result = qr_bulk_step(&op, bulk);
        if (result == QR_FETCH) result = qr_db_fetch(r->db, &op);
        qr_epoch_exit(r->thread);
        if (result == QUIRE_ERR_NO_MEMORY) result = qr_db_wait_memory(r->db, r->thread, &wait);
        if (may_go_on(r->db, result)) result = 0;
        qr_db_after_write(r->db, r->thread);
    }
    qr_op_done(&op);
    return result == QUIRE_END ? 0 : result;
}

/* Applies what was gathered. */
static int apply_batch(struct replayer *r)
{
    struct qr_batch *batch = &r->batch;
    int result = 0;
    qr_batch_sort(batch);
    for (uint32_t from = 0, to; from < batch->count && result == 0; from = to) {
        uint32_t id = batch->entries[from].tree;
        for (to = from + 1; to < batch->count; to++)
            if (batch->entries[to].tree != id) break;
        struct run run = {batch, from, to};
        struct qr_bulk bulk;
        qr_bulk_init(&bulk, fill, &run, to - from);
        result = run_bulk(r, tree_of(r->db, id), &bulk);
        qr_bulk_done(&bulk);
    }
    qr_batch_clear(batch);
    return result == QUIRE_ERR_NO_MEMORY ? no_room() : result;
}

static int release(void *context)
{
    return apply_batch(context);
}

/* ---- What replay visits ----------------------------------------------------------------------------------------- */

#ifdef QR_TESTING
static bool singly; /* set before an opening, by the thread that opens */

void qr_testing_replay_singly(int on)
{
    singly = on != 0;
}
#else
#define singly false
#endif

/* A blob that the record names. QR_REPLAY_END: it did not become durable (R3). */
static int take_blob(struct quire *db, const struct qr_replay_record *record)
{
    struct qr_blob_ref ref;
    if (!qr_blob_ref_decode(record->frame.value, &ref))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "log: a record with a blob reference that is none");
    int result = qr_blob_replayed(db->checkpointer.store, &ref, record->suspect, record->doubtful);
    return record->suspect && (result == QUIRE_ERR_CORRUPT || result == QR_STORE_GONE) ? QR_REPLAY_END : result;
}

static int apply(struct replayer *r, const struct qr_replay_record *record)
{
    const struct qr_frame *frame = &record->frame;
    struct quire_tree *tree = tree_of(r->db, frame->tree_id);
    const bool blob = frame->kind == QR_RECORD_BLOB;
    if (tree == NULL) return 0;
    if (frame->key_size > QR_MAX_KEY_SIZE || frame->value_size > QR_MAX_VALUE_SIZE ||
        frame->has_version != tree->tree.settings.caller_versions ||
        (frame->kind != QR_RECORD_PUT && frame->kind != QR_RECORD_DELETE && !blob) ||
        (blob && (frame->value_size != QR_BLOB_REF_BYTES || frame->tree_id == 0)))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "log: a record of tree %u that it cannot have", frame->tree_id);
    int result = QR_UNLIKELY(blob) ? take_blob(r->db, record) : 0;
    if (result != 0) return result;
    if (frame->tree_id == 0 || singly) return apply_one(r, tree, record);
    if (record->tentative || qr_batch_is_full(&r->batch)) result = apply_batch(r);
    if (result != 0) return result;
    return record->tentative ? apply_one(r, tree, record) : qr_batch_add(&r->batch, record);
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
            qr_blob_dead(r->db->checkpointer.store, record->frame.value, 1, record->lsn + 1);
        recovery->refused++;
        return QR_REPLAY_VOID;
    }
    recovery->last_lsn = qr_max(recovery->last_lsn, record->lsn);
    recovery->applied++;
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

/* Bytes of the window. */
static uint64_t window_bytes(const struct quire *db, const struct qr_log_list *list)
{
    uint64_t limit = db->options.memory_limit_bytes;
    uint64_t most = limit == 0 ? WINDOW_MOST_BYTES : qr_min(WINDOW_MOST_BYTES, limit / WINDOW_LIMIT_SHARE);
    uint64_t all = qr_log_replay_bytes(list, db->checkpointer.record.replay_from);
    return qr_round_up(qr_max(qr_min(all, most), QR_REPLAY_WINDOW_LEAST), QR_FRAME_UNIT);
}

int qr_db_replay(struct quire *db, struct qr_thread *thread, const struct qr_log_list *list)
{
    struct qr_db_files *files = db->files;
    struct replayer replayer = {.db = db, .thread = thread};
    const uint64_t bytes = window_bytes(db, list);
    const uint32_t entries = (uint32_t)(bytes / WINDOW_BYTES_PER_ENTRY);
    const int64_t charge = (int64_t)(bytes + 2 * (uint64_t)entries * sizeof(struct qr_batch_entry));
    uint8_t *window = qr_map_buffer(bytes);
    if (window == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to read the log");
    struct qr_replay replay = {
        .dir = files->dir,
        .list = list,
        .incarnations = files->incarnations,
        .incarnation_count = files->incarnation_count,
        .from = db->checkpointer.record.replay_from,
        .durable_end = db->checkpointer.record.durable_lsn,
        .read_only = files->read_only,
        .window = window,
        .window_bytes = bytes,
        .visit = visit,
        .release = release,
        .progress = progress,
        .context = &replayer,
    };
    int result = qr_batch_init(&replayer.batch, window, entries);
    qr_arena_charge(db->arena, charge);
    if (result == 0) result = qr_log_replay(&replay, &files->recovery.log);
    qr_arena_charge(db->arena, -charge);
    qr_batch_done(&replayer.batch);
    qr_unmap_buffer(window, bytes);
    if (result != 0) return result;
    qr_db_catalogue_replayed(db);
    qr_arena_cache_flush(db->arena, &thread->cache);
    qr_arena_trim(db->arena);
    qr_db_return_memory(db);
    qr_blob_recovered(db->checkpointer.store);
    if (files->read_only) return 0;
    int error = qr_blob_sync(db->checkpointer.store); /* before the incarnation that may count on them (R8) */
    if (error == 0) return 0;
    /* The next opening may not take the log as it is, since what that names need not be on disk (R12). */
    if (files->incarnation_count != 0 && !QR_BUG(blob_mark_forgotten))
        (void)qr_log_mark_all(files->dir, list, files->incarnations[files->incarnation_count - 1].number);
    return qr_fail_io(-error, "sync of blobs");
}
