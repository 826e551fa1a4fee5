/*
 * The benchmark's adapter for RocksDB, through its C interface, set up for data that fit into memory.
 *
 * Layer: bench. No compression; a block cache of twice the data; full bloom filters of 10 bits a key in the tables and
 * one in the memtables, so that absent keys are cheap everywhere; a hash index inside data blocks; four memtables of
 * 256 MiB; two background threads or more. At level off there is no write-ahead log;
 * at process it is written and not synced, at durable every put and delete syncs it.
 * Values are read pinned, without copying. An iterator is kept for up to BENCH_READS_PER_VIEW scans.
 */
#include "engine.h"

#include <rocksdb/c.h>
#include <stdlib.h>
#include <unistd.h>

struct bench_store {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_block_based_table_options_t *table_options;
    rocksdb_cache_t *cache;
    rocksdb_column_family_handle_t *family;
    rocksdb_readoptions_t *read_options;
    rocksdb_writeoptions_t *write_options;
    size_t key_size;
    size_t value_size;
};

struct bench_session {
    struct bench_store *store;
    rocksdb_iterator_t *iterator;
    unsigned scans; /* since the iterator was made */
    rocksdb_pinnableslice_t *pinned[BENCH_MANY];
};

/* Prints and frees what RocksDB answered. */
static int fail(const char *what, char *error)
{
    (void)bench_fail("rocksdb: %s: %s", what, error);
    rocksdb_free(error);
    return -1;
}

static const char *version(void)
{
    return BENCH_ROCKSDB_VERSION;
}

