/*
 * files.c: making, releasing and clearing away the files of the page store.
 *
 * Layer 4. A new file gets its space at once, if the file system gives it, so that a full disk is known before a batch
 * is begun; then its header. Both, and the name, are synced by the next checkpoint (qr_segments_sync), before which
 * nothing durable names the segment. A dead segment is removed, or kept as a spare: used again it gets a new name,
 * number, header and salt, so that no image of its former life can be taken for one of the new.
 *
 * Why that is safe when power is lost in between: name and header may survive in any combination, but what was released
 * is named by no durable mapping, and a file that is not in the root's list is looked at by qr_store_clean_up only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/bytes.h"
#include "base/status.h"
#include "base/stop.h"
#include "store/internal.h"

#define SPARES_FOR_USE 2u /* kept beside the reserve, to be used again */

static const struct qr_disk_ops *ops_of(struct qr_store *store)
{
    return store->dir->disk->ops;
}

/* ---- Making ----------------------------------------------------------------------------------------------------- */

static uint32_t draw_number(struct qr_store *store)
{
    qr_lock(store);
    uint32_t number = store->next_number;
    if (number < QR_SEGMENT_NUMBER_END)
        store->next_number++;
    qr_unlock(store);
    return number;
}

/* An eighth of what there is, a power of two: so there are more than a few, and a dead one is a part of the store. */
static uint64_t size_of_next(struct qr_store *store)
{
    uint64_t size = store->options.first_segment_bytes;
    qr_lock(store);
    while (size < store->options.most_segment_bytes && size * 2 <= store->segment_bytes / 8)
        size *= 2;
    qr_unlock(store);
    return size;
}

static int write_header(struct qr_store *store, struct qr_segment *segment)
{
    struct qr_segment_header header = {
        .number = segment->number, .stream = segment->stream, .size_bytes = segment->size};
    if (store->options.random(store->options.context, &header.salt, sizeof(header.salt)) != 0)
        return -EIO;
    uint8_t *bytes = qr_malloc_aligned(QR_SEGMENT_UNIT, QR_SEGMENT_HEADER_BYTES);
    if (bytes == NULL)
        return -ENOMEM;
    memset(bytes, 0, QR_SEGMENT_HEADER_BYTES);
    memcpy(header.store_id, store->options.store_id, sizeof(header.store_id));
    segment->salt = header.salt;
    qr_segment_header_encode(&header, bytes);
    int error = qr_file_write(segment->file, bytes, QR_SEGMENT_HEADER_BYTES, 0);
    qr_free_aligned(bytes);
    return error;
}

/* A file of a new number and all of its space. */
static int create_file(struct qr_store *store, struct qr_segment *segment)
{
    const struct qr_disk_ops *ops = ops_of(store);
    char name[QR_SEGMENT_NAME_BYTES];
    int error;
    do { /* a name that somebody else has taken is passed over */
        segment->number = draw_number(store);
        if (segment->number >= QR_SEGMENT_NUMBER_END)
            return -EOVERFLOW;
        error = qr_segment_open_file(store, segment->number, QR_FILE_WRITE | QR_FILE_CREATE | QR_FILE_EXCLUSIVE,
                                     &segment->file, &segment->align);
    } while (error == -EEXIST);
    if (error != 0)
        return error;
    error = ops->file_allocate(segment->file, 0, segment->size);
    if (error == -EOPNOTSUPP)
        error = ops->file_resize(segment->file, segment->size);
    if (error == 0)
        return 0;
    ops->file_close(segment->file);
    segment->file = NULL;
    qr_segment_name(segment->number, name);
    (void)ops->dir_unlink(store->dir, name);
    return error;
}

