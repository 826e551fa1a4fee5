/*
 * posix.c: the disk made of system calls, one for each function of the table.
 *
 * Layer 1. Directories are reached by their descriptors, files by openat below them, so that what was opened stays what
 * it is when paths change. Facts are in facts.c, the lock in lock.c, mappings in mapping.c.
 *
 * POSIX-1  Nothing that is opened follows a link below its directory, outlives exec, or becomes the terminal of the
 * process. POSIX-2  A file keeps O_NONBLOCK no longer than its opening: it is there for pipes, and a ring would take it
 * as "answer -EAGAIN rather than wait for the device". POSIX-3  errno is read at once after its call; whatever it says
 * goes up.
 *
 * Any thread; what waits is the device.
 */
#include "os/posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

/* Of what is made; the umask takes from it. */
#define NEW_FILE_MODE 0666
#define NEW_DIR_MODE 0777
#define PRIVATE_DIR_MODE 0700

static int negated(int answer)
{
    return answer < 0 ? -errno : 0;
}

static bool is_name(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

int qr_posix_limit(uint64_t size_bytes)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0)
        return -errno;
    return limit.rlim_cur != RLIM_INFINITY && size_bytes > limit.rlim_cur ? -EFBIG : 0;
}

/* ---- Directories ------------------------------------------------------------------------------------------------ */

static int open_dir(int at, const char *path, int *ret_fd)
{
    int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

/*
 * A parent that may be written but not read cannot be opened: then the whole file system is synced. EINVAL: its file
 * system has no syncs, as where something is mounted; what is below can be safe all the same.
 */
static int sync_parent(int fd)
{
    int parent = -1;
    int error = open_dir(fd, "..", &parent);
    if (error == -EACCES)
        return negated(syncfs(fd));
    if (error != 0)
        return error;
    error = negated(fsync(parent));
    close(parent);
    return error == -EINVAL ? 0 : error;
}

/* 1: there is something in it, 0: nothing. */
static int visit_any(void *context, const char *name)
{
    (void)context;
    (void)name;
    return 1;
}

static int list(int dir_fd, qr_dir_visit *visit, void *context)
{
    int fd = -1; /* a position of our own */
    int error = open_dir(dir_fd, ".", &fd);
    if (error != 0)
        return error;
    DIR *stream = fdopendir(fd);
    if (stream == NULL) {
        error = -errno;
        close(fd);
        return error;
    }
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            error = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        error = visit(context, entry->d_name);
        if (error != 0)
            break;
    }
    closedir(stream);
    return error;
}

/*
 * After a crash between the two steps the directory is there, empty, and perhaps not for long: so the parent of an
 * empty one is synced too.
 */
static int make_and_open_dir_once(const char *path, bool private, bool *ret_there, int *ret_fd)
{
    int fd = -1;
    bool made = mkdir(path, private ? PRIVATE_DIR_MODE : NEW_DIR_MODE) == 0;
    *ret_there = made || errno == EEXIST;
    if (!made && (errno != EEXIST || private))
        return -errno;
    int error = open_dir(AT_FDCWD, path, &fd);
    if (error != 0)
        return error;
    int filled = made ? 0 : list(fd, visit_any, NULL);
    error = filled > 0 ? 0 : filled < 0 ? filled : sync_parent(fd);
    if (error != 0) {
        close(fd);
        if (made)
            rmdir(path);
        return error;
    }
    *ret_fd = fd;
    return 0;
}

#define DIR_TRIES 100 /* a link to nothing is there, and is not */

/* Somebody may remove it in between: then it is made again. */
static int make_and_open_dir(const char *path, bool private, int *ret_fd)
{
    bool was_there;
    int error;
    int tries = 0;
    do {
        error = make_and_open_dir_once(path, private, &was_there, ret_fd);
    } while (error == -ENOENT && was_there && ++tries < DIR_TRIES);
    return error;
}

static int posix_dir_open(struct qr_disk *disk, const char *path, unsigned flags, struct qr_dir **ret_dir)
{
    bool read_only = (flags & QR_DIR_READ_ONLY) != 0;
    struct qr_posix_dir *dir = qr_malloc(sizeof(*dir));
    if (dir == NULL)
        return -ENOMEM;
    *dir = (struct qr_posix_dir){.lock_fd = -1, .read_only = read_only};
    qr_dir_init(&dir->dir, disk);
    int error = (flags & QR_DIR_CREATE) != 0 && !read_only
                    ? make_and_open_dir(path, (flags & QR_DIR_PRIVATE) != 0, &dir->fd)
                    : open_dir(AT_FDCWD, path, &dir->fd);
    if (error != 0) {
        qr_dir_destroy(&dir->dir);
        qr_free(dir);
        return error;
    }
    *ret_dir = &dir->dir;
    return 0;
}

