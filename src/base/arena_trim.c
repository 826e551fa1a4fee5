/*
 * Returning unused chunks of the arena to the operating system.
 * Layer 0 (base).
 *
 * TRIM-1  A chunk is returned only if free blocks that this trim has taken out of the depot add up to its size. By
 * ARENA-3 they then are all of it: no block of it is in use, in a cache, or still to be carved.
 *
 * In three passes: take every magazine of the depot and add up the free bytes of each chunk; drop the blocks of
 * complete chunks and put the other blocks back; return the complete chunks. One trim at a time; a second one leaves at
 * once. Others go on meanwhile: they find the depot empty and carve new chunks, if the limit lets them. A thread
 * stopped in here retains the blocks that it has taken and blocks nobody.
 */
#include "base/arena_internal.h"

static void count_free_bytes(struct qr_arena *arena, uint32_t first)
{
    for (uint32_t number = first; number != 0;) {
        struct qr_arena_magazine *magazine = qr_arena_magazine_at(arena, number);

        for (unsigned i = 0; i < magazine->count; i++)
            qr_arena_chunk_of(arena, magazine->blocks[i])->trim_bytes += qr_arena_class_bytes(magazine->class_index);
        /* relaxed: the list is this thread's */
        number = atomic_load_explicit(&magazine->next, memory_order_relaxed);
    }
}

static struct qr_arena_chunk *chunk_at(struct qr_arena *arena, uint32_t number)
{
    return (struct qr_arena_chunk *)(void *)arena->chunks + (number - 1);
}

static void count_uncarved_bytes(struct qr_arena *arena, uint32_t first)
{
    for (uint32_t number = first; number != 0;) {
        struct qr_arena_chunk *chunk = chunk_at(arena, number);
        chunk->trim_bytes += arena->chunk_bytes - chunk->carved_bytes;
        /* relaxed: the list is this thread's */
        number = atomic_load_explicit(&chunk->next, memory_order_relaxed);
    }
}

static void put_back_partial(struct qr_arena *arena, uint32_t first)
{
    for (uint32_t number = first; number != 0;) {
        struct qr_arena_chunk *chunk = chunk_at(arena, number);
        uint32_t this_number = number;
        /* relaxed: the list is this thread's until the push below */
        number = atomic_load_explicit(&chunk->next, memory_order_relaxed);
        if (chunk->trim_bytes < arena->chunk_bytes)
            qr_arena_stack_push(&arena->partial_chunks, arena->chunks, sizeof(*chunk), this_number);
        else /* relaxed: as in qr_arena_partial_give */
            atomic_fetch_sub_explicit(&arena->partial_count, 1, memory_order_relaxed);
    }
}

static void put_back_others(struct qr_arena *arena, uint32_t first)
{
    for (uint32_t number = first; number != 0;) {
        struct qr_arena_magazine *magazine = qr_arena_magazine_at(arena, number);
        uint16_t kept = 0;

        /* relaxed: the list is this thread's until the push below */
        number = atomic_load_explicit(&magazine->next, memory_order_relaxed);
        for (unsigned i = 0; i < magazine->count; i++) {
            if (qr_arena_chunk_of(arena, magazine->blocks[i])->trim_bytes < arena->chunk_bytes)
                magazine->blocks[kept++] = magazine->blocks[i];
        }
        magazine->count = kept;
        if (kept > 0)
            qr_arena_depot_give(arena, magazine);
        else
            qr_arena_magazine_give(arena, magazine);
    }
}

static uint64_t return_complete(struct qr_arena *arena)
{
    /* relaxed: chunks made since then cannot be complete here */
    uint32_t count = atomic_load_explicit(&arena->chunk_count, memory_order_relaxed);
    uint64_t returned_bytes = 0;

    for (uint32_t number = 1; number <= count; number++) {
        struct qr_arena_chunk *chunk = chunk_at(arena, number);
        uint64_t free_bytes = chunk->trim_bytes;

        QR_ASSERT(free_bytes <= arena->chunk_bytes);
        if (free_bytes == 0)
            continue;
        chunk->trim_bytes = 0;
        if (free_bytes == arena->chunk_bytes) {
            qr_arena_chunk_return(arena, number);
            returned_bytes += arena->chunk_bytes;
        }
    }
    return returned_bytes;
}

uint64_t qr_arena_trim(struct qr_arena *arena)
{
    uint32_t lists[QR_ARENA_CLASS_COUNT];
    uint32_t partial_list;
    uint64_t returned_bytes;

    /* order: arena.trim_begin takes over the trim fields of all chunks, pairs with arena.trim_end */
    if (atomic_exchange_explicit(&arena->trimming, 1, memory_order_acquire) != 0)
        return 0;
    partial_list = qr_arena_stack_take_all(&arena->partial_chunks);
    count_uncarved_bytes(arena, partial_list);
    for (unsigned i = 0; i < QR_ARENA_CLASS_COUNT; i++) {
        lists[i] = qr_arena_stack_take_all(&arena->depot[i]);
        count_free_bytes(arena, lists[i]);
    }
    QR_STOP("arena.trim_taken");
    for (unsigned i = 0; i < QR_ARENA_CLASS_COUNT; i++)
        put_back_others(arena, lists[i]);
    put_back_partial(arena, partial_list);
    returned_bytes = return_complete(arena);
    /* order: arena.trim_end publishes the trim fields, all zero again, pairs with arena.trim_begin */
    atomic_store_explicit(&arena->trimming, 0, memory_order_release);
    return returned_bytes;
}
