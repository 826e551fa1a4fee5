/*
 * write.c: installing one record.
 *
 * Layer 4. A write goes down to its leaf, prepares a delta in the leaf's area (or, if chain or area are full, the
 * consolidated page that contains the record), and installs it with one CAS inside its slot window:
 *
 *     slot open | reserve LSN | write frame | CAS on the mapping word | decide the frame | slot close
 *
 * WRITE-1 All that can fail or take long is done before the slot opens (rule R11). After a lost CAS, inside the window,
 *         the prepared delta is only linked anew, if the same block still takes it and the LSN is above the new head's;
 *         everything else voids the frame, closes the slot and starts again.
 * WRITE-2 The record is installed on a page whose max_lsn is below its LSN (growing-LSN rule): if not, the frame is
 *         voided and a new LSN reserved.
 * WRITE-3 A conditional write is installed only on the head on which its condition was judged, or on one where the
 *         value of its key is still the one that it saw, or still none.
 * WRITE-4 The tree's safe version is looked at after each load of the word that is CASed.
 *
 * Linearization point: the successful CAS. ABA: MAP-1. Reclamation: an area is part of its block; a consolidation
 * retires the old block whole.
 */
#include "tree/internal.h"
#include "tree/policy.h"

/* The value of the key in a leaf when a condition was judged: none, or its LSN (LSNs are unique). */
#define NO_VERSION 0u

/* What is known while one write is under way. */
struct attempt {
    struct qr_op *op;
    struct qr_write *write;
    struct qr_spot spot;
    struct qr_leaf_view view;
    struct qr_record_spec spec;
    struct qr_frame frame;
    uint64_t frame_size;
    bool disappointed; /* a snapshot has begun while a page was built: next time keep what it may see */
    bool split;        /* the leaf was split for this write once */
};

static struct qr_record_spec make_spec(const struct qr_write *write)
{
    return (struct qr_record_spec){
        .key = write->key.data,
        .key_size = write->key.size,
        .value = write->value,
        .value_size = write->kind == QR_RECORD_DELETE ? 0 : write->value_size,
        .kind = write->kind,
        .version = write->version,
        .fingerprint = write->key.fingerprint,
    };
}

static bool safe_refuses(const struct attempt *a)
{
    if (!a->op->tree->settings.caller_versions) return false;
    uint64_t safe = qr_tree_safe_version(a->op->tree);
    return safe != 0 && a->write->version <= safe;
}

/* LSN of a key's newest record, if that is a value. A deletion counts as none: whether it is still there depends on when the page was
 * consolidated last, and recovery has to come to the same as the thread that died. */
static uint64_t value_lsn(const uint8_t *record)
{
    return record == NULL || !qr_kind_is_value(qr_record_kind(record)) ? NO_VERSION : qr_record_lsn(record);
}

static uint64_t newest_lsn(const struct attempt *a)
{
    return value_lsn(qr_leaf_find(&a->view, &a->write->key, UINT64_MAX));
}

/* Asks the condition, if there is one. */
static int judge(struct attempt *a)
{
    struct qr_write *write = a->write;
    if (write->condition == NULL) return 0;
    const uint8_t *record = qr_leaf_find(&a->view, &write->key, UINT64_MAX);
    a->frame.named_version = value_lsn(record);
    if (a->frame.named_version == NO_VERSION) return write->condition(write, NULL);
    const bool caller = qr_page_caller(a->view.page);
    struct quire_value present = {
        .data = qr_record_value(record, caller, a->view.page->align_log2),
        .size = qr_record_value_size(record),
        .lsn = qr_record_lsn(record),
        .version = qr_record_version(record, caller),
    };
    if (QR_UNLIKELY(qr_record_kind(record) == QR_RECORD_BLOB)) {
        if (!qr_blob_ref_decode(present.data, &write->present)) return QUIRE_ERR_CORRUPT;
        write->present_lsn = present.lsn;
        present.data = NULL;
        present.size = write->present.size;
    }
    return write->condition(write, &present);
}

/* ---- The slot window -------------------------------------------------------------------------------------------- */

