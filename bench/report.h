/*
 * The results of one workload, as a line of JSON or of a table; and the process's memory.
 *
 * Layer: bench. Called by the main thread only.
 */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "options.h"

enum { BENCH_EXTRAS_MAX = 16 };

struct bench_extra {
    const char *name;
    double value;
};

struct bench_result {
    const char *workload;
    unsigned position; /* in the list of workloads, from 0 */
    unsigned repeat;   /* of the workload at this position, from 0 */
    unsigned threads;
    enum bench_level level;
    uint64_t ops;
    uint64_t background_ops; /* done meanwhile by a thread that was not measured */
    double seconds;
    uint64_t thread_cpu_ns; /* processor time of the threads that did the operations */
    uint64_t p50_ns, p99_ns, p999_ns;
    uint64_t rss_bytes;     /* at the end of the workload */
    uint64_t max_rss_bytes; /* highest during it (of the process's whole life if the kernel cannot reset the mark) */
    uint64_t stored;        /* keys in the store at the end */
    struct bench_extra extras[BENCH_EXTRAS_MAX]; /* the workload's own figures */
    unsigned extra_count;
};

/* Adds a figure of the workload's own; it comes out under this name. */
void bench_report_extra(struct bench_result *result, const char *name, double value);

void bench_report_begin(const struct bench_options *options);
void bench_report(const struct bench_options *options, const struct bench_result *result);

/* Starts a new high-water mark of memory. */
void bench_memory_reset_peak(void);
/* Fills in rss_bytes and max_rss_bytes; 0 if the kernel does not tell. */
void bench_memory_measure(struct bench_result *result);

#endif
