/*
 * replay.h: reading a log after the process that wrote it has ended.
 *
 * Layer 3. One thread; nobody writes the log meanwhile.
 *
 * REPLAY-1  Frames are visited in the order of their LSNs, each whose write was acknowledged among them: at DURABLE after power
 *           loss, at PROCESS after the death of the process alone, unless a sync had failed (REPLAY-2).
 * REPLAY-2  The last incarnation is read by the rule of the same boot (R12) if all of its segments that are read were written in this boot, on
 *           this device and mount, in these files, none of them is marked poisoned, and a sync of them succeeds now: then
 *           the page cache has every store of the dead process, holes are where it died between reservation and write, and
 *           they are passed over; TENTATIVE frames are visited as such. Otherwise the log ends at the first hole, damaged or
 *           undecided frame. If a sync has failed, the dead process's or one of recovery, a later one that succeeds proves
 *           nothing (DISK-2): the segments are marked, and what is read is written again and synced.
 * REPLAY-3  Damage at or below `durable_end`, which the manifest says was synced, is CORRUPT; so is anything but decided frames in
 *           an older incarnation, which had been repaired to its recorded end (R7, R8).
 *           So is a segment that is missing in front of another one of its incarnation, and one of an incarnation that the
 *           manifest does not have: it was recorded first (R7).
 * REPLAY-4  After a replay for writing that answered 0, what was visited is decided on disk: TENTATIVE frames are DONE or VOID as
 *           the visitor said, holes are fillers, and all of it is synced (R8).
 * REPLAY-5  The log is read in pieces into one window of memory. What was visited stays there until `release` is called, so that
 *           a visitor may gather records and apply them together; without `release` it is gone after the visit.
 * REPLAY-6  A PART is of one record: of the frames that name it at most one is not VOID, the last of them. So no more PARTs are read
 *           again for records than were passed, and what asks for more is CORRUPT: else a log could ask for the square of its size.
 */
#ifndef QR_LOG_REPLAY_H
#define QR_LOG_REPLAY_H

#include <quire/quire.h>

#include "log/files.h"

/* An incarnation as the manifest records it, oldest first; the end of the last one is not known. */
struct qr_incarnation {
    uint64_t number;
    uint64_t first_lsn; /* where its first segment starts */
    uint64_t end;       /* 0: not known */
};

/* A segment file that was found. */
struct qr_log_found {
    struct qr_log_header header;
    uint32_t number;
    bool same_boot;  /* written in this boot, here, and not poisoned */
    bool blank;      /* a file for a segment that never got its header, or lost it again; in the list to be removed */
    bool superseded; /* another one was made in its place: it holds nothing */
};

struct qr_log_list {
    struct qr_log_found *found; /* by start */
    uint32_t count;
    uint64_t capacity;
    uint32_t next_number; /* above those of all files, also of such that are no segments of this store */
    uint64_t top;         /* end of the highest segment; 0: none */
    /* Of files of this store whose header is damaged, in front of frames, or that are cut in their header: the highest LSN
     * that may have stood in one; 0: there are none. */
    uint64_t damaged_end;
    uint32_t damaged_number;
};

/* Finds the segments of a store. Files without a valid header of this store are passed over: no reservation has entered them
 * (FILES-1), or they are damaged, which the list says. 0, IO, NO_MEMORY, NEWER. */
int qr_log_list_make(struct qr_dir *dir, const uint8_t store_id[16], struct qr_log_list *ret_list);
void qr_log_list_done(struct qr_log_list *list);

/* Whether a name is that of a segment. */
bool qr_log_name_is_ours(const char *name);

/* Whether the file of such a name is a segment of this store, or what a crash left of one that was being made: it has no
 * header then. A file that is gone meanwhile is one. 1, 0, or a failure. */
int qr_log_file_is_ours(struct qr_dir *dir, const char *name, const uint8_t store_id[16]);

/* ---- Looking at a log ------------------------------------------------------------------------------------------- */

