/*
 * Goal: pointers handed out under a guard keep their bytes until it ends, whatever writers do; guards nest and belong
 * to their thread; reading many keys at once answers as single reads do. Method: hold pointers while everything around
 * them is rewritten, consolidated, dropped and reclaimed.
 */
#include "api_tree.h"
#include "base/alloc.h"
#include "db/testing.h"

#include <pthread.h>
#include <unistd.h>

TestSuite(guard, .init = open_small_database, .fini = close_database, .timeout = 60);

/* Writes every key of `fill` anew with a value of another size. */
static void rewrite(uint64_t beyond, unsigned round)
{
    char key[16];
    uint8_t value[64];
    memset(value, (int)round, sizeof(value));
    for (uint64_t i = 0; i < beyond; i++)
        OK(quire_put(tree, key, numbered(i, key), value, 8 + round % 50, 0, NULL));
}

/* ---- Pinning ---------------------------------------------------------------------------------------------------- */

/* C01 */
Test(guard, a_thread_may_hold_many_and_end_them_in_any_order)
{
    struct quire_guard guards[20];
    for (unsigned i = 0; i < 20; i++)
        OK(quire_pin(db, "many", &guards[i]));
    cr_assert_eq(stats_of(db).guards_open, 20);
    for (unsigned i = 0; i < 20; i += 2)
        OK(quire_unpin(&guards[i]));
    cr_assert_eq(stats_of(db).guards_open, 10);
    for (unsigned i = 1; i < 20; i += 2)
        OK(quire_unpin(&guards[i]));
    cr_assert_eq(stats_of(db).guards_open, 0);
}

/* C01: a million pins allocate nothing */
Test(guard, pinning_takes_no_memory)
{
    struct quire_guard guard;
    OK(quire_pin(db, NULL, &guard));
    OK(quire_unpin(&guard));
    uint64_t before = stats_of(db).memory_bytes;
    qr_alloc_fail_after(1);
    for (unsigned i = 0; i < 1000000; i++) {
        if (quire_pin(db, NULL, &guard) != 0 || quire_unpin(&guard) != 0)
            cr_assert(false, "pin %u", i);
    }
    struct quire_guard many[100];
    for (unsigned i = 0; i < 100; i++)
        OK(quire_pin(db, "many", &many[i]));
    for (unsigned i = 0; i < 100; i++)
        OK(quire_unpin(&many[i]));
    cr_assert_eq(qr_alloc_fail_pending(), 1, "something was allocated");
    qr_alloc_fail_after(-1);
    cr_assert_eq(stats_of(db).memory_bytes, before);
}

/* C02 */
Test(guard, a_pointer_keeps_its_bytes_until_unpin)
{
    struct quire_guard guard;
    struct quire_value value;
    uint64_t right = 33;
    fill(tree, 0, 500);
    OK(qr_testing_attach_store(db));
    OK(quire_pin(db, "test", &guard));
    OK(quire_guard_get(&guard, tree, NULL, TEXT("key-000033"), &value));
    cr_assert(value.size == 8 && memcmp(value.data, &right, 8) == 0, "wrong value");
    for (unsigned round = 0; round < 10; round++) {
        rewrite(500, round);
        cr_assert_geq(qr_testing_consolidate(tree, round, 100), 0);
        qr_testing_drop_pages(db, round, 50);
    }
    fill(tree, 500, 3000);
    cr_assert(memcmp(value.data, &right, 8) == 0, "the bytes under the guard changed");
    OK(quire_unpin(&guard));
}

/* C02: from another thread's point of view, with background reclamation */
static void *rewrite_for_long(void *argument)
{
    (void)argument;
    for (unsigned round = 0; round < 30; round++)
        rewrite(500, round);
    return NULL;
}

Test(guard, a_pointer_keeps_its_bytes_beside_another_writer)
{
    struct quire_guard guard;
    struct quire_value value;
    pthread_t writer;
    uint8_t copy[64];
    char key[16];
    fill(tree, 0, 500);
    cr_assert_eq(pthread_create(&writer, NULL, rewrite_for_long, NULL), 0);
    for (unsigned i = 0; i < 2000; i++) {
        OK(quire_pin(db, "test", &guard));
        OK(quire_guard_get(&guard, tree, NULL, key, numbered(i % 500, key), &value));
        cr_assert_leq(value.size, sizeof(copy));
        memcpy(copy, value.data, value.size);
        for (unsigned j = 0; j < 20; j++)
            expect(tree, NULL, "absent", NULL);
        cr_assert(memcmp(value.data, copy, value.size) == 0, "bytes changed");
        OK(quire_unpin(&guard));
    }
    pthread_join(writer, NULL);
}

