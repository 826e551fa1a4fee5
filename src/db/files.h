/*
 * files.h: the files of a database: directory, lock, manifest, log; and what recovery found.
 *
 * Layer 6. A database in memory has none: db->files is NULL.
 *
 *     disk, directory, lock | manifest | log segments listed | replay into the trees | incarnation recorded | log begun
 *
 * RECOVER-1  Nothing is written to the directory before the lock is held and its contents are known to be ours.
 * RECOVER-2  The tail is above every segment that is there before the first record is replayed, so collection takes every
 *            replayed version for old, and LSNs are not used twice.
 * RECOVER-3  What replay decided is synced, then the incarnation's record is, and then the first user is answered (R8).
 * RECOVER-4  The record of an incarnation has the end of the one before; what stands behind that end is dead (R7). One without
 *            log has a range of LSNs in the same rewrite of the manifest (unlogged.c).
 * RECOVER-5  Files that nothing needs are removed when the incarnation is recorded. Where there is much space the thread does it that
 *            makes checkpoints, and the opening does not wait for the disk; else the opening does, before the log takes space:
 *            what fills a disk may be just these. Free space may be less than is said (a quota), so who finds none removes them
 *            first, for as long as it may wait, and a checkpoint comes after them. Not before: until the manifest is written anew its name may still go back to an older
 *            one, after a rename whose sync failed, which names other files; and where the log ends is not decided, so that
 *            an opening by another mount may come to frames, and their large values, that this one has passed over.
 */
#ifndef QR_DB_FILES_H
#define QR_DB_FILES_H

#include <pthread.h>
#include <stdbool.h>

#include "log/replay.h"
#include "os/disk.h"
#include "os/thread.h"
#include "store/records.h"

struct quire;
struct qr_thread;

/* What the opening did. */
struct qr_recovery {
    uint64_t ns;
    uint64_t last_lsn; /* of the records that were replayed; 0: none */
    uint64_t applied, refused; /* records; refused: undecided ones whose condition did not hold */
    struct qr_replay_result log;
};

struct qr_db_files {
    struct quire *db;
    struct qr_disk *disk;
    bool owns_disk;
    bool read_only;
    struct qr_dir *dir;
    char *temporary_path; /* not NULL: of a temporary store, which is removed when it is closed */
    struct qr_manifest *manifest;
    pthread_mutex_t manifest_mutex; /* of what is written to it after the opening; taken last */
    struct qr_manifest_store settings;
    uint64_t lsn_range_end; /* LSNs below it may have been given out without a log; 0: there was always one */
    struct qr_incarnation *incarnations; /* all, oldest first; the last one is ours, unless read-only */
    uint32_t incarnation_count;
    uint64_t incarnation_capacity;
    struct qr_recovery recovery;

    /* leftovers.c. The mutex is taken after the checkpointer's. */
    pthread_mutex_t leftovers_mutex; /* of these, and of what the page store has found */
    struct qr_log_list old;          /* segments of older incarnations */
    uint64_t old_needed_from;        /* no frame below it is needed */
    _Atomic uint64_t removed_ns;     /* when the last file was removed; 0: none */
    _Atomic uint64_t old_log_bytes;  /* of those segments that are still there */
    _Atomic uint32_t clears_later;   /* 1: the opening has left them to others, who have not ended yet */

    /* The thread that syncs and makes room. */
    pthread_t thread;
    bool thread_runs;
    struct qr_event wake;
};

/* Opens the files of db->options and `path`, without reading the log. disk: NULL, or one to use instead of the machine's, which
 * stays the caller's. Sets db->files, also on failure, for qr_db_files_close. */
int qr_db_files_open(struct quire *db, const char *path, struct qr_disk *disk);

/* struct qr_tree_ops, during recovery. */
int qr_db_image_max_lsn(void *context, uint64_t pid, uint64_t *ret_max_lsn);

/* Replays the log into the trees and begins the new incarnation. The catalogue is open and empty. */
int qr_db_recover(struct quire *db, struct qr_thread *thread);

/* Begins and ends the thread that syncs; without background threads there is none. */
int qr_db_log_thread_start(struct quire *db);
void qr_db_log_thread_stop(struct quire *db);

/* A slice of what that thread does, by whoever drives the database; tells what is to be told. 0 or a failure without detail of
 * interest. */
int qr_db_log_work(struct quire *db);

void qr_db_files_close(struct quire *db);

/* Random bytes of the kernel, for ids and salts. 0 or a negated errno. */
int qr_db_random(void *context, void *memory, size_t size);

/* Writes the manifest anew with what is in force, and these two (NULL: none new). Under the manifest's mutex. */
int qr_db_rewrite_manifest(struct quire *db, const struct qr_manifest_incarnation *incarnation,
                           const struct qr_manifest_checkpoint *checkpoint);

/* ---- What nothing needs (leftovers.c) --------------------------------------------------------------------------- */

/* RECOVER-5: they are known; removes them, or leaves that to others. By the opening. */
void qr_db_leftovers_found(struct quire *db);

/* Whether they were left to others, who have not ended yet. Any thread. */
bool qr_db_clears_later(const struct quire *db);

/* Removes what can be removed, and waits for others who do. Any thread, outside slots and sections. */
void qr_db_clear_leftovers(struct quire *db);

/* As qr_db_clear_leftovers, for somebody who has found no space, and not for longer than that and one file more: whether there is some
 * that was not there a moment ago. */
bool qr_db_give_up_leftovers(struct quire *db, uint64_t most_ms);

/* No frame of the old log below an LSN is needed any more. Under the checkpointer's mutex. */
void qr_db_release_old_log(struct quire *db, uint64_t lsn);

/* Bytes of segments of older incarnations that are still there. Any thread. */
uint64_t qr_db_old_log_bytes(const struct quire *db);

/* ---- Removal (destroy.c) ---------------------------------------------------------------------------------------- */

#define QR_LOCK_NAME "lock"

/* The failure of dir_lock, told: BUSY with what is known of who has it, or IO. */
int qr_db_fail_lock(int error, int64_t pid);

/* As quire_destroy, on a disk; keep_directory: it stays, empty. */
int qr_db_destroy(struct qr_disk *disk, const char *path, bool keep_directory);

/* Removes the files of a temporary store, as far as they can be: of its segments none, or its manifest stays. */
void qr_db_remove_temporary(struct qr_dir *dir);

#endif
