/*
 * Goal: blocks have the promised sizes, never overlap, are reused, and obey the limit.
 * Method: every size class against a plain rule; random allocation and freeing, each block filled with a byte of its
 * own that is checked when it is freed; limits of 4 to 64 MiB filled, emptied and filled again with other sizes.
 */
#include "base/alloc.h"
#include "base/arena_internal.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20 };

static struct qr_arena *make_arena(uint64_t limit_bytes)
{
    struct qr_arena *arena = NULL;
    cr_assert_eq(qr_arena_create(limit_bytes, &arena), 0);
    return arena;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

Test(arena, a_class_is_the_smallest_that_fits_and_at_most_an_eighth_larger)
{
    size_t last = 0;
    unsigned classes = 0;

    for (size_t size = 0; size <= QR_ARENA_CLASS_MAX_BYTES; size++) {
        size_t class_size = qr_arena_class_size(size);
        cr_assert_geq(class_size, size);
        cr_assert_eq(class_size % QR_ARENA_ALIGNMENT_BYTES, 0);
        cr_assert_geq(class_size, last);
        cr_assert_eq(qr_arena_class_size(class_size), class_size);
        if (size > 512)
            cr_assert_leq((class_size - size) * 8, size, "size %zu class %zu", size, class_size);
        else
            cr_assert_leq(class_size, size == 0 ? 64 : (size + 63) / 64 * 64);
        classes += class_size != last;
        last = class_size;
    }
    cr_assert_eq(classes, QR_ARENA_CLASS_COUNT);
    cr_assert_eq(qr_arena_class_size(8192), 8192);
}

Test(arena, large_sizes_fill_whole_pages_with_their_header_line)
{
    for (size_t size = QR_ARENA_CLASS_MAX_BYTES + 1; size < 3 * MIB; size += 4093) {
        size_t class_size = qr_arena_class_size(size);
        cr_assert_geq(class_size, size);
        cr_assert_lt(class_size - size, 4096);
        cr_assert_eq((class_size + 64) % 4096, 0);
        cr_assert_eq(qr_arena_class_size(class_size), class_size);
    }
}

/* A block in use, filled with a byte of its own: an overlap is found when it is freed. */
struct block {
    uint8_t *data;
    size_t size;
    uint8_t fill;
};

static void take(struct qr_arena *arena, struct qr_arena_cache *cache, struct block *block, size_t size, uint8_t fill)
{
    block->data = qr_arena_alloc(arena, cache, size, false, &block->size);
    cr_assert_not_null(block->data);
    cr_assert_eq((uintptr_t)block->data % QR_ARENA_ALIGNMENT_BYTES, 0);
    cr_assert_eq(block->size, qr_arena_class_size(size));
    block->fill = fill;
    memset(block->data, fill, block->size);
}

static void give(struct qr_arena *arena, struct qr_arena_cache *cache, struct block *block)
{
    for (size_t i = 0; i < block->size; i++)
        cr_assert_eq(block->data[i], block->fill);
    qr_arena_free(arena, cache, block->data, block->size);
    block->data = NULL;
}

Test(arena, blocks_in_use_never_overlap)
{
    enum { BLOCKS = 600, ROUNDS = 30000 };
    static struct block blocks[BLOCKS];
    struct qr_arena *arena = make_arena(0);
    struct qr_arena_cache caches[2];
    uint64_t random = 88172645463325252;
    uint64_t expected_bytes = 0;
    struct qr_arena_stats stats;

    qr_arena_cache_init(arena, &caches[0]);
    qr_arena_cache_init(arena, &caches[1]);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct block *block = &blocks[next_random(&random) % BLOCKS];
        struct qr_arena_cache *cache = &caches[next_random(&random) % 2];
        size_t size = (size_t)next_random(&random) % ((size_t)1 << (6 + next_random(&random) % 12));
        if (block->data == NULL)
            take(arena, cache, block, size, (uint8_t)round);
        else
            give(arena, cache, block);
        if (round % 5000 == 0)
            qr_arena_cache_flush(arena, cache);
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        expected_bytes += blocks[i].data != NULL ? blocks[i].size : 0;
    qr_arena_stats(arena, &stats);
    cr_assert_eq(stats.in_use_bytes, expected_bytes);
    cr_assert_eq(stats.free_bytes, stats.carved_bytes - expected_bytes);
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].data != NULL)
            give(arena, &caches[0], &blocks[i]);
    }
    qr_arena_stats(arena, &stats);
    cr_assert_eq(stats.in_use_bytes, 0);
    qr_arena_destroy(arena);
}

