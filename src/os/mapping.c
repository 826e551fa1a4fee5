/*
 * mapping.c: files as memory, and no signals from it.
 *
 * Layer 1. A store into a page of a mapping that the file system cannot make writable raises SIGBUS. populate makes
 * pages writable ahead and turns that into an answer: it runs the same fault inside a system call.
 *
 *     Linux 5.14 and later   madvise(MADV_POPULATE_WRITE): the whole range in one call
 *     before (EINVAL)        a futex operation that adds 0 to a word of each page
 *
 * The futex operation is atomic: a store by another thread is not lost, as it could be if the same bytes were read and
 * written with pread and pwrite. And it answers EFAULT where a load and store of ours would have the signal.
 *
 * Both say EFAULT for whatever the file system said. What it was, fallocate of the range tells: it wants the same space
 * and answers in clear. If it finds nothing wrong, the fault is tried once more, as space may have come free; if that
 * fails too, a file system that copies on write has run out (ENOSPC: less is free than the range needs), or the device
 * fails (EIO).
 *
 * Any thread. The mutex is held for some instructions.
 */
#include "os/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static uint64_t page_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- The list of mappings of a file ----------------------------------------------------------------------------- */

static void link_mapping(struct qr_posix_file *file, struct qr_posix_mapping *mapping)
{
    pthread_mutex_lock(&file->mapping_mutex);
    mapping->next = file->mappings;
    file->mappings = mapping;
    pthread_mutex_unlock(&file->mapping_mutex);
}

static struct qr_posix_mapping *unlink_mapping(struct qr_posix_file *file, const void *memory)
{
    pthread_mutex_lock(&file->mapping_mutex);
    struct qr_posix_mapping **link = &file->mappings;
    while (*link != NULL && (*link)->memory != memory)
        link = &(*link)->next;
    struct qr_posix_mapping *mapping = *link;
    if (mapping != NULL)
        *link = mapping->next;
    pthread_mutex_unlock(&file->mapping_mutex);
    return mapping;
}

/* Where in the file this memory is. */
static bool find_offset(struct qr_posix_file *file, const uint8_t *memory, uint64_t *ret_offset)
{
    bool found = false;
    pthread_mutex_lock(&file->mapping_mutex);
    for (const struct qr_posix_mapping *mapping = file->mappings; mapping != NULL && !found; mapping = mapping->next) {
        uint64_t distance = (uint64_t)((uintptr_t)memory - (uintptr_t)mapping->memory);
        found = distance < mapping->size_bytes; /* memory before it wraps around to a large number */
        if (found)
            *ret_offset = mapping->offset + distance;
    }
    pthread_mutex_unlock(&file->mapping_mutex);
    return found;
}

/* ---- Mapping ---------------------------------------------------------------------------------------------------- */

/* Beyond the end of the file there is nothing but signals. */
static int check_range(const struct qr_posix_file *file, uint64_t offset, uint64_t size_bytes)
{
    struct stat status;
    uint64_t end;
    if (size_bytes == 0 || offset % page_bytes() != 0 || __builtin_add_overflow(offset, size_bytes, &end))
        return -EINVAL;
    if (fstat(file->fd, &status) != 0)
        return -errno;
    return end <= (uint64_t)status.st_size ? 0 : -EINVAL;
}

int qr_posix_file_map(struct qr_file *base, uint64_t offset, uint64_t size_bytes, void **ret_memory)
{
    struct qr_posix_file *file = qr_posix_file(base);
    int error = check_range(file, offset, size_bytes);
    if (error != 0)
        return error;
    struct qr_posix_mapping *mapping = qr_malloc(sizeof(*mapping));
    if (mapping == NULL)
        return -ENOMEM;
    size_bytes = qr_round_up(size_bytes, page_bytes());
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, (off_t)offset);
    if (memory == MAP_FAILED) {
        error = -errno;
        qr_free(mapping);
        return error;
    }
    (void)madvise(memory, size_bytes, MADV_RANDOM);
    *mapping = (struct qr_posix_mapping){NULL, memory, offset, size_bytes};
    link_mapping(file, mapping);
    *ret_memory = memory;
    return 0;
}

void qr_posix_file_unmap(struct qr_file *file, void *memory, uint64_t size_bytes)
{
    struct qr_posix_mapping *mapping = unlink_mapping(qr_posix_file(file), memory);
    QR_ASSERT(mapping != NULL);
    QR_ASSERT(mapping->size_bytes == qr_round_up(size_bytes, page_bytes()));
    (void)munmap(memory, qr_round_up(size_bytes, page_bytes()));
    qr_free(mapping);
}

/* ---- Making it writable ----------------------------------------------------------------------------------------- */

static int touch(uint8_t *memory, uint64_t size_bytes)
{
    static uint32_t nobody; /* waits here */
    for (uint64_t at = 0; at < size_bytes; at += page_bytes()) {
        if (syscall(SYS_futex, &nobody, FUTEX_WAKE_OP_PRIVATE, 0, 0L, memory + at,
                    FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0)) < 0)
            return -errno;
    }
    return 0;
}

static int fault_in(uint8_t *memory, uint64_t size_bytes)
{
    if (madvise(memory, size_bytes, MADV_POPULATE_WRITE) == 0)
        return 0;
    return errno == EINVAL ? touch(memory, size_bytes) : -errno;
}

/* Why a fault failed; 0 if it does so no more. */
static int explain(struct qr_posix_file *file, uint8_t *memory, uint64_t size_bytes)
{
    uint64_t offset, free_bytes;
    if (!find_offset(file, memory, &offset))
        return -EFAULT;
    if (fallocate(file->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size_bytes) != 0 && errno != EOPNOTSUPP &&
        errno != ENOSYS)
        return -errno;
    int error = fault_in(memory, size_bytes);
    if (error != -EFAULT)
        return error;
    error = qr_posix_dir_free_bytes(file->file.dir, &free_bytes);
    return error == -EOPNOTSUPP || (error == 0 && free_bytes < size_bytes) ? -ENOSPC : -EIO;
}

int qr_posix_file_populate(struct qr_file *base, void *memory, uint64_t size_bytes)
{
    uint64_t before = (uintptr_t)memory % page_bytes();
    uint8_t *begin = (uint8_t *)memory - before;
    size_bytes = qr_round_up(size_bytes + before, page_bytes());
    int error = fault_in(begin, size_bytes);
    return error == -EFAULT ? explain(qr_posix_file(base), begin, size_bytes) : error;
}

/* ---- Sync ------------------------------------------------------------------------------------------------------- */

/*
 * fdatasync would write all of the file, also what was populated ahead, whose pages a store then has to make writable once
 * more; and it would take the right to write from each page on its own, which interrupts the other processors each time. The
 * kernel forgets a range of a mapping by one interrupt, and what was stored there stays in the page cache.
 */
int qr_posix_file_sync_mapped(struct qr_file *base, void *memory, uint64_t size_bytes)
{
    uint64_t before = (uintptr_t)memory % page_bytes();
    uint8_t *begin = (uint8_t *)memory - before;
    uint64_t whole = (size_bytes + before) / page_bytes() * page_bytes();
    (void)base;
    if (whole != 0)
        (void)madvise(begin, whole, MADV_DONTNEED); /* refused for locked memory: only slower */
    return msync(begin, qr_round_up(size_bytes + before, page_bytes()), MS_SYNC) == 0 ? 0 : -errno;
}
