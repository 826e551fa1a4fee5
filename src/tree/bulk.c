/*
 * bulk.c: installing sorted records by leaves.
 *
 * Layer 4. Read bulk.h first. A step takes a leaf, the records for it, and makes the plan of both (page/plan.h). If it is too
 * large for one page it is cut into several, each nearly full: the first keeps the leaf's id, as in a split, the others get
 * new ones and are reached by their siblings until their separators are posted. The root keeps its id: it becomes an inner page
 * with one entry, and the others are posted to it.
 *
 * Posting is the same one level up: an inner page, the separators for it, one page or several.
 */
#include "tree/bulk.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/status.h"
#include "tree/internal.h"
#include "tree/policy.h"

/* Records of a step, if the leaf has not more: some leaves are made of them, of which the last one is built again. */
#define STEP_RECORDS 256u
#define STEP_BYTES (256u << 10)

void qr_bulk_init(struct qr_bulk *bulk, qr_bulk_fill *fill, void *context, uint32_t count)
{
    *bulk = (struct qr_bulk){.fill = fill, .context = context, .end = count, .leaf_pid = QR_PID_NONE};
}

void qr_bulk_done(struct qr_bulk *bulk)
{
    qr_free(bulk->records);
    qr_free(bulk->chosen);
    qr_free(bulk->posts);
    qr_free(bulk->above);
    *bulk = (struct qr_bulk){.leaf_pid = QR_PID_NONE};
}

/* ---- Records to come -------------------------------------------------------------------------------------------- */

/* Sees to it that `wanted` records are filled in, or all that are left. */
static bool look_ahead(struct qr_bulk *bulk, uint32_t wanted)
{
    wanted = (uint32_t)qr_min(wanted, bulk->end - bulk->next);
    if (bulk->ahead >= wanted) return true;
    uint32_t room = (uint32_t)qr_max(wanted, qr_min(2 * STEP_RECORDS, bulk->end - bulk->next));
    if (room > bulk->capacity) {
        struct qr_record_spec *chosen = qr_realloc(bulk->chosen, room * sizeof(*chosen));
        if (chosen != NULL) bulk->chosen = chosen;
        struct qr_bulk_record *records = chosen == NULL ? NULL : qr_realloc(bulk->records, room * sizeof(*records));
        if (records == NULL) return false;
        bulk->records = records;
        bulk->capacity = room;
    }
    if (bulk->at != 0) memmove(bulk->records, bulk->records + bulk->at, bulk->ahead * sizeof(*bulk->records));
    bulk->at = 0;
    bulk->fill(bulk->context, bulk->next + bulk->ahead, room - bulk->ahead, bulk->records + bulk->ahead);
    bulk->ahead = room;
    return true;
}

static void advance(struct qr_bulk *bulk, uint32_t count)
{
    bulk->next += count;
    bulk->at += count;
    bulk->ahead -= count;
}

static int newest_first(const void *a, const void *b)
{
    const struct qr_record_spec *x = a;
    const struct qr_record_spec *y = b;
    if (x->version != y->version) return x->version > y->version ? -1 : 1;
    return x->lsn > y->lsn ? -1 : x->lsn < y->lsn;
}

/* What goes to a leaf. */
struct share {
    uint32_t taken, chosen; /* records of the run; those of them that the leaf has not yet */
    uint64_t bytes;         /* of key and value */
    uint64_t max_lsn, first_lsn;
};

/* The versions of each key newest first, as plans want them. */
static void order_versions(const struct qr_tree *tree, struct qr_record_spec *specs, uint32_t count)
{
    for (uint32_t from = 0, to; from < count; from = to) {
        for (to = from + 1; to < count; to++)
            if (!qr_equal(specs[to].key, specs[to].key_size, specs[from].key, specs[from].key_size)) break;
        if (to - from == 1) continue;
        if (tree->settings.caller_versions) {
            qsort(specs + from, to - from, sizeof(*specs), newest_first);
            continue;
        }
        for (uint32_t i = from, j = to - 1; i < j; i++, j--) {
            struct qr_record_spec spec = specs[i];
            specs[i] = specs[j];
            specs[j] = spec;
        }
    }
}

