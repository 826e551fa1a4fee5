/*
 * Goal: whatever comes before and after it, a call that cannot get memory changes nothing; threads that read meanwhile
 * see what was written and never fail; and the same holds when it is the machine that has no memory. Method: random
 * calls with random failures, in one thread beside the oracle, in several with a rule for each key; a limit on what the
 * process may have.
 */
#include "failing_run.h"
#include "lib/random.h"

#include <stdatomic.h>
#include <sys/resource.h>

TestSuite(failing_random, .timeout = 120);

/* ---- One thread ------------------------------------------------------------------------------------------------- */

enum { RANDOM_KEYS = 250, RANDOM_CALLS = 12000 };

static void random_read(struct world *w, struct random_stream *random)
{
    struct view view = {w->tree, w->says, w->snapshot,
                        w->snapshot == NULL ? UINT64_MAX : quire_snapshot_lsn(w->snapshot), false};
    struct view caller = {w->caller, w->caller_says, NULL, random_between(random, 1, 31), true};
    compare_get(w, &view, random_below(random, RANDOM_KEYS));
    compare_get(w, &caller, random_below(random, RANDOM_KEYS));
    if (random_chance(random, 5))
        compare_pages(w, random_chance(random, 50) ? &view : &caller, random_chance(random, 50));
}

/* Takes the snapshot, or releases it. */
static void random_snapshot(struct world *w)
{
    if (w->snapshot == NULL) {
        DID(w, quire_snapshot(w->db, "random", &w->snapshot));
    } else {
        OK(quire_snapshot_release(w->snapshot));
        w->snapshot = NULL;
    }
}

static void random_call(struct world *w, struct random_stream *random, bool growing)
{
    uint64_t number = random_below(random, RANDOM_KEYS);
    uint64_t version = random_between(random, 1, 31);
    size_t size = random_chance(random, 3) ? 2000 : random_between(random, 0, 60);
    switch (random_below(random, 20)) {
    case 0:
        random_read(w, random);
        break;
    case 1:
        if (random_chance(random, 20))
            random_snapshot(w);
        else
            DID(w, quire_maintain(w->db));
        break;
    case 2:
    case 3:
    case 4:
        world_put_at(w, version, number, size);
        break;
    case 5:
        world_delete_at(w, version, number);
        break;
    default:
        if (random_chance(random, growing ? 75 : 3))
            world_put(w, number, size);
        else
            world_delete(w, number);
    }
}

static void plan_some_failure(struct random_stream *random)
{
    int64_t n = (int64_t)random_between(random, 1, random_between(random, 1, 9));
    if (random_chance(random, 50))
        qr_alloc_fail_after(n);
    else
        qr_alloc_fail_from(n);
}

/* H09, K02: what was left half done piles up */
Test(failing_random, calls_beside_the_oracle)
{
    for (uint64_t seed = 1; seed <= 2; seed++) {
        const struct scenario s = {0};
        struct random_stream random;
        struct world w;
        world_open(&w, &s);
        struct rest rest = empty(&w);
        world_close(&w);
        world_open(&w, &s);
        random_seed(&random, seed);
        w.planned = true;
        for (unsigned i = 0; i < RANDOM_CALLS; i++) {
            plan_some_failure(&random);
            random_call(&w, &random, i / 2000 % 2 == 0);
            if (random_chance(&random, 30))
                random_read(&w, &random);
            qr_alloc_fail_after(-1);
            if (i % 500 == 499) {
                check_structure(&w);
                compare(&w);
            }
        }
        cr_assert_gt(w.failures, RANDOM_CALLS / 50, "%u failures", w.failures);
        w.planned = false;
        expect_rest(&w, &rest);
        world_close(&w);
    }
}

/* ---- Several threads -------------------------------------------------------------------------------------------- */

/* Each key has one writer, whose writes of it are numbered from 1: odd ones put their number, even ones delete. */
enum { THREADS = 3, THREAD_KEYS = 600, THREAD_CALLS = 150000 };

