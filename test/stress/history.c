/*
 * Stress mode `history`: all operations on a few hot keys are recorded, and each key's history must be linearizable.
 *
 * Test program (stress). The hot keys lie among cold ones that come and go in bulk, so that the leaves of the hot keys
 * split, merge, are consolidated and dropped meanwhile. Half of the hot keys are counters of 8 bytes, the others hold
 * values of changing size that prove whose they are. Reads go every way that the API has: by copy, under a guard, many
 * at once, by pages, at a snapshot of their own.
 */
#include "lib/history.h"
#include "lib/linear.h"
#include "stress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define HOT_KEYS 6
#define COUNTERS 3 /* the first of the hot keys */
#define COLD_KEYS 2000
#define VALUE_MAX_BYTES 256

struct history_team {
    struct history_buffer buffers[STRESS_THREADS_MAX];
};

/* What a worker knows of a hot key: expectations for compare_and_swap. */
struct recorder {
    struct stress_worker *worker;
    struct history_buffer *buffer;
    uint64_t last_seen[HOT_KEYS];
    uint64_t written; /* how many values this thread has made: they are all different */
};

/* Hot keys lie between cold ones, in the order of their numbers. */
static size_t cold_key(uint64_t number, uint8_t *key)
{
    return (size_t)snprintf((char *)key, 32, "key-%06" PRIu64, number);
}

static size_t hot_key(uint64_t number, uint8_t *key)
{
    return (size_t)snprintf((char *)key, 32, "key-%06u-hot", (unsigned)(number * (COLD_KEYS / HOT_KEYS) + 17));
}

/* The bytes that stand for a number under this key. */
static size_t encode(uint64_t key, uint64_t number, uint8_t *value)
{
    size_t size = key < COUNTERS ? sizeof(number) : 8 + (size_t)(random_mix(number) % 200);
    value_make(number, value, size);
    return size;
}

static uint64_t decode(uint64_t key, const void *value, size_t size)
{
    uint64_t number = 0;
    bool right = value_verify(value, size, &number);
    uint8_t again[VALUE_MAX_BYTES];
    CHECK(right && size == encode(key, number, again), "key %" PRIu64 " has a torn or foreign value of %zu bytes", key,
          size);
    return number;
}

/* ---- Reads ------------------------------------------------------------------------------------------------------ */

static int read_by_copy(struct stress *stress, struct quire_snapshot *snapshot, uint64_t key, uint64_t *ret_number)
{
    uint8_t bytes[32], value[VALUE_MAX_BYTES];
    size_t size = 0;
    int result = quire_get(stress->tree, snapshot, bytes, hot_key(key, bytes), value, sizeof(value), &size);
    if (result == 0)
        *ret_number = decode(key, value, size);
    return result;
}

static int read_under_guard(struct stress *stress, bool many, uint64_t key, uint64_t *ret_number)
{
    uint8_t bytes[32];
    struct quire_slice slice = {bytes, hot_key(key, bytes)};
    struct quire_guard guard;
    struct quire_value value = {0};
    int result = 0;

    CHECK_EQUAL(quire_pin(stress->db, "stress.get", &guard), 0);
    if (many)
        CHECK_EQUAL(quire_get_many(&guard, stress->tree, NULL, &slice, 1, &value, &result), 0);
    else
        result = quire_guard_get(&guard, stress->tree, NULL, slice.data, slice.size, &value);
    if (result == 0)
        *ret_number = decode(key, value.data, value.size);
    CHECK_EQUAL(quire_unpin(&guard), 0);
    return result;
}

static int read_by_pages(struct stress *stress, bool reverse, uint64_t key, uint64_t *ret_number)
{
    uint8_t start[32], end[33];
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page = {0};

    quire_pages_options_init(&options);
    options.reverse = reverse;
    options.start = (struct quire_slice){start, hot_key(key, start)};
    options.end = (struct quire_slice){end, hot_key(key, end) + 1};
    end[options.end.size - 1] = 0; /* the next key that is possible */
    if (!CHECK_EQUAL(quire_pages_open(stress->tree, &options, &pages), 0))
        return QUIRE_NOT_FOUND;
    int result = quire_pages_next(pages, &page);
    if (result == 0) {
        CHECK_EQUAL(page.count, 1);
        *ret_number = decode(key, page.entries[0].value, page.entries[0].value_size);
    }
    CHECK_EQUAL(quire_pages_close(pages), 0);
    return result == QUIRE_END ? QUIRE_NOT_FOUND : result;
}

