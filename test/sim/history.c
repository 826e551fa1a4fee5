/*
 * Whether the answers of a life's clients can be: the LSNs give the order of the writes, and every answer is compared with it.
 *
 * HISTORY-1  LSNs are given out once, above all before, and a write that began after another had returned has a higher one.
 * HISTORY-2  A conditional write, an addition, a deletion that says what it found: as the write before it on its key, by LSN,
 *            left it.
 * HISTORY-3  A read shows a version that was not replaced before the read began by a write that had returned or that another
 *            read had shown; so does a conditional write that was refused. Where an LSN is told it is that of the version.
 * HISTORY-4  A snapshot shows the newest version up to its LSN, which is not below that of any write that had returned or that
 *            a read had shown, and below that of any write that began later.
 * HISTORY-5  A write that answered UNKNOWN was done. Its LSN is what reads say of its value, or else lies between the place where it
 *            reserved and the next write; a sum is that of what was there.
 * HISTORY-6  The safe version only grows, and who is told that a version is refused, or is not, is told what it was meanwhile: none
 *            that was lower than one that had been in force before.
 * HISTORY-7  One call makes a tree, with an id that no other has; who opens it sees the id and the options that it was made with, and the
 *            sizes that it was given last (make.c).
 */
#include <stdlib.h>
#include <string.h>

#include "sim/sim.h"

#define MOST_VERSIONS 2048u

static const struct life *sorted;

static int by_lsn(const void *left, const void *right)
{
    uint64_t a = sorted->ops[*(const uint32_t *)left].lsn, b = sorted->ops[*(const uint32_t *)right].lsn;
    return a < b ? -1 : a > b;
}

/* HISTORY-5. The LSN that a read has shown, if it is a value that nobody else wrote. */
static void ask_reads(const struct life *life, struct op *op)
{
    for (uint32_t i = 0; i < life->op_count && op->kind != OP_ADD && op->kind != OP_DELETE; i++) {
        const struct op *read = &life->ops[i];
        bool of_key = (read->kind == OP_READ || read->kind == OP_READ_OLD) && read->tree == op->tree && read->key == op->key;
        if (!of_key || read->result != 0 || read->cell != op->cell || read->lsn < op->lsn) continue;
        op->lsn = read->lsn;
        op->least = false;
        return;
    }
}

/* HISTORY-5 */
static void add_up(struct life *life)
{
    struct contents now = life->base;
    for (uint32_t i = 0; i < life->order_count; i++) {
        struct op *op = &life->ops[life->order[i]];
        uint64_t *cell = &now.cells[op->tree][op->key];
        if (op->kind == OP_ADD && op->result == QUIRE_ERR_UNKNOWN) op->cell = *cell + op->delta;
        *cell = op->cell;
    }
}

static void put_in_order(struct life *life)
{
    for (uint32_t i = 0; i < life->op_count; i++)
        if (op_took_effect(&life->ops[i]) && life->ops[i].least) ask_reads(life, &life->ops[i]);
    life->order_count = 0;
    for (uint32_t i = 0; i < life->op_count; i++)
        if (op_took_effect(&life->ops[i])) life->order[life->order_count++] = i;
    sorted = life;
    qsort(life->order, life->order_count, sizeof(life->order[0]), by_lsn);
    add_up(life);
}

static const char *name_of(const struct op *op)
{
    static const char *const names[OP_KINDS] = {"put",      "delete", "insert", "swap",       "add",      "raise", "make", "read", "read_old", "ask",
                                                "snapshot", "sync",   "wait",   "checkpoint", "maintain", "verify"};
    return names[op->kind];
}

static void fail_op(const struct life *life, const struct op *op, const char *why)
{
    sim_fail(life, "%s of client %u, tree %u, key %u, times %llu to %llu, LSN %llu, cell %llx, expected %llx, answer %d: %s",
             name_of(op), op->client, op->tree, op->key, (unsigned long long)op->begin, (unsigned long long)op->end,
             (unsigned long long)op->lsn, (unsigned long long)op->cell, (unsigned long long)op->expected, op->result, why);
}

/* HISTORY-1 */
static void check_order(const struct life *life)
{
    uint64_t latest = 0, before = life->image.max_lsn;
    for (uint32_t i = 0; i < life->order_count; i++) {
        const struct op *op = &life->ops[life->order[i]];
        if (op->lsn <= before) fail_op(life, op, "its LSN was given out before");
        if (op->end < latest) fail_op(life, op, "a write with a lower LSN began after it had returned");
        before = op->lsn;
        if (op->begin > latest) latest = op->begin;
    }
}

