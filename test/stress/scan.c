/*
 * Stress mode `scan`: pages in both directions beside writers that split and merge the leaves; what is always there
 * appears exactly once and in order, snapshots stand still, and no write is lost.
 *
 * Test program (stress). Of the keys, by number modulo 16: STABLE ones are never written, OVERWRITTEN ones always have
 * some value, all others belong to one writer each, which inserts and deletes runs of its own and remembers them.
 */
#include "stress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define KEYS 6000
#define VALUE_MAX_BYTES 160

enum role { STABLE, OVERWRITTEN, OWNED };

struct scan_team {
    unsigned writers; /* the other threads scan */
    uint64_t *state;  /* per OWNED key: the number of its value, 0 = absent; written by its owner only */
};

static enum role role_of(uint64_t key)
{
    return key % 16 == 0 ? STABLE : (key % 16 == 1 ? OVERWRITTEN : OWNED);
}

static unsigned owner_of(const struct scan_team *team, uint64_t key)
{
    return (unsigned)(random_mix(key / 64) % team->writers);
}

/* Big-endian, then a tail of 0 to 20 bytes that keeps the order. */
static size_t key_of(uint64_t key, uint8_t *bytes)
{
    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(key >> (24 - 8 * i));
    memset(bytes + 4, 't', key % 21);
    return 4 + key % 21;
}

static uint64_t number_of_key(const void *bytes, size_t size)
{
    const uint8_t *b = (const uint8_t *)bytes;
    return size < 4 ? UINT64_MAX : ((uint64_t)b[0] << 24) | ((uint64_t)b[1] << 16) | ((uint64_t)b[2] << 8) | b[3];
}

/* The low bits of a value's number name its key. */
static size_t value_of(uint64_t key, uint64_t count, uint8_t *value)
{
    uint64_t id = (count << 16) | key;
    size_t size = 8 + (size_t)(random_mix(id) % (VALUE_MAX_BYTES - 8));
    value_make(id, value, size);
    return size;
}

/* ---- Writers ---------------------------------------------------------------------------------------------------- */

static void put_key(struct stress *stress, uint64_t key, uint64_t count)
{
    uint8_t bytes[32], value[VALUE_MAX_BYTES];
    size_t key_size = key_of(key, bytes);
    size_t size = value_of(key, count, value);
    CHECK_EQUAL(quire_put(stress->tree, bytes, key_size, value, size, 0, NULL), 0);
}

static void delete_key(struct stress *stress, uint64_t key, bool there)
{
    uint8_t bytes[32];
    size_t key_size = key_of(key, bytes);
    int existed = -1;
    CHECK_EQUAL(quire_delete(stress->tree, bytes, key_size, 0, &existed, NULL), 0);
    CHECK_EQUAL(existed, there);
}

/* A run of this writer's keys is filled or emptied; overwritten keys on the way get a new value. */
static void change_run(struct stress_worker *worker, struct scan_team *team, uint64_t count)
{
    uint64_t first = random_below(&worker->random, KEYS);
    uint64_t length = random_between(&worker->random, 1, 600);
    bool fill = random_chance(&worker->random, 50);

    for (uint64_t key = first; key < first + length && key < KEYS; key++) {
        if (role_of(key) == OVERWRITTEN && random_chance(&worker->random, 30))
            put_key(worker->stress, key, count);
        if (role_of(key) != OWNED || owner_of(team, key) != worker->number)
            continue;
        if (fill) {
            put_key(worker->stress, key, count);
            team->state[key] = count;
        } else if (team->state[key] != 0 || random_chance(&worker->random, 5)) {
            delete_key(worker->stress, key, team->state[key] != 0);
            team->state[key] = 0;
        }
    }
}

/* ---- Scanners --------------------------------------------------------------------------------------------------- */

struct scan {
    struct quire_snapshot *snapshot;
    uint64_t first; /* numbers of the bounds */
    uint64_t beyond;
    bool reverse;
    uint64_t entries;
    uint64_t digest; /* of keys, values and LSNs, the same in both directions */
};

/* An entry in its turn; *next is the lowest (reverse: one above the highest) number that may still come. */
static void see_entry(const struct quire_entry *entry, struct scan *scan, uint64_t *next)
{
    uint64_t key = number_of_key(entry->key, entry->key_size);
    uint64_t id = 0;
    bool ordered = scan->reverse ? key < *next && key >= scan->first : key >= *next && key < scan->beyond;

    if (!CHECK(ordered, "key %" PRIu64 " where %" PRIu64 " was the limit%s", key, *next,
               scan->reverse ? ", reverse" : ""))
        return;
    for (uint64_t i = scan->reverse ? key + 1 : *next; i < (scan->reverse ? *next : key); i++)
        CHECK(role_of(i) == OWNED, "key %" PRIu64 " is missing before %" PRIu64 "%s", i, key,
              scan->reverse ? ", reverse" : "");
    *next = scan->reverse ? key : key + 1;
    CHECK(value_verify(entry->value, entry->value_size, &id) && (id & 0xffff) == key,
          "key %" PRIu64 " has the value of %" PRIu64, key, id & 0xffff);
    scan->entries++;
    scan->digest += random_mix(id ^ random_mix(entry->lsn ^ random_mix(key)));
}

