/*
 * Goal: payloads are the bytes of the tables, come back as they were, may grow and may not shrink; the dump in
 * doc/file-format.md shows what is written.
 * Method: fields of random numbers; payloads of other lengths; the sample manifest dumped and compared with the
 * document.
 */
#include "document.h"
#include "store_sample.h"

#include "../lib/random.h"
#include "base/bytes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include <quire/quire.h>

static struct random_stream random_numbers;

static uint64_t any(void)
{
    return random_next(&random_numbers);
}

/* Fills a field of any integer type. */
#define ANY(field) ((field) = (__typeof__(field))any())

static struct qr_manifest_place any_place(void)
{
    return (struct qr_manifest_place){any(), (uint32_t)any()};
}

/* As read from a file: a payload without alignment, and longer than this version knows. */
static struct qr_manifest_record grown(const struct qr_manifest_record *record)
{
    static uint8_t payload[512];
    struct qr_manifest_record longer = *record;
    memset(payload, 0xee, sizeof(payload));
    memcpy(payload + 1, record->payload, record->size);
    longer.payload = payload + 1;
    longer.size += 40;
    return longer;
}

/* Encodes, decodes, encodes again; then too short a payload. Structs have padding, so the payloads are compared. */
#define ROUND_TRIP(name, value, size_bytes, kind_number)                                                               \
    do {                                                                                                               \
        uint8_t first[size_bytes], second[size_bytes];                                                                 \
        __typeof__(value) read;                                                                                        \
        struct qr_manifest_record record = qr_manifest_##name##_encode(&(value), first);                               \
        cr_assert_eq(record.kind, kind_number);                                                                        \
        cr_assert_eq(record.size, size_bytes);                                                                         \
        cr_assert_eq(record.size % 16, 0);                                                                             \
        cr_assert(record.payload == first && !record.optional);                                                        \
        cr_assert(qr_manifest_kind_is_known(record.kind));                                                             \
        struct qr_manifest_record longer = grown(&record);                                                             \
        cr_assert_eq(qr_manifest_##name##_decode(&longer, &read), 0);                                                  \
        qr_manifest_##name##_encode(&read, second);                                                                    \
        cr_assert_arr_eq(first, second, size_bytes);                                                                   \
        for (record.size = 0; record.size < size_bytes; record.size++)                                                 \
            cr_assert_eq(qr_manifest_##name##_decode(&record, &read), QUIRE_ERR_CORRUPT);                              \
    } while (0)

Test(store_records, payloads_come_back)
{
    random_seed(&random_numbers, 1);
    for (int round = 0; round < 1000; round++) {
        struct qr_manifest_store store = {.has_log = any() & 1, .checksum = QR_MANIFEST_CHECKSUM_CRC32C};
        ANY(store.created_seconds), ANY(store.log_segment_least_bytes), ANY(store.log_segment_most_bytes);
        ANY(store.log_frame_most_bytes), ANY(store.page_segment_least_bytes), ANY(store.page_segment_most_bytes);
        ROUND_TRIP(store, store, QR_MANIFEST_STORE_BYTES, 1);

        struct qr_manifest_incarnation incarnation = {.number = any() | 1, .previous_end_lsn = any() >> 1};
        incarnation.first_lsn = incarnation.previous_end_lsn + (any() >> 1);
        ANY(incarnation.device), ANY(incarnation.mount_id), ANY(incarnation.directory_inode);
        random_fill(&random_numbers, incarnation.boot_id, sizeof(incarnation.boot_id));
        ROUND_TRIP(incarnation, incarnation, QR_MANIFEST_INCARNATION_BYTES, 2);

        struct qr_manifest_checkpoint checkpoint = {
            .number = any() | 1,
            .mapping_index = any_place(),
            .free_ids = any_place(),
            .range_tombstones = any_place(),
        };
        ANY(checkpoint.replay_from), ANY(checkpoint.durable_lsn), ANY(checkpoint.as_of_lsn);
        ANY(checkpoint.next_page_id), ANY(checkpoint.catalogue_root_id), ANY(checkpoint.next_segment);
        ANY(checkpoint.next_tree_id), ANY(checkpoint.tree_count), ANY(checkpoint.page_count);
        ANY(checkpoint.free_id_count), ANY(checkpoint.live_bytes), ANY(checkpoint.last_lsn);
        ROUND_TRIP(checkpoint, checkpoint, QR_MANIFEST_CHECKPOINT_BYTES, 3);

        struct qr_manifest_lsn_range range = {any()};
        ROUND_TRIP(lsn_range, range, QR_MANIFEST_LSN_RANGE_BYTES, 4);

        struct qr_manifest_poison poison = {any(), any(), (int32_t)any()};
        ROUND_TRIP(poison, poison, QR_MANIFEST_POISON_BYTES, 5);
    }
}

/* Two fields at one place would come back equal in the test above only if they were equal. */
Test(store_records, every_field_has_its_own_place)
{
    uint8_t payload[QR_MANIFEST_CHECKPOINT_BYTES];
    struct qr_manifest_checkpoint checkpoint = {1, 2, 3, 4, {5, 6}, {7, 8}, {9, 10}, 11, 12, 13, 14, 15, 16, 17, 18, 19},
                                  read;
    struct qr_manifest_record record = qr_manifest_checkpoint_encode(&checkpoint, payload);
    cr_assert_eq(qr_manifest_checkpoint_decode(&record, &read), 0);
    cr_assert(read.number == 1 && read.replay_from == 2 && read.durable_lsn == 3 && read.as_of_lsn == 4);
    cr_assert(read.mapping_index.address == 5 && read.mapping_index.size_bytes == 6);
    cr_assert(read.free_ids.address == 7 && read.free_ids.size_bytes == 8);
    cr_assert(read.range_tombstones.address == 9 && read.range_tombstones.size_bytes == 10);
    cr_assert(read.next_page_id == 11 && read.catalogue_root_id == 12 && read.next_segment == 13);
    cr_assert(read.next_tree_id == 14 && read.tree_count == 15 && read.page_count == 16);
    cr_assert(read.free_id_count == 17 && read.live_bytes == 18 && read.last_lsn == 19);
}

Test(store_records, numbers_that_nobody_writes_are_refused)
{
    uint8_t payload[QR_MANIFEST_CHECKPOINT_BYTES];
    struct qr_manifest_record record;
    struct qr_manifest_store store = {.checksum = QR_MANIFEST_CHECKSUM_CRC32C}, read_store;
    struct qr_manifest_incarnation incarnation = {.number = 0}, read_incarnation;
    struct qr_manifest_checkpoint checkpoint = {.number = 0}, read_checkpoint;

    record = qr_manifest_store_encode(&store, payload);
    qr_store_u32(payload + 8, 2); /* log */
    cr_assert_eq(qr_manifest_store_decode(&record, &read_store), QUIRE_ERR_CORRUPT);
    store.checksum = 2;
    record = qr_manifest_store_encode(&store, payload);
    cr_assert_eq(qr_manifest_store_decode(&record, &read_store), QUIRE_ERR_NEWER);

    record = qr_manifest_incarnation_encode(&incarnation, payload);
    cr_assert_eq(qr_manifest_incarnation_decode(&record, &read_incarnation), QUIRE_ERR_CORRUPT);
    incarnation = (struct qr_manifest_incarnation){.number = 2, .first_lsn = 9, .previous_end_lsn = 10};
    record = qr_manifest_incarnation_encode(&incarnation, payload);
    cr_assert_eq(qr_manifest_incarnation_decode(&record, &read_incarnation), QUIRE_ERR_CORRUPT);

    record = qr_manifest_checkpoint_encode(&checkpoint, payload);
    cr_assert_eq(qr_manifest_checkpoint_decode(&record, &read_checkpoint), QUIRE_ERR_CORRUPT);
}

Test(store_records, kinds_that_are_kept_for_later_are_not_known)
{
    unsigned known = 0;
    for (unsigned kind = 0; kind <= UINT16_MAX; kind++)
        known += qr_manifest_kind_is_known((uint16_t)kind);
    cr_assert_eq(known, 5);
    for (unsigned kind = 16; kind < 32; kind++)
        cr_assert_not(qr_manifest_kind_is_known((uint16_t)kind));
}

/* ---- The document ----------------------------------------------------------------------------------------------- */

Test(store_records, the_dump_in_the_document_is_the_sample)
{
    static struct sample sample;
    sample_make(&sample);
    expect_in_document(sample.file, sizeof(sample.file));
}
