/*
 * schedule.h: threads of which one runs at a time, in an order that follows from a seed.
 *
 * Test program (sim). Clients are threads that hand on a baton: at each stop point of the engine, each operation of the
 * disk, each mutex, and wherever the engine waits. Waits are found without a line in the engine: the program is linked with
 * wrappers of what waits (meson.build lists them), which for a client put the scheduler in the place of the system, and for
 * every other thread are what they wrap.
 *
 * SCHED-1  Between two points one client runs and nothing else does; what it does there is a function of the seed.
 * SCHED-2  Time is virtual for all threads of the program. It goes on by a little with each look at it and each point, and to
 *          the next deadline when nobody can run.
 * SCHED-3  When nobody can run and no deadline is there, or when points do not come to an end, that is a failure of the engine.
 */
#ifndef TEST_SIM_SCHEDULE_H
#define TEST_SIM_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/random.h"

#define SCHED_CLIENTS 8u

enum sched_kind {
    SCHED_WALK, /* at each point with switch_percent another client, by chance */
    SCHED_PCT   /* priorities by chance, which change at two points: depth 3 */
};

struct sched_setup {
    enum sched_kind kind;
    unsigned switch_percent;
    uint64_t expected_points; /* among which the changes of priority lie */
    uint64_t most_points;     /* SCHED-3 */
    void (*client)(void *context, unsigned number);
    /* Both in the thread of the client that is at a point, NULL is fine: on arrival, and when it goes on. What they call
     * is no point. */
    void (*arrives)(void *context, unsigned number, const char *point);
    void (*goes_on)(void *context, unsigned number);
    void (*stuck)(void *context, const char *why); /* does not return */
    void *context;
};

/* Runs clients 0 to count - 1 until all have ended. */
void sched_run(const struct sched_setup *setup, unsigned count, struct random_stream random);

/* A point, if the calling thread is a client. `what` is a constant. */
void sched_point(const char *what);

/* Virtual time begins anew, and random numbers of the system follow from the seed. */
void sched_begin(uint64_t seed);

/* Since sched_begin. */
struct sched_counts {
    uint64_t points, switches, waits, jumps; /* jumps: of the clock, nobody could run */
    uint64_t hash;                           /* of who was where: two runs of a seed have the same */
};
struct sched_counts sched_counts(void);

/* Something of the caller's goes into the hash. */
void sched_note(uint64_t word);

#endif
