/*
 * The benchmark's adapter for Quire: default options, but for --no-statistics, --no-checkpoint and --log-segment; in memory at level
 * off, else in a directory, with the level as that of the database.
 *
 * Layer: bench; uses nothing but quire.h. Every put and delete is an operation of its own, visible when it returns.
 * Point reads take pointers under a guard, which is pinned at the first read and repinned every BENCH_READS_PER_VIEW;
 * scans take pointers from the pages iterator.
 */
#include "engine.h"

#include <quire/quire.h>
#include <stdlib.h>

struct bench_store {
    struct quire *db;
    struct quire_tree *tree;
    size_t key_size;
    size_t value_size;
};

struct bench_session {
    struct quire_tree *tree;
    struct quire *db;
    size_t key_size;
    size_t value_size;
    struct quire_guard guard;
    unsigned reads; /* since the latest pin */
    bool pinned;
};

static int fail(const char *what, int result)
{
    struct quire_error_detail detail;

    quire_error_detail(&detail);
    return bench_fail("quire: %s: %s (%s)", what, quire_strerror(result), result < 0 ? detail.message : "");
}

static int store_open(const struct bench_engine_config *config, struct bench_store **ret_store)
{
    struct bench_store *store = calloc(1, sizeof(*store));
    struct quire_options options;
    const bool files = config->level != BENCH_LEVEL_OFF;
    int result;

    if (store == NULL)
        return bench_fail("out of memory");
    quire_options_init(&options);
    options.disable_statistics = config->no_statistics;
    if (files) {
        options.open_mode = config->existing ? QUIRE_OPEN_EXISTING : QUIRE_CREATE_NEW;
        options.level = config->level == BENCH_LEVEL_DURABLE ? QUIRE_LEVEL_DURABLE : QUIRE_LEVEL_PROCESS;
        options.log_segment_bytes = config->log_segment_bytes;
        if (config->no_checkpoint) {
            options.log_cap_bytes = UINT64_C(1) << 60;
            options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
        }
        options.no_sync_at_close = 1; /* the files are removed then */
    }
    store->key_size = config->data->key_size;
    store->value_size = config->data->value_size;
    result = quire_open(files ? config->dir : NULL, &options, &store->db);
    if (result != 0) {
        free(store);
        return fail("open", result);
    }
    result = quire_tree_open(store->db, NULL, NULL, &store->tree);
    if (result != 0) {
        (void)quire_close(store->db);
        free(store);
        return fail("tree_open", result);
    }
    *ret_store = store;
    return 0;
}

static void store_close(struct bench_store *store)
{
    int result = quire_close(store->db);

    if (result != 0)
        (void)fail("close", result);
    free(store);
}

static int consolidate(struct bench_store *store)
{
    int result;

    do
        result = quire_maintain(store->db);
    while (result == QUIRE_MORE);
    return result == 0 ? 0 : fail("maintain", result);
}

static void print_stats(struct bench_store *store, FILE *to)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    char text[16384];
    size_t size;
    int result = quire_stats(store->db, &stats);

    if (result == 0)
        result = quire_stats_print(&stats, QUIRE_FORMAT_TEXT, text, sizeof(text), &size);
    if (result == 0)
        fprintf(to, "%s", text);
    else
        (void)fail("stats", result);
}

static struct bench_log_counts log_counts(struct bench_store *store)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};

    if (quire_stats(store->db, &stats) != 0)
        return (struct bench_log_counts){0};
    return (struct bench_log_counts){stats.log_bytes, stats.log_segments_recycled};
}

static int save(struct bench_session *session)
{
    int result = quire_checkpoint(session->db);

    return result == 0 ? 0 : fail("checkpoint", result);
}

static int session_begin(struct bench_store *store, bool append, struct bench_session **ret_session)
{
    struct bench_session *session = calloc(1, sizeof(*session));

    if (session == NULL)
        return bench_fail("out of memory");
    (void)append; /* there is no special way to append */
    session->tree = store->tree;
    session->db = store->db;
    session->key_size = store->key_size;
    session->value_size = store->value_size;
    *ret_session = session;
    return 0;
}

