/*
 * open.c: opening and closing a database, its options, and what every call begins with.
 *
 * Layer 6. Read db.h first.
 */
#include <stdarg.h>
#include <stdio.h>

#include "db/blobs.h"
#include "db/db.h"
#include "db/flush.h"

/* ---- Failures --------------------------------------------------------------------------------------------------- */

void qr_db_count_failure(struct qr_thread *thread, int result)
{
    qr_counter_add(&thread->counters[QR_COUNTER_ERRORS], 1);
    if (result == QUIRE_ERR_NO_MEMORY) qr_counter_add(&thread->counters[QR_COUNTER_ERRORS_NO_MEMORY], 1);
    if (result == QUIRE_ERR_STALLED) qr_counter_add(&thread->counters[QR_COUNTER_ERRORS_STALLED], 1);
    if (result == QUIRE_ERR_IO) qr_counter_add(&thread->counters[QR_COUNTER_ERRORS_IO], 1);
    if (result == QUIRE_ERR_NO_SPACE) qr_counter_add(&thread->counters[QR_COUNTER_ERRORS_NO_SPACE], 1);
    if (result == QUIRE_ERR_UNKNOWN) qr_counter_add(&thread->counters[QR_COUNTER_ERRORS_UNKNOWN], 1);
}

int qr_db_fail(struct qr_thread *thread, int result, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (thread != NULL) qr_db_count_failure(thread, result);
    return qr_fail(result, 0, "%s", text);
}

int qr_db_fail_below(struct qr_thread *thread, int result)
{
    bool of_file = result == QUIRE_ERR_IO || result == QUIRE_ERR_NO_SPACE || result == QUIRE_ERR_CORRUPT ||
                   result == QUIRE_ERR_NEWER;
    if (!of_file) return qr_db_fail(thread, result, "%s", quire_strerror(result));
    qr_db_count_failure(thread, result);
    return result;
}

/* ---- Options ---------------------------------------------------------------------------------------------------- */

#define DEFAULT_STALL_TIMEOUT_MS 10000u
#define SMALLEST_MEMORY_LIMIT ((uint64_t)4 << 20)
#define MOST_THREADS 16u
#define DEFAULT_SYNC_PERIOD_MS 100u
#define DEFAULT_SYNC_VOLUME ((uint64_t)64 << 20)
#define DEFAULT_LOG_SEGMENT ((uint64_t)64 << 20)
#define DEFAULT_CHECKPOINT_INTERVAL_MS 60000u
#define LEAST_LOG_CAP ((uint64_t)64 << 10)
#define MOST_LOG_SEGMENT ((uint64_t)1 << 30)

void quire_options_init(struct quire_options *ret_options)
{
    if (ret_options == NULL) return;
    memset(ret_options, 0, sizeof(*ret_options));
    ret_options->struct_size = sizeof(*ret_options);
}

int quire_options_preset(struct quire_options *ret_options, enum quire_preset preset)
{
    struct quire_options o;
    if (ret_options == NULL) return qr_fail(QUIRE_ERR_INVALID, 0, "ret_options is NULL");
    quire_options_init(&o);
    switch (preset) {
    case QUIRE_PRESET_READ_OPTIMIZED:
        o.background_threads = 2;
        break;
    case QUIRE_PRESET_WRITE_OPTIMIZED:
        o.level = QUIRE_LEVEL_PROCESS;
        o.sync_period_ms = 1000;
        o.sync_volume_bytes = (uint64_t)256 << 20;
        break;
    case QUIRE_PRESET_BALANCED:
        break;
    case QUIRE_PRESET_LOW_MEMORY:
        o.memory_limit_bytes = (uint64_t)64 << 20;
        o.log_segment_bytes = (uint64_t)1 << 20;
        o.sync_volume_bytes = (uint64_t)4 << 20;
        break;
    case QUIRE_PRESET_DEVELOPMENT:
        o.level = QUIRE_LEVEL_PROCESS;
        o.no_sync_at_close = 1;
        o.log_segment_bytes = (uint64_t)1 << 20;
        break;
    case QUIRE_PRESET_MAX_DURABILITY:
        o.level = QUIRE_LEVEL_DURABLE;
        o.sync_period_ms = 10;
        o.sync_volume_bytes = (uint64_t)1 << 20;
        break;
    default:
        return qr_fail(QUIRE_ERR_INVALID, 0, "there is no preset %d", (int)preset);
    }
    *ret_options = o;
    return 0;
}

