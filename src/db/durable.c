/*
 * durable.c: the public calls about what survives.
 *
 * Layer 6.
 */
#include "db/db.h"

uint64_t qr_db_last_lsn(struct quire *db)
{
    uint64_t last = db->files == NULL ? 0 : db->files->recovery.last_lsn;
    for (struct qr_thread *t = qr_thread_first(db->epoch); t != NULL; t = qr_thread_next(t))
        last = qr_max(last, qr_counter_read(&t->counters[QR_COUNTER_LAST_LSN]));
    return last;
}

uint64_t qr_db_durable_end(struct quire *db)
{
    if (!qr_db_is_unlogged(db)) return qr_log_durable_end(&db->log);
    /* relaxed: whoever sees it is told of a checkpoint that is durable */
    return atomic_load_explicit(&db->checkpointer.durable_end, memory_order_relaxed);
}

/* What quire_checkpoint does. */
static int make_checkpoint(struct quire *db, struct qr_thread *thread)
{
    if (qr_epoch_inside(thread)) return qr_db_fail(thread, QUIRE_ERR_BUSY, "the thread holds a guard");
    int result = qr_db_checkpoint(db, thread, true);
    if (result != 0) qr_db_count_failure(thread, result);
    return result;
}

/* Waits for all below `end`. */
static int wait_durable(struct quire *db, struct qr_thread *thread, uint64_t end)
{
    if (qr_db_is_unlogged(db)) return end <= qr_db_durable_end(db) ? 0 : make_checkpoint(db, thread);
    if (db->log.files == NULL) return 0;
    int result = qr_log_wait(&db->log, end - 1, QR_LOG_DURABLE);
    if (result != 0) {
        qr_db_count_failure(thread, result);
        qr_db_tell(db);
    }
    return result;
}

int quire_sync(struct quire *db)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    return result == 0 ? wait_durable(db, thread, qr_log_tail(&db->log)) : result;
}

int quire_checkpoint(struct quire *db)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0 || db->files == NULL) return result;
    if (db->files->read_only) return qr_db_fail(thread, QUIRE_ERR_READ_ONLY, "the database was opened read-only");
    return make_checkpoint(db, thread);
}

int quire_checkpoint_start(struct quire *db)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0 || db->files == NULL) return result;
    if (db->files->read_only) return qr_db_fail(thread, QUIRE_ERR_READ_ONLY, "the database was opened read-only");
    if (qr_log_failure(&db->log) != 0) return qr_db_fail(thread, QUIRE_ERR_IO, "the log has failed: no checkpoint is made");
    /* relaxed: only the flag itself; who misses it now finds it when it looks next */
    atomic_store_explicit(&db->checkpointer.asked, 1, memory_order_relaxed);
    qr_event_signal(&db->checkpointer.wake);
    return 0;
}

int quire_wait_durable(struct quire *db, uint64_t lsn)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    if (lsn >= qr_log_tail(&db->log))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "the log has not reached LSN %llu", (unsigned long long)lsn);
    return wait_durable(db, thread, lsn + 1);
}

int quire_durable_lsn(struct quire *db, uint64_t *ret_lsn)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    if (ret_lsn == NULL) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_lsn is NULL");
    uint64_t end = qr_db_durable_end(db);
    *ret_lsn = end == 0 ? 0 : end - 1;
    return 0;
}

int quire_last_lsn(struct quire *db, uint64_t *ret_lsn)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    if (ret_lsn == NULL) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_lsn is NULL");
    *ret_lsn = qr_db_last_lsn(db);
    return 0;
}
