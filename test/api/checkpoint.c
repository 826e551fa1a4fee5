/*
 * Goal: a checkpoint makes the log before it unnecessary, at any moment and beside any writes, and nothing is lost by it.
 * Method: stores whose log is cut by checkpoints between and beside operations; abandoned, closed and opened again; compared with a
 * plain array; sizes of the files looked at.
 */
#include "api_inside.h"

#include "base/stop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[64];

static void make_root(void)
{
    snprintf(root, sizeof(root), "/tmp/quire-checkpoint-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static void remove_root(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(checkpoint, .init = make_root, .fini = remove_root);

static struct quire *open_with(uint32_t threads, uint32_t interval_ms, uint64_t cap_bytes)
{
    struct quire_options options;
    struct quire *db = NULL;
    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    options.log_segment_bytes = 65536;
    options.background_threads = threads;
    options.checkpoint_interval_ms = interval_ms;
    options.log_cap_bytes = cap_bytes;
    int result = quire_open(root, &options, &db);
    struct quire_error_detail detail;
    quire_error_detail(&detail);
    cr_assert(result == 0, "open: %s (%s)", quire_strerror(result), detail.message);
    return db;
}

static struct quire *open_with_interval(uint32_t threads, uint32_t interval_ms)
{
    return open_with(threads, interval_ms, 0);
}

static struct quire *open_store(uint32_t threads)
{
    return open_with_interval(threads, QUIRE_NO_PERIOD);
}

/* ---- One thread, against an array ------------------------------------------------------------------------------- */

#define KEYS 4000u
static uint32_t model[KEYS]; /* 0: absent */
static uint64_t state = 1;

static uint32_t draw(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static void key_of(uint32_t k, char *key)
{
    sprintf(key, "%06u", k * 7919 % KEYS);
}

static void operate(struct quire_tree *tree, uint32_t count)
{
    static char value[3000];
    char key[16];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t k = draw(KEYS);
        key_of(k, key);
        if (draw(4) == 0) {
            OK(quire_delete(tree, key, 6, 0, NULL, NULL));
            model[k] = 0;
        } else {
            uint32_t size = 4 + draw(100) + (draw(50) == 0 ? draw(2900) : 0);
            model[k] = draw(1u << 30) + 1;
            memset(value, (int)model[k], size);
            memcpy(value, &model[k], 4);
            OK(quire_put(tree, key, 6, value, size, 0, NULL));
        }
    }
}

static void compare(struct quire_tree *tree)
{
    static char value[3000];
    char key[16];
    size_t size;
    for (uint32_t k = 0; k < KEYS; k++) {
        uint32_t number = 0;
        key_of(k, key);
        int result = quire_get(tree, NULL, key, 6, value, sizeof(value), &size);
        if (result != QUIRE_NOT_FOUND) {
            OK(result);
            memcpy(&number, value, 4);
            cr_assert_eq(value[size - 1], size > 4 ? (char)number : value[size - 1]);
        }
        cr_assert_eq(number, model[k], "key %u", k);
    }
}

Test(checkpoint, stores_survive_any_sequence_of_checkpoints_and_ends)
{
    struct quire *db = open_store(QUIRE_NO_THREADS);
    struct quire_tree *tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
    for (unsigned round = 0; round < 60; round++) {
        operate(tree, draw(3000));
        if (draw(3) == 0) OK(quire_checkpoint(db));
        operate(tree, draw(300));
        while (draw(3) == 0) cr_assert_geq(quire_maintain(db), 0);
        if (draw(3) == 0) OK(quire_checkpoint(db));
        switch (draw(3)) {
        case 0:
            OK(quire_close(db));
            break;
        case 1:
            abandon(db);
            break;
        default:
            continue;
        }
        uint32_t threads = draw(2) == 0 ? QUIRE_NO_THREADS : 1;
        db = open_store(threads);
        tree = open_tree(db, "t");
        if (draw(2) == 0) compare(tree);
        if (threads == QUIRE_NO_THREADS) check_structure(tree); /* else maintenance changes it meanwhile */
    }
    compare(tree);
    OK(quire_close(db));
}

Test(checkpoint, after_one_the_log_before_is_gone)
{
    char command[200];
    struct quire *db = open_store(QUIRE_NO_THREADS);
    struct quire_tree *tree = open_tree(db, "t");
    for (unsigned i = 0; i < 30; i++) {
        operate(tree, 3000);
        OK(quire_checkpoint(db));
    }
    snprintf(command, sizeof(command), "test $(ls %s | grep -c log-) -lt 8", root);
    cr_assert_eq(system(command), 0, "log segments are left");
    abandon(db);
    db = open_store(QUIRE_NO_THREADS);
    cr_assert_lt(db->files->recovery.log.records, 10, "recovery replayed what was in the checkpoint");
    compare(open_tree(db, "t"));
    OK(quire_close(db));
}

Test(checkpoint, trees_and_caller_versions_are_in_it)
{
    char name[16];
    struct quire *db = open_store(QUIRE_NO_THREADS);
    for (unsigned i = 0; i < 40; i++) {
        sprintf(name, "tree %u", i);
        struct quire_tree *tree = i % 3 == 0 ? open_caller_tree(db, name) : open_tree(db, name);
        if (i % 3 == 0) {
            OK(quire_put_at(tree, 10, TEXT("k"), TEXT("old"), 0, NULL));
            OK(quire_put_at(tree, 20, TEXT("k"), TEXT("new"), 0, NULL));
        } else {
            put(tree, "k", name);
        }
        if (i % 10 == 7) OK(quire_checkpoint(db));
        if (i % 10 == 9) {
            abandon(db);
            db = open_store(QUIRE_NO_THREADS);
        }
    }
    abandon(db);
    db = open_store(QUIRE_NO_THREADS);
    for (unsigned i = 0; i < 40; i++) {
        sprintf(name, "tree %u", i);
        struct quire_tree *tree = i % 3 == 0 ? open_caller_tree(db, name) : open_tree(db, name);
        if (i % 3 != 0) {
            expect(tree, NULL, "k", name);
        } else {
            expect_at(tree, 15, "k", "old");
            expect_at(tree, 20, "k", "new");
        }
    }
    OK(quire_close(db));
}

Test(checkpoint, large_values_are_in_it)
{
    char *value = malloc(1000000);
    char *got = malloc(1000000);
    struct quire *db = open_store(QUIRE_NO_THREADS);
    struct quire_tree *tree = open_tree(db, "t");
    for (uint32_t i = 0; i < 20; i++) {
        memset(value, (int)i, 1000000);
        OK(quire_put(tree, &i, 4, value, 50000 * i, 0, NULL));
        if (i % 5 == 2) OK(quire_checkpoint(db));
    }
    abandon(db);
    db = open_store(QUIRE_NO_THREADS);
    tree = open_tree(db, "t");
    for (uint32_t i = 0; i < 20; i++) {
        size_t size;
        OK(quire_get(tree, NULL, &i, 4, got, 1000000, &size));
        cr_assert_eq(size, 50000 * i);
        if (size != 0) cr_assert_eq(got[size - 1], (char)i);
    }
    OK(quire_close(db));
    free(value);
    free(got);
}

/* ---- By itself ------------------------------------------------------------------------------------------------- */

/* E32: one comes when the interval is over, not before, and not if nothing was written; recovery reads what came after it */
Test(checkpoint, comes_when_the_interval_is_over)
{
    const uint64_t second = 1000000000;
    struct quire *db = open_with_interval(QUIRE_NO_THREADS, 0); /* the default is a minute */
    struct quire_tree *tree = open_tree(db, "t");
    for (uint64_t round = 0; round < 3; round++) {
        fill(tree, round * 10000, round * 10000 + 10000);
        qr_clock_advance_ns(30 * second);
        settle(db);
        cr_assert_eq(db->checkpointer.count, round);
        qr_clock_advance_ns(31 * second);
        settle(db);
        cr_assert_eq(db->checkpointer.count, round + 1);
    }
    qr_clock_advance_ns(600 * second);
    settle(db);
    cr_assert_eq(db->checkpointer.count, 3, "nothing was written");
    fill(tree, 0, 500);
    abandon(db);
    db = open_with_interval(QUIRE_NO_THREADS, 0);
    cr_assert(db->files->recovery.log.records >= 500 && db->files->recovery.log.records < 510, "%llu records of 30500",
              (unsigned long long)db->files->recovery.log.records);
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), 30000);
    OK(quire_close(db));
}

