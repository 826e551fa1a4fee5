/*
 * The benchmark's adapter for LMDB: set up for speed, as its users do when durability is not asked for, or with a
 * commit for each write.
 *
 * Layer: bench. WRITEMAP writes into the map without copying pages; NOSYNC and NOMETASYNC leave writing back to the
 * kernel (MAPASYNC would only matter for syncs that are not made); NOTLS lets a session own its read transaction. That
 * is level off, with lmdb_batch writes in a transaction; with one write in each it is level process, since what was
 * committed is in the shared map. Level durable is LMDB's default: a commit writes its pages and syncs them, then its
 * meta page. MDB_NORDAHEAD is not set: the data fit into memory. A read transaction, with a cursor, is kept for up to
 * BENCH_READS_PER_VIEW reads and then reset and renewed. LMDB has one writer at a time: a session takes the writer's
 * lock at its first write, commits after lmdb_batch writes, and lets others go first; what it reads meanwhile it reads
 * through its write transaction. Ascending writes of one thread use MDB_APPEND.
 */
#include "engine.h"

#include <lmdb.h>
#include <stdlib.h>

struct bench_store {
    MDB_env *env;
    MDB_dbi dbi;
    size_t key_size;
    size_t value_size;
    unsigned batch;
};

struct bench_session {
    struct bench_store *store;
    MDB_txn *reader;
    MDB_cursor *cursor; /* of the reader */
    MDB_txn *writer;
    unsigned put_flags;
    unsigned reads;  /* since the reader was renewed */
    unsigned writes; /* in the writer */
    bool viewing;    /* the reader is live: it has a view of the data, and keeps the pages of that view */
};

static int fail(const char *what, int result)
{
    return bench_fail("lmdb: %s: %s", what, mdb_strerror(result));
}

static const char *version(void)
{
    int major, minor, patch;
    static char text[32];

    (void)mdb_version(&major, &minor, &patch);
    snprintf(text, sizeof(text), "%d.%d.%d", major, minor, patch);
    return text;
}

static int create_tree(struct bench_store *store)
{
    MDB_txn *txn;
    int result = mdb_txn_begin(store->env, NULL, 0, &txn);

    if (result != 0)
        return result;
    result = mdb_dbi_open(txn, NULL, 0, &store->dbi);
    if (result != 0) {
        mdb_txn_abort(txn);
        return result;
    }
    return mdb_txn_commit(txn);
}

static int store_open(const struct bench_engine_config *config, struct bench_store **ret_store)
{
    const unsigned fast = config->level == BENCH_LEVEL_DURABLE ? 0 : MDB_WRITEMAP | MDB_NOSYNC | MDB_NOMETASYNC;
    const unsigned batch = config->level == BENCH_LEVEL_OFF ? 1000 : 1;
    size_t entry_size = config->data->key_size + config->data->value_size + 64;
    struct bench_store *store = calloc(1, sizeof(*store));
    int result;

    if (store == NULL)
        return bench_fail("out of memory");
    store->key_size = config->data->key_size;
    store->value_size = config->data->value_size;
    store->batch = config->lmdb_batch != 0 ? config->lmdb_batch : batch;
    result = mdb_env_create(&store->env);
    if (result != 0) {
        free(store);
        return fail("env_create", result);
    }
    (void)mdb_env_set_maxreaders(store->env, config->threads + 8);
    result = mdb_env_set_mapsize(store->env, ((size_t)config->num * entry_size * 4 + (1u << 30)) & ~(size_t)4095);
    if (result == 0)
        result = mdb_env_open(store->env, config->dir, fast | MDB_NOTLS, 0644);
    if (result == 0)
        result = create_tree(store);
    if (result == 0 && config->data->key_size > (size_t)mdb_env_get_maxkeysize(store->env))
        result = MDB_BAD_VALSIZE;
    if (result != 0) {
        mdb_env_close(store->env);
        free(store);
        return fail("open", result);
    }
    *ret_store = store;
    return 0;
}

static void store_close(struct bench_store *store)
{
    mdb_env_close(store->env);
    free(store);
}

static void print_stats(struct bench_store *store, FILE *to)
{
    MDB_stat stat;
    MDB_envinfo info;

    if (mdb_env_stat(store->env, &stat) != 0 || mdb_env_info(store->env, &info) != 0)
        return;
    fprintf(to, "page_size %u\ndepth %u\nbranch_pages %zu\nleaf_pages %zu\noverflow_pages %zu\nentries %zu\n",
            stat.ms_psize, stat.ms_depth, stat.ms_branch_pages, stat.ms_leaf_pages, stat.ms_overflow_pages,
            stat.ms_entries);
    fprintf(to, "file_bytes %zu\n", (info.me_last_pgno + 1) * stat.ms_psize);
}

static int session_begin(struct bench_store *store, bool append, struct bench_session **ret_session)
{
    struct bench_session *session = calloc(1, sizeof(*session));

    if (session == NULL)
        return bench_fail("out of memory");
    session->store = store;
    session->put_flags = append ? MDB_APPEND : 0;
    *ret_session = session;
    return 0;
}

