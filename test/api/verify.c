/*
 * Goal: verification finds what is wrong with a tree and nothing where nothing is, also beside writers; the log is handed out frame
 *       by frame. Damaged files: test/tools/damage.py.
 * Method: trees of small pages, some of whose mapping words and records are changed behind the database's back; stores.
 */
#include "api_dir.h"

#include "db/db.h"
#include "lib/random.h"
#include "lib/resting.h"
#include "lib/simdisk.h"
#include "page/inner.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

TestSuite(verify, .init = make_root, .fini = remove_root);

/* ---- What is told ----------------------------------------------------------------------------------------------- */

struct told {
    uint64_t count, page;
    char text[256], tree[32];
    int answer;
};

static int note(void *context, const struct quire_defect *defect)
{
    struct told *told = context;
    cr_assert_eq(defect->struct_size, sizeof(*defect));
    told->count++;
    told->page = defect->page_id;
    snprintf(told->text, sizeof(told->text), "%s", defect->text);
    snprintf(told->tree, sizeof(told->tree), "%s", defect->tree == NULL ? "(none)" : defect->tree);
    return told->answer;
}

/* ---- A tree that is wrong --------------------------------------------------------------------------------------- */

/* A tree of three levels in memory, all consolidated. */
static struct quire *make_tree(struct quire_tree **ret_tree)
{
    struct quire *db = open_quiet();
    *ret_tree = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    fill(*ret_tree, 0, 2000);
    while (quire_maintain(db) == QUIRE_MORE) {
    }
    return db;
}

static struct qr_page *page_of(struct quire *db, uint64_t pid)
{
    return (struct qr_page *)(uintptr_t)qr_word_block(qr_map_load(db->map, pid));
}

/* An inner page right above leaves, with several of them. */
static struct qr_page *parent_of_leaves(struct quire *db, struct quire_tree *tree)
{
    struct qr_page *page = page_of(db, tree->tree.root);
    while (page->level > 1) page = page_of(db, qr_inner_child(page, 0));
    cr_assert(page->level == 1 && page->count > 3, "level %d, %u entries", page->level, page->count);
    return page;
}

static void expect_defect(struct quire *db, uint64_t page, const char *word)
{
    struct told told = {.count = 0};
    EXPECT(quire_verify(db, note, &told), QUIRE_ERR_CORRUPT);
    cr_assert_gt(told.count, 0);
    cr_assert(strstr(told.text, word) != NULL, "'%s' has no '%s'", told.text, word);
    cr_assert_str_eq(told.tree, "small");
    if (page != 0) cr_assert_eq(told.page, page, "page %" PRIu64 ", not %" PRIu64, told.page, page);
}

/* The database of a test that has harmed it is not closed: its memory ends with the process of the test. */
Test(verify, finds_two_leaves_that_have_changed_places)
{
    struct quire_tree *tree;
    struct quire *db = make_tree(&tree);
    OK(quire_verify(db, NULL, NULL));
    struct qr_page *parent = parent_of_leaves(db, tree);
    uint64_t one = qr_inner_child(parent, 1), two = qr_inner_child(parent, 2);
    qr_word word_one = qr_map_load(db->map, one), word_two = qr_map_load(db->map, two), old = word_one;
    cr_assert(qr_map_cas(db->map, one, &old, word_two));
    old = word_two;
    cr_assert(qr_map_cas(db->map, two, &old, word_one));
    expect_defect(db, parent->pid, "is not where it should be");
}

Test(verify, finds_a_leaf_that_is_gone)
{
    struct quire_tree *tree;
    struct quire *db = make_tree(&tree);
    struct qr_page *parent = parent_of_leaves(db, tree);
    uint64_t pid = qr_inner_child(parent, parent->count - 1);
    qr_word word = qr_map_load(db->map, pid);
    cr_assert(qr_map_cas(db->map, pid, &word, qr_word_number(QR_WORD_FREE, 0)));
    expect_defect(db, parent->pid, "is not where it should be");
}

Test(verify, finds_a_key_that_is_out_of_order)
{
    struct quire_tree *tree;
    struct quire *db = make_tree(&tree);
    uint64_t pid = qr_inner_child(parent_of_leaves(db, tree), 2);
    struct qr_page *leaf = page_of(db, pid);
    uint8_t *key = (uint8_t *)(uintptr_t)qr_leaf_key(leaf, 1).data;
    key[8] ^= 1;
    struct told told = {.count = 0};
    EXPECT(quire_verify(db, note, &told), QUIRE_ERR_CORRUPT);
    cr_assert_eq(told.page, pid);
    cr_assert_eq(told.count, 1, "%" PRIu64 " defects: what is beside it is right", told.count);
}

