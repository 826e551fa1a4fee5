/*
 * Goal: unused chunks go back to the operating system, used ones never; a stopped thread blocks nobody; no ABA.
 * Method: resident memory from /proc/self/statm before and after; random survivors checked byte by byte; threads held
 * at the stop points of the depot and of the trim while others work.
 */
#include "base/arena.h"
#include "base/stop.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20, CHUNK_BYTES = 2 * MIB };

static uint64_t resident_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%*u %lu", &pages), 1);
    fclose(file);
    return (uint64_t)pages * 4096;
}

struct blocks {
    void **data;
    size_t *sizes;
    size_t count;
};

static struct blocks make_blocks(struct qr_arena *arena, struct qr_arena_cache *cache, size_t count, size_t size)
{
    struct blocks blocks = {malloc(count * sizeof(void *)), malloc(count * sizeof(size_t)), count};

    for (size_t i = 0; i < count; i++) {
        blocks.data[i] = qr_arena_alloc(arena, cache, size, false, &blocks.sizes[i]);
        cr_assert_not_null(blocks.data[i]);
        memset(blocks.data[i], (int)(i & 0xff), blocks.sizes[i]);
    }
    return blocks;
}

static void free_blocks(struct blocks *blocks)
{
    free(blocks->data);
    free(blocks->sizes);
}

Test(arena_trim, memory_of_unused_chunks_is_returned_and_carved_again)
{
    struct qr_arena *arena = NULL;
    struct qr_arena_cache cache;
    struct qr_arena_stats stats;

    cr_assert_eq(qr_arena_create(0, &arena), 0);
    qr_arena_cache_init(arena, &cache);
    for (unsigned round = 0; round < 3; round++) {
        struct blocks blocks = make_blocks(arena, &cache, 8000, 8192 - 200 * round);
        uint64_t full = resident_bytes();
        for (size_t i = 0; i < blocks.count; i++)
            qr_arena_free(arena, &cache, blocks.data[i], blocks.sizes[i]);
        qr_arena_cache_flush(arena, &cache);
        qr_arena_stats(arena, &stats);
        uint64_t carved = stats.carved_bytes;
        uint64_t returned = stats.returned_bytes;
        cr_assert_eq(qr_arena_trim(arena), carved);
        qr_arena_stats(arena, &stats);
        cr_assert_eq(stats.carved_bytes, 0);
        cr_assert_eq(stats.free_bytes, 0);
        cr_assert_eq(stats.returned_bytes, returned + carved);
        cr_assert_eq(qr_arena_total_bytes(arena), 0);
        cr_assert_lt(resident_bytes() + 50 * MIB, full);
        cr_assert_eq(qr_arena_trim(arena), 0);
        free_blocks(&blocks);
    }
    qr_arena_destroy(arena);
}

Test(arena_trim, chunks_with_a_block_in_use_stay)
{
    struct qr_arena *arena = NULL;
    struct qr_arena_cache cache;
    struct qr_arena_stats before, after;
    enum { KEEP_EACH = 1500 }; /* of 8 KiB blocks: a chunk has 256 */

    cr_assert_eq(qr_arena_create(0, &arena), 0);
    qr_arena_cache_init(arena, &cache);
    struct blocks blocks = make_blocks(arena, &cache, 8192, 8192);
    for (size_t i = 0; i < blocks.count; i++) {
        if (i % KEEP_EACH != 0)
            qr_arena_free(arena, &cache, blocks.data[i], blocks.sizes[i]);
    }
    qr_arena_cache_flush(arena, &cache);
    qr_arena_stats(arena, &before);
    cr_assert_eq(before.carved_bytes, 64 * MIB);
    cr_assert_eq(qr_arena_trim(arena), 64 * MIB - 6 * CHUNK_BYTES);
    qr_arena_stats(arena, &after);
    cr_assert_eq(after.carved_bytes, 6 * CHUNK_BYTES);
    cr_assert_eq(after.in_use_bytes, before.in_use_bytes);
    for (size_t i = 0; i < blocks.count; i += KEEP_EACH) {
        for (size_t k = 0; k < blocks.sizes[i]; k++)
            cr_assert_eq(((uint8_t *)blocks.data[i])[k], (uint8_t)i);
    }
    /* What was free in the chunks that stayed is found again. */
    struct blocks again = make_blocks(arena, &cache, 6 * 255, 8192);
    qr_arena_stats(arena, &after);
    cr_assert_eq(after.carved_bytes, 6 * CHUNK_BYTES);
    free_blocks(&again);
    free_blocks(&blocks);
    qr_arena_destroy(arena);
}

