/*
 * manifest_format.c: the header and the records of a manifest as bytes, and which records of a file count.
 *
 * Layer 4. Pure. Nothing in a file is believed before its sum was right, and sizes not even then.
 */
#include "store/manifest_format.h"

#include <inttypes.h>
#include <string.h>

#include "base/bugs.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"

/* ---- Header ----------------------------------------------------------------------------------------------------- */

#define NUMBER_MOST (UINT64_MAX / 2) /* of generations and sequences: nobody gets there, and who writes on counts on from them */

enum header_offset {
    HEADER_MAGIC = 0,
    HEADER_VERSION = 8,
    HEADER_SIZE = 12,
    HEADER_STORE_ID = 16,
    HEADER_GENERATION = 32,
    HEADER_FIRST_SEQUENCE = 40,
    HEADER_FILE_SIZE = 48,
    HEADER_BASE_END = 56,
    HEADER_COMPATIBLE = 64,
    HEADER_READ_COMPATIBLE = 72,
    HEADER_INCOMPATIBLE = 80,
    HEADER_CRC = QR_MANIFEST_HEADER_BYTES - 4,
};

void qr_manifest_header_encode(const struct qr_manifest_header *header, uint8_t *to)
{
    memset(to, 0, QR_MANIFEST_HEADER_BYTES);
    memcpy(to + HEADER_MAGIC, QR_MANIFEST_MAGIC, QR_MANIFEST_MAGIC_BYTES);
    qr_store_u32(to + HEADER_VERSION, QR_MANIFEST_VERSION);
    qr_store_u32(to + HEADER_SIZE, QR_MANIFEST_HEADER_BYTES);
    memcpy(to + HEADER_STORE_ID, header->store_id, sizeof(header->store_id));
    qr_store_u64(to + HEADER_GENERATION, header->generation);
    qr_store_u64(to + HEADER_FIRST_SEQUENCE, header->first_sequence);
    qr_store_u64(to + HEADER_FILE_SIZE, header->size_bytes);
    qr_store_u64(to + HEADER_BASE_END, header->base_end);
    qr_store_u64(to + HEADER_COMPATIBLE, header->features_compatible);
    qr_store_u64(to + HEADER_READ_COMPATIBLE, header->features_read_compatible);
    qr_store_u64(to + HEADER_INCOMPATIBLE, header->features_incompatible);
    qr_store_u32(to + HEADER_CRC, qr_crc32c(0, to, HEADER_CRC));
}

static bool has_magic(const uint8_t *bytes)
{
    return memcmp(bytes + HEADER_MAGIC, QR_MANIFEST_MAGIC, QR_MANIFEST_MAGIC_BYTES) == 0;
}

/* As if the magic were right: so that damage to it is told from a foreign file. */
static bool has_right_sum(const uint8_t *bytes)
{
    uint32_t crc = qr_crc32c(0, QR_MANIFEST_MAGIC, QR_MANIFEST_MAGIC_BYTES);
    crc = qr_crc32c(crc, bytes + QR_MANIFEST_MAGIC_BYTES, HEADER_CRC - QR_MANIFEST_MAGIC_BYTES);
    return crc == qr_load_u32(bytes + HEADER_CRC);
}

static int check_features(const struct qr_manifest_header *header, bool for_writing)
{
    uint64_t incompatible = header->features_incompatible & ~QR_MANIFEST_KNOWN_INCOMPATIBLE;
    uint64_t read_compatible = header->features_read_compatible & ~QR_MANIFEST_KNOWN_READ_COMPATIBLE;
    if (incompatible != 0)
        return qr_fail(QUIRE_ERR_NEWER, 0, "manifest: unknown incompatible features 0x%" PRIx64, incompatible);
    if (for_writing && read_compatible != 0)
        return qr_fail(QUIRE_ERR_NEWER, 0, "manifest: unknown features 0x%" PRIx64 " allow reading only",
                       read_compatible);
    return 0;
}

static bool has_sound_sizes(const struct qr_manifest_header *header)
{
    return header->first_sequence != 0 && header->size_bytes <= QR_MANIFEST_SIZE_MOST &&
           header->size_bytes % QR_MANIFEST_UNIT == 0 && header->base_end % QR_MANIFEST_UNIT == 0 &&
           header->base_end >= QR_MANIFEST_HEADER_BYTES + QR_MANIFEST_RECORD_HEADER_BYTES &&
           header->base_end <= header->size_bytes;
}