static int read_at_snapshot(struct stress *stress, uint64_t key, uint64_t *ret_number)
{
    struct quire_snapshot *snapshot = NULL;
    if (!CHECK_EQUAL(quire_snapshot(stress->db, "stress.read", &snapshot), 0))
        return QUIRE_NOT_FOUND;
    int result = read_by_copy(stress, snapshot, key, ret_number);
    CHECK_EQUAL(quire_snapshot_release(snapshot), 0);
    return result;
}

static void record_read(struct recorder *recorder, uint64_t key)
{
    struct stress *stress = recorder->worker->stress;
    uint64_t lot = random_below(&recorder->worker->random, 100);
    uint64_t number = 0;
    struct history_event *event = history_begin(recorder->buffer, HISTORY_GET, key);
    int result;

    if (lot < 45)
        result = read_by_copy(stress, NULL, key, &number);
    else if (lot < 75)
        result = read_under_guard(stress, lot < 55, key, &number);
    else if (lot < 92)
        result = read_by_pages(stress, lot < 83, key, &number);
    else
        result = read_at_snapshot(stress, key, &number);
    history_end(event);
    CHECK(result == 0 || result == QUIRE_NOT_FOUND, "read: %d", result);
    event->result = result == 0 ? HISTORY_FOUND : HISTORY_ABSENT;
    event->value = number;
    if (result == 0)
        recorder->last_seen[key] = number;
}

/* ---- Writes ----------------------------------------------------------------------------------------------------- */

/* Counters take small numbers, so that sums of different histories could be confused; the others unique ones. */
static uint64_t new_number(struct recorder *recorder, uint64_t key)
{
    if (key < COUNTERS)
        return random_below(&recorder->worker->random, 1000);
    recorder->written++;
    return ((uint64_t)(recorder->worker->number + 1) << 40) + recorder->written;
}

static void record_put(struct recorder *recorder, uint64_t key, bool insert)
{
    uint8_t bytes[32], value[VALUE_MAX_BYTES];
    size_t key_size = hot_key(key, bytes);
    uint64_t number = new_number(recorder, key);
    size_t size = encode(key, number, value);
    struct quire_tree *tree = recorder->worker->stress->tree;

    struct history_event *event = history_begin(recorder->buffer, insert ? HISTORY_INSERT : HISTORY_PUT, key);
    event->value = number;
    int result = insert ? quire_insert(tree, bytes, key_size, value, size, 0, NULL)
                        : quire_put(tree, bytes, key_size, value, size, 0, NULL);
    history_end(event);
    CHECK(result == 0 || (insert && result == QUIRE_EXISTS), "put or insert: %d", result);
    event->result = result == 0 ? HISTORY_DONE : HISTORY_REFUSED;
}

static void record_delete(struct recorder *recorder, uint64_t key, bool ask)
{
    uint8_t bytes[32];
    size_t key_size = hot_key(key, bytes);
    int existed = 0;

    struct history_event *event = history_begin(recorder->buffer, ask ? HISTORY_DELETE_EXISTED : HISTORY_DELETE, key);
    int result = quire_delete(recorder->worker->stress->tree, bytes, key_size, 0, ask ? &existed : NULL, NULL);
    history_end(event);
    CHECK_EQUAL(result, 0);
    event->result = !ask ? HISTORY_DONE : (existed ? HISTORY_FOUND : HISTORY_ABSENT);
}

static void record_compare_and_swap(struct recorder *recorder, uint64_t key)
{
    uint8_t bytes[32], expected[VALUE_MAX_BYTES], value[VALUE_MAX_BYTES];
    size_t key_size = hot_key(key, bytes);
    uint64_t number = new_number(recorder, key);
    size_t expected_size = encode(key, recorder->last_seen[key], expected);
    size_t size = encode(key, number, value);

    struct history_event *event = history_begin(recorder->buffer, HISTORY_COMPARE_AND_SWAP, key);
    event->value = number;
    event->expected = recorder->last_seen[key];
    int result = quire_compare_and_swap(recorder->worker->stress->tree, bytes, key_size, expected, expected_size, value,
                                        size, 0, NULL);
    history_end(event);
    CHECK(result == 0 || result == QUIRE_CONFLICT || result == QUIRE_NOT_FOUND, "compare_and_swap: %d", result);
    event->result = result == 0 ? HISTORY_DONE : (result == QUIRE_CONFLICT ? HISTORY_REFUSED : HISTORY_ABSENT);
}

