/*
 * Stress mode `versions`: many threads write versions of the same keys in any order; readers see, at a version, nothing
 * above it and never step back; in the end every version is exactly what was written.
 *
 * Test program (stress). Whether (key, version) is written, as what, and with which bytes is a pure function, so every
 * value that is read can be judged at once. A version belongs to the thread with its number modulo the team; each
 * thread goes through windows of versions in an order of its own, and the safe version follows the slowest.
 */
#include "stress.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#define KEYS 150
#define WINDOW 32 /* versions */
#define VALUE_MAX_BYTES 128

struct versions_team {
    unsigned writers;
    uint64_t windows;
    uint64_t salt;
    _Atomic uint64_t window_of[STRESS_THREADS_MAX]; /* the window that a writer is in */
};

enum content { NOTHING, PUT, DELETION };

/* What is written for (key, version). Version 0 is never written. */
static enum content content_of(const struct versions_team *team, uint64_t key, uint64_t version)
{
    uint64_t lot = random_mix(team->salt ^ (key << 32) ^ version) % 100;
    if (version == 0 || lot < 40)
        return NOTHING;
    return lot < 80 ? PUT : DELETION;
}

static size_t value_of(uint64_t key, uint64_t version, uint8_t *value)
{
    uint64_t id = (key << 32) | version;
    size_t size = 8 + (size_t)(random_mix(id) % (VALUE_MAX_BYTES - 8));
    value_make(id, value, size);
    return size;
}

static size_t key_of(uint64_t key, uint8_t *bytes)
{
    return (size_t)snprintf((char *)bytes, 32, "versioned/%04" PRIu64, key);
}

/* ---- Writers ---------------------------------------------------------------------------------------------------- */

static void write_one(struct stress_worker *worker, const struct versions_team *team, uint64_t key, uint64_t version)
{
    struct quire_tree *tree = worker->stress->tree;
    uint8_t bytes[32], value[VALUE_MAX_BYTES];
    size_t key_size = key_of(key, bytes);
    enum content content = content_of(team, key, version);

    if (content == DELETION)
        CHECK_EQUAL(quire_delete_at(tree, version, bytes, key_size, 0, NULL), 0);
    if (content == PUT)
        CHECK_EQUAL(quire_put_at(tree, version, bytes, key_size, value, value_of(key, version, value), 0, NULL), 0);
}

/* The safe version may go to the end of the last window that all writers have left. */
static void raise_safe(struct stress_worker *worker, struct versions_team *team)
{
    uint64_t slowest = UINT64_MAX;
    for (unsigned i = 0; i < team->writers; i++) {
        /* order: test.window pairs with test.window.left: the writes of earlier windows are installed */
        uint64_t window = atomic_load_explicit(&team->window_of[i], memory_order_acquire);
        slowest = window < slowest ? window : slowest;
    }
    if (slowest != 0)
        CHECK_EQUAL(quire_set_safe_lsn(worker->stress->tree, slowest * WINDOW), 0);
}

/* All (key, version) pairs of a window that are this writer's, in a drawn order (stepping by a generator of the cycle).
 */
static void write_window(struct stress_worker *worker, struct versions_team *team, uint64_t window)
{
    uint64_t total = KEYS * WINDOW; /* 2^6 * 3 * 5^2: any step that shares no factor visits all */
    uint64_t step = random_between(&worker->random, 1, total / 30 - 1) * 30 + 1;
    uint64_t at = random_below(&worker->random, total);

    for (uint64_t i = 0; i < total; i++, at = (at + step) % total) {
        uint64_t version = window * WINDOW + 1 + at % WINDOW;
        if (version % team->writers == worker->number)
            write_one(worker, team, at / WINDOW, version);
    }
}

/* ---- Readers ---------------------------------------------------------------------------------------------------- */

/* The value claims to be (key, version): it must have been written as that, and not be above what was asked for. */
static void judge(const struct versions_team *team, uint64_t key, uint64_t asked, uint64_t version, const void *data,
                  size_t size)
{
    uint8_t right[VALUE_MAX_BYTES];
    CHECK(version <= asked, "version %" PRIu64 " at %" PRIu64, version, asked);
    CHECK(content_of(team, key, version) == PUT && size == value_of(key, version, right) &&
              memcmp(data, right, size) == 0,
          "key %" PRIu64 " version %" PRIu64 " was never written like that", key, version);
}

