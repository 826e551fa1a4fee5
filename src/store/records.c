/*
 * records.c: payloads of the manifest's records as bytes.
 *
 * Layer 4. Pure. The offsets are those of the tables in records.h.
 */
#include "store/records.h"

#include <string.h>

#include "base/bytes.h"
#include "base/status.h"

bool qr_manifest_kind_is_known(uint16_t kind)
{
    return kind >= QR_MANIFEST_STORE && kind <= QR_MANIFEST_POISON;
}

static struct qr_manifest_record record_of(enum qr_manifest_kind kind, const uint8_t *payload, uint32_t size)
{
    return (struct qr_manifest_record){.kind = (uint16_t)kind, .payload = payload, .size = size};
}

static int check_size(const struct qr_manifest_record *record, uint32_t least, const char *name)
{
    if (record->size >= least)
        return 0;
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: a record %s of %u bytes", name, (unsigned)record->size);
}

static int fail_number(const char *name, const char *field, uint64_t value)
{
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: a record %s whose %s is %llu", name, field,
                   (unsigned long long)value);
}

/* ---- STORE ------------------------------------------------------------------------------------------------------ */

struct qr_manifest_record qr_manifest_store_encode(const struct qr_manifest_store *store, uint8_t *to)
{
    memset(to, 0, QR_MANIFEST_STORE_BYTES);
    qr_store_u64(to, store->created_seconds);
    qr_store_u32(to + 8, store->has_log ? 1 : 0);
    qr_store_u32(to + 12, store->checksum);
    qr_store_u32(to + 16, store->log_segment_least_bytes);
    qr_store_u32(to + 20, store->log_segment_most_bytes);
    qr_store_u32(to + 24, store->log_frame_most_bytes);
    qr_store_u32(to + 28, store->page_segment_least_bytes);
    qr_store_u32(to + 32, store->page_segment_most_bytes);
    return record_of(QR_MANIFEST_STORE, to, QR_MANIFEST_STORE_BYTES);
}

int qr_manifest_store_decode(const struct qr_manifest_record *record, struct qr_manifest_store *ret_store)
{
    const uint8_t *at = record->payload;
    int result = check_size(record, QR_MANIFEST_STORE_BYTES, "STORE");
    if (result != 0)
        return result;
    if (qr_load_u32(at + 8) > 1)
        return fail_number("STORE", "log", qr_load_u32(at + 8));
    if (qr_load_u32(at + 12) != QR_MANIFEST_CHECKSUM_CRC32C)
        return qr_fail(QUIRE_ERR_NEWER, 0, "manifest: checksum number %u", (unsigned)qr_load_u32(at + 12));
    *ret_store = (struct qr_manifest_store){
        .created_seconds = qr_load_u64(at),
        .has_log = qr_load_u32(at + 8) != 0,
        .checksum = qr_load_u32(at + 12),
        .log_segment_least_bytes = qr_load_u32(at + 16),
        .log_segment_most_bytes = qr_load_u32(at + 20),
        .log_frame_most_bytes = qr_load_u32(at + 24),
        .page_segment_least_bytes = qr_load_u32(at + 28),
        .page_segment_most_bytes = qr_load_u32(at + 32),
    };
    return 0;
}

/* ---- INCARNATION ------------------------------------------------------------------------------------------------ */

struct qr_manifest_record qr_manifest_incarnation_encode(const struct qr_manifest_incarnation *incarnation, uint8_t *to)
{
    qr_store_u64(to, incarnation->number);
    qr_store_u64(to + 8, incarnation->first_lsn);
    qr_store_u64(to + 16, incarnation->previous_end_lsn);
    memcpy(to + 24, incarnation->boot_id, sizeof(incarnation->boot_id));
    qr_store_u64(to + 40, incarnation->device);
    qr_store_u64(to + 48, incarnation->mount_id);
    qr_store_u64(to + 56, incarnation->directory_inode);
    return record_of(QR_MANIFEST_INCARNATION, to, QR_MANIFEST_INCARNATION_BYTES);
}

int qr_manifest_incarnation_decode(const struct qr_manifest_record *record,
                                   struct qr_manifest_incarnation *ret_incarnation)
{
    const uint8_t *at = record->payload;
    int result = check_size(record, QR_MANIFEST_INCARNATION_BYTES, "INCARNATION");
    if (result != 0)
        return result;
    struct qr_manifest_incarnation incarnation = {
        .number = qr_load_u64(at),
        .first_lsn = qr_load_u64(at + 8),
        .previous_end_lsn = qr_load_u64(at + 16),
        .device = qr_load_u64(at + 40),
        .mount_id = qr_load_u64(at + 48),
        .directory_inode = qr_load_u64(at + 56),
    };
    memcpy(incarnation.boot_id, at + 24, sizeof(incarnation.boot_id));
    if (incarnation.number == 0)
        return fail_number("INCARNATION", "number", 0);
    if (incarnation.previous_end_lsn > incarnation.first_lsn)
        return fail_number("INCARNATION", "end of the one before", incarnation.previous_end_lsn);
    *ret_incarnation = incarnation;
    return 0;
}

/* ---- CHECKPOINT ------------------------------------------------------------------------------------------------- */

