/*
 * Goal: what disk.h promises holds on every disk: of system calls, with rings, simulated.
 * Method: each test is one function of a place, run on the three of them; what only a real system can show is in
 * os_system.c.
 */
#include "os_place.h"

#include "base/alloc.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void run_on(enum os_kind kind, void (*test)(struct os_place *place))
{
    struct os_place place;
    int64_t before = qr_alloc_live_count();
    os_place_open(&place, kind);
    test(&place);
    os_place_close(&place);
    cr_assert_eq(qr_alloc_live_count(), before);
}

#define CONTRACT(name)                                                                                                 \
    static void name(struct os_place *place);                                                                          \
    Test(os_posix, name)                                                                                               \
    {                                                                                                                  \
        run_on(OS_POSIX, name);                                                                                        \
    }                                                                                                                  \
    Test(os_uring, name)                                                                                               \
    {                                                                                                                  \
        run_on(OS_URING, name);                                                                                        \
    }                                                                                                                  \
    Test(os_simulated, name)                                                                                           \
    {                                                                                                                  \
        run_on(OS_SIMULATED, name);                                                                                    \
    }                                                                                                                  \
    static void name(struct os_place *place)

#define MAKE (QR_FILE_WRITE | QR_FILE_CREATE)

static uint64_t size_of(struct qr_file *file)
{
    struct qr_file_facts facts;
    cr_assert_eq(file->dir->disk->ops->file_facts(file, &facts), 0);
    cr_assert(facts.regular);
    return facts.size_bytes;
}

/* ---- Reading and writing ---------------------------------------------------------------------------------------- */

CONTRACT(reads_end_where_the_file_ends)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = os_place_filled(place, "f", 10000);
    uint8_t bytes[12000];

    cr_assert_eq(size_of(file), 10000);
    cr_assert_eq(ops->file_read(file, bytes, sizeof(bytes), 0), 10000);
    os_check_pattern(bytes, 10000, 0);
    cr_assert_eq(ops->file_read(file, bytes, 100, 9950), 50);
    os_check_pattern(bytes, 50, 9950);
    cr_assert_eq(ops->file_read(file, bytes, 100, 10000), 0);
    cr_assert_eq(ops->file_read(file, bytes, 100, 1 << 20), 0);
    cr_assert_eq(ops->file_read(file, bytes, 0, 0), 0);
    cr_assert_eq(qr_file_read(file, bytes, sizeof(bytes), 1), 9999);
    cr_assert_eq(ops->file_read(file, bytes, 1, UINT64_MAX), -EINVAL);
    cr_assert_eq(ops->file_write(file, bytes, 1, UINT64_MAX), -EINVAL);
    ops->file_close(file);
}

CONTRACT(a_write_behind_the_end_leaves_zeros_before_it)
{
    struct qr_file *file = os_place_file(place, "f", MAKE);
    uint8_t bytes[9000];

    cr_assert_eq(qr_file_write(file, "abc", 3, 8000), 0);
    cr_assert_eq(qr_file_read(file, bytes, sizeof(bytes), 0), 8003);
    for (unsigned i = 0; i < 8000; i++)
        cr_assert_eq(bytes[i], 0);
    cr_assert_arr_eq(bytes + 8000, "abc", 3);
    cr_assert_eq(qr_file_write_zeros(file, 8001, 150000, 4096), 0);
    cr_assert_eq(qr_file_write_zeros(file, 158001, 50001, 65536), 0);
    cr_assert_eq(size_of(file), 208002);
    cr_assert_eq(qr_file_read(file, bytes, 3, 8000), 3);
    cr_assert_arr_eq(bytes, "a\0", 3);
    place->disk->ops->file_close(file);
}

CONTRACT(files_grow_and_are_cut)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = os_place_filled(place, "f", 5000);
    uint8_t bytes[5000];

    cr_assert_eq(ops->file_resize(file, 100), 0);
    cr_assert_eq(size_of(file), 100);
    cr_assert_eq(ops->file_resize(file, 5000), 0);
    cr_assert_eq(qr_file_read(file, bytes, sizeof(bytes), 0), 5000);
    os_check_pattern(bytes, 100, 0);
    for (unsigned i = 100; i < 5000; i++)
        cr_assert_eq(bytes[i], 0);
    int error = ops->file_allocate(file, 4096, 8192);
    cr_assert(error == 0 || error == -EOPNOTSUPP);
    if (error == 0) {
        struct qr_file_facts facts;
        cr_assert_eq(ops->file_facts(file, &facts), 0);
        cr_assert_eq(facts.size_bytes, 4096 + 8192);
        cr_assert_geq(facts.allocated_bytes, 4096 + 8192);
    }
    ops->file_forget(file, 0, 4096);
    cr_assert_eq(ops->file_sync(file), 0);
    cr_assert_eq(qr_file_sync(file), 0);
    ops->file_close(file);
}

