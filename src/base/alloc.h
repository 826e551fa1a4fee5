/*
 * The general allocator of the library, chosen when it is built: jemalloc or the system's.
 *
 * Layer 0 (base). For handles, tables and buffers; pages come from the arena. Any thread. A block is freed by the
 * function of its pair: qr_free for the first three, qr_free_aligned for qr_malloc_aligned. Blocks do not count against
 * a memory limit here; callers account for what they keep.
 *
 * NULL means that there is no memory, never that size was 0: a block of size 0 is a valid pointer.
 */
#ifndef QR_BASE_ALLOC_H
#define QR_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *qr_malloc(size_t size);

/* count * size zero bytes; NULL also if the product overflows. */
void *qr_calloc(size_t count, size_t size);

/* memory NULL: as qr_malloc. On NULL the old block is unchanged and still the caller's. */
void *qr_realloc(void *memory, size_t size);

/* For a list that grows at its end: `list`, of `count` items, if it has room for one more, else a larger one in its place (*room: how
 * many items it has room for; NULL, 0, &room is an empty list). On NULL nothing has changed. */
void *qr_grow(void *list, uint64_t count, uint64_t *room, size_t item_size);

/* NULL is fine. */
void qr_free(void *memory);

/* alignment: a power of two. */
void *qr_malloc_aligned(size_t alignment, size_t size);

/* NULL is fine. */
void qr_free_aligned(void *memory);

/* Memory for a large buffer of a short life: whole pages of zeros, which go back to the system at once. size:
 * not 0. */
void *qr_map_buffer(size_t size);

/* A part of a buffer, or other memory, is going to be written: has the system put memory behind it at once, which costs less than a fault for each
 * page. */
void qr_touch_buffer(void *memory, size_t size);

/* NULL is fine. */
void qr_unmap_buffer(void *memory, size_t size);

/* ---- Planned failures, in the testing library ------------------------------------------------------------------- */

#ifdef QR_TESTING
/*
 * Lets the n-th allocation from now on fail (1 = the next one), once, whichever thread makes it; -1 = none. Every
 * function above that can return NULL counts, and whatever else asks qr_alloc_must_fail: the arena for its addresses,
 * chunks, magazines and blocks, the mapping table for its words and for each id, the start of a thread.
 */
void qr_alloc_fail_after(int64_t n);

/* The same for the n-th and all that come after it, until the next plan. */
void qr_alloc_fail_from(int64_t n);

/* Allocations still to come until the planned failure, that one included; 0 = it has happened or none is planned. */
int64_t qr_alloc_fail_pending(void);

/* Counts one allocation of whoever does not call the functions above for it. True: it must fail. */
bool qr_alloc_must_fail(void);

/* Blocks of the functions above that were handed out and not freed. Exact when nobody allocates or frees meanwhile. */
int64_t qr_alloc_live_count(void);

/* Bytes of the largest block that was asked for since the last call of this. */
uint64_t qr_alloc_largest_size(void);
#else
static inline bool qr_alloc_must_fail(void)
{
    return false;
}
#endif

#endif
