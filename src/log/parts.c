/*
 * parts.c: keys and values that are too large for one frame.
 *
 * Layer 3. They go to PART frames first, each in a slot window of its own; the frame of the write names the last of them. A
 * PART that no frame names means nothing.
 */
#include "log/files.h"

/* One PART with the next bytes of key and value; *done of them have been written. False: no room. */
static bool write_part(struct qr_log *log, struct qr_thread *thread, struct qr_frame *frame, uint64_t *done)
{
    const uint64_t all = (uint64_t)frame->key_size + frame->value_size;
    uint64_t size = qr_min(all - *done, log->frame_cap_bytes - QR_FRAME_HEADER - QR_PART_HEADER);
    struct qr_frame_piece pieces[2] = {{NULL, 0}, {NULL, 0}};
    if (*done < frame->key_size) {
        pieces[0].data = (const uint8_t *)frame->key + *done;
        pieces[0].size = (uint32_t)qr_min(size, frame->key_size - *done);
    }
    pieces[1].size = (uint32_t)size - pieces[0].size;
    if (pieces[1].size != 0)
        pieces[1].data = (const uint8_t *)frame->value + (*done + pieces[0].size - frame->key_size);

    uint64_t frame_size = qr_frame_part_size(size);
    if (!qr_log_slot_open(log, thread)) return false;
    uint64_t lsn = qr_log_reserve(log, thread, frame_size);
    if (lsn != QR_LOG_NO_ROOM) {
        qr_frame_write_part(qr_log_at(thread, lsn), frame->last_part, pieces, lsn, thread->log_salt);
        if (frame->first_part == 0) frame->first_part = lsn;
        frame->last_part = lsn;
        frame->part_count++;
        *done += size;
    }
    qr_log_slot_close(thread);
    return lsn != QR_LOG_NO_ROOM;
}

bool qr_log_write_parts(struct qr_log *log, struct qr_thread *thread, struct qr_frame *frame, uint64_t *done)
{
    const uint64_t all = (uint64_t)frame->key_size + frame->value_size;
    if (*done == 0) {
        frame->first_part = 0;
        frame->last_part = 0;
        frame->part_count = 0;
        qr_log_hold(log, thread); /* R6: until the write is done, it counts with a bound below its first PART */
    }
    while (*done < all)
        if (!write_part(log, thread, frame, done)) return false;
    return true;
}