/* ---- A key ------------------------------------------------------------------------------------------------------ */

struct version {
    uint64_t lsn, begin, end, cell;
    bool least; /* as in struct op */
};

struct versions {
    struct version list[MOST_VERSIONS];
    uint32_t count;
};

static void note_version(struct versions *versions, const struct op *op)
{
    if (versions->count == MOST_VERSIONS) abort();
    versions->list[versions->count++] =
        (struct version){.lsn = op->lsn, .begin = op->begin, .end = op->end, .cell = op->cell, .least = op->least};
}

/* HISTORY-2 */
static void check_write(const struct life *life, const struct op *op, uint64_t before)
{
    if (op->kind == OP_INSERT && before != 0) fail_op(life, op, "it inserted over a value");
    if (op->kind == OP_SWAP && before != op->expected) fail_op(life, op, "it replaced another value");
    if (op->kind == OP_ADD && op->cell != before + op->delta) fail_op(life, op, "the sum is not right");
    if (op->kind == OP_MAKE && !make_fits(op, before)) fail_op(life, op, "it cannot have written this");
    if (op->kind == OP_RAISE && op->cell <= before) fail_op(life, op, "it does not raise the safe version");
    if (op->kind == OP_DELETE && op->expected != NEVER && op->expected != (before != 0))
        fail_op(life, op, "it is not right about what was there");
}

static void collect(const struct life *life, uint32_t tree, uint32_t key, struct versions *ret_versions)
{
    ret_versions->list[0] = (struct version){.lsn = life->base_lsns[tree][key], .cell = life->base.cells[tree][key]};
    ret_versions->count = 1;
    for (uint32_t i = 0; i < life->order_count; i++) {
        const struct op *op = &life->ops[life->order[i]];
        if (op->tree != tree || op->key != key) continue;
        check_write(life, op, ret_versions->list[ret_versions->count - 1].cell);
        note_version(ret_versions, op);
    }
}

/* Whether the version explains the answer. */
static bool explains(const struct op *op, const struct version *version)
{
    if (op->kind == OP_READ) return op->cell == version->cell;
    if (op->kind == OP_INSERT) return version->cell != 0;
    if (op->kind == OP_RAISE) return version->cell >= op->cell;
    if (op->kind == OP_MAKE) return make_explains(op, version->cell);
    if (op->kind == OP_ASK) return (op->result == QUIRE_ERR_LSN_TOO_OLD) == (version->cell > op->expected);
    if (op->result == QUIRE_NOT_FOUND) return version->cell == 0;
    return version->cell != 0 && version->cell != op->expected;
}

static bool shows_newest(const struct op *op)
{
    if (op->end == NEVER) return false;
    if (op->kind == OP_READ) return op->result == 0;
    if (op->kind == OP_ASK) return op->result == 0 || op->result == QUIRE_ERR_LSN_TOO_OLD;
    if (op->kind == OP_MAKE && (op->result == QUIRE_NOT_FOUND || op->result == QUIRE_ERR_INVALID)) return true;
    return ((op->kind == OP_INSERT || op->kind == OP_RAISE || op->kind == OP_MAKE) && op->result == QUIRE_EXISTS) ||
           (op->kind == OP_SWAP && (op->result == QUIRE_CONFLICT || op->result == QUIRE_NOT_FOUND));
}

/* HISTORY-3 */
static void check_named(const struct life *life, const struct op *read, const struct version *found)
{
    bool value = (read->kind == OP_READ || read->kind == OP_READ_OLD) && read->cell != 0 && read->cell != DELETED;
    bool named = value && read->lsn != 0 && found->lsn != 0;
    if (named && (found->least ? read->lsn < found->lsn : read->lsn != found->lsn)) fail_op(life, read, "the value has another LSN");
}

/* HISTORY-3. seen: of each read that was looked at, the LSN of the oldest version that explains it, and when it ended. */
static void check_newest(const struct life *life, const struct versions *versions, const struct op *op,
                         struct version *seen, uint32_t *seen_count)
{
    uint64_t floor = 0;
    for (uint32_t i = 0; i < versions->count; i++)
        if (versions->list[i].end < op->begin && versions->list[i].lsn > floor) floor = versions->list[i].lsn;
    for (uint32_t i = 0; i < *seen_count; i++)
        if (seen[i].end < op->begin && seen[i].lsn > floor) floor = seen[i].lsn;
    const struct version *found = NULL;
    for (uint32_t i = 0; i < versions->count && found == NULL; i++) {
        const struct version *version = &versions->list[i];
        if (version->lsn >= floor && version->begin < op->end && explains(op, version)) found = version;
    }
    if (found == NULL) {
        fail_op(life, op, "nothing that was there meanwhile explains it");
        return;
    }
    check_named(life, op, found);
    if (*seen_count < MOST_VERSIONS) seen[(*seen_count)++] = (struct version){.lsn = found->lsn, .end = op->end};
}

