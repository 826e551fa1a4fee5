/*
 * Goal: blocks are usable, aligned and zeroed as promised; planned failures hit one allocation, or all from it on.
 * Method: sizes and alignments in a sweep; the countdown against every function, alone and from four threads.
 */
#include "base/alloc.h"

#include "base/check.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

Test(alloc, blocks_of_every_size_are_usable_zero_included)
{
    for (size_t size = 0; size < 5000; size = size * 5 / 4 + 1) {
        uint8_t *block = qr_malloc(size);
        cr_assert_not_null(block);
        memset(block, 0xa5, size);
        qr_free(block);
    }
    qr_free(NULL);
}

Test(alloc, calloc_gives_zero_bytes_and_refuses_an_overflow)
{
    for (int round = 0; round < 50; round++) {
        uint8_t *block = qr_calloc(30, 33);
        cr_assert_not_null(block);
        for (size_t i = 0; i < 30 * 33; i++)
            cr_assert_eq(block[i], 0);
        memset(block, 0xff, 30 * 33);
        qr_free(block);
    }
    cr_assert_null(qr_calloc(SIZE_MAX / 2, 3));
    void *empty = qr_calloc(0, 8);
    cr_assert_not_null(empty);
    qr_free(empty);
}

Test(alloc, realloc_keeps_the_bytes_and_starts_from_null)
{
    uint8_t *block = NULL;
    for (size_t size = 1; size < 100000; size *= 3) {
        block = qr_realloc(block, size);
        cr_assert_not_null(block);
        for (size_t i = 0; i < size / 3; i++)
            cr_assert_eq(block[i], 0x5a);
        memset(block, 0x5a, size);
    }
    block = qr_realloc(block, 0);
    cr_assert_not_null(block);
    qr_free(block);
}

Test(alloc, blocks_that_are_not_freed_are_counted)
{
    int64_t before = qr_alloc_live_count();
    void *blocks[4] = {qr_malloc(1), qr_calloc(1, 0), qr_realloc(NULL, 1), qr_malloc_aligned(64, 1)};
    cr_assert_eq(qr_alloc_live_count(), before + 4);
    blocks[2] = qr_realloc(blocks[2], 100);
    qr_alloc_fail_after(1);
    cr_assert_null(qr_malloc(1));
    qr_free(NULL);
    qr_free_aligned(NULL);
    cr_assert_eq(qr_alloc_live_count(), before + 4);
    for (unsigned i = 0; i < 3; i++)
        qr_free(blocks[i]);
    qr_free_aligned(blocks[3]);
    cr_assert_eq(qr_alloc_live_count(), before);
}

Test(alloc, aligned_blocks_are_aligned)
{
    for (size_t alignment = 1; alignment <= 4096; alignment *= 2) {
        for (size_t size = 0; size < 9000; size = size * 3 + 1) {
            uint8_t *block = qr_malloc_aligned(alignment, size);
            cr_assert_not_null(block);
            cr_assert_eq((uintptr_t)block % alignment, 0);
            memset(block, 1, size);
            qr_free_aligned(block);
        }
    }
    qr_free_aligned(NULL);
}

/* One allocation by the function number `which`; 1 = it worked. */
static int allocate_once(int which)
{
    void *block = NULL, *grown;
    switch (which) {
    case 0:
        block = qr_malloc(10);
        break;
    case 1:
        block = qr_calloc(2, 10);
        break;
    case 2:
        block = qr_realloc(NULL, 10);
        break;
    case 3:
        block = qr_malloc_aligned(64, 10);
        qr_free_aligned(block);
        return block != NULL;
    default:
        cr_assert(false, "no such function");
        return 0;
    }
    grown = block;
    qr_free(grown);
    return grown != NULL;
}

Test(alloc, the_nth_allocation_fails_and_no_other)
{
    for (int n = 1; n <= 9; n++) {
        qr_alloc_fail_after(n);
        for (int i = 1; i <= 12; i++) {
            cr_assert_eq(qr_alloc_fail_pending(), i <= n ? n - i + 1 : 0);
            cr_assert_eq(allocate_once(i % 4), i != n, "plan %d, allocation %d", n, i);
        }
    }
}

