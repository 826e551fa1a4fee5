/*
 * repair_lay.c: which image is right for which keys (REPAIR-1 to -3).
 *
 * Layer 6. All images are read once, and their bounds kept. Then a line is swept over the keys of each tree: the images whose
 * bounds have the present key lie in a heap, the best on top; a piece ends where that one ends or another begins.
 *
 *     images      |-------- 40 --------|            the number: max LSN
 *                         |---- 70 ----|----- 55 -----|
 *                                            |-- 20 --|
 *     pieces      |--40---|---- 70 ----|----- 55 -----|-- lost ...
 */
#include <stdlib.h>

#include "base/bugs.h"
#include "db/flush.h"
#include "db/repair.h"
#include "page/inner.h"
#include "store/format.h"

/* ---- Images ----------------------------------------------------------------------------------------------------- */

/* REPAIR-2. */
static bool may_count(const struct qr_repair *r, uint64_t max_lsn)
{
    const struct qr_db_files *files = r->from->files;
    if (r->manifest_lost || QR_BUG(repair_dead_image)) return true;
    if (max_lsn >= r->from->checkpointer.record.durable_lsn) return false;
    for (uint32_t i = 0; i + 1 < files->incarnation_count; i++)
        if (max_lsn >= files->incarnations[i].end && max_lsn < files->incarnations[i + 1].first_lsn) return false;
    return true;
}

/* REPAIR-6: whether it may be an image as of an LSN below its own. */
static bool may_be_partial(const struct qr_repair *r, uint64_t max_lsn)
{
    return max_lsn < r->from->files->lsn_range_end;
}

