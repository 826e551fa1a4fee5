/*
 * commit.c: the life of a capture: what was captured becomes a new mapping beside the old one, and one of them goes.
 *
 * Layer 4. Construction writes, and changes nothing in memory that a reader sees:
 *
 *   changes by page id -> blocks (copied, changed, written) -> nodes, level by level -> free ids -> root -> sync
 *
 * Each new image waits as `written`, each change stays in the captured table, where lookups find it. Then:
 *
 *   committed   entries and addresses go into the mapping in memory, then the table; what they replace is dead
 *   abandoned   the new blocks are forgotten, the changes return to the list
 *   unknown     the same, and nothing is released any more
 *
 * COMMIT-1  `delta` of a segment is what the construction adds to or takes from its mapped bytes. The root's list of
 *           segments has mapped + delta: so the next opening knows what is live without looking at the mapping.
 * COMMIT-2  Between construction and its end the nodes that it touched stay in memory (no trim while a capture is
 * open), so that the end cannot fail.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/internal.h"

#define IMAGES_AT_ONCE 256u
#define CHANGES_AT_ONCE 64u /* under one hold of the mutex */

/* ---- Capture ---------------------------------------------------------------------------------------------------- */

int qr_store_capture(struct qr_store *store, struct qr_store_capture **ret_capture)
{
    struct qr_store_capture *capture = qr_calloc(1, sizeof(*capture));
    if (capture == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a checkpoint");
    capture->store = store;
    qr_lock(store);
    QR_ASSERT(store->captured == NULL);
    capture->changes = store->changes; /* the buckets move, and the nodes with them */
    qr_changes_init(&store->changes);
    store->captured = &capture->changes;
    qr_unlock(store);
    *ret_capture = capture;
    return 0;
}

/* Under the mutex. The image of a change, if it has one, is dead. */
static void drop(struct qr_store *store, struct qr_change *change)
{
    if (change == NULL)
        return;
    if (change->address != 0) {
        struct qr_segment *segment = qr_segment_find(store, qr_address_number(change->address));
        segment->pending -= change->stored_bytes; /* it is pending, so its segment is there */
    }
    qr_free(change);
}

void qr_change_enter(struct qr_store *store, struct qr_changes *to, uint64_t pid, uint64_t address)
{
    qr_lock(store);
    struct qr_change *change = qr_changes_take(&store->written, address);
    QR_ASSERT(change != NULL);
    QR_ASSERT(change->pid == pid);
    if (change != NULL) {
        drop(store, qr_changes_take(to, pid));
        change->key = pid;
        qr_changes_add(to, change);
    }
    qr_unlock(store);
}

void qr_change_remove(struct qr_store *store, struct qr_changes *from, uint64_t pid)
{
    struct qr_change *removal = qr_calloc(1, sizeof(*removal));
    qr_lock(store);
    struct qr_change *before = qr_changes_take(from, pid);
    if (removal == NULL && before != NULL && before->address != 0) {
        struct qr_segment *segment = qr_segment_find(store, qr_address_number(before->address));
        segment->pending -= before->stored_bytes;
        before->address = 0;
    }
    if (removal == NULL) {
        removal = before;
        before = NULL;
    }
    drop(store, before);
    if (removal != NULL) {
        *removal = (struct qr_change){.key = pid, .pid = pid};
        qr_changes_add(from, removal);
    } else {
        from->lost = true;
    }
    qr_unlock(store);
}

void qr_store_forget(struct qr_store *store, uint64_t address)
{
    qr_lock(store);
    struct qr_change *change = qr_changes_take(&store->written, address);
    QR_ASSERT(change != NULL);
    drop(store, change);
    qr_unlock(store);
}

void qr_store_capture_enter(struct qr_store_capture *capture, uint64_t pid, uint64_t address)
{
    qr_change_enter(capture->store, &capture->changes, pid, address);
}

void qr_store_capture_remove(struct qr_store_capture *capture, uint64_t pid)
{
    qr_change_remove(capture->store, &capture->changes, pid);
}

/* ---- Accounting ------------------------------------------------------------------------------------------------- */

/* Adds to what the new mapping names. CORRUPT: the old one names what cannot be. */
static int account(struct qr_store *store, uint64_t address, int64_t bytes)
{
    qr_lock(store);
    struct qr_segment *segment = qr_segment_find(store, qr_address_number(address));
    bool possible = segment != NULL && (int64_t)segment->mapped + segment->delta + bytes >= 0;
    if (possible)
        segment->delta += bytes;
    qr_unlock(store);
    if (possible)
        return 0;
    return qr_segment_corrupt(store, qr_address_number(address), qr_address_offset(address),
                              "the mapping names more than there is");
}

/* An entry comes (sign 1) or goes (-1). */
static int account_entry(struct qr_store_capture *capture, const struct qr_entry *entry, int sign)
{
    if (entry->address == 0)
        return 0;
    uint64_t bytes = entry->stored_bytes;
    int result = account(capture->store, entry->address, sign * (int64_t)entry->stored_bytes);
    for (uint32_t i = 0; i < entry->parts && result == 0; i++) {
        bytes += entry->part_stored_bytes[i];
        result = account(capture->store, entry->part_address[i], sign * (int64_t)entry->part_stored_bytes[i]);
    }
    capture->pages += (uint64_t)sign;
    capture->live_bytes += (uint64_t)sign * bytes;
    return result;
}

/* ---- Blocks and nodes ------------------------------------------------------------------------------------------- */

/* Images of 4032 bytes on their way to the store. */
struct queue {
    struct qr_store_capture *capture;
    struct qr_store_image images[IMAGES_AT_ONCE];
    struct qr_map_node *nodes[IMAGES_AT_ONCE];
    uint8_t (*bytes)[QR_BLOCK_BYTES];
    uint32_t count;
};

static int note_built(struct qr_store_capture *capture, struct qr_map_node *node, uint64_t address, uint32_t stored)
{
    struct qr_built *larger = qr_grow(capture->built, capture->built_count, &capture->built_room, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the list of new blocks");
    capture->built = larger;
    capture->built[capture->built_count++] = (struct qr_built){node, address, stored};
    if (node->address != 0) {
        int result = account(capture->store, node->address, -(int64_t)(QR_BLOCK_BYTES + QR_IMAGE_HEADER_BYTES));
        if (result != 0)
            return result;
    }
    return address == 0 ? 0 : account(capture->store, address, stored);
}

static int flush(struct queue *queue)
{
    struct qr_store *store = queue->capture->store;
    int result = queue->count == 0 ? 0 : qr_store_write(store, queue->images, queue->count, QR_STORE_RESERVE);
    if (result != 0)
        return result;
    uint32_t done = 0;
    for (; done < queue->count && result == 0; done++)
        result = note_built(queue->capture, queue->nodes[done], queue->images[done].address,
                            queue->images[done].stored_bytes);
    /* One that failed may be in the list or not: it is forgotten with the others if it is. */
    if (result != 0) {
        const struct qr_store_capture *capture = queue->capture;
        uint64_t address = queue->images[done - 1].address;
        if (capture->built_count == 0 || capture->built[capture->built_count - 1].address != address)
            qr_store_forget(store, address);
    }
    for (; done < queue->count; done++)
        qr_store_forget(store, queue->images[done].address);
    queue->count = 0;
    return result;
}

/* Where the new contents of the node are to be made; they begin as the present ones. */
static uint8_t *copy_of(struct queue *queue, const struct qr_map_node *node)
{
    uint8_t *bytes = queue->bytes[queue->count];
    memcpy(bytes, &node->as, QR_BLOCK_BYTES);
    return bytes;
}

static bool is_zero(const uint8_t *bytes)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, QR_BLOCK_BYTES - 1) == 0;
}