int qr_manifest_header_decode(const uint8_t *bytes, size_t size, bool for_writing,
                              struct qr_manifest_header *ret_header)
{
    bool is_whole = size >= QR_MANIFEST_HEADER_BYTES;
    if (size < QR_MANIFEST_MAGIC_BYTES || (!has_magic(bytes) && !(is_whole && has_right_sum(bytes))))
        return qr_fail(QUIRE_ERR_FOREIGN, 0, "manifest: not a manifest of Quire");
    if (!is_whole)
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: cut short in its header, at %zu bytes", size);
    if (!has_magic(bytes) || !has_right_sum(bytes))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: damaged header");

    uint32_t version = qr_load_u32(bytes + HEADER_VERSION);
    if (version > QR_MANIFEST_VERSION)
        return qr_fail(QUIRE_ERR_NEWER, 0, "manifest: format version %" PRIu32, version);

    struct qr_manifest_header header = {
        .generation = qr_load_u64(bytes + HEADER_GENERATION),
        .first_sequence = qr_load_u64(bytes + HEADER_FIRST_SEQUENCE),
        .size_bytes = qr_load_u64(bytes + HEADER_FILE_SIZE),
        .base_end = qr_load_u64(bytes + HEADER_BASE_END),
        .features_compatible = qr_load_u64(bytes + HEADER_COMPATIBLE),
        .features_read_compatible = qr_load_u64(bytes + HEADER_READ_COMPATIBLE),
        .features_incompatible = qr_load_u64(bytes + HEADER_INCOMPATIBLE),
    };
    memcpy(header.store_id, bytes + HEADER_STORE_ID, sizeof(header.store_id));
    int result = check_features(&header, for_writing);
    if (result != 0)
        return result;
    uint64_t most = for_writing ? NUMBER_MOST - UINT32_MAX : NUMBER_MOST; /* what a writer makes of it is to be read again */
    if (header.first_sequence > most || header.generation > most)
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: numbers that nobody comes to");
    if (version == 0 || qr_load_u32(bytes + HEADER_SIZE) != QR_MANIFEST_HEADER_BYTES || !has_sound_sizes(&header))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: a header that nobody writes");
    *ret_header = header;
    return 0;
}

static bool is_zero(const uint8_t *bytes, uint64_t size)
{
    uint8_t any = 0;
    for (uint64_t i = 0; i < size; i++)
        any |= bytes[i];
    return any == 0;
}

/* Some bytes of the magic arrived, and not the others: nothing else was written before it was synced. */
static bool is_part_of_magic(const uint8_t *bytes)
{
    for (uint32_t i = 0; i < QR_MANIFEST_MAGIC_BYTES; i++)
        if (bytes[i] != 0 && bytes[i] != (uint8_t)QR_MANIFEST_MAGIC[i])
            return false;
    return true;
}

bool qr_manifest_is_leftover(const uint8_t *bytes, uint64_t size_bytes, const uint8_t *store_id)
{
    const uint64_t head_bytes = qr_min(size_bytes, QR_MANIFEST_HEADER_BYTES);
    if (is_zero(bytes, head_bytes))
        return true;
    if (size_bytes < QR_MANIFEST_MAGIC_BYTES)
        return false;
    if (is_part_of_magic(bytes) && is_zero(bytes + QR_MANIFEST_MAGIC_BYTES, head_bytes - QR_MANIFEST_MAGIC_BYTES))
        return true;
    if (!has_magic(bytes))
        return false;
    bool is_whole = size_bytes >= QR_MANIFEST_HEADER_BYTES && has_right_sum(bytes);
    return !is_whole || store_id == NULL || memcmp(bytes + HEADER_STORE_ID, store_id, 16) == 0;
}

/* ---- Records ---------------------------------------------------------------------------------------------------- */

