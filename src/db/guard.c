/*
 * guard.c: guards and snapshots.
 *
 * Layer 6. A guard is an epoch section of its thread, counted; a snapshot a place in the registry.
 *
 * GUARD-1  A guard is used if its thread is the caller's, and its ticket (state[0]) is open in the thread's record. So a
 *          struct is refused whose guard has ended, by an unpin through another copy or by the end of its thread.
 */
#include "db/db.h"

int quire_pin(struct quire *db, const char *tag, struct quire_guard *ret_guard)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (QR_UNLIKELY(result != 0)) return result;
    if (QR_UNLIKELY(ret_guard == NULL)) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_guard is NULL");
    *ret_guard = (struct quire_guard){.db = db, .thread = thread, .state = {qr_epoch_pin(thread, tag)}};
    return 0;
}

/* Checks that the guard is pinned, here. */
static int check(struct quire_guard *guard, struct qr_thread **ret_thread)
{
    if (QR_UNLIKELY(guard == NULL || guard->db == NULL))
        return qr_db_fail(NULL, QUIRE_ERR_INVALID, "guard is NULL or not pinned");
    int result = qr_db_begin(guard->db, ret_thread);
    if (QR_UNLIKELY(result != 0)) return result;
    if (QR_UNLIKELY(guard->thread != *ret_thread))
        return qr_db_fail(*ret_thread, QUIRE_ERR_WRONG_THREAD, "the guard was pinned by another thread");
    if (QR_UNLIKELY(!qr_epoch_pinned(*ret_thread, guard->state[0])))
        return qr_db_fail(*ret_thread, QUIRE_ERR_INVALID, QR_DB_GUARD_ENDED);
    return 0;
}

int quire_repin(struct quire_guard *guard)
{
    struct qr_thread *thread = NULL;
    int result = check(guard, &thread);
    if (QR_UNLIKELY(result != 0)) return result;
    qr_epoch_repin(thread);
    return 0;
}

int quire_unpin(struct quire_guard *guard)
{
    struct qr_thread *thread = NULL;
    int result = check(guard, &thread);
    if (QR_UNLIKELY(result != 0)) return result;
    qr_epoch_unpin(thread, guard->state[0]);
    *guard = (struct quire_guard){0};
    return 0;
}

/* ---- Snapshots -------------------------------------------------------------------------------------------------- */

int quire_snapshot(struct quire *db, const char *tag, struct quire_snapshot **ret_snapshot)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    if (ret_snapshot == NULL) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_snapshot is NULL");
    struct quire_snapshot *snapshot = qr_malloc(sizeof(*snapshot));
    if (snapshot == NULL) return qr_db_fail(thread, QUIRE_ERR_NO_MEMORY, "no memory for a snapshot");
    snapshot->db = db;
    result = qr_snapshot_take(&db->snapshots, tag, &snapshot->place);
    if (result != 0) {
        qr_free(snapshot);
        return qr_db_fail(thread, result, "no memory for a snapshot");
    }
    qr_db_open_count_add(&db->snapshots_open, 1);
    *ret_snapshot = snapshot;
    return 0;
}

uint64_t quire_snapshot_lsn(const struct quire_snapshot *snapshot)
{
    return snapshot == NULL ? 0 : snapshot->place->lsn;
}

int quire_snapshot_release(struct quire_snapshot *snapshot)
{
    if (snapshot == NULL) return 0;
    int result = qr_db_refuse_child(snapshot->db);
    if (result != 0) return result;
    if (snapshot->place->lsn + 1 < qr_log_tail(&snapshot->db->log))
        qr_db_open_count_add(&snapshot->db->snapshots_done, 1);
    qr_snapshot_drop(snapshot->place);
    qr_db_open_count_add(&snapshot->db->snapshots_open, UINT32_MAX);
    qr_free(snapshot);
    return 0;
}
