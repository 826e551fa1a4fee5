/*
 * Retiring and reclaiming: batches, the queue, and the round.
 * Layer 1 (epoch). Read epoch.h and internal.h first.
 *
 * A round, in phases:
 *   1. take   of each record's batch, note how far it is filled; then take the whole queue
 *   2. wait   one grace period: every section that was open at its begin has ended
 *   3. scan   load the holds
 *   4. free   what was taken and is in no hold; the rest stays for the next round
 *
 * Why nothing is freed early. Whoever retires X has unlinked it before. The entry of X is published after that
 * (epoch.retired, or epoch.queue_push) and taken before the grace period begins. A section that can find X began before
 * X was unlinked, so before the grace period, which therefore waits for it. What is retired after phase 1 is not
 * touched by this round.
 *
 * Why no batch is used after it was freed. Only the reclaimer frees batches, after it took them from the queue. The
 * thread takes a full batch out of its record first and pushes it then (epoch.queue_push), so a reclaimer that got it
 * from the queue does not find it in the record any more. Phase 1 looks at the records first: a batch that is handed
 * over between the two looks is found twice in one round, as a range and as a whole, and freed at the end of that
 * round.
 *
 *   thread:     [record has B]---------->[record empty]--epoch.batch_detached--[B in queue]
 *   reclaimer:       sees a range of B        sees nothing: entries wait             takes B whole
 *
 * A thread stopped at epoch.batch_detached keeps at most one batch from being reclaimed. A thread stopped in a round
 * keeps everybody from reclaiming, and from nothing else: reads and writes go on until memory ends. A section that does
 * not end has the same effect.
 *
 * The queue is a stack that is pushed one by one and taken whole, so it has no ABA problem.
 */
#include "epoch/internal.h"

#include <quire/quire.h>

#include "base/alloc.h"
#include "base/counters.h"
#include "base/stop.h"

/* ---- Batches ---------------------------------------------------------------------------------------------------- */

static struct qr_retire_batch *batch_make(struct qr_thread *thread)
{
    struct qr_retire_batch *batch = qr_malloc(sizeof(*batch));

    if (batch == NULL)
        return NULL;
    batch->next = NULL;
    batch->thread = thread;
    batch->bytes = 0;
    batch->held = 0;
    batch->taken = 0;
    /* relaxed: nobody else knows the batch */
    atomic_init(&batch->count, 0);
    return batch;
}

/* Back to the record that it was made for, or to the allocator. */
static void batch_recycle(struct qr_retire_batch *batch)
{
    struct qr_retire_batch *none = NULL;

    batch->next = NULL;
    batch->bytes = 0;
    batch->held = 0;
    batch->taken = 0;
    /* relaxed: published by the exchange below */
    atomic_store_explicit(&batch->count, 0, memory_order_relaxed);
    /* order: epoch.spare_give publishes the empty batch, pairs with epoch.spare_take; relaxed: a failure reads nothing
     */
    if (!atomic_compare_exchange_strong_explicit(&batch->thread->spare, &none, batch, memory_order_release,
                                                 memory_order_relaxed))
        qr_free(batch);
}

QR_COLD int qr_epoch_prepare_slow(struct qr_thread *thread)
{
    struct qr_retire_batch *batch = batch_make(thread);

    if (batch == NULL)
        return QUIRE_ERR_NO_MEMORY;
    batch_recycle(batch);
    return 0;
}

static struct qr_retire_batch *batch_begin(struct qr_thread *thread)
{
    /* order: epoch.spare_take takes over the empty batch, pairs with epoch.spare_give */
    struct qr_retire_batch *batch = atomic_exchange_explicit(&thread->spare, NULL, memory_order_acquire);

    if (batch == NULL)
        batch = batch_make(thread);
    if (batch != NULL) {
        /* order: epoch.batch_begin publishes the empty batch, pairs with epoch.batch_seen */
        atomic_store_explicit(&thread->batch, batch, memory_order_release);
    }
    return batch;
}

