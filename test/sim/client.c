/*
 * What a client does: operations by chance, each noted with its answer.
 */
#include <string.h>

#include "sim/sim.h"

static uint8_t *buffer_of(unsigned client)
{
    static uint8_t buffers[SCHED_CLIENTS][3][MOST_VALUE]; /* a value, the expected one, what is read */
    return buffers[client][0];
}
#define VALUE(Client) (buffer_of(Client))
#define EXPECTED(Client) (buffer_of(Client) + MOST_VALUE)
#define READ(Client) (buffer_of(Client) + 2 * MOST_VALUE)

bool client_decode(const struct life *life, uint32_t tree, uint32_t key, const void *bytes, size_t size, uint64_t *ret_cell)
{
    *ret_cell = 0;
    if (size >= 8) memcpy(ret_cell, bytes, 8);
    if (size >= 8 && (is_counter(tree, key) ? size == 8 : value_is(*ret_cell, bytes, size))) return true;
    sim_fail(life, "tree %u, key %u: a value that nobody wrote, %zu bytes", tree, key, size);
    return false;
}

int client_look(struct life *life, uint32_t tree, uint32_t key, uint64_t *ret_cell, uint64_t *ret_lsn)
{
    char name[64];
    struct quire_guard guard;
    struct quire_value value;
    *ret_cell = *ret_lsn = 0;
    int result = quire_pin(life->db, "look", &guard);
    if (result != 0) return result;
    result = quire_guard_get(&guard, life->trees[tree], NULL, name, key_of(key, name), &value);
    if (result == 0) {
        client_decode(life, tree, key, value.data, value.size, ret_cell);
        *ret_lsn = value.lsn;
    }
    quire_unpin(&guard);
    return result == QUIRE_NOT_FOUND ? 0 : result;
}

/* ---- Writes ----------------------------------------------------------------------------------------------------- */

static unsigned random_flags(struct life *life, struct random_stream *random, bool *ret_durable)
{
    *ret_durable = !life->off && life->plan->level == QUIRE_LEVEL_DURABLE;
    if (life->off || random_chance(random, 20)) return 0;
    *ret_durable = random_chance(random, life->plan->durable_percent);
    return *ret_durable ? QUIRE_WRITE_DURABLE : QUIRE_WRITE_PROCESS;
}

static uint64_t new_stamp(struct life *life, struct random_stream *random)
{
    uint64_t stamp = random_next(random) << 3 | 4;
    bool large = random_chance(random, life->plan->large_percent);
    return stamp | (large ? 2 + random_below(random, 4) / 3 : random_below(random, 2));
}

/* The newest cell, to be named in a swap: others may write meanwhile. */
static uint64_t expected_cell(struct life *life, unsigned client, uint32_t tree, uint32_t key)
{
    char name[64];
    size_t size = 0;
    uint64_t cell = 0;
    int result = quire_get(life->trees[tree], NULL, name, key_of(key, name), READ(client), MOST_VALUE, &size);
    if (result == 0) client_decode(life, tree, key, READ(client), size, &cell);
    return cell;
}

void client_write(struct life *life, unsigned client, struct random_stream *random, enum op_kind kind, uint32_t tree, uint32_t key)
{
    char name[64];
    bool versioned = tree == VERSIONED_TREE;
    if (versioned) kind = kind == OP_DELETE && version_deletes(key) ? OP_DELETE : OP_PUT;
    size_t name_size = key_of(key, name);
    bool durable;
    unsigned flags = random_flags(life, random, &durable);
    uint64_t stamp = new_stamp(life, random), lsn = 0;
    uint64_t expected = kind == OP_SWAP ? expected_cell(life, client, tree, key) : 0;
    int existed = 0, result = 0;
    int64_t sum = 0;
    bool asks = random_chance(random, 50);
    if (kind == OP_SWAP && (expected == 0 || random_chance(random, 10))) expected = new_stamp(life, random);
    struct op *ask = versioned ? safe_begin_ask(life, client, key % VERSIONS) : NULL; /* it is refused up to that one */
    struct op *op = life_begin_op(life, client, kind, tree, key);
    if (op == NULL) return;
    op->durable = durable;
    op->cell = kind == OP_ADD ? 0 : kind == OP_DELETE ? (versioned ? DELETED : 0) : stamp;
    op->expected = kind == OP_SWAP ? expected : NEVER;
    op->delta = kind == OP_ADD ? random_between(random, 1, 1000) : 0;
    struct quire_tree *t = life->trees[tree];
    uint32_t size = value_size_of(stamp);
    const uint8_t *value = value_of(stamp, VALUE(client));
    switch (versioned ? OP_KINDS : kind) {
    case OP_KINDS: result = version_write(life, key, kind == OP_DELETE, value, size, flags, &lsn); break;
    case OP_PUT: result = quire_put(t, name, name_size, value, size, flags, &lsn); break;
    case OP_DELETE: result = quire_delete(t, name, name_size, flags, asks ? &existed : NULL, &lsn); break;
    case OP_INSERT: result = quire_insert(t, name, name_size, value, size, flags, &lsn); break;
    case OP_SWAP:
        value_of(expected, EXPECTED(client));
        result = quire_compare_and_swap(t, name, name_size, EXPECTED(client), value_size_of(expected), value, size, flags, &lsn);
        break;
    default: result = quire_add(t, name, name_size, (int64_t)op->delta, flags, &sum, &lsn); break;
    }
    if (kind == OP_ADD) op->cell = (uint64_t)sum;
    if (kind == OP_DELETE && asks && !versioned && result == 0) op->expected = (uint64_t)existed;
    op->lsn = lsn;
    life_end_op(life, op, result);
    if (ask != NULL) safe_end_ask(life, ask, result);
}

