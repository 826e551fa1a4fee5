/*
 * Goal: insert, compare_and_swap and add decide and write in one step, and change nothing when they do not write.
 * Method: scripts of single calls; threads that want the same thing at the same time.
 */
#include "api_tree.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

TestSuite(conditional, .init = open_database, .fini = close_database, .timeout = 60);

/* ---- insert ----------------------------------------------------------------------------------------------------- */

/* D02, B21 */
Test(conditional, insert_writes_once_and_again_after_a_delete)
{
    uint64_t lsn = 5;
    OK(quire_insert(tree, TEXT("k"), TEXT("first"), 0, NULL));
    EXPECT(quire_insert(tree, TEXT("k"), TEXT("second"), 0, &lsn), QUIRE_EXISTS);
    cr_assert_eq(lsn, 5, "the output was touched");
    expect(tree, NULL, "k", "first");
    OK(quire_delete(tree, TEXT("k"), 0, NULL, NULL));
    OK(quire_insert(tree, TEXT("k"), TEXT("third"), 0, &lsn));
    expect(tree, NULL, "k", "third");
}

/* B07: an empty value counts as a value */
Test(conditional, insert_meets_an_empty_value)
{
    OK(quire_insert(tree, NULL, 0, NULL, 0, 0, NULL));
    EXPECT(quire_insert(tree, "", 0, TEXT("x"), 0, NULL), QUIRE_EXISTS);
}

/* ---- compare_and_swap ------------------------------------------------------------------------------------------- */

/* D01 */
Test(conditional, compare_and_swap_replaces_the_expected_value_only)
{
    put(tree, "k", "old");
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), TEXT("other"), TEXT("new"), 0, NULL), QUIRE_CONFLICT);
    expect(tree, NULL, "k", "old");
    OK(quire_compare_and_swap(tree, TEXT("k"), TEXT("old"), TEXT("new"), 0, NULL));
    expect(tree, NULL, "k", "new");
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), TEXT("old"), TEXT("newer"), 0, NULL), QUIRE_CONFLICT);
    expect(tree, NULL, "k", "new");
}

/* D01: comparison by bytes and by size */
Test(conditional, compare_and_swap_takes_no_prefix_for_the_value)
{
    put(tree, "k", "value");
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), TEXT("valu"), TEXT("x"), 0, NULL), QUIRE_CONFLICT);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), "value", 6, TEXT("x"), 0, NULL), QUIRE_CONFLICT);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), NULL, 0, TEXT("x"), 0, NULL), QUIRE_CONFLICT);
    OK(quire_put(tree, TEXT("k"), NULL, 0, 0, NULL));
    OK(quire_compare_and_swap(tree, TEXT("k"), NULL, 0, TEXT("x"), 0, NULL));
    expect(tree, NULL, "k", "x");
}

/* D02 */
Test(conditional, compare_and_swap_of_an_absent_or_deleted_key_is_not_found)
{
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), TEXT("v"), TEXT("x"), 0, NULL), QUIRE_NOT_FOUND);
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), NULL, 0, TEXT("x"), 0, NULL), QUIRE_NOT_FOUND);
    put(tree, "k", "v");
    OK(quire_delete(tree, TEXT("k"), 0, NULL, NULL));
    EXPECT(quire_compare_and_swap(tree, TEXT("k"), TEXT("v"), TEXT("x"), 0, NULL), QUIRE_NOT_FOUND);
    expect(tree, NULL, "k", NULL);
}

/* D01 */
Test(conditional, compare_and_swap_to_the_same_value_succeeds_again)
{
    uint64_t first = 0, second = 0;
    put(tree, "k", "v");
    OK(quire_compare_and_swap(tree, TEXT("k"), TEXT("v"), TEXT("v"), 0, &first));
    OK(quire_compare_and_swap(tree, TEXT("k"), TEXT("v"), TEXT("v"), 0, &second));
    cr_assert_gt(second, first);
}

/* ---- add -------------------------------------------------------------------------------------------------------- */