/* F04, F36: one comes when there is as much log as log_cap_bytes, and so recovery reads no more than about that */
Test(checkpoint, comes_by_the_size_of_the_log_and_bounds_recovery)
{
    enum { CAP = 1 << 20, STEP = 500, STEPS = 200 };
    struct quire *db = open_with(QUIRE_NO_THREADS, QUIRE_NO_PERIOD, CAP);
    struct quire_tree *tree = open_tree(db, "t");
    for (uint64_t step = 0; step < STEPS; step++) {
        fill(tree, step % 20 * STEP, step % 20 * STEP + STEP);
        settle(db);
    }
    uint64_t written = stats_of(db).log_bytes;
    cr_assert_gt(written, 4 * CAP);
    cr_assert(db->checkpointer.count >= written / CAP / 2 && db->checkpointer.count <= written / CAP + 1, "%llu checkpoints",
              (unsigned long long)db->checkpointer.count);
    abandon(db);
    db = open_with(QUIRE_NO_THREADS, QUIRE_NO_PERIOD, CAP);
    struct quire_stats stats = stats_of(db);
    /* whole segments, and what a step wrote */
    cr_assert_leq(stats.recovery_bytes, CAP + 4 * 65536, "%llu bytes", (unsigned long long)stats.recovery_bytes);
    cr_assert_leq(stats.recovery_records, written / 4 / 32);
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), 20 * STEP);
    OK(quire_close(db));
}

