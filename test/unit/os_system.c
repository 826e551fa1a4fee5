/*
 * Goal: the disks of the system answer with errors where the system says no, and with nothing worse.
 * Method: things that are not files, limits of the process, full and read-only file systems of our own, filters that
 * deny system calls, signals, killed processes. Each test is in a process of its own, so limits and filters end with
 * it.
 *
 * A file system of our own needs the right to mount; without it these tests say "skipped" on standard error and pass.
 */
#include "os_place.h"

#include "os/thread.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAKE (QR_FILE_WRITE | QR_FILE_CREATE)
#define MIB (1u << 20)

/* ---- What is not a file ----------------------------------------------------------------------------------------- */

static const char *in(const struct os_place *place, const char *name)
{
    static char path[400];
    snprintf(path, sizeof(path), "%s/%s", place->path, name);
    return path;
}

Test(os_system, links_are_not_followed_below_a_directory)
{
    struct os_place place;
    struct qr_file *file = NULL;
    struct qr_dir *dir = NULL;
    int64_t pid;

    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    ops->file_close(os_place_filled(&place, "f", 10));
    cr_assert_eq(symlink("f", in(&place, "link")), 0);
    cr_assert_eq(symlink("nothing", in(&place, "dangling")), 0);
    cr_assert_eq(ops->file_open(place.dir, "link", 0, &file), -ELOOP);
    cr_assert_eq(ops->file_open(place.dir, "link", QR_FILE_WRITE, &file), -ELOOP);
    cr_assert_eq(ops->file_open(place.dir, "dangling", MAKE, &file), -ELOOP);
    cr_assert_eq(ops->file_open(place.dir, "dangling", MAKE | QR_FILE_EXCLUSIVE, &file), -EEXIST);
    cr_assert_eq(ops->dir_lock(place.dir, "link", false, &pid), -ELOOP);
    cr_assert_eq(access(in(&place, "nothing"), F_OK), -1);
    /* The path of the directory itself may be one. */
    char path[300];
    snprintf(path, sizeof(path), "%s/alias", place.base);
    cr_assert_eq(symlink("db", path), 0);
    cr_assert_eq(ops->dir_open(place.disk, path, QR_DIR_CREATE, &dir), 0);
    cr_assert_eq(ops->file_open(dir, "f", 0, &file), 0);
    ops->file_close(file);
    ops->dir_close(dir);
    os_place_close(&place);
}

Test(os_system, pipes_and_directories_are_no_files, .timeout = 20)
{
    struct os_place place;
    struct qr_file *file = NULL;
    struct qr_dir *dir = NULL;
    int64_t pid;

    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    cr_assert_eq(mkfifo(in(&place, "pipe"), 0666), 0);
    cr_assert_eq(mkdir(in(&place, "dir"), 0777), 0);
    cr_assert_eq(ops->file_open(place.dir, "pipe", 0, &file), -EINVAL); /* and at once */
    cr_assert_eq(ops->file_open(place.dir, "pipe", QR_FILE_WRITE, &file), -EINVAL);
    cr_assert_eq(ops->file_open(place.dir, "pipe", MAKE, &file), -EINVAL);
    cr_assert_eq(ops->dir_lock(place.dir, "pipe", false, &pid), -EINVAL);
    cr_assert_eq(ops->file_open(place.dir, "dir", 0, &file), -EISDIR);
    cr_assert_eq(ops->file_open(place.dir, "dir", MAKE, &file), -EISDIR);
    cr_assert_eq(ops->dir_unlink(place.dir, "dir"), -EISDIR);
    ops->file_close(os_place_filled(&place, "f", 10));
    cr_assert_eq(ops->dir_open(place.disk, in(&place, "f"), 0, &dir), -ENOTDIR);
    cr_assert_eq(ops->dir_open(place.disk, in(&place, "f"), QR_DIR_CREATE, &dir), -ENOTDIR);
    os_place_close(&place);
}

static void *remove_again_and_again(void *context)
{
    struct os_place *place = context;
    char path[300];
    snprintf(path, sizeof(path), "%s/fleeting", place->base);
    while (place->disk != NULL) { /* until it is cancelled */
        rmdir(path);
        pthread_testcancel();
    }
    return NULL;
}