CONTRACT(a_file_that_was_opened_for_reading_is_not_written)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    ops->file_close(os_place_filled(place, "f", 5000));
    struct qr_file *file = os_place_file(place, "f", 0);
    void *memory;

    cr_assert_eq(ops->file_write(file, "x", 1, 0), -EBADF);
    cr_assert_lt(ops->file_resize(file, 0), 0);
    cr_assert_lt(ops->file_allocate(file, 0, 10000), 0);
    cr_assert_eq(ops->file_map(file, 0, 4096, &memory), -EACCES);
    cr_assert_eq(size_of(file), 5000);
    ops->file_close(file);
}

CONTRACT(direct_files_are_read_and_written_where_they_can_be)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = os_place_file(place, "f", MAKE | QR_FILE_DIRECT);
    struct qr_file_facts facts;

    cr_assert_eq(ops->file_facts(file, &facts), 0);
    uint32_t align = facts.direct_align_bytes != 0 ? facts.direct_align_bytes : 512;
    uint8_t *bytes = qr_malloc_aligned(align, 4 * align);
    for (uint32_t i = 0; i < 4 * align; i++)
        bytes[i] = os_pattern(i);
    cr_assert_eq(qr_file_write(file, bytes, 4 * align, 0), 0);
    memset(bytes, 0, 4 * align);
    cr_assert_eq(qr_file_read(file, bytes, 2 * align, align), 2 * align);
    os_check_pattern(bytes, 2 * align, align);
    /* To an end that is not aligned. */
    cr_assert_eq(ops->file_resize(file, 2 * align + 5), 0);
    cr_assert_eq(qr_file_read(file, bytes, 4 * align, 0), 2 * align + 5);
    os_check_pattern(bytes, 2 * align + 5, 0);
    qr_free_aligned(bytes);
    ops->file_close(file);
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

CONTRACT(creation_is_exclusive_only_if_asked)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = NULL;

    cr_assert_eq(ops->file_open(place->dir, "f", 0, &file), -ENOENT);
    cr_assert_eq(ops->file_open(place->dir, "f", QR_FILE_WRITE, &file), -ENOENT);
    cr_assert_null(file);
    ops->file_close(os_place_filled(place, "f", 100));
    cr_assert_eq(ops->file_open(place->dir, "f", MAKE | QR_FILE_EXCLUSIVE, &file), -EEXIST);
    cr_assert_null(file);
    file = os_place_file(place, "f", MAKE);
    cr_assert_eq(size_of(file), 100);
    ops->file_close(file);
}

CONTRACT(a_rename_replaces)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *old = os_place_filled(place, "old", 10), *new = os_place_filled(place, "new", 20);
    struct qr_file *file = NULL;

    cr_assert_eq(ops->dir_rename(place->dir, "new", "old"), 0);
    cr_assert_eq(ops->dir_sync(place->dir), 0);
    cr_assert_eq(size_of(old), 10); /* what is open stays */
    cr_assert_eq(size_of(new), 20);
    ops->file_close(old);
    ops->file_close(new);
    file = os_place_file(place, "old", 0);
    cr_assert_eq(size_of(file), 20);
    ops->file_close(file);
    cr_assert_eq(ops->file_open(place->dir, "new", 0, &file), -ENOENT);
    cr_assert_eq(ops->dir_rename(place->dir, "new", "old"), -ENOENT);
    cr_assert_eq(ops->dir_rename(place->dir, "old", "old"), 0);
}

CONTRACT(an_unlinked_file_is_there_until_it_is_closed)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = os_place_filled(place, "f", 5000), *other = NULL;
    uint8_t bytes[5000];

    cr_assert_eq(ops->dir_unlink(place->dir, "f"), 0);
    cr_assert_eq(ops->dir_sync(place->dir), 0);
    cr_assert_eq(ops->dir_unlink(place->dir, "f"), -ENOENT);
    cr_assert_eq(ops->file_open(place->dir, "f", 0, &other), -ENOENT);
    cr_assert_eq(qr_file_read(file, bytes, sizeof(bytes), 0), 5000);
    os_check_pattern(bytes, 5000, 0);
    ops->file_close(file);
}