/* There is a limit on the size of files: from now on segments are smaller. False: this one cannot be. */
static bool learn_limit(struct qr_store *store, struct qr_segment *segment, uint64_t least)
{
    const uint64_t first = store->options.first_segment_bytes;
    uint64_t size = qr_max(segment->size / 2, qr_max(least, first));
    if (size >= segment->size)
        return false;
    uint64_t below = (uint64_t)1 << (63 - __builtin_clzll(segment->size - 1)); /* the power of two */
    segment->size = size;
    qr_lock(store);
    store->options.most_segment_bytes = qr_max(qr_min(store->options.most_segment_bytes, below), first);
    qr_unlock(store);
    return true;
}

/* The same, of less, but at least `least`, if files must be smaller. */
static int create_possible(struct qr_store *store, struct qr_segment *segment, uint64_t least)
{
    int error = create_file(store, segment);
    while (error == -EFBIG && learn_limit(store, segment, least))
        error = create_file(store, segment);
    return error;
}

/* Whether the store is one that keeps a reserve, with what comes to it: so many bytes more or less from now on. */
static void choose_reserve(struct qr_store *store, int64_t coming)
{
    qr_lock(store);
    store->coming_bytes += (uint64_t)coming;
    store->keeps_reserve =
        store->segment_bytes + store->coming_bytes >= QR_STORE_RESERVE_FROM * store->options.first_segment_bytes;
    qr_unlock(store);
}

/* Under the mutex: how many files are to be kept. */
static uint32_t reserve_wanted(const struct qr_store *store)
{
    return store->keeps_reserve ? store->options.reserve_segments : 0;
}

/* A spare of at least that size; the reserve's only if `all`. */
static bool take_spare(struct qr_store *store, uint64_t size, bool all, struct qr_spare *ret_spare)
{
    bool found = false;
    qr_lock(store);
    uint32_t kept = all ? 0 : reserve_wanted(store);
    for (uint32_t i = 0; i < store->spare_count && store->spare_count > kept; i++) {
        if (store->spares[i].size < size)
            continue;
        *ret_spare = store->spares[i];
        store->spares[i] = store->spares[--store->spare_count];
        found = true;
        break;
    }
    qr_unlock(store);
    return found;
}

static void remove_file(struct qr_store *store, uint32_t number)
{
    char name[QR_SEGMENT_NAME_BYTES];
    qr_segment_name(number, name);
    (void)ops_of(store)->dir_unlink(store->dir, name); /* if it stays, it is a leftover */
}

/* Gives a spare file a new name. After a failure it is nobody's: a leftover. */
static int take_over_file(struct qr_store *store, const struct qr_spare *spare, struct qr_segment *segment)
{
    char from[QR_SEGMENT_NAME_BYTES], to[QR_SEGMENT_NAME_BYTES];
    segment->number = draw_number(store);
    if (segment->number >= QR_SEGMENT_NUMBER_END)
        return -EOVERFLOW;
    segment->size = spare->size;
    qr_segment_name(spare->number, from);
    qr_segment_name(segment->number, to);
    int error = ops_of(store)->dir_rename(store->dir, from, to);
    if (error != 0)
        return error;
    return qr_segment_open_file(store, segment->number, QR_FILE_WRITE, &segment->file, &segment->align);
}

/* What is common to a new file and one that is used again. */
static int begin_segment(struct qr_store *store, struct qr_segment *segment)
{
    int error = write_header(store, segment);
    if (error != 0) {
        remove_file(store, segment->number);
        return qr_segment_failure(error, segment->number, "write of the header");
    }
    segment->used = QR_SEGMENT_HEADER_BYTES;
    segment->dirty = segment->verified = true;
    segment->pins = 1;
    int result = qr_segment_register(store, segment);
    if (result != 0) {
        remove_file(store, segment->number);
        return result;
    }
    QR_STOP("segment.registered");
    qr_lock(store);
    bool many = store->open_files > store->options.most_open_files;
    qr_unlock(store);
    if (many)
        (void)qr_segment_close_idle(store);
    return 0;
}

static bool release_dead(struct qr_store *store);
static int complete_reserve(struct qr_store *store);

static bool is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -EFBIG;
}