/* ---- Reads ------------------------------------------------------------------------------------------------------ */

static void note_read(struct life *life, struct op *op, int result, const void *bytes, size_t size, uint64_t lsn)
{
    if (result == 0) client_decode(life, op->tree, op->key, bytes, size, &op->cell);
    op->lsn = lsn;
    life_end_op(life, op, result == QUIRE_NOT_FOUND ? 0 : result);
}

static struct op *begin_read(struct life *life, unsigned client, struct quire_snapshot *snapshot, uint32_t tree, uint32_t key)
{
    struct op *op = life_begin_op(life, client, snapshot == NULL ? OP_READ : OP_READ_OLD, tree, key);
    if (op != NULL && snapshot != NULL) op->expected = quire_snapshot_lsn(snapshot);
    return op;
}

static void get(struct life *life, unsigned client, struct quire_snapshot *snapshot, uint32_t tree, uint32_t key)
{
    char name[64];
    size_t size = 0;
    struct op *op = begin_read(life, client, snapshot, tree, key);
    if (op == NULL) return;
    int result = quire_get(life->trees[tree], snapshot, name, key_of(key, name), READ(client), MOST_VALUE, &size);
    note_read(life, op, result, READ(client), size, 0);
}

/* The value is looked at after others have had a turn. */
static void guarded_get(struct life *life, unsigned client, struct quire_snapshot *snapshot, uint32_t tree, uint32_t key)
{
    char name[64];
    struct quire_guard guard;
    struct quire_value value = {0};
    struct op *op = begin_read(life, client, snapshot, tree, key);
    if (op == NULL) return;
    int result = quire_pin(life->db, "client", &guard);
    if (result != 0) {
        life_end_op(life, op, result);
        return;
    }
    result = quire_guard_get(&guard, life->trees[tree], snapshot, name, key_of(key, name), &value);
    uint64_t seen = life->time++;
    sched_point("client.guarded");
    note_read(life, op, result, value.data, value.size, value.lsn);
    op->end = seen;
    sched_point("client.guarded");
    memory_hold(life, client);
    uint64_t cell;
    if (result == 0) client_decode(life, tree, key, value.data, value.size, &cell);
    quire_unpin(&guard);
}

/* Several keys in one call, and some of them twice. */
static void get_many(struct life *life, unsigned client, struct random_stream *random, struct quire_snapshot *snapshot, uint32_t tree)
{
    enum { MOST = 8 };
    char names[MOST][64];
    struct quire_slice keys[MOST];
    struct quire_value values[MOST];
    struct op *ops[MOST];
    int results[MOST];
    struct quire_guard guard;
    uint32_t count = (uint32_t)random_between(random, 2, MOST);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = (uint32_t)random_below(random, KEYS);
        keys[i] = (struct quire_slice){names[i], key_of(key, names[i])};
        if ((ops[i] = begin_read(life, client, snapshot, tree, key)) == NULL) return;
    }
    int result = quire_pin(life->db, "client", &guard);
    bool pinned = result == 0;
    if (pinned) result = quire_get_many(&guard, life->trees[tree], snapshot, keys, count, values, results);
    uint64_t seen = life->time++;
    sched_point("client.guarded");
    for (uint32_t i = 0; i < count; i++) {
        int answer = result != 0 ? result : results[i];
        note_read(life, ops[i], answer, answer == 0 ? values[i].data : NULL, answer == 0 ? values[i].size : 0,
                  answer == 0 ? values[i].lsn : 0);
        ops[i]->end = seen;
    }
    if (pinned) quire_unpin(&guard);
}

