/*
 * blob_internal.h: what blob.c and blob_life.c share.
 *
 * Layer 4.
 */
#ifndef QR_STORE_BLOB_INTERNAL_H
#define QR_STORE_BLOB_INTERNAL_H

#include <errno.h>

#include "store/blob.h"
#include "store/internal.h"

#define QR_BLOB_MAGIC UINT32_C(0x424c4251) /* QBLB */
#define QR_BLOB_HEAD_BYTES 64u

/* Under the mutex: [offset, offset + extent) is nobody's. */
void qr_blob_note_dead(struct qr_segment *segment, uint64_t offset, uint64_t extent, uint64_t lsn);

#endif
