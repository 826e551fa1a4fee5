/*
 * Per-thread counters: one thread adds, anybody may read a value that is at most a moment old.
 *
 * Layer 0 (base).
 *
 * COUNTERS-1  A counter has one writing thread at a time; whoever hands it on orders the two by other means. So an
 *             addition is a plain load and store, no locked instruction.
 * COUNTERS-2  Counters order nothing: no reader concludes from a counter that some other memory may be read.
 *
 * Wait-free. Lay the counters of a thread on cache lines of their own (QR_CACHE_ALIGNED).
 */
#ifndef QR_BASE_COUNTERS_H
#define QR_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Owner only. */
static inline void qr_counter_add(_Atomic uint64_t *counter, uint64_t amount)
{
    /* relaxed: the owner reads its own last value; readers accept any earlier one */
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    /* relaxed: statistics only (COUNTERS-2) */
    atomic_store_explicit(counter, value + amount, memory_order_relaxed);
}

/* Owner only: a gauge beside the counters. */
static inline void qr_counter_set(_Atomic uint64_t *counter, uint64_t value)
{
    /* relaxed: as above */
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

/* Any thread. */
static inline uint64_t qr_counter_read(const _Atomic uint64_t *counter)
{
    /* relaxed: a stale value is an earlier count of the same counter */
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Adds count counters of one thread to the totals that the caller keeps, in order. Any thread. */
static inline void qr_counters_sum(uint64_t *totals, const _Atomic uint64_t *counters, size_t count)
{
    for (size_t i = 0; i < count; i++)
        totals[i] += qr_counter_read(&counters[i]);
}

#endif
