/*
 * What workloads that open stores of their own use of the runner: groupcommit.c, logcost.c, reopen.c.
 *
 * Layer: bench. Called by the main thread.
 */
#ifndef BENCH_RUNNER_INTERNAL_H
#define BENCH_RUNNER_INTERNAL_H

#include "options.h"
#include "report.h"
#include "scratch.h"
#include "workload.h"

#include <pthread.h>

struct bench_runner {
    const struct bench_options *options;
    struct bench_data data;
    struct bench_zipf zipf;
    struct bench_store *store; /* NULL = none is open */
    char dir[BENCH_PATH_SIZE]; /* of the store */
    uint64_t stored;           /* keys in the store */
    bool filled;
    bool cold;     /* written since everything was read */
    uint64_t runs; /* of workloads, those to warm up included */
    pthread_barrier_t barrier;
    atomic_bool foreground_done; /* of the workload that is running */
};

/* --level, or `otherwise` if it was not on the command line. */
static inline enum bench_level bench_level_or(const struct bench_options *options, enum bench_level otherwise)
{
    return options->level == BENCH_LEVEL_UNSET ? otherwise : options->level;
}

/* Closes the store that is open and opens an empty one in a fresh directory. -1 after a message. */
int bench_runner_open(struct bench_runner *runner, enum bench_level level);
/* While none is open: the same in runner->dir. existing: opens the store that is there. */
int bench_runner_open_here(struct bench_runner *runner, enum bench_level level, bool existing);
/* Closes the store, if one is open, and removes its directory. */
void bench_runner_close(struct bench_runner *runner);

/* Prepares what all threads of a run of this workload share. */
void bench_runner_init(struct bench_runner *runner, const struct bench_workload *workload, unsigned position,
                       struct bench_run *ret_run);

/* Does the work in run->threads threads on the open store and adds up what they measured. background: what one more
 * thread does meanwhile; NULL = nothing. append: as in session_begin. */
int bench_runner_threads(struct bench_runner *runner, const struct bench_run *run,
                         int (*work)(struct bench_worker *worker), int (*background)(struct bench_worker *worker),
                         bool append, struct bench_result *result);

/* The workloads. Each reports by itself; the repeat is its only one. */
int bench_groupcommit(struct bench_runner *runner, unsigned position, unsigned repeat);
int bench_logcost(struct bench_runner *runner, unsigned position, unsigned repeat);
int bench_reopen(struct bench_runner *runner, unsigned position, unsigned repeat);

/* The writing process of reopen: ends by a kill, or with -1 after a message. */
int bench_reopen_child(struct bench_runner *runner);

#endif
