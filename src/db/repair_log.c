/*
 * repair_log.c: the writes that are in the log and in no leaf (REPAIR-4).
 *
 * Layer 6. The log is read as an opening for reading reads it (log/replay.h), twice: for the trees that were created since the
 * checkpoint, before there are trees in the new store, and for all the rest. What does not verify ends it: what lies behind is
 * told to be lost.
 */
#include <stdio.h>

#include "base/bugs.h"
#include "db/repair.h"
#include "store/blob.h"

#define WINDOW_BYTES ((uint64_t)1 << 20)
#define ENOUGH (-10000) /* an answer of visitors that have seen what they wanted */

struct log_reader {
    struct qr_repair *r;
    struct qr_log_list list;
    qr_replay_visit *take;
    uint64_t *refused; /* undecided frames whose condition did not hold */
    uint32_t refused_count;
    uint64_t refused_room;
    int failure;       /* of the repair, not of the log */
    uint64_t last_lsn; /* of the frames that were taken */
};

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

static int replay(struct qr_repair *r, const struct qr_log_list *list, qr_replay_visit *visit, void *context)
{
    const struct qr_db_files *files = r->from->files;
    const struct qr_manifest_checkpoint *record = &r->from->checkpointer.record;
    struct qr_replay_result found;
    uint8_t *window = qr_map_buffer(WINDOW_BYTES);
    if (window == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to read the log");
    const struct qr_replay replay = {.dir = files->dir,
                                     .list = list,
                                     .from = record->replay_from,
                                     .incarnations = files->incarnations,
                                     .incarnation_count = files->incarnation_count,
                                     .durable_end = record->durable_lsn,
                                     .read_only = true,
                                     .window = window,
                                     .window_bytes = WINDOW_BYTES,
                                     .visit = visit,
                                     .context = context};
    int result = qr_log_replay(&replay, &found);
    qr_unmap_buffer(window, WINDOW_BYTES);
    return result;
}

/* A blob that did not become durable ends the log, as at an opening (D-23). One that cannot be read may be such: then what lies
 * behind is lost. 0, QR_REPLAY_END, a failure. */
static int look_at_blob(const struct qr_repair *r, const struct qr_replay_record *record)
{
    struct qr_blob_ref ref;
    if (record->frame.kind != QR_RECORD_BLOB || !record->suspect) return 0;
    if (record->frame.value_size != QR_BLOB_REF_BYTES || !qr_blob_ref_decode(record->frame.value, &ref)) return 0;
    int result = r->store == NULL ? QR_STORE_GONE : qr_blob_verify(r->store, &ref);
    return result == QUIRE_ERR_CORRUPT || result == QR_STORE_GONE ? QR_REPLAY_END : result;
}

static int visit(void *context, const struct qr_replay_record *record)
{
    struct log_reader *log = context;
    int result = look_at_blob(log->r, record);
    if (result != 0) {
        if (result < 0 && result != QUIRE_ERR_IO) log->failure = result;
        return result;
    }
    result = log->take(log, record);
    if (result < 0) log->failure = result;
    log->last_lsn = record->lsn;
    return result;
}

/* Reads all of it. 0: also if some of it was lost, which is told; at the second reading only if it is more. */
static int read_log(struct qr_repair *r, qr_replay_visit *take)
{
    struct log_reader log = {.r = r, .take = take};
    struct quire_error_detail detail;
    char text[400];
    const struct quire_slice none = {NULL, 0};
    const struct qr_db_files *files = r->from->files;
    if (r->manifest_lost) return 0; /* which of its frames count is not known */
    int result = qr_log_list_make(files->dir, qr_manifest_header(files->manifest)->store_id, &log.list);
    bool header_lost = result == 0 && log.list.damaged_end > r->from->checkpointer.record.replay_from;
    if (result == 0) result = replay(r, &log.list, visit, &log);
    qr_log_list_done(&log.list);
    qr_free(log.refused);
    if (log.failure != 0) return log.failure;
    if (result != 0 && result != QUIRE_ERR_CORRUPT && result != QUIRE_ERR_IO) return result;
    if (result == 0 && !header_lost) return 0;
    if (r->log_lost && r->log_lost_lsn <= log.last_lsn) return 0;
    r->log_lost = true;
    r->log_lost_lsn = log.last_lsn;
    quire_error_detail(&detail);
    snprintf(text, sizeof(text), "writes behind LSN %llu: %s", (unsigned long long)log.last_lsn,
             result == 0 ? "the header of a log segment is damaged" : detail.message);
    qr_repair_tell(r, QUIRE_LOSS_LOG, NULL, none, none, text);
    return 0;
}

/* ---- Trees ------------------------------------------------------------------------------------------------------ */

static int take_tree_record(void *context, const struct qr_replay_record *record)
{
    struct log_reader *log = context;
    const struct qr_frame *frame = &record->frame;
    if (frame->tree_id != 0 || frame->kind != QR_RECORD_PUT) return 0;
    const struct quire_slice key = {frame->key, frame->key_size}, value = {frame->value, frame->value_size};
    int result = 0;
    const struct qr_repair_tree *catalogue = qr_repair_tree_find(log->r, 0);
    if (catalogue != NULL && record->lsn <= qr_repair_known_lsn(qr_repair_piece_of(catalogue, key))) return 0;
    if (!qr_repair_take_tree(log->r, key, value, &result)) log->r->catalogue_lost = true;
    return result;
}

int qr_repair_log_trees(struct qr_repair *r)
{
    return read_log(r, take_tree_record);
}

/* ---- Undecided conditional writes ------------------------------------------------------------------------------- */

/* Looks for the newest record of a key below an LSN. */
struct newest {
    struct log_reader *log;
    const struct qr_replay_record *of;
    uint64_t known; /* frames up to it are in the leaf */
    uint64_t lsn;
    bool deletion;
};

static bool was_refused(const struct log_reader *log, uint64_t lsn)
{
    for (uint32_t i = 0; i < log->refused_count; i++)
        if (log->refused[i] == lsn) return true;
    return false;
}

static int look_for(void *context, const struct qr_replay_record *record)
{
    struct newest *n = context;
    const struct qr_frame *frame = &record->frame, *of = &n->of->frame;
    if (record->lsn >= n->of->lsn) return ENOUGH;
    if (record->lsn <= n->known || frame->tree_id != of->tree_id ||
        !qr_equal(frame->key, frame->key_size, of->key, of->key_size) || was_refused(n->log, record->lsn))
        return 0;
    n->lsn = record->lsn;
    n->deletion = frame->kind == QR_RECORD_DELETE;
    return 0;
}

static int look_in_leaf(struct newest *n, const struct qr_laid_piece *piece)
{
    struct qr_page *page;
    uint32_t first, end;
    struct quire_slice key = {n->of->frame.key, n->of->frame.key_size};
    if (n->known == 0) return 0;
    int result = qr_repair_read_leaf(n->log->r, piece->from, &page);
    if (result != 0) return result;
    struct qr_laid_piece from_key = *piece;
    from_key.low = key;
    qr_repair_records(page, &from_key, &first, &end);
    if (first < end) {
        struct quire_slice found = qr_leaf_key(page, first);
        if (qr_equal(found.data, found.size, key.data, key.size)) {
            n->lsn = qr_record_lsn(qr_leaf_record(page, first));
            n->deletion = qr_record_kind(qr_leaf_record(page, first)) == QR_RECORD_DELETE;
        }
    }
    qr_free_aligned(page);
    return 0;
}

/* Whether the record that it names is the newest of its key: else its CAS had lost (D-9). There are as many of these as threads
 * died, so the log is read again for each. A deletion may have been collected when it was written. */
static int condition_holds(struct log_reader *log, const struct qr_replay_record *record, const struct qr_laid_piece *piece,
                           bool *ret_holds)
{
    struct newest n = {.log = log, .of = record, .known = qr_repair_known_lsn(piece)};
    int result = look_in_leaf(&n, piece);
    if (result == 0) result = replay(log->r, &log->list, look_for, &n);
    *ret_holds = record->frame.named_version == n.lsn || (record->frame.named_version == 0 && n.deletion);
    return result == ENOUGH ? 0 : result;
}

static int refuse(struct log_reader *log, uint64_t lsn)
{
    uint64_t *larger = qr_grow(log->refused, log->refused_count, &log->refused_room, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for undecided writes");
    log->refused = larger;
    log->refused[log->refused_count++] = lsn;
    return QR_REPLAY_VOID;
}

/* ---- Writes ----------------------------------------------------------------------------------------------------- */

static bool is_possible(const struct qr_frame *frame, const struct qr_repair_tree *tree)
{
    bool kind = frame->kind == QR_RECORD_PUT || frame->kind == QR_RECORD_DELETE || frame->kind == QR_RECORD_BLOB;
    return kind && frame->key_size <= QR_MAX_KEY_SIZE && frame->value_size <= QR_MAX_VALUE_SIZE &&
           frame->has_version == tree->caller_versions;
}

static int take_write(void *context, const struct qr_replay_record *record)
{
    struct log_reader *log = context;
    struct qr_repair *r = log->r;
    const struct qr_frame *frame = &record->frame;
    const struct quire_slice key = {frame->key, frame->key_size}, value = {frame->value, frame->value_size};
    struct qr_repair_tree *tree = qr_repair_tree_find(r, frame->tree_id);
    if (frame->tree_id == 0 || tree == NULL || tree->to == NULL) return 0; /* R4 */
    const struct qr_laid_piece *piece = qr_repair_piece_of(tree, key);
    if (record->lsn <= qr_repair_known_lsn(piece)) return 0;
    if (QR_BUG(repair_log_skipped) && record->lsn < r->from->checkpointer.record.durable_lsn) return 0;
    if (!is_possible(frame, tree)) {
        qr_repair_tell(r, QUIRE_LOSS_VALUE, tree->name, key, key, "a record of the log that its tree cannot have");
        return 0;
    }
    if (record->tentative && frame->has_named) {
        bool holds;
        int result = condition_holds(log, record, piece, &holds);
        if (result != 0) return result;
        if (!holds && !QR_BUG(repair_condition_ignored)) return refuse(log, record->lsn);
    }
    if (r->lost_count != 0) qr_repair_hide(r, tree, key, frame->version);
    r->report.log_records++;
    return qr_repair_put(r, tree, frame->kind, frame->version, key, value);
}

int qr_repair_log(struct qr_repair *r)
{
    return read_log(r, take_write);
}
