/*
 * The death of a process in the middle of loading, and what is there afterwards.
 *
 * Layer: tools. The child counts each put that has returned in memory that it shares with its parent; the parent kills it with
 * SIGKILL when half are done. Writes are of the level PROCESS, which promises that each of those is there.
 */
#include "quickstart.h"
#include "report.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REVISION = 1 };

/* In memory of both processes. */
struct shared {
    _Atomic uint64_t acknowledged; /* puts that have returned */
};

__attribute__((noreturn)) static void child(struct quickstart *q, struct shared *shared)
{
    struct shuffle shuffle = shuffle_begin(q->packages.distinct_count);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* also if it is the parent that is killed */
    open_store(q, 0);
    for (size_t i = 0; i < shuffle.count; i++) {
        put_package(q, shuffle_next(q, &shuffle), REVISION);
        atomic_store_explicit(&shared->acknowledged, i + 1, memory_order_release);
    }
    for (;;)
        pause();
}

/* Returns how many puts were acknowledged. */
static uint64_t load_and_kill(struct quickstart *q)
{
    uint64_t half = q->packages.distinct_count / 2 + 1;
    uint64_t done;
    struct step step;
    int status;
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("no memory");
    step_begin(&step, "load, in a process that is killed", q->packages.distinct_count);
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    if (pid == 0)
        child(q, shared);
    while ((done = atomic_load_explicit(&shared->acknowledged, memory_order_acquire)) < half &&
           waitpid(pid, &status, WNOHANG) == 0) {
        step_progress(&step, done);
        usleep(100);
    }
    kill(pid, SIGKILL);
    if (done < half || waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
        fail("the process that loads has ended by itself");
    done = atomic_load_explicit(&shared->acknowledged, memory_order_acquire);
    munmap(shared, sizeof(*shared));
    step_end(&step, done, "puts");
    return done;
}

static void open_again(struct quickstart *q)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    struct step step;
    step_begin(&step, "open the store: the log is read", 0);
    open_store(q, 1);
    must(quire_stats(q->db, &stats), "statistics");
    step_end(&step, stats.recovery_records, "records"); /* one made the tree */
}

/* What was acknowledged is there, and nothing else but the put that was under way. */
static void compare(struct quickstart *q, uint64_t acknowledged)
{
    struct shuffle shuffle = shuffle_begin(q->packages.distinct_count);
    struct quire_slice all = {NULL, 0};
    struct step step;
    uint64_t count = 0;

    step_begin(&step, "read what was acknowledged", acknowledged);
    for (uint64_t i = 0; i < acknowledged; i++) {
        const struct package *package = shuffle_next(q, &shuffle);
        size_t size = 0;
        must(quire_get(q->tree, NULL, package->key, package->key_size, q->buffer, q->buffer_bytes, &size),
             "get of what was acknowledged");
        check_value(package, REVISION, q->buffer, size);
        step_progress(&step, i + 1);
    }
    step_end(&step, acknowledged, "gets");
    must(quire_count(q->tree, NULL, all, all, &count), "count");
    if (count != acknowledged && count != acknowledged + 1)
        fail("%" PRIu64 " keys after the crash, and %" PRIu64 " puts had been acknowledged", count, acknowledged);
}

static void load_rest(struct quickstart *q, uint64_t acknowledged)
{
    struct shuffle shuffle = shuffle_begin(q->packages.distinct_count);
    uint64_t rest = shuffle.count - acknowledged;
    struct step step;
    for (uint64_t i = 0; i < acknowledged; i++)
        shuffle_next(q, &shuffle);
    step_begin(&step, "load the rest", rest);
    for (uint64_t i = 0; i < rest; i++) {
        put_package(q, shuffle_next(q, &shuffle), REVISION);
        step_progress(&step, i + 1);
    }
    step_end(&step, rest, "puts");
}

void load_and_crash(struct quickstart *q)
{
    uint64_t acknowledged = load_and_kill(q);
    open_again(q);
    compare(q, acknowledged);
    load_rest(q, acknowledged);
}
