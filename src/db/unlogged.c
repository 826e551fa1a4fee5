/*
 * unlogged.c: a database with files whose log is switched off: the LSN that a checkpoint is as of, and LSNs reserved ahead.
 *
 * Layer 6. Writes take LSNs as ever and go nowhere else; what is durable is what the last checkpoint has, which is the state at
 * one LSN in all trees (R14; checkpoint.h, CHECK-8).
 *
 * UNLOGGED-1  No LSN at or above the range that the manifest has on record is given out (log.h, LOG-4). An opening goes on at
 *             the end of the range, so LSNs that were lost with their writes are not used twice.
 * UNLOGGED-2  After a close in good order the range ends where LSNs do.
 * UNLOGGED-3  What a log from before has is in a checkpoint before the first write without one: it is not replayed again. So
 *             no frame is ever compared with an image whose contents end below its max LSN.
 * UNLOGGED-5  A checkpoint that failed for good, or for want of space, is answered by refusing writes until one succeeds: so
 *             what can be lost stays bounded. Deletions go on where space is all that is missing.
 * UNLOGGED-4  Trees are created, and safe versions raised, wholly below C or wholly above it: both happen under the mutex of
 *             trees, as the choice of C does.
 */
#include "db/db.h"

#define RANGE_SEGMENTS 16u /* a range is as long as so many of the log's largest segments would be */

/* ---- The LSN of a checkpoint ------------------------------------------------------------------------------------ */

static void hold(struct quire *db, uint32_t holding)
{
    /* order: db.holding.set pairs with db.holding.read: before the tail is loaded that C comes from (consolidate.c) */
    atomic_store_explicit(&db->checkpointer.holding, holding, memory_order_seq_cst);
}

int qr_db_as_of_begin(struct quire *db)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    pthread_mutex_lock(&db->trees_mutex); /* UNLOGGED-4 */
    hold(db, 1);
    int result = qr_snapshot_take(&db->snapshots, "checkpoint", &cp->as_of_place);
    if (result == 0) {
        cp->as_of_lsn = cp->as_of_place->lsn;
        qr_db_handles(db, &cp->as_of_trees);
    } else {
        hold(db, 0);
    }
    pthread_mutex_unlock(&db->trees_mutex);
    return result == 0 ? 0 : qr_fail(result, 0, "no memory for a checkpoint");
}

void qr_db_as_of_end(struct quire *db)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    if (cp->as_of_lsn + 1 < qr_log_tail(&db->log)) qr_db_open_count_add(&db->snapshots_done, 1);
    hold(db, 0);
    qr_snapshot_drop(cp->as_of_place);
    cp->as_of_place = NULL;
    cp->as_of_lsn = 0;
}

/* ---- LSNs ------------------------------------------------------------------------------------------------------- */

uint64_t qr_db_lsn_range(const struct quire *db, uint64_t from)
{
    return from + db->options.log_segment_bytes * RANGE_SEGMENTS;
}

/* Under the manifest's mutex. */
static int record_range(struct quire *db, uint64_t end)
{
    uint8_t payload[QR_MANIFEST_LSN_RANGE_BYTES];
    struct qr_db_files *files = db->files;
    struct qr_manifest_lsn_range range = {.end_lsn = end};
    struct qr_manifest_record record = qr_manifest_lsn_range_encode(&range, payload);
    uint64_t before = files->lsn_range_end;
    int result = qr_manifest_append(files->manifest, &record, 1);
    files->lsn_range_end = end;
    if (result == QR_MANIFEST_FULL) result = qr_db_rewrite_manifest(db, NULL, NULL);
    if (result != 0) files->lsn_range_end = before;
    return result;
}

int qr_db_reserve_lsns(struct quire *db)
{
    int result = 0;
    pthread_mutex_lock(&db->files->manifest_mutex);
    uint64_t needed = qr_log_needed_end(&db->log) + db->log.frame_cap_bytes;
    if (!qr_log_is_allowed(&db->log, needed)) {
        uint64_t end = qr_db_lsn_range(db, needed);
        result = record_range(db, end);
        if (result == 0) qr_log_allow(&db->log, end);
    }
    pthread_mutex_unlock(&db->files->manifest_mutex);
    return result;
}

int qr_db_close_unlogged(struct quire *db, struct qr_thread *thread)
{
    struct qr_checkpointer *cp = &db->checkpointer;
    uint64_t tail = qr_log_tail(&db->log);
    /* relaxed: nobody else is here */
    bool written = tail > atomic_load_explicit(&cp->replay_from, memory_order_relaxed);
    int result = 0;
    if (written) result = thread == NULL ? QUIRE_ERR_NO_MEMORY : qr_db_checkpoint(db, thread, true);
    if (result != 0) return result;
    pthread_mutex_lock(&db->files->manifest_mutex);
    record_range(db, tail); /* UNLOGGED-2; if it fails, LSNs are skipped */
    pthread_mutex_unlock(&db->files->manifest_mutex);
    return 0;
}