Test(alloc, from_the_nth_on_all_fail_until_the_next_plan)
{
    for (int n = 1; n <= 9; n++) {
        qr_alloc_fail_from(n);
        for (int i = 1; i <= 12; i++) {
            cr_assert_eq(qr_alloc_fail_pending(), i <= n ? n - i + 1 : 0);
            cr_assert_eq(allocate_once(i % 4), i < n, "plan %d, allocation %d", n, i);
        }
        qr_alloc_fail_after(n % 2 == 0 ? -1 : 1);
        cr_assert_eq(allocate_once(n % 4), n % 2 == 0);
        cr_assert(allocate_once(n % 4));
    }
}

Test(alloc, another_allocator_that_asks_is_counted_like_the_functions)
{
    qr_alloc_fail_after(3);
    cr_assert_not(qr_alloc_must_fail());
    cr_assert(allocate_once(0));
    cr_assert(qr_alloc_must_fail());
    cr_assert_not(qr_alloc_must_fail());
}

Test(alloc, the_blocks_in_use_are_counted)
{
    int64_t before = qr_alloc_live_count();
    void *blocks[4] = {qr_malloc(10), qr_calloc(1, 10), qr_malloc_aligned(64, 10), qr_realloc(NULL, 10)};
    cr_assert_eq(qr_alloc_live_count(), before + 4);
    void *grown = qr_realloc(blocks[3], 1000);
    cr_assert_not_null(grown);
    qr_alloc_fail_after(1);
    cr_assert_null(qr_malloc(10));
    cr_assert_eq(qr_alloc_live_count(), before + 4);
    qr_free(grown);
    qr_free_aligned(blocks[2]);
    qr_free(blocks[1]);
    qr_free(blocks[0]);
    qr_free(NULL);
    cr_assert_eq(qr_alloc_live_count(), before);
}

Test(alloc, a_failed_realloc_leaves_the_block_alone)
{
    char *block = qr_malloc(6);
    cr_assert_not_null(block);
    memcpy(block, "quire", 6);
    qr_alloc_fail_after(1);
    cr_assert_null(qr_realloc(block, 1 << 20));
    cr_assert_str_eq(block, "quire");
    qr_free(block);
}

Test(alloc, a_list_grows_by_doubling_and_keeps_its_items)
{
    uint64_t room = 0;
    uint64_t *list = NULL;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t *larger = qr_grow(list, i, &room, sizeof(*list));
        cr_assert_not_null(larger);
        cr_assert(room > i && (room & (room - 1)) == 0);
        list = larger;
        list[i] = i * i;
    }
    for (uint64_t i = 0; i < 1000; i++) cr_assert_eq(list[i], i * i);
    qr_alloc_fail_after(1);
    cr_assert_eq(qr_grow(list, 1000, &room, sizeof(*list)), list, "there was room");
    cr_assert_null(qr_grow(list, room, &room, sizeof(*list)));
    cr_assert_eq(room, 1024);
    cr_assert_eq(list[999], 999u * 999u);
    qr_free(list);
}

Test(alloc, a_plan_can_be_withdrawn)
{
    qr_alloc_fail_after(1);
    qr_alloc_fail_after(-1);
    for (int i = 0; i < 20; i++)
        cr_assert(allocate_once(i % 4));
}

enum { THREADS = 4, ALLOCATIONS = 5000 };

static void *allocate_often(void *arg)
{
    size_t *failed = arg;
    for (int i = 0; i < ALLOCATIONS; i++)
        *failed += !allocate_once(i % 4);
    return NULL;
}

Test(alloc, of_many_threads_exactly_one_meets_the_failure)
{
    for (int round = 0; round < 20; round++) {
        pthread_t threads[THREADS];
        size_t failed[THREADS] = {0}, sum = 0;

        qr_alloc_fail_after(1 + round * 900);
        for (int i = 0; i < THREADS; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, allocate_often, &failed[i]), 0);
        for (int i = 0; i < THREADS; i++) {
            cr_assert_eq(pthread_join(threads[i], NULL), 0);
            sum += failed[i];
        }
        cr_assert_eq(sum, 1, "round %d: %zu failures", round, sum);
        cr_assert_eq(qr_alloc_fail_pending(), 0);
    }
}