/* Reserves an LSN above max_lsn, with the slot open; QR_LOG_NO_ROOM. */
static uint64_t reserve_above(struct attempt *a, uint64_t max_lsn)
{
    struct qr_log *log = a->op->tree->env->log;
    struct qr_thread *thread = a->op->thread;
    uint64_t lsn = qr_log_reserve(log, thread, a->frame_size);
    while (QR_UNLIKELY(lsn <= max_lsn) && lsn != QR_LOG_NO_ROOM && !QR_BUG(skip_growing_lsn)) {
        qr_log_skip(log, thread, lsn, a->frame_size);
        lsn = qr_log_has_room(log) ? qr_log_reserve(log, thread, a->frame_size) : QR_LOG_NO_ROOM;
    }
    return lsn;
}

/* Opens the window and reserves an LSN above max_lsn, or says QR_LOG_NO_ROOM and the window is closed. A replayed write has
 * its LSN, and no window: nobody looks at slots during recovery. */
static uint64_t open_window(struct attempt *a, uint64_t max_lsn)
{
    if (QR_UNLIKELY(a->write->replay_lsn != 0)) return a->write->replay_lsn;
    if (QR_UNLIKELY(!qr_log_slot_open(a->op->tree->env->log, a->op->thread))) return QR_LOG_NO_ROOM;
    QR_STOP("write.slot_open");
    uint64_t lsn = reserve_above(a, max_lsn);
    if (QR_UNLIKELY(lsn == QR_LOG_NO_ROOM)) qr_log_slot_close(a->op->thread);
    return lsn;
}

static void write_frame(struct attempt *a, uint64_t lsn)
{
    if (QR_UNLIKELY(a->write->replay_lsn != 0)) return;
    qr_log_write(a->op->tree->env->log, a->op->thread, &a->frame, a->frame_size, lsn);
}

static void close_window(struct attempt *a, uint64_t lsn, enum qr_frame_state state)
{
    if (QR_UNLIKELY(a->write->replay_lsn != 0)) return;
    qr_log_decide(a->op->tree->env->log, a->op->thread, lsn, state);
    QR_STOP("write.decided");
    qr_log_slot_close(a->op->thread);
}

/* After a lost CAS: whether the delta may go on top of the present head after all. */
static bool still_takes(struct attempt *a, uint64_t lsn)
{
    const struct qr_page *page = a->view.page;
    if (qr_word_tag(a->spot.word) != QR_WORD_HEAD || qr_word_block(a->spot.word) != page) return false;
    uint64_t named = a->frame.named_version;
    a->view = qr_view_of(a->spot.word);
    if (a->view.chain >= a->op->tree->settings.chain_limit) return false;
    if (lsn <= qr_view_max_lsn(&a->view) && !QR_BUG(skip_growing_lsn)) return false;
    if (a->write->condition != NULL && newest_lsn(a) != named && !QR_BUG(stale_condition)) return false;
    return !safe_refuses(a);
}

/* Installs the delta that was prepared at `offset`. */
static int install_delta(struct attempt *a, uint32_t offset, uint8_t *record)
{
    struct qr_op *op = a->op;
    uint64_t lsn = open_window(a, qr_view_max_lsn(&a->view));
    if (QR_UNLIKELY(lsn == QR_LOG_NO_ROOM)) return QR_NO_ROOM;
    qr_record_set_lsn(record, lsn);
    write_frame(a, lsn);
    QR_STOP("write.reserved");
    for (;;) {
        qr_delta_link(&a->view, offset, a->write->key.fingerprint);
        qr_word word = qr_word_make(QR_WORD_HEAD, a->view.page, a->view.chain + 1, offset / QR_DELTA_UNIT);
        if (qr_map_cas(qr_op_map(op), a->spot.pid, &a->spot.word, word)) break;
        qr_count(op, QR_COUNTER_INSTALL_CONFLICTS);
        if (QR_BUG(lost_cas_ignored)) break;
        if (!still_takes(a, lsn)) {
            close_window(a, lsn, QR_FRAME_VOID);
            return QR_RETRY;
        }
    }
    close_window(a, lsn, QR_FRAME_DONE);
    a->write->ret_lsn = lsn;
    qr_count(op, QR_COUNTER_INSTALLS);
    return 0;
}

