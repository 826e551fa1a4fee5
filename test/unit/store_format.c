/*
 * Goal: whatever happened to the bytes of a manifest, reading them gives all its records, or all but the last append
 * where a crash explains that, or CORRUPT: never a wrong record, and never fewer without a reason. Method: a small
 * manifest, cut at every byte, with every bit flipped, its last append torn in every way that sectors and bytes allow,
 * its parts exchanged; the dump in doc/file-format.md against the bytes.
 */
#include "store_sample.h"

#include "../lib/random.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

TestSuite(store_format, .timeout = 120);

static struct sample sample;

/* ---- What is read ----------------------------------------------------------------------------------------------- */

/* As an opening does it. Records read are right ones in order, or the test ends; how many is the answer, or an error.
 */
static int records_read(const uint8_t *file, uint64_t size)
{
    struct qr_manifest_header header;
    struct qr_manifest_extent extent;
    struct qr_manifest_record record, expected;
    uint64_t offset = QR_MANIFEST_HEADER_BYTES, right = QR_MANIFEST_HEADER_BYTES;
    int count = 0;

    int result = qr_manifest_header_decode(file, qr_min(size, QR_MANIFEST_HEADER_BYTES), true, &header);
    if (result == 0)
        result = qr_manifest_scan(file, size, &header, &extent);
    if (result != 0)
        return result;
    cr_assert_leq(extent.end, qr_min(size, header.size_bytes));
    while (offset < extent.end) {
        offset = qr_manifest_record_at(file, offset, &record);
        right = qr_manifest_record_at(sample.file, right, &expected);
        cr_assert_lt(count, SAMPLE_RECORDS, "a record too many");
        cr_assert_eq(record.kind, expected.kind);
        cr_assert_eq(record.sequence, expected.sequence);
        cr_assert_eq(record.size, expected.size);
        cr_assert_arr_eq(record.payload, expected.payload, expected.size);
        count++;
    }
    cr_assert_eq(offset, extent.end);
    cr_assert_eq(extent.next_sequence, 1 + (uint64_t)count);
    return count;
}

static int all_but_last(void)
{
    return (int)sample.counts[SAMPLE_APPENDS - 1];
}

/* The append that a byte belongs to, from 1; 0 for the header; SAMPLE_APPENDS + 1 behind the last. */
static unsigned append_at(uint64_t offset)
{
    unsigned append = 0;
    while (append <= SAMPLE_APPENDS && offset >= sample.ends[append])
        append++;
    return append;
}

Test(store_format, the_sample_is_read)
{
    sample_make(&sample);
    cr_assert_eq(records_read(sample.file, sizeof(sample.file)), SAMPLE_RECORDS);
    /* Whatever somebody put behind the end. */
    static uint8_t longer[2 * sizeof(sample.file)];
    memset(longer, 0x77, sizeof(longer));
    memcpy(longer, sample.file, sizeof(sample.file));
    cr_assert_eq(records_read(longer, sizeof(longer)), SAMPLE_RECORDS);
}

/* ---- The header ------------------------------------------------------------------------------------------------- */

static int decode(const uint8_t *block, bool for_writing)
{
    struct qr_manifest_header header;
    return qr_manifest_header_decode(block, QR_MANIFEST_HEADER_BYTES, for_writing, &header);
}

static void fix_sum(uint8_t *block)
{
    qr_store_u32(block + QR_MANIFEST_HEADER_BYTES - 4, qr_crc32c(0, block, QR_MANIFEST_HEADER_BYTES - 4));
}

Test(store_format, a_header_comes_back)
{
    uint8_t block[QR_MANIFEST_HEADER_BYTES];
    struct qr_manifest_header read, header = {
                                        .generation = 7,
                                        .first_sequence = 99,
                                        .size_bytes = 65536,
                                        .base_end = 1024,
                                        .features_compatible = UINT64_C(1) << 63,
                                    };
    for (unsigned i = 0; i < 16; i++)
        header.store_id[i] = (uint8_t)(i + 1);
    qr_manifest_header_encode(&header, block);
    cr_assert_eq(qr_manifest_header_decode(block, sizeof(block), true, &read), 0);
    cr_assert_arr_eq(read.store_id, header.store_id, sizeof(header.store_id));
    cr_assert_eq(read.generation, 7);
    cr_assert_eq(read.first_sequence, 99);
    cr_assert_eq(read.size_bytes, 65536);
    cr_assert_eq(read.base_end, 1024);
    cr_assert_eq(read.features_compatible, UINT64_C(1) << 63);
    cr_assert_eq(read.features_read_compatible, 0);
    cr_assert_eq(read.features_incompatible, 0);
}

