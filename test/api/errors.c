/*
 * Goal: each code has a text, each failure a detail of its own thread; memory limits and stalls answer as promised and
 * leave the database usable.
 * Method: small limits, held guards, failing allocations.
 */
#include "api.h"
#include "base/alloc.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

TestSuite(errors, .timeout = 60);

/* K02 */
Test(errors, every_code_has_its_own_text)
{
    for (int code = QUIRE_ERR_NEWER; code <= QUIRE_INCOMPLETE; code++) {
        cr_assert(quire_strerror(code) != NULL && quire_strerror(code)[0] != 0, "code %d", code);
        for (int other = QUIRE_ERR_NEWER; other < code; other++)
            cr_assert_str_neq(quire_strerror(code), quire_strerror(other), "codes %d and %d", code, other);
    }
    /* Trees are neither counted nor dropped: no call is BUSY because of one. */
    cr_assert_null(strstr(quire_strerror(QUIRE_ERR_BUSY), "tree"), "%s", quire_strerror(QUIRE_ERR_BUSY));
    for (const char *const *word = (const char *const[]){"store", "guard", "iterator", "snapshot", "opening", NULL}; *word != NULL; word++)
        cr_assert_not_null(strstr(quire_strerror(QUIRE_ERR_BUSY), *word), "%s", quire_strerror(QUIRE_ERR_BUSY));
    cr_assert_not_null(quire_strerror(12345));
    cr_assert_not_null(quire_strerror(INT32_MIN));
}

/* K02, A12 */
Test(errors, the_version_is_that_of_the_header)
{
    char right[32];
    snprintf(right, sizeof(right), "%d.%d.%d", QUIRE_VERSION_MAJOR, QUIRE_VERSION_MINOR, QUIRE_VERSION_PATCH);
    cr_assert_str_eq(quire_version(), right);
}

static void *detail_of_a_new_thread(void *argument)
{
    struct quire_error_detail detail;
    (void)argument;
    memset(&detail, 0xff, sizeof(detail));
    quire_error_detail(&detail);
    return detail.result == 0 && detail.os_errno == 0 && detail.message != NULL && detail.message[0] == 0 ? NULL
                                                                                                          : "detail";
}

