/*
 * read.c: the public calls that read by copy, and those that read under a guard.
 *
 * Layer 6.
 */
#include "db/blobs.h"
#include "db/db.h"

/* What every read begins with. Inlined, so that a guarded get passes its questions in few instructions. */
static QR_ALWAYS_INLINE int begin(struct quire_tree *tree, const struct quire_snapshot *snapshot, const void *key,
                                  size_t key_size, bool caller, struct qr_thread **ret_thread)
{
    int result = qr_db_begin_tree(tree, ret_thread);
    if (QR_UNLIKELY(result != 0)) return result;
    result = qr_db_check_key(*ret_thread, key, key_size);
    if (QR_UNLIKELY(result != 0)) return result;
    result = qr_db_check_snapshot(*ret_thread, tree, snapshot);
    if (QR_UNLIKELY(result != 0)) return result;
    if (QR_UNLIKELY(tree->tree.settings.caller_versions != caller))
        return qr_db_fail(*ret_thread, QUIRE_ERR_UNSUPPORTED, caller ? "the tree has engine versions"
                                                                     : "the tree has caller versions");
    return 0;
}

/* result: what the call answers; size: of the value, counted if it was handed out. */
static inline void count_get(struct quire *db, struct qr_thread *thread, int result, size_t size)
{
    if (db->options.disable_statistics != 0) return;
    qr_counter_add(&thread->counters[QR_COUNTER_GETS], 1);
    if (result == 0)
        qr_counter_add(&thread->counters[QR_COUNTER_READ_BYTES], size);
    else if (result == QUIRE_NOT_FOUND)
        qr_counter_add(&thread->counters[QR_COUNTER_GETS_NOT_FOUND], 1);
}

static int failed(struct qr_thread *thread, int result)
{
    return result < 0 ? qr_db_fail_below(thread, result) : result;
}

/* Reads below the safe version may find collected ones: refused. Looked at after the read, so that what was collected
 * meanwhile counts. */
static int check_safe(struct quire_tree *tree, struct qr_thread *thread, uint64_t version)
{
    uint64_t safe = qr_tree_safe_version(&tree->tree);
    if (QR_LIKELY(version >= safe)) return 0;
    return qr_db_fail(thread, QUIRE_ERR_LSN_TOO_OLD, "version %llu is below the safe version %llu",
                      (unsigned long long)version, (unsigned long long)safe);
}

/* ---- By copy ---------------------------------------------------------------------------------------------------- */

/* Copies a value out, inside the section that keeps it. */
static int copy_out(struct qr_thread *thread, const struct quire_value *value, void *buffer, size_t capacity,
                    size_t *ret_size)
{
    *ret_size = value->size;
    if (value->size > capacity)
        return qr_db_fail(thread, QUIRE_ERR_BUFFER_TOO_SMALL, "value of %zu bytes, buffer of %zu", value->size,
                          capacity);
    qr_copy(buffer, value->data, value->size);
    return 0;
}

/* The room of quire_get: the caller's buffer. */
static int use_buffer(struct qr_db_room *room, size_t size, void **ret_memory)
{
    *room->ret_size = size;
    *ret_memory = room->memory;
    if (size <= room->size) return 0;
    return qr_fail(QUIRE_ERR_BUFFER_TOO_SMALL, 0, "value of %zu bytes, buffer of %zu", size, room->size);
}

/* The room of quire_get_copy: a block of its own. */
static int use_copy(struct qr_db_room *room, size_t size, void **ret_memory)
{
    qr_free(room->memory);
    room->memory = *ret_memory = qr_malloc(size == 0 ? 1 : size);
    room->size = size;
    if (room->memory != NULL) return 0;
    return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a copy of %zu bytes", size);
}