/* Waits, ten seconds at most, until nothing is retired; between the looks the guard, if there is one, is repinned. */
static uint64_t wait_for_reclamation(struct quire *of, struct quire_guard *guard)
{
    uint64_t retired = UINT64_MAX;
    for (unsigned i = 0; i < 1000 && retired != 0; i++) {
        if (guard != NULL)
            OK(quire_repin(guard));
        usleep(10000);
        retired = stats_of(of).memory_retired_bytes;
    }
    return retired;
}

/* C06: the guard is open all the time; the background thread takes back what it held when it is repinned, not before.
 * (quire_maintain would not do: it leaves reclamation alone while a guard is open.) */
Test(guard, repin_takes_a_newer_state_and_lets_memory_go)
{
    struct quire *busy = NULL;
    struct quire_guard guard;
    struct quire_value value;
    OK(quire_open(NULL, NULL, &busy));
    tree = open_small_tree(busy, "guard", QUIRE_VERSIONS_ENGINE);
    fill(tree, 0, 500);
    cr_assert_eq(wait_for_reclamation(busy, NULL), 0);
    OK(quire_pin(busy, "test", &guard));
    rewrite(500, 1);
    rewrite(500, 2);
    uint64_t held = stats_of(busy).memory_retired_bytes;
    cr_assert_gt(held, 0);
    usleep(200000);
    cr_assert_geq(stats_of(busy).memory_retired_bytes, held, "something was reclaimed under the guard");
    OK(quire_repin(&guard));
    put(tree, "key-000001", "newest");
    OK(quire_guard_get(&guard, tree, NULL, TEXT("key-000001"), &value));
    cr_assert(value.size == 6 && memcmp(value.data, "newest", 6) == 0, "an old state");
    uint64_t left = wait_for_reclamation(busy, &guard);
    cr_assert_eq(left, 0, "%" PRIu64 " of %" PRIu64 " bytes are held still", left, held);
    cr_assert_eq(stats_of(busy).guards_open, 1);
    OK(quire_unpin(&guard));
    OK(quire_close(busy));
}

/* C31: what guards kept is reclaimed when they have ended */
Test(guard, retired_memory_goes_back_to_nothing)
{
    struct quire_guard guard;
    OK(quire_pin(db, "holder", &guard));
    for (unsigned round = 0; round < 20; round++)
        rewrite(500, round);
    struct quire_stats held = stats_of(db);
    cr_assert_gt(held.memory_retired_bytes, 0);
    cr_assert_str_eq(held.oldest_guard_tag, "holder");
    OK(quire_unpin(&guard));
    settle(db);
    struct quire_stats after = stats_of(db);
    cr_assert_eq(after.memory_retired_bytes, 0);
    cr_assert_gt(after.reclaimed_bytes, held.reclaimed_bytes);
    cr_assert_str_eq(after.oldest_guard_tag, "");
}

/* Bad input: maintenance under a guard of this thread */
Test(guard, maintain_under_a_guard_is_busy)
{
    struct quire_guard guard;
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_maintain(db), QUIRE_ERR_BUSY);
    OK(quire_unpin(&guard));
    settle(db);
}

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

struct foreign {
    struct quire_guard *guard;
    int results[4];
};

static void *use_foreign_guard(void *argument)
{
    struct foreign *foreign = argument;
    struct quire_value value;
    struct quire_slice key = slice("key-000001");
    int result = 0;
    foreign->results[0] = quire_unpin(foreign->guard);
    foreign->results[1] = quire_repin(foreign->guard);
    foreign->results[2] = quire_guard_get(foreign->guard, tree, NULL, key.data, key.size, &value);
    foreign->results[3] = quire_get_many(foreign->guard, tree, NULL, &key, 1, &value, &result);
    return NULL;
}

/* C01, K02 */
Test(guard, of_another_thread_is_refused)
{
    struct quire_guard guard;
    struct foreign foreign = {.guard = &guard};
    pthread_t thread;
    fill(tree, 0, 10);
    OK(quire_pin(db, NULL, &guard));
    cr_assert_eq(pthread_create(&thread, NULL, use_foreign_guard, &foreign), 0);
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(foreign.results[i], QUIRE_ERR_WRONG_THREAD, "call %u: %d", i, foreign.results[i]);
    OK(quire_unpin(&guard));
}

static void *pin_and_end(void *argument)
{
    struct quire_guard *guards = argument;
    for (unsigned i = 0; i < 40; i++) {
        if (quire_pin(db, "left open", &guards[i]) != 0)
            return "pin";
    }
    return NULL;
}