struct listing {
    unsigned count, most;
    unsigned seen; /* a bit for each of a, b, c */
};

static int note_name(void *context, const char *name)
{
    struct listing *listing = context;
    cr_assert_eq(strlen(name), 1);
    listing->seen |= 1u << (name[0] - 'a');
    return ++listing->count == listing->most ? 42 : 0;
}

CONTRACT(a_list_has_all_names_and_ends_when_told)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct listing all = {.most = 100}, two = {.most = 2}, none = {.most = 100};

    cr_assert_eq(ops->dir_list(place->dir, note_name, &none), 0);
    cr_assert_eq(none.count, 0);
    for (const char *name = "a\0b\0c\0"; *name != '\0'; name += 2)
        ops->file_close(os_place_filled(place, name, 1));
    cr_assert_eq(ops->dir_list(place->dir, note_name, &all), 0);
    cr_assert_eq(all.count, 3);
    cr_assert_eq(all.seen, 7);
    cr_assert_eq(ops->dir_list(place->dir, note_name, &two), 42);
    cr_assert_eq(two.count, 2);
}

CONTRACT(what_is_no_name_is_refused)
{
    static const char *const names[] = {"", ".", "..", "a/b", "/a", "a/"};
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = NULL;
    int64_t pid;

    ops->file_close(os_place_filled(place, "f", 1));
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_assert_eq(ops->file_open(place->dir, names[i], MAKE, &file), -EINVAL);
        cr_assert_eq(ops->file_open(place->dir, names[i], 0, &file), -EINVAL);
        cr_assert_eq(ops->dir_unlink(place->dir, names[i]), -EINVAL);
        cr_assert_eq(ops->dir_rename(place->dir, "f", names[i]), -EINVAL);
        cr_assert_eq(ops->dir_rename(place->dir, names[i], "f"), -EINVAL);
        cr_assert_eq(ops->dir_lock(place->dir, names[i], false, &pid), -EINVAL);
        cr_assert_eq(ops->dir_lock(place->dir, names[i], true, &pid), -EINVAL);
    }
}

/* ---- Directories ------------------------------------------------------------------------------------------------ */

CONTRACT(a_directory_is_made_only_if_asked)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_dir *dir = NULL;
    char path[300];

    snprintf(path, sizeof(path), "%s2", place->path);
    cr_assert_eq(ops->dir_open(place->disk, path, 0, &dir), -ENOENT);
    cr_assert_eq(ops->dir_open(place->disk, path, QR_DIR_READ_ONLY | QR_DIR_CREATE, &dir), -ENOENT);
    cr_assert_null(dir);
    dir = os_place_dir(place, QR_DIR_CREATE); /* it is there */
    ops->dir_close(dir);
    ops->file_close(os_place_filled(place, "f", 1));
    dir = os_place_dir(place, QR_DIR_CREATE);
    ops->dir_close(dir);
}

CONTRACT(facts_of_a_directory_are_those_of_where_it_is)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_dir *again = os_place_dir(place, 0);
    struct qr_dir_facts first, second;
    uint64_t free_bytes = 0;

    cr_assert_eq(ops->dir_facts(place->dir, &first), 0);
    cr_assert_eq(ops->dir_facts(again, &second), 0);
    cr_assert_arr_eq(first.boot_id, second.boot_id, 16);
    cr_assert_eq(first.device, second.device);
    cr_assert_eq(first.mount_id, second.mount_id);
    cr_assert_eq(first.inode, second.inode);
    cr_assert_neq(first.inode, 0);
    cr_assert_neq(first.mount_id, 0);
    cr_assert_not(first.read_only);
    cr_assert_eq(ops->dir_free_bytes(place->dir, &free_bytes), 0);
    cr_assert_gt(free_bytes, 0);
    ops->dir_close(again);
}