/* The page holds the record now, which is in no image: recovery needs its frame, and the PARTs that it names (R6). */
static void note_first_lsn(const struct attempt *a, struct qr_page *page, uint64_t lsn)
{
    uint64_t first = a->write->first_part != 0 && !QR_BUG(checkpoint_parts) ? a->write->first_part : lsn;
    if (page->first_lsn == 0 || first < page->first_lsn) page->first_lsn = first;
}

/* Installs a consolidated page that contains the record. */
static int install_leaf(struct attempt *a, const struct qr_fresh_leaf *fresh, const struct qr_bounds *bounds)
{
    struct qr_op *op = a->op;
    struct qr_page *page = fresh->page;
    const bool caller = op->tree->settings.caller_versions;

    uint64_t lsn = open_window(a, qr_view_max_lsn(&a->view));
    if (QR_UNLIKELY(lsn == QR_LOG_NO_ROOM)) {
        qr_discard_page(op, page);
        return QR_NO_ROOM;
    }
    if (fresh->pending != NULL) qr_record_set_lsn(fresh->pending, lsn);
    page->max_lsn = lsn;
    note_first_lsn(a, page, lsn);
    if (!caller) page->max_version = lsn;
    write_frame(a, lsn);
    QR_STOP("write.leaf_reserved");
    a->disappointed = !qr_bounds_hold(op->tree, bounds);
    if (a->disappointed ||
        !qr_map_cas(qr_op_map(op), a->spot.pid, &a->spot.word, qr_word_make(QR_WORD_HEAD, page, 0, 0))) {
        close_window(a, lsn, QR_FRAME_VOID);
        qr_count(op, QR_COUNTER_CONSOLIDATION_CONFLICTS);
        qr_discard_page(op, page);
        return QR_RETRY;
    }
    close_window(a, lsn, QR_FRAME_DONE);
    a->write->ret_lsn = lsn;
    qr_count(op, QR_COUNTER_INSTALLS);
    qr_count(op, QR_COUNTER_CONSOLIDATIONS);
    qr_counter_add(&op->thread->counters[QR_COUNTER_VERSIONS_COLLECTED], fresh->dropped);
    qr_retire_page(op, a->view.page);
    return 0;
}

/* ---- Preparing -------------------------------------------------------------------------------------------------- */

/* Takes a part of the page's area; 0 if there is no room. */
static uint32_t reserve_area(const struct qr_page *page, uint64_t size)
{
    _Atomic uint32_t *used = (_Atomic uint32_t *)(uintptr_t)&page->area_used;
    uint64_t room = page->block_size - page->area_offset;
    /* relaxed: parts only have to be disjoint; what is written there is published by map.install */
    if (atomic_load_explicit(used, memory_order_relaxed) + size > room) return 0;
    /* relaxed: as above */
    uint64_t at = atomic_fetch_add_explicit(used, QR_BUG(area_overlap) ? 0 : (uint32_t)size, memory_order_relaxed);
    if (at + size > room) return 0;
    return page->area_offset + (uint32_t)at;
}

/* The record's place among the leaf's records, for the choice of where to split. */
static bool is_last(const struct qr_page *page, const struct qr_key *key)
{
    if (page->count == 0 || (page->flags & QR_PAGE_HIGH_INFINITE) == 0) return false;
    struct quire_slice last = qr_leaf_key(page, page->count - 1);
    return qr_compare(last.data, last.size, key->data, key->size) <= 0;
}

/* The leaf would become large: it is split as it is, without the record, which then finds room in one of the halves. So
 * the large page need not be built. Once for a write: if it does not help, the page becomes large and is split after. The
 * reserve is not for the splits of puts, which bring no memory back: deletions would find it used up. */
static int split_first(struct attempt *a)
{
    struct qr_op *op = a->op;
    a->split = true;
    int result = qr_split_leaf(op, &a->spot, is_last(a->view.page, &a->write->key));
    return result == QR_FETCH ? QR_FETCH : QR_RETRY;
}

/*
 * A deletion for whose page there is no block, in the reserve either: free memory may lie in smaller pieces. The leaf is
 * split as it is, and the deletion then needs one of the halves only. An ordinary split, so there is no window that others
 * do not have. Each one makes the leaf smaller, and one of a single key cannot be split: so this ends. What does not find
 * room after that is a leaf whose other records are of one key, or so large that two halves of it do not fit either.
 */
