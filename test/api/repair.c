/*
 * Goal: a store whose mapping is damaged is repaired to one that answers the same; what is damaged beyond that is lost exactly, and
 *       told; the original stays as it was (rows F15, I15).
 * Method: stores are built, their images found by their headers and a byte of them changed in place, repaired, the byte changed
 *       back; then the original is opened, and both are compared: trees, options, every key, every version.
 */
#include "repair.h"

#include "page/page.h"

TestSuite(repair, .init = make_root, .fini = remove_root, .timeout = 300);

static void damage_and_repair(int kind)
{
    make_plain("s");
    cr_assert_gt(damage_kind("s", kind), 0);
    expect_corrupt("s");
    expect_repair("s", "r", 0);
    cr_assert_gt(report.mapping_damaged, 0);
    undo_damage();
    cr_assert_eq(compare_stores("s", "r"), 5001);
}

/* F15: a damaged mapping is CORRUPT, and repair gives equal content */
Test(repair, of_damaged_blocks_of_the_mapping) { damage_and_repair(BLOCK); }
Test(repair, of_damaged_nodes_of_the_mapping) { damage_and_repair(NODE); }
Test(repair, of_a_damaged_root_of_the_mapping) { damage_and_repair(ROOT); }

/* I15: a store in which nothing is damaged; a new one; one that never had a checkpoint */
Test(repair, of_stores_that_are_whole)
{
    make_plain("s");
    expect_repair("s", "r", 0);
    cr_assert_eq(report.mapping_damaged + report.pages_damaged, 0);
    cr_assert_eq(compare_stores("s", "r"), 5001);
    OK(quire_close(open_store("empty", QUIRE_CREATE_NEW)));
    expect_repair("empty", "r2", 0);
    cr_assert_eq(compare_stores("empty", "r2"), 0);
    struct quire *db = open_store("log", QUIRE_CREATE_NEW);
    fill(open_small_tree(db, "small", QUIRE_VERSIONS_ENGINE), 0, 500);
    abandon(db);
    expect_repair("log", "r3", 0);
    cr_assert_eq(report.log_records, 500, "%" PRIu64 " records of the log, %" PRIu64 " of pages", report.log_records, report.records);
    cr_assert_eq(compare_stores("log", "r3"), 500);
}

/* Zeroes each page of a file that is not as in the copy of its store. */
static unsigned zero_what_is_new(const char *store, const char *copy, const char *file)
{
    static const uint8_t zeros[4096];
    uint8_t now[4096], before[4096];
    char names[2][300];
    unsigned zeroed = 0;
    snprintf(names[0], sizeof(names[0]), "%s/%s", path_of(store), file);
    snprintf(names[1], sizeof(names[1]), "%s/%s", path_of(copy), file);
    int new = open(names[0], O_RDWR), old = open(names[1], O_RDONLY);
    cr_assert(new >= 0 && old >= 0);
    for (off_t at = 4096; pread(new, now, 4096, at) == 4096 && pread(old, before, 4096, at) == 4096; at += 4096) {
        if (memcmp(now, before, 4096) == 0) continue;
        cr_assert_eq(pwrite(new, zeros, 4096, at), 4096);
        zeroed++;
    }
    close(new);
    close(old);
    return zeroed;
}

/* I15: without a trace of the last checkpoint repair gives what an older one had, and tells it */
Test(repair, of_a_store_without_its_last_checkpoint_is_told)
{
    struct quire *db = open_still("s", QUIRE_CREATE_NEW);
    struct quire_tree *tree = open_small_tree(db, "t", QUIRE_VERSIONS_ENGINE);
    fill(tree, 0, 500);
    OK(quire_checkpoint(db));
    shell("cp -r s before");
    fill(tree, 0, 500);
    OK(quire_delete(tree, TEXT("key-000100"), 0, NULL, NULL));
    OK(quire_checkpoint(db));
    OK(quire_close(db));
    cr_assert_gt(zero_what_is_new("s", "before", "page-00000001"), 0);
    expect_corrupt("s");
    expect_repair("s", "r", QUIRE_INCOMPLETE);
    cr_assert_eq(report.newest_lost, 1);
}

static bool is_one_inner(void *context, const struct image *image)
{
    int *left = context;
    return image->kind == INNER && image->tree == 1 && --*left == 0;
}

/* I15: an inner page has nothing that is not elsewhere */
Test(repair, of_a_damaged_inner_page_loses_nothing)
{
    for (int n = 1; n < 4; n++) {
        char to[16];
        int left = n;
        snprintf(to, sizeof(to), "r%d", n);
        if (n == 1) make_plain("s");
        cr_assert_eq(each_image("s", is_one_inner, &left), 1);
        if (n == 3) damage_mapping("s");
        expect_repair("s", to, 0);
        undo_damage();
        cr_assert_eq(compare_stores("s", to), 5001);
    }
}

