/*
 * segments.h: inputs that are a page store: a checkpoint and one or two segments.
 *
 * Test programs (fuzz): what the targets `mapping` and `blob` share.
 *
 * An input: 64 bytes, then the segments page-00000001 and -00000002, each the 64 bytes of its header and then what stands in the file
 * behind the first 4096 bytes; what is missing is zeros. The 64 bytes: address and size of the root (8, 4), of the free ids (8, 4),
 * next page id (8), next segment (4), flags (1), number of pieces of 64 bytes that are the first segment (2), zeros.
 */
#ifndef TEST_FUZZ_SEGMENTS_H
#define TEST_FUZZ_SEGMENTS_H

#include "fuzz/fuzz.h"
#include "store/store.h"

enum { SEGMENTS_PRELUDE = 64 };
enum segments_flag { SEGMENTS_READ_ONLY = 1 };

struct segments {
    struct simdisk *disk;
    struct qr_dir *dir;
    struct qr_manifest_checkpoint checkpoint;
    unsigned flags;
};

/* Makes the files. */
void segments_make(struct segments *ret_segments, struct fuzz_input input);

/* Opens the store as its checkpoint says. 0 or a failure. */
int segments_open(struct segments *segments, struct qr_store **ret_store);

/* A checkpoint of all that was entered and removed; segments->checkpoint becomes the new one. 0 or a failure. */
int segments_commit(struct segments *segments, struct qr_store *store);

/* Memory for an image; the context is NULL. */
void *segments_give(void *context, size_t size);

/* Headers of segments, sums of images, batches and heads of blobs, and where they say that they are. */
void segments_repair(uint8_t *data, size_t size);

/* Appends the store of a directory to an input of `*size` bytes, as above. */
void segments_take(const struct segments *segments, uint8_t *data, size_t *size, size_t most);

#endif