static void set_table_options(struct bench_store *store, const struct bench_engine_config *config)
{
    const int hash_index_in_blocks = rocksdb_block_based_table_data_block_index_type_binary_search_and_hash;
    size_t data_size = (size_t)config->num * (config->data->key_size + config->data->value_size);

    store->table_options = rocksdb_block_based_options_create();
    store->cache = rocksdb_cache_create_lru(2 * data_size + (64u << 20));
    rocksdb_block_based_options_set_block_cache(store->table_options, store->cache);
    rocksdb_block_based_options_set_filter_policy(store->table_options, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_block_based_options_set_format_version(store->table_options, 5);
    rocksdb_block_based_options_set_data_block_index_type(store->table_options, hash_index_in_blocks);
    rocksdb_options_set_block_based_table_factory(store->options, store->table_options);
}

static void set_options(struct bench_store *store, const struct bench_engine_config *config)
{
    store->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(store->options, 1);
    rocksdb_options_set_compression(store->options, rocksdb_no_compression);
    rocksdb_options_increase_parallelism(store->options, config->threads > 2 ? (int)config->threads : 2);
    rocksdb_options_set_write_buffer_size(store->options, (size_t)256 << 20);
    rocksdb_options_set_max_write_buffer_number(store->options, 4);
    rocksdb_options_set_memtable_prefix_bloom_size_ratio(store->options, 0.05);
    rocksdb_options_set_memtable_whole_key_filtering(store->options, 1);
    rocksdb_options_set_max_open_files(store->options, -1);
    rocksdb_options_set_stats_dump_period_sec(store->options, 0);
    set_table_options(store, config);
    store->read_options = rocksdb_readoptions_create();
    store->write_options = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(store->write_options, config->level == BENCH_LEVEL_OFF);
    rocksdb_writeoptions_set_sync(store->write_options, config->level == BENCH_LEVEL_DURABLE);
}

static void store_close(struct bench_store *store)
{
    if (store->family != NULL)
        rocksdb_column_family_handle_destroy(store->family);
    if (store->db != NULL)
        rocksdb_close(store->db);
    rocksdb_writeoptions_destroy(store->write_options);
    rocksdb_readoptions_destroy(store->read_options);
    rocksdb_options_destroy(store->options);
    rocksdb_block_based_options_destroy(store->table_options);
    rocksdb_cache_destroy(store->cache);
    free(store);
}

static int store_open(const struct bench_engine_config *config, struct bench_store **ret_store)
{
    const char *const names[] = {"default"};
    const rocksdb_options_t *options[1];
    struct bench_store *store = calloc(1, sizeof(*store));
    char *error = NULL;

    if (store == NULL)
        return bench_fail("out of memory");
    store->key_size = config->data->key_size;
    store->value_size = config->data->value_size;
    set_options(store, config);
    options[0] = store->options;
    store->db = rocksdb_open_column_families(store->options, config->dir, 1, names, options, &store->family, &error);
    if (error != NULL) {
        store->db = NULL;
        store->family = NULL;
        store_close(store);
        return fail("open", error);
    }
    *ret_store = store;
    return 0;
}

static int settle(struct bench_store *store)
{
    static const char *const busy[] = {"rocksdb.num-running-flushes", "rocksdb.num-running-compactions",
                                       "rocksdb.mem-table-flush-pending", "rocksdb.compaction-pending"};
    uint64_t waiting = 1;

    while (waiting != 0) {
        waiting = 0;
        for (size_t i = 0; i < sizeof(busy) / sizeof(busy[0]); i++) {
            uint64_t count = 0;
            if (rocksdb_property_int(store->db, busy[i], &count) == 0)
                waiting += count;
        }
        if (waiting != 0)
            (void)usleep(10000);
    }
    return 0;
}

static int consolidate(struct bench_store *store)
{
    rocksdb_compactoptions_t *options = rocksdb_compactoptions_create();

    rocksdb_compactoptions_set_bottommost_level_compaction(options, 1);
    rocksdb_compact_range_opt(store->db, options, NULL, 0, NULL, 0);
    rocksdb_compactoptions_destroy(options);
    return settle(store);
}

static void print_stats(struct bench_store *store, FILE *to)
{
    char *text = rocksdb_property_value(store->db, "rocksdb.stats");

    if (text != NULL)
        fprintf(to, "%s\n", text);
    rocksdb_free(text);
}

static int session_begin(struct bench_store *store, bool append, struct bench_session **ret_session)
{
    struct bench_session *session = calloc(1, sizeof(*session));

    (void)append; /* there is no special way to append */
    if (session == NULL)
        return bench_fail("out of memory");
    session->store = store;
    *ret_session = session;
    return 0;
}

static inline void unpin(struct bench_session *session, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (session->pinned[i] != NULL) {
            rocksdb_pinnableslice_destroy(session->pinned[i]);
            session->pinned[i] = NULL;
        }
}

static int session_end(struct bench_session *session)
{
    unpin(session, BENCH_MANY);
    if (session->iterator != NULL)
        rocksdb_iter_destroy(session->iterator);
    free(session);
    return 0;
}

static int put(struct bench_session *session, const void *key, const void *value)
{
    struct bench_store *store = session->store;
    char *error = NULL;

    rocksdb_put(store->db, store->write_options, key, store->key_size, value, store->value_size, &error);
    return error == NULL ? 0 : fail("put", error);
}

static int del(struct bench_session *session, const void *key)
{
    struct bench_store *store = session->store;
    char *error = NULL;

    rocksdb_delete(store->db, store->write_options, key, store->key_size, &error);
    return error == NULL ? 0 : fail("delete", error);
}

static inline struct bench_slice pinned_value(const rocksdb_pinnableslice_t *pinned)
{
    struct bench_slice value = {NULL, 0};

    if (pinned != NULL)
        value.data = rocksdb_pinnableslice_value(pinned, &value.size);
    return value;
}

static int get(struct bench_session *session, const void *key, struct bench_slice *ret_value)
{
    struct bench_store *store = session->store;
    char *error = NULL;

    unpin(session, 1);
    session->pinned[0] = rocksdb_get_pinned(store->db, store->read_options, key, store->key_size, &error);
    if (error != NULL)
        return fail("get", error);
    *ret_value = pinned_value(session->pinned[0]);
    return 0;
}

static int get_many(struct bench_session *session, const uint8_t *keys, struct bench_slice *ret_values)
{
    struct bench_store *store = session->store;
    const char *pointers[BENCH_MANY];
    size_t sizes[BENCH_MANY];
    char *errors[BENCH_MANY];

    unpin(session, BENCH_MANY);
    for (unsigned i = 0; i < BENCH_MANY; i++) {
        pointers[i] = (const char *)keys + i * store->key_size;
        sizes[i] = store->key_size;
    }
    rocksdb_batched_multi_get_cf(store->db, store->read_options, store->family, BENCH_MANY, pointers, sizes,
                                 session->pinned, errors, false);
    for (unsigned i = 0; i < BENCH_MANY; i++) {
        if (errors[i] != NULL)
            return fail("multi_get", errors[i]);
        ret_values[i] = pinned_value(session->pinned[i]);
    }
    return 0;
}

static int scan_iterator(struct bench_session *session, const void *start, struct bench_scan *scan)
{
    struct bench_store *store = session->store;
    rocksdb_iterator_t *iterator = session->iterator;
    char *error = NULL;

    if (iterator != NULL && session->scans >= BENCH_READS_PER_VIEW) {
        rocksdb_iter_destroy(iterator);
        iterator = NULL;
    }
    if (iterator == NULL) {
        iterator = session->iterator = rocksdb_create_iterator(store->db, store->read_options);
        session->scans = 0;
    }
    session->scans++;
    if (start == NULL)
        rocksdb_iter_seek_to_first(iterator);
    else
        rocksdb_iter_seek(iterator, start, store->key_size);
    while (rocksdb_iter_valid(iterator)) {
        size_t key_size, value_size;
        const char *key = rocksdb_iter_key(iterator, &key_size);
        const char *value = rocksdb_iter_value(iterator, &value_size);

        if (!bench_scan_take(scan, key, key_size, value, value_size))
            return 0;
        rocksdb_iter_next(iterator);
    }
    rocksdb_iter_get_error(iterator, &error);
    return error == NULL ? 0 : fail("iterator", error);
}

const struct bench_engine bench_engine_rocksdb = {
    .name = "rocksdb",
    .version = version,
    .open = store_open,
    .close = store_close,
    .settle = settle,
    .consolidate = consolidate,
    .print_stats = print_stats,
    .session_begin = session_begin,
    .session_end = session_end,
    .put = put,
    .del = del,
    .get = get,
    .get_many = get_many,
    .scan = scan_iterator,
};
