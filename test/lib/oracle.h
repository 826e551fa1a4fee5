/*
 * The oracle: a plain ordered map of (key, version) to a value or a deletion, against which the engine is compared.
 *
 * Test library. Deliberately simple: a skip list of keys, each with one sorted array of its versions. Nothing is shared
 * with the engine, not even the comparison of keys. One thread at a time.
 *
 * ORACLE-1  Keys are ordered by unsigned bytes, a prefix before its extensions.
 * ORACLE-2  Versions of a key ascend, each once. A write of a version that is there replaces it: the last one wins.
 * ORACLE-3  A read at version v answers the write with the highest version not above v.
 * ORACLE-4  Collection at a safe version changes no answer at or above it.
 */
#ifndef TEST_LIB_ORACLE_H
#define TEST_LIB_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct oracle;
struct oracle_key; /* a key that was written at some time; lives as long as the oracle */

/* What a read answers. The value belongs to the oracle, until the next write of its key or collection. */
struct oracle_value {
    const void *data;
    size_t size;
    uint64_t version;
    uint64_t lsn;
};

/* Never fails: a test that is out of memory aborts. */
struct oracle *oracle_create(void);
void oracle_destroy(struct oracle *oracle);

/* One write. In trees with engine versions pass the LSN as the version too. */
void oracle_put(struct oracle *oracle, const void *key, size_t key_size, uint64_t version, uint64_t lsn,
                const void *value, size_t value_size);
void oracle_delete(struct oracle *oracle, const void *key, size_t key_size, uint64_t version, uint64_t lsn);

/* The value at a version (UINT64_MAX: the newest). False if there is none. */
bool oracle_get(const struct oracle *oracle, uint64_t version, const void *key, size_t key_size,
                struct oracle_value *ret_value);

/* Forgets versions below the newest one that is not above `safe`, key by key; a deletion that is left lowest too. */
void oracle_collect(struct oracle *oracle, uint64_t safe);

/* Versions kept of one key, deletions included; of all keys. */
size_t oracle_key_versions(const struct oracle *oracle, const void *key, size_t key_size);
uint64_t oracle_versions(const struct oracle *oracle);

/* ---- Order ------------------------------------------------------------------------------------------------------ */

/* A range [start, end); NULL stands for no bound. */
struct oracle_range {
    const void *start;
    size_t start_size;
    const void *end;
    size_t end_size;
};

/*
 * A walk over the keys with a value at `version`, ascending or descending. Writes meanwhile are allowed: the walk goes
 * by the order of keys.
 */
struct oracle_walk {
    const struct oracle *oracle;
    struct oracle_range range;
    uint64_t version;
    bool reverse;
    const struct oracle_key *next; /* NULL: ended */
};

struct oracle_item {
    const void *key;
    size_t key_size;
    struct oracle_value value;
};

/* The bounds are not copied. */
void oracle_walk_start(struct oracle_walk *ret_walk, const struct oracle *oracle, struct oracle_range range,
                       uint64_t version, bool reverse);

/* The next item; false at the end. */
bool oracle_walk_next(struct oracle_walk *walk, struct oracle_item *ret_item);

/* How many keys of the range have a value at `version`. */
uint64_t oracle_count(const struct oracle *oracle, struct oracle_range range, uint64_t version);

/* ORACLE-1, for tests that order keys themselves. */
int oracle_compare(const void *a, size_t a_size, const void *b, size_t b_size);

#endif
