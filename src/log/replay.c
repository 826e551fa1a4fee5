/*
 * replay.c: reading the frames of a log in order, and deciding what is undecided.
 *
 * Layer 3. A segment is read piece by piece into the window and looked at there (REPLAY-5); what has to be changed on disk is
 * changed frame by frame, and synced at the end of each segment.
 *
 * The top is qr_log_replay: incarnation by incarnation, read_incarnation: segment by segment, read_segment: frame by frame.
 *
 *     window:  | frames that were visited and are kept | piece in hand ... |        free        |
 *              0                                       kept                                     window_bytes
 */
#include "log/replay.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/status.h"

/* Hole and end are told apart only when something comes after it: until then it is remembered. */
struct hole {
    uint64_t start, end;
};

/* A key and value put together from PARTs, kept as long as the frames. */
struct large {
    struct large *next;
    _Alignas(QR_FRAME_UNIT) uint8_t bytes[];
};

#define PIECE_BYTES ((uint64_t)1 << 20)

struct reader {
    const struct qr_replay *replay;
    struct qr_replay_result *result;
    const struct qr_disk_ops *ops;
    uint64_t done_bytes, all_bytes; /* for the progress: done without the segment in hand */

    bool last;      /* reading the last incarnation */
    bool same_boot; /* ... by the rule of the same boot */
    bool doubtful;  /* ... a sync of it has failed: what is read is written again */

    /* The segment in hand. */
    const struct qr_log_found *found;
    struct qr_file *file;
    bool changed; /* something was written to the file */

    uint8_t *window;
    uint64_t window_bytes;

    /* The piece in hand: what the window holds of it, by LSN. */
    uint64_t kept; /* bytes at the start of the window that are not released */
    const uint8_t *piece;
    uint64_t piece_start, piece_end;

    /* What looks like the end, if nothing comes after it. */
    bool ended;
    uint64_t end;
    struct hole holes[64]; /* one for each segment and gap; more of them are the end */
    uint32_t hole_count;

    struct large *large; /* newest first */
    uint64_t large_bytes;
    uint64_t parts; /* PARTs that were passed, less those that records have been put together from (REPLAY-6) */
};

/* In the segment that is being read. */
static int corrupt(const struct reader *r, uint64_t lsn, const char *what)
{
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "log-%08x, offset %llu (LSN %llu): %s", r->found->number,
                   (unsigned long long)(lsn - r->found->header.start), (unsigned long long)lsn, what);
}

/* Where no segment is: its neighbours name the place. */
static int corrupt_gap(const struct reader *r, uint64_t lsn, const char *what)
{
    const struct qr_log_list *list = r->replay->list;
    const struct qr_log_found *before = NULL, *behind = NULL;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct qr_log_found *found = &list->found[i];
        if (found->blank || found->superseded) continue;
        if (found->header.start <= lsn)
            before = found;
        else if (behind == NULL)
            behind = found;
    }
    unsigned long long at = lsn;
    if (before == NULL && behind == NULL) return qr_fail(QUIRE_ERR_CORRUPT, 0, "the log (LSN %llu): %s", at, what);
    if (before == NULL)
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "in front of log-%08x (LSN %llu): %s", behind->number, at, what);
    if (behind == NULL) return qr_fail(QUIRE_ERR_CORRUPT, 0, "behind log-%08x (LSN %llu): %s", before->number, at, what);
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "between log-%08x and log-%08x (LSN %llu): %s", before->number, behind->number, at,
                   what);
}

/* ---- Segments --------------------------------------------------------------------------------------------------- */

static const struct qr_log_found *segment_at(const struct reader *r, uint64_t incarnation, uint64_t lsn)
{
    const struct qr_log_list *list = r->replay->list;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct qr_log_header *h = &list->found[i].header;
        if (h->incarnation == incarnation && h->start <= lsn && lsn < h->end && !list->found[i].superseded) return &list->found[i];
    }
    return NULL;
}

static int open_file(const struct reader *r, uint32_t number, struct qr_file **ret_file)
{
    char name[QR_LOG_NAME_BYTES];
    qr_log_file_name(number, name);
    int error = r->ops->file_open(r->replay->dir, name, r->replay->read_only ? 0 : QR_FILE_WRITE, ret_file);
    return error == 0 ? 0 : qr_log_disk_failure(error, "opening", number);
}

