/*
 * simdisk.h: a disk in memory that fails and loses power.
 *
 * Test library. It implements the table of os/disk.h. What a process sees (the page cache: contents, sizes, names) and
 * what would survive power loss are kept apart; what lies between the two is a log of unsynced operations. A crash
 * makes a new disk out of an old one, which goes on as if nothing had happened: so an image can be taken at every
 * operation of a run.
 *
 *     struct simdisk *disk = simdisk_create();
 *     ... run the engine on simdisk_disk(disk) ...
 *     for (uint64_t i = 0; i < simdisk_unsynced_count(disk); i++) {
 *         struct simdisk *after = simdisk_crash(disk, &(struct simdisk_crash){.mode = SIMDISK_ONE, .one = i});
 *         ... recover on it, compare ...
 *         simdisk_free(after);
 *     }
 *
 * SIMDISK-1  Nothing depends on time, addresses or chance: the same calls with the same seeds give the same disk.
 * SIMDISK-2  Memory that is mapped is the page cache itself. Stores are found by comparison, sector by sector, when
 * somebody asks (a sync, a crash, simdisk_observe): several stores into a sector between two such moments are one.
 * SIMDISK-3  After a sync of a file that failed, what it should have written is lost to later syncs, in one of three ways
 * (facts.failed_sync): enum simdisk_failed_sync below.
 * SIMDISK-4  Space is counted in blocks of 4096 bytes and taken by write, allocate and populate. A store into a mapping where
 * no space was made is kept and counted as a mistake: on a real disk it could be a signal.
 * SIMDISK-5  A sync that is under way when the power goes has done nothing, everything, or any part. That is what crashes
 * before it show: until it has answered all that it covers is unsynced, so DROP is "nothing", KEEP "everything" and RANDOM
 * any part, in any order; for names the same with PREFIX and SUBSET. So an image from the hook before a sync stands for all
 * moments of it, and no other is needed.
 *
 * Not in it: links and special files, directories in directories, the parent's names (a path is a name), time.
 *
 * Threads: any, as disk.h says; one mutex. Crash, faults, hook and facts are the harness's, which is one thread.
 */
#ifndef TEST_LIB_SIMDISK_H
#define TEST_LIB_SIMDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/disk.h"

#define SIMDISK_SECTOR_BYTES 512u
#define SIMDISK_BLOCK_BYTES 4096u
#define SIMDISK_FILE_MAX_BYTES ((uint64_t)256 << 20) /* more answers -EFBIG */

struct simdisk;

struct simdisk *simdisk_create(void);

/* All handles that were opened on it must be closed. */
void simdisk_free(struct simdisk *disk);

/* For the engine. Its disk_free does nothing: the contents outlive the engine. */
struct qr_disk *simdisk_disk(struct simdisk *disk);

/* Directories and files that are open: 0 after a run that leaks none. */
uint64_t simdisk_open_count(const struct simdisk *disk);

/* ---- What it is ------------------------------------------------------------------------------------------------- */

/* What file systems were seen to do when they cannot write what a sync asks for ("Can applications recover from fsync
 * failures?", ATC 2020). Of directories: as CLEAN, always. */
enum simdisk_failed_sync {
    /* ext4, XFS: reads go on seeing the new data, which are called clean: no later sync writes them, unless they are
     * written again. A crash may keep them or not. */
    SIMDISK_FAILED_CLEAN,
    /* Btrfs: the file is again as the last good sync left it, content and size, also in mappings. */
    SIMDISK_FAILED_REVERTS,
    /* ext4 with data=journal: as CLEAN, but the sync answers 0; the next one of that file, by whomever, answers the error, and
     * what it covers is lost in the same way. */
    SIMDISK_FAILED_LATE
};

struct simdisk_facts {
    uint8_t boot_id[16]; /* another one after each power loss */
    uint64_t device, mount_id;
    int64_t pid; /* the text of lock files */
    bool can_map, read_only;
    uint32_t direct_align_bytes; /* 0: not possible */
    uint64_t space_bytes;        /* in all */
    enum simdisk_failed_sync failed_sync;
};

/* To be read and changed. From the start: a disk without limits that can do everything. */
struct simdisk_facts *simdisk_facts(struct simdisk *disk);

uint64_t simdisk_used_bytes(struct simdisk *disk);

/* Sectors that were stored into where no space had been made (SIMDISK-4), up to the last sync or simdisk_observe. */
uint64_t simdisk_mistakes(const struct simdisk *disk);

/* ---- Operations, hooks and faults ------------------------------------------------------------------------------- */

enum simdisk_kind {
    SIMDISK_ANY, /* every operation counts here too */
    SIMDISK_DIR_OPEN,
    SIMDISK_LIST,
    SIMDISK_DIR_SYNC, /* also of the parent, when a directory is made */
    SIMDISK_UNLINK,
    SIMDISK_RENAME,
    SIMDISK_LOCK,
    SIMDISK_OPEN,
    SIMDISK_READ,
    SIMDISK_WRITE,
    SIMDISK_RESIZE,
    SIMDISK_ALLOCATE,
    SIMDISK_SYNC,
    SIMDISK_MAP,
    SIMDISK_POPULATE,
    SIMDISK_TRANSFER, /* parts of transfers, which are a READ, WRITE or SYNC as well */
    SIMDISK_KINDS
};

/* What is about to happen. */
struct simdisk_event {
    uint64_t number; /* of all operations, from 1 */
    enum simdisk_kind kind;
    const char *name; /* of the file or of the directory */
    uint64_t offset, size_bytes;
};

typedef void simdisk_hook(void *context, const struct simdisk_event *event);

