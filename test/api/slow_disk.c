/*
 * Goal: a disk that is slower than its writers slows them down; neither memory nor log grows with what it is behind.
 * Method: a simulated disk of some MiB a second, or with syncs of seconds; threads that write the same keys over and over.
 */
#include "api_sim.h"

#include "os/thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

TestSuite(slow_disk, .timeout = 200);

enum { KEYS = 4000, VALUE_BYTES = 1000, CAP_BYTES = 2 << 20, SEGMENT_BYTES = 256 << 10 };
#define SECONDS 4
#define SECONDS_MOST 60 /* on a machine that is slower than the disk is to be */

static struct simdisk *disk;
static struct quire *db;
static struct quire_tree *tree;
static _Atomic int stop;

static _Atomic uint64_t longest_ns;
static _Atomic bool log_is_fast;
static _Atomic unsigned sync_us, unlink_us;

/* 16 MiB a second for all writes together, and so long for a sync of pages. */
static void be_slow(void *context, const struct simdisk_event *event)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    (void)context;
    bool of_log = strncmp(event->name, "log-", 4) == 0;
    if (event->kind == SIMDISK_UNLINK) usleep(unlink_us);
    if (log_is_fast && of_log) return;
    if (event->kind == SIMDISK_SYNC) usleep(of_log ? 2000 : sync_us);
    if (event->kind != SIMDISK_WRITE) return;
    pthread_mutex_lock(&one_at_a_time);
    usleep((unsigned)(event->size_bytes / 16));
    pthread_mutex_unlock(&one_at_a_time);
}

enum { THREADS_MOST = 8 };
static pthread_t threads[THREADS_MOST];
static unsigned thread_count;

static void *write_over(void *argument)
{
    char value[VALUE_BYTES] = {0};
    char key[16];
    for (uint64_t i = (uintptr_t)argument; atomic_load(&stop) == 0; i += thread_count) {
        memcpy(value, &i, sizeof(i));
        uint64_t start = qr_clock_ns();
        OK(quire_put(tree, key, numbered(i % KEYS, key), value, VALUE_BYTES, 0, NULL));
        uint64_t took = qr_clock_ns() - start;
        if (took > atomic_load(&longest_ns)) atomic_store(&longest_ns, took);
    }
    return NULL;
}

/* On a new disk, which is not slow yet. */
static void begin(const struct quire_options *options)
{
    disk = simdisk_create();
    db = open_on(disk, *options);
    tree = open_tree(db, "t");
}

static void end(void)
{
    OK(quire_close(db));
    simdisk_free(disk);
}

/* It is slow from now on. */
static void start_writers(unsigned count)
{
    simdisk_set_hook(disk, be_slow, NULL);
    atomic_store(&stop, 0);
    atomic_store(&longest_ns, 0);
    thread_count = count;
    for (uintptr_t i = 0; i < count; i++) cr_assert_eq(pthread_create(&threads[i], NULL, write_over, (void *)i), 0);
}

static void end_writers(void)
{
    atomic_store(&stop, 1);
    for (unsigned i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
}

/* So many seconds, and as much log; not for ever. */
static bool is_to_go_on(uint64_t start, unsigned seconds, uint64_t enough)
{
    uint64_t passed = qr_clock_ns() - start;
    return passed < seconds * 1000000000ull || (stats_of(db).log_tail_lsn <= enough && passed < SECONDS_MOST * 1000000000ull);
}

static void hold_back_writers(bool buffered)
{
    log_is_fast = buffered; /* what it writes itself would hold them back */
    sync_us = 2000;
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    uint64_t most_log = 0, most_memory = 0;
    char key[16], value[VALUE_BYTES] = {0};
    options.background_threads = 1;
    options.log_buffered = buffered;
    options.log_cap_bytes = CAP_BYTES;
    options.log_segment_bytes = SEGMENT_BYTES;
    begin(&options);
    for (uint64_t i = 0; i < KEYS; i++) OK(quire_put(tree, key, numbered(i, key), value, VALUE_BYTES, 0, NULL));
    uint64_t usual_memory = 0; /* while it is held back for the first time */
    uint64_t first = stats_of(db).log_tail_lsn, enough = first + 12 * CAP_BYTES;
    start_writers(2);
    for (uint64_t start = qr_clock_ns(); is_to_go_on(start, SECONDS, enough);) {
        struct quire_stats stats = stats_of(db);
        if (stats.log_tail_lsn < first + 5 * CAP_BYTES) usual_memory = qr_max(usual_memory, stats.memory_bytes);
        most_memory = qr_max(most_memory, stats.memory_bytes);
        most_log = qr_max(most_log, stats.log_size_bytes);
        usleep(5000);
    }
    end_writers();
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    simdisk_set_hook(disk, NULL, NULL);

    /* Four times the cap, and what a step of making room is more; as much again may be kept to be used again. */
    cr_assert_gt(stats_of(db).checkpoints, 2);
    cr_assert_gt(stats_of(db).log_tail_lsn, enough, "the machine was too slow for anything to be seen");
    cr_assert_leq(most_log, 2 * (4 * CAP_BYTES + 4 * SEGMENT_BYTES), "the log grew to %" PRIu64, most_log);
    cr_assert_leq(most_memory, usual_memory + (12 << 20), "memory grew from %" PRIu64 " to %" PRIu64, usual_memory, most_memory);
    cr_assert_eq(stats_of(db).errors, 0);
    cr_assert_eq(count_all(tree, NULL), KEYS);
    end();

    /* The opening after a kill has as little to do. */
    disk = after;
    db = open_on(disk, options);
    cr_assert_leq(stats_of(db).recovery_bytes, 4 * CAP_BYTES + 4 * SEGMENT_BYTES);
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), KEYS);
    end();
}

