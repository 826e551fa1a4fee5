/*
 * list.c: finding the segments of a log.
 *
 * Layer 3.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bugs.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "log/replay.h"

struct search {
    struct qr_dir *dir;
    struct qr_dir_facts facts;
    const uint8_t *store_id;
    struct qr_log_list list;
    int result; /* of the file that ended the search */
};

/* The number in the name of a log file; false: another file. */
static bool number_of(const char *name, uint32_t *ret_number)
{
    char again[QR_LOG_NAME_BYTES];
    if (strncmp(name, "log-", 4) != 0) return false;
    unsigned long number = strtoul(name + 4, NULL, 16);
    if (number > UINT32_MAX) return false;
    qr_log_file_name((uint32_t)number, again);
    *ret_number = (uint32_t)number;
    return strcmp(name, again) == 0;
}

bool qr_log_name_is_ours(const char *name)
{
    uint32_t number;
    return number_of(name, &number);
}

int qr_log_file_is_ours(struct qr_dir *dir, const char *name, const uint8_t store_id[16])
{
    static const uint8_t zeros[sizeof(struct qr_log_header)];
    struct qr_log_header h = {0};
    struct qr_file *file;
    int error = dir->disk->ops->file_open(dir, name, 0, &file);
    if (error == -ENOENT) return 1;
    if (error == -ELOOP || error == -EINVAL || error == -EISDIR) return 0;
    if (error != 0) return qr_fail_io(-error, "%s: opening", name);
    int64_t size = qr_file_read(file, &h, sizeof(h), 0);
    dir->disk->ops->file_close(file);
    if (size < 0) return qr_fail_io((int)-size, "%s: reading the header", name);
    return memcmp(&h, zeros, sizeof(h)) == 0 ||
           (memcmp(h.magic, "QUIRELOG", 8) == 0 && memcmp(h.store_id, store_id, sizeof(h.store_id)) == 0);
}

static bool header_is_ours(const struct qr_log_header *h, const uint8_t *store_id)
{
    return memcmp(h->magic, "QUIRELOG", 8) == 0 && memcmp(h->store_id, store_id, 16) == 0 &&
           h->crc == qr_crc32c(0, h, offsetof(struct qr_log_header, crc));
}

static bool is_same_boot(const struct qr_log_header *h, const struct qr_dir_facts *dir, const struct qr_file_facts *file)
{
    static const uint8_t unknown[16];
    return memcmp(h->boot_id, dir->boot_id, 16) == 0 && memcmp(h->boot_id, unknown, 16) != 0 &&
           h->device == dir->device && h->mount_id == dir->mount_id && h->mount_id != 0 && h->inode == file->inode &&
           (h->poisoned == 0 || QR_BUG(log_mark_ignored));
}

static int add(struct qr_log_list *list, const struct qr_log_found *found)
{
    struct qr_log_found *larger = qr_grow(list->found, list->count, &list->capacity, sizeof(*larger));
    if (larger == NULL) return QUIRE_ERR_NO_MEMORY;
    list->found = larger;
    list->found[list->count++] = *found;
    list->top = qr_max(list->top, found->header.end);
    return 0;
}

static int report(int result)
{
    return result == 0 ? 0 : qr_fail(result, 0, "no memory for the list of log segments");
}

static bool is_zero(const void *memory, int64_t size)
{
    const uint8_t *bytes = memory;
    uint8_t any = 0;
    for (int64_t i = 0; i < size; i++) any |= bytes[i];
    return any == 0;
}

/* What is read of a file: its header, and the header of the first frame. */
struct beginning {
    struct qr_log_header header;
    uint8_t rest[QR_LOG_HEADER_BYTES - sizeof(struct qr_log_header)];
    uint8_t frame[QR_FRAME_HEADER];
};

/*
 * A file whose header is not one. Zeros, and a header that was torn while a segment was made or used again, are what a crash
 * leaves: then no frame of a life that counts stands behind it (FILES-1). A frame says of itself where it stands; so does a
 * header that is there in a file that has not even a header's size, which was synced first.
 */
static void note_damage(struct qr_log_list *list, const struct beginning *b, size_t size, const uint8_t *store_id,
                        uint32_t number, uint64_t file_bytes)
{
    bool marked = size != 0 && memcmp(b->header.magic, "QUIRELOG", qr_min(size, 8)) == 0;
    bool ours = memcmp(b->header.store_id, store_id, 16) == 0;
    bool whole = size == sizeof(*b);
    bool right = b->header.crc == qr_crc32c(0, &b->header, offsetof(struct qr_log_header, crc));
    uint64_t lsn = qr_load_u64(b->frame + 8);
    if (!ours && (!marked || right)) return; /* somebody else's */
    if (whole && (lsn < QR_LOG_HEADER_BYTES || lsn > INT64_MAX)) return;
    uint64_t end = whole ? lsn - QR_LOG_HEADER_BYTES + file_bytes : UINT64_MAX;
    if (end <= list->damaged_end) return;
    list->damaged_end = end;
    list->damaged_number = number;
}

