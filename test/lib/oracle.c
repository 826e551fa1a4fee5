/*
 * The oracle of oracle.h: a skip list of keys with a version array each.
 *
 * Test library. One thread at a time.
 */
#include "oracle.h"

#include "random.h"

#include <stdlib.h>
#include <string.h>

#define LEVELS_MAX 20

struct version {
    uint64_t version;
    uint64_t lsn;
    bool deleted;
    size_t size;
    uint8_t *data;
};

struct oracle_key {
    uint8_t *bytes;
    size_t size;
    struct version *versions; /* ascending (ORACLE-2) */
    size_t version_count;
    size_t version_capacity;
    struct oracle_key *before; /* level 0; NULL at the first key */
    struct oracle_key *after[LEVELS_MAX];
};

struct oracle {
    struct oracle_key *first[LEVELS_MAX];
    struct oracle_key *last;
    struct random_stream levels;
    uint64_t version_count;
};

/* Memory that cannot be had ends the test. Never NULL, also for size 0. */
static void *allocate(void *old, size_t size)
{
    void *memory = realloc(old, size != 0 ? size : 1);
    if (memory == NULL)
        abort();
    return memory;
}

int oracle_compare(const void *a, size_t a_size, const void *b, size_t b_size)
{
    size_t common = a_size < b_size ? a_size : b_size;
    int order = common != 0 ? memcmp(a, b, common) : 0;
    return order != 0 ? order : (a_size > b_size) - (a_size < b_size);
}

struct oracle *oracle_create(void)
{
    struct oracle *oracle = allocate(NULL, sizeof(*oracle));
    memset(oracle, 0, sizeof(*oracle));
    random_seed(&oracle->levels, 1);
    return oracle;
}

static void free_key(struct oracle_key *key)
{
    for (size_t i = 0; i < key->version_count; i++)
        free(key->versions[i].data);
    free(key->versions);
    free(key->bytes);
    free(key);
}

void oracle_destroy(struct oracle *oracle)
{
    if (oracle == NULL)
        return;
    for (struct oracle_key *key = oracle->first[0], *after; key != NULL; key = after) {
        after = key->after[0];
        free_key(key);
    }
    free(oracle);
}

/* ---- Finding keys ----------------------------------------------------------------------------------------------- */

/* On each level the last key below the wanted one (NULL: none). Returns the first key at or above it, or NULL. */
static struct oracle_key *find(const struct oracle *oracle, const void *bytes, size_t size,
                               struct oracle_key *ret_below[LEVELS_MAX])
{
    struct oracle_key *below = NULL;

    for (int level = LEVELS_MAX - 1; level >= 0; level--) {
        for (;;) {
            struct oracle_key *next = below != NULL ? below->after[level] : oracle->first[level];
            if (next == NULL || oracle_compare(next->bytes, next->size, bytes, size) >= 0)
                break;
            below = next;
        }
        ret_below[level] = below;
    }
    return below != NULL ? below->after[0] : oracle->first[0];
}

static struct oracle_key *find_exactly(const struct oracle *oracle, const void *bytes, size_t size)
{
    struct oracle_key *below[LEVELS_MAX];
    struct oracle_key *key = find(oracle, bytes, size, below);
    return key != NULL && oracle_compare(key->bytes, key->size, bytes, size) == 0 ? key : NULL;
}

static struct oracle_key *find_or_add(struct oracle *oracle, const void *bytes, size_t size)
{
    struct oracle_key *below[LEVELS_MAX];
    struct oracle_key *key = find(oracle, bytes, size, below);
    if (key != NULL && oracle_compare(key->bytes, key->size, bytes, size) == 0)
        return key;

    struct oracle_key *added = allocate(NULL, sizeof(*added));
    memset(added, 0, sizeof(*added));
    added->bytes = allocate(NULL, size);
    if (size != 0)
        memcpy(added->bytes, bytes, size);
    added->size = size;

    int height = 1;
    while (height < LEVELS_MAX && random_chance(&oracle->levels, 25))
        height++;
    for (int level = 0; level < height; level++) {
        struct oracle_key **link = below[level] != NULL ? &below[level]->after[level] : &oracle->first[level];
        added->after[level] = *link;
        *link = added;
    }
    added->before = below[0];
    if (added->after[0] != NULL)
        added->after[0]->before = added;
    else
        oracle->last = added;
    return added;
}

/* ---- Versions of a key ------------------------------------------------------------------------------------------ */