int qr_db_take_options(struct qr_thread *thread, const char *name, const void *from, void *to, size_t to_size)
{
    if (from == NULL) return 0;
    const uint8_t *bytes = from;
    const size_t given_size = *(const size_t *)from;
    size_t size = given_size == 0 ? to_size : given_size;
    if (size < sizeof(size_t) || size > QR_MAX_OPTIONS_SIZE)
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "%s.struct_size is %zu", name, given_size);
    for (size_t i = to_size; i < size; i++)
        if (bytes[i] != 0)
            return qr_db_fail(thread, QUIRE_ERR_INVALID,
                              "%s.struct_size is larger than this library knows, and byte %zu is set", name, i);
    memcpy(to, from, qr_min(size, to_size));
    *(size_t *)to = to_size;
    return 0;
}

int qr_db_hand_out_options(struct qr_thread *thread, const void *options, size_t size, void *ret_options)
{
    if (ret_options == NULL || *(size_t *)ret_options < sizeof(size_t))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_options is NULL or its struct_size is not set");
    const size_t ret_size = *(size_t *)ret_options;
    if (ret_size > QR_MAX_OPTIONS_SIZE)
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_options.struct_size is %zu", ret_size);
    qr_db_hand_out(ret_options, ret_size, options, size);
    *(size_t *)ret_options = ret_size;
    return 0;
}

/* The options of a database without files: those of files are not set. */
static int refuse_file_options(const struct quire_options *o)
{
    const char *set = NULL;
    if (o->open_mode != 0) set = "open_mode";
    if (o->level != 0) set = "level";
    if (o->sync_period_ms != 0) set = "sync_period_ms";
    if (o->disable_ring != 0) set = "disable_ring";
    if (o->sync_volume_bytes != 0) set = "sync_volume_bytes";
    if (o->log_segment_bytes != 0) set = "log_segment_bytes";
    if (o->log_buffered != 0) set = "log_buffered";
    if (o->log_cap_bytes != 0) set = "log_cap_bytes";
    if (o->checkpoint_interval_ms != 0) set = "checkpoint_interval_ms";
    if (o->no_sync_at_close != 0) set = "no_sync_at_close";
    if (o->disable_log != 0) set = "disable_log";
    if (o->recovery_progress != NULL) set = "recovery_progress";
    if (o->recovery_context != NULL) set = "recovery_context";
    if (o->blob_threshold_bytes != 0) set = "blob_threshold_bytes";
    if (set == NULL) return 0;
    return qr_fail(QUIRE_ERR_INVALID, 0, "options.%s is set, and path is NULL", set);
}

