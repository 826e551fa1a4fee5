/*
 * plan.c: making a plan: the merge of chain, pending record and base, with retention.
 *
 * Layer 2. Read plan.h first. The sorted newer records (at most QR_CHAIN_MAX deltas and the pending one) are merged
 * with the base: for each key among them the base's versions of that key are woven in; between them whole runs of the
 * base are taken as they are, if the base holds no key twice and no deletions, else record by record.
 */
#include "page/plan.h"

#include "base/alloc.h"
#include "base/stop.h"
#include "page/blob.h"
#include "page/search.h"

/* A record that is newer than the base: a delta's or the pending one. */
struct newer {
    struct quire_slice key;
    uint64_t lsn; /* of the pending one: above all others */
    uint64_t version;
    const uint8_t *record;
    const struct qr_record_spec *spec;
    uint8_t kind;
    uint8_t fingerprint;
};

/* The state of one merge. */
struct weave {
    struct qr_plan *plan;
    const struct qr_retention *retention;
    const struct qr_page *base;
    bool full; /* nothing older lies below the base */
    /* The key in hand: */
    uint32_t kept;      /* versions of it that were kept */
    bool has_newer;     /* a version was seen, with this number */
    uint64_t newer_version;
};

void qr_plan_init(struct qr_plan *plan, bool caller, uint8_t align_log2)
{
    plan->pieces = plan->inline_pieces;
    plan->piece_count = 0;
    plan->piece_capacity = QR_PLAN_INLINE;
    plan->caller = caller;
    plan->align_log2 = align_log2;
    plan->multi = false;
    plan->collected = false;
    plan->dropped = 0;
    plan->blobs = false;
    plan->dead = NULL;
    plan->dead_count = plan->dead_capacity = 0;
    plan->count = 0;
    plan->bytes = 0;
    plan->max_version = 0;
}

void qr_plan_done(struct qr_plan *plan)
{
    if (plan->pieces != plan->inline_pieces) qr_free(plan->pieces);
    plan->pieces = plan->inline_pieces;
    qr_free(plan->dead);
    plan->dead = NULL;
    plan->dead_count = plan->dead_capacity = 0;
}

/* Notes a blob that nobody needs any more. False: there is no memory for that, and its record had better stay. */
static bool note_dead(struct qr_plan *plan, const uint8_t *reference)
{
    uint8_t *larger = qr_grow(plan->dead, plan->dead_count, &plan->dead_capacity, QR_BLOB_REF_BYTES);
    if (larger == NULL) return false;
    plan->dead = larger;
    memcpy(plan->dead + (size_t)plan->dead_count++ * QR_BLOB_REF_BYTES, reference, QR_BLOB_REF_BYTES);
    return true;
}

/* Room for one more piece. */
static bool grow(struct qr_plan *plan)
{
    if (QR_LIKELY(plan->piece_count < plan->piece_capacity)) return true;
    uint32_t capacity = plan->piece_capacity * 2;
    struct qr_piece *pieces = qr_malloc(capacity * sizeof(*pieces));
    if (pieces == NULL) return false;
    memcpy(pieces, plan->pieces, plan->piece_count * sizeof(*pieces));
    if (plan->pieces != plan->inline_pieces) qr_free(plan->pieces);
    plan->pieces = pieces;
    plan->piece_capacity = capacity;
    return true;
}

static bool add_run(struct qr_plan *plan, const struct qr_page *page, uint32_t from, uint32_t to)
{
    if (from == to) return true;
    uint64_t bytes = qr_leaf_record_offset(page, to) - qr_leaf_record_offset(page, from);
    struct qr_piece *last = plan->piece_count == 0 ? NULL : &plan->pieces[plan->piece_count - 1];
    plan->count += to - from;
    plan->bytes += bytes;
    if (QR_UNLIKELY((page->flags & QR_PAGE_BLOBS) != 0)) plan->blobs = true;
    if (last != NULL && last->page == page && last->to == from) {
        last->to = to;
        last->bytes += bytes;
        return true;
    }
    if (!grow(plan)) return false;
    plan->pieces[plan->piece_count++] = (struct qr_piece){.page = page, .from = from, .to = to, .bytes = bytes};
    return true;
}