static bool is_beyond(bool infinite, struct quire_slice high, const struct qr_record_spec *spec)
{
    return !infinite && qr_compare(spec->key, spec->key_size, high.data, high.size) >= 0;
}

/* Chooses from the next records what lies below the high key and is not in the leaf. */
static void choose(const struct qr_tree *tree, struct qr_bulk *bulk, bool infinite, struct quire_slice high,
                   uint32_t most, struct share *ret_share)
{
    struct share s = {0};
    most = (uint32_t)qr_min(most, bulk->ahead);
    for (; s.taken < most && (s.taken < 2 || s.bytes < STEP_BYTES); s.taken++) {
        const struct qr_bulk_record *record = &bulk->records[bulk->at + s.taken];
        if (is_beyond(infinite, high, &record->spec)) break;
        if (record->spec.lsn <= (QR_BUG(replay_judged_late) ? s.max_lsn : bulk->leaf_max_lsn)) continue; /* R4 */
        bulk->chosen[s.chosen++] = record->spec;
        s.bytes += record->spec.key_size + record->spec.value_size;
        s.max_lsn = qr_max(s.max_lsn, record->spec.lsn);
        s.first_lsn = s.first_lsn == 0 ? record->first_lsn : qr_min(s.first_lsn, record->first_lsn);
    }
    order_versions(tree, bulk->chosen, s.chosen);
    *ret_share = s;
}

/* ---- Several pages for one -------------------------------------------------------------------------------------- */

struct piece {
    uint32_t from; /* record or entry; it ends where the next begins */
    uint64_t pid;
    struct qr_page *page;
    struct quire_slice low;
};

/* What takes the place of a page; pieces[count].from is the end. */
struct division {
    struct piece *pieces;
    uint32_t count;
    struct qr_page_identity whole; /* that of the page, with its new max_lsn */
    bool root;
};

/* Into how many pages so much goes: one as long as it fits, else nearly full ones. */
static uint32_t piece_count(uint64_t weight, uint64_t page_size, uint32_t most)
{
    if (weight <= page_size) return 1;
    uint64_t part = page_size - page_size / 8;
    return (uint32_t)qr_max(1, qr_min((weight + part - 1) / part, most));
}

static int division_begin(struct qr_op *op, uint32_t most, const struct qr_page_identity *whole, struct division *d)
{
    *d = (struct division){.whole = *whole, .root = whole->pid == op->tree->root};
    d->pieces = qr_calloc((size_t)most + 1, sizeof(*d->pieces));
    return d->pieces == NULL ? QUIRE_ERR_NO_MEMORY : 0;
}

/* Undoes what was not installed, or frees what is not needed any more. */
static void division_end(struct qr_op *op, struct division *d, bool installed)
{
    for (uint32_t i = 0; d->pieces != NULL && !installed && i < d->count; i++) {
        if (d->pieces[i].page != NULL) qr_discard_page(op, d->pieces[i].page);
        bool fresh = i != 0 || d->root;
        if (fresh && d->pieces[i].pid != QR_PID_NONE) qr_map_free(qr_op_map(op), d->pieces[i].pid);
    }
    qr_free(d->pieces);
}

static int take_ids(struct qr_op *op, struct division *d)
{
    for (uint32_t i = 0; i < d->count; i++) {
        if (i == 0 && !d->root) {
            d->pieces[0].pid = d->whole.pid;
            continue;
        }
        int result = qr_map_alloc(qr_op_map(op), qr_word_number(QR_WORD_FREE, 0), true, &d->pieces[i].pid);
        if (result != 0) return result;
    }
    return 0;
}