/* F33 */
Test(slow_disk, holds_back_its_writers)
{
    hold_back_writers(false);
}

Test(slow_disk, holds_back_writers_of_a_buffered_log)
{
    hold_back_writers(true);
}

/* Eight threads, for five seconds and until there is so much log; a sync of pages takes three seconds. */
static void write_on(const struct quire_options *options, uint64_t enough)
{
    log_is_fast = false;
    sync_us = 3000000;
    begin(options);
    start_writers(THREADS_MOST);
    for (uint64_t start = qr_clock_ns(); is_to_go_on(start, 5, enough);) usleep(5000);
    end_writers();
    simdisk_set_hook(disk, NULL, NULL);
}

/* F02, F33: while a checkpoint takes seconds, the wait is over when the options say so, for each write of many threads. */
Test(slow_disk, lets_no_write_wait_longer_than_is_said)
{
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    options.background_threads = 1;
    options.log_cap_bytes = CAP_BYTES;
    options.stall_timeout_ms = 200;
    write_on(&options, 8 << 20);
    uint64_t longest = atomic_load(&longest_ns);
    cr_assert(longest >= 200000000, "nobody had to wait");
    cr_assert(longest < 1500000000, "a put took %" PRIu64 " ns", longest);
    cr_assert_eq(stats_of(db).errors, 0);
    end();
}

/* F33: writers are held back before the log has as many segments as it can have, which would be NO_SPACE. */
Test(slow_disk, is_not_taken_for_a_full_one)
{
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    options.background_threads = 1;
    options.log_segment_bytes = 16384;
    options.stall_timeout_ms = 1000;
    write_on(&options, 11 << 20);
    cr_assert_gt(stats_of(db).log_tail_lsn, 11u << 20, "the machine was too slow for anything to be seen");
    cr_assert_eq(stats_of(db).errors, 0);
    end();
}

/* F33: no checkpoint is made before the files of the log before are removed, so nobody waits for one meanwhile. */
Test(slow_disk, that_removes_files_slowly_is_not_waited_for)
{
    const struct simdisk_fault fault = {.kind = SIMDISK_UNLINK, .nth = 1, .for_good = true, .error = EIO};
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    char key[16], value[VALUE_BYTES] = {0};
    options.log_segment_bytes = 16384;
    begin(&options);
    for (uint64_t i = 0; i < 8000; i++) OK(quire_put(tree, key, numbered(i % 500, key), value, VALUE_BYTES, 0, NULL));
    simdisk_fault_set(disk, &fault);
    (void)quire_checkpoint(db); /* it cannot remove them */
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    simdisk_faults_clear(disk);
    end();

    disk = after;
    log_is_fast = true;
    unlink_us = 50000;
    simdisk_set_hook(disk, be_slow, NULL);
    options.log_segment_bytes = 65536;
    options.log_cap_bytes = 65536;
    options.background_threads = 1;
    db = open_on(disk, options);
    tree = open_tree(db, "t");
    uint64_t longest = 0;
    for (uint64_t i = 0; i < 12000; i++) {
        uint64_t start = qr_clock_ns();
        OK(quire_put(tree, key, numbered(i % 500, key), value, VALUE_BYTES, 0, NULL));
        longest = qr_max(longest, qr_clock_ns() - start);
    }
    cr_assert(qr_db_clears_later(db), "they were removed too fast for anything to be seen");
    cr_assert(longest < 1500000000, "a put took %" PRIu64 " ns", longest);
    unlink_us = 0;
    simdisk_set_hook(disk, NULL, NULL);
    end();
}