static QR_NOINLINE void batch_hand_over(struct qr_thread *thread, struct qr_retire_batch *batch)
{
    struct qr_epoch *epoch = thread->epoch;

    /* relaxed: the push publishes it; until then the reclaimer may still take a range of the batch */
    atomic_store_explicit(&thread->batch, NULL, memory_order_relaxed);
    QR_STOP("epoch.batch_detached");
    /* relaxed: a threshold */
    atomic_fetch_add_explicit(&epoch->queued_bytes, batch->bytes, memory_order_relaxed);
    /* relaxed: the compare-and-swap fails if it is stale */
    batch->next = atomic_load_explicit(&epoch->queue, memory_order_relaxed);
    /* order: epoch.queue_push publishes the batch, and that the record has it no more, pairs with epoch.queue_take */
    while (!atomic_compare_exchange_weak_explicit(&epoch->queue, &batch->next, batch, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

/* ---- Retiring --------------------------------------------------------------------------------------------------- */

void qr_epoch_retire(struct qr_thread *thread, unsigned kind, void *pointer, uint64_t size)
{
    /* relaxed: only this thread writes it */
    struct qr_retire_batch *batch = atomic_load_explicit(&thread->batch, memory_order_relaxed);

    QR_ASSERT(kind <= QR_RETIRE_KIND_MAX);
    if (QR_UNLIKELY(batch == NULL) && (batch = batch_begin(thread)) == NULL) {
        qr_counter_add(&thread->lost_bytes, size);
        return;
    }
    /* relaxed: only this thread writes it */
    uint32_t count = atomic_load_explicit(&batch->count, memory_order_relaxed);
    batch->entries[count] = (struct qr_retire_entry){pointer, size << 8 | kind};
    batch->bytes += size;
    qr_counter_add(&thread->retired_bytes, size);
    qr_counter_add(&thread->retired_count, 1);
    /* order: epoch.retired publishes the entry, and the unlinking before it, pairs with epoch.count_seen */
    atomic_store_explicit(&batch->count, count + 1, memory_order_release);
    if (QR_UNLIKELY(count + 1 == QR_RETIRE_BATCH_COUNT))
        batch_hand_over(thread, batch);
    /* relaxed: with a spare the next batch is certain, so this one may go early */
    else if (QR_UNLIKELY(batch->bytes >= QR_RETIRE_BATCH_BYTES) &&
             atomic_load_explicit(&thread->spare, memory_order_relaxed) != NULL) /* relaxed: as said */
        batch_hand_over(thread, batch);
}

/* ---- Phase 1: take ---------------------------------------------------------------------------------------------- */

/* Notes what a record's batch holds now. True if there is something new. */
static bool take_range(struct qr_thread *thread)
{
    /* order: epoch.batch_seen finds the batch made ready, pairs with epoch.batch_begin */
    struct qr_retire_batch *batch = atomic_load_explicit(&thread->batch, memory_order_acquire);

    thread->taken_batch = batch;
    if (batch == NULL)
        return false;
    /* order: epoch.count_seen reads entries below the count, pairs with epoch.retired */
    thread->taken_end = atomic_load_explicit(&batch->count, memory_order_acquire);
    return thread->taken_end > batch->taken;
}

static bool round_take(struct qr_epoch *epoch)
{
    bool found = false;

    for (struct qr_thread *thread = qr_thread_first(epoch); thread != NULL; thread = qr_thread_next(thread))
        found |= take_range(thread);
    QR_STOP("epoch.ranges_taken");
    /* order: epoch.queue_take takes over the batches, pairs with epoch.queue_push */
    epoch->taken = atomic_exchange_explicit(&epoch->queue, NULL, memory_order_acquire);
    return found || epoch->taken != NULL;
}

/* ---- Phase 2: wait ---------------------------------------------------------------------------------------------- */

static void round_wait(struct qr_epoch *epoch)
{
    if (QR_BUG(reclaim_without_grace))
        return;
    urcu_bp_synchronize_rcu();
#ifdef QR_EPOCH_TSAN
    for (struct qr_thread *thread = qr_thread_first(epoch); thread != NULL; thread = qr_thread_next(thread))
        __tsan_acquire(thread);
#else
    (void)epoch;
#endif
}

/* ---- Phase 4: free ---------------------------------------------------------------------------------------------- */

static void reclaim_entry(struct qr_epoch *epoch, struct qr_thread *self, struct qr_retire_entry entry)
{
    unsigned kind = (unsigned)(entry.word & 0xff);
    uint64_t size = entry.word >> 8;

    if (kind == QR_RETIRE_BLOCK)
        qr_arena_free(epoch->arena, &self->cache, entry.pointer, (size_t)size);
    else
        epoch->ops->reclaim(epoch->context, self, kind, entry.pointer, size);
    qr_counter_add(&epoch->reclaimed_bytes, size);
    qr_counter_add(&epoch->reclaimed_count, 1);
}

/* Reclaims what was held before and [taken, end); what is in holds now moves to the front. Gives the number reclaimed.
 */
static uint32_t reclaim_batch(struct qr_epoch *epoch, struct qr_thread *self, struct qr_retire_batch *batch,
                              uint32_t end)
{
    uint32_t visited = 0;
    uint32_t kept = 0;
    uint32_t i = 0;

    while ((i = i == batch->held && i < batch->taken ? batch->taken : i) < end) {
        struct qr_retire_entry entry = batch->entries[i++];
        visited++;
        if (qr_hold_holds(epoch, entry.pointer)) {
            batch->entries[kept++] = entry;
            epoch->kept_bytes += entry.word >> 8;
        } else {
            reclaim_entry(epoch, self, entry);
        }
    }
    batch->held = kept;
    batch->taken = end;
    return visited - kept;
}

/* A list of whole batches: what is empty afterwards is recycled, what is not waits among the deferred ones. */
static uint64_t reclaim_list(struct qr_epoch *epoch, struct qr_thread *self, struct qr_retire_batch *list)
{
    uint64_t reclaimed = 0;

    while (list != NULL) {
        struct qr_retire_batch *batch = list;
        list = list->next;
        /* relaxed: the batch came whole from the queue */
        reclaimed += reclaim_batch(epoch, self, batch, atomic_load_explicit(&batch->count, memory_order_relaxed));
        if (batch->held == 0) {
            batch_recycle(batch);
        } else {
            batch->next = epoch->deferred;
            epoch->deferred = batch;
        }
    }
    return reclaimed;
}

static uint64_t round_free(struct qr_epoch *epoch, struct qr_thread *self)
{
    struct qr_retire_batch *deferred = epoch->deferred;
    struct qr_retire_batch *taken = epoch->taken;
    uint64_t reclaimed = 0;

    epoch->deferred = NULL;
    epoch->taken = NULL;
    epoch->kept_bytes = 0;
    for (struct qr_thread *thread = qr_thread_first(epoch); thread != NULL; thread = qr_thread_next(thread)) {
        if (thread->taken_batch != NULL)
            reclaimed += reclaim_batch(epoch, self, thread->taken_batch, thread->taken_end);
        thread->taken_batch = NULL;
    }
    for (struct qr_retire_batch *batch = taken; batch != NULL; batch = batch->next) {
        /* relaxed: a threshold */
        atomic_fetch_sub_explicit(&epoch->queued_bytes, batch->bytes, memory_order_relaxed);
    }
    reclaimed += reclaim_list(epoch, self, deferred);
    reclaimed += reclaim_list(epoch, self, taken);
    /* relaxed: a gauge */
    atomic_store_explicit(&epoch->held_bytes, epoch->kept_bytes, memory_order_relaxed);
    return reclaimed;
}

/* ---- The round -------------------------------------------------------------------------------------------------- */

bool qr_epoch_reclaim(struct qr_epoch *epoch, struct qr_thread *self)
{
    uint64_t reclaimed;

    QR_ASSERT(self->nesting == 0);
    QR_ASSERT(!self->in_reclaim);
    if (qr_epoch_inside_any())
        return false;
    /* order: epoch.round_begin takes over the reclaimer's fields, pairs with epoch.round_end */
    if (atomic_exchange_explicit(&epoch->reclaiming, 1, memory_order_acquire) != 0)
        return qr_epoch_retired_bytes(epoch) > 0;
    self->in_reclaim = true;
    if (round_take(epoch)) {
        QR_STOP("epoch.round_taken");
        round_wait(epoch);
        qr_counter_add(&epoch->rounds, 1);
    }
    QR_STOP("epoch.grace_over");
    qr_hold_collect(epoch);
    reclaimed = round_free(epoch, self);
    self->in_reclaim = false;
    /* order: epoch.round_end publishes the reclaimer's fields, pairs with epoch.round_begin */
    atomic_store_explicit(&epoch->reclaiming, 0, memory_order_release);
    return reclaimed > 0;
}

void qr_reclaim_all(struct qr_epoch *epoch, struct qr_thread *self)
{
    /* No holds count any more. Callbacks may retire further things, so: until nothing is left. */
    epoch->held_count = 0;
    epoch->held_complete = true;
    do {
        (void)round_take(epoch);
    } while (round_free(epoch, self) > 0);
    for (struct qr_thread *thread = qr_thread_first(epoch); thread != NULL; thread = qr_thread_next(thread)) {
        /* relaxed: the caller is alone */
        qr_free(atomic_load_explicit(&thread->batch, memory_order_relaxed));
        /* relaxed: the caller is alone */
        qr_free(atomic_load_explicit(&thread->spare, memory_order_relaxed));
    }
}