/* Syncs what was changed and closes the file. A failure leaves the mark: at the next opening this sync may well succeed. */
static int leave_segment(struct reader *r, int result)
{
    if (r->file == NULL) return result;
    if (result == 0 && r->changed && !QR_BUG(log_repair_unsynced)) {
        int error = qr_file_sync(r->file);
        if (error != 0) {
            qr_log_segment_mark(r->file);
            result = qr_log_disk_failure(error, "sync of the repaired log", r->found->number);
        }
    }
    r->ops->file_close(r->file);
    r->file = NULL;
    r->changed = false;
    return result;
}

static int enter_segment(struct reader *r, const struct qr_log_found *found)
{
    r->found = found;
    r->piece_start = r->piece_end = 0;
    r->result->bytes += found->header.end - found->header.start;
    return open_file(r, found->number, &r->file);
}

/* ---- Pieces ----------------------------------------------------------------------------------------------------- */

static void free_large(struct reader *r)
{
    while (r->large != NULL) {
        struct large *large = r->large;
        r->large = large->next;
        qr_free_aligned(large);
    }
    r->large_bytes = 0;
}

/* Lets go what the visitor has kept. */
static int release(struct reader *r)
{
    int result = r->replay->release == NULL ? 0 : r->replay->release(r->replay->context);
    r->kept = 0;
    free_large(r);
    return result;
}

/* `here`: bytes of the segment in hand that were read. */
static int report(struct reader *r, uint64_t here)
{
    if (r->replay->progress == NULL) return 0;
    return r->replay->progress(r->replay->context, r->done_bytes + here, r->all_bytes);
}

static int write_at(struct reader *r, uint64_t lsn, const void *bytes, size_t size)
{
    if (r->replay->read_only || QR_BUG(log_undecided_kept)) return 0;
    int error = qr_file_write(r->file, bytes, size, lsn - r->found->header.start);
    r->changed = true;
    return error == 0 ? 0 : qr_log_disk_failure(error, "repairing", r->found->number);
}

/* Makes the next piece the one that begins at `lsn`. What cannot be read, the file being shorter, is zeros: a hole. */
static int read_piece(struct reader *r, uint64_t lsn)
{
    const struct qr_log_header *h = &r->found->header;
    uint64_t size = qr_min(qr_min(h->end - lsn, PIECE_BYTES), r->window_bytes);
    if (r->kept + size > r->window_bytes) {
        int result = release(r);
        if (result != 0) return result;
    }
    uint8_t *to = r->window + r->kept;
    qr_touch_buffer(to, size);
    int64_t got = qr_file_read(r->file, to, size, lsn - h->start);
    if (got < 0) return qr_log_disk_failure((int)got, "reading", r->found->number);
    memset(to + got, 0, size - (uint64_t)got);
    /* What no sync has vouched for is written again as it was read: what a page cache shows may not be what the disk has. */
    if (r->last && r->doubtful && !QR_BUG(log_not_rewritten)) {
        int result = write_at(r, lsn, to, (uint64_t)got);
        if (result != 0) return result;
    }
    r->piece = to;
    r->piece_start = lsn;
    r->piece_end = lsn + size;
    return report(r, r->piece_end - h->start);
}

static const uint8_t *at_lsn(const struct reader *r, uint64_t lsn)
{
    return r->piece + (lsn - r->piece_start);
}

/* Bytes from `lsn` on that are in hand. */
static uint64_t in_hand(const struct reader *r, uint64_t lsn)
{
    return r->piece_start <= lsn && lsn < r->piece_end ? r->piece_end - lsn : 0;
}

/* Sees to it that a frame that begins at `lsn` is in hand as a whole, or as much as the segment has. */
static int bring(struct reader *r, uint64_t lsn)
{
    uint64_t room = in_hand(r, lsn);
    if (room >= QR_FRAME_HEADER && (uint64_t)qr_load_u16(at_lsn(r, lsn)) * QR_FRAME_UNIT <= room) return 0;
    if (room >= qr_min(r->found->header.end - lsn, QR_FRAME_MOST_BYTES)) return 0;
    return read_piece(r, lsn);
}

/* ---- Repair ----------------------------------------------------------------------------------------------------- */

