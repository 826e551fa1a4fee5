/*
 * The stress test's common ground: options, a database a round, teams of threads, and a thread that disturbs them.
 *
 * Test program (stress). Each mode runs rounds; a round has a fresh database with drawn options, works in a team of
 * threads, and checks what it found when the team has ended.
 */
#ifndef TEST_STRESS_STRESS_H
#define TEST_STRESS_STRESS_H

#include "db/testing.h"
#include "lib/check.h"
#include "lib/keys.h"

#include <quire/quire.h>

#include <pthread.h>

#define STRESS_THREADS_MAX 64

struct stress_options {
    uint64_t threads;
    uint64_t seconds;
    uint64_t ops; /* per thread and round */
    uint64_t seed;
    uint64_t drop; /* 1: a test store is attached and pages are dropped */
    const char *mode;
};

/* One round. */
struct stress {
    const struct stress_options *options;
    struct random_stream random; /* of the main thread */
    struct quire *db;
    struct quire_tree *tree;
    pthread_t disturber;
    struct random_stream disturber_random;
    _Atomic int stop;
};

/* Opens the database and one tree of tiny pages; what is drawn goes to standard output if a check fails later. */
bool stress_open(struct stress *stress, uint32_t versions);

/* Structure check, maintenance until nothing is left, nothing retired, close. */
void stress_close(struct stress *stress);

/* ---- Teams ------------------------------------------------------------------------------------------------------ */

struct stress_worker {
    struct stress *stress;
    unsigned number;
    struct random_stream random;
    void *shared; /* of the team */
    void (*body)(struct stress_worker *worker);
    pthread_barrier_t *start;
    pthread_t thread;
};

/* Runs body in `count` threads that start together, with the disturber beside them; returns when all have ended. */
void stress_team(struct stress *stress, unsigned count, void (*body)(struct stress_worker *worker), void *shared);

/* ---- Modes: one round each -------------------------------------------------------------------------------------- */

typedef void stress_mode(struct stress *stress);

stress_mode stress_history;  /* per-key linearizability (history.c) */
stress_mode stress_versions; /* caller versions written by many threads (versions.c) */
stress_mode stress_scan;     /* scans and snapshots beside splits and merges (scan.c) */
stress_mode stress_counters; /* sums and single winners (counters.c) */
stress_mode stress_churn;    /* short threads (churn.c) */

#endif
