/*
 * verify.c: the public verification: manifest, pages in files, log, trees.
 *
 * Layer 6. See verify.h.
 */
#include "db/verify.h"

#include <stdarg.h>
#include <stdio.h>

#include "db/flush.h"
#include "store/verify.h"

#define TEXT_BYTES 400u

int qr_verify_tell(struct qr_verify *v, const char *file, uint64_t offset, const char *tree, uint64_t pid,
                   const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list arguments;
    v->defects++;
    if (v->callback == NULL) return 0;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    const struct quire_defect defect = {sizeof(defect), file, offset, tree, pid, text};
    return v->callback(v->context, &defect) == 0 ? 0 : QUIRE_ERR_CORRUPT;
}

/* ---- Pages in files --------------------------------------------------------------------------------------------- */

static int note_bad_pid(struct qr_verify *v, uint64_t pid)
{
    uint64_t *larger = qr_grow(v->bad_pids, v->bad_count, &v->bad_capacity, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a list of damaged pages");
    v->bad_pids = larger;
    v->bad_pids[v->bad_count++] = pid;
    return 0;
}

static int tell_fault(void *context, const struct qr_store_fault *fault)
{
    struct qr_verify *v = context;
    int result = fault->pid == 0 ? 0 : note_bad_pid(v, fault->pid);
    if (result != 0) return result;
    return qr_verify_tell(v, fault->file[0] == 0 ? NULL : fault->file, fault->offset, NULL, fault->pid, "%s", fault->text);
}

/* Is the image the page that the mapping says, as it should be? */
static const char *check_image(void *context, uint64_t pid, const struct qr_store_entry *entry, void *bytes, uint32_t size)
{
    struct qr_verify *v = context;
    const struct qr_page *page = bytes;
    uint32_t tree_count;
    qr_db_handles(v->db, &tree_count);
    const char *bad = qr_db_adopt_image(bytes, size, size, pid, entry->address);
    if (bad != NULL) return bad;
    if (page->max_lsn != entry->max_lsn) return "its max LSN is not that of the mapping";
    return page->tree_id < tree_count ? NULL : "it is of a tree that is not there";
}

static int verify_store(struct qr_verify *v)
{
    const struct qr_store_verifier verifier = {.fault = tell_fault, .page = check_image, .context = v};
    return qr_store_verify(v->db->checkpointer.store, &verifier);
}

/* ---- Manifest and log ------------------------------------------------------------------------------------------- */

static int pass_record(void *context, const struct qr_manifest_record *record)
{
    (void)context;
    (void)record;
    return 0;
}

static int verify_manifest(struct qr_verify *v)
{
    struct qr_manifest *manifest = NULL;
    struct quire_error_detail detail;
    int result = qr_manifest_open(v->db->files->dir, false, pass_record, NULL, &manifest);
    qr_manifest_close(manifest);
    if (result == 0 || result == QUIRE_ERR_NO_MEMORY) return result;
    quire_error_detail(&detail);
    return qr_verify_tell(v, QR_MANIFEST_NAME, 0, NULL, 0, "%s", result > 0 ? "the file is missing" : detail.message);
}

struct log_verify {
    struct qr_verify *v;
    uint64_t durable_end; /* of the last incarnation */
};

/* Whether a place without a right frame is a defect; else it is where a process or the power ended. */
static bool is_defect(const struct log_verify *l, const struct qr_log_sight *sight)
{
    if (!sight->last) return true;
    if (sight->lsn < l->durable_end) return true;
    /* Whoever died alone left everything that it had stored, so nothing is half there. */
    return l->v->db->files->read_only && sight->verdict == QR_FRAME_DAMAGE && sight->found->same_boot;
}

static const char *check_frame(const struct log_verify *l, const struct qr_log_sight *sight)
{
    struct qr_frame frame;
    uint64_t before;
    const uint8_t *data;
    uint32_t size = (uint32_t)sight->size;
    if (sight->verdict == QR_FRAME_HOLE) return is_defect(l, sight) ? "a frame of the log is missing" : NULL;
    if (sight->verdict == QR_FRAME_DAMAGE) return is_defect(l, sight) ? "a frame of the log does not verify" : NULL;
    enum qr_frame_state state = qr_frame_state_at(sight->at);
    if (state != QR_FRAME_DONE && state != QR_FRAME_VOID && is_defect(l, sight)) return "a frame of the log is not decided";
    enum qr_frame_kind kind = qr_frame_kind_at(sight->at);
    if (kind == QR_FRAME_RECORD && !qr_frame_parse(sight->at, size, &frame))
        return "a record of the log that does not say what a record says";
    if (kind == QR_FRAME_PART && !qr_frame_parse_part(sight->at, size, &before, &data, &size))
        return "a part of a record in the log that does not say what a part says";
    return NULL;
}

static int visit_frame(void *context, const struct qr_log_sight *sight)
{
    const struct log_verify *l = context;
    char name[QR_LOG_NAME_BYTES];
    const char *bad = check_frame(l, sight);
    if (bad == NULL) return 0;
    qr_log_file_name(sight->found->number, name);
    return qr_verify_tell(l->v, name, sight->lsn - sight->found->header.start, NULL, 0, "%s (LSN %llu, %llu bytes%s)", bad,
                          (unsigned long long)sight->lsn, (unsigned long long)sight->size,
                          sight->lsn < l->v->db->checkpointer.record.replay_from ? "; it is not needed any more" : "");
}

/* Segments whose header is damaged are not in the list, and what they hold is lost with it. */
struct header_verify {
    struct qr_verify *v;
    const struct qr_log_list *list;
    int result;
};

static bool is_listed(const struct qr_log_list *list, const char *name)
{
    char listed[QR_LOG_NAME_BYTES];
    for (uint32_t i = 0; i < list->count; i++) {
        qr_log_file_name(list->found[i].number, listed);
        if (strcmp(listed, name) == 0) return true;
    }
    return false;
}

static int visit_name(void *context, const char *name)
{
    struct header_verify *h = context;
    struct qr_db_files *files = h->v->db->files;
    static const uint8_t zeros[sizeof(struct qr_log_header)];
    struct qr_log_header header = {0};
    struct qr_file *file;
    if (!qr_log_name_is_ours(name) || is_listed(h->list, name)) return 0;
    if (files->disk->ops->file_open(files->dir, name, 0, &file) != 0) return 0; /* a link or the like: not ours */
    int64_t size = qr_file_read(file, &header, sizeof(header), 0);
    files->disk->ops->file_close(file);
    bool ours = memcmp(header.magic, "QUIRELOG", sizeof(header.magic)) == 0 ||
                memcmp(header.store_id, qr_manifest_header(files->manifest)->store_id, sizeof(header.store_id)) == 0;
    if (size <= 0 || memcmp(&header, zeros, sizeof(header)) == 0 || !ours) return 0;
    h->result = qr_verify_tell(h->v, name, 0, NULL, 0, "the header of a log segment does not verify");
    return h->result;
}

static int verify_log_headers(struct qr_verify *v, const struct qr_log_list *list)
{
    struct header_verify h = {.v = v, .list = list};
    int error = v->db->files->disk->ops->dir_list(v->db->files->dir, visit_name, &h);
    if (h.result != 0 || error == 0) return h.result;
    return qr_fail_io(-error, "listing the directory of the store");
}

static int verify_log(struct qr_verify *v)
{
    struct quire *db = v->db;
    struct qr_db_files *files = db->files;
    struct qr_log_list list = {0};
    struct quire_error_detail detail;
    struct log_verify l = {v, files->read_only ? db->checkpointer.record.durable_lsn : qr_log_durable_end(&db->log)};
    int result = qr_log_list_make(files->dir, qr_manifest_header(files->manifest)->store_id, &list);
    /* While others write, a segment that is being made has no header yet. */
    if (result == 0 && files->read_only) result = verify_log_headers(v, &list);
    uint64_t from = files->read_only ? 0 : db->checkpointer.record.replay_from;
    if (result == 0)
        result = qr_log_walk(files->dir, &list, files->incarnations, files->incarnation_count, from, visit_frame, &l);
    qr_log_list_done(&list);
    if (result != QUIRE_ERR_IO) return result;
    quire_error_detail(&detail);
    return qr_verify_tell(v, NULL, 0, NULL, 0, "the log cannot be read: %s", detail.message);
}

/* ---- All of it -------------------------------------------------------------------------------------------------- */

static int verify_files(struct qr_verify *v)
{
    struct qr_checkpointer *cp = &v->db->checkpointer;
    pthread_mutex_lock(&cp->mutex); /* VERIFY-1 */
    /* relaxed: nobody is to wait for what does not come */
    atomic_fetch_add_explicit(&cp->held, 1, memory_order_relaxed);
    int result = verify_manifest(v);
    if (result == 0) result = verify_store(v);
    if (result == 0) result = verify_log(v);
    /* relaxed: as above */
    atomic_fetch_sub_explicit(&cp->held, 1, memory_order_relaxed);
    pthread_mutex_unlock(&cp->mutex);
    return result;
}

static int verify_trees(struct qr_verify *v)
{
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(v->db, &count);
    int result = 0;
    for (uint32_t i = 0; i < count && result == 0; i++) {
        result = qr_verify_tree(v, handles[i]);
        if (result == 0 && i != 0 && v->db->files != NULL) result = qr_verify_blobs(v, handles[i]); /* 0: the catalogue */
    }
    return result;
}

int quire_verify(struct quire *db, quire_verify_callback *callback, void *context)
{
    struct qr_verify v = {.db = db, .callback = callback, .context = context};
    int result = qr_db_begin(db, &v.thread);
    if (result != 0) return result;
    if (qr_epoch_inside(v.thread)) return qr_db_fail(v.thread, QUIRE_ERR_BUSY, "the thread holds a guard");
    result = db->files == NULL ? 0 : verify_files(&v);
    if (result == 0) result = verify_trees(&v);
    qr_free(v.bad_pids);
    if (result < 0 && result != QUIRE_ERR_CORRUPT) {
        qr_db_count_failure(v.thread, result);
        return result;
    }
    if (v.defects == 0) return result;
    return qr_db_fail(v.thread, QUIRE_ERR_CORRUPT, "%llu defects were found", (unsigned long long)v.defects);
}