static int fill_file_options(struct quire_options *o)
{
    const char *bad = NULL;
    uint64_t segment = o->log_segment_bytes == 0 ? DEFAULT_LOG_SEGMENT : o->log_segment_bytes;
    bool temporary = o->open_mode == QUIRE_OPEN_TEMPORARY;
    if (o->open_mode > QUIRE_OPEN_TEMPORARY) bad = "open_mode";
    if (temporary && o->level == QUIRE_LEVEL_DURABLE) bad = "level";
    if (o->disable_log > 1) bad = "disable_log";
    if (o->level != 0 && (o->level == QUIRE_LEVEL_CHECKPOINT) != (o->disable_log == 1)) bad = "level";
    if (o->level > QUIRE_LEVEL_CHECKPOINT) bad = "level";
    if (o->sync_period_ms > 3600000 && o->sync_period_ms != QUIRE_NO_PERIOD) bad = "sync_period_ms";
    if (o->disable_ring > 1) bad = "disable_ring";
    if (segment < QR_LOG_SEGMENT_LEAST || segment > MOST_LOG_SEGMENT || (segment & (segment - 1)) != 0)
        bad = "log_segment_bytes";
    if (o->log_buffered > 1) bad = "log_buffered";
    if (o->log_cap_bytes != 0 && o->log_cap_bytes < LEAST_LOG_CAP) bad = "log_cap_bytes";
    if (o->checkpoint_interval_ms > 86400000 && o->checkpoint_interval_ms != QUIRE_NO_PERIOD)
        bad = "checkpoint_interval_ms";
    if (o->no_sync_at_close > 1) bad = "no_sync_at_close";
    if (o->blob_threshold_bytes != 0 &&
        (o->blob_threshold_bytes < QR_LEAST_BLOB_THRESHOLD || o->blob_threshold_bytes > QR_MAX_VALUE_SIZE))
        bad = "blob_threshold_bytes";
    if (bad != NULL) return qr_fail(QUIRE_ERR_INVALID, 0, "options.%s is out of range", bad);
    o->log_segment_bytes = segment;
    if (o->checkpoint_interval_ms == 0) o->checkpoint_interval_ms = DEFAULT_CHECKPOINT_INTERVAL_MS;
    if (temporary) { /* syncs nothing by itself */
        o->level = QUIRE_LEVEL_PROCESS;
        o->no_sync_at_close = 1;
        if (o->sync_period_ms == 0) o->sync_period_ms = QUIRE_NO_PERIOD;
        if (o->sync_volume_bytes == 0) o->sync_volume_bytes = UINT64_MAX;
    }
    if (o->open_mode == QUIRE_OPEN_READ_ONLY) { /* nothing is written */
        o->disable_log = 0;
        if (o->level == QUIRE_LEVEL_CHECKPOINT) o->level = 0;
    }
    if (o->disable_log != 0) o->level = QUIRE_LEVEL_CHECKPOINT;
    if (o->level == 0) o->level = QUIRE_LEVEL_DURABLE;
    if (o->sync_period_ms == 0) o->sync_period_ms = DEFAULT_SYNC_PERIOD_MS;
    if (o->sync_volume_bytes == 0) o->sync_volume_bytes = DEFAULT_SYNC_VOLUME;
    if (o->blob_threshold_bytes == 0) o->blob_threshold_bytes = QR_DEFAULT_BLOB_THRESHOLD;
    o->blob_threshold_bytes = qr_min(o->blob_threshold_bytes, segment * (QR_LOG_RING / 4)); /* more may not fit the log at all */
    return 0;
}

static int fill_options(struct quire_options *o)
{
    if (o->memory_limit_bytes != 0 && o->memory_limit_bytes < SMALLEST_MEMORY_LIMIT)
        return qr_fail(QUIRE_ERR_INVALID, 0, "options.memory_limit_bytes is below 4 MiB");
    if (o->background_threads != QUIRE_NO_THREADS && o->background_threads > MOST_THREADS)
        return qr_fail(QUIRE_ERR_INVALID, 0, "options.background_threads is above 16");
    if (o->stall_timeout_ms > 3600000)
        return qr_fail(QUIRE_ERR_INVALID, 0, "options.stall_timeout_ms is above an hour");
    if (o->disable_statistics > 1) return qr_fail(QUIRE_ERR_INVALID, 0, "options.disable_statistics is not 0 or 1");
    if (o->reserved != 0) return qr_fail(QUIRE_ERR_INVALID, 0, "options.reserved is not 0");
    if (o->background_threads == 0) o->background_threads = 1;
    if (o->stall_timeout_ms == 0) o->stall_timeout_ms = DEFAULT_STALL_TIMEOUT_MS;
    return 0;
}

int quire_options_get(struct quire *db, struct quire_options *ret_options)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    return qr_db_hand_out_options(thread, &db->options, sizeof(db->options), ret_options);
}

void quire_limits(struct quire_limits *ret_limits)
{
    if (ret_limits == NULL) return;
    *ret_limits = (struct quire_limits){QR_MAX_KEY_SIZE, QR_MAX_VALUE_SIZE, QR_MAX_TREE_NAME_SIZE,
                                        QR_MAX_FILE_VALUE_SIZE};
}

/* ---- Open ------------------------------------------------------------------------------------------------------- */

/* Page ids come back after their grace period. */
static void reclaim_kind(void *context, struct qr_thread *thread, unsigned kind, void *pointer, uint64_t size)
{
    struct quire *db = context;
    (void)thread;
    (void)size;
    uint64_t pid = (uint64_t)(uintptr_t)pointer;
    if (kind != QR_RETIRE_PID) return;
    if (db->checkpointer.store != NULL) {
        qr_store_remove(db->checkpointer.store, pid); /* before the id can have another page */
        qr_map_note_change(db->map, pid);
    }
    qr_map_free(db->map, pid);
}

static const struct qr_epoch_ops epoch_ops = {.reclaim = reclaim_kind};