Test(arena_trim, a_chunk_that_a_flush_left_is_carved_on_also_after_a_trim)
{
    struct qr_arena *arena = NULL;
    struct qr_arena_cache cache;
    struct qr_arena_stats stats;

    cr_assert_eq(qr_arena_create(0, &arena), 0);
    qr_arena_cache_init(arena, &cache);
    for (unsigned round = 0; round < 200; round++) {
        struct blocks blocks = make_blocks(arena, &cache, 1, 8192);
        qr_arena_cache_flush(arena, &cache);
        cr_assert_eq(qr_arena_trim(arena), 0);
        free_blocks(&blocks);
    }
    qr_arena_stats(arena, &stats);
    cr_assert_eq(stats.carved_bytes, CHUNK_BYTES);
    cr_assert_eq(stats.in_use_bytes, 200 * 8192);
    qr_arena_destroy(arena);
}

/* Without the reserve: the limit is what is carved, and what is in use is less. */
static void join_neighbours(bool use_reserve)
{
    enum { BLOCKS = 16000 };
    static const uint64_t limits[] = {4 * MIB, 32 * MIB, 64 * MIB};

    for (unsigned l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
        struct qr_arena *arena = NULL;
        struct qr_arena_cache cache;
        struct qr_arena_stats before, after;
        size_t size;

        cr_assert_eq(qr_arena_create(limits[l], &arena), 0);
        qr_arena_cache_init(arena, &cache);
        struct blocks blocks = make_blocks(arena, &cache, BLOCKS, 192);
        qr_arena_set_limit(arena, use_reserve ? 1 : qr_arena_total_bytes(arena));
        /* Of each 200 blocks one stays: 38208 bytes in one piece each time. */
        for (size_t i = 0; i < BLOCKS; i++) {
            if (i % 200 != 0)
                qr_arena_free(arena, &cache, blocks.data[i], blocks.sizes[i]);
        }
        qr_arena_stats(arena, &before);
        cr_assert(qr_arena_regroup(arena, &cache));
        cr_assert_not(qr_arena_regroup(arena, &cache), "nothing has changed");
        qr_arena_stats(arena, &after);
        cr_assert_eq(after.in_use_bytes, before.in_use_bytes);
        unsigned count = 0;
        for (void *block; (block = qr_arena_alloc(arena, &cache, 30000, use_reserve, &size)) != NULL; count++)
            memset(block, 0xff, size);
        /* Small chunks end within many of the pieces. */
        cr_assert_geq(count, BLOCKS / 200 * (limits[l] < 16 * MIB ? 5 : 8) / 10, "%u of %u", count, BLOCKS / 200);
        for (size_t i = 0; i < BLOCKS; i += 200) {
            for (size_t k = 0; k < blocks.sizes[i]; k++)
                cr_assert_eq(((uint8_t *)blocks.data[i])[k], (uint8_t)i);
        }
        free_blocks(&blocks);
        qr_arena_destroy(arena);
    }
}

Test(arena_trim, neighbouring_free_blocks_become_larger_ones)
{
    join_neighbours(true);
    join_neighbours(false);
}

