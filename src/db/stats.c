/*
 * stats.c: statistics: summing the threads' counters, gauges, difference, text and JSON.
 *
 * Layer 6. One table names every field of struct quire_stats; what is done to all fields is a loop over it.
 */
#include <stdarg.h>
#include <stdio.h>

#include "db/blobs.h"
#include "db/db.h"

enum field_kind { COUNTER, GAUGE, TEXT };

struct field {
    const char *name;
    size_t offset;
    enum field_kind kind;
    int counter; /* enum qr_counter that it is the sum of, enum qr_total, or -1 */
};

#define FIELD(name, kind, counter)                                                                                     \
    {                                                                                                                  \
        #name, offsetof(struct quire_stats, name), kind, counter                                                       \
    }

static const struct field fields[] = {
    FIELD(gets, COUNTER, QR_COUNTER_GETS),
    FIELD(gets_not_found, COUNTER, QR_COUNTER_GETS_NOT_FOUND),
    FIELD(puts, COUNTER, QR_COUNTER_PUTS),
    FIELD(deletes, COUNTER, QR_COUNTER_DELETES),
    FIELD(inserts, COUNTER, QR_COUNTER_INSERTS),
    FIELD(compare_and_swaps, COUNTER, QR_COUNTER_COMPARE_AND_SWAPS),
    FIELD(adds, COUNTER, QR_COUNTER_ADDS),
    FIELD(pages_read, COUNTER, QR_COUNTER_PAGES_READ),
    FIELD(entries_read, COUNTER, QR_COUNTER_ENTRIES_READ),
    FIELD(get_manys, COUNTER, QR_COUNTER_GET_MANYS),
    FIELD(conflicts, COUNTER, QR_COUNTER_CONFLICTS),
    FIELD(errors, COUNTER, QR_COUNTER_ERRORS),
    FIELD(errors_no_memory, COUNTER, QR_COUNTER_ERRORS_NO_MEMORY),
    FIELD(errors_stalled, COUNTER, QR_COUNTER_ERRORS_STALLED),
    FIELD(read_bytes, COUNTER, QR_COUNTER_READ_BYTES),
    FIELD(write_bytes, COUNTER, QR_COUNTER_WRITE_BYTES),
    FIELD(get_latency_mean_ns, GAUGE, -1),
    FIELD(put_latency_mean_ns, GAUGE, -1),
    FIELD(delete_latency_mean_ns, GAUGE, -1),
    FIELD(tree_installs, COUNTER, QR_COUNTER_INSTALLS),
    FIELD(tree_install_conflicts, COUNTER, QR_COUNTER_INSTALL_CONFLICTS),
    FIELD(tree_consolidations, COUNTER, QR_COUNTER_CONSOLIDATIONS),
    FIELD(tree_consolidation_conflicts, COUNTER, QR_COUNTER_CONSOLIDATION_CONFLICTS),
    FIELD(tree_splits, COUNTER, QR_COUNTER_SPLITS),
    FIELD(tree_split_conflicts, COUNTER, QR_COUNTER_SPLIT_CONFLICTS),
    FIELD(tree_merges, COUNTER, QR_COUNTER_MERGES),
    FIELD(tree_merge_conflicts, COUNTER, QR_COUNTER_MERGE_CONFLICTS),
    FIELD(tree_helps, COUNTER, QR_COUNTER_HELPS),
    FIELD(versions_collected, COUNTER, QR_COUNTER_VERSIONS_COLLECTED),
    FIELD(log_frames, COUNTER, QR_COUNTER_LOG_FRAMES),
    FIELD(log_bytes, COUNTER, QR_COUNTER_LOG_BYTES),
    FIELD(log_voids, COUNTER, QR_COUNTER_LOG_VOIDS),
    FIELD(trees, GAUGE, -1),
    FIELD(pages_leaf, GAUGE, -1),
    FIELD(pages_inner, GAUGE, -1),
    FIELD(height_max, GAUGE, -1),
    FIELD(chain_length[0], GAUGE, -1),
    FIELD(chain_length[1], GAUGE, -1),
    FIELD(chain_length[2], GAUGE, -1),
    FIELD(chain_length[3], GAUGE, -1),
    FIELD(chain_length[4], GAUGE, -1),
    FIELD(chain_length[5], GAUGE, -1),
    FIELD(chain_length[6], GAUGE, -1),
    FIELD(chain_length[7], GAUGE, -1),
    FIELD(chain_length[8], GAUGE, -1),
    FIELD(records_live_estimate, GAUGE, -1),
    FIELD(memory_bytes, GAUGE, -1),
    FIELD(memory_page_bytes, GAUGE, -1),
    FIELD(memory_free_bytes, GAUGE, -1),
    FIELD(memory_mapping_bytes, GAUGE, -1),
    FIELD(memory_retired_bytes, GAUGE, -1),
    FIELD(memory_returned_bytes, GAUGE, -1),
    FIELD(guards_open, GAUGE, -1),
    FIELD(snapshots_open, GAUGE, -1),
    FIELD(iterators_open, GAUGE, -1),
    FIELD(oldest_guard_age_ms, GAUGE, -1),
    FIELD(oldest_snapshot_age_ms, GAUGE, -1),
    FIELD(oldest_guard_tag, TEXT, -1),
    FIELD(oldest_snapshot_tag, TEXT, -1),
    FIELD(reclaim_batches, GAUGE, -1),
    FIELD(reclaimed_bytes, GAUGE, -1),
    FIELD(stalls, COUNTER, QR_COUNTER_STALLS),
    FIELD(stall_ms, COUNTER, QR_COUNTER_STALL_MS),
    FIELD(errors_io, COUNTER, QR_COUNTER_ERRORS_IO),
    FIELD(errors_no_space, COUNTER, QR_COUNTER_ERRORS_NO_SPACE),
    FIELD(errors_unknown, COUNTER, QR_COUNTER_ERRORS_UNKNOWN),
    FIELD(log_syncs, COUNTER, QR_TOTAL_LOG_SYNCS),
    FIELD(log_segments_made, COUNTER, QR_TOTAL_LOG_SEGMENTS_MADE),
    FIELD(log_segments_recycled, COUNTER, QR_TOTAL_LOG_SEGMENTS_RECYCLED),
    FIELD(log_provision_waits, COUNTER, QR_TOTAL_LOG_PROVISION_WAITS),
    FIELD(io_way, TEXT, -1),
    FIELD(log_mapped, GAUGE, -1),
    FIELD(log_size_bytes, GAUGE, -1),
    FIELD(log_tail_lsn, GAUGE, -1),
    FIELD(log_durable_lsn, GAUGE, -1),
    FIELD(log_failure_errno, GAUGE, -1),
    FIELD(recovery_ms, GAUGE, -1),
    FIELD(recovery_bytes, GAUGE, -1),
    FIELD(recovery_records, GAUGE, -1),
    FIELD(recovery_holes, GAUGE, -1),
    FIELD(recovery_same_boot, GAUGE, -1),
    FIELD(checkpoints, COUNTER, QR_TOTAL_CHECKPOINTS),
    FIELD(checkpoint_failures, COUNTER, QR_TOTAL_CHECKPOINT_FAILURES),
    FIELD(checkpoint_retries, COUNTER, QR_TOTAL_CHECKPOINT_RETRIES),
    FIELD(pages_flushed, COUNTER, QR_TOTAL_PAGES_FLUSHED),
    FIELD(store_written_bytes, COUNTER, QR_TOTAL_STORE_WRITTEN_BYTES),
    FIELD(store_write_operations, COUNTER, QR_TOTAL_STORE_WRITES),
    FIELD(store_read_bytes, COUNTER, QR_TOTAL_STORE_READ_BYTES),
    FIELD(store_reads, COUNTER, QR_TOTAL_STORE_READS),
    FIELD(store_segments_made, COUNTER, QR_TOTAL_STORE_SEGMENTS_MADE),
    FIELD(store_segments_recycled, COUNTER, QR_TOTAL_STORE_SEGMENTS_RECYCLED),
    FIELD(store_segments_removed, COUNTER, QR_TOTAL_STORE_SEGMENTS_REMOVED),
    FIELD(store_checksum_failures, COUNTER, QR_TOTAL_STORE_CHECKSUM_FAILURES),
    FIELD(checkpoint_postponed_max_ns, GAUGE, -1),
    FIELD(checkpoint_age_ms, GAUGE, -1),
    FIELD(store_segments, GAUGE, -1),
    FIELD(store_size_bytes, GAUGE, -1),
    FIELD(store_reserve_bytes, GAUGE, -1),
    FIELD(store_live_bytes, GAUGE, -1),
    FIELD(blobs_written, COUNTER, QR_TOTAL_BLOBS_WRITTEN),
    FIELD(blob_bytes_written, COUNTER, QR_TOTAL_BLOB_BYTES_WRITTEN),
    FIELD(blobs_read, COUNTER, QR_TOTAL_BLOBS_READ),
    FIELD(blob_bytes_read, COUNTER, QR_TOTAL_BLOB_BYTES_READ),
    FIELD(blob_segments, GAUGE, -1),
    FIELD(blob_segment_bytes, GAUGE, -1),
    FIELD(blob_live_bytes, GAUGE, -1),
    FIELD(blob_dead_bytes, GAUGE, -1),
    FIELD(log_disabled, GAUGE, -1),
};