static struct {
    struct quire *db;
    struct quire_tree *tree;
    uint64_t keys; /* at most THREAD_KEYS */
    _Atomic uint64_t begun[THREAD_KEYS], done[THREAD_KEYS];
} shared;

static uint64_t seen(const _Atomic uint64_t *number)
{
    /* order: test.number.read pairs with test.number.write */
    return atomic_load_explicit(number, memory_order_seq_cst);
}

static void note(_Atomic uint64_t *number, uint64_t value)
{
    /* order: test.number.write pairs with test.number.read */
    atomic_store_explicit(number, value, memory_order_seq_cst);
}

/* What was read of a key is the state after a write that was not over before, and had begun. value 0: nothing. */
static const char *judge(uint64_t value, uint64_t done, uint64_t begun)
{
    if (value != 0)
        return value >= done && value <= begun ? NULL : "a value that is too old or too new";
    return done % 2 == 0 || begun > done ? NULL : "a key is missing";
}

static const char *read_key(uint64_t number)
{
    char key[16];
    uint64_t value = 0;
    size_t size;
    uint64_t done = seen(&shared.done[number]);
    int result = quire_get(shared.tree, NULL, key, numbered(number, key), &value, sizeof(value), &size);
    if (result < 0)
        return "a get failed";
    return judge(value, done, seen(&shared.begun[number]));
}

static uint64_t number_of(const struct quire_entry *entry)
{
    char digits[7] = {0};
    memcpy(digits, (const char *)entry->key + 4, 6);
    return strtoull(digits, NULL, 10);
}

/* One state of each key in the range of the walk. It may end early. */
static const char *read_pages(bool reverse)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    uint64_t done[THREAD_KEYS], values[THREAD_KEYS] = {0};
    const char *wrong = NULL;
    int result;
    quire_pages_options_init(&options);
    options.reverse = reverse;
    for (unsigned i = 0; i < shared.keys; i++)
        done[i] = seen(&shared.done[i]);
    if (quire_pages_open(shared.tree, &options, &pages) != 0)
        return NULL;
    while ((result = quire_pages_next(pages, &page)) == 0) {
        for (size_t i = 0; i < page.count; i++) {
            uint64_t number = number_of(&page.entries[i]);
            if (values[number] != 0)
                wrong = "a key comes twice";
            memcpy(&values[number], page.entries[i].value, sizeof(values[number]));
        }
    }
    quire_pages_close(pages);
    for (unsigned i = 0; i < shared.keys && wrong == NULL; i++) {
        if (result == QUIRE_END || values[i] != 0)
            wrong = judge(values[i], done[i], seen(&shared.begun[i]));
    }
    return wrong;
}

static const char *write_key(uint64_t number)
{
    char key[16];
    size_t key_size = numbered(number, key);
    uint64_t write = seen(&shared.done[number]) + 1;
    note(&shared.begun[number], write);
    int result = write % 2 != 0 ? quire_put(shared.tree, key, key_size, &write, sizeof(write), 0, NULL)
                                : quire_delete(shared.tree, key, key_size, 0, NULL, NULL);
    if (result == 0)
        note(&shared.done[number], write);
    else if (result != QUIRE_ERR_NO_MEMORY && result != QUIRE_ERR_STALLED)
        return "another failure";
    if (result == 0)
        return read_key(number);
    /* Nobody else writes it, so it is what it was. */
    uint64_t value = 0;
    size_t size;
    result = quire_get(shared.tree, NULL, key, key_size, &value, sizeof(value), &size);
    if (result < 0)
        return "a get after a write that failed, failed too";
    return value != (write % 2 == 0 ? write - 1 : 0) ? "a write that failed has changed something" : NULL;
}

