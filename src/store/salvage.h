/*
 * salvage.h: the images of a page store whose mapping may be damaged.
 *
 * Layer 4. For repair: nothing is written, one thread. The store is opened without a checkpoint, from the headers of its
 * segments alone; reading an image or a blob by its address then works as ever (qr_store_read, qr_blob_read).
 *
 * SALVAGE-1  What the mapping says is right as far as its root, nodes and blocks verify: of the page ids below such a block
 *            the images that it names are visited and no others. So an undamaged mapping yields the checkpoint's pages exactly.
 * SALVAGE-2  Of the page ids below what does not verify, every image is visited that a summary tells of, or that is found behind
 *            a damaged summary by its own header, the older ones of a page among them: who visits chooses. What lies behind the
 *            end that the root gives a segment is left out, or, without the root, batches above the one that has it: they came
 *            after the checkpoint.
 * SALVAGE-3  A segment is walked from boundary to boundary. A batch that is not above the one before is older than what stands
 *            before it (FORMAT-2), and is left out. Where a summary should be and does not verify, images are found by their own
 *            headers, if a batch that verifies comes behind them, or if the summary is still known for one: other bytes behind
 *            the last batch are of a writer whose batches no checkpoint knows.
 * SALVAGE-4  Each life of the store begins its batches QR_SEQUENCE_JUMP above the end of the last checkpoint before. So, without the
 *            root, batches of the life before at or above that end are left out: no checkpoint knows of them. Where the first
 *            batches of a life are gone the end is not known, and some of them may be visited.
 * SALVAGE-5  An opening goes on where the last checkpoint ended, over what came after that. So up to the end that the root gives a
 *            segment there are batches alone, each of a checkpoint that counted, or of one that was given up in the same life and
 *            whose images the next one took over. Behind a place where that is not so, and without the root, images are not sure.
 */
#ifndef QR_STORE_SALVAGE_H
#define QR_STORE_SALVAGE_H

#include "store/store.h"

struct qr_salvage_image {
    uint64_t address, pid, max_lsn;
    uint64_t sequence; /* of its batch; 0: not known */
    uint32_t tree_id;  /* this and the kind are not known before it was read, if it is named */
    uint8_t kind;
    bool named;        /* by a block of the mapping that verifies */
    bool sure;         /* else: a checkpoint up to the last one had it (SALVAGE-5) */
};

struct qr_salvage_facts {
    uint64_t segments, segments_lost; /* lost: the header does not verify, and the root has not told what it said */
    bool root_lost;
    bool newest_lost;                 /* the root is known, and neither it nor its batch is there */
    uint64_t mapping_lost;            /* nodes and blocks that do not verify, the root among them */
};

/* store_id: NULL: not known; then that of the first segment is taken. *ret_lost: segments whose header does not verify. 0; IO of
 * the directory, NO_MEMORY, NEWER. */
int qr_salvage_open(struct qr_dir *dir, const uint8_t *store_id, struct qr_store **ret_store, uint64_t *ret_lost);

/* 0, or what ends it, which is answered. */
typedef int qr_salvage_visit(void *context, const struct qr_salvage_image *image);

/* root: the address that the checkpoint has of it; 0: not known, then the newest that verifies is taken. 0, NO_MEMORY, what the
 * visit answered. */
int qr_salvage_images(struct qr_store *store, uint64_t root, qr_salvage_visit *visit, void *context,
                      struct qr_salvage_facts *ret_facts);

/* Whether what a read answered means that the bytes are lost, and nothing else is wrong. */
static inline bool qr_salvage_is_lost(int result)
{
    return result == QUIRE_ERR_CORRUPT || result == QUIRE_ERR_IO || result == QR_STORE_GONE;
}

#endif
