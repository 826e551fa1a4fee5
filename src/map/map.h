/*
 * map.h: the mapping table: page ids to words, and the life of page ids.
 *
 * Layer 3. A flat array of 64-bit words in reserved address space. What a word says is in its tag:
 *
 *   UNLOADED  nothing known in memory (the all-zero word)
 *   FREE      the id is not in use; links the free list
 *   PRIVATE   a page that only a sibling link leads to, or none yet: the right half of a split that is not untagged
 *   HEAD      a page in memory: block, head of its chain, length of its chain
 *   SEALED    as HEAD, but the page is being merged into its left neighbour and takes no change any more
 *   DISK      a page that is not in memory: its address
 *   FORWARD   the page was merged: the id of the page that has its keys now
 *
 * MAP-1  Every change of a reachable page is one CAS on its word, from a word that the caller has loaded in its present
 *        epoch section. So a word cannot come back meanwhile: the block that it names is not reused before the section
 *        ends, and within a block chains only grow.
 * MAP-2  An id is pushed to the free list after a grace period, or if it was never reachable.
 * MAP-3  Legal transitions: FREE to PRIVATE or HEAD (alloc); PRIVATE to HEAD (untag); HEAD to HEAD (install); HEAD to
 *        SEALED (seal); SEALED to FORWARD (absorbed); FORWARD to FREE; HEAD to DISK (evict); DISK to HEAD (fetch, blind
 *        write). doc/concurrency.md names the functions.
 *
 * All functions are lock-free and may be called by any thread. Page contents are none of this layer's business.
 */
#ifndef QR_MAP_MAP_H
#define QR_MAP_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/check.h"

/* ---- Words ------------------------------------------------------------------------------------------------------ */

typedef struct {
    uint64_t bits;
} qr_word;

enum qr_word_tag {
    QR_WORD_UNLOADED = 0,
    QR_WORD_FREE = 1,
    QR_WORD_PRIVATE = 2,
    QR_WORD_HEAD = 3,
    QR_WORD_SEALED = 4,
    QR_WORD_DISK = 5,
    QR_WORD_FORWARD = 6,
};

/* Block words: block address / 64 (41 bits) | offset of the head delta / 16 (16) | chain length (4) | tag (3). */
#define QR_WORD_TAG_MASK 7u
#define QR_WORD_CHAIN_SHIFT 3
#define QR_WORD_CHAIN_MASK 15u
#define QR_WORD_OFFSET_SHIFT 7
#define QR_WORD_OFFSET_MASK 0xffffu
#define QR_WORD_BLOCK_SHIFT 23
#define QR_WORD_ADDRESS_BITS 47

static inline enum qr_word_tag qr_word_tag(qr_word word)
{
    return (enum qr_word_tag)(word.bits & QR_WORD_TAG_MASK);
}

static inline bool qr_word_same(qr_word a, qr_word b)
{
    return a.bits == b.bits;
}

/* Of PRIVATE, HEAD and SEALED words: the block. */
static inline void *qr_word_block(qr_word word)
{
    return (void *)(uintptr_t)(word.bits >> QR_WORD_BLOCK_SHIFT << 6);
}

static inline uint32_t qr_word_chain(qr_word word)
{
    return (uint32_t)(word.bits >> QR_WORD_CHAIN_SHIFT) & QR_WORD_CHAIN_MASK;
}

static inline uint32_t qr_word_head_offset(qr_word word)
{
    return (uint32_t)(word.bits >> QR_WORD_OFFSET_SHIFT) & QR_WORD_OFFSET_MASK;
}

/* tag: PRIVATE, HEAD or SEALED. The block is 64-byte aligned and lies in the lower 128 TiB of the address space. */
static inline qr_word qr_word_make(enum qr_word_tag tag, const void *block, uint32_t chain, uint32_t head_offset)
{
    uint64_t address = (uint64_t)(uintptr_t)block;
    QR_ASSERT((address & 63) == 0 && address >> QR_WORD_ADDRESS_BITS == 0 && chain <= QR_WORD_CHAIN_MASK);
    return (qr_word){address >> 6 << QR_WORD_BLOCK_SHIFT | (uint64_t)head_offset << QR_WORD_OFFSET_SHIFT |
                     (uint64_t)chain << QR_WORD_CHAIN_SHIFT | (uint64_t)tag};
}

/* The same page, with another tag of PRIVATE, HEAD and SEALED. */
static inline qr_word qr_word_retag(qr_word word, enum qr_word_tag tag)
{
    return (qr_word){(word.bits & ~(uint64_t)QR_WORD_TAG_MASK) | (uint64_t)tag};
}

/* Of DISK, FORWARD and FREE words: the address or id. */
static inline qr_word qr_word_number(enum qr_word_tag tag, uint64_t number)
{
    return (qr_word){number << 3 | (uint64_t)tag};
}

static inline uint64_t qr_word_value(qr_word word)
{
    return word.bits >> 3;
}

/* ---- The table -------------------------------------------------------------------------------------------------- */

#define QR_FLOOR_COUNT 4096u
#define QR_PID_NONE 0u            /* never handed out */
#define QR_PID_UNKNOWN UINT64_MAX /* a stub's right sibling, until it is joined with its image */

