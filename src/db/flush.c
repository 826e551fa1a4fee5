/*
 * flush.c: pages of the trees to the store, and back.
 *
 * Layer 6. The tree knows how an image is made of a page and when it still holds (tree/flush.c), the store how it is written;
 * here a group of pages goes from one to the other. The caller holds the mutex of checkpoints.
 */
#include "db/flush.h"

#include "base/alloc.h"
#include "base/stop.h"
#include "db/db.h"

#define GROUP_PAGES 256u
#define TRIES 100000u
#define GROUP_BYTES ((uint64_t)2 << 20)

/* Images under way: made in sections, written outside. */
struct group {
    struct quire *db;
    struct qr_thread *thread;
    uint32_t count;
    uint64_t bytes;
    unsigned flags; /* of qr_store_write */
    struct qr_flush flushes[GROUP_PAGES];
    struct qr_store_image images[GROUP_PAGES];
};

static int group_make(struct quire *db, struct qr_thread *thread, struct group **ret_group)
{
    struct group *group = qr_malloc(sizeof(*group));
    if (group == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory to flush pages");
    group->db = db;
    group->thread = thread;
    group->count = 0;
    group->bytes = 0;
    group->flags = QR_STORE_RESERVE;
    *ret_group = group;
    return 0;
}

static void group_clear(struct group *group)
{
    for (uint32_t i = 0; i < group->count; i++) qr_free((void *)(uintptr_t)group->images[i].bytes);
    group->count = 0;
    group->bytes = 0;
}

static bool is_full(const struct group *group)
{
    return group->count == GROUP_PAGES || group->bytes >= GROUP_BYTES;
}

/* Copies an image that was made. In the section. */
static int add(struct group *group, const struct qr_flush *flush)
{
    const struct qr_page *page = flush->page;
    uint8_t *copy = qr_malloc(page->content_bytes);
    if (copy == NULL) return QUIRE_ERR_NO_MEMORY;
    qr_tree_flush_copy(flush, copy);
    group->flushes[group->count] = *flush;
    group->images[group->count++] = (struct qr_store_image){
        .pid = flush->pid,
        .tree_id = page->tree_id,
        .kind = page->kind == QR_PAGE_LEAF ? QR_STORE_LEAF : QR_STORE_INNER,
        .level = page->level,
        .min_lsn = flush->min_lsn,
        .max_lsn = flush->max_lsn,
        .bytes = copy,
        .size = page->content_bytes,
    };
    group->bytes += page->content_bytes;
    return 0;
}

static struct quire_tree *tree_of(struct quire *db, uint32_t id)
{
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    return id < count ? handles[id] : NULL;
}

/* Makes the image of one page. 0: it is in the group; QUIRE_NOT_FOUND: nothing to do; QR_RETRY: another time. */
static int take_page(struct group *group, uint64_t pid)
{
    struct quire *db = group->db;
    struct qr_flush flush;
    struct qr_op op;
    uint32_t tree_id;
    uint64_t first;
    bool begun = false, again;
    const struct qr_checkpointer *cp = &db->checkpointer;
    int result = qr_epoch_prepare(group->thread);
    if (result != 0) return result;
    qr_epoch_enter(group->thread);
    struct quire_tree *tree = qr_tree_first_lsn(db->map, pid, &tree_id, &first) ? tree_of(db, tree_id) : NULL;
    if (cp->as_of_lsn != 0 && tree != NULL && tree_id >= cp->as_of_trees) tree = NULL; /* CHECK-8 */
    if (tree != NULL) {
        qr_op_init(&op, &tree->tree, group->thread);
        begun = true;
        do {
            result = qr_tree_flush_begin(&op, pid, cp->as_of_lsn, &flush);
            again = result == QR_FETCH;
            if (again) result = qr_db_fetch(db, &op);
        } while (again && result == 0);
    } else {
        result = QUIRE_NOT_FOUND; /* a tree that is just being created is in the next round */
    }
    if (result == 0) {
        result = add(group, &flush);
        qr_tree_flush_done(&flush);
    }
    qr_epoch_exit(group->thread);
    if (begun) qr_op_done(&op);
    return result;
}

/*
 * The same. At the memory limit it waits as a deletion does: the blocks that the flush has replaced come back. When that does not
 * help, the page is left out, and those after it that find no memory either: the capture makes its image, which needs none.
 */
static int take_page_at_limit(struct group *group, uint64_t pid, bool *patient)
{
    struct qr_memory_wait wait = {.use_reserve = true};
    int result;
    do {
        result = take_page(group, pid);
        if (result != QUIRE_ERR_NO_MEMORY) return result;
        *patient = *patient && qr_db_wait_memory(group->db, group->thread, &wait) == 0;
    } while (*patient);
    return QUIRE_NOT_FOUND;
}

/* The same as of an LSN: no page may be left out (CHECK-8). At the limit it borrows. */
static int take_page_as_of(struct group *group, uint64_t pid)
{
    struct quire *db = group->db;
    struct qr_memory_wait wait = {.use_reserve = true};
    unsigned tries = TRIES;
    bool again;
    int result;
    do {
        result = take_page(group, pid);
        again = result == QR_RETRY && --tries != 0;
        if (result == QUIRE_ERR_NO_MEMORY)
            again = qr_db_wait_memory(db, group->thread, &wait) == 0 || qr_db_lend_memory(db);
    } while (again);
    /* A page that is sealed keeps what it has to save until the merge is done, which the capture sees to. */
    if (result == QUIRE_NOT_FOUND && qr_word_tag(qr_map_load(db->map, pid)) == QR_WORD_SEALED) qr_map_note_change(db->map, pid);
    if (result == QR_RETRY) return qr_fail(QUIRE_ERR_BUSY, 0, "a page changes faster than it can be looked at");
    return result == QUIRE_ERR_NO_MEMORY ? qr_fail(result, 0, "the memory limit leaves no room for a checkpoint") : result;
}

/* Writes the group and enters what still holds. */
static int write_group(struct group *group)
{
    struct quire *db = group->db;
    struct qr_store *store = db->checkpointer.store;
    if (group->count == 0) return 0;
    int result = qr_store_write(store, group->images, group->count, group->flags);
    QR_STOP("flush.written");
    if (result == 0) {
        qr_epoch_enter(group->thread);
        for (uint32_t i = 0; i < group->count; i++) {
            /* In one section: the id cannot be freed and used again between the look and the entry. */
            const uint64_t pid = group->images[i].pid;
            if (qr_tree_flush_end(db->map, &group->flushes[i], group->images[i].address)) {
                qr_store_enter(store, pid, group->images[i].address);
            } else {
                qr_store_forget(store, group->images[i].address);
                if (db->checkpointer.as_of_lsn != 0) qr_map_note_change(db->map, pid); /* CHECK-8: it is captured */
            }
        }
        qr_epoch_exit(group->thread);
        /* relaxed: statistics */
        atomic_fetch_add_explicit(&db->checkpointer.pages_flushed, group->count, memory_order_relaxed);
    }
    group_clear(group);
    return result;
}

int qr_db_flush(struct quire *db, struct qr_thread *thread, const uint64_t *pids, uint64_t count, unsigned flags)
{
    struct group *group = NULL;
    int result = group_make(db, thread, &group);
    bool patient = true;
    const bool as_of = db->checkpointer.as_of_lsn != 0;
    if (result != 0) return result;
    group->flags = flags;
    for (uint64_t i = 0; i < count && result == 0; i++) {
        result = as_of ? take_page_as_of(group, pids[i]) : take_page_at_limit(group, pids[i], &patient);
        if (result == QUIRE_NOT_FOUND || result == QR_RETRY) result = 0;
        if (result == 0 && is_full(group)) result = write_group(group);
        if (!qr_epoch_process_guarded() && db->thread_count == 0) qr_db_after_write(db, thread);
    }
    if (result == 0) result = write_group(group);
    if (as_of) qr_db_return_memory(db);
    group_clear(group);
    qr_free(group);
    return result;
}

/* ---- What was captured ------------------------------------------------------------------------------------------ */

/* Makes the image of a captured word; in the section in which it was captured, which is never left. */
static int take_captured(struct group *group, uint64_t pid, qr_word word)
{
    struct quire *db = group->db;
    const struct qr_page *page = qr_word_block(word);
    struct quire_tree *tree = tree_of(db, page->tree_id);
    struct qr_flush flush;
    struct qr_op op;
    if (tree == NULL) { /* the root of a tree that is just being created (CATALOGUE-3) */
        qr_map_note_change(db->map, pid);
        return QUIRE_NOT_FOUND;
    }
    QR_ASSERT(page->pid == pid);
    qr_op_init(&op, &tree->tree, group->thread);
    int result = qr_tree_flush_captured(&op, word, db->checkpointer.as_of_lsn, &flush);
    if (result == 0) {
        result = add(group, &flush);
        qr_tree_flush_done(&flush);
    }
    qr_op_done(&op);
    return result == QR_FETCH ? QUIRE_ERR_IO : result;
}

int qr_db_flush_captured(struct quire *db, struct qr_thread *thread, const struct qr_captured *pages, uint64_t count,
                         struct qr_db_images **ret_images)
{
    uint64_t groups = count / GROUP_PAGES + 1;
    struct qr_db_images *images = qr_calloc(1, sizeof(*images) + groups * sizeof(struct group *));
    int result = images == NULL ? QUIRE_ERR_NO_MEMORY : 0;
    for (uint64_t i = 0; i < count && result == 0; i++) {
        struct group *group = images->count == 0 ? NULL : images->groups[images->count - 1];
        if (group == NULL || group->count == GROUP_PAGES) {
            result = group_make(db, thread, &group);
            if (result != 0) break;
            images->groups[images->count++] = group;
        }
        result = take_captured(group, pages[i].pid, pages[i].word);
        if (result == QUIRE_NOT_FOUND) result = 0;
    }
    if (result == 0)
        *ret_images = images;
    else
        qr_db_images_free(images);
    return result == QUIRE_ERR_NO_MEMORY ? qr_fail(result, 0, "no memory for a checkpoint") : result;
}

int qr_db_images_write(struct quire *db, struct qr_db_images *images, struct qr_store_capture *capture,
                       uint64_t *max_lsn)
{
    for (uint32_t g = 0; g < images->count; g++) {
        struct group *group = images->groups[g];
        if (group->count == 0) continue;
        int result = qr_store_write(db->checkpointer.store, group->images, group->count, QR_STORE_RESERVE);
        if (result != 0) return result;
        for (uint32_t i = 0; i < group->count; i++) {
            qr_store_capture_enter(capture, group->images[i].pid, group->images[i].address);
            *max_lsn = qr_max(*max_lsn, group->images[i].max_lsn);
        }
        group_clear(group);
    }
    return 0;
}

void qr_db_images_free(struct qr_db_images *images)
{
    if (images == NULL) return;
    for (uint32_t g = 0; g < images->count; g++) {
        group_clear(images->groups[g]);
        qr_free(images->groups[g]);
    }
    qr_free(images);
}

/* ---- Back ------------------------------------------------------------------------------------------------------- */

struct reading {
    struct quire *db;
    struct qr_thread *thread;
    size_t block_size;
};

static void *alloc_block(void *context, size_t size)
{
    struct reading *reading = context;
    return qr_arena_alloc(reading->db->arena, &reading->thread->cache, size, true, &reading->block_size);
}

const char *qr_db_adopt_image(void *bytes, uint32_t size, size_t block_size, uint64_t pid, uint64_t address)
{
    struct qr_page *page = bytes;
    if (size < QR_PAGE_HEADER || page->content_bytes != size) return "its size is not that of the image";
    page->block_size = (uint32_t)block_size;
    page->area_offset = (uint32_t)block_size; /* a page fetched for reading has no room for deltas */
    atomic_init(&page->area_used, 0);
    atomic_init(&page->image, address << 1);
    page->image_address = address;
    page->first_lsn = 0;
    return page->pid != pid ? "it is another page" : qr_page_check_bytes(page, block_size);
}

/* Whether the ids in a page are such as the map has. What is behind them is seen when they are followed. */
static bool names_possible_ids(const struct qr_map *map, const struct qr_page *page)
{
    if (page->right_pid >= map->capacity) return false;
    for (uint32_t i = 0; page->kind == QR_PAGE_INNER && i < page->count; i++)
        if (qr_inner_child(page, i) >= map->capacity) return false;
    return true;
}

int qr_db_read_page(void *context, struct qr_thread *thread, uint64_t pid, uint64_t address, struct qr_page **ret_page)
{
    struct quire *db = context;
    struct reading reading = {.db = db, .thread = thread};
    void *bytes = NULL;
    uint32_t size;
    int result = qr_store_read(db->checkpointer.store, address, pid, alloc_block, &reading, &bytes, &size);
    if (result == QR_STORE_GONE) return QR_RETRY;
    if (result != 0) return result;
    struct qr_page *page = bytes;
    const char *bad = qr_db_adopt_image(bytes, size, reading.block_size, pid, address);
    if (bad == NULL && !names_possible_ids(db->map, page)) bad = "a page id that is none";
    /* The tail is above all that was given out (RECOVER-2); writers would look for an LSN above it. */
    if (bad == NULL && page->max_lsn >= qr_log_tail(&db->log)) bad = "an LSN that was never given out";
    if (bad == NULL) {
        *ret_page = page;
        return 0;
    }
    qr_arena_free(db->arena, &thread->cache, page, reading.block_size);
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu at address %llu: %s", (unsigned long long)pid,
                   (unsigned long long)address, bad);
}

int qr_db_locate_page(struct quire *db, uint64_t pid)
{
    struct qr_store_entry entry;
    qr_word unloaded = {0};
    QR_STOP("page.locate");
    int result = qr_store_lookup(db->checkpointer.store, pid, &entry);
    /* Others may have located it since, read it, and merged it away; the store forgets it before its id can be another's. */
    if (result == QUIRE_NOT_FOUND && qr_word_tag(qr_map_load(db->map, pid)) != QR_WORD_UNLOADED) return 0;
    if (result == QUIRE_NOT_FOUND)
        return qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu is named and is not in the mapping", (unsigned long long)pid);
    if (result != 0) return result;
    qr_map_cas(db->map, pid, &unloaded, qr_word_number(QR_WORD_DISK, entry.address));
    return 0;
}