static struct qr_page_identity piece_identity(const struct division *d, uint32_t i)
{
    struct qr_page_identity identity = d->whole;
    identity.pid = d->pieces[i].pid;
    if (i != 0) identity.low = d->pieces[i].low;
    if (i + 1 == d->count) return identity;
    identity.right_pid = d->pieces[i + 1].pid;
    identity.high_infinite = false;
    identity.high = d->pieces[i + 1].low;
    return identity;
}

/* Room for `more` ids in a growing list. */
static bool reserve_ids(uint64_t **ids, uint32_t count, uint32_t *capacity, uint32_t more)
{
    if (*capacity - count >= more) return true;
    uint32_t wanted = (uint32_t)qr_max((uint64_t)count + more, (uint64_t)*capacity * 2);
    uint64_t *grown = qr_realloc(*ids, wanted * sizeof(*grown));
    if (grown == NULL) return false;
    *ids = grown;
    *capacity = wanted;
    return true;
}

static void set_head(struct qr_op *op, uint64_t pid, qr_word word, const struct qr_page *page)
{
    bool done = qr_map_cas(qr_op_map(op), pid, &word, qr_word_make(QR_WORD_HEAD, page, 0, 0));
    QR_ASSERT(done);
    (void)done;
    qr_map_note_change(qr_op_map(op), pid);
}

/* The right pages, then the one that leads to them: the page itself, or an inner page above it if it is the root. */
static int division_install(struct qr_op *op, struct qr_spot *spot, struct division *d)
{
    for (uint32_t i = d->root ? 0 : 1; i < d->count; i++)
        set_head(op, d->pieces[i].pid, qr_map_load(qr_op_map(op), d->pieces[i].pid), d->pieces[i].page);
    if (!d->root) {
        set_head(op, spot->pid, spot->word, d->pieces[0].page);
        qr_retire_page(op, spot->page);
        return 0;
    }
    struct qr_inner_entry entry = {.child = d->pieces[0].pid};
    struct qr_page_identity identity = d->whole;
    identity.level++;
    return qr_inner_replace(op, spot, &entry, 1, &identity);
}

/* ---- Leaves ----------------------------------------------------------------------------------------------------- */

/* Where the records in hand are to go. A new leaf: notes its max_lsn. */
static int find_leaf(struct qr_op *op, struct qr_bulk *bulk, const struct qr_key *key, struct qr_spot *spot)
{
    while (bulk->leaf_pid != QR_PID_NONE) { /* their separators may not be posted yet, and BULK-1 */
        *spot = (struct qr_spot){.pid = bulk->leaf_pid, .word = qr_map_load(qr_op_map(op), bulk->leaf_pid)};
        spot->page = qr_word_block(spot->word);
        if (!qr_page_key_beyond(spot->page, key)) return 0;
        if (bulk->leaf_pid == bulk->last_pid) break;
        bulk->leaf_pid = spot->page->right_pid;
    }
    int result = qr_descend_blind(op, key, spot);
    if (result != 0) return result;
    if (spot->page == NULL) {
        result = op->tree->env->ops->image_max_lsn(op->tree->env->context, spot->pid, &bulk->leaf_max_lsn);
        bulk->leaf_pid = QR_PID_NONE; /* until there is a page */
        return result;
    }
    struct qr_leaf_view view = qr_view_of(spot->word);
    bulk->leaf_pid = bulk->last_pid = spot->pid;
    bulk->leaf_max_lsn = qr_view_max_lsn(&view);
    return 0;
}

/* What a new page of the leaf in hand has: what the old one had, and the records chosen. */
static struct qr_leaf_properties properties_of(const struct qr_leaf_view *view, const struct share *share,
                                               const struct qr_bounds *bounds)
{
    uint64_t first = qr_view_first_lsn(view);
    return (struct qr_leaf_properties){
        .flags = view->page->flags & (QR_PAGE_STUB | QR_PAGE_COLLECTED),
        .safe_version = qr_max(view->page->safe_version, bounds->safe_version),
        .image_address = view->page->image_address,
        .first_lsn = first == 0 ? share->first_lsn : qr_min(first, share->first_lsn),
    };
}

