/*
 * A limit of memory, in some of the seeds.
 *
 * Stores are opened with the lowest limit that there is, and the simulation takes most of it for itself, so that little is left, or
 * nothing, or all again.
 *
 * MEMORY-1  A write that answers NO_MEMORY or STALLED has changed nothing: nobody sees it, in this life or in an image (HISTORY-3,
 *           EXPECT-3).
 * MEMORY-2  Reads go on, and syncs of a log; but of a large value a copy may find no room.
 * MEMORY-3  When nobody holds anything deletions go on at the limit. As soon as there is memory again all writes do.
 */
#include "base/arena.h"
#include "db/db.h"
#include "os/thread.h"
#include "sim/sim.h"

#define MOST_LEFT_BYTES 65536
#define MOST_OVER_BYTES 65536 /* what is charged may exceed the limit, as the reserve does */
#define LAST_DELETIONS 12u /* more than a leaf takes without a new block */
#define ALL INT64_C(1099511627776)
#define HOLD_US 4000u /* longer than writes wait */

static void leave(struct life *life, int64_t left_bytes)
{
    struct qr_arena *arena = life->db->arena;
    int64_t limit = (int64_t)qr_arena_limit_bytes(arena), used = (int64_t)qr_arena_total_bytes(arena) - life->ballast_bytes;
    int64_t ballast = used + left_bytes < limit ? limit - used - left_bytes : 0;
    qr_arena_charge(arena, ballast - life->ballast_bytes);
    life->ballast_bytes = ballast;
    life->limited = true;
    sim_counts.limits++;
}

void memory_if_due(struct life *life, struct random_stream *random)
{
    if (life->plan->memory_percent == 0 || !random_chance(random, life->plan->memory_percent)) return;
    uint64_t dice = random_below(random, 10);
    int64_t by = (int64_t)random_below(random, MOST_LEFT_BYTES);
    leave(life, dice < 2 ? ALL : dice < 5 ? 0 : dice < 7 ? -by * MOST_OVER_BYTES / MOST_LEFT_BYTES : by);
}

void memory_hold(const struct life *life, unsigned client)
{
    if (life->ballast_bytes != 0 && (life->time + client) % 4 == 0) qr_sleep_us(HOLD_US);
}

/* MEMORY-2 */
bool memory_may_answer(const struct life *life, const struct op *op)
{
    if (!life->limited || (op->result != QUIRE_ERR_NO_MEMORY && op->result != QUIRE_ERR_STALLED)) return false;
    sim_counts.no_memory += op->result == QUIRE_ERR_NO_MEMORY;
    sim_counts.stalled += op->result == QUIRE_ERR_STALLED;
    if (op_writes(op)) return true;
    if (op->result == QUIRE_ERR_STALLED) return false;
    switch (op->kind) {
    case OP_READ:
    case OP_READ_OLD: return op->tree != LIST && life->plan->blob_threshold != NO_BLOBS;
    case OP_SYNC:
    case OP_WAIT: return life->off;
    case OP_CHECKPOINT:
    case OP_MAINTAIN:
    case OP_VERIFY: return true;
    default: return false;
    }
}

/* MEMORY-3. Where a fault may be there, too, a write may answer what it left. */
void memory_end(struct life *life)
{
    if (!life->limited) return;
    leave(life, -MOST_OVER_BYTES); /* so what is free is for deletions alone */
    life->limited = false;
    for (uint32_t key = 0; key < LAST_DELETIONS && !life->faulty; key++) client_write(life, 0, &life->random, OP_DELETE, 1, key);
    leave(life, ALL);
    life->limited = false;
    if (!life->faulty) client_write(life, 0, &life->random, OP_PUT, 1, 7);
}
