/*
 * Joining free blocks of the arena to larger ones, and returning unused chunks to the operating system.
 * Layer 0 (base).
 *
 * TRIM-1  A chunk is returned only if free blocks that this trim has taken out of the depot add up to its size. By
 *         ARENA-3 they then are all of it: no block of it is in use, in a cache, or still to be carved.
 * TRIM-2  Of a chunk that is regrouped, every block that this trim has taken is dropped, its units of 64 bytes being
 *         marked in the chunk's bits, each once; afterwards each maximal run of marks is cut into blocks of the largest
 *         classes that fit. So the new blocks cover the same bytes as the dropped ones, without gap or overlap: ARENA-3
 *         is true again. Blocks in use, in caches, or freed meanwhile are not marked, and end a run.
 * TRIM-3  No block is lost for want of memory: the bits of a chunk are made writable before any block is dropped, or
 *         the chunk is not regrouped; magazines come from those that were emptied, else the new block becomes a stray.
 *
 * Nobody sees the change: what a free block is, only the magazine that lists it says, and the trim owns those
 * magazines. The blocks themselves are not touched, so under AddressSanitizer they stay poisoned.
 *
 * Phases: take every magazine of the depot and add up the free bytes of each chunk; go through the magazines, dropping
 * blocks of chunks that are complete or to be regrouped, and put them back at once with what is left; form the new
 * blocks; return the complete chunks. New blocks, and the contents of magazines that are less than half full, go
 * through a cache of the trim's own. A chunk is regrouped if a sixteenth of it is free: looking through the bits of a
 * chunk costs as much as moving some hundred blocks.
 *
 * One trim at a time; a second one leaves at once. Others go on meanwhile: they find the depot empty and carve new
 * chunks, if the limit lets them; if not, qr_arena_overtaken tells them. A thread stopped in here retains the blocks
 * that it has taken and blocks nobody.
 */
#include "base/arena_internal.h"

#include <string.h>

enum { REGROUP_SHARE = 16, BITS_PER_WORD = 64 };

/* A trim under way. */
struct trim {
    struct qr_arena *arena;
    struct qr_arena_cache cache; /* linked nowhere: blocks on their way back to the depot */
    uint32_t lists[QR_ARENA_CLASS_COUNT];
    uint32_t partial_list;
    uint32_t visited;                     /* magazines */
    uint32_t chunk_count;                 /* chunks that blocks taken may lie in */
    uint32_t bits_count;                  /* of these, chunks that have bits */
    int64_t gained[QR_ARENA_CLASS_COUNT]; /* blocks formed, less blocks dropped */
    bool rest_gained;                     /* blocks were joined to the rest of a half carved chunk */
};

/* ---- Taking ----------------------------------------------------------------------------------------------------- */

static void count_free_bytes(struct trim *t, uint32_t first)
{
    for (uint32_t number = first; number != 0;) {
        struct qr_arena_magazine *magazine = qr_arena_magazine_at(t->arena, number);
        uint32_t size = (uint32_t)qr_arena_class_bytes(magazine->class_index);

        for (unsigned i = 0; i < magazine->count; i++)
            qr_arena_chunk_of(t->arena, magazine->blocks[i])->trim_bytes += size;
        t->visited++;
        /* relaxed: the list is this thread's */
        number = atomic_load_explicit(&magazine->next, memory_order_relaxed);
    }
}

static void count_uncarved_bytes(struct trim *t, uint32_t first)
{
    for (uint32_t number = first; number != 0;) {
        struct qr_arena_chunk *chunk = qr_arena_chunk_at(t->arena, number);
        chunk->trim_bytes += (uint32_t)t->arena->chunk_bytes - chunk->carved_bytes;
        chunk->trim_partial = true;
        /* relaxed: the list is this thread's */
        number = atomic_load_explicit(&chunk->next, memory_order_relaxed);
    }
}

static void take(struct trim *t)
{
    qr_arena_strays_collect(t->arena, &t->cache);
    qr_arena_cache_flush(t->arena, &t->cache);
    t->partial_list = qr_arena_stack_take_all(&t->arena->partial_chunks);
    count_uncarved_bytes(t, t->partial_list);
    for (unsigned i = 0; i < QR_ARENA_CLASS_COUNT; i++) {
        t->lists[i] = qr_arena_stack_take_all(&t->arena->depot[i]);
        count_free_bytes(t, t->lists[i]);
    }
    /* relaxed: chunks made since then have no block among those taken */
    t->chunk_count = atomic_load_explicit(&t->arena->chunk_count, memory_order_relaxed);
    t->bits_count = qr_arena_bits_prepare(t->arena, t->chunk_count);
}

