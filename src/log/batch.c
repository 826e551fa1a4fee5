/*
 * batch.c: gathering and sorting.
 *
 * Layer 3. Read batch.h first. Most of the order is in the heads, which are sorted byte by byte, least significant first,
 * without a look at the keys; only where heads are equal keys are compared. So it matters that heads tell keys apart: they
 * are taken behind what the keys of a tree share. How much that is shows with the first records; later ones that share less
 * make all heads be taken anew.
 */
#include "log/batch.h"

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/status.h"

#define RETAKE_AT_ONCE 1024u /* as long as there are so few, a change of what is shared costs nothing */

static struct qr_batch_group *group_of(struct qr_batch *batch, uint32_t tree)
{
    return &batch->groups[tree % QR_BATCH_GROUPS];
}

int qr_batch_init(struct qr_batch *batch, const uint8_t *window, uint32_t capacity)
{
    *batch = (struct qr_batch){.window = window, .capacity = capacity};
    batch->entries = qr_map_buffer(capacity * sizeof(*batch->entries));
    batch->other = qr_map_buffer(capacity * sizeof(*batch->other));
    if (batch->entries != NULL && batch->other != NULL) return 0;
    qr_batch_done(batch);
    return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to sort the log's records");
}

void qr_batch_done(struct qr_batch *batch)
{
    qr_unmap_buffer(batch->entries, batch->capacity * sizeof(*batch->entries));
    qr_unmap_buffer(batch->other, batch->capacity * sizeof(*batch->other));
    qr_free(batch->large);
    *batch = (struct qr_batch){0};
}

void qr_batch_clear(struct qr_batch *batch)
{
    batch->count = 0;
    batch->large_count = 0;
    batch->stale = false;
    memset(batch->groups, 0, sizeof(batch->groups));
}

/* ---- Records ---------------------------------------------------------------------------------------------------- */

static void get(const struct qr_batch *batch, const struct qr_batch_entry *entry, struct qr_frame *ret_frame,
                uint64_t *ret_lsn)
{
    const uint8_t *at = batch->window + (uint64_t)entry->at * QR_FRAME_UNIT;
    bool parsed = qr_frame_parse(at, qr_load_u16(at) * QR_FRAME_UNIT, ret_frame);
    QR_ASSERT(parsed);
    (void)parsed;
    *ret_lsn = qr_load_u64(at + 8);
    if (QR_LIKELY(ret_frame->last_part == 0)) return;
    uint32_t low = 0;
    for (uint32_t high = batch->large_count; high - low > 1;) {
        uint32_t middle = low + (high - low) / 2;
        if (batch->large[middle].at <= entry->at)
            low = middle;
        else
            high = middle;
    }
    QR_ASSERT(batch->large[low].at == entry->at);
    *ret_frame = batch->large[low].frame;
}

void qr_batch_get(const struct qr_batch *batch, uint32_t index, struct qr_frame *ret_frame, uint64_t *ret_lsn)
{
    get(batch, &batch->entries[index], ret_frame, ret_lsn);
}

static void take_heads(struct qr_batch *batch)
{
    struct qr_frame frame;
    uint64_t lsn;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct qr_batch_entry *entry = &batch->entries[i];
        get(batch, entry, &frame, &lsn);
        entry->head = qr_head64(frame.key, frame.key_size, group_of(batch, entry->tree)->shared);
    }
    batch->stale = false;
}