Test(arena, freed_blocks_are_used_again_by_any_cache)
{
    enum { BLOCKS = 1000 };
    static struct block blocks[BLOCKS];
    struct qr_arena *arena = make_arena(0);
    struct qr_arena_cache first, second;
    struct qr_arena_stats before, after;

    qr_arena_cache_init(arena, &first);
    qr_arena_cache_init(arena, &second);
    for (unsigned i = 0; i < BLOCKS; i++)
        take(arena, &first, &blocks[i], 8192, (uint8_t)i);
    for (unsigned i = 0; i < BLOCKS; i++)
        give(arena, &first, &blocks[i]);
    qr_arena_cache_flush(arena, &first);
    qr_arena_stats(arena, &before);
    for (unsigned i = 0; i < BLOCKS; i++)
        take(arena, &second, &blocks[i], 8192, (uint8_t)i);
    qr_arena_stats(arena, &after);
    cr_assert_eq(after.carved_bytes, before.carved_bytes);
    cr_assert_eq(after.in_use_bytes, BLOCKS * 8192);
    qr_arena_destroy(arena);
}

/* Blocks of one size until there are no more; gives their number. */
static unsigned fill(struct qr_arena *arena, struct qr_arena_cache *cache, size_t size, struct block *blocks,
                     unsigned capacity)
{
    unsigned count = 0;

    while (count < capacity) {
        blocks[count].data = qr_arena_alloc(arena, cache, size, false, &blocks[count].size);
        if (blocks[count].data == NULL)
            break;
        cr_assert_geq(blocks[count].size, size);
        blocks[count].fill = (uint8_t)count;
        memset(blocks[count].data, (int)(count & 0xff), blocks[count].size);
        count++;
    }
    return count;
}

Test(arena, the_limit_holds_is_usable_and_survives_a_change_of_sizes)
{
    enum { CAPACITY = 200000 };
    static const uint64_t limits[] = {4 * MIB, 8 * MIB, 16 * MIB, 40 * MIB, 64 * MIB};
    static const size_t sizes[] = {8192, 700, 30000, 4096, 2000, 100000, 64};
    struct block *blocks = malloc(CAPACITY * sizeof(*blocks));

    for (unsigned l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
        for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            struct qr_arena *arena = make_arena(limits[l]);
            struct qr_arena_cache cache;
            qr_arena_cache_init(arena, &cache);
            unsigned count = fill(arena, &cache, sizes[s], blocks, CAPACITY);
            cr_assert_leq(qr_arena_total_bytes(arena), limits[l]);
            if (count < CAPACITY)
                cr_assert_gt(count * qr_arena_class_size(sizes[s]) * 10, limits[l] * 8, "limit %llu size %zu count %u",
                             (unsigned long long)limits[l], sizes[s], count);
            for (unsigned i = 0; i < count; i++)
                give(arena, &cache, &blocks[i]);
            /* The same memory in blocks of a quarter of the size, as far as classes allow. */
            unsigned smaller = fill(arena, &cache, sizes[s] / 4, blocks, CAPACITY);
            cr_assert(smaller == CAPACITY || smaller > (sizes[s] > 64 ? count * 2 : count - 1),
                      "limit %llu size %zu: %u, then %u", (unsigned long long)limits[l], sizes[s], count, smaller);
            for (unsigned i = 0; i < smaller; i++)
                give(arena, &cache, &blocks[i]);
            qr_arena_destroy(arena);
        }
    }
    free(blocks);
}

Test(arena, the_reserve_goes_beyond_the_limit_and_ends)
{
    struct qr_arena *arena = make_arena(4 * MIB);
    struct qr_arena_cache cache;
    static struct block blocks[10000];
    size_t usable_size = 12345;
    unsigned more = 0;

    qr_arena_cache_init(arena, &cache);
    fill(arena, &cache, 8192, blocks, 10000);
    cr_assert_null(qr_arena_alloc(arena, &cache, 8192, false, &usable_size));
    cr_assert_eq(usable_size, 12345, "an output stays untouched on failure");
    while (qr_arena_alloc(arena, &cache, 8192, true, &usable_size) != NULL)
        more++;
    cr_assert_geq(more, MIB / 8192 * 9 / 10);
    cr_assert_leq(qr_arena_total_bytes(arena), 5 * MIB);
    cr_assert_null(qr_arena_alloc(arena, &cache, 8192, false, &usable_size));
    qr_arena_destroy(arena);
}

