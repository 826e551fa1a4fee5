/*
 * testing_store.c: the test store, and dropping pages.
 *
 * Layer 6, testing library only. An image is kept under an address that is never given out twice. For each page id the
 * newest image is kept; whoever asks for an older one has met a word that is gone, and is told to look again.
 */
#include "db/db.h"
#include "db/testing.h"

struct image {
    uint64_t address, pid;
    struct image *next; /* in the bucket of its pid */
    size_t size;
    uint8_t bytes[];
};

#define BUCKETS 4096u

struct test_store {
    struct quire *db;
    pthread_mutex_t mutex;
    uint64_t next_address;
    uint64_t count;
    uint64_t fail_countdown; /* reads until the one that fails, that one included; 0 = none planned */
    struct image *buckets[BUCKETS];
};

/* Keeps a copy of the page; the id's older images go when it is installed. */
static uint64_t store_page(struct test_store *store, const struct qr_page *page)
{
    struct image *image = qr_malloc(sizeof(*image) + page->content_bytes);
    if (image == NULL) return 0;
    image->pid = page->pid;
    image->size = page->content_bytes;
    memcpy(image->bytes, page, image->size);
    pthread_mutex_lock(&store->mutex);
    uint64_t address = image->address = ++store->next_address;
    image->next = store->buckets[page->pid % BUCKETS];
    store->buckets[page->pid % BUCKETS] = image;
    store->count++;
    pthread_mutex_unlock(&store->mutex);
    return address; /* the image may be gone already: another thread has dropped the page */
}

/* Drops images of the id: the one at the address if `only`, else all older ones. (A newer one may have been installed
 * meanwhile by somebody else who dropped the page.) */
static void forget(struct test_store *store, uint64_t pid, uint64_t address, bool only)
{
    pthread_mutex_lock(&store->mutex);
    struct image **link = &store->buckets[pid % BUCKETS];
    while (*link != NULL) {
        struct image *image = *link;
        if (image->pid == pid && (only ? image->address == address : image->address < address)) {
            *link = image->next;
            qr_free(image);
            store->count--;
        } else {
            link = &image->next;
        }
    }
    pthread_mutex_unlock(&store->mutex);
}

/* struct qr_page_source. The pid is not part of the address, so the search goes over all buckets from the address. */
static int read_page(void *context, struct qr_thread *thread, uint64_t pid, uint64_t address, struct qr_page **ret_page)
{
    struct test_store *store = context;
    int result = QR_RETRY;
    pthread_mutex_lock(&store->mutex);
    struct image *image = store->buckets[pid % BUCKETS];
    while (image != NULL && image->address != address) image = image->next;
    if (store->fail_countdown != 0 && --store->fail_countdown == 0) {
        result = qr_fail(QUIRE_ERR_CORRUPT, 0, "page %llu: failed verification, as the test wants", (unsigned long long)pid);
    } else if (image != NULL) {
        size_t block_size;
        struct qr_page *page = qr_arena_alloc(store->db->arena, &thread->cache, image->size, true, &block_size);
        result = page == NULL ? QUIRE_ERR_NO_MEMORY : 0;
        if (page != NULL) {
            memcpy(page, image->bytes, image->size);
            page->block_size = (uint32_t)block_size;
            page->area_offset = (uint32_t)block_size; /* a page fetched for reading has no room for deltas */
            page->image_address = address;
            atomic_init(&page->area_used, 0);
            *ret_page = page;
        }
    }
    pthread_mutex_unlock(&store->mutex);
    return result;
}

static void destroy_store(void *context)
{
    struct test_store *store = context;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        while (store->buckets[i] != NULL) {
            struct image *image = store->buckets[i];
            store->buckets[i] = image->next;
            qr_free(image);
        }
    }
    pthread_mutex_destroy(&store->mutex);
    qr_free(store);
}

int qr_testing_attach_store(struct quire *db)
{
    if (db->files != NULL) return QUIRE_ERR_UNSUPPORTED; /* its pages have a place of their own */
    struct test_store *store = qr_calloc(1, sizeof(*store));
    if (store == NULL) return QUIRE_ERR_NO_MEMORY;
    store->db = db;
    pthread_mutex_init(&store->mutex, NULL);
    db->source = (struct qr_page_source){.context = store, .read = read_page, .destroy = destroy_store};
    return 0;
}

void qr_testing_fail_read(struct quire *db, uint64_t n)
{
    struct test_store *store = db->source.context;
    if (store == NULL) return;
    pthread_mutex_lock(&store->mutex);
    store->fail_countdown = n;
    pthread_mutex_unlock(&store->mutex);
}

