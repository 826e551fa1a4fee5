/*
 * trees.c: the named trees of a database and the catalogue that lists them.
 *
 * Layer 6. The catalogue is itself a tree, with id 0: key = name, value = settings, root and safe version (struct entry).
 * Opening and creating trees is serialized by a mutex, and so is raising safe versions; the operations on trees never take
 * it.
 *
 * CATALOGUE-1  With files a safe version is in the catalogue, as durable as the database's level says, before it is in force
 *              (quire_set_safe_lsn). So what was collected by it, or refused, is below it after every reopening.
 * CATALOGUE-2  During replay safe versions are noted only, and in force after the last record: a write that was accepted
 *              beside a raise may stand behind it in the log, and what was collected before it came would not know of it.
 * CATALOGUE-3  A checkpoint may come between the record of a new tree and its handle, without which the root has no image. So from
 *              before the record to the handle replay_from is held below the record, and the next checkpoint has the root. An opening
 *              that finds the record and no root makes an empty one, with its id: all that the tree has is still to be replayed.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/stop.h"
#include "db/db.h"

#define FIRST_CAPACITY 16u

/* A catalogue record's value. */
struct entry {
    uint32_t format; /* 1 */
    uint32_t id;
    uint64_t root;
    uint32_t leaf_page_size_bytes, inner_page_size_bytes;
    uint32_t chain_limit, align_log2, caller_versions;
    uint32_t reserved;
    uint64_t safe_version; /* caller versions: 0 = not set */
};

/* ---- Options ---------------------------------------------------------------------------------------------------- */

void quire_tree_options_init(struct quire_tree_options *ret_options)
{
    if (ret_options == NULL) return;
    memset(ret_options, 0, sizeof(*ret_options));
    ret_options->struct_size = sizeof(*ret_options);
}

static bool page_size_fits(uint32_t size)
{
    return size == 0 || (size >= 512 && size <= 65536);
}

static int check_options(struct qr_thread *thread, const struct quire_tree_options *o)
{
    const char *bad = NULL;
    if (o->versions > QUIRE_VERSIONS_CALLER) bad = "versions";
    if (!page_size_fits(o->leaf_page_size_bytes)) bad = "leaf_page_size_bytes";
    if (!page_size_fits(o->inner_page_size_bytes)) bad = "inner_page_size_bytes";
    if (o->page_chain_length > QR_CHAIN_MAX) bad = "page_chain_length";
    if (o->value_alignment > 64 || (o->value_alignment & (o->value_alignment - 1)) != 0) bad = "value_alignment";
    if (o->must_exist > 1) bad = "must_exist";
    if (o->must_create > 1 || (o->must_create == 1 && o->must_exist == 1)) bad = "must_create";
    if (bad == NULL) return 0;
    return qr_db_fail(thread, QUIRE_ERR_INVALID, "tree options.%s is out of range", bad);
}

static struct qr_tree_settings settings_of(const struct quire_tree_options *o)
{
    uint32_t align = o->value_alignment == 0 ? 1 : o->value_alignment;
    return (struct qr_tree_settings){
        .leaf_page_size_bytes = o->leaf_page_size_bytes == 0 ? 8192 : o->leaf_page_size_bytes,
        .inner_page_size_bytes = o->inner_page_size_bytes == 0 ? 8192 : o->inner_page_size_bytes,
        .chain_limit = o->page_chain_length == 0 ? QR_CHAIN_MAX : o->page_chain_length,
        .align_log2 = (uint8_t)__builtin_ctz(align),
        .caller_versions = o->versions == QUIRE_VERSIONS_CALLER,
    };
}

static void options_of(const struct qr_tree_settings *s, struct quire_tree_options *o)
{
    quire_tree_options_init(o);
    o->versions = s->caller_versions ? QUIRE_VERSIONS_CALLER : QUIRE_VERSIONS_ENGINE;
    o->leaf_page_size_bytes = qr_tree_leaf_page_size(s);
    o->inner_page_size_bytes = qr_tree_inner_page_size(s);
    o->page_chain_length = s->chain_limit;
    o->value_alignment = 1u << s->align_log2;
}

int quire_tree_options_get(struct quire_tree *tree, struct quire_tree_options *ret_options)
{
    struct qr_thread *thread = NULL;
    struct quire_tree_options options;
    int result = qr_db_begin_tree(tree, &thread);
    if (result != 0) return result;
    options_of(&tree->tree.settings, &options);
    return qr_db_hand_out_options(thread, &options, sizeof(options), ret_options);
}

