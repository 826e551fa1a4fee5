/*
 * Yardsticks for durable commits: what the machine does with the same number of bytes and nothing around them.
 *
 * Layer: bench; knows no engine. Called by the main thread; the group's threads are its own.
 *
 * A record of BENCH_RECORD_BYTES, as large as Quire's frame of a key of 16 and a value of 100 bytes, is written behind
 * the one before, in a file that was written full of zeros and synced before; after its end comes its beginning. A
 * commit is a record that a sync has covered.
 */
#ifndef BENCH_YARDSTICK_H
#define BENCH_YARDSTICK_H

#include <stdint.h>

enum { BENCH_RECORD_BYTES = 144 };

struct bench_yardstick;

struct bench_commits {
    uint64_t count;
    double seconds;
};

/* Makes the file in this directory. -1 after a message. */
int bench_yardstick_open(const char *dir, struct bench_yardstick **ret_yardstick);
void bench_yardstick_close(struct bench_yardstick *yardstick);

/* One thread: write, fdatasync, again, for a time. Adds to *commits. */
int bench_yardstick_loop(struct bench_yardstick *yardstick, uint64_t time_ns, struct bench_commits *commits);

/*
 * Group commit, as simple as it gets: each thread appends its record to a buffer under a mutex. Whoever finds nobody at
 * it takes the buffer, writes it by one call and syncs; the others wait on a condition variable until a sync has
 * covered theirs.
 */
int bench_yardstick_group(struct bench_yardstick *yardstick, unsigned threads, uint64_t time_ns,
                          struct bench_commits *commits);

#endif