static void *work(void *argument)
{
    struct random_stream random;
    uint64_t self = (uint64_t)(uintptr_t)argument;
    const char *wrong = NULL;
    struct quire_guard guard;
    while (quire_pin(shared.db, NULL, &guard) != 0) { /* until the thread is known */
    }
    quire_unpin(&guard);
    random_seed(&random, self);
    for (unsigned i = 0; i < THREAD_CALLS && wrong == NULL; i++) {
        uint64_t number = random_below(&random, shared.keys / THREADS) * THREADS + self;
        bool growing = i / 5000 % 2 == 0;
        bool puts = seen(&shared.done[number]) % 2 == 0;
        if (random_chance(&random, 30))
            plan_some_failure(&random); /* for all threads */
        else if (random_chance(&random, 10))
            qr_alloc_fail_after(-1);
        if (random_chance(&random, 1))
            wrong = read_pages(random_chance(&random, 50));
        else if (random_chance(&random, puts == growing ? 80 : 2))
            wrong = write_key(number);
        else
            wrong = read_key(random_below(&random, shared.keys));
    }
    return (void *)(uintptr_t)wrong;
}

static void run_threads(uint64_t keys)
{
    struct quire_options options;
    pthread_t threads[THREADS];
    char message[256] = "";
    void *wrong;
    memset(&shared, 0, sizeof(shared));
    shared.keys = keys;
    quire_options_init(&options);
    options.stall_timeout_ms = 1;
    options.background_threads = QUIRE_NO_THREADS;
    OK(quire_open(NULL, &options, &shared.db));
    shared.tree = open_small_tree(shared.db, "tree", QUIRE_VERSIONS_ENGINE);
    for (uintptr_t i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &wrong);
        cr_assert_null(wrong, "%s", (const char *)wrong);
    }
    qr_alloc_fail_after(-1);
    cr_assert_eq(qr_testing_check(shared.tree, message, sizeof(message)), 0, "%s", message);
    for (unsigned i = 0; i < shared.keys; i++)
        cr_assert_null(read_key(i));
    struct quire_stats stats = stats_of(shared.db);
    uint64_t failures = stats.errors_no_memory + stats.errors_stalled;
    cr_assert(failures > 20 && stats.tree_merges > 20 && stats.tree_splits > 20,
              "%" PRIu64 " failures, %" PRIu64 " merges, %" PRIu64 " splits", failures, stats.tree_merges,
              stats.tree_splits);
    OK(quire_close(shared.db));
}

/* H09, L01: gets never fail, also when merges can not be finished */
Test(failing_random, threads_with_a_rule_for_each_key)
{
    run_threads(600);
    run_threads(60); /* the tree is a single leaf now and then */
}

/* ---- The machine ------------------------------------------------------------------------------------------------ */

/* A sanitizer does not live through that. */
#ifndef PLAIN_CRITERION_H

/* H09, H10: the kernel refuses: no limit of the database's own */
Test(failing_random, a_process_that_may_have_no_more)
{
    struct rlimit before, none;
    struct quire *db = open_quiet();
    struct quire_tree *tree = open_tree(db, NULL);
    static char value[1000], other[1000];
    char key[16];
    size_t size;
    uint64_t stored = 0;
    int result = 0;
    fill(tree, 100000, 100100);
    cr_assert_eq(getrlimit(RLIMIT_DATA, &before), 0);
    none = (struct rlimit){.rlim_cur = 4096, .rlim_max = before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_DATA, &none), 0);
    while (stored < 50000 && (result = quire_put(tree, key, numbered(stored, key), value, sizeof(value), 0, NULL)) == 0)
        stored++;
    for (uint64_t i = 0; i < stored && result == QUIRE_ERR_NO_MEMORY; i++)
        result = quire_get(tree, NULL, key, numbered(i, key), other, sizeof(other), &size) == 0 ? result : 1;
    cr_assert_eq(setrlimit(RLIMIT_DATA, &before), 0);
    cr_assert_eq(result, QUIRE_ERR_NO_MEMORY, "%d after %" PRIu64 " records", result, stored);
    cr_assert_eq(count_all(tree, NULL), stored + 100);
    fill(tree, 0, 50000);
    cr_assert_eq(count_all(tree, NULL), 50100);
    OK(quire_close(db));
}

#endif
