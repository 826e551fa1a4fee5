/*
 * frame.h: what stands in the log: the bytes of a frame.
 *
 * Layer 3. Pure: memory in, memory out; no I/O. Any thread.
 *
 *      offset  size  field
 *      0       2     length of the frame in units of 16 bytes, header included
 *      2       1     kind (enum qr_frame_kind)
 *      3       1     state (enum qr_frame_state); not under the checksum
 *      4       4     CRC32C of the frame with state and checksum zero, begun with the segment's salt
 *      8       8     LSN = the frame's position
 *      16      ...   payload, padded with zeros to a multiple of 16
 *
 * FRAME-1  Written in this order: the first word with state RESERVED, the payload, the first word with the checksum and state
 *          TENTATIVE, the LSN. So whoever finds the LSN of a position there finds a whole frame, whatever was there before: in a
 *          recycled segment stands the LSN of another position, or none.
 * FRAME-2  After that only the state changes: TENTATIVE to DONE or VOID. So a decided frame whose sum is that of a position where
 *          another LSN stands was damaged there, and is no hole. That goes for fillers and PARTs too, which are decided at once: a
 *          thread may die between any two stores.
 *
 * The payload of a RECORD frame:
 *
 *      0       1     record kind in the low four bits; flags above: 16 caller version, 32 named version, 64 key and value are
 *                    in PART frames
 *      1       1     number of padding bytes at the end of the frame
 *      2       1-5   tree id, 7 bits a byte, low first, 128 = more follows
 *              1-5   size of the key, likewise
 *              8     caller version, if flagged
 *              8     named version, if flagged: the LSN of the record that a conditional write replaces (0: none)
 *              24    if flagged: LSN of the last PART, number of PARTs, size of the value
 *              ...   key and value, unless they are in PARTs
 *
 * The payload of a PART frame: LSN of the PART before it (0: none), 4 bytes with the size of its data, 4 zero bytes, data. The
 * PARTs of a frame in order are the key and then the value.
 */
#ifndef QR_LOG_FRAME_H
#define QR_LOG_FRAME_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define QR_FRAME_UNIT 16u
#define QR_FRAME_HEADER 16u
#define QR_FRAME_MOST_BYTES 65536u /* the largest frame, whatever the log's options say */
#define QR_PART_HEADER 16u

enum qr_frame_kind {
    QR_FRAME_FILLER = 1, /* no payload of meaning */
    QR_FRAME_RECORD = 2,
    QR_FRAME_PART = 3,
};

/* Any two differ in four bits: no flip of three makes one of another. */
enum qr_frame_state {
    QR_FRAME_RESERVED = 0x11, /* being written */
    QR_FRAME_TENTATIVE = 0x2d,
    QR_FRAME_DONE = 0x4b,
    QR_FRAME_VOID = 0x87,
};

/* What a RECORD frame says of a write. */
struct qr_frame {
    uint32_t tree_id;
    uint8_t kind; /* enum qr_record_kind */
    bool has_version, has_named;
    uint32_t key_size, value_size;
    const void *key, *value;
    uint64_t version;       /* caller versions */
    uint64_t named_version; /* conditional operation: the version that it replaces */
    uint64_t last_part;     /* not 0: key and value are in PART frames */
    uint64_t first_part;    /* for the writer; not in the frame */
    uint32_t part_count;
};

static inline uint32_t qr_varint_size(uint32_t value)
{
    return value < 128 ? 1 : value < 1u << 14 ? 2 : value < 1u << 21 ? 3 : value < 1u << 28 ? 4 : 5;
}

/* Bytes of payload before the key. */
static inline uint32_t qr_frame_prefix(const struct qr_frame *frame)
{
    return 2 + qr_varint_size(frame->tree_id) + qr_varint_size(frame->key_size) + (frame->has_version ? 8 : 0) +
           (frame->has_named ? 8 : 0) + (frame->last_part != 0 ? 24 : 0);
}

/* Size of the frame as a whole if key and value stand in it. */
static inline uint64_t qr_frame_size(const struct qr_frame *frame)
{
    uint64_t content = frame->last_part != 0 ? 0 : (uint64_t)frame->key_size + frame->value_size;
    return qr_round_up(QR_FRAME_HEADER + qr_frame_prefix(frame) + content, QR_FRAME_UNIT);
}

/* Writes the frame, state TENTATIVE, to `at` (size = qr_frame_size), which is at position lsn of a segment. */
void qr_frame_write(uint8_t *at, const struct qr_frame *frame, uint32_t size, uint64_t lsn, uint32_t salt);

/* A piece of memory that is written as part of a PART. */
struct qr_frame_piece {
    const void *data;
    uint32_t size;
};

static inline uint64_t qr_frame_part_size(uint64_t data_size)
{
    return qr_round_up(QR_FRAME_HEADER + QR_PART_HEADER + data_size, QR_FRAME_UNIT);
}

/* The same for a PART whose data is two pieces, one after the other. */
void qr_frame_write_part(uint8_t *at, uint64_t before, const struct qr_frame_piece pieces[2], uint64_t lsn, uint32_t salt);

/* Fills `size` bytes (a multiple of 16, any number of frames) with fillers; state VOID. */
void qr_frame_fill(uint8_t *at, uint64_t size, uint64_t lsn, uint32_t salt);

/* The header alone of one filler of `size` bytes, to be written there: what follows it means nothing. */
void qr_frame_fill_header(uint8_t *at, uint32_t size, uint64_t lsn, uint32_t salt);

/* Sets the state of a frame that was written. */
static inline void qr_frame_decide(uint8_t *at, enum qr_frame_state state)
{
    /* relaxed: read by the kernel, and by who sees the slot closed */
    atomic_store_explicit((_Atomic uint8_t *)(at + 3), (uint8_t)state, memory_order_relaxed);
}

enum qr_frame_verdict {
    QR_FRAME_GOOD,
    QR_FRAME_HOLE,   /* no frame of this position */
    QR_FRAME_DAMAGE, /* a frame of this position that was finished and does not verify */
};

/* What stands at a position: memory of `room` bytes, which may hold any bytes. GOOD: *ret_size is that of the frame. */
enum qr_frame_verdict qr_frame_look(const uint8_t *at, uint64_t room, uint64_t lsn, uint32_t salt, uint32_t *ret_size);

/* The first position from `lsn` on, which is at `at`, whose header says that it stands there, or is not whole within the `room` bytes. */
uint64_t qr_frame_pass(const uint8_t *at, uint64_t room, uint64_t lsn);

/* memory: of the segment that starts at LSN `start`. The next position from `lsn` on, below `end`, where a whole frame of that
 * position stands; `end` if there is none. */
uint64_t qr_frame_next(const uint8_t *memory, uint64_t start, uint64_t lsn, uint64_t end, uint32_t salt);

static inline enum qr_frame_kind qr_frame_kind_at(const uint8_t *at)
{
    return (enum qr_frame_kind)at[2];
}

static inline enum qr_frame_state qr_frame_state_at(const uint8_t *at)
{
    return (enum qr_frame_state)at[3];
}

/* Takes a RECORD frame that is GOOD apart; key and value point into it. False: it does not say what such a frame says. */
bool qr_frame_parse(const uint8_t *at, uint32_t size, struct qr_frame *ret_frame);

/* The same for a PART. */
bool qr_frame_parse_part(const uint8_t *at, uint32_t size, uint64_t *ret_before, const uint8_t **ret_data,
                         uint32_t *ret_size);

#endif
