/*
 * posix.h: what the files of the disk that is made of system calls share.
 *
 * Layer 1. Only for posix.c, facts.c, lock.c, mapping.c and uring.c; everybody else knows disk.h.
 */
#ifndef QR_OS_POSIX_H
#define QR_OS_POSIX_H

#include <pthread.h>
#include <sys/types.h>

#include "base/check.h"
#include "os/disk.h"

struct qr_posix_dir {
    struct qr_dir dir;
    int fd;
    int lock_fd;    /* of the lock's file; -1: not locked, or shared where there is none */
    pid_t lock_pid; /* who locked it: a child of fork must not unlock it; 0: not locked */
    bool read_only;
};

/* Where a mapping lies in its file. */
struct qr_posix_mapping {
    struct qr_posix_mapping *next;
    uint8_t *memory;
    uint64_t offset, size_bytes;
};

struct qr_posix_file {
    struct qr_file file;
    int fd;
    uint32_t direct_align_bytes; /* 0: not past the page cache */
    bool asked_direct;
    pthread_mutex_t mapping_mutex;
    struct qr_posix_mapping *mappings; /* under the mutex */
};

static inline struct qr_posix_dir *qr_posix_dir(struct qr_dir *dir)
{
    return QR_CONTAINER_OF(dir, struct qr_posix_dir, dir);
}

static inline struct qr_posix_file *qr_posix_file(struct qr_file *file)
{
    return QR_CONTAINER_OF(file, struct qr_posix_file, file);
}

extern const struct qr_disk_ops qr_posix_ops;

/* Opens a plain file below a directory; flags of open(2) besides those that every file gets. DISK-5. */
int qr_posix_open_plain(const struct qr_posix_dir *dir, const char *name, int open_flags, int *ret_fd);

/* 0, or -EFBIG if no file of this process may have that size (DISK-4). The limit may change at any time; if another
 * thread lowers it between this question and the system call, the signal comes all the same. */
int qr_posix_limit(uint64_t size_bytes);

/* Runs one part of a transfer; its result is set. */
void qr_posix_run(struct qr_io *io);

/* facts.c */
int qr_posix_dir_facts(struct qr_dir *dir, struct qr_dir_facts *ret_facts);
int qr_posix_dir_free_bytes(struct qr_dir *dir, uint64_t *ret_bytes);
int qr_posix_file_facts(struct qr_file *file, struct qr_file_facts *ret_facts);
/* Turns direct I/O on where it is possible, and says with which alignment (0: it is not). */
int qr_posix_set_direct(int fd, uint32_t *ret_align_bytes);

/* lock.c */
int qr_posix_dir_lock(struct qr_dir *dir, const char *name, bool shared, int64_t *ret_pid);
void qr_posix_dir_unlock(struct qr_posix_dir *dir);

/* mapping.c */
int qr_posix_file_map(struct qr_file *file, uint64_t offset, uint64_t size_bytes, void **ret_memory);
void qr_posix_file_unmap(struct qr_file *file, void *memory, uint64_t size_bytes);
int qr_posix_file_populate(struct qr_file *file, void *memory, uint64_t size_bytes);
int qr_posix_file_sync_mapped(struct qr_file *file, void *memory, uint64_t size_bytes);

#endif