static int session_end(struct bench_session *session)
{
    int result = session->pinned ? quire_unpin(&session->guard) : 0;

    free(session);
    return result == 0 ? 0 : fail("unpin", result);
}

static int view_renew(struct bench_session *session)
{
    int result = session->pinned ? quire_repin(&session->guard) : quire_pin(session->db, "bench", &session->guard);

    if (result != 0)
        return fail("pin", result);
    session->pinned = true;
    session->reads = 0;
    return 0;
}

static inline int view_use(struct bench_session *session, unsigned reads)
{
    if (!session->pinned || session->reads >= BENCH_READS_PER_VIEW)
        if (view_renew(session) != 0)
            return -1;
    session->reads += reads;
    return 0;
}

static int put(struct bench_session *session, const void *key, const void *value)
{
    int result = quire_put(session->tree, key, session->key_size, value, session->value_size, 0, NULL);

    return result == 0 ? 0 : fail("put", result);
}

static int del(struct bench_session *session, const void *key)
{
    int result = quire_delete(session->tree, key, session->key_size, 0, NULL, NULL);

    return result == 0 ? 0 : fail("delete", result);
}

static int get(struct bench_session *session, const void *key, struct bench_slice *ret_value)
{
    struct quire_value value;
    int result;

    if (view_use(session, 1) != 0)
        return -1;
    result = quire_guard_get(&session->guard, session->tree, NULL, key, session->key_size, &value);
    if (result < 0)
        return fail("guard_get", result);
    *ret_value = result == 0 ? (struct bench_slice){value.data, value.size} : (struct bench_slice){NULL, 0};
    return 0;
}

static int get_many(struct bench_session *session, const uint8_t *keys, struct bench_slice *ret_values)
{
    struct quire_slice slices[BENCH_MANY];
    struct quire_value values[BENCH_MANY];
    int results[BENCH_MANY];
    int result;

    if (view_use(session, BENCH_MANY) != 0)
        return -1;
    for (unsigned i = 0; i < BENCH_MANY; i++)
        slices[i] = (struct quire_slice){keys + i * session->key_size, session->key_size};
    result = quire_get_many(&session->guard, session->tree, NULL, slices, BENCH_MANY, values, results);
    if (result != 0)
        return fail("get_many", result);
    for (unsigned i = 0; i < BENCH_MANY; i++)
        ret_values[i] =
            results[i] == 0 ? (struct bench_slice){values[i].data, values[i].size} : (struct bench_slice){NULL, 0};
    return 0;
}

static int scan_pages(struct bench_session *session, const void *start, struct bench_scan *scan)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    bool more = true;
    int result;

    quire_pages_options_init(&options);
    if (start != NULL)
        options.start = (struct quire_slice){start, session->key_size};
    result = quire_pages_open(session->tree, &options, &pages);
    if (result != 0)
        return fail("pages_open", result);
    while (more && (result = quire_pages_next(pages, &page)) == 0)
        for (size_t i = 0; more && i < page.count; i++) {
            const struct quire_entry *entry = &page.entries[i];
            more = bench_scan_take(scan, entry->key, entry->key_size, entry->value, entry->value_size);
        }
    (void)quire_pages_close(pages);
    return result < 0 ? fail("pages_next", result) : 0;
}

const struct bench_engine bench_engine_quire = {
    .name = "quire",
    .version = quire_version,
    .open = store_open,
    .close = store_close,
    .consolidate = consolidate,
    .print_stats = print_stats,
    .log_counts = log_counts,
    .session_begin = session_begin,
    .session_end = session_end,
    .save = save,
    .put = put,
    .del = del,
    .get = get,
    .get_many = get_many,
    .scan = scan_pages,
};