static int split_for_room(struct attempt *a)
{
    int result = qr_split_leaf(a->op, &a->spot, false);
    if (result == QUIRE_NOT_FOUND) return QUIRE_ERR_NO_MEMORY;
    return result == 0 ? QR_RETRY : result;
}

static int write_consolidated(struct attempt *a)
{
    struct qr_op *op = a->op;
    struct qr_bounds bounds;
    struct qr_fresh_leaf fresh;

    qr_bounds_load(op->tree, !a->disappointed, &bounds);
    int result = qr_consolidate_build(op, a->spot.pid, &a->view, &a->spec, &bounds, a->split, &fresh);
    if (result == QR_LARGE) return split_first(a);
    if (result == QUIRE_ERR_NO_MEMORY && op->use_reserve) return split_for_room(a);
    if (result != 0) return result;
    bool large = qr_policy_large(op->tree, fresh.page);
    bool small = fresh.dropped != 0 && qr_policy_small(op->tree, fresh.page);
    bool near_end = large && is_last(fresh.page, &a->write->key);
    result = install_leaf(a, &fresh, &bounds);
    if (result != 0) return result;
    if (a->spot.parent_pid != QR_PID_NONE && !a->spot.by_sibling)
        qr_child_moved(op, qr_word_block(a->spot.parent_word), a->spot.parent_index, fresh.page);

    /* The write is done; what follows may fail and be made up for later. */
    if (large) {
        qr_split_if_large(op, a->spot.pid, near_end);
    } else if (small && a->write->replay_lsn == 0) { /* R4: a merged page would have frames of one half yet to come */
        op->use_reserve = true;
        a->spot.page = fresh.page;
        qr_merge_if_small(op, &a->spot);
    }
    return 0;
}

/* A leaf on disk: a stub that holds the record alone, installed from that very disk word. Its bounds are those of its
 * entry in the parent, its LSN is above the floor (section 4 of the design). */
static int write_blind(struct attempt *a)
{
    struct qr_op *op = a->op;
    struct qr_page_identity identity = qr_blind_identity(op, &a->spot);
    struct qr_leaf_properties properties = {.flags = QR_PAGE_STUB, .image_address = qr_word_value(a->spot.word)};
    struct qr_plan plan;
    struct qr_fresh_leaf fresh;

    if (QR_UNLIKELY(a->write->replay_lsn != 0)) {
        uint64_t max_lsn;
        int failed = op->tree->env->ops->image_max_lsn(op->tree->env->context, a->spot.pid, &max_lsn);
        if (failed != 0) return failed;
        if (a->write->replay_lsn <= max_lsn) return 0; /* R4: no look at the leaf */
    }
    properties.safe_version = qr_tree_safe_version(op->tree);
    if (a->write->replay_lsn == 0 && op->tree->settings.caller_versions && properties.safe_version != 0 &&
        a->write->version <= properties.safe_version)
        return QUIRE_ERR_LSN_TOO_OLD;
    qr_plan_init(&plan, op->tree->settings.caller_versions, op->tree->settings.align_log2);
    int result = qr_plan_add_record(&plan, &a->spec) ? 0 : QUIRE_ERR_NO_MEMORY;
    if (result == 0) result = qr_leaf_from_plan(op, &plan, 0, 1, &identity, &properties, QR_AREA_FULL, &fresh);
    qr_plan_done(&plan);
    if (result != 0) return result;

    uint64_t lsn = open_window(a, QR_BUG(skip_floor) ? 0 : qr_map_floor(qr_op_map(op), a->spot.pid));
    if (QR_UNLIKELY(lsn == QR_LOG_NO_ROOM)) {
        qr_discard_page(op, fresh.page);
        return QR_NO_ROOM;
    }
    qr_record_set_lsn(fresh.pending, lsn);
    fresh.page->max_lsn = lsn;
    note_first_lsn(a, fresh.page, lsn);
    if (!op->tree->settings.caller_versions) fresh.page->max_version = lsn;
    write_frame(a, lsn);
    QR_STOP("write.blind_reserved");
    if (!qr_map_cas(qr_op_map(op), a->spot.pid, &a->spot.word, qr_word_make(QR_WORD_HEAD, fresh.page, 0, 0))) {
        close_window(a, lsn, QR_FRAME_VOID);
        qr_count(op, QR_COUNTER_INSTALL_CONFLICTS);
        qr_discard_page(op, fresh.page);
        return QR_RETRY;
    }
    close_window(a, lsn, QR_FRAME_DONE);
    a->write->ret_lsn = lsn;
    qr_count(op, QR_COUNTER_INSTALLS);
    return 0;
}