static bool add_newer(struct qr_plan *plan, const struct newer *newer)
{
    if (!grow(plan)) return false;
    uint64_t bytes = newer->spec != NULL
                         ? qr_record_size_for(newer->spec->key_size, newer->spec->value_size, plan->caller,
                                              plan->align_log2)
                         : qr_record_size(newer->record, plan->caller, plan->align_log2);
    plan->pieces[plan->piece_count++] = (struct qr_piece){
        .record = newer->record, .spec = newer->spec, .bytes = bytes, .fingerprint = newer->fingerprint};
    plan->count++;
    plan->bytes += bytes;
    if (QR_UNLIKELY(newer->kind == QR_RECORD_BLOB)) plan->blobs = true;
    return true;
}

/* ---- Retention -------------------------------------------------------------------------------------------------- */

/* Whether some reader at a bound in [version, newer_version) needs this version. */
static bool bound_between(const struct qr_retention *retention, uint64_t version, bool has_newer, uint64_t newer_version)
{
    for (uint32_t i = 0; i < retention->count; i++) {
        uint64_t bound = retention->bounds[i];
        if (bound < version) return false; /* descending: no later one can do */
        if (!has_newer || bound < newer_version) return true;
    }
    return false;
}

/* PLAN-1 to PLAN-3 for the next older version of the key in hand. value: of a blob, its reference. */
static bool keep(struct weave *w, uint64_t lsn, uint64_t version, unsigned kind, const uint8_t *value)
{
    if (QR_UNLIKELY(w->retention->as_of_lsn != 0) && lsn > w->retention->as_of_lsn) return false;
    bool has_newer = w->has_newer;
    uint64_t newer_version = w->newer_version;
    w->has_newer = true;
    w->newer_version = version;

    bool kept = true;
    if (has_newer && newer_version == version && w->plan->caller) {
        kept = w->retention->keep_equal;
    } else if (w->retention->count != 0 && version <= w->retention->bounds[0] && version >= w->retention->keep_below) {
        uint64_t lowest = w->retention->bounds[w->retention->count - 1];
        kept = bound_between(w->retention, version, has_newer, newer_version);
        if (kept && kind == QR_RECORD_DELETE && version <= lowest && (w->full || QR_BUG(drop_tombstone_over_base)))
            kept = false;
    }
    if (!kept && QR_UNLIKELY(kind == QR_RECORD_BLOB) && !note_dead(w->plan, value)) kept = true;
    if (!kept) {
        w->plan->collected = true;
        w->plan->dropped++;
        return false;
    }
    if (w->kept != 0 || !qr_kind_is_value(kind)) w->plan->multi = true;
    w->kept++;
    return true;
}

static bool keep_record(struct weave *w, const uint8_t *record)
{
    const bool caller = w->plan->caller;
    return keep(w, qr_record_lsn(record), qr_record_version(record, caller), qr_record_kind(record),
                qr_record_value(record, caller, w->plan->align_log2));
}

static void begin_key(struct weave *w)
{
    w->kept = 0;
    w->has_newer = false;
    w->newer_version = 0;
}

/* ---- The newer records, in order -------------------------------------------------------------------------------- */

/* Key ascending, version descending; the list is short and nearly random: insertion sort. Records come newest first, so
 * that of equal versions the newer stays in front. */
static void insert_sorted(struct newer *list, uint32_t count, const struct newer *item)
{
    uint32_t i = count;
    while (i > 0) {
        const struct newer *other = &list[i - 1];
        int order = qr_compare(other->key.data, other->key.size, item->key.data, item->key.size);
        if (order < 0 || (order == 0 && other->version >= item->version)) break;
        list[i] = list[i - 1];
        i--;
    }
    list[i] = *item;
}

static uint32_t gather_newer(const struct qr_leaf_view *view, const struct qr_record_spec *pending, bool caller,
                             struct newer *list)
{
    uint32_t count = 0;
    if (pending != NULL) {
        list[count++] = (struct newer){.key = {pending->key, pending->key_size},
                                       .lsn = UINT64_MAX,
                                       .version = caller ? pending->version : UINT64_MAX,
                                       .spec = pending,
                                       .kind = (uint8_t)pending->kind,
                                       .fingerprint = pending->fingerprint};
    }
    if (view->chain == 0) return count;
    const struct qr_delta *head = qr_view_head(view);
    for (uint32_t i = view->chain; i-- > 0;) {
        const uint8_t *record = qr_delta_record(view->page, head->offsets[i]);
        struct newer item = {.key = {qr_record_key(record, caller), qr_record_key_size(record)},
                             .lsn = qr_record_lsn(record),
                             .version = qr_record_version(record, caller),
                             .record = record,
                             .kind = (uint8_t)qr_record_kind(record),
                             .fingerprint = head->fingerprints[i]};
        insert_sorted(list, count++, &item);
    }
    return count;
}

