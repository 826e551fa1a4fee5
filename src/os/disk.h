/*
 * disk.h: everything the engine asks of a file system, as a table of functions.
 *
 * Layer 1. The log and the store do all their I/O through this table: through the ring (uring.c), through pread and pwrite
 * (posix.c), or on a simulated disk that loses power (in the tests). Nothing may bypass it.
 *
 * DISK-1  A function answers at least 0, or a negated errno. It retries nothing: a short count and -EINTR reach the caller;
 *         qr_file_read, qr_file_write, qr_file_sync, qr_dir_sync ... below are what the engine calls, and they deal with both.
 * DISK-2  What a call of `sync` that answered 0 covers survives power loss: for a file, its data and its size as they were
 *         when the call began; for a directory, the names in it. After a sync that failed nothing is known about what was
 *         written since the last good one, and a later sync that answers 0 says nothing about it.
 * DISK-3  Stores into a mapping and writes by `write` reach the same page cache: either is seen by reads and survives the
 *         death of the process; both need `sync` to survive power loss.
 * DISK-4  A write that would make a file larger than the process may write (RLIMIT_FSIZE) answers -EFBIG, and no signal is
 *         raised.
 *
 * DISK-5  A name is one component: -EINVAL if it is empty, ".", ".." or has a slash. Files are plain files: a link answers
 *         -ELOOP, a directory -EISDIR, anything else -EINVAL, whether it is opened or its name is in the way. Through a
 *         directory that was opened READ_ONLY nothing can be changed: -EROFS.
 * DISK-6  Names of several files wait for one sync of their directory, whoever asks for it. So a failed one is final for all of them:
 *         qr_dir_sync answers that failure from then on, until the directory is closed, and one call at a time asks the disk.
 *
 * Threads: all functions of a directory or file may be called by any thread at once; close only when nobody uses it. Not in
 * a child of fork: it shares the lock and the rings of its parent. The layers above refuse it.
 */
#ifndef QR_OS_DISK_H
#define QR_OS_DISK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qr_disk; /* how files are reached: made once, shared by the directories opened with it */
struct qr_dir;  /* an open directory */
struct qr_file; /* an open file of it */

/* ---- What is asked and told ------------------------------------------------------------------------------------- */

enum qr_dir_flags {
    QR_DIR_CREATE = 1,    /* make it if it is not there; its parent is synced then */
    QR_DIR_READ_ONLY = 2, /* nothing will be written, not even a lock file */
    QR_DIR_PRIVATE = 4,   /* with CREATE: for this user alone; -EEXIST if it is there */
};

enum qr_file_flags {
    QR_FILE_WRITE = 1,
    QR_FILE_CREATE = 2,    /* with WRITE: make it if it is not there */
    QR_FILE_EXCLUSIVE = 4, /* with CREATE: -EEXIST if it is there */
    QR_FILE_DIRECT = 8,    /* past the page cache if the file system can (direct_align_bytes != 0), else as without */
};

/* What a directory lies on. */
struct qr_dir_facts {
    uint8_t boot_id[16]; /* of the running kernel; zero if not known */
    uint64_t device;     /* number of the file system's device */
    uint64_t mount_id;   /* unique for as long as the machine runs, before Linux 6.8 among the mounts that there are; 0 if
                            not known: then mounts cannot be told apart */
    uint64_t inode;      /* of the directory */
    bool can_map;        /* stores into shared mappings behave: ext4, xfs, btrfs, f2fs, tmpfs and the like; no size limit on
                            files of this process */
    bool read_only;      /* the file system is */
};

/* What a file is. */
struct qr_file_facts {
    uint64_t size_bytes, allocated_bytes;
    uint64_t inode;
    uint32_t direct_align_bytes; /* of offsets, lengths and memory with QR_FILE_DIRECT; 0: not possible, or (before Linux
                                    6.1, if it was opened without) not known */
    bool regular;                /* a plain file: not a directory, device, pipe; links are never followed */
};

enum qr_io_kind { QR_IO_READ, QR_IO_WRITE, QR_IO_SYNC };

/* One of several operations that run at once. */
struct qr_io {
    enum qr_io_kind kind;
    struct qr_file *file;
    uint64_t offset;
    void *memory; /* of a WRITE it is only read */
    uint32_t size;
    int64_t result; /* set: bytes done, 0 for SYNC, or a negated errno */
};

/* Sees one name of a directory; not 0 ends the listing, which answers it. */
typedef int qr_dir_visit(void *context, const char *name);

/* ---- The table -------------------------------------------------------------------------------------------------- */

struct qr_disk_ops {
    void (*disk_free)(struct qr_disk *disk);

    /* path: any; a link is followed. -ENOENT, -ENOTDIR, -EACCES ... */
    int (*dir_open)(struct qr_disk *disk, const char *path, unsigned flags, struct qr_dir **ret_dir);
    void (*dir_close)(struct qr_dir *dir);
    /* Removes an empty directory: -ENOTEMPTY, -ENOENT ... Not synced. */
    int (*dir_remove)(struct qr_disk *disk, const char *path);
    int (*dir_facts)(struct qr_dir *dir, struct qr_dir_facts *ret_facts);
    /* All names but "." and "..", in no order. Others may come and go meanwhile. */
    int (*dir_list)(struct qr_dir *dir, qr_dir_visit *visit, void *context);
    int (*dir_sync)(struct qr_dir *dir);
    /* What new files can take, as the file system says; -EOPNOTSUPP: it does not say. */
    int (*dir_free_bytes)(struct qr_dir *dir, uint64_t *ret_bytes);
    int (*dir_unlink)(struct qr_dir *dir, const char *name);
    /* Replaces `to` at once. */
    int (*dir_rename)(struct qr_dir *dir, const char *from, const char *to);
    /*
     * Locks the directory against other openers, in this process or another, until the directory is closed or the process
     * ends (a child of fork keeps it that lives on without exec, unless it was closed): itself and the file `name`, made if
     * need be, with the process id as text in it. To remove the file lets nobody in. shared: with other shared ones; makes
     * and writes no file. -EWOULDBLOCK: somebody else has it, and nothing was made or written; *ret_pid is what the file says
     * of who writes (0: nothing, or the others only read). At most once for each open directory.
     */
    int (*dir_lock)(struct qr_dir *dir, const char *name, bool shared, int64_t *ret_pid);

