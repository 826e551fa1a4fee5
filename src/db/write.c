/*
 * write.c: the public calls that write one key.
 *
 * Layer 6. Each call checks its arguments, makes a struct qr_write, and runs it: again after pages were fetched, again
 * after memory came back. The conditional calls differ by the function that looks at the present value.
 */
#include "base/stop.h"
#include "db/blobs.h"
#include "db/db.h"

/* The log is short of space (FILES-6), or the last checkpoint was: whether there is space again. */
static QR_NOINLINE int look_for_space(struct quire *db)
{
    if (qr_db_checkpoint_refusal(db) == QUIRE_ERR_NO_SPACE)
        return qr_fail(QUIRE_ERR_NO_SPACE, 0, "there is no space for another checkpoint");
    if (qr_db_is_unlogged(db)) return 0;
    int result = qr_log_regain(&db->log);
    qr_db_note_room(db, QR_ROOM_LOG, result);
    return result;
}

/* While space is short new data are refused before anything is done for them. */
static int check_space(struct quire *db, const struct qr_write *write)
{
    return QR_UNLIKELY(qr_log_is_short(&db->log)) && write->kind != QR_RECORD_DELETE ? look_for_space(db) : 0;
}

/* What compare_and_swap expects, and what is known of a value that had to be read for it. */
struct expectation {
    struct quire_slice value;
    uint64_t read_lsn; /* of the record whose blob was compared; 0: none */
    bool equal;
    uint64_t gone_lsn; /* of one whose blob was not there */
};

/* Reads the value that the condition wants to know. 0: ask it again. */
static int read_present(struct quire *db, struct qr_write *write)
{
    struct expectation *expected = write->argument;
    int result = qr_db_blob_equals(db, &write->present, expected->value.data, &expected->equal);
    if (result == QR_STORE_GONE) { /* it was replaced meanwhile */
        if (expected->gone_lsn == write->present_lsn) return qr_db_blob_missing(&write->present);
        expected->gone_lsn = write->present_lsn;
        return 0;
    }
    if (result == 0) expected->read_lsn = write->present_lsn;
    return result;
}

/* When the waits of a write are over: for space or a checkpoint that is behind, and while the log has as many segments as it can have.
 * 0: it has not waited yet. */
struct stall {
    uint64_t space_end_ns, full_end_ns;
};

/* Room in the log, or LSNs where there is none. While the log has as many segments as it can have, the thread of checkpoints sets
 * some free. Not under a guard, which may keep that waiting. */
static QR_NOINLINE int make_room(struct quire *db, struct qr_thread *thread, bool may_use_reserve, struct stall *stall)
{
    const bool unlogged = qr_db_is_unlogged(db);
    if (!unlogged) qr_db_wait_space(db, thread, &stall->space_end_ns);
    int result = unlogged ? qr_db_reserve_lsns(db) : qr_log_provision(&db->log, may_use_reserve);
    if (result == QUIRE_ERR_NO_SPACE && !unlogged && !qr_log_is_full(&db->log) &&
        qr_db_give_up_spares(db, db->options.stall_timeout_ms))
        result = qr_log_provision(&db->log, may_use_reserve);
    if (stall->full_end_ns == 0) stall->full_end_ns = qr_db_stall_end_ns(db);
    while (result == QUIRE_ERR_NO_SPACE && !unlogged && qr_log_is_full(&db->log) && db->checkpointer.thread_runs &&
           !qr_epoch_inside(thread) && qr_clock_ns() < stall->full_end_ns) {
        qr_event_signal(&db->checkpointer.wake);
        qr_sleep_us(1000);
        result = qr_log_provision(&db->log, may_use_reserve);
    }
    if (result != 0 || !qr_log_is_short(&db->log)) qr_db_note_room(db, QR_ROOM_LOG, result);
    return result;
}

