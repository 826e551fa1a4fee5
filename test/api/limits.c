/*
 * Goal: the engine stays small: in its file, in the memory that it is given, over a thousand lives, and beside a scan that
 * never ends.
 * Method: measured from outside: file sizes, resident memory and open files of the process.
 *
 * Test program (api).
 */
#include "api.h"
#include "base/alloc.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

TestSuite(limits, .timeout = 240);

static uint64_t resident_bytes(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%lu %lu", &pages, &resident), 2);
    fclose(file);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t mapped_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static unsigned open_files(void)
{
    unsigned count = 0;
    DIR *opened = opendir("/proc/self/fd");
    cr_assert_not_null(opened);
    while (readdir(opened) != NULL)
        count++;
    closedir(opened);
    return count;
}

static struct quire *open_limited(uint64_t limit_bytes)
{
    struct quire_options options;
    struct quire *db = NULL;
    quire_options_init(&options);
    options.memory_limit_bytes = limit_bytes;
    OK(quire_open(NULL, &options, &db));
    return db;
}

/* A30: the library is below 5 MB */
Test(limits, the_shared_library_is_below_five_megabytes)
{
    struct stat status;
    const char *path = getenv("QUIRE_SHARED_LIBRARY");
    if (path == NULL || INSTRUMENTED)
        return; /* run by hand, or instrumented */
    cr_assert_eq(stat(path, &status), 0, "%s is not there", path);
    cr_assert(status.st_size > 10000 && status.st_size < 5000000, "%s has %lld bytes", path, (long long)status.st_size);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/*
 * A30: 10 MB are enough to work with; every answer is compared with an array. Puts fill the memory until one is refused,
 * then deletes make room for a while, and so on: the limit is met again and again.
 */
Test(limits, a_model_runs_within_ten_megabytes)
{
    enum { KEYS = 150000, STEPS = 700000, LIMIT = 10000000, STEPS_OF_DELETING = 50000 };
    static uint32_t model[KEYS]; /* 0: absent; else the value's number */
    struct quire *db = open_limited(LIMIT);
    struct quire_tree *tree = open_tree(db, NULL);
    uint64_t state = 7;
    uint64_t before = resident_bytes();
    uint64_t most = 0;
    uint32_t deleting_until = 0, refused = 0;
    char key[16];
    for (uint32_t i = 1; i <= STEPS; i++) {
        uint32_t number = (uint32_t)(next_random(&state) % KEYS);
        uint32_t value[20] = {i, number};
        size_t size = 0;
        int result;
        if (next_random(&state) % 2 == 0) {
            EXPECT(quire_get(tree, NULL, key, numbered(number, key), value, sizeof(value), &size),
                   model[number] != 0 ? 0 : QUIRE_NOT_FOUND);
            if (model[number] != 0)
                cr_assert(size == sizeof(value) && value[0] == model[number] && value[1] == number, "key %u", number);
        } else if (i < deleting_until) {
            result = quire_delete(tree, key, numbered(number, key), 0, NULL, NULL);
            cr_assert_eq(result, 0, "delete: %d", result);
            model[number] = 0;
        } else {
            result = quire_put(tree, key, numbered(number, key), value, sizeof(value), 0, NULL);
            cr_assert(result == 0 || result == QUIRE_ERR_NO_MEMORY, "put: %d", result);
            if (result == 0) {
                model[number] = i;
                continue;
            }
            refused++;
            deleting_until = i + STEPS_OF_DELETING;
            uint64_t bytes = stats_of(db).memory_bytes;
            cr_assert_leq(bytes, LIMIT);
            most = bytes > most ? bytes : most;
        }
    }
    cr_assert_geq(refused, 3, "the limit was met %u times", refused);
    cr_assert_gt(most, LIMIT / 10 * 8, "puts were refused at %" PRIu64 " bytes", most);
    cr_assert_leq(stats_of(db).memory_bytes, LIMIT);
    uint64_t grown = resident_bytes() - before;
    cr_assert(INSTRUMENTED || grown < 14000000, "%" PRIu64 " bytes more are resident", grown);
    OK(quire_close(db));
}

/* L14: a thousand times open, work, close leave neither memory nor files behind */
Test(limits, a_thousand_lives_leave_nothing_behind)
{
    uint64_t resident_at_100 = 0, mapped_at_100 = 0;
    int64_t blocks = 0;
    unsigned files = 0;
    for (unsigned i = 0; i < 1000; i++) {
        struct quire *db = NULL;
        struct quire_snapshot *snapshot = NULL;
        OK(quire_open(NULL, NULL, &db));
        struct quire_tree *tree = open_tree(db, "t");
        fill(tree, 0, 200);
        OK(quire_snapshot(db, "life", &snapshot));
        fill(tree, 0, 50);
        cr_assert_eq(count_all(tree, snapshot), 200);
        OK(quire_snapshot_release(snapshot));
        OK(quire_close(db));
        if (i == 0)
            blocks = qr_alloc_live_count(); /* what the thread keeps for its next database */
        cr_assert_eq(qr_alloc_live_count(), blocks, "%" PRId64 " blocks more than after the first life", qr_alloc_live_count() - blocks);
        if (i == 100) {
            resident_at_100 = resident_bytes();
            mapped_at_100 = mapped_bytes();
            files = open_files();
        }
    }
    cr_assert_eq(open_files(), files);
    cr_assert(INSTRUMENTED || mapped_bytes() <= mapped_at_100 + (4u << 20), "%" PRIu64 " bytes are mapped more",
              mapped_bytes() - mapped_at_100);
    uint64_t resident = resident_bytes();
    cr_assert(INSTRUMENTED || resident < resident_at_100 + (4u << 20), "%" PRIu64 " bytes after 100 lives, %" PRIu64
              " after 1000", resident_at_100, resident);
}

/* Overwrites everything, again and again. */
static void *overwrite(void *argument)
{
    struct quire_tree *tree = argument;
    static const char value[200] = "overwritten";
    char key[16];
    for (uint64_t i = 0; i < 300000; i++) {
        int result = quire_put(tree, key, numbered(i % 5000, key), value, sizeof(value), 0, NULL);
        if (result != 0)
            return (void *)(intptr_t)result;
    }
    return NULL;
}

/* C10, M09: an iterator that rests on a page retains that page, however much is written meanwhile */
Test(limits, a_resting_iterator_retains_one_page)
{
    struct quire *db = open_limited(8u << 20);
    struct quire_tree *tree = open_tree(db, NULL);
    struct quire_pages *pages = NULL;
    struct quire_page page;
    void *result = NULL;
    pthread_t writer;
    static char copy[1 << 16];
    fill(tree, 0, 5000);
    OK(quire_pages_open(tree, NULL, &pages));
    OK(quire_pages_next(pages, &page));
    size_t held = 0;
    for (size_t i = 0; i < page.count; i++) {
        memcpy(copy + held, page.entries[i].value, page.entries[i].value_size);
        held += page.entries[i].value_size;
    }
    cr_assert_eq(pthread_create(&writer, NULL, overwrite, tree), 0);
    pthread_join(writer, &result);
    cr_assert_null(result, "a write answered %d", (int)(intptr_t)result);
    cr_assert_leq(stats_of(db).memory_bytes, 8u << 20);
    held = 0;
    for (size_t i = 0; i < page.count; i++) {
        cr_assert_eq(memcmp(copy + held, page.entries[i].value, page.entries[i].value_size), 0, "entry %zu", i);
        held += page.entries[i].value_size;
    }
    uint64_t count = page.count;
    int step;
    while ((step = quire_pages_next(pages, &page)) == 0)
        count += page.count;
    cr_assert_eq(step, QUIRE_END);
    cr_assert_eq(count, 5000);
    OK(quire_pages_close(pages));
    OK(quire_close(db));
}

/* G16: a tree that has lost everything has one empty page, and its memory is back */
Test(limits, a_hundred_thousand_deleted_keys_leave_one_page)
{
    struct quire *db = open_quiet();
    struct quire_tree *tree = open_tree(db, NULL);
    char key[16];
    fill(tree, 0, 100000);
    uint64_t full = stats_of(db).memory_page_bytes;
    for (uint64_t i = 0; i < 100000; i++)
        OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    settle(db);
    struct quire_stats stats = stats_of(db);
    cr_assert_eq(stats.height_max, 1);
    cr_assert_eq(stats.pages_leaf, 1);
    cr_assert_eq(stats.pages_inner, 0);
    cr_assert_lt(stats.memory_page_bytes, full / 20, "%" PRIu64 " of %" PRIu64 " bytes are in use",
                 stats.memory_page_bytes, full);
    OK(quire_close(db));
}

/* B11, M02: within five seconds, or it hangs */
Test(limits, large_values_on_one_leaf_do_not_hang, .timeout = INSTRUMENTED ? 60 : 5)
{
    struct quire *db = open_quiet();
    struct quire_tree *tree = open_caller_tree(db, NULL);
    static char value[9000];
    char key[16];
    size_t size = 0;
    for (uint64_t version = 1; version <= 200; version++) {
        memset(value, (int)version, sizeof(value));
        OK(quire_put_at(tree, version, key, numbered(version % 2, key), value, sizeof(value), 0, NULL));
        OK(quire_put_at(tree, version, TEXT("short"), value, 100, 0, NULL));
    }
    for (uint64_t version = 1; version <= 200; version++) {
        OK(quire_get_at(tree, version, key, numbered(version % 2, key), value, sizeof(value), &size));
        cr_assert(size == 9000 && value[0] == (char)version && value[8999] == (char)version);
        OK(quire_get_at(tree, version, TEXT("short"), value, sizeof(value), &size));
        cr_assert(size == 100 && value[99] == (char)version);
    }
    OK(quire_close(db));
}