Test(verify, finds_an_inner_page_that_leads_to_a_page_twice)
{
    struct quire_tree *tree;
    struct quire *db = make_tree(&tree);
    struct qr_page *parent = parent_of_leaves(db, tree);
    uint64_t one = qr_inner_child(parent, 1), two = qr_inner_child(parent, 2);
    qr_word word = qr_map_load(db->map, two);
    cr_assert(qr_map_cas(db->map, two, &word, qr_map_load(db->map, one)));
    expect_defect(db, parent->pid, "is not where it should be");
}

Test(verify, ends_when_the_callback_says_so)
{
    struct quire_tree *tree;
    struct quire *db = make_tree(&tree);
    struct qr_page *parent = parent_of_leaves(db, tree);
    for (uint32_t i = 1; i < 3; i++) {
        struct qr_page *leaf = page_of(db, qr_inner_child(parent, i));
        leaf->tree_id = 77;
    }
    struct told all = {.count = 0}, first = {.answer = 1};
    EXPECT(quire_verify(db, note, &all), QUIRE_ERR_CORRUPT);
    cr_assert_eq(all.count, 2);
    EXPECT(quire_verify(db, note, &first), QUIRE_ERR_CORRUPT);
    cr_assert_eq(first.count, 1);
}

/* ---- Nothing is wrong ------------------------------------------------------------------------------------------- */

Test(verify, of_nothing_or_under_a_guard_is_refused)
{
    struct quire *db = open_quiet();
    struct quire_guard guard;
    EXPECT(quire_verify(NULL, NULL, NULL), QUIRE_ERR_INVALID);
    OK(quire_verify(db, NULL, NULL));
    OK(quire_pin(db, NULL, &guard));
    EXPECT(quire_verify(db, NULL, NULL), QUIRE_ERR_BUSY);
    OK(quire_unpin(&guard));
    OK(quire_close(db));
}

Test(verify, of_a_store_changes_nothing_and_finds_nothing)
{
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    fill(open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE), 0, 3000);
    OK(quire_verify(db, NULL, NULL));
    OK(quire_checkpoint(db));
    fill(open_tree(db, NULL), 0, 500);
    OK(quire_verify(db, NULL, NULL));
    OK(quire_close(db));
    uint64_t before = digest("s");
    db = open_store("s", QUIRE_OPEN_READ_ONLY);
    struct told told = {.count = 0};
    OK(quire_verify(db, note, &told));
    cr_assert_eq(told.count, 0);
    OK(quire_close(db));
    cr_assert_eq(digest("s"), before);
}

/* A large value is read, though no page has it; those of older versions are not. */
Test(verify, finds_a_damaged_large_value)
{
    static char value[200000];
    char command[300];
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    struct quire_tree *tree = open_tree(db, "small");
    memset(value, 'v', sizeof(value));
    OK(quire_put(tree, "right", 5, value, 5000, 0, NULL));
    OK(quire_put(tree, "wrong", 5, "THE PLACE", 9, 0, NULL));
    memcpy(value + 150000, "THE PLACE", 9);
    OK(quire_put(tree, "wrong", 5, value, sizeof(value), 0, NULL));
    OK(quire_verify(db, NULL, NULL));
    OK(quire_close(db));
    snprintf(command, sizeof(command), "cd %s && grep -l 'THE PLACE' page-* | xargs sed -i 's/THE PLACE/THE PLACX/'", path_of("s"));
    cr_assert_eq(system(command), 0);
    db = open_store("s", QUIRE_OPEN_READ_ONLY);
    struct told told = {.count = 0};
    EXPECT(quire_verify(db, note, &told), QUIRE_ERR_CORRUPT);
    cr_assert_eq(told.count, 1);
    cr_assert(strstr(told.text, "200000") != NULL && strstr(told.text, "page-") != NULL, "%s", told.text);
    cr_assert_str_eq(told.tree, "small");
    OK(quire_close(db));
}

/* Writers that make pages split and merge, and checkpoints beside. */
struct writer {
    struct quire_tree *tree;
    _Atomic bool stop;
    uint64_t seed;
};

static void *write_and_delete(void *argument)
{
    struct writer *writer = argument;
    struct random_stream random;
    random_seed(&random, writer->seed);
    while (!atomic_load_explicit(&writer->stop, memory_order_relaxed)) {
        uint64_t first = random_below(&random, 2000);
        bool deletes = random_below(&random, 2) == 0;
        for (uint64_t i = first; i < first + 200; i++) {
            char key[16];
            size_t size = numbered(i, key);
            if (deletes)
                OK(quire_delete(writer->tree, key, size, 0, NULL, NULL));
            else
                OK(quire_put(writer->tree, key, size, "another value", 13, 0, NULL));
        }
    }
    return NULL;
}