/* Large values take space that no checkpoint has asked for: before they get more of it, what a checkpoint needs to release some is
 * there. What else fails the segment itself will tell. */
static int keep_reserve(struct qr_store *store)
{
    int error = QR_BUG(reserve_late) ? 0 : complete_reserve(store);
    if (is_full(error) && release_dead(store))
        error = complete_reserve(store);
    return is_full(error) ? error : 0;
}

static int take_or_create(struct qr_store *store, struct qr_segment *segment, uint64_t least, bool *ret_again)
{
    struct qr_spare spare;
    *ret_again = take_spare(store, segment->size, false, &spare);
    return *ret_again ? take_over_file(store, &spare, segment) : create_possible(store, segment, least);
}

/* A file of segment->size, or with the reserve of less, but at least `least`. */
static int find_file(struct qr_store *store, struct qr_segment *segment, uint64_t least, bool use_reserve, bool *ret_again)
{
    struct qr_spare spare;
    int error = take_or_create(store, segment, least, ret_again);
    if (is_full(error) && !*ret_again && release_dead(store))
        error = take_or_create(store, segment, least, ret_again);
    if (is_full(error) && !*ret_again && use_reserve && take_spare(store, least, true, &spare)) {
        *ret_again = true;
        error = take_over_file(store, &spare, segment);
    }
    while (is_full(error) && !*ret_again && use_reserve &&
           segment->size / 2 >= qr_max(least, store->options.first_segment_bytes)) {
        segment->size /= 2; /* of what there is, as much as can be had */
        error = create_file(store, segment);
    }
    return error;
}

/* A segment whose stream and size are set; at least of `least` bytes. */
static int make_segment(struct qr_store *store, struct qr_segment *segment, uint64_t least, bool use_reserve)
{
    bool again = false;
    int error = segment->stream == QR_STREAM_BLOB ? keep_reserve(store) : 0;
    if (error != 0)
        return qr_fail_io(-error, "page segments: creation of the reserve");
    error = find_file(store, segment, least, use_reserve, &again);
    if (error != 0)
        return qr_segment_failure(error, segment->number, again ? "using it again" : "creation");
    int result = begin_segment(store, segment);
    if (result != 0)
        return result;
    qr_lock(store);
    store->has_grown = true;
    store->stats.segments_made += !again;
    store->stats.segments_recycled += again;
    qr_unlock(store);
    return 0;
}

int qr_segment_make(struct qr_store *store, enum qr_stream stream, uint64_t need, bool use_reserve,
                    struct qr_segment **ret_segment)
{
    uint64_t least = qr_round_up(need + QR_SEGMENT_HEADER_BYTES, QR_SEGMENT_UNIT);
    if (!qr_segment_size_is_possible(stream, least))
        return qr_fail(QUIRE_ERR_TOO_LARGE, 0, "an image of %llu bytes", (unsigned long long)need);
    struct qr_segment *segment = qr_calloc(1, sizeof(*segment));
    if (segment == NULL)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a page segment");
    segment->stream = stream;
    segment->size = qr_max(size_of_next(store), least);
    int64_t coming = stream == QR_STREAM_BLOB ? (int64_t)segment->size : 0;
    if (coming != 0)
        choose_reserve(store, coming);
    int result = make_segment(store, segment, least, use_reserve);
    if (coming != 0)
        choose_reserve(store, -coming); /* it is there, or asks for none */
    if (result != 0) {
        qr_segment_free(segment);
        (void)qr_store_drop_spares(store);
        return result;
    }
    *ret_segment = segment;
    return 0;
}

/* ---- Release ---------------------------------------------------------------------------------------------------- */

/* STORE-2 */
static bool is_dead(const struct qr_segment *segment)
{
    uint64_t mapped = segment->mapped + (QR_BUG(store_released_early) ? (uint64_t)segment->delta : 0);
    uint64_t pending = QR_BUG(store_release_pending) ? 0 : segment->pending;
    return mapped == 0 && pending == 0 && segment->meta == 0;
}