Test(store_format, newer_headers_are_told_from_damaged_ones)
{
    uint8_t block[QR_MANIFEST_HEADER_BYTES];
    sample_make(&sample);

    memcpy(block, sample.file, sizeof(block));
    qr_store_u32(block + 8, QR_MANIFEST_VERSION + 1);
    cr_assert_eq(decode(block, true), QUIRE_ERR_CORRUPT); /* the sum does not say so */
    fix_sum(block);
    cr_assert_eq(decode(block, true), QUIRE_ERR_NEWER);
    cr_assert_eq(decode(block, false), QUIRE_ERR_NEWER);

    for (unsigned bit = 0; bit < 64; bit++) {
        memcpy(block, sample.file, sizeof(block));
        qr_store_u64(block + 64, UINT64_C(1) << bit); /* compatible */
        fix_sum(block);
        cr_assert_eq(decode(block, true), 0);
        qr_store_u64(block + 72, UINT64_C(1) << bit); /* to be read */
        fix_sum(block);
        cr_assert_eq(decode(block, true), QUIRE_ERR_NEWER);
        cr_assert_eq(decode(block, false), 0);
        qr_store_u64(block + 80, UINT64_C(1) << bit); /* not even that */
        fix_sum(block);
        cr_assert_eq(decode(block, true), QUIRE_ERR_NEWER);
        cr_assert_eq(decode(block, false), QUIRE_ERR_NEWER);
    }
}

Test(store_format, headers_that_nobody_writes_are_damage)
{
    uint8_t block[QR_MANIFEST_HEADER_BYTES];
    static const struct {
        unsigned offset;
        uint64_t value;
    } wrong[] = {
        {40, 0}, /* first sequence */
        {48, 0},          {48, 512},
        {48, 16385}, /* size of the file */
        {48, UINT64_MAX}, {48, UINT64_C(1) << 32},
        {56, 0},          {56, 512},
        {56, 16400},      {56, 700}, /* base end */
        {56, UINT64_MAX},
    };
    sample_make(&sample);
    for (size_t i = 0; i < QR_ARRAY_COUNT(wrong); i++) {
        memcpy(block, sample.file, sizeof(block));
        qr_store_u64(block + wrong[i].offset, wrong[i].value);
        fix_sum(block);
        cr_assert_eq(decode(block, true), QUIRE_ERR_CORRUPT, "case %zu", i);
    }
    memcpy(block, sample.file, sizeof(block));
    qr_store_u32(block + 8, 0); /* version */
    fix_sum(block);
    cr_assert_eq(decode(block, true), QUIRE_ERR_CORRUPT);
    memcpy(block, sample.file, sizeof(block));
    qr_store_u32(block + 12, 1024); /* size of the header */
    fix_sum(block);
    cr_assert_eq(decode(block, true), QUIRE_ERR_CORRUPT);
}

Test(store_format, other_files_are_foreign)
{
    static uint8_t file[QR_MANIFEST_SIZE_LEAST];
    struct random_stream random;

    cr_assert_eq(records_read(file, 0), QUIRE_ERR_FOREIGN);
    for (uint64_t size = 1; size <= sizeof(file); size += size < 600 ? 1 : 777)
        cr_assert_eq(records_read(file, size), QUIRE_ERR_FOREIGN, "%u zeros", (unsigned)size);
    random_seed(&random, 1);
    for (int i = 0; i < 200; i++) {
        random_fill(&random, file, sizeof(file));
        cr_assert_eq(records_read(file, random_below(&random, sizeof(file))), QUIRE_ERR_FOREIGN);
    }
    memcpy(file, "quireman, but in small letters", 30);
    cr_assert_eq(records_read(file, sizeof(file)), QUIRE_ERR_FOREIGN);
}

Test(store_format, a_leftover_is_told_from_other_files)
{
    static uint8_t file[2048], other_id[16] = {1};
    sample_make(&sample);
    for (uint64_t size = 0; size <= QR_MANIFEST_HEADER_BYTES; size++)
        cr_assert(qr_manifest_is_leftover(file, size, NULL), "%u zeros", (unsigned)size);
    cr_assert(qr_manifest_is_leftover(file, QR_MANIFEST_SIZE_LEAST, NULL)); /* its space was made, nothing was written */
    file[3] = 'x';
    cr_assert_not(qr_manifest_is_leftover(file, 4, NULL));
    cr_assert_not(qr_manifest_is_leftover((const uint8_t *)"a text file\n", 12, NULL));
    memcpy(file + 3, "REM", 3); /* of the magic, before anything else */
    cr_assert(qr_manifest_is_leftover(file, QR_MANIFEST_SIZE_LEAST, NULL));
    file[100] = 1;
    cr_assert_not(qr_manifest_is_leftover(file, QR_MANIFEST_SIZE_LEAST, NULL));
    for (uint64_t size = QR_MANIFEST_MAGIC_BYTES; size <= 2048; size++) {
        cr_assert(qr_manifest_is_leftover(sample.file, size, NULL));
        cr_assert(qr_manifest_is_leftover(sample.file, size, sample.header.store_id));
        cr_assert_eq(qr_manifest_is_leftover(sample.file, size, other_id), size < QR_MANIFEST_HEADER_BYTES);
    }
}

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