/* Key and value of a write that is too large for a frame go to the log before it. */
static int write_parts(struct quire *db, struct qr_thread *thread, struct qr_write *write)
{
    struct qr_frame frame = {
        .key = write->key.data, .key_size = write->key.size, .value = write->value, .value_size = write->value_size};
    struct stall stall = {0};
    uint64_t done = 0;
    int result = 0;
    /* From the first part on it waits for no checkpoint, which could not give up what is there of them (SPACE-2). */
    if (!qr_db_is_unlogged(db) && !qr_log_is_ready(&db->log, (uint64_t)frame.key_size + frame.value_size))
        qr_db_wait_space(db, thread, &stall.space_end_ns);
    while (result == 0 && !qr_log_write_parts(&db->log, thread, &frame, &done))
        result = make_room(db, thread, write->kind == QR_RECORD_DELETE, &stall);
    write->first_part = frame.first_part;
    write->last_part = frame.last_part;
    write->part_count = frame.part_count;
    return result;
}

/* See qr_db_run_write. *ret_waited: something was noted that is to be told. */
static int run_write(struct quire_tree *tree, struct qr_thread *thread, struct qr_write *write, bool *ret_waited)
{
    struct quire *db = tree->db;
    struct qr_op op;
    struct qr_memory_wait wait = {.use_reserve = write->kind == QR_RECORD_DELETE};
    struct stall stall = {0};
    bool parts = QR_UNLIKELY(qr_log_is_large(&db->log, write->key.size, write->value_size)) && write->replay_lsn == 0;
    int result = check_space(db, write);
    if (parts && result == 0) result = write_parts(db, thread, write);

    *ret_waited = parts || result != 0; /* PARTs may have waited for room */
    if (QR_UNLIKELY(result != 0)) {
        if (parts) qr_log_release_hold(thread);
        return result;
    }
    qr_op_init(&op, &tree->tree, thread);
    for (;;) {
        op.use_reserve = wait.use_reserve;
        result = qr_epoch_prepare(thread);
        if (QR_UNLIKELY(result != 0)) break;
        qr_epoch_enter(thread);
        result = qr_tree_write(&op, write);
        if (QR_UNLIKELY(result == QR_FETCH)) {
            result = qr_db_fetch(db, &op);
            qr_epoch_exit(thread);
            if (result != 0) break;
            continue;
        }
        qr_epoch_exit(thread);
        if (QR_UNLIKELY(result == QR_NO_ROOM)) {
            result = make_room(db, thread, wait.use_reserve, &stall);
            *ret_waited = true;
            if (result != 0) break;
            continue;
        }
        if (QR_UNLIKELY(result == QR_BLOB)) {
            result = read_present(db, write);
            if (result != 0) break;
            continue;
        }
        if (QR_LIKELY(result != QUIRE_ERR_NO_MEMORY)) break;
        *ret_waited = true;
        result = qr_db_wait_memory(db, thread, &wait);
        if (result != 0) break;
    }
    if (QR_UNLIKELY(op.image_count != 0)) qr_op_done(&op);
    if (QR_UNLIKELY(parts)) qr_log_release_hold(thread);
    return result;
}

/* A write whose value goes to a blob first. Should it come to nothing, the blob is nobody's. */
static QR_NOINLINE int run_large(struct quire_tree *tree, struct qr_thread *thread, struct qr_write *write, bool *ret_waited)
{
    uint8_t reference[QR_BLOB_REF_BYTES];
    struct qr_write record;
    struct quire *db = tree->db;
    bool noted = false;
    uint64_t wait_end_ns = 0;
    int result = check_space(db, write);
    *ret_waited = true;
    if (result != 0) return result;
    qr_db_join_wait(db, thread, &wait_end_ns);
    result = qr_db_blob_write(tree, write, reference, &record);
    if (result == QUIRE_ERR_NO_SPACE && qr_db_give_up_spares(db, db->options.stall_timeout_ms))
        result = qr_db_blob_write(tree, write, reference, &record);
    if (result != 0 || QR_UNLIKELY(qr_db_has_no_room(db))) {
        qr_db_note_room(db, QR_ROOM_BLOBS, result);
        noted = true;
    }
    if (result != 0) return result;
    bool grown = qr_store_has_grown(db->checkpointer.store);
    if (grown && !qr_db_is_unlogged(db)) {
        qr_db_keep_reserve(db);
        (void)qr_log_regain(&db->log); /* it notes what it does not find */
        wait_end_ns = 0; /* writing it may have taken long */
        qr_db_wait_space(db, thread, &wait_end_ns); /* while nobody sees the write */
    }
    QR_STOP("write.blob_written");
    result = run_write(tree, thread, &record, ret_waited);
    if (result != 0)
        qr_blob_dead(db->checkpointer.store, reference, 1, qr_log_tail(&db->log));
    write->ret_lsn = record.ret_lsn;
    *ret_waited = *ret_waited || noted;
    return result;
}

