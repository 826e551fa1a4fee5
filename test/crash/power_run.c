/*
 * Operations of a store, each of which the model does as well.
 */
#include <string.h>

#include "db/db.h"
#include "db/testing.h"
#include "power.h"

static const char *const tree_names[TREES] = {"first", "second", "versions"};

struct run *run_create(const struct setup *setup, uint64_t seed)
{
    struct run *run = calloc(1, sizeof(*run));
    if (run == NULL) abort();
    run->value = malloc(MOST_VALUE);
    run->expected = malloc(MOST_VALUE);
    if (setup->lies) run->states = calloc(MOST_OPS + 1, sizeof(struct state));
    if (run->value == NULL || run->expected == NULL || (setup->lies && run->states == NULL)) abort();
    run->setup = setup;
    run->seed = run->cut_seed = seed;
    random_seed(&run->random, seed);
    run->hashes[0] = state_hash(&run->now);
    return run;
}

void run_free(struct run *run)
{
    if (run->disk != NULL) {
        if (simdisk_mistakes(run->disk) != 0) power_fail(run, "stores where there is no space");
        if (simdisk_open_count(run->disk) != 0)
            power_fail(run, "files or directories are left open");
        else
            simdisk_free(run->disk);
    }
    free(run->value);
    free(run->expected);
    free(run->states);
    free(run);
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

static int open_tree(struct run *run, uint32_t tree, bool create)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.must_exist = !create;
    options.leaf_page_size_bytes = tree == 0 ? 512 : 4096;
    options.versions = tree == TREES - 1 ? QUIRE_VERSIONS_CALLER : QUIRE_VERSIONS_ENGINE;
    return quire_tree_open(run->db, tree_names[tree], &options, &run->trees[tree]);
}

/* Whether a result of reading is that of a fault that may be set. */
static bool is_fault(const struct run *run, int result)
{
    return run->faulty && (result == QUIRE_ERR_IO || result == QUIRE_ERR_NO_MEMORY);
}

/* What was there when it was open last. */
static int open_trees(struct run *run)
{
    for (uint32_t t = 0; t < TREES; t++) {
        int result = 0;
        for (unsigned tries = 0; tries < 2 && run->trees[t] == NULL && result != QUIRE_NOT_FOUND; tries++)
            result = open_tree(run, t, false);
        if (is_fault(run, result)) return result;
        if (result == QUIRE_ERR_CORRUPT && run->lie == LIE_OF_OTHERS) {
            run->corrupt_trees |= 1u << t;
            continue;
        }
        if (result != 0 && result != QUIRE_NOT_FOUND) power_fail(run, "tree %u: %s", t, quire_strerror(result));
    }
    return 0;
}

int run_open(struct run *run, uint32_t mode)
{
    const struct setup *setup = run->setup;
    struct quire_options options;
    quire_options_init(&options);
    options.background_threads = QUIRE_NO_THREADS;
    options.open_mode = mode;
    run->off = random_chance(&run->random, setup->off_percent);
    run->checkpoint = 0;
    options.disable_log = run->off;
    options.level = run->off ? 0 : setup->level;
    options.sync_period_ms = QUIRE_NO_PERIOD;
    options.sync_volume_bytes = setup->sync_volume_bytes;
    options.log_segment_bytes = SEGMENT_BYTES;
    options.log_cap_bytes = run->seed >> 9 & 1 ? 4 * SEGMENT_BYTES : 0;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.blob_threshold_bytes = setup->blob_threshold != 0 ? setup->blob_threshold : 268435456;
    options.log_buffered = setup->mixed && run->depth != 0 ? run->seed >> 7 & 1 : setup->buffered;
    options.no_sync_at_close = run->no_sync = mode == 0 && random_chance(&run->random, 50);
    power_opens++;
    run->failed = NOT_FAILED;
    memset(run->trees, 0, sizeof(run->trees));
    int result = qr_db_open(STORE, simdisk_disk(run->disk), &options, &run->db);
    if (result == 0) result = open_trees(run);
    if (result != 0) run_give_up(run);
    return result;
}

void run_give_up(struct run *run)
{
    uint64_t durable = run->durable, process = run->process;
    int result = run->db == NULL ? 0 : run_close(run);
    run->durable = durable;
    run->process = result == 0 ? process : durable;
}