Test(verify, beside_writers_finds_nothing)
{
    const unsigned rounds = INSTRUMENTED ? 10 : 60;
    struct quire *db = open_store("s", QUIRE_OPEN_OR_CREATE);
    struct quire_tree *tree = open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE);
    struct writer writers[2] = {{.tree = tree, .seed = 1}, {.tree = tree, .seed = 2}};
    pthread_t threads[2];
    fill(tree, 0, 2000);
    for (int i = 0; i < 2; i++) cr_assert_eq(pthread_create(&threads[i], NULL, write_and_delete, &writers[i]), 0);
    struct told told = {.count = 0};
    for (unsigned i = 0; i < rounds; i++) {
        int result = quire_verify(db, note, &told);
        cr_assert(result == 0, "%d: page %" PRIu64 " of %s: %s", result, told.page, told.tree, told.text);
        if (i % 8 == 0) OK(quire_checkpoint(db));
    }
    for (int i = 0; i < 2; i++) {
        atomic_store_explicit(&writers[i].stop, true, memory_order_relaxed);
        pthread_join(threads[i], NULL);
    }
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    OK(quire_stats(db, &stats));
    cr_assert(stats.tree_splits > 10 && stats.tree_merges > 10, "%" PRIu64 " splits, %" PRIu64 " merges", stats.tree_splits,
              stats.tree_merges);
    OK(quire_close(db));
}

/* ---- The log ---------------------------------------------------------------------------------------------------- */

struct seen {
    uint64_t puts, deletes, parts, last_lsn;
    int answer;
};

static int look(void *context, const struct quire_log_frame *frame)
{
    struct seen *seen = context;
    cr_assert_eq(frame->struct_size, sizeof(*frame));
    cr_assert_gt(frame->lsn, seen->last_lsn);
    seen->last_lsn = frame->lsn;
    seen->puts += frame->kind == QUIRE_FRAME_PUT && frame->tree_id != 0;
    seen->deletes += frame->kind == QUIRE_FRAME_DELETE;
    seen->parts += frame->kind == QUIRE_FRAME_PART;
    if (frame->kind == QUIRE_FRAME_DELETE)
        cr_assert(frame->key_size == 1 && memcmp(frame->key, "k", 1) == 0 && frame->value_size == 0);
    return seen->answer;
}

static const struct qr_disk_ops *own;
static unsigned opened; /* how often a file of the log was, since it counts: there is one */

static int open_that_is_gone(struct qr_dir *dir, const char *name, unsigned flags, struct qr_file **ret_file)
{
    if (strncmp(name, "log-", 4) == 0 && ++opened == 2) return -ENOENT;
    return own->file_open(dir, name, flags, ret_file);
}

/* A segment that was listed and could not be made, so that its file was removed again, is no defect. */
Test(verify, beside_a_segment_that_cannot_be_made_finds_nothing)
{
    struct simdisk *disk = simdisk_create();
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct quire *db = NULL;
    own = simdisk_disk(disk)->ops;
    struct qr_disk_ops ops = *own;
    ops.file_open = open_that_is_gone;
    OK(qr_db_open("store", simdisk_disk(disk), &options, &db));
    simdisk_disk(disk)->ops = &ops;
    OK(quire_verify(db, NULL, NULL));
    cr_assert_geq(opened, 2, "%u", opened);
    OK(quire_close(db));
    simdisk_disk(disk)->ops = own;
    simdisk_free(disk);
}

Test(verify, the_log_has_each_write)
{
    static char large[70000];
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, 0);
    struct quire *db = NULL;
    uint64_t lsn = 0;
    options.no_sync_at_close = 1; /* nor a checkpoint: the log stays */
    options.blob_threshold_bytes = 100000;
    OK(quire_open(path_of("s"), &options, &db));
    struct quire_tree *tree = open_tree(db, NULL);
    put(tree, "k", "v");
    OK(quire_put(tree, "large", 5, large, sizeof(large), 0, NULL));
    OK(quire_delete(tree, "k", 1, 0, NULL, &lsn));
    struct seen seen = {0};
    EXPECT(quire_log_each(path_of("s"), look, &seen), QUIRE_ERR_BUSY);
    OK(quire_close(db));
    uint64_t before = digest("s");
    OK(quire_log_each(path_of("s"), look, &seen));
    cr_assert(seen.puts == 2 && seen.deletes == 1 && seen.parts > 1, "%" PRIu64 " puts, %" PRIu64 " deletes, %" PRIu64 " parts",
              seen.puts, seen.deletes, seen.parts);
    cr_assert_eq(seen.last_lsn, lsn);
    struct seen one = {.answer = 42};
    EXPECT(quire_log_each(path_of("s"), look, &one), 42);
    cr_assert_eq(digest("s"), before);
    EXPECT(quire_log_each(path_of("none"), look, &seen), QUIRE_NOT_FOUND);
    EXPECT(quire_log_each(NULL, look, &seen), QUIRE_ERR_INVALID);
    EXPECT(quire_log_each(path_of("s"), NULL, NULL), QUIRE_ERR_INVALID);
    cr_assert(!is_there("none"));
}