/* F17. A cut never shows less than all: what is not certain to be all is CORRUPT. */
Test(store_format, cut_at_every_byte)
{
    sample_make(&sample);
    uint64_t end = sample.ends[SAMPLE_APPENDS];
    for (uint64_t size = 0; size <= sizeof(sample.file); size++) {
        /* A copy, so that the address sanitizer sees who reads beyond. */
        uint8_t *file = malloc(size + 1);
        memcpy(file, sample.file, size);
        int expected = size < QR_MANIFEST_MAGIC_BYTES  ? QUIRE_ERR_FOREIGN
                       : size < end + QR_MANIFEST_UNIT ? QUIRE_ERR_CORRUPT
                                                       : SAMPLE_RECORDS;
        int result = records_read(file, size);
        cr_assert_eq(result, expected, "at %u: %d", (unsigned)size, result);
        free(file);
    }
}

Test(store_format, a_full_file_may_be_cut_where_no_record_fits)
{
    sample_make(&sample);
    uint64_t end = sample.ends[SAMPLE_APPENDS];
    sample.header.size_bytes = end + QR_MANIFEST_UNIT;
    qr_manifest_header_encode(&sample.header, sample.file);
    for (uint64_t size = end - 20; size <= end + QR_MANIFEST_UNIT; size++)
        cr_assert_eq(records_read(sample.file, size), size < end ? QUIRE_ERR_CORRUPT : SAMPLE_RECORDS);
}

static void expect_after_damage(const uint8_t *file, uint64_t offset, const char *what)
{
    int result = records_read(file, sizeof(sample.file));
    unsigned append = append_at(offset);
    int expected = append < SAMPLE_APPENDS    ? QUIRE_ERR_CORRUPT
                   : append == SAMPLE_APPENDS ? all_but_last()
                                              : SAMPLE_RECORDS;
    cr_assert_eq(result, expected, "%s at %u: %d, expected %d", what, (unsigned)offset, result, expected);
}