int run_close(struct run *run)
{
    run->checkpoint = run->no_sync ? 0 : run->issued;
    int result = quire_close(run->db);
    run->db = NULL;
    memset(run->trees, 0, sizeof(run->trees));
    if (result == 0 && !run->no_sync) run->durable = run->process = run->issued;
    if (result != 0) run->process = run->durable;
    run->ends_only = run->off;
    run->accepted = false;
    if (run->off && run->no_sync) run->issued = run->process = run->durable;
    return result;
}

/* ---- Looking ---------------------------------------------------------------------------------------------------- */

static int get(struct run *run, uint32_t tree, const char *key, size_t key_size, void *buffer, size_t capacity,
               size_t *ret_size)
{
    if (tree == TREES - 1)
        return quire_get_at(run->trees[tree], UINT64_MAX, key, key_size, buffer, capacity, ret_size);
    return quire_get(run->trees[tree], NULL, key, key_size, buffer, capacity, ret_size);
}

static bool read_cell(struct run *run, uint32_t tree, uint32_t k, uint64_t *ret_cell)
{
    static uint8_t buffer[MOST_VALUE];
    char key[64];
    size_t size = 0;
    int result = get(run, tree, key, key_of(k, key), buffer, sizeof(buffer), &size);
    *ret_cell = 0;
    if (result == QUIRE_NOT_FOUND) return true;
    if (is_fault(run, result)) run->unseen = true;
    if (run->unseen) return false;
    uint64_t known = run->now.cells[tree][k];
    if (result == QUIRE_ERR_CORRUPT && run->reverts && run->setup->blob_threshold != 0 && !is_counter(tree, k) &&
        value_size_of(known) >= run->setup->blob_threshold && (run->faulty || run->failed != NOT_FAILED)) {
        *ret_cell = known; /* the disk has taken it back, and the answer is not a wrong one */
        power_lost_blobs++;
        return true;
    }
    if (result != 0 || size < 8) {
        power_fail(run, "tree %u, key %u: %s, %zu bytes", tree, k, quire_strerror(result), size);
        return false;
    }
    memcpy(ret_cell, buffer, 8);
    if (is_counter(tree, k) ? size == 8 : value_is(*ret_cell, buffer, size)) return true;
    power_fail(run, "tree %u, key %u: a value that nobody wrote, %zu bytes", tree, k, size);
    return false;
}

/* The key `extra` of scripted cases is not in the states. */
static bool look_for_extra(struct run *run, uint64_t *ret_count)
{
    uint8_t value[64];
    size_t size;
    *ret_count = 0;
    if (run->trees[0] == NULL) return !run->extra_known || (power_fail(run, "extra is not there"), false);
    int result = get(run, 0, "extra", 5, value, sizeof(value), &size);
    *ret_count = result == 0;
    run->unseen = is_fault(run, result);
    if (run->unseen) return false;
    if (result == 0 && (!run->extra_used || size != 5 || memcmp(value, "extra", 5) != 0))
        power_fail(run, "extra is there, and should not");
    else if (result == QUIRE_NOT_FOUND && run->extra_known)
        power_fail(run, "extra is not there, and was acknowledged");
    else
        return true;
    return false;
}

static bool look(struct run *run, struct state *ret_state)
{
    char message[256];
    uint64_t extra;
    memset(ret_state, 0, sizeof(*ret_state));
    run->unseen = false;
    if (!look_for_extra(run, &extra)) return false;
    for (uint32_t t = 0; t < TREES; t++) {
        if (run->trees[t] == NULL) continue;
        ret_state->exists[t] = true;
        if (qr_testing_check(run->trees[t], message, sizeof(message)) != 0) {
            run->unseen = run->faulty; /* it does not say whether it was the tree or the disk; later it is sound */
            if (!run->unseen) power_fail(run, "tree %u: %s", t, message);
            return false;
        }
        uint64_t there = 0;
        for (uint32_t k = 0; k < KEYS; k++) {
            if (!read_cell(run, t, k, &ret_state->cells[t][k])) return false;
            there += ret_state->cells[t][k] != 0;
        }
        uint64_t count = 0;
        if (t == TREES - 1) continue;
        int result = quire_count(run->trees[t], NULL, (struct quire_slice){0}, (struct quire_slice){0}, &count);
        run->unseen = is_fault(run, result);
        if (run->unseen) return false;
        if (result != 0 || count != there + (t == 0 ? extra : 0)) {
            power_fail(run, "tree %u: %llu keys, should be %llu", t, (unsigned long long)count, (unsigned long long)there);
            return false;
        }
    }
    return true;
}

