/*
 * Goal: at a memory limit a store never wedges: reads and deletions go on, maintenance ends, the memory is there again.
 * Method: a matrix of limits, value sizes, orders and background threads; each case is filled until there is no memory,
 * read, emptied, maintained, and filled again. QUIRE_TEST_VERBOSE in the environment: a line for each case.
 *
 * Test program (api).
 */
#include "api.h"

#include <stdio.h>

TestSuite(memory, .timeout = 240);

struct matrix_case {
    uint64_t limit_mib;
    size_t value_size;
    bool random;
    uint32_t threads;
};

static const char *name_of(const struct matrix_case *c)
{
    static char name[80];
    snprintf(name, sizeof(name), "%u MiB, %zu bytes, %s, %s", (unsigned)c->limit_mib, c->value_size,
             c->random ? "random" : "ascending", c->threads == 1 ? "1 thread" : "no threads");
    return name;
}

/* The order in which keys come: a number below 2^32 that is different for each index. */
static uint32_t number_at(const struct matrix_case *c, uint64_t index)
{
    uint32_t number = (uint32_t)index;
    if (!c->random)
        return number;
    number *= 0x9e3779b1u; /* odd: a permutation */
    number ^= number >> 16;
    return number * 0x85ebca6bu;
}

static const void *key_at(const struct matrix_case *c, uint64_t index, char key[17])
{
    snprintf(key, 17, "k%015u", (unsigned)number_at(c, index));
    return key;
}

static void expect_within_limit(struct quire *db, const struct matrix_case *c)
{
    uint64_t bytes = stats_of(db).memory_bytes;
    cr_assert_leq(bytes, c->limit_mib << 20, "%s: %" PRIu64 " bytes", name_of(c), bytes);
}

static char value[8000];

static uint64_t fill_up(struct quire *db, struct quire_tree *tree, const struct matrix_case *c)
{
    char key[17];
    uint64_t stored = 0;
    int result;
    while ((result = quire_put(tree, key_at(c, stored, key), 16, value, c->value_size, 0, NULL)) == 0) {
        if (++stored % 256 == 0)
            expect_within_limit(db, c);
    }
    cr_assert_eq(result, QUIRE_ERR_NO_MEMORY, "%s: %d after %" PRIu64 " records", name_of(c), result, stored);
    expect_within_limit(db, c);
    return stored;
}

/* Maintains until there is nothing left to do; no call may fail. */
static unsigned maintain(struct quire *db, const struct matrix_case *c)
{
    unsigned calls = 0;
    int result;
    do {
        result = quire_maintain(db);
        cr_assert(result >= 0, "%s: maintain answered %d", name_of(c), result);
        cr_assert(++calls < 3000, "%s: maintenance does not end", name_of(c));
    } while (result != 0);
    return calls;
}

/*
 * Cases in which a few deletions may answer NO_MEMORY until others are done and quire_maintain was called. A deletion
 * replaces its leaf, and blocks are not moved.
 *
 * Random keys with values of 1000 bytes: leaves and their areas have many sizes, so that at the limit, 6 % of the memory
 * being free, no piece of it is as large as a leaf (5 KiB against 6 to 22 KiB). To be mended in the tree.
 *
 * A background thread: what it reclaims lies in its own cache of blocks, where neither the writer nor a trim finds it,
 * until db/maintain.c gives it away after each round near the limit.
 */
static bool deletions_may_be_refused(const struct matrix_case *c)
{
    return (c->random && c->value_size == 1000) || c->threads != QUIRE_NO_THREADS;
}

static void delete_one(struct quire *db, struct quire_tree *tree, const struct matrix_case *c, uint64_t index,
                       bool *ret_refused)
{
    char key[17];
    int result = quire_delete(tree, key_at(c, index, key), 16, 0, NULL, NULL);
    *ret_refused = result == QUIRE_ERR_NO_MEMORY && deletions_may_be_refused(c);
    cr_assert(result == 0 || *ret_refused, "%s: deletion %" PRIu64 " answered %d", name_of(c), index, result);
    if (index % 256 == 0)
        expect_within_limit(db, c);
}

/* The number of deletions that were refused at first, and accepted after maintenance. */
static uint64_t delete_all(struct quire *db, struct quire_tree *tree, const struct matrix_case *c, uint64_t stored)
{
    uint64_t *again = malloc(stored * sizeof(*again));
    uint64_t count = 0;
    bool refused;
    for (uint64_t i = 0; i < stored; i++) {
        delete_one(db, tree, c, i, &refused);
        if (refused)
            again[count++] = i;
    }
    cr_assert_leq(count * 10, stored, "%s: %" PRIu64 " deletions refused", name_of(c), count);
    if (count != 0)
        maintain(db, c);
    for (uint64_t i = 0; i < count; i++) {
        delete_one(db, tree, c, again[i], &refused);
        cr_assert_not(refused, "%s: deletion %" PRIu64 " refused after maintenance", name_of(c), again[i]);
    }
    free(again);
    return count;
}

static void run(struct matrix_case c)
{
    struct quire_options options;
    struct quire *db = NULL;
    char key[17];
    size_t size = 0;
    quire_options_init(&options);
    options.memory_limit_bytes = c.limit_mib << 20;
    options.background_threads = c.threads;
    OK(quire_open(NULL, &options, &db));
    struct quire_tree *tree = open_tree(db, NULL);

    uint64_t stored = fill_up(db, tree, &c);
    for (uint64_t i = 0; i < stored; i++) {
        OK(quire_get(tree, NULL, key_at(&c, i, key), 16, value, sizeof(value), &size));
        cr_assert_eq(size, c.value_size);
    }
    uint64_t refused = delete_all(db, tree, &c, stored);
    unsigned calls = maintain(db, &c);
    cr_assert_eq(count_all(tree, NULL), 0);
    struct quire_stats stats = stats_of(db);
    cr_assert_eq(stats.height_max, 1, "%s: height %u", name_of(&c), (unsigned)stats.height_max);
    uint64_t again = fill_up(db, tree, &c);
    if (getenv("QUIRE_TEST_VERBOSE") != NULL)
        fprintf(stderr, "%s: %" PRIu64 " records, %" PRIu64 " deletions refused, %u calls, then %" PRIu64 "\n", name_of(&c), stored,
                refused, calls, again);
    cr_assert_geq(again * 10, stored * 9, "%s: %" PRIu64 " records, then %" PRIu64, name_of(&c), stored, again);
    OK(quire_close(db));
}

static void run_limit(uint64_t limit_mib)
{
    static const size_t value_sizes[] = {100, 1000, 7000};
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned k = 0; k < 4; k++) {
            struct matrix_case c = {limit_mib, value_sizes[i], k % 2 != 0, k / 2 != 0 ? 1 : QUIRE_NO_THREADS};
            /* With a thread each deletion that will be refused waits 10 ms for it first: with the larger limits too long. */
            if (limit_mib == 8 || c.threads == QUIRE_NO_THREADS || !c.random || c.value_size != 1000)
                run(c);
        }
    }
}

/* H09 */
Test(memory, a_store_of_8_mib_is_filled_emptied_and_filled_again)
{
    run_limit(8);
}

/* H09 */
Test(memory, a_store_of_16_mib_is_filled_emptied_and_filled_again)
{
    run_limit(16);
}

/* H09 */
Test(memory, a_store_of_64_mib_is_filled_emptied_and_filled_again)
{
    if (!INSTRUMENTED)
        run_limit(64);
}