static int note_image(void *context, const struct qr_salvage_image *image)
{
    struct qr_repair *r = context;
    const bool counts = image->named || image->sure || may_count(r, image->max_lsn);
    if (!counts && !may_be_partial(r, image->max_lsn)) return 0;
    struct qr_laid *larger = qr_grow(r->laid, r->laid_count, &r->laid_room, sizeof(*larger));
    if (larger == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the list of images");
    r->laid = larger;
    bool inner = image->kind == QR_STORE_INNER;
    r->laid[r->laid_count++] = (struct qr_laid){.address = image->address,
                                                .pid = image->pid,
                                                .max_lsn = image->max_lsn,
                                                .sequence = image->sequence,
                                                .tree_id = image->tree_id,
                                                .kind = inner ? QR_LAID_NOTHING : QR_LAID_DAMAGED,
                                                .named = image->named,
                                                .doubtful = !counts};
    return 0;
}

static void *give_memory(void *context, size_t size)
{
    return *(void **)context = qr_malloc_aligned(QR_IMAGE_UNIT, size);
}

/* The page of an image, to be freed by qr_free_aligned. CORRUPT: also if it is no page. */
static int read_page(struct qr_repair *r, const struct qr_laid *laid, struct qr_page **ret_page)
{
    void *memory = NULL, *bytes;
    uint32_t size;
    int result = qr_store_read(r->store, laid->address, laid->pid, give_memory, &memory, &bytes, &size);
    if (result == 0 && qr_db_adopt_image(bytes, size, size, laid->pid, laid->address) != NULL)
        result = qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu: its image is no page", (unsigned long long)laid->pid);
    if (result != 0) {
        qr_free_aligned(memory);
        return result;
    }
    r->report.bytes_read += size;
    *ret_page = bytes;
    return 0;
}

int qr_repair_read_leaf(struct qr_repair *r, const struct qr_laid *laid, struct qr_page **ret_page)
{
    uint64_t bytes = r->report.bytes_read;
    int result = read_page(r, laid, ret_page);
    r->report.bytes_read = bytes; /* it was counted */
    return result == QR_STORE_GONE ? qr_fail(QUIRE_ERR_IO, 0, "an image that could be read cannot be read again") : result;
}

static bool copy_slice(struct quire_slice from, struct quire_slice *ret_copy)
{
    uint8_t *copy = qr_malloc(from.size + 1);
    if (copy == NULL) return false;
    qr_copy(copy, from.data, from.size);
    *ret_copy = (struct quire_slice){copy, from.size};
    return true;
}

static int take_bounds(struct qr_laid *laid, struct quire_slice low, struct quire_slice high, bool infinite)
{
    laid->infinite = infinite;
    if (!copy_slice(low, &laid->low) || (!infinite && !copy_slice(high, &laid->high)))
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the bounds of pages");
    return 0;
}

static int take_page(struct qr_repair *r, struct qr_laid *laid, const struct qr_page *page)
{
    bool infinite = (page->flags & QR_PAGE_HIGH_INFINITE) != 0;
    struct quire_slice none = {NULL, 0};
    r->report.pages_read++;
    laid->tree_id = page->tree_id;
    laid->max_lsn = page->max_lsn;
    laid->kind = QR_LAID_NOTHING;
    if (page->kind == QR_PAGE_INNER && page->level == 1 && !laid->doubtful) laid->kind = QR_LAID_INNER;
    if (page->kind != QR_PAGE_LEAF || (page->flags & QR_PAGE_STUB) != 0) return 0;
    laid->kind = laid->doubtful ? QR_LAID_LOST : QR_LAID_LEAF;
    struct qr_repair_tree *tree = qr_repair_tree_get(r, page->tree_id);
    if (tree == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a tree");
    if (!tree->named) { /* as far as a leaf tells */
        tree->caller_versions = qr_page_caller(page);
        tree->options.versions = tree->caller_versions ? QUIRE_VERSIONS_CALLER : QUIRE_VERSIONS_ENGINE;
        tree->options.value_alignment = 1u << page->align_log2;
        tree->safe_version = qr_max(tree->safe_version, page->safe_version);
    }
    return take_bounds(laid, qr_page_low(page), infinite ? none : qr_page_high(page), infinite);
}

static int read_images(struct qr_repair *r)
{
    for (uint64_t i = 0; i < r->laid_count; i++) {
        struct qr_laid *laid = &r->laid[i];
        const bool was_inner = laid->kind == QR_LAID_NOTHING;
        struct qr_page *page;
        int result = read_page(r, laid, &page);
        if (qr_salvage_is_lost(result)) {
            r->report.pages_damaged++;
            laid->kind = was_inner ? QR_LAID_NOTHING : QR_LAID_DAMAGED;
            continue;
        }
        if (result != 0) return result;
        result = take_page(r, laid, page);
        qr_free_aligned(page);
        if (result != 0) return result;
    }
    return 0;
}

/* ---- Damaged leaves (REPAIR-3) -------------------------------------------------------------------------------- */

/* A page with damaged images; the newest of them counts. */
struct damage {
    uint64_t pid, index; /* of the image */
    uint64_t sequence;   /* of the inner page that told its bounds; 0: none has */
};
struct damages {
    struct damage *list;
    uint64_t count;
};

static int by_pid(const void *a, const void *b)
{
    const struct damage *x = a;
    const struct damage *y = b;
    return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static struct damage *damage_of(const struct damages *d, uint64_t pid)
{
    const struct damage key = {.pid = pid};
    return d->count == 0 ? NULL : bsearch(&key, d->list, d->count, sizeof(key), by_pid);
}

static int list_damages(const struct qr_repair *r, struct damages *ret_damages)
{
    uint64_t count = 0, kept = 0;
    for (uint64_t i = 0; i < r->laid_count; i++) count += r->laid[i].kind == QR_LAID_DAMAGED;
    if (count == 0) return 0;
    struct damage *list = qr_calloc(count, sizeof(*list));
    if (list == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the list of damaged pages");
    count = 0;
    for (uint64_t i = 0; i < r->laid_count; i++)
        if (r->laid[i].kind == QR_LAID_DAMAGED) list[count++] = (struct damage){.pid = r->laid[i].pid, .index = i};
    qsort(list, count, sizeof(*list), by_pid);
    for (uint64_t i = 0; i < count; i++) {
        if (kept == 0 || list[kept - 1].pid != list[i].pid)
            list[kept++] = list[i];
        else if (r->laid[list[i].index].max_lsn > r->laid[list[kept - 1].index].max_lsn)
            list[kept - 1] = list[i];
    }
    *ret_damages = (struct damages){list, kept};
    return 0;
}

/* An inner page above leaves: it may have the bounds of a damaged one. What the mapping names, and what is newer, counts more. */
static int ask_inner(struct qr_repair *r, struct damages *d, const struct qr_laid *inner, const struct qr_page *page)
{
    const uint64_t rank = inner->named ? UINT64_MAX : inner->sequence + 1;
    for (uint32_t i = 0; i < page->count; i++) {
        struct damage *damage = damage_of(d, qr_inner_child(page, i));
        if (damage == NULL || damage->sequence >= rank) continue;
        struct qr_laid *laid = &r->laid[damage->index];
        bool infinite = i + 1 == page->count && (page->flags & QR_PAGE_HIGH_INFINITE) != 0;
        struct quire_slice high = {NULL, 0};
        if (!infinite) high = i + 1 == page->count ? qr_page_high(page) : qr_inner_key(page, i + 1);
        qr_free((void *)(uintptr_t)laid->low.data);
        qr_free((void *)(uintptr_t)laid->high.data);
        laid->low = laid->high = (struct quire_slice){NULL, 0};
        int result = take_bounds(laid, i == 0 ? qr_page_low(page) : qr_inner_key(page, i), high, infinite);
        if (result != 0) return result;
        laid->tree_id = page->tree_id;
        laid->kind = QR_LAID_LOST;
        damage->sequence = rank;
    }
    return 0;
}

static int place_damages(struct qr_repair *r)
{
    struct damages d = {NULL, 0};
    int result = QR_BUG(repair_older_image) ? 0 : list_damages(r, &d);
    for (uint64_t i = 0; i < r->laid_count && d.count != 0 && result == 0; i++) {
        struct qr_laid *laid = &r->laid[i];
        struct qr_page *page;
        if (laid->kind == QR_LAID_INNER) {
            result = qr_repair_read_leaf(r, laid, &page);
            if (result != 0) break;
            result = ask_inner(r, &d, laid, page);
            qr_free_aligned(page);
        } else if (laid->kind == QR_LAID_LEAF) {
            const struct damage *damage = damage_of(&d, laid->pid);
            if (damage != NULL && laid->max_lsn < r->laid[damage->index].max_lsn) laid->kind = QR_LAID_LOST;
        }
    }
    qr_free(d.list);
    return result;
}

/* ---- The sweep -------------------------------------------------------------------------------------------------- */

static int by_low(const void *a, const void *b)
{
    const struct qr_laid *x = a;
    const struct qr_laid *y = b;
    bool x_laid = x->kind <= QR_LAID_LOST, y_laid = y->kind <= QR_LAID_LOST;
    if (x_laid != y_laid) return x_laid ? -1 : 1;
    if (!x_laid) return 0;
    if (x->tree_id != y->tree_id) return x->tree_id < y->tree_id ? -1 : 1;
    return qr_compare(x->low.data, x->low.size, y->low.data, y->low.size);
}

/* Whether a knows more than b. */
static bool is_better(const struct qr_laid *a, const struct qr_laid *b)
{
    if (a->max_lsn != b->max_lsn) return (a->max_lsn > b->max_lsn) != QR_BUG(repair_worse_image);
    if (a->kind != b->kind) return a->kind == QR_LAID_LEAF;
    if (a->named != b->named) return a->named;
    return a->sequence > b->sequence;
}

struct sweep {
    const struct qr_laid **heap; /* the best first */
    uint64_t count;
    struct qr_repair_tree *tree;
    uint64_t room;
};

static void heap_add(struct sweep *s, const struct qr_laid *laid)
{
    uint64_t i = s->count++;
    for (; i != 0 && is_better(laid, s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = laid;
}

static void heap_pop(struct sweep *s)
{
    const struct qr_laid *last = s->heap[--s->count];
    uint64_t i = 0;
    for (;;) {
        uint64_t child = 2 * i + 1;
        if (child + 1 < s->count && is_better(s->heap[child + 1], s->heap[child])) child++;
        if (child >= s->count || !is_better(s->heap[child], last)) break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    if (s->count != 0) s->heap[i] = last;
}

/* A piece up to `high`, NULL: to the end. One that goes on with the same image is the same piece. */
static bool add_piece(struct sweep *s, struct quire_slice low, const struct quire_slice *high, const struct qr_laid *from)
{
    struct qr_repair_tree *tree = s->tree;
    struct qr_laid_piece piece = {.low = low, .infinite = high == NULL, .from = from};
    if (high != NULL) piece.high = *high;
    if (tree->piece_count != 0 && tree->pieces[tree->piece_count - 1].from == from) {
        piece.low = tree->pieces[tree->piece_count - 1].low;
        tree->pieces[tree->piece_count - 1] = piece;
        return true;
    }
    struct qr_laid_piece *larger = qr_grow(tree->pieces, tree->piece_count, &s->room, sizeof(*larger));
    if (larger == NULL) return false;
    tree->pieces = larger;
    tree->pieces[tree->piece_count++] = piece;
    return true;
}

static int compare(struct quire_slice a, struct quire_slice b)
{
    return qr_compare(a.data, a.size, b.data, b.size);
}

/* All images of one tree, by their low keys. */
static int sweep_tree(struct qr_repair_tree *tree, const struct qr_laid *laid, uint64_t count, const struct qr_laid **heap)
{
    struct sweep s = {.heap = heap, .tree = tree};
    struct quire_slice at = {"", 0};
    for (uint64_t next = 0;;) {
        while (next < count && compare(laid[next].low, at) <= 0) heap_add(&s, &laid[next++]);
        while (s.count != 0 && !s.heap[0]->infinite && compare(s.heap[0]->high, at) <= 0) heap_pop(&s);
        const struct qr_laid *top = s.count == 0 ? NULL : s.heap[0];
        const struct quire_slice *end = next < count ? &laid[next].low : NULL;
        if (top != NULL && !top->infinite && (end == NULL || compare(top->high, *end) < 0)) end = &top->high;
        if (!add_piece(&s, at, end, top)) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a map of the keys");
        if (end == NULL) return 0;
        at = *end;
    }
}

static int sweep_all(struct qr_repair *r)
{
    if (r->laid_count == 0) return 0;
    qsort(r->laid, r->laid_count, sizeof(*r->laid), by_low);
    const struct qr_laid **heap = qr_calloc(r->laid_count, sizeof(struct qr_laid *));
    if (heap == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to sort images");
    int result = 0;
    for (uint64_t from = 0, to; from < r->laid_count && r->laid[from].kind <= QR_LAID_LOST && result == 0; from = to) {
        uint32_t id = r->laid[from].tree_id;
        for (to = from + 1; to < r->laid_count; to++)
            if (r->laid[to].kind > QR_LAID_LOST || r->laid[to].tree_id != id) break;
        struct qr_repair_tree *tree = qr_repair_tree_get(r, id);
        result = tree == NULL ? qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for a tree")
                              : sweep_tree(tree, r->laid + from, to - from, heap);
    }
    qr_free(heap);
    return result;
}

/* ---- All of it -------------------------------------------------------------------------------------------------- */

int qr_repair_lay(struct qr_repair *r)
{
    struct qr_salvage_facts facts = {.segments_lost = r->report.segments_damaged};
    const struct qr_manifest_checkpoint *record = &r->from->checkpointer.record;
    int result = qr_salvage_images(r->store, r->manifest_lost ? 0 : record->mapping_index.address, note_image, r, &facts);
    r->report.segments_damaged = facts.segments_lost;
    r->report.mapping_damaged = facts.mapping_lost;
    if (result == 0 && facts.newest_lost)
        qr_repair_tell(r, QUIRE_LOSS_NEWEST, NULL, (struct quire_slice){0}, (struct quire_slice){0},
                       "what the last checkpoint has written cannot be found: keys may be as they were before it");
    if (result == 0) result = read_images(r);
    if (result == 0) result = place_damages(r);
    return result == 0 ? sweep_all(r) : result;
}

void qr_repair_lay_done(struct qr_repair *r)
{
    for (uint64_t i = 0; i < r->laid_count; i++) {
        qr_free((void *)(uintptr_t)r->laid[i].low.data);
        qr_free((void *)(uintptr_t)r->laid[i].high.data);
    }
    qr_free(r->laid);
}

const struct qr_laid_piece *qr_repair_piece_of(const struct qr_repair_tree *tree, struct quire_slice key)
{
    uint32_t low = 0, high = tree->piece_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct qr_laid_piece *piece = &tree->pieces[middle];
        if (!piece->infinite && compare(piece->high, key) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < tree->piece_count ? &tree->pieces[low] : NULL;
}

/* The first record with a key that is not below. */
static uint32_t lower_bound(const struct qr_page *page, struct quire_slice key)
{
    uint32_t low = 0, high = page->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (compare(qr_leaf_key(page, middle), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void qr_repair_records(const struct qr_page *page, const struct qr_laid_piece *piece, uint32_t *ret_first,
                       uint32_t *ret_end)
{
    *ret_first = lower_bound(page, piece->low);
    *ret_end = piece->infinite ? page->count : lower_bound(page, piece->high);
}
