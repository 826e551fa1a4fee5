/*
 * The arena's reserved addresses, its chunks, the limit, and large blocks.
 * Layer 0 (base).
 *
 * Addresses are reserved without memory or rights; a chunk is made writable when it is first handed out. Chunks come
 * from the stack of returned ones, else from the end of the part used so far. Any thread, lock-free apart from what the
 * kernel does in mprotect, madvise, mmap and munmap.
 *
 * A large block is a mapping of its own: a header line, then the block. The header names a magazine entry that
 * describes the mapping, so that destruction finds the ones still in use.
 */
#include "base/arena_internal.h"

#include <string.h>
#include <sys/mman.h>

#include <quire/quire.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

enum {
    HUGE_FIRST_CHUNK = 2,         /* small stores stay small */
    HUGE_LIMIT_BYTES = 256 << 20, /* with a smaller limit huge pages would make memory coarse */
    RESERVE_MIN_BYTES = 1 << 20
};

#if defined(QR_ARENA_TSAN) || defined(QR_ARENA_ASAN)
static const size_t region_max_bytes = (size_t)64 << 30;
#else
static const size_t region_max_bytes = (size_t)1 << 40;
#endif
static const size_t region_min_bytes = (size_t)4 << 30;
static const size_t region_small_bytes = (size_t)64 << 30; /* for small chunks: the table of chunks stays small */

/* ---- Reserved addresses ----------------------------------------------------------------------------------------- */

