/*
 * facts.c: what the kernel tells about directories and files.
 *
 * Layer 1. Any thread, waits for nothing but the kernel.
 */
#include "os/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/alloc.h"

/* Since Linux 6.8: the number of a mount is never given to another. Older kernels leave the bit out of their answer. */
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000u
#endif

#ifndef F2FS_SUPER_MAGIC
#define F2FS_SUPER_MAGIC 0xF2F52010
#endif

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

/* The alignment that every file system with direct I/O takes; for kernels that do not tell theirs. */
#define DIRECT_ALIGN_BYTES 4096u

static int ask(int fd, unsigned mask, struct statx *ret_answer)
{
    return statx(fd, "", AT_EMPTY_PATH, mask, ret_answer) != 0 ? -errno : 0;
}

/* ---- Directories ------------------------------------------------------------------------------------------------ */

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 32 hexadecimal digits among dashes. */
static bool parse_boot_id(const char *text, size_t size, uint8_t *ret_id)
{
    uint8_t id[16] = {0};
    unsigned digits = 0;
    for (size_t i = 0; i < size && digits < 32; i++) {
        int digit = digit_of(text[i]);
        if (digit < 0)
            continue;
        id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | digit);
        digits++;
    }
    if (digits == 32)
        memcpy(ret_id, id, sizeof(id));
    return digits == 32;
}

/*
 * Zero where there is no such file or none for us. Other failures go up: with "not known" in place of "too many open
 * files" a database would take the death of a process for a loss of power, and drop what it had acknowledged.
 */
static int read_boot_id(uint8_t *ret_id)
{
    char text[64];
    memset(ret_id, 0, 16);
    int fd = open(BOOT_ID_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == EPERM ? 0 : -errno;
    ssize_t size = read(fd, text, sizeof(text));
    int error = size < 0 ? -errno : 0;
    close(fd);
    if (error == 0)
        (void)parse_boot_id(text, (size_t)size, ret_id);
    return error;
}

/* Whether stores into shared mappings behave there: errors come when space is made, the rest is the page cache. */
static bool is_mappable(const struct statfs *system)
{
    switch ((uint32_t)system->f_type) {
    case EXT4_SUPER_MAGIC: /* ext2 and ext3 too */
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
        return true;
    default:
        return false;
    }
}

int qr_posix_dir_facts(struct qr_dir *base, struct qr_dir_facts *ret_facts)
{
    struct qr_posix_dir *dir = qr_posix_dir(base);
    struct qr_dir_facts facts = {{0}};
    struct statx answer;
    struct statfs system;
    struct statvfs mount;
    struct rlimit limit;

    int error = ask(dir->fd, STATX_INO | STATX_MNT_ID | STATX_MNT_ID_UNIQUE, &answer);
    if (error != 0)
        return error;
    error = read_boot_id(facts.boot_id);
    if (error != 0)
        return error;
    if (fstatfs(dir->fd, &system) != 0 || fstatvfs(dir->fd, &mount) != 0 || getrlimit(RLIMIT_FSIZE, &limit) != 0)
        return -errno;
    facts.device = makedev(answer.stx_dev_major, answer.stx_dev_minor);
    if ((answer.stx_mask & (STATX_MNT_ID | STATX_MNT_ID_UNIQUE)) != 0)
        facts.mount_id = answer.stx_mnt_id;
    facts.inode = answer.stx_ino;
    facts.can_map = is_mappable(&system) && limit.rlim_cur == RLIM_INFINITY;
    facts.read_only = (mount.f_flag & ST_RDONLY) != 0;
    *ret_facts = facts;
    return 0;
}

int qr_posix_dir_free_bytes(struct qr_dir *dir, uint64_t *ret_bytes)
{
    struct statvfs mount;
    if (fstatvfs(qr_posix_dir(dir)->fd, &mount) != 0)
        return -errno;
    if (mount.f_blocks == 0)
        return -EOPNOTSUPP;
    uint64_t blocks = geteuid() == 0 ? mount.f_bfree : mount.f_bavail; /* some are kept for root */
    return __builtin_mul_overflow(blocks, (uint64_t)mount.f_frsize, ret_bytes) ? -EOPNOTSUPP : 0;
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

/* Whether the kernel told; then what it told. */
static bool direct_align_of(const struct statx *answer, uint32_t *ret_align_bytes)
{
#ifdef STATX_DIOALIGN
    if ((answer->stx_mask & STATX_DIOALIGN) == 0)
        return false;
    uint32_t memory = answer->stx_dio_mem_align, offset = answer->stx_dio_offset_align;
    *ret_align_bytes = memory == 0 || offset == 0 ? 0 : memory > offset ? memory : offset;
    return true;
#else
    (void)answer;
    (void)ret_align_bytes;
    return false;
#endif
}

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0u
#endif

int qr_posix_file_facts(struct qr_file *base, struct qr_file_facts *ret_facts)
{
    struct qr_posix_file *file = qr_posix_file(base);
    struct qr_file_facts facts = {0};
    struct statx answer;

    int error = ask(file->fd, STATX_BASIC_STATS | STATX_DIOALIGN, &answer);
    if (error != 0)
        return error;
    facts.size_bytes = answer.stx_size;
    facts.allocated_bytes = answer.stx_blocks * 512;
    facts.inode = answer.stx_ino;
    facts.regular = S_ISREG(answer.stx_mode);
    if (file->asked_direct)
        facts.direct_align_bytes = file->direct_align_bytes;
    else
        (void)direct_align_of(&answer, &facts.direct_align_bytes);
    *ret_facts = facts;
    return 0;
}

/* Some file systems take the flag and refuse the reads. */
static bool can_read_direct(int fd)
{
    void *memory = qr_malloc_aligned(DIRECT_ALIGN_BYTES, DIRECT_ALIGN_BYTES);
    if (memory == NULL)
        return false;
    bool can = pread(fd, memory, DIRECT_ALIGN_BYTES, 0) >= 0 || errno != EINVAL;
    qr_free_aligned(memory);
    return can;
}

int qr_posix_set_direct(int fd, uint32_t *ret_align_bytes)
{
    struct statx answer;
    uint32_t align_bytes = 0;

    int error = ask(fd, STATX_DIOALIGN, &answer);
    if (error != 0)
        return error;
    bool told = direct_align_of(&answer, &align_bytes);
    if ((told && align_bytes == 0) || fcntl(fd, F_SETFL, O_DIRECT) != 0) {
        *ret_align_bytes = 0;
        return 0;
    }
    if (!told) {
        align_bytes = can_read_direct(fd) ? DIRECT_ALIGN_BYTES : 0;
        if (align_bytes == 0 && fcntl(fd, F_SETFL, 0) != 0)
            return -errno;
    }
    *ret_align_bytes = align_bytes;
    return 0;
}