/* The contents that copy_of began are complete. */
static int put(struct queue *queue, struct qr_map_node *node)
{
    uint8_t *bytes = queue->bytes[queue->count];
    if (is_zero(bytes)) { /* kept in order: those before it are noted first */
        int result = flush(queue);
        return result != 0 ? result : note_built(queue->capture, node, 0, 0);
    }
    queue->images[queue->count] = (struct qr_store_image){
        .pid = node->first_pid,
        .kind = node->level == 0 ? QR_STORE_BLOCK : QR_STORE_NODE,
        .level = (uint8_t)node->level,
        .codec = QR_CODEC_NONE,
        .bytes = bytes,
        .size = QR_BLOCK_BYTES,
    };
    queue->nodes[queue->count++] = node;
    return queue->count == IMAGES_AT_ONCE ? flush(queue) : 0;
}

/* The entry that a change makes. */
static struct qr_entry entry_of(const struct qr_change *change)
{
    struct qr_entry entry = {0};
    if (change->address != 0) {
        entry.address = change->address;
        entry.max_lsn = change->max_lsn;
        entry.stored_bytes = change->stored_bytes;
    }
    return entry;
}

static int build_blocks(struct qr_store_capture *capture, struct queue *queue)
{
    int result = 0;
    for (uint64_t i = 0; i < capture->sorted_count && result == 0;) {
        struct qr_map_node *block;
        result = qr_mapping_get(capture->store, capture->sorted[i]->pid, 0, true, &block);
        if (result != 0)
            break;
        struct qr_entry *entries = (struct qr_entry *)(void *)copy_of(queue, block);
        for (;
             i < capture->sorted_count && capture->sorted[i]->pid < block->first_pid + QR_BLOCK_ENTRIES && result == 0;
             i++) {
            struct qr_entry *entry = &entries[capture->sorted[i]->pid - block->first_pid];
            result = account_entry(capture, entry, -1);
            *entry = entry_of(capture->sorted[i]);
            if (result == 0)
                result = account_entry(capture, entry, 1);
        }
        if (result == 0)
            result = put(queue, block);
    }
    return result != 0 ? result : flush(queue);
}