/* Who makes a directory gets one, though somebody removes it again and again. */
Test(os_system, a_directory_that_goes_is_made_again, .timeout = 60)
{
    struct os_place place;
    struct qr_dir *dir = NULL;
    pthread_t other;
    char path[300];

    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    snprintf(path, sizeof(path), "%s/fleeting", place.base);
    cr_assert_eq(pthread_create(&other, NULL, remove_again_and_again, &place), 0);
    for (int i = 0; i < 3000; i++) {
        cr_assert_eq(ops->dir_open(place.disk, path, QR_DIR_CREATE, &dir), 0);
        ops->dir_close(dir);
    }
    pthread_cancel(other);
    pthread_join(other, NULL);
    rmdir(path);
    snprintf(path, sizeof(path), "%s/dangling", place.base);
    cr_assert_eq(symlink("nothing", path), 0);
    cr_assert_eq(ops->dir_open(place.disk, path, QR_DIR_CREATE, &dir), -ENOENT); /* and comes to an end */
    cr_assert_eq(unlink(path), 0);
    os_place_close(&place);
}

/* ---- Limits of the process -------------------------------------------------------------------------------------- */

static void limit(int resource, rlim_t most)
{
    struct rlimit now;
    cr_assert_eq(getrlimit(resource, &now), 0);
    now.rlim_cur = most;
    cr_assert_eq(setrlimit(resource, &now), 0);
}

static int visit_nothing(void *context, const char *name)
{
    (void)context;
    (void)name;
    return 0;
}

Test(os_system, too_many_open_files_are_an_error)
{
    struct os_place place;
    struct qr_file *file = NULL;
    struct qr_dir *dir = NULL;
    struct qr_dir_facts facts;
    int64_t pid;

    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    int next = dup(0);
    cr_assert_geq(next, 0);
    close(next);
    struct rlimit before;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit(RLIMIT_NOFILE, (rlim_t)next);
    int answers[] = {
        ops->file_open(place.dir, "f", MAKE, &file),
        ops->dir_open(place.disk, place.path, 0, &dir),
        ops->dir_list(place.dir, visit_nothing, NULL),
        ops->dir_lock(place.dir, "lock", false, &pid),
        ops->dir_facts(place.dir, &facts), /* the boot is not "unknown" */
    };
    limit(RLIMIT_NOFILE, before.rlim_cur);
    for (unsigned i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
        cr_assert_eq(answers[i], -EMFILE, "call %u: %d", i, answers[i]);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), 0);
    os_place_close(&place);
}

static void files_end_at_the_limit(enum os_kind kind)
{
    struct os_place place;
    struct qr_dir_facts facts;
    static uint8_t bytes[4096] __attribute__((aligned(4096)));

    os_place_open(&place, kind);
    const struct qr_disk_ops *ops = place.disk->ops;
    /* Of direct writes a ring runs the beginning in the caller's thread, which would have the signal. */
    struct qr_file *file = os_place_file(&place, "f", MAKE | QR_FILE_DIRECT), *large = os_place_file(&place, "g", MAKE);
    cr_assert_eq(ops->file_resize(large, 3 * MIB), 0);
    limit(RLIMIT_FSIZE, MIB);
    cr_assert_eq(ops->file_write(file, bytes, sizeof(bytes), MIB - 4096), 4096);
    cr_assert_eq(ops->file_write(file, bytes, sizeof(bytes), MIB - 4095), -EFBIG);
    cr_assert_eq(ops->file_write(file, bytes, 1, MIB), -EFBIG);
    cr_assert_eq(ops->file_write(large, bytes, 1, 2 * MIB), -EFBIG); /* the kernel signals there too */
    cr_assert_eq(ops->file_resize(file, MIB + 1), -EFBIG);
    cr_assert_eq(ops->file_allocate(file, MIB - 10, 20), -EFBIG);
    cr_assert_eq(ops->file_resize(large, 2 * MIB), 0); /* cut to more than the limit */
    struct qr_io ios[3];
    for (unsigned i = 0; i < 3; i++)
        ios[i] = (struct qr_io){QR_IO_WRITE, file, (uint64_t)i * MIB / 2, bytes, 4096, -1};
    cr_assert_eq(qr_disk_transfer(place.disk, ios, 3), -EFBIG);
    cr_assert_eq(ios[1].result, 4096);
    cr_assert_eq(ios[2].result, -EFBIG);
    for (unsigned i = 0; i < 3; i++)
        ios[i].offset = 2 * MIB; /* nothing is left for a ring */
    cr_assert_eq(qr_disk_transfer(place.disk, ios, 3), -EFBIG);
    cr_assert_eq(ops->dir_facts(place.dir, &facts), 0);
    cr_assert_not(facts.can_map);
    limit(RLIMIT_FSIZE, 0);
    int64_t pid;
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), -EFBIG);
    ops->file_close(file);
    ops->file_close(large);
    os_place_close(&place);
}