static uint64_t *number(struct quire_stats *stats, const struct field *field)
{
    return (uint64_t *)(void *)((char *)stats + field->offset);
}

static uint64_t number_of(const struct quire_stats *stats, const struct field *field)
{
    return *(const uint64_t *)(const void *)((const char *)stats + field->offset);
}

/* ---- Gathering -------------------------------------------------------------------------------------------------- */

static void sum_store(struct quire *db, uint64_t *totals)
{
    struct qr_checkpoint_counts checkpoints;
    struct qr_store_stats store;
    struct qr_blob_stats blobs;
    qr_db_checkpoint_counts(db, &checkpoints);
    qr_store_stats(db->checkpointer.store, &store);
    totals[QR_TOTAL_CHECKPOINTS] = checkpoints.count;
    totals[QR_TOTAL_CHECKPOINT_FAILURES] = checkpoints.failures;
    totals[QR_TOTAL_CHECKPOINT_RETRIES] = checkpoints.retries;
    totals[QR_TOTAL_PAGES_FLUSHED] = checkpoints.pages_flushed;
    totals[QR_TOTAL_STORE_WRITTEN_BYTES] = store.written_bytes;
    totals[QR_TOTAL_STORE_WRITES] = store.write_operations;
    totals[QR_TOTAL_STORE_READ_BYTES] = store.read_bytes;
    totals[QR_TOTAL_STORE_READS] = store.reads;
    totals[QR_TOTAL_STORE_SEGMENTS_MADE] = store.segments_made;
    totals[QR_TOTAL_STORE_SEGMENTS_RECYCLED] = store.segments_recycled;
    totals[QR_TOTAL_STORE_SEGMENTS_REMOVED] = store.segments_removed;
    totals[QR_TOTAL_STORE_CHECKSUM_FAILURES] = store.checksum_failures;
    qr_blob_stats(db->checkpointer.store, &blobs);
    totals[QR_TOTAL_BLOBS_WRITTEN] = blobs.written;
    totals[QR_TOTAL_BLOB_BYTES_WRITTEN] = blobs.written_bytes;
    totals[QR_TOTAL_BLOBS_READ] = blobs.read;
    totals[QR_TOTAL_BLOB_BYTES_READ] = blobs.read_bytes;
}

