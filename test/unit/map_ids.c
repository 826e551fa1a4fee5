/*
 * Goal: page ids are unique while they are in use, whoever takes and gives them back, however few there are; words and
 * floors say what they were told.
 * Method: many threads on a table of eight ids, with a bitmap of owners; a pop stopped in its middle while others go on.
 */
#include "map/map.h"

#include <criterion/criterion.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <quire/quire.h>

#include "base/alloc.h"
#include "base/stop.h"

enum { IDS = 8, THREADS = 16, ROUNDS = 20000 };

static struct qr_arena *arena;
static struct qr_map *map;

static void open_map(void)
{
    cr_assert_eq(qr_arena_create(0, &arena), 0);
    cr_assert_eq(qr_map_create(arena, IDS + 1, &map), 0); /* id 0 is never handed out */
}

static void close_map(void)
{
    qr_map_destroy(map);
    cr_assert_eq(qr_arena_total_bytes(arena), 0, "the table is still charged");
    qr_arena_destroy(arena);
}

TestSuite(map_ids, .init = open_map, .fini = close_map, .timeout = 120);

static qr_word some_word(uint64_t number)
{
    return qr_word_number(QR_WORD_DISK, number);
}

/* Neither the table nor an id without memory; the next try gets what the failed one would have got. */
Test(map_ids, missing_memory_is_reported_and_takes_no_id)
{
    struct qr_map *other = NULL;
    uint64_t pid = 77;
    for (int64_t n = 1; n <= 2; n++) { /* the handle, the words */
        qr_alloc_fail_after(n);
        cr_assert_eq(qr_map_create(arena, IDS, &other), QUIRE_ERR_NO_MEMORY);
        cr_assert_eq(qr_alloc_fail_pending(), 0);
        cr_assert_null(other);
    }
    qr_alloc_fail_after(1);
    cr_assert_eq(qr_map_alloc(map, some_word(1), true, &pid), QUIRE_ERR_NO_MEMORY);
    cr_assert_eq(pid, 77);
    cr_assert_eq(qr_map_ids_in_use(map), 0);
    cr_assert_eq(qr_map_alloc(map, some_word(1), true, &pid), 0);
    cr_assert_eq(pid, 1);
}

/* M04: all ids are handed out, each once; then there is no more */
Test(map_ids, each_is_handed_out_once_until_there_is_none)
{
    bool seen[IDS + 1] = {false};
    uint64_t pid = 0;
    for (unsigned i = 0; i < IDS; i++) {
        cr_assert_eq(qr_map_alloc(map, some_word(i + 100), false, &pid), 0);
        cr_assert(pid >= 1 && pid <= IDS && !seen[pid], "id %llu", (unsigned long long)pid);
        seen[pid] = true;
        cr_assert(qr_word_same(qr_map_load(map, pid), some_word(i + 100)));
    }
    cr_assert_eq(qr_map_alloc(map, some_word(1), false, &pid), QUIRE_ERR_NO_MEMORY);
    cr_assert_eq(qr_map_ids_in_use(map), IDS);
    qr_map_free(map, 3);
    cr_assert_eq(qr_word_tag(qr_map_load(map, 3)), QR_WORD_FREE);
    cr_assert_eq(qr_map_alloc(map, some_word(1), false, &pid), 0);
    cr_assert_eq(pid, 3);
    cr_assert_eq(qr_map_alloc(map, some_word(1), false, &pid), QUIRE_ERR_NO_MEMORY);
}

static _Atomic uint32_t owners[IDS + 1];
static _Atomic uint32_t faults;

static void *take_and_give(void *argument)
{
    uint32_t me = (uint32_t)(uintptr_t)argument;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t pid;
        if (qr_map_alloc(map, some_word(me), false, &pid) != 0) {
            sched_yield(); /* the others have them all */
            continue;
        }
        uint32_t nobody = 0;
        if (!atomic_compare_exchange_strong(&owners[pid], &nobody, me)) atomic_fetch_add(&faults, 1);
        if (!qr_word_same(qr_map_load(map, pid), some_word(me))) atomic_fetch_add(&faults, 1);
        if (i % 64 == 0) sched_yield();
        if (atomic_exchange(&owners[pid], 0) != me) atomic_fetch_add(&faults, 1);
        qr_map_free(map, pid);
    }
    return NULL;
}

