/*
 * file.c: what the engine calls: reads, writes and syncs that go on to their end.
 *
 * Layer 1. Pure over the table of a disk: what is short is continued, what was interrupted is asked again.
 */
#include "os/disk.h"

#include <errno.h>

#include "base/bugs.h"
#include "base/check.h"

/* Never written; not const, so that it takes no room in the program's file. Aligned for direct I/O. */
static uint8_t zeros[64 << 10] __attribute__((aligned(4096)));

/*
 * A direct read that ends at the end of a file has left the next offset unaligned, and some kernels look at that before
 * they look at the size.
 */
static bool is_end(struct qr_file *file, uint64_t offset)
{
    struct qr_file_facts facts;
    return file->dir->disk->ops->file_facts(file, &facts) == 0 && facts.size_bytes <= offset;
}

int64_t qr_file_read(struct qr_file *file, void *memory, size_t size, uint64_t offset)
{
    const struct qr_disk_ops *ops = file->dir->disk->ops;
    uint8_t *to = memory;
    size_t done = 0;
    while (done < size) {
        int64_t count = ops->file_read(file, to + done, size - done, offset + done);
        if (count == -EINTR)
            continue;
        if (count == -EINVAL && done != 0 && is_end(file, offset + done))
            break;
        if (count < 0)
            return count;
        if (count == 0)
            break;
        done += (size_t)count;
    }
    return (int64_t)done;
}

int qr_file_write(struct qr_file *file, const void *memory, size_t size, uint64_t offset)
{
    const struct qr_disk_ops *ops = file->dir->disk->ops;
    const uint8_t *from = memory;
    size_t done = 0;
    while (done < size) {
        int64_t count = ops->file_write(file, from + done, size - done, offset + done);
        if (count == -EINTR)
            continue;
        if (count < 0)
            return (int)count;
        if (count == 0)
            return -EIO; /* no kernel says so; asking again might never end */
        done += (size_t)count;
    }
    return 0;
}

int qr_file_sync(struct qr_file *file)
{
    int error;
    do {
        error = file->dir->disk->ops->file_sync(file);
    } while (error == -EINTR);
    return error;
}

void qr_dir_init(struct qr_dir *dir, struct qr_disk *disk)
{
    *dir = (struct qr_dir){.disk = disk};
    pthread_mutex_init(&dir->sync_mutex, NULL);
}

void qr_dir_destroy(struct qr_dir *dir)
{
    pthread_mutex_destroy(&dir->sync_mutex);
}

int qr_dir_sync(struct qr_dir *dir)
{
    /* Held while the disk works: a call that began before another one failed must not answer 0 after it. */
    pthread_mutex_lock(&dir->sync_mutex);
    int error = QR_BUG(dir_sync_retried) ? 0 : dir->sync_error;
    if (error == 0) {
        do {
            error = dir->disk->ops->dir_sync(dir);
        } while (error == -EINTR);
        dir->sync_error = error;
    }
    pthread_mutex_unlock(&dir->sync_mutex);
    return error;
}

int qr_file_sync_mapped(struct qr_file *file, void *memory, uint64_t size_bytes)
{
    int error;
    do {
        error = file->dir->disk->ops->file_sync_mapped(file, memory, size_bytes);
    } while (error == -EINTR);
    return error;
}

int qr_file_write_zeros(struct qr_file *file, uint64_t offset, uint64_t size_bytes, uint32_t unit_bytes)
{
    size_t unit = unit_bytes < sizeof(zeros) ? unit_bytes : sizeof(zeros);
    while (size_bytes != 0) {
        size_t part = size_bytes < unit ? (size_t)size_bytes : unit;
        int error = qr_file_write(file, zeros, part, offset);
        if (error != 0)
            return error;
        offset += part;
        size_bytes -= part;
    }
    return 0;
}

/* ---- Transfers -------------------------------------------------------------------------------------------------- */

static bool is_finished(const struct qr_io *io)
{
    if (io->result < 0)
        return io->result != -EINTR;
    return io->kind == QR_IO_SYNC || io->result == io->size;
}

/* Does the rest of one part, on its own: it happens rarely. */
static void finish(struct qr_io *io)
{
    uint32_t done = io->result > 0 ? (uint32_t)io->result : 0;
    uint8_t *memory = io->memory;
    switch (io->kind) {
    case QR_IO_READ: {
        int64_t count = qr_file_read(io->file, memory + done, io->size - done, io->offset + done);
        io->result = count < 0 ? count : (int64_t)done + count;
        if (count >= 0 && io->result < io->size)
            io->result = -ENODATA;
        break;
    }
    case QR_IO_WRITE: {
        io->result = qr_file_write(io->file, memory + done, io->size - done, io->offset + done);
        if (io->result == 0)
            io->result = io->size;
        break;
    }
    case QR_IO_SYNC:
        io->result = qr_file_sync(io->file);
        break;
    }
}

int qr_disk_transfer(struct qr_disk *disk, struct qr_io *ios, uint32_t count)
{
    int error = disk->ops->transfer(disk, ios, count);
    for (uint32_t i = 0; i < count; i++) {
        if (!is_finished(&ios[i]))
            finish(&ios[i]);
        if (ios[i].result < 0 && error == 0)
            error = (int)ios[i].result;
    }
    return error;
}
