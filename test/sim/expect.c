/*
 * Whether what an image shows can be.
 *
 * Let A be the writes that were confirmed when the image was cut, in the order of their LSNs: that had returned; that lie below an
 * LSN up to which everything was durable, returned or not; those that had answered UNKNOWN, but for the death of a process; and, where what was done at all must be there, that somebody had read.
 * The image shows what a beginning of A has left, with every write in it that must be there, and of the frames that were reserved below the first LSN that is
 * missing any choice may count that had not come to a decision that survives: frames of writes that were under way, and, after
 * power loss, frames that lost a race and whose write then reserved another one. What frames a write has reserved, and when, was
 * noted at the stop points (life.c).
 *
 * EXPECT-1  One beginning of A explains all keys: nothing that is later is there without what is before it.
 * EXPECT-2  A frame that counts does what its write does where it stands: a condition holds there, a sum is that of what is
 *           there.
 * EXPECT-3  A write that was refused, or that had not reserved a frame yet, is not there.
 * EXPECT-4  What is there has the LSN that it had in the life before, or that of a frame of its write.
 * EXPECT-5  A safe version that somebody was told of, and a tree that somebody has opened, is as durable as the level of the database
 *           says, whether or not the call that raised or made it had returned. Versions that nobody can read any more may be there or not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim.h"

#define MOST_FRAMES 64u
#define MOST_REACHED 4096u

/* A frame that may count. */
struct frame {
    uint64_t position;
    const struct op *op;
};

struct question {
    const struct image *image;
    const struct life *life;
    const struct op *confirmed[MOST_OPS]; /* A */
    uint32_t confirmed_count;
    bool read[MOST_OPS]; /* by operation: a read that had returned showed it */
    struct contents cells; /* of the beginning in hand */
    uint64_t lsns[SIM_TREES][CELLS];
};

static bool had_begun(const struct image *image, const struct op *op)
{
    return op->begin < image->time;
}

/* Or as good as that. */
static bool had_returned(const struct question *q, const struct op *op)
{
    if (op->end < q->image->time) return true;
    if (op_took_effect(op) && op->shown < q->image->time) return true; /* EXPECT-5 */
    return op_was_done(op) && (op->lsn <= q->image->durable_lsn || q->read[op - q->life->ops]);
}

/* It is in A. What answered UNKNOWN is, where a prefix is found: if something later is there, so is it. EXPECT-1 */
static bool is_confirmed(const struct question *q, const struct op *op)
{
    return had_returned(q, op) && (op_was_done(op) || (op_took_effect(op) && !q->image->all));
}

/* Whether the operation may have an effect that its end has not confirmed. EXPECT-3 */
static bool is_open(const struct question *q, const struct op *op)
{
    if (!op_writes(op) || !had_begun(q->image, op)) return false;
    if (!had_returned(q, op) || op->result == QUIRE_ERR_UNKNOWN) return true;
    return op->result == 0 && !q->image->all;
}

/* What reads have shown before the image was cut: after the death of a process it is there, whoever wrote it. Of a buffered log only
 * what a write lies behind that was acknowledged (D-10). */
static void note_reads(struct question *q)
{
    const struct life *life = q->life;
    uint64_t below = life->buffered ? 0 : NEVER;
    memset(q->read, 0, sizeof(q->read));
    for (uint32_t i = 0; i < life->order_count && life->buffered; i++)
        if (life->ops[life->order[i]].end < q->image->time) below = life->ops[life->order[i]].lsn;
    for (uint32_t i = 0; i < life->op_count && q->image->all; i++) {
        const struct op *op = &life->ops[i];
        if (op->kind != OP_READ || op->result != 0 || op->end >= q->image->time || op->lsn == 0 || op->lsn >= below || op->cell == 0)
            continue;
        for (uint32_t k = 0; k < life->order_count; k++)
            if (life->ops[life->order[k]].lsn == op->lsn) q->read[life->order[k]] = true;
    }
}

static void add_frames(const struct question *q, const struct op *op, uint64_t above, uint64_t below, struct frame *frames,
                       uint32_t *count)
{
    uint32_t noted = op->attempt_count < MOST_ATTEMPTS ? op->attempt_count : MOST_ATTEMPTS;
    for (uint32_t i = 0; i < noted; i++) {
        const struct attempt *attempt = &op->attempts[i];
        bool was_done = is_confirmed(q, op) && i == noted - 1; /* it is in A */
        if (was_done || attempt->time >= q->image->time || attempt->position <= above || attempt->position >= below) continue;
        if (*count < MOST_FRAMES) frames[(*count)++] = (struct frame){attempt->position, op};
    }
}

static int by_position(const void *left, const void *right)
{
    const struct frame *a = left, *b = right;
    return a->position < b->position ? -1 : a->position > b->position;
}

/* EXPECT-2. What the cell is after the frame; false: its condition does not hold. */
static bool apply(const struct op *op, uint64_t cell, uint64_t *ret_cell)
{
    switch (op->kind) {
    case OP_INSERT: *ret_cell = op->cell; return cell == 0;
    case OP_SWAP: *ret_cell = op->cell; return cell == op->expected;
    case OP_ADD: *ret_cell = cell + op->delta; return true;
    case OP_RAISE: *ret_cell = cell > op->cell ? cell : op->cell; return true;
    default: *ret_cell = op->cell; return true;
    }
}

/* Adds the cell if it is not there yet. */
static void add_reached(uint64_t *reached, uint32_t *count, uint64_t cell)
{
    for (uint32_t r = 0; r < *count; r++)
        if (reached[r] == cell) return;
    if (*count < MOST_REACHED) reached[(*count)++] = cell;
}