Test(arena, what_comes_back_of_the_reserve_is_not_for_everybody)
{
    enum { CAPACITY = 10000 };
    struct qr_arena *arena = make_arena(4 * MIB);
    struct qr_arena_cache cache;
    static struct block blocks[CAPACITY];
    struct qr_arena_stats stats;
    size_t usable_size;
    unsigned count, freed = 0, taken = 0;

    qr_arena_cache_init(arena, &cache);
    count = fill(arena, &cache, 8192, blocks, CAPACITY);
    while ((blocks[count].data = qr_arena_alloc(arena, &cache, 8192, true, &blocks[count].size)) != NULL) {
        memset(blocks[count].data, 1, blocks[count].size);
        blocks[count++].fill = 1;
    }
    for (; freed < count / 2; freed++) /* every second one: no chunk is free as a whole */
        give(arena, &cache, &blocks[freed * 2]);
    qr_arena_cache_flush(arena, &cache);
    while (qr_arena_alloc(arena, &cache, 8192, false, &usable_size) != NULL)
        taken++;
    qr_arena_stats(arena, &stats);
    cr_assert_geq(stats.in_use_bytes, 4 * MIB - 8192, "%llu bytes in use", (unsigned long long)stats.in_use_bytes);
    cr_assert_leq(stats.in_use_bytes, 4 * MIB + 8192, "%llu bytes in use", (unsigned long long)stats.in_use_bytes);
    cr_assert_lt(taken, freed);
    while (qr_arena_alloc(arena, &cache, 8192, true, &usable_size) != NULL)
        taken++;
    cr_assert_eq(taken, freed, "%u of %u free blocks can be had with the reserve", taken, freed);
    qr_arena_destroy(arena);
}

Test(arena, charges_count_against_the_limit)
{
    struct qr_arena *arena = make_arena(8 * MIB);
    struct qr_arena_cache cache;
    size_t usable_size;

    qr_arena_cache_init(arena, &cache);
    qr_arena_charge(arena, 8 * MIB);
    cr_assert_eq(qr_arena_total_bytes(arena), 8 * MIB);
    cr_assert_not(qr_arena_over(arena, 100));
    cr_assert(qr_arena_over(arena, 99));
    cr_assert_null(qr_arena_alloc(arena, &cache, 64, false, &usable_size));
    qr_arena_charge(arena, -8 * MIB);
    cr_assert_not_null(qr_arena_alloc(arena, &cache, 64, false, &usable_size));
    qr_arena_set_limit(arena, 1);
    cr_assert(qr_arena_over(arena, 100));
    qr_arena_set_limit(arena, 0);
    cr_assert_not(qr_arena_over(arena, 0));
    cr_assert_eq(qr_arena_limit_bytes(arena), 0);
    qr_arena_destroy(arena);
}

Test(arena, large_blocks_are_counted_freed_and_found_at_destruction)
{
    struct qr_arena *arena = make_arena(64 * MIB);
    struct qr_arena_cache cache;
    struct qr_arena_stats stats;
    struct block blocks[3];

    qr_arena_cache_init(arena, &cache);
    for (unsigned i = 0; i < 3; i++)
        take(arena, &cache, &blocks[i], (size_t)(i + 1) * 5 * MIB, (uint8_t)(i + 1));
    qr_arena_stats(arena, &stats);
    cr_assert_geq(stats.large_bytes, 30 * MIB);
    cr_assert_lt(stats.large_bytes, 30 * MIB + 3 * 8192);
    cr_assert_eq(stats.in_use_bytes, stats.large_bytes);
    cr_assert_eq(qr_arena_total_bytes(arena), stats.large_bytes);
    size_t usable_size;
    cr_assert_null(qr_arena_alloc(arena, &cache, 40 * MIB, false, &usable_size));
    cr_assert_null(qr_arena_alloc(arena, &cache, SIZE_MAX, true, &usable_size));
    cr_assert_null(qr_arena_alloc(arena, &cache, SIZE_MAX - 100, true, &usable_size));
    give(arena, &cache, &blocks[1]);
    qr_arena_stats(arena, &stats);
    cr_assert_lt(stats.large_bytes, 21 * MIB);
    cr_assert_eq(qr_arena_total_bytes(arena), stats.large_bytes);
    qr_arena_destroy(arena);
}

Test(arena, a_flush_leaves_nothing_in_the_cache)
{
    struct qr_arena *arena = make_arena(4 * MIB);
    struct qr_arena_cache first, second;
    static struct block blocks[10000];
    size_t usable_size;

    qr_arena_cache_init(arena, &first);
    qr_arena_cache_init(arena, &second);
    unsigned count = fill(arena, &first, 1024, blocks, 10000);
    cr_assert_null(qr_arena_alloc(arena, &second, 1024, false, &usable_size));
    for (unsigned i = 0; i < count; i++)
        give(arena, &first, &blocks[i]);
    qr_arena_cache_flush(arena, &first);
    cr_assert_eq(fill(arena, &second, 1024, blocks, 10000), count);
    qr_arena_destroy(arena);
}