struct qr_map {
    _Atomic uint64_t *words;
    uint64_t capacity;        /* ids; constant */
    struct qr_arena *arena;   /* charged for touched parts of the table */
    _Atomic uint64_t *changes; /* NULL: nobody asks; else a bit for each id, see qr_map_note_change */
    QR_CACHE_ALIGNED _Atomic uint64_t next_pid;     /* ids from here on were never in use */
    _Atomic uint64_t charged_bytes;
    QR_CACHE_ALIGNED _Atomic uint64_t free_list;    /* tag (24 bits) | id (40 bits) */
    _Atomic uint64_t free_count;
    QR_CACHE_ALIGNED _Atomic uint64_t floors[QR_FLOOR_COUNT];
};

/* capacity: ids at most, 0 = default (2^32). Results: 0, NO_MEMORY. */
int qr_map_create(struct qr_arena *arena, uint64_t capacity, struct qr_map **ret_map);
void qr_map_destroy(struct qr_map *map);

static inline qr_word qr_map_load(const struct qr_map *map, uint64_t pid)
{
    QR_ASSERT(pid < map->capacity);
    /* order: map.read pairs with map.install: what the word names was written before the word */
    return (qr_word){atomic_load_explicit(&map->words[pid], memory_order_acquire)};
}

/* The same, ordered after what this thread has taken out of the set of changes. */
static inline qr_word qr_map_load_latest(const struct qr_map *map, uint64_t pid)
{
    /* order: map.change.look pairs with map.change.note: FLUSH-2 */
    return (qr_word){atomic_load_explicit(&map->words[pid], memory_order_seq_cst)};
}

/* Asks for the word's cache line. */
static inline void qr_map_prefetch(const struct qr_map *map, uint64_t pid)
{
    __builtin_prefetch((const void *)(uintptr_t)&map->words[pid]);
}

/* Installs `to` if the word still is *expected; else *expected becomes the present word. */
static inline bool qr_map_cas(struct qr_map *map, uint64_t pid, qr_word *expected, qr_word to)
{
    QR_ASSERT(pid < map->capacity);
    /* order: map.install pairs with map.read: publishes the block or delta; on failure reads as map.read */
    return atomic_compare_exchange_strong_explicit(&map->words[pid], &expected->bits, to.bits, memory_order_acq_rel,
                                                   memory_order_acquire);
}

/*
 * Takes an id that nobody knows and gives it this word (PRIVATE or HEAD). use_reserve as in qr_arena_alloc.
 * Results: 0, NO_MEMORY (the table is full, or the memory limit is reached).
 */
int qr_map_alloc(struct qr_map *map, qr_word word, bool use_reserve, uint64_t *ret_pid);

/* As a checkpoint left it: ids below next_pid were in use, those of `free_ids` are free, and the others are UNLOADED. Before
 * anybody uses the map. 0 or NO_MEMORY. */
int qr_map_restore(struct qr_map *map, uint64_t next_pid, const uint64_t *free_ids, uint64_t free_count);

/* Gives an id back that no section can reach any more (MAP-2). */
void qr_map_free(struct qr_map *map, uint64_t pid);

/* ---- Floors ----------------------------------------------------------------------------------------------------- */

/* The floor of a page that is not in memory: at least the max_lsn that it had when it was evicted. */
static inline uint64_t qr_map_floor(const struct qr_map *map, uint64_t pid)
{
    /* order: map.floor.read pairs with map.floor.raise: a DISK word seen implies its floor */
    return atomic_load_explicit(&map->floors[pid % QR_FLOOR_COUNT], memory_order_acquire);
}

/* Before the CAS to a DISK word. */
void qr_map_raise_floor(struct qr_map *map, uint64_t pid, uint64_t max_lsn);

/* ---- Structure changes ------------------------------------------------------------------------------------------ */

/*
 * The set S of rule R2: ids whose bounds, links, entries or existence changed since they were taken out of it last. A member
 * is put in after the CAS that changed it.
 */

/* Begins to keep the set. Before other threads use the map. 0 or NO_MEMORY. */
int qr_map_keep_changes(struct qr_map *map);

static inline void qr_map_note_change(struct qr_map *map, uint64_t pid)
{
    if (map->changes == NULL) return;
    /* order: map.change.note pairs with map.change.take: the change of the word comes before it (sequentially consistent, as is
     * the look at the word after a bit was taken: FLUSH-2) */
    atomic_fetch_or_explicit(&map->changes[pid / 64], (uint64_t)1 << pid % 64, memory_order_seq_cst);
}

/* Takes an id out of the set. Whether it was in. */
bool qr_map_take_change(struct qr_map *map, uint64_t pid);

/* Takes 64 ids out, those from first_pid on (a multiple of 64): a bit for each that was in. */
uint64_t qr_map_take_changes(struct qr_map *map, uint64_t first_pid);

/* Whether the set has a member at present. */
bool qr_map_has_changes(const struct qr_map *map);

/* Ids from here on were never in use. */
uint64_t qr_map_end(const struct qr_map *map);

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

uint64_t qr_map_charged_bytes(const struct qr_map *map);
uint64_t qr_map_ids_in_use(const struct qr_map *map);

#endif