/* An option that is given must be that of the tree; the sizes of pages are another matter (adopt_sizes). */
static int match_options(struct qr_thread *thread, const struct quire_tree_options *given,
                         const struct qr_tree_settings *settings)
{
    struct quire_tree_options is;
    options_of(settings, &is);
    const char *bad = NULL;
    if (given->versions != 0 && given->versions != is.versions) bad = "versions";
    if (given->page_chain_length != 0 && given->page_chain_length != is.page_chain_length) bad = "page_chain_length";
    if (given->value_alignment != 0 && given->value_alignment != is.value_alignment) bad = "value_alignment";
    if (bad == NULL) return 0;
    return qr_db_fail(thread, QUIRE_ERR_INVALID, "tree options.%s differs from what the tree was created with", bad);
}

/* ---- The catalogue ---------------------------------------------------------------------------------------------- */

static struct quire_tree *handle_at(struct quire *db, uint32_t id)
{
    /* relaxed: under the mutex */
    return atomic_load_explicit(&db->handles, memory_order_relaxed)[id];
}

struct quire_tree **qr_db_handles(struct quire *db, uint32_t *ret_count)
{
    /* order: db.handles.read pairs with db.handles.add, db.handles.grow */
    *ret_count = atomic_load_explicit(&db->handle_count, memory_order_acquire);
    /* order: db.handles.read as above */
    return atomic_load_explicit(&db->handles, memory_order_acquire);
}

/* Room for one more handle; old arrays are retired, since statistics walk them without the mutex. */
static bool grow_handles(struct quire *db)
{
    /* relaxed: under the mutex */
    uint32_t count = atomic_load_explicit(&db->handle_count, memory_order_relaxed);
    if (count < db->handle_capacity) return true;
    uint32_t capacity = db->handle_capacity == 0 ? FIRST_CAPACITY : db->handle_capacity * 2;
    struct quire_tree **grown = qr_malloc(((size_t)capacity + 1) * sizeof(*grown));
    if (grown == NULL) return false;
    /* relaxed: under the mutex */
    struct quire_tree **old = atomic_load_explicit(&db->handles, memory_order_relaxed);
    if (count != 0) memcpy(grown, old, count * sizeof(*grown));
    grown[capacity] = (struct quire_tree *)(void *)old; /* freed at close, by walking this chain */
    /* order: db.handles.grow pairs with db.handles.read: the copied entries */
    atomic_store_explicit(&db->handles, grown, memory_order_release);
    db->handle_capacity = capacity;
    return true;
}

/* root: of a tree that is in the mapping, or, if `empty`, is not there yet; QR_PID_NONE: a new one is made. */
static int make_handle(struct quire *db, struct qr_thread *thread, const char *name,
                       const struct qr_tree_settings *settings, uint64_t root, bool empty, struct quire_tree **ret_tree)
{
    if (!grow_handles(db)) return QUIRE_ERR_NO_MEMORY;
    struct quire_tree *tree = qr_calloc(1, sizeof(*tree));
    if (tree == NULL) return QUIRE_ERR_NO_MEMORY;
    /* relaxed: under the mutex */
    uint32_t id = atomic_load_explicit(&db->handle_count, memory_order_relaxed);
    tree->db = db;
    snprintf(tree->name, sizeof(tree->name), "%s", name);
    int result = 0;
    if (root == QR_PID_NONE)
        result = qr_tree_create(&db->env, thread, id, settings, &tree->tree);
    else if (empty)
        result = qr_tree_create_at(&db->env, thread, id, root, settings, &tree->tree);
    else
        qr_tree_attach(&db->env, id, root, settings, &tree->tree);
    if (result != 0) {
        qr_free(tree);
        return result;
    }
    *ret_tree = tree;
    return 0;
}

static void publish_handle(struct quire *db, struct quire_tree *tree)
{
    /* relaxed: under the mutex */
    atomic_load_explicit(&db->handles, memory_order_relaxed)[tree->tree.id] = tree;
    /* order: db.handles.add pairs with db.handles.read: the entry before the count */
    atomic_store_explicit(&db->handle_count, tree->tree.id + 1, memory_order_release);
}

int qr_db_catalogue_open(struct quire *db, struct qr_thread *thread, uint64_t root)
{
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    struct qr_tree_settings settings = settings_of(&options);
    int result = make_handle(db, thread, "", &settings, root, false, &db->catalogue);
    if (result == 0) publish_handle(db, db->catalogue);
    return result;
}