/* Only the headers of fillers mean something. */
static int fill_hole(struct reader *r, const struct hole *hole)
{
    r->result->holes++;
    r->result->hole_bytes += hole->end - hole->start;
    for (uint64_t at = hole->start; at < hole->end;) {
        _Alignas(8) uint8_t header[QR_FRAME_HEADER];
        uint64_t size = qr_min(hole->end - at, QR_FRAME_MOST_BYTES);
        qr_frame_fill_header(header, (uint32_t)size, at, r->found->header.salt);
        int result = write_at(r, at, header, sizeof(header));
        if (result != 0) return result;
        at += size;
    }
    return 0;
}

/* A frame was found behind what looked like the end: those were holes. */
static int fill_holes(struct reader *r)
{
    const struct qr_log_found *here = r->found;
    struct qr_file *file = r->file;
    bool changed = r->changed;
    int result = 0;
    for (uint32_t i = 0; i < r->hole_count && result == 0; i++) {
        r->found = segment_at(r, here->header.incarnation, r->holes[i].start);
        QR_ASSERT(r->found != NULL);
        if (r->found == here) {
            r->file = file;
            r->changed = changed;
            result = fill_hole(r, &r->holes[i]);
            changed = r->changed;
            continue;
        }
        result = open_file(r, r->found->number, &r->file);
        r->changed = false;
        if (result == 0) result = leave_segment(r, fill_hole(r, &r->holes[i]));
    }
    r->found = here;
    r->file = file;
    r->changed = changed;
    r->hole_count = 0;
    r->ended = false;
    return result;
}

static int decide(struct reader *r, uint64_t lsn, enum qr_frame_state state)
{
    uint8_t byte = (uint8_t)state;
    return write_at(r, lsn + 3, &byte, 1);
}

/* ---- Records ---------------------------------------------------------------------------------------------------- */

/* Reads the PART at lsn, of any segment of the incarnation. Not GOOD: DAMAGE in *ret_bad. The data go to the end of the first
 * *left bytes at `to`, if that is not NULL. */