/* ---- Weaving ---------------------------------------------------------------------------------------------------- */

/* Takes base records [from, to) that no newer record touches. */
static bool take_base(struct weave *w, uint32_t from, uint32_t to)
{
    const struct qr_page *base = w->base;
    if ((base->flags & QR_PAGE_MULTI) == 0 && w->retention->as_of_lsn == 0) return add_run(w->plan, base, from, to);
    for (uint32_t i = from; i < to; i++) {
        struct quire_slice key = qr_leaf_key(base, i);
        if (i == from) {
            begin_key(w);
        } else {
            struct quire_slice before = qr_leaf_key(base, i - 1);
            if (!qr_equal(key.data, key.size, before.data, before.size)) begin_key(w);
        }
        const uint8_t *record = qr_leaf_record(base, i);
        if (keep_record(w, record) && !add_run(w->plan, base, i, i + 1)) return false;
    }
    return true;
}

/* End of the base's versions of the key that begins at `from`. */
static uint32_t base_key_end(const struct qr_page *base, uint32_t from, struct quire_slice key)
{
    uint32_t to = from;
    while (to < base->count) {
        struct quire_slice other = qr_leaf_key(base, to);
        if (!qr_equal(other.data, other.size, key.data, key.size)) break;
        to++;
    }
    return to;
}

/* Likewise of the newer records' versions. */
static uint32_t newer_key_end(const struct newer *list, uint32_t count, uint32_t from)
{
    uint32_t to = from + 1;
    while (to < count && qr_equal(list[to].key.data, list[to].key.size, list[from].key.data, list[from].key.size)) to++;
    return to;
}

/* Weaves the newer records list[0..count), all of one key, with the base's versions [from, to) of it. */
static bool weave_key(struct weave *w, const struct newer *list, uint32_t count, uint32_t from, uint32_t to)
{
    bool caller = w->plan->caller;
    uint32_t i = 0;
    begin_key(w);
    while (i < count || from < to) {
        const uint8_t *record = from < to ? qr_leaf_record(w->base, from) : NULL;
        if (i < count && (record == NULL || list[i].version >= qr_record_version(record, caller))) {
            const uint8_t *value = list[i].spec != NULL
                                       ? list[i].spec->value
                                       : qr_record_value(list[i].record, caller, w->plan->align_log2);
            if (keep(w, list[i].lsn, list[i].version, list[i].kind, value) && !add_newer(w->plan, &list[i])) return false;
            i++;
        } else {
            if (keep_record(w, record) && !add_run(w->plan, w->base, from, from + 1)) return false;
            from++;
        }
    }
    return true;
}

/* Merges a sorted list of newer records with a base. */
static bool weave_all(struct weave *w, const struct newer *list, uint32_t count)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < count;) {
        uint32_t end = newer_key_end(list, count, i);
        struct qr_key key = qr_key_ordered(list[i].key.data, list[i].key.size);
        uint32_t from = qr_leaf_lower_bound(w->base, &key);
        uint32_t to = base_key_end(w->base, from, list[i].key);
        if (!take_base(w, at, from) || !weave_key(w, list + i, end - i, from, to)) return false;
        at = to;
        i = end;
    }
    return take_base(w, at, w->base->count);
}

/* Takes a sorted list of newer records without a base. */
static bool weave_chain(struct weave *w, const struct newer *list, uint32_t count)
{
    for (uint32_t i = 0; i < count;) {
        uint32_t end = newer_key_end(list, count, i);
        if (!weave_key(w, list + i, end - i, 0, 0)) return false;
        i = end;
    }
    return true;
}

bool qr_plan_add_leaf(struct qr_plan *plan, const struct qr_leaf_view *view, const struct qr_record_spec *pending,
                      const struct qr_retention *retention)
{
    struct newer list[QR_CHAIN_MAX + 1];
    uint32_t count = gather_newer(view, pending, plan->caller, list);
    struct weave w = {.plan = plan,
                      .retention = retention,
                      .base = view->page,
                      .full = (view->page->flags & QR_PAGE_STUB) == 0};
    plan->max_version = qr_max(plan->max_version, qr_view_max_version(view));
    if (pending != NULL && plan->caller) plan->max_version = qr_max(plan->max_version, pending->version);
    return weave_all(&w, list, count);
}