/* ---- Bits ------------------------------------------------------------------------------------------------------- */

static size_t units_of_chunk(const struct trim *t)
{
    return t->arena->chunk_bytes / QR_ARENA_ALIGNMENT_BYTES;
}

static uint64_t *bits_of(struct trim *t, uint32_t number)
{
    return t->arena->bits + (size_t)(number - 1) * (units_of_chunk(t) / BITS_PER_WORD);
}

static void mark(uint64_t *bits, size_t first, size_t count)
{
    for (size_t marked; count > 0; first += marked, count -= marked) {
        size_t at = first % BITS_PER_WORD;
        marked = count < BITS_PER_WORD - at ? count : BITS_PER_WORD - at;
        uint64_t mask = (UINT64_MAX >> (BITS_PER_WORD - marked)) << at;
        QR_ASSERT((bits[first / BITS_PER_WORD] & mask) == 0); /* else a block was freed twice */
        bits[first / BITS_PER_WORD] |= mask;
    }
}

/* The first unit from `from` on that is marked (flip 0) or not marked (flip all ones); end if there is none. */
static size_t find_unit(const uint64_t *bits, size_t from, size_t end, uint64_t flip)
{
    while (from < end) {
        uint64_t word = (bits[from / BITS_PER_WORD] ^ flip) >> from % BITS_PER_WORD;
        if (word != 0)
            return from + (size_t)__builtin_ctzll(word);
        from += BITS_PER_WORD - from % BITS_PER_WORD;
    }
    return end;
}

/* ---- Putting back ----------------------------------------------------------------------------------------------- */

static bool is_complete(const struct trim *t, const struct qr_arena_chunk *chunk)
{
    return chunk->trim_bytes == t->arena->chunk_bytes;
}

static bool to_regroup(const struct trim *t, const struct qr_arena_chunk *chunk, uint32_t number)
{
    return chunk->trim_bytes >= t->arena->chunk_bytes / REGROUP_SHARE && number <= t->bits_count;
}

/* Drops the blocks of chunks that are complete or regrouped. */
static void drop_blocks(struct trim *t, struct qr_arena_magazine *magazine)
{
    size_t size = qr_arena_class_bytes(magazine->class_index);
    uint16_t kept = 0;

    for (unsigned i = 0; i < magazine->count; i++) {
        size_t offset = (size_t)((char *)magazine->blocks[i] - t->arena->region);
        struct qr_arena_chunk *chunk = qr_arena_chunk_of(t->arena, magazine->blocks[i]);
        uint32_t number = (uint32_t)(chunk - qr_arena_chunk_at(t->arena, 1)) + 1;

        if (is_complete(t, chunk))
            continue;
        if (!to_regroup(t, chunk, number)) {
            magazine->blocks[kept++] = magazine->blocks[i];
            continue;
        }
        mark(bits_of(t, number), offset % t->arena->chunk_bytes / QR_ARENA_ALIGNMENT_BYTES,
             size / QR_ARENA_ALIGNMENT_BYTES);
        t->gained[magazine->class_index]--;
    }
    magazine->count = kept;
}

static void put_back_others(struct trim *t, uint32_t first)
{
    for (uint32_t number = first; number != 0;) {
        struct qr_arena_magazine *magazine = qr_arena_magazine_at(t->arena, number);

        /* relaxed: the list is this thread's until the magazine is given away */
        number = atomic_load_explicit(&magazine->next, memory_order_relaxed);
        drop_blocks(t, magazine);
        if (magazine->count >= (magazine->capacity + 1u) / 2) {
            qr_arena_depot_give(t->arena, magazine);
            continue;
        }
        while (magazine->count > 0)
            qr_arena_put(t->arena, &t->cache, magazine->class_index, magazine->blocks[--magazine->count]);
        qr_arena_magazine_give(t->arena, magazine);
    }
}

static void form_blocks(struct trim *t, char *begin, char *end)
{
    while (begin < end) {
        unsigned class_index = qr_arena_class_within(t->arena, (size_t)(end - begin));

        qr_arena_put(t->arena, &t->cache, class_index, begin);
        t->gained[class_index]++;
        begin += qr_arena_class_bytes(class_index);
    }
}