static void sum_counters(struct quire *db, uint64_t *totals)
{
    struct qr_log_counts log;
    memset(totals, 0, QR_TOTAL_COUNT * sizeof(*totals));
    for (struct qr_thread *t = qr_thread_first(db->epoch); t != NULL; t = qr_thread_next(t))
        qr_counters_sum(totals, t->counters, QR_COUNTER_COUNT);
    qr_log_counts(&db->log, &log);
    totals[QR_TOTAL_LOG_SYNCS] = log.syncs;
    totals[QR_TOTAL_LOG_SEGMENTS_MADE] = log.segments_made;
    totals[QR_TOTAL_LOG_SEGMENTS_RECYCLED] = log.segments_recycled;
    totals[QR_TOTAL_LOG_PROVISION_WAITS] = log.provision_waits;
    if (db->files != NULL) sum_store(db, totals);
}

static uint64_t mean(const uint64_t *totals, enum qr_counter samples)
{
    return totals[samples] == 0 ? 0 : totals[samples + 1] / totals[samples];
}

static void gather_structure(struct quire *db, struct qr_thread *thread, struct quire_stats *stats)
{
    struct qr_tree_gauges gauges = {0};
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    for (uint32_t i = 1; i < count; i++) {
        struct qr_op op;
        qr_op_init(&op, &handles[i]->tree, thread);
        qr_epoch_enter(thread);
        qr_tree_measure(&op, &gauges);
        qr_epoch_exit(thread);
    }
    stats->trees = count - 1;
    stats->pages_leaf = gauges.leaves;
    stats->pages_inner = gauges.inners;
    stats->height_max = gauges.height;
    stats->records_live_estimate = gauges.records;
    memcpy(stats->chain_length, gauges.chains, sizeof(gauges.chains));
}

