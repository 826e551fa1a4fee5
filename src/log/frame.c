/*
 * frame.c: writing frames, and judging bytes that may be one.
 *
 * Layer 3. Pure; see frame.h for the layout.
 */
#include "log/frame.h"

#include "base/bugs.h"
#include "base/crc32c.h"
#include "base/stop.h"

enum { FLAG_VERSION = 16, FLAG_NAMED = 32, FLAG_PARTS = 64, KIND_MASK = 15 };
enum { ASIDE_BYTES = 1024 }; /* unit_log_frames has sizes about it */

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static uint64_t first_word(uint32_t size, enum qr_frame_kind kind, enum qr_frame_state state, uint32_t crc)
{
    return size / QR_FRAME_UNIT | (uint64_t)kind << 16 | (uint64_t)state << 24 | (uint64_t)crc << 32;
}

/* Of what stands in the header, state and sum left out. */
static uint32_t sum_header(uint32_t size, enum qr_frame_kind kind, uint64_t lsn, uint32_t salt)
{
    uint64_t header[2] = {size / QR_FRAME_UNIT | (uint64_t)kind << 16, lsn};
    return qr_crc32c(salt, header, sizeof(header));
}

/* Of the first `covered` bytes of a frame, its payload being in place. */
static uint32_t checksum(const uint8_t *at, uint32_t size, uint32_t covered, enum qr_frame_kind kind, uint64_t lsn,
                         uint32_t salt)
{
    return qr_crc32c(sum_header(size, kind, lsn, salt), at + QR_FRAME_HEADER, covered - QR_FRAME_HEADER);
}

static void begin(uint8_t *at, uint32_t size, enum qr_frame_kind kind)
{
    QR_ASSERT(size % QR_FRAME_UNIT == 0);
    QR_ASSERT(size <= QR_FRAME_MOST_BYTES);
    /* relaxed: the order of FRAME-1 is that of stores to a page that the kernel may write out; release below keeps it */
    atomic_store_explicit((_Atomic uint64_t *)(void *)at, first_word(size, kind, QR_FRAME_RESERVED, 0),
                          memory_order_relaxed);
}

/* The first word, state TENTATIVE, and then the LSN: until that is there, the position is a hole. */
static void name(uint8_t *at, uint32_t size, enum qr_frame_kind kind, uint32_t crc, uint64_t lsn)
{
    uint64_t word = first_word(size, kind, QR_FRAME_TENTATIVE, crc);
    /* order: log.frame.body pairs with nothing in the process: orders the stores of FRAME-1 for a reader after its death */
    atomic_store_explicit((_Atomic uint64_t *)(void *)at, word, memory_order_release);
    QR_STOP("frame.unnamed");
    /* order: log.frame.lsn as above */
    atomic_store_explicit((_Atomic uint64_t *)(void *)(at + 8), lsn, memory_order_release);
    QR_STOP("frame.named");
}

static void end(uint8_t *at, uint32_t size, enum qr_frame_kind kind, uint64_t lsn, uint32_t salt)
{
    name(at, size, kind, checksum(at, size, size, kind, lsn, salt), lsn);
}

/* Of a frame that nobody has to decide about. */
static void end_decided(uint8_t *at, enum qr_frame_state state)
{
    /* order: log.frame.lsn as above: the state comes after the LSN (FRAME-2) */
    atomic_store_explicit((_Atomic uint8_t *)(at + 3), (uint8_t)state, memory_order_release);
}

