/*
 * files.c: opening and closing the files of a database.
 *
 * Layer 6. See files.h for the order of steps.
 */
#include "db/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "base/bugs.h"
#include "db/blobs.h"
#include "db/db.h"
#include "db/names.h"

/* ---- Randomness ------------------------------------------------------------------------------------------------- */

int qr_db_random(void *context, void *memory, size_t size)
{
    uint8_t *to = memory;
    (void)context;
    while (size != 0) {
        ssize_t got = getrandom(to, size, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -errno;
        to += got;
        size -= (size_t)got;
    }
    return 0;
}

/* ---- The directory ---------------------------------------------------------------------------------------------- */

struct contents {
    bool manifest; /* there is one: the store exists */
    bool other;    /* there is something that is no beginning of a store */
    bool traces;   /* of a store */
};

static int look_at(void *context, const char *name)
{
    struct contents *contents = context;
    if (strcmp(name, QR_MANIFEST_NAME) == 0)
        contents->manifest = true;
    else if (strcmp(name, QR_MANIFEST_NEW_NAME) != 0 && strcmp(name, QR_LOCK_NAME) != 0)
        contents->other = true;
    if (strcmp(name, QR_MANIFEST_NEW_NAME) == 0 || qr_name_is_of_segment(name)) contents->traces = true;
    return 0;
}

/* Whether the directory holds a store, may hold one, or belongs to somebody else. */
static int check_contents(struct qr_db_files *files, uint32_t mode, bool *ret_exists)
{
    struct contents contents = {0};
    int error = files->disk->ops->dir_list(files->dir, look_at, &contents);
    if (error != 0) return qr_fail_io(-error, "listing the directory of the store");
    *ret_exists = contents.manifest;
    if (contents.manifest) return mode == QUIRE_CREATE_NEW ? QUIRE_EXISTS : 0;
    if (contents.other) return qr_fail(QUIRE_ERR_FOREIGN, 0, "the directory is not empty and has no manifest");
    return mode == QUIRE_OPEN_EXISTING || mode == QUIRE_OPEN_READ_ONLY ? QUIRE_NOT_FOUND : 0;
}

static int open_directory(struct qr_db_files *files, const char *path, uint32_t mode)
{
    unsigned flags = mode == QUIRE_OPEN_READ_ONLY ? QR_DIR_READ_ONLY : 0;
    if (mode == QUIRE_OPEN_OR_CREATE || mode == QUIRE_CREATE_NEW) flags |= QR_DIR_CREATE;
    if (mode == QUIRE_OPEN_TEMPORARY) flags |= QR_DIR_CREATE | QR_DIR_PRIVATE;
    int error;
    do {
        error = files->disk->ops->dir_open(files->disk, path, flags, &files->dir);
    } while (error == -EINTR); /* it may sync the parent */
    if (error == -ENOENT && (flags & QR_DIR_CREATE) == 0) return QUIRE_NOT_FOUND;
    if (error == -ENOTDIR) return qr_fail(QUIRE_ERR_FOREIGN, ENOTDIR, "the path is not a directory");
    return error == 0 ? 0 : qr_fail_io(-error, "opening the directory of the store");
}

/* Makes a directory that is there for nobody else, in the one that the path names. */
static int open_temporary(struct qr_db_files *files, const char *parent)
{
    uint64_t number[2];
    char *path = NULL;
    if (parent == NULL) parent = secure_getenv("TMPDIR");
    if (parent == NULL || parent[0] == '\0') parent = "/tmp";
    size_t size = strlen(parent) + 64;
    int error = qr_db_random(NULL, number, sizeof(number));
    if (error == 0) path = qr_malloc(size);
    if (path == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, -error, "no memory, or no random bytes, for a temporary store");
    snprintf(path, size, "%s/quire-%016llx%016llx", parent, (unsigned long long)number[0], (unsigned long long)number[1]);
    int result = open_directory(files, path, QUIRE_OPEN_TEMPORARY);
    if (result != 0)
        qr_free(path);
    else
        files->temporary_path = path;
    return result;
}

int qr_db_fail_lock(int error, int64_t pid)
{
    if (error == -ENOENT) return qr_fail(QUIRE_ERR_BUSY, ENOENT, "the store is being removed");
    if (error != -EWOULDBLOCK) return qr_fail_io(-error, "locking the store");
    if (pid == 0) return qr_fail(QUIRE_ERR_BUSY, EWOULDBLOCK, "the store is open; its lock does not say in which process");
    return qr_fail(QUIRE_ERR_BUSY, EWOULDBLOCK, "the store is open, in process %lld", (long long)pid);
}

static int lock(struct qr_db_files *files)
{
    int64_t pid = 0;
    int error = files->disk->ops->dir_lock(files->dir, QR_LOCK_NAME, files->read_only, &pid);
    return error == 0 ? 0 : qr_db_fail_lock(error, pid);
}

/* ---- The manifest ----------------------------------------------------------------------------------------------- */

static bool add_incarnation(struct qr_db_files *files, const struct qr_incarnation *incarnation)
{
    struct qr_incarnation *larger = qr_grow(files->incarnations, files->incarnation_count, &files->incarnation_capacity, sizeof(*larger));
    if (larger == NULL) return false;
    files->incarnations = larger;
    files->incarnations[files->incarnation_count++] = *incarnation;
    return true;
}

static int take_incarnation(struct qr_db_files *files, const struct qr_manifest_record *record)
{
    struct qr_manifest_incarnation stored;
    int result = qr_manifest_incarnation_decode(record, &stored);
    if (result != 0) return result;
    if (stored.first_lsn > QR_LOG_LSN_MOST) return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: an LSN that nobody has");
    if (files->incarnation_count != 0) {
        struct qr_incarnation *before = &files->incarnations[files->incarnation_count - 1];
        if (stored.number <= before->number || stored.first_lsn < before->first_lsn ||
            stored.previous_end_lsn > stored.first_lsn)
            return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: incarnation %llu does not follow",
                           (unsigned long long)stored.number);
        before->end = stored.previous_end_lsn;
    }
    struct qr_incarnation incarnation = {.number = stored.number, .first_lsn = stored.first_lsn};
    return add_incarnation(files, &incarnation) ? 0 : qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for incarnations");
}