/* Reads one key at one version twice: what was visible stays, or something newer takes its place. */
static void read_twice(struct stress_worker *worker, const struct versions_team *team, uint64_t key, uint64_t asked)
{
    struct quire_tree *tree = worker->stress->tree;
    uint8_t bytes[32];
    size_t key_size = key_of(key, bytes);
    uint64_t before = 0, safe = 0;

    for (int i = 0; i < 2; i++) {
        struct quire_guard guard;
        struct quire_value value;
        CHECK_EQUAL(quire_pin(worker->stress->db, NULL, &guard), 0);
        int result = quire_guard_get_at(&guard, tree, asked, bytes, key_size, &value);
        if (result == 0) {
            judge(team, key, asked, value.version, value.data, value.size);
            CHECK(value.version >= before, "version %" PRIu64 " after %" PRIu64, value.version, before);
            before = value.version;
        } else if (result == QUIRE_ERR_LSN_TOO_OLD) {
            CHECK_EQUAL(quire_safe_lsn(tree, &safe), 0);
            CHECK(asked < safe, "refused at %" PRIu64 ", safe %" PRIu64, asked, safe);
        } else {
            CHECK_EQUAL(result, QUIRE_NOT_FOUND);
        }
        CHECK_EQUAL(quire_unpin(&guard), 0);
    }
}

static void read_pages(struct stress_worker *worker, const struct versions_team *team, uint64_t asked)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    uint64_t safe = 0;
    int64_t last = -1;

    quire_pages_options_init(&options);
    options.version = asked;
    int result = quire_pages_open(worker->stress->tree, &options, &pages);
    if (result == QUIRE_ERR_LSN_TOO_OLD) {
        CHECK_EQUAL(quire_safe_lsn(worker->stress->tree, &safe), 0);
        CHECK(asked < safe, "refused at %" PRIu64 ", safe %" PRIu64, asked, safe);
        return;
    }
    CHECK_EQUAL(result, 0);
    while (quire_pages_next(pages, &page) == 0) {
        for (size_t i = 0; i < page.count; i++) {
            const struct quire_entry *entry = &page.entries[i];
            int64_t key = 0;
            for (size_t j = 10; j < entry->key_size; j++)
                key = key * 10 + (((const char *)entry->key)[j] - '0');
            CHECK(key > last && key < KEYS, "key %" PRId64 " after %" PRId64, key, last);
            last = key;
            judge(team, (uint64_t)key, asked, entry->version, entry->value, entry->value_size);
        }
    }
    CHECK_EQUAL(quire_pages_close(pages), 0);
}

static void read_some(struct stress_worker *worker, const struct versions_team *team)
{
    uint64_t safe = 0;
    CHECK_EQUAL(quire_safe_lsn(worker->stress->tree, &safe), 0);
    for (unsigned i = 0; i < 40; i++)
        read_twice(worker, team, random_below(&worker->random, KEYS), safe + random_below(&worker->random, 3 * WINDOW));
    read_pages(worker, team, random_chance(&worker->random, 50) ? UINT64_MAX : safe + WINDOW);
}

/* ---- A round ---------------------------------------------------------------------------------------------------- */

static void write_and_read(struct stress_worker *worker)
{
    struct versions_team *team = (struct versions_team *)worker->shared;
    for (uint64_t window = 0; window < team->windows; window++) {
        write_window(worker, team, window);
        read_some(worker, team);
        /* order: test.window.left publishes the writes of the window; pairs with test.window */
        atomic_store_explicit(&team->window_of[worker->number], window + 1, memory_order_release);
        if (random_chance(&worker->random, 70))
            raise_safe(worker, team);
    }
}

/* The whole tree, at every version that can be read. */
static void compare_all(struct stress *stress, const struct versions_team *team)
{
    uint8_t bytes[32], value[VALUE_MAX_BYTES], right[VALUE_MAX_BYTES];
    uint64_t safe = 0, top = team->windows * WINDOW;

    CHECK_EQUAL(quire_safe_lsn(stress->tree, &safe), 0);
    for (uint64_t key = 0; key < KEYS; key++) {
        size_t key_size = key_of(key, bytes);
        for (uint64_t asked = safe > top - 2 * WINDOW ? safe : top - 2 * WINDOW; asked <= top; asked++) {
            uint64_t version = asked;
            size_t size = 0;
            if (asked < safe)
                continue;
            while (version != 0 && content_of(team, key, version) == NOTHING)
                version--;
            bool present = content_of(team, key, version) == PUT;
            int result = quire_get_at(stress->tree, asked, bytes, key_size, value, sizeof(value), &size);
            CHECK(result == (present ? 0 : QUIRE_NOT_FOUND), "key %" PRIu64 " at %" PRIu64 ": %d", key, asked, result);
            if (present && result == 0)
                CHECK(size == value_of(key, version, right) && memcmp(value, right, size) == 0,
                      "key %" PRIu64 " at %" PRIu64 " is not version %" PRIu64, key, asked, version);
        }
    }
}

void stress_versions(struct stress *stress)
{
    struct versions_team team = {.writers = (unsigned)stress->options->threads};
    team.salt = random_next(&stress->random);
    team.windows = 2 + stress->options->ops / (KEYS * WINDOW / 2);
    for (unsigned i = 0; i < STRESS_THREADS_MAX; i++)
        atomic_init(&team.window_of[i], 0);

    if (!stress_open(stress, QUIRE_VERSIONS_CALLER))
        return;
    stress_team(stress, team.writers, write_and_read, &team);
    compare_all(stress, &team);
    stress_close(stress);
}
