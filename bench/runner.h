/*
 * Runs a list of workloads on one store: opening, threads, measuring, reporting.
 *
 * Layer: bench. Called by the main thread.
 */
#ifndef BENCH_RUNNER_H
#define BENCH_RUNNER_H

#include "options.h"

/* 0 if every workload was done and every read was right, else -1 after a message. Leaves no files behind. */
int bench_run_all(const struct bench_options *options);

/* What the process that was started with --child does. */
int bench_run_child(const struct bench_options *options);

#endif
