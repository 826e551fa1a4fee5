/*
 * The tree with caller versions: what clients do with it, and what its answers say of cells (sim.h).
 *
 * VERSIONS-1  A read at version v answers the highest version up to v. If that is w, w is there with this value, and none of those between
 *             w and v has been written. If it finds nothing, the version that is deleted at times is deleted, and none above it is there.
 */
#include <stdio.h>
#include <string.h>

#include "sim/sim.h"

#define DELETED_VERSION 2u

static uint32_t key_in(uint32_t cell)
{
    return cell / VERSIONS;
}

static uint32_t version_in(uint32_t cell)
{
    return cell % VERSIONS + 1;
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

/* An operation for each version up to that which is asked for; false: there is no room. */
static bool begin(struct life *life, unsigned client, uint32_t key, uint32_t version, struct op **ret_ops)
{
    for (uint32_t v = 1; v <= version; v++)
        if ((ret_ops[v] = life_begin_op(life, client, OP_READ, VERSIONED_TREE, key * VERSIONS + v - 1)) == NULL) return false;
    return true;
}

/* VERSIONS-1. ops: of versions 1 to `version`; found: 0, NOT_FOUND or a failure. */
static void saw(struct life *life, struct op **ops, uint32_t version, int found, const struct quire_value *value, uint64_t seen)
{
    uint64_t lowest = found == 0 ? value->version : DELETED_VERSION;
    if (found >= 0 && lowest > version) sim_fail(life, "a read at version %u does not answer a version that it has", version);
    for (uint32_t v = 1; v <= version; v++) {
        struct op *op = ops[v];
        if (found >= 0 && v < lowest) {
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

void version_get(struct life *life, unsigned client, uint32_t cell)
{
    char name[64];
    struct quire_guard guard;
    struct quire_value value = {0};
    struct op *ops[VERSIONS + 1];
    if (!begin(life, client, key_in(cell), version_in(cell), ops)) return;
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

void version_scan(struct life *life, unsigned client, struct random_stream *random)
{
    struct quire_pages_options options;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    struct op *ops[VERSIONED_KEYS][VERSIONS + 1];
    bool found[VERSIONED_KEYS] = {false};
    uint32_t version = (uint32_t)random_between(random, 1, VERSIONS);
    quire_pages_options_init(&options);
    options.version = version;
    options.reverse = random_chance(random, 50);
    for (uint32_t key = 0; key < VERSIONED_KEYS; key++)
        if (!begin(life, client, key, version, ops[key])) return;
    int result = quire_pages_open(life->trees[VERSIONED_TREE], &options, &pages);
    while (result == 0 && (result = quire_pages_next(pages, &page)) == 0) {
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

static int look_at(struct life *life, struct quire_guard *guard, uint32_t key, uint32_t version, struct quire_value *ret_value)
{
    char name[64];
    return quire_guard_get_at(guard, life->trees[VERSIONED_TREE], version, name, key_of(key, name), ret_value);
}

/* Before the first version of a key is there, none is. */
int version_look(struct life *life, uint32_t cell, uint64_t *ret_cell, uint64_t *ret_lsn)
{
    struct quire_guard guard;
    struct quire_value value = {0}, below;
    uint32_t key = key_in(cell), version = version_in(cell);
    int result = quire_pin(life->db, "look", &guard);
    if (result != 0) return result;
    result = look_at(life, &guard, key, version, &value);
    if (result == 0 && value.version == version) {
        client_decode(life, VERSIONED_TREE, cell, value.data, value.size, ret_cell);
        *ret_lsn = value.lsn;
    }
    if (result == QUIRE_NOT_FOUND && version == DELETED_VERSION) {
        result = look_at(life, &guard, key, version - 1, &below);
        if (result == 0) *ret_cell = DELETED;
    }
    quire_unpin(&guard);
    return result == QUIRE_NOT_FOUND ? 0 : result;
}
