/*
 * Directories for a run's files, and how much was written to the device.
 *
 * Layer: bench. Called by the main thread only.
 */
#ifndef BENCH_SCRATCH_H
#define BENCH_SCRATCH_H

#include <stdint.h>

enum { BENCH_PATH_SIZE = 4096 };

/* Makes a fresh directory inside `path`. -1 after a message. */
int bench_scratch_make(const char *path, char ret_dir[BENCH_PATH_SIZE]);
/* Removes it with all that is in it. */
void bench_scratch_remove(const char *dir);

/* Bytes of all files in a directory. */
uint64_t bench_scratch_bytes(const char *dir);

/* Counters that only grow; 0 where the kernel does not tell. */
struct bench_written {
    uint64_t process_bytes; /* by this process: what it made the kernel write, without the file system's journal */
    uint64_t device_bytes;  /* to the directory's device, by everybody on the machine */
};
struct bench_written bench_written_now(const char *dir);

#endif