/* The plan fits into one page, or cannot be divided. */
static int install_one(struct qr_op *op, struct qr_spot *spot, const struct qr_plan *plan,
                       const struct qr_page_identity *identity, const struct qr_leaf_properties *properties)
{
    struct qr_fresh_leaf fresh;
    int result = qr_leaf_from_plan(op, plan, 0, plan->count, identity, properties, QR_AREA_FULL, &fresh);
    if (result != 0) return result;
    qr_word word = qr_word_make(QR_WORD_HEAD, fresh.page, 0, 0);
    bool done = qr_map_cas(qr_op_map(op), spot->pid, &spot->word, word);
    QR_ASSERT(done);
    (void)done;
    if (spot->page != NULL)
        qr_retire_page(op, spot->page);
    else
        qr_tell_dead(op);
    qr_count(op, QR_COUNTER_CONSOLIDATIONS);
    if (spot->parent_pid != QR_PID_NONE && !spot->by_sibling)
        qr_child_moved(op, qr_word_block(spot->parent_word), spot->parent_index, fresh.page);
    return 0;
}

/* Cuts a plan into `most` parts at most, between keys. */
static void cut_plan(const struct qr_plan *plan, uint32_t most, struct division *d)
{
    d->count = 1;
    for (uint32_t i = 1; i < most; i++) {
        uint32_t at = qr_plan_split_index(plan, plan->bytes * i / most);
        if (at <= d->pieces[d->count - 1].from || at >= plan->count) continue;
        struct piece *piece = &d->pieces[d->count++];
        piece->from = at;
        piece->low = qr_shortest_separator(qr_plan_key(plan, at - 1), qr_plan_key(plan, at));
    }
    d->pieces[d->count].from = plan->count;
}

static struct quire_slice low_of(struct qr_op *op, uint64_t pid)
{
    return qr_page_low(qr_word_block(qr_map_load(qr_op_map(op), pid)));
}

/* There is room for it. The leaves behind it in the same division may be there already. */
static void add_post(struct qr_op *op, struct qr_bulk *bulk, uint64_t pid)
{
    struct quire_slice low = low_of(op, pid);
    uint32_t at = bulk->post_count++;
    for (; at > 0; at--) {
        struct quire_slice before = low_of(op, bulk->posts[at - 1]);
        if (qr_compare(before.data, before.size, low.data, low.size) < 0) break;
        bulk->posts[at] = bulk->posts[at - 1];
    }
    bulk->posts[at] = pid;
}

static int install_several(struct qr_op *op, struct qr_bulk *bulk, struct qr_spot *spot, const struct qr_plan *plan,
                           struct division *d, struct qr_leaf_properties *properties)
{
    struct qr_fresh_leaf fresh;
    int result = reserve_ids(&bulk->posts, bulk->post_count, &bulk->post_capacity, d->count) ? take_ids(op, d)
                                                                                           : QUIRE_ERR_NO_MEMORY;
    properties->flags = QR_PAGE_COLLECTED; /* a bound changes: rule R10 */
    properties->image_address = 0;
    for (uint32_t i = 0; i < d->count && result == 0; i++) {
        struct qr_page_identity identity = piece_identity(d, i);
        result = qr_leaf_from_plan(op, plan, d->pieces[i].from, d->pieces[i + 1].from, &identity, properties, QR_AREA_FULL,
                                   &fresh);
        if (result == 0) d->pieces[i].page = fresh.page;
    }
    if (result == 0) result = division_install(op, spot, d);
    if (result != 0) return result;
    for (uint32_t i = 1; i < d->count; i++) {
        add_post(op, bulk, d->pieces[i].pid);
        qr_count(op, QR_COUNTER_SPLITS);
    }
    if (bulk->last_pid == spot->pid) bulk->last_pid = d->pieces[d->count - 1].pid;
    bulk->leaf_pid = d->pieces[0].pid;
    return 0;
}

