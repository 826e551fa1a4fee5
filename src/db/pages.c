/*
 * pages.c: iteration page by page, and what is built on it: counting.
 *
 * Layer 6. A step finds the leaf at the position (the key where the range not yet seen begins, or ends, in reverse),
 * makes the entries, and lets a hold keep the leaf's block alive after the section has ended.
 *
 * PAGES-1  The position is a key, never a page: each step asks for the leaf that covers it now. So pages that split or
 *          merge meanwhile neither hide a key nor show it twice.
 * PAGES-2  Ascending, the leaf is first looked for by the sibling link: a page of the tree whose low key is exactly the
 *          position is that leaf, whatever happened since the link was read.
 * PAGES-3  After a step that fails, the position is what it was: the step prepares `next`, which becomes `at` when all is done.
 */
#include "db/blobs.h"
#include "db/db.h"

#define LARGE_BYTES QR_DB_BLOB_TRUSTED_BYTES /* of large values in one step, unless one alone is larger */

/* A place in the order of keys. */
struct position {
    uint8_t *key; /* an allocation */
    uint32_t size, capacity;
    bool from_edge; /* reverse: begins at the greatest key */
    bool done;
};

struct quire_pages {
    struct quire_tree *tree;
    uint64_t version;
    bool reverse;
    bool skip_large;
    bool has_end;           /* there is a far bound: end when ascending, start in reverse */
    uint64_t next_pid;      /* ascending: sibling link of the page last seen */
    struct qr_hold *hold;
    struct quire_entry *entries;
    uint32_t entry_capacity;
    struct position at, next; /* next: where the step that is being made leads */
    uint8_t *bound;
    uint32_t bound_size;
    uint8_t *large;           /* large values of this step */
};

void quire_pages_options_init(struct quire_pages_options *ret_options)
{
    if (ret_options == NULL) return;
    memset(ret_options, 0, sizeof(*ret_options));
    ret_options->struct_size = sizeof(*ret_options);
    ret_options->version = UINT64_MAX;
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

static int check_bound(struct qr_thread *thread, struct quire_slice bound, const char *name)
{
    if (bound.data == NULL && bound.size != 0)
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "%s is NULL, its size is %zu", name, bound.size);
    if (bound.size > QR_MAX_KEY_SIZE)
        return qr_db_fail(thread, QUIRE_ERR_TOO_LARGE, "%s has %zu bytes; at most %u", name, bound.size,
                          QR_MAX_KEY_SIZE);
    return 0;
}

static int check_options(struct quire_tree *tree, struct qr_thread *thread, const struct quire_pages_options *o)
{
    int result = check_bound(thread, o->start, "start");
    if (result == 0) result = check_bound(thread, o->end, "end");
    if (result == 0) result = qr_db_check_snapshot(thread, tree, o->snapshot);
    if (result != 0) return result;
    if (o->start.data != NULL && o->end.data != NULL &&
        qr_compare(o->start.data, o->start.size, o->end.data, o->end.size) > 0)
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "start is above end");
    if (o->reverse > 1) return qr_db_fail(thread, QUIRE_ERR_INVALID, "options.reverse is not 0 or 1");
    if (o->skip_large_values > 1) return qr_db_fail(thread, QUIRE_ERR_INVALID, "options.skip_large_values is not 0 or 1");
    if (tree->tree.settings.caller_versions && o->version < qr_tree_safe_version(&tree->tree))
        return qr_db_fail(thread, QUIRE_ERR_LSN_TOO_OLD, "version is below the safe version");
    return 0;
}

static bool copy_key(struct quire_slice from, uint8_t **key, uint32_t *size, uint32_t *capacity)
{
    if (*key == NULL || from.size > *capacity) {
        uint8_t *grown = qr_realloc(*key, from.size + 64);
        if (grown == NULL) return false;
        *key = grown;
        *capacity = (uint32_t)from.size + 64;
    }
    qr_copy(*key, from.data, from.size);
    *size = (uint32_t)from.size;
    return true;
}

static bool copy_position(struct quire_slice from, struct position *to)
{
    return copy_key(from, &to->key, &to->size, &to->capacity);
}

static void free_pages(struct quire_pages *pages)
{
    qr_hold_release(pages->hold);
    qr_free(pages->entries);
    qr_free(pages->at.key);
    qr_free(pages->next.key);
    qr_free(pages->bound);
    qr_free_aligned(pages->large);
    qr_free(pages);
}

static bool set_range(struct quire_pages *pages, const struct quire_pages_options *o)
{
    struct quire_slice near = pages->reverse ? o->end : o->start;
    struct quire_slice far = pages->reverse ? o->start : o->end;
    uint32_t unused = 0;
    pages->has_end = far.data != NULL;
    pages->at.from_edge = near.data == NULL;
    if (!copy_position(near, &pages->at)) return false;
    if (pages->has_end && !copy_key(far, &pages->bound, &pages->bound_size, &unused)) return false;
    /* Nothing lies below the empty key. */
    if (pages->reverse && !pages->at.from_edge && pages->at.size == 0) pages->at.done = true;
    if (!pages->reverse && pages->has_end && pages->bound_size == 0) pages->at.done = true;
    return true;
}

