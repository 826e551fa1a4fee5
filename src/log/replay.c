/*
 * replay.c: reading the frames of a log in order, and deciding what is undecided.
 *
 * Layer 3. A segment is read as a whole and looked at in memory; what has to be changed on disk is changed frame by frame, and
 * synced at the end of each segment.
 *
 * The top is qr_log_replay: incarnation by incarnation, read_incarnation: segment by segment, read_segment: frame by frame.
 */
#include "log/replay.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/status.h"

/* Hole and end are told apart only when something comes after it: until then it is remembered. */
struct hole {
    uint64_t start, end;
};

struct reader {
    const struct qr_replay *replay;
    struct qr_replay_result *result;
    const struct qr_disk_ops *ops;
    uint64_t all_bytes; /* for the progress */

    bool last;      /* reading the last incarnation */
    bool same_boot; /* ... by the rule of the same boot */

    /* The segment in hand. */
    const struct qr_log_found *found;
    struct qr_file *file;
    uint8_t *memory;
    uint64_t capacity;
    bool changed; /* something was written to the file */

    /* What looks like the end, if nothing comes after it. */
    bool ended;
    uint64_t end;
    struct hole holes[64]; /* one for each segment and gap; more of them are the end */
    uint32_t hole_count;

    uint8_t *large; /* a record put together from PARTs */
    uint64_t large_capacity;
};

static int corrupt(const struct reader *r, uint64_t lsn, const char *what)
{
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "log-%08x, offset %llu (LSN %llu): %s", r->found == NULL ? 0 : r->found->number,
                   (unsigned long long)(r->found == NULL ? 0 : lsn - r->found->header.start), (unsigned long long)lsn,
                   what);
}

/* ---- Segments --------------------------------------------------------------------------------------------------- */

