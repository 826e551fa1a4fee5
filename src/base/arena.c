/*
 * The arena's caches: allocation and freeing of blocks.
 * Layer 0 (base). Read arena.h and arena_internal.h first.
 *
 * Allocation looks, in this order, at: the loaded magazine; the other one; the depot; what the cache carves; chunks
 * that others left half carved; larger free blocks; a new chunk. When the limit forbids that: a trim, which forms
 * larger blocks from small ones, if enough has changed since the last; the reserve, for those who may use it, while
 * others get no more (reserve_is_used). Of larger blocks the smallest is taken. It is carved like a chunk, for this
 * allocation and those that follow, so that a cut leaves no crumb before the block is used up. (That free memory goes
 * before new chunks is what keeps a store from growing while it is emptied: quire-bench --workload fillrandom,delete
 * --num 1000000 peaked at 349 MiB without, at 211 MiB with it.)
 *
 * Freeing fills the loaded magazine, then the other one, then hands full ones to the depot. The first step of each
 * touches nothing but the thread's own lines.
 *
 * A cache is used by one thread at a time. Lock-free; waits for nobody.
 */
#include "base/arena_internal.h"

#include "base/alloc.h"
#include "base/counters.h"

#include <quire/quire.h>

enum {
    SMALL_LIMIT_BYTES = 16 << 20,
    MEDIUM_LIMIT_BYTES = 64 << 20,
    SMALL_CHUNK_BYTES = 64 << 10,
    MEDIUM_CHUNK_BYTES = 256 << 10,
    CHUNK_BYTES = 2 << 20,
    MAGAZINE_BYTES = 128 << 10, /* most that a magazine retains; blocks of the largest classes lie alone */
    MAGAZINE_SHARE = 2048,      /* with a limit one in so many of its bytes: each cache may have two for each class */
    TRIM_EVERY = 16             /* of the magazines that a trim visits one in so many must have moved for the next */
};

/* ---- Creation --------------------------------------------------------------------------------------------------- */

static size_t chunk_bytes_for(uint64_t limit_bytes)
{
    if (limit_bytes == 0 || limit_bytes >= MEDIUM_LIMIT_BYTES)
        return CHUNK_BYTES;
    return limit_bytes >= SMALL_LIMIT_BYTES ? MEDIUM_CHUNK_BYTES : SMALL_CHUNK_BYTES;
}

int qr_arena_create(uint64_t limit_bytes, struct qr_arena **ret_arena)
{
    struct qr_arena *arena = qr_malloc_aligned(QR_CACHE_LINE_BYTES, sizeof(*arena));
    if (arena == NULL)
        return QUIRE_ERR_NO_MEMORY;

    *arena = (struct qr_arena){0};
    int result = qr_alloc_must_fail() ? QUIRE_ERR_NO_MEMORY : qr_arena_reserve(arena, chunk_bytes_for(limit_bytes));
    if (result != 0) {
        qr_free_aligned(arena);
        return result;
    }
    size_t magazine_bytes = limit_bytes != 0 && limit_bytes / MAGAZINE_SHARE < MAGAZINE_BYTES
                                ? (size_t)(limit_bytes / MAGAZINE_SHARE)
                                : MAGAZINE_BYTES;
    arena->class_max_bytes =
        arena->chunk_bytes / 2 < QR_ARENA_CLASS_MAX_BYTES ? arena->chunk_bytes / 2 : QR_ARENA_CLASS_MAX_BYTES;
    for (unsigned i = 0; i < QR_ARENA_CLASS_COUNT; i++) {
        size_t count = magazine_bytes / qr_arena_class_bytes(i);
        arena->capacities[i] = (uint16_t)(count < 1                         ? 1
                                          : count > QR_ARENA_MAGAZINE_COUNT ? QR_ARENA_MAGAZINE_COUNT
                                                                            : count);
    }
    qr_arena_set_limit(arena, limit_bytes);
    *ret_arena = arena;
    return 0;
}

void qr_arena_destroy(struct qr_arena *arena)
{
    if (arena == NULL)
        return;
    qr_arena_unreserve(arena);
    qr_free_aligned(arena);
}