static int take_checkpoint(struct qr_manifest_checkpoint *checkpoint, const struct qr_manifest_record *record)
{
    int result = qr_manifest_checkpoint_decode(record, checkpoint);
    if (result == 0 && qr_max(checkpoint->last_lsn, qr_max(checkpoint->durable_lsn, checkpoint->replay_from)) > QR_LOG_LSN_MOST)
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: an LSN that nobody has");
    return result;
}

static int take_range(struct qr_db_files *files, const struct qr_manifest_record *record)
{
    struct qr_manifest_lsn_range range;
    int result = qr_manifest_lsn_range_decode(record, &range);
    if (result == 0 && range.end_lsn > QR_LOG_LSN_MOST)
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "manifest: an LSN that nobody has");
    if (result == 0) files->lsn_range_end = range.end_lsn;
    return result;
}

static int visit_record(void *context, const struct qr_manifest_record *record)
{
    struct qr_db_files *files = context;
    switch ((enum qr_manifest_kind)record->kind) {
    case QR_MANIFEST_STORE:
        return qr_manifest_store_decode(record, &files->settings);
    case QR_MANIFEST_INCARNATION:
        return take_incarnation(files, record);
    case QR_MANIFEST_CHECKPOINT:
        return take_checkpoint(&files->db->checkpointer.record, record);
    case QR_MANIFEST_LSN_RANGE:
        return take_range(files, record);
    case QR_MANIFEST_POISON:
        return qr_fail(QUIRE_ERR_NEWER, 0, "manifest: a record of kind %u", record->kind);
    }
    return 0; /* optional, of a newer version */
}

static int create_manifest(struct qr_db_files *files)
{
    uint8_t payload[QR_MANIFEST_STORE_BYTES];
    struct qr_manifest_setup setup = {.random = qr_db_random};
    files->settings = (struct qr_manifest_store){
        .created_seconds = (uint64_t)time(NULL), .has_log = !qr_db_is_unlogged(files->db), .checksum = QR_MANIFEST_CHECKSUM_CRC32C};
    struct qr_manifest_record record = qr_manifest_store_encode(&files->settings, payload);
    return qr_manifest_create(files->dir, &setup, &record, 1, &files->manifest);
}