void qr_db_catalogue_close(struct quire *db)
{
    /* relaxed: nobody else is left */
    struct quire_tree **handles = atomic_load_explicit(&db->handles, memory_order_relaxed);
    /* relaxed: as above */
    uint32_t count = atomic_load_explicit(&db->handle_count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) qr_free(handles[i]);
    for (uint32_t capacity = db->handle_capacity; handles != NULL; capacity /= 2) {
        struct quire_tree **older = (struct quire_tree **)(void *)handles[capacity];
        qr_free(handles);
        handles = older;
    }
}

/* Under the mutex: looks the name up; QUIRE_NOT_FOUND. */
static int lookup(struct quire *db, struct qr_thread *thread, const char *name, struct quire_tree **ret_tree)
{
    struct qr_key key = qr_key_make(name, strlen(name));
    struct quire_value value;
    struct entry entry;
    qr_epoch_enter(thread);
    int result = qr_db_find(db->catalogue, thread, &key, UINT64_MAX, &value);
    if (result == 0) {
        memcpy(&entry, value.data, sizeof(entry));
        *ret_tree = handle_at(db, entry.id);
    }
    qr_epoch_exit(thread);
    return result;
}

/* What the catalogue says of a tree. */
static struct entry entry_of(const struct quire_tree *tree, uint64_t safe_version)
{
    const struct qr_tree_settings *s = &tree->tree.settings;
    return (struct entry){.format = 1,
                          .id = tree->tree.id,
                          .root = tree->tree.root,
                          .leaf_page_size_bytes = qr_tree_leaf_page_size(s),
                          .inner_page_size_bytes = qr_tree_inner_page_size(s),
                          .chain_limit = s->chain_limit,
                          .align_log2 = s->align_log2,
                          .caller_versions = s->caller_versions,
                          .safe_version = safe_version};
}

static int create(struct quire *db, struct qr_thread *thread, const char *name,
                  const struct quire_tree_options *options, struct quire_tree **ret_tree)
{
    struct qr_tree_settings settings = settings_of(options);
    struct quire_tree *tree;
    int result = make_handle(db, thread, name, &settings, QR_PID_NONE, false, &tree);
    if (result != 0) return result;
    struct entry entry = entry_of(tree, 0);
    qr_log_hold(&db->log, thread); /* CATALOGUE-3 */
    result = qr_db_put(db->catalogue, thread, name, strlen(name), &entry, sizeof(entry));
    QR_STOP("tree.recorded");
    if (result == 0 || result == QUIRE_ERR_UNKNOWN) { /* the record is there: so must the tree be */
        publish_handle(db, tree);
        if (result == 0) *ret_tree = tree;
    } else {
        qr_tree_destroy_empty(&tree->tree, thread);
        qr_free(tree);
    }
    qr_log_release_hold(thread);
    return result;
}

/* Under the mutex: sizes of pages that are given and differ take the place of the tree's. The catalogue has them first, so
 * that a reopening finds what is in force. */
static int adopt_sizes(struct quire_tree *tree, struct qr_thread *thread, const struct quire_tree_options *given)
{
    struct quire *db = tree->db;
    struct entry entry = entry_of(tree, qr_tree_safe_version(&tree->tree));
    const struct entry before = entry;
    if (given->leaf_page_size_bytes != 0) entry.leaf_page_size_bytes = given->leaf_page_size_bytes;
    if (given->inner_page_size_bytes != 0) entry.inner_page_size_bytes = given->inner_page_size_bytes;
    if (memcmp(&entry, &before, sizeof(entry)) == 0) return 0;
    if (db->files != NULL && db->files->read_only) return 0; /* nothing will be written by them */
    int result = qr_db_put(db->catalogue, thread, tree->name, strlen(tree->name), &entry, sizeof(entry));
    if (result == 0 || result == QUIRE_ERR_UNKNOWN)
        qr_tree_set_page_sizes(&tree->tree, entry.leaf_page_size_bytes, entry.inner_page_size_bytes);
    return result;
}

int qr_db_catalogue_raise_safe(struct quire_tree *tree, struct qr_thread *thread, uint64_t version)
{
    struct quire *db = tree->db;
    int result = 0;
    if (db->files == NULL) {
        qr_tree_raise_safe_version(&tree->tree, version);
        return 0;
    }
    pthread_mutex_lock(&db->trees_mutex);
    if (version > qr_tree_safe_version(&tree->tree)) {
        struct entry entry = entry_of(tree, version);
        result = qr_db_put(db->catalogue, thread, tree->name, strlen(tree->name), &entry, sizeof(entry));
        /* UNKNOWN: the record is there, and may survive. */
        if (result == 0 || result == QUIRE_ERR_UNKNOWN) qr_tree_raise_safe_version(&tree->tree, version);
    }
    pthread_mutex_unlock(&db->trees_mutex);
    return result;
}