static bool is_reached(const struct frame *frames, uint32_t count, uint64_t cell, uint64_t shown)
{
    uint64_t reached[MOST_REACHED] = {cell};
    uint32_t reached_count = 1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t after;
        uint32_t until = reached_count;
        for (uint32_t r = 0; r < until; r++)
            if (apply(frames[i].op, reached[r], &after)) add_reached(reached, &reached_count, after);
    }
    for (uint32_t r = 0; r < reached_count; r++)
        if (reached[r] == shown) return true;
    return false;
}

/* below: the LSN of the first write that is missing. */
static bool key_can_be(const struct question *q, uint32_t tree, uint32_t key, uint64_t below, uint64_t shown)
{
    struct frame frames[MOST_FRAMES];
    uint32_t count = 0;
    if (q->cells.cells[tree][key] == shown) return true;
    for (uint32_t i = 0; i < q->life->op_count; i++) {
        const struct op *op = &q->life->ops[i];
        if (op->tree != tree || op->key != key || !is_open(q, op)) continue;
        if (op->attempt_count > MOST_ATTEMPTS) return true; /* not all of them are known: nothing can be said */
        add_frames(q, op, q->lsns[tree][key], below, frames, &count);
    }
    qsort(frames, count, sizeof(frames[0]), by_position);
    return is_reached(frames, count, q->cells.cells[tree][key], shown);
}

static bool all_can_be(const struct question *q, uint64_t below, const struct contents *shown, uint32_t *ret_tree, uint32_t *ret_key)
{
    for (uint32_t t = 0; t < SIM_TREES; t++) {
        for (uint32_t k = 0; k < cells_of(t); k++) {
            *ret_tree = t;
            *ret_key = k;
            if (shown->cells[t][k] != NEVER && !key_can_be(q, t, k, below, shown->cells[t][k])) return false;
        }
    }
    return true;
}

static void go_to(struct question *q, uint32_t n)
{
    const struct op *op = q->confirmed[n];
    q->cells.cells[op->tree][op->key] = op->cell;
    q->lsns[op->tree][op->key] = op->lsn;
}

static uint32_t least(const struct question *q)
{
    uint32_t n = 0;
    if (q->image->all) return q->confirmed_count;
    while (n < q->confirmed_count && q->confirmed[n]->lsn <= q->image->durable_lsn) n++;
    return n;
}

bool expect_check(const struct image *image, const struct contents *shown, char *text, size_t size)
{
    static const struct contents nothing;
    static struct question q;
    const struct life *life = image->from;
    uint32_t tree = 0, key = 0;
    if (life == NULL) {
        if (memcmp(shown->cells, nothing.cells, sizeof(nothing.cells)) == 0) return true;
        snprintf(text, size, "there is something on an empty disk");
        return false;
    }
    q.image = image;
    q.life = life;
    q.confirmed_count = 0;
    q.cells = life->base;
    memset(q.lsns, 0, sizeof(q.lsns));
    note_reads(&q);
    for (uint32_t i = 0; i < life->order_count; i++)
        if (is_confirmed(&q, &life->ops[life->order[i]])) q.confirmed[q.confirmed_count++] = &life->ops[life->order[i]];
    uint32_t n = 0, from = least(&q);
    for (; n < from; n++) go_to(&q, n);
    for (;; n++) {
        uint64_t below = n < q.confirmed_count ? q.confirmed[n]->lsn : NEVER;
        if (all_can_be(&q, below, shown, &tree, &key)) return true;
        if (n == q.confirmed_count) break;
        go_to(&q, n);
    }
    snprintf(text, size, "no beginning of the writes explains it, from %u to %u of them; of all, tree %u, key %u is %llx, not %llx (LSN %llu)",
             from, q.confirmed_count, tree, key, (unsigned long long)shown->cells[tree][key],
             (unsigned long long)q.cells.cells[tree][key], (unsigned long long)q.lsns[tree][key]);
    return false;
}

/* ---- LSNs ------------------------------------------------------------------------------------------------------- */

/* Whether the LSN of another write lies above the position, and not above the LSN. */
static bool is_between(const struct life *life, const struct op *op, uint64_t position, uint64_t lsn)
{
    for (uint32_t i = 0; i < life->order_count; i++) {
        const struct op *other = &life->ops[life->order[i]];
        if (other != op && other->lsn > position && other->lsn <= lsn) return true;
    }
    return false;
}

static bool has_frame_at(const struct image *image, const struct op *op, uint64_t lsn)
{
    if (op_took_effect(op) && !op->least && op->lsn == lsn) return true;
    if (op->attempt_count > MOST_ATTEMPTS) return true; /* not all of them are known */
    for (uint32_t i = 0; i < op->attempt_count; i++) {
        const struct attempt *attempt = &op->attempts[i];
        bool fits = attempt->time < image->time && lsn >= attempt->position;
        if (fits && !is_between(image->from, op, attempt->position, lsn)) return true;
    }
    return false;
}

/* EXPECT-4 */
bool expect_lsn(const struct image *image, uint32_t tree, uint32_t key, uint64_t cell, uint64_t lsn)
{
    const struct life *life = image->from;
    if (life == NULL) return false;
    if (cell == life->base.cells[tree][key] && lsn == life->base_lsns[tree][key]) return true;
    for (uint32_t i = 0; i < life->op_count; i++) {
        const struct op *op = &life->ops[i];
        bool of_cell = op_writes(op) && op->tree == tree && op->key == key && had_begun(image, op);
        if (of_cell && (op->kind == OP_ADD || op->cell == cell) && has_frame_at(image, op, lsn)) return true;
    }
    return false;
}