static uint32_t snapshot_bounds(void *context, uint64_t *bounds, uint32_t capacity, uint64_t *ret_keep_above)
{
    struct quire *db = context;
    return qr_snapshots_bounds(&db->snapshots, bounds, capacity, ret_keep_above);
}

static void blobs_dead(void *context, const uint8_t *references, uint32_t count)
{
    struct quire *db = context;
    qr_blob_dead(db->checkpointer.store, references, count, qr_log_tail(&db->log));
}

static const struct qr_tree_ops tree_ops = {
    .snapshot_bounds = snapshot_bounds, .image_max_lsn = qr_db_image_max_lsn, .blobs_dead = blobs_dead};

static void wire(struct quire *db)
{
    qr_log_init(&db->log);
    qr_snapshots_init(&db->snapshots, &db->log, db->epoch);
    db->env = (struct qr_tree_env){
        .arena = db->arena,
        .arena_start = qr_arena_start(db->arena),
        .epoch = db->epoch,
        .map = db->map,
        .log = &db->log,
        .ops = &tree_ops,
        .context = db,
        .snapshot_generation = &db->snapshots.generation,
        .holding = &db->checkpointer.holding,
    };
    pthread_mutex_init(&db->trees_mutex, NULL);
    pthread_mutex_init(&db->stats_mutex, NULL);
    qr_db_maintain_init(db);
    qr_db_events_init(db);
}

/* Frees what open has made so far; all parts may be missing. */
static void tear_down(struct quire *db)
{
    qr_db_catalogue_close(db);
    if (db->env.epoch != NULL) {
        qr_db_maintain_done(db);
        qr_db_events_done(db);
        qr_snapshots_done(&db->snapshots);
        pthread_mutex_destroy(&db->trees_mutex);
        pthread_mutex_destroy(&db->stats_mutex);
    }
    qr_epoch_destroy(db->epoch); /* which gives ids back to map and store */
    qr_db_checkpointer_close(db);
    qr_db_files_close(db);
    if (db->source.destroy != NULL) db->source.destroy(db->source.context);
    qr_map_destroy(db->map);
    qr_arena_destroy(db->arena);
    qr_free_aligned(db);
}

static void stop_threads(struct quire *db)
{
    /* order: db.stop.set pairs with db.stop.seen */
    atomic_store_explicit(&db->stopping, 1, memory_order_release);
    qr_db_log_thread_stop(db);
    qr_db_checkpoint_thread_stop(db); /* before the others: a checkpoint asks whether there are any */
    qr_db_background_stop(db);
}

static int no_memory(int result)
{
    return qr_fail(result, 0, result == QUIRE_ERR_FORKED ? "a child made by fork opens a database after exec only"
                                                         : "no memory or threads to open a database");
}

static int build(struct quire *db, const char *path, struct qr_disk *disk)
{
    struct qr_thread *thread = NULL;
    int result = qr_arena_create(qr_db_arena_limit(db), &db->arena);
    if (result == 0) result = qr_epoch_create(db->arena, &epoch_ops, db, &db->epoch);
    if (result == 0) result = qr_map_create(db->arena, 0, &db->map);
    if (result != 0) return no_memory(result);
    wire(db);
    thread = qr_thread_self(db->epoch);
    if (thread == NULL) return no_memory(QUIRE_ERR_NO_MEMORY);
    if (path == NULL && db->options.open_mode != QUIRE_OPEN_TEMPORARY) {
        result = qr_db_catalogue_open(db, thread, QR_PID_NONE);
        if (result != 0) return no_memory(result);
    } else {
        result = qr_db_files_open(db, path, disk);
        if (result == 0) result = qr_db_recover(db, thread);
        if (result != 0) return result;
    }
    result = qr_db_background_start(db);
    if (result != 0) return no_memory(result);
    if (path == NULL) return 0;
    result = qr_db_checkpoint_thread_start(db); /* before the log's, which asks whether there is one */
    return result == 0 ? qr_db_log_thread_start(db) : result;
}