Test(os_system, a_limit_on_files_is_an_error_and_no_signal)
{
    files_end_at_the_limit(OS_POSIX);
}

Test(os_system, a_limit_on_files_is_an_error_and_no_signal_with_a_ring)
{
    files_end_at_the_limit(OS_URING);
}

/* ---- File systems of our own ------------------------------------------------------------------------------------ */

static char mounted[200];

/* A tmpfs that nobody else sees. False: no right to. */
static bool mount_small(const char *options)
{
    snprintf(mounted, sizeof(mounted), "/tmp/quire-os-small.XXXXXX");
    cr_assert_not_null(mkdtemp(mounted));
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("quire", mounted, "tmpfs", 0, options) == 0)
        return true;
    rmdir(mounted);
    fprintf(stderr, "skipped: no right to mount a file system\n");
    return false;
}

static void unmount_small(void)
{
    cr_assert_eq(umount(mounted), 0);
    rmdir(mounted);
}

/* The file system is full but for less than a block. */
static struct qr_file *fill_up(const struct os_place *place)
{
    static const uint8_t bytes[65536];
    struct qr_file *file = os_place_file(place, "filler", MAKE);
    uint64_t offset = 0;
    int64_t count;
    while ((count = place->disk->ops->file_write(file, bytes, sizeof(bytes), offset)) > 0)
        offset += (uint64_t)count;
    cr_assert_eq(count, -ENOSPC);
    cr_assert_eq(qr_file_write(file, bytes, sizeof(bytes), offset), -ENOSPC);
    return file;
}

static void full_disk(enum os_kind kind)
{
    struct os_place place;
    struct qr_dir_facts facts;
    uint64_t free_bytes = 1;
    void *memory = NULL;
    int64_t pid;

    if (!mount_small("size=1m"))
        return;
    os_place_open_at(&place, kind, mounted);
    const struct qr_disk_ops *ops = place.disk->ops;
    struct qr_dir *dir = os_place_dir(&place, 0);
    cr_assert_eq(ops->dir_lock(dir, "lock", false, &pid), 0);
    ops->dir_close(dir);
    cr_assert_eq(ops->dir_facts(place.dir, &facts), 0);
    cr_assert(facts.can_map);
    struct qr_file *holes = os_place_file(&place, "holes", MAKE);
    cr_assert_eq(ops->file_resize(holes, 65536), 0);
    cr_assert_eq(ops->file_map(holes, 0, 65536, &memory), 0);
    struct qr_file *filler = fill_up(&place);
    cr_assert_eq(ops->dir_free_bytes(place.dir, &free_bytes), 0);
    cr_assert_eq(free_bytes, 0);
    cr_assert_eq(ops->file_populate(holes, memory, 65536), -ENOSPC); /* and not SIGBUS */
    cr_assert_eq(ops->file_populate(holes, (uint8_t *)memory + 40000, 100), -ENOSPC);
    cr_assert_eq(ops->file_allocate(holes, 0, 65536), -ENOSPC);
    dir = os_place_dir(&place, 0);
    cr_assert_eq(ops->dir_lock(dir, "lock", false, &pid), 0); /* LOCK-2 */
    ops->dir_close(dir);
    cr_assert_eq(ops->file_resize(filler, 0), 0);
    cr_assert_eq(ops->file_populate(holes, memory, 65536), 0);
    memset(memory, 1, 65536);
    ops->file_unmap(holes, memory, 65536);
    ops->file_close(filler);
    ops->file_close(holes);
    os_place_close(&place);
    unmount_small();
}