/* A leaf of tree 1 in the middle, the newest image of it: its bounds are remembered. */
struct leaf {
    int skip;
    uint64_t pid, max_lsn;
    char low[32], high[32];
};

static bool find_leaf(void *context, const struct image *image)
{
    struct leaf *leaf = context;
    uint32_t low_offset, low_size, high_offset, high_size;
    if (image->kind != LEAF || image->tree != 1) return false;
    if (leaf->pid == 0 && leaf->skip-- > 0) return false;
    if (leaf->pid != 0 && (leaf->pid != image->pid || image->max_lsn < leaf->max_lsn)) return false;
    const uint8_t *page = image->bytes + IMAGE_HEADER;
    memcpy(&low_offset, page + offsetof(struct qr_page, low_offset), 4);
    memcpy(&low_size, page + offsetof(struct qr_page, low_size), 4);
    memcpy(&high_offset, page + offsetof(struct qr_page, high_offset), 4);
    memcpy(&high_size, page + offsetof(struct qr_page, high_size), 4);
    leaf->pid = image->pid;
    leaf->max_lsn = image->max_lsn;
    snprintf(leaf->low, sizeof(leaf->low), "%.*s", (int)low_size, (const char *)page + low_offset);
    snprintf(leaf->high, sizeof(leaf->high), "%.*s", (int)high_size, (const char *)page + high_offset);
    return false;
}

static bool is_leaf(void *context, const struct image *image)
{
    const struct leaf *leaf = context;
    return image->kind == LEAF && image->pid == leaf->pid && image->max_lsn == leaf->max_lsn;
}

/* In the repaired store exactly the keys of a range are gone. */
static void expect_gap(const char *original, const char *repaired, const struct leaf *leaf)
{
    struct quire *a = open_store(original, QUIRE_OPEN_EXISTING), *b = open_store(repaired, QUIRE_OPEN_EXISTING);
    struct quire_tree *x = open_tree(a, "small"), *y = open_tree(b, "small");
    struct cursor c, d;
    const struct quire_entry *e, *f;
    uint64_t gone = 0, there = 0;
    open_cursor(x, UINT64_MAX, &c);
    open_cursor(y, UINT64_MAX, &d);
    while ((e = next_entry(&c)) != NULL) {
        if (strncmp(e->key, leaf->low, e->key_size) >= 0 && strncmp(e->key, leaf->high, e->key_size) < 0) {
            gone++;
            continue;
        }
        f = next_entry(&d);
        cr_assert(f != NULL && f->key_size == e->key_size && memcmp(e->key, f->key, e->key_size) == 0, "'%.*s'",
                  (int)e->key_size, (const char *)e->key);
        cr_assert(e->value_size == f->value_size && memcmp(e->value, f->value, e->value_size) == 0);
        there++;
    }
    cr_assert_null(next_entry(&d));
    cr_assert(gone > 0 && there > 0);
    quire_pages_close(c.pages);
    quire_pages_close(d.pages);
    OK(quire_close(a));
    OK(quire_close(b));
}

static void damage_leaf(const char *store, struct leaf *leaf)
{
    each_image(store, find_leaf, leaf);
    cr_assert_neq(leaf->pid, 0);
    cr_assert_geq(each_image(store, is_leaf, leaf), 1); /* more, if it was written again without a change */
}

static void expect_range_lost(const struct leaf *leaf)
{
    cr_assert_eq(lost.ranges, 1);
    cr_assert_eq(lost.values + lost.logs + lost.names, 0);
    cr_assert_str_eq(lost.tree, "small");
    cr_assert_str_eq(lost.low, leaf->low);
    cr_assert_str_eq(lost.high, leaf->high);
}

/* I15: the loss is told, and is that of the leaf */
Test(repair, of_a_damaged_leaf_loses_its_keys_and_no_others)
{
    struct leaf leaf = {.skip = 20};
    make_plain("s");
    damage_leaf("s", &leaf);
    expect_corrupt("s");
    expect_repair("s", "r", QUIRE_INCOMPLETE);
    expect_range_lost(&leaf);
    cr_assert_geq(report.pages_damaged, 1);
    undo_damage();
    expect_gap("s", "r", &leaf);
}

/* I15: an older image of the leaf is there, with keys that were deleted and values that were replaced since */
static void older_image(bool mapping_too)
{
    struct leaf leaf = {.skip = 20};
    char key[16];
    make_plain("s");
    struct quire *db = open_still("s", QUIRE_OPEN_EXISTING);
    struct quire_tree *tree = open_tree(db, "small");
    for (uint64_t i = 0; i < 5000; i += 3) OK(quire_delete(tree, key, numbered(i, key), 0, NULL, NULL));
    for (uint64_t i = 1; i < 5000; i += 3) OK(quire_put(tree, key, numbered(i, key), "new", 3, 0, NULL));
    settle(db);
    OK(quire_checkpoint(db));
    OK(quire_close(db));
    damage_leaf("s", &leaf);
    if (mapping_too) cr_assert_gt(damage_mapping("s"), 0);
    expect_repair("s", "r", QUIRE_INCOMPLETE);
    expect_range_lost(&leaf);
    undo_damage();
    expect_gap("s", "r", &leaf);
}

