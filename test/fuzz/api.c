/*
 * Goal: whatever calls a program makes, and in whatever order, each answers what the model says, or what the contract of a wrong
 * call does.
 * Method: the input is a program. Its first bytes choose memory or a simulated disk, and options; then come steps, each an
 * operation and its arguments: writes, reads by copy, under guards, at snapshots, scans, checkpoints, maintenance, closing, crashes,
 * and misuse (api_misuse.c). Beside the three trees there are three ordered maps (lib/oracle.h). In the end all is compared.
 */
#include "fuzz/api.h"

#include <stdio.h>

#include "db/testing.h"

#define STEPS_MOST 400

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

static void open_trees(struct api *api)
{
    static const char *const names[TREES] = {"", "small pages", "caller"};
    for (int i = 0; i < TREES; i++) {
        struct quire_tree_options options;
        quire_tree_options_init(&options);
        options.versions = i == CALLER_TREE ? QUIRE_VERSIONS_CALLER : QUIRE_VERSIONS_ENGINE;
        options.leaf_page_size_bytes = i == 1 ? 512 : 0;
        options.inner_page_size_bytes = i == 1 ? 512 : 0;
        options.page_chain_length = i == 1 ? 2 : 0;
        FUZZ_CHECK(quire_tree_open(api->db, names[i], &options, &api->trees[i].handle) == 0);
    }
}

static void open_database(struct api *api)
{
    struct quire_options options;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    if (api->disk != NULL) {
        options.level = api->level;
        options.sync_period_ms = QUIRE_NO_PERIOD;
        options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
        options.log_segment_bytes = 65536;
        options.blob_threshold_bytes = api->blob_threshold;
    }
    FUZZ_CHECK(qr_db_open(api->disk == NULL ? NULL : "store", api->disk == NULL ? NULL : simdisk_disk(api->disk), &options,
                          &api->db) == 0);
    open_trees(api);
}

/* Ends guards and snapshots, which keep a database from being closed. */
static void release_all(struct api *api)
{
    for (int i = 0; i < GUARDS; i++) {
        if (api->pinned[i])
            FUZZ_CHECK(quire_unpin(&api->guards[i]) == 0);
        api->pinned[i] = api->ended[i] = false;
    }
    for (int i = 0; i < SNAPSHOTS; i++) {
        FUZZ_CHECK(quire_snapshot_release(api->snapshots[i]) == 0);
        api->snapshots[i] = NULL;
    }
}

static void close_database(struct api *api)
{
    bool held = api_is_held(api);
    for (int i = 0; i < SNAPSHOTS; i++)
        held = held || api->snapshots[i] != NULL;
    if (held)
        FUZZ_CHECK(quire_close(api->db) == QUIRE_ERR_BUSY);
    release_all(api);
    FUZZ_CHECK(quire_close(api->db) == 0);
    api->db = NULL;
}

/* In memory nothing would be left: so only with files. */
static void reopen(struct api *api)
{
    if (api->disk == NULL)
        return;
    close_database(api);
    open_database(api);
}

/* What every write was acknowledged at, it survives. */
static void crash(struct api *api)
{
    if (api->disk == NULL)
        return;
    struct simdisk_crash how = {.mode = api->level == QUIRE_LEVEL_DURABLE ? SIMDISK_DROP : SIMDISK_DEATH};
    struct simdisk *after = simdisk_crash(api->disk, &how);
    close_database(api);
    simdisk_free(api->disk);
    api->disk = after;
    open_database(api);
}

/* ---- Arguments -------------------------------------------------------------------------------------------------- */

void api_draw_key(struct api *api, struct api_key *ret_key)
{
    static uint8_t buffer[KEY_MAX_BYTES];
    uint64_t number = fuzz_take_number(&api->input, 1);
    ret_key->size = qr_min(key_make_mixed(number % 128, false, buffer), KEY_ROOM);
    memcpy(ret_key->data, buffer, ret_key->size);
}

struct api_tree *api_draw_tree(struct api *api)
{
    return &api->trees[api_draw(api, TREES)];
}

static struct api_tree *draw_engine_tree(struct api *api)
{
    return &api->trees[api_draw(api, CALLER_TREE)];
}