CONTRACT(nothing_is_changed_through_a_read_only_directory)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    ops->file_close(os_place_filled(place, "f", 100));
    struct qr_dir *dir = os_place_dir(place, QR_DIR_READ_ONLY);
    struct qr_file *file = NULL;
    uint8_t bytes[100];
    int64_t pid;

    cr_assert_eq(ops->file_open(dir, "g", MAKE, &file), -EROFS);
    cr_assert_eq(ops->file_open(dir, "f", QR_FILE_WRITE, &file), -EROFS);
    cr_assert_eq(ops->dir_unlink(dir, "f"), -EROFS);
    cr_assert_eq(ops->dir_rename(dir, "f", "g"), -EROFS);
    cr_assert_eq(ops->dir_lock(dir, "lock", false, &pid), -EROFS);
    cr_assert_eq(ops->file_open(dir, "f", 0, &file), 0);
    cr_assert_eq(qr_file_read(file, bytes, 100, 0), 100);
    ops->file_close(file);
    ops->dir_close(dir);
}

/* ---- Locks ------------------------------------------------------------------------------------------------------ */

static int64_t own_pid(const struct os_place *place)
{
    return place->simulated != NULL ? simdisk_facts(place->simulated)->pid : getpid();
}

/* What a further opener is told. */
static int try_lock(const struct os_place *place, bool shared, int64_t *ret_pid)
{
    struct qr_dir *dir = os_place_dir(place, shared ? QR_DIR_READ_ONLY : 0);
    int error = place->disk->ops->dir_lock(dir, "lock", shared, ret_pid);
    place->disk->ops->dir_close(dir);
    return error;
}

CONTRACT(a_lock_holds_against_the_same_process_and_its_child)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_dir *dir = os_place_dir(place, 0);
    int64_t pid = -1;
    int status;

    cr_assert_eq(ops->dir_lock(dir, "lock", false, &pid), 0);
    cr_assert_eq(pid, -1);
    cr_assert_eq(try_lock(place, false, &pid), -EWOULDBLOCK);
    cr_assert_eq(pid, own_pid(place));
    pid = -1;
    cr_assert_eq(try_lock(place, true, &pid), -EWOULDBLOCK);
    cr_assert_eq(pid, own_pid(place));
    pid_t child = fork();
    if (child == 0) {
        bool right = try_lock(place, false, &pid) == -EWOULDBLOCK && pid != getpid();
        ops->dir_close(dir); /* and that takes nothing from the parent */
        _exit(right ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    cr_assert_eq(try_lock(place, false, &pid), -EWOULDBLOCK);
    ops->dir_close(dir);
    cr_assert_eq(try_lock(place, false, &pid), 0);
    cr_assert_eq(try_lock(place, true, &pid), 0);
}

CONTRACT(shared_locks_go_together_and_write_nothing)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct listing listing = {.most = 100};
    struct qr_dir *first = os_place_dir(place, QR_DIR_READ_ONLY), *second = os_place_dir(place, QR_DIR_READ_ONLY);
    int64_t pid = -1;

    cr_assert_eq(ops->dir_lock(first, "lock", true, &pid), 0);
    cr_assert_eq(ops->dir_list(place->dir, note_name, &listing), 0);
    cr_assert_eq(listing.count, 0);
    ops->dir_close(first);
    cr_assert_eq(try_lock(place, false, &pid), 0); /* makes the file */
    first = os_place_dir(place, QR_DIR_READ_ONLY);
    cr_assert_eq(ops->dir_lock(first, "lock", true, &pid), 0);
    cr_assert_eq(ops->dir_lock(second, "lock", true, &pid), 0);
    cr_assert_eq(try_lock(place, false, &pid), -EWOULDBLOCK);
    ops->dir_close(first);
    cr_assert_eq(try_lock(place, false, &pid), -EWOULDBLOCK);
    pid = -1;
    cr_assert_eq(try_lock(place, false, &pid), -EWOULDBLOCK);
    cr_assert_eq(pid, 0); /* and not who wrote last */
    ops->dir_close(second);
    cr_assert_eq(try_lock(place, false, &pid), 0);
}

CONTRACT(whoever_removes_the_lock_file_lets_nobody_in)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct listing listing = {.most = 100};
    struct qr_dir *dir = os_place_dir(place, 0);
    int64_t pid = -1;

    cr_assert_eq(ops->dir_lock(dir, "lock", false, &pid), 0);
    cr_assert_eq(ops->dir_unlink(dir, "lock"), 0);
    cr_assert_eq(try_lock(place, false, &pid), -EWOULDBLOCK);
    cr_assert_eq(pid, 0);
    cr_assert_eq(try_lock(place, true, &pid), -EWOULDBLOCK);
    cr_assert_eq(ops->dir_list(place->dir, note_name, &listing), 0);
    cr_assert_eq(listing.count, 0); /* who was refused has made no file */
    ops->file_close(os_place_file(place, "lock", MAKE));
    cr_assert_eq(try_lock(place, false, &pid), -EWOULDBLOCK);
    cr_assert_eq(try_lock(place, true, &pid), -EWOULDBLOCK);
    ops->dir_close(dir);
    cr_assert_eq(try_lock(place, false, &pid), 0);
}