/* False: it is not right, or (unseen) a fault that lasts kept from looking. */
static bool read_state(struct run *run, struct state *ret_state)
{
    if (look(run, ret_state)) return true;
    if (!run->unseen || run->lasting) return false;
    if (look(run, ret_state)) return true;
    if (run->unseen) power_fail(run, "what failed to be read once fails again");
    return run->unseen = false;
}

static void describe(const struct run *run, const struct state *state)
{
    if (run->parent == NULL) return;
    const struct run *parent = run->parent;
    for (uint32_t t = 0; t < TREES; t++) {
        if (state->exists[t] != parent->now.exists[t]) printf("    tree %u: %d there\n", t, state->exists[t]);
        for (uint32_t k = 0; k < KEYS; k++)
            if (state->cells[t][k] != parent->now.cells[t][k])
                printf("    tree %u key %u: %llx, newest %llx\n", t, k, (unsigned long long)state->cells[t][k],
                       (unsigned long long)parent->now.cells[t][k]);
    }
}

bool run_accept(struct run *run)
{
    struct state state;
    uint64_t last = 0;
    if (!read_state(run, &state)) {
        if (run->unseen) run_give_up(run);
        return run->unseen;
    }
    uint64_t hash = state_hash(&state);
    uint64_t n = run->issued + 1;
    while (n > run->low && (run->hashes[n - 1] != hash || (run->ends_only && n - 1 != run->low && n - 1 != run->issued))) n--;
    if (n == run->low) {
        uint64_t older = 0;
        while (older < run->low && run->hashes[older] != hash) older++;
        power_fail(run, "no state from %llu to %llu of (durable %llu, process %llu, issued %llu), but %s",
                   (unsigned long long)run->low, (unsigned long long)run->issued, (unsigned long long)run->durable,
                   (unsigned long long)run->process, (unsigned long long)run->issued,
                   older < run->low ? "an older one" : "none at all");
        describe(run, &state);
        return false;
    }
    power_digest = random_mix(power_digest ^ hash);
    run->now = state;
    run->hashes[0] = hash;
    if (run->states != NULL) run->states[0] = state;
    if (run->lie == LIE_OF_LOG) run->lie = NO_LIE; /* LIE-3 */
    run->lie_durable = 0;
    run->issued = run->process = run->durable = run->low = run->max_lsn_operation = 0;
    run->accepted = true;
    run->ends_only = false;
    if (quire_last_lsn(run->db, &last) != 0) power_fail(run, "quire_last_lsn");
    if (last > run->max_lsn) run->max_lsn = last;
    return true;
}

/* What can be read of it. */
static bool look_at_part(struct run *run, struct state *state, bool readable[TREES][KEYS + 1])
{
    static uint8_t buffer[MOST_VALUE];
    memset(state, 0, sizeof(*state));
    for (uint32_t t = 0; t < TREES; t++) {
        readable[t][KEYS] = (run->corrupt_trees >> t & 1) == 0;
        state->exists[t] = run->trees[t] != NULL;
        for (uint32_t k = 0; k < KEYS && run->trees[t] != NULL; k++) {
            char key[64];
            size_t size = 0;
            int result = get(run, t, key, key_of(k, key), buffer, sizeof(buffer), &size);
            readable[t][k] = result == 0 || result == QUIRE_NOT_FOUND;
            if (!readable[t][k] && result != QUIRE_ERR_CORRUPT) {
                power_fail(run, "after a sync that lied, tree %u, key %u: %s", t, k, quire_strerror(result));
                return false;
            }
            if (result != 0) continue;
            memcpy(&state->cells[t][k], buffer, 8);
            if (is_counter(t, k) ? size == 8 : size >= 8 && value_is(state->cells[t][k], buffer, size)) continue;
            power_fail(run, "after a sync that lied, tree %u, key %u: a value that nobody wrote", t, k);
            return false;
        }
    }
    return true;
}

static bool is_part_of(const struct state *part, bool readable[TREES][KEYS + 1], const struct state *state)
{
    for (uint32_t t = 0; t < TREES; t++) {
        if (readable[t][KEYS] && part->exists[t] != state->exists[t]) return false;
        for (uint32_t k = 0; k < KEYS; k++)
            if (readable[t][k] && part->cells[t][k] != state->cells[t][k]) return false;
    }
    return true;
}