int qr_db_run_write(struct quire_tree *tree, struct qr_thread *thread, struct qr_write *write)
{
    bool waited;
    int result = QR_UNLIKELY(qr_db_is_large(tree, write)) ? run_large(tree, thread, write, &waited)
                                                          : run_write(tree, thread, write, &waited);
    if (QR_UNLIKELY(waited)) qr_db_tell(tree->db);
    return result;
}

/* Waits until the write survives what its level says. */
static int acknowledge(struct quire *db, struct qr_thread *thread, const struct qr_write *write)
{
    enum qr_log_level level = write->level == QUIRE_LEVEL_PROCESS ? QR_LOG_PROCESS : QR_LOG_DURABLE;
    if (QR_LIKELY(qr_log_survives(&db->log, write->ret_lsn, level))) return 0;
    int result = qr_log_wait(&db->log, write->ret_lsn, level);
    if (result != 0) qr_db_count_failure(thread, result);
    return result;
}

static QR_NOINLINE int tell(struct quire *db, int result)
{
    qr_db_tell(db);
    return result;
}

/* Whether writes are refused at present. */
static int check_writable(const struct quire *db, struct qr_thread *thread)
{
    if (db->files->read_only) return qr_db_fail(thread, QUIRE_ERR_READ_ONLY, "the database was opened read-only");
    int error = qr_log_failure(&db->log);
    if (QR_UNLIKELY(qr_db_is_unlogged(db)) && qr_db_checkpoint_refusal(db) == QUIRE_ERR_IO)
        return qr_db_fail(thread, QUIRE_ERR_IO, "the last checkpoint has failed, and there is no log: writes are refused");
    if (QR_LIKELY(error == 0)) return 0;
    qr_db_count_failure(thread, QUIRE_ERR_IO);
    return qr_fail(QUIRE_ERR_IO, -error, "a sync of the log has failed: the store takes no writes until it is opened again");
}

/* What a write that was not done answers, with detail and statistics. */
static QR_NOINLINE int report(struct quire *db, struct qr_thread *thread, const struct qr_write *write, int result)
{
    switch (result) {
    case QUIRE_ERR_NO_MEMORY:
        return qr_db_fail(thread, result, "the memory limit leaves no room for the write");
    case QUIRE_ERR_STALLED:
        return qr_db_fail(thread, result, "memory retained by guards did not come back in time");
    case QUIRE_ERR_LSN_TOO_OLD:
        return qr_db_fail(thread, result, "version %llu is not above the safe version",
                          (unsigned long long)write->version);
    case QUIRE_CONFLICT:
        qr_db_count(db, thread, QR_COUNTER_CONFLICTS, 1);
        return result;
    default:
        return result < 0 ? qr_db_fail_below(thread, result) : result;
    }
}

/* The common end of the calls. */
static int finish(struct quire_tree *tree, struct qr_thread *thread, const struct qr_write *write, int result,
                  uint64_t *ret_lsn)
{
    if (QR_UNLIKELY(result != 0)) return report(tree->db, thread, write, result);
    QR_STOP("write.done");
    qr_db_count(tree->db, thread, QR_COUNTER_WRITE_BYTES, write->key.size + write->value_size);
    qr_counter_set(&thread->counters[QR_COUNTER_LAST_LSN], write->ret_lsn);
    if (ret_lsn != NULL) *ret_lsn = write->ret_lsn;
    qr_db_after_write(tree->db, thread);
    if (QR_LIKELY(tree->db->files == NULL)) return 0;
    result = acknowledge(tree->db, thread, write);
    return QR_LIKELY(result == 0) ? 0 : tell(tree->db, result);
}

