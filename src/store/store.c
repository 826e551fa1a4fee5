/*
 * store.c: opening and closing the page store, its list of changes, its statistics.
 *
 * Layer 4. Opening reads the root, which lists the segments and says where the mapping's top is, and the top; files are
 * opened when they are needed. Whether each segment has a file is known from one listing of the directory.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/internal.h"

#define FIRST_SEGMENT_BYTES (UINT64_C(256) << 10)
#define MOST_SEGMENT_BYTES (UINT64_C(64) << 20)
#define LEAST_FIRST_BYTES (UINT64_C(32) << 10)
#define RESERVE_SEGMENTS 2u
#define OPEN_FILES 256u

/* ---- Options ---------------------------------------------------------------------------------------------------- */

static bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static int settle_options(struct qr_store_options *options)
{
    if (options->first_segment_bytes == 0)
        options->first_segment_bytes = FIRST_SEGMENT_BYTES;
    if (options->most_segment_bytes == 0)
        options->most_segment_bytes = qr_max(MOST_SEGMENT_BYTES, options->first_segment_bytes);
    if (options->codec == QR_CODEC_STORE)
        options->codec = QR_CODEC_NONE;
    if (options->reserve_segments == 0)
        options->reserve_segments = RESERVE_SEGMENTS;
    if (options->most_open_files == 0)
        options->most_open_files = OPEN_FILES;
    if (!is_power_of_two(options->first_segment_bytes) || !is_power_of_two(options->most_segment_bytes) ||
        options->first_segment_bytes < LEAST_FIRST_BYTES ||
        options->first_segment_bytes > options->most_segment_bytes || options->most_segment_bytes > QR_SEGMENT_MOST)
        return qr_fail(QUIRE_ERR_INVALID, 0, "page segments of %llu to %llu bytes",
                       (unsigned long long)options->first_segment_bytes,
                       (unsigned long long)options->most_segment_bytes);
    if (options->codec != QR_CODEC_NONE && options->codec != QR_CODEC_LZ4)
        return qr_fail(QUIRE_ERR_UNSUPPORTED, 0, "codec %d", (int)options->codec);
    return 0;
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

static void *give_memory(void *context, size_t size)
{
    return *(void **)context = qr_malloc(size);
}

/* Reads the image of a place; *ret_bytes is to be freed by qr_free. */
static int read_place(struct qr_store *store, const struct qr_manifest_place *place, uint8_t kind, uint64_t pid,
                      void **ret_bytes, uint32_t *ret_size)
{
    struct qr_fetch_want want = {.address = place->address, .pid = pid, .kind = kind};
    void *memory = NULL, *bytes;
    int result = qr_fetch(store, &want, give_memory, &memory, &bytes, ret_size);
    if (result == QR_STORE_GONE)
        result = qr_segment_corrupt(store, qr_address_number(place->address), qr_address_offset(place->address),
                                    "the segment that the checkpoint names is missing");
    if (result != 0) {
        qr_free(memory);
        return result;
    }
    *ret_bytes = bytes;
    return 0;
}

static int corrupt_root(struct qr_store *store, const struct qr_manifest_place *place, const char *what)
{
    return qr_segment_corrupt(store, qr_address_number(place->address), qr_address_offset(place->address), what);
}

/* A segment of the root's list. The root's own is in the table already, from its header. */
static int take_segment(struct qr_store *store, const struct qr_root_segment *entry)
{
    struct qr_segment *segment = qr_segment_find(store, entry->number);
    bool known = segment != NULL;
    if (known && (segment->size != entry->size_bytes || segment->salt != entry->salt))
        return qr_segment_corrupt(store, entry->number, 0, "the segment is another one than the checkpoint's");
    if (!known && (segment = qr_calloc(1, sizeof(*segment))) == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a page segment");
    segment->number = entry->number;
    segment->stream = entry->stream;
    segment->size = entry->size_bytes;
    segment->salt = entry->salt;
    segment->used = QR_BUG(store_resume_over) ? QR_SEGMENT_HEADER_BYTES : entry->used_bytes;
    segment->mapped = entry->stream == QR_STREAM_BLOB ? 0 : entry->live_bytes;
    segment->known = segment->used;
    int result = known ? 0 : qr_segment_register(store, segment);
    if (result != 0) {
        qr_segment_free(segment);
        return result;
    }
    if (!store->read_only)
        store->resume[entry->stream] = entry->number; /* they come by number: the last one goes on */
    return 0;
}

/*
 * Whether so many bytes from there on are in what their segment, NULL if it is missing, has used. What lies behind is overwritten by
 * the next writer: of what the root names that would be the store.
 */
static bool is_used(const struct qr_segment *segment, uint64_t address, uint64_t size)
{
    return segment != NULL && qr_address_offset(address) + size <= segment->used;
}

/* The dead of a segment of blobs. */
static int take_dead(struct qr_store *store, const struct qr_manifest_place *root, const struct qr_root_dead *entry)
{
    struct qr_segment *segment = qr_segment_find(store, entry->number);
    struct qr_segment *home = qr_segment_find(store, qr_address_number(entry->address));
    void *bytes;
    uint32_t size;
    if (segment == NULL || segment->stream != QR_STREAM_BLOB || segment->dead_place.size_bytes != 0 ||
        !is_used(home, entry->address, entry->stored_bytes))
        return corrupt_root(store, root, "the table of dead blobs is impossible");
    segment->dead_place = (struct qr_manifest_place){entry->address, entry->stored_bytes};
    segment->dead_lsn = entry->lsn;
    home->meta += entry->stored_bytes;
    int result = read_place(store, &segment->dead_place, QR_STORE_DEAD_BLOBS, entry->number, &bytes, &size);
    if (result != 0)
        return result;
    if (size + QR_IMAGE_HEADER_BYTES != entry->stored_bytes)
        result = corrupt_root(store, root, "a list of dead blobs has another size than the root says");
    else
        result = qr_blob_take_list(store, segment, bytes, size);
    qr_free(bytes);
    return result;
}

static int take_places(struct qr_store *store, const struct qr_manifest_checkpoint *from)
{
    const struct qr_manifest_place places[QR_PLACES] = {from->mapping_index, from->free_ids, from->range_tombstones};
    for (uint32_t i = 0; i < QR_PLACES; i++) {
        if (places[i].size_bytes == 0)
            continue;
        struct qr_segment *segment = qr_segment_find(store, qr_address_number(places[i].address));
        if (segment == NULL)
            return corrupt_root(store, &places[i], "the segment that the checkpoint names is missing");
        if (!is_used(segment, places[i].address, places[i].size_bytes))
            return corrupt_root(store, &places[i], "the checkpoint names what its segment has not used");
        segment->meta += places[i].size_bytes;
        store->places[i] = places[i];
    }
    return 0;
}

static int read_root(struct qr_store *store, const struct qr_manifest_checkpoint *from, struct qr_root *ret_root)
{
    const struct qr_manifest_place *place = &from->mapping_index;
    struct qr_segment *segment;
    void *bytes;
    uint32_t size;
    if (!qr_address_is_possible(place->address))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "the checkpoint has the impossible address %llx",
                       (unsigned long long)place->address);
    int result = qr_segment_load(store, qr_address_number(place->address), &segment);
    if (result != 0)
        return result;
    segment->used = segment->size;
    result = qr_segment_register(store, segment);
    if (result != 0) {
        qr_segment_free(segment);
        return result;
    }
    result = read_place(store, place, QR_STORE_ROOT, 0, &bytes, &size);
    if (result != 0)
        return result;
    const char *what = qr_root_decode(bytes, size, from->next_segment, ret_root);
    if (what == NULL && size + QR_IMAGE_HEADER_BYTES != place->size_bytes)
        what = "the root has another size than the checkpoint says";
    if (what != NULL)
        result = corrupt_root(store, place, what);
    for (uint32_t i = 0; result == 0 && i < ret_root->segment_count; i++) {
        struct qr_root_segment entry = qr_root_segment_decode(bytes, i);
        result = take_segment(store, &entry);
    }
    for (uint32_t i = 0; result == 0 && i < ret_root->dead_count; i++) {
        struct qr_root_dead entry = qr_root_dead_decode(bytes, ret_root, i);
        result = take_dead(store, place, &entry);
    }
    qr_free(bytes);
    return result != 0 ? result : take_places(store, from);
}

static int read_mapping(struct qr_store *store, const struct qr_manifest_checkpoint *from)
{
    struct qr_root root;
    struct qr_map_node *top;
    int result = read_root(store, from, &root);
    if (result != 0)
        return result;
    store->pages = root.pages;
    store->live_bytes = root.live_bytes;
    store->sequence = root.sequence + QR_SEQUENCE_JUMP;
    if (root.top == 0)
        return 0;
    if (!is_used(qr_segment_find(store, qr_address_number(root.top)), root.top, QR_IMAGE_HEADER_BYTES))
        return corrupt_root(store, &from->mapping_index, "the root names a node that its segment has not used");
    result = qr_mapping_load(store, root.top, 0, root.height, &top);
    if (result == 0)
        qr_mapping_set_top(store, top);
    return result;
}

int qr_store_open(struct qr_dir *dir, const struct qr_store_options *options, const struct qr_manifest_checkpoint *from,
                  bool read_only, struct qr_store **ret_store)
{
    struct qr_store *store = qr_calloc(1, sizeof(*store));
    if (store == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a page store");
    store->dir = dir;
    store->options = *options;
    store->read_only = read_only;
    store->next_number = 1;
    store->sequence = 1;
    pthread_mutex_init(&store->write_mutex, NULL); /* of the default kind: cannot fail */
    pthread_mutex_init(&store->mutex, NULL);
    pthread_mutex_init(&store->blob_mutex, NULL);
    pthread_mutex_init(&store->blob_sync_mutex, NULL);
    pthread_mutex_init(&store->reserve_mutex, NULL);
    qr_changes_init(&store->written);
    qr_changes_init(&store->changes);
    int result = settle_options(&store->options);
    if (result == 0 && from != NULL && from->next_segment > QR_SEGMENT_NUMBER_END)
        result = qr_fail(QUIRE_ERR_CORRUPT, 0, "the checkpoint has an impossible segment number");
    if (result == 0 && from != NULL && from->next_segment != 0)
        store->next_number = (uint32_t)from->next_segment;
    if (result == 0 && from != NULL && from->mapping_index.size_bytes != 0)
        result = read_mapping(store, from);
    if (result == 0)
        result = qr_segments_compare(store);
    if (result != 0) {
        qr_store_close(store);
        return result;
    }
    *ret_store = store;
    return 0;
}

void qr_store_close(struct qr_store *store)
{
    if (store == NULL)
        return;
    QR_ASSERT(store->captured == NULL);
    qr_changes_done(&store->written);
    qr_changes_done(&store->changes);
    qr_mapping_free(store, store->top);
    for (uint32_t i = 0; i < store->segment_count; i++)
        qr_segment_free(store->segments[i]);
    qr_free(store->segments);
    qr_free(store->leftovers);
    pthread_mutex_destroy(&store->write_mutex);
    pthread_mutex_destroy(&store->mutex);
    pthread_mutex_destroy(&store->blob_mutex);
    pthread_mutex_destroy(&store->blob_sync_mutex);
    pthread_mutex_destroy(&store->reserve_mutex);
    qr_free(store);
}

/* ---- Changes and free ids --------------------------------------------------------------------------------------- */

void qr_store_enter(struct qr_store *store, uint64_t pid, uint64_t address)
{
    qr_change_enter(store, &store->changes, pid, address);
}

void qr_store_remove(struct qr_store *store, uint64_t pid)
{
    qr_change_remove(store, &store->changes, pid);
}

int qr_store_read_free_ids(struct qr_store *store, const struct qr_manifest_checkpoint *from, uint64_t **ret_ids,
                           uint64_t *ret_count)
{
    void *bytes = NULL;
    uint32_t size = 0;
    if (from->free_ids.size_bytes != 0) {
        int result = read_place(store, &from->free_ids, QR_STORE_FREE_IDS, 0, &bytes, &size);
        if (result != 0)
            return result;
    }
    uint64_t *ids = bytes;
    uint64_t count = size / sizeof(uint64_t);
    bool right = size % sizeof(uint64_t) == 0 && count == from->free_id_count;
    for (uint64_t i = 0; i < count && right; i++)
        right = ids[i] < from->next_page_id && (i == 0 || ids[i] > ids[i - 1]);
    if (!right) {
        qr_free(bytes);
        return corrupt_root(store, &from->free_ids, "the list of free page ids is impossible");
    }
    *ret_ids = ids;
    *ret_count = count;
    return 0;
}

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

void qr_store_stats(struct qr_store *store, struct qr_store_stats *ret_stats)
{
    qr_lock(store);
    struct qr_store_stats stats = store->stats;
    stats.segments = store->segment_count;
    stats.segment_bytes = store->segment_bytes;
    stats.live_bytes = stats.reserve_bytes = 0;
    stats.reserve_segments = store->spare_count;
    stats.keeps_reserve = store->keeps_reserve;
    for (uint32_t i = 0; i < store->spare_count; i++)
        stats.reserve_bytes += store->spares[i].size;
    for (uint32_t i = 0; i < store->segment_count; i++)
        stats.live_bytes += store->segments[i]->mapped + store->segments[i]->pending + store->segments[i]->meta;
    stats.durable_bytes = store->live_bytes;
    stats.pages = store->pages;
    stats.changes = store->changes.count;
    stats.memory_bytes =
        sizeof(*store) + store->map_memory + qr_changes_memory(&store->changes) + qr_changes_memory(&store->written) +
        (store->captured == NULL ? 0 : qr_changes_memory(store->captured)) +
        store->segment_room * sizeof(struct qr_segment *) + store->segment_count * sizeof(struct qr_segment);
    qr_unlock(store);
    *ret_stats = stats;
}

bool qr_store_segment(struct qr_store *store, uint32_t number, struct qr_store_segment *ret_segment)
{
    qr_lock(store);
    const struct qr_segment *segment = qr_segment_find(store, number);
    if (segment != NULL) {
        bool blob = segment->stream == QR_STREAM_BLOB;
        uint64_t live = blob ? segment->used - QR_SEGMENT_HEADER_BYTES - segment->dead_bytes
                             : segment->mapped + segment->pending + segment->meta;
        *ret_segment = (struct qr_store_segment){.blob = blob, .used_bytes = segment->used, .live_bytes = live};
    }
    qr_unlock(store);
    return segment != NULL;
}
