/*
 * The safe version of the tree with caller versions: who raises it, who is told of it, and what it refuses.
 *
 * The safe version is a cell of the list of trees (sim.h), and raising it a write as others: it has an LSN, that of its record, and a
 * level, that of the database. A read or a write of a version says by its answer whether the safe version is above it: an
 * operation of its own, beside what it says of cells.
 *
 * SAFE-1  Reads below the safe version are refused, and writes at and below it; all others are done (HISTORY-6).
 * SAFE-2  It is as durable as the level says before it is in force (CATALOGUE-1): so who was told of it may count on it, as if the call
 *         that raises it had returned (EXPECT-5).
 * SAFE-3  A version that an opening shows as the safe one refuses there what it refused before.
 */
#include <string.h>

#include "sim/sim.h"

/* ---- Who is told ------------------------------------------------------------------------------------------------ */

/* SAFE-2. Somebody was told that it is this version or a higher one. Of the calls that are under way that with the lowest version is the
 * one that has raised it: they come one after the other. */
static void note_told(struct life *life, uint64_t version)
{
    struct op *raise = NULL;
    if (version <= life->safe) return;
    for (uint32_t i = 0; i < life->client_count; i++) {
        struct op *op = life->current[i];
        bool may = op != NULL && op->kind == OP_RAISE && op->attempt_count != 0 && op->cell >= version;
        if (may && (raise == NULL || op->cell < raise->cell)) raise = op;
    }
    if (raise == NULL) return; /* the history will say so */
    life->safe = raise->cell;
    list_told(life, raise);
}

struct op *safe_begin_ask(struct life *life, unsigned client, uint64_t version)
{
    struct op *op = life_begin_op(life, client, OP_ASK, LIST, SAFE_CELL);
    if (op != NULL) op->expected = version;
    return op;
}

void safe_end_ask(struct life *life, struct op *op, int result)
{
    if (result < 0 && result != QUIRE_ERR_LSN_TOO_OLD && result != QUIRE_ERR_UNKNOWN) {
        life_drop_op(life, op);
        return;
    }
    life_end_op(life, op, result == QUIRE_ERR_LSN_TOO_OLD ? result : 0);
    sim_counts.refused += op->result != 0;
    if (op->result != 0) note_told(life, op->expected + 1);
}

/* ---- What clients do -------------------------------------------------------------------------------------------- */

void safe_raise(struct life *life, unsigned client, struct random_stream *random)
{
    uint64_t version = life->safe + random_between(random, 1, 2);
    if (version >= VERSIONS && random_chance(random, 90)) version = VERSIONS - 1; /* there is something left to be written */
    if (random_chance(random, 15)) version = random_below(random, life->safe + 1);
    struct op *op = life_begin_op(life, client, OP_RAISE, LIST, SAFE_CELL);
    if (op == NULL) return;
    op->cell = version;
    op->durable = !life->off && life->plan->level == QUIRE_LEVEL_DURABLE;
    int result = quire_set_safe_lsn(life->trees[VERSIONED_TREE], version);
    bool wrote = op->attempt_count != 0;
    if (wrote) op->lsn = op_last_attempt(op)->lsn;
    life_end_op(life, op, result == 0 && !wrote ? QUIRE_EXISTS : result);
    sim_counts.raised += wrote && result == 0;
    if (result != 0 && result != QUIRE_ERR_UNKNOWN) return;
    if (!wrote) note_told(life, version);
    if (wrote && version > life->safe) life->safe = version;
}

void safe_read(struct life *life, unsigned client)
{
    struct op *op = life_begin_op(life, client, OP_READ, LIST, SAFE_CELL);
    if (op == NULL) return;
    int result = quire_safe_lsn(life->trees[VERSIONED_TREE], &op->cell);
    life_end_op(life, op, result);
    if (result == 0) note_told(life, op->cell);
}

/* ---- After an opening ------------------------------------------------------------------------------------------- */

/* SAFE-3 */
static void check_refusals(struct life *life, uint64_t safe)
{
    struct quire_tree *tree = life->trees[VERSIONED_TREE];
    char name[64];
    size_t size = 0, name_size = key_of(0, name);
    for (uint64_t version = 0; version <= VERSIONS; version++) {
        int result = quire_get_at(tree, version, name, name_size, NULL, 0, &size);
        if ((result == QUIRE_ERR_LSN_TOO_OLD) != (version < safe))
            sim_fail(life, "with the safe version %llu a read at %llu answers %s", (unsigned long long)safe, (unsigned long long)version,
                     quire_strerror(result));
        if (version > safe || safe == 0) continue;
        result = quire_put_at(tree, version, name, name_size, "", 0, 0, NULL);
        if (result != QUIRE_ERR_LSN_TOO_OLD && !life->faulty)
            sim_fail(life, "with the safe version %llu a write at %llu answers %s", (unsigned long long)safe, (unsigned long long)version,
                     quire_strerror(result));
    }
}

int safe_look(struct life *life, uint64_t *ret_cell)
{
    if (life->trees[VERSIONED_TREE] == NULL) return 0;
    int result = quire_safe_lsn(life->trees[VERSIONED_TREE], ret_cell);
    if (result == 0) check_refusals(life, *ret_cell);
    return result;
}