/* What is in force of the incarnations: those whose log may be needed, and the last one, whose end the next will have. */
static bool in_force(const struct qr_db_files *files, uint32_t i, uint64_t replay_from)
{
    const struct qr_incarnation *old = &files->incarnations[i];
    if (i + 1 >= files->incarnation_count) return true;
    return old->end > old->first_lsn + QR_LOG_HEADER_BYTES && old->end > replay_from;
}

int qr_db_rewrite_manifest(struct quire *db, const struct qr_manifest_incarnation *incarnation,
                           const struct qr_manifest_checkpoint *checkpoint)
{
    struct qr_db_files *files = db->files;
    uint32_t count = files->incarnation_count;
    if (checkpoint == NULL && db->checkpointer.record.number != 0) checkpoint = &db->checkpointer.record;
    uint64_t replay_from = checkpoint == NULL ? 0 : checkpoint->replay_from;
    struct qr_manifest_record *records = qr_calloc((size_t)count + 4, sizeof(*records));
    uint8_t *payloads = qr_calloc((size_t)count + 4, QR_MANIFEST_CHECKPOINT_BYTES);
    struct qr_manifest_lsn_range range = {.end_lsn = files->lsn_range_end};
    int result = QUIRE_ERR_NO_MEMORY;
    if (records != NULL && payloads != NULL) {
        uint8_t *to = payloads;
        uint32_t kept = 0;
        uint64_t previous_end = 0;
        records[kept++] = qr_manifest_store_encode(&files->settings, to);
        for (uint32_t i = 0; i < count; i++) {
            const struct qr_incarnation *old = &files->incarnations[i];
            if (!in_force(files, i, replay_from) || (QR_BUG(incarnation_lost) && i + 1 < count)) continue;
            struct qr_manifest_incarnation stored = {
                .number = old->number, .first_lsn = old->first_lsn, .previous_end_lsn = previous_end};
            records[kept++] = qr_manifest_incarnation_encode(&stored, to += QR_MANIFEST_CHECKPOINT_BYTES);
            previous_end = old->end;
        }
        if (range.end_lsn != 0)
            records[kept++] = qr_manifest_lsn_range_encode(&range, to += QR_MANIFEST_CHECKPOINT_BYTES);
        if (incarnation != NULL)
            records[kept++] = qr_manifest_incarnation_encode(incarnation, to += QR_MANIFEST_CHECKPOINT_BYTES);
        if (checkpoint != NULL)
            records[kept++] = qr_manifest_checkpoint_encode(checkpoint, to += QR_MANIFEST_CHECKPOINT_BYTES);
        result = qr_manifest_rewrite(files->manifest, records, kept);
    } else {
        result = qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to rewrite the manifest");
    }
    qr_free(records);
    qr_free(payloads);
    return result;
}

/*
 * Writes the record of an incarnation. The manifest is written anew: so what a life before this one left half done, a rename
 * whose sync failed among it, cannot come back. Where there is no space for that the record is appended.
 */
static int record_incarnation(struct qr_db_files *files, const struct qr_manifest_incarnation *incarnation)
{
    uint8_t payload[QR_MANIFEST_INCARNATION_BYTES];
    uint8_t range_payload[QR_MANIFEST_LSN_RANGE_BYTES];
    struct qr_manifest_lsn_range range = {.end_lsn = files->lsn_range_end};
    struct qr_manifest_record records[] = {qr_manifest_incarnation_encode(incarnation, payload),
                                           qr_manifest_lsn_range_encode(&range, range_payload)};
    int result = qr_db_rewrite_manifest(files->db, incarnation, NULL);
    if (result != QUIRE_ERR_NO_SPACE) return result;
    result = qr_manifest_append(files->manifest, records, range.end_lsn == 0 ? 1 : 2);
    return result == QR_MANIFEST_FULL ? QUIRE_ERR_NO_SPACE : result;
}

static int stop_visiting(void *context, const struct qr_manifest_record *record)
{
    (void)context;
    (void)record;
    return 1;
}

