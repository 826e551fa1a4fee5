/*
 * simdisk_table.c: the table of functions of the simulated disk.
 *
 * Test library. Each operation begins with sim_begin (simdisk.c): it counts, calls the hook, and asks the faults; then
 * the operation takes the mutex.
 */
#include "simdisk_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sim_dir_handle *dir_handle(struct qr_dir *dir)
{
    return (struct sim_dir_handle *)dir; /* its first member, as below */
}

static struct sim_file_handle *file_handle(struct qr_file *file)
{
    return (struct sim_file_handle *)file;
}

static struct simdisk *disk_of(const struct qr_file *file)
{
    return sim_of(file->dir->disk);
}

static void lock(struct simdisk *disk)
{
    pthread_mutex_lock(&disk->mutex);
}

static void unlock(struct simdisk *disk)
{
    pthread_mutex_unlock(&disk->mutex);
}

static int begin(struct simdisk *disk, enum simdisk_kind kind, const char *name)
{
    return sim_begin(disk, kind, name, 0, 0, false).error;
}

/* ---- Directories ------------------------------------------------------------------------------------------------ */

static bool is_name(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* The directory is made and its parent synced: two operations, as power may be lost in between. */
static int make_dir(struct simdisk *disk, const char *path, struct sim_dir **ret_dir)
{
    lock(disk);
    struct sim_dir *dir = sim_dir_find(disk, path);
    bool made = dir == NULL;
    if (made && disk->facts.read_only) {
        unlock(disk);
        return -EROFS;
    }
    if (made) {
        dir = sim_dir_create(disk, path, disk->next_number++);
        sim_dir_change(disk, dir, SIM_MAKE_DIR, path, NULL, 0);
    }
    bool empty = dir->cached.count == 0;
    unlock(disk);
    if (empty) {
        int error = begin(disk, SIMDISK_DIR_SYNC, path);
        lock(disk);
        if (error == 0)
            sim_dir_sync(dir);
        else if (made)
            sim_dir_destroy(disk, dir);
        unlock(disk);
        if (error != 0)
            return error;
    }
    *ret_dir = dir;
    return 0;
}

static int sim_dir_open(struct qr_disk *base, const char *path, unsigned flags, struct qr_dir **ret_dir)
{
    struct simdisk *disk = sim_of(base);
    bool read_only = (flags & QR_DIR_READ_ONLY) != 0;
    struct sim_dir *dir = NULL;
    int error = begin(disk, SIMDISK_DIR_OPEN, path);
    if (error == 0 && (flags & QR_DIR_CREATE) != 0 && !read_only)
        error = make_dir(disk, path, &dir);
    if (error != 0)
        return error;
    lock(disk);
    dir = sim_dir_find(disk, path);
    if (dir == NULL) {
        unlock(disk);
        return -ENOENT;
    }
    struct sim_dir_handle *handle = sim_alloc(sizeof(*handle));
    *handle = (struct sim_dir_handle){.next = disk->dir_handles, .of = dir, .read_only = read_only};
    qr_dir_init(&handle->dir, base);
    disk->dir_handles = handle;
    unlock(disk);
    *ret_dir = &handle->dir;
    return 0;
}

static void sim_dir_close(struct qr_dir *base)
{
    struct simdisk *disk = sim_of(base->disk);
    struct sim_dir_handle *handle = dir_handle(base);
    lock(disk);
    struct sim_dir_handle **link = &disk->dir_handles;
    while (*link != handle)
        link = &(*link)->next;
    *link = handle->next;
    qr_dir_destroy(base);
    free(handle);
    unlock(disk);
}

static int sim_dir_facts(struct qr_dir *dir, struct qr_dir_facts *ret_facts)
{
    struct simdisk *disk = sim_of(dir->disk);
    lock(disk);
    *ret_facts = (struct qr_dir_facts){
        .device = disk->facts.device,
        .mount_id = disk->facts.mount_id,
        .inode = dir_handle(dir)->of->number,
        .can_map = disk->facts.can_map,
        .read_only = disk->facts.read_only,
    };
    memcpy(ret_facts->boot_id, disk->facts.boot_id, sizeof(ret_facts->boot_id));
    unlock(disk);
    return 0;
}

/* The visitor may call the disk: it sees a copy. */
static int sim_dir_list(struct qr_dir *dir, qr_dir_visit *visit, void *context)
{
    struct simdisk *disk = sim_of(dir->disk);
    struct sim_names names = {0};
    int error = begin(disk, SIMDISK_LIST, dir_handle(dir)->of->path);
    if (error != 0)
        return error;
    lock(disk);
    sim_names_copy(&names, &dir_handle(dir)->of->cached);
    unlock(disk);
    for (size_t i = 0; i < names.count && error == 0; i++)
        error = visit(context, names.names[i].name);
    sim_names_copy(&names, &(struct sim_names){0});
    return error;
}

static int sim_dir_sync_op(struct qr_dir *dir)
{
    struct simdisk *disk = sim_of(dir->disk);
    int error = begin(disk, SIMDISK_DIR_SYNC, dir_handle(dir)->of->path);
    lock(disk);
    if (error == 0)
        sim_dir_sync(dir_handle(dir)->of);
    else if (error != -EINTR)
        sim_dir_fail_sync(dir_handle(dir)->of);
    sim_inodes_reclaim(disk);
    unlock(disk);
    return error;
}

static uint64_t free_bytes(const struct simdisk *disk)
{
    uint64_t used = sim_used_bytes(disk);
    return used < disk->facts.space_bytes ? disk->facts.space_bytes - used : 0;
}

static int sim_dir_free_bytes(struct qr_dir *dir, uint64_t *ret_bytes)
{
    struct simdisk *disk = sim_of(dir->disk);
    lock(disk);
    *ret_bytes = free_bytes(disk);
    unlock(disk);
    return 0;
}

static int may_change(const struct sim_dir_handle *handle, const char *name)
{
    if (!is_name(name))
        return -EINVAL;
    return handle->read_only || sim_of(handle->dir.disk)->facts.read_only ? -EROFS : 0;
}

/* Directories stay. */
static int sim_dir_remove(struct qr_disk *disk, const char *path)
{
    (void)disk;
    (void)path;
    return -EOPNOTSUPP;
}

static int sim_dir_unlink(struct qr_dir *dir, const char *name)
{
    struct simdisk *disk = sim_of(dir->disk);
    struct sim_dir *of = dir_handle(dir)->of;
    int error = may_change(dir_handle(dir), name);
    if (error == 0)
        error = begin(disk, SIMDISK_UNLINK, name);
    if (error != 0)
        return error;
    lock(disk);
    uint64_t inode = sim_names_find(&of->cached, name);
    if (inode != 0)
        sim_dir_change(disk, of, SIM_UNLINK, name, NULL, inode);
    unlock(disk);
    return inode != 0 ? 0 : -ENOENT;
}

static int sim_dir_rename(struct qr_dir *dir, const char *from, const char *to)
{
    struct simdisk *disk = sim_of(dir->disk);
    struct sim_dir *of = dir_handle(dir)->of;
    int error = may_change(dir_handle(dir), from);
    if (error == 0)
        error = may_change(dir_handle(dir), to);
    if (error == 0)
        error = begin(disk, SIMDISK_RENAME, from);
    if (error != 0)
        return error;
    lock(disk);
    uint64_t inode = sim_names_find(&of->cached, from);
    if (inode != 0 && strcmp(from, to) != 0)
        sim_dir_change(disk, of, SIM_RENAME, from, to, inode);
    unlock(disk);
    return inode != 0 ? 0 : -ENOENT;
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

/* Under the mutex: the inode of the name, made if asked. */
static int find_or_create(struct simdisk *disk, struct sim_dir *dir, const char *name, unsigned flags,
                          struct sim_inode **ret_inode)
{
    uint64_t number = sim_names_find(&dir->cached, name);
    if (number != 0 && (flags & QR_FILE_EXCLUSIVE) != 0)
        return -EEXIST;
    if (number == 0) {
        if ((flags & QR_FILE_CREATE) == 0)
            return -ENOENT;
        number = disk->next_number++;
        sim_inode_create(disk, number);
        sim_dir_change(disk, dir, SIM_CREATE, name, NULL, number);
    }
    *ret_inode = sim_inode_find(disk, number);
    return 0;
}

static int sim_file_open(struct qr_dir *dir, const char *name, unsigned flags, struct qr_file **ret_file)
{
    struct simdisk *disk = sim_of(dir->disk);
    struct sim_inode *inode;
    bool writable = (flags & QR_FILE_WRITE) != 0;
    int error = !is_name(name) ? -EINVAL : writable ? may_change(dir_handle(dir), name) : 0;
    if (error == 0)
        error = begin(disk, SIMDISK_OPEN, name);
    if (error != 0)
        return error;
    lock(disk);
    error = find_or_create(disk, dir_handle(dir)->of, name, flags, &inode);
    if (error == 0) {
        struct sim_file_handle *handle = sim_alloc(sizeof(*handle));
        bool direct = (flags & QR_FILE_DIRECT) != 0 && disk->facts.direct_align_bytes != 0;
        *handle = (struct sim_file_handle){{dir}, inode, sim_string(name), writable, direct};
        inode->handle_count++;
        disk->file_handle_count++;
        *ret_file = &handle->file;
    }
    unlock(disk);
    return error;
}

static void sim_file_close(struct qr_file *file)
{
    struct simdisk *disk = disk_of(file);
    struct sim_file_handle *handle = file_handle(file);
    lock(disk);
    handle->inode->handle_count--;
    disk->file_handle_count--;
    sim_inodes_reclaim(disk);
    unlock(disk);
    free(handle->name);
    free(handle);
}

static int sim_file_facts(struct qr_file *file, struct qr_file_facts *ret_facts)
{
    struct simdisk *disk = disk_of(file);
    const struct sim_inode *inode = file_handle(file)->inode;
    lock(disk);
    *ret_facts = (struct qr_file_facts){
        .size_bytes = inode->size_bytes,
        .allocated_bytes = sim_inode_bytes(inode),
        .inode = inode->number,
        .direct_align_bytes = disk->facts.direct_align_bytes,
        .regular = true,
    };
    unlock(disk);
    return 0;
}

static int check_access(const struct sim_file_handle *handle, const void *memory, size_t size, uint64_t offset)
{
    uint64_t end;
    if (__builtin_add_overflow(offset, size, &end) || end > INT64_MAX)
        return -EINVAL;
    uint64_t align = disk_of(&handle->file)->facts.direct_align_bytes;
    return handle->direct && ((uintptr_t)memory % align != 0 || size % align != 0 || offset % align != 0) ? -EINVAL : 0;
}

static int64_t read_part(struct qr_file *file, void *memory, size_t size, uint64_t offset, bool part)
{
    struct simdisk *disk = disk_of(file);
    struct sim_file_handle *handle = file_handle(file);
    struct sim_verdict verdict = sim_begin(disk, SIMDISK_READ, handle->name, offset, size, part);
    if (verdict.error != 0)
        return verdict.error;
    int error = check_access(handle, memory, size, offset);
    if (error != 0)
        return error;
    lock(disk);
    uint64_t there = offset < handle->inode->size_bytes ? handle->inode->size_bytes - offset : 0;
    uint64_t count = size < there ? size : there;
    if (count > verdict.most_bytes)
        count = verdict.most_bytes;
    if (count != 0)
        sim_inode_read(handle->inode, memory, offset, count);
    unlock(disk);
    return (int64_t)count;
}

static int64_t write_part(struct qr_file *file, const void *memory, size_t size, uint64_t offset, bool part)
{
    struct simdisk *disk = disk_of(file);
    struct sim_file_handle *handle = file_handle(file);
    struct sim_verdict verdict = sim_begin(disk, SIMDISK_WRITE, handle->name, offset, size, part);
    if (verdict.error != 0)
        return verdict.error;
    int error = handle->writable ? check_access(handle, memory, size, offset) : -EBADF;
    if (error != 0)
        return error;
    if (offset + size > SIMDISK_FILE_MAX_BYTES)
        return -EFBIG;
    lock(disk);
    uint64_t wanted = size < verdict.most_bytes ? size : verdict.most_bytes;
    bool has_space = sim_inode_has_space(handle->inode, offset, wanted);
    uint64_t count = sim_inode_provide(disk, handle->inode, offset, wanted);
    sim_inode_write(disk, handle->inode, memory, offset, count, !has_space);
    unlock(disk);
    return count == 0 && wanted != 0 ? -ENOSPC : (int64_t)count;
}

static int sync_part(struct qr_file *file, bool part)
{
    struct simdisk *disk = disk_of(file);
    struct sim_file_handle *handle = file_handle(file);
    int error = sim_begin(disk, SIMDISK_SYNC, handle->name, 0, 0, part).error;
    lock(disk);
    error = sim_inode_sync_with(disk, handle->inode, error);
    unlock(disk);
    return error;
}

static int64_t sim_file_read(struct qr_file *file, void *memory, size_t size, uint64_t offset)
{
    return read_part(file, memory, size, offset, false);
}

static int64_t sim_file_write(struct qr_file *file, const void *memory, size_t size, uint64_t offset)
{
    return write_part(file, memory, size, offset, false);
}

static int sim_file_sync(struct qr_file *file)
{
    return sync_part(file, false);
}

/* All of the file: more than was asked for, as the contract allows. */
static int sim_file_sync_mapped(struct qr_file *file, void *memory, uint64_t size_bytes)
{
    (void)memory;
    (void)size_bytes;
    return sync_part(file, false);
}

static int sim_file_resize(struct qr_file *file, uint64_t size_bytes)
{
    struct simdisk *disk = disk_of(file);
    struct sim_file_handle *handle = file_handle(file);
    int error = sim_begin(disk, SIMDISK_RESIZE, handle->name, size_bytes, 0, false).error;
    if (error == 0 && (!handle->writable || size_bytes > INT64_MAX))
        error = -EINVAL;
    if (error == 0 && size_bytes > SIMDISK_FILE_MAX_BYTES)
        error = -EFBIG;
    if (error != 0)
        return error;
    lock(disk);
    sim_inode_resize(disk, handle->inode, size_bytes);
    unlock(disk);
    return 0;
}

static int sim_file_allocate(struct qr_file *file, uint64_t offset, uint64_t size_bytes)
{
    struct simdisk *disk = disk_of(file);
    struct sim_file_handle *handle = file_handle(file);
    int error = sim_begin(disk, SIMDISK_ALLOCATE, handle->name, offset, size_bytes, false).error;
    if (error == 0)
        error = !handle->writable ? -EBADF : size_bytes == 0 ? -EINVAL : 0;
    if (error == 0 && (size_bytes > SIMDISK_FILE_MAX_BYTES || offset > SIMDISK_FILE_MAX_BYTES - size_bytes))
        error = -EFBIG;
    if (error != 0)
        return error;
    lock(disk);
    error = sim_inode_provide_all(disk, handle->inode, offset, size_bytes);
    if (error == 0 && offset + size_bytes > handle->inode->size_bytes)
        sim_inode_resize(disk, handle->inode, offset + size_bytes);
    unlock(disk);
    return error;
}

static void sim_file_forget(struct qr_file *file, uint64_t offset, uint64_t size_bytes)
{
    (void)file;
    (void)offset;
    (void)size_bytes;
}

/* ---- Mappings --------------------------------------------------------------------------------------------------- */

static int sim_file_map(struct qr_file *file, uint64_t offset, uint64_t size_bytes, void **ret_memory)
{
    struct simdisk *disk = disk_of(file);
    struct sim_file_handle *handle = file_handle(file);
    int error = sim_begin(disk, SIMDISK_MAP, handle->name, offset, size_bytes, false).error;
    if (error == 0 && !handle->writable)
        error = -EACCES;
    if (error != 0)
        return error;
    lock(disk);
    uint64_t size = handle->inode->size_bytes;
    if (size_bytes == 0 || offset % SIMDISK_BLOCK_BYTES != 0 || size_bytes > size || offset > size - size_bytes)
        error = -EINVAL;
    if (error == 0) {
        sim_inode_map(handle->inode, offset + size_bytes);
        *ret_memory = handle->inode->cached + offset;
    }
    unlock(disk);
    return error;
}

/* Two mappings of one range are the same memory, and stay readable: a use after unmap is not found. */
static void sim_file_unmap(struct qr_file *file, void *memory, uint64_t size_bytes)
{
    (void)file;
    (void)memory;
    (void)size_bytes;
}

static int sim_file_populate(struct qr_file *file, void *memory, uint64_t size_bytes)
{
    struct simdisk *disk = disk_of(file);
    struct sim_file_handle *handle = file_handle(file);
    uint64_t offset = (uint64_t)((uint8_t *)memory - handle->inode->cached);
    int error = sim_begin(disk, SIMDISK_POPULATE, handle->name, offset, size_bytes, false).error;
    if (error != 0)
        return error;
    lock(disk);
    error = sim_inode_provide_all(disk, handle->inode, offset, size_bytes);
    unlock(disk);
    return error;
}

/* ---- The lock --------------------------------------------------------------------------------------------------- */

/* Who keeps others out; NULL: nobody. */
static const struct sim_dir_handle *holder(const struct simdisk *disk, const struct sim_dir *dir, bool shared)
{
    for (const struct sim_dir_handle *other = disk->dir_handles; other != NULL; other = other->next) {
        if (other->of == dir && other->locked && !(shared && other->shared))
            return other;
    }
    return NULL;
}

static void write_pid(struct simdisk *disk, struct sim_inode *inode)
{
    char text[24];
    int size = snprintf(text, sizeof(text), "%" PRId64 "\n", disk->facts.pid);
    (void)sim_inode_provide(disk, inode, 0, (uint64_t)size);
    sim_inode_write(disk, inode, text, 0, (uint64_t)size, false);
    sim_inode_resize(disk, inode, (uint64_t)size);
}

static int64_t read_pid(const struct sim_inode *inode)
{
    char text[24] = "";
    sim_inode_read(inode, text, 0, inode->size_bytes < sizeof(text) - 1 ? inode->size_bytes : sizeof(text) - 1);
    return strtoll(text, NULL, 10);
}

/* Of whoever writes, by the file that it has locked. */
static int64_t writer_pid(struct simdisk *disk, const struct sim_dir_handle *writer, const char *name)
{
    struct sim_inode *inode;
    if (writer->shared || find_or_create(disk, writer->of, name, 0, &inode) != 0 || inode->number != writer->lock_inode)
        return 0;
    return read_pid(inode);
}

static int take_lock(struct simdisk *disk, struct sim_dir_handle *handle, const char *name, bool shared,
                     int64_t *ret_pid)
{
    struct sim_inode *inode = NULL;
    unsigned flags = shared ? 0 : QR_FILE_WRITE | QR_FILE_CREATE;
    const struct sim_dir_handle *other = holder(disk, handle->of, shared);
    if (other != NULL) {
        *ret_pid = writer_pid(disk, other, name);
        return -EWOULDBLOCK;
    }
    int error = find_or_create(disk, handle->of, name, flags, &inode);
    if (error != 0 && !(shared && error == -ENOENT))
        return error;
    if (!shared)
        write_pid(disk, inode);
    handle->locked = true;
    handle->shared = shared;
    handle->lock_inode = error == 0 ? inode->number : 0;
    return 0;
}

static int sim_dir_lock(struct qr_dir *dir, const char *name, bool shared, int64_t *ret_pid)
{
    struct simdisk *disk = sim_of(dir->disk);
    int error = !is_name(name) ? -EINVAL : shared ? 0 : may_change(dir_handle(dir), name);
    if (error == 0)
        error = begin(disk, SIMDISK_LOCK, name);
    if (error != 0)
        return error;
    lock(disk);
    error = take_lock(disk, dir_handle(dir), name, shared, ret_pid);
    unlock(disk);
    return error;
}

/* ---- The disk --------------------------------------------------------------------------------------------------- */

static int sim_transfer(struct qr_disk *disk, struct qr_io *ios, uint32_t count)
{
    (void)disk;
    for (uint32_t i = 0; i < count; i++) {
        struct qr_io *io = &ios[i];
        if (io->kind == QR_IO_READ)
            io->result = read_part(io->file, io->memory, io->size, io->offset, true);
        else if (io->kind == QR_IO_WRITE)
            io->result = write_part(io->file, io->memory, io->size, io->offset, true);
        else
            io->result = sync_part(io->file, true);
    }
    return 0;
}

static void sim_disk_free(struct qr_disk *disk)
{
    (void)disk; /* simdisk_free is the harness's */
}

const struct qr_disk_ops sim_ops = {
    .disk_free = sim_disk_free,
    .dir_open = sim_dir_open,
    .dir_close = sim_dir_close,
    .dir_facts = sim_dir_facts,
    .dir_remove = sim_dir_remove,
    .dir_list = sim_dir_list,
    .dir_sync = sim_dir_sync_op,
    .dir_free_bytes = sim_dir_free_bytes,
    .dir_unlink = sim_dir_unlink,
    .dir_rename = sim_dir_rename,
    .dir_lock = sim_dir_lock,
    .file_open = sim_file_open,
    .file_close = sim_file_close,
    .file_facts = sim_file_facts,
    .file_read = sim_file_read,
    .file_write = sim_file_write,
    .file_resize = sim_file_resize,
    .file_allocate = sim_file_allocate,
    .file_sync = sim_file_sync,
    .file_sync_mapped = sim_file_sync_mapped,
    .file_forget = sim_file_forget,
    .file_map = sim_file_map,
    .file_unmap = sim_file_unmap,
    .file_populate = sim_file_populate,
    .transfer = sim_transfer,
};