/* One reservation: region (aligned by cutting), table of magazines, table of chunks, bits for the trim. */
static bool reserve_bytes(struct qr_arena *arena, size_t region_bytes)
{
    size_t chunk_count = region_bytes / arena->chunk_bytes;
    size_t magazines_bytes = region_bytes / 64 > ((size_t)4 << 30) ? (size_t)4 << 30 : region_bytes / 64;
    size_t chunks_bytes = (chunk_count * sizeof(struct qr_arena_chunk) + 4095) & ~(size_t)4095;
    size_t bits_bytes = region_bytes / QR_ARENA_ALIGNMENT_BYTES / 8;
    size_t all_bytes = region_bytes + arena->chunk_bytes + magazines_bytes + chunks_bytes + bits_bytes;
    char *all = mmap(NULL, all_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (all == MAP_FAILED)
        return false;
    uintptr_t cut = (uintptr_t)all & (arena->chunk_bytes - 1);
    arena->region = all + (cut == 0 ? 0 : arena->chunk_bytes - cut);
    arena->magazines = all + region_bytes + arena->chunk_bytes;
    arena->chunks = arena->magazines + magazines_bytes;
    arena->bits = (uint64_t *)(void *)(arena->chunks + chunks_bytes);
    arena->chunk_limit = (uint32_t)chunk_count;
    arena->magazine_limit = (uint32_t)(magazines_bytes / sizeof(struct qr_arena_magazine));
    arena->reserved = all;
    arena->reserved_bytes = all_bytes;
    if (mprotect(arena->chunks, chunks_bytes, PROT_READ | PROT_WRITE) == 0)
        return true;
    munmap(all, all_bytes);
    return false;
}

int qr_arena_reserve(struct qr_arena *arena, size_t chunk_bytes)
{
    size_t region_bytes = chunk_bytes < HUGE_PAGE_BYTES ? region_small_bytes : region_max_bytes;

    arena->chunk_bytes = chunk_bytes;
    for (; region_bytes >= region_min_bytes; region_bytes /= 2) {
        if (reserve_bytes(arena, region_bytes))
            return 0;
    }
    return QUIRE_ERR_NO_MEMORY;
}

void qr_arena_unreserve(struct qr_arena *arena)
{
    /* relaxed: the caller is alone */
    uint32_t magazine_count = atomic_load_explicit(&arena->magazine_count, memory_order_relaxed);
    /* relaxed: likewise */
    uint32_t chunk_count = atomic_load_explicit(&arena->chunk_count, memory_order_relaxed);

    for (uint32_t number = 1; number <= magazine_count; number++) {
        struct qr_arena_magazine *magazine = qr_arena_magazine_at(arena, number);
        if (magazine->class_index == QR_ARENA_CLASS_COUNT)
            munmap(magazine->blocks[0], (size_t)(uintptr_t)magazine->blocks[1]);
    }
    QR_ARENA_UNPOISON(arena->region, (size_t)chunk_count * arena->chunk_bytes);
    munmap(arena->reserved, arena->reserved_bytes);
}

/* ---- Limit ------------------------------------------------------------------------------------------------------ */

bool qr_arena_charge_within(struct qr_arena *arena, uint64_t size_bytes, bool use_reserve)
{
    /* relaxed: a limit set a moment ago may hold from the next call on */
    uint64_t limit = atomic_load_explicit(&arena->limit_bytes, memory_order_relaxed);
    /* relaxed: the compare-and-swap fails if it is stale */
    uint64_t total = atomic_load_explicit(&arena->total_bytes, memory_order_relaxed);
    uint64_t allowed = limit == 0 ? UINT64_MAX : limit;

    if (limit != 0 && use_reserve)
        allowed += limit / 16 > RESERVE_MIN_BYTES ? limit / 16 : RESERVE_MIN_BYTES;
    do {
        if (total > allowed || size_bytes > allowed - total)
            return false;
        /* relaxed: a sum; it publishes no memory */
    } while (!atomic_compare_exchange_weak_explicit(&arena->total_bytes, &total, total + size_bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void add(_Atomic uint64_t *sum, uint64_t amount)
{
    /* relaxed: a sum; it publishes no memory */
    atomic_fetch_add_explicit(sum, amount, memory_order_relaxed);
}

static void subtract(_Atomic uint64_t *sum, uint64_t amount)
{
    /* relaxed: a sum; it publishes no memory */
    atomic_fetch_sub_explicit(sum, amount, memory_order_relaxed);
}

/* ---- Chunks ----------------------------------------------------------------------------------------------------- */

struct qr_arena_chunk *qr_arena_chunk_at(struct qr_arena *arena, uint32_t number)
{
    return (struct qr_arena_chunk *)(void *)arena->chunks + (number - 1);
}

char *qr_arena_chunk_memory(struct qr_arena *arena, uint32_t number)
{
    return arena->region + (size_t)(number - 1) * arena->chunk_bytes;
}

void qr_arena_partial_give(struct qr_arena *arena, char *begin, char *end)
{
    struct qr_arena_chunk *chunk = qr_arena_chunk_of(arena, begin);
    uint32_t number = (uint32_t)(chunk - qr_arena_chunk_at(arena, 1)) + 1;

    QR_ASSERT(begin < end);
    QR_ASSERT(end == qr_arena_chunk_memory(arena, number) + arena->chunk_bytes);
    chunk->carved_bytes = (uint32_t)(begin - qr_arena_chunk_memory(arena, number));
    /* relaxed: a count by which others decide whether to prepare more */
    atomic_fetch_add_explicit(&arena->partial_count, 1, memory_order_relaxed);
    qr_arena_stack_push(&arena->partial_chunks, arena->chunks, sizeof(*chunk), number);
}

char *qr_arena_partial_take(struct qr_arena *arena, char **ret_end)
{
    uint32_t number = qr_arena_stack_pop(&arena->partial_chunks, arena->chunks, sizeof(struct qr_arena_chunk));

    if (number == 0)
        return NULL;
    /* relaxed: as above */
    atomic_fetch_sub_explicit(&arena->partial_count, 1, memory_order_relaxed);
    *ret_end = qr_arena_chunk_memory(arena, number) + arena->chunk_bytes;
    return qr_arena_chunk_memory(arena, number) + qr_arena_chunk_at(arena, number)->carved_bytes;
}

struct qr_arena_chunk *qr_arena_chunk_of(struct qr_arena *arena, const void *block)
{
    size_t offset = (size_t)((const char *)block - arena->region);
    QR_ASSERT(offset / arena->chunk_bytes < arena->chunk_limit);
    return qr_arena_chunk_at(arena, (uint32_t)(offset / arena->chunk_bytes) + 1);
}

static uint32_t chunk_number_take(struct qr_arena *arena)
{
    uint32_t number = qr_arena_stack_pop(&arena->free_chunks, arena->chunks, sizeof(struct qr_arena_chunk));
    if (number != 0)
        return number;

    /* relaxed: the compare-and-swap fails if it is stale */
    uint32_t count = atomic_load_explicit(&arena->chunk_count, memory_order_relaxed);
    do {
        if (count >= arena->chunk_limit)
            return 0;
        /* relaxed: hands out a number; nobody else has seen the chunk */
    } while (!atomic_compare_exchange_weak_explicit(&arena->chunk_count, &count, count + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return count + 1;
}

uint32_t qr_arena_bits_prepare(struct qr_arena *arena, uint32_t count)
{
    size_t each_bytes = arena->chunk_bytes / QR_ARENA_ALIGNMENT_BYTES / 8;
    size_t per_page = QR_ARENA_OS_PAGE_BYTES / each_bytes; /* at least 1: a chunk is at most 2 MiB */
    size_t wanted = (count + per_page - 1) / per_page * per_page;

    if (count <= arena->bits_chunks)
        return count;
    if (mprotect(arena->bits, wanted * each_bytes, PROT_READ | PROT_WRITE) != 0)
        return arena->bits_chunks;
    arena->bits_chunks = (uint32_t)wanted;
    return count;
}

static bool chunk_make_writable(struct qr_arena *arena, uint32_t number)
{
    struct qr_arena_chunk *chunk = qr_arena_chunk_at(arena, number);
    char *memory = qr_arena_chunk_memory(arena, number);
    /* relaxed: huge pages are a matter of speed */
    uint64_t limit = atomic_load_explicit(&arena->limit_bytes, memory_order_relaxed);

    if (chunk->writable)
        return true;
    if (mprotect(memory, arena->chunk_bytes, PROT_READ | PROT_WRITE) != 0)
        return false;
    if (arena->chunk_bytes == HUGE_PAGE_BYTES && number > HUGE_FIRST_CHUNK && (limit == 0 || limit >= HUGE_LIMIT_BYTES))
        (void)madvise(memory, arena->chunk_bytes, MADV_HUGEPAGE); /* refused where there are none: fine */
    chunk->writable = true;
    return true;
}

char *qr_arena_chunk_take(struct qr_arena *arena, bool use_reserve)
{
    uint32_t number;

    if (!qr_arena_charge_within(arena, arena->chunk_bytes, use_reserve))
        return NULL;
    number = chunk_number_take(arena);
    if (number == 0)
        goto charged;
    if (!chunk_make_writable(arena, number))
        goto taken;
    add(&arena->carved_bytes, arena->chunk_bytes);
    QR_ARENA_POISON(qr_arena_chunk_memory(arena, number), arena->chunk_bytes);
    return qr_arena_chunk_memory(arena, number);

taken:
    qr_arena_stack_push(&arena->free_chunks, arena->chunks, sizeof(struct qr_arena_chunk), number);
charged:
    subtract(&arena->total_bytes, arena->chunk_bytes);
    return NULL;
}

bool qr_arena_prepare(struct qr_arena *arena, unsigned enough)
{
#ifdef MADV_POPULATE_WRITE
    /* relaxed: one chunk more or less makes no difference */
    if (atomic_load_explicit(&arena->partial_count, memory_order_relaxed) >= enough)
        return false;
    char *chunk = qr_arena_chunk_take(arena, false);
    if (chunk == NULL)
        return false;
    (void)madvise(chunk, arena->chunk_bytes, MADV_POPULATE_WRITE); /* refused by old kernels: it is only slower then */
    qr_arena_partial_give(arena, chunk, chunk + arena->chunk_bytes);
    return true;
#else
    (void)arena;
    (void)enough;
    return false;
#endif
}

uint64_t qr_arena_prepared_bytes(const struct qr_arena *arena)
{
    /* relaxed: a gauge; chunks with little room count like whole ones */
    return (uint64_t)atomic_load_explicit(&arena->partial_count, memory_order_relaxed) * arena->chunk_bytes;
}

void qr_arena_chunk_return(struct qr_arena *arena, uint32_t number)
{
    (void)madvise(qr_arena_chunk_memory(arena, number), arena->chunk_bytes, MADV_DONTNEED);
    qr_arena_stack_push(&arena->free_chunks, arena->chunks, sizeof(struct qr_arena_chunk), number);
    add(&arena->returned_bytes, arena->chunk_bytes);
    subtract(&arena->carved_bytes, arena->chunk_bytes);
    subtract(&arena->total_bytes, arena->chunk_bytes);
}

/* ---- Large blocks ----------------------------------------------------------------------------------------------- */

static size_t large_mapping_bytes(size_t usable_size)
{
    return (usable_size + QR_ARENA_LARGE_HEADER_BYTES + QR_ARENA_OS_PAGE_BYTES - 1) &
           ~(size_t)(QR_ARENA_OS_PAGE_BYTES - 1);
}

void *qr_arena_large_alloc(struct qr_arena *arena, size_t size, bool use_reserve, size_t *ret_usable_size)
{
    size_t usable_size = qr_arena_class_size(size);
    size_t mapping_bytes = large_mapping_bytes(usable_size);
    struct qr_arena_magazine *entry;
    char *mapping;

    if (usable_size < size || mapping_bytes < size || !qr_arena_charge_within(arena, mapping_bytes, use_reserve))
        return NULL;
    entry = qr_arena_magazine_take(arena, 0);
    if (entry == NULL)
        goto charged;
    mapping = mmap(NULL, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        goto taken;
    entry->class_index = QR_ARENA_CLASS_COUNT;
    entry->blocks[0] = mapping;
    entry->blocks[1] = (void *)(uintptr_t)mapping_bytes;
    memcpy(mapping, &entry->number, sizeof(entry->number));
    add(&arena->large_bytes, mapping_bytes);
    *ret_usable_size = usable_size;
    return mapping + QR_ARENA_LARGE_HEADER_BYTES;

taken:
    qr_arena_magazine_give(arena, entry);
charged:
    subtract(&arena->total_bytes, mapping_bytes);
    return NULL;
}

void qr_arena_large_free(struct qr_arena *arena, void *block, size_t usable_size)
{
    char *mapping = (char *)block - QR_ARENA_LARGE_HEADER_BYTES;
    size_t mapping_bytes = large_mapping_bytes(usable_size);
    struct qr_arena_magazine *entry;
    uint32_t number;

    memcpy(&number, mapping, sizeof(number));
    entry = qr_arena_magazine_at(arena, number);
    QR_ASSERT(entry->class_index == QR_ARENA_CLASS_COUNT);
    QR_ASSERT(entry->blocks[0] == mapping);
    QR_ASSERT((size_t)(uintptr_t)entry->blocks[1] == mapping_bytes);
    munmap(mapping, mapping_bytes);
    qr_arena_magazine_give(arena, entry);
    subtract(&arena->large_bytes, mapping_bytes);
    subtract(&arena->total_bytes, mapping_bytes);
}