static uint32_t number_of(const struct quire_entry *entry)
{
    const char *digits = entry->key;
    if (entry->key_size < 5) return KEYS;
    return (uint32_t)(digits[3] - '0') * 10 + (uint32_t)(digits[4] - '0');
}

static bool take_page(struct life *life, uint32_t tree, const struct quire_page *page, bool reverse, struct op **ops, uint32_t *last)
{
    for (size_t i = 0; i < page->count; i++) {
        const struct quire_entry *entry = &page->entries[i];
        uint32_t key = number_of(entry);
        bool follows = *last == KEYS || (reverse ? key < *last : key > *last);
        if (key >= KEYS || !follows) {
            sim_fail(life, "a scan has key %u after %u", key, *last);
            return false;
        }
        *last = key;
        client_decode(life, tree, key, entry->value, entry->value_size, &ops[key]->cell);
        ops[key]->lsn = entry->lsn;
    }
    return true;
}

static void scan(struct life *life, unsigned client, struct random_stream *random, struct quire_snapshot *snapshot, uint32_t tree)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    struct op *ops[KEYS];
    uint32_t last = KEYS;
    quire_pages_options_init(&options);
    options.snapshot = snapshot;
    options.reverse = random_chance(random, 50);
    for (uint32_t k = 0; k < KEYS; k++)
        if ((ops[k] = begin_read(life, client, snapshot, tree, k)) == NULL) return;
    int result = quire_pages_open(life->trees[tree], &options, &pages);
    while (result == 0 && (result = quire_pages_next(pages, &page)) == 0) {
        if (!take_page(life, tree, &page, options.reverse, ops, &last)) break;
        sched_point("client.page");
    }
    for (uint32_t k = 0; k < KEYS; k++) life_end_op(life, ops[k], result == QUIRE_END ? 0 : result);
    quire_pages_close(pages);
}

/* ---- The rest --------------------------------------------------------------------------------------------------- */

static void take_snapshot(struct life *life, unsigned client, struct quire_snapshot **snapshot)
{
    quire_snapshot_release(*snapshot);
    *snapshot = NULL;
    struct op *op = life_begin_op(life, client, OP_SNAPSHOT, 0, 0);
    if (op == NULL) return;
    int result = quire_snapshot(life->db, "client", snapshot);
    if (result == 0) op->lsn = quire_snapshot_lsn(*snapshot);
    life_end_op(life, op, result);
}

static int tell_defect(void *context, const struct quire_defect *defect)
{
    struct life *life = context;
    /* What cannot be read is one, too. */
    bool explained = fault_defect_explained(life, defect);
    if (!explained && (!life->faulty || !fault_fired(life))) sim_fail(life, "a check finds: %s", defect->text);
    return 0;
}

static void other(struct life *life, unsigned client, enum op_kind kind)
{
    uint64_t returned_lsn = life->returned_lsn, lsn = 0;
    struct op *op = life_begin_op(life, client, kind, 0, 0);
    if (op == NULL) return;
    bool start = kind == OP_CHECKPOINT && op->begin % 4 == 0; /* maintenance makes it */
    int result;
    switch (kind) {
    case OP_SYNC: result = quire_sync(life->db); break;
    case OP_WAIT: result = quire_wait_durable(life->db, returned_lsn); break;
    case OP_CHECKPOINT: result = start ? quire_checkpoint_start(life->db) : quire_checkpoint(life->db); break;
    case OP_VERIFY: result = fault_of_check(life, quire_verify(life->db, tell_defect, life)); break;
    default: result = quire_maintain(life->db); break;
    }
    if (kind == OP_MAINTAIN && result == QUIRE_MORE) result = 0;
    bool makes_durable = kind == OP_SYNC || kind == OP_WAIT || (kind == OP_CHECKPOINT && !start);
    if (makes_durable && result == 0) life_is_durable(life, returned_lsn);
    if (quire_durable_lsn(life->db, &lsn) == 0) life_is_durable(life, lsn);
    /* Structure changes of clients that do not get their turn may keep a checkpoint or a check from its moment of rest. */
    if (result == QUIRE_ERR_BUSY && (kind == OP_CHECKPOINT || kind == OP_VERIFY || life->off)) result = 0;
    life_end_op(life, op, result);
}

