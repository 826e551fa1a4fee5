/*
 * Page-block allocator of one database: aligned blocks by size class, counted against the memory limit.
 * Layer 0 (base).
 *
 * ARENA-1  A block handed out overlaps no other block in use; it is 64-byte aligned and usable_size bytes long.
 * ARENA-2  carved chunks + large blocks + charged bytes never exceed the limit (with use_reserve: limit + reserve).
 * ARENA-3  The bytes of a chunk that its carver has finished are covered exactly, without gap or overlap, by the blocks
 *          in use and the free blocks of that chunk. So a finished chunk whose free blocks add up to its size is
 *          unused.
 * ARENA-4  A magazine belongs to one cache, to the depot, to a trim, or to nobody; only its owner touches its plain
 *          fields.
 *
 * Picture: one range of reserved addresses, handed out in chunks of equal size. A thread's cache owns one chunk and
 * carves blocks of all classes from its front. Free blocks lie in magazines (arrays of pointers), two for each class in
 * each cache; full magazines go to the depot, one lock-free stack for each class, and come back from there. A trim
 * joins neighbouring free blocks in the depot to larger ones, and returns chunks that are free as a whole.
 *
 * Concurrency: a cache is used by one thread at a time; everything else by any number of threads. No locks: every
 * operation is lock-free. A thread stopped anywhere keeps its own magazines and chunk; one stopped in a trim also all
 * that was in the depot when it began, which at the limit is what others live on. Nobody waits for it here: a caller
 * who rather waits than fails asks qr_arena_overtaken. The arena knows nothing of readers: who frees a block guarantees
 * that nobody can read it any more (epoch/epoch.h does so).
 *
 * Read next: arena_internal.h (the parts), arena.c (alloc and free), arena_depot.c (magazines), arena_chunk.c (the
 * reserved range and the limit), arena_trim.c.
 */
#ifndef QR_BASE_ARENA_H
#define QR_BASE_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qr_arena;
struct qr_arena_magazine;

enum {
    QR_ARENA_ALIGNMENT_BYTES = 64,
    QR_ARENA_CLASS_COUNT = 72,
    QR_ARENA_CLASS_MAX_BYTES = 128 << 10 /* larger blocks are mapped one by one */
};

/* A thread's part of the arena. The fields are private. Counters: written by the cache's thread, read by all. */
struct qr_arena_cache {
    struct {
        struct qr_arena_magazine *loaded; /* never NULL: an arena-wide magazine without room stands for "none" */
        struct qr_arena_magazine *other;  /* likewise */
    } slots[QR_ARENA_CLASS_COUNT];
    char *carve_next; /* the rest of the chunk, or large free block, that this cache carves */
    char *carve_end;
    bool overtaken; /* the last failure may be due to a trim that had free blocks in its hands meanwhile */
    _Atomic uint64_t allocated_bytes; /* of blocks up to the largest class, since the cache was made */
    _Atomic uint64_t freed_bytes;
    struct qr_arena_cache *next; /* list of all caches of the arena; constant once linked */
};

/* Gauges, except for returned_bytes. Sums over running threads: exact when nobody allocates or frees meanwhile. */
struct qr_arena_stats {
    uint64_t carved_bytes;   /* chunks taken from the reserved range and not returned */
    uint64_t in_use_bytes;   /* usable bytes of the blocks handed out, large blocks included */
    uint64_t free_bytes;     /* free lists, caches, and what chunks still have uncarved */
    uint64_t returned_bytes; /* given back to the operating system by qr_arena_trim so far */
    uint64_t large_bytes;    /* mappings of blocks beyond the largest class; they count as in use */
};

/*
 * Makes an arena. limit_bytes: 0 = none. Chunks are 2 MiB, and smaller (64 or 256 KiB) if the limit is below
 * 64 MiB. Results: 0; QUIRE_ERR_NO_MEMORY if addresses or memory could not be had.
 */
int qr_arena_create(uint64_t limit_bytes, struct qr_arena **ret_arena);