Test(repair, has_no_older_image_in_place_of_a_leaf) { older_image(false); }
Test(repair, has_no_older_image_in_place_of_a_leaf_without_the_mapping) { older_image(true); }

/* I15: what the log says of keys in a leaf that is lost is there */
Test(repair, has_the_writes_of_the_log_in_a_lost_leaf)
{
    struct leaf leaf = {.skip = 20};
    make_plain("s");
    damage_leaf("s", &leaf);
    undo_damage(); /* its bounds are known now */
    struct quire *db = open_store("s", QUIRE_OPEN_EXISTING);
    put(open_tree(db, "small"), leaf.low, "written since");
    abandon(db);
    cr_assert_geq(each_image("s", is_leaf, &leaf), 1);
    expect_repair("s", "r", QUIRE_INCOMPLETE);
    expect_range_lost(&leaf);
    db = open_store("r", QUIRE_OPEN_EXISTING);
    expect(open_tree(db, "small"), NULL, leaf.low, "written since");
    OK(quire_close(db));
}

static void damage_blob(const char *store, const char *text)
{
    struct found found = find_bytes(store, "page-", text, strlen(text));
    damage_at(found.file, found.offset);
}

static void put_large(struct quire_tree *tree, const char *key, const char *begin)
{
    char value[9000];
    memset(value, 'v', sizeof(value));
    memcpy(value, begin, strlen(begin));
    OK(quire_put(tree, key, strlen(key), value, sizeof(value), 0, NULL));
}

/* I15: a large value that cannot be read is lost, unless something in the log replaces it */
Test(repair, of_damaged_large_values)
{
    struct quire *db = open_store("s", QUIRE_CREATE_NEW);
    struct quire_tree *tree = open_tree(db, "t");
    put_large(tree, "a", "begin of a");
    put_large(tree, "b", "begin of b");
    put_large(tree, "c", "begin of c");
    OK(quire_checkpoint(db));
    put(tree, "b", "small now");
    put_large(tree, "d", "begin of d");
    abandon(db);
    damage_mapping("s");
    expect_repair("s", "r1", 0);
    undo_damage();
    cr_assert_eq(compare_stores("s", "r1"), 4);
    damage_blob("s", "begin of b");
    expect_repair("s", "r2", 0);
    cr_assert_eq(compare_stores("s", "r2"), 4);
    damage_blob("s", "begin of a");
    expect_repair("s", "r3", QUIRE_INCOMPLETE);
    cr_assert_eq(lost.values, 1);
    cr_assert_str_eq(lost.low, "a");
    cr_assert_str_eq(lost.tree, "t");
    db = open_store("r3", QUIRE_OPEN_EXISTING);
    expect(open_tree(db, "t"), NULL, "a", NULL);
    expect(open_tree(db, "t"), NULL, "b", "small now");
    cr_assert_eq(count_all(open_tree(db, "t"), NULL), 3);
    OK(quire_close(db));
}

static bool is_catalogue(void *context, const struct image *image)
{
    (void)context;
    return image->kind == LEAF && image->tree == 0;
}

/* I15: trees whose names are lost come by their numbers */
Test(repair, of_a_damaged_list_of_trees)
{
    make_plain("s");
    cr_assert_eq(each_image("s", is_catalogue, NULL), 1);
    expect_repair("s", "r", QUIRE_INCOMPLETE);
    cr_assert_eq(lost.names, 3); /* that of the list, and of each */
    undo_damage();
    struct quire *db = open_store("r", QUIRE_OPEN_EXISTING);
    cr_assert_eq(count_all(open_tree(db, "tree-1"), NULL), 5000);
    expect(open_tree(db, "tree-2"), NULL, "a", "1");
    OK(quire_close(db));
}