struct value {
    uint8_t data[VALUE_MOST];
    size_t size;
};

static void draw_value(struct api *api, struct value *ret_value)
{
    static const uint16_t sizes[] = {0, 1, 7, 8, 8, 9, 24, 64, 65, 100, 300, 700, 1500, 4096, 4097, VALUE_MOST};
    ret_value->size = sizes[api_draw(api, QR_ARRAY_COUNT(sizes))];
    value_make(++api->written, ret_value->data, ret_value->size);
}

static unsigned draw_flags(struct api *api)
{
    static const unsigned flags[] = {0, 0, QUIRE_WRITE_DURABLE, QUIRE_WRITE_PROCESS};
    unsigned chosen = flags[api_draw(api, QR_ARRAY_COUNT(flags))];
    /* What a crash has to leave is asked of all writes alike. */
    return api->level == QUIRE_LEVEL_DURABLE && chosen == QUIRE_WRITE_PROCESS ? 0 : chosen;
}

/* One that is open, or none; *ret_version: what is visible. */
static struct quire_snapshot *draw_snapshot(struct api *api, uint64_t *ret_version)
{
    struct quire_snapshot *snapshot = api_draw(api, 2) == 0 ? NULL : api->snapshots[api_draw(api, SNAPSHOTS)];
    *ret_version = snapshot == NULL ? UINT64_MAX : quire_snapshot_lsn(snapshot);
    return snapshot;
}