void qr_arena_cache_clear(struct qr_arena *arena, struct qr_arena_cache *cache)
{
    *cache = (struct qr_arena_cache){0};
    for (unsigned i = 0; i < QR_ARENA_CLASS_COUNT; i++) {
        cache->slots[i].loaded = &arena->none;
        cache->slots[i].other = &arena->none;
    }
}

void qr_arena_cache_init(struct qr_arena *arena, struct qr_arena_cache *cache)
{
    qr_arena_cache_clear(arena, cache);
    /* relaxed: the compare-and-swap fails if it is stale */
    cache->next = atomic_load_explicit(&arena->caches, memory_order_relaxed);
    /* order: arena.link publishes the cache and its `next`, pairs with arena.walk */
    while (!atomic_compare_exchange_weak_explicit(&arena->caches, &cache->next, cache, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

size_t qr_arena_class_size(size_t size)
{
    if (size <= QR_ARENA_CLASS_MAX_BYTES)
        return qr_arena_class_bytes(qr_arena_class_index(size));
    /* The header line and the block fill whole pages. Sizes near SIZE_MAX wrap; qr_arena_large_alloc refuses them. */
    return ((size + QR_ARENA_LARGE_HEADER_BYTES + QR_ARENA_OS_PAGE_BYTES - 1) & ~(size_t)(QR_ARENA_OS_PAGE_BYTES - 1)) -
           QR_ARENA_LARGE_HEADER_BYTES;
}

/* ---- Free blocks into the cache --------------------------------------------------------------------------------- */

/* Where a free block goes if there is no memory for one more magazine: into a list that lies in the blocks. */
static QR_COLD void stray_push(struct qr_arena *arena, unsigned class_index, void *block)
{
    struct qr_arena_stray *stray = block;

    QR_ARENA_UNPOISON(block, sizeof(*stray));
    stray->class_index = class_index;
    /* relaxed: the compare-and-swap fails if it is stale */
    stray->next = atomic_load_explicit(&arena->strays, memory_order_relaxed);
    /* order: arena.stray_push publishes the block's contents, pairs with arena.stray_take */
    while (!atomic_compare_exchange_weak_explicit(&arena->strays, &stray->next, stray, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

static QR_NOINLINE void put_block_slow(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index,
                                       void *block)
{
    struct qr_arena_magazine *loaded = cache->slots[class_index].loaded;
    struct qr_arena_magazine *other = cache->slots[class_index].other;

    if (other->count == other->capacity) {
        struct qr_arena_magazine *fresh = qr_arena_magazine_take(arena, class_index);
        if (fresh == NULL) {
            stray_push(arena, class_index, block);
            return;
        }
        if (other != &arena->none)
            qr_arena_depot_give(arena, other);
        other = fresh;
    }
    cache->slots[class_index].loaded = other;
    cache->slots[class_index].other = loaded;
    other->blocks[other->count++] = block;
}

/* Takes a free block into the cache; counters are the caller's business. */
static QR_ALWAYS_INLINE void put_block(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index,
                                       void *block)
{
    struct qr_arena_magazine *loaded = cache->slots[class_index].loaded;

    QR_ARENA_POISON(block, qr_arena_class_bytes(class_index));
    if (QR_LIKELY(loaded->count < loaded->capacity))
        loaded->blocks[loaded->count++] = block;
    else
        put_block_slow(arena, cache, class_index, block);
}

void qr_arena_put(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index, void *block)
{
    put_block(arena, cache, class_index, block);
}

unsigned qr_arena_class_within(const struct qr_arena *arena, size_t free_bytes)
{
    size_t size = free_bytes < arena->class_max_bytes ? free_bytes : arena->class_max_bytes;
    unsigned class_index = qr_arena_class_index(size);

    return qr_arena_class_bytes(class_index) > size ? class_index - 1 : class_index;
}

/* Turns free bytes into blocks of the largest classes that fit (ARENA-3: all of them; classes have steps of 64). */
static void put_range(struct qr_arena *arena, struct qr_arena_cache *cache, char *begin, char *end)
{
    while (begin < end) {
        unsigned class_index = qr_arena_class_within(arena, (size_t)(end - begin));

        put_block(arena, cache, class_index, begin);
        begin += qr_arena_class_bytes(class_index);
    }
}

void qr_arena_free(struct qr_arena *arena, struct qr_arena_cache *cache, void *block, size_t usable_size)
{
    if (QR_UNLIKELY(usable_size > arena->class_max_bytes)) {
        qr_arena_large_free(arena, block, usable_size);
        return;
    }
    unsigned class_index = qr_arena_class_index(usable_size);
    QR_ASSERT(qr_arena_class_bytes(class_index) == usable_size);
    qr_counter_add(&cache->freed_bytes, usable_size);
    put_block(arena, cache, class_index, block);
}

void qr_arena_cache_flush(struct qr_arena *arena, struct qr_arena_cache *cache)
{
    /* What ends with its chunk can be carved on, also if it was a block: nothing else carves that chunk. */
    if ((size_t)(cache->carve_end - arena->region) % arena->chunk_bytes != 0)
        put_range(arena, cache, cache->carve_next, cache->carve_end);
    else if (cache->carve_next < cache->carve_end)
        qr_arena_partial_give(arena, cache->carve_next, cache->carve_end);
    cache->carve_next = NULL;
    cache->carve_end = NULL;
    for (unsigned i = 0; i < QR_ARENA_CLASS_COUNT; i++) {
        struct qr_arena_magazine *magazines[2] = {cache->slots[i].loaded, cache->slots[i].other};

        cache->slots[i].loaded = &arena->none;
        cache->slots[i].other = &arena->none;
        for (unsigned k = 0; k < 2; k++) {
            if (magazines[k]->count > 0)
                qr_arena_depot_give(arena, magazines[k]);
            else if (magazines[k] != &arena->none)
                qr_arena_magazine_give(arena, magazines[k]);
        }
    }
}

/* ---- Blocks out of the cache ------------------------------------------------------------------------------------ */

/* A free block of exactly this class from the cache's magazines or the depot, or NULL. */
static void *take_block(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index)
{
    struct qr_arena_magazine *loaded = cache->slots[class_index].loaded;
    struct qr_arena_magazine *other = cache->slots[class_index].other;

    if (loaded->count == 0 && other->count > 0) {
        cache->slots[class_index].loaded = other;
        cache->slots[class_index].other = loaded;
        loaded = other;
    } else if (loaded->count == 0) {
        struct qr_arena_magazine *full = qr_arena_depot_take(arena, class_index);
        if (full == NULL)
            return NULL;
        if (other == &arena->none)
            cache->slots[class_index].other = loaded;
        else if (loaded != &arena->none)
            qr_arena_magazine_give(arena, loaded);
        cache->slots[class_index].loaded = full;
        loaded = full;
    }
    return loaded->blocks[--loaded->count];
}

bool qr_arena_strays_collect(struct qr_arena *arena, struct qr_arena_cache *cache)
{
    /* relaxed: whether it is worth taking them */
    if (QR_LIKELY(atomic_load_explicit(&arena->strays, memory_order_relaxed) == NULL))
        return false;
    /* order: arena.stray_take takes over the list, pairs with arena.stray_push; all at once, so there is no ABA */
    struct qr_arena_stray *stray = atomic_exchange_explicit(&arena->strays, NULL, memory_order_acquire);
    bool found = stray != NULL;
    while (stray != NULL) {
        struct qr_arena_stray *next = stray->next;
        put_block(arena, cache, (unsigned)stray->class_index, stray);
        stray = next;
    }
    return found;
}

/* The next bytes of what the cache carves, or NULL. */
static void *carve(struct qr_arena_cache *cache, unsigned class_index)
{
    size_t size = qr_arena_class_bytes(class_index);

    if ((size_t)(cache->carve_end - cache->carve_next) < size)
        return NULL;
    void *block = cache->carve_next;
    cache->carve_next += size;
    return block;
}

/* Something else for the cache to carve: bytes that it owns. The old one's rest becomes blocks. */
static void carve_this(struct qr_arena *arena, struct qr_arena_cache *cache, char *begin, char *end)
{
    put_range(arena, cache, cache->carve_next, cache->carve_end);
    cache->carve_next = begin;
    cache->carve_end = end;
}

/* From chunks that others left half carved, those with too little room becoming blocks. NULL: there are no more. */
static void *carve_partial(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index)
{
    void *block = NULL;
    char *begin, *end;

    while (block == NULL && (begin = qr_arena_partial_take(arena, &end)) != NULL) {
        carve_this(arena, cache, begin, end);
        block = carve(cache, class_index);
    }
    return block;
}

static void *carve_chunk(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index, bool use_reserve)
{
    char *chunk = qr_alloc_must_fail() ? NULL : qr_arena_chunk_take(arena, use_reserve);

    if (chunk == NULL)
        return NULL;
    carve_this(arena, cache, chunk, chunk + arena->chunk_bytes);
    return carve(cache, class_index);
}

/* From the smallest larger free block, which the cache carves from now on. */
static void *carve_larger(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index)
{
    for (unsigned i = class_index + 1; i < QR_ARENA_CLASS_COUNT; i++) {
        char *block = take_block(arena, cache, i);
        if (block == NULL)
            continue;
        carve_this(arena, cache, block, block + qr_arena_class_bytes(i));
        return carve(cache, class_index);
    }
    return NULL;
}

/* Everything but what needs a trim or the reserve. */
static void *find_block(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index)
{
    void *block = take_block(arena, cache, class_index);
    if (block == NULL && qr_arena_strays_collect(arena, cache))
        block = take_block(arena, cache, class_index);
    if (block == NULL)
        block = carve(cache, class_index);
    if (block == NULL)
        block = carve_partial(arena, cache, class_index);
    if (block == NULL)
        block = carve_larger(arena, cache, class_index);
    if (block == NULL)
        block = carve_chunk(arena, cache, class_index, false);
    return block;
}

/* Whether enough magazines have moved since the last trim that another one may form larger blocks. */
static bool trim_is_due(struct qr_arena *arena, unsigned every)
{
    /* relaxed: numbers of a trim that has ended, or of two; a wrong choice costs a trim, or one that a caller does */
    uint32_t visited = atomic_load_explicit(&arena->trim_visited, memory_order_relaxed);
    /* relaxed: as above */
    uint32_t mark = atomic_load_explicit(&arena->trim_mark, memory_order_relaxed);

    return qr_arena_depot_changes(arena) - mark > visited / every;
}

/* find_block after a trim, if one is due. On failure notes whether another thread's trim had blocks in its hands. */
static void *find_after_trim(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index, unsigned every)
{
    uint64_t unused;

    qr_arena_cache_flush(arena, cache);
    if (trim_is_due(arena, every))
        (void)qr_arena_trim_once(arena, &unused);
    uint32_t trims = qr_arena_trims(arena);
    void *block = find_block(arena, cache, class_index);
    if (block == NULL) /* relaxed: a trim that is missed here costs a retry */
        cache->overtaken = trims % 2 != 0 || atomic_load_explicit(&arena->trims, memory_order_relaxed) != trims;
    return block;
}

static QR_COLD void *alloc_at_limit(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index,
                                    bool use_reserve)
{
    void *block = find_after_trim(arena, cache, class_index, TRIM_EVERY);
    if (block == NULL && use_reserve)
        block = carve_chunk(arena, cache, class_index, true);
    if (block == NULL && use_reserve)
        block = find_after_trim(arena, cache, class_index, UINT32_MAX);
    return block;
}

/*
 * Whether more is in use than the limit: then free blocks are what is left of the reserve. By chunks alone the reserve
 * would be there once: its chunks stay as long as one block of them is in use, and the blocks that come back in them
 * would be for everybody. In what a cache has loaded this is not seen: a share of the limit that the magazines bound.
 */
static bool reserve_is_used(struct qr_arena *arena)
{
    struct qr_arena_stats stats;
    uint64_t total_bytes = qr_arena_total_bytes(arena);

    if (!qr_arena_over(arena, 100))
        return false;
    qr_arena_stats(arena, &stats);
    /* No difference: a trim may have returned more since the total was read than the total was above the free bytes. */
    return total_bytes > qr_arena_limit_bytes(arena) + stats.free_bytes;
}

static QR_NOINLINE void *alloc_slow(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index,
                                    bool use_reserve)
{
    if (!use_reserve && reserve_is_used(arena))
        return NULL;
    void *block = find_block(arena, cache, class_index);

    return block != NULL ? block : alloc_at_limit(arena, cache, class_index, use_reserve);
}

bool qr_arena_regroup(struct qr_arena *arena, struct qr_arena_cache *cache)
{
    uint64_t returned_bytes = UINT64_MAX;

    qr_arena_cache_flush(arena, cache);
    bool gained = qr_arena_trim_once(arena, &returned_bytes);
    cache->overtaken = returned_bytes == UINT64_MAX;
    return gained;
}

uint32_t qr_arena_trims(const struct qr_arena *arena)
{
    /* order: arena.trim_seen sees what trims that have ended put back, pairs with arena.trim_end */
    return atomic_load_explicit(&arena->trims, memory_order_acquire);
}

bool qr_arena_overtaken(struct qr_arena *arena, struct qr_arena_cache *cache)
{
    bool overtaken = cache->overtaken;

    cache->overtaken = false;
    return overtaken || qr_arena_trims(arena) % 2 != 0;
}

void *qr_arena_alloc(struct qr_arena *arena, struct qr_arena_cache *cache, size_t size, bool use_reserve,
                     size_t *ret_usable_size)
{
    if (qr_alloc_must_fail())
        return NULL;
    if (QR_UNLIKELY(size > arena->class_max_bytes))
        return qr_arena_large_alloc(arena, size, use_reserve, ret_usable_size);

    unsigned class_index = qr_arena_class_index(size);
    struct qr_arena_magazine *loaded = cache->slots[class_index].loaded;
    void *block;
    if (QR_LIKELY(loaded->count > 0))
        block = loaded->blocks[--loaded->count];
    else if ((block = alloc_slow(arena, cache, class_index, use_reserve)) == NULL)
        return NULL;

    size_t usable_size = qr_arena_class_bytes(class_index);
    QR_ARENA_UNPOISON(block, usable_size);
    qr_counter_add(&cache->allocated_bytes, usable_size);
    *ret_usable_size = usable_size;
    return block;
}

/* ---- Limit and statistics --------------------------------------------------------------------------------------- */

uint64_t qr_arena_total_bytes(const struct qr_arena *arena)
{
    /* relaxed: a sum that changes all the time */
    return atomic_load_explicit(&arena->total_bytes, memory_order_relaxed);
}

uint64_t qr_arena_limit_bytes(const struct qr_arena *arena)
{
    /* relaxed: a number by itself */
    return atomic_load_explicit(&arena->limit_bytes, memory_order_relaxed);
}

void qr_arena_set_limit(struct qr_arena *arena, uint64_t limit_bytes)
{
    /* relaxed: allocations may use the old limit for a moment */
    atomic_store_explicit(&arena->limit_bytes, limit_bytes, memory_order_relaxed);
}

void qr_arena_charge(struct qr_arena *arena, int64_t delta_bytes)
{
    /* relaxed: a sum; it publishes no memory. Negative numbers wrap as they should */
    atomic_fetch_add_explicit(&arena->total_bytes, (uint64_t)delta_bytes, memory_order_relaxed);
}

bool qr_arena_over(const struct qr_arena *arena, unsigned percent)
{
    uint64_t limit = qr_arena_limit_bytes(arena);
    return limit != 0 && qr_arena_total_bytes(arena) > limit / 100 * percent + limit % 100 * percent / 100;
}

void qr_arena_stats(struct qr_arena *arena, struct qr_arena_stats *ret_stats)
{
    uint64_t allocated_bytes = 0;
    uint64_t freed_bytes = 0;
    /* order: arena.walk sees each cache complete, pairs with arena.link */
    struct qr_arena_cache *cache = atomic_load_explicit(&arena->caches, memory_order_acquire);

    for (; cache != NULL; cache = cache->next) {
        freed_bytes += qr_counter_read(&cache->freed_bytes);
        allocated_bytes += qr_counter_read(&cache->allocated_bytes);
    }
    /* A block may be freed by a cache that was read before the one that allocated it: sums cannot go below zero. */
    uint64_t in_use_bytes = allocated_bytes > freed_bytes ? allocated_bytes - freed_bytes : 0;
    ret_stats->carved_bytes = qr_counter_read(&arena->carved_bytes);
    ret_stats->large_bytes = qr_counter_read(&arena->large_bytes);
    ret_stats->returned_bytes = qr_counter_read(&arena->returned_bytes);
    ret_stats->free_bytes = ret_stats->carved_bytes > in_use_bytes ? ret_stats->carved_bytes - in_use_bytes : 0;
    ret_stats->in_use_bytes = in_use_bytes + ret_stats->large_bytes;
}

const void *qr_arena_start(const struct qr_arena *arena)
{
    return arena->region;
}
