/*
 * Goal: whatever the pages of a store say of one another (children, neighbours, bounds, references, LSNs), with right sums, a database
 * on it answers: reads, scans, writes, maintenance, a checkpoint and verification end, with an error or without.
 * Method: a store of a few trees is made once. The input is a byte of flags and a list of patches: image, offset, size (1 to 8),
 * bytes; they are put over the images of its page segments, whose sums are made right. It is opened and used.
 */
#include <stdio.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "db/db.h"
#include "fuzz/fuzz.h"
#include "lib/resting.h"
#include "store/format.h"

enum { IMAGES_MOST = 256, KEYS = 300, ENTRIES_MOST = 20000 };
enum flag { READ_ONLY = 1, LAST_FIRST = 2 };

struct image {
    char name[QR_SEGMENT_NAME_BYTES];
    uint64_t offset;
    uint32_t size; /* with its header */
    uint32_t salt;
};

static struct simdisk *base;
static struct image images[IMAGES_MOST];
static uint32_t image_count;

/* ---- The store -------------------------------------------------------------------------------------------------- */

static struct quire_options options_of(uint32_t mode)
{
    struct quire_options options = resting_options(QUIRE_LEVEL_PROCESS);
    options.open_mode = mode;
    options.log_segment_bytes = 65536;
    options.blob_threshold_bytes = 100;
    options.stall_timeout_ms = 100;
    options.memory_limit_bytes = 64 << 20;
    return options;
}

static size_t key_of(uint32_t number, char *to)
{
    return (size_t)snprintf(to, 24, "key-%05u", number);
}

static void fill(struct quire *db, const char *name, uint32_t versions)
{
    struct quire_tree_options options;
    struct quire_tree *tree;
    char key[24], value[200] = "value";
    quire_tree_options_init(&options);
    options.versions = versions;
    options.leaf_page_size_bytes = options.inner_page_size_bytes = 512;
    FUZZ_CHECK(quire_tree_open(db, name, &options, &tree) == 0);
    for (uint32_t i = 0; i < KEYS; i++) {
        size_t key_size = key_of(i, key), size = i % 50 == 7 ? 150 : i % 20;
        int result = versions == QUIRE_VERSIONS_CALLER ? quire_put_at(tree, i % 5 + 1, key, key_size, value, size, 0, NULL)
                                                       : quire_put(tree, key, key_size, value, size, 0, NULL);
        FUZZ_CHECK(result == 0);
    }
}

static int note_images(void *context, const char *name)
{
    uint32_t number;
    uint64_t size;
    (void)context;
    if (!qr_segment_number_of(name, &number))
        return 0;
    const uint8_t *content = simdisk_content(base, "store", name, &size);
    for (uint64_t at = QR_SEGMENT_HEADER_BYTES; at + QR_IMAGE_HEADER_BYTES < size; at += QR_IMAGE_UNIT) {
        if (memcmp(content + at, "QIMG", 4) != 0 || image_count == IMAGES_MOST)
            continue;
        struct image *image = &images[image_count++];
        memcpy(image->name, name, strlen(name) + 1);
        image->offset = at;
        image->size = QR_IMAGE_HEADER_BYTES + qr_load_u32(content + at + 48);
        image->salt = qr_load_u32(content + 48);
    }
    return 0;
}

/* Once. Salts and ids are not the same in each process; the places are. */
static void make_base(void)
{
    struct quire_options options = options_of(QUIRE_OPEN_OR_CREATE);
    struct quire *db;
    if (base != NULL)
        return;
    base = simdisk_create();
    FUZZ_CHECK(qr_db_open("store", simdisk_disk(base), &options, &db) == 0);
    fill(db, "engine", QUIRE_VERSIONS_ENGINE);
    fill(db, "caller", QUIRE_VERSIONS_CALLER);
    FUZZ_CHECK(quire_close(db) == 0);
    struct qr_dir *dir = fuzz_open_dir(base, "store");
    FUZZ_CHECK(dir->disk->ops->dir_list(dir, note_images, NULL) == 0);
    dir->disk->ops->dir_close(dir);
    FUZZ_CHECK(image_count > 20);
}

/* ---- Patches ---------------------------------------------------------------------------------------------------- */