/* HISTORY-4 */
static void check_old(const struct life *life, const struct versions *versions, const struct op *op, struct version *seen,
                      uint32_t *seen_count)
{
    const struct version *newest = &versions->list[0];
    for (uint32_t i = 1; i < versions->count && versions->list[i].lsn <= op->expected; i++) newest = &versions->list[i];
    if (op->cell != newest->cell && newest->least) newest--; /* its LSN may be above the snapshot's */
    if (op->cell != newest->cell) fail_op(life, op, "its snapshot has another value");
    check_named(life, op, newest);
    if (*seen_count < MOST_VERSIONS) seen[(*seen_count)++] = (struct version){.lsn = newest->lsn, .end = op->end};
}

static int by_end(const void *left, const void *right)
{
    const struct op *a = *(const struct op *const *)left, *b = *(const struct op *const *)right;
    return a->end < b->end ? -1 : a->end > b->end;
}

static void check_key(const struct life *life, uint32_t tree, uint32_t key)
{
    static struct versions versions;
    static struct version seen[MOST_VERSIONS];
    static const struct op *newest[MOST_OPS];
    uint32_t seen_count = 0, count = 0;
    collect(life, tree, key, &versions);
    for (uint32_t i = 0; i < life->op_count; i++) {
        const struct op *op = &life->ops[i];
        if (op->kind > OP_ASK || op->tree != tree || op->key != key) continue;
        if (op->kind == OP_READ_OLD && op->result == 0 && op->end != NEVER) check_old(life, &versions, op, seen, &seen_count);
        if (shows_newest(op)) newest[count++] = op;
    }
    qsort(newest, count, sizeof(newest[0]), by_end);
    for (uint32_t i = 0; i < count; i++) check_newest(life, &versions, newest[i], seen, &seen_count);
}

/* HISTORY-4 */
static void check_snapshot(const struct life *life, const struct op *snapshot)
{
    for (uint32_t i = 0; i < life->order_count; i++) {
        const struct op *op = &life->ops[life->order[i]];
        if (op->end < snapshot->begin && op->lsn > snapshot->lsn) fail_op(life, snapshot, "it is below a write that had returned");
        if (op->begin > snapshot->end && op->lsn <= snapshot->lsn) fail_op(life, snapshot, "it is above a write that began later");
    }
    for (uint32_t i = 0; i < life->op_count; i++) {
        const struct op *op = &life->ops[i];
        if (op->kind == OP_READ && op->result == 0 && op->cell != 0 && op->end < snapshot->begin && op->lsn > snapshot->lsn)
            fail_op(life, snapshot, "it is below a write that had been read");
    }
}

/* HISTORY-7 */
static void check_ids(const struct life *life)
{
    uint32_t ids[LIST_CELLS] = {0};
    for (uint32_t k = 1; k < LIST_CELLS; k++) ids[k] = made_unpack(life->base.cells[LIST][k]).id;
    for (uint32_t i = 0; i < life->order_count; i++) {
        const struct op *op = &life->ops[life->order[i]];
        if (op->kind != OP_MAKE) continue;
        ids[op->key] = made_unpack(op->cell).id;
        for (uint32_t k = 1; k < LIST_CELLS; k++)
            if (k != op->key && ids[k] == ids[op->key]) fail_op(life, op, "it has the id of another tree");
        for (uint32_t t = 0; t < LIST; t++)
            if (life->image.ids[t] == ids[op->key]) fail_op(life, op, "it has the id of one of the first trees");
    }
}

/* ---- All -------------------------------------------------------------------------------------------------------- */

void history_check(struct life *life)
{
    put_in_order(life);
    check_order(life);
    for (uint32_t t = 0; t < SIM_TREES; t++)
        for (uint32_t k = 0; k < cells_of(t); k++) check_key(life, t, k);
    check_ids(life);
    for (uint32_t i = 0; i < life->op_count; i++)
        if (life->ops[i].kind == OP_SNAPSHOT && life->ops[i].result == 0) check_snapshot(life, &life->ops[i]);
}

void history_last(const struct life *life, struct contents *ret_contents)
{
    *ret_contents = life->base;
    for (uint32_t i = 0; i < life->order_count; i++) {
        const struct op *op = &life->ops[life->order[i]];
        ret_contents->cells[op->tree][op->key] = op->cell;
    }
}