/* Nodes of a level over those that were built for the one below, which are capture->built[first] to its end. */
static int build_nodes(struct qr_store_capture *capture, struct queue *queue, uint32_t level, uint64_t first)
{
    int result = 0;
    uint64_t end = capture->built_count;
    for (uint64_t i = first; i < end && result == 0;) {
        struct qr_map_node *node;
        result = qr_mapping_get(capture->store, capture->built[i].node->first_pid, level, true, &node);
        if (result != 0)
            break;
        uint64_t *addresses = (uint64_t *)(void *)copy_of(queue, node);
        uint64_t below = qr_mapping_span(level - 1), behind = node->first_pid + qr_mapping_span(level);
        for (; i < end && capture->built[i].node->first_pid < behind; i++)
            addresses[(capture->built[i].node->first_pid - node->first_pid) / below] = capture->built[i].address;
        result = put(queue, node);
    }
    return result != 0 ? result : flush(queue);
}

/* ---- The list of changes ---------------------------------------------------------------------------------------- */

static int compare_changes(const void *a, const void *b)
{
    const struct qr_change *x = *(struct qr_change *const *)a, *y = *(struct qr_change *const *)b;
    return (x->pid > y->pid) - (x->pid < y->pid);
}

/* Removals that found no memory: their ids are free, so they are in the list of free ids. */
static int find_lost(struct qr_store_capture *capture, const uint64_t *free_ids, uint64_t count)
{
    struct qr_store *store = capture->store;
    for (uint64_t i = 0; i < count; i++) {
        struct qr_map_node *block;
        if (qr_changes_find(&capture->changes, free_ids[i]) != NULL)
            continue;
        int result = qr_mapping_get(store, free_ids[i], 0, false, &block);
        if (result != 0)
            return result;
        if (block == NULL || block->as.entries[free_ids[i] - block->first_pid].address == 0)
            continue;
        struct qr_change *removal = qr_calloc(1, sizeof(*removal));
        if (removal == NULL)
            return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a removed page");
        *removal = (struct qr_change){.key = free_ids[i], .pid = free_ids[i]};
        qr_lock(store);
        qr_changes_add(&capture->changes, removal);
        qr_unlock(store);
    }
    return 0;
}

