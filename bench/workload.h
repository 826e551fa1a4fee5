/*
 * The workloads: what one thread does, from its first to its last operation.
 *
 * Layer: bench; knows engines only through engine.h. A worker belongs to one thread while that runs.
 *
 * WORKLOAD-1  Every read is verified; an unexpected miss, hit or value ends the run with a message.
 * WORKLOAD-2  Latency is taken of one operation in about BENCH_SAMPLE_INTERVAL, at random distances, so that the cost
 *             of the clock does not show in the throughput and no period of an engine is hit or missed systematically.
 * WORKLOAD-3  Work in the background ends soon after *foreground_done is set, and does at least one operation.
 */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include "engine.h"
#include "histogram.h"

#include <stdatomic.h>

enum { BENCH_SAMPLE_INTERVAL = 16, BENCH_SCAN_LENGTH = 100 };

/* What is the same for all threads of one workload. */
struct bench_run {
    const struct bench_engine *engine;
    const struct bench_data *data;
    uint64_t num;    /* keys that were filled in, or will be */
    uint64_t stored; /* keys that are there: num, less those deleted */
    uint64_t ops;    /* of all threads together */
    unsigned threads;
    uint64_t scan_passes;
    _Atomic uint64_t *progress; /* counts the puts of bench_put_for_a_time; NULL = nobody looks */
    uint64_t time_ns;           /* of bench_put_for_a_time */
    uint64_t number;      /* of this run in the process, from 1: makes its random choices differ from other runs' */
    unsigned get_percent; /* of the operations of a mixed workload */
    bool verify_scan;
    uint8_t generation;            /* of the values written */
    const struct bench_zipf *zipf; /* NULL = uniform */
    struct bench_permutation permutation;
    atomic_bool *foreground_done; /* becomes true when the measured threads have ended */
};

struct bench_worker {
    const struct bench_run *run;
    struct bench_session *session;
    uint64_t begin, end; /* this thread's part of [0, run->ops); empty in the background */
    struct bench_rng rng;
    unsigned until_sample;
    uint64_t done; /* operations, or entries of a scan */
    struct bench_histogram latency;
    uint8_t *value; /* a buffer of value_size bytes */
    uint8_t keys[BENCH_MANY * BENCH_MAX_KEY_SIZE_BYTES];
};

struct bench_runner;

struct bench_workload {
    const char *name;
    int (*work)(struct bench_worker *worker); /* 0, or -1 after a message; NULL = consolidate, done by the engine */
    /* Instead: opens stores of its own, measures and reports. */
    int (*alone)(struct bench_runner *runner, unsigned position, unsigned repeat);
    int (*background)(struct bench_worker *worker); /* done by one more thread, unmeasured; NULL = nothing */
    bool fills;                                     /* starts from an empty store, and fills it */
    bool appends; /* one thread of it writes in ascending order, if the keys' format allows */
    bool writes;
    bool deletes;
    bool needs_all;       /* needs all keys of a fill, none deleted */
    unsigned get_percent; /* mixed workloads: how many of the operations are gets */
    unsigned ops_share;   /* default number of operations: num / ops_share */
};

const struct bench_workload *bench_workload_find(const char *name);
/* All workloads; the last has a name of NULL. */
extern const struct bench_workload bench_workloads[];

/* Whether it leaves the keys as they are, so that doing it again, or a part of it before, changes nothing but values.
 */
bool bench_workload_is_repeatable(const struct bench_workload *workload);

/* Reads all entries once, without measuring: what is read afterwards is as warm as it gets. */
int bench_read_all(struct bench_worker *worker);

/* Puts chosen keys until run->time_ns is over. */
int bench_put_for_a_time(struct bench_worker *worker);

uint64_t bench_now_ns(void);

#endif
