/*
 * The command line of quire-bench.
 *
 * Layer: bench. Read-only once parsed.
 */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "engine.h"

enum { BENCH_MAX_WORKLOADS = 64, BENCH_MAX_THREADS = 256 };

struct bench_workload;

struct bench_options {
    const struct bench_engine *engine;
    const struct bench_workload *workloads[BENCH_MAX_WORKLOADS]; /* in the order given */
    size_t workload_count;
    uint64_t num;
    uint64_t ops;     /* 0 = each workload's default */
    uint64_t warmup;  /* operations before the measured ones of a repeatable workload */
    unsigned repeats; /* how often a repeatable workload is measured, at least 1 */
    unsigned threads; /* at least 1 */
    bool threads_given;
    unsigned rounds;  /* of workloads that measure in turn */
    uint64_t time_ms; /* of each measurement that has a time and no number of operations */
    size_t key_size;
    size_t value_size;
    enum bench_key_format key_format;
    bool zipf;
    uint64_t seed;
    const char *path; /* where the store's own directory is made */
    enum bench_level level;
    uint64_t log_segment_bytes; /* Quire; 0 = its default */
    bool json;
    bool verify_scan;
    bool stats;
    unsigned lmdb_batch; /* 0 = by the level */
    bool no_checkpoint;
    bool no_statistics;
    const char *child; /* --child, for a process that this program starts: where it writes; NULL = it is not one */
    int argument_count;
    char **arguments; /* of the program */
};

enum bench_parse { BENCH_PARSE_RUN, BENCH_PARSE_DONE, BENCH_PARSE_WRONG };

/* Fills *ret_options. DONE: something was asked for and printed. WRONG: the command line is, and the reason printed. */
enum bench_parse bench_options_parse(int argc, char **argv, struct bench_options *ret_options);

#endif