static int writer_commit(struct bench_session *session)
{
    int result = mdb_txn_commit(session->writer);

    session->writer = NULL;
    session->writes = 0;
    return result == 0 ? 0 : fail("commit", result);
}

static int session_end(struct bench_session *session)
{
    int result = session->writer != NULL ? writer_commit(session) : 0;

    if (session->cursor != NULL)
        mdb_cursor_close(session->cursor);
    if (session->reader != NULL)
        mdb_txn_abort(session->reader);
    free(session);
    return result;
}

static inline int writer_use(struct bench_session *session)
{
    int result;

    if (session->writer != NULL)
        return 0;
    /* A view that is not used keeps LMDB from reusing pages: give it up. */
    if (session->viewing)
        mdb_txn_reset(session->reader);
    session->viewing = false;
    result = mdb_txn_begin(session->store->env, NULL, 0, &session->writer);
    return result == 0 ? 0 : fail("begin", result);
}

static inline int writer_done(struct bench_session *session)
{
    return ++session->writes < session->store->batch ? 0 : writer_commit(session);
}

static int put(struct bench_session *session, const void *key, const void *value)
{
    struct bench_store *store = session->store;
    MDB_val k = {store->key_size, (void *)(uintptr_t)key};
    MDB_val v = {store->value_size, (void *)(uintptr_t)value};
    int result;

    if (writer_use(session) != 0)
        return -1;
    result = mdb_put(session->writer, store->dbi, &k, &v, session->put_flags);
    return result == 0 ? writer_done(session) : fail("put", result);
}

static int del(struct bench_session *session, const void *key)
{
    MDB_val k = {session->store->key_size, (void *)(uintptr_t)key};
    int result;

    if (writer_use(session) != 0)
        return -1;
    result = mdb_del(session->writer, session->store->dbi, &k, NULL);
    return result == 0 ? writer_done(session) : fail("delete", result);
}

static int view_renew(struct bench_session *session)
{
    int result;

    session->reads = 0;
    if (session->reader == NULL) {
        result = mdb_txn_begin(session->store->env, NULL, MDB_RDONLY, &session->reader);
        if (result == 0)
            result = mdb_cursor_open(session->reader, session->store->dbi, &session->cursor);
    } else {
        if (session->viewing)
            mdb_txn_reset(session->reader);
        result = mdb_txn_renew(session->reader);
        if (result == 0)
            result = mdb_cursor_renew(session->reader, session->cursor);
    }
    session->viewing = result == 0;
    return result == 0 ? 0 : fail("read transaction", result);
}

static inline int view_use(struct bench_session *session, unsigned reads)
{
    if (!session->viewing || session->reads >= BENCH_READS_PER_VIEW)
        if (view_renew(session) != 0)
            return -1;
    session->reads += reads;
    return 0;
}

static inline int get_in(struct bench_session *session, MDB_txn *txn, const void *key, struct bench_slice *ret_value)
{
    MDB_val k = {session->store->key_size, (void *)(uintptr_t)key};
    MDB_val v;
    int result = mdb_get(txn, session->store->dbi, &k, &v);

    if (result != 0 && result != MDB_NOTFOUND)
        return fail("get", result);
    *ret_value = result == 0 ? (struct bench_slice){v.mv_data, v.mv_size} : (struct bench_slice){NULL, 0};
    return 0;
}

static int get(struct bench_session *session, const void *key, struct bench_slice *ret_value)
{
    if (session->writer != NULL)
        return get_in(session, session->writer, key, ret_value);
    return view_use(session, 1) == 0 ? get_in(session, session->reader, key, ret_value) : -1;
}

/* LMDB has no read of many keys. All the pointers are valid until the transaction is renewed. */
static int get_many(struct bench_session *session, const uint8_t *keys, struct bench_slice *ret_values)
{
    if (view_use(session, BENCH_MANY) != 0)
        return -1;
    for (unsigned i = 0; i < BENCH_MANY; i++)
        if (get_in(session, session->reader, keys + i * session->store->key_size, &ret_values[i]) != 0)
            return -1;
    return 0;
}

static int scan_cursor(struct bench_session *session, const void *start, struct bench_scan *scan)
{
    MDB_val k = {session->store->key_size, (void *)(uintptr_t)start};
    MDB_val v;
    int result;

    if (view_use(session, 1) != 0)
        return -1;
    result = mdb_cursor_get(session->cursor, &k, &v, start == NULL ? MDB_FIRST : MDB_SET_RANGE);
    while (result == 0 && bench_scan_take(scan, k.mv_data, k.mv_size, v.mv_data, v.mv_size))
        result = mdb_cursor_get(session->cursor, &k, &v, MDB_NEXT);
    return result == 0 || result == MDB_NOTFOUND ? 0 : fail("cursor", result);
}

const struct bench_engine bench_engine_lmdb = {
    .name = "lmdb",
    .version = version,
    .open = store_open,
    .close = store_close,
    .print_stats = print_stats,
    .session_begin = session_begin,
    .session_end = session_end,
    .put = put,
    .del = del,
    .get = get,
    .get_many = get_many,
    .scan = scan_cursor,
};