int quire_pages_open(struct quire_tree *tree, const struct quire_pages_options *options, struct quire_pages **ret_pages)
{
    struct qr_thread *thread = NULL;
    struct quire_pages_options o;
    int result = qr_db_begin_tree(tree, &thread);
    if (result != 0) return result;
    if (ret_pages == NULL) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_pages is NULL");
    quire_pages_options_init(&o);
    result = qr_db_take_options(thread, "pages options", options, &o, sizeof(o));
    if (result == 0) result = check_options(tree, thread, &o);
    if (result != 0) return result;

    struct quire_pages *pages = qr_calloc(1, sizeof(*pages));
    if (pages == NULL) return qr_db_fail(thread, QUIRE_ERR_NO_MEMORY, "no memory for a pages iterator");
    pages->tree = tree;
    pages->version = tree->tree.settings.caller_versions ? o.version : qr_db_version_of(o.snapshot);
    pages->reverse = o.reverse != 0;
    pages->skip_large = o.skip_large_values != 0;
    pages->hold = qr_hold_acquire(tree->db->epoch);
    if (pages->hold == NULL || !set_range(pages, &o)) {
        free_pages(pages);
        return qr_db_fail(thread, QUIRE_ERR_NO_MEMORY, "no memory for a pages iterator");
    }
    qr_db_open_count_add(&tree->db->iterators_open, 1);
    *ret_pages = pages;
    return 0;
}

int quire_pages_close(struct quire_pages *pages)
{
    if (pages == NULL) return 0;
    int result = qr_db_refuse_child(pages->tree->db);
    if (result != 0) return result;
    qr_db_open_count_add(&pages->tree->db->iterators_open, UINT32_MAX);
    free_pages(pages);
    return 0;
}

/* ---- A step ----------------------------------------------------------------------------------------------------- */

/* The next leaf in the order of iteration. */
static int find_leaf(struct quire_pages *pages, struct qr_op *op, struct qr_leaf_spot *ret_spot)
{
    struct qr_key key = qr_key_make(pages->at.key, pages->at.size);
    struct quire_slice low = {pages->at.key, pages->at.size};
    if (!pages->reverse) {
        if (qr_tree_leaf_if_low(op, pages->next_pid, low, ret_spot)) return 0;
        return qr_tree_leaf_at(op, &key, false, ret_spot);
    }
    if (pages->at.from_edge) return qr_tree_last_leaf(op, ret_spot);
    return qr_tree_leaf_at(op, &key, true, ret_spot);
}

static bool room_for(struct quire_pages *pages, const struct qr_leaf_view *view)
{
    uint32_t needed = view->page->count + view->chain;
    if (needed <= pages->entry_capacity) return true;
    uint32_t capacity = needed + needed / 4 + 16;
    struct quire_entry *entries = qr_malloc(capacity * sizeof(*entries));
    if (entries == NULL) return false;
    qr_free(pages->entries);
    pages->entries = entries;
    pages->entry_capacity = capacity;
    return true;
}

