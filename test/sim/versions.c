/*
 * The tree with caller versions: what clients do with it, and what its answers say of cells (sim.h).
 *
 * VERSIONS-1  A read at version v answers the highest version up to v. If that is w, w is there with this value, and none of those between
 *             w and v has been written. If it finds nothing, the version that is deleted at times is deleted, and none above it is there.
 * VERSIONS-2  Below the safe version nobody can read: so of the versions of a key up to it the highest one, and those between, are all that
 *             can be said. The others may have been collected (NEVER).
 */
#include <stdio.h>
#include <string.h>

#include "sim/sim.h"

/* The version of the key that is deleted at times: one that is among those that can be collected early, or late. */
static uint32_t deletable(uint32_t key)
{
    return 2 + key % 3 * 2;
}

static uint32_t key_in(uint32_t cell)
{
    return cell / VERSIONS;
}

static uint32_t version_in(uint32_t cell)
{
    return cell % VERSIONS + 1;
}

/* Mostly one that is not refused. */
uint32_t version_cell(const struct life *life, struct random_stream *random)
{
    uint32_t keys = life->plan->keys < VERSIONED_KEYS ? 2 : VERSIONED_KEYS;
    uint32_t key = (uint32_t)random_below(random, keys), version = (uint32_t)random_between(random, 1, VERSIONS);
    if (random_chance(random, 20)) version = deletable(key);
    if (version <= life->safe && random_chance(random, 75))
        version = (uint32_t)random_between(random, life->safe < VERSIONS ? life->safe + random_below(random, 2) : VERSIONS, VERSIONS);
    return key * VERSIONS + version - 1;
}

bool version_deletes(uint32_t cell)
{
    return version_in(cell) == deletable(key_in(cell));
}

int version_write(struct life *life, uint32_t cell, bool deletes, const void *value, size_t size, unsigned flags, uint64_t *ret_lsn)
{
    char name[64];
    size_t name_size = key_of(key_in(cell), name);
    struct quire_tree *tree = life->trees[VERSIONED_TREE];
    if (deletes) return quire_delete_at(tree, version_in(cell), name, name_size, flags, ret_lsn);
    return quire_put_at(tree, version_in(cell), name, name_size, value, size, flags, ret_lsn);
}

int version_begin(struct life *life)
{
    for (uint32_t key = 0; key < VERSIONED_KEYS; key++) {
        char name[64];
        uint64_t lsn = 0;
        int result = quire_put_at(life->trees[VERSIONED_TREE], 0, name, key_of(key, name), "", 0, 0, &lsn);
        if (result != 0) return result;
        if (lsn > life->max_lsn) life->max_lsn = lsn;
    }
    return 0;
}

/* ---- What an answer says ---------------------------------------------------------------------------------------- */

/* An operation for each version up to that which is asked for, and one for the safe version; false: there is no room. */
static bool begin(struct life *life, unsigned client, uint32_t key, uint32_t version, struct op **ret_ops)
{
    if ((ret_ops[0] = safe_begin_ask(life, client, version)) == NULL) return false;
    for (uint32_t v = 1; v <= version; v++)
        if ((ret_ops[v] = life_begin_op(life, client, OP_READ, VERSIONED_TREE, key * VERSIONS + v - 1)) == NULL) return false;
    return true;
}

/* VERSIONS-1. ops: of the safe version, and of versions 1 to `version`; found: 0, NOT_FOUND or a failure. */
static void saw(struct life *life, struct op **ops, uint32_t version, int found, const struct quire_value *value, uint64_t seen)
{
    uint64_t lowest = found == 0 ? value->version : deletable(ops[version]->key / VERSIONS);
    bool refused = found == QUIRE_ERR_LSN_TOO_OLD;
    safe_end_ask(life, ops[0], found);
    ops[0]->end = seen;
    if (found >= 0 && lowest > version) sim_fail(life, "a read at version %u does not answer a version that it has", version);
    for (uint32_t v = 1; v <= version; v++) {
        struct op *op = ops[v];
        if (refused || (found >= 0 && v < lowest)) {
            life_drop_op(life, op);
            continue;
        }
        if (found == 0 && v == lowest) {
            client_decode(life, op->tree, op->key, value->data, value->size, &op->cell);
            op->lsn = value->lsn;
        }
        if (found == QUIRE_NOT_FOUND && v == lowest) op->cell = DELETED;
        life_end_op(life, op, found < 0 ? found : 0);
        op->end = seen;
    }
}

