/*
 * The sample manifest.
 */
#include "store_sample.h"

#include <string.h>

static void add(struct sample *sample, unsigned append, const struct qr_manifest_record *records, unsigned count)
{
    uint64_t begin = sample->ends[append - 1];
    qr_manifest_append_encode(records, count, 1 + sample->counts[append - 1], sample->seed, sample->file + begin);
    sample->ends[append] = begin + qr_manifest_append_size(records, count);
    sample->counts[append] = sample->counts[append - 1] + count;
}

void sample_make(struct sample *ret_sample)
{
    static uint8_t payloads[SAMPLE_RECORDS][QR_MANIFEST_CHECKPOINT_BYTES];
    struct qr_manifest_store store = {
        .created_seconds = 1767225600,
        .has_log = true,
        .checksum = QR_MANIFEST_CHECKSUM_CRC32C,
        .log_segment_least_bytes = 256 << 10,
        .log_segment_most_bytes = 64 << 20,
        .log_frame_most_bytes = 64 << 10,
        .page_segment_least_bytes = 256 << 10,
        .page_segment_most_bytes = 64 << 20,
    };
    struct qr_manifest_incarnation incarnation = {
        .number = 1,
        .first_lsn = 16,
        .boot_id = {0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf},
        .device = 0xfe01,
        .mount_id = 29,
        .directory_inode = 131074,
    };
    struct qr_manifest_checkpoint checkpoint = {
        .number = 1,
        .replay_from = 0x12340,
        .durable_lsn = 0x15000,
        .mapping_index = {0x20000, 4096},
        .free_ids = {0x21000, 128},
        .range_tombstones = {0x22000, 64},
        .next_page_id = 57,
        .catalogue_root_id = 1,
        .next_segment = 4,
        .next_tree_id = 3,
        .tree_count = 2,
        .page_count = 55,
        .free_id_count = 1,
        .live_bytes = 300000,
    };
    struct qr_manifest_lsn_range range = {.end_lsn = 0x100000};
    struct qr_manifest_poison poison = {.durable_lsn = 0x23000, .checkpoint_number = 2, .os_errno = 5};
    struct qr_manifest_record records[2];

    memset(ret_sample, 0, sizeof(*ret_sample));
    for (unsigned i = 0; i < 16; i++)
        ret_sample->header.store_id[i] = (uint8_t)(0x11 * i);
    ret_sample->header.generation = 1;
    ret_sample->header.first_sequence = 1;
    ret_sample->header.size_bytes = sizeof(ret_sample->file);
    ret_sample->seed = qr_manifest_seed(&ret_sample->header);
    ret_sample->ends[0] = QR_MANIFEST_HEADER_BYTES;

    records[0] = qr_manifest_store_encode(&store, payloads[0]);
    add(ret_sample, 1, records, 1);
    records[0] = qr_manifest_incarnation_encode(&incarnation, payloads[1]);
    add(ret_sample, 2, records, 1);
    records[0] = qr_manifest_checkpoint_encode(&checkpoint, payloads[2]);
    records[1] = qr_manifest_lsn_range_encode(&range, payloads[3]);
    add(ret_sample, 3, records, 2);
    checkpoint.number = 2;
    checkpoint.replay_from = 0x22220;
    checkpoint.durable_lsn = 0x23000;
    records[0] = qr_manifest_checkpoint_encode(&checkpoint, payloads[4]);
    records[1] = qr_manifest_poison_encode(&poison, payloads[5]);
    add(ret_sample, 4, records, 2);

    ret_sample->header.base_end = ret_sample->ends[1];
    qr_manifest_header_encode(&ret_sample->header, ret_sample->file);
}