bool run_accept_part(struct run *run, bool *ret_whole)
{
    struct state part;
    bool readable[TREES][KEYS + 1] = {{false}};
    *ret_whole = run->corrupt_trees == 0;
    if (!look_at_part(run, &part, readable)) return false;
    for (uint32_t t = 0; t < TREES; t++)
        for (uint32_t k = 0; k < KEYS; k++) *ret_whole = *ret_whole && (run->trees[t] == NULL || readable[t][k]);
    for (uint64_t n = run->issued + 1; n-- > run->low;)
        if (is_part_of(&part, readable, &run->states[n])) return true;
    power_fail(run, "after a sync that lied, what can be read is of no state from %llu to %llu", (unsigned long long)run->low,
               (unsigned long long)run->issued);
    describe(run, &part);
    return false;
}

bool run_check(struct run *run)
{
    struct state state;
    if (!read_state(run, &state)) return run->unseen;
    if (memcmp(&state, &run->now, sizeof(state)) == 0) return true;
    power_fail(run, "the content is not what the model says");
    for (uint32_t t = 0; t < TREES; t++)
        for (uint32_t k = 0; k < KEYS; k++)
            if (state.cells[t][k] != run->now.cells[t][k])
                printf("    tree %u key %u: %llx, model %llx\n", t, k, (unsigned long long)state.cells[t][k],
                       (unsigned long long)run->now.cells[t][k]);
    return false;
}

/* ---- Operations ------------------------------------------------------------------------------------------------- */

/* Before an operation: the state that it will leave. False: there is no room for its hash. */
static bool issue(struct run *run, const struct state *next)
{
    if (run->issued == MOST_OPS) return false;
    run->hashes[run->issued + 1] = state_hash(next);
    if (run->states != NULL) run->states[run->issued + 1] = *next;
    run->issued++;
    return true;
}

/* After it. expected: what it answers on a disk that works; lsn 0: it has none. */
static bool conclude(struct run *run, const char *what, const struct state *next, int result, int expected, bool durable,
                     uint64_t lsn)
{
    uint64_t n = run->issued;
    bool was_failed = run->failed != NOT_FAILED;
    cut_pending(run);
    /* LIE-2: once it was told, either the log has failed, or what the lie was about is of no use any more. */
    if (run->lie == LIE_OF_LOG && simdisk_effect_count(SIMDISK_SYNC_WAS_LATE) != run->late_before &&
        qr_log_failure(&run->db->log) == 0)
        run->lie = NO_LIE;
    if (run->faulty && qr_log_failure(&run->db->log) != 0) {
        run->failed = SYNC_FAILED;
        run->process = run->durable;
    }
    if (power_trace)
        printf("%*s%llu: %s -> %d, LSN %llu\n", (int)run->depth * 2, "", (unsigned long long)n, what, result,
               (unsigned long long)lsn);
    if (result == expected) {
        if (was_failed && result == 0 && state_hash(next) != state_hash(&run->now)) {
            power_fail(run, "%s was done after a sync had failed", what);
            return false;
        }
        if (lsn != 0 && lsn <= run->max_lsn) {
            power_fail(run, "%s: LSN %llu was given out before, up to %llu", what, (unsigned long long)lsn,
                       (unsigned long long)run->max_lsn);
            return false;
        }
        if (lsn != 0) {
            run->max_lsn = lsn;
            run->max_lsn_operation = n;
        }
        run->now = *next;
        if (run->failed == NOT_FAILED && !run->off) run->process = n;
        if (result == 0 && durable) run->durable = run->process = n;
        return true;
    }
    if (run->faulty && result == QUIRE_ERR_UNKNOWN) { /* it was done */
        if (was_failed && state_hash(next) != state_hash(&run->now)) {
            power_fail(run, "%s was done after a sync had failed", what);
            return false;
        }
        run->now = *next;
        run->failed = SYNC_FAILED;
        run->process = run->durable;
        return true;
    }
    if (run->faulty && (result == QUIRE_ERR_IO || result == QUIRE_ERR_NO_SPACE || result == QUIRE_ERR_NO_MEMORY)) {
        run->hashes[n] = run->hashes[n - 1] = state_hash(&run->now);
        if (run->states != NULL) run->states[n] = run->states[n - 1] = run->now;
        return true;
    }
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    power_fail(run, "%s answers %s (%s)", what, quire_strerror(result), detail.message);
    return false;
}

