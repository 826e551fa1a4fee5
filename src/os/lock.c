/*
 * lock.c: one opener of a directory at a time, or several that only read.
 *
 * Layer 1. There are two locks, and an opener has both: of the directory itself (flock), which is there as long as the
 * directory is, and of the file in it, whose text says who writes. Both are of an open file description: they conflict
 * with those of another open in the same process, and the kernel drops them when the last descriptor of the description
 * is closed, also by the death of the process.
 *
 * LOCK-1  A child of fork has the descriptors too. The process that locked unlocks by name when it closes; if it ends
 *         without that, a child that lives on keeps the locks until it closes, ends or execs. Two openers can never
 *         come of it, at worst none.
 * LOCK-2  The text in the file is for people. It is written over what was there and then cut, so that on a full disk a
 *         lock file that exists can be taken.
 * LOCK-3  The directory is locked first. So whoever is refused has made no file and written no text, and a file that
 *         somebody has removed lets nobody in; who reads where there is no such file is kept apart from writers all the
 *         same, on media that cannot be written, too.
 * LOCK-4  Where a file system has no locks of directories, the file's alone counts, and must not be removed. Some network
 *         file systems keep those of directories to one machine: there it is the file's that counts between machines.
 */
#include "os/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PID_TEXT_BYTES 24

static int set_lock(int fd, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EWOULDBLOCK : -errno;
}

/* LOCK-4 */
static bool has_no_directory_locks(int error)
{
    return error == EBADF || error == EINVAL || error == ENOLCK || error == ENOSYS || error == EOPNOTSUPP;
}

static int lock_directory(const struct qr_posix_dir *dir, bool shared)
{
    if (flock(dir->fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
        return 0;
    return has_no_directory_locks(errno) ? 0 : -errno;
}

/* 0: none that can be read. */
static int64_t read_pid(int fd)
{
    char text[PID_TEXT_BYTES + 1];
    ssize_t size = pread(fd, text, PID_TEXT_BYTES, 0);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    int64_t pid = strtoll(text, NULL, 10);
    return pid > 0 ? pid : 0;
}

/* Of whoever writes, by the file; 0: there is no file, or nobody who writes has it. */
static int64_t writer_pid(const struct qr_posix_dir *dir, const char *name)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int fd;
    if (qr_posix_open_plain(dir, name, O_RDONLY, &fd) != 0)
        return 0;
    int64_t pid = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_WRLCK ? read_pid(fd) : 0;
    close(fd);
    return pid;
}

static int write_pid(int fd, pid_t pid)
{
    char text[PID_TEXT_BYTES];
    int size = snprintf(text, sizeof(text), "%" PRId64 "\n", (int64_t)pid);
    int error = qr_posix_limit((uint64_t)size);
    if (error != 0)
        return error;
    ssize_t count = pwrite(fd, text, (size_t)size, 0);
    if (count != size)
        return count < 0 ? -errno : -ENOSPC;
    return ftruncate(fd, size) != 0 ? -errno : 0;
}

/* Whether the name still is this file: whoever destroys a database unlinks it, the lock in hand. */
static bool is_named(const struct qr_posix_dir *dir, const char *name, int fd)
{
    struct stat named, locked;
    return fstatat(dir->fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &locked) == 0 &&
           named.st_dev == locked.st_dev && named.st_ino == locked.st_ino;
}

static int lock_open_file(const struct qr_posix_dir *dir, const char *name, int fd, bool shared)
{
    int error = set_lock(fd, shared ? F_RDLCK : F_WRLCK);
    if (error != 0)
        return error;
    if (!is_named(dir, name, fd))
        return -EWOULDBLOCK;
    return shared ? 0 : write_pid(fd, getpid());
}

/* *ret_fd: -1 where who reads finds no file. */
static int lock_file(const struct qr_posix_dir *dir, const char *name, bool shared, int *ret_fd)
{
    int fd;
    int error = qr_posix_open_plain(dir, name, shared ? O_RDONLY : O_RDWR | O_CREAT, &fd);
    *ret_fd = -1;
    if (error != 0)
        return shared && error == -ENOENT ? 0 : error;
    error = lock_open_file(dir, name, fd, shared);
    if (error == 0)
        *ret_fd = fd;
    else
        close(fd);
    return error;
}

int qr_posix_dir_lock(struct qr_dir *base, const char *name, bool shared, int64_t *ret_pid)
{
    struct qr_posix_dir *dir = qr_posix_dir(base);

    QR_ASSERT(dir->lock_pid == 0);
    int error = lock_directory(dir, shared); /* LOCK-3 */
    if (error == 0) {
        error = lock_file(dir, name, shared, &dir->lock_fd);
        if (error != 0)
            (void)flock(dir->fd, LOCK_UN);
    }
    if (error == -EWOULDBLOCK)
        *ret_pid = writer_pid(dir, name);
    if (error == 0)
        dir->lock_pid = getpid();
    return error;
}

void qr_posix_dir_unlock(struct qr_posix_dir *dir)
{
    if (dir->lock_pid == 0)
        return;
    bool mine = dir->lock_pid == getpid(); /* LOCK-1 */
    if (dir->lock_fd >= 0) {
        if (mine)
            (void)set_lock(dir->lock_fd, F_UNLCK);
        close(dir->lock_fd);
    }
    if (mine)
        (void)flock(dir->fd, LOCK_UN);
    dir->lock_fd = -1;
    dir->lock_pid = 0;
}
