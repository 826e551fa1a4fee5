/*
 * A small manifest with everything in it, always the same bytes: for the tests of the format and the dump in
 * doc/file-format.md.
 */
#ifndef TEST_UNIT_STORE_SAMPLE_H
#define TEST_UNIT_STORE_SAMPLE_H

#include "store/manifest_format.h"
#include "store/records.h"

enum { SAMPLE_APPENDS = 4, SAMPLE_RECORDS = 6 };

struct sample {
    uint8_t file[QR_MANIFEST_SIZE_LEAST];
    struct qr_manifest_header header;
    uint32_t seed;
    uint64_t ends[SAMPLE_APPENDS + 1];   /* of appends; [0] is where the first begins */
    unsigned counts[SAMPLE_APPENDS + 1]; /* records up to the end of each */
};

/* The first append is what the file began with: STORE. Then INCARNATION; CHECKPOINT with LSN_RANGE; CHECKPOINT with
 * POISON. */
void sample_make(struct sample *ret_sample);

#endif
