/*
 * The general allocator: jemalloc's extended interface (QR_JEMALLOC) or the C library's functions.
 *
 * Layer 0 (base). Any thread; waits for nothing but the allocator below. The testing library counts allocations down to
 * a planned failure, and the blocks that are not freed yet.
 */
#include "base/alloc.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

#ifdef QR_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

/* ---- Planned failures ------------------------------------------------------------------------------------------- */

#ifdef QR_TESTING

#include <stdatomic.h>

/* Allocations until the one that fails, that one included; at or below 0 = none planned. */
static _Atomic int64_t fail_countdown = -1;

void qr_alloc_fail_after(int64_t n)
{
    /* relaxed: a plan concerns allocations that the caller has ordered after this call */
    atomic_store_explicit(&fail_countdown, n, memory_order_relaxed);
}

int64_t qr_alloc_fail_pending(void)
{
    /* relaxed: the caller has ordered the allocations that it asks about before this call */
    int64_t pending = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    return pending > 0 ? pending : 0;
}

static int must_fail(void)
{
    /* relaxed: whether a plan exists; threads that race with its end count below 0, which is none planned */
    if (QR_LIKELY(atomic_load_explicit(&fail_countdown, memory_order_relaxed) <= 0))
        return 0;
    /* relaxed: the subtraction is atomic, so exactly one thread takes the last count */
    return atomic_fetch_sub_explicit(&fail_countdown, 1, memory_order_relaxed) == 1;
}

static _Atomic int64_t live_count;

int64_t qr_alloc_live(void)
{
    /* relaxed: the caller has ordered the calls that it asks about before this one */
    return atomic_load_explicit(&live_count, memory_order_relaxed);
}

/* Counts a block that was handed out. */
static void *counted(void *memory)
{
    /* relaxed: a count */
    if (memory != NULL)
        atomic_fetch_add_explicit(&live_count, 1, memory_order_relaxed); /* relaxed: as said */
    return memory;
}

static void count_freed(const void *memory)
{
    /* relaxed: a count */
    if (memory != NULL)
        atomic_fetch_sub_explicit(&live_count, 1, memory_order_relaxed); /* relaxed: as said */
}

#else

static inline int must_fail(void)
{
    return 0;
}

static inline void *counted(void *memory)
{
    return memory;
}

static inline void count_freed(const void *memory)
{
    (void)memory;
}

#endif

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
    return must_fail() ? NULL : counted(allocate(size, 0));
}

void *qr_calloc(size_t count, size_t size)
{
    size_t total;
    if (must_fail() || __builtin_mul_overflow(count, size, &total))
        return NULL;
    return counted(allocate_zeroed(total));
}

void *qr_realloc(void *memory, size_t size)
{
    if (must_fail())
        return NULL;
    return memory != NULL ? reallocate(memory, size) : counted(reallocate(NULL, size));
}

void qr_free(void *memory)
{
    count_freed(memory);
    release(memory);
}

void *qr_malloc_aligned(size_t alignment, size_t size)
{
    QR_ASSERT(alignment != 0 && (alignment & (alignment - 1)) == 0);
    return must_fail() ? NULL : counted(allocate_aligned(alignment, size));
}

void qr_free_aligned(void *memory)
{
    count_freed(memory);
    release(memory);
}