static int install_whole(struct qr_op *op, struct qr_bulk *bulk, struct qr_spot *spot, const struct share *share)
{
    const struct qr_tree *tree = op->tree;
    struct qr_leaf_view view = qr_view_of(spot->word);
    struct qr_bounds bounds;
    struct qr_plan plan;
    qr_bounds_load(op->tree, true, &bounds); /* the records in hand are newer than all that is there */
    struct qr_leaf_properties properties = properties_of(&view, share, &bounds);
    struct qr_page_identity identity = qr_page_identity(view.page);
    identity.max_lsn = qr_max(qr_view_max_lsn(&view), share->max_lsn);
    qr_plan_init(&plan, tree->settings.caller_versions, tree->settings.align_log2);
    int result = QUIRE_ERR_NO_MEMORY;
    if (qr_plan_add_batch(&plan, &view, bulk->chosen, share->chosen, &bounds.retention)) {
        uint64_t weight = plan.bytes + qr_leaf_arrays_size(plan.count);
        bool stub = (view.page->flags & QR_PAGE_STUB) != 0;
        uint32_t most = stub ? 1 : piece_count(weight, tree->settings.leaf_page_size_bytes, plan.count);
        struct division d;
        result = division_begin(op, most, &identity, &d);
        if (result == 0) cut_plan(&plan, most, &d);
        if (result == 0 && d.count == 1) {
            d.count = 0;
            result = install_one(op, spot, &plan, &identity, &properties);
        } else if (result == 0) {
            result = install_several(op, bulk, spot, &plan, &d, &properties);
        }
        division_end(op, &d, result == 0);
    }
    if (result == 0) qr_counter_add(&op->thread->counters[QR_COUNTER_VERSIONS_COLLECTED], plan.dropped);
    qr_plan_done(&plan);
    return result;
}

/* A leaf on disk, and few records: a stub of them. */
static int install_stub(struct qr_op *op, struct qr_bulk *bulk, struct qr_spot *spot, const struct share *share)
{
    const struct qr_tree *tree = op->tree;
    struct qr_page_identity identity = qr_blind_identity(op, spot);
    struct qr_bounds bounds;
    struct qr_plan plan;
    qr_bounds_load(op->tree, true, &bounds);
    struct qr_leaf_properties properties = {.flags = QR_PAGE_STUB,
                                            .safe_version = bounds.safe_version,
                                            .image_address = qr_word_value(spot->word),
                                            .first_lsn = share->first_lsn};
    identity.max_lsn = share->max_lsn;
    qr_plan_init(&plan, tree->settings.caller_versions, tree->settings.align_log2);
    int result = QUIRE_ERR_NO_MEMORY;
    if (qr_plan_add_batch(&plan, NULL, bulk->chosen, share->chosen, &bounds.retention))
        result = install_one(op, spot, &plan, &identity, &properties);
    if (result == 0) bulk->leaf_pid = bulk->last_pid = spot->pid;
    qr_plan_done(&plan);
    return result;
}

/* Whether a stub of so many bytes would be too much to keep beside its image: then the leaf is made whole. */
static bool too_much(const struct qr_tree *tree, uint64_t bytes)
{
    return bytes > tree->settings.leaf_page_size_bytes / 2;
}