/* Whether what is called manifest is one of Quire's, and of this version: before anything is written beside it. */
static int probe_manifest(struct qr_db_files *files)
{
    struct qr_manifest *manifest = NULL;
    int result = qr_manifest_open(files->dir, false, stop_visiting, NULL, &manifest);
    if (result == 0) qr_manifest_close(manifest);
    return result == QUIRE_ERR_FOREIGN || result == QUIRE_ERR_NEWER ? result : 0;
}

/* ---- Open ------------------------------------------------------------------------------------------------------- */

static int open_manifest(struct qr_db_files *files, uint32_t mode, bool exists)
{
    if (!exists) {
        int result = create_manifest(files);
        if (result != QUIRE_EXISTS) return result;
        if (mode == QUIRE_CREATE_NEW) return QUIRE_EXISTS;
    }
    int result = qr_manifest_open(files->dir, !files->read_only, visit_record, files, &files->manifest);
    return result == QUIRE_NOT_FOUND ? qr_fail(QUIRE_ERR_BUSY, 0, "the store is being created or removed") : result;
}

static bool is_foreign(const struct contents *contents)
{
    return contents->other && !contents->manifest;
}

/* A store that somebody removes is without a manifest, too. FOREIGN, BUSY. */
static int explain_foreign(struct qr_db_files *files)
{
    const struct qr_disk_ops *ops = files->disk->ops;
    struct contents contents = {0}, locked = {0};
    int64_t pid = 0;
    if (ops->dir_list(files->dir, look_at, &contents) != 0) return QUIRE_ERR_FOREIGN;
    if (is_foreign(&contents) && !contents.traces) return QUIRE_ERR_FOREIGN; /* whose lock it is is none of Quire's business */
    int error = ops->dir_lock(files->dir, QR_LOCK_NAME, true, &pid); /* makes no file */
    if (error == -EWOULDBLOCK) return qr_db_fail_lock(error, pid);
    if (error != 0 || ops->dir_list(files->dir, look_at, &locked) != 0 || is_foreign(&locked)) return QUIRE_ERR_FOREIGN;
    return qr_fail(QUIRE_ERR_BUSY, 0, "the store was being removed");
}

