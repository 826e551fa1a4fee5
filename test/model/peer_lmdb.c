/*
 * peer_lmdb.c: LMDB as a peer.
 *
 * Test program (differential). LMDB has no empty key, so each is stored behind a byte, which changes no order. A read transaction is
 * the snapshot.
 */
#include "model/peer.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITES_AT_ONCE 500u
#define MAP_BYTES ((size_t)2 << 30)

struct peer {
    MDB_env *env;
    MDB_dbi table;
    MDB_txn *now; /* of the writes that are not committed; reads go through it */
    MDB_txn *then;
    uint32_t open_writes;
    uint8_t key[512];
};

static void check(int result, const char *what)
{
    if (result != 0)
        peer_fail(what, mdb_strerror(result));
}

static MDB_txn *now(struct peer *peer)
{
    if (peer->now == NULL)
        check(mdb_txn_begin(peer->env, NULL, 0, &peer->now), "begin");
    return peer->now;
}

static void commit(struct peer *peer)
{
    if (peer->now != NULL)
        check(mdb_txn_commit(peer->now), "commit");
    peer->now = NULL;
    peer->open_writes = 0;
}

static struct peer *open_store(const char *directory)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    char path[4096];
    snprintf(path, sizeof(path), "%s/lmdb", directory);
    check(mdb_env_create(&peer->env), "create");
    check(mdb_env_set_mapsize(peer->env, MAP_BYTES), "map size");
    check(mdb_env_open(peer->env, path, MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOTLS, 0600), "open");
    check(mdb_dbi_open(now(peer), NULL, 0, &peer->table), "table");
    commit(peer);
    return peer;
}

static void close_store(struct peer *peer)
{
    commit(peer);
    mdb_env_close(peer->env);
    free(peer);
}

static MDB_val key_of(struct peer *peer, struct quire_slice key)
{
    peer->key[0] = 'k';
    if (key.size != 0)
        memcpy(peer->key + 1, key.data, key.size);
    return (MDB_val){key.size + 1, peer->key};
}

static struct quire_slice bytes_of(const MDB_val *key)
{
    return (struct quire_slice){(const uint8_t *)key->mv_data + 1, key->mv_size - 1};
}

static void wrote(struct peer *peer)
{
    if (++peer->open_writes == WRITES_AT_ONCE)
        commit(peer);
}

static void put(struct peer *peer, struct quire_slice key, struct quire_slice value)
{
    MDB_val k = key_of(peer, key), v = {value.size, (void *)(uintptr_t)value.data};
    check(mdb_put(now(peer), peer->table, &k, &v, 0), "put");
    wrote(peer);
}

static bool delete(struct peer *peer, struct quire_slice key)
{
    MDB_val k = key_of(peer, key);
    int result = mdb_del(now(peer), peer->table, &k, NULL);
    check(result == MDB_NOTFOUND ? 0 : result, "delete");
    wrote(peer);
    return result == 0;
}

static bool insert(struct peer *peer, struct quire_slice key, struct quire_slice value)
{
    MDB_val k = key_of(peer, key), v = {value.size, (void *)(uintptr_t)value.data};
    int result = mdb_put(now(peer), peer->table, &k, &v, MDB_NOOVERWRITE);
    check(result == MDB_KEYEXIST ? 0 : result, "insert");
    wrote(peer);
    return result == 0;
}

static bool get(struct peer *peer, bool snapshot, struct quire_slice key, struct quire_slice *ret_value)
{
    MDB_val k = key_of(peer, key), v;
    int result = mdb_get(snapshot ? peer->then : now(peer), peer->table, &k, &v);
    check(result == MDB_NOTFOUND ? 0 : result, "get");
    if (result == 0)
        *ret_value = (struct quire_slice){v.mv_data, v.mv_size};
    return result == 0;
}

/* The cursor goes to the first entry of the scan. */
static int begin_scan(struct peer *peer, MDB_cursor *cursor, struct quire_slice start, struct quire_slice end, bool reverse,
                      MDB_val *k, MDB_val *v)
{
    struct quire_slice from = reverse ? end : start;
    if (from.data == NULL)
        return mdb_cursor_get(cursor, k, v, reverse ? MDB_LAST : MDB_FIRST);
    *k = key_of(peer, from);
    int result = mdb_cursor_get(cursor, k, v, MDB_SET_RANGE);
    if (!reverse)
        return result;
    return mdb_cursor_get(cursor, k, v, result == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
}

static void scan(struct peer *peer, bool snapshot, struct quire_slice start, struct quire_slice end, bool reverse,
                 peer_visit *visit, void *context)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    check(mdb_cursor_open(snapshot ? peer->then : now(peer), peer->table, &cursor), "cursor");
    int result = begin_scan(peer, cursor, start, end, reverse, &k, &v);
    while (result == 0) {
        struct quire_slice key = bytes_of(&k);
        bool beyond = reverse ? start.data != NULL && peer_compare(key, start) < 0 : end.data != NULL && peer_compare(key, end) >= 0;
        if (beyond || !visit(context, key, (struct quire_slice){v.mv_data, v.mv_size}))
            break;
        result = mdb_cursor_get(cursor, &k, &v, reverse ? MDB_PREV : MDB_NEXT);
    }
    check(result == MDB_NOTFOUND ? 0 : result, "scan");
    mdb_cursor_close(cursor);
}

static void take(struct peer *peer)
{
    commit(peer);
    check(mdb_txn_begin(peer->env, NULL, MDB_RDONLY, &peer->then), "begin to read");
}

static void release(struct peer *peer)
{
    mdb_txn_abort(peer->then);
    peer->then = NULL;
}

static void checkpoint(struct peer *peer)
{
    commit(peer);
}

static const struct peer_ops ops = {
    .name = "lmdb", .most_key_bytes = 510, .open = open_store, .close = close_store, .put = put, .delete = delete,
    .insert = insert, .get = get, .scan = scan, .take = take, .release = release, .checkpoint = checkpoint,
};
const struct peer_ops *const peer_lmdb = &ops;