/* Reads one file's header. */
static int look(struct search *search, const char *name, uint32_t number)
{
    const struct qr_disk_ops *ops = search->dir->disk->ops;
    struct qr_log_found found = {.number = number};
    struct beginning beginning = {0};
    struct qr_file_facts facts;
    struct qr_file *file;
    int error = ops->file_open(search->dir, name, 0, &file);
    if (error == -ELOOP || error == -EINVAL || error == -EISDIR) return 0; /* a link or the like: not ours */
    if (error == -ENOENT) return 0; /* while the log is in use a spare one may be removed after its name was read */
    if (error != 0) return qr_log_disk_failure(error, "opening", number);
    int64_t size = qr_file_read(file, &beginning, sizeof(beginning), 0);
    error = size < 0 ? (int)size : ops->file_facts(file, &facts);
    ops->file_close(file);
    if (error != 0) return qr_log_disk_failure(error, "reading the header", number);
    const struct qr_log_header *h = &found.header;
    found.header = beginning.header;
    found.blank = is_zero(&beginning, qr_min(size, (int64_t)QR_LOG_HEADER_BYTES));
    if (found.blank) return report(add(&search->list, &found));
    if (size < (int64_t)sizeof(*h) || !header_is_ours(h, search->store_id)) {
        note_damage(&search->list, &beginning, (size_t)size, search->store_id, number, facts.size_bytes);
        return 0;
    }
    if (h->format > QR_LOG_FORMAT) return qr_fail(QUIRE_ERR_NEWER, 0, "%s has format %u", name, h->format);
    if (h->end < h->start || h->end - h->start < QR_LOG_HEADER_BYTES || h->end - h->start > facts.size_bytes ||
        h->start % QR_FRAME_UNIT != 0 || h->end % QR_FRAME_UNIT != 0 || h->end > QR_LOG_LSN_MOST)
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "%s: its size is not that of its header", name);
    found.same_boot = is_same_boot(h, &search->facts, &facts);
    return report(add(&search->list, &found));
}

static int visit(void *context, const char *name)
{
    struct search *search = context;
    uint32_t number;
    if (!number_of(name, &number)) return 0;
    if (number >= search->list.next_number) search->list.next_number = number + 1;
    search->result = look(search, name, number);
    return search->result == 0 ? 0 : 1;
}

static int by_start(const void *a, const void *b)
{
    const struct qr_log_found *x = a;
    const struct qr_log_found *y = b;
    if (x->header.start != y->header.start) return x->header.start < y->header.start ? -1 : 1;
    if (x->header.incarnation != y->header.incarnation) return x->header.incarnation < y->header.incarnation ? -1 : 1;
    return x->header.attempt < y->header.attempt ? -1 : x->header.attempt > y->header.attempt;
}

/* Whether there is a later attempt in its place, or in a part of it: the one that was made there may be smaller, and gone already. */
static bool is_superseded(const struct qr_log_list *list, uint32_t i)
{
    const struct qr_log_header *h = &list->found[i].header;
    for (uint32_t k = i + 1; k < list->count; k++) {
        const struct qr_log_header *later = &list->found[k].header;
        if (later->start != h->start && later->start >= h->end) return false;
        if (later->incarnation != h->incarnation) continue;
        if (later->start == h->start || (h->incarnation != 0 && later->attempt > h->attempt)) return true;
    }
    return false;
}

/* Attempts to make a segment that failed, and whose files could not be removed. */
static void find_superseded(struct qr_log_list *list)
{
    if (QR_BUG(log_older_attempt)) return;
    for (uint32_t i = 0; i < list->count; i++) list->found[i].superseded = !list->found[i].blank && is_superseded(list, i);
}

int qr_log_list_make(struct qr_dir *dir, const uint8_t store_id[16], struct qr_log_list *ret_list)
{
    struct search search = {.dir = dir, .store_id = store_id};
    int error = dir->disk->ops->dir_facts(dir, &search.facts);
    if (error != 0) return qr_fail_io(-error, "facts of the directory");
    error = dir->disk->ops->dir_list(dir, visit, &search);
    if (error < 0) search.result = qr_fail_io(-error, "listing the directory");
    if (search.result != 0) {
        qr_log_list_done(&search.list);
        return search.result;
    }
    if (search.list.count != 0) qsort(search.list.found, search.list.count, sizeof(struct qr_log_found), by_start);
    find_superseded(&search.list);
    *ret_list = search.list;
    return 0;
}

void qr_log_list_done(struct qr_log_list *list)
{
    qr_free(list->found);
    *list = (struct qr_log_list){0};
}