/* After qr_db_find has answered QR_BLOB, in its section: what the call answers. */
static QR_NOINLINE int get_blob(struct quire_tree *tree, const struct qr_key *key, uint64_t version,
                                struct quire_value *value, struct qr_db_room *room)
{
    int result = qr_db_blob_read(tree, key, version, value, room);
    if (result == QR_BLOB) return 0;
    if (result == 0) { /* by now it is one that lies in its page */
        void *memory;
        result = room->make(room, value->size, &memory);
        if (result == 0) qr_copy(memory, value->data, value->size);
    }
    if (result < 0) qr_db_count_failure(room->thread, result);
    return result;
}

static int check_buffer(struct qr_thread *thread, const void *buffer, size_t capacity, const size_t *ret_size)
{
    if (QR_UNLIKELY(ret_size == NULL)) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_size is NULL");
    if (QR_UNLIKELY(buffer == NULL && capacity != 0))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "buffer is NULL, its capacity is %zu", capacity);
    return 0;
}

int quire_get(struct quire_tree *tree, struct quire_snapshot *snapshot, const void *key, size_t key_size, void *buffer,
              size_t capacity, size_t *ret_size)
{
    struct qr_thread *thread = NULL;
    struct quire_value value = {0};
    int result = begin(tree, snapshot, key, key_size, false, &thread);
    if (QR_LIKELY(result == 0)) result = check_buffer(thread, buffer, capacity, ret_size);
    if (QR_UNLIKELY(result != 0)) return result;
    uint64_t start_ns = qr_db_sample_start(tree->db, thread, QR_COUNTER_GETS);
    struct qr_key wanted = qr_key_make(key, key_size);
    qr_epoch_enter(thread);
    result = qr_db_find(tree, thread, &wanted, qr_db_version_of(snapshot), &value);
    if (QR_LIKELY(result == 0)) {
        result = copy_out(thread, &value, buffer, capacity, ret_size);
    } else if (result == QR_BLOB) {
        struct qr_db_room room = {tree->db, thread, use_buffer, buffer, capacity, ret_size};
        result = get_blob(tree, &wanted, qr_db_version_of(snapshot), &value, &room);
    } else {
        result = failed(thread, result);
    }
    qr_epoch_exit(thread);
    count_get(tree->db, thread, result, value.size);
    qr_db_sample_end(thread, start_ns, QR_COUNTER_GET_SAMPLES);
    return result;
}

int quire_get_at(struct quire_tree *tree, uint64_t version, const void *key, size_t key_size, void *buffer,
                 size_t capacity, size_t *ret_size)
{
    struct qr_thread *thread = NULL;
    struct quire_value value = {0};
    int result = begin(tree, NULL, key, key_size, true, &thread);
    if (result == 0) result = check_buffer(thread, buffer, capacity, ret_size);
    if (result != 0) return result;
    struct qr_key wanted = qr_key_make(key, key_size);
    qr_epoch_enter(thread);
    result = qr_db_find(tree, thread, &wanted, version, &value);
    int safe = check_safe(tree, thread, version);
    if (safe != 0) {
        result = safe;
    } else if (result == 0) {
        result = copy_out(thread, &value, buffer, capacity, ret_size);
    } else if (result == QR_BLOB) {
        struct qr_db_room room = {tree->db, thread, use_buffer, buffer, capacity, ret_size};
        result = get_blob(tree, &wanted, version, &value, &room);
        safe = check_safe(tree, thread, version); /* it may have been looked up again */
        if (safe != 0) result = safe;
    } else {
        result = failed(thread, result);
    }
    qr_epoch_exit(thread);
    count_get(tree->db, thread, result, value.size);
    return result;
}