/* First entry whose key is not below `key`. */
static size_t lower_bound(const struct quire_entry *entries, size_t count, const void *key, size_t key_size)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (qr_compare(entries[middle].key, entries[middle].key_size, key, key_size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Cuts what lies outside the range, and turns the rest around in reverse. */
static void trim(struct quire_pages *pages, const struct qr_page *page, uint32_t count, struct quire_page *ret_page)
{
    struct quire_entry *entries = pages->entries;
    struct quire_slice low = qr_page_low(page);
    size_t from = 0;
    size_t to = count;
    const uint8_t *near = pages->at.key;
    uint32_t near_size = pages->at.size;

    if (!pages->reverse) {
        if (!qr_equal(low.data, low.size, near, near_size)) from = lower_bound(entries, to, near, near_size);
        if (pages->has_end) to = lower_bound(entries, to, pages->bound, pages->bound_size);
    } else {
        if (!pages->at.from_edge) to = lower_bound(entries, to, near, near_size);
        if (pages->has_end) from = lower_bound(entries, to, pages->bound, pages->bound_size);
        for (size_t i = from, j = to; i + 1 < j; i++, j--) {
            struct quire_entry other = entries[i];
            entries[i] = entries[j - 1];
            entries[j - 1] = other;
        }
    }
    *ret_page = (struct quire_page){.reverse = pages->reverse};
    if (to > from) {
        ret_page->count = to - from;
        ret_page->entries = entries + from;
    }
}

/* Whether the far bound lies in this page, or nothing is behind it. */
static bool is_last(const struct quire_pages *pages, const struct qr_page *page)
{
    struct quire_slice low = qr_page_low(page);
    struct quire_slice high = qr_page_high(page);
    if (pages->reverse)
        return low.size == 0 ||
               (pages->has_end && qr_compare(low.data, low.size, pages->bound, pages->bound_size) <= 0);
    return (page->flags & QR_PAGE_HIGH_INFINITE) != 0 ||
           (pages->has_end && qr_compare(high.data, high.size, pages->bound, pages->bound_size) >= 0);
}

/* Whether the step after a leaf that ends at `next` is another one. Of damaged pages it may not be. */
static bool goes_on(const struct quire_pages *pages, struct quire_slice next)
{
    int order = qr_compare(next.data, next.size, pages->at.key, pages->at.size);
    return pages->reverse ? pages->at.from_edge || order < 0 : order > 0;
}

/* One leaf, inside a section: 0 with *ret_page, which may be empty, whether entries may be references, and `next`. */
static int step(struct quire_pages *pages, struct qr_op *op, struct quire_page *ret_page, bool *ret_large)
{
    struct qr_leaf_spot spot;
    int result = find_leaf(pages, op, &spot);
    if (result != 0) return result;
    const struct qr_page *page = spot.view.page;
    if (!room_for(pages, &spot.view)) return QUIRE_ERR_NO_MEMORY;
    if (!pages->reverse) {
        pages->next_pid = page->right_pid;
        qr_tree_prefetch_leaf(op, pages->next_pid); /* likely to be the next step */
    }
    uint32_t count = qr_leaf_entries(&spot.view, pages->version, pages->entries);
    if (!pages->reverse) qr_tree_prefetch_behind(op, pages->next_pid);
    /* Looked at after the page: what was collected from it was collected for a safe version that is seen here. */
    if (pages->version < qr_tree_safe_version(&pages->tree->tree)) return QUIRE_ERR_LSN_TOO_OLD;
    trim(pages, page, count, ret_page);
    *ret_large = (page->flags & QR_PAGE_BLOBS) != 0 || spot.view.chain != 0;
    bool last = is_last(pages, page);
    struct quire_slice next = pages->reverse ? qr_page_low(page) : qr_page_high(page);
    if (!last && !goes_on(pages, next))
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu leads a scan back", (unsigned long long)page->pid);
    if (!last && !copy_position(next, &pages->next)) return QUIRE_ERR_NO_MEMORY;
    pages->next.done = last;
    qr_hold_set(pages->hold, page);
    return 0;
}

/* The step is done. */
static void advance(struct quire_pages *pages)
{
    struct position done = pages->at;
    pages->at = pages->next;
    pages->next = done;
    pages->next.from_edge = false;
}

/* ---- Large values ----------------------------------------------------------------------------------------------- */

/* The step hands out the first `count` entries only; the next one goes on behind them. */
static int cut(struct quire_pages *pages, struct quire_page *page, size_t count)
{
    const struct quire_entry *entry = &page->entries[pages->reverse ? count - 1 : count];
    if (!copy_position((struct quire_slice){entry->key, entry->key_size}, &pages->next)) return QUIRE_ERR_NO_MEMORY;
    pages->next.done = false;
    page->count = count;
    return 0;
}

/* The value of entry i cannot be read: the step ends before it, or fails if it is the first one. */
static int end_before(struct quire_pages *pages, struct quire_page *page, size_t i, const struct qr_blob_ref *ref, int result,
                      uint64_t *gone)
{
    if (result == QR_STORE_GONE && *gone == ref->address) result = qr_db_blob_missing(ref);
    if (result == QR_STORE_GONE) *gone = ref->address;
    return i == 0 ? result : cut(pages, page, i);
}

/* Entries that hold references, without their mark: how many of the page fit a step, and the bytes of their values. */
static int measure(struct quire_pages *pages, struct quire_page *page, uint64_t *gone, uint64_t *ret_bytes)
{
    *ret_bytes = 0;
    for (size_t i = 0; i < page->count; i++) {
        struct qr_blob_ref ref;
        if ((page->entries[i].value_size & QR_ENTRY_BLOB) == 0) continue;
        if (!qr_blob_ref_decode(page->entries[i].value, &ref))
            return qr_fail(QUIRE_ERR_CORRUPT, 0, "a blob reference is none");
        if (!pages->skip_large && *ret_bytes != 0 && *ret_bytes + ref.size > LARGE_BYTES) return cut(pages, page, i);
        int result = pages->skip_large ? 0 : qr_db_blob_look(pages->tree->db, &ref);
        if (result != 0) return end_before(pages, page, i, &ref, result, gone);
        *ret_bytes += qr_round_up(ref.size, 64);
    }
    return 0;
}

/* Reads the value of each entry, to the iterator's memory. Those before one that cannot be read are handed out without it. */
static int read_large(struct quire_pages *pages, struct quire_page *page, uint64_t *gone)
{
    struct qr_store *store = pages->tree->db->checkpointer.store;
    uint64_t bytes = 0;
    int result = measure(pages, page, gone, &bytes);
    if (result != 0 || bytes == 0) return result;
    qr_free_aligned(pages->large);
    pages->large = pages->skip_large ? NULL : qr_malloc_aligned(64, bytes);
    if (pages->large == NULL && !pages->skip_large)
        return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for %llu bytes of large values", (unsigned long long)bytes);
    bytes = 0;
    for (size_t i = 0; i < page->count; i++) {
        struct quire_entry *entry = &pages->entries[page->entries - pages->entries + (ptrdiff_t)i];
        struct qr_blob_ref ref;
        if ((entry->value_size & QR_ENTRY_BLOB) == 0 || !qr_blob_ref_decode(entry->value, &ref)) continue;
        entry->value = NULL;
        entry->value_size = ref.size;
        if (pages->skip_large) continue;
        result = qr_blob_read(store, &ref, pages->large + bytes);
        if (result != 0) return end_before(pages, page, i, &ref, result, gone);
        entry->value = pages->large + bytes;
        bytes += qr_round_up(ref.size, 64);
    }
    return 0;
}

int quire_pages_next(struct quire_pages *pages, struct quire_page *ret_page)
{
    struct qr_thread *thread = NULL;
    struct quire_page page = {0};
    struct qr_op op;
    if (pages == NULL) return qr_fail(QUIRE_ERR_INVALID, 0, "pages is NULL");
    int result = qr_db_begin_tree(pages->tree, &thread);
    if (QR_UNLIKELY(result != 0)) return result;
    if (ret_page == NULL) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_page is NULL");

    qr_op_init(&op, &pages->tree->tree, thread);
    uint64_t gone = 0;
    bool large = false;
    do {
        page.count = 0;
        result = 0;
        qr_epoch_enter(thread);
        while (result == 0 && page.count == 0 && !pages->at.done) {
            result = step(pages, &op, &page, &large);
            if (QR_UNLIKELY(result == QR_FETCH))
                result = qr_db_fetch(pages->tree->db, &op);
            else if (result == 0 && page.count == 0)
                advance(pages);
        }
        qr_epoch_exit(thread);
        if (QR_UNLIKELY(op.image_count != 0)) qr_op_done(&op);
        if (QR_UNLIKELY(result != 0)) return qr_db_fail_below(thread, result);
        if (large && page.count != 0 && pages->tree->db->files != NULL) result = read_large(pages, &page, &gone);
    } while (result == QR_STORE_GONE); /* what was found was replaced since */
    if (QR_UNLIKELY(result != 0)) return qr_db_fail_below(thread, result);
    if (page.count == 0) {
        qr_hold_set(pages->hold, NULL);
        return QUIRE_END;
    }
    advance(pages);
    qr_db_count(pages->tree->db, thread, QR_COUNTER_PAGES_READ, 1);
    qr_db_count(pages->tree->db, thread, QR_COUNTER_ENTRIES_READ, page.count);
    *ret_page = page;
    return 0;
}

size_t quire_page_seek(const struct quire_page *page, const void *key, size_t key_size)
{
    if (page == NULL || page->count == 0 || (key == NULL && key_size != 0)) return 0;
    if (page->reverse == 0)
        return lower_bound(page->entries, page->count, key, key_size);
    size_t low = 0;
    size_t high = page->count;
    while (low < high) { /* descending: first entry whose key is not above `key` */
        size_t middle = low + (high - low) / 2;
        if (qr_compare(page->entries[middle].key, page->entries[middle].key_size, key, key_size) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---- Counting --------------------------------------------------------------------------------------------------- */

int quire_count(struct quire_tree *tree, struct quire_snapshot *snapshot, struct quire_slice start,
                struct quire_slice end, uint64_t *ret_count)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    uint64_t count = 0;
    struct qr_thread *thread = NULL;
    int result = qr_db_begin_tree(tree, &thread);
    if (result != 0) return result;
    if (ret_count == NULL) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_count is NULL");
    if (tree->tree.settings.caller_versions)
        return qr_db_fail(thread, QUIRE_ERR_UNSUPPORTED, "the tree has caller versions");
    quire_pages_options_init(&options);
    options.start = start;
    options.end = end;
    options.snapshot = snapshot;
    options.skip_large_values = 1;
    result = quire_pages_open(tree, &options, &pages);
    if (result != 0) return result;
    while ((result = quire_pages_next(pages, &page)) == 0) count += page.count;
    quire_pages_close(pages);
    if (result != QUIRE_END) return result;
    *ret_count = count;
    return 0;
}
