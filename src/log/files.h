/*
 * files.h: the files behind the log: segments, how far it is provisioned, how far it is durable.
 *
 * Layer 3. A segment is a file of one size, a header of 4 KiB and frames; it stands for the LSNs [start, end) with start and end
 * in its header. Segments of an incarnation follow one another without gaps.
 *
 * FILES-1  A reservation enters a segment only after its header (start, incarnation, salt) was synced, and its name, and its
 *          zeros: provisioning raises ready_end after that.
 * FILES-2  durable_end is the end of a prefix of the log that survives power loss; written_end of one that survives the death of
 *          the process. Both only grow. Only the thread that has `syncing` raises them.
 * FILES-3  The first failed sync of frames, or of the directory for a new segment, or failed write of a buffered log, is final:
 *          `failure` holds it, nothing is synced again and called durable, and durable_end stays where a sync that was under way
 *          leaves it. The segments are marked, so that recovery in the same boot does not take what the page cache shows for what
 *          the disk has.
 * FILES-4  What stands in old incarnations is read by recovery only.
 * FILES-5  A file system may keep what one call wrote as one unit of its cache, and write the whole unit for a byte that is stored
 *          into it. So where syncs come often the zeros of a segment are written page by page: a lone commit writes one page
 *          instead of 64 KiB. Elsewhere, where each unit is filled before it is synced, they are written by 64 KiB, since each
 *          unit costs the kernel some microseconds. A segment is used again for work of its kind only, but for the reserve.
 * FILES-6  From some size of the store on (qr_log_keep_reserve) a file is kept ready that no writes but deletions, and what
 *          is under way, make a segment of, when there is neither a spare one nor space for a new one. Without it the log is
 *          short of space: other writes are refused until there is one again. Its header is that of LSNs that are over, or
 *          of none.
 *
 * Two implementations. Mapped: the segment's memory is a shared mapping, so a frame survives the process with its last store.
 * Buffered, where mappings are not safe: the memory is the process's own, and whoever needs the frames to survive writes the
 * stable prefix out, one thread at a time for all that wait.
 *
 * Waits: qr_log_provision for the disk, one thread at a time; qr_log_wait for the disk, and for slots open below the LSN.
 */
#ifndef QR_LOG_FILES_H
#define QR_LOG_FILES_H

#include <pthread.h>

#include <quire/quire.h>

#include "log/log.h"
#include "os/disk.h"
#include "os/thread.h"

#define QR_LOG_HEADER_BYTES 4096u
#define QR_LOG_SEGMENT_LEAST 16384u /* all are that large, times a power of two */
#define QR_LOG_RING 1024u
#define QR_LOG_NAME_BYTES 20u

/* How a log is laid out; zero fields are the defaults. */
struct qr_log_options {
    uint64_t first_segment_bytes; /* 256 KiB; a power of two */
    uint64_t most_segment_bytes;  /* 64 MiB */
    uint32_t frame_cap_bytes;     /* 64 KiB, at most a quarter of a segment's room */
    bool buffered;                /* do not map, whatever the disk says */
    uint8_t store_id[16];
    int (*random)(void *context, void *ret_bytes, size_t size); /* for salts; 0 or a negative result */
    void (*wake)(void *context); /* there is something to do for qr_log_work; any thread, in a slot window */
    /* Called before each sync: what frames name beside the log is to be durable before they are. 0 or a negated errno, which
     * is as that of the sync. */
    int (*before_sync)(void *context);
    void *context;
};

/* The header of a segment, as it stands in its first bytes; the checksum is that of what comes before it. */
struct qr_log_header {
    uint8_t magic[8]; /* "QUIRELOG" */
    uint32_t format;  /* 1 */
    uint32_t salt;
    uint64_t start, end; /* LSNs; end - start is the size of the file */
    uint64_t incarnation;
    uint8_t store_id[16];
    /* Where and when it was written: for the rule of the same boot (R12). */
    uint8_t boot_id[16];
    uint64_t device, mount_id, inode;
    uint32_t attempt; /* to make a segment; grows. Of two of an incarnation that overlap the later one counts */
    uint32_t crc;
    uint32_t poisoned; /* not under the checksum: a sync of this log has failed */
    uint32_t unused;
};
#define QR_LOG_FORMAT 1u
#define QR_LOG_LSN_MOST (UINT64_C(1) << 62) /* more is not believed: sums with it do not overflow */