int quire_get_copy(struct quire_tree *tree, struct quire_snapshot *snapshot, const void *key, size_t key_size,
                   void **ret_value, size_t *ret_size)
{
    struct qr_thread *thread = NULL;
    struct quire_value value = {0};
    int result = begin(tree, snapshot, key, key_size, false, &thread);
    if (result != 0) return result;
    if (ret_value == NULL || ret_size == NULL)
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_value or ret_size is NULL");
    struct qr_key wanted = qr_key_make(key, key_size);
    qr_epoch_enter(thread);
    result = qr_db_find(tree, thread, &wanted, qr_db_version_of(snapshot), &value);
    struct qr_db_room room = {tree->db, thread, use_copy, NULL, 0, NULL};
    if (result == 0) {
        void *copy;
        result = use_copy(&room, value.size, &copy);
        if (result == 0)
            qr_copy(copy, value.data, value.size);
        else
            qr_db_count_failure(thread, result);
    } else if (result == QR_BLOB) {
        result = get_blob(tree, &wanted, qr_db_version_of(snapshot), &value, &room);
    } else {
        result = failed(thread, result);
    }
    qr_epoch_exit(thread);
    if (result == 0) {
        *ret_value = room.memory;
        *ret_size = room.size;
    } else {
        qr_free(room.memory);
    }
    count_get(tree->db, thread, result, value.size);
    return result;
}

int quire_exists(struct quire_tree *tree, struct quire_snapshot *snapshot, const void *key, size_t key_size)
{
    struct qr_thread *thread = NULL;
    struct quire_value value = {0};
    int result = begin(tree, snapshot, key, key_size, false, &thread);
    if (result != 0) return result;
    struct qr_key wanted = qr_key_make(key, key_size);
    qr_epoch_enter(thread);
    result = qr_db_find(tree, thread, &wanted, qr_db_version_of(snapshot), &value);
    if (result == QR_BLOB) result = 0;
    count_get(tree->db, thread, result, 0);
    qr_epoch_exit(thread);
    return failed(thread, result);
}

/* ---- Under a guard ---------------------------------------------------------------------------------------------- */

/* The guard must be pinned, by this thread, on the tree's database. */
static QR_ALWAYS_INLINE int check_guard(const struct quire_guard *guard, const struct quire_tree *tree,
                                        struct qr_thread *thread)
{
    if (QR_UNLIKELY(guard == NULL || guard->db != tree->db))
        return qr_db_fail(thread, QUIRE_ERR_INVALID,
                          guard == NULL || guard->db == NULL ? "guard is NULL or not pinned"
                                                             : "guard of another database");
    if (QR_UNLIKELY(guard->thread != thread))
        return qr_db_fail(thread, QUIRE_ERR_WRONG_THREAD, "the guard was pinned by another thread");
    if (QR_UNLIKELY(!qr_epoch_pinned(thread, guard->state[0])))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, QR_DB_GUARD_ENDED);
    return 0;
}

/* As qr_db_find, in a section of its own: a fetch leaves it for a while, the guard's stays open. 0, QUIRE_NOT_FOUND, or a failure that
 * was counted. */
static QR_NOINLINE int guard_find(struct quire_tree *tree, struct qr_thread *thread, const struct qr_key *key,
                                  uint64_t version, struct quire_value *ret_value)
{
    struct qr_db_room room = {tree->db, thread, qr_db_room_of_guard, NULL, 0, NULL};
    struct quire_value value = {0};
    qr_epoch_enter(thread);
    int result = qr_db_find(tree, thread, key, version, &value);
    if (result == QR_BLOB) {
        result = qr_db_blob_read(tree, key, version, &value, &room);
        if (result < 0) qr_db_count_failure(thread, result);
    } else {
        result = failed(thread, result);
    }
    qr_epoch_exit(thread);
    if (result == QR_BLOB) result = 0;
    if (result == 0) *ret_value = value;
    return result;
}

