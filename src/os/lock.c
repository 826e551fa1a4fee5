/*
 * lock.c: one opener of a directory at a time, or several that only read.
 *
 * Layer 1. The lock is one of an open file description: it conflicts with that of another open in the same process, and
 * the kernel drops it when the last descriptor of the description is closed, also by the death of the process.
 *
 * LOCK-1  A child of fork has the descriptor too. The process that locked unlocks by name when it closes; if it is
 * killed, a child that lives on without exec keeps the lock. Two openers can never come of it, at worst none. LOCK-2
 * The text in the file is for people. It is written over what was there and then cut, so that on a full disk a lock
 *         file that exists can be taken.
 */
#include "os/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
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

static int lock_file(const struct qr_posix_dir *dir, const char *name, int fd, bool shared, int64_t *ret_pid)
{
    int error = set_lock(fd, shared ? F_RDLCK : F_WRLCK);
    if (error == -EWOULDBLOCK)
        *ret_pid = read_pid(fd);
    if (error != 0)
        return error;
    if (!is_named(dir, name, fd)) {
        *ret_pid = 0;
        return -EWOULDBLOCK;
    }
    return shared ? 0 : write_pid(fd, getpid());
}

int qr_posix_dir_lock(struct qr_dir *base, const char *name, bool shared, int64_t *ret_pid)
{
    struct qr_posix_dir *dir = qr_posix_dir(base);
    int fd;

    QR_ASSERT(dir->lock_fd < 0);
    int error = qr_posix_open_plain(dir, name, shared ? O_RDONLY : O_RDWR | O_CREAT, &fd);
    if (error != 0)
        return shared && error == -ENOENT ? 0 : error;
    error = lock_file(dir, name, fd, shared, ret_pid);
    if (error != 0) {
        close(fd);
        return error;
    }
    dir->lock_fd = fd;
    dir->lock_pid = getpid();
    return 0;
}

void qr_posix_dir_unlock(struct qr_posix_dir *dir)
{
    if (dir->lock_fd < 0)
        return;
    if (dir->lock_pid == getpid())
        (void)set_lock(dir->lock_fd, F_UNLCK); /* LOCK-1 */
    close(dir->lock_fd);
    dir->lock_fd = -1;
}