static const struct qr_log_found *segment_at(const struct reader *r, uint64_t incarnation, uint64_t lsn)
{
    const struct qr_log_list *list = r->replay->list;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct qr_log_header *h = &list->found[i].header;
        if (h->incarnation == incarnation && h->start <= lsn && lsn < h->end) return &list->found[i];
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

static bool grow(uint8_t **memory, uint64_t *capacity, uint64_t size)
{
    if (size <= *capacity) return true;
    uint8_t *grown = qr_malloc_aligned(QR_FRAME_UNIT, size);
    if (grown == NULL) return false;
    qr_free_aligned(*memory);
    *memory = grown;
    *capacity = size;
    return true;
}

/* Syncs what was changed and closes the file. */
static int leave_segment(struct reader *r, int result)
{
    if (r->file == NULL) return result;
    if (result == 0 && r->changed) {
        int error = qr_file_sync(r->file);
        if (error != 0) result = qr_log_disk_failure(error, "sync of the repaired log", r->found->number);
    }
    r->ops->file_close(r->file);
    r->file = NULL;
    r->changed = false;
    return result;
}

static int enter_segment(struct reader *r, const struct qr_log_found *found)
{
    uint64_t size = found->header.end - found->header.start;
    r->found = found;
    int result = open_file(r, found->number, &r->file);
    if (result != 0) return result;
    if (!grow(&r->memory, &r->capacity, size)) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to read a log segment");
    int64_t got = qr_file_read(r->file, r->memory, size, 0);
    if (got < 0) return qr_log_disk_failure((int)got, "reading", found->number);
    memset(r->memory + got, 0, size - (uint64_t)got);
    r->result->bytes += size;
    return 0;
}

/* ---- Repair ----------------------------------------------------------------------------------------------------- */

static int write_at(struct reader *r, uint64_t lsn, const void *bytes, size_t size)
{
    if (r->replay->read_only) return 0;
    int error = qr_file_write(r->file, bytes, size, lsn - r->found->header.start);
    r->changed = true;
    return error == 0 ? 0 : qr_log_disk_failure(error, "repairing", r->found->number);
}

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
 * *left bytes of `large`. */
static int read_part(struct reader *r, uint64_t lsn, uint64_t *left, uint64_t *ret_before, bool *ret_bad)
{
    const struct qr_log_found *in = segment_at(r, r->found->header.incarnation, lsn);
    const uint8_t *data;
    uint8_t *copy = NULL;
    struct qr_file *file = NULL;
    uint32_t size;
    int result = 0;
    *ret_bad = true;
    if (in == NULL) return 0;
    uint64_t offset = lsn - in->header.start;
    uint64_t room = in->header.end - lsn;
    const uint8_t *at = r->memory + offset;
    if (in != r->found) {
        room = qr_min(room, QR_FRAME_MOST_BYTES);
        copy = qr_malloc(room);
        if (copy == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a part of a record");
        result = open_file(r, in->number, &file);
        if (result == 0) {
            int64_t got = qr_file_read(file, copy, room, offset);
            if (got < 0) result = qr_log_disk_failure((int)got, "reading", in->number);
            room = got < 0 ? 0 : (uint64_t)got;
            r->ops->file_close(file);
        }
        at = copy;
    }
    if (result == 0 && offset % QR_FRAME_UNIT == 0 && offset >= QR_LOG_HEADER_BYTES &&
        qr_frame_look(at, room, lsn, in->header.salt, &size) == QR_FRAME_GOOD && qr_frame_kind_at(at) == QR_FRAME_PART &&
        qr_frame_parse_part(at, size, ret_before, &data, &size) && size <= *left) {
        *left -= size;
        qr_copy(r->large + *left, data, size);
        *ret_bad = false;
    }
    qr_free(copy);
    return result;
}

/* Puts a large record together. *ret_over: its first PART lies below the start of the replay, so the pages that it is for had it
 * in their images before that was chosen (R6); its PARTs may be gone. */
static int gather(struct reader *r, uint64_t lsn, struct qr_frame *frame, bool *ret_bad, bool *ret_over)
{
    uint64_t left = (uint64_t)frame->key_size + frame->value_size;
    uint64_t at = frame->last_part;
    if (!grow(&r->large, &r->large_capacity, left + 1))
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a large record of the log");
    *ret_bad = false;
    for (uint32_t i = 0; i < frame->part_count && !*ret_bad; i++) {
        uint64_t before = 0;
        if (at == 0 || at >= lsn) {
            *ret_bad = true;
            break;
        }
        if (at < r->replay->from) {
            *ret_over = true;
            return 0;
        }
        int result = read_part(r, at, &left, &before, ret_bad);
        if (result != 0) return result;
        lsn = at;
        at = before;
    }
    if (left != 0 || at != 0) *ret_bad = true;
    frame->key = r->large;
    frame->value = r->large + frame->key_size;
    return 0;
}

/* A RECORD that is DONE or TENTATIVE. 0, QR_REPLAY_END, or a failure. */
static int take_record(struct reader *r, uint64_t lsn, const uint8_t *at, uint32_t size, enum qr_frame_state state)
{
    struct qr_replay_record record = {.lsn = lsn, .tentative = state == QR_FRAME_TENTATIVE};
    record.suspect = r->last && !r->same_boot && lsn >= r->replay->durable_end;
    bool bad = !qr_frame_parse(at, size, &record.frame);
    if (!bad && record.frame.last_part != 0) {
        bool over = false;
        int result = gather(r, lsn, &record.frame, &bad, &over);
        if (result != 0 || over) return result;
    }
    if (bad) return corrupt(r, lsn, "a record that does not say what a record says");
    int result = r->replay->visit(r->replay->context, &record);
    if (result < 0 || result == QR_REPLAY_END) return result;
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
    if (!r->same_boot || r->hole_count == QR_ARRAY_COUNT(r->holes)) return false;
    r->holes[r->hole_count++] = (struct hole){lsn, next};
    return true;
}

/* The next position from `lsn` on, below `end`, where a whole frame of that position stands; `end` if there is none. */
static uint64_t resync(const struct reader *r, uint64_t lsn, uint64_t end)
{
    uint32_t size;
    for (; lsn < end; lsn += QR_FRAME_UNIT)
        if (qr_frame_look(r->memory + (lsn - r->found->header.start), end - lsn, lsn, r->found->header.salt, &size) ==
            QR_FRAME_GOOD)
            return lsn;
    return end;
}

/* Reads the frames of the segment in hand from `lsn` on, below `stop`. *ret_over: the log ends here. */
static int read_segment(struct reader *r, uint64_t lsn, uint64_t stop, bool *ret_over)
{
    const struct qr_log_header *h = &r->found->header;
    while (lsn < stop) {
        const uint8_t *at = r->memory + (lsn - h->start);
        uint32_t size;
        enum qr_frame_verdict verdict = qr_frame_look(at, h->end - lsn, lsn, h->salt, &size);
        enum qr_frame_state state = verdict == QR_FRAME_GOOD ? qr_frame_state_at(at) : QR_FRAME_RESERVED;
        bool undecided = state == QR_FRAME_TENTATIVE && !(r->last && r->same_boot);
        if (verdict != QR_FRAME_GOOD || undecided) {
            if (!r->last || lsn < r->replay->durable_end) return corrupt(r, lsn, "no frame where one was synced");
            uint64_t next = verdict == QR_FRAME_HOLE ? resync(r, lsn, h->end) : h->end;
            if (verdict == QR_FRAME_DAMAGE || !note_end(r, lsn, next)) {
                if (!r->ended) r->end = lsn;
                *ret_over = r->ended = true;
                return 0;
            }
            lsn = next;
            continue;
        }
        if (r->ended) {
            int result = fill_holes(r);
            if (result != 0) return result;
        }
        r->result->frames++;
        if (state == QR_FRAME_VOID)
            r->result->voids++;
        else if (qr_frame_kind_at(at) == QR_FRAME_RECORD) {
            int result = take_record(r, lsn, at, size, state);
            if (result == QR_REPLAY_END) {
                r->end = lsn;
                *ret_over = r->ended = true;
                return 0;
            }
            if (result != 0) return result;
        } else if (state == QR_FRAME_TENTATIVE)
            return corrupt(r, lsn, "an undecided frame that is no record");
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
    for (uint32_t i = 0; i < list->count; i++) {
        const struct qr_log_found *found = &list->found[i];
        if (found->header.incarnation != incarnation->number) continue;
        same = same && found->same_boot;
        if (r->replay->read_only) continue;
        struct qr_file *file;
        int result = open_file(r, found->number, &file);
        if (result != 0) return result;
        int error = qr_file_sync(file);
        r->ops->file_close(file);
        if (error != 0) return qr_log_disk_failure(error, "sync of the log before it is read", found->number);
    }
    r->same_boot = same;
    r->result->same_boot = same;
    return 0;
}

static int report(struct reader *r)
{
    if (r->replay->progress == NULL) return 0;
    return r->replay->progress(r->replay->context, r->result->bytes, r->all_bytes);
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
        if (found == NULL) break;
        uint64_t first = found->header.start + QR_LOG_HEADER_BYTES;
        result = enter_segment(r, found);
        if (result == 0) result = read_segment(r, qr_max(lsn, first), qr_min(found->header.end, limit), &over);
        result = leave_segment(r, result);
        lsn = found->header.end;
        if (result == 0) result = report(r);
    }
    if (result != 0) return result;
    /* An end in or right behind the header of a segment: that segment holds nothing, and may have been removed. */
    if (!r->last) return lsn + QR_LOG_HEADER_BYTES >= limit ? 0 : corrupt(r, lsn, "a segment of the log is missing");
    if (r->ended) r->result->end = r->end;
    return r->result->end >= r->replay->durable_end ? 0
                                                    : corrupt(r, r->result->end, "the log ends below what was synced");
}

int qr_log_replay(const struct qr_replay *replay, struct qr_replay_result *ret_result)
{
    struct qr_replay_result found = {0};
    struct reader r = {.replay = replay, .result = &found, .ops = replay->dir->disk->ops};
    int result = 0;
    for (uint32_t i = 0; i < replay->list->count; i++) {
        const struct qr_log_header *h = &replay->list->found[i].header;
        if (h->end > replay->from) r.all_bytes += h->end - h->start;
    }
    for (uint32_t i = 0; i < replay->incarnation_count && result == 0; i++) {
        const struct qr_incarnation *incarnation = &replay->incarnations[i];
        r.last = i + 1 == replay->incarnation_count;
        if (r.last || incarnation->end > replay->from) result = read_incarnation(&r, incarnation);
    }
    qr_free_aligned(r.memory);
    qr_free_aligned(r.large);
    if (result == 0) *ret_result = found;
    return result;
}