static int add_large(struct qr_batch *batch, uint32_t at, const struct qr_frame *frame)
{
    struct qr_batch_large *larger = qr_grow(batch->large, batch->large_count, &batch->large_capacity, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to sort the log's records");
    batch->large = larger;
    batch->large[batch->large_count++] = (struct qr_batch_large){at, *frame};
    return 0;
}

int qr_batch_add(struct qr_batch *batch, const struct qr_replay_record *record)
{
    const struct qr_frame *frame = &record->frame;
    struct qr_batch_group *group = group_of(batch, frame->tree_id);
    uint32_t at = (uint32_t)((uint64_t)(record->at - batch->window) / QR_FRAME_UNIT);
    QR_ASSERT(!qr_batch_is_full(batch) && (batch->count == 0 || batch->entries[batch->count - 1].at < at));
    if (QR_UNLIKELY(frame->last_part != 0)) {
        int result = add_large(batch, at, frame);
        if (result != 0) return result;
    }
    if (QR_UNLIKELY(group->key == NULL)) *group = (struct qr_batch_group){frame->key, frame->key_size, frame->key_size};
    /* Whoever shares the first `shared` bytes with the first key shares them with all. */
    if (QR_UNLIKELY(frame->key_size < group->shared || memcmp(frame->key, group->key, group->shared) != 0)) {
        group->shared = (uint32_t)qr_common_prefix(frame->key, frame->key_size, group->key, group->shared);
        batch->stale = true;
        if (batch->count < RETAKE_AT_ONCE) take_heads(batch);
    }
    batch->entries[batch->count++] = (struct qr_batch_entry){
        .head = qr_head64(frame->key, frame->key_size, group->shared), .at = at, .tree = frame->tree_id};
    return 0;
}

/* ---- Sorting ---------------------------------------------------------------------------------------------------- */

/* Bytes of an entry by significance, from the least one: 8 of the head, 4 of the tree. */
#define BYTES 12u

static unsigned byte_of(const struct qr_batch_entry *entry, unsigned byte)
{
    return byte < 8 ? (unsigned)(entry->head >> (8 * byte)) & 255 : (entry->tree >> (8 * (byte - 8))) & 255;
}

/* One stable pass from `entries` to `other`, which then change places. */
static void pass(struct qr_batch *batch, unsigned byte)
{
    uint32_t counts[256] = {0};
    uint32_t at = 0;
    for (uint32_t i = 0; i < batch->count; i++) counts[byte_of(&batch->entries[i], byte)]++;
    for (unsigned value = 0; value < 256; value++) {
        uint32_t count = counts[value];
        counts[value] = at;
        at += count;
    }
    for (uint32_t i = 0; i < batch->count; i++)
        batch->other[counts[byte_of(&batch->entries[i], byte)]++] = batch->entries[i];
    struct qr_batch_entry *sorted = batch->other;
    batch->other = batch->entries;
    batch->entries = sorted;
}

static int compare_keys(const struct qr_batch *batch, const struct qr_batch_entry *a, const struct qr_batch_entry *b)
{
    struct qr_frame x, y;
    uint64_t lsn;
    get(batch, a, &x, &lsn);
    get(batch, b, &y, &lsn);
    return qr_compare(x.key, x.key_size, y.key, y.key_size);
}

/* Sorts [from, to), entries of one tree and head in the order of their LSNs, by key: a stable merge sort. */
static void sort_tied(struct qr_batch *batch, uint32_t from, uint32_t to)
{
    struct qr_batch_entry *entries = batch->entries;
    struct qr_batch_entry *other = batch->other;
    for (uint32_t width = 1; width < to - from; width *= 2) {
        for (uint32_t start = from; start < to; start += 2 * width) {
            uint32_t middle = (uint32_t)qr_min(start + width, to);
            uint32_t end = (uint32_t)qr_min((uint64_t)start + 2 * width, to);
            uint32_t i = start;
            uint32_t j = middle;
            for (uint32_t k = start; k < end; k++) {
                bool left = j == end || (i < middle && compare_keys(batch, &entries[i], &entries[j]) <= 0);
                other[k] = left ? entries[i++] : entries[j++];
            }
            memcpy(entries + start, other + start, (end - start) * sizeof(*entries));
        }
    }
}

void qr_batch_sort(struct qr_batch *batch)
{
    struct qr_batch_entry differs = {0}; /* the bits in which entries differ from the first */
    if (batch->stale) take_heads(batch);
    qr_touch_buffer(batch->other, batch->count * sizeof(*batch->other));
    for (uint32_t i = 1; i < batch->count; i++) {
        differs.head |= batch->entries[i].head ^ batch->entries[0].head;
        differs.tree |= batch->entries[i].tree ^ batch->entries[0].tree;
    }
    for (unsigned byte = 0; byte < BYTES; byte++)
        if (byte_of(&differs, byte) != 0) pass(batch, byte);
    for (uint32_t from = 0, to; from < batch->count && !QR_BUG(replay_keys_unsorted); from = to) {
        const struct qr_batch_entry *first = &batch->entries[from];
        for (to = from + 1; to < batch->count; to++)
            if (batch->entries[to].head != first->head || batch->entries[to].tree != first->tree) break;
        if (to - from > 1) sort_tied(batch, from, to);
    }
}