static void posix_dir_close(struct qr_dir *base)
{
    struct qr_posix_dir *dir = qr_posix_dir(base);
    qr_posix_dir_unlock(dir);
    close(dir->fd);
    qr_dir_destroy(base);
    qr_free(dir);
}

static int posix_dir_remove(struct qr_disk *disk, const char *path)
{
    (void)disk;
    return negated(rmdir(path));
}

static int posix_dir_list(struct qr_dir *dir, qr_dir_visit *visit, void *context)
{
    return list(qr_posix_dir(dir)->fd, visit, context);
}

static int posix_dir_sync(struct qr_dir *dir)
{
    return negated(fsync(qr_posix_dir(dir)->fd));
}

static int may_change(const struct qr_posix_dir *dir, const char *name)
{
    if (!is_name(name))
        return -EINVAL;
    return dir->read_only ? -EROFS : 0;
}

static int posix_dir_unlink(struct qr_dir *base, const char *name)
{
    struct qr_posix_dir *dir = qr_posix_dir(base);
    int error = may_change(dir, name);
    return error != 0 ? error : negated(unlinkat(dir->fd, name, 0));
}

static int posix_dir_rename(struct qr_dir *base, const char *from, const char *to)
{
    struct qr_posix_dir *dir = qr_posix_dir(base);
    int error = may_change(dir, from);
    if (error == 0)
        error = may_change(dir, to);
    return error != 0 ? error : negated(renameat(dir->fd, from, dir->fd, to));
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

int qr_posix_open_plain(const struct qr_posix_dir *dir, const char *name, int open_flags, int *ret_fd)
{
    struct stat status;
    if (!is_name(name))
        return -EINVAL;
    if (dir->read_only && (open_flags & (O_ACCMODE | O_CREAT)) != O_RDONLY)
        return -EROFS;
    int fd = openat(dir->fd, name, open_flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, NEW_FILE_MODE);
    if (fd < 0)
        return -errno;
    int error = negated(fstat(fd, &status));
    if (error == 0 && !S_ISREG(status.st_mode))
        error = S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL;
    if (error == 0)
        error = negated(fcntl(fd, F_SETFL, 0)); /* POSIX-2 */
    if (error != 0) {
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return 0;
}

static int open_flags_of(unsigned flags)
{
    int open_flags = (flags & QR_FILE_WRITE) != 0 ? O_RDWR : O_RDONLY;
    if ((flags & QR_FILE_CREATE) != 0)
        open_flags |= O_CREAT;
    if ((flags & QR_FILE_EXCLUSIVE) != 0)
        open_flags |= O_EXCL;
    return open_flags;
}

static int posix_file_open(struct qr_dir *dir, const char *name, unsigned flags, struct qr_file **ret_file)
{
    QR_ASSERT((flags & QR_FILE_CREATE) == 0 || (flags & QR_FILE_WRITE) != 0);
    QR_ASSERT((flags & QR_FILE_EXCLUSIVE) == 0 || (flags & QR_FILE_CREATE) != 0);
    struct qr_posix_file *file = qr_calloc(1, sizeof(*file));
    if (file == NULL)
        return -ENOMEM;
    file->file.dir = dir;
    file->asked_direct = (flags & QR_FILE_DIRECT) != 0;
    int error = qr_posix_open_plain(qr_posix_dir(dir), name, open_flags_of(flags), &file->fd);
    if (error != 0)
        goto fail;
    if (file->asked_direct)
        error = qr_posix_set_direct(file->fd, &file->direct_align_bytes);
    if (error != 0)
        goto fail_opened;
    error = -pthread_mutex_init(&file->mapping_mutex, NULL);
    if (error != 0)
        goto fail_opened;
    *ret_file = &file->file;
    return 0;

fail_opened:
    close(file->fd);
fail:
    qr_free(file);
    return error;
}

static void posix_file_close(struct qr_file *base)
{
    struct qr_posix_file *file = qr_posix_file(base);
    QR_ASSERT(file->mappings == NULL);
    pthread_mutex_destroy(&file->mapping_mutex);
    close(file->fd);
    qr_free(file);
}

static int64_t posix_file_read(struct qr_file *file, void *memory, size_t size, uint64_t offset)
{
    ssize_t count = pread(qr_posix_file(file)->fd, memory, size, (off_t)offset);
    return count < 0 ? -errno : count;
}

static int64_t posix_file_write(struct qr_file *file, const void *memory, size_t size, uint64_t offset)
{
    uint64_t end;
    if (__builtin_add_overflow(offset, size, &end))
        return -EINVAL;
    /* The kernel asks for the limit at every byte beyond it, also at those that are there already. */
    int error = qr_posix_limit(end);
    if (error != 0)
        return error;
    ssize_t count = pwrite(qr_posix_file(file)->fd, memory, size, (off_t)offset);
    return count < 0 ? -errno : count;
}

/* The limit counts where the file grows. */
static int may_grow(const struct qr_posix_file *file, uint64_t size_bytes)
{
    struct stat status;
    int error = qr_posix_limit(size_bytes);
    if (error != -EFBIG)
        return error;
    if (fstat(file->fd, &status) != 0)
        return -errno;
    return size_bytes > (uint64_t)status.st_size ? -EFBIG : 0;
}

static int posix_file_resize(struct qr_file *base, uint64_t size_bytes)
{
    struct qr_posix_file *file = qr_posix_file(base);
    int error = may_grow(file, size_bytes);
    return error != 0 ? error : negated(ftruncate(file->fd, (off_t)size_bytes));
}

static int posix_file_allocate(struct qr_file *base, uint64_t offset, uint64_t size_bytes)
{
    struct qr_posix_file *file = qr_posix_file(base);
    uint64_t end;
    if (__builtin_add_overflow(offset, size_bytes, &end))
        return -EINVAL;
    int error = may_grow(file, end);
    if (error != 0)
        return error;
    error = negated(fallocate(file->fd, 0, (off_t)offset, (off_t)size_bytes));
    return error == -ENOSYS ? -EOPNOTSUPP : error;
}

static int posix_file_sync(struct qr_file *file)
{
    return negated(fdatasync(qr_posix_file(file)->fd));
}

static void posix_file_forget(struct qr_file *file, uint64_t offset, uint64_t size_bytes)
{
    (void)posix_fadvise(qr_posix_file(file)->fd, (off_t)offset, (off_t)size_bytes, POSIX_FADV_DONTNEED);
}

/* ---- The disk --------------------------------------------------------------------------------------------------- */

void qr_posix_run(struct qr_io *io)
{
    switch (io->kind) {
    case QR_IO_READ:
        io->result = posix_file_read(io->file, io->memory, io->size, io->offset);
        break;
    case QR_IO_WRITE:
        io->result = posix_file_write(io->file, io->memory, io->size, io->offset);
        break;
    case QR_IO_SYNC:
        io->result = posix_file_sync(io->file);
        break;
    }
}

static int posix_transfer(struct qr_disk *disk, struct qr_io *ios, uint32_t count)
{
    (void)disk;
    for (uint32_t i = 0; i < count; i++)
        qr_posix_run(&ios[i]);
    return 0;
}

static void posix_disk_free(struct qr_disk *disk)
{
    qr_free(disk);
}

const struct qr_disk_ops qr_posix_ops = {
    .disk_free = posix_disk_free,
    .dir_open = posix_dir_open,
    .dir_close = posix_dir_close,
    .dir_remove = posix_dir_remove,
    .dir_facts = qr_posix_dir_facts,
    .dir_list = posix_dir_list,
    .dir_sync = posix_dir_sync,
    .dir_free_bytes = qr_posix_dir_free_bytes,
    .dir_unlink = posix_dir_unlink,
    .dir_rename = posix_dir_rename,
    .dir_lock = qr_posix_dir_lock,
    .file_open = posix_file_open,
    .file_close = posix_file_close,
    .file_facts = qr_posix_file_facts,
    .file_read = posix_file_read,
    .file_write = posix_file_write,
    .file_resize = posix_file_resize,
    .file_allocate = posix_file_allocate,
    .file_sync = posix_file_sync,
    .file_forget = posix_file_forget,
    .file_map = qr_posix_file_map,
    .file_unmap = qr_posix_file_unmap,
    .file_populate = qr_posix_file_populate,
    .file_sync_mapped = qr_posix_file_sync_mapped,
    .transfer = posix_transfer,
};

int qr_disk_posix(struct qr_disk **ret_disk)
{
    struct qr_disk *disk = qr_malloc(sizeof(*disk));
    if (disk == NULL)
        return -ENOMEM;
    *disk = (struct qr_disk){&qr_posix_ops, "posix"};
    *ret_disk = disk;
    return 0;
}