int qr_db_files_open(struct quire *db, const char *path, struct qr_disk *disk)
{
    struct qr_db_files *files = qr_calloc(1, sizeof(*files));
    if (files == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the files of the store");
    uint32_t mode = db->options.open_mode;
    bool exists = false;
    db->files = files;
    files->db = db;
    pthread_mutex_init(&files->manifest_mutex, NULL);
    pthread_mutex_init(&files->leftovers_mutex, NULL);
    files->read_only = mode == QUIRE_OPEN_READ_ONLY;
    files->disk = disk;
    if (disk == NULL) {
        int error = qr_disk_open(db->options.disable_ring == 0, &files->disk);
        if (error != 0) return qr_fail_io(-error, "beginning to reach files");
        files->owns_disk = true;
    }
    int result = mode == QUIRE_OPEN_TEMPORARY ? open_temporary(files, path) : open_directory(files, path, mode);
    /* RECOVER-1: foreign files are refused before the lock's file is made; what comes between is seen by the second look. */
    if (result == 0) result = check_contents(files, mode, &exists);
    if (result == QUIRE_ERR_FOREIGN && files->dir != NULL) result = explain_foreign(files);
    if (result == 0 && exists) result = probe_manifest(files);
    if (result == 0) result = lock(files);
    if (result == 0) result = check_contents(files, mode, &exists);
    return result == 0 ? open_manifest(files, mode, exists) : result;
}

void qr_db_files_close(struct quire *db)
{
    struct qr_db_files *files = db->files;
    if (files == NULL) return;
    qr_log_close(&db->log);
    qr_manifest_close(files->manifest);
    if (files->temporary_path != NULL) qr_db_remove_temporary(files->dir); /* what cannot be removed stays */
    if (files->dir != NULL) files->disk->ops->dir_close(files->dir);
    if (files->temporary_path != NULL) files->disk->ops->dir_remove(files->disk, files->temporary_path);
    qr_free(files->temporary_path);
    if (files->owns_disk) files->disk->ops->disk_free(files->disk);
    qr_log_list_done(&files->old);
    pthread_mutex_destroy(&files->manifest_mutex);
    pthread_mutex_destroy(&files->leftovers_mutex);
    qr_free(files->incarnations);
    qr_free(files);
    db->files = NULL;
}

/* ---- The log ---------------------------------------------------------------------------------------------------- */

static void wake(void *context)
{
    struct qr_db_files *files = context;
    qr_event_signal(&files->wake);
}

static int sync_blobs(void *context)
{
    struct qr_db_files *files = context;
    return qr_blob_sync(files->db->checkpointer.store);
}

static struct qr_log_options log_options(const struct qr_db_files *files)
{
    const struct quire_options *o = &files->db->options;
    uint64_t first = qr_db_first_segment_bytes(files->db);
    struct qr_log_options options = {.first_segment_bytes = qr_min(o->log_segment_bytes, first),
                                     .most_segment_bytes = o->log_segment_bytes,
                                     .buffered = o->log_buffered != 0,
                                     .random = qr_db_random,
                                     .wake = wake,
                                     .before_sync = sync_blobs,
                                     .context = (void *)(uintptr_t)files};
    /* Each writer keeps so much ahead of it: with little space, little. */
    if (first < QR_FIRST_SEGMENT_MOST) options.frame_cap_bytes = (uint32_t)(first / 16);
    memcpy(options.store_id, qr_manifest_header(files->manifest)->store_id, sizeof(options.store_id));
    return options;
}

/* RECOVER-4 */
static int begin_incarnation(struct qr_db_files *files, struct qr_log_list *list, uint64_t start_lsn)
{
    struct quire *db = files->db;
    struct qr_dir_facts facts;
    uint32_t count = files->incarnation_count;
    struct qr_incarnation next = {.number = count == 0 ? 1 : files->incarnations[count - 1].number + 1,
                                  .first_lsn = start_lsn};
    int error = files->disk->ops->dir_facts(files->dir, &facts);
    if (error != 0) return qr_fail_io(-error, "facts of the directory");
    if (count != 0) files->incarnations[count - 1].end = files->recovery.log.end;
    if (!add_incarnation(files, &next)) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for incarnations");
    files->incarnation_count--; /* until it is recorded */
    struct qr_manifest_incarnation stored = {.number = next.number,
                                             .first_lsn = next.first_lsn,
                                             .previous_end_lsn = files->recovery.log.end,
                                             .device = facts.device,
                                             .mount_id = facts.mount_id,
                                             .directory_inode = facts.inode};
    memcpy(stored.boot_id, facts.boot_id, sizeof(stored.boot_id));
    files->settings.has_log = !qr_db_is_unlogged(db);
    if (!files->settings.has_log) files->lsn_range_end = qr_db_lsn_range(db, start_lsn);
    int result = record_incarnation(files, &stored);
    if (result != 0) return result;
    files->incarnation_count++;
    files->old = *list;
    files->old_needed_from = db->checkpointer.record.replay_from;
    *list = (struct qr_log_list){.next_number = list->next_number};
    if (!files->settings.has_log) {
        qr_log_allow(&db->log, files->lsn_range_end);
        /* relaxed: there are no users yet. What is there is durable, or in a log of which a checkpoint is made next. */
        atomic_store_explicit(&db->checkpointer.durable_end, start_lsn, memory_order_relaxed);
        /* relaxed: as above */
        atomic_store_explicit(&db->checkpointer.replay_from, start_lsn, memory_order_relaxed);
    }
    return 0;
}

#define LEAST_LOG_BYTES (UINT64_C(64) << 10)

/* The first segment, a smaller one if there is no space for it, and with another number: the file of the larger may have stayed. */
static int open_log(struct qr_db_files *files, uint32_t *next_number)
{
    struct quire *db = files->db;
    struct qr_log_options options = log_options(files);
    const struct qr_incarnation *own = &files->incarnations[files->incarnation_count - 1];
    for (;;) {
        int result = qr_log_open(&db->log, db->epoch, files->dir, &options, own->number, own->first_lsn, (*next_number)++);
        if (result != QUIRE_ERR_NO_SPACE || db->log.files != NULL || options.first_segment_bytes / 2 < LEAST_LOG_BYTES) return result;
        options.first_segment_bytes /= 2;
    }
}

/* What the page store has kept ready for a full disk is for what comes later: without a log nothing does. */
static int begin_log(struct qr_db_files *files, uint32_t *next_number)
{
    if (!files->settings.has_log) return 0;
    struct quire *db = files->db;
    int result = open_log(files, next_number);
    if (result == QUIRE_ERR_NO_SPACE && db->log.files == NULL && qr_db_clears_later(db)) { /* there may be a quota */
        qr_db_clear_leftovers(db);
        result = open_log(files, next_number);
    }
    if (result == QUIRE_ERR_NO_SPACE && db->log.files == NULL && qr_store_drop_reserve(db->checkpointer.store))
        result = open_log(files, next_number);
    return result;
}

/* What a writer does when the log is replayed. */
static int begin_writing(struct qr_db_files *files, struct qr_log_list *list, uint64_t start_lsn)
{
    struct qr_store *store = files->db->checkpointer.store;
    const bool early = QR_BUG(cleaned_early), late = QR_BUG(cleaned_late);
    int result = early ? qr_store_clean_up(store) : 0;
    if (result == 0) result = begin_incarnation(files, list, start_lsn);
    if (result == 0 && !early && !late) result = qr_store_find_leftovers(store);
    if (result == 0) qr_db_leftovers_found(files->db); /* RECOVER-5 */
    if (result == 0) result = begin_log(files, &list->next_number);
    if (result == 0 && late) result = qr_store_clean_up(store);
    return result;
}

/* The mapping of the last checkpoint, and the trees in it. */
static int load_checkpoint(struct quire *db, struct qr_thread *thread)
{
    const struct qr_manifest_checkpoint *record = &db->checkpointer.record;
    uint64_t *free_ids = NULL;
    uint64_t free_count = 0;
    int result = qr_db_checkpointer_open(db);
    if (result != 0) return result;
    if (record->number == 0) {
        result = qr_db_catalogue_open(db, thread, QR_PID_NONE);
        return result == 0 ? 0 : qr_fail(result, 0, "no memory for the catalogue");
    }
    result = qr_store_read_free_ids(db->checkpointer.store, record, &free_ids, &free_count);
    if (result != 0) return result;
    if (record->catalogue_root_id == QR_PID_NONE || record->catalogue_root_id >= db->map->capacity) {
        qr_free(free_ids);
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "the checkpoint has an impossible page id of the catalogue");
    }
    result = qr_map_restore(db->map, record->next_page_id, free_ids, free_count);
    qr_free(free_ids);
    if (result == 0) result = qr_db_catalogue_open(db, thread, record->catalogue_root_id);
    if (result != 0) return qr_fail(result, 0, "no memory for the mapping");
    atomic_init(&db->checkpointer.replay_from, record->replay_from);
    atomic_init(&db->checkpointer.durable_end, record->durable_lsn);
    db->files->recovery.last_lsn = record->last_lsn;
    return qr_db_catalogue_load(db, thread);
}

