/*
 * Goal: whatever a reference, a segment of blobs and the list of the dead hold, reading a blob answers, within bounded memory; the
 * dead of a store that was opened survive a checkpoint.
 * Method: the input is two references and a store (segments.h). The blobs are read whole, by pieces, and verified, which has to
 * say the same; then they are dead, others are written, and after a checkpoint the store is opened again.
 */
#include "base/alloc.h"
#include "base/hash.h"
#include "fuzz/segments.h"
#include "store/blob.h"
#include "store/format.h"

enum { REFERENCES = 2, PRELUDE = REFERENCES * QR_BLOB_REF_BYTES + 16 };
#define READ_MOST (1u << 20)

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

/* By pieces of a block, as the compare-and-swap does it. */
static int read_pieces(struct qr_store *store, const struct qr_blob_ref *ref, uint8_t *to)
{
    struct qr_blob_reader reader;
    int result = qr_blob_open(store, ref, &reader);
    if (result != 0)
        return result;
    for (uint64_t at = 0; at < ref->size && result == 0; at += QR_BLOB_BLOCK_BYTES)
        result = qr_blob_read_at(&reader, (uint32_t)at, (uint32_t)qr_min(QR_BLOB_BLOCK_BYTES, ref->size - at), to + at);
    qr_blob_close(&reader);
    return result;
}

static bool read_blob(struct qr_store *store, const struct qr_blob_ref *ref)
{
    int verified = qr_blob_verify(store, ref);
    if (ref->size > READ_MOST) {
        FUZZ_CHECK(verified != 0); /* no file is so large */
        return false;
    }
    uint8_t *whole = qr_malloc(ref->size), *pieces = qr_malloc(ref->size);
    FUZZ_CHECK(whole != NULL);
    FUZZ_CHECK(pieces != NULL);
    FUZZ_CHECK((qr_blob_read(store, ref, whole) == 0) == (verified == 0));
    FUZZ_CHECK((read_pieces(store, ref, pieces) == 0) == (verified == 0));
    if (verified == 0)
        FUZZ_CHECK(memcmp(whole, pieces, ref->size) == 0);
    qr_free(whole);
    qr_free(pieces);
    return verified == 0;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static bool write_blob(struct qr_store *store, uint32_t size, struct qr_blob_ref *ret_ref)
{
    static uint8_t value[200000];
    struct qr_blob blob = {.tree_id = 1, .key = "key", .key_size = 3, .value = value, .size = size, .lsn = 9};
    memset(value, (int)size, size);
    return qr_blob_write(store, &blob, ret_ref) == 0 && qr_blob_sync(store) == 0;
}

/* The blob that was written before the checkpoint is there after it, whatever else is. */
static void write_on(struct segments *segments, struct qr_store *store, const struct qr_blob_ref *refs, const bool *good)
{
    struct qr_blob_stats before, after;
    struct qr_blob_ref ref;
    uint8_t bytes[QR_BLOB_REF_BYTES];
    struct qr_store *again;
    if (qr_store_clean_up(store) != 0 || !write_blob(store, 1000, &ref))
        return;
    FUZZ_CHECK(read_blob(store, &ref));
    for (uint32_t i = 0; i < REFERENCES; i++) {
        if (!good[i])
            continue;
        (void)qr_blob_replayed(store, &refs[i], true, true);
        qr_blob_ref_encode(&refs[i], bytes);
        qr_blob_dead(store, bytes, 1, 100);
        qr_blob_dead(store, bytes, 1, 100); /* BLOB-2 */
    }
    qr_blob_stats(store, &before);
    segments->checkpoint.replay_from = 50; /* the dead are still needed */
    if (segments_commit(segments, store) != 0)
        return;
    FUZZ_CHECK(segments_open(segments, &again) == 0);
    FUZZ_CHECK(read_blob(again, &ref));
    qr_blob_stats(again, &after);
    FUZZ_CHECK(after.dead_bytes == before.dead_bytes);
    qr_store_close(again);
}

/* ---- The target ------------------------------------------------------------------------------------------------- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t begun = fuzz_begin();
    struct fuzz_input input = {data, size};
    struct qr_blob_ref refs[REFERENCES] = {{0}};
    bool good[REFERENCES];
    struct segments segments;
    struct qr_store *store;
    uint8_t prelude[PRELUDE];
    fuzz_take(&input, prelude, sizeof(prelude));
    segments_make(&segments, input);
    if (segments_open(&segments, &store) == 0) {
        for (uint32_t i = 0; i < REFERENCES; i++)
            good[i] = qr_blob_ref_decode(prelude + i * QR_BLOB_REF_BYTES, &refs[i]) && read_blob(store, &refs[i]);
        if ((segments.flags & SEGMENTS_READ_ONLY) == 0)
            write_on(&segments, store, refs, good);
        qr_store_close(store);
    }
    segments.dir->disk->ops->dir_close(segments.dir);
    fuzz_end(begun, segments.disk);
    return 0;
}

void fuzz_repair(uint8_t *data, size_t size)
{
    if (size > PRELUDE)
        segments_repair(data + PRELUDE, size - PRELUDE);
}

/* ---- Seeds ------------------------------------------------------------------------------------------------------ */

/* Three blobs of these sizes; the last one is dead. */
static void make_seed(const char *name, const uint32_t sizes[3], unsigned flags, fuzz_sink *sink, void *context)
{
    static uint8_t data[128 << 10];
    uint8_t dead[QR_BLOB_REF_BYTES];
    struct segments segments;
    struct qr_store *store;
    struct qr_blob_ref refs[3];
    size_t size = PRELUDE;
    memset(data, 0, PRELUDE);
    segments_make(&segments, (struct fuzz_input){(const uint8_t *)"", 0});
    FUZZ_CHECK(segments_open(&segments, &store) == 0);
    for (uint32_t i = 0; i < 3; i++)
        FUZZ_CHECK(write_blob(store, sizes[i], &refs[i]));
    for (uint32_t i = 0; i < REFERENCES; i++)
        qr_blob_ref_encode(&refs[i], data + i * QR_BLOB_REF_BYTES);
    qr_blob_ref_encode(&refs[2], dead);
    qr_blob_dead(store, dead, 1, 100);
    segments.checkpoint.replay_from = 50;
    segments.checkpoint.next_page_id = 100;
    FUZZ_CHECK(segments_commit(&segments, store) == 0);
    qr_store_close(store);
    segments.flags = flags;
    segments_take(&segments, data, &size, sizeof(data));
    sink(context, name, data, size);
    segments.dir->disk->ops->dir_close(segments.dir);
    simdisk_free(segments.disk);
}

void fuzz_seeds(fuzz_sink *sink, void *context)
{
    make_seed("small", (const uint32_t[]){100, 300, 500}, 0, sink, context);
    make_seed("small_read", (const uint32_t[]){1, 64, 128}, SEGMENTS_READ_ONLY, sink, context);
}
