/*
 * Goal: whatever a manifest holds is refused, or read as the records that it says; what was read can be written again.
 * Method: the input is the file. It is opened for reading and for writing, each record is taken apart by its kind; then it is
 * appended to, written anew and opened again, with the same records.
 */
#include <stdio.h>

#include "base/crc32c.h"
#include "base/hash.h"
#include "fuzz/fuzz.h"
#include "store/manifest_format.h"
#include "store/records.h"
#include "unit/store_sample.h"

#define FILE_MOST (64u << 10)

/* ---- Records ---------------------------------------------------------------------------------------------------- */

#define RECORDS_MOST 512u
struct seen {
    struct qr_manifest_record records[RECORDS_MOST];
    uint8_t payloads[RECORDS_MOST][64]; /* the beginning */
    uint32_t count;
    uint64_t hash, sequence;
};

/* Of a record that was decoded, encoded again: what a reader understands survives it. */
static void take_apart(const struct qr_manifest_record *record)
{
    uint8_t payload[QR_MANIFEST_CHECKPOINT_BYTES];
    struct qr_manifest_record again = {0};
    union {
        struct qr_manifest_store store;
        struct qr_manifest_incarnation incarnation;
        struct qr_manifest_checkpoint checkpoint;
        struct qr_manifest_lsn_range lsn_range;
        struct qr_manifest_poison poison;
    } first, second;
    memset(&first, 0, sizeof(first));
    memset(&second, 0, sizeof(second));
#define TWICE(name)                                                                                                    \
    if (qr_manifest_##name##_decode(record, &first.name) != 0)                                                         \
        return;                                                                                                        \
    again = qr_manifest_##name##_encode(&first.name, payload);                                                         \
    FUZZ_CHECK(qr_manifest_##name##_decode(&again, &second.name) == 0);                                                \
    break
    switch (record->kind) {
    case QR_MANIFEST_STORE:
        TWICE(store);
    case QR_MANIFEST_INCARNATION:
        TWICE(incarnation);
    case QR_MANIFEST_CHECKPOINT:
        TWICE(checkpoint);
    case QR_MANIFEST_LSN_RANGE:
        TWICE(lsn_range);
    case QR_MANIFEST_POISON:
        TWICE(poison);
    default:
        return;
    }
#undef TWICE
    FUZZ_CHECK(again.kind == record->kind);
}

static int visit(void *context, const struct qr_manifest_record *record)
{
    struct seen *seen = context;
    FUZZ_CHECK(record->size <= QR_MANIFEST_PAYLOAD_MOST);
    /* Unknown ones are passed over, and whoever forges the first number may let them run over. */
    FUZZ_CHECK(seen->count == 0 || record->sequence - seen->sequence - 1 < FILE_MOST);
    seen->sequence = record->sequence;
    seen->hash = (seen->hash * 31 + record->kind + record->size) * 31 + qr_hash(record->payload, record->size);
    if (seen->count < RECORDS_MOST) {
        seen->records[seen->count] = *record;
        memcpy(seen->payloads[seen->count], record->payload, qr_min(record->size, 64));
    }
    seen->count++;
    take_apart(record);
    return 0;
}

/* ---- The target ------------------------------------------------------------------------------------------------- */

/* 0 or a failure. */
static int read_all(struct qr_dir *dir, bool for_writing, struct seen *ret_seen, struct qr_manifest **ret_manifest)
{
    memset(ret_seen, 0, sizeof(*ret_seen));
    return qr_manifest_open(dir, for_writing, visit, ret_seen, ret_manifest);
}

static void expect_same(struct qr_dir *dir, const struct seen *expected)
{
    static struct seen now;
    struct qr_manifest *manifest;
    FUZZ_CHECK(read_all(dir, false, &now, &manifest) == 0);
    qr_manifest_close(manifest);
    FUZZ_CHECK(now.count == expected->count);
    FUZZ_CHECK(now.hash == expected->hash);
}

/* One more record, by an append or, where there is no room, not at all. */
static void append(struct qr_dir *dir, struct qr_manifest *manifest, struct seen *seen)
{
    uint8_t payload[QR_MANIFEST_LSN_RANGE_BYTES];
    struct qr_manifest_record record = qr_manifest_lsn_range_encode(&(struct qr_manifest_lsn_range){77}, payload);
    int result = qr_manifest_append(manifest, &record, 1);
    FUZZ_CHECK(result == 0 || result == QR_MANIFEST_FULL);
    if (result == 0) {
        record.sequence = seen->sequence + 1;
        visit(seen, &record);
    }
    expect_same(dir, seen);
}

/* The records whose payloads were kept, in a new file. */
static void rewrite(struct qr_dir *dir, struct qr_manifest *manifest, const struct seen *seen)
{
    static struct seen short_ones;
    memset(&short_ones, 0, sizeof(short_ones));
    for (uint32_t i = 0; i < qr_min(seen->count, RECORDS_MOST); i++) {
        struct qr_manifest_record record = seen->records[i];
        record.payload = seen->payloads[i];
        record.sequence = short_ones.sequence + 1;
        if (record.size <= 64)
            visit(&short_ones, &record);
    }
    for (uint32_t i = 0; i < short_ones.count; i++)
        short_ones.records[i].payload = short_ones.payloads[i];
    if (short_ones.count == 0)
        return;
    FUZZ_CHECK(qr_manifest_rewrite(manifest, short_ones.records, short_ones.count) == 0);
    expect_same(dir, &short_ones);
}

static void write_on(struct qr_dir *dir, const struct seen *found)
{
    static struct seen seen;
    struct qr_manifest *manifest;
    if (read_all(dir, true, &seen, &manifest) != 0)
        return;
    FUZZ_CHECK(seen.count == found->count);
    FUZZ_CHECK(seen.hash == found->hash);
    FUZZ_CHECK(qr_manifest_used_bytes(manifest) <= qr_manifest_header(manifest)->size_bytes);
    append(dir, manifest, &seen);
    rewrite(dir, manifest, &seen);
    qr_manifest_close(manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct seen seen;
    int64_t begun = fuzz_begin();
    struct simdisk *disk = simdisk_create();
    struct qr_dir *dir = fuzz_open_dir(disk, "db");
    struct qr_manifest *manifest;
    /* Behind the records are zeros, which an input need not have. */
    uint64_t file_size = size;
    if (size >= QR_MANIFEST_HEADER_BYTES && qr_load_u64(data + 48) <= FILE_MOST)
        file_size = qr_max(size, qr_load_u64(data + 48));
    fuzz_make_file(dir, QR_MANIFEST_NAME, data, size, file_size);
    (void)qr_manifest_is_leftover(data, size, NULL);
    if (read_all(dir, false, &seen, &manifest) == 0) {
        qr_manifest_close(manifest);
        write_on(dir, &seen);
    }
    dir->disk->ops->dir_close(dir);
    fuzz_end(begun, disk);
    return 0;
}

/* ---- Repair ----------------------------------------------------------------------------------------------------- */

/* Sequence numbers and sums of the records, as far as their sizes lead; nothing else of them. */
void fuzz_repair(uint8_t *data, size_t size)
{
    if (size < QR_MANIFEST_HEADER_BYTES)
        return;
    memcpy(data, QR_MANIFEST_MAGIC, QR_MANIFEST_MAGIC_BYTES);
    qr_store_u32(data + QR_MANIFEST_HEADER_BYTES - 4, qr_crc32c(0, data, QR_MANIFEST_HEADER_BYTES - 4));
    uint32_t seed = qr_crc32c(0, data + 16, 24);
    uint64_t sequence = qr_load_u64(data + 40);
    for (size_t at = QR_MANIFEST_HEADER_BYTES; at + QR_MANIFEST_RECORD_HEADER_BYTES <= size;) {
        size_t record = qr_load_u32(data + at + 4);
        size_t whole = QR_MANIFEST_RECORD_HEADER_BYTES + qr_round_up(qr_load_u32(data + at + 24), QR_MANIFEST_UNIT);
        if (record == 0)
            break;
        if (record > size - at || record % QR_MANIFEST_UNIT != 0 || record < QR_MANIFEST_RECORD_HEADER_BYTES) {
            if (whole > size - at)
                break;
            record = whole;
            qr_store_u32(data + at + 4, (uint32_t)record);
        }
        qr_store_u64(data + at + 8, sequence++);
        qr_store_u32(data + at, qr_crc32c(seed, data + at + 4, record - 4));
        at += record;
    }
}

/* ---- Seeds ------------------------------------------------------------------------------------------------------ */

void fuzz_seeds(fuzz_sink *sink, void *context)
{
    static struct sample sample;
    char name[16];
    sample_make(&sample);
    for (unsigned i = 0; i <= SAMPLE_APPENDS; i++) {
        snprintf(name, sizeof(name), "appends_%u", i);
        sink(context, name, sample.file, sample.ends[i]);
    }
}