/* E32: the same by the engine's own thread, under writes that go on */
Test(checkpoint, comes_by_itself_beside_writes)
{
    struct quire *db = open_with_interval(1, 20);
    struct quire_tree *tree = open_tree(db, "t");
    uint64_t written = 0;
    for (; db->checkpointer.count < 5 && written < 100000000; written += 1000)
        fill(tree, written % 100000, written % 100000 + 1000);
    cr_assert_geq(db->checkpointer.count, 5);
    abandon(db);
    db = open_with_interval(1, 20);
    cr_assert_lt(db->files->recovery.log.records, written);
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), qr_min(written, 100000));
    OK(quire_close(db));
}

/* The log has at most 1024 segments: writers wait for the checkpoint that sets some free; without a thread the caller makes it. */
Test(checkpoint, makes_room_in_a_log_of_small_segments)
{
    static char value[4000];
    for (unsigned threads = 0; threads < 2; threads++) {
        struct quire_options options;
        struct quire *db = NULL;
        unsigned refused = 0;
        quire_options_init(&options);
        options.level = QUIRE_LEVEL_PROCESS;
        options.log_segment_bytes = 16384;
        options.background_threads = threads == 0 ? QUIRE_NO_THREADS : 1;
        options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
        OK(quire_open(root, &options, &db));
        struct quire_tree *tree = open_tree(db, "t");
        for (uint64_t i = 0; i < 4000; i++) { /* two of them to a segment */
            uint64_t key = i % 100;
            int result = quire_put(tree, &key, sizeof(key), value, sizeof(value), 0, NULL);
            if (result == QUIRE_ERR_NO_SPACE && threads == 0 && refused++ == 0) {
                while (quire_maintain(db) == QUIRE_MORE) continue;
                result = quire_put(tree, &key, sizeof(key), value, sizeof(value), 0, NULL);
            }
            struct quire_error_detail detail;
            quire_error_detail(&detail);
            cr_assert(result == 0, "%u threads, put %u: %s", threads, (unsigned)i, detail.message);
        }
        cr_assert_eq(refused, threads == 0, "%u times", refused);
        cr_assert_geq(db->checkpointer.count, 1);
        OK(quire_close(db));
    }
}