/* ---- Replay ----------------------------------------------------------------------------------------------------- */

static int bad_record(void)
{
    return qr_fail(QUIRE_ERR_CORRUPT, 0, "log: a record of the catalogue does not say what one says");
}

/* Takes a record apart. False: it does not say what one says. */
static bool parse_record(struct quire_slice key, struct quire_slice value, char *ret_name, struct entry *ret_entry)
{
    struct entry entry;
    if (value.size != sizeof(entry) || key.size > QR_MAX_TREE_NAME_SIZE ||
        (key.size != 0 && memchr(key.data, 0, key.size) != NULL))
        return false;
    memcpy(&entry, value.data, sizeof(entry));
    if (entry.format != 1 || entry.leaf_page_size_bytes == 0 || entry.inner_page_size_bytes == 0 ||
        !page_size_fits(entry.leaf_page_size_bytes) || !page_size_fits(entry.inner_page_size_bytes) ||
        entry.chain_limit == 0 || entry.chain_limit > QR_CHAIN_MAX || entry.align_log2 > 6 || entry.caller_versions > 1 ||
        (entry.safe_version != 0 && entry.caller_versions == 0))
        return false;
    qr_copy(ret_name, key.data, key.size);
    ret_name[key.size] = '\0';
    *ret_entry = entry;
    return true;
}

/* Stores a record as it stands in the log, but for the root, which is that of this life. */
static int store_record(struct quire *db, struct qr_thread *thread, struct qr_write *write, struct entry *entry,
                        const struct quire_tree *tree)
{
    entry->root = tree->tree.root;
    write->value = (const uint8_t *)entry;
    int result = qr_db_run_write(db->catalogue, thread, write);
    return result < 0 ? qr_fail(result, 0, "no memory for a tree") : result;
}

static struct qr_tree_settings settings_of_entry(const struct entry *entry)
{
    return (struct qr_tree_settings){.leaf_page_size_bytes = entry->leaf_page_size_bytes,
                                     .inner_page_size_bytes = entry->inner_page_size_bytes,
                                     .chain_limit = entry->chain_limit,
                                     .align_log2 = (uint8_t)entry->align_log2,
                                     .caller_versions = entry->caller_versions != 0};
}

bool qr_db_catalogue_describe(struct quire_slice key, struct quire_slice value, struct qr_catalogue_tree *ret_tree)
{
    struct entry entry;
    if (!parse_record(key, value, ret_tree->name, &entry) || entry.id == 0) return false;
    struct qr_tree_settings settings = settings_of_entry(&entry);
    options_of(&settings, &ret_tree->options);
    ret_tree->id = entry.id;
    ret_tree->safe_version = entry.safe_version;
    return true;
}

static void *alloc_image(void *context, size_t size)
{
    (void)context;
    return qr_malloc(size);
}

/* Whether the checkpoint has the root of a tree that its catalogue has not: it was captured with the root, before the record. A page
 * with that id may also be one of another tree, which was merged away since; then the id was free to become the root's. */
static int find_root(struct quire *db, const struct entry *entry, bool *ret_there)
{
    struct qr_store *store = db->checkpointer.store;
    struct qr_store_entry image;
    void *bytes = NULL;
    uint32_t size;
    *ret_there = false;
    int result = qr_store_lookup(store, entry->root, &image);
    if (result == 0) result = qr_store_read(store, image.address, entry->root, alloc_image, NULL, &bytes, &size);
    if (result == 0)
        *ret_there = size >= QR_PAGE_HEADER && ((const struct qr_page *)bytes)->tree_id == entry->id;
    qr_free(bytes);
    return result == QUIRE_NOT_FOUND ? 0 : result;
}

static int replay_creation(struct quire *db, struct qr_thread *thread, struct qr_write *write, const char *name,
                           struct entry *entry)
{
    struct quire_tree *tree;
    struct qr_tree_settings settings = settings_of_entry(entry);
    bool known;
    int result = find_root(db, entry, &known);
    if (result != 0) return result;
    result = make_handle(db, thread, name, &settings, known ? entry->root : QR_PID_NONE, false, &tree);
    if (result != 0) return qr_fail(result, 0, "no memory for a tree");
    result = store_record(db, thread, write, entry, tree);
    if (result != 0) {
        if (!known) qr_tree_destroy_empty(&tree->tree, thread);
        qr_free(tree);
        return result;
    }
    tree->replayed_safe_version = entry->safe_version;
    publish_handle(db, tree);
    return 0;
}