static int read_part(struct reader *r, uint64_t lsn, uint8_t *to, uint64_t *left, uint64_t *ret_before, bool *ret_bad)
{
    const struct qr_log_found *in = segment_at(r, r->found->header.incarnation, lsn);
    const uint8_t *data;
    uint32_t size;
    *ret_bad = true;
    if (in == NULL) return 0;
    uint64_t offset = lsn - in->header.start;
    uint64_t room = qr_min(in->header.end - lsn, QR_FRAME_MOST_BYTES);
    uint8_t *copy = qr_malloc(room);
    struct qr_file *file = in == r->found ? r->file : NULL;
    if (copy == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a part of a record");
    int result = file == NULL ? open_file(r, in->number, &file) : 0;
    if (result == 0) {
        int64_t got = qr_file_read(file, copy, room, offset);
        if (got < 0) result = qr_log_disk_failure((int)got, "reading", in->number);
        room = got < 0 ? 0 : (uint64_t)got;
        if (in != r->found) r->ops->file_close(file);
    }
    if (result == 0 && offset % QR_FRAME_UNIT == 0 && offset >= QR_LOG_HEADER_BYTES &&
        qr_frame_look(copy, room, lsn, in->header.salt, &size) == QR_FRAME_GOOD &&
        qr_frame_kind_at(copy) == QR_FRAME_PART && qr_frame_parse_part(copy, size, ret_before, &data, &size) &&
        size <= *left) {
        *left -= size;
        if (to != NULL) qr_copy(to + *left, data, size);
        *ret_bad = false;
    }
    qr_free(copy);
    return result;
}

/* Puts a large record together. *ret_over: its first PART lies below the start of the replay, so the pages that it is for had it
 * in their images before that was chosen (R6); its PARTs may be gone, and more than there is log left. */
static int gather(struct reader *r, uint64_t lsn, struct qr_frame *frame, bool *ret_bad, bool *ret_over)
{
    uint64_t left = (uint64_t)frame->key_size + frame->value_size;
    uint64_t at = frame->last_part;
    *ret_bad = at >= lsn || left > lsn;
    *ret_over = lsn - left < r->replay->from; /* so much does not fit between */
    if (*ret_bad || *ret_over) return 0;
    int result = r->large_bytes + left > r->window_bytes ? release(r) : 0;
    if (result != 0) return result;
    /* A record that is larger than all there is does not ask for memory: its PARTs are gone, or were never there. */
    const bool fits = left <= r->all_bytes;
    const uint64_t room = fits ? left : 0;
    struct large *large = qr_malloc_aligned(QR_FRAME_UNIT, sizeof(*large) + room);
    if (large == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a large record of the log");
    large->next = r->large;
    r->large = large;
    r->large_bytes += room;
    for (uint32_t i = 0; i < frame->part_count && !*ret_bad; i++) {
        uint64_t before = 0;
        if (at != 0 && at < r->replay->from) {
            *ret_over = true;
            return 0;
        }
        if (at == 0 || at >= lsn || r->parts == 0) {
            *ret_bad = true;
            break;
        }
        r->parts--;
        result = read_part(r, at, fits ? large->bytes : NULL, &left, &before, ret_bad);
        if (result != 0) return result;
        lsn = at;
        at = before;
    }
    if (left != 0 || at != 0 || !fits) *ret_bad = true;
    frame->first_part = lsn;
    frame->key = large->bytes;
    frame->value = large->bytes + frame->key_size;
    return 0;
}

/* A RECORD that is DONE or TENTATIVE. 0, QR_REPLAY_END, or a failure. */
static int take_record(struct reader *r, uint64_t lsn, const uint8_t *at, uint32_t size, enum qr_frame_state state)
{
    struct qr_replay_record record = {.lsn = lsn, .tentative = state == QR_FRAME_TENTATIVE, .at = at, .size = size};
    record.suspect = r->last && !r->same_boot && lsn >= r->replay->durable_end;
    record.doubtful = r->last && r->doubtful && !r->replay->read_only;
    bool bad = !qr_frame_parse(at, size, &record.frame);
    if (!bad && record.frame.last_part != 0) {
        bool over = false;
        int result = gather(r, lsn, &record.frame, &bad, &over);
        if (result != 0 || over) return result;
    }
    if (bad) return corrupt(r, lsn, "a record that does not say what a record says");
    int result = r->replay->visit(r->replay->context, &record);
    if (result < 0 || result == QR_REPLAY_END) return result;
    if (r->replay->release != NULL)
        r->kept = (uint64_t)(at + size - r->window);
    else
        free_large(r);
    r->result->records++;
    if (!record.tentative) return 0;
    r->result->tentative++;
    return decide(r, lsn, result == QR_REPLAY_VOID ? QR_FRAME_VOID : QR_FRAME_DONE);
}

/* ---- Frames ----------------------------------------------------------------------------------------------------- */

/* Here no frame stands that counts, up to `next`. Whether it may be passed over. */
static bool note_end(struct reader *r, uint64_t lsn, uint64_t next)
{
    if (!r->ended) r->end = lsn;
    r->ended = true;
    if (r->same_boot && QR_BUG(log_hole_ends)) return false;
    if (!r->same_boot || r->hole_count == QR_ARRAY_COUNT(r->holes)) return false;
    r->holes[r->hole_count++] = (struct hole){lsn, next};
    return true;
}

/* *ret_next: the next position from `lsn` on where a whole frame of that position stands; the end of the segment if there is
 * none. */
static int resync(struct reader *r, uint64_t lsn, uint64_t *ret_next)
{
    const struct qr_log_header *h = &r->found->header;
    uint32_t size;
    for (;; lsn += QR_FRAME_UNIT) {
        uint64_t room = in_hand(r, lsn);
        if (room != 0) lsn = qr_frame_pass(at_lsn(r, lsn), room, lsn);
        if (lsn >= h->end) break;
        int result = bring(r, lsn);
        if (result != 0) return result;
        if (qr_frame_look(at_lsn(r, lsn), in_hand(r, lsn), lsn, h->salt, &size) == QR_FRAME_GOOD) break;
    }
    *ret_next = qr_min(lsn, h->end);
    return 0;
}

/* Reads the frames of the segment in hand from `lsn` on, below `stop`. *ret_over: the log ends here. */
static int read_segment(struct reader *r, uint64_t lsn, uint64_t stop, bool *ret_over)
{
    const struct qr_log_header *h = &r->found->header;
    int result = 0;
    while (lsn < stop) {
        result = bring(r, lsn);
        if (result != 0) return result;
        const uint8_t *at = at_lsn(r, lsn);
        uint32_t size;
        enum qr_frame_verdict verdict = qr_frame_look(at, in_hand(r, lsn), lsn, h->salt, &size);
        enum qr_frame_state state = verdict == QR_FRAME_GOOD ? qr_frame_state_at(at) : QR_FRAME_RESERVED;
        bool undecided = state == QR_FRAME_TENTATIVE && !(r->last && r->same_boot && !QR_BUG(log_tentative_ends));
        if (verdict != QR_FRAME_GOOD || undecided) {
            if (!r->last || lsn < r->replay->durable_end) return corrupt(r, lsn, "no frame where one was synced");
            uint64_t next = h->end;
            if (verdict == QR_FRAME_HOLE) result = resync(r, lsn, &next);
            if (result != 0) return result;
            if (verdict == QR_FRAME_DAMAGE || !note_end(r, lsn, next)) {
                if (!r->ended) r->end = lsn;
                *ret_over = r->ended = true;
                return 0;
            }
            lsn = next;
            continue;
        }
        if (r->ended) result = fill_holes(r);
        if (result != 0) return result;
        r->result->frames++;
        if (qr_frame_kind_at(at) == QR_FRAME_PART) r->parts++;
        if (state == QR_FRAME_VOID)
            r->result->voids++;
        else if (qr_frame_kind_at(at) == QR_FRAME_RECORD) {
            result = take_record(r, lsn, at, size, state);
            if (result == QR_REPLAY_END) {
                r->end = lsn;
                *ret_over = r->ended = true;
                return 0;
            }
            if (result != 0) return result;
        } else if (state == QR_FRAME_TENTATIVE) { /* its thread died before the store that decides it (FRAME-2) */
            result = decide(r, lsn, qr_frame_kind_at(at) == QR_FRAME_PART ? QR_FRAME_DONE : QR_FRAME_VOID);
            if (result != 0) return result;
        }
        lsn += size;
        r->result->end = lsn;
    }
    return 0;
}

/* ---- Incarnations ----------------------------------------------------------------------------------------------- */

/* REPLAY-2: whether the page cache has what the dead process stored; syncs it. */
static int judge_boot(struct reader *r, const struct qr_incarnation *incarnation)
{
    const struct qr_log_list *list = r->replay->list;
    bool same = true;
    r->doubtful = false;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct qr_log_found *found = &list->found[i];
        if (found->header.incarnation != incarnation->number || found->header.start < incarnation->first_lsn) continue;
        /* Nothing of such a one is read; it may be where the disk is bad. */
        if (found->superseded || found->header.end <= r->replay->from) continue;
        same = same && found->same_boot;
        r->doubtful = r->doubtful || (found->header.poisoned != 0 && !QR_BUG(log_mark_ignored));
        if (r->replay->read_only || QR_BUG(log_tail_unsynced)) continue;
        struct qr_file *file;
        int result = open_file(r, found->number, &file);
        if (result != 0) return result;
        int error = qr_file_sync(file);
        if (error != 0) {
            same = false;
            r->doubtful = true;
            error = qr_log_segment_mark(file);
        }
        r->ops->file_close(file);
        if (error != 0) return qr_log_disk_failure(error, "sync of the log before it is read", found->number);
    }
    r->same_boot = same || QR_BUG(log_hole_passed);
    r->result->same_boot = same;
    return 0;
}

/* Segments are made one behind the other, and released from the oldest on, when nothing below is needed: so behind one that is
 * missing there is none. */
static bool is_gap(const struct reader *r, const struct qr_incarnation *incarnation, uint64_t lsn)
{
    const struct qr_log_list *list = r->replay->list;
    for (uint32_t i = 0; i < list->count; i++)
        if (list->found[i].header.incarnation == incarnation->number && list->found[i].header.start > lsn) return true;
    return false;
}

/* Whether no frame can stand from `lsn` up to `end`, where there is no segment: these may be in or right behind the header of one that
 * held nothing, and has been removed. Segments begin at multiples of the smallest one. */
static bool is_header_alone(const struct qr_incarnation *incarnation, uint64_t lsn, uint64_t end)
{
    uint64_t in_segment = (lsn - incarnation->first_lsn) % QR_LOG_SEGMENT_LEAST;
    return end <= lsn - in_segment + QR_LOG_HEADER_BYTES;
}

static int read_incarnation(struct reader *r, const struct qr_incarnation *incarnation)
{
    uint64_t lsn = qr_max(incarnation->first_lsn, r->replay->from);
    uint64_t limit = r->last ? UINT64_MAX : incarnation->end;
    bool over = false;
    int result = r->last ? judge_boot(r, incarnation) : 0;
    r->result->end = qr_max(lsn, r->result->end);
    r->ended = false;
    r->hole_count = 0;
    while (result == 0 && !over && lsn < limit) {
        const struct qr_log_found *found = segment_at(r, incarnation->number, lsn);
        if (found == NULL && r->last && !QR_BUG(log_gap_ends) && is_gap(r, incarnation, lsn))
            return corrupt_gap(r, lsn, "a segment of the log is missing");
        if (found == NULL) break;
        uint64_t first = found->header.start + QR_LOG_HEADER_BYTES;
        result = enter_segment(r, found);
        uint64_t stop = QR_BUG(log_read_beyond_end) ? found->header.end : qr_min(found->header.end, limit);
        if (result == 0) result = read_segment(r, qr_max(lsn, first), stop, &over);
        result = leave_segment(r, result);
        lsn = found->header.end;
        r->done_bytes += found->header.end - found->header.start;
        if (result == 0) result = report(r, 0);
    }
    if (result != 0) return result;
    if (!r->last && (lsn >= limit || is_header_alone(incarnation, lsn, limit))) return 0;
    if (!r->last) return corrupt_gap(r, lsn, "a segment of the log is missing");
    if (r->ended) r->result->end = r->end;
    if (r->result->end >= r->replay->durable_end) return 0;
    return corrupt_gap(r, r->result->end, "the log ends below what was synced");
}

int qr_log_mark_all(struct qr_dir *dir, const struct qr_log_list *list, uint64_t incarnation)
{
    int result = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        char name[QR_LOG_NAME_BYTES];
        struct qr_file *file;
        if (list->found[i].blank || list->found[i].header.incarnation != incarnation) continue;
        qr_log_file_name(list->found[i].number, name);
        int error = dir->disk->ops->file_open(dir, name, QR_FILE_WRITE, &file);
        if (error == 0) {
            error = qr_log_segment_mark(file);
            dir->disk->ops->file_close(file);
        }
        if (error != 0 && result == 0) result = qr_log_disk_failure(error, "marking", list->found[i].number);
    }
    return result;
}