#define MOST_INCARNATIONS 256u

int qr_db_recover(struct quire *db, struct qr_thread *thread)
{
    struct qr_db_files *files = db->files;
    struct qr_log_list list = {0};
    uint64_t start_ns = qr_clock_ns();
    uint32_t count = files->incarnation_count;
    int result = qr_log_list_make(files->dir, qr_manifest_header(files->manifest)->store_id, &list);
    if (result != 0) return result;
    if (list.damaged_end > db->checkpointer.record.replay_from)
        result = qr_fail(QUIRE_ERR_CORRUPT, 0, "log-%08x: its header is damaged", list.damaged_number);
    for (uint32_t i = 0; i < list.count; i++)
        /* relaxed: statistics */
        atomic_fetch_add_explicit(&files->old_log_bytes, list.found[i].header.end - list.found[i].header.start,
                                  memory_order_relaxed);
    uint64_t start_lsn = qr_max(list.top, qr_round_up(db->checkpointer.record.durable_lsn, QR_LOG_HEADER_BYTES));
    if (count != 0) start_lsn = qr_max(start_lsn, files->incarnations[count - 1].first_lsn);
    if (!QR_BUG(lsn_range_unused))
        start_lsn = qr_max(start_lsn, qr_round_up(files->lsn_range_end, QR_LOG_HEADER_BYTES)); /* UNLOGGED-1 */
    qr_log_set_tail(&db->log, qr_max(start_lsn, QR_LOG_START)); /* RECOVER-2 */
    if (result == 0) result = load_checkpoint(db, thread);
    if (result == 0) result = qr_db_replay(db, thread, &list);
    if (QR_BUG(lsn_reused)) start_lsn = files->recovery.log.end;
    if (result == 0 && !files->read_only) result = begin_writing(files, &list, start_lsn);
    if (result == 0 && qr_db_is_unlogged(db) && files->old.count != 0) result = qr_db_checkpoint(db, thread, true);
    /* A manifest has room for so many of them. With a checkpoint the log of most is not needed; the next opening leaves those out. */
    else if (result == 0 && !files->read_only && files->incarnation_count > MOST_INCARNATIONS)
        (void)qr_db_checkpoint(db, thread, true); /* if it fails, one of the next openings tries again */
    qr_log_list_done(&list);
    files->recovery.ns = qr_clock_ns() - start_ns;
    return result;
}

