/*
 * Goal: a disk that is slower than its writers slows them down; neither memory nor log grows with what it is behind.
 * Method: a simulated disk of some MiB a second, which one operation has at a time; two threads that write the same keys over and over.
 */
#include "api_sim.h"

#include "os/thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

TestSuite(slow_disk, .timeout = 200);

enum { KEYS = 500, VALUE_BYTES = 1000, CAP_BYTES = 256 << 10, SEGMENT_BYTES = 64 << 10 };
#define SECONDS 4

static struct simdisk *disk;
static struct quire *db;
static struct quire_tree *tree;
static _Atomic int stop;

/* 4 MiB a second, and 2 ms a sync. */
static void be_slow(void *context, const struct simdisk_event *event)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    (void)context;
    pthread_mutex_lock(&one_at_a_time);
    if (event->kind == SIMDISK_WRITE) usleep((unsigned)(event->size_bytes / 4));
    if (event->kind == SIMDISK_SYNC) usleep(2000);
    pthread_mutex_unlock(&one_at_a_time);
}

static void *write_over(void *argument)
{
    char value[VALUE_BYTES] = {0};
    char key[16];
    for (uint64_t i = (uintptr_t)argument; atomic_load(&stop) == 0; i += 2) {
        memcpy(value, &i, sizeof(i));
        OK(quire_put(tree, key, numbered(i % KEYS, key), value, VALUE_BYTES, 0, NULL));
    }
    return NULL;
}

static void hold_back_writers(bool buffered)
{
    struct quire_options options = sim_options(QUIRE_LEVEL_PROCESS);
    pthread_t threads[2];
    uint64_t most_log = 0, most_memory = 0, usual_memory = 0;
    options.background_threads = 1;
    options.log_buffered = buffered;
    options.log_cap_bytes = CAP_BYTES;
    options.log_segment_bytes = SEGMENT_BYTES;
    disk = simdisk_create();
    db = open_on(disk, options);
    tree = open_tree(db, "t");
    simdisk_set_hook(disk, be_slow, NULL);
    atomic_store(&stop, 0);
    for (uintptr_t i = 0; i < 2; i++) cr_assert_eq(pthread_create(&threads[i], NULL, write_over, (void *)i), 0);
    for (uint64_t start = qr_clock_ns(), now = start; now - start < SECONDS * 1000000000ull; now = qr_clock_ns()) {
        struct quire_stats stats = stats_of(db);
        if (now - start < 1000000000) usual_memory = stats.memory_bytes;
        most_memory = qr_max(most_memory, stats.memory_bytes);
        most_log = qr_max(most_log, stats.log_size_bytes);
        usleep(5000);
    }
    struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    atomic_store(&stop, 1);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    simdisk_set_hook(disk, NULL, NULL);

    /* Four times the cap, and what a step of making room is more; as much again may be kept to be used again. */
    cr_assert_gt(stats_of(db).checkpoints, 2);
    cr_assert_gt(stats_of(db).log_tail_lsn, 8 * CAP_BYTES, "the disk was too slow for anything to be seen");
    cr_assert_leq(most_log, 2 * (4 * CAP_BYTES + 4 * SEGMENT_BYTES), "the log grew to %" PRIu64, most_log);
    cr_assert_leq(most_memory, usual_memory + (6 << 20), "memory grew from %" PRIu64 " to %" PRIu64, usual_memory, most_memory);
    cr_assert_eq(stats_of(db).errors, 0);
    cr_assert_eq(count_all(tree, NULL), KEYS);
    OK(quire_close(db));
    simdisk_free(disk);

    /* The opening after a kill has as little to do. */
    db = open_on(after, options);
    cr_assert_leq(stats_of(db).recovery_bytes, 4 * CAP_BYTES + 4 * SEGMENT_BYTES);
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), KEYS);
    OK(quire_close(db));
    simdisk_free(after);
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