Test(os_system, a_full_disk_is_an_error_and_no_signal)
{
    full_disk(OS_POSIX);
}

Test(os_system, a_full_disk_is_an_error_and_no_signal_with_a_ring)
{
    full_disk(OS_URING);
}

Test(os_system, a_read_only_file_system_is_read)
{
    struct os_place place;
    struct qr_dir_facts facts;
    struct qr_file *file = NULL;
    int64_t pid;

    if (!mount_small("size=1m"))
        return;
    os_place_open_at(&place, OS_POSIX, mounted);
    const struct qr_disk_ops *ops = place.disk->ops;
    ops->file_close(os_place_filled(&place, "f", 100));
    cr_assert_eq(mount(NULL, mounted, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    cr_assert_eq(ops->dir_facts(place.dir, &facts), 0);
    cr_assert(facts.read_only);
    cr_assert_eq(ops->file_open(place.dir, "f", QR_FILE_WRITE, &file), -EROFS);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), -EROFS);
    struct qr_dir *dir = os_place_dir(&place, QR_DIR_READ_ONLY);
    cr_assert_eq(ops->dir_lock(dir, "lock", true, &pid), 0);
    cr_assert_eq(mount(NULL, mounted, NULL, MS_REMOUNT, NULL), 0);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), -EWOULDBLOCK); /* LOCK-3 */
    cr_assert_eq(mount(NULL, mounted, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    cr_assert_eq(ops->file_open(dir, "f", 0, &file), 0);
    ops->file_close(file);
    ops->dir_close(dir);
    cr_assert_eq(mount(NULL, mounted, NULL, MS_REMOUNT, NULL), 0);
    os_place_close(&place);
    unmount_small();
}

/* ---- Denied system calls ---------------------------------------------------------------------------------------- */

#if defined(__x86_64__) || defined(__aarch64__)

/* From now on the call answers the error; if `third` is not 0, only with that third argument. */
static void deny(long call, uint32_t third, int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 third != 0 ? offsetof(struct seccomp_data, args[2]) : offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, third != 0 ? third : (uint32_t)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void transfer_some(const struct os_place *place)
{
    struct qr_file *file = os_place_file(place, "t", MAKE);
    static uint8_t bytes[100][512];
    struct qr_io ios[100];
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 100; i++) {
            if (round == 0)
                memset(bytes[i], (int)i, 512);
            ios[i] = (struct qr_io){round == 0 ? QR_IO_WRITE : QR_IO_READ, file, i * 512, bytes[99 - i], 512, -1};
            ios[i].memory = bytes[i];
        }
        cr_assert_eq(place->disk->ops->transfer(place->disk, ios, 100), 0);
        for (unsigned i = 0; i < 100; i++)
            cr_assert_eq(ios[i].result, 512, "part %u: %lld", i, (long long)ios[i].result);
        if (round == 0)
            memset(bytes, 0xff, sizeof(bytes));
    }
    for (unsigned i = 0; i < 100; i++)
        cr_assert_eq(bytes[i][511], i);
    place->disk->ops->file_close(file);
}

static void without_rings(long call, int error)
{
    struct os_place place;
    struct qr_disk_counts counts;

    deny(call, 0, error);
    os_place_open(&place, OS_URING);
    cr_assert_str_eq(place.disk->name, "posix");
    transfer_some(&place);
    qr_disk_counts(place.disk, &counts);
    cr_assert_eq(counts.ring_operations, 0);
    os_place_close(&place);
}

Test(os_system, rings_that_are_not_permitted_are_done_without)
{
    without_rings(SYS_io_uring_setup, EPERM);
}

Test(os_system, rings_that_the_kernel_has_not_are_done_without)
{
    without_rings(SYS_io_uring_setup, ENOSYS);
}

Test(os_system, rings_without_memory_are_done_without)
{
    without_rings(SYS_io_uring_setup, ENOMEM);
}

Test(os_system, rings_that_may_be_made_and_not_used_are_done_without)
{
    without_rings(SYS_io_uring_enter, EPERM);
}