/* Takes one dead segment out of the table; NULL: there is none. */
static struct qr_segment *take_dead(struct qr_store *store)
{
    struct qr_segment *dead = NULL;
    qr_lock(store);
    for (uint32_t i = 0; i < store->segment_count && !store->frozen; i++) {
        struct qr_segment *segment = store->segments[i];
        bool released = segment->stream == QR_STREAM_BLOB ? qr_blob_segment_is_dead(store, segment) : is_dead(segment);
        if (segment->pins != 0 || !released)
            continue;
        dead = segment;
        store->segment_count--;
        store->segment_bytes -= segment->size;
        memmove(&store->segments[i], &store->segments[i + 1], (store->segment_count - i) * sizeof(*store->segments));
        if (segment->file != NULL)
            store->open_files--;
        break;
    }
    qr_unlock(store);
    return dead;
}

/* Under the mutex: those that are at least so large. */
static uint32_t count_spares(struct qr_store *store, uint64_t least)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < store->spare_count; i++)
        count += store->spares[i].size >= least;
    return count;
}

/* False: there are enough, or it is too small for a store of this size. */
static bool add_spare(struct qr_store *store, uint32_t number, uint64_t size, uint32_t more)
{
    if (size < size_of_next(store))
        return false;
    qr_lock(store);
    bool added = count_spares(store, size) < reserve_wanted(store) + more && store->spare_count < QR_SPARES_MOST;
    if (added)
        store->spares[store->spare_count++] = (struct qr_spare){number, size};
    qr_unlock(store);
    return added;
}

/* Spares that have become too small for the store are removed. */
static void drop_small_spares(struct qr_store *store)
{
    uint64_t least = size_of_next(store);
    for (;;) {
        uint32_t number = 0;
        qr_lock(store);
        for (uint32_t i = 0; i < store->spare_count && number == 0; i++) {
            if (store->spares[i].size < least) {
                number = store->spares[i].number;
                store->spares[i] = store->spares[--store->spare_count];
            }
        }
        qr_unlock(store);
        if (number == 0)
            return;
        remove_file(store, number);
    }
}

/* Takes the one out that serves the store least: it is too small for it, or larger than the others. */
static bool take_useless_spare(struct qr_store *store, uint64_t suits, struct qr_spare *ret_spare)
{
    uint32_t worst = 0;
    qr_lock(store);
    bool found = store->spare_count > reserve_wanted(store);
    for (uint32_t i = 1; i < store->spare_count; i++) {
        uint64_t size = store->spares[i].size, worst_size = store->spares[worst].size;
        if (worst_size >= suits && (size < suits || size > worst_size))
            worst = i;
    }
    if (found) {
        *ret_spare = store->spares[worst];
        store->spares[worst] = store->spares[--store->spare_count];
    }
    qr_unlock(store);
    return found;
}

bool qr_store_drop_spares(struct qr_store *store)
{
    struct qr_spare spare;
    bool found = false;
    while (take_useless_spare(store, size_of_next(store), &spare)) {
        found = true;
        remove_file(store, spare.number);
    }
    return found;
}

bool qr_store_drop_reserve(struct qr_store *store)
{
    bool found = false;
    struct qr_spare spare;
    while (take_spare(store, 0, true, &spare)) {
        found = true;
        remove_file(store, spare.number);
    }
    return found;
}

/* Notes whether less is kept than should be; what is too small for the store counts as long as there is no other. */
static bool note_reserve(struct qr_store *store, bool failed)
{
    qr_lock(store);
    bool missing = failed && store->spare_count < reserve_wanted(store);
    store->stats.reserve_missing = missing;
    qr_unlock(store);
    return missing;
}

static bool is_whole(struct qr_store *store, uint64_t size)
{
    qr_lock(store);
    bool whole = count_spares(store, size) >= reserve_wanted(store);
    qr_unlock(store);
    return whole;
}