struct qr_log_segment {
    uint64_t start, end;
    uint8_t *memory;
    struct qr_file *file;
    uint32_t number, salt;
    bool mapped;
    bool idle;                   /* it stands for no LSNs */
    bool fine;                   /* its zeros were written page by page (FILES-5) */
    struct qr_log_segment *next; /* of the spare ones */
};

struct qr_log_files {
    struct qr_log *log;
    struct qr_epoch *epoch;
    struct qr_dir *dir;
    struct qr_dir_facts facts;
    struct qr_log_options options;
    uint64_t incarnation, first_lsn;
    _Atomic uint64_t step; /* qr_log_set_step */

    _Atomic uint32_t called; /* 1: options.wake was called and qr_log_work has not come yet */

    /* Held while a segment is made, which may take long; taken before `mutex`. */
    pthread_mutex_t make_mutex;
    uint32_t next_number, attempts;
    struct qr_log_segment *spares; /* released segments that the next ones are made of; the last released first */
    uint64_t spare_bytes;
    bool fine;                     /* what the last segment was chosen to be, and where the log was then */
    uint64_t chosen_lsn, chosen_syncs;
    struct qr_log_segment *reserve; /* FILES-6; NULL: none */
    bool keeps_reserve;
    uint64_t reserve_failed_ns;    /* when it could not be made; monotonic */

    /* Segments by order of their LSNs: ring[i % QR_LOG_RING] for first <= i < next. Changed under the mutex. */
    pthread_mutex_t mutex;
    _Atomic(struct qr_log_segment *) ring[QR_LOG_RING];
    _Atomic uint64_t first, next;

    /* Sync. */
    QR_CACHE_ALIGNED _Atomic uint32_t syncing;
    _Atomic int failure; /* a negated errno; 0: none */
    _Atomic uint64_t written_end, durable_end;
    struct qr_event synced;
    _Atomic uint64_t last_sync_ns;

    /* Statistics. */
    _Atomic uint64_t syncs, segments_made, segments_recycled, provision_waits;
    _Atomic uint64_t size_bytes; /* of the segment files of this incarnation */
};

/* ---- Life ------------------------------------------------------------------------------------------------------- */

/*
 * Gives the log files: its tail is at the start of a first new segment at `start_lsn`, a boundary above every segment that is
 * there, and it belongs to `incarnation`, whose record the caller has made durable. first_number: above those of all files that
 * are there. 0; NO_MEMORY, NO_SPACE, IO with the detail set.
 */
int qr_log_open(struct qr_log *log, struct qr_epoch *epoch, struct qr_dir *dir, const struct qr_log_options *options,
                uint64_t incarnation, uint64_t start_lsn, uint32_t first_number);

/* Frees what qr_log_open made; nothing is synced. Nobody else uses the log. */
void qr_log_close(struct qr_log *log);

/* ---- Room ------------------------------------------------------------------------------------------------------- */

/* Makes room for every writer's next frame. Outside slots and sections. 0, or a negative result with the detail: NO_SPACE, IO,
 * NO_MEMORY. Any thread. may_use_reserve: for a deletion. */
int qr_log_provision(struct qr_log *log, bool may_use_reserve);

/* How much is made ready at a time, at most: little where that may be more than there is space to save. Any thread. */
void qr_log_set_step(struct qr_log *log, uint64_t bytes);

/* From now on a reserve is kept; qr_log_work makes it. Any thread. */
void qr_log_keep_reserve(struct qr_log *log);

/* The log is short of space: 0 if there is a reserve again, else a failure. Outside slots and sections. */
int qr_log_regain(struct qr_log *log);

/* Removes the segments that are kept to be used again, for somebody who finds no space; not the reserve. Whether there were any. Any
 * thread. */
bool qr_log_drop_spares(struct qr_log *log);

/* Whether it has as many segments as it can have: then provisioning answers NO_SPACE until some are released. */
bool qr_log_is_full(const struct qr_log *log);

/* What a background thread does for the log: room ahead, so that writers find it. As qr_log_provision. */
int qr_log_work(struct qr_log *log);

/* Writes key and value of a large write to PARTs (qr_log_is_large) and names them in the frame. Outside slots and sections. False:
 * there is no room; call again when qr_log_provision has made some. *done: bytes that are written, 0 at first. */
bool qr_log_write_parts(struct qr_log *log, struct qr_thread *thread, struct qr_frame *frame, uint64_t *done);

