/*
 * inspect.c: the public look at the manifest and at the files of a store.
 *
 * Layer 6. log_each.c has the look at the log.
 */
#include "db/inspect.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "db/db.h"
#include "db/names.h"
#include "store/format.h"

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

int qr_db_inspect_open(const char *path, struct qr_disk *disk, struct quire **ret_db)
{
    struct quire *db = qr_malloc_aligned(64, sizeof(*db)); /* for its files alone */
    *ret_db = db;
    if (db == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to look at a store");
    memset(db, 0, sizeof(*db));
    db->options.open_mode = QUIRE_OPEN_READ_ONLY;
    db->options.disable_ring = 1;
    return qr_db_files_open(db, path, disk);
}

void qr_db_inspect_close(struct quire *db)
{
    if (db == NULL) return;
    qr_db_files_close(db);
    qr_free_aligned(db);
}

/* ---- The manifest ----------------------------------------------------------------------------------------------- */

struct manifest_reader {
    quire_manifest_callback *callback;
    void *context;
};

/* A JSON object in the making. */
struct fields {
    size_t size;
    char text[1024];
};

__attribute__((format(printf, 2, 3))) static void print(struct fields *to, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(to->text + to->size, sizeof(to->text) - to->size, format, arguments);
    va_end(arguments);
    QR_ASSERT(size >= 0 && to->size + (size_t)size < sizeof(to->text)); /* 20 digits for each number fit in */
    to->size += (size_t)size;
}

static void add(struct fields *to, const char *name, uint64_t number)
{
    print(to, "%s\"%s\":%" PRIu64, to->size == 0 ? "{" : ",", name, number);
}

static void add_place(struct fields *to, const char *name, const struct qr_manifest_place *place)
{
    print(to, ",\"%s\":", name);
    if (place->size_bytes == 0) {
        print(to, "null");
        return;
    }
    char file[QR_SEGMENT_NAME_BYTES];
    qr_segment_name(qr_address_number(place->address), file);
    print(to, "{\"file\":\"%s\",\"offset\":%" PRIu32 ",\"size_bytes\":%" PRIu32 "}", file, qr_address_offset(place->address),
          place->size_bytes);
}

static int print_store(struct fields *to, const struct qr_manifest_record *record)
{
    struct qr_manifest_store store;
    int result = qr_manifest_store_decode(record, &store);
    if (result != 0) return result;
    add(to, "created", store.created_seconds);
    add(to, "log", store.has_log);
    add(to, "checksum", store.checksum);
    add(to, "log_segment_least_bytes", store.log_segment_least_bytes);
    add(to, "log_segment_most_bytes", store.log_segment_most_bytes);
    add(to, "log_frame_most_bytes", store.log_frame_most_bytes);
    add(to, "page_segment_least_bytes", store.page_segment_least_bytes);
    add(to, "page_segment_most_bytes", store.page_segment_most_bytes);
    return 0;
}

static int print_incarnation(struct fields *to, const struct qr_manifest_record *record)
{
    struct qr_manifest_incarnation incarnation;
    int result = qr_manifest_incarnation_decode(record, &incarnation);
    if (result != 0) return result;
    add(to, "number", incarnation.number);
    add(to, "first_lsn", incarnation.first_lsn);
    add(to, "previous_end_lsn", incarnation.previous_end_lsn);
    print(to, ",\"boot_id\":\"");
    for (size_t i = 0; i < sizeof(incarnation.boot_id); i++) print(to, "%02x", incarnation.boot_id[i]);
    print(to, "\"");
    add(to, "device", incarnation.device);
    add(to, "mount_id", incarnation.mount_id);
    add(to, "directory_inode", incarnation.directory_inode);
    return 0;
}

static int print_checkpoint(struct fields *to, const struct qr_manifest_record *record)
{
    struct qr_manifest_checkpoint checkpoint;
    int result = qr_manifest_checkpoint_decode(record, &checkpoint);
    if (result != 0) return result;
    add(to, "number", checkpoint.number);
    add(to, "replay_from", checkpoint.replay_from);
    add(to, "durable_lsn", checkpoint.durable_lsn);
    add(to, "as_of_lsn", checkpoint.as_of_lsn);
    add(to, "last_lsn", checkpoint.last_lsn);
    add_place(to, "mapping_root", &checkpoint.mapping_index);
    add_place(to, "free_page_ids", &checkpoint.free_ids);
    add_place(to, "range_tombstones", &checkpoint.range_tombstones);
    add(to, "next_page_id", checkpoint.next_page_id);
    add(to, "next_tree_id", checkpoint.next_tree_id);
    add(to, "next_segment", checkpoint.next_segment);
    add(to, "catalogue_root_id", checkpoint.catalogue_root_id);
    add(to, "trees", checkpoint.tree_count);
    add(to, "pages", checkpoint.page_count);
    add(to, "free_page_id_count", checkpoint.free_id_count);
    add(to, "live_bytes", checkpoint.live_bytes);
    return 0;
}

static int print_lsn_range(struct fields *to, const struct qr_manifest_record *record)
{
    struct qr_manifest_lsn_range range;
    int result = qr_manifest_lsn_range_decode(record, &range);
    if (result == 0) add(to, "end_lsn", range.end_lsn);
    return result;
}

static int visit_record(void *context, const struct qr_manifest_record *record)
{
    static const struct {
        const char *name;
        int (*print)(struct fields *to, const struct qr_manifest_record *record);
    } kinds[] = {
        [QR_MANIFEST_STORE] = {"store", print_store},
        [QR_MANIFEST_INCARNATION] = {"incarnation", print_incarnation},
        [QR_MANIFEST_CHECKPOINT] = {"checkpoint", print_checkpoint},
        [QR_MANIFEST_LSN_RANGE] = {"lsn-range", print_lsn_range},
    };
    const struct manifest_reader *r = context;
    struct fields fields = {0};
    int result = kinds[record->kind].print(&fields, record); /* others are not handed out, or the store is NEWER */
    if (result != 0) return result;
    print(&fields, "}");
    struct quire_manifest_record told = {.struct_size = sizeof(told),
                                         .sequence = record->sequence,
                                         .kind = record->kind,
                                         .name = kinds[record->kind].name,
                                         .size_bytes = record->size,
                                         .payload = record->payload,
                                         .fields = fields.text};
    return r->callback(r->context, &told);
}

int quire_manifest_each(const char *path, quire_manifest_callback *callback, void *context)
{
    if (path == NULL || callback == NULL) return qr_fail(QUIRE_ERR_INVALID, 0, "path or callback is NULL");
    struct manifest_reader reader = {callback, context};
    struct qr_manifest *manifest = NULL;
    struct quire *db = NULL;
    int result = qr_db_inspect_open(path, NULL, &db); /* which finds out whether all of it can be understood */
    if (result == 0) result = qr_manifest_open(db->files->dir, false, visit_record, &reader, &manifest);
    qr_manifest_close(manifest);
    qr_db_inspect_close(db);
    return result;
}

/* ---- The files -------------------------------------------------------------------------------------------------- */

struct files_reader {
    struct qr_db_files *files;
    uint64_t replay_from;
    struct qr_log_list log;
    struct qr_store *store;
};

static const struct qr_log_found *find_log(const struct files_reader *r, uint32_t number)
{
    for (uint32_t i = 0; i < r->log.count; i++)
        if (r->log.found[i].number == number) return &r->log.found[i];
    return NULL;
}

static void describe_log(const struct files_reader *r, struct quire_file *file)
{
    file->kind = QUIRE_FILE_LOG;
    file->number = strtoul(file->name + strlen(file->name) - 8, NULL, 16);
    const struct qr_log_found *found = find_log(r, (uint32_t)file->number);
    if (found == NULL || found->blank) {
        if (found != NULL) file->state = QUIRE_FILE_LEFTOVER;
        return;
    }
    file->incarnation = found->header.incarnation;
    file->first_lsn = found->header.start;
    file->end_lsn = found->header.end;
    bool stands_for_none = found->superseded || found->header.incarnation == 0; /* the log's reserve (FILES-6) */
    file->state = stands_for_none || found->header.end <= r->replay_from ? QUIRE_FILE_LEFTOVER : QUIRE_FILE_NEEDED;
}

static void describe_segment(const struct files_reader *r, uint32_t number, const uint8_t *first, int ours,
                             struct quire_file *file)
{
    struct qr_segment_header header;
    struct qr_store_segment segment;
    bool blob = qr_segment_header_decode(first, &header) && header.stream == QR_STREAM_BLOB;
    file->number = number;
    file->kind = QUIRE_FILE_PAGES;
    if (qr_store_segment(r->store, number, &segment)) {
        blob = segment.blob;
        file->state = QUIRE_FILE_NEEDED;
        file->used_bytes = segment.used_bytes;
        file->live_bytes = segment.live_bytes;
    } else if (ours) {
        file->state = QUIRE_FILE_LEFTOVER;
    }
    if (blob) file->kind = QUIRE_FILE_BLOBS;
}

/* 0, or a failure: what cannot be read is told as not known, but memory that has ended is not. */
static int describe(const struct files_reader *r, struct quire_file *file)
{
    uint8_t first[QR_SEGMENT_HEADER_USED] = {0};
    const uint8_t *id = qr_manifest_header(r->files->manifest)->store_id;
    uint32_t number;
    size_t got;
    int result = qr_file_read_beginning(r->files->dir, file->name, first, sizeof(first), &got, &file->size_bytes);
    int ours = result != 0 ? 0 : qr_file_is_of_store(r->files->dir, file->name, id);
    if (ours == QUIRE_ERR_NO_MEMORY || result == QUIRE_ERR_NO_MEMORY) return QUIRE_ERR_NO_MEMORY;
    file->state = QUIRE_FILE_UNKNOWN;
    if (qr_log_name_is_ours(file->name)) {
        describe_log(r, file);
    } else if (qr_segment_number_of(file->name, &number)) {
        describe_segment(r, number, first, ours > 0, file);
    } else if (strcmp(file->name, QR_MANIFEST_NAME) == 0) {
        file->kind = QUIRE_FILE_MANIFEST;
        file->state = QUIRE_FILE_NEEDED;
        file->used_bytes = file->live_bytes = qr_manifest_used_bytes(r->files->manifest);
    } else if (ours > 0) {
        bool lock = strcmp(file->name, QR_LOCK_NAME) == 0; /* else manifest.new */
        file->kind = lock ? QUIRE_FILE_LOCK : QUIRE_FILE_MANIFEST;
        file->state = lock ? QUIRE_FILE_NEEDED : QUIRE_FILE_LEFTOVER;
    }
    return 0;
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Calls for each name, in their order. */
static int each_name(struct files_reader *r, const struct qr_names *names, quire_file_callback *callback, void *context)
{
    size_t count = 0;
    const char **sorted = qr_calloc(names->size + 1, sizeof(*sorted)); /* a name has at least a byte */
    if (sorted == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the names of the files");
    for (size_t at = 0; at < names->size; at += strlen(names->text + at) + 1) sorted[count++] = names->text + at;
    qsort(sorted, count, sizeof(*sorted), compare_names);
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++) {
        struct quire_file file = {.struct_size = sizeof(file), .name = sorted[i], .kind = QUIRE_FILE_OTHER};
        result = describe(r, &file);
        if (result == 0) result = callback(context, &file);
    }
    qr_free(sorted);
    return result;
}

int quire_files_each(const char *path, quire_file_callback *callback, void *context)
{
    if (path == NULL || callback == NULL) return qr_fail(QUIRE_ERR_INVALID, 0, "path or callback is NULL");
    struct quire *db = NULL;
    struct qr_names names = {0};
    struct files_reader reader = {0};
    int result = qr_db_inspect_open(path, NULL, &db);
    if (result == 0) {
        const uint8_t *id = qr_manifest_header(db->files->manifest)->store_id;
        const struct qr_manifest_checkpoint *record = &db->checkpointer.record;
        struct qr_store_options options = {.random = qr_db_random};
        memcpy(options.store_id, id, sizeof(options.store_id));
        reader.files = db->files;
        reader.replay_from = record->replay_from;
        result = qr_log_list_make(db->files->dir, id, &reader.log);
        if (result == 0)
            result = qr_store_open(db->files->dir, &options, record->number == 0 ? NULL : record, true, &reader.store);
        int error = result == 0 ? qr_names_list(db->files->dir, &names) : 0;
        if (error != 0) result = qr_fail_io(-error, "listing the directory of the store");
    }
    if (result == 0) result = each_name(&reader, &names, callback, context);
    qr_free(names.text);
    qr_store_close(reader.store);
    qr_log_list_done(&reader.log);
    qr_db_inspect_close(db);
    return result;
}