/* Uses the guards of a thread that has ended, in the thread that has its record now. */
static void *use_what_was_left(void *argument)
{
    struct quire_guard *guards = argument;
    struct quire_slice key = slice("key-000001");
    struct quire_value value = {0};
    struct quire_guard own;
    int result = 0;
    for (unsigned round = 0; round < 2; round++) { /* in the second, the thread has a guard of its own */
        for (unsigned i = 0; i < 40; i++) {
            EXPECT(quire_guard_get(&guards[i], tree, NULL, key.data, key.size, &value), QUIRE_ERR_INVALID);
            expect_detail(QUIRE_ERR_INVALID, "guard has ended");
            EXPECT(quire_get_many(&guards[i], tree, NULL, &key, 1, &value, &result), QUIRE_ERR_INVALID);
            EXPECT(quire_repin(&guards[i]), QUIRE_ERR_INVALID);
            EXPECT(quire_unpin(&guards[i]), QUIRE_ERR_INVALID);
        }
        cr_assert_eq(stats_of(db).guards_open, round);
        if (round == 0)
            OK(quire_pin(db, "own", &own));
    }
    OK(quire_guard_get(&own, tree, NULL, key.data, key.size, &value));
    cr_assert_eq(own.thread, guards[0].thread, "the record was not passed on: nothing is tested");
    OK(quire_unpin(&own));
    return NULL;
}

/* C01, L09: a guard ends with its thread, and is refused to whoever has the thread's record then */
Test(guard, of_a_thread_that_has_ended_is_refused)
{
    static struct quire_guard guards[40];
    pthread_t thread;
    void *failed = NULL;
    fill(tree, 0, 10);
    cr_assert_eq(pthread_create(&thread, NULL, pin_and_end, guards), 0);
    pthread_join(thread, &failed);
    cr_assert_null(failed);
    cr_assert_eq(pthread_create(&thread, NULL, use_what_was_left, guards), 0);
    pthread_join(thread, NULL);
    EXPECT(quire_unpin(&guards[0]), QUIRE_ERR_WRONG_THREAD); /* the main thread has another record */
    cr_assert_eq(stats_of(db).guards_open, 0);
}

/* C01: a copy is the same guard; when that has ended, it is refused, whatever else is open */
Test(guard, a_copy_of_an_ended_guard_is_refused)
{
    struct quire_guard guard, copy, other;
    struct quire_value value;
    fill(tree, 0, 10);
    for (unsigned open = 0; open < 2; open++) {
        if (open != 0)
            OK(quire_pin(db, "other", &other));
        OK(quire_pin(db, "copied", &guard));
        copy = guard;
        OK(quire_repin(&guard));
        OK(quire_unpin(&guard));
        EXPECT(quire_unpin(&copy), QUIRE_ERR_INVALID);
        EXPECT(quire_repin(&copy), QUIRE_ERR_INVALID);
        EXPECT(quire_guard_get(&copy, tree, NULL, TEXT("key-000001"), &value), QUIRE_ERR_INVALID);
        cr_assert_eq(stats_of(db).guards_open, open);
    }
    OK(quire_pin(db, "takes the place", &guard));
    EXPECT(quire_unpin(&copy), QUIRE_ERR_INVALID);
    OK(quire_guard_get(&guard, tree, NULL, TEXT("key-000001"), &value));
    OK(quire_unpin(&guard));
    OK(quire_unpin(&other));
}

/* C01: more guards than the record has places for */
Test(guard, a_hundred_of_a_thread_protect_and_end_in_any_order)
{
    struct quire_guard guards[100];
    struct quire_value value;
    fill(tree, 0, 100);
    for (unsigned i = 0; i < 100; i++)
        OK(quire_pin(db, "many", &guards[i]));
    for (unsigned i = 0; i < 100; i++) {
        unsigned k = i * 37 % 100;
        OK(quire_guard_get(&guards[k], tree, NULL, TEXT("key-000001"), &value));
        OK(quire_repin(&guards[k]));
        OK(quire_unpin(&guards[k]));
        EXPECT(quire_unpin(&guards[k]), QUIRE_ERR_INVALID);
        cr_assert_eq(stats_of(db).guards_open, 99 - i);
    }
}

static void *work_and_end(void *argument)
{
    struct quire_guard guard;
    uint64_t number = (uintptr_t)argument;
    fill(tree, number, number + 3);
    if (quire_pin(db, NULL, &guard) != 0 || quire_unpin(&guard) != 0)
        return "pin";
    return NULL;
}

/* C31, L09: a thread may end at any time outside a call */
Test(guard, a_thousand_short_threads_leave_nothing)
{
    for (uintptr_t i = 0; i < 1000; i++) {
        pthread_t thread;
        void *failed = NULL;
        cr_assert_eq(pthread_create(&thread, NULL, work_and_end, (void *)i), 0);
        pthread_join(thread, &failed);
        cr_assert_null(failed);
    }
    settle(db);
    cr_assert_eq(stats_of(db).memory_retired_bytes, 0);
    cr_assert_eq(stats_of(db).guards_open, 0);
    cr_assert_eq(count_all(tree, NULL), 1002);
}

/* ---- Values ----------------------------------------------------------------------------------------------------- */