/* I15: without the manifest the checkpoint is there, and the log is told to be lost */
Test(repair, of_a_damaged_manifest)
{
    char file[300];
    make_plain("s");
    snprintf(file, sizeof(file), "%s/manifest", path_of("s"));
    damage_at(file, 40);
    EXPECT(try_open("s", QUIRE_OPEN_READ_ONLY), QUIRE_ERR_CORRUPT);
    expect_repair("s", "r", QUIRE_INCOMPLETE);
    cr_assert(lost.logs == 1 && lost.ranges + lost.values + lost.names == 0);
    undo_damage();
    cr_assert_eq(compare_stores("s", "r"), 5001);
}
Test(repair, refuses_what_it_cannot_do)
{
    EXPECT(quire_repair(NULL, "x", NULL, NULL, NULL), QUIRE_ERR_INVALID);
    EXPECT(quire_repair("x", NULL, NULL, NULL, NULL), QUIRE_ERR_INVALID);
    char from[200];
    make_plain("s");
    snprintf(from, sizeof(from), "%s", path_of("s"));
    struct quire_repair_report small = {.struct_size = 0};
    EXPECT(quire_repair(from, path_of("r"), NULL, NULL, &small), QUIRE_ERR_INVALID);
    EXPECT(repair("none", "r"), QUIRE_NOT_FOUND);
    cr_assert(!is_there("r") && !is_there("none"));
    EXPECT(repair("s", "s"), QUIRE_ERR_INVALID);
    make_plain("other");
    shell("mkdir foreign locked && touch foreign/file locked/lock && mkdir empty");
    const char *const kept[] = {"foreign", "locked", "other"};
    for (size_t i = 0; i < QR_ARRAY_COUNT(kept); i++) {
        uint64_t before = digest_of(kept[i]);
        EXPECT(repair("s", kept[i]), i == 2 ? QUIRE_EXISTS : QUIRE_ERR_FOREIGN);
        cr_assert_eq(digest_of(kept[i]), before, "%s was changed", kept[i]);
    }
    EXPECT(repair("foreign", "r"), QUIRE_ERR_FOREIGN);
    struct quire *db = open_store("s", QUIRE_OPEN_EXISTING);
    EXPECT(quire_repair(from, path_of("r"), NULL, NULL, NULL), QUIRE_ERR_BUSY);
    cr_assert(!is_there("r"));
    OK(quire_close(db));
    OK(quire_repair(from, path_of("empty"), NULL, NULL, NULL));
    cr_assert_eq(compare_stores("s", "empty"), 5001);
}

/* I15: the new store may not be in the directory of the old one, whatever leads there, nor around it */
Test(repair, refuses_a_place_within_the_old_store)
{
    make_plain("s");
    shell("mkdir s/inside s/inside/deep around around/in && cp -a s around/store && rm -r around/store/inside");
    shell("ln -s s link && ln -s s/inside/deep deep && ln -s . same");
    static const char *const within[] = {"s",          "s/",      "s/.",      "s/new",         "s/inside", "s/inside/new/", "link", "link/new",
                                         "deep",       "deep/new", "deep/..", "around/../s/x", "same/same/s/inside/y"};
    for (size_t i = 0; i < QR_ARRAY_COUNT(within); i++) {
        EXPECT(repair("s", within[i]), QUIRE_ERR_INVALID);
        EXPECT(repair("link", within[i]), QUIRE_ERR_INVALID);
    }
    EXPECT(repair("around/store", "around"), QUIRE_ERR_FOREIGN);
    shell("rmdir s/inside/deep s/inside && rm deep");
    EXPECT(repair("s", "around/none/new"), QUIRE_ERR_IO); /* there is nothing to make it in */
    EXPECT(repair("s", "s/manifest"), QUIRE_ERR_INVALID);
    expect_repair("link", "around/in", 0);
    expect_repair("around/store", "same/around/new", 0);
    cr_assert_eq(compare_stores("s", "around/in"), 5001);
    cr_assert_eq(compare_stores("s", "around/new"), 5001);
}

/* F15, I15: the root knows what the headers of segments say */
Test(repair, of_damaged_headers_of_segments)
{
    struct dirent *entry;
    char directory[200], file[300];
    int segments = 0;
    make_plain("s");
    snprintf(directory, sizeof(directory), "%s", path_of("s"));
    DIR *list = opendir(directory);
    while ((entry = readdir(list)) != NULL) {
        if (strncmp(entry->d_name, "page-", 5) != 0) continue;
        snprintf(file, sizeof(file), "%s/%.80s", directory, entry->d_name);
        damage_at(file, 20);
        segments++;
    }
    closedir(list);
    expect_corrupt("s");
    expect_repair("s", "lost", QUIRE_INCOMPLETE); /* where nothing tells what they said */
    cr_assert(report.segments_damaged == (uint64_t)segments && lost.ranges + lost.names > 0);
    undo_damage();
    for (int i = 0; i < segments; i++) { /* the one with the root, or another */
        char to[16];
        snprintf(to, sizeof(to), "r%d", i);
        snprintf(file, sizeof(file), "%s/page-%08x", directory, (unsigned)i + 1);
        damage_at(file, 20);
        expect_corrupt("s");
        int result = repair("s", to);
        cr_assert(result == 0 || result == QUIRE_INCOMPLETE);
        cr_assert((result == 0) == (report.segments_damaged == 0));
        undo_damage();
        if (result == 0) cr_assert_eq(compare_stores("s", to), 5001);
    }
}