bool qr_plan_add_chain(struct qr_plan *plan, const struct qr_leaf_view *view, const struct qr_retention *retention)
{
    struct newer list[QR_CHAIN_MAX + 1];
    uint32_t count = gather_newer(view, NULL, plan->caller, list);
    struct weave w = {.plan = plan, .retention = retention, .base = view->page, .full = false};
    plan->max_version = qr_max(plan->max_version, qr_view_max_version(view));
    return weave_chain(&w, list, count);
}

bool qr_plan_add_record(struct qr_plan *plan, const struct qr_record_spec *record)
{
    struct newer item = {.spec = record, .kind = (uint8_t)record->kind, .fingerprint = record->fingerprint};
    plan->multi = plan->multi || !qr_kind_is_value(record->kind);
    if (plan->caller) plan->max_version = qr_max(plan->max_version, record->version);
    return add_newer(plan, &item);
}

/* Merges two sorted lists; of equal versions those of `first`, which are newer, come first. */
static void merge_newer(const struct newer *first, uint32_t first_count, const struct newer *second, uint32_t second_count,
                        struct newer *ret_list)
{
    for (uint32_t i = 0, j = 0; i < first_count || j < second_count;) {
        bool take_first = j == second_count;
        if (!take_first && i < first_count) {
            const struct newer *a = &first[i];
            const struct newer *b = &second[j];
            int order = qr_compare(a->key.data, a->key.size, b->key.data, b->key.size);
            take_first = order < 0 || (order == 0 && a->version >= b->version);
        }
        *ret_list++ = take_first ? first[i++] : second[j++];
    }
}

bool qr_plan_add_joined(struct qr_plan *plan, const struct qr_leaf_view *view, const struct qr_page *image,
                        const struct qr_record_spec *pending, const struct qr_retention *retention)
{
    struct newer few[QR_CHAIN_MAX + 1];
    bool caller = plan->caller;
    const struct qr_page *stub = view->page;
    uint32_t few_count = gather_newer(view, pending, caller, few);
    uint32_t count = few_count + stub->count;

    struct newer *list = qr_malloc(((size_t)count + stub->count + 1) * sizeof(*list));
    if (list == NULL) return false;
    struct newer *run = list + count;
    for (uint32_t j = 0; j < stub->count; j++) { /* the stub's run is sorted, and older */
        const uint8_t *record = qr_leaf_record(stub, j);
        run[j] = (struct newer){.key = qr_leaf_key(stub, j),
                                .lsn = qr_record_lsn(record),
                                .version = qr_record_version(record, caller),
                                .record = record,
                                .kind = (uint8_t)qr_record_kind(record),
                                .fingerprint = qr_page_fingerprints(stub)[j]};
    }
    merge_newer(few, few_count, run, stub->count, list);
    struct weave w = {.plan = plan, .retention = retention, .base = image, .full = true};
    plan->max_version = qr_max(plan->max_version, qr_max(qr_view_max_version(view), image->max_version));
    if (pending != NULL && caller) plan->max_version = qr_max(plan->max_version, pending->version);
    bool done = weave_all(&w, list, count);
    qr_free(list);
    return done;
}

bool qr_plan_add_batch(struct qr_plan *plan, const struct qr_leaf_view *view, const struct qr_record_spec *records,
                       uint32_t count, const struct qr_retention *retention)
{
    struct newer few[QR_CHAIN_MAX];
    bool caller = plan->caller;
    uint32_t few_count = view == NULL ? 0 : gather_newer(view, NULL, caller, few);

    struct newer *list = qr_malloc(((size_t)count * 2 + few_count + 1) * sizeof(*list));
    if (list == NULL) return false;
    struct newer *batch = few_count == 0 ? list : list + count + few_count;
    for (uint32_t i = 0; i < count; i++) {
        const struct qr_record_spec *record = &records[i];
        batch[i] = (struct newer){.key = {record->key, record->key_size},
                                  .version = caller ? record->version : record->lsn,
                                  .spec = record,
                                  .kind = (uint8_t)record->kind,
                                  .fingerprint = record->fingerprint};
        plan->max_version = qr_max(plan->max_version, batch[i].version);
    }
    if (few_count != 0) merge_newer(batch, count, few, few_count, list);
    struct weave w = {.plan = plan, .retention = retention};
    bool done = true;
    if (view != NULL) {
        w.base = view->page;
        w.full = (view->page->flags & QR_PAGE_STUB) == 0;
        plan->max_version = qr_max(plan->max_version, qr_view_max_version(view));
        done = weave_all(&w, list, count + few_count);
    } else {
        done = weave_chain(&w, list, count);
    }
    qr_free(list);
    return done;
}