static int step_leaf(struct qr_op *op, struct qr_bulk *bulk)
{
    struct qr_spot spot;
    struct share share;
    if (!look_ahead(bulk, 1)) return QUIRE_ERR_NO_MEMORY;
    const struct qr_record_spec *first = &bulk->records[bulk->at].spec;
    struct qr_key key = qr_key_ordered(first->key, first->key_size);
    int result = find_leaf(op, bulk, &key, &spot);
    if (result != 0) return result;
    uint32_t most = spot.page == NULL ? STEP_RECORDS : (uint32_t)qr_max(STEP_RECORDS, spot.page->count);
    if (!look_ahead(bulk, most)) return QUIRE_ERR_NO_MEMORY;

    if (spot.page == NULL) {
        struct qr_page_identity identity = qr_blind_identity(op, &spot);
        choose(op->tree, bulk, identity.high_infinite, identity.high, most, &share);
        if (too_much(op->tree, share.bytes)) return qr_descend(op, &key, 0, false, &spot); /* QR_FETCH, or it is there now */
        if (share.chosen != 0) result = install_stub(op, bulk, &spot, &share);
    } else {
        const struct qr_page *page = spot.page;
        choose(op->tree, bulk, (page->flags & QR_PAGE_HIGH_INFINITE) != 0, qr_page_high(page), most, &share);
        if ((page->flags & QR_PAGE_STUB) != 0 && too_much(op->tree, page->content_bytes + share.bytes)) {
            result = qr_join(op, &spot);
            return result == QR_RETRY ? 0 : result;
        }
        if (share.chosen != 0) result = install_whole(op, bulk, &spot, &share);
    }
    if (result == 0) advance(bulk, share.taken);
    return result;
}

/* ---- Separators ------------------------------------------------------------------------------------------------- */

/* The entries of an inner page and the separators that belong there, by key. Returns their number; *ret_end: the first post
 * that does not. */
static uint32_t merge_posts(struct qr_op *op, const struct qr_bulk *bulk, const struct qr_page *page,
                            const struct qr_inner_entry *old, struct qr_inner_entry *ret_entries, uint32_t *ret_end)
{
    uint32_t count = 0;
    uint32_t at = 1; /* of the old ones; entry 0 stands for the low key, which is below all posts */
    uint32_t i = bulk->posted;
    ret_entries[count++] = old[0];
    for (; i < bulk->post_count; i++) {
        struct quire_slice low = low_of(op, bulk->posts[i]);
        if ((page->flags & QR_PAGE_HIGH_INFINITE) == 0) {
            struct quire_slice high = qr_page_high(page);
            if (qr_compare(low.data, low.size, high.data, high.size) >= 0) break;
        }
        while (at < page->count && qr_compare(old[at].key.data, old[at].key.size, low.data, low.size) < 0)
            ret_entries[count++] = old[at++];
        bool there = at < page->count && qr_equal(old[at].key.data, old[at].key.size, low.data, low.size);
        if (there) continue;
        ret_entries[count - 1].whereabouts = 0; /* the left one has moved too */
        ret_entries[count++] = (struct qr_inner_entry){.key = low, .child = bulk->posts[i]};
    }
    while (at < page->count) ret_entries[count++] = old[at++];
    *ret_end = i;
    return count;
}

/* Cuts entries into parts of about the same weight, none at an entry that is being merged (SPLIT-3). */
static void cut_entries(const struct qr_inner_entry *entries, uint32_t count, uint64_t weight, uint32_t most,
                        struct division *d)
{
    uint64_t before = 0;
    d->count = 1;
    for (uint32_t i = 1; i < count; i++) {
        before += entries[i].key.size + 20;
        if (d->count == most || before < weight * d->count / most || (entries[i].child & QR_CHILD_MERGING) != 0) continue;
        struct piece *piece = &d->pieces[d->count++];
        piece->from = i;
        piece->low = entries[i].key;
    }
    d->pieces[d->count].from = count;
}