/* Checks what all writes have in common and starts one. caller: whether the call is for caller versions. */
static int begin(struct quire_tree *tree, struct qr_thread **ret_thread, const void *key, size_t key_size,
                 const void *value, size_t value_size, unsigned flags, bool caller, struct qr_write *ret_write)
{
    int result = qr_db_begin_tree(tree, ret_thread);
    if (QR_UNLIKELY(result != 0)) return result;
    struct qr_thread *thread = *ret_thread;
    result = qr_db_check_key(thread, key, key_size);
    if (QR_UNLIKELY(result != 0)) return result;
    const uint32_t most = tree->db->files == NULL ? QR_MAX_VALUE_SIZE : QR_MAX_FILE_VALUE_SIZE;
    if (QR_UNLIKELY(value_size > most))
        return qr_db_fail(thread, QUIRE_ERR_TOO_LARGE, "value of %zu bytes; at most %u", value_size, most);
    if (QR_UNLIKELY(value == NULL && value_size != 0))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "value is NULL, its size is %zu", value_size);
    if (QR_UNLIKELY(flags > QUIRE_WRITE_PROCESS))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "flags are not 0 or one of enum quire_write_flags");
    if (QR_UNLIKELY(tree->tree.settings.caller_versions != caller))
        return qr_db_fail(thread, QUIRE_ERR_UNSUPPORTED, caller ? "the tree has engine versions"
                                                                : "the tree has caller versions");
    *ret_write = (struct qr_write){.key = qr_key_make(key, key_size),
                                   .kind = QR_RECORD_PUT,
                                   .value = value,
                                   .value_size = (uint32_t)value_size};
    if (QR_LIKELY(tree->db->files == NULL)) return 0;
    if (QR_UNLIKELY(flags != 0) && qr_db_is_unlogged(tree->db))
        return qr_db_fail(thread, QUIRE_ERR_UNSUPPORTED, "the log is disabled: writes survive from the next checkpoint on");
    ret_write->level = flags == 0 ? tree->db->options.level : flags;
    return check_writable(tree->db, thread);
}

int qr_db_put(struct quire_tree *tree, struct qr_thread *thread, const void *key, size_t key_size, const void *value,
              size_t value_size)
{
    struct qr_write write = {.key = qr_key_make(key, key_size),
                             .kind = QR_RECORD_PUT,
                             .value = value,
                             .value_size = (uint32_t)value_size};
    bool waited;
    int result = tree->db->files == NULL ? 0 : check_writable(tree->db, thread);
    if (result == 0) result = run_write(tree, thread, &write, &waited);
    if (result == 0) qr_counter_set(&thread->counters[QR_COUNTER_LAST_LSN], write.ret_lsn);
    if (result != 0 || tree->db->files == NULL) return result;
    write.level = tree->db->options.level;
    return acknowledge(tree->db, thread, &write);
}

int quire_put(struct quire_tree *tree, const void *key, size_t key_size, const void *value, size_t value_size,
              unsigned flags, uint64_t *ret_lsn)
{
    struct qr_thread *thread = NULL;
    struct qr_write write;
    int result = begin(tree, &thread, key, key_size, value, value_size, flags, false, &write);
    if (QR_UNLIKELY(result != 0)) return result;
    uint64_t start_ns = qr_db_sample_start(tree->db, thread, QR_COUNTER_PUTS);
    qr_db_count(tree->db, thread, QR_COUNTER_PUTS, 1);
    result = finish(tree, thread, &write, qr_db_run_write(tree, thread, &write), ret_lsn);
    qr_db_sample_end(thread, start_ns, QR_COUNTER_PUT_SAMPLES);
    return result;
}

int quire_put_at(struct quire_tree *tree, uint64_t version, const void *key, size_t key_size, const void *value,
                 size_t value_size, unsigned flags, uint64_t *ret_lsn)
{
    struct qr_thread *thread = NULL;
    struct qr_write write;
    int result = begin(tree, &thread, key, key_size, value, value_size, flags, true, &write);
    if (QR_UNLIKELY(result != 0)) return result;
    qr_db_count(tree->db, thread, QR_COUNTER_PUTS, 1);
    write.version = version;
    return finish(tree, thread, &write, qr_db_run_write(tree, thread, &write), ret_lsn);
}

/* ---- Deleting --------------------------------------------------------------------------------------------------- */

static int note_existed(struct qr_write *write, const struct quire_value *present)
{
    *(bool *)write->argument = present != NULL;
    return 0;
}