CONTRACT(who_reads_where_there_is_no_lock_file_keeps_writers_out)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct listing listing = {.most = 100};
    struct qr_dir *first = os_place_dir(place, QR_DIR_READ_ONLY), *second = os_place_dir(place, QR_DIR_READ_ONLY);
    int64_t pid = -1;

    cr_assert_eq(ops->dir_lock(first, "lock", true, &pid), 0);
    cr_assert_eq(ops->dir_lock(second, "lock", true, &pid), 0);
    cr_assert_eq(try_lock(place, false, &pid), -EWOULDBLOCK);
    cr_assert_eq(pid, 0);
    cr_assert_eq(ops->dir_list(place->dir, note_name, &listing), 0);
    cr_assert_eq(listing.count, 0);
    ops->dir_close(first);
    cr_assert_eq(try_lock(place, false, &pid), -EWOULDBLOCK);
    ops->dir_close(second);
    cr_assert_eq(try_lock(place, false, &pid), 0);
}

/* ---- Mappings --------------------------------------------------------------------------------------------------- */

CONTRACT(a_mapping_is_the_file)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = os_place_filled(place, "f", 65536);
    void *memory = NULL, *other = NULL;
    uint8_t bytes[8192];

    cr_assert_eq(ops->file_map(file, 8192, 40000, &memory), 0);
    cr_assert_eq((uintptr_t)memory % 4096, 0);
    os_check_pattern(memory, 40000, 8192);
    cr_assert_eq(ops->file_populate(file, memory, 40000), 0);
    cr_assert_eq(ops->file_populate(file, (uint8_t *)memory + 5000, 3000), 0);
    os_check_pattern(memory, 40000, 8192);
    memset((uint8_t *)memory + 100, 'm', 8000);
    cr_assert_eq(qr_file_read(file, bytes, 8000, 8292), 8000);
    cr_assert_eq(bytes[0], 'm');
    cr_assert_eq(bytes[7999], 'm');
    cr_assert_eq(qr_file_write(file, "written", 7, 8200), 0);
    cr_assert_arr_eq((uint8_t *)memory + 8, "written", 7);
    cr_assert_eq(ops->file_map(file, 8192, 4096, &other), 0);
    cr_assert_arr_eq((uint8_t *)other + 8, "written", 7);
    ops->file_unmap(file, other, 4096);
    cr_assert_eq(ops->file_sync(file), 0);
    ops->file_unmap(file, memory, 40000);
    cr_assert_eq(qr_file_read(file, bytes, 10, 8292), 10);
    cr_assert_eq(bytes[9], 'm');
    ops->file_close(file);
}

CONTRACT(only_what_is_in_the_file_is_mapped)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = os_place_filled(place, "f", 8192);
    void *memory = NULL;

    cr_assert_eq(ops->file_map(file, 100, 4096, &memory), -EINVAL);
    cr_assert_eq(ops->file_map(file, 4096, 8192, &memory), -EINVAL);
    cr_assert_eq(ops->file_map(file, 0, 0, &memory), -EINVAL);
    cr_assert_eq(ops->file_map(file, 8192, 1, &memory), -EINVAL);
    cr_assert_eq(ops->file_map(file, UINT64_MAX & ~4095ull, 8192, &memory), -EINVAL);
    cr_assert_null(memory);
    ops->file_close(file);
}

/* ---- Transfers -------------------------------------------------------------------------------------------------- */

