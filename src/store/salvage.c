/*
 * salvage.c: see salvage.h.
 *
 * Layer 4. The order: segments by their headers; the root, which tells of segments too; the mapping; and if some of it is lost,
 * the batches.
 */
#include "store/salvage.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "store/internal.h"

/* ---- Segments --------------------------------------------------------------------------------------------------- */

static int take_segment(struct qr_store *store, struct qr_segment *segment)
{
    segment->used = segment->size;
    int result = qr_segment_register(store, segment);
    if (result != 0)
        qr_segment_free(segment);
    return result;
}

/* The store id in the first header that verifies. */
static int find_store_id(struct qr_store *store, const uint32_t *numbers, uint32_t count)
{
    uint8_t bytes[QR_SEGMENT_HEADER_USED];
    struct qr_segment_header header;
    for (uint32_t i = 0; i < count; i++) {
        struct qr_file *file;
        uint32_t align;
        if (qr_segment_open_file(store, numbers[i], 0, &file, &align) != 0)
            continue;
        int64_t got = qr_file_read(file, bytes, sizeof(bytes), 0);
        file->dir->disk->ops->file_close(file);
        if (got == (int64_t)sizeof(bytes) && qr_segment_header_decode(bytes, &header)) {
            memcpy(store->options.store_id, header.store_id, sizeof(header.store_id));
            return 0;
        }
    }
    return 0; /* then no segment is taken */
}

int qr_salvage_open(struct qr_dir *dir, const uint8_t *store_id, struct qr_store **ret_store, uint64_t *ret_lost)
{
    struct qr_store_options options = {0};
    struct qr_store *store;
    uint32_t *numbers = NULL, count = 0;
    uint64_t lost = 0;
    if (store_id != NULL)
        memcpy(options.store_id, store_id, sizeof(options.store_id));
    int result = qr_store_open(dir, &options, NULL, true, &store);
    if (result != 0)
        return result;
    result = qr_segment_numbers(store, &numbers, &count);
    if (result == 0 && store_id == NULL)
        result = find_store_id(store, numbers, count);
    for (uint32_t i = 0; i < count && result == 0; i++) {
        struct qr_segment *segment;
        result = qr_segment_load(store, numbers[i], &segment);
        if (result == 0)
            result = take_segment(store, segment);
        else if (qr_salvage_is_lost(result)) {
            lost++;
            result = 0;
        }
        while (result == 0 && store->open_files > store->options.most_open_files && qr_segment_close_idle(store)) {
        }
    }
    qr_free(numbers);
    if (result != 0) {
        qr_store_close(store);
        return result;
    }
    *ret_lost = lost;
    *ret_store = store;
    return 0;
}

/* ---- The walk --------------------------------------------------------------------------------------------------- */

/* [first, end): page ids of which the mapping says nothing, or sequences of batches that no checkpoint knows of. */
struct span {
    uint64_t first, end;
};
struct spans {
    struct span *list; /* in order */
    uint32_t count;
    uint64_t room;
};

struct salvage {
    struct qr_store *store;
    qr_salvage_visit *visit;
    void *context;
    struct qr_salvage_facts *facts;
    struct spans lost;     /* page ids */
    struct spans dead;     /* sequences (SALVAGE-4) */
    uint64_t sequence_end; /* batches at or above it came after the checkpoint */
    bool bounded;          /* the root tells where segments end */
};