enum record_offset {
    RECORD_CRC = 0,
    RECORD_SIZE = 4,
    RECORD_SEQUENCE = 8,
    RECORD_KIND = 16,
    RECORD_FLAGS = 18,
    RECORD_INDEX = 20,
    RECORD_COUNT = 22,
    RECORD_PAYLOAD_SIZE = 24,
    RECORD_PAYLOAD = QR_MANIFEST_RECORD_HEADER_BYTES,
};

enum { RECORD_OPTIONAL = 1 };

static size_t record_size(uint32_t payload_size)
{
    return QR_MANIFEST_RECORD_HEADER_BYTES + qr_round_up(payload_size, QR_MANIFEST_UNIT);
}

uint32_t qr_manifest_seed(const struct qr_manifest_header *header)
{
    uint8_t generation[8];
    qr_store_u64(generation, header->generation);
    return qr_crc32c(qr_crc32c(0, header->store_id, sizeof(header->store_id)), generation, sizeof(generation));
}

size_t qr_manifest_append_size(const struct qr_manifest_record *records, size_t count)
{
    size_t size = 0;
    if (count > QR_MANIFEST_RECORDS_MOST)
        return 0;
    for (size_t i = 0; i < count; i++) {
        if (records[i].size > QR_MANIFEST_PAYLOAD_MOST)
            return 0;
        size += record_size(records[i].size);
    }
    return size;
}

void qr_manifest_append_encode(const struct qr_manifest_record *records, size_t count, uint64_t sequence, uint32_t seed,
                               uint8_t *to)
{
    for (size_t i = 0; i < count; i++) {
        size_t size = record_size(records[i].size);
        memset(to, 0, size);
        qr_store_u32(to + RECORD_SIZE, (uint32_t)size);
        qr_store_u64(to + RECORD_SEQUENCE, sequence + i);
        qr_store_u16(to + RECORD_KIND, records[i].kind);
        qr_store_u16(to + RECORD_FLAGS, records[i].optional ? RECORD_OPTIONAL : 0);
        qr_store_u16(to + RECORD_INDEX, (uint16_t)i);
        qr_store_u16(to + RECORD_COUNT, (uint16_t)count);
        qr_store_u32(to + RECORD_PAYLOAD_SIZE, records[i].size);
        qr_copy(to + RECORD_PAYLOAD, records[i].payload, records[i].size);
        qr_store_u32(to + RECORD_CRC, qr_crc32c(seed, to + RECORD_SIZE, size - RECORD_SIZE));
        to += size;
    }
}

uint64_t qr_manifest_record_at(const uint8_t *file, uint64_t offset, struct qr_manifest_record *ret_record)
{
    const uint8_t *at = file + offset;
    *ret_record = (struct qr_manifest_record){
        .kind = qr_load_u16(at + RECORD_KIND),
        .optional = (qr_load_u16(at + RECORD_FLAGS) & RECORD_OPTIONAL) != 0,
        .size = qr_load_u32(at + RECORD_PAYLOAD_SIZE),
        .payload = at + RECORD_PAYLOAD,
        .sequence = qr_load_u64(at + RECORD_SEQUENCE),
    };
    return offset + qr_load_u32(at + RECORD_SIZE);
}

/* ---- What counts ------------------------------------------------------------------------------------------------ */

/* A place of a record in a file: what it says of itself and its neighbours. */
struct place {
    uint64_t sequence;
    uint32_t size, index, count;
};

/* Is there a right record at offset? */
static bool look(const uint8_t *file, uint64_t file_size, uint64_t offset, uint32_t seed, struct place *ret_place)
{
    const uint8_t *at = file + offset;
    if (file_size - offset < QR_MANIFEST_RECORD_HEADER_BYTES)
        return false;
    uint32_t size = qr_load_u32(at + RECORD_SIZE);
    uint32_t payload_size = qr_load_u32(at + RECORD_PAYLOAD_SIZE);
    if (size > file_size - offset || payload_size > QR_MANIFEST_PAYLOAD_MOST || size != record_size(payload_size))
        return false;
    if (qr_crc32c(seed, at + RECORD_SIZE, size - RECORD_SIZE) != qr_load_u32(at + RECORD_CRC))
        return false;
    *ret_place = (struct place){
        .sequence = qr_load_u64(at + RECORD_SEQUENCE),
        .size = size,
        .index = qr_load_u16(at + RECORD_INDEX),
        .count = qr_load_u16(at + RECORD_COUNT),
    };
    return true;
}