/* ---- Reads ------------------------------------------------------------------------------------------------------ */

/* The version of a value that was copied: no two have the same stamp. */
static uint64_t version_of_stamp(const struct life *life, uint32_t key, uint64_t stamp)
{
    for (uint32_t v = 1; v <= VERSIONS; v++)
        if (life->base.cells[VERSIONED_TREE][key * VERSIONS + v - 1] == stamp) return v;
    for (uint32_t i = life->op_count; i-- > 0;) {
        const struct op *op = &life->ops[i];
        if (op_writes(op) && op->tree == VERSIONED_TREE && key_in(op->key) == key && op->cell == stamp) return version_in(op->key);
    }
    return VERSIONS + 1;
}

static void get_copy(struct life *life, struct op **ops, uint32_t cell)
{
    static uint8_t buffers[SCHED_CLIENTS][MOST_VALUE];
    uint8_t *buffer = buffers[ops[0]->client];
    char name[64];
    uint64_t stamp = 0;
    struct quire_value value = {.data = buffer};
    size_t name_size = key_of(key_in(cell), name);
    int result = quire_get_at(life->trees[VERSIONED_TREE], version_in(cell), name, name_size, buffer, MOST_VALUE, &value.size);
    if (result == 0 && value.size >= 8) memcpy(&stamp, buffer, 8);
    if (result == 0 && value.size != 0) value.version = version_of_stamp(life, key_in(cell), stamp);
    saw(life, ops, version_in(cell), result, &value, life->time++);
}

void version_get(struct life *life, unsigned client, struct random_stream *random, uint32_t cell)
{
    char name[64];
    struct quire_guard guard;
    struct quire_value value = {0};
    struct op *ops[VERSIONS + 1];
    if (!begin(life, client, key_in(cell), version_in(cell), ops)) return;
    if (random_chance(random, 40)) {
        get_copy(life, ops, cell);
        return;
    }
    int result = quire_pin(life->db, "client", &guard);
    bool pinned = result == 0;
    if (pinned)
        result = quire_guard_get_at(&guard, life->trees[VERSIONED_TREE], version_in(cell), name, key_of(key_in(cell), name), &value);
    uint64_t seen = life->time++;
    sched_point("client.guarded");
    saw(life, ops, version_in(cell), result, &value, seen);
    if (pinned) quire_unpin(&guard);
}

static uint32_t key_named(const struct quire_entry *entry)
{
    for (uint32_t key = 0; key < VERSIONED_KEYS; key++) {
        char name[64];
        size_t size = key_of(key, name);
        if (size == entry->key_size && memcmp(name, entry->key, size) == 0) return key;
    }
    return VERSIONED_KEYS;
}

/* A safe version that was raised before the page was asked for refuses it. */
static int next_page(struct life *life, unsigned client, uint32_t version, struct quire_pages *pages, struct quire_page *page)
{
    struct op *ask = safe_begin_ask(life, client, version);
    int result = quire_pages_next(pages, page);
    if (ask != NULL && result == QUIRE_END) life_drop_op(life, ask);
    if (ask != NULL && result != QUIRE_END) safe_end_ask(life, ask, result);
    return result;
}