static int add_span(struct spans *to, uint64_t first, uint64_t end)
{
    struct span *larger = qr_grow(to->list, to->count, &to->room, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a list of what is lost");
    to->list = larger;
    to->list[to->count++] = (struct span){first, end};
    return 0;
}

static bool is_in(const struct spans *spans, uint64_t number)
{
    uint32_t low = 0, high = spans->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (spans->list[middle].end <= number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < spans->count && number >= spans->list[low].first;
}

static int lose(struct salvage *s, uint64_t first, uint64_t end)
{
    s->facts->mapping_lost++;
    return add_span(&s->lost, first, end);
}

/* ---- The mapping ------------------------------------------------------------------------------------------------ */

static int visit_entry(struct salvage *s, uint64_t pid, const struct qr_entry *entry)
{
    struct qr_salvage_image image = {.address = entry->address, .pid = pid, .max_lsn = entry->max_lsn, .named = true};
    return entry->address == 0 || pid == 0 ? 0 : s->visit(s->context, &image);
}

static int walk_mapping(struct salvage *s, uint64_t address, uint64_t first_pid, uint32_t level)
{
    struct qr_map_node *node;
    if (address == 0)
        return 0;
    int result = qr_mapping_load(s->store, address, first_pid, level, &node);
    if (qr_salvage_is_lost(result))
        return lose(s, first_pid, first_pid + qr_mapping_span(level));
    if (result != 0)
        return result;
    for (uint32_t i = 0; level == 0 && i < QR_BLOCK_ENTRIES && result == 0; i++)
        result = visit_entry(s, first_pid + i, &node->as.entries[i]);
    for (uint32_t i = 0; level != 0 && i < QR_NODE_CHILDREN && result == 0; i++)
        result = walk_mapping(s, node->as.addresses[i], first_pid + i * qr_mapping_span(level - 1), level - 1);
    qr_free(node);
    return result;
}

/* A segment whose header is damaged, but the root says what it said. */
static int take_told(struct salvage *s, const struct qr_root_segment *told)
{
    if (qr_segment_find(s->store, told->number) != NULL)
        return 0;
    struct qr_segment *segment = qr_calloc(1, sizeof(*segment));
    if (segment == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a page segment");
    *segment = (struct qr_segment){
        .number = told->number, .stream = told->stream, .salt = told->salt, .size = told->size_bytes, .verified = true};
    if (qr_segment_open_file(s->store, told->number, 0, &segment->file, &segment->align) != 0) {
        qr_segment_free(segment);
        return 0;
    }
    if (s->facts->segments_lost != 0)
        s->facts->segments_lost--;
    return take_segment(s->store, segment);
}

static void *give_memory(void *context, size_t size)
{
    return *(void **)context = qr_malloc(size);
}

/* Behind what the root says of a segment nothing counts, and in those that it does not list. */
static void bound_segments(struct qr_store *store, const uint8_t *bytes, const struct qr_root *root)
{
    for (uint32_t i = 0; i < store->segment_count; i++)
        store->segments[i]->used = store->segments[i]->stream == QR_STREAM_BLOB ? store->segments[i]->size : 0;
    for (uint32_t i = 0; i < root->segment_count; i++) {
        struct qr_root_segment told = qr_root_segment_decode(bytes, i);
        struct qr_segment *segment = qr_segment_find(store, told.number);
        if (segment != NULL && segment->salt == told.salt && segment->stream != QR_STREAM_BLOB)
            segment->used = qr_min(told.used_bytes, segment->size);
    }
}

/* bounds: the segments are taken to end where it says. */
static int read_root(struct salvage *s, uint64_t address, bool bounds, struct qr_root *ret_root, bool *ret_found)
{
    struct qr_fetch_want want = {.address = address, .kind = QR_STORE_ROOT};
    void *memory = NULL, *bytes;
    uint32_t size;
    int result = qr_fetch(s->store, &want, give_memory, &memory, &bytes, &size);
    *ret_found = result == 0 && qr_root_decode(bytes, size, QR_SEGMENT_NUMBER_END, ret_root) == NULL;
    if (qr_salvage_is_lost(result))
        result = 0;
    for (uint32_t i = 0; *ret_found && i < ret_root->segment_count && result == 0; i++) {
        struct qr_root_segment told = qr_root_segment_decode(bytes, i);
        result = take_told(s, &told);
    }
    if (*ret_found && bounds && result == 0)
        bound_segments(s->store, bytes, ret_root);
    qr_free(memory);
    return result;
}

/* ---- Batches ---------------------------------------------------------------------------------------------------- */

struct walk;

/* Sees each image that a segment tells of: in summaries, and where there is none by its own header. */
typedef int see_image(void *context, const struct qr_image_header *header, const struct walk *at);

struct walk {
    struct qr_segment *segment;
    see_image *see;
    void *context;
    uint8_t *memory; /* one boundary's 4096 bytes, or a summary */
    uint64_t capacity;
    uint64_t sequence; /* of the batch, or where there is none of the one before */
    bool broken;       /* what stands before it in the segment is not batches alone */
};

/* False: it is not there as a whole. */
static int read_at(struct walk *w, uint64_t offset, uint64_t size, bool *ret_whole)
{
    uint64_t wanted = qr_round_up(size, QR_SEGMENT_UNIT);
    *ret_whole = false;
    if (wanted > w->segment->used - offset)
        return 0;
    if (wanted > w->capacity) {
        qr_free_aligned(w->memory);
        w->capacity = 0;
        w->memory = qr_malloc_aligned(QR_SEGMENT_UNIT, wanted);
        if (w->memory == NULL)
            return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to read a page segment");
        w->capacity = wanted;
    }
    *ret_whole = qr_file_read(w->segment->file, w->memory, wanted, offset) == (int64_t)wanted;
    return 0;
}

static int see_entries(struct walk *w, const struct qr_batch *batch)
{
    int result = 0;
    for (uint32_t i = 0; i < batch->count && result == 0; i++) {
        struct qr_image_header said;
        qr_batch_entry_decode(w->memory + QR_BATCH_HEADER_BYTES + (size_t)i * QR_BATCH_ENTRY_BYTES, w->segment->number,
                              &said);
        if (qr_address_is_possible(said.address))
            result = w->see(w->context, &said, w);
    }
    return result;
}

/* Here no batch begins: images that say themselves that they are here. */
static int see_loose(struct walk *w, uint64_t offset)
{
    int result = 0;
    for (uint32_t at = 0; at < QR_SEGMENT_UNIT && result == 0; at += QR_IMAGE_UNIT) {
        const uint8_t *from = w->memory + at;
        struct qr_image_header header;
        uint64_t address = qr_load_u64(from + 8);
        if (qr_load_u32(from) == QR_IMAGE_MAGIC && qr_address_number(address) == w->segment->number &&
            qr_address_offset(address) == offset + at &&
            qr_image_header_decode(from, address, qr_load_u64(from + 16), &header) == NULL)
            result = w->see(w->context, &header, w);
    }
    return result;
}

/* Whether a summary that does not verify was one of a batch here: then *ret_size is what it covers. */
static bool was_batch(const struct walk *w, uint64_t offset, uint64_t *ret_size)
{
    uint64_t size = qr_load_u32(w->memory + 20), count = qr_load_u32(w->memory + 24);
    *ret_size = size;
    return (qr_load_u32(w->memory) == QR_BATCH_MAGIC || qr_load_u32(w->memory + 28) == qr_batch_summary_bytes((uint32_t)count)) &&
           qr_load_u32(w->memory + 16) == offset && size % QR_SEGMENT_UNIT == 0 && size != 0 &&
           size <= w->segment->used - offset;
}

/* The batch that begins there: its summary is in w->memory then. */
static int find_batch(struct walk *w, uint64_t offset, struct qr_batch *ret_batch, bool *ret_found)
{
    uint64_t room = w->segment->used - offset;
    uint64_t summary = qr_batch_summary_bytes(qr_load_u32(w->memory + 24));
    bool whole = qr_load_u32(w->memory) == QR_BATCH_MAGIC && summary <= room;
    int result = whole && summary > QR_SEGMENT_UNIT ? read_at(w, offset, summary, &whole) : 0;
    *ret_found = result == 0 && whole && qr_batch_decode(w->memory, room, (uint32_t)offset, w->segment->salt, ret_batch);
    return result;
}

/* loose_end: SALVAGE-3. *ret_end: where the last batch ends. */
static int walk_segment(struct walk *w, uint64_t loose_end, uint64_t *ret_end)
{
    int result = 0;
    w->sequence = 0;
    w->broken = false;
    for (uint64_t offset = QR_SEGMENT_HEADER_BYTES; offset < w->segment->used && result == 0;) {
        struct qr_batch batch;
        bool whole, found = false;
        uint64_t size;
        result = read_at(w, offset, QR_SEGMENT_UNIT, &whole);
        if (result == 0 && whole)
            result = find_batch(w, offset, &batch, &found);
        if (result == 0 && found && batch.sequence > w->sequence) {
            w->sequence = batch.sequence;
            if (w->see != NULL)
                result = see_entries(w, &batch);
            offset += batch.size;
            *ret_end = offset;
            continue;
        }
        w->broken = true;
        if (result == 0 && whole && !found && w->see != NULL) {
            if (offset == qr_max(*ret_end, QR_SEGMENT_HEADER_BYTES) && was_batch(w, offset, &size))
                loose_end = qr_max(loose_end, offset + size);
            if (offset < loose_end)
                result = see_loose(w, offset);
        }
        offset += QR_SEGMENT_UNIT;
    }
    return result;
}

/* Twice: what holds no batch is looked at only if one comes behind it. */
static int see_segment(struct walk *w, see_image *see)
{
    uint64_t end = 0, again = 0;
    w->see = NULL;
    int result = walk_segment(w, 0, &end);
    w->see = see;
    return result == 0 ? walk_segment(w, end, &again) : result;
}

static int walk_batches(struct qr_store *store, see_image *see, void *context)
{
    struct walk w = {.context = context};
    int result = 0;
    for (uint32_t i = 0; i < store->segment_count && result == 0; i++) {
        if (store->segments[i]->stream == QR_STREAM_BLOB)
            continue;
        result = qr_segment_pin(store, store->segments[i]->number, &w.segment);
        if (result == 0) {
            result = see_segment(&w, see);
            qr_segment_unpin(store, w.segment);
        } else if (qr_salvage_is_lost(result)) {
            result = 0;
        }
    }
    qr_free_aligned(w.memory);
    return result;
}

/* ---- The root --------------------------------------------------------------------------------------------------- */

struct root_search {
    struct salvage *s;
    uint64_t wanted;   /* the address of the root, or 0 */
    uint64_t sequence; /* of the batch that has the root found last */
    uint64_t address;
};

/* Of a known root: which batch it is in. Else the newest that verifies. */
static int see_root(void *context, const struct qr_image_header *header, const struct walk *at)
{
    struct root_search *search = context;
    struct qr_root root;
    bool found = false;
    if (header->kind != QR_STORE_ROOT || at->sequence < search->sequence)
        return 0;
    bool same = qr_address_number(header->address) == qr_address_number(search->wanted) &&
                qr_address_offset(header->address) == qr_address_offset(search->wanted);
    if (search->wanted != 0 && !same)
        return 0;
    int result = search->wanted == 0 ? read_root(search->s, header->address, false, &root, &found) : 0;
    if (result == 0 && (found || same)) {
        search->sequence = at->sequence;
        search->address = header->address;
    }
    return result;
}

/* ---- Lives (SALVAGE-4) ------------------------------------------------------------------------------------------ */

struct sequences {
    uint64_t *list;
    uint64_t count, room;
};

static int see_sequence(void *context, const struct qr_image_header *header, const struct walk *at)
{
    struct sequences *to = context;
    uint64_t sequence = at->sequence;
    (void)header;
    if (sequence == 0 || (to->count != 0 && to->list[to->count - 1] == sequence))
        return 0;
    uint64_t *larger = qr_grow(to->list, to->count, &to->room, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a list of batches");
    to->list = larger;
    to->list[to->count++] = sequence;
    return 0;
}

static int compare_sequences(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int find_dead(struct salvage *s)
{
    struct sequences all = {NULL, 0, 0};
    int result = walk_batches(s->store, see_sequence, &all);
    if (result == 0 && all.count != 0)
        qsort(all.list, all.count, sizeof(*all.list), compare_sequences);
    for (uint64_t i = 1; i < all.count && result == 0; i++)
        if (all.list[i] - all.list[i - 1] > QR_SEQUENCE_JUMP / 2)
            result = add_span(&s->dead, all.list[i] - qr_min(all.list[i], QR_SEQUENCE_JUMP), all.list[i]);
    qr_free(all.list);
    return result;
}

static int walk_from_root(struct salvage *s, uint64_t address)
{
    struct root_search search = {.s = s, .wanted = address};
    struct qr_root root;
    bool found = false;
    int result = address == 0 ? walk_batches(s->store, see_root, &search) : 0;
    if (address == 0)
        address = search.address;
    if (result == 0 && address != 0 && qr_address_is_possible(address))
        result = read_root(s, address, true, &root, &found);
    if (result != 0)
        return result;
    if (found) {
        s->sequence_end = root.sequence;
        s->bounded = true;
        return walk_mapping(s, root.top, 0, root.height);
    }
    s->facts->root_lost = true;
    if (search.wanted != 0)
        result = walk_batches(s->store, see_root, &search);
    if (search.sequence != 0)
        s->sequence_end = search.sequence + 1;
    s->facts->newest_lost = search.wanted != 0 && search.sequence == 0;
    if (result == 0)
        result = find_dead(s);
    return result == 0 ? lose(s, 0, UINT64_MAX) : result;
}

/* ---- All of it -------------------------------------------------------------------------------------------------- */

static int see_page(void *context, const struct qr_image_header *header, const struct walk *at)
{
    struct salvage *s = context;
    bool is_page = header->kind == QR_STORE_LEAF || header->kind == QR_STORE_INNER;
    if (!is_page || header->pid == 0 || at->sequence >= s->sequence_end || is_in(&s->dead, at->sequence) ||
        !is_in(&s->lost, header->pid))
        return 0;
    struct qr_salvage_image image = {.address = header->address,
                                     .pid = header->pid,
                                     .max_lsn = header->max_lsn,
                                     .sequence = at->sequence,
                                     .sure = s->bounded && !at->broken,
                                     .tree_id = header->tree_id,
                                     .kind = header->kind};
    return s->visit(s->context, &image);
}

int qr_salvage_images(struct qr_store *store, uint64_t root, qr_salvage_visit *visit, void *context,
                      struct qr_salvage_facts *ret_facts)
{
    struct salvage s = {.store = store, .visit = visit, .context = context, .facts = ret_facts, .sequence_end = UINT64_MAX};
    int result = walk_from_root(&s, root);
    if (result == 0 && s.lost.count != 0)
        result = walk_batches(store, see_page, &s);
    ret_facts->segments = store->segment_count;
    qr_free(s.lost.list);
    qr_free(s.dead.list);
    return result;
}