/* Files made ahead, as far as there is space for them. What is too small goes when there are others. 0, or the negated errno for
 * which there are too few. */
static int complete_reserve(struct qr_store *store)
{
    struct qr_segment segment = {0};
    bool added = true;
    int error = 0;
    pthread_mutex_lock(&store->reserve_mutex);
    while (error == 0 && added && !is_whole(store, segment.size = size_of_next(store))) {
        error = create_possible(store, &segment, 0);
        if (error != 0)
            break;
        ops_of(store)->file_close(segment.file);
        added = add_spare(store, segment.number, segment.size, 0);
        if (!added)
            remove_file(store, segment.number);
    }
    if (error == 0 && added)
        drop_small_spares(store);
    bool missing = note_reserve(store, error != 0);
    pthread_mutex_unlock(&store->reserve_mutex);
    return missing ? error : 0;
}

static uint64_t most_size(struct qr_store *store)
{
    qr_lock(store);
    uint64_t size = store->options.most_segment_bytes;
    qr_unlock(store);
    return size;
}

/* Whether there was something. */
static bool release_dead(struct qr_store *store)
{
    struct qr_segment *segment;
    bool found = false;
    while ((segment = take_dead(store)) != NULL) {
        found = true;
        uint32_t number = segment->number;
        uint64_t size = segment->size;
        qr_segment_free(segment);
        if (size <= most_size(store) && add_spare(store, number, size, SPARES_FOR_USE))
            continue;
        remove_file(store, number);
        qr_lock(store);
        store->stats.segments_removed++;
        qr_unlock(store);
    }
    return found;
}

bool qr_store_regain(struct qr_store *store)
{
    choose_reserve(store, 0);
    return complete_reserve(store) == 0;
}

void qr_segments_release(struct qr_store *store)
{
    (void)release_dead(store);
    (void)qr_store_regain(store);
}

bool qr_store_has_grown(struct qr_store *store)
{
    qr_lock(store);
    bool grown = store->has_grown;
    store->has_grown = false;
    qr_unlock(store);
    return grown;
}

/* ---- Leftovers -------------------------------------------------------------------------------------------------- */

struct listing {
    struct qr_store *store;
    uint32_t *numbers;
    uint32_t count;
    uint64_t room;
};

static int note_name(void *context, const char *name)
{
    struct listing *listing = context;
    uint32_t number;
    if (!qr_segment_number_of(name, &number))
        return 0;
    uint32_t *larger = qr_grow(listing->numbers, listing->count, &listing->room, sizeof(*larger));
    if (larger == NULL) return -ENOMEM;
    listing->numbers = larger;
    listing->numbers[listing->count++] = number;
    return 0;
}

static int list_names(struct qr_store *store, struct listing *ret_listing)
{
    *ret_listing = (struct listing){.store = store};
    int error = ops_of(store)->dir_list(store->dir, note_name, ret_listing);
    if (error == 0)
        return 0;
    qr_free(ret_listing->numbers);
    return qr_fail_io(-error, "the directory: listing");
}

static int compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int qr_segment_numbers(struct qr_store *store, uint32_t **ret_numbers, uint32_t *ret_count)
{
    struct listing listing;
    int result = list_names(store, &listing);
    if (result != 0)
        return result;
    if (listing.count != 0)
        qsort(listing.numbers, listing.count, sizeof(uint32_t), compare_numbers);
    *ret_numbers = listing.numbers;
    *ret_count = listing.count;
    return 0;
}

int qr_segments_compare(struct qr_store *store)
{
    uint32_t *numbers, count;
    int result = qr_segment_numbers(store, &numbers, &count);
    if (result != 0)
        return result;
    for (uint32_t i = 0; i < store->segment_count && result == 0; i++) {
        uint32_t number = store->segments[i]->number;
        if (count == 0 || bsearch(&number, numbers, count, sizeof(uint32_t), compare_numbers) == NULL)
            result = qr_segment_corrupt(store, number, 0, "the file is missing");
    }
    if (count != 0 && numbers[count - 1] >= store->next_number)
        store->next_number = numbers[count - 1] + 1;
    qr_free(numbers);
    return result;
}