int quire_delete(struct quire_tree *tree, const void *key, size_t key_size, unsigned flags, int *ret_existed,
                 uint64_t *ret_lsn)
{
    struct qr_thread *thread = NULL;
    struct qr_write write;
    bool existed = false;
    int result = begin(tree, &thread, key, key_size, NULL, 0, flags, false, &write);
    if (QR_UNLIKELY(result != 0)) return result;
    uint64_t start_ns = qr_db_sample_start(tree->db, thread, QR_COUNTER_DELETES);
    qr_db_count(tree->db, thread, QR_COUNTER_DELETES, 1);
    write.kind = QR_RECORD_DELETE;
    if (ret_existed != NULL) {
        write.condition = note_existed;
        write.argument = &existed;
    }
    result = finish(tree, thread, &write, qr_db_run_write(tree, thread, &write), ret_lsn);
    if (result == 0 && ret_existed != NULL) *ret_existed = existed;
    qr_db_sample_end(thread, start_ns, QR_COUNTER_DELETE_SAMPLES);
    return result;
}

int quire_delete_at(struct quire_tree *tree, uint64_t version, const void *key, size_t key_size, unsigned flags,
                    uint64_t *ret_lsn)
{
    struct qr_thread *thread = NULL;
    struct qr_write write;
    int result = begin(tree, &thread, key, key_size, NULL, 0, flags, true, &write);
    if (QR_UNLIKELY(result != 0)) return result;
    qr_db_count(tree->db, thread, QR_COUNTER_DELETES, 1);
    write.kind = QR_RECORD_DELETE;
    write.version = version;
    return finish(tree, thread, &write, qr_db_run_write(tree, thread, &write), ret_lsn);
}

/* ---- Conditional writes ----------------------------------------------------------------------------------------- */

static int must_be_absent(struct qr_write *write, const struct quire_value *present)
{
    (void)write;
    return present == NULL ? 0 : QUIRE_EXISTS;
}

int quire_insert(struct quire_tree *tree, const void *key, size_t key_size, const void *value, size_t value_size,
                 unsigned flags, uint64_t *ret_lsn)
{
    struct qr_thread *thread = NULL;
    struct qr_write write;
    int result = begin(tree, &thread, key, key_size, value, value_size, flags, false, &write);
    if (QR_UNLIKELY(result != 0)) return result;
    qr_db_count(tree->db, thread, QR_COUNTER_INSERTS, 1);
    write.condition = must_be_absent;
    return finish(tree, thread, &write, qr_db_run_write(tree, thread, &write), ret_lsn);
}

static int must_equal(struct qr_write *write, const struct quire_value *present)
{
    const struct expectation *expected = write->argument;
    if (present == NULL) return QUIRE_NOT_FOUND;
    if (QR_UNLIKELY(present->data == NULL && present->size == expected->value.size)) { /* a blob */
        if (expected->read_lsn != present->lsn) return QR_BLOB;
        return expected->equal ? 0 : QUIRE_CONFLICT;
    }
    return qr_equal(present->data, present->size, expected->value.data, expected->value.size) ? 0 : QUIRE_CONFLICT;
}

int quire_compare_and_swap(struct quire_tree *tree, const void *key, size_t key_size, const void *expected,
                           size_t expected_size, const void *value, size_t value_size, unsigned flags,
                           uint64_t *ret_lsn)
{
    struct qr_thread *thread = NULL;
    struct qr_write write;
    struct expectation argument = {.value = {expected, expected_size}};
    int result = begin(tree, &thread, key, key_size, value, value_size, flags, false, &write);
    if (QR_UNLIKELY(result != 0)) return result;
    if (expected == NULL && expected_size != 0)
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "expected is NULL, its size is %zu", expected_size);
    qr_db_count(tree->db, thread, QR_COUNTER_COMPARE_AND_SWAPS, 1);
    write.condition = must_equal;
    write.argument = &argument;
    return finish(tree, thread, &write, qr_db_run_write(tree, thread, &write), ret_lsn);
}

struct addition {
    int64_t delta;
    int64_t sum;
    uint8_t stored[sizeof(uint64_t)]; /* the sum, little endian */
};