/* What the record and its frame will say; again after each judgement, which may change the value. */
static void describe(struct attempt *a)
{
    a->spec = make_spec(a->write);
    a->frame.kind = a->write->kind;
    a->frame.value = a->spec.value;
    a->frame.value_size = a->spec.value_size;
    a->frame_size = qr_frame_size(&a->frame);
}

/* Whether the write depends on what the key has: then its leaf has to be there, whole if a stub does not know the key. */
static bool is_conditional(const struct qr_write *write)
{
    return write->condition != NULL || write->replay_conditional;
}

/* A stub that must be made whole before this write: it does not know the key's newest version, or has grown large. */
static bool must_join(const struct attempt *a)
{
    const struct qr_page *page = a->view.page;
    if ((page->flags & QR_PAGE_STUB) == 0) return false;
    if (page->content_bytes > qr_tree_leaf_page_size(&a->op->tree->settings) / 2) return true;
    return is_conditional(a->write) && qr_leaf_find(&a->view, &a->write->key, UINT64_MAX) == NULL;
}

static int write_once(struct attempt *a)
{
    struct qr_op *op = a->op;
    int result = is_conditional(a->write) ? qr_descend(op, &a->write->key, 0, false, &a->spot)
                                          : qr_descend_blind(op, &a->write->key, &a->spot);
    if (result != 0) return result;
    describe(a);
    if (QR_UNLIKELY(a->spot.page == NULL)) return write_blind(a);
    a->view = qr_view_of(a->spot.word);
    if (QR_UNLIKELY(must_join(a))) {
        result = qr_join(op, &a->spot);
        return result == 0 ? QR_RETRY : result;
    }
    if (QR_UNLIKELY(a->write->replay_lsn != 0)) {
        if (a->write->replay_lsn <= qr_view_max_lsn(&a->view)) return 0; /* R4 */
        if (a->write->replay_conditional && newest_lsn(a) != a->write->replay_named) return QUIRE_CONFLICT;
    } else if (safe_refuses(a)) {
        return QUIRE_ERR_LSN_TOO_OLD;
    }
    if (a->write->condition != NULL) {
        result = judge(a);
        if (result != 0) return result;
        describe(a);
    }

    const struct qr_page *page = a->view.page;
    if (a->view.chain < op->tree->settings.chain_limit && a->write->first_part == 0) {
        uint64_t size = qr_delta_size(
            qr_record_size_for(a->spec.key_size, a->spec.value_size, qr_page_caller(page), page->align_log2),
            page->align_log2);
        uint32_t offset = reserve_area(page, size);
        if (offset != 0) {
            uint8_t *record = qr_delta_write(page, offset, &a->spec);
            QR_STOP("write.prepared");
            return install_delta(a, offset, record);
        }
    }
    return write_consolidated(a);
}

int qr_tree_write(struct qr_op *op, struct qr_write *write)
{
    struct attempt a; /* the rest is set on the way */
    a.op = op;
    a.write = write;
    a.disappointed = false;
    a.split = false;
    a.frame.tree_id = op->tree->id;
    a.frame.key = write->key.data;
    a.frame.key_size = write->key.size;
    a.frame.has_version = op->tree->settings.caller_versions;
    a.frame.version = write->version;
    a.frame.has_named = write->condition != NULL;
    a.frame.named_version = NO_VERSION;
    a.frame.last_part = write->last_part;
    a.frame.part_count = write->part_count;
    const uint8_t align_log2 = op->tree->settings.align_log2;
    uint64_t delta_bytes = qr_delta_size(
        qr_record_size_for(write->key.size, write->value_size, op->tree->settings.caller_versions, align_log2), align_log2);
    op->delta_bytes = delta_bytes <= 512 ? (uint32_t)delta_bytes : 0; /* of a larger one the lines come in a stream */
    int result;
    do {
        result = write_once(&a);
    } while (result == QR_RETRY);
    return result;
}