static void gather_memory(struct quire *db, struct quire_stats *stats)
{
    struct qr_arena_stats arena;
    struct qr_epoch_stats epoch;
    struct qr_snapshot_stats snapshots;
    qr_arena_stats(db->arena, &arena);
    qr_epoch_stats(db->epoch, &epoch);
    qr_snapshots_stats(&db->snapshots, &snapshots);
    stats->memory_bytes = qr_arena_total_bytes(db->arena);
    stats->memory_retired_bytes = epoch.retired_bytes;
    stats->memory_page_bytes = arena.in_use_bytes > epoch.retired_bytes ? arena.in_use_bytes - epoch.retired_bytes : 0;
    stats->memory_free_bytes = arena.free_bytes;
    stats->memory_mapping_bytes = qr_map_charged_bytes(db->map);
    stats->memory_returned_bytes = arena.returned_bytes;
    stats->guards_open = epoch.guards_open;
    stats->oldest_guard_age_ms = epoch.oldest_guard_age_ms;
    memcpy(stats->oldest_guard_tag, epoch.oldest_guard_tag, sizeof(stats->oldest_guard_tag));
    stats->reclaim_batches = epoch.rounds;
    stats->reclaimed_bytes = epoch.reclaimed_bytes;
    stats->snapshots_open = snapshots.open;
    stats->oldest_snapshot_age_ms = snapshots.oldest_age_ms;
    memcpy(stats->oldest_snapshot_tag, snapshots.oldest_tag, sizeof(stats->oldest_snapshot_tag));
    stats->iterators_open = qr_db_open_count(&db->iterators_open);
}

static void gather_store(struct quire *db, struct quire_stats *stats)
{
    struct qr_checkpoint_counts checkpoints;
    struct qr_store_stats store;
    struct qr_blob_stats blobs;
    qr_db_checkpoint_counts(db, &checkpoints);
    qr_store_stats(db->checkpointer.store, &store);
    stats->checkpoint_postponed_max_ns = checkpoints.longest_postponed_ns;
    stats->checkpoint_age_ms = checkpoints.age_ns / 1000000;
    stats->store_segments = store.segments;
    stats->store_size_bytes = store.segment_bytes;
    stats->store_reserve_bytes = store.reserve_bytes;
    stats->store_live_bytes = store.live_bytes;
    qr_blob_stats(db->checkpointer.store, &blobs);
    stats->blob_segments = blobs.segments;
    stats->blob_segment_bytes = blobs.segment_bytes;
    stats->blob_live_bytes = blobs.live_bytes;
    stats->blob_dead_bytes = blobs.dead_bytes;
}