static bool same(const struct oracle_value *expected, const void *data, size_t size)
{
    return expected->size == size && (size == 0 || memcmp(expected->data, data, size) == 0);
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static void put(struct api *api)
{
    struct api_tree *tree = draw_engine_tree(api);
    struct api_key key;
    struct value value;
    uint64_t lsn = 0;
    api_draw_key(api, &key);
    draw_value(api, &value);
    FUZZ_CHECK(quire_put(tree->handle, key.data, key.size, value.data, value.size, draw_flags(api), &lsn) == 0);
    oracle_put(tree->oracle, key.data, key.size, lsn, lsn, value.data, value.size);
}

static void delete(struct api *api)
{
    struct api_tree *tree = draw_engine_tree(api);
    struct api_key key;
    struct oracle_value old;
    uint64_t lsn = 0;
    int existed = -1;
    api_draw_key(api, &key);
    bool there = oracle_get(tree->oracle, UINT64_MAX, key.data, key.size, &old);
    FUZZ_CHECK(quire_delete(tree->handle, key.data, key.size, draw_flags(api), &existed, &lsn) == 0);
    FUZZ_CHECK(existed == (int)there);
    oracle_delete(tree->oracle, key.data, key.size, lsn, lsn);
}

static void insert(struct api *api)
{
    struct api_tree *tree = draw_engine_tree(api);
    struct api_key key;
    struct value value;
    struct oracle_value old;
    uint64_t lsn = 0;
    api_draw_key(api, &key);
    draw_value(api, &value);
    bool there = oracle_get(tree->oracle, UINT64_MAX, key.data, key.size, &old);
    int result = quire_insert(tree->handle, key.data, key.size, value.data, value.size, draw_flags(api), &lsn);
    FUZZ_CHECK(result == (there ? QUIRE_EXISTS : 0));
    if (result == 0)
        oracle_put(tree->oracle, key.data, key.size, lsn, lsn, value.data, value.size);
}

static void swap(struct api *api)
{
    struct api_tree *tree = draw_engine_tree(api);
    struct api_key key;
    struct value value, expected;
    struct oracle_value old = {0};
    uint64_t lsn = 0;
    api_draw_key(api, &key);
    draw_value(api, &value);
    draw_value(api, &expected);
    bool there = oracle_get(tree->oracle, UINT64_MAX, key.data, key.size, &old);
    if (there && api_draw(api, 2) == 0) {
        memcpy(expected.data, old.data, old.size);
        expected.size = old.size;
    }
    int result = quire_compare_and_swap(tree->handle, key.data, key.size, expected.data, expected.size, value.data, value.size,
                                        draw_flags(api), &lsn);
    FUZZ_CHECK(result == (!there ? QUIRE_NOT_FOUND : same(&old, expected.data, expected.size) ? 0 : QUIRE_CONFLICT));
    if (result == 0)
        oracle_put(tree->oracle, key.data, key.size, lsn, lsn, value.data, value.size);
}

static void add(struct api *api)
{
    struct api_tree *tree = draw_engine_tree(api);
    struct api_key key;
    struct oracle_value old = {0};
    uint64_t lsn = 0;
    int64_t before = 0, sum, got = 77;
    api_draw_key(api, &key);
    int64_t delta = (int64_t)fuzz_take_number(&api->input, 1) - 128;
    delta *= api_draw(api, 4) == 0 ? INT64_MAX / 128 : 1;
    bool there = oracle_get(tree->oracle, UINT64_MAX, key.data, key.size, &old);
    if (there && old.size == 8)
        memcpy(&before, old.data, 8);
    int expected = there && old.size != 8 ? QUIRE_ERR_WRONG_TYPE
                                          : __builtin_add_overflow(before, delta, &sum) ? QUIRE_ERR_OVERFLOW : 0;
    FUZZ_CHECK(quire_add(tree->handle, key.data, key.size, delta, draw_flags(api), &got, &lsn) == expected);
    FUZZ_CHECK(got == (expected == 0 ? sum : 77));
    if (expected == 0)
        oracle_put(tree->oracle, key.data, key.size, lsn, lsn, &sum, 8);
}

static void write_at(struct api *api)
{
    struct api_tree *tree = &api->trees[CALLER_TREE];
    struct api_key key;
    struct value value;
    uint64_t lsn = 0, version = api_draw(api, 64);
    bool deletes = api_draw(api, 4) == 0;
    api_draw_key(api, &key);
    draw_value(api, &value);
    int expected = tree->safe != 0 && version <= tree->safe ? QUIRE_ERR_LSN_TOO_OLD : 0;
    unsigned flags = draw_flags(api);
    if (deletes)
        FUZZ_CHECK(quire_delete_at(tree->handle, version, key.data, key.size, flags, &lsn) == expected);
    else
        FUZZ_CHECK(quire_put_at(tree->handle, version, key.data, key.size, value.data, value.size, flags, &lsn) == expected);
    if (expected == 0 && deletes)
        oracle_delete(tree->oracle, key.data, key.size, version, lsn);
    else if (expected == 0)
        oracle_put(tree->oracle, key.data, key.size, version, lsn, value.data, value.size);
}

static void set_safe(struct api *api)
{
    struct api_tree *tree = &api->trees[CALLER_TREE];
    uint64_t version = api_draw(api, 64), got;
    FUZZ_CHECK(quire_set_safe_lsn(tree->handle, version) == 0);
    tree->safe = qr_max(tree->safe, version);
    FUZZ_CHECK(quire_safe_lsn(tree->handle, &got) == 0);
    FUZZ_CHECK(got == tree->safe);
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

static void get(struct api *api)
{
    static uint8_t buffer[VALUE_MOST];
    struct api_tree *tree = draw_engine_tree(api);
    struct api_key key;
    struct oracle_value expected = {0};
    uint64_t version;
    size_t size = 12345, capacity = api_draw(api, 4) == 0 ? api_draw(api, 100) : sizeof(buffer);
    struct quire_snapshot *snapshot = draw_snapshot(api, &version);
    api_draw_key(api, &key);
    bool there = oracle_get(tree->oracle, version, key.data, key.size, &expected);
    int result = quire_get(tree->handle, snapshot, key.data, key.size, buffer, capacity, &size);
    FUZZ_CHECK(result == (!there ? QUIRE_NOT_FOUND : expected.size > capacity ? QUIRE_ERR_BUFFER_TOO_SMALL : 0));
    FUZZ_CHECK(size == (there ? expected.size : 12345));
    FUZZ_CHECK(result != 0 || same(&expected, buffer, size));
    FUZZ_CHECK(quire_exists(tree->handle, snapshot, key.data, key.size) == (there ? 0 : QUIRE_NOT_FOUND));
}

static void get_copy(struct api *api)
{
    struct api_tree *tree = draw_engine_tree(api);
    struct api_key key;
    struct oracle_value expected = {0};
    uint64_t version;
    void *copy = NULL;
    size_t size = 0;
    struct quire_snapshot *snapshot = draw_snapshot(api, &version);
    api_draw_key(api, &key);
    bool there = oracle_get(tree->oracle, version, key.data, key.size, &expected);
    FUZZ_CHECK(quire_get_copy(tree->handle, snapshot, key.data, key.size, &copy, &size) == (there ? 0 : QUIRE_NOT_FOUND));
    FUZZ_CHECK(!there || (copy != NULL && same(&expected, copy, size)));
    quire_free(copy);
}

static void get_at(struct api *api)
{
    static uint8_t buffer[VALUE_MOST];
    struct api_tree *tree = &api->trees[CALLER_TREE];
    struct api_key key;
    struct oracle_value expected = {0};
    size_t size = 0;
    uint64_t version = api_draw(api, 64);
    api_draw_key(api, &key);
    bool there = oracle_get(tree->oracle, version, key.data, key.size, &expected);
    int result = quire_get_at(tree->handle, version, key.data, key.size, buffer, sizeof(buffer), &size);
    FUZZ_CHECK(result == (version < tree->safe ? QUIRE_ERR_LSN_TOO_OLD : there ? 0 : QUIRE_NOT_FOUND));
    FUZZ_CHECK(result != 0 || same(&expected, buffer, size));
}

static void guard_get(struct api *api)
{
    uint64_t number = api_draw(api, GUARDS), version;
    struct api_tree *tree = draw_engine_tree(api);
    struct quire_snapshot *snapshot = draw_snapshot(api, &version);
    struct api_key keys[2];
    struct quire_slice slices[2];
    struct quire_value values[2];
    int results[2];
    if (!api->pinned[number])
        return;
    for (int i = 0; i < 2; i++) {
        api_draw_key(api, &keys[i]);
        slices[i] = (struct quire_slice){keys[i].data, keys[i].size};
    }
    FUZZ_CHECK(quire_get_many(&api->guards[number], tree->handle, snapshot, slices, 2, values, results) == 0);
    for (int i = 0; i < 2; i++) {
        struct oracle_value expected;
        struct quire_value one;
        bool there = oracle_get(tree->oracle, version, keys[i].data, keys[i].size, &expected);
        FUZZ_CHECK(results[i] == (there ? 0 : QUIRE_NOT_FOUND));
        FUZZ_CHECK(quire_guard_get(&api->guards[number], tree->handle, snapshot, keys[i].data, keys[i].size, &one) == results[i]);
        if (!there)
            continue;
        FUZZ_CHECK(same(&expected, values[i].data, values[i].size) && same(&expected, one.data, one.size));
        FUZZ_CHECK(values[i].lsn == expected.lsn && one.lsn == expected.lsn);
    }
}

/* What an iterator shows is what a walk does. */
static void compare_scan(struct api_tree *tree, const struct quire_pages_options *options, uint64_t version)
{
    struct oracle_range range = {options->start.data, options->start.size, options->end.data, options->end.size};
    struct oracle_walk walk;
    struct oracle_item item;
    struct quire_pages *pages;
    struct quire_page page;
    int result;
    FUZZ_CHECK(quire_pages_open(tree->handle, options, &pages) == 0);
    oracle_walk_start(&walk, tree->oracle, range, version, options->reverse != 0);
    while ((result = quire_pages_next(pages, &page)) == 0) {
        FUZZ_CHECK(page.count != 0);
        for (size_t i = 0; i < page.count; i++) {
            const struct quire_entry *entry = &page.entries[i];
            FUZZ_CHECK(oracle_walk_next(&walk, &item));
            FUZZ_CHECK(entry->key_size == item.key_size && entry->value_size == item.value.size);
            FUZZ_CHECK(item.key_size == 0 || memcmp(entry->key, item.key, item.key_size) == 0);
            FUZZ_CHECK(entry->value == NULL ? options->skip_large_values != 0 || entry->value_size == 0
                                            : same(&item.value, entry->value, entry->value_size));
            FUZZ_CHECK(entry->lsn == item.value.lsn && entry->version == item.value.version);
        }
    }
    FUZZ_CHECK(result == QUIRE_END);
    FUZZ_CHECK(!oracle_walk_next(&walk, &item));
    FUZZ_CHECK(quire_pages_close(pages) == 0);
}

static void scan(struct api *api)
{
    struct api_tree *tree = api_draw_tree(api);
    struct quire_pages_options options;
    struct api_key bounds[2];
    uint64_t version = UINT64_MAX, count;
    unsigned how = (unsigned)api_draw(api, 16);
    quire_pages_options_init(&options);
    options.reverse = how & 1;
    options.skip_large_values = how >> 1 & 1;
    api_draw_key(api, &bounds[0]);
    api_draw_key(api, &bounds[1]);
    bool swapped = oracle_compare(bounds[0].data, bounds[0].size, bounds[1].data, bounds[1].size) > 0;
    if ((how & 4) != 0)
        options.start = (struct quire_slice){bounds[swapped].data, bounds[swapped].size};
    if ((how & 8) != 0)
        options.end = (struct quire_slice){bounds[!swapped].data, bounds[!swapped].size};
    if (api_is_caller(api, tree))
        version = options.version = api_draw(api, 2) == 0 ? UINT64_MAX : qr_max(api_draw(api, 64), tree->safe);
    else
        options.snapshot = draw_snapshot(api, &version);
    compare_scan(tree, &options, version);
    if (api_is_caller(api, tree))
        return;
    struct oracle_range range = {options.start.data, options.start.size, options.end.data, options.end.size};
    FUZZ_CHECK(quire_count(tree->handle, options.snapshot, options.start, options.end, &count) == 0);
    FUZZ_CHECK(count == oracle_count(tree->oracle, range, version));
}

/* ---- Guards and snapshots --------------------------------------------------------------------------------------- */

static void take_snapshot(struct api *api)
{
    struct quire_snapshot **snapshot = &api->snapshots[api_draw(api, SNAPSHOTS)];
    if (*snapshot != NULL) {
        FUZZ_CHECK(quire_snapshot_release(*snapshot) == 0);
        *snapshot = NULL;
        return;
    }
    FUZZ_CHECK(quire_snapshot(api->db, "fuzz", snapshot) == 0);
}

static void pin(struct api *api)
{
    uint64_t number = api_draw(api, GUARDS);
    if (api->pinned[number] && api_draw(api, 2) == 0) {
        FUZZ_CHECK(quire_repin(&api->guards[number]) == 0);
        return;
    }
    if (api->pinned[number])
        FUZZ_CHECK(quire_unpin(&api->guards[number]) == 0);
    else
        FUZZ_CHECK(quire_pin(api->db, NULL, &api->guards[number]) == 0);
    api->pinned[number] = !api->pinned[number];
    api->ended[number] = !api->pinned[number];
}

/* ---- The database ----------------------------------------------------------------------------------------------- */

static void maintain(struct api *api)
{
    int result = quire_maintain(api->db);
    FUZZ_CHECK(api_is_held(api) ? result == QUIRE_ERR_BUSY : result == 0 || result == QUIRE_MORE);
}

static void checkpoint(struct api *api)
{
    FUZZ_CHECK(quire_checkpoint(api->db) == (api_is_held(api) && api->disk != NULL ? QUIRE_ERR_BUSY : 0));
}

static void make_durable(struct api *api)
{
    uint64_t durable = 0, last = 0;
    FUZZ_CHECK(quire_sync(api->db) == 0);
    FUZZ_CHECK(quire_durable_lsn(api->db, &durable) == 0);
    FUZZ_CHECK(quire_last_lsn(api->db, &last) == 0);
    FUZZ_CHECK(api->disk == NULL || durable >= last);
    FUZZ_CHECK(last == 0 || quire_wait_durable(api->db, last) == 0);
}

static void verify(struct api *api)
{
    FUZZ_CHECK(quire_verify(api->db, NULL, NULL) == (api_is_held(api) ? QUIRE_ERR_BUSY : 0));
}

/* Many keys at once, so that pages split; and away with them again. */
static void fill(struct api *api)
{
    struct api_tree *tree = draw_engine_tree(api);
    uint8_t first = (uint8_t)fuzz_take_number(&api->input, 1);
    bool deletes = api_draw(api, 2) == 0;
    for (uint32_t i = 0; i < 40; i++) {
        uint8_t key[3] = {first, (uint8_t)(i * 37), 'f'};
        uint64_t lsn = 0;
        int result = deletes ? quire_delete(tree->handle, key, 3, 0, NULL, &lsn)
                             : quire_put(tree->handle, key, 3, "a value of some bytes", i % 22, 0, &lsn);
        FUZZ_CHECK(result == 0);
        if (deletes)
            oracle_delete(tree->oracle, key, 3, lsn, lsn);
        else
            oracle_put(tree->oracle, key, 3, lsn, lsn, "a value of some bytes", i % 22);
    }
}

/* ---- The target ------------------------------------------------------------------------------------------------- */

typedef void step(struct api *api);
static step *const steps[] = {put,  put,           delete, insert,   swap,       add,  write_at, write_at, set_safe, get,   get_copy,
                              get_at, guard_get,   scan,   scan,     take_snapshot, pin, maintain, checkpoint, make_durable, verify, fill,
                              fill, reopen, crash, api_misuse, api_misuse};

static void begin(struct api *api, const uint8_t *data, size_t size)
{
    static const uint64_t thresholds[] = {64, 700, 0, 0};
    *api = (struct api){.input = {data, size}};
    unsigned how = (unsigned)fuzz_take_number(&api->input, 1);
    api->disk = (how & 1) != 0 ? simdisk_create() : NULL;
    api->level = (how & 2) != 0 ? QUIRE_LEVEL_DURABLE : QUIRE_LEVEL_PROCESS;
    api->blob_threshold = thresholds[how >> 2 & 3];
    for (int i = 0; i < TREES; i++)
        api->trees[i].oracle = oracle_create();
    open_database(api);
}

static void compare_all(struct api *api)
{
    struct quire_pages_options options;
    for (int i = 0; i < TREES; i++) {
        char message[200];
        quire_pages_options_init(&options);
        compare_scan(&api->trees[i], &options, UINT64_MAX);
        FUZZ_CHECK(qr_testing_check(api->trees[i].handle, message, sizeof(message)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t begun = fuzz_begin_database();
    struct api api;
    begin(&api, data, size);
    for (int i = 0; i < STEPS_MOST && api.input.left != 0; i++)
        steps[api_draw(&api, QR_ARRAY_COUNT(steps))](&api);
    compare_all(&api);
    reopen(&api);
    compare_all(&api);
    close_database(&api);
    for (int i = 0; i < TREES; i++)
        oracle_destroy(api.trees[i].oracle);
    fuzz_end(begun, api.disk);
    return 0;
}

/* A program has no sums. */
void fuzz_repair(uint8_t *data, size_t size)
{
    (void)data;
    (void)size;
}

void fuzz_seeds(fuzz_sink *sink, void *context)
{
    static const char *const names[] = {"memory", "files_process", "memory_durable", "files_durable"};
    for (unsigned how = 0; how < 4; how++) {
        uint8_t program[600] = {(uint8_t)(how | 4 * how)};
        fuzz_random(NULL, program + 1, sizeof(program) - 1 - how * 64);
        sink(context, names[how], program, sizeof(program) - how * 64);
    }
    for (unsigned number = 0; number < QR_ARRAY_COUNT(steps); number++) { /* each step a few times, after some writes */
        char name[16];
        uint8_t program[200] = {number % 4};
        fuzz_random(NULL, program + 1, sizeof(program) - 1);
        for (size_t at = 1; at < 60; at += 6)
            program[at] = at % 12 < 6 ? 0 : 6;
        for (size_t at = 61; at < sizeof(program); at += 5)
            program[at] = (uint8_t)number;
        snprintf(name, sizeof(name), "step_%02u", number);
        sink(context, name, program, sizeof(program));
    }
}
