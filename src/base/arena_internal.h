/*
 * The parts of the arena that its source files share: size classes, lock-free stacks, magazines, chunks.
 * Layer 0 (base). Included by arena*.c only. Read arena.h first.
 *
 * Stacks. Depot, empty magazines and free chunks are Treiber stacks of numbers. A number names an element of a table
 * that is never unmapped while the arena lives; its first field is `next`. A stack's head is one word: tag (high half)
 * and number (low half, 0 = empty stack).
 *   Linearization: the compare-and-swap of the head that succeeds.
 *   Progress: lock-free; a failed compare-and-swap means that somebody else's succeeded.
 *   ABA: a pop reads `next` of an element that it does not own yet. If somebody pops that element and pushes it again
 *   meanwhile, `next` may be wrong, but every change of the head adds one to the tag, so the compare-and-swap fails. It
 *   could succeed wrongly only after exactly a multiple of 2^32 changes of one head between two neighbouring
 *   instructions. Reclamation: none is needed, the tables are type-stable; `next` is atomic, so a late reader of it
 *   races with nobody.
 */
#ifndef QR_BASE_ARENA_INTERNAL_H
#define QR_BASE_ARENA_INTERNAL_H

#include "base/arena.h"
#include "base/check.h"
#include "base/stop.h"

#if defined(__SANITIZE_ADDRESS__)
#define QR_ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QR_ARENA_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define QR_ARENA_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define QR_ARENA_TSAN 1
#endif

#ifdef QR_ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define QR_ARENA_POISON(memory, size_bytes) __asan_poison_memory_region(memory, size_bytes)
#define QR_ARENA_UNPOISON(memory, size_bytes) __asan_unpoison_memory_region(memory, size_bytes)
#else
#define QR_ARENA_POISON(memory, size_bytes) ((void)(memory), (void)(size_bytes))
#define QR_ARENA_UNPOISON(memory, size_bytes) ((void)(memory), (void)(size_bytes))
#endif

enum {
    QR_ARENA_MAGAZINE_COUNT = 30,    /* most blocks of a magazine: it is four cache lines long */
    QR_ARENA_OS_PAGE_BYTES = 4096,   /* what large mappings are rounded to */
    QR_ARENA_LARGE_HEADER_BYTES = 64 /* before a large block, in its mapping */
};

/* A free block that found no magazine; lies in the block itself. */
struct qr_arena_stray {
    struct qr_arena_stray *next;
    uint64_t class_index;
};

struct qr_arena_magazine {
    _Atomic uint32_t next; /* number of the next one in the stack where this lies */
    uint32_t number;       /* its own, from 1 */
    uint16_t count;
    uint16_t capacity;    /* 0: no magazine has been taken (the arena's stand-in), or this one describes a mapping */
    uint32_t class_index; /* QR_ARENA_CLASS_COUNT: blocks[0] is a large mapping and blocks[1] its size */
    void *blocks[QR_ARENA_MAGAZINE_COUNT];
};
QR_STATIC_ASSERT(sizeof(struct qr_arena_magazine) == 256, "a magazine is four cache lines");

struct qr_arena_chunk {
    _Atomic uint32_t next;
    uint32_t carved_bytes; /* of a chunk among the partial ones: what is carved from its front */
    uint32_t trim_bytes;   /* free bytes found by the running trim; 0 otherwise */
    bool trim_partial;     /* the running trim found it among the partial ones */
    bool writable;         /* its addresses have been made writable; belongs to who has the chunk */
};

/* A stack of elements of a table, see above. */
struct qr_arena_stack {
    QR_CACHE_ALIGNED _Atomic uint64_t head;
};

struct qr_arena {
    /* Constant after creation. */
    char *region; /* chunk-aligned */
    size_t chunk_bytes;
    size_t class_max_bytes; /* of this arena: its chunks must hold several blocks */
    uint32_t chunk_limit;   /* chunks that the region has room for */
    uint32_t magazine_limit;
    char *magazines; /* table of struct qr_arena_magazine */
    char *chunks;    /* table of struct qr_arena_chunk */
    uint64_t *bits;  /* table for the trim: one bit for each unit of 64 bytes of each chunk */
    void *reserved;  /* as mapped: region, magazine table, chunk table, bits */
    size_t reserved_bytes;
    uint16_t capacities[QR_ARENA_CLASS_COUNT]; /* blocks of a magazine */
    struct qr_arena_magazine none;             /* capacity 0, count 0: stands for "no magazine" */

    /* The limit and what counts against it. */
    QR_CACHE_ALIGNED _Atomic uint64_t limit_bytes;
    _Atomic uint64_t total_bytes;
    _Atomic uint64_t carved_bytes;
    _Atomic uint64_t large_bytes;
    _Atomic uint64_t returned_bytes;

    /* Tables grow upwards. */
    QR_CACHE_ALIGNED _Atomic uint32_t chunk_count;
    _Atomic uint32_t magazine_count;
    _Atomic uint32_t magazines_writable;
    _Atomic uint32_t trims;        /* odd while a thread trims; each trim adds two */
    _Atomic uint32_t trim_mark;    /* qr_arena_depot_changes after the last trim */
    _Atomic uint32_t trim_visited; /* magazines that the last trim looked through */
    uint32_t bits_chunks;          /* chunks whose bits are writable; belongs to the trim */
    _Atomic(struct qr_arena_cache *) caches;
    _Atomic(struct qr_arena_stray *) strays;