static void gather_files(struct quire *db, struct quire_stats *stats)
{
    const struct qr_db_files *files = db->files;
    struct qr_log_counts log;
    if (files == NULL) return;
    const struct qr_recovery *recovery = &files->recovery;
    uint64_t durable = qr_db_durable_end(db);
    qr_log_counts(&db->log, &log);
    snprintf(stats->io_way, sizeof(stats->io_way), "%s", files->disk->name);
    stats->log_mapped = db->log.files != NULL && !db->log.files->options.buffered;
    stats->log_disabled = qr_db_is_unlogged(db);
    stats->log_size_bytes = qr_db_old_log_bytes(db) + log.size_bytes;
    stats->log_tail_lsn = qr_log_tail(&db->log);
    stats->log_durable_lsn = durable == 0 ? 0 : durable - 1;
    stats->log_failure_errno = (uint64_t)-qr_log_failure(&db->log);
    stats->recovery_ms = recovery->ns / 1000000;
    stats->recovery_bytes = recovery->log.bytes;
    stats->recovery_records = recovery->applied;
    stats->recovery_holes = recovery->log.holes;
    stats->recovery_same_boot = recovery->log.same_boot;
    gather_store(db, stats);
}

/* ---- Structs of other headers ----------------------------------------------------------------------------------- */

static bool size_fits(const struct quire_stats *stats)
{
    return stats != NULL && stats->struct_size >= sizeof(size_t) && stats->struct_size <= 65536;
}

/* Copies what a caller's struct has of ours; the rest is zero. */
static void take_in(struct quire_stats *to, const struct quire_stats *from)
{
    memset(to, 0, sizeof(*to));
    memcpy(to, from, qr_min(from->struct_size, sizeof(*to)));
}

/* Whether a struct of so many bytes has the field. */
static bool has_field(size_t struct_size, const struct field *field)
{
    size_t size = field->kind == TEXT ? sizeof(((struct quire_stats *)NULL)->oldest_guard_tag) : sizeof(uint64_t);
    return field->offset + size <= struct_size;
}

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

int quire_stats(struct quire *db, struct quire_stats *ret_stats)
{
    struct qr_thread *thread = NULL;
    struct quire_stats stats = {0};
    uint64_t totals[QR_TOTAL_COUNT];
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    if (!size_fits(ret_stats))
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_stats is NULL or its struct_size is not set");
    sum_counters(db, totals);
    pthread_mutex_lock(&db->stats_mutex);
    for (int i = 0; i < QR_TOTAL_COUNT; i++)
        totals[i] = totals[i] > db->stats_base[i] ? totals[i] - db->stats_base[i] : 0;
    pthread_mutex_unlock(&db->stats_mutex);
    for (size_t i = 0; i < QR_ARRAY_COUNT(fields); i++)
        if (fields[i].counter >= 0) *number(&stats, &fields[i]) = totals[fields[i].counter];
    stats.get_latency_mean_ns = mean(totals, QR_COUNTER_GET_SAMPLES);
    stats.put_latency_mean_ns = mean(totals, QR_COUNTER_PUT_SAMPLES);
    stats.delete_latency_mean_ns = mean(totals, QR_COUNTER_DELETE_SAMPLES);
    gather_structure(db, thread, &stats);
    gather_memory(db, &stats);
    gather_files(db, &stats);
    stats.struct_size = ret_stats->struct_size;
    qr_db_hand_out(ret_stats, stats.struct_size, &stats, sizeof(stats));
    return 0;
}

int quire_stats_reset(struct quire *db)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    pthread_mutex_lock(&db->stats_mutex);
    sum_counters(db, db->stats_base);
    pthread_mutex_unlock(&db->stats_mutex);
    return 0;
}

int quire_stats_diff(const struct quire_stats *later, const struct quire_stats *earlier, struct quire_stats *ret_diff)
{
    struct quire_stats diff, base;
    if (!size_fits(later) || !size_fits(earlier) || !size_fits(ret_diff))
        return qr_fail(QUIRE_ERR_INVALID, 0, "a statistics struct is NULL or its struct_size is not set");
    take_in(&diff, later);
    take_in(&base, earlier);
    for (size_t i = 0; i < QR_ARRAY_COUNT(fields); i++) {
        if (fields[i].kind != COUNTER) continue;
        uint64_t after = number_of(&diff, &fields[i]);
        uint64_t before = number_of(&base, &fields[i]);
        *number(&diff, &fields[i]) = after > before ? after - before : 0;
    }
    diff.struct_size = ret_diff->struct_size;
    qr_db_hand_out(ret_diff, diff.struct_size, &diff, sizeof(diff));
    return 0;
}