/* Unmaps everything, blocks in use included. No other call may be running; caches are not touched. NULL is fine. */
void qr_arena_destroy(struct qr_arena *arena);

/* Prepares a cache and links it to the arena for good: the memory must stay until the arena's last other call. Once. */
void qr_arena_cache_init(struct qr_arena *arena, struct qr_arena_cache *cache);

/* Gives everything cached back: blocks to the depot, the chunk for others to carve on. The cache stays usable, by
 * another thread too. */
void qr_arena_cache_flush(struct qr_arena *arena, struct qr_arena_cache *cache);

/*
 * A block of at least size bytes, contents undefined; *ret_usable_size is its full size, qr_arena_class_size(size), to
 * be passed to qr_arena_free. use_reserve: for work that frees memory in the end; it may exceed the limit by
 * max(limit / 16, 1 MiB), and while more than the limit is in use, all that is free is for such work. NULL: the limit
 * or the machine's memory forbids it. Never waits.
 */
void *qr_arena_alloc(struct qr_arena *arena, struct qr_arena_cache *cache, size_t size, bool use_reserve,
                     size_t *ret_usable_size);

/* Takes a block back, from any thread. Cannot fail. Under AddressSanitizer the block is poisoned until handed out. */
void qr_arena_free(struct qr_arena *arena, struct qr_arena_cache *cache, void *block, size_t usable_size);

/* First address of the range that blocks up to the largest class come from; constant. */
const void *qr_arena_start(const struct qr_arena *arena);

/* The usable size that a request for size bytes gets: a multiple of 64, at most 12.5 % more from 512 bytes on. */
size_t qr_arena_class_size(size_t size);

void qr_arena_stats(struct qr_arena *arena, struct qr_arena_stats *ret_stats);

/* What counts against the limit: carved + large + charged. One load. */
uint64_t qr_arena_total_bytes(const struct qr_arena *arena);
uint64_t qr_arena_limit_bytes(const struct qr_arena *arena);

/* 0 = none. A limit below what is in use takes nothing back; without the reserve nothing is had until there is room. */
void qr_arena_set_limit(struct qr_arena *arena, uint64_t limit_bytes);

/* Counts memory outside the arena against the limit; never refuses. Negative: no longer. */
void qr_arena_charge(struct qr_arena *arena, int64_t delta_bytes);

/* Whether the total is above percent % of the limit; false without a limit. */
bool qr_arena_over(const struct qr_arena *arena, unsigned percent);

/*
 * Takes a chunk and has the operating system put memory behind it, so that nobody who carves it waits for that, unless
 * about `enough` are ready. True if it did.
 */
bool qr_arena_prepare(struct qr_arena *arena, unsigned enough);

/* About what lies prepared: part of the total. */
uint64_t qr_arena_prepared_bytes(const struct qr_arena *arena);

/*
 * Returns chunks of which every block is in the depot to the operating system; gives the number of bytes. In other
 * chunks neighbouring free blocks become larger ones. Blocks in the caches of other threads are not seen. Costs a visit
 * to every free block; one trim at a time, a second caller gets 0 at once.
 */
uint64_t qr_arena_trim(struct qr_arena *arena);

/*
 * After qr_arena_alloc has answered NULL: flushes the cache and trims. True if it may be worth to try again: chunks
 * were returned or larger blocks formed. While another thread trims it does nothing: see qr_arena_overtaken.
 * qr_arena_alloc has tried a trim itself, unless little had changed since the last; so what is missing after a second
 * failure is elsewhere, and callers that try several allocations together should not regroup for them without end.
 */
bool qr_arena_regroup(struct qr_arena *arena, struct qr_arena_cache *cache);

/* Whether another thread's trim has free blocks in its hands, or had some when the last allocation failed, or when the
 * last call to regroup found it. */
bool qr_arena_overtaken(struct qr_arena *arena, struct qr_arena_cache *cache);

/* Odd while a thread trims; each trim adds two. What a trim has put back is seen by whoever sees that it has ended. */
uint32_t qr_arena_trims(const struct qr_arena *arena);

#endif