static int sum_with(const struct quire_value *present, int64_t delta, int64_t *ret_sum)
{
    int64_t value = 0;
    if (present != NULL && (present->size != sizeof(value) || present->data == NULL)) return QUIRE_ERR_WRONG_TYPE;
    if (present != NULL) value = (int64_t)qr_load_u64(present->data);
    return __builtin_add_overflow(value, delta, ret_sum) ? QUIRE_ERR_OVERFLOW : 0;
}

static int add_to_present(struct qr_write *write, const struct quire_value *present)
{
    struct addition *addition = write->argument;
    int result = sum_with(present, addition->delta, &addition->sum);
    if (result == 0) qr_store_u64(addition->stored, (uint64_t)addition->sum);
    return result;
}

static int gives_the_same_sum(struct qr_write *write, const struct quire_value *present)
{
    const struct addition *addition = write->argument;
    int64_t sum;
    int result = sum_with(present, addition->delta, &sum);
    if (result != 0) return result;
    return sum == addition->sum ? 0 : QUIRE_CONFLICT;
}

/* With a key that is too large for a frame the sum goes to the log before the page is looked at: so it is computed first, and
 * written if it still is the sum then. */
static int add_with_parts(struct quire_tree *tree, struct qr_thread *thread, struct qr_write *write)
{
    struct addition *addition = write->argument;
    int result;
    write->condition = gives_the_same_sum;
    do {
        struct quire_value present;
        qr_epoch_enter(thread);
        result = qr_db_find(tree, thread, &write->key, UINT64_MAX, &present);
        if (result == QR_BLOB)
            result = QUIRE_ERR_WRONG_TYPE;
        else if (result >= 0)
            result = sum_with(result == 0 ? &present : NULL, addition->delta, &addition->sum);
        qr_epoch_exit(thread);
        if (result != 0) return result;
        qr_store_u64(addition->stored, (uint64_t)addition->sum);
        result = qr_db_run_write(tree, thread, write);
    } while (result == QUIRE_CONFLICT);
    return result;
}

int quire_add(struct quire_tree *tree, const void *key, size_t key_size, int64_t delta, unsigned flags,
              int64_t *ret_value, uint64_t *ret_lsn)
{
    struct qr_thread *thread = NULL;
    struct qr_write write;
    struct addition addition = {.delta = delta};
    int result = begin(tree, &thread, key, key_size, addition.stored, sizeof(addition.stored), flags, false, &write);
    if (QR_UNLIKELY(result != 0)) return result;
    qr_db_count(tree->db, thread, QR_COUNTER_ADDS, 1);
    write.condition = add_to_present;
    write.argument = &addition;
    result = QR_UNLIKELY(qr_log_is_large(&tree->db->log, key_size, sizeof(addition.stored)))
                 ? add_with_parts(tree, thread, &write)
                 : qr_db_run_write(tree, thread, &write);
    result = finish(tree, thread, &write, result, ret_lsn);
    if (result == 0 && ret_value != NULL) *ret_value = addition.sum;
    return result;
}

/* ---- Safe version ----------------------------------------------------------------------------------------------- */

int quire_set_safe_lsn(struct quire_tree *tree, uint64_t version)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin_tree(tree, &thread);
    if (result != 0) return result;
    if (!tree->tree.settings.caller_versions)
        return qr_db_fail(thread, QUIRE_ERR_UNSUPPORTED, "the tree has engine versions");
    result = tree->db->files == NULL ? 0 : check_writable(tree->db, thread);
    if (result != 0) return result;
    result = qr_db_catalogue_raise_safe(tree, thread, version);
    qr_db_tell(tree->db);
    if (result == 0 || result == QUIRE_ERR_UNKNOWN) return result; /* UNKNOWN has been counted */
    return report(tree->db, thread, &(struct qr_write){.version = version}, result);
}

int quire_safe_lsn(struct quire_tree *tree, uint64_t *ret_version)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin_tree(tree, &thread);
    if (result != 0) return result;
    if (!tree->tree.settings.caller_versions)
        return qr_db_fail(thread, QUIRE_ERR_UNSUPPORTED, "the tree has engine versions");
    if (ret_version == NULL) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_version is NULL");
    *ret_version = qr_tree_safe_version(&tree->tree);
    return 0;
}