/* ---- The thread that syncs -------------------------------------------------------------------------------------- */

#define LONGEST_WAIT_MS 50u

/* Whether a sync is due: the period is over, or the volume is reached. */
static bool sync_is_due(struct quire *db, uint64_t tail)
{
    uint64_t durable = qr_log_durable_end(&db->log);
    if (tail <= durable) return false;
    if (tail - durable >= db->options.sync_volume_bytes) return true;
    uint32_t period = db->options.sync_period_ms;
    return period != QUIRE_NO_PERIOD && qr_clock_ns() - qr_log_last_sync_ns(&db->log) >= period * 1000000ull;
}

/* Of the thread that syncs, for anything but the log's disk. */
static uint32_t longest_wait_ms(const struct quire *db)
{
    return qr_min(db->options.sync_period_ms / 2 + 1, LONGEST_WAIT_MS);
}

int qr_db_log_work(struct quire *db)
{
    if (db->log.files == NULL) return 0;
    qr_db_keep_reserve(db);
    qr_db_adapt_steps(db);
    bool undecided = qr_db_clears_later(db); /* others go on making space */
    bool is_short = qr_db_space_is_short(db); /* then writers are to find no room that was made ahead */
    int result = is_short ? 0 : qr_log_work(&db->log);
    if (result == QUIRE_ERR_NO_SPACE && !qr_log_is_full(&db->log) && qr_db_give_up_spares(db, longest_wait_ms(db)))
        result = qr_log_work(&db->log);
    if (qr_log_failure(&db->log) == 0 && !is_short && (result == 0 || !undecided)) qr_db_note_room(db, QR_ROOM_LOG, result);
    uint64_t tail = qr_log_tail(&db->log);
    if (sync_is_due(db, tail)) {
        int synced = qr_log_wait(&db->log, tail - 1, QR_LOG_DURABLE);
        if (result == 0) result = synced;
    }
    qr_db_tell(db);
    return result;
}

static void *run_log(void *argument)
{
    struct quire *db = argument;
    uint64_t wait_us = longest_wait_ms(db) * UINT64_C(1000);
    for (;;) {
        uint32_t seen = qr_event_count(&db->files->wake);
        /* order: db.stop.seen pairs with db.stop.set: only the flag itself */
        if (atomic_load_explicit(&db->stopping, memory_order_acquire) != 0) return NULL;
        qr_db_log_work(db);
        qr_event_wait(&db->files->wake, seen, wait_us);
    }
}

int qr_db_log_thread_start(struct quire *db)
{
    if (db->log.files == NULL || db->options.background_threads == QUIRE_NO_THREADS) return 0;
    if (qr_thread_start(&db->files->thread, "quire-log", run_log, db) != 0)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no thread for the log");
    db->files->thread_runs = true;
    return 0;
}

void qr_db_log_thread_stop(struct quire *db)
{
    if (db->files == NULL || !db->files->thread_runs) return;
    qr_event_signal(&db->files->wake);
    pthread_join(db->files->thread, NULL);
    db->files->thread_runs = false;
}