static _Atomic int held_up, may_go_on;

static void hold_up(const char *name, void *argument)
{
    (void)argument;
    if (strcmp(name, "checkpoint.bound") != 0) return;
    atomic_store(&held_up, 1);
    while (atomic_load(&may_go_on) == 0) usleep(1000);
}

static void *let_go_on(void *argument)
{
    (void)argument;
    usleep(100000);
    atomic_store(&may_go_on, 1);
    return NULL;
}

/* By a large value too, whose PARTs find no room. */
Test(checkpoint, is_waited_for_by_a_large_value_when_the_log_is_full)
{
    static char value[20000];
    struct quire_options options;
    struct quire *db = NULL;
    pthread_t thread;
    int result = 0;
    quire_options_init(&options);
    options.level = QUIRE_LEVEL_PROCESS;
    options.log_segment_bytes = 16384;
    options.checkpoint_interval_ms = QUIRE_NO_PERIOD;
    options.blob_threshold_bytes = 1 << 20;
    OK(quire_open(root, &options, &db));
    struct quire_tree *tree = open_tree(db, "t");
    db->options.stall_timeout_ms = 20;
    qr_stop_set_hook(hold_up, NULL);
    for (uint64_t i = 0; i < 100000 && result == 0; i++) {
        uint64_t key = i % 100;
        result = quire_put(tree, &key, sizeof(key), value, 2000, 0, NULL);
    }
    EXPECT(result, QUIRE_ERR_NO_SPACE);
    cr_assert_eq(atomic_load(&held_up), 1);
    db->options.stall_timeout_ms = 10000;
    cr_assert_eq(pthread_create(&thread, NULL, let_go_on, NULL), 0);
    result = quire_put(tree, TEXT("key"), value, sizeof(value), 0, NULL);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    qr_stop_set_hook(NULL, NULL);
    cr_assert_eq(result, 0, "%s", quire_strerror(result));
    OK(quire_close(db));
}

static struct quire_tree *hot_tree;
static unsigned hot_times;

/* While pages are written, the first times. */
static void write_hot(const char *name, void *argument)
{
    (void)argument;
    if (strcmp(name, "flush.written") != 0 || hot_times == 5) return;
    hot_times++;
    for (unsigned i = 0; i < 40; i++) put(hot_tree, "key-000500", "hot");
}

/* A page that is written to all the time, so that it is another one whenever a group of pages has been written. */
Test(checkpoint, saves_a_page_that_is_never_at_rest)
{
    struct quire *db = open_store(QUIRE_NO_THREADS);
    struct quire_tree *tree = open_tree(db, "t");
    fill(tree, 0, 1000);
    OK(quire_checkpoint(db));
    put(tree, "key-000500", "hot");
    uint64_t first = qr_log_tail(&db->log);
    for (unsigned i = 0; i < 40; i++) put(tree, "key-000001", "another");
    hot_tree = tree;
    qr_stop_set_hook(write_hot, NULL);
    OK(quire_checkpoint(db));
    qr_stop_set_hook(NULL, NULL);
    cr_assert_geq(db->checkpointer.record.replay_from, first, "written to %u times", hot_times);
    OK(quire_close(db));
}

/* ---- Beside the creation of a tree ------------------------------------------------------------------------------- */

static struct quire *saved_db;

static void *save(void *argument)
{
    OK(quire_checkpoint(argument));
    return NULL;
}