/* Ours: our header, or what a crash left of a file before its header was written. */
static int is_ours(struct qr_store *store, struct qr_file *file, bool *ret_ours)
{
    struct qr_segment_header header;
    uint8_t *bytes = qr_malloc_aligned(QR_SEGMENT_UNIT, QR_SEGMENT_HEADER_BYTES);
    if (bytes == NULL)
        return -ENOMEM;
    memset(bytes, 0, QR_SEGMENT_HEADER_BYTES);
    int64_t count = qr_file_read(file, bytes, QR_SEGMENT_HEADER_BYTES, 0);
    if (count >= 0) {
        bool zero = true;
        for (uint32_t i = 0; i < QR_SEGMENT_HEADER_BYTES; i++)
            zero = zero && bytes[i] == 0;
        *ret_ours = zero || (qr_segment_header_decode(bytes, &header) &&
                             memcmp(header.store_id, store->options.store_id, sizeof(header.store_id)) == 0);
    }
    qr_free_aligned(bytes);
    return count < 0 ? (int)count : 0;
}

/* To the reserve, if it suits it, or removed. 0 or a negated errno. */
static int clear_leftover(struct qr_store *store, uint32_t number)
{
    struct qr_file *file;
    struct qr_file_facts facts;
    uint32_t align;
    bool ours = false;
    int error = qr_segment_open_file(store, number, 0, &file, &align);
    if (error == -ENOENT || error == -ELOOP || error == -EISDIR || error == -EINVAL)
        return 0; /* not a file, so not ours */
    if (error == 0) {
        error = ops_of(store)->file_facts(file, &facts);
        if (error == 0)
            error = is_ours(store, file, &ours);
        ops_of(store)->file_close(file);
    }
    if (error != 0 || !ours)
        return error;
    bool suits = facts.size_bytes >= store->options.first_segment_bytes &&
                 facts.size_bytes <= most_size(store) && facts.size_bytes % QR_SEGMENT_UNIT == 0;
    if (!suits || !add_spare(store, number, facts.size_bytes, 0))
        remove_file(store, number);
    return 0;
}

int qr_store_find_leftovers(struct qr_store *store)
{
    struct listing listing;
    if (store->read_only)
        return qr_fail(QUIRE_ERR_READ_ONLY, 0, "the page store is open for reading");
    int result = list_names(store, &listing);
    if (result != 0)
        return result;
    choose_reserve(store, 0);
    qr_free(store->leftovers);
    store->leftovers = listing.numbers;
    store->leftover_count = 0;
    for (uint32_t i = 0; i < listing.count; i++) {
        uint32_t number = listing.numbers[i];
        qr_lock(store);
        bool used = qr_segment_find(store, number) != NULL;
        for (uint32_t k = 0; k < store->spare_count; k++)
            used = used || store->spares[k].number == number;
        qr_unlock(store);
        if (!used)
            store->leftovers[store->leftover_count++] = number;
    }
    return 0;
}

uint32_t qr_store_leftovers(const struct qr_store *store)
{
    return store->leftover_count;
}

int qr_store_clear_leftover(struct qr_store *store, uint32_t i)
{
    int error = clear_leftover(store, store->leftovers[i]);
    if (error == 0)
        store->leftovers[i] = store->leftovers[--store->leftover_count];
    return error;
}

int qr_store_clean_up(struct qr_store *store)
{
    int result = qr_store_find_leftovers(store);
    while (result == 0 && store->leftover_count != 0) {
        uint32_t last = store->leftover_count - 1, number = store->leftovers[last];
        int error = qr_store_clear_leftover(store, last);
        if (error != 0)
            result = qr_segment_failure(error, number, "looking at a leftover");
    }
    return result;
}
