/*
 * peer.h: another ordered store, to which the same operations are put as to Quire.
 *
 * Test program (differential). One thread. What fails that should not ends the program: peer_fail. Keys and values are copied by
 * the peer; what it hands out is valid until its next call.
 */
#ifndef TEST_MODEL_PEER_H
#define TEST_MODEL_PEER_H

#include <quire/quire.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer;

/* Sees an entry; false ends the scan. */
typedef bool peer_visit(void *context, struct quire_slice key, struct quire_slice value);

struct peer_ops {
    const char *name;
    size_t most_key_bytes;

    /* Opens the store in an empty or used directory; closing keeps it. */
    struct peer *(*open)(const char *directory);
    void (*close)(struct peer *peer);

    void (*put)(struct peer *peer, struct quire_slice key, struct quire_slice value);
    bool (*delete)(struct peer *peer, struct quire_slice key);                            /* whether it was there */
    bool (*insert)(struct peer *peer, struct quire_slice key, struct quire_slice value); /* false: it is there */

    /* snapshot: as of the call of `take`, not now. */
    bool (*get)(struct peer *peer, bool snapshot, struct quire_slice key, struct quire_slice *ret_value);
    /* Entries with start <= key < end, ascending or descending; data NULL: no bound. */
    void (*scan)(struct peer *peer, bool snapshot, struct quire_slice start, struct quire_slice end, bool reverse,
                 peer_visit *visit, void *context);

    /* One snapshot at a time. */
    void (*take)(struct peer *peer);
    void (*release)(struct peer *peer);
    void (*checkpoint)(struct peer *peer); /* whatever comes near to it */
};

/* NULL where the library was not found when this was built. */
extern const struct peer_ops *const peer_lmdb;
extern const struct peer_ops *const peer_sqlite;

_Noreturn void peer_fail(const char *what, const char *why);

/* Order of keys: bytes, a prefix before its extensions. */
int peer_compare(struct quire_slice a, struct quire_slice b);

#endif
