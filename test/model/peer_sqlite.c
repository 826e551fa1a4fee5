/*
 * peer_sqlite.c: SQLite as a peer: a table WITHOUT ROWID, whose keys are ordered as Quire's.
 *
 * Test program (differential). A second connection in a read transaction is the snapshot.
 */
#include "model/peer.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITES_AT_ONCE 500u /* in a transaction */

enum side { NOW, THEN, SIDES };
enum read { READ_GET, READ_UP, READ_DOWN, READS };
enum write { WRITE_PUT, WRITE_DELETE, WRITE_INSERT, WRITES };

struct peer {
    sqlite3 *connections[SIDES];
    sqlite3_stmt *reads[SIDES][READS];
    sqlite3_stmt *writes[WRITES];
    uint32_t open_writes;
};

static void run(sqlite3 *connection, const char *text)
{
    char *why = NULL;
    if (sqlite3_exec(connection, text, NULL, NULL, &why) != SQLITE_OK)
        peer_fail(text, why);
}

static sqlite3_stmt *prepare(sqlite3 *connection, const char *text)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(connection, text, -1, &statement, NULL) != SQLITE_OK)
        peer_fail(text, sqlite3_errmsg(connection));
    return statement;
}

static sqlite3 *connect(const char *path)
{
    sqlite3 *connection;
    if (sqlite3_open(path, &connection) != SQLITE_OK)
        peer_fail("open", path);
    run(connection, "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA cache_size=-20000;"
                    "CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID");
    return connection;
}

static struct peer *open_store(const char *directory)
{
    static const char *const reads[READS] = {
        "SELECT v FROM t WHERE k = ?1",
        "SELECT k, v FROM t WHERE k >= ?1 AND (?2 IS NULL OR k < ?2) ORDER BY k",
        "SELECT k, v FROM t WHERE k >= ?1 AND (?2 IS NULL OR k < ?2) ORDER BY k DESC",
    };
    static const char *const writes[WRITES] = {
        "INSERT OR REPLACE INTO t VALUES (?1, ?2)",
        "DELETE FROM t WHERE k = ?1",
        "INSERT OR IGNORE INTO t VALUES (?1, ?2)",
    };
    struct peer *peer = calloc(1, sizeof(*peer));
    char path[4096];
    snprintf(path, sizeof(path), "%s/sqlite", directory);
    for (int side = 0; side < SIDES; side++) {
        peer->connections[side] = connect(path);
        for (int i = 0; i < READS; i++)
            peer->reads[side][i] = prepare(peer->connections[side], reads[i]);
    }
    for (int i = 0; i < WRITES; i++)
        peer->writes[i] = prepare(peer->connections[NOW], writes[i]);
    return peer;
}

static void commit(struct peer *peer)
{
    if (peer->open_writes != 0)
        run(peer->connections[NOW], "COMMIT");
    peer->open_writes = 0;
}

static void close_store(struct peer *peer)
{
    commit(peer);
    for (int i = 0; i < WRITES; i++)
        sqlite3_finalize(peer->writes[i]);
    for (int side = 0; side < SIDES; side++) {
        for (int i = 0; i < READS; i++)
            sqlite3_finalize(peer->reads[side][i]);
        if (sqlite3_close(peer->connections[side]) != SQLITE_OK)
            peer_fail("close", sqlite3_errmsg(peer->connections[side]));
    }
    free(peer);
}

/* An empty slice is the empty blob, not NULL. */
static void bind(sqlite3_stmt *statement, int number, struct quire_slice slice)
{
    if (sqlite3_bind_blob64(statement, number, slice.size == 0 ? "" : slice.data, slice.size, SQLITE_STATIC) != SQLITE_OK)
        peer_fail("bind", "");
}

static struct quire_slice column(sqlite3_stmt *statement, int number)
{
    const void *data = sqlite3_column_blob(statement, number);
    return (struct quire_slice){data == NULL ? "" : data, (size_t)sqlite3_column_bytes(statement, number)};
}