static void record_add(struct recorder *recorder, uint64_t key)
{
    uint8_t bytes[32];
    size_t key_size = hot_key(key, bytes);
    int64_t sum = 0;
    int64_t delta = (int64_t)random_below(&recorder->worker->random, 5) - 2;

    struct history_event *event = history_begin(recorder->buffer, HISTORY_ADD, key);
    event->value = (uint64_t)delta;
    int result = quire_add(recorder->worker->stress->tree, bytes, key_size, delta, 0, &sum, NULL);
    history_end(event);
    CHECK_EQUAL(result, 0);
    event->sum = (uint64_t)sum;
    recorder->last_seen[key] = (uint64_t)sum;
}

static void record_exists(struct recorder *recorder, uint64_t key)
{
    uint8_t bytes[32];
    size_t key_size = hot_key(key, bytes);

    struct history_event *event = history_begin(recorder->buffer, HISTORY_EXISTS, key);
    int result = quire_exists(recorder->worker->stress->tree, NULL, bytes, key_size);
    history_end(event);
    CHECK(result == 0 || result == QUIRE_NOT_FOUND, "exists: %d", result);
    event->result = result == 0 ? HISTORY_FOUND : HISTORY_ABSENT;
}

/* Puts or deletes a run of cold keys around a hot one: its leaf splits or merges. */
static void churn_cold(struct recorder *recorder)
{
    struct random_stream *random = &recorder->worker->random;
    struct quire_tree *tree = recorder->worker->stress->tree;
    uint64_t first = random_below(random, COLD_KEYS);
    bool remove = random_chance(random, 50);
    uint8_t bytes[32], value[VALUE_MAX_BYTES];

    for (uint64_t i = first; i < first + 40 && i < COLD_KEYS; i++) {
        size_t key_size = cold_key(i, bytes);
        size_t size = (size_t)random_below(random, sizeof(value));
        value_make(i, value, size);
        int result = remove ? quire_delete(tree, bytes, key_size, 0, NULL, NULL)
                            : quire_put(tree, bytes, key_size, value, size, 0, NULL);
        CHECK_EQUAL(result, 0);
    }
}

/* ---- A round ---------------------------------------------------------------------------------------------------- */

static void record(struct stress_worker *worker)
{
    struct history_team *team = (struct history_team *)worker->shared;
    struct recorder recorder = {.worker = worker, .buffer = &team->buffers[worker->number]};

    for (uint64_t i = 0; i < worker->stress->options->ops; i++) {
        uint64_t lot = random_below(&worker->random, 1000);
        uint64_t key = random_below(&worker->random, HOT_KEYS);
        if (lot < 10)
            churn_cold(&recorder);
        else if (lot < 350)
            record_read(&recorder, key);
        else if (lot < 400)
            record_exists(&recorder, key);
        else if (lot < 550)
            record_put(&recorder, key, false);
        else if (lot < 650)
            record_put(&recorder, key, true);
        else if (lot < 750)
            record_delete(&recorder, key, lot < 700);
        else if (key < COUNTERS && lot < 880)
            record_add(&recorder, key);
        else
            record_compare_and_swap(&recorder, key);
    }
}

void stress_history(struct stress *stress)
{
    struct history_team team;
    struct linear_report report;
    unsigned threads = (unsigned)stress->options->threads;
    size_t count;

    if (!stress_open(stress, QUIRE_VERSIONS_ENGINE))
        return;
    for (unsigned i = 0; i < threads; i++)
        history_buffer_init(&team.buffers[i], i, (size_t)stress->options->ops);
    stress_team(stress, threads, record, &team);

    struct history_event *events = history_gather(team.buffers, threads, &count);
    enum linear_verdict verdict = linear_check(events, count, &report);
    CHECK(verdict == LINEAR_OK, "verdict %d on key %" PRIu64 ": %s", verdict, report.key, report.message);
    CHECK(report.keys_checked == HOT_KEYS || count < 1000, "%zu keys in %zu events", report.keys_checked, count);
    free(events);
    for (unsigned i = 0; i < threads; i++)
        history_buffer_free(&team.buffers[i]);
    stress_close(stress);
}