    int (*file_open)(struct qr_dir *dir, const char *name, unsigned flags, struct qr_file **ret_file);
    void (*file_close)(struct qr_file *file);
    int (*file_facts)(struct qr_file *file, struct qr_file_facts *ret_facts);
    int64_t (*file_read)(struct qr_file *file, void *memory, size_t size, uint64_t offset);
    int64_t (*file_write)(struct qr_file *file, const void *memory, size_t size, uint64_t offset);
    int (*file_resize)(struct qr_file *file, uint64_t size_bytes);
    /* Makes sure of the space for [offset, offset + size), the file grown to it. -EOPNOTSUPP: write zeros instead. */
    int (*file_allocate)(struct qr_file *file, uint64_t offset, uint64_t size_bytes);
    /* fdatasync: data, and what is needed to find them. */
    int (*file_sync)(struct qr_file *file);
    /* Tells the page cache that these bytes will not be needed soon. A hint. */
    void (*file_forget)(struct qr_file *file, uint64_t offset, uint64_t size_bytes);

    /*
     * Maps the whole pages of [offset, offset + size) of a file that is that large, shared, for reading and writing, for
     * access at random. populate: makes part of a mapping ready to be stored into: -ENOSPC, -EIO ... instead of a signal
     * at the store. Memory that was mapped is unmapped whole.
     */
    int (*file_map)(struct qr_file *file, uint64_t offset, uint64_t size_bytes, void **ret_memory);
    void (*file_unmap)(struct qr_file *file, void *memory, uint64_t size_bytes);
    int (*file_populate)(struct qr_file *file, void *memory, uint64_t size_bytes);
    /*
     * As file_sync, for a part of a mapping: at least these bytes. Of the pages that are wholly in it nothing will be stored
     * into any more; what is stored into the last one meanwhile goes with this sync or with a later one.
     */
    int (*file_sync_mapped)(struct qr_file *file, void *memory, uint64_t size_bytes);

    /*
     * Runs all of them, in any order and as much at once as can be, and returns when each has its result. 0, or a negated
     * errno if some may not have been run: their results say -ECANCELED then.
     */
    int (*transfer)(struct qr_disk *disk, struct qr_io *ios, uint32_t count);
};

struct qr_disk {
    const struct qr_disk_ops *ops;
    const char *name; /* "uring", "posix", "simulated": for statistics */
};
struct qr_dir {
    struct qr_disk *disk;
    pthread_mutex_t sync_mutex;
    int sync_error; /* DISK-6; under sync_mutex */
};
struct qr_file {
    struct qr_dir *dir;
};

/* ---- The disks that there are ----------------------------------------------------------------------------------- */

/* pread, pwrite and what else POSIX has; transfer runs one after the other. -ENOMEM. */
int qr_disk_posix(struct qr_disk **ret_disk);

/* The same with a ring for transfer. Falls back to qr_disk_posix without a word if rings are not to be had (-ENOSYS, -EPERM,
 * -ENOMEM, locked memory); disk->name tells. want_ring false: does not try. */
int qr_disk_open(bool want_ring, struct qr_disk **ret_disk);

/* What went through rings; zero for a disk without. */
struct qr_disk_counts {
    uint64_t ring_operations; /* that were handed to a ring */
    uint32_t ring_depth_max;  /* that a ring had in hand at once */
};
void qr_disk_counts(const struct qr_disk *disk, struct qr_disk_counts *ret_counts);

/* ---- What the engine calls --------------------------------------------------------------------------------------- */

/* Reads up to `size` bytes; fewer only at the end of the file. Bytes read, or a negated errno. */
int64_t qr_file_read(struct qr_file *file, void *memory, size_t size, uint64_t offset);

/* Writes all of it. 0 or a negated errno: then any part may have been written. */
int qr_file_write(struct qr_file *file, const void *memory, size_t size, uint64_t offset);

/* Syncs; -EINTR is asked again, any other failure is final (DISK-2). */
int qr_file_sync(struct qr_file *file);
int qr_file_sync_mapped(struct qr_file *file, void *memory, uint64_t size_bytes);

/* The same for a directory, final for everybody who has it open by this handle (DISK-6). */
int qr_dir_sync(struct qr_dir *dir);

/* For those who implement a disk: what a directory has besides their own, made and given back. */
void qr_dir_init(struct qr_dir *dir, struct qr_disk *disk);
void qr_dir_destroy(struct qr_dir *dir);

/* Zeros, really written, in pieces of unit_bytes (at most 64 KiB): a file system may keep what one call wrote as one unit of its
 * cache, and write all of it for each byte that is changed. */
int qr_file_write_zeros(struct qr_file *file, uint64_t offset, uint64_t size_bytes, uint32_t unit_bytes);

/*
 * Runs all of them to their ends: short counts and -EINTR are continued. 0: each did all of its bytes; else the first failure
 * (a read at the end of the file: -ENODATA), and each result tells of its own.
 */
int qr_disk_transfer(struct qr_disk *disk, struct qr_io *ios, uint32_t count);

#endif
