/*
 * walk.c: looking at every frame of a log, without deciding anything.
 *
 * Layer 3. For whoever verifies or prints a log. One thread; segments may be written meanwhile; only what is passed over may be recycled or
 * removed, or what could not be made.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "log/replay.h"

#define HOLES 64u /* that are remembered until something comes behind them */

struct walk {
    struct qr_dir *dir;
    qr_log_visit *visit;
    void *context;
    uint64_t from;
    const struct qr_incarnation *incarnation;
    bool last;
    uint8_t *memory; /* of the segment in hand */
    uint64_t capacity;
    struct qr_log_sight holes[HOLES]; /* of the last incarnation: holes only if something comes behind them */
    uint32_t hole_count;
};

static int read_segment(struct walk *w, const struct qr_log_found *found)
{
    char name[QR_LOG_NAME_BYTES];
    struct qr_file *file;
    uint64_t size = found->header.end - found->header.start;
    if (size > w->capacity) {
        qr_free_aligned(w->memory);
        w->capacity = 0;
        w->memory = qr_malloc_aligned(QR_FRAME_UNIT, size);
        if (w->memory == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to read a log segment");
        w->capacity = size;
    }
    qr_log_file_name(found->number, name);
    int error = w->dir->disk->ops->file_open(w->dir, name, 0, &file);
    if (error == -ENOENT && w->last) { /* what a segment has held stays there until it is passed over: making this one has failed */
        memset(w->memory, 0, size);
        return 0;
    }
    if (error != 0) return qr_log_disk_failure(error, "opening", found->number);
    int64_t got = qr_file_read(file, w->memory, size, 0);
    w->dir->disk->ops->file_close(file);
    if (got < 0) return qr_log_disk_failure((int)got, "reading", found->number);
    memset(w->memory + got, 0, size - (uint64_t)got);
    return 0;
}

/* Something stands behind the holes. */
static int tell_holes(struct walk *w)
{
    int result = 0;
    for (uint32_t i = 0; i < w->hole_count && result == 0; i++) result = w->visit(w->context, &w->holes[i]);
    w->hole_count = 0;
    return result;
}

/* Not more than HOLES of the last incarnation: beyond that the log's end has long been passed. */
static int note_hole(struct walk *w, const struct qr_log_sight *sight)
{
    if (!w->last) return w->visit(w->context, sight);
    if (w->hole_count < HOLES) w->holes[w->hole_count++] = *sight;
    return 0;
}

static int walk_segment(struct walk *w, const struct qr_log_found *found)
{
    const struct qr_log_header *h = &found->header;
    uint64_t lsn = h->start + QR_LOG_HEADER_BYTES;
    uint64_t stop = w->last ? h->end : qr_min(h->end, w->incarnation->end);
    if (lsn >= stop || stop <= w->from) return 0; /* nothing of it counts */
    int result = read_segment(w, found);
    while (result == 0 && lsn < stop) {
        uint32_t size = 0;
        struct qr_log_sight sight = {.found = found, .lsn = lsn, .at = w->memory + (lsn - h->start), .last = w->last};
        sight.verdict = qr_frame_look(sight.at, h->end - lsn, lsn, h->salt, &size);
        sight.size = size;
        if (sight.verdict != QR_FRAME_GOOD)
            sight.size = qr_frame_next(w->memory, h->start, lsn + QR_FRAME_UNIT, stop, h->salt) - lsn;
        if (sight.verdict == QR_FRAME_HOLE) {
            result = note_hole(w, &sight);
        } else {
            result = tell_holes(w);
            if (result == 0) result = w->visit(w->context, &sight);
        }
        lsn += sight.size;
    }
    return result;
}

int qr_log_walk(struct qr_dir *dir, const struct qr_log_list *list, const struct qr_incarnation *incarnations,
                uint32_t incarnation_count, uint64_t from, qr_log_visit *visit, void *context)
{
    struct walk w = {.dir = dir, .visit = visit, .context = context, .from = from};
    int result = 0;
    for (uint32_t i = 0; i < incarnation_count && result == 0; i++) {
        w.incarnation = &incarnations[i];
        w.last = i + 1 == incarnation_count;
        w.hole_count = 0;
        for (uint32_t k = 0; k < list->count && result == 0; k++) {
            const struct qr_log_found *found = &list->found[k];
            if (found->superseded || found->header.incarnation != w.incarnation->number) continue;
            result = walk_segment(&w, found);
        }
    }
    qr_free_aligned(w.memory);
    return result;
}