static bool is_durable(const struct run *run, unsigned flags)
{
    if (run->off) return false;
    return flags == QUIRE_WRITE_DURABLE || (flags == 0 && run->setup->level == QUIRE_LEVEL_DURABLE);
}

bool run_tree(struct run *run, uint32_t tree)
{
    struct state next = run->now;
    next.exists[tree] = true;
    if (!issue(run, &next)) return true;
    int result = open_tree(run, tree, true);
    if (result == QUIRE_ERR_UNKNOWN) open_tree(run, tree, false); /* it is there */
    return conclude(run, "tree", &next, result, 0, is_durable(run, 0), 0);
}

static uint64_t new_stamp(struct run *run)
{
    uint64_t stamp = random_next(&run->random) << 3 | 4;
    bool large = random_chance(&run->random, run->setup->large_percent);
    return stamp | (large ? 2 + random_below(&run->random, 2) : random_below(&run->random, 2));
}

static bool store(struct run *run, const char *what, uint32_t tree, uint32_t k, uint64_t stamp, unsigned flags)
{
    char key[64];
    uint64_t lsn = 0;
    struct state next = run->now;
    size_t key_size = key_of(k, key);
    int result;
    next.cells[tree][k] = stamp;
    if (!issue(run, &next)) return true;
    if (tree == TREES - 1)
        result = stamp == 0 ? quire_delete_at(run->trees[tree], ++run->version, key, key_size, flags, &lsn)
                            : quire_put_at(run->trees[tree], ++run->version, key, key_size, value_of(stamp, run->value),
                                           value_size_of(stamp), flags, &lsn);
    else
        result = stamp == 0
                     ? quire_delete(run->trees[tree], key, key_size, flags, NULL, &lsn)
                     : quire_put(run->trees[tree], key, key_size, value_of(stamp, run->value), value_size_of(stamp), flags, &lsn);
    return conclude(run, what, &next, result, 0, is_durable(run, flags), lsn);
}

bool run_put(struct run *run, uint32_t tree, uint32_t key, unsigned flags)
{
    return store(run, "put", tree, key, new_stamp(run), flags);
}

static bool add(struct run *run, uint32_t k, unsigned flags)
{
    char key[64];
    uint64_t lsn = 0;
    struct state next = run->now;
    int64_t delta = (int64_t)random_between(&run->random, 1, 1000);
    int64_t sum = -1;
    next.cells[0][k] += (uint64_t)delta;
    if (!issue(run, &next)) return true;
    int result = quire_add(run->trees[0], key, key_of(k, key), delta, flags, &sum, &lsn);
    if (result == 0 && (uint64_t)sum != next.cells[0][k]) {
        power_fail(run, "a sum is %lld, should be %llu", (long long)sum, (unsigned long long)next.cells[0][k]);
        return false;
    }
    return conclude(run, "add", &next, result, 0, is_durable(run, flags), lsn);
}

static bool insert(struct run *run, uint32_t tree, uint32_t k, unsigned flags)
{
    char key[64];
    uint64_t lsn = 0;
    struct state next = run->now;
    uint64_t stamp = new_stamp(run);
    int expected = run->now.cells[tree][k] == 0 ? 0 : QUIRE_EXISTS;
    if (expected == 0) next.cells[tree][k] = stamp;
    if (!issue(run, &next)) return true;
    int result =
        quire_insert(run->trees[tree], key, key_of(k, key), value_of(stamp, run->value), value_size_of(stamp), flags, &lsn);
    return conclude(run, "insert", &next, result, expected, is_durable(run, flags), lsn);
}

static bool swap(struct run *run, uint32_t tree, uint32_t k, unsigned flags)
{
    char key[64];
    uint64_t lsn = 0;
    struct state next = run->now;
    uint64_t stamp = new_stamp(run);
    uint64_t present = run->now.cells[tree][k];
    uint64_t claimed = random_chance(&run->random, 80) && present != 0 ? present : stamp;
    int expected = present == 0 ? QUIRE_NOT_FOUND : claimed == present ? 0 : QUIRE_CONFLICT;
    if (expected == 0) next.cells[tree][k] = stamp;
    value_of(claimed, run->expected);
    if (!issue(run, &next)) return true;
    int result = quire_compare_and_swap(run->trees[tree], key, key_of(k, key), run->expected, value_size_of(claimed),
                                        value_of(stamp, run->value), value_size_of(stamp), flags, &lsn);
    return conclude(run, "swap", &next, result, expected, is_durable(run, flags), lsn);
}

