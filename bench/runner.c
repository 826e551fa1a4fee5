/*
 * Runs a list of workloads on one store: opening, threads, measuring, reporting.
 *
 * Layer: bench. The main thread owns everything; the workers of one workload start together at a barrier, each opens
 * its session before it and ends it inside the measured time (the end commits what LMDB still holds). The time of a
 * workload is that from the first start to the last end. A thread in the background, where a workload has one, starts
 * at the same barrier, goes on until the last of the others has ended, and is not part of that time.
 *
 * RUNNER-1  A store lives in a directory made for it alone, which is removed when the store is closed.
 * RUNNER-2  Before a workload that only reads follows one that writes, the engine's background work is waited for
 *           (settle) and all entries are read once, unmeasured: every engine is measured warm and quiet.
 * RUNNER-3  Each run of a workload, measured or to warm up, makes its own random choices and writes its own generation.
 */
#include "runner.h"

#include "runner_internal.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SCAN_ENTRIES = 10000000, SCAN_PASSES_MAX = 10 };

struct thread {
    pthread_t id;
    struct bench_worker worker;
    pthread_barrier_t *barrier;
    bool append;
    struct bench_store *store;
    uint64_t begin_ns, end_ns;
    uint64_t cpu_ns; /* of this thread, between them */
    int (*work)(struct bench_worker *worker);
    int result;
};

void bench_runner_close(struct bench_runner *runner)
{
    if (runner->store == NULL)
        return;
    runner->options->engine->close(runner->store);
    runner->store = NULL;
    bench_scratch_remove(runner->dir);
}

int bench_runner_open_here(struct bench_runner *runner, enum bench_level level, bool existing)
{
    const struct bench_options *options = runner->options;
    struct bench_engine_config config = {.dir = runner->dir,
                                         .existing = existing,
                                         .level = level,
                                         .log_segment_bytes = options->log_segment_bytes,
                                         .num = options->num,
                                         .threads = options->threads,
                                         .data = &runner->data,
                                         .lmdb_batch = options->lmdb_batch,
                                         .no_checkpoint = options->no_checkpoint,
                                         .no_statistics = options->no_statistics};

    if (options->engine->open(&config, &runner->store) != 0) {
        runner->store = NULL;
        bench_scratch_remove(runner->dir);
        return -1;
    }
    runner->stored = 0;
    runner->filled = false;
    return 0;
}