/* The end of a whole append at offset that begins with this sequence number, or 0 (FORMAT-1). */
static uint64_t append_end(const uint8_t *file, uint64_t file_size, uint64_t offset, uint32_t seed, uint64_t sequence,
                           uint32_t *ret_count)
{
    struct place place;
    uint32_t index = 0, count = 0;
    do {
        bool is_next = look(file, file_size, offset, seed, &place) && place.sequence == sequence + index &&
                       place.index == index && (index == 0 || place.count == count);
        if (!is_next && QR_BUG(manifest_half_append) && index != 0)
            break;
        if (!is_next)
            return 0;
        count = place.count;
        offset += place.size;
        index++;
    } while (index < count);
    *ret_count = index;
    return offset;
}

/* The file was cut at file_size. Is it certain that no append is missing behind `end`? */
static bool nothing_was_cut(const uint8_t *file, uint64_t file_size, uint64_t end, uint64_t full_size)
{
    if (full_size - end < QR_MANIFEST_RECORD_HEADER_BYTES)
        return true; /* there was no room for any */
    return file_size - end >= QR_MANIFEST_UNIT && is_zero(file + end, QR_MANIFEST_UNIT);
}

/* Is there a right record behind `end` that is not of an append that begins there, with this sequence number? */
static bool has_stray_record(const uint8_t *file, uint64_t file_size, uint64_t end, uint32_t seed, uint64_t sequence)
{
    struct place place;
    for (uint64_t offset = end; offset < file_size; offset += QR_MANIFEST_UNIT) {
        if (look(file, file_size, offset, seed, &place) && place.sequence - place.index != sequence)
            return true;
    }
    return false;
}

/*
 * The appends that count are those that follow the header without a gap, each whole. What ends them is either the end
 * of what was ever appended, or an append that lost power, or damage. Which, follows from MANIFEST-2 and MANIFEST-3:
 *
 *   - Before base_end there is no torn state: these bytes were durable before the file had its name. Damage.
 *   - Behind it, an append was begun only when all before it was durable, and when all behind its begin was zeros,
 * durable too. So at a loss of power there are whole appends, then any mixture of zeros and of the bytes of one append,
 * the last one; nobody was told that it is there. It is cut: a right record in it belongs to an append that begins just
 *     where the whole ones end, with the sequence number that is due there. That is legal. A last append that was
 * durable and then damaged looks the same and is cut as well: no bytes in this file could tell. (The log can: its
 * segments below the lost checkpoint are gone.)
 *   - A right record behind the gap with another beginning than that is of a later append. Then the one in the gap was
 *     durable once. Damage; no prefix is handed out as if it were all.
 *   - A file that is shorter than its header says was cut by somebody, for its size was durable with the header. If the
 *     first bytes behind the last whole append are there and zero, nothing that was ever durable is missing: an append
 *     begins with its size and its sequence number, which are not zero. Otherwise any number of appends may be missing.
 *     Damage.
 */
int qr_manifest_scan(const uint8_t *file, uint64_t size, const struct qr_manifest_header *header,
                     struct qr_manifest_extent *ret_extent)
{
    struct qr_manifest_extent extent = {0, QR_MANIFEST_HEADER_BYTES, header->first_sequence};
    uint32_t seed = qr_manifest_seed(header), count = 0;
    uint64_t end;

    size = qr_min(size, header->size_bytes);
    while ((end = append_end(file, size, extent.end, seed, extent.next_sequence, &count)) != 0) {
        extent.last_begin = extent.end;
        extent.end = end;
        extent.next_sequence += count;
    }
    if (extent.end < header->base_end)
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: damaged or cut at %" PRIu64, extent.end);
    if (size < header->size_bytes && !nothing_was_cut(file, size, extent.end, header->size_bytes))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: cut at %" PRIu64 " of %" PRIu64 " bytes", size,
                       header->size_bytes);
    if (has_stray_record(file, size, extent.end, seed, extent.next_sequence))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: damaged at %" PRIu64 ", with records behind it", extent.end);
    *ret_extent = extent;
    return 0;
}