/* How many versions of the key are not above `version`: the newest visible one is just before that index. */
static size_t versions_up_to(const struct oracle_key *key, uint64_t version)
{
    size_t low = 0;
    size_t high = key->version_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (key->versions[middle].version <= version)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct version *add_version(struct oracle *oracle, struct oracle_key *key, uint64_t number)
{
    size_t at = versions_up_to(key, number);
    if (at != 0 && key->versions[at - 1].version == number) {
        free(key->versions[at - 1].data);
        return &key->versions[at - 1];
    }
    if (key->version_count == key->version_capacity) {
        key->version_capacity = key->version_capacity * 2 + 2;
        key->versions = allocate(key->versions, key->version_capacity * sizeof(*key->versions));
    }
    memmove(&key->versions[at + 1], &key->versions[at], (key->version_count - at) * sizeof(*key->versions));
    key->version_count++;
    oracle->version_count++;
    return &key->versions[at];
}

void oracle_put(struct oracle *oracle, const void *key, size_t key_size, uint64_t version, uint64_t lsn,
                const void *value, size_t value_size)
{
    uint8_t *data = allocate(NULL, value_size);
    if (value_size != 0)
        memcpy(data, value, value_size);
    struct version *added = add_version(oracle, find_or_add(oracle, key, key_size), version);
    *added = (struct version){.version = version, .lsn = lsn, .size = value_size, .data = data};
}

void oracle_delete(struct oracle *oracle, const void *key, size_t key_size, uint64_t version, uint64_t lsn)
{
    struct version *added = add_version(oracle, find_or_add(oracle, key, key_size), version);
    *added = (struct version){.version = version, .lsn = lsn, .deleted = true};
}

/* The value of the key at a version; false if it has none. */
static bool value_at(const struct oracle_key *key, uint64_t version, struct oracle_value *ret_value)
{
    size_t count = versions_up_to(key, version);
    if (count == 0 || key->versions[count - 1].deleted)
        return false;
    const struct version *found = &key->versions[count - 1];
    *ret_value =
        (struct oracle_value){.data = found->data, .size = found->size, .version = found->version, .lsn = found->lsn};
    return true;
}

bool oracle_get(const struct oracle *oracle, uint64_t version, const void *key, size_t key_size,
                struct oracle_value *ret_value)
{
    const struct oracle_key *found = find_exactly(oracle, key, key_size);
    return found != NULL && value_at(found, version, ret_value);
}

static void collect_key(struct oracle *oracle, struct oracle_key *key, uint64_t safe)
{
    size_t visible = versions_up_to(key, safe);
    if (visible == 0)
        return;
    size_t dropped = visible - 1;
    if (key->versions[dropped].deleted)
        dropped = visible;
    for (size_t i = 0; i < dropped; i++)
        free(key->versions[i].data);
    key->version_count -= dropped;
    oracle->version_count -= dropped;
    memmove(key->versions, key->versions + dropped, key->version_count * sizeof(*key->versions));
}

void oracle_collect(struct oracle *oracle, uint64_t safe)
{
    for (struct oracle_key *key = oracle->first[0]; key != NULL; key = key->after[0])
        collect_key(oracle, key, safe);
}

size_t oracle_key_versions(const struct oracle *oracle, const void *key, size_t key_size)
{
    const struct oracle_key *found = find_exactly(oracle, key, key_size);
    return found != NULL ? found->version_count : 0;
}

uint64_t oracle_versions(const struct oracle *oracle)
{
    return oracle->version_count;
}

/* ---- Order ------------------------------------------------------------------------------------------------------ */

void oracle_walk_start(struct oracle_walk *ret_walk, const struct oracle *oracle, struct oracle_range range,
                       uint64_t version, bool reverse)
{
    struct oracle_key *below[LEVELS_MAX];
    const struct oracle_key *next;

    if (!reverse) {
        next = range.start != NULL ? find(oracle, range.start, range.start_size, below) : oracle->first[0];
    } else if (range.end != NULL) {
        find(oracle, range.end, range.end_size, below);
        next = below[0];
    } else {
        next = oracle->last;
    }
    *ret_walk =
        (struct oracle_walk){.oracle = oracle, .range = range, .version = version, .reverse = reverse, .next = next};
}

static bool within(const struct oracle_walk *walk, const struct oracle_key *key)
{
    const struct oracle_range *range = &walk->range;
    if (walk->reverse)
        return range->start == NULL || oracle_compare(key->bytes, key->size, range->start, range->start_size) >= 0;
    return range->end == NULL || oracle_compare(key->bytes, key->size, range->end, range->end_size) < 0;
}

bool oracle_walk_next(struct oracle_walk *walk, struct oracle_item *ret_item)
{
    while (walk->next != NULL) {
        const struct oracle_key *key = walk->next;
        if (!within(walk, key)) {
            walk->next = NULL;
            return false;
        }
        walk->next = walk->reverse ? key->before : key->after[0];
        if (value_at(key, walk->version, &ret_item->value)) {
            ret_item->key = key->bytes;
            ret_item->key_size = key->size;
            return true;
        }
    }
    return false;
}

uint64_t oracle_count(const struct oracle *oracle, struct oracle_range range, uint64_t version)
{
    struct oracle_walk walk;
    struct oracle_item item;
    uint64_t count = 0;

    oracle_walk_start(&walk, oracle, range, version, false);
    while (oracle_walk_next(&walk, &item))
        count++;
    return count;
}