int bench_runner_open(struct bench_runner *runner, enum bench_level level)
{
    bench_runner_close(runner);
    if (bench_scratch_make(runner->options->path, runner->dir) != 0)
        return -1;
    return bench_runner_open_here(runner, level, false);
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void *thread_main(void *argument)
{
    struct thread *thread = argument;
    struct bench_worker *worker = &thread->worker;
    const struct bench_engine *engine = worker->run->engine;

    thread->result = engine->session_begin(thread->store, thread->append, &worker->session);
    (void)pthread_barrier_wait(thread->barrier);
    thread->begin_ns = bench_now_ns();
    thread->cpu_ns = thread_cpu_ns();
    if (thread->result == 0) {
        thread->result = thread->work(worker);
        if (engine->session_end(worker->session) != 0)
            thread->result = -1;
    }
    thread->end_ns = bench_now_ns();
    thread->cpu_ns = thread_cpu_ns() - thread->cpu_ns;
    return NULL;
}

/* Numbers from run->threads on are of threads in the background. */
static int thread_prepare(struct thread *thread, struct bench_runner *runner, const struct bench_run *run,
                          unsigned number)
{
    struct bench_worker *worker = &thread->worker;

    worker->run = run;
    if (number < run->threads) {
        worker->begin = (uint64_t)((bench_uint128)run->ops * number / run->threads);
        worker->end = (uint64_t)((bench_uint128)run->ops * (number + 1) / run->threads);
    }
    worker->until_sample = 1;
    worker->value = malloc(run->data->value_size);
    bench_rng_init(&worker->rng, runner->options->seed + (run->number << 32), number);
    thread->store = runner->store;
    thread->barrier = &runner->barrier;
    return worker->value != NULL ? 0 : bench_fail("out of memory");
}

/* Adds up what the first count threads measured, and the others did. -1 if one of them all failed. */
static int threads_result(const struct thread *threads, unsigned count, unsigned others, struct bench_result *result)
{
    struct bench_histogram *latency = calloc(1, sizeof(*latency));
    uint64_t begin_ns = UINT64_MAX;
    uint64_t end_ns = 0;
    int failure = 0;

    if (latency == NULL)
        return bench_fail("out of memory");
    for (unsigned i = 0; i < count; i++) {
        failure |= threads[i].result;
        begin_ns = threads[i].begin_ns < begin_ns ? threads[i].begin_ns : begin_ns;
        end_ns = threads[i].end_ns > end_ns ? threads[i].end_ns : end_ns;
        result->ops += threads[i].worker.done;
        result->thread_cpu_ns += threads[i].cpu_ns;
        bench_histogram_merge(latency, &threads[i].worker.latency);
    }
    for (unsigned i = count; i < count + others; i++) {
        failure |= threads[i].result;
        result->background_ops += threads[i].worker.done;
    }
    result->seconds = (double)(end_ns - begin_ns) * 1e-9;
    result->p50_ns = bench_histogram_percentile(latency, 0.5);
    result->p99_ns = bench_histogram_percentile(latency, 0.99);
    result->p999_ns = bench_histogram_percentile(latency, 0.999);
    free(latency);
    return failure == 0 ? 0 : -1;
}

/* Starts all threads, and waits until they have ended: those in the background are told when the others have. */
static void threads_run(struct thread *threads, unsigned count, unsigned others, atomic_bool *foreground_done)
{
    for (unsigned i = 0; i < count + others; i++)
        if (pthread_create(&threads[i].id, NULL, thread_main, &threads[i]) != 0) {
            /* The started ones wait at the barrier for ever: nothing can be saved but the message. */
            (void)bench_fail("cannot start %u threads", count + others);
            exit(1);
        }
    for (unsigned i = 0; i < count; i++)
        (void)pthread_join(threads[i].id, NULL);
    /* relaxed: the threads in the background read nothing else that was written before; they see it some time */
    atomic_store_explicit(foreground_done, true, memory_order_relaxed);
    for (unsigned i = count; i < count + others; i++)
        (void)pthread_join(threads[i].id, NULL);
}

int bench_runner_threads(struct bench_runner *runner, const struct bench_run *run,
                         int (*work)(struct bench_worker *worker), int (*background)(struct bench_worker *worker),
                         bool append, struct bench_result *result)
{
    const unsigned others = background != NULL ? 1 : 0;
    const unsigned all = run->threads + others;
    struct thread *threads = calloc(all, sizeof(*threads));
    int failure = threads == NULL ? bench_fail("out of memory") : 0;

    for (unsigned i = 0; failure == 0 && i < all; i++) {
        threads[i].work = i < run->threads ? work : background;
        threads[i].append = append && all == 1;
        failure = thread_prepare(&threads[i], runner, run, i);
    }
    if (failure == 0 && pthread_barrier_init(&runner->barrier, NULL, all) != 0)
        failure = bench_fail("cannot make a barrier");
    if (failure == 0) {
        atomic_init(&runner->foreground_done, false);
        threads_run(threads, run->threads, others, &runner->foreground_done);
        (void)pthread_barrier_destroy(&runner->barrier);
        failure = threads_result(threads, run->threads, others, result);
    }
    for (unsigned i = 0; threads != NULL && i < all; i++)
        free(threads[i].worker.value);
    free(threads);
    return failure;
}

/* The passes of a scan that read about this many entries, but one pass at least. */
static uint64_t passes_of(const struct bench_runner *runner, uint64_t entries)
{
    uint64_t passes = entries / runner->options->num;

    return passes > 1 ? passes : 1;
}

void bench_runner_init(struct bench_runner *runner, const struct bench_workload *workload, unsigned position,
                       struct bench_run *ret_run)
{
    const struct bench_options *options = runner->options;
    uint64_t passes = passes_of(runner, SCAN_ENTRIES);

    runner->runs++;
    *ret_run = (struct bench_run){.engine = options->engine,
                                  .data = &runner->data,
                                  .num = options->num,
                                  .stored = runner->stored,
                                  .threads = options->threads,
                                  .get_percent = workload->get_percent,
                                  .verify_scan = options->verify_scan,
                                  .number = runner->runs,
                                  .generation = (uint8_t)runner->runs,
                                  .zipf = options->zipf ? &runner->zipf : NULL,
                                  .foreground_done = &runner->foreground_done};
    ret_run->scan_passes = passes < SCAN_PASSES_MAX ? passes : SCAN_PASSES_MAX;
    ret_run->ops = options->num / workload->ops_share;
    if (options->ops != 0 && !workload->fills)
        ret_run->ops = options->ops;
    if (workload->deletes && ret_run->ops > options->num)
        ret_run->ops = options->num;
    if (ret_run->ops == 0)
        ret_run->ops = 1;
    bench_permutation_init(&ret_run->permutation, options->num, options->seed + position);
}

static int check_order(const struct bench_runner *runner, const struct bench_workload *workload)
{
    if (workload->fills || workload->alone != NULL)
        return 0;
    if (!runner->filled)
        return bench_fail("%s: needs a fill before it in the list", workload->name);
    if (workload->needs_all && runner->stored < runner->options->num)
        return bench_fail("%s: needs a fill between it and the deletion", workload->name);
    return 0;
}

/* RUNNER-2 */
static int settle_and_read_all(struct bench_runner *runner)
{
    const struct bench_options *options = runner->options;
    struct bench_run run = {.engine = options->engine, .data = &runner->data, .stored = runner->stored, .threads = 1};
    struct bench_result ignored = {0};

    if (options->engine->settle != NULL && options->engine->settle(runner->store) != 0)
        return -1;
    runner->cold = false;
    return bench_runner_threads(runner, &run, bench_read_all, NULL, false, &ignored);
}

static int consolidate(struct bench_runner *runner, struct bench_result *result)
{
    const struct bench_engine *engine = runner->options->engine;
    uint64_t begin_ns = bench_now_ns();

    if (engine->consolidate == NULL)
        return 0; /* reported as no operations in no time */
    if (engine->consolidate(runner->store) != 0)
        return -1;
    result->seconds = (double)(bench_now_ns() - begin_ns) * 1e-9;
    result->ops = runner->stored;
    runner->cold = true;
    return 0;
}

static void note_effect(struct bench_runner *runner, const struct bench_workload *workload, const struct bench_run *run)
{
    if (workload->fills) {
        runner->filled = true;
        runner->stored = run->num;
    }
    if (workload->deletes)
        runner->stored -= run->ops;
    if (workload->writes)
        runner->cold = true;
}

/* --warmup: a part of the workload, unmeasured. */
static int warm_up(struct bench_runner *runner, unsigned position)
{
    const struct bench_options *options = runner->options;
    const struct bench_workload *workload = options->workloads[position];
    struct bench_result ignored = {0};
    struct bench_run run;

    if (options->warmup == 0 || !bench_workload_is_repeatable(workload))
        return 0;
    bench_runner_init(runner, workload, position, &run);
    run.ops = options->warmup;
    run.scan_passes = passes_of(runner, options->warmup / options->threads);
    return bench_runner_threads(runner, &run, workload->work, workload->background, false, &ignored);
}

static int measure(struct bench_runner *runner, unsigned position, unsigned repeat)
{
    const struct bench_options *options = runner->options;
    const struct bench_workload *workload = options->workloads[position];
    struct bench_result result = {.workload = workload->name,
                                  .position = position,
                                  .repeat = repeat,
                                  .threads = options->threads,
                                  .level = bench_level_or(options, BENCH_LEVEL_OFF)};
    bool append = workload->appends && options->key_format != BENCH_KEY_HASH;
    struct bench_run run;

    bench_runner_init(runner, workload, position, &run);
    bench_memory_reset_peak();
    if (workload->work == NULL
            ? consolidate(runner, &result) != 0
            : bench_runner_threads(runner, &run, workload->work, workload->background, append, &result) != 0)
        return -1;
    note_effect(runner, workload, &run);
    bench_memory_measure(&result);
    result.stored = runner->stored;
    bench_report(options, &result);
    if (options->stats)
        options->engine->print_stats(runner->store, stderr);
    return 0;
}

/* Measures the workload at this position in the list, as often as --repeat says. */
static int run_one(struct bench_runner *runner, unsigned position)
{
    const struct bench_options *options = runner->options;
    const struct bench_workload *workload = options->workloads[position];
    unsigned repeats = bench_workload_is_repeatable(workload) ? options->repeats : 1;
    int failure = 0;

    if (check_order(runner, workload) != 0 ||
        (workload->fills && bench_runner_open(runner, bench_level_or(options, BENCH_LEVEL_OFF)) != 0))
        return -1;
    if (workload->alone != NULL) {
        for (unsigned repeat = 0; failure == 0 && repeat < options->repeats; repeat++)
            failure = workload->alone(runner, position, repeat);
        bench_runner_close(runner);
        runner->filled = false;
        return failure == 0 ? 0 : bench_fail("%s: %s failed", options->engine->name, workload->name);
    }
    if (!workload->writes && workload->work != NULL && runner->cold)
        failure = settle_and_read_all(runner);
    if (failure == 0)
        failure = warm_up(runner, position);
    for (unsigned repeat = 0; failure == 0 && repeat < repeats; repeat++)
        failure = measure(runner, position, repeat);
    return failure == 0 ? 0 : bench_fail("%s: %s failed", options->engine->name, workload->name);
}

static int runner_init(struct bench_runner *runner)
{
    const struct bench_options *options = runner->options;

    if (!bench_data_init(&runner->data, options->key_format, options->key_size, options->value_size))
        return bench_fail("out of memory");
    if (options->zipf)
        bench_zipf_init(&runner->zipf, options->num, 0.99);
    return 0;
}

int bench_run_child(const struct bench_options *options)
{
    struct bench_runner runner = {.options = options};
    int failure = runner_init(&runner);

    return failure == 0 ? bench_reopen_child(&runner) : failure;
}

int bench_run_all(const struct bench_options *options)
{
    struct bench_runner runner = {.options = options};
    int failure = runner_init(&runner);

    if (failure != 0)
        return failure;
    bench_report_begin(options);
    for (unsigned i = 0; failure == 0 && i < options->workload_count; i++)
        failure = run_one(&runner, i);
    bench_runner_close(&runner);
    bench_data_free(&runner.data);
    return failure;
}