static void trim_at_limit(bool use_reserve)
{
    struct qr_arena *arena = NULL;
    struct qr_arena_cache cache;
    size_t size;

    cr_assert_eq(qr_arena_create(0, &arena), 0);
    qr_arena_cache_init(arena, &cache);
    struct blocks blocks = make_blocks(arena, &cache, 1000, 4096);
    qr_arena_set_limit(arena, use_reserve ? 1 : qr_arena_total_bytes(arena));
    for (size_t i = 1; i < 1000; i++)
        qr_arena_free(arena, &cache, blocks.data[i], blocks.sizes[i]);
    for (unsigned i = 0; i < 15; i++) /* in the chunk that has a block in use; the other one is returned */
        cr_assert_not_null(qr_arena_alloc(arena, &cache, 100000, use_reserve, &size), "%u", i);
    free_blocks(&blocks);
    qr_arena_destroy(arena);
}

Test(arena_trim, an_allocation_at_the_limit_trims_by_itself)
{
    trim_at_limit(true);
    trim_at_limit(false);
}

/* Random sizes, freed and trimmed at random: what is in use keeps its bytes, and in the end nothing is left carved. */
Test(arena_trim, no_byte_is_lost_or_handed_out_twice_over_many_trims)
{
    enum { BLOCKS = 3000, STEPS = 60000 };
    struct qr_arena *arena = NULL;
    struct qr_arena_cache cache;
    struct qr_arena_stats stats;
    static uint8_t *data[BLOCKS];
    static size_t sizes[BLOCKS];
    uint64_t random = 12345;

    cr_assert_eq(qr_arena_create(48 * MIB, &arena), 0);
    qr_arena_cache_init(arena, &cache);
    for (unsigned step = 0; step < STEPS; step++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned i = (unsigned)(random >> 33) % BLOCKS;
        if (data[i] != NULL) {
            cr_assert(data[i][0] == (uint8_t)i && data[i][sizes[i] - 1] == (uint8_t)i, "block %u", i);
            qr_arena_free(arena, &cache, data[i], sizes[i]);
            data[i] = NULL;
        } else {
            size_t size = (size_t)1 << (6 + (random >> 50) % 10);
            data[i] = qr_arena_alloc(arena, &cache, size + size * ((random >> 40) % 100) / 100, false, &sizes[i]);
            if (data[i] != NULL)
                memset(data[i], (int)(i & 0xff), sizes[i]);
        }
        if (step % 1000 == 999)
            qr_arena_regroup(arena, &cache);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (data[i] != NULL)
            qr_arena_free(arena, &cache, data[i], sizes[i]);
    }
    qr_arena_regroup(arena, &cache);
    qr_arena_stats(arena, &stats);
    cr_assert_eq(stats.carved_bytes, 0);
    cr_assert_eq(stats.in_use_bytes, 0);
    qr_arena_destroy(arena);
}

/* ---- Stopped threads -------------------------------------------------------------------------------------------- */

struct gate {
    const char *name;
    sem_t arrived;
    sem_t go_on;
    _Atomic int armed;
};

static void hold_once(const char *name, void *arg)
{
    struct gate *gate = arg;
    if (strcmp(name, gate->name) != 0 || atomic_exchange(&gate->armed, 0) == 0)
        return;
    sem_post(&gate->arrived);
    sem_wait(&gate->go_on);
}

struct worker {
    struct qr_arena *arena;
    struct qr_arena_cache cache;
    void *block;
    size_t size;
};

static void *allocate_one(void *arg)
{
    struct worker *worker = arg;
    worker->block = qr_arena_alloc(worker->arena, &worker->cache, 8192, false, &worker->size);
    return NULL;
}

static void *trim_once(void *arg)
{
    struct worker *worker = arg;
    qr_arena_trim(worker->arena);
    return NULL;
}

static void start_held(struct gate *gate, const char *name, void *(*run)(void *), struct worker *worker,
                       pthread_t *thread)
{
    gate->name = name;
    sem_init(&gate->arrived, 0, 0);
    sem_init(&gate->go_on, 0, 0);
    atomic_store(&gate->armed, 1);
    qr_stop_set_hook(hold_once, gate);
    cr_assert_eq(pthread_create(thread, NULL, run, worker), 0);
    sem_wait(&gate->arrived);
}

