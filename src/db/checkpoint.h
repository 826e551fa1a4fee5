/*
 * checkpoint.h: making a structurally consistent mapping durable, so that the log before it is not needed any more.
 *
 * Layer 6. One checkpoint at a time, under a mutex. The steps, and why they are enough:
 *
 *     flush S, a few rounds | replay_from | postpone, wait, take S, capture, look again | write S | sync log | commit | record |
 *     release
 *
 * Let S be the pages with a structure change, or new, since their last image; the map keeps it as a set (R2).
 *
 * CHECK-1  At the moment of the capture no structure change was half done: it is the moment between two loads of the slots that
 *          found all closed, with S emptied in between and found empty after them (STRUCTURE-2). So the words of S, and the
 *          images of all other pages, are the structure of that one moment: a page outside S has not changed its bounds, links
 *          or entries since its image.
 * CHECK-2  replay_from is computed before (R1): the open slots and the tail, then the first-unflushed LSN of every page. A page
 *          that is not in S at the capture has had no structure change since, so what it had to say it said itself; frames
 *          installed on it later are at or above the bound of the slots. A page in S is captured with everything up to its
 *          max_lsn, and what was moved to it by a split or merge during the scan is part of that.
 * CHECK-3  The log is synced up to the newest LSN in any image before the record is written, so no image is ahead of the log.
 * CHECK-4  Ids that are free, private, forwarded or in their grace period at the capture are free in the checkpoint (R2).
 * CHECK-5  What the record before named is released when the new one is known to be durable (R3).
 * CHECK-6  At that moment no separator was missing or one too many: a thread without memory leaves a split or a merge half done,
 *          and says so (qr_structure_left). In memory the links lead on; a page on disk is written blind within the bounds of its
 *          entry above, which must be its own; and an entry to a forwarded page leads to an id that CHECK-4 takes for free.
 * CHECK-7  replay_from never falls: what lies below that of the last record is in the images that this record named (CHECK-2), and
 *          so in those of each later one, and the log there may be gone. A page may say that it needs it all the same: one that was
 *          captured keeps its first-unflushed LSN, and one into which another was merged behind the back of the scan has that of
 *          the other.
 * CHECK-8  Without a log contents are those of one LSN C exactly (R14): C is chosen first (qr_db_as_of_begin), then every page
 *          with something to save from up to C is written, and what had no image after that is in S. Until the images of the
 *          capture are made a snapshot keeps what C sees. Pages of trees that were created above C are left out, and their
 *          ids are free; so are large values that were written above C. What is dead before that snapshot is dropped is not
 *          needed at C. So bounds are those of the capture, and contents those of C, in all trees.
 *
 * Waits: for the disk; for structure slots, QUIET_NS at most, then structure changes go on and it tries again.
 */
#ifndef QR_DB_CHECKPOINT_H
#define QR_DB_CHECKPOINT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "os/thread.h"
#include "store/store.h"
#include "tree/structure.h"

struct quire;
struct qr_snapshot;
struct qr_thread;

struct qr_checkpointer {
    pthread_mutex_t mutex; /* of a checkpoint; what follows is under it, or constant */
    struct qr_store *store;
    struct qr_structure structure;
    struct qr_manifest_checkpoint record; /* the last durable one; number 0: none */
    _Atomic uint64_t last_ns;             /* when it ended, or the database was opened */
    _Atomic uint64_t replay_from;         /* of that record: for thresholds */
    _Atomic uint64_t began_at;            /* where the log's tail was when the last one began */
    _Atomic uint64_t room_bytes;          /* qr_db_room_bytes when the last one ended that found too little */
    _Atomic uint64_t looked_ns;           /* when it was last looked whether there is more, and the reserve made whole */
    _Atomic uint64_t count, failures, pages_flushed, retries, longest_postponed_ns;
    _Atomic uint64_t failed_ns;           /* when the last one failed; 0: it did not */
    _Atomic uint64_t failed_in_a_row;     /* since one succeeded */
    _Atomic uint32_t came_further;        /* pages have images since, whether it failed or not */
    _Atomic uint32_t waiting;             /* writers, for one that brings space (SPACE-2) */
    _Atomic uint32_t held;                /* somebody keeps them waiting for long */
    _Atomic uint32_t asked;               /* somebody wants one (quire_checkpoint_start) */
    _Atomic uint64_t blob_mark;           /* bytes of blobs that had been written at its capture */
    uint64_t first_segment_bytes;         /* qr_db_first_segment_bytes, at the opening */
    uint64_t flushed;                     /* pages_flushed, when the last one ended */
    uint64_t written_bytes;               /* of the store, when the last one ended */
    bool unknown; /* a record's outcome is unknown: no more checkpoints */
    /* NO_SPACE: the last one had to use the reserve, or had no space at all: writes but deletions are refused. IO: without a log,
     * it has failed. Both until one succeeds. */
    _Atomic int refusal;

    /* Without a log: the checkpoint under way. */
    uint64_t as_of_lsn;    /* C; 0: none is */
    uint32_t as_of_trees;  /* that there were at C */
    struct qr_snapshot *as_of_place;
    _Atomic uint32_t holding;     /* struct qr_tree_env */
    _Atomic uint64_t durable_end; /* all below is in the last durable one, or was when it was opened */

    pthread_t thread;
    bool thread_runs;
    struct qr_event wake;
};

/* Opens the page store after the manifest was read. */
int qr_db_checkpointer_open(struct quire *db);
void qr_db_checkpointer_close(struct quire *db);

/* A checkpoint. full: all pages are flushed first, so that the next opening replays only what comes now; else those whose structure
 * has changed, and the others only if the log has come half way to its cap. Outside sections. 0 or
 * a failure with its detail. */
int qr_db_checkpoint(struct quire *db, struct qr_thread *thread, bool full);

/* Whether the log has grown so much, or so much time has gone by, that one should be made. */
bool qr_db_checkpoint_is_due(struct quire *db);

/* What writes are refused with because of the last checkpoint: 0, NO_SPACE (deletions are not), IO. */
int qr_db_checkpoint_refusal(const struct quire *db);

/* The size that the log should not exceed. */
uint64_t qr_db_log_cap(struct quire *db);

/* What has been done since the opening. Any thread. */
struct qr_checkpoint_counts {
    uint64_t count, failures, pages_flushed, retries, longest_postponed_ns;
    uint64_t age_ns; /* since the last one ended, or since the opening */
};
void qr_db_checkpoint_counts(struct quire *db, struct qr_checkpoint_counts *ret_counts);

int qr_db_checkpoint_thread_start(struct quire *db);
void qr_db_checkpoint_thread_stop(struct quire *db);

#endif