/* ---- The manifest and the files --------------------------------------------------------------------------------- */

struct inspected {
    uint64_t records, last_sequence, checkpoints, files, bytes;
    uint32_t kinds; /* of files, a bit each */
    int answer;
};

static int look_at_record(void *context, const struct quire_manifest_record *record)
{
    struct inspected *seen = context;
    cr_assert_eq(record->struct_size, sizeof(*record));
    cr_assert(seen->records == 0 || record->sequence == seen->last_sequence + 1);
    cr_assert(record->fields[0] == '{' && record->fields[strlen(record->fields) - 1] == '}');
    seen->last_sequence = record->sequence;
    seen->records++;
    seen->checkpoints += strcmp(record->name, "checkpoint") == 0;
    return seen->answer;
}

static int look_at_file(void *context, const struct quire_file *file)
{
    struct inspected *seen = context;
    cr_assert_eq(file->struct_size, sizeof(*file));
    seen->files++;
    seen->bytes += file->size_bytes;
    seen->kinds |= 1u << file->kind;
    return seen->answer;
}

/* Removes a file that comes later. */
static int remove_another(void *context, const struct quire_file *file)
{
    (void)file;
    unlink(path_of("s/zzz"));
    ++*(uint32_t *)context;
    return 0;
}

/* What somebody else removes meanwhile is no failure. */
Test(verify, a_file_that_goes_while_files_are_told_is_none)
{
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, 0);
    struct quire *db = NULL;
    uint32_t files = 0;
    OK(quire_open(path_of("s"), &options, &db));
    OK(quire_close(db));
    shell("touch s/zzz");
    OK(quire_files_each(path_of("s"), remove_another, &files));
    cr_assert(files > 2 && !is_there("s/zzz"));
}

Test(verify, manifest_and_files_are_told)
{
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE, 0);
    struct quire *db = NULL;
    OK(quire_open(path_of("s"), &options, &db));
    put(open_tree(db, NULL), "k", "v");
    struct inspected seen = {0};
    EXPECT(quire_manifest_each(path_of("s"), look_at_record, &seen), QUIRE_ERR_BUSY);
    EXPECT(quire_files_each(path_of("s"), look_at_file, &seen), QUIRE_ERR_BUSY);
    OK(quire_close(db));
    uint64_t before = digest("s");
    OK(quire_manifest_each(path_of("s"), look_at_record, &seen));
    cr_assert(seen.records >= 3 && seen.checkpoints >= 1);
    OK(quire_files_each(path_of("s"), look_at_file, &seen));
    cr_assert_eq(seen.kinds, 1u << QUIRE_FILE_MANIFEST | 1u << QUIRE_FILE_LOCK | 1u << QUIRE_FILE_LOG | 1u << QUIRE_FILE_PAGES);
    struct inspected one = {.answer = 42};
    EXPECT(quire_manifest_each(path_of("s"), look_at_record, &one), 42);
    EXPECT(quire_files_each(path_of("s"), look_at_file, &one), 42);
    cr_assert(one.records == 1 && one.files == 1);
    cr_assert_eq(digest("s"), before);
    EXPECT(quire_manifest_each(path_of("none"), look_at_record, &seen), QUIRE_NOT_FOUND);
    EXPECT(quire_files_each(path_of("none"), look_at_file, &seen), QUIRE_NOT_FOUND);
    EXPECT(quire_manifest_each(NULL, look_at_record, &seen), QUIRE_ERR_INVALID);
    EXPECT(quire_manifest_each(path_of("s"), NULL, NULL), QUIRE_ERR_INVALID);
    EXPECT(quire_files_each(NULL, look_at_file, &seen), QUIRE_ERR_INVALID);
    EXPECT(quire_files_each(path_of("s"), NULL, NULL), QUIRE_ERR_INVALID);
    cr_assert(!is_there("none"));
}