/* The safe version and the sizes of pages are all that change. */
static int replay_update(struct quire *db, struct qr_thread *thread, struct qr_write *write, const char *name,
                         struct entry *entry)
{
    struct quire_tree *tree = handle_at(db, entry->id);
    struct entry same = entry_of(tree, entry->safe_version);
    same.root = entry->root;
    same.leaf_page_size_bytes = entry->leaf_page_size_bytes;
    same.inner_page_size_bytes = entry->inner_page_size_bytes;
    if (strcmp(name, tree->name) != 0 || memcmp(&same, entry, sizeof(same)) != 0) return bad_record();
    int result = store_record(db, thread, write, entry, tree);
    if (result != 0) return result;
    tree->replayed_safe_version = qr_max(tree->replayed_safe_version, entry->safe_version);
    qr_tree_set_page_sizes(&tree->tree, entry->leaf_page_size_bytes, entry->inner_page_size_bytes);
    return 0;
}

/* One thread, no users yet. The ids of trees are those of their creation, so a new one must be the next. */
int qr_db_catalogue_replay(struct quire *db, struct qr_thread *thread, struct qr_write *write)
{
    char name[QR_MAX_TREE_NAME_SIZE + 1];
    struct entry entry;
    uint32_t count;
    qr_db_handles(db, &count);
    const struct quire_slice key = {write->key.data, write->key.size};
    const struct quire_slice value = {write->value, write->value_size};
    if (write->kind != QR_RECORD_PUT || !parse_record(key, value, name, &entry) || entry.id == 0 || entry.id > count)
        return bad_record();
    return entry.id == count ? replay_creation(db, thread, write, name, &entry)
                             : replay_update(db, thread, write, name, &entry);
}

void qr_db_catalogue_replayed(struct quire *db)
{
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    for (uint32_t i = 0; i < count; i++)
        qr_tree_raise_safe_version(&handles[i]->tree, handles[i]->replayed_safe_version);
}

/* ---- The trees of a checkpoint ---------------------------------------------------------------------------------- */

/* What the catalogue lists, by id. */
struct found_tree {
    bool is;
    uint64_t lsn; /* of its record */
    struct entry entry;
    char name[QR_MAX_TREE_NAME_SIZE + 1];
};

/* Trees are numbered from 1 to their count, each once. */
static int take_tree(const struct quire *db, struct found_tree *found, uint64_t count, const struct quire_entry *record)
{
    struct found_tree tree = {.is = true, .lsn = record->lsn};
    const struct quire_slice key = {record->key, record->key_size};
    const struct quire_slice value = {record->value, record->value_size};
    if (!parse_record(key, value, tree.name, &tree.entry) || tree.entry.id == 0 || tree.entry.id > count ||
        found[tree.entry.id].is || tree.entry.root == QR_PID_NONE || tree.entry.root >= db->map->capacity)
        return bad_record();
    found[tree.entry.id] = tree;
    return 0;
}

/* *ret_found: `*ret_count` + 1 of them, to be freed by qr_free. */
static int list_trees(struct quire *db, struct found_tree **ret_found, uint64_t *ret_count)
{
    struct quire_pages_options options = {.struct_size = sizeof(options)};
    struct quire_pages *pages = NULL;
    struct quire_page page;
    uint64_t count = 0;
    int result = quire_count(db->catalogue, NULL, options.start, options.end, &count);
    if (result != 0) return result;
    struct found_tree *found = qr_calloc(count + 1, sizeof(*found));
    if (found == NULL) return qr_fail(QUIRE_ERR_NO_MEMORY, 0, "no memory for the trees");
    result = quire_pages_open(db->catalogue, &options, &pages);
    while (result == 0 && (result = quire_pages_next(pages, &page)) == 0)
        for (size_t i = 0; i < page.count && result == 0; i++) result = take_tree(db, found, count, &page.entries[i]);
    if (pages != NULL) quire_pages_close(pages);
    *ret_found = found;
    *ret_count = count;
    return result == QUIRE_END ? 0 : result;
}