/* K02 */
Test(errors, the_detail_belongs_to_the_thread)
{
    struct quire *db = open_quiet();
    pthread_t thread;
    void *failed = NULL;
    EXPECT(quire_exists(NULL, NULL, "k", 1), QUIRE_ERR_INVALID);
    cr_assert_eq(pthread_create(&thread, NULL, detail_of_a_new_thread, NULL), 0);
    pthread_join(thread, &failed);
    cr_assert_null(failed, "a thread without a failure has a detail");
    expect_detail(QUIRE_ERR_INVALID, "tree");
    OK(quire_close(db)); /* a success leaves it */
    expect_detail(QUIRE_ERR_INVALID, "tree");
    EXPECT(quire_open("/dev/null", NULL, &db), QUIRE_ERR_FOREIGN);
    expect_detail(QUIRE_ERR_FOREIGN, "path");
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

static struct quire *open_limited(uint64_t limit, uint32_t stall_timeout_ms)
{
    struct quire_options options;
    struct quire *db = NULL;
    quire_options_init(&options);
    options.memory_limit_bytes = limit;
    options.stall_timeout_ms = stall_timeout_ms;
    options.background_threads = QUIRE_NO_THREADS;
    OK(quire_open(NULL, &options, &db));
    return db;
}

/* H09, K02: NO_MEMORY for new data; reads and deletes go on; room comes back */
Test(errors, at_the_memory_limit_new_data_is_refused_and_the_rest_works)
{
    struct quire *db = open_limited(8u << 20, 100);
    struct quire_tree *tree = open_tree(db, NULL);
    static char value[1000];
    char key[16];
    size_t size;
    uint64_t stored = 0;
    int result = 0;
    while (stored < 100000 &&
           (result = quire_put(tree, key, numbered(stored, key), value, sizeof(value), 0, NULL)) == 0)
        stored++;
    cr_assert_eq(result, QUIRE_ERR_NO_MEMORY, "%d after %" PRIu64 " records", result, stored);
    cr_assert_gt(stored, 2000);
    cr_assert_leq(stats_of(db).memory_bytes, 8u << 20);
    cr_assert_gt(stats_of(db).errors_no_memory, 0);
    cr_assert_eq(count_all(tree, NULL), stored);

    for (uint64_t i = 0; i < stored; i++) {
        OK(quire_get(tree, NULL, key, numbered(i, key), value, sizeof(value), &size));
        OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    }
    settle(db);
    cr_assert_eq(count_all(tree, NULL), 0);
    for (uint64_t i = 0; i < 1000; i++)
        OK(quire_put(tree, key, numbered(i, key), value, sizeof(value), 0, NULL));
    OK(quire_close(db));
}

/* H09: a value that cannot fit fails alone */
Test(errors, a_value_above_the_memory_limit_is_refused)
{
    struct quire *db = open_limited(4u << 20, 100);
    struct quire_tree *tree = open_tree(db, NULL);
    size_t size = 8u << 20;
    char *value = calloc(1, size);
    put(tree, "k", "v");
    EXPECT(quire_put(tree, TEXT("k"), value, size, 0, NULL), QUIRE_ERR_NO_MEMORY);
    expect(tree, NULL, "k", "v");
    put(tree, "k", "w");
    free(value);
    OK(quire_close(db));
}

/* H10 */
Test(errors, without_a_limit_memory_grows)
{
    struct quire *db = open_limited(0, 0);
    struct quire_tree *tree = open_tree(db, NULL);
    static char value[1000];
    char key[16];
    for (uint64_t i = 0; i < 20000; i++)
        OK(quire_put(tree, key, numbered(i, key), value, sizeof(value), 0, NULL));
    cr_assert_gt(stats_of(db).memory_bytes, 20u << 20);
    OK(quire_close(db));
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Writes while the main thread holds its guard; the result of the write that failed. */
static void *write_until_refused(void *argument)
{
    struct quire_tree *tree = argument;
    static char value[1000];
    char key[16];
    for (uint64_t i = 0; i < 200000; i++) {
        int result = quire_put(tree, key, numbered(i % 500, key), value, sizeof(value), 0, NULL);
        if (result != 0)
            return (void *)(intptr_t)result;
    }
    return NULL;
}

/* C10, M09, K02: a guard that holds all memory back stalls writers for the timeout, then they are told */
Test(errors, memory_held_by_a_guard_stalls_writes_for_the_timeout)
{
    struct quire *db = open_limited(8u << 20, 200);
    struct quire_tree *tree = open_tree(db, NULL);
    struct quire_guard guard;
    pthread_t writer;
    void *result = NULL;
    fill(tree, 0, 500);
    OK(quire_pin(db, "holder", &guard));
    uint64_t start_ms = now_ms();
    cr_assert_eq(pthread_create(&writer, NULL, write_until_refused, tree), 0);
    pthread_join(writer, &result);
    uint64_t took_ms = now_ms() - start_ms;
    cr_assert_eq((intptr_t)result, QUIRE_ERR_STALLED, "result %d", (int)(intptr_t)result);
    cr_assert(took_ms >= 200 && took_ms < 30000, "%" PRIu64 " ms", took_ms);
    struct quire_stats stats = stats_of(db);
    cr_assert(stats.errors_stalled >= 1 && stats.stalls >= 1 && stats.stall_ms >= 150,
              "%" PRIu64 " stalls, %" PRIu64 " ms", stats.stalls, stats.stall_ms);
    cr_assert_str_eq(stats.oldest_guard_tag, "holder");
    cr_assert_geq(stats.oldest_guard_age_ms, 150, "%" PRIu64 " ms", stats.oldest_guard_age_ms);
    cr_assert_eq(count_all(tree, NULL), 500);
    OK(quire_unpin(&guard));
    settle(db);
    cr_assert_null(write_until_refused(tree), "writes do not go on");
    OK(quire_close(db));
}

enum { SLOWED = 30 };

struct slowed {
    struct quire *db;
    uint64_t took_ms; /* SLOWED writes, after the first that was slowed down */
};

/* Writes until a write is slowed down, and then some more; NULL, or the result of the write that failed. */
static void *write_slowed(void *argument)
{
    struct slowed *slowed = argument;
    struct quire_tree *tree = open_tree(slowed->db, NULL);
    static char value[1000];
    char key[16];
    uint64_t left = 400000;
    uint64_t start_ms = 0;
    for (uint64_t i = 0; i < left; i++) {
        int result = quire_put(tree, key, numbered(i % 500, key), value, sizeof(value), 0, NULL);
        if (result != 0)
            return (void *)(intptr_t)result;
        if (start_ms == 0 && i % 50 == 0 && stats_of(slowed->db).stalls != 0) {
            start_ms = now_ms();
            left = i + 1 + SLOWED;
        }
    }
    slowed->took_ms = now_ms() - start_ms;
    return start_ms != 0 ? NULL : (void *)(intptr_t)QUIRE_MORE;
}

/* C10, M09: before a guard that stays open has taken all memory, it slows writers down, and is named by statistics */
Test(errors, a_guard_that_stays_open_slows_writes_and_is_reported)
{
    struct quire *db = NULL;
    struct quire_options options;
    struct quire_guard guard;
    pthread_t writer;
    void *result = NULL;
    quire_options_init(&options);
    options.memory_limit_bytes = 32u << 20;
    OK(quire_open(NULL, &options, &db));
    struct quire_tree *tree = open_tree(db, NULL);
    fill(tree, 0, 500);
    cr_assert_eq(stats_of(db).stalls, 0);
    OK(quire_pin(db, "stuck", &guard));
    struct slowed slowed = {.db = db};
    cr_assert_eq(pthread_create(&writer, NULL, write_slowed, &slowed), 0);
    pthread_join(writer, &result);
    struct quire_stats stats = stats_of(db);
    cr_assert_null(result, "result %d", (int)(intptr_t)result);
    cr_assert_geq(stats.stalls, SLOWED);
    cr_assert_gt(stats.stall_ms, 0);
    cr_assert_geq(slowed.took_ms, SLOWED - 5, "%u writes in %" PRIu64 " ms", SLOWED, slowed.took_ms);
    cr_assert_eq(stats.errors, 0, "a write failed");
    cr_assert_gt(stats.memory_retired_bytes, 8u << 20);
    cr_assert_leq(stats.memory_bytes, 32u << 20);
    cr_assert_eq(stats.guards_open, 1);
    cr_assert_str_eq(stats.oldest_guard_tag, "stuck");
    cr_assert_geq(stats.oldest_guard_age_ms, slowed.took_ms / 2, "%" PRIu64 " ms", stats.oldest_guard_age_ms);
    OK(quire_unpin(&guard));
    stats = stats_of(db);
    cr_assert_str_eq(stats.oldest_guard_tag, "");
    OK(quire_close(db));
}

/* ---- Failing allocations ---------------------------------------------------------------------------------------- */

/* One of everything; the first failure ends it. Whatever was opened is closed. */
static int one_of_everything(struct quire *db)
{
    struct quire_tree_options options;
    struct quire_tree *tree = NULL;
    struct quire_snapshot *snapshot = NULL;
    struct quire_pages *pages = NULL;
    struct quire_page page;
    struct quire_guard guard;
    char **names = NULL;
    void *copy = NULL;
    char key[16];
    size_t count;
    quire_tree_options_init(&options);
    options.leaf_page_size_bytes = 512;
    options.inner_page_size_bytes = 512;
    int result = quire_tree_open(db, "t", &options, &tree);
    for (uint64_t i = 0; result == 0 && i < 200; i++)
        result = quire_put(tree, key, numbered(i, key), &i, sizeof(i), 0, NULL);
    if (result == 0)
        result = quire_pin(db, "tag", &guard);
    if (result == 0)
        cr_assert_eq(quire_unpin(&guard), 0);
    if (result == 0)
        result = quire_snapshot(db, "tag", &snapshot);
    if (result == 0)
        result = quire_get_copy(tree, snapshot, TEXT("key-000001"), &copy, &count);
    if (result == 0)
        result = quire_tree_list(db, &names, &count);
    if (result == 0)
        result = quire_pages_open(tree, NULL, &pages);
    while (result == 0 && pages != NULL && (result = quire_pages_next(pages, &page)) == 0)
        continue;
    quire_free(copy);
    quire_free(names);
    quire_pages_close(pages);
    quire_snapshot_release(snapshot);
    return result == QUIRE_END ? 0 : result;
}

/* H09, K02: the n-th allocation fails, for each n, until a run passes untouched */
Test(errors, each_failing_allocation_is_reported_and_the_next_try_works)
{
    int result = QUIRE_ERR_NO_MEMORY;
    unsigned n = 1;
    for (; result != 0 && n < 3000; n++) {
        struct quire_options options;
        struct quire *db = NULL;
        quire_options_init(&options);
        options.background_threads = QUIRE_NO_THREADS;
        qr_alloc_fail_after((int64_t)n);
        result = quire_open(NULL, &options, &db);
        if (result == 0)
            result = one_of_everything(db);
        bool touched = result != 0;
        qr_alloc_fail_after(-1);
        if (touched) {
            cr_assert_eq(result, QUIRE_ERR_NO_MEMORY, "allocation %u: %d", n, result);
            expect_detail(QUIRE_ERR_NO_MEMORY, "");
        }
        if (db != NULL) {
            OK(one_of_everything(db));
            OK(quire_close(db));
        }
    }
    cr_assert(result == 0 && n > 5, "passed untouched at %u", n);
}
