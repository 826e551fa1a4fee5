/*
 * The workload reopen: how long a store takes to open after the process that wrote to it was killed.
 *
 * Layer: bench. The program starts itself with --child, as a process that inherits no engine's state. The child opens a
 * store in the directory that it is told, at level process unless --level says otherwise, fills it, and then overwrites
 * chosen keys until it is killed by SIGKILL, soon after. Then the parent opens the store, which is measured, and reads
 * every entry.
 *
 * The child's progress is in a file that both map: how many puts have returned.
 */
#include "runner_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MORE_US = 20000, POLL_US = 1000 };

static const uint64_t WRITING_MOST_NS = UINT64_C(60000000000);

extern char **environ;

/* What the child has done. */
struct progress {
    _Atomic uint64_t filled; /* 1: the fill is done */
    _Atomic uint64_t puts;   /* made after it */
};

/* Maps the file, which lies beside the store's directory. */
static struct progress *progress_map(const char *dir, int flags)
{
    char name[BENCH_PATH_SIZE + 16];
    struct progress *progress = MAP_FAILED;
    int fd;

    snprintf(name, sizeof(name), "%s.progress", dir);
    fd = open(name, flags, 0600);
    if (fd >= 0 && ftruncate(fd, sizeof(*progress)) == 0)
        progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        (void)close(fd);
    if (progress != MAP_FAILED)
        return progress;
    (void)bench_fail("reopen: cannot map \"%s\": %s", name, strerror(errno));
    return NULL;
}

/* ---- The child
 * ---------------------------------------------------------------------------------------------------------- */

int bench_reopen_child(struct bench_runner *runner)
{
    const struct bench_options *options = runner->options;
    const struct bench_workload *fill = bench_workload_find("fillrandom");
    struct progress *progress;
    struct bench_result ignored = {0};
    struct bench_run run;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    progress = progress_map(options->child, O_RDWR);
    if (progress == NULL)
        return -1;
    snprintf(runner->dir, sizeof(runner->dir), "%s", options->child);
    if (bench_runner_open_here(runner, bench_level_or(options, BENCH_LEVEL_PROCESS), false) != 0)
        return -1;
    bench_runner_init(runner, fill, 0, &run);
    if (bench_runner_threads(runner, &run, fill->work, NULL, false, &ignored) != 0)
        return -1;
    /* relaxed: the parent kills what it finds; nothing else is read before the child's death */
    atomic_store_explicit(&progress->filled, 1, memory_order_relaxed);
    bench_runner_init(runner, bench_workload_find("overwrite"), 0, &run);
    run.time_ns = WRITING_MOST_NS;
    run.progress = &progress->puts;
    return bench_runner_threads(runner, &run, bench_put_for_a_time, NULL, false, &ignored);
}

/* ---- The parent
 * --------------------------------------------------------------------------------------------------------- */

/* Starts the child: this program, with the same arguments and some more, of which the last ones count. */
static int child_start(const struct bench_options *options, const char *dir, pid_t *ret_pid)
{
    static const char workload[] = "--workload=reopen";
    char child[BENCH_PATH_SIZE + 16];
    char **arguments = calloc((size_t)options->argument_count + 3, sizeof(*arguments));
    int error;

    if (arguments == NULL)
        return bench_fail("out of memory");
    snprintf(child, sizeof(child), "--child=%s", dir);
    for (int i = 0; i < options->argument_count; i++)
        arguments[i] = options->arguments[i];
    arguments[options->argument_count] = (char *)(uintptr_t)workload;
    arguments[options->argument_count + 1] = child;
    error = posix_spawn(ret_pid, "/proc/self/exe", NULL, NULL, arguments, environ);
    free(arguments);
    return error == 0 ? 0 : bench_fail("reopen: cannot start the writing process: %s", strerror(error));
}

/* Lets the child fill the store and kills it while it writes on. -1 if it has ended by itself. */
static int child_run(const struct bench_options *options, const char *dir, const struct progress *progress)
{
    pid_t pid;
    int status;

    if (child_start(options, dir, &pid) != 0)
        return -1;
    /* relaxed: as in bench_reopen_child */
    while (atomic_load_explicit(&progress->filled, memory_order_relaxed) == 0) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return bench_fail("reopen: the writing process has ended");
        (void)usleep(POLL_US);
    }
    (void)usleep(MORE_US);
    (void)kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        return bench_fail("reopen: the writing process has ended");
    return 0;
}

static int read_all(struct bench_runner *runner)
{
    struct bench_run run = {
        .engine = runner->options->engine, .data = &runner->data, .stored = runner->options->num, .threads = 1};
    struct bench_result ignored = {0};

    return bench_runner_threads(runner, &run, bench_read_all, NULL, false, &ignored);
}

/* Processor time of this process, all threads. */
static double cpu_ms(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-3;
}

/* Opens what the child has left, and reports. */
static int open_again(struct bench_runner *runner, const struct progress *progress, struct bench_result *result)
{
    const struct bench_options *options = runner->options;
    uint64_t files_bytes = bench_scratch_bytes(runner->dir);
    uint64_t begin_ns = bench_now_ns();
    double begin_cpu_ms = cpu_ms();
    double cpu;

    if (bench_runner_open_here(runner, result->level, true) != 0)
        return -1;
    result->seconds = (double)(bench_now_ns() - begin_ns) * 1e-9;
    cpu = cpu_ms() - begin_cpu_ms;
    /* relaxed: the child is dead */
    result->ops = options->num + atomic_load_explicit(&progress->puts, memory_order_relaxed);
    result->stored = options->num;
    bench_memory_measure(result);
    bench_report_extra(result, "open_ms", result->seconds * 1e3);
    bench_report_extra(result, "open_cpu_ms", cpu);
    bench_report_extra(result, "file_bytes", (double)files_bytes);
    if (read_all(runner) != 0)
        return -1;
    bench_report(options, result);
    if (options->stats)
        options->engine->print_stats(runner->store, stderr);
    return 0;
}

int bench_reopen(struct bench_runner *runner, unsigned position, unsigned repeat)
{
    const struct bench_options *options = runner->options;
    struct bench_result result = {.workload = "reopen",
                                  .position = position,
                                  .repeat = repeat,
                                  .threads = options->threads,
                                  .level = bench_level_or(options, BENCH_LEVEL_PROCESS)};
    struct progress *progress;
    char name[BENCH_PATH_SIZE + 16];
    int failure;

    if (result.level == BENCH_LEVEL_OFF)
        return bench_fail("reopen: nothing is left at level off; --level is process or durable");
    bench_runner_close(runner);
    if (bench_scratch_make(options->path, runner->dir) != 0)
        return -1;
    snprintf(name, sizeof(name), "%s.progress", runner->dir);
    progress = progress_map(runner->dir, O_RDWR | O_CREAT | O_EXCL);
    failure = progress == NULL ? -1 : child_run(options, runner->dir, progress);
    bench_memory_reset_peak();
    if (failure == 0)
        failure = open_again(runner, progress, &result);
    bench_runner_close(runner);
    bench_scratch_remove(runner->dir);
    (void)unlink(name);
    if (progress != NULL)
        (void)munmap(progress, sizeof(*progress));
    return failure;
}