/* Whether it changed something. */
static bool write_once(struct peer *peer, enum write which, struct quire_slice key, struct quire_slice value)
{
    sqlite3_stmt *statement = peer->writes[which];
    if (peer->open_writes++ == 0)
        run(peer->connections[NOW], "BEGIN");
    bind(statement, 1, key);
    if (which != WRITE_DELETE)
        bind(statement, 2, value);
    if (sqlite3_step(statement) != SQLITE_DONE)
        peer_fail("write", sqlite3_errmsg(peer->connections[NOW]));
    sqlite3_reset(statement);
    bool changed = sqlite3_changes(peer->connections[NOW]) != 0;
    if (peer->open_writes == WRITES_AT_ONCE)
        commit(peer);
    return changed;
}

static void put(struct peer *peer, struct quire_slice key, struct quire_slice value)
{
    write_once(peer, WRITE_PUT, key, value);
}

static bool delete(struct peer *peer, struct quire_slice key)
{
    return write_once(peer, WRITE_DELETE, key, (struct quire_slice){0});
}

static bool insert(struct peer *peer, struct quire_slice key, struct quire_slice value)
{
    return write_once(peer, WRITE_INSERT, key, value);
}

/* The statement is reset by the next one like it, which is when its values go. */
static bool get(struct peer *peer, bool snapshot, struct quire_slice key, struct quire_slice *ret_value)
{
    sqlite3_stmt *statement = peer->reads[snapshot ? THEN : NOW][READ_GET];
    sqlite3_reset(statement);
    bind(statement, 1, key);
    int result = sqlite3_step(statement);
    if (result != SQLITE_ROW && result != SQLITE_DONE)
        peer_fail("read", sqlite3_errmsg(peer->connections[snapshot ? THEN : NOW]));
    if (result == SQLITE_ROW) {
        *ret_value = column(statement, 0);
        return true;
    }
    sqlite3_reset(statement);
    return false;
}

static void scan(struct peer *peer, bool snapshot, struct quire_slice start, struct quire_slice end, bool reverse,
                 peer_visit *visit, void *context)
{
    sqlite3_stmt *statement = peer->reads[snapshot ? THEN : NOW][reverse ? READ_DOWN : READ_UP];
    bind(statement, 1, start);
    if (end.data == NULL)
        sqlite3_bind_null(statement, 2);
    else
        bind(statement, 2, end);
    int result;
    bool more = true;
    while (more && (result = sqlite3_step(statement)) == SQLITE_ROW)
        more = visit(context, column(statement, 0), column(statement, 1));
    if (more && result != SQLITE_DONE)
        peer_fail("scan", sqlite3_errmsg(peer->connections[snapshot ? THEN : NOW]));
    sqlite3_reset(statement);
}

static void reset_gets(struct peer *peer)
{
    sqlite3_reset(peer->reads[NOW][READ_GET]);
    sqlite3_reset(peer->reads[THEN][READ_GET]);
}

/* The transaction begins with its first read. */
static void take(struct peer *peer)
{
    reset_gets(peer);
    commit(peer);
    run(peer->connections[THEN], "BEGIN; SELECT count(*) FROM (SELECT 1 FROM t LIMIT 1)");
}

static void release(struct peer *peer)
{
    reset_gets(peer);
    run(peer->connections[THEN], "COMMIT");
}

static void checkpoint(struct peer *peer)
{
    reset_gets(peer);
    commit(peer);
    run(peer->connections[NOW], "PRAGMA wal_checkpoint(PASSIVE)");
}

static const struct peer_ops ops = {
    .name = "sqlite", .most_key_bytes = 100000, .open = open_store, .close = close_store, .put = put, .delete = delete,
    .insert = insert, .get = get, .scan = scan, .take = take, .release = release, .checkpoint = checkpoint,
};
const struct peer_ops *const peer_sqlite = &ops;