/* Reads of one file, writes to another, and some syncs; the i-th of everything in the i-th part of 3000 bytes. */
static void mixed_transfer(const struct os_place *place, struct qr_file *from, struct qr_file *to, uint32_t count)
{
    enum { PART = 3000 };
    struct qr_io *ios = calloc(count, sizeof(*ios));
    uint8_t *memory = calloc(count, PART), *back = calloc(count, PART);

    for (uint32_t i = 0; i < count; i++) {
        enum qr_io_kind kind = i % 8 == 7 ? QR_IO_SYNC : i % 2 == 0 ? QR_IO_READ : QR_IO_WRITE;
        ios[i] = (struct qr_io){
            kind, kind == QR_IO_READ ? from : to, (uint64_t)i * PART, memory + (size_t)i * PART, PART, -1};
        for (uint32_t k = 0; k < PART && kind == QR_IO_WRITE; k++)
            memory[(size_t)i * PART + k] = os_pattern((uint64_t)i * PART + k);
    }
    cr_assert_eq(place->disk->ops->transfer(place->disk, ios, count), 0);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_eq(ios[i].result, ios[i].kind == QR_IO_SYNC ? 0 : PART, "part %u: %lld", i, (long long)ios[i].result);
        if (ios[i].kind == QR_IO_SYNC)
            continue;
        os_check_pattern(memory + (size_t)i * PART, PART, (uint64_t)i * PART);
        if (ios[i].kind == QR_IO_WRITE) {
            cr_assert_eq(qr_file_read(to, back, PART, (uint64_t)i * PART), PART);
            os_check_pattern(back, PART, (uint64_t)i * PART);
        }
    }
    free(ios);
    free(memory);
    free(back);
}

CONTRACT(transfers_of_any_number_of_parts_do_them_all)
{
    static const uint32_t counts[] = {0, 1, 2, 64, 65, 128, 300};
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *from = os_place_filled(place, "from", 900000);
    struct qr_disk_counts before, after;

    for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct qr_file *to = os_place_file(place, "to", MAKE);
        qr_disk_counts(place->disk, &before);
        mixed_transfer(place, from, to, counts[i]);
        qr_disk_counts(place->disk, &after);
        bool ring = strcmp(place->disk->name, "uring") == 0 && counts[i] > 1;
        cr_assert_eq(after.ring_operations - before.ring_operations, ring ? counts[i] : 0);
        if (ring && counts[i] >= 64)
            cr_assert_eq(after.ring_depth_max, 64);
        ops->file_close(to);
        cr_assert_eq(ops->dir_unlink(place->dir, "to"), 0);
    }
    ops->file_close(from);
}

CONTRACT(each_part_of_a_transfer_has_its_own_result)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = os_place_filled(place, "f", 10000);
    ops->file_close(os_place_filled(place, "r", 10));
    struct qr_file *read_only = os_place_file(place, "r", 0);
    uint8_t bytes[5][1000];
    struct qr_io ios[5];
    for (unsigned i = 0; i < 5; i++)
        ios[i] = (struct qr_io){QR_IO_READ, file, i * 1000, bytes[i], 1000, -1};
    ios[1].offset = 9900;    /* short */
    ios[2].file = read_only; /* shorter */
    ios[3].file = read_only; /* refused */
    ios[3].kind = QR_IO_WRITE;
    ios[4].offset = UINT64_MAX - 10; /* nowhere */

    cr_assert_eq(ops->transfer(place->disk, ios, 5), 0);
    static const int64_t expected[] = {1000, 100, 0, -EBADF, -EINVAL};
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(ios[i].result, expected[i], "part %u: %lld", i, (long long)ios[i].result);
    ios[2].offset = 0;
    cr_assert_eq(qr_disk_transfer(place->disk, ios, 5), -ENODATA);
    static const int64_t finished[] = {1000, -ENODATA, -ENODATA, -EBADF, -EINVAL};
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(ios[i].result, finished[i], "part %u: %lld", i, (long long)ios[i].result);
    ops->file_close(file);
    ops->file_close(read_only);
}

enum { THREADS = 6, ROUNDS = 30, PARTS = 20 };

struct worker {
    const struct os_place *place;
    struct qr_file *file;
    unsigned number;
    bool right;
};

/* Each thread writes its own parts of the file, then reads and compares them. */
static void *transfer_again_and_again(void *argument)
{
    struct worker *worker = argument;
    static _Thread_local uint8_t memory[PARTS][500];
    struct qr_io ios[PARTS];

    worker->right = true;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned kind = QR_IO_READ + 2; kind-- > QR_IO_READ;) { /* WRITE, then READ */
            for (unsigned i = 0; i < PARTS; i++) {
                uint64_t offset = (uint64_t)(worker->number * PARTS + i) * 500;
                memset(memory[i], kind == QR_IO_WRITE ? (int)(worker->number * 31 + i + round) & 255 : 0, 500);
                ios[i] = (struct qr_io){(enum qr_io_kind)kind, worker->file, offset, memory[i], 500, -1};
            }
            worker->right &= qr_disk_transfer(worker->place->disk, ios, PARTS) == 0;
        }
        for (unsigned i = 0; i < PARTS; i++)
            worker->right &=
                memory[i][0] == ((worker->number * 31 + i + round) & 255) && memory[i][499] == memory[i][0];
    }
    return NULL;
}

