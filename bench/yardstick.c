/*
 * Yardsticks for durable commits: a bare loop of write and fdatasync, and a bare group commit.
 *
 * Layer: bench. See yardstick.h.
 */
#include "yardstick.h"

#include "options.h"
#include "scratch.h"
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { FILE_BYTES = 64 << 20, ZEROS_BYTES = 1 << 20, BUFFER_BYTES = BENCH_MAX_THREADS * BENCH_RECORD_BYTES };

struct bench_yardstick {
    int fd;
    uint64_t offset; /* where the next record goes */

    /* The group. Each thread has at most one record under way, so a buffer has room for all. */
    pthread_mutex_t mutex;
    pthread_cond_t synced;
    uint8_t buffers[2][BUFFER_BYTES]; /* one is filled while the other is written */
    unsigned filling;
    size_t filled_bytes;
    uint64_t appended, durable; /* records */
    bool syncing, failed;
    uint64_t end_ns;
};

static int fail(const char *what)
{
    return bench_fail("yardstick: %s: %s", what, strerror(errno));
}

int bench_yardstick_open(const char *dir, struct bench_yardstick **ret_yardstick)
{
    struct bench_yardstick *yardstick = calloc(1, sizeof(*yardstick));
    uint8_t *zeros = calloc(1, ZEROS_BYTES);
    char name[BENCH_PATH_SIZE + 16];
    int result = yardstick == NULL || zeros == NULL ? bench_fail("out of memory") : 0;

    if (result != 0) {
        free(yardstick);
        free(zeros);
        return -1;
    }
    snprintf(name, sizeof(name), "%s/yardstick", dir);
    yardstick->fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (yardstick->fd < 0)
        result = fail("creation");
    for (uint64_t at = 0; result == 0 && at < FILE_BYTES; at += ZEROS_BYTES)
        if (pwrite(yardstick->fd, zeros, ZEROS_BYTES, (off_t)at) != ZEROS_BYTES)
            result = fail("zeros");
    if (result == 0 && fsync(yardstick->fd) != 0)
        result = fail("sync");
    free(zeros);
    (void)pthread_mutex_init(&yardstick->mutex, NULL);
    (void)pthread_cond_init(&yardstick->synced, NULL);
    if (result != 0) {
        bench_yardstick_close(yardstick);
        return -1;
    }
    *ret_yardstick = yardstick;
    return 0;
}

void bench_yardstick_close(struct bench_yardstick *yardstick)
{
    if (yardstick == NULL)
        return;
    if (yardstick->fd >= 0)
        (void)close(yardstick->fd);
    (void)pthread_cond_destroy(&yardstick->synced);
    (void)pthread_mutex_destroy(&yardstick->mutex);
    free(yardstick);
}

/* Writes and syncs; -1 after a message. */
static int commit(struct bench_yardstick *yardstick, const void *bytes, size_t size)
{
    if (yardstick->offset + size > FILE_BYTES)
        yardstick->offset = 0;
    if (pwrite(yardstick->fd, bytes, size, (off_t)yardstick->offset) != (ssize_t)size)
        return fail("write");
    yardstick->offset += size;
    return fdatasync(yardstick->fd) == 0 ? 0 : fail("fdatasync");
}

int bench_yardstick_loop(struct bench_yardstick *yardstick, uint64_t time_ns, struct bench_commits *commits)
{
    uint8_t record[BENCH_RECORD_BYTES];
    uint64_t begin_ns = bench_now_ns();
    uint64_t now_ns;

    do {
        memset(record, (int)++commits->count, sizeof(record));
        if (commit(yardstick, record, sizeof(record)) != 0)
            return -1;
        now_ns = bench_now_ns();
    } while (now_ns - begin_ns < time_ns);
    commits->seconds += (double)(now_ns - begin_ns) * 1e-9;
    return 0;
}

/* Under the mutex: writes what was gathered, for all. */
static void lead(struct bench_yardstick *yardstick)
{
    const uint8_t *bytes = yardstick->buffers[yardstick->filling];
    size_t size = yardstick->filled_bytes;
    uint64_t end = yardstick->appended;
    int result;

    yardstick->syncing = true;
    yardstick->filling ^= 1;
    yardstick->filled_bytes = 0;
    (void)pthread_mutex_unlock(&yardstick->mutex);
    result = commit(yardstick, bytes, size);
    (void)pthread_mutex_lock(&yardstick->mutex);
    yardstick->failed |= result != 0;
    yardstick->durable = end;
    yardstick->syncing = false;
    (void)pthread_cond_broadcast(&yardstick->synced);
}

static void *group_thread(void *argument)
{
    struct bench_yardstick *yardstick = argument;

    while (bench_now_ns() < yardstick->end_ns) {
        uint64_t mine;

        (void)pthread_mutex_lock(&yardstick->mutex);
        mine = ++yardstick->appended;
        memset(yardstick->buffers[yardstick->filling] + yardstick->filled_bytes, (int)mine, BENCH_RECORD_BYTES);
        yardstick->filled_bytes += BENCH_RECORD_BYTES;
        while (yardstick->durable < mine && !yardstick->failed)
            if (!yardstick->syncing)
                lead(yardstick);
            else
                (void)pthread_cond_wait(&yardstick->synced, &yardstick->mutex);
        (void)pthread_mutex_unlock(&yardstick->mutex);
    }
    return NULL;
}

int bench_yardstick_group(struct bench_yardstick *yardstick, unsigned threads, uint64_t time_ns,
                          struct bench_commits *commits)
{
    pthread_t ids[BENCH_MAX_THREADS];
    uint64_t before = yardstick->durable;
    uint64_t begin_ns = bench_now_ns();
    unsigned started = 0;

    yardstick->end_ns = begin_ns + time_ns;
    while (started < threads && pthread_create(&ids[started], NULL, group_thread, yardstick) == 0)
        started++;
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(ids[i], NULL);
    commits->seconds += (double)(bench_now_ns() - begin_ns) * 1e-9;
    commits->count += yardstick->durable - before;
    if (started < threads)
        return bench_fail("cannot start %u threads", threads);
    return yardstick->failed ? -1 : 0;
}