/* Every frame below `lsn` is not needed any more (rule R3 is the caller's): segments below are recycled or removed. */
int qr_log_release(struct qr_log *log, uint64_t lsn);

/* ---- Durability ------------------------------------------------------------------------------------------------- */

enum qr_log_level {
    QR_LOG_PROCESS = 1, /* survives the death of the process */
    QR_LOG_DURABLE = 2, /* survives power loss */
};

/*
 * Returns when the frame at lsn, and all before it, survive what the level says. 0; a negative result: the log has failed, and
 * it is unknown whether they do. Outside slots. Any thread.
 */
int qr_log_wait(struct qr_log *log, uint64_t lsn, enum qr_log_level level);

/* At once, for a mapped log at PROCESS. */
static inline bool qr_log_survives(const struct qr_log *log, uint64_t lsn, enum qr_log_level level)
{
    const struct qr_log_files *files = log->files;
    if (files == NULL || (level == QR_LOG_PROCESS && !files->options.buffered)) return true;
    /* order: log.durable.read pairs with log.durable.raise */
    return lsn < atomic_load_explicit(level == QR_LOG_PROCESS ? &files->written_end : &files->durable_end,
                                      memory_order_acquire);
}

/* All frames below it survive power loss. */
uint64_t qr_log_durable_end(const struct qr_log *log);

/* The LSN at which this incarnation began. */
static inline uint64_t qr_log_first_lsn(const struct qr_log *log)
{
    return log->files->first_lsn;
}

/* When the last sync ended, or the log was opened; monotonic. */
uint64_t qr_log_last_sync_ns(const struct qr_log *log);

/* The first failure, a negated errno; 0: none. Writes are refused then. */
static inline int qr_log_failure(const struct qr_log *log)
{
    if (log->files == NULL) return 0;
    /* order: log.failure.read pairs with log.failure.set */
    return atomic_load_explicit(&log->files->failure, memory_order_acquire);
}

/* What the log has done since it was opened, and its size; zeros without files. Any thread, waits for nothing. */
struct qr_log_counts {
    uint64_t syncs, segments_made, segments_recycled, provision_waits;
    uint64_t size_bytes, segments; /* that there are */
};
void qr_log_counts(const struct qr_log *log, struct qr_log_counts *ret_counts);

/* ---- Inside ----------------------------------------------------------------------------------------------------- */

/* Under make_mutex: makes a segment of `size_bytes` at `start`, or of a spare one, in the size that it has. 0 or a negative
 * result with the detail. */
int qr_log_segment_make(struct qr_log_files *files, uint64_t start, uint64_t size_bytes,
                        struct qr_log_segment **ret_segment);
/* Under make_mutex: makes a file that a segment can be made of later, by the next. */
int qr_log_segment_make_idle(struct qr_log_files *files, uint64_t size_bytes, struct qr_log_segment **ret_segment);
/* Under make_mutex: the segment, which is in no ring, goes on at `start`. 0; a negative result with the detail: it is gone, and its
 * file too, as far as it can be. */
int qr_log_segment_use_again(struct qr_log_files *files, struct qr_log_segment *segment, uint64_t start);
void qr_log_segment_free(struct qr_log_segment *segment);
/* Under make_mutex: frees a segment that is in no ring any more, and removes its file. 0 or a negated errno, with the detail. */
int qr_log_segment_remove(struct qr_log_files *files, struct qr_log_segment *segment);
/* Under make_mutex: takes a spare segment out; there is one. */
struct qr_log_segment *qr_log_spare_pop(struct qr_log_files *files);
/* Under the mutex: puts it behind the last one. False: the ring is full. */
bool qr_log_segment_add(struct qr_log_files *files, struct qr_log_segment *segment);
struct qr_log_segment *qr_log_segment_last(const struct qr_log_files *files);
/* Under the mutex: the one that has lsn. There is one: lsn is below the end of the last. */
struct qr_log_segment *qr_log_segment_with(const struct qr_log_files *files, uint64_t lsn);
/* Fails the log for good. */
void qr_log_fail(struct qr_log_files *files, int error);

/* Marks a segment: the page cache proves nothing about it any more (R12). */
int qr_log_segment_mark(struct qr_file *file);

void qr_log_file_name(uint32_t number, char *ret_name);
/* A detail and a result for a negated errno of the disk. */
int qr_log_disk_failure(int error, const char *what, uint32_t number);

#endif