uint64_t qr_log_replay_bytes(const struct qr_log_list *list, uint64_t from)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct qr_log_header *h = &list->found[i].header;
        if (h->end > from && !list->found[i].superseded) bytes += h->end - h->start;
    }
    return bytes;
}

int qr_log_replay(const struct qr_replay *replay, struct qr_replay_result *ret_result)
{
    struct qr_replay_result found = {0};
    struct reader r = {.replay = replay,
                       .result = &found,
                       .ops = replay->dir->disk->ops,
                       .all_bytes = qr_log_replay_bytes(replay->list, replay->from),
                       .window = replay->window,
                       .window_bytes = replay->window_bytes};
    int result = 0;
    QR_ASSERT(r.window_bytes >= QR_REPLAY_WINDOW_LEAST);
    /* Its record is durable before an incarnation has a segment (R7). */
    for (uint32_t i = 0; i < replay->list->count && replay->incarnation_count != 0; i++) {
        r.found = &replay->list->found[i];
        if (r.found->header.incarnation <= replay->incarnations[replay->incarnation_count - 1].number) continue;
        return corrupt(&r, r.found->header.start, "it is of an incarnation that the manifest does not have");
    }
    for (uint32_t i = 0; i < replay->incarnation_count && result == 0; i++) {
        const struct qr_incarnation *incarnation = &replay->incarnations[i];
        r.last = i + 1 == replay->incarnation_count;
        if (r.last || incarnation->end > replay->from) result = read_incarnation(&r, incarnation);
    }
    if (result == 0) result = release(&r);
    free_large(&r);
    if (result == 0) *ret_result = found;
    return result;
}