/* D08, D09: FeOxDB's counter example, and the bytes that are stored */
Test(conditional, add_creates_counts_up_and_down)
{
    int64_t value = 0;
    uint8_t bytes[8];
    size_t size = 0;
    OK(quire_add(tree, TEXT("counter"), 1, 0, &value, NULL));
    cr_assert_eq(value, 1);
    OK(quire_add(tree, TEXT("counter"), 9, 0, &value, NULL));
    cr_assert_eq(value, 10);
    OK(quire_add(tree, TEXT("counter"), -10, 0, &value, NULL));
    cr_assert_eq(value, 0);
    OK(quire_add(tree, TEXT("counter"), -2, 0, NULL, NULL));
    OK(quire_get(tree, NULL, TEXT("counter"), bytes, sizeof(bytes), &size));
    cr_assert(size == 8 && memcmp(bytes, "\xfe\xff\xff\xff\xff\xff\xff\xff", 8) == 0, "not little-endian -2");
}

/* D09 */
Test(conditional, add_counts_a_deleted_key_as_zero)
{
    int64_t value = 0;
    OK(quire_add(tree, TEXT("counter"), 100, 0, NULL, NULL));
    OK(quire_delete(tree, TEXT("counter"), 0, NULL, NULL));
    OK(quire_add(tree, TEXT("counter"), 5, 0, &value, NULL));
    cr_assert_eq(value, 5);
}

/* D10 */
Test(conditional, add_refuses_values_that_are_not_8_bytes)
{
    static const char *const values[] = {"", "1234567", "123456789"};
    for (size_t i = 0; i < 3; i++) {
        int64_t value = 77;
        put(tree, "k", values[i]);
        EXPECT(quire_add(tree, TEXT("k"), 1, 0, &value, NULL), QUIRE_ERR_WRONG_TYPE);
        cr_assert_eq(value, 77, "the output was touched");
        expect(tree, NULL, "k", values[i]);
    }
}

/* D11 */
Test(conditional, add_beyond_the_range_changes_nothing)
{
    int64_t value = 77;
    OK(quire_add(tree, TEXT("high"), INT64_MAX, 0, NULL, NULL));
    EXPECT(quire_add(tree, TEXT("high"), 1, 0, &value, NULL), QUIRE_ERR_OVERFLOW);
    OK(quire_add(tree, TEXT("low"), INT64_MIN, 0, NULL, NULL));
    EXPECT(quire_add(tree, TEXT("low"), -1, 0, &value, NULL), QUIRE_ERR_OVERFLOW);
    cr_assert_eq(value, 77, "the output was touched");
    OK(quire_add(tree, TEXT("high"), 0, 0, &value, NULL));
    cr_assert_eq(value, INT64_MAX);
    OK(quire_add(tree, TEXT("low"), INT64_MAX, 0, &value, NULL));
    cr_assert_eq(value, -1);
}

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

#define THREADS 16

static pthread_barrier_t start;
static uint8_t *wins[THREADS];
static int64_t *sums[THREADS];

enum { ROUNDS = 2000, ADDS = 5000 };

static void run(unsigned count, void *(*body)(void *))
{
    pthread_t threads[THREADS];
    void *failed = NULL;
    cr_assert_eq(pthread_barrier_init(&start, NULL, count), 0);
    for (uintptr_t i = 0; i < count; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, body, (void *)i), 0);
    for (unsigned i = 0; i < count; i++) {
        pthread_join(threads[i], &failed);
        cr_assert_null(failed, "%s", (const char *)failed);
    }
    pthread_barrier_destroy(&start);
}

