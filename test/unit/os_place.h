/*
 * os_place.h: a directory on each kind of disk, for the tests of src/os.
 */
#ifndef UNIT_OS_PLACE_H
#define UNIT_OS_PLACE_H

#include "lib/simdisk.h"

enum os_kind { OS_POSIX, OS_URING, OS_SIMULATED };

struct os_place {
    enum os_kind kind;
    struct qr_disk *disk;
    struct simdisk *simulated; /* NULL: a real one */
    char base[200];            /* a fresh directory; of a real disk */
    char path[256];            /* below it: what `dir` is open on */
    struct qr_dir *dir;
};

/* Where rings are not to be had, a URING place is one of system calls, and says so on standard error. */
void os_place_open(struct os_place *place, enum os_kind kind);

/* The same with `base` given: it is there, and stays. */
void os_place_open_at(struct os_place *place, enum os_kind kind, const char *base);

/* Closes and removes it all. Files must be closed. */
void os_place_close(struct os_place *place);

/* Another open directory on the same path. */
struct qr_dir *os_place_dir(const struct os_place *place, unsigned flags);

/* A file of the place, which must be there or be made. */
struct qr_file *os_place_file(const struct os_place *place, const char *name, unsigned flags);

/* A file of that many bytes of a pattern that depends on the place in the file; made anew. */
struct qr_file *os_place_filled(const struct os_place *place, const char *name, uint32_t size);
uint8_t os_pattern(uint64_t offset);

/* Checks that memory holds the pattern of an offset. */
void os_check_pattern(const uint8_t *memory, uint64_t size, uint64_t offset);

#endif