/*
 * Called before each operation does anything, without a lock: it may crash the disk, read its contents, set faults. An
 * image from there is one of power lost just before the operation; one of the next call, just after it.
 */
void simdisk_set_hook(struct simdisk *disk, simdisk_hook *hook, void *context);

/* Operations of a kind so far. */
uint64_t simdisk_count(const struct simdisk *disk, enum simdisk_kind kind);

struct simdisk_fault {
    enum simdisk_kind kind;
    uint64_t nth;  /* the n-th of this kind from now on: 1 is the next */
    bool for_good; /* and all after it */
    int error;     /* an errno: EIO, ENOSPC, EINTR ...; 0: a read or write does at most short_bytes, others succeed */
    uint32_t short_bytes;
};

#define SIMDISK_FAULTS_MAX 16u

/* Returns its number, for simdisk_fault_fired. Several may be set; the first that is due decides. */
unsigned simdisk_fault_set(struct simdisk *disk, const struct simdisk_fault *fault);
void simdisk_faults_clear(struct simdisk *disk);

/* How often it made an operation fail or come short. */
uint64_t simdisk_fault_fired(const struct simdisk *disk, unsigned number);

/*
 * What came about on all disks of this process, so that a test can show that it had what it asked for: syncs that failed, by
 * their behaviour, and late errors that were answered; what made crash images differ from the plainest model.
 */
enum simdisk_effect {
    SIMDISK_SYNC_LEFT_CLEAN,
    SIMDISK_SYNC_REVERTED,
    SIMDISK_SYNC_LIED,
    SIMDISK_SYNC_WAS_LATE,
    SIMDISK_TORN_SECTOR, /* sectors with words of several versions */
    SIMDISK_TORN_WRITE,  /* writes of which some sectors survived, and others not */
    SIMDISK_STALE_SECTOR,
    SIMDISK_EFFECTS
};
uint64_t simdisk_effect_count(enum simdisk_effect effect);

/* Files with a late error that no sync has answered yet (SIMDISK_FAILED_LATE). */
uint64_t simdisk_late_count(struct simdisk *disk);

/* ---- Crashes ---------------------------------------------------------------------------------------------------- */

enum simdisk_mode {
    SIMDISK_DEATH, /* of the process: everything stays, unsynced as it is; locks and handles are gone */
    /* Power loss: nothing of the new disk is unsynced, another boot and mount. */
    SIMDISK_DROP,    /* nothing unsynced survives */
    SIMDISK_KEEP,    /* all of it does */
    SIMDISK_ONE,     /* exactly one operation does */
    SIMDISK_BUT_ONE, /* all but one do */
    SIMDISK_RANDOM   /* each unit as after any of the unsynced operations on it, or none of them */
};

/* What arrives whole in a RANDOM crash: to tell from each other who needs which. */
enum simdisk_unit {
    SIMDISK_UNIT_SECTOR,
    SIMDISK_UNIT_WORD,  /* of sectors that were stored into through a mapping 8 bytes each; of others sectors */
    SIMDISK_UNIT_BLOCK, /* 4096 bytes */
    SIMDISK_UNIT_WRITE  /* operations: each survives as a whole or not */
};

/* Creations, unlinks and renames after the last sync of the directory. */
enum simdisk_names {
    SIMDISK_NAMES_AS_MODE, /* DROP none, KEEP all, ONE and BUT_ONE as they are counted, RANDOM a prefix */
    SIMDISK_NAMES_ALL,
    SIMDISK_NAMES_PREFIX, /* the first names_count of them: a journal */
    SIMDISK_NAMES_SUBSET  /* any, by the seed: all that POSIX promises */
};

enum simdisk_sizes {
    SIMDISK_SIZES_AS_MODE, /* DROP synced, KEEP current, ONE and BUT_ONE as the operations say, RANDOM any of them */
    SIMDISK_SIZES_SYNCED,
    SIMDISK_SIZES_CURRENT
};

struct simdisk_crash {
    enum simdisk_mode mode;
    uint64_t one; /* below simdisk_unsynced_count */
    uint64_t seed;
    enum simdisk_names names;
    uint64_t names_count;
    enum simdisk_sizes sizes;
    enum simdisk_unit unit;
    /*
     * Where a write made new space that no sync has covered, and did not arrive itself: by the seed, bytes of files that were
     * deleted or cut, or 0xA5, instead of zeros. So did file systems that wrote sizes before data; space that was allocated,
     * or that resizing left as a hole, reads as zeros on all of them.
     */
    bool stale;
};

/*
 * Unsynced operations: writes, changes of size, sectors stored into, names, in the order in which they happened
 * (stores: were observed). A write is one operation however large; RANDOM tears it.
 */
uint64_t simdisk_unsynced_count(struct simdisk *disk);

/* Takes note of stores into mappings, so that they count as operations of now. */
void simdisk_observe(struct simdisk *disk);

/* The disk after the crash. The old one is as before; faults and hook are not inherited. */
struct simdisk *simdisk_crash(struct simdisk *disk, const struct simdisk_crash *crash);

/* ---- What is on it ---------------------------------------------------------------------------------------------- */

/* Content of a file as a process sees it: NULL if there is none. Valid until the next operation. */
const uint8_t *simdisk_content(struct simdisk *disk, const char *path, const char *name, uint64_t *ret_size_bytes);

/* Damages: changes bytes, or the size, cached and durable alike, without an operation. The file is there. */
void simdisk_damage(struct simdisk *disk, const char *path, const char *name, uint64_t offset, const void *bytes,
                    size_t size);
void simdisk_damage_size(struct simdisk *disk, const char *path, const char *name, uint64_t size_bytes);

#endif