static int install_inners(struct qr_op *op, struct qr_bulk *bulk, struct qr_spot *spot,
                          const struct qr_inner_entry *entries, struct division *d)
{
    int result = reserve_ids(&bulk->above, bulk->above_count, &bulk->above_capacity, d->count) ? take_ids(op, d)
                                                                                             : QUIRE_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < d->count && result == 0; i++) {
        struct qr_page_identity identity = piece_identity(d, i);
        const struct piece *piece = &d->pieces[i];
        result = qr_inner_new(op, entries + piece->from, piece[1].from - piece->from, &identity, &d->pieces[i].page);
        if (result == 0) qr_inner_note_children(op, piece->page, entries + piece->from);
    }
    if (result == 0) result = division_install(op, spot, d);
    if (result != 0) return result;
    for (uint32_t i = 1; i < d->count; i++) {
        bulk->above[bulk->above_count++] = d->pieces[i].pid;
        qr_count(op, QR_COUNTER_SPLITS);
    }
    return 0;
}

static uint64_t entries_weight(const struct qr_inner_entry *entries, uint32_t count)
{
    uint64_t weight = QR_PAGE_HEADER;
    for (uint32_t i = 1; i < count; i++) weight += entries[i].key.size + 20;
    return weight;
}

/* Posts what belongs to one inner page. */
static int post_some(struct qr_op *op, struct qr_bulk *bulk)
{
    struct quire_slice low = low_of(op, bulk->posts[bulk->posted]);
    struct qr_key key = qr_key_make(low.data, low.size);
    struct qr_spot spot;
    struct division d = {0};
    uint32_t end;
    int result = qr_descend(op, &key, (uint8_t)(bulk->level + 1), false, &spot);
    if (result != 0) return result == QUIRE_NOT_FOUND ? qr_fail(QUIRE_ERR_CORRUPT, 0, "a tree without a root") : result;
    struct qr_page_identity identity = qr_page_identity(spot.page);
    uint32_t most = spot.page->count + (bulk->post_count - bulk->posted);
    struct qr_inner_entry *old = qr_malloc(((size_t)spot.page->count + most) * sizeof(*old));
    if (old == NULL) return QUIRE_ERR_NO_MEMORY;
    struct qr_inner_entry *entries = old + spot.page->count;
    qr_inner_entries(spot.page, old);
    uint32_t count = merge_posts(op, bulk, spot.page, old, entries, &end);
    uint64_t weight = entries_weight(entries, count);
    uint32_t parts = count <= QR_POLICY_BRANCHES
                         ? 1
                         : piece_count(weight, op->tree->settings.inner_page_size_bytes, count / 4);
    result = division_begin(op, parts, &identity, &d);
    if (result == 0) cut_entries(entries, count, weight, parts, &d);
    if (result == 0 && d.count == 1) {
        d.count = 0;
        result = qr_inner_replace(op, &spot, entries, count, &identity);
    } else if (result == 0) {
        result = install_inners(op, bulk, &spot, entries, &d);
    }
    division_end(op, &d, result == 0);
    qr_free(old);
    if (result == 0) bulk->posted = end;
    return result;
}

/* All separators of a level are posted: those of the next one. */
static void next_level(struct qr_bulk *bulk)
{
    uint64_t *empty = bulk->posts;
    uint32_t capacity = bulk->post_capacity;
    bulk->posts = bulk->above;
    bulk->post_count = bulk->above_count;
    bulk->post_capacity = bulk->above_capacity;
    bulk->above = empty;
    bulk->above_count = 0;
    bulk->above_capacity = capacity;
    bulk->posted = 0;
    bulk->level++;
}

int qr_bulk_step(struct qr_op *op, struct qr_bulk *bulk)
{
    int result = qr_epoch_prepare(op->thread);
    if (result != 0) return result;
    if (bulk->next == bulk->end && bulk->posted == bulk->post_count) {
        if (bulk->above_count == 0) return QUIRE_END;
        next_level(bulk);
    }
    qr_structure_help(op);
    result = bulk->next < bulk->end ? step_leaf(op, bulk) : post_some(op, bulk);
    qr_structure_end(op);
    return result == QR_RETRY ? 0 : result;
}