/* M04, L07 */
Test(map_ids, sixteen_threads_never_own_the_same_one)
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, take_and_give, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&faults), 0, "%u faults", atomic_load(&faults));
    cr_assert_eq(qr_map_ids_in_use(map), 0);
}

static _Thread_local bool stops_here;
static _Atomic bool stopped, go_on;

static void hook(const char *name, void *argument)
{
    (void)argument;
    if (!stops_here || strcmp(name, "map.pop") != 0) return;
    stops_here = false;
    atomic_store(&stopped, true);
    while (!atomic_load(&go_on)) sched_yield();
}

static void *pop_slowly(void *ret_pid)
{
    stops_here = true;
    if (qr_map_alloc(map, some_word(77), false, ret_pid) != 0) *(uint64_t *)ret_pid = 0;
    return NULL;
}

/* L07: the head comes back while a pop is stopped, but what was below it is in use */
Test(map_ids, a_pop_that_was_overtaken_does_not_hand_out_an_id_in_use)
{
    pthread_t slow;
    uint64_t pid, slow_pid = 0, first, second;
    for (unsigned i = 0; i < 3; i++) cr_assert_eq(qr_map_alloc(map, some_word(i), false, &pid), 0);
    qr_map_free(map, 1);
    qr_map_free(map, 2); /* the list: 2, 1 */
    qr_stop_set_hook(hook, NULL);
    cr_assert_eq(pthread_create(&slow, NULL, pop_slowly, &slow_pid), 0);
    while (!atomic_load(&stopped)) sched_yield();
    cr_assert_eq(qr_map_alloc(map, some_word(10), false, &first), 0);
    cr_assert_eq(qr_map_alloc(map, some_word(11), false, &second), 0);
    cr_assert(first == 2 && second == 1);
    qr_map_free(map, 2); /* the head is 2 again, 1 is in use */
    atomic_store(&go_on, true);
    pthread_join(slow, NULL);
    qr_stop_set_hook(NULL, NULL);
    cr_assert_eq(slow_pid, 2);
    cr_assert_eq(qr_map_alloc(map, some_word(12), false, &pid), 0);
    cr_assert(pid > 3, "id %llu is in use", (unsigned long long)pid);
}

Test(map_ids, words_keep_their_parts)
{
    static _Alignas(64) char block[64];
    for (uint32_t chain = 0; chain <= 8; chain++) {
        qr_word word = qr_word_make(QR_WORD_HEAD, block, chain, chain * 8191);
        cr_assert_eq(qr_word_tag(word), QR_WORD_HEAD);
        cr_assert_eq(qr_word_block(word), block);
        cr_assert_eq(qr_word_chain(word), chain);
        cr_assert_eq(qr_word_head_offset(word), chain * 8191);
        qr_word sealed = qr_word_retag(word, QR_WORD_SEALED);
        cr_assert_eq(qr_word_tag(sealed), QR_WORD_SEALED);
        cr_assert_eq(qr_word_block(sealed), block);
        cr_assert_eq(qr_word_chain(sealed), chain);
    }
    qr_word disk = qr_word_number(QR_WORD_DISK, ((uint64_t)1 << 61) - 1);
    cr_assert_eq(qr_word_tag(disk), QR_WORD_DISK);
    cr_assert_eq(qr_word_value(disk), ((uint64_t)1 << 61) - 1);
}

Test(map_ids, floors_only_rise_and_are_shared_by_remainder)
{
    qr_map_raise_floor(map, 5, 100);
    qr_map_raise_floor(map, 5, 40);
    cr_assert_eq(qr_map_floor(map, 5), 100);
    cr_assert_eq(qr_map_floor(map, 5 + QR_FLOOR_COUNT), 100);
    cr_assert_eq(qr_map_floor(map, 6), 0);
}
