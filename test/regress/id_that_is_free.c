/*
 * Goal: an entry of an inner page may lead anywhere: every call answers, CORRUPT where it has to pass there.
 * Method: the entry of a root is changed, with a right checksum: to an id that is free, marked or not, to the root itself, to the
 * first leaf, to leaves of other trees that have been read. On each such store everything is called that walks a tree. Who does not end
 * is ended by an alarm.
 * The bug: a walker that met a free id began again at the root, for ever; a merge that was marked for one was begun again and
 * again; one of a page that lay elsewhere finished itself without end, and so did the statistics of a tree that led in a circle. What
 * is said of a leaf of another tree, once that had read it, was read and written there; if that has other records, with wild reads.
 */
#include <stdio.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "db/db.h"
#include "lib/check.h"
#include "lib/resting.h"
#include "lib/simdisk.h"
#include "page/inner.h"
#include "store/format.h"

#define STORE "store"
#define KEYS 100u
#define MOST_SECONDS 20u

static char value[100];
static uint64_t root, first_leaf, free_pid, other_leaves[2];
static struct quire_tree *tree, *others[2]; /* of the same kind, and with caller versions */

static size_t make_key(uint32_t number, char *key)
{
    return (size_t)snprintf(key, 16, "key-%05u", number);
}

static int open_on(struct simdisk *disk, struct quire **ret_db)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    struct quire_tree_options small = {
        .struct_size = sizeof(small), .leaf_page_size_bytes = 1024, .inner_page_size_bytes = 2048};
    int result = qr_db_open(STORE, simdisk_disk(disk), &options, ret_db);
    if (result == 0) result = quire_tree_open(*ret_db, "t", &small, &tree);
    if (result == 0) result = quire_tree_open(*ret_db, "other", &small, &others[0]);
    small.versions = QUIRE_VERSIONS_CALLER;
    return result != 0 ? result : quire_tree_open(*ret_db, "caller", &small, &others[1]);
}

/* The leaf of an entry of a tree's root. */
static uint64_t leaf_of(struct quire *db, const struct quire_tree *of, uint32_t entry)
{
    const struct qr_page *page = qr_word_block(qr_map_load(db->map, of->tree.root));
    CHECK(page->level == 1 && page->count > 3, "level %u, %u entries", page->level, page->count);
    return qr_inner_child(page, entry);
}

/* Leaves under one root, and a free id: that of a leaf that was merged away. */
static struct simdisk *make_store(void)
{
    struct simdisk *disk = simdisk_create();
    struct quire *db;
    char key[16];
    CHECK_EQUAL(open_on(disk, &db), 0);
    for (uint32_t i = 0; i < 2 * KEYS; i++)
        CHECK_EQUAL(quire_put(tree, key, make_key(i, key), value, sizeof(value), 0, NULL), 0);
    for (uint32_t i = KEYS; i < 2 * KEYS; i++) CHECK_EQUAL(quire_delete(tree, key, make_key(i, key), 0, NULL, NULL), 0);
    for (uint32_t i = 0; i < KEYS; i++) {
        CHECK_EQUAL(quire_put(others[0], key, make_key(i, key), value, sizeof(value), 0, NULL), 0);
        CHECK_EQUAL(quire_put_at(others[1], 1, key, make_key(i, key), value, sizeof(value), 0, NULL), 0);
    }
    while (quire_maintain(db) == QUIRE_MORE) {
    }
    CHECK_EQUAL(quire_checkpoint(db), 0);
    for (uint32_t i = 0; i < 2; i++) other_leaves[i] = leaf_of(db, others[i], 1);
    root = tree->tree.root;
    first_leaf = leaf_of(db, tree, 0);
    for (uint64_t pid = 1; pid < qr_map_end(db->map); pid++)
        if (qr_word_tag(qr_map_load(db->map, pid)) == QR_WORD_FREE) free_pid = pid;
    CHECK(free_pid != 0, "no id is free");
    CHECK_EQUAL(quire_close(db), 0);
    return disk;
}

/* Entry 1 of the root leads to another page. Whatever images of the root there are. */
static void lead_to(struct simdisk *disk, uint64_t child)
{
    for (uint32_t number = 0; number < 40; number++) {
        char name[QR_SEGMENT_NAME_BYTES];
        struct qr_segment_header header;
        uint64_t size;
        qr_segment_name(number, name);
        const uint8_t *content = simdisk_content(disk, STORE, name, &size);
        if (content == NULL || !qr_segment_header_decode(content, &header)) continue;
        for (uint64_t at = QR_SEGMENT_HEADER_BYTES; at + QR_IMAGE_HEADER_BYTES < size; at += QR_IMAGE_UNIT) {
            const struct qr_page *page = (const void *)(content + at + QR_IMAGE_HEADER_BYTES);
            if (memcmp(content + at, "QIMG", 4) != 0 || page->pid != root || page->kind != QR_PAGE_INNER) continue;
            uint64_t place = (uint64_t)((const uint8_t *)&qr_inner_group(page, 0)->children[1] - content);
            uint32_t summed = QR_IMAGE_HEADER_BYTES - 8 + qr_load_u32(content + at + 48);
            simdisk_damage(disk, STORE, name, place, &child, sizeof(child));
            content = simdisk_content(disk, STORE, name, &size);
            uint32_t sum = qr_crc32c(header.salt, content + at + 8, summed);
            simdisk_damage(disk, STORE, name, at + 4, &sum, sizeof(sum));
            content = simdisk_content(disk, STORE, name, &size);
        }
    }
}