/* Each run of marks becomes blocks; one that the uncarved rest of the chunk follows becomes a part of the rest. */
static void regroup_chunk(struct trim *t, struct qr_arena_chunk *chunk, uint32_t number)
{
    char *memory = qr_arena_chunk_memory(t->arena, number);
    uint64_t *bits = bits_of(t, number);
    size_t units = units_of_chunk(t);

    for (size_t begin = 0, end; (begin = find_unit(bits, begin, units, 0)) < units; begin = end) {
        end = find_unit(bits, begin, units, UINT64_MAX);
        if (chunk->trim_partial && end * QR_ARENA_ALIGNMENT_BYTES == chunk->carved_bytes) {
            chunk->carved_bytes = (uint32_t)(begin * QR_ARENA_ALIGNMENT_BYTES);
            t->rest_gained = true;
        } else {
            form_blocks(t, memory + begin * QR_ARENA_ALIGNMENT_BYTES, memory + end * QR_ARENA_ALIGNMENT_BYTES);
        }
    }
    memset(bits, 0, units / 8);
}

static void regroup_chunks(struct trim *t)
{
    for (uint32_t number = 1; number <= t->chunk_count; number++) {
        struct qr_arena_chunk *chunk = qr_arena_chunk_at(t->arena, number);

        QR_ASSERT(chunk->trim_bytes <= t->arena->chunk_bytes);
        if (!is_complete(t, chunk) && to_regroup(t, chunk, number))
            regroup_chunk(t, chunk, number);
    }
}

static void put_back_partial(struct trim *t)
{
    for (uint32_t number = t->partial_list; number != 0;) {
        struct qr_arena_chunk *chunk = qr_arena_chunk_at(t->arena, number);
        uint32_t this_number = number;
        /* relaxed: the list is this thread's until the push below */
        number = atomic_load_explicit(&chunk->next, memory_order_relaxed);
        chunk->trim_partial = false;
        if (!is_complete(t, chunk))
            qr_arena_stack_push(&t->arena->partial_chunks, t->arena->chunks, sizeof(*chunk), this_number);
        else /* relaxed: as in qr_arena_partial_give */
            atomic_fetch_sub_explicit(&t->arena->partial_count, 1, memory_order_relaxed);
    }
}

/* Returns complete chunks, and clears what was counted; gives the bytes returned. */
static uint64_t return_complete(struct trim *t)
{
    uint64_t returned_bytes = 0;

    for (uint32_t number = 1; number <= t->chunk_count; number++) {
        struct qr_arena_chunk *chunk = qr_arena_chunk_at(t->arena, number);
        bool complete = is_complete(t, chunk);

        if (chunk->trim_bytes != 0)
            chunk->trim_bytes = 0;
        if (complete) {
            qr_arena_chunk_return(t->arena, number);
            returned_bytes += t->arena->chunk_bytes;
        }
    }
    return returned_bytes;
}

/* ---- The whole -------------------------------------------------------------------------------------------------- */

/* Whether there are more blocks than before of the largest class of which the number has changed. */
static bool has_larger(const struct trim *t)
{
    for (unsigned i = QR_ARENA_CLASS_COUNT; i-- > 0;) {
        if (t->gained[i] != 0)
            return t->gained[i] > 0;
    }
    return false;
}

static uint64_t trim(struct trim *t)
{
    take(t);
    QR_STOP("arena.trim_taken");
    for (unsigned i = 0; i < QR_ARENA_CLASS_COUNT; i++)
        put_back_others(t, t->lists[i]);
    regroup_chunks(t);
    put_back_partial(t);
    uint64_t returned_bytes = return_complete(t);
    qr_arena_cache_flush(t->arena, &t->cache);
    return returned_bytes;
}

bool qr_arena_trim_once(struct qr_arena *arena, uint64_t *ret_returned_bytes)
{
    struct trim t = {.arena = arena};
    /* relaxed: the compare-and-swap checks it */
    uint32_t trims = atomic_load_explicit(&arena->trims, memory_order_relaxed);

    /* order: arena.trim_begin takes over the trim fields of all chunks, pairs with arena.trim_end */
    if (trims % 2 != 0 || !atomic_compare_exchange_strong_explicit(&arena->trims, &trims, trims + 1,
                                                                   memory_order_acquire, memory_order_relaxed))
        return false;
    qr_arena_cache_clear(arena, &t.cache);
    *ret_returned_bytes = trim(&t);
    /* relaxed: numbers by which others decide whether a trim is due */
    atomic_store_explicit(&arena->trim_visited, t.visited, memory_order_relaxed);
    /* relaxed: as above */
    atomic_store_explicit(&arena->trim_mark, qr_arena_depot_changes(arena), memory_order_relaxed);
    /* order: arena.trim_end publishes the trim fields, all zero again, pairs with arena.trim_begin */
    atomic_store_explicit(&arena->trims, trims + 2, memory_order_release);
    return *ret_returned_bytes != 0 || has_larger(&t) || t.rest_gained;
}

uint64_t qr_arena_trim(struct qr_arena *arena)
{
    uint64_t returned_bytes = 0;

    (void)qr_arena_trim_once(arena, &returned_bytes);
    return returned_bytes;
}