Test(os_system, a_ring_that_fails_later_is_done_without)
{
    struct os_place place;

    os_place_open(&place, OS_URING);
    transfer_some(&place);
    deny(SYS_io_uring_enter, 0, EPERM);
    transfer_some(&place);
    transfer_some(&place);
    os_place_close(&place);
}

Test(os_system, a_ring_that_is_short_of_memory_once_is_made_again)
{
    struct os_place place;

    os_place_open(&place, OS_URING);
    deny(SYS_io_uring_enter, 0, EAGAIN);
    transfer_some(&place);
    transfer_some(&place);
    os_place_close(&place);
}

/* LOCK-4 */
static void without_directory_locks(int error)
{
    struct os_place place;
    int64_t pid = 0;

    deny(SYS_flock, 0, error);
    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    struct qr_dir *dir = os_place_dir(&place, 0), *reader = os_place_dir(&place, QR_DIR_READ_ONLY);
    cr_assert_eq(ops->dir_lock(dir, "lock", false, &pid), 0);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), -EWOULDBLOCK);
    cr_assert_eq(pid, getpid());
    cr_assert_eq(ops->dir_lock(reader, "lock", true, &pid), -EWOULDBLOCK);
    ops->dir_close(dir);
    cr_assert_eq(ops->dir_lock(reader, "lock", true, &pid), 0);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), -EWOULDBLOCK);
    ops->dir_close(reader);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), 0);
    os_place_close(&place);
}

Test(os_system, without_locks_of_directories_that_of_the_file_counts)
{
    without_directory_locks(EOPNOTSUPP);
}

Test(os_system, without_locks_of_directories_in_the_kernel_that_of_the_file_counts)
{
    without_directory_locks(ENOSYS);
}

Test(os_system, a_lock_of_the_directory_that_fails_otherwise_is_a_failure)
{
    struct os_place place;
    int64_t pid = 0;

    deny(SYS_flock, 0, ENOMEM);
    os_place_open(&place, OS_POSIX);
    cr_assert_eq(place.disk->ops->dir_lock(place.dir, "lock", false, &pid), -ENOMEM);
    os_place_close(&place);
}

#define POPULATE_WRITE 23u

Test(os_system, an_old_kernel_makes_mappings_writable_too)
{
    struct os_place place;
    void *memory = NULL;

    deny(SYS_madvise, POPULATE_WRITE, EINVAL);
    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    struct qr_file *file = os_place_filled(&place, "f", 65536);
    cr_assert_eq(ops->file_map(file, 0, 65536, &memory), 0);
    cr_assert_eq(madvise(memory, 4096, POPULATE_WRITE), -1);
    cr_assert_eq(ops->file_populate(file, memory, 65536), 0);
    os_check_pattern(memory, 65536, 0);
    ops->file_unmap(file, memory, 65536);
    ops->file_close(file);
    os_place_close(&place);
}

Test(os_system, an_old_kernel_tells_of_a_full_disk_too)
{
    deny(SYS_madvise, POPULATE_WRITE, EINVAL);
    full_disk(OS_POSIX);
}

#endif

Test(os_system, without_locked_memory_everything_goes_on)
{
    struct os_place place;
    struct qr_disk *disk = NULL;

    os_place_open(&place, OS_POSIX);
    struct qr_file *file = os_place_filled(&place, "f", 65536);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        uint8_t bytes[2][100];
        bool right = setrlimit(RLIMIT_MEMLOCK, &none) == 0;
        if (getuid() == 0)
            right &= setuid(65534) == 0; /* root is not held to it */
        struct qr_io ios[2] = {{QR_IO_READ, file, 0, bytes[0], 100, -1}, {QR_IO_READ, file, 100, bytes[1], 100, -1}};
        right &= qr_disk_open(true, &disk) == 0;
        right &= qr_disk_transfer(disk, ios, 2) == 0 && bytes[1][0] == os_pattern(100);
        disk->ops->disk_free(disk);
        _exit(right ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    place.disk->ops->file_close(file);
    os_place_close(&place);
}

/* ---- Signals and deaths ----------------------------------------------------------------------------------------- */

static void on_alarm(int signal)
{
    (void)signal;
}

Test(os_system, signals_interrupt_no_transfer)
{
    struct os_place place;
    struct sigaction action = {.sa_handler = on_alarm}; /* without SA_RESTART */
    struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
    static uint8_t bytes[80][4096];
    struct qr_io ios[80];
    struct qr_disk_counts counts;

    os_place_open(&place, OS_URING);
    struct qr_file *file = os_place_file(&place, "f", MAKE);
    cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
    cr_assert_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 80; i++) {
            enum qr_io_kind kind = i % 20 == 19 ? QR_IO_SYNC : QR_IO_WRITE;
            ios[i] = (struct qr_io){kind, file, i * 4096, bytes[i], 4096, -1};
        }
        cr_assert_eq(qr_disk_transfer(place.disk, ios, 80), 0);
    }
    cr_assert_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
    qr_disk_counts(place.disk, &counts);
    if (strcmp(place.disk->name, "uring") == 0)
        cr_assert_eq(counts.ring_operations, 20 * 80); /* the ring was not given up */
    place.disk->ops->file_close(file);
    os_place_close(&place);
}

