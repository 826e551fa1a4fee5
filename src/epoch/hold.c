/*
 * Holds: keep a single block alive after the section in which it was found.
 * Layer 1 (epoch). Read epoch.h first.
 *
 * HOLD-1  A block that is in a hold is not reclaimed.
 *
 * Why it is enough to set a hold inside the section and to look at the holds after the grace period. Let block X be
 * unlinked, then retired, then taken by a round, which then waits for a grace period and then loads all holds. Somebody
 * sets a hold to X inside the section S in which it found X.
 *   - S began before the grace period did, or else X was unlinked already when S began, and S could not have found it.
 *   - So the grace period waits for the end of S, and everything done in S, the hold's store too, is visible to the
 * round afterwards. It finds X in the hold and keeps it for a later round.
 *   - After the grace period nobody can set a hold to X any more: all sections that could find it have ended. So once
 *     a later round sees the hold without X, X is free, and no second grace period is needed.
 * The holder's reads of X come before the store that clears the hold (epoch.hold_set, release); the round loads the
 * hold with acquire (epoch.hold_scan) before it reclaims X.
 *
 * Slots are linked once and reused. acquire is lock-free, set and release are wait-free. A hold is used by one thread
 * at a time.
 */
#include "epoch/internal.h"

#include <stdlib.h>

#include "base/alloc.h"

/* ---- Holders ---------------------------------------------------------------------------------------------------- */

static struct qr_hold *first_hold(struct qr_epoch *epoch)
{
    /* order: epoch.hold_walk sees every slot that it finds complete, pairs with epoch.hold_link */
    return atomic_load_explicit(&epoch->holds, memory_order_acquire);
}

struct qr_hold *qr_hold_acquire(struct qr_epoch *epoch)
{
    struct qr_hold *hold;

    for (hold = first_hold(epoch); hold != NULL; hold = hold->next) {
        uint32_t unused = 0;
        /* order: epoch.hold_acquire takes the slot over, pairs with epoch.hold_release; relaxed: a failure reads
         * nothing */
        if (atomic_compare_exchange_strong_explicit(&hold->in_use, &unused, 1, memory_order_acquire,
                                                    memory_order_relaxed))
            return hold;
    }
    hold = qr_malloc_aligned(QR_CACHE_LINE_BYTES, sizeof(*hold));
    if (hold == NULL)
        return NULL;
    *hold = (struct qr_hold){.in_use = 1};
    /* relaxed: the compare-and-swap fails if it is stale */
    hold->next = atomic_load_explicit(&epoch->holds, memory_order_relaxed);
    /* order: epoch.hold_link publishes the slot, pairs with epoch.hold_walk; relaxed: a failure reads nothing */
    while (!atomic_compare_exchange_weak_explicit(&epoch->holds, &hold->next, hold, memory_order_release,
                                                  memory_order_relaxed))
        ;
    return hold;
}

void qr_hold_set(struct qr_hold *hold, const void *block)
{
    /* order: epoch.hold_set ends the reads of the block held before, pairs with epoch.hold_scan */
    atomic_store_explicit(&hold->block, block, memory_order_release);
}

void qr_hold_release(struct qr_hold *hold)
{
    if (hold == NULL)
        return;
    qr_hold_set(hold, NULL);
    /* order: epoch.hold_release hands the cleared slot on, pairs with epoch.hold_acquire */
    atomic_store_explicit(&hold->in_use, 0, memory_order_release);
}

uint64_t qr_epoch_holds_open(struct qr_epoch *epoch)
{
    uint64_t count = 0;

    for (struct qr_hold *hold = first_hold(epoch); hold != NULL; hold = hold->next) {
        /* relaxed: statistics */
        count += atomic_load_explicit(&hold->in_use, memory_order_relaxed);
    }
    return count;
}

/* ---- The reclaimer ---------------------------------------------------------------------------------------------- */

static const void *held_block(struct qr_hold *hold)
{
    /* order: epoch.hold_scan comes after the reads of a block that is not held any more, pairs with epoch.hold_set */
    return atomic_load_explicit(&hold->block, memory_order_acquire);
}

static int compare_blocks(const void *left, const void *right)
{
    uintptr_t a = (uintptr_t) * (const void *const *)left;
    uintptr_t b = (uintptr_t) * (const void *const *)right;
    return (a > b) - (a < b);
}

static bool held_append(struct qr_epoch *epoch, const void *block)
{
    const void **larger = qr_grow(epoch->held, epoch->held_count, &epoch->held_capacity, sizeof(*larger));
    if (larger == NULL) return false;
    epoch->held = larger;
    epoch->held[epoch->held_count++] = block;
    return true;
}

void qr_hold_collect(struct qr_epoch *epoch)
{
    epoch->held_count = 0;
    epoch->held_complete = true;
    for (struct qr_hold *hold = first_hold(epoch); hold != NULL && epoch->held_complete; hold = hold->next) {
        const void *block = held_block(hold);
        if (block != NULL)
            epoch->held_complete = held_append(epoch, block);
    }
    if (epoch->held_count > 1)
        qsort(epoch->held, epoch->held_count, sizeof(*epoch->held), compare_blocks);
}

bool qr_hold_holds(struct qr_epoch *epoch, const void *block)
{
    if (epoch->held_complete)
        return epoch->held_count > 0 &&
               bsearch(&block, epoch->held, epoch->held_count, sizeof(*epoch->held), compare_blocks) != NULL;
    for (struct qr_hold *hold = first_hold(epoch); hold != NULL; hold = hold->next) {
        if (held_block(hold) == block)
            return true;
    }
    return false;
}

void qr_hold_destroy_all(struct qr_epoch *epoch)
{
    for (struct qr_hold *hold = first_hold(epoch); hold != NULL;) {
        struct qr_hold *next = hold->next;
        qr_free_aligned(hold);
        hold = next;
    }
    qr_free(epoch->held);
}