bool run_sync(struct run *run)
{
    if (!issue(run, &run->now)) return true;
    run->checkpoint = run->issued;
    int result = quire_sync(run->db);
    run->checkpoint = 0;
    return conclude(run, "sync", &run->now, result, 0, true, 0);
}

bool run_checkpoint(struct run *run)
{
    if (!issue(run, &run->now)) return true;
    run->checkpoint = run->issued;
    int result = quire_checkpoint(run->db);
    run->checkpoint = 0;
    return conclude(run, "checkpoint", &run->now, result, 0, true, 0);
}

static bool maintain(struct run *run)
{
    uint64_t durable = 0;
    if (!issue(run, &run->now)) return true;
    run->checkpoint = run->issued; /* it may make one */
    int result = quire_maintain(run->db);
    run->checkpoint = 0;
    if (result == QUIRE_MORE) result = 0;
    if (!conclude(run, "maintain", &run->now, result, 0, false, 0)) return false;
    /* What is said to be durable is, also if nobody waited for it. */
    bool all = quire_durable_lsn(run->db, &durable) == 0 && durable >= run->max_lsn && run->failed == NOT_FAILED;
    if (all && run->durable < run->max_lsn_operation) run->durable = run->max_lsn_operation;
    return true;
}

bool run_reopen(struct run *run)
{
    int result = run_close(run);
    cut_pending(run);
    if (result != 0 && !(run->faulty && result == QUIRE_ERR_UNKNOWN)) {
        power_fail(run, "close: %s", quire_strerror(result));
        return false;
    }
    uint64_t reverted = simdisk_effect_count(SIMDISK_SYNC_REVERTED);
    result = run_open(run, 0);
    /* What the sync of the tail was for is gone. */
    if (simdisk_effect_count(SIMDISK_SYNC_REVERTED) != reverted) run->process = run->durable;
    if (result != 0 && run->faulty) return true;
    if (result != 0) {
        struct quire_error_detail detail;
        quire_error_detail(&detail);
        power_fail(run, "opening again: %s (%s)", quire_strerror(result), detail.message);
        return false;
    }
    run->low = run->process;
    return run_accept(run);
}

static unsigned random_flags(struct run *run)
{
    if (random_chance(&run->random, 20) || run->off) return 0;
    return random_chance(&run->random, run->setup->durable_percent) ? QUIRE_WRITE_DURABLE : QUIRE_WRITE_PROCESS;
}

bool run_operation(struct run *run)
{
    uint32_t tree = (uint32_t)random_below(&run->random, TREES);
    uint32_t dice = (uint32_t)random_below(&run->random, 100);
    unsigned flags = random_flags(run);
    if (run->trees[tree] == NULL) return run_tree(run, tree);
    uint32_t k = (uint32_t)random_below(&run->random, tree == 0 ? KEYS - COUNTERS : KEYS);
    if (random_chance(&run->random, run->setup->checkpoint_percent)) return run_checkpoint(run);
    if (dice < 4 || (run->off && dice >= 92)) return run_sync(run);
    if (dice < 8) return maintain(run);
    if (dice < 10) return run_reopen(run);
    if (dice < 13) return run_checkpoint(run);
    if (dice < 22) return store(run, "delete", tree, k, 0, flags);
    if (dice < 38 && tree == 0) return add(run, KEYS - COUNTERS + (uint32_t)random_below(&run->random, COUNTERS), flags);
    if (dice < 48 && tree != TREES - 1) return insert(run, tree, k, flags);
    if (dice < 56 && tree != TREES - 1) return swap(run, tree, k, flags);
    return run_put(run, tree, k, flags);
}

bool run_durable_write(struct run *run)
{
    if (run->trees[0] == NULL && !run_tree(run, 0)) return false;
    if (run->trees[0] == NULL) return true;
    return store(run, "put", 0, (uint32_t)random_below(&run->random, KEYS - COUNTERS), new_stamp(run) & ~2ull,
                 run->off ? 0 : QUIRE_WRITE_DURABLE) &&
           (!run->off || run_sync(run));
}