/* What stands at a position. */
struct qr_log_sight {
    const struct qr_log_found *found;
    uint64_t lsn, size; /* size: of the frame, or of what holds none */
    enum qr_frame_verdict verdict;
    const uint8_t *at; /* GOOD: the frame; valid during the visit */
    bool last;         /* of the last incarnation, whose end is not recorded */
};

/* Not 0 ends the walk, which answers it. */
typedef int qr_log_visit(void *context, const struct qr_log_sight *sight);

/*
 * Visits what stands in the segments of these incarnations, in the order of LSNs; changes nothing. Segments whose frames end at or
 * below `from` are passed over: while a log is in use they may be used again or removed at any time. A place without a frame is
 * a HOLE if it is below the recorded end of its incarnation or if a frame comes behind it. 0, IO, NO_MEMORY, what the visitor
 * answered.
 */
int qr_log_walk(struct qr_dir *dir, const struct qr_log_list *list, const struct qr_incarnation *incarnations,
                uint32_t incarnation_count, uint64_t from, qr_log_visit *visit, void *context);

/* ---- Replay ----------------------------------------------------------------------------------------------------- */

/* A frame with a write. */
struct qr_replay_record {
    uint64_t lsn;
    bool tentative;
    bool suspect; /* power may have been lost since it was written: what it names beside the log may be missing */
    bool doubtful; /* a sync has failed since: that is to be written again, as the log is (REPLAY-2) */
    const uint8_t *at;     /* where the frame is in the window, at a multiple of QR_FRAME_UNIT */
    uint32_t size;
    struct qr_frame frame; /* key and value are valid as long as the frame (REPLAY-5); large ones were put together */
};

enum {
    QR_REPLAY_VOID = 1, /* of a tentative record: it was not applied */
    QR_REPLAY_END = 2,  /* of a suspect one: what it names is missing, so the log ends before it */
};

/* 0: applied; QR_REPLAY_VOID, _END; negative: replay ends with that. */
typedef int qr_replay_visit(void *context, const struct qr_replay_record *record);
/* What was visited leaves memory: whoever has kept records applies them now. 0; negative: replay ends with that. */
typedef int qr_replay_release(void *context);
/* done of all bytes were read. Not 0: replay ends with that. */
typedef int qr_replay_progress(void *context, uint64_t done_bytes, uint64_t all_bytes);

#define QR_REPLAY_WINDOW_LEAST ((uint64_t)256 << 10)

struct qr_replay {
    struct qr_dir *dir;
    const struct qr_log_list *list;
    uint64_t from; /* replay_from: the first LSN that may be needed */
    const struct qr_incarnation *incarnations;
    uint32_t incarnation_count;
    uint64_t durable_end; /* synced according to the manifest; 0: not known */
    bool read_only;       /* nothing is repaired or synced */
    uint8_t *window;      /* aligned to QR_FRAME_UNIT, at least QR_REPLAY_WINDOW_LEAST; what it holds is the replay's */
    uint64_t window_bytes;
    qr_replay_visit *visit;
    qr_replay_release *release; /* NULL: nothing is kept */
    qr_replay_progress *progress; /* may be NULL */
    void *context;
};

struct qr_replay_result {
    uint64_t end; /* of the last incarnation: the position after its last frame */
    bool same_boot;
    uint64_t frames, records, voids, tentative, holes, hole_bytes, bytes;
};

/* A sync of what the frames of the incarnation name has failed: leaves the mark in all of its segments (R12). 0, IO. */
int qr_log_mark_all(struct qr_dir *dir, const struct qr_log_list *list, uint64_t incarnation);

/* Bytes of the segments that a replay from this LSN reads. */
uint64_t qr_log_replay_bytes(const struct qr_log_list *list, uint64_t from);

/* 0, CORRUPT, IO, NO_MEMORY, what the visitor or the progress function answered. No incarnations: nothing happens. */
int qr_log_replay(const struct qr_replay *replay, struct qr_replay_result *ret_result);

#endif