Test(os_system, a_lock_goes_with_a_killed_process)
{
    struct os_place place;
    int64_t pid = 0;
    int ready[2];
    char byte;

    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct qr_dir *dir = NULL;
        bool right =
            ops->dir_open(place.disk, place.path, 0, &dir) == 0 && ops->dir_lock(dir, "lock", false, &pid) == 0;
        if (right && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), -EWOULDBLOCK);
    cr_assert_eq(pid, child);
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), 0);
    os_place_close(&place);
}

/* LOCK-1 */
Test(os_system, a_lock_stays_with_a_child_that_outlives_a_killed_process)
{
    struct os_place place;
    int64_t pid = 0;
    int told[2], leave[2];
    char byte = 'x';

    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    cr_assert_eq(pipe(told), 0);
    cr_assert_eq(pipe(leave), 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct qr_dir *dir = NULL;
        if (ops->dir_open(place.disk, place.path, 0, &dir) != 0 || ops->dir_lock(dir, "lock", false, &pid) != 0)
            _exit(1);
        if (fork() != 0)
            pause();
        close(leave[1]);
        if (write(told[1], "x", 1) == 1 && read(leave[0], &byte, 1) == 1)
            ops->dir_close(dir);
        if (write(told[1], "x", 1) == 1 && read(leave[0], &byte, 1) >= 0)
            _exit(0); /* the test has ended */
    }
    close(leave[0]);
    cr_assert_eq(read(told[0], &byte, 1), 1);
    cr_assert_eq(kill(parent, SIGKILL), 0);
    cr_assert_eq(waitpid(parent, NULL, 0), parent);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), -EWOULDBLOCK);
    cr_assert_eq(pid, parent);
    cr_assert_eq(write(leave[1], "x", 1), 1);
    cr_assert_eq(read(told[0], &byte, 1), 1);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), 0);
    os_place_close(&place);
    close(leave[1]);
}

Test(os_system, a_lock_that_was_closed_is_free_though_a_child_lives_on)
{
    struct os_place place;
    int64_t pid;

    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    struct qr_dir *dir = os_place_dir(&place, 0);
    cr_assert_eq(ops->dir_lock(dir, "lock", false, &pid), 0);
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    ops->dir_close(dir);
    cr_assert_eq(ops->dir_lock(place.dir, "lock", false, &pid), 0);
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    os_place_close(&place);
}

Test(os_system, a_direct_file_says_how_it_is_aligned)
{
    struct os_place place;
    struct qr_file_facts direct, plain;

    os_place_open(&place, OS_POSIX);
    const struct qr_disk_ops *ops = place.disk->ops;
    struct qr_file *file = os_place_file(&place, "f", MAKE | QR_FILE_DIRECT);
    cr_assert_eq(ops->file_facts(file, &direct), 0);
    uint32_t align = direct.direct_align_bytes;
    cr_assert_eq(align & (align - 1), 0);
    ops->file_close(file);
    file = os_place_file(&place, "f", 0);
    cr_assert_eq(ops->file_facts(file, &plain), 0);
    cr_assert(plain.direct_align_bytes == align || plain.direct_align_bytes == 0);
    ops->file_close(file);
    os_place_close(&place);
}