static void patch(struct simdisk *disk, struct fuzz_input *input, bool last_first)
{
    uint32_t number = (uint32_t)fuzz_take_number(input, 1) % image_count;
    const struct image *image = &images[last_first ? image_count - 1 - number : number];
    uint64_t place = QR_IMAGE_HEADER_BYTES + fuzz_take_number(input, 2) % (image->size - QR_IMAGE_HEADER_BYTES);
    uint8_t bytes[8];
    size_t size = qr_min(1 + fuzz_take_number(input, 1) % 8, image->size - place);
    uint64_t file_size;
    fuzz_take(input, bytes, size);
    simdisk_damage(disk, "store", image->name, image->offset + place, bytes, size);
    const uint8_t *content = simdisk_content(disk, "store", image->name, &file_size);
    uint32_t crc = qr_crc32c(image->salt, content + image->offset + 8, image->size - 8);
    simdisk_damage(disk, "store", image->name, image->offset + 4, &crc, sizeof(crc));
}

/* ---- Use -------------------------------------------------------------------------------------------------------- */

static void scan(struct quire_tree *tree, uint32_t reverse)
{
    struct quire_pages_options options;
    struct quire_pages *pages;
    struct quire_page page;
    uint64_t entries = 0;
    quire_pages_options_init(&options);
    options.reverse = reverse;
    if (quire_pages_open(tree, &options, &pages) != 0)
        return;
    while (quire_pages_next(pages, &page) == 0) {
        entries += page.count;
        FUZZ_CHECK(entries < ENTRIES_MOST); /* it goes round */
    }
    quire_pages_close(pages);
}

static void use(struct quire_tree *tree, bool caller)
{
    char key[24];
    static uint8_t buffer[4096];
    size_t size;
    scan(tree, 0);
    scan(tree, 1);
    for (uint32_t i = 0; i < KEYS; i += 13) {
        size_t key_size = key_of(i, key);
        if (caller) {
            (void)quire_get_at(tree, UINT64_MAX, key, key_size, buffer, sizeof(buffer), &size);
            (void)quire_put_at(tree, 9, key, key_size, "new", 3, 0, NULL);
        } else {
            (void)quire_get(tree, NULL, key, key_size, buffer, sizeof(buffer), &size);
            (void)(i % 3 == 0 ? quire_delete(tree, key, key_size, 0, NULL, NULL) : quire_put(tree, key, key_size, "new", 3, 0, NULL));
        }
    }
}

static void use_database(struct quire *db)
{
    struct quire_tree *tree;
    struct quire_tree_options options;
    quire_tree_options_init(&options);
    options.must_exist = 1;
    (void)quire_verify(db, NULL, NULL);
    if (quire_tree_open(db, "engine", &options, &tree) == 0)
        use(tree, false);
    options.versions = QUIRE_VERSIONS_CALLER;
    if (quire_tree_open(db, "caller", &options, &tree) == 0)
        use(tree, true);
    for (int i = 0; i < 200 && quire_maintain(db) == QUIRE_MORE; i++)
        ;
    (void)quire_checkpoint(db);
    (void)quire_verify(db, NULL, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t begun = fuzz_begin_database();
    make_base();
    struct fuzz_input input = {data, size};
    unsigned flags = (unsigned)fuzz_take_number(&input, 1);
    struct quire_options options = options_of((flags & READ_ONLY) != 0 ? QUIRE_OPEN_READ_ONLY : QUIRE_OPEN_EXISTING);
    struct simdisk *disk = simdisk_crash(base, &(struct simdisk_crash){.mode = SIMDISK_DEATH});
    struct quire *db;
    while (input.left > 4)
        patch(disk, &input, (flags & LAST_FIRST) != 0);
    if (qr_db_open("store", simdisk_disk(disk), &options, &db) == 0) {
        use_database(db);
        (void)quire_close(db);
    }
    fuzz_end(begun, disk);
    return 0;
}

/* Patches have no sums. */
void fuzz_repair(uint8_t *data, size_t size)
{
    (void)data;
    (void)size;
}

void fuzz_seeds(fuzz_sink *sink, void *context)
{
    sink(context, "nothing", "", 1);
    sink(context, "read_only", "\1", 1);
    /* In a page: kind and flags, count, right page, children. */
    static const uint8_t fields[][2] = {{2, 1}, {4, 4}, {96, 8}, {104, 8}, {64, 8}};
    for (size_t i = 0; i < QR_ARRAY_COUNT(fields); i++) {
        char name[16];
        uint8_t bytes[1 + 3 * 12] = {(uint8_t)(i % 2 * LAST_FIRST)};
        for (uint32_t k = 0; k < 3; k++) {
            uint8_t *to = bytes + 1 + k * 12;
            to[0] = (uint8_t)(k * 11 + i);
            to[1] = fields[i][0];
            to[3] = fields[i][1] - 1;
            to[4] = (uint8_t)(k + 3);
        }
        snprintf(name, sizeof(name), "field_%zu", i);
        sink(context, name, bytes, sizeof(bytes));
    }
}