int quire_guard_get(struct quire_guard *guard, struct quire_tree *tree, struct quire_snapshot *snapshot,
                    const void *key, size_t key_size, struct quire_value *ret_value)
{
    struct qr_thread *thread = NULL;
    int result = begin(tree, snapshot, key, key_size, false, &thread);
    if (QR_LIKELY(result == 0)) result = check_guard(guard, tree, thread);
    if (QR_UNLIKELY(result != 0)) return result;
    if (QR_UNLIKELY(ret_value == NULL)) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_value is NULL");
    uint64_t start_ns = qr_db_sample_start(tree->db, thread, QR_COUNTER_GETS);
    result = qr_tree_find_plain(&tree->tree, key, key_size, qr_db_version_of(snapshot), ret_value);
    if (QR_UNLIKELY(result == QR_RETRY || result == QR_BLOB)) {
        struct qr_key wanted = qr_key_make(key, key_size);
        result = guard_find(tree, thread, &wanted, qr_db_version_of(snapshot), ret_value);
    }
    count_get(tree->db, thread, result, result == 0 ? ret_value->size : 0);
    qr_db_sample_end(thread, start_ns, QR_COUNTER_GET_SAMPLES);
    return result;
}

int quire_guard_get_at(struct quire_guard *guard, struct quire_tree *tree, uint64_t version, const void *key,
                       size_t key_size, struct quire_value *ret_value)
{
    struct qr_thread *thread = NULL;
    struct quire_value value = {0};
    int result = begin(tree, NULL, key, key_size, true, &thread);
    if (result == 0) result = check_guard(guard, tree, thread);
    if (result != 0) return result;
    if (ret_value == NULL) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_value is NULL");
    struct qr_key wanted = qr_key_make(key, key_size);
    result = guard_find(tree, thread, &wanted, version, &value);
    int safe = result < 0 ? 0 : check_safe(tree, thread, version);
    count_get(tree->db, thread, safe != 0 ? safe : result, value.size);
    if (safe != 0) return safe;
    if (result == 0) *ret_value = value;
    return result;
}

static int check_keys(struct qr_thread *thread, const struct quire_slice *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int result = qr_db_check_key(thread, keys[i].data, keys[i].size);
        if (QR_UNLIKELY(result != 0)) return result;
    }
    return 0;
}

int quire_get_many(struct quire_guard *guard, struct quire_tree *tree, struct quire_snapshot *snapshot,
                   const struct quire_slice *keys, size_t count, struct quire_value *ret_values, int *ret_results)
{
    struct qr_thread *thread = NULL;
    int result = begin(tree, snapshot, NULL, 0, false, &thread);
    if (QR_LIKELY(result == 0)) result = check_guard(guard, tree, thread);
    if (QR_UNLIKELY(result != 0)) return result;
    if (QR_UNLIKELY(count != 0 && (keys == NULL || ret_values == NULL || ret_results == NULL)))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "keys, ret_values or ret_results is NULL");
    result = check_keys(thread, keys, count);
    if (QR_UNLIKELY(result != 0)) return result;

    uint64_t version = qr_db_version_of(snapshot);
    qr_db_count(tree->db, thread, QR_COUNTER_GET_MANYS, 1);
    for (size_t from = 0; from < count; from += QR_FIND_BATCH) {
        struct qr_key wanted[QR_FIND_BATCH];
        uint32_t batch = (uint32_t)qr_min(count - from, QR_FIND_BATCH);
        for (uint32_t i = 0; i < batch; i++) wanted[i] = qr_key_make(keys[from + i].data, keys[from + i].size);
        qr_tree_find_many(&tree->tree, wanted, batch, version, ret_values + from, ret_results + from);
        for (uint32_t i = 0; i < batch; i++) {
            if (QR_UNLIKELY(ret_results[from + i] == QR_RETRY || ret_results[from + i] == QR_BLOB)) {
                result = guard_find(tree, thread, &wanted[i], version, &ret_values[from + i]);
                if (result < 0) return result;
                ret_results[from + i] = result;
            }
            count_get(tree->db, thread, ret_results[from + i], ret_results[from + i] == 0 ? ret_values[from + i].size : 0);
        }
    }
    return 0;
}