    struct qr_arena_stack free_chunks;    /* unused ones */
    struct qr_arena_stack partial_chunks; /* with room at their ends: left by threads that ended, or prepared */
    _Atomic uint32_t partial_count;       /* about as many as lie there */
    struct qr_arena_stack empty_magazines;
    struct qr_arena_stack depot[QR_ARENA_CLASS_COUNT];
};

/* ---- Size classes: 64, 128 .. 512 in steps of 64, then eight for each doubling ---------------------------------- */

static QR_ALWAYS_INLINE unsigned qr_arena_class_index(size_t size)
{
    if (size <= 512)
        return size <= 64 ? 0 : (unsigned)((size - 1) >> 6);
    unsigned top = 63 - (unsigned)__builtin_clzll((unsigned long long)size - 1); /* from 9 on */
    return 8 + ((top - 9) << 3) + (unsigned)(((size - 1) >> (top - 3)) & 7);
}

static QR_ALWAYS_INLINE size_t qr_arena_class_bytes(unsigned class_index)
{
    if (class_index < 8)
        return (size_t)(class_index + 1) << 6;
    return (size_t)(9 + (class_index & 7)) << ((class_index >> 3) + 5);
}

/* ---- arena.c ---------------------------------------------------------------------------------------------------- */

/* A cache for the trim's own use, which nobody counts: not linked to the arena. */
void qr_arena_cache_clear(struct qr_arena *arena, struct qr_arena_cache *cache);
/* Takes a free block into a cache. Cannot fail. */
void qr_arena_put(struct qr_arena *arena, struct qr_arena_cache *cache, unsigned class_index, void *block);
/* The largest class of blocks that fits into so many free bytes: a multiple of 64. */
unsigned qr_arena_class_within(const struct qr_arena *arena, size_t free_bytes);
/* Brings strays back into magazines. True if there were any. */
bool qr_arena_strays_collect(struct qr_arena *arena, struct qr_arena_cache *cache);

/* ---- arena_depot.c ---------------------------------------------------------------------------------------------- */

void qr_arena_stack_push(struct qr_arena_stack *stack, char *table, size_t element_bytes, uint32_t number);
uint32_t qr_arena_stack_pop(struct qr_arena_stack *stack, char *table, size_t element_bytes);
/* Everything as a list by `next` (a number, 0 = end) that belongs to the caller. */
uint32_t qr_arena_stack_take_all(struct qr_arena_stack *stack);

struct qr_arena_magazine *qr_arena_magazine_at(struct qr_arena *arena, uint32_t number);
/* An empty magazine for a class, or NULL without memory for one. */
struct qr_arena_magazine *qr_arena_magazine_take(struct qr_arena *arena, unsigned class_index);
void qr_arena_magazine_give(struct qr_arena *arena, struct qr_arena_magazine *magazine);
/* A magazine with at least one block, or NULL. */
struct qr_arena_magazine *qr_arena_depot_take(struct qr_arena *arena, unsigned class_index);
/* magazine has at least one block. */
void qr_arena_depot_give(struct qr_arena *arena, struct qr_arena_magazine *magazine);
/* A number that every give and take of a magazine adds one to; it wraps. */
uint32_t qr_arena_depot_changes(struct qr_arena *arena);

/* ---- arena_trim.c ----------------------------------------------------------------------------------------------- */

/* true: chunks were returned or larger blocks formed. *ret_returned_bytes is not set if another thread trims. */
bool qr_arena_trim_once(struct qr_arena *arena, uint64_t *ret_returned_bytes);

/* ---- arena_chunk.c ---------------------------------------------------------------------------------------------- */

int qr_arena_reserve(struct qr_arena *arena, size_t chunk_bytes);
void qr_arena_unreserve(struct qr_arena *arena);
/* Counts bytes if the limit allows it. */
bool qr_arena_charge_within(struct qr_arena *arena, uint64_t size_bytes, bool use_reserve);
/* An unused chunk for the caller to carve, or NULL. */
char *qr_arena_chunk_take(struct qr_arena *arena, bool use_reserve);
/* The rest of a chunk, at least one unit of 64 bytes, for others to carve. */
void qr_arena_partial_give(struct qr_arena *arena, char *begin, char *end);
/* Such a rest, or NULL. */
char *qr_arena_partial_take(struct qr_arena *arena, char **ret_end);
struct qr_arena_chunk *qr_arena_chunk_at(struct qr_arena *arena, uint32_t number);
char *qr_arena_chunk_memory(struct qr_arena *arena, uint32_t number);
struct qr_arena_chunk *qr_arena_chunk_of(struct qr_arena *arena, const void *block);
/* Makes the bits of the chunks up to `count` writable, zero at first; gives for how many they are. */
uint32_t qr_arena_bits_prepare(struct qr_arena *arena, uint32_t count);
/* Takes back chunk `number`, all of whose blocks the caller owns, and gives its memory to the operating system. */
void qr_arena_chunk_return(struct qr_arena *arena, uint32_t number);
void *qr_arena_large_alloc(struct qr_arena *arena, size_t size, bool use_reserve, size_t *ret_usable_size);
void qr_arena_large_free(struct qr_arena *arena, void *block, size_t usable_size);

#endif