/* Until it answers anything but a page. */
static int scan(uint32_t reverse)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    int result;
    quire_pages_options_init(&options);
    options.reverse = reverse;
    CHECK_EQUAL(quire_pages_open(tree, &options, &pages), 0);
    do {
        result = quire_pages_next(pages, &page);
    } while (result == 0);
    quire_pages_close(pages);
    return result;
}

/* What gets of many answer, by one and one: what gets of one do. */
static void get_many(struct quire *db)
{
    char key[16];
    struct quire_guard guard;
    struct quire_value many, one;
    int found = 0;
    CHECK_EQUAL(quire_pin(db, "many", &guard), 0);
    for (uint32_t i = 0; i < KEYS; i++) {
        struct quire_slice slice = {(const uint8_t *)key, make_key(i, key)};
        int result = quire_get_many(&guard, tree, NULL, &slice, 1, &many, &found);
        int expected = quire_guard_get(&guard, tree, NULL, key, slice.size, &one);
        if (result == 0) result = found;
        CHECK(result == expected, "key %u: %d by many, %d alone", i, result, expected);
        if (result == 0 && expected == 0) CHECK(many.size == one.size && memcmp(many.data, one.data, one.size) == 0, "key %u", i);
    }
    CHECK_EQUAL(quire_unpin(&guard), 0);
}

/* same_kind: it leads to a leaf that gets do not tell from one of the tree. */
static void use(struct quire *db, bool same_kind)
{
    struct quire_stats stats = {.struct_size = sizeof(stats)};
    char key[16], got[200];
    size_t size;
    uint32_t corrupt = 0;
    for (uint32_t i = 0; i < KEYS; i++) { /* what they have is in memory from here on */
        CHECK_EQUAL(quire_get(others[0], NULL, key, make_key(i, key), got, sizeof(got), &size), 0);
        CHECK_EQUAL(quire_get_at(others[1], 1, key, make_key(i, key), got, sizeof(got), &size), 0);
    }
    for (uint32_t i = 0; i < KEYS; i++) {
        int result = quire_get(tree, NULL, key, make_key(i, key), got, sizeof(got), &size);
        CHECK(result == 0 || result == QUIRE_ERR_CORRUPT, "get: %d", result);
        if (result == QUIRE_ERR_CORRUPT) corrupt++;
    }
    CHECK((corrupt != 0 || same_kind) && corrupt < KEYS, "%u of %u", corrupt, KEYS);
    get_many(db);
    CHECK_EQUAL(quire_stats(db, &stats), 0);
    CHECK_EQUAL(scan(0), QUIRE_ERR_CORRUPT);
    CHECK_EQUAL(scan(1), QUIRE_ERR_CORRUPT);
    corrupt = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        int result = quire_put(tree, key, make_key(i, key), value, sizeof(value), 0, NULL);
        CHECK(result == 0 || result == QUIRE_ERR_CORRUPT, "put: %d", result);
        if (result == QUIRE_ERR_CORRUPT) corrupt++;
    }
    CHECK(corrupt != 0 && corrupt < KEYS, "%u of %u puts", corrupt, KEYS);
    for (uint32_t i = 0; i < KEYS; i++) { /* leaves become small: merges on both sides of the entry */
        int result = quire_delete(tree, key, make_key(i, key), 0, NULL, NULL);
        CHECK(result == 0 || result == QUIRE_ERR_CORRUPT, "delete: %d", result);
        if (i % 10 == 0) (void)quire_put(tree, key, make_key(i, key), "", 0, 0, NULL);
    }
    for (uint32_t i = 0; i < 100 && quire_maintain(db) == QUIRE_MORE; i++) {
    }
    (void)quire_checkpoint(db);
    CHECK_EQUAL(quire_verify(db, NULL, NULL), QUIRE_ERR_CORRUPT);
    CHECK_EQUAL(quire_stats(db, &stats), 0);
}

static void run(struct simdisk *made, const char *what, uint64_t child)
{
    struct simdisk *disk = simdisk_crash(made, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    struct quire *db;
    printf("%s\n", what);
    lead_to(disk, child);
    alarm(MOST_SECONDS);
    if (CHECK_EQUAL(open_on(disk, &db), 0)) {
        use(db, (child & ~QR_CHILD_MERGING) == other_leaves[0]);
        (void)quire_close(db);
    }
    alarm(0);
    simdisk_free(disk);
}

int main(void)
{
    struct simdisk *disk = make_store();
    setvbuf(stdout, NULL, _IOLBF, 0);
    run(disk, "a free id", free_pid);
    run(disk, "a free id, to be merged", free_pid | QR_CHILD_MERGING);
    run(disk, "the root", root);
    run(disk, "the root, to be merged", root | QR_CHILD_MERGING);
    run(disk, "the first leaf", first_leaf);
    run(disk, "the first leaf, to be merged", first_leaf | QR_CHILD_MERGING);
    run(disk, "a leaf of another tree", other_leaves[0]);
    run(disk, "a leaf of a tree with caller versions", other_leaves[1]);
    run(disk, "the same, to be merged", other_leaves[1] | QR_CHILD_MERGING);
    simdisk_free(disk);
    return check_finish();
}
