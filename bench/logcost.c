/*
 * The workload logcost: what the log adds to a put.
 *
 * Layer: bench. A fill in random order and an overwriting of chosen keys, on a store without a log (level off) and on
 * one with it (level process, or --level), in turn, in as many rounds as --rounds says. In a round both stores get the
 * same keys in the same order, on fresh stores; each goes first in every other round. The cost is the difference of the
 * times of a put. All that the log causes while the puts go on is in it: page faults, the making of segments, syncs of
 * background threads; the processor time of all threads is told besides.
 */
#include "runner_internal.h"

#include <sys/resource.h>

enum phase { FILL, OVERWRITE, PHASES };
enum side { WITHOUT, WITH, SIDES };
enum { ROUNDS_MAX = 1000 };

static const char *const phase_names[PHASES] = {"logcost-fill", "logcost-over"};
static const char *const phase_workloads[PHASES] = {"fillrandom", "overwrite"};

struct measurement {
    unsigned position;
    enum bench_level level;
    struct bench_result results[PHASES]; /* of the side with the log: sums over rounds */
    double ns[PHASES][SIDES];            /* of a put; sums over rounds */
    double cpu_ns[PHASES][SIDES];
    double thread_ns[PHASES][SIDES]; /* of the writing threads alone */
    double faults[PHASES][SIDES];
    double cost_ns[PHASES][ROUNDS_MAX];
    struct bench_log_counts log[PHASES];
};

static double cpu_ns(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1e9 +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) * 1e3;
}

/* Does the puts of one phase on the open store, and adds up what they took. */
static int measure_phase(struct bench_runner *runner, struct measurement *m, enum phase phase, enum side side,
                         unsigned round, double *ret_ns)
{
    const struct bench_workload *workload = bench_workload_find(phase_workloads[phase]);
    const struct bench_engine *engine = runner->options->engine;
    struct bench_result *with = &m->results[phase];
    struct bench_result result = {0};
    struct rusage before, after;
    struct bench_run run;
    struct bench_log_counts log_before = {0};
    if (engine->log_counts != NULL)
        log_before = engine->log_counts(runner->store);

    bench_runner_init(runner, workload, m->position, &run);
    run.number = 1 + round; /* of both sides: the same keys and values */
    run.generation = (uint8_t)(2 * round + phase);
    (void)getrusage(RUSAGE_SELF, &before);
    if (bench_runner_threads(runner, &run, workload->work, NULL, false, &result) != 0)
        return -1;
    (void)getrusage(RUSAGE_SELF, &after);
    *ret_ns = result.seconds * 1e9 / (double)result.ops;
    m->ns[phase][side] += *ret_ns;
    m->thread_ns[phase][side] += (double)result.thread_cpu_ns / (double)result.ops;
    m->cpu_ns[phase][side] += (cpu_ns(&after) - cpu_ns(&before)) / (double)result.ops;
    m->faults[phase][side] += (double)(after.ru_minflt - before.ru_minflt) / (double)result.ops;
    if (side == WITHOUT)
        return 0;
    with->ops += result.ops;
    with->seconds += result.seconds;
    with->p50_ns = result.p50_ns;
    with->p99_ns = result.p99_ns;
    with->p999_ns = result.p999_ns;
    bench_memory_measure(with);
    if (engine->log_counts != NULL) {
        struct bench_log_counts log = engine->log_counts(runner->store);
        m->log[phase].bytes += log.bytes - log_before.bytes;
        m->log[phase].segments_recycled += log.segments_recycled - log_before.segments_recycled;
    }
    return 0;
}

static int measure_round(struct bench_runner *runner, struct measurement *m, unsigned round)
{
    double ns[PHASES][SIDES];

    for (unsigned i = 0; i < SIDES; i++) {
        enum side side = (enum side)((round + i) % SIDES);

        if (bench_runner_open(runner, side == WITH ? m->level : BENCH_LEVEL_OFF) != 0)
            return -1;
        bench_memory_reset_peak();
        for (unsigned phase = 0; phase < PHASES; phase++)
            if (measure_phase(runner, m, (enum phase)phase, side, round, &ns[phase][side]) != 0)
                return -1;
        if (side == WITH && runner->options->stats)
            runner->options->engine->print_stats(runner->store, stderr);
        bench_runner_close(runner);
    }
    for (unsigned phase = 0; phase < PHASES; phase++)
        m->cost_ns[phase][round] = ns[phase][WITH] - ns[phase][WITHOUT];
    return 0;
}

static void report(const struct bench_options *options, struct measurement *m, enum phase phase)
{
    struct bench_result *result = &m->results[phase];
    const double rounds = options->rounds;
    double least = m->cost_ns[phase][0];
    double most = least;

    for (unsigned round = 1; round < options->rounds; round++) {
        double cost = m->cost_ns[phase][round];
        least = cost < least ? cost : least;
        most = cost > most ? cost : most;
    }
    bench_report_extra(result, "off_ns", m->ns[phase][WITHOUT] / rounds);
    bench_report_extra(result, "on_ns", m->ns[phase][WITH] / rounds);
    bench_report_extra(result, "cost_ns", (m->ns[phase][WITH] - m->ns[phase][WITHOUT]) / rounds);
    bench_report_extra(result, "least_cost_ns", least);
    bench_report_extra(result, "most_cost_ns", most);
    bench_report_extra(result, "off_thread_ns", m->thread_ns[phase][WITHOUT] / rounds);
    bench_report_extra(result, "on_thread_ns", m->thread_ns[phase][WITH] / rounds);
    bench_report_extra(result, "off_cpu_ns", m->cpu_ns[phase][WITHOUT] / rounds);
    bench_report_extra(result, "on_cpu_ns", m->cpu_ns[phase][WITH] / rounds);
    bench_report_extra(result, "off_faults", m->faults[phase][WITHOUT] / rounds);
    bench_report_extra(result, "on_faults", m->faults[phase][WITH] / rounds);
    const struct bench_log_counts *log = &m->log[phase];
    if (log->bytes != 0) {
        bench_report_extra(result, "log_bytes_per_put", (double)log->bytes / (double)result->ops);
        bench_report_extra(result, "log_bytes", (double)log->bytes);
        bench_report_extra(result, "log_segments_recycled", (double)log->segments_recycled);
    }
    bench_report(options, result);
}

int bench_logcost(struct bench_runner *runner, unsigned position, unsigned repeat)
{
    const struct bench_options *options = runner->options;
    struct measurement m = {.position = position, .level = bench_level_or(options, BENCH_LEVEL_PROCESS)};

    if (m.level == BENCH_LEVEL_OFF)
        return bench_fail("logcost compares with level off; --level is process or durable");
    for (unsigned round = 0; round < options->rounds; round++)
        if (measure_round(runner, &m, round) != 0)
            return -1;
    for (unsigned phase = 0; phase < PHASES; phase++) {
        m.results[phase].workload = phase_names[phase];
        m.results[phase].position = position;
        m.results[phase].repeat = repeat;
        m.results[phase].threads = options->threads;
        m.results[phase].level = m.level;
        m.results[phase].stored = options->num;
        report(options, &m, (enum phase)phase);
    }
    return 0;
}