/* C12 */
Test(guard, values_are_aligned_as_the_tree_was_told)
{
    static uint8_t bytes[4096];
    for (uint32_t alignment = 1; alignment <= 64; alignment *= 2) {
        struct quire_tree_options options;
        struct quire_tree *aligned = NULL;
        struct quire_guard guard;
        struct quire_value value;
        char name[16], key[16];
        quire_tree_options_init(&options);
        options.value_alignment = alignment;
        numbered(alignment, name);
        OK(quire_tree_open(db, name, &options, &aligned));
        for (size_t size = 1; size <= sizeof(bytes); size += 13)
            OK(quire_put(aligned, key, numbered(size, key) - size % 3, bytes, size, 0, NULL));
        for (int consolidated = 0; consolidated < 2; consolidated++) {
            OK(quire_pin(db, NULL, &guard));
            for (size_t size = 1; size <= sizeof(bytes); size += 13) {
                int result = quire_guard_get(&guard, aligned, NULL, key, numbered(size, key) - size % 3, &value);
                cr_assert(result == 0 && (uintptr_t)value.data % alignment == 0, "%p for alignment %u", value.data,
                          alignment);
            }
            OK(quire_unpin(&guard));
            cr_assert_geq(qr_testing_consolidate(aligned, 1, 100), 0);
        }
    }
}

/* C30 */
Test(guard, a_value_carries_its_lsn_as_its_version)
{
    struct quire_guard guard;
    struct quire_value value;
    uint64_t lsn = 0;
    OK(quire_put(tree, TEXT("k"), TEXT("v"), 0, &lsn));
    OK(quire_pin(db, NULL, &guard));
    OK(quire_guard_get(&guard, tree, NULL, TEXT("k"), &value));
    cr_assert(value.lsn == lsn && value.version == lsn, "lsn %" PRIu64 ", version %" PRIu64, value.lsn, value.version);
    OK(quire_unpin(&guard));
}

/* ---- Many at once ----------------------------------------------------------------------------------------------- */

enum { MANY = 300 };

/* B02 for get_many: any order, duplicates, absent keys, none at all */
Test(guard, get_many_answers_like_single_reads)
{
    static char texts[MANY][16];
    static struct quire_slice keys[MANY];
    static struct quire_value values[MANY];
    static int results[MANY];
    struct quire_guard guard;
    fill(tree, 0, 1000);
    for (uint64_t i = 0; i < 1000; i += 3)
        OK(quire_delete(tree, texts[0], numbered(i, texts[0]), 0, NULL, NULL));
    for (unsigned i = 0; i < MANY; i++)
        keys[i] = (struct quire_slice){texts[i], numbered((i * 7919) % 1100, texts[i])};
    keys[1] = keys[0];

    OK(quire_pin(db, NULL, &guard));
    for (size_t count = 0; count <= MANY; count = count * 2 + 1) {
        OK(quire_get_many(&guard, tree, NULL, keys, count, values, results));
        for (size_t i = 0; i < count; i++) {
            struct quire_value single;
            int right = quire_guard_get(&guard, tree, NULL, keys[i].data, keys[i].size, &single);
            cr_assert_eq(results[i], right, "key %zu: %d, not %d", i, results[i], right);
            if (right == 0)
                cr_assert(values[i].size == single.size && values[i].lsn == single.lsn &&
                              memcmp(values[i].data, single.data, single.size) == 0,
                          "key %zu", i);
        }
    }
    OK(quire_unpin(&guard));
}

/* B02, C09 */
Test(guard, get_many_reads_at_a_snapshot)
{
    struct quire_slice keys[] = {slice("a"), slice("b"), slice("c")};
    struct quire_value values[3];
    struct quire_snapshot *snapshot;
    struct quire_guard guard;
    int results[3];
    put(tree, "a", "old");
    put(tree, "b", "old");
    OK(quire_snapshot(db, NULL, &snapshot));
    put(tree, "a", "newer");
    put(tree, "c", "newer");
    OK(quire_delete(tree, TEXT("b"), 0, NULL, NULL));
    OK(quire_pin(db, NULL, &guard));
    OK(quire_get_many(&guard, tree, snapshot, keys, 3, values, results));
    cr_assert(results[0] == 0 && results[1] == 0 && results[2] == QUIRE_NOT_FOUND, "%d %d %d", results[0], results[1],
              results[2]);
    cr_assert(values[0].size == 3 && values[1].size == 3, "not the old values");
    OK(quire_get_many(&guard, tree, NULL, keys, 3, values, results));
    cr_assert(results[0] == 0 && results[1] == QUIRE_NOT_FOUND && results[2] == 0, "%d %d %d", results[0], results[1],
              results[2]);
    OK(quire_unpin(&guard));
    OK(quire_snapshot_release(snapshot));
}