/* ---- Printing --------------------------------------------------------------------------------------------------- */

/* A text that counts what does not fit. */
struct text {
    char *out;
    size_t capacity, size;
};

QR_PRINTF(2, 3) static void add(struct text *text, const char *format, ...)
{
    char piece[256];
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(piece, sizeof(piece), format, arguments);
    va_end(arguments);
    size_t size = written < 0 ? 0 : (size_t)written;
    if (text->size + size < text->capacity) memcpy(text->out + text->size, piece, size);
    text->size += size;
}

/* How many bytes the UTF-8 character at `text` has, with its number; 0 if there is none. Stops at a NUL. */
static size_t utf8_at(const char *text, uint32_t *ret_number)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* a longer form than needed is none */
    uint8_t first = (uint8_t)text[0];
    size_t size = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    uint32_t character = size <= 1 ? first : first & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if (((uint8_t)text[i] & 0xc0) != 0x80) return 0;
        character = character << 6 | ((uint8_t)text[i] & 0x3f);
    }
    if (size == 0 || character < least[size] || character > 0x10ffff || (character >= 0xd800 && character < 0xe000)) return 0;
    *ret_number = character;
    return size;
}

/* A tag is one line of UTF-8 in both formats: control characters and backslashes become escapes, and so does, as the
 * replacement character, each byte that is no UTF-8 (or the part of a character where a long tag was cut). */
static void add_tag(struct text *text, const char *tag, bool json)
{
    if (json) add(text, "\"");
    while (*tag != 0) {
        uint32_t character = 0xfffd;
        size_t size = utf8_at(tag, &character);
        if (size == 0 || character < 0x20 || (character >= 0x7f && character < 0xa0))
            add(text, "\\u%04x", character);
        else if (*tag == '\\' || (json && *tag == '"'))
            add(text, "\\%c", *tag);
        else
            add(text, "%.*s", (int)size, tag);
        tag += size == 0 ? 1 : size;
    }
    if (json) add(text, "\"");
}

static void add_field(struct text *text, const struct quire_stats *stats, const struct field *field, bool json)
{
    const char *tag = (const char *)stats + field->offset;
    char copy[sizeof(stats->oldest_guard_tag)] = {0};
    add(text, json ? "\"%s\":" : "%s ", field->name);
    if (field->kind != TEXT) {
        add(text, "%llu", (unsigned long long)number_of(stats, field));
    } else {
        memcpy(copy, tag, sizeof(copy) - 1);
        add_tag(text, copy, json);
    }
}

static void add_all(struct text *text, const struct quire_stats *stats, bool json)
{
    bool first = true;
    if (json) add(text, "{");
    for (size_t i = 0; i < QR_ARRAY_COUNT(fields); i++) {
        if (!has_field(stats->struct_size, &fields[i])) continue;
        if (json && !first) add(text, ",");
        first = false;
        add_field(text, stats, &fields[i], json);
        if (!json) add(text, "\n");
    }
    if (json) add(text, "}");
}

int quire_stats_print(const struct quire_stats *stats, enum quire_format format, char *buffer, size_t capacity,
                      size_t *ret_size)
{
    struct text sized = {0}; /* first the size, so that a short buffer stays as it is */
    struct text text = {.out = buffer, .capacity = capacity};
    bool json = format == QUIRE_FORMAT_JSON;
    if (stats == NULL || ret_size == NULL || (buffer == NULL && capacity != 0))
        return qr_fail(QUIRE_ERR_INVALID, 0, "stats, ret_size or buffer is NULL");
    if (!size_fits(stats)) return qr_fail(QUIRE_ERR_INVALID, 0, "struct_size of the statistics is not set");
    if (format != QUIRE_FORMAT_TEXT && !json) return qr_fail(QUIRE_ERR_INVALID, 0, "format is not known");
    add_all(&sized, stats, json);
    *ret_size = sized.size + 1;
    if (sized.size + 1 > capacity)
        return qr_fail(QUIRE_ERR_BUFFER_TOO_SMALL, 0, "the statistics take %zu bytes", sized.size + 1);
    add_all(&text, stats, json);
    buffer[text.size] = 0;
    return 0;
}