Test(store_format, every_bit_flipped)
{
    static uint8_t file[sizeof(sample.file)];
    sample_make(&sample);
    memcpy(file, sample.file, sizeof(file));
    for (uint64_t bit = 0; bit < 8 * (sample.ends[SAMPLE_APPENDS] + 256); bit++) {
        file[bit / 8] ^= (uint8_t)(1u << bit % 8);
        expect_after_damage(file, bit / 8, "bit flipped");
        file[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(store_format, every_unit_zeroed_or_overwritten)
{
    static uint8_t file[sizeof(sample.file)];
    sample_make(&sample);
    for (uint64_t offset = QR_MANIFEST_HEADER_BYTES; offset < sample.ends[SAMPLE_APPENDS] + 256; offset += 16) {
        memcpy(file, sample.file, sizeof(file));
        memset(file + offset, 0xa5, 16);
        expect_after_damage(file, offset, "unit overwritten");
        memset(file + offset, 0, 16);
        if (memcmp(file, sample.file, sizeof(file)) != 0)
            expect_after_damage(file, offset, "unit zeroed");
    }
}

Test(store_format, appends_that_are_missing_or_exchanged)
{
    static uint8_t file[sizeof(sample.file)];
    sample_make(&sample);
    for (unsigned append = 1; append <= SAMPLE_APPENDS; append++) {
        uint64_t begin = sample.ends[append - 1], size = sample.ends[append] - begin;
        memcpy(file, sample.file, sizeof(file));
        memset(file + begin, 0, size);
        expect_after_damage(file, begin, "append zeroed");
        /* The others moved up: a gap in the sequence numbers. */
        memmove(file + begin, file + begin + size, sizeof(file) - begin - size);
        expect_after_damage(file, begin, "append taken out");
        /* And twice. */
        memcpy(file, sample.file, sizeof(file));
        memmove(file + begin + size, sample.file + begin, sizeof(file) - begin - size);
        cr_assert_eq(records_read(file, sizeof(file)), QUIRE_ERR_CORRUPT, "append %u twice", append);
    }
}

/* Records of another store, or of an older file of this one, are not records here. */
Test(store_format, records_belong_to_their_file)
{
    static struct sample other;
    static uint8_t file[sizeof(sample.file)];
    sample_make(&sample);
    for (int generation = 0; generation < 2; generation++) {
        other = sample;
        other.header.generation += generation != 0;
        other.header.store_id[15] ^= generation == 0;
        qr_manifest_header_encode(&other.header, other.file);
        memcpy(file, sample.file, sizeof(file));
        memcpy(file, other.file, QR_MANIFEST_HEADER_BYTES);
        cr_assert_eq(records_read(file, sizeof(file)), QUIRE_ERR_CORRUPT);
    }
}

/* ---- Torn appends ----------------------------------------------------------------------------------------------- */

/* Keeps of the last append the bytes of the units chosen, in a file that had zeros there. */
static void expect_torn(const uint8_t *keep, uint64_t unit)
{
    static uint8_t file[sizeof(sample.file)];
    uint64_t begin = sample.ends[SAMPLE_APPENDS - 1], end = sample.ends[SAMPLE_APPENDS];

    memcpy(file, sample.file, sizeof(file));
    for (uint64_t offset = begin; offset < end; offset++) {
        if (keep[(offset - begin) / unit] == 0)
            file[offset] = 0;
    }
    bool is_whole = memcmp(file, sample.file, sizeof(file)) == 0;
    int result = records_read(file, sizeof(file));
    cr_assert_eq(result, is_whole ? SAMPLE_RECORDS : all_but_last(), "%d", result);
}

Test(store_format, the_last_append_torn_is_cut_whole)
{
    static uint8_t keep[sizeof(sample.file)];
    struct random_stream random;
    sample_make(&sample);
    uint64_t size = sample.ends[SAMPLE_APPENDS] - sample.ends[SAMPLE_APPENDS - 1];

    cr_assert_gt(size, 2 * 128);
    for (unsigned set = 0; set < 1u << (size + 127) / 128; set++) { /* every set of "sectors" of 128 bytes */
        for (unsigned i = 0; i < (size + 127) / 128; i++)
            keep[i] = set >> i & 1;
        expect_torn(keep, 128);
    }
    for (uint64_t at = 0; at <= size; at++) { /* every beginning, every end */
        for (uint64_t i = 0; i < size; i++)
            keep[i] = i < at;
        expect_torn(keep, 1);
        for (uint64_t i = 0; i < size; i++)
            keep[i] = i >= at;
        expect_torn(keep, 1);
    }
    random_seed(&random, 1);
    for (int round = 0; round < 20000; round++) {
        uint64_t unit = UINT64_C(1) << random_below(&random, 8);
        for (uint64_t i = 0; i < size; i++)
            keep[i] = random_chance(&random, round % 100) ? 1 : 0;
        expect_torn(keep, unit);
    }
}

/* Both at once: one append was durable and is damaged, the next one was torn so that a record of it is whole. */
Test(store_format, damage_before_a_torn_append_is_damage)
{
    sample_make(&sample);
    sample.file[sample.ends[2] + 40] ^= 1;
    memset(sample.file + sample.ends[3], 0, 64); /* the head of the last append's first record */
    cr_assert_eq(records_read(sample.file, sizeof(sample.file)), QUIRE_ERR_CORRUPT);
}

/* ---- Limits ----------------------------------------------------------------------------------------------------- */

Test(store_format, appends_have_limits)
{
    static struct qr_manifest_record records[QR_MANIFEST_RECORDS_MOST + 1];
    cr_assert_eq(qr_manifest_append_size(records, 0), 0);
    cr_assert_eq(qr_manifest_append_size(records, 1), QR_MANIFEST_RECORD_HEADER_BYTES);
    cr_assert_eq(qr_manifest_append_size(records, QR_MANIFEST_RECORDS_MOST),
                 (size_t)QR_MANIFEST_RECORDS_MOST * QR_MANIFEST_RECORD_HEADER_BYTES);
    cr_assert_eq(qr_manifest_append_size(records, QR_MANIFEST_RECORDS_MOST + 1), 0);
    records[0].size = QR_MANIFEST_PAYLOAD_MOST;
    cr_assert_eq(qr_manifest_append_size(records, 1), QR_MANIFEST_RECORD_HEADER_BYTES + QR_MANIFEST_PAYLOAD_MOST);
    records[0].size = 1;
    cr_assert_eq(qr_manifest_append_size(records, 1), QR_MANIFEST_RECORD_HEADER_BYTES + QR_MANIFEST_UNIT);
    records[0].size = QR_MANIFEST_PAYLOAD_MOST + 1;
    cr_assert_eq(qr_manifest_append_size(records, 1), 0);
}