static uint8_t *put_varint(uint8_t *to, uint32_t value)
{
    while (value >= 128) {
        *to++ = (uint8_t)(value | 128);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

static uint8_t *put_u64(uint8_t *to, uint64_t value)
{
    qr_store_u64(to, value);
    return to + 8;
}

/* What follows the header, all `room` bytes of it. */
static void write_body(uint8_t *body, const struct qr_frame *frame, uint32_t room)
{
    uint8_t *to = body + 2;
    uint8_t flags = frame->kind;

    to = put_varint(to, frame->tree_id);
    to = put_varint(to, frame->key_size);
    if (frame->has_version) {
        flags |= FLAG_VERSION;
        to = put_u64(to, frame->version);
    }
    if (frame->has_named) {
        flags |= FLAG_NAMED;
        to = put_u64(to, frame->named_version);
    }
    if (frame->last_part != 0) {
        flags |= FLAG_PARTS;
        to = put_u64(put_u64(put_u64(to, frame->last_part), frame->part_count), frame->value_size);
    } else {
        qr_copy(to, frame->key, frame->key_size);
        qr_copy(to + frame->key_size, frame->value, frame->value_size);
        to += (uint64_t)frame->key_size + frame->value_size;
    }
    uint32_t padding = (uint32_t)(body + room - to);
    QR_ASSERT(padding < QR_FRAME_UNIT);
    memset(to, 0, padding);
    body[0] = flags;
    body[1] = (uint8_t)padding;
}

/*
 * A small frame is put together and summed aside: its lines in the log may not be in the cache yet, and to sum it there is to
 * wait for them; only to store there is not.
 */
void qr_frame_write(uint8_t *at, const struct qr_frame *frame, uint32_t size, uint64_t lsn, uint32_t salt)
{
    _Alignas(16) uint8_t aside[ASIDE_BYTES];
    const uint32_t room = size - QR_FRAME_HEADER;
    const bool small = room <= sizeof(aside);
    uint8_t *body = small ? aside : at + QR_FRAME_HEADER;

    begin(at, size, QR_FRAME_RECORD);
    write_body(body, frame, room);
    uint32_t crc = qr_crc32c(sum_header(size, QR_FRAME_RECORD, lsn, salt), body, room);
    if (small) qr_copy(at + QR_FRAME_HEADER, aside, room);
    name(at, size, QR_FRAME_RECORD, crc, lsn);
}

void qr_frame_write_part(uint8_t *at, uint64_t before, const struct qr_frame_piece pieces[2], uint64_t lsn,
                         uint32_t salt)
{
    uint32_t data_size = pieces[0].size + pieces[1].size;
    uint32_t size = (uint32_t)qr_frame_part_size(data_size);
    uint8_t *to = at + QR_FRAME_HEADER;

    begin(at, size, QR_FRAME_PART);
    qr_store_u64(to, before);
    qr_store_u32(to + 8, data_size);
    qr_store_u32(to + 12, 0);
    to += QR_PART_HEADER;
    qr_copy(to, pieces[0].data, pieces[0].size);
    qr_copy(to + pieces[0].size, pieces[1].data, pieces[1].size);
    to += data_size;
    memset(to, 0, (size_t)(at + size - to));
    end(at, size, QR_FRAME_PART, lsn, salt);
    end_decided(at, QR_FRAME_DONE);
}

void qr_frame_fill_header(uint8_t *at, uint32_t size, uint64_t lsn, uint32_t salt)
{
    name(at, size, QR_FRAME_FILLER, checksum(at, size, QR_FRAME_HEADER, QR_FRAME_FILLER, lsn, salt), lsn);
    end_decided(at, QR_FRAME_VOID);
}

void qr_frame_fill(uint8_t *at, uint64_t size, uint64_t lsn, uint32_t salt)
{
    for (uint64_t done = 0; done < size; done += QR_FRAME_MOST_BYTES) {
        uint32_t piece = (uint32_t)qr_min(size - done, QR_FRAME_MOST_BYTES);
        qr_frame_fill_header(at + done, piece, lsn + done, salt);
    }
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

enum qr_frame_verdict qr_frame_look(const uint8_t *at, uint64_t room, uint64_t lsn, uint32_t salt, uint32_t *ret_size)
{
    if (room < QR_FRAME_HEADER) return QR_FRAME_HOLE;
    const bool here = qr_load_u64(at + 8) == lsn;
    uint32_t size = qr_load_u16(at) * QR_FRAME_UNIT;
    enum qr_frame_kind kind = qr_frame_kind_at(at);
    enum qr_frame_state state = qr_frame_state_at(at);
    bool sane = size >= QR_FRAME_HEADER && size <= QR_FRAME_MOST_BYTES && size <= room && kind >= QR_FRAME_FILLER &&
                kind <= QR_FRAME_PART &&
                (state == QR_FRAME_TENTATIVE || state == QR_FRAME_DONE || state == QR_FRAME_VOID);
    /* States are decided after the LSN was stored: so a decided frame whose sum is that of this position was here once. */
    if (!here && (!sane || state == QR_FRAME_TENTATIVE)) return QR_FRAME_HOLE;
    if (!sane) return QR_FRAME_DAMAGE;
    uint32_t covered = kind == QR_FRAME_FILLER ? QR_FRAME_HEADER : size; /* a filler's rest is anything */
    uint32_t crc = checksum(at, size, covered, kind, lsn, salt);
    const bool right = crc == qr_load_u32(at + 4) || (here && QR_BUG(log_frame_unchecked));
    if (!here && !right) return QR_FRAME_HOLE;
    if (!here || !right) return QR_FRAME_DAMAGE;
    *ret_size = size;
    return QR_FRAME_GOOD;
}

uint64_t qr_frame_pass(const uint8_t *at, uint64_t room, uint64_t lsn)
{
    const uint8_t *end = at + room;
    for (; (size_t)(end - at) >= QR_FRAME_HEADER; at += QR_FRAME_UNIT, lsn += QR_FRAME_UNIT)
        if (qr_load_u64(at + 8) == lsn) break;
    return lsn;
}

uint64_t qr_frame_next(const uint8_t *memory, uint64_t start, uint64_t lsn, uint64_t end, uint32_t salt)
{
    uint32_t size;
    for (; lsn < end; lsn += QR_FRAME_UNIT) {
        lsn = qr_frame_pass(memory + (lsn - start), end - lsn, lsn);
        if (qr_frame_look(memory + (lsn - start), end - lsn, lsn, salt, &size) == QR_FRAME_GOOD) return lsn;
    }
    return end;
}

static bool get_varint(const uint8_t **at, const uint8_t *end, uint32_t *ret_value)
{
    uint32_t value = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        if (*at == end) return false;
        uint8_t byte = *(*at)++;
        if (shift == 28 && byte > 15) return false;
        value |= (uint32_t)(byte & 127) << shift;
        if (byte < 128) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool get_u64(const uint8_t **at, const uint8_t *end, uint64_t *ret_value)
{
    if (end - *at < 8) return false;
    *ret_value = qr_load_u64(*at);
    *at += 8;
    return true;
}

bool qr_frame_parse(const uint8_t *at, uint32_t size, struct qr_frame *ret_frame)
{
    struct qr_frame frame = {0};
    if (size < QR_FRAME_HEADER + QR_FRAME_UNIT) return false;
    uint8_t flags = at[QR_FRAME_HEADER];
    uint8_t padding = at[QR_FRAME_HEADER + 1];
    const uint8_t *from = at + QR_FRAME_HEADER + 2;
    const uint8_t *end = at + size - padding;

    if (padding >= QR_FRAME_UNIT || from > end || flags >= 128) return false;
    frame.kind = flags & KIND_MASK;
    frame.has_version = (flags & FLAG_VERSION) != 0;
    frame.has_named = (flags & FLAG_NAMED) != 0;
    if (!get_varint(&from, end, &frame.tree_id) || !get_varint(&from, end, &frame.key_size)) return false;
    if (frame.has_version && !get_u64(&from, end, &frame.version)) return false;
    if (frame.has_named && !get_u64(&from, end, &frame.named_version)) return false;
    if ((flags & FLAG_PARTS) != 0) {
        uint64_t count;
        uint64_t value_size;
        if (!get_u64(&from, end, &frame.last_part) || !get_u64(&from, end, &count) || !get_u64(&from, end, &value_size))
            return false;
        if (frame.last_part == 0 || count == 0 || count > UINT32_MAX || value_size > UINT32_MAX || from != end)
            return false;
        frame.part_count = (uint32_t)count;
        frame.value_size = (uint32_t)value_size;
    } else {
        if ((uint64_t)(end - from) < frame.key_size) return false;
        frame.key = from;
        frame.value = from + frame.key_size;
        frame.value_size = (uint32_t)(end - from) - frame.key_size;
    }
    *ret_frame = frame;
    return true;
}

bool qr_frame_parse_part(const uint8_t *at, uint32_t size, uint64_t *ret_before, const uint8_t **ret_data,
                         uint32_t *ret_size)
{
    if (size < QR_FRAME_HEADER + QR_PART_HEADER) return false;
    uint32_t data_size = qr_load_u32(at + QR_FRAME_HEADER + 8);
    if (data_size > size - QR_FRAME_HEADER - QR_PART_HEADER) return false;
    *ret_before = qr_load_u64(at + QR_FRAME_HEADER);
    *ret_data = at + QR_FRAME_HEADER + QR_PART_HEADER;
    *ret_size = data_size;
    return true;
}
