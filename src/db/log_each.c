/*
 * log_each.c: the public look at the log of a store that nobody has open for writing.
 *
 * Layer 6.
 */
#include "db/db.h"
#include "db/inspect.h"
#include "page/blob.h"

struct reader {
    quire_log_callback *callback;
    void *context;
    uint64_t replay_from;
};

static uint32_t state_of(enum qr_frame_state state)
{
    if (state == QR_FRAME_VOID) return QUIRE_FRAME_VOID;
    return state == QR_FRAME_DONE ? QUIRE_FRAME_DONE : QUIRE_FRAME_UNDECIDED;
}

/* False: the frame does not say what a frame of its kind says. */
static bool describe_record(const struct qr_log_sight *sight, struct quire_log_frame *to)
{
    struct qr_frame frame;
    struct qr_blob_ref ref = {0};
    if (!qr_frame_parse(sight->at, (uint32_t)sight->size, &frame) ||
        (frame.kind != QR_RECORD_PUT && frame.kind != QR_RECORD_DELETE && frame.kind != QR_RECORD_BLOB))
        return false;
    to->large = frame.kind == QR_RECORD_BLOB;
    if (to->large && (frame.value_size != QR_BLOB_REF_BYTES || !qr_blob_ref_decode(frame.value, &ref))) return false;
    to->kind = frame.kind == QR_RECORD_DELETE ? QUIRE_FRAME_DELETE : QUIRE_FRAME_PUT;
    to->tree_id = frame.tree_id;
    to->has_version = frame.has_version;
    to->version = frame.version;
    to->conditional = frame.has_named;
    to->replaces = frame.named_version;
    to->key_size = frame.key_size;
    to->value_size = to->large ? ref.size : frame.value_size;
    to->key = frame.key;
    to->value = to->large ? NULL : frame.value;
    to->last_part = frame.last_part;
    to->part_count = frame.part_count;
    return true;
}

static bool describe_part(const struct qr_log_sight *sight, struct quire_log_frame *to)
{
    const uint8_t *data;
    uint32_t size;
    if (!qr_frame_parse_part(sight->at, (uint32_t)sight->size, &to->last_part, &data, &size)) return false;
    to->kind = QUIRE_FRAME_PART;
    to->value = data;
    to->value_size = size;
    return true;
}

static int visit(void *context, const struct qr_log_sight *sight)
{
    const struct reader *r = context;
    char name[QR_LOG_NAME_BYTES];
    qr_log_file_name(sight->found->number, name);
    struct quire_log_frame frame = {.struct_size = sizeof(frame),
                                    .lsn = sight->lsn,
                                    .file = name,
                                    .offset = sight->lsn - sight->found->header.start,
                                    .size_bytes = sight->size,
                                    .incarnation = sight->found->header.incarnation,
                                    .needed = sight->lsn >= r->replay_from};
    bool right = sight->verdict != QR_FRAME_DAMAGE;
    if (sight->verdict == QR_FRAME_HOLE) frame.kind = QUIRE_FRAME_HOLE;
    if (sight->verdict == QR_FRAME_GOOD) {
        frame.state = state_of(qr_frame_state_at(sight->at));
        frame.kind = QUIRE_FRAME_FILLER;
        if (qr_frame_kind_at(sight->at) == QR_FRAME_RECORD) right = describe_record(sight, &frame);
        if (qr_frame_kind_at(sight->at) == QR_FRAME_PART) right = describe_part(sight, &frame);
    }
    if (!right) frame.kind = QUIRE_FRAME_DAMAGED;
    return r->callback(r->context, &frame);
}

int quire_log_each(const char *path, quire_log_callback *callback, void *context)
{
    struct qr_log_list list = {0};
    if (path == NULL || callback == NULL) return qr_fail(QUIRE_ERR_INVALID, 0, "path or callback is NULL");
    struct quire *db = NULL;
    int result = qr_db_inspect_open(path, NULL, &db);
    if (result == 0) result = qr_log_list_make(db->files->dir, qr_manifest_header(db->files->manifest)->store_id, &list);
    if (result == 0) {
        struct qr_db_files *files = db->files;
        struct reader reader = {callback, context, db->checkpointer.record.replay_from};
        result = qr_log_walk(files->dir, &list, files->incarnations, files->incarnation_count, 0, visit, &reader);
    }
    qr_log_list_done(&list);
    qr_db_inspect_close(db);
    return result;
}