CONTRACT(threads_transfer_at_once)
{
    struct qr_file *file = os_place_filled(place, "f", THREADS * PARTS * 500);
    struct worker workers[THREADS];
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){place, file, i, false};
        cr_assert_eq(pthread_create(&threads[i], NULL, transfer_again_and_again, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert(workers[i].right, "thread %u", i);
    }
    place->disk->ops->file_close(file);
}

/* A mapping that threads store into while another syncs: as in the log. */
struct storer {
    uint8_t *memory;
    unsigned number;
};

static void *store(void *argument)
{
    struct storer *storer = argument;
    for (unsigned round = 1; round <= 200; round++)
        memset(storer->memory + storer->number * 8192, (int)round, 8192);
    return NULL;
}

CONTRACT(syncs_and_stores_go_on_at_once)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = os_place_filled(place, "f", 4 * 8192);
    struct storer storers[4];
    pthread_t threads[4];
    void *memory = NULL;
    uint8_t byte;

    cr_assert_eq(ops->file_map(file, 0, 4 * 8192, &memory), 0);
    cr_assert_eq(ops->file_populate(file, memory, 4 * 8192), 0);
    for (unsigned i = 0; i < 4; i++) {
        storers[i] = (struct storer){memory, i};
        cr_assert_eq(pthread_create(&threads[i], NULL, store, &storers[i]), 0);
    }
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(qr_file_sync(file), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(qr_file_read(file, &byte, 1, 3 * 8192 + 77), 1);
    cr_assert_eq(byte, 200);
    ops->file_unmap(file, memory, 4 * 8192);
    ops->file_close(file);
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

/* Every allocation fails once; the simulated disk makes none that can. */
CONTRACT(without_memory_nothing_is_opened)
{
    const struct qr_disk_ops *ops = place->disk->ops;
    struct qr_file *file = os_place_filled(place, "f", 8192), *other = NULL;
    struct qr_dir *dir = NULL;
    void *memory = NULL;
    bool simulated = place->simulated != NULL;

    int64_t before = qr_alloc_live_count();
    qr_alloc_fail_after(1);
    int answers[3];
    answers[0] = ops->dir_open(place->disk, place->path, 0, &dir);
    qr_alloc_fail_after(1);
    answers[1] = ops->file_open(place->dir, "f", 0, &other);
    qr_alloc_fail_after(1);
    answers[2] = ops->file_map(file, 0, 4096, &memory);
    qr_alloc_fail_after(-1);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(answers[i], simulated ? 0 : -ENOMEM);
    cr_assert_eq(qr_alloc_live_count(), before);
    if (simulated) {
        ops->file_unmap(file, memory, 4096);
        ops->file_close(other);
        ops->dir_close(dir);
    }
    ops->file_close(file);
}

Test(os_disks, a_disk_is_made_or_there_is_no_memory)
{
    struct qr_disk *disk = NULL;
    cr_assert_eq(qr_disk_open(true, &disk), 0);
    bool ring = strcmp(disk->name, "uring") == 0;
    disk->ops->disk_free(disk);
    for (int64_t n = 1; n <= 3; n++) {
        int64_t before = qr_alloc_live_count();
        qr_alloc_fail_after(n);
        int error = qr_disk_open(true, &disk);
        qr_alloc_fail_after(-1);
        cr_assert_eq(error, ring || n > 1 ? 0 : -ENOMEM); /* without a ring, if need be */
        if (error == 0)
            disk->ops->disk_free(disk);
        cr_assert_eq(qr_alloc_live_count(), before);
    }
    qr_alloc_fail_from(1);
    int error = qr_disk_open(true, &disk);
    qr_alloc_fail_after(-1);
    cr_assert_eq(error, -ENOMEM);
    cr_assert_eq(qr_disk_open(false, &disk), 0);
    cr_assert_str_eq(disk->name, "posix");
    disk->ops->disk_free(disk);
}