static void read(struct life *life, unsigned client, struct random_stream *random, struct quire_snapshot *snapshot, uint32_t tree,
                 uint32_t key)
{
    uint64_t dice = random_below(random, 100);
    if (random_chance(random, 40)) snapshot = NULL;
    if (tree == VERSIONED_TREE && dice < 15)
        version_scan(life, client, random);
    else if (tree == VERSIONED_TREE)
        version_get(life, client, random, key);
    else if (dice < 15)
        scan(life, client, random, snapshot, tree);
    else if (dice < 27)
        get_many(life, client, random, snapshot, tree);
    else if (dice < 50)
        guarded_get(life, client, snapshot, tree, key);
    else
        get(life, client, snapshot, tree, key);
}

/* Neighbours, one after the other: leaves become empty, or full. */
static void burst(struct life *life, unsigned client, struct random_stream *random, uint32_t tree, uint32_t key)
{
    enum op_kind kind = random_chance(random, 55) ? OP_DELETE : OP_PUT;
    uint32_t count = (uint32_t)random_between(random, 3, KEYS);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t k = (key + i) % cells_of(tree);
        if (!is_counter(tree, k)) client_write(life, client, random, kind, tree, k);
        sched_point("client.next");
    }
}

static enum op_kind random_kind(const struct plan *plan, struct random_stream *random)
{
    uint64_t dice = random_below(random, 100);
    if (random_chance(random, plan->checkpoint_percent)) return OP_CHECKPOINT;
    if (dice < 3) return dice < 1 ? OP_WAIT : OP_SYNC;
    if (dice < 7) return OP_MAINTAIN;
    if (dice < 8) return OP_CHECKPOINT;
    if (dice == 8 && random_chance(random, 30)) return OP_VERIFY;
    if (dice < 14) return OP_SNAPSHOT;
    if (random_chance(random, plan->read_percent)) return OP_READ;
    if (random_chance(random, plan->conditional_percent)) return dice % 2 == 0 ? OP_INSERT : OP_SWAP;
    return dice < 45 ? OP_DELETE : OP_PUT;
}

/* One of the trees that clients have made, if it is there. */
static uint32_t random_made(const struct life *life, struct random_stream *random, uint32_t otherwise)
{
    uint32_t tree = (uint32_t)random_between(random, MADE_TREE, SIM_TREES - 1);
    return life->trees[tree] != NULL ? tree : otherwise;
}

static void operation(struct life *life, unsigned client, struct random_stream *random, struct quire_snapshot **snapshot)
{
    enum op_kind kind = random_kind(life->plan, random);
    uint32_t tree = random_chance(random, 20) ? VERSIONED_TREE : (uint32_t)random_below(random, VERSIONED_TREE);
    if (life->plan->make_percent != 0 && random_chance(random, 25)) tree = random_made(life, random, tree);
    uint32_t key = tree == VERSIONED_TREE ? version_cell(life, random) : (uint32_t)random_below(random, life->plan->keys);
    if (tree == 0 && random_chance(random, 15)) key = KEYS - 1 - (uint32_t)random_below(random, COUNTERS);
    if (random_chance(random, life->plan->hot_percent)) {
        tree = 1;
        key = 5;
    }
    if (*snapshot != NULL && random_chance(random, 6)) {
        quire_snapshot_release(*snapshot);
        *snapshot = NULL;
    }
    unsigned times = life->faulty ? 3 : 1; /* a fault should meet them, too */
    if (random_chance(random, life->plan->make_percent * times))
        make_tree(life, client, random, (uint32_t)random_between(random, 1, LIST_CELLS - 1));
    else if (random_chance(random, life->plan->raise_percent * times))
        random_chance(random, 70) ? safe_raise(life, client, random) : safe_read(life, client);
    else if (kind == OP_READ)
        read(life, client, random, *snapshot, tree, key);
    else if (kind == OP_SNAPSHOT)
        take_snapshot(life, client, snapshot);
    else if (kind > OP_ADD)
        other(life, client, kind);
    else if (random_chance(random, life->plan->burst_percent))
        burst(life, client, random, tree, key);
    else
        client_write(life, client, random, is_counter(tree, key) ? OP_ADD : kind, tree, key);
}

void client_run(struct life *life, unsigned number)
{
    struct quire_snapshot *snapshot = NULL;
    for (uint32_t i = 0; i < life->ops_each && sim_failures == 0; i++) {
        sched_point("client.next");
        memory_if_due(life, &life->streams[number]);
        operation(life, number, &life->streams[number], &snapshot);
    }
    quire_snapshot_release(snapshot);
}