/* Address and size, which in the tables follow one another. */
static void put_place(uint8_t *to, struct qr_manifest_place place)
{
    qr_store_u64(to, place.address);
    qr_store_u32(to + 8, place.size_bytes);
}

static struct qr_manifest_place get_place(const uint8_t *at)
{
    return (struct qr_manifest_place){qr_load_u64(at), qr_load_u32(at + 8)};
}

struct qr_manifest_record qr_manifest_checkpoint_encode(const struct qr_manifest_checkpoint *checkpoint, uint8_t *to)
{
    memset(to, 0, QR_MANIFEST_CHECKPOINT_BYTES);
    qr_store_u64(to, checkpoint->number);
    qr_store_u64(to + 8, checkpoint->replay_from);
    qr_store_u64(to + 16, checkpoint->durable_lsn);
    qr_store_u64(to + 24, checkpoint->as_of_lsn);
    put_place(to + 32, checkpoint->mapping_index);
    qr_store_u64(to + 48, checkpoint->next_page_id);
    put_place(to + 56, checkpoint->free_ids);
    qr_store_u32(to + 68, checkpoint->next_tree_id);
    qr_store_u64(to + 72, checkpoint->catalogue_root_id);
    put_place(to + 80, checkpoint->range_tombstones);
    qr_store_u32(to + 92, checkpoint->tree_count);
    qr_store_u64(to + 96, checkpoint->next_segment);
    qr_store_u64(to + 104, checkpoint->page_count);
    qr_store_u64(to + 112, checkpoint->free_id_count);
    qr_store_u64(to + 120, checkpoint->live_bytes);
    qr_store_u64(to + 128, checkpoint->last_lsn);
    return record_of(QR_MANIFEST_CHECKPOINT, to, QR_MANIFEST_CHECKPOINT_BYTES);
}

int qr_manifest_checkpoint_decode(const struct qr_manifest_record *record,
                                  struct qr_manifest_checkpoint *ret_checkpoint)
{
    const uint8_t *at = record->payload;
    int result = check_size(record, QR_MANIFEST_CHECKPOINT_BYTES, "CHECKPOINT");
    if (result != 0)
        return result;
    if (qr_load_u64(at) == 0)
        return fail_number("CHECKPOINT", "number", 0);
    *ret_checkpoint = (struct qr_manifest_checkpoint){
        .number = qr_load_u64(at),
        .replay_from = qr_load_u64(at + 8),
        .durable_lsn = qr_load_u64(at + 16),
        .as_of_lsn = qr_load_u64(at + 24),
        .mapping_index = get_place(at + 32),
        .next_page_id = qr_load_u64(at + 48),
        .free_ids = get_place(at + 56),
        .next_tree_id = qr_load_u32(at + 68),
        .catalogue_root_id = qr_load_u64(at + 72),
        .range_tombstones = get_place(at + 80),
        .tree_count = qr_load_u32(at + 92),
        .next_segment = qr_load_u64(at + 96),
        .page_count = qr_load_u64(at + 104),
        .free_id_count = qr_load_u64(at + 112),
        .live_bytes = qr_load_u64(at + 120),
        .last_lsn = qr_load_u64(at + 128),
    };
    return 0;
}

/* ---- LSN_RANGE and POISON --------------------------------------------------------------------------------------- */

struct qr_manifest_record qr_manifest_lsn_range_encode(const struct qr_manifest_lsn_range *range, uint8_t *to)
{
    memset(to, 0, QR_MANIFEST_LSN_RANGE_BYTES);
    qr_store_u64(to, range->end_lsn);
    return record_of(QR_MANIFEST_LSN_RANGE, to, QR_MANIFEST_LSN_RANGE_BYTES);
}

int qr_manifest_lsn_range_decode(const struct qr_manifest_record *record, struct qr_manifest_lsn_range *ret_range)
{
    int result = check_size(record, QR_MANIFEST_LSN_RANGE_BYTES, "LSN_RANGE");
    if (result != 0)
        return result;
    *ret_range = (struct qr_manifest_lsn_range){.end_lsn = qr_load_u64(record->payload)};
    return 0;
}

struct qr_manifest_record qr_manifest_poison_encode(const struct qr_manifest_poison *poison, uint8_t *to)
{
    memset(to, 0, QR_MANIFEST_POISON_BYTES);
    qr_store_u64(to, poison->durable_lsn);
    qr_store_u64(to + 8, poison->checkpoint_number);
    qr_store_u32(to + 16, (uint32_t)poison->os_errno);
    return record_of(QR_MANIFEST_POISON, to, QR_MANIFEST_POISON_BYTES);
}

int qr_manifest_poison_decode(const struct qr_manifest_record *record, struct qr_manifest_poison *ret_poison)
{
    const uint8_t *at = record->payload;
    int result = check_size(record, QR_MANIFEST_POISON_BYTES, "POISON");
    if (result != 0)
        return result;
    *ret_poison = (struct qr_manifest_poison){
        .durable_lsn = qr_load_u64(at),
        .checkpoint_number = qr_load_u64(at + 8),
        .os_errno = (int32_t)qr_load_u32(at + 16),
    };
    return 0;
}