/* The value is the round; whoever leads to the next one has won it. */
static void *lead_on(void *argument)
{
    uint32_t round = 0;
    size_t size = 0;
    pthread_barrier_wait(&start);
    while (round < ROUNDS) {
        uint32_t next = round + 1;
        int result = quire_compare_and_swap(tree, TEXT("round"), &round, sizeof(round), &next, sizeof(next), 0, NULL);
        if (result == 0)
            wins[(uintptr_t)argument][round] = 1;
        else if (result != QUIRE_CONFLICT)
            return "compare_and_swap";
        if (quire_get(tree, NULL, TEXT("round"), &round, sizeof(round), &size) != 0)
            return "get";
    }
    return NULL;
}

/* D05 */
Test(conditional, of_sixteen_swaps_exactly_one_wins)
{
    uint32_t zero = 0;
    OK(quire_put(tree, TEXT("round"), &zero, sizeof(zero), 0, NULL));
    for (unsigned i = 0; i < THREADS; i++)
        wins[i] = calloc(ROUNDS, 1);
    run(THREADS, lead_on);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned winners = 0;
        for (unsigned i = 0; i < THREADS; i++)
            winners += wins[i][round];
        cr_assert_eq(winners, 1, "round %u has %u winners", round, winners);
    }
    for (unsigned i = 0; i < THREADS; i++)
        free(wins[i]);
}

static _Atomic unsigned buyers_won;

/* One attempt to take 10 pieces. */
static void *buy(void *argument)
{
    char current[8] = "", next[8];
    size_t size = 0;
    (void)argument;
    pthread_barrier_wait(&start);
    if (quire_get(tree, NULL, TEXT("stock"), current, sizeof(current) - 1, &size) != 0)
        return "get";
    int stock = atoi(current);
    if (stock < 10)
        return NULL;
    memset(next, 0, sizeof(next));
    int length = snprintf(next, sizeof(next), "%d", stock - 10);
    if (quire_compare_and_swap(tree, TEXT("stock"), current, size, next, (size_t)length, 0, NULL) == 0)
        /* relaxed: read when all buyers have been joined */
        atomic_fetch_add_explicit(&buyers_won, 1, memory_order_relaxed);
    return NULL;
}

/* D06: FeOxDB's example; the stress test runs it a thousand times */
Test(conditional, five_buyers_take_what_they_won)
{
    for (unsigned i = 0; i < 50; i++) {
        char right[8];
        put(tree, "stock", "50");
        /* relaxed: no buyer is running */
        atomic_store_explicit(&buyers_won, 0, memory_order_relaxed);
        run(5, buy);
        /* relaxed: all buyers have been joined */
        unsigned winners = atomic_load_explicit(&buyers_won, memory_order_relaxed);
        cr_assert(winners >= 1 && winners <= 5, "%u winners", winners);
        snprintf(right, sizeof(right), "%u", 50 - 10 * winners);
        expect(tree, NULL, "stock", right);
    }
}

static void *add_ones(void *argument)
{
    int64_t *mine = sums[(uintptr_t)argument];
    pthread_barrier_wait(&start);
    for (unsigned i = 0; i < ADDS; i++) {
        if (quire_add(tree, TEXT("sum"), 1, 0, &mine[i], NULL) != 0)
            return "add";
    }
    return NULL;
}

/* D13 */
Test(conditional, sums_of_sixteen_threads_are_all_different_and_none_is_lost)
{
    int64_t total = 0;
    size_t size = 0;
    uint8_t *seen = calloc(THREADS * ADDS + 1, 1);
    for (unsigned i = 0; i < THREADS; i++)
        sums[i] = calloc(ADDS, sizeof(int64_t));
    run(THREADS, add_ones);
    OK(quire_get(tree, NULL, TEXT("sum"), &total, sizeof(total), &size));
    cr_assert_eq(total, THREADS * ADDS);
    for (unsigned i = 0; i < THREADS; i++) {
        for (unsigned j = 0; j < ADDS; j++) {
            cr_assert(sums[i][j] >= 1 && sums[i][j] <= total, "sum %" PRId64, sums[i][j]);
            cr_assert_eq(seen[sums[i][j]]++, 0, "sum %" PRId64 " twice", sums[i][j]);
        }
        free(sums[i]);
    }
    free(seen);
}