int qr_db_open(const char *path, struct qr_disk *disk, const struct quire_options *options, struct quire **ret_db)
{
    struct quire_options effective;
    if (ret_db == NULL) return qr_fail(QUIRE_ERR_INVALID, 0, "ret_db is NULL");
    quire_options_init(&effective);
    int result = qr_db_take_options(NULL, "options", options, &effective, sizeof(effective));
    if (result == 0) result = fill_options(&effective);
    if (result == 0) result = path == NULL && effective.open_mode != QUIRE_OPEN_TEMPORARY
                                  ? refuse_file_options(&effective)
                                  : fill_file_options(&effective);
    if (result != 0) return result;

    struct quire *db = qr_malloc_aligned(64, sizeof(*db));
    if (db == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the database handle");
    memset(db, 0, sizeof(*db));
    db->options = effective;
    result = build(db, path, disk);
    if (result != 0) {
        stop_threads(db);
        tear_down(db);
        return result;
    }
    *ret_db = db;
    return 0;
}

int quire_open(const char *path, const struct quire_options *options, struct quire **ret_db)
{
    return qr_db_open(path, NULL, options, ret_db);
}

/* The last sync of a database that is closed in good order. */
static int sync_at_close(struct quire *db)
{
    struct qr_thread *thread = qr_thread_self(db->epoch);
    if (db->options.no_sync_at_close != 0) return 0;
    if (qr_db_is_unlogged(db)) return qr_db_close_unlogged(db, thread);
    if (db->log.files == NULL) return 0;
    if (thread != NULL && qr_log_tail(&db->log) != qr_log_first_lsn(&db->log) && qr_db_checkpoint(db, thread, true) == 0) return 0;
    return qr_log_wait(&db->log, qr_log_tail(&db->log) - 1, QR_LOG_DURABLE);
}

int quire_close(struct quire *db)
{
    if (db == NULL || qr_epoch_forked(db->epoch)) return 0;
    uint32_t snapshots = qr_db_open_count(&db->snapshots_open);
    uint32_t iterators = qr_db_open_count(&db->iterators_open);
    uint64_t guards = qr_epoch_guards_open(db->epoch);
    if (guards != 0 || snapshots != 0 || iterators != 0)
        return qr_fail(QUIRE_ERR_BUSY, 0, "open: %llu guards, %u snapshots, %u pages iterators",
                       (unsigned long long)guards, snapshots, iterators);
    /* A background thread may be in a grace period, which would wait for this thread, and this thread for it. */
    if (qr_epoch_inside_any())
        return qr_fail(QUIRE_ERR_BUSY, 0, "the calling thread holds a guard of another database");
    stop_threads(db);
    int result = sync_at_close(db);
    qr_db_tell_close(db, result);
    tear_down(db);
    return result;
}

void qr_db_open_count_add(_Atomic uint32_t *count, uint32_t amount)
{
    /* relaxed: a count; close looks at it when nothing else runs */
    atomic_fetch_add_explicit(count, amount, memory_order_relaxed);
}

uint32_t qr_db_open_count(const _Atomic uint32_t *count)
{
    /* relaxed: as above */
    return atomic_load_explicit(count, memory_order_relaxed);
}

/* ---- Shared by the operations ----------------------------------------------------------------------------------- */

int qr_db_fetch(struct quire *db, struct qr_op *op)
{
    struct qr_page *page = NULL;
    uint64_t address = op->need_address;
    uint64_t pid = op->need_pid;
    QR_ASSERT(db->source.read != NULL);
    qr_epoch_exit(op->thread);
    if (address == 0) {
        int located = qr_db_locate_page(db, pid);
        qr_epoch_enter(op->thread);
        return located;
    }
    if (op->image_count == QR_OP_IMAGES) qr_op_done(op); /* what is needed again is read again */
    int result = db->source.read(db->source.context, op->thread, pid, address, &page);
    qr_epoch_enter(op->thread);
    if (result == 0) qr_op_add_image(op, address, page);
    return result == QR_RETRY ? 0 : result;
}

int qr_db_find(struct quire_tree *tree, struct qr_thread *thread, const struct qr_key *key, uint64_t version,
               struct quire_value *ret_value)
{
    struct qr_op op;
    qr_op_init(&op, &tree->tree, thread);
    int result = qr_tree_find(&op, key, version, ret_value);
    if (QR_LIKELY(result != QR_FETCH)) return result;
    do {
        result = qr_db_fetch(tree->db, &op);
        if (result == 0) result = qr_tree_find(&op, key, version, ret_value);
    } while (result == QR_FETCH);
    qr_op_done(&op);
    return result;
}

void qr_db_sample_add(struct qr_thread *thread, uint64_t start_ns, enum qr_counter samples)
{
    qr_counter_add(&thread->counters[samples], 1);
    qr_counter_add(&thread->counters[samples + 1], qr_clock_ns() - start_ns);
}