void version_scan(struct life *life, unsigned client, struct random_stream *random)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    struct op *ops[VERSIONED_KEYS][VERSIONS + 1];
    bool found[VERSIONED_KEYS] = {false};
    uint32_t version = version_in(version_cell(life, random));
    quire_pages_options_init(&options);
    options.version = version;
    options.reverse = random_chance(random, 50);
    for (uint32_t key = 0; key < VERSIONED_KEYS; key++)
        if (!begin(life, client, key, version, ops[key])) return;
    int result = quire_pages_open(life->trees[VERSIONED_TREE], &options, &pages);
    while (result == 0 && (result = next_page(life, client, version, pages, &page)) == 0) {
        for (size_t i = 0; i < page.count; i++) {
            const struct quire_entry *entry = &page.entries[i];
            uint32_t key = key_named(entry);
            if (key == VERSIONED_KEYS || found[key]) {
                sim_fail(life, "a scan of versions has a key that is not there, or twice");
                break;
            }
            found[key] = true;
            struct quire_value value = {entry->value, entry->value_size, entry->lsn, entry->version};
            saw(life, ops[key], version, 0, &value, life->time++);
        }
        sched_point("client.page");
    }
    for (uint32_t key = 0; key < VERSIONED_KEYS; key++)
        if (!found[key]) saw(life, ops[key], version, result == QUIRE_END ? QUIRE_NOT_FOUND : result, NULL, life->time++);
    quire_pages_close(pages);
}

/* ---- What is there ---------------------------------------------------------------------------------------------- */

/* A key, while it is looked at. */
struct look {
    struct life *life;
    struct quire_guard guard;
    uint32_t key;
    uint64_t *cells, *lsns; /* of versions from 1 on */
};

static int look_at(struct look *look, uint64_t version, struct quire_value *ret_value)
{
    char name[64];
    size_t size = key_of(look->key, name);
    return quire_guard_get_at(&look->guard, look->life->trees[VERSIONED_TREE], version, name, size, ret_value);
}

static void take(struct look *look, const struct quire_value *value)
{
    uint32_t at = (uint32_t)value->version - 1;
    client_decode(look->life, VERSIONED_TREE, look->key * VERSIONS + at, value->data, value->size, &look->cells[at]);
    look->lsns[at] = value->lsn;
}

/* VERSIONS-2. The safe version itself. Where even version 0 is not there, none is. */
static int look_at_safe(struct look *look, uint64_t safe)
{
    struct quire_value value = {0};
    uint64_t known = deletable(look->key);
    int result = look_at(look, safe, &value);
    if (result == 0) known = value.version;
    if (result >= 0 && known > safe)
        sim_fail(look->life, "at the safe version %llu key %u has nothing", (unsigned long long)safe, look->key);
    if (result < 0) known = safe + 1;
    for (uint64_t version = 1; version < known && version <= safe; version++) look->cells[version - 1] = NEVER;
    if (result == 0 && known != 0) take(look, &value);
    if (result == QUIRE_NOT_FOUND) look->cells[known - 1] = DELETED;
    return result == QUIRE_NOT_FOUND || fault_may_corrupt(look->life, result) ? 0 : result;
}

/* One above the safe version. Before version 0 of a key is there, none is. */
static int look_above(struct look *look, uint32_t version)
{
    struct quire_value value = {0}, below;
    uint64_t *cell = &look->cells[version - 1];
    int result = look_at(look, version, &value);
    if (result == 0 && value.version == version) take(look, &value);
    if (result == QUIRE_NOT_FOUND && version == deletable(look->key)) {
        result = look_at(look, version - 1, &below);
        if (result == 0) *cell = DELETED;
    }
    if (!fault_may_corrupt(look->life, result)) return result == QUIRE_NOT_FOUND ? 0 : result;
    *cell = NEVER;
    return 0;
}

int version_look(struct life *life, struct contents *ret_contents, uint64_t (*ret_lsns)[CELLS])
{
    struct look look = {.life = life};
    uint64_t safe = 0;
    int result = quire_safe_lsn(life->trees[VERSIONED_TREE], &safe);
    if (result == 0) result = quire_pin(life->db, "look", &look.guard);
    if (result != 0) return result;
    for (look.key = 0; look.key < VERSIONED_KEYS && result == 0; look.key++) {
        look.cells = &ret_contents->cells[VERSIONED_TREE][look.key * VERSIONS];
        look.lsns = &ret_lsns[VERSIONED_TREE][look.key * VERSIONS];
        if (safe != 0) result = look_at_safe(&look, safe);
        for (uint32_t version = (uint32_t)safe + 1; version <= VERSIONS && result == 0; version++) result = look_above(&look, version);
    }
    quire_unpin(&look.guard);
    return result;
}