static int sort_changes(struct qr_store_capture *capture, const uint64_t *free_ids, uint64_t count)
{
    int result = capture->changes.lost ? find_lost(capture, free_ids, count) : 0;
    if (result != 0)
        return result;
    capture->sorted_count = capture->changes.count;
    capture->sorted = qr_calloc(capture->sorted_count + 1, sizeof(struct qr_change *));
    if (capture->sorted == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the list of changes");
    qr_changes_list(&capture->changes, capture->sorted);
    qsort(capture->sorted, capture->sorted_count, sizeof(struct qr_change *), compare_changes);
    return 0;
}

/* ---- Free ids and root ------------------------------------------------------------------------------------------ */

/* Writes one image that a place names. */
static int write_place(struct qr_store_capture *capture, enum qr_place place, struct qr_store_image *image)
{
    int result = qr_store_write(capture->store, image, 1, QR_STORE_RESERVE);
    if (result == 0)
        capture->places[place] = (struct qr_manifest_place){image->address, image->stored_bytes};
    return result;
}

static int write_free_ids(struct qr_store_capture *capture, const uint64_t *free_ids, uint64_t count)
{
    if (count == 0)
        return 0;
    if (count > QR_IMAGE_MOST / sizeof(uint64_t))
        return qr_fail(QUIRE_ERR_TOO_LARGE, 0, "%llu free page ids", (unsigned long long)count);
    struct qr_store_image image = {.kind = QR_STORE_FREE_IDS, .bytes = free_ids, .size = (uint32_t)(count * 8)};
    return write_place(capture, QR_PLACE_FREE_IDS, &image);
}

static bool is_in_place(const struct qr_store_capture *capture, uint32_t number)
{
    bool in = false;
    for (uint32_t i = 0; i < QR_PLACES; i++)
        in = in || (capture->places[i].size_bytes != 0 && qr_address_number(capture->places[i].address) == number);
    return in || qr_blob_list_is_in(capture, number);
}

/* As qr_append_fill: the root's list has the segments that the new mapping or its places name. */
static uint32_t fill_root(void *context, const struct qr_segment *own, uint64_t end, uint8_t *to)
{
    struct qr_store_capture *capture = context;
    struct qr_store *store = capture->store;
    uint32_t count = 0;
    qr_lock(store);
    for (uint32_t i = 0; i < store->segment_count; i++) {
        const struct qr_segment *segment = store->segments[i];
        int64_t live = (int64_t)segment->mapped + segment->delta;
        uint64_t used = segment == own ? end : segment->used;
        if (segment->stream == QR_STREAM_BLOB) {
            const struct qr_blob_captured *captured = qr_blob_captured_find(capture, segment->number);
            if (captured == NULL)
                continue;
            used = captured->used;
            live = (int64_t)(used - QR_SEGMENT_HEADER_BYTES - captured->dead_bytes);
        } else if (own != NULL && live == 0 && segment != own && !is_in_place(capture, segment->number)) {
            continue;
        }
        struct qr_root_segment entry = {segment->number, segment->stream, segment->salt, segment->size, used,
                                        (uint64_t)live};
        if (to != NULL)
            qr_root_segment_encode(&entry, to + QR_ROOT_BYTES + (size_t)count * QR_ROOT_SEGMENT_BYTES);
        count++;
    }
    uint64_t size = QR_ROOT_BYTES + (uint64_t)count * QR_ROOT_SEGMENT_BYTES;
    uint32_t dead = qr_blob_table(capture, to == NULL ? NULL : to + size);
    qr_unlock(store);
    struct qr_root root = {.height = capture->height,
                           .segment_count = count,
                           .dead_count = dead,
                           .top = capture->top_address,
                           .pages = capture->pages,
                           .live_bytes = capture->live_bytes,
                           .sequence = store->sequence + 1};
    if (to != NULL)
        qr_root_encode(&root, to);
    return (uint32_t)(size + (own == NULL) * QR_ROOT_SEGMENT_BYTES + (uint64_t)dead * QR_ROOT_DEAD_BYTES);
}

static int write_root(struct qr_store_capture *capture)
{
    struct qr_store_image image = {.kind = QR_STORE_ROOT};
    int result = qr_append_root(capture->store, fill_root, capture, &image);
    if (result == 0)
        capture->places[QR_PLACE_ROOT] = (struct qr_manifest_place){image.address, image.stored_bytes};
    return result;
}

/* ---- Commit ----------------------------------------------------------------------------------------------------- */

static int build(struct qr_store_capture *capture)
{
    struct queue *queue = qr_calloc(1, sizeof(*queue));
    uint64_t room = capture->sorted_count < IMAGES_AT_ONCE ? capture->sorted_count + 1 : IMAGES_AT_ONCE;
    if (queue != NULL)
        queue->bytes = qr_calloc(room, sizeof(*queue->bytes));
    if (queue == NULL || queue->bytes == NULL) {
        qr_free(queue);
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for new blocks of the mapping");
    }
    queue->capture = capture;
    int result = build_blocks(capture, queue);
    uint64_t first = 0;
    /* The top may have been raised by build_blocks, and by nobody else. */
    uint32_t height = capture->store->top == NULL ? 0 : capture->store->top->level;
    for (uint32_t level = 1; level <= height && result == 0; level++) {
        uint64_t next = capture->built_count;
        result = build_nodes(capture, queue, level, first);
        first = next;
    }
    capture->height = height;
    if (result == 0 && capture->built_count != 0)
        capture->top_address = capture->built[capture->built_count - 1].address;
    else if (result == 0 && capture->store->top != NULL)
        capture->top_address = capture->store->top->address;
    qr_free(queue->bytes);
    qr_free(queue);
    return result;
}

static void begin_construction(struct qr_store_capture *capture)
{
    struct qr_store *store = capture->store;
    qr_lock(store);
    for (uint32_t i = 0; i < store->segment_count; i++)
        store->segments[i]->delta = 0;
    capture->pages = store->pages;
    capture->live_bytes = store->live_bytes;
    qr_unlock(store);
}

int qr_store_commit(struct qr_store *store, struct qr_store_capture *capture, const uint64_t *free_ids,
                    uint64_t free_id_count, struct qr_manifest_checkpoint *record)
{
    QR_ASSERT(capture->sorted == NULL);
    qr_lock(store);
    int failed = store->failed, failed_errno = store->failed_errno;
    qr_unlock(store);
    if (failed != 0)
        return qr_fail(failed, failed_errno, "page segments: an earlier sync failed");
    begin_construction(capture);
    capture->places[QR_PLACE_TOMBSTONES] = record->range_tombstones;
    int result = sort_changes(capture, free_ids, free_id_count);
    if (result == 0)
        result = build(capture);
    if (result == 0)
        result = write_free_ids(capture, free_ids, free_id_count);
    if (result == 0)
        result = qr_blob_lists_write(capture, record->replay_from);
    bool empty = capture->top_address == 0 && free_id_count == 0 && capture->blob_count == 0 && record->range_tombstones.size_bytes == 0;
    if (result == 0 && !empty)
        result = write_root(capture);
    if (result == 0)
        result = qr_segments_sync(store);
    if (result != 0)
        return result;
    capture->complete = true;
    record->mapping_index = capture->places[QR_PLACE_ROOT];
    record->free_ids = capture->places[QR_PLACE_FREE_IDS];
    record->page_count = capture->pages;
    record->live_bytes = capture->live_bytes;
    record->free_id_count = free_id_count;
    for (uint64_t i = 0; i < capture->sorted_count; i++)
        if (capture->sorted[i]->address != 0)
            record->last_lsn = qr_max(record->last_lsn, capture->sorted[i]->max_lsn);
    qr_lock(store);
    record->next_segment = store->next_number;
    qr_unlock(store);
    if (QR_BUG(store_released_early))
        qr_segments_release(store);
    return 0;
}

/* ---- What becomes of it ----------------------------------------------------------------------------------------- */

static void free_capture(struct qr_store_capture *capture)
{
    qr_changes_done(&capture->changes);
    qr_free(capture->sorted);
    qr_free(capture->built);
    qr_blob_capture_free(capture);
    qr_free(capture);
}

/* An image that was written is now counted by who names it. Under the mutex. */
static void settle(struct qr_store *store, uint64_t address)
{
    struct qr_change *change = qr_changes_take(&store->written, address);
    drop(store, change);
}

/* Entries into the blocks; each is in the table until all of them are there. */
static void apply_changes(struct qr_store_capture *capture)
{
    struct qr_store *store = capture->store;
    for (uint64_t i = 0; i < capture->sorted_count;) {
        qr_lock(store);
        for (uint32_t n = 0; n < CHANGES_AT_ONCE && i < capture->sorted_count; n++, i++) {
            const struct qr_change *change = capture->sorted[i];
            struct qr_map_node *node = store->top;
            while (node->level > 0)
                node =
                    node->children[(change->pid - node->first_pid) / qr_mapping_span(node->level - 1)]; /* COMMIT-2 */
            node->as.entries[change->pid - node->first_pid] = entry_of(change);
            if (change->address == 0)
                continue;
            struct qr_segment *segment = qr_segment_find(store, qr_address_number(change->address));
            segment->pending -= change->stored_bytes; /* counted in delta */
        }
        qr_unlock(store);
    }
}

static void set_address(struct qr_store *store, struct qr_map_node *node, uint64_t address)
{
    struct qr_map_node *parent = NULL;
    for (struct qr_map_node *at = store->top; at != node;
         at = at->children[(node->first_pid - at->first_pid) / qr_mapping_span(at->level - 1)])
        parent = at;
    node->address = address;
    if (parent != NULL)
        parent->as.addresses[(node->first_pid - parent->first_pid) / qr_mapping_span(parent->level - 1)] = address;
}

static void apply_built(struct qr_store_capture *capture)
{
    struct qr_store *store = capture->store;
    for (uint64_t i = 0; i < capture->built_count;) {
        qr_lock(store);
        for (uint32_t n = 0; n < CHANGES_AT_ONCE && i < capture->built_count; n++, i++) {
            set_address(store, capture->built[i].node, capture->built[i].address);
            if (capture->built[i].address != 0)
                settle(store, capture->built[i].address); /* counted in delta */
        }
        qr_unlock(store);
    }
}

/* Under the mutex. */
static void count_place(struct qr_store *store, const struct qr_manifest_place *place, int sign)
{
    struct qr_segment *segment =
        place->size_bytes == 0 ? NULL : qr_segment_find(store, qr_address_number(place->address));
    if (segment != NULL)
        segment->meta += (uint64_t)sign * place->size_bytes;
}

void qr_store_committed(struct qr_store *store, struct qr_store_capture *capture)
{
    QR_ASSERT(capture->complete);
    /* For a moment some images count twice; nothing is released before the end of this call. */
    qr_lock(store);
    for (uint32_t i = 0; i < store->segment_count; i++) {
        struct qr_segment *segment = store->segments[i];
        segment->mapped += (uint64_t)segment->delta;
        segment->delta = 0;
    }
    qr_unlock(store);
    apply_changes(capture);
    apply_built(capture);
    qr_lock(store);
    for (uint32_t i = 0; i < QR_PLACES; i++) {
        if (capture->places[i].size_bytes != 0)
            settle(store, capture->places[i].address);
        count_place(store, &store->places[i], -1);
        count_place(store, &capture->places[i], 1);
        store->places[i] = capture->places[i];
    }
    for (uint32_t i = 0; i < capture->blob_count; i++) {
        if (capture->blobs[i].written)
            settle(store, capture->blobs[i].place.address);
    }
    qr_blob_lists_committed(capture);
    store->pages = capture->pages;
    store->live_bytes = capture->live_bytes;
    store->captured = NULL;
    qr_unlock(store);
    free_capture(capture);
    qr_segments_release(store);
}

/* What construction wrote is nobody's. */
static void forget_built(struct qr_store_capture *capture)
{
    struct qr_store *store = capture->store;
    qr_lock(store);
    for (uint64_t i = 0; i < capture->built_count; i++) {
        if (capture->built[i].address != 0)
            settle(store, capture->built[i].address);
    }
    for (uint32_t i = 0; i < QR_PLACES; i++) {
        if (i != QR_PLACE_TOMBSTONES && capture->places[i].size_bytes != 0)
            settle(store, capture->places[i].address);
    }
    for (uint32_t i = 0; i < capture->blob_count; i++) {
        if (capture->blobs[i].written)
            settle(store, capture->blobs[i].place.address);
    }
    for (uint32_t i = 0; i < store->segment_count; i++)
        store->segments[i]->delta = 0;
    qr_unlock(store);
}

void qr_store_abandoned(struct qr_store *store, struct qr_store_capture *capture)
{
    forget_built(capture);
    uint64_t count = capture->changes.count;
    qr_lock(store);
    store->changes.lost = store->changes.lost || capture->changes.lost;
    qr_unlock(store);
    /* From bucket to bucket: lookups find each in one table or the other. */
    for (uint64_t bucket = 0; count != 0; bucket++) {
        qr_lock(store);
        for (struct qr_change *change; (change = qr_changes_take_from(&capture->changes, bucket)) != NULL; count--) {
            if (qr_changes_find(&store->changes, change->pid) != NULL || QR_BUG(store_abandon_loses))
                drop(store, change);
            else
                qr_changes_add(&store->changes, change);
        }
        qr_unlock(store);
    }
    qr_lock(store);
    store->captured = NULL;
    qr_unlock(store);
    free_capture(capture);
}

void qr_store_unknown(struct qr_store *store, struct qr_store_capture *capture)
{
    qr_lock(store);
    store->frozen = true;
    qr_unlock(store);
    qr_store_abandoned(store, capture);
}