Test(arena, blocks_freed_without_memory_for_magazines_are_found_again)
{
    enum { BLOCKS = 500 };
    static struct block blocks[BLOCKS];
    struct qr_arena *arena = make_arena(0);
    struct qr_arena_cache cache;
    struct qr_arena_stats before, after;

    qr_arena_cache_init(arena, &cache);
    for (unsigned i = 0; i < BLOCKS; i++)
        take(arena, &cache, &blocks[i], 3000, (uint8_t)i);
    qr_arena_stats(arena, &before);
    uint32_t magazine_limit = arena->magazine_limit;
    arena->magazine_limit = 1;
    for (unsigned i = 0; i < BLOCKS; i++)
        give(arena, &cache, &blocks[i]);
    cr_assert_not_null(atomic_load(&arena->strays));
    arena->magazine_limit = magazine_limit;
    for (unsigned i = 0; i < BLOCKS; i++)
        take(arena, &cache, &blocks[i], 3000, (uint8_t)i);
    qr_arena_stats(arena, &after);
    cr_assert_eq(after.carved_bytes, before.carved_bytes);
    cr_assert_eq(after.in_use_bytes, before.in_use_bytes);
    for (unsigned i = 0; i < BLOCKS; i++)
        give(arena, &cache, &blocks[i]);
    qr_arena_destroy(arena);
}

#if defined(__SANITIZE_ADDRESS__)
#define SEES_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SEES_POISON 1
#endif
#endif

#ifdef SEES_POISON
#include <sanitizer/asan_interface.h>

Test(arena, free_blocks_are_poisoned_until_they_are_handed_out)
{
    struct qr_arena *arena = make_arena(0);
    struct qr_arena_cache cache;
    struct block block;

    qr_arena_cache_init(arena, &cache);
    take(arena, &cache, &block, 1000, 7);
    uint8_t *data = block.data;
    cr_assert_null(__asan_region_is_poisoned(data, block.size));
    cr_assert_not_null(__asan_region_is_poisoned(data + block.size, 1), "the uncarved rest of a chunk");
    give(arena, &cache, &block);
    cr_assert(__asan_address_is_poisoned(data));
    cr_assert(__asan_address_is_poisoned(data + block.size - 1));
    take(arena, &cache, &block, 1000, 8);
    cr_assert_eq(block.data, data);
    cr_assert_null(__asan_region_is_poisoned(data, block.size));
    qr_arena_destroy(arena);
}
#endif

Test(arena, creation_reports_missing_memory)
{
    struct qr_arena *arena = NULL;

    for (int64_t n = 1; n <= 2; n++) { /* the arena itself, its addresses */
        qr_alloc_fail_after(n);
        cr_assert_lt(qr_arena_create(0, &arena), 0);
        cr_assert_eq(qr_alloc_fail_pending(), 0);
        cr_assert_null(arena);
    }
    qr_arena_destroy(NULL);
}

/* A block that cannot be had leaves the arena as it was; a magazine that cannot be had loses none of the free blocks.
 */
Test(arena, failures_in_between_lose_no_block)
{
    enum { BLOCKS = 200, ROUNDS = 20000 };
    static struct block blocks[BLOCKS];
    struct qr_arena *arena = make_arena(0);
    struct qr_arena_cache cache;
    struct qr_arena_stats stats;
    uint64_t random = 88172645463325252;
    unsigned refused = 0;

    qr_arena_cache_init(arena, &cache);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct block *block = &blocks[next_random(&random) % BLOCKS];
        size_t size = (size_t)next_random(&random) % ((size_t)1 << (6 + next_random(&random) % 12));
        if (round % 7 == 0)
            qr_alloc_fail_after(1 + (int64_t)(next_random(&random) % 4));
        if (block->data != NULL) {
            give(arena, &cache, block);
        } else if ((block->data = qr_arena_alloc(arena, &cache, size, false, &block->size)) != NULL) {
            block->fill = (uint8_t)round;
            memset(block->data, block->fill, block->size);
        } else {
            refused++;
        }
    }
    qr_alloc_fail_after(-1);
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].data != NULL)
            give(arena, &cache, &blocks[i]);
    }
    cr_assert_gt(refused, 100);
    qr_arena_stats(arena, &stats);
    cr_assert_eq(stats.in_use_bytes, 0);
    cr_assert_eq(stats.free_bytes, qr_arena_total_bytes(arena));
    for (unsigned i = 0; i < BLOCKS; i++) /* more than there are of one class: those without a magazine are collected */
        take(arena, &cache, &blocks[i], 120 << 10, (uint8_t)i);
    for (unsigned i = 0; i < BLOCKS; i++)
        give(arena, &cache, &blocks[i]);
    qr_arena_cache_flush(arena, &cache);
    (void)qr_arena_trim(arena);
    cr_assert_eq(qr_arena_total_bytes(arena), 0, "some bytes are in no free block");
    qr_arena_destroy(arena);
}