uint64_t qr_testing_stored_pages(struct quire *db)
{
    struct test_store *store = db->source.context;
    if (store == NULL) return 0;
    pthread_mutex_lock(&store->mutex);
    uint64_t count = store->count;
    pthread_mutex_unlock(&store->mutex);
    return count;
}

/* ---- Dropping --------------------------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Drops one page, to a stub if asked and possible. 0: dropped. */
static int drop(struct test_store *store, struct qr_op *op, struct qr_evict *evict, bool to_stub)
{
    struct qr_page *image = NULL;
    bool stub = to_stub && evict->page->kind == QR_PAGE_LEAF && (evict->page->flags & QR_PAGE_STUB) == 0 &&
                qr_word_chain(evict->word) != 0;
    int result = stub ? qr_tree_evict_base_image(op, evict, &image) : qr_tree_evict_image(op, evict, &image);
    if (result != 0) return result;
    uint64_t address = store_page(store, image);
    qr_arena_free(store->db->arena, &op->thread->cache, image, image->block_size);
    if (address == 0) return QUIRE_ERR_NO_MEMORY;
    result = stub ? qr_tree_evict_base(op, evict, address) : qr_tree_evict(op, evict, address);
    forget(store, evict->pid, address, result != 0);
    return result;
}

/* The page of an id, if it is one in memory: its tree, level and low key lead to it. */
static bool drop_pid(struct test_store *store, struct qr_thread *thread, uint64_t pid, bool leaves, bool to_stub)
{
    struct quire *db = store->db;
    struct qr_evict evict;
    struct qr_op op;
    int result = QUIRE_NOT_FOUND;
    if (qr_epoch_prepare(thread) != 0) return false;
    qr_epoch_enter(thread);
    qr_word word = qr_map_load(db->map, pid);
    if (qr_word_tag(word) == QR_WORD_HEAD) {
        const struct qr_page *page = qr_word_block(word);
        struct quire_slice low = qr_page_low(page);
        struct qr_key key = qr_key_make(low.data, low.size);
        uint8_t level = page->level;
        /* order: db.handles.read pairs with db.handles.add, db.handles.grow */
        struct quire_tree **handles = atomic_load_explicit(&db->handles, memory_order_acquire);
        qr_op_init(&op, &handles[page->tree_id]->tree, thread);
        op.use_reserve = true;
        if ((level == 0) == leaves) result = qr_tree_evict_prepare(&op, &key, level, &evict);
        if (result == 0 && evict.pid == pid) result = drop(store, &op, &evict, to_stub);
        qr_op_done(&op);
    }
    qr_epoch_exit(thread);
    return result == 0;
}

uint64_t qr_testing_drop_pages(struct quire *db, uint64_t seed, unsigned percent)
{
    struct qr_thread *thread = NULL;
    uint64_t dropped = 0;
    struct test_store *store = db->source.context;
    if (store == NULL || qr_db_begin(db, &thread) != 0) return 0;
    /* relaxed: ids made meanwhile are left for the next time */
    uint64_t end = atomic_load_explicit(&db->map->next_pid, memory_order_relaxed);
    for (int pass = 0; pass < 2; pass++) { /* leaves first: they are found through what is above them */
        for (uint64_t pid = QR_PID_NONE + 1; pid < end; pid++) {
            uint64_t random = next_random(&seed);
            if (random % 100 < percent) dropped += drop_pid(store, thread, pid, pass == 0, (random >> 32) % 3 == 0);
        }
    }
    return dropped;
}

/* ---- Consolidating ---------------------------------------------------------------------------------------------- */

int qr_testing_consolidate(struct quire_tree *tree, uint64_t seed, unsigned percent)
{
    struct qr_thread *thread = NULL;
    struct qr_walk walk = {0};
    struct qr_op op;
    uint64_t changes = 0;
    int result = qr_db_begin_tree(tree, &thread);
    if (result != 0) return result;
    qr_op_init(&op, &tree->tree, thread);
    do {
        if (qr_epoch_prepare(thread) != 0) result = QUIRE_ERR_NO_MEMORY;
        qr_epoch_enter(thread);
        bool consolidate = next_random(&seed) % 100 < percent;
        if (result == 0) result = qr_tree_walk_leaf(&op, &walk, consolidate, &changes);
        if (result == QR_FETCH) result = qr_db_fetch(tree->db, &op);
        qr_epoch_exit(thread);
    } while (result == 0);
    qr_op_done(&op);
    qr_walk_done(&walk);
    return result == QUIRE_END ? 0 : result;
}