static void run_scan(struct stress *stress, struct scan *scan)
{
    uint8_t start[32], end[32];
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    uint64_t next = scan->reverse ? scan->beyond : scan->first;
    int result;

    quire_pages_options_init(&options);
    options.snapshot = scan->snapshot;
    options.reverse = scan->reverse;
    options.start = (struct quire_slice){start, key_of(scan->first, start)};
    options.end = (struct quire_slice){end, key_of(scan->beyond, end)};
    scan->entries = 0;
    scan->digest = 0;
    if (!CHECK_EQUAL(quire_pages_open(stress->tree, &options, &pages), 0))
        return;
    while ((result = quire_pages_next(pages, &page)) == 0 && check_failures() == 0) {
        for (size_t i = 0; i < page.count; i++)
            see_entry(&page.entries[i], scan, &next);
    }
    CHECK(result == QUIRE_END || check_failures() != 0, "the scan ended with %d", result);
    for (uint64_t i = scan->reverse ? scan->first : next;
         i < (scan->reverse ? next : scan->beyond) && check_failures() == 0; i++)
        CHECK(role_of(i) == OWNED, "key %" PRIu64 " is missing at the end%s", i, scan->reverse ? ", reverse" : "");
    CHECK_EQUAL(quire_pages_close(pages), 0);
}

static void draw_bounds(struct stress_worker *worker, struct scan *scan)
{
    scan->first = 0;
    scan->beyond = KEYS;
    if (random_chance(&worker->random, 50)) {
        scan->first = random_below(&worker->random, KEYS);
        scan->beyond = scan->first + random_below(&worker->random, KEYS - scan->first) + 1;
    }
}

/* At one snapshot: the same forward, backward and again; count and single reads agree. */
static void scan_snapshot(struct stress_worker *worker)
{
    struct stress *stress = worker->stress;
    struct scan first = {0};
    struct quire_snapshot *snapshot = NULL;
    uint8_t start[32], end[32];
    uint64_t count = 0;

    if (!CHECK_EQUAL(quire_snapshot(stress->db, "stress.scan", &snapshot), 0))
        return;
    first.snapshot = snapshot;
    draw_bounds(worker, &first);
    run_scan(stress, &first);
    for (int i = 0; i < 2 && check_failures() == 0; i++) {
        struct scan again = first;
        again.reverse = i == 0;
        run_scan(stress, &again);
        CHECK(again.entries == first.entries && again.digest == first.digest,
              "a snapshot moved: %" PRIu64 " entries, then %" PRIu64 "%s", first.entries, again.entries,
              again.reverse ? ", reverse" : "");
    }
    struct quire_slice from = {start, key_of(first.first, start)};
    struct quire_slice to = {end, key_of(first.beyond, end)};
    CHECK_EQUAL(quire_count(stress->tree, snapshot, from, to, &count), 0);
    CHECK(count == first.entries || check_failures() != 0, "count %" PRIu64 ", scanned %" PRIu64, count, first.entries);
    CHECK_EQUAL(quire_snapshot_release(snapshot), 0);
}

/* ---- A round ---------------------------------------------------------------------------------------------------- */

static void write_or_scan(struct stress_worker *worker)
{
    struct scan_team *team = (struct scan_team *)worker->shared;
    uint64_t runs = 1 + worker->stress->options->ops / 200;
    bool writer = worker->number < team->writers;

    for (uint64_t i = 0; i < (writer ? runs : 1 + runs / 10) && check_failures() == 0; i++) {
        if (writer) {
            change_run(worker, team, i + 2);
        } else if (random_chance(&worker->random, 40)) {
            scan_snapshot(worker);
        } else {
            struct scan scan = {.reverse = random_chance(&worker->random, 50)};
            draw_bounds(worker, &scan);
            run_scan(worker->stress, &scan);
        }
    }
}

/* Every owned key is what its owner wrote last. */
static void compare_all(struct stress *stress, const struct scan_team *team)
{
    uint8_t bytes[32], value[VALUE_MAX_BYTES], right[VALUE_MAX_BYTES];
    for (uint64_t key = 0; key < KEYS; key++) {
        size_t size = 0, key_size = key_of(key, bytes);
        int result = quire_get(stress->tree, NULL, bytes, key_size, value, sizeof(value), &size);
        bool present = role_of(key) != OWNED || team->state[key] != 0;
        CHECK(result == (present ? 0 : QUIRE_NOT_FOUND), "key %" PRIu64 ": %d", key, result);
        if (role_of(key) == OWNED && result == 0 && present)
            CHECK(size == value_of(key, team->state[key], right) && memcmp(value, right, size) == 0,
                  "key %" PRIu64 " is not what was written last", key);
    }
}

void stress_scan(struct stress *stress)
{
    struct scan_team team = {.writers = ((unsigned)stress->options->threads + 1) / 2};
    team.state = calloc(KEYS, sizeof(*team.state));
    if (team.state == NULL || !stress_open(stress, QUIRE_VERSIONS_ENGINE)) {
        free(team.state);
        return;
    }
    for (uint64_t key = 0; key < KEYS; key++) {
        if (role_of(key) != OWNED)
            put_key(stress, key, 1);
    }
    stress_team(stress, (unsigned)stress->options->threads, write_or_scan, &team);
    compare_all(stress, &team);
    free(team.state);
    stress_close(stress);
}
