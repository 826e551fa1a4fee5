/*
 * Directories for a run's files, and how much was written to the device.
 *
 * Layer: bench. See scratch.h.
 */
#include "scratch.h"

#include "engine.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

int bench_scratch_make(const char *path, char ret_dir[BENCH_PATH_SIZE])
{
    if (snprintf(ret_dir, BENCH_PATH_SIZE, "%s/quire-bench.XXXXXX", path) >= BENCH_PATH_SIZE ||
        mkdtemp(ret_dir) == NULL)
        return bench_fail("--path: cannot make a directory in \"%s\": %s", path, strerror(errno));
    return 0;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *position)
{
    (void)status;
    (void)type;
    (void)position;
    return remove(path);
}

void bench_scratch_remove(const char *dir)
{
    (void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static uint64_t bytes_seen; /* nftw hands no context to what it calls */

static int add_entry(const char *path, const struct stat *status, int type, struct FTW *position)
{
    (void)path;
    (void)position;
    if (type == FTW_F)
        bytes_seen += (uint64_t)status->st_blocks * 512;
    return 0;
}

uint64_t bench_scratch_bytes(const char *dir)
{
    bytes_seen = 0;
    (void)nftw(dir, add_entry, 16, FTW_PHYS);
    return bytes_seen;
}

static uint64_t process_bytes(void)
{
    char line[128];
    uint64_t bytes = 0;
    FILE *file = fopen("/proc/self/io", "r");

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof(line), file) != NULL)
        (void)sscanf(line, "write_bytes: %" SCNu64, &bytes);
    (void)fclose(file);
    return bytes;
}

static uint64_t device_bytes(const char *dir)
{
    struct stat status;
    char name[64];
    uint64_t sectors = 0;
    FILE *file;

    if (stat(dir, &status) != 0)
        return 0;
    snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/stat", major(status.st_dev), minor(status.st_dev));
    file = fopen(name, "r");
    if (file == NULL)
        return 0;
    /* Reads, reads merged, sectors read, ms reading, writes, writes merged, sectors written, each of 512 bytes. */
    if (fscanf(file, "%*u %*u %*u %*u %*u %*u %" SCNu64, &sectors) != 1)
        sectors = 0;
    (void)fclose(file);
    return sectors * 512;
}

struct bench_written bench_written_now(const char *dir)
{
    return (struct bench_written){.process_bytes = process_bytes(), .device_bytes = device_bytes(dir)};
}