/*
 * The stopped thread has read magazine A as the head and B as its next. Meanwhile all four magazines A B C D are taken
 * and their blocks handed out; A and D are filled again and put back, and D is taken: A is the head once more, B is not
 * in the depot. Without the tag the stopped pop would make B the head.
 */
Test(arena_trim, a_pop_that_was_overtaken_does_not_install_a_stale_next)
{
    struct qr_arena *arena = NULL;
    static struct worker stopped, other;
    static struct gate gate;
    pthread_t thread;
    enum { MAGAZINE = 16, BLOCKS = 4 * MAGAZINE };

    cr_assert_eq(qr_arena_create(0, &arena), 0);
    stopped.arena = other.arena = arena;
    qr_arena_cache_init(arena, &stopped.cache);
    qr_arena_cache_init(arena, &other.cache);
    struct blocks blocks = make_blocks(arena, &other.cache, BLOCKS, 8192);
    for (size_t i = 0; i < BLOCKS; i++)
        qr_arena_free(arena, &other.cache, blocks.data[i], blocks.sizes[i]);
    qr_arena_cache_flush(arena, &other.cache);

    start_held(&gate, "arena.pop_loaded", allocate_one, &stopped, &thread);
    struct blocks used = make_blocks(arena, &other.cache, BLOCKS, 8192);
    for (size_t i = 0; i < 2 * MAGAZINE; i++)
        qr_arena_free(arena, &other.cache, used.data[i], used.sizes[i]);
    qr_arena_cache_flush(arena, &other.cache);
    struct blocks again = make_blocks(arena, &other.cache, MAGAZINE, 8192);
    sem_post(&gate.go_on);
    pthread_join(thread, NULL);

    /* Nothing that is in use is handed out a second time. */
    struct blocks more = make_blocks(arena, &stopped.cache, BLOCKS, 8192);
    for (size_t k = 0; k < BLOCKS; k++) {
        cr_assert_neq(more.data[k], stopped.block);
        for (size_t i = 2 * MAGAZINE; i < BLOCKS; i++)
            cr_assert_neq(more.data[k], used.data[i]);
        for (size_t i = 0; i < MAGAZINE; i++)
            cr_assert_neq(more.data[k], again.data[i]);
    }
    qr_stop_set_hook(NULL, NULL);
    free_blocks(&blocks);
    free_blocks(&used);
    free_blocks(&again);
    free_blocks(&more);
    qr_arena_destroy(arena);
}

Test(arena_trim, others_allocate_and_free_while_a_trim_is_stopped)
{
    struct qr_arena *arena = NULL;
    static struct worker stopped, other;
    static struct gate gate;
    struct qr_arena_stats stats;
    pthread_t thread;

    cr_assert_eq(qr_arena_create(0, &arena), 0);
    stopped.arena = other.arena = arena;
    qr_arena_cache_init(arena, &other.cache);
    struct blocks blocks = make_blocks(arena, &other.cache, 1024, 8192);
    for (size_t i = 0; i < 1024; i++)
        qr_arena_free(arena, &other.cache, blocks.data[i], blocks.sizes[i]);
    qr_arena_cache_flush(arena, &other.cache);

    start_held(&gate, "arena.trim_taken", trim_once, &stopped, &thread);
    struct blocks more = make_blocks(arena, &other.cache, 1024, 8192);
    cr_assert_eq(qr_arena_trim(arena), 0);
    sem_post(&gate.go_on);
    pthread_join(thread, NULL);
    for (size_t i = 0; i < 1024; i++) {
        cr_assert_eq(*(uint8_t *)more.data[i], (uint8_t)i);
        qr_arena_free(arena, &other.cache, more.data[i], more.sizes[i]);
    }
    qr_arena_cache_flush(arena, &other.cache);
    qr_arena_trim(arena);
    qr_arena_stats(arena, &stats);
    cr_assert_eq(stats.carved_bytes, 0);
    qr_stop_set_hook(NULL, NULL);
    free_blocks(&blocks);
    free_blocks(&more);
    qr_arena_destroy(arena);
}
