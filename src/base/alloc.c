/*
 * The general allocator: jemalloc's extended interface (QR_JEMALLOC) or the C library's functions.
 *
 * Layer 0 (base). Any thread; waits for nothing but the allocator below. The testing library counts allocations down to
 * a planned failure, and the blocks that are in use.
 */
#include "base/alloc.h"

#include "base/check.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <string.h>

#define LEAST_ITEMS 16u /* of a list that grows */

#ifdef QR_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

/* ---- Planned failures ------------------------------------------------------------------------------------------- */

#ifdef QR_TESTING

#include <stdatomic.h>

/* Allocations until the one that fails, that one included; at or below 0 = none to come. */
static _Atomic int64_t fail_countdown = -1;
static _Atomic bool fail_for_good; /* the plan: it and all after it */
static _Atomic bool failing;       /* such a plan has come to its failure */
static _Atomic int64_t live_count;
static _Atomic uint64_t largest_size;

static void plan(int64_t n, bool for_good)
{
    /* relaxed: a plan concerns allocations that the caller has ordered after this call */
    atomic_store_explicit(&failing, false, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&fail_for_good, for_good, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&fail_countdown, n, memory_order_relaxed);
}

void qr_alloc_fail_after(int64_t n)
{
    plan(n, false);
}

void qr_alloc_fail_from(int64_t n)
{
    plan(n, true);
}

int64_t qr_alloc_fail_pending(void)
{
    /* relaxed: the caller has ordered the allocations that it asks about before this call */
    int64_t pending = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    return pending > 0 ? pending : 0;
}

bool qr_alloc_must_fail(void)
{
    /* relaxed: whether a plan exists; threads that race with its end count below 0, which is none planned */
    if (QR_LIKELY(atomic_load_explicit(&fail_countdown, memory_order_relaxed) <= 0))
        /* relaxed: the flag alone; a thread that races with the failure may be a little late */
        return atomic_load_explicit(&failing, memory_order_relaxed);
    /* relaxed: the subtraction is atomic, so exactly one thread takes the last count */
    if (atomic_fetch_sub_explicit(&fail_countdown, 1, memory_order_relaxed) != 1)
        return false;
    /* relaxed: as above */
    atomic_store_explicit(&failing, atomic_load_explicit(&fail_for_good, memory_order_relaxed), memory_order_relaxed);
    return true;
}

int64_t qr_alloc_live_count(void)
{
    /* relaxed: a sum */
    return atomic_load_explicit(&live_count, memory_order_relaxed);
}

uint64_t qr_alloc_largest_size(void)
{
    /* relaxed: a gauge */
    return atomic_exchange_explicit(&largest_size, 0, memory_order_relaxed);
}

static void note_size(uint64_t size)
{
    /* relaxed: a gauge */
    uint64_t largest = atomic_load_explicit(&largest_size, memory_order_relaxed);
    /* relaxed: as above; a failure loads the present one */
    while (size > largest && !atomic_compare_exchange_weak_explicit(&largest_size, &largest, size, memory_order_relaxed,
                                                                    memory_order_relaxed))
        continue;
}

static void count_live(int64_t delta)
{
    /* relaxed: a sum */
    atomic_fetch_add_explicit(&live_count, delta, memory_order_relaxed);
}

#else

static inline void count_live(int64_t delta)
{
    (void)delta;
}

static inline void note_size(uint64_t size)
{
    (void)size;
}

#endif

/* Whether an allocation of that size is to fail. */
static inline bool refused(uint64_t size)
{
    note_size(size);
    return qr_alloc_must_fail();
}

/* Counts a block that is there. */
static inline void *counted(void *memory)
{
    if (memory != NULL)
        count_live(1);
    return memory;
}

/* ---- jemalloc --------------------------------------------------------------------------------------------------- */

#ifdef QR_JEMALLOC

/* mallocx does not take a size of 0. */
static void *allocate(size_t size, int flags)
{
    return mallocx(size != 0 ? size : 1, flags);
}

static void *allocate_zeroed(size_t size)
{
    return allocate(size, MALLOCX_ZERO);
}

static void *allocate_aligned(size_t alignment, size_t size)
{
    return allocate(size, MALLOCX_ALIGN(alignment));
}

static void *reallocate(void *memory, size_t size)
{
    return memory != NULL ? rallocx(memory, size != 0 ? size : 1, 0) : allocate(size, 0);
}

static void release(void *memory)
{
    if (memory != NULL)
        dallocx(memory, 0);
}

/* ---- The system's allocator ------------------------------------------------------------------------------------- */

#else

/* malloc(0) may be NULL, which would read as no memory. */
static void *allocate(size_t size, int flags)
{
    (void)flags;
    return malloc(size != 0 ? size : 1);
}

static void *allocate_zeroed(size_t size)
{
    return calloc(1, size != 0 ? size : 1);
}

static void *allocate_aligned(size_t alignment, size_t size)
{
    void *memory = NULL;
    if (alignment < sizeof(void *))
        alignment = sizeof(void *);
    return posix_memalign(&memory, alignment, size != 0 ? size : 1) == 0 ? memory : NULL;
}

static void *reallocate(void *memory, size_t size)
{
    return realloc(memory, size != 0 ? size : 1);
}

static void release(void *memory)
{
    free(memory);
}

#endif

/* ---- The interface ---------------------------------------------------------------------------------------------- */

void *qr_malloc(size_t size)
{
    return refused(size) ? NULL : counted(allocate(size, 0));
}

void *qr_calloc(size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total) || refused(total)) return NULL;
    return counted(allocate_zeroed(total));
}

void *qr_realloc(void *memory, size_t size)
{
    if (refused(size)) return NULL;
    return memory == NULL ? counted(reallocate(NULL, size)) : reallocate(memory, size);
}

void *qr_grow(void *list, uint64_t count, uint64_t *room, size_t item_size)
{
    if (count < *room) return list;
    uint64_t larger = *room == 0 ? LEAST_ITEMS : *room * 2;
    void *grown = qr_realloc(list, larger * item_size);
    if (grown != NULL) *room = larger;
    return grown;
}

void qr_free(void *memory)
{
    if (memory != NULL)
        count_live(-1);
    release(memory);
}

void *qr_malloc_aligned(size_t alignment, size_t size)
{
    QR_ASSERT(alignment != 0 && (alignment & (alignment - 1)) == 0);
    return refused(size) ? NULL : counted(allocate_aligned(alignment, size));
}

void qr_free_aligned(void *memory)
{
    qr_free(memory);
}

void *qr_map_buffer(size_t size)
{
    if (qr_alloc_must_fail()) return NULL;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    return counted(memory);
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

void qr_touch_buffer(void *memory, size_t size)
{
    const uintptr_t page = 4096;
    uintptr_t from = (uintptr_t)memory & ~(page - 1);
    (void)madvise((void *)from, ((uintptr_t)memory + size - from + page - 1) & ~(page - 1), MADV_POPULATE_WRITE); /* older kernels refuse: fine */
}

void qr_unmap_buffer(void *memory, size_t size)
{
    if (memory == NULL) return;
    count_live(-1);
    munmap(memory, size);
}