/* CATALOGUE-3 */
static int root_is_missing(struct quire *db, const struct found_tree *found, bool *ret_missing)
{
    struct qr_store_entry image;
    int result = qr_store_lookup(db->checkpointer.store, found->entry.root, &image);
    *ret_missing = result == QUIRE_NOT_FOUND && found->lsn >= db->checkpointer.record.replay_from;
    return result == QUIRE_NOT_FOUND ? 0 : result;
}

int qr_db_catalogue_load(struct quire *db, struct qr_thread *thread)
{
    struct found_tree *found = NULL;
    uint64_t count = 0;
    int result = list_trees(db, &found, &count);
    for (uint64_t id = 1; id <= count && result == 0; id++) {
        struct quire_tree *tree;
        if (!found[id].is) { /* a record was told twice */
            result = qr_fail(QUIRE_ERR_CORRUPT, 0, "a tree is missing in the catalogue");
            break;
        }
        const struct entry *entry = &found[id].entry;
        struct qr_tree_settings settings = settings_of_entry(entry);
        bool empty;
        result = root_is_missing(db, &found[id], &empty);
        if (result != 0) break;
        result = make_handle(db, thread, found[id].name, &settings, entry->root, empty, &tree);
        if (result == 0) {
            tree->replayed_safe_version = entry->safe_version;
            publish_handle(db, tree);
        } else {
            qr_fail(result, 0, "no memory for the trees");
        }
    }
    qr_free(found);
    return result;
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

int quire_tree_open(struct quire *db, const char *name, const struct quire_tree_options *options,
                    struct quire_tree **ret_tree)
{
    struct qr_thread *thread = NULL;
    struct quire_tree_options given;
    struct quire_tree *tree = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    if (ret_tree == NULL) return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_tree is NULL");
    if (name == NULL) name = "";
    if (strlen(name) > QR_MAX_TREE_NAME_SIZE)
        return qr_db_fail(thread, QUIRE_ERR_TOO_LARGE, "tree name is longer than %u bytes", QR_MAX_TREE_NAME_SIZE);
    quire_tree_options_init(&given);
    result = qr_db_take_options(thread, "tree options", options, &given, sizeof(given));
    if (result == 0) result = check_options(thread, &given);
    if (result != 0) return result;

    pthread_mutex_lock(&db->trees_mutex);
    result = lookup(db, thread, name, &tree);
    if (result == 0) {
        result = given.must_create != 0 ? QUIRE_EXISTS : match_options(thread, &given, &tree->tree.settings);
        if (result == 0) result = adopt_sizes(tree, thread, &given);
    } else if (result == QUIRE_NOT_FOUND && given.must_exist == 0)
        result = db->files != NULL && db->files->read_only
                     ? qr_db_fail(thread, QUIRE_ERR_READ_ONLY, "the tree is not there, and the database was opened read-only")
                     : create(db, thread, name, &given, &tree);
    pthread_mutex_unlock(&db->trees_mutex);
    qr_db_tell(db);
    if (result == QUIRE_ERR_NO_MEMORY) return qr_db_fail(thread, result, "no memory for a tree");
    if (result == QUIRE_ERR_STALLED)
        return qr_db_fail(thread, result, "memory retained by guards did not come back in time");
    if (result == QUIRE_ERR_IO || result == QUIRE_ERR_NO_SPACE) qr_db_count_failure(thread, result); /* not counted yet */
    if (result != 0) return result;
    *ret_tree = tree;
    return 0;
}

/* ---- Listing ---------------------------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int quire_tree_list(struct quire *db, char ***ret_names, size_t *ret_count)
{
    struct qr_thread *thread = NULL;
    int result = qr_db_begin(db, &thread);
    if (result != 0) return result;
    if (ret_names == NULL || ret_count == NULL)
        return qr_db_fail(thread, QUIRE_ERR_INVALID, "ret_names or ret_count is NULL");
    uint32_t count;
    struct quire_tree **handles = qr_db_handles(db, &count);
    size_t bytes = count * sizeof(char *);
    for (uint32_t i = 1; i < count; i++) bytes += strlen(handles[i]->name) + 1;
    char **names = qr_malloc(bytes + 1);
    if (names == NULL) return qr_db_fail(thread, QUIRE_ERR_NO_MEMORY, "no memory for the list of trees");
    char *text = (char *)(names + count);
    for (uint32_t i = 1; i < count; i++) {
        size_t size = strlen(handles[i]->name) + 1;
        names[i - 1] = memcpy(text, handles[i]->name, size);
        text += size;
    }
    qsort(names, count - 1, sizeof(*names), compare_names);
    *ret_names = names;
    *ret_count = count - 1;
    return 0;
}
