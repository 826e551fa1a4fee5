/*
 * Goal: whatever the segments of a page store and its checkpoint hold (root, blocks and nodes of the mapping, free ids, batches,
 * images), opening, lookups and reads answer, within bounded memory; and what was opened can be written to and opened again.
 * Method: the input is a store (segments.h). It is verified, every page looked up and read; then pages are written and removed, a
 * checkpoint made, the store opened from it, and the mapping compared.
 */
#include "base/alloc.h"
#include "base/hash.h"
#include "db/flush.h"
#include "fuzz/segments.h"
#include "page/page.h"
#include "store/verify.h"

#define NEW_PID 3u
#define REMOVED_PID 4u

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

struct seen {
    struct qr_store *store;
    uint64_t faults, pages, hash;
};

static int note_fault(void *context, const struct qr_store_fault *fault)
{
    struct seen *seen = context;
    FUZZ_CHECK(fault->text != NULL);
    seen->faults++;
    return 0;
}

/* Ends the verification, with a result as a failure has it. */
static int end_at_fault(void *context, const struct qr_store_fault *fault)
{
    (void)note_fault(context, fault);
    return QUIRE_ERR_CORRUPT;
}

static const char *look_at_page(void *context, uint64_t pid, const struct qr_store_entry *entry, void *bytes, uint32_t size)
{
    (void)context;
    FUZZ_CHECK((uintptr_t)bytes % 64 == 0);
    return qr_db_adopt_image(bytes, size, size, pid, entry->address);
}

/* Each page is read as the mapping says it; whether it can be is another matter. */
static int see_page(void *context, uint64_t pid, const struct qr_store_entry *entry)
{
    struct seen *seen = context;
    struct qr_store_read read = {.address = entry->address, .pid = pid};
    void *bytes = NULL;
    uint32_t size = 0;
    seen->pages++;
    seen->hash += (pid * 31 + entry->address) * 31 + entry->max_lsn;
    int result = qr_store_read(seen->store, entry->address, pid, segments_give, NULL, &bytes, &size);
    (void)qr_store_read_many(seen->store, &read, 1, segments_give, NULL);
    FUZZ_CHECK((read.result == 0) == (result == 0));
    if (result == 0) {
        FUZZ_CHECK(size == read.size);
        FUZZ_CHECK(memcmp(bytes, read.bytes, size) == 0);
    }
    qr_free(bytes);
    qr_free(read.bytes);
    return 0;
}

/* Faults of the mapping itself make the walk fail. */
static int see_all(struct qr_store *store, struct seen *ret_seen)
{
    *ret_seen = (struct seen){.store = store};
    return qr_store_each(store, see_page, ret_seen);
}

static void read_free_ids(const struct segments *segments, struct qr_store *store)
{
    uint64_t *ids, count;
    if (qr_store_read_free_ids(store, &segments->checkpoint, &ids, &count) != 0)
        return;
    for (uint64_t i = 0; i < count; i++) {
        FUZZ_CHECK(ids[i] < segments->checkpoint.next_page_id);
        FUZZ_CHECK(i == 0 || ids[i - 1] < ids[i]);
    }
    qr_free(ids);
}

static void verify(struct qr_store *store)
{
    struct seen all = {.store = store}, first = {.store = store};
    struct qr_store_verifier verifier = {.fault = note_fault, .page = look_at_page, .context = &all};
    FUZZ_CHECK(qr_store_verify(store, &verifier) == 0);
    verifier.fault = end_at_fault;
    verifier.context = &first;
    FUZZ_CHECK(qr_store_verify(store, &verifier) == (all.faults == 0 ? 0 : QUIRE_ERR_CORRUPT));
    FUZZ_CHECK(first.faults == qr_min(all.faults, 1));
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static bool write_page(struct qr_store *store, uint64_t pid)
{
    struct qr_store_image image = {.pid = pid, .tree_id = 1, .kind = QR_STORE_LEAF, .min_lsn = 7, .max_lsn = 9,
                                   .bytes = "a page", .size = 6};
    if (qr_store_write(store, &image, 1, 0) != 0)
        return false;
    qr_store_enter(store, pid, image.address);
    return true;
}

/* Only what lies beside the pages that were touched has to be the same, so the mapping is compared after the changes. */
static void write_on(struct segments *segments, struct qr_store *store)
{
    struct seen before, after;
    struct qr_store *again;
    if (qr_store_clean_up(store) != 0 || !write_page(store, NEW_PID))
        return;
    qr_store_remove(store, REMOVED_PID);
    if (see_all(store, &before) != 0 || segments_commit(segments, store) != 0)
        return;
    FUZZ_CHECK(segments_open(segments, &again) == 0);
    FUZZ_CHECK(see_all(again, &after) == 0);
    FUZZ_CHECK(after.pages == before.pages);
    FUZZ_CHECK(after.hash == before.hash);
    qr_store_close(again);
}

/* ---- The target ------------------------------------------------------------------------------------------------- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t begun = fuzz_begin();
    struct segments segments;
    struct qr_store *store;
    segments_make(&segments, (struct fuzz_input){data, size});
    if (segments_open(&segments, &store) == 0) {
        struct qr_store_stats stats;
        struct seen seen;
        verify(store);
        (void)see_all(store, &seen);
        read_free_ids(&segments, store);
        qr_store_trim(store);
        if ((segments.flags & SEGMENTS_READ_ONLY) == 0)
            write_on(&segments, store);
        qr_store_stats(store, &stats);
        qr_store_close(store);
    }
    segments.dir->disk->ops->dir_close(segments.dir);
    fuzz_end(begun, segments.disk);
    return 0;
}

void fuzz_repair(uint8_t *data, size_t size)
{
    segments_repair(data, size);
}

/* ---- Seeds ------------------------------------------------------------------------------------------------------ */

static void make_seed(const char *name, const uint64_t *pids, size_t count, unsigned flags, fuzz_sink *sink, void *context)
{
    static uint8_t data[64 << 10];
    static const uint64_t free_ids[] = {20, 21, 30};
    struct segments segments;
    struct qr_store *store;
    struct qr_store_capture *capture;
    size_t size = 0;
    segments_make(&segments, (struct fuzz_input){(const uint8_t *)"", 0});
    FUZZ_CHECK(segments_open(&segments, &store) == 0);
    for (size_t i = 0; i < count; i++)
        FUZZ_CHECK(write_page(store, pids[i]));
    segments.checkpoint.next_page_id = pids[count - 1] + 100;
    FUZZ_CHECK(qr_store_capture(store, &capture) == 0);
    FUZZ_CHECK(qr_store_commit(store, capture, free_ids, QR_ARRAY_COUNT(free_ids), &segments.checkpoint) == 0);
    qr_store_committed(store, capture);
    qr_store_close(store);
    segments.flags = flags;
    segments_take(&segments, data, &size, sizeof(data));
    sink(context, name, data, size);
    segments.dir->disk->ops->dir_close(segments.dir);
    simdisk_free(segments.disk);
}

void fuzz_seeds(fuzz_sink *sink, void *context)
{
    make_seed("one_block", (uint64_t[]){1, 2, 3, 4, 9}, 5, 0, sink, context);
    make_seed("one_block_read", (uint64_t[]){1, 4}, 2, SEGMENTS_READ_ONLY, sink, context);
    make_seed("two_levels", (uint64_t[]){1, 4, 200}, 3, 0, sink, context);
}