static void save_there(const char *name, void *argument)
{
    pthread_t thread;
    struct quire *db = saved_db;
    if (db == NULL || strcmp(name, argument) != 0) return;
    saved_db = NULL; /* the other thread comes by here, too */
    cr_assert_eq(pthread_create(&thread, NULL, save, db), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* The catalogue has the tree by then, and so must the checkpoint have its root. */
Test(checkpoint, of_a_tree_that_is_just_being_created)
{
    static char stop[] = "tree.recorded";
    for (unsigned way = 0; way < 4; way++) {
        char name[16];
        snprintf(name, sizeof(name), "new %u", way);
        struct quire *db = open_store(QUIRE_NO_THREADS);
        put(open_tree(db, "t"), "key", "value");
        saved_db = db;
        qr_stop_set_hook(save_there, stop);
        struct quire_tree *tree = open_tree(db, name);
        qr_stop_set_hook(NULL, NULL);
        cr_assert_null(saved_db);
        if (way < 2) put(tree, "key", "value");
        if (way % 2 == 0) {
            OK(quire_close(db));
        } else {
            abandon(db);
        }
        db = open_store(QUIRE_NO_THREADS);
        tree = open_tree(db, name);
        expect(tree, NULL, "key", way < 2 ? "value" : NULL);
        put(tree, "other", "value");
        OK(quire_close(db));
    }
}

/* ---- Beside writers --------------------------------------------------------------------------------------------- */

#define WRITERS 3u
static _Atomic int stop_writing;
static struct quire_tree *shared_tree;
static uint64_t written[WRITERS];

/* Each writer's keys carry rising numbers, and come and go, so that pages split and merge. */
static void *write_on(void *argument)
{
    uint64_t id = (uint64_t)(uintptr_t)argument;
    char key[32];
    uint64_t n = 0;
    while (atomic_load(&stop_writing) == 0) {
        n++;
        int size = sprintf(key, "%llu %05llu", (unsigned long long)id, (unsigned long long)(n * 31 % 3000));
        int result = n / 3000 % 2 == 1 ? quire_delete(shared_tree, key, (size_t)size, 0, NULL, NULL)
                                       : quire_put(shared_tree, key, (size_t)size, &n, 8, 0, NULL);
        cr_assert_eq(result, 0, "%s", quire_strerror(result));
    }
    written[id] = n;
    return NULL;
}

Test(checkpoint, writers_go_on_beside_it)
{
    for (unsigned round = 0; round < 3; round++) {
        pthread_t threads[WRITERS];
        char name[16];
        struct quire *db = open_store(1);
        sprintf(name, "round %u", round);
        shared_tree = open_small_tree(db, name, QUIRE_VERSIONS_ENGINE);
        atomic_store(&stop_writing, 0);
        for (uintptr_t i = 0; i < WRITERS; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, write_on, (void *)i), 0);
        for (unsigned i = 0; i < 15; i++) {
            OK(quire_checkpoint(db));
            usleep(2000);
        }
        atomic_store(&stop_writing, 1);
        for (unsigned i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
        cr_assert_geq(db->checkpointer.count, 15);
        abandon(db);
        db = open_store(QUIRE_NO_THREADS);
        shared_tree = open_tree(db, name);
        check_structure(shared_tree);
        for (uint64_t id = 0; id < WRITERS; id++) {
            static uint64_t last[3000];
            memset(last, 0, sizeof(last));
            for (uint64_t n = 1; n <= written[id]; n++) last[n * 31 % 3000] = n / 3000 % 2 == 1 ? 0 : n;
            for (uint64_t k = 0; k < 3000; k++) {
                char key[32];
                uint64_t n = 0;
                size_t got = 0;
                int size = sprintf(key, "%llu %05llu", (unsigned long long)id, (unsigned long long)k);
                int result = quire_get(shared_tree, NULL, key, (size_t)size, &n, 8, &got);
                cr_assert(result == 0 || result == QUIRE_NOT_FOUND);
                cr_assert(n == last[k], "writer %llu, key %llu: %llu, not %llu", (unsigned long long)id,
                          (unsigned long long)k, (unsigned long long)n, (unsigned long long)last[k]);
            }
        }
        OK(quire_close(db));
    }
}
