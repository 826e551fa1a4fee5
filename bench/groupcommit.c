/*
 * The workload groupcommit: how many puts a second N threads make durable, beside what the disk gives without an
 * engine.
 *
 * Layer: bench. For 1, 2 and 16 threads, or for --threads: a bare loop of one thread, a bare group commit of N threads
 * (yardstick.h), and puts of N threads, in turn and in as many rounds as --rounds says, since a disk's speed changes
 * from one second to the next. The level of the engine's puts is durable unless --level says otherwise.
 */
#include "runner_internal.h"
#include "yardstick.h"

struct measurement {
    struct bench_yardstick *yardstick;
    uint64_t slice_ns;
    struct bench_commits loop, group;
    struct bench_written loop_written, written; /* during the bare loop; during the engine's puts */
};

static void add_written(const char *dir, const struct bench_written *before, struct bench_written *sum)
{
    struct bench_written now = bench_written_now(dir);

    sum->process_bytes += now.process_bytes - before->process_bytes;
    sum->device_bytes += now.device_bytes - before->device_bytes;
}

static int measure_puts(struct bench_runner *runner, struct measurement *m, unsigned position, unsigned threads,
                        struct bench_result *result)
{
    struct bench_written before = bench_written_now(runner->dir);
    double seconds = result->seconds;
    struct bench_run run;

    bench_runner_init(runner, bench_workload_find("overwrite"), position, &run);
    run.threads = threads;
    run.time_ns = m->slice_ns;
    if (bench_runner_threads(runner, &run, bench_put_for_a_time, NULL, false, result) != 0)
        return -1;
    result->seconds += seconds;
    add_written(runner->dir, &before, &m->written);
    return 0;
}

static int measure_round(struct bench_runner *runner, struct measurement *m, unsigned position, unsigned threads,
                         struct bench_result *result)
{
    struct bench_written before = bench_written_now(runner->dir);

    if (bench_yardstick_loop(m->yardstick, m->slice_ns, &m->loop) != 0)
        return -1;
    add_written(runner->dir, &before, &m->loop_written);
    if (bench_yardstick_group(m->yardstick, threads, m->slice_ns, &m->group) != 0)
        return -1;
    return measure_puts(runner, m, position, threads, result);
}

static double rate(const struct bench_commits *commits)
{
    return (double)commits->count / commits->seconds;
}

static void report(struct bench_runner *runner, const struct measurement *m, struct bench_result *result)
{
    double puts = (double)result->ops;
    double puts_rate = puts / result->seconds;

    bench_memory_measure(result);
    bench_report_extra(result, "loop_per_sec", rate(&m->loop));
    bench_report_extra(result, "ratio_to_loop", puts_rate / rate(&m->loop));
    bench_report_extra(result, "group_per_sec", rate(&m->group));
    bench_report_extra(result, "ratio_to_group", puts_rate / rate(&m->group));
    bench_report_extra(result, "process_bytes_per_commit", (double)m->written.process_bytes / puts);
    bench_report_extra(result, "device_bytes_per_commit", (double)m->written.device_bytes / puts);
    bench_report_extra(result, "loop_device_bytes_per_commit",
                       (double)m->loop_written.device_bytes / (double)m->loop.count);
    bench_report(runner->options, result);
    if (runner->options->stats)
        runner->options->engine->print_stats(runner->store, stderr);
}

static int measure(struct bench_runner *runner, struct measurement *m, unsigned position, unsigned repeat,
                   unsigned threads)
{
    const struct bench_options *options = runner->options;
    struct bench_result result = {.workload = "groupcommit",
                                  .position = position,
                                  .repeat = repeat,
                                  .threads = threads,
                                  .level = bench_level_or(options, BENCH_LEVEL_DURABLE)};

    bench_memory_reset_peak();
    m->loop = m->group = (struct bench_commits){0};
    m->loop_written = m->written = (struct bench_written){0};
    for (unsigned round = 0; round < options->rounds; round++)
        if (measure_round(runner, m, position, threads, &result) != 0)
            return -1;
    report(runner, m, &result);
    return 0;
}

int bench_groupcommit(struct bench_runner *runner, unsigned position, unsigned repeat)
{
    static const unsigned counts[] = {1, 2, 16};
    const struct bench_options *options = runner->options;
    struct measurement m = {.slice_ns = options->time_ms * 1000000 / options->rounds};
    char dir[BENCH_PATH_SIZE];
    int failure;

    if (bench_scratch_make(options->path, dir) != 0)
        return -1;
    failure = bench_yardstick_open(dir, &m.yardstick);
    if (failure == 0)
        failure = bench_runner_open(runner, bench_level_or(options, BENCH_LEVEL_DURABLE));
    if (failure == 0 && options->threads_given)
        failure = measure(runner, &m, position, repeat, options->threads);
    for (unsigned i = 0; failure == 0 && !options->threads_given && i < sizeof(counts) / sizeof(counts[0]); i++)
        failure = measure(runner, &m, position, repeat, counts[i]);
    bench_runner_close(runner);
    bench_yardstick_close(m.yardstick);
    bench_scratch_remove(dir);
    return failure;
}
